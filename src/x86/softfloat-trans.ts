/**
 * The x87's transcendental functions in 320-bit fixed point: rounded correctly but for ties no one can meet. SDM Vol. 1 8.3.7 to 8.3.10,
 * special cases from the tables of Vol. 2. Sine, cosine and tangent reduce by the 66-bit pi that the processor has (8.3.8).
 */
import { bitLength, CLS, F80, FLAG, infinity, invalid, isNan, isqrt, operands, propagate, round, zero, type Env, type Fp } from "./softfloat.ts";

const P = 320n, ONE = 1n << P;
/** Arguments below 2^TINY: the first term of the series decides. */
const TINY = -140;
const top = (x: Fp): number => x.exp + 63;
const abs = (n: bigint): bigint => n < 0n ? -n : n;

/** 2 atanh(n / d): the logarithm of (d + n) / (d - n). */
function log(n: bigint, d: bigint): bigint {
  const z = (n << P) / d, zz = z * z >> P;
  let sum = 0n, power = z;
  for (let i = 1n; power !== 0n && power !== -1n; i += 2n, power = power * zz >> P) sum += power / i;
  return sum * 2n;
}
const LN2 = log(1n, 3n);
function atanSeries(z: bigint): bigint {
  const zz = z * z >> P;
  let sum = 0n, power = z;
  for (let i = 1n; power !== 0n; i += 2n, power = power * zz >> P) sum += i & 2n ? -(power / i) : power / i;
  return sum;
}
/** Machin's formula. */
const PI = 16n * atanSeries(ONE / 5n) - 4n * atanSeries(ONE / 239n);
/** pi as the processor holds it, with 66 significant bits below two integer bits. SDM Vol. 1 8.3.8. */
const PI66 = 0xc90fdaa22168c234cn;

/** A fixed-point result that is never exact. */
const inexact = (e: Env, value: bigint, sign = value < 0n ? 1 : 0): bigint => round(F80, e, sign, -Number(P), abs(value) | 1n);
/** A result that comes out exact and is reported as inexact all the same, with underflow when tiny. */
function claimInexact(e: Env, sign: number, exp: number, sig: bigint): bigint {
  const bits = round(F80, e, sign, exp, sig);
  e.flags |= (bits >> 64n & 0x7fffn) === 0n ? FLAG.PE | FLAG.UE : FLAG.PE;
  return bits;
}
const ieeeOne = (sign: number): bigint => round(F80, exactly(), sign, -63, 1n << 63n);
const exactly = (): Env => ({ rc: 0, masks: FLAG.all, flags: 0, x87: true, prec: 64, ftz: false, daz: false, up: false });
export const ONE80: bigint = ieeeOne(0);

/** F2XM1: 2^x - 1 for -1 <= x <= 1; beyond, where the manual leaves it undefined, x itself. */
export function f2xm1(e: Env, x: Fp, bits: bigint): bigint {
  if (x.cls === CLS.unsupported) return invalid(F80, e);
  if (isNan(x)) return propagate(F80, e, x, x);
  if (x.cls === CLS.zero) return bits;
  if (x.cls === CLS.inf) return x.sign ? ieeeOne(1) : bits;
  if (x.denormal) e.flags |= FLAG.DE;
  if (top(x) >= 0) {
    e.flags |= FLAG.PE;
    return x.sig === 1n << 63n && top(x) === 0 && x.sign ? round(F80, e, 1, -1, 1n) : bits;
  }
  const y = x.sig * LN2;
  if (top(x) < TINY) return round(F80, e, x.sign, x.exp - Number(P), y | 1n);
  const t = x.sign ? -(y >> BigInt(-x.exp)) : y >> BigInt(-x.exp);
  let sum = 0n, term = t;
  for (let i = 2n; term !== 0n && term !== -1n; i++) { sum += term; term = (term * t >> P) / i; }
  return inexact(e, sum);
}

