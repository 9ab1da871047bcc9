import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { GOLDEN, changes, read, title, translateForms } from "../../tools/goldens/translation.ts";

test("what the translator makes of an instruction costs what was agreed on", () => {
  const found = changes(read(readFileSync(GOLDEN, "utf8")), translateForms());
  assert.equal(found.length, 0, `${found.map(title).join("\n")}\n"npm run golden:wasm" shows the lines; if they are meant, "npm run golden:wasm -- --bless" pins them`);
});
