/** System instructions: their operands here, their work in system.ts behind `sys` (SDM Vol. 2). */
import { I32, I64 } from "../wasm/writer.ts";
import { type Gen, type Val, type W, X } from "./gen.ts";
import { CONTEXT, TLB_BYTES } from "./layout.ts";
import { type Semantics, setZF } from "./semantics.ts";
import { Stack, notCanonical } from "./semantics-control.ts";
import { CPU, CR4, CS, EFER, EFLAGS, GS, LDTR, MODE, RAX, RCX, RDX, SEG, SS, TR, VECTOR, segAt } from "./state.ts";

/** A helper without operands after which everything may have changed. */
export const plain = (name: string): Semantics => g => g.sysEnd(name);
/** A helper without operands that only reads or writes general registers or memory. */
export const quiet = (name: string): Semantics => g => { g.sys(name); };
const eflags = (g: Gen): Val => g.let(g.field(32, CPU.eflags.at));
const any = (g: Gen, v: Val, bits: number): Val => g.ne(32, g.and(32, v, g.k(32, bits)), g.k(32, 0));
const isUser = (g: Gen): Val => g.ne(32, g.field(32, CPU.cpl.at), g.k(32, 0));
/** Interrupts are about to be let in, and one waits. */
const mustLook = (g: Gen): Val => g.ne(32, g.field(32, CPU.irqPending.at), g.k(32, 0));
const needsIopl = (g: Gen, f: Val): Val => g.ltu(32, g.and(32, g.shr(32, f, g.k(32, 12)), g.k(32, 3)), g.field(32, CPU.cpl.at));

