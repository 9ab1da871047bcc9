/**
 * The translator at work: a record that has become hot becomes the seed of a region, which is put in the place of the records it begins at. Whatever has been translated before from the same code,
 * by whomever, is taken as it is, as soon as the code is met or, where it has been met already, warm. A
 * region is not widened, since that would throw away what V8 has optimised: where it is left often, the way out becomes hot in its turn, and the
 * seed of another one. Only where regions go to each other all the time is one made of them.
 */
import { ACROSS, bytesAcross, type CodeCache, markPieces, type Page } from "./code-cache.ts";
import type { Cpu } from "./cpu.ts";
import { type Insn, Undecodable, decode } from "./decode.ts";
import { SLOT, entryTable } from "./entry-table.ts";
import { type Image, type Piece, type Shape, encodeImage, fittingImage, imageKey } from "./image.ts";
import { REC, SITE, SITE_SHIFT, WARM } from "./layout.ts";
import type { Modules } from "./modules.ts";
import { type Region, type RegionSource, discover, pageOf } from "./region.ts";
import { STRADDLE } from "./runtime.ts";
import { CPU, MODE } from "./state.ts";
import { RegionGen, STAY_SHIFT, type Translated, dataLayout, regionModule } from "./translate.ts";
import type { MemorySpec } from "../wasm/writer.ts";

/** A record is warm when it has been met this part of what makes it hot: then regions take it in, and others may have translated it. */
const WARM_PART = 8;
/** Arrivals until a record is warm. */
export const warmAfter = (heat: number): number => Math.floor(heat / WARM_PART) || heat;
/** Arrivals at a region from elsewhere until it is made anew with what it goes to and comes from, and how many times more for each time that has been done: V8 begins anew too. */
const MERGE_AFTER = 60_000, MERGE_STEP = 8, MERGE_AT_MOST = 4_000_000;
/** What long stays must have executed in a lean region until it is made wide, in instructions >>> STAY_SHIFT. */
const WIDE_AFTER = 2_000_000 >>> STAY_SHIFT;
/** Counted down to no end in any time. */
const NEVER = 2 ** 30;
/** A module is made of what waits when it is so many instructions, or has waited so long. */
const BATCH = { insns: 2000, ms: 3 } as const;

export type RegionHost = {
  readonly memory: MemorySpec; readonly tableSize: number;
  /** The only shape that regions shall have, for tests. */
  readonly shape: Shape | undefined;
  /** Arrivals that make a record hot; 0: translate everything at once, for tests. */
  readonly heat: number;
};

/** A region on its way to its place. isMerging: in the place of others. */
type Placing = { readonly image: Image; readonly pages: readonly Page[]; readonly spans: readonly Span[]; readonly isMerging: boolean };
/** Code that a region is made of, on one page: positions. */
type Span = readonly [from: number, to: number];
/** One that waits for its module; `keys`, `pieces`: for those who have the same code. */
type Waiting = Placing & Translated & { readonly keys: readonly number[]; readonly pieces: readonly Piece[] };
/** A page by distance, and what was in it at one moment: others may write to it while it is being read. */
type PageAt = (distance: number) => { readonly page: Page; readonly bytes: Uint8Array } | null;

export class Regions {
  private readonly cpu: Cpu;
  private readonly code: CodeCache;
  private readonly modules: Modules;
  private readonly host: RegionHost;
  private readonly gen = new RegionGen();
  private waiting: Waiting[] = [];
  private nrWaiting = 0;
  private waitsSince = 0;
  /** what the region is made of that a record's others were merged into: doing it again must change something */
  private readonly merged = new Map<number, string>();
  /** how often the region that a record begins was merged from others */
  private readonly generations = new Map<number, number>();
  /** the region that a record begins, or began */
  private readonly begun = new Map<number, Pick<Placing, "image" | "spans">>();
  /** records that regions which wait begin at */
  private readonly awaited = new Set<number>();
  readonly counters = { adopted: 0, regions: 0, regionInsns: 0, regionBytes: 0, translateMs: 0 };

