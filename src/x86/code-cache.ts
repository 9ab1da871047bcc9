/**
 * Decoded instructions: records in the pCPU's area, found by machine address and mode, so that they outlive address spaces. A record never
 * moves; when its bytes are overwritten its handler becomes `stale`, and when the area is full everything is forgotten.
 */
import type { Views } from "../base/views.ts";
import type { MemorySpec } from "../wasm/writer.ts";
import { ADDR, type Insn, KIND, TRAP_ROWS, Undecodable, decode, jmpRow, trapInsn, blank } from "./decode.ts";
import { CODEE, CODE_AT, CODE_BITS, HEADS, LENGTH_SHIFT, MAX_RUN, NO_HEADS_AT, RECS_AT, RECS_BYTES, REC, RUN, RUN_AT, SHAPE, WARM } from "./layout.ts";
import { RecordMap } from "./record-map.ts";
import { type Records, recordsModule } from "./records.ts";
import { HOW, NOBODYS, Shapes } from "./shapes.ts";
import { STALE, STRADDLE, codeSlot } from "./runtime.ts";
import { CPU, MODE, gprAt, segAt, xmmAt } from "./state.ts";

/** Code of one frame in one mode: the machine page and mode (key), records by offset, where all records lie that were made (from, to, from, to...), 64-byte pieces that hold decoded bytes (a bit each: low and high half). */
export type Page = { readonly key: number; readonly at: RecordMap; readonly recs: number[]; piecesLo: number; piecesHi: number; readonly generation: number;
  /** regions with code from it */
  regions: Set<PlacedRegion> | null };
/** A region in its place: table slot, the records that enter it, the pages it has code from. */
export type PlacedRegion = { readonly slot: number; readonly recs: readonly number[]; readonly pages: readonly Page[] };
export type CodeHooks = {
  /** A frame now has decoded code: its writers must come to invalidate(). */
  protect(frame: number): void;
  unprotect(frame: number): void;
  /** Arrivals at a record until it is worth translating, and until it is warm. */
  readonly heat: number;
  readonly warmAfter: number;
  /** May jumps be linked when they are decoded? Not where each record's first arrival is wanted. */
  readonly linksAhead: boolean;
  /** Everything was forgotten: addresses of records mean nothing any more. */
  flushed(): void;
  /** A region's code is gone. */
  freeRegion(slot: number): void;
  /** Grows when somebody else has written to the frame. */
  generation(frame: number): number;
  /** Table slot of the stub for an instruction. cross: a direct jump off its page; big: its numbers want 64 bits. */
  stubOf(i: Insn, cross: boolean, big: boolean): number;
  /** A page of code was left to be continued at this linear address: its machine page, or throws GuestFault. */
  fetch(linear: number): number;
};

/** Pages that are found without a Map. */
const RECENT = 256;

export class CodeCache {
  private readonly v: Views;
  private readonly base: number;
  private readonly hooks: CodeHooks;
  /** Nothing is deleted: what is overwritten again and again would leave a chain of deleted entries in the map, to be walked at each insertion. */
  private readonly pages = new Map<number, Page | null>();
  /** of `pages`, those that were asked for last, by their frames' low bits: a Map is slow to find numbers of more than 31 bits */
  private readonly recent: (Page | null)[] = Array<Page | null>(RECENT).fill(null);
  private readonly byFrame = new Map<number, Page[]>();
  /** of pages that were forgotten */
  private readonly freeHeads: number[] = [];
  /** descriptions of a run's last jump: legacy code's, 64-bit code's */
  private readonly jumps: readonly [number, number];
  private readonly shapes: Shapes;
  private readonly records: Records;
  /** decoded: instructions of no shape that was known */
  counters = { records: 0, decoded: 0, pages: 0, invalidations: 0, flushes: 0 };

  constructor(memory: WebAssembly.Memory, spec: MemorySpec, v: Views, base: number, hooks: CodeHooks, shapes = new Shapes(v, base)) {
    this.v = v; this.base = base; this.hooks = hooks; this.shapes = shapes;
    this.records = new WebAssembly.Instance(new WebAssembly.Module(recordsModule(spec, base, hooks)), { e: { memory } }).exports as unknown as Records;
    this.next = base + RECS_AT; this.jumps = [shapes.describe(), shapes.describe()];
    RecordMap.clear(v, base + NO_HEADS_AT);
    this.clearIndex();
  }

