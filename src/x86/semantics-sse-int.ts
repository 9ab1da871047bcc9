/** Integer arithmetic on lanes, as functions over vectors: XMM instructions use them as they are, MMX ones on half a register. SDM Vol. 2. */
import { Op } from "../wasm/opcodes.ts";
import { I32, V128 } from "../wasm/writer.ts";
import type { Gen, Val } from "./gen.ts";
import type { Semantics } from "./semantics.ts";
import { both, lanes, op1, op2, shuffled, type V1, type V2, widen, zero } from "./semantics-sse.ts";
import { EFLAGS } from "./state.ts";

/** Sums and differences by element width in bytes. */
export const padd = { 1: op2(Op.i8x16_add), 2: op2(Op.i16x8_add), 4: op2(Op.i32x4_add), 8: op2(Op.i64x2_add) } as const;
export const psub = { 1: op2(Op.i8x16_sub), 2: op2(Op.i16x8_sub), 4: op2(Op.i32x4_sub), 8: op2(Op.i64x2_sub) } as const;
export const pabs = { 1: op1(Op.i8x16_abs), 2: op1(Op.i16x8_abs), 4: op1(Op.i32x4_abs) } as const;
const splat16 = (g: Gen, x: number): Val => both(g, BigInt(x) * 0x0001000100010001n);

// Products ----------------------------------------------------------------------------------------------------------------
/** The upper halves of 16-bit products. */
const mulHigh = (low: number, high: number): V2 => (g, a, b) => g.shuffle(lanes(2, [1, 3, 5, 7, 9, 11, 13, 15]), g.v(low, a, b), g.v(high, a, b));
export const pmulhw = mulHigh(Op.i32x4_extmul_low_i16x8_s, Op.i32x4_extmul_high_i16x8_s);
export const pmulhuw = mulHigh(Op.i32x4_extmul_low_i16x8_u, Op.i32x4_extmul_high_i16x8_u);
export const pmaddwd = op2(Op.i32x4_dot_i16x8_s);
/** Products of the even 32-bit elements. */
const mulEven = (op: number): V2 => { const even = lanes(4, [0, 2, 0, 2]); return (g, a, b) => g.v(op, g.shuffle(even, a, a), g.shuffle(even, b, b)); };
export const pmuludq = mulEven(Op.i64x2_extmul_low_i32x4_u), pmuldq = mulEven(Op.i64x2_extmul_low_i32x4_s);
/** wasm saturates the one product that does not fit; here it wraps. */
export const pmulhrsw: V2 = (g, a, b) => {
  const least = splat16(g, 0x8000);
  return g.v(Op.v128_xor, g.v(Op.i16x8_q15mulr_sat_s, a, b), g.v(Op.v128_and, g.v(Op.i16x8_eq, a, least), g.v(Op.i16x8_eq, b, least)));
};
/** Unsigned bytes of a by signed bytes of b, pairs added with saturation. */
export const pmaddubsw: V2 = (g, a, b) => {
  const k8 = g.k(32, 8);
  const even = g.v(Op.i16x8_mul, g.v(Op.v128_and, a, splat16(g, 0xff)), g.v(Op.i16x8_shr_s, g.v(Op.i16x8_shl, b, k8), k8));
  return g.v(Op.i16x8_add_sat_s, even, g.v(Op.i16x8_mul, g.v(Op.i16x8_shr_u, a, k8), g.v(Op.i16x8_shr_s, b, k8)));
};
/** Absolute differences of bytes, summed by eights. */
export const psadbw: V2 = (g, a, b) => {
  const d = g.v(Op.v128_or, g.v(Op.i8x16_sub_sat_u, a, b), g.v(Op.i8x16_sub_sat_u, b, a));
  const s = g.let(g.v(Op.i32x4_extadd_pairwise_i16x8_u, g.v(Op.i16x8_extadd_pairwise_i8x16_u, d)));
  return g.v(Op.i64x2_add, g.v(Op.v128_and, s, both(g, 0xffffffffn)), g.v(Op.i64x2_shr_u, s, g.k(32, 32)));
};
/** Eight sums of four absolute differences, against one group of four bytes of b. */
export const mpsadbw = (g: Gen, a: Val, b: Val, m: number): Val => {
  const z = zero(g), from = (m & 4), group = (m & 3) * 4;
  const term = (k: number): Val => {
    const x = g.shuffle(Array.from({ length: 16 }, (_, i) => (i & 1 ? 16 : from + k + (i >> 1))), a, z), y = g.shuffle(Array.from({ length: 16 }, (_, i) => (i & 1 ? 16 : group + k)), b, z);
    return g.v(Op.i16x8_abs, g.v(Op.i16x8_sub, x, y));
  };
  return [1, 2, 3].reduce((s, k) => g.v(Op.i16x8_add, s, term(k)), term(0));
};

