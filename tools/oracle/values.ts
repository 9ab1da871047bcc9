/** Random numbers that replay from a seed, and the values at which processors err. */

/** sfc32: 32 bits a step. */
export class Random {
  #a: number; #b: number; #c: number; #n: number;
  constructor(seed: number) {
    this.#a = seed | 0; this.#b = 0x9e3779b9 | 0; this.#c = 0x243f6a88; this.#n = 1;
    for (let i = 0; i < 16; i++) this.u32();
  }
  u32(): number {
    const t = (this.#a + this.#b + this.#n) | 0;
    this.#n = (this.#n + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + t | 0;
    return t >>> 0;
  }
  /** 0 ... n-1 */
  below(n: number): number { return Math.floor((this.u32() / 0x100000000) * n); }
  /** True once in n. */
  one(n: number): boolean { return this.below(n) === 0; }
  pick<T>(list: readonly T[]): T { return list[this.below(list.length)]!; }
}

const INTS: readonly (readonly [number, number])[] = [
  [0, 0], [1, 0], [2, 0], [0xffffffff, 0xffffffff], [0xfffffffe, 0xffffffff], [0x7f, 0], [0x80, 0], [0xff, 0], [0x100, 0], [0x7fff, 0], [0x8000, 0], [0xffff, 0],
  [0x7fffffff, 0], [0x80000000, 0], [0xffffffff, 0], [0, 1], [0xffffffff, 0x7fffffff], [0, 0x80000000], [0x80000000, 0xffffffff], [0xffffff80, 0xffffffff], [0xffff8000, 0xffffffff],
];
const F32: readonly number[] = [0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001, 0x7f800001, 0xff812345, 1, 0x80000001, 0x7fffff, 0x800000, 0x807fffff,
  0x7f7fffff, 0xff7fffff, 0x3f000000, 0x3effffff, 0x4b000000, 0x4b7fffff, 0x4f000000, 0xcf000000, 0x4effffff, 0x5f000000, 0xdf000000, 0x40490fdb, 0x3fc00000, 0x40200000, 0x00ffffff, 0x34000000];
const F64: readonly (readonly [number, number])[] = [[0, 0], [0, 0x80000000], [0, 0x3ff00000], [0, 0xbff00000], [0, 0x7ff00000], [0, 0xfff00000], [0, 0x7ff80000], [1, 0xfff80000], [1, 0x7ff00000],
  [0x1234, 0xfff45678], [1, 0], [1, 0x80000000], [0xffffffff, 0xfffff], [0, 0x100000], [0xffffffff, 0x800fffff], [0xffffffff, 0x7fefffff], [0xffffffff, 0xffefffff], [0, 0x3fe00000],
  [0xffffffff, 0x3fdfffff], [0, 0x43300000], [0, 0x43e00000], [0, 0xc3e00000], [0, 0x41e00000], [0xffc00000, 0x41dfffff], [0, 0xc1e00000], [0x200000, 0xc1e00000], [0x54442d18, 0x400921fb],
  [0, 0x3ff80000], [0, 0x40040000], [0xe0000000, 0x47efffff], [0xf0000000, 0x47efffff], [0, 0x36a00000], [0, 0x38100000], [0x20000000, 0x380fffff], [0, 0x3ca00000]];
/** Significand (high, low) and exponent with sign. */
const F80: readonly (readonly [number, number, number])[] = [[0, 0, 0], [0, 0, 0x8000], [0x80000000, 0, 0x3fff], [0x80000000, 0, 0xbfff], [0x80000000, 0, 0x7fff], [0x80000000, 0, 0xffff],
  [0xc0000000, 0, 0x7fff], [0xc0000000, 1, 0xffff], [0xa0000000, 0x55, 0x7fff], [0, 1, 0], [0x7fffffff, 0xffffffff, 0x8000], [0x80000000, 0, 1], [0xffffffff, 0xffffffff, 0x7ffe],
  [0x80000000, 1, 0], [0x40000000, 0, 0x3fff], [0x80000000, 0, 0x3ffe], [0xffffffff, 0xffffffff, 0x3ffd], [0x80000000, 0, 0x403e], [0x80000000, 0, 0xc03e], [0xffffffff, 0xffffffff, 0x403e],
  [0xfffffffe, 0, 0x401d], [0x80000000, 0, 0x401e], [0x80000000, 0, 0xc01e], [0xfffe0000, 0, 0x400d], [0xc90fdaa2, 0x2168c235, 0x4000], [0xc0000000, 0, 0x3fff], [0xa0000000, 0, 0x4000],
  [0x80000000, 0, 0x3c01], [0xffffffff, 0xfffff800, 0x43fe], [0xffffffff, 0xfffffc00, 0x43fe], [0xffffff00, 0, 0x407e], [0xffffff80, 0, 0x407e], [0x80000000, 0, 0x3f81], [0x80000000, 0, 0x3f6a],
  [0xde0b6b3a, 0x763fffff, 0x403a], [0x80000000, 0x400, 0x3fff], [0x80000000, 0x80, 0x3fff], [0x80000080, 0, 0x3fff]];

export function putInt64(r: Random, dv: DataView, at: number): void {
  let lo = r.u32(), hi = r.u32();
  switch (r.below(8)) {
    case 0: case 1: case 2: { const s = r.pick(INTS); lo = s[0]; hi = s[1]; break; }
    case 3: hi = 0; break;
    case 4: lo = r.below(512); hi = 0; break;
    case 5: { const bit = r.below(64); lo = bit < 32 ? 1 << bit : 0; hi = bit < 32 ? 0 : 1 << (bit - 32); break; }
    case 6: { const n = r.below(32); lo = lo >> n; hi = lo >> 31; break; }
  }
  dv.setUint32(at, lo, true);
  dv.setUint32(at + 4, hi, true);
}
export function putF32(r: Random, dv: DataView, at: number): void {
  const k = r.below(8);
  dv.setUint32(at, k < 3 ? r.pick(F32) : k === 3 ? r.u32() : k === 4 ? (r.u32() & 0x80ffffff) : (r.u32() & 0x80ff0000) | (r.pick([0x3f, 0x40, 0x4a, 0x3e]) << 24) | (k === 5 ? 0 : r.u32() & 0xffff), true);
}
export function putF64(r: Random, dv: DataView, at: number): void {
  const k = r.below(8), s = r.pick(F64);
  if (k < 3) { dv.setUint32(at, s[0], true); dv.setUint32(at + 4, s[1], true); return; }
  dv.setUint32(at, k === 5 ? 0 : r.u32(), true);
  const hi = r.u32();
  dv.setUint32(at + 4, k === 3 ? hi : k === 4 ? hi & 0x801fffff : (hi & 0x800fffff) | ((0x3ff + r.pick([-1, 0, 1, 2, 10, 30, 31, 51, 52, 53, 62, 63, -126, -127, 127, 128, -60]) + r.below(3)) << 20), true);
}
export function putF80(r: Random, dv: DataView, at: number): void {
  const k = r.below(10), s = r.pick(F80);
  if (k < 3) { dv.setUint32(at, s[1], true); dv.setUint32(at + 4, s[0], true); dv.setUint16(at + 8, s[2], true); return; }
  dv.setUint32(at, k === 5 ? 0 : k === 6 ? r.u32() << 11 : r.u32(), true);
  dv.setUint32(at + 4, r.u32() | (r.one(20) ? 0 : 0x80000000), true);
  const near = 0x3fff + r.pick([-1, 0, 1, 10, 30, 31, 62, 63, 64, -63, -126, -127, 127, 128, 1023, 1024, -1022, -1023, -1074]) + r.below(3);
  dv.setUint16(at + 8, (k === 3 ? r.u32() & 0x7fff : k === 4 ? r.below(70) : near) | (r.one(2) ? 0x8000 : 0), true);
}
/** 16 bytes as integers, four singles or two doubles. */
export function putVector(r: Random, dv: DataView, at: number): void {
  switch (r.below(4)) {
    case 0: putInt64(r, dv, at); putInt64(r, dv, at + 8); break;
    case 1: for (let i = 0; i < 16; i += 4) putF32(r, dv, at + i); break;
    case 2: putF64(r, dv, at); putF64(r, dv, at + 8); break;
    default: for (let i = 0; i < 16; i += 2) dv.setUint16(at + i, r.one(2) ? r.u32() : r.pick([0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7f80, 0x807f, 0xff00]), true);
  }
}
