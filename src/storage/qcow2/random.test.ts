/** Random requests against a plain array, with power cuts at every write. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { DiskError } from "../disk.ts";
import { FaultyFile, seededRandom } from "../file_faulty.ts";
import { MemoryFile } from "../file_memory.ts";
import { DiskModel } from "../model.ts";
import { RawDisk } from "../raw.ts";
import { check } from "./check.ts";
import { createQcow2, type CreateQcow2Options } from "./create.ts";
import { openQcow2, type Qcow2Disk, type Qcow2Options } from "./qcow2.ts";
import { applySnapshot, createSnapshot, deleteSnapshot } from "./snapshots.ts";

const folder = mkdtempSync(join(tmpdir(), "qcow2-"));
after(() => rmSync(folder, { recursive: true }));

/** What qemu-img says of an image: 0 clean, 2 errors, 3 leaks. */
function qemuCheck(file: MemoryFile): { status: number | null; said: string } {
  const path = join(folder, "check.qcow2");
  writeFileSync(path, file.bytes());
  const r = spawnSync("qemu-img", ["check", "-f", "qcow2", path], { encoding: "utf8" });
  return { status: r.status, said: r.stdout + r.stderr };
}
async function image(options: CreateQcow2Options): Promise<MemoryFile> {
  const file = new MemoryFile("image.qcow2");
  await createQcow2(file, options);
  return file;
}
/** A raw backing disk that holds write 1 in its first `nrSectors`, and the model's beginning. */
async function backed(sizeBytes: number, nrSectors: number, random: () => number): Promise<{ openBacking: () => Promise<RawDisk>; start: Int32Array }> {
  const base = new MemoryFile("base.raw", new Uint8Array(nrSectors * 512)), raw = new RawDisk(base), model = new DiskModel(nrSectors * 512, random);
  await model.write(raw, 0, nrSectors);
  const start = new Int32Array(sizeBytes / 512);
  start.set(model.now);
  return { openBacking: async () => new RawDisk(new MemoryFile("base.raw", base.bytes(), true)), start };
}
const FORMS: (Omit<CreateQcow2Options, "sizeBytes"> & { backedSectors?: number })[] = [
  { clusterBytes: 512 }, { clusterBytes: 4096, version: 2 }, { clusterBytes: 65536 }, { clusterBytes: 512, refcountBits: 1 }, { clusterBytes: 4096, refcountBits: 64 }, { clusterBytes: 1024, refcountBits: 8, lazyRefcounts: true },
  { clusterBytes: 2 << 20, refcountBits: 2 }, { clusterBytes: 4096, backedSectors: 1500 }, { clusterBytes: 512, version: 2, backedSectors: 700 }, { clusterBytes: 65536, backedSectors: 1999 },
];
async function openForm(form: (typeof FORMS)[number], sizeBytes: number, random: () => number): Promise<{ mem: MemoryFile; model: DiskModel; options: Qcow2Options }> {
  const { backedSectors, ...create } = form, backing = backedSectors ? await backed(sizeBytes, backedSectors, random) : null;
  const mem = await image({ ...create, sizeBytes, ...(backing ? { backing: { path: "base.raw", format: "raw" } } : {}) }), model = new DiskModel(sizeBytes, random, backing?.start ?? null);
  model.nrWrites = 1;
  return { mem, model, options: { cacheBytes: 0, ...(backing ? { openBacking: backing.openBacking } : {}) } };
}

