/**
 * Consistency of an image nobody has open: every cluster is counted by what leads to it, and compared with its refcount. Work and memory go with the file's
 * length, whatever its tables say: a table that many lead to is read once, with the number of those who do.
 */
import type { ByteFile } from "../disk.ts";
import { Contradiction, corrupt, type Header, patchHeader, readHeader, roundUp } from "./header.ts";
import {
  AUTOCLEAR, entryOffset, hasReservedBits, INCOMPAT, isCopiedEntry, MAX_BITMAPS, MAX_REFTABLE_BYTES, mappingAt, OFLAG_COPIED_HI, putEntry, Qcow2BitmapDirEntry as BE,
  Qcow2BitmapHeaderExt as BH,
} from "./layout.ts";
import { maxRefcount, refcountAt, setRefcount } from "./refcounts.ts";
import { readSnapshots, snapshotTableBytes, usedClusters } from "./snapshots.ts";

/** `nrErrors` can lose data, `nrLeaks` are clusters in use by nobody. `errors`: the first hundred, as sentences. */
export type Qcow2Check = {
  nrErrors: number; nrLeaks: number; errors: string[]; nrDataClusters: number; nrCompressedClusters: number; nrSnapshots: number; fileClusters: number;
  isDirty: boolean; isMarkedCorrupt: boolean;
};

/** Counts by cluster, sparse: a file may be long and nearly empty. */
class Counts {
  readonly #chunks = new Map<number, Uint32Array>();
  get(c: number): number {
    return this.#chunks.get(Math.floor(c / 4096))?.[c % 4096] ?? 0;
  }
  add(first: number, count: number, n: number): void {
    for (let c = first; c < first + count; c++) {
      const key = Math.floor(c / 4096);
      let chunk = this.#chunks.get(key);
      if (!chunk) this.#chunks.set(key, chunk = new Uint32Array(4096));
      chunk[c % 4096] = Math.max(0, chunk[c % 4096]! + n);
    }
  }
  *used(): Generator<[cluster: number, count: number]> {
    for (const key of [...this.#chunks.keys()].sort((a, b) => a - b)) {
      const chunk = this.#chunks.get(key)!;
      for (let i = 0; i < 4096; i++) if (chunk[i]) yield [key * 4096 + i, chunk[i]!];
    }
  }
}

class Checker {
  readonly file: ByteFile;
  readonly header: Header;
  readonly counts = new Counts();
  readonly result: Qcow2Check;
  /** valid refcount blocks by index, their places; and the active L2 tables */
  readonly blocks = new Map<number, number>();
  reftable: DataView = new DataView(new ArrayBuffer(0));
  l1: DataView<ArrayBuffer> = new DataView(new ArrayBuffer(0));
  readonly activeL2: number[] = [];

  constructor(file: ByteFile, header: Header) {
    this.file = file;
    this.header = header;
    this.result = {
      nrErrors: 0, nrLeaks: 0, errors: [], nrDataClusters: 0, nrCompressedClusters: 0, nrSnapshots: header.nrSnapshots, fileClusters: Math.ceil(file.sizeBytes / header.clusterBytes),
      isDirty: (header.incompatible & INCOMPAT.DIRTY) !== 0n, isMarkedCorrupt: (header.incompatible & INCOMPAT.CORRUPT) !== 0n,
    };
  }
  error(what: string): void {
    if (++this.result.nrErrors <= 100) this.result.errors.push(what);
  }
  async bytes(at: number, lengthBytes: number): Promise<DataView<ArrayBuffer>> {
    const bytes = new Uint8Array(lengthBytes);
    await this.file.read(at, bytes);
    return new DataView(bytes.buffer);
  }
  /** Count a region that metadata names; it is said to lie in the file already. */
  region(at: number, lengthBytes: number): void {
    const { clusterBytes } = this.header;
    this.counts.add(Math.floor(at / clusterBytes), Math.ceil((at + lengthBytes) / clusterBytes) - Math.floor(at / clusterBytes), 1);
  }
  /** @returns whether a cluster of the file can be there; else it is an error */
  isPlace(at: number, what: string): boolean {
    const { clusterBytes } = this.header;
    if (at % clusterBytes === 0 && at + clusterBytes <= roundUp(this.file.sizeBytes, clusterBytes)) return true;
    this.error(`${what} leads to ${at}, where no cluster of the file is`);
    return false;
  }

