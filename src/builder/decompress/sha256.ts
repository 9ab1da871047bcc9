/** SHA-256, FIPS 180-4, for XZ's strongest check (WebCrypto's is asynchronous). */

/** The first 32 bits of the fractional parts of roots of primes: cube roots for K, square roots for the initial hash. */
const { K, H0 } = (() => {
  const primes: number[] = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p !== 0)) primes.push(n);
  /** floor(root × 2^32) by integer bisection, then its low 32 bits; floating point has too few */
  const bits = (p: number, power: bigint): number => {
    const target = BigInt(p) << 32n * power;
    let low = 0n, high = 1n << 40n;
    while (high - low > 1n) {
      const middle = low + high >> 1n;
      if (middle ** power <= target) low = middle; else high = middle;
    }
    return Number(BigInt.asIntN(32, low));
  };
  return { K: Int32Array.from(primes, (p) => bits(p, 3n)), H0: Int32Array.from(primes.slice(0, 8), (p) => bits(p, 2n)) };
})();
const ror = (x: number, n: number): number => x >>> n | x << 32 - n;

/** Digest a message. */
export function sha256(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const h = H0.slice(), w = new Int32Array(64), whole = message.length & ~63;
  const tail = new Uint8Array(message.length - whole < 56 ? 64 : 128), tailView = new DataView(tail.buffer);
  tail.set(message.subarray(whole));
  tail[message.length - whole] = 0x80;
  tailView.setBigUint64(tail.length - 8, BigInt(message.length) * 8n);
  for (let at = 0; at < whole; at += 64) round(h, w, new DataView(message.buffer, message.byteOffset + at, 64));
  for (let at = 0; at < tail.length; at += 64) round(h, w, new DataView(tail.buffer, at, 64));
  const digest = new Uint8Array(32), view = new DataView(digest.buffer);
  h.forEach((x, i) => view.setInt32(i * 4, x));
  return digest;
}

function round(hash: Int32Array, w: Int32Array, block: DataView): void {
  for (let i = 0; i < 16; i++) w[i] = block.getInt32(i * 4);
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15] as number, y = w[i - 2] as number;
    w[i] = (w[i - 16] as number) + (ror(x, 7) ^ ror(x, 18) ^ x >>> 3) + (w[i - 7] as number) + (ror(y, 17) ^ ror(y, 19) ^ y >>> 10);
  }
  let [a, b, c, d, e, f, g, h] = hash as unknown as [number, number, number, number, number, number, number, number];
  for (let i = 0; i < 64; i++) {
    const t1 = h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + (e & f ^ ~e & g) + (K[i] as number) + (w[i] as number);
    const t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + (a & b ^ a & c ^ b & c);
    h = g; g = f; f = e; e = d + t1 | 0;
    d = c; c = b; b = a; a = t1 + t2 | 0;
  }
  [a, b, c, d, e, f, g, h].forEach((x, i) => { hash[i] = (hash[i] as number) + x; });
}
