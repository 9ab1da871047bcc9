/**
 * The back end's half of a request ring: public/io/ring.h. The front end may write anything anywhere in the pages at any time: requests are copied out
 * before they are looked at, our indexes live here and are only copied to the page, and the front end's one index is believed when there can be so many requests.
 */
import { ringSize, SRING } from "../abi/io/ring.ts";
import { assert } from "../base/errors.ts";
import type { GrantAccess, MappedPage } from "./grants.ts";

const PAGE_BYTES = 4096;
/** What our back ends take: max-ring-page-order 4. */
export const RING_PAGES_MAX = 16;

/** The front end has set its device up in a way that cannot be connected to. The message is a sentence for its error node. */
export class FrontRefusal extends Error {
  override name = "FrontRefusal";
}

/** Map the pages of a ring. @param what for the message, like "tx-ring-ref" @throws FrontRefusal, with nothing left mapped */
export function mapRing(gnt: GrantAccess, refs: readonly number[], what: string): MappedPage[] {
  const pages: MappedPage[] = [];
  for (const ref of refs) {
    const page = gnt.map(ref, false);
    if (typeof page === "number") {
      for (const p of pages) gnt.unmap(p);
      throw new FrontRefusal(`${what} ${ref} cannot be mapped (GNTST ${page})`);
    }
    pages.push(page);
  }
  return pages;
}

/** A ring on 1 to 16 pages that need not lie one after the other in machine memory; where the guest sees them in a row, a slot may lie across two. */
export class BackRing {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #pages: readonly number[];
  readonly #slotBytes: number;
  readonly nrSlots: number;
  /** the request that `take` copied, and a view of it */
  readonly request: Uint8Array<ArrayBuffer>;
  readonly requestView: DataView;
  /** what `put` will write; the caller fills it through the view */
  readonly response: Uint8Array<ArrayBuffer>;
  readonly responseView: DataView;
  #reqCons: number;
  /** responses written (rsp_prod_pvt), and how many of them the front end was shown */
  #rspProd: number;
  #pushed: number;
  #dead: string | null = null;

  /**
   * Go on where the page says: at its start a new ring, elsewhere one that comes with its domain from another host. Requests without a response count as not taken.
   * @param words the whole of machine memory
   * @param pages byte addresses in it
   * @param slotBytes size of the larger of request and response
   */
  constructor(words: Int32Array, pages: readonly number[], slotBytes: number) {
    assert(words.byteOffset === 0 && pages.length >= 1 && pages.length <= RING_PAGES_MAX && slotBytes >= 4 && slotBytes <= 1024, `ring of ${pages.length} pages, slots of ${slotBytes}`);
    for (const page of pages) assert(page % PAGE_BYTES === 0 && page + PAGE_BYTES <= words.byteLength, `ring page ${page}`);
    this.#words = words;
    this.#bytes = new Uint8Array(words.buffer);
    this.#pages = [...pages];
    this.#slotBytes = slotBytes;
    this.nrSlots = ringSize(pages.length * PAGE_BYTES, slotBytes);
    this.request = new Uint8Array(slotBytes);
    this.requestView = new DataView(this.request.buffer);
    this.response = new Uint8Array(slotBytes);
    this.responseView = new DataView(this.response.buffer);
    this.#reqCons = this.#rspProd = this.#pushed = this.#load(SRING.rsp_prod.at);
  }
  #load(at: number): number {
    return Atomics.load(this.#words, (this.#pages[0]! + at) / 4) >>> 0;
  }
  #store(at: number, value: number): void {
    Atomics.store(this.#words, (this.#pages[0]! + at) / 4, value | 0);
  }
  /** The bytes of a slot, in one piece or two: `move` gets machine addresses. */
  #pieces(index: number, sizeBytes: number, move: (at: number, offset: number, n: number) => void): void {
    const start = SRING.sizeof + (index & (this.nrSlots - 1)) * this.#slotBytes;
    for (let done = 0; done < sizeBytes;) {
      const at = start + done, inPage = at % PAGE_BYTES, n = Math.min(sizeBytes - done, PAGE_BYTES - inPage);
      move(this.#pages[(at - inPage) / PAGE_BYTES]! + inPage, done, n);
      done += n;
    }
  }

