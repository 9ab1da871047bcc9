/**
 * zstd's entropy tools: the bit stream that is read from its end, FSE tables and Huffman tables.
 * @see RFC 8878 section 4
 */

/** Throws a UserError of the file at hand. */
export type Fail = (what: string) => never;

/** Bits from the end of `src[from..to]` towards its beginning; the last byte's highest set bit is a mark, not data. */
export class BackwardBits {
  readonly src: Uint8Array;
  readonly from: number;
  /** bits left; negative once more was read than there was (then zeros came) */
  left: number;

  constructor(src: Uint8Array, from: number, to: number, fail: Fail) {
    if (to <= from || src[to - 1] === 0) fail("a bit stream without its end mark");
    this.src = src;
    this.from = from;
    this.left = (to - from) * 8 - Math.clz32(src[to - 1] as number) + 23;
  }

  /** @param n at most 24 */
  read(n: number): number {
    const left = this.left -= n;
    if (left >= 0) return this.peek(left) & (1 << n) - 1;
    return left > -n ? (this.peek(0) & (1 << n + left) - 1) << -left : 0;
  }

  /** At least 25 bits from bit `left` up. */
  peek(left: number): number {
    const src = this.src, at = this.from + (left >> 3);
    return ((src[at] as number) | (src[at + 1] as number) << 8 | (src[at + 2] as number) << 16 | (src[at + 3] as number) << 24) >>> (left & 7);
  }
}

/** By state: symbol, bits to read, and what to add to them for the next state. */
export type FseTable = { log: number; symbols: Uint8Array; bits: Uint8Array; base: Uint16Array };

/** 4.1.1: from normalised counts (-1: "less than one"). */
export function fseTable(counts: Int16Array, log: number, fail: Fail): FseTable {
  const size = 1 << log, next = new Uint16Array(counts.length), symbols = new Uint8Array(size);
  let high = size;
  counts.forEach((n, symbol) => {
    if (n === -1) symbols[--high] = symbol;
    next[symbol] = Math.abs(n);
  });
  const step = (size >> 1) + (size >> 3) + 3;
  let at = 0;
  counts.forEach((n, symbol) => {
    for (; n > 0; n--) {
      symbols[at] = symbol;
      do at = at + step & size - 1; while (at >= high);
    }
  });
  if (at !== 0) fail("a table's counts do not fill it");
  const bits = new Uint8Array(size), base = new Uint16Array(size);
  symbols.forEach((symbol, state) => {
    const x = next[symbol] as number, n = log - 31 + Math.clz32(x);
    next[symbol] = x + 1;
    bits[state] = n;
    base[state] = (x << n) - size;
  });
  return { log, symbols, bits, base };
}

/** The table of a mode in which every code is the same symbol. */
export const rleTable = (symbol: number): FseTable => ({ log: 0, symbols: Uint8Array.of(symbol), bits: new Uint8Array(1), base: new Uint16Array(1) });

/** 4.1.1: read a table's description, at src[at..end]. @returns the table and where the description ends */
export function readFseTable(src: Uint8Array, at: number, end: number, maxLog: number, maxSymbol: number, fail: Fail): { table: FseTable; at: number } {
  let position = at * 8;
  const read = (n: number): number => {
    const i = position >> 3;
    const value = ((src[i] as number) | (src[i + 1] as number) << 8 | (src[i + 2] as number) << 16) >>> (position & 7) & (1 << n) - 1;
    position += n;
    if (position > end * 8) fail("it ends in a table");
    return value;
  };
  const log = read(4) + 5, counts = new Int16Array(maxSymbol + 1);
  if (log > maxLog) fail("a table's accuracy is out of range");
  let left = 1 << log, symbol = 0;
  while (left > 0) {
    if (symbol > maxSymbol) fail("a table has too many symbols");
    const n = 32 - Math.clz32(left + 1), threshold = (1 << n) - 2 - left;
    let value = read(n - 1);
    if (value >= threshold && read(1)) value += (1 << n - 1) - threshold;
    const count = value - 1;
    counts[symbol++] = count;
    left -= Math.abs(count);
    if (count === 0) {
      let repeat: number;
      do symbol += repeat = read(2); while (repeat === 3 && symbol <= maxSymbol);
    }
  }
  if (left < 0 || symbol > maxSymbol + 1) fail("a table's counts are out of range");
  return { table: fseTable(counts.subarray(0, symbol), log, fail), at: position + 7 >> 3 };
}

/** By the next `log` bits: symbol << 4 | bits used. */
export type HuffmanTable = { log: number; entries: Uint16Array };
const MAX_HUFFMAN_LOG = 11;

/** 4.2.1: read a Huffman tree, at src[at..end]. */
export function readHuffmanTable(src: Uint8Array, at: number, end: number, fail: Fail): { table: HuffmanTable; at: number } {
  if (at >= end) fail("it ends in a Huffman tree");
  const header = src[at++] as number, weights = new Uint8Array(256), size = header < 128 ? header : header - 126 >> 1;
  if (size > end - at) fail("it ends in a Huffman tree");
  const nr = header >= 128 ? header - 127 : compressedWeights(src, at, at + size, weights, fail);
  if (header >= 128) for (let i = 0; i < nr; i++) weights[i] = (src[at + (i >> 1)] as number) >> (i & 1 ? 0 : 4) & 15;
  let sum = 0;
  for (let i = 0; i < nr; i++) sum += 1 << (weights[i] as number) >> 1;
  const log = 32 - Math.clz32(sum), rest = (1 << log) - sum;  // the last symbol's weight makes the sum a power of two
  if (sum === 0 || log > MAX_HUFFMAN_LOG || (rest & rest - 1) !== 0) fail("a Huffman tree's weights are out of range");
  weights[nr] = 32 - Math.clz32(rest);
  const entries = new Uint16Array(1 << log);
  let code = 0;
  for (let weight = 1; weight <= log; weight++)
    for (let symbol = 0; symbol <= nr; symbol++)
      if (weights[symbol] === weight) entries.fill(symbol << 4 | log + 1 - weight, code, code += 1 << weight - 1);
  return { table: { log, entries }, at: at + size };
}

/** 4.2.1.2: weights under FSE, two states in turn until the bits are used up. @returns how many there are */
function compressedWeights(src: Uint8Array, from: number, to: number, weights: Uint8Array, fail: Fail): number {
  const { table, at } = readFseTable(src, from, to, 6, 12, fail), bits = new BackwardBits(src, at, to, fail);
  const { symbols, bits: nrBits, base, log } = table;
  let now = bits.read(log), other = bits.read(log), n = 0;
  if (bits.left < 0) fail("it ends in a Huffman tree");
  for (;;) {
    if (n >= 254) fail("a Huffman tree has too many weights");
    weights[n++] = symbols[now] as number;
    const next = (base[now] as number) + bits.read(nrBits[now] as number);
    now = other;
    other = next;
    if (bits.left < 0) {
      weights[n++] = symbols[now] as number;
      return n;
    }
  }
}
