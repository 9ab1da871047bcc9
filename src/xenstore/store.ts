/**
 * The store: a packet in, a reply and the watch events it fired out. It knows nothing of rings or sockets.
 * docs/misc/xenstore.txt; errors as xenstored answers them.
 */
import { XS } from "../abi/io/xs_wire.ts";
import { OPERATIONS } from "./operations.ts";
import { parentOf } from "./path.ts";
import { ACCESS, accessOf, type Who } from "./perms.ts";
import { type Change, Transaction, Tree } from "./tree.ts";
import { errorPacket, type Packet, watchEvent, XsRefusal } from "./wire.ts";
import { type Watch, Watches } from "./watch.ts";

/** What one domain other than dom0 may take up. Xenstored's defaults. */
export type Quota = {
  nrNodes: number; nrWatches: number; nrTransactions: number; nrPermsPerNode: number;
  /** value, permissions and names of children */
  nodeBytes: number;
  /** paths a transaction may look at */
  nrTransactionNodes: number;
};
export const DEFAULT_QUOTA: Readonly<Quota> = { nrNodes: 1000, nrWatches: 128, nrTransactions: 10, nrPermsPerNode: 5, nodeBytes: 2048, nrTransactionNodes: 1024 };

/** One client. dom0's are as many as it likes; a domain's is its ring. */
export type Connection = Who & {
  target: number | undefined;
  readonly send: (packet: Packet) => void;
  readonly transactions: Map<number, Transaction>;
  nextTransaction: number;
  nrWatches: number;
  closed: boolean;
};
export type Event = { to: Connection; packet: Packet };
export type Outcome = { reply: Packet; events: Event[] };

/** What dom0 asks of the world around the store. A hook may throw an XsRefusal. */
export type Hooks = {
  introduce?: (domid: number, gfn: number, port: number) => void;
  release?: (domid: number) => void;
  resume?: (domid: number) => void;
};

export class Store {
  readonly tree = new Tree();
  readonly watches = new Watches<Connection>();
  readonly quota: Readonly<Quota>;
  readonly hooks: Hooks;
  readonly introduced = new Set<number>([0]);
  #connections = new Set<Connection>();
  #targets = new Map<number, number>();
  #outbox: Event[] = [];
  #sending = false;

  constructor(options: { quota?: Partial<Quota>; hooks?: Hooks } = {}) {
    this.quota = { ...DEFAULT_QUOTA, ...options.quota };
    this.hooks = options.hooks ?? {};
  }

  /** @param send takes replies and watch events, in order */
  connect(domid: number, send: (packet: Packet) => void): Connection {
    const c: Connection = { domid, target: this.#targets.get(domid), send, transactions: new Map(), nextTransaction: 1, nrWatches: 0, closed: false };
    this.#connections.add(c);
    return c;
  }
  /** Drop the client's watches and transactions; nothing more is sent to it. */
  disconnect(c: Connection): void {
    c.closed = true;
    this.reset(c);
    this.#connections.delete(c);
  }
  reset(c: Connection): void {
    this.watches.removeAll(c);
    c.nrWatches = 0;
    c.transactions.clear();
  }

  /** Answer a packet. Never throws for what the packet holds. */
  request(c: Connection, packet: Packet): Outcome {
    let reply: Packet;
    const first: Event[] = [];
    try {
      const operation = OPERATIONS[packet.type];
      if (!operation) throw new XsRefusal("ENOSYS", `No operation ${packet.type}`);
      if (operation.dom0 && c.domid !== 0) throw new XsRefusal("EACCES", `${operation.name} is dom0's`);
      const transaction = packet.tx_id === 0 || operation.transaction === "ignored" ? undefined : this.#transaction(c, packet.tx_id, packet.type);
      const payload = operation.call({ store: this, c, packet, view: transaction ?? this.tree, transaction, fire: (w, path) => first.push(this.#event(w, path)) }, packet.payload);
      reply = { type: packet.type, req_id: packet.req_id, tx_id: packet.tx_id, payload };
    } catch (e) {
      if (!(e instanceof XsRefusal)) throw e;
      reply = errorPacket(packet, e.word);
    }
    return { reply, events: [...first, ...this.tree.takeChanges().flatMap((change) => this.#eventsOf(change))] };
  }
  #transaction(c: Connection, id: number, type: number): Transaction {
    const t = c.transactions.get(id);
    if (!t) throw new XsRefusal("ENOENT", `No transaction ${id}`);
    if (c.domid !== 0 && type !== XS.TRANSACTION_END && t.nrSeen > this.quota.nrTransactionNodes) throw new XsRefusal("ENOSPC", `Transaction ${id} looked at ${t.nrSeen} nodes`);
    return t;
  }
  /** Answer a packet and send the reply, then the events. */
  serve(c: Connection, packet: Packet): void {
    if (c.closed) return;
    const { reply, events } = this.request(c, packet);
    this.post([{ to: c, packet: reply }, ...events]);
  }
  /** Send in order, also when a receiver asks something while it receives. */
  post(events: readonly Event[]): void {
    this.#outbox.push(...events);
    if (this.#sending) return;
    this.#sending = true;
    try {
      for (let e = this.#outbox.shift(); e; e = this.#outbox.shift()) if (!e.to.closed) e.to.send(e.packet);
    } finally {
      this.#sending = false;
    }
  }

  #eventsOf(change: Change): Event[] {
    const parent = parentOf(change.path), node = parent === undefined ? undefined : this.tree.get(parent);
    const readers = node ? [...change.readers, node.perms] : change.readers;
    return this.watches.of(change.path, change.exact).filter((w) => readers.some((p) => accessOf(p, w.owner) & ACCESS.read)).map((w) => this.#event(w, change.path));
  }
  #event(w: Watch<Connection>, path: string): Event {
    return { to: w.owner, packet: watchEvent(path.slice(w.prefix.length), w.token) };
  }

  /** The domain's store is ready: watchers of @introduceDomain hear it. */
  introduce(domid: number): void {
    if (this.introduced.has(domid)) return;
    this.introduced.add(domid);
    this.#occasion("@introduceDomain");
  }
  /** The domain is gone: its clients are dropped and watchers of @releaseDomain hear it. Its nodes are dom0's now, and the toolstack's to remove. */
  release(domid: number): void {
    if (!this.introduced.delete(domid)) return;
    for (const c of this.#connections) if (c.domid === domid) this.disconnect(c);
    this.#targets.delete(domid);
    for (const [d, t] of this.#targets) if (t === domid) this.setTarget(d, undefined);
    this.tree.forgetDomain(domid);
    this.#occasion("@releaseDomain");
  }
  /** A domain ended or shut down in a way that is not a release yet: xl waits for it at @releaseDomain. */
  domainChanged(): void {
    this.#occasion("@releaseDomain");
  }
  #occasion(path: string): void {
    const node = this.tree.get(path);
    if (node) this.post(this.#eventsOf({ path, exact: true, readers: [node.perms] }));
  }
  /** Give `domid` the rights of `target` besides its own. */
  setTarget(domid: number, target: number | undefined): void {
    if (target === undefined) this.#targets.delete(domid);
    else this.#targets.set(domid, target);
    for (const c of this.#connections) if (c.domid === domid) c.target = target;
  }
}
