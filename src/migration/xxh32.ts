/** XXH32, the checksum of records and pages: doc/xxhash_spec.md of the xxHash project. It finds damage, it proves no origin. */
const P1 = 0x9e3779b1 | 0, P2 = 0x85ebca77 | 0, P3 = 0xc2b2ae3d | 0, P4 = 0x27d4eb2f | 0, P5 = 0x165667b1 | 0;
const avalanche = (h: number): number => {
  h = Math.imul(h ^ h >>> 15, P2);
  h = Math.imul(h ^ h >>> 13, P3);
  return (h ^ h >>> 16) >>> 0;
};

/** Of whole lines of 16 bytes, in words of memory as it lies in a little-endian machine: the way for pages. @param at, n in words, n a multiple of 4 */
export function xxh32Words(words: Int32Array, at: number, n: number, seed: number): number {
  let a = seed + P1 + P2 | 0, b = seed + P2 | 0, c = seed | 0, d = seed - P1 | 0, x = 0;
  for (const end = at + n; at < end; at += 4) {
    x = a + Math.imul(words[at]!, P2) | 0; a = Math.imul(x << 13 | x >>> 19, P1);
    x = b + Math.imul(words[at + 1]!, P2) | 0; b = Math.imul(x << 13 | x >>> 19, P1);
    x = c + Math.imul(words[at + 2]!, P2) | 0; c = Math.imul(x << 13 | x >>> 19, P1);
    x = d + Math.imul(words[at + 3]!, P2) | 0; d = Math.imul(x << 13 | x >>> 19, P1);
  }
  const h = n >= 4 ? (a << 1 | a >>> 31) + (b << 7 | b >>> 25) + (c << 12 | c >>> 20) + (d << 18 | d >>> 14) : seed + P5;
  return avalanche(h + n * 4 | 0);
}
/** Of any bytes. */
export function xxh32(bytes: Uint8Array, seed = 0): number {
  const dv = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), n = bytes.length;
  let at = 0, h = seed + P5 | 0;
  if (n >= 16) {
    const lane = [seed + P1 + P2 | 0, seed + P2 | 0, seed | 0, seed - P1 | 0];
    for (; at + 16 <= n; at += 16) {
      for (let i = 0; i < 4; i++) {
        const x = lane[i]! + Math.imul(dv.getInt32(at + i * 4, true), P2) | 0;
        lane[i] = Math.imul(x << 13 | x >>> 19, P1);
      }
    }
    h = [1, 7, 12, 18].reduce((sum, by, i) => sum + (lane[i]! << by | lane[i]! >>> 32 - by) | 0, 0);
  }
  h = h + n | 0;
  for (; at + 4 <= n; at += 4) {
    const x = h + Math.imul(dv.getInt32(at, true), P3) | 0;
    h = Math.imul(x << 17 | x >>> 15, P4);
  }
  for (; at < n; at++) {
    const x = h + Math.imul(bytes[at]!, P5) | 0;
    h = Math.imul(x << 11 | x >>> 21, P1);
  }
  return avalanche(h);
}
