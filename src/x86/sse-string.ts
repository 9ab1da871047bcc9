/** The comparison behind PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM. SDM Vol. 2B 4.1. */
import type { Views } from "../base/views.ts";
import { EFLAGS } from "./state.ts";

/** imm8 of the string compares: SDM Vol. 2B 4.1.1 to 4.1.5. */
export const STRING = { words: 1, signed: 2, aggregation: 0xc, ranges: 4, equalEach: 8, equalOrdered: 0xc, negative: 0x10, masked: 0x20, most: 0x40 } as const;

function elements(v: Views, at: number, imm: number): number[] {
  const n = imm & STRING.words ? 8 : 16, out: number[] = [];
  for (let i = 0; i < n; i++) {
    if (imm & STRING.words) out.push(imm & STRING.signed ? v.dv.getInt16(at + 2 * i, true) : v.dv.getUint16(at + 2 * i, true));
    else out.push(imm & STRING.signed ? v.dv.getInt8(at + i) : v.dv.getUint8(at + i));
  }
  return out;
}
const untilZero = (s: readonly number[]): number => { const n = s.indexOf(0); return n < 0 ? s.length : n; };

/** IntRes1 bit j; an element past its string's end compares as the table of 4.1.6 says. */
function matches(a: readonly number[], la: number, b: readonly number[], lb: number, imm: number, j: number): boolean {
  const n = a.length;
  switch (imm & STRING.aggregation) {
    case 0: return j < lb && a.some((x, i) => i < la && x === b[j]);
    case STRING.ranges: {
      if (j >= lb) return false;
      for (let i = 0; i + 1 < la; i += 2) if (b[j]! >= a[i]! && b[j]! <= a[i + 1]!) return true;
      return false;
    }
    case STRING.equalEach: return j < la && j < lb ? a[j] === b[j] : j >= la && j >= lb;
    default:
      for (let i = 0; i < la && i + j < n; i++) if (i + j >= lb || a[i] !== b[i + j]) return false;
      return true;
  }
}

/**
 * Compare the strings at two addresses.
 * @param lengths elements of the first and second string, at most as many as fit; null: they end at a zero element
 * @returns IntRes2 and the flags
 */
export function compareStrings(v: Views, aAt: number, bAt: number, imm: number, lengths: readonly [number, number] | null): { mask: number; eflags: number } {
  const a = elements(v, aAt, imm), b = elements(v, bAt, imm), n = a.length;
  const la = Math.min(lengths ? lengths[0] : untilZero(a), n), lb = Math.min(lengths ? lengths[1] : untilZero(b), n);
  let mask = 0;
  for (let j = 0; j < n; j++) if (matches(a, la, b, lb, imm, j)) mask |= 1 << j;
  if (imm & STRING.negative) mask ^= imm & STRING.masked ? (1 << lb) - 1 : (1 << n) - 1;
  return { mask, eflags: (mask ? EFLAGS.CF : 0) | (lb < n ? EFLAGS.ZF : 0) | (la < n ? EFLAGS.SF : 0) | (mask & 1 ? EFLAGS.OF : 0) };
}
