/**
 * lzop's files with LZO1X data, as Linux's build makes them.
 * @see lzop 1.04's description of its header; Linux's Documentation/staging/lzo.rst for the instruction codes
 */
import { adler32, crc32 } from "./crc.ts";
import { copyMatch, type Options, Output } from "./output.ts";

const MAGIC = [0x89, 0x4c, 0x5a, 0x4f, 0, 0x0d, 0x0a, 0x1a, 0x0a] as const;
const FLAG = { ADLER32_D: 1, ADLER32_C: 2, H_EXTRA_FIELD: 0x40, CRC32_D: 0x100, CRC32_C: 0x200, MULTIPART: 0x400, H_FILTER: 0x800, H_CRC32: 0x1000 } as const;
/** lzop's own upper bound for a block. */
const MAX_BLOCK = 64 << 20;

/** Unpack all parts of an lzop file. */
export function unlzop(input: Uint8Array, options: Options = {}): Uint8Array {
  const out = new Output("LZO", input, options), view = new DataView(input.buffer, input.byteOffset, input.length);
  let at = 0;
  const take = (n: number): number => {
    if (n > input.length - at) out.fail("it ends early");
    at += n;
    return at - n;
  };
  const u32 = (): number => view.getUint32(take(4));
  do {
    const start = at, headerAt = take(MAGIC.length) + MAGIC.length;
    if (MAGIC.some((b, i) => input[start + i] !== b)) out.fail("no magic");
    const version = view.getUint16(take(2)), isNew = version >= 0x0940;
    take(isNew ? 4 : 2);
    const method = input[take(1)] as number;
    if (method < 1 || method > 3) out.fail("a method that is not LZO1X");
    if (isNew) take(1);
    const flags = u32();
    if (flags & (FLAG.H_FILTER | FLAG.MULTIPART)) out.fail("a filter or several parts");
    take(isNew ? 12 : 8);
    take(input[take(1)] as number);
    const headerEnd = at, header = input.subarray(headerAt, headerEnd);
    if (u32() !== (flags & FLAG.H_CRC32 ? crc32(header) : adler32(header))) out.fail("the checksum of the header is wrong");
    if (flags & FLAG.H_EXTRA_FIELD) { take(u32()); take(4); }

    for (;;) {
      const size = u32();
      if (size === 0) break;
      const packed = u32();
      if (size > MAX_BLOCK || packed > size) out.fail("a block's sizes are out of range");
      const adlerD = flags & FLAG.ADLER32_D ? u32() : -1, crcD = flags & FLAG.CRC32_D ? u32() : -1;
      const adlerC = packed < size && flags & FLAG.ADLER32_C ? u32() : -1, crcC = packed < size && flags & FLAG.CRC32_C ? u32() : -1;
      const from = take(packed), data = input.subarray(from, from + packed), begin = out.length;
      if (adlerC >= 0 && adlerC !== adler32(data) || crcC >= 0 && crcC !== crc32(data)) out.fail("the checksum of a block is wrong");
      if (packed === size) out.append(data);
      else lzo1x(data, out, size);
      const plain = out.bytes.subarray(begin, out.length);
      if (adlerD >= 0 && adlerD !== adler32(plain) || crcD >= 0 && crcD !== crc32(plain)) out.fail("the checksum of a block's data is wrong");
    }
  } while (at < input.length);
  return out.done();
}

/** One block of `size` bytes. What an instruction below 16 means depends on how many literals the one before it copied. */
function lzo1x(src: Uint8Array, output: Output, size: number): void {
  const end = src.length, out = output.room(size), start = output.length, limit = start + size;
  let at = 0, to = start, literals = 0, state = 0;
  const extended = (short: number): number => {
    for (let n = short; at < end; n += 255) {
      const b = src[at++] as number;
      if (b !== 0) return n + b;
    }
    return output.fail("it ends in a length");
  };
  if (end > 0 && (src[0] as number) > 17) {
    at = 1;
    literals = (src[0] as number) - 17;
    state = Math.min(literals, 4);
  }
  for (;;) {
    if (literals > end - at || literals > limit - to) output.fail("literals reach past their block");
    for (; literals > 0; literals--) out[to++] = src[at++] as number;
    if (at + 1 > end) output.fail("a block without an end");
    const code = src[at++] as number;
    let length: number, distance: number, last = code;
    if (code < 16) {
      if (state === 0) {
        literals = 3 + (code || extended(15));
        state = 4;
        continue;
      }
      length = state === 4 ? 3 : 2;
      distance = ((src[at++] as number) << 2) + (code >> 2) + (state === 4 ? 2049 : 1);
    } else if (code < 64) {
      length = code < 32 ? 2 + (code & 7 || extended(7)) : 2 + (code & 31 || extended(31));
      if (at + 2 > end) output.fail("it ends in a distance");
      last = src[at] as number;
      distance = ((src[at + 1] as number) << 8 | last) >> 2;
      at += 2;
      if (code >= 32) distance++;
      else {
        distance += 16384 + ((code & 8) << 11);
        if (distance === 16384) break;
      }
    } else {
      length = code < 128 ? 3 + (code >> 5 & 1) : 5 + (code >> 5 & 3);
      distance = ((src[at++] as number) << 3) + (code >> 2 & 7) + 1;
    }
    if (at > end) output.fail("it ends in a distance");
    if (distance > to - start) output.fail(`a match ${distance} bytes back, ${to - start} into its block`);
    if (length > limit - to) output.fail("a match reaches past its block");
    copyMatch(out, output.view, to, distance, length);
    to += length;
    literals = state = last & 3;
  }
  if (at !== end || to !== limit) output.fail("a block ends early");
  output.length = to;
}
