/**
 * LZ4's legacy frame: a magic, then blocks of at most 8 MiB of output, each behind its compressed size, to the end of the file.
 * @see the LZ4 project's lz4_Frame_format.md ("Legacy frame") and lz4_Block_format.md
 */
import { FLAWS, lz4Block, SLACK, TOO_LONG } from "./lz4-block.ts";
import { type Options, Output } from "./output.ts";

const LZ4_LEGACY_MAGIC = 0x184c2102;
const LEGACY_BLOCK = 8 << 20;
const WASM_PAGE = 65536;

/** Unpack all blocks of a legacy frame, and of frames that follow. */
export function unlz4(input: Uint8Array, options: Options = {}): Uint8Array {
  const view = new DataView(input.buffer, input.byteOffset, input.length), longest = longestBlock(view), out = new Output("LZ4", input, options, longest + 2 * SLACK);
  if (input.length < 4 || view.getUint32(0, true) !== LZ4_LEGACY_MAGIC) out.fail("no legacy magic");
  // a block's output goes where it belongs, where that is such memory, or lies at the begin of memory that it is copied from; the input behind all that
  const { place } = out, memory = place?.memory ?? new WebAssembly.Memory({ initial: Math.ceil((LEGACY_BLOCK + longest + 2 * SLACK) / WASM_PAGE), maximum: 65536 });
  const { unpack } = lz4Block(memory), u8 = new Uint8Array(memory.buffer), inputAt = SLACK + (place ? place.bytes.byteOffset + place.bytes.length : LEGACY_BLOCK);
  let at = 4;
  while (at < input.length) {
    if (at + 4 > input.length) out.fail("it ends in a block's size");
    const size = view.getUint32(at, true);
    at += 4;
    if (size === LZ4_LEGACY_MAGIC) continue;  // frames may follow each other
    if (size > input.length - at) out.fail(`a block of ${size} bytes where ${input.length - at} are left`);
    u8.set(input.subarray(at, at + size), inputAt);
    const most = place ? Math.min(LEGACY_BLOCK, place.bytes.length - out.length) : LEGACY_BLOCK, n = unpack(inputAt, inputAt + size, place ? place.bytes.byteOffset + out.length : 0, most);
    if (n < 0) out.fail(FLAWS[-n] === TOO_LONG && most < LEGACY_BLOCK ? `more than the ${out.bytes.length} bytes that it is said to have` : FLAWS[-n] as string);
    if (place) out.length += n; else out.append(u8.subarray(0, n));
    at += size;
  }
  return out.done();
}
/** Bytes of the longest of the blocks that are there whole. */
function longestBlock(view: DataView): number {
  let longest = 0;
  for (let at = 4; at + 4 <= view.byteLength; ) {
    const size = view.getUint32(at, true);
    at += 4;
    if (size === LZ4_LEGACY_MAGIC) continue;
    if (size > view.byteLength - at) break;
    longest = Math.max(longest, size);
    at += size;
  }
  return longest;
}
