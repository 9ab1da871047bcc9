/** public/memory.h */
import { bytes, struct, u16, u32, u64 } from "../base/struct.ts";

/** The low bits of memory_op's cmd; from MEMOP_EXTENT_SHIFT up it holds where a continued call goes on. */
export const XENMEM = {
  increase_reservation: 0, decrease_reservation: 1, maximum_ram_page: 2, current_reservation: 3, maximum_reservation: 4,
  machphys_mfn_list: 5, populate_physmap: 6, add_to_physmap: 7, memory_map: 9, machine_memory_map: 10, exchange: 11,
  machphys_mapping: 12, set_memory_map: 13, maximum_gpfn: 14, remove_from_physmap: 15, set_pod_target: 16, get_pod_target: 17,
  get_sharing_freed_pages: 18, get_sharing_shared_pages: 19, paging_op: 20, access_op: 21, sharing_op: 22, add_to_physmap_batch: 23,
  claim_pages: 24, machphys_compat_mfn_list: 25, get_vnumainfo: 26, reserved_device_memory_map: 27, acquire_resource: 28,
} as const;
/** mem_flags; bits 0-7 are the address width, bits 8-15 node + 1. */
export const XENMEMF = { populate_on_demand: 1 << 16, exact_node_request: 1 << 17, vnode: 1 << 18 } as const;
export const XENMAPSPACE = { shared_info: 0, grant_table: 1, gmfn: 2, gmfn_range: 3, gmfn_foreign: 4, dev_mmio: 5 } as const;
export const XENMAPIDX_grant_table_status = 0x80000000;
/** Not in the public headers: Xen keeps the continuation's start extent in the upper bits of the command. */
export const MEMOP_EXTENT_SHIFT = 6;

/** extent_start: array of xen_pfn_t. */
export const XenMemoryReservation = struct(32, { extent_start: u64(0), nr_extents: u64(8), extent_order: u32(16), mem_flags: u32(20), domid: u16(24) });
/** in and out are XenMemoryReservation; nr_exchanged [XEN]. */
export const XenMemoryExchange = struct(72, { in: bytes(0, 32), out: bytes(32, 32), nr_exchanged: u64(64) });
export const XenMemoryDomain = struct(2, { domid: u16(0) });
export const XenMachphysMfnList = struct(24, { max_extents: u32(0), extent_start: u64(8), nr_extents: u32(16) });
export const XenMachphysMapping = struct(24, { v_start: u64(0), v_end: u64(8), max_mfn: u64(16) });
export const XenAddToPhysmap = struct(24, { domid: u16(0), size: u16(2), space: u32(4), idx: u64(8), gpfn: u64(16) });
export const XenAddToPhysmapBatch = struct(32, {
  domid: u16(0), space: u16(2), size: u16(4), foreign_domid: u16(6), idxs: u64(8), gpfns: u64(16), errs: u64(24),
});
export const XenRemoveFromPhysmap = struct(16, { domid: u16(0), gpfn: u64(8) });
/** nr_entries: room in the buffer, then how many were written. Entries are E820Entry. */
export const XenMemoryMap = struct(16, { nr_entries: u32(0), buffer: u64(8) });
/** map is XenMemoryMap. */
export const XenForeignMemoryMap = struct(24, { domid: u16(0), map: bytes(8, 16) });
export const XenPodTarget = struct(40, { target_pages: u64(0), tot_pages: u64(8), pod_cache_pages: u64(16), pod_entries: u64(24), domid: u16(32) });
export const XenMemAcquireResource = struct(32, {
  domid: u16(0), type: u16(2), id: u32(4), nr_frames: u32(8), pad: u32(12), frame: u64(16), frame_list: u64(24),
});
