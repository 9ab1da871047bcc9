/**
 * ELF executables for x86 and x86-64, and the notes that Xen guests carry in them.
 * @see System V ABI, "Object Files"; public/elfnote.h
 */
import { XEN_ELFNOTE } from "../abi/elfnote.ts";
import { XENFEAT } from "../abi/features.ts";
import { bytes, struct, u16, u32, u64 } from "../base/struct.ts";
import { UserError } from "../base/errors.ts";

const Ehdr32 = struct(52, { e_ident: bytes(0, 16), e_type: u16(16), e_machine: u16(18), e_version: u32(20), e_entry: u32(24), e_phoff: u32(28), e_shoff: u32(32), e_phentsize: u16(42), e_phnum: u16(44), e_shentsize: u16(46), e_shnum: u16(48) });
const Ehdr64 = struct(64, { e_ident: bytes(0, 16), e_type: u16(16), e_machine: u16(18), e_version: u32(20), e_entry: u64(24), e_phoff: u64(32), e_shoff: u64(40), e_phentsize: u16(54), e_phnum: u16(56), e_shentsize: u16(58), e_shnum: u16(60) });
const Phdr32 = struct(32, { p_type: u32(0), p_offset: u32(4), p_vaddr: u32(8), p_paddr: u32(12), p_filesz: u32(16), p_memsz: u32(20), p_flags: u32(24), p_align: u32(28) });
const Phdr64 = struct(56, { p_type: u32(0), p_flags: u32(4), p_offset: u64(8), p_vaddr: u64(16), p_paddr: u64(24), p_filesz: u64(32), p_memsz: u64(40), p_align: u64(48) });
const Shdr32 = struct(40, { sh_type: u32(4), sh_offset: u32(16), sh_size: u32(20), sh_addralign: u32(32) });
const Shdr64 = struct(64, { sh_type: u32(4), sh_offset: u64(24), sh_size: u64(32), sh_addralign: u64(48) });
const Nhdr = struct(12, { n_namesz: u32(0), n_descsz: u32(4), n_type: u32(8) });

const ELFCLASS = { 32: 1, 64: 2 } as const, ELFDATA2LSB = 1;
const EM = { 386: 3, X86_64: 62 } as const, ET = { EXEC: 2, DYN: 3 } as const;
const PT = { LOAD: 1, NOTE: 4 } as const, PN_XNUM = 0xffff, SHT_NOTE = 7;
/** Segment.flags. */
export const PF = { X: 1, W: 2, R: 4 } as const;
const MACHINES: Readonly<Record<number, string>> = { 2: "SPARC", 8: "MIPS", 20: "PowerPC", 21: "PowerPC 64", 22: "S/390", 40: "ARM", 50: "Itanium", 183: "AArch64", 243: "RISC-V", 258: "LoongArch" };
const TYPES: Readonly<Record<number, string>> = { 1: "a relocatable object (a kernel module?)", 4: "a core dump" };

/** A PT_LOAD segment. Its bytes have been checked to lie in the file. */
export type Segment = { readonly paddr: number; readonly vaddr: bigint; readonly memsz: number; readonly flags: number; readonly bytes: Uint8Array };
/** What a loader needs of an ELF file. */
export type ElfImage = {
  readonly bits: 32 | 64;
  readonly entry: bigint;
  /** loadable segments by p_paddr; they do not overlap */
  readonly segments: readonly Segment[];
  /** Xen's notes, the first of each type: from PT_NOTE segments, else from SHT_NOTE sections */
  readonly notes: ReadonlyMap<number, Uint8Array>;
};

/** Does the file begin as ELF files do? */
export const isElf = (file: Uint8Array): boolean => file[0] === 0x7f && file[1] === 0x45 && file[2] === 0x4c && file[3] === 0x46;

