/** Which clusters of the file are in use, and how often: reads, counts and hands out. Changes stay in the table cache until `Metadata.commit`. */
import { type ByteFile, DiskError } from "../disk.ts";
import { RangeLock } from "../range-lock.ts";
import { corrupt, type Header } from "./header.ts";
import { entryOffset, MAX_REFTABLE_BYTES, putEntry } from "./layout.ts";
import type { Metadata } from "./metadata.ts";
import { Table, type TableCache } from "./tables.ts";

/** Read refcount `index` of a block. A 64-bit one beyond 2^53 is not exact. */
export function refcountAt(view: DataView, index: number, order: number): number {
  switch (order) {
    case 3: return view.getUint8(index);
    case 4: return view.getUint16(index * 2);
    case 5: return view.getUint32(index * 4);
    case 6: return view.getUint32(index * 8) * 2 ** 32 + view.getUint32(index * 8 + 4);
    default: { const bits = 1 << order, perByte = 8 >> order; return (view.getUint8(Math.floor(index / perByte)) >> ((index % perByte) * bits)) & ((1 << bits) - 1); }
  }
}
/** Write one. @param value is not above `maxRefcount` */
export function setRefcount(view: DataView, index: number, order: number, value: number): void {
  switch (order) {
    case 3: view.setUint8(index, value); return;
    case 4: view.setUint16(index * 2, value); return;
    case 5: view.setUint32(index * 4, value); return;
    case 6: view.setUint32(index * 8, Math.floor(value / 2 ** 32)); view.setUint32(index * 8 + 4, value >>> 0); return;
    default: {
      const bits = 1 << order, perByte = 8 >> order, at = Math.floor(index / perByte), shift = (index % perByte) * bits;
      view.setUint8(at, (view.getUint8(at) & ~(((1 << bits) - 1) << shift)) | (value << shift));
    }
  }
}
/** The largest value of a refcount. */
export const maxRefcount = (order: number): number => (order === 6 ? Number.MAX_SAFE_INTEGER : 2 ** 2 ** order - 1);

/** A run of clusters, by number. */
export type Run = {
  readonly first: number; readonly count: number;
  /** past all that the file ever held: reads as zeros until written */
  readonly isFresh: boolean;
};

/** What `Metadata` does for its refcounts. */
type Owner = Pick<Metadata, "commit" | "putHeader" | "freeLater" | "release">;

/** One image's refcounts. */
export class Refcounts {
  readonly #file: ByteFile;
  readonly #header: Header;
  readonly #tables: TableCache;
  /** clusters that hold metadata in force: never to be handed out, nor written as data */
  readonly #metadata: Set<number>;
  readonly #owner: Owner;
  readonly #alloc = new RangeLock();
  readonly #perBlock: number;
  /** no cluster below is free */
  #hint = 0;
  /** no cluster from here on was ever in use */
  #fresh: number;
  /** the refcount table, whole */
  table: Table;

