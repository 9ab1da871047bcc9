/** What a benchmark is to bench/main.ts, and how figures become a table. */

/** How much is measured: rounds are interleaved, a figure is the median of them. */
export type Effort = {
  readonly quick: boolean;
  readonly rounds: number;
  /** works to leave the others out for; empty for all */
  readonly only: readonly string[];
  /** where to write the chart, if anywhere */
  readonly svg?: string;
  say(text: string): void;
};
/** One line of a table: figures by column, each with all its rounds; and words where a column has them. */
export type Row = { readonly name: string; readonly rounds: Readonly<Record<string, readonly number[]>>; readonly words?: Readonly<Record<string, string>> };
export type Table = {
  readonly title: string;
  /** what is counted, and what was run */
  readonly unit: string;
  readonly columns: readonly string[];
  readonly rows: readonly Row[];
  readonly digits: number;
  /** sentences below the table */
  readonly notes: readonly string[];
};
export type Bench = { readonly name: string; readonly help: string; run(effort: Effort): Promise<Table[]> };

/** NaN for nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length === 0 ? NaN : sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}
/** Of ratios, so that none outweighs the others. */
export const geometricMean = (values: readonly number[]): number => Math.exp(values.reduce((sum, v) => sum + Math.log(v), 0) / values.length);

/** Collects rounds by row and column. */
export class Collector {
  readonly #rows = new Map<string, Record<string, number[]>>();
  add(row: string, column: string, value: number): void {
    const found = this.#rows.get(row) ?? {};
    this.#rows.set(row, found);
    (found[column] ??= []).push(value);
  }
  get(row: string, column: string): readonly number[] { return this.#rows.get(row)?.[column] ?? []; }
  median(row: string, column: string): number { return median(this.get(row, column)); }
  rows(): Row[] { return [...this.#rows].map(([name, rounds]) => ({ name, rounds })); }
}

/** A table in Markdown: medians, and the range where there was more than one round. */
export function markdown(table: Table): string {
  const cell = (values: readonly number[] | undefined): string => {
    if (!values?.length) return "-";
    const text = (n: number) => n.toFixed(table.digits), low = text(Math.min(...values)), high = text(Math.max(...values));
    return low === high ? text(median(values)) : `${text(median(values))} (${low} to ${high})`;
  };
  const lines = [["", ...table.columns], ["---", ...table.columns.map(() => "--:")], ...table.rows.map((row) => [row.name, ...table.columns.map((c) => row.words?.[c] ?? cell(row.rounds[c]))])];
  return [`### ${table.title}`, "", `${table.unit}`, "", ...lines.map((cells) => `| ${cells.join(" | ")} |`), "", ...table.notes, ""].join("\n");
}