/** @throws UserError that says what is wrong with the file and what to do */
export function parseElf(file: Uint8Array, name: string): ElfImage {
  const fail = (what: string): never => { throw new UserError(`${name}: ${what}`); };
  const damaged = (what: string): never => fail(`damaged or truncated ELF file: ${what}; fetch or build the file again`);
  if (!isElf(file)) fail("not an ELF file; give a Linux bzImage or an ELF kernel");
  if (file.length < Ehdr32.sizeof) damaged("it ends in the ELF header");
  const view = new DataView(file.buffer, file.byteOffset, file.length);

  const bits = file[4] === ELFCLASS[64] ? 64 : file[4] === ELFCLASS[32] ? 32 : damaged(`ELF class ${file[4]}`);
  if (file[5] !== ELFDATA2LSB) fail("an ELF file for a big-endian machine; give a kernel for x86-64 or x86");
  const [Ehdr, Phdr, Shdr] = bits === 64 ? [Ehdr64, Phdr64, Shdr64] as const : [Ehdr32, Phdr32, Shdr32] as const;
  if (file.length < Ehdr.sizeof) damaged("it ends in the ELF header");
  const machine = Ehdr.e_machine.get(view, 0), type = Ehdr.e_type.get(view, 0);
  if (machine !== (bits === 64 ? EM.X86_64 : EM[386]))
    fail(`an ELF file for ${machine === EM.X86_64 ? "x32" : MACHINES[machine] ?? `machine ${machine}`}; give a kernel for x86-64 or x86`);
  if (type !== ET.EXEC && type !== ET.DYN) fail(`${TYPES[type] ?? `an ELF file of type ${type}`}, not an executable; give a kernel (vmlinux, bzImage)`);

  /** Where a table or its contents lie; the sum cannot overflow, as each is compared before it is added. */
  const range = (offset: number | bigint, size: number | bigint, what: string): Uint8Array => {
    if (BigInt(offset) > BigInt(file.length) || BigInt(size) > BigInt(file.length) - BigInt(offset))
      damaged(`${what} at 0x${offset.toString(16)}, 0x${size.toString(16)} bytes, reaches past the file's end (0x${file.length.toString(16)})`);
    return file.subarray(Number(offset), Number(offset) + Number(size));
  };
  const tableAt = (offset: number | bigint, nr: number, entrySize: number, want: number, what: string): number => {
    if (nr > 0 && entrySize !== want) damaged(`${what}s of ${entrySize} bytes instead of ${want}`);
    range(offset, nr * want, `the table of ${what}s`);
    return Number(offset);
  };

  const segments: Segment[] = [], notes = new Map<number, Uint8Array>();
  const phnum = Ehdr.e_phnum.get(view, 0);
  if (phnum === PN_XNUM) fail("an ELF file with 65535 or more program headers; no kernel has that many");
  const phoff = tableAt(Ehdr.e_phoff.get(view, 0), phnum, Ehdr.e_phentsize.get(view, 0), Phdr.sizeof, "program header");
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * Phdr.sizeof, p_type = Phdr.p_type.get(view, at), filesz = Phdr.p_filesz.get(view, at);
    if (p_type === PT.NOTE) readNotes(range(Phdr.p_offset.get(view, at), filesz, `note segment ${i}`), Number(Phdr.p_align.get(view, at)), notes, damaged);
    if (p_type !== PT.LOAD) continue;
    const memsz = BigInt(Phdr.p_memsz.get(view, at)), paddr = BigInt(Phdr.p_paddr.get(view, at));
    if (memsz === 0n) continue;
    if (BigInt(filesz) > memsz) damaged(`segment ${i} has more bytes in the file than in memory`);
    if (paddr + memsz > BigInt(Number.MAX_SAFE_INTEGER)) fail(`segment ${i} is to be loaded at physical address 0x${paddr.toString(16)}, which no domain has; link the kernel with sane physical addresses`);
    const bytes = range(Phdr.p_offset.get(view, at), filesz, `segment ${i}`);
    segments.push({ paddr: Number(paddr), vaddr: BigInt(Phdr.p_vaddr.get(view, at)), memsz: Number(memsz), flags: Phdr.p_flags.get(view, at), bytes });
  }
  segments.sort((a, b) => a.paddr - b.paddr);
  segments.forEach((s, i) => {
    const before = segments[i - 1];
    if (before && before.paddr + before.memsz > s.paddr) damaged(`the segments at physical 0x${before.paddr.toString(16)} and 0x${s.paddr.toString(16)} overlap`);
  });

  const shoff = Ehdr.e_shoff.get(view, 0), shnum = Ehdr.e_shnum.get(view, 0);
  if (notes.size === 0 && BigInt(shoff) !== 0n && shnum > 0) {
    const table = tableAt(shoff, shnum, Ehdr.e_shentsize.get(view, 0), Shdr.sizeof, "section header");
    for (let i = 0; i < shnum; i++) {
      const at = table + i * Shdr.sizeof;
      if (Shdr.sh_type.get(view, at) === SHT_NOTE)
        readNotes(range(Shdr.sh_offset.get(view, at), Shdr.sh_size.get(view, at), `note section ${i}`), Number(Shdr.sh_addralign.get(view, at)), notes, damaged);
    }
  }
  return { bits, entry: BigInt(Ehdr.e_entry.get(view, 0)), segments, notes };
}

