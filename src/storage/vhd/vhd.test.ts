/** VHD against qemu-img (package qemu-utils; its name for the format is vpc), both ways; crashes at every step; images that lie. */
import assert from "node:assert/strict";
import { open, readFile, writeFile } from "node:fs/promises";
import { after, test } from "node:test";
import { type ByteFile, DiskError } from "../disk.ts";
import { FixtureFile, mutated, random, randomBytes, sameBytes } from "../fixture.ts";
import { folder, run } from "../fixture.node.ts";
import { geometryOf } from "./format.ts";
import { createVhd, openVhd } from "./vhd.ts";

const dir = folder(), MIB = 1 << 20;
after(() => dir.cleanup());
/** A file of Node's, the least of it. */
async function nodeFile(path: string): Promise<ByteFile> {
  const f = await open(path, "r+").catch(() => open(path, "w+"));
  let { size } = await f.stat();
  return {
    name: path, isReadonly: false, get sizeBytes() { return size; },
    read: async (at, into) => { const { bytesRead } = await f.read(into, 0, into.length, at); into.fill(0, bytesRead); },
    write: async (at, from) => { await f.write(from, 0, from.length, at); size = Math.max(size, at + from.length); },
    flush: () => f.datasync(), truncate: async (n) => { await f.truncate(n); size = n; },
    punch: async (at, n) => { await f.write(new Uint8Array(n), 0, n, at); }, close: () => f.close(),
  };
}
const fault = (name: string, about: RegExp) => (e: unknown): boolean => {
  assert.ok(e instanceof DiskError, String(e));
  assert.deepEqual([e.fault, about.test(e.message)], [name, true], e.message);
  return true;
};

/** Make a header's checksum right again. */
function reseal(b: Uint8Array, at: number, n: number, field: number): void {
  const v = new DataView(b.buffer);
  v.setUint32(at + field, 0);
  v.setUint32(at + field, ~b.subarray(at, at + n).reduce((s, x) => s + x, 0) >>> 0);
}

for (const kind of ["fixed", "dynamic"] as const) {
  test(`qemu-img reads a ${kind} image of ours as it was written, with its exact size`, async () => {
    const path = dir.path(`ours-${kind}.vhd`), raw = dir.path(`ours-${kind}.raw`), sizeBytes = 9 * MIB + 512 * 3, next = random(1), want = new Uint8Array(sizeBytes);
    const fresh = await nodeFile(path);
    await createVhd(fresh, { sizeBytes, kind });
    await fresh.close();
    const disk = await openVhd(await nodeFile(path));
    assert.equal(disk.sizeBytes, sizeBytes);
    await Promise.all([0, 3 * MIB - 1024, 6 * MIB + 512, sizeBytes - 2048].map(async (at) => {
      const bytes = randomBytes(next, 2048);
      want.set(bytes, at);
      await disk.write(at, bytes);
    }));
    await disk.writeZeros(3 * MIB - 512, 512);
    want.fill(0, 3 * MIB - 512, 3 * MIB);
    await disk.close();
    await writeFile(raw, want);
    assert.equal(JSON.parse(await run("qemu-img", "info", "--output=json", "-f", "vpc", path))["virtual-size"], sizeBytes);
    await run("qemu-img", "compare", "-f", "vpc", "-F", "raw", path, raw);
    if (kind === "dynamic") assert.ok((await readFile(path)).length < sizeBytes + 2 * MIB);
  });

  test(`a ${kind} image of qemu-img's is read, written and still qemu's`, async () => {
    const raw = dir.path(`q-${kind}.raw`), path = dir.path(`q-${kind}.vhd`), next = random(2), want = new Uint8Array(8 * MIB);
    want.set(randomBytes(next, 100_000), 5 * MIB);
    await writeFile(raw, want);
    for (const force of ["on", "off"]) {
      await run("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", `subformat=${kind},force_size=${force}`, raw, path);
      const virtual = JSON.parse(await run("qemu-img", "info", "--output=json", "-f", "vpc", path))["virtual-size"] as number;
      const disk = await openVhd(await nodeFile(path)), got = new Uint8Array(virtual), all = new Uint8Array(virtual);
      assert.equal(disk.sizeBytes, virtual);
      all.set(want);
      await disk.read(0, got);
      sameBytes(got, all);
      const bytes = randomBytes(next, 5120);
      await disk.write(1024, bytes);
      all.set(bytes, 1024);
      await disk.close();
      await run("qemu-img", "convert", "-f", "vpc", "-O", "raw", path, `${raw}.back`);
      sameBytes(new Uint8Array(await readFile(`${raw}.back`)), all);
    }
  });
}