  constructor(file: ByteFile, header: Header, table: Table, tables: TableCache, metadata: Set<number>, owner: Owner) {
    this.#file = file;
    this.#header = header;
    this.#tables = tables;
    this.#metadata = metadata;
    this.#owner = owner;
    this.table = table;
    this.#fresh = Math.ceil(file.sizeBytes / header.clusterBytes);
    this.#perBlock = (header.clusterBytes * 8) / 2 ** header.refcountOrder;
  }
  get max(): number {
    return maxRefcount(this.#header.refcountOrder);
  }
  #blockAt(cluster: number): number {
    const index = Math.floor(cluster / this.#perBlock);
    return index * 8 < this.table.bytes.length ? entryOffset(this.table.view, index) : 0;
  }
  /** How often a cluster is in use. */
  async get(cluster: number): Promise<number> {
    const at = this.#blockAt(cluster);
    return at === 0 ? 0 : this.#tables.use(at, (t) => refcountAt(t.view, cluster % this.#perBlock, this.#header.refcountOrder));
  }
  /** Add to each of `count` clusters. @throws `corrupt` below zero, `unsupported` above what the image's refcounts hold */
  async add(first: number, count: number, delta: number): Promise<void> {
    const order = this.#header.refcountOrder, per = this.#perBlock, name = this.#file.name;
    for (let c = first; c < first + count; ) {
      const n = Math.min(first + count - c, per - (c % per)), from = c, at = this.#blockAt(c);
      if (at === 0) corrupt(name, `cluster ${c} is in use but has no refcount block`);
      await this.#tables.use(at, (t) => {
        for (let i = from % per; i < (from % per) + n; i++) {
          const old = refcountAt(t.view, i, order), value = old + delta, cluster = from - (from % per) + i;
          if (value < 0) corrupt(name, `cluster ${cluster} is in use but its refcount is ${old}`);
          if (value > this.max) throw new DiskError("unsupported", `${name}: cluster ${cluster} would have ${value} users, more than its refcounts can count`);
          setRefcount(t.view, i, order, value);
          t.touch(Math.floor((i * 2 ** order) / 8), Math.max(1, 2 ** order / 8));
          if (value === 0) this.#hint = Math.min(this.#hint, cluster);
        }
      });
      c += n;
    }
  }

  /**
   * Hand out clusters in a row, each with refcount 1. On disk they stay free until the next commit, so a crash leaks none.
   * @param isExact all of `count`; else fewer may come, at least one
   */
  allocate(count: number, isExact: boolean): Promise<Run> {
    return this.#alloc.exclusive(0, 0, async () => {
      const hint = this.#hint;
      let first = await this.#firstFree(hint);
      if (this.#hint === hint) this.#hint = first;
      for (let c = first; ; ) {
        const nrBlocks = this.#missingBlocks(c, count), nrFree = await this.#freeFrom(c, count + nrBlocks);
        const run = nrFree >= count + nrBlocks ? count : !isExact && nrFree > 0 && this.#missing(c, nrFree) === 0 ? nrFree : 0;
        if (run === 0) { c = await this.#firstFree(c + nrFree); continue; }
        if (Math.floor((c + run + nrBlocks - 1) / this.#perBlock) * 8 >= this.table.bytes.length) {
          await this.#grow(c + run + nrBlocks);
          first = c = await this.#firstFree(this.#hint);
          continue;
        }
        return this.#hand(c, run, run === count ? nrBlocks : 0, first);
      }
    });
  }
  async #hand(c: number, count: number, nrBlocks: number, firstFree: number): Promise<Run> {
    const { clusterBytes } = this.#header;
    for (let i = c; i < c + count + nrBlocks; i++) if (this.#metadata.has(i)) corrupt(this.#file.name, `cluster ${i} holds metadata but its refcount is 0`);
    if (c + count + nrBlocks > Number.MAX_SAFE_INTEGER / clusterBytes) throw new DiskError("nospace", `${this.#file.name} has no offsets left`);
    const end = c + count + nrBlocks, per = this.#perBlock, parts = Array.from({ length: Math.floor((end - 1) / per) - Math.floor(c / per) + 1 }, (_, k) => Math.floor(c / per) + k)
      .map((index) => ({ index, from: Math.max(c, index * per), to: Math.min(end, (index + 1) * per), isNew: entryOffset(this.table.view, index) === 0 }));
    for (const p of parts) if (!p.isNew) await this.add(p.from, p.to - p.from, 1);
    // In one go, and after the others: no commit must see a block that is in use and not counted.
    let block = c + count;
    for (const { index, from, to } of parts.filter((p) => p.isNew)) {
      const t = new Table(block * clusterBytes, new Uint8Array(clusterBytes));
      for (let i = from; i < to; i++) setRefcount(t.view, i % per, this.#header.refcountOrder, 1);
      t.touch(0, clusterBytes);
      this.#tables.put(t);
      this.#metadata.add(block++);
      putEntry(this.table.view, index, t.at, 0);
      this.table.touchEntry(index);
    }
    if (c === firstFree && this.#hint === c) this.#hint = c + count + nrBlocks;
    const isFresh = c >= this.#fresh;
    this.#fresh = Math.max(this.#fresh, c + count + nrBlocks);
    return { first: c, count, isFresh };
  }
  /** How many refcount blocks a range lacks. */
  #missing(c: number, count: number): number {
    let n = 0;
    for (let i = Math.floor(c / this.#perBlock); i <= Math.floor((c + count - 1) / this.#perBlock); i++) if (i * 8 >= this.table.bytes.length || entryOffset(this.table.view, i) === 0) n++;
    return n;
  }
  /** ... when those blocks stand right behind it. */
  #missingBlocks(c: number, count: number): number {
    for (let n = 0; ; ) {
      const more = this.#missing(c, count + n);
      if (more === n) return n;
      n = more;
    }
  }
  /** Scan a block's part: the first cluster from `c` whose being free is `wanted`, or the block's end, or `most` clusters on. */
  #scan(c: number, wanted: boolean, most: number): Promise<number> | number {
    const at = this.#blockAt(c), base = c - (c % this.#perBlock), end = Math.min(base + this.#perBlock, c + most), order = this.#header.refcountOrder;
    if (at === 0) return wanted ? c : end;
    return this.#tables.use(at, (t) => {
      let i = c - base;
      while (base + i < end && (refcountAt(t.view, i, order) === 0) !== wanted) i++;
      return base + i;
    });
  }
  async #firstFree(from: number): Promise<number> {
    for (let c = from; ; ) {
      const found = await this.#scan(c, true, this.#perBlock);
      if (found % this.#perBlock !== 0 || found === c) return found;
      c = found;
    }
  }
  async #freeFrom(from: number, most: number): Promise<number> {
    for (let c = from; ; ) {
      if (c - from >= most) return most;
      const found = await this.#scan(c, false, most - (c - from));
      if (found % this.#perBlock !== 0 || found === c) return found - from;
      c = found;
    }
  }

  /**
   * Make a longer refcount table, in clusters that blocks of their own count. It and the blocks are on disk before the header leads to them; the old
   * table's clusters are given back after that. Everything else that is new is committed first, so the copy is whole.
   * @param clusters how many the file will have at least
   */
  async #grow(clusters: number): Promise<void> {
    const { clusterBytes, refcountOrder } = this.#header, per = this.#perBlock, file = this.#file;
    await this.#owner.commit();
    const first = Math.ceil(clusters / per) * per, old = this.table;
    let nrBlocks = 1, nrTable = 1;
    for (;;) {
      const entries = Math.max(first / per + nrBlocks, Math.ceil((old.bytes.length / 8) * 1.5)), wanted = Math.ceil((entries * 8) / clusterBytes);
      const blocks = Math.ceil((wanted + nrBlocks) / per);
      if (wanted === nrTable && blocks <= nrBlocks) break;
      nrTable = wanted;
      nrBlocks = Math.max(nrBlocks, blocks);
    }
    if (nrTable * clusterBytes > MAX_REFTABLE_BYTES) throw new DiskError("nospace", `${file.name} is as long as its cluster size of ${clusterBytes} bytes allows`);
    const table = new Table(first * clusterBytes, new Uint8Array(nrTable * clusterBytes)), blocks: Table[] = [];
    table.bytes.set(old.bytes);
    for (let b = 0; b < nrBlocks; b++) {
      const block = new Table((first + nrTable + b) * clusterBytes, new Uint8Array(clusterBytes));
      for (let c = first + b * per; c < Math.min(first + nrTable + nrBlocks, first + (b + 1) * per); c++) setRefcount(block.view, c % per, refcountOrder, 1);
      putEntry(table.view, first / per + b, block.at, 0);
      await file.write(block.at, block.bytes);
      blocks.push(block);
    }
    await file.write(table.at, table.bytes);
    await file.flush();
    for (const b of blocks) this.#tables.put(b);
    for (let c = first; c < first + nrTable + nrBlocks; c++) this.#metadata.add(c);
    this.#fresh = Math.max(this.#fresh, first + nrTable + nrBlocks);
    this.table = table;
    const { reftableAt } = this.#header;
    this.#owner.release(reftableAt, old.bytes.length);
    this.#owner.freeLater(reftableAt, old.bytes.length);
    await this.#owner.putHeader({ reftableAt: table.at, reftableClusters: nrTable });
  }
}
