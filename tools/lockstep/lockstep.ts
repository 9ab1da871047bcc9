/**
 * The interpreter and the translator side by side. The translator runs a slice of some jumps; then the interpreter goes after it, an instruction at a
 * time, until it is in the same state. The translator's count of instructions is a little high where records are joined by a jump of our own, a little low where a
 * block faults or a store hits code; so it only says where about the interpreter must come by in the same state, all registers and memory: there are loops that change nothing else.
 */
import { CPU, EFLAGS, EXIT, RCX, gprAt } from "../../src/x86/state.ts";
import { LIMITS } from "../../src/x86/region.ts";
import { disassemble } from "../oracle/compare.ts";
import { Random } from "../oracle/values.ts";
import { Box } from "./box.ts";
import { type Registers, type Snapshot, differing, memoryDifference, nrDifferentWords, registersOf, sameRip, snapshot } from "./state.ts";

export type Side = "interpreter" | "translator";
export interface Program {
  readonly name: string;
  readonly ramBytes: number;
  /** It writes by way of the machine's own page tables only: those know which pages. */
  readonly hasOwnTables?: boolean;
  /** Put it into a fresh machine, registers and all. */
  load(m: Box, side: Side): void;
  /** It has halted: start it once more? */
  again?(m: Box, round: number): boolean;
  /** A vector to interrupt it with, before one slice in so many; `onlyOpen`: only while interrupts are let in. */
  readonly interrupt?: { readonly vector: number; readonly oneIn: number; readonly onlyOpen: boolean };
}
export type Options = {
  readonly seed: number;
  /** Arrivals that make code hot; 0: it is translated before it is first executed. */
  readonly translateAfter: number;
  readonly seconds?: number;
  /** Most instructions. */
  readonly instructions?: number;
  /** Slices to begin with, instead of random ones; after them come the smallest. */
  readonly budgets?: readonly number[];
  /** Told at the beginning and at each agreement. */
  readonly onAgreement?: (m: Box) => void;
};
export type Difference = {
  readonly what: string;
  /** instructions that the interpreter had done at the last agreement, and at the comparison that failed */
  readonly agreed: number; readonly at: number;
  readonly interpreter: Registers; readonly translator: Registers;
  /** first word of memory that differs; -1: none does, or it has not been looked at. What is there, 16 bytes on each side */
  readonly memory: number; readonly bytes: readonly [interpreter: string, translator: string];
  /** addresses of the last blocks, the last one last; how many of them came after the last agreement */
  readonly blocks: readonly bigint[]; readonly nrSince: number;
  /** the instructions executed since the last agreement, each address once */
  readonly listing: readonly string[];
  readonly budgets: readonly number[];
};
export type End = {
  readonly program: string; readonly options: Options; readonly instructions: number; readonly comparisons: number; readonly why: string; readonly difference: Difference | null;
  readonly console: string; readonly counters: Readonly<Record<string, number>>;
};

/** How far the interpreter's count may be from the translator's: at all; for each exception, as a block may be as long as a region; behind and ahead, for each instruction. */
const SLACK = { least: 64, delivery: LIMITS.insns, behind: 0.5, ahead: 3 } as const;
const NR_BLOCKS = 20, MAX_LISTED = 80, MAX_TRAIL = 4096;
/** Jumps enough for one instruction. */
const PLENTY = 1000;
const EXIT_NAMES = new Map<number, string>(Object.entries(EXIT).map(([name, n]) => [n, name]));

/** The interpreter, stepped. */
class Stepper {
  readonly m: Box;
  nr = 0;
  exit: number = EXIT.slice;
  readonly delivered: string[] = [];
  /** addresses of the last instructions; those from `agreed` on came after the last agreement */
  readonly trail: bigint[] = [];
  agreed = 0;
  private wasIdle = false;
  constructor(m: Box) {
    this.m = m;
    const { engine } = m, { cpu } = engine, stop = () => cpu.set(CPU.budget, -1);
    engine.onStep = (rip) => { this.nr++; this.trail.push(rip); stop(); };
    engine.onDeliver = (vector, error) => { this.delivered.push(`${vector}/${error}`); stop(); };
  }
  /** One instruction, with the delivery of an exception that it raises; or the delivery of an interrupt. */
  step(): void {
    const { i32 } = this.m.v, rip = CPU.rip.at >> 2, rcx = gprAt(RCX) >> 2, at = i32[rip], high = i32[rip + 1], count = i32[rcx], { nr } = this;
    this.exit = this.m.engine.run(PLENTY);
    // a record that is no instruction moves nothing; neither does one that jumps to itself, which does not come alone
    const isIdle = i32[rip] === at && i32[rip + 1] === high && i32[rcx] === count && this.nr !== nr && !this.wasIdle;
    if (isIdle) { this.nr--; this.trail.pop(); }
    this.wasIdle = isIdle;
  }
  agree(): void {
    this.delivered.length = 0;
    if (this.trail.length > MAX_TRAIL) this.trail.splice(0, this.trail.length - MAX_TRAIL / 4);
    this.agreed = this.trail.length;
  }
}

