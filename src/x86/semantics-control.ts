/** Stack, control transfer and string instructions (SDM Vol. 2). */
import { I32, I64 } from "../wasm/writer.ts";
import type { Gen, Val, W } from "./gen.ts";
import type { Semantics } from "./semantics.ts";
import { CPU, DS, EFLAGS, ES, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, SS, VECTOR } from "./state.ts";

/** Several pushes or pops of one instruction; `done` queues the new stack pointer. Outside 64-bit mode the pointer wraps at SS's size. */
export class Stack {
  private readonly g: Gen;
  private readonly mask: Val | null;
  sp: Val;
  constructor(g: Gen, from: Val = g.reg(64, RSP)) { this.g = g; this.mask = g.long ? null : g.let(g.field(64, CPU.spMask.at)); this.sp = g.let(from); }
  private at(off: Val, size: number, write: boolean): Val { const { g } = this; return this.mask ? g.segAddr(SS, g.let(g.and(64, off, this.mask)), size, write) : off; }
  push(w: W, v: Val): void { const { g } = this, to = g.let(g.sub(64, this.sp, g.k(64, w / 8))); g.store(w, this.at(to, w / 8, true), v); this.sp = to; }
  pop(w: W): Val { const { g } = this, v = g.load(w, this.at(this.sp, w / 8, false)); this.sp = g.let(g.add(64, this.sp, g.k(64, w / 8))); return v; }
  /** Fault where a byte at this stack pointer could not be written. */
  mayWrite(sp: Val): void { this.g.writable(this.at(sp, 1, true), 1); }
  /** Move the pointer by bytes (i64). */
  skip(n: Val): void { this.sp = this.g.let(this.g.add(64, this.sp, n)); }
  done(): void {
    const { g, mask } = this, old = g.reg(64, RSP);
    g.setReg(64, RSP, mask ? g.or(64, g.and(64, old, g.xor(64, mask, g.k(64, -1))), g.and(64, this.sp, mask)) : this.sp);
  }
}
const pushValue = (g: Gen, w: W, v: Val) => { const s = new Stack(g); s.push(w, v); s.done(); };
export const push: Semantics = (g, w) => pushValue(g, w, g.let(g.dst()));
export const pushImm: Semantics = (g, w) => pushValue(g, w, g.imm(w));
export const pop: Semantics = (g, w) => { const s = new Stack(g), v = s.pop(w); s.done(); g.setDst(v); };
/** PUSH of a segment register: its selector, zero-extended. */
export const pushSeg: Semantics = (g, w) => pushValue(g, w, g.cast(16, w, g.segSel()));
export const popSeg: Semantics = (g, w) => { const s = new Stack(g), v = g.let(g.cast(w, 64, s.pop(w))); g.sys("loadSeg", g.and(64, v, g.k(64, 0xffff)), g.num()); s.done(); g.afterSeg(); };
export const pusha: Semantics = (g, w) => { const s = new Stack(g), sp = g.let(g.reg(w, RSP)); for (let r = 0; r < 8; r++) s.push(w, r === RSP ? sp : g.reg(w, r)); s.done(); };
export const popa: Semantics = (g, w) => { const s = new Stack(g); const got: [number, Val][] = []; for (let r = 7; r >= 0; r--) { const v = s.pop(w); if (r !== RSP) got.push([r, v]); } s.done(); for (const [r, v] of got) g.setReg(w, r, v); };
export const leave: Semantics = (g, w) => { const s = new Stack(g, g.long ? g.reg(64, RBP) : g.or(64, g.and(64, g.reg(64, RBP), g.field(64, CPU.spMask.at)), g.k(64, 0))), v = s.pop(w); s.done(); g.setReg(w, RBP, v); };

/** The target of an indirect near transfer. */
const widen = (g: Gen, w: W, v: Val) => g.let(g.cast(w, 64, v));
/** A 64-bit address that is not canonical (SDM Vol. 1 3.3.7.1). */
export const notCanonical = (g: Gen, a: Val): Val => g.ne(64, a, g.sar(64, g.shl(64, a, g.k(64, 16)), g.k(64, 16)));
/** In 64-bit mode a target must be canonical; a CALL has written its return address by then, but moved nothing. */
const canonical = (g: Gen, w: W, t: Val) => { if (g.long && w === 64) g.trapIf(notCanonical(g, t), VECTOR.GP, 0); };
export const call: Semantics = (g, w) => { pushValue(g, w, g.cast(64, w, g.next())); g.jump(g.target()); };
export const callInd: Semantics = (g, w) => { const t = widen(g, w, g.dst()); pushValue(g, w, g.cast(64, w, g.next())); canonical(g, w, t); g.jump(t); };
export const ret: Semantics = (g, w) => { const s = new Stack(g), t = widen(g, w, s.pop(w)); canonical(g, w, t); s.done(); g.jump(t); };
export const retImm: Semantics = (g, w) => { const s = new Stack(g), t = widen(g, w, s.pop(w)); canonical(g, w, t); s.skip(g.and(64, g.imm(64), g.k(64, 0xffff))); s.done(); g.jump(t); };
export const jmp: Semantics = g => g.jump(g.target());
export const jmpInd: Semantics = (g, w) => { const t = widen(g, w, g.dst()); canonical(g, w, t); g.jump(t); };
export const jcc = (cc: number): Semantics => g => g.branch(g.cc(cc));
/** LOOP, LOOPE, LOOPNE: the counter has the address width. */
export const loop = (want: boolean | null): Semantics => g => {
  const n = g.let(g.sub(g.aw, g.reg(g.aw, RCX), g.k(g.aw, 1))), go = g.ne(g.aw, n, g.k(g.aw, 0));
  g.setReg(g.aw, RCX, n);
  g.branch(want === null ? go : g.and(32, go, g.cc(want ? 4 : 5)));
};
export const jcxz: Semantics = g => g.branch(g.eqz(g.aw, g.reg(g.aw, RCX)));

