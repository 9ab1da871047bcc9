/**
 * A server of 9P2000.L over a tree of files, for one client. What the client says is a message's bytes, copied out of its reach; every number in it is checked before it is an index, a length
 * or a count. It may ask anything in any order: what it gets is an error of Linux's, or what is its own.
 * @see the 9P2000.L protocol as diod and Linux's fs/9p speak it
 */
import { EBADF, EBUSY, EINVAL, EIO, EISDIR, EMSGSIZE, ENAMETOOLONG, ENFILE, ENOENT, ENOTDIR, EOPNOTSUPP, EPERM, EROFS } from "../../abi/errno.ts";
import { Buffers } from "../block/buffers.ts";
import { type Change, type Folder, FolderError, type FolderNode, type Opening, NAME_BYTES, type OpenFile, type Stat } from "./folder.ts";
import { AT_REMOVEDIR, DATA_AT, Fields, GETATTR_BASIC, GETATTR_BTIME, HEADER_BYTES, LOCK, MAX_WALK, NOFID, NOTAG, OPEN, QID_BYTES, Reply, RLERROR, S_IF, SETATTR, T, V9FS_MAGIC, VERSION, WRITE_AT } from "./protocol.ts";

/** Linux's number that Xen's errno.h has not. */
const EFBIG = 27;
/** Places a client may hold at once; Linux with cache=loose holds one for each name it knows. */
const MAX_FIDS = 32768;
const NAME_MAX = 255, PATH_MAX = 4096;
/** Least and most bytes of a message: a listing needs room for an entry, and what is on its way is memory of ours. */
export const LEAST_MSIZE = 4096, MOST_MSIZE = 1 << 20;
/** What a message may have before it has been agreed upon. */
const FIRST_MSIZE = 8192;
/** Memory for the names of one folder, and of all listings that are kept between two Treaddir. */
const MAX_LISTED_BYTES = 64 << 20;
/** One entry of a listing without its name: qid offset type and the name's length */
const ENTRY_BYTES = QID_BYTES + 8 + 1 + 2;
/** Messages from here on come from buffers that are used again: to make one of 512 KiB costs as much as to read it. */
const POOLED_BYTES = 4096;
/** A reply whose fields have their sizes by kind. */
const SMALL_REPLY = 256;

type Fid = { node: FolderNode; readonly uid: number; file: OpenFile | null; isOpening: boolean; isGone: boolean; names: readonly string[] | null };
/** What a request came to, for who counts. */
export type ServerCounters = { requests: number; errors: number; readBytes: number; writtenBytes: number };
/** A request that is on its way, from its taking to when its reply is where the client sees it. */
type Pending = { readonly told: Promise<void>; readonly settle: () => void };

const isName = (name: string): boolean => name !== "" && name !== "." && name !== ".." && !/[/\0]/.test(name);
/** @throws FolderError where it is no name of one thing in a folder */
function checked(name: string): string {
  if (name.length > NAME_MAX) throw new FolderError(ENAMETOOLONG);
  if (!isName(name)) throw new FolderError(name === "" ? ENOENT : EINVAL);
  return name;
}
const costOf = (names: readonly string[] | null): number => names?.reduce((sum, name) => sum + NAME_BYTES + name.length, 0) ?? 0;
/** A place in a file. @throws FolderError for one beyond all files */
function offsetOf(n: bigint): number {
  if (n > BigInt(Number.MAX_SAFE_INTEGER - 2 ** 32)) throw new FolderError(EFBIG);
  return Number(n);
}
const NS = 1_000_000_000n;

export type ServerOptions = { readonly folder: Folder; readonly isReadonly: boolean; /** the most that a message may have, reply or request */ readonly mostBytes: number; /** an error of ours */ readonly log: (sentence: string) => void; readonly counters: ServerCounters };

export class Server {
  readonly #o: ServerOptions;
  readonly #fids = new Map<number, Fid>();
  /** fids that a Twalk or Tattach is making */
  readonly #coming = new Set<number>();
  readonly #pending = new Map<number, Pending>();
  readonly #buffers = new Buffers();
  #msize = 0;
  #listedBytes = 0;
  /** one folder is listed at a time: a listing may be large */
  #listing: Promise<unknown> = Promise.resolve();
  /** what is on its way and belongs to a session before this number's gets no reply */
  #session = 0;
  #isClosed = false;

