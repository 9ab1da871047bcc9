/**
 * A domain's memory and registers as a file: Xen's dump-core format, an ELF64 core that has sections and no program headers.
 * @see docs/misc/dump-core-format.txt; the notes' numbers: public/elfnote.h
 */
import { CpuUserRegs, HYPERVISOR_VIRT_START, VcpuGuestContext } from "../abi/arch-x86/xen.ts";
import { XEN_ELFNOTE } from "../abi/elfnote.ts";
import { XEN_CAPABILITIES_INFO_LEN, XEN_CHANGESET_INFO_LEN, XEN_EXTRAVERSION_LEN, XenCompileInfo } from "../abi/version.ts";
import { concat } from "../base/bytes.ts";
import type { Domain as HvDomain } from "../hypervisor/domain.ts";
import { fxImage } from "../hypervisor/hvm_context.ts";
import type { Vcpu } from "../hypervisor/vcpu.ts";
import { EXTRAVERSION, XEN_MAJOR, XEN_MINOR } from "../hypervisor/version_op.ts";
import { ownPages } from "../migration/pages.ts";
import type { Cpu } from "../x86/cpu.ts";
import { getFlags } from "../x86/flags.ts";
import { CPU, gprAt, SEG, segAt } from "../x86/state.ts";
import { type Domain, partsOf } from "./domain.ts";
import { mustBeWhole } from "./suspend.ts";

const PAGE = 4096, EHDR = 64, SHDR = 64, PAGES_AT_ONCE = 256;
/** XC_CORE_MAGIC_HVM; the format's version: major in the upper half, minor in the lower */
const MAGIC_HVM = 0xf00febeen, FORMAT_VERSION = 1n;
/** ELF's: section types, and what the header says. */
const SHT = { PROGBITS: 1, STRTAB: 3, NOTE: 7 } as const, ET_CORE = 4, EM_X86_64 = 62;
const GPR = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const, SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"] as const;
/** struct vcpu_guest_context's flags: FPU registers are there, the guest is in its kernel, the vCPU is on line. public/arch-x86/xen.h VGCF_* */
const VGCF = { i387_valid: 1, in_kernel: 4, online: 32 } as const;

/** A vCPU's registers as XEN_DOMCTL_getvcpucontext gives them of an HVM guest. It must not run. */
function vcpuContext(v: Vcpu): Uint8Array {
  const { views } = v.hv, { dv } = views, at = v.context, bytes = new Uint8Array(VcpuGuestContext.sizeof), out = new DataView(bytes.buffer), regs = VcpuGuestContext.user_regs.at, { ctrlreg, debugreg } = VcpuGuestContext;
  fxImage(dv, at, out, VcpuGuestContext.fpu_ctxt.at);
  VcpuGuestContext.flags.set(out, 0, BigInt(VGCF.i387_valid | (CPU.cpl.get(dv, at) === 0 ? VGCF.in_kernel : 0) | (v.isUp ? VGCF.online : 0)));
  GPR.forEach((name, i) => { CpuUserRegs[name].set(out, regs, dv.getBigUint64(at + gprAt(i), true)); });
  CpuUserRegs.rip.set(out, regs, BigInt.asUintN(64, CPU.rip.get(dv, at)));
  CpuUserRegs.rflags.set(out, regs, BigInt(getFlags({ v: views, at } as Cpu) >>> 0));
  SEGMENTS.forEach((name, i) => { CpuUserRegs[name].set(out, regs, SEG.sel.get(dv, at + segAt(i))); });
  for (const [i, value] of [[0, CPU.cr0.get(dv, at)], [2, BigInt.asUintN(64, CPU.cr2.get(dv, at))], [3, CPU.cr3.get(dv, at)], [4, CPU.cr4.get(dv, at)]] as const) out.setBigUint64(ctrlreg.at + 8 * i, value, true);
  for (let i = 0; i < 8; i++) out.setBigUint64(debugreg.at + 8 * i, dv.getBigUint64(at + CPU.dr.at + 8 * i, true), true);
  const base = (segment: number): bigint => BigInt.asUintN(64, SEG.base.get(dv, at + segAt(segment)));
  VcpuGuestContext.fs_base.set(out, 0, base(4));
  const isKernel = CPU.cpl.get(dv, at) === 0, swapped = CPU.kernelGsBase.get(dv, at);
  VcpuGuestContext.gs_base_kernel.set(out, 0, isKernel ? base(5) : swapped);
  VcpuGuestContext.gs_base_user.set(out, 0, isKernel ? swapped : base(5));
  return bytes;
}

/** An ELF note of Xen's. */
function note(type: number, desc: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16 + Math.ceil(desc.length / 4) * 4), dv = new DataView(bytes.buffer);
  dv.setUint32(0, 4, true);
  dv.setUint32(4, desc.length, true);
  dv.setUint32(8, type, true);
  bytes.set([0x58, 0x65, 0x6e, 0], 12);
  bytes.set(desc, 16);
  return bytes;
}
const words = (...values: readonly bigint[]): Uint8Array => { const out = new DataView(new ArrayBuffer(8 * values.length)); values.forEach((v, i) => { out.setBigUint64(8 * i, v, true); }); return new Uint8Array(out.buffer); };
const padded = (text: string, length: number): Uint8Array => { const bytes = new Uint8Array(length); bytes.set(new TextEncoder().encode(text).subarray(0, length - 1)); return bytes; };
const notesOf = (nrVcpus: number, nrPages: number): Uint8Array => concat([
  note(XEN_ELFNOTE.DUMPCORE_NONE, new Uint8Array(0)),
  note(XEN_ELFNOTE.DUMPCORE_HEADER, words(MAGIC_HVM, BigInt(nrVcpus), BigInt(nrPages), BigInt(PAGE))),
  note(XEN_ELFNOTE.DUMPCORE_XEN_VERSION, concat([words(BigInt(XEN_MAJOR), BigInt(XEN_MINOR)), padded(EXTRAVERSION, XEN_EXTRAVERSION_LEN), new Uint8Array(XenCompileInfo.sizeof), padded("hvm-3.0-x86_64 ", XEN_CAPABILITIES_INFO_LEN),
    padded("unavailable", XEN_CHANGESET_INFO_LEN), words(HYPERVISOR_VIRT_START, BigInt(PAGE))])),
  note(XEN_ELFNOTE.DUMPCORE_FORMAT_VERSION, words(FORMAT_VERSION)),
]);

