/** public/grant_table.h: the shared table and the operations on it. */
import { bytes, struct, u16, u32, u64 } from "../base/struct.ts";

/** [GST] but for the two flags reading and writing; changed by compare-and-swap of the first four bytes. `Atomics` only. */
export const GrantEntryV1 = struct(8, {
  /** GTF [XEN, GST] */
  flags: u16(0),
  /** whom the frame is granted to */
  domid: u16(2),
  /** guest frame number; in a transfer [XEN] */
  frame: u32(4),
});
/** grant_entry_v2, by kind; we refuse version 2, and declare it to say so. */
export const GrantEntryV2FullPage = struct(16, { flags: u16(0), domid: u16(2), pad0: u32(4), frame: u64(8) });

export const GNTTAB_NR_RESERVED_ENTRIES = 8;
export const GNTTAB_RESERVED = { CONSOLE: 0, XENSTORE: 1 } as const;
/** grant_entry_v1.flags. reading and writing are [XEN]. */
export const GTF = {
  invalid: 0, permit_access: 1, accept_transfer: 2, transitive: 3, type_mask: 3, readonly: 1 << 2, reading: 1 << 3, writing: 1 << 4,
  PWT: 1 << 5, PCD: 1 << 6, PAT: 1 << 7, sub_page: 1 << 8, transfer_committed: 1 << 2, transfer_completed: 1 << 3,
} as const;

export const GNTTABOP = {
  map_grant_ref: 0, unmap_grant_ref: 1, setup_table: 2, dump_table: 3, transfer: 4, copy: 5, query_size: 6, unmap_and_replace: 7,
  set_version: 8, get_status_frames: 9, get_version: 10, swap_grant_ref: 11, cache_flush: 12,
} as const;
/** Where a field's type is int16_t in C (every `status`), it is declared u16 here: write `GNTST.x & 0xffff`. */
export const GnttabMapGrantRef = struct(32, {
  host_addr: u64(0), flags: u32(8), ref: u32(12), dom: u16(16), status: u16(18), handle: u32(20), dev_bus_addr: u64(24),
});
export const GnttabUnmapGrantRef = struct(24, { host_addr: u64(0), dev_bus_addr: u64(8), handle: u32(16), status: u16(20) });
export const GnttabSetupTable = struct(24, { dom: u16(0), nr_frames: u32(4), status: u16(8), frame_list: u64(16) });
export const GnttabDumpTable = struct(4, { dom: u16(0), status: u16(2) });
export const GnttabTransfer = struct(24, { mfn: u64(0), domid: u16(8), ref: u32(12), status: u16(16) });
/** source and dest are GnttabCopyPtr. */
export const GnttabCopy = struct(40, { source: bytes(0, 16), dest: bytes(16, 16), len: u16(32), flags: u16(34), status: u16(36) });
/** Where the frame is given by reference; GnttabCopyPtrGmfn where by number. */
export const GnttabCopyPtr = struct(16, { ref: u32(0), domid: u16(8), offset: u16(10) });
export const GnttabCopyPtrGmfn = struct(16, { gmfn: u64(0), domid: u16(8), offset: u16(10) });
export const GNTCOPY = { source_gref: 1, dest_gref: 2 } as const;
export const GnttabQuerySize = struct(16, { dom: u16(0), nr_frames: u32(4), max_nr_frames: u32(8), status: u16(12) });
export const GnttabUnmapAndReplace = struct(24, { host_addr: u64(0), new_addr: u64(8), handle: u32(16), status: u16(20) });
export const GnttabSetVersion = struct(4, { version: u32(0) });
export const GnttabGetStatusFrames = struct(16, { nr_frames: u32(0), dom: u16(4), status: u16(6), frame_list: u64(8) });
export const GnttabGetVersion = struct(8, { dom: u16(0), pad: u16(2), version: u32(4) });
export const GnttabSwapGrantRef = struct(12, { ref_a: u32(0), ref_b: u32(4), status: u16(8) });
export const GnttabCacheFlush = struct(16, { dev_bus_addr: u64(0), offset: u16(8), length: u16(10), op: u32(12) });
export const GNTTAB_CACHE = { CLEAN: 1, INVAL: 2, SOURCE_GREF: 0x80000000 } as const;

export const GNTMAP = { device_map: 1, host_map: 2, readonly: 4, application_map: 8, contains_pte: 16, guest_avail_mask: 0xffff0000 } as const;
export const GNTST = {
  okay: 0, general_error: -1, bad_domain: -2, bad_gntref: -3, bad_handle: -4, bad_virt_addr: -5, bad_dev_addr: -6, no_device_space: -7,
  permission_denied: -8, bad_page: -9, bad_copy_arg: -10, address_too_big: -11, eagain: -12, no_space: -13,
} as const;
