/**
 * XZ: streams of blocks with LZMA2 and, before it, branch filters; every part under a CRC.
 * @see the XZ project's "The .xz File Format", version 1.2.0; section numbers below are its own
 */
import { bcjX86, delta } from "./bcj.ts";
import { crc32, crc64 } from "./crc.ts";
import { LzmaDecoder } from "./lzma.ts";
import { type Options, Output } from "./output.ts";
import { sha256 } from "./sha256.ts";

/** 2.1.1.2: size of the check by its number; which ones we verify. */
const CHECK_SIZES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64] as const;
const CHECK = { none: 0, crc32: 1, crc64: 4, sha256: 10 } as const;
const FILTER = { delta: 3, x86: 4, lzma2: 0x21 } as const;
const MAGIC = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0] as const, FOOTER_MAGIC = 0x595a;
type Undo = (b: Uint8Array, from: number, to: number) => void;

/** Unpack all streams of an XZ file. */
export function unxz(input: Uint8Array, options: Options = {}): Uint8Array {
  const xz = new Xz(input, options);
  let at = xz.stream(0);
  while (at < input.length) {
    if ((input.length - at) % 4 !== 0) xz.out.fail("bytes follow its last stream");
    if (input[at] === 0 && input[at + 1] === 0 && input[at + 2] === 0 && input[at + 3] === 0) at += 4;
    else at = xz.stream(at);
  }
  return xz.out.done();
}

class Xz {
  readonly out: Output;
  private readonly input: Uint8Array;
  private readonly view: DataView;
  private at = 0;

  constructor(input: Uint8Array, options: Options) {
    this.out = new Output("XZ", input, options);
    this.input = input;
    this.view = new DataView(input.buffer, input.byteOffset, input.length);
  }

  private need(n: number, what: string): void {
    if (n > this.input.length - this.at) this.out.fail(`it ends in ${what}`);
  }

  private crcAt(from: number, to: number, what: string): void {
    if (to + 4 > this.input.length) this.out.fail(`it ends in ${what}`);
    if (this.view.getUint32(to, true) !== crc32(this.input.subarray(from, to))) this.out.fail(`the CRC of ${what} is wrong`);
  }

