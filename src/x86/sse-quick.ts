/**
 * SSE lanes in JavaScript's own doubles: for the default MXCSR (everything masked, to nearest, no DAZ or FTZ) and operands far from the ends of
 * the range, the result is the host's and only PE can be raised. Whether it is comes from error-free transformations (Dekker, Knuth; see
 * Muller et al., Handbook of Floating-Point Arithmetic, ch. 4). NaN as an answer means: not ordinary, ask the exact path.
 */

/** Set by each operation below: did it round? */
export const rounding = { inexact: false };

const BIG = 2 ** 400, SMALL = 2 ** -400, BIG32 = 2 ** 60, SMALL32 = 2 ** -60, SPLIT = 2 ** 27 + 1;
const ordinary = (x: number): boolean => { const a = Math.abs(x); return a === 0 || (a >= SMALL && a <= BIG); };
const ordinary32 = (x: number): boolean => { const a = Math.abs(x); return a === 0 || (a >= SMALL32 && a <= BIG32); };

/** x + y - s, exactly, for s = fl(x + y). */
function sumError(x: number, y: number, s: number): number {
  const t = s - x;
  return (x - (s - t)) + (y - t);
}
/** x * y - p, exactly, for p = fl(x * y). */
function productError(x: number, y: number, p: number): number {
  const cx = SPLIT * x, hx = cx - (cx - x), lx = x - hx, cy = SPLIT * y, hy = cy - (cy - y), ly = y - hy;
  return ((hx * hy - p) + hx * ly + lx * hy) + lx * ly;
}
const tell = (inexact: boolean, r: number): number => { rounding.inexact ||= inexact; return r; };

/** `x` is the first operand; SQRT and conversions look at `y` only. */
export type Quick = (x: number, y: number) => number;

const add64: Quick = (x, y) => {
  if (!ordinary(x) || !ordinary(y)) return NaN;
  const s = x + y;
  return tell(sumError(x, y, s) !== 0, s);
};
const add32: Quick = (x, y) => {
  if (!ordinary32(x) || !ordinary32(y)) return NaN;
  const s = x + y, r = Math.fround(s);
  return tell(r !== s || sumError(x, y, s) !== 0, r);
};
export const QUICK64: Readonly<Record<string, Quick>> = {
  ADD: add64,
  SUB: (x, y) => add64(x, -y),
  MUL: (x, y) => {
    if (!ordinary(x) || !ordinary(y)) return NaN;
    const p = x * y;
    return tell(productError(x, y, p) !== 0, p);
  },
  DIV: (x, y) => {
    if (!ordinary(x) || !ordinary(y) || y === 0) return NaN;
    const q = x / y, p = q * y;
    return tell(p !== x || productError(q, y, p) !== 0, q);
  },
  SQRT: (_x, y) => {
    if (!ordinary(y) || y < 0) return NaN;
    const r = Math.sqrt(y), p = r * r;
    return tell(p !== y || productError(r, r, p) !== 0, r);
  },
  MIN: (x, y) => ordinary(x) && ordinary(y) ? x < y ? x : y : NaN,
  MAX: (x, y) => ordinary(x) && ordinary(y) ? x > y ? x : y : NaN,
};
/** binary32 in doubles: 53 bits are more than twice 24 and two, so rounding twice is rounding once. */
export const QUICK32: Readonly<Record<string, Quick>> = {
  ADD: add32,
  SUB: (x, y) => add32(x, -y),
  MUL: (x, y) => {
    if (!ordinary32(x) || !ordinary32(y)) return NaN;
    const p = x * y, r = Math.fround(p);
    return tell(r !== p, r);
  },
  DIV: (x, y) => {
    if (!ordinary32(x) || !ordinary32(y) || y === 0) return NaN;
    const q = Math.fround(x / y);
    return tell(q * y !== x, q);
  },
  SQRT: (_x, y) => {
    if (!ordinary32(y) || y < 0) return NaN;
    const r = Math.fround(Math.sqrt(y));
    return tell(r * r !== y, r);
  },
  MIN: (x, y) => ordinary32(x) && ordinary32(y) ? x < y ? x : y : NaN,
  MAX: (x, y) => ordinary32(x) && ordinary32(y) ? x > y ? x : y : NaN,
};
/** -1, 0, 1, or NaN where the exact path must decide. */
export const quickCompare = (x: number, y: number, single: boolean): number => (single ? ordinary32(x) && ordinary32(y) : ordinary(x) && ordinary(y)) ? x < y ? -1 : x > y ? 1 : 0 : NaN;
export const quickNarrow: Quick = (_x, y) => {
  if (!ordinary32(y)) return NaN;
  const r = Math.fround(y);
  return tell(r !== y, r);
};
export const quickWiden: Quick = (_x, y) => ordinary32(y) ? y : NaN;
/** A truncation to a signed integer of 32 bits, or of up to 53 when `wide`. */
export function quickTruncate(y: number, wide: boolean): number {
  const n = Math.trunc(y);
  return Math.abs(n) < (wide ? 2 ** 53 : 2 ** 31) && ordinary(y) ? tell(n !== y, n) : NaN;
}
