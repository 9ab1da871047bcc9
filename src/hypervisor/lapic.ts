/**
 * The local APIC of a vCPU: xAPIC page and x2APIC MSRs over one register array. SDM Vol. 3A ch. 10 (11 in newer prints).
 * Register i of the array is the xAPIC register at offset i << 4 and the x2APIC MSR 0x800 + i. Other threads touch IRR only, by Atomics.
 */
import { bytes, f64, struct, u64 } from "../base/struct.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { startupContext } from "./context.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { VCPU, VPF } from "./objects.ts";
import type { Vcpu } from "./vcpu.ts";

/** Register numbers: xAPIC offset >>> 4. */
export const APIC = {
  ID: 0x02, VERSION: 0x03, TPR: 0x08, APR: 0x09, PPR: 0x0a, EOI: 0x0b, RRD: 0x0c, LDR: 0x0d, DFR: 0x0e, SVR: 0x0f, ISR: 0x10, TMR: 0x18, IRR: 0x20,
  ESR: 0x28, LVT_CMCI: 0x2f, ICR: 0x30, ICR2: 0x31, LVT_TIMER: 0x32, LVT_THERMAL: 0x33, LVT_PC: 0x34, LVT_LINT0: 0x35, LVT_LINT1: 0x36, LVT_ERROR: 0x37,
  TMICT: 0x38, TMCCT: 0x39, TDCR: 0x3e, SELF_IPI: 0x3f,
} as const;
/** IA32_APIC_BASE, SDM Vol. 3A 10.4.4. */
export const APIC_BASE = { BSP: 0x100, EXTD: 0x400, EN: 0x800 } as const;
/** Guest-physical address of the xAPIC page, first x2APIC MSR, IA32_TSC_DEADLINE. */
export const APIC_PAGE = 0xfee00000, X2APIC_MSRS = 0x800, MSR_TSC_DEADLINE = 0x6e0;
const SVR_ENABLE = 0x100, LVT_MASKED = 0x10000, VERSION = 0x50014;
/** The timer counts at 100 MHz before its divider. */
export const BUS_CYCLE_NS = 10;
/** Of the LVT timer entry. */
export const TIMER_MODE = { mask: 0x60000, oneshot: 0, periodic: 0x20000, deadline: 0x40000 } as const;
/** Writable bits of each local vector table entry. */
const LVT_BITS: Readonly<Record<number, number>> = {
  [APIC.LVT_TIMER]: 0x710ff, [APIC.LVT_THERMAL]: 0x117ff, [APIC.LVT_PC]: 0x117ff, [APIC.LVT_LINT0]: 0x1b7ff, [APIC.LVT_LINT1]: 0x1b7ff, [APIC.LVT_ERROR]: 0x110ff,
};
/** VCPU.lapic */
export const LAPIC = struct(0x140, { regs: bytes(0, 64 * 4), tscDeadline: u64(0x100), timerStart: f64(0x108), timerPeriod: f64(0x110), lastTimer: f64(0x118) });

/** A vCPU's APIC id, as libxl's MADT and Xen have it. */
export const apicId = (vcpuId: number): number => vcpuId * 2;

/** State after RESET, SDM Vol. 3A 10.4.7.1. */
export function lapicReset(hv: Hypervisor, vcpuAt: number, id: number): void {
  const at = vcpuAt + VCPU.lapic.at, { u8, u32 } = hv.views;
  u8.fill(0, at, at + LAPIC.sizeof);
  const r = at >>> 2;
  u32[r + APIC.ID] = apicId(id) << 24;
  u32[r + APIC.VERSION] = VERSION;
  u32[r + APIC.DFR] = 0xffffffff;
  u32[r + APIC.SVR] = 0xff;
  for (const lvt of Object.keys(LVT_BITS)) u32[r + Number(lvt)] = LVT_MASKED;
}

const regs = (v: Vcpu): number => (v.at + VCPU.lapic.at) >>> 2;
const get = (v: Vcpu, i: number): number => v.hv.views.u32[regs(v) + i] as number;
const set = (v: Vcpu, i: number, x: number): void => { v.hv.views.u32[regs(v) + i] = x; };
/** Highest set bit of a 256-bit register, or -1. Looked at in each turn of the run loop, so by plain loads: whoever sets a bit kicks afterwards. */
function highest(v: Vcpu, first: number): number {
  const { u32 } = v.hv.views, r = regs(v) + first;
  for (let i = 7; i >= 0; i--) {
    const bits = u32[r + i]!;
    if (bits !== 0) return i * 32 + 31 - Math.clz32(bits);
  }
  return -1;
}
const setBit = (v: Vcpu, first: number, vector: number): void => { Atomics.or(v.hv.views.u32, regs(v) + first + (vector >>> 5), 1 << (vector & 31)); };
const clearBit = (v: Vcpu, first: number, vector: number): void => { Atomics.and(v.hv.views.u32, regs(v) + first + (vector >>> 5), ~(1 << (vector & 31))); };

