/**
 * QCOW2 images, versions 2 and 3, as disks. @see docs/interop/qcow2.txt of QEMU
 *
 * Who may do what at once: each request holds a range of guest clusters, shared to read or to overwrite clusters that are there, alone to change what an
 * entry leads to. So two writers never both allocate a cluster, and nobody uses a host cluster after its entry changed. How changes reach the disk in an
 * order that a power cut may end anywhere: `metadata.ts`.
 */
import { type ByteFile, checkRange, type Disk, DiskError, SECTOR_BYTES } from "../disk.ts";
import { RangeLock, settle } from "../range-lock.ts";
import { repair } from "./check.ts";
import { CompressedClusters, type Unzstd } from "./compressed.ts";
import { Contradiction, corrupt, type Header, patchHeader, readHeader, roundUp } from "./header.ts";
import { INCOMPAT, type Mapping, mappingAt, MAX_L1_BYTES, OFLAG_COPIED_HI, OFLAG_ZERO_LO, putEntry } from "./layout.ts";
import { Metadata } from "./metadata.ts";
import { readSnapshots, snapshotHeader, snapshotTableBytes } from "./snapshots.ts";
import { Table } from "./tables.ts";

/** How to open an image. */
export type Qcow2Options = {
  isReadonly?: boolean;
  /** Opens the backing file that the header names. Without it an image with a backing file is refused. */
  openBacking?: (path: string, format: string | null) => Promise<Disk>;
  /** the internal snapshot to read, by id or name; the disk is read-only then */
  snapshot?: string;
  unzstd?: Unzstd;
  /** how much of the metadata is kept in memory */
  cacheBytes?: number;
};
/** Clusters in a row that are mapped alike: `host` advances with them. `offset` and `lengthBytes` are the request's part, `within` where it begins in `host`. */
type Piece = { readonly offset: number; lengthBytes: number; readonly mapping: Mapping; readonly host: number };

/** Open an image. The file is the disk's from here on, and closed with it; also when opening fails. @throws DiskError */
export async function openQcow2(file: ByteFile, options: Qcow2Options = {}): Promise<Qcow2Disk> {
  let backing: Disk | null = null;
  try {
    const isReadonly = options.isReadonly || file.isReadonly || options.snapshot !== undefined;
    let header = await readHeader(file);
    if (!isReadonly) {
      if (header.incompatible & INCOMPAT.CORRUPT) throw new DiskError("corrupt", `${file.name} is marked corrupt: it can be read only, or repaired`);
      if (header.incompatible & INCOMPAT.DIRTY) { await repair(file, "all"); header = await readHeader(file); }
    }
    if (header.backing) {
      if (!options.openBacking) throw new DiskError("denied", `${file.name} has the backing file ${header.backing.path}, and no backing files are allowed here`);
      backing = await options.openBacking(header.backing.path, header.backing.format);
    }
    if (options.snapshot !== undefined) header = snapshotHeader(file, header, await readSnapshots(file, header), options.snapshot);
    const metadata = await Metadata.open(file, header, !isReadonly, options.cacheBytes);
    if (!isReadonly) {
      const snapshots = await readSnapshots(file, header);
      if (snapshots.length) metadata.claim("snapshot table", header.snapshotsAt, snapshotTableBytes(snapshots));
      for (const s of snapshots) if (s.l1Entries) metadata.claim(`snapshot "${s.name}"'s L1 table`, s.l1At, s.l1Entries * 8);
      // What we do not keep up to date must not claim to be.
      if (header.autoclear) { await patchHeader(file, { autoclear: 0n }); header.autoclear = 0n; }
    }
    return new Qcow2Disk(metadata, backing, isReadonly, options);
  } catch (e) {
    await backing?.close().catch(() => {});
    await file.close().catch(() => {});
    throw e;
  }
}

/** An open image; `openQcow2` makes it. */
export class Qcow2Disk implements Disk {
  readonly name: string;
  readonly format = "qcow2";
  readonly physicalSectorBytes = 4096;
  readonly isReadonly: boolean;
  onResize: (() => void) | null = null;
  /** for this room's own files: snapshots, on-line operations */
  readonly metadata: Metadata;
  readonly backing: Disk | null;
  readonly #lock = new RangeLock();
  readonly #compressed: CompressedClusters;
  #broken: DiskError | null = null;
  #isClosed = false;

