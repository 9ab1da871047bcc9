/** Task switches by hardware. SDM Vol. 3A ch. 7. There are none in long mode. */
import type { Cpu } from "./cpu.ts";
import { GuestFault } from "./fault.ts";
import { setFlags } from "./flags.ts";
import { CONTEXT } from "./layout.ts";
import { codeDescriptor, type Descriptor, descriptor, dplOf, isConforming, isNull, isPresent, lldt, loadSegment, nullSegment, putSegment, realSegment, selFault, stackDescriptor, SYSTEM } from "./segments.ts";
import { ATTR, CPU, CR0, CS, DS, EFLAGS, ES, FS, GS, LDTR, SS, TR, VECTOR } from "./state.ts";
import { loadCr3 } from "./control.ts";

export type TaskCause = "jump" | "call" | "interrupt" | "iret";

/** Layout of the two kinds of TSS: where a register stands and how wide it is. SDM Vol. 3A figures 7-2 and 7-10. */
const TSS32 = { size: 4, cr3: 0x1c, eip: 0x20, eflags: 0x24, gpr: 0x28, seg: 0x48, ldt: 0x60, trap: 0x64, min: 0x67, segs: [ES, CS, SS, DS, FS, GS] } as const;
const TSS16 = { size: 2, cr3: -1, eip: 0x0e, eflags: 0x10, gpr: 0x12, seg: 0x22, ldt: 0x2a, trap: -1, min: 0x2b, segs: [ES, CS, SS, DS] } as const;

/** The TSS that a gate, JMP, CALL or IRET names. `wrong`: #GP, or #TS for IRET; IRET wants it busy. */
export function taskDescriptor(cpu: Cpu, sel: number, wrong: number, ext = 0, busy = false): Descriptor {
  const d = sel & 4 || isNull(sel) ? null : descriptor(cpu, sel), type = d ? d.attr & (ATTR.s | ATTR.type) : 0;
  const is = busy ? type === SYSTEM.tss32Busy || type === SYSTEM.tss16Busy : type === SYSTEM.tss32 || type === SYSTEM.tss16;
  if (!d || !is) throw selFault(wrong, sel, ext);
  if (!isPresent(d)) throw selFault(VECTOR.NP, sel, ext);
  return d;
}

/**
 * Switch tasks. Up to the commit a fault leaves the old task untouched; the new task's segments are checked after it, in its own context.
 * @param eip where the old task goes on, `flags` the EFLAGS it is saved with
 */
