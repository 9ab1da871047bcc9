/** Where a configuration's files come from in a page: what its user has put into the browser, then what lies beside the page. */
import { UserError } from "../base/errors.ts";
import { unzstd } from "../builder/decompress/zstd.ts";
import { type ByteFile, DiskError, type FileStore } from "../storage/disk.ts";
import { MemoryStore } from "../storage/file_memory.ts";
import { openDisk } from "../storage/open.ts";
import { OpfsStore } from "../storage/opfs.ts";
import type { StoredFile } from "../storage/opfs-messages.ts";
import { checkConfig, type CheckedConfig, type DomainFile } from "../toolstack/config.ts";
import { closeDisks, openEach } from "../toolstack/disks.ts";
import { faultAt, type Place } from "../toolstack/xlcfg.ts";
import type { ImageEntry } from "./images.ts";

/** No kernel or initramfs that anyone means is larger. */
const MAX_IMAGE_BYTES = 2 ** 30, PIECE_BYTES = 1 << 20;

/** The files that a page's domains can have. */
export class Shelf {
  readonly #opfs: OpfsStore | null = OpfsStore.isThere ? new OpfsStore() : null;
  readonly #memory = new MemoryStore();
  readonly #base: URL;
  #images: Promise<readonly ImageEntry[]> | null = null;

