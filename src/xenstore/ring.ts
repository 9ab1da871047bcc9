/**
 * The server's end of a domain's xenstore page: public/io/xs_wire.h, docs/misc/xenstore-ring.txt.
 * The guest may write anything anywhere in the page at any time. Our two indexes live here and are only copied out to the page;
 * the guest's two are believed when they lie within a ring's length of ours. What does not ends the connection, until the guest
 * asks for a new one in `connection`.
 */
import { assert } from "../base/errors.ts";
import {
  XENSTORE_CONNECTED, XENSTORE_ERROR, XENSTORE_RECONNECT, XENSTORE_RING_SIZE as RING, XENSTORE_SERVER_FEATURE, XenstoreDomainInterface as PAGE,
} from "../abi/io/xs_wire.ts";
import type { Connection, Store } from "./store.ts";
import { Outbox } from "./outbox.ts";
import { type Packet, PacketReader } from "./wire.ts";

/** WATCH takes a depth: a bit of server_features that is younger than Debian's headers, docs/misc/xenstore-ring.txt. */
const FEATURE_WATCHDEPTH = 4;
/** Requests wait in the ring while this much is on its way to the guest; watch events beyond QUEUE_BYTES_MAX are lost. */
const QUEUE_BYTES_BUSY = 16 << 10, QUEUE_BYTES_MAX = 1 << 20;
/** Requests answered in one poll(), so that one guest cannot keep the others' server. */
const REQUESTS_PER_POLL = 64;
/** How long a guest is held whose events others do not take; xenstored drops such events after as long. */
const HELD_MS = 20_000;
/**
 * When the page is looked at once more after something moved. Linux (xb_write, xb_read) writes its index and reads ours without a barrier between, to see whether it must
 * send an event; a processor may do the read first, so that each end takes the other for awake. By then its write is visible to all.
 */
const LOOK_MS = 2;

/** Serves one domain by its store page. Make it before the guest runs, poll() it at each event, close() it when the domain goes. */
export class StoreRing {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #page: number;
  readonly #notify: () => void;
  readonly #store: Store;
  readonly #domid: number;
  readonly #log: (sentence: string) => void;
  #connection: Connection | undefined;
  #reader = new PacketReader();
  #reqCons = 0;
  #rspProd = 0;
  readonly #outbox = new Outbox(QUEUE_BYTES_MAX);
  #isLosing = false;
  #again: ReturnType<typeof setTimeout> | undefined;
  #forgive: ReturnType<typeof setTimeout> | undefined;
  #look: ReturnType<typeof setTimeout> | undefined;
  #polling = false;
  #isClosed = false;
  #isFrozen = false;
  /** times the connection was shut for what the guest did; logged for the first few only */
  #nrFaults = 0;

  /**
   * @param words the whole of machine memory; `page` is the ring page's byte address in it
   * @param notify sends the guest its event
   */
  constructor(words: Int32Array, page: number, notify: () => void, store: Store, domid: number, log: (sentence: string) => void = () => {}) {
    assert(words.byteOffset === 0 && page % 4096 === 0 && page + 4096 <= words.byteLength, `store ring page ${page}`);
    this.#words = words;
    this.#bytes = new Uint8Array(words.buffer);
    this.#page = page;
    this.#notify = notify;
    this.#store = store;
    this.#domid = domid;
    this.#log = log;
    // A page that comes with its domain from another host goes on where it was.
    this.#reqCons = this.#load(PAGE.req_cons.at);
    this.#rspProd = this.#load(PAGE.rsp_prod.at);
    this.#put(PAGE.server_features.at, XENSTORE_SERVER_FEATURE.RECONNECTION | XENSTORE_SERVER_FEATURE.ERROR | FEATURE_WATCHDEPTH);
    this.#put(PAGE.error.at, XENSTORE_ERROR.NONE);
    this.#put(PAGE.connection.at, XENSTORE_CONNECTED);
    this.#connect();
  }
  #load(at: number): number {
    return Atomics.load(this.#words, (this.#page + at) / 4) >>> 0;
  }
  #put(at: number, value: number): void {
    Atomics.store(this.#words, (this.#page + at) / 4, value | 0);
  }

