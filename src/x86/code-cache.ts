/**
 * Decoded instructions: records in the pCPU's area, found by machine address and mode, so that they outlive address spaces. A record never
 * moves; when its bytes are overwritten its handler becomes `stale`, and when the area is full everything is forgotten.
 */
import type { Views } from "../base/views.ts";
import { ADDR, type Insn, KIND, TRAP_ROWS, Undecodable, decode, jmpRow, trapInsn, blank } from "./decode.ts";
import { CODEE, CODE_AT, CODE_BITS, PCPU_BYTES, RECS_AT, REC } from "./layout.ts";
import { STALE, codeSlot } from "./runtime.ts";
import { CPU, MODE, gprAt, segAt, xmmAt } from "./state.ts";

export type Page = { readonly key: number; readonly at: Map<number, number>; readonly recs: number[]; /** 64-byte pieces that hold decoded bytes */ readonly pieces: Uint8Array; /** offsets published in the index */ readonly published: Set<number>; readonly generation: number;
  /** the region made from it: table slot, or 0; hot offsets it was made for; how often and when it was made, in instructions retired */
  region: number; readonly hot: Set<number>; builds: number; builtAt: number };
export type CodeHooks = {
  /** A frame now has decoded code: its writers must come to invalidate(). */
  protect(frame: number): void;
  unprotect(frame: number): void;
  /** Arrivals at a record until it is worth translating. */
  readonly heat: number;
  /** A region's code is gone. */
  freeRegion(slot: number): void;
  /** Grows when somebody else has written to the frame. */
  generation(frame: number): number;
  /** Table slot of the stub for an instruction. */
  stubOf(i: Insn, cross: boolean): number;
  /** A page of code was left to be continued at this linear address: its machine page, or throws GuestFault. */
  fetch(linear: number): number;
};
const MAX_RUN = 64;

export class CodeCache {
  private readonly v: Views;
  private readonly base: number;
  private readonly hooks: CodeHooks;
  private next: number;
  private readonly pages = new Map<number, Page>();
  private readonly byFrame = new Map<number, Page[]>();
  /** Instructions that cross into another page: both machine pages, offset and mode to record. */
  private readonly crossing = new Map<string, number>();
  /** Records that must be found by the run loop each time. */
  private readonly unlinked = new Set<number>();
  counters = { records: 0, pages: 0, invalidations: 0, flushes: 0 };

  constructor(v: Views, base: number, hooks: CodeHooks) { this.v = v; this.base = base; this.hooks = hooks; this.next = base + RECS_AT; this.clearIndex(); }

  private clearIndex(): void { for (let i = 0; i < 1 << CODE_BITS; i++) this.v.i64[(this.base + CODE_AT + i * CODEE.size) >>> 3] = -1n; }
  /** Forget everything. */
  flush(): void {
    for (const frame of this.byFrame.keys()) this.hooks.unprotect(frame);
    for (const p of this.pages.values()) if (p.region) this.hooks.freeRegion(p.region);
    this.pages.clear(); this.byFrame.clear(); this.crossing.clear(); this.unlinked.clear();
    this.next = this.base + RECS_AT; this.counters.flushes++;
    this.clearIndex();
  }
  page(machine: number, mode: number): Page {
    const key = machine + (mode & ~MODE.user) * 2 ** 32;
    const generation = this.hooks.generation(machine / 4096);
    let p = this.pages.get(key);
    if (p && p.generation !== generation) { this.drop(machine / 4096, p); p = undefined; }
    if (!p) {
      p = { key, at: new Map(), recs: [], pieces: new Uint8Array(64), published: new Set(), generation, region: 0, hot: new Set(), builds: 0, builtAt: 0 };
      this.pages.set(key, p); this.counters.pages++;
      this.own(machine, p);
    }
    return p;
  }
  private own(machine: number, p: Page): void {
    const frame = machine / 4096, list = this.byFrame.get(frame);
    if (list) list.push(p); else this.byFrame.set(frame, [p]);
    this.hooks.protect(frame);                         // even again: a foreign write takes the mark away
  }
  /** May a direct jump be linked to this record? */
  linkable(rec: number): boolean { return !this.unlinked.has(rec); }

