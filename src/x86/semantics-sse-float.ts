/**
 * SSE floating point. Each instruction has two ways: wasm's own arithmetic where its result is the manual's and no bit of MXCSR can change,
 * and otherwise sseSlow (sse-float.ts), exact for every operand and control word. SDM Vol. 1 ch. 11, Vol. 2.
 *
 * wasm rounds to nearest and tells nothing of what happened, so results that may be inexact need MXCSR at nearest, with everything masked, no FTZ or
 * DAZ, and PE (which is sticky) already set; or a proof that the result is exact, which is only looked for while PE is clear. NaNs, infinities made from numbers, denormal operands and results near underflow go the slow way.
 */
import { Op } from "../wasm/opcodes.ts";
import { F32, F64, I32, I64, type Ty, V128 } from "../wasm/writer.ts";
import { MXCSR_ORDINARY, type Gen, type Val, type W, helperIndex, tyOf } from "./gen.ts";
import type { Semantics } from "./semantics.ts";
import { lanes, widen } from "./semantics-sse.ts";
import { checkPending, setMm, toMmxNow } from "./semantics-mmx.ts";
import { SSE } from "./sse-float.ts";
import { CPU, EFLAGS, MXCSR } from "./state.ts";

const { masks: MASKS, PM, PE, RC, DAZ, FTZ } = MXCSR;
/** Nearest, everything masked, no FTZ or DAZ: exact results leave MXCSR alone. With PE set (MXCSR_ORDINARY), inexact ones do too. */
const masked = (g: Gen): Val => g.mxcsrIs(MASKS | RC | DAZ | FTZ, MASKS);
const ordinary = (g: Gen): Val => g.mxcsrIs(MXCSR_ORDINARY.mask, MXCSR_ORDINARY.value);
/** The same where nothing but inexactness can happen; truncation does not look at RC. */
const quietPrecision = (g: Gen, truncate: boolean): Val => g.mxcsrIs(PM | PE | DAZ | (truncate ? 0 : RC), PM | PE);

/** A value for code that is not reached. */
const nothing = (g: Gen, w: W): Val => (w === 128 ? g.vconst(0n, 0n) : g.k(w, 0));
/** Do it exactly in TypeScript: `b` is the source's value; the first operand is the destination register. The result at width w. */
export function slow(g: Gen, name: string, imm: number, b: Val, bw: W, w: W): Val {
  const id = SSE[name], c = g.code;
  if (id === undefined) throw new Error(`No exact operation ${name}`);
  if (g.byHand()) return nothing(g, w);
  g.cpu(); g.emit(b); c.mem(bw === 128 ? Op.v128_store : bw === 64 ? Op.i64_store : Op.i32_store, CPU.wide.at);
  const a = g.dstSlot();
  c.i32(id); g.emit(a); g.cpu().i32(CPU.wide.at).op(Op.i32_add).i32(imm).call(helperIndex("sse"));
  g.faultCheck();
  return g.field(w, CPU.wide.at);
}

/** Arithmetic on one or several lanes, written once for both. Comparisons give i32, or a mask for vectors. */
export interface Shape {
  readonly suffix: "SS" | "SD" | "PS" | "PD";
  readonly w: 32 | 64 | 128;
  readonly double: boolean;
  readonly ty: Ty;
  readonly ops: Readonly<Record<"add" | "sub" | "mul" | "div" | "sqrt" | "abs" | "eq" | "lt" | "le" | "ge" | "ceil" | "floor" | "trunc" | "nearest", number>>;
  readonly and: number; readonly or: number; readonly all: number;
}
const scalar = { and: Op.i32_and, or: Op.i32_or, all: 0 } as const;
export const SS: Shape = { suffix: "SS", w: 32, double: false, ty: F32, ...scalar, ops: {
  add: Op.f32_add, sub: Op.f32_sub, mul: Op.f32_mul, div: Op.f32_div, sqrt: Op.f32_sqrt, abs: Op.f32_abs, eq: Op.f32_eq, lt: Op.f32_lt, le: Op.f32_le, ge: Op.f32_ge,
  ceil: Op.f32_ceil, floor: Op.f32_floor, trunc: Op.f32_trunc, nearest: Op.f32_nearest } };