  #connect(): void {
    this.#connection = this.#store.connect(this.#domid, (packet, sent) => this.#enqueue(packet, sent), () => this.poll());
    this.#reader = new PacketReader();
    this.#isLosing = false;
  }
  #disconnect(): void {
    clearTimeout(this.#forgive);
    this.#forgive = undefined;
    if (this.#connection) this.#store.disconnect(this.#connection);
    this.#connection = undefined;
    this.#outbox.clear();
  }
  /** The guest has broken the ring. */
  #shut(error: number, why: string): void {
    this.#disconnect();
    this.#put(PAGE.error.at, error);
    if (++this.#nrFaults <= 3) this.#log(`d${this.#domid} xenstore: connection shut, ${why}`);
    this.#notify();
  }

  #enqueue(packet: Packet, sent: () => void): void {
    if (!this.#outbox.add(packet, sent)) {
      if (!this.#isLosing && ++this.#nrFaults <= 3) this.#log(`d${this.#domid} xenstore: ${this.#outbox.nrBytes} bytes of events were never read, further ones are lost`);
      this.#isLosing = true;
    } else if (!this.#polling && !this.#isFrozen && this.#pushReplies()) {
      this.#notify();
      this.#lookLater();
    }
  }
  #lookLater(): void {
    clearTimeout(this.#look);
    this.#look = setTimeout(() => this.poll(), LOOK_MS);
  }

  /** Move what can be moved. Call it at each event from the guest. */
  poll(): void {
    if (this.#isClosed || this.#polling || this.#isFrozen) return;
    this.#polling = true;
    try {
      let moved = this.#reconnect(), nrRequests = 0;
      for (let goOn = true; goOn && this.#connection;) {
        goOn = this.#pushReplies();
        for (let packet: Packet | undefined | null; this.#connection && this.#outbox.nrBytes < QUEUE_BYTES_BUSY; ) {
          if (this.#isHeld(this.#connection)) break;
          packet = this.#pullRequest();
          if (packet === null) break;
          goOn = true;
          if (!packet) continue;
          this.#store.serve(this.#connection, packet);
          if (++nrRequests >= REQUESTS_PER_POLL) break;
        }
        moved ||= goOn;
        if (nrRequests >= REQUESTS_PER_POLL) {
          this.#again ??= setTimeout(() => {
            this.#again = undefined;
            this.poll();
          }, 0);
          break;
        }
      }
      if (this.#connection && this.#pushReplies()) moved = true;
      if (moved) {
        this.#notify();
        this.#lookLater();
      }
    } finally {
      this.#polling = false;
    }
  }

  #isHeld(c: Connection): boolean {
    if (this.#store.mayAsk(c)) {
      clearTimeout(this.#forgive);
      this.#forgive = undefined;
      return false;
    }
    this.#forgive ??= setTimeout(() => {
      this.#store.forgive(c);
      this.poll();
    }, HELD_MS);
    return true;
  }

  /** @returns whether the guest asked for a fresh connection and has it now */
  #reconnect(): boolean {
    if (this.#load(PAGE.connection.at) !== XENSTORE_RECONNECT) return false;
    this.#disconnect();
    this.#connect();
    this.#reqCons = this.#rspProd = 0;
    for (const at of [PAGE.req_cons.at, PAGE.req_prod.at, PAGE.rsp_cons.at, PAGE.rsp_prod.at, PAGE.error.at]) this.#put(at, 0);
    this.#put(PAGE.connection.at, XENSTORE_CONNECTED);  // last: from here on the guest may write again
    return true;
  }

  /** Take bytes of one request. @returns null when the ring is empty or broken, undefined when the request is not whole yet */
  #pullRequest(): Packet | undefined | null {
    const used = (this.#load(PAGE.req_prod.at) - this.#reqCons) >>> 0;
    if (used > RING) {
      this.#shut(XENSTORE_ERROR.RINGIDX, `req_prod is ${used} ahead of req_cons`);
      return null;
    }
    if (used === 0) return null;
    const from = this.#reqCons & (RING - 1), n = Math.min(used, this.#reader.wanted, RING - from), at = this.#page + PAGE.req.at + from;
    const packet = this.#reader.push(this.#bytes.slice(at, at + n));
    this.#reqCons = (this.#reqCons + n) >>> 0;
    this.#put(PAGE.req_cons.at, this.#reqCons);  // the guest may overwrite those bytes from here on
    if (this.#reader.broken) {
      this.#shut(XENSTORE_ERROR.PROTO, "a request is longer than a packet may be");
      return null;
    }
    return packet;
  }

  /**
   * Fill the response ring. It is left full or the queue empty, else the guest would not tell us of room.
   * @returns whether anything moved
   */
  #pushReplies(): boolean {
    let moved = false;
    for (let head = this.#outbox.head; head; head = this.#outbox.head) {
      const used = (this.#rspProd - this.#load(PAGE.rsp_cons.at)) >>> 0;
      if (used > RING) {
        this.#shut(XENSTORE_ERROR.RINGIDX, `rsp_cons is ${used} behind rsp_prod`);
        return moved;
      }
      const to = this.#rspProd & (RING - 1), n = Math.min(RING - used, RING - to, head.length);
      if (n === 0) return moved;
      this.#bytes.set(head.subarray(0, n), this.#page + PAGE.rsp.at + to);
      this.#rspProd = (this.#rspProd + n) >>> 0;
      this.#put(PAGE.rsp_prod.at, this.#rspProd);  // visible to the guest from here on
      moved = true;
      this.#outbox.advance(n);
    }
    this.#isLosing = false;
    return moved;
  }

  /** End the connection: the domain is going. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#again);
    clearTimeout(this.#look);
    this.#disconnect();
  }
  /** Take nothing from the page and put nothing into it, and then what has come meanwhile. */
  freeze(on: boolean): void {
    this.#isFrozen = on;
    if (!on) this.poll();
  }
  /** Connected, with no request or reply on its way and no transaction open: who has the page and the watches can go on. */
  get isStill(): boolean {
    const c = this.#connection;
    return c !== undefined && this.#load(PAGE.connection.at) === XENSTORE_CONNECTED && this.#load(PAGE.req_prod.at) === this.#reqCons && !this.#reader.isWithin && this.#outbox.nrBytes === 0 && c.transactions.size === 0;
  }
  /** For an inspector: what is on its way. */
  get state(): { connected: boolean; reqCons: number; rspProd: number; queuedBytes: number } {
    return { connected: this.#connection !== undefined, reqCons: this.#reqCons, rspProd: this.#rspProd, queuedBytes: this.#outbox.nrBytes };
  }
}