  /**
   * The record of the instruction at linear address `linear`, whose page is at machine address `machine`.
   * @throws GuestFault when the instruction goes on into a page that cannot be fetched
   */
  record(linear: number, machine: number, mode: number): number {
    const off = linear & 4095, p = this.page(machine, mode);
    let rec = p.at.get(off);
    if (rec === undefined) {
      if (this.next + (MAX_RUN + 2) * REC.size > this.base + PCPU_BYTES) { this.flush(); return this.record(linear, machine, mode); }
      rec = this.run(p, machine, off, mode);
      if (rec === 0) return this.across(linear, machine, mode);
    }
    this.publish(p, machine, off, rec);
    return rec;
  }
  private publish(p: Page, machine: number, off: number, rec: number): void {
    const e = (this.base + CODE_AT + codeSlot(machine + off | 0) * CODEE.size) >>> 2;
    this.v.i32[e] = machine + off; this.v.i32[e + 1] = p.key / 2 ** 32; this.v.i32[e + 2] = rec;
    p.published.add(off);
  }
  /** Decode from `off` to the next unconditional transfer; 0 when the first instruction crosses the page's end. */
  private run(p: Page, machine: number, off: number, mode: number): number {
    const first = this.next, m = this.v.u8, long = (mode & MODE.sizeMask) === MODE.code64;
    for (let n = 0; ; n++) {
      if (off >= 4096 || n === MAX_RUN || p.at.has(off)) { this.write(p, jump(off, off, long), off); return first; }
      const i = decodeOrTrap(m, machine + off, machine + 4096, mode);
      if (i === null) { if (n === 0) return 0; this.write(p, jump(off, off, long), off); return first; }
      p.at.set(off, this.next); this.write(p, i, off);
      for (let b = off >> 6; b <= (off + Math.max(i.len, 1) - 1) >> 6; b++) p.pieces[b] = 1;
      const { flow } = i.row;
      if (flow !== "next" && flow !== "jcc" && flow !== "rep") return first;
      off += i.len;
    }
  }
  /** An instruction on two pages: found anew each time, since where the second page lies may change. */
  private across(linear: number, machine: number, mode: number): number {
    const off = linear & 4095, second = this.hooks.fetch(linear - off + 4096), key = `${machine} ${second} ${off} ${mode & ~MODE.user}`, long = (mode & MODE.sizeMask) === MODE.code64;
    const known = this.crossing.get(key);
    if (known !== undefined && this.v.i32[known >>> 2] !== STALE) return known;
    const b = new Uint8Array(32), n = 4096 - off;
    b.set(this.v.u8.subarray(machine + off, machine + 4096)); b.set(this.v.u8.subarray(second, second + 32 - n), n);
    const i = decodeOrTrap(b, 0, 32, mode)!;       // 32 bytes are never too few
    const p = this.page(machine, mode), q = this.page(second, mode), rec = this.next;
    this.write(p, i, off); this.write(p, jump(off + i.len, off + i.len, long), off + i.len);
    p.pieces[63] = q.pieces[0] = 1; q.recs.push(rec);
    this.crossing.set(key, rec); this.unlinked.add(rec);
    return rec;
  }
  private write(p: Page, i: Insn, off: number): void {
    const at = this.next, { v } = this, target = off + i.len + i.imm, isDirect = i.row.flow === "jcc" || i.row.flow === "jmp" || i.row.flow === "call";
    const cross = isDirect && (target < 0 || target > 4095 || !i.long);
    this.next += REC.size; this.counters.records++; p.recs.push(at);
    const slot = (k: number, n: number) => (k === KIND.hi ? gprAt(n) + 1 : k === KIND.xmm ? xmmAt(n) : k === KIND.mmx ? CPU.st.at + n * 16 : k === KIND.num ? n : gprAt(n));
    v.i32[at >>> 2] = v.i32[(at + REC.stub) >>> 2] = this.hooks.stubOf(i, cross);
    v.i32[(at + REC.heat) >>> 2] = this.hooks.heat;
    v.u16[(at + REC.d) >>> 1] = slot(i.dk, i.dn); v.u16[(at + REC.s) >>> 1] = slot(i.sk, i.sn);
    v.u16[(at + REC.base) >>> 1] = i.ripRel ? CPU.ripBase.at : i.base < 0 ? CPU.zero.at : gprAt(i.base); v.u16[(at + REC.index) >>> 1] = i.index < 0 ? CPU.zero.at : gprAt(i.index);
    v.u8[at + REC.scale] = i.scale; v.u8[at + REC.len] = i.len; v.u16[(at + REC.off) >>> 1] = off;
    v.dv.setBigInt64(at + REC.imm, i.bigImm ?? BigInt(isDirect ? target : i.imm), true);
    // a segment's far selector or a second immediate shares the displacement's place
    v.dv.setBigInt64(at + REC.disp, i.bigDisp ?? BigInt(i.addr === ADDR.none ? i.imm2 : i.disp + (i.ripRel ? off + i.len : 0)), true);
    v.i32[(at + REC.link) >>> 2] = 0;
    v.u16[(at + REC.seg) >>> 1] = i.seg < 0 ? CPU.zero.at : segAt(i.seg);
  }

