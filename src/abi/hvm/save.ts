/** public/hvm/save.h and public/arch-x86/hvm/save.h: what XEN_DOMCTL_gethvmcontext gives, records behind descriptors; END closes them. */
import { bytes, struct, u16, u32, u64 } from "../../base/struct.ts";

export const HVM_FILE_MAGIC = 0x54381286, HVM_FILE_VERSION = 1;
/** typecode of a descriptor: the number in its DECLARE_HVM_SAVE_TYPE. */
export const HVM_SAVE_CODE = {
  END: 0, HEADER: 1, CPU: 2, PIC: 3, IOAPIC: 4, LAPIC: 5, LAPIC_REGS: 6, PCI_IRQ: 7, ISA_IRQ: 8, PCI_LINK: 9, PIT: 10, RTC: 11, HPET: 12, PMTIMER: 13, MTRR: 14,
  VIRIDIAN_DOMAIN: 15, CPU_XSAVE: 16, VIRIDIAN_VCPU: 17, VMCE_VCPU: 18, TSC_ADJUST: 19, CPU_MSR: 20,
} as const;
/** instance: the vCPU; length: bytes behind the descriptor. */
export const HvmSaveDescriptor = struct(8, { typecode: u16(0), instance: u16(2), length: u32(4) });
/** cpuid: leaf 1's eax where it was saved. */
export const HvmSaveHeader = struct(24, { magic: u32(0), version: u32(4), changeset: u64(8), cpuid: u32(16), gtsc_khz: u32(20) });

/** fpu_regs: an FXSAVE image. _arbytes: as SEG.attr of x86/state.ts. tsc: what RDTSC would say. */
export const HvmHwCpu = struct(1032, {
  fpu_regs: bytes(0, 512), rax: u64(512), rbx: u64(520), rcx: u64(528), rdx: u64(536), rbp: u64(544), rsi: u64(552), rdi: u64(560), rsp: u64(568),
  r8: u64(576), r9: u64(584), r10: u64(592), r11: u64(600), r12: u64(608), r13: u64(616), r14: u64(624), r15: u64(632), rip: u64(640), rflags: u64(648),
  cr0: u64(656), cr2: u64(664), cr3: u64(672), cr4: u64(680), dr0: u64(688), dr1: u64(696), dr2: u64(704), dr3: u64(712), dr6: u64(720), dr7: u64(728),
  cs_sel: u32(736), ds_sel: u32(740), es_sel: u32(744), fs_sel: u32(748), gs_sel: u32(752), ss_sel: u32(756), tr_sel: u32(760), ldtr_sel: u32(764),
  cs_limit: u32(768), ds_limit: u32(772), es_limit: u32(776), fs_limit: u32(780), gs_limit: u32(784), ss_limit: u32(788), tr_limit: u32(792),
  ldtr_limit: u32(796), idtr_limit: u32(800), gdtr_limit: u32(804), cs_base: u64(808), ds_base: u64(816), es_base: u64(824), fs_base: u64(832),
  gs_base: u64(840), ss_base: u64(848), tr_base: u64(856), ldtr_base: u64(864), idtr_base: u64(872), gdtr_base: u64(880), cs_arbytes: u32(888),
  ds_arbytes: u32(892), es_arbytes: u32(896), fs_arbytes: u32(900), gs_arbytes: u32(904), ss_arbytes: u32(908), tr_arbytes: u32(912),
  ldtr_arbytes: u32(916), sysenter_cs: u64(920), sysenter_esp: u64(928), sysenter_eip: u64(936), shadow_gs: u64(944), msr_flags: u64(952),
  msr_lstar: u64(960), msr_star: u64(968), msr_cstar: u64(976), msr_syscall_mask: u64(984), msr_efer: u64(992), msr_tsc_aux: u64(1000), tsc: u64(1008),
  pending_event: u32(1016), error_code: u32(1020), flags: u32(1024), pad0: u32(1028),
});
export const XEN_X86_FPU_INITIALISED = 1;
/** disabled: bit 0 by SVR, bit 1 by the MSR. timer_divisor: what TDCR means. tdt_msr: IA32_TSC_DEADLINE. */
export const HvmHwLapic = struct(24, { apic_base_msr: u64(0), disabled: u32(8), timer_divisor: u32(12), tdt_msr: u64(16) });
/** The APIC's page, registers 16 bytes apart. */
export const HvmHwLapicRegs = struct(1024, { data: bytes(0, 1024) });
export const HvmHwMtrr = struct(240, { msr_pat_cr: u64(0), msr_mtrr_var: bytes(8, 128), msr_mtrr_fixed: bytes(136, 88), msr_mtrr_cap: u64(224), msr_mtrr_def_type: u64(232) });
/** Goes on behind `xsave_hdr` with whatever xcr0 holds beyond x87 and SSE. */
export const HvmHwCpuXsave = struct(600, { xfeature_mask: u64(0), xcr0: u64(8), xcr0_accum: u64(16), fpu_sse: bytes(24, 512), xsave_hdr: bytes(536, 64) });
export const HvmTscAdjust = struct(8, { tsc_adjust: u64(0) });
/** `count` HvmOneMsr follow. */
export const HvmMsr = struct(8, { count: u32(0) });
export const HvmOneMsr = struct(16, { index: u32(0), _rsvd: u32(4), val: u64(8) });
