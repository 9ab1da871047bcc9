/**
 * EFLAGS as the engines keep them. The arithmetic flags are two words that most instructions can store without looking at the result:
 * - CPU.fres: ZF = (fres == 0); SF = its sign XOR bit 61 of faux; PF = even parity of its low byte XOR bit 2 of faux
 * - CPU.faux: bit 63 CF, bit 62 CF XOR OF, bit 61 SF's flip, bit 3 AF, bit 2 PF's flip
 * The other flags stand in CPU.eflags.
 */
import type { Cpu } from "./cpu.ts";
import { CPU, EFLAGS } from "./state.ts";

/** CPU.faux's bits: CF, CF^OF and the flip of SF in its upper half, the flip of PF and AF in its lower half. */
export const FAUX = { high: { CF: 1 << 31, CFxOF: 1 << 30, SFflip: 1 << 29 }, low: { PFflip: 4, AF: 8 } } as const;
const FRES_AT = CPU.fres.at >> 2, FAUX_AT = CPU.faux.at >> 2, EFLAGS_AT = CPU.eflags.at >> 2;

/** EFLAGS, 22 bits; bit 1 is one. */
export function getFlags(cpu: Cpu): number {
  const u = cpu.v.i32, w = cpu.at >>> 2;
  const lo = u[w + FRES_AT]!, hi = u[w + FRES_AT + 1]!, auxLo = u[w + FAUX_AT]!, auxHi = u[w + FAUX_AT + 1]!;
  let f = u[w + EFLAGS_AT]! | EFLAGS.fixed;
  if (auxHi < 0) f |= EFLAGS.CF;
  if ((auxHi >>> 31) !== (auxHi >>> 30 & 1)) f |= EFLAGS.OF;
  if ((lo | hi) === 0) f |= EFLAGS.ZF;
  if ((hi >>> 31) !== (auxHi >>> 29 & 1)) f |= EFLAGS.SF;
  f |= (auxLo & FAUX.low.AF) << 1;
  let p = lo ^ lo >>> 4;
  p = 0x6996 >>> (p & 15) & 1;                       // 1: odd
  if ((p ^ auxLo >>> 2 & 1) === 0) f |= EFLAGS.PF;
  return f;
}

/** Replace the flags in `mask` by those of `value`. The caller has decided what may change; after a change of VM or AC call `cpu.setMode()`. */
export function setFlags(cpu: Cpu, value: number, mask: number): void {
  const u = cpu.v.i32, w = cpu.at >>> 2;
  if (mask & EFLAGS.arith) {
    const f = mask & EFLAGS.arith ^ EFLAGS.arith ? getFlags(cpu) & ~mask | value & mask : value;
    const cf = f & 1, of = f >>> 11 & 1, zf = f >>> 6 & 1, sf = f >>> 7 & 1, pf = f >>> 2 & 1;
    u[w + FRES_AT] = zf ^ 1; u[w + FRES_AT + 1] = 0;   // 0 has even parity, 1 odd: PF equals ZF unless flipped
    u[w + FAUX_AT] = (pf ^ zf) << 2 | f >>> 1 & FAUX.low.AF;
    u[w + FAUX_AT + 1] = cf << 31 | (cf ^ of) << 30 | sf << 29;
  }
  mask &= ~EFLAGS.arith;
  u[w + EFLAGS_AT] = (u[w + EFLAGS_AT]! & ~EFLAGS.arith & ~mask) | value & mask | EFLAGS.fixed;
}
