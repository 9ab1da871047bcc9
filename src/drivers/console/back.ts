/**
 * The PV console's back end: public/io/console.h. The guest writes to `out` and reads from `in`; it may put anything into the page at
 * any time. Our two indexes live here and are copied out; an index of the guest's that lies further off than a ring is long is
 * taken for ours: what was in the ring is lost, and the console goes on.
 */
import { assert } from "../../base/errors.ts";
import { XenconsInterface as PAGE } from "../../abi/io/console.ts";

export type ConsoleOptions = {
  /** Takes what the guest wrote. While the promise it may return is pending, the ring fills and the guest waits. */
  onOutput: (bytes: Uint8Array<ArrayBuffer>) => void | Promise<void>;
  log?: (sentence: string) => void;
  /** stands at the front of log lines, like "d3 console" */
  name?: string;
};
/** Input that waits for room in the ring, and who waits for it. */
type Pending = { bytes: Uint8Array; done: () => void; failed: (why: Error) => void };

export class ConsoleBack {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #page: number;
  readonly #notify: () => void;
  readonly #options: ConsoleOptions;
  #inProd: number;
  #outCons: number;
  #pending: Pending[] = [];
  /** the reader of our output is not ready */
  #isHeld = false;
  #isClosed = false;
  #nrFaults = 0;
  /** bytes moved since the start, for an inspector */
  nrBytesIn = 0;
  nrBytesOut = 0;

  /**
   * @param words the whole of machine memory; `page` is the console page's byte address in it
   * @param notify sends the guest its event
   */
  constructor(words: Int32Array, page: number, notify: () => void, options: ConsoleOptions) {
    assert(words.byteOffset === 0 && page % 4096 === 0 && page + 4096 <= words.byteLength, `console page ${page}`);
    this.#words = words;
    this.#bytes = new Uint8Array(words.buffer);
    this.#page = page;
    this.#notify = notify;
    this.#options = options;
    this.#inProd = this.#load(PAGE.in_prod.at);
    this.#outCons = this.#load(PAGE.out_cons.at);
  }
  #load(at: number): number {
    return Atomics.load(this.#words, (this.#page + at) / 4) >>> 0;
  }
  #put(at: number, value: number): void {
    Atomics.store(this.#words, (this.#page + at) / 4, value | 0);
  }
  #fault(what: string): void {
    if (++this.#nrFaults <= 3) this.#options.log?.(`${this.#options.name ?? "console"}: ${what}; the ring starts anew`);
  }

  /** Move what can be moved. Call it at each event from the guest. */
  poll(): void {
    if (this.#isClosed) return;
    const taken = this.#takeOutput(), given = this.#giveInput();
    if (taken || given) this.#notify();
  }

  #takeOutput(): boolean {
    if (this.#isHeld) return false;
    const size = PAGE.out.size, used = (this.#load(PAGE.out_prod.at) - this.#outCons) >>> 0;
    if (used === 0) return false;
    if (used > size) {
      this.#fault(`out_prod is ${used} ahead of out_cons`);
      this.#outCons = (this.#outCons + used) >>> 0;
      this.#put(PAGE.out_cons.at, this.#outCons);
      return true;
    }
    const from = this.#outCons & (size - 1), first = Math.min(used, size - from), base = this.#page + PAGE.out.at, bytes = new Uint8Array(used);
    bytes.set(this.#bytes.subarray(base + from, base + from + first));
    bytes.set(this.#bytes.subarray(base, base + used - first), first);
    this.#outCons = (this.#outCons + used) >>> 0;
    this.#put(PAGE.out_cons.at, this.#outCons);  // the guest may overwrite those bytes from here on
    this.nrBytesOut += used;
    const ready = this.#options.onOutput(bytes);
    if (ready) {
      this.#isHeld = true;
      const release = () => {
        this.#isHeld = false;
        this.poll();
      };
      ready.then(release, release);
    }
    return true;
  }

  #giveInput(): boolean {
    let moved = false;
    for (let p = this.#pending[0]; p; p = this.#pending[0]) {
      const size = PAGE.in.size;
      let used = (this.#inProd - this.#load(PAGE.in_cons.at)) >>> 0;
      if (used > size) {
        this.#fault(`in_cons is ${used} behind in_prod`);
        this.#put(PAGE.in_cons.at, this.#inProd);
        used = 0;
      }
      const to = this.#inProd & (size - 1), n = Math.min(size - used, size - to, p.bytes.length);
      if (n === 0 && p.bytes.length) return moved;
      this.#bytes.set(p.bytes.subarray(0, n), this.#page + PAGE.in.at + to);
      this.#inProd = (this.#inProd + n) >>> 0;
      this.#put(PAGE.in_prod.at, this.#inProd);  // visible to the guest from here on
      this.nrBytesIn += n;
      moved ||= n > 0;
      p.bytes = p.bytes.subarray(n);
      if (p.bytes.length) continue;
      this.#pending.shift();
      p.done();
    }
    return moved;
  }

  /** Type `bytes` on the guest's console, after all that was written before. @returns settles when they are in the ring; rejects when the console closes first */
  write(bytes: Uint8Array): Promise<void> {
    if (this.#isClosed) return Promise.reject(new Error("The console is closed"));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#pending.push({ bytes: bytes.slice(), done: resolve, failed: reject });
    if (this.#giveInput()) this.#notify();
    return promise;
  }
  /** Bytes written that the ring had no room for. */
  get nrBytesWaiting(): number {
    return this.#pending.reduce((sum, p) => sum + p.bytes.length, 0);
  }

  /** Take the last output and stop. */
  close(): void {
    if (this.#isClosed) return;
    this.#isHeld = false;
    this.#takeOutput();
    this.#isClosed = true;
    for (const p of this.#pending.splice(0)) p.failed(new Error("The console is closed"));
  }
}
