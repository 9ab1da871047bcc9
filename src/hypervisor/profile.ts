/**
 * Where a pCPU's guests spend their time, counted by the pCPU itself.
 *
 * The engine stops at jumps only, so samples are taken every so many jumps; by their number alone, code that jumps seldom (a long copy, an unrolled hash)
 * would seem to take no time. Therefore a run of jumps is timed at each sample, by turns a short one and a long one: the difference of their
 * means is what the jumps between them take there, without what it costs to leave and enter the engine.
 */
import type { Engine } from "../x86/engine.ts";
import { CPU, EFLAGS, EXIT, VECTOR } from "../x86/state.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { PCPU } from "./objects.ts";

/** Jumps between samples on average; jumps of the runs that are timed; the longest time in ms that is believed: beyond it this thread was not running. */
const SAMPLE_JUMPS = 1000, SHORT_JUMPS = 1, LONG_JUMPS = 17, MOST_MS = 0.05;
/** Places kept, of all domains; samples at others are only counted. */
const MAX_PLACES = 65536;

/** Samples of one place: rip as a signed number, CPL, whether interrupts were off; how many short and long runs were timed from there, and their ms. */
export type Place = {
  readonly rip: number; readonly cpl: number; readonly isMasked: boolean;
  readonly nrShort: number; readonly shortMs: number; readonly nrLong: number; readonly longMs: number;
};
/** What a domain's vCPUs did on one pCPU. */
export type DomainTally = {
  readonly domid: number;
  /** ms in the engine, and of these in hypercalls */
  readonly guestMs: number; readonly hypercallMs: number;
  readonly places: readonly Place[];
  /** samples for whose places there was no room */
  readonly nrLost: number;
  readonly hypercalls: readonly { readonly nr: number; readonly count: number; readonly ms: number }[];
  /** errorCode: -1 for none, and of others than page faults always */
  readonly exceptions: readonly { readonly vector: number; readonly errorCode: number; readonly count: number }[];
  readonly interrupts: readonly { readonly vector: number; readonly count: number }[];
};
/** What one pCPU counted; plain data, for a message. */
export type PcpuProfile = {
  readonly index: number;
  /** ms of its loop, and of these asleep */
  readonly loopMs: number; readonly idleMs: number;
  readonly counters: Readonly<Record<string, number>>;
  readonly domains: readonly DomainTally[];
};

type Counts = { nrShort: number; shortMs: number; nrLong: number; longMs: number };
class Tally {
  guestMs = 0; hypercallMs = 0; nrLost = 0;
  /** by rip's low 48 bits, CPL and interrupt flag in one number */
  readonly places = new Map<number, Counts>();
  readonly hypercalls = new Map<number, { count: number; ms: number }>();
  readonly exceptions = new Map<number, number>();
  readonly interrupts = new Map<number, number>();
}
/** Hypercalls of higher numbers, which there are not, are counted as one. */
export const NR_HYPERCALLS = 64;
const ERROR_BITS = 0x1f;
const count = (map: Map<number, number>, key: number): void => { map.set(key, (map.get(key) ?? 0) + 1); };

/** One a pCPU that is profiled. */
export class Profiler {
  readonly #hv: Hypervisor;
  readonly #engine: Engine;
  readonly #at: number;
  readonly #cpu: number;
  readonly #begunMs = performance.now();
  readonly #tallies = new Map<number, Tally>();
  #now = new Tally();
  #nrPlaces = 0;
  #left = SAMPLE_JUMPS;
  #isCut = false;

  constructor(hv: Hypervisor, pcpu: number, engine: Engine) {
    this.#hv = hv;
    this.#engine = engine;
    this.#at = hv.pcpuAt(pcpu);
    this.#cpu = hv.mm.pcpuAt(pcpu);
  }

