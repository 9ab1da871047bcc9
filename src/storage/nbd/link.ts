/** NBD's transmission phase, the client's side: requests out, simple and structured replies in. doc/proto.md "Transmission phase". */
import type { ByteConnection, ByteReader } from "../../base/stream.ts";
import { DiskError, SECTOR_BYTES } from "../disk.ts";
import { asDiskError, type PeerLink, type PeerRequest, type PeerShape } from "../peer.ts";
import type { NbdExportInfo } from "./handshake.ts";
import { CHUNK, CMD, errorName, faultOf, pack, PAYLOAD_BYTES, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, TFLAG, viewOf } from "./protocol.ts";

/** We send no longer payload, whatever the server takes: one long one holds the others up. */
const PART_BYTES_MAX = 4 << 20;
/** Trims and zeros have no payload; this keeps one from taking the server minutes. */
const ZERO_BYTES_MAX = 1 << 30;
/** Chunks of one read that do not follow each other. */
const PIECES_MAX = 1 << 16;
const COMMANDS = { read: CMD.READ, write: CMD.WRITE, zero: CMD.WRITE_ZEROES, trim: CMD.TRIM, flush: CMD.FLUSH } as const;

type Asked = { readonly request: PeerRequest; readonly resolve: () => void; readonly reject: (why: DiskError) => void; /** pieces of a structured read, [from, to) */ pieces: [from: number, to: number][]; error: DiskError | null };

/** What NBD says of an export, in the terms of a peer's disk. */
export function shapeOf(info: NbdExportInfo): PeerShape {
  const blockBytes = Math.max(SECTOR_BYTES, info.minBytes), maxBytes = Math.min(info.maxBytes, PART_BYTES_MAX);
  return {
    sizeBytes: info.sizeBytes - (info.sizeBytes % blockBytes), isReadonly: (info.flags & TFLAG.READ_ONLY) !== 0, blockBytes,
    physicalSectorBytes: Math.max(blockBytes, info.preferredBytes) >= 4096 ? 4096 : SECTOR_BYTES,
    maxBytes: maxBytes - (maxBytes % blockBytes), maxZeroBytes: ZERO_BYTES_MAX,
    canFlush: (info.flags & TFLAG.SEND_FLUSH) !== 0, canTrim: (info.flags & TFLAG.SEND_TRIM) !== 0, canZero: (info.flags & TFLAG.SEND_WRITE_ZEROES) !== 0,
    depth: 64, identity: "",
  };
}

/** A connection past its handshake. */
export class NbdLink implements PeerLink {
  readonly shape: PeerShape;
  onLost: ((why: DiskError) => void) | null = null;
  onShape: (() => void) | null = null;
  readonly #name: string;
  readonly #connection: ByteConnection;
  readonly #reader: ByteReader;
  readonly #structured: boolean;
  readonly #asked = new Map<number, Asked>();
  #cookie = 1;
  #failure: DiskError | null = null;

  constructor(name: string, connection: ByteConnection, reader: ByteReader, info: NbdExportInfo) {
    this.#name = name;
    this.#connection = connection;
    this.#reader = reader;
    this.#structured = info.structured;
    this.shape = shapeOf(info);
    this.#receive().catch((e: unknown) => this.fail(asDiskError(e, name)));
  }

