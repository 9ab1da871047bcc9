/** VHD's headers: Microsoft, "Virtual Hard Disk Image Format Specification", 1.0. All numbers are big-endian; checked here, before anyone obeys them. */
import { DiskError, SECTOR_BYTES } from "../disk.ts";

/** Sizes of the footer and of the dynamic disk header. */
export const FOOTER_BYTES = 512, HEADER_BYTES = 1024;
/** Kinds of disk. */
export const VHD_TYPE = { fixed: 2, dynamic: 3, differencing: 4 } as const;
/** A block that is not there, in the block allocation table. */
export const BAT_FREE = 0xffffffff;
/** The greatest disk: what 32-bit sector numbers of the table reach, as Hyper-V and qemu have it. */
export const SIZE_BYTES_MAX = 2040 * 2 ** 30;
/** What we and everyone else make. */
export const BLOCK_BYTES = 2 << 20;

const FOOTER = { cookie: 0, features: 8, version: 12, data_offset: 16, timestamp: 24, creator_app: 28, creator_version: 32, creator_os: 36, original_size: 40, current_size: 48,
  cylinders: 56, heads: 58, sectors: 59, type: 60, checksum: 64, unique_id: 68 } as const;
const HEADER = { cookie: 0, data_offset: 8, table_offset: 16, header_version: 24, max_table_entries: 28, block_size: 32, checksum: 36 } as const;
const GEOMETRY_SECTORS_MAX = 65535 * 16 * 255;

/** What a footer says. */
export type VhdFooter = { readonly type: number; readonly sizeBytes: number; readonly dataOffset: bigint };
/** What a dynamic header says, in bytes. */
export type VhdHeader = { readonly tableOffset: number; readonly nrEntries: number; readonly blockBytes: number };

const text = (bytes: Uint8Array, at: number, n: number): string => String.fromCharCode(...bytes.subarray(at, at + n));
const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const put = (bytes: Uint8Array, at: number, s: string): void => { for (let i = 0; i < s.length; i++) bytes[at + i] = s.charCodeAt(i); };
/** The complement of the sum of all bytes but the checksum's own. */
function checksum(bytes: Uint8Array, field: number): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) if (i < field || i >= field + 4) sum += bytes[i]!;
  return ~sum >>> 0;
}
const seal = (bytes: Uint8Array, field: number): void => viewOf(bytes).setUint32(field, checksum(bytes, field));

/** Cylinders, heads and sectors a track, by the specification's appendix; their product is at most `sizeBytes`. */
export function geometryOf(sizeBytes: number): { cylinders: number; heads: number; sectors: number } {
  const total = Math.min(Math.floor(sizeBytes / SECTOR_BYTES), GEOMETRY_SECTORS_MAX);
  let sectors: number, heads: number, tracks: number;
  if (total >= 65535 * 16 * 63) {
    sectors = 255;
    heads = 16;
    tracks = Math.floor(total / sectors);
  } else {
    sectors = 17;
    tracks = Math.floor(total / sectors);
    heads = Math.max(4, Math.ceil(tracks / 1024));
    if (tracks >= heads * 1024 || heads > 16) { sectors = 31; heads = 16; tracks = Math.floor(total / sectors); }
    if (tracks >= heads * 1024) { sectors = 63; heads = 16; tracks = Math.floor(total / sectors); }
  }
  return { cylinders: Math.floor(tracks / heads), heads, sectors };
}

/** Is this a footer, by cookie and checksum? */
export const isFooter = (b: Uint8Array): boolean => text(b, 0, 8) === "conectix" && viewOf(b).getUint32(FOOTER.checksum) === checksum(b, FOOTER.checksum);

/**
 * Read a footer that `isFooter`. The disk's size is current_size, but for the makers that mean the geometry: Virtual PC, Virtual Server, and qemu where it
 * was not told force_size. A geometry at its greatest says nothing.
 */
export function readFooter(b: Uint8Array, name: string): VhdFooter {
  const v = viewOf(b), creator = text(b, FOOTER.creator_app, 4), version = v.getUint32(FOOTER.version), type = v.getUint32(FOOTER.type);
  const product = v.getUint16(FOOTER.cylinders) * v.getUint8(FOOTER.heads) * v.getUint8(FOOTER.sectors), current = v.getBigUint64(FOOTER.current_size);
  if (version >>> 16 !== 1) throw new DiskError("unsupported", `${name}: VHD version ${version.toString(16)} is unknown`);
  if (type === VHD_TYPE.differencing) throw new DiskError("unsupported", `${name} is a differencing VHD, which needs its parent; merge it into one image first`);
  if (type !== VHD_TYPE.fixed && type !== VHD_TYPE.dynamic) throw new DiskError("unsupported", `${name}: VHD disk type ${type} is unknown`);
  const meansGeometry = ["vpc ", "vs  ", "qemu"].includes(creator) && product !== GEOMETRY_SECTORS_MAX && product > 0;
  const sizeBytes = meansGeometry ? product * SECTOR_BYTES : Number(current);
  if (sizeBytes > SIZE_BYTES_MAX) throw new DiskError("corrupt", `${name}: the footer says ${sizeBytes} bytes, more than a VHD can have`);
  if (sizeBytes % SECTOR_BYTES !== 0) throw new DiskError("corrupt", `${name}: the footer says ${sizeBytes} bytes, which are no whole sectors`);
  return { type, sizeBytes, dataOffset: v.getBigUint64(FOOTER.data_offset) };
}

