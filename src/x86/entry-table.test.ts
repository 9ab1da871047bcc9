import assert from "node:assert/strict";
import { test } from "node:test";
import { entryTable, slotOf } from "./entry-table.ts";

test("each position has a slot of its own, also positions of other pages and before the home page", () => {
  let seed = 1;
  const random = (n: number) => { seed = Math.imul(seed, 1103515245) + 12345 | 0; return (seed >>> 8) % n; };
  for (const n of [0, 1, 2, 3, 17, 100, 320]) for (let round = 0; round < 20; round++) {
    const positions = [...new Set(Array.from({ length: n }, () => (random(9) - 4) * 4096 * (round + 1) + random(4096)))], t = entryTable(positions);
    assert.equal(new Set(positions.map(p => slotOf(t, p))).size, positions.length);
    for (const [slot, entry] of t.slots) assert.equal(slotOf(t, positions[entry]!), slot);
    assert.ok(t.nrSlots <= Math.max(8, positions.length * 8), `${t.nrSlots} slots for ${positions.length}`);
  }
});
