/**
 * gzip around Deflate.
 * @see RFC 1952 (gzip), RFC 1951 (Deflate)
 */
import { crc32 } from "./crc.ts";
import { FAST_BITS, longCodeReversed, type PrefixCode, prefixCode } from "./huffman.ts";
import { copyMatch, type Options, Output } from "./output.ts";

/** RFC 1952 2.3.1. */
const FLG = { FTEXT: 1, FHCRC: 2, FEXTRA: 4, FNAME: 8, FCOMMENT: 16, reserved: 0xe0 } as const;
/** RFC 1951 3.2.5: base and extra bits by length symbol - 257 and by distance symbol. */
const LENGTH_EXTRA = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0);
const LENGTH_BASE = Uint16Array.from(LENGTH_EXTRA, (_, i) => i < 28 ? LENGTH_EXTRA.subarray(0, i).reduce((sum, e) => sum + (1 << e), 3) : 258);
const DISTANCE_EXTRA = Uint8Array.from({ length: 30 }, (_, i) => Math.max(0, (i >> 1) - 1));
const DISTANCE_BASE = Uint16Array.from(DISTANCE_EXTRA, (_, i) => DISTANCE_EXTRA.subarray(0, i).reduce((sum, e) => sum + (1 << e), 1));
/** 3.2.7: the order in which the lengths of the code length code come. */
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15] as const;

/** All members of a gzip file. Zero bytes behind them are padding. */
export function gunzip(input: Uint8Array, options: Options = {}): Uint8Array {
  const out = new Output("gzip", input, options), view = new DataView(input.buffer, input.byteOffset, input.length);
  let at = 0;
  do {
    at = header(input, view, at, out);
    const start = out.length;
    at = new Inflater(input, at, out).run();
    if (at + 8 > input.length) out.fail("it ends before its CRC");
    const member = out.bytes.subarray(start, out.length);
    if (view.getUint32(at, true) !== crc32(member)) out.fail("the CRC is wrong");
    if (view.getUint32(at + 4, true) !== member.length) out.fail("the size at its end is wrong");
    at += 8;
    while (at < input.length && input[at] === 0) at++;
  } while (at < input.length);
  return out.done();
}

function header(input: Uint8Array, view: DataView, from: number, out: Output): number {
  if (from + 10 > input.length) out.fail("it ends in its header");
  if (view.getUint16(from) !== 0x1f8b || input[from + 2] !== 8) out.fail("no magic");
  const flags = input[from + 3] as number;
  if (flags & FLG.reserved) out.fail("unknown flags");
  let at = from + 10;
  if (flags & FLG.FEXTRA) {
    if (at + 2 > input.length) out.fail("it ends in its header");
    at += 2 + view.getUint16(at, true);
  }
  for (const flag of [FLG.FNAME, FLG.FCOMMENT]) if (flags & flag) at = input.indexOf(0, at) + 1 || input.length;
  if (flags & FLG.FHCRC) {
    if (at + 2 > input.length) out.fail("it ends in its header");
    if (view.getUint16(at, true) !== (crc32(input.subarray(from, at)) & 0xffff)) out.fail("the CRC of the header is wrong");
    at += 2;
  }
  return at;
}

type Tables = { literal: PrefixCode; distance: PrefixCode };
const FAST_MASK = (1 << FAST_BITS) - 1;
let fixedTables: Tables | undefined;

/** Deflate. Bits are taken low first into `hold`. */
class Inflater {
  private readonly input: Uint8Array;
  private readonly out: Output;
  private readonly start: number;
  private at: number;
  private hold = 0;
  private nrBits = 0;

  constructor(input: Uint8Array, at: number, out: Output) {
    this.input = input;
    this.at = at;
    this.out = out;
    this.start = out.length;
  }

  /** @returns where the bytes behind the last block begin */
  run(): number {
    let isLast: boolean;
    do {
      isLast = this.bits(1) === 1;
      const type = this.bits(2);
      if (type === 0) this.stored();
      else if (type === 1) this.compressed(fixedTables ??= this.fixed());
      else if (type === 2) this.compressed(this.dynamic());
      else this.out.fail("an unknown kind of block");
    } while (!isLast);
    return this.at - (this.nrBits >> 3);
  }

  private bits(n: number): number {
    while (this.nrBits < n) {
      if (this.at >= this.input.length) this.out.fail("it ends early");
      this.hold |= (this.input[this.at++] as number) << this.nrBits;
      this.nrBits += 8;
    }
    const value = this.hold & (1 << n) - 1;
    this.hold >>>= n;
    this.nrBits -= n;
    return value;
  }

  private stored(): void {
    this.at -= this.nrBits >> 3;
    this.hold = this.nrBits = 0;
    const n = this.bits(16), complement = this.bits(16);
    if ((n ^ complement) !== 0xffff) this.out.fail("a stored block's length is wrong");
    if (n > this.input.length - this.at) this.out.fail("it ends in a stored block");
    this.out.append(this.input.subarray(this.at, this.at + n));
    this.at += n;
  }

