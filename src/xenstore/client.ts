/** A client in the same process, for dom0's drivers and toolstack. It speaks the packets that everyone speaks, without a ring. */
import { XENSTORE_PAYLOAD_MAX, XS, type XsdError } from "../abi/io/xs_wire.ts";
import { concat } from "../base/bytes.ts";
import type { Connection, Store } from "./store.ts";
import { fromBytes, type Packet, parseStrings, strings, toBytes, XsRefusal } from "./wire.ts";

/** Nothing else runs between a transaction's start and end here, so only its own body can spoil it every time. */
const TRIES_MAX = 10;

/** A node to write: its path, and its value and permissions where they are not to stay as they come. */
export type Entry = { path: string; value?: string; perms?: readonly string[] };

/** The payload of XS_WRITE. */
export const payloadOfWrite = (path: string, value: string | Uint8Array): Uint8Array => concat([strings(path), typeof value === "string" ? new TextEncoder().encode(value) : value]);

/** A long list of children: yields payloads of XS_DIRECTORY_PART, takes the replies' payloads, returns the names. */
export function* listInParts(path: string): Generator<Uint8Array, string[], Uint8Array> {
  for (let names = "", first: string | undefined; ;) {
    const [generation, ...part] = fromBytes(yield strings(path, String(names.length))).split("\0");
    if (generation !== (first ??= generation)) {  // the list has changed between two parts
      names = "";
      first = undefined;
    } else if (part.length > 1 && part.at(-2) === "") return (names + part.slice(0, -2).map((n) => `${n}\0`).join("")).split("\0").slice(0, -1);
    else names += part.slice(0, -1).map((n) => `${n}\0`).join("");
  }
}

/** What can be done on the tree and in a transaction alike. Paths and permissions are those of the wire: "memory/target", ["n5", "r0"]. */
export class Access {
  protected readonly store: Store;
  protected readonly connection: Connection;
  readonly #tx_id: number;
  constructor(store: Store, connection: Connection, tx_id: number) {
    this.store = store;
    this.connection = connection;
    this.#tx_id = tx_id;
  }
  /** Send a request. @returns the reply's payload @throws XsRefusal */
  ask(type: number, payload: Uint8Array, tx_id: number = this.#tx_id): Uint8Array {
    if (payload.length > XENSTORE_PAYLOAD_MAX) throw new XsRefusal("E2BIG", `A request of ${payload.length} bytes, ${XENSTORE_PAYLOAD_MAX} is the limit`);
    const { reply, events } = this.store.request(this.connection, { type, req_id: 0, tx_id, payload });
    this.store.post(events);
    if (reply.type !== XS.ERROR) return reply.payload;
    throw new XsRefusal(parseStrings(reply.payload, 1, 1)[0] as XsdError, `xenstore operation ${type} on "${fromBytes(payload, 0, 64).split("\0")[0]}"`);
  }
  #unlessMissing(type: number, path: string): Uint8Array | undefined {
    try {
      return this.ask(type, strings(path));
    } catch (e) {
      if (e instanceof XsRefusal && e.word === "ENOENT") return undefined;
      throw e;
    }
  }
  readBytes(path: string): Uint8Array | undefined {
    return this.#unlessMissing(XS.READ, path);
  }
  read(path: string): string | undefined {
    const bytes = this.readBytes(path);
    return bytes && new TextDecoder().decode(bytes);
  }
  /** Names of the children, in the order of their creation. */
  list(path: string): string[] | undefined {
    try {
      const payload = this.#unlessMissing(XS.DIRECTORY, path);
      return payload && parseStrings(payload, 0, payload.length);
    } catch (e) {
      if (e instanceof XsRefusal && e.word === "E2BIG") return this.#listParts(path);
      throw e;
    }
  }
  #listParts(path: string): string[] {
    const parts = listInParts(path);
    for (let step = parts.next(); ;) {
      if (step.done) return step.value;
      step = parts.next(this.ask(XS.DIRECTORY_PART, step.value));
    }
  }
  write(path: string, value: string | Uint8Array): void {
    this.ask(XS.WRITE, payloadOfWrite(path, value));
  }
  mkdir(path: string): void {
    this.ask(XS.MKDIR, strings(path));
  }
  /** Remove the node and all below; nothing happens when there is none. */
  remove(path: string): void {
    this.#unlessMissing(XS.RM, path);
  }
  perms(path: string): string[] {
    return parseStrings(this.ask(XS.GET_PERMS, strings(path)), 1, 0xffff);
  }
  setPerms(path: string, perms: readonly string[]): void {
    this.ask(XS.SET_PERMS, strings(path, ...perms));
  }
  /** Write nodes in order; an entry without a value is made if it is missing. */
  writeAll(entries: Iterable<Entry>): void {
    for (const { path, value, perms } of entries) {
      if (value === undefined) this.mkdir(path);
      else this.write(path, value);
      if (perms) this.setPerms(path, perms);
    }
  }
}

/** A client of the domain, by default dom0. Its calls return when they are done; all @throws XsRefusal. */
export class Client extends Access {
  readonly #watchers: Map<string, (path: string) => void>;
  #nextToken = 1;
  constructor(store: Store, domid = 0) {
    const watchers = new Map<string, (path: string) => void>();
    super(store, store.connect(domid, (p: Packet, sent) => {
      sent();
      const [path, token] = parseStrings(p.payload, 2, 2) as [string, string];
      queueMicrotask(() => watchers.get(token)?.(path));
    }), 0);
    this.#watchers = watchers;
  }
  /** Call `told` soon, and then after each change at the path or below it. @returns ends the watch */
  watch(path: string, told: (path: string) => void, depth?: number): Disposable {
    const token = String(this.#nextToken++);
    this.#watchers.set(token, told);
    try {
      this.ask(XS.WATCH, depth === undefined ? strings(path, token) : strings(path, token, String(depth)));
    } catch (e) {
      this.#watchers.delete(token);
      throw e;
    }
    return {
      [Symbol.dispose]: () => {
        if (this.#watchers.delete(token) && !this.connection.closed) this.ask(XS.UNWATCH, strings(path, token));
      },
    };
  }
  /** Do all of `body` at once or nothing of it; `body` runs again when another was faster. */
  transaction<T>(body: (t: Access) => T): T {
    for (let tries = 1; ; tries++) {
      const id = Number(parseStrings(this.ask(XS.TRANSACTION_START, toBytes("\0")), 1, 1)[0]);
      let result: T;
      try {
        result = body(new Access(this.store, this.connection, id));
      } catch (e) {
        this.ask(XS.TRANSACTION_END, strings("F"), id);
        throw e;
      }
      try {
        this.ask(XS.TRANSACTION_END, strings("T"), id);
        return result;
      } catch (e) {
        if (!(e instanceof XsRefusal && e.word === "EAGAIN") || tries >= TRIES_MAX) throw e;
      }
    }
  }
  close(): void {
    this.store.disconnect(this.connection);
    this.#watchers.clear();
  }
}
