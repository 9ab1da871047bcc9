/** What is asked of the processor: figures that must be reached, and figures that are aimed at. */
import type { Row, Table } from "./figures.ts";

/** A figure: `must` and `aim` are the most that it may be, or with `atLeast` the least. */
export type Target = { readonly figure: string; readonly value: number; readonly must: number; readonly aim: number; readonly atLeast?: true };

/** In a word; a figure that was not measured is neither. */
export function verdict({ value, must, aim, atLeast }: Target): string {
  const reaches = (bound: number) => (atLeast ? value >= bound : value <= bound);
  return Number.isNaN(value) ? "not measured" : reaches(aim) ? "pass, aim met" : reaches(must) ? "pass" : "FAIL";
}

/** One line a figure. */
export function targetTable(targets: readonly Target[]): Table {
  const rows = targets.map((t): Row => ({
    name: `${t.figure}, at ${t.atLeast ? "least" : "most"}`, rounds: { measured: Number.isNaN(t.value) ? [] : [t.value], must: [t.must], aim: [t.aim] }, words: { verdict: verdict(t) },
  }));
  return { title: "What is asked", unit: "Ratios of time, smaller is faster, but the lead over v86; memory in MiB.", columns: ["measured", "must", "aim", "verdict"], rows, digits: 2, notes: [] };
}
