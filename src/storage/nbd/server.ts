/**
 * An NBD server for one connection: fixed newstyle, LIST, INFO, GO, EXPORT_NAME, structured replies where the client asks. doc/proto.md. The client is not
 * trusted: what it asks is checked, and what waits for it is bounded in requests and bytes.
 */
import { type ByteConnection, ByteReader } from "../../base/stream.ts";
import { type Disk, DiskError, SECTOR_BYTES } from "../disk.ts";
import { CHUNK, CMD, CMD_FLAG, ERR, errorOf, FLAG, IHAVEOPT, INFO, NAME_BYTES_MAX, NBDMAGIC, OPT, pack, PAYLOAD_BYTES, REP, REPLY_MAGIC, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC, TFLAG, viewOf } from "./protocol.ts";

/** A disk that is served. Several connections may serve the same one; the name "" is what a client gets that names none. */
export type NbdExport = { readonly disk: Disk; readonly description?: string; readonly isReadonly?: boolean };
export type NbdServerOptions = { log?: (sentence: string) => void; /** for the whole handshake */ handshakeTimeoutMs?: number };
/** `done` settles when the connection has ended and no request touches a disk any more; `close` finishes requests under way, then hangs up. */
export type NbdService = { readonly done: Promise<void>; close(): Promise<void> };

const OPTIONS_MAX = 4096, OPTION_BYTES_MAX = 64 << 10;
const REQUESTS_MAX = 64, BYTES_MAX = 64 << 20;

const flagsOf = (e: NbdExport): number => TFLAG.HAS_FLAGS | TFLAG.SEND_FLUSH | TFLAG.SEND_FUA | TFLAG.CAN_MULTI_CONN
  | (e.isReadonly || e.disk.isReadonly ? TFLAG.READ_ONLY : TFLAG.SEND_TRIM | TFLAG.SEND_WRITE_ZEROES);
/** What ends a connection: the client left, or broke the protocol. */
class Hangup extends Error {}

class Server {
  readonly #connection: ByteConnection;
  readonly #reader: ByteReader;
  readonly #exports: ReadonlyMap<string, NbdExport>;
  #structured = false;
  #hasNoZeroes = false;
  #nrRunning = 0;
  #runningBytes = 0;
  #isStopping = false;
  #wake: (() => void) | null = null;
  constructor(connection: ByteConnection, exports: ReadonlyMap<string, NbdExport>) {
    this.#connection = connection;
    this.#reader = new ByteReader(connection);
    this.#exports = exports;
  }

