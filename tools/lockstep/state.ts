/** What must be equal in two processors: everything architectural in the CPU struct, the flags as EFLAGS, and memory. */
import { getFlags } from "../../src/x86/flags.ts";
import { CPU, SEG, gprAt, segAt, xmmAt } from "../../src/x86/state.ts";
import { GPR_NAMES } from "../oracle/compare.ts";
import type { Views } from "../../src/base/views.ts";
import type { Cpu } from "../../src/x86/cpu.ts";
import type { Box } from "./box.ts";

/** A processor's registers: where they lie, and the same as an object. */
export type Registered = { readonly v: Views; readonly cpuAt: number; readonly cpu: Cpu };
type Part = { readonly name: string; readonly at: number; readonly size: number };
const named = (...names: (keyof typeof CPU)[]): Part[] => names.map(name => { const f = CPU[name] as { at: number; size: number }; return { name, at: f.at, size: f.size }; });
const row = (nr: number, at: (i: number) => number, size: number, name: (i: number) => string): Part[] => Array.from({ length: nr }, (_, i) => ({ name: name(i), at: at(i), size }));
const PARTS: readonly Part[] = [
  ...named("rip"), ...row(16, gprAt, 8, i => GPR_NAMES[i]!),
  ...["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"].flatMap((s, i) => (["base", "limit", "sel", "attr"] as const).map(f => ({ name: `${s}.${f}`, at: segAt(i) + SEG[f].at, size: SEG[f].size }))),
  ...row(16, xmmAt, 16, i => `xmm${i}`), ...row(8, i => CPU.st.at + i * 16, 16, i => `x87 register ${i}`), ...row(8, i => CPU.dr.at + i * 8, 8, i => `dr${i}`),
  ...named("mxcsr", "fcw", "fsw", "ftw", "fop", "fcs", "fds", "fip", "fdp", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "cpl", "mode", "shadow", "halted", "spMask", "csBase", "gdtrBase", "gdtrLimit", "idtrBase", "idtrLimit",
    "star", "lstar", "cstar", "sfmask", "kernelGsBase", "sysenterCs", "sysenterEsp", "sysenterEip", "tscAux", "pat", "apicBase", "miscEnable", "mtrrDefType", "mtrrFixed", "mtrrVar", "xcr0", "tscAdjust", "delivering"),
];
/** Words of the struct to be compared; rip comes first, since it tells most. */
const WORDS = Int32Array.from(new Set(PARTS.flatMap(p => Array.from({ length: (p.at % 4 + p.size + 3) >> 2 }, (_, i) => (p.at >> 2) + i))));

export const sameRip = (a: Registered, b: Registered): boolean => { const x = a.v.i32, y = b.v.i32, at = (a.cpuAt + CPU.rip.at) >>> 2, to = (b.cpuAt + CPU.rip.at) >>> 2; return x[at] === y[to] && x[at + 1] === y[to + 1]; };
const PAGE = 4096;
const memoryOf = (m: Box, from = 0, size = m.ramBytes): Buffer => Buffer.from(m.v.buffer, m.ram + from, size);
/** Entries of page tables may differ by A: the translator looks at pages ahead, as a processor may that speculates (SDM Vol. 3A 4.8). */
const PRESENT = 1n, ACCESSED = 0x20n;
/** Offset of the first difference in two pages that is none by looking ahead, or -1. */
export function pageDifference(x: Buffer, y: Buffer): number {
  if (x.equals(y)) return -1;
  for (let at = 0; at < PAGE; at += 8) {
    const p = x.readBigUInt64LE(at), q = y.readBigUInt64LE(at);
    if (p !== q && !((p ^ q) === ACCESSED && p & PRESENT)) return at;
  }
  return -1;
}
/** The first word of guest memory (or of those pages) that differs, or -1. */
export function memoryDifference(a: Box, b: Box, pages?: ReadonlySet<number>): number {
  if (!pages && memoryOf(a).equals(memoryOf(b))) return -1;
  for (const gpa of pages ?? Array.from({ length: a.ramBytes / PAGE }, (_, i) => i * PAGE)) {
    const at = pageDifference(memoryOf(a, gpa, PAGE), memoryOf(b, gpa, PAGE));
    if (at >= 0) return gpa + at;
  }
  return -1;
}
/** Which TLB, of those for user and kernel, in the bank that it has. */
const tlbOf = ({ v, cpuAt }: Registered): number => v.i32[(cpuAt + CPU.tlb.at) >>> 2]! - v.i32[(cpuAt + CPU.bank.at) >>> 2]!;
/** How many words of the register files differ; the flags count as one. */
export function nrDifferentWords(a: Registered, b: Registered): number {
  const x = a.v.i32, y = b.v.i32, from = a.cpuAt >>> 2, to = b.cpuAt >>> 2;
  let n = getFlags(a.cpu) === getFlags(b.cpu) ? 0 : 1;
  if (tlbOf(a) !== tlbOf(b)) n++;
  for (let i = 0; i < WORDS.length; i++) if (x[from + WORDS[i]!] !== y[to + WORDS[i]!]) n++;
  return n;
}

/** A copy of the register file, to be shown later. */
export type Snapshot = { readonly bytes: Uint8Array; readonly flags: number };
export const snapshot = (m: Registered): Snapshot => ({ bytes: m.v.u8.slice(m.cpuAt, m.cpuAt + CPU.sizeof), flags: getFlags(m.cpu) });
/** Registers by name, as text. */
export type Registers = ReadonlyMap<string, string>;
const FLAG_NAMES = [[1, "CF"], [4, "PF"], [0x10, "AF"], [0x40, "ZF"], [0x80, "SF"], [0x100, "TF"], [0x200, "IF"], [0x400, "DF"], [0x800, "OF"], [0x4000, "NT"], [0x10000, "RF"], [0x40000, "AC"], [0x200000, "ID"]] as const;
export function registersOf({ bytes, flags }: Snapshot): Registers {
  const hex = (p: Part): string => [...bytes.subarray(p.at, p.at + p.size)].reverse().map(x => x.toString(16).padStart(2, "0")).join("").replace(/^0+(?=.)/, "");
  return new Map([...PARTS.map(p => [p.name, hex(p)] as const), ["flags", `${flags.toString(16)} ${FLAG_NAMES.filter(([b]) => flags & b).map(([, n]) => n).join(" ")}`.trimEnd()]]);
}
/** Names of registers that differ. */
export const differing = (a: Registers, b: Registers): string[] => [...a.keys()].filter(k => a.get(k) !== b.get(k));