type Section = { readonly name: string; readonly type: number; readonly sizeBytes: number; readonly entryBytes: number; readonly align: number; bytes(): Iterable<Uint8Array> };
function sectionsOf(hd: HvDomain): Section[] {
  const vcpus = [...hd.vcpus()].map(vcpuContext), pages = [...ownPages(hd)], notes = notesOf(vcpus.length, pages.length), { u8 } = hd.hv.views;
  const whole = (name: string, type: number, bytes: Uint8Array, entryBytes = 0, align = 8): Section => ({ name, type, sizeBytes: bytes.length, entryBytes, align, bytes: () => [bytes] });
  return [
    whole(".note.Xen", SHT.NOTE, notes), whole(".xen_prstatus", SHT.PROGBITS, concat(vcpus), VcpuGuestContext.sizeof), whole(".xen_shared_info", SHT.PROGBITS, u8.slice(hd.sharedInfo, hd.sharedInfo + PAGE)),
    whole(".xen_pfn", SHT.PROGBITS, new Uint8Array(BigUint64Array.from(pages, (p) => BigInt(p.gfn)).buffer), 8),
    {
      name: ".xen_pages", type: SHT.PROGBITS, sizeBytes: pages.length * PAGE, entryBytes: PAGE, align: PAGE,
      bytes: function* () {
        for (let i = 0; i < pages.length; i += PAGES_AT_ONCE) {
          const some = pages.slice(i, i + PAGES_AT_ONCE), piece = new Uint8Array(some.length * PAGE);
          some.forEach(({ mfn }, k) => { piece.set(u8.subarray(mfn * PAGE, mfn * PAGE + PAGE), k * PAGE); });
          yield piece;
        }
      },
    },
  ];
}

/** Write a domain that stands still. @returns bytes written */
async function writeCore(hd: HvDomain, put: (bytes: Uint8Array) => Promise<void>, told: (done: number, total: number) => void): Promise<number> {
  const sections = sectionsOf(hd), names = ["", ...sections.map((s) => s.name), ".shstrtab"], strings = new TextEncoder().encode(names.map((n) => `${n}\0`).join(""));
  const nameAt = (i: number): number => names.slice(0, i).reduce((n, s) => n + s.length + 1, 0), all: Section[] = [...sections, { name: ".shstrtab", type: SHT.STRTAB, sizeBytes: strings.length, entryBytes: 0, align: 1, bytes: () => [strings] }];
  let end = EHDR;
  const offsets = all.map((s) => { const at = Math.ceil(end / s.align) * s.align; end = at + s.sizeBytes; return at; }), shoff = Math.ceil(end / 8) * 8, total = shoff + SHDR * (all.length + 1);
  const header = new DataView(new ArrayBuffer(EHDR));
  new Uint8Array(header.buffer).set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  for (const [at, value] of [[16, ET_CORE], [18, EM_X86_64], [52, EHDR], [58, SHDR], [60, all.length + 1], [62, all.length]] as const) header.setUint16(at, value, true);
  header.setUint32(20, 1, true);
  header.setBigUint64(40, BigInt(shoff), true);
  let at = 0;
  const write = async (bytes: Uint8Array): Promise<void> => { await put(bytes); at += bytes.length; told(at, total); };
  const padTo = async (to: number): Promise<void> => { if (to > at) await write(new Uint8Array(to - at)); };
  await write(new Uint8Array(header.buffer));
  for (const [i, s] of all.entries()) {
    await padTo(offsets[i]!);
    for (const piece of s.bytes()) await write(piece);
  }
  await padTo(shoff);
  const table = new DataView(new ArrayBuffer(SHDR * (all.length + 1)));
  all.forEach((s, i) => {
    const row = SHDR * (i + 1);
    table.setUint32(row, nameAt(i + 1), true);
    table.setUint32(row + 4, s.type, true);
    for (const [field, value] of [[24, offsets[i]!], [32, s.sizeBytes], [48, s.align], [56, s.entryBytes]] as const) table.setBigUint64(row + field, BigInt(value), true);
  });
  await write(new Uint8Array(table.buffer));
  return at;
}

/**
 * Write a domain's core into `out`, which is closed then; the domain stands still meanwhile and goes on afterwards, if it did before.
 * @returns bytes @throws the stream's error or the signal's reason; `out` is aborted then
 */
export async function dumpCore(domain: Domain, out: WritableStream<Uint8Array>, o: { readonly signal?: AbortSignal; readonly progress?: (done: number, total: number) => void } = {}): Promise<number> {
  mustBeWhole(domain, "dumped");
  const { hv: hd } = partsOf(domain), writer = out.getWriter();
  try {
    await hd.pause();
    let bytes: number;
    try {
      bytes = await writeCore(hd, async (piece) => { o.signal?.throwIfAborted(); await writer.write(piece); }, o.progress ?? (() => {}));
    } finally {
      hd.unpause();
    }
    await writer.close();
    return bytes;
  } catch (e) {
    await writer.abort(e).catch(() => {});
    throw e;
  }
}
