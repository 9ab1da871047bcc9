import assert from "node:assert/strict";
import { test } from "node:test";
import { RECS_BYTES, REC } from "./layout.ts";
import { RECORDS_MAX, RecordMap } from "./record-map.ts";

test("a page's records are found by their offsets, up to one at every byte and the area's last, and as a Map finds them", () => {
  assert.ok(RECS_BYTES / REC.size < RECORDS_MAX, "or the last could be taken for a free place");
  const base = 0xf0000000, last = base + (RECS_BYTES / REC.size - 1) * REC.size, map = new RecordMap(base), model = new Map<number, number>();
  let x = 1;
  const random = (n: number): number => (x = (x * 1103515245 + 12345) % 2 ** 31) % n;
  for (let i = 0; i < 9000; i++) {
    const offset = i < 4096 ? i * 1021 % 4096 : random(4096), record = i % 7 === 0 ? last : base + random(RECS_BYTES / REC.size) * REC.size;
    if (i < 300 || i % 16 === 0) assert.deepEqual([map.get(offset), map.has(offset)], [model.get(offset), model.has(offset)]);
    map.set(offset, record);
    model.set(offset, record);
    assert.equal(map.get(offset), record);
    if ([0, 11, 12, 4095].includes(i)) assert.deepEqual(map.offsets(), [...model.keys()].sort((a, b) => a - b));
  }
  assert.equal(map.offsets().length, 4096);
});
