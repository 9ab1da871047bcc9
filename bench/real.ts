/** Programs that people run, beside gbench's loops: from this computer's Debian, the very same files in guests and on the bare processor. */
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, normalize } from "node:path";
import { UserError } from "../src/base/errors.ts";
import { Debian } from "../src/bin/debian.ts";
import type { CpioEntry } from "../src/builder/cpio.ts";
import { root } from "../test/guest.ts";
import { type Bits, benchFolder, type GbEnd } from "./gbench.ts";
import { folder } from "./ground.ts";

/** A row: a shell line that writes what is to be compared to the file `out`. */
export type RealProgram = { readonly label: string; readonly line: string; readonly bits: readonly Bits[] };

const PYTHON = "/usr/bin/python3", GCC = "/usr/bin/gcc", BOTH = [32, 64] as const, WIDE = [64] as const;
/** -I -S: nothing of this computer's own settings and packages. -B: leaves no files behind. */
const PYTHON_LINE = `${PYTHON} -I -S -B -c "import json, re; print(json.dumps(re.findall(r\\"[a-z]+\\", \\"a small start\\")))"`, STARTS = 5;

/** Files to work on, made before anything is timed. */
export const PREPARE = "gbench gen random 64 >random64; gbench gen random 16 >random16; gbench gen text 16 >text16";
export const REAL: readonly RealProgram[] = [
  { label: "sha256sum-64MB", line: "busybox sha256sum random64 >out", bits: BOTH },
  { label: "gzip-random-16MB", line: "busybox gzip <random16 >out", bits: BOTH },
  { label: "gzip-text-16MB", line: "busybox gzip <text16 >out", bits: BOTH },
  { label: `python-start-x${STARTS}`, line: `for i in ${Array.from({ length: STARTS }, (_, i) => i).join(" ")}; do ${PYTHON_LINE}; done >out`, bits: WIDE },
  { label: "gcc-compile", line: `${GCC} -O1 -ffreestanding -c -o out $BENCH/unit.c`, bits: WIDE },
];
/** The whole line: the program by gbench's stopwatch, then what it wrote, in short. */
export const realLine = ({ label, line }: RealProgram): string => `gbench exec ${label} busybox sh -c '${line}'; busybox md5sum <out`;
/** What realLine's last part printed. @throws when the program failed */
export function readSum(end: GbEnd, text: string): string {
  const sum = /^([0-9a-f]{32}) /m.exec(text)?.[1];
  if (end.check !== "rc=0" || sum === undefined) throw new Error(`${end.name} failed:\n${text}`);
  return sum;
}

/** A C file of some two hundred lines, of the things compilers see: structs, loops, switches, calls. No headers, nor the one that a hosted compiler reads unasked. */
export function unitC(): string {
  const functions = Array.from({ length: 16 }, (_, i) => `static int step${i}(struct item *at, int n, int key) {
  int sum = ${i * 7 + 1};
  for (int k = 0; k < n; k++) {
    switch ((at[k].kind + key) & 3) {
      case 0: sum += at[k].value * ${i + 3}; break;
      case 1: sum ^= at[k].value >> ${(i % 5) + 1}; break;
      case 2: at[k].value = sum % ${i * 13 + 17}; break;
      default: sum -= at[k].kind${i ? `; if (key > n) sum += step${i - 1}(at, k, sum & 7)` : ""}; break;
    }
  }
  return sum;
}`);
  const calls = functions.map((_, i) => `  sum += step${i}(items, n, sum);`);
  return ["struct item { int kind, value; };", ...functions, "int run(struct item *items, int n) {", "  int sum = 0;", ...calls, "  return sum;", "}", ""].join("\n");
}

/** Put busybox and the C file into the 64-bit folder. busybox is the one that `domus start` fetched. */
export async function prepareReal(): Promise<void> {
  const packages = join(root, "var/start/packages"), into = benchFolder(64), tree = join(folder(), "busybox");
  const deb = existsSync(packages) ? readdirSync(packages).filter((f) => f.startsWith("busybox-static_")).map((f) => join(packages, f)).sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0] : undefined;
  if (!deb) throw new UserError("There is no package busybox-static in var/start/packages; npm start -- --update --fetch brings it");
  await new Debian(packages).unpack(deb, tree);
  mkdirSync(into, { recursive: true });
  copyFileSync(["bin/busybox", "usr/bin/busybox"].map((f) => join(tree, f)).find(existsSync)!, join(into, "busybox"));
  rmSync(tree, { recursive: true, force: true });
  writeFileSync(join(into, "unit.c"), unitC());
}

const ask = (program: string, ...args: string[]): string => {
  try { return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim(); } catch { return ""; }
};
/** A program and the libraries that the dynamic linker would load. */
const withLibraries = (path: string): string[] => [path, ...[...ask("ldd", path).matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((m) => m[1]!)];
/** A file at the path it is asked for by, with its time: Python's compiled files name their source's. */
const entry = (path: string): CpioEntry => ({ kind: "file", path, mode: statSync(path).mode & 0o777, mtime: Math.floor(statSync(path).mtimeMs / 1000), bytes: readFileSync(path) });

/** The compiler proper, the assembler, and what they need. */
function gccFiles(): string[] {
  const found = ["cc1", "as"].map((name) => ask(GCC, `-print-prog-name=${name}`)).map((path) => (path.startsWith("/") ? normalize(path) : `/usr/bin/${path}`));
  return existsSync(GCC) && found.every(existsSync) ? [GCC, ...found].flatMap(withLibraries) : [];
}
/** The interpreter and the modules that PYTHON_LINE loads, compiled and as source. */
function pythonFiles(): string[] {
  const script = "import json, re, sys, os; print('\\n'.join([os.__file__] + [f for m in sys.modules.values() for f in (getattr(m, '__file__', None), getattr(m, '__cached__', None)) if f]))";
  const modules = ask(PYTHON, "-I", "-S", "-B", "-c", script).split("\n").filter((f) => f !== "" && existsSync(f));
  return modules.length ? [...withLibraries(PYTHON), ...modules.flatMap((f) => (f.endsWith(".so") ? withLibraries(f) : [f]))] : [];
}

/** What 64-bit guests need beside /bench, and a sentence for each program that cannot be had. */
export function realFiles(): { entries: CpioEntry[]; missing: Map<string, string> } {
  const needs = [{ program: PYTHON, files: pythonFiles() }, { program: GCC, files: gccFiles() }], missing = new Map<string, string>();
  for (const { program, files } of needs) if (files.length === 0) for (const p of REAL) if (p.line.includes(program)) missing.set(p.label, `Without ${p.label}: ${program} does not work on this computer.`);
  return { entries: [...new Set(needs.flatMap((n) => n.files))].map(entry), missing };
}
