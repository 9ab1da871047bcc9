/**
 * A domain's HVM context: its vCPUs' registers, local APICs and time-stamp counters as Xen's XEN_DOMCTL_gethvmcontext gives them and _sethvmcontext takes them.
 * The domain's vCPUs do not run meanwhile. What is taken is checked as a guest's own register writes would be: no state gets in that no guest could reach.
 * @see public/hvm/save.h, public/arch-x86/hvm/save.h; xen/arch/x86/hvm/hvm.c hvm_load_cpu_ctxt
 */
import {
  HVM_FILE_MAGIC, HVM_FILE_VERSION, HVM_SAVE_CODE as CODE, HvmHwCpu as HW, HvmHwCpuXsave, HvmHwLapic, HvmHwLapicRegs, HvmHwMtrr, HvmMsr, HvmOneMsr, HvmSaveDescriptor, HvmSaveHeader, HvmTscAdjust,
  XEN_X86_FPU_INITIALISED,
} from "../abi/hvm/save.ts";
import { concat } from "../base/bytes.ts";
import { UserError } from "../base/errors.ts";
import type { Cpu } from "../x86/cpu.ts";
import { getFlags, setFlags } from "../x86/flags.ts";
import { MSR, SPEC_CTRL_BITS } from "../x86/msr.ts";
import { ATTR, CPU, CR0, CR4, CS, DS, EFER, EFLAGS, ES, FS, GS, LDTR, SEG, SS, TR, gprAt, segAt, xmmAt } from "../x86/state.ts";
import { TSC_KHZ } from "./clock.ts";
import { resetContext } from "./context.ts";
import { cpuid, PHYSICAL_ADDRESS_BITS } from "./cpuid.ts";
import type { Domain } from "./domain.ts";
import { lapicRestore, lapicSave } from "./lapic_save.ts";
import { VCPU, VPF } from "./objects.ts";
import type { Vcpu } from "./vcpu.ts";

const GPRS = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const;
const SEGMENTS = [["cs", CS], ["ds", DS], ["es", ES], ["fs", FS], ["gs", GS], ["ss", SS], ["tr", TR], ["ldtr", LDTR]] as const;
/** Ours and the record's, one value a field, as they are. */
const WORDS = [
  ["cr0", "cr0"], ["cr2", "cr2"], ["cr3", "cr3"], ["cr4", "cr4"], ["rip", "rip"], ["sysenterCs", "sysenter_cs"], ["sysenterEsp", "sysenter_esp"], ["sysenterEip", "sysenter_eip"],
  ["kernelGsBase", "shadow_gs"], ["lstar", "msr_lstar"], ["star", "msr_star"], ["cstar", "msr_cstar"], ["sfmask", "msr_syscall_mask"], ["efer", "msr_efer"], ["tscAux", "msr_tsc_aux"],
  ["gdtrBase", "gdtr_base"], ["idtrBase", "idtr_base"],
] as const;
/** Offsets in an FXSAVE image, SDM Vol. 2 table 3-46. */
const FX = { fcw: 0, fsw: 2, ftw: 4, fop: 6, fip: 8, fdp: 16, mxcsr: 24, mxcsrMask: 28, st: 32, xmm: 160 } as const;
const MXCSR_MASK = 0xffff, X87_AND_SSE = 3n;
const CR0_BITS = CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG;
const CR4_BITS = Object.values(CR4).reduce((all, bit) => all | bit, 0) & ~(CR4.LA57 | CR4.VMXE | CR4.PCIDE | CR4.PVI | CR4.VME);
const EFER_BITS = Object.values(EFER).reduce((all, bit) => all | bit, 0);
const FLAG_BITS = EFLAGS.arith | EFLAGS.fixed | EFLAGS.TF | EFLAGS.IF | EFLAGS.DF | EFLAGS.IOPL | EFLAGS.NT | EFLAGS.RF | EFLAGS.VM | EFLAGS.AC | EFLAGS.VIF | EFLAGS.VIP | EFLAGS.ID;
const unsigned = (n: bigint): bigint => BigInt.asUintN(64, n);

