/** public/xen.h: hypercall numbers, the pages a guest shares with the hypervisor, and the PV memory operations. */
import { bytes, struct, u32, u64, u8 } from "../base/struct.ts";

/** __HYPERVISOR_*: the hypercall's number, in eax. */
export const HYPERVISOR = {
  set_trap_table: 0, mmu_update: 1, set_gdt: 2, stack_switch: 3, set_callbacks: 4, fpu_taskswitch: 5, sched_op_compat: 6,
  platform_op: 7, set_debugreg: 8, get_debugreg: 9, update_descriptor: 10, memory_op: 12, multicall: 13, update_va_mapping: 14,
  set_timer_op: 15, event_channel_op_compat: 16, xen_version: 17, console_io: 18, physdev_op_compat: 19, grant_table_op: 20,
  vm_assist: 21, update_va_mapping_otherdomain: 22, iret: 23, vcpu_op: 24, set_segment_base: 25, mmuext_op: 26, xsm_op: 27,
  nmi_op: 28, sched_op: 29, callback_op: 30, xenoprof_op: 31, event_channel_op: 32, physdev_op: 33, hvm_op: 34, sysctl: 35,
  domctl: 36, kexec_op: 37, tmem_op: 38, argo_op: 39, xenpmu_op: 40, dm_op: 41, hypfs_op: 42,
  arch_0: 48, arch_1: 49, arch_2: 50, arch_3: 51, arch_4: 52, arch_5: 53, arch_6: 54, arch_7: 55,
} as const;

/** Virtual interrupts. TIMER, DEBUG, XENOPROF and XENPMU are one a vCPU; the others one a domain or a host. */
export const VIRQ = {
  TIMER: 0, DEBUG: 1, CONSOLE: 2, DOM_EXC: 3, TBUF: 4, DEBUGGER: 6, XENOPROF: 7, CON_RING: 8, PCPU_STATE: 9, MEM_EVENT: 10,
  ARGO: 11, ENOMEM: 12, XENPMU: 13, ARCH_0: 16, ARCH_1: 17, ARCH_2: 18, ARCH_3: 19, ARCH_4: 20, ARCH_5: 21, ARCH_6: 22, ARCH_7: 23,
} as const;
export const NR_VIRQS = 24;

/** mmu_update: what to do, in the low two bits of `ptr`. */
export const MMU = { NORMAL_PT_UPDATE: 0, MACHPHYS_UPDATE: 1, PT_UPDATE_PRESERVE_AD: 2, PT_UPDATE_NO_TRANSLATE: 3 } as const;
export const MmuUpdate = struct(16, { ptr: u64(0), val: u64(8) });

export const MMUEXT = {
  PIN_L1_TABLE: 0, PIN_L2_TABLE: 1, PIN_L3_TABLE: 2, PIN_L4_TABLE: 3, UNPIN_TABLE: 4, NEW_BASEPTR: 5, TLB_FLUSH_LOCAL: 6,
  INVLPG_LOCAL: 7, TLB_FLUSH_MULTI: 8, INVLPG_MULTI: 9, TLB_FLUSH_ALL: 10, INVLPG_ALL: 11, FLUSH_CACHE: 12, SET_LDT: 13,
  NEW_USER_BASEPTR: 15, CLEAR_PAGE: 16, COPY_PAGE: 17, FLUSH_CACHE_GLOBAL: 18, MARK_SUPER: 19, UNMARK_SUPER: 20,
} as const;
/** arg1 is a frame number or a linear address, arg2 a count, a pointer to a vCPU bitmap or a frame number. */
export const MmuextOp = struct(24, { cmd: u32(0), arg1: u64(8), arg2: u64(16) });

/** update_va_mapping flags. */
export const UVMF = { NONE: 0, TLB_FLUSH: 1, INVLPG: 2, FLUSHTYPE_MASK: 3, MULTI: 0, LOCAL: 0, ALL: 4 } as const;
export const CONSOLEIO = { write: 0, read: 1 } as const;
export const VMASST_CMD = { enable: 0, disable: 1 } as const;
export const VMASST_TYPE = {
  "4gb_segments": 0, "4gb_segments_notify": 1, writable_pagetables: 2, pae_extended_cr3: 3, architectural_iopl: 4,
  runstate_update_flag: 5, m2p_strict: 32,
} as const;

