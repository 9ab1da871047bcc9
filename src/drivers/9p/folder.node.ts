/**
 * A folder of this host as the tree of a share. A guest's names lead nowhere else, whatever it, another guest or a host's process does to the folder meanwhile:
 *
 * 1. A place is a descriptor (O_PATH), not a path. The kernel resolves only /proc/self/fd/N/NAME: an inode that was in the tree, and one name in it, without a slash.
 * 2. The last step is never followed: O_NOFOLLOW, or a call that does not follow (lstat, unlink, rename, link, lchown). /proc/self/fd/N alone names the inode and no way.
 * 3. "..", which a mount or a moved folder could lead out by, is our own list of parents.
 * 4. What the kernel shows of itself is not entered: /proc/self/mem is a regular file, and of this process.
 * 5. What is opened for its bytes was seen to be a regular file before, by its descriptor; a device, a FIFO or a socket of the host is never opened.
 *
 * Node has no openat and its siblings; /proc/self/fd stands for them, so this is Linux's alone. Names are bytes, a character each.
 */
import fs from "node:fs";
import { EACCES, EBADF, EBUSY, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENFILE, ENOENT, ENOMEM, ENOTDIR, ENXIO, EOPNOTSUPP, EXDEV } from "../../abi/errno.ts";
import { UserError } from "../../base/errors.ts";
import { Pace, whyOf } from "../../storage/file.node.ts";
import { type Change, type Folder, FolderError, NAME_BYTES, type FolderNode, type FolderSource, type Opening, type OpenFile, type Owner, type Space, type Stat } from "./folder.ts";
import { S_IF } from "./protocol.ts";

const { O_APPEND, O_CREAT, O_DIRECTORY, O_DSYNC, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY } = fs.constants;
/** Node does not name it; the same on all processors that Linux has in common with it. */
const O_PATH = 0o10000000;
/** Linux's numbers that Xen's errno.h has not. */
const ELOOP = 40, ESTALE = 116;
/** Descriptors of places that nobody uses at the moment, and files that a guest may have open. */
const KEPT = 256, OPEN_MAX = 1024;
/** Places that a guest may hold, with those above them: each walk to a deep one has a list of parents of its own. */
const PLACES_MAX = 65536;
/** What the open files of all shares leave of this process' descriptors: half; and of those the places that nobody uses leave half, for disks and sockets. */
const openLimit = (): number => { try { return Number(/^Max open files +(\d+)/m.exec(fs.readFileSync("/proc/self/limits", "latin1"))?.[1] ?? 1024) >> 1; } catch { return 512; } };
let processLimit: number | undefined, nrOpenInProcess = 0, nrIdleInProcess = 0;
const MAX_DEPTH = 1024;
/** Entries of a folder that are asked about at once. */
const BATCH = 32;
/** File systems that another computer or a program answers for: NFS, CIFS, SMB2, FUSE, 9p, Ceph, AFS. A call that hangs must not be on this thread. */
const REMOTE: ReadonlySet<bigint> = new Set([0x6969n, 0xff534d42n, 0xfe534d42n, 0x65735546n, 0x01021997n, 0x00c36400n, 0x5346414fn]);
/** The same by name; and autofs, which waits for a program that mounts. */
const REMOTE_NAMES = /^(nfs4?|cifs|smb3|fuse|fuseblk|fuse\..*|virtiofs|9p|ceph|afs|autofs)$/;
/** How often it is looked what is mounted. */
const MOUNTS_MS = 2_000;
/** Is one of those mounted below a folder? To look at the mount's name in the folder above it is to ask it. @param mountinfo proc(5)'s, a character a byte @param at the folder, without links */
export function hasRemoteBelow(mountinfo: string, at: string): boolean {
  const above = at.endsWith("/") ? at : `${at}/`;
  return mountinfo.split("\n").some((line) => {
    const words = line.split(" "), where = words[4]?.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    return where?.startsWith(above) && REMOTE_NAMES.test(words[words.indexOf("-", 6) + 1] ?? "");
  });
}
/**
 * File systems in which a file is a way into the kernel or another process: proc, sysfs, debugfs, tracefs, securityfs, cgroup and cgroup2, bpf, selinuxfs, smackfs, efivarfs, configfs, devpts, binfmt_misc, nsfs, pstore,
 * xenfs, fusectl, resctrl, AppArmor's, openpromfs, usbfs, functionfs, nfsd, rpc_pipefs. linux/magic.h, and their own files
 */
