/** The bytes of a saved or moving domain: pieces of known length out of a stream, with the place in it for messages; bytes into a stream, as fast as it takes them. */
import { UserError } from "../base/errors.ts";
import { pause, unlessAborted } from "../base/wait.ts";

/** The stream is no stream of a domain, is damaged, or ended before its end. The message names the place. */
export class StreamError extends UserError {
  override name = "StreamError";
}

/** Reads a stream. One call at a time. Lengths are the caller's to check: they are allocated. */
export class Source {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  /** bytes read so far */
  offset = 0;
  /** what is being read, for the message of a stream that ends too early */
  what = "the header";

  constructor(stream: ReadableStream<Uint8Array>) { this.#reader = stream.getReader(); }
  /** @returns false at the stream's end */
  async #more(): Promise<boolean> {
    while (this.#at === this.#chunk.length) {
      const { value, done } = await this.#reader.read();
      if (done) return false;
      this.#chunk = value;
      this.#at = 0;
    }
    return true;
  }
  /** Take up to `into.length - done` bytes of what is here already. @returns bytes in `into` now */
  #take(into: Uint8Array, done: number): number {
    const n = Math.min(into.length - done, this.#chunk.length - this.#at);
    into.set(this.#chunk.subarray(this.#at, this.#at + n), done);
    this.#at += n;
    this.offset += n;
    return done + n;
  }
  /** Fill `into`. @throws StreamError at the stream's end */
  async readInto(into: Uint8Array): Promise<void> {
    for (let done = this.#take(into, 0); done < into.length; done = this.#take(into, done)) {
      if (!(await this.#more())) throw new StreamError(`The stream ends at byte ${this.offset}, within ${this.what}: it was cut short`);
    }
  }
  /** The next bytes, a copy. @throws StreamError */
  async exactly(lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(lengthBytes);
    await this.readInto(bytes);
    return bytes;
  }
  /** Is there nothing more? */
  async isEnded(): Promise<boolean> { return !(await this.#more()); }
  /** Let go of the stream; what is not read yet is its next reader's, but for what was begun. */
  release(): void { this.#reader.releaseLock(); }
  /** Read on, and throw it away, until the other end is done or that time is over: one that still writes then hears what it was told last, and not that nobody reads. */
  async drain(mostMs: number): Promise<void> {
    const over = new AbortController(), end = (async () => { while (!(await this.#reader.read()).done); })().catch(() => {});
    await Promise.race([end, pause(mostMs, over.signal).catch(() => {})]);
    over.abort();
  }
  /** Read no more, ever. */
  async cancel(why: unknown): Promise<void> { await this.#reader.cancel(why).catch(() => {}); }
}

/** Writes a stream, waits where it is full, counts, and holds to a rate. */
export class Sink {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #bytesPerSecond: number;
  readonly #signal: AbortSignal | undefined;
  #startMs = performance.now();
  #paidBytes = 0;
  nrBytes = 0;

  /** @param bytesPerSecond Infinity: no limit @param signal ends a wait */
  constructor(stream: WritableStream<Uint8Array>, bytesPerSecond = Number.POSITIVE_INFINITY, signal?: AbortSignal) {
    this.#writer = stream.getWriter();
    this.#writer.closed.catch(() => {});
    this.#bytesPerSecond = bytesPerSecond;
    this.#signal = signal;
  }
  /** Hand bytes over; they are the stream's from now on. @throws the stream's error, or the signal's reason */
  async write(bytes: Uint8Array): Promise<void> {
    this.#signal?.throwIfAborted();
    this.nrBytes += bytes.length;
    this.#writer.write(bytes).catch(() => {});       // `ready` and `closed` tell of it
    await unlessAborted(this.#signal, this.#writer.ready);
    if (this.#bytesPerSecond !== Number.POSITIVE_INFINITY) await this.#hold(bytes.length);
  }
  /** Hand a few bytes over without waiting for anything: who waits for what the other end says to them waits there. */
  post(bytes: Uint8Array): void {
    this.nrBytes += bytes.length;
    this.#writer.write(bytes).catch(() => {});
  }
  async #hold(nrBytes: number): Promise<void> {
    const now = performance.now(), credit = (now - this.#startMs) / 1000 * this.#bytesPerSecond;
    if (credit > this.#paidBytes + this.#bytesPerSecond / 10) { this.#startMs = now; this.#paidBytes = 0; }       // what was not used is not saved up
    this.#paidBytes += nrBytes;
    const waitMs = this.#paidBytes / this.#bytesPerSecond * 1000 - (now - this.#startMs);
    if (waitMs > 1) await pause(waitMs, this.#signal);
  }
  /** All written and taken, the stream closed. @throws the stream's error */
  async close(): Promise<void> { await unlessAborted(this.#signal, this.#writer.close()); }
  /** All written and taken by the stream, whose other end reads on. */
  async flush(): Promise<void> { await unlessAborted(this.#signal, this.#writer.write(new Uint8Array(0))); }
  async abort(why: unknown): Promise<void> { await this.#writer.abort(why).catch(() => {}); }
  release(): void { this.#writer.releaseLock(); }
}