// Saving -----------------------------------------------------------------------
export function fxImage(dv: DataView, at: number, into: DataView, to: number): void {
  const top = CPU.fsw.get(dv, at) >>> 11 & 7;
  into.setUint16(to + FX.fcw, CPU.fcw.get(dv, at), true);
  into.setUint16(to + FX.fsw, CPU.fsw.get(dv, at), true);
  into.setUint8(to + FX.ftw, CPU.ftw.get(dv, at));
  into.setUint16(to + FX.fop, CPU.fop.get(dv, at), true);
  into.setBigUint64(to + FX.fip, CPU.fip.get(dv, at), true);
  into.setBigUint64(to + FX.fdp, CPU.fdp.get(dv, at), true);
  into.setUint32(to + FX.mxcsr, CPU.mxcsr.get(dv, at), true);
  into.setUint32(to + FX.mxcsrMask, MXCSR_MASK, true);
  for (let i = 0; i < 8; i++) {
    const st = at + CPU.st.at + (top + i & 7) * 16;
    into.setBigUint64(to + FX.st + i * 16, dv.getBigUint64(st, true), true);
    into.setUint16(to + FX.st + i * 16 + 8, dv.getUint16(st + 8, true), true);
  }
  for (let i = 0; i < 32; i++) into.setBigUint64(to + FX.xmm + i * 8, dv.getBigUint64(at + CPU.xmm.at + i * 8, true), true);
}
function cpuRecord(v: Vcpu, tsc: bigint): Uint8Array {
  const { dv } = v.hv.views, at = v.context, into = new DataView(new ArrayBuffer(HW.sizeof));
  fxImage(dv, at, into, HW.fpu_regs.at);
  GPRS.forEach((name, i) => HW[name].set(into, 0, dv.getBigUint64(at + gprAt(i), true)));
  HW.rflags.set(into, 0, BigInt(getFlags({ v: v.hv.views, at } as Cpu) >>> 0));
  for (const [ours, theirs] of WORDS) HW[theirs].set(into, 0, unsigned(CPU[ours].get(dv, at)));
  for (const n of [0, 1, 2, 3, 6, 7] as const) HW[`dr${n}`].set(into, 0, dv.getBigUint64(at + CPU.dr.at + n * 8, true));
  for (const [name, i] of SEGMENTS) {
    const p = at + segAt(i), attr = SEG.attr.get(dv, p);
    HW[`${name}_sel`].set(into, 0, SEG.sel.get(dv, p));
    HW[`${name}_limit`].set(into, 0, SEG.limit.get(dv, p));
    HW[`${name}_base`].set(into, 0, SEG.base.get(dv, p));
    HW[`${name}_arbytes`].set(into, 0, attr & ATTR.unusable ? 0 : attr);
  }
  HW.gdtr_limit.set(into, 0, CPU.gdtrLimit.get(dv, at));
  HW.idtr_limit.set(into, 0, CPU.idtrLimit.get(dv, at));
  HW.tsc.set(into, 0, unsigned(tsc + CPU.tscAdjust.get(dv, at)));
  HW.flags.set(into, 0, XEN_X86_FPU_INITIALISED);
  return new Uint8Array(into.buffer);
}
function mtrrRecord(v: Vcpu): Uint8Array {
  const { dv, u8 } = v.hv.views, at = v.context, bytes = new Uint8Array(HvmHwMtrr.sizeof), into = new DataView(bytes.buffer);
  HvmHwMtrr.msr_pat_cr.set(into, 0, CPU.pat.get(dv, at));
  bytes.set(u8.subarray(at + CPU.mtrrVar.at, at + CPU.mtrrVar.at + CPU.mtrrVar.size), HvmHwMtrr.msr_mtrr_var.at);
  bytes.set(u8.subarray(at + CPU.mtrrFixed.at, at + CPU.mtrrFixed.at + CPU.mtrrFixed.size), HvmHwMtrr.msr_mtrr_fixed.at);
  HvmHwMtrr.msr_mtrr_cap.set(into, 0, 0x508n);
  HvmHwMtrr.msr_mtrr_def_type.set(into, 0, CPU.mtrrDefType.get(dv, at));
  return bytes;
}
function xsaveRecord(v: Vcpu): Uint8Array {
  const { dv } = v.hv.views, at = v.context, into = new DataView(new ArrayBuffer(HvmHwCpuXsave.sizeof));
  HvmHwCpuXsave.xfeature_mask.set(into, 0, X87_AND_SSE);
  HvmHwCpuXsave.xcr0.set(into, 0, CPU.xcr0.get(dv, at));
  HvmHwCpuXsave.xcr0_accum.set(into, 0, CPU.xcr0.get(dv, at));
  fxImage(dv, at, into, HvmHwCpuXsave.fpu_sse.at);
  into.setBigUint64(HvmHwCpuXsave.xsave_hdr.at, X87_AND_SSE, true);
  return new Uint8Array(into.buffer);
}
/** The context's bytes. The domain's vCPUs have left their pCPUs. */
export function getHvmContext(d: Domain): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const add = (typecode: number, instance: number, body: Uint8Array): void => {
    const descriptor = new DataView(new ArrayBuffer(HvmSaveDescriptor.sizeof));
    HvmSaveDescriptor.typecode.set(descriptor, 0, typecode);
    HvmSaveDescriptor.instance.set(descriptor, 0, instance);
    HvmSaveDescriptor.length.set(descriptor, 0, body.length);
    parts.push(new Uint8Array(descriptor.buffer), body);
  };
  const header = new DataView(new ArrayBuffer(HvmSaveHeader.sizeof)), leaf1 = new Uint32Array(4);
  cpuid(d.vcpu(0)!, 1, 0, leaf1);
  HvmSaveHeader.magic.set(header, 0, HVM_FILE_MAGIC);
  HvmSaveHeader.version.set(header, 0, HVM_FILE_VERSION);
  HvmSaveHeader.cpuid.set(header, 0, leaf1[0]!);
  HvmSaveHeader.gtsc_khz.set(header, 0, TSC_KHZ);
  add(CODE.HEADER, 0, new Uint8Array(header.buffer));
  const all = [...d.vcpus()], up = all.filter((v) => v.isUp);
  const tsc = d.hv.clock.tsc();        // of one instant: they are to stay in step
  for (const v of up) add(CODE.CPU, v.id, cpuRecord(v, tsc));
  for (const v of all) {
    const { state, regs } = lapicSave(v);
    add(CODE.LAPIC, v.id, state);
    add(CODE.LAPIC_REGS, v.id, regs);
  }
  for (const v of all) add(CODE.MTRR, v.id, mtrrRecord(v));
  for (const v of up) add(CODE.CPU_XSAVE, v.id, xsaveRecord(v));
  for (const v of up) {
    const body = new DataView(new ArrayBuffer(HvmTscAdjust.sizeof)), { dv } = d.hv.views;
    HvmTscAdjust.tsc_adjust.set(body, 0, unsigned(CPU.tscAdjust.get(dv, v.context) - CPU.tscHidden.get(dv, v.context)));
    add(CODE.TSC_ADJUST, v.id, new Uint8Array(body.buffer));
  }
  for (const v of up) {
    const specCtrl = CPU.specCtrl.get(d.hv.views.dv, v.context);
    if (specCtrl !== 0n) add(CODE.CPU_MSR, v.id, msrRecord(MSR.SPEC_CTRL, specCtrl));
  }
  add(CODE.END, 0, new Uint8Array(0));
  return concat(parts);
}

