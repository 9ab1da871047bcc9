/** System instructions: their operands here, their work in system.ts behind `sys` (SDM Vol. 2). */
import { I32, I64 } from "../wasm/writer.ts";
import type { Gen, Val, W } from "./gen.ts";
import { type Semantics, setZF } from "./semantics.ts";
import { Stack } from "./semantics-control.ts";
import { CPU, CR4, CS, EFLAGS, GS, LDTR, RAX, RCX, RDX, SEG, SS, TR, VECTOR, segAt } from "./state.ts";

/** A helper without operands after which everything may have changed. */
export const plain = (name: string): Semantics => g => g.sysEnd(name);
/** A helper without operands that only reads or writes general registers or memory. */
export const quiet = (name: string): Semantics => g => { g.sys(name); };
export const sti: Semantics = g => g.sysEnd("sti");
export const cli: Semantics = g => { g.sys("cli"); };
export const pushf: Semantics = (g, w) => { const s = new Stack(g), v = g.sys("pushfValue", g.k(64, w)); s.push(w, g.cast(64, w, v)); s.done(); };
export const popf: Semantics = (g, w) => { const s = new Stack(g), v = g.let(g.cast(w, 64, s.pop(w))); g.sys("popf", v, g.k(64, w)); s.done(); g.end(); };
/** The processor's supervisor-only group faults when CPL is not 0. */
const privileged = (g: Gen) => g.trapIf(g.field(32, CPU.cpl.at), VECTOR.GP, 0);
/** UMIP: SGDT, SIDT, SLDT, STR and SMSW fault in user mode. */
const umip = (g: Gen) => g.trapIf(g.and(32, g.ne(32, g.field(32, CPU.cpl.at), g.k(32, 0)), g.ne(32, g.and(32, g.field(32, CPU.cr4.at), g.k(32, CR4.UMIP)), g.k(32, 0))), VECTOR.GP, 0);
const protectedMode = (g: Gen) => g.trapIf(g.or(32, g.eqz(32, g.and(32, g.field(32, CPU.cr0.at), g.k(32, 1))), g.and(32, g.field(32, CPU.eflags.at), g.k(32, EFLAGS.VM))), VECTOR.UD);

