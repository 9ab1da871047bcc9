/** What is on its way to one client. Rings and sockets empty it at their own pace; what it may hold is bounded. */
import { XS } from "../abi/io/xs_wire.ts";
import { encodePacket, fromBytes, type Packet } from "./wire.ts";

/**
 * A queue of packets, the first perhaps partly sent. Replies are always taken: who serves the client stops at its requests while the queue is long. Watch events
 * come without being asked for, so they are left out when the queue is full, and when the same event already waits behind the last reply.
 */
export class Outbox {
  readonly #maxBytes: number;
  #queue: { bytes: Uint8Array<ArrayBuffer>; event: string | undefined; sent: (() => void) | undefined }[] = [];
  #offset = 0;
  /** watch events behind the queue's last reply: what is still to be told need not be told twice */
  readonly #events = new Set<string>();
  /** bytes that wait */
  nrBytes = 0;

  /** @param maxBytes beyond this much no event is taken */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }
  /**
   * @param sent called when the packet is out, or will never be
   * @returns false when there was no room for an event
   */
  add(packet: Packet, sent?: () => void): boolean {
    const bytes = encodePacket(packet), event = packet.type === XS.WATCH_EVENT ? (packet.text ?? fromBytes(packet.payload)) : undefined;
    if (event === undefined) this.#events.clear();
    else if (this.#events.has(event)) {
      sent?.();
      return true;
    } else if (this.nrBytes + bytes.length > this.#maxBytes) {
      sent?.();
      return false;
    } else this.#events.add(event);
    this.#queue.push({ bytes, event, sent });
    this.nrBytes += bytes.length;
    return true;
  }
  /** What is left of the first packet. */
  get head(): Uint8Array<ArrayBuffer> | undefined {
    return this.#queue[0]?.bytes.subarray(this.#offset);
  }
  /** So many bytes of the head are out. */
  advance(nrBytes: number): void {
    const first = this.#queue[0];
    if (!first) return;
    this.nrBytes -= nrBytes;
    this.#offset += nrBytes;
    if (this.#offset < first.bytes.length) return;
    this.#queue.shift();
    this.#offset = 0;
    if (first.event !== undefined) this.#events.delete(first.event);
    first.sent?.();
  }
  /** Forget all that waits. */
  clear(): void {
    const dropped = this.#queue;
    this.#queue = [];
    this.#offset = this.nrBytes = 0;
    this.#events.clear();
    for (const item of dropped) item.sent?.();
  }
}