/** Of one register. */
function msrRecord(index: number, value: bigint): Uint8Array {
  const body = new DataView(new ArrayBuffer(HvmMsr.sizeof + HvmOneMsr.sizeof));
  HvmMsr.count.set(body, 0, 1);
  HvmOneMsr.index.set(body, HvmMsr.sizeof, index);
  HvmOneMsr.val.set(body, HvmMsr.sizeof, value);
  return new Uint8Array(body.buffer);
}

// Taking -----------------------------------------------------------------------
const canonical = (x: bigint): boolean => { const top = BigInt.asIntN(64, x) >> 47n; return top === 0n || top === -1n; };
/** What is wrong with a CPU record, or null. SDM Vol. 3A 2.5, 26.3.1 */
function flaw(r: DataView): string | null {
  const cr0 = HW.cr0.get(r, 0), cr4 = HW.cr4.get(r, 0), efer = HW.msr_efer.get(r, 0), has = (x: bigint, bit: number): boolean => (x & BigInt(bit >>> 0)) !== 0n;
  if (cr0 & ~BigInt(CR0_BITS >>> 0) || (has(cr0, CR0.PG) && !has(cr0, CR0.PE)) || (has(cr0, CR0.NW) && !has(cr0, CR0.CD))) return `CR0 is 0x${cr0.toString(16)}`;
  if (cr4 & ~BigInt(CR4_BITS)) return `CR4 is 0x${cr4.toString(16)}`;
  if (efer & ~BigInt(EFER_BITS) || has(efer, EFER.LMA) !== (has(efer, EFER.LME) && has(cr0, CR0.PG)) || (has(efer, EFER.LMA) && !has(cr4, CR4.PAE))) return `EFER is 0x${efer.toString(16)}`;
  if (HW.cr3.get(r, 0) >> BigInt(PHYSICAL_ADDRESS_BITS)) return `CR3 is 0x${HW.cr3.get(r, 0).toString(16)}`;
  const flags = HW.rflags.get(r, 0);
  if (flags & ~BigInt(FLAG_BITS) || (has(flags, EFLAGS.VM) && (has(efer, EFER.LMA) || !has(cr0, CR0.PE)))) return `RFLAGS are 0x${flags.toString(16)}`;
  for (const name of ["fs_base", "gs_base", "shadow_gs", "tr_base", "ldtr_base", "gdtr_base", "idtr_base", "msr_lstar", "msr_cstar", "sysenter_esp", "sysenter_eip"] as const) {
    if (!canonical(HW[name].get(r, 0))) return `${name} is not canonical`;
  }
  if (r.getUint32(HW.fpu_regs.at + FX.mxcsr, true) & ~MXCSR_MASK) return "MXCSR has reserved bits set";
  for (const name of ["gdtr_limit", "idtr_limit"] as const) if (HW[name].get(r, 0) > 0xffff) return `${name} is 0x${HW[name].get(r, 0).toString(16)}`;
  return HW.pending_event.get(r, 0) >>> 31 ? "an exception is pending" : null;
}
function takeCpu(v: Vcpu, r: DataView, tsc: bigint): void {
  v.setContext((dv, at) => {
    resetContext(dv, at, v.id);
    const fx = HW.fpu_regs.at, fsw = r.getUint16(fx + FX.fsw, true), top = fsw >>> 11 & 7;
    CPU.fcw.set(dv, at, r.getUint16(fx + FX.fcw, true) & 0x1f7f | 0x40);
    CPU.fsw.set(dv, at, fsw);
    CPU.ftw.set(dv, at, r.getUint8(fx + FX.ftw));
    CPU.fop.set(dv, at, r.getUint16(fx + FX.fop, true) & 0x7ff);
    CPU.fip.set(dv, at, r.getBigUint64(fx + FX.fip, true));
    CPU.fdp.set(dv, at, r.getBigUint64(fx + FX.fdp, true));
    CPU.mxcsr.set(dv, at, r.getUint32(fx + FX.mxcsr, true));
    for (let i = 0; i < 8; i++) {
      const st = at + CPU.st.at + (top + i & 7) * 16;
      dv.setBigUint64(st, r.getBigUint64(fx + FX.st + i * 16, true), true);
      dv.setUint16(st + 8, r.getUint16(fx + FX.st + i * 16 + 8, true), true);
    }
    for (let i = 0; i < 16; i++) for (const half of [0, 8]) dv.setBigUint64(at + xmmAt(i) + half, r.getBigUint64(fx + FX.xmm + i * 16 + half, true), true);
    GPRS.forEach((name, i) => dv.setBigUint64(at + gprAt(i), HW[name].get(r, 0), true));
    for (const [ours, theirs] of WORDS) CPU[ours].set(dv, at, HW[theirs].get(r, 0));
    CPU.cr0.set(dv, at, HW.cr0.get(r, 0) | BigInt(CR0.ET));
    for (const n of [0, 1, 2, 3] as const) dv.setBigUint64(at + CPU.dr.at + n * 8, HW[`dr${n}`].get(r, 0), true);
    dv.setBigUint64(at + CPU.dr.at + 6 * 8, HW.dr6.get(r, 0) & 0xe00fn | 0xffff0ff0n, true);
    dv.setBigUint64(at + CPU.dr.at + 7 * 8, HW.dr7.get(r, 0) & 0xffff23ffn | 0x400n, true);
    for (const [name, i] of SEGMENTS) {
      const p = at + segAt(i), attr = HW[`${name}_arbytes`].get(r, 0) & 0xfff;
      SEG.sel.set(dv, p, HW[`${name}_sel`].get(r, 0) & 0xffff);
      SEG.limit.set(dv, p, HW[`${name}_limit`].get(r, 0));
      SEG.base.set(dv, p, HW[`${name}_base`].get(r, 0));
      SEG.attr.set(dv, p, attr & ATTR.p || i === CS || i === SS ? attr : ATTR.unusable);
    }
    CPU.gdtrLimit.set(dv, at, HW.gdtr_limit.get(r, 0));
    CPU.idtrLimit.set(dv, at, HW.idtr_limit.get(r, 0));
    setFlags({ v: v.hv.views, at } as Cpu, Number(HW.rflags.get(r, 0)), -1);
    // the counter goes on where it stood, or where it would be now; what the guest itself added to it is known when TSC_ADJUST comes
    CPU.tscHidden.set(dv, at, unsigned(HW.tsc.get(r, 0) - tsc));
    CPU.tscAdjust.set(dv, at, CPU.tscHidden.get(dv, at));
  }, false);
}

