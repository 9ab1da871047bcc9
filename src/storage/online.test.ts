import assert from "node:assert/strict";
import { test } from "node:test";
import { DiskError } from "./disk.ts";
import { FaultyFile, seededRandom } from "./file_faulty.ts";
import { MemoryFile, MemoryStore } from "./file_memory.ts";
import { DiskModel } from "./model.ts";
import { backupLive, LiveDisk, snapshotLive } from "./online.ts";
import { openDisk } from "./open.ts";
import { createQcow2 } from "./qcow2/create.ts";
import { openQcow2 } from "./qcow2/qcow2.ts";
import { RawDisk } from "./raw.ts";

const SIZE = 1200 * 512;
/** A store with one qcow2 image, opened, whose operations take a random while. */
async function live(random: () => number): Promise<{ store: MemoryStore; disk: LiveDisk }> {
  const store = new MemoryStore(), file = new MemoryFile("base.qcow2");
  await createQcow2(file, { sizeBytes: SIZE, clusterBytes: 4096 });
  store.files.set(file.name, new FaultyFile(file, { delay: async () => { for (let n = random() * 5; n > 1; n--) await null; } }));
  return { store, disk: new LiveDisk(await openDisk({ path: "base.qcow2", format: "qcow2", store })) };
}

test("a snapshot of a disk in use splits its writes: the file keeps those before, the overlay has all", async () => {
  for (let seed = 1; seed <= 6; seed++) {
    const random = seededRandom(seed), { store, disk } = await live(random), model = new DiskModel(SIZE, random);
    for (let i = 0; i < 30; i++) await model.step(disk);
    for (const [s, v] of model.now.entries()) if (v < 0) await model.write(disk, s, 1);
    const before = model.now.slice(), overlay = `over${seed}.qcow2`;
    const taken = snapshotLive(disk, store, overlay);
    for (let i = 0; i < 30; i++) await model.step(disk);
    await taken;
    await model.verify(disk);
    assert.equal(disk.name, overlay);
    await disk.close();
    const chain = await openDisk({ path: overlay, format: "qcow2", store, isReadonly: true }), base = await openDisk({ path: "base.qcow2", format: "qcow2", store, isReadonly: true });
    await model.verify(chain);
    await new DiskModel(SIZE, random, before).verify(base);
    await chain.close();
    await base.close();
  }
});

test("a backup of a disk in use is of one instant, however the guest writes meanwhile", async () => {
  for (let seed = 1; seed <= 6; seed++) {
    const random = seededRandom(seed), { disk } = await live(random), model = new DiskModel(SIZE, random), target = new MemoryFile("target.raw", new Uint8Array(SIZE));
    await model.write(disk, 0, 1200);
    const before = model.now.slice(), copied = backupLive(disk, new RawDisk(target));
    // No await: what is asked for after the copy comes after its instant.
    await Promise.all([0, 1, 2, 3].map(async (stripe) => { for (let i = 0; i < 30; i++) { const n = 1 + Math.floor(random() * 80); await model.write(disk, stripe * 300 + Math.floor(random() * (300 - n)), n); } }));
    await copied;
    await new DiskModel(SIZE, random, before).verify(new RawDisk(target));
    await model.verify(disk);
    await disk.close();
  }
});

test("a target that fails ends the backup and leaves the guest alone", async () => {
  const random = seededRandom(1), { disk } = await live(random), model = new DiskModel(SIZE, random), target = new FaultyFile(new MemoryFile("target.raw", new Uint8Array(SIZE)), { fault: (kind, at) => (kind === "write" && at > 300000 ? "nospace" : null) });
  await model.write(disk, 0, 1200);
  const copied = assert.rejects(backupLive(disk, new RawDisk(target)), (e) => e instanceof DiskError && e.fault === "nospace");
  for (let i = 0; i < 30; i++) await model.step(disk);
  await copied;
  await model.verify(disk);
  await disk.close();
});

test("a snapshot that cannot be made leaves the disk as it was", async () => {
  const random = seededRandom(1), { store, disk } = await live(random), model = new DiskModel(SIZE, random);
  await model.write(disk, 5, 9);
  store.files.set("taken", new MemoryFile("taken"));
  await assert.rejects(snapshotLive(disk, store, "taken"), (e) => e instanceof DiskError && e.fault === "exists");
  assert.equal(disk.name, "base.qcow2");
  await model.write(disk, 7, 9);
  await model.verify(disk);
  await disk.close();
  await assert.rejects(openQcow2(new MemoryFile("empty")), /empty is empty/);
});
