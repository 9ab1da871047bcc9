/** A third reading of the same text: it keeps nothing it emits and learns what an instruction does to flags and memory, and what it needs. */
import { Code } from "../wasm/writer.ts";
import { type Insn, KIND } from "./decode.ts";
import { Gen, type FlagKind, type Val, type W, X, local, tyOf } from "./gen.ts";
import { formKey, formOf } from "./stubs.ts";
import { type Ty, I32 } from "../wasm/writer.ts";

/** The two parts of the flags that liveness tells apart. */
export const CF = 1, OTHER = 2, ALL = 3;
/** reads, kills: parts of the flags. mayFault: touches memory or traps. isLocal: registers, memory and flags only, no helper that needs the CPU struct up to date. stores: writes its memory operand. */
export type Facts = { reads: number; kills: number; mayFault: boolean; isLocal: boolean; stores: boolean };
const valOf = (w: W): Val => local(0, tyOf(w));

class Analyzer extends Gen {
  facts!: Facts;
  private insn!: Insn;
  run(i: Insn): Facts {
    this.code = new Code(1); this.insn = i; this.w = i.w; this.sw = i.sw; this.aw = i.aw; this.long = i.long;
    this.dstMem = i.dk === KIND.mem; this.srcMem = i.sk === KIND.mem; this.srcIsImm = i.sk === KIND.imm;
    this.resetTemps();
    this.facts = { reads: 0, kills: 0, mayFault: false, stores: false, isLocal: i.long && i.row.flow !== "sys" && i.row.flow !== "rep" && i.row.unit !== "x87" && i.row.unit !== "mmx" && i.dk !== KIND.mmx && i.sk !== KIND.mmx };
    i.row.sem(this, i.w);
    return this.facts;
  }
  protected emitReg(): void {}
  cpu(): Code { return this.code.i32(0); }
  private at(kind: number, w: W): Val { if (kind === KIND.mem) this.facts.mayFault = true; return kind === KIND.imm ? this.imm(w) : valOf(w); }
  private touch(): void { this.facts.mayFault = true; }
  dst(w: W = this.w): Val { return this.at(this.insn.dk, w); }
  src(w: W = this.sw): Val { return this.at(this.insn.sk, w); }
  setDst(): void { if (this.dstMem) { this.touch(); this.facts.stores = true; } }
  setSrc(): void { if (this.srcMem) this.touch(); }
  offset(): Val { return valOf(64); }
  ea(): Val { return valOf(64); }
  eaPlus(): Val { return valOf(64); }
  imm(w: W): Val { return this.k(w, this.insn.imm); }
  imm2(): Val { return valOf(64); }
  known(): number { return this.insn.imm & 255; }
  count3(): Val { return valOf(32); }
  num(): Val { return valOf(64); }
  segSel(): Val { return valOf(16); }
  reg(w: W): Val { return valOf(w); }
  setReg(): void {}
  field(w: W): Val { return valOf(w); }
  setField(): void {}
  segAddr(): Val { return valOf(64); }
  dataAddr(): Val { return valOf(64); }
  flags(kind: FlagKind): void { this.facts.kills |= kind === "inc" || kind === "dec" ? OTHER : ALL; if (kind === "inc" || kind === "dec") this.facts.reads &= ~CF; }
  flagsIf(c: Val, _w: W, r: Val | null): void { if (c.op === X.konst && c.k) this.facts.kills |= r ? ALL : 0; if (!r) this.facts.reads |= ALL; }
  setCF(): void { this.facts.reads |= ALL; }
  setArith(): void { this.facts.kills |= ALL; }
  arith(): Val { this.facts.reads |= ALL; return valOf(32); }
  cc(cond: number): Val { this.facts.reads |= cond >> 1 === 1 ? CF : cond >> 1 === 3 ? ALL : OTHER; return valOf(32); }
  here(): Val { return valOf(64); }
  next(): Val { return valOf(64); }
  target(): Val { return valOf(64); }
  jump(): void {}
  branch(): void {}
  skipIf(): void {}
  again(): void {}
  fault(): void {}
  override load(w: W): Val { this.touch(); return valOf(w); }
  override store(): void { this.touch(); }
  override writable(): void { this.touch(); }
  override trap(): void { this.touch(); }
  override trapIf(): void { this.touch(); }
  override faultIf(): void { this.touch(); }
  override ifElse(ty: Ty, _c: Val, yes: () => Val, no: () => Val): Val { yes(); no(); return local(0, ty); }
  private foreign(): Val { this.facts.isLocal = false; return valOf(64); }
  sys(): Val { return this.foreign(); }
  sysEnd(): void { this.foreign(); }
  sysDone(): void { this.foreign(); }
  end(): void { this.foreign(); }
  afterSeg(): void { this.foreign(); }
  tryBulk(): void { this.foreign(); }
  dstSlot(): Val { this.foreign(); return local(0, I32); }
  srcSlot(): Val { this.foreign(); return local(0, I32); }
  rare(): void { this.touch(); }
  byHand(): boolean { this.touch(); return true; }
  leap(): void {}
  rmw(): Val { return this.dst(); }
  rmwAt(w: W): Val { this.touch(); return valOf(w); }
  put(): void { this.setDst(); }
}
const analyzer = new Analyzer(), cache = new Map<number, Facts>();
/** A shift by zero changes no flags: its form is told apart by the immediate being zero. */
export function factsOf(i: Insn): Facts {
  if (i.facts) return i.facts as Facts;
  const noShift = i.sk === KIND.imm && (i.imm & (i.w === 64 ? 63 : 31)) === 0, key = formKey(formOf(i, false, false)) * 2 + (noShift ? 1 : 0);
  let f = cache.get(key);
  if (!f) cache.set(key, f = analyzer.run(i));
  i.facts = f;
  return f;
}
/** Flags live before i, given those live after; a fault is a reader of all. */
export function liveBefore(i: Insn, after: number): number {
  const f = factsOf(i);
  return after & ~f.kills | f.reads | (f.mayFault ? ALL : 0);
}
