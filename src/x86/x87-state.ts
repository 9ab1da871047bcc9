/** The x87's registers in the CPU struct: stack, tags, status, and how an instruction's exceptions land in them. SDM Vol. 1 ch. 8.1, 8.5. */
import type { Views } from "../base/views.ts";
import { GuestFault } from "./fault.ts";
import { FLAG, type Env } from "./softfloat.ts";
import { CPU, CS, SEG, segAt, VECTOR } from "./state.ts";
import type { X87Form } from "./x87-form.ts";

export interface X87Host {
  readonly v: Views;
  /** Byte address of the CPU struct. */
  readonly at: number;
}
/** Status word, SDM Vol. 1 figure 8-4. Bits 0-5 are FLAG.*. */
export const FSW = { SF: 0x40, ES: 0x80, C0: 0x100, C1: 0x200, C2: 0x400, top: 0x3800, C3: 0x4000, B: 0x8000 } as const;
/** Stack fault as it joins the flags of an Env. */
export const STACK = FLAG.IE | FSW.SF;
const CC = FSW.C0 | FSW.C2 | FSW.C3;

export const fcwOf = (h: X87Host): number => CPU.fcw.get(h.v.dv, h.at);
export const fswOf = (h: X87Host): number => CPU.fsw.get(h.v.dv, h.at);
const setFsw = (h: X87Host, x: number): void => CPU.fsw.set(h.v.dv, h.at, x);

/** Recompute ES and its copy B after flags or masks changed. */
export function setStatus(h: X87Host, fsw: number): void {
  setFsw(h, fsw & ~fcwOf(h) & FLAG.all ? fsw | FSW.ES | FSW.B : fsw & ~(FSW.ES | FSW.B));
}
/** FLDCW and kin: reserved bits read as the processor has them. */
export function setControl(h: X87Host, fcw: number): void {
  CPU.fcw.set(h.v.dv, h.at, fcw & 0x1f3f | 0x40);
  setStatus(h, fswOf(h));
}
const PREC = [24, 64, 53, 64] as const;
export function env(h: X87Host, control = true): Env {
  const fcw = fcwOf(h);
  return { rc: fcw >> 10 & 3, masks: fcw & FLAG.all, flags: 0, x87: true, prec: control ? PREC[fcw >> 8 & 3] ?? 64 : 64, ftz: false, daz: false, up: false };
}

/** @throws #MF when an earlier instruction left an unmasked exception */
export function checkPending(h: X87Host, form: X87Form): void {
  if (form.wait && fswOf(h) & ~fcwOf(h) & FLAG.all) throw new GuestFault(VECTOR.MF, -1);
}
/** Opcode and pointers of the last instruction that was no control instruction. SDM Vol. 1 8.1.8. */
export function notePointers(h: X87Host, form: X87Form, op: number, fdp = 0n, fds = 0): void {
  if (form.control) return;
  const { dv } = h.v;
  CPU.fop.set(dv, h.at, op & 0x7ff);
  CPU.fip.set(dv, h.at, BigInt.asUintN(64, CPU.rip.get(dv, h.at)));
  CPU.fcs.set(dv, h.at, SEG.sel.get(dv, h.at + segAt(CS)));
  if (form.kind === "reg") return;
  CPU.fdp.set(dv, h.at, fdp);
  CPU.fds.set(dv, h.at, fds);
}

const topOf = (h: X87Host): number => fswOf(h) >> 11 & 7;
const physical = (h: X87Host, i: number): number => (topOf(h) + i) & 7;
const stAt = (h: X87Host, i: number): number => h.at + CPU.st.at + physical(h, i) * 16;
export const setTop = (h: X87Host, top: number): void => setFsw(h, fswOf(h) & ~FSW.top | (top & 7) << 11);
export const rotate = (h: X87Host, by: number): void => setTop(h, topOf(h) + by);

