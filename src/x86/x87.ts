/**
 * The x87 instructions over the CPU struct. The caller decodes, checks CR0.EM and TS, and moves memory operands itself:
 * loads pass their bits in; stores come in two steps, so that a page fault between them leaves all untouched. SDM Vol. 1 ch. 8, Vol. 2.
 * An opcode is `(byte0 & 7) << 8 | modrm`; x87-form.ts tells which call it takes. FLDENV and kin are in x87-env.ts.
 */
import { GuestFault } from "./fault.ts";
import { BCD_INDEFINITE, convert, extract, fpFromInt, fromBcd, remainder, roundToIntegral, scale, toBcd, toInt } from "./softfloat-convert.ts";
import { constant80, f2xm1, fcos, fpatan, fptan, fsin, fyl2x, fyl2xp1, ONE80 } from "./softfloat-trans.ts";
import { add, CLS, compareFlags, div, F32, F64, F80, FLAG, indefinite, mul, RC, sqrt, unpack, type Env, type Format, type Fp } from "./softfloat.ts";
import { EFLAGS, VECTOR } from "./state.ts";
import { x87Form, type X87Form } from "./x87-form.ts";
import { checkPending, env, fcwOf, finish, free, FSW, fswOf, initialize, isEmpty, note, notePointers, pop, rotate, roundedUp, setControl, setSt, setStatus, settle, st, STACK, stopped, type X87Host } from "./x87-state.ts";

export { x87Form, type X87Form } from "./x87-form.ts";
export { x87ImageStored, x87LoadImage, x87StoreImage } from "./x87-env.ts";
export { abridge, fullTags, type X87Host } from "./x87-state.ts";

const INDEFINITE = indefinite(F80);
const known = (op: number, kind: X87Form["kind"]): X87Form => {
  const form = x87Form(op);
  if (form?.kind !== kind) throw new GuestFault(VECTOR.UD, -1);
  return form;
};
const operand = (h: X87Host, i: number): Fp => unpack(F80, st(h, i));

/** FWAIT. @throws #MF */
export const x87Wait = (h: X87Host): void => checkPending(h, { kind: "reg", bytes: 0, name: "FWAIT", wait: true });

/** The eight operations of the arithmetic opcodes, by their number there; x is ST(0). Compares are elsewhere. */
function arith(e: Env, k: number, x: Fp, y: Fp): bigint {
  switch (k) {
    case 0: return add(F80, e, x, y);
    case 1: return mul(F80, e, x, y);
    case 4: return add(F80, e, x, y, 1);
    case 5: return add(F80, e, y, x, 1);
    case 6: return div(F80, e, x, y);
    default: return div(F80, e, y, x);
  }
}
/** A compare's condition codes: above, equal, below, unordered. */
const CODES = (c: number): number => c === 2 ? FSW.C0 | FSW.C2 | FSW.C3 : c === 0 ? FSW.C3 : c < 0 ? FSW.C0 : 0;
function compareSt(h: X87Host, y: Fp | null, signalling: boolean, pops: number): void {
  const e = env(h);
  let c = 2;
  if (isEmpty(h, 0) || y === null) e.flags = STACK; else c = compareFlags(e, operand(h, 0), y, signalling);
  note(h, e.flags, false, CODES(c));
  if (!stopped(e)) pop(h, pops);
}
const there = (h: X87Host, i: number): Fp | null => isEmpty(h, i) ? null : operand(h, i);

/** Put a new ST(0) on the stack; full: stack overflow. (A denormal is loaded even when its exception is unmasked: callers mask it.) */
function push(h: X87Host, e: Env, bits: bigint): void {
  const full = !isEmpty(h, 7);
  if (full) { e.flags = STACK; bits = INDEFINITE; }
  note(h, e.flags, full);
  if (stopped(e)) return;
  rotate(h, -1);
  setSt(h, 0, bits);
}

/**
 * An instruction with a memory source. `lo` holds the operand's bits up to 64, `hi16` the rest of an 80-bit one.
 * @param fdp effective address and @param fds selector of the operand, for the data pointer
 * @throws #MF, #UD
 */