  async run(handshakeTimeoutMs: number): Promise<void> {
    const timer = setTimeout(() => this.#connection.close(), handshakeTimeoutMs);
    let chosen: NbdExport | null;
    try { chosen = await this.#handshake(); } finally { clearTimeout(timer); }
    if (chosen) await this.#transmit(chosen);
  }
  /** Take no new request; hang up when those under way are answered. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#until(() => this.#nrRunning === 0);
    this.#connection.close(true);
    this.#reader.stop();
  }
  async idle(): Promise<void> {
    await this.#until(() => this.#nrRunning === 0);
  }
  async #until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        const before = this.#wake;
        this.#wake = () => { before?.(); resolve(); };
      });
    }
  }

  async #handshake(): Promise<NbdExport | null> {
    await this.#connection.write(pack([NBDMAGIC, 8], [IHAVEOPT, 8], [FLAG.FIXED_NEWSTYLE | FLAG.NO_ZEROES, 2]));
    const flags = viewOf(await this.#reader.exactly(4)).getUint32(0);
    if (flags & ~(FLAG.FIXED_NEWSTYLE | FLAG.NO_ZEROES)) throw new Hangup(`the client has unknown flags ${flags.toString(16)}`);
    this.#hasNoZeroes = (flags & FLAG.NO_ZEROES) !== 0;
    for (let n = 0; n < OPTIONS_MAX; n++) {
      const v = viewOf(await this.#reader.exactly(16)), option = v.getUint32(8), lengthBytes = v.getUint32(12);
      if (v.getBigUint64(0) !== IHAVEOPT) throw new Hangup("an option begins with something else");
      const reply = (type: number, body: Uint8Array | string = ""): Promise<void> => {
        const bytes = pack(body);
        return this.#connection.write(pack([REPLY_MAGIC, 8], [option, 4], [type, 4], [bytes.length, 4], bytes));
      };
      if (lengthBytes > OPTION_BYTES_MAX) {
        if (option === OPT.EXPORT_NAME || lengthBytes > PAYLOAD_BYTES) throw new Hangup(`option ${option} is ${lengthBytes} bytes long`);
        await this.#reader.skip(lengthBytes);
        await reply(REP.ERR_TOO_BIG);
        continue;
      }
      const body = await this.#reader.exactly(lengthBytes);
      switch (option) {
        case OPT.EXPORT_NAME: {
          const found = this.#exports.get(new TextDecoder().decode(body));
          if (!found) throw new Hangup("the client asked for an export that is not served");
          await this.#connection.write(pack([found.disk.sizeBytes, 8], [flagsOf(found), 2], new Uint8Array(this.#hasNoZeroes ? 0 : 124)));
          return found;
        }
        case OPT.ABORT: await reply(REP.ACK); return null;
        case OPT.LIST:
          if (lengthBytes) { await reply(REP.ERR_INVALID, "LIST takes nothing"); break; }
          for (const [name, e] of this.#exports) {
            const bytes = new TextEncoder().encode(name);
            await reply(REP.SERVER, pack([bytes.length, 4], bytes, e.description ?? ""));
          }
          await reply(REP.ACK);
          break;
        case OPT.STRUCTURED_REPLY:
          if (lengthBytes) { await reply(REP.ERR_INVALID, "STRUCTURED_REPLY takes nothing"); break; }
          this.#structured = true;
          await reply(REP.ACK);
          break;
        case OPT.INFO: case OPT.GO: {
          const b = viewOf(body), nameBytes = lengthBytes >= 6 ? b.getUint32(0) : -1;
          if (nameBytes < 0 || nameBytes > NAME_BYTES_MAX || nameBytes + 6 > lengthBytes || nameBytes + 6 + 2 * b.getUint16(4 + nameBytes) !== lengthBytes) {
            await reply(REP.ERR_INVALID, "the name or the list does not fill the option");
            break;
          }
          const found = this.#exports.get(new TextDecoder().decode(body.subarray(4, 4 + nameBytes)));
          if (!found) { await reply(REP.ERR_UNKNOWN, "no such export"); break; }
          await reply(REP.INFO, pack([INFO.EXPORT, 2], [found.disk.sizeBytes, 8], [flagsOf(found), 2]));
          await reply(REP.INFO, pack([INFO.BLOCK_SIZE, 2], [SECTOR_BYTES, 4], [Math.max(4096, found.disk.physicalSectorBytes), 4], [PAYLOAD_BYTES, 4]));
          if (found.description) await reply(REP.INFO, pack([INFO.DESCRIPTION, 2], found.description));
          await reply(REP.ACK);
          if (option === OPT.GO) return found;
          break;
        }
        default: await reply(REP.ERR_UNSUP);
      }
    }
    throw new Hangup(`the client sent ${OPTIONS_MAX} options`);
  }

  async #transmit(e: NbdExport): Promise<void> {
    const head = new Uint8Array(28), v = viewOf(head);
    while (!this.#isStopping) {
      await this.#reader.readInto(head);
      if (v.getUint32(0) !== REQUEST_MAGIC) throw new Hangup(`a request begins with ${v.getUint32(0).toString(16)}`);
      const flags = v.getUint16(4), type = v.getUint16(6), cookie = v.getBigUint64(8), offset = v.getBigUint64(16), lengthBytes = v.getUint32(24);
      if (type === CMD.DISC) return;
      const bytes = type === CMD.READ || type === CMD.WRITE ? lengthBytes : 0;
      if (bytes > PAYLOAD_BYTES) {
        // A read's is not there to be read; a write's is not worth reading.
        if (type === CMD.WRITE) throw new Hangup(`a write is ${bytes} bytes long`);
        await this.#reply(cookie, ERR.EOVERFLOW, null, offset, false);
        continue;
      }
      await this.#until(() => this.#nrRunning < REQUESTS_MAX && this.#runningBytes + bytes <= BYTES_MAX);
      const payload = type === CMD.WRITE ? await this.#reader.exactly(lengthBytes) : null;
      this.#nrRunning++;
      this.#runningBytes += bytes;
      void this.#serve(e, flags, type, cookie, offset, lengthBytes, payload).catch(() => this.#connection.close()).finally(() => {
        this.#nrRunning--;
        this.#runningBytes -= bytes;
        const wake = this.#wake;
        this.#wake = null;
        wake?.();
      });
    }
  }
  async #serve(e: NbdExport, flags: number, type: number, cookie: bigint, offset: bigint, lengthBytes: number, payload: Uint8Array | null): Promise<void> {
    const { disk } = e, end = offset + BigInt(lengthBytes), changes = type === CMD.WRITE || type === CMD.TRIM || type === CMD.WRITE_ZEROES;
    let error = 0, found: Uint8Array | null = null;
    const allowed = (type === CMD.WRITE || type === CMD.TRIM || type === CMD.FLUSH || type === CMD.READ ? CMD_FLAG.FUA : 0)
      | (type === CMD.WRITE_ZEROES ? CMD_FLAG.FUA | CMD_FLAG.NO_HOLE : 0) | (type === CMD.READ ? CMD_FLAG.DF : 0);
    if (flags & ~allowed) error = ERR.EINVAL;
    else if (changes && (e.isReadonly || disk.isReadonly)) error = ERR.EPERM;
    else if (type === CMD.FLUSH ? offset !== 0n || lengthBytes !== 0 : end > BigInt(disk.sizeBytes)) error = type === CMD.WRITE || type === CMD.WRITE_ZEROES ? ERR.ENOSPC : ERR.EINVAL;
    else if (type !== CMD.FLUSH && (offset % BigInt(SECTOR_BYTES) !== 0n || lengthBytes % SECTOR_BYTES !== 0 || lengthBytes === 0)) error = ERR.EINVAL;
    else {
      const at = Number(offset);
      try {
        switch (type) {
          case CMD.READ: found = new Uint8Array(lengthBytes); await disk.read(at, found); break;
          case CMD.WRITE: await disk.write(at, payload!); break;
          case CMD.FLUSH: await disk.flush(); break;
          case CMD.TRIM: await disk.discard(at, lengthBytes); break;
          case CMD.WRITE_ZEROES: await disk.writeZeros(at, lengthBytes); break;
          default: error = ERR.EINVAL;
        }
        if (changes && flags & CMD_FLAG.FUA) await disk.flush();
      } catch (why) { error = errorOf(why); }
    }
    await this.#reply(cookie, error, error ? null : found, offset, type === CMD.READ);
  }
  #reply(cookie: bigint, error: number, found: Uint8Array | null, offset: bigint, isRead: boolean): Promise<void> {
    if (!this.#structured || !(isRead || error)) return this.#connection.write(pack([SIMPLE_REPLY_MAGIC, 4], [error, 4], [cookie, 8]), ...(found ? [found] : []));
    const head = (type: number, lengthBytes: number) => [[STRUCTURED_REPLY_MAGIC, 4], [CHUNK.FLAG_DONE, 2], [type, 2], [cookie, 8], [lengthBytes, 4]] as const;
    if (error) return this.#connection.write(pack(...head(CHUNK.ERROR, 6), [error, 4], [0, 2]));
    return this.#connection.write(pack(...head(CHUNK.OFFSET_DATA, 8 + found!.length), [offset, 8]), found!);
  }
}

/** Serve exports on a connection until it ends. Nothing is thrown; what goes wrong is logged. */
export function serveNbd(connection: ByteConnection, exports: ReadonlyMap<string, NbdExport>, options: NbdServerOptions = {}): NbdService {
  const server = new Server(connection, exports);
  const done = (async () => {
    try {
      await server.run(options.handshakeTimeoutMs ?? 30_000);
    } catch (e) {
      if (e instanceof Hangup || e instanceof DiskError) options.log?.(`NBD client ${connection.peerName}: connection shut, ${e.message}`);
    }
    await server.idle();
    connection.close(true);
  })();
  return { done, close: async () => { await server.stop(); await done; } };
}
