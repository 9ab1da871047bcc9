/**
 * The instructions under test: every 64-bit user-mode form of an x86-64-v2 processor, taken from iced-x86's tables as
 * encoding strings ("o16 0F BA /4 ib") and parsed into something an encoder can fill with random operands.
 */
import { Code, CodeExt, CpuidFeature, EncodingKind, Instruction, MemorySizeExt, Mnemonic, OpCodeOperandKind as K, RflagsBits } from "iced-x86";

export type FormClass = "integer" | "sse" | "x87";
export interface Form {
  readonly name: string;
  readonly mnemonic: string;
  readonly cls: FormClass;
  /** 0x66 as operand size or mandatory prefix; F2 or F3 as mandatory prefix (0: none); 0x9b first */
  readonly p66: boolean; readonly mandatory: number; readonly wait: boolean;
  readonly rexW: boolean; readonly a32: boolean;
  readonly opcode: readonly number[];
  /** The last opcode byte takes a register number: in REX.B's reach, or an x87 stack index. */
  readonly plus: "" | "reg" | "sti";
  /** ModRM: none, or its reg field: -1 any (/r), 0-7 */
  readonly modrm: number | null;
  readonly allowMem: boolean; readonly allowReg: boolean;
  /** Sizes in bytes of the immediates; `rel` is the size of a branch displacement; `moffs` an 8-byte address */
  readonly imms: readonly number[]; readonly rel: number; readonly moffs: boolean;
  readonly lockable: boolean;
  /** NP, or a prefix that selects another instruction is possible: add no prefixes of one's own */
  readonly strict: boolean;
  readonly memBytes: number;
  /** The r/m operand's and the reg operand's kind: 8-bit registers need no REX for AH..BH */
  readonly byteRegs: boolean;
  /** A 16-byte memory operand that must be aligned */
  readonly aligned: boolean;
  /** Undefined, read and written RFLAGS as bit masks; undefined x87 condition codes in the status word */
  readonly undef: number; readonly reads: number; readonly writes: number; readonly fswUndef: number;
  readonly shift: "" | "shl" | "shr" | "sar" | "rol" | "rcl" | "shld";
  readonly opSize: number;
  readonly countBy: "" | "imm" | "cl" | "one";
}

const FEATURES = new Set([CpuidFeature.INTEL8086, CpuidFeature.INTEL186, CpuidFeature.INTEL286, CpuidFeature.INTEL386, CpuidFeature.INTEL486, CpuidFeature.X64, CpuidFeature.CMOV,
  CpuidFeature.CX8, CpuidFeature.CMPXCHG16B, CpuidFeature.MMX, CpuidFeature.SSE, CpuidFeature.SSE2, CpuidFeature.SSE3, CpuidFeature.SSSE3, CpuidFeature.SSE4_1, CpuidFeature.SSE4_2,
  CpuidFeature.POPCNT, CpuidFeature.MOVBE, CpuidFeature.FPU, CpuidFeature.FPU287, CpuidFeature.FPU387, CpuidFeature.FXSR, CpuidFeature.CLFSH, CpuidFeature.PAUSE, CpuidFeature.MULTIBYTENOP]);
/** They reach beyond a user-mode state (segments, ports, system tables), or give what a processor is free to give (approximations). */
const EXCLUDED = new RegExp(`^(In|Out|Ins|Outs|Cli|Sti|Hlt|Clts|Invd|Wbinvd|Invlpg|Swapgs|Lgdt|Lidt|Sgdt|Sidt|Sldt|Str|Lldt|Ltr|Verr|Verw|Smsw|Lmsw|Lar|Lsl|Int|Int1|Iret|Retf|Lss|Lfs|Lgs|
Ud0|Ud1|Rcpps|Rcpss|Rsqrtps|Rsqrtss|Fneni|Feni|Fndisi|Fdisi|Fnsetpm|Fsetpm|Cpuid|Rdtsc|Prefetchreserved|Insb|Insw|Insd|Outsb|Outsw|Outsd|Iretw|Iretd|Iretq|Retfw|Retfd|Retfq|Reservednop)$`.replaceAll("\n", ""));
const EXCLUDED_CODE = /_(Sreg|cr|dr|FS|GS)$|Sreg_|_cr_|_dr_|_m16(16|32|64)$|^Mov_[cd]r_|rel(8|16|32)_16|^(Call|Jmp)_(rm16|rel16)|^Retnw|^Xchg_r64_RAX$|_(ES|CS|SS|DS)$|^L[de]s_|m16(16|32)$|ptr16|^Salc|^Reservednop/;

