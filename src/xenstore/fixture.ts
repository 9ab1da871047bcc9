/** For tests: a store whose clients keep what they are sent, and a guest's end of a ring. */
import { XENSTORE_RING_SIZE as RING, XenstoreDomainInterface as PAGE, XS } from "../abi/io/xs_wire.ts";
import { concat } from "../base/bytes.ts";
import { assert } from "../base/errors.ts";
import { Client } from "./client.ts";
import { StoreRing } from "./ring.ts";
import { type Connection, Store } from "./store.ts";
import { encodePacket, fromBytes, type Packet, PacketReader, strings, toBytes } from "./wire.ts";

/** A store with /local/domain/N for some domains, and a connection of each that collects what it is sent. */
export class Bench {
  readonly store: Store;
  readonly inbox = new Map<Connection, Packet[]>();
  readonly dom0: Connection;
  #req = 1;
  constructor(store = new Store(), domids: number[] = [1, 2]) {
    this.store = store;
    this.dom0 = this.connect(0);
    for (const d of domids) {
      this.ask(this.dom0, XS.MKDIR, `/local/domain/${d}\0`);
      this.ask(this.dom0, XS.SET_PERMS, `/local/domain/${d}\0n${d}\0`);
      store.introduce(d);
    }
  }
  connect(domid: number): Connection {
    const inbox: Packet[] = [];
    const c = this.store.connect(domid, (p, sent) => { inbox.push(p); sent(); });
    this.inbox.set(c, inbox);
    return c;
  }
  /** The reply's payload as text, or the error word with "!" before it. Events stay in the inbox. */
  ask(c: Connection, type: number, payload: string | Uint8Array = "", tx_id = 0): string {
    const req_id = this.#req++, inbox = this.inbox.get(c)!;
    this.store.serve(c, { type, req_id, tx_id, payload: typeof payload === "string" ? toBytes(payload) : payload });
    const at = inbox.findIndex((p) => p.type !== XS.WATCH_EVENT), [reply] = inbox.splice(at, 1);
    assert(reply && reply.req_id === req_id && reply.tx_id === tx_id && (reply.type === XS.ERROR || reply.type === type), `the reply to request ${req_id}`);
    return (reply.type === XS.ERROR ? "!" : "") + fromBytes(reply.payload).replace(reply.type === XS.ERROR ? /\0$/ : /^$/, "");
  }
  begin(c: Connection): number {
    return Number.parseInt(this.ask(c, XS.TRANSACTION_START, "\0"), 10);
  }
  end(c: Connection, id: number, answer = "T"): string {
    return this.ask(c, XS.TRANSACTION_END, `${answer}\0`, id);
  }
  /** "path token" of each event since the last call. */
  events(c: Connection): string[] {
    return this.inbox.get(c)!.splice(0).map((p) => {
      assert(p.type === XS.WATCH_EVENT && p.req_id === 0 && p.tx_id === 0, `packet ${p.type} is an event`);
      return fromBytes(p.payload).slice(0, -1).replace("\0", " ");
    });
  }
}

/** A guest's end of the page, and the page at 8 KiB in a memory of 16. */
export class GuestRing {
  readonly words = new Int32Array(new SharedArrayBuffer(16 << 10));
  readonly bytes = new Uint8Array(this.words.buffer);
  readonly page = 8 << 10;
  readonly store: Store;
  readonly ring: StoreRing;
  readonly logged: string[] = [];
  nrNotified = 0;
  #reader = new PacketReader();
  #unsent = new Uint8Array(0);
  constructor(store = new Store(), domid = 1) {
    this.store = store;
    const dom0 = new Client(store);
    dom0.writeAll([{ path: `/local/domain/${domid}`, perms: [`n${domid}`] }]);
    this.ring = new StoreRing(this.words, this.page, () => this.nrNotified++, store, domid, (s) => this.logged.push(s));
  }
  at(field: { at: number }): number {
    return (this.page + field.at) / 4;
  }
  /** Put bytes into the request ring as far as they fit. @returns how many */
  put(bytes: Uint8Array): number {
    const prod = this.words[this.at(PAGE.req_prod)]!, n = Math.min(bytes.length, RING - ((prod - this.words[this.at(PAGE.req_cons)]!) >>> 0));
    for (let i = 0; i < n; i++) this.bytes[this.page + PAGE.req.at + ((prod + i) & (RING - 1))] = bytes[i]!;
    Atomics.store(this.words, this.at(PAGE.req_prod), prod + n);
    return n;
  }
  /** Send a request; what has no room while the server does not take more goes with the next call. */
  send(type: number, payload: Uint8Array, req_id = 7, tx_id = 0): void {
    this.#unsent = concat([this.#unsent, encodePacket({ type, req_id, tx_id, payload })]);
    this.pump();
  }
  /** Put what is unsent, as far as the server takes it. */
  pump(): void {
    for (let n = 1; n && this.#unsent.length && this.ring.state.connected; ) {
      n = this.put(this.#unsent);
      this.#unsent = this.#unsent.subarray(n);
      this.ring.poll();
    }
  }
  /** Bytes of requests that the server has not taken. */
  get nrUnsent(): number {
    return this.#unsent.length;
  }
  /** Take what is in the response ring. */
  receive(): Packet[] {
    const packets: Packet[] = [];
    for (; ;) {
      const cons = this.words[this.at(PAGE.rsp_cons)]!, used = (this.words[this.at(PAGE.rsp_prod)]! - cons) >>> 0;
      if (!used) return packets;
      assert(used <= RING, `${used} bytes in a ring`);
      const n = Math.min(used, this.#reader.wanted), part = Uint8Array.from({ length: n }, (_, i) => this.bytes[this.page + PAGE.rsp.at + ((cons + i) & (RING - 1))]!);
      Atomics.store(this.words, this.at(PAGE.rsp_cons), cons + n);
      const packet = this.#reader.push(part);
      if (packet) packets.push(packet);
      if (used === RING) this.ring.poll();  // the ring was full: the guest tells of room
    }
  }
  /** Replies as text. */
  ask(type: number, ...list: string[]): string[] {
    this.send(type, strings(...list));
    return this.receive().map((p) => fromBytes(p.payload));
  }
  reconnect(): void {
    Atomics.store(this.words, this.at(PAGE.connection), 1);
    this.ring.poll();
    this.#reader = new PacketReader();
    this.#unsent = new Uint8Array(0);
  }
}
