import assert from "node:assert/strict";
import { test } from "node:test";
import { fromXl } from "./config.ts";
import { parseXlCfg } from "./xlcfg.ts";
import { type P9Spec, parseP9 } from "./xlp9.ts";

const place = { file: "f", line: 1, column: 1 };
const sharesOf = (p9: string): { shares: readonly P9Spec[]; warnings: readonly string[] } => {
  const { domain, warnings } = fromXl(parseXlCfg(`name="a"; type="pvh"; kernel="k"; memory=64\np9 = ${p9}\n`, "f"), "f");
  return { shares: domain.shares, warnings };
};

test("a folder is read as xl reads it: keys in any order, blanks before them, the last of two", () => {
  assert.deepEqual(parseP9("path=/srv/a b=c, tag=src, security_model=none,backend=0", place), { place, tag: "src", path: "/srv/a b=c", isReadonly: false });
  const warnings: string[] = [];
  assert.equal(parseP9("tag=a,tag=b,,security_model=none,path=/x,", place, warnings).tag, "b");
  assert.deepEqual(warnings, ['f:1:1: p9: tag is given twice; "b" holds']);
  assert.deepEqual(sharesOf('[ "tag=a,security_model=none,path=x", "tag=b,security_model=none,path=y,readonly" ]').shares.map((s) => [s.tag, s.path, s.isReadonly, s.place.line]), [["a", "x", false, 2], ["b", "y", true, 2]]);
  assert.deepEqual(sharesOf("[]"), { shares: [], warnings: [] });
});

test("what is no folder's specification is refused at its place, with what to write", () => {
  const faults: readonly (readonly [string, RegExp])[] = [
    ['"x"', /^f:2:6: p9: Expected a list/], ["[ 5 ]", /^f:2:8: p9: Expected a string, found a number/], ['[ "" ]', /No tag is given; write "tag=NAME,security_model=none,path=FOLDER"/], ['[ "tag=a,path=/x" ]', /No security_model is given/],
    ['[ "tag=a,security_model=none" ]', /No path is given/], ['[ "tag=a,security_model=mapped-xattr,path=/x" ]', /security_model=mapped-xattr is not built; write security_model=none/],
    ['[ "tag=a b,security_model=none,path=/x" ]', /"a b" is no tag/], ['[ "tag=a,security_model=none,path=/x,backend=dom" ]', /backend=dom: folders of driver domains/],
    ['[ "tga=a" ]', /Unknown key "tga"; did you mean "tag"\?/], ['[ "tag=a,readonly=1" ]', /Unknown key "readonly"/], ['[ "tag=a,readnoly" ]', /"readnoly" is neither KEY=VALUE nor readonly; did you mean "readonly"\?/],
    ['[ "tag=a,security_model=none,path=/x", "tag=a,security_model=none,path=/y" ]', /^f:2:45: p9: tag "a" is taken already, at f:2:8/],
  ];
  for (const [p9, message] of faults) assert.throws(() => sharesOf(p9), { name: "UserError", message }, p9);
});
