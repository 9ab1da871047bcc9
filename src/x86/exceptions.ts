/**
 * Interrupts and exceptions: from a vector to the first instruction of its handler. SDM Vol. 3A ch. 6, and Vol. 2 "INT n".
 * An attempt checks everything and writes the whole frame before it changes a register; a fault on the way is turned into the next vector
 * by the rules of table 6-5, up to the triple fault.
 */
import type { Cpu } from "./cpu.ts";
import { GuestFault } from "./fault.ts";
import { getFlags, setFlags } from "./flags.ts";
import { CONTEXT } from "./layout.ts";
import { codeDescriptor, type Descriptor, dplOf, gp, isConforming, isNull, isPresent, nullSegment, putSegment, realSegment, selFault, stackDescriptor, SYSTEM, touch, wrap } from "./segments.ts";
import { putStackPointer, Stack } from "./stack.ts";
import { ATTR, CPU, CS, DS, EFLAGS, ES, EXIT, FS, GS, gprAt, RSP, SS, TR, VECTOR } from "./state.ts";
import { taskDescriptor, taskSwitch } from "./task.ts";

/** Why a vector is raised. `int`: INT n; `int3` also stands for INTO; `int1` is the instruction (privileged like an exception). */
export type Cause = "exception" | "external" | "int" | "int3" | "int1";

const CONTRIBUTORY: readonly number[] = [VECTOR.DE, VECTOR.TS, VECTOR.NP, VECTOR.SS, VECTOR.GP];
/** Exceptions whose frame points behind the instruction, or whose saved RF the debugger's rules decide. */
const NOT_FAULTS: readonly number[] = [VECTOR.DB, VECTOR.NMI, VECTOR.BP, VECTOR.OF, VECTOR.DF, VECTOR.MC];

/** The vector that follows when delivering `first` met `second`: table 6-5; null: shutdown. */
export function combine(first: number, second: GuestFault): GuestFault | null {
  if (first === VECTOR.DF && (CONTRIBUTORY.includes(second.vector) || second.vector === VECTOR.PF)) return null;
  const double = CONTRIBUTORY.includes(first) ? CONTRIBUTORY.includes(second.vector)
    : first === VECTOR.PF && (second.vector === VECTOR.PF || CONTRIBUTORY.includes(second.vector));
  return double ? new GuestFault(VECTOR.DF, 0) : second;
}

/**
 * Deliver an exception or interrupt, whatever it takes; CPU.rip and CPU.nextRip are the handler's afterwards. A triple fault sets CPU.exit instead.
 * The frame's return address is CPU.rip, and CPU.nextRip for the software causes.
 * @param errorCode -1 for none
 */
export function deliver(cpu: Cpu, vector: number, errorCode: number, cause: Cause): void {
  for (;;) {
    try {
      cpu.mmu.waiting(() => enter(cpu, vector, errorCode, cause));       // an interrupt has been taken off its queue
      return;
    } catch (f) {
      if (!(f instanceof GuestFault)) throw f;
      const next = combine(cause === "exception" ? vector : -1, f);
      if (!next) { cpu.exit = EXIT.tripleFault; return; }
      vector = next.vector; errorCode = next.errorCode; cause = "exception";
    }
  }
}

/** One attempt. @throws GuestFault with nothing changed (but after a task switch: then rip is in the new task) */
export function enter(cpu: Cpu, vector: number, errorCode: number, cause: Cause): void {
  const rip = cause === "exception" || cause === "external" ? CPU.rip : CPU.nextRip;
  if (!cpu.isProtected) enterReal(cpu, vector, cpu.get(rip));
  else if (cpu.isLong) enterLong(cpu, vector, errorCode, cause, rip.at);
  else enterProtected(cpu, vector, errorCode, cause, cpu.get(rip));
}
function go(cpu: Cpu, rip: number): void { cpu.goTo(rip); cpu.set(CPU.halted, 0); }
/** EFLAGS for the frame: faults are resumed with RF set. */
const savedFlags = (cpu: Cpu, vector: number, cause: Cause): number => getFlags(cpu) | (cause === "exception" && !NOT_FAULTS.includes(vector) ? EFLAGS.RF : 0);
const CLEARED = EFLAGS.TF | EFLAGS.NT | EFLAGS.RF | EFLAGS.VM;

function enterReal(cpu: Cpu, vector: number, rip: bigint): void {
  if (vector * 4 + 3 > cpu.get(CPU.idtrLimit)) throw gp(vector * 8 + 2);
  const entry = cpu.read32(wrap(cpu, Number(cpu.get(CPU.idtrBase)) + vector * 4)), stack = Stack.current(cpu);
  stack.push(2, [getFlags(cpu) & 0xffff, cpu.segSel(CS), Number(rip & 0xffffn)]);
  stack.commit();
  setFlags(cpu, 0, EFLAGS.IF | EFLAGS.TF | EFLAGS.AC | EFLAGS.RF);
  realSegment(cpu, CS, entry >>> 16);
  cpu.setMode();
  go(cpu, entry & 0xffff);
}

