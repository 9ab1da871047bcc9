import assert from "node:assert/strict";
import { test } from "node:test";
import { mbr, PARTITION_AT } from "./mbr.ts";

test("the one partition reaches from 1 MiB to the disk's end (UEFI 5.2.1)", () => {
  const sector = mbr(2 ** 32, 0x12345678), view = new DataView(sector.buffer);
  assert.equal(sector.length, 512);
  assert.equal(view.getUint32(440, true), 0x12345678);
  assert.deepEqual([...sector.subarray(446, 454)], [0, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
  assert.equal(view.getUint32(454, true) * 512, PARTITION_AT);
  assert.equal((view.getUint32(454, true) + view.getUint32(458, true)) * 512, 2 ** 32);
  assert.ok(sector.subarray(462, 510).every((b) => b === 0), "the other three are unused");
  assert.equal(view.getUint16(510, true), 0xaa55);
});
