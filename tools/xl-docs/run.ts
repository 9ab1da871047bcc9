/** Makes the table of docs/xl.md anew: node tools/setup/run.mjs tools/xl-docs/run.ts */
import { readFileSync, writeFileSync } from "node:fs";
import { withTable } from "../../src/bin/xl/doc.ts";

const page = new URL("../../docs/xl.md", import.meta.url);
writeFileSync(page, withTable(readFileSync(page, "utf8")));
