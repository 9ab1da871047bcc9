/**
 * The ACPI tables of a PVH guest: RSDP, XSDT, FADT, MADT and DSDT, one blob at one address.
 * As with libxl there is a local APIC per vCPU and no IO-APIC, PIC, RTC, HPET, VGA or 8042. Unlike libxl's, the FADT says
 * "hardware-reduced": there are no PM1 or GPE registers, and a guest that believed in them would read all ones from their ports.
 * There is no \_S5, as with libxl: a PVH guest powers off by SCHEDOP_shutdown, or by halting all vCPUs with interrupts off.
 * @see ACPI specification 6.5, chapter 5; tools/libacpi and tools/libs/light/libxl_x86_acpi.c for Xen's choices
 */
import { bytes, struct, u16, u32, u64, u8 } from "../base/struct.ts";
import { device, integer, name, scope, string } from "./aml.ts";

const Rsdp = struct(36, { signature: bytes(0, 8), checksum: u8(8), oem_id: bytes(9, 6), revision: u8(15), rsdt_address: u32(16), length: u32(20), xsdt_address: u64(24), extended_checksum: u8(32) });
const Header = struct(36, {
  signature: bytes(0, 4), length: u32(4), revision: u8(8), checksum: u8(9), oem_id: bytes(10, 6), oem_table_id: bytes(16, 8), oem_revision: u32(24), creator_id: bytes(28, 4), creator_revision: u32(32),
});
/** 5.2.9, revision 5; the fields that are not zero here. */
const Fadt = struct(268, { header: bytes(0, 36), dsdt: u32(40), sci_int: u16(46), p_lvl2_lat: u16(96), p_lvl3_lat: u16(98), iapc_boot_arch: u16(109), flags: u32(112), minor_version: u8(131), x_dsdt: u64(140) });
const FADT_FLAGS = { WBINVD: 1 << 0, PROC_C1: 1 << 2, PWR_BUTTON: 1 << 4, SLP_BUTTON: 1 << 5, FIX_RTC: 1 << 6, HW_REDUCED_ACPI: 1 << 20 } as const;
const IAPC = { VGA_NOT_PRESENT: 1 << 2, CMOS_RTC_NOT_PRESENT: 1 << 5 } as const;
/** 5.2.12, then one structure per processor: 5.2.12.2, or 5.2.12.12 for an APIC id beyond eight bits. */
const Madt = struct(44, { header: bytes(0, 36), lapic_addr: u32(36), flags: u32(40) });
const MadtLapic = struct(8, { type: u8(0), length: u8(1), acpi_processor_id: u8(2), apic_id: u8(3), flags: u32(4) });
const MadtX2apic = struct(16, { type: u8(0), length: u8(1), apic_id: u32(4), flags: u32(8), acpi_processor_id: u32(12) });
const MADT_TYPE = { lapic: 0, x2apic: 9 } as const, LAPIC_ENABLED = 1, MAX_LAPIC_ID = 254;
/** Where a local APIC stands after reset, SDM Vol. 3A 11.4.1. */
export const LAPIC_BASE_ADDRESS = 0xfee00000;

/** libxl numbers the vCPUs' local APICs in steps of two (acpi_lapic_id). */
export const lapicId = (vcpu: number): number => vcpu * 2;

/**
 * Build the tables.
 * @param base guest-physical address of the first byte, page-aligned
 * @param apicIds of vCPU 0, 1, ...
 * @param rsdpAt where the RSDP shall lie; without it, at the end of the tables
 */