export const SD: Shape = { suffix: "SD", w: 64, double: true, ty: F64, ...scalar, ops: {
  add: Op.f64_add, sub: Op.f64_sub, mul: Op.f64_mul, div: Op.f64_div, sqrt: Op.f64_sqrt, abs: Op.f64_abs, eq: Op.f64_eq, lt: Op.f64_lt, le: Op.f64_le, ge: Op.f64_ge,
  ceil: Op.f64_ceil, floor: Op.f64_floor, trunc: Op.f64_trunc, nearest: Op.f64_nearest } };
export const PS: Shape = { suffix: "PS", w: 128, double: false, ty: V128, and: Op.v128_and, or: Op.v128_or, all: Op.i32x4_all_true, ops: {
  add: Op.f32x4_add, sub: Op.f32x4_sub, mul: Op.f32x4_mul, div: Op.f32x4_div, sqrt: Op.f32x4_sqrt, abs: Op.f32x4_abs, eq: Op.f32x4_eq, lt: Op.f32x4_lt, le: Op.f32x4_le, ge: Op.f32x4_ge,
  ceil: Op.f32x4_ceil, floor: Op.f32x4_floor, trunc: Op.f32x4_trunc, nearest: Op.f32x4_nearest } };
export const PD: Shape = { suffix: "PD", w: 128, double: true, ty: V128, and: Op.v128_and, or: Op.v128_or, all: Op.i64x2_all_true, ops: {
  add: Op.f64x2_add, sub: Op.f64x2_sub, mul: Op.f64x2_mul, div: Op.f64x2_div, sqrt: Op.f64x2_sqrt, abs: Op.f64x2_abs, eq: Op.f64x2_eq, lt: Op.f64x2_lt, le: Op.f64x2_le, ge: Op.f64x2_ge,
  ceil: Op.f64x2_ceil, floor: Op.f64x2_floor, trunc: Op.f64x2_trunc, nearest: Op.f64x2_nearest } };
export const SHAPES = [PS, PD, SS, SD] as const;

type Cmp = "eq" | "lt" | "le" | "ge";
const f1 = (g: Gen, s: Shape, op: keyof Shape["ops"], a: Val): Val => g.un(s.ops[op], s.ty, a);
const f2 = (g: Gen, s: Shape, op: keyof Shape["ops"], a: Val, b: Val): Val => g.bin(s.ops[op], s.ty, a, b);
const cmp = (g: Gen, s: Shape, op: Cmp, a: Val, b: Val): Val => g.bin(s.ops[op], s.ty === V128 ? V128 : I32, a, b);
const both = (g: Gen, s: Shape, a: Val, b: Val): Val => g.bin(s.and, s.ty === V128 ? V128 : I32, a, b);
const either = (g: Gen, s: Shape, a: Val, b: Val): Val => g.bin(s.or, s.ty === V128 ? V128 : I32, a, b);
const every = (g: Gen, s: Shape, m: Val): Val => (s.ty === V128 ? g.vi(s.all, m) : m);
/** Bits as a float value, and back. */
const float = (g: Gen, s: Shape, v: Val): Val => (s.w === 128 ? v : g.asFloat(s.w, v));
const bits = (g: Gen, s: Shape, v: Val): Val => (s.w === 128 ? v : g.asBits(s.w, v));
/** A constant in every lane, from its binary64 / binary32 bits. */
const splat = (g: Gen, s: Shape, x: { d: bigint; s: bigint }): Val => {
  if (s.ty === F64) return float(g, s, g.kbig(x.d));
  if (s.ty === F32) return float(g, s, g.k(32, Number(BigInt.asIntN(32, x.s))));
  const half = s.double ? x.d : x.s | x.s << 32n;
  return g.vconst(half, half);
};
const MIN = { d: 1n << 52n, s: 1n << 23n }, TWICE_MIN = { d: 2n << 52n, s: 2n << 23n }, INF = { d: 0x7ffn << 52n, s: 0xffn << 23n }, ZERO = { d: 0n, s: 0n };
/** No NaN, no denormal. */
const plain = (g: Gen, s: Shape, x: Val): Val => either(g, s, cmp(g, s, "ge", f1(g, s, "abs", x), splat(g, s, MIN)), isZero(g, s, x));
const isZero = (g: Gen, s: Shape, x: Val): Val => cmp(g, s, "eq", x, splat(g, s, ZERO));
const finite = (g: Gen, s: Shape, x: Val): Val => cmp(g, s, "lt", f1(g, s, "abs", x), splat(g, s, INF));
/** Rounding did not come near underflow (tininess is judged after rounding), or the result is an exact zero. */
const notTiny = (g: Gen, s: Shape, r: Val, ...zeroIf: Val[]): Val =>
  zeroIf.reduce((m, x) => either(g, s, m, isZero(g, s, x)), cmp(g, s, "ge", f1(g, s, "abs", r), splat(g, s, TWICE_MIN)));