let ticks = 0;
/** While the translator runs, its clock is a count: what it does by the clock is the same each time. */
function withCountedClock<T>(run: () => T): T {
  const { now } = performance;
  performance.now = () => (ticks += 0.25);
  try { return run(); } finally { performance.now = now; }
}

/** Run a program on both engines until they differ, it ends, or it is enough. */
export function lockstep(program: Program, o: Options): End {
  const r = new Random(o.seed), tester = new Box(program.ramBytes, { translateAfter: o.translateAfter }), stepper = new Stepper(new Box(program.ramBytes)), { engine } = tester, { cpu } = engine, reference = stepper.m;
  const until = performance.now() + (o.seconds ?? 3600) * 1000, delivered: string[] = [], budgets: number[] = [];
  let comparisons = 0, round = 0, agreed = 0;
  const end = (why: string, difference: Difference | null = null): End =>
    ({ program: program.name, options: o, instructions: stepper.nr, comparisons, why, difference, console: reference.console, counters: engine.counters });
  ticks = 0;
  engine.onDeliver = (vector, error) => delivered.push(`${vector}/${error}`);
  program.load(tester, "translator"); program.load(reference, "interpreter");
  for (;;) {
    o.onAgreement?.(reference);
    const { interrupt } = program, isInterrupted = interrupt && r.one(interrupt.oneIn) && !(interrupt.onlyOpen && !(cpu.eflags & EFLAGS.IF)), random = r.one(3) ? r.below(3) : r.one(50) ? r.below(1000) : r.below(50);
    if (isInterrupted && reference.pending < 0) tester.pending = reference.pending = interrupt.vector;
    const budget = o.budgets ? o.budgets[comparisons] ?? 0 : random, before = cpu.get(CPU.retired);
    budgets.push(budget); delivered.length = 0;
    let exit: number = EXIT.none, thrown: unknown;
    try { exit = withCountedClock(() => engine.run(budget)); } catch (e) { thrown = e; }
    const isLast = exit !== EXIT.slice;
    comparisons++;
    const nr = Number(cpu.get(CPU.retired) - before), from = agreed + nr * (1 - SLACK.behind) - SLACK.least, to = agreed + nr * (1 + SLACK.ahead) + SLACK.least + SLACK.delivery * delivered.length;

    // the nearest the interpreter comes
    let nearest: { nrWords: number; state: Snapshot; memory: number; bytes: string; delivered: string; exit: number; at: number; trail: number } | null = null, isSame = false;
    const writtenPages = (): Set<number> | undefined => {
      if (!program.hasOwnTables) return undefined;
      const pages = new Set<number>();
      reference.writtenPages(pages); tester.writtenPages(pages);
      return pages;
    };
    const look = (): void => {
      const nrWords = nrDifferentWords(reference, tester), isSameSoFar = nrWords === 0 && stepper.exit === exit && reference.pending === tester.pending && stepper.delivered.join() === delivered.join();
      const pages = isSameSoFar && !isLast ? writtenPages() : undefined;
      const memory = isSameSoFar ? memoryDifference(reference, tester, pages) : -1;
      isSame = isSameSoFar && memory < 0;
      if (isSame || (nearest !== null && (nrWords > nearest.nrWords || (nrWords === nearest.nrWords && Math.abs(stepper.nr - agreed - nr) >= Math.abs(nearest.at - agreed - nr))))) return;
      nearest = { nrWords, state: snapshot(reference), memory, bytes: bytesAt(reference, memory), delivered: stepper.delivered.join(" "), exit: stepper.exit, at: stepper.nr, trail: stepper.trail.length };
    };
    if (thrown === undefined) for (;;) {
      if (isLast ? stepper.exit !== EXIT.slice : stepper.nr >= from && sameRip(reference, tester)) look();
      if (isSame || stepper.exit !== EXIT.slice || stepper.nr > to) break;
      stepper.step();
    }
    if (!isSame) {
      const isNear = nearest !== null;
      if (!isNear) look();
      const n = nearest!, interpreter = registersOf(n.state), translator = registersOf(snapshot(tester)), trail = stepper.trail.slice(0, n.trail), nrRegisters = differing(interpreter, translator).length;
      const what = thrown !== undefined ? `the translator threw: ${thrown instanceof Error ? thrown.stack : thrown}`
        : !isNear || n.exit !== exit ? `the interpreter (${EXIT_NAMES.get(n.exit)}) does not come to where the translator is (${EXIT_NAMES.get(exit)})`
        : nrRegisters ? "registers differ" : n.memory >= 0 ? "memory differs" : `exceptions differ (vector/error code): interpreter ${n.delivered || "none"}; translator ${delivered.join(" ") || "none"}`;
      const walk = blocksOf(reference, trail), since = blocksOf(reference, trail.slice(stepper.agreed));
      return end("difference", {
        what, agreed, at: n.at, interpreter, translator, memory: n.memory, bytes: [n.bytes, bytesAt(tester, n.memory)], budgets,
        blocks: walk.slice(-NR_BLOCKS), nrSince: Math.min(since.length, NR_BLOCKS), listing: listing(reference, trail.slice(stepper.agreed)),
      });
    }
    agreed = stepper.nr;
    stepper.agree();
    if (isLast) {
      if (exit !== EXIT.halt || program.again === undefined) return end(EXIT_NAMES.get(exit)!);
      if (!program.again(tester, ++round) || !program.again(reference, round)) return end("halted");
      stepper.exit = EXIT.slice;
    }
    if (stepper.nr >= (o.instructions ?? Number.POSITIVE_INFINITY)) return end("enough instructions");
    if (performance.now() > until) return end("enough time");
  }
}
const bytesAt = (m: Box, gpa: number): string => (gpa < 0 ? "" : [...m.v.u8.subarray(m.ram + gpa, m.ram + gpa + 16)].map(x => x.toString(16).padStart(2, "0")).join(" "));
/** Where control did not go on in sequence. */
function blocksOf(m: Box, trail: readonly bigint[]): bigint[] {
  const lengths = new Map<bigint, bigint>(), lengthOf = (rip: bigint): bigint => {
    let n = lengths.get(rip);
    if (n === undefined) { const { bytes, bits } = m.code(rip); lengths.set(rip, n = BigInt(disassemble(bytes, rip, bits)[0]?.len ?? 0)); }
    return n;
  };
  return trail.filter((rip, i) => i === 0 || trail[i - 1]! + lengthOf(trail[i - 1]!) !== rip);
}
function listing(m: Box, trail: readonly bigint[]): string[] {
  const lines = [...new Set(trail)].sort((a, b) => (a < b ? -1 : 1)).map((rip) => {
    const { bytes, bits } = m.code(rip), l = disassemble(bytes, rip, bits)[0];
    return `${BigInt.asUintN(64, rip).toString(16).padStart(16)}  ${(l?.bytes ?? "").padEnd(32)} ${l?.text ?? "(not mapped)"}`;
  });
  return lines.length > MAX_LISTED ? [`(${lines.length} instructions)`, ...lines.slice(-MAX_LISTED)] : lines;
}

