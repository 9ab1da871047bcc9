/**
 * A console as people see it: many may look, one may type. Each viewer begins with what was said last, and none of them holds the guest up: who does not read loses
 * the oldest bytes, and is told so.
 */
import { UserError } from "../../base/errors.ts";

/** What a new viewer is shown, and what one that does not read may fall behind. */
const BACKLOG_BYTES = 64 << 10, BEHIND_BYTES = 256 << 10;

/** Bytes in order, the oldest dropped beyond a bound. */
class Tail {
  readonly #maxBytes: number;
  #pieces: Uint8Array<ArrayBuffer>[] = [];
  #lengthBytes = 0;
  nrLostBytes = 0;
  constructor(maxBytes: number) { this.#maxBytes = maxBytes; }
  push(bytes: Uint8Array<ArrayBuffer>): void {
    this.#pieces.push(bytes);
    this.#lengthBytes += bytes.length;
    while (this.#lengthBytes > this.#maxBytes) {
      const first = this.#pieces[0]!, over = Math.min(first.length, this.#lengthBytes - this.#maxBytes);
      if (over === first.length) this.#pieces.shift();
      else this.#pieces[0] = first.subarray(over);
      this.#lengthBytes -= over;
      this.nrLostBytes += over;
    }
  }
  /** All of it, in one piece. */
  whole(): Uint8Array<ArrayBuffer> {
    const all = new Uint8Array(this.#lengthBytes);
    let at = 0;
    for (const piece of this.#pieces) { all.set(piece, at); at += piece.length; }
    return all;
  }
  take(): Uint8Array<ArrayBuffer> {
    const all = this.whole();
    this.#pieces = [];
    this.#lengthBytes = 0;
    return all;
  }
  get isEmpty(): boolean { return this.#lengthBytes === 0; }
}

type Viewer = { readonly waiting: Tail; controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> };

export class ConsoleViews {
  readonly #backlog = new Tail(BACKLOG_BYTES);
  readonly #viewers = new Set<Viewer>();
  #type: ((bytes: Uint8Array) => Promise<void>) | null = null;
  #isTaken = false;
  #isClosed = false;

  get nrViewers(): number { return this.#viewers.size; }
  /** What was said last, at most 64 KiB. */
  get backlog(): Uint8Array<ArrayBuffer> { return this.#backlog.whole(); }

  /** The guest said something. `bytes` must not change afterwards. */
  push(bytes: Uint8Array<ArrayBuffer>): void {
    if (bytes.length === 0) return;
    this.#backlog.push(bytes);
    for (const viewer of this.#viewers) {
      viewer.waiting.push(bytes);
      this.#feed(viewer);
    }
  }
  #feed(viewer: Viewer, isLast = false): void {
    const { waiting, controller } = viewer;
    if (waiting.isEmpty || (!isLast && (controller.desiredSize ?? 0) <= 0)) return;
    if (waiting.nrLostBytes > 0) {
      controller.enqueue(new TextEncoder().encode(`\r\n[${waiting.nrLostBytes} bytes were not read in time and are lost]\r\n`));
      waiting.nrLostBytes = 0;
    }
    controller.enqueue(waiting.take());
  }
  /** Look at it, from the backlog on. Cancel the stream to look away; it ends when the console does. */
  view(): ReadableStream<Uint8Array<ArrayBuffer>> {
    let viewer: Viewer;
    return new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        viewer = { waiting: new Tail(BEHIND_BYTES), controller };
        viewer.waiting.push(this.#backlog.whole());
        if (this.#isClosed) {
          this.#feed(viewer);
          controller.close();
        } else this.#viewers.add(viewer);
      },
      pull: () => this.#feed(viewer),
      cancel: () => { this.#viewers.delete(viewer); },
    });
  }
  /**
   * Be the one who types. What is typed while the guest has no console is lost.
   * @returns the way in; `release` lets another type @throws UserError while somebody else has it
   */
  takeKeyboard(): { write(bytes: Uint8Array): Promise<void>; release(): void } {
    if (this.#isTaken) throw new UserError("Somebody else types on this console; it can be looked at only");
    this.#isTaken = true;
    let isMine = true;
    return {
      write: async (bytes) => { if (isMine) await this.#type?.(bytes).catch(() => {}); },
      release: () => {
        if (isMine) this.#isTaken = isMine = false;
      },
    };
  }
  /** Where what is typed goes; null: nowhere. */
  typeTo(write: ((bytes: Uint8Array) => Promise<void>) | null): void { this.#type = write; }
  /** The console is gone for good. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#type = null;
    for (const viewer of this.#viewers) {
      this.#feed(viewer, true);
      try { viewer.controller.close(); } catch { /* cancelled meanwhile */ }
    }
    this.#viewers.clear();
  }
}