/** Collect the notes whose owner is "Xen". Names and values are padded to 4 bytes, or to 8 where the segment asks for it. */
function readNotes(b: Uint8Array, align: number, notes: Map<number, Uint8Array>, damaged: (what: string) => never): void {
  const view = new DataView(b.buffer, b.byteOffset, b.length), step = align === 8 ? 8 : 4, padded = (n: number): number => Math.ceil(n / step) * step;
  for (let at = 0; at + Nhdr.sizeof <= b.length;) {
    const namesz = Nhdr.n_namesz.get(view, at), descsz = Nhdr.n_descsz.get(view, at), type = Nhdr.n_type.get(view, at);
    const nameAt = at + Nhdr.sizeof, descAt = at + padded(Nhdr.sizeof + namesz);
    if (namesz > b.length - nameAt || descsz > b.length - descAt) damaged("a note reaches past its segment's end");
    const isXen = namesz === 4 && b[nameAt] === 0x58 && b[nameAt + 1] === 0x65 && b[nameAt + 2] === 0x6e && b[nameAt + 3] === 0;
    if (isXen && !notes.has(type)) notes.set(type, b.slice(descAt, descAt + descsz));        // not shared memory, of which browsers decode no text
    at = descAt + padded(descsz);
  }
}

/** The value of a note that holds a number of 4 or 8 bytes (1 and 2 occur too); undefined where there is none or it is no number. */
export function noteNumber(image: ElfImage, type: number): bigint | undefined {
  const desc = image.notes.get(type);
  if (desc === undefined || ![1, 2, 4, 8].includes(desc.length)) return undefined;
  return desc.reduceRight((value, b) => value << 8n | BigInt(b), 0n);
}

/** The value of a note that holds text, up to its zero byte. */
export function noteText(image: ElfImage, type: number): string | undefined {
  const desc = image.notes.get(type);
  if (desc === undefined) return undefined;
  const end = desc.indexOf(0);
  return new TextDecoder("latin1").decode(end < 0 ? desc : desc.subarray(0, end));
}

/** Does the kernel say that it knows a feature, in the bits of SUPPORTED_FEATURES or by name in FEATURES? */
export function hasFeature(image: ElfImage, feature: keyof typeof XENFEAT): boolean {
  const supported = noteNumber(image, XEN_ELFNOTE.SUPPORTED_FEATURES);
  if (supported !== undefined && (supported >> BigInt(XENFEAT[feature]) & 1n) === 1n) return true;
  const names = noteText(image, XEN_ELFNOTE.FEATURES)?.split("|") ?? [];
  return names.some((name) => name.replace("!", "") === feature);
}
