/** The header of a QCOW2 image: read, judged, and changed in place. */
import { type ByteFile, DiskError, SECTOR_BYTES } from "../disk.ts";
import { EXT, INCOMPAT, MAX_L1_BYTES, MAX_REFTABLE_BYTES, MAX_SNAPSHOTS, QCOW_MAGIC, QCowHeader as H, V2_HEADER_BYTES, V3_HEADER_BYTES } from "./layout.ts";

/** A checked header. Sizes and offsets in bytes. */
export type Header = {
  version: number; clusterBits: number; clusterBytes: number;
  sizeBytes: number;
  /** path and format of the backing file as written; format null: not stated */
  backing: { path: string; format: string | null } | null;
  l1At: number; l1Entries: number;
  reftableAt: number; reftableClusters: number; refcountOrder: number;
  nrSnapshots: number; snapshotsAt: number;
  incompatible: bigint; compatible: bigint; autoclear: bigint;
  compression: "zlib" | "zstd";
  /** the bitmaps extension's content, when there is one */
  bitmaps: Uint8Array | null;
};
const KNOWN_INCOMPATIBLE: readonly (readonly [bit: bigint, name: string])[] = [[INCOMPAT.DATA_FILE, "an external data file"], [INCOMPAT.EXTL2, "extended L2 entries"]];

/** Round up to a multiple. */
export const roundUp = (n: number, unit: number): number => Math.ceil(n / unit) * unit;
/** An image's metadata contradicts itself; unlike other `corrupt` things this makes writing to it dangerous. */
export class Contradiction extends DiskError {
  readonly image: string;
  constructor(image: string, what: string) {
    super("corrupt", `${image}: ${what}`);
    this.image = image;
  }
}
/** Throw a `Contradiction`. */
export function corrupt(image: string, what: string): never {
  throw new Contradiction(image, what);
}

/**
 * Read and judge a header.
 * @throws DiskError `corrupt` where it contradicts itself or the file, `unsupported` for what is not known here, by name
 */
