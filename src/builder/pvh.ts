/**
 * Where everything of a new PVH domain goes, and what it finds when it starts.
 * Planning is pure; writing (writePvh) needs nothing but a way to put bytes at guest-physical addresses.
 * @see docs/misc/pvh.pandoc for the state at entry; tools/libs/guest/xg_dom_x86.c and tools/libs/light/libxl_x86.c for the layout
 */
import { XEN_ELFNOTE } from "../abi/elfnote.ts";
import { HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo, XEN_HVM_MEMMAP_TYPE, XEN_HVM_START_MAGIC_VALUE } from "../abi/start_info.ts";
import { UserError } from "../base/errors.ts";
import { buildAcpi, lapicId } from "./acpi.ts";
import { type Kernel, readKernel } from "./bzimage.ts";
import type { MakePlace } from "./decompress/output.ts";
import { type ElfImage, hasFeature, noteNumber, noteText, PF } from "./elf.ts";

const PAGE = 4096, GiB = 2 ** 30, MiB = 2 ** 20;
const pageUp = (n: number): number => Math.ceil(n / PAGE) * PAGE;
/** Where the tables lie and, so that they and the special pages do not lie in RAM, low memory ends - tools/libacpi ACPI_INFO_PHYSICAL_ADDRESS. */
export const ACPI_GPA = 0xfc000000;
/** Eight special pages end below gfn 0xff000 - tools/libs/guest/xg_dom_x86.c X86_HVM_END_SPECIAL_REGION. */
export const SPECIAL_GFN = { first: 0xfeff8, nr: 8, xenstore: 0xfeffc, console: 0xfefff } as const;
/** The last 64 bytes of the first MiB, where a Linux before 5.0 looks for the RSDP whatever start info says. */
const LOW_RSDP_GPA = 0x100000 - 64;
const MAX_MEMORY = 1024 * GiB, MAX_CMDLINE = 4095;
/** public/hvm/hvm_info_table.h */
export const HVM_MAX_VCPUS = 128;

/** A file's bytes and what messages call it. */
export type NamedBytes = { readonly name: string; readonly bytes: Uint8Array };
/** What a PVH domain is to be made of. */
export type PvhConfig = {
  readonly kernel: NamedBytes;
  /** module 0 is Linux's initrd */
  readonly ramdisks?: readonly NamedBytes[];
  readonly cmdline?: string;
  /** RAM; rounded down to whole pages */
  readonly memoryBytes: number;
  readonly nrVcpus: number;
  /** of vCPU 0, 1, ...; twice the number, as libxl, where not given. CPUID must tell the same ones. */
  readonly apicIds?: readonly number[];
  /** for the unpacked kernel, as readKernel has it */
  readonly place?: MakePlace | undefined;
};

/** A range of the guest's physical addresses. */
export type E820Entry = { readonly addr: number; readonly size: number; readonly type: number /* XEN_HVM_MEMMAP_TYPE */ };
/** Frames that must exist, filled with zeros, before anything is written. */
export type GfnRange = { readonly gfn: number; readonly count: number; readonly use: "ram" | "acpi" | "special" };
/** `attr` as in x86/state.ts ATTR. */
export type SegmentRegister = { readonly base: bigint; readonly limit: number; readonly sel: number; readonly attr: number };
/** The boot vCPU's registers; all others are zero, but those that reset to something else (FPU, PAT, ...). */
export type PvhRegisters = {
  readonly rip: bigint; readonly rbx: bigint; readonly eflags: number;
  readonly cr0: bigint; readonly cr3: bigint; readonly cr4: bigint; readonly efer: bigint;
  readonly es: SegmentRegister; readonly cs: SegmentRegister; readonly ss: SegmentRegister; readonly ds: SegmentRegister;
  readonly fs: SegmentRegister; readonly gs: SegmentRegister; readonly ldtr: SegmentRegister; readonly tr: SegmentRegister;
};
/** Everything that making the domain takes, decided. */
export type PvhPlan = {
  readonly kernel: Kernel;
  readonly entry: number;
  readonly startInfoGpa: number;
  readonly rsdpGpa: number;
  /** sorted; also what XENMEM_memory_map answers */
  readonly e820: readonly E820Entry[];
  readonly populate: readonly GfnRange[];
  /** frames of RAM (without ACPI and special pages) */
  readonly nrRamPages: number;
  readonly storeGfn: number;
  readonly consoleGfn: number;
  readonly registers: PvhRegisters;
  readonly writes: readonly { readonly gpa: number; readonly bytes: Uint8Array }[];
  /** stretches that the kernel expects zeroed (.bss); fresh frames are */
  readonly zeros: readonly { readonly gpa: number; readonly size: number }[];
};