export const DOMID = { FIRST_RESERVED: 0x7ff0, SELF: 0x7ff0, IO: 0x7ff1, XEN: 0x7ff2, COW: 0x7ff3, INVALID: 0x7ff4, IDLE: 0x7fff, MASK: 0x7fff } as const;

/** `op` and `args` [GST], `result` [XEN]. */
export const MulticallEntry = struct(64, { op: u64(0), result: u64(8), args: bytes(16, 48) });

/**
 * Time of a vCPU, a seqlock [XEN]: `version` is odd while the fields change.
 * ns = system_time + (((tsc - tsc_timestamp) << tsc_shift, right when negative) * tsc_to_system_mul >> 32)
 */
export const VcpuTimeInfo = struct(32, {
  version: u32(0), pad0: u32(4),
  /** TSC at the last update */
  tsc_timestamp: u64(8),
  /** ns since the host's boot, at tsc_timestamp */
  system_time: u64(16),
  tsc_to_system_mul: u32(24),
  /** int8 in C: sign-extend */
  tsc_shift: u8(28),
  /** XEN_PVCLOCK */
  flags: u8(29),
  pad1: bytes(30, 2),
});
export const XEN_PVCLOCK = { TSC_STABLE_BIT: 1, GUEST_STOPPED: 2 } as const;

/** Both ends write the first three fields: `Atomics` only. */
export const VcpuInfo = struct(64, {
  /** nonzero: an event waits [XEN sets, GST clears] */
  evtchn_upcall_pending: u8(0),
  /** nonzero: no upcalls, PV only [XEN sets at an upcall, GST] */
  evtchn_upcall_mask: u8(1),
  /** a bit for each word of evtchn_pending with something in it [XEN sets, GST clears] */
  evtchn_pending_sel: u64(8),
  arch: bytes(16, 16),
  time: bytes(32, 32),
});

/** One page a domain. The bitmaps serve the 2-level event channels and are written by both ends: `Atomics` only. */
export const SharedInfo = struct(3136, {
  /** XEN_LEGACY_MAX_VCPUS of VcpuInfo */
  vcpu_info: bytes(0, 2048),
  evtchn_pending: bytes(2048, 512),
  evtchn_mask: bytes(2560, 512),
  /** seqlock of the wall clock at system_time 0 [XEN] */
  wc_version: u32(3072), wc_sec: u32(3076), wc_nsec: u32(3080), wc_sec_hi: u32(3084),
  arch: bytes(3088, 48),
});

/** What a PV guest finds in rsi at its entry [XEN]. The console fields are those of the domU. */
export const StartInfo = struct(1168, {
  magic: bytes(0, 32), nr_pages: u64(32),
  /** machine address */
  shared_info: u64(40),
  /** SIF */
  flags: u32(48),
  store_mfn: u64(56), store_evtchn: u32(64),
  console_mfn: u64(72), console_evtchn: u32(80),
  /** virtual address of the top page table */
  pt_base: u64(88), nr_pt_frames: u64(96),
  /** virtual address of the p2m list */
  mfn_list: u64(104),
  /** virtual address, or pfn with SIF.MOD_START_PFN */
  mod_start: u64(112), mod_len: u64(120), cmd_line: bytes(128, 1024),
  first_p2m_pfn: u64(1152), nr_p2m_frames: u64(1160),
});
/** StartInfo.console of dom0. */
export const StartInfoConsoleDom0 = struct(1168, { info_off: u32(72), info_size: u32(76) });
export const MAX_GUEST_CMDLINE = 1024;
export const SIF = { PRIVILEGED: 1, INITDOMAIN: 2, MULTIBOOT_MOD: 4, MOD_START_PFN: 8, VIRT_P2M_4TOOLS: 16, PM_MASK: 0xff00 } as const;
export const XenMultibootModList = struct(16, { mod_start: u32(0), mod_end: u32(4), cmdline: u32(8), pad: u32(12) });
/** A bitmap given by the toolstack. */
export const XenctlBitmap = struct(16, { bitmap: u64(0), nr_bits: u32(8) });

/** Words of the 64-bit ABI's 2-level bitmaps. */
export const XEN_ULONG_BITS = 64;
export const XEN_PAGE_SIZE = 4096, XEN_PAGE_SHIFT = 12;
