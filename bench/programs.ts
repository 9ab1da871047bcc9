/** The integer programs of bench/programs: built with the machine's compiler, packed into an initramfs, read back from a console. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { UserError } from "../src/base/errors.ts";
import { cpio } from "../src/builder/cpio.ts";
import { type Images, root } from "../test/guest.ts";

export const PROGRAMS = ["sha256", "crc32", "sort", "bytecode", "recursion", "matrix", "list", "muldiv"] as const;
export type Program = (typeof PROGRAMS)[number];

/** General registers only, no library: what is measured is the integer engine. */
const FLAGS = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-static", "-nostdlib", "-fno-pic", "-no-pie", "-mgeneral-regs-only", "-fno-stack-protector", "-fno-builtin",
  "-fno-tree-loop-distribute-patterns", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-Ttext-segment=0x400000"];
const sources = join(root, "bench/programs"), out = join(root, "var/bench");

/** Build an ELF file unless it is newer than all it is made from. @returns its path */
export function compile(elf: string, args: readonly string[], madeFrom: readonly string[]): string {
  const age = (path: string) => statSync(path).mtimeMs;
  if (existsSync(elf) && madeFrom.every((f) => age(f) < age(elf))) return elf;
  mkdirSync(dirname(elf), { recursive: true });
  try {
    execFileSync("gcc", [...args, "-o", elf], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (e) {
    const { code, stderr } = e as { code?: string; stderr?: Uint8Array };
    throw new UserError(code === "ENOENT" ? "The programs are built with gcc, which is not here" : `"${elf}" does not build:\n${new TextDecoder().decode(stderr)}`);
  }
  return elf;
}
/** Build a program. @returns the path of a static ELF file */
export const build = (name: Program): string =>
  compile(join(out, name), [...FLAGS, `-DNAME="${name}"`, join(sources, `${name}.c`), join(sources, "driver.c")], readdirSync(sources).map((f) => join(sources, f)));

/** The same initramfs with the programs in /bench; Linux unpacks archives that follow each other. */
export function withPrograms(images: Images): Images {
  const more = cpio(PROGRAMS.map((name) => ({ kind: "file", path: `bench/${name}`, mode: 0o755, bytes: readFileSync(build(name)) }) as const));
  const ramdisk = join(out, "initramfs.cpio");
  writeFileSync(ramdisk, Buffer.concat([readFileSync(images.ramdisk), more]));
  return { kernel: images.kernel, ramdisk };
}

/** What the driver printed: digest and milliseconds, a run each. */
export type Run = { readonly name: string; readonly digest: string; readonly ms: number };
/** Read the driver's lines. */
export const readRuns = (text: string): Run[] =>
  [...text.matchAll(/^BENCH (\w+) ([0-9a-f]{16}) (\d+)\r?$/gm)].map((m) => ({ name: m[1]!, digest: m[2]!, ms: Number(m[3]) / 1e6 }));

/** Run a program here, on the bare processor. */
export const runNatively = (name: Program, times: number): Run[] => readRuns(execFileSync(build(name), [String(times)], { encoding: "utf8" }));