test("the geometry is the one that qemu-img writes for the same size", async () => {
  for (const mib of [1, 40, 504, 3000, 40_000, 130_000]) {
    const path = dir.path(`g${mib}.vhd`);
    await run("qemu-img", "create", "-f", "vpc", "-o", "subformat=dynamic,force_size=off", path, `${mib}M`);
    const f = await readFile(path), current = Number(f.readBigUInt64BE(48));
    assert.deepEqual(geometryOf(current), { cylinders: f.readUInt16BE(56), heads: f[58], sectors: f[59] }, `${mib} MiB`);
  }
});

test("a sector whose bit is clear reads as zeros whatever stands in the block; writing sets the bit, at the next flush, after the data", async () => {
  const file = new FixtureFile();
  await createVhd(file, { sizeBytes: 4 * MIB, kind: "dynamic" });
  let disk = await openVhd(file);
  await disk.write(0, new Uint8Array(4096).fill(7));
  await disk.close();
  const block = new DataView(file.bytes.buffer).getUint32(1536) * 512;
  file.bytes[block] = 0b10111111;
  disk = await openVhd(file);
  const got = new Uint8Array(1536);
  await disk.read(0, got);
  assert.deepEqual([got[0], got[512], got[1024]], [7, 0, 7]);
  file.ops = [];
  await disk.write(512, new Uint8Array(512).fill(8));
  await disk.flush();
  assert.deepEqual(file.ops.map((o) => [o.op, o.at]), [["write", block + 512 + 512], ["flush", 0], ["write", block], ["flush", 0]]);
  assert.equal(file.bytes[block], 0xff);
  await disk.close();
});

test("after a crash at any step the image opens, and holds what was flushed", async () => {
  const file = new FixtureFile();
  await createVhd(file, { sizeBytes: 16 * MIB, kind: "dynamic" });
  const base = file.bytes.slice(), disk = await openVhd(file), next = random(3), flushed: { step: number; want: Uint8Array }[] = [], want = new Uint8Array(65536 * 8);
  file.ops = [];
  for (let i = 0; i < 24; i++) {
    const at = next(8) * 65536, bytes = randomBytes(next, 512);
    await disk.write(at / 65536 * 2 * MIB, bytes);
    want.set(bytes, at);
    if (i % 3 === 2) { await disk.flush(); flushed.push({ step: file.ops.length, want: want.slice() }); }
  }
  for (let crash = 0; crash <= file.ops.length; crash += 1 + (crash % 3)) {
    // Writes since the last flush may have reached the medium or not, in any order.
    const lastFlush = file.ops.slice(0, crash).findLastIndex((o) => o.op === "flush"), copy = new FixtureFile(base.slice());
    for (const [i, o] of file.ops.slice(0, crash).entries()) {
      if (o.op !== "write") continue;
      if (i < lastFlush || next(2)) await copy.write(o.at, o.bytes!);
    }
    const again = await openVhd(copy), last = flushed.findLast((f) => f.step <= crash), later = file.ops.slice(last?.step ?? 0, crash).filter((o) => o.op === "write" && o.lengthBytes === 512);
    for (let b = 0; last && b < 8; b++) {
      const got = new Uint8Array(512);
      await again.read(b * 2 * MIB, got);
      const was = last.want.subarray(b * 65536, b * 65536 + 512);
      const isRewritten = later.some((o) => Buffer.compare(o.bytes!, got) === 0);
      assert.ok(isRewritten || Buffer.compare(got, was) === 0, `crash after step ${crash}, block ${b}`);
    }
    await again.write(8 * MIB + 4096, new Uint8Array(512).fill(1));
    await again.close();
    const ro = await openVhd(copy, { readonly: true });
    await assert.rejects(ro.write(0, new Uint8Array(512)), fault("readonly", /read-only/));
    await ro.close();
  }
});

test("a lost last footer is mended from the first", async () => {
  const file = new FixtureFile();
  await createVhd(file, { sizeBytes: 4 * MIB, kind: "dynamic" });
  const at = file.bytes.length - 512, footer = file.bytes.slice(at);
  file.bytes.fill(0, at);
  await (await openVhd(file)).close();
  sameBytes(file.bytes.slice(-512), footer);
});

