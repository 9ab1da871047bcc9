/**
 * The privileged and rare instructions, as one table that generated code calls by number. A row gets the CPU and two operand values `a` and `b`
 * (i64 as wasm passes them); the caller has stored the instruction's address in CPU.rip and the following one in CPU.nextRip. A row that
 * transfers control writes CPU.nextRip. It throws GuestFault before anything has changed; `callSys` records it.
 */
import type { Cpu } from "./cpu.ts";
import { clts, lmsw, needCpl0, readCr, readDr, writeCr, writeDr } from "./control.ts";
import { enter } from "./exceptions.ts";
import { GuestFault } from "./fault.ts";
import { getFlags, setFlags } from "./flags.ts";
import { readMsr, tsc, writeMsr } from "./msr.ts";
import { portIn, portOut } from "./ports.ts";
import { gp, isRealStyle, lar, lldt, loadSegment, lsl, ltr, verr, verw } from "./segments.ts";
import { Stack } from "./stack.ts";
import { CPU, CR4, EFLAGS, EXIT, FS, GS, RAX, RBP, RBX, RCX, RDX, VECTOR } from "./state.ts";
import { farCall, farJump, farRet, flagMask, iret, syscall, sysenter, sysexit, sysret } from "./transfer.ts";
import { fxrstor, fxsave, xgetbv, xrstor, xsave, xsetbv } from "./xsave.ts";

/**
 * What a row after which everything may have changed (Gen.sysEnd) says when there is nothing for the run loop to look at all the same: no exit, no interrupt that may come now. The next instruction is
 * looked for at once.
 */
export const GO_ON = 1n;
/** A result that is a bigint goes back to the caller; anything else is 0. */
export type SysRow = (cpu: Cpu, a: bigint, b: bigint) => unknown;

const u = (x: bigint): number => Number(BigInt.asUintN(32, x));
const u64 = (x: bigint): bigint => BigInt.asUintN(64, x);
const u16 = (x: bigint): number => Number(BigInt.asUintN(16, x));
const width = (x: bigint): number => Number(x & 0xffn);
const undefinedOpcode = (): GuestFault => new GuestFault(VECTOR.UD);
/** PAUSEs of a waiting loop, some microseconds' worth, until the platform hears of it. */
const PAUSES = 400;
/** Instructions that real and virtual-8086 mode do not know. */
function needProtected(cpu: Cpu): void { if (isRealStyle(cpu)) throw undefinedOpcode(); }
function need64(cpu: Cpu): void { if (!cpu.is64) throw undefinedOpcode(); }
function putEdxEax(cpu: Cpu, x: bigint): void { cpu.setGpr32(RAX, u(x)); cpu.setGpr32(RDX, u(x >> 32n)); }
const edxEax = (cpu: Cpu): bigint => BigInt(cpu.gpr32(RDX)) << 32n | BigInt(cpu.gpr32(RAX));

