/** A local APIC as a record, and back: public/arch-x86/hvm/save.h hvm_hw_lapic, hvm_hw_lapic_regs. */
import { HvmHwLapic, HvmHwLapicRegs } from "../abi/hvm/save.ts";
import { PHYSICAL_ADDRESS_BITS } from "./cpuid.ts";
import { CPU } from "../x86/state.ts";
import { APIC, APIC_BASE, apicId, BUS_CYCLE_NS, divider, LAPIC, lapicRead, setTscDeadline, TIMER_MODE, tscDeadline } from "./lapic.ts";
import { VCPU } from "./objects.ts";
import type { Vcpu } from "./vcpu.ts";

const NR_REGS = 64, DISABLED = { bySvr: 1, byMsr: 2 } as const, SVR_ENABLE = 0x100;

/** Both records of a vCPU that does not run. The current count stands in TMCCT's place. */
export function lapicSave(v: Vcpu): { state: Uint8Array; regs: Uint8Array } {
  const { dv, u32 } = v.hv.views, state = new DataView(new ArrayBuffer(HvmHwLapic.sizeof)), regs = new DataView(new ArrayBuffer(HvmHwLapicRegs.sizeof));
  const base = CPU.apicBase.get(dv, v.context), word = (v.at + VCPU.lapic.at + LAPIC.regs.at) >>> 2;
  for (let i = 0; i < NR_REGS; i++) regs.setUint32(i * 16, Atomics.load(u32, word + i), true);
  // one that is due and has not fired (timers of a paused domain stand) is to fire there
  regs.setUint32(APIC.TMCCT * 16, Math.max(lapicRead(v, APIC.TMCCT, false), v.deadline("lapicDeadline") === 0 ? 0 : 1), true);
  HvmHwLapic.apic_base_msr.set(state, 0, base);
  HvmHwLapic.disabled.set(state, 0, (lapicRead(v, APIC.SVR, false) & SVR_ENABLE ? 0 : DISABLED.bySvr) | (Number(base) & APIC_BASE.EN ? 0 : DISABLED.byMsr));
  HvmHwLapic.timer_divisor.set(state, 0, divider(lapicRead(v, APIC.TDCR, false)));
  HvmHwLapic.tdt_msr.set(state, 0, tscDeadline(v));
  return { state: new Uint8Array(state.buffer), regs: new Uint8Array(regs.buffer) };
}

/** Take both over; timers run from now on. The vCPU's TSC_ADJUST is right already. @returns IA32_APIC_BASE, or null for one that cannot be */
export function lapicRestore(v: Vcpu, state: DataView, regs: DataView): bigint | null {
  const base = HvmHwLapic.apic_base_msr.get(state, 0), { u32 } = v.hv.views, at = v.at + VCPU.lapic.at, word = (at + LAPIC.regs.at) >>> 2, mode = Number(base & 0xffffffffn);
  if (base >> BigInt(PHYSICAL_ADDRESS_BITS) || mode & 0x2ff || (mode & APIC_BASE.EXTD && !(mode & APIC_BASE.EN))) return null;
  const kept = new Set<number>([APIC.ID, APIC.VERSION]);
  for (let i = 0; i < NR_REGS; i++) if (!kept.has(i)) u32[word + i] = regs.getUint32(i * 16, true);
  u32[word + APIC.ID] = apicId(v.id) << 24;
  for (const first of [APIC.IRR, APIC.ISR, APIC.TMR]) u32[word + first]! &= ~0xffff;       // vectors that are no interrupts
  const lvt = u32[word + APIC.LVT_TIMER] as number, step = BUS_CYCLE_NS * divider(u32[word + APIC.TDCR] as number), count = regs.getUint32(APIC.TMCCT * 16, true);
  if ((lvt & TIMER_MODE.mask) === TIMER_MODE.deadline) setTscDeadline(v, HvmHwLapic.tdt_msr.get(state, 0), CPU.tscAdjust.get(v.hv.views.dv, v.context));
  else if (count !== 0) {
    const now = v.hv.clock.now();
    v.hv.set(LAPIC.timerStart, at, now);
    v.hv.set(LAPIC.timerPeriod, at, (u32[word + APIC.TMICT] as number) * step);
    v.setDeadline("lapicDeadline", now + count * step);
  }
  return base;
}
