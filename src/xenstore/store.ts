/**
 * The store: a packet in, a reply and the watch events it fired out. It knows nothing of rings or sockets.
 * docs/misc/xenstore.txt; errors as xenstored answers them.
 */
import { XENSTORE_PAYLOAD_MAX, XS } from "../abi/io/xs_wire.ts";
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
  /** requests whose watch events others have not taken yet; the next one waits */
  nrOutstanding: number;
  /** nodes with their paths, watches, and what transactions hold */
  memoryBytes: number;
};
/** Xenstored's. */
export const DEFAULT_QUOTA: Readonly<Quota> = { nrNodes: 1000, nrWatches: 128, nrTransactions: 10, nrPermsPerNode: 5, nodeBytes: 2048, nrTransactionNodes: 1024, nrOutstanding: 20, memoryBytes: 2560 << 10 };

/** One client. dom0's are as many as it likes; a domain's is its ring. */
export type Connection = Who & {
  target: number | undefined;
  /** Takes replies and watch events in order, and calls `sent` when the packet is on its way or will never be. */
  readonly send: (packet: Packet, sent: () => void) => void;
  /** told when a client that mayAsk() held may ask again */
  readonly onRoom: (() => void) | undefined;
  readonly transactions: Map<number, Transaction>;
  nextTransaction: number;
  nrWatches: number;
  watchBytes: number;
  readonly account: Account;
  closed: boolean;
};
/** What outlives a connection, so that a domain cannot shed it by connecting anew. */
type Account = {
  /** requests whose events others have not taken */
  nrOutstanding: number;
  /** counts the calls of forgive() */
  nrForgiven: number;
};
/** A packet that goes to a client by itself. */
export type Event = { to: Connection; packet: Packet; sent?: (() => void) | undefined };
/** What a request brings: the reply to who asked, and the events to all whom it concerns, in order. */
export type Outcome = { reply: Packet; events: Event[] };

/** What dom0 asks of the world around the store. A hook may throw an XsRefusal. */
export type Hooks = {
  introduce?: (domid: number, gfn: number, port: number) => void;
  release?: (domid: number) => void;
  resume?: (domid: number) => void;
  /** told what the command CONTROL "print" or "check" has to say */
  log?: (sentence: string) => void;
};

const NOTHING = (): void => {};

/** The store of one machine. */
export class Store {
  readonly tree = new Tree();
  readonly watches = new Watches<Connection>();
  /** CONTROL "quota set" changes it */
  readonly quota: Quota;
  readonly hooks: Hooks;
  readonly introduced = new Set<number>([0]);
  /** Told of each request with its answer, for who watches the store at work; null: nobody does. */
  onRequest: ((domid: number, request: Packet, reply: Packet) => void) | null = null;
  #connections = new Set<Connection>();
  #accounts = new Map<number, Account>();
  #targets = new Map<number, number>();
  #outbox: Event[] = [];
  #sending = false;

  constructor(options: { quota?: Partial<Quota>; hooks?: Hooks } = {}) {
    this.quota = { ...DEFAULT_QUOTA, ...options.quota };
    this.hooks = options.hooks ?? {};
  }

