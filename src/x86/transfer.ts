/** Far transfers of control: JMP, CALL and RET far, IRET, SYSCALL, SYSENTER. SDM Vol. 2 under these names; Vol. 3A 5.8. They write CPU.nextRip. */
import type { Cpu } from "./cpu.ts";
import { innerStack, tssStack } from "./exceptions.ts";
import { GuestFault, NO_VECTOR } from "./fault.ts";
import { getFlags, setFlags } from "./flags.ts";
import { CONTEXT } from "./layout.ts";
import { codeDescriptor, type Descriptor, descriptor, dplOf, dropInnerSegments, gp, isCode, isConforming, isNull, isPresent, isRealStyle, nullSegment, putSegment, realSegment, selFault, stackDescriptor, SYSTEM, touch } from "./segments.ts";
import { putStackPointer, Stack } from "./stack.ts";
import { ATTR, CPU, CR0, CS, DS, EFER, EFLAGS, ES, FS, GS, RCX, RDX, RSP, SS, TR, VECTOR } from "./state.ts";
import { taskDescriptor, taskSwitch } from "./task.ts";

const R11 = 11;
const isCanonical = (n: number): boolean => n < 2 ** 47 && n >= -(2 ** 47);
/** An offset cut to the operand's width, as a signed number. */
const cut = (offset: bigint, width: number): number => width === 64 ? Number(BigInt.asIntN(64, offset)) : Number(BigInt.asUintN(width, offset));
const is64Code = (cpu: Cpu, d: { attr: number }): boolean => cpu.isLong && (d.attr & ATTR.l) !== 0;
/** #GP(0) unless `rip` can be executed from in that code segment. */
function checkTarget(cpu: Cpu, cs: Descriptor, rip: number): void {
  if (is64Code(cpu, cs) ? !isCanonical(rip) : rip > cs.limit || rip < 0) throw gp(0);
}
function enterCode(cpu: Cpu, cs: Descriptor, cpl: number, rip: number): void {
  putSegment(cpu, CS, cs, cs.sel & 0xfffc | cpl);
  cpu.setNextRip(rip);
  cpu.setMode();
}
/** JMP and CALL straight to a code segment: no change of privilege. */
function direct(cpu: Cpu, d: Descriptor): void {
  const ok = isConforming(d) ? dplOf(d) <= cpu.cpl : (d.sel & 3) <= cpu.cpl && dplOf(d) === cpu.cpl;
  if (!ok || cpu.isLong && (d.attr & (ATTR.l | ATTR.db)) === (ATTR.l | ATTR.db)) throw selFault(VECTOR.GP, d.sel);
  if (!isPresent(d)) throw selFault(VECTOR.NP, d.sel);
}
function target(cpu: Cpu, sel: number): Descriptor {
  if (isNull(sel)) throw gp(0);
  return descriptor(cpu, sel) ?? (() => { throw selFault(VECTOR.GP, sel); })();
}

