/**
 * LZ4's legacy frame: a magic, then blocks of at most 8 MiB of output, each behind its compressed size, to the end of the file.
 * @see the LZ4 project's lz4_Frame_format.md ("Legacy frame") and lz4_Block_format.md
 */
import { copyMatch, type Options, Output } from "./output.ts";

const LZ4_LEGACY_MAGIC = 0x184c2102;
const LEGACY_BLOCK = 8 << 20;

/** Unpack all blocks of a legacy frame, and of frames that follow. */
export function unlz4(input: Uint8Array, options: Options = {}): Uint8Array<ArrayBuffer> {
  const out = new Output("LZ4", input, options);
  const view = new DataView(input.buffer, input.byteOffset, input.length);
  if (input.length < 4 || view.getUint32(0, true) !== LZ4_LEGACY_MAGIC) out.fail("no legacy magic");
  let at = 4;
  while (at < input.length) {
    if (at + 4 > input.length) out.fail("it ends in a block's size");
    const size = view.getUint32(at, true);
    at += 4;
    if (size === LZ4_LEGACY_MAGIC) continue;  // frames may follow each other
    if (size > input.length - at) out.fail(`a block of ${size} bytes where ${input.length - at} are left`);
    block(input, at, at + size, out);
    at += size;
  }
  return out.done();
}

/** One block: sequences of (literals, match); the last has literals only. */
function block(src: Uint8Array, at: number, end: number, output: Output): void {
  const start = output.length;
  const view = new DataView(src.buffer, src.byteOffset, src.length);
  let out = output.bytes, to = start;
  while (at < end) {
    const token = src[at++] as number;
    let n = token >>> 4;
    if (n === 15) {
      let more: number;
      do {
        if (at >= end) output.fail("it ends in a literal length");
        n += more = src[at++] as number;
      } while (more === 255);
    }
    if (n > end - at) output.fail("literals reach past their block");
    if (to - start + n > LEGACY_BLOCK) output.fail("a block gives more than 8 MiB");
    if (to + n > out.length) { output.length = to; out = output.room(n); }
    if (n <= 32 && at + 32 <= src.length && to + 32 <= out.length) for (let i = 0; i < n; i += 4) output.view.setInt32(to + i, view.getInt32(at + i, true), true);
    else out.set(src.subarray(at, at + n), to);
    to += n;
    at += n;
    if (at >= end) break;
    if (at + 2 > end) output.fail("it ends in an offset");
    const distance = (src[at] as number) | (src[at + 1] as number) << 8;
    at += 2;
    if (distance === 0 || distance > to - start) output.fail(`a match ${distance} bytes back, ${to - start} into its block`);
    n = (token & 15) + 4;
    if (n === 19) {
      let more: number;
      do {
        if (at >= end) output.fail("it ends in a match length");
        n += more = src[at++] as number;
      } while (more === 255);
    }
    if (to - start + n > LEGACY_BLOCK) output.fail("a block gives more than 8 MiB");
    if (to + n > out.length) { output.length = to; out = output.room(n); }
    copyMatch(out, output.view, to, distance, n);
    to += n;
  }
  output.length = to;
}