  /** A new client of domain `domid`; see Connection for what it must do with `send`. */
  connect(domid: number, send: Connection["send"], onRoom?: () => void): Connection {
    const c: Connection = {
      domid, target: this.#targets.get(domid), send, onRoom, transactions: new Map(), nextTransaction: 1, nrWatches: 0, watchBytes: 0,
      account: this.#accounts.get(domid) ?? { nrOutstanding: 0, nrForgiven: 0 }, closed: false,
    };
    this.#accounts.set(domid, c.account);
    this.#connections.add(c);
    return c;
  }
  /** A client of the domain: a guest has one. */
  connectionOf(domid: number): Connection | undefined {
    for (const c of this.#connections) if (c.domid === domid) return c;
    return undefined;
  }
  /** Clients there are, for an inspector. */
  get nrConnections(): number {
    return this.#connections.size;
  }
  /** Drop the client's watches and transactions; nothing more is sent to it. */
  disconnect(c: Connection): void {
    c.closed = true;
    this.reset(c);
    this.#connections.delete(c);
  }
  reset(c: Connection): void {
    this.watches.removeAll(c);
    c.nrWatches = c.watchBytes = 0;
    c.transactions.clear();
  }
  /** Bytes that count for the client's quota "memory". */
  memoryOf(c: Connection): number {
    let bytes = this.tree.bytesOwned(c.domid) + c.watchBytes;
    for (const t of c.transactions.values()) bytes += t.nrBytes;
    return bytes;
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
      const payload = operation.call({ store: this, c, packet, view: transaction ?? this.tree, transaction, fire: (w, path) => first.push(...this.#event(w, path)) }, packet.payload);
      if (payload.length > XENSTORE_PAYLOAD_MAX) throw new XsRefusal("E2BIG", `A reply of ${payload.length} bytes`);
      reply = { type: packet.type, req_id: packet.req_id, tx_id: packet.tx_id, payload };
    } catch (e) {
      if (!(e instanceof XsRefusal)) throw e;
      reply = errorPacket(packet, e.word);
    }
    this.onRequest?.(c.domid, packet, reply);
    return { reply, events: [...first, ...this.tree.takeChanges().flatMap((change) => this.#eventsOf(change))] };
  }
  #transaction(c: Connection, id: number, type: number): Transaction {
    const t = c.transactions.get(id);
    if (!t) throw new XsRefusal("ENOENT", `No transaction ${id}`);
    if (c.domid !== 0 && type !== XS.TRANSACTION_END && t.nrSeen > this.quota.nrTransactionNodes) throw new XsRefusal("ENOSPC", `Transaction ${id} looked at ${t.nrSeen} nodes`);
    if (c.domid !== 0 && type !== XS.TRANSACTION_END && this.memoryOf(c) > this.quota.memoryBytes) throw new XsRefusal("ENOMEM", `Transactions of domain ${c.domid} hold too much`);
    return t;
  }
  /** Answer a packet and send the reply, then the events. */
  serve(c: Connection, packet: Packet): void {
    if (c.closed) return;
    const { reply, events } = this.request(c, packet);
    const sent = c.domid === 0 || events.length === 0 ? undefined : this.#outstanding(c, events.length);
    this.post([{ to: c, packet: reply }, ...events.map((e) => ({ ...e, sent }))]);
  }
  /** Whether the client's next request should be served now: a guest that makes more events than others take waits for them. */
  mayAsk(c: Connection): boolean {
    return c.domid === 0 || c.account.nrOutstanding < this.quota.nrOutstanding;
  }
  #outstanding(c: Connection, nrEvents: number): () => void {
    const { account } = c, { nrForgiven } = account;
    account.nrOutstanding++;
    return () => {
      if (--nrEvents > 0 || account.nrForgiven !== nrForgiven) return;
      const held = !this.mayAsk(c);
      account.nrOutstanding--;
      if (held && this.mayAsk(c) && c.onRoom) queueMicrotask(c.onRoom);
    };
  }
  /** Let a held client go on though others have not taken its events: they may be stopped for good. */
  forgive(c: Connection): void {
    c.account.nrForgiven++;
    c.account.nrOutstanding = 0;
  }
  /** Send in order, also when a receiver asks something while it receives. */
  post(events: readonly Event[]): void {
    this.#outbox.push(...events);
    if (this.#sending) return;
    this.#sending = true;
    try {
      for (let e = this.#outbox.shift(); e; e = this.#outbox.shift()) {
        if (e.to.closed) e.sent?.();
        else e.to.send(e.packet, e.sent ?? NOTHING);
      }
    } finally {
      this.#sending = false;
    }
  }

  #eventsOf(change: Change): Event[] {
    const parent = parentOf(change.path), node = parent === undefined ? undefined : this.tree.get(parent);
    const readers = node ? [...change.readers, node.perms] : change.readers;
    return this.watches.of(change.path, change.exact).filter((w) => readers.some((p) => accessOf(p, w.owner) & ACCESS.read)).flatMap((w) => this.#event(w, change.path));
  }
  /** None when path and token are together longer than a packet may be. */
  #event(w: Watch<Connection>, path: string): Event[] {
    const packet = watchEvent(path.slice(w.prefix.length), w.token);
    return packet.payload.length > XENSTORE_PAYLOAD_MAX ? [] : [{ to: w.owner, packet }];
  }

  /** The domain's store is ready: watchers of @introduceDomain hear it. */
  introduce(domid: number): void {
    if (this.introduced.has(domid)) return;
    this.introduced.add(domid);
    this.#occasion("@introduceDomain", domid);
  }
  /** The domain is gone: its clients are dropped, what it owned is removed, and watchers of @releaseDomain hear it. */
  release(domid: number): void {
    if (!this.introduced.delete(domid)) return;
    for (const c of this.#connections) if (c.domid === domid) this.disconnect(c);
    this.#accounts.delete(domid);
    this.#targets.delete(domid);
    for (const [d, t] of this.#targets) if (t === domid) this.setTarget(d, undefined);
    this.tree.forgetDomain(domid);
    this.post(this.tree.takeChanges().flatMap((change) => this.#eventsOf(change)));
    this.#occasion("@releaseDomain", domid);
  }
  /** A domain ended or shut down in a way that is not a release yet: xl waits for it at @releaseDomain. */
  domainChanged(domid: number): void {
    this.#occasion("@releaseDomain", domid);
  }
  /** A watch on the occasion hears its name, or with a depth "name/domid"; one on "name/domid" hears that. */
  #occasion(name: string, domid: number): void {
    const perms = this.tree.get(name)?.perms, named = `${name}/${domid}`;
    if (!perms) return;
    const heard = [...this.watches.at(name).map((w) => [w, w.depth === undefined ? name : w.depth > 0 ? named : undefined] as const), ...this.watches.at(named).map((w) => [w, named] as const)];
    this.post(heard.flatMap(([w, path]) => (path !== undefined && accessOf(perms, w.owner) & ACCESS.read ? this.#event(w, path) : [])));
  }
  /** Give `domid` the rights of `target` besides its own. */
  setTarget(domid: number, target: number | undefined): void {
    if (target === undefined) this.#targets.delete(domid);
    else this.#targets.set(domid, target);
    for (const c of this.#connections) if (c.domid === domid) c.target = target;
  }
}
