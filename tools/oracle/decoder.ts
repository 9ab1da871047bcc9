/** Our decoder against iced-x86 on random bytes: lengths, and whether the bytes are an instruction at all. */
import { CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic, Code, OpKind, Register } from "iced-x86";
import type { Random } from "./values.ts";

/** What a decoder says about the first instruction of `bytes`. `length` counts only when `valid`. */
export interface Decoded { readonly length: number; readonly valid: boolean; readonly name?: string; /** the memory operand as memoryText writes it; left out where there is none */ readonly memory?: string }
export type DecodeLength = (bytes: Uint8Array, bits: 16 | 32 | 64) => Decoded;
export interface DecoderDisagreement { readonly bits: 16 | 32 | 64; readonly bytes: string; readonly iced: string; readonly ours: string }

const SUPPORTED = new Set<number>(["INTEL8086", "INTEL186", "INTEL286", "INTEL386", "INTEL486", "X64", "CMOV", "CX8", "CMPXCHG16B", "CPUID", "MMX", "SSE", "SSE2", "SSE3", "SSSE3", "SSE4_1", "SSE4_2", "POPCNT", "MOVBE", "FPU", "FPU287",
  "FPU387", "FXSR", "CLFSH", "PAUSE", "MULTIBYTENOP", "MSR", "TSC", "RDTSCP", "SYSCALL", "SEP", "FSGSBASE", "XSAVE", "SMAP", "RDPMC", "PREFETCHW", "SERIALIZE"].map((n) => CpuidFeature[n as keyof typeof CpuidFeature]));
/** Encodings whose validity is a matter of taste: reserved hints, test registers, other vendors', prefixes that change nothing. */
const TASTE = /Reservednop|Ud[012]|Feni|Fneni|Fdisi|Fndisi|Fsetpm|Fnsetpm|_tr|Loadall|Salc|Umov|Prefetch|Storeall|Cl1invmb|Xbts|Ibts|Cmpxchg486|Int1|Getsec|Rdpmc|Xgetbv|Xsetbv|Xsave|Xrstor|Sysret|Syscall|Rdtscp/;

/** A memory operand in one spelling for both decoders; the displacement is cut to the address width and left out for RIP-relative ones. */
export const memoryText = (m: { segment: string; base: string; index: string; scale: number; displacement: bigint; width: number }): string =>
  `${m.segment}:[${m.base}+${m.index}*${m.index === "" ? 1 : m.scale}+${/^[RE]IP$/.test(m.base) ? "" : BigInt.asUintN(m.width, m.displacement).toString(16)}]`;
const registerName = (r: Register): string => (r === Register.None ? "" : Register[r] ?? "?");
/** What iced-x86 makes of the memory operand; in 64-bit mode only FS and GS are named, since the others do not count. */
function icedMemory(i: Instruction, bits: number): string | undefined {
  if (!Array.from({ length: i.opCount }, (_, n) => i.opKind(n)).includes(OpKind.Memory)) return undefined;
  const base = registerName(i.memoryBase), index = registerName(i.memoryIndex), named = base || index, segment = registerName(i.memorySegment);
  const width = named === "" ? (i.memoryDisplSize === 2 ? 16 : i.memoryDisplSize === 8 ? 64 : 32) : /^(R[A-Z0-9]+|RIP)$/.test(named) && !/D$/.test(named) ? 64 : /^(E|R\d+D)/.test(named) ? 32 : 16;
  return memoryText({ segment: bits === 64 && !/^[FG]S$/.test(segment) ? "" : segment, base, index, scale: i.memoryIndexScale, displacement: i.memoryDisplacement, width });
}
export const icedDecode = (bytes: Uint8Array, bits: 16 | 32 | 64): { len: number; valid: boolean; name: string; skip: boolean; memory: string | undefined } => {
  const d = new Decoder(bits, bytes, DecoderOptions.None), i = new Instruction();
  try {
    d.decodeOut(i);
    const name = Code[i.code] ?? "?", features = [...i.cpuidFeatures()];
    return { memory: i.code === Code.INVALID ? undefined : icedMemory(i, bits), len: i.length, valid: i.code !== Code.INVALID, name: i.code === Code.INVALID ? "invalid" : name, skip: i.code !== Code.INVALID && (TASTE.test(name) || TASTE.test(Mnemonic[i.mnemonic] ?? "")) || !features.every((f) => SUPPORTED.has(f)) && i.code !== Code.INVALID };
  } finally { d.free(); i.free(); }
};

/** Random bytes that look like code: prefixes, opcode maps, ModRM with all shapes of addresses. */
export function randomInstruction(r: Random, out: Uint8Array): void {
  for (let i = 0; i < out.length; i++) out[i] = r.u32();
  let n = 0;
  while (r.one(3) && n < 4) out[n++] = r.pick([0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x66]);
  if (r.one(2)) out[n++] = 0x40 | r.below(16);
  if (r.one(2)) { out[n++] = 0x0f; if (r.one(5)) out[n++] = r.pick([0x38, 0x3a, 0x01, 0xae, 0xc7, 0x00]); }
}

/** Compare on `n` random byte strings; bytes beyond the supported set are passed over. */
export function compareDecoders(r: Random, ours: DecodeLength, n: number, bits: 16 | 32 | 64): { nrCompared: number; disagreements: Map<string, DecoderDisagreement & { count: number }> } {
  const bytes = new Uint8Array(15), disagreements = new Map<string, DecoderDisagreement & { count: number }>();
  let nrCompared = 0;
  for (let k = 0; k < n; k++) {
    randomInstruction(r, bytes);
    const iced = icedDecode(bytes, bits);
    if (iced.skip) continue;
    nrCompared++;
    const got = ours(bytes, bits);
    if (!iced.valid && got.name === "x87") continue;      // reserved x87 encodings are refused when executed: forms.ts has them
    const sameMemory = !iced.valid || iced.memory === undefined || got.memory === undefined || iced.memory === got.memory;
    if (got.valid === iced.valid && (!iced.valid || got.length === iced.len) && sameMemory) continue;
    const key = `${iced.name}|${got.valid ? got.name ?? "valid" : "invalid"}${sameMemory ? "" : "|memory"}`, seen = disagreements.get(key);
    if (seen) { seen.count++; continue; }
    disagreements.set(key, { count: 1, bits, bytes: [...bytes].map((b) => b.toString(16).padStart(2, "0")).join(" "),
      iced: iced.valid ? `${iced.name} (${iced.len} bytes, ${iced.memory ?? "no memory"})` : "invalid", ours: got.valid ? `${got.name ?? "valid"} (${got.length} bytes, ${got.memory ?? "no memory"})` : "invalid" });
  }
  return { nrCompared, disagreements };
}
