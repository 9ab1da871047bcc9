/** Prefix codes given by their lengths (canonical codes), for Deflate and bzip2: a table for the short ones, a search for the long. */

/** Bits that the table takes at once. */
export const FAST_BITS = 10;
const MAX_BITS = 20;

/** A canonical code, ready to decode. */
export type PrefixCode = {
  /** by the next FAST_BITS bits as they stand in the stream: symbol << 5 | length, or 0 where the code is longer or there is none */
  readonly fast: Uint32Array;
  /** by length: the first code, how many there are, and where their symbols begin */
  readonly first: Uint32Array;
  readonly counts: Uint32Array;
  readonly starts: Uint32Array;
  readonly symbols: Uint16Array;
};

/**
 * @param isReversed the stream gives a code's first bit in the low bit (RFC 1951 3.1.1)
 * @returns null when the lengths ask for more codes than there are
 */
export function prefixCode(lengths: Uint8Array, isReversed: boolean): PrefixCode | null {
  const counts = new Uint32Array(MAX_BITS + 1), first = new Uint32Array(MAX_BITS + 1), starts = new Uint32Array(MAX_BITS + 2), fast = new Uint32Array(1 << FAST_BITS);
  for (const n of lengths) if (n > 0) counts[n] = (counts[n] as number) + 1;
  for (let n = 1, code = 0; n <= MAX_BITS; n++) {
    first[n] = code;
    code += counts[n] as number;
    if (code > 1 << n) return null;
    code <<= 1;
    starts[n + 1] = (starts[n] as number) + (counts[n] as number);
  }
  const symbols = new Uint16Array(starts[MAX_BITS + 1] as number), next = starts.slice();
  lengths.forEach((n, symbol) => {
    if (n === 0) return;
    const at = next[n] as number, code = (first[n] as number) + at - (starts[n] as number);
    next[n] = at + 1;
    symbols[at] = symbol;
    if (n > FAST_BITS) return;
    if (!isReversed) fast.fill(symbol << 5 | n, code << FAST_BITS - n, code + 1 << FAST_BITS - n);
    else for (let i = reverse(code, n); i < fast.length; i += 1 << n) fast[i] = symbol << 5 | n;
  });
  return { fast, first, counts, starts, symbols };
}

function reverse(code: number, n: number): number {
  let r = 0;
  for (; n > 0; n--) { r = r << 1 | code & 1; code >>= 1; }
  return r;
}

/** A code longer than FAST_BITS, or none. @param bits the next 20, the first one highest @returns as in `fast` */
export function longCode(code: PrefixCode, bits: number): number {
  for (let n = FAST_BITS + 1; n <= MAX_BITS; n++) {
    const i = (bits >> MAX_BITS - n) - (code.first[n] as number);
    if (i >= 0 && i < (code.counts[n] as number)) return (code.symbols[(code.starts[n] as number) + i] as number) << 5 | n;
  }
  return 0;
}

/** The same for a stream that gives the first bit lowest. */
export const longCodeReversed = (code: PrefixCode, hold: number): number => longCode(code, reverse(hold, MAX_BITS));
