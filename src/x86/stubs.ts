/**
 * The interpreter's side of the generator: one wasm function an instruction form. Operands come from the record whose address is
 * parameter 0, registers and flags live in the CPU struct at parameter 1. A stub returns the next record's address, or 0 to leave the
 * dispatch loop (why is in the CPU struct: rip, fault, exit, link).
 */
import { Op } from "../wasm/opcodes.ts";
import { Code, I32, I64, type MemorySpec, Module, type Ty } from "../wasm/writer.ts";
import { ADDR, type Insn, KIND } from "./decode.ts";
import { Gen, HELPERS, LOADS, STORES, type FlagKind, type Flags, type Val, type W, X, helperIndex, local, tyOf } from "./gen.ts";
import { KINDS, WIDTHS, arithOf, auxOf, ccOf, flagsOf, resOf, withCF, withCO, wordsOf } from "./gen-flags.ts";
import { LENGTH_SHIFT, REC, SCALE_MASK } from "./layout.ts";
import type { Row } from "./rows.ts";
import { CPU, RCX, SEG, gprAt, segAt } from "./state.ts";
import { GO_ON, SYS_NAMES } from "./system.ts";

/** What makes two instructions share a stub. */
export type Form = { row: Row; w: W; sw: W; aw: 16 | 32 | 64; long: boolean; lock: boolean; dk: number; sk: number; addr: number; known: number; cross: boolean; big: boolean };
const fold = (k: number) => (k === KIND.hi ? KIND.reg : k);
export const formOf = (i: Insn, cross: boolean, big: boolean): Form => ({
  row: i.row, w: i.w, sw: i.sw, aw: i.aw, long: i.long, lock: i.lock, dk: fold(i.dk), sk: fold(i.sk), addr: i.addr, known: knownOf(i), cross, big,
});
const W_INDEX: Readonly<Record<W, number>> = { 8: 0, 16: 1, 32: 2, 64: 3, 128: 4 };
/** As many numbers as `keyInRow` has: small integers, which a Map finds best. */
const ROW_KEYS = 5 * 5 * 8 * 8 * (5 * 48 * 257);
const knownOf = (i: Insn): number => (i.row.known ? i.imm & 255 : -1);
/** What tells an instruction's form from the others of its row, without making the form: digits of mixed base. */
export const keyInRow = (i: Pick<Form, "w" | "sw" | "aw" | "long" | "lock" | "dk" | "sk" | "addr">, known: number, cross: boolean, big: boolean): number => {
  const flags = (i.long ? 1 : 0) | (i.lock ? 2 : 0) | (cross ? 4 : 0) | (i.aw === 64 ? 16 : i.aw === 32 ? 8 : 0) + (big ? 24 : 0);
  return (((W_INDEX[i.w] * 5 + W_INDEX[i.sw]) * 8 + fold(i.dk)) * 8 + fold(i.sk)) * (5 * 48 * 257) + (i.addr * 48 + flags) * 257 + known + 1;
};
/** A number for each form, below 2^53. */
export const formKey = (f: Form): number => f.row.index * ROW_KEYS + keyInRow(f, f.known, f.cross, f.big);
/** Table slots of stubs by their forms. */
export class StubSlots {
  readonly #byRow: (Map<number, number> | undefined)[] = [];
  of(i: Insn, cross: boolean, big: boolean): number | undefined { return this.#byRow[i.row.index]?.get(keyInRow(i, knownOf(i), cross, big)); }
  get(key: number): number | undefined { return this.#byRow[Math.floor(key / ROW_KEYS)]?.get(key % ROW_KEYS); }
  set(key: number, slot: number): void { (this.#byRow[Math.floor(key / ROW_KEYS)] ??= new Map()).set(key % ROW_KEYS, slot); }
}
/** Sixteen bytes where a memory operand waits for a helper. */
const OPERAND_AT = CPU.spare.at;

const REC_ = 0, CPU_ = 1;
/** Count arrivals, `by` at once, at the record in local `rec`; `isHot` is emitted for those that make it worth translating, with CPU.hot naming it. */
export const heat = (c: Code, rec: number, cpu: number, scratch: number, isHot: () => void, by = 1): void => {
  c.get(rec).get(rec).mem(Op.i32_load, REC.heat).i32(by).op(Op.i32_sub).tee(scratch).mem(Op.i32_store, REC.heat);
  if (by === 1) c.get(scratch).op(Op.i32_eqz); else c.i32(0).get(scratch).op(Op.i32_sub).i32(by).op(Op.i32_lt_u);      // just now it was above 0
  c.unlikely().if_(); c.get(cpu).get(rec).mem(Op.i32_store, CPU.hot.at); isHot(); c.end();
};
/** The budget in local `budget` is the CPU's, unless somebody wants this pCPU's attention (a budget of -1): that is not to be lost. */
export const keepBudget = (c: Code, cpu: number, budget: number): void => {
  c.get(cpu).mem(Op.i32_load, CPU.budget.at).i32(0).op(Op.i32_ge_s).if_(); c.get(cpu).get(budget).mem(Op.i32_store, CPU.budget.at).end();
};
export class StubGen extends Gen {
  private form!: Form;
  private writes: { slot: number | null; field: number; w: W; v: Val; raw: boolean }[] = [];
  private fl: (() => void)[] = [];
  private ended = false;
  private words: [Val, Val] | null = null;
  private off: Val | null = null;
  private lockedReg = false;

  make(form: Form): Code {
    this.code = new Code(2); this.form = form; this.w = form.w; this.sw = form.sw; this.aw = form.aw; this.long = form.long;
    this.dstMem = form.dk === KIND.mem; this.srcMem = form.sk === KIND.mem; this.srcIsImm = form.sk === KIND.imm;
    this.resetTemps(); this.writes = []; this.fl = []; this.ended = false; this.words = null; this.off = null; this.lockedReg = false;
    form.row.sem(this, form.w);
    if (!this.ended) { if (form.row.flow === "sys") this.end(); else { this.commit(); this.goOn(); } }
    this.code.op(Op.unreachable);
    return this.code;
  }
  cpu(): Code { return this.code.get(CPU_); }
  /** Function (code, a, b) -> one of the two flag words: the formulas of gen-flags.ts for flags that a region kept lazy. */
  flagHelper(word: "res" | "aux"): Code {
    const c = this.code = new Code(3); this.resetTemps();
    const labels: number[] = [], n = 1 + KINDS.length * 4;
    for (let i = n - 1; i >= 0; i--) labels[i] = c.block();
    c.get(0).brTable(labels, labels[0]!).end().get(word === "res" ? 1 : 2).op(Op.return);
    for (const kind of KINDS) for (const w of WIDTHS) {
      c.end();
      const f = flagsOf(this, kind, w, local(1, I64), local(2, I64));
      this.emit(word === "res" ? resOf(this, f) : auxOf(this, f)); c.op(Op.return);
    }
    c.op(Op.unreachable);
    return c;
  }
  /** Function (a, b) -> the high half of their product; with signs, by the short way where both have 32 bits: mostly an index times a size. */
  highHelper(signed: boolean): Code {
    const c = this.code = new Code(2), a = local(0, I64), b = local(1, I64); this.resetTemps();
    if (signed) {
      const wide = (v: Val) => this.add(64, v, this.k(64, 2 ** 31));
      this.emit(this.eqz(64, this.shr(64, this.or(64, wide(a), wide(b)), this.k(64, 32)))); c.if_();
      this.emit(this.sar(64, this.mul(64, a, b), this.k(64, 63))); c.op(Op.return).end();
    }
    this.emit(this.mulHighInLine(signed, a, b));
    return c;
  }
  // Operands
  private rec(off: number, o: number = Op.i32_load16_u): this { this.code.get(REC_).mem(o, off); return this; }
  private out(ty: Ty): Val { const t = this.temp(ty); this.code.set(t); return local(t, ty); }
  private loadAt(w: W, at: number): Val { this.code.mem(LOADS[w], at); return this.out(tyOf(w)); }
  private slot(field: number, o: number = Op.i32_load16_u): void { this.rec(field, o); this.code.get(CPU_).op(Op.i32_add); }
  private segment(): void { this.rec(REC.seg, Op.i32_load8_u); this.code.i32(3).op(Op.i32_shl).get(CPU_).op(Op.i32_add); }
  /** imm or disp in 64 bits. */
  private number(field: number, big: number): void { if (this.form.big) this.rec(big, Op.i64_load); else this.rec(field, Op.i64_load32_s); }
  protected emitReg(): void { throw new Error("The interpreter has no register nodes"); }
  offset(): Val {
    if (this.off) return this.off;
    const c = this.code;
    this.slot(REC.base, Op.i32_load8_u); c.mem(Op.i64_load, 0); this.number(REC.disp, REC.bigDisp); c.op(Op.i64_add);
    if (this.form.addr !== ADDR.base) { this.slot(REC.index, Op.i32_load8_u); c.mem(Op.i64_load, 0); this.rec(REC.scale, Op.i64_load8_u); c.i64(SCALE_MASK).op(Op.i64_and).op(Op.i64_shl).op(Op.i64_add); }
    if (this.aw !== 64) { c.i64(this.aw === 32 ? 0xffffffff : 0xffff).op(Op.i64_and); }
    return this.off = this.out(I64);
  }
  /** Offset in the segment whose address is in the record: checked where segments are real, then linear. */
  private inSegment(off: Val, size: number, write: boolean, seg: () => void): Val {
    const c = this.code;
    if (this.form.addr === ADDR.legacy || !this.long) {
      seg(); this.emit(off); c.i32(size | (write ? 0x10000 : 0)).call(helperIndex("segCheck")); this.faultCheck();
      this.emit(off); seg(); c.mem(Op.i64_load, SEG.base.at).op(Op.i64_add).i64(0xffffffff).op(Op.i64_and);
    } else { this.emit(off); seg(); c.mem(Op.i64_load, SEG.base.at).op(Op.i64_add); }
    return this.out(I64);
  }
  ea(size: number, write: boolean): Val {
    const off = this.offset();
    return this.form.addr <= ADDR.index ? off : this.inSegment(off, size, write, () => this.segment());
  }
  eaPlus(bytes: Val, size: number, write: boolean): Val {
    let off = this.let(this.add(64, this.offset(), bytes));
    if (this.aw !== 64) off = this.let(this.and(64, off, this.k(64, this.aw === 32 ? 0xffffffff : 0xffff)));
    return this.form.addr <= ADDR.index ? off : this.inSegment(off, size, write, () => this.segment());
  }
  segAddr(s: number, off: Val, size: number, write: boolean): Val {
    return this.long ? off : this.inSegment(off, size, write, () => this.code.get(CPU_).i32(segAt(s)).op(Op.i32_add));
  }
  dataAddr(off: Val, size: number, write: boolean): Val { return this.form.addr <= ADDR.index ? off : this.inSegment(off, size, write, () => this.segment()); }
  private operand(kind: number, field: number, w: W): Val {
    if (kind === KIND.mem) { const at = this.ea(w / 8, false); this.aligned(this.form.row, at, w); return this.load(w, at); }
    if (kind === KIND.imm) return this.imm(w);
    this.slot(field); return this.loadAt(w, 0);
  }
  dst(w: W = this.w): Val { return this.operand(this.form.dk, REC.d, w); }
  src(w: W = this.sw): Val { return this.operand(this.form.sk, REC.s, w); }
  imm(w: W): Val { if (w < 64) { this.code.get(REC_); return this.loadAt(w, REC.imm); } this.number(REC.imm, REC.bigImm); return this.out(I64); }
  imm2(): Val { this.number(REC.disp, REC.bigDisp); return this.out(I64); }
  known(): number { return this.form.known; }
  count3(): Val { return this.form.row.form.endsWith("L") ? this.reg(8, RCX) : this.imm(8); }
  num(): Val { this.rec(this.form.dk === KIND.num ? REC.d : REC.s, Op.i64_load16_u); return this.out(I64); }
  segSel(): Val {
    this.rec(this.form.dk === KIND.num ? REC.d : REC.s); this.code.i32(4).op(Op.i32_shl).get(CPU_).op(Op.i32_add);
    return this.loadAt(16, CPU.seg.at + SEG.sel.at);
  }
  private write(kind: number, field: number, v: Val, w: W): void {
    if (kind === KIND.mem) { const at = this.ea(w / 8, true); this.aligned(this.form.row, at, w); this.store(w, at, v); } else this.writes.push({ slot: null, w, v: this.let(v), field, raw: kind !== KIND.reg });
  }
  setDst(v: Val, w: W = this.w): void { this.write(this.form.dk, REC.d, v, w); }
  setSrc(v: Val): void { this.write(this.form.sk, REC.s, v, this.sw); }
  rmw(): Val { return this.form.dk === KIND.mem ? this.loadForWrite(this.w, this.ea(this.w / 8, true), this.form.lock) : this.reopen(this.dst()); }
  private reopen(v: Val): Val { this.lockedReg = true; return v; }
  rmwAt(w: W, addr: Val): Val { return this.loadForWrite(w, addr, this.form.lock); }
  put(v: Val): void { if (this.lockedReg) { this.lockedReg = false; this.setDst(v); } else this.storeBack(v); }
  reg(w: W, i: number): Val { this.code.get(CPU_); return this.loadAt(w, gprAt(i)); }
  setReg(w: W, i: number, v: Val): void { this.writes.push({ slot: gprAt(i), w, v: this.let(v), field: 0, raw: false }); }
  field(w: W, at: number): Val { this.code.get(CPU_); return this.loadAt(w, at); }
  setField(w: W, at: number, v: Val): void { this.writes.push({ slot: at, w, v: this.let(v), field: 0, raw: true }); }
  dstSlot(): Val { this.slot(REC.d); return this.out(I32); }
  srcSlot(): Val {
    if (this.form.sk !== KIND.mem) { this.slot(REC.s); return this.out(I32); }
    const v = this.src();
    this.code.get(CPU_); this.emit(v); this.code.mem(STORES[this.sw], OPERAND_AT);
    this.code.get(CPU_).i32(OPERAND_AT).op(Op.i32_add);
    return this.out(I32);
  }
  // Flags
  private flagWords(): [Val, Val] { return this.words ??= [this.field(64, CPU.fres.at), this.field(64, CPU.faux.at)]; }
  cc(cond: number): Val { const [res, aux] = this.flagWords(); return ccOf(this, cond, res, aux); }
  arith(): Val { const [res, aux] = this.flagWords(); return arithOf(this, res, aux); }
  private setWord(at: number, v: Val): void { const x = this.let(v); this.code.get(CPU_); this.emit(x); this.code.mem(Op.i64_store, at); }
  flags(kind: FlagKind, w: W, r: Val, a: Val | null = null, b: Val | null = null, x: Val | null = null): void {
    const f: Flags = { kind, w, r, a, b, x };
    this.fl.push(() => { this.setWord(CPU.fres.at, resOf(this, f)); this.setWord(CPU.faux.at, auxOf(this, f)); });
  }
  flagsIf(cond: Val, w: W, r: Val | null, cf: Val, of: Val): void {
    const keep = r ? null : this.flagWords()[1];
    this.fl.push(() => {
      this.emit(cond); this.code.if_();
      if (r) { this.setWord(CPU.fres.at, this.cast(w, 64, r, true)); this.setWord(CPU.faux.at, auxOf(this, { kind: "co", w, r, a: cf, b: of, x: null })); }
      else this.setWord(CPU.faux.at, withCO(this, keep!, cf, of));
      this.code.end();
    });
  }
  setCF(v: Val): void { const [, aux] = this.flagWords(); this.fl.push(() => this.setWord(CPU.faux.at, withCF(this, aux, v))); }
  setArith(e: Val): void { const image = this.let(e); this.fl.push(() => { const [res, aux] = wordsOf(this, image); this.setWord(CPU.fres.at, res); this.setWord(CPU.faux.at, aux); }); }
  private commit(): void {
    const c = this.code;
    for (const x of this.writes) {
      if (x.slot === null) this.slot(x.field); else c.get(CPU_);
      const at = x.slot ?? 0;
      this.emit(x.v);
      if (x.w === 32 && !x.raw) c.op(Op.i64_extend_i32_u).mem(Op.i64_store, at); else c.mem(STORES[x.w], at);
    }
    for (const f of this.fl) f();
    this.writes = []; this.fl = [];
  }
  // Control
  private goOn(): void { this.code.get(REC_).i32(REC.size).op(Op.i32_add).op(Op.return); }
  private exit(): void { this.code.i32(0).op(Op.return); }
  /** rip := v and out to the run loop, which fills `link` of that record if there is one. */
  private leaveAt(rip: () => void, link: boolean): void {
    const c = this.code;
    c.get(CPU_); rip(); c.mem(Op.i64_store, CPU.rip.at); c.get(CPU_); if (link) c.get(REC_); else c.i32(0); c.mem(Op.i32_store, CPU.link.at); this.exit();
  }
  /** Leave when the budget is spent. */
  private spend(rip: () => void): void {
    const c = this.code, t = this.temp(I32);
    c.get(CPU_).get(CPU_).mem(Op.i32_load, CPU.budget.at).i32(1).op(Op.i32_sub).tee(t).mem(Op.i32_store, CPU.budget.at).get(t).i32(0).op(Op.i32_lt_s).unlikely().if_(); this.leaveAt(rip, false); c.end();
  }
  private atOffset(extra: () => void): void {
    const c = this.code;
    c.get(CPU_).mem(Op.i64_load, CPU.ripBase.at); extra(); c.op(Op.i64_add);
    if (!this.long) c.i64(0xffffffff).op(Op.i64_and);
  }
  private emitHere(): void { this.atOffset(() => this.rec(REC.off, Op.i64_load16_u)); }
  private emitNext(): void { this.atOffset(() => { this.rec(REC.off, Op.i64_load16_u).rec(REC.scale, Op.i64_load8_u); this.code.i64(LENGTH_SHIFT).op(Op.i64_shr_u).op(Op.i64_add); }); }
  private emitTarget(): void { this.atOffset(() => this.number(REC.imm, REC.bigImm)); if (this.w === 16) this.code.i64(0xffff).op(Op.i64_and); }
  private goDirect(): void {
    const c = this.code;
    if (this.form.cross) { this.emitTarget(); c.get(CPU_).call(helperIndex("lookup")).op(Op.return); return; }
    const t = this.temp(I32), rip = () => this.emitTarget();
    this.rec(REC.link, Op.i32_load); c.tee(t).op(Op.i32_eqz).unlikely().if_(); this.leaveAt(rip, true); c.end();
    this.spend(rip);
    heat(c, t, CPU_, this.temp(I32), () => this.leaveAt(rip, false));
    c.get(t).op(Op.return);
  }
  private readonly TARGET: Val = { op: X.reg, ty: I64, a: null, b: null, c: null, k: -1 };
  here(): Val { this.emitHere(); return this.out(I64); }
  next(): Val { this.emitNext(); return this.out(I64); }
  target(): Val { return this.TARGET; }
  jump(to: Val): void {
    this.ended = true; const c = this.code;
    if (to === this.TARGET) { this.commit(); this.goDirect(); return; }
    const t = this.let(to); this.commit();
    // a guess for the translator: where it went last
    if (this.form.row.flow === "callind") c.get(REC_).get(t.k).op(Op.i32_wrap_i64).mem(Op.i32_store, REC.guess);
    c.get(t.k).get(CPU_).call(helperIndex("lookup")).op(Op.return);
  }
  branch(cond: Val): void {
    this.ended = true; const v = this.let(cond); this.commit();
    this.emit(v); this.code.if_(); this.goDirect(); this.code.end();
    // arrivals by falling through count too: the translator asks how often a block ran
    const c = this.code, t = this.temp(I32);
    c.get(REC_).i32(REC.size).op(Op.i32_add).set(t);
    heat(c, t, CPU_, this.temp(I32), () => this.leaveAt(() => this.emitNext(), false));
    c.get(t).op(Op.return);
  }
  skipIf(cond: Val): void { this.emit(cond); this.code.if_(); this.goOn(); this.code.end(); }
  again(cond?: Val): void {
    this.ended = true;
    const flags = cond ? this.fl : []; if (cond) this.fl = [];
    this.commit();
    if (cond) { this.emit(cond); this.code.op(Op.i32_eqz).if_(); for (const f of flags) f(); this.goOn(); this.code.end(); }
    this.spend(() => this.emitHere()); this.code.get(REC_).op(Op.return);
  }
  tryBulk(kind: number, n: Val): void {
    if (this.form.addr > ADDR.base) return;
    const c = this.code, done = this.temp(I32);
    this.emit(this.ltu(64, this.k(64, 1), n)); c.if_();
    c.i32(kind).i32(this.w).call(helperIndex("bulk")).tee(done).if_();
    c.get(done).i32(2).op(Op.i32_eq).if_(); this.goOn(); c.end();
    this.spend(() => this.emitHere()); c.get(REC_).op(Op.return).end();
    this.faultCheck(); c.end();
  }
  fault(): void { this.leaveAt(() => this.emitHere(), false); }
  private callSys(name: string, a: Val | undefined, b: Val | undefined): Val {
    const c = this.code, x = a ? this.let(a) : this.k(64, 0), y = b ? this.let(b) : this.k(64, 0), index = SYS_NAMES.indexOf(name as never);
    if (index < 0) throw new Error(`No system helper "${name}"`);
    c.get(CPU_); this.emitHere(); c.mem(Op.i64_store, CPU.rip.at); c.get(CPU_); this.emitNext(); c.mem(Op.i64_store, CPU.nextRip.at);
    c.i32(index); this.emit(x); this.emit(y); c.call(helperIndex("sys"));
    const r = this.out(I64);
    this.faultCheck();
    return r;
  }
  sys(name: string, a?: Val, b?: Val): Val { return this.callSys(name, a, b); }
  private leaveNext(): void { this.leaveAt(() => this.code.get(CPU_).mem(Op.i64_load, CPU.nextRip.at), false); }
  sysDone(name: string, a?: Val, b?: Val): void { this.callSys(name, a, b); this.leaveNext(); }
  sysEnd(name: string, a?: Val, b?: Val): void {
    this.ended = true;
    const r = this.callSys(name, a, b), c = this.code;
    this.commit();
    this.emit(this.ne(64, r, this.k(64, Number(GO_ON)))); c.if_(); this.leaveNext(); c.end();
    c.get(CPU_).mem(Op.i64_load, CPU.nextRip.at).get(CPU_).call(helperIndex("lookup")).op(Op.return);
  }
  end(): void { this.ended = true; this.commit(); this.leaveAt(() => this.emitNext(), false); }
  rare(cond: Val, arm: () => void): void {
    const { writes, fl, words, off } = this;
    this.writes = []; this.fl = [];
    this.emit(cond); this.code.unlikely().if_(); arm();
    if (!this.ended) this.end();
    this.code.end();
    this.ended = false; this.writes = writes; this.fl = fl; this.words = words; this.off = off;
  }
  byHand(): boolean { return false; }
  leap(to: Val): void { this.jump(this.let(to)); }
  afterSeg(): void {
    const c = this.code;
    if (this.form.row.form.startsWith("S") || this.form.row.form.startsWith("s2")) { c.get(CPU_); this.emit(this.num()); c.i64(2).op(Op.i64_eq).mem(Op.i32_store, CPU.shadow.at); }
    else if (this.form.row.name === "lss") c.get(CPU_).i32(1).mem(Op.i32_store, CPU.shadow.at);
    this.end();
  }
}

/** The wasm type of a stub: (record, cpu) -> next record or 0. */
export const STUB_TYPE = [[I32, I32], [I32]] as const;
const patterns = new Map<string, Module>();
/** An empty module of generated functions, whose type is STUB_TYPE: memory, table and helpers are the same imports for all of them. */
export function generatedModule(memory: MemorySpec, tableSize: number): Module {
  const key = `${memory.min} ${memory.max} ${memory.shared} ${tableSize}`;
  let m = patterns.get(key);
  if (!m) {
    patterns.set(key, m = new Module());
    m.type(...STUB_TYPE);
    for (const [name, [params, results]] of Object.entries(HELPERS)) m.imports.push({ name, type: m.type(params, results) });
    m.imports.push({ name: "memory", memory }, { name: "table", table: tableSize }, { name: "base", global: I32 });
    m.elemsFrom = 0;
  }
  return m.like();
}
/** A module of stubs, whose table slots follow the one given as `base`. */
export function stubModule(list: readonly Form[], memory: MemorySpec, tableSize: number): Uint8Array<ArrayBuffer> {
  const m = generatedModule(memory, tableSize), g = new StubGen(), type = m.type(...STUB_TYPE);
  for (const f of list) m.funcs.push({ type, code: g.make(f) });
  return m.encode();
}