export function buildAcpi(base: number, apicIds: readonly number[], rsdpAt?: number): { tables: Uint8Array; rsdp: Uint8Array; rsdpGpa: number } {
  const parts: Uint8Array[] = [];
  let end = base;
  /** Put a finished table behind the others. @returns its address */
  const place = (table: Uint8Array): number => {
    const at = end;
    parts.push(table);
    end += table.length;
    const gap = -end & 15;
    parts.push(new Uint8Array(gap));
    end += gap;
    return at;
  };

  const processors = apicIds.map((_, i) => device(`C${i.toString(16).toUpperCase().padStart(3, "0")}`, name("_HID", string("ACPI0007")), name("_UID", integer(i))));
  const dsdt = place(table("DSDT", 5, Uint8Array.from(scope("_SB", ...processors))));

  const fadt = new DataView(new ArrayBuffer(Fadt.sizeof));
  Fadt.dsdt.set(fadt, 0, dsdt);
  Fadt.x_dsdt.set(fadt, 0, BigInt(dsdt));
  Fadt.p_lvl2_lat.set(fadt, 0, 0xfff);  // more than 100 and 1000: no C2, no C3
  Fadt.p_lvl3_lat.set(fadt, 0, 0xfff);
  Fadt.iapc_boot_arch.set(fadt, 0, IAPC.VGA_NOT_PRESENT | IAPC.CMOS_RTC_NOT_PRESENT);
  Fadt.flags.set(fadt, 0, FADT_FLAGS.WBINVD | FADT_FLAGS.PROC_C1 | FADT_FLAGS.PWR_BUTTON | FADT_FLAGS.SLP_BUTTON | FADT_FLAGS.FIX_RTC | FADT_FLAGS.HW_REDUCED_ACPI);
  const fadtAt = place(table("FACP", 5, new Uint8Array(fadt.buffer, Header.sizeof)));

  const madt = new DataView(new ArrayBuffer(Madt.sizeof + apicIds.reduce((n, id) => n + (id <= MAX_LAPIC_ID ? MadtLapic.sizeof : MadtX2apic.sizeof), 0)));
  Madt.lapic_addr.set(madt, 0, LAPIC_BASE_ADDRESS);
  let at = Madt.sizeof;
  apicIds.forEach((id, i) => {
    const Entry = id <= MAX_LAPIC_ID ? MadtLapic : MadtX2apic;
    Entry.type.set(madt, at, id <= MAX_LAPIC_ID ? MADT_TYPE.lapic : MADT_TYPE.x2apic);
    Entry.length.set(madt, at, Entry.sizeof);
    Entry.acpi_processor_id.set(madt, at, i);
    Entry.apic_id.set(madt, at, id);
    Entry.flags.set(madt, at, LAPIC_ENABLED);
    at += Entry.sizeof;
  });
  const madtAt = place(table("APIC", 2, new Uint8Array(madt.buffer, Header.sizeof)));

  const entries = new DataView(new ArrayBuffer(16));
  entries.setBigUint64(0, BigInt(fadtAt), true);
  entries.setBigUint64(8, BigInt(madtAt), true);
  const xsdt = place(table("XSDT", 1, new Uint8Array(entries.buffer)));

  const rsdp = new Uint8Array(Rsdp.sizeof), view = new DataView(rsdp.buffer);
  put(rsdp, Rsdp.signature.at, "RSD PTR ");
  put(rsdp, Rsdp.oem_id.at, "Xen");
  Rsdp.revision.set(view, 0, 2);
  Rsdp.length.set(view, 0, Rsdp.sizeof);
  Rsdp.xsdt_address.set(view, 0, BigInt(xsdt));
  Rsdp.checksum.set(view, 0, checksum(rsdp.subarray(0, 20)));  // 5.2.5.3: the first checksum covers what ACPI 1.0 knew
  Rsdp.extended_checksum.set(view, 0, checksum(rsdp));
  const rsdpGpa = rsdpAt ?? place(rsdp);

  const tables = new Uint8Array(end - base);
  let offset = 0;
  for (const part of parts) { tables.set(part, offset); offset += part.length; }
  return { tables, rsdp, rsdpGpa };
}

function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const b = new Uint8Array(Header.sizeof + body.length), view = new DataView(b.buffer);
  put(b, Header.signature.at, signature);
  Header.length.set(view, 0, b.length);
  Header.revision.set(view, 0, revision);
  put(b, Header.oem_id.at, "Xen");
  put(b, Header.oem_table_id.at, "HVM");
  put(b, Header.creator_id.at, "DOMU");
  b.set(body, Header.sizeof);
  Header.checksum.set(view, 0, checksum(b));
  return b;
}

const put = (b: Uint8Array, at: number, text: string): void => b.set(Array.from(text, (c) => c.charCodeAt(0)), at);
/** What makes all bytes add up to zero. */
const checksum = (b: Uint8Array): number => -b.reduce((sum, x) => sum + x, 0) & 255;