type Gate = { type: number; dpl: number; sel: number; offset: number; offsetHigh: number; ist: number };
/** Read and check the IDT's gate. */
function readGate(cpu: Cpu, vector: number, cause: Cause, ext: number): Gate {
  const long = cpu.isLong, size = long ? 16 : 8, named = vector * 8 + 2 + ext;
  if (vector * size + size - 1 > cpu.get(CPU.idtrLimit)) throw gp(named);
  const at = wrap(cpu, cpu.idtrBase + vector * size), w = cpu.mmu.words(at, size, CONTEXT.kernel), word = (i: number): number => (w >= 0 ? cpu.v.u32[w + i]! : cpu.mmu.load(at + i * 4, 4, CONTEXT.kernel));
  const lo = word(0), hi = word(1), type = hi >>> 8 & 0x1f, dpl = hi >>> 13 & 3;
  const isGate = type === SYSTEM.interruptGate32 || type === SYSTEM.trapGate32 || !long && (type === SYSTEM.taskGate || type === SYSTEM.interruptGate16 || type === SYSTEM.trapGate16);
  if (!isGate || (cause === "int" || cause === "int3") && dpl < cpu.cpl) throw gp(named);
  if (!(hi & 0x8000)) throw new GuestFault(VECTOR.NP, named);
  return { type, dpl, sel: lo >>> 16, offset: ((hi & 0xffff0000 | lo & 0xffff) >>> 0), offsetHigh: long ? word(2) | 0 : 0, ist: long ? hi & 7 : 0 };
}
/** The handler's code segment, and whether it runs at the present privilege. */
function handlerSegment(cpu: Cpu, gate: Gate, ext: number): Descriptor {
  const cs = codeDescriptor(cpu, gate.sel, ext);
  if (cpu.isLong && !(cs.attr & ATTR.l)) throw selFault(VECTOR.GP, gate.sel, ext);
  if (dplOf(cs) > cpu.cpl) throw selFault(VECTOR.GP, gate.sel, ext);
  if (!isPresent(cs)) throw selFault(VECTOR.NP, gate.sel, ext);
  return cs;
}
const extOf = (cause: Cause): number => cause === "int" || cause === "int3" ? 0 : 1;

/** A stack pointer of the 64-bit TSS: RSP0-2 are slots 0-2, IST1-7 slots 4-10. */
export function tssStack(cpu: Cpu, slot: number, ext = 0): number {
  const at = 4 + slot * 8;
  if (at + 7 > cpu.segLimit(TR)) throw selFault(VECTOR.TS, cpu.segSel(TR), ext);
  const sp = cpu.mmu.loadNumber(cpu.segBase(TR) + at, CONTEXT.kernel);
  if (sp >= 2 ** 47 || sp < -(2 ** 47)) throw new GuestFault(VECTOR.SS, ext);
  return sp;
}

/** A frame of 64-bit mode as it lies in memory: error code, RIP, CS, RFLAGS, RSP, SS, two words each. */
const frame = new Int32Array(12);
/** @param rip offset in the CPU struct of the address to return to */
function enterLong(cpu: Cpu, vector: number, errorCode: number, cause: Cause, rip: number): void {
  const ext = extOf(cause), gate = readGate(cpu, vector, cause, ext), cs = handlerSegment(cpu, gate, ext);
  const cpl = isConforming(cs) ? cpu.cpl : dplOf(cs), isInner = cpl < cpu.cpl;
  let sp = gate.ist ? tssStack(cpu, 3 + gate.ist, ext) : isInner ? tssStack(cpu, cpl, ext) : cpu.gprNumber(RSP);
  sp -= sp & 15;
  const { i32 } = cpu.v, ripAt = (cpu.at + rip) >>> 2, rspAt = (cpu.at + gprAt(RSP)) >>> 2;
  frame[0] = errorCode; frame[2] = i32[ripAt]!; frame[3] = i32[ripAt + 1]!; frame[4] = cpu.segSel(CS); frame[6] = savedFlags(cpu, vector, cause); frame[8] = i32[rspAt]!; frame[9] = i32[rspAt + 1]!; frame[10] = cpu.segSel(SS);
  const handler = gate.offsetHigh * 4294967296 + gate.offset;
  if (handler >= 2 ** 47 || handler < -(2 ** 47)) throw gp(ext);
  const stack = new Stack(cpu, null, sp, cpl, ext);
  touch(cpu, cs);
  stack.pushWords(frame, errorCode >= 0 ? 0 : 2);
  stack.commit();
  if (isInner) nullSegment(cpu, SS, cpl, cpl);
  putSegment(cpu, CS, cs, gate.sel & 0xfffc | cpl);
  setFlags(cpu, 0, CLEARED | (gate.type === SYSTEM.interruptGate32 ? EFLAGS.IF : 0));
  cpu.setMode();
  go(cpu, handler);
}

