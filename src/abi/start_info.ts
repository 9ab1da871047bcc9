/** What a PVH guest finds at the address in ebx when it starts - public/arch-x86/hvm/start_info.h. */
import { struct, u32, u64 } from "../base/struct.ts";

/** hvm_start_info.magic: "xEn3" with bit 7 of the "E" set. */
export const XEN_HVM_START_MAGIC_VALUE = 0x336ec578;
/** hvm_memmap_table_entry.type; the numbers are those of ACPI's address ranges (6.5, table 15.1). */
export const XEN_HVM_MEMMAP_TYPE = { RAM: 1, RESERVED: 2, ACPI: 3, NVS: 4, UNUSABLE: 5, DISABLED: 6, PMEM: 7 } as const;

/** struct hvm_start_info, version 1. Addresses are guest-physical; strings end with a zero byte. */
export const HvmStartInfo = struct(56, {
  magic: u32(0), version: u32(4),
  flags: u32(8),  // SIF_*
  nr_modules: u32(12), modlist_paddr: u64(16), cmdline_paddr: u64(24), rsdp_paddr: u64(32),
  memmap_paddr: u64(40), memmap_entries: u32(48), reserved: u32(52),  // since version 1
});
/** struct hvm_modlist_entry. Module 0 is Linux's initrd. */
export const HvmModlistEntry = struct(32, { paddr: u64(0), size: u64(8), cmdline_paddr: u64(16), reserved: u64(24) });
/** struct hvm_memmap_table_entry. */
export const HvmMemmapTableEntry = struct(24, { addr: u64(0), size: u64(8), type: u32(16) /* XEN_HVM_MEMMAP_TYPE */, reserved: u32(20) });
