/** Conversions: between the formats, to and from integers and packed decimal, rounding to integral, remainder, scale, extract. SDM Vol. 1 4.8, 8.3, 8.5.1.2. */
import { CLS, F80, FLAG, finite, infinity, invalid, isNan, operands, propagate, round, shiftRound, zero, type Env, type Format, type Fp } from "./softfloat.ts";

/** To another format (FST m32, CVTSD2SS ...). The x87 notes no DE for a store. */
export function convert(to: Format, e: Env, x: Fp, denormalCounts = true): bigint {
  if (x.cls === CLS.unsupported) return invalid(to, e);
  if (isNan(x)) return propagate(to, e, x, x);
  if (x.cls === CLS.inf) return infinity(to, x.sign);
  if (x.cls === CLS.zero) return zero(to, x.sign);
  if (x.denormal && denormalCounts) e.flags |= FLAG.DE;
  return round(to, e, x.sign, x.exp, x.sig);
}
export const fpFromInt = (n: bigint): Fp => n === 0n ? { cls: CLS.zero, sign: 0, exp: 0, sig: 0n, denormal: false } : finite(n < 0n ? 1 : 0, 0, n < 0n ? -n : n);
export const fromInt = (to: Format, e: Env, n: bigint): bigint => n === 0n ? zero(to, 0) : round(to, e, n < 0n ? 1 : 0, 0, n < 0n ? -n : n);

/** Magnitude of a finite number rounded to an integer; PE and `up` as by rule. Numbers beyond 2^64 come back as 2^80. */
export function integral(e: Env, x: Fp, rc: number): bigint {
  e.up = false;
  if (x.cls === CLS.zero) return 0n;
  if (x.exp > 0) return 1n << 80n;
  const r = shiftRound(rc, x.sign, x.sig, -x.exp);
  if (r.inexact) e.flags |= FLAG.PE;
  e.up = r.up;
  return r.m;
}
/** To a signed integer of `bits`, as an unsigned pattern. Out of range, infinite or NaN: IE and the integer indefinite 100...0. */
export function toInt(e: Env, x: Fp, bits: number, rc = e.rc): bigint {
  const limit = 1n << BigInt(bits - 1);
  if (x.cls <= CLS.finite) {
    const before = e.flags, m = integral(e, x, rc);
    if (m < limit || (x.sign === 1 && m === limit)) return BigInt.asUintN(bits, x.sign ? -m : m);
    e.flags = before;
    e.up = false;
  }
  e.flags |= FLAG.IE;
  return limit;
}
/** FRNDINT, ROUNDPS ...: integral value in the same format; the sign of a zero stays. */
export function roundToIntegral(f: Format, e: Env, x: Fp, rc: number): bigint {
  if (x.cls === CLS.unsupported) return invalid(f, e);
  if (isNan(x)) return propagate(f, e, x, x);
  if (x.cls === CLS.inf) return infinity(f, x.sign);
  if (x.cls === CLS.zero) return zero(f, x.sign);
  if (x.exp >= 0) return round(f, e, x.sign, x.exp, x.sig);
  const m = integral(e, x, rc), up = e.up;
  if (m === 0n) return zero(f, x.sign);
  const bits = round(f, e, x.sign, 0, m);
  e.up = up;
  return bits;
}

/** Packed BCD, 18 digits and a sign byte. Nibbles above nine count as they are: the manual leaves them undefined. */
export function fromBcd(bits: bigint): Fp {
  let n = 0n;
  for (let i = 17; i >= 0; i--) n = n * 10n + (bits >> BigInt(i * 4) & 15n);
  const sign = Number(bits >> 79n & 1n);
  return n === 0n ? { cls: CLS.zero, sign, exp: 0, sig: 0n, denormal: false } : finite(sign, 0, n);
}
export const BCD_INDEFINITE = 0xffffc000000000000000n;
export function toBcd(e: Env, x: Fp): bigint {
  if (x.cls <= CLS.finite) {
    const before = e.flags;
    let m = integral(e, x, e.rc);
    if (m < 10n ** 18n) {
      let bits = BigInt(x.sign) << 79n;
      for (let i = 0n; m > 0n; i += 4n, m /= 10n) bits |= m % 10n << i;
      return bits;
    }
    e.flags = before;
    e.up = false;
  }
  e.flags |= FLAG.IE;
  return BCD_INDEFINITE;
}