export function x87Load(h: X87Host, op: number, lo: bigint, hi16 = 0, fdp = 0n, fds = 0): void {
  const form = known(op, "load"), byte = op >> 8 & 7, k = op >> 3 & 7;
  checkPending(h, form);
  if (byte === 1 && k === 5) return setControl(h, Number(lo & 0xffffn));
  notePointers(h, form, op, fdp, fds);
  const e = env(h);
  if (form.bytes === 10) {
    const bits = BigInt.asUintN(64, lo) | BigInt(hi16 & 0xffff) << 64n;
    return push(h, e, byte === 3 ? bits : convert(F80, e, fromBcd(bits)));
  }
  const format = byte < 2 ? F32 : F64, float = byte === 0 || byte === 1 || byte === 4 || byte === 5;
  const y = float ? unpack(format, BigInt.asUintN(format.bits, lo)) : fpFromInt(BigInt.asIntN(form.bytes * 8, lo));
  if (byte & 1) {
    const bits = convert(F80, e, y);
    e.masks |= FLAG.DE;
    return push(h, e, bits);
  }
  if (k === 2 || k === 3) return compareSt(h, y, true, k - 2);
  if (isEmpty(h, 0)) { e.flags = STACK; return finish(h, e, 0, INDEFINITE); }
  finish(h, e, 0, arith(e, k, operand(h, 0), y));
}

/** What a store is about to do. `write` false: an unmasked exception forbids the memory write; call x87StoreDone all the same. */
export interface X87Stored { readonly lo: bigint; readonly hi: number; readonly write: boolean; readonly flags: number; readonly up: boolean; readonly pops: number }

/** An instruction with a memory destination, first half: the value. Nothing changes. @throws #MF, #UD */
export function x87Store(h: X87Host, op: number): X87Stored {
  const form = known(op, "store"), byte = op >> 8 & 7, k = op >> 3 & 7;
  checkPending(h, form);
  const plain = (bits: bigint, pops = 0): X87Stored => ({ lo: BigInt.asUintN(64, bits), hi: Number(bits >> 64n), write: true, flags: 0, up: false, pops });
  if (form.name === "FNSTCW") return plain(BigInt(fcwOf(h)));
  if (form.name === "FNSTSW") return plain(BigInt(fswOf(h)));
  const e = env(h), empty = isEmpty(h, 0), pops = form.name === "FST" || form.name === "FIST" ? 0 : 1;
  if (empty) e.flags = STACK;
  let bits: bigint;
  if (form.name === "FBSTP") bits = empty ? BCD_INDEFINITE : toBcd(e, operand(h, 0));
  else if (form.bytes === 10) bits = empty ? INDEFINITE : st(h, 0);
  else if (byte === 1 || (byte === 5 && k !== 1)) {
    const format: Format = byte === 1 ? F32 : F64;
    bits = empty ? indefinite(format) : convert(format, e, operand(h, 0), false);
  } else bits = empty ? 1n << BigInt(form.bytes * 8 - 1) : toInt(e, operand(h, 0), form.bytes * 8, k === 1 ? RC.zero : e.rc);
  const write = (e.flags & ~e.masks & (FLAG.IE | FLAG.OE | FLAG.UE)) === 0;
  return { ...plain(bits, pops), write, flags: e.flags, up: roundedUp(e) };
}
/** Second half, after the memory write: flags and pop. */
export function x87StoreDone(h: X87Host, op: number, stored: X87Stored, fdp = 0n, fds = 0): void {
  const form = known(op, "store");
  if (form.control) return;
  notePointers(h, form, op, fdp, fds);
  note(h, stored.flags, stored.up);
  if (stored.write) pop(h, stored.pops);
}

/**
 * An instruction on registers alone.
 * @param eflags the present ones, for FCMOVcc
 * @returns ZF, PF, CF for FCOMI and kin, the status word for FNSTSW AX, else 0
 * @throws #MF, #UD
 */
export function x87Reg(h: X87Host, op: number, eflags = 0): number {
  const form = known(op, "reg"), byte = op >> 8 & 7, k = op >> 3 & 7, i = op & 7;
  checkPending(h, form);
  notePointers(h, form, op);
  switch (byte << 3 | k) {
    case 0x02: case 0x22: compareSt(h, there(h, i), true, 0); return 0;
    case 0x03: case 0x23: case 0x32: compareSt(h, there(h, i), true, 1); return 0;
    case 0x33: compareSt(h, there(h, 1), true, 2); return 0;
    case 0x2c: compareSt(h, there(h, i), false, 0); return 0;
    case 0x2d: compareSt(h, there(h, i), false, 1); return 0;
    case 0x15: compareSt(h, there(h, 1), false, 2); return 0;
    case 0x08: loadRegister(h, i); return 0;
    case 0x09: case 0x29: case 0x39: exchange(h, i); return 0;
    case 0x0a: note(h, 0, (fswOf(h) & FSW.C1) !== 0); return 0;
    case 0x0b: case 0x2a: case 0x2b: case 0x3a: case 0x3b: storeRegister(h, i, k === 2 && byte === 5 ? 0 : 1, byte === 1); return 0;
    case 0x28: note(h, 0); free(h, i); return 0;
    case 0x38: note(h, 0); free(h, i); pop(h); return 0;
    case 0x1d: case 0x1e: case 0x3d: case 0x3e: return compareEflags(h, i, k === 6, byte === 7 ? 1 : 0);
    case 0x10: case 0x11: case 0x12: case 0x13: case 0x18: case 0x19: case 0x1a: case 0x1b: conditional(h, i, k, byte, eflags); return 0;
    case 0x0c: case 0x0d: case 0x0e: case 0x0f: unary(h, op & 0x1f); return 0;
    case 0x1c: if (i === 2) clearExceptions(h); else if (i === 3) initialize(h); return 0;
    case 0x3c: return fswOf(h);
    default: registers(h, k, i, byte); return 0;
  }
}
const clearExceptions = (h: X87Host): void => setStatus(h, fswOf(h) & ~(FLAG.all | FSW.SF | FSW.ES | FSW.B));