type Records = Map<string, DataView<ArrayBuffer>>;
const LENGTHS = new Map<number, number>([[CODE.HEADER, HvmSaveHeader.sizeof], [CODE.CPU, HW.sizeof], [CODE.LAPIC, HvmHwLapic.sizeof], [CODE.LAPIC_REGS, HvmHwLapicRegs.sizeof],
  [CODE.MTRR, HvmHwMtrr.sizeof], [CODE.TSC_ADJUST, HvmTscAdjust.sizeof]]);
/** Cut it into records by "code/instance". @throws UserError */
function split(bytes: Uint8Array, nrVcpus: number): Records {
  const found: Records = new Map(), dv = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const fail = (nr: number, at: number, why: string): never => { throw new UserError(`HVM context: record ${nr} at byte ${at} ${why}; the stream is damaged or was made by a version that this one does not know`); };
  for (let at = 0, nr = 0; ; nr++) {
    if (at + HvmSaveDescriptor.sizeof > bytes.length) return fail(nr, at, "is missing: there is no END");
    const code = HvmSaveDescriptor.typecode.get(dv, at), instance = HvmSaveDescriptor.instance.get(dv, at), length = HvmSaveDescriptor.length.get(dv, at), want = LENGTHS.get(code);
    const name = Object.entries(CODE).find(([, n]) => n === code)?.[0] ?? `type ${code}`;
    if (length > bytes.length - at - HvmSaveDescriptor.sizeof) fail(nr, at, `(${name}) reaches past the end`);
    if (code === CODE.END) {
      if (at + HvmSaveDescriptor.sizeof !== bytes.length) fail(nr, at, "(END) is not the last");
      return found;
    }
    if (want !== undefined && length !== want) fail(nr, at, `(${name}) has ${length} bytes, not ${want}`);
    if (want !== undefined && code !== CODE.HEADER && instance >= nrVcpus) fail(nr, at, `(${name}) is of vCPU ${instance}, the domain has ${nrVcpus}`);
    at += HvmSaveDescriptor.sizeof;
    found.set(`${code}/${instance}`, new DataView(bytes.slice(at, at + length).buffer));
    at += length;
  }
}
/** The value of a register in a CPU_MSR record, 0 where it is not there; those that Domus has not are passed over. */
function msrOf(record: DataView | undefined, index: number, v: Vcpu): bigint {
  if (!record) return 0n;
  if (record.byteLength < HvmMsr.sizeof || record.byteLength !== HvmMsr.sizeof + HvmMsr.count.get(record, 0) * HvmOneMsr.sizeof) {
    throw new UserError(`HVM context: the CPU_MSR record of vCPU ${v.id} has ${record.byteLength} bytes, which do not fit its count; the stream is damaged`);
  }
  for (let at = HvmMsr.sizeof; at < record.byteLength; at += HvmOneMsr.sizeof) if (HvmOneMsr.index.get(record, at) === index) return HvmOneMsr.val.get(record, at);
  return 0n;
}
/**
 * Give a domain that has not run the registers of `bytes`; vCPUs that have some come up. Xen's records about chips a PVH guest lacks are passed over.
 * @param elapsedNs how long their time-stamp counters have run on since the context was made
 * @throws UserError naming the record, with the domain fit for nothing but its end
 */
