/**
 * A disk's master boot record with one partition.
 * @see UEFI Specification 2.10, 5.2.1 "Legacy Master Boot Record (MBR)"
 */
import { assert } from "../base/errors.ts";
import { bytes, struct, u8, u16, u32 } from "../base/struct.ts";

const SECTOR = 512;
/** Where the partition begins: 1 MiB, as partitioning tools have it. In bytes. */
export const PARTITION_AT = 1 << 20;
const PARTITION = struct(16, { boot_indicator: u8(0), starting_chs: bytes(1, 3), os_type: u8(4), ending_chs: bytes(5, 3), starting_lba: u32(8), size_in_lba: u32(12) });
const MBR = struct(SECTOR, { unique_signature: u32(440), partition_record: bytes(446, 4 * 16), signature: u16(510) });
/** os_type of a Linux file system. */
const OS_TYPE_LINUX = 0x83;

/**
 * The first sector of a disk whose one partition reaches from `PARTITION_AT` to its end.
 * @param diskBytes a multiple of 512, at most 2 TiB
 * @param diskId told to the guest as the disk's identity (PARTUUID)
 */
export function mbr(diskBytes: number, diskId: number): Uint8Array<ArrayBuffer> {
  const nrSectors = (diskBytes - PARTITION_AT) / SECTOR;
  assert(Number.isInteger(nrSectors) && nrSectors > 0 && diskBytes <= 2 ** 32 * SECTOR, `an MBR for a disk of ${diskBytes} bytes`);
  const sector = new Uint8Array(SECTOR), view = new DataView(sector.buffer), at = MBR.partition_record.at;
  MBR.unique_signature.set(view, 0, diskId);
  sector.set([0xfe, 0xff, 0xff], at + PARTITION.starting_chs.at);      // beyond what cylinders, heads and sectors can say
  PARTITION.os_type.set(view, at, OS_TYPE_LINUX);
  sector.set([0xfe, 0xff, 0xff], at + PARTITION.ending_chs.at);
  PARTITION.starting_lba.set(view, at, PARTITION_AT / SECTOR);
  PARTITION.size_in_lba.set(view, at, nrSectors);
  MBR.signature.set(view, 0, 0xaa55);
  return sector;
}