  request(r: PeerRequest): Promise<void> {
    if (this.#failure) return Promise.reject(this.#gone());
    const cookie = this.#cookie++, { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#asked.set(cookie, { request: r, resolve, reject, pieces: [], error: null });
    const head = pack([REQUEST_MAGIC, 4], [0, 2], [COMMANDS[r.kind], 2], [cookie, 8], [r.offset, 8], [r.lengthBytes, 4]);
    const sent = r.kind === "write" ? this.#connection.write(head, r.bytes!) : this.#connection.write(head);
    sent.catch((e: unknown) => this.fail(asDiskError(e, this.#name)));
    return promise;
  }
  fail(why: DiskError): void {
    if (this.#failure) return;
    this.#failure = why;
    this.#reader.stop();
    this.#connection.close();
    for (const a of this.#asked.values()) a.reject(why);
    this.#asked.clear();
    this.onLost?.(why);
  }
  async close(): Promise<void> {
    if (this.#failure) return;
    this.#failure = new DiskError("closed", `${this.#name} is closed`);
    this.#reader.stop();
    await this.#connection.write(pack([REQUEST_MAGIC, 4], [0, 2], [CMD.DISC, 2], [0, 8], [0, 8], [0, 4]));
    this.#connection.close(true);
  }
  #gone(): DiskError {
    return new DiskError("gone", `${this.#name}: the connection is lost`, { cause: this.#failure });
  }
  #lie(what: string): DiskError {
    return new DiskError("io", `${this.#name}: the server breaks the protocol: ${what}`);
  }
  #find(v: DataView): [cookie: number, asked: Asked] {
    const high = v.getUint32(8), cookie = high * 2 ** 32 + v.getUint32(12), asked = high < 1 << 20 ? this.#asked.get(cookie) : undefined;
    if (!asked) throw this.#lie(`it answers request ${v.getBigUint64(8)}, which was not asked or is answered`);
    return [cookie, asked];
  }
  #settle(cookie: number, a: Asked, error: DiskError | null): void {
    this.#asked.delete(cookie);
    if (error) a.reject(error);
    else a.resolve();
  }
  #answer(error: number, r: PeerRequest, text = ""): DiskError {
    return new DiskError(faultOf(error), `${this.#name}: the server answers ${errorName(error)} to a ${r.kind} of ${r.lengthBytes} bytes at ${r.offset}${text ? ` ("${text}")` : ""}`);
  }

  async #receive(): Promise<void> {
    const head = new Uint8Array(20), v = viewOf(head);
    for (;;) {
      await this.#reader.readInto(head.subarray(0, 16));
      const magic = v.getUint32(0);
      if (magic === SIMPLE_REPLY_MAGIC) await this.#simple(v);
      else if (magic === STRUCTURED_REPLY_MAGIC && this.#structured) {
        await this.#reader.readInto(head.subarray(16));
        await this.#chunk(v);
      } else throw this.#lie(`a reply begins with ${magic.toString(16)}`);
    }
  }
  async #simple(v: DataView): Promise<void> {
    const [cookie, a] = this.#find(v), error = v.getUint32(4);
    if (a.pieces.length || a.error) throw this.#lie("it answers a request half structured, half simple");
    if (error) return this.#settle(cookie, a, this.#answer(error, a.request));
    if (a.request.kind === "read") {
      if (this.#structured) throw this.#lie("it answers a read without structure after it agreed to structure");
      await this.#reader.readInto(a.request.bytes!);
    }
    this.#settle(cookie, a, null);
  }
  async #chunk(v: DataView): Promise<void> {
    const flags = v.getUint16(4), type = v.getUint16(6), [cookie, a] = this.#find(v), lengthBytes = v.getUint32(16), r = a.request;
    if (type === CHUNK.NONE) {
      if (lengthBytes || !(flags & CHUNK.FLAG_DONE)) throw this.#lie("an empty chunk has a payload or is not the last");
    } else if (type & CHUNK.ERROR_BIT) {
      if (lengthBytes < 6 || lengthBytes > 65536) throw this.#lie(`an error's chunk is ${lengthBytes} bytes long`);
      const body = await this.#reader.exactly(lengthBytes), n = viewOf(body).getUint16(4), error = viewOf(body).getUint32(0);
      if (n > lengthBytes - 6) throw this.#lie("an error's message is longer than its chunk");
      if (!error) throw this.#lie("an error's chunk says that there is none");
      a.error ??= this.#answer(error, r, new TextDecoder().decode(body.subarray(6, 6 + Math.min(n, 200))));
    } else if (r.kind !== "read" || (type !== CHUNK.OFFSET_DATA && type !== CHUNK.OFFSET_HOLE)) throw this.#lie(`it answers a ${r.kind} with a chunk of type ${type}`);
    else {
      if (type === CHUNK.OFFSET_HOLE ? lengthBytes !== 12 : lengthBytes <= 8 || lengthBytes > 8 + PAYLOAD_BYTES) throw this.#lie(`a chunk of type ${type} is ${lengthBytes} bytes long`);
      const body = viewOf(await this.#reader.exactly(type === CHUNK.OFFSET_HOLE ? 12 : 8));
      const at = Number(body.getBigUint64(0)) - r.offset, n = type === CHUNK.OFFSET_HOLE ? body.getUint32(8) : lengthBytes - 8;
      if (at < 0 || n === 0 || at + n > r.lengthBytes) throw this.#lie(`it answers a read of ${r.lengthBytes} bytes at ${r.offset} with ${n} bytes at ${body.getBigUint64(0)}`);
      const last = a.pieces.at(-1);
      if (last && last[1] === at) last[1] = at + n;
      else if (a.pieces.push([at, at + n]) > PIECES_MAX) throw this.#lie(`it answers a read in more than ${PIECES_MAX} pieces`);
      if (type === CHUNK.OFFSET_HOLE) r.bytes!.fill(0, at, at + n);
      else await this.#reader.readInto(r.bytes!.subarray(at, at + n));
    }
    if (!(flags & CHUNK.FLAG_DONE)) return;
    if (r.kind === "read" && !a.error) {
      let end = 0;
      for (const [from, to] of a.pieces.sort((x, y) => x[0] - y[0])) {
        if (from !== end) throw this.#lie(`its chunks leave out or repeat bytes at ${r.offset + Math.min(from, end)} of a read`);
        end = to;
      }
      if (end !== r.lengthBytes) throw this.#lie(`its chunks end after ${end} of ${r.lengthBytes} bytes of a read`);
    }
    this.#settle(cookie, a, a.error);
  }
}
