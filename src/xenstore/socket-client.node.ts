/** A client over a Unix socket, for tools: ours (socket.node.ts) or xenstored's. Requests may overlap; replies are matched by req_id. */
import { connect, type Socket } from "node:net";
import { XENSTORE_PAYLOAD_MAX, XS, XSD_ERRORS, type XsdError } from "../abi/io/xs_wire.ts";
import { UserError } from "../base/errors.ts";
import { listInParts, payloadOfWrite } from "./client.ts";
import { encodePacket, fromBytes, type Packet, PacketReader, parseStrings, strings, toBytes, XsRefusal } from "./wire.ts";

/** Another may always be faster; a transaction that was tried so often will not come through. */
const TRIES_MAX = 1000;

/** Sends a request. @returns the reply's payload @throws XsRefusal */
type Ask = (type: number, payload: Uint8Array, tx_id: number) => Promise<Uint8Array>;

/** What can be done on the tree and in a transaction alike. All @throws XsRefusal, or Error when the connection is lost. */
export class SocketAccess {
  readonly #ask: Ask;
  readonly #tx_id: number;
  constructor(ask: Ask, tx_id: number) {
    this.#ask = ask;
    this.#tx_id = tx_id;
  }
  ask(type: number, payload: Uint8Array, tx_id: number = this.#tx_id): Promise<Uint8Array> {
    return this.#ask(type, payload, tx_id);
  }
  readBytes(path: string): Promise<Uint8Array> {
    return this.ask(XS.READ, strings(path));
  }
  async read(path: string): Promise<string> {
    return new TextDecoder().decode(await this.readBytes(path));
  }
  /** Names of the children, in the order of their creation. */
  async list(path: string): Promise<string[]> {
    try {
      const payload = await this.ask(XS.DIRECTORY, strings(path));
      return parseStrings(payload, 0, payload.length);
    } catch (e) {
      if (!(e instanceof XsRefusal && e.word === "E2BIG")) throw e;
    }
    const parts = listInParts(path);
    for (let step = parts.next(); ;) {
      if (step.done) return step.value;
      step = parts.next(await this.ask(XS.DIRECTORY_PART, step.value));
    }
  }
  async write(path: string, value: string | Uint8Array): Promise<void> {
    await this.ask(XS.WRITE, payloadOfWrite(path, value));
  }
  async mkdir(path: string): Promise<void> {
    await this.ask(XS.MKDIR, strings(path));
  }
  /** Remove the node and all below. It may be missing, its parent may not. */
  async remove(path: string): Promise<void> {
    await this.ask(XS.RM, strings(path));
  }
  async perms(path: string): Promise<string[]> {
    return parseStrings(await this.ask(XS.GET_PERMS, strings(path)), 1, 0xffff);
  }
  async setPerms(path: string, perms: readonly string[]): Promise<void> {
    await this.ask(XS.SET_PERMS, strings(path, ...perms));
  }
}

/** A connection of its own. Made by `connect`, ended by `close` or `using`. */
export class SocketClient extends SocketAccess {
  readonly #socket: Socket;
  readonly #path: string;
  readonly #reader = new PacketReader();
  readonly #waiting = new Map<number, { resolve: (payload: Uint8Array) => void; reject: (why: Error) => void; what: string }>();
  readonly #watchers = new Map<string, (path: string) => void>();
  readonly #ended = Promise.withResolvers<void>();
  #nextId = 1;
  #nextToken = 1;
  #lost: Error | undefined;

