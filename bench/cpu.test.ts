/** What bench/cpu.ts reads and computes, without a guest. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Collector, markdown } from "./figures.ts";
import { Digests, readGb } from "./gbench.ts";
import { addRatios, meanRatio, PLACE, RATIO, tables, worstRatio } from "./ratios.ts";
import { readSum, REAL, realLine, unitC } from "./real.ts";
import { targetTable, verdict } from "./targets.ts";

test("readGb reads the ends of works and of commands, and nothing else", () => {
  const text = "GB BEGIN crc32\r\nGB END crc32 0.283111 4cfa3837 cpu=0.282790\r\n[    1.2] GB END no 1.0 00000000 cpu=1.0\r\nGB END gcc-compile 1.500000 rc=1 cpu=1.400000\n";
  assert.deepEqual(readGb(text), [{ name: "crc32", seconds: 0.283111, check: "4cfa3837" }, { name: "gcc-compile", seconds: 1.5, check: "rc=1" }]);
});

test("a digest that differs from the first place's names both", () => {
  const digests = new Digests();
  digests.take("crc32", "native", "4cfa3837");
  digests.take("crc32", "Domus", "4cfa3837");
  assert.throws(() => digests.take("crc32", "v86", "00000000"), /crc32 gives 00000000 on v86, and gave 4cfa3837 on native/);
});

test("ratios pair a round's times; the worst of the lead over v86 is the least; a place that is absent has no column", () => {
  const found = new Collector();
  for (const [row, times] of [["a", [1, 2, 4, 1, 10]], ["b", [1, 1, 4, 2, 6]]] as const) {
    [PLACE.native, PLACE.tcg, PLACE.domus, PLACE.native32, PLACE.v86].forEach((place, i) => { found.add(row, place, times[i]!); });
    addRatios(found, row);
  }
  assert.deepEqual(found.get("a", RATIO.tcg), [2]);
  assert.deepEqual(found.get("a", RATIO.lead), [2.5]);
  assert.deepEqual(worstRatio(found, RATIO.tcg), { row: "b", value: 4 });
  assert.deepEqual(worstRatio(found, RATIO.lead), { row: "b", value: 0.75 });
  assert.ok(Math.abs(meanRatio(found, RATIO.tcg) - Math.sqrt(8)) < 1e-12);
  assert.ok(Number.isNaN(meanRatio(found, RATIO.tcgMax)));
  const [, ratios] = tables(found, "T", "u", [PLACE.native], []);
  assert.ok(ratios && !ratios.columns.includes(RATIO.tcgMax));
  assert.match(markdown(ratios), /\| \*\*worst\*\* \| 4\.00, b \|/);
});

test("a figure passes at its bound, from the side that is asked", () => {
  const figure = (value: number, atLeast?: true) => verdict({ figure: "f", value, must: 2, aim: atLeast ? 4 : 1, ...(atLeast ? { atLeast } : {}) });
  assert.deepEqual([figure(1), figure(2), figure(2.1), figure(Number.NaN)], ["pass, aim met", "pass", "FAIL", "not measured"]);
  assert.deepEqual([figure(4, true), figure(2, true), figure(1.9, true)], ["pass, aim met", "pass", "FAIL"]);
  assert.match(markdown(targetTable([{ figure: "f", value: 3, must: 2, aim: 1 }])), /\| f, at most \| 3\.00 \| 2\.00 \| 1\.00 \| FAIL \|/);
});

test("a real program's line survives two shells, and its file's checksum is read back", () => {
  for (const p of REAL) {
    assert.doesNotMatch(p.line, /'/);
    assert.match(realLine(p), new RegExp(`^gbench exec ${p.label} `));
  }
const end = { name: "gcc-compile", seconds: 1, check: "rc=0" }, sum = "d41d8cd98f00b204e9800998ecf8427e";
  assert.equal(readSum(end, `GB END gcc-compile 1.0 rc=0 cpu=1.0\r\n${sum}  -\r\n`), sum);
  assert.throws(() => readSum({ ...end, check: "rc=1" }, `${sum}  -\n`), /gcc-compile failed/);
  assert.equal(unitC(), unitC());
  assert.ok(unitC().split("\n").length > 150);
});
