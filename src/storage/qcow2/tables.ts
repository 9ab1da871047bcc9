/** Tables of metadata in memory: a bounded cache of clusters that hold L2 entries or refcounts, and which parts of them are not on disk yet. */
import { type ByteFile, SECTOR_BYTES } from "../disk.ts";

/** A table, wholly in memory: one cluster, or an L1 or refcount table of many. Change `bytes` only together with `touch`. */
export class Table {
  /** byte offset in the file */
  readonly at: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Changed bytes, in whole sectors, not yet taken for writing; from >= to: none. */
  #from = Number.POSITIVE_INFINITY;
  #to = 0;
  /** its cache's count of changed tables, kept true here */
  count: { nrDirty: number } | null = null;

  constructor(at: number, bytes: Uint8Array) {
    this.at = at;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  get isDirty(): boolean {
    return this.#from < this.#to;
  }
  /** Say that bytes were changed. */
  touch(from: number, lengthBytes: number): void {
    if (this.count && !this.isDirty) this.count.nrDirty++;
    this.#from = Math.min(this.#from, from - (from % SECTOR_BYTES));
    this.#to = Math.max(this.#to, Math.min(this.bytes.length, Math.ceil((from + lengthBytes) / SECTOR_BYTES) * SECTOR_BYTES));
  }
  touchEntry(index: number): void {
    this.touch(index * 8, 8);
  }
  /** Copy what changed, as it is now; the table counts as clean from here on. Who fails to write it calls `untake`. */
  take(): Taken {
    if (this.count && this.isDirty) this.count.nrDirty--;
    const from = this.#from, taken = { table: this, at: this.at + from, bytes: this.bytes.slice(from, this.#to) };
    this.#from = Number.POSITIVE_INFINITY;
    this.#to = 0;
    return taken;
  }
  untake(taken: Taken): void {
    this.touch(taken.at - this.at, taken.bytes.length);
  }
}
/** A piece of a table on its way to the disk. */
export type Taken = { readonly table: Table; readonly at: number; readonly bytes: Uint8Array };

/** Tables by their offset, least recently used first. Only clean ones that are not being written are let go. */
export class TableCache {
  readonly #file: ByteFile;
  readonly #tableBytes: number;
  readonly #most: number;
  readonly #tables = new Map<number, Table>();
  readonly #loads = new Map<number, Promise<void>>();
  readonly #count = { nrDirty: 0 };
  /** tables on their way to the disk: a fresh read could bring the old text back */
  #writing = new Set<Table>();

  /** @param sizeBytes how much to keep; sixteen tables at least */
  constructor(file: ByteFile, tableBytes: number, sizeBytes: number) {
    this.#file = file;
    this.#tableBytes = tableBytes;
    this.#most = Math.max(16, Math.floor(sizeBytes / tableBytes));
  }
  /** Hand the table at `at` to `act`, which must not wait: a table may be dropped as soon as it returns. @throws DiskError when it cannot be read */
  async use<T>(at: number, act: (table: Table) => T): Promise<T> {
    for (;;) {
      const table = this.peek(at);
      if (table) return act(table);
      await this.#load(at);
    }
  }
  /** The table, when it is here. */
  peek(at: number): Table | undefined {
    const table = this.#tables.get(at);
    if (table) { this.#tables.delete(at); this.#tables.set(at, table); }
    return table;
  }
  #load(at: number): Promise<void> {
    let load = this.#loads.get(at);
    if (!load) {
      const bytes = new Uint8Array(this.#tableBytes);
      load = this.#file.read(at, bytes).then(() => { if (this.#loads.get(at) === load && !this.#tables.has(at)) this.put(new Table(at, bytes)); })
        .finally(() => { if (this.#loads.get(at) === load) this.#loads.delete(at); });
      this.#loads.set(at, load);
    }
    return load;
  }
  /** Enter a table whose content is known, such as a new one; a read of its place that is under way is void. */
  put(table: Table): void {
    this.drop(table.at);
    this.#tables.set(table.at, table);
    table.count = this.#count;
    if (table.isDirty) this.#count.nrDirty++;
    for (const [at, t] of this.#tables) {
      if (this.#tables.size <= this.#most) break;
      if (!t.isDirty && t !== table && !this.#writing.has(t)) this.#tables.delete(at);
    }
  }
  /** Forget a table: its cluster is free. */
  drop(at: number): void {
    const table = this.#tables.get(at);
    if (table?.isDirty) this.#count.nrDirty--;
    if (table) table.count = null;
    this.#tables.delete(at);
    this.#loads.delete(at);
  }
  get nrDirty(): number {
    return this.#count.nrDirty;
  }
  dirty(): Table[] {
    return this.nrDirty === 0 ? [] : [...this.#tables.values()].filter((t) => t.isDirty);
  }
  /** More changed tables than the cache should hold: time to write them. */
  get isCrowded(): boolean {
    return this.#count.nrDirty > this.#most / 2;
  }
  /** Keep these until `act` is done. One call at a time. */
  async keeping(taken: readonly Taken[], act: () => Promise<void>): Promise<void> {
    this.#writing = new Set(taken.map((t) => t.table));
    try { await act(); } finally { this.#writing = new Set(); }
  }
}
