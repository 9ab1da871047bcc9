/** The peer v86: a 32-bit PC in JavaScript and WebAssembly, from npm, with Debian's 32-bit kernel and busybox. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../src/base/errors.ts";
import { Debian, type Package, type Progress } from "../src/bin/debian.ts";
import { RECIPE, shellInitramfs } from "../src/toolstack/initramfs.ts";
import { Guest, type Images, root } from "../test/guest.ts";
import { benchFolder, buildGbench, withBench } from "./gbench.ts";
import { guestPlace, type Place } from "./places.ts";

const folder = join(root, "var/bench/i386"), FLAVOUR = "linux-image-686";
/** nosoftlockup: the guest is stopped while others work, and its watchdog would write about that between gbench's lines. */
export const V86_CMDLINE = "console=ttyS0 nosoftlockup";

const progress = (say: (text: string) => void): Progress => ({ step: (what) => say(`cpu: ${what} (i386)`), percent() {}, done() {}, close() {} });

/** Fetch the kernel and busybox unless they are here. They are of Debian's architecture i386; this computer's packages stay as they are. */
async function images32(say: (text: string) => void): Promise<Images> {
  const kernel = join(folder, "vmlinuz"), ramdisk = join(folder, "initramfs.cpio"), busybox = join(benchFolder(32), "busybox"), stamp = join(folder, `recipe-${RECIPE}`);
  if ([kernel, ramdisk, busybox, stamp].every(existsSync)) return { kernel, ramdisk };
  const debian = new Debian(join(folder, "packages"), "i386"), shown = progress(say), tree = join(folder, "tree");
  // An archive's security part may be in the middle of an update; what the rest has will do.
  await debian.refreshLists(shown).catch((e: unknown) => { if (!(e instanceof UserError)) throw e; });
  const unpack = async (found: Package): Promise<void> => debian.unpack(await debian.fetch(found, shown), tree);
  rmSync(tree, { recursive: true, force: true });
  shown.step("Fetch a kernel and busybox");
  await unpack(await debian.candidate(await debian.resolvePackage(FLAVOUR, /^linux-image-\d/, shown)));
  await unpack(await debian.candidate("busybox-static"));
  const image = readdirSync(join(tree, "boot")).find((f) => f.startsWith("vmlinuz-")), binary = ["bin/busybox", "usr/bin/busybox"].map((f) => join(tree, f)).find(existsSync);
  if (!image || !binary) throw new UserError(`Debian's packages ${FLAVOUR} and busybox-static lack their files`);
  const applets = (await debian.ask(binary, ["--list-full"]))?.trim().split("\n") ?? [];
  mkdirSync(benchFolder(32), { recursive: true });
  copyFileSync(binary, busybox);
  copyFileSync(join(tree, "boot", image), kernel);
  writeFileSync(ramdisk, shellInitramfs(readFileSync(binary), applets));
  rmSync(tree, { recursive: true, force: true });
  writeFileSync(stamp, "");
  return { kernel, ramdisk };
}

/** Its kernel, and an initramfs with /bench. @throws where they cannot be had */
export async function v86Images(say: (text: string) => void): Promise<Images> {
  const base = await images32(say);
  buildGbench(32);
  return withBench(base, 32);
}
/** Boot it. @throws where it cannot be had */
export async function v86Place(name: string, memoryMiB: number, say: (text: string) => void): Promise<Place> {
  const { kernel, ramdisk } = await v86Images(say);
  const runner = fileURLToPath(new URL("v86-runner.ts", import.meta.url));
  return guestPlace(name, 32, new Guest(process.execPath, [runner, kernel, ramdisk, String(memoryMiB), V86_CMDLINE]), true);
}
