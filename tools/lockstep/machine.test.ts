import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { buildGuest, guestsMissing } from "../../guests/build.ts";
import type { Insn } from "../../src/x86/decode.ts";
import { RegionGen } from "../../src/x86/translate.ts";
import { randomLoad } from "./load.ts";
import { guestInLockstep, type GuestEnd } from "./machine.ts";
import { Divergence } from "./twin.ts";

const skip = guestsMissing();
const run = (name: string, o: { cmdline?: string; vcpus?: number; translateAfter?: number } = {}): Promise<GuestEnd> =>
  guestInLockstep({ kernel: readFileSync(buildGuest(name)), cmdline: o.cmdline ?? "", memoryMiB: 16, vcpus: o.vcpus ?? 1, seed: 1, translateAfter: o.translateAfter ?? 200, seconds: 120 });

for (const [name, translateAfter] of [["hypercall", 0], ["timers", 200]] as const) test(`a machine's every stretch is the same on both engines (guest ${name})`, { skip }, async () => {
  const end = await run(name, { translateAfter });
  assert.match(end.console, /Test result: SUCCESS/, end.console);
  assert.ok(end.counts.stretches > 2 && end.counts.instructions > 10_000, JSON.stringify(end.counts));
  assert.match(end.why, /poweroff/);
});

test("two vCPUs on one pCPU are the same on both engines (guest smp)", { skip }, async () => {
  const end = await run("smp", { vcpus: 2, cmdline: "cpus=2 rounds=12 restarts=3 pages=3 seed=5" });
  assert.match(end.console, /Test result: SUCCESS/, end.console);
  assert.ok(end.counts.stretches > 50 && end.counts.exceptions > 2, JSON.stringify(end.counts));
});

test("an error in the translator is found, and told with the registers and the way there", { skip }, async () => {
  // SHL alone, not the scaled addresses that the same text makes: those may come first
  type Shl = (this: { readonly insn: Insn }, w: number, a: unknown, n: unknown) => unknown;
  const plant = RegionGen.prototype as unknown as { shl?: Shl }, right = plant.shl!;
  plant.shl = function (w, a, n) { return this.insn.row.name === "shl" ? a : right.call(this, w, a, n); };
  try {
    await assert.rejects(run("hypercall", { translateAfter: 0 }), (e) => {
      assert.ok(e instanceof Divergence, String(e));
      assert.match(e.message, /instructions[^]*interpreter +translator\n +[a-z0-9]+ +[0-9a-f]+ [^]*The interpreter's last instructions[^]* shl /);
      return true;
    });
  } finally { delete plant.shl; }
});

test("a seed's random work is always the same", () => {
  const [a, b, c] = [7, 7, 8].map((seed) => { const work = randomLoad(seed); return Array.from({ length: 40 }, () => work.next().value); });
  assert.deepEqual(a, b);
  assert.notDeepEqual(a, c);
});
