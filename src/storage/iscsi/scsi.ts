/** The SCSI that a disk needs: SPC-4 and SBC-3. Commands, and what their answers say. All numbers are big-endian. */
import { DiskError, type DiskFault } from "../disk.ts";

/** Operation codes. */
export const SCSI = { TEST_UNIT_READY: 0x00, INQUIRY: 0x12, MODE_SENSE_6: 0x1a, READ_CAPACITY_10: 0x25, READ_10: 0x28, WRITE_10: 0x2a, SYNCHRONIZE_CACHE_10: 0x35, UNMAP: 0x42, READ_16: 0x88,
  WRITE_16: 0x8a, WRITE_SAME_16: 0x93, SERVICE_ACTION_IN_16: 0x9e, REPORT_LUNS: 0xa0 } as const;
/** Status bytes. */
export const STATUS = { good: 0x00, checkCondition: 0x02, busy: 0x08, reservationConflict: 0x18, taskSetFull: 0x28, taskAborted: 0x40 } as const;

/** A command block of 16 bytes: [offset, value, size] are numbers. */
export function cdb(opcode: number, ...fields: readonly (readonly [at: number, value: number | bigint, size: 1 | 2 | 4 | 8])[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16), v = new DataView(bytes.buffer);
  bytes[0] = opcode;
  for (const [at, value, size] of fields) {
    if (size === 8) v.setBigUint64(at, BigInt(value));
    else if (size === 4) v.setUint32(at, Number(value));
    else if (size === 2) v.setUint16(at, Number(value));
    else v.setUint8(at, Number(value));
  }
  return bytes;
}
/** READ or WRITE of blocks: the short form where the numbers fit. */
export function readWrite(writes: boolean, block: number, nrBlocks: number): Uint8Array<ArrayBuffer> {
  return block + nrBlocks <= 2 ** 32 && nrBlocks < 65536 ? cdb(writes ? SCSI.WRITE_10 : SCSI.READ_10, [2, block, 4], [7, nrBlocks, 2]) : cdb(writes ? SCSI.WRITE_16 : SCSI.READ_16, [2, block, 8], [10, nrBlocks, 4]);
}
/** UNMAP and its parameter list, for one range. */
export function unmap(block: number, nrBlocks: number): { cdb: Uint8Array; write: Uint8Array } {
  const write = new Uint8Array(24), v = new DataView(write.buffer);
  v.setUint16(0, 22);
  v.setUint16(2, 16);
  v.setBigUint64(8, BigInt(block));
  v.setUint32(16, nrBlocks);
  return { cdb: cdb(SCSI.UNMAP, [7, 24, 2]), write };
}

/** Sense: key, code and qualifier; all 0 when there is none. */
export type Sense = { readonly key: number; readonly asc: number; readonly ascq: number };
/** Read sense of either format. */
export function readSense(b: Uint8Array): Sense {
  const format = (b[0] ?? 0) & 0x7f;
  if (format === 0x70 || format === 0x71) return { key: (b[2] ?? 0) & 15, asc: b[12] ?? 0, ascq: b[13] ?? 0 };
  if (format === 0x72 || format === 0x73) return { key: (b[1] ?? 0) & 15, asc: b[2] ?? 0, ascq: b[3] ?? 0 };
  return { key: 0, asc: 0, ascq: 0 };
}
const KEYS = ["NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR", "ILLEGAL REQUEST", "UNIT ATTENTION", "DATA PROTECT", "BLANK CHECK", "VENDOR", "COPY ABORTED",
  "ABORTED COMMAND", "reserved", "VOLUME OVERFLOW", "MISCOMPARE", "COMPLETED"];

/**
 * What an ended command means. `retry`: at once; `wait`: later; `capacity`: ask for the size and retry; `reset`: the unit lost its cache, all that is not
 * flushed is to be written anew; else the fault it is.
 */
