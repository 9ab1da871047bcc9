/**
 * QCOW2's structures on disk, all big-endian. @see docs/interop/qcow2.txt of QEMU, whose names these are
 */
import { type Field, struct } from "../../base/struct.ts";

const u16 = (at: number): Field<number> => ({ at, size: 2, get: (v, base) => v.getUint16(base + at), set: (v, base, x) => v.setUint16(base + at, x) });
const u32 = (at: number): Field<number> => ({ at, size: 4, get: (v, base) => v.getUint32(base + at), set: (v, base, x) => v.setUint32(base + at, x) });
const u8 = (at: number): Field<number> => ({ at, size: 1, get: (v, base) => v.getUint8(base + at), set: (v, base, x) => v.setUint8(base + at, x) });
/** As a number: beyond 2^53 it is not exact, and beyond everything that is allowed. */
const u64 = (at: number): Field<number> => ({
  at, size: 8, get: (v, base) => v.getUint32(base + at) * 2 ** 32 + v.getUint32(base + at + 4),
  set: (v, base, x) => { v.setUint32(base + at, Math.floor(x / 2 ** 32)); v.setUint32(base + at + 4, x >>> 0); },
});
const bits64 = (at: number): Field<bigint> => ({ at, size: 8, get: (v, base) => v.getBigUint64(base + at), set: (v, base, x) => v.setBigUint64(base + at, x) });

/** "QFI\xfb". */
export const QCOW_MAGIC = 0x514649fb;
/** The header; a version 2 image ends it before `incompatible_features`. */
export const QCowHeader = struct(112, {
  magic: u32(0), version: u32(4), backing_file_offset: u64(8), backing_file_size: u32(16), cluster_bits: u32(20), size: u64(24), crypt_method: u32(32),
  l1_size: u32(36), l1_table_offset: u64(40), refcount_table_offset: u64(48), refcount_table_clusters: u32(56), nb_snapshots: u32(60), snapshots_offset: u64(64),
  incompatible_features: bits64(72), compatible_features: bits64(80), autoclear_features: bits64(88), refcount_order: u32(96), header_length: u32(100), compression_type: u8(104),
});
/** Lengths of the header where version 2 ends it, and version 3 at the earliest. */
export const V2_HEADER_BYTES = 72, V3_HEADER_BYTES = 104;
/** Bits of `incompatible_features`, `compatible_features` and `autoclear_features`. */
export const INCOMPAT = { DIRTY: 1n << 0n, CORRUPT: 1n << 1n, DATA_FILE: 1n << 2n, COMPRESSION: 1n << 3n, EXTL2: 1n << 4n } as const;
/** See INCOMPAT. */
export const COMPAT = { LAZY_REFCOUNTS: 1n << 0n } as const;
/** See INCOMPAT. */
export const AUTOCLEAR = { BITMAPS: 1n << 0n, DATA_FILE_RAW: 1n << 1n } as const;
/** Header extensions' types. */
export const EXT = { END: 0, BACKING_FORMAT: 0xe2792aca, FEATURE_TABLE: 0x6803f857, BITMAPS: 0x23852875, CRYPTO: 0x0537be77, DATA_FILE: 0x44415441 } as const;

/** One entry of the snapshot table, before its extra data, id and name; padded to 8. */
export const QCowSnapshotHeader = struct(40, {
  l1_table_offset: u64(0), l1_size: u32(8), id_str_size: u16(12), name_size: u16(14), date_sec: u32(16), date_nsec: u32(20), vm_clock_nsec: bits64(24),
  vm_state_size: u32(32), extra_data_size: u32(36),
});
/** A snapshot's extra data, as far as known here. */
export const QCowSnapshotExtra = struct(24, { vm_state_size_large: u64(0), disk_size: u64(8), icount: bits64(16) });

