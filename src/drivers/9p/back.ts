/**
 * The back end of a shared folder: docs/misc/9pfs.pandoc. What the front end chose (rings, their pages) is read from the store and the rings' own pages and checked here; messages go from the
 * rings to the server and back, each reply by the ring that its request came by.
 */
import { Xen9pfsDataIntf as INTF } from "../../abi/io/9pfs.ts";
import { within } from "../../base/wait.ts";
import type { Bind, Doorbell } from "../dom0.ts";
import type { GrantAccess, MappedPage } from "../grants.ts";
import { FrontRefusal, mapRing } from "../ring.ts";
import type { BackDriver, FrontKeys } from "../xenbus.ts";
import { FlexRing, MAX_RING_ORDER } from "./flex.ts";
import type { Folder } from "./folder.ts";
import { HEADER_BYTES, WRITE_AT } from "./protocol.ts";
import { Server, type ServerCounters } from "./server.ts";

/** Linux wants two. */
const MAX_RINGS = 4;
/** Requests on their way at once, and the memory that they and their replies may take; what is beyond waits in the ring. One always may. */
const IN_FLIGHT = 64, IN_FLIGHT_BYTES = 4 << 20;
/** Work done at an event before the thread's other tasks have their turn, in bytes; a request costs its own and its reply's, and COST_LEAST at least: what is answered at once a guest may ask as fast. */
const POLL_BYTES = 8 << 20, COST_LEAST = 64 << 10;
/** Requests that are on their way get this long to end before a device is let go all the same. */
const DRAIN_MS = 30_000;

export type P9BackOptions = {
  /** for the log: "d3 share src" */
  readonly name: string;
  readonly folder: Folder;
  readonly isReadonly: boolean;
  readonly grants: GrantAccess;
  readonly bind: Bind;
  readonly log: (sentence: string) => void;
};

/** What the rings of one connection have in common. */
class Link {
  readonly server: Server;
  readonly rings: P9Ring[] = [];
  readonly onBroken: (why: string) => void;
  nrBytes = 0;
  budget = 0;
  isClosed = false;
  #again: ReturnType<typeof setTimeout> | null = null;
  constructor(server: Server, onBroken: (why: string) => void) {
    this.server = server;
    this.onBroken = onBroken;
  }
  mayTake(nrBytes: number): boolean { return this.server.nrPending === 0 || (this.server.nrPending < IN_FLIGHT && this.nrBytes + nrBytes <= IN_FLIGHT_BYTES); }
  /** Look at the rings, by turns. */
  poll(): void {
    this.budget = POLL_BYTES;
    this.go();
  }
  go(): void {
    if (this.isClosed || this.#again !== null) return;
    for (let isAny = true; isAny && this.budget > 0;) {
      isAny = false;
      for (const ring of this.rings) isAny = ring.take() || isAny;
    }
    if (this.budget > 0 || this.isClosed) return;
    this.#again = setTimeout(() => {
      this.#again = null;
      this.poll();
    }, 0);
  }
  break(why: string): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.onBroken(why);
  }
  close(): void {
    this.isClosed = true;
    if (this.#again !== null) clearTimeout(this.#again);
    for (const ring of this.rings) ring.abandon();
  }
}