const FLAT_CODE = 0xc9b, FLAT_DATA = 0xc93, BUSY_TSS32 = 0x8b, UNUSABLE = 0x1000;

/** @throws UserError when something does not fit or the kernel cannot start as PVH */
export function planPvh(config: PvhConfig): PvhPlan {
  const nrRamPages = checkMemory(config.memoryBytes), memory = nrRamPages * PAGE, apicIds = checkVcpus(config);
  const cmdline = checkCmdline(config.cmdline ?? "");
  const kernel = readKernel(config.kernel.bytes, config.kernel.name, config.place), { image } = kernel;
  const entry = pvhEntry(image, config.kernel.name);
  const lowEnd = Math.min(memory, ACPI_GPA), highSize = memory - lowEnd;
  const first = image.segments[0], last = image.segments.at(-1);
  if (first === undefined || last === undefined) throw new UserError(`${config.kernel.name}: the ELF file has no loadable segments; give a kernel (vmlinux, bzImage)`);
  const kernelEnd = last.paddr + last.memsz;
  if (kernelEnd > lowEnd)
    throw new UserError(`${config.kernel.name}: the kernel takes guest memory up to ${mib(kernelEnd)}, but the domain has ${mib(lowEnd)} below 4 GiB; ${kernelEnd <= ACPI_GPA ? `set memory to ${Math.ceil(kernelEnd / MiB) + 32} or more` : "link the kernel to a lower address"}`);

  const needsLowRsdp = noteText(image, XEN_ELFNOTE.GUEST_OS) === "linux" && !hasFeature(image, "linux_rsdp_unrestricted") && lowEnd >= 0x100000 && first.paddr >= 0x100000;
  const acpi = buildAcpi(ACPI_GPA, apicIds, needsLowRsdp ? LOW_RSDP_GPA : undefined), acpiSize = pageUp(acpi.tables.length);
  const { RAM, RESERVED, NVS } = XEN_HVM_MEMMAP_TYPE;
  const e820: E820Entry[] = [
    { addr: 0, size: lowEnd, type: RAM },
    { addr: ACPI_GPA, size: acpiSize, type: NVS },
    { addr: SPECIAL_GFN.first * PAGE, size: SPECIAL_GFN.nr * PAGE, type: RESERVED },
    ...(highSize > 0 ? [{ addr: 4 * GiB, size: highSize, type: RAM }] : []),
  ];
  const populate: GfnRange[] = [
    { gfn: 0, count: lowEnd / PAGE, use: "ram" },
    { gfn: ACPI_GPA / PAGE, count: acpiSize / PAGE, use: "acpi" },
    { gfn: SPECIAL_GFN.first, count: SPECIAL_GFN.nr, use: "special" },
    ...(highSize > 0 ? [{ gfn: 4 * GiB / PAGE, count: highSize / PAGE, use: "ram" as const }] : []),
  ];

  const writes: { gpa: number; bytes: Uint8Array }[] = [], zeros: { gpa: number; size: number }[] = [];
  for (const { paddr, memsz, bytes } of image.segments) {
    if (bytes.length > 0) writes.push({ gpa: paddr, bytes });
    if (memsz > bytes.length) zeros.push({ gpa: paddr + bytes.length, size: memsz - bytes.length });
  }
  let end = pageUp(kernelEnd);
  const modules = (config.ramdisks ?? []).map(({ name, bytes }) => {
    if (bytes.length === 0) throw new UserError(`${name}: the ramdisk is empty; give a cpio archive or leave it out`);
    if (bytes.length > lowEnd - end)
      throw new UserError(`${name}: the ramdisk of ${mib(bytes.length)} does not fit: ${mib(Math.max(0, lowEnd - end))} of the domain's ${mib(memory)} are free behind the kernel; ${end + bytes.length < ACPI_GPA - 64 * MiB ? `set memory to ${Math.ceil((end + bytes.length) / MiB) + 64} or more` : "give a smaller one"}`);
    const gpa = end;
    writes.push({ gpa, bytes });
    end = pageUp(end + bytes.length);
    return { gpa, size: bytes.length };
  });
  const startInfo = startInfoBlock(end, modules, cmdline, acpi.rsdpGpa, e820);
  if (end + startInfo.length > lowEnd) throw new UserError(`The domain's ${mib(memory)} of memory leave no room for its start info; set memory to ${Math.ceil((end + startInfo.length) / MiB) + 32} or more`);
  writes.push({ gpa: end, bytes: startInfo }, { gpa: ACPI_GPA, bytes: acpi.tables });
  if (needsLowRsdp) writes.push({ gpa: LOW_RSDP_GPA, bytes: acpi.rsdp });

  return {
    kernel, entry, startInfoGpa: end, rsdpGpa: acpi.rsdpGpa, e820, populate, nrRamPages, storeGfn: SPECIAL_GFN.xenstore, consoleGfn: SPECIAL_GFN.console,
    registers: registersAt(entry, end), writes, zeros,
  };
}