/** LGDT and LIDT: the base must be canonical. */
function tableBase(cpu: Cpu, base: bigint): bigint {
  needCpl0(cpu);
  if (cpu.is64 && BigInt.asIntN(48, base) !== BigInt.asIntN(64, base)) throw gp(0);
  return u64(base);
}
function readTsc(cpu: Cpu): void {
  if (cpu.cr4 & CR4.TSD && cpu.cpl > 0) throw gp(0);
  putEdxEax(cpu, tsc(cpu));
}
const leaf = new Uint32Array(4);
function cpuid(cpu: Cpu): void {
  const nr = cpu.gpr32(RAX);
  cpu.platform.cpuid(nr, cpu.gpr32(RCX), leaf);
  if (nr === 1) leaf[2] = leaf[2]! & ~(1 << 27) | (cpu.cr4 & CR4.OSXSAVE ? 1 << 27 : 0);
  cpu.setGpr32(RAX, leaf[0]!); cpu.setGpr32(RBX, leaf[1]!); cpu.setGpr32(RCX, leaf[2]!); cpu.setGpr32(RDX, leaf[3]!);
}
/** CLI, STI, PUSHF and POPF in virtual-8086 mode need IOPL 3. */
function needIoplInVm86(cpu: Cpu): void { if (cpu.isVm86 && cpu.iopl < 3) throw gp(0); }
function popf(cpu: Cpu, value: bigint, w: number): void {
  needIoplInVm86(cpu);
  setFlags(cpu, u(value), flagMask(cpu, w, false) & ~(cpu.isVm86 ? EFLAGS.IOPL : 0));
  setFlags(cpu, 0, EFLAGS.RF | (w > 16 && cpu.cpl === 0 ? EFLAGS.VIF | EFLAGS.VIP : 0));
  cpu.setMode();
}
/** Only the guest's kernel may ask; Xen answers others -EPERM (arch/x86/hvm/hypercall.c). */
function hypercall(cpu: Cpu): void {
  if (cpu.isProtected && cpu.cpl === 0) cpu.platform.hypercall();
  else cpu.setGpr(RAX, u64(-1n));
}
function setAc(cpu: Cpu, on: boolean): void {
  if (cpu.cpl !== 0) throw undefinedOpcode();
  cpu.eflags = on ? cpu.eflags | EFLAGS.AC : cpu.eflags & ~EFLAGS.AC;
  cpu.setMode();
}
function wrBase(cpu: Cpu, s: number, base: bigint): void {
  fsgsbase(cpu);
  if (BigInt.asIntN(48, base) !== BigInt.asIntN(64, base)) throw gp(0);
  cpu.setSegBaseBig(s, base);
}
function fsgsbase(cpu: Cpu): void { need64(cpu); if (!(cpu.cr4 & CR4.FSGSBASE)) throw undefinedOpcode(); }
/** ENTER: a frame with copies of the outer frames' pointers. SDM Vol. 2. */
function enterFrame(cpu: Cpu, bytes: number, level: number, w: number): void {
  const size = w >> 3, stack = Stack.current(cpu), bp = cpu.gpr(RBP), values: (number | bigint)[] = [bp], isWide = cpu.get(CPU.spMask) === -1n;
  const narrow = cpu.get(CPU.spMask) === 0xffffn, before = stack.sp, at = Stack.current(cpu);
  level &= 31;
  const top = isWide ? cpu.gprNumber(RBP) : narrow ? cpu.gpr32(RBP) & 0xffff : cpu.gpr32(RBP);
  for (let i = 1; i < level; i++) { at.sp = top; values.push(at.peekWide(size, -i)); }
  const frame = isWide ? before - size : narrow ? before - size & 0xffff : (before - size) >>> 0;
  if (level > 0) values.push(frame);
  at.sp = before - values.length * size - bytes;
  if (!isWide) at.drop(0);
  at.check();
  const cut = (x: number | bigint) => size === 8 ? x : Number(BigInt.asUintN(w, BigInt(x)));
  // all is checked: now read and write by turns, since the frames may overlap
  stack.probe(size, values.length);
  values.forEach((x, i) => { at.sp = top; stack.push(size, [cut(i > 0 && i < level ? at.peekWide(size, -i) : x)]); });
  stack.drop(-bytes);
  stack.commit();
  if (size === 8) cpu.setGprNumber(RBP, frame); else if (size === 4) cpu.setGpr32(RBP, frame); else cpu.setGpr16(RBP, frame);
}
/** Extended state goes to or comes from memory. a: linear address, b: 64 with REX.W */
const image = (move: (cpu: Cpu, linear: number, is64: boolean) => void): SysRow => (cpu, a, b) => { move(cpu, cpu.linear(a), width(b) === 64); return GO_ON; };