/** The exponent of a scalar less `least`: negative below the smallest normal number (1) or twice that (2), for zero too. */
const exponentAbove = (g: Gen, s: Shape, least: 1 | 2, x: Val): Val => {
  const v = bits(g, s, x), exponent = s.double ? g.and(32, g.cast(64, 32, g.shr(64, v, g.k(64, 52))), g.k(32, 0x7ff)) : g.and(32, g.shr(32, v, g.k(32, 23)), g.k(32, 0xff));
  return g.sub(32, exponent, g.k(32, least));
};
/** What a scalar result must be for the usual way, and the operands with it: neither zero nor tiny, and far from overflow. Where operands are NaNs or infinities, so is the result, or a zero. */
interface Usual { readonly least: 1 | 2; readonly result: Val }
/** All of that and MXCSR in one comparison. */
const isUsual = (g: Gen, s: Shape, { least, result }: Usual, operands: readonly Val[]): Val => {
  const limit = s.double ? g.exponentLimit() : g.and(32, g.exponentLimit(), g.k(32, 0xff)), above = exponentAbove(g, s, least, result);
  if (operands.length === 0) return g.ltu(32, above, limit);
  const signs = operands.map(x => exponentAbove(g, s, 1, x)).reduce((x, y) => g.or(32, x, y));
  return g.ltu(32, g.or(32, above, g.and(32, signs, g.k(32, 1 << 31))), limit);
};
/** The operands are numbers, none of them zero or denormal. */
const areNormal = (g: Gen, s: Shape, xs: readonly Val[]): Val =>
  xs.map(x => g.ltu(32, exponentAbove(g, s, 1, x), g.k(32, s.double ? 0x7fe : 0xfe))).reduce((x, y) => g.and(32, x, y), g.k(32, 1));
/** Conditions for the quick way, the usual one first: each of the operands is plain (and known to be so, or looked at), and `more` of the result. */
const quick = (g: Gen, s: Shape, xs: readonly (readonly [x: Val, which: "dst" | "src"])[], usual: Usual | null, more: Val | null): Val[] => {
  const unknown = xs.filter(([x, which]) => !g.isNormal(which, s.suffix) && !g.ensureNormal(which, s.suffix, () => plain(g, s, x))), looked = unknown.map(([x]) => x);
  const whole = [...looked.map(x => plain(g, s, x)), more].filter(v => v !== null), plainly = whole.length ? every(g, s, whole.reduce((a, v) => both(g, s, a, v))) : g.k(32, 1);
  for (const [, which] of unknown) g.noteLooked(which, s.suffix);
  const first = s.ty === V128 ? null : usual ? isUsual(g, s, usual, looked) : areNormal(g, s, looked);
  return [first, plainly].filter(v => v !== null);
};

/** The source as a float, and its bits. */
const source = (g: Gen, s: Shape): [Val, Val] => {
  const loaded = s.w === 128 ? null : g.srcFloat(s.w), raw = loaded ? bits(g, s, loaded) : g.src(s.w);
  return [g.let(loaded ?? float(g, s, raw)), raw];
};
/** Operands of an instruction as floats: [a, b] and b's bits. */
const operands = (g: Gen, s: Shape): [Val, Val, Val] => {
  const a = g.dst(s.w), [b, raw] = source(g, s);
  return [g.let(float(g, s, a)), b, raw];
};
const choose = (g: Gen, s: Shape, fast: readonly Val[], result: () => Val, name: string, imm: number, raw: Val): void =>
  g.setDst(g.orSlow(tyOf(s.w), fast, result, () => slow(g, name, imm, raw, s.w, s.w)), s.w);

