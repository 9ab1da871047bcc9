/**
 * The translator's side of the generator: operands are known, general and XMM registers are wasm locals, flags are remembered as the operands that
 * made them until somebody must have the words. A region is one function (record, cpu) -> next record or 0, called like a stub: it begins at
 * the block its record names and leaves with everything in the CPU struct. Its bytes hold no address: what belongs to the machine it runs on lies in
 * the region's data block (`Image` says what), which the record names too. So equal code gives equal bytes, for whoever runs it.
 */
import { Op } from "../wasm/opcodes.ts";
import { Code, I32, I64, type MemorySpec, V128 } from "../wasm/writer.ts";
import type { Ty } from "../wasm/writer.ts";
import { ALL, CF, factsOf } from "./analyze.ts";
import { ADDR, type Insn, KIND } from "./decode.ts";
import { type EntryTable, SLOT, entryTable } from "./entry-table.ts";
import { EXPONENT_LIMIT, type FlagKind, type Flags, Gen, LOADS, MXCSR_ORDINARY, STORES, type Val, type W, X, helperIndex, local, tyOf } from "./gen.ts";
import { arithOf, auxOf, ccFrom, ccOf, flagCode, resOf, withCF, withCO, wordsOf } from "./gen-flags.ts";
import type { Image, Shape, Site } from "./image.ts";
import { LEAVES, REC, SITE } from "./layout.ts";
import { type Block, type Loop, type Region, liveBeforeIn, pageOf } from "./region.ts";
import { STACK_INSNS } from "./rows.ts";
import { EXTRACT, REPLACE, movx } from "./semantics-sse.ts";
import { CPU, RCX, RSP, SEG, segAt, xmmAt } from "./state.ts";
import { STUB_TYPE, generatedModule, keepBudget } from "./stubs.ts";

/** Locals: parameters, the block asked for, the registers, lazy flags (a, b, code), rip on the way out, the home page's rip, instructions done, budget,
 *  the record to go on with, the data block, the TLB in use, pages known to be mapped, how far exponents may reach (MXCSR), where a block was left in its middle (position; lean: number of the site), XMM registers known to hold ordinary doubles (a bit each); XMM registers. */
const REC_ = 0, CPU_ = 1, SEL = 2, R0 = 3, LA = 19, LB = 20, LRIP = 21, LBASE = 22, LCNT = 23, LKIND = 24, LBUD = 25, LREC = 26, LDATA = 27, LTLB = 28, LOK = 29, LMX = 30, LPOS = 31, LNORM = 32, X0 = 33;
/** SEL for: find the block at LRIP. */
const FIND = -1;
/** Where a region's flags lie between it and whoever comes next. */
const FLAG_PLACES = [[LA, CPU.fres.at, Op.i64_load, Op.i64_store], [LB, CPU.faux.at, Op.i64_load, Op.i64_store], [LKIND, CPU.lazy.at, Op.i32_load, Op.i32_store]] as const;
/** Long stays count for REC.stay, in units of so many instructions (a power of 2). */
export const STAY_SHIFT = 6;
/** A value as a sum: something the block has met, and a number. */
type Term = { readonly root: number; readonly plus: number };
/** A page that was probed at a term's address: locals with that address' offset in the page (far more where the probe missed) and its machine address. */
type Reached = Term & { readonly canWrite: boolean; readonly off: number; readonly host: number };
/** An offset in no page, whatever is added. */
const NO_OFFSET = 2 ** 40;
/** Pages that a block remembers at a time: each takes two registers of the host. */
const MAX_REACHED = 3;
/** Some instructions of a block in a row: where their faults go, what is out of date there by the first of these faults and by any of them (`gprs`, `xmms`); null: there are none. */
type Part = { readonly label: number; first: Dirty | null; all: Dirty };
type Dirty = { readonly gprs: number; readonly xmms: number };
/** Parts of a block at most. The more, the fewer registers are loaded for the sake of a fault that comes before they are written. */
const MAX_PARTS = 8;
type Item = { first: number; last: number; loop: Loop | null };
type Seq = { items: Item[]; labels: number[]; at: number; top: number; first: number; last: number; dispatch: boolean };

/** A translated region: `code` is its function's body, for a module like generatedModule's. */
export type Translated = { readonly image: Image; readonly code: Code };
/** Offsets in the data block. */
export type DataLayout = { readonly displacements: number; readonly slots: number; readonly exits: number; readonly sites: number; readonly size: number };
export function dataLayout(nrPages: number, t: EntryTable, nrExits: number, nrSites: number): DataLayout {
  const displacements = nrPages * 4, slots = displacements + t.displacements.length + 15 & ~15, exits = slots + t.nrSlots * SLOT.size, sites = exits + nrExits * 4;
  return { displacements, slots, exits, sites, size: sites + nrSites * SITE.size };
}
/** A module of regions, whose table slots follow the one given as `base`. */
export function regionModule(regions: readonly Translated[], memory: MemorySpec, tableSize: number): Uint8Array<ArrayBuffer> {
  const m = generatedModule(memory, tableSize), type = m.type(...STUB_TYPE);
  for (const { code } of regions) m.funcs.push({ type, code });
  return m.encode();
}
/** The XMM register whose place in the CPU struct that is, or null. */
const xmmOf = (at: number): number | null => (at >= CPU.xmm.at && at < CPU.xmm.at + 256 ? (at - CPU.xmm.at) / 16 : null);
/** Does it call what is a part of it, as far as one sees? */
const hasInnerCalls = (r: Region): boolean => r.blocks.some(b => { const i = b.insns.at(-1)!, { flow } = i.row; return flow === "callind" || flow === "call" && r.index.has(b.end + i.imm); });
/** The most a site's jump table may have; larger regions go by the dispatcher. */
const MAX_SPREAD = 64;