  private drop(frame: number, p: Page): void {
    const list = this.byFrame.get(frame);
    this.counters.invalidations++;
    this.forget(p);
    if (!list) return;
    list.splice(list.indexOf(p), 1);
    if (list.length === 0) { this.byFrame.delete(frame); this.hooks.unprotect(frame); }
  }
  /** Room for a table of a region's, or 0 when there is none left (the next decoding flushes). */
  reserve(bytes: number): number {
    if (this.next + bytes + (MAX_RUN + 2) * REC.size > this.base + PCPU_BYTES) return 0;
    const at = this.next;
    this.next += bytes;
    return at;
  }
  /** Bytes are about to be overwritten: records made from them go stale. Called by every write to a protected frame. @returns whether there were any */
  invalidate(machine: number, size: number): boolean {
    const frame = Math.floor(machine / 4096), list = this.byFrame.get(frame);
    if (!list) return false;
    let any = false;
    const from = (machine & 4095) >> 6, to = Math.min(63, ((machine & 4095) + size - 1) >> 6);
    for (const p of [...list]) {
      let hit = false;
      for (let b = from; b <= to && !hit; b++) hit = p.pieces[b] !== 0;
      if (hit) { this.drop(frame, p); any = true; }
    }
    return any;
  }
  private forget(p: Page): void {
    for (const rec of p.recs) this.v.i32[rec >>> 2] = this.v.i32[(rec + REC.stub) >>> 2] = STALE;
    if (p.region) this.hooks.freeRegion(p.region);
    const machine = p.key % 2 ** 32;
    for (const off of p.published) {
      const e = (this.base + CODE_AT + codeSlot(machine + off | 0) * CODEE.size) >>> 3;
      this.v.i64[e] = -1n;
    }
    this.pages.delete(p.key);
  }
}
/** The instruction at m[at..end), or the one that raises what its bytes deserve; null when there are too few of them. */
function decodeOrTrap(m: Uint8Array, at: number, end: number, mode: number): Insn | null {
  try { return decode(m, at, end, mode); } catch (e) {
    if (!(e instanceof Undecodable)) throw e;
    return e.why === "short" ? null : trapInsn(e.why === "ud" ? TRAP_ROWS.ud : TRAP_ROWS.gp, (mode & MODE.sizeMask) === MODE.code64);
  }
}
/** A jump of no length from `off` to page offset `to`: the end of a run. */
const jump = (off: number, to: number, long: boolean): Insn => ({ ...blank(), row: jmpRow, w: long ? 64 : 32, sw: 64, long, imm: to - off });
