/**
 * REP MOVS and REP STOS by the piece: as many whole elements as both pages hold, in one copy. Called by the runtime's `bulk` for what that leaves, before the slow step,
 * which does everything these refuse: DF set, segments that are not flat, MMIO, frames with decoded code, faults.
 * The caller uses them with the mode's own address size and, for MOVS, with a source segment whose base is zero.
 */
import type { Cpu } from "./cpu.ts";
import { GuestFault } from "./fault.ts";
import { isWritableData, segmentOf } from "./segments.ts";
import { DS, EFLAGS, ES, MODE, RAX, RCX, RDI, RSI } from "./state.ts";

/** May offsets be taken as linear addresses? Only 64-bit mode and flat 32-bit segments. */
function isFlat(cpu: Cpu, s: number, write: boolean): boolean {
  if (cpu.is64) return true;
  const x = segmentOf(cpu, s);
  return (cpu.mode & MODE.sizeMask) === MODE.code32 && x.base === 0 && x.limit === 0xffffffff && (x.attr & 0x1004) === 0 && (!write || isWritableData(x));
}
const count = (cpu: Cpu): number => cpu.is64 ? cpu.v.u32[((cpu.at >>> 2) + RCX * 2 + 1)]! * 4294967296 + cpu.gpr32(RCX) : cpu.gpr32(RCX);
const offset = (cpu: Cpu, r: number): number => cpu.is64 ? cpu.gprNumber(r) : cpu.gpr32(r);
function put(cpu: Cpu, r: number, x: number): void { if (cpu.is64) cpu.setGprNumber(r, x); else cpu.setGpr32(r, x); }
const room = (a: number, bytes: number): number => Math.floor((4096 - (a & 0xfff)) / bytes);
const isCanonical = (a: number): boolean => a < 2 ** 47 && a >= -(2 ** 47);
/** Machine address of a plain byte at the present privilege, or -1. */
function plain(cpu: Cpu, a: number, write: boolean): number {
  if (!isCanonical(a)) return -1;
  try { return cpu.mmu.plain(a, write); } catch (f) { if (f instanceof GuestFault) return -1; throw f; }
}
function advance(cpu: Cpu, done: number): void {
  if (cpu.is64) cpu.setGpr(RCX, cpu.gpr(RCX) - BigInt(done));
  else cpu.setGpr32(RCX, cpu.gpr32(RCX) - done);
}

/** `width` in bits. @returns elements moved; 0: take the slow step */
export function bulkMovs(cpu: Cpu, width: number): number {
  const bytes = width >> 3, left = count(cpu), from = offset(cpu, RSI), to = offset(cpu, RDI);
  const n = Math.min(left, room(from, bytes), room(to, bytes));
  if (n < 2 || cpu.eflags & EFLAGS.DF || !isFlat(cpu, DS, false) || !isFlat(cpu, ES, true)) return 0;
  const src = plain(cpu, from, false), dst = src < 0 ? -1 : plain(cpu, to, true), { bulk } = cpu, total = n * bytes;
  if (dst < 0) return 0;
  if (dst > src && dst < src + total) for (let i = 0; i < total; i += bytes) bulk.copyBytes(dst + i, src + i, bytes);
  else bulk.copyBytes(dst, src, total);
  put(cpu, RSI, from + total); put(cpu, RDI, to + total); advance(cpu, n);
  return n;
}
export function bulkStos(cpu: Cpu, width: number): number {
  const bytes = width >> 3, left = count(cpu), to = offset(cpu, RDI), n = Math.min(left, room(to, bytes));
  if (n < 2 || cpu.eflags & EFLAGS.DF || !isFlat(cpu, ES, true)) return 0;
  const dst = plain(cpu, to, true), { bulk, v: { u8 } } = cpu, total = n * bytes;
  if (dst < 0) return 0;
  const rax = cpu.at + RAX * 8, first = u8[rax]!;
  let same = true;
  for (let i = 1; i < bytes; i++) same &&= u8[rax + i] === first;
  if (same) bulk.fillBytes(dst, first, total);
  else {
    bulk.copyBytes(dst, rax, bytes);
    for (let done = bytes; done < total; done *= 2) bulk.copyBytes(dst + done, dst, Math.min(done, total - done));
  }
  put(cpu, RDI, to + total); advance(cpu, n);
  return n;
}
