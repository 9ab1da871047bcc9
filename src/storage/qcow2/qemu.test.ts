/** Images that qemu-img made are read here, images made here are read by qemu-img. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import { copyDisk } from "../copy.ts";
import { DiskError } from "../disk.ts";
import { seededRandom } from "../file_faulty.ts";
import { NodeStore, openNodeFile } from "../file.node.ts";
import { openDisk } from "../open.ts";
import { check, repair } from "./check.ts";
import { createQcow2 } from "./create.ts";
import { openQcow2 } from "./qcow2.ts";
import { createSnapshot, readSnapshots } from "./snapshots.ts";

const folder = mkdtempSync(join(tmpdir(), "qemu-")), at = (name: string) => join(folder, name), store = new NodeStore(), unzstd = (frame: Uint8Array) => zstdDecompressSync(frame);
after(() => rmSync(folder, { recursive: true }));
const qemuImg = (...args: string[]): string => execFileSync("qemu-img", args, { encoding: "utf8", cwd: folder });
/** Fails with qemu-img's words when it finds errors or leaks. */
function assertWhole(path: string): void {
  const r = spawnSync("qemu-img", ["check", "-f", "qcow2", path], { encoding: "utf8", cwd: folder });
  assert.equal(r.status, 0, r.stdout + r.stderr);
}
/** A raw image of some text, some noise and much nothing. */
function rawImage(name: string, sizeBytes: number, seed: number): Uint8Array {
  const random = seededRandom(seed), bytes = new Uint8Array(sizeBytes);
  for (let i = 0; i < 12; i++) {
    const from = Math.floor(random() * sizeBytes), n = Math.floor(random() ** 2 * sizeBytes * 0.1), isText = random() < 0.6;
    for (let k = from; k < Math.min(sizeBytes, from + n); k++) bytes[k] = isText ? 97 + ((k * k) >> 9) % 7 : random() * 256;
  }
  writeFileSync(at(name), bytes);
  return bytes;
}
async function content(path: string, options: { snapshot?: string } = {}): Promise<Uint8Array> {
  const disk = await openDisk({ path: at(path), format: "qcow2", store, isReadonly: true, unzstd, ...options });
  try {
    const bytes = new Uint8Array(disk.sizeBytes);
    // Pieces that fit no cluster.
    for (let p = 0; p < bytes.length; p += 77 * 512) await disk.read(p, bytes.subarray(p, p + 77 * 512));
    return bytes;
  } finally { await disk.close(); }
}
const same = (a: Uint8Array, b: Uint8Array, what: string) => assert.ok(Buffer.compare(a, b) === 0, what);

test("images of qemu-img in all their forms are read, written to, and whole for qemu-img after it", async () => {
  const bytes = rawImage("raw", 3 << 20, 1);
  const forms = ["cluster_size=512", "cluster_size=2M", "compat=0.10", "compat=0.10,cluster_size=4k", "lazy_refcounts=on", "refcount_bits=1", "refcount_bits=64,cluster_size=1k", "refcount_bits=8,cluster_size=128k", "preallocation=metadata"];
  for (const form of forms) {
    qemuImg("convert", "-f", "raw", "-O", "qcow2", "-o", form, "raw", "form.qcow2");
    same(await content("form.qcow2"), bytes, form);
    const disk = await openDisk({ path: at("form.qcow2"), format: "qcow2", store }), changed = bytes.slice(), noise = new Uint8Array(200 * 512).fill(0xab);
    changed.set(noise, 700 * 512);
    changed.fill(0, 1 << 20, 2 << 20);
    await disk.write(700 * 512, noise);
    await disk.writeZeros(1 << 20, 1 << 20);
    await disk.close();
    same(await content("form.qcow2"), changed, form);
    assertWhole("form.qcow2");
    writeFileSync(at("changed"), changed);
    qemuImg("compare", "-f", "raw", "-F", "qcow2", "changed", "form.qcow2");
  }
});