export function verdict(status: number, sense: Sense): "good" | "retry" | "wait" | "capacity" | "reset" | DiskFault {
  if (status === STATUS.good) return "good";
  if (status === STATUS.busy || status === STATUS.taskSetFull) return "wait";
  if (status === STATUS.taskAborted) return "retry";
  if (status === STATUS.reservationConflict) return "busy";
  if (status !== STATUS.checkCondition) return "io";
  const { key, asc, ascq } = sense;
  switch (key) {
    case 0: case 1: return "good";
    case 2: return asc === 0x04 && (ascq === 0x01 || ascq === 0x07 || ascq === 0x09) ? "wait" : asc === 0x3a ? "missing" : "io";
    case 5: return asc === 0x20 || asc === 0x24 || asc === 0x26 ? "unsupported" : asc === 0x21 ? "range" : asc === 0x25 ? "missing" : "io";
    case 6: return asc === 0x29 ? "reset" : asc === 0x2a && ascq === 0x09 ? "capacity" : "retry";
    case 7: return asc === 0x27 && ascq === 0x07 ? "nospace" : "readonly";
    case 11: return "retry";
    default: return "io";
  }
}
/** A sentence's part about how a command ended. */
export const saidOf = (status: number, s: Sense): string => (status === STATUS.checkCondition
  ? `${KEYS[s.key]}, code ${s.asc.toString(16).padStart(2, "0")}/${s.ascq.toString(16).padStart(2, "0")}` : `status ${status.toString(16).padStart(2, "0")}`);

/** A unit's size. */
export type Capacity = { readonly nrBlocks: number; readonly blockBytes: number; readonly physicalBytes: number; readonly isThin: boolean };
/** The answer of READ CAPACITY(10), 8 bytes, or (16), 32 bytes. @throws DiskError */
export function readCapacity(b: Uint8Array, name: string): Capacity {
  const v = new DataView(b.buffer, b.byteOffset, b.length), isLong = b.length >= 32, last = isLong ? v.getBigUint64(0) : BigInt(v.getUint32(0)), blockBytes = v.getUint32(isLong ? 8 : 4);
  if (blockBytes < 512 || blockBytes > 65536 || (blockBytes & (blockBytes - 1)) !== 0) throw new DiskError("unsupported", `${name}: blocks of ${blockBytes} bytes`);
  if ((last + 1n) * BigInt(blockBytes) > BigInt(Number.MAX_SAFE_INTEGER)) throw new DiskError("io", `${name}: the target says that its last block is ${last}`);
  return { nrBlocks: Number(last) + 1, blockBytes, physicalBytes: isLong ? blockBytes * 2 ** (b[13]! & 15) : blockBytes, isThin: isLong && (b[14]! & 0x80) !== 0 };
}
/** Limits of VPD page B0, in blocks; 0: not told. */
export type BlockLimits = { readonly maxTransfer: number; readonly maxUnmap: number; readonly maxWriteSame: number };
/** Read page B0, of whatever length: older units have a shorter one. */
export function readBlockLimits(b: Uint8Array): BlockLimits {
  const v = new DataView(b.buffer, b.byteOffset, b.length), at = (p: number): number => (b.length >= p + 4 ? v.getUint32(p) : 0);
  const same = b.length >= 44 ? v.getBigUint64(36) : 0n;
  return { maxTransfer: at(8), maxUnmap: at(20), maxWriteSame: same > 0xffffffffn ? 0xffffffff : Number(same) };
}
/** The unit's own name out of VPD page 83: its best designator as hexadecimal digits, "" when there is none. */
export function readIdentity(b: Uint8Array): string {
  let best = "", rank = -1;
  for (let at = 4; at + 4 <= b.length;) {
    const association = (b[at + 1]! >> 4) & 3, type = b[at + 1]! & 15, n = b[at + 3]!, ranks = [-1, 1, 2, 3, -1, -1, -1, -1, 4];
    if (at + 4 + n > b.length) break;
    if (association === 0 && n > 0 && (ranks[type] ?? -1) > rank) {
      rank = ranks[type]!;
      best = Array.from(b.subarray(at + 4, at + 4 + n), (x) => x.toString(16).padStart(2, "0")).join("");
    }
    at += 4 + n;
  }
  return best;
}
/** Units of a REPORT LUNS answer, those that fit into 14 bits. */
export function readLuns(b: Uint8Array): number[] {
  const v = new DataView(b.buffer, b.byteOffset, b.length), n = b.length >= 8 ? Math.min(Math.floor(v.getUint32(0) / 8), Math.floor((b.length - 8) / 8)) : 0;
  return Array.from({ length: n }, (_, i) => v.getUint16(8 + 8 * i)).filter((w) => w >> 14 <= 1).map((w) => w & 0x3fff);
}