/** log2(n / d), rounded down a little, for n / d not a power of two. */
function log2(n: bigint, d: bigint): bigint {
  let k = bitLength(n) - bitLength(d);
  if (k > 0) d <<= BigInt(k); else n <<= BigInt(-k);
  if (n * n > 2n * d * d) { d <<= 1n; k++; } else if (2n * n * n < d * d) { n <<= 1n; k--; }
  return (BigInt(k) << P) + (log(n - d, n + d) << P) / LN2;
}
/** y times a logarithm of which the sign is known: the special cases of both instructions. `l`: -2 minus infinity, -1, 0, 1, 2. */
function timesLog(e: Env, y: Fp, l: number): bigint | undefined {
  const sign = y.sign ^ (l < 0 ? 1 : 0);
  if (y.cls === CLS.inf) return l === 0 ? invalid(F80, e) : infinity(F80, sign);
  if (y.cls === CLS.zero) return l === 2 || l === -2 ? invalid(F80, e) : zero(F80, sign);
  return l === 2 || l === -2 ? infinity(F80, sign) : l === 0 ? zero(F80, sign) : undefined;
}
/** FYL2X: y * log2(x). */
export function fyl2x(e: Env, x: Fp, y: Fp): bigint {
  const nan = operands(F80, e, x, y);
  if (nan !== undefined) return nan;
  if (x.sign && x.cls !== CLS.zero) { e.flags &= ~FLAG.DE; return invalid(F80, e); }
  const power = x.cls === CLS.finite && x.sig === 1n << 63n, k = top(x);
  const l = x.cls === CLS.zero ? -2 : x.cls === CLS.inf ? 2 : power && k === 0 ? 0 : k < 0 ? -1 : 1;
  const known = timesLog(e, y, l);
  if (l === -2 && y.cls === CLS.finite) e.flags = e.flags & ~FLAG.DE | FLAG.ZE;
  if (known !== undefined) return known;
  const sign = y.sign ^ (l < 0 ? 1 : 0);
  if (power) return claimInexact(e, sign, y.exp, y.sig * BigInt(Math.abs(k)));
  const r = abs((BigInt(k) << P) + log2(x.sig, 1n << 63n));
  return round(F80, e, sign, y.exp - Number(P), y.sig * r | 1n);
}
/** FYL2XP1: y * log2(x + 1). For x <= -1, which the manual leaves undefined, x itself. */
export function fyl2xp1(e: Env, x: Fp, y: Fp, xBits: bigint): bigint {
  const nan = operands(F80, e, x, y);
  if (nan !== undefined) return nan;
  if (x.sign && x.cls === CLS.inf) { e.flags &= ~FLAG.DE; return invalid(F80, e); }
  if (x.cls === CLS.zero) return y.cls === CLS.inf ? invalid(F80, e) : zero(F80, x.sign ^ y.sign);
  const known = timesLog(e, y, x.cls === CLS.inf ? 2 : x.sign ? -1 : 1);
  if (known !== undefined) return known;
  if (x.sign && top(x) >= 0) { e.flags |= FLAG.PE; return xBits; }
  const sign = x.sign ^ y.sign;
  if (top(x) < TINY) return round(F80, e, sign, x.exp + y.exp - Number(P), x.sig * y.sig * ((ONE << P) / LN2) >> P << P | 1n);
  if (x.exp > 200) return round(F80, e, sign, y.exp - Number(P), y.sig * ((BigInt(top(x)) << P) + log2(x.sig, 1n << 63n)) | 1n);
  const d = 1n << BigInt(Math.max(0, -x.exp)), n = x.exp < 0 ? x.sig : x.sig << BigInt(x.exp);
  const sum = x.sign ? d - n : d + n;
  if ((sum & (sum - 1n)) === 0n) return claimInexact(e, sign, y.exp, y.sig * BigInt(Math.abs(bitLength(sum) - bitLength(d))));
  return round(F80, e, sign, y.exp - Number(P), y.sig * abs(log2(sum, d)) | 1n);
}

