/** NBD's numbers and headers, all big-endian: the NetworkBlockDevice project's doc/proto.md. Its names, without NBD_. */
import { DiskError, type DiskFault } from "../disk.ts";

/** First eight bytes of a server, of the fixed newstyle, and of the style before it. */
export const NBDMAGIC = 0x4e42444d41474943n, IHAVEOPT = 0x49484156454f5054n, CLISERV_MAGIC = 0x0000420281861253n;
/** Head of an option's reply. */
export const REPLY_MAGIC = 0x0003e889045565a9n;
/** Heads of request, simple reply, structured reply chunk. */
export const REQUEST_MAGIC = 0x25609513, SIMPLE_REPLY_MAGIC = 0x67446698, STRUCTURED_REPLY_MAGIC = 0x668e33ef;
/** Handshake flags; the client's have the same bits. */
export const FLAG = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;
/** Options. */
export const OPT = { EXPORT_NAME: 1, ABORT: 2, LIST: 3, STARTTLS: 5, INFO: 6, GO: 7, STRUCTURED_REPLY: 8 } as const;
/** Types of option replies. */
export const REP = { ACK: 1, SERVER: 2, INFO: 3, ERR: 0x80000000, ERR_UNSUP: 0x80000001, ERR_POLICY: 0x80000002, ERR_INVALID: 0x80000003, ERR_PLATFORM: 0x80000004,
  ERR_TLS_REQD: 0x80000005, ERR_UNKNOWN: 0x80000006, ERR_SHUTDOWN: 0x80000007, ERR_BLOCK_SIZE_REQD: 0x80000008, ERR_TOO_BIG: 0x80000009 } as const;
/** Kinds of information in REP.INFO. */
export const INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;
/** Transmission flags. */
export const TFLAG = { HAS_FLAGS: 1, READ_ONLY: 2, SEND_FLUSH: 4, SEND_FUA: 8, ROTATIONAL: 16, SEND_TRIM: 32, SEND_WRITE_ZEROES: 64, SEND_DF: 128, CAN_MULTI_CONN: 256 } as const;
/** Commands. */
export const CMD = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, WRITE_ZEROES: 6, BLOCK_STATUS: 7 } as const;
/** Flags of a command. */
export const CMD_FLAG = { FUA: 1, NO_HOLE: 2, DF: 4 } as const;
/** Flag and types of structured reply chunks; bit 15 marks errors. */
export const CHUNK = { FLAG_DONE: 1, NONE: 0, OFFSET_DATA: 1, OFFSET_HOLE: 2, ERROR: 0x8001, ERROR_OFFSET: 0x8002, ERROR_BIT: 0x8000 } as const;
/** Errors, Linux's numbers. */
export const ERR = { EPERM: 1, EIO: 5, ENOMEM: 12, EINVAL: 22, ENOSPC: 28, EOVERFLOW: 75, ENOTSUP: 95, ESHUTDOWN: 108 } as const;

/** An export's or option's name is at most this long; a request's payload, where the server did not say. */
export const NAME_BYTES_MAX = 4096, PAYLOAD_BYTES = 32 << 20;

/** A reply's error as a fault. A server that shuts down is one that is gone. */
export const faultOf = (error: number): DiskFault =>
  error === ERR.EPERM ? "readonly" : error === ERR.ENOSPC ? "nospace" : error === ERR.ENOTSUP ? "unsupported" : error === ERR.ESHUTDOWN ? "gone" : "io";
/** A fault as a reply's error. */
export function errorOf(e: unknown): number {
  if (!(e instanceof DiskError)) return ERR.EIO;
  switch (e.fault) {
    case "readonly": case "denied": return ERR.EPERM;
    case "nospace": return ERR.ENOSPC;
    case "range": return ERR.EINVAL;
    case "unsupported": return ERR.ENOTSUP;
    case "closed": return ERR.ESHUTDOWN;
    default: return ERR.EIO;
  }
}
/** The name of an error, for sentences. */
export const errorName = (error: number): string => Object.entries(ERR).find(([, n]) => n === error)?.[0] ?? `error ${error}`;

/** Concatenate big-endian numbers, strings and bytes: [value, size] pairs are numbers. */
export function pack(...parts: readonly (readonly [value: number | bigint, size: 1 | 2 | 4 | 8] | Uint8Array | string)[]): Uint8Array<ArrayBuffer> {
  const pieces = parts.map((p) => (typeof p === "string" ? new TextEncoder().encode(p) : p));
  const bytes = new Uint8Array(pieces.reduce((n, p) => n + (p instanceof Uint8Array ? p.length : p[1]), 0)), view = new DataView(bytes.buffer);
  let at = 0;
  for (const p of pieces) {
    if (p instanceof Uint8Array) { bytes.set(p, at); at += p.length; continue; }
    const [value, size] = p;
    if (size === 8) view.setBigUint64(at, BigInt(value));
    else if (size === 4) view.setUint32(at, Number(value));
    else if (size === 2) view.setUint16(at, Number(value));
    else view.setUint8(at, Number(value));
    at += size;
  }
  return bytes;
}
/** A view over exactly these bytes. */
export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
