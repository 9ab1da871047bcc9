/** The programs of bench/programs are an instruction test too: compiled code, hundreds of millions of instructions, and a digest that silicon vouches for. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { runOnEngine } from "../bench/engine.ts";
import { geometricMean, markdown, median } from "../bench/figures.ts";
import { PROGRAMS, readRuns, runNatively } from "../bench/programs.ts";

const skip = ((): string | false => {
  try { execFileSync("gcc", ["--version"], { stdio: "ignore" }); } catch { return "The programs are built with gcc, which is not here"; }
  return process.arch === "x64" && process.platform === "linux" ? false : "The programs are Linux's on x86-64";
})();

test("compiled integer programs give the bare processor's digests on the engine, however warm it is", { skip }, () => {
  for (const program of PROGRAMS) {
    const [native] = runNatively(program, 1), runs = runOnEngine(program, 2);
    assert.ok(native, program);
    for (const run of runs) assert.equal(run.digest, native.digest, program);
    assert.equal(runs[0]!.instructions, runs[1]!.instructions, `${program} retires the same instructions each time`);
  }
});

test("a table shows medians and ranges, and readRuns reads nothing but the driver's lines", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.ok(Number.isNaN(median([])));
  assert.ok(Math.abs(geometricMean([1, 4]) - 2) < 1e-12);
  const text = markdown({ title: "T", unit: "u", columns: ["a", "b"], digits: 1, notes: ["n"], rows: [{ name: "r", rounds: { a: [1, 3, 2] } }] });
  assert.match(text, /^### T\n\nu\n\n\| {2}\| a \| b \|\n\| --- \| --: \| --: \|\n\| r \| 2\.0 \(1\.0 to 3\.0\) \| - \|\n/);
  assert.deepEqual(readRuns("x\r\nBENCH list 00000000000000ff 1500000\r\nBENCH list 00ff 1\n"), [{ name: "list", digest: "00000000000000ff", ms: 1.5 }]);
});