export async function readHeader(file: ByteFile): Promise<Header> {
  const name = file.name, fixed = new Uint8Array(H.sizeof), v = new DataView(fixed.buffer);
  await file.read(0, fixed);
  if (file.sizeBytes === 0) throw new DiskError("corrupt", `${name} is empty; a qcow2 image is not`);
  if (H.magic.get(v, 0) !== QCOW_MAGIC) throw new DiskError("corrupt", `${name} is not a qcow2 image; state its true format`);
  if (file.sizeBytes < V2_HEADER_BYTES) corrupt(name, `the file ends after ${file.sizeBytes} bytes, in its header`);
  const version = H.version.get(v, 0), refuse = (what: string): never => { throw new DiskError("unsupported", `${name}: ${what}`); };
  if (version !== 2 && version !== 3) refuse(`version ${version} of qcow2 is not known`);
  const clusterBits = H.cluster_bits.get(v, 0), clusterBytes = 2 ** clusterBits;
  if (clusterBits < 9 || clusterBits > 21) corrupt(name, `cluster_bits is ${clusterBits}, not 9 to 21`);
  const headerBytes = version === 2 ? V2_HEADER_BYTES : H.header_length.get(v, 0);
  const least = version === 2 ? V2_HEADER_BYTES : V3_HEADER_BYTES;
  if (headerBytes < least || headerBytes > clusterBytes || headerBytes % 8 !== 0) corrupt(name, `its header says it is ${headerBytes} bytes long`);
  if (H.crypt_method.get(v, 0) !== 0) refuse("it is encrypted, which is not supported");

  const extensions = await readExtensions(file, headerBytes, H.backing_file_offset.get(v, 0), clusterBytes);
  const incompatible = version === 2 ? 0n : H.incompatible_features.get(v, 0);
  for (const [bit, what] of KNOWN_INCOMPATIBLE) if (incompatible & bit) refuse(`it uses ${what}, which is not supported`);
  const unknown = incompatible & ~(INCOMPAT.DIRTY | INCOMPAT.CORRUPT | INCOMPAT.COMPRESSION);
  if (unknown) refuse(`it uses features that are not known here: ${featureNames(unknown, extensions.features).join(", ")}`);
  const compressionType = version === 3 && headerBytes > 104 ? H.compression_type.get(v, 0) : 0;
  if (compressionType > 1) refuse(`compression type ${compressionType} is not known`);
  if ((compressionType !== 0) !== ((incompatible & INCOMPAT.COMPRESSION) !== 0n)) corrupt(name, "its compression type and its feature bits disagree");

  const refcountOrder = version === 2 ? 4 : H.refcount_order.get(v, 0);
  if (refcountOrder > 6) corrupt(name, `refcount_order is ${refcountOrder}, not 0 to 6`);
  const sizeBytes = H.size.get(v, 0), l1Entries = H.l1_size.get(v, 0), bytesPerL1 = clusterBytes * (clusterBytes / 8);
  if (sizeBytes > Number.MAX_SAFE_INTEGER - SECTOR_BYTES) corrupt(name, `its disk claims ${sizeBytes} bytes`);
  if (l1Entries * 8 > MAX_L1_BYTES) corrupt(name, `its L1 table claims ${l1Entries} entries`);
  if (Math.ceil(sizeBytes / bytesPerL1) > l1Entries) corrupt(name, `its L1 table has ${l1Entries} entries, too few for a disk of ${sizeBytes} bytes`);
  const reftableClusters = H.refcount_table_clusters.get(v, 0);
  if (reftableClusters === 0 || reftableClusters * clusterBytes > MAX_REFTABLE_BYTES) corrupt(name, `its refcount table claims ${reftableClusters} clusters`);
  const l1At = H.l1_table_offset.get(v, 0), reftableAt = H.refcount_table_offset.get(v, 0);
  if (l1Entries) checkRegion(file, "L1 table", l1At, l1Entries * 8, clusterBytes);
  checkRegion(file, "refcount table", reftableAt, reftableClusters * clusterBytes, clusterBytes);
  const nrSnapshots = H.nb_snapshots.get(v, 0), snapshotsAt = H.snapshots_offset.get(v, 0);
  if (nrSnapshots > MAX_SNAPSHOTS) corrupt(name, `it claims ${nrSnapshots} snapshots`);
  if (nrSnapshots) checkRegion(file, "snapshot table", snapshotsAt, 1, clusterBytes);

  return {
    version, clusterBits, clusterBytes, sizeBytes: roundUp(sizeBytes, SECTOR_BYTES), l1At, l1Entries, reftableAt, reftableClusters, refcountOrder, nrSnapshots, snapshotsAt,
    backing: await readBacking(file, H.backing_file_offset.get(v, 0), H.backing_file_size.get(v, 0), clusterBytes, extensions.format),
    incompatible, compatible: version === 2 ? 0n : H.compatible_features.get(v, 0), autoclear: version === 2 ? 0n : H.autoclear_features.get(v, 0),
    compression: compressionType === 1 ? "zstd" : "zlib", bitmaps: extensions.bitmaps,
  };
}

/** A table must begin on a cluster, behind the header's, and lie in the file. */
export function checkRegion(file: ByteFile, what: string, at: number, lengthBytes: number, clusterBytes: number): void {
  if (at % clusterBytes !== 0 || at === 0) corrupt(file.name, `its ${what} lies at ${at}, which no cluster of its own begins at`);
  if (at + lengthBytes > roundUp(file.sizeBytes, clusterBytes)) corrupt(file.name, `its ${what}, ${lengthBytes} bytes at ${at}, ends past the file's ${file.sizeBytes} bytes`);
}