/** A difference tried again from the beginning with the same slices up to the last agreement and the smallest after it. */
export function narrow(program: Program, found: End): End {
  const { budgets } = found.difference!, again = lockstep(program, { ...found.options, seconds: 60, instructions: found.difference!.at + 100000, budgets: budgets.slice(0, -1)});
  return again.difference ? again : found;
}

const hex = (x: bigint): string => BigInt.asUintN(64, x).toString(16);
/** A difference as a person wants to read it. */
export function show(e: End): string {
  const d = e.difference!, differ = differing(d.interpreter, d.translator), mode = e.options.translateAfter === 0 ? "everything translated at once" : `translated after ${e.options.translateAfter} arrivals`;
  const memory = d.memory < 0 ? [] : [`  memory from guest-physical ${d.memory.toString(16)} on:`, `  ${"".padEnd(16)} ${d.bytes[0]}`, `  ${"".padEnd(16)} ${d.bytes[1]}`];
  return [
    `${e.program}, seed ${e.options.seed}, ${mode}: ${d.what}`,
    `after ${d.at} instructions (they agreed after ${d.agreed}) at rip ${d.interpreter.get("rip")}; slice ${d.budgets.length}, ${d.budgets.at(-1)} jumps`,
    ...(differ.length ? [`  ${"".padEnd(16)} ${"interpreter".padEnd(32)} translator`] : []),
    ...differ.map(n => `  ${n.padEnd(16)} ${d.interpreter.get(n)!.padEnd(32)} ${d.translator.get(n)}`), ...memory,
    `The last blocks (those before the bar they agreed on): ${[...d.blocks.slice(0, d.blocks.length - d.nrSince).map(hex), "|", ...d.blocks.slice(d.blocks.length - d.nrSince).map(hex)].join(" ")}`,
    "Executed since they agreed:", ...d.listing.map(l => `  ${l}`),
  ].join("\n");
}