test("after random requests in overlap the disk holds what a plain array holds, and both checks find the image whole", async () => {
  for (const [seed, form] of FORMS.entries()) {
    const random = seededRandom(seed + 1), sizeBytes = 2000 * 512, { mem, model, options } = await openForm(form, sizeBytes, random);
    const file = new FaultyFile(mem, { delay: async () => { for (let n = random() * 6; n > 1; n--) await null; } });
    const disk = await openQcow2(file, options), stripes = 4, perStripe = 500;
    // Writers of neighbouring stripes share clusters; each stripe's requests come one after the other, so that the model knows what the disk must hold.
    await Promise.all(Array.from({ length: stripes }, async (_, s) => {
      for (let i = 0; i < 40; i++) {
        const n = 1 + Math.floor(random() ** 3 * 60), at = s * perStripe + Math.floor(random() * (perStripe - n)), r = random();
        if (r < 0.6) await model.write(disk, at, n);
        else if (r < 0.8) await model.verify(disk, at, n);
        else if (r < 0.9) { await disk.writeZeros(at * 512, n * 512); model.now.fill(0, at, at + n); }
        else await disk.flush();
      }
    }));
    await model.verify(disk);
    await disk.close();
    const found = await check(mem);
    assert.deepEqual([found.nrErrors, found.nrLeaks, found.errors], [0, 0, []], JSON.stringify(form));
    if (!form.backedSectors) { const q = qemuCheck(mem); assert.equal(q.status, 0, q.said); }
    const again = await openQcow2(mem, options);
    await model.verify(again);
    await again.close();
  }
});

test("a power cut at any write leaves an image without errors that holds every flushed write", async () => {
  for (const [seed, form] of FORMS.entries()) {
    if (form.clusterBytes! > 65536) continue;
    const random = seededRandom(seed + 100), sizeBytes = 2000 * 512, { mem, model, options } = await openForm(form, sizeBytes, random), file = new FaultyFile(mem), disk = await openQcow2(file, options);
    let nrCuts = 0;
    for (let step = 0, seen = 0; step < 60; step++) {
      const nowBefore = model.now.slice(), sinceBefore = new Map([...model.since].map(([s, v]) => [s, [...v]])), nrFlushed = model.since.size;
      await model.step(disk);
      const isFlush = model.since.size < nrFlushed;
      for (let cut = seen + 1; cut <= file.log.length; cut++) {
        if (random() < 0.8 && cut < file.log.length) continue;
        const left = file.afterPowerCut(cut, random), found = await check(left), where = `${JSON.stringify(form)}, step ${step}, change ${cut} of ${file.log.length}`;
        assert.deepEqual([found.nrErrors, found.errors], [0, []], where);
        if (++nrCuts % 40 === 0 && !form.backedSectors) { const q = qemuCheck(left); assert.ok(q.status === 0 || q.status === 3, `${where}: ${q.said}`); }
        const after = await openQcow2(left, options), isBefore = isFlush && cut < file.log.length;
        await model.verifyCrashed(after, isBefore ? nowBefore : model.now, isBefore ? sinceBefore : model.since).catch((e) => { throw new Error(`${where}: ${e.message}`); });
        await after.close();
      }
      seen = file.log.length;
    }
    await disk.close();
    assert.ok(nrCuts > 20);
  }
});

