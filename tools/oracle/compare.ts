/** Where two results of a case differ, and a report of it that a person can work from. */
import { Decoder, DecoderOptions, Formatter, FormatterSyntax } from "iced-x86";
import { type Batch, CASE, CHANGES_MAX, CODE, FX, NO_TRAP, RESULT, TRAP_TIMEOUT, WINDOW } from "./format.ts";

export const GPR_NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const;
/** RFLAGS that are compared: arithmetic, DF, NT, AC, ID. (TF and RF come and go with the tracing and the fault; IF is the host's.) */
export const FLAGS_COMPARED = 0x244cd5;
const SS = 12, GP = 13, PF = 14;
const TASK_SIZE_MAX = 0x7ffffffff000n;

export interface Difference { readonly what: string; readonly expected: string; readonly actual: string }

const hex = (dv: DataView, at: number, size: number): string => { let s = ""; for (let i = size - 1; i >= 0; i--) s += dv.getUint8(at + i).toString(16).padStart(2, "0"); return s; };
const flagNames = (v: number): string => ([["CF", 1], ["PF", 4], ["AF", 0x10], ["ZF", 0x40], ["SF", 0x80], ["DF", 0x400], ["OF", 0x800], ["NT", 0x4000], ["AC", 0x40000], ["ID", 0x200000]] as const).filter(([, b]) => v & b).map(([n]) => n).join(" ") || "-";
export const trapName = (t: number): string => t === NO_TRAP ? "no fault" : t === TRAP_TIMEOUT ? "endless" : `#${["DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "9", "TS", "NP", "SS", "GP", "PF", "15", "MF", "AC", "MC", "XM"][t] ?? t}`;

/** Compare case `i`; an empty list when they agree. */
export function differences(b: Batch, i: number, expected: DataView, actual: DataView, all = true): Difference[] {
  const at = i * RESULT.sizeof, out: Difference[] = [], leeway = b.leeway[i]!;
  const word = (what: string, o: number): void => {
    if (expected.getUint32(at + o, true) !== actual.getUint32(at + o, true) || expected.getUint32(at + o + 4, true) !== actual.getUint32(at + o + 4, true)) out.push({ what, expected: hex(expected, at + o, 8), actual: hex(actual, at + o, 8) });
  };
  const trap = expected.getUint32(at, true), trapGot = actual.getUint32(at, true);
  // a flat segment's end at 4 GiB may or may not be checked (SDM Vol. 3A 5.3)
  if (CASE.compat.get(b.dv, b.at(i)) && trap === PF && (trapGot === GP || trapGot === SS) && RESULT.cr2.get(expected, at) >= 0xffffff00n) return [];
  if (trap !== trapGot) out.push({ what: "fault", expected: trapName(trap), actual: trapName(trapGot) });
  else if (trap === PF && leeway.cr2) {
    // addresses of the host's kernel half are reported by the host as it likes
    if (expected.getUint16(at + RESULT.cr2.at + 6, true) === 0) {
      word("cr2", RESULT.cr2.at);
      // Linux calls the last page below that half protected rather than not present (sanitize_error_code)
      if (RESULT.cr2.get(expected, at) < TASK_SIZE_MAX && expected.getUint32(at + 4, true) !== actual.getUint32(at + 4, true)) out.push({ what: "error code", expected: hex(expected, at + 4, 4), actual: hex(actual, at + 4, 4) });
    }
  }
  if (trap === TRAP_TIMEOUT) return out;
  word("rip", RESULT.rip.at);
  for (let g = 0; g < 16; g++) {
    const o = RESULT.gpr.at + 8 * g;
    if ((leeway.gprs | (trap === NO_TRAP ? 0 : leeway.gprsAtFault)) & (1 << g) || leeway.gprsLow & (1 << g) && expected.getUint32(at + o, true) === actual.getUint32(at + o, true)) continue;
    word(GPR_NAMES[g]!, o);
  }
  const mask = FLAGS_COMPARED & ~(leeway.flags | (trap === NO_TRAP ? 0 : leeway.flagsAtFault)), f = expected.getUint32(at + RESULT.rflags.at, true) & mask, g = actual.getUint32(at + RESULT.rflags.at, true) & mask;
  if (f !== g) out.push({ what: "flags", expected: flagNames(f), actual: flagNames(g) });
  if (!all && out.length) return out;
  fxDifferences(b, i, expected, actual, out);
  if (leeway.memory && (trap === NO_TRAP || leeway.memoryAtFault) && (expected.getUint32(at + RESULT.nrChanges.at, true) !== actual.getUint32(at + RESULT.nrChanges.at, true) || expected.getUint32(at + RESULT.hash.at, true) !== actual.getUint32(at + RESULT.hash.at, true))) {
    out.push({ what: "memory", expected: changes(expected, at), actual: changes(actual, at) });
  }
  return out;
}

