import assert from "node:assert/strict";
import { test } from "node:test";
import { parseXlCfg } from "../toolstack/xlcfg.ts";
import { BLANK, withKey } from "./config-text.ts";

const stringOf = (text: string, key: string) => { const v = parseXlCfg(text, "test").get(key)!.value; return v.kind === "string" ? v.text : v; };

test("a key is set where it stands, or at the end, and nothing else changes", () => {
  const set = withKey(BLANK, "kernel", 'my "own" $& kernel');
  assert.equal(stringOf(set, "kernel"), 'my "own" $& kernel');
  assert.equal(set.split("\n").length, BLANK.split("\n").length);
  assert.match(set, /# a file of yours/);
  assert.equal(stringOf(set, "ramdisk"), "initrd");
  assert.equal(withKey('name = "x"', "ramdisk", "r.cpio"), 'name = "x"\nramdisk = "r.cpio"\n');
  assert.equal(withKey("kernel = broken word\n", "kernel", "k"), 'kernel = "k" word\n');
});