// Gates ----------------------------------------------------------------------------
type CallGate = { cs: Descriptor; rip: number; size: 2 | 4 | 8; nrParams: number };
/** A call gate's target, with the checks on the gate and on what the code segment is; its privilege is the caller's. */
function callGate(cpu: Cpu, d: Descriptor): CallGate {
  const type = d.attr & (ATTR.s | ATTR.type), long = cpu.isLong;
  if (!(type === SYSTEM.callGate32 || type === SYSTEM.callGate16 && !long) || dplOf(d) < Math.max(cpu.cpl, d.sel & 3)) throw selFault(VECTOR.GP, d.sel);
  if (!isPresent(d)) throw selFault(VECTOR.NP, d.sel);
  let high = 0;
  if (long) {
    if ((d.sel & 0xfff8) + 15 > (d.sel & 4 ? cpu.segLimit(6) : cpu.get(CPU.gdtrLimit)) || cpu.mmu.load(d.at + 12, 4, CONTEXT.kernel) & 0x1f00) throw selFault(VECTOR.GP, d.sel);
    high = cpu.mmu.load(d.at + 8, 4, CONTEXT.kernel) | 0;
  }
  const cs = codeDescriptor(cpu, d.lo >>> 16);
  if (dplOf(cs) > cpu.cpl || long && !(cs.attr & ATTR.l)) throw selFault(VECTOR.GP, cs.sel);
  if (!isPresent(cs)) throw selFault(VECTOR.NP, cs.sel);
  const low = (type === SYSTEM.callGate16 ? d.lo & 0xffff : d.hi & 0xffff0000 | d.lo & 0xffff) >>> 0;
  return { cs, rip: high * 4294967296 + low, size: long ? 8 : type === SYSTEM.callGate16 ? 2 : 4, nrParams: d.hi & 31 };
}
/** A TSS or a task gate as the target; true when it was one. In long mode these are #GP. */
function toTask(cpu: Cpu, d: Descriptor, cause: "jump" | "call"): boolean {
  const type = d.attr & (ATTR.s | ATTR.type), isGate = type === SYSTEM.taskGate;
  if (cpu.isLong || !(isGate || type === SYSTEM.tss16 || type === SYSTEM.tss32)) return false;
  if (dplOf(d) < Math.max(cpu.cpl, d.sel & 3)) throw selFault(VECTOR.GP, d.sel);
  if (!isPresent(d)) throw selFault(VECTOR.NP, d.sel);
  taskSwitch(cpu, isGate ? taskDescriptor(cpu, d.lo >>> 16, VECTOR.GP) : d, cause, cpu.nextRip, getFlags(cpu));
  return true;
}

