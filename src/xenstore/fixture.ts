/** For tests: a store whose clients keep what they are sent. */
import { XS } from "../abi/io/xs_wire.ts";
import { assert } from "../base/errors.ts";
import { type Connection, Store } from "./store.ts";
import { fromBytes, type Packet, toBytes } from "./wire.ts";

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
