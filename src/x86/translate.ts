/**
 * The translator's side of the generator: operands are known, general registers are wasm locals, flags are remembered as the operands that
 * made them until somebody must have the words. A region is one function (record, cpu) -> next record or 0, called like a stub: it begins at
 * the block its record names and leaves with everything in the CPU struct. XMM registers stay in the struct.
 */
import { Op } from "../wasm/opcodes.ts";
import { Code, I32, I64, type MemorySpec, Module } from "../wasm/writer.ts";
import { ALL, CF, factsOf, liveBefore } from "./analyze.ts";
import { ADDR, type Insn, KIND } from "./decode.ts";
import { type FlagKind, type Flags, Gen, LOADS, STORES, type Val, type W, X, helperIndex, local, tyOf } from "./gen.ts";
import { arithOf, auxOf, ccFrom, ccOf, flagCode, resOf, withCF, withCO, wordsOf } from "./gen-flags.ts";
import { REC } from "./layout.ts";
import type { Block, Loop, Region } from "./region.ts";
import { CPU, RCX, SEG, segAt, xmmAt } from "./state.ts";
import { STUB_TYPE, importsOf } from "./stubs.ts";

/** Locals: parameters, the block asked for, the registers, lazy flags (a, b, code), rip on the way out, budget, rip of the page, instructions done, the record to go on with (0: look LRIP up, -1: fault). */
const REC_ = 0, CPU_ = 1, SEL = 2, R0 = 3, LA = 19, LB = 20, LRIP = 21, LBASE = 22, LCNT = 23, LKIND = 24, LBUD = 25, OUT = 26;
type Item = { first: number; last: number; loop: Loop | null };
type Seq = { items: Item[]; labels: number[]; at: number; top: number; first: number; last: number; dispatch: boolean };

export class RegionGen extends Gen {
  private r!: Region;
  private table = 0;
  private recAt: (off: number) => number = () => 0;
  private insn!: Insn;
  private off = 0;
  private block = 0;
  private exitLabel = 0;
  private liveAfter = 0;
  private seqs: Seq[] = [];
  private used = 0;
  private written = 0;
  private dynFlags = 0;
  private pending: Flags | null = null;
  private hold: ReadonlyMap<number, number> = new Map();
  private writes: { i: number; v: Val }[] = [];
  private stores: { at: number; w: W; v: Val }[] = [];
  private fl: (() => void)[] = [];
  private ended = false;
  private address: Val | null = null;
  private regRmw = false;
  /** instructions of the block before the present one that are not in LCNT yet */
  private uncounted = 0;