// Far transfers: helpers do the work
const widthOf = (g: Gen, w: W) => g.k(64, w);
/** The target of a far transfer through memory: offset, then selector. */
const farPointer = (g: Gen, w: W): [Val, Val] => {
  const at = g.let(g.ea(w / 8 + 2, false)), off = g.let(g.cast(w, 64, g.load(w, at)));
  return [off, g.let(g.cast(16, 64, g.load(16, g.add(64, at, g.k(64, w / 8)))))];
};
/** b of a far helper: selector | operand width << 16. */
const farArg = (g: Gen, w: W, sel: Val) => g.or(64, sel, g.k(64, w << 16));
export const farJump: Semantics = (g, w) => g.sysEnd("farJump", g.cast(w, 64, g.imm(w)), farArg(g, w, g.imm2()));
export const farCall: Semantics = (g, w) => g.sysEnd("farCall", g.cast(w, 64, g.imm(w)), farArg(g, w, g.imm2()));
export const farJumpInd: Semantics = (g, w) => { const [off, sel] = farPointer(g, w); g.sysEnd("farJump", off, farArg(g, w, sel)); };
export const farCallInd: Semantics = (g, w) => { const [off, sel] = farPointer(g, w); g.sysEnd("farCall", off, farArg(g, w, sel)); };
export const farRet: Semantics = (g, w) => g.sysEnd("farRet", g.and(64, g.imm(64), g.k(64, 0xffff)), widthOf(g, w));
export const farRet0: Semantics = (g, w) => g.sysEnd("farRet", g.k(64, 0), widthOf(g, w));
export const iret: Semantics = (g, w) => g.sysEnd("iret", widthOf(g, w));
/** LES, LDS, LSS, LFS, LGS */
export const loadFar = (s: number): Semantics => (g, w) => { const [off, sel] = farPointer(g, w); g.sys("loadSeg", sel, g.k(64, s)); g.setDst(g.cast(64, w, off)); g.afterSeg(); };
export const enter: Semantics = (g, w) => {
  const level = g.let(g.and(64, g.imm2(), g.k(64, 31)));
  g.emit(g.ne(64, level, g.k(64, 0))); g.code.if_(); g.sysDone("enter", g.or(64, g.imm(64), g.k(64, w * 65536)), level); g.code.end();
  const s = new Stack(g), last = g.let(g.sub(64, s.sp, g.add(64, g.k(64, w / 8), g.and(64, g.imm(64), g.k(64, 0xffff)))));
  s.mayWrite(last);
  s.push(w, g.reg(w, RBP)); const frame = s.sp;
  s.skip(g.sub(64, g.k(64, 0), g.and(64, g.imm(64), g.k(64, 0xffff))));
  s.done();
  if (g.long || w === 32) g.setReg(w, RBP, g.cast(64, w, frame)); else g.setReg(16, RBP, g.cast(64, 16, frame));
};
export const int = (vector?: number): Semantics => g => (vector === undefined ? g.sysEnd("int", g.and(64, g.imm(64), g.k(64, 255))) : g.sysEnd(vector === 3 ? "int3" : "int1"));
/** The helper looks at OF. */
export const into: Semantics = g => g.sysEnd("into");
export const bound: Semantics = (g, w) => {
  const at = g.let(g.ea(w / 4, false)), lo = g.load(w, at), hi = g.load(w, g.add(64, at, g.k(64, w / 8))), i = g.let(g.dst());
  g.trapIf(g.or(32, g.lts(w, i, lo), g.lts(w, hi, i)), VECTOR.BR);
};

