/**
 * npm run golden:wasm                what the translator makes of the forms of tools/goldens/forms.ts, compared with golden/translation.txt: forms
 *                                    that have changed, their cost before and now, and the lines. Exit code 1 when there are any.
 * npm run golden:wasm -- --bless     pins what it makes of them now
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { runTool } from "../tool.ts";
import { GOLDEN, changes, lineChanges, read, title, translateForms, write } from "./translation.ts";

function main(): number {
  const { values } = parseArgs({ options: { bless: { type: "boolean", default: false } } }), now = translateForms();
  if (values.bless) {
    mkdirSync(new URL(".", GOLDEN), { recursive: true });
    writeFileSync(GOLDEN, write(now));
    console.log(`${now.length - 1} forms pinned`);
    return 0;
  }
  const found = changes(read(readFileSync(GOLDEN, "utf8")), now);
  for (const c of found) console.log([title(c), ...lineChanges(c.old?.text ?? [], c.now?.text ?? []).map(l => `  ${l}`)].join("\n"));
  const sum = (side: "old" | "now"): number => found.reduce((n, c) => n + (c[side]?.cost ?? 0), 0);
  console.log(found.length ? `${found.length} of ${now.length - 1} forms have changed: together they cost ${sum("old")} before, ${sum("now")} now` : `${now.length - 1} forms are as pinned`);
  return found.length ? 1 : 0;
}
await runTool(import.meta.filename, main);
