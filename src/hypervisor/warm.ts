/**
 * Code that a domain has run where it comes from, decoded here before it runs: a processor that begins cold spends its first half second on that. Where it comes from, the places are read out of
 * the pCPUs' code indexes; here they are handed to pCPUs in pages of the Xen heap, which these work off while they have no vCPU. Hints, all of them: what is missed or stale is decoded when it is met.
 */
import { struct, u32 } from "../base/struct.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import { P2M_TYPE } from "../memory/p2m.ts";
import type { Engine } from "../x86/engine.ts";
import { CODE_AT, CODE_BITS, CODEE, REC } from "../x86/layout.ts";
import { MODE } from "../x86/state.ts";
import type { Domain } from "./domain.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { PCPU } from "./objects.ts";

/** Where an instruction begins, and the MODE bits it is decoded for. */
export type CodePlace = { readonly gfn: number; readonly offset: number; readonly mode: number };
/** A page of places: machine address and mode each; `done` of them are decoded. */
const BATCH = struct(16, { next: u32(0), count: u32(4), done: u32(8) }), PER_BATCH = (4096 - BATCH.sizeof) / 8;
/** So many at a time: the domain may be here, and wake up meanwhile. Some ms while the engine is new. */
const STEP = 32;
/** More than a kernel and its daemons run. */
export const CODE_PLACES_MAX = 65536;
const MODES = MODE.sizeMask | MODE.ts | MODE.em | MODE.noFxsr;
/** Can that be a mode of decoded code? */
export const isCodeMode = (mode: number): boolean => (mode & ~MODES) === 0 && (mode & MODE.sizeMask) <= MODE.code64;

/** The code indexes' entries: index of each in `i32`, and where the heat of its record lies: how much is left until it is translated, or made anew; it goes down with each arrival. */
function* indexed(hv: Hypervisor): Generator<readonly [entry: number, heatAt: number]> {
  const { i32 } = hv.views;
  for (let cpu = 0; cpu < hv.mm.nrPcpus; cpu++) {
    for (let e = (hv.mm.pcpuAt(cpu) + CODE_AT) >>> 2, end = e + (CODEE.size << CODE_BITS >>> 2); e < end; e += CODEE.size >>> 2) if (i32[e + 1]! >= 0) yield [e, (i32[e + (CODEE.rec >> 2)]! + REC.heat) >>> 2];
  }
}
/** How much heat each place has now, by its entry. @see codePlaces */
export type Heats = ReadonlyMap<number, number>;
export const codeHeats = (hv: Hypervisor): Heats => new Map(Array.from(indexed(hv), ([entry, heatAt]) => [entry, hv.views.i32[heatAt] ?? 0]));
/**
 * Places of a domain's code that its pCPUs know. It may run meanwhile.
 * @param before some time ago: those come first that were come to since, the most often first; most of what a guest has run is its boot
 */
export function codePlaces(d: Domain, before: Heats = new Map()): CodePlace[] {
  const { hv } = d, { i32 } = hv.views, gfns = new Int32Array(hv.mm.frames.nrFrames).fill(-1), seen = new Set<number>(), active: { readonly place: CodePlace; readonly nrArrivals: number }[] = [], others: CodePlace[] = [];
  for (const [gfn, entry] of d.p2m.entries()) if ((entry & P2M_TYPE.mask) === P2M_TYPE.ram) gfns[entry >>> 12] = gfn;
  for (const [entry, heatAt] of indexed(hv)) {
    const mode = i32[entry + 1]!, machine = i32[entry]! >>> 0, gfn = gfns[machine >>> 12] ?? -1, key = machine + mode * 2 ** 32;
    if (gfn < 0 || !isCodeMode(mode) || seen.has(key)) continue;
    if (seen.add(key).size > CODE_PLACES_MAX) break;
    const place = { gfn, offset: machine & 4095, mode }, was = before.get(entry), nrArrivals = was === undefined ? Number.POSITIVE_INFINITY : Math.abs(was - (i32[heatAt] ?? 0));        // or met since
    if (nrArrivals > 0) active.push({ place, nrArrivals });
    else others.push(place);
  }
  return [...active.sort((a, b) => (a.nrArrivals > b.nrArrivals ? -1 : a.nrArrivals < b.nrArrivals ? 1 : 0)).map(({ place }) => place), ...others];
}

/** Have so many pCPUs as the domain has vCPUs decode code of a domain that has not run yet, in this order. Places without memory are passed over. */
export function prepareCode(d: Domain, places: readonly CodePlace[]): void {
  const { hv } = d, { u32: words, i32 } = hv.views;
  for (let cpu = Math.min(d.nrVcpus, hv.mm.nrPcpus) - 1; cpu >= 0; cpu--) {
    let first = 0;
    try {
      for (let from = Math.floor((places.length - 1) / PER_BATCH) * PER_BATCH; from >= 0; from -= PER_BATCH) {        // the last is the first of the list
        const at = hv.allocPage();
        let n = 0;
        for (const { gfn, offset, mode } of places.slice(from, from + PER_BATCH)) {
          const mfn = d.p2m.ram(gfn);
          if (mfn === 0) continue;
          words[(at + BATCH.sizeof + n * 8) >>> 2] = (mfn << 12 | offset) >>> 0;
          words[(at + BATCH.sizeof + n * 8 + 4) >>> 2] = mode;
          n++;
        }
        hv.set(BATCH.next, at, first);
        hv.set(BATCH.count, at, n);
        hv.set(BATCH.done, at, 0);
        first = at;
      }
    } catch (e) {
      if (!(e instanceof MachineMemoryExhausted)) throw e;        // then not all of it
    }
    if (first === 0) continue;
    // a list that it has not worked off is dropped: its domain is here already
    freeBatches(hv, Atomics.exchange(i32, (hv.pcpuAt(cpu) + PCPU.warm.at) >>> 2, first | 0) >>> 0);
    hv.kick(cpu);
  }
}
function freeBatches(hv: Hypervisor, first: number): void {
  for (let at = first; at !== 0;) {
    const next = hv.get(BATCH.next, at);
    hv.freePage(at);
    at = next;
  }
}
/** On a pCPU that has nothing to run: decode some of the places that it was handed. @returns whether there was one @param pcpu address of its PCPU struct */
export function prepareNext(hv: Hypervisor, pcpu: number, engine: Engine): boolean {
  const word = (pcpu + PCPU.warm.at) >>> 2, { i32, u32: words } = hv.views;
  if (Atomics.load(i32, word) === 0) return false;
  const at = Atomics.exchange(i32, word, 0) >>> 0;       // ours alone now
  if (at === 0) return false;
  const n = Math.min(hv.get(BATCH.count, at), PER_BATCH), from = hv.get(BATCH.done, at), to = Math.min(n, from + STEP);
  let rest = at;
  engine.prepare(Array.from({ length: to - from }, (_, i) => [words[(at + BATCH.sizeof + (from + i) * 8) >>> 2]!, words[(at + BATCH.sizeof + (from + i) * 8 + 4) >>> 2]!] as const));
  if (to < n) hv.set(BATCH.done, at, to);
  else {
    rest = hv.get(BATCH.next, at);
    hv.freePage(at);
  }
  // unless there is another list meanwhile
  if (rest !== 0 && Atomics.compareExchange(i32, word, 0, rest | 0) !== 0) freeBatches(hv, rest);
  return true;
}