test("the same with writers and flushes in overlap: what had returned when a flush was asked for, and that flush too, is there", async () => {
  for (const [seed, form] of FORMS.entries()) {
    if (form.clusterBytes! > 65536) continue;
    const random = seededRandom(seed + 6300), sizeBytes = 2000 * 512, { mem, model, options } = await openForm(form, sizeBytes, random);
    const file = new FaultyFile(mem, { delay: async () => { for (let n = random() * 8; n > 1; n--) await null; } }), disk = await openQcow2(file, options), start = model.now.slice();
    /** By sector: its writes, with the clock when they returned. Flushes: the clock when asked for, the log's length when they returned. */
    const writes = new Map<number, { nr: number; returned: number }[]>(), flushes: { asked: number; logged: number }[] = [];
    let clock = 0;
    await Promise.all(Array.from({ length: 4 }, async (_, stripe) => {
      for (let i = 0; i < 25; i++) {
        const n = 1 + Math.floor(random() ** 3 * 100), at = stripe * 500 + Math.floor(random() * (500 - n)), r = random();
        if (r > 0.75) {
          const asked = ++clock;
          await disk.flush();
          flushes.push({ asked, logged: file.log.length });
          continue;
        }
        const entry = { nr: r < 0.6 ? model.nrWrites + 1 : 0, returned: Number.POSITIVE_INFINITY };
        for (let s = at; s < at + n; s++) writes.set(s, [...(writes.get(s) ?? []), entry]);
        if (entry.nr) await model.write(disk, at, n); else await disk.writeZeros(at * 512, n * 512);
        entry.returned = ++clock;
      }
    }));
    await disk.close();
    for (let cut = 1; cut <= file.log.length; cut += 1 + Math.floor(random() * (form.clusterBytes === 512 ? 5 : 12))) {
      const asked = Math.max(0, ...flushes.filter((f) => f.logged <= cut).map((f) => f.asked)), allowed = new Map<number, number[]>(), where = `${JSON.stringify(form)}, change ${cut} of ${file.log.length}`;
      for (let s = 0; s < 2000; s++) {
        const list = writes.get(s) ?? [], safe = list.findLastIndex((w) => w.returned < asked);
        allowed.set(s, [...(safe < 0 ? [start[s]!] : []), ...list.slice(Math.max(0, safe)).map((w) => w.nr)]);
      }
      const left = file.afterPowerCut(cut, random), found = await check(left);
      assert.deepEqual([found.nrErrors, found.errors], [0, []], where);
      const after = await openQcow2(left, options);
      await model.verifyCrashed(after, start, allowed).catch((e) => { throw new Error(`${where}: ${e.message}`); });
      await after.close();
    }
  }
});

test("snapshots are made, read, gone back to and deleted in any order, and both checks find the image whole", async () => {
  for (const [seed, form] of FORMS.entries()) {
    if (form.refcountBits === 1 || form.refcountBits === 2) continue;
    const random = seededRandom(seed + 200), sizeBytes = 2000 * 512, { mem, model, options } = await openForm(form, sizeBytes, random), kept = new Map<string, Int32Array>();
    let disk: Qcow2Disk = await openQcow2(mem, options);
    for (let i = 0; i < 6; i++) {
      for (let k = 0; k < 8; k++) await model.step(disk);
      const names = [...kept.keys()], name = names[Math.floor(random() * names.length)], r = random();
      // What a discarded sector holds is nobody's business: written anew, so that the snapshot is certain.
      for (const [s, v] of model.now.entries()) if (v < 0) await model.write(disk, s, 1);
      if (r < 0.5 || name === undefined) { await createSnapshot(disk, `s${i}`); kept.set(`s${i}`, model.now.slice()); }
      else if (r < 0.75) { await deleteSnapshot(disk, name); kept.delete(name); }
      else { await applySnapshot(disk, name); model.now.set(kept.get(name)!); model.since.clear(); }
      await model.verify(disk);
      await disk.close();
      const found = await check(mem);
      assert.deepEqual([found.nrErrors, found.nrLeaks, found.errors], [0, 0, []], `${JSON.stringify(form)}, round ${i}`);
      if (!form.backedSectors && i === 5) { const q = qemuCheck(mem); assert.equal(q.status, 0, q.said); }
      for (const [n, now] of kept) {
        const view = await openQcow2(mem, { ...options, snapshot: n });
        await new DiskModel(sizeBytes, random, now).verify(view);
        await view.close();
      }
      disk = await openQcow2(mem, options);
    }
    await disk.close();
  }
});