  /** Where the next record goes. */
  private get next(): number { return this.v.u32[(this.base + RUN_AT + RUN.next) >>> 2]!; }
  private set next(at: number) { this.v.u32[(this.base + RUN_AT + RUN.next) >>> 2] = at; }
  private clearIndex(): void { this.v.i64.fill(-1n, (this.base + CODE_AT) >>> 3, (this.base + CODE_AT + (CODEE.size << CODE_BITS)) >>> 3); }
  /** Forget everything. */
  flush(): void {
    for (const [frame, list] of this.byFrame) if (list.length > 0) this.hooks.unprotect(frame);
    for (const p of this.pages.values()) for (const r of p?.regions ?? []) if (r.pages[0] === p) this.hooks.freeRegion(r.slot);
    this.pages.clear(); this.recent.fill(null); this.byFrame.clear(); this.freeHeads.length = 0;
    this.next = this.base + RECS_AT; this.counters.flushes++;
    this.clearIndex();
    this.hooks.flushed();
  }
  page(machine: number, mode: number): Page {
    const key = machine + (mode & ~MODE.user) * 2 ** 32, generation = this.hooks.generation(machine / 4096), slot = (machine >>> 12) % RECENT, recent = this.recent[slot]!;
    if (recent !== null && recent.key === key && recent.generation === generation) return recent;
    let p = this.pages.get(key);
    if (p && p.generation !== generation) { this.drop(machine / 4096, p); p = null; }
    if (!p) {
      p = { key, at: new RecordMap(this.v, this.base), recs: [], piecesLo: 0, piecesHi: 0, generation, regions: null };
      this.pages.set(key, p); this.counters.pages++;
      this.own(machine, p);
    }
    return this.recent[slot] = p;
  }
  /** The page, if it has been decoded and nobody else has written to it since. */
  known(machine: number, mode: number): Page | null {
    const p = this.pages.get(machine + (mode & ~MODE.user) * 2 ** 32);
    return p && p.generation === this.hooks.generation(machine / 4096) ? p : null;
  }
  /** Has it been neither overwritten nor forgotten? */
  isCurrent(p: Page): boolean { return this.pages.get(p.key) === p; }
  private own(machine: number, p: Page): void {
    const frame = machine / 4096, list = this.byFrame.get(frame);
    if (list) list.push(p); else this.byFrame.set(frame, [p]);
    this.hooks.protect(frame);                         // even again: a foreign write takes the mark away
  }

