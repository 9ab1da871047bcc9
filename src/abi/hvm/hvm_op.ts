/** public/hvm/hvm_op.h */
import { bytes, struct, u16, u32, u64, u8 } from "../../base/struct.ts";

export const HVMOP = {
  set_param: 0, get_param: 1, flush_tlbs: 5, pagetable_dying: 9, get_time: 10, xentrace: 11, set_mem_access: 12, get_mem_access: 13,
  get_mem_type: 15, set_evtchn_upcall_vector: 23, guest_request_vm_event: 24, altp2m: 25,
} as const;
export const HVMMEM = { ram_rw: 0, ram_ro: 1, mmio_dm: 2, unused: 3, ioreq_server: 4 } as const;
export const XenHvmParam = struct(16, { domid: u16(0), pad: u16(2), index: u32(4), value: u64(8) });
export const XenHvmPagetableDying = struct(16, { domid: u16(0), pad: bytes(2, 6), gpa: u64(8) });
/** now: ns since boot [XEN]. */
export const XenHvmGetTime = struct(8, { now: u64(0) });
export const XenHvmGetMemType = struct(16, { domid: u16(0), mem_type: u16(2), pad: bytes(4, 4), pfn: u64(8) });
export const XenHvmEvtchnUpcallVector = struct(8, { vcpu: u32(0), vector: u8(4) });