test("a power cut while a snapshot is made, gone back to or deleted costs a repair at the next opening, and nothing else", async () => {
  for (const clusterBytes of [512, 4096]) {
    const random = seededRandom(clusterBytes), sizeBytes = 300 * 512, mem = await image({ sizeBytes, clusterBytes }), file = new FaultyFile(mem), disk = await openQcow2(file), first = new DiskModel(sizeBytes, random);
    await first.write(disk, 10, 200);
    await createSnapshot(disk, "first");
    const second = new DiskModel(sizeBytes, random, first.now);
    second.nrWrites = 1;
    await second.write(disk, 100, 50);
    await second.flush(disk);
    for (const act of [() => createSnapshot(disk, "second"), () => applySnapshot(disk, "first"), () => deleteSnapshot(disk, "first"), () => deleteSnapshot(disk, "second")]) {
      const from = file.log.length, before = act.toString().includes("apply") || act.toString().includes("create") ? second : first;
      await act();
      for (let cut = from; cut <= file.log.length; cut++) {
        const left = file.afterPowerCut(cut, random), after = await openQcow2(left), found = await check(left);
        assert.deepEqual([found.nrErrors, found.nrLeaks, found.isDirty, found.errors], [0, cut === file.log.length ? 0 : found.nrLeaks, false, []], `${act}, change ${cut - from}`);
        await before.verify(after).catch(() => first.verify(after)).catch((e) => { throw new Error(`${act}, change ${cut - from} of ${file.log.length - from}: ${e.message}`); });
        for (const name of ["first", "second"]) {
          const view = await openQcow2(left, { snapshot: name }).catch(() => null);
          if (view) await (name === "first" ? first : second).verify(view).catch((e) => { throw new Error(`${act}, change ${cut - from}, snapshot ${name}: ${e.message}`); });
        }
        await after.close();
      }
    }
    await disk.close();
  }
});

test("a power cut while the refcount table or the disk grows leaves the old one or the new", async () => {
  const random = seededRandom(5), sizeBytes = 6000 * 512, mem = await image({ sizeBytes, clusterBytes: 512, refcountBits: 64 }), file = new FaultyFile(mem), disk = await openQcow2(file, { cacheBytes: 0 }), model = new DiskModel(sizeBytes, random);
  const reftables = new Set<number>();
  let grown = 0;
  for (let at = 0; at < 6000; at += 200) {
    const from = file.log.length, before = model.now.slice();
    await model.write(disk, at, 200);
    await model.flush(disk);
    const hasGrown = reftables.size > 0 && !reftables.has(disk.header.reftableAt);
    reftables.add(disk.header.reftableAt);
    if (!hasGrown) continue;
    grown++;
    for (let cut = from; cut <= file.log.length; cut++) {
      const left = file.afterPowerCut(cut, random), found = await check(left), after = await openQcow2(left), allowed = new Map(Array.from({ length: 200 }, (_, i) => [at + i, [before[at + i]!, model.now[at + i]!]]));
      assert.deepEqual([found.nrErrors, found.errors], [0, []], `at ${at}, change ${cut - from}`);
      await model.verifyCrashed(after, before, cut < file.log.length ? allowed : new Map(Array.from({ length: 200 }, (_, i) => [at + i, [model.now[at + i]!]])));
      await model.write(after, 0, 300);
      await after.close();
      assert.equal((await check(left)).nrErrors, 0);
    }
  }
  assert.ok(grown > 0);
  await disk.close();
  const q = qemuCheck(mem);
  assert.equal(q.status, 0, q.said);

  const { openBacking } = await backed(700 * 512, 700, random), top = await image({ sizeBytes: 500 * 512, clusterBytes: 512, backing: { path: "base.raw", format: "raw" } }), growing = new FaultyFile(top), over = await openQcow2(growing, { openBacking });
  await over.write(499 * 512, new Uint8Array(512).fill(9));
  await over.flush();
  const from = growing.log.length;
  await over.resize(9000 * 512);
  await over.close();
  for (let cut = from; cut <= growing.log.length; cut++) {
    const left = growing.afterPowerCut(cut, random), found = await check(left), after = await openQcow2(left, { openBacking }), bytes = new Uint8Array(after.sizeBytes);
    assert.deepEqual([found.nrErrors, found.errors], [0, []], `resize, change ${cut - from}`);
    assert.ok(after.sizeBytes === 500 * 512 || after.sizeBytes === 9000 * 512);
    await after.read(0, bytes);
    assert.ok(bytes[499 * 512] === 9 && bytes.subarray(500 * 512).every((b) => b === 0), `resize, change ${cut - from}`);
    await after.close();
  }
});