const KERNELS_OWN: ReadonlySet<bigint> = new Set([0x9fa0n, 0x62656572n, 0x64626720n, 0x74726163n, 0x73636673n, 0x27e0ebn, 0x63677270n, 0xcafe4a11n, 0xf97cff8cn, 0x43415d53n, 0xde5e81e4n, 0x62656570n, 0x1cd1n, 0x42494e4dn,
  0x6e736673n, 0x6165676cn, 0xabba1974n, 0x65735543n, 0x07655821n, 0x5a3c69f0n, 0x9fa1n, 0x9fa2n, 0x0a647361n, 0x6e667364n, 0x67596969n]);
/** Bits of a file's mode that a guest sets: never set-user-ID or set-group-ID, which would be a program of the user who runs Domus. A folder's set-group-ID only names a group. */
const FILE_MODE = 0o1777, FOLDER_MODE = 0o3777;

/** This thread has other tasks: what all trees do at once ends after so long, and is done by other threads until the tasks have had their turn. */
const TURN_MS = 4;
let turnBeganMs = -1;
/** May more be done at once in this turn? */
function isInTurn(): boolean {
  if (turnBeganMs < 0) {
    turnBeganMs = performance.now();
    setImmediate(() => { turnBeganMs = -1; });
  }
  return performance.now() - turnBeganMs < TURN_MS;
}

type CallName = "open" | "fstat" | "stat" | "lstat" | "mkdir" | "symlink" | "link" | "unlink" | "rmdir" | "rename" | "readlink" | "chmod" | "fchmod" | "chown" | "fchown" | "lchown" | "truncate" | "ftruncate" | "utimes" | "lutimes" | "statfs" | "fsync" | "fdatasync" | "read" | "write";
type Call = (...args: unknown[]) => unknown;
const BIG = { bigint: true } as const;
/** @returns what a call failed with, as the guest is told; what is no system's error is ours, and thrown on */
function refusal(e: unknown): unknown {
  const { errno } = e as NodeJS.ErrnoException;
  return typeof errno === "number" && errno < 0 && errno > -4096 ? new FolderError(-errno, { cause: e }) : e;
}
/** A file's may have to write; a place's has nothing to do. */
const closeFile = (fd: number): void => fs.close(fd, () => {}), closePlace = (fd: number): void => fs.closeSync(fd);

/** struct statfs' f_type, which is signed on some processors */
const typeOf = (s: fs.BigIntStatsFs): bigint => BigInt.asUintN(32, s.type);
/** A path's name with the descriptor it begins at. */
const below = (fd: number, name: string): Buffer => Buffer.from(`/proc/self/fd/${fd}/${name}`, "latin1");
const itself = (fd: number): string => `/proc/self/fd/${fd}`;

const kindOf = (mode: number): FolderNode["kind"] => ((mode & S_IF.MT) === S_IF.REG ? "file" : (mode & S_IF.MT) === S_IF.DIR ? "folder" : (mode & S_IF.MT) === S_IF.LNK ? "link" : "other");
const flagsOf = (how: Opening): number => (how.writes ? (how.reads ? O_RDWR : O_WRONLY) : O_RDONLY) | (how.truncates ? O_TRUNC : 0) | (how.appends ? O_APPEND : 0) | (how.syncs === "no" ? 0 : how.syncs === "data" ? O_DSYNC : O_SYNC) | O_NONBLOCK | O_NOCTTY;
/** A time for utimes: a Date that is none leaves it, Infinity is now; a text, since numbers below zero are taken for now. */
function timeOf(t: bigint | "now" | undefined): string | Date {
  if (t === undefined) return new Date(Number.NaN);
  if (t === "now") return "Infinity";
  const magnitude = t < 0n ? -t : t;
  return `${t < 0n ? "-" : ""}${magnitude / 1_000_000_000n}.${String(magnitude % 1_000_000_000n).padStart(9, "0")}`;
}

