/** Connections over Node's sockets, TCP and Unix: what `Connect` of base/stream.ts asks for, and a listener. */
import { createConnection, createServer, type Socket } from "node:net";
import { addressName, type ByteConnection, type Connect, type StreamAddress, StreamEnded } from "../base/stream.ts";

/** The peer is held up while this much waits for our reader. */
const UNREAD_BYTES_MAX = 4 << 20;

/** An idle peer's machine that is gone is noticed after some of these. */
const KEEPALIVE_MS = 30_000;
/** A peer that does not read what was sent before a graceful close is left after this. */
const LINGER_MS = 5000;

/** A socket that is connected, as a `ByteConnection`. */
export function socketConnection(socket: Socket, peerName: string): ByteConnection {
  const chunks: Uint8Array[] = [];
  let unreadBytes = 0, ended = false, failure: Error | null = null;
  let reader: { resolve: (c: Uint8Array | null) => void; reject: (e: Error) => void } | null = null;
  let room = Promise.withResolvers<void>(), isFull = false;
  const settle = (): void => {
    if (failure) { isFull = false; room.reject(failure); room.promise.catch(() => {}); }
    if (!reader) return;
    if (failure) reader.reject(failure);
    else if (ended) reader.resolve(null);
    else return;
    reader = null;
  };
  const fail = (why: Error): void => { failure ??= why; settle(); };
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEPALIVE_MS);
  socket.on("data", (b: Buffer) => {
    const chunk = new Uint8Array(b.buffer, b.byteOffset, b.length);
    if (reader) { reader.resolve(chunk); reader = null; return; }
    chunks.push(chunk);
    unreadBytes += chunk.length;
    if (unreadBytes > UNREAD_BYTES_MAX) socket.pause();
  });
  socket.on("end", () => { ended = true; settle(); });
  socket.on("drain", () => { isFull = false; room.resolve(); });
  socket.on("error", (e) => fail(new Error(`The connection to ${peerName} failed: ${e.message}`, { cause: e })));
  socket.on("close", () => fail(new StreamEnded(`The connection to ${peerName} is closed`)));
  return {
    peerName,
    read: () => {
      const chunk = chunks.shift();
      if (chunk) {
        unreadBytes -= chunk.length;
        if (socket.isPaused() && unreadBytes <= UNREAD_BYTES_MAX) socket.resume();
        return Promise.resolve(chunk);
      }
      if (failure && !ended) return Promise.reject(failure);
      if (ended) return Promise.resolve(null);
      return new Promise((resolve, reject) => { reader = { resolve, reject }; });
    },
    write: (...parts) => {
      if (failure) return Promise.reject(failure);
      socket.cork();
      let hasRoom = true;
      for (const p of parts) if (p.length) hasRoom = socket.write(p);
      socket.uncork();
      if (hasRoom && !isFull) return Promise.resolve();
      if (!isFull) { isFull = true; room = Promise.withResolvers(); }
      return room.promise;
    },
    close: (graceful = false) => {
      if (graceful && !failure) {
        const timer = setTimeout(() => socket.destroy(), LINGER_MS).unref();
        socket.once("close", () => clearTimeout(timer));
        socket.end(() => socket.destroy());
      } else socket.destroy();
      ended = false;
      chunks.length = 0;
      fail(new StreamEnded(`The connection to ${peerName} is closed`));
    },
  };
}

/** Open a TCP or Unix connection. */
export const connectSocket: Connect = (to, timeoutMs) => new Promise((resolve, reject) => {
  const socket = "path" in to ? createConnection(to.path) : createConnection(to.port, to.host), name = addressName(to);
  const timer = setTimeout(() => socket.destroy(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
  const failed = (e: Error): void => { clearTimeout(timer); reject(new Error(`Cannot connect to ${name}: ${e.message}`, { cause: e })); };
  socket.once("error", failed);
  socket.once("connect", () => {
    clearTimeout(timer);
    resolve(socketConnection(socket, name));
    socket.off("error", failed);
  });
});

/** A listening socket. */
export type Listener = { readonly address: StreamAddress; close(): Promise<void> };

/** Listen; port 0 takes a free one. `close` stops listening and leaves connections to who has them. */
export function listenSocket(at: StreamAddress, onConnection: (connection: ByteConnection) => void): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      onConnection(socketConnection(socket, socket.remoteAddress ? addressName({ host: socket.remoteAddress, port: socket.remotePort ?? 0 }) : addressName(at)));
    });
    server.once("error", (e) => reject(new Error(`Cannot listen at ${addressName(at)}: ${e.message}`, { cause: e })));
    server.listen("path" in at ? { path: at.path } : { host: at.host, port: at.port }, () => {
      const bound = server.address();
      resolve({
        address: bound && typeof bound === "object" ? { host: bound.address, port: bound.port } : at,
        close: () => { server.close(); return Promise.resolve(); },
      });
    });
  });
}