// In 64-bit mode the usual case of what kernels do all the time is text; anything else is the helper's.
export const sti: Semantics = g => {
  if (!g.long) { g.sysEnd("sti"); return; }
  const f = eflags(g);
  g.rare(g.or(32, needsIopl(g, f), mustLook(g)), () => g.sysEnd("sti"));
  g.setField(32, CPU.eflags.at, g.or(32, f, g.k(32, EFLAGS.IF)));
  g.setField(64, CPU.stiRip.at, g.next());
};
/** PAUSE: a loop that waits for another processor; after many of them that one may need this processor's time. */
export const pause: Semantics = g => {
  const left = g.let(g.sub(32, g.field(32, CPU.pauses.at), g.k(32, 1)));
  g.rare(g.lts(32, left, g.k(32, 0)), () => g.sysEnd("pause"));
  g.setField(32, CPU.pauses.at, left);
};
export const cli: Semantics = g => {
  if (!g.long) { g.sys("cli"); return; }
  const f = eflags(g);
  g.rare(needsIopl(g, f), () => g.sysEnd("cli"));
  g.setField(32, CPU.eflags.at, g.and(32, f, g.k(32, ~EFLAGS.IF)));
};
export const pushf: Semantics = (g, w) => {
  const s = new Stack(g), v = g.long ? g.cast(32, 64, g.or(32, g.arith(), g.and(32, eflags(g), g.k(32, ~(EFLAGS.VM | EFLAGS.RF))))) : g.sys("pushfValue", g.k(64, w));
  s.push(w, g.let(g.cast(64, w, v))); s.done();
};
export const popf: Semantics = (g, w) => {
  const s = new Stack(g), v = g.let(g.cast(w, 64, s.pop(w))), helped = () => { g.sys("popf", v, g.k(64, w)); s.done(); g.end(); };
  if (!g.long) { helped(); return; }
  const f = eflags(g), x = g.let(g.cast(64, 32, v)), seldom = EFLAGS.TF | EFLAGS.NT | EFLAGS.IOPL | (w === 16 ? 0 : EFLAGS.AC | EFLAGS.ID), plain = EFLAGS.IF | EFLAGS.DF;
  g.rare(g.or(32, g.or(32, isUser(g), any(g, g.xor(32, x, f), seldom)), g.and(32, any(g, x, EFLAGS.IF), mustLook(g))), helped);
  s.done();
  g.setArith(x);
  g.setField(32, CPU.eflags.at, g.or(32, g.and(32, f, g.k(32, ~(plain | EFLAGS.RF))), g.and(32, x, g.k(32, plain))));
};
/** The TLB for the present privilege: CONTEXT's number times the size of one. */
const useTlb = (g: Gen, context: Val): void => g.setField(32, CPU.tlb.at, g.add(32, g.field(32, CPU.bank.at), g.mul(32, context, g.k(32, TLB_BYTES))));
/** CONTEXT.kernelAc where AC lifts SMAP, else CONTEXT.kernel. */
const kernelContext = (g: Gen, f: Val): Val => g.and(32, g.shr(32, g.field(32, CPU.cr4.at), g.k(32, Math.log2(CR4.SMAP))), g.and(32, g.shr(32, f, g.k(32, Math.log2(EFLAGS.AC))), g.k(32, 1)));
/** STAC, CLAC. */
export const setAc = (name: "stac" | "clac"): Semantics => g => {
  if (!g.long) { g.sysEnd(name); return; }
  g.rare(isUser(g), () => g.sysEnd(name));
  const f = g.let(name === "stac" ? g.or(32, eflags(g), g.k(32, EFLAGS.AC)) : g.and(32, eflags(g), g.k(32, ~EFLAGS.AC)));
  g.setField(32, CPU.eflags.at, f);
  useTlb(g, kernelContext(g, f));
};
export const swapgs: Semantics = g => {
  g.rare(isUser(g), () => g.sysEnd("swapgs"));
  const a = g.let(g.field(64, segAt(GS))), b = g.let(g.field(64, CPU.kernelGsBase.at));
  g.setField(64, segAt(GS), b); g.setField(64, CPU.kernelGsBase.at, a);
};
/** The flat segments of SYSCALL and SYSRET, and what follows from the privilege; from 64-bit code to 64-bit code. */
const flat64 = (g: Gen, cs: Val, ss: Val, cpl: 0 | 3, f: Val): void => {
  for (const [s, sel, attr] of [[CS, cs, 0xa9b], [SS, ss, 0xc93]] as const) {
    g.setField(64, segAt(s) + SEG.base.at, g.k(64, 0)); g.setField(32, segAt(s) + SEG.limit.at, g.k(32, -1));
    g.setField(32, segAt(s) + SEG.sel.at, g.or(32, g.and(32, sel, g.k(32, 0xffff)), g.k(32, (attr | cpl << 5) << 16)));
  }
  g.setField(32, CPU.cpl.at, g.k(32, cpl));
  g.setField(32, CPU.mode.at, cpl ? g.or(32, g.field(32, CPU.mode.at), g.k(32, MODE.user)) : g.and(32, g.field(32, CPU.mode.at), g.k(32, ~MODE.user)));
  useTlb(g, cpl ? g.k(32, CONTEXT.user) : kernelContext(g, f));
};
const putFlags = (g: Gen, f: Val): void => { g.setArith(f); g.setField(32, CPU.eflags.at, g.and(32, f, g.k(32, ~EFLAGS.arith))); };
const noSce = (g: Gen): Val => g.not1(any(g, g.field(32, CPU.efer.at), EFER.SCE));
const R11 = 11, STAR_HIGH = CPU.star.at + 4;
export const syscall: Semantics = g => {
  if (!g.long) { g.sysEnd("syscall"); return; }
  g.rare(noSce(g), () => g.sysEnd("syscall"));
  const f = g.let(g.or(32, g.arith(), eflags(g))), kept = g.let(g.and(32, f, g.or(32, g.k(32, EFLAGS.fixed), g.not(32, g.or(32, g.field(32, CPU.sfmask.at), g.k(32, EFLAGS.RF | EFLAGS.VM))))));
  const cs = g.let(g.and(32, g.field(32, STAR_HIGH), g.k(32, 0xfffc)));
  g.setReg(64, RCX, g.next()); g.setReg(64, R11, g.cast(32, 64, f));
  putFlags(g, kept);
  flat64(g, cs, g.add(32, cs, g.k(32, 8)), 0, kept);
  g.leap(g.field(64, CPU.lstar.at));
};
/** What SYSRET takes from R11. */
const SYSRET_FLAGS = 0x3c7fd7 & ~(EFLAGS.RF | EFLAGS.VM);
export const sysret: Semantics = (g, w) => {
  const helped = () => g.sysEnd("sysret", g.k(64, w));
  if (!g.long || w !== 64) { helped(); return; }
  const to = g.let(g.reg(64, RCX)), x = g.let(g.cast(64, 32, g.reg(64, R11)));
  g.rare(g.or(32, g.or(32, g.or(32, isUser(g), noSce(g)), g.or(32, any(g, x, EFLAGS.TF | EFLAGS.RF), notCanonical(g, to))), g.and(32, any(g, x, EFLAGS.IF), mustLook(g))), helped);
  const f = g.let(g.or(32, g.and(32, eflags(g), g.k(32, ~(SYSRET_FLAGS | EFLAGS.RF | EFLAGS.VM))), g.and(32, x, g.k(32, SYSRET_FLAGS)))), base = g.let(g.shr(32, g.field(32, STAR_HIGH), g.k(32, 16)));
  putFlags(g, g.let(g.or(32, f, g.k(32, EFLAGS.fixed))));
  flat64(g, g.or(32, g.add(32, base, g.k(32, 16)), g.k(32, 3)), g.or(32, g.add(32, base, g.k(32, 8)), g.k(32, 3)), 3, f);
  g.leap(to);
};
/** The processor's supervisor-only group faults when CPL is not 0. */
const privileged = (g: Gen) => g.trapIf(g.field(32, CPU.cpl.at), VECTOR.GP, 0);
/** UMIP: SGDT, SIDT, SLDT, STR and SMSW fault in user mode. */
const umip = (g: Gen) => g.trapIf(g.and(32, g.ne(32, g.field(32, CPU.cpl.at), g.k(32, 0)), g.ne(32, g.and(32, g.field(32, CPU.cr4.at), g.k(32, CR4.UMIP)), g.k(32, 0))), VECTOR.GP, 0);
const protectedMode = (g: Gen) => g.trapIf(g.or(32, g.eqz(32, g.and(32, g.field(32, CPU.cr0.at), g.k(32, 1))), g.and(32, g.field(32, CPU.eflags.at), g.k(32, EFLAGS.VM))), VECTOR.UD);