/** Low bits of a significand: two numbers without them have an exact product. */
const LOW_HALF = { d: (1n << 27n) - 1n, s: (1n << 12n) - 1n };
const isShort = (g: Gen, s: Shape, ...xs: Val[]): Val => {
  const v = xs.map(x => bits(g, s, x)).reduce((x, y) => (s.ty === V128 ? g.v(Op.v128_or, x, y) : g.or(s.w, x, y))), half = s.double ? LOW_HALF.d : LOW_HALF.s | LOW_HALF.s << 32n;
  return s.ty === V128 ? g.eqz(32, g.vi(Op.v128_any_true, g.v(Op.v128_and, v, g.vconst(half, half)))) : g.eqz(s.w, g.and(s.w, v, g.k(s.w, Number(s.double ? LOW_HALF.d : LOW_HALF.s))));
};
/** Is r certainly the exact result? Sums: the error as Knuth's two-sum gives it is zero. */
function isExact(g: Gen, s: Shape, op: "add" | "sub" | "mul" | "div" | "sqrt", a: Val, b: Val, r: Val): Val {
  const equal = (x: Val, y: Val) => every(g, s, cmp(g, s, "eq", x, y));
  if (op === "mul") return isShort(g, s, a, b);
  if (op === "div") return g.and(32, isShort(g, s, r, b), equal(f2(g, s, "mul", r, b), a));
  if (op === "sqrt") return g.and(32, isShort(g, s, r), equal(f2(g, s, "mul", r, r), b));
  const bb = g.let(f2(g, s, "sub", r, a)), left = f2(g, s, "sub", a, f2(g, s, "sub", r, bb));
  return equal(left, op === "add" ? f2(g, s, "sub", bb, b) : f2(g, s, "add", b, bb));
}
/** The result of wasm's arithmetic where one of `fits` and MXCSR (which all but the last have looked at) allow it; it is zero or normal then. */
const arithmetic = (g: Gen, s: Shape, op: "add" | "sub" | "mul" | "div" | "sqrt", fits: readonly Val[], a: Val, b: Val, r: Val, raw: Val): void => {
  const ty = tyOf(s.w), result = () => bits(g, s, r), precise = () => slow(g, `${op.toUpperCase()}${s.suffix}`, 0, raw, s.w, s.w), last = fits.at(-1)!;
  g.setDst(g.orSlow(ty, fits.map(v => (v === last ? g.and(32, v, ordinary(g)) : v)), result, () =>
    (g.byHand() ? nothing(g, s.w) : g.ifElse(ty, g.and(32, g.and(32, last, masked(g)), isExact(g, s, op, a, b, r)), result, precise))), s.w);
  g.noteNormal(s.suffix);
};
const normal = (g: Gen, s: Shape, r: Val): Val => both(g, s, finite(g, s, r), plain(g, s, r));

