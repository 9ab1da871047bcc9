/**
 * The metadata of an image that is open for writing, and the one way in which it reaches the disk.
 *
 * Requests change tables in memory only, and write data straight to clusters that nothing on disk leads to yet. `commit` then writes, in this order:
 *   1. refcounts; where blocks are new (seldom), a barrier and the refcount table's entries that lead to them;
 *   2. new L2 tables; a barrier, which also makes the data stable that was written before;
 *   3. L2 tables, L1 entries; a barrier;
 *   4. what clusters the old entries led to is given back, in memory: the next commit writes that.
 * So on disk a count is never below the number of entries that lead to the cluster, an entry never leads to what is not written, and a cluster is not used
 * anew while an entry of old leads to it. A power cut between two steps leaks clusters at the worst. A commit of nothing but data is one barrier.
 */
import type { ByteFile } from "../disk.ts";
import { checkRegion, corrupt, type Header, type HeaderFields, patchHeader, roundUp } from "./header.ts";
import { entryOffset, INCOMPAT, isCopiedEntry, OFLAG_COPIED_HI, putEntry } from "./layout.ts";
import { Refcounts } from "./refcounts.ts";
import { RangeLock, settle } from "../range-lock.ts";
import { Table, TableCache, type Taken } from "./tables.ts";

/** How much of L2 tables and refcount blocks is kept, unless said otherwise. */
export const CACHE_BYTES = 4 << 20;

/** One image's metadata. */
export class Metadata {
  readonly file: ByteFile;
  readonly header: Header;
  /** L2 tables and refcount blocks */
  readonly tables: TableCache;
  readonly blocks: TableCache;
  readonly refcounts: Refcounts;
  /** Clusters that hold metadata in force. A guest's data never goes there, whatever an entry says. */
  readonly clusters = new Set<number>();
  /** the active L1 table, whole; entries changed since the last commit, whose L2 tables nothing on disk leads to */
  l1: Table;
  readonly newL2 = new Set<number>();
  /** clusters to give back */
  #frees: number[] = [];
  /** fields of the header that are in force here and may not be so on disk: nothing else is written before them */
  readonly #pendingFields: HeaderFields = {};
  readonly #headerLock = new RangeLock();
  readonly #l2Lock = new RangeLock();
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  private constructor(file: ByteFile, header: Header, l1: Table, reftable: Table, cacheBytes: number) {
    this.file = file;
    this.header = header;
    this.l1 = l1;
    this.tables = new TableCache(file, header.clusterBytes, cacheBytes);
    this.blocks = new TableCache(file, header.clusterBytes, cacheBytes / 2);
    this.refcounts = new Refcounts(file, header, reftable, this.blocks, this.clusters, this);
  }

  /** Read L1 and refcount table. For writing, every table's place is checked, and no two may share a cluster. @throws DiskError `corrupt` */
  static async open(file: ByteFile, header: Header, forWriting: boolean, cacheBytes = CACHE_BYTES): Promise<Metadata> {
    const l1 = new Table(header.l1At, new Uint8Array(header.l1Entries * 8));
    const reftable = new Table(header.reftableAt, new Uint8Array(forWriting ? header.reftableClusters * header.clusterBytes : 0));
    await settle([file.read(l1.at, l1.bytes), file.read(reftable.at, reftable.bytes)]);
    const m = new Metadata(file, header, l1, reftable, cacheBytes);
    if (!forWriting) return m;
    m.claim("header", 0, header.clusterBytes);
    m.claim("refcount table", header.reftableAt, reftable.bytes.length);
    if (header.l1Entries) m.claim("L1 table", header.l1At, l1.bytes.length);
    for (let i = 0; i < reftable.bytes.length / 8; i++) if (entryOffset(reftable.view, i)) m.claim(`refcount block ${i}`, entryOffset(reftable.view, i), header.clusterBytes);
    for (let i = 0; i < header.l1Entries; i++) if (entryOffset(l1.view, i)) m.claim(`L2 table ${i}`, entryOffset(l1.view, i), header.clusterBytes);
    return m;
  }
  /** Enter clusters as metadata. @throws `corrupt` when the place is out of the file or taken */
  claim(what: string, at: number, lengthBytes: number): void {
    const { clusterBytes } = this.header;
    if (at !== 0) checkRegion(this.file, what, at, lengthBytes, clusterBytes);
    for (let c = at / clusterBytes; c < (at + lengthBytes) / clusterBytes; c++) {
      if (this.clusters.has(c)) corrupt(this.file.name, `its ${what} lies in cluster ${c}, where other metadata is`);
      this.clusters.add(c);
    }
  }
  release(at: number, lengthBytes: number): void {
    for (let c = at / this.header.clusterBytes; c < (at + lengthBytes) / this.header.clusterBytes; c++) this.clusters.delete(c);
  }
  /** Give clusters back once what leads to them is gone from the disk too. */
  freeLater(at: number, lengthBytes: number): void {
    const { clusterBytes } = this.header, first = Math.floor(at / clusterBytes), end = Math.ceil((at + lengthBytes) / clusterBytes);
    for (let c = first; c < end; c++) this.#frees.push(c);
  }