/** FADD ... FDIVR between ST(0) and ST(i), to either, popping or not. */
function registers(h: X87Host, k: number, i: number, byte: number): void {
  const e = env(h), to = byte === 0 ? 0 : i, pops = byte === 6 ? 1 : 0;
  if (isEmpty(h, 0) || isEmpty(h, i)) { e.flags = STACK; return finish(h, e, to, INDEFINITE, pops); }
  finish(h, e, to, arith(e, k, operand(h, 0), operand(h, i)), pops);
}
function loadRegister(h: X87Host, i: number): void {
  const e = env(h);
  if (!isEmpty(h, i)) return push(h, e, st(h, i));
  note(h, e.flags = STACK);
  if (stopped(e)) return;
  rotate(h, -1);
  setSt(h, 0, INDEFINITE);
}
function exchange(h: X87Host, i: number): void {
  const e = env(h), a = isEmpty(h, 0) ? INDEFINITE : st(h, 0), b = isEmpty(h, i) ? INDEFINITE : st(h, i);
  if (isEmpty(h, 0) || isEmpty(h, i)) e.flags = STACK;
  note(h, e.flags);
  if (stopped(e)) return;
  setSt(h, 0, b);
  setSt(h, i, a);
}
/** `lenient`: the undocumented D9 D8+i, which never reports an empty ST(0) but just pops it. */
function storeRegister(h: X87Host, i: number, pops: number, lenient: boolean): void {
  const e = env(h), empty = isEmpty(h, 0);
  if (empty && lenient) { note(h, 0); return pop(h); }
  if (empty) e.flags = STACK;
  finish(h, e, i, empty ? INDEFINITE : st(h, 0), pops);
}
function compareEflags(h: X87Host, i: number, signalling: boolean, pops: number): number {
  const e = env(h);
  let c = 2;
  if (isEmpty(h, 0) || isEmpty(h, i)) e.flags = STACK; else c = compareFlags(e, operand(h, 0), operand(h, i), signalling);
  note(h, e.flags, !(e.flags & FSW.SF) && (fswOf(h) & FSW.C1) !== 0);
  if (!stopped(e)) pop(h, pops);
  return c === 2 ? EFLAGS.ZF | EFLAGS.PF | EFLAGS.CF : c === 0 ? EFLAGS.ZF : c < 0 ? EFLAGS.CF : 0;
}
const CONDITION = [EFLAGS.CF, EFLAGS.ZF, EFLAGS.CF | EFLAGS.ZF, EFLAGS.PF] as const;
function conditional(h: X87Host, i: number, k: number, byte: number, eflags: number): void {
  const e = env(h), holds = (eflags & (CONDITION[k] ?? 0)) !== 0;
  if (isEmpty(h, 0) || isEmpty(h, i)) { e.flags = STACK; return finish(h, e, 0, INDEFINITE); }
  if (holds === (byte === 2)) setSt(h, 0, st(h, i));
}