export function setHvmContext(d: Domain, bytes: Uint8Array, elapsedNs = 0): void {
  const records = split(bytes, d.nrVcpus), header = records.get(`${CODE.HEADER}/0`), { dv } = d.hv.views;
  if (!header || HvmSaveHeader.magic.get(header, 0) !== HVM_FILE_MAGIC) throw new UserError("HVM context: there is no header; this is no context of a domain");
  if (HvmSaveHeader.version.get(header, 0) !== HVM_FILE_VERSION) throw new UserError(`HVM context: its version is ${HvmSaveHeader.version.get(header, 0)}; this Domus takes ${HVM_FILE_VERSION}`);
  if (!records.has(`${CODE.CPU}/0`)) throw new UserError("HVM context: vCPU 0 has no CPU record; the stream is damaged");
  const tsc = d.hv.clock.tsc() - BigInt(elapsedNs);
  for (const v of d.vcpus()) {
    const get = (code: number): DataView | undefined => records.get(`${code}/${v.id}`), cpu = get(CODE.CPU), mtrr = get(CODE.MTRR), xsave = get(CODE.CPU_XSAVE), adjust = get(CODE.TSC_ADJUST);
    const why = cpu ? flaw(cpu) : null;
    if (why !== null) throw new UserError(`HVM context: the CPU record of vCPU ${v.id} cannot be: ${why}; the stream is damaged, or of a processor that Domus has not`);
    if (cpu) takeCpu(v, cpu, tsc);
    else {        // its counter is in step with the others' when it comes up
      resetContext(dv, v.context, v.id);
      const first = d.vcpu(0)!.context;
      for (const field of [CPU.tscAdjust, CPU.tscHidden]) field.set(dv, v.context, CPU.tscHidden.get(dv, first));
    }
    const at = v.context;
    if (mtrr) {
      CPU.pat.set(dv, at, HvmHwMtrr.msr_pat_cr.get(mtrr, 0));
      for (const [ours, theirs] of [[CPU.mtrrVar, HvmHwMtrr.msr_mtrr_var], [CPU.mtrrFixed, HvmHwMtrr.msr_mtrr_fixed]] as const) {
        for (let i = 0; i < ours.size; i += 8) dv.setBigUint64(at + ours.at + i, mtrr.getBigUint64(theirs.at + i, true), true);
      }
      CPU.mtrrDefType.set(dv, at, HvmHwMtrr.msr_mtrr_def_type.get(mtrr, 0));
    }
    if (xsave && xsave.byteLength >= HvmHwCpuXsave.fpu_sse.at) {
      const xcr0 = HvmHwCpuXsave.xcr0.get(xsave, 0);
      if (xcr0 & ~X87_AND_SSE || !(xcr0 & 1n)) throw new UserError(`HVM context: XCR0 of vCPU ${v.id} is 0x${xcr0.toString(16)}; Domus has x87 and SSE state only`);
      CPU.xcr0.set(dv, at, xcr0);
    }
    if (adjust && cpu) CPU.tscHidden.set(dv, at, unsigned(CPU.tscAdjust.get(dv, at) - HvmTscAdjust.tsc_adjust.get(adjust, 0)));
    const specCtrl = msrOf(get(CODE.CPU_MSR), MSR.SPEC_CTRL, v);
    if (specCtrl & ~SPEC_CTRL_BITS) throw new UserError(`HVM context: IA32_SPEC_CTRL of vCPU ${v.id} is 0x${specCtrl.toString(16)}, of a processor that Domus has not`);
    CPU.specCtrl.set(dv, at, specCtrl);
    const lapic = get(CODE.LAPIC), regs = get(CODE.LAPIC_REGS);
    if (lapic && regs) {
      const base = lapicRestore(v, lapic, regs);
      if (base === null) throw new UserError(`HVM context: the LAPIC record of vCPU ${v.id} has an APIC base of 0x${HvmHwLapic.apic_base_msr.get(lapic, 0).toString(16)}, which cannot be`);
      CPU.apicBase.set(dv, at, base);
    }
    v.writeTime();
    if (cpu) d.hv.and(VCPU.pauseFlags, v.at, ~VPF.down);
  }
}
