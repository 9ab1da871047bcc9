/**
 * node tools/setup/run.mjs tools/lockstep/run.ts -- [--seed N] [--seconds N] [--no-shrink] [PROGRAM|GUEST|random ...]
 * node tools/setup/run.mjs tools/lockstep/run.ts -- [--seed N] [--seconds N] [--translate-after N] [--vcpus N] [--verbose] debian|debian-generic|xen:GUEST ...
 *
 * The interpreter and the translator side by side. The second form: a whole machine with hypervisor and devices, one pCPU; Debian's stock kernels (cloud, generic) with random work for
 * a shell in busybox, by seed, until the time is over; guests that want Xen (xen:hypercall, xen:events, xen:timers, xen:smp ...) to their end. --verbose shows their consoles.
 *
 * The first form: integer programs of bench/, guests (paging modes tables smc syscall debug fpu wild), random programs. Without
 * names: all of them. Each runs with everything translated at once, and translated when it is warm; random programs, one a seed from --seed on, with the one
 * or the other (--seed N random begins with the program of seed N). Of each name, the first difference is shown, and made small; the exit code is then 1.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { buildGuest, guestNames } from "../../guests/build.ts";
import { UserError } from "../../src/base/errors.ts";
import { images } from "../../test/guest.ts";
import { GPR_NAMES } from "../oracle/compare.ts";
import { runTool } from "../tool.ts";
import { randomProgram } from "./generate.ts";
import { randomLoad } from "./load.ts";
import { type End, type Options, lockstep, narrow, show } from "./lockstep.ts";
import { guestInLockstep, type GuestRun, type Progress } from "./machine.ts";
import { NAMES, programOf } from "./programs.ts";
import { listing, shrink } from "./shrink.ts";
import { Divergence } from "./twin.ts";

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

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({ args: process.argv.slice(2).filter((a, i) => i > 0 || a !== "--"), allowPositionals: true, options: { seed: { type: "string", default: "1" }, seconds: { type: "string", default: "60" }, "no-shrink": { type: "boolean", default: false }, "translate-after": { type: "string", default: "200" }, vcpus: { type: "string", default: "1" }, verbose: { type: "boolean", default: false } } });
  const number = (name: string, v: string): number => { const n = Number(v); if (!Number.isInteger(n) || n < 0) throw new UserError(`--${name} "${v}" is not a number`); return n; };
  const seed = number("seed", values.seed), seconds = number("seconds", values.seconds), names = positionals.length ? positionals : [...NAMES, RANDOM], until = performance.now() + seconds * 1000;
  const machines = names.filter(isMachine), all = [...NAMES, RANDOM, ...Object.keys(FLAVOURS), ...guestNames().map((g) => XEN + g)];
  for (const name of names) if (!all.includes(name)) throw new UserError(`There is no "${name}"; there are: ${all.join(", ")}`);
  if (machines.length > 0 && machines.length < names.length) throw new UserError(`${machines.join(", ")} and the others are two forms of this command; see --help`);
  if (machines.length > 0) {
    const o = { seed, translateAfter: number("translate-after", values["translate-after"]), vcpus: number("vcpus", values.vcpus), seconds: seconds / machines.length, ...(values.verbose ? { onConsole: (text: string) => { process.stdout.write(text); } } : {}) };
    const interrupted = new AbortController();
    process.once("SIGINT", () => interrupted.abort());
    let nrWrong = 0;
    for (const name of machines) if (!interrupted.signal.aborted && !await wholeMachine(name, { ...o, signal: interrupted.signal })) nrWrong++;
    return nrWrong > 0 ? 1 : interrupted.signal.aborted ? 130 : 0;
  }
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
const XEN = "xen:", FLAVOURS: Readonly<Record<string, "cloud" | "generic">> = { debian: "cloud", "debian-generic": "generic" };
const isMachine = (name: string): boolean => name in FLAVOURS || name.startsWith(XEN);
/** @returns whether both engines did the same */
async function wholeMachine(name: string, o: Pick<GuestRun, "seed" | "translateAfter" | "vcpus" | "seconds" | "onConsole" | "signal">): Promise<boolean> {
  const told = ({ counts: c, seconds, nrCommands }: Progress): string => `${c.instructions} instructions, ${c.stretches} comparisons, ${c.exceptions} exceptions and interrupts${nrCommands ? `, ${nrCommands} commands` : ""} in ${seconds.toFixed(0)} s`;
  const flavour = FLAVOURS[name], guest = (): Pick<GuestRun, "kernel" | "ramdisk" | "cmdline" | "memoryMiB" | "commands"> => {
    if (!flavour) return { kernel: readFileSync(buildGuest(name.slice(XEN.length))), cmdline: `seed=${o.seed} cpus=${o.vcpus}`, memoryMiB: 64 };
    const { kernel, ramdisk } = images(flavour);
    return { kernel: readFileSync(kernel), ramdisk: readFileSync(ramdisk), cmdline: "console=hvc0 cryptomgr.notests=1", memoryMiB: 256, commands: randomLoad(o.seed) };
  };
  try {
    const end = await guestInLockstep({ ...o, ...guest(), onProgress: (p) => { if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${name}: ${told(p)}`); } });
    if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
    console.log(`${name}, seed ${o.seed}, ${o.vcpus} vCPUs, translated after ${o.translateAfter} arrivals: ${told(end)}, the same (${end.why})`);
    return true;
  } catch (e) {
    if (!(e instanceof Divergence)) throw e;
    console.log(`${name}, seed ${o.seed}, ${o.vcpus} vCPUs, translated after ${o.translateAfter} arrivals: ${e.message}`);
    return false;
  }
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
