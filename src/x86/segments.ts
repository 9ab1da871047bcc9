/** Descriptors and segment registers. SDM Vol. 3A ch. 3 and 5; Vol. 2 MOV, LLDT, LTR, LAR, LSL, VERR. */
import type { Cpu } from "./cpu.ts";
import { GuestFault } from "./fault.ts";
import { CONTEXT } from "./layout.ts";
import { ATTR, CPU, EFLAGS, GS, LDTR, SS, TR, VECTOR } from "./state.ts";

/** A segment with its hidden part, or a system descriptor; `attr` as in ATTR. */
export type Segment = { sel: number; base: number; limit: number; attr: number };
/** A descriptor as it lies in its table: its linear address and its two words. */
export type Descriptor = Segment & { at: number; lo: number; hi: number };

/** System descriptor types, SDM Vol. 3A table 3-2. */
export const SYSTEM = { tss16: 1, ldt: 2, tss16Busy: 3, callGate16: 4, taskGate: 5, interruptGate16: 6, trapGate16: 7, tss32: 9, tss32Busy: 11, callGate32: 12, interruptGate32: 14, trapGate32: 15 } as const;
/** Bits of a code or data segment's type. */
const TYPE = { accessed: 1, writable: 2, readable: 2, conforming: 4, expandDown: 4, code: 8 } as const;

export const dplOf = (d: { attr: number }): number => d.attr >>> 5 & 3;
export const typeOf = (d: { attr: number }): number => d.attr & ATTR.type;
export const isPresent = (d: { attr: number }): boolean => (d.attr & ATTR.p) !== 0;
export const isCode = (d: { attr: number }): boolean => (d.attr & (ATTR.s | TYPE.code)) === (ATTR.s | TYPE.code);
export const isConforming = (d: { attr: number }): boolean => (d.attr & TYPE.conforming) !== 0;
export const isWritableData = (d: { attr: number }): boolean => (d.attr & (ATTR.s | TYPE.code | TYPE.writable)) === (ATTR.s | TYPE.writable);
const isReadable = (d: { attr: number }): boolean => (d.attr & ATTR.s) !== 0 && (d.attr & TYPE.code ? (d.attr & TYPE.readable) !== 0 : true);
export const isNull = (sel: number): boolean => (sel & 0xfffc) === 0;

export const gp = (errorCode: number): GuestFault => new GuestFault(VECTOR.GP, errorCode);
/** A fault that names a selector: TI and index, and `ext` as bit 0. */
export const selFault = (vector: number, sel: number, ext = 0): GuestFault => new GuestFault(vector, sel & 0xfffc | ext);

export const segmentOf = (cpu: Cpu, s: number): Segment => ({ sel: cpu.segSel(s), base: cpu.segBase(s), limit: cpu.segLimit(s), attr: cpu.segAttr(s) });
export const putSegment = (cpu: Cpu, s: number, x: Segment, sel = x.sel): void => cpu.setSeg(s, sel, x.base, x.limit, x.attr);

/** The descriptor a selector names, null when it lies beyond its table. @throws GuestFault (#PF) when the table is not mapped */
export function descriptor(cpu: Cpu, sel: number): Descriptor | null {
  const index = sel & 0xfff8, local = (sel & 4) !== 0;
  if (local && cpu.segAttr(LDTR) & ATTR.unusable) return null;
  if (index + 7 > (local ? cpu.segLimit(LDTR) : cpu.get(CPU.gdtrLimit))) return null;
  const at = wrap(cpu, (local ? cpu.segBase(LDTR) : cpu.gdtrBase) + index), w = cpu.mmu.words(at, 8, CONTEXT.kernel), { u32 } = cpu.v;
  return w >= 0 ? unpack(sel, at, u32[w]!, u32[w + 1]!) : unpack(sel, at, cpu.mmu.load(at, 4, CONTEXT.kernel), cpu.mmu.load(at + 4, 4, CONTEXT.kernel));
}
function unpack(sel: number, at: number, lo: number, hi: number): Descriptor {
  const attr = hi >>> 8 & 0xff | hi >>> 12 & 0xf00, limit = lo & 0xffff | hi & 0xf0000;
  return { sel, at, lo, hi, attr, base: ((lo >>> 16 | (hi & 0xff) << 16 | hi & 0xff000000) >>> 0), limit: attr & ATTR.g ? (limit << 12 | 0xfff) >>> 0 : limit };
}
/** Outside long mode system tables wrap at 4 GiB. */
export const wrap = (cpu: Cpu, a: number): number => cpu.isLong ? a : a >>> 0;
/** The upper half of a 16-byte descriptor (long mode): bits 32-63 of its base; its type field must be zero. */
export function upperBase(cpu: Cpu, d: Descriptor, fault: GuestFault): number {
  if ((d.sel & 0xfff8) + 15 > (d.sel & 4 ? cpu.segLimit(LDTR) : cpu.get(CPU.gdtrLimit))) throw fault;
  if (cpu.mmu.load(d.at + 12, 4, CONTEXT.kernel) & 0x1f00) throw fault;
  return cpu.mmu.load(d.at + 8, 4, CONTEXT.kernel) | 0;
}
/** Set the accessed bit in the table where it is not set. */
export function touch(cpu: Cpu, d: Descriptor): void {
  if (d.attr & TYPE.accessed) return;
  cpu.mmu.store(d.at + 5, d.hi >>> 8 & 0xff | TYPE.accessed, 1, CONTEXT.kernel);
  d.attr |= TYPE.accessed;
}

