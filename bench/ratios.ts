/** What the columns of bench/cpu.ts are to each other: a ratio a round, so that both sides had the same noise, and their means. */
import { type Collector, geometricMean, type Row, type Table } from "./figures.ts";
import { ratioRow } from "./ground.ts";

/** Columns with measured times. */
export const PLACE = { native: "native", native32: "native 32-bit", tcg: "QEMU TCG", tcgMax: "QEMU TCG max", domus: "Domus", v86: "v86" } as const;
/** Columns that are computed from them. */
export const RATIO = { tcg: "Domus / TCG", tcgMax: "Domus / TCG max", domus: "Domus / native", tcgNative: "TCG / native", v86: "v86 / native 32-bit", lead: "v86's multiple / Domus's" } as const;

/** `of` over `to`, both columns; of the lead, which is best when large, the least is the worst. */
const RATIOS: readonly { readonly name: string; readonly of: string; readonly to: string; readonly large?: true }[] = [
  { name: RATIO.tcg, of: PLACE.domus, to: PLACE.tcg },
  { name: RATIO.tcgMax, of: PLACE.domus, to: PLACE.tcgMax },
  { name: RATIO.domus, of: PLACE.domus, to: PLACE.native },
  { name: RATIO.tcgNative, of: PLACE.tcg, to: PLACE.native },
  { name: RATIO.v86, of: PLACE.v86, to: PLACE.native32 },
  { name: RATIO.lead, of: RATIO.v86, to: RATIO.domus, large: true },
];

/** Add a round's ratios of a row whose times are complete. */
export function addRatios(found: Collector, row: string): void {
  for (const r of RATIOS) if (found.get(row, r.of).length > 0 && found.get(row, r.to).length > 0) ratioRow(found, row, r.of, r.to, r.name);
}

/** A ratio's rows: their medians. */
const medians = (found: Collector, ratio: string): { row: string; value: number }[] =>
  found.rows().map(({ name: row }) => ({ row, value: found.median(row, ratio) })).filter(({ value }) => !Number.isNaN(value));
/** NaN where the column is absent. */
export const meanRatio = (found: Collector, ratio: string): number => geometricMean(medians(found, ratio).map((m) => m.value));
/** The row where a ratio is worst. */
export function worstRatio(found: Collector, ratio: string): { row: string; value: number } | undefined {
  const sorted = medians(found, ratio).sort((a, b) => b.value - a.value);
  return RATIOS.some((r) => r.name === ratio && r.large) ? sorted.at(-1) : sorted[0];
}

/** Two tables: seconds, and ratios with their geometric mean and the worst of each. */
export function tables(found: Collector, title: string, unit: string, places: readonly string[], notes: readonly string[]): Table[] {
  const present = RATIOS.map((r) => r.name).filter((name) => medians(found, name).length > 0);
  const mean: Row = { name: "**geometric mean**", rounds: Object.fromEntries(present.map((name) => [name, [meanRatio(found, name)]])) };
  const worst: Row = {
    name: "**worst**", rounds: Object.fromEntries(present.map((name) => [name, [worstRatio(found, name)!.value]])),
    words: Object.fromEntries(present.map((name) => { const at = worstRatio(found, name)!; return [name, `${at.value.toFixed(2)}, ${at.row}`]; })),
  };
  return [
    { title: `${title}, seconds`, unit, columns: places, rows: found.rows(), digits: 3, notes },
    { title: `${title}, ratios`, unit: "Of a round's times; the 64-bit guests against the 64-bit build on the bare processor, v86 against the 32-bit one.", columns: present, rows: [...found.rows(), mean, worst], digits: 2, notes: [] },
  ];
}
