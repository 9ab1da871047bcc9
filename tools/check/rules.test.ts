import assert from "node:assert/strict";
import { test } from "node:test";
import { checkDocs, checkImports, checkPaths, checkSize } from "./rules.ts";
import { scan } from "./scan.ts";

const texts = (path: string, source: string) => checkImports(path, source).map((f) => `${f.line}: ${f.text}`);

test("a room imports only from its own and from those below it", () => {
  assert.deepEqual(texts("src/memory/a.ts", 'import { x } from "../base/x.ts";\nimport type { y } from "./y.ts";'), []);
  assert.deepEqual(texts("src/memory/a.ts", 'import { x } from "../base/x.ts";\nimport {\n  y,\n} from "../x86/y.ts";'),
    ["4: memory must not import from x86, which lies above it"]);
  assert.deepEqual(texts("src/memory/a.ts", 'export * from "../x86/y.ts";'), ["1: memory must not import from x86, which lies above it"]);
  assert.deepEqual(texts("src/x86/a.ts", 'const m = await import("../bin/y.ts");'), ["1: x86 must not import from bin, which lies above it"]);
  assert.deepEqual(texts("src/nowhere/a.ts", 'import "../base/x.ts";'), ["1: src/nowhere is not a room of the house (ROOMS in tools/check/rules.ts)"]);
});

test("Node stays in files that say so", () => {
  assert.deepEqual(texts("src/base/a.ts", 'import fs from "node:fs";'), ['1: "node:fs" is Node\'s: only *.node.ts, src/bin and tests may import it']);
  assert.deepEqual(texts("src/base/a.node.ts", 'import fs from "node:fs";'), []);
  assert.deepEqual(texts("src/bin/a.ts", 'import fs from "node:fs"; process.exit(0);'), []);
  assert.deepEqual(texts("src/base/a.ts", "const b = Buffer.from([]);\nprocess.exit();"),
    ["1: Buffer is Node's: web standards only here", "2: process is Node's: web standards only here"]);
  assert.deepEqual(texts("src/base/a.ts", 'import { h } from "./h.node.ts";'), ['1: "./h.node.ts" needs Node and this file must not']);
});

test("words in comments, strings, templates and expressions are no imports and no uses", () => {
  assert.deepEqual(texts("src/base/a.ts", [
    '// import fs from "node:fs"', "/* Buffer */", 'const s = "process.exit()";', "const t = `Buffer ${s} process`;", "const r = /Buffer|\"/.test(s);",
    'const u = `${`${"Buffer"}`}`;', "interface P { process: number }", "x.process = 1;",
  ].join("\n")), []);
  assert.deepEqual(texts("src/base/a.ts", "const t = `a ${Buffer.from(x)} b`;"), ["1: Buffer is Node's: web standards only here"]);
});

test("a worker's address counts as an import", () => {
  assert.deepEqual(scan('new Worker(new URL("./w.ts", import.meta.url))').imports.map((i) => i.specifier), ["./w.ts"]);
});

test("a long file needs a stated reason", () => {
  const long = "\n".repeat(900);
  assert.equal(checkSize("src/x86/table.ts", long, new Map()).length, 1);
  assert.equal(checkSize("src/x86/table.ts", long, new Map([["src/x86/table.ts", "a table with one row a line"]])).length, 0);
});

test("a document may name only paths that exist", () => {
  const root = new URL("../..", import.meta.url).pathname;
  assert.deepEqual(checkPaths(root, "X.md", "see `src/base/struct.ts`, [x](bin/domus#a), `src/*.ts` and `guests/<name>/`").map((f) => f.text), []);
  assert.deepEqual(checkPaths(root, "X.md", "a\nsee `src/base/nothing.ts`").map((f) => `${f.line}: ${f.text}`), ["2: src/base/nothing.ts does not exist"]);
});

test("an exported name without a doc comment is a smell", () => {
  assert.deepEqual(checkDocs("src/base/a.ts", "/** Good. */\nexport const a = 1;\nexport const b = 2;").map((f) => f.text), ["b has no doc comment"]);
});