  /**
   * @param table machine address of 4096 bytes: offset in the page to 1 + block, for indirect jumps inside the region
   * @param recAt the record of an offset, or 0
   */
  translate(r: Region, table: number, recAt: (off: number) => number, memory: MemorySpec, tableSize: number): Uint8Array<ArrayBuffer> {
    const c = this.code = new Code(2);
    this.r = r; this.table = table; this.recAt = recAt; this.used = this.written = 0; this.resetTemps(); this.seqs = [];
    c.local(I32);
    for (let i = 0; i < 16; i++) c.local(I64);
    for (let i = LA; i <= LCNT; i++) c.local(I64);
    for (let i = LKIND; i <= OUT; i++) c.local(I32);
    this.dynFlags = 0; for (const b of r.blocks) if (b.isEntry) this.dynFlags |= b.flagsIn;
    this.exitLabel = c.block();
    this.seq(r.loops);
    c.end();
    this.epilogue();
    // the prologue, now that we know what is used
    const p = new Code(2);
    p.get(REC_).mem(Op.i32_load16_u, REC.block).set(SEL);
    for (let i = 0; i < 16; i++) if ((this.used | this.written) >> i & 1) p.get(CPU_).mem(Op.i64_load, CPU.gpr.at + i * 8).set(R0 + i);
    p.get(CPU_).mem(Op.i64_load, CPU.fres.at).set(LA).get(CPU_).mem(Op.i64_load, CPU.faux.at).set(LB);
    p.get(CPU_).mem(Op.i64_load, CPU.ripBase.at).set(LBASE).get(CPU_).mem(Op.i32_load, CPU.budget.at).set(LBUD);
    const all = new Code(2);
    all.types.push(...c.types); all.bytes(p.buf.subarray(0, p.n)).bytes(c.buf.subarray(0, c.n)); all.hints = c.hints.map(([at, v]) => [at + p.n, v]);
    const m = new Module();
    importsOf(m, memory, tableSize);
    m.funcs.push({ type: m.type(...STUB_TYPE), code: all, export: "r" });
    return m.encode();
  }
  /** One for every way out: registers, flags, budget; then a record, the lookup of rip, or 0 after a fault. */
  private epilogue(): void {
    const c = this.code;
    for (let i = 0; i < 16; i++) if (this.written >> i & 1) c.get(CPU_).get(R0 + i).mem(Op.i64_store, CPU.gpr.at + i * 8);
    c.get(LKIND).if_();
    for (const [h, at] of [["flagRes", CPU.fres.at], ["flagAux", CPU.faux.at]] as const) c.get(CPU_).get(LKIND).get(LA).get(LB).call(helperIndex(h)).mem(Op.i64_store, at);
    c.else_().get(CPU_).get(LA).mem(Op.i64_store, CPU.fres.at).get(CPU_).get(LB).mem(Op.i64_store, CPU.faux.at).end();
    c.get(CPU_).get(LBUD).mem(Op.i32_store, CPU.budget.at);
    c.get(CPU_).get(CPU_).mem(Op.i64_load, CPU.retired.at).get(LCNT).op(Op.i64_add).i64(1).op(Op.i64_sub).mem(Op.i64_store, CPU.retired.at);
    c.get(OUT).op(Op.i32_eqz).if_(); c.get(LRIP).get(CPU_).call(helperIndex("lookup")).op(Op.return).end();
    c.get(OUT).i32(0).op(Op.i32_lt_s).if_(); c.get(CPU_).get(LRIP).mem(Op.i64_store, CPU.rip.at).get(CPU_).i32(0).mem(Op.i32_store, CPU.link.at).i32(0).op(Op.return).end();
    c.get(OUT);
  }
  cpu(): Code { return this.code.get(CPU_); }