  /** null, or the sentence that says how the front end broke the ring: nothing is taken any more, close the device. */
  get dead(): string | null {
    return this.#dead;
  }
  /** Requests that wait to be taken; 0 from a dead ring. */
  get nrRequests(): number {
    if (this.#dead !== null) return 0;
    const prod = this.#load(SRING.req_prod.at);
    if (((prod - this.#rspProd) >>> 0) <= this.nrSlots) return Math.max((prod - this.#reqCons) | 0, 0);
    this.#dead = `req_prod ${prod} is ${(prod - this.#rspProd) >>> 0} ahead of rsp_prod in a ring of ${this.nrSlots} slots`;
    return 0;
  }
  /** Requests taken that have no response yet. */
  get nrInFlight(): number {
    return (this.#reqCons - this.#rspProd) >>> 0;
  }
  /** Copy the request that is `i` behind the next one to `request`, and leave it in the ring, where the front end may still change it. @returns false when there is none */
  peek(i: number): boolean {
    if (i >= this.nrRequests) return false;
    this.#copy(this.#reqCons + i);
    return true;
  }
  #copy(index: number): void { this.#pieces(index, this.#slotBytes, (at, offset, n) => this.request.set(this.#bytes.subarray(at, at + n), offset)); }
  /** Copy the next request to `request`; the front end may overwrite its slot once there is a response. @returns false when there is none */
  take(): boolean {
    if (this.nrRequests === 0) return false;
    this.#copy(this.#reqCons);
    this.#reqCons = (this.#reqCons + 1) >>> 0;
    return true;
  }
  /**
   * Before going to sleep: ask for an event when `nr` requests wait, then look once more.
   * @returns true when they are there already: do not sleep
   * @see public/io/ring.h RING_FINAL_CHECK_FOR_REQUESTS
   */
  finalCheck(nr = 1): boolean {
    if (this.nrRequests >= nr) return true;
    if (this.#dead !== null) return false;
    this.#store(SRING.req_event.at, this.#reqCons + nr);
    return this.nrRequests >= nr;
  }
  /** Write the first bytes of `response` to the next response slot; the front end sees it after `push`. As many `put` as `take`, in any order. */
  put(sizeBytes: number): void {
    assert(this.#rspProd !== this.#reqCons && sizeBytes <= this.#slotBytes, "a response to no request");
    this.#pieces(this.#rspProd, sizeBytes, (at, offset, n) => this.#bytes.set(this.response.subarray(offset, offset + n), at));
    this.#rspProd = (this.#rspProd + 1) >>> 0;
  }
  /**
   * Show the front end all responses put so far. What was mapped for their requests is unmapped before.
   * @returns whether it wants an event for them
   * @see public/io/ring.h RING_PUSH_RESPONSES_AND_CHECK_NOTIFY
   */
  push(): boolean {
    const old = this.#pushed, now = this.#rspProd;
    if (old === now) return false;
    this.#pushed = now;
    this.#store(SRING.rsp_prod.at, now);
    return ((now - this.#load(SRING.rsp_event.at)) >>> 0) < ((now - old) >>> 0);
  }
  /** For an inspector; of the front end's only what is in the page now. */
  describe(): { nrSlots: number; reqCons: number; rspProd: number; reqProd: number; rspEvent: number; dead: string | null } {
    return { nrSlots: this.nrSlots, reqCons: this.#reqCons, rspProd: this.#rspProd, reqProd: this.#load(SRING.req_prod.at), rspEvent: this.#load(SRING.rsp_event.at), dead: this.#dead };
  }
}
