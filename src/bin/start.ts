/** `domus start` (npm start): from a fresh clone to the shell of a stock Debian kernel. */
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../base/errors.ts";
import { checkConfig, type DomainConfig } from "../toolstack/config.ts";
import { randomMac } from "../toolstack/xlvif.ts";
import { MODULES, RECIPE, shellInitramfs } from "../toolstack/initramfs.ts";
import { numberOption, type Option, optionsHelp, parseArgs } from "./args.ts";
import { Debian, type Package, type Progress } from "./debian.ts";
import { makeFolders } from "./paths.ts";
import { readImages, RUN_OPTIONS, runDomains, runOptions } from "./run.ts";
import { printLine } from "./terminal.ts";

const { strict: _, throwaway: __, ...SHARED } = RUN_OPTIONS;
const OPTIONS: Readonly<Record<string, Option>> = {
  kernel: { value: "FILE", help: "a bzImage or PVH ELF image of your own, in place of Debian's" },
  ramdisk: { value: "FILE", help: "an initramfs of your own, in place of the one made from busybox" },
  cmdline: { value: "TEXT", help: 'the kernel\'s command line (default: "console=hvc0")' },
  memory: { value: "MIB", help: "the guest's memory (default: 256)" },
  update: { help: "ask apt for newer packages" },
  generic: { help: "Debian's generic kernel in place of the cloud one" },
  fetch: { help: "fetch and make the files, print their paths, and start nothing" },
  ...SHARED,
};
const HELP = `domus start [options]

Fetches Debian's kernel and busybox as packages, makes an initramfs, and leaves you in its shell. poweroff ends the guest, ^] leaves it.
What was fetched stays in var/; the next start uses it again.

${optionsHelp(OPTIONS)}`;

const folder = fileURLToPath(new URL("../../var/start/", import.meta.url));
/** `modules`: those that were looked for in the kernel's package. */
type Stamp = { kernel: Package; busybox: Package; recipe: number; modules?: readonly string[] };

/** Progress as lines on stderr; on a terminal the line of a running step is rewritten with its percents. */
function progressLines(nrSteps: number, quiet: boolean): Progress {
  let nr = 0, text = "", begun = 0;
  const write = (s: string) => { if (!quiet) process.stderr.write(s); };
  return {
    step: (what) => { text = /^Refresh/.test(what) ? `      ${what}` : `[${Math.min(++nr, nrSteps)}/${nrSteps}] ${what}`; begun = performance.now(); write(process.stderr.isTTY ? text : ""); },
    percent: (done, of) => { if (process.stderr.isTTY && of > 0) write(`\r${text} ${Math.min(100, Math.floor((100 * done) / of))} %`); },
    close: () => { if (text && process.stderr.isTTY) write("\n"); text = ""; },
    done: (note = "") => { write(`${process.stderr.isTTY ? "\r\x1b[K" : ""}${text}${note ? `: ${note}` : ""} (${((performance.now() - begun) / 1000).toFixed(1)} s)\n`); text = ""; },
  };
}
const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Put a file in place whole, or not at all. */
function place(path: string, write: (temporary: string) => void): void {
  write(`${path}.new`);
  renameSync(`${path}.new`, path);
}

