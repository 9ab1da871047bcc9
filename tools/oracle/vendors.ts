/**
 * Where processors of two vendors differ and both are right. Our engine does what Intel's do; a row says what another vendor's
 * does, and on such a host that part of the state is left out of the comparison. On Intel no row counts.
 */
import { Code, Decoder, DecoderOptions, Instruction, Register } from "iced-x86";
import { type Difference, FLAGS_COMPARED, GPR_NAMES } from "./compare.ts";
import { type Batch, CASE, CODE, FX, NO_TRAP, RESULT } from "./format.ts";

/** A case that differs, seen from one of its instructions: the one at which the processor has faulted, or one that has run. */
interface Sight {
  readonly expected: DataView; readonly actual: DataView;
  /** Offset of the case's result in both */
  readonly at: number;
  readonly insn: Instruction;
}
/** Part of the state that a row leaves out: does it cover this difference, as it is? */
type Part = (s: Sight, d: Difference) => boolean;

const ARITH = 0x8d5, TOP = 0x3800, ERROR_SUMMARY = 0x8080, C1 = 0x200, EXCEPTIONS = 0x7f, UE = 0x10, PE = 0x20, MXCSR_MM = 0x20000;
const trap = (dv: DataView, s: Sight): number => dv.getUint32(s.at + RESULT.trap.at, true);
const status = (dv: DataView, s: Sight): number => dv.getUint16(s.at + RESULT.fx.at + FX.fsw, true);
const statusWithin = (s: Sight, d: Difference, mask: number): boolean => d.what === "fsw" && ((status(s.expected, s) ^ status(s.actual, s)) & ~mask) === 0;
const stAt = (s: Sight, r: number): number => s.at + RESULT.fx.at + FX.st + 16 * r;

const flags = (mask: number): Part => (s, d) => d.what === "flags" && ((s.expected.getUint32(s.at + RESULT.rflags.at, true) ^ s.actual.getUint32(s.at + RESULT.rflags.at, true)) & FLAGS_COMPARED & ~mask) === 0;

/** TOP, and with it the names of x87 registers: they hold the same in both. */
const top: Part = (s, d) => statusWithin(s, d, TOP) || /^st\d$/.test(d.what) && [0, 1, 2, 3, 4, 5, 6, 7].every((r) => {
  const a = stAt(s, r - (status(s.expected, s) >> 11) & 7), b = stAt(s, r - (status(s.actual, s) >> 11) & 7);
  return s.expected.getBigUint64(a, true) === s.actual.getBigUint64(b, true) && s.expected.getUint16(a + 8, true) === s.actual.getUint16(b + 8, true);
});

/** The processor has faulted over memory; we have gone on with an x87 exception pending and nothing done. */
const pending: Part = (s, d) => trap(s.actual, s) === NO_TRAP && (status(s.actual, s) & ERROR_SUMMARY) === ERROR_SUMMARY && (d.what === "fault" || d.what === "rip" || statusWithin(s, d, ERROR_SUMMARY | C1 | EXCEPTIONS));

/** The processor has faulted over memory that we do not touch, and we have written the destination. */
const fault: Part = (s, d) => trap(s.actual, s) === NO_TRAP && (d.what === "fault" || d.what === "rip" || d.what === GPR_NAMES[s.insn.op0Register - Register.AX]);

/** Equal lanes of `size` bytes, or two quiet NaNs of whatever sign and payload, in 16 bytes. */
export function sameOrNaN(size: 4 | 8, a: DataView, aAt: number, b: DataView, bAt: number): boolean {
  const quiet = (dv: DataView, at: number): boolean => (dv.getUint32(at + size - 4, true) & 0x7fffffff) >= (size === 4 ? 0x7fc00000 : 0x7ff80000);
  for (let k = 0; k < 16; k += size) {
    const same = a.getUint32(aAt + k, true) === b.getUint32(bAt + k, true) && (size === 4 || a.getUint32(aAt + k + 4, true) === b.getUint32(bAt + k + 4, true));
    if (!same && !(quiet(a, aAt + k) && quiet(b, bAt + k))) return false;
  }
  return true;
}
/** Sign and payload of NaNs in the destination. */
const payload = (size: 4 | 8): Part => (s, d) => {
  const x = s.insn.op0Register - Register.XMM0, o = s.at + RESULT.fx.at + FX.xmm + 16 * x;
  return d.what === `xmm${x}` && sameOrNaN(size, s.expected, o, s.actual, o);
};

/** UE of a result that is the smallest normal number, and the scaled result when underflow is not masked. */
const tiny: Part = (s, d) => {
  const smallest = (r: number): boolean => (s.actual.getUint16(stAt(s, r) + 8, true) & 0x7fff) === 1 && s.actual.getBigUint64(stAt(s, r), true) === 1n << 63n;
  if (!(status(s.expected, s) & UE)) return false;
  return /^st[01]$/.test(d.what) ? smallest(Number(d.what[2])) : (smallest(0) || smallest(1)) && statusWithin(s, d, UE | PE | ERROR_SUMMARY | C1);
};