  /** @param base the folder beside the page that its images lie in */
  constructor(base: URL) { this.#base = base; }

  /** whether files outlive the page */
  get isKept(): boolean { return this.#opfs !== null; }
  get store(): FileStore { return this.#opfs ?? this.#memory; }

  /** What the page's host offers; nothing where it has no list. */
  images(): Promise<readonly ImageEntry[]> {
    return this.#images ??= (async () => {
      try {
        const answer = await fetch(new URL("list.json", this.#base)), list: unknown = answer.ok ? await answer.json() : [];
        return Array.isArray(list) ? list.filter((i): i is ImageEntry => ["name", "title", "kernel", "ramdisk", "extra"].every((k) => typeof i?.[k] === "string") && Number.isInteger(i?.memoryMiB)) : [];
      } catch { return []; }
    })();
  }
  async files(): Promise<readonly StoredFile[]> {
    if (this.#opfs) return this.#opfs.list();
    return [...this.#memory.files].map(([name, f]) => ({ name, sizeBytes: f.sizeBytes, changedMs: 0 }));
  }
  /** Keep a file. One of the same name is replaced when all of the new one is here. @param told bytes done so far @throws DiskError: nothing of it is left then, and the old one stays */
  async add(name: string, from: Blob, told: (bytes: number) => void = () => {}): Promise<void> {
    const { write, done, drop } = await this.begin(name);
    try {
      for (let at = 0; at < from.size; at += PIECE_BYTES) {
        await write(new Uint8Array(await from.slice(at, at + PIECE_BYTES).arrayBuffer()));
        told(Math.min(from.size, at + PIECE_BYTES));
      }
    } catch (e) { await drop(); throw e; }
    await done();
  }
  async #has(name: string): Promise<boolean> { return (await this.files()).some((f) => f.name === name); }
  /** Begin a file that has its name when it is whole. `done` and `drop` end it. @throws DiskError where one of that name is in use; all three: nothing of it is left, and the old one stays */
  async begin(name: string): Promise<{ write(bytes: Uint8Array): Promise<void>; done(): Promise<void>; drop(): Promise<void> }> {
    const part = `${name}.part`;
    if (await this.#has(name)) await (await this.store.open(name, "write")).close();
    if (await this.#has(part)) await this.remove(part);        // a page was closed in the middle
    const file = await this.store.open(part, "create");
    let at = 0;
    const drop = async (): Promise<void> => {
      await file.close();
      await this.remove(part).catch(() => {});
    };
    return {
      drop,
      write: async (bytes) => { await file.write(at, bytes); at += bytes.length; },
      done: async () => {
        try {
          await file.flush();
          await file.close();
          if (await this.#has(name)) await this.remove(name);
          await (this.#opfs ?? this.#memory).rename(part, name);
        } catch (e) { await drop(); throw e; }
      },
    };
  }
  async remove(name: string): Promise<void> {
    if (this.#opfs) await this.#opfs.remove(name);
    else this.#memory.files.delete(name);
  }
  /** All of a kept file, for a download. */
  async whole(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const file = await this.store.open(name, "read");
    try { return await wholeOf(file); } finally { await file.close(); }
  }

  /** An image by the name that a configuration gives it: a kept file, or one beside the page. @throws UserError */
  async image(path: string): Promise<Uint8Array> {
    const name = path.split("/").pop()!;
    try { return await this.whole(name); } catch (e) {
      if (!(e instanceof DiskError) || e.fault !== "missing") throw e;
    }
    const offered = (await this.images()).some((i) => i.kernel === name || i.ramdisk === name), answer = offered ? await fetch(new URL(name, this.#base)).catch(() => null) : null;
    if (!answer?.ok) throw new UserError(`There is no "${name}" here; add it under Files`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  /** Load what a configuration names. @throws UserError at the place of what cannot be had, with no disk left open */
  async load(domain: DomainFile): Promise<CheckedConfig> {
    const image = async (what: string, { path, place }: { path: string; place: Place }): Promise<Uint8Array> => {
      try { return await this.image(path); } catch (e) { throw e instanceof UserError || e instanceof DiskError ? faultAt(place, `${what}: ${e.message}`) : e; }
    };
    const images = {
      kernel: await image("kernel", domain.kernel), kernelName: domain.kernel.path,
      ...(domain.ramdisk ? { ramdisk: await image("ramdisk", domain.ramdisk), ramdiskName: domain.ramdisk.path } : {}),
    };
    if (domain.channels.length > 0) throw faultAt(domain.channels[0]!.place, "channel: A page has no Unix sockets; leave channels out");
    if (domain.shares.length > 0) throw faultAt(domain.shares[0]!.place, "p9: A page has no folders of the computer to share; leave p9 out");
    checkConfig({ ...domain.config, ...images });
    const disks = await openEach(domain.disks, async (spec, isReadonly) => {
      if (spec.target.includes("://")) throw faultAt(spec.place, `${spec.vdev}: A page has no sockets to reach ${spec.target}; add the image under Files`);
      return openDisk({ path: spec.target, format: spec.format, store: this.store, isReadonly, unzstd: (frame, options) => unzstd(frame, options) });
    });
    try { return checkConfig({ ...domain.config, ...images, disks }); } catch (e) {
      await closeDisks(disks);
      throw e;
    }
  }
}

/** Write a stream into a file of the store, which is there when it came whole. */
export async function intoFile(shelf: Shelf, name: string): Promise<WritableStream<Uint8Array>> {
  const { write, done, drop } = await shelf.begin(name);
  return new WritableStream<Uint8Array>({
    write: (bytes) => write(bytes).catch(async (e) => { await drop(); throw e; }),       // nobody calls abort() of a sink that has failed
    close: done,
    abort: drop,
  });
}
/** Read a file of the store as a stream. */
export async function fromFile(shelf: Shelf, name: string): Promise<ReadableStream<Uint8Array>> {
  const file = await shelf.store.open(name, "read");
  let at = 0;
  return new ReadableStream<Uint8Array>({
    pull: async (out) => {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, file.sizeBytes - at));
      if (piece.length === 0) { out.close(); await file.close(); return; }
      await file.read(at, piece);
      at += piece.length;
      out.enqueue(piece);
    },
    cancel: () => file.close(),
  }, { highWaterMark: 0 });
}

async function wholeOf(file: ByteFile): Promise<Uint8Array<ArrayBuffer>> {
  if (file.sizeBytes > MAX_IMAGE_BYTES) throw new UserError(`${file.name} is ${file.sizeBytes} bytes long; ${MAX_IMAGE_BYTES} is the limit of what is read whole`);
  const all = new Uint8Array(file.sizeBytes);
  for (let at = 0; at < all.length; at += PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, all.length - at));
    await file.read(at, piece);
    all.set(piece, at);
  }
  return all;
}
