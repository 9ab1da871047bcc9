/** Builds and asks the two oracles: Xen's libraries about disk specifications (disk.c), and Debian's xl, in a dry run without Xen (no-xen.c). */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
let folder: string | undefined;
const workFolder = (): string => {
  if (folder === undefined) {
    const made = mkdtempSync(join(tmpdir(), "xl-oracle-"));
    process.on("exit", () => rmSync(made, { recursive: true }));
    folder = made;
  }
  return folder;
};

function gcc(source: string, out: string, args: readonly string[]): string {
  const path = join(workFolder(), out);
  if (existsSync(path)) return path;
  const r = spawnSync("gcc", ["-O1", "-o", path, join(here, source), ...args], { encoding: "utf8" });
  if (r.error) throw new Error(`The xl oracle needs gcc, which did not start: ${r.error.message}`);
  if (r.status !== 0) throw new Error(`gcc could not build ${source}; it needs the headers and static libraries of libxen-dev: ${r.stderr}`);
  return path;
}

/** What disk.c prints; enumerations are libxl's numbers (_libxl_types.h), -1 is a flag that was not set. */
export type OracleDisk = {
  readonly error: string | null; readonly target: string | null; readonly vdev: string | null; readonly script: string | null; readonly backend: string | null;
  readonly coloHost: string | null; readonly coloExport: string | null; readonly activeDisk: string | null; readonly hiddenDisk: string | null; readonly coloPort: number;
  readonly format: number; readonly backendtype: number; readonly specification: number; readonly isCdrom: number; readonly isWritable: number;
  readonly directIoSafe: number; readonly discard: number; readonly trusted: number; readonly colo: number; readonly device: number;
};

/** Ask libxlu and libxl about each; several strings are one disk. */
export function askLibxlu(specs: readonly (readonly string[])[]): OracleDisk[] {
  // libxenlight.a holds all of libxl; what needs yajl, uuid and libxc is never called and stays unresolved
  const program = gcc("disk.c", "disk", ["-no-pie", "-l:libxlutil.a", "-l:libxenlight.a", "-Wl,--unresolved-symbols=ignore-all,-z,lazy"]);
  const r = spawnSync(program, { input: specs.map((s) => `${s.join("\x01")}\0`).join(""), encoding: "utf8", maxBuffer: 1 << 26 });
  const answers = r.stdout.trimEnd().split("\n");
  if (r.status !== 0 || answers.length !== specs.length) throw new Error(`The disk oracle ended early (status ${r.status}, signal ${r.signal}) after ${answers.length} of ${specs.length}`);
  return answers.map((line) => JSON.parse(line) as OracleDisk);
}

/** What xl says of a configuration file: libxl_domain_config as JSON, or null where it refuses, and its remarks. */
export type XlAnswer = { readonly config: { disks?: Record<string, unknown>[]; nics?: Record<string, unknown>[]; p9s?: Record<string, unknown>[] } | null; readonly said: string };

/** Debian's xl, preloaded so that what asks no Xen works without one. */
export function runXl(...args: string[]): { readonly code: number; readonly out: string; readonly err: string } {
  const shim = gcc("no-xen.c", "no-xen.so", ["-shared", "-fPIC"]);
  const lib = readdirSync("/usr/lib").find((n) => /^xen-[0-9.]+$/.test(n) && existsSync(`/usr/lib/${n}/bin/xl`));
  if (lib === undefined) throw new Error("xl is not installed: the comparison needs Debian's xen-utils");
  const r = spawnSync(`/usr/lib/${lib}/bin/xl`, args, { encoding: "utf8", env: { ...process.env, LD_PRELOAD: shim }, maxBuffer: 1 << 26 });
  if (r.status === null) throw new Error(`xl was ended by ${r.signal}: ${r.stderr}`);
  return { code: r.status, out: r.stdout, err: r.stderr };
}

/** `xl create -n` of a file. */
export function askXl(text: string): XlAnswer {
  const file = join(workFolder(), "domain.cfg");
  writeFileSync(file, text);
  const { code, out, err } = runXl("create", "-n", file);
  return { config: code === 0 ? JSON.parse(out) as NonNullable<XlAnswer["config"]> : null, said: err.split("\n").filter((l) => l && !l.startsWith("Parsing config")).join("\n") };
}
