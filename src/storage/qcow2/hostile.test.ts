/** Images made to mislead: each is refused with a sentence that names it, soon, and before much memory is taken. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fuzzOne } from "../../../tools/fuzz/qcow2.ts";
import { DiskError, type DiskFault } from "../disk.ts";
import { FaultyFile, seededRandom } from "../file_faulty.ts";
import { MemoryFile, MemoryStore } from "../file_memory.ts";
import { DiskModel } from "../model.ts";
import { openDisk } from "../open.ts";
import { RawDisk } from "../raw.ts";
import { check, repair } from "./check.ts";
import { createQcow2 } from "./create.ts";
import { openQcow2 } from "./qcow2.ts";

const CLUSTER = 4096, SIZE = 64 * CLUSTER;
/** By cluster: header 0, refcount table 1, block 2, L1 3, data 4 to 7, L2 table 8. */
async function image(hurt: (v: DataView, bytes: Uint8Array) => void, version: 2 | 3 = 3): Promise<MemoryFile> {
  const file = new MemoryFile("evil.qcow2");
  await createQcow2(file, { sizeBytes: SIZE, clusterBytes: CLUSTER, version });
  const disk = await openQcow2(file);
  await disk.write(0, new Uint8Array(4 * CLUSTER).fill(7));
  await disk.close();
  const bytes = file.bytes();
  hurt(new DataView(bytes.buffer), bytes);
  return new MemoryFile("evil.qcow2", bytes);
}
const fails = (fault: DiskFault, words: RegExp) => (e: unknown) => e instanceof DiskError && e.fault === fault && words.test(e.message);
const L1 = 3 * CLUSTER, L2 = 8 * CLUSTER, BLOCK = 2 * CLUSTER, TABLE = CLUSTER, COPIED = 1n << 63n;

test("a header that contradicts itself, the file or us is refused by what is wrong with it", async () => {
  const cases: [what: string, hurt: (v: DataView, b: Uint8Array) => void, fault: DiskFault, words: RegExp][] = [
    ["magic", (v) => v.setUint32(0, 0), "corrupt", /evil\.qcow2 is not a qcow2 image/],
    ["version", (v) => v.setUint32(4, 4), "unsupported", /version 4/],
    ["cluster_bits small", (v) => v.setUint32(20, 8), "corrupt", /cluster_bits is 8/],
    ["cluster_bits large", (v) => v.setUint32(20, 0xffffffff), "corrupt", /cluster_bits is 4294967295/],
    ["size 2^63", (v) => v.setBigUint64(24, 1n << 63n), "corrupt", /claims 92233720368547\d+ bytes/],
    ["size", (v) => v.setBigUint64(24, 1n << 40n), "corrupt", /has 1 entries, too few/],
    ["encrypted", (v) => v.setUint32(32, 1), "unsupported", /encrypted/],
    ["l1_size", (v) => v.setUint32(36, 0x7fffffff), "corrupt", /L1 table claims 2147483647 entries/],
    ["l1_size in the limit", (v) => v.setUint32(36, 4 << 20), "corrupt", /L1 table, 33554432 bytes at 12288, ends past the file/],
    ["l1 at the header", (v) => v.setBigUint64(40, 0n), "corrupt", /L1 table lies at 0/],
    ["l1 unaligned", (v) => v.setBigUint64(40, 12289n), "corrupt", /L1 table lies at 12289/],
    ["l1 far", (v) => v.setBigUint64(40, 0xfffffffffffff000n), "corrupt", /ends past the file/],
    ["reftable none", (v) => v.setUint32(56, 0), "corrupt", /refcount table claims 0/],
    ["reftable long", (v) => v.setUint32(56, 0xffffffff), "corrupt", /refcount table claims 4294967295/],
    ["reftable past the end", (v) => v.setUint32(56, 100), "corrupt", /ends past the file/],
    ["snapshots many", (v) => v.setUint32(60, 0xffffffff), "corrupt", /claims 4294967295 snapshots/],
    ["snapshots nowhere", (v) => { v.setUint32(60, 1); v.setBigUint64(64, 1n << 50n); }, "corrupt", /snapshot table/],
    ["snapshots nonsense", (v) => { v.setUint32(60, 9); v.setBigUint64(64, BigInt(L1)); }, "corrupt", /snapshot/],
    ["backing name long", (v) => { v.setBigUint64(8, 200n); v.setUint32(16, 0xffffffff); }, "corrupt", /name of its backing file/],
    ["refcount_order", (v) => v.setUint32(96, 7), "corrupt", /refcount_order is 7/],
    ["header_length", (v) => v.setUint32(100, 0xfffffff8), "corrupt", /header says it is 4294967288 bytes/],
    ["extension", (v) => { v.setUint32(112, 0x1234); v.setUint32(116, 0xffffffff); }, "corrupt", /extension 0x1234 claims 4294967295/],
    ["data file", (v) => v.setBigUint64(72, 4n), "unsupported", /external data file/],
    ["extended L2", (v) => v.setBigUint64(72, 16n), "unsupported", /extended L2/],
    ["feature unnamed", (v) => v.setBigUint64(72, 1n << 40n), "unsupported", /incompatible bit 40/],
    ["feature named", (v, b) => { v.setBigUint64(72, 1n << 9n); v.setUint32(112, 0x6803f857); v.setUint32(116, 48); b.set([0, 9, ...new TextEncoder().encode("time travel")], 120); }, "unsupported", /"time travel"/],
    ["compression type", (v) => { v.setBigUint64(72, 8n); v.setUint8(104, 9); }, "unsupported", /compression type 9/],
    ["compression bit", (v) => v.setBigUint64(72, 8n), "corrupt", /disagree/],
    ["corrupt bit", (v) => v.setBigUint64(72, 2n), "corrupt", /marked corrupt/],
  ];
  for (const [what, hurt, fault, words] of cases) {
    const file = await image(hurt);
    await assert.rejects(openQcow2(file), fails(fault, words), what);
    if (what !== "corrupt bit" && !what.startsWith("snapshots n")) await assert.rejects(check(file), fails(fault, words), what);
  }
  for (const [bytes, words] of [[0, /short is empty/], [20, /short: the file ends after 20 bytes, in its header/], [60, /short: the file ends after 60 bytes/]] as const) {
    await assert.rejects(openQcow2(new MemoryFile("short", (await image(() => {})).bytes().slice(0, bytes))), fails("corrupt", words));
  }
});

