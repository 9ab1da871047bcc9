/**
 * 9P2000.L on the wire: what messages are called, and how their fields are read and written. All numbers are little-endian; a text is its length in two bytes and its bytes, which are
 * nobody's business here: names are strings with a character a byte.
 * @see Linux's include/net/9p/9p.h and net/9p/protocol.c
 */
import { EINVAL } from "../../abi/errno.ts";
import { FolderError, type Stat } from "./folder.ts";

/** Types of requests; a reply's is one more. */
export const T = {
  lerror: 6, statfs: 8, lopen: 12, lcreate: 14, symlink: 16, mknod: 18, rename: 20, readlink: 22, getattr: 24, setattr: 26, xattrwalk: 30, xattrcreate: 32, readdir: 40, fsync: 50,
  lock: 52, getlock: 54, link: 70, mkdir: 72, renameat: 74, unlinkat: 76, version: 100, auth: 102, attach: 104, flush: 108, walk: 110, read: 116, write: 118, clunk: 120, remove: 122,
} as const;
/** type[1] of the reply to a request that failed */
export const RLERROR = T.lerror + 1;
/** size[4] type[1] tag[2], before every message; and the count[4] behind it before the bytes of a read or a listing */
export const HEADER_BYTES = 7, DATA_AT = HEADER_BYTES + 4;
/** fid[4] offset[8] count[4] before the bytes of a write */
export const WRITE_AT = HEADER_BYTES + 16;
/** No tag: of Tversion. No fid. No user. */
export const NOTAG = 0xffff, NOFID = 0xffffffff;
/** The dialect that is spoken here. */
export const VERSION = "9P2000.L";
/** Names of one Twalk. */
export const MAX_WALK = 16;
/** Tsetattr's valid */
export const SETATTR = { MODE: 1, UID: 2, GID: 4, SIZE: 8, ATIME: 0x10, MTIME: 0x20, CTIME: 0x40, ATIME_SET: 0x80, MTIME_SET: 0x100 } as const;
/** Tgetattr's P9_GETATTR_BASIC and btime: what is answered */
export const GETATTR_BASIC = 0x7ffn, GETATTR_BTIME = 0x800n;
/** Tlopen's flags: as x86 Linux has them */
export const OPEN = { ACCMODE: 3, RDONLY: 0, WRONLY: 1, RDWR: 2, CREAT: 0o100, EXCL: 0o200, TRUNC: 0o1000, APPEND: 0o2000, DSYNC: 0o10000, DIRECTORY: 0o200000, SYNC: 0o4010000 } as const;
/** qid.type */
export const QT = { DIR: 0x80, SYMLINK: 2, FILE: 0 } as const;
/** Tunlinkat's flag */
export const AT_REMOVEDIR = 0x200;
/** Rstatfs' type, whatever lies below */
export const V9FS_MAGIC = 0x01021997;
/** Tlock's type, and Rlock's status */
export const LOCK = { UNLCK: 2, SUCCESS: 0 } as const;
/** S_IFMT and what it masks out */
export const S_IF = { MT: 0o170000, DIR: 0o040000, REG: 0o100000, LNK: 0o120000 } as const;
export const QID_BYTES = 13;

/** Reads a request's fields one after the other. @throws FolderError where there are no more bytes: a message is as long as it says, and what is in it may say anything */
export class Fields {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  at = HEADER_BYTES;
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  #next(sizeBytes: number): number {
    if (sizeBytes > this.bytes.length - this.at) throw new FolderError(EINVAL);
    const { at } = this;
    this.at += sizeBytes;
    return at;
  }
  u8(): number { return this.#view.getUint8(this.#next(1)); }
  u16(): number { return this.#view.getUint16(this.#next(2), true); }
  u32(): number { return this.#view.getUint32(this.#next(4), true); }
  u64(): bigint { return this.#view.getBigUint64(this.#next(8), true); }
  text(): string {
    const n = this.u16(), at = this.#next(n);
    let text = "";
    for (let i = at; i < at + n; i += 4096) text += String.fromCharCode(...this.bytes.subarray(i, Math.min(i + 4096, at + n)));
    return text;
  }
  /** The next bytes, where they lie. */
  data(n: number): Uint8Array<ArrayBuffer> { const at = this.#next(n); return this.bytes.subarray(at, at + n); }
}

/** Writes a reply. Its room is known to be enough: what is variable in it was bounded before. */
export class Reply {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  at = HEADER_BYTES;
  /** @param room to write into, or how much of it */
  constructor(room: number | Uint8Array<ArrayBuffer>) {
    this.bytes = typeof room === "number" ? new Uint8Array(room) : room;
    this.#view = new DataView(this.bytes.buffer, this.bytes.byteOffset);
  }
  u8(n: number): this { this.#view.setUint8(this.at, n); this.at += 1; return this; }
  u16(n: number): this { this.#view.setUint16(this.at, n, true); this.at += 2; return this; }
  u32(n: number): this { this.#view.setUint32(this.at, n, true); this.at += 4; return this; }
  u64(n: bigint): this { this.#view.setBigUint64(this.at, BigInt.asUintN(64, n), true); this.at += 8; return this; }
  text(s: string): this {
    this.u16(s.length);
    for (let i = 0; i < s.length; i++) this.bytes[this.at + i] = s.charCodeAt(i);
    this.at += s.length;
    return this;
  }
  /** type[1] version[4] path[8]: another path is another file, another version other bytes in it */
  qid(s: Stat): this {
    const kind = s.mode & S_IF.MT;
    return this.u8(kind === S_IF.DIR ? QT.DIR : kind === S_IF.LNK ? QT.SYMLINK : QT.FILE).u32(Number(BigInt.asUintN(32, s.mtimeNs ^ (s.sizeBytes << 8n)))).u64(s.id);
  }
  /** Put the header before what was written. @returns the message */
  end(type: number, tag: number): Uint8Array<ArrayBuffer> {
    const size = this.at;
    this.at = 0;
    this.u32(size).u8(type).u16(tag);
    return size === this.bytes.length ? this.bytes : this.bytes.subarray(0, size);
  }
}
