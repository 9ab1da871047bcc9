/**
 * Floating point exact to the last flag, over bits: one text for binary32, binary64 and the x87's 80-bit format. The slow and always right
 * path; significands are BigInts. A number of 80 bits is sign and exponent << 64 | significand.
 * SDM Vol. 1 ch. 4.8 (formats, NaNs), 4.9 (exceptions), 8.5 (x87 exceptions), 11.5 (SSE exceptions).
 */

/** Exception flags, at the same bits in MXCSR and in the x87 status word; the masks of both stand in this order too. */
export const FLAG = { IE: 1, DE: 2, ZE: 4, OE: 8, UE: 16, PE: 32, all: 63, before: 7 } as const;
/** Rounding control as both control words encode it. */
export const RC = { near: 0, down: 1, up: 2, zero: 3 } as const;

export interface Format {
  readonly bits: number;
  /** Bits of significand, the integer bit among them. */
  readonly prec: number;
  readonly bias: number;
  /** Exponents of the smallest and the largest normal number. */
  readonly emin: number;
  readonly emax: number;
  /** Has the integer bit in the encoding (80-bit). */
  readonly explicit: boolean;
}
export const F32: Format = { bits: 32, prec: 24, bias: 127, emin: -126, emax: 127, explicit: false };
export const F64: Format = { bits: 64, prec: 53, bias: 1023, emin: -1022, emax: 1023, explicit: false };
export const F80: Format = { bits: 80, prec: 64, bias: 16383, emin: -16382, emax: 16383, explicit: true };

/** How to round and what is masked, with the flags gathered so far. */
export interface Env {
  rc: number;
  /** A set bit masks the exception. */
  masks: number;
  /** FLAG.*, gathered. */
  flags: number;
  /** x87 rules for NaNs and for unmasked overflow and underflow; else SSE's. */
  x87: boolean;
  /** x87 precision control: 24, 53, 64. Used for 80-bit results only. */
  prec: number;
  ftz: boolean;
  daz: boolean;
  /** The last rounding increased the magnitude (x87's C1). */
  up: boolean;
}

export const CLS = { zero: 0, finite: 1, inf: 2, qnan: 3, snan: 4, unsupported: 5 } as const;
/** A number taken apart: sig * 2^exp with bit 63 of sig set when finite; a NaN's fraction stands below bit 63 whatever its format. */
export interface Fp { cls: number; sign: number; exp: number; sig: bigint; denormal: boolean }

const J = 1n << 63n, QUIET = 1n << 62n, M64 = (1n << 64n) - 1n, M63 = J - 1n;
/** 3 * 2^13: what an unmasked overflow subtracts from the exponent, and an unmasked underflow adds. SDM Vol. 1 8.5.4. */
const WRAP = 24576;

export function bitLength(n: bigint): number {
  let len = 0;
  while (n > M64) { n >>= 64n; len += 64; }
  if (n > 0xffffffffn) { n >>= 32n; len += 32; }
  return len + 32 - Math.clz32(Number(n));
}
const special = (cls: number, sign: number, sig: bigint): Fp => ({ cls, sign, exp: 0, sig, denormal: false });
export const nanFp = (sig: bigint, sign: number): Fp => special(sig & QUIET ? CLS.qnan : CLS.snan, sign, sig | J);
/** A finite non-zero number from any significand. */
export function finite(sign: number, exp: number, sig: bigint, denormal = false): Fp {
  const shift = 64 - bitLength(sig);
  return { cls: CLS.finite, sign, exp: exp - shift, sig: shift >= 0 ? sig << BigInt(shift) : sig >> BigInt(-shift), denormal };
}

export function unpack(f: Format, bits: bigint, daz = false): Fp {
  if (f.explicit) return unpack80(bits);
  const frac = f.prec - 1, fracBits = BigInt.asUintN(frac, bits), head = Number(bits >> BigInt(frac));
  const e = head & (2 * f.bias + 1), sign = head >> (f.bits - f.prec) & 1;
  if (e === 2 * f.bias + 1) return fracBits === 0n ? special(CLS.inf, sign, J) : nanFp(fracBits << BigInt(63 - frac), sign);
  if (e !== 0) return { cls: CLS.finite, sign, exp: e - f.bias - 63, sig: J | fracBits << BigInt(63 - frac), denormal: false };
  return fracBits === 0n || daz ? special(CLS.zero, sign, 0n) : finite(sign, f.emin - frac, fracBits, true);
}
function unpack80(bits: bigint): Fp {
  const sig = BigInt.asUintN(64, bits), head = Number(bits >> 64n), e = head & 0x7fff, sign = head >> 15 & 1;
  if (e === 0) return sig === 0n ? special(CLS.zero, sign, 0n) : finite(sign, -16382 - 63, sig, true);
  if (!(sig & J)) return special(CLS.unsupported, sign, sig);
  if (e === 0x7fff) return sig === J ? special(CLS.inf, sign, J) : nanFp(sig, sign);
  return { cls: CLS.finite, sign, exp: e - 16383 - 63, sig, denormal: false };
}

