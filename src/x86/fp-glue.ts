/**
 * What generated code asks of TypeScript for SSE and x87: HELPERS.sse and the four of the x87 (gen.ts). Operands and results wait in CPU.wide.
 * A fault is recorded for the text's faultCheck, never thrown.
 */
import type { Cpu } from "./cpu.ts";
import { GuestFault } from "./fault.ts";
import { X87_WIDE } from "./semantics-x87.ts";
import { SSE, sseSlow } from "./sse-float.ts";
import { CPU } from "./state.ts";
import { x87Form, x87ImageStored, x87Load, x87LoadImage, x87Reg, x87Store, x87StoreDone, x87StoreImage, type X87Stored } from "./x87.ts";

export interface FpHelpers {
  /** Operation `op` of sse-float.ts on the operands at two addresses, its result to CPU.wide; for comparisons, EFLAGS. */
  sse(op: number, a: number, b: number, imm: number): void;
  /** `op`: opcode, and the arithmetic flags from bit 16 for FCMOVcc. */
  x87Reg(op: number): number;
  /** The data pointer is in CPU.wide. For FLDENV and FRSTOR `lo` is the linear address. */
  x87Load(op: number, lo: bigint, hi: number): number;
  /** The value goes to CPU.wide: 80 bits, then (at 12) whether to write it. For FNSTENV and FNSAVE the linear address is there, and all is done. */
  x87Store(op: number): void;
  x87StoreDone(op: number): void;
}

const COMPARES: ReadonlySet<number | undefined> = new Set([SSE["COMISS"], SSE["COMISD"], SSE["UCOMISS"], SSE["UCOMISD"]]);

export function fpHelpers(cpu: Cpu): FpHelpers {
  const { v } = cpu, wide = cpu.at + CPU.wide.at, OPCODE = 0x7ff;
  let stored: X87Stored | null = null;
  const guarded = (f: () => number | void): number => {
    try { return f() ?? 0; } catch (e) { if (!(e instanceof GuestFault)) throw e; cpu.record(e); return 0; }
  };
  const prot = () => cpu.isProtected && !cpu.isVm86;
  return {
    sse: (op, a, b, imm) => void guarded(() => {
      const flags = sseSlow(cpu, op, wide, a >>> 0, b >>> 0, imm);
      if (COMPARES.has(op)) v.dv.setUint32(wide, flags, true);
    }),
    x87Reg: op => guarded(() => x87Reg(cpu, op & OPCODE, op >>> 16)),
    x87Load: (op, lo, hi) => guarded(() => {
      const code = op & OPCODE, form = x87Form(code);
      if (form?.kind !== "loadImage") { x87Load(cpu, code, lo, hi, v.dv.getBigUint64(wide, true)); return; }
      const is32 = (op & X87_WIDE) !== 0, image = new Uint8Array(is32 ? form.bytes32 ?? 0 : form.bytes);
      cpu.mmu.readBytes(cpu.linear(lo), image);
      x87LoadImage(cpu, code, image, is32, prot());
    }),
    x87Store: op => void guarded(() => {
      const code = op & OPCODE;
      if (x87Form(code)?.kind === "storeImage") {
        cpu.mmu.writeBytes(cpu.linear(v.dv.getBigUint64(wide, true)), x87StoreImage(cpu, code, (op & X87_WIDE) !== 0, prot()));
        x87ImageStored(cpu, code);
        return;
      }
      stored = x87Store(cpu, code);
      v.dv.setBigUint64(wide, stored.lo, true); v.dv.setUint16(wide + 8, stored.hi, true); v.dv.setUint32(wide + 12, stored.write ? 1 : 0, true);
    }),
    x87StoreDone: op => void guarded(() => { if (stored) x87StoreDone(cpu, op & OPCODE, stored, v.dv.getBigUint64(wide, true)); stored = null; }),
  };
}
