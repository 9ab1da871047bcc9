import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { buildGuest, guestsMissing } from "../../guests/build.ts";
import { type LockstepEnd, lockstep } from "./lockstep.ts";
import { Ours } from "./ours.ts";
import { Qemu, qemuMissing } from "./qemu.node.ts";
import { readSymbols } from "./run.ts";

const skip = guestsMissing() || qemuMissing();
async function compareGuest(name: string, symbol: string, steps: number): Promise<LockstepEnd> {
  const kernel = buildGuest(name), from = readSymbols(execFileSync("nm", [kernel], { encoding: "utf8" })).get(symbol)!, qemu = await Qemu.start({ kernel, memoryMiB: 16 });
  try {
    await qemu.runTo(from);
    const ours = new Ours(await qemu.physicalMemory());
    ours.take(await qemu.snapshot());
    return await lockstep({ step: async () => { await qemu.gdb.step(); }, registers: () => qemu.registers(), runTo: (a: bigint) => qemu.runTo(a) }, ours, { steps });
  } finally { qemu.close(); }
}

test("the way from the 32-bit entry into long mode is the same in QEMU, register by register", { skip }, async () => {
  const end = await compareGuest("smc", "entry32", 800);
  assert.deepEqual([end.divergence?.what, end.steps], [undefined, 800]);
});

test("self-modifying code takes the same steps in QEMU", { skip }, async () => {
  const end = await compareGuest("smc", "guest_main", 1500);
  assert.deepEqual([end.divergence?.what, end.steps], [undefined, 1500]);
});

test("the first difference is named with what led there: QEMU does not check segment limits", { skip }, async () => {
  const { divergence } = await compareGuest("modes", "mode_trip", 200);
  assert.equal(divergence?.history.at(-1)?.text, "mov eax,fs:[0FFDh]");
  assert.equal(divergence.history.length, 21);
  assert.ok(divergence.what.some((w) => w.startsWith("rip: ")));
});