export const movFromSeg: Semantics = (g, w) => { const v = g.segSel(); if (g.dstMem) g.setDst(v, 16); else g.setDst(g.cast(16, w, v)); };
export const movToSeg: Semantics = g => { g.sys("loadSeg", g.cast(16, 64, g.src(16)), g.num()); g.afterSeg(); };
export const movFromCr: Semantics = g => {
  const n = g.num(), known = n.op === X.konst ? n.k : -1, helped = () => g.setDst(g.cast(64, g.w, g.sys("readCr", n)));
  if (!g.long || known !== 2 && known !== 3) { helped(); return; }
  g.rare(isUser(g), helped);
  g.setDst(g.field(64, known === 2 ? CPU.cr2.at : CPU.cr3.at));
};
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
/** RDTSC and RDTSCP. */
export const readTsc = (name: "rdtsc" | "rdtscp"): Semantics => g => {
  g.rare(g.and(32, any(g, g.field(32, CPU.cr4.at), CR4.TSD), isUser(g)), () => g.sysEnd(name));
  if (name === "rdtscp") g.setReg(64, RCX, g.and(64, g.field(64, CPU.tscAux.at), g.k(64, 0xffffffff)));
  const t = g.let(g.add(64, g.help("tsc"), g.field(64, CPU.tscAdjust.at)));
  g.setReg(64, RAX, g.and(64, t, g.k(64, 0xffffffff))); g.setReg(64, RDX, g.shr(64, t, g.k(64, 32)));
};
/** FXSAVE and the XSAVE family: the helper moves the image. */
export const image = (name: string, size: number, write: boolean): Semantics => (g, w) => { g.sysEnd(name, g.ea(size, write), g.k(64, w)); };
const noFsgsbase = (g: Gen): Val => g.not1(any(g, g.field(32, CPU.cr4.at), CR4.FSGSBASE));
export const rdBase = (name: "rdfsbase" | "rdgsbase", s: number): Semantics => (g, w) => { g.rare(noFsgsbase(g), () => { g.sysEnd(name); }); g.setDst(g.cast(64, w, g.field(64, segAt(s)))); };
export const wrBase = (name: "wrfsbase" | "wrgsbase", s: number): Semantics => (g, w) => {
  const v = g.let(g.cast(w, 64, g.dst()));
  g.rare(g.or(32, noFsgsbase(g), notCanonical(g, v)), () => { g.sysEnd(name, v, g.k(64, w)); });
  g.setField(64, segAt(s), v);
};
/** SYSCALL leaves through LSTAR; SYSRET's width is the operand's. */
export const withWidth = (name: string): Semantics => (g, w) => g.sysEnd(name, g.k(64, w));
export const movnti: Semantics = g => g.setDst(g.src());
/** LDMXCSR: reserved bits fault. */
export const ldmxcsr: Semantics = g => { const v = g.let(g.dst(32)); g.trapIf(g.and(32, v, g.k(32, 0xffff0000)), VECTOR.GP, 0); g.setField(32, CPU.mxcsr.at, v); };
export const stmxcsr: Semantics = g => g.setDst(g.field(32, CPU.mxcsr.at), 32);
