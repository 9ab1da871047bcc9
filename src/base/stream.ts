/** A connection that carries bytes both ways, in order: TCP, a Unix socket, a WebSocket's tunnel, or two ends in one process. Framing is the reader's. */

/** Where a connection goes: TCP, or a socket in the file system. */
export type StreamAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** One end. Failure of the peer or the way to it rejects `read` and `write`; `close` is safe at any time and again. */
export interface ByteConnection {
  /** for messages: "10.0.0.7:3260", "/run/disk.sock" */
  readonly peerName: string;
  /** The next bytes, one chunk or more of them; null when the peer ended its side. One call at a time. Who does not call it holds the peer up. */
  read(): Promise<Uint8Array<ArrayBufferLike> | null>;
  /**
   * Send the parts one after the other. They are given away: nobody changes them until the peer has answered or the connection is closed.
   * @returns settles when there is room for more; who does not wait for it still writes in the order of the calls
   */
  write(...parts: readonly Uint8Array[]): Promise<void>;
  /** Let go at once, both ways; `graceful`: after what was written has been sent. A read that waits is rejected. */
  close(graceful?: boolean): void;
}

/** Opens connections. @throws Error with a sentence, within `timeoutMs` */
export type Connect = (to: StreamAddress, timeoutMs: number) => Promise<ByteConnection>;

/** The address as one writes it, for messages. */
export const addressName = (to: StreamAddress): string => ("path" in to ? to.path : `${to.host.includes(":") ? `[${to.host}]` : to.host}:${to.port}`);

/** The peer ended where more bytes were due. */
export class StreamEnded extends Error {
  override name = "StreamEnded";
}

/** Cuts a connection's bytes into pieces of known length. One call at a time. Lengths are the caller's to check: they are allocated. */
export class ByteReader {
  readonly #from: Pick<ByteConnection, "read" | "peerName">;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  #isClosed = false;
  constructor(from: Pick<ByteConnection, "read" | "peerName">) {
    this.#from = from;
  }
  async #more(): Promise<void> {
    if (this.#isClosed) throw new StreamEnded(`The connection to ${this.#from.peerName} is closed`);
    const chunk = await this.#from.read();
    if (this.#isClosed || !chunk) throw new StreamEnded(`${this.#from.peerName} ended the connection`);
    this.#chunk = chunk;
    this.#at = 0;
  }
  /** Fill `into`. After `stop` it is touched no more. */
  async readInto(into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length;) {
      if (this.#isClosed || this.#at === this.#chunk.length) await this.#more();
      const n = Math.min(into.length - done, this.#chunk.length - this.#at);
      into.set(this.#chunk.subarray(this.#at, this.#at + n), done);
      this.#at += n;
      done += n;
    }
  }
  /** The next `lengthBytes` bytes, a copy. */
  async exactly(lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(lengthBytes);
    await this.readInto(bytes);
    return bytes;
  }
  /** Read and forget. */
  async skip(lengthBytes: number): Promise<void> {
    for (let left = lengthBytes; left > 0;) {
      if (this.#isClosed || this.#at === this.#chunk.length) await this.#more();
      const n = Math.min(left, this.#chunk.length - this.#at);
      this.#at += n;
      left -= n;
    }
  }
  /** From here on every call is rejected and no buffer is written, also that of a call under way. */
  stop(): void {
    this.#isClosed = true;
  }
}

/** The receiving half of an end in this process: chunks that wait for their reader, and the writer that waits for room. */
class Pipe {
  static readonly ROOM_BYTES = 1 << 20;
  #chunks: Uint8Array[] = [];
  #waitingBytes = 0;
  #end: "open" | "ended" | "failed" = "open";
  #reader: { resolve: (c: Uint8Array | null) => void; reject: (e: Error) => void } | null = null;
  #writers: (() => void)[] = [];
  readonly #name: string;
  constructor(name: string) {
    this.#name = name;
  }
  put(chunk: Uint8Array): Promise<void> {
    if (this.#end !== "open") return Promise.reject(new StreamEnded(`The connection to ${this.#name} is closed`));
    if (chunk.length === 0) return Promise.resolve();
    const reader = this.#reader;
    this.#reader = null;
    if (reader) { reader.resolve(chunk); return Promise.resolve(); }
    this.#chunks.push(chunk);
    this.#waitingBytes += chunk.length;
    return this.#waitingBytes <= Pipe.ROOM_BYTES ? Promise.resolve() : new Promise((resolve) => { this.#writers.push(resolve); });
  }
  take(): Promise<Uint8Array | null> {
    const chunk = this.#end === "failed" ? undefined : this.#chunks.shift();
    if (chunk) {
      this.#waitingBytes -= chunk.length;
      if (this.#waitingBytes <= Pipe.ROOM_BYTES) for (const go of this.#writers.splice(0)) go();
      return Promise.resolve(chunk);
    }
    if (this.#end === "ended") return Promise.resolve(null);
    if (this.#end === "failed") return Promise.reject(new StreamEnded(`The connection to ${this.#name} is closed`));
    return new Promise((resolve, reject) => { this.#reader = { resolve, reject }; });
  }
  end(how: "ended" | "failed"): void {
    if (this.#end === "failed" || this.#end === how) return;
    this.#end = how;
    if (how === "ended") this.#reader?.resolve(null);
    else this.#reader?.reject(new StreamEnded(`The connection to ${this.#name} is closed`));
    this.#reader = null;
    for (const go of this.#writers.splice(0)) go();
  }
}

/** Two ends of one connection inside this process; each calls the other by its name. */
export function connectionPair(nameA = "a", nameB = "b"): [a: ByteConnection, b: ByteConnection] {
  const toA = new Pipe(nameB), toB = new Pipe(nameA);
  const end = (peerName: string, from: Pipe, to: Pipe): ByteConnection => ({
    peerName,
    read: () => from.take(),
    write: (...parts) => Promise.all(parts.map((p) => to.put(p))).then(() => {}),
    close: () => { from.end("failed"); to.end("ended"); },
  });
  return [end(nameB, toA, toB), end(nameA, toB, toA)];
}