  /** The engine's run, interrupted for samples. */
  run(domid: number, budget: number): number {
    let tally = this.#tallies.get(domid);
    if (!tally) this.#tallies.set(domid, tally = new Tally());
    this.#now = tally;
    const { dv } = this.#hv.views, kicks = this.#kicks, begun = performance.now();
    this.#isCut = false;
    /** Has somebody written to the budget? Then the slice is over, and how far it came is unknown. */
    const isCut = (): boolean => this.#isCut || kicks !== this.#kicks;
    let exit: number = EXIT.slice;
    for (let left = budget; left > 0 && exit === EXIT.slice && !isCut();) {
      if (this.#left <= 0) {
        this.#left = Math.ceil(SAMPLE_JUMPS * (0.5 + Math.random()));
        left -= LONG_JUMPS;
        exit = this.#sample(tally);
        continue;
      }
      const given = Math.min(left, this.#left);
      exit = this.#engine.run(given);
      if (isCut()) break;
      const done = given - CPU.budget.get(dv, this.#cpu);
      left -= done;
      this.#left -= done;
    }
    tally.guestMs += performance.now() - begun;
    return exit;
  }
  get #kicks(): number { return this.#hv.load(PCPU.wake, this.#at); }
  get #translateMs(): number { return this.#engine.counters["translateMs"] ?? 0; }
  /** Note the place, and how long the next jumps take. */
  #sample(tally: Tally): number {
    const { dv } = this.#hv.views, rip = Number(BigInt.asUintN(48, CPU.rip.get(dv, this.#cpu)));
    const key = rip * 8 + (CPU.cpl.get(dv, this.#cpu) & 3) * 2 + (CPU.eflags.get(dv, this.#cpu) & EFLAGS.IF ? 0 : 1);
    const isLong = Math.random() < 0.5, translated = this.#translateMs, begun = performance.now();
    const exit = this.#engine.run(isLong ? LONG_JUMPS : SHORT_JUMPS), took = performance.now() - begun;
    const ms = Math.min(took - (this.#translateMs - translated), MOST_MS);
    let known = tally.places.get(key);
    if (!known) {
      if (this.#nrPlaces === MAX_PLACES) { tally.nrLost++; return exit; }
      this.#nrPlaces++;
      tally.places.set(key, known = { nrShort: 0, shortMs: 0, nrLong: 0, longMs: 0 });
    }
    if (isLong) { known.nrLong++; known.longMs += ms; } else { known.nrShort++; known.shortMs += ms; }
    return exit;
  }

  /** A hypercall is done. @param isCut the slice ends with it */
  hypercall(nr: number, ms: number, isCut: boolean): void {
    const key = Math.min(nr, NR_HYPERCALLS), known = this.#now.hypercalls.get(key);
    if (known) { known.count++; known.ms += ms; } else this.#now.hypercalls.set(key, { count: 1, ms });
    this.#now.hypercallMs += ms;
    if (isCut) this.#isCut = true;
  }
  /** An exception or interrupt is delivered. */
  deliver(vector: number, errorCode: number, external: boolean): void {
    if (external) count(this.#now.interrupts, vector);
    else count(this.#now.exceptions, vector * 32 + (vector === VECTOR.PF ? errorCode & ERROR_BITS : 0));
  }

  /** What was counted so far. */
  get profile(): Omit<PcpuProfile, "index"> {
    return {
      loopMs: performance.now() - this.#begunMs, idleMs: this.#hv.get(PCPU.idleMs, this.#at), counters: { ...this.#engine.counters },
      domains: [...this.#tallies].map(([domid, t]) => ({
        domid, guestMs: t.guestMs, hypercallMs: t.hypercallMs, nrLost: t.nrLost,
        places: [...t.places].map(([key, counts]) => ({ rip: signed(Math.floor(key / 8)), cpl: (key % 8) >> 1, isMasked: key % 2 === 1, ...counts })),
        hypercalls: [...t.hypercalls].map(([nr, c]) => ({ nr, ...c })),
        exceptions: [...t.exceptions].map(([key, n]) => ({ vector: key >> 5, errorCode: key >> 5 === VECTOR.PF ? key & ERROR_BITS : -1, count: n })),
        interrupts: [...t.interrupts].map(([vector, n]) => ({ vector, count: n })),
      })),
    };
  }
}
const signed = (low48: number): number => (low48 >= 2 ** 47 ? low48 - 2 ** 48 : low48);