export const movFromSeg: Semantics = (g, w) => { const v = g.segSel(); if (g.dstMem) g.setDst(v, 16); else g.setDst(g.cast(16, w, v)); };
export const movToSeg: Semantics = g => { g.sys("loadSeg", g.cast(16, 64, g.src(16)), g.num()); g.afterSeg(); };
export const movFromCr: Semantics = g => g.setDst(g.cast(64, g.w, g.sys("readCr", g.num())));
export const movToCr: Semantics = (g, w) => g.sysEnd("writeCr", g.num(), g.cast(w, 64, g.src()));
export const movFromDr: Semantics = g => g.setDst(g.cast(64, g.w, g.sys("readDr", g.num())));
export const movToDr: Semantics = (g, w) => g.sysEnd("writeDr", g.num(), g.cast(w, 64, g.src()));
const storeTable = (base: number, limit: number): Semantics => g => {
  umip(g);
  const at = g.let(g.ea(g.long ? 10 : 6, true));
  g.store(16, at, g.cast(32, 16, g.field(32, limit)));
  if (g.long) g.store(64, g.add(64, at, g.k(64, 2)), g.field(64, base));
  else g.store(32, g.add(64, at, g.k(64, 2)), g.field(32, base));
};
export const sgdt = storeTable(CPU.gdtrBase.at, CPU.gdtrLimit.at), sidt = storeTable(CPU.idtrBase.at, CPU.idtrLimit.at);
const loadTable = (name: string): Semantics => (g, w) => {
  privileged(g);
  const at = g.let(g.ea(g.long ? 10 : 6, false)), limit = g.let(g.cast(16, 64, g.load(16, at)));
  const base = g.long ? g.load(64, g.add(64, at, g.k(64, 2))) : g.cast(32, 64, g.load(32, g.add(64, at, g.k(64, 2))));
  g.sys(name, limit, g.long || w !== 16 ? base : g.and(64, base, g.k(64, 0xffffff)));
};
export const lgdt = loadTable("lgdt"), lidt = loadTable("lidt");
const storeSel = (s: number): Semantics => (g, w) => { protectedMode(g); umip(g); const v = g.field(16, segAt(s) + SEG.sel.at); if (g.dstMem) g.setDst(v, 16); else g.setDst(g.cast(16, w, v)); };
export const sldt = storeSel(LDTR), str = storeSel(TR);
export const lldt: Semantics = g => { protectedMode(g); g.sys("lldt", g.cast(16, 64, g.dst(16))); };
export const ltr: Semantics = g => { protectedMode(g); g.sys("ltr", g.cast(16, 64, g.dst(16))); };
/** LAR, LSL: the helper answers -1 for a selector that cannot be looked at. */
const look = (name: string): Semantics => (g, w) => {
  protectedMode(g);
  const v = g.let(g.sys(name, g.cast(16, 64, g.src(16)))), ok = g.let(g.ne(64, v, g.k(64, -1)));
  g.setDst(g.cast(64, w, g.select(I64, ok, v, g.cast(w, 64, g.dst()))));
  setZF(g, ok);
};
export const lar = look("lar"), lsl = look("lsl");
const verify = (name: string): Semantics => g => { protectedMode(g); const v = g.let(g.sys(name, g.cast(16, 64, g.dst(16)))); setZF(g, g.ne(64, v, g.k(64, -1))); };
export const verr = verify("verr"), verw = verify("verw");
export const smsw: Semantics = (g, w) => { umip(g); const v = g.let(g.field(64, CPU.cr0.at)); if (g.dstMem) g.setDst(g.cast(64, 16, v), 16); else g.setDst(g.cast(64, w, v)); };
export const lmsw: Semantics = g => g.sysEnd("lmsw", g.cast(16, 64, g.dst(16)));
export const invlpg: Semantics = g => g.sysEnd("invlpg", g.ea(1, false));
export const arpl: Semantics = g => {
  protectedMode(g);
  const s = g.let(g.src()), d = g.let(g.dst()), less = g.let(g.ltu(32, g.and(32, d, g.k(32, 3)), g.and(32, s, g.k(32, 3))));
  const raised = g.or(32, g.and(32, d, g.k(32, 0xfffc)), g.and(32, s, g.k(32, 3)));
  if (g.dstMem) { g.emit(less); g.code.if_(); g.setDst(raised); g.code.end(); } else g.setDst(g.select(I32, less, raised, d));
  setZF(g, less);
};
/** FXSAVE and the XSAVE family: the helper moves the image. */
export const image = (name: string, size: number, write: boolean): Semantics => (g, w) => { g.sysEnd(name, g.ea(size, write), g.k(64, w)); };
export const rdBase = (name: string): Semantics => (g, w) => g.setDst(g.cast(64, w, g.sys(name)));
export const wrBase = (name: string): Semantics => (g, w) => { g.sys(name, g.cast(w, 64, g.dst()), g.k(64, w)); };
/** SYSCALL leaves through LSTAR; SYSRET's width is the operand's. */
export const withWidth = (name: string): Semantics => (g, w) => g.sysEnd(name, g.k(64, w));
export const movnti: Semantics = g => g.setDst(g.src());
/** LDMXCSR: reserved bits fault. */
export const ldmxcsr: Semantics = g => { const v = g.let(g.dst(32)); g.trapIf(g.and(32, v, g.k(32, 0xffff0000)), VECTOR.GP, 0); g.setField(32, CPU.mxcsr.at, v); };
export const stmxcsr: Semantics = g => g.setDst(g.field(32, CPU.mxcsr.at), 32);