// JMP, CALL, RET ---------------------------------------------------------------------
export function farJump(cpu: Cpu, offset: bigint, sel: number, width: number): void {
  if (isRealStyle(cpu)) return jumpReal(cpu, cut(offset, width), sel);
  const d = target(cpu, sel);
  if (isCode(d)) {
    const rip = cut(offset, width);
    direct(cpu, d); checkTarget(cpu, d, rip); touch(cpu, d);
    return enterCode(cpu, d, cpu.cpl, rip);
  }
  if (toTask(cpu, d, "jump")) return;
  const { cs, rip } = callGate(cpu, d);
  if (!isConforming(cs) && dplOf(cs) !== cpu.cpl) throw selFault(VECTOR.GP, cs.sel);
  checkTarget(cpu, cs, rip); touch(cpu, cs);
  enterCode(cpu, cs, cpu.cpl, rip);
}
function jumpReal(cpu: Cpu, rip: number, sel: number): void {
  if (rip > cpu.segLimit(CS)) throw gp(0);
  realSegment(cpu, CS, sel);
  cpu.nextRip = BigInt(rip);
  cpu.setMode();
}
export function farCall(cpu: Cpu, offset: bigint, sel: number, width: number): void {
  const frame = [cpu.segSel(CS), cpu.nextRip];
  if (isRealStyle(cpu)) {
    const rip = cut(offset, width), stack = Stack.current(cpu);
    if (rip > cpu.segLimit(CS)) throw gp(0);
    stack.push(width >> 3, frame);
    jumpReal(cpu, rip, sel);
    return stack.commit();
  }
  const d = target(cpu, sel);
  if (isCode(d)) {
    const rip = cut(offset, width), stack = Stack.current(cpu);
    direct(cpu, d); checkTarget(cpu, d, rip); touch(cpu, d);
    stack.push(width >> 3, frame);
    stack.commit();
    return enterCode(cpu, d, cpu.cpl, rip);
  }
  if (toTask(cpu, d, "call")) return;
  const gate = callGate(cpu, d), { cs, rip, size } = gate;
  checkTarget(cpu, cs, rip);
  if (!isConforming(cs) && dplOf(cs) < cpu.cpl) return callInner(cpu, gate);
  const stack = Stack.current(cpu);
  touch(cpu, cs);
  stack.push(size, frame);
  stack.commit();
  enterCode(cpu, cs, cpu.cpl, rip);
}
/** CALL through a gate to a more privileged level: new stack, parameters copied. */
function callInner(cpu: Cpu, { cs, rip, size, nrParams }: CallGate): void {
  const cpl = dplOf(cs), frame = [cpu.segSel(SS), cpu.gpr(RSP), cpu.segSel(CS), cpu.nextRip];
  if (cpu.isLong) {
    const stack = new Stack(cpu, null, tssStack(cpu, cpl), cpl);
    touch(cpu, cs);
    stack.push(8, frame);
    stack.commit();
    nullSegment(cpu, SS, cpl, cpl);
    return enterCode(cpu, cs, cpl, rip);
  }
  const from = Stack.current(cpu), inner = innerStack(cpu, cpl), stack = new Stack(cpu, inner.ss, inner.sp, cpl, inner.ss.sel & 0xfffc);
  const params = Array.from({ length: nrParams }, (_, i) => from.peek(size, nrParams - 1 - i));
  touch(cpu, cs); touch(cpu, inner.ss);
  stack.push(size, [frame[0]!, frame[1]!, ...params, frame[2]!, frame[3]!].map((x) => Number(BigInt.asUintN(8 * size, BigInt(x)))));
  putSegment(cpu, SS, inner.ss);
  putStackPointer(cpu, inner.ss, stack.sp);
  enterCode(cpu, cs, cpl, rip);
}
/** `release`: bytes of parameters (RET imm16). */
export function farRet(cpu: Cpu, release: number, width: number): void {
  const size = width >> 3, stack = Stack.current(cpu), rip = stack.peek(size, 0), sel = stack.peek(size === 8 ? 4 : size, 0, size) & 0xffff;
  if (isRealStyle(cpu)) {
    jumpReal(cpu, rip, sel);
    stack.drop(2 * size + release);
    return stack.commit();
  }
  const d = returnCode(cpu, sel);
  checkTarget(cpu, d, rip);
  if ((sel & 3) === cpu.cpl) {
    touch(cpu, d);
    stack.drop(2 * size + release);
    stack.commit();
    return enterCode(cpu, d, cpu.cpl, rip);
  }
  returnOuter(cpu, d, rip, stack.peekWide(size, 2, release), stack.peek(size === 8 ? 4 : size, 0, 3 * size + release) & 0xffff, release);
}
/** The code segment RET and IRET go to: privilege by the selector's RPL. */
function returnCode(cpu: Cpu, sel: number): Descriptor {
  const d = codeDescriptor(cpu, sel), rpl = sel & 3;
  if (rpl < cpu.cpl || (isConforming(d) ? dplOf(d) > rpl : dplOf(d) !== rpl)) throw selFault(VECTOR.GP, sel);
  if (!isPresent(d)) throw selFault(VECTOR.NP, sel);
  return d;
}
/** Return to an outer privilege (or, by IRET in 64-bit mode, to any): code, stack, and data segments it may keep. */
function returnOuter(cpu: Cpu, cs: Descriptor, rip: number, sp: bigint, ssSel: number, release: number, before?: () => void): void {
  const cpl = cs.sel & 3, to64 = is64Code(cpu, cs);
  let ss: Descriptor | null = null;
  if (isNull(ssSel)) {
    if (!to64 || cpl === 3 || (ssSel & 3) !== cpl) throw gp(0);
  } else ss = stackDescriptor(cpu, ssSel, cpl, VECTOR.GP);
  touch(cpu, cs);
  if (ss) touch(cpu, ss);
  const isOuter = cpl !== cpu.cpl;
  before?.();
  if (ss) putSegment(cpu, SS, ss); else nullSegment(cpu, SS, ssSel, cpl);
  // any value may be in RSP: a number would lose bits
  if (to64) cpu.setGpr(RSP, BigInt.asUintN(64, sp + BigInt(release))); else putStackPointer(cpu, ss, Number(BigInt.asUintN(32, sp)) + release & (ss!.attr & ATTR.db ? -1 : 0xffff));
  enterCode(cpu, cs, cpl, rip);
  if (isOuter) dropInnerSegments(cpu);
}