/** RflagsBits to RFLAGS positions, and the x87 conditions to status word positions. */
const FLAG: readonly (readonly [number, number])[] = [[RflagsBits.OF, 0x800], [RflagsBits.SF, 0x80], [RflagsBits.ZF, 0x40], [RflagsBits.AF, 0x10], [RflagsBits.CF, 1], [RflagsBits.PF, 4], [RflagsBits.DF, 0x400]];
const CONDITION: readonly (readonly [number, number])[] = [[RflagsBits.C0, 0x100], [RflagsBits.C1, 0x200], [RflagsBits.C2, 0x400], [RflagsBits.C3, 0x4000]];
const map = (bits: number, table: readonly (readonly [number, number])[]): number => table.reduce((m, [from, to]) => (bits & from ? m | to : m), 0);

const MEM_ONLY = new Set<number>([K.mem]);
const OR_MEM = new Set<number>([K.r8_or_mem, K.r16_or_mem, K.r32_or_mem, K.r64_or_mem, K.mm_or_mem, K.xmm_or_mem]);
const SHIFTS: Readonly<Record<string, Form["shift"]>> = { Shl: "shl", Sal: "shl", Shr: "shr", Sar: "sar", Rol: "rol", Ror: "rol", Rcl: "rcl", Rcr: "rcl", Shld: "shld", Shrd: "shld" };

function parse(name: string, code: Code, bits: 32 | 64): Form | null {
  const op = CodeExt.opCode(code), insn = new Instruction();
  try {
    if ((bits === 64 ? !op.mode64 || !op.intelDecoder64 : !op.mode32 || !op.intelDecoder32 || !op.compatibilityMode) || op.encoding !== EncodingKind.Legacy || !op.isInstruction || op.mustBeCpl0 || !op.cpl3) return null;
    insn.code = code;
    const features = [...insn.cpuidFeatures()], mnemonic = Mnemonic[op.mnemonic]!;
    if (!features.every((f) => FEATURES.has(f)) || EXCLUDED.test(mnemonic) || EXCLUDED_CODE.test(name)) return null;
    let p66 = false, mandatory = 0, wait = false, rexW = false, a32 = false, strict = false, modrm: number | null = null, rel = 0, moffs = false, plus: Form["plus"] = "";
    const opcode: number[] = [], imms: number[] = [];
    for (const t of op.opCodeString.split(" ")) {
      let m: RegExpMatchArray | null;
      if (t === "o16") p66 = true;
      else if (t === "o32" || t === "a64" || (t === "a32" && bits === 32)) continue;
      else if (t === "a16") a32 = true;
      else if (t === "o64") rexW = !op.defaultOpSize64 && !op.forceOpSize64;
      else if (t === "a32") a32 = true;
      else if (t === "NP") strict = true;
      else if ((t === "66" || t === "F2" || t === "F3") && opcode.length === 0) { strict = true; if (t === "66") p66 = true; else mandatory = Number.parseInt(t, 16); }
      else if (t === "9B" && opcode.length === 0 && mnemonic !== "Wait") wait = true;
      else if ((m = /^([0-9A-F]{2})(\+r[bwdo]|\+i)?$/.exec(t))) { opcode.push(Number.parseInt(m[1]!, 16)); if (m[2]) plus = m[2] === "+i" ? "sti" : "reg"; }
      else if ((m = /^\/([r0-7])$/.exec(t))) modrm = m[1] === "r" ? -1 : Number(m[1]);
      else if ((m = /^i([bwdo])$/.exec(t))) imms.push({ b: 1, w: 2, d: 4, o: 8 }[m[1]!]!);
      else if ((m = /^c([bwd])$/.exec(t))) rel = { b: 1, w: 2, d: 4 }[m[1]!]!;
      else if (t === "mo") moffs = true;
      else throw new Error(`unknown token "${t}" in "${op.opCodeString}"`);
    }
    const kinds = Array.from({ length: op.opCount }, (_, i) => op.opKind(i));
    const hasMem = kinds.some((k) => MEM_ONLY.has(k)), orMem = kinds.some((k) => OR_MEM.has(k));
    const cls: FormClass = features.some((f) => f === CpuidFeature.FPU || f === CpuidFeature.FPU287 || f === CpuidFeature.FPU387) ? "x87"
      : features.some((f) => [CpuidFeature.MMX, CpuidFeature.SSE, CpuidFeature.SSE2, CpuidFeature.SSE3, CpuidFeature.SSSE3, CpuidFeature.SSE4_1, CpuidFeature.SSE4_2, CpuidFeature.FXSR].includes(f)) && !/^(Crc32|Movnti|[LMS]fence|Prefetch)/.test(mnemonic) ? "sse" : "integer";
    const memBytes = Math.max(MemorySizeExt.size(op.memorySize), /^Fx(save|rstor)/.test(mnemonic) ? 512 : 0);
    const undef = insn.rflagsUndefined;
    return {
      name, mnemonic, cls, p66, mandatory, wait, rexW, a32, opcode, plus, modrm, imms, rel, moffs, memBytes,
      strict: strict || opcode[0] === 0x0f || (opcode[0] === 0x90), lockable: op.canUseLockPrefix,
      allowMem: modrm !== null && (hasMem || orMem), allowReg: modrm !== null && !hasMem,
      byteRegs: kinds.some((k) => k === K.r8_or_mem || k === K.r8_reg || k === K.r8_opcode),
      aligned: memBytes === 16 && cls === "sse" && !/^(Movup|Movdqu|Lddqu|Pcmp[ei]str)/.test(mnemonic) || memBytes === 512 || mnemonic === "Cmpxchg16b",
      undef: map(undef, FLAG), fswUndef: map(undef, CONDITION), reads: map(insn.rflagsRead, FLAG), writes: map(insn.rflagsWritten | insn.rflagsCleared | insn.rflagsSet | undef, FLAG),
      shift: SHIFTS[mnemonic] ?? "", opSize: rexW ? 8 : p66 ? 2 : /rm8/.test(name) ? 1 : 4,
      countBy: !SHIFTS[mnemonic] ? "" : /_CL$/.test(name) ? "cl" : /_1$/.test(name) ? "one" : "imm",
    };
  } finally { insn.free(); op.free(); }
}

