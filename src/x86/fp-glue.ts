/** Floating-point helpers that generated code calls, over the CPU struct. */
import type { Cpu } from "./cpu.ts";
export const fpHelpers = (_cpu: Cpu): Record<string, (...a: never[]) => unknown> => ({
  sse: () => {}, x87Reg: () => 0, x87Load: () => 0, x87Store: () => {}, x87StoreDone: () => {},
});
