/** public/io/blkif.h, x86_64 ABI: the block device's ring. All of it lies in guest memory: copy first, then check. */
import { bytes, struct, u16, u32, u64, u8 } from "../../base/struct.ts";

/** Request of READ, WRITE, WRITE_BARRIER, FLUSH_DISKCACHE. `id` is echoed; sectors have 512 bytes. */
export const BlkifRequest = struct(112, { operation: u8(0), nr_segments: u8(1), handle: u16(2), id: u64(8), sector_number: u64(16), seg: bytes(24, 88) });
/** A piece of one granted page: its sectors first_sect to last_sect, both included. */
export const BlkifRequestSegment = struct(8, { gref: u32(0), first_sect: u8(4), last_sect: u8(5) });
/** Request of DISCARD. */
export const BlkifRequestDiscard = struct(32, { operation: u8(0), flag: u8(1), handle: u16(2), id: u64(8), sector_number: u64(16), nr_sectors: u64(24) });
/** Request of INDIRECT: the segments lie in granted pages of their own, 512 a page. */
export const BlkifRequestIndirect = struct(64, {
  operation: u8(0), indirect_op: u8(1), nr_segments: u16(2), id: u64(8), sector_number: u64(16), handle: u16(24), indirect_grefs: bytes(28, 32),
});
/** `status` is an int16_t: write it as it is, sign it when read. */
export const BlkifResponse = struct(16, { id: u64(0), operation: u8(8), status: u16(10) });

/** `operation` of a request, and of the response to it. INDIRECT has the operation proper in `indirect_op`. */
export const BLKIF_OP = { READ: 0, WRITE: 1, WRITE_BARRIER: 2, FLUSH_DISKCACHE: 3, RESERVED_1: 4, DISCARD: 5, INDIRECT: 6 } as const;
/** `status` of a response. */
export const BLKIF_RSP = { EOPNOTSUPP: -2, ERROR: -1, OKAY: 0 } as const;
/** Segments that fit into a request, and pages of segments that an indirect one names. */
export const BLKIF_MAX_SEGMENTS_PER_REQUEST = 11;
/** @see BLKIF_MAX_SEGMENTS_PER_REQUEST */
export const BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8;
/** bit of BlkifRequestDiscard.flag */
export const BLKIF_DISCARD_SECURE = 1 << 0;
/** bits of the back end's node "info" */
export const VDISK = { CDROM: 1, REMOVABLE: 2, READONLY: 4 } as const;
/** Slot size of the ring, the larger of request and response. */
export const BLKIF_SLOT_BYTES = BlkifRequest.sizeof;
