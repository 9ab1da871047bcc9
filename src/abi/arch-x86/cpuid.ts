/** public/arch-x86/cpuid.h: Xen's CPUID leaves. They start at 0x40000000, or 0x100 or more higher where another interface comes first. */

export const XEN_CPUID_FIRST_LEAF = 0x40000000;
/** "XenVMMXenVMM" in ebx, ecx, edx of the first leaf; eax is the last leaf. */
export const XEN_CPUID_SIGNATURE = { EBX: 0x566e6558, ECX: 0x65584d4d, EDX: 0x4d4d566e } as const;
export const XEN_CPUID_MAX_NUM_LEAVES = 5;
/** Leaf offsets from the first, with what they hold. The header gives them in comments only. */
export const XEN_CPUID_LEAF = {
  /** eax last leaf, then the signature */
  signature: 0,
  /** eax: major << 16 | minor */
  version: 1,
  /** eax number of hypercall pages, ebx base MSR, ecx FEAT1 */
  hypercall: 2,
  /** by subleaf 0 (mode, frequency in kHz, incarnation), 1 (offset and scale), 2 (host's kHz) */
  tsc: 3,
  /** eax XEN_HVM_CPUID, ebx vCPU id, ecx domain id */
  hvm: 4,
  /** ebx: machine address width */
  pv: 5,
} as const;
export const XEN_CPUID_FEAT1 = { MMU_PT_UPDATE_PRESERVE_AD: 1 } as const;
/** Leaf 4, eax. */
export const XEN_HVM_CPUID = {
  APIC_ACCESS_VIRT: 1, X2APIC_VIRT: 2, IOMMU_MAPPINGS: 4, VCPU_ID_PRESENT: 8, DOMID_PRESENT: 16, EXT_DEST_ID: 32, UPCALL_VECTOR: 64,
} as const;
export const XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK = 0xff;
/** The MSR named by leaf 2: writing a page's address | index there fills it with hypercall stubs of 32 bytes each. */
export const XEN_HYPERCALL_MSR = 0x40000000, XEN_HYPERCALL_MSR_VIRIDIAN = 0x40000200, HYPERCALL_STUB_BYTES = 32;