  /** Where L2 table `index` lies, for reading; 0: there is none. @throws `corrupt` */
  l2At(index: number): number {
    const at = entryOffset(this.l1.view, index);
    if (at !== 0 && (at % this.header.clusterBytes !== 0 || at + this.header.clusterBytes > roundUp(this.file.sizeBytes, this.header.clusterBytes)) && !this.newL2.has(index)) {
      corrupt(this.file.name, `L1 entry ${index} leads to ${at}, where no table can be`);
    }
    return at;
  }
  /** The L2 table `index` as one that is ours alone: made when there is none, copied when a snapshot has it too. */
  l2ForWriting(index: number): Promise<number> | number {
    const at = this.l2At(index);
    return at !== 0 && isCopiedEntry(this.l1.view, index) ? at : this.#l2Lock.exclusive(index, index, async () => {
      const old = this.l2At(index), { clusterBytes } = this.header;
      if (old !== 0 && isCopiedEntry(this.l1.view, index)) return old;
      const content = old === 0 ? new Uint8Array(clusterBytes) : await this.tables.use(old, (t) => t.bytes.slice());
      const run = await this.refcounts.allocate(1, true), table = new Table(run.first * clusterBytes, content);
      table.touch(0, clusterBytes);
      this.tables.put(table);
      this.clusters.add(run.first);
      putEntry(this.l1.view, index, table.at, OFLAG_COPIED_HI);
      this.l1.touchEntry(index);
      this.newL2.add(index);
      if (old !== 0) { this.release(old, clusterBytes); this.freeLater(old, clusterBytes); }
      return table.at;
    });
  }

  /** Return when all that was changed or written before this call is on stable storage. */
  commit(): Promise<void> {
    if (!this.#running) return this.#running = this.#commit().finally(() => { this.#running = null; });
    // One is under way and may have looked already: one more after it serves all who ask from now on.
    return this.#next ??= this.#running.catch(() => {}).then(() => { this.#next = null; return this.commit(); });
  }
  async #commit(): Promise<void> {
    while (this.#hasPending) await this.#writeHeader();
    const { file, refcounts } = this, write = (parts: readonly Taken[]) => settle(parts.map((p) => file.write(p.at, p.bytes)));
    // All is copied now, in one go: what is changed from here on belongs to the next commit.
    const newL2 = [...this.newL2], newL2At = new Set(newL2.map((i) => entryOffset(this.l1.view, i))), frees = this.#frees;
    const reftable = refcounts.table.isDirty ? [refcounts.table.take()] : [], blocks = this.blocks.dirty().map((t) => t.take()), tables = this.tables.dirty().map((t) => t.take());
    const l1 = this.l1.isDirty ? [this.l1.take()] : [], linked = [...tables.filter((t) => !newL2At.has(t.table.at)), ...l1], all = [...reftable, ...blocks, ...tables, ...l1];
    this.#frees = [];
    const act = async (): Promise<void> => {
      try {
        await write(blocks);
        if (reftable.length) {
          // A new block may be counted by another, so all come before what leads to the new ones.
          await file.flush();
          await write(reftable);
        }
        await write(tables.filter((t) => newL2At.has(t.table.at)));
        await file.flush();
        // Their tables are whole on disk: whether or not the next write arrives, they may be led to from now on.
        for (const i of newL2) if (newL2At.has(entryOffset(this.l1.view, i))) this.newL2.delete(i);
        if (linked.length) {
          await write(linked);
          await file.flush();
        }
      } catch (e) {
        for (const t of all) t.table.untake(t);
        this.#frees = [...frees, ...this.#frees];
        throw e;
      }
    };
    await this.tables.keeping(tables, () => this.blocks.keeping(blocks, act));
    for (const [i, cluster] of frees.entries()) {
      // Before the cluster can be handed out again.
      this.tables.drop(cluster * this.header.clusterBytes);
      this.blocks.drop(cluster * this.header.clusterBytes);
      try {
        // Nothing on disk leads to it any more, and nobody is given it before its count is nought.
        if (file.makesHoles && (await refcounts.get(cluster)) === 1) await file.punch(cluster * this.header.clusterBytes, this.header.clusterBytes);
        await refcounts.add(cluster, 1, -1);
      } catch (e) {
        this.#frees = [...frees.slice(i), ...this.#frees];
        throw e;
      }
    }
  }
  /** Something waits for the next commit. */
  get isDirty(): boolean {
    return this.#frees.length > 0 || this.#hasPending || this.l1.isDirty || this.refcounts.table.isDirty || this.tables.nrDirty > 0 || this.blocks.nrDirty > 0;
  }
  /** Commit when the caches hold more changes than they should. */
  async relieve(): Promise<void> {
    if (this.tables.isCrowded || this.blocks.isCrowded || this.#frees.length > 4096) await this.commit();
  }

  /** Put fields of the header in force, on stable storage too when it returns. When that fails they stay in force and are written before anything else is. */
  async putHeader(fields: HeaderFields): Promise<void> {
    Object.assign(this.header, fields);
    Object.assign(this.#pendingFields, fields);
    await this.#writeHeader();
  }
  get #hasPending(): boolean {
    return Object.keys(this.#pendingFields).length > 0;
  }
  async #writeHeader(): Promise<void> {
    await this.#headerLock.exclusive(0, 0, async () => {
      const fields = { ...this.#pendingFields }, names = Object.keys(fields) as (keyof HeaderFields)[];
      if (names.length === 0) return;
      await patchHeader(this.file, fields);
      await this.file.flush();
      for (const name of names) if (this.#pendingFields[name] === fields[name]) delete this.#pendingFields[name];
    });
  }
  /** Mark the image so that whoever opens it next counts its clusters anew: around changes that cannot be made in a safe order. Version 3 only. */
  async setDirty(isDirty: boolean): Promise<void> {
    if (this.header.version < 3) return;
    await this.commit();
    await this.putHeader({ incompatible: isDirty ? this.header.incompatible | INCOMPAT.DIRTY : this.header.incompatible & ~INCOMPAT.DIRTY });
  }
}