async function readBacking(file: ByteFile, at: number, length: number, clusterBytes: number, format: string | null): Promise<Header["backing"]> {
  if (at === 0 || length === 0) return null;
  if (length > 1023 || at + length > clusterBytes) corrupt(file.name, `the name of its backing file, ${length} bytes at ${at}, does not fit the header's cluster`);
  const bytes = new Uint8Array(length);
  await file.read(at, bytes);
  if (bytes.includes(0)) corrupt(file.name, "the name of its backing file holds a zero byte");
  return { path: new TextDecoder().decode(bytes), format };
}

type Extensions = { format: string | null; features: Uint8Array | null; bitmaps: Uint8Array | null };
async function readExtensions(file: ByteFile, from: number, backingAt: number, clusterBytes: number): Promise<Extensions> {
  const end = backingAt > from && backingAt < clusterBytes ? backingAt : clusterBytes, all = new Uint8Array(Math.min(end, file.sizeBytes)), v = new DataView(all.buffer);
  await file.read(0, all);
  let format: string | null = null, features: Uint8Array | null = null, bitmaps: Uint8Array | null = null;
  for (let at = from; at + 8 <= all.length; ) {
    const type = v.getUint32(at), length = v.getUint32(at + 4), content = all.subarray(at + 8, at + 8 + length);
    if (type === EXT.END) break;
    if (content.length !== length) corrupt(file.name, `header extension 0x${type.toString(16)} claims ${length} bytes, more than the header has`);
    if (type === EXT.BACKING_FORMAT) format = new TextDecoder().decode(content);
    if (type === EXT.FEATURE_TABLE) features = content;
    if (type === EXT.BITMAPS) bitmaps = content.slice();
    at += 8 + roundUp(length, 8);
  }
  return { format, features, bitmaps };
}

/** Names from the image's own feature table: entries of type, bit and 46 bytes of name. */
function featureNames(bits: bigint, table: Uint8Array | null): string[] {
  return Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => bits & (1n << BigInt(bit))).map((bit) => {
    for (let at = 0; table && at + 48 <= table.length; at += 48) {
      if (table[at] !== 0 || table[at + 1] !== bit) continue;
      const name = table.subarray(at + 2, at + 48), end = name.indexOf(0);
      return `"${new TextDecoder().decode(end < 0 ? name : name.subarray(0, end)).replaceAll(/[^\x20-\x7e]/g, "?")}"`;
    }
    return `incompatible bit ${bit}`;
  });
}

type Patched = "sizeBytes" | "l1At" | "l1Entries" | "reftableAt" | "reftableClusters" | "nrSnapshots" | "snapshotsAt" | "incompatible" | "autoclear";
/** Fields of the header that change in an image's life. */
export type HeaderFields = Partial<Pick<Header, Patched>>;
/** Write fields of the header, in one write that lies in the first sector; the caller flushes before and after as order demands. */
export async function patchHeader(file: ByteFile, fields: HeaderFields): Promise<void> {
  const bytes = new Uint8Array(SECTOR_BYTES), v = new DataView(bytes.buffer);
  await file.read(0, bytes);
  if (fields.sizeBytes !== undefined) H.size.set(v, 0, fields.sizeBytes);
  if (fields.l1Entries !== undefined) H.l1_size.set(v, 0, fields.l1Entries);
  if (fields.l1At !== undefined) H.l1_table_offset.set(v, 0, fields.l1At);
  if (fields.reftableAt !== undefined) H.refcount_table_offset.set(v, 0, fields.reftableAt);
  if (fields.reftableClusters !== undefined) H.refcount_table_clusters.set(v, 0, fields.reftableClusters);
  if (fields.nrSnapshots !== undefined) H.nb_snapshots.set(v, 0, fields.nrSnapshots);
  if (fields.snapshotsAt !== undefined) H.snapshots_offset.set(v, 0, fields.snapshotsAt);
  if (H.version.get(v, 0) >= 3) {
    if (fields.incompatible !== undefined) H.incompatible_features.set(v, 0, fields.incompatible);
    if (fields.autoclear !== undefined) H.autoclear_features.set(v, 0, fields.autoclear);
  }
  await file.write(0, bytes);
}
