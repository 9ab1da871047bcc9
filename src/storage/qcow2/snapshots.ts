/** Internal snapshots: L1 tables of old that share clusters with the active one. */
import { type ByteFile, DiskError } from "../disk.ts";
import { checkRegion, corrupt, type Header, roundUp } from "./header.ts";
import {
  entryOffset, isCopiedEntry, MAX_L1_BYTES, MAX_SNAPSHOT_TABLE_BYTES, MAX_SNAPSHOTS, type Mapping, mappingAt, OFLAG_COPIED_HI, OFLAG_ZERO_LO, putEntry,
  QCowSnapshotExtra as X, QCowSnapshotHeader as S,
} from "./layout.ts";
import type { Metadata } from "./metadata.ts";
import type { Qcow2Disk } from "./qcow2.ts";

/** One snapshot. `entry` is its whole text in the table: what is not known here is kept. */
export type Snapshot = {
  readonly id: string; readonly name: string; readonly date: Date; readonly sizeBytes: number; readonly vmStateBytes: number;
  readonly l1At: number; readonly l1Entries: number; readonly entry: Uint8Array;
};

/** Read the table. @throws DiskError `corrupt` */
export async function readSnapshots(file: ByteFile, header: Header): Promise<Snapshot[]> {
  const found: Snapshot[] = [], fixed = new Uint8Array(S.sizeof), v = new DataView(fixed.buffer), where = (i: number) => `snapshot ${i + 1} of ${header.nrSnapshots}`;
  for (let i = 0, at = header.snapshotsAt; i < header.nrSnapshots; i++) {
    await file.read(at, fixed);
    const idBytes = S.id_str_size.get(v, 0), nameBytes = S.name_size.get(v, 0), extraBytes = S.extra_data_size.get(v, 0), l1Entries = S.l1_size.get(v, 0), l1At = S.l1_table_offset.get(v, 0);
    const lengthBytes = S.sizeof + extraBytes + idBytes + nameBytes;
    if (extraBytes > 1024) corrupt(file.name, `${where(i)} claims ${extraBytes} bytes of extra data`);
    if (at + lengthBytes > file.sizeBytes || at + lengthBytes - header.snapshotsAt > MAX_SNAPSHOT_TABLE_BYTES) corrupt(file.name, `${where(i)} ends past the file or the table's limit`);
    if (l1Entries * 8 > MAX_L1_BYTES) corrupt(file.name, `${where(i)} claims an L1 table of ${l1Entries} entries`);
    if (l1Entries) checkRegion(file, `L1 table of ${where(i)}`, l1At, l1Entries * 8, header.clusterBytes);
    const entry = new Uint8Array(roundUp(lengthBytes, 8)), e = new DataView(entry.buffer), text = (from: number, n: number) => new TextDecoder().decode(entry.subarray(from, from + n));
    await file.read(at, entry);
    const most = l1Entries * header.clusterBytes * (header.clusterBytes / 8), sizeBytes = extraBytes >= 16 ? X.disk_size.get(e, S.sizeof) : Math.min(header.sizeBytes, most);
    if (sizeBytes > most) corrupt(file.name, `${where(i)} claims a disk of ${sizeBytes} bytes, more than its L1 table holds`);
    found.push({
      id: text(S.sizeof + extraBytes, idBytes), name: text(S.sizeof + extraBytes + idBytes, nameBytes), date: new Date(S.date_sec.get(v, 0) * 1000 + Math.floor(S.date_nsec.get(v, 0) / 1e6)),
      sizeBytes: roundUp(sizeBytes, 512), vmStateBytes: extraBytes >= 8 ? X.vm_state_size_large.get(e, S.sizeof) : S.vm_state_size.get(v, 0), l1At, l1Entries, entry,
    });
    at += entry.length;
  }
  return found;
}
/** Length of the table of these snapshots. */
export const snapshotTableBytes = (snapshots: readonly Snapshot[]): number => snapshots.reduce((sum, s) => sum + s.entry.length, 0);

/** Find by id, else by name. @throws DiskError `missing` */
export function findSnapshot(imageName: string, snapshots: readonly Snapshot[], idOrName: string): Snapshot {
  const found = snapshots.find((s) => s.id === idOrName) ?? snapshots.find((s) => s.name === idOrName);
  const others = snapshots.slice(0, 10).map((s) => `"${s.name}"`).join(", ");
  if (!found) throw new DiskError("missing", `${imageName} has no snapshot "${idOrName}"${others ? `; it has ${others}` : ""}`);
  return found;
}
/** The header as it would be if the snapshot were the active disk, for reading. */
export function snapshotHeader(file: ByteFile, header: Header, snapshots: readonly Snapshot[], idOrName: string): Header {
  const s = findSnapshot(file.name, snapshots, idOrName);
  return { ...header, l1At: s.l1At, l1Entries: s.l1Entries, sizeBytes: s.sizeBytes };
}

