/** What benchmarks stand on: a folder for their files, and what the machine under them is. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { QEMU } from "../test/guest.ts";
import type { Collector } from "./figures.ts";

/** What every guest of ours is started with. */
export const ourOptions: string[] = [];

let made: string | null = null;
/** A folder that goes when the process does. */
export function folder(): string {
  if (made === null) {
    made = mkdtempSync(join(tmpdir(), "domus-bench-"));
    process.on("exit", () => rmSync(made!, { recursive: true, force: true }));
  }
  return made;
}

/** Add the ratio of two columns' last rounds as a third. */
export function ratioRow(found: Collector, row: string, of: string, to: string, name: string): void {
  found.add(row, name, found.get(row, of).at(-1)! / found.get(row, to).at(-1)!);
}

/** One line a thing, for the head of a report. */
export function groundFacts(): Record<string, string> {
  const ask = (program: string, ...args: string[]): string => {
    try { return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim().split("\n")[0]!; } catch { return "not here"; }
  };
  const model = /^model name\s*: (.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? process.arch;
  return {
    processor: `${model}, ${availableParallelism()} CPUs`, node: process.version, peer: ask(QEMU, "--version"),
    commit: ask("git", "rev-parse", "--short", "HEAD"), date: new Date().toISOString().slice(0, 10), load: `${loadavg()[0]!.toFixed(1)} when it began`,
  };
}
