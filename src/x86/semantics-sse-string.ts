/** PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. The immediate is known, so each of its modes has text of its own. SDM Vol. 2B 4.1. */
import { Op } from "../wasm/opcodes.ts";
import { I32 } from "../wasm/writer.ts";
import type { Gen, Val } from "./gen.ts";
import type { Semantics } from "./semantics.ts";
import { lanes, widen, zero } from "./semantics-sse.ts";
import { CPU, EFLAGS, RAX, RCX, RDX } from "./state.ts";

/** imm8, SDM Vol. 2B 4.1.1 to 4.1.5. */
const STRING = { words: 1, signed: 2, aggregation: 0xc, ranges: 4, equalEach: 8, equalOrdered: 0xc, negative: 0x10, masked: 0x20, most: 0x40 } as const;
/** Bit 7 of the immediate is reserved; the decoder puts REX.W there. */
const REX_W = 0x80;
const BYTES = { n: 16, eq: Op.i8x16_eq, ge: [Op.i8x16_ge_u, Op.i8x16_ge_s], gt: Op.i8x16_gt_s, splat: Op.i8x16_splat, bitmask: Op.i8x16_bitmask, iota: [0x0706050403020100n, 0x0f0e0d0c0b0a0908n] } as const;
const WORDS = { n: 8, eq: Op.i16x8_eq, ge: [Op.i16x8_ge_u, Op.i16x8_ge_s], gt: Op.i16x8_gt_s, splat: Op.i16x8_splat, bitmask: Op.i16x8_bitmask, iota: [0x0003000200010000n, 0x0007000600050004n] } as const;
type Elements = typeof BYTES | typeof WORDS;

const bits = (g: Gen, e: Elements, v: Val): Val => g.vi(e.bitmask, v, I32);
const nth = (g: Gen, e: Elements, v: Val, i: number): Val => g.shuffle(lanes(16 / e.n, Array<number>(e.n).fill(i)), v, v);
/** A string ends at its first zero element. */
const implicitLength = (g: Gen, e: Elements, v: Val): Val => g.un(Op.i32_ctz, I32, g.or(32, bits(g, e, g.v(e.eq, v, zero(g))), g.k(32, 1 << e.n)));
/** The absolute value of a length register, at most n. */
function explicitLength(g: Gen, e: Elements, wide: boolean, reg: number): Val {
  const w = wide ? 64 : 32, v = g.reg(w, reg), n = g.k(w, e.n), m = g.let(g.sel(w, g.lts(w, v, g.k(w, 0)), g.sub(w, g.k(w, 0), v), v));
  return g.cast(w, 32, g.sel(w, g.ltu(w, m, n), m, n));
}
/** IntRes1: a bit an element of b. `la` is a's length; va, vb have a bit for each valid element. Elements past an end compare as 4.1.6 says. */
function aggregate(g: Gen, e: Elements, imm: number, a: Val, b: Val, la: Val, va: Val, vb: Val): Val {
  const all = Array.from({ length: e.n }, (_, i) => i), when = (c: Val, v: Val, otherwise: number) => g.sel(32, c, v, g.k(32, otherwise)), longer = (i: number) => g.ltu(32, g.k(32, i), la);
  switch (imm & STRING.aggregation) {
    case 0: {
      // what is past a's end repeats its first element
      const s = g.let(g.v(Op.v128_bitselect, a, nth(g, e, a, 0), g.v(e.gt, g.v(e.splat, la), g.vconst(e.iota[0], e.iota[1]))));
      const found = all.map(i => g.v(e.eq, b, nth(g, e, s, i))).reduce((x, y) => g.v(Op.v128_or, x, y));
      return when(la, g.and(32, bits(g, e, found), vb), 0);
    }
    case STRING.ranges: {
      const ge = e.ge[imm & STRING.signed ? 1 : 0];
      const within = (i: number) => when(longer(i + 1), bits(g, e, g.v(Op.v128_and, g.v(ge, b, nth(g, e, a, i)), g.v(ge, nth(g, e, a, i + 1), b))), 0);
      return g.and(32, vb, all.filter(i => i % 2 === 0).map(within).reduce((x, y) => g.or(32, x, y)));
    }
    case STRING.equalEach: {
      const same = g.and(32, bits(g, e, g.v(e.eq, a, b)), g.and(32, va, vb)), past = g.and(32, g.not(32, g.or(32, va, vb)), g.k(32, (1 << e.n) - 1));
      return g.or(32, same, past);
    }
    default: {
      const from = (i: number) => when(longer(i), g.or(32, g.shr(32, g.and(32, bits(g, e, g.v(e.eq, b, nth(g, e, a, i))), vb), g.k(32, i)), g.k(32, (1 << e.n) - (1 << e.n - i))), -1);
      return g.and(32, all.map(from).reduce((x, y) => g.and(32, x, y)), g.k(32, (1 << e.n) - 1));
    }
  }
}
export const pcmpstr = (explicit: boolean, index: boolean): Semantics => g => {
  const imm = g.known(), e = imm & STRING.words ? WORDS : BYTES, wide = (imm & REX_W) !== 0, full = (1 << e.n) - 1, a = g.dst(128), b = g.src(128);
  const la = g.let(explicit ? explicitLength(g, e, wide, RAX) : implicitLength(g, e, a)), lb = g.let(explicit ? explicitLength(g, e, wide, RDX) : implicitLength(g, e, b));
  const valid = (l: Val): Val => g.let(g.sub(32, g.shl(32, g.k(32, 1), l), g.k(32, 1))), va = valid(la), vb = valid(lb);
  const r = aggregate(g, e, imm, a, b, la, va, vb);
  const m = g.let(imm & STRING.negative ? g.xor(32, r, imm & STRING.masked ? vb : g.k(32, full)) : r);
  const flag = (c: Val, f: number): Val => g.shl(32, c, g.k(32, Math.log2(f))), short = (l: Val): Val => g.ltu(32, l, g.k(32, e.n));
  g.setArith([flag(g.ne(32, m, g.k(32, 0)), EFLAGS.CF), flag(short(lb), EFLAGS.ZF), flag(short(la), EFLAGS.SF), flag(g.and(32, m, g.k(32, 1)), EFLAGS.OF)].reduce((x, y) => g.or(32, x, y)));
  if (index) {
    const at = imm & STRING.most ? g.sub(32, g.k(32, 31), g.un(Op.i32_clz, I32, m)) : g.un(Op.i32_ctz, I32, m);
    g.setReg(32, RCX, g.sel(32, m, at, g.k(32, e.n)));
  } else g.setField(128, CPU.xmm.at, imm & STRING.most ? expand(g, m, e.n) : widen(g, 32, m));
};
/** Each bit of m over its element. */
function expand(g: Gen, m: Val, n: number): Val {
  if (n === 8) { const bit = g.vconst(0x0008000400020001n, 0x0080004000200010n); return g.v(Op.i16x8_eq, g.v(Op.v128_and, g.v(Op.i16x8_splat, m), bit), bit); }
  const bit = g.vconst(0x8040201008040201n, 0x8040201008040201n), v = g.let(g.v(Op.i16x8_splat, m));
  const spread = g.shuffle([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], v, v);
  return g.v(Op.i8x16_eq, g.v(Op.v128_and, spread, bit), bit);
}
