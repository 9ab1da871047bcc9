/**
 * Zstandard frames, without dictionaries.
 * @see RFC 8878; section numbers below are its own
 */
import { BackwardBits, type FseTable, fseTable, type HuffmanTable, readFseTable, readHuffmanTable, rleTable } from "./fse.ts";
import { copyMatch, type Options, Output } from "./output.ts";
import { xxh64Low } from "./xxh64.ts";

const MAGIC = 0xfd2fb528, SKIPPABLE = 0x184d2a50;
/** 3.1.1.2.4. */
const BLOCK_MAX = 128 << 10;

/** 3.1.1.3.2.1.1: extra bits and base of a literal length code, and of a match length code. */
const LL_BITS = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
const ML_BITS = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
const basesOf = (bits: Uint8Array, first: number): Uint32Array => {
  let sum = first;
  return Uint32Array.from(bits, (n) => (sum += 1 << n) - (1 << n));
};
const LL_BASE = basesOf(LL_BITS, 0), ML_BASE = basesOf(ML_BITS, 3);

/** 3.1.1.3.2.2: the default distributions. */
const never = (what: string): never => { throw new Error(what); };
const LL_DEFAULT = fseTable(Int16Array.of(4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1), 6, never);
const ML_DEFAULT = fseTable(Int16Array.of(1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1), 6, never);
const OF_DEFAULT = fseTable(Int16Array.of(1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1), 5, never);

/** Unpack all frames of a zstd file. */
export function unzstd(input: Uint8Array, options: Options = {}): Uint8Array {
  const out = new Output("zstd", input, options), view = new DataView(input.buffer, input.byteOffset, input.length);
  let at = 0;
  do {
    if (at + 8 > input.length) out.fail("it ends in a frame header");
    const magic = view.getUint32(at, true);
    if ((magic & ~15) >>> 0 === SKIPPABLE) {
      at += 8 + view.getUint32(at + 4, true);
      if (at > input.length) out.fail("it ends in a skippable frame");
    } else if (magic === MAGIC) at = new Frame(input, view, out, at + 4).run();
    else out.fail("no magic");
  } while (at < input.length);
  return out.done();
}

class Frame {
  private readonly src: Uint8Array;
  private readonly view: DataView;
  private readonly out: Output;
  private at: number;
  private readonly fail = (what: string): never => this.out.fail(what);
  /** output position of the frame's first byte; no match reaches before it */
  private readonly start: number;
  private readonly literals = new Uint8Array(BLOCK_MAX);
  private nrLiterals = 0;
  private blockMax = BLOCK_MAX;
  // what one block leaves for the next
  private huffman: HuffmanTable | null = null;
  private ll: FseTable | null = null;
  private of: FseTable | null = null;
  private ml: FseTable | null = null;
  private reps: [number, number, number] = [1, 4, 8];

  constructor(src: Uint8Array, view: DataView, out: Output, at: number) {
    this.src = src;
    this.view = view;
    this.out = out;
    this.at = at;
    this.start = out.length;
  }

  private take(n: number): number {
    if (n > this.src.length - this.at) this.fail("it ends early");
    this.at += n;
    return this.at - n;
  }

  /** 3.1.1. @returns where the frame ends */
  run(): number {
    const { view, out, start } = this, flags = view.getUint8(this.take(1)), isSingle = (flags & 0x20) !== 0;
    if (flags & 8) this.fail("a reserved bit is set");
    if (!isSingle) {
      const window = view.getUint8(this.take(1));
      this.blockMax = Math.min(BLOCK_MAX, 2 ** (10 + (window >> 3)) * (1 + (window & 7) / 8));
    }
    const idAt = this.take([0, 1, 2, 4][flags & 3] as number);
    if (this.src.subarray(idAt, this.at).some((b) => b !== 0)) this.fail("it was made with a dictionary");
    const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][flags >> 6] as number, sizeAt = this.take(sizeBytes);
    const size = sizeBytes === 1 ? view.getUint8(sizeAt) : sizeBytes === 2 ? view.getUint16(sizeAt, true) + 256
      : sizeBytes === 4 ? view.getUint32(sizeAt, true) : sizeBytes === 8 ? Number(view.getBigUint64(sizeAt, true)) : -1;
    if (isSingle) this.blockMax = Math.min(BLOCK_MAX, size);