test("a medium that fails now and then loses no more than the requests that failed", async () => {
  let nrFailed = 0;
  for (const [seed, form] of Array.from({ length: 36 }, (_, i) => [i, FORMS[i % 3]!] as const)) {
    const random = seededRandom(seed), sizeBytes = 2000 * 512, { mem, model, options } = await openForm(form, sizeBytes, random);
    let isFailing = false;
    const file = new FaultyFile(mem, { delay: async () => { for (let n = random() * 6; n > 1; n--) await null; }, fault: () => (isFailing && random() < 0.04 ? "io" : null) }), disk = await openQcow2(file, options);
    isFailing = true;
    await Promise.all(Array.from({ length: 4 }, async (_, stripe) => {
      for (let i = 0; i < 40; i++) {
        const n = 1 + Math.floor(random() ** 3 * 100), at = stripe * 500 + Math.floor(random() * (500 - n)), r = random();
        const act = r < 0.6 ? () => model.write(disk, at, n) : r < 0.8 ? () => { model.now.fill(0, at, at + n); return disk.writeZeros(at * 512, n * 512); } : r < 0.9 ? () => model.verify(disk, at, n) : () => disk.flush();
        await act().catch((e) => {
          assert.ok(e instanceof DiskError && e.fault === "io", e.stack);
          nrFailed++;
          if (r < 0.8) model.now.fill(-1, at, at + n);
        });
      }
    }));
    isFailing = false;
    for (const [s, v] of model.now.entries()) if (v < 0) await model.write(disk, s, 1);
    await model.verify(disk);
    await disk.close();
    const found = await check(mem);
    assert.deepEqual([found.nrErrors, found.nrLeaks, found.errors], [0, 0, []], `seed ${seed}`);
  }
  assert.ok(nrFailed > 100);
});

test("zeros over the end of one cluster and a write to the next, at the same time, both happen", async () => {
  for (let seed = 1; seed <= 15; seed++) {
    const random = seededRandom(seed), { mem, model, options } = await openForm({ clusterBytes: 4096, backedSectors: 1999 }, 2000 * 512, random);
    const disk = await openQcow2(new FaultyFile(mem, { delay: async () => { for (let n = random() * 8; n > 1; n--) await null; } }), options);
    await Promise.all(Array.from({ length: 20 }, async (_, k) => {
      const edge = 8 * (k + 1) * 8;
      await Promise.all([disk.writeZeros((edge - 1) * 512, 1024), model.write(disk, edge + 2, 3)]);
      model.now.fill(0, edge - 1, edge + 1);
    }));
    await model.verify(disk);
    await disk.close();
    assert.deepEqual((await check(mem)).nrErrors, 0);
  }
});

test("a commit that begins at any moment of handing out clusters leaves no block in use uncounted", async () => {
  for (const count of [70, 130]) for (let tick = 0; tick < 30; tick++) {
    // 64 clusters to a block: new ones are needed, one of them counted by another.
    const mem = await image({ sizeBytes: 2000 * 512, clusterBytes: 512, refcountBits: 64 }), file = new FaultyFile(mem), disk = await openQcow2(file), handed = disk.metadata.refcounts.allocate(count, true);
    for (let k = 0; k < tick; k++) await null;
    await disk.metadata.commit();
    await handed;
    for (let cut = 1; cut <= file.log.length; cut++) {
      const found = await check(file.afterPowerCut(cut, seededRandom(tick * 100 + cut)));
      assert.deepEqual([found.nrErrors, found.errors], [0, []], `${count} clusters, a commit after ${tick} steps, change ${cut}`);
    }
    await disk.close();
  }
});