test("compressed clusters are read, zlib's and zstd's, and give way to plain ones when written", async () => {
  const bytes = rawImage("raw", 2 << 20, 2);
  for (const form of ["compression_type=zlib", "cluster_size=512", "cluster_size=4k,compat=0.10", "cluster_size=2M", "compression_type=zstd", "compression_type=zstd,cluster_size=4k"]) {
    qemuImg("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", form, "raw", "packed.qcow2");
    same(await content("packed.qcow2"), bytes, form);
    const found = await check(await openNodeFile(at("packed.qcow2"), "read"));
    assert.ok(found.nrCompressedClusters > 0 && found.nrErrors === 0 && found.nrLeaks === 0, form);
    const disk = await openDisk({ path: at("packed.qcow2"), format: "qcow2", store, unzstd }), changed = bytes.slice();
    for (let p = 512; p < bytes.length; p += 90 * 512) { changed.fill(p / 512, p, p + 512); await disk.write(p, changed.subarray(p, p + 512)); }
    await disk.close();
    same(await content("packed.qcow2"), changed, form);
    assertWhole("packed.qcow2");
  }
  qemuImg("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", "raw", "packed.qcow2");
  const disk = await openDisk({ path: at("packed.qcow2"), format: "qcow2", store, isReadonly: true });
  await assert.rejects(disk.read(0, new Uint8Array(2 << 20)), (e) => e instanceof DiskError && e.fault === "unsupported" && /compressed with zstd/.test(e.message));
  await disk.close();
});

test("chains of backing files are read and written over, also where the backing file is shorter", async () => {
  const bytes = rawImage("base.raw", 1 << 20, 3);
  qemuImg("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", "2M");
  qemuImg("create", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "-o", "cluster_size=4k", "top.qcow2", "3M");
  const all = new Uint8Array(3 << 20);
  all.set(bytes);
  same(await content("top.qcow2"), all, "as made");
  for (const [path, sector] of [["mid.qcow2", 2046], ["top.qcow2", 2047], ["top.qcow2", 5]] as const) {
    const disk = await openDisk({ path: at(path), format: "qcow2", store });
    all.fill(sector, sector * 512, (sector + 3) * 512);
    await disk.write(sector * 512, all.slice(sector * 512, (sector + 3) * 512));
    if (path === "top.qcow2") { await disk.writeZeros(100 * 512, 100 * 512); all.fill(0, 100 * 512, 200 * 512); }
    await disk.close();
  }
  same(await content("top.qcow2"), all, "as changed");
  assertWhole("mid.qcow2");
  assertWhole("top.qcow2");
  writeFileSync(at("all"), all);
  qemuImg("compare", "-f", "raw", "-F", "qcow2", "all", "top.qcow2");
  same(readFileSync(at("base.raw")), bytes, "the base is untouched");
});

test("growing hides what a longer backing file has there", async () => {
  writeFileSync(at("long.raw"), new Uint8Array(1 << 20).fill(0xee));
  for (const compat of ["1.1", "0.10"]) {
    qemuImg("create", "-f", "qcow2", "-b", "long.raw", "-F", "raw", "-o", `cluster_size=4k,compat=${compat}`, "grown.qcow2", "103k");
    const disk = await openDisk({ path: at("grown.qcow2"), format: "qcow2", store });
    await disk.resize(8 << 20);
    await assert.rejects(disk.resize(512), /cannot be made smaller/);
    await disk.close();
    const found = await content("grown.qcow2");
    assert.deepEqual([found.length, found.lastIndexOf(0xee), found.indexOf(0)], [8 << 20, 103 * 1024 - 1, 103 * 1024]);
    assertWhole("grown.qcow2");
    assert.equal(JSON.parse(qemuImg("info", "--output=json", "grown.qcow2"))["virtual-size"], 8 << 20);
  }
});

