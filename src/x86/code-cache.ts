/**
 * Decoded instructions: records in the pCPU's area, found by machine address and mode, so that they outlive address spaces. A record never
 * moves; when its bytes are overwritten its handler becomes `stale`, and when the area is full everything is forgotten.
 */
import type { Views } from "../base/views.ts";
import { ADDR, type Insn, KIND, TRAP_ROWS, Undecodable, decode, jmpRow, trapInsn, blank } from "./decode.ts";
import { CODEE, CODE_AT, CODE_BITS, LENGTH_SHIFT, RECS_AT, RECS_BYTES, REC, WARM } from "./layout.ts";
import { RecordMap } from "./record-map.ts";
import { HOW, SHAPE, Shapes } from "./shapes.ts";
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
const MAX_RUN = 64;

export class CodeCache {
  private readonly v: Views;
  private readonly base: number;
  private readonly hooks: CodeHooks;
  private next: number;
  /** Nothing is deleted: what is overwritten again and again would leave a chain of deleted entries in the map, to be walked at each insertion. */
  private readonly pages = new Map<number, Page | null>();
  private readonly byFrame = new Map<number, Page[]>();
  /** direct jumps within their page that the present run has */
  private readonly jumps = new Int32Array(2 * (MAX_RUN + 4));
  private nrJumps = 0;
  private readonly shapes: Shapes;
  counters = { records: 0, pages: 0, invalidations: 0, flushes: 0 };

  constructor(v: Views, base: number, hooks: CodeHooks, shapes = new Shapes()) { this.v = v; this.base = base; this.hooks = hooks; this.shapes = shapes; this.next = base + RECS_AT; this.clearIndex(); }

