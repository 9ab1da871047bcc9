/** Lists in columns. */

/** Rows of equally many cells, each column as wide as its widest. @param nrLeft so many columns begin at the left; the others, numbers, end at the right */
export function tableText(rows: readonly (readonly string[])[], nrLeft = Number.POSITIVE_INFINITY): string {
  const widths = rows[0]?.map((_, c) => Math.max(...rows.map((row) => row[c]!.length))) ?? [];
  return rows.map((row) => `${row.map((cell, c) => (c < nrLeft ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!))).join("  ").trimEnd()}\n`).join("");
}
