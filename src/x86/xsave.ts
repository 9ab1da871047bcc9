/** FXSAVE, FXRSTOR, XSAVE, XRSTOR and XCR0. SDM Vol. 1 ch. 10.5 and 13; Vol. 2 FXSAVE table 3-46. State components: x87 (0) and SSE (1), always in use. */
import type { Cpu } from "./cpu.ts";
import { needCpl0 } from "./control.ts";
import { GuestFault } from "./fault.ts";
import { CPU, CR0, CR4, RAX, RCX, RDX, VECTOR } from "./state.ts";
import { setStatus } from "./x87-state.ts";

/** Word numbers (32 bits) in the area. FIP and FDP are 64 bits with REX.W, else an offset of 32 bits and a selector. */
const WORD = { fcwFsw: 0, ftwFop: 1, fip: 2, fdp: 4, mxcsr: 6, mxcsrMask: 7, st: 8, xmm: 40, header: 128 } as const;
const FX_BYTES = 512, HEADER_BYTES = 64;
const X87 = 1, SSE = 2, SUPPORTED = X87 | SSE;
const MXCSR_MASK = 0xffff;

/** The image being made or read; a copy, so that what is checked is what is used. */
const area = new Uint8Array(FX_BYTES + HEADER_BYTES), words = new Int32Array(area.buffer);
const legacy = area.subarray(0, FX_BYTES);

const gp0 = (): GuestFault => new GuestFault(VECTOR.GP, 0);
function available(cpu: Cpu, align: number, linear: number, needsOsxsave: boolean): void {
  if (cpu.cr0 & CR0.EM && !needsOsxsave || needsOsxsave && !(cpu.cr4 & CR4.OSXSAVE)) throw new GuestFault(VECTOR.UD);
  if (cpu.cr0 & CR0.TS) throw new GuestFault(VECTOR.NM);
  if (linear & align - 1) throw gp0();
}
const nrXmm = (cpu: Cpu): number => cpu.is64 ? 16 : 8;

function putX87(cpu: Cpu, is64: boolean): void {
  const { i32 } = cpu.v, w = cpu.at >>> 2, fsw = cpu.get(CPU.fsw), top = fsw >>> 11 & 7;
  words[WORD.fcwFsw] = cpu.get(CPU.fcw) | fsw << 16; words[WORD.ftwFop] = cpu.get(CPU.ftw) | cpu.get(CPU.fop) << 16;
  words[WORD.fip] = i32[w + (CPU.fip.at >> 2)]!; words[WORD.fip + 1] = is64 ? i32[w + (CPU.fip.at >> 2) + 1]! : cpu.get(CPU.fcs);
  words[WORD.fdp] = i32[w + (CPU.fdp.at >> 2)]!; words[WORD.fdp + 1] = is64 ? i32[w + (CPU.fdp.at >> 2) + 1]! : cpu.get(CPU.fds);
  for (let i = 0; i < 8; i++) {
    const from = w + (CPU.st.at >> 2) + ((top + i & 7) << 2), to = WORD.st + i * 4;
    words[to] = i32[from]!; words[to + 1] = i32[from + 1]!; words[to + 2] = i32[from + 2]! & 0xffff; words[to + 3] = 0;
  }
}
/** ES and B are what the flags and masks make them, whatever the image says. */
function takeX87(cpu: Cpu, is64: boolean): void {
  const { i32 } = cpu.v, w = cpu.at >>> 2, fsw = words[WORD.fcwFsw]! >>> 16, top = fsw >>> 11 & 7;
  cpu.set(CPU.fcw, words[WORD.fcwFsw]! & 0x1f7f | 0x40); setStatus(cpu, fsw); cpu.set(CPU.ftw, words[WORD.ftwFop]! & 0xff); cpu.set(CPU.fop, words[WORD.ftwFop]! >>> 16 & 0x7ff);
  i32[w + (CPU.fip.at >> 2)] = words[WORD.fip]!; i32[w + (CPU.fip.at >> 2) + 1] = is64 ? words[WORD.fip + 1]! : 0; cpu.set(CPU.fcs, is64 ? 0 : words[WORD.fip + 1]! & 0xffff);
  i32[w + (CPU.fdp.at >> 2)] = words[WORD.fdp]!; i32[w + (CPU.fdp.at >> 2) + 1] = is64 ? words[WORD.fdp + 1]! : 0; cpu.set(CPU.fds, is64 ? 0 : words[WORD.fdp + 1]! & 0xffff);
  for (let i = 0; i < 8; i++) {
    const to = w + (CPU.st.at >> 2) + ((top + i & 7) << 2), from = WORD.st + i * 4;
    i32[to] = words[from]!; i32[to + 1] = words[from + 1]!; i32[to + 2] = words[from + 2]! & 0xffff; i32[to + 3] = 0;
  }
}
/** As FNINIT, and the registers zero. */
function initX87(cpu: Cpu): void {
  cpu.set(CPU.fcw, 0x37f); cpu.set(CPU.fsw, 0); cpu.set(CPU.ftw, 0); cpu.set(CPU.fop, 0);
  cpu.set(CPU.fip, 0n); cpu.set(CPU.fdp, 0n); cpu.set(CPU.fcs, 0); cpu.set(CPU.fds, 0);
  cpu.v.u8.fill(0, cpu.at + CPU.st.at, cpu.at + CPU.st.at + CPU.st.size);
}
function putSse(cpu: Cpu): void {
  const { i32 } = cpu.v, from = (cpu.at + CPU.xmm.at) >>> 2, n = nrXmm(cpu) * 4;
  words[WORD.mxcsr] = cpu.get(CPU.mxcsr); words[WORD.mxcsrMask] = MXCSR_MASK;
  for (let i = 0; i < n; i++) words[WORD.xmm + i] = i32[from + i]!;
}
function takeXmm(cpu: Cpu, isInit: boolean): void {
  const { i32 } = cpu.v, to = (cpu.at + CPU.xmm.at) >>> 2, n = nrXmm(cpu) * 4;
  for (let i = 0; i < n; i++) i32[to + i] = isInit ? 0 : words[WORD.xmm + i]!;
}
function checkMxcsr(): number {
  const x = words[WORD.mxcsr]!;
  if (x & ~MXCSR_MASK) throw gp0();
  return x;
}