function atan(r: bigint): bigint {
  for (let i = 0; i < 3; i++) r = (r << P) / (ONE + isqrt(ONE * ONE + r * r));
  return 8n * atanSeries(r);
}
/** FPATAN: the angle of the point (x, y). */
export function fpatan(e: Env, x: Fp, y: Fp): bigint {
  const nan = operands(F80, e, x, y);
  if (nan !== undefined) return nan;
  if (y.cls === CLS.inf) return inexact(e, x.cls !== CLS.inf ? PI / 2n : x.sign ? PI * 3n / 4n : PI / 4n, y.sign);
  if (x.cls === CLS.inf || y.cls === CLS.zero) return x.sign ? inexact(e, PI, y.sign) : zero(F80, y.sign);
  if (x.cls === CLS.zero) return inexact(e, PI / 2n, y.sign);
  const steep = y.exp > x.exp || (y.exp === x.exp && y.sig > x.sig);
  const n = steep ? x : y, d = steep ? y : x, gap = n.exp - d.exp;
  if (gap < TINY) {
    if (steep) return inexact(e, PI / 2n, y.sign);
    if (x.sign) return inexact(e, PI, y.sign);
    const q = (n.sig << 128n) / d.sig, exact = q * d.sig === n.sig << 128n;
    return exact ? claimInexact(e, y.sign, gap - 128, q) : round(F80, e, y.sign, gap - 129, q << 1n | 1n);
  }
  const a = atan((n.sig << P) / (d.sig << BigInt(-gap)));
  return inexact(e, steep ? x.sign ? PI / 2n + a : PI / 2n - a : x.sign ? PI - a : a, y.sign);
}

/** |x| < 2^63 brought to a quadrant k and a rest within a quarter turn (fixed point; x = k * pi/2 + rest). */
function reduce(x: Fp): { k: number; rest: bigint } {
  const scale = Math.max(-x.exp, 67), a = x.sig << BigInt(scale + x.exp), h = PI66 << BigInt(scale - 67);
  const k = (2n * a + h) / (2n * h), rest = a - k * h << P - BigInt(scale);
  return x.sign ? { k: Number(-k & 3n), rest: -rest } : { k: Number(k & 3n), rest };
}
function taylor(x: bigint, first: bigint, i: bigint): bigint {
  const xx = x * x >> P;
  let sum = 0n, term = first;
  for (; term !== 0n && term !== -1n; i += 2n) { sum += term; term = -(term * xx >> P) / (i * (i + 1n)); }
  return sum;
}
const sine = (x: bigint): bigint => taylor(x, x, 2n);
const cosine = (x: bigint): bigint => taylor(x, ONE, 1n);

/** FSIN, FCOS, FPTAN share the special cases. null: out of range, C2 is to be set. */
function trig(e: Env, x: Fp, atZero: () => bigint, tiny: () => bigint, main: (k: number, rest: bigint) => bigint): bigint | null {
  if (x.cls === CLS.unsupported || x.cls === CLS.inf) return invalid(F80, e);
  if (isNan(x)) return propagate(F80, e, x, x);
  if (x.cls === CLS.zero) return atZero();
  if (top(x) >= 63) return null;
  if (x.denormal) e.flags |= FLAG.DE;
  if (top(x) < TINY) return tiny();
  const { k, rest } = reduce(x);
  return main(k, rest);
}
const turn = (k: number, s: () => bigint, c: () => bigint): bigint => k === 0 ? s() : k === 1 ? c() : k === 2 ? -s() : -c();
/** The argument itself, as the processor answers in every rounding mode. */
const near = (e: Env, x: Fp): bigint => claimInexact(e, x.sign, x.exp, x.sig);

export const fsin = (e: Env, x: Fp): bigint | null =>
  trig(e, x, () => zero(F80, x.sign), () => near(e, x), (k, r) => inexact(e, turn(k, () => sine(r), () => cosine(r))));
export const fcos = (e: Env, x: Fp): bigint | null =>
  trig(e, x, () => ONE80, () => inexact(e, ONE - 1n), (k, r) => inexact(e, turn((k + 1) & 3, () => sine(r), () => cosine(r))));
export const fptan = (e: Env, x: Fp): bigint | null =>
  trig(e, x, () => zero(F80, x.sign), () => near(e, x), (k, r) => {
    const s = sine(r), c = cosine(r), tan = k & 1 ? -(c << P) / s : (s << P) / c;
    return inexact(e, tan);
  });
const LN10 = 3n * LN2 + log(1n, 9n);
/** FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2 in fixed point, by the low three bits of the opcode. */
const CONSTANTS: readonly bigint[] = [ONE, (LN10 << P) / LN2, (ONE << P) / LN2, PI, (LN2 << P) / LN10, LN2, 0n];
/** The constant as the rounding control has it; no flags. SDM Vol. 2 "FLD1/FLDL2T/...". */
export function constant80(rc: number, i: number): bigint {
  const value = CONSTANTS[i] ?? 0n;
  return i === 0 ? ONE80 : value === 0n ? zero(F80, 0) : inexact({ ...exactly(), rc }, value);
}
