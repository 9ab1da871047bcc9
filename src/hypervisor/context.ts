/** Registers of a vCPU before its first instruction: after RESET or INIT (SDM Vol. 3A table 9-1), at a PVH entry (docs/misc/pvh), after a SIPI. */
import { ATTR, CPU, CR0, CS, EFLAGS, SEG, SS, TR, LDTR, segAt } from "../x86/state.ts";

type At = (dv: DataView, at: number) => void;
function seg(dv: DataView, at: number, i: number, sel: number, base: number, limit: number, attr: number): void {
  const p = at + segAt(i);
  SEG.base.set(dv, p, BigInt(base));
  SEG.limit.set(dv, p, limit);
  SEG.sel.set(dv, p, sel);
  SEG.attr.set(dv, p, attr);
}
/** Machine state common to all: what RESET leaves. @param vcpuId 0 is the bootstrap processor */
export function resetContext(dv: DataView, at: number, vcpuId = 0): void {
  for (let i = 0; i < CPU.sizeof; i += 8) dv.setBigUint64(at + i, 0n, true);
  CPU.eflags.set(dv, at, EFLAGS.fixed);
  CPU.fres.set(dv, at, 1n); /* no arithmetic flag set, see x86/flags.ts */
  CPU.rip.set(dv, at, 0xfff0n);
  CPU.cr0.set(dv, at, BigInt(CR0.CD) | BigInt(CR0.NW) | BigInt(CR0.ET));
  for (let i = 0; i < 6; i++) seg(dv, at, i, i === CS ? 0xf000 : 0, i === CS ? 0xffff0000 : 0, 0xffff, i === CS ? 0x9b : 0x93);
  seg(dv, at, LDTR, 0, 0, 0xffff, 0x82);
  seg(dv, at, TR, 0, 0, 0xffff, 0x8b);
  CPU.gdtrLimit.set(dv, at, 0xffff);
  CPU.idtrLimit.set(dv, at, 0xffff);
  dv.setBigUint64(at + CPU.dr.at + 6 * 8, 0xffff0ff0n, true);
  dv.setBigUint64(at + CPU.dr.at + 7 * 8, 0x400n, true);
  CPU.pat.set(dv, at, 0x0007040600070406n);
  CPU.apicBase.set(dv, at, 0xfee00800n | (vcpuId === 0 ? 0x100n : 0n));
  CPU.miscEnable.set(dv, at, 1n);
  /* MTRRs on, write-back by default, as hvmloader's stand-in leaves them for PVH */
  CPU.mtrrDefType.set(dv, at, 0xc06n);
  CPU.xcr0.set(dv, at, 1n);
  CPU.mxcsr.set(dv, at, 0x1f80);
  CPU.fcw.set(dv, at, 0x37f);
  CPU.delivering.set(dv, at, -1);
}
/** The PVH entry: 32-bit protected mode, flat, no paging; ebx holds the start info's address. */
export const pvhContext = (entry: number, startInfo: number): At => (dv, at) => {
  resetContext(dv, at);
  CPU.cr0.set(dv, at, BigInt(CR0.PE | CR0.ET));
  for (let i = 0; i < 6; i++) seg(dv, at, i, 0, 0, 0xffffffff, i === CS ? 0xc9b : 0xc93);
  seg(dv, at, TR, 0, 0, 0x67, 0x8b);
  seg(dv, at, LDTR, 0, 0, 0, ATTR.unusable);
  CPU.rip.set(dv, at, BigInt(entry));
  dv.setBigUint64(at + CPU.gpr.at + 3 * 8, BigInt(startInfo), true);
};
/** After INIT and SIPI: real mode at vector << 12. SDM Vol. 3A 9.4 */
export function startupContext(dv: DataView, at: number, vector: number): void {
  const adjust = CPU.tscAdjust.get(dv, at), hidden = CPU.tscHidden.get(dv, at);       // INIT leaves the counter alone
  resetContext(dv, at, 1);
  CPU.tscAdjust.set(dv, at, adjust);
  CPU.tscHidden.set(dv, at, hidden);
  CPU.cr0.set(dv, at, BigInt(CR0.ET));
  seg(dv, at, CS, vector << 8, vector << 12, 0xffff, 0x9b);
  seg(dv, at, SS, 0, 0, 0xffff, 0x93);
  CPU.rip.set(dv, at, 0n);
}