  /**
   * The record of the instruction at linear address `linear`, whose page is at machine address `machine`.
   * @throws GuestFault when the instruction goes on into a page that cannot be fetched
   */
  record(linear: number, machine: number, mode: number): number {
    const off = linear & 4095, p = this.page(machine, mode);
    let rec = p.at.get(off);
    const isAcross = rec !== undefined && this.v.i32[(rec + REC.stub) >>> 2]! <= STRADDLE;
    if (rec === undefined || isAcross) {
      if (this.isFull()) { this.flush(); return this.record(linear, machine, mode); }
      if (!isAcross) rec = this.run(p, machine, off, mode);
      if (!rec || isAcross) rec = this.across(linear, machine, mode, rec ?? 0);
    }
    this.publish(this.page(machine, mode), machine, off, rec);
    return rec;
  }
  /** With so many bytes taken, the next decoding may not have room. */
  private isFull(bytes = 0): boolean { return this.next + bytes + (MAX_RUN + 4) * REC.size + HEADS.bytes > this.base + RECS_AT + RECS_BYTES; }
  /** The record of an instruction of that page, decoded if need be; 0 where there is no room, or it goes on into the next page and was never met. */
  recordAt(p: Page, off: number): number {
    const machine = p.key % 2 ** 32, mode = Math.floor(p.key / 2 ** 32), known = p.at.get(off);
    if (known !== undefined) return known;
    return this.isFull() ? 0 : this.run(p, machine, off, mode);
  }
  /** Decode what begins there, ahead of time: generated code finds it where it has the page. @returns its record, or 0 where it cannot be had yet */
  prepare(machine: number, mode: number): number {
    const off = machine % 4096, p = this.page(machine - off, mode), rec = this.recordAt(p, off);
    if (rec !== 0) this.publish(p, machine - off, off, rec);
    return rec;
  }
  private publish(p: Page, machine: number, off: number, rec: number): void {
    this.records.publish(machine + off, p.key / 2 ** 32, rec);
  }
  /** Decode from `off` to where nothing falls through any more (Records.run); 0 when the first instruction crosses the page's end. */
  private run(p: Page, machine: number, off: number, mode: number): number {
    const { base, records, shapes, v } = this, { i32, u8 } = v, state = (base + RUN_AT) >>> 2, { heads } = this.headed(p), first = this.next, jump = this.jumpOf(mode), root = shapes.rootOf(mode);
    i32[state + (RUN.off >> 2)] = off; i32[state + (RUN.nr >> 2)] = i32[state + (RUN.isReturn >> 2)] = i32[state + (RUN.nrJumps >> 2)] = 0;
    for (let shape = -1; records.run(heads, machine, mode & ~MODE.user, root, jump, shape) !== 0;) {
      const at = i32[state + (RUN.off >> 2)]!, i = decodeOrTrap(u8, machine + at, machine + 4096, mode);
      if (i === null && i32[state + (RUN.nr >> 2)] === 0) return 0;
      shape = i === null ? jump : this.describe(i, at, i.shape === 0 ? NOBODYS : shapes.place(u8, machine + at, machine + at + i.shape, mode));
      markPieces(p, at, at);        // of an instruction that only raises an exception there is nothing but this
    }
    const end = i32[state + (RUN.off >> 2)]!;
    if (end > off) markPieces(p, off, end - 1);
    extend(p, first, this.next); this.counters.records += (this.next - first) / REC.size;
    return first;
  }
  /** A page's map, with room for entries. */
  private headed({ at }: Page): RecordMap {
    if (!at.isEmpty) return at;
    at.heads = this.freeHeads.pop() ?? this.next;
    if (at.heads === this.next) this.next += HEADS.bytes;
    RecordMap.clear(this.v, at.heads);
    return at;
  }
  /** The description of a run's last jump, in a mode. */
  private jumpOf(mode: number): number {
    const long = (mode & MODE.sizeMask) === MODE.code64, shape = this.jumps[long ? 1 : 0];
    if (this.v.i32[this.shapes.wordsOf(shape) + (SHAPE.crossStub >> 2)] === 0) for (const off of [0, 4096]) this.describe(jump(off, off, long), off, shape);
    return shape;
  }
  /**
   * An instruction on two pages: a record that looks whether the second page is mapped where it was when this was decoded, then the instruction's.
   * @param old the record in its place, which may be right
   */
  private across(linear: number, machine: number, mode: number, old: number): number {
    const off = linear & 4095, second = this.hooks.fetch(linear - off + 4096), long = (mode & MODE.sizeMask) === MODE.code64, { v } = this;
    const p = this.page(machine, mode), q = this.page(second, mode);         // either may be forgotten here, and `old` with it
    if (old !== 0 && v.i32[(old + REC.stub) >>> 2] === STRADDLE && v.u32[(old + REC.imm) >>> 2] === second) return old;
    const i = decodeOrTrap(bytesAcross(v.u8, machine + off, v.u8, second), 0, ACROSS, mode)!, { next: rec } = (this.headed(p), this);       // never too few bytes
    v.i32[(this.base + RUN_AT + RUN.nrJumps) >>> 2] = 0;
    this.write({ ...blank(), long }, off); this.write(i, off); this.write(jump(off + i.len, off + i.len, long), off + i.len);
    extend(p, rec, this.next); this.counters.records += 3;
    v.i32[rec >>> 2] = v.i32[(rec + REC.stub) >>> 2] = STRADDLE; v.u32[(rec + REC.imm) >>> 2] = second;
    markPieces(p, off, 4095); markPieces(q, 0, 0); extend(q, rec, rec + 2 * REC.size);
    this.records.setRecord(p.at.heads, off, rec);
    return rec;
  }
  /** Write the record of an instruction whose bytes do not lie together. */
  private write(i: Insn, off: number): void {
    const { v: { i32 } } = this, w = this.shapes.wordsOf(this.describe(i, off, NOBODYS));
    this.records.put(NOBODYS, off, i32[w + (SHAPE.imm >> 2)]!, i32[w + (SHAPE.disp >> 2)]!);
  }
  /**
   * Describe the instruction at an offset, which is decoded next, in a shape's words: by those its record is written. What the bytes do not say again in the same way (an instruction of no shape, or
   * whose numbers want 64 bits) is said by words of nobody's, its numbers included.
   */
  private describe(i: Insn, off: number, shape: number): number {
    this.counters.decoded++;
    const { next, shapes, v } = this, { flow } = i.row, isDirect = flow === "jcc" || flow === "jmp" || flow === "call", calls = flow === "call" || flow === "callind", end = off + i.len, target = end + i.imm;
    const cross = isDirect && (target < 0 || target > 4095 || !i.long), number = displacementOf(i), imm = isDirect ? target : i.imm, disp = isDirect ? 0 : i.ripRel ? number + end : number;
    const big = i.bigImm !== null || i.bigDisp !== null || imm !== (imm | 0) || disp !== (disp | 0), described = big ? NOBODYS : shape, w = shapes.wordsOf(described), stub = w + ((cross && !big ? SHAPE.crossStub : SHAPE.stub) >> 2);
    if (described === NOBODYS) v.i32[w + (SHAPE.stub >> 2)] = v.i32[w + (SHAPE.crossStub >> 2)] = 0;
    if (v.i32[stub] === 0) v.i32[stub] = this.hooks.stubOf(i, cross, big);
    v.i32[w + (SHAPE.operands >> 2)] = slotOf(i.dk, i.dn) | slotOf(i.sk, i.sn) << 16;
    v.i32[w + (SHAPE.registers >> 2)] = (i.ripRel ? CPU.ripBase.at : i.base < 0 ? CPU.zero.at : gprAt(i.base)) | (i.index < 0 ? CPU.zero.at : gprAt(i.index)) << 8 | (i.scale | i.len << LENGTH_SHIFT) << 16 | (i.seg < 0 ? CPU.zero.at : segAt(i.seg)) >>> 3 << 24;
    v.i32[w + (SHAPE.imm >> 2)] = big ? imm : i.imm; v.i32[w + (SHAPE.disp >> 2)] = big ? disp : number;
    v.i32[w + (SHAPE.how >> 2)] = i.len | (described === NOBODYS ? 0 : i.dispBytes << HOW.dispShift | i.immBytes << HOW.immShift) | (big ? 0 : (i.ripRel ? HOW.ripRel : 0) | (isDirect ? HOW.direct : 0) | (i.long ? 0 : HOW.far))
      | (flow === "next" || flow === "jcc" || flow === "rep" ? 0 : HOW.ends) | (calls ? HOW.calls : 0);
    if (big) { v.dv.setBigInt64(next + REC.bigImm, i.bigImm ?? BigInt(imm), true); v.dv.setBigInt64(next + REC.bigDisp, i.bigDisp ?? BigInt(disp), true); }
    return described;
  }