/** Request an edge-triggered interrupt, from any thread, and see that the vCPU notices. Vectors below 16 are illegal: ignored. */
export function lapicSetIrq(v: Vcpu, vector: number): void {
  if (vector < 16 || vector > 255) return;
  clearBit(v, APIC.TMR, vector);
  setBit(v, APIC.IRR, vector);
  v.kick();
}
function ppr(v: Vcpu): number {
  const tpr = get(v, APIC.TPR) & 0xff, isr = Math.max(0, highest(v, APIC.ISR));
  return (tpr & 0xf0) >= (isr & 0xf0) ? tpr : isr & 0xf0;
}
/** The vector to deliver now, or -1. @param apicBase the MSR's present value */
export function lapicPending(v: Vcpu, apicBase: number): number {
  const vector = highest(v, APIC.IRR);
  if (vector < 0 || !(get(v, APIC.SVR) & SVR_ENABLE) || !(apicBase & APIC_BASE.EN)) return -1;
  return (vector & 0xf0) > (ppr(v) & 0xf0) ? vector : -1;
}
/** The processor takes the vector: IRR to ISR. */
export function lapicAcknowledge(v: Vcpu, vector: number): void {
  clearBit(v, APIC.IRR, vector);
  setBit(v, APIC.ISR, vector);
}
/** Task priority, eight bits. */
export const lapicTpr = (v: Vcpu): number => get(v, APIC.TPR) & 0xff;
/** Set the task priority, from CR8 for one. */
export const setLapicTpr = (v: Vcpu, tpr: number): void => set(v, APIC.TPR, tpr & 0xff);

// Timer ------------------------------------------------------------------------
/** What the divide configuration register divides by. */
export const divider = (tdcr: number): number => { const n = (tdcr & 3) | (tdcr & 8) >>> 1; return n === 7 ? 1 : 2 << n; };
const isDeadlineMode = (v: Vcpu): boolean => (get(v, APIC.LVT_TIMER) & TIMER_MODE.mask) === TIMER_MODE.deadline;
function startTimer(v: Vcpu, initial: number): void {
  const now = v.hv.clock.now(), period = initial * BUS_CYCLE_NS * divider(get(v, APIC.TDCR)), at = v.at + VCPU.lapic.at;
  v.hv.set(LAPIC.timerStart, at, now);
  v.hv.set(LAPIC.timerPeriod, at, period);
  v.setDeadline("lapicDeadline", initial === 0 ? 0 : now + period);
}
function currentCount(v: Vcpu): number {
  if (isDeadlineMode(v)) return 0;
  const at = v.at + VCPU.lapic.at, left = v.deadline("lapicDeadline") - v.hv.clock.now(), period = v.hv.get(LAPIC.timerPeriod, at);
  if (period === 0 || v.deadline("lapicDeadline") === 0) return 0;
  const isPeriodic = (get(v, APIC.LVT_TIMER) & TIMER_MODE.mask) === TIMER_MODE.periodic;
  const remains = left > 0 ? left : isPeriodic ? period - (-left % period) : 0;
  return Math.floor(remains / (BUS_CYCLE_NS * divider(get(v, APIC.TDCR)))) >>> 0;
}
/** Its deadline passed: called on any pCPU. */
export function lapicTimerFired(v: Vcpu): void {
  const lvt = get(v, APIC.LVT_TIMER), at = v.at + VCPU.lapic.at;
  if ((lvt & TIMER_MODE.mask) === TIMER_MODE.periodic) {
    const period = Math.max(10_000, v.hv.get(LAPIC.timerPeriod, at));
    v.setDeadline("lapicDeadline", v.hv.clock.now() + period);
  } else if (isDeadlineMode(v)) v.hv.set(LAPIC.tscDeadline, at, 0n);
  if (!(lvt & LVT_MASKED)) lapicSetIrq(v, lvt & 0xff);
}
/** Read MSR TSC_DEADLINE. */
export const tscDeadline = (v: Vcpu): bigint => (isDeadlineMode(v) ? v.hv.get(LAPIC.tscDeadline, v.at + VCPU.lapic.at) : 0n);
/** Write MSR TSC_DEADLINE. @param adjust the vCPU's TSC_ADJUST */
export function setTscDeadline(v: Vcpu, tsc: bigint, adjust: bigint): void {
  if (!isDeadlineMode(v)) return;
  v.hv.set(LAPIC.tscDeadline, v.at + VCPU.lapic.at, tsc);
  v.setDeadline("lapicDeadline", tsc === 0n ? 0 : Math.max(1, Number(BigInt.asUintN(64, tsc - adjust))));
}

