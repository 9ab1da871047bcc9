/** FXSAVE, FXRSTOR, XSAVE, XRSTOR and XCR0. SDM Vol. 1 ch. 10.5 and 13; Vol. 2 FXSAVE table 3-46. State components: x87 (0) and SSE (1), always in use. */
import type { Cpu } from "./cpu.ts";
import { needCpl0 } from "./control.ts";
import { GuestFault } from "./fault.ts";
import { struct, u16, u32, u64, u8 } from "../base/struct.ts";
import { CPU, CR0, CR4, RAX, RCX, RDX, VECTOR } from "./state.ts";

/** The fixed head of the 512-byte area; `fip` and `fdp` are 64 bits with REX.W, else an offset of 32 bits and a selector. */
const FXAREA = struct(32, { fcw: u16(0), fsw: u16(2), ftw: u8(4), fop: u16(6), fip: u64(8), fdp: u64(16), mxcsr: u32(24), mxcsrMask: u32(28) });
const ST_AT = 32, XMM_AT = 160, FX_BYTES = 512, HEADER_BYTES = 64;
const X87 = 1, SSE = 2, SUPPORTED = X87 | SSE;
const MXCSR_MASK = 0xffff;

const area = new Uint8Array(FX_BYTES + HEADER_BYTES), dv = new DataView(area.buffer);
const legacy = area.subarray(0, FX_BYTES);

const gp0 = (): GuestFault => new GuestFault(VECTOR.GP, 0);
function available(cpu: Cpu, align: number, linear: number, needsOsxsave: boolean): void {
  if (cpu.cr0 & CR0.EM && !needsOsxsave || needsOsxsave && !(cpu.cr4 & CR4.OSXSAVE)) throw new GuestFault(VECTOR.UD);
  if (cpu.cr0 & CR0.TS) throw new GuestFault(VECTOR.NM);
  if (linear & align - 1) throw gp0();
}
const nrXmm = (cpu: Cpu): number => cpu.is64 ? 16 : 8;

function putX87(cpu: Cpu, is64: boolean): void {
  const { u8: m } = cpu.v, fsw = cpu.get(CPU.fsw), top = fsw >>> 11 & 7;
  FXAREA.fcw.set(dv, 0, cpu.get(CPU.fcw)); FXAREA.fsw.set(dv, 0, fsw); FXAREA.ftw.set(dv, 0, cpu.get(CPU.ftw)); dv.setUint8(5, 0); FXAREA.fop.set(dv, 0, cpu.get(CPU.fop));
  const pointer = (offset: bigint, sel: number): bigint => is64 ? offset : offset & 0xffffffffn | BigInt(sel) << 32n;
  FXAREA.fip.set(dv, 0, pointer(cpu.get(CPU.fip), cpu.get(CPU.fcs)));
  FXAREA.fdp.set(dv, 0, pointer(cpu.get(CPU.fdp), cpu.get(CPU.fds)));
  for (let i = 0; i < 8; i++) {
    const from = cpu.at + CPU.st.at + ((top + i & 7) << 4), to = ST_AT + i * 16;
    area.set(m.subarray(from, from + 10), to);
    area.fill(0, to + 10, to + 16);
  }
}
function takeX87(cpu: Cpu, is64: boolean): void {
  const { u8: m } = cpu.v, fsw = FXAREA.fsw.get(dv, 0), top = fsw >>> 11 & 7, fip = FXAREA.fip.get(dv, 0), fdp = FXAREA.fdp.get(dv, 0);
  cpu.set(CPU.fcw, FXAREA.fcw.get(dv, 0) & 0x1f7f | 0x40); cpu.set(CPU.fsw, fsw); cpu.set(CPU.ftw, FXAREA.ftw.get(dv, 0)); cpu.set(CPU.fop, FXAREA.fop.get(dv, 0) & 0x7ff);
  cpu.set(CPU.fip, is64 ? fip : fip & 0xffffffffn); cpu.set(CPU.fcs, is64 ? 0 : Number(fip >> 32n & 0xffffn));
  cpu.set(CPU.fdp, is64 ? fdp : fdp & 0xffffffffn); cpu.set(CPU.fds, is64 ? 0 : Number(fdp >> 32n & 0xffffn));
  for (let i = 0; i < 8; i++) {
    const to = cpu.at + CPU.st.at + ((top + i & 7) << 4);
    m.set(area.subarray(ST_AT + i * 16, ST_AT + i * 16 + 10), to);
    m.fill(0, to + 10, to + 16);
  }
}
/** As FNINIT, and the registers zero. */
function initX87(cpu: Cpu): void {
  cpu.set(CPU.fcw, 0x37f); cpu.set(CPU.fsw, 0); cpu.set(CPU.ftw, 0); cpu.set(CPU.fop, 0);
  cpu.set(CPU.fip, 0n); cpu.set(CPU.fdp, 0n); cpu.set(CPU.fcs, 0); cpu.set(CPU.fds, 0);
  cpu.v.u8.fill(0, cpu.at + CPU.st.at, cpu.at + CPU.st.at + CPU.st.size);
}
const xmms = (cpu: Cpu): Uint8Array => cpu.v.u8.subarray(cpu.at + CPU.xmm.at, cpu.at + CPU.xmm.at + 16 * nrXmm(cpu));
const savedXmms = (cpu: Cpu): Uint8Array => area.subarray(XMM_AT, XMM_AT + 16 * nrXmm(cpu));
function putMxcsr(cpu: Cpu): void { FXAREA.mxcsr.set(dv, 0, cpu.get(CPU.mxcsr)); FXAREA.mxcsrMask.set(dv, 0, MXCSR_MASK); }
function checkMxcsr(): number {
  const x = FXAREA.mxcsr.get(dv, 0);
  if (x & ~MXCSR_MASK) throw gp0();
  return x;
}

