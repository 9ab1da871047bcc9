/**
 * Dynamic VHD. Blocks stand in the file in the order they were first written; each begins with a bitmap of the sectors that hold something. The footer stands
 * at the end and moves as blocks are added.
 *
 * Order, so that a crash at any point leaves an image that is whole and holds what was flushed: a block, its bitmap and the new footer are written first; the
 * table's entry, and bits of blocks that were there, are kept here and written by `flush`, after the file's own flush. What was not flushed may be lost, as with
 * any disk that has a cache.
 */
import { type ByteFile, checkRange, type Disk, DiskError, SECTOR_BYTES } from "../disk.ts";
import { BAT_FREE, FOOTER_BYTES, HEADER_BYTES, readHeader, type VhdFooter, type VhdHeader } from "./format.ts";

/** A bitmap, bit 7 of byte 0 first; null: every bit is set, as with all blocks that we or qemu made. */
type Bitmap = Uint8Array<ArrayBuffer> | null;
/** What all full ones share. */
const FULL: Promise<Bitmap> = Promise.resolve(null);

/** An open dynamic image. */
export class DynamicVhd implements Disk {
  readonly format = "vhd";
  readonly physicalSectorBytes = SECTOR_BYTES;
  readonly sizeBytes: number;
  readonly isReadonly: boolean;
  onResize: (() => void) | null = null;
  readonly #file: ByteFile;
  readonly #footer: Uint8Array;
  readonly #header: VhdHeader;
  readonly #bitmapBytes: number;
  /** sector of each block in the file, or BAT_FREE; ahead of the file's by the blocks in #fresh */
  readonly #table: Uint32Array;
  #fresh = new Set<number>();
  readonly #bitmaps = new Map<number, Promise<Bitmap>>();
  /** blocks whose bitmap has bits that the file lacks */
  #dirty = new Set<number>();
  /** where the footer stands and the next block will */
  #end: number;
  #growing: Promise<unknown> = Promise.resolve();
  #flushing: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  private constructor(file: ByteFile, footerBytes: Uint8Array, footer: VhdFooter, header: VhdHeader, table: Uint32Array, end: number, isReadonly: boolean) {
    this.#file = file;
    this.#footer = footerBytes.slice();
    this.#header = header;
    this.#table = table;
    this.#end = end;
    this.sizeBytes = footer.sizeBytes;
    this.isReadonly = isReadonly;
    this.#bitmapBytes = Math.ceil(header.blockBytes / SECTOR_BYTES / 8 / SECTOR_BYTES) * SECTOR_BYTES;
  }
  get name(): string { return this.#file.name; }

  /** @param end where the footer stands, or may be put @param mend whether it must be */
  static async open(file: ByteFile, footerBytes: Uint8Array, footer: VhdFooter, end: number, mend: boolean, isReadonly: boolean): Promise<DynamicVhd> {
    const bad = (why: string): DiskError => new DiskError("corrupt", `${file.name}: ${why}`), fileBytes = file.sizeBytes, headBytes = new Uint8Array(HEADER_BYTES);
    if (footer.dataOffset % BigInt(SECTOR_BYTES) !== 0n || footer.dataOffset + BigInt(HEADER_BYTES) > BigInt(fileBytes)) throw bad(`the dynamic disk header at ${footer.dataOffset} is not inside the file's ${fileBytes} bytes`);
    const headerAt = Number(footer.dataOffset);
    await file.read(headerAt, headBytes);
    const header = readHeader(headBytes, footer.sizeBytes, fileBytes, file.name), raw = new Uint8Array(header.nrEntries * 4), v = new DataView(raw.buffer);
    await file.read(header.tableOffset, raw);
    const table = Uint32Array.from({ length: header.nrEntries }, (_, i) => v.getUint32(i * 4));
    const disk = new DynamicVhd(file, footerBytes, footer, header, table, end, isReadonly), spanBytes = disk.#bitmapBytes + header.blockBytes;
    // Regions that blocks must keep clear of: the first footer, the header, the table; then each other.
    const taken = [[0, FOOTER_BYTES], [headerAt, headerAt + HEADER_BYTES], [header.tableOffset, header.tableOffset + raw.length]] as const;
    let before = -spanBytes;
    for (const sector of table.filter((s) => s !== BAT_FREE).sort()) {
      const at = sector * SECTOR_BYTES;
      if (at + spanBytes > end) throw bad(`a block at ${at} reaches past the end, ${end}`);
      if (at < before + spanBytes) throw bad(`the blocks at ${before} and ${at} overlap`);
      for (const [from, to] of taken) if (at < to && from < at + spanBytes) throw bad(`a block at ${at} lies over the headers or the table`);
      before = at;
    }
    if (mend && !isReadonly) await file.write(end, footerBytes);
    return disk;
  }

  #check(offset: number, lengthBytes: number, writes: boolean): void {
    if (this.#isClosed) throw new DiskError("closed", `${this.name} is closed`);
    if (writes && this.isReadonly) throw new DiskError("readonly", `${this.name} is read-only`);
    checkRange(this, offset, lengthBytes);
  }
  /** Cut a request at blocks' borders and do all parts. */
  async #each(offset: number, lengthBytes: number, part: (block: number, inBlock: number, at: number, n: number) => Promise<void>): Promise<void> {
    const { blockBytes } = this.#header, parts: Promise<void>[] = [];
    for (let at = 0; at < lengthBytes;) {
      const inBlock = (offset + at) % blockBytes, n = Math.min(lengthBytes - at, blockBytes - inBlock);
      parts.push(part(Math.floor((offset + at) / blockBytes), inBlock, at, n));
      at += n;
    }
    for (const p of await Promise.allSettled(parts)) if (p.status === "rejected") throw p.reason;
  }
  #at(block: number): number {
    return this.#table[block]! * SECTOR_BYTES;
  }
  #bitmap(block: number): Promise<Bitmap> {
    const found = this.#bitmaps.get(block);
    if (found) return found;
    const bits = new Uint8Array(this.#bitmapBytes), used = this.#header.blockBytes / SECTOR_BYTES / 8;
    const reading = this.#file.read(this.#at(block), bits).then(() => (bits.subarray(0, used).every((x) => x === 0xff) ? null : bits));
    reading.then((map) => { if (!map) this.#bitmaps.set(block, FULL); }, () => this.#bitmaps.delete(block));
    this.#bitmaps.set(block, reading);
    return reading;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length, false);
    await this.#each(offset, into.length, async (block, inBlock, at, n) => {
      const part = into.subarray(at, at + n);
      if (this.#table[block] === BAT_FREE) { part.fill(0); return; }
      const map = await this.#bitmap(block), from = this.#at(block) + this.#bitmapBytes + inBlock;
      await this.#file.read(from, part);
      if (!map) return;
      for (let i = 0, sector = inBlock / SECTOR_BYTES; i < n; i += SECTOR_BYTES, sector++) {
        if (!(map[sector >> 3]! & (0x80 >> (sector & 7)))) part.fill(0, i, i + SECTOR_BYTES);
      }
    });
  }

  /** Add a block, all its sectors valid and zero. One at a time. */
  async #allocate(block: number): Promise<void> {
    const grown = this.#growing.then(async () => {
      if (this.#table[block] !== BAT_FREE) return;
      const at = this.#end, next = at + this.#bitmapBytes + this.#header.blockBytes, bits = new Uint8Array(this.#bitmapBytes).fill(0xff);
      if (at % SECTOR_BYTES !== 0 || next / SECTOR_BYTES >= BAT_FREE) throw new DiskError("nospace", `${this.name}: the image cannot grow past ${next} bytes`);
      try {
        await this.#file.write(next, this.#footer);    // from here on there are two footers, and the file between them is zeros
        await this.#file.write(at, bits);
      } catch (e) {
        // The old footer may be half a bitmap: put it back, and the file's old end with it.
        await this.#file.write(at, this.#footer).then(() => this.#file.truncate(at + FOOTER_BYTES)).catch(() => {});
        throw e;
      }
      this.#end = next;
      this.#bitmaps.set(block, FULL);
      this.#table[block] = at / SECTOR_BYTES;
      this.#fresh.add(block);
    });
    this.#growing = grown.catch(() => {});
    await grown;
  }
  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length, true);
    await this.#each(offset, from.length, async (block, inBlock, at, n) => {
      if (this.#table[block] === BAT_FREE) await this.#allocate(block);
      await this.#file.write(this.#at(block) + this.#bitmapBytes + inBlock, from.subarray(at, at + n));
      const map = await this.#bitmap(block);
      if (!map) return;
      for (let sector = inBlock / SECTOR_BYTES; sector < (inBlock + n) / SECTOR_BYTES; sector++) map[sector >> 3]! |= 0x80 >> (sector & 7);
      this.#dirty.add(block);
    });
  }
  async writeZeros(offset: number, lengthBytes: number): Promise<void> {
    this.#check(offset, lengthBytes, true);
    await this.#each(offset, lengthBytes, async (block, inBlock, _at, n) => {
      if (this.#table[block] !== BAT_FREE) await this.#file.punch(this.#at(block) + this.#bitmapBytes + inBlock, n);
    });
  }
  async discard(offset: number, lengthBytes: number): Promise<void> {
    await this.writeZeros(offset, lengthBytes);
  }

  async flush(): Promise<void> {
    if (this.isReadonly) return;
    const flushed = this.#flushing.then(async () => {
      const fresh = this.#fresh, dirty = this.#dirty;
      this.#fresh = new Set();
      this.#dirty = new Set();
      try {
        // The bits as they are now: later ones may be of data that this flush does not cover.
        const maps = await Promise.all([...dirty].map(async (block) => ({ block, bits: (await this.#bitmap(block))!.slice() })));
        await this.#file.flush();
        if (fresh.size === 0 && maps.length === 0) return;
        for (const { block, bits } of maps) await this.#file.write(this.#at(block), bits);
        for (const [at, bytes] of this.#tableSectors(fresh)) await this.#file.write(at, bytes);
        await this.#file.flush();
      } catch (e) {
        for (const b of fresh) this.#fresh.add(b);
        for (const b of dirty) this.#dirty.add(b);
        throw e;
      }
    });
    this.#flushing = flushed.catch(() => {});
    await flushed;
  }
  /** Sectors of the table that hold entries of `fresh`, as the file shall have them: without blocks that were added since. */
  *#tableSectors(fresh: ReadonlySet<number>): Generator<[at: number, bytes: Uint8Array]> {
    const perSector = SECTOR_BYTES / 4;
    for (const sector of new Set([...fresh].map((b) => Math.floor(b / perSector)))) {
      const nr = Math.min(perSector, this.#table.length - sector * perSector), bytes = new Uint8Array(nr * 4), v = new DataView(bytes.buffer);
      for (let i = 0; i < nr; i++) {
        const block = sector * perSector + i;
        v.setUint32(i * 4, this.#fresh.has(block) ? BAT_FREE : this.#table[block]!);
      }
      yield [this.#header.tableOffset + sector * SECTOR_BYTES, bytes];
    }
  }
  resize(): Promise<void> {
    return Promise.reject(new DiskError("unsupported", `${this.name}: a VHD image keeps its size`));
  }
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try { await this.flush(); } finally { await this.#file.close(); }
  }
}