/** The segment register after a load in real or virtual-8086 mode. */
export function realSegment(cpu: Cpu, s: number, sel: number): void {
  const attr = cpu.segAttr(s);
  if (cpu.isVm86) cpu.setSeg(s, sel, sel * 16, 0xffff, 0xf3);
  else if (attr & ATTR.unusable || !(attr & ATTR.p)) cpu.setSeg(s, sel, sel * 16, 0xffff, 0x93);
  else cpu.setSeg(s, sel, sel * 16, cpu.segLimit(s), attr & 0xf00 | 0x93);
}
/** Null in a data segment register: unusable; SS keeps the CPL as its DPL. */
export function nullSegment(cpu: Cpu, s: number, sel: number, dpl = 0): void { cpu.setSeg(s, sel, 0, 0, ATTR.unusable | dpl << 5); }

/** Checks for a stack segment that shall serve privilege `cpl`: `wrong` is the vector for a bad one (#GP in MOV and RET, #TS from a TSS). Null is the caller's. */
export function stackDescriptor(cpu: Cpu, sel: number, cpl: number, wrong: number, ext = 0): Descriptor {
  const d = descriptor(cpu, sel);
  if (!d || (sel & 3) !== cpl || !isWritableData(d) || dplOf(d) !== cpl) throw selFault(wrong, sel, ext);
  if (!isPresent(d)) throw selFault(VECTOR.SS, sel, ext);
  return d;
}
/** MOV to Sreg, POP Sreg, LDS and its kin: SS and data segments. @throws GuestFault before anything changed */
export function loadSegment(cpu: Cpu, s: number, sel: number): void {
  sel &= 0xffff;
  if (!cpu.isProtected || cpu.isVm86) {
    realSegment(cpu, s, sel);
    if (s === SS) cpu.setMode();
    return;
  }
  const cpl = cpu.cpl;
  if (isNull(sel)) {
    if (s === SS && !(cpu.is64 && cpl < 3 && (sel & 3) === cpl)) throw gp(0);
    nullSegment(cpu, s, sel, s === SS ? cpl : 0);
    if (s === SS) cpu.setMode();
    return;
  }
  const d = s === SS ? stackDescriptor(cpu, sel, cpl, VECTOR.GP) : dataDescriptor(cpu, sel, cpl);
  touch(cpu, d);
  putSegment(cpu, s, d);
  if (s === SS) cpu.setMode();
}
function dataDescriptor(cpu: Cpu, sel: number, cpl: number): Descriptor {
  const d = descriptor(cpu, sel);
  if (!d || !isReadable(d) || !(isCode(d) && isConforming(d)) && Math.max(sel & 3, cpl) > dplOf(d)) throw selFault(VECTOR.GP, sel);
  if (!isPresent(d)) throw selFault(VECTOR.NP, sel);
  return d;
}
/** After a return to an outer privilege: data segments it may not use become null. SDM Vol. 2 RET. */
export function dropInnerSegments(cpu: Cpu): void {
  for (let s = 0; s <= GS; s++) {
    if (s === 1 || s === SS) continue;
    const attr = cpu.segAttr(s);
    if (attr & ATTR.unusable || isCode({ attr }) && isConforming({ attr })) continue;
    if (dplOf({ attr }) < cpu.cpl) nullSegment(cpu, s, 0);
  }
}

/** The privilege rules of a code segment for JMP and CALL (`exact`: its DPL must be the CPL unless conforming). Presence is the caller's. */
export function codeDescriptor(cpu: Cpu, sel: number, ext = 0): Descriptor {
  if (isNull(sel)) throw gp(ext);
  const d = descriptor(cpu, sel);
  if (!d || !isCode(d) || cpu.isLong && (d.attr & (ATTR.l | ATTR.db)) === (ATTR.l | ATTR.db)) throw selFault(VECTOR.GP, sel, ext);
  return d;
}

