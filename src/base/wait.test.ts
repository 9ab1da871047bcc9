import assert from "node:assert/strict";
import { test } from "node:test";
import { pause, unlessAborted, within } from "./wait.ts";

test("a pause lasts its time, ends with the signal's reason, and does not begin after it", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const stop = new AbortController(), why = new Error("enough");
  const whole = pause(50, stop.signal), cut = pause(1e6, stop.signal);
  t.mock.timers.tick(50);
  await whole;
  stop.abort(why);
  await assert.rejects(cut, why);
  await assert.rejects(pause(1, stop.signal), why);
  await assert.rejects(unlessAborted(stop.signal, Promise.resolve()), why);
});
test("what comes in time is told from what does not, and its failure is its own", async () => {
  assert.equal(await within(Promise.resolve(), 1000), true);
  assert.equal(await within(new Promise(() => {}), 1), false);
  await assert.rejects(within(Promise.reject(new Error("its own")), 1000), /its own/);
});