const mib = (n: number): string => `${Math.ceil(n / MiB)} MiB`;

/** @returns whole pages */
function checkMemory(memoryBytes: number): number {
  if (!Number.isFinite(memoryBytes) || memoryBytes < MiB) throw new UserError(`A domain with ${Number.isFinite(memoryBytes) ? Math.max(0, Math.floor(memoryBytes)) : "an unknown number of"} bytes of memory cannot start; set memory to at least 1 (MiB), for Linux 128`);
  if (memoryBytes > MAX_MEMORY) throw new UserError(`A domain may have at most ${MAX_MEMORY / GiB} GiB of memory, not ${Math.floor(memoryBytes / GiB)} GiB; lower memory`);
  return Math.floor(memoryBytes / PAGE);
}

function checkVcpus({ nrVcpus, apicIds }: PvhConfig): readonly number[] {
  if (!Number.isInteger(nrVcpus) || nrVcpus < 1 || nrVcpus > HVM_MAX_VCPUS) throw new UserError(`A PVH domain has 1 to ${HVM_MAX_VCPUS} vCPUs, not ${nrVcpus}; correct vcpus`);
  return Array.from({ length: nrVcpus }, (_, i) => apicIds?.[i] ?? lapicId(i));
}

function checkCmdline(cmdline: string): Uint8Array {
  const encoded = new TextEncoder().encode(cmdline);
  if (encoded.length > MAX_CMDLINE) throw new UserError(`The kernel's command line has ${encoded.length} bytes; shorten it to ${MAX_CMDLINE} (Linux itself reads 2047)`);
  if (encoded.includes(0)) throw new UserError("The kernel's command line has a zero byte in it; remove it");
  return encoded;
}

