/** The client's side of NBD's fixed newstyle handshake: doc/proto.md "Fixed newstyle negotiation". Every length from the server is checked before it is used. */
import { type ByteConnection, ByteReader } from "../../base/stream.ts";
import { DiskError, SECTOR_BYTES } from "../disk.ts";
import { CLISERV_MAGIC, FLAG, IHAVEOPT, INFO, NAME_BYTES_MAX, NBDMAGIC, OPT, PAYLOAD_BYTES, pack, REP, REPLY_MAGIC, TFLAG, viewOf } from "./protocol.ts";

/** What the server said of an export. */
export type NbdExportInfo = {
  readonly sizeBytes: number; readonly flags: number; readonly structured: boolean;
  /** block size constraints: least, preferred, most bytes of a payload */
  readonly minBytes: number; readonly preferredBytes: number; readonly maxBytes: number;
};
/** One export of a list. */
export type NbdListed = { readonly name: string; readonly description: string };

/** Replies to one option before we stop believing that there is an end, and the longest of them. */
const REPLIES_MAX = 10_000, REPLY_BYTES_MAX = 64 << 10, LIST_BYTES_MAX = 4 << 20;

/** The handshake, on a fresh connection. Wrap a step's errors with `stop` on timeout. */
export class NbdHandshake {
  readonly reader: ByteReader;
  readonly #connection: ByteConnection;
  readonly #name: string;
  #hasNoZeroes = false;
  constructor(connection: ByteConnection, name: string) {
    this.#connection = connection;
    this.#name = name;
    this.reader = new ByteReader(connection);
  }
  #lie(what: string): DiskError {
    return new DiskError("io", `${this.#name}: the server breaks the protocol: ${what}`);
  }

  /** The greeting, both ways. */
  async greet(): Promise<void> {
    const v = viewOf(await this.reader.exactly(16)), magic = v.getBigUint64(0), style = v.getBigUint64(8);
    if (magic !== NBDMAGIC) throw this.#lie(`it greets with ${magic.toString(16)}, which is not NBD`);
    if (style === CLISERV_MAGIC) throw new DiskError("unsupported", `${this.#name}: the server speaks the old style, which has no export names`);
    if (style !== IHAVEOPT) throw this.#lie(`it greets in style ${style.toString(16)}`);
    const flags = viewOf(await this.reader.exactly(2)).getUint16(0);
    if (!(flags & FLAG.FIXED_NEWSTYLE)) throw new DiskError("unsupported", `${this.#name}: the server speaks newstyle without "fixed"`);
    this.#hasNoZeroes = (flags & FLAG.NO_ZEROES) !== 0;
    await this.#connection.write(pack([flags & (FLAG.FIXED_NEWSTYLE | FLAG.NO_ZEROES), 4]));
  }

  /** Send an option, give each reply before the last to `each`. @returns the last one's type, and its text where it is an error */
  async #option(option: number, body: Uint8Array, each: (type: number, data: Uint8Array) => void): Promise<{ type: number; text: string }> {
    await this.#connection.write(pack([IHAVEOPT, 8], [option, 4], [body.length, 4], body));
    for (let n = 0; n < REPLIES_MAX; n++) {
      const v = viewOf(await this.reader.exactly(20)), type = v.getUint32(12), lengthBytes = v.getUint32(16);
      if (v.getBigUint64(0) !== REPLY_MAGIC) throw this.#lie(`an option's reply begins with ${v.getBigUint64(0).toString(16)}`);
      if (v.getUint32(8) !== option) throw this.#lie(`it answers option ${v.getUint32(8)} where ${option} was asked`);
      if (lengthBytes > REPLY_BYTES_MAX) throw this.#lie(`an option's reply is ${lengthBytes} bytes long`);
      const data = await this.reader.exactly(lengthBytes);
      if (type === REP.ACK || type >= REP.ERR) return { type, text: type >= REP.ERR ? new TextDecoder().decode(data.subarray(0, 200)) : "" };
      each(type, data);
    }
    throw this.#lie(`option ${option} has more than ${REPLIES_MAX} replies`);
  }
  #refused(type: number, text: string, exportName: string): DiskError {
    const said = text ? ` ("${text.trim()}")` : "";
    if (type === REP.ERR_UNKNOWN) return new DiskError("missing", `${this.#name}: the server has no export "${exportName}"${said}`);
    if (type === REP.ERR_POLICY) return new DiskError("denied", `${this.#name}: the server's policy refuses export "${exportName}"${said}`);
    if (type === REP.ERR_TLS_REQD) return new DiskError("unsupported", `${this.#name}: the server wants TLS${said}`);
    if (type === REP.ERR_SHUTDOWN) return new DiskError("gone", `${this.#name}: the server is shutting down${said}`);
    return new DiskError("io", `${this.#name}: the server refuses export "${exportName}" with reply ${type.toString(16)}${said}`);
  }

  /** Names of the exports. @throws DiskError `denied`, `unsupported` when the server does not tell */
  async list(): Promise<NbdListed[]> {
    const found: NbdListed[] = [], decoder = new TextDecoder();
    let nrBytes = 0;
    const { type, text } = await this.#option(OPT.LIST, new Uint8Array(0), (kind, data) => {
      if (kind !== REP.SERVER) return;
      const n = data.length >= 4 ? viewOf(data).getUint32(0) : -1;
      if (n < 0 || n > data.length - 4 || n > NAME_BYTES_MAX) throw this.#lie("a listed name is longer than its reply");
      if ((nrBytes += data.length) > LIST_BYTES_MAX) throw this.#lie(`its list of exports is longer than ${LIST_BYTES_MAX} bytes`);
      found.push({ name: decoder.decode(data.subarray(4, 4 + n)), description: decoder.decode(data.subarray(4 + n)) });
    });
    if (type === REP.ERR_UNSUP) throw new DiskError("unsupported", `${this.#name}: the server does not list its exports`);
    if (type !== REP.ACK) throw this.#refused(type, text, "");
    return found;
  }
  /** End the handshake without an export. */
  async abort(): Promise<void> {
    await this.#option(OPT.ABORT, new Uint8Array(0), () => {}).catch(() => {});
  }

  /** Choose an export: from here on the connection is in transmission. */
  async go(exportName: string): Promise<NbdExportInfo> {
    const name = new TextEncoder().encode(exportName);
    const structured = (await this.#option(OPT.STRUCTURED_REPLY, new Uint8Array(0), () => {})).type === REP.ACK;
    let sizeBytes = -1n, flags = 0, minBytes: number = SECTOR_BYTES, preferredBytes = 4096, maxBytes = PAYLOAD_BYTES;
    const { type, text } = await this.#option(OPT.GO, pack([name.length, 4], name, [1, 2], [INFO.BLOCK_SIZE, 2]), (kind, data) => {
      if (kind !== REP.INFO) return;
      const v = viewOf(data), what = data.length >= 2 ? v.getUint16(0) : -1;
      if (what === INFO.EXPORT && data.length === 12) { sizeBytes = v.getBigUint64(2); flags = v.getUint16(10); }
      else if (what === INFO.BLOCK_SIZE && data.length === 14) { minBytes = v.getUint32(2); preferredBytes = v.getUint32(6); maxBytes = v.getUint32(10); }
      else if (what < 0 || what === INFO.EXPORT || what === INFO.BLOCK_SIZE) throw this.#lie(`an information of kind ${what} is ${data.length} bytes long`);
    });
    if (type === REP.ERR_UNSUP || type === REP.ERR_INVALID) {
      // A server from before GO: EXPORT_NAME has no reply but the export, or a closed connection.
      await this.#connection.write(pack([IHAVEOPT, 8], [OPT.EXPORT_NAME, 4], [name.length, 4], name));
      let v: DataView;
      try { v = viewOf(await this.reader.exactly(10)); } catch (e) { throw new DiskError("missing", `${this.#name}: the server hung up when asked for export "${exportName}"`, { cause: e }); }
      sizeBytes = v.getBigUint64(0);
      flags = v.getUint16(8);
      if (!this.#hasNoZeroes) await this.reader.skip(124);
    } else if (type !== REP.ACK) throw this.#refused(type, text, exportName);
    if (sizeBytes < 0n) throw this.#lie("it accepts the export and does not say its size");
    if (sizeBytes > BigInt(Number.MAX_SAFE_INTEGER)) throw this.#lie(`the export has ${sizeBytes} bytes`);
    if (minBytes < 1 || minBytes > 65536 || (minBytes & (minBytes - 1)) !== 0) throw this.#lie(`its least block is ${minBytes} bytes`);
    if (maxBytes < Math.max(minBytes, SECTOR_BYTES)) throw this.#lie(`its greatest payload is ${maxBytes} bytes`);
    if (!(flags & TFLAG.HAS_FLAGS)) flags = 0;
    return { sizeBytes: Number(sizeBytes), flags, structured, minBytes, preferredBytes, maxBytes };
  }
}