  // Structure --------------------------------------------------------------------
  /** A loop (or the region itself): items in address order, each reached by a forward `br`; SEL != 0 asks for block SEL - 1. */
  private seq(l: Loop): void {
    const c = this.code, items: Item[] = [];
    for (let n = l.first, k = 0; n <= l.last;) {
      const inner = l.inner[k];
      if (inner && inner.first === n) { items.push({ first: n, last: inner.last, loop: inner }); n = inner.last + 1; k++; } else { items.push({ first: n, last: n, loop: null }); n++; }
    }
    const s: Seq = { items, labels: [], at: 0, top: c.loop(), first: l.first, last: l.last, dispatch: l.dispatch };
    for (let k = items.length - 1; k >= 0; k--) s.labels[k] = c.block();
    if (l.dispatch) {
      if (this.seqs.length > 0) { c.get(SEL).op(Op.i32_eqz).brIf(s.labels[0]!); }
      c.get(SEL).i32(l.first + 1).op(Op.i32_sub);
      const t: number[] = []; items.forEach((it, k) => { for (let n = it.first; n <= it.last; n++) t.push(s.labels[k]!); });
      c.brTable(t, s.labels[0]!);
    }
    this.seqs.push(s);
    items.forEach((it, k) => {
      c.end(); s.at = k;
      if (it.loop) this.seq(it.loop); else this.doBlock(it.first);
    });
    this.seqs.pop();
    c.op(Op.unreachable).end();
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
    c.i32(n + 1).set(SEL).br(this.seqs[0]!.top);
  }
  /** Where a jump with SEL = n + 1 may go from here: straight to a later item, or to the dispatcher. */
  private labelOf(n: number): number {
    for (let d = this.seqs.length - 1; d >= 0; d--) {
      const s = this.seqs[d]!; if (n < s.first || n > s.last) continue;
      const k = s.items.findIndex(it => n <= it.last); if (k > s.at) return s.labels[k]!;
    }
    return this.seqs[0]!.top;
  }
  private select_(l: Loop, n: number): void {
    if (n !== l.first) { this.code.i32(n + 1).set(SEL); return; }
    const any = (x: Loop): boolean => x.dispatch || x.inner.some(y => y.first === n && any(y));
    if (any(l)) this.code.i32(0).set(SEL);
  }
  private doBlock(n: number): void {
    const b = this.r.blocks[n]!, live: number[] = [], c = this.code;
    this.block = n; this.pending = null; this.hold = new Map();
    let l = b.exits ? ALL : 0; for (const s of b.succ) l |= this.r.blocks[s]!.flagsIn;
    for (let k = b.insns.length - 1; k >= 0; k--) { live[k] = l; l = liveBefore(b.insns[k]!, l); }
    this.ended = false;
    b.insns.forEach((i, k) => {
      this.insn = i; this.off = b.offs[k]!; this.w = i.w; this.sw = i.sw; this.aw = i.aw; this.long = i.long;
      this.dstMem = i.dk === KIND.mem; this.srcMem = i.sk === KIND.mem; this.srcIsImm = i.sk === KIND.imm;
      this.liveAfter = live[k]!; this.address = null; this.writes = []; this.stores = []; this.fl = []; this.regRmw = false;
      if (!this.pending) this.hold = new Map();
      this.setTempLevels(this.hold as ReadonlyMap<never, number>);
      this.uncounted = k;
      if (k === b.insns.length - 1) { this.uncounted = 0; c.get(LCNT).i64(b.insns.length).op(Op.i64_add).set(LCNT); }
      i.row.sem(this, i.w);
      if (!this.ended) this.commit();
    });
    if (!this.ended) { this.settle(b); this.fallTo(b.end); }
  }
  // Operands -----------------------------------------------------------------------
  protected emitReg(v: Val): void { this.code.get(R0 + v.k); }
  override let(v: Val): Val { return v.op === X.reg ? v : super.let(v); }
  reg(w: W, i: number): Val {
    this.used |= 1 << i;
    const r: Val = { op: X.reg, ty: I64, a: null, b: null, c: null, k: i };
    return w === 64 ? r : this.cast(64, w, r);
  }
  private operand(kind: number, n: number, w: W): Val {
    switch (kind) {
      case KIND.mem: { const at = this.ea(); this.aligned(this.insn.row, at, w); return this.load(w, at); }
      case KIND.imm: return this.imm(w);
      case KIND.hi: return this.and(32, this.shr(32, this.reg(32, n), this.k(32, 8)), this.k(32, 255));
      case KIND.xmm: return this.field(w, xmmAt(n));
      default: return this.reg(w, n);
    }
  }
  offset(): Val {
    const i = this.insn;
    let v: Val | null = null;
    if (i.index >= 0) { v = this.reg(64, i.index); if (i.scale) v = this.shl(64, v, this.k(64, i.scale)); }
    if (i.base >= 0) v = v ? this.add(64, this.reg(64, i.base), v) : this.reg(64, i.base);
    if (i.ripRel) v = local(LBASE, I64);
    const disp = i.disp + (i.ripRel ? this.off + i.len : 0), d = i.bigDisp === null ? this.k(64, disp) : this.kbig(i.bigDisp);
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
    if (kind === KIND.mem) { const at = this.ea(); this.aligned(this.insn.row, at, w); this.store(w, at, v); } else if (kind === KIND.xmm) this.setField(w, xmmAt(n), v); else if (kind === KIND.hi) this.write(n, 16, v, true); else this.write(n, w, v, false);
  }
  setDst(v: Val, w: W = this.w): void { this.assign(this.insn.dk, this.insn.dn, v, w); }
  setSrc(v: Val): void { this.assign(this.insn.sk, this.insn.sn, v, this.sw); }
  setReg(w: W, i: number, v: Val): void { this.write(i, w, v, false); }
  rmw(): Val { if (this.dstMem) return this.loadForWrite(this.w, this.ea(), this.insn.lock); this.regRmw = true; return this.dst(); }
  rmwAt(w: W, addr: Val): Val { return this.loadForWrite(w, addr, this.insn.lock); }
  put(v: Val): void { if (this.regRmw) { this.regRmw = false; this.setDst(v); } else this.storeBack(v); }
  private write(i: number, w: W, v: Val, high: boolean): void {
    this.written |= 1 << i;
    const old = this.writes.find(x => x.i === i);
    if (high || w < 32) {
      const was = old ? old.v : this.reg(64, i), mask = high ? -0xff01 : w === 8 ? -0x100 : -0x10000, x = this.cast(32, 64, v);
      v = this.or(64, this.and(64, was, this.k(64, mask)), high ? this.shl(64, x, this.k(64, 8)) : x);
    } else if (w === 32) v = this.cast(32, 64, v);
    if (old) old.v = v; else this.writes.push({ i, v });
  }
  field(w: W, at: number): Val {
    this.code.get(CPU_).mem(LOADS[w], at);
    const t = this.temp(tyOf(w)); this.code.set(t);
    return local(t, tyOf(w));
  }
  setField(w: W, at: number, v: Val): void { this.stores.push({ at, w, v: this.let(v) }); }
  // Flags ----------------------------------------------------------------------------
  /** Hand the pending flags to the locals, still lazy: for the next block, an exit or a fault. */
  private stash(): void {
    const f = this.pending, c = this.code; if (!f) return;
    const set = (l: number, v: Val) => { this.emit(v); c.set(l); };
    if (f.kind === "co") { set(LA, this.cast(f.w, 64, f.r)); set(LB, this.cast(32, 64, this.or(32, f.a!, this.shl(32, f.b!, this.k(32, 1))))); }
    else if (f.kind === "logic") set(LA, this.cast(f.w, 64, f.r));
    else if (f.kind === "inc" || f.kind === "dec") { set(LA, this.cast(f.w, 64, f.r)); set(LB, this.cast(32, 64, f.x!)); }
    else if (f.x) { const res = this.let(resOf(this, f)), aux = this.let(auxOf(this, f)); set(LA, res); set(LB, aux); c.i32(0).set(LKIND); return; }
    else { set(LA, this.cast(f.w, 64, f.a!)); set(LB, this.cast(f.w, 64, f.b!)); }
    c.i32(flagCode(f.kind, f.w)).set(LKIND);
  }
  /** The words themselves into LA and LB, for those who change a part of them. */
  private force(): void {
    const c = this.code, f = this.pending;
    if (f) { const res = this.let(resOf(this, f)), aux = this.let(auxOf(this, f)); this.emit(res); c.set(LA); this.emit(aux); c.set(LB); }
    else { c.get(LKIND).if_(); c.get(LKIND).get(LA).get(LB).call(helperIndex("flagRes")).get(LKIND).get(LA).get(LB).call(helperIndex("flagAux")).set(LB).set(LA).end(); }
    c.i32(0).set(LKIND); this.pending = null;
  }
  private words(): [Val, Val] {
    const p = this.pending;
    if (p) return [this.let(resOf(this, p)), this.let(auxOf(this, p))];
    this.force();
    const copy = (l: number): Val => { const t = this.temp(I64); this.code.get(l).set(t); return local(t, I64); };
    return [copy(LA), copy(LB)];
  }
  cc(cond: number): Val {
    if (!(this.liveAfter & CF) && !factsOf(this.insn).reads) return this.k(32, 0);       // inc, dec: carry passed on to nobody
    const p = this.pending, direct = p && ccFrom(this, cond, p);
    if (direct) return direct;
    const [res, aux] = this.words();
    return ccOf(this, cond, res, aux);
  }
  arith(): Val { const [res, aux] = this.words(); return arithOf(this, res, aux); }
  private keep(v: Val | null): Val | null {
    if (!v || v.op === X.konst || v.op === X.local || v.op === X.big) return v;
    if (v.op === X.reg && !this.writes.some(w => w.i === v.k)) return v;
    this.emit(v); const t = this.temp(v.ty); this.code.set(t); return local(t, v.ty);
  }
  flags(kind: FlagKind, w: W, r: Val, a: Val | null = null, b: Val | null = null, x: Val | null = null): void {
    if (!this.liveAfter) { this.fl.push(() => { this.pending = null; }); return; }
    this.fl.push(() => {
      const step = kind === "inc" || kind === "dec", needX = !step || this.liveAfter & CF;
      this.pending = { kind, w, r: this.keep(r)!, a: kind === "logic" ? null : this.keep(a), b: kind === "logic" ? null : this.keep(b), x: x && needX ? this.keep(x) : step ? this.k(32, 0) : null };
      this.hold = this.tempLevels();
    });
  }
  flagsIf(c: Val, w: W, r: Val | null, cf: Val, of: Val): void {
    if (!this.liveAfter || (c.op === X.konst && !c.k)) return;
    if (c.op === X.konst && r) { this.flags("co", w, r, cf, of); return; }
    this.fl.push(() => {
      const cond = this.keep(c)!, f = this.keep(cf)!, o = this.keep(of)!, res = r && this.keep(r); this.force();
      this.emit(cond); this.code.if_();
      if (res) { this.emit(this.cast(w, 64, res, true)); this.code.set(LA); this.emit(auxOf(this, { kind: "co", w, r: res, a: f, b: o, x: null })); } else this.emit(withCO(this, local(LB, I64), f, o));
      this.code.set(LB).end();
    });
  }
  setCF(v: Val): void {
    if (!this.liveAfter) return;
    this.fl.push(() => { const b = this.keep(v)!; this.force(); this.emit(withCF(this, local(LB, I64), b)); this.code.set(LB); });
  }
  setArith(e: Val): void {
    if (!this.liveAfter) { this.fl.push(() => { this.pending = null; }); return; }
    const image = this.let(e);
    this.fl.push(() => { const [res, aux] = wordsOf(this, image), a = this.let(aux); this.emit(res); this.code.set(LA); this.emit(a); this.code.set(LB).i32(0).set(LKIND); this.pending = null; });
  }
  private commit(): void {
    const c = this.code, ws = this.writes;
    for (const f of this.fl) f();
    const p = this.pending;
    if (p) for (const w of ws) for (const k of ["a", "b", "r", "x"] as const) {       // copy on write
      const v = p[k];
      if (v && v.op === X.reg && v.k === w.i) { const t = this.temp(I64); c.get(R0 + w.i).set(t); p[k] = local(t, I64); this.hold = this.tempLevels(); }
    }
    for (const { at, w, v } of this.stores) { c.get(CPU_); this.emit(v); c.mem(STORES[w], at); }
    for (const w of ws) this.emit(w.v);
    for (let k = ws.length - 1; k >= 0; k--) c.set(R0 + ws[k]!.i);
    this.writes = []; this.stores = []; this.fl = [];
  }
  /** Before leaving the block: flags into the locals, if a block of ours wants them. */
  private settle(b: Block): void { for (const s of b.succ) if (this.r.blocks[s]!.flagsIn) { this.stash(); this.pending = null; return; } }
  // Control ----------------------------------------------------------------------------
  private atOffset(off: number): Val { return this.add(64, local(LBASE, I64), this.k(64, off)); }
  private readonly TARGET: Val = { op: X.konst, ty: I64, a: null, b: null, c: null, k: 0 };
  here(): Val { return this.atOffset(this.off); }
  next(): Val { return this.atOffset(this.off + this.insn.len); }
  target(): Val { return this.TARGET; }
  /** Out to the lookup of an offset's address. */
  private exitAt(off: number): void { this.stash(); this.emit(this.atOffset(off)); this.code.set(LRIP).i32(0).set(OUT).br(this.exitLabel); }
  /** Go on in sequence: in the region, at a record of the interpreter's, or by lookup. */
  private fallTo(off: number): void {
    const n = this.r.index.get(off), rec = n === undefined && off < 4096 ? this.recAt(off) : 0;
    if (n !== undefined) this.branchTo(n);
    else if (rec) { this.stash(); this.code.i32(rec).set(OUT).br(this.exitLabel); }
    else this.exitAt(off);
  }
  private go(off: number): void {
    const n = this.r.index.get(off), c = this.code;
    if (n === undefined) { this.exitAt(off); return; }
    if (n <= this.block) { c.get(LBUD).i32(1).op(Op.i32_sub).tee(LBUD).i32(0).op(Op.i32_lt_s).unlikely().if_(); this.exitAt(off); c.end(); }
    this.branchTo(n);
  }
  jump(to: Val): void {
    const c = this.code, b = this.r.blocks[this.block]!;
    this.ended = true;
    if (to === this.TARGET) { this.commit(); this.settle(b); this.go(this.off + this.insn.len + this.insn.imm); return; }
    this.emit(to); c.set(LRIP); this.commit();
    if (this.dynFlags) { this.stash(); this.pending = null; }
    const t = this.temp(I64);
    c.get(LBUD).i32(1).op(Op.i32_sub).tee(LBUD).i32(0).op(Op.i32_ge_s).if_();
    c.get(LRIP).get(LBASE).op(Op.i64_sub).tee(t).i64(4096).op(Op.i64_lt_u).if_();
    c.get(t).op(Op.i32_wrap_i64).mem(Op.i32_load8_u, this.table).tee(SEL).op(Op.i32_eqz);
    const none = c.if_(); c.else_().get(SEL); c.brTable([none, ...this.r.blocks.map((x, n) => (x.isEntry ? this.labelOf(n) : none))], none).end();
    c.end().end();
    this.stash(); c.i32(0).set(OUT).br(this.exitLabel);
  }
  branch(cond: Val): void {
    const c = this.code, v = this.let(cond);
    this.ended = true; this.commit(); this.settle(this.r.blocks[this.block]!);
    this.emit(v); c.if_(); this.go(this.off + this.insn.len + this.insn.imm); c.end(); this.fallTo(this.off + this.insn.len);
  }
  fault(): void {
    if (this.uncounted) this.code.get(LCNT).i64(this.uncounted).op(Op.i64_add).set(LCNT);
    this.stash(); this.emit(this.here()); this.code.set(LRIP).i32(-1).set(OUT).br(this.exitLabel);
  }
  private never(what: string): never { throw new Error(`Assertion failed: ${this.insn.row.name} was taken for translatable, but calls ${what}`); }
  skipIf(): void { this.never("skipIf"); }
  again(): void { this.never("again"); }
  sys(): Val { return this.never("sys"); }
  sysEnd(): void { this.never("sysEnd"); }
  sysDone(): void { this.never("sysDone"); }
  end(): void { this.never("end"); }
  afterSeg(): void { this.never("afterSeg"); }
  tryBulk(): void { this.never("tryBulk"); }
  dstSlot(): Val { return this.never("dstSlot"); }
  srcSlot(): Val { return this.never("srcSlot"); }
}
