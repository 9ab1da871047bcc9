/**
 * What CPUID says: an x86-64-v2 processor, Intel's by name, and Xen's own leaves. Only what the engine does is offered. The model (Goldmont Plus) is a
 * real one with all of v2 and no AVX, and is chosen for what guests do on it: glibc from 2.26 on then copies what is long by REP MOVSB, which the engine
 * does as the host's memory copy, where it takes a loop of SSSE3 on models it has no word about (AMD's without AVX among them). What a kernel need not
 * do against speculation is in IA32_ARCH_CAPABILITIES, and true of an engine that does not speculate.
 * @see SDM Vol. 2A CPUID, AMD APM Vol. 3 app. E, public/arch-x86/cpuid.h
 */
import { XEN_CPUID_FIRST_LEAF, XEN_CPUID_LEAF, XEN_CPUID_SIGNATURE, XEN_HVM_CPUID, XEN_HYPERCALL_MSR } from "../abi/arch-x86/cpuid.ts";
import { TSC_KHZ, TSC_SHIFT, TSC_TO_SYSTEM_MUL } from "./clock.ts";
import { apicId } from "./lapic.ts";
import type { Vcpu } from "./vcpu.ts";
import { XEN_MAJOR, XEN_MINOR } from "./version_op.ts";

/** Guest-physical address bits, within what the p2m holds (42). */
export const PHYSICAL_ADDRESS_BITS = 40;
const MAX_BASIC = 0x16, MAX_EXTENDED = 0x80000021, MAX_XEN = XEN_CPUID_FIRST_LEAF + XEN_CPUID_LEAF.hvm;
/** Family 6, model 0x7a, stepping 8. */
const SIGNATURE = 0x000706a8;
const XSAVE_BYTES = 576;
const bits = (...positions: number[]): number => positions.reduce((word, bit) => word | (1 << bit), 0) >>> 0;
const str = (s: string, at: number): number => [0, 1, 2, 3].reduce((word, i) => word | (s.charCodeAt(at + i) || 0) << (8 * i), 0) >>> 0;
const BRAND = "Domus x86-64-v2 processor";

/** Leaf 1 ecx: SSE3 SSSE3 CMPXCHG16B SSE4.1 SSE4.2 x2APIC MOVBE POPCNT TSC_DEADLINE XSAVE HYPERVISOR */
const L1_ECX = bits(0, 9, 13, 19, 20, 21, 22, 23, 24, 26, 31);
/** Leaf 1 edx and 80000001 edx have these in common: FPU DE PSE TSC MSR PAE MCE CX8 APIC MTRR PGE MCA CMOV PAT PSE36 MMX FXSR */
const L1_EDX_BOTH = [0, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 23, 24];
/** ... SEP CLFSH SSE SSE2 */
const L1_EDX = bits(...L1_EDX_BOTH, 11, 19, 25, 26);
/** FSGSBASE TSC_ADJUST SMEP ERMS SMAP; UMIP; FSRM SERIALIZE (without it Linux serialises by IRET, for each of 100,000 places that it patches when it boots) ARCH_CAPABILITIES */
const L7_EBX = bits(0, 1, 7, 9, 20), L7_ECX = bits(2), L7_EDX = bits(4, 14, 29);
/** 80000001 ecx: LAHF; edx: ... SYSCALL NX PDPE1GB RDTSCP LM */
const X1_ECX = bits(0), X1_EDX = bits(...L1_EDX_BOTH, 11, 20, 26, 27, 29);
/** Leaf 7, 2 edx: BHI_CTRL, without which Linux clears a branch history that is not there by a loop in each system call, whatever BHI_NO says. */
const L72_EDX = bits(4);
/** As AMD's say it, and images of older versions have it. 80000008 ebx: SSB_NO BTC_NO. 80000021 eax: LFENCE serialises, null selector clears base, automatic IBRS (so that Linux needs no retpolines), SRSO_NO; ecx: TSA_SQ_NO TSA_L1_NO */
const X8_EBX = bits(26, 29), X21_EAX = bits(2, 6, 8, 29), X21_ECX = bits(1, 2);

/**
 * IA32_ARCH_CAPABILITIES (MSR 0x10a, SDM Vol. 4 table 2-2): RDCL_NO SKIP_L1DFL_VMENTRY SSB_NO MDS_NO IF_PSCHANGE_MC_NO TAA_NO SBDR_SSDP_NO FBSDP_NO PSDP_NO
 * BHI_NO PBRSB_NO GDS_NO RFDS_NO ITS_NO.
 */
export const ARCH_CAPABILITIES = [0, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62].reduce((word, bit) => word | 1n << BigInt(bit), 0n);

type Regs = readonly [eax: number, ebx: number, ecx: number, edx: number];
const NOTHING: Regs = [0, 0, 0, 0];
type Leaf = (v: Vcpu, sub: number) => Regs;