/**
 * FPREM (`nearest` false) and FPREM1: one step of the exact remainder.
 * @returns the bits; `quotient` low bits of it when complete; `partial` when the operands are 64 or more binades apart
 */
export function remainder(e: Env, x: Fp, y: Fp, nearest: boolean): { bits: bigint; quotient: number; partial: boolean } {
  const done = (bits: bigint, quotient = 0): { bits: bigint; quotient: number; partial: boolean } => ({ bits, quotient, partial: false });
  const nan = operands(F80, e, x, y);
  if (nan !== undefined) return done(nan);
  if (x.cls === CLS.inf || y.cls === CLS.zero) { e.flags &= ~FLAG.DE; return done(invalid(F80, e)); }
  if (x.cls === CLS.zero) return done(zero(F80, x.sign));
  if (y.cls === CLS.inf) return done(round(F80, { ...e, masks: FLAG.all }, x.sign, x.exp, x.sig));
  const d = x.exp - y.exp;
  if (d < -1) return done(round(F80, e, x.sign, x.exp, x.sig));
  if (d >= 64) {
    const n = d & 31 | 32, rest = (x.sig << BigInt(n)) % y.sig;
    const exp = y.exp + d - n;
    return { bits: rest === 0n ? zero(F80, x.sign) : round(F80, e, x.sign, exp, rest), quotient: 0, partial: true };
  }
  const exp = Math.min(x.exp, y.exp), a = x.sig << BigInt(x.exp - exp), b = y.sig << BigInt(y.exp - exp);
  let q = a / b, rest = a % b, sign = x.sign;
  if (nearest && (rest * 2n > b || (rest * 2n === b && q & 1n))) { q++; rest = b - rest; sign ^= 1; }
  return done(rest === 0n ? zero(F80, x.sign) : round(F80, e, sign, exp, rest), Number(q & 7n));
}

/** FSCALE: x * 2^trunc(y). */
export function scale(e: Env, x: Fp, y: Fp): bigint {
  const nan = operands(F80, e, x, y);
  if (nan !== undefined) return nan;
  if (y.cls === CLS.inf) {
    if (x.cls === CLS.inf && y.sign) return invalid(F80, e);
    if (x.cls === CLS.zero && !y.sign) return invalid(F80, e);
    return y.sign ? zero(F80, x.sign) : infinity(F80, x.sign);
  }
  if (x.cls === CLS.inf) return infinity(F80, x.sign);
  if (x.cls === CLS.zero) return zero(F80, x.sign);
  // by zero: a denormal comes back as it is, whatever the masks
  if (y.cls === CLS.zero) return round(F80, { ...e, masks: FLAG.all }, x.sign, x.exp, x.sig);
  const n = y.exp > -46 ? 1 << 17 : y.exp < -63 ? 0 : Number(y.sig >> BigInt(-y.exp));
  return round(F80, e, x.sign, x.exp + (y.sign ? -n : n), x.sig);
}

/** FXTRACT: exponent and significand, both as 80-bit numbers. */
export function extract(e: Env, x: Fp): { exponent: bigint; significand: bigint } {
  if (x.cls === CLS.unsupported) { const bits = invalid(F80, e); return { exponent: bits, significand: bits }; }
  if (isNan(x)) { const bits = propagate(F80, e, x, x); return { exponent: bits, significand: bits }; }
  if (x.cls === CLS.inf) return { exponent: infinity(F80, 0), significand: infinity(F80, x.sign) };
  if (x.cls === CLS.zero) { e.flags |= FLAG.ZE; return { exponent: infinity(F80, 1), significand: zero(F80, x.sign) }; }
  if (x.denormal) e.flags |= FLAG.DE;
  return { exponent: fromInt(F80, e, BigInt(x.exp + 63)), significand: round(F80, e, x.sign, -63, x.sig) };
}
