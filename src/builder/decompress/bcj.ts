/**
 * XZ's filters that stand before LZMA2. The x86 one turns absolute branch targets back into relative ones.
 * @see "The .xz File Format" 5.3.2 and 5.3.3; the LZMA SDK's Bra86 (public domain) for which opcodes it takes for branches
 */

/** By the last three positions' opcodes: may this one be a branch, and which byte must look like a sign to rule it out. */
const ALLOWED = [true, true, true, false, true, false, false, false] as const, BIT_NUMBER = [0, 1, 2, 2, 3, 3, 3, 3] as const;
const isSign = (b: number): boolean => b === 0 || b === 0xff;

/** Undo the x86 filter in place on `b[from..to]`, a whole block. @param start the filter's start offset */
export function bcjX86(b: Uint8Array, from: number, to: number, start: number): void {
  let previous = from - 1, mask = 0;
  for (let i = from; i < to - 4; i++) {
    if (((b[i] as number) & 0xfe) !== 0xe8) continue;
    const gap = i - previous;
    previous = i;
    if (gap > 3) mask = 0;
    else {
      mask = mask << gap - 1 & 7;
      if (mask !== 0 && (!ALLOWED[mask] || isSign(b[i + 4 - (BIT_NUMBER[mask] as number)] as number))) {
        mask = mask << 1 | 1;
        continue;
      }
    }
    if (!isSign(b[i + 4] as number)) {
      mask = mask << 1 | 1;
      continue;
    }
    const next = start + i - from + 5;
    let absolute = (b[i + 1] as number) | (b[i + 2] as number) << 8 | (b[i + 3] as number) << 16 | (b[i + 4] as number) << 24, target: number;
    for (;;) {
      target = absolute - next | 0;
      if (mask === 0) break;
      const shift = (BIT_NUMBER[mask] as number) * 8;
      if (!isSign(target >>> 24 - shift & 255)) break;
      absolute = target ^ (shift === 0 ? -1 : (1 << 32 - shift) - 1);
    }
    target = target << 7 >> 7;  // 25 bits, the sign in bit 24
    b[i + 1] = target;
    b[i + 2] = target >> 8;
    b[i + 3] = target >> 16;
    b[i + 4] = target >> 24;
    i += 4;
  }
}

/** Undo the delta filter in place. */
export function delta(b: Uint8Array, from: number, to: number, distance: number): void {
  for (let i = from + distance; i < to; i++) b[i] = (b[i] as number) + (b[i - distance] as number);
}
