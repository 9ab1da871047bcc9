/** What is done to a disk while a guest uses it: an external snapshot, and a copy as of one instant. */
import { type Disk, DiskError, type FileStore } from "./disk.ts";
import { copyPiece } from "./copy.ts";
import { createQcow2 } from "./qcow2/create.ts";
import { openQcow2 } from "./qcow2/qcow2.ts";
import { RangeLock, settle } from "./range-lock.ts";

/** Called with a change's range before it is made, and awaited. */
type BeforeChange = (offset: number, lengthBytes: number) => Promise<void>;

/**
 * Stands between a back end and a disk, which can be exchanged under it. Requests pass straight through; while changes are frozen they wait, not fail.
 */
export class LiveDisk implements Disk {
  #disk: Disk;
  #gate = new RangeLock();
  readonly #listeners = new Set<BeforeChange>();
  onResize: (() => void) | null = null;

  constructor(disk: Disk) {
    this.#disk = disk;
    disk.onResize = () => this.onResize?.();
  }
  /** the disk that serves requests now */
  get disk(): Disk { return this.#disk; }
  get name(): string { return this.#disk.name; }
  get format(): string { return this.#disk.format; }
  get sizeBytes(): number { return this.#disk.sizeBytes; }
  get physicalSectorBytes(): number { return this.#disk.physicalSectorBytes; }
  get isReadonly(): boolean { return this.#disk.isReadonly; }

  async #pass<T>(act: () => Promise<T>): Promise<T> {
    const leave = await this.#gate.take(0, 0, false);
    try { return await act(); } finally { leave(); }
  }
  #change(offset: number, lengthBytes: number, act: () => Promise<void>): Promise<void> {
    return this.#pass(async () => {
      for (const before of this.#listeners) await before(offset, lengthBytes);
      await act();
    });
  }
  read(offset: number, into: Uint8Array): Promise<void> { return this.#pass(() => this.#disk.read(offset, into)); }
  write(offset: number, from: Uint8Array): Promise<void> { return this.#change(offset, from.length, () => this.#disk.write(offset, from)); }
  flush(): Promise<void> { return this.#pass(() => this.#disk.flush()); }
  discard(offset: number, lengthBytes: number): Promise<void> { return this.#change(offset, lengthBytes, () => this.#disk.discard(offset, lengthBytes)); }
  writeZeros(offset: number, lengthBytes: number): Promise<void> { return this.#change(offset, lengthBytes, () => this.#disk.writeZeros(offset, lengthBytes)); }
  resize(sizeBytes: number): Promise<void> { return this.#pass(() => this.#disk.resize(sizeBytes)); }
  close(): Promise<void> { return this.#pass(() => this.#disk.close()); }

  /** Let what is under way finish, hold what comes, and put in force what `act` gives. When it throws, all goes on as before. */
  async exchange(act: (disk: Disk) => Promise<Disk>): Promise<void> {
    await this.#gate.exclusive(0, 0, async () => {
      const old = this.#disk, next = await act(old);
      old.onResize = null;
      next.onResize = () => this.onResize?.();
      this.#disk = next;
    });
  }
  /** Begin to tell `before` of changes, at an instant at which none is under way and at which `start` is called. @returns what ends it */
  async watch(before: BeforeChange, start: (disk: Disk) => void): Promise<() => void> {
    await this.#gate.exclusive(0, 0, async () => { start(this.#disk); this.#listeners.add(before); });
    return () => { this.#listeners.delete(before); };
  }
}

/**
 * Take an external snapshot: from here on the disk's file is not changed any more, and all changes go to a new qcow2 image at `path` that names it as its
 * backing file. The guest notices a pause. Crash-consistent: what the guest has not written is not in it.
 * @param backingPath the present file's path as the new image shall name it; default the present disk's name
 */
export async function snapshotLive(live: LiveDisk, store: FileStore, path: string, backingPath = live.name): Promise<void> {
  if (live.format !== "raw" && live.format !== "qcow2") throw new DiskError("unsupported", `${live.name}: a disk of format ${live.format} cannot back a qcow2 image here`);
  await live.exchange(async (present) => {
    await present.flush();
    const file = await store.open(path, "create");
    try {
      await createQcow2(file, { sizeBytes: present.sizeBytes, backing: { path: backingPath, format: present.format } });
    } catch (e) { await file.close(); throw e; }
    return openQcow2(file, { openBacking: async () => frozen(present) });
  });
}
/** The same disk, read-only from here on. */
function frozen(disk: Disk): Disk {
  const refuse = async (): Promise<never> => { throw new DiskError("readonly", `${disk.name} backs another image and is not written any more`); };
  return {
    name: disk.name, format: disk.format, sizeBytes: disk.sizeBytes, physicalSectorBytes: disk.physicalSectorBytes, isReadonly: true, onResize: null,
    read: (offset, into) => disk.read(offset, into), flush: async () => {}, close: () => disk.close(), write: refuse, discard: refuse, writeZeros: refuse, resize: refuse,
  };
}

/** How `backupLive` copies; as `CopyOptions`. */
export type BackupOptions = { readonly signal?: AbortSignal; readonly onProgress?: (doneBytes: number, allBytes: number) => void; readonly isTargetZero?: boolean };
/** The unit of copying before a write. */
const CHUNK_BYTES = 65536;

/**
 * Copy a disk in use as it is at one instant, soon after the call: what a guest is about to change is copied first, the rest in the background. The target is
 * flushed at the end and not closed. A target that fails fails the copy, never the guest's write. @throws DiskError; the signal's reason
 */
export async function backupLive(live: LiveDisk, target: Disk, options: BackupOptions = {}): Promise<void> {
  const lock = new RangeLock();
  let disk = live.disk, all = 0, copied = new Uint8Array(0), nrDone = 0, failure: unknown = null;
  /** Copy chunks that are not copied yet; whoever comes second to one waits for the first. */
  const copy = (first: number, last: number) => lock.exclusive(first, last, async () => {
    for (let c = first; c <= last && !failure; c++) {
      if (copied[c]) continue;
      const at = c * CHUNK_BYTES, n = Math.min(CHUNK_BYTES, all - at);
      await copyPiece(disk, target, at, new Uint8Array(n), 4096, options.isTargetZero ?? false);
      copied[c] = 1;
      options.onProgress?.(Math.min(all, ++nrDone * CHUNK_BYTES), all);
    }
  });
  const end = await live.watch(async (offset, lengthBytes) => {
    if (failure || lengthBytes === 0 || offset < 0 || offset >= all) return;
    await copy(Math.floor(offset / CHUNK_BYTES), Math.min(copied.length, Math.ceil((offset + lengthBytes) / CHUNK_BYTES)) - 1).catch((e) => { failure ??= e; });
  }, (now) => {
    disk = now;
    all = now.sizeBytes;
    copied = new Uint8Array(Math.ceil(all / CHUNK_BYTES));
  });
  try {
    if (target.sizeBytes < all) throw new DiskError("range", `${target.name} has ${target.sizeBytes} bytes, fewer than the ${all} of ${live.name}`);
    let next = 0;
    await settle(Array.from({ length: 4 }, async () => {
      while (next < copied.length && !failure) {
        options.signal?.throwIfAborted();
        const c = next++;
        if (!copied[c]) await copy(c, c);
      }
    }));
    if (failure) throw failure;
  } finally {
    failure ??= "over";
    end();
  }
  await target.flush();
}
