/**
 * node tools/setup/run.mjs tools/lockstep/run.ts -- [--seed N] [--seconds N] [--no-shrink] [PROGRAM|GUEST|random ...]
 * The interpreter and the translator side by side: integer programs of bench/, guests (paging modes tables smc syscall debug fpu wild), random programs. Without
 * names: all of them. Each runs with everything translated at once, and translated when it is warm; random programs, one a seed from --seed on, with the one
 * or the other (--seed N random begins with the program of seed N). Of each name, the first difference is shown, and made small; the exit code is then 1.
 */
import { parseArgs } from "node:util";
import { UserError } from "../../src/base/errors.ts";
import { GPR_NAMES } from "../oracle/compare.ts";
import { runTool } from "../tool.ts";
import { randomProgram } from "./generate.ts";
import { type End, type Options, lockstep, narrow, show } from "./lockstep.ts";
import { NAMES, programOf } from "./programs.ts";
import { listing, shrink } from "./shrink.ts";

/** Arrivals until code is translated. */
const AT_ONCE = 0, WARM = 40;
const MOST_INSTRUCTIONS = 50000;
const RANDOM = "random";

/** How a random program is run: the seed decides everything. */
export const optionsOf = (seed: number): Options => ({ seed, translateAfter: seed % 2 ? AT_ONCE : WARM, seconds: 20, instructions: MOST_INSTRUCTIONS });
function showSmallest(seed: number): string {
  const small = shrink(randomProgram(seed), optionsOf(seed));
  if (!small) return "It did not fail when it was tried again";
  const { program, end, state, tries } = small, used = listing(small).join(" "), shown = ["rip", ...GPR_NAMES, "flags", "mxcsr", "cr0", "cr4", ...[...used.matchAll(/\bxmm\d+/g)].map(m => m[0])];
  const registers = state ? ["in this state:", ...[...new Set(shown)].map(n => `  ${n.padEnd(6)} ${state.registers.get(n)}`)] : ["from its beginning"];
  return [`The smallest that fails, of ${tries} tried (CPL ${program.kernelMode ? 0 : 3}; what is not shown has become NOPs), begun`, ...registers, "Code:", ...listing(small).map(l => `  ${l}`), "", show(end)].join("\n");
}

function main(): number {
  const { values, positionals } = parseArgs({ args: process.argv.slice(2).filter((a, i) => i > 0 || a !== "--"), allowPositionals: true, options: { seed: { type: "string", default: "1" }, seconds: { type: "string", default: "60" }, "no-shrink": { type: "boolean", default: false } } });
  const number = (name: string, v: string): number => { const n = Number(v); if (!Number.isInteger(n) || n < 0) throw new UserError(`--${name} "${v}" is not a number`); return n; };
  const seed = number("seed", values.seed), seconds = number("seconds", values.seconds), names = positionals.length ? positionals : [...NAMES, RANDOM], until = performance.now() + seconds * 1000;
  for (const name of names) if (name !== RANDOM && !NAMES.includes(name)) throw new UserError(`There is no "${name}"; there are: ${[...NAMES, RANDOM].join(", ")}`);
  let isWrong = false;
  for (const [k, name] of names.entries()) {
    const share = (until - performance.now()) / 1000 / (names.length - k);
    const found = name === RANDOM ? random(seed, share) : real(name, seed, share);
    if (!found) continue;
    isWrong = true;
    console.log(show(found.end));
    if (!values["no-shrink"]) console.log(`\n${found.seed === null ? `Once more, with the smallest slices after they agreed:\n${show(narrow(programOf(name, seed)!, found.end))}` : showSmallest(found.seed)}`);
  }
  return isWrong ? 1 : 0;
}
type Found = { readonly end: End; readonly seed: number | null };
function real(name: string, seed: number, seconds: number): Found | null {
  for (const translateAfter of [AT_ONCE, WARM]) {
    const end = lockstep(programOf(name, seed)!, { seed, translateAfter, seconds: seconds / 2 });
    if (end.difference) return { end, seed: null };
    console.log(`${end.program}, translated ${translateAfter === AT_ONCE ? "at once" : "when warm"}: ${end.instructions} instructions, ${end.comparisons} comparisons, ${end.counters.regions} regions, the same (${end.why})`);
  }
  return null;
}
function random(seed: number, seconds: number): Found | null {
  const until = performance.now() + seconds * 1000;
  let instructions = 0, comparisons = 0, s = seed;
  for (; performance.now() < until; s++) {
    const end = lockstep(randomProgram(s), optionsOf(s));
    if (end.difference) return { end, seed: s };
    instructions += end.instructions; comparisons += end.comparisons;
  }
  console.log(`random programs ${seed} to ${s - 1}: ${instructions} instructions, ${comparisons} comparisons, the same`);
  return null;
}
if (process.argv[1] === import.meta.filename) await runTool(import.meta.filename, main);