class Tree implements Folder {
  readonly root: Place;
  readonly places = new Set<Place>();
  /** places with a descriptor that nobody uses at the moment, the longest unused first */
  readonly #idle = new Set<Place>();
  readonly #at: string;
  readonly #isRemote: boolean;
  #hasRemote = false;
  #mountsAtMs = -Infinity;
  readonly #rootDev: bigint;
  readonly #devices = new Map<bigint, bigint>();
  /** what makes a new file belong to whom the guest says; nobody else may */
  readonly givesAway = process.geteuid?.() === 0;
  readonly #calls = new Pace();
  readonly #reads = new Pace();
  readonly #writes = new Pace();
  #nrOpen = 0;

  constructor(fd: number, stat: fs.BigIntStats, at: string, isRemote: boolean) {
    this.#at = at;
    this.#isRemote = isRemote;
    this.#rootDev = stat.dev;
    this.root = new Place(this, null, "", stat, fd);
  }
  /** Can no call hang? */
  get #isLocal(): boolean {
    if (this.#isRemote) return false;
    const nowMs = performance.now();
    if (nowMs - this.#mountsAtMs > MOUNTS_MS) {
      this.#mountsAtMs = nowMs;
      try { this.#hasRemote = hasRemoteBelow(fs.readFileSync("/proc/self/mountinfo", "latin1"), this.#at); } catch { this.#hasRemote = true; }
    }
    return !this.#hasRemote;
  }
  /** A system call: at once where that is quick and cannot hang, else by a thread. */
  call<R>(dev: bigint | null, name: CallName, ...args: unknown[]): Promise<R> {
    const bytes = name === "read" || name === "write" ? args[3] as number : 0, pace = name === "read" ? this.#reads : name === "write" ? this.#writes : this.#calls;
    if (this.#isLocal && (dev === null || dev === this.#rootDev) && name !== "fsync" && name !== "fdatasync" && isInTurn() && pace.atOnce) {
      const begun = performance.now();
      try {
        return Promise.resolve((fs[`${name}Sync`] as unknown as Call)(...args) as R);
      } catch (e) {
        return Promise.reject(refusal(e));
      } finally { pace.took(performance.now() - begun, bytes); }
    }
    return new Promise((done, failed) => { (fs[name] as unknown as Call)(...args, (e: unknown, result: R) => { if (e) failed(refusal(e)); else done(result); }); });
  }
  /** Another device's numbers of files may be the root's. */
  statOf(s: fs.BigIntStats): Stat {
    if (!this.#devices.has(s.dev)) this.#devices.set(s.dev, BigInt(this.#devices.size));
    return {
      id: s.ino ^ (BigInt.asUintN(8, this.#devices.get(s.dev)!) << 56n), mode: Number(s.mode), uid: Number(s.uid), gid: Number(s.gid), nrLinks: s.nlink, rdev: s.rdev, sizeBytes: s.size, nrBlocks: s.blocks,
      atimeNs: s.atimeNs, mtimeNs: s.mtimeNs, ctimeNs: s.ctimeNs, birthNs: s.birthtimeNs,
    };
  }
  /** Nobody uses a place's descriptor at the moment. */
  rests(place: Place): void {
    if (this.#idle.has(place)) return;
    this.#idle.add(place);
    nrIdleInProcess++;
  }
  /** It is used, or closed. */
  wakes(place: Place): void { if (this.#idle.delete(place)) nrIdleInProcess--; }
  /** Descriptors beyond those that are kept go, the longest unused first; they come again by their names. */
  trim(): void {
    for (const place of this.#idle) {
      if (this.#idle.size <= KEPT && nrIdleInProcess <= (processLimit ??= openLimit()) >> 1) return;
      place.forget();
    }
  }
  /** One more file is open. @throws FolderError where there are too many */
  taken(): void {
    if (this.#nrOpen >= OPEN_MAX || nrOpenInProcess >= (processLimit ??= openLimit())) throw new FolderError(ENFILE);
    this.#nrOpen++;
    nrOpenInProcess++;
  }
  given(): void {
    this.#nrOpen--;
    nrOpenInProcess--;
  }
  async close(): Promise<void> { this.root.drop(); }
}

class NodeOpenFile implements OpenFile {
  readonly fd: number;
  readonly writes: boolean;
  readonly dev: bigint;
  readonly #tree: Tree;
  /** where it is told of its end */
  readonly ended: (() => void)[] = [];
  #nrCalls = 0;
  #isClosed = false;
  constructor(tree: Tree, fd: number, dev: bigint, writes: boolean) {
    this.#tree = tree;
    this.fd = fd;
    this.dev = dev;
    this.writes = writes;
  }
  async during<R>(does: () => Promise<R>): Promise<R> {
    if (this.#isClosed) throw new FolderError(EBADF);
    this.#nrCalls++;
    try { return await does(); } finally { if (--this.#nrCalls === 0 && this.#isClosed) this.#end(); }
  }
  read(at: number, into: Uint8Array): Promise<number> { return this.during(() => this.#tree.call<number>(this.dev, "read", this.fd, into, 0, into.length, at)); }
  write(at: number, from: Uint8Array): Promise<number> {
    return this.during(async () => {
      let done = 0;
      while (done < from.length) {
        try {
          const n = await this.#tree.call<number>(this.dev, "write", this.fd, from, done, from.length - done, at + done);
          if (n === 0) break;
          done += n;
        } catch (e) {
          if (done === 0) throw e;
          break;
        }
      }
      return done;
    });
  }
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#nrCalls === 0) this.#end();
  }
  #end(): void {
    for (const tell of this.ended) tell();
    closeFile(this.fd);
    this.#tree.given();
  }
}

class Place implements FolderNode {
  readonly kind: FolderNode["kind"];
  readonly #tree: Tree;
  readonly #dev: bigint;
  readonly #ino: bigint;
  /** where it was reached, and by what name; null: the root */
  #parent: Place | null;
  #name: string;
  #fd: number;
  /** those who hold it: fids, and places below it */
  #nrKept = 1;
  /** calls that use its descriptor */
  #nrCalls = 0;
  #opening: Promise<void> | null = null;
  /** what is open of it: a way to it that no name leads to any more */
  readonly #files = new Set<NodeOpenFile>();

  constructor(tree: Tree, parent: Place | null, name: string, stat: fs.BigIntStats, fd: number) {
    this.#tree = tree;
    this.kind = kindOf(Number(stat.mode));
    this.#dev = stat.dev;
    this.#ino = stat.ino;
    this.#parent = parent?.keep() ?? null;
    this.#name = name;
    this.#fd = fd;
    tree.places.add(this);
    if (parent) tree.rests(this);
    tree.trim();
  }
  /** @throws FolderError for one that all have let go of: those above it are not held any more */
  keep(): this {
    if (this.#nrKept === 0 && this.#nrCalls === 0) throw new FolderError(EBADF);
    this.#nrKept++;
    return this;
  }
  drop(): void {
    this.#nrKept--;
    for (let place: Place | null = this; place && place.#nrKept === 0 && place.#nrCalls === 0;) {
      const above: Place | null = place.#parent;
      place.forget();
      place.#tree.places.delete(place);
      if (above) above.#nrKept--;
      place = above;
    }
  }
  /** Close the descriptor; it is opened again when it is wanted. */
  forget(): void {
    this.#tree.wakes(this);
    if (this.#fd >= 0) closePlace(this.#fd);
    this.#fd = -1;
  }
  #isSame(s: fs.BigIntStats): boolean { return s.ino === this.#ino && s.dev === this.#dev && kindOf(Number(s.mode)) === this.kind; }
  #call<R>(name: CallName, ...args: unknown[]): Promise<R> { return this.#tree.call<R>(this.#dev, name, ...args); }

  /** Do something with the descriptor, which stays open meanwhile. */
  async #with<R>(does: (fd: number) => Promise<R>): Promise<R> {
    if (this.#nrKept === 0) throw new FolderError(EBADF);
    this.#nrCalls++;
    this.#tree.wakes(this);
    try {
      if (this.#fd < 0) await (this.#opening ??= this.#reopen().finally(() => { this.#opening = null; }));
      return await does(this.#fd);
    } finally {
      if (--this.#nrCalls === 0) {
        if (this.#nrKept === 0) { this.#nrKept++; this.drop(); }
        else if (this.#parent && this.#fd >= 0) this.#tree.rests(this);
        this.#tree.trim();
      }
    }
  }
  /** It is open by this, too. */
  #has(file: NodeOpenFile): void {
    this.#files.add(file);
    file.ended.push(() => this.#files.delete(file));
  }
  async #reopen(): Promise<void> {
    const parent = this.#parent, name = this.#name, [file] = this.#files;
    if (file) {
      this.#fd = await file.during(() => this.#call<number>("open", itself(file.fd), O_PATH));
      return;
    }
    // those above it from the top on: each below its parent would be a stack of as many calls
    const above: Place[] = [];
    for (let p = parent; p && p.#fd < 0; p = p.#parent) above.push(p);
    while (above.length > 0) await above.pop()!.#with(() => Promise.resolve());
    if (!parent || name === "") throw new FolderError(ESTALE);
    const fd = await parent.#with((above) => parent.#call<number>("open", below(above, name), O_PATH | O_NOFOLLOW));
    let isSame = false;
    try { isSame = this.#isSame(await this.#call<fs.BigIntStats>("fstat", fd, BIG)); } finally { if (!isSame) closePlace(fd); }
    if (!isSame) throw new FolderError(ESTALE);        // another file has its name now
    this.#fd = fd;
  }
  /** The folder it was reached in, and a path there for calls that do not follow. @throws FolderError where the name leads to another file now */
  async #named<R>(does: (path: Buffer) => Promise<R>): Promise<R> {
    const parent = this.#parent, name = this.#name;
    if (!parent) throw new FolderError(EBUSY);
    if (name === "") throw new FolderError(ENOENT);
    return parent.#with(async (fd) => {
      const path = below(fd, name);
      if (!this.#isSame(await parent.#call<fs.BigIntStats>("lstat", path, BIG))) throw new FolderError(ENOENT);
      return does(path);
    });
  }
  #mustBeFolder(): void { if (this.kind !== "folder") throw new FolderError(ENOTDIR); }
  get #depth(): number {
    let depth = 0;
    for (let p: Place | null = this; p && depth < MAX_DEPTH; p = p.#parent) depth++;
    return depth;
  }
  /** What stands at a name in this folder, whose descriptor is `fd`. */
  async #enter(fd: number, name: string): Promise<{ node: Place; stat: Stat }> {
    if (this.#depth >= MAX_DEPTH) throw new FolderError(ENAMETOOLONG);
    if (this.#tree.places.size >= PLACES_MAX) throw new FolderError(ENFILE);
    return this.#made(name, await this.#call<number>("open", below(fd, name), O_PATH | O_NOFOLLOW));
  }
  /** A place with this descriptor of its own, which is closed where it cannot be had. */
  async #made(name: string, fd: number): Promise<{ node: Place; stat: Stat }> {
    try {
      const stat = await this.#tree.call<fs.BigIntStats>(null, "fstat", fd, BIG);
      if (stat.dev !== this.#dev && KERNELS_OWN.has(typeOf(await this.#tree.call<fs.BigIntStatsFs>(null, "statfs", itself(fd), BIG)))) throw new FolderError(EACCES);
      return this.#placed(name, fd, stat);
    } catch (e) {
      closePlace(fd);
      throw e;
    }
  }
  #placed(name: string, fd: number, stat: fs.BigIntStats): { node: Place; stat: Stat } {
    return { node: new Place(this.#tree, this, name, stat, fd), stat: this.#tree.statOf(stat) };
  }

  stat(file: OpenFile | null): Promise<Stat> {
    const of = async (fd: number): Promise<Stat> => this.#tree.statOf(await this.#call<fs.BigIntStats>("fstat", fd, BIG));
    return file instanceof NodeOpenFile ? file.during(() => of(file.fd)) : this.#with(of);
  }
  async walk(name: string): Promise<{ node: Place; stat: Stat }> {
    this.#mustBeFolder();
    if (name !== "..") return this.#with((fd) => this.#enter(fd, name));
    const node = (this.#parent ?? this).keep();
    try { return { node, stat: await node.stat(null) }; } catch (e) { node.drop(); throw e; }
  }
  async open(how: Opening): Promise<NodeOpenFile> {
    if (this.kind === "link") throw new FolderError(ELOOP);
    if (this.kind === "other") throw new FolderError(ENXIO);
    if (this.kind === "folder" && (how.writes || how.truncates)) throw new FolderError(EISDIR);
    return this.#with(async (place) => {
      if (how.truncates) await this.#disarm(itself(place));
      const file = await this.#opened(() => this.#call<number>("open", itself(place), this.kind === "folder" ? O_RDONLY | O_DIRECTORY : flagsOf(how)), how);
      try { if (how.writes) await this.#disarm(itself(file.fd)); } catch (e) { file.close(); throw e; }
      this.#has(file);
      return file;
    });
  }
  /** Take set-user-ID and set-group-ID from a file that the guest is about to write: the kernel does so by itself, but not where root writes. */
  async #disarm(path: string): Promise<void> {
    if (!this.#tree.givesAway) return;
    const mode = Number((await this.#call<fs.BigIntStats>("stat", path, BIG)).mode);
    if (mode & 0o6000) await this.#call("chmod", path, mode & FILE_MODE);
  }
  /** An open file of a descriptor, counted. */
  async #opened(open: () => Promise<number>, how: Opening): Promise<NodeOpenFile> {
    this.#tree.taken();
    try { return new NodeOpenFile(this.#tree, await open(), this.#dev, how.writes); } catch (e) { this.#tree.given(); throw e; }
  }
  async create(name: string, how: Opening, isNew: boolean, mode: number, owner: Owner): Promise<{ node: Place; file: NodeOpenFile; stat: Stat }> {
    this.#mustBeFolder();
    if (this.#depth >= MAX_DEPTH) throw new FolderError(ENAMETOOLONG);
    if (this.#tree.places.size >= PLACES_MAX) throw new FolderError(ENFILE);
    return this.#with(async (folder) => {
      for (let tries = 0; ; tries++) {
        // never what is there already: that is looked at before it is opened
        try {
          const file = await this.#opened(() => this.#call<number>("open", below(folder, name), O_CREAT | O_EXCL | O_NOFOLLOW | flagsOf({ ...how, truncates: false }), mode & FILE_MODE), how);
          try {
            const { fd } = file;
            if (this.#tree.givesAway) await this.#call("fchown", fd, owner.uid, owner.gid).catch(() => {});
            await this.#call("fchmod", fd, mode & FILE_MODE).catch(() => {});        // the umask of this process is not the guest's
            const made = await this.#made(name, await this.#call<number>("open", itself(fd), O_PATH));
            made.node.#has(file);
            return { ...made, file };
          } catch (e) { file.close(); throw e; }
        } catch (e) { if (!(e instanceof FolderError && e.errno === EEXIST) || isNew) throw e; }
        try {
          const found = await this.#enter(folder, name);
          try {
            const file = await found.node.open(how);
            return { ...found, file };
          } catch (e) { found.node.drop(); throw e; }
        } catch (e) { if (!(e instanceof FolderError && e.errno === ENOENT) || tries >= 2) throw e; }
      }
    });
  }
  async makeFolder(name: string, mode: number, owner: Owner): Promise<Stat> {
    this.#mustBeFolder();
    return this.#with(async (fd) => {
      await this.#call("mkdir", below(fd, name), mode & FOLDER_MODE);
      const { node } = await this.#enter(fd, name);
      try {
        if (node.kind !== "folder") throw new FolderError(ENOENT);        // somebody was quick
        if (this.#tree.givesAway) await node.change({ uid: owner.uid, gid: owner.gid }, null).catch(() => {});
        await node.change({ mode }, null).catch(() => {});
        return await node.stat(null);
      } finally { node.drop(); }
    });
  }
  async makeLink(name: string, target: string, owner: Owner): Promise<Stat> {
    this.#mustBeFolder();
    return this.#with(async (fd) => {
      const path = below(fd, name);
      await this.#call("symlink", Buffer.from(target, "latin1"), path);
      if (this.#tree.givesAway) await this.#call("lchown", path, owner.uid, owner.gid).catch(() => {});
      return this.#tree.statOf(await this.#call<fs.BigIntStats>("lstat", path, BIG));
    });
  }
  async addName(name: string, of: FolderNode): Promise<void> {
    this.#mustBeFolder();
    if (!(of instanceof Place) || of.#tree !== this.#tree) throw new FolderError(EXDEV);
    await of.#named((path) => this.#with((fd) => this.#call("link", path, below(fd, name))));
  }
  async readLink(): Promise<string> {
    if (this.kind !== "link") throw new FolderError(EINVAL);
    return this.#named((path) => this.#call<string>("readlink", path, "latin1"));
  }
  async list(mostBytes: number): Promise<string[]> {
    this.#mustBeFolder();
    return this.#with(async (fd) => {
      const names: string[] = [];
      let bytes = 0;
      try {
        for await (const { name } of await fs.promises.opendir(itself(fd), { encoding: "latin1" as BufferEncoding, bufferSize: 256 })) {
          if ((bytes += NAME_BYTES + name.length) > mostBytes) throw new FolderError(ENOMEM);
          names.push(name);
        }
      } catch (e) { throw refusal(e); }
      return names;
    });
  }
  async statAll(names: readonly string[]): Promise<(Stat | null)[]> {
    return this.#with(async (fd) => {
      const stats: (Stat | null)[] = [];
      for (let i = 0; i < names.length; i += BATCH) stats.push(...await Promise.all(names.slice(i, i + BATCH).map((name) => this.#call<fs.BigIntStats>("lstat", below(fd, name), BIG).then((s) => this.#tree.statOf(s), () => null))));
      return stats;
    });
  }
  async unlink(name: string, isFolder: boolean): Promise<void> {
    this.#mustBeFolder();
    await this.#with((fd) => this.#call(isFolder ? "rmdir" : "unlink", below(fd, name)));
  }
  async remove(): Promise<void> { await this.#named((path) => this.#call(this.kind === "folder" ? "rmdir" : "unlink", path)); }
  async rename(name: string, to: FolderNode, newName: string): Promise<void> {
    this.#mustBeFolder();
    if (!(to instanceof Place) || to.#tree !== this.#tree) throw new FolderError(EXDEV);
    to.#mustBeFolder();
    to.keep();        // its holder may let go of it meanwhile
    try {
      await this.#with((from) => to.#with((into) => this.#call("rename", below(from, name), below(into, newName))));
      const above = new Set<Place>();
      for (let p: Place | null = to; p; p = p.#parent) above.add(p);
      for (const place of this.#tree.places) if (place.#name === name && place.#parent && place.#parent.#ino === this.#ino && place.#parent.#dev === this.#dev) place.#comesTo(to, newName, above.has(place));
    } finally { to.drop(); }
  }
  /** It was moved. A host that moves folders meanwhile can have a list of parents lead back to itself (`isBelow`): then it is known by its descriptor alone. */
  #comesTo(parent: Place, name: string, isBelow: boolean): void {
    const old = this.#parent!;
    this.#parent = (isBelow ? this.#tree.root : parent).keep();
    this.#name = isBelow ? "" : name;
    old.drop();
  }
  async move(to: FolderNode, newName: string): Promise<void> {
    const parent = this.#parent, name = this.#name;
    await this.#named(() => parent!.rename(name, to, newName));
  }
  async change(c: Change, file: OpenFile | null): Promise<void> {
    const isLink = this.kind === "link", open = file instanceof NodeOpenFile && file.writes ? file : null;
    if (c.sizeBytes !== undefined) {
      if (this.kind !== "file") throw new FolderError(this.kind === "folder" ? EISDIR : EINVAL);
      if (open) await open.during(() => this.#call("ftruncate", open.fd, c.sizeBytes));
      else await this.#with(async (fd) => {
        await this.#disarm(itself(fd));
        await this.#call("truncate", itself(fd), c.sizeBytes);
      });
    }
    if (c.uid !== undefined || c.gid !== undefined) {
      const owner = [c.uid ?? -1, c.gid ?? -1];
      if (isLink) await this.#named((path) => this.#call("lchown", path, ...owner));
      else await this.#by(file, (path) => this.#call("chown", path, ...owner));
    }
    if (c.mode !== undefined) {
      if (isLink) throw new FolderError(EOPNOTSUPP);
      const mode = c.mode & (this.kind === "folder" ? FOLDER_MODE : FILE_MODE);
      await this.#by(file, (path) => this.#call("chmod", path, mode));
    }
    if (c.atimeNs !== undefined || c.mtimeNs !== undefined) {
      const times = [timeOf(c.atimeNs), timeOf(c.mtimeNs)];
      if (isLink) await this.#named((path) => this.#call("lutimes", path, ...times));
      else await this.#by(file, (path) => this.#call("utimes", path, ...times));
    }
  }
  /** A path that names this inode and no way, by the open file where there is one: it may have lost its name. */
  #by<R>(file: OpenFile | null, does: (path: string) => Promise<R>): Promise<R> { return file instanceof NodeOpenFile ? file.during(() => does(itself(file.fd))) : this.#with((fd) => does(itself(fd))); }
  async sync(file: OpenFile | null, dataOnly: boolean): Promise<void> {
    if (!(file instanceof NodeOpenFile)) throw new FolderError(EBADF);
    await file.during(() => this.#call(dataOnly ? "fdatasync" : "fsync", file.fd));
  }
  async space(): Promise<Space> {
    const s = await this.#with((fd) => this.#call<fs.BigIntStatsFs>("statfs", itself(fd), BIG));
    return { blockBytes: Number(s.bsize), nrBlocks: s.blocks, nrFree: s.bfree, nrAvailable: s.bavail, nrFiles: s.files, nrFreeFiles: s.ffree, id: this.#dev };
  }
}

/** Open a folder of this host that can be shared. @param at where it is, if that is known already @returns its descriptor, and where it is: a path without links @throws UserError naming it and the remedy */
function openRoot(path: string, at?: string): { readonly fd: number; readonly at: string; readonly isRemote: boolean } {
  if (process.platform !== "linux") throw new UserError(`${path} cannot be shared: a guest is kept inside a folder by Linux's /proc/self/fd, and this is ${process.platform}`);
  let fd: number;
  try { fd = fs.openSync(at === undefined ? path : Buffer.from(at, "latin1"), O_PATH | O_DIRECTORY); } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new UserError(`${path} does not exist; make the folder, or name another`);
    if (code === "ENOTDIR") throw new UserError(`${path} is not a folder; share the folder it is in`);
    throw new UserError(`${path} cannot be shared: ${whyOf(e)}`);
  }
  try {
    if (!fs.existsSync(itself(fd))) throw new UserError(`${path} cannot be shared: /proc is not mounted`);
    const found = fs.readlinkSync(itself(fd), "latin1"), type = typeOf(fs.statfsSync(itself(fd), BIG));
    if (at !== undefined && found !== at) throw new UserError(`${path} is another folder now, for a link stands in its way; share the folder that is meant`);
    if (KERNELS_OWN.has(type)) throw new UserError(`${path} is a file system of the kernel's own, by which a guest would be in this computer; share a folder of files`);
    return { fd, at: found, isRemote: REMOTE.has(type) };
  } catch (e) {
    fs.closeSync(fd);
    throw e instanceof UserError ? e : new UserError(`${path} cannot be shared: ${whyOf(e)}`);
  }
}
/**
 * A folder of this host. What is wrong with it is told here already, and where it is is settled: a guest that has a folder above it could else put a link in its place, which the next life
 * of a domain would follow. @throws UserError
 */
export function nodeFolder(path: string): FolderSource {
  const { fd, at } = openRoot(path);
  fs.closeSync(fd);
  return {
    path,
    open: async () => {
      const root = openRoot(path, at);
      try { return new Tree(root.fd, fs.fstatSync(root.fd, BIG), root.at, root.isRemote); } catch (e) {
        fs.closeSync(root.fd);
        throw e;
      }
    },
  };
}
