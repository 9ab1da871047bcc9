/** Port I/O: the right to it, and what IN, OUT, INS and OUTS do with it. SDM Vol. 1 ch. 19. */
import type { Cpu } from "./cpu.ts";
import { inTss } from "./exceptions.ts";
import { GuestFault } from "./fault.ts";
import { CONTEXT } from "./layout.ts";
import { TR, VECTOR } from "./state.ts";

/** CPL above IOPL, or virtual-8086 mode: every port touched must have its bit clear in the TSS's map. @throws GuestFault #GP(0) */
export function checkPort(cpu: Cpu, port: number, size: number): void {
  if (!cpu.isProtected || !cpu.isVm86 && cpu.cpl <= cpu.iopl) return;
  const refuse = new GuestFault(VECTOR.GP, 0), load = (offset: number): number => {
    const a = inTss(cpu, offset, 2);
    if (a === null) throw refuse;
    return cpu.mmu.load(a, 2, CONTEXT.kernel);
  };
  if (!(cpu.segAttr(TR) & 8)) throw refuse;
  const bits = load(load(0x66) + (port >>> 3)) >>> (port & 7);
  if (bits & (1 << size) - 1) throw refuse;
}
export function portIn(cpu: Cpu, port: number, size: number): number {
  checkPort(cpu, port, size);
  const x = cpu.platform.ioRead(port, size);
  return size === 4 ? x >>> 0 : x & (1 << 8 * size) - 1;
}
export function portOut(cpu: Cpu, port: number, size: number, value: number): void {
  checkPort(cpu, port, size);
  cpu.platform.ioWrite(port, size, size === 4 ? value >>> 0 : value & (1 << 8 * size) - 1);
}