// LLDT, LTR, LAR, LSL, VERR, VERW --------------------------------------------------
export function lldt(cpu: Cpu, sel: number): void {
  sel &= 0xffff;
  if (isNull(sel)) { cpu.setSeg(LDTR, sel, 0, 0, ATTR.unusable | SYSTEM.ldt); return; }
  const d = sel & 4 ? null : descriptor(cpu, sel);
  if (!d || (d.attr & (ATTR.s | ATTR.type)) !== SYSTEM.ldt) throw selFault(VECTOR.GP, sel);
  if (!isPresent(d)) throw selFault(VECTOR.NP, sel);
  putSegment(cpu, LDTR, { ...d, base: systemBase(cpu, d) });
}
export function ltr(cpu: Cpu, sel: number): void {
  sel &= 0xffff;
  if (isNull(sel)) throw gp(0);
  const d = sel & 4 ? null : descriptor(cpu, sel), type = d ? d.attr & (ATTR.s | ATTR.type) : 0;
  if (!d || !(type === SYSTEM.tss32 || type === SYSTEM.tss16 && !cpu.isLong)) throw selFault(VECTOR.GP, sel);
  if (!isPresent(d)) throw selFault(VECTOR.NP, sel);
  const base = systemBase(cpu, d);
  cpu.mmu.store(d.at + 4, d.hi | 0x200, 4, CONTEXT.kernel);
  putSegment(cpu, TR, { ...d, base, attr: d.attr | 2 });
}
function systemBase(cpu: Cpu, d: Descriptor): number {
  if (!cpu.isLong) return d.base;
  const base = upperBase(cpu, d, selFault(VECTOR.GP, d.sel)) * 4294967296 + d.base;
  if (base >= 2 ** 47 || base < -(2 ** 47)) throw selFault(VECTOR.GP, d.sel);
  return base;
}
const LAR_TYPES = 1 << SYSTEM.tss16 | 1 << SYSTEM.ldt | 1 << SYSTEM.tss16Busy | 1 << SYSTEM.callGate16 | 1 << SYSTEM.taskGate | 1 << SYSTEM.tss32 | 1 << SYSTEM.tss32Busy | 1 << SYSTEM.callGate32;
const LSL_TYPES = 1 << SYSTEM.tss16 | 1 << SYSTEM.ldt | 1 << SYSTEM.tss16Busy | 1 << SYSTEM.tss32 | 1 << SYSTEM.tss32Busy;
const LONG_TYPES = 1 << SYSTEM.ldt | 1 << SYSTEM.tss32 | 1 << SYSTEM.tss32Busy | 1 << SYSTEM.callGate32;
/** The descriptor if `sel` may be inspected at the present privilege and its system type is among `types`. */
function inspected(cpu: Cpu, sel: number, types: number): Descriptor | null {
  sel &= 0xffff;
  const d = isNull(sel) ? null : descriptor(cpu, sel);
  if (!d) return null;
  if (!(d.attr & ATTR.s) && !((cpu.isLong ? types & LONG_TYPES : types) >>> typeOf(d) & 1)) return null;
  return isCode(d) && isConforming(d) || Math.max(sel & 3, cpu.cpl) <= dplOf(d) ? d : null;
}
/** LAR's result, or -1 when ZF shall be clear. */
export const lar = (cpu: Cpu, sel: number): number => { const d = inspected(cpu, sel, LAR_TYPES); return d ? (d.hi & 0xf0ff00) >>> 0 : -1; };
export const lsl = (cpu: Cpu, sel: number): number => inspected(cpu, sel, LSL_TYPES)?.limit ?? -1;
export const verr = (cpu: Cpu, sel: number): boolean => { const d = inspected(cpu, sel, 0); return d !== null && isReadable(d); };
export const verw = (cpu: Cpu, sel: number): boolean => { const d = inspected(cpu, sel, 0); return d !== null && isWritableData(d); };

// Segmented accesses of helpers ----------------------------------------------------
/** Linear address of `size` bytes at `offset` of a segment outside 64-bit mode. @throws `fault` beyond the limit */
export function inSegment(x: Segment, offset: number, size: number, fault: GuestFault): number {
  if (x.attr & ATTR.unusable) throw fault;
  const down = (x.attr & (TYPE.code | TYPE.expandDown)) === TYPE.expandDown && (x.attr & ATTR.s) !== 0, last = offset + size - 1;
  if (down ? offset <= x.limit || last > (x.attr & ATTR.db ? 0xffffffff : 0xffff) : last > x.limit) throw fault;
  return (x.base + offset) >>> 0;
}
/** EFLAGS.VM and real mode share their segment arithmetic. */
export const isRealStyle = (cpu: Cpu): boolean => !cpu.isProtected || (cpu.eflags & EFLAGS.VM) !== 0;