test("tables that lead to the header, to each other, in a circle or out of the file are refused for writing and found by the check", async () => {
  const cases: [what: string, hurt: (v: DataView) => void, words: RegExp][] = [
    ["L1 to the header", (v) => v.setBigUint64(L1, COPIED | 0x1000n), /L2 table 0 lies in cluster 1/],
    ["L1 to itself", (v) => v.setBigUint64(L1, COPIED | BigInt(L1)), /L2 table 0 lies in cluster 3/],
    ["L1 past the end", (v) => v.setBigUint64(L1, COPIED | (1n << 40n)), /L2 table 0, 4096 bytes at 1099511627776, ends past/],
    ["L1 unaligned", (v) => v.setBigUint64(L1, COPIED | BigInt(L2 + 512)), /L2 table 0 lies at/],
    ["refcount table to itself", (v) => v.setBigUint64(TABLE, BigInt(TABLE)), /refcount block 0 lies in cluster 1/],
    ["refcount table twice", (v) => v.setBigUint64(TABLE + 8, BigInt(BLOCK)), /refcount block 1 lies in cluster 2/],
  ];
  for (const [what, hurt, words] of cases) {
    const file = await image(hurt);
    await assert.rejects(openQcow2(file), fails("corrupt", words), what);
    assert.ok((await check(file)).nrErrors > 0, what);
    await repair(file, "all").catch((e) => assert.ok(e instanceof DiskError));
  }
});

test("an entry that has the guest's data in metadata is not written through: the image is marked corrupt and kept", async () => {
  assert.equal((await check(await image(() => {}))).nrErrors, 0);
  for (const target of [0n, BigInt(TABLE), BigInt(BLOCK), BigInt(L1), 0x100000000n, BigInt(L2) + 512n]) {
    const file = await image((v) => v.setBigUint64(L2, COPIED | (target || 1n << 50n))), before = file.bytes(), disk = await openQcow2(file), one = new Uint8Array(512);
    await assert.rejects(disk.write(0, one), fails("corrupt", /evil\.qcow2: (an entry has the guest's data in cluster|the guest's bytes at 0 lie at)/), `${target}`);
    await assert.rejects(disk.write(10 * CLUSTER, one), fails("corrupt", /evil/));
    await disk.close();
    const after = file.bytes();
    assert.equal(after[79], 2, "the corrupt bit");
    after[79] = before[79]!;
    assert.deepEqual(after, before, `${target}`);
    await assert.rejects(openQcow2(file), fails("corrupt", /marked corrupt/));
    await (await openQcow2(file, { isReadonly: true })).read(CLUSTER, one);
  }
});

test("refcounts that call metadata free do not have it handed out", async () => {
  const file = await image((v) => { for (let c = 0; c < 8; c++) v.setUint16(BLOCK + c * 2, 0); }), disk = await openQcow2(file);
  await assert.rejects(disk.write(20 * CLUSTER, new Uint8Array(CLUSTER)), fails("corrupt", /cluster 0 holds metadata but its refcount is 0/));
  await disk.close();
});

test("a table that a thousand entries lead to is counted once", async () => {
  const file = await image((v) => { for (let i = 0; i < 512; i++) { v.setBigUint64(L1 + i * 8, BigInt(L2)); v.setBigUint64(L2 + i * 8, BigInt(L2)); } v.setUint32(36, 512); });
  const found = await check(file);
  assert.ok(found.nrErrors >= 511 && found.errors.length === 100);
});