  constructor(metadata: Metadata, backing: Disk | null, isReadonly: boolean, options: Qcow2Options) {
    this.metadata = metadata;
    this.backing = backing;
    this.isReadonly = isReadonly;
    this.name = metadata.file.name;
    this.#compressed = new CompressedClusters(metadata.file, metadata.header, options.unzstd ?? null);
  }
  get header(): Readonly<Header> {
    return this.metadata.header;
  }
  get sizeBytes(): number {
    return this.header.sizeBytes;
  }
  #check(offset: number, lengthBytes: number, changes: boolean): void {
    if (this.#isClosed) throw new DiskError("closed", `${this.name} is closed`);
    if (changes && this.isReadonly) throw new DiskError("readonly", `${this.name} is read-only`);
    if (changes && this.#broken) throw this.#broken;
    checkRange(this, offset, lengthBytes);
  }
  /** Run a change; an image that contradicts itself is marked so, and not changed any more. */
  async #changing<T>(act: () => Promise<T>): Promise<T> {
    try { return await act(); } catch (e) {
      if (e instanceof Contradiction && e.image === this.name && !this.#broken) {
        this.#broken = e;
        await this.metadata.putHeader({ incompatible: this.header.incompatible | INCOMPAT.CORRUPT }).catch(() => {});
      }
      throw e;
    }
  }

