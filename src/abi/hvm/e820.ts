/** public/hvm/e820.h, and the entry that XENMEM_memory_map copies out (the BIOS's INT 15h E820h layout, ACPI 6.4 section 15). */
import { struct, u32, u64 } from "../../base/struct.ts";

/** Packed: an array of them has no gaps. */
export const E820Entry = struct(20, { addr: u64(0), size: u64(8), type: u32(16) });
export const E820 = { RAM: 1, RESERVED: 2, ACPI: 3, NVS: 4, UNUSABLE: 5 } as const;
export const HVM_BELOW_4G_RAM_END = 0xf0000000, HVM_BELOW_4G_MMIO_START = 0xf0000000, HVM_BELOW_4G_MMIO_LENGTH = 0x10000000;
