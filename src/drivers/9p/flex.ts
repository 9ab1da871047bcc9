/**
 * The back end's half of a flex ring: public/io/ring.h, two rings of bytes on granted pages. The front end may write anything anywhere at any time: our indexes live here and are only
 * copied to the page, theirs are believed where a ring can be so full, and bytes are copied out before they are looked at.
 */
import { flexRingBytes, Xen9pfsDataIntf as INTF } from "../../abi/io/9pfs.ts";
import { assert } from "../../base/errors.ts";

const PAGE_BYTES = 4096;
/** What is offered as max-ring-page-order: 1 MiB each way, as QEMU's back end has it. */
export const MAX_RING_ORDER = 9;

export class FlexRing {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #intf: number;
  readonly #pages: readonly number[];
  /** of each direction */
  readonly sizeBytes: number;
  #inProd: number;
  #outCons: number;
  #dead: string | null = null;

  /**
   * Go on where the page says.
   * @param words the whole of machine memory, and `bytes` the same
   * @param intf byte address of the page of indexes @param pages of the data, 2^order of them
   */
  constructor(words: Int32Array, bytes: Uint8Array, intf: number, pages: readonly number[]) {
    const order = Math.log2(pages.length);
    assert(words.byteOffset === 0 && Number.isInteger(order) && order <= MAX_RING_ORDER, `ring of ${pages.length} pages`);
    for (const page of [intf, ...pages]) assert(page % PAGE_BYTES === 0 && page + PAGE_BYTES <= words.byteLength, `ring page ${page}`);
    this.#words = words;
    this.#bytes = bytes;
    this.#intf = intf;
    this.#pages = [...pages];
    this.sizeBytes = flexRingBytes(order);
    this.#inProd = this.#load(INTF.in_prod.at);
    this.#outCons = this.#load(INTF.out_cons.at);
  }
  #load(at: number): number { return Atomics.load(this.#words, (this.#intf + at) / 4) >>> 0; }
  #store(at: number, value: number): void { Atomics.store(this.#words, (this.#intf + at) / 4, value | 0); }
  /** The bytes of a stretch of one direction, in pieces that are in one in machine memory: `move` gets machine addresses. */
  #pieces(base: number, index: number, sizeBytes: number, move: (at: number, offset: number, n: number) => void): void {
    for (let done = 0; done < sizeBytes;) {
      const inRing = (index + done) & (this.sizeBytes - 1), at = base + inRing, nr = (at / PAGE_BYTES) | 0, start = this.#pages[nr]! + (at % PAGE_BYTES);
      const most = Math.min(sizeBytes - done, this.sizeBytes - inRing);
      let n = PAGE_BYTES - (at % PAGE_BYTES);
      for (let i = nr + 1; n < most && this.#pages[i] === this.#pages[i - 1]! + PAGE_BYTES; i++) n += PAGE_BYTES;
      n = Math.min(n, most);
      move(start, done, n);
      done += n;
    }
  }
  #break(what: string): number {
    this.#dead ??= what;
    return 0;
  }

  /** null, or the sentence that says how the front end broke the ring: nothing is taken or given any more. */
  get dead(): string | null { return this.#dead; }
  /** Bytes that the front end has sent and that are not taken; 0 from a dead ring. */
  get nrQueued(): number {
    if (this.#dead !== null) return 0;
    const prod = this.#load(INTF.out_prod.at), queued = (prod - this.#outCons) >>> 0;
    return queued <= this.sizeBytes ? queued : this.#break(`out_prod ${prod} is ${queued} ahead of out_cons in a ring of ${this.sizeBytes} bytes`);
  }
  /** Bytes that there is room for on the way to the front end; 0 in a dead ring. */
  get nrFree(): number {
    if (this.#dead !== null) return 0;
    const cons = this.#load(INTF.in_cons.at), used = (this.#inProd - cons) >>> 0;
    return used <= this.sizeBytes ? this.sizeBytes - used : this.#break(`in_cons ${cons} is ${used} behind in_prod in a ring of ${this.sizeBytes} bytes`);
  }
  /** Copy what comes next, as much as `into` holds, and leave it in the ring, where the front end may still change it. @param into at most `nrQueued` bytes */
  peek(into: Uint8Array): void { this.#pieces(this.sizeBytes, this.#outCons, into.length, (at, offset, n) => into.set(this.#bytes.subarray(at, at + n), offset)); }
  /** The same, and it is gone from the ring. */
  take(into: Uint8Array): void {
    this.peek(into);
    this.#outCons = (this.#outCons + into.length) >>> 0;
    this.#store(INTF.out_cons.at, this.#outCons);       // the front end may overwrite those bytes from here on
  }
  /** Give the front end a whole message: it sees all of it or nothing, for Linux's reads on once it has seen a header. @param from at most `nrFree` bytes */
  put(from: Uint8Array): void {
    this.#pieces(0, this.#inProd, from.length, (at, offset, n) => this.#bytes.set(from.subarray(offset, offset + n), at));
    this.#inProd = (this.#inProd + from.length) >>> 0;
    this.#store(INTF.in_prod.at, this.#inProd);
  }
  /** For an inspector. */
  describe(): Record<string, unknown> {
    return { sizeBytes: this.sizeBytes, inProd: this.#inProd, inCons: this.#load(INTF.in_cons.at), outProd: this.#load(INTF.out_prod.at), outCons: this.#outCons, dead: this.#dead };
  }
}