// Registers --------------------------------------------------------------------
export function lapicRead(v: Vcpu, i: number, isX2: boolean): number {
  switch (i) {
    case APIC.ID: return isX2 ? apicId(v.id) : get(v, i);
    case APIC.LDR: return isX2 ? x2Ldr(v.id) : get(v, i);
    case APIC.PPR: return ppr(v);
    case APIC.TMCCT: return currentCount(v);
    default: return get(v, i);
  }
}
const x2Ldr = (id: number): number => ((apicId(id) >>> 4) << 16 | 1 << (apicId(id) & 15)) >>> 0;

/** Write a register as both interfaces do. */
export function lapicWrite(v: Vcpu, i: number, value: number): void {
  switch (i) {
    case APIC.ID: set(v, i, value & 0xff000000); break;
    case APIC.TPR: set(v, i, value & 0xff); break;
    case APIC.EOI: {
      const vector = highest(v, APIC.ISR);
      if (vector >= 0) clearBit(v, APIC.ISR, vector);
      break;
    }
    case APIC.LDR: set(v, i, value & 0xff000000); break;
    case APIC.DFR: set(v, i, value | 0x0fffffff); break;
    case APIC.SVR:
      set(v, i, value & 0x3ff);
      if (!(value & SVR_ENABLE)) for (const lvt of Object.keys(LVT_BITS)) set(v, Number(lvt), get(v, Number(lvt)) | LVT_MASKED);
      break;
    case APIC.ESR: set(v, i, 0); break;
    case APIC.ICR:
      set(v, i, value & ~0x1000);
      sendIpi(v, value, get(v, APIC.ICR2) >>> 24, false);
      break;
    case APIC.ICR2: set(v, i, value & 0xff000000); break;
    case APIC.TMICT:
      if (isDeadlineMode(v)) break;
      set(v, i, value);
      startTimer(v, value);
      break;
    case APIC.TDCR: set(v, i, value & 0xb); break;
    case APIC.LVT_TIMER: {
      const was = get(v, i) & TIMER_MODE.mask, bits = maskLvt(v, i, value);
      set(v, i, bits);
      if (((was ^ bits) & TIMER_MODE.mask) !== 0 && (was === TIMER_MODE.deadline || (bits & TIMER_MODE.mask) === TIMER_MODE.deadline)) {
        v.setDeadline("lapicDeadline", 0);
        v.hv.set(LAPIC.tscDeadline, v.at + VCPU.lapic.at, 0n);
        set(v, APIC.TMICT, 0);
      }
      break;
    }
    default: if (LVT_BITS[i] !== undefined) set(v, i, maskLvt(v, i, value));
  }
}
const maskLvt = (v: Vcpu, i: number, value: number): number => (value & (LVT_BITS[i] as number)) | (get(v, APIC.SVR) & SVR_ENABLE ? 0 : LVT_MASKED);

/** An xAPIC access; registers are 32 bits wide at multiples of 16, anything else reads 0. */
export function lapicMmioRead(v: Vcpu, offset: number, size: number): number {
  const value = offset < 0x400 ? lapicRead(v, offset >>> 4, false) : 0, shift = (offset & 15) * 8;
  if (shift >= 32) return 0;
  const part = value >>> shift;
  return size >= 4 ? part : size === 2 ? part & 0xffff : part & 0xff;
}
/** An xAPIC write. */
export function lapicMmioWrite(v: Vcpu, offset: number, size: number, value: number): void {
  if (offset < 0x400 && (offset & 15) === 0 && size >= 4) lapicWrite(v, offset >>> 4, value >>> 0);
}
const X2_READABLE = new Set<number>([APIC.ID, APIC.VERSION, APIC.TPR, APIC.PPR, APIC.LDR, APIC.SVR, APIC.ESR, APIC.ICR, APIC.TMICT, APIC.TMCCT, APIC.TDCR,
  ...[0, 1, 2, 3, 4, 5, 6, 7].flatMap((i) => [APIC.ISR + i, APIC.TMR + i, APIC.IRR + i]), ...Object.keys(LVT_BITS).map(Number)]);