// Across lanes ------------------------------------------------------------------------------------------------------------
const pairs = (n: 2 | 4, op: number): V2 => {
  const e = 16 / n, even = shuffled(n, Array.from({ length: e }, (_, i) => 2 * i)), odd = shuffled(n, Array.from({ length: e }, (_, i) => 2 * i + 1));
  return (g, a, b) => g.v(op, even(g, a, b), odd(g, a, b));
};
export const phaddw = pairs(2, Op.i16x8_add), phaddd = pairs(4, Op.i32x4_add), phaddsw = pairs(2, Op.i16x8_add_sat_s);
export const phsubw = pairs(2, Op.i16x8_sub), phsubd = pairs(4, Op.i32x4_sub), phsubsw = pairs(2, Op.i16x8_sub_sat_s);
/** An index with bit 7 set gives zero; else its low four bits count (three in MMX: `bits` is 0x87). */
export const pshufb = (bits: number): V2 => (g, a, b) => g.v(Op.i8x16_swizzle, a, g.v(Op.v128_and, b, both(g, BigInt(bits) * 0x0101010101010101n)));
/** a where b is positive, -a where negative, 0 where zero. */
export const psign = (shr: number, top: number, sub: number, eq: number): V2 => (g, a, b) => {
  const m = g.let(g.v(shr, b, g.k(32, top)));
  return g.v(Op.v128_andnot, g.v(sub, g.v(Op.v128_xor, a, m), m), g.v(eq, b, zero(g)));
};
/** The least word and its index. */
export const phminposuw: V1 = (g, a) => {
  const k16 = g.k(32, 16), key = (op: number, i: bigint): Val => g.v(Op.v128_or, g.v(Op.i32x4_shl, g.v(op, a), k16), g.vconst(i | i + 1n << 32n, i + 2n | i + 3n << 32n));
  const m = g.let(g.v(Op.i32x4_min_u, key(Op.i32x4_extend_low_i16x8_u, 0n), key(Op.i32x4_extend_high_i16x8_u, 4n)));
  const n = g.let(g.v(Op.i32x4_min_u, m, g.shuffle(lanes(4, [2, 3, 0, 1]), m, m)));
  const least = g.extract(Op.i32x4_extract_lane, 0, g.v(Op.i32x4_min_u, n, g.shuffle(lanes(4, [1, 0, 3, 2]), n, n)));
  return widen(g, 32, g.rotl(32, least, k16));
};

// Shifts ------------------------------------------------------------------------------------------------------------------
/** A shift of n-bit elements; arithmetic right shifts by too much keep the sign, the others give zero. */
export type Shift = { readonly n: 16 | 32 | 64; readonly op: number; readonly sign: boolean };
export const SHIFTS = {
  psrlw: { n: 16, op: Op.i16x8_shr_u, sign: false }, psrld: { n: 32, op: Op.i32x4_shr_u, sign: false }, psrlq: { n: 64, op: Op.i64x2_shr_u, sign: false },
  psraw: { n: 16, op: Op.i16x8_shr_s, sign: true }, psrad: { n: 32, op: Op.i32x4_shr_s, sign: true },
  psllw: { n: 16, op: Op.i16x8_shl, sign: false }, pslld: { n: 32, op: Op.i32x4_shl, sign: false }, psllq: { n: 64, op: Op.i64x2_shl, sign: false },
} as const satisfies Record<string, Shift>;
export const shiftKnown = (g: Gen, s: Shift, a: Val, by: number): Val => by >= s.n && !s.sign ? zero(g) : g.v(s.op, a, g.k(32, Math.min(by, s.n - 1)));
/** By a 64-bit count (a local). */
export const shiftBy = (g: Gen, s: Shift, a: Val, by: Val): Val => {
  const fits = g.ltu(64, by, g.k(64, s.n)), n = g.cast(64, 32, by);
  return s.sign ? g.v(s.op, a, g.sel(32, fits, n, g.k(32, s.n - 1))) : g.select(V128, fits, g.v(s.op, a, n), zero(g));
};
export const shift = (s: Shift): Semantics => g => { const a = g.dst(128), n = g.let(g.extract(Op.i64x2_extract_lane, 0, g.src(128))); g.setDst(shiftBy(g, s, a, n), 128); };
export const shiftImm = (s: Shift): Semantics => g => g.setDst(shiftKnown(g, s, g.dst(128), g.known()), 128);

// Widening, tests -----------------------------------------------------------------------------------------------------------
/** PMOVSX, PMOVZX: the source's `w` low bits through each step in turn. */
export const extend = (...steps: number[]): Semantics => (g) => {
  const v = g.src(g.sw), first = g.sw === 64 ? g.v(Op.i64x2_splat, v) : g.sw === 32 ? g.v(Op.i32x4_splat, v) : g.v(Op.i16x8_splat, v);
  g.setDst(steps.reduce((x, op) => g.v(op, x), first), 128);
};
export const ptest: Semantics = g => {
  const a = g.dst(128), b = g.src(128), none = (v: Val) => g.eqz(32, g.vi(Op.v128_any_true, v, I32));
  const zf = g.shl(32, none(g.v(Op.v128_and, b, a)), g.k(32, Math.log2(EFLAGS.ZF)));
  g.setArith(g.or(32, zf, none(g.v(Op.v128_andnot, b, a))));
};
/** The sign of each element over all of it, for BLENDV. */
export const signs: { readonly [n in 1 | 4 | 8]: V1 } = {
  1: (g, m) => g.v(Op.i8x16_shr_s, m, g.k(32, 7)), 4: (g, m) => g.v(Op.i32x4_shr_s, m, g.k(32, 31)), 8: (g, m) => g.v(Op.i64x2_shr_s, m, g.k(32, 63)),
};