test("snapshots of qemu-img are listed and read here, and ours there", async () => {
  const bytes = rawImage("raw", 1 << 20, 4);
  qemuImg("convert", "-f", "raw", "-O", "qcow2", "raw", "snap.qcow2");
  qemuImg("snapshot", "-c", "theirs", "snap.qcow2");
  const disk = await openQcow2(await openNodeFile(at("snap.qcow2"), "write"));
  await disk.write(4096, new Uint8Array(8192).fill(9));
  await createSnapshot(disk, "ours");
  await disk.writeZeros(0, 1 << 20);
  const listed = await readSnapshots(disk.metadata.file, disk.metadata.header);
  assert.deepEqual(listed.map((s) => [s.id, s.name, s.sizeBytes]), [["1", "theirs", 1 << 20], ["2", "ours", 1 << 20]]);
  await disk.close();
  assertWhole("snap.qcow2");
  same(await content("snap.qcow2", { snapshot: "theirs" }), bytes, "theirs");
  bytes.fill(9, 4096, 12288);
  same(await content("snap.qcow2", { snapshot: "2" }), bytes, "ours");
  qemuImg("convert", "-l", "snapshot.name=ours", "-O", "raw", "snap.qcow2", "out");
  same(readFileSync(at("out")), bytes, "ours, by qemu-img");
  qemuImg("snapshot", "-a", "ours", "snap.qcow2");
  same(await content("snap.qcow2"), bytes, "gone back to by qemu-img");
  qemuImg("snapshot", "-d", "theirs", "snap.qcow2");
  assertWhole("snap.qcow2");
});

test("images made here are copied into and read back by qemu-img", async () => {
  const bytes = rawImage("raw", 2 << 20, 5);
  for (const options of [{}, { clusterBytes: 512, refcountBits: 2 }, { clusterBytes: 2 << 20, version: 2 as const }, { clusterBytes: 4096, lazyRefcounts: true, refcountBits: 32 }]) {
    const file = await openNodeFile(at("made.qcow2"), "create");
    await createQcow2(file, { sizeBytes: bytes.length, ...options });
    const disk = await openQcow2(file), source = await openDisk({ path: at("raw"), format: "raw", store, isReadonly: true });
    await copyDisk(source, disk, { isTargetZero: true });
    await source.close();
    await disk.close();
    assertWhole("made.qcow2");
    qemuImg("compare", "-f", "raw", "-F", "qcow2", "raw", "made.qcow2");
    rmSync(at("made.qcow2"));
  }
});

test("what is discarded is given back to the file system, but not what a snapshot still has", async () => {
  qemuImg("create", "-q", "-f", "qcow2", "holes", "8M");
  // a file of many pieces has blocks that say where they are: they count too, and come with the holes
  const fill = new Uint8Array(4 << 20).fill(7), least = (4 << 20) - (64 << 10), blocks = (): number => statSync(at("holes")).blocks * 512, open = () => openDisk({ path: at("holes"), format: "qcow2", store });
  const fillAndDiscard = async (): Promise<number> => {
    const disk = await open();
    await disk.write(0, fill);
    await disk.flush();
    const full = blocks();
    await disk.discard(0, 4 << 20);
    await disk.close();
    return full;
  };
  const canPunch = spawnSync("sh", ["-c", "dd if=/dev/zero of=probe bs=64k count=1 2>/dev/null && fallocate -p -l 65536 probe"], { cwd: folder }).status === 0, full = await fillAndDiscard();
  const afterFirst = blocks();
  assert.ok(canPunch ? afterFirst <= full - least : afterFirst === full, `${full} bytes, then ${afterFirst}`);
  const disk = await open();
  await disk.write(0, fill);
  await disk.close();
  qemuImg("snapshot", "-c", "s", "holes");
  const kept = await fillAndDiscard();
  assert.ok(!canPunch || blocks() <= kept - least, `${kept} bytes, then ${blocks()}`);
  same((await content("holes", { snapshot: "s" })).subarray(0, fill.length), fill, "the snapshot");
  assertWhole("holes");
});

