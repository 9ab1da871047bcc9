/** MD5, RFC 1321: CHAP needs it (RFC 1994) and WebCrypto has none. For nothing else: it does not resist collisions. */

/** Section 3.4: floor(2^32 × |sin(i + 1)|), and the rotations of the four rounds. */
const T = Uint32Array.from({ length: 64 }, (_, i) => Math.floor(2 ** 32 * Math.abs(Math.sin(i + 1))));
const ROTATIONS = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]] as const;

/** The 16 bytes of the digest. */
export function md5(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const padded = new Uint8Array(Math.ceil((message.length + 9) / 64) * 64), v = new DataView(padded.buffer);
  padded.set(message);
  padded[message.length] = 0x80;
  v.setBigUint64(padded.length - 8, BigInt(message.length) * 8n, true);
  let [a0, b0, c0, d0] = [0x67452301, 0xefcdab89 | 0, 0x98badcfe | 0, 0x10325476];
  for (let at = 0; at < padded.length; at += 64) {
    let [a, b, c, d] = [a0, b0, c0, d0];
    for (let i = 0; i < 64; i++) {
      const round = i >> 4, f = round === 0 ? (b & c) | (~b & d) : round === 1 ? (d & b) | (~d & c) : round === 2 ? b ^ c ^ d : c ^ (b | ~d);
      const k = round === 0 ? i : round === 1 ? (5 * i + 1) & 15 : round === 2 ? (3 * i + 5) & 15 : (7 * i) & 15;
      const x = (a + f + T[i]! + v.getUint32(at + 4 * k, true)) | 0, s = ROTATIONS[round]![i & 3]!;
      [a, b, c, d] = [d, (b + ((x << s) | (x >>> (32 - s)))) | 0, b, c];
    }
    [a0, b0, c0, d0] = [(a0 + a) | 0, (b0 + b) | 0, (c0 + c) | 0, (d0 + d) | 0];
  }
  const digest = new Uint8Array(16), out = new DataView(digest.buffer);
  [a0, b0, c0, d0].forEach((word, i) => out.setInt32(4 * i, word, true));
  return digest;
}
