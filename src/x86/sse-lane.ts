/** One lane of an SSE floating-point operation, exact with its flags, on the bits of binary32 or binary64. SDM Vol. 1 ch. 11.5, appendix E. */
import { convert, fromInt, roundToIntegral, toInt } from "./softfloat-convert.ts";
import { add, CLS, compareFlags, div, F32, F64, F80, FLAG, infinity, indefinite, isNan, mul, quiet, RC, sqrt, unpack, zero, type Env, type Format, type Fp } from "./softfloat.ts";
import { EFLAGS, MXCSR } from "./state.ts";

export function envOf(mxcsr: number): Env {
  const masks = mxcsr >> 7 & FLAG.all;
  return { rc: mxcsr >> 13 & 3, masks, flags: 0, x87: false, prec: 64, ftz: (mxcsr & MXCSR.FTZ) !== 0 && (masks & FLAG.UE) !== 0, daz: (mxcsr & MXCSR.DAZ) !== 0, up: false };
}

/** An operation on one lane: `a` is the destination's old value, `b` the source's. */
export type Lane = (e: Env, a: bigint, b: bigint, imm: number) => bigint;
const binary = (f: Format, op: (f: Format, e: Env, x: Fp, y: Fp) => bigint): Lane => (e, a, b) => op(f, e, unpack(f, a, e.daz), unpack(f, b, e.daz));

export const addLane = (f: Format): Lane => binary(f, add);
export const subLane = (f: Format): Lane => binary(f, (g, e, x, y) => add(g, e, x, y, 1));
export const mulLane = (f: Format): Lane => binary(f, mul);
export const divLane = (f: Format): Lane => binary(f, div);
export const sqrtLane = (f: Format): Lane => (e, _a, b) => sqrt(f, e, unpack(f, b, e.daz));

/** MIN and MAX: the second operand when either is a NaN or both are zero. */
const select = (f: Format, wanted: number): Lane => (e, a, b) => {
  const x = unpack(f, a, e.daz), y = unpack(f, b, e.daz), c = compareFlags(e, x, y, true);
  const first = c === wanted;
  return (first ? x : y).cls === CLS.zero ? zero(f, (first ? x : y).sign) : first ? a : b;
};
export const minLane = (f: Format): Lane => select(f, -1);
export const maxLane = (f: Format): Lane => select(f, 1);

/** CMPxx: a mask; predicates EQ LT LE UNORD NEQ NLT NLE ORD, of which LT LE NLT NLE signal QNaNs. */
export const cmpLane = (f: Format): Lane => (e, a, b, imm) => {
  const p = imm & 3, c = compareFlags(e, unpack(f, a, e.daz), unpack(f, b, e.daz), p === 1 || p === 2);
  const holds = p === 0 ? c === 0 : p === 1 ? c === -1 : p === 2 ? c === -1 || c === 0 : c === 2;
  return holds === !(imm & 4) ? (1n << BigInt(f.bits)) - 1n : 0n;
};
/** COMISx (`signalling`), UCOMISx: ZF, PF, CF. */
export const comisLane = (f: Format, signalling: boolean): Lane => (e, a, b) => {
  const c = compareFlags(e, unpack(f, a, e.daz), unpack(f, b, e.daz), signalling);
  return BigInt(c === 2 ? EFLAGS.ZF | EFLAGS.PF | EFLAGS.CF : c === 0 ? EFLAGS.ZF : c < 0 ? EFLAGS.CF : 0);
};

/** ROUNDxx: bits 0-1 of imm the mode, bit 2 takes MXCSR's, bit 3 keeps PE quiet. Denormals are not reported. */
export const roundLane = (f: Format): Lane => (e, _a, b, imm) => {
  const before = e.flags, bits = roundToIntegral(f, e, unpack(f, b, e.daz), imm & 4 ? e.rc : imm & 3);
  if (imm & 8) e.flags = e.flags & ~FLAG.PE | before & FLAG.PE;
  return bits;
};
export const convertLane = (from: Format, to: Format): Lane => (e, _a, b) => convert(to, e, unpack(from, b, e.daz));
export const fromIntLane = (bits: number, to: Format): Lane => (e, _a, b) => fromInt(to, e, BigInt.asIntN(bits, b));
/** To a signed integer; `truncate`: the CVTT forms. */
export const toIntLane = (from: Format, bits: number, truncate: boolean): Lane => (e, _a, b) => toInt(e, unpack(from, b, e.daz), bits, truncate ? RC.zero : e.rc);

const approximate = (): Env => ({ rc: RC.near, masks: FLAG.all, flags: 0, x87: false, prec: 12, ftz: true, daz: true, up: false });
const ONE = unpack(F32, 0x3f800000n);
/**
 * RCP and RSQRT. The manual promises a relative error of at most 1.5 * 2^-12 and leaves the bits to the model: here the exact result is rounded to
 * 12 bits of significand. Denormals count as zero, tiny results become zero, nothing is reported, MXCSR plays no part.
 */
export const rcpLane: Lane = (_e, _a, b) => {
  const x = unpack(F32, b, true), e = approximate();
  if (isNan(x)) return quiet(F32, x);
  if (x.cls === CLS.zero) return infinity(F32, x.sign);
  return convert(F32, e, unpack(F80, div(F80, e, ONE, x)));
};
export const rsqrtLane: Lane = (_e, _a, b) => {
  const x = unpack(F32, b, true), e = approximate();
  if (isNan(x)) return quiet(F32, x);
  if (x.cls === CLS.zero) return infinity(F32, x.sign);
  if (x.sign) return indefinite(F32);
  return convert(F32, e, unpack(F80, div(F80, e, ONE, unpack(F80, sqrt(F80, { ...e, prec: 64 }, x)))));
};

/** The plain operations by name, for one lane at a time. */
const KINDS = { add: addLane, sub: subLane, mul: mulLane, div: divLane, sqrt: sqrtLane, min: minLane, max: maxLane, cmp: cmpLane, round: roundLane } as const;
const BY_FORMAT = { 32: F32, 64: F64 } as const;
/** One lane: result bits and the flags raised, masked or not. */
export function sseOp(kind: keyof typeof KINDS, bits: 32 | 64, a: bigint, b: bigint, mxcsr: number, imm = 0): { bits: bigint; flags: number } {
  const e = envOf(mxcsr);
  return { bits: KINDS[kind](BY_FORMAT[bits])(e, a, b, imm), flags: e.flags };
}