/** Encodings that are no instruction: #UD, and before any look at memory. [opcode bytes, ModRM reg or -1 for none, "m" or "r" or ""] */
const RESERVED: readonly (readonly [string, number, "m" | "r" | ""])[] = [
  ["d9", 1, "m"], ["db", 4, "m"], ["db", 6, "m"], ["dd", 5, "m"], ["d9d1", -1, ""], ["d9d7", -1, ""], ["d9e2", -1, ""], ["d9e6", -1, ""], ["d9ef", -1, ""], ["dae0", -1, ""], ["dae8", -1, ""], ["daea", -1, ""],
  ["daf8", -1, ""], ["dbe5", -1, ""], ["dbe7", -1, ""], ["dbf8", -1, ""], ["ddf0", -1, ""], ["ddf8", -1, ""], ["ded8", -1, ""], ["deda", -1, ""], ["dfe1", -1, ""], ["dff8", -1, ""],
  ["06", -1, ""], ["0e", -1, ""], ["16", -1, ""], ["1e", -1, ""], ["1f", -1, ""], ["27", -1, ""], ["2f", -1, ""], ["37", -1, ""], ["3f", -1, ""], ["60", -1, ""], ["61", -1, ""], ["82", 0, "r"], ["9a", -1, ""], ["ce", -1, ""],
  ["d4", -1, ""], ["d5", -1, ""], ["d6", -1, ""], ["ea", -1, ""], ["0f04", -1, ""], ["0f0a", -1, ""], ["0f0c", -1, ""], ["0f24", -1, ""], ["0f26", -1, ""], ["0f36", -1, ""], ["0f39", -1, ""], ["0f3b", -1, ""],
  ["c6", 1, "r"], ["c7", 2, "r"], ["fe", 2, "r"], ["fe", 7, "m"], ["ff", 7, "r"], ["ff", 7, "m"], ["ff", 3, "r"], ["ff", 5, "r"], ["8d", 2, "r"], ["0fba", 0, "r"], ["0fba", 3, "m"], ["0fc7", 1, "r"], ["0fc7", 2, "m"],
  ["0f71", 1, "r"], ["0f72", 3, "r"], ["0f73", 4, "r"], ["0f71", 2, "m"], ["0fae", 2, "r"],
];
const reserved = ([bytes, reg, mod]: (typeof RESERVED)[number]): Form => ({
  name: `Reserved_${bytes}${reg < 0 ? "" : `_${reg}${mod}`}`, mnemonic: "Reserved", cls: /^d[89a-f]/.test(bytes) ? "x87" : /^0f7|^0fae/.test(bytes) ? "sse" : "integer", p66: false, mandatory: 0, wait: false, rexW: false, a32: false,
  opcode: bytes.match(/../g)!.map((b) => Number.parseInt(b, 16)), plus: "", modrm: reg < 0 ? null : reg, allowMem: mod === "m", allowReg: mod === "r", imms: [], rel: 0, moffs: false, lockable: false, strict: true,
  memBytes: 4, byteRegs: false, aligned: false, undef: 0, reads: 0, writes: 0, fswUndef: 0, shift: "", opSize: 4, countBy: "",
});

/** Address-size prefix: a32 holds for either mode's other size. All forms, in the order of iced-x86's table; then what is none. */
export function loadForms(bits: 32 | 64 = 64): Form[] {
  const forms: Form[] = [];
  for (const [name, code] of Object.entries(Code)) {
    if (typeof code !== "number") continue;
    const form = parse(name, code, bits);
    if (form) forms.push(form);
  }
  return bits === 64 ? [...forms, ...RESERVED.map(reserved)] : forms;
}