// IRET -------------------------------------------------------------------------------
/** What IRET and POPF may change of EFLAGS at this privilege and width. IRET alone restores RF, which means something where instruction breakpoints may be met: else the one instruction that it lasts for need not be done apart. */
export function flagMask(cpu: Cpu, width: number, isIret: boolean): number {
  let m = EFLAGS.arith | EFLAGS.TF | EFLAGS.DF | EFLAGS.NT;
  if (width > 16) m |= EFLAGS.AC | EFLAGS.ID | (isIret && cpu.hasBreakpoints ? EFLAGS.RF : 0);
  if (!cpu.isProtected || cpu.cpl === 0) return m | EFLAGS.IF | EFLAGS.IOPL | (isIret && width > 16 ? EFLAGS.VIF | EFLAGS.VIP : 0);
  return cpu.cpl <= cpu.iopl ? m | EFLAGS.IF : m;
}
export function iret(cpu: Cpu, width: number): void {
  const wasMasked = cpu.get(CPU.nmiMasked);
  cpu.set(CPU.nmiMasked, 0);                           // even where it faults (SDM Vol. 3A 6.7.1)
  try { iretAs(cpu, width); } catch (f) {
    if (f instanceof GuestFault && f.vector === NO_VECTOR.awaited) cpu.set(CPU.nmiMasked, wasMasked);        // it has not begun
    throw f;
  }
}
function iretAs(cpu: Cpu, width: number): void {
  const size = width >> 3, f = cpu.eflags;
  if (cpu.isVm86 && cpu.iopl < 3) throw gp(0);
  if (isRealStyle(cpu)) return iretReal(cpu, size, width);
  if (f & EFLAGS.NT) {
    if (cpu.isLong) throw gp(0);
    const link = cpu.mmu.load(cpu.segBase(TR) >>> 0, 2, CONTEXT.kernel), tss = taskDescriptor(cpu, link, VECTOR.TS, 0, true);
    return taskSwitch(cpu, tss, "iret", cpu.nextRip, getFlags(cpu));
  }
  const stack = Stack.current(cpu), narrow = size === 8 ? 4 : size;
  const rip = stack.peek(size, 0), sel = stack.peek(narrow, 0, size) & 0xffff, flags = stack.peek(narrow, 0, 2 * size);
  if (flags & EFLAGS.VM && width === 32 && cpu.cpl === 0 && !cpu.isLong) return iretToVm86(cpu, stack, rip, sel, flags);
  const d = returnCode(cpu, sel), mask = flagMask(cpu, width, true);
  checkTarget(cpu, d, rip);
  if (cpu.is64 || (sel & 3) !== cpu.cpl)
    return returnOuter(cpu, d, rip, stack.peekWide(size, 3), stack.peek(narrow, 0, 4 * size) & 0xffff, 0, () => setFlags(cpu, flags, mask));
  touch(cpu, d);
  stack.drop(3 * size);
  stack.commit();
  setFlags(cpu, flags, mask);
  enterCode(cpu, d, cpu.cpl, rip);
}
function iretReal(cpu: Cpu, size: number, width: number): void {
  const stack = Stack.current(cpu), rip = stack.peek(size, 0), sel = stack.peek(size, 1) & 0xffff, flags = stack.peek(size, 2);
  const mask = flagMask(cpu, width, true) & (cpu.isVm86 ? ~(EFLAGS.IOPL | EFLAGS.VIF | EFLAGS.VIP) : -1);
  jumpReal(cpu, rip, sel);
  setFlags(cpu, flags, mask);
  stack.drop(3 * size);
  stack.commit();
  cpu.setMode();
}
function iretToVm86(cpu: Cpu, stack: Stack, rip: number, cs: number, flags: number): void {
  const [esp, ss, es, ds, fs, gs] = [3, 4, 5, 6, 7, 8].map((i) => stack.peek(4, i)) as [number, number, number, number, number, number];
  setFlags(cpu, flags, 0x3fffff & ~EFLAGS.fixed);
  for (const [s, sel] of [[CS, cs], [SS, ss], [ES, es], [DS, ds], [FS, fs], [GS, gs]] as const) realSegment(cpu, s, sel & 0xffff);
  cpu.setGpr32(RSP, esp);
  cpu.nextRip = BigInt(rip & 0xffff);
  cpu.setMode();
}