/** The host clusters that a mapping uses: first and how many. */
export function usedClusters(m: Mapping, clusterBytes: number): [first: number, count: number] {
  if (m.host === 0) return [0, 0];
  if (m.kind !== "compressed") return [Math.floor(m.host / clusterBytes), 1];
  const first = Math.floor(m.host / clusterBytes);
  return [first, Math.floor((m.host + m.lengthBytes - 1) / clusterBytes) - first + 1];
}
const offsetsOf = (l1: DataView): number[] => Array.from({ length: l1.byteLength / 8 }, (_, i) => entryOffset(l1, i)).filter((at) => at !== 0);

/** Count one user more or less of all that an L1 table leads to: L2 tables and clusters. */
async function addUser(m: Metadata, l1: DataView, delta: 1 | -1): Promise<void> {
  const { clusterBytes, clusterBits, version } = m.header;
  for (const at of offsetsOf(l1)) {
    checkRegion(m.file, "L2 table", at, clusterBytes, clusterBytes);
    const mappings = await m.tables.use(at, ({ view }) => Array.from({ length: clusterBytes / 8 }, (_, i) => mappingAt(view, i, clusterBits, version)));
    const used = mappings.map((map) => usedClusters(map, clusterBytes)).filter(([, n]) => n > 0);
    for (const [first, count] of used) await m.refcounts.add(first, count, delta);
    if (delta < 0 && (await m.refcounts.get(at / clusterBytes)) === 1) m.tables.drop(at);
    await m.refcounts.add(at / clusterBytes, 1, delta);
    await m.relieve();
  }
}
/** Have the active tables' COPIED flags say what the refcounts say. */
async function refreshCopied(m: Metadata): Promise<void> {
  const { clusterBytes, clusterBits, version } = m.header;
  for (let i = 0; i < m.header.l1Entries; i++) {
    const at = entryOffset(m.l1.view, i);
    if (at === 0) continue;
    const isOurs = (await m.refcounts.get(at / clusterBytes)) === 1;
    if (isOurs !== isCopiedEntry(m.l1.view, i)) { putEntry(m.l1.view, i, at, isOurs ? OFLAG_COPIED_HI : 0); m.l1.touchEntry(i); }
    const mappings = await m.tables.use(at, ({ view }) => Array.from({ length: clusterBytes / 8 }, (_, k) => mappingAt(view, k, clusterBits, version)));
    for (const [k, map] of mappings.entries()) {
      if (map.host === 0 || map.kind === "compressed") continue;
      const isCopied = (await m.refcounts.get(map.host / clusterBytes)) === 1;
      if (isCopied === map.isCopied) continue;
      await m.tables.use(at, (t) => {
        putEntry(t.view, k, map.host, isCopied ? OFLAG_COPIED_HI : 0, map.kind === "zero" ? OFLAG_ZERO_LO : 0);
        t.touchEntry(k);
      });
    }
    await m.relieve();
  }
}

/** Write the list to new clusters and have the header lead there; the old list's clusters are given back. */
async function putSnapshots(m: Metadata, old: readonly Snapshot[], next: readonly Uint8Array[]): Promise<void> {
  const { header, file } = m, { clusterBytes } = header, bytes = new Uint8Array(next.reduce((sum, e) => sum + e.length, 0));
  if (next.length > MAX_SNAPSHOTS || bytes.length > MAX_SNAPSHOT_TABLE_BYTES) throw new DiskError("unsupported", `${file.name} would have more snapshots than an image may`);
  let at = 0;
  for (const e of next) { bytes.set(e, at); at += e.length; }
  const count = Math.ceil(bytes.length / clusterBytes), run = count ? await m.refcounts.allocate(count, true) : { first: 0 }, oldAt = header.snapshotsAt;
  if (count) await file.write(run.first * clusterBytes, bytes);
  await m.commit();
  for (let c = run.first; c < run.first + count; c++) m.clusters.add(c);
  if (old.length) { m.release(oldAt, roundUp(snapshotTableBytes(old), clusterBytes)); m.freeLater(oldAt, snapshotTableBytes(old)); }
  await m.putHeader({ nrSnapshots: next.length, snapshotsAt: run.first * clusterBytes });
}
function snapshotEntry(id: string, name: string, date: Date, l1At: number, l1Entries: number, sizeBytes: number): Uint8Array {
  const idText = new TextEncoder().encode(id), nameText = new TextEncoder().encode(name);
  const entry = new Uint8Array(roundUp(S.sizeof + X.sizeof + idText.length + nameText.length, 8)), v = new DataView(entry.buffer);
  S.l1_table_offset.set(v, 0, l1At);
  S.l1_size.set(v, 0, l1Entries);
  S.id_str_size.set(v, 0, idText.length);
  S.name_size.set(v, 0, nameText.length);
  S.date_sec.set(v, 0, Math.floor(date.getTime() / 1000));
  S.date_nsec.set(v, 0, (date.getTime() % 1000) * 1e6);
  S.extra_data_size.set(v, 0, X.sizeof);
  X.disk_size.set(v, S.sizeof, sizeBytes);
  X.icount.set(v, S.sizeof, 0xffffffffffffffffn);  // none
  entry.set(idText, S.sizeof + X.sizeof);
  entry.set(nameText, S.sizeof + X.sizeof + idText.length);
  return entry;
}
/** Run a change of snapshots: nobody else uses the disk, and the image is marked dirty meanwhile, so that a power cut in it costs a repair and not an image. */
function changing<T>(disk: Qcow2Disk, act: (m: Metadata, snapshots: Snapshot[]) => Promise<T>): Promise<T> {
  if (disk.isReadonly) throw new DiskError("readonly", `${disk.name} is read-only`);
  return disk.alone(async () => {
    const m = disk.metadata, snapshots = await readSnapshots(m.file, m.header);
    await m.commit();
    await m.setDirty(true);
    const result = await act(m, snapshots);
    await refreshCopied(m);
    while (m.isDirty) await m.commit();
    await m.setDirty(false);
    return result;
  });
}

