/**
 * The store on a Unix socket, for dom0's tools: the packets of public/io/xs_wire.h, as xenstored's socket has them, so libxenstore speaks to it. Who may
 * open the socket is dom0: its mode is 0600.
 */
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { UserError } from "../base/errors.ts";
import { Outbox } from "./outbox.ts";
import type { Connection, Store } from "./store.ts";
import { PacketReader } from "./wire.ts";

/** Requests wait while this much is on its way to the client; one that lets events pile up beyond QUEUE_BYTES_MAX is dropped. */
const QUEUE_BYTES_BUSY = 64 << 10, QUEUE_BYTES_MAX = 1 << 20;
/** Requests answered in a row, so that one client cannot keep the others' server. */
const REQUESTS_PER_TURN = 64;
/** The longest path that fits struct sockaddr_un. */
const SOCKET_PATH_MAX = 107;

/** Settings of a SocketServer. */
export type SocketOptions = {
  /** clients at once; further ones are turned away (default: 512) */
  nrClients?: number;
  log?: (sentence: string) => void;
};

/** Serves a store's clients; each is a connection of dom0. */
export class SocketServer {
  readonly path: string;
  readonly #server: Server;
  readonly #clients = new Set<SocketConnection>();

  constructor(store: Store, path: string, options: SocketOptions = {}) {
    this.path = path;
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      const client = new SocketConnection(socket, store, (why) => options.log?.(`xenstore ${path}: ${why}`));
      this.#clients.add(client);
      socket.on("close", () => this.#clients.delete(client));
    });
    this.#server.maxConnections = options.nrClients ?? 512;
  }
  /** Make the socket and begin. A socket that nobody serves any more is replaced. @throws UserError when the path cannot be had */
  async listen(): Promise<void> {
    const { path } = this;
    if (Buffer.byteLength(path) > SOCKET_PATH_MAX) throw new UserError(`xenstore: ${path} is too long for a socket, ${SOCKET_PATH_MAX} bytes is the limit`);
    await removeStale(path);
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", (e: NodeJS.ErrnoException) => reject(new UserError(`xenstore: ${path} cannot be served (${e.code ?? e.message})`)));
      const mask = process.umask(0o177);  // the socket is made within listen(), and never stands open to others
      try {
        this.#server.listen(path, resolve);
      } finally {
        process.umask(mask);
      }
    });
    chmodSync(path, 0o600);
  }
  /** Drop all clients and remove the socket. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const c of this.#clients) c.close();
    await closed;
  }
  get nrClients(): number {
    return this.#clients.size;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** One client. */
class SocketConnection {
  readonly #socket: Socket;
  readonly #store: Store;
  readonly #connection: Connection;
  readonly #log: (why: string) => void;
  readonly #reader = new PacketReader();
  readonly #outbox = new Outbox(QUEUE_BYTES_MAX);
  /** bytes received and not looked at; the socket is paused while there are any */
  #input: Uint8Array = new Uint8Array(0);
  #isFull = false;
  #isEnding = false;
  #again: NodeJS.Immediate | undefined;

  constructor(socket: Socket, store: Store, log: (why: string) => void) {
    this.#socket = socket;
    this.#store = store;
    this.#log = log;
    this.#connection = store.connect(0, (packet, sent) => {
      if (this.#outbox.add(packet, sent)) return this.#flush();
      this.#log(`a client that left ${this.#outbox.nrBytes} bytes of events unread is dropped`);
      this.close();
    });
    socket.on("data", (chunk: Buffer) => {
      socket.pause();
      this.#input = chunk;
      this.#work();
    });
    socket.on("drain", () => {
      this.#isFull = false;
      this.#flush();
      this.#work();
    });
    socket.on("end", () => {
      this.#isEnding = true;
      this.#store.disconnect(this.#connection);
      this.#flush();
    });
    socket.on("error", () => this.close());
    socket.on("close", () => this.close());
    socket.resume();
  }
  /** Answer what has been received, as far as replies have room. */
  #work(): void {
    for (let nrRequests = 0; this.#input.length && !this.#connection.closed && this.#outbox.nrBytes < QUEUE_BYTES_BUSY; ) {
      if (nrRequests >= REQUESTS_PER_TURN) {
        this.#again ??= setImmediate(() => {
          this.#again = undefined;
          this.#work();
        });
        return;
      }
      const n = Math.min(this.#input.length, this.#reader.wanted), packet = this.#reader.push(this.#input.subarray(0, n));
      this.#input = this.#input.subarray(n);
      if (this.#reader.broken) {
        this.#log("a client that sent a request longer than a packet may be is dropped");
        return this.close();
      }
      if (!packet) continue;
      nrRequests++;
      this.#store.serve(this.#connection, packet);
    }
    if (this.#input.length === 0 && this.#socket.isPaused()) this.#socket.resume();
  }
  #flush(): void {
    for (let head = this.#outbox.head; head && !this.#isFull; head = this.#outbox.head) {
      this.#isFull = !this.#socket.write(head);
      this.#outbox.advance(head.length);
    }
    if (this.#isEnding && this.#outbox.nrBytes === 0) this.#socket.end();
  }
  close(): void {
    clearImmediate(this.#again);
    this.#store.disconnect(this.#connection);
    this.#outbox.clear();
    this.#socket.destroy();
  }
}

/** Unlink a socket that nobody answers at. */
async function removeStale(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isSocket()) throw new UserError(`xenstore: ${path} exists and is not a socket`);
  const isServed = await new Promise<boolean>((resolve) => {
    const probe = connect(path, () => { probe.destroy(); resolve(true); });
    probe.on("error", (e: NodeJS.ErrnoException) => resolve(e.code !== "ECONNREFUSED" && e.code !== "ENOENT"));
  });
  if (isServed) throw new UserError(`xenstore: ${path} is served by another process`);
  try { unlinkSync(path); } catch (e) { if ((e as NodeJS.ErrnoException).code !== "ENOENT") throw new UserError(`xenstore: ${path} cannot be replaced (${(e as NodeJS.ErrnoException).code})`); }
}
