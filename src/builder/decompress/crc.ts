/** The checksums the formats use: CRC-32 (gzip, XZ, lzop), CRC-64/XZ, bzip2's CRC-32, Adler-32, SHA-256 stands in sha256.ts. */

/** Eight tables, to take eight bytes a step. */
const crc32Tables = (() => {
  const t = new Int32Array(8 * 256);
  for (let i = 0; i < 256; i++) {
    let c = i;
    for (let k = 0; k < 8; k++) c = (c >>> 1) ^ (c & 1 ? 0xedb88320 : 0);
    t[i] = c;
  }
  for (let i = 256; i < t.length; i++) t[i] = ((t[i - 256] as number) >>> 8) ^ (t[(t[i - 256] as number) & 255] as number);
  return t;
})();

/** CRC-32 (ISO 3309), reflected, polynomial 0xedb88320. @param crc the value so far */
export function crc32(b: Uint8Array, crc = 0): number {
  const t = crc32Tables;
  let c = ~crc, i = 0;
  for (const end = b.length - 7; i < end; i += 8) {
    c ^= (b[i] as number) | (b[i + 1] as number) << 8 | (b[i + 2] as number) << 16 | (b[i + 3] as number) << 24;
    c = (t[1792 + (c & 255)] as number) ^ (t[1536 + (c >>> 8 & 255)] as number) ^ (t[1280 + (c >>> 16 & 255)] as number) ^ (t[1024 + (c >>> 24)] as number)
      ^ (t[768 + (b[i + 4] as number)] as number) ^ (t[512 + (b[i + 5] as number)] as number) ^ (t[256 + (b[i + 6] as number)] as number) ^ (t[b[i + 7] as number] as number);
  }
  for (; i < b.length; i++) c = (c >>> 8) ^ (t[(c ^ (b[i] as number)) & 255] as number);
  return ~c >>> 0;
}

/** CRC-64/XZ tables, low and high halves (ECMA-182 reflected, 0xc96c5795d7870f42), four of each. */
const [crc64Low, crc64High] = (() => {
  const low = new Int32Array(4 * 256), high = new Int32Array(4 * 256);
  for (let i = 0; i < 256; i++) {
    let l = i, h = 0;
    for (let k = 0; k < 8; k++) {
      const bit = l & 1;
      l = (l >>> 1) | (h << 31);
      h >>>= 1;
      if (bit) { l ^= 0xd7870f42; h ^= 0xc96c5795; }
    }
    low[i] = l; high[i] = h;
  }
  for (let i = 256; i < low.length; i++) {
    const l = low[i - 256] as number, h = high[i - 256] as number;
    low[i] = ((l >>> 8) | (h << 24)) ^ (low[l & 255] as number);
    high[i] = (h >>> 8) ^ (high[l & 255] as number);
  }
  return [low, high];
})();

/** @returns the low and the high half */
export function crc64(b: Uint8Array): [low: number, high: number] {
  const tl = crc64Low, th = crc64High;
  let l = -1, h = -1, i = 0;
  for (const end = b.length - 3; i < end; i += 4) {
    const x = l ^ ((b[i] as number) | (b[i + 1] as number) << 8 | (b[i + 2] as number) << 16 | (b[i + 3] as number) << 24);
    const i0 = 768 + (x & 255), i1 = 512 + (x >>> 8 & 255), i2 = 256 + (x >>> 16 & 255), i3 = x >>> 24;
    l = h ^ (tl[i0] as number) ^ (tl[i1] as number) ^ (tl[i2] as number) ^ (tl[i3] as number);
    h = (th[i0] as number) ^ (th[i1] as number) ^ (th[i2] as number) ^ (th[i3] as number);
  }
  for (; i < b.length; i++) {
    const x = (l ^ (b[i] as number)) & 255;
    l = ((l >>> 8) | (h << 24)) ^ (tl[x] as number);
    h = (h >>> 8) ^ (th[x] as number);
  }
  return [~l >>> 0, ~h >>> 0];
}

/** Adler-32, RFC 1950. */
export function adler32(b: Uint8Array): number {
  let s1 = 1, s2 = 0;
  for (let i = 0; i < b.length;) {
    for (const end = Math.min(b.length, i + 5552); i < end; i++) { s1 += b[i] as number; s2 += s1; }
    s1 %= 65521;
    s2 %= 65521;
  }
  return (s2 * 65536 + s1) >>> 0;
}