export const isEmpty = (h: X87Host, i: number): boolean => !(CPU.ftw.get(h.v.dv, h.at) >> physical(h, i) & 1);
export function free(h: X87Host, i: number): void { CPU.ftw.set(h.v.dv, h.at, CPU.ftw.get(h.v.dv, h.at) & ~(1 << physical(h, i))); }
/** ST(i) as 80 bits, whether tagged empty or not. */
export function st(h: X87Host, i: number): bigint {
  const at = stAt(h, i);
  return h.v.dv.getBigUint64(at, true) | BigInt(h.v.dv.getUint16(at + 8, true)) << 64n;
}
export function setSt(h: X87Host, i: number, bits: bigint): void {
  const at = stAt(h, i);
  h.v.dv.setBigUint64(at, BigInt.asUintN(64, bits), true);
  h.v.dv.setUint16(at + 8, Number(bits >> 64n), true);
  CPU.ftw.set(h.v.dv, h.at, CPU.ftw.get(h.v.dv, h.at) | 1 << physical(h, i));
}
export function pop(h: X87Host, n = 1): void {
  for (; n > 0; n--) { free(h, 0); rotate(h, 1); }
}

/** Add an instruction's flags to the status word; C1 is set as told, the other condition codes stay unless given (C0, C2, C3). */
export function note(h: X87Host, flags: number, c1 = false, cc = -1): void {
  const old = fswOf(h) & ~FSW.C1;
  setStatus(h, (cc < 0 ? old : old & ~CC | cc) | flags | (c1 ? FSW.C1 : 0));
}
/** Has an exception happened that leaves the operands as they were? */
export const stopped = (e: Env): boolean => (e.flags & ~e.masks & FLAG.before) !== 0;
export const roundedUp = (e: Env): boolean => e.up && (e.flags & FLAG.PE) !== 0;

/** Note a computation's flags; an unmasked exception found before rounding hides those that rounding would have raised. */
export function settle(h: X87Host, e: Env): void {
  if (stopped(e)) note(h, e.flags & (FLAG.before | FSW.SF)); else note(h, e.flags, roundedUp(e));
}
/** Deliver a result to ST(i) and pop, unless an unmasked exception forbids it. */
export function finish(h: X87Host, e: Env, i: number, bits: bigint, pops = 0): void {
  settle(h, e);
  if (stopped(e)) return;
  setSt(h, i, bits);
  pop(h, pops);
}
/** The tag word of eight two-bit tags: 0 valid, 1 zero, 2 special, 3 empty. SDM Vol. 1 figure 8-7. */
export function fullTags(h: X87Host): number {
  const ftw = CPU.ftw.get(h.v.dv, h.at);
  let tags = 0;
  for (let i = 0; i < 8; i++) {
    const at = h.at + CPU.st.at + i * 16, lo = h.v.dv.getUint32(at, true), hi = h.v.dv.getUint32(at + 4, true), e = h.v.dv.getUint16(at + 8, true) & 0x7fff;
    const tag = !(ftw >> i & 1) ? 3 : e === 0 && lo === 0 && hi === 0 ? 1 : e === 0 || e === 0x7fff || hi < 0x80000000 ? 2 : 0;
    tags |= tag << i * 2;
  }
  return tags;
}
/** From the full tag word to the abridged one. */
export function abridge(tags: number): number {
  let ftw = 0;
  for (let i = 0; i < 8; i++) if ((tags >> i * 2 & 3) !== 3) ftw |= 1 << i;
  return ftw;
}
/** FNINIT. The registers' contents stay. */
export function initialize(h: X87Host): void {
  const { dv } = h.v;
  CPU.fcw.set(dv, h.at, 0x37f); CPU.fsw.set(dv, h.at, 0); CPU.ftw.set(dv, h.at, 0); CPU.fop.set(dv, h.at, 0);
  CPU.fcs.set(dv, h.at, 0); CPU.fds.set(dv, h.at, 0); CPU.fip.set(dv, h.at, 0n); CPU.fdp.set(dv, h.at, 0n);
}