  constructor(cpu: Cpu, code: CodeCache, modules: Modules, host: RegionHost) { this.cpu = cpu; this.code = code; this.modules = modules; this.host = host; }

  /** The record of the instruction at rip has become warm or hot. */
  heated(rec: number, rip: bigint): void {
    const { cpu, host } = this, { mode } = cpu, { i32 } = cpu.v;
    if ((mode & MODE.sizeMask) !== MODE.code64) return;
    const linear = Number(BigInt.asIntN(64, rip)), machine = cpu.mmu.peekCode(linear), home = machine ? this.code.known(machine, mode) : null;
    if (!home || this.awaited.has(rec)) return;
    // a region that is entered so often shares a loop with others: they become one; what was wide stays so
    const isMerging = this.isEntry(rec), isStaying = isMerging && i32[(rec + REC.stay) >>> 2]! <= 0, own = this.begun.get(rec), shape = host.shape ?? (isStaying || isMerging && own?.image.shape === "wide" ? "wide" : "lean");
    if (this.take(rec, linear, machine, mode, true, isMerging ? shape : null)) return;
    if (!isMerging && i32[(rec + REC.stay) >>> 2] !== WARM && warmAfter(host.heat) < host.heat) {
      i32[(rec + REC.stay) >>> 2] = WARM; i32[(rec + REC.heat) >>> 2] = host.heat - warmAfter(host.heat);
      return;
    }
    const began = performance.now(), pages = new Map<number, ReturnType<PageAt>>(), base = linear - (linear & 4095);
    const pageAt: PageAt = (distance) => {
      let p = pages.get(distance);
      if (p === undefined) {
        const m = cpu.mmu.peekCode(base + distance * 4096), page = m ? this.code.known(m, mode) : null;
        pages.set(distance, p = page && { page, bytes: cpu.v.u8.slice(machineOf(page), machineOf(page) + 4096) });
      }
      return p;
    };
    const region = discover(linear & 4095, this.source(base, pageAt, mode, isStaying ? own!.spans : isMerging ? "all" : []));
    const which = isMerging ? `${shape} ${region.blocks.map(b => b.start).join()}` : "";
    if (isMerging && this.merged.get(rec) === which) { i32[(rec + REC.heat) >>> 2] = i32[(rec + REC.stay) >>> 2] = NEVER; return; }
    if (isMerging) this.merged.set(rec, which);
    if (region.blocks.length > 0) {
      const made = this.gen.translate(region, shape), isShared = this.modules.store !== null, spans = spansOf(region);
      const pieces = isShared ? spans.map(([from, to]): Piece => ({ pos: from, bytes: pageAt(pageOf(from))!.bytes.subarray(from & 4095, (from & 4095) + to - from) })) : [];
      this.enqueue({ ...made, pages: region.pages.map(distance => pageAt(distance)!.page), spans, isMerging, keys: isShared ? keysOf(mode, made.image, pageAt(0)!.bytes) : [NO_KEY], pieces });
    }
    this.counters.translateMs += performance.now() - began;
  }