const LEAVES: Readonly<Record<number, Leaf>> = {
  0x0: () => [MAX_BASIC, str("Genu", 0), str("ntel", 0), str("ineI", 0)],
  0x1: (v) => [SIGNATURE, (apicId(v.id) << 24 | Math.min(255, v.domain.nrVcpus) << 16 | 8 << 8) >>> 0, L1_ECX, (L1_EDX | (v.domain.nrVcpus > 1 ? 1 << 28 : 0)) >>> 0],
  0x2: () => [0xff01, 0, 0, 0], /* leaf 4 has it */
  0x4: (v, sub) => cache(v, sub),
  0x6: () => [bits(2), 0, 0, 0], /* ARAT: the APIC timer runs always */
  0x7: (_v, sub) => (sub === 0 ? [2, L7_EBX, L7_ECX, L7_EDX] : sub === 2 ? [0, 0, 0, L72_EDX] : NOTHING),
  0xb: (v, sub) => topology(v, sub),
  /* x87 and SSE, standard form only */
  0xd: (_v, sub) => (sub === 0 ? [3, XSAVE_BYTES, XSAVE_BYTES, 0] : NOTHING),
  /* the processor's MHz, or Linux would measure them by a PIT that is not there, 50 ms long */
  0x16: () => [Math.round(TSC_KHZ / 1000), Math.round(TSC_KHZ / 1000), 0, 0],
  0x80000000: () => [MAX_EXTENDED, 0, 0, 0],
  0x80000001: () => [SIGNATURE, 0, X1_ECX, X1_EDX],
  0x80000002: () => brand(0), 0x80000003: () => brand(16), 0x80000004: () => brand(32),
  0x80000006: () => [0, 0, L2_KIB << 16 | 8 << 12 | CACHE_LINE, 0], /* 16 ways */
  0x80000007: () => [0, 0, 0, bits(8)], /* the TSC never changes its pace */
  0x80000008: (v) => [PHYSICAL_ADDRESS_BITS | 48 << 8, X8_EBX, (v.domain.nrVcpus - 1) | 8 << 12, 0],
  0x80000021: () => [X21_EAX, 0, X21_ECX, 0],
  [XEN_CPUID_FIRST_LEAF]: () => [MAX_XEN, XEN_CPUID_SIGNATURE.EBX, XEN_CPUID_SIGNATURE.ECX, XEN_CPUID_SIGNATURE.EDX],
  [XEN_CPUID_FIRST_LEAF + XEN_CPUID_LEAF.version]: () => [XEN_MAJOR << 16 | XEN_MINOR, 0, 0, 0],
  [XEN_CPUID_FIRST_LEAF + XEN_CPUID_LEAF.hypercall]: () => [1, XEN_HYPERCALL_MSR, 0, 0],
  /* default mode, not emulated, the host's TSC reliable, RDTSCP there */
  [XEN_CPUID_FIRST_LEAF + XEN_CPUID_LEAF.tsc]: (_v, sub) =>
    (sub === 0 ? [6, 0, TSC_KHZ, 0] : sub === 1 ? [0, 0, TSC_TO_SYSTEM_MUL, TSC_SHIFT] : sub === 2 ? [TSC_KHZ, 0, 0, 0] : NOTHING),
  /* UPCALL_VECTOR is kept back though set_evtchn_upcall_vector works: a kernel then takes the callback vector, which needs no EOI */
  [XEN_CPUID_FIRST_LEAF + XEN_CPUID_LEAF.hvm]: (v) => [XEN_HVM_CPUID.VCPU_ID_PRESENT | XEN_HVM_CPUID.DOMID_PRESENT, v.id, v.domain.domid, 0],
};
const brand = (at: number): Regs => [str(BRAND, at), str(BRAND, at + 4), str(BRAND, at + 8), str(BRAND, at + 12)];
const CACHE_LINE = 64, L2_KIB = 2048;
/** Type (1 data, 2 code, 3 both), level, KiB, ways; whether all vCPUs share it. The last is as large as what is copied at once may be before glibc goes past the cache. */
const CACHES = [[1, 1, 32, 8, false], [2, 1, 32, 8, false], [3, 2, L2_KIB, 16, false], [3, 3, 65536, 16, true]] as const;
/** Deterministic cache parameters. */
function cache(v: Vcpu, sub: number): Regs {
  const c = CACHES[sub];
  if (!c) return NOTHING;
  const [type, level, kib, ways, isShared] = c, ids = 1 << packageShift(v.domain.nrVcpus);
  return [(ids / 2 - 1) << 26 | (isShared ? ids - 1 : 1) << 14 | 1 << 8 | level << 5 | type, (ways - 1) << 22 | (CACHE_LINE - 1), kib * 1024 / CACHE_LINE / ways - 1, 0];
}
/** Bits of an APIC id that tell vCPUs of a package apart: the ids are two apart. */
const packageShift = (nrVcpus: number): number => 32 - Math.clz32(Math.max(1, 2 * nrVcpus - 1));
/** Extended topology: one thread a core, APIC ids two apart, all in one package. */
function topology(v: Vcpu, sub: number): Regs {
  const n = v.domain.nrVcpus, id = apicId(v.id);
  if (sub === 0) return [1, 1, 1 << 8, id];
  if (sub === 1) return [packageShift(n), n, 2 << 8 | 1, id];
  return [0, 0, sub & 0xff, id];
}
/** Answer CPUID for a vCPU; a leaf that is not there is all zero. */
export function cpuid(v: Vcpu, leaf: number, subleaf: number, out: Uint32Array): void {
  out.set(LEAVES[leaf >>> 0]?.(v, subleaf >>> 0) ?? NOTHING);
}
