import assert from "node:assert/strict";
import { test } from "node:test";
import { detachBlock } from "./devices.ts";
import type { Resident } from "./residents.ts";

test("a disk that cannot be flushed when it is taken away is told of, and is away", async () => {
  const disk = { name: "data.img", close: () => Promise.reject(new Error("no space left")) }, kept = { name: "root.img", close: () => Promise.resolve() };
  const r: Parameters<typeof detachBlock>[0] = { name: "guest", domain: { detachDisk: async () => {} }, disks: [{ vdev: "xvda", disk: kept }, { vdev: "xvdb", disk }], config: { disks: [{ vdev: "xvda" }, { vdev: "xvdb" }] }, change(how: (c: typeof r.config) => typeof r.config) { (r as { config: object }).config = how(r.config); } } as unknown as Parameters<typeof detachBlock>[0];
  await assert.rejects(detachBlock(r, "xvdb", false), /^ApiFault: xvdb is taken from guest, but what was written last may be lost: data\.img: no space left$/);
  assert.deepEqual([r.disks.map((d) => d.vdev), r.config.disks!.map((d) => d.vdev)], [["xvda"], ["xvda"]]);
  await detachBlock(r, "xvda", false);
  assert.deepEqual((r as Resident).disks, []);
});