/** `is64`: REX.W in 64-bit mode. The area's bytes above the registers are left as they are. */
export function fxsave(cpu: Cpu, linear: number, is64: boolean): void {
  available(cpu, 16, linear, false);
  putX87(cpu, is64); putMxcsr(cpu); savedXmms(cpu).set(xmms(cpu));
  cpu.mmu.writeBytes(linear, area.subarray(0, XMM_AT + 16 * nrXmm(cpu)));
}
export function fxrstor(cpu: Cpu, linear: number, is64: boolean): void {
  available(cpu, 16, linear, false);
  cpu.mmu.readBytes(linear, legacy);
  const mxcsr = checkMxcsr();
  takeX87(cpu, is64);
  cpu.set(CPU.mxcsr, mxcsr); xmms(cpu).set(savedXmms(cpu));
}
/** The requested components: EDX:EAX and XCR0. */
const requested = (cpu: Cpu): number => cpu.gpr32(RAX) & Number(cpu.get(CPU.xcr0)) & SUPPORTED;
/** XSAVE and XSAVEOPT in the standard form. */
export function xsave(cpu: Cpu, linear: number, is64: boolean): void {
  available(cpu, 64, linear, true);
  const rfbm = requested(cpu);
  cpu.mmu.readBytes(linear, area);
  if (rfbm & X87) putX87(cpu, is64);
  if (rfbm & SSE) { putMxcsr(cpu); savedXmms(cpu).set(xmms(cpu)); }
  dv.setUint32(FX_BYTES, dv.getUint32(FX_BYTES, true) & ~rfbm | rfbm, true);
  cpu.mmu.writeBytes(linear, area);
}
export function xrstor(cpu: Cpu, linear: number, is64: boolean): void {
  available(cpu, 64, linear, true);
  const rfbm = requested(cpu);
  cpu.mmu.readBytes(linear, area);
  const present = dv.getBigUint64(FX_BYTES, true);
  if (present & ~cpu.get(CPU.xcr0) || dv.getBigUint64(FX_BYTES + 8, true) || dv.getBigUint64(FX_BYTES + 16, true)) throw gp0();
  const mxcsr = rfbm & SSE ? checkMxcsr() : 0, load = rfbm & Number(present);
  if (load & X87) takeX87(cpu, is64); else if (rfbm & X87) initX87(cpu);
  if (rfbm & SSE) {
    cpu.set(CPU.mxcsr, mxcsr);
    if (load & SSE) xmms(cpu).set(savedXmms(cpu)); else xmms(cpu).fill(0);
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