export class RegionGen extends Gen {
  private r!: Region;
  private table!: EntryTable;
  private data!: DataLayout;
  private exits: number[] = [];
  /** exits whose record must be there */
  private needed = new Set<number>();
  /** lean: the places where it is left */
  private sites: Site[] = [];
  private insn!: Insn;
  /** position of the present instruction, and of its page */
  private at = 0;
  private page = 0;
  private block = 0;
  private isLean = false;
  /** the ways out: to LREC at LRIP (0: look it up; lean: always); wide: to LREC's stub, to the run loop; lean: by site LPOS, the same with an instruction undone */
  private toRecord = 0;
  private toStub = 0;
  private toLoop = 0;
  private toSite = 0;
  private toUndone = 0;
  /** where this block's faults go with LPOS set, by the part of the block that they are in; instructions in a part */
  private parts: Part[] = [];
  private partSize = 1;
  /** registers that the block has written so far */
  private everDirty = 0;
  private everDirtyX = 0;
  private liveAfter = 0;
  private seqs: Seq[] = [];
  /** something goes back to the region's dispatcher */
  private comesBack = false;
  /** registers that are read somewhere; those of this block whose place in the CPU struct is out of date */
  private used = 0;
  private usedX = 0;
  private dirty = 0;
  private dirtyX = 0;
  /** lean: the block reads flags from before it; the locals have words that memory has not */
  private usesFlags = false;
  private flagsInLocals = false;
  /** what registers are in terms of values the block has met, and values kept in temporaries; pages probed in this block, at its outermost level */
  private terms: Term[] = [];
  private readonly termOf = new Map<Val, Term>();
  private nrRoots = 0;
  private reached: Reached[] = [];
  private fresh: Reached | null = null;
  private blockDepth = 0;
  /** locals for what `reached` remembers: offsets and machine addresses */
  private readonly reachLocals: { off: number; host: number }[] = [];
  private usesMxcsr = false;
  private dynFlags = 0;
  /** the budget is looked at, so that it is a local; in wide regions it always is */
  private usesBudget = false;
  /** it has calls that come back to it, so that a return may find its block here */
  private hasInnerCalls = false;
  private pending: Flags | null = null;
  /** carry (and overflow) as something has set them since, over what is pending or in the locals */
  private over: { cf: Val; of: Val | null } | null = null;
  private hold: ReadonlyMap<Ty, number> = new Map();
  private writes: { i: number; v: Val }[] = [];
  private vectors: { i: number; v: Val }[] = [];
  private stores: { at: number; w: W; v: Val }[] = [];
  private fl: (() => void)[] = [];
  private ended = false;
  private address: Val | null = null;
  private regRmw = false;
  /** numbers for the values that XMM registers have had in this block, and of which is known that lanes of a shape are neither NaN nor denormal */
  private readonly xmmValue: number[] = [];
  private nrValues = 0;
  private readonly normals = new Map<number, string>();
  private makesNormal: string | null = null;
  /** the present instruction's place in its block; the last one adds the whole block to LCNT before it begins */
  private place = 0;
  private isLast = false;

  translate(r: Region, shape: Shape): Translated {
    const c = this.code = new Code(2), entries = r.blocks.flatMap((b, block) => (b.isEntry ? [{ pos: b.start, block }] : []));
    this.isLean = shape === "lean"; this.usesBudget = !this.isLean;
    this.r = r; this.used = this.usedX = 0; this.usesMxcsr = this.comesBack = false; this.hasInnerCalls = hasInnerCalls(r); this.reachLocals.length = 0; this.resetTemps(); this.seqs = []; this.exits = []; this.sites = []; this.needed = new Set();
    this.table = entryTable(entries.map(e => e.pos)); this.data = dataLayout(r.pages.length, this.table, 0, 0);
    c.local(I32);
    for (let i = 0; i < 16; i++) c.local(I64);
    for (let i = LA; i <= LBASE; i++) c.local(I64);
    for (let i = LCNT; i <= LNORM; i++) c.local(I32);
    for (let i = 0; i < 16; i++) c.local(V128);
    this.dynFlags = 0; for (const b of r.blocks) if (b.isEntry) this.dynFlags |= b.flagsIn;
    const out = c.block();
    if (this.isLean) { this.toSite = c.block(); this.toUndone = c.block(); } else { this.toLoop = out; this.toStub = c.block(); }
    this.toRecord = c.block();
    const top = c.n;
    this.seq(r.loops);
    if (!this.comesBack) c.buf[top] = Op.block;      // a loop's head looks for V8's interrupts
    if (this.isLean) this.leanEpilogue(out); else this.epilogue();
    // the prologue, now that we know what is used
    const p = new Code(2);
    p.get(REC_).mem(Op.i32_load16_u, REC.block).set(SEL).i32(1).set(LOK);
    if (!this.isLean) {
      this.loadRegisters(p, this.used, this.usedX); this.loadFlags(p);
      p.get(REC_).mem(Op.i32_load, REC.data).set(LDATA).get(CPU_).mem(Op.i64_load, CPU.ripBase.at).set(LBASE).get(CPU_).mem(Op.i32_load, CPU.tlb.at).set(LTLB);
    }
    if (this.usesBudget) p.get(CPU_).mem(Op.i32_load, CPU.budget.at).set(LBUD);
    if (this.usesMxcsr) this.lookAtMxcsr(p);
    const all = new Code(2);
    all.types.push(...c.types); all.bytes(p.buf.subarray(0, p.n)).bytes(c.buf.subarray(0, c.n)); all.hints = c.hints.map(([at, v]) => [at + p.n, v]);
    return { code: all, image: { shape, pages: r.pages, entries, exits: this.exits.map(pos => ({ pos, isNeeded: this.needed.has(pos) })), sites: this.sites, nrInsns: r.nrInsns } };
  }
  private lookAtMxcsr(c: Code): void { c.get(CPU_).mem(Op.i32_load, CPU.mxcsr.at).i32(MXCSR_ORDINARY.mask).op(Op.i32_and).i32(MXCSR_ORDINARY.value).op(Op.i32_eq).i32(EXPONENT_LIMIT).op(Op.i32_mul).set(LMX); }
  /** Bring the CPU struct's registers up to date: at the end of a block, and (leaving the block's state as it is) on a way out of its middle. */
  private writeBack(): void {
    const c = this.code;
    for (let i = 0; i < 16; i++) if (this.dirty >> i & 1) c.get(CPU_).get(R0 + i).mem(Op.i64_store, CPU.gpr.at + i * 8);
    for (let i = 0; i < 16; i++) if (this.dirtyX >> i & 1) c.get(CPU_).get(X0 + i).mem(Op.v128_store, xmmAt(i));
  }
  private flush(): void { this.writeBack(); this.dirty = this.dirtyX = 0; }
  private loadRegisters(c: Code, gprs: number, xmms: number): void {
    for (let i = 0; i < 16; i++) if (gprs >> i & 1) c.get(CPU_).mem(Op.i64_load, CPU.gpr.at + i * 8).set(R0 + i);
    for (let i = 0; i < 16; i++) if (xmms >> i & 1) c.get(CPU_).mem(Op.v128_load, xmmAt(i)).set(X0 + i);
  }
  private loadFlags(c: Code): void { for (const [l, at, load] of FLAG_PLACES) c.get(CPU_).mem(load, at).set(l); }
  private storeFlags(): void { for (const [l, at, , store] of FLAG_PLACES) this.code.get(CPU_).get(l).mem(store, at); }
  /** Does it loop? Known when all blocks are there. */
  private get mayStay(): boolean { return this.comesBack || this.r.loops.inner.length > 0; }
  /**
   * A stay counts by its length where it is longer than the region, so that something was done over and over; one that ends with an instruction undone as a unit at
   * least: a loop that misses the TLB all the time is better off wide.
   */
  private stay(isUndone: boolean): void {
    const c = this.code, shift = Math.max(STAY_SHIFT, Math.ceil(Math.log2(this.r.nrInsns)));
    if (!this.mayStay) return;
    c.get(LCNT).i32(shift).op(Op.i32_shr_u); if (shift > STAY_SHIFT) c.i32(shift - STAY_SHIFT).op(Op.i32_shl);
    if (isUndone) c.i32(1).op(Op.i32_or).set(SEL); else c.tee(SEL).unlikely().if_();
    c.get(REC_).get(REC_).mem(Op.i32_load, REC.stay).get(SEL).op(Op.i32_sub).tee(SEL).mem(Op.i32_store, REC.stay);
    c.get(SEL).i32(0).op(Op.i32_le_s).if_();
    c.get(CPU_).get(REC_).mem(Op.i32_store, CPU.stayed.at).get(CPU_); this.base(); c.mem(Op.i64_store, CPU.stayedBase.at).end();
    if (!isUndone) c.end();
  }
  /** The ways out end in code that all regions share (runtime.ts). */
  private epilogue(): void {
    const c = this.code;
    const goodbye = (h: "leaveTo" | "leaveToStub" | "leave") => {
      c.end();
      this.storeFlags(); this.stay(false);
      c.get(LRIP); if (h !== "leave") c.get(LREC);
      c.get(CPU_).get(LBUD).get(LCNT).returnCall(helperIndex(h));
    };
    goodbye("leaveTo"); goodbye("leaveToStub"); goodbye("leave");
  }
  /** The same as short as can be: what a place to leave at has to say lies in the data block. */
  private leanEpilogue(out: number): void {
    const c = this.code;
    c.end();
    this.stay(false); if (this.usesBudget) keepBudget(c, CPU_, LBUD);
    c.get(LRIP).get(CPU_).get(LCNT).returnCall(helperIndex("leaveFor")).end();
    if (this.mayStay) { this.stay(true); c.br(out); }
    c.end(); this.stay(false);
    c.end(); if (this.usesBudget) keepBudget(c, CPU_, LBUD);
    c.get(LPOS).i32(SITE.size).op(Op.i32_mul); this.dataBlock().op(Op.i32_add).i32(this.data.sites).op(Op.i32_add);
    c.get(CPU_).get(LCNT).returnCall(helperIndex("leaveAt"));
  }
  cpu(): Code { return this.code.get(CPU_); }
  // What stays the same throughout is a local where regions loop. Where they do not, the CPU struct and the record have it as near, and no register is taken for it.
  protected override tlb(): void { if (this.isLean) super.tlb(); else this.code.get(LTLB); }
  /** Emit the home page's rip. */
  private base(): Code { return this.isLean ? this.cpu().mem(Op.i64_load, CPU.ripBase.at) : this.code.get(LBASE); }
  private baseVal(): Val { return this.isLean ? this.field(64, CPU.ripBase.at) : local(LBASE, I64); }
  /** Emit the address of the data block. */
  private dataBlock(): Code { return this.isLean ? this.code.get(REC_).mem(Op.i32_load, REC.data) : this.code.get(LDATA); }