const head = (f: Format, sign: number, biased: number): bigint => BigInt(sign * (f.bias + 1) * 2 + biased) << BigInt(f.explicit ? 64 : f.prec - 1);
/** Encode: `sig` has the integer bit at bit 63 and is zero below the format's precision. */
const pack = (f: Format, sign: number, biased: number, sig: bigint): bigint => f.explicit ? head(f, sign, biased) | sig : head(f, sign, biased) | (sig & M63) >> BigInt(64 - f.prec);
export const zero = (f: Format, sign: number): bigint => pack(f, sign, 0, 0n);
export const infinity = (f: Format, sign: number): bigint => pack(f, sign, 2 * f.bias + 1, J);
/** The NaN, quieted. */
export const quiet = (f: Format, x: Fp): bigint => pack(f, x.sign, 2 * f.bias + 1, x.sig | QUIET | J);
/** The QNaN real indefinite: the masked answer to an invalid operation. SDM Vol. 1 table 4-3. */
export const indefinite = (f: Format): bigint => pack(f, 1, 2 * f.bias + 1, J | QUIET);
export const invalid = (f: Format, e: Env): bigint => { e.flags |= FLAG.IE; return indefinite(f); };
export const isNan = (x: Fp): boolean => x.cls === CLS.qnan || x.cls === CLS.snan;

/** Should a magnitude with this remainder go up by one unit? `half` compares the remainder with half a unit: -1, 0, 1. */
const goesUp = (rc: number, sign: number, odd: boolean, half: number): boolean =>
  rc === RC.near ? half > 0 || (half === 0 && odd) : rc === RC.down ? sign === 1 : rc === RC.up ? sign === 0 : false;

/** sig * 2^-shift rounded to an integer; `inexact` and `up` tell how. */
export function shiftRound(rc: number, sign: number, sig: bigint, shift: number): { m: bigint; inexact: boolean; up: boolean } {
  if (shift <= 0) return { m: sig << BigInt(-shift), inexact: false, up: false };
  if (shift > bitLength(sig) + 2) { sig = sig ? 1n : 0n; shift = 2; }
  const m = sig >> BigInt(shift), rem = BigInt.asUintN(shift, sig);
  if (rem === 0n) return { m, inexact: false, up: false };
  const half = 1n << BigInt(shift - 1);
  const up = goesUp(rc, sign, (m & 1n) === 1n, rem > half ? 1 : rem === half ? 0 : -1);
  return { m: up ? m + 1n : m, inexact: true, up };
}