  private drop(frame: number, p: Page): void {
    const list = this.byFrame.get(frame);
    this.counters.invalidations++;
    this.forget(p);
    if (!list) return;
    list.splice(list.indexOf(p), 1);
    if (list.length === 0) this.hooks.unprotect(frame);
  }
  /** Room for a table of a region's, or 0 when there is none left (the next decoding flushes). */
  reserve(bytes: number): number {
    if (this.isFull(bytes)) return 0;
    const at = this.next;
    this.next += Math.ceil(bytes / REC.size) * REC.size;
    return at;
  }
  /** Bytes are about to be overwritten: records made from them go stale. Called by every write to a protected frame. @returns whether a region went with them: it may be the one that runs */
  invalidate(machine: number, size: number): boolean {
    const frame = Math.floor(machine / 4096), list = this.byFrame.get(frame);
    if (!list) return false;
    let any = false;
    const from = (machine & 4095) >> 6, to = Math.min(63, ((machine & 4095) + size - 1) >> 6);
    for (const p of list.length === 1 ? list : [...list]) {
      let hit = 0;
      for (let b = from; b <= to; b++) hit |= (b < 32 ? p.piecesLo : p.piecesHi) >>> (b & 31) & 1;
      if (hit) { any ||= (p.regions?.size ?? 0) > 0; this.drop(frame, p); }
    }
    return any;
  }
  /** A region is in place: it goes when one of its pages does. */
  place(r: PlacedRegion): void { for (const p of r.pages) (p.regions ??= new Set()).add(r); }
  /** A region is void: its records are the interpreter's again. */
  private endRegion(r: PlacedRegion): void {
    const { i32 } = this.v;
    for (const rec of r.recs) if (i32[rec >>> 2] === r.slot) {
      i32[rec >>> 2] = i32[(rec + REC.stub) >>> 2]!; this.v.u16[(rec + REC.block) >>> 1] = 0;
      i32[(rec + REC.heat) >>> 2] = Math.max(1, this.hooks.heat >> 2); i32[(rec + REC.stay) >>> 2] = WARM;     // it was hot: sooner than the first time
    }
    for (const p of r.pages) p.regions?.delete(r);
    this.hooks.freeRegion(r.slot);
  }
  private forget(p: Page): void {
    for (let n = 0; n < p.recs.length; n += 2) for (let rec = p.recs[n]!; rec < p.recs[n + 1]!; rec += REC.size) {
      this.v.i32[rec >>> 2] = this.v.i32[(rec + REC.stub) >>> 2] = STALE; this.v.u16[(rec + REC.block) >>> 1] = 0;
    }
    for (const r of p.regions ?? []) this.endRegion(r);
    const machine = p.key % 2 ** 32;
    p.at.forEach((off) => { this.v.i64[(this.base + CODE_AT + codeSlot(machine + off | 0) * CODEE.size) >>> 3] = -1n; });
    if (!p.at.isEmpty) this.freeHeads.push(p.at.heads);
    this.pages.set(p.key, null); this.recent[(machine >>> 12) % RECENT] = null;
  }
}
/** Enough for any instruction: the bytes from a place to its page's end, then those of the page that follows in linear addresses, which begins at `at`. */
export const ACROSS = 32;
export function bytesAcross(first: Uint8Array, from: number, second: Uint8Array, at: number): Uint8Array {
  const b = new Uint8Array(ACROSS), n = 4096 - (from & 4095);
  b.set(first.subarray(from, from + n)); b.set(second.subarray(at, at + ACROSS - n), n);
  return b;
}
/** Records lie there that go with the page. */
function extend({ recs }: Page, from: number, to: number): void { if (recs.at(-1) === from) recs[recs.length - 1] = to; else recs.push(from, to); }
export function markPieces(p: Page, from: number, to: number): void {
  for (let b = from >> 6; b <= to >> 6 && b < 64; b++) if (b < 32) p.piecesLo |= 1 << b; else p.piecesHi |= 1 << (b & 31);
}
/** The instruction at m[at..end), or the one that raises what its bytes deserve; null when there are too few of them. */
function decodeOrTrap(m: Uint8Array, at: number, end: number, mode: number): Insn | null {
  try { return decode(m, at, end, mode); } catch (e) {
    if (!(e instanceof Undecodable)) throw e;
    return e.why === "short" ? null : trapInsn(e.why === "ud" ? TRAP_ROWS.ud : TRAP_ROWS.gp, (mode & MODE.sizeMask) === MODE.code64);
  }
}
/** A jump of no length from `off` to page offset `to`: the end of a run. */
function jump(off: number, to: number, long: boolean): Insn {
  const i = blank();
  i.row = jmpRow; i.w = long ? 64 : 32; i.sw = 64; i.long = long; i.imm = to - off;
  return i;
}
/** A segment's far selector or a second immediate shares the displacement's place, as a direct jump's link does. */
const displacementOf = (i: Insn): number => (i.addr === ADDR.none ? i.imm2 : i.disp);
/** Where in the CPU struct an operand lies; a number is itself. */
const slotOf = (kind: number, n: number): number => (kind === KIND.hi ? gprAt(n) + 1 : kind === KIND.xmm ? xmmAt(n) : kind === KIND.mmx ? CPU.st.at + n * 16 : kind === KIND.num ? n : gprAt(n));