  /** Where a range lies, as few pieces as can be. The caller holds it, so that it stays true. */
  async #lookup(offset: number, lengthBytes: number): Promise<Piece[]> {
    const { clusterBits, clusterBytes, version } = this.header, perTable = clusterBytes / 8, bytesPerTable = clusterBytes * perTable, pieces: Piece[] = [], end = offset + lengthBytes;
    const NOTHING: Mapping = { kind: "none", host: 0, lengthBytes: 0, isCopied: false };
    for (let at = offset; at < end; ) {
      const l1Index = Math.floor(at / bytesPerTable), until = Math.min(end, (l1Index + 1) * bytesPerTable), l2At = this.metadata.l2At(l1Index);
      if (l2At === 0) { this.#append(pieces, at, until - at, NOTHING); at = until; continue; }
      const from = at;
      at = await this.metadata.tables.use(l2At, (table) => {
        // Copied while it was read: what was read may be something else by now.
        if (this.metadata.l2At(l1Index) !== l2At) return from;
        for (let p = from; p < until; ) {
          const next = Math.min(until, (Math.floor(p / clusterBytes) + 1) * clusterBytes);
          this.#append(pieces, p, next - p, mappingAt(table.view, Math.floor(p / clusterBytes) % perTable, clusterBits, version));
          p = next;
        }
        return until;
      });
    }
    return pieces;
  }
  #append(pieces: Piece[], offset: number, lengthBytes: number, mapping: Mapping): void {
    const { clusterBytes } = this.header, last = pieces.at(-1), host = mapping.kind === "data" ? mapping.host + (offset % clusterBytes) : mapping.host;
    if (mapping.kind === "data" && (mapping.host % clusterBytes !== 0 || mapping.host + clusterBytes > roundUp(this.metadata.file.sizeBytes, clusterBytes))) {
      corrupt(this.name, `the guest's bytes at ${offset} lie at ${mapping.host}, where no cluster of the file is`);
    }
    const joins = last && last.mapping.kind === mapping.kind && last.mapping.isCopied === mapping.isCopied
      && (mapping.kind === "none" || (mapping.kind === "zero" && last.host === 0 && host === 0) || (mapping.kind === "data" && last.host + last.lengthBytes === host));
    if (joins) last.lengthBytes += lengthBytes; else pieces.push({ offset, lengthBytes, mapping, host });
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length, false);
    if (into.length === 0) return;
    const { clusterBytes } = this.header, leave = await this.#lock.take(Math.floor(offset / clusterBytes), Math.floor((offset + into.length - 1) / clusterBytes), false);
    try { await this.#read(offset, into); } finally { leave(); }
  }
  async #read(offset: number, into: Uint8Array): Promise<void> {
    await settle((await this.#lookup(offset, into.length)).map((p) => this.#readPiece(p, into.subarray(p.offset - offset, p.offset - offset + p.lengthBytes))));
  }
  async #readPiece({ offset, mapping, host }: Piece, into: Uint8Array): Promise<void> {
    if (mapping.kind === "data") await this.metadata.file.read(host, into);
    else if (mapping.kind === "compressed") {
      const within = offset % this.header.clusterBytes;
      into.set((await this.#compressed.read(mapping)).subarray(within, within + into.length));
    } else if (mapping.kind === "none" && this.backing && offset < this.backing.sizeBytes) {
      const n = Math.min(into.length, this.backing.sizeBytes - offset);
      into.fill(0, n);
      await this.backing.read(offset, into.subarray(0, n));
    } else into.fill(0);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length, true);
    if (from.length === 0) return;
    const { clusterBytes } = this.header, first = Math.floor(offset / clusterBytes), last = Math.floor((offset + from.length - 1) / clusterBytes);
    await this.#changing(async () => {
      const leave = await this.#lock.take(first, last, false);
      try {
        const pieces = await this.#lookup(offset, from.length);
        if (pieces.every(isInPlace)) { await this.#overwrite(offset, from, pieces); return; }
      } finally { leave(); }
      await this.#lock.exclusive(first, last, () => this.#allocatingWrite(offset, from));
      await this.metadata.relieve();
    });
  }
  async #overwrite(offset: number, from: Uint8Array, pieces: readonly Piece[]): Promise<void> {
    for (const p of pieces) this.#guard(p.host, p.lengthBytes);
    await settle(pieces.map((p) => this.metadata.file.write(p.host, from.subarray(p.offset - offset, p.offset - offset + p.lengthBytes))));
  }
  /** No guest's bytes go where metadata is, whatever an entry says. */
  #guard(host: number, lengthBytes: number): void {
    const { clusterBytes } = this.header;
    for (let c = Math.floor(host / clusterBytes); c * clusterBytes < host + lengthBytes; c++) {
      if (this.metadata.clusters.has(c)) corrupt(this.name, `an entry has the guest's data in cluster ${c}, which holds metadata`);
    }
  }
  /** The range is ours alone. Clusters that are there are overwritten, runs of others get new ones. */
  async #allocatingWrite(offset: number, from: Uint8Array): Promise<void> {
    const { clusterBytes } = this.header, perTable = clusterBytes / 8, end = offset + from.length, pieces = await this.#lookup(offset, from.length);
    await this.#overwrite(offset, from, pieces.filter(isInPlace));
    for (let i = 0; i < pieces.length; ) {
      if (isInPlace(pieces[i]!)) { i++; continue; }
      let j = i + 1;
      while (j < pieces.length && !isInPlace(pieces[j]!)) j++;
      const stop = j < pieces.length ? pieces[j]!.offset : end;
      for (let at = pieces[i]!.offset; at < stop; ) {
        // No further than one L2 table goes, so that the run is linked wholly or not at all.
        const cluster = Math.floor(at / clusterBytes), wanted = Math.min(Math.ceil(stop / clusterBytes) - cluster, perTable - (cluster % perTable));
        const run = await this.metadata.refcounts.allocate(wanted, false);
        const until = Math.min(stop, (cluster + run.count) * clusterBytes);
        try {
          await this.#fill(run.first * clusterBytes, run.isFresh, at, from.subarray(at - offset, until - offset));
          await this.#link(cluster, run.count, run.first * clusterBytes, OFLAG_COPIED_HI);
        } catch (e) {
          await this.metadata.refcounts.add(run.first, run.count, -1).catch(() => {});
          throw e;
        }
        at = until;
      }
      i = j;
    }
  }
  /** Write the first content of new clusters at `host`: `from` for the guest's bytes at `at`, around it what the guest had there. */
  async #fill(host: number, isFresh: boolean, at: number, from: Uint8Array): Promise<void> {
    const { clusterBytes } = this.header, base = at - (at % clusterBytes), end = at + from.length, top = roundUp(end, clusterBytes);
    /** null: zeros */
    const around = async (first: number, last: number): Promise<Uint8Array | null> => {
      if (first >= last || (await this.#lookup(first, last - first)).every((p) => this.#readsZero(p))) return null;
      const bytes = new Uint8Array(last - first);
      await this.#read(first, bytes);
      return bytes;
    };
    const head = await around(base, at), tail = await around(end, Math.min(top, this.sizeBytes)), first = isFresh && !head ? at : base, last = isFresh && !tail ? end : top;
    if (first === at && last === end) return this.metadata.file.write(host + (at - base), from);
    const all = new Uint8Array(last - first);
    if (head) all.set(head);
    all.set(from, at - first);
    if (tail) all.set(tail, end - first);
    await this.metadata.file.write(host + (first - base), all);
  }
  /** Have `count` guest clusters of one L2 table lead to a run at `host` (0: to nothing), and give back what they led to. The caller has them alone. */
  async #link(cluster: number, count: number, host: number, flagsHi: number, flagsLo = 0): Promise<void> {
    const { clusterBits, clusterBytes, version } = this.header, perTable = clusterBytes / 8, first = cluster % perTable;
    await this.metadata.tables.use(await this.metadata.l2ForWriting(Math.floor(cluster / perTable)), (table) => {
      for (let i = 0; i < count; i++) {
        const old = mappingAt(table.view, first + i, clusterBits, version);
        if (old.host) this.#giveBack(old);
        putEntry(table.view, first + i, host === 0 ? 0 : host + i * clusterBytes, flagsHi, flagsLo);
      }
      table.touch(first * 8, count * 8);
    });
  }
  #giveBack(old: Mapping): void {
    const { clusterBytes } = this.header;
    if (old.kind === "compressed") this.#compressed.forget(old.host);
    else if (old.host % clusterBytes !== 0) corrupt(this.name, `an entry leads to ${old.host}, where no cluster begins`);
    const lengthBytes = old.kind === "compressed" ? old.lengthBytes : clusterBytes;
    this.#guard(old.host, lengthBytes);
    this.metadata.freeLater(old.host, lengthBytes);
  }

  async flush(): Promise<void> {
    this.#check(0, 0, !this.isReadonly);
    if (!this.isReadonly) await this.#changing(() => this.metadata.commit());
  }

  discard(offset: number, lengthBytes: number): Promise<void> {
    return this.#clear(offset, lengthBytes, true);
  }
  writeZeros(offset: number, lengthBytes: number): Promise<void> {
    return this.#clear(offset, lengthBytes, false);
  }
  /** Discards what whole clusters there are; zeros are also written into parts of clusters. */
  async #clear(offset: number, lengthBytes: number, isDiscard: boolean): Promise<void> {
    this.#check(offset, lengthBytes, true);
    const { clusterBytes } = this.header, end = offset + lengthBytes, perTable = clusterBytes / 8;
    // The disk's last cluster is whole when it is cleared to the disk's end.
    const from = roundUp(offset, clusterBytes), to = end === this.sizeBytes ? roundUp(end, clusterBytes) : end - (end % clusterBytes);
    await this.#changing(async () => {
      if (from >= to) { if (!isDiscard && lengthBytes) await this.#zeroPart(offset, lengthBytes); return; }
      if (!isDiscard && offset < from) await this.#zeroPart(offset, from - offset);
      for (let c = from / clusterBytes; c < to / clusterBytes; ) {
        const n = Math.min(to / clusterBytes - c, perTable - (c % perTable)), first = c;
        await this.#lock.exclusive(first, first + n - 1, () => this.#clearClusters(first, n, isDiscard));
        await this.metadata.relieve();
        c += n;
      }
      if (!isDiscard && to < end) await this.#zeroPart(to, end - to);
    });
  }
  async #zeroPart(offset: number, lengthBytes: number): Promise<void> {
    // Less than a cluster may still lie in two.
    const { clusterBytes } = this.header;
    await this.#lock.exclusive(Math.floor(offset / clusterBytes), Math.floor((offset + lengthBytes - 1) / clusterBytes), async () => {
      for (const p of await this.#lookup(offset, lengthBytes)) if (!this.#readsZero(p)) await this.#allocatingWrite(p.offset, new Uint8Array(p.lengthBytes));
    });
  }
  #readsZero({ mapping, offset }: Piece): boolean {
    return mapping.kind === "zero" || (mapping.kind === "none" && !(this.backing && offset < this.backing.sizeBytes));
  }
  async #clearClusters(first: number, count: number, isDiscard: boolean): Promise<void> {
    const { clusterBytes, version } = this.header, end = Math.min((first + count) * clusterBytes, this.sizeBytes);
    for (const p of await this.#lookup(first * clusterBytes, end - first * clusterBytes)) {
      if (isDiscard ? p.mapping.kind === "none" || (p.mapping.kind === "zero" && p.host === 0) : this.#readsZero(p) && p.host === 0) continue;
      const cluster = p.offset / clusterBytes, n = Math.ceil(p.lengthBytes / clusterBytes);
      if (!this.backing) await this.#link(cluster, n, 0, 0);
      else if (version >= 3) await this.#link(cluster, n, 0, 0, OFLAG_ZERO_LO);
      // Version 2 has no word for zeros over a backing file.
      else if (!isDiscard) {
        for (let at = p.offset, stop = at + p.lengthBytes; at < stop; at += 1 << 20) await this.#allocatingWrite(at, new Uint8Array(Math.min(1 << 20, stop - at)));
      }
    }
  }

  /** Grow. What is new reads as zeros, also over a longer backing file. @throws `unsupported` for a smaller size, or where version 2's snapshots forbid it */
  async resize(sizeBytes: number): Promise<void> {
    this.#check(0, 0, true);
    const { clusterBytes, version } = this.header, old = this.sizeBytes;
    if (sizeBytes % SECTOR_BYTES !== 0 || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw new DiskError("range", `${this.name}: ${sizeBytes} bytes are not whole sectors`);
    if (sizeBytes < old) throw new DiskError("unsupported", `${this.name} has ${old} bytes and cannot be made smaller; copy it to a smaller disk instead`);
    if (version < 3 && this.header.nrSnapshots) throw new DiskError("unsupported", `${this.name} has snapshots, and version 2 of qcow2 does not say of what size`);
    if (sizeBytes === old) return;
    const l1Entries = Math.ceil(sizeBytes / (clusterBytes * (clusterBytes / 8)));
    const most = (MAX_L1_BYTES / 8) * clusterBytes * (clusterBytes / 8);
    if (sizeBytes > most) throw new DiskError("unsupported", `${this.name}: with clusters of ${clusterBytes} bytes a disk has ${most} bytes at most`);
    await this.#changing(() => this.alone(async () => {
      if (l1Entries > this.header.l1Entries) await this.replaceL1(l1Entries, (table) => { table.bytes.set(this.metadata.l1.bytes); }, {});
      const { backing } = this, until = Math.min(sizeBytes, backing?.sizeBytes ?? 0);
      this.metadata.header.sizeBytes = sizeBytes;
      try {
        // Zeros hide what the backing file has there, before the header makes it the guest's. They end where it does, or with a whole cluster.
        for (let at = old; at < until; ) {
          const next = Math.min(sizeBytes, (Math.floor(at / clusterBytes) + 1) * clusterBytes);
          if (at % clusterBytes === 0) await this.#clearClusters(at / clusterBytes, 1, false);
          else if (!this.#readsZero((await this.#lookup(at, next - at))[0]!)) await this.#allocatingWrite(at, new Uint8Array(next - at));
          at = next;
          await this.metadata.relieve();
        }
        await this.metadata.commit();
      } catch (e) { this.metadata.header.sizeBytes = old; throw e; }
      await this.metadata.putHeader({ sizeBytes });
    }));
    this.onResize?.();
  }
  /** Run `act` while no request is under way. */
  alone<T>(act: () => Promise<T>): Promise<T> {
    return this.#lock.exclusive(0, Number.POSITIVE_INFINITY, act);
  }
  /** Put another L1 table in force, in new clusters, together with other fields of the header; the old one's clusters are given back. The caller is `alone`. */
  async replaceL1(entries: number, write: (table: Table) => void, fields: { sizeBytes?: number }): Promise<void> {
    const { file, header, refcounts } = this.metadata, { clusterBytes } = header;
    entries = Math.max(1, entries);
    await this.metadata.commit();
    const count = Math.ceil((entries * 8) / clusterBytes), run = await refcounts.allocate(count, true), table = new Table(run.first * clusterBytes, new Uint8Array(entries * 8));
    write(table);
    await file.write(table.at, table.bytes);
    await this.metadata.commit();
    const old = { at: header.l1At, lengthBytes: header.l1Entries * 8 };
    this.metadata.release(old.at, old.lengthBytes);
    for (let c = run.first; c < run.first + count; c++) this.metadata.clusters.add(c);
    if (old.lengthBytes) this.metadata.freeLater(old.at, old.lengthBytes);
    this.metadata.l1 = table;
    await this.metadata.putHeader({ l1At: table.at, l1Entries: entries, ...fields });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    const leave = await this.#lock.take(0, Number.POSITIVE_INFINITY, true);
    try {
      if (this.#isClosed) return;
      this.#isClosed = true;
      if (!this.isReadonly && !this.#broken) while (this.metadata.isDirty) await this.metadata.commit();
    } finally {
      leave();
      await settle([this.metadata.file.close(), this.backing?.close() ?? Promise.resolve()]);
    }
  }
}

/** Written where it lies: the cluster is there and nobody else's. */
const isInPlace = (p: Piece): boolean => p.mapping.kind === "data" && p.mapping.isCopied;