/** One ring: whole messages out of it, whole replies into it. */
class P9Ring {
  readonly #ring: FlexRing;
  readonly #link: Link;
  readonly #bell: () => void;
  /** replies that wait for room, in their order */
  readonly #waiting: { readonly reply: Uint8Array; readonly done: () => void }[] = [];
  readonly #head = new Uint8Array(WRITE_AT);
  constructor(ring: FlexRing, link: Link, bell: () => void) {
    this.#ring = ring;
    this.#link = link;
    this.#bell = bell;
  }
  get sizeBytes(): number { return this.#ring.sizeBytes; }
  describe(): Record<string, unknown> { return { ...this.#ring.describe(), nrWaiting: this.#waiting.length }; }

  /** Take the next message, if there is a whole one and it may be taken. */
  take(): boolean {
    const link = this.#link, ring = this.#ring, queued = ring.nrQueued;
    this.#give();
    if (link.isClosed || link.budget <= 0 || queued < HEADER_BYTES) return false;
    const head = this.#head.subarray(0, Math.min(queued, WRITE_AT)), { server } = link;
    ring.peek(head);
    const size = new DataView(head.buffer).getUint32(0, true), most = Math.min(server.msize, ring.sizeBytes);
    if (size < HEADER_BYTES || size > most) {
      link.break(`a message says that it is ${size} bytes long; from ${HEADER_BYTES} to ${most} are possible`);
      return false;
    }
    if (queued < size) return false;
    const cost = size + Server.replyBytes(head.subarray(0, Math.min(head.length, size)), server.msize);
    if (!link.mayTake(cost)) return false;
    const message = server.room(size);
    ring.take(message);
    message.set(head.subarray(0, Math.min(head.length, size)));        // what its cost was told from: the guest may have written there since
    if (ring.sizeBytes - ring.nrQueued - size < most) this.#bell();        // somebody may have waited for the room
    link.budget -= Math.max(cost, COST_LEAST);
    link.nrBytes += cost;
    const why = server.take(message, (reply) => this.#put(reply), () => {
      link.nrBytes -= cost;
      link.go();
    });
    if (why !== null) link.break(why);
    return true;
  }
  /** @returns when the reply is in the ring, or nobody will ever read it */
  #put(reply: Uint8Array): Promise<void> {
    if (this.#link.isClosed) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ reply, done: resolve });
    this.#give();
    return promise;
  }
  /** Put what there is room for into the ring. */
  #give(): void {
    let nr = 0;
    for (let next = this.#waiting[0]; next && !this.#link.isClosed && next.reply.length <= this.#ring.nrFree; next = this.#waiting[0]) {
      this.#ring.put(next.reply);
      this.#waiting.shift();
      next.done();
      nr++;
    }
    if (nr > 0) this.#bell();
    if (this.#ring.dead !== null) this.#link.break(this.#ring.dead);
  }
  abandon(): void { for (const { done } of this.#waiting.splice(0)) done(); }
}

type Connected = { readonly link: Link; readonly bells: readonly Doorbell[]; readonly pages: readonly MappedPage[] };

export class P9Back implements BackDriver {
  readonly kind = "9pfs";
  readonly counters: ServerCounters = { requests: 0, errors: 0, readBytes: 0, writtenBytes: 0 };
  onBroken: (why: string) => void = () => {};
  readonly #options: P9BackOptions;
  #connected: Connected | null = null;

  constructor(options: P9BackOptions) { this.#options = options; }
  offer(): Record<string, string | number> { return { versions: "1", "max-rings": MAX_RINGS, "max-ring-page-order": MAX_RING_ORDER }; }
  /** A front end is there. */
  get isConnected(): boolean { return this.#connected !== null; }
  /** The guest holds something of the folder: it is mounted. */
  get isMounted(): boolean { return this.#connected?.link.server.isAttached ?? false; }

  async connect(front: FrontKeys): Promise<void> {
    const { grants, bind, folder, isReadonly, log, name } = this.#options, version = front.text("version") ?? "1", nrRings = front.number("num-rings", 1, MAX_RINGS), bells: Doorbell[] = [], pages: MappedPage[] = [];
    if (version !== "1") throw new FrontRefusal(`the front end speaks version "${version}" of the transport; only 1 is offered`);
    try {
      const rings: { ring: FlexRing; port: number }[] = [];
      for (let i = 0; i < nrRings; i++) {
        const ref = front.number(`ring-ref${i}`, 0, 0xffffffff), port = front.number(`event-channel-${i}`, 0, 0xffffffff);
        await this.#arrived([ref]);
        const [intf] = mapRing(grants, [ref], `ring-ref${i}`);
        pages.push(intf!);
        const word = (at: number): number => Atomics.load(grants.words, (intf!.at + at) / 4) >>> 0, order = word(INTF.ring_order.at);
        if (order > MAX_RING_ORDER) throw new FrontRefusal(`ring ${i} says that its order is ${order}; ${MAX_RING_ORDER} is the most that was offered`);
        const refs = Array.from({ length: 2 ** order }, (_, nr) => word(INTF.sizeof + nr * 4));
        await this.#arrived(refs);
        const data = mapRing(grants, refs, `ring ${i}'s page`);
        pages.push(...data);
        rings.push({ ring: new FlexRing(grants.words, grants.bytes, intf!.at, data.map((p) => p.at)), port });
      }
      // a reply must fit into the ring it goes by, and a request into the one it comes by
      const mostBytes = Math.min(...rings.map(({ ring }) => ring.sizeBytes)), server = new Server({ folder, isReadonly, mostBytes, counters: this.counters, log: (sentence) => log(`${name}: ${sentence}`) });
      const link = new Link(server, (why) => this.onBroken(why));
      for (const { ring, port } of rings) {
        const bell = bind(port, () => link.poll());
        bells.push(bell);
        link.rings.push(new P9Ring(ring, link, () => bell.notify()));
      }
      this.#connected = { link, bells, pages };
      link.poll();
    } catch (e) {
      for (const bell of bells) bell.close();
      for (const page of pages) grants.unmap(page);
      throw e;
    }
  }
  /** Pages that are on their way from another host are waited for: once, for all there will ever be are named here. */
  async #arrived(refs: readonly number[]): Promise<void> {
    await this.#options.grants.missing?.(refs)?.catch(() => { throw new FrontRefusal("pages of its rings will never come"); });
  }
  async disconnect(): Promise<void> {
    const connected = this.#connected;
    if (!connected) return;
    this.#connected = null;
    const { link, bells, pages } = connected;
    link.close();
    await within(link.server.close(), DRAIN_MS);
    for (const bell of bells) bell.close();
    for (const page of pages) this.#options.grants.unmap(page);
  }
  describe(): Record<string, unknown> {
    const link = this.#connected?.link;
    return { isConnected: this.isConnected, isMounted: this.isMounted, isReadonly: this.#options.isReadonly, ...link?.server.describe(), rings: link?.rings.map((r) => r.describe()) ?? [], ...this.counters };
  }
}