/** Round sig * 2^exp (sig > 0, of any length; a lost tail is or-ed into its lowest bit) to the format, with overflow and underflow. */
export function round(f: Format, e: Env, sign: number, exp: number, sig: bigint, prec = f.prec): bigint {
  const length = bitLength(sig), top = exp + length - 1;
  if (top >= f.emin && top < f.emax) return roundNormal(f, e, sign, top, sig, length - prec, prec);
  let tiny = top < f.emin;
  if (top === f.emin - 1) tiny = bitLength(shiftRound(e.rc, sign, sig, top - prec + 1 - exp).m) <= prec;
  if (tiny && !(e.masks & FLAG.UE)) {
    e.flags |= FLAG.UE;
    if (f.explicit) return roundInRange(f, e, sign, exp + WRAP, sig, prec);
    if (!e.x87 && shiftRound(e.rc, sign, sig, bitLength(sig) - prec).inexact) e.flags |= FLAG.PE;
    return zero(f, sign);
  }
  if (tiny && e.ftz) { e.flags |= FLAG.UE | FLAG.PE; return zero(f, sign); }
  const lsb = Math.max(top, f.emin) - prec + 1;
  const r = shiftRound(e.rc, sign, sig, lsb - exp);
  const carried = lsb + bitLength(r.m) - 1;
  if (carried > f.emax) return overflow(f, e, sign, exp, sig, prec, r.inexact);
  e.up = r.up;
  if (r.inexact) e.flags |= tiny ? FLAG.UE | FLAG.PE : FLAG.PE;
  const normal = carried >= f.emin;
  return pack(f, sign, normal ? carried + f.bias : 0, normal ? r.m << BigInt(64 - bitLength(r.m)) : r.m << BigInt(64 - prec));
}
/** The same where neither overflow nor underflow can be. */
function roundNormal(f: Format, e: Env, sign: number, top: number, sig: bigint, shift: number, prec: number): bigint {
  const up64 = BigInt(64 - prec);
  e.up = false;
  if (shift <= 0) return pack(f, sign, top + f.bias, sig << BigInt(-shift) << up64);
  const tail = BigInt.asUintN(shift, sig);
  let m = sig >> BigInt(shift);
  if (tail === 0n) return pack(f, sign, top + f.bias, m << up64);
  e.flags |= FLAG.PE;
  const twice = BigInt.asUintN(shift - 1, tail) !== 0n ? tail >> BigInt(shift - 1) === 0n ? -1 : 1 : 0;
  if (goesUp(e.rc, sign, (m & 1n) === 1n, twice)) {
    e.up = true;
    if (++m >> BigInt(prec)) { m >>= 1n; top++; }
  }
  return pack(f, sign, top + f.bias, m << up64);
}
function overflow(f: Format, e: Env, sign: number, exp: number, sig: bigint, prec: number, inexact: boolean): bigint {
  e.flags |= FLAG.OE;
  if (!(e.masks & FLAG.OE)) {
    if (e.x87 && !f.explicit) { e.up = false; return infinity(f, sign); }
    if (inexact) e.flags |= FLAG.PE;
    return f.explicit ? roundInRange(f, e, sign, exp - WRAP, sig, prec) : infinity(f, sign);
  }
  e.flags |= FLAG.PE;
  e.up = e.rc === RC.near || e.rc === (sign ? RC.down : RC.up);
  return e.up ? infinity(f, sign) : pack(f, sign, 2 * f.bias, M64 ^ ((1n << BigInt(64 - prec)) - 1n));
}
/** Round a result whose exponent has been wrapped; only absurd scales still leave the range, and become infinity or zero. */
function roundInRange(f: Format, e: Env, sign: number, exp: number, sig: bigint, prec: number): bigint {
  const r = shiftRound(e.rc, sign, sig, bitLength(sig) - prec);
  e.up = r.up;
  if (r.inexact) e.flags |= FLAG.PE;
  const top = exp + bitLength(sig) - 1 + (bitLength(r.m) > prec ? 1 : 0);
  if (top > f.emax) { e.flags |= FLAG.PE; e.up = true; return infinity(f, sign); }
  if (top < f.emin) { e.flags |= FLAG.PE; e.up = false; return zero(f, sign); }
  return pack(f, sign, top + f.bias, r.m << BigInt(64 - bitLength(r.m)));
}

/** Which NaN comes out. SDM Vol. 1 table 4-7: SSE the first operand that is one; x87 a QNaN before an SNaN, else the larger significand. */
export function propagate(f: Format, e: Env, x: Fp, y: Fp): bigint {
  if (x.cls === CLS.snan || y.cls === CLS.snan) e.flags |= FLAG.IE;
  if (!isNan(y)) return quiet(f, x);
  if (!isNan(x)) return quiet(f, y);
  if (!e.x87) return quiet(f, x);
  if (x.cls !== y.cls) return quiet(f, x.cls === CLS.qnan ? x : y);
  return quiet(f, x.sig > y.sig || (x.sig === y.sig && x.sign < y.sign) ? x : y);
}
/** The answer when an operand is a NaN or an unsupported encoding; otherwise undefined, with DE noted. */
export function operands(f: Format, e: Env, x: Fp, y: Fp): bigint | undefined {
  if (x.cls === CLS.unsupported || y.cls === CLS.unsupported) return invalid(f, e);
  if (x.cls > CLS.inf || y.cls > CLS.inf) return propagate(f, e, x, y);
  if (x.denormal || y.denormal) e.flags |= FLAG.DE;
  return undefined;
}
const precision = (f: Format, e: Env): number => f.explicit ? e.prec : f.prec;