/** ADD, SUB, MUL, DIV. Sums that underflow are exact; only products and quotients can be tiny and inexact. */
export const arith = (s: Shape, op: "add" | "sub" | "mul" | "div"): Semantics => g => {
  const [a, b, raw] = operands(g, s), r = g.let(f2(g, s, op, a, b)), isSum = op === "add" || op === "sub";
  const more = isSum ? normal(g, s, r) : both(g, s, finite(g, s, r), op === "mul" ? notTiny(g, s, r, a, b) : notTiny(g, s, r, a));
  arithmetic(g, s, op, quick(g, s, [[a, "dst"], [b, "src"]], { least: isSum ? 1 : 2, result: r }, more), a, b, r, raw);
};
export const sqrt = (s: Shape): Semantics => g => {
  const [b, raw] = source(g, s), r = g.let(f1(g, s, "sqrt", b));
  arithmetic(g, s, "sqrt", quick(g, s, [[b, "src"]], { least: 1, result: r }, finite(g, s, r)), b, b, r, raw);
};
/** HADD, HSUB: the operation between neighbours. ADDSUB: subtract in even lanes, add in odd ones. */
export const horizontal = (s: Shape, op: "add" | "sub"): Semantics => g => {
  const n = s.double ? 8 : 4, e = 16 / n, order = (odd: number) => lanes(n, Array.from({ length: e }, (_, i) => 2 * i + odd));
  const d = g.dst(128), raw = g.src(128), a = g.let(g.shuffle(order(0), d, raw)), b = g.let(g.shuffle(order(1), d, raw)), r = g.let(f2(g, s, op, a, b));
  const ok = both(g, s, both(g, s, plain(g, s, a), plain(g, s, b)), finite(g, s, r));
  choose(g, s, [g.and(32, ordinary(g), every(g, s, ok))], () => r, `H${op.toUpperCase()}${s.suffix}`, 0, raw);
};
export const addsub = (s: Shape): Semantics => g => {
  const n = s.double ? 8 : 4, e = 16 / n, [a, b, raw] = operands(g, s);
  const r = g.let(g.shuffle(lanes(n, Array.from({ length: e }, (_, i) => (i & 1 ? e + i : i))), f2(g, s, "sub", a, b), f2(g, s, "add", a, b)));
  const ok = both(g, s, both(g, s, plain(g, s, a), plain(g, s, b)), finite(g, s, r));
  choose(g, s, [g.and(32, ordinary(g), every(g, s, ok))], () => r, `ADDSUB${s.suffix}`, 0, raw);
};
/** The source, unless the first operand is strictly below (above) it. */
export const minMax = (s: Shape, op: "min" | "max"): Semantics => g => {
  const [a, b, raw] = operands(g, s), first = op === "min" ? cmp(g, s, "lt", a, b) : cmp(g, s, "lt", b, a), x = bits(g, s, a), y = bits(g, s, b);
  const r = () => (s.ty === V128 ? g.v(Op.v128_bitselect, x, y, first) : g.sel(s.w, first, x, y));
  choose(g, s, quick(g, s, [[a, "dst"], [b, "src"]], null, null), r, `${op.toUpperCase()}${s.suffix}`, 0, raw);
  g.noteNormal(s.suffix);
};
/** CMPxx: predicates EQ LT LE UNORD NEQ NLT NLE ORD, upper bits ignored. */
export const compare = (s: Shape): Semantics => g => {
  const imm = g.known() & 7, [a, b, raw] = operands(g, s), p = imm & 3;
  const holds = p === 3 ? null : cmp(g, s, (["eq", "lt", "le"] as const)[p]!, a, b);
  const r = (): Val => {
    if (!holds) return s.ty === V128 ? (imm & 4 ? g.vconst(-1n, -1n) : g.vconst(0n, 0n)) : g.k(s.w, imm & 4 ? -1 : 0);
    if (s.ty === V128) return imm & 4 ? g.v(Op.v128_not, holds) : holds;
    const m = g.sub(32, imm & 4 ? holds : g.k(32, 0), imm & 4 ? g.k(32, 1) : holds);
    return g.cast(32, s.w, m, true);
  };
  choose(g, s, quick(g, s, [[a, "dst"], [b, "src"]], null, null), r, `CMP${s.suffix}`, imm, raw);
};
/** COMISS and kin: ZF, PF, CF; the other arithmetic flags are cleared. */
export const comis = (s: Shape, name: string): Semantics => g => {
  const [a, b, raw] = operands(g, s);
  g.compared(quick(g, s, [[a, "dst"], [b, "src"]], null, null), cmp(g, s, "lt", a, b), cmp(g, s, "eq", a, b), cmp(g, s, "le", a, b), () => slow(g, name, 0, raw, s.w, 32));
};
/** Instructions that always go the exact way: RCP, RSQRT, DPPS, DPPD. `known` rows pass their immediate. */
export const exact = (name: string, w: W): Semantics => g => g.setDst(slow(g, name, Math.max(g.known(), 0), g.src(w), w, w), w);
/** ROUNDxx: imm bits 0-1 the mode, bit 2 takes MXCSR's, bit 3 reports no inexactness. */
export const round = (s: Shape): Semantics => g => {
  const imm = g.known(), [b, raw] = source(g, s);
  const r = g.let(f1(g, s, imm & 4 ? "nearest" : (["nearest", "floor", "ceil", "trunc"] as const)[imm & 3]!, b));
  let fast = every(g, s, plain(g, s, b));
  const exactly = every(g, s, cmp(g, s, "eq", r, b));
  if (imm & 4) fast = g.and(32, fast, g.mxcsrIs(RC, 0));
  if (!(imm & 8)) fast = g.and(32, fast, g.or(32, exactly, g.mxcsrIs(PM | PE, PM | PE)));
  choose(g, s, [fast], () => bits(g, s, r), `ROUND${s.suffix}`, imm & 15, raw);
};

