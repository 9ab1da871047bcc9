/** Makes QCOW2 images. */
import { type ByteFile, DiskError, SECTOR_BYTES } from "../disk.ts";
import { roundUp } from "./header.ts";
import { COMPAT, EXT, MAX_L1_BYTES, putEntry, QCOW_MAGIC, QCowHeader as H, V2_HEADER_BYTES } from "./layout.ts";
import { setRefcount } from "./refcounts.ts";

/** What a new image is to be. */
export type CreateQcow2Options = {
  readonly sizeBytes: number;
  /** a power of two, 512 to 2 MiB; default 64 KiB */
  readonly clusterBytes?: number;
  readonly version?: 2 | 3;
  /** 1 to 64, a power of two; default 16 */
  readonly refcountBits?: number;
  readonly lazyRefcounts?: boolean;
  /** the path is written as it is: relative ones are taken from the image's folder */
  readonly backing?: { readonly path: string; readonly format: string };
};

/** Write an empty image into an empty file. The header comes last: what is interrupted is no image. @throws DiskError `unsupported` for what cannot be */
export async function createQcow2(file: ByteFile, options: CreateQcow2Options): Promise<void> {
  const { sizeBytes, clusterBytes = 65536, version = 3, refcountBits = 16, backing, lazyRefcounts } = options;
  const clusterBits = Math.log2(clusterBytes), refcountOrder = Math.log2(refcountBits);
  const refuse = (what: string): never => { throw new DiskError("unsupported", `${file.name}: ${what}`); };
  if (!Number.isInteger(clusterBits) || clusterBits < 9 || clusterBits > 21) refuse(`clusters of ${clusterBytes} bytes; a power of two from 512 to 2097152 is wanted`);
  if (!Number.isInteger(refcountOrder) || refcountOrder < 0 || refcountOrder > 6) refuse(`refcounts of ${refcountBits} bits; a power of two from 1 to 64 is wanted`);
  if (version === 2 && (refcountBits !== 16 || lazyRefcounts)) refuse("version 2 has refcounts of 16 bits that are never lazy");
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes % SECTOR_BYTES !== 0) refuse(`a disk of ${sizeBytes} bytes is not whole sectors`);
  const l1Entries = Math.max(1, Math.ceil(sizeBytes / (clusterBytes * (clusterBytes / 8))));
  if (l1Entries * 8 > MAX_L1_BYTES) refuse(`with clusters of ${clusterBytes} bytes a disk has ${(MAX_L1_BYTES / 8) * clusterBytes * (clusterBytes / 8)} bytes at most`);

  const per = (clusterBytes * 8) / refcountBits, nrL1 = Math.ceil((l1Entries * 8) / clusterBytes);
  let nrBlocks = 1, nrTable = 1;
  for (let total = 0; total !== 1 + nrTable + nrBlocks + nrL1; ) {
    total = 1 + nrTable + nrBlocks + nrL1;
    nrBlocks = Math.ceil(total / per);
    nrTable = Math.ceil((nrBlocks * 8) / clusterBytes);
  }
  const total = 1 + nrTable + nrBlocks + nrL1, table = new DataView(new ArrayBuffer(nrTable * clusterBytes));
  for (let b = 0; b < nrBlocks; b++) {
    const at = (1 + nrTable + b) * clusterBytes, block = new DataView(new ArrayBuffer(clusterBytes));
    for (let c = b * per; c < Math.min(total, (b + 1) * per); c++) setRefcount(block, c % per, refcountOrder, 1);
    putEntry(table, b, at, 0);
    await file.write(at, new Uint8Array(block.buffer));
  }
  await file.write(clusterBytes, new Uint8Array(table.buffer));
  await file.write((1 + nrTable + nrBlocks) * clusterBytes, new Uint8Array(nrL1 * clusterBytes));
  await file.flush();

  const header = new Uint8Array(clusterBytes), v = new DataView(header.buffer), headerBytes = version === 2 ? V2_HEADER_BYTES : H.sizeof;
  H.magic.set(v, 0, QCOW_MAGIC);
  H.version.set(v, 0, version);
  H.cluster_bits.set(v, 0, clusterBits);
  H.size.set(v, 0, sizeBytes);
  H.l1_size.set(v, 0, l1Entries);
  H.l1_table_offset.set(v, 0, (1 + nrTable + nrBlocks) * clusterBytes);
  H.refcount_table_offset.set(v, 0, clusterBytes);
  H.refcount_table_clusters.set(v, 0, nrTable);
  if (version >= 3) {
    H.refcount_order.set(v, 0, refcountOrder);
    H.header_length.set(v, 0, headerBytes);
    if (lazyRefcounts) H.compatible_features.set(v, 0, COMPAT.LAZY_REFCOUNTS);
  }
  if (backing) {
    const path = new TextEncoder().encode(backing.path), format = new TextEncoder().encode(backing.format), at = headerBytes + 8 + roundUp(format.length, 8) + 8;
    const most = Math.min(1023, clusterBytes - at);
    if (path.length === 0 || path.length > most) refuse(`the name of its backing file has ${path.length} bytes; ${most} is the most`);
    v.setUint32(headerBytes, EXT.BACKING_FORMAT);
    v.setUint32(headerBytes + 4, format.length);
    header.set(format, headerBytes + 8);
    header.set(path, at);
    H.backing_file_offset.set(v, 0, at);
    H.backing_file_size.set(v, 0, path.length);
  }
  await file.write(0, header);
  await file.flush();
}