  /** The record at a linear address was met for the first time: has anybody translated what begins there? */
  met(rec: number, linear: number, machine: number, mode: number): void { if (!this.isEntry(rec)) this.take(rec, linear, machine, mode, true, null); }
  /** It was decoded ahead of time: nobody knows yet where it will be mapped, and what beside it. */
  prepared(rec: number, machine: number, mode: number): void { if (!this.isEntry(rec)) this.take(rec, machine % 4096, machine - machine % 4096, mode, false, null); }
  /**
   * Put a region in its place that somebody made from the very code that is here.
   * @param machine of the page @param isMapped the pages beside it are those of the present tables @param instead of one that is here, when it is of this shape and covers more
   */
  private take(rec: number, linear: number, machine: number, mode: number, isMapped: boolean, instead: Shape | null): boolean {
    const { store } = this.modules, seed = linear & 4095;
    if (!store) return false;
    const key = imageKey(mode, seed, this.cpu.v.u8, machine);
    if (!store.mayHave(key)) return false;
    const began = performance.now(), { u8 } = this.cpu.v, now = instead && this.begun.get(rec)?.image, shape = this.host.shape ?? instead, known = new Map<number, number>([[0, machine]]);
    /** Where a page is, by distance from this one; 0: nowhere. */
    const machineAt = (distance: number): number => {
      let m = known.get(distance);
      if (m === undefined) known.set(distance, m = isMapped ? this.cpu.mmu.peekCode(linear - seed + distance * 4096) : 0);
      return m;
    };
    const isHere = ({ pos, bytes }: Piece): boolean => {
      const m = machineAt(pageOf(pos)) + (pos & 4095);
      if (m < 4096) return false;
      for (let i = 0; i < bytes.length; i++) if (u8[m + i] !== bytes[i]) return false;
      return true;
    };
    let isDone = false;
    for (const member of store.find(key)) {
      const pieces: Piece[] = [];
      let image: Image | null = null;
      try { image = fittingImage(member.bytes, p => pieces.push(p) > 0 && isHere(p)); } catch (e) { if (!(e instanceof RangeError)) throw e; }        // overwritten meanwhile
      if (!image || !store.isCurrent(member.module) || shape && image.shape !== shape || now && image.shape === now.shape && image.nrInsns <= now.nrInsns) continue;
      const pages = image.pages.map(distance => this.code.page(machineAt(distance), mode));
      // it is code from now on, decoded or not: stores to it are to be told of. They may have been made just before the pages were marked
      for (const { pos, bytes } of pieces) markPieces(pages[image.pages.indexOf(pageOf(pos))]!, pos & 4095, (pos & 4095) + bytes.length - 1);
      if (!pages.every(p => this.code.isCurrent(p)) || !pieces.every(isHere) || !store.isCurrent(member.module)) continue;
      const slot = this.modules.slotOf(member);
      if (slot === 0) continue;
      isDone = this.place({ image, pages, spans: pieces.map(({ pos, bytes }): Span => [pos, pos + bytes.length]), isMerging: instead !== null }, slot);
      if (isDone) this.counters.adopted++;
      // jumps that know the record do not know its region
      for (const { pos } of image.entries) if (pageOf(pos) === 0) this.cpu.mmu.tlb.forgetJump(linear - seed + pos);
      break;
    }
    this.counters.translateMs += performance.now() - began;
    return isDone;
  }

  /** @param again code that may be taken in though other regions begin there: one region's, or all */
  private source(base: number, pageAt: PageAt, mode: number, again: readonly Span[] | "all"): RegionSource {
    const { v } = this.cpu, known = new Map<number, Insn | null>(), { heat } = this.host;
    const recAt = (pos: number): number | undefined => pageAt(pageOf(pos))?.page.at.get(pos & 4095);
    const at = (pos: number): Insn | null => {
      const rec = recAt(pos);
      if (rec === undefined) return null;
      const { bytes } = pageAt(pageOf(pos))!, stub = v.i32[(rec + REC.stub) >>> 2]!;
      if (stub > STRADDLE) return decodeAt(bytes, pos & 4095, 4096, mode);
      const next = pageAt(pageOf(pos) + 1);
      if (!next || stub !== STRADDLE || v.u32[(rec + REC.imm) >>> 2] !== machineOf(next.page)) return null;
      return decodeAt(bytesAcross(bytes, pos & 4095, next.bytes, 0), 0, ACROSS, mode);
    };
    return {
      insnAt: (pos) => {
        let i = known.get(pos);
        if (i === undefined) known.set(pos, i = at(pos));
        return i;
      },
      isWarm: (pos) => {
        if (heat === 0) return true;
        const rec = recAt(pos);
        return rec !== undefined && (this.isEntry(rec) || v.i32[(rec + REC.stay) >>> 2] === WARM || warmAfter(heat) - v.i32[(rec + REC.heat) >>> 2]! >= heat / WARM_PART);
      },
      calleeOf: (pos) => {
        const rec = recAt(pos), to = rec === undefined ? 0 : v.i32[(rec + REC.guess) >>> 2]!;
        return to === 0 ? null : to - (base | 0) | 0;
      },
      isCovered: (pos) => {
        const rec = recAt(pos);
        return again !== "all" && rec !== undefined && this.isEntry(rec) && !again.some(([from, to]) => pos >= from && pos < to);
      },
      entries: (page) => (pageAt(page)?.page.at.offsets() ?? []).map(off => page * 4096 + off),
    };
  }

