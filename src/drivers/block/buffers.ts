/** Buffers between guests' pages and disks, used again: making a large one anew costs more than a request. */

const SMALLEST = 4096, LARGEST = 1 << 20;
/** Buffers of a size that are kept. */
const KEPT = 16;

export class Buffers {
  /** by log2 of the size */
  readonly #free: Uint8Array<ArrayBuffer>[][] = [];
  /** A buffer of exactly so many bytes, its content undefined. */
  take(lengthBytes: number): Uint8Array<ArrayBuffer> {
    if (lengthBytes > LARGEST) return new Uint8Array(lengthBytes);
    const cls = Math.max(0, 32 - Math.clz32((lengthBytes - 1) | (SMALLEST - 1)));
    const whole = this.#free[cls]?.pop() ?? new Uint8Array(2 ** cls);
    return whole.subarray(0, lengthBytes);
  }
  /** Give one back that `take` gave. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    const whole = buffer.buffer.byteLength, cls = 31 - Math.clz32(whole);
    if (whole > LARGEST) return;
    const list = this.#free[cls] ??= [];
    if (list.length < KEPT) list.push(new Uint8Array(buffer.buffer));
  }
}
