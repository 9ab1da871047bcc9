import assert from "node:assert/strict";
import { test } from "node:test";
import { left, parseMemKib, parseRanges, rangesText, right } from "./verb.ts";

test("sizes are xl's: MiB without a unit, and nothing else behind the digits (xl_utils.c parse_mem_size_kb)", () => {
  assert.deepEqual(["512", "512m", "1g", "2G", "1t", "2048k", "1048576b", "0"].map(parseMemKib), [524288, 524288, 1048576, 2097152, 2 ** 30, 2048, 1024, 0]);
  for (const text of ["", "m", "-1", "1.5", "1 m", "1mb", "0x10", "9".repeat(13), "99999999t"]) assert.equal(parseMemKib(text), null, text);
});

test("lists of pCPUs are written and read as xl does", () => {
  assert.deepEqual([rangesText([0, 1, 2, 5, 7, 8]), rangesText([3]), rangesText([]), rangesText("all"), rangesText([1, 0], 2), rangesText([2, 2, 1])], ["0-2,5,7-8", "3", "none", "all", "all", "1-2"]);
  assert.deepEqual([parseRanges("0-3,^2"), parseRanges("all"), parseRanges("1, 3"), parseRanges("node:0")], [[0, 1, 3], "all", [1, 3], "all"]);
  for (const text of ["", "x", "3-1", "^all", "1-", "node:1"]) assert.equal(parseRanges(text), null, text);
});

test("columns are printf's", () => {
  assert.deepEqual([left("ab", 4), left("abcdef", 4), right(7, 3), right(12345, 3)], ["ab  ", "abcdef", "  7", "12345"]);
});
