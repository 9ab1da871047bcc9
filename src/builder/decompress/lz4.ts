/**
 * LZ4's legacy frame: a magic, then blocks of at most 8 MiB of output, each behind its compressed size, to the end of the file.
 * @see the LZ4 project's lz4_Frame_format.md ("Legacy frame") and lz4_Block_format.md
 */
import { FLAWS, lz4Block, SLACK } from "./lz4-block.ts";
import { type Options, Output } from "./output.ts";

const LZ4_LEGACY_MAGIC = 0x184c2102;
const LEGACY_BLOCK = 8 << 20;
const WASM_PAGE = 65536;

/** Unpack all blocks of a legacy frame, and of frames that follow. */
export function unlz4(input: Uint8Array, options: Options = {}): Uint8Array<ArrayBuffer> {
  const out = new Output("LZ4", input, options);
  const view = new DataView(input.buffer, input.byteOffset, input.length);
  if (input.length < 4 || view.getUint32(0, true) !== LZ4_LEGACY_MAGIC) out.fail("no legacy magic");
  // a block's output lies at the begin, its input behind it
  const inputAt = LEGACY_BLOCK + SLACK, memory = new WebAssembly.Memory({ initial: Math.ceil((inputAt + SLACK) / WASM_PAGE), maximum: 65536 }), { unpack } = lz4Block(memory);
  let at = 4;
  while (at < input.length) {
    if (at + 4 > input.length) out.fail("it ends in a block's size");
    const size = view.getUint32(at, true);
    at += 4;
    if (size === LZ4_LEGACY_MAGIC) continue;  // frames may follow each other
    if (size > input.length - at) out.fail(`a block of ${size} bytes where ${input.length - at} are left`);
    const missing = inputAt + size + SLACK - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / WASM_PAGE));
    new Uint8Array(memory.buffer).set(input.subarray(at, at + size), inputAt);
    const n = unpack(inputAt, inputAt + size, 0, LEGACY_BLOCK);
    if (n < 0) out.fail(FLAWS[-n] as string);
    out.append(new Uint8Array(memory.buffer, 0, n));
    at += size;
  }
  return out.done();
}

