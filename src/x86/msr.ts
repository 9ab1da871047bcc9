/** Model-specific registers the processor holds itself; the platform has the rest. SDM Vol. 4 table 2-2. */
import type { Field } from "../base/struct.ts";
import { canonical, type Cpu } from "./cpu.ts";
import { GuestFault } from "./fault.ts";
import { CPU, CR0, EFER, FS, GS, VECTOR } from "./state.ts";

export const MSR = {
  TSC: 0x10, APIC_BASE: 0x1b, TSC_ADJUST: 0x3b, SPEC_CTRL: 0x48, MTRRCAP: 0xfe, SYSENTER_CS: 0x174, SYSENTER_ESP: 0x175, SYSENTER_EIP: 0x176, MCG_CAP: 0x179, MCG_STATUS: 0x17a,
  MISC_ENABLE: 0x1a0, DEBUGCTL: 0x1d9, MTRR_PHYSBASE0: 0x200, MTRR_PHYSMASK7: 0x20f, PAT: 0x277, MTRR_DEF_TYPE: 0x2ff,
  EFER: 0xc0000080, STAR: 0xc0000081, LSTAR: 0xc0000082, CSTAR: 0xc0000083, SFMASK: 0xc0000084, FS_BASE: 0xc0000100, GS_BASE: 0xc0000101, KERNEL_GS_BASE: 0xc0000102, TSC_AUX: 0xc0000103,
} as const;
/** IA32_APIC_BASE. */
const APIC_BASE = { BSP: 0x100n, EXTD: 0x400n, EN: 0x800n } as const;
/** Eight variable ranges, fixed ranges, write combining. */
const MTRRCAP = 0x508n;
const FIXED_MTRRS: readonly number[] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
const EFER_BITS = BigInt(EFER.SCE | EFER.LME | EFER.NXE | EFER.LMA | EFER.AIBRSE);

/** IA32_SPEC_CTRL: BHI_DIS_S, the only one that CPUID offers. */
export const SPEC_CTRL_BITS = 1n << 10n;

const refuse = (): never => { throw new GuestFault(VECTOR.GP, 0); };
const isCanonical = (x: bigint): boolean => canonical(x) !== null;
const fits32 = (x: bigint): boolean => x >> 32n === 0n;
/** All eight bytes are memory types of `types` (a bit a type). */
const areTypes = (x: bigint, types: number): boolean => {
  for (let i = 0n; i < 64n; i += 8n) { const t = Number(x >> i & 0xffn); if (t > 7 || !(types >>> t & 1)) return false; }
  return true;
};
const MTRR_TYPES = 0b1110011, PAT_TYPES = 0b11110011;

type Row = { read(cpu: Cpu): bigint; write?(cpu: Cpu, value: bigint): void };
const held = (field: Field<bigint>, ok: (x: bigint) => boolean = () => true): Row => ({
  read: (cpu) => cpu.get(field),
  write: (cpu, value) => { if (!ok(value)) refuse(); cpu.set(field, value); },
});
const base = (segment: number): Row => ({
  read: (cpu) => cpu.segBaseBig(segment),
  write: (cpu, value) => { if (!isCanonical(value)) refuse(); cpu.setSegBaseBig(segment, value); },
});
const word = (at: number, ok: (x: bigint, cpu: Cpu) => boolean): Row => ({
  read: (cpu) => cpu.v.dv.getBigUint64(cpu.at + at, true),
  write: (cpu, value) => { if (!ok(value, cpu)) refuse(); cpu.v.dv.setBigUint64(cpu.at + at, value, true); },
});
const zero: Row = { read: () => 0n, write: (_, value) => { if (value !== 0n) refuse(); } };