export function taskSwitch(cpu: Cpu, next: Descriptor, cause: TaskCause, eip: bigint, flags: number): void { cpu.mmu.waiting(() => switchTo(cpu, next, cause, eip, flags)); }
function switchTo(cpu: Cpu, next: Descriptor, cause: TaskCause, eip: bigint, flags: number): void {
  const from = cpu.segAttr(TR) & 8 ? TSS32 : TSS16, to = next.attr & 8 ? TSS32 : TSS16, old = cpu.segBase(TR), { mmu } = cpu, K = CONTEXT.kernel;
  if (next.limit < to.min) throw selFault(VECTOR.TS, next.sel);
  if (cpu.segAttr(TR) & ATTR.unusable || cpu.segLimit(TR) < from.min) throw selFault(VECTOR.TS, cpu.segSel(TR));
  mmu.checkWrite(old, from.min + 1, K);
  const image = Array.from({ length: (to.min + 1) >> 1 }, (_, i) => mmu.load((next.base + i * 2) >>> 0, 2, K));
  const at = (offset: number): number => to.size === 4 ? (image[offset >> 1]! | image[(offset >> 1) + 1]! << 16) >>> 0 : image[offset >> 1]!;
  mmu.checkWrite(next.base, 2, K); mmu.checkWrite(next.at + 5, 1, K);
  const oldSlot = cause === "jump" || cause === "iret" ? descriptor(cpu, cpu.segSel(TR)) : null;
  if (oldSlot) mmu.checkWrite(oldSlot.at + 5, 1, K);

  // The old task's state goes home.
  if (oldSlot) mmu.store(oldSlot.at + 5, oldSlot.hi >>> 8 & 0xfd, 1, K);
  if (cause === "iret") flags &= ~EFLAGS.NT;
  const put = (offset: number, x: number): void => mmu.store((old + offset) >>> 0, from.size === 2 ? x & 0xffff : x, from.size, K);
  put(from.eip, Number(BigInt.asUintN(32, eip))); put(from.eflags, flags);
  for (let i = 0; i < 8; i++) put(from.gpr + i * from.size, cpu.gpr32(i));
  from.segs.forEach((s, i) => { put(from.seg + i * from.size, cpu.segSel(s)); });
  if (cause === "call" || cause === "interrupt") mmu.store(next.base, cpu.segSel(TR), 2, K);
  if (cause !== "iret") mmu.store(next.at + 5, next.hi >>> 8 & 0xff | 2, 1, K);

  // The new task's comes in.
  putSegment(cpu, TR, { ...next, attr: next.attr | 2 });
  cpu.set(CPU.cr0, cpu.get(CPU.cr0) | BigInt(CR0.TS));
  if (to === TSS32 && cpu.cr0 & CR0.PG) loadCr3(cpu, BigInt(at(TSS32.cr3)));
  for (let i = 0; i < 8; i++) cpu.setGpr32(i, to.size === 4 ? at(to.gpr + i * 4) : 0xffff0000 | at(to.gpr + i * 2));
  const rip = BigInt(at(to.eip));
  cpu.rip = rip; cpu.nextRip = rip;
  setFlags(cpu, at(to.eflags) | (cause === "call" || cause === "interrupt" ? EFLAGS.NT : 0), to.size === 4 ? 0x37ffff : 0xffff);
  if (to.size === 2) setFlags(cpu, 0, EFLAGS.VM | EFLAGS.RF);
  loadSegments(cpu, to, at, next.sel);
  if (to === TSS32 && at(TSS32.trap) & 1) {
    cpu.setDr(6, cpu.dr(6) | 0x8000n);
    throw new GuestFault(VECTOR.DB);
  }
}
/** LDTR and the segments of the new task; what is wrong with one is #TS (or #NP, #SS) in the new task. */
function loadSegments(cpu: Cpu, to: typeof TSS32 | typeof TSS16, at: (offset: number) => number, tss: number): void {
  const sels = to.segs.map((_, i) => at(to.seg + i * to.size) & 0xffff), ldt = at(to.ldt) & 0xffff;
  const cpl = cpu.isVm86 ? 3 : sels[1]! & 3;
  for (const s of [ES, CS, SS, DS, FS, GS]) nullSegment(cpu, s, sels[to.segs.indexOf(s as never)] ?? 0, cpl);
  nullSegment(cpu, LDTR, ldt);
  cpu.setMode();
  if (!isNull(ldt)) asTs(ldt, () => lldt(cpu, ldt));
  if (cpu.isVm86) {
    to.segs.forEach((s, i) => { realSegment(cpu, s, sels[i]!); });
    cpu.setMode();
    return;
  }
  const cs = sels[1]!, ss = sels[2]!;
  if (isNull(cs)) throw selFault(VECTOR.TS, tss);
  asTs(cs, () => {
    const d = codeDescriptor(cpu, cs);
    if (isConforming(d) ? dplOf(d) > cpl : dplOf(d) !== cpl) throw selFault(VECTOR.TS, cs);
    if (!isPresent(d)) throw selFault(VECTOR.NP, cs);
    putSegment(cpu, CS, d);
  });
  putSegment(cpu, SS, stackDescriptor(cpu, ss, cpl, VECTOR.TS));
  cpu.setMode();
  to.segs.forEach((s, i) => { if (s !== CS && s !== SS) asTs(sels[i]!, () => loadSegment(cpu, s, sels[i]!)); });
}
/** A #GP that names a selector is #TS during a task switch. */
function asTs(sel: number, f: () => void): void {
  try { f(); } catch (e) { throw e instanceof GuestFault && e.vector === VECTOR.GP ? selFault(VECTOR.TS, sel) : e; }
}
