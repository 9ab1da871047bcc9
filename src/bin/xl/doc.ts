/** The table of docs/xl.md, made from the table of verbs. */
import { VERBS } from "./table.ts";

/** What stands around it in the page. */
export const MARKS = { begin: "<!-- verbs: made by tools/xl-docs/run.ts -->", end: "<!-- /verbs -->" } as const;

const cell = (text: string): string => text.replace(/\|/g, "\\|").replace(/</g, "&lt;");
/** The table. */
export function verbsTable(): string {
  const built = VERBS.filter((v) => v.run), missing = VERBS.filter((v) => !v.run);
  const options = (v: (typeof VERBS)[number]): string => (v.options ?? []).filter((o) => o.short !== "h" && !/taken, without meaning/.test(o.help)).map((o) => `\`${o.short === undefined ? `--${o.long}` : `-${o.short}`}\``).join(" ");
  return `| verb | arguments | options | what it does | what differs from xl's |\n|---|---|---|---|---|\n${built.map((v) => `| \`${v.name}\` | ${v.args ? `\`${v.args.replace(/\|/g, "\\|")}\`` : ""} | ${options(v)} | ${cell(v.help)} | ${cell(v.note ?? "")} |\n`).join("")}\n`
    + `Known and not built, ${missing.length} of ${VERBS.length}; they say so and end with 1: ${missing.map((v) => `\`${v.name}\``).join(" ")}\n`;
}
/** The page with its table made anew. @throws where the marks are missing */
export function withTable(page: string): string {
  const begin = page.indexOf(MARKS.begin), end = page.indexOf(MARKS.end);
  if (begin < 0 || end < begin) throw new Error(`docs/xl.md has lost its marks "${MARKS.begin}" and "${MARKS.end}"`);
  return `${page.slice(0, begin + MARKS.begin.length)}\n\n${verbsTable()}\n${page.slice(end)}`;
}
