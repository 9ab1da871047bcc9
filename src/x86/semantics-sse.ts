/** SSE instructions that move, merge, mask and shuffle whole registers and look at no lane's value. SDM Vol. 2. */
import { Op } from "../wasm/opcodes.ts";
import { I32 } from "../wasm/writer.ts";
import { type Gen, type Val, type W, local } from "./gen.ts";
import type { Semantics } from "./semantics.ts";
import { CPU, RDI } from "./state.ts";

/** An operation on two vectors, and one on a vector. Their arguments are locals. */
export type V2 = (g: Gen, a: Val, b: Val) => Val;
export type V1 = (g: Gen, a: Val) => Val;
export const op2 = (op: number): V2 => (g, a, b) => g.v(op, a, b);
export const op1 = (op: number): V1 => (g, a) => g.v(op, a);
export const zero = (g: Gen): Val => g.vconst(0n, 0n);
/** A scalar in the lowest lane, zero above. */
export const widen = (g: Gen, w: W, v: Val): Val =>
  w === 128 ? v : w === 64 ? g.replace(Op.i64x2_replace_lane, 0, zero(g), v) : w === 32 ? g.replace(Op.i32x4_replace_lane, 0, zero(g), v) : g.replace(Op.i16x8_replace_lane, 0, zero(g), v);
/** The same 64-bit pattern in both halves. */
export const both = (g: Gen, x: bigint): Val => g.vconst(x, x);
/** Byte lanes lo..hi: the shuffle of n-byte elements taken in the given order (of a, then b). */
export const lanes = (n: number, order: readonly number[]): number[] => order.flatMap(e => Array.from({ length: n }, (_, i) => e * n + i));
export const shuffled = (n: number, order: readonly number[]): V2 => { const l = lanes(n, order); return (g, a, b) => g.shuffle(l, a, b); };

/** dst := f(dst, src), all 128 bits. */
export const packed = (f: V2): Semantics => g => { const a = g.dst(128), b = g.src(128); g.setDst(f(g, a, b), 128); };
/** dst := f(src). */
export const packed1 = (f: V1): Semantics => g => g.setDst(f(g, g.src(128)), 128);
/** The same with the immediate byte. */
export const packedImm = (f: (g: Gen, a: Val, b: Val, imm: number) => Val): Semantics => g => { const a = g.dst(128), b = g.src(128); g.setDst(f(g, a, b, g.known()), 128); };
export const packed1Imm = (f: (g: Gen, a: Val, imm: number) => Val): Semantics => g => g.setDst(f(g, g.src(128), g.known()), 128);

// Moves -----------------------------------------------------------------------------------------------------------------
/** 16 bytes either way. */
export const movx: Semantics = g => g.setDst(g.src(128), 128);
/** MOVSS, MOVSD: a load clears the rest of the register, a move between registers keeps it. */
export const movScalar: Semantics = (g, w) => { if (g.srcMem) loadLane(g, w); else g.setDst(g.src(w), w); };
const loadLane: Semantics = (g, w) => g.setDst(g.srcLane(w as 32 | 64) ?? widen(g, w, g.src(w)), 128);
/** MOVD and MOVQ to a register clear the rest, whatever the source. */
export const movWide: Semantics = (g, w) => { if (g.dstMem) g.setDst(g.src(w), w); else loadLane(g, w); };
/** MOVD and MOVQ to a general register or memory; MOVLPS and kin to memory, and their loads: the low part alone changes. */
export const movLow: Semantics = (g, w) => g.setDst(g.src(w), w);
export const movhlps: Semantics = g => g.setDst(g.extract(Op.i64x2_extract_lane, 1, g.src(128)), 64);
export const movHigh: Semantics = g => { const v = g.src(64); g.setDst(g.replace(Op.i64x2_replace_lane, 1, g.dst(128), v), 128); };
export const movHighStore: Semantics = g => g.setDst(g.extract(Op.i64x2_extract_lane, 1, g.src(128)), 64);
export const movddup: Semantics = g => g.setDst(g.v(Op.i64x2_splat, g.src(64)), 128);
export const movsldup = packed1((g, a) => g.shuffle(lanes(4, [0, 0, 2, 2]), a, a));
export const movshdup = packed1((g, a) => g.shuffle(lanes(4, [1, 1, 3, 3]), a, a));
/** MOVMSKPS, MOVMSKPD, PMOVMSKB. */
export const mask = (op: number): Semantics => (g, w) => g.setDst(g.cast(32, w, g.vi(op, g.src(128))));

/** Store the bytes of v whose mask bit is set at DS:rDI (or the override's segment), lowest first. MASKMOVQ, MASKMOVDQU. */
export function maskedStore(g: Gen, v: Val, bits: Val, n: number): void {
  const c = g.code, m = g.temp(I32), i = g.temp(I32), byte = g.temp(I32), left = local(m, I32);
  const base = g.let(g.dataAddr(g.let(g.cast(g.aw, 64, g.reg(g.aw, RDI))), n, true));
  g.emit(bits); c.set(m);
  g.cpu(); g.emit(v); c.mem(Op.v128_store, CPU.wide.at);
  g.emit(left); c.if_(); const again = c.loop();
  g.emit(g.un(Op.i32_ctz, I32, left)); c.set(i);
  g.cpu().get(i).op(Op.i32_add).mem(Op.i32_load8_u, CPU.wide.at);
  c.set(byte);
  g.store(8, g.add(64, base, g.cast(32, 64, local(i, I32))), local(byte, I32));
  g.emit(g.and(32, left, g.sub(32, left, g.k(32, 1)))); c.tee(m).brIf(again).end().end();
}
export const maskmovdqu: Semantics = g => { const v = g.dst(128), m = g.src(128); maskedStore(g, v, g.let(g.vi(Op.i8x16_bitmask, m)), 16); };

