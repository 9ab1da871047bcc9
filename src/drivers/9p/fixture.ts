/** For tests of shared folders: a client of 9P2000.L over whatever carries its messages, and a front end whose rings lie in a test's guest. */
import { flexRingBytes, Xen9pfsDataIntf as INTF } from "../../abi/io/9pfs.ts";
import { keysOf } from "../block/fixture.ts";
import type { GuestPages } from "../fixture.ts";
import { P9Back, type P9BackOptions } from "./back.ts";
import type { Folder } from "./folder.ts";
import { Fields, HEADER_BYTES, NOFID, NOTAG, Reply, RLERROR, T, VERSION } from "./protocol.ts";
import { Server, type ServerOptions } from "./server.ts";

const PAGE_BYTES = 4096;
/** What the server said no with. */
export class Refused extends Error {
  readonly errno: number;
  constructor(type: number, errno: number) {
    super(`request ${type}: errno ${errno}`);
    this.errno = errno;
  }
}
/** Bytes as a text. */
export const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
/** Carries a message there and its reply back. */
export type Carrier = (message: Uint8Array<ArrayBuffer>, tag: number) => Promise<Uint8Array<ArrayBuffer>>;
export type Attributes = { readonly valid: bigint; readonly qid: Qid; readonly mode: number; readonly uid: number; readonly gid: number; readonly nrLinks: bigint; readonly sizeBytes: bigint; readonly mtime: readonly [bigint, bigint]; readonly atime: readonly [bigint, bigint] };
export type Qid = { readonly type: number; readonly version: number; readonly path: bigint };
/** A qid that stands there. */
export const readQid = (f: Fields): Qid => ({ type: f.u8(), version: f.u32(), path: f.u64() });