export const SYS = {
  // Segments and tables. a: selector
  /** a: selector, b: segment number. MOV SS and POP SS: the caller sets CPU.shadow */
  loadSeg: (cpu, a, b) => loadSegment(cpu, Number(b), u16(a)),
  lldt: (cpu, a) => { needProtected(cpu); needCpl0(cpu); lldt(cpu, u16(a)); },
  ltr: (cpu, a) => { needProtected(cpu); needCpl0(cpu); ltr(cpu, u16(a)); },
  /** a: limit, b: base */
  lgdt: (cpu, a, b) => { cpu.set(CPU.gdtrBase, tableBase(cpu, b)); cpu.set(CPU.gdtrLimit, u16(a)); },
  lidt: (cpu, a, b) => { cpu.set(CPU.idtrBase, tableBase(cpu, b)); cpu.set(CPU.idtrLimit, u16(a)); },
  /** result: the value, or -1: clear ZF and write nothing */
  lar: (cpu, a) => { needProtected(cpu); return BigInt(lar(cpu, u16(a))); },
  lsl: (cpu, a) => { needProtected(cpu); return BigInt(lsl(cpu, u16(a))); },
  /** result: 1, or -1: clear ZF */
  verr: (cpu, a) => { needProtected(cpu); return verr(cpu, u16(a)) ? 1n : -1n; },
  verw: (cpu, a) => { needProtected(cpu); return verw(cpu, u16(a)) ? 1n : -1n; },

  // Control. a: register number, b: value
  readCr: (cpu, a) => readCr(cpu, Number(a)),
  writeCr: (cpu, a, b) => { writeCr(cpu, Number(a), u64(b)); return a === 3n ? GO_ON : 0n; },
  readDr: (cpu, a) => readDr(cpu, Number(a)),
  writeDr: (cpu, a, b) => writeDr(cpu, Number(a), u64(b)),
  clts,
  /** a: machine status word */
  lmsw: (cpu, a) => lmsw(cpu, u16(a)),
  /** a: linear address */
  invlpg: (cpu, a) => { needCpl0(cpu); if (BigInt.asIntN(48, a) === BigInt.asIntN(64, a)) cpu.mmu.tlb.invlpg(Number(BigInt.asIntN(64, a))); return GO_ON; },
  invd: needCpl0,
  wbinvd: needCpl0,
  rdmsr: (cpu) => { needCpl0(cpu); putEdxEax(cpu, readMsr(cpu, cpu.gpr32(RCX))); },
  wrmsr: (cpu) => { needCpl0(cpu); writeMsr(cpu, cpu.gpr32(RCX), edxEax(cpu)); },
  rdtsc: readTsc,
  rdtscp: (cpu) => { readTsc(cpu); cpu.setGpr32(RCX, u(cpu.get(CPU.tscAux))); },
  /** there are no counters */
  rdpmc: () => { throw gp(0); },
  cpuid,
  hlt: (cpu) => { needCpl0(cpu); cpu.set(CPU.halted, 1); cpu.exit = EXIT.halt; },

  // Flags
  sti: (cpu) => {
    if (cpu.isProtected && cpu.iopl < cpu.cpl) throw gp(0);
    if (!(cpu.eflags & EFLAGS.IF)) cpu.set(CPU.shadow, 1);
    cpu.eflags |= EFLAGS.IF;
  },
  cli: (cpu) => {
    if (cpu.isProtected && cpu.iopl < cpu.cpl) throw gp(0);
    cpu.eflags &= ~EFLAGS.IF;
  },
  /** result: what PUSHF pushes */
  pushfValue: (cpu) => { needIoplInVm86(cpu); return BigInt(getFlags(cpu) & ~(EFLAGS.VM | EFLAGS.RF)); },
  /** a: value popped, b: operand width */
  popf: (cpu, a, b) => popf(cpu, a, width(b)),
  stac: (cpu) => setAc(cpu, true),
  clac: (cpu) => setAc(cpu, false),

  // Transfers
  /** a: operand width */
  iret: (cpu, a) => {
    const wasMasked = cpu.get(CPU.nmiMasked) !== 0;
    iret(cpu, width(a));
    return !cpu.is64 || wasMasked || cpu.eflags & (EFLAGS.TF | EFLAGS.RF) || cpu.eflags & EFLAGS.IF && cpu.get(CPU.irqPending) ? 0n : GO_ON;
  },
  /** a: vector */
  int: (cpu, a) => enter(cpu, width(a), -1, "int"),
  int3: (cpu) => enter(cpu, VECTOR.BP, -1, "int3"),
  int1: (cpu) => enter(cpu, VECTOR.DB, -1, "int1"),
  into: (cpu) => { if (getFlags(cpu) & EFLAGS.OF) enter(cpu, VECTOR.OF, -1, "int3"); },
  /** a: offset, b: selector | operand width << 16 */
  farJump: (cpu, a, b) => farJump(cpu, a, u16(b), width(b >> 16n)),
  farCall: (cpu, a, b) => farCall(cpu, a, u16(b), width(b >> 16n)),
  /** a: bytes to release, b: operand width */
  farRet: (cpu, a, b) => farRet(cpu, u16(a), width(b)),
  syscall,
  /** a: operand width, 64 for SYSRETQ */
  sysret: (cpu, a) => sysret(cpu, width(a)),
  sysenter,
  sysexit: (cpu, a) => sysexit(cpu, width(a)),

  // FS and GS bases
  swapgs: (cpu) => {
    need64(cpu); needCpl0(cpu);
    const gs = cpu.segBaseBig(GS);
    cpu.setSegBaseBig(GS, cpu.get(CPU.kernelGsBase));
    cpu.set(CPU.kernelGsBase, gs);
  },
  rdfsbase: (cpu) => { fsgsbase(cpu); return cpu.segBaseBig(FS); },
  rdgsbase: (cpu) => { fsgsbase(cpu); return cpu.segBaseBig(GS); },
  /** a: base; the caller has zero-extended a 32-bit operand */
  wrfsbase: (cpu, a) => wrBase(cpu, FS, a),
  wrgsbase: (cpu, a) => wrBase(cpu, GS, a),

  // Extended state
  xgetbv,
  xsetbv,
  fxsave: image(fxsave),
  fxrstor: image(fxrstor),
  xsave: image(xsave),
  xrstor: image(xrstor),
  xsaveopt: image(xsave),

  // Ports. size: bytes
  /** a: port, b: size; result: the value */
  in: (cpu, a, b) => BigInt(portIn(cpu, u16(a), Number(b))),
  /** a: port | size << 16, b: value */
  out: (cpu, a, b) => portOut(cpu, u16(a), Number(a >> 16n & 7n), u(b)),

  // The rest
  vmcall: hypercall,
  vmmcall: hypercall,
  /** not offered */
  monitor: () => { throw undefinedOpcode(); },
  mwait: () => { throw undefinedOpcode(); },
  /** a: bytes | operand width << 16, b: nesting level */
  enter: (cpu, a, b) => enterFrame(cpu, u16(a), width(b), width(a >> 16n)),
  /** a: linear address of the operand, aligned */
  cas16: (cpu, a) => {
    const reg = (r: number): bigint => u64(cpu.gpr(r)), want = [reg(RAX), reg(RDX)] as const, found = cpu.mmu.cas16(cpu.linear(a), want, [reg(RBX), reg(RCX)]), same = found[0] === want[0] && found[1] === want[1];
    cpu.setGpr(RAX, found[0]); cpu.setGpr(RDX, found[1]);
    setFlags(cpu, same ? EFLAGS.ZF : 0, EFLAGS.ZF);
    return GO_ON;
  },
  /** a loop has waited for another processor for long */
  pause: (cpu) => { cpu.set(CPU.pauses, PAUSES); cpu.platform.paused?.(); },
} satisfies Record<string, SysRow>;
export type SysName = keyof typeof SYS;

/** The rows' numbers: a row's place here. */
export const SYS_NAMES: readonly SysName[] = Object.keys(SYS) as SysName[];
export const sysIndex = (name: SysName): number => SYS_NAMES.indexOf(name);
const ROWS: readonly SysRow[] = SYS_NAMES.map((name) => SYS[name]);

/** Called by generated code: never throws for the guest's faults, they are recorded. */
export function callSys(cpu: Cpu, index: number, a: bigint, b: bigint): bigint {
  try {
    const r = ROWS[index]!(cpu, a, b);
    return typeof r === "bigint" ? r : 0n;
  } catch (f) {
    if (!(f instanceof GuestFault)) throw f;
    cpu.record(f);
    return 0n;
  }
}
