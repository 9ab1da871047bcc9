/** What a TCP connection holds of a stream: bytes on their way to the guest until it acknowledges them, and bytes of the guest's that came too early. */

/** Chunks shorter than this are gathered in blocks of BLOCK_BYTES, so that a peer that writes single bytes costs no object each. */
const SMALL_BYTES = 2048, BLOCK_BYTES = 16384;

/** Bytes from the first unacknowledged one on. Chunks that were pushed are kept, not copied, unless they are small. */
export class SendBuffer {
  #chunks: Uint8Array[] = [];
  #head = 0;
  /** acknowledged bytes of the first chunk */
  #skip = 0;
  /** bytes used of the last chunk, when it is a block of ours with room; else 0 */
  #blockUsed = 0;
  bytes = 0;
  /** where the last copy ended, so that the next need not walk from the head: a chunk's index and the offset of its first byte */
  #cursor = 0;
  #cursorOffset = 0;

  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.bytes += chunk.length;
    if (chunk.length >= SMALL_BYTES) {
      this.#blockUsed = 0;
      this.#chunks.push(chunk);
      return;
    }
    const last = this.#chunks.length - 1, block = this.#blockUsed > 0 && last >= this.#head ? this.#chunks[last]! : null;
    if (block && this.#blockUsed + chunk.length <= BLOCK_BYTES) {
      const whole = new Uint8Array(block.buffer, 0, this.#blockUsed + chunk.length);
      whole.set(chunk, this.#blockUsed);
      this.#chunks[last] = whole;
      this.#blockUsed += chunk.length;
      return;
    }
    // Where nothing waits, one copy of its own size: an idle connection shall not hold a block.
    const fresh = new Uint8Array(new ArrayBuffer(this.bytes === chunk.length ? chunk.length : BLOCK_BYTES), 0, chunk.length);
    fresh.set(chunk);
    this.#blockUsed = fresh.buffer.byteLength === BLOCK_BYTES ? chunk.length : 0;
    this.#chunks.push(fresh);
  }
  /** The first `n` bytes were acknowledged. */
  drop(n: number): void {
    this.bytes -= n;
    this.#cursorOffset -= n;
    n += this.#skip;
    while (this.#head < this.#chunks.length && n >= this.#chunks[this.#head]!.length) n -= this.#chunks[this.#head++]!.length;
    this.#skip = n;
    if (this.bytes === 0) {
      this.#chunks = [];
      this.#head = this.#skip = this.#blockUsed = 0;
    } else if (this.#head > 64 && this.#head * 2 > this.#chunks.length) {
      this.#chunks.splice(0, this.#head);
      this.#cursor -= this.#head;
      this.#head = 0;
    }
    if (this.#cursor < this.#head || this.bytes === 0) this.#rewind();
  }
  #rewind(): void {
    this.#cursor = this.#head;
    this.#cursorOffset = -this.#skip;
  }
  /** Copy `n` bytes that begin `offset` behind the first one; they must be there. */
  copy(offset: number, n: number, into: Uint8Array, at: number): void {
    if (this.#cursorOffset > offset) this.#rewind();
    while (n > 0) {
      const chunk = this.#chunks[this.#cursor]!, from = offset - this.#cursorOffset;
      if (from >= chunk.length) {
        this.#cursor++;
        this.#cursorOffset += chunk.length;
        continue;
      }
      const part = Math.min(n, chunk.length - from);
      into.set(part === chunk.length ? chunk : chunk.subarray(from, from + part), at);
      at += part;
      offset += part;
      n -= part;
    }
  }
  clear(): void {
    this.#chunks = [];
    this.#head = this.#skip = this.#blockUsed = this.bytes = 0;
    this.#rewind();
  }
}

const PIECES_MAX = 512;
type Piece = { seq: number; bytes: Uint8Array };

/** The guest's bytes behind a hole, in order of sequence numbers. Pieces may overlap; what they hold together is bounded in bytes and number. */
export class Reorder {
  readonly #pieces: Piece[] = [];
  bytes = 0;

  get isEmpty(): boolean {
    return this.#pieces.length === 0;
  }
  /** @param budgetBytes what may be held at most; a piece beyond it is not taken, and comes again */
  add(seq: number, bytes: Uint8Array, budgetBytes: number): void {
    if (bytes.length === 0 || this.bytes + bytes.length > budgetBytes || this.#pieces.length >= PIECES_MAX) return;
    let i = this.#pieces.length;
    while (i > 0 && ((this.#pieces[i - 1]!.seq - seq) | 0) > 0) i--;
    const before = this.#pieces[i - 1];
    if (before && ((seq + bytes.length - before.seq - before.bytes.length) | 0) <= 0) return;
    // A small piece of a large frame would keep the frame.
    this.#pieces.splice(i, 0, { seq, bytes: bytes.length * 2 < bytes.buffer.byteLength ? bytes.slice() : bytes });
    this.bytes += bytes.length;
  }
  /** The bytes that follow at `seq`, when there are any; they leave. */
  take(seq: number): Uint8Array | null {
    for (let piece = this.#pieces[0]; piece; piece = this.#pieces[0]) {
      const skip = (seq - piece.seq) | 0;
      if (skip < 0) return null;
      this.#pieces.shift();
      this.bytes -= piece.bytes.length;
      if (skip < piece.bytes.length) return skip ? piece.bytes.subarray(skip) : piece.bytes;
    }
    return null;
  }
  clear(): void {
    this.#pieces.length = 0;
    this.bytes = 0;
  }
}
