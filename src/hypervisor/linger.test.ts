import assert from "node:assert/strict";
import { test } from "node:test";
import { Linger } from "./linger.ts";

/** A thread that is rung every `gapMs` and a computer of which `othersMs` a millisecond of one processor are somebody else's. @returns how long it has slept, and looked in vain, in `durationMs` */
function life(gapMs: number, durationMs: number, othersMs: number | null): { slept: number; looked: number } {
  let now = 0, idle = 0;
  const linger = new Linger(() => (othersMs === null ? null : idle), () => now), pass = (ms: number): void => { now += ms; idle += ms * (1 - (othersMs ?? 0)); };
  let slept = 0, looked = 0;
  while (now < durationMs) {
    const forMs = linger.after(), lookedMs = Math.min(forMs, gapMs);
    now += lookedMs; looked += lookedMs; linger.looked(lookedMs);
    if (lookedMs === gapMs) continue;
    pass(gapMs - lookedMs); slept += gapMs - lookedMs;
    linger.woken(gapMs - lookedMs);
  }
  return { slept, looked };
}

test("events that come often are waited for awake, those that come seldom asleep", () => {
  const often = life(0.15, 100, null), seldom = life(5, 1000, null);
  assert.ok(often.slept < 1, `${often.slept} ms asleep`);
  assert.ok(seldom.looked < 0.1, `${seldom.looked} ms looked`);
  assert.ok(life(0.3, 1000, null).looked < 0.1, "nor those that come later than it would look");
});
test("where a processor has nothing to do a thread looks up to a millisecond, where it has it does not take it from the others", () => {
  const free = life(0.5, 2000, 0), half = life(0.5, 2000, 0.5), busy = life(0.5, 2000, 1);
  assert.ok(free.slept < 200, `${free.slept} of 2000 ms asleep beside nobody`);
  for (const l of [half, busy]) assert.ok(l.looked < 1, `${l.looked} ms looked beside others`);
  assert.ok(life(3, 2000, 0).looked < 10, "not for events that come later than that");
});
test("a thread that looks all the time stops when somebody wants the processor", () => {
  let now = 0, idle = 0;
  const linger = new Linger(() => idle, () => now);
  for (let n = 0; n < 20; n++) { now += 20; idle += 20; linger.woken(0.5); linger.after(); }
  assert.ok(linger.after() > 0.5);
  for (let n = 0; n < 11; n++) { now += 10; linger.looked(5); linger.after(); }        // the other half is a compiler's
  assert.equal(linger.after(), 0.2);
});
test("a computer that tells nothing is taken for a busy one", () => {
  let now = 0;
  const linger = new Linger(() => null, () => now);
  for (let n = 0; n < 20; n++) { now += 50; linger.woken(0.1); }
  assert.equal(linger.after(), 0.2);
});