/** D9 E0 to D9 FF. */
function unary(h: X87Host, i: number): void {
  const e = env(h, i === 0x1a);
  if (i >= 8 && i < 15) return push(h, e, constant80(e.rc, i - 8));
  if (i === 5) return examine(h);
  if (i === 0x16 || i === 0x17) { rotate(h, i === 0x16 ? -1 : 1); return note(h, 0); }
  if (i === 4) return compareSt(h, fpFromInt(0n), true, 0);
  const two = i === 0x11 || i === 0x13 || i === 0x19, pops = two ? 1 : 0, to = pops;
  const empty = isEmpty(h, 0) || ((two || i === 0x15 || i === 0x18 || i === 0x1d) && isEmpty(h, 1));
  if (i === 0x12 || i === 0x14 || i === 0x1b) return pair(h, e, i);
  if (empty) {
    e.flags = STACK;
    finish(h, e, to, INDEFINITE, pops);
    if (i === 0x15 || i === 0x18 || i === 0x1e || i === 0x1f) setStatus(h, fswOf(h) & ~FSW.C2);
    return;
  }
  const bits = st(h, 0), x = unpack(F80, bits), y = operand(h, 1);
  switch (i) {
    case 0x00: return finish(h, e, 0, bits ^ 1n << 79n);
    case 0x01: return finish(h, e, 0, bits & ~(1n << 79n));
    case 0x10: return finish(h, e, 0, f2xm1(e, x, bits));
    case 0x11: return finish(h, e, 1, fyl2x(e, x, y), 1);
    case 0x13: return finish(h, e, 1, fpatan(e, x, y), 1);
    case 0x15: case 0x18: return partial(h, e, x, y, i === 0x15);
    case 0x19: return finish(h, e, 1, fyl2xp1(e, x, y, bits), 1);
    case 0x1a: return finish(h, e, 0, sqrt(F80, e, x));
    case 0x1c: return finish(h, e, 0, integral(e, x));
    case 0x1d: return finish(h, e, 0, scale(e, x, y));
    default: return trigonometric(h, e, i === 0x1e ? fsin(e, x) : fcos(e, x));
  }
}
const integral = (e: Env, x: Fp): bigint => {
  if (x.denormal) e.flags |= FLAG.DE;
  return roundToIntegral(F80, e, x, e.rc);
};
const condition = (h: X87Host, cc: number): void => setStatus(h, fswOf(h) & ~(FSW.C0 | FSW.C2 | FSW.C3) | cc);
function trigonometric(h: X87Host, e: Env, bits: bigint | null): void {
  if (bits === null) { note(h, 0); setStatus(h, fswOf(h) | FSW.C2); return; }
  finish(h, e, 0, bits);
  setStatus(h, fswOf(h) & ~FSW.C2);
}
/** FPREM, FPREM1: C2 says partial; C0, C3, C1 the quotient's low bits. A NaN, an invalid operation and an unmasked exception clear C2 only. */
function partial(h: X87Host, e: Env, x: Fp, y: Fp, nearest: boolean): void {
  const r = remainder(e, x, y, nearest), q = r.quotient;
  finish(h, e, 0, r.bits);
  if (stopped(e) || e.flags & FLAG.IE || x.cls > CLS.inf || y.cls > CLS.inf) return setStatus(h, fswOf(h) & ~FSW.C2);
  condition(h, r.partial ? FSW.C2 : (q & 4 ? FSW.C0 : 0) | (q & 2 ? FSW.C3 : 0));
  if (q & 1) setStatus(h, fswOf(h) | FSW.C1);
}
/** FPTAN, FXTRACT, FSINCOS replace ST(0) and push a second result. */
function pair(h: X87Host, e: Env, i: number): void {
  const empty = isEmpty(h, 0), full = !isEmpty(h, 7);
  let first: bigint | null = INDEFINITE, second: bigint | null = INDEFINITE;
  if (empty || full) e.flags = STACK;
  else {
    const x = operand(h, 0);
    if (i === 0x14) { const r = extract(e, x); first = r.exponent; second = r.significand; }
    else if (i === 0x1b) { first = fsin(e, x); second = fcos(e, x); }
    else { first = fptan(e, x); second = x.cls > CLS.finite ? first : ONE80; }
  }
  if (first === null || second === null) return trigonometric(h, e, null);
  if (full && !empty) note(h, e.flags, true); else settle(h, e);
  if (!stopped(e)) {
    setSt(h, 0, first);
    rotate(h, -1);
    setSt(h, 0, second);
  }
  if (i !== 0x14) setStatus(h, fswOf(h) & ~FSW.C2);
}
function examine(h: X87Host): void {
  const bits = st(h, 0), x = unpack(F80, bits), { C0, C2, C3 } = FSW;
  const cc = isEmpty(h, 0) ? C3 | C0 : x.cls === CLS.zero ? C3 : x.cls === CLS.inf ? C2 | C0 : x.cls === CLS.unsupported ? 0 : x.cls !== CLS.finite ? C0 : x.denormal ? C3 | C2 : C2;
  note(h, 0, bits >> 79n === 1n, cc);
}