test("compressed clusters that are broken, endless or elsewhere are refused, and the rest is read", async () => {
  for (const [host, words] of [[4 * CLUSTER, /compressed cluster at 16384 is broken/], [1 << 30, /compressed cluster lies at 1073741824, outside/], [0, /lies at 0, outside/]] as const) {
    const file = await image((v, b) => { v.setBigUint64(L2, (1n << 62n) | BigInt(host)); b.fill(0xff, 4 * CLUSTER, 5 * CLUSTER); }), disk = await openQcow2(file, { isReadonly: true }), one = new Uint8Array(512);
    await assert.rejects(disk.read(0, one), fails("corrupt", words));
    await disk.read(CLUSTER, one);
    assert.equal(one[0], 7);
    await disk.close();
  }
});

test("backing files are named with their format, not in circles, and allowed only where somebody opens them", async () => {
  const store = new MemoryStore(), make = async (name: string, backing: { path: string; format: string }) => {
    const file = new MemoryFile(name);
    await createQcow2(file, { sizeBytes: SIZE, clusterBytes: CLUSTER, backing });
    store.files.set(name, file);
    return file;
  };
  await make("a", { path: "b", format: "qcow2" });
  await make("b", { path: "a", format: "qcow2" });
  await assert.rejects(openDisk({ path: "a", format: "qcow2", store }), fails("corrupt", /a is its own backing file \(a -> b -> a\)/));
  for (let i = 0; i < 70; i++) await make(`c${i}`, { path: `c${i + 1}`, format: "qcow2" });
  await assert.rejects(openDisk({ path: "c0", format: "qcow2", store }), fails("corrupt", /more than 64 backing files/));
  const odd = await make("odd", { path: "b", format: "floppy" });
  await assert.rejects(openDisk({ path: "odd", format: "qcow2", store }), fails("unsupported", /format "floppy" is none of raw, qcow2/));
  await assert.rejects(openQcow2(odd), fails("denied", /has the backing file b, and no backing files are allowed/));
  odd.put(112, new Uint8Array(8));  // no extension says the format any more
  await assert.rejects(openDisk({ path: "odd", format: "qcow2", store }), fails("unsupported", /does not say what format its backing file b has/));
  await (await openDisk({ path: "a", format: "raw", store })).close();
  // A guest that writes a qcow2 header into its raw disk has written bytes, no more.
  const raw = await openDisk({ path: "a", format: "raw", store, isReadonly: true });
  assert.equal(raw.format, "raw");
  await raw.close();
});

test("a full file system fails the write that met it, loses nothing, and the disk goes on when there is room", async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const random = seededRandom(seed), mem = new MemoryFile("full.qcow2");
    await createQcow2(mem, { sizeBytes: SIZE * 4, clusterBytes: 512 });
    let isFull = false;
    const file = new FaultyFile(mem, { fault: (kind, at, n) => (isFull && kind === "write" && at + n > mem.sizeBytes ? "nospace" : null) }), disk = await openQcow2(file, { cacheBytes: 0 }), model = new DiskModel(SIZE * 4, random);
    for (let round = 0; round < 6; round++) {
      isFull = false;
      for (let i = 0; i < 10; i++) await model.step(disk);
      isFull = true;
      for (let i = 0; i < 10; i++) {
        const before = model.now.slice();
        await model.step(disk).catch((e) => {
          assert.ok(fails("nospace", /full\.qcow2/)(e), `${e.stack}`);
          // What a failed write leaves in its own sectors is nobody's promise.
          for (const [s, v] of model.now.entries()) if (v !== before[s]) model.now[s] = -1;
        });
      }
    }
    isFull = false;
    for (const [s, v] of model.now.entries()) if (v === -1) await model.write(disk, s, 1);
    await model.verify(disk);
    await disk.close();
    const found = await check(mem);
    assert.deepEqual([found.nrErrors, found.nrLeaks, found.errors], [0, 0, []]);
  }
});

test("hundreds of damaged images meet data or DiskErrors only", async () => {
  for (let seed = 1; seed <= 150; seed++) await fuzzOne(seed).catch((e) => { throw new Error(`seed ${seed}: ${e.stack}`); });
});

test("a disk refuses what lies outside, and everything once it is closed", async () => {
  for (const disk of [await openQcow2(await image(() => {})), new RawDisk(new MemoryFile("raw", new Uint8Array(SIZE)))]) {
    for (const [at, n] of [[-512, 512], [SIZE, 512], [SIZE - 512, 1024], [1, 512], [0, 100], [2 ** 53, 512]] as const) await assert.rejects(disk.read(at, new Uint8Array(n)), fails("range", /whole sectors inside/));
    await assert.rejects(disk.resize(513), fails("range", /not whole sectors/));
    await disk.close();
    await disk.close();
    await assert.rejects(disk.read(0, new Uint8Array(512)), fails("closed", /closed/));
  }
});