/** The bitmaps extension, and one entry of its directory before extra data and name; padded to 8. */
export const Qcow2BitmapHeaderExt = struct(24, { nb_bitmaps: u32(0), reserved32: u32(4), bitmap_directory_size: u64(8), bitmap_directory_offset: u64(16) });
/** See Qcow2BitmapHeaderExt. */
export const Qcow2BitmapDirEntry = struct(24, {
  bitmap_table_offset: u64(0), bitmap_table_size: u32(8), flags: u32(12), type: u8(16), granularity_bits: u8(17), name_size: u16(18), extra_data_size: u32(20),
});

/** Bits of the upper and lower half of an L1 or L2 entry. The offset is bits 9 to 55. */
export const OFLAG_COPIED_HI = 0x80000000, OFLAG_COMPRESSED_HI = 0x40000000, OFLAG_ZERO_LO = 1;
const OFFSET_HI = 0x00ffffff;

/** Offset in an L1, L2 or refcount table entry, as a number; exact to 2^53, which is checked against the file's size at once. */
export const entryOffset = (view: DataView, index: number): number => (view.getUint32(index * 8) & OFFSET_HI) * 2 ** 32 + ((view.getUint32(index * 8 + 4) & ~511) >>> 0);
/** Write an entry from its parts. */
export function putEntry(view: DataView, index: number, offset: number, flagsHi: number, flagsLo = 0): void {
  view.setUint32(index * 8, (Math.floor(offset / 2 ** 32) | flagsHi) >>> 0);
  view.setUint32(index * 8 + 4, ((offset >>> 0) | flagsLo) >>> 0);
}
/** The entry's cluster has this one user. */
export const isCopiedEntry = (view: DataView, index: number): boolean => (view.getUint32(index * 8) & OFLAG_COPIED_HI) !== 0;

/** What an L2 entry says of one guest cluster. `host` is a byte offset; 0 where there is none. A `zero` cluster may keep a host cluster for later. */
export type Mapping = { readonly kind: "none" | "zero" | "data" | "compressed"; readonly host: number; readonly lengthBytes: number; readonly isCopied: boolean };
const NONE: Mapping = { kind: "none", host: 0, lengthBytes: 0, isCopied: false };

/** Read an L2 entry. Nothing is checked yet but its form. */
export function mappingAt(view: DataView, index: number, clusterBits: number, version: number): Mapping {
  const hi = view.getUint32(index * 8), lo = view.getUint32(index * 8 + 4);
  if (hi === 0 && lo === 0) return NONE;
  if (hi & OFLAG_COMPRESSED_HI) {
    // The offset has 62 - (cluster_bits - 8) bits, the rest counts sectors after the first, which may begin in the middle of one.
    const sectorBits = clusterBits - 8, offsetHi = hi & (2 ** (30 - sectorBits) - 1), host = offsetHi * 2 ** 32 + lo;
    const nrSectors = ((hi >>> (30 - sectorBits)) & (2 ** sectorBits - 1)) + 1;
    return { kind: "compressed", host, lengthBytes: nrSectors * 512 - (host % 512), isCopied: false };
  }
  const host = (hi & OFFSET_HI) * 2 ** 32 + ((lo & ~511) >>> 0), isCopied = (hi & OFLAG_COPIED_HI) !== 0;
  if (version >= 3 && lo & OFLAG_ZERO_LO) return { kind: "zero", host, lengthBytes: 0, isCopied };
  return host === 0 ? NONE : { kind: "data", host, lengthBytes: 0, isCopied };
}
/** Bits that must be zero in an entry that is not a compressed cluster's. */
export const hasReservedBits = (view: DataView, index: number, allowedLo: number): boolean =>
  (view.getUint32(index * 8) & 0x3f000000) !== 0 || (view.getUint32(index * 8 + 4) & 511 & ~allowedLo) !== 0;

/** Limits of what is read into memory at once; QEMU has the same. */
export const MAX_L1_BYTES = 32 << 20, MAX_REFTABLE_BYTES = 8 << 20, MAX_SNAPSHOTS = 65536, MAX_SNAPSHOT_TABLE_BYTES = 64 << 20, MAX_BITMAPS = 65535;