/** Asks one thing at a time or many; fids are the test's to choose. */
export class P9Client {
  readonly #carry: Carrier;
  #tag = 0;
  msize = 0;
  constructor(carry: Carrier) { this.#carry = carry; }
  /** Ask anything. @returns the reply's fields @throws Refused */
  async ask(type: number, write: (w: Reply) => void = () => {}, tag?: number, roomBytes = 8192): Promise<Fields> {
    const mine = tag ?? (this.#tag = (this.#tag + 1) % NOTAG), w = new Reply(roomBytes);
    write(w);
    const f = new Fields(await this.#carry(w.end(type, mine), mine)), view = new DataView(f.bytes.buffer, f.bytes.byteOffset), got = view.getUint8(4);
    if (view.getUint32(0, true) !== f.bytes.length || view.getUint16(5, true) !== mine) throw new Error(`a reply of ${f.bytes.length} bytes says ${view.getUint32(0, true)}, tag ${view.getUint16(5, true)} to ${mine}`);
    if (got === RLERROR) throw new Refused(type, f.u32());
    if (got !== type + 1) throw new Error(`a reply of type ${got} to ${type}`);
    return f;
  }
  async version(msize = 65536, version = VERSION): Promise<string> {
    const f = await this.ask(T.version, (w) => w.u32(msize).text(version), NOTAG);
    this.msize = f.u32();
    return f.text();
  }
  async attach(fid = 0, uid = 0): Promise<Qid> { return readQid(await this.ask(T.attach, (w) => w.u32(fid).u32(NOFID).text("root").text("").u32(uid))); }
  async begin(msize = 65536): Promise<this> {
    await this.version(msize);
    await this.attach();
    return this;
  }
  async walk(fid: number, to: number, ...names: string[]): Promise<Qid[]> {
    const f = await this.ask(T.walk, (w) => { w.u32(fid).u32(to).u16(names.length); for (const n of names) w.text(n); });
    return Array.from({ length: f.u16() }, () => readQid(f));
  }
  async clunk(fid: number): Promise<void> { await this.ask(T.clunk, (w) => w.u32(fid)); }
  async open(fid: number, flags = 0): Promise<Qid> { return readQid(await this.ask(T.lopen, (w) => w.u32(fid).u32(flags))); }
  async create(fid: number, name: string, flags = 2, mode = 0o644): Promise<Qid> { return readQid(await this.ask(T.lcreate, (w) => w.u32(fid).text(name).u32(flags).u32(mode).u32(0))); }
  async read(fid: number, at: number | bigint, count: number): Promise<Uint8Array<ArrayBuffer>> {
    const f = await this.ask(T.read, (w) => w.u32(fid).u64(BigInt(at)).u32(count));
    return f.data(f.u32());
  }
  async write(fid: number, at: number | bigint, bytes: Uint8Array): Promise<number> {
    return (await this.ask(T.write, (w) => { w.u32(fid).u64(BigInt(at)).u32(bytes.length).bytes.set(bytes, w.at); w.at += bytes.length; }, undefined, bytes.length + 64)).u32();
  }
  async getattr(fid: number): Promise<Attributes> {
    const f = await this.ask(T.getattr, (w) => w.u32(fid).u64(0x7ffn)), valid = f.u64(), qid = readQid(f), [mode, uid, gid] = [f.u32(), f.u32(), f.u32()], [nrLinks, , sizeBytes] = [f.u64(), f.u64(), f.u64(), f.u64(), f.u64()];
    const atime = [f.u64(), f.u64()] as const, mtime = [f.u64(), f.u64()] as const;
    return { valid, qid, mode: mode!, uid: uid!, gid: gid!, nrLinks: nrLinks!, sizeBytes: sizeBytes!, atime, mtime };
  }
  async setattr(fid: number, valid: number, c: { mode?: number; uid?: number; gid?: number; size?: bigint; atime?: readonly [bigint, bigint]; mtime?: readonly [bigint, bigint] } = {}): Promise<void> {
    const [a, m] = [c.atime ?? [0n, 0n], c.mtime ?? [0n, 0n]];
    await this.ask(T.setattr, (w) => w.u32(fid).u32(valid).u32(c.mode ?? 0).u32(c.uid ?? 0xffffffff).u32(c.gid ?? 0xffffffff).u64(c.size ?? 0n).u64(a[0]!).u64(a[1]!).u64(m[0]!).u64(m[1]!));
  }
  async readdir(fid: number, offset: bigint, count: number): Promise<{ qid: Qid; offset: bigint; type: number; name: string }[]> {
    const f = await this.ask(T.readdir, (w) => w.u32(fid).u64(offset).u32(count)), end = f.u32() + f.at, entries = [];
    while (f.at < end) entries.push({ qid: readQid(f), offset: f.u64(), type: f.u8(), name: f.text() });
    return entries;
  }
  /** All names of a folder that is open, in order. */
  async list(fid: number, count = 4096): Promise<string[]> {
    const names: string[] = [];
    for (let at = 0n; ;) {
      const some = await this.readdir(fid, at, count);
      if (some.length === 0) return names;
      names.push(...some.map((e) => e.name));
      at = some.at(-1)!.offset;
    }
  }
  async mkdir(fid: number, name: string, mode = 0o755): Promise<Qid> { return readQid(await this.ask(T.mkdir, (w) => w.u32(fid).text(name).u32(mode).u32(0))); }
  async symlink(fid: number, name: string, target: string): Promise<Qid> { return readQid(await this.ask(T.symlink, (w) => w.u32(fid).text(name).text(target).u32(0))); }
  async mknod(fid: number, name: string, mode: number): Promise<Qid> { return readQid(await this.ask(T.mknod, (w) => w.u32(fid).text(name).u32(mode).u32(1).u32(3).u32(0))); }
  async readlink(fid: number): Promise<string> { return (await this.ask(T.readlink, (w) => w.u32(fid))).text(); }
  async link(folder: number, fid: number, name: string): Promise<void> { await this.ask(T.link, (w) => w.u32(folder).u32(fid).text(name)); }
  async renameat(from: number, name: string, to: number, newName: string): Promise<void> { await this.ask(T.renameat, (w) => w.u32(from).text(name).u32(to).text(newName)); }
  async rename(fid: number, to: number, name: string): Promise<void> { await this.ask(T.rename, (w) => w.u32(fid).u32(to).text(name)); }
  async unlinkat(fid: number, name: string, flags = 0): Promise<void> { await this.ask(T.unlinkat, (w) => w.u32(fid).text(name).u32(flags)); }
  async remove(fid: number): Promise<void> { await this.ask(T.remove, (w) => w.u32(fid)); }
  async fsync(fid: number, dataOnly = 0): Promise<void> { await this.ask(T.fsync, (w) => w.u32(fid).u32(dataOnly)); }
  async flush(tag: number): Promise<void> { await this.ask(T.flush, (w) => w.u16(tag)); }
}

/** A client that a server hears without rings between. */
export function directClient(folder: Folder, options: Partial<ServerOptions> = {}): { client: P9Client; server: Server; log: string[] } {
  const log: string[] = [], server = new Server({ folder, isReadonly: false, mostBytes: 1 << 20, log: (s) => log.push(s), counters: { requests: 0, errors: 0, readBytes: 0, writtenBytes: 0 }, ...options });
  const client = new P9Client((message) => new Promise((done, failed) => {
    const why = server.take(message.slice(), async (reply) => done(reply.slice()));
    if (why !== null) failed(new Error(why));
  }));
  return { client, server, log };
}

/** One ring of a front end: its pages lie anywhere. */
export class FlexFront {
  readonly mem: GuestPages;
  readonly intf: number;
  readonly intfRef: number;
  readonly pages: readonly number[];
  readonly sizeBytes: number;
  inCons: number;
  outProd: number;
  constructor(mem: GuestPages, order: number, start = 0) {
    this.mem = mem;
    this.intf = mem.allocate();
    this.intfRef = mem.grant(this.intf);
    this.pages = Array.from({ length: 2 ** order }, () => mem.allocate());
    this.sizeBytes = flexRingBytes(order);
    this.inCons = this.outProd = start >>> 0;
    for (const f of [INTF.in_cons, INTF.in_prod, INTF.out_cons, INTF.out_prod]) this.store(f.at, start);
    this.store(INTF.ring_order.at, order);
    this.pages.forEach((at, i) => { this.store(INTF.sizeof + i * 4, mem.grant(at)); });
  }
  load(at: number): number { return Atomics.load(this.mem.words, (this.intf + at) / 4) >>> 0; }
  store(at: number, value: number): void { Atomics.store(this.mem.words, (this.intf + at) / 4, value | 0); }
  #byteAt(base: number, index: number): number {
    const at = base + (index & (this.sizeBytes - 1));
    return this.pages[Math.floor(at / PAGE_BYTES)]! + (at % PAGE_BYTES);
  }
  get nrFree(): number { return this.sizeBytes - ((this.outProd - this.load(INTF.out_cons.at)) >>> 0); }
  /** Write bytes and show them. */
  write(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) this.mem.bytes[this.#byteAt(this.sizeBytes, this.outProd + i)] = bytes[i]!;
    this.outProd = (this.outProd + bytes.length) >>> 0;
    this.store(INTF.out_prod.at, this.outProd);
  }
  /** @returns the next whole message, or null: the back end never shows a part of one */
  read(): Uint8Array<ArrayBuffer> | null {
    const queued = (this.load(INTF.in_prod.at) - this.inCons) >>> 0, byte = (i: number): number => this.mem.bytes[this.#byteAt(0, this.inCons + i)]!;
    if (queued === 0) return null;
    const size = byte(0) | (byte(1) << 8) | (byte(2) << 16) | (byte(3) << 24);
    if (size < HEADER_BYTES || size > queued) throw new Error(`a message of ${size} bytes, of which ${queued} are shown`);
    const bytes = Uint8Array.from({ length: size }, (_, i) => byte(i));
    this.inCons = (this.inCons + size) >>> 0;
    this.store(INTF.in_cons.at, this.inCons);
    return bytes;
  }
}

/** A guest's driver on test memory. */
export class P9Front {
  readonly mem: GuestPages;
  readonly back: P9Back;
  readonly rings: FlexFront[];
  readonly keys: Record<string, string | number>;
  readonly client: P9Client;
  readonly log: string[] = [];
  readonly broken: string[] = [];
  readonly #bells = new Map<number, () => void>();
  readonly #waiting = new Map<number, (reply: Uint8Array<ArrayBuffer>) => void>();
  nrEvents = 0;
  /** it does not read what it gets until it is told to */
  isDeaf = false;

  constructor(mem: GuestPages, folder: Folder, { nrRings = 2, order = 1, start = 0, ...options }: { nrRings?: number; order?: number; start?: number } & Partial<P9BackOptions> = {}) {
    this.mem = mem;
    this.rings = Array.from({ length: nrRings }, () => new FlexFront(mem, order, start));
    this.keys = { version: 1, "num-rings": nrRings };
    this.rings.forEach((ring, i) => { this.keys[`ring-ref${i}`] = ring.intfRef; this.keys[`event-channel-${i}`] = i; });
    this.back = new P9Back({
      name: "d1 share test", folder, isReadonly: false, grants: mem, log: (s) => this.log.push(s),
      bind: (port, rung) => {
        this.#bells.set(port, rung);
        return { notify: () => { if (this.#bells.get(port) !== rung) throw new Error("An event by a closed port"); this.nrEvents++; queueMicrotask(() => this.poll()); }, isHeld: () => true, close: () => this.#bells.delete(port) };
      },
      ...options,
    });
    this.back.onBroken = (why) => this.broken.push(why);
    this.client = new P9Client(async (message, tag) => {
      const nr = tag % this.rings.length, ring = this.rings[nr]!, reply = new Promise<Uint8Array<ArrayBuffer>>((told) => this.#waiting.set(tag, told));
      while (ring.nrFree < message.length) await new Promise((done) => { setTimeout(done, 1); });
      ring.write(message);
      this.knock(nr);
      return reply;
    });
  }
  async connect(): Promise<void> { await this.back.connect(keysOf(this.keys)); }
  knock(nr = 0): void { this.#bells.get(nr)?.(); }
  poll(): void {
    if (this.isDeaf) return;
    for (const [nr, ring] of this.rings.entries()) {
      let isAny = false;
      for (let message = ring.read(); message; message = ring.read()) {
        const tag = message[5]! | (message[6]! << 8), told = this.#waiting.get(tag);
        this.#waiting.delete(tag);
        isAny = true;
        told?.(message);
      }
      if (isAny) this.knock(nr);
    }
  }
}