  /** Count all. */
  async count(): Promise<void> {
    const { file, header } = this, { clusterBytes } = header;
    this.counts.add(0, 1, 1);
    this.reftable = await this.bytes(header.reftableAt, header.reftableClusters * clusterBytes);
    this.region(header.reftableAt, this.reftable.byteLength);
    const seen = new Set<number>();
    for (let i = 0; i < this.reftable.byteLength / 8; i++) {
      const at = entryOffset(this.reftable, i);
      if (at === 0 || !this.isPlace(at, `Refcount table entry ${i}`)) continue;
      if (seen.has(at)) { this.error(`Refcount table entry ${i} leads to the block at ${at} again`); continue; }
      seen.add(at);
      this.blocks.set(i, at);
      this.region(at, clusterBytes);
    }
    const snapshots = await readSnapshots(file, header);
    const tables = [{ at: header.l1At, entries: header.l1Entries, what: "L1" }, ...snapshots.map((s) => ({ at: s.l1At, entries: s.l1Entries, what: `Snapshot "${s.name}" L1` }))];
    if (snapshots.length) this.region(header.snapshotsAt, snapshotTableBytes(snapshots));
    if (tables.reduce((sum, t) => sum + t.entries * 8, 0) > file.sizeBytes + clusterBytes * tables.length) corrupt(file.name, "its L1 tables together are longer than the file");
    const users = new Map<number, number>();
    for (const { at, entries, what } of tables) {
      if (entries === 0) continue;
      this.region(at, entries * 8);
      const l1 = await this.bytes(at, entries * 8), mine = new Set<number>();
      if (what === "L1") this.l1 = l1;
      for (let i = 0; i < entries; i++) {
        if (hasReservedBits(l1, i, 0)) this.error(`${what} entry ${i} has reserved bits set`);
        const l2At = entryOffset(l1, i);
        if (l2At === 0 || !this.isPlace(l2At, `${what} entry ${i}`)) continue;
        if (mine.has(l2At)) { this.error(`${what} entry ${i} leads to the L2 table at ${l2At} again`); continue; }
        mine.add(l2At);
        users.set(l2At, (users.get(l2At) ?? 0) + 1);
      }
      if (what === "L1") this.activeL2.push(...mine);
    }
    const active = new Set(this.activeL2);
    for (const [at, n] of users) await this.countTable(at, n, active.has(at));
    await this.countBitmaps();
  }
  async countTable(at: number, users: number, isActive: boolean): Promise<void> {
    const { clusterBytes, clusterBits, version } = this.header, l2 = await this.bytes(at, clusterBytes), what = (i: number) => `Entry ${i} of the L2 table at ${at}`;
    this.counts.add(at / clusterBytes, 1, users);
    for (let i = 0; i < clusterBytes / 8; i++) {
      const m = mappingAt(l2, i, clusterBits, version);
      if (m.kind === "compressed") {
        if (m.host < clusterBytes || m.host >= this.file.sizeBytes) { this.error(`${what(i)} leads to ${m.host}, outside the file`); continue; }
        if (isActive) { this.result.nrDataClusters++; this.result.nrCompressedClusters++; }
      } else {
        if (hasReservedBits(l2, i, version >= 3 ? 1 : 0)) this.error(`${what(i)} has reserved bits set`);
        if (m.host === 0 || !this.isPlace(m.host, what(i))) continue;
        if (isActive && m.kind === "data") this.result.nrDataClusters++;
      }
      const [first, count] = usedClusters(m, clusterBytes);
      this.counts.add(first, count, users);
    }
  }
  /** Persistent bitmaps are not used here, but their clusters are, until somebody who does not keep them changes the image. */
  async countBitmaps(): Promise<void> {
    const { bitmaps, clusterBytes, autoclear } = this.header;
    if (!bitmaps || bitmaps.length < BH.sizeof || !(autoclear & AUTOCLEAR.BITMAPS)) return;
    const ext = new DataView(bitmaps.buffer, bitmaps.byteOffset), nr = BH.nb_bitmaps.get(ext, 0);
    const at = BH.bitmap_directory_offset.get(ext, 0), lengthBytes = BH.bitmap_directory_size.get(ext, 0);
    if (nr > MAX_BITMAPS || lengthBytes > 64 << 20 || at + lengthBytes > roundUp(this.file.sizeBytes, clusterBytes)) {
      this.error(`The directory of ${nr} bitmaps, ${lengthBytes} bytes at ${at}, is not in the file`);
      return;
    }
    this.region(at, lengthBytes);
    const directory = await this.bytes(at, lengthBytes);
    for (let i = 0, p = 0; i < nr && p + BE.sizeof <= lengthBytes; i++) {
      const tableAt = BE.bitmap_table_offset.get(directory, p), entries = BE.bitmap_table_size.get(directory, p);
      p += roundUp(BE.sizeof + BE.extra_data_size.get(directory, p) + BE.name_size.get(directory, p), 8);
      if (!this.isPlace(tableAt, `Bitmap ${i}`) || tableAt + entries * 8 > roundUp(this.file.sizeBytes, clusterBytes)) continue;
      this.region(tableAt, entries * 8);
      const table = await this.bytes(tableAt, entries * 8);
      for (let k = 0; k < entries; k++) { const c = entryOffset(table, k); if (c && this.isPlace(c, `Entry ${k} of bitmap ${i}`)) this.region(c, clusterBytes); }
    }
  }

