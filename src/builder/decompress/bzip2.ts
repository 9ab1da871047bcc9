/**
 * bzip2: blocks of at most 900 kB, each run-length coded, Burrows-Wheeler transformed, moved to front and Huffman coded.
 * There is no standard; the layout is the one the bzip2 1.0 program writes, as described in "BZIP2: Format Specification" by J. Tsai.
 */
import { FAST_BITS, longCode, type PrefixCode, prefixCode } from "./huffman.ts";
import { type Options, Output } from "./output.ts";

const BLOCK_MAGIC = 0x314159265359, END_MAGIC = 0x177245385090;
const MAX_CODE = 20, GROUP = 50;

/** CRC-32, polynomial 0x04c11db7, high bit first. */
const crcTable = Int32Array.from({ length: 256 }, (_, i) => {
  let c = i << 24;
  for (let k = 0; k < 8; k++) c = c << 1 ^ (c < 0 ? 0x04c11db7 : 0);
  return c;
});

/** Unpack all streams of a bzip2 file. */
export function bunzip2(input: Uint8Array, options: Options = {}): Uint8Array {
  const out = new Output("bzip2", input, options), bits = new Bits(input, out);
  do {
    if (bits.read(24) !== 0x425a68) out.fail("no magic");
    const level = bits.read(8) - 48;
    if (level < 1 || level > 9) out.fail("a block size out of range");
    const links = new Uint32Array(level * 100_000);
    let all = 0;
    for (;;) {
      const magic = bits.read(24) * 0x1000000 + bits.read(24), crc = bits.read(16) << 16 | bits.read(16);
      if (magic === END_MAGIC) {
        if (crc !== all) out.fail("the CRC of the whole is wrong");
        break;
      }
      if (magic !== BLOCK_MAGIC) out.fail("no block where one should begin");
      if (block(bits, out, links) !== crc) out.fail("the CRC of a block is wrong");
      all = (all << 1 | all >>> 31) ^ crc;
    }
    bits.align();
  } while (!bits.isAtEnd);
  return out.done();
}

/** Bits, the high ones of a byte first. */
class Bits {
  private readonly input: Uint8Array;
  private readonly out: Output;
  private at = 0;
  private hold = 0;
  private nrBits = 0;

  constructor(input: Uint8Array, out: Output) {
    this.input = input;
    this.out = out;
  }

  /** @param n at most 24 */
  read(n: number): number {
    while (this.nrBits < n) {
      if (this.at >= this.input.length) this.out.fail("it ends early");
      this.hold = this.hold << 8 | (this.input[this.at++] as number);
      this.nrBits += 8;
    }
    this.nrBits -= n;
    return this.hold >>> this.nrBits & (1 << n) - 1;
  }

  symbol(code: PrefixCode): number {
    while (this.nrBits < MAX_CODE && this.at < this.input.length) {
      this.hold = this.hold << 8 | (this.input[this.at++] as number);
      this.nrBits += 8;
    }
    const bits = (this.nrBits >= MAX_CODE ? this.hold >>> this.nrBits - MAX_CODE : this.hold << MAX_CODE - this.nrBits) & (1 << MAX_CODE) - 1;
    const entry = (code.fast[bits >> MAX_CODE - FAST_BITS] as number) || longCode(code, bits), n = entry & 31;
    if (n === 0) this.out.fail("a code that stands for nothing");
    if (n > this.nrBits) this.out.fail("it ends early");
    this.nrBits -= n;
    return entry >>> 5;
  }

  align(): void {
    this.nrBits &= ~7;
  }

  get isAtEnd(): boolean {
    return this.nrBits === 0 && this.at >= this.input.length;
  }
}