/** Read and check a dynamic disk header. @param sizeBytes the disk's @param fileBytes the file's */
export function readHeader(b: Uint8Array, sizeBytes: number, fileBytes: number, name: string): VhdHeader {
  const v = viewOf(b), bad = (why: string): DiskError => new DiskError("corrupt", `${name}: ${why}`);
  if (text(b, 0, 8) !== "cxsparse" || v.getUint32(HEADER.checksum) !== checksum(b, HEADER.checksum)) throw bad("the dynamic disk header has a wrong cookie or checksum");
  const tableOffset = v.getBigUint64(HEADER.table_offset), nrEntries = v.getUint32(HEADER.max_table_entries), blockBytes = v.getUint32(HEADER.block_size);
  if (v.getUint32(HEADER.header_version) >>> 16 !== 1) throw new DiskError("unsupported", `${name}: dynamic header version ${v.getUint32(HEADER.header_version).toString(16)} is unknown`);
  if (blockBytes < 4096 || blockBytes > 256 << 20 || (blockBytes & (blockBytes - 1)) !== 0) throw bad(`blocks of ${blockBytes} bytes`);
  const needed = Math.ceil(sizeBytes / blockBytes);
  if (nrEntries < needed) throw bad(`the table has ${nrEntries} entries where ${needed} are needed`);
  if (tableOffset % BigInt(SECTOR_BYTES) !== 0n || tableOffset < BigInt(FOOTER_BYTES) || tableOffset + BigInt(needed * 4) > BigInt(fileBytes)) throw bad(`the table at ${tableOffset} is not inside the file's ${fileBytes} bytes`);
  return { tableOffset: Number(tableOffset), nrEntries: needed, blockBytes };
}

/**
 * Make a footer. The creator is named "tap", XenServer's, because readers take current_size for the size only from makers they know; version 0.1 of it has
 * no batmap.
 */
export function makeFooter(sizeBytes: number, type: number, id: Uint8Array, nowMs: number): Uint8Array<ArrayBuffer> {
  const b = new Uint8Array(FOOTER_BYTES), v = viewOf(b), g = geometryOf(sizeBytes);
  put(b, FOOTER.cookie, "conectix");
  v.setUint32(FOOTER.features, 2);
  v.setUint32(FOOTER.version, 0x10000);
  v.setBigUint64(FOOTER.data_offset, type === VHD_TYPE.fixed ? 0xffffffffffffffffn : BigInt(FOOTER_BYTES));
  v.setUint32(FOOTER.timestamp, Math.max(0, Math.floor((nowMs - Date.UTC(2000, 0, 1)) / 1000)));
  put(b, FOOTER.creator_app, "tap\0");
  v.setUint32(FOOTER.creator_version, 1);
  v.setBigUint64(FOOTER.original_size, BigInt(sizeBytes));
  v.setBigUint64(FOOTER.current_size, BigInt(sizeBytes));
  v.setUint16(FOOTER.cylinders, g.cylinders);
  v.setUint8(FOOTER.heads, g.heads);
  v.setUint8(FOOTER.sectors, g.sectors);
  v.setUint32(FOOTER.type, type);
  b.set(id, FOOTER.unique_id);
  seal(b, FOOTER.checksum);
  return b;
}
/** Make a dynamic disk header with its table right behind it. */
export function makeHeader(nrEntries: number): Uint8Array<ArrayBuffer> {
  const b = new Uint8Array(HEADER_BYTES), v = viewOf(b);
  put(b, HEADER.cookie, "cxsparse");
  v.setBigUint64(HEADER.data_offset, 0xffffffffffffffffn);
  v.setBigUint64(HEADER.table_offset, BigInt(FOOTER_BYTES + HEADER_BYTES));
  v.setUint32(HEADER.header_version, 0x10000);
  v.setUint32(HEADER.max_table_entries, nrEntries);
  v.setUint32(HEADER.block_size, BLOCK_BYTES);
  seal(b, HEADER.checksum);
  return b;
}