  // Structure --------------------------------------------------------------------
  /** A loop (or the region itself): items in address order, each reached by a forward `br`; SEL != 0 asks for block SEL - 1. */
  private seq(l: Loop): void {
    const c = this.code, items: Item[] = [];
    for (let n = l.first, k = 0; n <= l.last;) {
      const inner = l.inner[k];
      if (inner && inner.first === n) { items.push({ first: n, last: inner.last, loop: inner }); n = inner.last + 1; k++; } else { items.push({ first: n, last: n, loop: null }); n++; }
    }
    const s: Seq = { items, labels: [], at: 0, top: c.loop(), first: l.first, last: l.last, dispatch: l.dispatch };
    if (this.isLean && this.seqs.length === 0 && this.r.blocks.some(b => this.looksHere(b.insns.at(-1)!.row.flow))) {
      c.get(SEL).i32(FIND).op(Op.i32_eq).if_(); this.find(this.toRecord); c.end();
    }
    const never = c.block();
    for (let k = items.length - 1; k >= 0; k--) s.labels[k] = c.block();
    const only = this.seqs.length === 0 && this.r.dispatched.size === 1 ? items.findIndex(it => this.r.dispatched.has(it.first)) : -1;
    if (only >= 0 && !items[only]!.loop) c.br(s.labels[only]!);
    else if (l.dispatch) {
      if (this.seqs.length > 0) { c.get(SEL).op(Op.i32_eqz).brIf(s.labels[0]!); }
      c.get(SEL).i32(l.first + 1).op(Op.i32_sub);
      const t: number[] = []; items.forEach((it, k) => { for (let n = it.first; n <= it.last; n++) t.push(this.r.dispatched.has(n) ? s.labels[k]! : never); });
      c.brTable(t, never);
    }
    this.seqs.push(s);
    items.forEach((it, k) => {
      c.end(); s.at = k;
      if (it.loop) this.seq(it.loop); else this.doBlock(it.first);
    });
    this.seqs.pop();
    c.end().op(Op.unreachable).end();
  }
  /** SEL as the loops around block n expect it once we have arrived at its head or come from the dispatcher. */
  private branchTo(n: number): void {
    const c = this.code;
    for (let d = this.seqs.length - 1; d >= 0; d--) {
      const s = this.seqs[d]!; if (n < s.first || n > s.last) continue;
      const k = s.items.findIndex(it => n <= it.last), it = s.items[k]!;
      if (k > s.at) { if (it.loop) this.select_(it.loop, n); c.br(s.labels[k]!); return; }
      if (n === s.first && d > 0) { if (s.dispatch) c.i32(0).set(SEL); c.br(s.top); return; }
    }
    c.i32(n + 1).set(SEL).br(this.top());
  }
  /** Where a jump with SEL = n + 1 may go from here: straight to a later item, or to the dispatcher. */
  private labelOf(n: number): number {
    for (let d = this.seqs.length - 1; d >= 0; d--) {
      const s = this.seqs[d]!; if (n < s.first || n > s.last) continue;
      const k = s.items.findIndex(it => n <= it.last); if (k > s.at) return s.labels[k]!;
    }
    return this.top();
  }
  /** The label of the region's dispatcher. */
  private top(): number { this.comesBack = true; return this.seqs[0]!.top; }
  private select_(l: Loop, n: number): void {
    if (n !== l.first) { this.code.i32(n + 1).set(SEL); return; }
    const any = (x: Loop): boolean => x.dispatch || x.inner.some(y => y.first === n && any(y));
    if (any(l)) this.code.i32(0).set(SEL);
  }
  private doBlock(n: number): void {
    const b = this.r.blocks[n]!, live: number[] = [], c = this.code;
    this.block = n; this.page = pageOf(b.start); this.pending = this.over = null; this.hold = new Map(); this.normals.clear(); this.nrValues = 16; this.dirty = this.dirtyX = 0;
    let l = b.exits ? ALL : 0; for (const s of b.succ) l |= this.r.blocks[s]!.flagsIn;
    for (let k = b.insns.length - 1; k >= 0; k--) { live[k] = l; l = liveBeforeIn(b, k, l); }
    this.ended = false; this.everDirty = this.everDirtyX = 0;
    this.partSize = this.isLean ? Math.ceil(b.insns.length / MAX_PARTS) : b.insns.length;
    this.parts = Array.from({ length: Math.ceil(b.insns.length / this.partSize) }, () => ({ label: c.block(), first: null, all: { gprs: 0, xmms: 0 } }));
    const head = c.n;
    this.blockDepth = c.depth; this.reached = []; this.termOf.clear(); this.nrRoots = 16;
    for (let i = 0; i < 16; i++) { this.terms[i] = { root: i, plus: 0 }; this.xmmValue[i] = i; }
    if (this.isLean) { this.used = this.usedX = 0; this.usesFlags = this.flagsInLocals = false; }
    b.insns.forEach((i, k) => {
      this.insn = i; this.at = b.at[k]!; this.w = i.w; this.sw = i.sw; this.aw = i.aw; this.long = i.long;
      this.dstMem = i.dk === KIND.mem; this.srcMem = i.sk === KIND.mem; this.srcIsImm = i.sk === KIND.imm;
      this.liveAfter = live[k]!; this.address = null; this.writes = []; this.vectors = []; this.stores = []; this.fl = []; this.regRmw = false; this.makesNormal = null;
      if (!this.pending && !this.over) this.hold = new Map();
      this.setTempLevels(this.hold);
      this.place = k; this.isLast = k === b.insns.length - 1;
      if (pageOf(this.at + Math.max(i.len, 1) - 1) !== this.page) this.guard(this.page + 1, () => this.leaveUndone(k));
      if (this.isLast) this.count(b.insns.length);
      i.row.sem(this, i.w);
      if (!this.ended) this.commit();
    });
    if (!this.ended) { this.settle(b); this.fallTo(b.end); }
    // a register that the part writes later holds at a fault what it held before: it must have been loaded
    for (const { first, all } of this.parts) if (first) { this.used |= all.gprs & ~first.gprs; this.usedX |= all.xmms & ~first.xmms; }
    if (this.isLean) {
      const loads = new Code(2);
      this.loadRegisters(loads, this.used, this.usedX);
      if (this.usesFlags) this.loadFlags(loads);
      c.insert(head, loads);
    }
    const isFaulting = this.parts.some(p => p.first !== null);
    // the last part's faults store what they have beyond the part before, and so on
    for (let n = this.parts.length - 1; n >= 0; n--) {
      const { all } = this.parts[n]!, before = this.parts.slice(0, n).findLast(p => p.first !== null)?.all ?? { gprs: 0, xmms: 0 };
      c.end();
      this.dirty = all.gprs & ~before.gprs; this.dirtyX = all.xmms & ~before.xmms;
      this.writeBack();
    }
    if (isFaulting && this.isLean) c.br(this.toUndone);
    else if (isFaulting) { this.emit(this.add(64, this.baseVal(), this.cast(32, 64, local(LPOS, I32), true))); c.set(LRIP).br(this.toLoop); }
  }
  // Operands -----------------------------------------------------------------------
  protected emitReg(v: Val): void { this.code.get(R0 + v.k); }
  override let(v: Val): Val {
    if (v.op === X.reg) return v;
    const t = this.term(v), out = super.let(v);
    if (t && out !== v) this.termOf.set(out, t);
    return out;
  }
  // Pages met before --------------------------------------------------------------------
  private term(v: Val): Term | null {
    if (v.op === X.reg) return this.terms[v.k]!;
    if (v.op === X.local) return this.termOf.get(v) ?? null;
    if ((v.op !== Op.i64_add && v.op !== Op.i64_sub) || v.b!.op !== X.konst) return null;
    const t = this.term(v.a!);
    return t && { root: t.root, plus: t.plus + (v.op === Op.i64_add ? v.b!.k : -v.b!.k) };
  }
  /** Will this block address by that value again? Only a guess: what is remembered for nobody costs two registers. */
  private isWanted(root: number, by: (i: Insn) => boolean = () => true): boolean {
    const isStack = this.terms[RSP]!.root === root;
    return this.r.blocks[this.block]!.insns.slice(this.place + 1).some(i => (isStack && STACK_INSNS.includes(i.row.name)
      || i.addr === ADDR.base && i.base >= 0 && this.terms[i.base]!.root === root && (i.dk === KIND.mem || i.sk === KIND.mem) && i.row.name !== "lea") && by(i));
  }
  /** Bytes on a page that this block has probed already need no probe, only a look whether they are still on it. */
  protected override reach(a: Val, size: number, write: boolean, slow: number | null): number {
    const c = this.code, t = this.term(a);
    this.fresh = null;
    const known = t && this.reached.find(r => r.root === t.root && (r.canWrite || !write) && Math.abs(t.plus - r.plus) < 4096);
    if (known) {
      const by = t.plus - known.plus;
      c.get(known.off); if (by) c.i64(by).op(Op.i64_add);
      c.i64(4096 - size).op(Op.i64_gt_u); this.unreached(slow); c.get(known.host);
      if (by >= 0) return by;
      c.i32(by).op(Op.i32_add);
      return 0;
    }
    // in an arm, what comes after it does not know; the two blocks of the access are open where it has a slow way
    if (!t || c.depth !== this.blockDepth + (slow === null ? 0 : 2) || !this.isWanted(t.root)) return super.reach(a, size, write, slow);
    write ||= this.isWanted(t.root, i => factsOf(i).stores);
    this.reached = this.reached.filter(r => r.root !== t.root);
    if (this.reached.length === MAX_REACHED) this.reached.shift();
    const free = [...Array(MAX_REACHED).keys()].map(n => this.reachLocals[n] ??= { off: c.local(I64), host: c.local(I32) }).find(l => !this.reached.some(r => r.off === l.off))!;
    super.reach(a, size, write, slow, () => c.tee(free.off), () => c.tee(free.host));
    this.fresh = { ...t, canWrite: write, ...free };
    this.reached.push(this.fresh);
    return 0;
  }
  protected override missed(): void { if (this.fresh) this.code.i64(NO_OFFSET).set(this.fresh.off); }
  reg(w: W, i: number): Val {
    if (!this.isLean || !(this.everDirty >> i & 1)) this.used |= 1 << i;
    const r: Val = { op: X.reg, ty: I64, a: null, b: null, c: null, k: i };
    return w === 64 ? r : this.cast(64, w, r);
  }
  private operand(kind: number, n: number, w: W): Val {
    switch (kind) {
      case KIND.mem: { const at = this.ea(); this.aligned(this.insn.row, at, w); return this.load(w, at); }
      case KIND.imm: return this.imm(w);
      case KIND.hi: return this.and(32, this.shr(32, this.reg(32, n), this.k(32, 8)), this.k(32, 255));
      case KIND.xmm: return this.xmm(w, n);
      default: return this.reg(w, n);
    }
  }
  offset(): Val {
    const i = this.insn;
    let v: Val | null = null;
    if (i.index >= 0) { v = this.reg(64, i.index); if (i.scale) v = this.shl(64, v, this.k(64, i.scale)); }
    if (i.base >= 0) v = v ? this.add(64, this.reg(64, i.base), v) : this.reg(64, i.base);
    if (i.ripRel) v = this.baseVal();
    const disp = i.disp + (i.ripRel ? this.at + i.len : 0), d = i.bigDisp === null ? this.k(64, disp) : this.kbig(i.bigDisp);
    v = v ? this.add(64, v, d) : d;
    return i.aw === 64 ? v : this.and(64, v, this.k(64, 0xffffffff));
  }
  /** The base of FS or GS added, where the instruction says so. */
  private based(off: Val): Val { return this.insn.addr === ADDR.based && this.insn.seg >= 0 ? this.add(64, off, this.field(64, segAt(this.insn.seg) + SEG.base.at)) : off; }
  ea(): Val { return this.address ??= this.let(this.based(this.offset())); }
  eaPlus(bytes: Val): Val {
    const off = this.add(64, this.offset(), bytes);
    return this.let(this.based(this.aw === 64 ? off : this.and(64, off, this.k(64, 0xffffffff))));
  }
  segAddr(_s: number, off: Val): Val { return off; }
  dataAddr(off: Val): Val { return this.based(off); }
  dst(w: W = this.w): Val { return this.operand(this.insn.dk, this.insn.dn, w); }
  src(w: W = this.sw): Val { return this.operand(this.insn.sk, this.insn.sn, w); }
  imm(w: W): Val { return this.insn.bigImm !== null ? this.kbig(this.insn.bigImm) : this.k(w, this.insn.imm); }
  imm2(): Val { return this.k(64, this.insn.imm2); }
  known(): number { return this.insn.imm & 255; }
  count3(): Val { return this.insn.row.form.endsWith("L") ? this.reg(8, RCX) : this.imm(8); }
  num(): Val { return this.k(64, this.insn.dk === KIND.num ? this.insn.dn : this.insn.sn); }
  segSel(): Val { return this.field(16, segAt(this.insn.dk === KIND.num ? this.insn.dn : this.insn.sn) + SEG.sel.at); }
  private assign(kind: number, n: number, v: Val, w: W): void {
    if (kind === KIND.mem) { const at = this.ea(); this.aligned(this.insn.row, at, w); this.store(w, at, v); } else if (kind === KIND.xmm) this.setXmm(w, n, v); else if (kind === KIND.hi) this.write(n, 16, v, true); else this.write(n, w, v, false);
  }
  setDst(v: Val, w: W = this.w): void { this.assign(this.insn.dk, this.insn.dn, v, w); }
  setSrc(v: Val): void { this.assign(this.insn.sk, this.insn.sn, v, this.sw); }
  setReg(w: W, i: number, v: Val): void { this.write(i, w, v, false); }
  rmw(): Val { if (this.dstMem) return this.loadForWrite(this.w, this.ea(), this.insn.lock); this.regRmw = true; return this.dst(); }
  rmwAt(w: W, addr: Val): Val { return this.loadForWrite(w, addr, this.insn.lock); }
  put(v: Val): void { if (this.regRmw) { this.regRmw = false; this.setDst(v); } else this.storeBack(v); }
  private write(i: number, w: W, v: Val, high: boolean): void {
    const old = this.writes.find(x => x.i === i);
    if (high || w < 32) {
      const was = old ? old.v : this.reg(64, i), mask = high ? -0xff01 : w === 8 ? -0x100 : -0x10000, x = this.cast(32, 64, v);
      v = this.or(64, this.and(64, was, this.k(64, mask)), high ? this.shl(64, x, this.k(64, 8)) : x);
    } else if (w === 32) v = this.cast(32, 64, v);
    if (old) old.v = v; else this.writes.push({ i, v });
  }
  private xmm(w: W, i: number): Val {
    if (!this.isLean || !(this.everDirtyX >> i & 1)) this.usedX |= 1 << i;
    const v = local(X0 + i, V128);
    return w === 128 ? v : this.extract(EXTRACT[w], 0, v);
  }
  /** A part of the register replaces its lowest bits. */
  private setXmm(w: W, i: number, v: Val): void {
    const old = this.vectors.find(x => x.i === i), was = old?.v ?? local(X0 + i, V128);
    if (w !== 128) { if (!old) this.xmm(128, i); v = this.replaceLow(w, was, v); }
    if (old) old.v = v; else this.vectors.push({ i, v });
  }
  private replaceLow(w: W, was: Val, v: Val): Val {
    const float = w === 32 || w === 64 ? this.floatBehind(v) : null;
    return float ? this.replace(w === 64 ? Op.f64x2_replace_lane : Op.f32x4_replace_lane, 0, was, float) : this.replace(REPLACE[w as 32], 0, was, v);
  }
  override srcFloat(w: 32 | 64): Val | null { return this.srcMem ? this.load(w, this.ea(), "float") : null; }
  override srcLane(w: 32 | 64): Val | null { return this.srcMem ? this.load(w, this.ea(), "lane") : null; }
  /** The XMM register that is the operand, or -1. */
  private registerOf(which: "dst" | "src"): number { const i = this.insn, [kind, n] = which === "dst" ? [i.dk, i.dn] : [i.sk, i.sn]; return kind === KIND.xmm ? n : -1; }
  override isNormal(which: "dst" | "src", shape: string): boolean {
    const known = this.normals.get(this.xmmValue[this.registerOf(which)] ?? -1);
    return known === shape || known === "PD" && shape === "SD" || known === "PS" && shape === "SS";
  }
  /** Loops come back with what they have made: which registers are known to hold ordinary doubles is known at run time, too. */
  override ensureNormal(which: "dst" | "src", shape: string, holds: () => Val): boolean {
    const n = this.registerOf(which), c = this.code;
    if (this.isLean || shape !== "SD" || n < 0) return false;
    c.get(LNORM).i32(1 << n).op(Op.i32_and).op(Op.i32_eqz).unlikely().if_();
    this.emit(holds()); c.op(Op.i32_eqz).unlikely().if_(); this.byHand(); c.end();
    c.get(LNORM).i32(1 << n).op(Op.i32_or).set(LNORM).end();
    this.noteLooked(which, shape);
    return true;
  }
  /** At the end of a block: what is known of the registers that it has written, or looked at. */
  private keepNormals(): void {
    if (this.isLean) return;
    const c = this.code;
    let known = 0;
    for (let i = 0; i < 16; i++) { const shape = this.normals.get(this.xmmValue[i]!); if (shape === "SD" || shape === "PD") known |= 1 << i; }
    const lost = this.everDirtyX & ~known;
    if ((lost | known) === 0) return;
    c.get(LNORM); if (lost) c.i32(~lost).op(Op.i32_and); if (known) c.i32(known).op(Op.i32_or);
    c.set(LNORM);
  }
  override noteLooked(which: "dst" | "src", shape: string): void { const n = this.registerOf(which); if (n >= 0) this.normals.set(this.xmmValue[n]!, shape); }
  override noteNormal(shape: string): void { this.makesNormal = shape; }
  override mxcsrIs(mask: number, value: number): Val {
    return mask === MXCSR_ORDINARY.mask && value === MXCSR_ORDINARY.value ? this.ne(32, this.exponentLimit(), this.k(32, 0)) : super.mxcsrIs(mask, value);
  }
  override exponentLimit(): Val { this.usesMxcsr = true; return local(LMX, I32); }
  override compared(fast: readonly Val[], less: Val, equal: Val, lessOrEqual: Val, no: () => Val): void {
    this.orSlow(I32, fast, () => less, no);
    this.flags("float", 32, lessOrEqual, less, equal);
  }
  /** The conditions one after the other, the later ones out of the way; where none holds the instruction is left. */
  override orSlow(_ty: Ty, fast: readonly Val[], yes: () => Val, no: () => Val): Val {
    const c = this.code;
    for (const v of fast) { this.emit(v); c.op(Op.i32_eqz).unlikely().if_(); }
    this.emit(no()); c.op(Op.drop);
    for (const _ of fast) c.end();
    return yes();
  }
  field(w: W, at: number): Val {
    const x = xmmOf(at);
    if (x !== null) return this.xmm(w, x);
    this.code.get(CPU_).mem(LOADS[w], at);
    const t = this.temp(tyOf(w)); this.code.set(t);
    return local(t, tyOf(w));
  }
  setField(w: W, at: number, v: Val): void {
    const x = xmmOf(at);
    if (x !== null) this.setXmm(w, x, this.let(v)); else this.stores.push({ at, w, v: this.let(v) });
  }
  // Flags ----------------------------------------------------------------------------
  /** Hand the pending flags to the locals, still lazy: for the next block, an exit or a fault. */
  private stash(): void {
    const f = this.pending, c = this.code;
    if (this.over) { this.toWords(); this.applyOver(); if (this.isLean) this.storeFlags(); return; }
    if (!f) { if (this.flagsInLocals) this.storeFlags(); return; }
    const set = (l: typeof LA | typeof LB | typeof LKIND, v: Val) => {
      if (!this.isLean) { this.emit(v); c.set(l); return; }
      const [, at, , store] = FLAG_PLACES.find(p => p[0] === l)!;
      c.get(CPU_); this.emit(v); c.mem(store, at);
    };
    if (f.kind === "co") { set(LA, this.cast(f.w, 64, f.r)); set(LB, this.cast(32, 64, this.or(32, f.a!, this.shl(32, f.b!, this.k(32, 1))))); }
    else if (f.kind === "logic") set(LA, this.cast(f.w, 64, f.r));
    else if (f.kind === "inc" || f.kind === "dec") { set(LA, this.cast(f.w, 64, f.r)); set(LB, this.cast(32, 64, f.x!)); }
    else if (f.x || f.kind === "float") { const res = this.let(resOf(this, f)), aux = this.let(auxOf(this, f)); set(LA, res); set(LB, aux); set(LKIND, this.k(32, 0)); return; }
    else { set(LA, this.cast(f.w, 64, f.a!)); set(LB, this.cast(f.w, 64, f.b!)); }
    set(LKIND, this.k(32, flagCode(f.kind, f.w)));
  }
  /** The words themselves into LA and LB, for those who change a part of them. */
  private force(): void {
    this.toWords();
    if (this.over) this.applyOver();
    this.pending = this.over = null;
    this.flagsInLocals = this.isLean;
  }
  /** Put carry and overflow where `over` says they are; the words are in LA and LB. Doing it twice is doing it once. */
  private applyOver(): void {
    const { cf, of } = this.over!;
    this.emit(of ? withCO(this, local(LB, I64), cf, of) : withCF(this, local(LB, I64), cf)); this.code.set(LB);
  }
  private toWords(): void {
    const c = this.code, f = this.pending;
    if (f) { const res = this.let(resOf(this, f)), aux = this.let(auxOf(this, f)); this.emit(res); c.set(LA); this.emit(aux); c.set(LB); }
    else {
      if (!this.flagsInLocals) this.usesFlags = true;
      c.get(LKIND).if_(); c.get(LKIND).get(LA).get(LB).call(helperIndex("flagRes")).get(LKIND).get(LA).get(LB).call(helperIndex("flagAux")).set(LB).set(LA).end();
    }
    c.i32(0).set(LKIND);
  }
  private words(): [Val, Val] {
    const p = this.pending;
    if (p && !this.over) return [this.let(resOf(this, p)), this.let(auxOf(this, p))];
    this.force();
    const copy = (l: number): Val => { const t = this.temp(I64); this.code.get(l).set(t); return local(t, I64); };
    return [copy(LA), copy(LB)];
  }
  cc(cond: number): Val {
    if (!(this.liveAfter & CF) && !factsOf(this.insn).reads) return this.k(32, 0);       // inc, dec: carry passed on to nobody
    const p = this.pending, o = this.over, c = cond >> 1, inv = (v: Val) => (cond & 1 ? this.not1(v) : v);
    if (o && c === 1) return inv(o.cf);
    if (o?.of && c === 0) return inv(o.of);
    // zero, sign and parity are those below
    const direct = p && (!o || c === 2 || c === 4 || c === 5) ? ccFrom(this, cond, p) : null;
    if (direct) return direct;
    const [res, aux] = this.words();
    return ccOf(this, cond, res, aux);
  }
  override get wantsFlags(): boolean { return this.liveAfter !== 0; }
  /** In line where loops are: a call takes longer than what is called. */
  override mulHigh(signed: boolean, a: Val, b: Val): Val { return this.isLean ? super.mulHigh(signed, a, b) : this.mulHighInLine(signed, a, b); }
  arith(): Val { const [res, aux] = this.words(); return arithOf(this, res, aux); }
  private keep(v: Val | null): Val | null {
    if (!v || v.op === X.konst || v.op === X.local || v.op === X.big) return v;
    if (v.op === X.reg && !this.writes.some(w => w.i === v.k)) return v;
    this.emit(v); const t = this.temp(v.ty); this.code.set(t); return local(t, v.ty);
  }
  /** The same, but what is made of temporaries alone is left to be made when somebody wants it. */
  private keepLazy(v: Val | null): Val | null {
    const isLazy = (x: Val | null, depth: number): boolean => !x || x.op === X.konst || x.op === X.big || x.op === X.local && x.k >= X0 + 16 || depth > 0 && x.op > 0 && isLazy(x.a, depth - 1) && isLazy(x.b, depth - 1) && isLazy(x.c, depth - 1);
    return isLazy(v, 6) ? v : this.keep(v);
  }
  flags(kind: FlagKind, w: W, r: Val, a: Val | null = null, b: Val | null = null, x: Val | null = null): void {
    if (!this.liveAfter) { this.fl.push(() => { this.pending = this.over = null; this.flagsInLocals = false; }); return; }
    this.fl.push(() => {
      const step = kind === "inc" || kind === "dec", needX = !step || this.liveAfter & CF;
      this.over = null; this.flagsInLocals = false;
      this.pending = { kind, w, r: kind === "float" ? this.keepLazy(r)! : this.keep(r)!, a: kind === "logic" ? null : this.keepLazy(a), b: kind === "logic" ? null : this.keepLazy(b), x: x && needX ? this.keep(x) : step ? this.k(32, 0) : null };
      this.hold = this.tempLevels();
    });
  }
  flagsIf(c: Val, w: W, r: Val | null, cf: Val, of: Val): void {
    if (!this.liveAfter || (c.op === X.konst && !c.k)) return;
    if (c.op === X.konst && r) { this.flags("co", w, r, cf, of); return; }
    if (c.op === X.konst) { this.setOver(cf, of); return; }
    this.fl.push(() => {
      const cond = this.keep(c)!, f = this.keep(cf)!, o = this.keep(of)!, res = r && this.keep(r); this.force();
      this.emit(cond); this.code.if_();
      if (res) { this.emit(this.cast(w, 64, res, true)); this.code.set(LA); this.emit(auxOf(this, { kind: "co", w, r: res, a: f, b: o, x: null })); } else this.emit(withCO(this, local(LB, I64), f, o));
      this.code.set(LB).end();
    });
  }
  private setOver(cf: Val, of: Val | null): void {
    this.fl.push(() => { this.over = { cf: this.keepLazy(cf)!, of: of ? this.keepLazy(of) : this.over?.of ?? null }; this.hold = this.tempLevels(); });
  }
  setCF(v: Val): void { if (this.liveAfter) this.setOver(v, null); }
  setArith(e: Val): void {
    if (!this.liveAfter) { this.fl.push(() => { this.pending = this.over = null; this.flagsInLocals = false; }); return; }
    const image = this.let(e);
    this.fl.push(() => { const [res, aux] = wordsOf(this, image), a = this.let(aux); this.emit(res); this.code.set(LA); this.emit(a); this.code.set(LB).i32(0).set(LKIND); this.pending = this.over = null; this.flagsInLocals = this.isLean; });
  }
  private commit(): void {
    const c = this.code, ws = this.writes;
    for (const f of this.fl) f();
    const p = this.pending;
    if (p) for (const w of ws) for (const k of ["a", "b", "r", "x"] as const) {       // copy on write
      const v = p[k];
      if (v && v.op === X.reg && v.k === w.i) { const t = this.temp(I64); c.get(R0 + w.i).set(t); p[k] = local(t, I64); this.hold = this.tempLevels(); }
    }
    for (const { at, w, v } of this.stores) {
      c.get(CPU_); this.emit(v); c.mem(STORES[w], at);
      if (at === CPU.mxcsr.at) this.lookAtMxcsr(c);
      if (at === CPU.tlb.at) { if (!this.isLean) { this.emit(v); c.set(LTLB); } this.reached = []; }      // other rights
    }
    const i = this.insn, copied = i.row.sem === movx && i.sk === KIND.xmm ? this.xmmValue[i.sn]! : -1;
    for (const w of ws) this.emit(w.v);
    for (const x of this.vectors) this.emit(x.v);
    for (let k = this.vectors.length - 1; k >= 0; k--) { c.set(X0 + this.vectors[k]!.i); this.dirtyX |= 1 << this.vectors[k]!.i; this.everDirtyX |= this.dirtyX; }
    for (let k = ws.length - 1; k >= 0; k--) { c.set(R0 + ws[k]!.i); this.dirty |= 1 << ws[k]!.i; this.everDirty |= this.dirty; }
    const terms = ws.map(w => this.term(w.v));
    ws.forEach((w, n) => { this.terms[w.i] = terms[n] ?? { root: this.nrRoots++, plus: 0 }; });
    for (const x of this.vectors) {
      const value = this.xmmValue[x.i] = copied >= 0 ? copied : this.nrValues++;
      if (this.makesNormal) this.normals.set(value, this.makesNormal);
    }
    this.writes = []; this.vectors = []; this.stores = []; this.fl = [];
  }
  /** Before leaving the block: registers into the CPU struct, flags into the locals, if a block of ours wants them. */
  private settle(b: Block): void { this.flush(); this.keepNormals(); for (const s of b.succ) if (this.r.blocks[s]!.flagsIn) { this.stash(); this.pending = this.over = null; return; } }
  // Control ----------------------------------------------------------------------------
  private atPos(pos: number): Val { return this.add(64, this.baseVal(), this.k(64, pos)); }
  private readonly TARGET: Val = { op: X.konst, ty: I64, a: null, b: null, c: null, k: 0 };
  here(): Val { return this.atPos(this.at); }
  next(): Val { return this.atPos(this.at + this.insn.len); }
  target(): Val { return this.TARGET; }
  /** Emit whether the budget is spent, with this jump. */
  private spend(): void { this.usesBudget = true; this.code.get(LBUD).i32(1).op(Op.i32_sub).tee(LBUD).i32(0).op(Op.i32_lt_s).unlikely(); }
  private exitNumber(pos: number): number { const n = this.exits.indexOf(pos); return n < 0 ? this.exits.push(pos) - 1 : n; }
  /** Out to a position: by its record where its page is known to be mapped (and the record to somebody), else by lookup. */
  private exitAt(pos: number): void {
    const c = this.code, page = pageOf(pos), isMapped = page === 0 || page === this.page;
    this.writeBack(); this.stash();
    if (this.isLean) { c.i32(this.site({ pos, how: LEAVES.to, done: 0, rec: isMapped ? "known" : "none" })).set(LPOS).br(this.toSite); return; }
    this.emit(this.atPos(pos)); c.set(LRIP);
    if (isMapped) this.dataBlock().mem(Op.i32_load, this.data.exits + this.exitNumber(pos) * 4); else c.i32(0);
    c.set(LREC).br(this.toRecord);
  }
  /** Out to the stub of the instruction at a position, which has been decoded; on the present page. */
  private exitStub(pos: number): void {
    const c = this.code;
    this.writeBack(); this.stash();
    if (this.isLean) { c.i32(this.site({ pos, how: LEAVES.undone, done: 0, rec: "needed" })).set(LPOS).br(this.toSite); return; }
    const n = this.exitNumber(pos);
    this.needed.add(pos);
    this.emit(this.atPos(pos)); c.set(LRIP);
    this.dataBlock().mem(Op.i32_load, this.data.exits + n * 4).set(LREC).br(this.toStub);
  }
  /** Make sure that a page is still mapped where it was, or leave for whoever enters it into the instruction TLB: the run loop by way of `leave`. */
  private guard(page: number, leave: () => void): void {
    const n = this.r.pages.indexOf(page), c = this.code;
    c.get(LOK).i32(1 << n).op(Op.i32_and).op(Op.i32_eqz).unlikely().if_();
    this.emit(this.atPos(page * 4096)); c.get(CPU_); this.dataBlock().mem(Op.i32_load, n * 4).call(helperIndex("isMapped")).op(Op.i32_eqz).if_(); leave(); c.end();
    c.get(LOK).i32(1 << n).op(Op.i32_or).set(LOK).end();
  }
  /** To a block of ours. */
  private enter(n: number): void {
    const { start } = this.r.blocks[n]!, page = pageOf(start);
    if (page !== this.page && page !== 0) this.guard(page, () => this.exitAt(start));
    this.branchTo(n);
  }
  /** Go on in sequence: in the region, at an instruction it does not translate, or by lookup. */
  private fallTo(pos: number): void {
    const n = this.r.index.get(pos);
    if (n !== undefined) this.enter(n);
    else if (this.r.stubs.has(pos) && pageOf(pos) === this.page) this.exitStub(pos);
    else this.exitAt(pos);
  }
  private go(pos: number): void {
    const n = this.r.index.get(pos), c = this.code;
    if (n === undefined) { this.exitAt(pos); return; }
    if (n <= this.block) { this.spend(); c.if_(); this.exitAt(pos); c.end(); }
    this.enter(n);
  }
  jump(to: Val): void {
    const c = this.code, b = this.r.blocks[this.block]!;
    this.ended = true;
    if (to === this.TARGET) { this.commit(); this.settle(b); this.go(this.at + this.insn.len + this.insn.imm); return; }
    this.emit(to); c.set(LRIP); this.commit(); this.flush(); this.keepNormals();
    const isHere = this.looksHere(this.insn.row.flow);
    if (this.isLean && isHere) { this.stash(); c.i32(FIND).set(SEL).br(this.top()); return; }
    if (isHere) {
      if (this.dynFlags) { this.stash(); this.pending = this.over = null; }
      this.dispatch();
    }
    this.stash(); if (!this.isLean) c.i32(0).set(LREC); c.br(this.toRecord);
  }
  /** May a jump of that kind, whose target is not known, lead to a block of this region? */
  private looksHere(flow: string): boolean { return flow === "ind" || flow === "callind" || flow === "ret" && this.hasInnerCalls; }
  /** To the block at LRIP, if the region has it; falls through if not. */
  private dispatch(): void {
    const c = this.code, nrEntries = this.table.slots.length;
    if (nrEntries === 0) return;
    const none = c.block();
    this.find(none);
    if (nrEntries > MAX_SPREAD && this.insn.row.flow === "ret") c.br(this.top());
    else c.get(SEL).brTable([none, ...this.r.blocks.map((x, n) => (x.isEntry ? this.labelOf(n) : none))], none);
    c.end();
  }
  /** SEL for the block at LRIP; to `none` with LREC 0 if the region has none there that may be entered. */
  private find(none: number): void {
    const c = this.code, t = this.table, pos = this.temp(I64), e = this.temp(I32), bit = this.temp(I32);
    c.i32(0).set(LREC);
    if (t.slots.length === 0) { c.br(none); return; }
    this.spend(); c.brIf(none);
    if (this.isLean) this.dataBlock().set(LDATA);
    c.get(LRIP); this.base().op(Op.i64_sub).tee(pos).op(Op.i32_wrap_i64).tee(e);
    c.i32(t.mult).op(Op.i32_mul).i32(t.shift).op(Op.i32_shr_u);
    c.get(e).i32(t.displacements.length - 1).op(Op.i32_and).get(LDATA).op(Op.i32_add).mem(Op.i32_load8_u, this.data.displacements);
    c.op(Op.i32_xor).i32(t.nrSlots - 1).op(Op.i32_and).i32(Math.log2(SLOT.size)).op(Op.i32_shl).get(LDATA).op(Op.i32_add).tee(e);
    c.mem(Op.i64_load, this.data.slots + SLOT.pos).get(pos).op(Op.i64_ne).brIf(none);
    if (this.r.pages.length > 1) {
      c.get(e).mem(Op.i32_load, this.data.slots + SLOT.page).tee(bit).get(LOK).i32(-1).op(Op.i32_xor).op(Op.i32_and).unlikely().if_();
      c.get(LRIP).get(CPU_).get(bit).op(Op.i32_ctz).i32(2).op(Op.i32_shl).get(LDATA).op(Op.i32_add).mem(Op.i32_load, 0).call(helperIndex("isMapped")).op(Op.i32_eqz).brIf(none);
      c.get(LOK).get(bit).op(Op.i32_or).set(LOK).end();
    }
    c.get(e).mem(Op.i32_load, this.data.slots + SLOT.sel).set(SEL);
  }
  branch(cond: Val): void {
    const c = this.code, v = this.let(cond);
    this.ended = true; this.commit(); this.settle(this.r.blocks[this.block]!);
    this.emit(v); c.if_(); this.go(this.at + this.insn.len + this.insn.imm); c.end(); this.fallTo(this.at + this.insn.len);
  }
  private count(n: number): void { if (n) this.code.get(LCNT).i32(n).op(Op.i32_add).set(LCNT); }
  private part(): Part { return this.parts[Math.floor(this.place / this.partSize)]!; }
  /** Instructions of the block before the present one, less those that LCNT has. */
  private get uncounted(): number { return this.isLast ? -1 : this.place; }
  /** All that the present part's label wants, which writes the registers back as they are now; lean: with so many of the block's instructions done that LCNT has not. */
  private prepareToLeave(done: number): void {
    const p = this.part(), { dirty: gprs, dirtyX: xmms } = this;
    p.first ??= { gprs, xmms }; p.all = { gprs, xmms };
    this.stash(); this.code.i32(this.isLean ? this.undoneSite(done) : this.at).set(LPOS);
  }
  override mayFault(): void { this.prepareToLeave(this.uncounted); }
  fault(): void { this.mayFault(); this.code.br(this.part().label); }
  override faultIf(): void { this.code.unlikely().brIf(this.part().label); }
  protected override get leavesAtMiss(): boolean { return this.isLean; }
  private site(x: Site): number {
    const n = this.sites.findIndex(s => s.pos === x.pos && s.done === x.done && s.how === x.how && s.rec === x.rec);
    return n >= 0 ? n : this.sites.push(x) - 1;
  }
  /** The number of the site for the present instruction, with so many of its block's done that LCNT has not. Where the region begins with it, only the record tells its stub. */
  private undoneSite(done: number): number { return this.site({ pos: this.at, how: LEAVES.undone, done, rec: this.place === 0 && this.r.blocks[this.block]!.isEntry ? "needed" : "known" }); }
  /** Leave the present instruction to the interpreter, with so many of its block's done that LCNT has not. */
  private leaveUndone(done: number): void {
    if (!this.isLean) { this.count(done); this.exitStub(this.at); return; }
    this.prepareToLeave(done); this.code.br(this.part().label);
  }
  byHand(): boolean { this.leaveUndone(this.uncounted); return true; }
  rare(cond: Val, _arm: () => void): void { this.emit(cond); this.code.unlikely().if_(); this.byHand(); this.code.end(); }
  end(): void {
    const c = this.code;
    this.ended = true; this.commit(); this.flush(); this.stash();
    if (this.isLean) c.i32(this.site({ pos: this.at + this.insn.len, how: LEAVES.end, done: 0, rec: "none" })).set(LPOS).br(this.toSite);
    else { this.emit(this.next()); c.set(LRIP).br(this.toLoop); }
  }
  leap(to: Val): void {
    this.ended = true;
    this.emit(to); this.code.set(LRIP); this.commit(); this.flush();
    this.stash(); this.code.i32(0).set(LREC).br(this.toRecord);
  }
  private never(what: string): never { throw new Error(`Assertion failed: ${this.insn.row.name} was taken for translatable, but calls ${what}`); }
  skipIf(): void { this.never("skipIf"); }
  again(): void { this.never("again"); }
  sys(): Val { return this.never("sys"); }
  sysEnd(): void { this.never("sysEnd"); }
  sysDone(): void { this.never("sysDone"); }
  afterSeg(): void { this.never("afterSeg"); }
  tryBulk(): void { this.never("tryBulk"); }
  dstSlot(): Val { return this.never("dstSlot"); }
  srcSlot(): Val { return this.never("srcSlot"); }
}