// Conversions -------------------------------------------------------------------------------------------------------------
/** CVTSI2SS, CVTSI2SD. 32-bit integers are doubles; the others may be inexact. */
export const fromInt = (s: Shape): Semantics => g => {
  const wide = g.sw === 64, v = g.src(g.sw);
  const op = s.double ? (wide ? Op.f64_convert_i64_s : Op.f64_convert_i32_s) : wide ? Op.f32_convert_i64_s : Op.f32_convert_i32_s;
  const r = () => bits(g, s, g.un(op, s.ty, v));
  g.noteNormal(s.suffix);
  if (s.double && !wide) return g.setDst(r(), 64);
  const exactTo = s.double ? 2 ** 53 : 2 ** 24, w: W = wide ? 64 : 32;
  const small = g.leu(w, g.add(w, v, g.k(w, exactTo)), g.k(w, 2 * exactTo));
  g.setDst(g.orSlow(tyOf(s.w), [g.or(32, small, g.mxcsrIs(PM | PE | RC, PM | PE))], r, () => slow(g, `CVTSI2${s.suffix}${w}`, 0, v, w, s.w)), s.w);
};
/** CVTSS2SI, CVTTSD2SI and kin. */
export const toInt = (s: Shape, truncate: boolean): Semantics => (g, w) => {
  const [b, raw] = source(g, s), wide = w === 64, x = truncate ? b : g.let(f1(g, s, "nearest", b));
  const op = s.double ? (wide ? Op.i64_trunc_sat_f64_s : Op.i32_trunc_sat_f64_s) : wide ? Op.i64_trunc_sat_f32_s : Op.i32_trunc_sat_f32_s;
  const limit = wide ? { d: 0x43e0000000000000n, s: 0x5f000000n } : { d: 0x41e0000000000000n, s: 0x4f000000n };
  const r = g.let(g.un(op, wide ? I64 : I32, x)), exactly = cmp(g, s, "eq", truncate ? f1(g, s, "trunc", b) : x, b);
  const fast = g.and(32, cmp(g, s, "lt", f1(g, s, "abs", x), splat(g, s, limit)), g.or(32, exactly, quietPrecision(g, truncate)));
  g.setDst(g.orSlow(tyOf(w), [fast], () => r, () => slow(g, `CVT${truncate ? "T" : ""}${s.suffix}2SI${wide ? 64 : 32}`, 0, raw, s.w, w)), w);
};
export const cvtss2sd: Semantics = g => {
  const raw = g.src(32), b = g.let(float(g, SS, raw));
  g.setDst(g.orSlow(I64, [plain(g, SS, b)], () => bits(g, SD, g.un(Op.f64_promote_f32, F64, b)), () => slow(g, "CVTSS2SD", 0, raw, 32, 64)), 64);
};
/** A double narrows quietly when it is no NaN, and its float is finite and not tiny, or zero. */
const narrows = (g: Gen, s: Shape, r: Val): Val => both(g, s, finite(g, s, r), cmp(g, s, "ge", f1(g, s, "abs", r), splat(g, s, TWICE_MIN)));
export const cvtsd2ss: Semantics = g => {
  const raw = g.src(64), b = g.let(float(g, SD, raw)), r = g.let(g.un(Op.f32_demote_f64, F32, b)), fast = g.and(32, ordinary(g), g.or(32, narrows(g, SS, r), isZero(g, SD, b)));
  g.setDst(g.orSlow(I32, [fast], () => bits(g, SS, r), () => slow(g, "CVTSD2SS", 0, raw, 64, 32)), 32);
};
export const cvtps2pd: Semantics = g => {
  const raw = g.src(64), v = g.let(g.v(Op.i64x2_splat, raw));
  g.setDst(g.orSlow(V128, [every(g, PS, plain(g, PS, v))], () => g.v(Op.f64x2_promote_low_f32x4, v), () => slow(g, "CVTPS2PD", 0, raw, 64, 128)), 128);
};
export const cvtpd2ps: Semantics = g => {
  const b = g.src(128), r = g.let(g.v(Op.f32x4_demote_f64x2_zero, b)), twice = g.shuffle(lanes(4, [0, 1, 0, 1]), r, r);
  const zeros = g.shuffle(lanes(4, [0, 2, 0, 2]), isZero(g, PD, b), isZero(g, PD, b));
  const fast = g.and(32, ordinary(g), every(g, PS, g.v(Op.v128_or, narrows(g, PS, g.let(twice)), zeros)));
  g.setDst(g.orSlow(V128, [fast], () => r, () => slow(g, "CVTPD2PS", 0, b, 128, 128)), 128);
};
export const cvtdq2pd: Semantics = g => g.setDst(g.v(Op.f64x2_convert_low_i32x4_s, g.v(Op.i64x2_splat, g.src(64))), 128);
export const cvtdq2ps: Semantics = g => {
  const b = g.src(128), limit = (x: bigint) => g.vconst(x | x << 32n, x | x << 32n);
  const small = g.vi(Op.i32x4_all_true, g.v(Op.i32x4_le_u, g.v(Op.i32x4_add, b, limit(1n << 24n)), limit(2n << 24n)));
  g.setDst(g.orSlow(V128, [g.or(32, small, g.mxcsrIs(PM | PE | RC, PM | PE))], () => g.v(Op.f32x4_convert_i32x4_s, b), () => slow(g, "CVTDQ2PS", 0, b, 128, 128)), 128);
};
const LIMIT = { d: 0x41e0000000000000n, s: 0x4f000000n };
/** CVTPS2DQ, CVTPD2DQ and the truncating ones; CVTPS2PI and kin work on `toInts` too. */
const toInts = (g: Gen, s: Shape, truncate: boolean, b: Val, otherwise: () => Val): Val => {
  const x = truncate ? b : g.let(f1(g, s, "nearest", b)), exactly = every(g, s, cmp(g, s, "eq", truncate ? f1(g, s, "trunc", b) : x, b));
  const fast = g.and(32, every(g, s, cmp(g, s, "lt", f1(g, s, "abs", x), splat(g, s, LIMIT))), g.or(32, exactly, quietPrecision(g, truncate)));
  return g.orSlow(V128, [fast], () => g.v(s.double ? Op.i32x4_trunc_sat_f64x2_s_zero : Op.i32x4_trunc_sat_f32x4_s, x), otherwise);
};
export const packedToInt = (s: Shape, truncate: boolean): Semantics => g => {
  const b = g.src(128);
  g.setDst(toInts(g, s, truncate, b, () => slow(g, `CVT${truncate ? "T" : ""}${s.suffix}2DQ`, 0, b, 128, 128)), 128);
};

// Conversions from and to MMX registers ----------------------------------------------------------------------------------------
/** A memory operand leaves the x87 alone. */
const fromMm = (g: Gen): Val => {
  if (g.srcMem) return g.src(64);
  checkPending(g); toMmxNow(g);
  return g.src(64);
};
export const cvtpi2ps: Semantics = g => g.setDst(slow(g, "CVTPI2PS", 0, fromMm(g), 64, 64), 64);
/** Two 32-bit integers are two doubles. */
export const cvtpi2pd: Semantics = g => { const v = fromMm(g); g.setDst(g.v(Op.f64x2_convert_low_i32x4_s, g.v(Op.i64x2_splat, v)), 128); };
export const toPi = (s: Shape, truncate: boolean): Semantics => g => {
  checkPending(g);
  const raw = g.src(s.double ? 128 : 64);
  toMmxNow(g);
  const b = s.double ? raw : g.let(g.v(Op.i64x2_splat, raw));
  const r = toInts(g, s, truncate, b, () => widen(g, 64, slow(g, `CVT${truncate ? "T" : ""}${s.suffix}2PI`, 0, raw, s.double ? 128 : 64, 64)));
  setMm(g, g.extract(Op.i64x2_extract_lane, 0, r));
};
