import assert from "node:assert/strict";
import { test } from "node:test";
import { Views } from "../base/views.ts";
import { RECS_AT, RECS_BYTES, NO_HEADS_AT, PCPU_BYTES, REC } from "./layout.ts";
import { RECORDS_MAX, RecordMap } from "./record-map.ts";
import { type Records, recordsModule } from "./records.ts";

test("a page's records are found by their offsets, up to one at every byte and the area's last, and as a Map finds them", () => {
  assert.ok(RECS_BYTES / REC.size < RECORDS_MAX, "or the last could be taken for a free place");
  const memory = new WebAssembly.Memory({ initial: PCPU_BYTES >> 16, maximum: 65536, shared: true }), v = new Views(memory.buffer as unknown as SharedArrayBuffer), map = new RecordMap(v, 0), model = new Map<number, number>();
  const { setRecord } = new WebAssembly.Instance(new WebAssembly.Module(recordsModule({ min: 1, max: 65536, shared: true }, 0, { linksAhead: true, warmAfter: 0 })), { e: { memory } }).exports as unknown as Records;
  RecordMap.clear(v, NO_HEADS_AT);
  assert.deepEqual([map.isEmpty, map.get(0), map.has(4095), map.offsets()], [true, undefined, false, []]);
  map.heads = RECS_AT;
  RecordMap.clear(v, map.heads);
  const base = RECS_AT + 1024, nrRecords = (RECS_BYTES - 1024) / REC.size, free = new Set<number>();
  let x = 1, next = 0;
  const random = (n: number): number => (x = (x * 1103515245 + 12345) % 2 ** 31) % n;
  for (let i = 0; i < 9000; i++) {
    const offset = i < 4096 ? i * 1021 % 4096 : random(4096), [old] = free, record = i === 77 ? base + (Math.floor(nrRecords) - 1) * REC.size : i % 3 === 0 && old !== undefined ? old : base + next++ * REC.size;
    free.delete(record);
    if (i < 300 || i % 16 === 0) assert.deepEqual([map.get(offset), map.has(offset)], [model.get(offset), model.has(offset)]);
    const before = model.get(offset);
    setRecord(map.heads, offset, record);
    model.set(offset, record);
    if (before !== undefined) free.add(before);
    assert.equal(map.get(offset), record);
    if ([0, 11, 12, 4095, 8999].includes(i)) assert.deepEqual(map.offsets(), [...model.keys()].sort((a, b) => a - b));
  }
  assert.equal(map.offsets().length, 4096);
  for (const [offset, record] of model) assert.equal(map.get(offset), record);
});