/** @returns the CRC of what the block gave */
function block(bits: Bits, out: Output, links: Uint32Array): number {
  if (bits.read(1) !== 0) out.fail("a randomised block, which no bzip2 since 1998 writes");
  const origin = bits.read(24), front = symbolsInUse(bits), nrSymbols = front.length + 2;
  if (front.length === 0) out.fail("a block without bytes");
  const { selectors, tables } = codes(bits, out, nrSymbols);

  // undo Huffman, move-to-front and the runs of its zeros; `links` takes the last column in its low bytes
  const counts = new Uint32Array(256), end = nrSymbols - 1;
  let n = 0, run = 0, weight = 1, left = 0, group = 0;
  let table = tables[0] as PrefixCode;
  for (;;) {
    if (left-- === 0) {
      if (group >= selectors.length) out.fail("a block has more codes than its selectors cover");
      table = tables[selectors[group++] as number] as PrefixCode;
      left = GROUP - 1;
    }
    const symbol = bits.symbol(table);
    if (symbol < 2) {  // a digit of the run's length in bijective base 2
      run += weight << symbol;
      weight *= 2;
      if (run > links.length) out.fail("a run reaches past its block");
      continue;
    }
    if (run > 0) {
      if (run > links.length - n) out.fail("a run reaches past its block");
      const b = front[0] as number;
      counts[b] = (counts[b] as number) + run;
      links.fill(b, n, n += run);
      run = 0;
      weight = 1;
    }
    if (symbol === end) break;
    if (n >= links.length) out.fail("a block gives more bytes than its size");
    const b = front[symbol - 1] as number;
    if (symbol > 32) front.copyWithin(1, 0, symbol - 1);
    else for (let k = symbol - 1; k > 0; k--) front[k] = front[k - 1] as number;
    front[0] = b;
    counts[b] = (counts[b] as number) + 1;
    links[n++] = b;
  }
  if (origin >= n) out.fail("a block begins outside itself");

  // the transform's inverse: in the high 24 bits of each place, where its successor stands
  for (let b = 0, sum = 0; b < 256; b++) { const c = counts[b] as number; counts[b] = sum; sum += c; }
  for (let i = 0; i < n; i++) {
    const b = (links[i] as number) & 255, to = counts[b] as number;
    counts[b] = to + 1;
    links[to] = (links[to] as number) | i << 8;
  }
  return unrun(out, links, n, (links[origin] as number) >>> 8);
}

function symbolsInUse(bits: Bits): Uint8Array {
  const used: number[] = [], rows = bits.read(16);
  for (let row = 0; row < 16; row++) {
    if ((rows >> 15 - row & 1) === 0) continue;
    const columns = bits.read(16);
    for (let column = 0; column < 16; column++) if (columns >> 15 - column & 1) used.push(row * 16 + column);
  }
  return Uint8Array.from(used);
}

/** The selectors (which table each group of 50 codes uses) and the tables. */
function codes(bits: Bits, out: Output, nrSymbols: number): { selectors: Uint8Array; tables: PrefixCode[] } {
  const nrTables = bits.read(3), selectors = new Uint8Array(bits.read(15)), order = [0, 1, 2, 3, 4, 5].slice(0, nrTables);
  if (nrTables < 2 || nrTables > 6 || selectors.length === 0) out.fail("a number of tables or selectors out of range");
  for (let i = 0; i < selectors.length; i++) {
    let j = 0;
    while (bits.read(1)) if (++j >= nrTables) out.fail("a selector out of range");
    const [which] = order.splice(j, 1) as [number];
    order.unshift(which);
    selectors[i] = which;
  }
  const tables = Array.from({ length: nrTables }, () => {
    const lengths = new Uint8Array(nrSymbols);
    let length = bits.read(5);
    for (let i = 0; i < nrSymbols; i++) {
      while (bits.read(1)) {
        length += bits.read(1) ? -1 : 1;
        if (length < 1 || length > MAX_CODE) break;
      }
      if (length < 1 || length > MAX_CODE) out.fail("a code length out of range");
      lengths[i] = length;
    }
    return prefixCode(lengths, false) ?? out.fail("a prefix code has too many codes");
  });
  return { selectors, tables };
}

/** Walk the links and undo the first run-length coding: four equal bytes are followed by a count of more. */
function unrun(output: Output, links: Uint32Array, n: number, first: number): number {
  let out = output.room(n), to = output.length, crc = -1, previous = -1, nrEqual = 0, at = first;
  for (let i = 0; i < n; i++) {
    const link = links[at] as number, b = link & 255;
    at = link >>> 8;
    if (nrEqual === 4) {
      output.length = to;
      out = output.room(b + n - i);
      for (let k = b; k > 0; k--) { out[to++] = previous; crc = crc << 8 ^ (crcTable[crc >>> 24 ^ previous] as number); }
      nrEqual = 0;
      previous = -1;
      continue;
    }
    nrEqual = b === previous ? nrEqual + 1 : 1;
    previous = b;
    if (to >= out.length) { output.length = to; out = output.room(n - i); }
    out[to++] = b;
    crc = crc << 8 ^ (crcTable[crc >>> 24 ^ b] as number);
  }
  output.length = to;
  return ~crc;
}