// SYSCALL, SYSENTER --------------------------------------------------------------------
/** Flat segments that the fast transfers load without looking at a descriptor; `l`: 64-bit code. */
function flatSegments(cpu: Cpu, cs: number, ss: number, dpl: number, l: boolean): void {
  cpu.setSeg(CS, cs, 0, 0xffffffff, (l ? 0xa9b : 0xc9b) | dpl << 5);
  cpu.setSeg(SS, ss, 0, 0xffffffff, 0xc93 | dpl << 5);
}
const high = (cpu: Cpu, at: number): number => cpu.v.u32[((cpu.at + at) >>> 2) + 1]!;
export function syscall(cpu: Cpu): void {
  if (!(cpu.efer & EFER.SCE) || !cpu.isLong) throw new GuestFault(VECTOR.UD);
  const cs = high(cpu, CPU.star.at) & 0xfffc;
  cpu.setGpr(RCX, cpu.nextRip);
  cpu.setGprNumber(R11, getFlags(cpu));
  cpu.nextRip = cpu.is64 ? cpu.get(CPU.lstar) : cpu.get(CPU.cstar);
  setFlags(cpu, 0, cpu.v.u32[(cpu.at + CPU.sfmask.at) >>> 2]! & ~EFLAGS.fixed | EFLAGS.RF | EFLAGS.VM);
  flatSegments(cpu, cs, cs + 8, 0, true);
  cpu.setMode();
}
export function sysret(cpu: Cpu, width: number): void {
  if (!(cpu.efer & EFER.SCE) || !cpu.is64) throw new GuestFault(VECTOR.UD);
  if (cpu.cpl !== 0) throw gp(0);
  const base = high(cpu, CPU.star.at) >>> 16, rip = width === 64 ? cpu.gprNumber(RCX) : cpu.gpr32(RCX);
  if (!isCanonical(rip)) throw gp(0);
  setFlags(cpu, cpu.gpr32(R11), 0x3c7fd7);
  setFlags(cpu, 0, EFLAGS.RF | EFLAGS.VM);
  flatSegments(cpu, (width === 64 ? base + 16 : base) & 0xffff | 3, base + 8 & 0xffff | 3, 3, width === 64);
  cpu.nextRip = BigInt(rip);
  cpu.setMode();
}
export function sysenter(cpu: Cpu): void {
  const cs = Number(cpu.get(CPU.sysenterCs) & 0xfffcn), long = cpu.isLong;
  if (!(cpu.cr0 & CR0.PE) || cs === 0) throw gp(0);
  setFlags(cpu, 0, EFLAGS.VM | EFLAGS.IF | EFLAGS.RF);
  flatSegments(cpu, cs, cs + 8, 0, long);
  const width = long ? 64 : 32;
  cpu.setGpr(RSP, BigInt.asUintN(width, cpu.get(CPU.sysenterEsp)));
  cpu.nextRip = BigInt.asUintN(width, cpu.get(CPU.sysenterEip));
  cpu.setMode();
}
export function sysexit(cpu: Cpu, width: number): void {
  const cs = Number(cpu.get(CPU.sysenterCs) & 0xfffcn), rip = width === 64 ? cpu.gprNumber(RDX) : cpu.gpr32(RDX), sp = width === 64 ? cpu.gprNumber(RCX) : cpu.gpr32(RCX);
  if (cs === 0 || !cpu.isProtected || cpu.cpl !== 0 || !isCanonical(rip) || !isCanonical(sp)) throw gp(0);
  const at = width === 64 ? cs + 32 : cs + 16;
  flatSegments(cpu, at & 0xffff | 3, at + 8 & 0xffff | 3, 3, width === 64);
  cpu.setGprNumber(RSP, sp);
  cpu.nextRip = BigInt(rip);
  cpu.setMode();
}
