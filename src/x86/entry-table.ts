/**
 * A region's table from positions to blocks, for returns and indirect jumps: a perfect hash, so that one look decides. A position's low bits choose a
 * displacement, the displacement and a product choose the slot. The same positions give the same table.
 */

/** A slot: position (i64), what to put into SEL (i32), the bit of the page that must be mapped (i32). */
export const SLOT = { size: 16, pos: 0, sel: 8, page: 12 } as const;
export type EntryTable = {
  /** displacements and slots are powers of two in number */
  readonly displacements: Uint8Array; readonly nrSlots: number;
  /** the slot is ((position * mult) >>> shift ^ displacement), modulo the number of slots */
  readonly mult: number; readonly shift: number;
  readonly slots: readonly (readonly [slot: number, entry: number])[];
};
export const displacementOf = (t: { displacements: Uint8Array }, pos: number): number => t.displacements[pos & (t.displacements.length - 1)]!;
export const slotOf = (t: EntryTable, pos: number): number => (Math.imul(pos, t.mult) >>> t.shift ^ displacementOf(t, pos)) & (t.nrSlots - 1);

const MULT = 0x9e3779b1 | 0;
/** @param positions distinct; an entry is the index of its position */
export function entryTable(positions: readonly number[]): EntryTable {
  const shift = 15;
  let bits = 1;
  while (2 ** bits < positions.length * 1.5) bits++;
  // most regions have one entry
  if (positions.length === 1) return { displacements: new Uint8Array(2), nrSlots: 2, mult: MULT, shift, slots: [[Math.imul(positions[0]!, MULT) >>> shift & 1, 0]] };
  for (let mult = MULT, tries = 0; ; mult = Math.imul(mult, 0x85ebca6b) + 0x3c6ef372 | 1, tries++) {
    if (tries === 24) { bits++; tries = 0; }
    const nrSlots = 2 ** bits, displacements = new Uint8Array(Math.max(2, nrSlots >> 1)), buckets: number[][] = Array.from(displacements, () => []), used = new Uint8Array(nrSlots);
    positions.forEach((p, n) => buckets[p & (displacements.length - 1)]!.push(n));
    const order = buckets.map((_, i) => i).sort((a, b) => buckets[b]!.length - buckets[a]!.length), slots: [number, number][] = [];
    const fits = order.every((b) => {
      const members = buckets[b]!, base = members.map(n => Math.imul(positions[n]!, mult) >>> shift & (nrSlots - 1));
      if (new Set(base).size !== base.length) return false;
      for (let d = 0; d < Math.min(256, nrSlots); d++) {
        if (base.some(x => used[x ^ d])) continue;
        displacements[b] = d;
        base.forEach((x, k) => { used[x ^ d] = 1; slots.push([x ^ d, members[k]!]); });
        return true;
      }
      return members.length === 0;
    });
    if (fits) return { displacements, nrSlots, mult, shift, slots };
  }
}
