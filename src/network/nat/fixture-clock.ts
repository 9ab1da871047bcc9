/** For tests: bytes and numbers that are the same for the same seed, and virtual time. */
import type { NetClock } from "../clock.ts";

export const seeded = (seed: number) => () => { // 0 to 1
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 32;
};
export function randomBytes(seed: number, length: number): Uint8Array<ArrayBuffer> { // the same for the same seed
  const bytes = new Uint8Array(length);
  let x = seed | 1;
  for (let i = 0; i < length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x;
  }
  return bytes;
}

type Event = { atMs: number; order: number; call: () => void };
/** Time that passes when `run` says so; microtasks get their turn between events. */
export class VirtualClock implements NetClock {
  #nowMs = 0;
  #order = 0;
  /** a binary heap, earliest first */
  readonly #heap: Event[] = [];

  nowMs(): number {
    return this.#nowMs;
  }
  after(delayMs: number, call: () => void): () => void {
    const event: Event = { atMs: this.#nowMs + delayMs, order: this.#order++, call }, heap = this.#heap;
    let i = heap.push(event) - 1;
    for (let up = (i - 1) >> 1; i > 0 && isBefore(event, heap[up]!); i = up, up = (i - 1) >> 1) heap[i] = heap[up]!;
    heap[i] = event;
    return () => { event.call = () => {}; };
  }
  #pop(): Event {
    const heap = this.#heap, top = heap[0]!, last = heap.pop()!;
    if (heap.length === 0) return top;
    let i = 0;
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return top;
  }
  /** Let `forMs` pass, or less when `until` comes true. */
  async run(forMs: number, until: () => boolean = () => false): Promise<void> {
    const endMs = this.#nowMs + forMs;
    await null;
    for (let n = 0; !until() && this.#heap.length > 0 && this.#heap[0]!.atMs <= endMs; n++) {
      const event = this.#pop();
      this.#nowMs = Math.max(this.#nowMs, event.atMs);
      event.call();
      if (n % 8 === 0) await null;
    }
    if (!until()) this.#nowMs = endMs;
    await null;
  }
}
const isBefore = (a: Event, b: Event): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