/** MXCSR has been loaded with the bit, and whatever else is loaded with it; we have faulted. */
const mxcsrBit: Part = (s, d) => trap(s.actual, s) !== NO_TRAP && (s.expected.getUint32(s.at + RESULT.fx.at + FX.mxcsr, true) & MXCSR_MM) !== 0 && /^(fault|rip|mxcsr|fcw|fsw|ftw\b.*|st\d|xmm\d+)$/.test(d.what);

export interface VendorRow {
  /** What CPUID leaf 0 says the host is */
  readonly vendor: string;
  /** The forms, by iced-x86's names */
  readonly forms: RegExp;
  /** The instruction counts when the processor has faulted at it, or when it has run */
  readonly when: "faulted" | "ran";
  readonly part: Part;
  /** Size of the lanes in which NaNs may differ, for tests with comparisons of their own */
  readonly lanes?: 4 | 8;
  /** The part in words, and why both vendors are right */
  readonly what: string; readonly why: string;
}

const AMD = "AuthenticAMD";
/** Every known difference. */
export const VENDOR_ROWS: readonly VendorRow[] = [
  { vendor: AMD, forms: /^(Cmps|Scas)[bwdq]_/, when: "faulted", part: flags(ARITH), what: "arithmetic flags",
    why: "When a repeated compare faults after some iterations, AMD leaves the last comparison's flags and Intel those from before the instruction; the manuals define the flags only for the end." },
  { vendor: AMD, forms: /^Movsxd_r16_rm16$/, when: "faulted", part: fault, what: "the fault, and the destination",
    why: "With a 16-bit operand AMD reads four bytes of memory (APM Vol. 3 knows a doubleword source only) and Intel two, so at a page's end only one of them faults." },
  { vendor: AMD, forms: /^(Mov[dq]_(rm32|rm64|mmm64)_mm|Movntq_m64_mm)$/, when: "faulted", part: top, what: "TOP of the status word, and which register of the stack is which",
    why: "Intel sets TOP to zero before an MMX store touches memory, AMD with the store; after a fault the registers are the same under other names." },
  { vendor: AMD, forms: /^(Fst|Fstp|Fist|Fistp|Fisttp|Fbstp)_m\d/, when: "faulted", part: pending, what: "the fault, and exception flags of the status word",
    why: "A store that has both an unmasked x87 exception and a memory fault reports the fault on AMD and the exception on Intel; both are faults on executing an instruction, whose order SDM Vol. 3A 7.9 leaves to the processor." },
  { vendor: AMD, forms: /^Dpps_xmm_xmmm128_imm8$/, when: "ran", part: payload(4), lanes: 4, what: "sign and payload of a NaN in a lane",
    why: "With several NaNs among the products the result is the one the additions meet first, and their order and operands' order are not specified (SDM Vol. 2, DPPS)." },
  { vendor: AMD, forms: /^Dppd_xmm_xmmm128_imm8$/, when: "ran", part: payload(8), lanes: 8, what: "sign and payload of a NaN in a lane",
    why: "As DPPS: which operand of the addition comes first, and so which of two NaNs is taken, is not specified." },
  { vendor: AMD, forms: /^(Fsin|Fsincos|Fpatan)$/, when: "ran", part: tiny, what: "UE, and the result under unmasked underflow",
    why: "Where rounding lifts a tiny result to the smallest normal number, AMD reports underflow and Intel does not; the accuracy of these functions is the processor's affair." },
  { vendor: AMD, forms: /^(Ldmxcsr_m32|Fxrstor(64)?_m512byte)$/, when: "ran", part: mxcsrBit, what: "the fault, and x87 and SSE state",
    why: "MXCSR bit 17 (misaligned exception mask, APM Vol. 2 11.3) exists on AMD and is reserved on Intel." },
];

/** The rows that count on a host of this vendor. */
export const rowsFor = (vendor: string): readonly VendorRow[] => VENDOR_ROWS.filter((r) => r.vendor === vendor);

/**
 * The differences of a case that no row explains. What one instruction of a sequence leaves flows on into those after it: of a
 * sequence that differs and has such an instruction before its end, nothing is compared, as with a value that the manual leaves open.
 */
export function unexplained(rows: readonly VendorRow[], b: Batch, i: number, diffs: readonly Difference[], expected: DataView, actual: DataView): readonly Difference[] {
  if (!rows.length || !diffs.length) return diffs;
  const at = i * RESULT.sizeof, origin = CODE + CASE.codeOffset.get(b.dv, b.at(i)), rip = RESULT.rip.get(expected, at), end = Number(rip) - origin;
  const fault = expected.getUint32(at, true) !== NO_TRAP, together = rip === RESULT.rip.get(actual, at), insn = new Instruction();
  const decoder = new Decoder(CASE.compat.get(b.dv, b.at(i)) ? 32 : 64, b.code(i), DecoderOptions.None);
  try {
    while (decoder.canDecode && decoder.position <= end && diffs.length) {
      const when = fault && decoder.position === end ? "faulted" : "ran";
      decoder.decodeOut(insn);
      const name = Code[insn.code] ?? "", row = rows.find((r) => r.when === when && r.forms.test(name));
      if (row) diffs = !decoder.canDecode || when === "faulted" && together ? diffs.filter((d) => !row.part({ expected, actual, at, insn }, d)) : [];
    }
    return diffs;
  } finally { decoder.free(); insn.free(); }
}