const X2_WRITABLE = new Set<number>([APIC.TPR, APIC.EOI, APIC.SVR, APIC.ESR, APIC.TMICT, APIC.TDCR, ...Object.keys(LVT_BITS).map(Number)]);
/** An x2APIC MSR. @returns null / false where the MSR does not exist or a reserved bit is set: #GP */
export function x2apicRead(v: Vcpu, i: number): bigint | null {
  if (!X2_READABLE.has(i)) return null;
  const low = BigInt(lapicRead(v, i, true) >>> 0);
  return i === APIC.ICR ? BigInt(get(v, APIC.ICR2)) << 32n | low : low;
}
/** WRMSR of an x2APIC register; false: #GP. */
export function x2apicWrite(v: Vcpu, i: number, value: bigint): boolean {
  const low = Number(value & 0xffffffffn), high = Number(value >> 32n);
  if (i === APIC.ICR) {
    set(v, APIC.ICR, low & ~0x1000);
    set(v, APIC.ICR2, high);
    sendIpi(v, low, high, true);
    return true;
  }
  if (high !== 0) return false;
  if (i === APIC.SELF_IPI) {
    if (low > 255) return false;
    lapicSetIrq(v, low);
    return true;
  }
  if (!X2_WRITABLE.has(i) || ((i === APIC.EOI || i === APIC.ESR) && low !== 0)) return false;
  lapicWrite(v, i, low);
  return true;
}

// Interprocessor interrupts ----------------------------------------------------
/** ICR's level and trigger mode of an INIT's end, which processors ignore: level-triggered and not asserted. SDM Vol. 3A 10.6.1 */
const DEASSERT = { mask: 0xc000, value: 0x8000 } as const;
const DELIVERY = { fixed: 0, lowest: 1, nmi: 4, init: 5, startup: 6 } as const;
function sendIpi(from: Vcpu, icr: number, dest: number, isX2: boolean): void {
  const vector = icr & 0xff, mode = icr >>> 8 & 7, shorthand = icr >>> 18 & 3;
  if (from.hv.trace.on & TRACE_CLASS.interrupt) from.hv.trace.emit(TRACE.interrupt, from.domain.domid, from.id, vector, icr, dest);
  for (const v of from.domain.vcpus()) {
    const hit = shorthand === 1 ? v === from : shorthand === 2 ? true : shorthand === 3 ? v !== from : addressed(v, dest, (icr & 0x800) !== 0, isX2);
    if (!hit) continue;
    if (mode === DELIVERY.fixed || mode === DELIVERY.lowest) lapicSetIrq(v, vector);
    else if (mode === DELIVERY.nmi) v.sendNmi();
    else if (mode === DELIVERY.init && v !== from && (icr & DEASSERT.mask) !== DEASSERT.value) v.hv.scheduler.putDown(v);
    else if (mode === DELIVERY.startup && !v.isUp) {
      v.hv.store(VCPU.startup, v.at, 1 + vector);
      lapicStart(v);
    }
    if (mode === DELIVERY.lowest) break;
  }
}
/** Let a vCPU begin that waits for it (INIT) and has got a SIPI, once it has left its pCPU. Called when either comes. */
export function lapicStart(v: Vcpu): void {
  if (v.onPcpu >= 0) return;
  const startup = Atomics.exchange(v.hv.views.i32, (v.at + VCPU.startup.at) >>> 2, 0);
  if (startup === 0 || v.isUp) return;
  v.setDeadline("lapicDeadline", 0);
  v.hv.store(VCPU.nmiPending, v.at, 0);
  lapicReset(v.hv, v.at, v.id);
  v.setContext((dv, at) => startupContext(dv, at, startup - 1));
}
function addressed(v: Vcpu, dest: number, isLogical: boolean, isX2: boolean): boolean {
  if (!isLogical) return dest === apicId(v.id) || dest === (isX2 ? 0xffffffff : 0xff);
  if (isX2) { const ldr = x2Ldr(v.id); return ldr >>> 16 === dest >>> 16 && (ldr & dest & 0xffff) !== 0; }
  const ldr = get(v, APIC.LDR) >>> 24;
  if (get(v, APIC.DFR) >>> 28 === 0xf) return (ldr & dest) !== 0;
  return ldr >>> 4 === dest >>> 4 && (ldr & dest & 15) !== 0;
}
/** Is the APIC in x2APIC mode by this value of IA32_APIC_BASE? */
export const isX2apic = (apicBase: number): boolean => (apicBase & (APIC_BASE.EN | APIC_BASE.EXTD)) === (APIC_BASE.EN | APIC_BASE.EXTD);