test("persistent bitmaps are counted until the image is opened for writing; then their clusters are leaks, as for qemu-img", async () => {
  qemuImg("create", "-f", "qcow2", "-o", "cluster_size=4k", "bitmap.qcow2", "64M");
  qemuImg("bitmap", "--add", "bitmap.qcow2", "b0");
  execFileSync("qemu-io", ["-f", "qcow2", "-c", "write 1M 1M", at("bitmap.qcow2")]);
  const count = async () => { const file = await openNodeFile(at("bitmap.qcow2"), "read"), found = await check(file); await file.close(); return [found.nrErrors, found.nrLeaks]; };
  assert.deepEqual(await count(), [0, 0]);
  await (await openDisk({ path: at("bitmap.qcow2"), format: "qcow2", store })).close();
  const r = spawnSync("qemu-img", ["check", "-f", "qcow2", "--output=json", at("bitmap.qcow2")], { encoding: "utf8" });
  assert.deepEqual(await count(), [0, JSON.parse(r.stdout).leaks]);
  const file = await openNodeFile(at("bitmap.qcow2"), "write");
  await repair(file, "leaks");
  await file.close();
  assertWhole("bitmap.qcow2");
});

test("both checks find the same leaks and errors, and a repair here satisfies qemu-img", async () => {
  rawImage("raw", 1 << 20, 6);
  const reports = (): [number, number] => {
    const r = spawnSync("qemu-img", ["check", "-f", "qcow2", "--output=json", "hurt.qcow2"], { encoding: "utf8", cwd: folder }), found = JSON.parse(r.stdout);
    return [found.corruptions ?? 0, found.leaks ?? 0];
  };
  for (const [what, hurt, nrErrors, nrLeaks] of [
    ["leak", (v: DataView) => v.setUint16(v.byteLength - 4, 1), 0, 1],
    ["two users", (v: DataView) => v.setUint16(12, 0), 1, 0],
    ["high", (v: DataView) => v.setUint16(12, 2), 1, 1],
  ] as const) {
    qemuImg("convert", "-f", "raw", "-O", "qcow2", "raw", "hurt.qcow2");
    const bytes = new Uint8Array(readFileSync(at("hurt.qcow2")));
    hurt(new DataView(bytes.buffer, 2 * 65536, 65536));
    writeFileSync(at("hurt.qcow2"), bytes);
    const file = await openNodeFile(at("hurt.qcow2"), "write"), found = await check(file), theirs = reports();
    assert.equal(found.nrErrors > 0, theirs[0] > 0, `${what}: ${found.errors} ${theirs}`);
    assert.deepEqual([found.nrErrors > 0 ? 1 : 0, found.nrLeaks], [nrErrors, nrLeaks], `${what}: ${found.errors}`);
    const left = await repair(file, "all");
    assert.deepEqual([left.nrErrors, left.nrLeaks], [0, 0], what);
    await file.close();
    assertWhole("hurt.qcow2");
    qemuImg("compare", "-f", "raw", "-F", "qcow2", "raw", "hurt.qcow2");
  }
});

test("an image that QEMU left dirty is counted anew when it is opened for writing", async () => {
  qemuImg("create", "-f", "qcow2", "-o", "lazy_refcounts=on,cluster_size=4k", "lazy.qcow2", "64M");
  // Writes with lazy refcounts, then dies as in a crash.
  const r = spawnSync("qemu-io", ["-f", "qcow2", "-c", "write -P 7 0 1M", "-c", "write -P 8 40M 1M", "-c", "flush", "-c", "sigraise 9", "lazy.qcow2"], { cwd: folder });
  assert.equal(r.signal, "SIGKILL");
  assert.notEqual(spawnSync("qemu-img", ["check", "lazy.qcow2"], { cwd: folder }).status, 0);
  const disk = await openDisk({ path: at("lazy.qcow2"), format: "qcow2", store }), into = new Uint8Array(1 << 20);
  await disk.read(40 << 20, into);
  assert.ok(into.every((b) => b === 8));
  await disk.write(20 << 20, into);
  await disk.close();
  assertWhole("lazy.qcow2");
});