  private clearIndex(): void { for (let i = 0; i < 1 << CODE_BITS; i++) this.v.i64[(this.base + CODE_AT + i * CODEE.size) >>> 3] = -1n; }
  /** Forget everything. */
  flush(): void {
    for (const [frame, list] of this.byFrame) if (list.length > 0) this.hooks.unprotect(frame);
    for (const p of this.pages.values()) for (const r of p?.regions ?? []) if (r.pages[0] === p) this.hooks.freeRegion(r.slot);
    this.pages.clear(); this.byFrame.clear();
    this.next = this.base + RECS_AT; this.counters.flushes++;
    this.clearIndex();
    this.hooks.flushed();
  }
  page(machine: number, mode: number): Page {
    const key = machine + (mode & ~MODE.user) * 2 ** 32;
    const generation = this.hooks.generation(machine / 4096);
    let p = this.pages.get(key);
    if (p && p.generation !== generation) { this.drop(machine / 4096, p); p = null; }
    if (!p) {
      p = { key, at: new RecordMap(this.base + RECS_AT), recs: [], piecesLo: 0, piecesHi: 0, generation, regions: null };
      this.pages.set(key, p); this.counters.pages++;
      this.own(machine, p);
    }
    return p;
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
  private isFull(bytes = 0): boolean { return this.next + bytes + (MAX_RUN + 4) * REC.size > this.base + RECS_AT + RECS_BYTES; }
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
    const e = (this.base + CODE_AT + codeSlot(machine + off | 0) * CODEE.size) >>> 2;
    this.v.i32[e] = machine + off; this.v.i32[e + 1] = p.key / 2 ** 32; this.v.i32[e + 2] = rec;
  }
  /** Decode from `off` to where nothing falls through any more, over calls, whose returns find their records in the index then; 0 when the first instruction crosses the page's end. */
  private run(p: Page, machine: number, off: number, mode: number): number {
    const { jumps, v } = this;
    this.nrJumps = 0;
    const first = this.decodeRun(p, machine, off, mode);
    // within the page a jump need not come to the run loop to be told where it goes
    if (this.hooks.linksAhead) for (let n = 0; n < this.nrJumps; n += 2) {
      const to = p.at.get(jumps[n + 1]!);
      if (to !== undefined) v.i32[(jumps[n]! + REC.link) >>> 2] = to;
    }
    return first;
  }
  private decodeRun(p: Page, machine: number, off: number, mode: number): number {
    const first = this.next, { linksAhead } = this.hooks, long = (mode & MODE.sizeMask) === MODE.code64;
    for (let n = 0, returnsHere = false; ; n++) {
      if (returnsHere && p.at.has(off)) { this.publish(p, machine, off, p.at.get(off)!); return first; }
      if (off >= 4096 || n === MAX_RUN || p.at.has(off)) { this.write(p, jump(off, off, long), off); return first; }
      const at = this.next, how = this.again(p, machine, off, mode) || this.decodeOne(p, machine, off, mode);
      if (how === 0) { if (n === 0) return 0; this.write(p, jump(off, off, long), off); return first; }
      p.at.set(off, at);
      if (returnsHere) this.publish(p, machine, off, at);
      const length = how & HOW.lengthMask;
      markPieces(p, off, off + Math.max(length, 1) - 1);
      returnsHere = linksAhead && (how & HOW.calls) !== 0;
      if (how & HOW.ends && !returnsHere) return first;
      off += length;
    }
  }
  /** Write the record of an instruction whose shape is known. @returns its HOW; 0: it is to be decoded */
  private again(p: Page, machine: number, off: number, mode: number): number {
    if (off > 4096 - 15) return 0;
    const m = this.v.u8, { shapes } = this, at = machine + off, s = shapes.find(m, at, mode);
    if (s === 0) return 0;
    const w = shapes.words, how = w[s + SHAPE.how]!, length = how & HOW.lengthMask, immBytes = how >> HOW.immShift & HOW.numberMask, dispBytes = how >> HOW.dispShift & HOW.numberMask;
    const imm = immBytes === 0 ? w[s + SHAPE.imm]! : signed(m, at + length - immBytes, immBytes), disp = dispBytes === 0 ? w[s + SHAPE.disp]! : signed(m, at + length - immBytes - dispBytes, dispBytes);
    return this.put(p, s, off, imm, disp) ? how : 0;
  }
  /** Decode, write the record, and remember the shape. @returns its HOW; 0 where it goes on behind its page */
  private decodeOne(p: Page, machine: number, off: number, mode: number): number {
    const m = this.v.u8, i = decodeOrTrap(m, machine + off, machine + 4096, mode);
    if (i === null) return 0;
    return this.write(p, i, off, i.shape === 0 ? 0 : this.shapes.place(m, machine + off, machine + off + i.shape, mode));
  }
  /**
   * An instruction on two pages: a record that looks whether the second page is mapped where it was when this was decoded, then the instruction's.
   * @param old the record in its place, which may be right
   */
  private across(linear: number, machine: number, mode: number, old: number): number {
    const off = linear & 4095, second = this.hooks.fetch(linear - off + 4096), long = (mode & MODE.sizeMask) === MODE.code64, { v } = this;
    const p = this.page(machine, mode), q = this.page(second, mode);         // either may be forgotten here, and `old` with it
    if (old !== 0 && v.i32[(old + REC.stub) >>> 2] === STRADDLE && v.u32[(old + REC.imm) >>> 2] === second) return old;
    const i = decodeOrTrap(bytesAcross(v.u8, machine + off, v.u8, second), 0, ACROSS, mode)!, rec = this.next;       // never too few bytes
    this.nrJumps = 0;
    this.write(p, { ...blank(), long }, off); this.write(p, i, off); this.write(p, jump(off + i.len, off + i.len, long), off + i.len);
    v.i32[rec >>> 2] = v.i32[(rec + REC.stub) >>> 2] = STRADDLE; v.u32[(rec + REC.imm) >>> 2] = second;
    markPieces(p, off, 4095); markPieces(q, 0, 0); extend(q, rec, rec + 2 * REC.size);
    p.at.set(off, rec);
    return rec;
  }
  /** Describe an instruction in the shapes' word s, or nobody's, and write its record. @returns its HOW */
  private write(p: Page, i: Insn, off: number, s = 0): number {
    const w = this.shapes.words, { flow } = i.row, isDirect = flow === "jcc" || flow === "jmp" || flow === "call", calls = flow === "call" || flow === "callind";
    const how = i.len | i.dispBytes << HOW.dispShift | i.immBytes << HOW.immShift | (i.ripRel ? HOW.ripRel : 0) | (isDirect ? HOW.direct : 0) | (i.long ? 0 : HOW.far)
      | (flow === "next" || flow === "jcc" || flow === "rep" ? 0 : HOW.ends) | (calls ? HOW.calls : 0);
    if (s === 0) w[SHAPE.stub] = w[SHAPE.crossStub] = 0;
    w[s + SHAPE.operands] = slotOf(i.dk, i.dn) | slotOf(i.sk, i.sn) << 16;
    w[s + SHAPE.registers] = (i.ripRel ? CPU.ripBase.at : i.base < 0 ? CPU.zero.at : gprAt(i.base)) | (i.index < 0 ? CPU.zero.at : gprAt(i.index)) << 8 | (i.scale | i.len << LENGTH_SHIFT) << 16 | (i.seg < 0 ? CPU.zero.at : segAt(i.seg)) >>> 3 << 24;
    w[s + SHAPE.imm] = i.imm;
    // a segment's far selector or a second immediate shares the displacement's place, as a direct jump's link does
    const disp = i.addr === ADDR.none ? i.imm2 : i.disp;
    w[s + SHAPE.disp] = disp;
    w[s + SHAPE.how] = how;
    this.put(p, s, off, i.imm, disp, i);
    return how;
  }
  /**
   * Write the record of an instruction of shape s at that offset.
   * @param i the instruction itself, if it was decoded. @returns whether it was written: what the shape does not say needs `i`
   */
  private put(p: Page, s: number, off: number, number: number, displacement: number, i: Insn | null = null): boolean {
    const at = this.next, { v, shapes: { words: w } } = this, how = w[s + SHAPE.how]!, end = off + (how & HOW.lengthMask), target = end + number, isDirect = (how & HOW.direct) !== 0;
    const cross = isDirect && (target < 0 || target > 4095 || (how & HOW.far) !== 0), imm = isDirect ? target : number, disp = isDirect ? 0 : how & HOW.ripRel ? displacement + end : displacement;
    const big = (i !== null && (i.bigImm !== null || i.bigDisp !== null)) || imm !== (imm | 0) || disp !== (disp | 0), known = s + (cross ? SHAPE.crossStub : SHAPE.stub);
    let stub = big ? 0 : w[known]!;
    if (stub === 0) {
      if (i === null) return false;
      stub = this.hooks.stubOf(i, cross, big);
      if (!big) w[known] = stub;
    }
    this.next += REC.size; this.counters.records++;
    extend(p, at, this.next);
    if (isDirect && !cross) { this.jumps[this.nrJumps++] = at; this.jumps[this.nrJumps++] = target; }
    v.i32[at >>> 2] = v.i32[(at + REC.stub) >>> 2] = stub;
    v.i32[(at + REC.heat) >>> 2] = this.hooks.warmAfter; v.i32[(at + REC.stay) >>> 2] = 0;
    v.i32[(at + REC.d) >>> 2] = w[s + SHAPE.operands]!; v.i32[(at + REC.base) >>> 2] = w[s + SHAPE.registers]!; v.i32[(at + REC.off) >>> 2] = off;
    v.i32[(at + REC.imm) >>> 2] = imm; v.i32[(at + REC.disp) >>> 2] = disp;
    if (big) { v.dv.setBigInt64(at + REC.bigImm, i!.bigImm ?? BigInt(imm), true); v.dv.setBigInt64(at + REC.bigDisp, i!.bigDisp ?? BigInt(disp), true); }
    return true;
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
    this.pages.set(p.key, null);
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
/** A number of 1, 2 or 4 bytes, with its sign. */
const signed = (m: Uint8Array, at: number, size: number): number => (size === 1 ? m[at]! << 24 >> 24 : size === 2 ? (m[at]! | m[at + 1]! << 8) << 16 >> 16 : m[at]! | m[at + 1]! << 8 | m[at + 2]! << 16 | m[at + 3]! << 24);
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
/** Where in the CPU struct an operand lies; a number is itself. */
const slotOf = (kind: number, n: number): number => (kind === KIND.hi ? gprAt(n) + 1 : kind === KIND.xmm ? xmmAt(n) : kind === KIND.mmx ? CPU.st.at + n * 16 : kind === KIND.num ? n : gprAt(n));