/** x + y, or x - y when `minus` is 1. */
export function add(f: Format, e: Env, x: Fp, y: Fp, minus = 0): bigint {
  const nan = operands(f, e, x, y);
  if (nan !== undefined) return nan;
  const ys = y.sign ^ minus, prec = precision(f, e);
  if (x.cls === CLS.inf) return y.cls === CLS.inf && x.sign !== ys ? invalid(f, e) : infinity(f, x.sign);
  if (y.cls === CLS.inf) return infinity(f, ys);
  if (x.cls === CLS.zero && y.cls === CLS.zero) return zero(f, x.sign === ys ? ys : e.rc === RC.down ? 1 : 0);
  if (x.cls === CLS.zero) return round(f, e, ys, y.exp, y.sig, prec);
  if (y.cls === CLS.zero) return round(f, e, x.sign, x.exp, x.sig, prec);
  const low = Math.max(Math.min(x.exp, y.exp), Math.max(x.exp, y.exp) - 130);
  const at = (z: Fp): bigint => z.exp < low ? 1n : z.sig << BigInt(z.exp - low);
  const sum = (x.sign ? -at(x) : at(x)) + (ys ? -at(y) : at(y));
  if (sum === 0n) return zero(f, e.rc === RC.down ? 1 : 0);
  return round(f, e, sum < 0n ? 1 : 0, low, sum < 0n ? -sum : sum, prec);
}
export function mul(f: Format, e: Env, x: Fp, y: Fp): bigint {
  const nan = operands(f, e, x, y);
  if (nan !== undefined) return nan;
  const sign = x.sign ^ y.sign;
  if (x.cls === CLS.inf || y.cls === CLS.inf) return x.cls === CLS.zero || y.cls === CLS.zero ? invalid(f, e) : infinity(f, sign);
  if (x.cls === CLS.zero || y.cls === CLS.zero) return zero(f, sign);
  return round(f, e, sign, x.exp + y.exp, x.sig * y.sig, precision(f, e));
}
export function div(f: Format, e: Env, x: Fp, y: Fp): bigint {
  const earlier = e.flags, nan = operands(f, e, x, y);
  if (nan !== undefined) return nan;
  const sign = x.sign ^ y.sign;
  if (x.cls === CLS.inf) return y.cls === CLS.inf ? invalid(f, e) : infinity(f, sign);
  if (y.cls === CLS.inf) return zero(f, sign);
  if (y.cls === CLS.zero) {
    if (x.cls === CLS.zero) return invalid(f, e);
    e.flags = earlier | FLAG.ZE;
    return infinity(f, sign);
  }
  if (x.cls === CLS.zero) return zero(f, sign);
  const n = x.sig << 68n, q = n / y.sig;
  return round(f, e, sign, x.exp - y.exp - 69, q << 1n | (q * y.sig === n ? 0n : 1n), precision(f, e));
}
/** Floor of the square root. */
export function isqrt(n: bigint): bigint {
  if (n < 2n) return n;
  let r = 1n << BigInt((bitLength(n) + 1) >> 1);
  for (;;) {
    const next = (r + n / r) >> 1n;
    if (next >= r) return r;
    r = next;
  }
}
export function sqrt(f: Format, e: Env, x: Fp): bigint {
  if (x.cls === CLS.unsupported) return invalid(f, e);
  if (isNan(x)) return propagate(f, e, x, x);
  if (x.cls === CLS.zero) return zero(f, x.sign);
  if (x.sign) return invalid(f, e);
  if (x.cls === CLS.inf) return infinity(f, 0);
  if (x.denormal) e.flags |= FLAG.DE;
  const odd = x.exp & 1, n = x.sig << BigInt(76 + odd), r = isqrt(n);
  return round(f, e, 0, (x.exp - 76 - odd) / 2 - 1, r << 1n | (r * r === n ? 0n : 1n), precision(f, e));
}
/** -1, 0, 1: x below, equal, above y; 2 when one is a NaN or unsupported. Sets no flags. */
export function compare(x: Fp, y: Fp): number {
  if (x.cls > CLS.inf || y.cls > CLS.inf) return 2;
  if (x.cls === CLS.zero && y.cls === CLS.zero) return 0;
  const sx = x.cls === CLS.zero ? 0 : x.sign ? -1 : 1, sy = y.cls === CLS.zero ? 0 : y.sign ? -1 : 1;
  if (sx !== sy) return sx < sy ? -1 : 1;
  if (x.cls !== y.cls) return (x.cls > y.cls ? 1 : -1) * sx;
  if (x.cls === CLS.inf) return 0;
  if (x.exp !== y.exp) return (x.exp > y.exp ? 1 : -1) * sx;
  return x.sig === y.sig ? 0 : (x.sig > y.sig ? 1 : -1) * sx;
}
/** Compare with flags: a QNaN is invalid too when `signalling`; then the answer is 2. */
export function compareFlags(e: Env, x: Fp, y: Fp, signalling: boolean): number {
  const c = compare(x, y);
  if (c === 2) {
    if (signalling || x.cls > CLS.qnan || y.cls > CLS.qnan) e.flags |= FLAG.IE;
  } else if (x.denormal || y.denormal) e.flags |= FLAG.DE;
  return c;
}