  /** Compare counts with refcounts, or set those that are too high. */
  async compare(fixLeaks = false): Promise<void> {
    const { clusterBytes, refcountOrder } = this.header, per = (clusterBytes * 8) / 2 ** refcountOrder;
    for (const [index, at] of this.blocks) {
      const block = await this.bytes(at, clusterBytes);
      let isChanged = false;
      for (let i = 0; i < per; i++) {
        const has = refcountAt(block, i, refcountOrder), wants = this.counts.get(index * per + i);
        if (has < wants) this.error(`Cluster ${index * per + i} has ${wants} users, its refcount is ${has}`);
        else if (has > wants && fixLeaks) { setRefcount(block, i, refcountOrder, wants); isChanged = true; }
        else if (has > wants) this.result.nrLeaks++;
      }
      if (isChanged) await this.file.write(at, new Uint8Array(block.buffer));
    }
    for (const [c, count] of this.counts.used()) if (!this.blocks.has(Math.floor(c / per))) this.error(`Cluster ${c} has ${count} users and no refcount block`);
  }
  /** Compare, or set, the COPIED flags of the active tables by `refcount`. */
  async copied(refcount: (cluster: number) => number | Promise<number>, isFixing: boolean): Promise<void> {
    const { clusterBytes, clusterBits, version } = this.header;
    let isL1Changed = false;
    for (let i = 0; i < this.l1.byteLength / 8; i++) {
      const at = entryOffset(this.l1, i);
      if (at === 0 || at % clusterBytes !== 0 || at + clusterBytes > roundUp(this.file.sizeBytes, clusterBytes)) continue;
      const isOurs = (await refcount(at / clusterBytes)) === 1;
      if (isOurs !== isCopiedEntry(this.l1, i)) {
        if (!isFixing) this.error(`L1 entry ${i} is ${isOurs ? "not " : ""}marked COPIED, against its refcount`);
        else { putEntry(this.l1, i, at, isOurs ? OFLAG_COPIED_HI : 0); isL1Changed = true; }
      }
      const l2 = await this.bytes(at, clusterBytes);
      let isChanged = false;
      for (let k = 0; k < clusterBytes / 8; k++) {
        const m = mappingAt(l2, k, clusterBits, version);
        if (m.host === 0 || m.kind === "compressed" || m.host % clusterBytes !== 0) continue;
        const isOne = (await refcount(m.host / clusterBytes)) === 1;
        if (isOne === m.isCopied) continue;
        if (!isFixing) this.error(`Entry ${k} of the L2 table at ${at} is ${isOne ? "not " : ""}marked COPIED, against its refcount`);
        else { putEntry(l2, k, m.host, isOne ? OFLAG_COPIED_HI : 0, m.kind === "zero" ? 1 : 0); isChanged = true; }
      }
      if (isChanged) await this.file.write(at, new Uint8Array(l2.buffer));
    }
    if (isL1Changed) await this.file.write(this.header.l1At, new Uint8Array(this.l1.buffer));
  }
  /** Refcounts as the image has them, a block at a time. */
  stored(): (cluster: number) => number | Promise<number> {
    const { clusterBytes, refcountOrder } = this.header, per = (clusterBytes * 8) / 2 ** refcountOrder, kept = new Map<number, DataView<ArrayBuffer>>();
    return (c) => {
      const index = Math.floor(c / per), at = this.blocks.get(index), block = kept.get(index);
      if (at === undefined) return 0;
      if (block) return refcountAt(block, c % per, refcountOrder);
      return this.bytes(at, clusterBytes).then((b) => { if (kept.size >= 64) kept.clear(); kept.set(index, b); return refcountAt(b, c % per, refcountOrder); });
    };
  }

