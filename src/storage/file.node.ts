/** Files and block devices of the host, and the store that says which of them an image may name. */
import { close, constants, fdatasync, fstat, ftruncate, open, read, readSync, realpath, write, writeSync } from "node:fs";
import { createServer, connect, type Server } from "node:net";
import { basename, dirname, isAbsolute, join, resolve, sep } from "node:path";
import { promisify } from "node:util";
import { ERRNO, FALLOC, type Libc, loadLibc } from "../base/libc.node.ts";
import { isZero } from "./copy.ts";
import { type ByteFile, DiskError, type DiskFault, type FileStore } from "./disk.ts";

const FAULTS: Readonly<Record<string, DiskFault>> = {
  ENOSPC: "nospace", EDQUOT: "nospace", EFBIG: "nospace", ENOENT: "missing", ENOTDIR: "missing", EEXIST: "exists", EACCES: "denied", EPERM: "denied", EROFS: "readonly",
  EBUSY: "busy", ETXTBSY: "busy", EISDIR: "unsupported", EBADF: "closed",
};
const WORDS: Readonly<Record<string, string>> = {
  ENOSPC: "the file system is full", EDQUOT: "the quota is used up", EFBIG: "the file would be too long for its file system", ENOENT: "it does not exist", EEXIST: "it exists already",
  EACCES: "permission denied", EPERM: "permission denied", EROFS: "its file system is read-only", EISDIR: "it is a folder", ENOTDIR: "what should be its folder is a file", EIO: "the device failed",
};
/** What the system said of a file, in our words. */
export function whyOf(e: unknown): string {
  const { code = "", message } = e as NodeJS.ErrnoException;
  return WORDS[code] ?? (code || message);
}
/** The same as a disk's error. */
const wrap = (name: string, what: string, e: unknown): DiskError => {
  const { code = "" } = e as NodeJS.ErrnoException;
  return new DiskError(FAULTS[code] ?? "io", `${name} cannot be ${what}: ${whyOf(e)}`, { cause: e });
};
const ZEROS = new Uint8Array(1 << 20);
/** Node has no call that makes holes; without koffi there are none. */
let libc: Libc | null | undefined;
const holes = (): Libc | null => {
  if (libc === undefined) try { libc = loadLibc("A hole in a file"); } catch { libc = null; }
  return libc;
};
/** What fallocate says where a file system, or the kernel, makes no holes. */
const NO_HOLES: readonly number[] = [ERRNO.EOPNOTSUPP, ERRNO.ENOSYS, ERRNO.ENODEV, ERRNO.EINVAL];

/**
 * Whether a request is done at once, on this thread, or by libuv's threads. From the page cache a 4 KiB read takes 2 us at once and 41 by way of a thread, a MiB 97 either
 * way; from a slow disk it stops all guests' consoles and events. What is in the cache nobody says, so it is tried: one that took longer than memory does is taken for the disk's
 * speed, and the next ones go by threads, more of them each time.
 */