/** SS:SP of privilege `cpl` in the TSS in use, checked. SDM Vol. 2 INT "inter-privilege-level". */
export function innerStack(cpu: Cpu, cpl: number, ext = 0): { ss: Descriptor; sp: number } {
  const wide = (cpu.segAttr(TR) & 8) !== 0, at = wide ? 4 + cpl * 8 : 2 + cpl * 4, base = cpu.segBase(TR);
  if (cpu.segAttr(TR) & ATTR.unusable || at + (wide ? 7 : 3) > cpu.segLimit(TR)) throw selFault(VECTOR.TS, cpu.segSel(TR), ext);
  const sp = cpu.mmu.load((base + at) >>> 0, wide ? 4 : 2, CONTEXT.kernel), sel = cpu.mmu.load((base + at + (wide ? 4 : 2)) >>> 0, 2, CONTEXT.kernel);
  if (isNull(sel)) throw new GuestFault(VECTOR.TS, ext);
  return { ss: stackDescriptor(cpu, sel, cpl, VECTOR.TS, ext), sp };
}

function enterProtected(cpu: Cpu, vector: number, errorCode: number, cause: Cause, rip: bigint): void {
  const ext = extOf(cause), isVm86 = cpu.isVm86;
  if (isVm86 && cause === "int" && cpu.iopl < 3) throw gp(0);
  const gate = readGate(cpu, vector, cause, ext);
  if (gate.type === SYSTEM.taskGate) return enterTask(cpu, gate, vector, errorCode, cause, ext, rip);
  const cs = handlerSegment(cpu, gate, ext), cpl = isConforming(cs) ? cpu.cpl : dplOf(cs), size = gate.type & 8 ? 4 : 2;
  if (isVm86 && cpl !== 0) throw selFault(VECTOR.GP, gate.sel, ext);
  if (gate.offset > cs.limit) throw gp(ext);
  const frame: (number | bigint)[] = [savedFlags(cpu, vector, cause), cpu.segSel(CS), rip];
  if (errorCode >= 0) frame.push(errorCode);
  let stack: Stack;
  if (cpl < cpu.cpl) {
    const inner = innerStack(cpu, cpl, ext);
    frame.unshift(cpu.segSel(SS), cpu.gpr32(RSP));
    if (isVm86) frame.unshift(cpu.segSel(GS), cpu.segSel(FS), cpu.segSel(DS), cpu.segSel(ES));
    stack = new Stack(cpu, inner.ss, inner.sp, cpl, inner.ss.sel & 0xfffc | ext);
    touch(cpu, cs); touch(cpu, inner.ss);
    stack.push(size, frame.map(cut(size)));
    putSegment(cpu, SS, inner.ss);
    putStackPointer(cpu, inner.ss, stack.sp);
    if (isVm86) for (const s of [ES, DS, FS, GS]) nullSegment(cpu, s, 0);
  } else {
    stack = Stack.current(cpu, ext);
    touch(cpu, cs);
    stack.push(size, frame.map(cut(size)));
    stack.commit();
  }
  putSegment(cpu, CS, cs, gate.sel & 0xfffc | cpl);
  setFlags(cpu, 0, CLEARED | (gate.type & 1 ? 0 : EFLAGS.IF));
  cpu.setMode();
  go(cpu, size === 2 ? gate.offset & 0xffff : gate.offset);
}
const cut = (size: number) => (x: number | bigint): number => size === 2 ? Number(x) & 0xffff : Number(BigInt.asUintN(32, BigInt(x)));

/** Through a task gate; the error code goes onto the new task's stack. */
function enterTask(cpu: Cpu, gate: Gate, vector: number, errorCode: number, cause: Cause, ext: number, rip: bigint): void {
  const tss = taskDescriptor(cpu, gate.sel, VECTOR.GP, ext);
  taskSwitch(cpu, tss, "interrupt", rip, savedFlags(cpu, vector, cause));
  if (errorCode < 0) return;
  const stack = Stack.current(cpu, ext);
  stack.push(tss.attr & 8 ? 4 : 2, [errorCode]);
  stack.commit();
}
/** Linear address of a byte range of the TSS, or null when it lies beyond the limit. */
export const inTss = (cpu: Cpu, offset: number, size: number): number | null =>
  offset + size - 1 > cpu.segLimit(TR) || cpu.segAttr(TR) & ATTR.unusable ? null : wrap(cpu, cpu.segBase(TR) + offset);