/** Fetch what `domus start` boots, where it is missing. @returns paths of the kernel and the initramfs */
export async function prepareStart(flavour: "cloud" | "generic", wanted: { update: boolean; quiet: boolean }): Promise<{ kernel: string; ramdisk: string }> {
  makeFolders(folder);
  const kernel = join(folder, `vmlinuz-${flavour}`), ramdisk = join(folder, `initramfs-${flavour}.cpio`), modules = join(folder, `modules-${flavour}`), stampPath = join(folder, `stamp-${flavour}.json`);
  const stamp = readStamp(stampPath);
  const hasModules = JSON.stringify(stamp?.modules) === JSON.stringify(MODULES) && existsSync(modules);
  if (stamp && !wanted.update && stamp.recipe === RECIPE && hasModules && existsSync(kernel) && existsSync(ramdisk)) return { kernel, ramdisk };

  const debian = new Debian(join(folder, "packages")), progress = progressLines(4, wanted.quiet);
  const meta = flavour === "cloud" ? "linux-image-cloud-amd64" : "linux-image-amd64";
  const leave = () => { debian.stop(); process.exit(130); };
  process.once("SIGINT", leave);
  try {
    const lookUpAndFetch = async () => {
      progress.step(`Look up ${meta}`);
      const concrete = await debian.resolvePackage(meta, /^linux-image-\d/, progress);
      const image = await debian.candidate(concrete), busybox = await debian.candidate("busybox-static");
      progress.done(`${image.name} ${image.version}`);
      progress.step(`Fetch ${mib(image.sizeBytes + busybox.sizeBytes)}`);
      const debs = [await debian.fetch(image, progress), await debian.fetch(busybox, progress)] as const;
      progress.done();
      return { image, busybox, debs };
    };
    if (wanted.update) await debian.refreshLists(progress);
    // Lists that are older than the archive name packages that are gone.
    const { image, busybox, debs } = await lookUpAndFetch().catch(async (e) => {
      if (!(e instanceof UserError) || wanted.update || !/^Fetching/.test(e.message)) throw e;
      progress.done(e.message);
      await debian.refreshLists(progress);
      return lookUpAndFetch();
    });

    const tree = join(folder, "tree");
    if (!stamp || stamp.kernel.version !== image.version || !existsSync(kernel) || !hasModules) {
      progress.step("Unpack the kernel");
      rmSync(tree, { recursive: true, force: true });
      await debian.unpack(debs[0], tree);
      const file = readdirSync(join(tree, "boot")).find((f) => f.startsWith("vmlinuz-"));
      if (!file) throw new UserError(`${image.name} has no boot/vmlinuz in it`);
      place(kernel, (t) => copyFileSync(join(tree, "boot", file), t));
      rmSync(modules, { recursive: true, force: true });
      mkdirSync(modules);
      for (const path of readdirSync(join(tree, "lib/modules"), { recursive: true, encoding: "utf8" })) if (MODULES.includes(basename(path))) copyFileSync(join(tree, "lib/modules", path), join(modules, basename(path)));
      for (const map of readdirSync(join(tree, "boot")).filter((f) => f.startsWith("System.map-"))) copyFileSync(join(tree, "boot", map), join(folder, `System.map-${flavour}`));
      rmSync(tree, { recursive: true, force: true });
      progress.done();
    }
    progress.step("Make the initramfs");
    rmSync(tree, { recursive: true, force: true });
    await debian.unpack(debs[1], tree);
    const binary = [join(tree, "bin/busybox"), join(tree, "usr/bin/busybox")].find(existsSync);
    if (!binary) throw new UserError("busybox-static has no busybox in it");
    const applets = (await debian.ask(binary, ["--list-full"]))?.trim().split("\n") ?? [];
    const archive = shellInitramfs(readFileSync(binary), applets, new Map(readdirSync(modules).map((name) => [name, readFileSync(join(modules, name))])));
    place(ramdisk, (t) => writeFileSync(t, archive));
    rmSync(tree, { recursive: true, force: true });
    place(stampPath, (t) => writeFileSync(t, JSON.stringify({ kernel: image, busybox, recipe: RECIPE, modules: MODULES } satisfies Stamp)));
    progress.done(`${applets.length} applets, ${mib(archive.length)}, sha256 ${createHash("sha256").update(archive).digest("hex").slice(0, 12)}`);
    return { kernel, ramdisk };
  } finally {
    progress.close();
    process.off("SIGINT", leave);
  }
}

function readStamp(path: string): Stamp | null {
  try { return JSON.parse(readFileSync(path, "utf8")) as Stamp; } catch { return null; }
}

/** The command. */
export async function start(args: string[]): Promise<number> {
  const parsed = parseArgs(args, OPTIONS, "start"), { options } = parsed;
  if (options.has("help")) { process.stdout.write(HELP); return 0; }
  if (parsed.words.length) throw new UserError(`domus start takes options only, not "${parsed.words[0]}"; domus run takes files`);
  const shared = runOptions(parsed), memoryMiB = numberOption(parsed, "memory", 16, 4000) ?? 256;
  const own = { kernel: options.get("kernel"), ramdisk: options.get("ramdisk") };
  if (shared.shares.length && own.kernel === undefined && !options.has("generic")) throw new UserError('Option "--share": Debian\'s cloud kernel cannot mount it, for it has no 9p; give "--generic" too');
  let fetched: { kernel: string; ramdisk: string } | null = null;
  if (own.kernel === undefined || own.ramdisk === undefined) {
    fetched = await prepareStart(options.has("generic") ? "generic" : "cloud", { update: options.has("update"), quiet: shared.quiet });
  }
  const kernel = own.kernel ?? fetched!.kernel, ramdisk = own.ramdisk ?? fetched!.ramdisk;
  if (options.has("fetch")) { process.stdout.write(`${kernel}\n${ramdisk}\n`); return 0; }
  const { first, again } = readImages({ path: kernel, name: kernel, what: "kernel" }, { path: ramdisk, name: ramdisk, what: "ramdisk" });
  const config: DomainConfig = {
    name: "debian", type: "pvh", memoryMiB, cmdline: options.get("cmdline") ?? "console=hvc0", ...first,
    ...(own.ramdisk === undefined ? { vifs: [{ mac: randomMac() }] } : {}),
  };
  if (!shared.quiet) printLine(`booting a guest of ${memoryMiB} MiB; ^] leaves and ends it, poweroff inside ends it too`);
  if (!shared.quiet) for (const { tag, source } of shared.shares) printLine(`${source.path} is there for it: mount -t 9p -o trans=xen,version=9p2000.L ${tag} /mnt`);
  return runDomains([{ config: checkConfig(config), channels: [], again }], shared);
}
