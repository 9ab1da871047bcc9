/**
 * Where a pCPU's guests spend their time, counted by the pCPU itself.
 *
 * The engine can be stopped at jumps only, so samples are taken every so many jumps: code that jumps seldom (a long copy, a hash without loops) would be
 * met too seldom. Therefore the time of the next few jumps is measured at each sample, and counts for the place it began at. What entering and
 * leaving the engine adds to each of these times is unknown but the same for all, and is found in the end: the times have to add up to the whole.
 */
import type { Engine } from "../x86/engine.ts";
import { CPU, EFLAGS, EXIT } from "../x86/state.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { PCPU } from "./objects.ts";

/** Jumps between samples on average, jumps that are timed, and the longest time in ms that is believed: beyond it this thread was not running. */
export const SAMPLE_JUMPS = 5000, TIMED_JUMPS = 16, MOST_MS = 0.1;
/** Places kept, of all domains; samples at others are only counted. */
const MAX_PLACES = 65536;

/** Samples of one place: rip as a signed number, CPL, whether interrupts were off, how many, and their timed jumps' ms. */
export type Place = { readonly rip: number; readonly cpl: number; readonly isMasked: boolean; readonly samples: number; readonly timedMs: number };
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

type Counts = { samples: number; timedMs: number };
class Tally {
  guestMs = 0; hypercallMs = 0; nrLost = 0;
  /** by rip's low 48 bits, CPL and interrupt flag in one number */
  readonly places = new Map<number, Counts>();
  readonly hypercalls = new Map<number, { count: number; ms: number }>();
  readonly exceptions = new Map<number, number>();
  readonly interrupts = new Map<number, number>();
}
const VECTOR_PF = 14, ERROR_BITS = 0x1f;
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
    const { dv } = this.#hv.views, engine = this.#engine, kicks = this.#hv.load(PCPU.wake, this.#at), begun = performance.now();
    this.#isCut = false;
    let exit: number;
    for (let left = budget; ;) {
      const given = Math.min(left, this.#left);
      exit = engine.run(given);
      // cut short by somebody who wrote to the budget: how far it came is unknown
      if (this.#isCut || kicks !== this.#hv.load(PCPU.wake, this.#at)) break;
      const done = given - CPU.budget.get(dv, this.#cpu);
      left -= done;
      this.#left -= done;
      if (exit !== EXIT.slice) break;
      if (this.#left <= 0) {
        this.#left = Math.ceil(SAMPLE_JUMPS * (0.5 + Math.random()));
        exit = this.#sample(tally);
        if (exit !== EXIT.slice) break;
        left -= TIMED_JUMPS;
      }
      if (left <= 0) break;
    }
    tally.guestMs += performance.now() - begun;
    return exit;
  }
  get #translateMs(): number { return this.#engine.counters["translateMs"] ?? 0; }
  /** Note the place, and how long the next jumps take. */
  #sample(tally: Tally): number {
    const { dv } = this.#hv.views, rip = Number(BigInt.asUintN(48, CPU.rip.get(dv, this.#cpu)));
    const key = rip * 8 + (CPU.cpl.get(dv, this.#cpu) & 3) * 2 + (CPU.eflags.get(dv, this.#cpu) & EFLAGS.IF ? 0 : 1);
    const translated = this.#translateMs, begun = performance.now(), exit = this.#engine.run(TIMED_JUMPS), took = performance.now() - begun;
    const timedMs = Math.min(took - (this.#translateMs - translated), MOST_MS), known = tally.places.get(key);
    if (known) {
      known.samples++;
      known.timedMs += timedMs;
    } else if (this.#nrPlaces === MAX_PLACES) tally.nrLost++;
    else {
      tally.places.set(key, { samples: 1, timedMs });
      this.#nrPlaces++;
    }
    return exit;
  }

  /** A hypercall is done. @param isCut the slice ends with it */
  hypercall(nr: number, ms: number, isCut: boolean): void {
    const known = this.#now.hypercalls.get(nr);
    if (known) { known.count++; known.ms += ms; } else this.#now.hypercalls.set(nr, { count: 1, ms });
    this.#now.hypercallMs += ms;
    if (isCut) this.#isCut = true;
  }
  /** An exception or interrupt is delivered. */
  deliver(vector: number, errorCode: number, external: boolean): void {
    if (external) count(this.#now.interrupts, vector);
    else count(this.#now.exceptions, vector * 32 + (vector === VECTOR_PF ? errorCode & ERROR_BITS : 0));
  }

  /** What was counted so far. */
  get profile(): Omit<PcpuProfile, "index"> {
    return {
      loopMs: performance.now() - this.#begunMs, idleMs: this.#hv.get(PCPU.idleMs, this.#at), counters: { ...this.#engine.counters },
      domains: [...this.#tallies].map(([domid, t]) => ({
        domid, guestMs: t.guestMs, hypercallMs: t.hypercallMs, nrLost: t.nrLost,
        places: [...t.places].map(([key, { samples, timedMs }]) => ({ rip: signed(Math.floor(key / 8)), cpl: (key % 8) >> 1, isMasked: key % 2 === 1, samples, timedMs })),
        hypercalls: [...t.hypercalls].map(([nr, c]) => ({ nr, ...c })),
        exceptions: [...t.exceptions].map(([key, n]) => ({ vector: key >> 5, errorCode: key >> 5 === VECTOR_PF ? key & ERROR_BITS : -1, count: n })),
        interrupts: [...t.interrupts].map(([vector, n]) => ({ vector, count: n })),
      })),
    };
  }
}
const signed = (low48: number): number => (low48 >= 2 ** 47 ? low48 - 2 ** 48 : low48);
