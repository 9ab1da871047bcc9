/** public/arch-x86/xen.h and xen-x86_64.h: the x86-64 parts of the shared structs, and a PV guest's view of the processor. */
import { bytes, struct, u16, u32, u64, u8 } from "../../base/struct.ts";

export const XEN_LEGACY_MAX_VCPUS = 32;
export const XEN_HVM_DEBUGCONS_IOPORT = 0xe9;
export const FIRST_RESERVED_GDT_PAGE = 14, FIRST_RESERVED_GDT_BYTE = 57344, FIRST_RESERVED_GDT_ENTRY = 7168;
/** Selectors of Xen's flat segments, for PV guests. */
export const FLAT_RING3 = { CS32: 0xe023, CS64: 0xe033, DS32: 0xe02b, DS64: 0, SS32: 0xe02b, SS64: 0xe02b } as const;
export const HYPERVISOR_VIRT_START = 0xffff800000000000n, HYPERVISOR_VIRT_END = 0xffff880000000000n;
export const MACH2PHYS_VIRT_START = 0xffff800000000000n, MACH2PHYS_VIRT_END = 0xffff804000000000n, MACH2PHYS_NR_ENTRIES = 0x800000000n;
export const SEGBASE = { FS: 0, GS_USER: 1, GS_KERNEL: 2, GS_USER_SEL: 3 } as const;
export const VGCF = { i387_valid: 1, in_kernel: 4, failsafe_disables_events: 8, syscall_disables_events: 16, online: 32, in_syscall: 256 } as const;
/** Devices that Xen itself emulates for a guest; a PVH guest has LAPIC. */
export const XEN_X86_EMU = {
  LAPIC: 1, HPET: 2, PM: 4, RTC: 8, IOAPIC: 16, PIC: 32, VGA: 64, IOMMU: 128, PIT: 256, USE_PIRQ: 512, VPCI: 1024, ALL: 2047,
} as const;
export const XEN_X86_MSR_RELAXED = 1;
export const XEN_CPUID_NO_SUBLEAF = 0xffffffff;
/** ud2a and "xen", before an instruction that a PV guest wants emulated (CPUID). */
export const XEN_EMULATE_PREFIX: readonly number[] = [0x0f, 0x0b, 0x78, 0x65, 0x6e];

/** cr2 [XEN]: the address of a PV guest's page fault. */
export const ArchVcpuInfo = struct(16, { cr2: u64(0), pad: u64(8) });
/** p2m_generation is odd while the guest changes its p2m [GST]; all but nmi_reason is written by PV guests only. */
export const ArchSharedInfo = struct(48, {
  max_pfn: u64(0), pfn_to_mfn_frame_list_list: u64(8), nmi_reason: u64(16), p2m_cr3: u64(24), p2m_vaddr: u64(32), p2m_generation: u64(40),
});
/** flags: bits 0-1 the privilege needed, bit 2 mask events at entry. A table ends at address 0. */
export const TrapInfo = struct(16, { vector: u8(0), flags: u8(1), cs: u16(2), address: u64(8) });
export const IretContext = struct(72, {
  rax: u64(0), r11: u64(8), rcx: u64(16), flags: u64(24), rip: u64(32), cs: u64(40), rflags: u64(48), rsp: u64(56), ss: u64(64),
});
export const CpuUserRegs = struct(200, {
  r15: u64(0), r14: u64(8), r13: u64(16), r12: u64(24), rbp: u64(32), rbx: u64(40), r11: u64(48), r10: u64(56), r9: u64(64), r8: u64(72),
  rax: u64(80), rcx: u64(88), rdx: u64(96), rsi: u64(104), rdi: u64(112), error_code: u32(120), entry_vector: u32(124),
  rip: u64(128), cs: u16(136), saved_upcall_mask: u8(140), rflags: u64(144), rsp: u64(152),
  ss: u16(160), es: u16(168), ds: u16(176), fs: u16(184), gs: u16(192),
});
export const VcpuGuestContext = struct(5168, {
  fpu_ctxt: bytes(0, 512), flags: u64(512), user_regs: bytes(520, 200), trap_ctxt: bytes(720, 4096),
  ldt_base: u64(4816), ldt_ents: u64(4824), gdt_frames: bytes(4832, 128), gdt_ents: u64(4960),
  kernel_ss: u64(4968), kernel_sp: u64(4976), ctrlreg: bytes(4984, 64), debugreg: bytes(5048, 64),
  event_callback_eip: u64(5112), failsafe_callback_eip: u64(5120), syscall_callback_eip: u64(5128), vm_assist: u64(5136),
  fs_base: u64(5144), gs_base_kernel: u64(5152), gs_base_user: u64(5160),
});
export const XenArchDomainconfig = struct(8, { emulation_flags: u32(0), misc_flags: u32(4) });
export const XenCpuidLeaf = struct(24, { leaf: u32(0), subleaf: u32(4), a: u32(8), b: u32(12), c: u32(16), d: u32(20) });
export const XenMsrEntry = struct(16, { idx: u32(0), flags: u32(4), val: u64(8) });