  constructor(options: ServerOptions) { this.#o = options; }
  get nrFids(): number { return this.#fids.size; }
  get nrPending(): number { return this.#pending.size; }
  /** Bytes a message may have now. */
  get msize(): number { return this.#msize || FIRST_MSIZE; }
  /** Is something of the tree in the client's hand: is it mounted? */
  get isAttached(): boolean { return this.#fids.size + this.#coming.size > 0; }
  describe(): Record<string, unknown> { return { msize: this.#msize, nrFids: this.#fids.size, nrOpen: [...this.#fids.values()].filter((f) => f.file).length, nrPending: this.#pending.size }; }

  /** How many bytes of memory a request may need beside its own, for who decides whether to take it. @param message its first bytes */
  static replyBytes(message: Uint8Array, msize: number): number {
    const view = new DataView(message.buffer, message.byteOffset, message.length), type = message[4];
    return (type === T.read || type === T.readdir) && message.length >= WRITE_AT ? Math.min(view.getUint32(WRITE_AT - 4, true) + DATA_AT, msize) : SMALL_REPLY;
  }

  /** Room for a message that is to be taken. */
  room(sizeBytes: number): Uint8Array<ArrayBuffer> { return sizeBytes < POOLED_BYTES ? new Uint8Array(sizeBytes) : this.#buffers.take(sizeBytes); }
  #done(message: Uint8Array<ArrayBuffer>): void { if (message.buffer.byteLength >= POOLED_BYTES) this.#buffers.give(message); }

  /**
   * Do what a message asks.
   * @param message all of it, no longer than `msize`, in `room`; it is the server's from here on
   * @param put called once, with what is to be sent, unless nobody waits for it any more; it resolves when that is where the client sees it, and its bytes are the server's again
   * @param over called when the request is no more
   * @returns null, or how the client broke the protocol: nothing it says can be trusted to mean anything
   */
  take(message: Uint8Array<ArrayBuffer>, put: (reply: Uint8Array<ArrayBuffer>) => Promise<void>, over: () => void = () => {}): string | null {
    const view = new DataView(message.buffer, message.byteOffset, message.length), type = view.getUint8(4), tag = view.getUint16(5, true);
    if (this.#pending.has(tag)) return `tag ${tag} is given to a second request while the first is under way`;
    const { promise: told, resolve: settle } = Promise.withResolvers<void>(), mine = { told, settle }, session = type === T.version ? ++this.#session : this.#session, others = type === T.version ? [...this.#pending.values()] : [];
    this.#pending.set(tag, mine);
    this.#o.counters.requests++;
    void (async () => {
      try {
        const reply = await this.#answer(type, tag, message, others);
        if (session === this.#session && !this.#isClosed) await put(reply);
        this.#done(reply);
      } finally {
        this.#done(message);
        this.#pending.delete(tag);
        settle();
        over();
      }
    })();
    return null;
  }
  async #answer(type: number, tag: number, message: Uint8Array<ArrayBuffer>, others: readonly Pending[]): Promise<Uint8Array<ArrayBuffer>> {
    try {
      const f = new Fields(message);
      if (type === T.version) {
        if (tag !== NOTAG) throw new FolderError(EINVAL);
        return (await this.#version(f, others)).end(T.version + 1, tag);
      }
      if (this.#msize === 0) throw new FolderError(EINVAL);
      return (await this.#do(type, f, tag)).end(type + 1, tag);
    } catch (e) {
      this.#o.counters.errors++;
      if (!(e instanceof FolderError)) this.#o.log(`a request of type ${type} failed: ${(e as Error).message}`);
      return new Reply(SMALL_REPLY).u32(e instanceof FolderError ? e.errno : EIO).end(RLERROR, tag);
    }
  }

  /** A new session: all of the old one ends first. */
  async #version(f: Fields, others: readonly Pending[]): Promise<Reply> {
    const msize = f.u32(), version = f.text();
    await Promise.all(others.map(({ told }) => told));
    this.#clear();
    this.#msize = 0;
    if (msize < LEAST_MSIZE) throw new FolderError(EMSGSIZE);
    const isOurs = version === VERSION, agreed = Math.min(msize, this.#o.mostBytes, MOST_MSIZE);
    if (isOurs) this.#msize = agreed;
    return new Reply(SMALL_REPLY).u32(agreed).text(isOurs ? VERSION : "unknown");
  }
  #clear(): void {
    for (const fid of [...this.#fids.keys()]) this.#clunk(fid);
  }
  /** The client is gone. @returns when nothing is on its way any more */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#clear();
    await Promise.all([...this.#pending.values()].map(({ told }) => told));
    this.#clear();        // what came to be meanwhile
  }

  #fid(number: number): Fid {
    const fid = this.#fids.get(number);
    if (!fid) throw new FolderError(EBADF);
    return fid;
  }
  #clunk(number: number): void {
    const fid = this.#fid(number);
    this.#fids.delete(number);
    this.#setNames(fid, null);
    fid.isGone = true;
    fid.file?.close();
    fid.file = null;
    fid.node.drop();
  }
  #setNames(fid: Fid, names: readonly string[] | null): void {
    this.#listedBytes += costOf(names) - costOf(fid.names);
    fid.names = names;
  }
  /** Make a fid of what `reach` finds. The number is taken from the beginning on: two requests cannot both have it. */
  async #newFid(number: number, uid: number, reach: () => Promise<FolderNode | null>): Promise<void> {
    if (number === NOFID || this.#fids.has(number) || this.#coming.has(number)) throw new FolderError(EBADF);
    if (this.#fids.size + this.#coming.size >= MAX_FIDS) throw new FolderError(ENFILE);
    this.#coming.add(number);
    const session = this.#session;
    try {
      const node = await reach();
      if (!node) return;
      if (session !== this.#session || this.#isClosed) {
        node.drop();
        throw new FolderError(EBADF);
      }
      this.#fids.set(number, { node, uid, file: null, isOpening: false, isGone: false, names: null });
    } finally { this.#coming.delete(number); }
  }
  #mayWrite(): void { if (this.#o.isReadonly) throw new FolderError(EROFS); }

  #do(type: number, f: Fields, tag: number): Promise<Reply> | Reply {
    switch (type) {
      case T.attach: return this.#attach(f);
      case T.walk: return this.#walk(f);
      case T.clunk: this.#clunk(f.u32()); return new Reply(SMALL_REPLY);
      case T.flush: return this.#flush(f, tag);
      case T.getattr: return this.#getattr(f);
      case T.read: return this.#read(f);
      case T.write: return this.#write(f);
      case T.lopen: return this.#lopen(f);
      case T.lcreate: return this.#lcreate(f);
      case T.readdir: return this.#readdir(f);
      case T.setattr: return this.#setattr(f);
      case T.readlink: return this.#readlink(f);
      case T.statfs: return this.#statfs(f);
      case T.fsync: return this.#fsync(f);
      case T.mkdir: return this.#made(f, async (node, name, uid) => node.makeFolder(name, f.u32(), { uid, gid: f.u32() }));
      case T.symlink: return this.#made(f, async (node, name, uid) => {
        const target = f.text();
        if (target === "" || target.includes("\0")) throw new FolderError(ENOENT);
        if (target.length >= PATH_MAX) throw new FolderError(ENAMETOOLONG);
        return node.makeLink(name, target, { uid, gid: f.u32() });
      });
      case T.mknod: return this.#made(f, async (node, name, uid) => {
        const mode = f.u32(), [, , gid] = [f.u32(), f.u32(), f.u32()];
        if ((mode & S_IF.MT) !== S_IF.REG) throw new FolderError(EPERM);        // a device of the host is nobody's to name
        const made = await node.create(name, { reads: false, writes: true, truncates: false, appends: false, syncs: "no" }, true, mode & ~S_IF.MT, { uid, gid: gid! });
        made.file.close();
        made.node.drop();
        return made.stat;
      });
      case T.link: return this.#link(f);
      case T.rename: return this.#rename(f);
      case T.renameat: return this.#renameat(f);
      case T.unlinkat: return this.#unlinkat(f);
      case T.remove: return this.#remove(f);
      case T.lock: return this.#lock(f);
      case T.getlock: return this.#getlock(f);
      default: throw new FolderError(EOPNOTSUPP);        // auth, xattrwalk and xattrcreate among them
    }
  }

  async #attach(f: Fields): Promise<Reply> {
    const number = f.u32(), afid = f.u32();
    f.text();
    const aname = f.text(), uid = f.u32();
    if (afid !== NOFID) throw new FolderError(EINVAL);
    if (aname !== "" && aname !== "/") throw new FolderError(ENOENT);
    const { root } = this.#o.folder;
    let stat: Stat | null = null;
    await this.#newFid(number, uid, async () => {
      stat = await root.stat(null);
      return root.keep();
    });
    return new Reply(SMALL_REPLY).qid(stat!);
  }
  async #walk(f: Fields): Promise<Reply> {
    const from = this.#fid(f.u32()), number = f.u32(), nr = f.u16();
    if (nr > MAX_WALK) throw new FolderError(EINVAL);
    const names = Array.from({ length: nr }, () => f.text()), stats: Stat[] = [];
    /** to the last name, or as far as it goes: nobody gets a fid then, but the first name must be there */
    const reach = async (): Promise<FolderNode | null> => {
      let node = from.node.keep();
      try {
        for (const name of names) {
          const next = await node.walk(name === ".." ? name : checked(name));
          node.drop();
          node = next.node;
          stats.push(next.stat);
        }
        return node;
      } catch (e) {
        node.drop();
        if (stats.length === 0 || !(e instanceof FolderError)) throw e;
        return null;
      }
    };
    if (this.#fids.get(number) !== from) await this.#newFid(number, from.uid, reach);
    else {
      if (from.file || from.isOpening) throw new FolderError(EBUSY);
      const node = await reach();
      if (node && (from.isGone || from.file || from.isOpening)) {
        node.drop();
        throw new FolderError(EBADF);
      }
      if (node) {
        from.node.drop();
        from.node = node;
      }
    }
    const reply = new Reply(SMALL_REPLY).u16(stats.length);
    for (const stat of stats) reply.qid(stat);
    return reply;
  }
  /** Nothing is broken off: its reply goes before this one's. */
  async #flush(f: Fields, tag: number): Promise<Reply> {
    const old = f.u16();
    if (old !== tag) await this.#pending.get(old)?.told;
    return new Reply(SMALL_REPLY);
  }

  async #getattr(f: Fields): Promise<Reply> {
    const { node, file } = this.#fid(f.u32()), mask = f.u64(), s = await node.stat(file);
    const reply = new Reply(SMALL_REPLY).u64((GETATTR_BASIC | GETATTR_BTIME) & (mask | GETATTR_BASIC)).qid(s).u32(s.mode).u32(s.uid).u32(s.gid).u64(s.nrLinks).u64(s.rdev).u64(s.sizeBytes).u64(BigInt(this.#ioBytes)).u64(s.nrBlocks);
    for (const t of [s.atimeNs, s.mtimeNs, s.ctimeNs, s.birthNs]) {
      const ns = ((t % NS) + NS) % NS;
      reply.u64((t - ns) / NS).u64(ns);
    }
    return reply.u64(0n).u64(0n);
  }
  /** What a client had better read and write at once: whole pages that fit into a message. */
  get #ioBytes(): number { return Math.max(4096, (this.msize - WRITE_AT - 1) & ~4095); }

  async #lopen(f: Fields): Promise<Reply> {
    const fid = this.#fid(f.u32()), how = this.#openingOf(f.u32());
    return this.#opens(fid, async () => {
      const file = await fid.node.open(how), stat = await fid.node.stat(file).catch((e: unknown) => { file.close(); throw e; });
      return { file, stat };
    });
  }
  async #lcreate(f: Fields): Promise<Reply> {
    const fid = this.#fid(f.u32()), name = checked(f.text()), flags = f.u32(), mode = f.u32(), gid = f.u32(), how = this.#openingOf(flags);
    this.#mayWrite();
    return this.#opens(fid, () => fid.node.create(name, how, (flags & OPEN.EXCL) !== 0, mode, { uid: fid.uid, gid }));
  }
  #openingOf(flags: number): Opening {
    const mode = flags & OPEN.ACCMODE, writes = mode === OPEN.WRONLY || mode === OPEN.RDWR, truncates = (flags & OPEN.TRUNC) !== 0;
    if (mode === OPEN.ACCMODE) throw new FolderError(EINVAL);
    if (writes || truncates) this.#mayWrite();
    return { reads: mode !== OPEN.WRONLY, writes, truncates, appends: (flags & OPEN.APPEND) !== 0, syncs: (flags & OPEN.SYNC) === OPEN.SYNC ? "all" : (flags & OPEN.DSYNC) ? "data" : "no" };
  }
  /** Have a fid opened, once: on the way it is nobody else's to open. */
  async #opens(fid: Fid, open: () => Promise<{ readonly file: OpenFile; readonly stat: Stat; readonly node?: FolderNode }>): Promise<Reply> {
    if (fid.file || fid.isOpening) throw new FolderError(EBADF);
    fid.isOpening = true;
    try {
      const { file, stat, node } = await open();
      if (fid.isGone) {        // clunked meanwhile
        file.close();
        node?.drop();
        throw new FolderError(EBADF);
      }
      fid.file = file;
      if (node) {
        fid.node.drop();
        fid.node = node;
      }
      return new Reply(SMALL_REPLY).qid(stat).u32(0);        // iounit 0: as much as a message holds
    } finally { fid.isOpening = false; }
  }

  async #read(f: Fields): Promise<Reply> {
    const { node, file } = this.#fid(f.u32()), at = f.u64(), count = Math.min(f.u32(), this.msize - DATA_AT);
    if (!file) throw new FolderError(EBADF);
    if (node.kind === "folder") throw new FolderError(EISDIR);
    const reply = new Reply(this.room(DATA_AT + count));
    const n = at > BigInt(Number.MAX_SAFE_INTEGER - 2 ** 32) ? 0 : await file.read(Number(at), reply.bytes.subarray(DATA_AT));        // into the message: it is copied into the ring and nowhere else
    this.#o.counters.readBytes += n;
    reply.u32(n).at += n;
    return reply;
  }
  async #write(f: Fields): Promise<Reply> {
    const { node, file } = this.#fid(f.u32()), at = offsetOf(f.u64()), data = f.data(f.u32());
    if (!file) throw new FolderError(EBADF);
    if (node.kind === "folder") throw new FolderError(EISDIR);
    this.#mayWrite();
    const n = await file.write(at, data);
    this.#o.counters.writtenBytes += n;
    return new Reply(SMALL_REPLY).u32(n);
  }

  /**
   * A listing is what the names were when it was begun, so that none is told twice or left out when others come and go; an offset is the number of the next one. It is let go of at its
   * end, and when too many are kept: then the names are asked for anew.
   */
  async #readdir(f: Fields): Promise<Reply> {
    const fid = this.#fid(f.u32()), offset = f.u64(), count = Math.min(f.u32(), this.msize - DATA_AT), { node, file } = fid;
    if (!file) throw new FolderError(EBADF);
    if (node.kind !== "folder") throw new FolderError(ENOTDIR);
    let { names } = fid;
    if (offset === 0n || !names) {
      const listing = this.#listing.then(() => node.list(MAX_LISTED_BYTES));
      this.#listing = listing.catch(() => {});
      names = [".", "..", ...await listing];
      if (!fid.isGone) this.#setNames(fid, names);
      for (const other of this.#fids.values()) {
        if (this.#listedBytes <= MAX_LISTED_BYTES) break;
        if (other !== fid) this.#setNames(other, null);
      }
    }
    let next = Number(offset < BigInt(names.length) ? offset : BigInt(names.length));
    const reply = new Reply(this.room(DATA_AT + count));
    reply.at = DATA_AT;
    for (let isFull = false; !isFull && next < names.length;) {
      const batch = names.slice(next, next + 256), dots = batch.filter((name) => name === "." || name === "..").length, stats = await node.statAll(batch.slice(dots));
      const ofDots = dots === 0 ? [] : await Promise.all(batch.slice(0, dots).map((name) => (name === "." ? node.stat(null) : this.#above(node))));
      for (const [i, name] of batch.entries()) {
        const stat = i < dots ? ofDots[i]! : stats[i - dots]!;
        if (reply.at + ENTRY_BYTES + name.length > reply.bytes.length) { isFull = true; break; }
        next++;
        if (stat) reply.qid(stat).u64(BigInt(next)).u8((stat.mode & S_IF.MT) >>> 12).text(name);        // DT_* is so
      }
    }
    const end = reply.at;
    if (end === DATA_AT && next < names.length) throw new FolderError(EINVAL);        // not one fits
    if (end === DATA_AT && !fid.isGone) this.#setNames(fid, null);
    reply.at = HEADER_BYTES;
    reply.u32(end - DATA_AT).at = end;
    return reply;
  }
  async #above(node: FolderNode): Promise<Stat> {
    const up = await node.walk("..");
    up.node.drop();
    return up.stat;
  }

  async #setattr(f: Fields): Promise<Reply> {
    const { node, file } = this.#fid(f.u32()), valid = f.u32(), mode = f.u32(), uid = f.u32(), gid = f.u32(), size = f.u64(), [asec, ansec, msec, mnsec] = [f.u64(), f.u64(), f.u64(), f.u64()];
    this.#mayWrite();
    const has = (bit: number): boolean => (valid & bit) !== 0, time = (sec: bigint, ns: bigint): bigint => {
      if (ns >= NS) throw new FolderError(EINVAL);
      return BigInt.asIntN(64, sec) * NS + ns;
    };
    const c: Change = {
      ...(has(SETATTR.MODE) ? { mode: mode & 0o7777 } : {}), ...(has(SETATTR.UID) ? { uid } : {}), ...(has(SETATTR.GID) ? { gid } : {}), ...(has(SETATTR.SIZE) ? { sizeBytes: offsetOf(size) } : {}),
      ...(has(SETATTR.ATIME) ? { atimeNs: has(SETATTR.ATIME_SET) ? time(asec!, ansec!) : "now" } : {}), ...(has(SETATTR.MTIME) ? { mtimeNs: has(SETATTR.MTIME_SET) ? time(msec!, mnsec!) : "now" } : {}),
    };
    await node.change(c, file);
    return new Reply(SMALL_REPLY);
  }
  async #readlink(f: Fields): Promise<Reply> {
    const target = await this.#fid(f.u32()).node.readLink();
    if (target.length + HEADER_BYTES + 2 > this.msize) throw new FolderError(ENAMETOOLONG);
    return new Reply(HEADER_BYTES + 2 + target.length).text(target);
  }
  async #statfs(f: Fields): Promise<Reply> {
    const s = await this.#fid(f.u32()).node.space();
    return new Reply(SMALL_REPLY).u32(V9FS_MAGIC).u32(s.blockBytes).u64(s.nrBlocks).u64(s.nrFree).u64(s.nrAvailable).u64(s.nrFiles).u64(s.nrFreeFiles).u64(s.id).u32(NAME_MAX);
  }
  async #fsync(f: Fields): Promise<Reply> {
    const { node, file } = this.#fid(f.u32()), dataOnly = f.at < f.bytes.length && f.u32() !== 0;
    if (!file) throw new FolderError(EBADF);
    await node.sync(file, dataOnly);
    return new Reply(SMALL_REPLY);
  }
  /** A request that makes something at a name in a folder and answers its qid. The fields behind the name are read when `make` is called. */
  async #made(f: Fields, make: (node: FolderNode, name: string, uid: number) => Promise<Stat>): Promise<Reply> {
    const { node, uid } = this.#fid(f.u32()), name = checked(f.text());
    this.#mayWrite();
    return new Reply(SMALL_REPLY).qid(await make(node, name, uid));
  }
  async #link(f: Fields): Promise<Reply> {
    const { node: folder } = this.#fid(f.u32()), { node: of } = this.#fid(f.u32()), name = checked(f.text());
    this.#mayWrite();
    await folder.addName(name, of);
    return new Reply(SMALL_REPLY);
  }
  async #rename(f: Fields): Promise<Reply> {
    const { node } = this.#fid(f.u32()), { node: to } = this.#fid(f.u32()), name = checked(f.text());
    this.#mayWrite();
    await node.move(to, name);
    return new Reply(SMALL_REPLY);
  }
  async #renameat(f: Fields): Promise<Reply> {
    const { node: from } = this.#fid(f.u32()), name = checked(f.text()), { node: to } = this.#fid(f.u32()), newName = checked(f.text());
    this.#mayWrite();
    await from.rename(name, to, newName);
    return new Reply(SMALL_REPLY);
  }
  async #unlinkat(f: Fields): Promise<Reply> {
    const { node } = this.#fid(f.u32()), name = checked(f.text()), flags = f.u32();
    if (flags & ~AT_REMOVEDIR) throw new FolderError(EINVAL);
    this.#mayWrite();
    await node.unlink(name, (flags & AT_REMOVEDIR) !== 0);
    return new Reply(SMALL_REPLY);
  }
  /** The fid is gone whatever comes of it. */
  async #remove(f: Fields): Promise<Reply> {
    const number = f.u32(), node = this.#fid(number).node.keep();
    try {
      this.#clunk(number);
      this.#mayWrite();
      await node.remove();
    } finally { node.drop(); }
    return new Reply(SMALL_REPLY);
  }
  /** A guest's kernel keeps its locks among its own processes before it asks; others have none of the folder. */
  #lock(f: Fields): Reply {
    this.#fid(f.u32());
    return new Reply(SMALL_REPLY).u8(LOCK.SUCCESS);
  }
  #getlock(f: Fields): Reply {
    this.#fid(f.u32());
    f.u8();
    const start = f.u64(), length = f.u64(), pid = f.u32(), client = f.text().slice(0, NAME_MAX);
    return new Reply(SMALL_REPLY + NAME_MAX).u8(LOCK.UNLCK).u64(start).u64(length).u32(pid).text(client);
  }
}