// Logic -----------------------------------------------------------------------------------------------------------------
export const vand = op2(Op.v128_and), vor = op2(Op.v128_or), vxor = op2(Op.v128_xor), vandn: V2 = (g, a, b) => g.v(Op.v128_andnot, b, a);

// Shuffles --------------------------------------------------------------------------------------------------------------
const interleave = (n: number, from: number): V2 => { const e = 16 / n, order: number[] = []; for (let i = 0; i < e / 2; i++) order.push(from * e / 2 + i, e + from * e / 2 + i); return shuffled(n, order); };
export const unpackLow = (n: number): V2 => interleave(n, 0);
export const unpackHigh = (n: number): V2 => interleave(n, 1);
const two = (imm: number, i: number) => imm >> 2 * i & 3;
export const shufps = packedImm((g, a, b, m) => g.shuffle(lanes(4, [two(m, 0), two(m, 1), 4 + two(m, 2), 4 + two(m, 3)]), a, b));
export const shufpd = packedImm((g, a, b, m) => g.shuffle(lanes(8, [m & 1, 2 + (m >> 1 & 1)]), a, b));
export const pshufd = packed1Imm((g, a, m) => g.shuffle(lanes(4, [0, 1, 2, 3].map(i => two(m, i))), a, a));
export const wordOrder = (m: number, from = 0): number[] => [0, 1, 2, 3].map(i => from + two(m, i));
export const pshuflw = packed1Imm((g, a, m) => g.shuffle(lanes(2, [...wordOrder(m), 4, 5, 6, 7]), a, a));
export const pshufhw = packed1Imm((g, a, m) => g.shuffle(lanes(2, [0, 1, 2, 3, ...wordOrder(m, 4)]), a, a));
/** BLENDPS, BLENDPD, PBLENDW: a bit an element of n bytes. */
export const blend = (n: number): Semantics => packedImm((g, a, b, m) => g.shuffle(lanes(n, Array.from({ length: 16 / n }, (_, i) => i + (m >> i & 1 ? 16 / n : 0))), a, b));
/** PBLENDVB, BLENDVPS, BLENDVPD: the sign of each element of XMM0. `signs` spreads it. */
export const blendv = (signs: V1): Semantics => g => { const a = g.dst(128), b = g.src(128), m = g.field(128, CPU.xmm.at); g.setDst(g.v(Op.v128_bitselect, b, a, signs(g, m)), 128); };
/** Bytes imm.. of src with dst above it, then zeros. */
export const palignr = packedImm((g, a, b, m) => alignBytes(g, a, b, m));
export const alignBytes = (g: Gen, a: Val, b: Val, m: number): Val =>
  m <= 16 ? g.shuffle(Array.from({ length: 16 }, (_, i) => i + m), b, a) : g.shuffle(Array.from({ length: 16 }, (_, i) => Math.min(i + m - 16, 31)), a, zero(g));
export const pslldq: Semantics = g => { const n = Math.min(g.known(), 16); g.setDst(g.shuffle(Array.from({ length: 16 }, (_, i) => 16 - n + i), zero(g), g.dst(128)), 128); };
export const psrldq: Semantics = g => { const n = Math.min(g.known(), 16); g.setDst(g.shuffle(Array.from({ length: 16 }, (_, i) => n + i), g.dst(128), zero(g)), 128); };

// Elements ----------------------------------------------------------------------------------------------------------------
export const EXTRACT = { 8: Op.i8x16_extract_lane_u, 16: Op.i16x8_extract_lane_u, 32: Op.i32x4_extract_lane, 64: Op.i64x2_extract_lane } as const;
export const REPLACE = { 8: Op.i8x16_replace_lane, 16: Op.i16x8_replace_lane, 32: Op.i32x4_replace_lane, 64: Op.i64x2_replace_lane } as const;
const elements = (w: 8 | 16 | 32 | 64) => 128 / w - 1;
/** PEXTRB, PEXTRW, EXTRACTPS; width of PEXTRD/PEXTRQ by the operand. A register takes the element zero-extended. */
export const pextr = (e: 8 | 16 | 32 | 0): Semantics => (g, w) => {
  const n = e || (w === 64 ? 64 : 32), v = g.extract(EXTRACT[n], g.known() & elements(n), g.src(128));
  if (g.dstMem) g.setDst(v, n); else g.setDst(n === 64 ? v : g.cast(32, w, v));
};
export const pinsr = (e: 8 | 16 | 0): Semantics => g => {
  const n = e || (g.sw === 64 ? 64 : 32), v = g.src(n);
  g.setDst(g.replace(REPLACE[n], g.known() & elements(n), g.dst(128), v), 128);
};
export const insertps: Semantics = g => {
  const m = g.known(), v = g.srcMem ? g.src(32) : g.extract(Op.i32x4_extract_lane, m >> 6, g.src(128)), r = g.let(g.replace(Op.i32x4_replace_lane, m >> 4 & 3, g.dst(128), v));
  g.setDst(m & 15 ? g.shuffle(lanes(4, [0, 1, 2, 3].map(i => m >> i & 1 ? 4 : i)), r, zero(g)) : r, 128);
};