  private constructor(socket: Socket, path: string) {
    super((type, payload, tx_id) => this.#send(type, payload, tx_id), 0);
    this.#socket = socket;
    this.#path = path;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", (e) => this.#lose(e.message));
    socket.on("close", () => this.#lose("connection closed"));
  }
  /** @throws UserError when nobody answers there */
  static connect(path: string): Promise<SocketClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path), failed = (e: NodeJS.ErrnoException): void => reject(new UserError(`xenstore: ${path} does not answer (${e.code ?? e.message})`, { cause: e }));
      socket.once("error", failed);
      socket.once("connect", () => {
        socket.off("error", failed);
        resolve(new SocketClient(socket, path));
      });
    });
  }
  /** Settles when the connection is gone, by whomever. */
  get closed(): Promise<void> {
    return this.#ended.promise;
  }

  #send(type: number, payload: Uint8Array, tx_id: number): Promise<Uint8Array> {
    const what = `xenstore operation ${type} on "${fromBytes(payload, 0, Math.min(64, payload.length)).split("\0")[0]}"`;
    if (payload.length > XENSTORE_PAYLOAD_MAX) return Promise.reject(new XsRefusal("E2BIG", `${what}: ${payload.length} bytes, ${XENSTORE_PAYLOAD_MAX} is the limit`));
    if (this.#lost) return Promise.reject(this.#lost);
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>(), req_id = this.#nextId;
    this.#nextId = (req_id % 0xffffffff) + 1;
    this.#waiting.set(req_id, { resolve, reject, what });
    this.#socket.write(encodePacket({ type, req_id, tx_id, payload }));
    return promise;
  }
  #receive(chunk: Uint8Array): void {
    for (let rest = chunk; rest.length && !this.#lost; ) {
      const n = Math.min(rest.length, this.#reader.wanted), packet = this.#reader.push(rest.subarray(0, n));
      rest = rest.subarray(n);
      if (packet) this.#take(packet);
      if (this.#reader.broken) this.#lose("a reply is longer than a packet may be");
    }
  }
  #take({ type, req_id, payload }: Packet): void {
    if (type === XS.WATCH_EVENT) {
      const [path, token] = fromBytes(payload).split("\0");
      this.#watchers.get(token ?? "")?.(path!);
      return;
    }
    const asked = this.#waiting.get(req_id), word = type === XS.ERROR ? fromBytes(payload).split("\0")[0] : undefined;
    this.#waiting.delete(req_id);
    if (word === undefined) asked?.resolve(payload);
    else asked?.reject(new XsRefusal((XSD_ERRORS as readonly string[]).includes(word) ? (word as XsdError) : "EINVAL", asked.what));
  }
  #lose(why: string): void {
    if (this.#lost) return;
    this.#lost = new Error(`xenstore ${this.#path}: ${why}`);
    this.#socket.destroy();
    for (const asked of this.#waiting.values()) asked.reject(this.#lost);
    this.#waiting.clear();
    this.#watchers.clear();
    this.#ended.resolve();
  }

  /** Call `told` soon, and then after each change at the path or below it. @returns ends the watch */
  async watch(path: string, told: (path: string) => void, depth?: number): Promise<() => Promise<void>> {
    const token = String(this.#nextToken++);
    this.#watchers.set(token, told);
    try {
      await this.ask(XS.WATCH, depth === undefined ? strings(path, token) : strings(path, token, String(depth)));
    } catch (e) {
      this.#watchers.delete(token);
      throw e;
    }
    return async () => {
      if (this.#watchers.delete(token) && !this.#lost) await this.ask(XS.UNWATCH, strings(path, token));
    };
  }
  /** Do all of `body` at once or nothing of it; `body` runs again when another was faster. */
  async transaction<T>(body: (t: SocketAccess) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const id = Number(parseStrings(await this.ask(XS.TRANSACTION_START, toBytes("\0")), 1, 1)[0]);
      let result: T;
      try {
        result = await body(new SocketAccess((type, payload, tx_id) => this.#send(type, payload, tx_id), id));
      } catch (e) {
        if (!this.#lost) await this.ask(XS.TRANSACTION_END, strings("F"), id);
        throw e;
      }
      try {
        await this.ask(XS.TRANSACTION_END, strings("T"), id);
        return result;
      } catch (e) {
        if (!(e instanceof XsRefusal && e.word === "EAGAIN") || tries >= TRIES_MAX) throw e;
      }
    }
  }
  /** Requests under way are lost, watches end. */
  close(): void {
    this.#lose("closed");
  }
  [Symbol.dispose](): void {
    this.close();
  }
}