  /** Translated regions go to V8 several at a time: a module has a price of its own, and code that runs together then lies together. */
  private enqueue(w: Waiting): void {
    const { image, pages } = w;
    if (this.waiting.length === 0) this.waitsSince = performance.now();
    this.waiting.push(w);
    for (const { pos } of image.entries) { const rec = pageOf(pos) === 0 ? pages[0]!.at.get(pos) : undefined; if (rec !== undefined) this.awaited.add(rec); }
    this.nrWaiting += image.nrInsns;
    if (this.host.heat === 0 || this.nrWaiting >= BATCH.insns) this.flush();
  }
  /** To be called now and then: regions do not wait for others longer than a moment. */
  tick(): void { if (this.waiting.length !== 0 && performance.now() - this.waitsSince > BATCH.ms) this.flush(); }
  /** Make a module of what waits, and put it in its place. */
  private flush(): void {
    const began = performance.now(), { code, host, modules } = this, ready = this.waiting.filter(w => w.pages.every(p => code.isCurrent(p)));
    this.waiting = []; this.nrWaiting = 0; this.awaited.clear();
    if (ready.length === 0) return;
    const first = modules.add(regionModule(ready, host.memory, host.tableSize), ready.map(({ keys, image, pieces }) => ({ keys, bytes: modules.store ? encodeImage(image, pieces) : NOTHING })));
    ready.forEach((w, n) => {
      if (this.place(w, first + n)) { this.counters.regions++; this.counters.regionInsns += w.image.nrInsns; this.counters.regionBytes += w.code.n; }
    });
    this.cpu.mmu.tlb.forgetAllJumps();
    this.counters.translateMs += performance.now() - began;
  }
  /** What cannot be had (room, an instruction that was never met) leaves everything as it was. */
  private place({ image, pages, spans, isMerging }: Placing, slot: number): boolean {
    this.modules.use(slot);        // what is done here may let go of modules
    const { v } = this.cpu, { code, host } = this, { shape } = image, isEager = host.heat === 0, table = entryTable(image.entries.map(e => e.pos)), layout = dataLayout(image.pages.length, table, image.exits.length, image.sites.length);
    const data = code.reserve(layout.size), pageNr = (pos: number): number => image.pages.indexOf(pageOf(pos));
    const recOf = ({ pos, isNeeded }: { pos: number; isNeeded: boolean }): number => { const p = pages[pageNr(pos)]!; return isNeeded ? code.recordAt(p, pos & 4095) : p.at.get(pos & 4095) ?? 0; };
    const exits = image.exits.map(recOf), sites = image.sites.map(({ pos, rec }) => (rec === "none" ? 0 : recOf({ pos, isNeeded: rec === "needed" })));
    if (data === 0 || image.exits.some((e, n) => e.isNeeded && exits[n] === 0) || image.sites.some((e, n) => e.rec === "needed" && sites[n] === 0)) { this.modules.release(slot); return false; }
    for (let n = 0; n < pages.length; n++) v.u32[(data + n * 4) >>> 2] = machineOf(pages[n]!);
    v.u8.set(table.displacements, data + layout.displacements);
    for (let n = 0; n < table.nrSlots; n++) v.dv.setBigInt64(data + layout.slots + n * SLOT.size, 1n << 62n, true);
    for (const [at, n] of table.slots) {
      const { pos, block } = image.entries[n]!, to = data + layout.slots + at * SLOT.size;
      v.dv.setBigInt64(to + SLOT.pos, BigInt(pos), true);
      v.i32[(to + SLOT.sel) >>> 2] = block + 1; v.i32[(to + SLOT.page) >>> 2] = 1 << pageNr(pos);
    }
    exits.forEach((rec, n) => { v.i32[(data + layout.exits + n * 4) >>> 2] = rec; });
    sites.forEach((rec, n) => { const at = data + layout.sites + n * SITE.size, { pos, how, done } = image.sites[n]!; v.i32[(at + SITE.rec) >>> 2] = rec; v.i32[(at + SITE.pos) >>> 2] = pos; v.i32[(at + SITE.how) >>> 2] = how | done << SITE_SHIFT; });
    const found = image.entries.map(({ pos, block }) => ({ rec: pageOf(pos) === 0 ? code.recordAt(pages[0]!, pos) : 0, block })), recs: number[] = [], begun = { image, spans };
    const generation = isMerging ? 1 + Math.max(0, ...found.map(({ rec }) => this.generations.get(rec) ?? 0)) : 0, heat = isEager ? NEVER : Math.min(MERGE_AT_MOST, MERGE_AFTER * MERGE_STEP ** generation);
    for (const { rec, block } of found) {
      if (rec === 0 || this.isEntry(rec) && !isMerging) continue;
      if (isMerging) this.generations.set(rec, generation);
      v.i32[rec >>> 2] = slot; v.i32[(rec + REC.heat) >>> 2] = heat; v.i32[(rec + REC.stay) >>> 2] = isEager || shape === "wide" ? NEVER : WIDE_AFTER; v.u16[(rec + REC.block) >>> 1] = block + 1; v.i32[(rec + REC.data) >>> 2] = data;
      recs.push(rec); this.begun.set(rec, begun);
    }
    code.place({ slot, recs, pages });
    // jumps know the regions that these records were the entries of, and that at whatever addresses other vCPUs have the page
    if (isMerging) this.cpu.mmu.tlb.forgetAllJumps();
    return true;
  }
  /** The code cache has forgotten everything. */
  flushed(): void { this.waiting = []; this.nrWaiting = 0; this.awaited.clear(); this.merged.clear(); this.generations.clear(); this.begun.clear(); }
  /** A region begins at this record. */
  private isEntry(rec: number): boolean { const { i32 } = this.cpu.v; return i32[rec >>> 2] !== i32[(rec + REC.stub) >>> 2] || this.awaited.has(rec); }
}
/** The code that a region is made of, page by page. */
function spansOf({ blocks }: Region): Span[] {
  const spans: [from: number, to: number][] = [];
  for (const b of blocks) b.insns.forEach((i, k) => {
    for (let from = b.at[k]!, end = from + i.len; from < end;) {
      const to = Math.min(end, (pageOf(from) + 1) * 4096), last = spans.at(-1);
      if (last && last[1] === from && pageOf(last[0]) === pageOf(from)) last[1] = to; else spans.push([from, to]);
      from = to;
    }
  });
  return spans;
}
/** Nobody looks for it. */
const NO_KEY = 2 ** 53;
/** An image is found by wherever it may be entered from outside. */
function keysOf(mode: number, { entries }: Image, home: Uint8Array): number[] {
  const keys = entries.filter(({ pos }) => pageOf(pos) === 0).map(({ pos }) => imageKey(mode, pos, home, 0));
  return keys.length > 0 ? keys : [NO_KEY];
}
const NOTHING = new Uint8Array(0);
const machineOf = (p: Page): number => p.key % 2 ** 32;
function decodeAt(m: Uint8Array, from: number, to: number, mode: number): Insn | null {
  try { return decode(m, from, to, mode); } catch (e) { if (!(e instanceof Undecodable)) throw e; return null; }
}
