import assert from "node:assert/strict";
import { test } from "node:test";
import { numberOption, optionsHelp, parseArgs, wordOption } from "./args.ts";
import { linePrefixer } from "./terminal.ts";

const known = { engine: { value: "NAME", help: "h" }, json: { value: "[=FILE]", help: "j" }, quiet: { help: "q", short: "q" } };

test("options stand before, between and behind words, and -- ends them", () => {
  const p = parseArgs(["a", "--engine", "x", "b", "-q", "--json=f", "--", "--engine"], known, "run");
  assert.deepEqual(p.words, ["a", "b", "--engine"]);
  assert.deepEqual(Object.fromEntries(p.options), { engine: "x", quiet: "", json: "f" });
  assert.equal(parseArgs(["--json", "b"], known, "run").options.get("json"), "");
});

test("an option that may be given again has all its values", () => {
  const p = parseArgs(["--share", "a", "--share=b"], { share: { value: "SPEC", help: "s", repeats: true } }, "run");
  assert.deepEqual([p.repeated.get("share"), p.options.get("share")], [["a", "b"], "b"]);
});

test("values are checked", () => {
  const p = parseArgs(["--engine=12"], known, "run");
  assert.equal(numberOption(p, "engine", 1, 12), 12);
  assert.throws(() => numberOption(p, "engine", 1, 11), /wants a whole number from 1 to 11, not "12"/);
  assert.throws(() => wordOption(p, "engine", ["a", "b"]), /is one of a, b, not "12"/);
  assert.match(optionsHelp(known), /--engine NAME +h\n +--json\[=FILE\] +j\n +-q, --quiet/);
});

test("lines of several consoles keep whole and carry their names", () => {
  const p = linePrefixer("a"), text = (b: Uint8Array) => new TextDecoder().decode(b), bytes = (s: string) => new TextEncoder().encode(s);
  assert.equal(text(p(bytes("on"))), "");
  assert.equal(text(p(bytes("e\r\ntwo\nthr"))), "a| one\na| two\n");
  assert.equal(text(p.rest()), "a| thr\n");
  assert.equal(text(p(bytes("x".repeat(5000)))).length, "a| ".length + 4096 + 1);
});