    for (let isLast = false; !isLast;) {
      const headerAt = this.take(3), header = view.getUint16(headerAt, true) | view.getUint8(headerAt + 2) << 16, n = header >> 3;
      isLast = (header & 1) !== 0;
      if (n > this.blockMax) this.fail("a block is larger than its window allows");
      switch (header >> 1 & 3) {
        case 0: {
          const at = this.take(n);
          out.append(this.src.subarray(at, at + n));
          break;
        }
        case 1: {
          const at = this.take(1);
          out.room(n).fill(this.src[at] as number, out.length, out.length += n);
          break;
        }
        case 2: {
          const at = this.take(n), begin = out.length;
          this.block(at, at + n);
          if (out.length - begin > this.blockMax) this.fail("a block gives more than its window allows");
          break;
        }
        default: this.fail("a reserved kind of block");
      }
    }
    if (size >= 0 && out.length - start !== size) this.fail("a frame's size differs from its header's");
    if (flags & 4 && view.getUint32(this.take(4), true) !== xxh64Low(out.bytes.subarray(start, out.length))) this.fail("the checksum is wrong");
    return this.at;
  }

  /** 3.1.1.3. */
  private block(from: number, end: number): void {
    if (end - from < 2) this.fail("a block is too short");
    let at = this.readLiterals(from, end);
    const { src, fail } = this;
    if (at >= end) fail("a block without its number of sequences");
    let nr = src[at++] as number;
    if (nr >= 128) {
      if (at + (nr === 255 ? 2 : 1) > end) fail("a block ends in its number of sequences");
      if (nr < 255) nr = (nr - 128 << 8) + (src[at++] as number);
      else { nr = (src[at] as number) + ((src[at + 1] as number) << 8) + 0x7f00; at += 2; }
    }
    if (nr === 0) {
      if (at !== end) fail("bytes follow a block's literals");
      this.out.append(this.literals.subarray(0, this.nrLiterals));
      return;
    }
    if (at >= end) fail("a block ends in its tables");
    const modes = src[at++] as number;
    if (modes & 3) fail("a reserved bit is set");
    [this.ll, at] = this.readTable(modes >> 6, at, end, this.ll, LL_DEFAULT, 9, 35);
    [this.of, at] = this.readTable(modes >> 4 & 3, at, end, this.of, OF_DEFAULT, 8, 31);
    [this.ml, at] = this.readTable(modes >> 2 & 3, at, end, this.ml, ML_DEFAULT, 9, 52);
    this.sequences(nr, new BackwardBits(src, at, end, fail), this.ll, this.of, this.ml);
  }

  /** 3.1.1.3.2.1: by mode 0 the default, 1 one symbol, 2 a description, 3 as before. */
  private readTable(mode: number, at: number, end: number, before: FseTable | null, standard: FseTable, maxLog: number, maxSymbol: number): [FseTable, number] {
    if (mode === 0) return [standard, at];
    if (mode === 3) return [before ?? this.fail("a block repeats a table that there was not"), at];
    if (at >= end) this.fail("a block ends in its tables");
    if (mode === 1) {
      const symbol = this.src[at] as number;
      if (symbol > maxSymbol) this.fail("a code out of range");
      return [rleTable(symbol), at + 1];
    }
    const read = readFseTable(this.src, at, end, maxLog, maxSymbol, this.fail);
    return [read.table, read.at];
  }

  /** 3.1.1.3.1: fill `literals`. @returns where the sequences begin */
  private readLiterals(from: number, end: number): number {
    const { src, fail, literals } = this, type = (src[from] as number) & 3, format = (src[from] as number) >> 2 & 3;
    const isPacked = type >= 2, headerSize = isPacked ? (format < 2 ? 3 : format + 2) : [1, 2, 1, 3][format] as number;
    if (headerSize > end - from) fail("a block ends in its literals' header");
    let header = 0;
    for (let i = 0; i < headerSize; i++) header += (src[from + i] as number) * 2 ** (8 * i);
    let at = from + headerSize;
    const field = (skip: number, n: number): number => Math.floor(header / 2 ** skip) % 2 ** n;
    const sizeBits = isPacked ? (format < 2 ? 10 : format === 2 ? 14 : 18) : 20;
    const n = isPacked ? field(4, sizeBits) : format === 0 || format === 2 ? header >> 3 : header >> 4;
    if (n > this.blockMax) fail("a block has more literals than its window allows");
    this.nrLiterals = n;
    if (type === 0) {
      if (n > end - at) fail("a block ends in its literals");
      literals.set(src.subarray(at, at + n));
      return at + n;
    }
    if (type === 1) {
      if (at >= end) fail("a block ends in its literals");
      literals.fill(src[at] as number, 0, n);
      return at + 1;
    }
    const packedEnd = at + field(4 + sizeBits, sizeBits);
    if (packedEnd > end) fail("a block ends in its literals");
    if (type === 2) {
      const tree = readHuffmanTable(src, at, packedEnd, fail);
      this.huffman = tree.table;
      at = tree.at;
    }
    const table = this.huffman ?? fail("a block repeats a Huffman tree that there was not");
    if (format === 0) this.huffmanStream(table, at, packedEnd, 0, n);
    else {
      if (packedEnd - at < 6) fail("a block ends in its jump table");
      const each = n + 3 >> 2;
      let to = at + 6;
      for (let i = 0; i < 4; i++) {
        const streamEnd = i < 3 ? to + this.view.getUint16(at + i * 2, true) : packedEnd, first = each * i, last = i < 3 ? first + each : n;
        if (streamEnd > packedEnd || first > n || last > n) fail("a Huffman stream reaches past its block");
        this.huffmanStream(table, to, streamEnd, first, last);
        to = streamEnd;
      }
    }
    return packedEnd;
  }

  /** 4.2.2: decode literals[first..last] from src[from..to]. */
  private huffmanStream({ log, entries }: HuffmanTable, from: number, to: number, first: number, last: number): void {
    const { src, literals, fail } = this, bits = new BackwardBits(src, from, to, fail), mask = (1 << log) - 1, base = from * 8;
    let left = bits.left;
    while (first < last) {
      if (left >= 25) {  // 25 bits at once hold two symbols of at most 11
        const at = base + left - 25, i = at >> 3;
        const word = ((src[i] as number) | (src[i + 1] as number) << 8 | (src[i + 2] as number) << 16 | (src[i + 3] as number) << 24) >>> (at & 7);
        const a = entries[word >>> 25 - log & mask] as number, na = a & 15;
        literals[first++] = a >>> 4;
        left -= na;
        if (first === last) break;
        const b = entries[word >>> 25 - log - na & mask] as number;
        literals[first++] = b >>> 4;
        left -= b & 15;
        continue;
      }
      const index = left >= log ? bits.peek(left - log) & mask : left > 0 ? (bits.peek(0) & (1 << left) - 1) << log - left : fail("a Huffman stream ends early");
      const entry = entries[index] as number;
      literals[first++] = entry >>> 4;
      left -= entry & 15;
    }
    if (left !== 0) fail("a Huffman stream does not end where it should");
  }

  /** 3.1.1.4: each sequence copies literals, then a match. */
  private sequences(nr: number, bits: BackwardBits, ll: FseTable, of: FseTable, ml: FseTable): void {
    const { literals, nrLiterals, start, fail } = this, output = this.out;
    let llState = bits.read(ll.log), ofState = bits.read(of.log), mlState = bits.read(ml.log), [rep0, rep1, rep2] = this.reps;
    let out = output.bytes, to = output.length, used = 0;
    const limit = to + this.blockMax;
    for (let i = 0; i < nr; i++) {
      const ofCode = of.symbols[ofState] as number, mlCode = ml.symbols[mlState] as number, llCode = ll.symbols[llState] as number;
      // an offset has up to 31 extra bits, more than one read gives
      const value = ofCode <= 24 ? (1 << ofCode) + bits.read(ofCode) : 2 ** ofCode + bits.read(ofCode - 16) * 65536 + bits.read(16);
      const length = (ML_BASE[mlCode] as number) + bits.read(ML_BITS[mlCode] as number);
      const nrCopy = (LL_BASE[llCode] as number) + bits.read(LL_BITS[llCode] as number);
      if (i < nr - 1) {
        llState = (ll.base[llState] as number) + bits.read(ll.bits[llState] as number);
        mlState = (ml.base[mlState] as number) + bits.read(ml.bits[mlState] as number);
        ofState = (of.base[ofState] as number) + bits.read(of.bits[ofState] as number);
      }
      if (bits.left < 0) fail("the sequences end early");
      // 3.1.1.5: values up to 3 stand for recent offsets, shifted by one where no literals come between
      let offset: number;
      if (value > 3) { offset = value - 3; rep2 = rep1; rep1 = rep0; rep0 = offset; }
      else {
        const which = nrCopy === 0 ? value : value - 1;
        offset = which === 0 ? rep0 : which === 1 ? rep1 : which === 2 ? rep2 : rep0 - 1;
        if (which > 1) rep2 = rep1;
        if (which > 0) { rep1 = rep0; rep0 = offset; }
      }
      if (nrCopy > nrLiterals - used) fail("a sequence takes more literals than there are");
      if (to + nrCopy + length > limit) fail("a block gives more than its window allows");
      if (to + nrCopy + length > out.length) { output.length = to; out = output.room(nrCopy + length); }
      if (nrCopy > 24) { out.set(literals.subarray(used, used + nrCopy), to); to += nrCopy; used += nrCopy; }
      else for (let k = nrCopy; k > 0; k--) out[to++] = literals[used++] as number;
      if (offset === 0 || offset > to - start) fail(`a match ${offset} bytes back, ${to - start} into its frame`);
      copyMatch(out, output.view, to, offset, length);
      to += length;
    }
    if (bits.left !== 0) fail("the sequences do not end where they should");
    output.length = to;
    this.reps = [rep0, rep1, rep2];
    output.append(literals.subarray(used, nrLiterals));
  }
}
