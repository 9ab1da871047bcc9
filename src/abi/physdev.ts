/** public/physdev.h */
import { i32, struct, u16, u32, u64, u8 } from "../base/struct.ts";

export const PHYSDEVOP = {
  irq_status_query: 5, set_iopl: 6, set_iobitmap: 7, apic_read: 8, apic_write: 9, alloc_irq_vector: 10, free_irq_vector: 11, eoi: 12,
  map_pirq: 13, unmap_pirq: 14, manage_pci_add: 15, manage_pci_remove: 16, pirq_eoi_gmfn_v1: 17, restore_msi: 19, manage_pci_add_ext: 20,
  setup_gsi: 21, get_free_pirq: 23, pci_mmcfg_reserved: 24, pci_device_add: 25, pci_device_remove: 26, restore_msi_ext: 27,
  pirq_eoi_gmfn_v2: 28, dbgp_op: 29, prepare_msix: 30, release_msix: 31,
} as const;
export const PhysdevEoi = struct(4, { irq: u32(0) });
export const PhysdevPirqEoiGmfn = struct(8, { gmfn: u64(0) });
export const PhysdevIrqStatusQuery = struct(8, { irq: u32(0), flags: u32(4) });
export const XENIRQSTAT = { needs_eoi: 1, shared: 2 } as const;
export const PhysdevSetIopl = struct(4, { iopl: u32(0) });
export const PhysdevSetIobitmap = struct(16, { bitmap: u64(0), nr_ports: u32(8) });
export const PhysdevApic = struct(16, { apic_physbase: u64(0), reg: u32(8), value: u32(12) });
export const PhysdevIrq = struct(8, { irq: u32(0), vector: u32(4) });
export const MAP_PIRQ_TYPE = { MSI: 0, GSI: 1, UNKNOWN: 2, MSI_SEG: 3, MULTI_MSI: 4 } as const;
export const PhysdevMapPirq = struct(40, {
  domid: u16(0), type: i32(4), index: i32(8), pirq: i32(12), bus: i32(16), devfn: i32(20), entry_nr: i32(24), table_base: u64(32),
});
export const PhysdevUnmapPirq = struct(8, { domid: u16(0), pirq: i32(4) });
export const PhysdevSetupGsi = struct(8, { gsi: i32(0), triggering: u8(4), polarity: u8(5) });
export const PhysdevGetFreePirq = struct(8, { type: i32(0), pirq: u32(4) });
export const PhysdevPciDevice = struct(4, { seg: u16(0), bus: u8(2), devfn: u8(3) });