/** `is64`: REX.W in 64-bit mode. The area's bytes above the registers are left as they are. */
export function fxsave(cpu: Cpu, linear: number, is64: boolean): void {
  available(cpu, 16, linear, false);
  putX87(cpu, is64); putSse(cpu);
  cpu.mmu.writeBytes(linear, area.subarray(0, WORD.xmm * 4 + 16 * nrXmm(cpu)));
}
export function fxrstor(cpu: Cpu, linear: number, is64: boolean): void {
  available(cpu, 16, linear, false);
  cpu.mmu.readBytes(linear, legacy);
  const mxcsr = checkMxcsr();
  takeX87(cpu, is64);
  cpu.set(CPU.mxcsr, mxcsr); takeXmm(cpu, false);
}
/** The requested components: EDX:EAX and XCR0. */
const requested = (cpu: Cpu): number => cpu.gpr32(RAX) & Number(cpu.get(CPU.xcr0)) & SUPPORTED;
/** XSAVE and XSAVEOPT in the standard form. */
export function xsave(cpu: Cpu, linear: number, is64: boolean): void {
  available(cpu, 64, linear, true);
  const rfbm = requested(cpu);
  cpu.mmu.readBytes(linear, area);
  if (rfbm & X87) putX87(cpu, is64);
  if (rfbm & SSE) putSse(cpu);
  words[WORD.header] = words[WORD.header]! | rfbm;
  cpu.mmu.writeBytes(linear, area);
}
export function xrstor(cpu: Cpu, linear: number, is64: boolean): void {
  available(cpu, 64, linear, true);
  const rfbm = requested(cpu);
  cpu.mmu.readBytes(linear, area);
  const present = words[WORD.header]!;
  let reserved = present & ~Number(cpu.get(CPU.xcr0));
  for (let i = 1; i < 6; i++) reserved |= words[WORD.header + i]!;
  if (reserved) throw gp0();
  const mxcsr = rfbm & SSE ? checkMxcsr() : 0, load = rfbm & present;
  if (load & X87) takeX87(cpu, is64); else if (rfbm & X87) initX87(cpu);
  if (rfbm & SSE) {
    cpu.set(CPU.mxcsr, mxcsr);
    takeXmm(cpu, !(load & SSE));
  }
}
export function xgetbv(cpu: Cpu): void {
  if (!(cpu.cr4 & CR4.OSXSAVE)) throw new GuestFault(VECTOR.UD);
  if (cpu.gpr32(RCX) !== 0) throw gp0();
  cpu.setGpr32(RAX, Number(cpu.get(CPU.xcr0))); cpu.setGpr32(RDX, 0);
}
export function xsetbv(cpu: Cpu): void {
  if (!(cpu.cr4 & CR4.OSXSAVE)) throw new GuestFault(VECTOR.UD);
  needCpl0(cpu);
  const value = cpu.gpr32(RAX);
  if (cpu.gpr32(RCX) !== 0 || cpu.gpr32(RDX) !== 0 || value & ~SUPPORTED || !(value & X87)) throw gp0();
  cpu.set(CPU.xcr0, BigInt(value));
}
