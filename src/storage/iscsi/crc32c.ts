/** CRC32C (Castagnoli), iSCSI's digest: RFC 7143 section 13.1; polynomial 0x1edc6f41, reflected 0x82f63b78. Four bytes at a time. */

const TABLES = Array.from({ length: 4 }, () => new Uint32Array(256));
for (let i = 0; i < 256; i++) {
  let c = i;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  TABLES[0]![i] = c;
}
for (let i = 0; i < 256; i++) for (let t = 1; t < 4; t++) TABLES[t]![i] = (TABLES[t - 1]![i]! >>> 8) ^ TABLES[0]![TABLES[t - 1]![i]! & 255]!;
const [T0, T1, T2, T3] = TABLES as [Uint32Array, Uint32Array, Uint32Array, Uint32Array];

/** The digest; `before` goes on where an earlier part ended. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  let c = ~before, i = 0;
  for (const end = bytes.length - 3; i < end; i += 4) {
    c ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    c = T3[c & 255]! ^ T2[(c >>> 8) & 255]! ^ T1[(c >>> 16) & 255]! ^ T0[c >>> 24]!;
  }
  for (; i < bytes.length; i++) c = (c >>> 8) ^ T0[(c ^ bytes[i]!) & 255]!;
  return ~c >>> 0;
}
