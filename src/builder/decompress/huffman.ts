/** Prefix codes as lookup tables, for Deflate (low bit first) and bzip2 (high bit first). */

/**
 * A table of 2^maxBits entries: symbol << 5 | length; 0 where no code leads.
 * @param isReversed codes are read low bit first (RFC 1951 3.1.1)
 * @returns null when the lengths ask for more codes than there are
 */
export function prefixTable(lengths: Uint8Array, maxBits: number, isReversed: boolean): { table: Uint32Array; isComplete: boolean } | null {
  const counts = new Uint32Array(maxBits + 1), next = new Uint32Array(maxBits + 2);
  for (const n of lengths) if (n > 0) counts[n] = (counts[n] as number) + 1;
  let code = 0;
  for (let bits = 1; bits <= maxBits; bits++) {
    next[bits] = code;
    code = code + (counts[bits] as number) << 1;
    if (code > 2 << bits) return null;
  }
  const table = new Uint32Array(1 << maxBits);
  lengths.forEach((n, symbol) => {
    if (n === 0) return;
    const c = next[n] as number, entry = symbol << 5 | n;
    next[n] = c + 1;
    if (!isReversed) table.fill(entry, c << maxBits - n, c + 1 << maxBits - n);
    else {
      let r = 0;
      for (let i = 0; i < n; i++) r |= (c >> i & 1) << n - 1 - i;
      for (; r < table.length; r += 1 << n) table[r] = entry;
    }
  });
  return { table, isComplete: code === 2 << maxBits };
}
