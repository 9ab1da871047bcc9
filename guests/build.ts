/**
 * node guests/build.ts [--out DIR] [GUEST ...]
 * Builds our guests with the machine's C compiler. A guest is a folder with a main.c or main.S; common/ is linked to each.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { UserError } from "../src/base/errors.ts";

const ROOT = import.meta.dirname, COMMON = join(ROOT, "common");
const FLAGS = ["-m64", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-pic", "-no-pie", "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none",
  "-fno-asynchronous-unwind-tables", "-fno-strict-aliasing", "-fno-tree-loop-distribute-patterns", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", "-Wl,-z,noexecstack", "-Wl,--no-warn-rwx-segments"];

/** Names of all guests. */
export const guestNames = (): string[] =>
  readdirSync(ROOT, { withFileTypes: true }).filter((d) => d.isDirectory() && sources(d.name).length).map((d) => d.name).sort();
const sources = (name: string): string[] => ["main.c", "main.S"].map((f) => join(ROOT, name, f)).filter((f) => existsSync(f));

/** Where built guests go unless told otherwise. */
export const defaultOut = join(ROOT, "..", "var", "guests");

/** Build one guest unless it is newer than its sources. Returns the path of its ELF file. */
export function buildGuest(name: string, out = defaultOut): string {
  const own = sources(name);
  if (!/^[a-z0-9]+$/.test(name) || !own.length) throw new UserError(`No guest "${name}"; there are: ${guestNames().join(", ")}`);
  const elf = join(out, `${name}.elf`), common = readdirSync(COMMON).map((f) => join(COMMON, f));
  if (existsSync(elf) && [...own, ...common].every((f) => statSync(f).mtimeMs < statSync(elf).mtimeMs)) return elf;
  mkdirSync(out, { recursive: true });
  try {
    execFileSync("gcc", [...FLAGS, "-T", join(COMMON, "guest.ld"), "-o", elf, ...own, ...common.filter((f) => /\.[cS]$/.test(f))], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (e) {
    const stderr = (e as { stderr?: Uint8Array }).stderr;
    throw new UserError((e as { code?: string }).code === "ENOENT" ? "Building a guest needs gcc and binutils" : `Guest "${name}" does not build:\n${stderr ? new TextDecoder().decode(stderr) : e}`);
  }
  return elf;
}

/** Why guests cannot be built here, or false. */
export function guestsMissing(): string | false {
  try { execFileSync("gcc", ["--version"], { stdio: "ignore" }); } catch { return "Building a guest needs gcc and binutils"; }
  return process.arch === "x64" ? false : "Building a guest needs an x86-64 compiler";
}

if (process.argv[1] === import.meta.filename) {
  const { values, positionals } = parseArgs({ options: { out: { type: "string", default: defaultOut } }, allowPositionals: true });
  try {
    for (const name of positionals.length ? positionals : guestNames()) console.log(buildGuest(name, values.out));
  } catch (e) {
    if (!(e instanceof UserError)) throw e;
    console.error(e.message);
    process.exitCode = 2;
  }
}
