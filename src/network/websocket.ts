/**
 * WebSockets as connections of bytes, RFC 6455: the browser's (or Node's) own as the one who dials, and ours over any connection as the one who listens. Messages are binary, where they
 * begin and end means nothing.
 */
import { type ByteConnection, ByteReader, StreamEnded } from "../base/stream.ts";
import { HttpReader } from "./nat/http-request.ts";

/** What waits for our reader at most, and what may wait to be sent; a longest frame; time for the peer's hello. */
const UNREAD_BYTES_MAX = 16 << 20, UNSENT_BYTES_MAX = 1 << 20, FRAME_BYTES_MAX = 1 << 20, HELLO_MS = 10_000, LOOK_MS = 4;
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const OP = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
const ascii = (text: string): Uint8Array<ArrayBuffer> => Uint8Array.from(text, (c) => c.charCodeAt(0));

/** Open a WebSocket. @throws Error with a sentence */
export function dialWebSocket(url: string): Promise<ByteConnection> {
  const socket = new WebSocket(url), chunks: Uint8Array[] = [];
  let unreadBytes = 0, reader: PromiseWithResolvers<Uint8Array | null> | null = null, isOver = false;
  socket.binaryType = "arraybuffer";
  const ended = (): StreamEnded => new StreamEnded(`The connection to ${url} is closed`);
  socket.onmessage = ({ data }: MessageEvent<unknown>) => {
    if (!(data instanceof ArrayBuffer)) { socket.close(); return; }
    const chunk = new Uint8Array(data);
    if (reader) { reader.resolve(chunk); reader = null; return; }
    chunks.push(chunk);
    if ((unreadBytes += chunk.length) > UNREAD_BYTES_MAX) socket.close();
  };
  return new Promise((resolve, reject) => {
    socket.onclose = () => {
      isOver = true;
      reader?.reject(ended());
      reader = null;
      reject(new Error(`Cannot connect to ${url}: nobody answers there, or this page may not (its origin is not let in)`));
    };
    socket.onopen = () => resolve({
      peerName: url,
      read: () => {
        const chunk = chunks.shift();
        if (chunk) { unreadBytes -= chunk.length; return Promise.resolve(chunk); }
        if (isOver) return Promise.reject(ended());
        reader = Promise.withResolvers();
        return reader.promise;
      },
      write: async (...parts) => {
        if (isOver) throw ended();
        for (const part of parts) if (part.length > 0) socket.send(part as Uint8Array<ArrayBuffer>);
        while (socket.bufferedAmount > UNSENT_BYTES_MAX && !isOver) await new Promise((done) => setTimeout(done, LOOK_MS));
        if (isOver) throw ended();
      },
      close: () => socket.close(),
    });
  });
}

/** Pages of this computer, and those that are named, may come; who sends no Origin is no page. */
export function mayCome(origin: string | undefined, named: readonly string[]): boolean {
  if (origin === undefined || named.includes(origin)) return true;
  try { return /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(new URL(origin).hostname); } catch { return false; }
}

/**
 * Answer a browser's hello on a connection that has come.
 * @param origins pages that may come besides those of this computer: without that check any page that its user visits could
 * @throws Error with a sentence; the connection is closed then
 */
export async function acceptWebSocket(raw: ByteConnection, origins: readonly string[]): Promise<ByteConnection> {
  const timer = setTimeout(() => raw.close(), HELLO_MS);
  const refuse = async (status: string, why: string): Promise<never> => {
    await raw.write(ascii(`HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${why.length + 1}\r\nConnection: close\r\n\r\n${why}\n`)).catch(() => {});
    raw.close(true);
    throw new Error(why);
  };
  try {
    const reader = new HttpReader();
    for (;;) {
      const chunk = await raw.read();
      if (!chunk) throw new StreamEnded(`${raw.peerName} ended the connection before its hello`);
      reader.push(chunk);
      const request = reader.take();
      if (request === null) continue;
      if ("status" in request) return await refuse(`${request.status} Bad Request`, request.why);
      const { headers } = request, key = headers.get("sec-websocket-key") ?? "";
      if (request.method !== "GET" || (headers.get("upgrade") ?? "").toLowerCase() !== "websocket" || !/^[A-Za-z0-9+/]{22}==$/.test(key) || reader.heldBytes > 0) return await refuse("400 Bad Request", "This is a Domus link; it speaks WebSocket only");
      if (headers.get("sec-websocket-version") !== "13") return await refuse("426 Upgrade Required", "WebSocket version 13 is wanted");
      const origin = headers.get("origin");
      if (!mayCome(origin, origins)) return await refuse("403 Forbidden", `Pages of ${origin!.replace(/[^\x20-\x7e]/g, "?").slice(0, 200)} are not let in; name it with origin=`);
      const sum = new Uint8Array(await crypto.subtle.digest("SHA-1", ascii(key + GUID)));
      await raw.write(ascii(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${btoa(String.fromCharCode(...sum))}\r\n\r\n`));
      return framed(raw);
    }
  } finally { clearTimeout(timer); }
}

function header(op: number, length: number): Uint8Array {
  const h = new Uint8Array(length < 126 ? 2 : length < 65536 ? 4 : 10), view = new DataView(h.buffer);
  h[0] = 0x80 | op;
  if (length < 126) h[1] = length;
  else if (length < 65536) { h[1] = 126; view.setUint16(2, length); } else { h[1] = 127; view.setBigUint64(2, BigInt(length)); }
  return h;
}
/** The server's side of the frames. */
function framed(raw: ByteConnection): ByteConnection {
  const reader = new ByteReader(raw);
  const failed = (why: string): never => {
    void raw.write(header(OP.close, 0)).catch(() => {});
    raw.close(true);
    throw new StreamEnded(`${raw.peerName} ${why}`);
  };
  const read = async (): Promise<Uint8Array | null> => {
    for (;;) {
      const [first, second] = await reader.exactly(2) as unknown as [number, number], op = first & 15, isControl = (op & 8) !== 0;
      let length = second & 127;
      if (first & 0x70) return failed("uses an extension that was not agreed");
      if (!(second & 0x80)) return failed("sends frames without a mask");
      if (isControl && (length > 125 || !(first & 0x80))) return failed("sends a control frame that is none");
      if (length === 126) { const [a, b] = await reader.exactly(2) as unknown as [number, number]; length = a * 256 + b; }
      else if (length === 127) { const b = await reader.exactly(8); length = Number(new DataView(b.buffer, b.byteOffset).getBigUint64(0)); }
      if (length > FRAME_BYTES_MAX) return failed(`sends a frame of ${length} bytes; ${FRAME_BYTES_MAX} is the limit`);
      const mask = await reader.exactly(4), bytes = await reader.exactly(length);
      for (let i = 0; i < length; i++) bytes[i] = bytes[i]! ^ mask[i & 3]!;
      switch (op) {
        case OP.binary: case OP.continuation:
          if (length > 0) return bytes;
          break;
        case OP.ping: await raw.write(header(OP.pong, length), bytes); break;
        case OP.pong: break;
        case OP.close: void raw.write(header(OP.close, 0)).catch(() => {}); raw.close(true); return null;
        default: return failed(op === OP.text ? "sends text; binary messages are wanted" : `sends a frame of kind ${op}`);
      }
    }
  };
  return {
    peerName: raw.peerName, read,
    write: (...parts) => raw.write(header(OP.binary, parts.reduce((n, p) => n + p.length, 0)), ...parts),
    close: (graceful) => {
      if (graceful) void raw.write(header(OP.close, 0)).catch(() => {});
      raw.close(graceful);
    },
  };
}
