/** A disk whose changes live in memory, over one that is never written: for domains that leave nothing behind. */
import { checkRange, type Disk, DiskError, SECTOR_BYTES } from "./disk.ts";

const PAGE_BYTES = 4096, PAGE_SECTORS = PAGE_BYTES / SECTOR_BYTES;
/** Pages get their place in slabs of this many, so that a gigabyte is not a quarter million buffers. */
const SLAB_PAGES = 256;

/** Bounds of a `MemoryOverlay`. */
export type OverlayOptions = {
  /** memory for what differs from the base, in bytes; what does not fit is refused with `nospace`. Default 1 GiB */
  readonly maxBytes?: number;
};
/** `valid` has a bit for each sector that is in the page; other sectors are the base's. `slot` is the page's place; -1: the valid sectors are zeros and take none. */
type Page = { valid: number; slot: number };

/** Closing it closes the base, and forgets all. The base is only read. */
export class MemoryOverlay implements Disk {
  readonly name: string;
  readonly format = "memory";
  readonly physicalSectorBytes = PAGE_BYTES;
  readonly isReadonly = false;
  sizeBytes: number;
  onResize: (() => void) | null = null;
  readonly #base: Disk;
  /** where the base ends for us: shrinking cuts it off for good */
  #baseBytes: number;
  readonly #maxPages: number;
  readonly #pages = new Map<number, Page>();
  readonly #slabs: Uint8Array[] = [];
  readonly #free: number[] = [];
  #nrSlots = 0;
  #isClosed = false;

  constructor(base: Disk, options: OverlayOptions = {}) {
    this.name = base.name;
    this.#base = base;
    this.sizeBytes = this.#baseBytes = base.sizeBytes;
    this.#maxPages = Math.floor((options.maxBytes ?? 2 ** 30) / PAGE_BYTES);
  }
  /** memory taken by what differs from the base */
  get usedBytes(): number {
    return (this.#nrSlots - this.#free.length) * PAGE_BYTES;
  }
  #check(offset: number, lengthBytes: number): void {
    if (this.#isClosed) throw new DiskError("closed", `${this.name} is closed`);
    checkRange(this, offset, lengthBytes);
  }
  #slot(slot: number): Uint8Array {
    const at = (slot % SLAB_PAGES) * PAGE_BYTES;
    return this.#slabs[Math.floor(slot / SLAB_PAGES)]!.subarray(at, at + PAGE_BYTES);
  }
  #allocate(): number {
    const used = this.#free.pop();
    if (used !== undefined) return used;
    if (this.#nrSlots >= this.#maxPages) throw new DiskError("nospace", `The changes to ${this.name} take ${this.usedBytes} bytes of memory, which is the limit`);
    if (this.#nrSlots % SLAB_PAGES === 0) this.#slabs.push(new Uint8Array(SLAB_PAGES * PAGE_BYTES));
    return this.#nrSlots++;
  }
  /** Call `act` for each page of a range: with the range's part in it, and the bit of each sector of that part. */
  #each(offset: number, lengthBytes: number, act: (index: number, from: number, n: number, bits: number) => void): void {
    for (let at = offset; at < offset + lengthBytes; ) {
      const from = at % PAGE_BYTES, n = Math.min(PAGE_BYTES - from, offset + lengthBytes - at), nr = n / SECTOR_BYTES;
      act(Math.floor(at / PAGE_BYTES), from, n, ((1 << nr) - 1) << (from / SECTOR_BYTES));
      at += n;
    }
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length);
    let isWhole = true;
    this.#each(offset, into.length, (index, _from, _n, bits) => { isWhole &&= ((this.#pages.get(index)?.valid ?? 0) & bits) === bits; });
    if (!isWhole) {
      const n = Math.max(0, Math.min(into.length, this.#baseBytes - offset));
      if (n) await this.#base.read(offset, into.subarray(0, n));
      into.fill(0, n);
    }
    // After the base was read, so that a page that was given meanwhile wins.
    this.#each(offset, into.length, (index, from, n) => {
      const page = this.#pages.get(index), to = index * PAGE_BYTES - offset;
      if (!page) return;
      for (let s = from; s < from + n; s += SECTOR_BYTES) {
        if (!(page.valid & (1 << (s / SECTOR_BYTES)))) continue;
        if (page.slot < 0) into.fill(0, to + s, to + s + SECTOR_BYTES); else into.set(this.#slot(page.slot).subarray(s, s + SECTOR_BYTES), to + s);
      }
    });
  }
  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length);
    this.#each(offset, from.length, (index, at, n, bits) => {
      const page = this.#pages.get(index) ?? { valid: 0, slot: -1 };
      if (page.slot < 0) { page.slot = this.#allocate(); this.#slot(page.slot).fill(0); }
      this.#slot(page.slot).set(from.subarray(index * PAGE_BYTES + at - offset, index * PAGE_BYTES + at - offset + n), at);
      page.valid |= bits;
      this.#pages.set(index, page);
    });
  }
  async flush(): Promise<void> {
    this.#check(0, 0);
  }
  discard(offset: number, lengthBytes: number): Promise<void> {
    return this.writeZeros(offset, lengthBytes);
  }
  async writeZeros(offset: number, lengthBytes: number): Promise<void> {
    this.#check(offset, lengthBytes);
    this.#each(offset, lengthBytes, (index, at, n, bits) => {
      const page = this.#pages.get(index), start = index * PAGE_BYTES;
      if (!page && start + at >= this.#baseBytes) return;
      if (!page) { this.#pages.set(index, { valid: bits, slot: -1 }); return; }
      page.valid |= bits;
      if (page.slot < 0) return;
      this.#slot(page.slot).fill(0, at, at + n);
      if (n < PAGE_BYTES) return;
      this.#free.push(page.slot);
      page.slot = -1;
    });
  }
  async resize(sizeBytes: number): Promise<void> {
    this.#check(0, 0);
    if (sizeBytes % SECTOR_BYTES !== 0 || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw new DiskError("range", `${this.name}: ${sizeBytes} bytes are not whole sectors`);
    this.#baseBytes = Math.min(this.#baseBytes, sizeBytes);
    for (const [index, page] of sizeBytes < this.sizeBytes ? [...this.#pages] : []) {
      const kept = Math.max(0, Math.min(PAGE_SECTORS, (sizeBytes - index * PAGE_BYTES) / SECTOR_BYTES));
      page.valid &= (1 << kept) - 1;
      if (kept > 0) continue;
      if (page.slot >= 0) this.#free.push(page.slot);
      this.#pages.delete(index);
    }
    this.sizeBytes = sizeBytes;
    this.onResize?.();
  }
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#pages.clear();
    this.#slabs.length = 0;
    await this.#base.close();
  }
}
