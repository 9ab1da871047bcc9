import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../base/errors.ts";
import { applySetting, isSetting, parseXlCfg, type XlValue } from "./xlcfg.ts";
import { editDistance, nearest, XL_KEYS } from "./xlkeys.ts";

type Plain = string | number | Plain[];
const plain = (v: XlValue): Plain => (v.kind === "list" ? v.items.map(plain) : v.kind === "number" ? v.value : v.text);
const read = (text: string): Record<string, Plain> => Object.fromEntries([...parseXlCfg(text, "f")].map(([k, s]) => [k, plain(s.value)]));
const fault = (text: string): string => {
  try { parseXlCfg(text, "f"); } catch (e) { assert.ok(e instanceof UserError, String(e)); return e.message; }
  return "no fault";
};

test("strings take either quote, numbers three bases, lists nest and span lines (xl.cfg(5) SYNTAX)", () => {
  assert.deepEqual(read(`name = "a'b"; type='p"v'\nmemory=512\nx=0x1F\ny=010\nz=0`), { name: "a'b", type: 'p"v', memory: 512, x: 31, y: 8, z: 0 });
  assert.deepEqual(read(`a = [ "x", 1, # one\n  [ 'y', ],\n ]\nb=[]`), { a: ["x", 1, ["y"]], b: [] });
  assert.deepEqual(read("\ufeffa=1\r\n# all\n\t b = 2 # rest\n;;c=3"), { a: 1, b: 2, c: 3 });
});

test("escapes are those of libxlu", () => {
  assert.deepEqual(read(String.raw`a="\"\\\n\t\x41\101"`), { a: '"\\\n\tAA' });
  assert.match(fault(String.raw`a="\q"`), /^f:1:4: Only/);
});

test("the last value of a key holds and += appends", () => {
  assert.deepEqual(read('a=1\na="x"\na+="y"\nl=["p"]\nl+=["q"]\nn+="new"'), { a: "xy", l: ["p", "q"], n: "new" });
  assert.match(fault('a="x"\na+=["y"]'), /^f:2:4: a: "\+=" cannot join/);
});

test("every fault names its line and column", () => {
  const faults: [string, RegExp][] = [
    ['a="x', /^f:1:3: The string that opens here is not closed with " on its line/],
    ["a='x\n'", /^f:1:3: The string that opens here is not closed with '/],
    ["a=[1,\n2", /^f:1:3: a: The list that opens here is never closed/],
    ["a=[1 2]", /^f:1:6: a: Expected "," or "]"/],
    ["\n\n  a b", /^f:3:5: Expected "=" after "a", found "b"/],
    ["a=", /^f:1:3: a: Expected a string in quotes, a number or a list, found the end of the file/],
    ["a=\nb=1", /^f:1:3: a: .* found the end of the line/],
    ["a=1 b=2", /^f:1:5: Expected the end of the line or ";"/],
    ["memory=1e9", /^f:1:8: memory: "1e9" is not a number/],
    ["memory=-1", /^f:1:8: memory: "-1" is not a number; .* without a sign/],
    ["memory=08", /^f:1:8: memory: "08" is not a number/],
    ["name=foo", /^f:1:6: name: Words stand in quotes: "foo"/],
    ["pae=True", /^f:1:5: pae: Write 1 for True/],
    ["= 1", /^f:1:1: Expected a key, found "="/],
    ["\x7fELF\x02", /^f:1:1: Expected a key, found the control character 0x7f/],
    [`a=${"[".repeat(1000)}`, /^f:1:19: a: Lists are nested more than 16 deep/],
  ];
  for (const [text, message] of faults) assert.match(fault(text), message);
});

test("any text is read or refused with a place, never otherwise", () => {
  const bits = fc.constantFrom("a", "name", "=", "+=", '"', "'", "[", "]", ",", "\n", "#", "\\", "\\x4", "0x", "1e9", "7", ";", " ", "é", "\0");
  fc.assert(fc.property(fc.oneof(fc.string(), fc.array(bits, { maxLength: 30 }).map((x) => x.join(""))), (text) => {
    const said = fault(text);
    assert.match(said, /^no fault$|^f:\d+:\d+: /);
  }), { numRuns: 2000, seed: 20261123 });
});

test("what is written down is read back", () => {
  const value: fc.Arbitrary<Plain> = fc.letrec<{ v: Plain }>((tie) => ({
    v: fc.oneof({ maxDepth: 4 }, fc.string(), fc.nat(), fc.array(tie("v"), { maxLength: 4 })),
  })).v;
  const write = (v: Plain): string => (Array.isArray(v) ? `[${v.map(write).join(", ")}]` : typeof v === "number" ? `${v}`
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must be escaped
    : `"${v.replace(/[\\"\x01-\x1f]/g, (c) => (c < " " ? `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}` : `\\${c}`))}"`);
  fc.assert(fc.property(value, (v) => { assert.deepEqual(read(`k = ${write(v)}`), { k: v }); }), { numRuns: 500, seed: 20261123 });
});

test("key=value on the command line overrides the file, and the shell may have eaten the quotes", () => {
  const settings = parseXlCfg('name="a"\nmemory=1\nextra="x"', "f");
  for (const word of ["name=my vm", "memory=64", "root=/dev/xvda1", 'type="pvh"', 'vif=["bridge=x"]', "extra+= y=1"]) {
    assert.ok(isSetting(word));
    applySetting(settings, word);
  }
  assert.deepEqual(Object.fromEntries([...settings].map(([k, s]) => [k, plain(s.value)])),
    { name: "my vm", memory: 64, extra: "x y=1", root: "/dev/xvda1", type: "pvh", vif: ["bridge=x"] });
  assert.ok(!isSetting("dir/a=b.cfg") && !isSetting("x.cfg"));
  assert.throws(() => applySetting(settings, 'a="1"; b=2'), /is not one key=value/);
});

test("a misspelt key finds the nearest known one", () => {
  for (const [typed, meant] of [["memroy", "memory"], ["kernal", "kernel"], ["vcpu", "vcpus"], ["on_power_off", "on_poweroff"], ["Name", "name"], ["initrd", null]] as const) {
    assert.equal(nearest(typed, XL_KEYS.keys()), meant);
  }
  assert.equal(editDistance("abcd", "abdc"), 1);
  assert.ok(XL_KEYS.size >= 160);
});