test("when the medium is full the image stays whole, and goes on when there is room", async () => {
  const file = new FixtureFile(), bytes = new Uint8Array(512).fill(3), got = new Uint8Array(512);
  await createVhd(file, { sizeBytes: 8 * MIB, kind: "dynamic" });
  const disk = await openVhd(file);
  await disk.write(0, bytes);
  file.limitBytes = file.bytes.length + 1000;
  await assert.rejects(disk.write(2 * MIB, bytes), fault("nospace", /full/));
  await disk.flush();
  const meanwhile = await openVhd(new FixtureFile(file.bytes.slice()));
  await meanwhile.read(0, got);
  sameBytes(got, bytes);
  file.limitBytes = Number.POSITIVE_INFINITY;
  await disk.write(2 * MIB, bytes);
  await disk.read(2 * MIB, got);
  sameBytes(got, bytes);
  await disk.close();
});

test("writes that meet in one new block allocate it once", async () => {
  const file = new FixtureFile();
  await createVhd(file, { sizeBytes: 4 * MIB, kind: "dynamic" });
  const disk = await openVhd(file), size = file.bytes.length;
  await Promise.all(Array.from({ length: 64 }, (_, i) => disk.write(i * 512, new Uint8Array(512).fill(i + 1))));
  assert.equal(file.bytes.length, size + 2 * MIB + 512);
  const got = new Uint8Array(64 * 512);
  await disk.read(0, got);
  assert.deepEqual([...got.filter((_, i) => i % 512 === 0)], Array.from({ length: 64 }, (_, i) => i + 1));
  await assert.rejects(disk.read(4 * MIB, got), fault("range", /inside/));
  await assert.rejects(disk.resize(1), fault("unsupported", /size/));
  await disk.close();
});

test("differencing images, overlapping blocks and impossible headers are refused by name", async () => {
  const file = new FixtureFile();
  await createVhd(file, { sizeBytes: 8 * MIB, kind: "dynamic" });
  const disk = await openVhd(file);
  await disk.write(0, new Uint8Array(512));
  await disk.write(2 * MIB, new Uint8Array(512));
  await disk.close();
  const tries: [string, RegExp, (b: Uint8Array, v: DataView) => void][] = [
    ["unsupported", /differencing/, (b, v) => { v.setUint32(b.length - 512 + 60, 4); reseal(b, b.length - 512, 512, 64); }],
    ["corrupt", /more than a VHD/, (b, v) => { v.setBigUint64(b.length - 512 + 48, 2n ** 60n); reseal(b, b.length - 512, 512, 64); }],
    ["corrupt", /overlap/, (_b, v) => v.setUint32(1540, v.getUint32(1536) + 1)],
    ["corrupt", /past the end/, (_b, v) => v.setUint32(1540, 0x10000000)],
    ["corrupt", /headers or the table/, (_b, v) => v.setUint32(1540, 2)],
    ["corrupt", /blocks of 3 bytes/, (b, v) => { v.setUint32(512 + 32, 3); reseal(b, 512, 1024, 36); }],
    ["corrupt", /1 entries where 4/, (b, v) => { v.setUint32(512 + 28, 1); reseal(b, 512, 1024, 36); }],
    ["corrupt", /table at/, (b, v) => { v.setBigUint64(512 + 16, 2n ** 62n); reseal(b, 512, 1024, 36); }],
    ["corrupt", /is no VHD/, (b) => { b[0] = 0; b[b.length - 512] = 0; }],
  ];
  for (const [name, about, spoil] of tries) {
    const b = file.bytes.slice();
    spoil(b, new DataView(b.buffer));
    await assert.rejects(openVhd(new FixtureFile(b)), fault(name, about));
  }
});

test("spoiled images give errors of the image, or a disk that can be read", async () => {
  const file = new FixtureFile();
  await createVhd(file, { sizeBytes: 64 * 1024, kind: "dynamic" });
  let nrOpened = 0;
  for (let seed = 0; seed < 300; seed++) {
    const next = random(seed), bytes = seed % 10 === 0 ? randomBytes(next, next(4096)) : mutated(file.bytes, next);
    if (seed % 2 && bytes.length >= 2048) {                 // spoiled where no checksum tells
      const end = bytes.length - (bytes.length % 512);
      for (const at of [0, end - 512]) reseal(bytes, at, 512, 64);
      reseal(bytes, 512, 1024, 36);
    }
    try {
      const disk = await openVhd(new FixtureFile(bytes));
      nrOpened++;
      if (disk.sizeBytes) await disk.read(0, new Uint8Array(Math.min(disk.sizeBytes, MIB)));
      await disk.close();
    } catch (e) {
      assert.ok(e instanceof DiskError, `seed ${seed}: ${e}`);
    }
  }
  assert.ok(nrOpened > 10);
});

test("sizes that VHD cannot have are refused", async () => {
  for (const sizeBytes of [0, 513, 2041 * 2 ** 30, Number.NaN]) await assert.rejects(createVhd(new FixtureFile(), { sizeBytes, kind: "dynamic" }), fault("range", /cannot be/));
});
