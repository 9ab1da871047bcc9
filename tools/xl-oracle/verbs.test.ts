/** Our table of verbs against Debian's xl: the same verbs, the same usage lines, the same codes for the same faults; and the page that is made from it. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { withTable } from "../../src/bin/xl/doc.ts";
import { helpText, xlMain } from "../../src/bin/xl/main.ts";
import { VERBS } from "../../src/bin/xl/table.ts";
import { runXl } from "./oracle.node.ts";

async function ours(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = "", err = "";
  const code = await xlMain(["--state=/nonexistent", ...args], { out: (t) => { out += t; }, say: (l) => { err += `${l}\n`; }, progress: () => {}, clear: () => {}, isTerminal: false, signal: new AbortController().signal, env: {} });
  return { code, out, err };
}

test("every verb of Debian's xl is in the table, built or said not to be", async () => {
  const theirs = [...runXl("help").out.matchAll(/^ ([a-z0-9-]+)(?: |$)/gm)].map((m) => m[1]!), known = new Set(VERBS.map((v) => v.name));
  assert.ok(theirs.length > 85, `${theirs.length}`);
  assert.deepEqual(theirs.filter((name) => !known.has(name)), []);
  for (const v of VERBS.filter((v) => !v.run)) assert.deepEqual(await ours(v.name, "a", "b"), { code: 1, out: "", err: `xl: ${v.name} is not built yet\n` });
});

test("usage lines are xl's", () => {
  const line = (text: string): string => text.split("\n")[0]!.trimEnd().replace(/ -n, --numa .*/, " [options]");
  const own: string[] = [];
  for (const v of VERBS.filter((v) => v.run)) {
    const { out, err } = runXl("help", v.name);
    if (/not implemented/.test(out + err)) own.push(v.name); else assert.equal(line(helpText(v.name)!), line(out), v.name);
  }
  assert.deepEqual(own, ["migrate-settle"]);
});

test("wrong lines end with xl's codes and words", async () => {
  const folder = tmpdir(), good = join(folder, `domus-verbs-${process.pid}.cfg`), bad = join(folder, `domus-verbs-bad-${process.pid}.cfg`);
  writeFileSync(good, 'name = "x"\ntype = "pvh"\nkernel = "/k"\nmemory = 64\n');
  writeFileSync(bad, "name = [\n");
  for (const args of [["foo"], ["destroy"], ["destroy", "-x", "a"], ["create", "-n", "/nonexistent.cfg"], ["create", "-n"], ["create", "-n", bad], ["create", "-q", "-n", good], ["create", "-h"], ["help"], ["help", "nothing"], [], ["-N", "list"], ["-Q"], ["vcpu-pin", "a"], ["mem-set", "a"]]) {
    const mine = await ours(...args), theirs = runXl(...args), told = `xl ${args.join(" ")}\n${theirs.err}\n${mine.err}`;
    assert.equal(mine.code, theirs.code, told);
    if (/requires at least|not supported|not implemented|Failed to read config file|does not implement|unknown global|not specified/.test(theirs.err)) assert.equal(mine.err.split("\n").find((l) => !/^Parsing|invalid option --/.test(l)), theirs.err.split("\n").find((l) => !/^Parsing|invalid option --/.test(l)), told);
  }
});

test("docs/xl.md has the table as it is", () => {
  const page = readFileSync(new URL("../../docs/xl.md", import.meta.url), "utf8");
  assert.equal(page, withTable(page), "make it anew: node tools/setup/run.mjs tools/xl-docs/run.ts");
});