  private fixed(): Tables {
    const lengths = new Uint8Array(288).fill(8).fill(9, 144, 256).fill(7, 256, 280);
    return { literal: this.table(lengths), distance: this.table(new Uint8Array(32).fill(5)) };
  }

  private table(lengths: Uint8Array): PrefixCode {
    return prefixCode(lengths, true) ?? this.out.fail("a prefix code has too many codes");
  }

  private dynamic(): Tables {
    const nrLiterals = this.bits(5) + 257, nrDistances = this.bits(5) + 1, nrCodes = this.bits(4) + 4, codes = new Uint8Array(19);
    if (nrLiterals > 286 || nrDistances > 30) this.out.fail("a block has too many codes");
    for (let i = 0; i < nrCodes; i++) codes[ORDER[i] as number] = this.bits(3);
    const table = this.table(codes), lengths = new Uint8Array(nrLiterals + nrDistances);
    for (let i = 0; i < lengths.length;) {
      const symbol = this.symbol(table);
      if (symbol < 16) { lengths[i++] = symbol; continue; }
      if (symbol === 16 && i === 0) this.out.fail("a code length repeats nothing");
      const value = symbol === 16 ? lengths[i - 1] as number : 0;
      const n = symbol === 16 ? 3 + this.bits(2) : symbol === 17 ? 3 + this.bits(3) : 11 + this.bits(7);
      if (n > lengths.length - i) this.out.fail("code lengths reach past their end");
      lengths.fill(value, i, i += n);
    }
    if (lengths[256] === 0) this.out.fail("a block has no end code");
    return { literal: this.table(lengths.subarray(0, nrLiterals)), distance: this.table(lengths.subarray(nrLiterals)) };
  }

  /** A symbol of the code length code, whose codes have at most seven bits. */
  private symbol(code: PrefixCode): number {
    while (this.nrBits < 7 && this.at < this.input.length) {
      this.hold |= (this.input[this.at++] as number) << this.nrBits;
      this.nrBits += 8;
    }
    const entry = code.fast[this.hold & FAST_MASK] as number, n = entry & 31;
    if (n === 0) this.out.fail("a code that stands for nothing");
    if (n > this.nrBits) this.out.fail("it ends early");
    this.hold >>>= n;
    this.nrBits -= n;
    return entry >>> 5;
  }

  private compressed({ literal, distance }: Tables): void {
    const { input, out: output, start } = this, end = input.length;
    const literals = literal.fast, distances = distance.fast;
    let { at, hold, nrBits } = this, out = output.bytes, to = output.length;
    for (;;) {
      // 15 bits for a symbol and 5 more for a length
      while (nrBits < 20 && at < end) { hold |= (input[at++] as number) << nrBits; nrBits += 8; }
      let entry = (literals[hold & FAST_MASK] as number) || longCodeReversed(literal, hold), n = entry & 31;
      if (n === 0) output.fail("a code that stands for nothing");
      if (n > nrBits) output.fail("it ends early");
      hold >>>= n;
      nrBits -= n;
      const symbol = entry >>> 5;
      if (symbol < 256) {
        if (to >= out.length) { output.length = to; out = output.room(1); }
        out[to++] = symbol;
        continue;
      }
      if (symbol === 256) break;
      if (symbol > 285) output.fail("a length symbol out of range");
      n = LENGTH_EXTRA[symbol - 257] as number;
      if (n > nrBits) output.fail("it ends early");
      const length = (LENGTH_BASE[symbol - 257] as number) + (hold & (1 << n) - 1);
      hold >>>= n;
      nrBits -= n;
      while (nrBits < 15 && at < end) { hold |= (input[at++] as number) << nrBits; nrBits += 8; }
      entry = (distances[hold & FAST_MASK] as number) || longCodeReversed(distance, hold);
      n = entry & 31;
      if (n === 0) output.fail("a code that stands for nothing");
      if (n > nrBits) output.fail("it ends early");
      hold >>>= n;
      nrBits -= n;
      const which = entry >>> 5;
      if (which > 29) output.fail("a distance symbol out of range");
      n = DISTANCE_EXTRA[which] as number;
      while (nrBits < n && at < end) { hold |= (input[at++] as number) << nrBits; nrBits += 8; }
      if (n > nrBits) output.fail("it ends early");
      const back = (DISTANCE_BASE[which] as number) + (hold & (1 << n) - 1);
      hold >>>= n;
      nrBits -= n;
      if (back > to - start) output.fail(`a match ${back} bytes back, ${to - start} into the data`);
      if (to + length > out.length) { output.length = to; out = output.room(length); }
      copyMatch(out, output.view, to, back, length);
      to += length;
    }
    output.length = to;
    this.at = at;
    this.hold = hold;
    this.nrBits = nrBits;
  }
}