  /** 1.2: a variable-length integer. Sizes beyond 2^53 are refused with the rest of what cannot be. */
  private vli(end: number): number {
    let value = 0;
    for (let i = 0, scale = 1; i < 9; i++, scale *= 128) {
      if (this.at >= end) this.out.fail("a number reaches past its field");
      const b = this.input[this.at++] as number;
      value += (b & 127) * scale;
      if (b < 128) {
        if (b === 0 && i > 0 || value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
    }
    return this.out.fail("a number is out of range");
  }

  /** 2: header, blocks, index, footer. @returns where the next stream or padding begins */
  stream(from: number): number {
    this.at = from;
    this.need(12, "the stream header");
    if (MAGIC.some((b, i) => this.input[from + i] !== b)) this.out.fail("no magic");
    const flags = this.view.getUint16(from + 6), check = flags & 15;
    if (flags > 15) this.out.fail("unknown stream flags");
    this.crcAt(from + 6, from + 8, "the stream header");
    this.at += 12;
    const records: [unpadded: number, uncompressed: number][] = [];
    for (;;) {
      this.need(1, "a block header");
      if (this.input[this.at] === 0) break;
      records.push(this.block(check));
    }
    const indexAt = this.at;
    this.index(records);
    const { at, view, out } = this;
    this.need(12, "the stream footer");
    if (view.getUint32(at, true) !== crc32(this.input.subarray(at + 4, at + 10))) out.fail("the CRC of the stream footer is wrong");
    if ((view.getUint32(at + 4, true) + 1) * 4 !== at - indexAt || view.getUint16(at + 8) !== flags || view.getUint16(at + 10) !== FOOTER_MAGIC)
      out.fail("the stream footer does not fit the stream");
    return at + 12;
  }

  /** 4: what each block took and gave, once more. */
  private index(records: readonly [number, number][]): void {
    const { input, out } = this, from = this.at++, end = input.length;
    if (this.vli(end) !== records.length) out.fail("the index has another number of blocks");
    for (const [unpadded, uncompressed] of records)
      if (this.vli(end) !== unpadded || this.vli(end) !== uncompressed) out.fail("the index has another size for a block");
    for (; (this.at - from) % 4 !== 0; this.at++) if (input[this.at] !== 0) out.fail("bytes in the index's padding");
    this.crcAt(from, this.at, "the index");
    this.at += 4;
  }

  /** 3: header, data, padding, check. */
  private block(check: number): [unpadded: number, uncompressed: number] {
    const { input, out } = this, from = this.at, headerEnd = from + ((input[from] as number) + 1) * 4 - 4;
    if (headerEnd + 4 > input.length) out.fail("it ends in a block header");
    this.crcAt(from, headerEnd, "a block header");
    const flags = input[from + 1] as number;
    if (flags & 0x3c) out.fail("unknown block flags");
    this.at = from + 2;
    const compressed = flags & 0x40 ? this.vli(headerEnd) : -1, uncompressed = flags & 0x80 ? this.vli(headerEnd) : -1;
    const undo: Undo[] = [];
    let isComplete = false;
    for (let left = (flags & 3) + 1; left > 0; left--) {
      const id = this.vli(headerEnd), size = this.vli(headerEnd), at = this.at;
      if (size > headerEnd - at) out.fail("a filter's properties reach past the block header");
      this.at += size;
      if (id === FILTER.lzma2) {
        if (size !== 1 || left !== 1) out.fail("a filter chain that does not end in LZMA2");
        isComplete = true;
        if ((input[at] as number) > 40) out.fail("a dictionary size out of range");
      } else if (id === FILTER.x86 && (size === 0 || size === 4)) {
        const start = size === 4 ? this.view.getUint32(at, true) : 0;
        undo.unshift((b, f, t) => bcjX86(b, f, t, start));
      } else if (id === FILTER.delta && size === 1) undo.unshift((b, f, t) => delta(b, f, t, (input[at] as number) + 1));
      else out.fail(`filter 0x${id.toString(16)}, which is not for x86 data`);
    }
    if (!isComplete) out.fail("a filter chain that does not end in LZMA2");
    while (this.at < headerEnd) if (input[this.at++] !== 0) out.fail("bytes in a block header's padding");
    this.at = headerEnd + 4;

    const dataAt = this.at, start = out.length;
    this.lzma2();
    const nrCompressed = this.at - dataAt, nrUncompressed = out.length - start;
    if (compressed >= 0 && compressed !== nrCompressed || uncompressed >= 0 && uncompressed !== nrUncompressed) out.fail("a block's size differs from its header's");
    for (const filter of undo) filter(out.bytes, start, out.length);
    for (; (this.at - dataAt) % 4 !== 0; this.at++) if (input[this.at] !== 0) out.fail("bytes in a block's padding");
    const checkSize = CHECK_SIZES[check] as number;
    this.need(checkSize, "a block's check");
    this.verify(check, out.bytes.subarray(start, out.length));
    this.at += checkSize;
    return [headerEnd + 4 - from + nrCompressed + checkSize, nrUncompressed];
  }

  private verify(check: number, b: Uint8Array): void {
    const { view, at } = this;
    let isRight = true;
    if (check === CHECK.crc32) isRight = view.getUint32(at, true) === crc32(b);
    else if (check === CHECK.crc64) {
      const [low, high] = crc64(b);
      isRight = view.getUint32(at, true) === low && view.getUint32(at + 4, true) === high;
    } else if (check === CHECK.sha256) isRight = sha256(b).every((x, i) => x === this.input[at + i]);
    else if (check !== CHECK.none) this.out.fail(`check ${check}, which is not defined`);
    if (!isRight) this.out.fail("the check of a block's data is wrong");
  }

  /** 5.3.1: chunks, each with a control byte. The whole output since the last reset is the dictionary, whatever size the header asks for. */
  private lzma2(): void {
    const { input, view, out } = this, decoder = new LzmaDecoder(out);
    let needsDictionary = true, needsProperties = true;
    for (;;) {
      this.need(1, "a chunk");
      const control = input[this.at++] as number;
      if (control === 0) return;
      if (control >= 0xe0 || control === 1) {
        needsDictionary = false;
        needsProperties = true;
        decoder.dictStart = out.length;
      } else if (needsDictionary) out.fail("the first chunk does not reset the dictionary");
      if (control < 0x80) {
        if (control > 2) out.fail("an unknown kind of chunk");
        this.need(2, "a chunk");
        const size = view.getUint16(this.at) + 1;
        this.at += 2;
        this.need(size, "a chunk");
        out.append(input.subarray(this.at, this.at + size));
        this.at += size;
        continue;
      }
      this.need(5, "a chunk");
      const unpacked = ((control & 0x1f) << 16 | view.getUint16(this.at)) + 1, packed = view.getUint16(this.at + 2) + 1;
      this.at += 4;
      if (control >= 0xc0) {
        const sum = decoder.setProperties(input[this.at++] as number);
        if (sum < 0 || sum > 4) out.fail("a chunk's properties byte is out of range");
        needsProperties = false;
      } else if (needsProperties) out.fail("a chunk comes before its properties");
      if (control >= 0xa0) decoder.resetState();
      this.need(packed, "a chunk");
      const chunk = input.subarray(this.at, this.at + packed);
      decoder.startRange(chunk, 0);
      const end = decoder.run(out.length + unpacked);
      if (end.isMarked || !end.isClean || end.at !== packed) out.fail("a chunk does not end where it should");
      this.at += packed;
    }
  }
}