// String instructions: the repeated form is one step that says `again`
const stepOf = (g: Gen, w: W): Val => g.let(g.cast(32, 64, g.sub(32, g.k(32, w / 8), g.and(32, g.shr(32, g.field(32, CPU.eflags.at), g.k(32, 10 - 1 - Math.log2(w / 8))), g.k(32, w / 4))), true));
const index = (g: Gen, r: number): Val => g.cast(g.aw, 64, g.reg(g.aw, r));
const move = (g: Gen, r: number, by: Val) => g.setReg(g.aw, r, g.cast(64, g.aw, g.add(64, g.reg(64, r), by)));
const source = (g: Gen, w: W, write = false): Val => g.dataAddr(g.let(index(g, RSI)), w / 8, write);
const target = (g: Gen, w: W, write: boolean): Val => g.segAddr(ES, g.let(index(g, RDI)), w / 8, write);
export const movs: Semantics = (g, w) => { const v = g.load(w, source(g, w)), by = stepOf(g, w); g.store(w, target(g, w, true), v); move(g, RSI, by); move(g, RDI, by); };
export const stos: Semantics = (g, w) => { const by = stepOf(g, w); g.store(w, target(g, w, true), g.reg(w, RAX)); move(g, RDI, by); };
export const lods: Semantics = (g, w) => { const v = g.load(w, source(g, w)); g.setReg(w, RAX, v); move(g, RSI, stepOf(g, w)); };
export const scas: Semantics = (g, w) => { const a = g.let(g.reg(w, RAX)), b = g.load(w, target(g, w, false)), r = g.let(g.sub(w, a, b)); move(g, RDI, stepOf(g, w)); g.flags("sub", w, r, a, b); };
export const cmps: Semantics = (g, w) => {
  const a = g.load(w, source(g, w)), b = g.load(w, target(g, w, false)), r = g.let(g.sub(w, a, b)), by = stepOf(g, w);
  move(g, RSI, by); move(g, RDI, by); g.flags("sub", w, r, a, b);
};
const port = (g: Gen): Val => g.cast(16, 64, g.reg(16, RDX));
const outArg = (g: Gen, w: W, p: Val) => g.or(64, p, g.k(64, (w / 8) << 16));
export const ins: Semantics = (g, w) => { const at = target(g, w, true); g.rmwAt(w, at); const v = g.sys("in", port(g), g.k(64, w / 8)); g.put(g.cast(64, w, v)); move(g, RDI, stepOf(g, w)); };
export const outs: Semantics = (g, w) => { const v = g.load(w, source(g, w)); g.sys("out", outArg(g, w, port(g)), g.cast(w, 64, v)); move(g, RSI, stepOf(g, w)); };
export const inPort = (p: "imm" | "dx"): Semantics => (g, w) => g.setReg(w, RAX, g.cast(64, w, g.sys("in", p === "dx" ? port(g) : g.cast(8, 64, g.imm(8)), g.k(64, w / 8))));
export const outPort = (p: "imm" | "dx"): Semantics => (g, w) => { g.sys("out", outArg(g, w, p === "dx" ? port(g) : g.cast(8, 64, g.imm(8))), g.cast(w, 64, g.reg(w, RAX))); };
/** REP: kind 1 MOVS and 2 STOS have a bulk path. */
export const rep = (body: Semantics, bulk = 0): Semantics => (g, w) => {
  const n = g.let(g.reg(g.aw, RCX));
  g.skipIf(g.eqz(g.aw, n));
  if (bulk && g.long && g.aw === 64) g.tryBulk(bulk, n);
  body(g, w);
  g.setReg(g.aw, RCX, g.sub(g.aw, n, g.k(g.aw, 1)));
  g.again();
};
/** REPE / REPNE with a comparison. */
export const repWhile = (kind: "cmps" | "scas", equal: boolean): Semantics => (g, w) => {
  const n = g.let(g.reg(g.aw, RCX));
  g.skipIf(g.eqz(g.aw, n));
  const a = g.let(kind === "cmps" ? g.load(w, source(g, w)) : g.reg(w, RAX)), b = g.load(w, target(g, w, false)), r = g.let(g.sub(w, a, b)), by = stepOf(g, w);
  if (kind === "cmps") move(g, RSI, by);
  move(g, RDI, by); g.flags("sub", w, r, a, b);
  g.setReg(g.aw, RCX, g.sub(g.aw, n, g.k(g.aw, 1)));
  g.again(g.let(g.and(32, equal ? g.eq(w, a, b) : g.ne(w, a, b), g.ne(g.aw, n, g.k(g.aw, 1)))));
};
export const xlat: Semantics = g => {
  const off = g.let(g.cast(g.aw, 64, g.cast(64, g.aw, g.add(64, g.reg(64, RBX), g.cast(8, 64, g.reg(8, RAX))))));
  g.setReg(8, RAX, g.load(8, g.dataAddr(off, 1, false)));
};
export const cld: Semantics = g => g.setField(32, CPU.eflags.at, g.and(32, g.field(32, CPU.eflags.at), g.k(32, ~EFLAGS.DF)));
export const std: Semantics = g => g.setField(32, CPU.eflags.at, g.or(32, g.field(32, CPU.eflags.at), g.k(32, EFLAGS.DF)));