function fxDifferences(b: Batch, i: number, expected: DataView, actual: DataView, out: Difference[]): void {
  const at = i * RESULT.sizeof + RESULT.fx.at, leeway = b.leeway[i]!;
  const field = (what: string, o: number, size: number, mask = -1): void => {
    const get = (v: DataView): number => (size === 1 ? v.getUint8(at + o) : size === 2 ? v.getUint16(at + o, true) : v.getUint32(at + o, true)) & mask;
    if (get(expected) !== get(actual)) out.push({ what, expected: get(expected).toString(16), actual: get(actual).toString(16) });
  };
  field("fcw", FX.fcw, 2);
  field("fsw", FX.fsw, 2, ~leeway.fsw);
  field("ftw (a bit a full register)", FX.ftw, 1);
  field("mxcsr", FX.mxcsr, 4);
  for (let s = 0; s < 8; s++) {
    const o = FX.st + 16 * s;
    if (expected.getUint32(at + o, true) === actual.getUint32(at + o, true) && expected.getUint32(at + o + 4, true) === actual.getUint32(at + o + 4, true) && expected.getUint16(at + o + 8, true) === actual.getUint16(at + o + 8, true)) continue;
    if (leeway.ulps && withinUlps(expected, actual, at + o, leeway.ulps)) continue;
    out.push({ what: `st${s}`, expected: hex(expected, at + o, 10), actual: hex(actual, at + o, 10) });
  }
  for (let x = 0; x < 16; x++) for (let o = FX.xmm + 16 * x, k = 0; k < 16; k += 4) {
    if (expected.getUint32(at + o + k, true) === actual.getUint32(at + o + k, true)) continue;
    out.push({ what: `xmm${x}`, expected: hex(expected, at + o, 16), actual: hex(actual, at + o, 16) });
    break;
  }
}
/** Distance in units of the last place, across powers of two as well. */
function withinUlps(a: DataView, b: DataView, at: number, ulps: number): boolean {
  const order = (v: DataView): bigint => BigInt(v.getUint16(at + 8, true) & 0x7fff) * 2n ** 63n + BigInt.asUintN(63, v.getBigUint64(at, true));
  const d = order(a) - order(b);
  return a.getUint16(at + 8, true) >> 15 === b.getUint16(at + 8, true) >> 15 && (d < 0n ? -d : d) <= BigInt(ulps);
}
function changes(dv: DataView, at: number): string {
  const n = dv.getUint32(at + RESULT.nrChanges.at, true), list: string[] = [];
  for (let k = 0; k < Math.min(n, CHANGES_MAX, 6); k++) list.push(`[${(WINDOW + 8 * dv.getUint16(at + RESULT.index.at + 2 * k, true)).toString(16)}]=${hex(dv, at + RESULT.value.at + 8 * k, 8)}`);
  return `${n} words ${list.join(" ")}${n > 6 ? " ..." : ""}`;
}

/** Bytes and text of a stretch of 64-bit code. */
export function disassemble(code: Uint8Array, rip: number | bigint, bits = 64): { rip: bigint; len: number; text: string; bytes: string }[] {
  const d = new Decoder(bits, code, DecoderOptions.None), f = new Formatter(FormatterSyntax.Intel), lines = [];
  d.ip = BigInt(rip);
  while (d.canDecode) {
    const at = d.position, i = d.decode();
    lines.push({ rip: i.ip, len: i.length, text: f.format(i), bytes: [...code.subarray(at, at + i.length)].map((x) => x.toString(16).padStart(2, "0")).join(" ") });
    i.free();
  }
  d.free(); f.free();
  return lines;
}

/** Code, inputs, and what differs. */
export function report(b: Batch, i: number, diffs: readonly Difference[], expected: DataView, subjects: readonly [string, string]): string {
  const at = b.at(i), dv = b.dv, lines: string[] = [`${b.names[i]}`];
  for (const l of disassemble(b.code(i), CODE + CASE.codeOffset.get(dv, at), CASE.compat.get(dv, at) ? 32 : 64)) lines.push(`  ${l.rip.toString(16)}  ${l.bytes.padEnd(32)} ${l.text}`);
  lines.push("before:");
  for (let g = 0; g < 16; g += 4) lines.push("  " + [0, 1, 2, 3].map((k) => `${GPR_NAMES[g + k]!.padEnd(3)} ${hex(dv, at + CASE.gpr.at + 8 * (g + k), 8)}`).join("  "));
  lines.push(`  flags ${flagNames(dv.getUint32(at + CASE.rflags.at, true))}   mxcsr ${hex(dv, at + CASE.fx.at + FX.mxcsr, 4)} fcw ${hex(dv, at + CASE.fx.at + FX.fcw, 2)} fsw ${hex(dv, at + CASE.fx.at + FX.fsw, 2)} ftw ${hex(dv, at + CASE.fx.at + FX.ftw, 1)}`);
  if (/xmm/.test(lines.join())) for (let x = 0; x < 16; x++) if (new RegExp(`xmm${x}\\b`).test(lines.join())) lines.push(`  xmm${x} ${hex(dv, at + CASE.fx.at + FX.xmm + 16 * x, 16)}`);
  if (isX87(b.code(i))) for (let s = 0; s < 8; s++) lines.push(`  st${s} ${hex(dv, at + CASE.fx.at + FX.st + 16 * s, 10)}`);
  const patch = CASE.patchLen.get(dv, at);
  if (patch) lines.push(`  [${(WINDOW + CASE.patchOffset.get(dv, at)).toString(16)}] ${[...b.bytes.subarray(at + CASE.patch.at, at + CASE.patch.at + patch)].map((x) => x.toString(16).padStart(2, "0")).join(" ")}`);
  const t = expected.getUint32(i * RESULT.sizeof, true);
  lines.push(`after (${t === NO_TRAP ? "no fault" : `${trapName(t)} at ${hex(expected, i * RESULT.sizeof + RESULT.rip.at, 8)}`}):`);
  for (const d of diffs) lines.push(`  ${d.what.padEnd(8)} ${subjects[0]} ${d.expected}\n  ${"".padEnd(8)} ${subjects[1]} ${d.actual}`);
  return lines.join("\n");
}
const isX87 = (code: Uint8Array): boolean => disassemble(code, 0).some((l) => /^(f|wait)|\bmm\d|emms/.test(l.text));