const ROWS = new Map<number, Row>([
  [MSR.TSC, { read: (cpu) => tsc(cpu), write: (cpu, value) => cpu.set(CPU.tscAdjust, value - cpu.platform.tsc()) }],
  [MSR.TSC_ADJUST, { read: (cpu) => cpu.get(CPU.tscAdjust) - cpu.get(CPU.tscHidden), write: (cpu, value) => cpu.set(CPU.tscAdjust, value + cpu.get(CPU.tscHidden)) }],
  [MSR.APIC_BASE, { read: (cpu) => cpu.get(CPU.apicBase), write: writeApicBase }],
  [MSR.SPEC_CTRL, held(CPU.specCtrl, (x) => (x & ~SPEC_CTRL_BITS) === 0n)],
  [MSR.MTRRCAP, { read: () => MTRRCAP }],
  [MSR.SYSENTER_CS, held(CPU.sysenterCs)],
  [MSR.SYSENTER_ESP, held(CPU.sysenterEsp, isCanonical)],
  [MSR.SYSENTER_EIP, held(CPU.sysenterEip, isCanonical)],
  [MSR.MCG_CAP, { read: () => 0n }],
  [MSR.MCG_STATUS, zero],
  [MSR.MISC_ENABLE, held(CPU.miscEnable)],
  [MSR.DEBUGCTL, { read: () => 0n, write: (_, value) => { if (value >> 2n) refuse(); } }],
  [MSR.PAT, held(CPU.pat, (x) => areTypes(x, PAT_TYPES))],
  [MSR.MTRR_DEF_TYPE, held(CPU.mtrrDefType, (x) => (x & ~0xcffn) === 0n && areTypes(x & 0xffn, MTRR_TYPES))],
  [MSR.EFER, { read: (cpu) => cpu.get(CPU.efer), write: writeEfer }],
  [MSR.STAR, held(CPU.star)],
  [MSR.LSTAR, held(CPU.lstar, isCanonical)],
  [MSR.CSTAR, held(CPU.cstar, isCanonical)],
  [MSR.SFMASK, held(CPU.sfmask, fits32)],
  [MSR.FS_BASE, base(FS)],
  [MSR.GS_BASE, base(GS)],
  [MSR.KERNEL_GS_BASE, held(CPU.kernelGsBase, isCanonical)],
  [MSR.TSC_AUX, held(CPU.tscAux, fits32)],
  ...FIXED_MTRRS.map((msr, i): [number, Row] => [msr, word(CPU.mtrrFixed.at + i * 8, (x) => areTypes(x, MTRR_TYPES))]),
  ...Array.from({ length: 16 }, (_, i): [number, Row] => [MSR.MTRR_PHYSBASE0 + i, word(CPU.mtrrVar.at + i * 8, (x, cpu) => {
    if (x >> BigInt(cpu.mmu.maxPhysAddr)) return false;
    return i & 1 ? (x & 0x7ffn) === 0n : (x & 0xf00n) === 0n && areTypes(x & 0xffn, MTRR_TYPES);
  })]),
]);

/** What RDTSC reads. */
export const tsc = (cpu: Cpu): bigint => BigInt.asUintN(64, cpu.platform.tsc() + cpu.get(CPU.tscAdjust));

function writeEfer(cpu: Cpu, value: bigint): void {
  const old = cpu.efer;
  if (value & ~EFER_BITS || cpu.cr0 & CR0.PG && (Number(value) ^ old) & EFER.LME) refuse();
  const now = Number(value) & ~EFER.LMA | old & EFER.LMA;
  cpu.set(CPU.efer, BigInt(now));
  if ((now ^ old) & EFER.NXE) cpu.mmu.tlb.flushAll();
}
/** The state may go disabled - xAPIC - x2APIC and back to disabled, SDM Vol. 3A 10.12.5; the platform is told of each change. */
function writeApicBase(cpu: Cpu, value: bigint): void {
  const old = cpu.get(CPU.apicBase), state = (x: bigint): bigint => x & (APIC_BASE.EN | APIC_BASE.EXTD);
  if (value >> BigInt(cpu.mmu.maxPhysAddr) || value & 0x2ffn) refuse();
  const from = state(old), to = state(value), EN = APIC_BASE.EN, X2 = APIC_BASE.EN | APIC_BASE.EXTD;
  if (to === APIC_BASE.EXTD || from === X2 && to === EN || from === 0n && to === X2) refuse();
  cpu.set(CPU.apicBase, value);
  cpu.platform.wrmsr(MSR.APIC_BASE, value);
}

/** RDMSR's value. @throws GuestFault (#GP) for one nobody has */
export function readMsr(cpu: Cpu, msr: number): bigint {
  const row = ROWS.get(msr);
  return BigInt.asUintN(64, row ? row.read(cpu) : cpu.platform.rdmsr(msr) ?? refuse());
}
export function writeMsr(cpu: Cpu, msr: number, value: bigint): void {
  const row = ROWS.get(msr);
  if (!row) { if (!cpu.platform.wrmsr(msr, value)) refuse(); return; }
  if (!row.write) return refuse();
  row.write(cpu, value);
}