  /** Write new refcount blocks and a new table behind all else, from the counts, and have the header lead there: the old ones' clusters are free then. */
  async rebuild(): Promise<void> {
    const { file, header, counts } = this, { clusterBytes, refcountOrder } = header, per = (clusterBytes * 8) / 2 ** refcountOrder;
    this.counts.add(header.reftableAt / clusterBytes, header.reftableClusters, -1);
    for (const at of this.blocks.values()) counts.add(at / clusterBytes, 1, -1);
    const indexes = new Set<number>();
    let first = Math.ceil(file.sizeBytes / clusterBytes);
    for (const [c, n] of counts.used()) {
      if (n > maxRefcount(refcountOrder)) corrupt(file.name, `cluster ${c} has ${n} users, more than its refcounts can count`);
      indexes.add(Math.floor(c / per));
      first = Math.max(first, c + 1);
    }
    let nrTable = 1;
    for (let size = -1; size !== indexes.size + nrTable; ) {
      size = indexes.size + nrTable;
      for (let i = Math.floor(first / per); i <= Math.floor((first + size - 1) / per); i++) indexes.add(i);
      nrTable = Math.ceil(((Math.floor((first + size) / per) + 1) * 8) / clusterBytes);
    }
    if (nrTable * clusterBytes > MAX_REFTABLE_BYTES) corrupt(file.name, `its ${first} clusters need a longer refcount table than an image may have`);
    counts.add(first, nrTable + indexes.size, 1);
    const table = new DataView(new ArrayBuffer(nrTable * clusterBytes));
    let at = first + nrTable;
    this.blocks.clear();
    for (const index of [...indexes].sort((a, b) => a - b)) {
      const block = new DataView(new ArrayBuffer(clusterBytes));
      for (let i = 0; i < per; i++) { const n = counts.get(index * per + i); if (n) setRefcount(block, i, refcountOrder, n); }
      await file.write(at * clusterBytes, new Uint8Array(block.buffer));
      putEntry(table, index, at * clusterBytes, 0);
      this.blocks.set(index, at++ * clusterBytes);
    }
    await file.write(first * clusterBytes, new Uint8Array(table.buffer));
    await file.flush();
    await patchHeader(file, { reftableAt: first * clusterBytes, reftableClusters: nrTable });
    await file.flush();
    Object.assign(header, { reftableAt: first * clusterBytes, reftableClusters: nrTable });
  }
}

/** Look, and change nothing. @throws DiskError when the header or the snapshots cannot be read at all */
export async function check(file: ByteFile): Promise<Qcow2Check> {
  const c = new Checker(file, await readHeader(file));
  await c.count();
  await c.compare();
  await c.copied(c.stored(), false);
  return c.result;
}

/**
 * Give leaked clusters back, and with "all" count anew what is counted wrong. Entries that lead nowhere are left as they are.
 * @returns what is still wrong
 */
export async function repair(file: ByteFile, what: "leaks" | "all"): Promise<Qcow2Check> {
  const c = new Checker(file, await readHeader(file));
  await c.count();
  await c.compare();
  await c.copied(c.stored(), false);
  if (what === "all" && (c.result.nrErrors || c.result.isDirty)) {
    await c.rebuild();
    await c.copied((cluster) => c.counts.get(cluster), true);
  } else if (c.result.nrLeaks) await c.compare(true);
  await file.flush();
  const left = await check(file);
  if (what === "all" && left.nrErrors === 0 && (left.isDirty || left.isMarkedCorrupt)) {
    await patchHeader(file, { incompatible: c.header.incompatible & ~(INCOMPAT.DIRTY | INCOMPAT.CORRUPT) });
    await file.flush();
    left.isDirty = left.isMarkedCorrupt = false;
  } else if (what === "all" && left.nrErrors) throw new Contradiction(file.name, `${left.nrErrors} errors cannot be repaired, such as: ${left.errors[0]}`);
  return left;
}