/** The address to start at, from the note; it must lie in what is loaded. */
function pvhEntry(image: ElfImage, name: string): number {
  const desc = image.notes.get(XEN_ELFNOTE.PHYS32_ENTRY);
  if (desc === undefined) {
    if (image.notes.has(XEN_ELFNOTE.ENTRY) || image.notes.has(XEN_ELFNOTE.GUEST_OS))
      throw new UserError(`${name}: the kernel has no PHYS32_ENTRY note, so it starts as a PV guest only; set type = "pv" or take a kernel with PVH support (Linux: CONFIG_XEN_PVH)`);
    throw new UserError(`${name}: the kernel has no Xen notes, so it cannot start as a PVH guest; take one with PVH support (Linux: CONFIG_XEN_PVH or CONFIG_PVH)`);
  }
  const entry = noteNumber(image, XEN_ELFNOTE.PHYS32_ENTRY);
  if (entry === undefined || desc.length < 4) throw new UserError(`${name}: the PHYS32_ENTRY note has ${desc.length} bytes instead of 4 or 8; fetch or build the kernel again`);
  const target = image.segments.find((s) => entry >= BigInt(s.paddr) && entry < BigInt(s.paddr + s.memsz));
  if (target === undefined || entry > 0xffffffffn || (target.flags & PF.X) === 0)
    throw new UserError(`${name}: the PHYS32_ENTRY note points to 0x${entry.toString(16)}, where the kernel has no code; fetch or build the kernel again`);
  return Number(entry);
}

/** Start info, module list, memory map and command line, in one piece at `gpa`. */
function startInfoBlock(gpa: number, modules: readonly { gpa: number; size: number }[], cmdline: Uint8Array, rsdpGpa: number, e820: readonly E820Entry[]): Uint8Array {
  const modlistAt = HvmStartInfo.sizeof, memmapAt = modlistAt + modules.length * HvmModlistEntry.sizeof, cmdlineAt = memmapAt + e820.length * HvmMemmapTableEntry.sizeof;
  const b = new Uint8Array(cmdlineAt + cmdline.length + 1), view = new DataView(b.buffer);
  HvmStartInfo.magic.set(view, 0, XEN_HVM_START_MAGIC_VALUE);
  HvmStartInfo.version.set(view, 0, 1);
  HvmStartInfo.nr_modules.set(view, 0, modules.length);
  if (modules.length > 0) HvmStartInfo.modlist_paddr.set(view, 0, BigInt(gpa + modlistAt));
  HvmStartInfo.cmdline_paddr.set(view, 0, BigInt(gpa + cmdlineAt));
  HvmStartInfo.rsdp_paddr.set(view, 0, BigInt(rsdpGpa));
  HvmStartInfo.memmap_paddr.set(view, 0, BigInt(gpa + memmapAt));
  HvmStartInfo.memmap_entries.set(view, 0, e820.length);
  modules.forEach((m, i) => {
    const at = modlistAt + i * HvmModlistEntry.sizeof;
    HvmModlistEntry.paddr.set(view, at, BigInt(m.gpa));
    HvmModlistEntry.size.set(view, at, BigInt(m.size));
  });
  e820.forEach((e, i) => {
    const at = memmapAt + i * HvmMemmapTableEntry.sizeof;
    HvmMemmapTableEntry.addr.set(view, at, BigInt(e.addr));
    HvmMemmapTableEntry.size.set(view, at, BigInt(e.size));
    HvmMemmapTableEntry.type.set(view, at, e.type);
  });
  b.set(cmdline, cmdlineAt);
  return b;
}

/** docs/misc/pvh.pandoc, "x86 boot ABI": flat 32-bit protected mode without paging, interrupts off. */
function registersAt(entry: number, startInfoGpa: number): PvhRegisters {
  const flat = (attr: number): SegmentRegister => ({ base: 0n, limit: 0xffffffff, sel: 0, attr }), none: SegmentRegister = { base: 0n, limit: 0, sel: 0, attr: UNUSABLE };
  return {
    rip: BigInt(entry), rbx: BigInt(startInfoGpa), eflags: 2, cr0: 0x11n /* PE, ET */, cr3: 0n, cr4: 0n, efer: 0n,
    cs: flat(FLAT_CODE), ds: flat(FLAT_DATA), es: flat(FLAT_DATA), ss: flat(FLAT_DATA), fs: none, gs: none, ldtr: none, tr: { base: 0n, limit: 0x67, sel: 0, attr: BUSY_TSS32 },
  };
}
