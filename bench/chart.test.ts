/** The chart's rules: a logarithmic scale whose bars start at 1, text that is text, and the same SVG for the same figures. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { chart, logTicks } from "./chart.ts";

const TINY = { title: "Time & <more>", subtitle: "s", series: ["one", "two"], groups: [{ name: "work", values: [10, 0.5] }, { name: "other", values: [Number.NaN, 100] }] };

test("ticks are 1, 2 and 5 of each power of ten and hold the values between them", () => {
  assert.deepEqual(logTicks(1, 100), [1, 2, 5, 10, 20, 50, 100]);
  assert.deepEqual(logTicks(0.3, 3), [0.2, 0.5, 1, 2, 5]);
});

test("a bar starts at 1 and goes right for more, left for less; a value that is not there has none", () => {
  const svg = chart(TINY), bars = [...svg.matchAll(/<rect class="s(\d)" x="([\d.]+)" y="\d+" width="([\d.]+)" height="9"\/>/g)].map((m) => m.slice(1).map(Number) as [number, number, number]);
  const one = Number(/<line class="one" x1="([\d.]+)"/.exec(svg)![1]);
  assert.equal(bars.length, 3);
  assert.deepEqual(bars.map(([series]) => series), [0, 1, 1]);
  assert.equal(bars[0]![1], one);
  assert.ok(Math.abs(bars[1]![1] + bars[1]![2] - one) < 0.2, "less than 1 ends at 1");
  assert.ok(Math.abs(bars[2]![2] - 2 * bars[0]![2]) < 0.2, "100 is twice as far from 1 as 10 is");
});

test("words are escaped, both colour schemes are there, and the text is the same each time", () => {
  const svg = chart(TINY);
  assert.match(svg, /Time &amp; &lt;more&gt;/);
  assert.match(svg, /prefers-color-scheme:dark/);
  assert.equal(svg, chart(TINY));
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
});