/** Keep the disk as it is now under a name. @returns the snapshot's id @throws DiskError `exists` */
export async function createSnapshot(disk: Qcow2Disk, name: string, date = new Date()): Promise<string> {
  if (name === "" || new TextEncoder().encode(name).length > 255) throw new DiskError("unsupported", `A snapshot's name has 1 to 255 bytes, "${name.slice(0, 40)}" has not`);
  const { header, refcounts } = disk.metadata, known = await readSnapshots(disk.metadata.file, header);
  if (known.some((s) => s.name === name || s.id === name)) throw new DiskError("exists", `${disk.name} has a snapshot "${name}" already`);
  // Sharing by compressed clusters adds to this; those beyond are refused when met.
  if (known.length + 2 > refcounts.max) throw new DiskError("unsupported", `${disk.name} counts users of a cluster up to ${refcounts.max}, too few for another snapshot`);
  return changing(disk, async (m, snapshots) => {
    const id = String(snapshots.reduce((most, s) => Math.max(most, /^\d{1,15}$/.test(s.id) ? Number(s.id) : 0), 0) + 1);
    const bytes = new Uint8Array(m.header.l1Entries * 8), view = new DataView(bytes.buffer);
    for (let i = 0; i < m.header.l1Entries; i++) putEntry(view, i, entryOffset(m.l1.view, i), 0);
    const count = Math.ceil(bytes.length / m.header.clusterBytes), run = count ? await m.refcounts.allocate(count, true) : { first: 0 }, l1At = run.first * m.header.clusterBytes;
    if (count) await m.file.write(l1At, bytes);
    await addUser(m, view, 1);
    await putSnapshots(m, snapshots, [...snapshots.map((s) => s.entry), snapshotEntry(id, name, date, l1At, m.header.l1Entries, m.header.sizeBytes)]);
    for (let c = run.first; c < run.first + count; c++) m.clusters.add(c);
    return id;
  });
}
async function l1Of(m: Metadata, s: Snapshot): Promise<DataView> {
  const bytes = new Uint8Array(s.l1Entries * 8);
  await m.file.read(s.l1At, bytes);
  return new DataView(bytes.buffer);
}
/** Forget a snapshot; clusters that only it had are given back. */
export async function deleteSnapshot(disk: Qcow2Disk, idOrName: string): Promise<void> {
  findSnapshot(disk.name, await readSnapshots(disk.metadata.file, disk.metadata.header), idOrName);
  await changing(disk, async (m, snapshots) => {
    const s = findSnapshot(disk.name, snapshots, idOrName), l1 = await l1Of(m, s);
    await putSnapshots(m, snapshots, snapshots.filter((x) => x !== s).map((x) => x.entry));
    await addUser(m, l1, -1);
    m.release(s.l1At, roundUp(s.l1Entries * 8, m.header.clusterBytes));
    if (s.l1Entries) m.freeLater(s.l1At, s.l1Entries * 8);
  });
}
/** Make the disk what it was when the snapshot was taken; the snapshot stays. What was written since is lost. */
export async function applySnapshot(disk: Qcow2Disk, idOrName: string): Promise<void> {
  findSnapshot(disk.name, await readSnapshots(disk.metadata.file, disk.metadata.header), idOrName);
  const oldSize = disk.sizeBytes;
  await changing(disk, async (m, snapshots) => {
    const s = findSnapshot(disk.name, snapshots, idOrName), l1 = await l1Of(m, s), old = new DataView(m.l1.bytes.slice().buffer), { clusterBytes } = m.header;
    await addUser(m, l1, 1);
    await disk.replaceL1(s.l1Entries, (table) => { for (let i = 0; i < s.l1Entries; i++) putEntry(table.view, i, entryOffset(l1, i), 0); }, { sizeBytes: s.sizeBytes });
    for (const at of offsetsOf(old)) m.release(at, clusterBytes);
    for (const at of offsetsOf(l1)) m.clusters.add(at / clusterBytes);
    await m.commit();
    await addUser(m, old, -1);
  });
  if (disk.sizeBytes !== oldSize) disk.onResize?.();
}
