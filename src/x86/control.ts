/** Control and debug registers: what may be written, and what a write changes elsewhere. SDM Vol. 3A 2.5 and 17.2; Vol. 2 MOV CR, MOV DR. */
import type { Cpu } from "./cpu.ts";
import { GuestFault } from "./fault.ts";
import { ATTR, CPU, CR0, CR4, CS, EFER, TR, VECTOR } from "./state.ts";

const CR0_BITS = (CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG) >>> 0;
/** What we offer. PCIDE is refused: a context's entries are not tagged; VME and PVI: no guest of ours needs virtual-8086 help. */
const CR4_BITS = CR4.TSD | CR4.DE | CR4.PSE | CR4.PAE | CR4.MCE | CR4.PGE | CR4.PCE | CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.UMIP | CR4.FSGSBASE | CR4.OSXSAVE | CR4.SMEP | CR4.SMAP;
const DR6 = { fixed: 0xffff0ff0n, writable: 0xe00fn, BD: 0x2000n } as const;
const DR7 = { fixed: 0x400n, writable: 0xffff2bffn, GD: 0x2000n } as const;

const gp0 = (): GuestFault => new GuestFault(VECTOR.GP, 0);
export function needCpl0(cpu: Cpu): void { if (cpu.cpl !== 0) throw gp0(); }

/** PAE outside long mode: the four PDPTEs may not have reserved bits set where present. */
function checkPdptes(cpu: Cpu, cr3: bigint): void {
  const base = Number(cr3 & 0xffffffe0n), reserved = 0x1e6n | BigInt.asUintN(64, -1n << BigInt(cpu.mmu.maxPhysAddr));
  const packed = cpu.mmu.frame(Math.floor(base / 4096));
  for (let i = 0; i < 4; i++) {
    const e = packed === 0 ? -1n : cpu.v.dv.getBigUint64(((packed - (packed & 0xfff)) >>> 0) + base % 4096 + i * 8, true);
    if (e & 1n && e & reserved) throw gp0();
  }
}
export function loadCr3(cpu: Cpu, value: bigint): void {
  if (cpu.isLong ? value >> BigInt(cpu.mmu.maxPhysAddr) : value >> 32n) throw gp0();
  if (cpu.cr0 & CR0.PG && cpu.cr4 & CR4.PAE && !cpu.isLong) checkPdptes(cpu, value);
  cpu.set(CPU.cr3, value);
  cpu.mmu.tlb.flushLocal();
}
export function writeCr0(cpu: Cpu, value: bigint): void {
  if (value >> 32n) throw gp0();
  const old = cpu.cr0, now = (Number(value) & CR0_BITS | CR0.ET) | 0;
  if (now & CR0.PG && !(now & CR0.PE) || now & CR0.NW && !(now & CR0.CD)) throw gp0();
  let efer = cpu.efer;
  if (now & ~old & CR0.PG) {
    if (efer & EFER.LME) {
      if (!(cpu.cr4 & CR4.PAE) || cpu.segAttr(CS) & ATTR.l || !(cpu.segAttr(TR) & 8)) throw gp0();
      efer |= EFER.LMA;
    } else if (cpu.cr4 & CR4.PAE) checkPdptes(cpu, cpu.get(CPU.cr3));
  } else if (old & ~now & CR0.PG) {
    if (cpu.is64) throw gp0();
    efer &= ~EFER.LMA;
  }
  cpu.set(CPU.cr0, BigInt(now >>> 0));
  cpu.set(CPU.efer, BigInt(efer));
  if ((old ^ now) & (CR0.PG | CR0.WP | CR0.PE)) cpu.mmu.tlb.flushAll();
  cpu.setMode();
}
export function writeCr4(cpu: Cpu, value: bigint): void {
  if (value & ~BigInt(CR4_BITS)) throw gp0();
  const old = cpu.cr4, now = Number(value);
  if (cpu.isLong && !(now & CR4.PAE)) throw gp0();
  if ((now & ~old) & CR4.PAE && cpu.cr0 & CR0.PG) checkPdptes(cpu, cpu.get(CPU.cr3));
  cpu.set(CPU.cr4, value);
  if ((old ^ now) & (CR4.PSE | CR4.PAE | CR4.PGE | CR4.SMEP | CR4.SMAP)) cpu.mmu.tlb.flushAll();
  cpu.setMode();
}
export function writeCr(cpu: Cpu, n: number, value: bigint): void {
  if (!(n === 0 || n === 2 || n === 3 || n === 4 || n === 8)) throw new GuestFault(VECTOR.UD);
  needCpl0(cpu);
  switch (n) {
    case 0: return writeCr0(cpu, value);
    case 2: return cpu.set(CPU.cr2, value);
    case 3: return loadCr3(cpu, value);
    case 4: return writeCr4(cpu, value);
    case 8:
      if (value >> 4n) throw gp0();
      cpu.set(CPU.cr8, value);
      return cpu.platform.setTpr(Number(value) << 4);
  }
}
export function readCr(cpu: Cpu, n: number): bigint {
  if (!(n === 0 || n === 2 || n === 3 || n === 4 || n === 8)) throw new GuestFault(VECTOR.UD);
  needCpl0(cpu);
  switch (n) {
    case 0: return cpu.get(CPU.cr0);
    case 2: return cpu.get(CPU.cr2);
    case 3: return cpu.get(CPU.cr3);
    case 4: return cpu.get(CPU.cr4);
    default: return BigInt(cpu.platform.getTpr() >>> 4 & 15);
  }
}
export function clts(cpu: Cpu): void {
  needCpl0(cpu);
  cpu.set(CPU.cr0, BigInt((cpu.cr0 & ~CR0.TS) >>> 0));
  cpu.setMode();
}
/** LMSW: PE can be set, never cleared. */
export const lmsw = (cpu: Cpu, value: number): void => {
  needCpl0(cpu);
  writeCr0(cpu, BigInt(((cpu.cr0 & ~(CR0.MP | CR0.EM | CR0.TS)) | value & 15) >>> 0));
};

/** DR4 and DR5 are DR6 and DR7 unless CR4.DE; DR7.GD catches every access. */
function debugRegister(cpu: Cpu, n: number): number {
  if (n > 7 || (n === 4 || n === 5) && cpu.cr4 & CR4.DE) throw new GuestFault(VECTOR.UD);
  needCpl0(cpu);
  if (cpu.dr(7) & DR7.GD) {
    cpu.setDr(7, cpu.dr(7) & ~DR7.GD);
    cpu.setDr(6, cpu.dr(6) | DR6.BD);
    throw new GuestFault(VECTOR.DB);
  }
  return n === 4 || n === 5 ? n + 2 : n;
}
export const readDr = (cpu: Cpu, n: number): bigint => cpu.dr(debugRegister(cpu, n));
export function writeDr(cpu: Cpu, n: number, value: bigint): void {
  const i = debugRegister(cpu, n);
  if (i >= 6 && value >> 32n) throw gp0();
  cpu.setDr(i, i === 6 ? value & DR6.writable | DR6.fixed : i === 7 ? value & DR7.writable | DR7.fixed : value);
  if (i !== 6) cpu.mmu.setWatch();
}
