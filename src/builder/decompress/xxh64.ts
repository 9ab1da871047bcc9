/**
 * The low half of XXH64 with seed 0, as zstd puts it at a frame's end.
 * 64-bit numbers stand as pairs of 32-bit halves in an Int32Array, the low one first: BigInt would cost more than the decompression.
 * @see the xxHash project's doc/xxhash_spec.md
 */
const pair = (low: number, high: number): Int32Array => Int32Array.of(low, high);
const P1 = pair(0x85ebca87, 0x9e3779b1), P2 = pair(0x27d4eb4f, 0xc2b2ae3d), P3 = pair(0x9e3779f9, 0x165667b1), P4 = pair(0xc2b2ae63, 0x85ebca77), P5 = pair(0x165667c5, 0x27d4eb2f);

/** s[at] += (low, high), two words at `at` */
function add(s: Int32Array, at: number, low: number, high: number): void {
  const sum = ((s[at] as number) >>> 0) + (low >>> 0);
  s[at] = sum;
  s[at + 1] = (s[at + 1] as number) + high + (sum > 0xffffffff ? 1 : 0);
}

/** s[at] *= p, modulo 2^64 */
function multiply(s: Int32Array, at: number, p: Int32Array): void {
  const a = s[at] as number, high = s[at + 1] as number, b = p[0] as number;
  const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
  const ll = Math.imul(al, bl) >>> 0, lh = Math.imul(al, bh) >>> 0, hl = Math.imul(ah, bl) >>> 0;
  const middle = hl + (ll >>> 16) + (lh & 0xffff);
  s[at] = middle << 16 | ll & 0xffff;
  s[at + 1] = Math.imul(ah, bh) + (middle / 65536 | 0) + (lh >>> 16) + Math.imul(a, p[1] as number) + Math.imul(high, b);
}

/** s[at] rotated left by `n` */
function rotate(s: Int32Array, at: number, n: number): void {
  let low = s[at] as number, high = s[at + 1] as number;
  if (n >= 32) { [low, high] = [high, low]; n -= 32; }
  s[at] = n === 0 ? low : low << n | high >>> 32 - n;
  s[at + 1] = n === 0 ? high : high << n | low >>> 32 - n;
}

/** s[at] ^= s[at] >> n */
function fold(s: Int32Array, at: number, n: number): void {
  const low = s[at] as number, high = s[at + 1] as number;
  s[at] = low ^ (n < 32 ? low >>> n | high << 32 - n : high >>> n - 32);
  s[at + 1] = high ^ (n < 32 ? high >>> n : 0);
}

/** One lane takes eight bytes. */
function round(s: Int32Array, at: number, scratch: Int32Array, low: number, high: number): void {
  scratch[0] = low;
  scratch[1] = high;
  multiply(scratch, 0, P2);
  add(s, at, scratch[0] as number, scratch[1] as number);
  rotate(s, at, 31);
  multiply(s, at, P1);
}

/** Hash some bytes; only bits 0 to 31 are kept. */
export function xxh64Low(b: Uint8Array): number {
  const view = new DataView(b.buffer, b.byteOffset, b.length), scratch = pair(0, 0), h = pair(P5[0] as number, P5[1] as number);
  let at = 0;
  if (b.length >= 32) {
    const lanes = new Int32Array(8);
    lanes.set(P1, 0); add(lanes, 0, P2[0] as number, P2[1] as number);
    lanes.set(P2, 2);
    add(lanes, 6, ~(P1[0] as number), ~(P1[1] as number)); add(lanes, 6, 1, 0);
    for (; at + 32 <= b.length; at += 32)
      for (let lane = 0; lane < 8; lane += 2) round(lanes, lane, scratch, view.getInt32(at + lane * 4, true), view.getInt32(at + lane * 4 + 4, true));
    h.fill(0);
    [1, 7, 12, 18].forEach((n, i) => {
      const lane = lanes.slice(i * 2, i * 2 + 2);
      rotate(lane, 0, n);
      add(h, 0, lane[0] as number, lane[1] as number);
    });
    for (let lane = 0; lane < 8; lane += 2) {
      const merged = pair(0, 0);
      round(merged, 0, scratch, lanes[lane] as number, lanes[lane + 1] as number);
      h[0] = (h[0] as number) ^ (merged[0] as number);
      h[1] = (h[1] as number) ^ (merged[1] as number);
      multiply(h, 0, P1);
      add(h, 0, P4[0] as number, P4[1] as number);
    }
  }
  add(h, 0, b.length, 0);
  for (; at + 8 <= b.length; at += 8) {
    const k = pair(0, 0);
    round(k, 0, scratch, view.getInt32(at, true), view.getInt32(at + 4, true));
    mix(h, k, 27, P1, P4);
  }
  if (at + 4 <= b.length) {
    const k = pair(view.getInt32(at, true), 0);
    multiply(k, 0, P1);
    mix(h, k, 23, P2, P3);
    at += 4;
  }
  for (; at < b.length; at++) {
    const k = pair(b[at] as number, 0);
    multiply(k, 0, P5);
    mix(h, k, 11, P1, null);
  }
  fold(h, 0, 33);
  multiply(h, 0, P2);
  fold(h, 0, 29);
  multiply(h, 0, P3);
  fold(h, 0, 32);
  return (h[0] as number) >>> 0;
}

/** The tail's step: h = rotate(h ^ k, n) × by + plus */
function mix(h: Int32Array, k: Int32Array, n: number, by: Int32Array, plus: Int32Array | null): void {
  h[0] = (h[0] as number) ^ (k[0] as number);
  h[1] = (h[1] as number) ^ (k[1] as number);
  rotate(h, 0, n);
  multiply(h, 0, by);
  if (plus) add(h, 0, plus[0] as number, plus[1] as number);
}
