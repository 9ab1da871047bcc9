import assert from "node:assert/strict";
import { test } from "node:test";
import { DiskError } from "./disk.ts";
import { seededRandom } from "./file_faulty.ts";
import { MemoryFile } from "./file_memory.ts";
import { DiskModel } from "./model.ts";
import { MemoryOverlay } from "./overlay.ts";
import { RawDisk } from "./raw.ts";

async function base(sizeBytes: number, random: () => number): Promise<{ file: MemoryFile; disk: RawDisk; model: DiskModel }> {
  const file = new MemoryFile("base.raw", new Uint8Array(sizeBytes)), disk = new RawDisk(file, false), model = new DiskModel(sizeBytes, random);
  await model.write(disk, 0, sizeBytes / 512);
  return { file, disk: new RawDisk(file, true), model };
}

test("random requests find what a plain array holds, and the base stays as it was", async () => {
  for (let seed = 1; seed <= 5; seed++) {
    const random = seededRandom(seed), { file, disk, model } = await base(1001 * 512, random), before = file.bytes(), overlay = new MemoryOverlay(disk);
    for (let i = 0; i < 300; i++) await model.step(overlay);
    await model.verify(overlay);
    assert.deepEqual(file.bytes(), before);
    await overlay.close();
  }
});

test("memory is bounded, zeros take none, and what does not fit is refused as a full disk", async () => {
  const { disk } = await base(64 * 4096, seededRandom(1)), overlay = new MemoryOverlay(disk, { maxBytes: 4 * 4096 });
  await overlay.writeZeros(0, 64 * 4096);
  assert.equal(overlay.usedBytes, 0);
  await overlay.write(512, new Uint8Array(4 * 4096 - 512).fill(1));
  await assert.rejects(overlay.write(60 * 4096, new Uint8Array(512)), (e) => e instanceof DiskError && e.fault === "nospace" && /take 16384 bytes of memory/.test(e.message));
  await overlay.writeZeros(4096, 4096);
  await overlay.write(60 * 4096, new Uint8Array(512).fill(2));
  assert.equal(overlay.usedBytes, 4 * 4096);
});

test("what was cut off does not come back", async () => {
  const { disk } = await base(8 * 4096, seededRandom(1)), overlay = new MemoryOverlay(disk), into = new Uint8Array(4096);
  await overlay.write(3 * 4096, into.fill(7));
  await overlay.resize(512);
  await overlay.resize(16 * 4096);
  for (const at of [512, 4096, 3 * 4096, 15 * 4096]) {
    await overlay.read(at, into.fill(1));
    assert.ok(into.every((b) => b === 0), `at ${at}`);
  }
});