export class Pace {
  #nrByThreads = 0;
  #next = PACE_LEAST;
  /** May the next one be done at once? */
  get atOnce(): boolean { return this.#nrByThreads === 0 || --this.#nrByThreads < 0; }
  /** One was done at once. */
  took(ms: number, lengthBytes: number): void {
    if (ms <= 0.25 + lengthBytes / 1e6) {
      if (this.#next > PACE_LEAST && ++this.#nrQuick >= PACE_LEAST) { this.#next >>= 1; this.#nrQuick = 0; }
      return;
    }
    this.#nrQuick = 0;
    this.#nrByThreads = this.#next;
    this.#next = Math.min(PACE_MOST, this.#next * 2);
  }
  #nrQuick = 0;
}
const PACE_LEAST = 16, PACE_MOST = 4096;

/**
 * A file by `fs.read` and `fs.write` with callbacks, several in flight on libuv's threads; or at once where that is quick (`Pace`). Measured on two processors, from the
 * page cache, at 1 and 8 in flight: 4 KiB reads 41 and 5 us each by threads (FileHandle: 43 and 8), 2 at once; writes 48 and 10; 1 MiB reads 97 and 65, writes 160 and 130.
 */
class NodeFile implements ByteFile {
  readonly name: string;
  readonly isReadonly: boolean;
  sizeBytes: number;
  readonly #fd: number;
  readonly #isDevice: boolean;
  readonly #unlock: () => void;
  readonly #reads = new Pace();
  readonly #writes = new Pace();
  #makesHoles = true;
  #isClosed = false;

  constructor(name: string, fd: number, isReadonly: boolean, sizeBytes: number, isDevice: boolean, unlock: () => void) {
    this.name = name;
    this.#fd = fd;
    this.isReadonly = isReadonly;
    this.sizeBytes = sizeBytes;
    this.#isDevice = isDevice;
    this.#unlock = unlock;
  }
  #check(changes: boolean): void {
    if (this.#isClosed) throw new DiskError("closed", `${this.name} is closed`);
    if (changes && this.isReadonly) throw new DiskError("readonly", `${this.name} was opened for reading`);
  }
  read(at: number, into: Uint8Array): Promise<void> {
    return new Promise((done, failed) => {
      this.#check(false);
      const go = (from: number) => read(this.#fd, into, from, into.length - from, at + from, (e, n) => {
        if (e) failed(wrap(this.name, `read at ${at + from}`, e));
        else if (n === 0) { into.fill(0, from); done(); }
        else if (from + n < into.length) go(from + n);
        else done();
      });
      if (into.length === 0) done();
      else if (this.#reads.atOnce) {
        const begun = performance.now();
        let from = 0;
        try {
          for (let n = -1; from < into.length && n !== 0; from += n) n = readSync(this.#fd, into, from, into.length - from, at + from);
        } catch (e) { throw wrap(this.name, `read at ${at + from}`, e); }
        into.fill(0, from);
        this.#reads.took(performance.now() - begun, into.length);
        done();
      } else go(0);
    });
  }
  write(at: number, from: Uint8Array): Promise<void> {
    return new Promise((done, failed) => {
      this.#check(true);
      if (this.#isDevice && at + from.length > this.sizeBytes) {
        throw new DiskError("nospace", `${this.name} is a device of ${this.sizeBytes} bytes: ${from.length} bytes at ${at} do not fit`);
      }
      const go = (begin: number) => write(this.#fd, from, begin, from.length - begin, at + begin, (e, n) => {
        if (e) { failed(wrap(this.name, `written at ${at + begin}`, e)); return; }
        this.sizeBytes = Math.max(this.sizeBytes, at + begin + n);
        if (begin + n < from.length) go(begin + n); else done();
      });
      if (from.length === 0) done();
      else if (this.#writes.atOnce) {
        const begunMs = performance.now();
        let begin = 0;
        try {
          while (begin < from.length) begin += writeSync(this.#fd, from, begin, from.length - begin, at + begin);
        } catch (e) { throw wrap(this.name, `written at ${at + begin}`, e); } finally { this.sizeBytes = Math.max(this.sizeBytes, at + begin); }
        this.#writes.took(performance.now() - begunMs, from.length);
        done();
      } else go(0);
    });
  }
  flush(): Promise<void> {
    return new Promise((done, failed) => {
      this.#check(false);
      fdatasync(this.#fd, (e) => { if (e) failed(wrap(this.name, "flushed", e)); else done(); });
    });
  }
  truncate(sizeBytes: number): Promise<void> {
    return new Promise((done, failed) => {
      this.#check(true);
      if (this.#isDevice) throw new DiskError("unsupported", `${this.name} is a device; its size is not ours to change`);
      ftruncate(this.#fd, sizeBytes, (e) => { if (e) failed(wrap(this.name, `made ${sizeBytes} bytes long`, e)); else { this.sizeBytes = sizeBytes; done(); } });
    });
  }
  get makesHoles(): boolean { return this.#makesHoles && holes() !== null; }
  /** Where there can be no hole zeros are written, except over what is zero already. (To cut and extend the file would leave it short in a crash.) */
  async punch(at: number, lengthBytes: number): Promise<void> {
    this.#check(true);
    const end = Math.min(at + lengthBytes, this.sizeBytes), c = this.#makesHoles && end > at ? holes() : null;
    if (c) {
      if (c.fallocate(this.#fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, at, end - at) === 0) return;
      const errno = c.errno();
      if (errno === ERRNO.ENOSPC) throw wrap(this.name, `emptied at ${at}`, { code: "ENOSPC" });
      if (!NO_HOLES.includes(errno)) throw wrap(this.name, `emptied at ${at}`, { code: `errno ${errno}` });
      this.#makesHoles = false;
    }
    const found = new Uint8Array(Math.max(0, Math.min(ZEROS.length, end - at)));
    for (let p = at; p < end; p += found.length) {
      const part = found.subarray(0, Math.min(found.length, end - p));
      await this.read(p, part);
      if (!isZero(part)) await this.write(p, ZEROS.subarray(0, part.length));
    }
  }
  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#isClosed = true;
    return new Promise((done, failed) => close(this.#fd, (e) => { this.#unlock(); if (e) failed(wrap(this.name, "closed", e)); else done(); }));
  }
}

/** A block device's size: no call of Node's tells it, so find the last byte that can be read. */
async function deviceBytes(fd: number): Promise<number> {
  const one = new Uint8Array(512), canRead = (at: number) => new Promise<boolean>((done) => read(fd, one, 0, 512, at, (e, n) => done(!e && n > 0)));
  let least = 0, most = 512;
  while (await canRead(most)) { least = most; most *= 2; if (most > 2 ** 52) break; }
  // Whole sectors: `least` can be read (or is 0), `most` cannot.
  while (most - least > 512) { const middle = least + Math.floor((most - least) / 1024) * 512; if (await canRead(middle)) least = middle; else most = middle; }
  return (await canRead(least)) ? least + 512 : 0;
}

/**
 * Who writes a file, in this process. Between processes, on Linux, a writer holds an abstract Unix socket named by the file's device and inode: the kernel lets it
 * go with the process, however that ends, and who asks is told the process id. It is seen within one network namespace. QEMU's locks (fcntl OFD) cannot
 * be had or seen from Node: take care yourself that QEMU has not the same image open.
 */
const writers = new Map<string, Server | null>();
async function lock(name: string, key: string): Promise<() => void> {
  if (writers.has(key)) throw new DiskError("busy", `${name} is open for writing already, in this process`);
  writers.set(key, null);
  if (process.platform !== "linux") return () => writers.delete(key);
  const address = `\0domus/disk/${key}`, server = createServer((peer) => { peer.on("error", () => {}); peer.end(`${process.pid}\n`); });
  const code = await new Promise<string | undefined>((done) => {
    server.once("error", (e: NodeJS.ErrnoException) => done(e.code ?? "?"));
    server.listen(address, () => done(undefined));
  });
  if (code === undefined) {
    server.unref();
    writers.set(key, server);
    return () => { writers.delete(key); server.close(); };
  }
  writers.delete(key);
  if (code !== "EADDRINUSE") throw new DiskError("io", `${name} cannot be locked: ${code}`);
  throw new DiskError("busy", `${name} is open for writing already, in process ${await ownerOf(address)}`);
}
const ownerOf = (address: string): Promise<string> => new Promise((done) => {
  const peer = connect(address);
  let said = "";
  peer.setTimeout(1000, () => peer.destroy());
  peer.on("data", (b) => { said += b; if (said.length > 20) peer.destroy(); });
  peer.on("error", () => {});
  peer.on("close", () => done(/^\d+\n$/.test(said) ? said.trim() : "unknown"));
});

/** Open a file or block device. For writing it is locked. @param mode `create`: it must not exist yet @throws DiskError */
export async function openNodeFile(path: string, mode: "read" | "write" | "create"): Promise<ByteFile> {
  // O_NONBLOCK: a named pipe in a file's place must not hold us.
  const flags = (mode === "read" ? constants.O_RDONLY : mode === "write" ? constants.O_RDWR : constants.O_RDWR | constants.O_CREAT | constants.O_EXCL) | constants.O_NONBLOCK;
  const fd = await promisify(open)(path, flags, 0o644).catch((e) => { throw wrap(path, mode === "create" ? "created" : "opened", e); });
  try {
    const stat = await promisify(fstat)(fd), isDevice = stat.isBlockDevice();
    if (!stat.isFile() && !isDevice) throw new DiskError("unsupported", `${path} is ${stat.isDirectory() ? "a folder" : "neither a file nor a block device"}`);
    const sizeBytes = isDevice ? await deviceBytes(fd) : stat.size, unlock = mode === "read" ? () => {} : await lock(path, isDevice ? `device ${stat.rdev}` : `${stat.dev}:${stat.ino}`);
    return new NodeFile(path, fd, mode === "read", sizeBytes, isDevice, unlock);
  } catch (e) {
    close(fd, () => {});
    throw e;
  }
}

/** What a `NodeStore` allows. */
export type NodeStoreOptions = {
  /** folders, beside an image's own, whose files it may name as backing files */
  readonly roots?: readonly string[];
};
/**
 * The host's files. A path of the user's is taken as it is. A path that an image names (`from` is given) must, after symbolic links, lie in the folder of that
 * image or below one of the roots: an image is data that anybody may have written, and must not read the host's other files.
 */
export class NodeStore implements FileStore {
  readonly #roots: readonly string[];
  constructor(options: NodeStoreOptions = {}) {
    this.#roots = (options.roots ?? []).map((r) => resolve(r));
  }
  async open(path: string, mode: "read" | "write" | "create", from?: string): Promise<ByteFile> {
    if (path.includes("\0")) throw new DiskError("missing", "A path holds a zero byte");
    const full = from === undefined || isAbsolute(path) ? resolve(path) : join(dirname(from), path);
    if (from === undefined) return openNodeFile(mode === "create" ? full : await real(full), mode);
    const target = mode === "create" ? join(await real(dirname(full)), basename(full)) : await real(full);
    const folders = [dirname(await real(from)), ...(await Promise.all(this.#roots.map((r) => real(r).catch(() => r))))];
    if (!folders.some((f) => isBelow(target, f))) {
      const truly = target === path ? "" : ` (${target})`;
      throw new DiskError("denied", `${from} names the file ${path}${truly}, which is outside its folder; if it may be used, allow the folder ${dirname(target)}`);
    }
    return openNodeFile(target, mode);
  }
}
const real = (path: string): Promise<string> => promisify(realpath.native)(path).catch((e) => { throw wrap(path, "opened", e); });
/** Is it in that folder? Both without symbolic links. */
export const isBelow = (path: string, folder: string): boolean => path.startsWith(folder.endsWith(sep) ? folder : folder + sep);

