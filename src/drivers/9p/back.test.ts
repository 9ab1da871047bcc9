import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Xen9pfsDataIntf as INTF } from "../../abi/io/9pfs.ts";
import { GuestPages, seeded } from "../fixture.ts";
import { FlexFront, P9Front, textOf } from "./fixture.ts";
import { FlexRing } from "./flex.ts";
import { nodeFolder } from "./folder.node.ts";
import type { Folder } from "./folder.ts";
import { OPEN, T } from "./protocol.ts";

const base = fs.mkdtempSync(join(tmpdir(), "domus-9p-back-"));
after(() => fs.rmSync(base, { recursive: true, force: true }));
let nr = 0;
async function folderOf(): Promise<{ folder: Folder; path: (name: string) => string }> {
  const root = join(base, String(++nr));
  fs.mkdirSync(root);
  return { folder: await nodeFolder(root).open(), path: (name) => join(root, name) };
}
const pause = (ms = 5): Promise<void> => new Promise((done) => { setTimeout(done, ms); });
async function setUp(options: ConstructorParameters<typeof P9Front>[2] = {}, nrPages = 80): Promise<{ front: P9Front; mem: GuestPages; path: (name: string) => string; ended: () => Promise<void> }> {
  const { folder, path } = await folderOf(), mem = new GuestPages(nrPages), front = new P9Front(mem, folder, options);
  return {
    front, mem, path,
    ended: async () => {
      await front.back.disconnect();
      await folder.close();
      assert.deepEqual([mem.nrMapped, mem.faults], [0, []]);
    },
  };
}

test("bytes pass a ring in pieces of any size, also over its end and where its indexes begin anew", () => {
  for (const [order, start] of [[0, 0], [1, 0xfffffff0], [3, 0xffff0123]] as const) {
    const mem = new GuestPages(16), front = new FlexFront(mem, order, start), ring = new FlexRing(mem.words, mem.bytes, front.intf, front.pages), rnd = seeded(order + 1);
    for (let i = 0; i < 300; i++) {
      const out = randomBytes(1 + rnd(ring.sizeBytes)), back = randomBytes(7 + rnd(ring.sizeBytes - 6));
      front.write(out.subarray(0, out.length >> 1));
      front.write(out.subarray(out.length >> 1));
      assert.equal(ring.nrQueued, out.length);
      const taken = new Uint8Array(out.length);
      ring.take(taken);
      assert.deepEqual(taken, Uint8Array.from(out));
      back.writeUInt32LE(back.length);
      assert.equal(ring.nrFree, ring.sizeBytes);
      ring.put(back);
      assert.equal(ring.nrFree, ring.sizeBytes - back.length);
      assert.deepEqual(front.read(), Uint8Array.from(back));
    }
    assert.equal(ring.dead, null);
    front.store(INTF.out_prod.at, front.outProd + ring.sizeBytes + 1);
    assert.equal(ring.nrQueued, 0);
    assert.match(ring.dead!, /out_prod \d+ is \d+ ahead of out_cons/);
    assert.equal(ring.nrFree, 0);
  }
});

test("a guest works over two rings at once, with the largest messages they hold, and everything is given back", async () => {
  for (const start of [0, 0xffffff00]) {
    const { front, path, ended } = await setUp({ order: 4, start }), { client: c } = front, bytes = randomBytes(200_000);
    await front.connect();
    await c.begin(1 << 20);
    assert.equal(c.msize, 32768);
    await c.walk(0, 1);
    await c.create(1, "f");
    for (let at = 0; at < bytes.length; at += 30_000) assert.equal(await c.write(1, at, bytes.subarray(at, at + 30_000)), Math.min(30_000, bytes.length - at));
    assert.deepEqual(fs.readFileSync(path("f")), bytes);
    const pieces = await Promise.all(Array.from({ length: 20 }, (_, i) => c.read(1, i * 10_000, 10_000)));
    assert.deepEqual(Buffer.concat(pieces), bytes);
    assert.equal((await c.read(1, 0, 1 << 30)).length, 32768 - 11);
    await ended();
  }
});

test("a front end that does not read gets what it asked for when it reads, and nothing more is done meanwhile than has room", async () => {
  const { front, path, ended } = await setUp({ order: 1 }), { client: c, back } = front;
  fs.writeFileSync(path("f"), randomBytes(4000));
  await front.connect();
  await c.begin(4096);
  await c.walk(0, 1, "f");
  await c.open(1);
  front.isDeaf = true;
  const asked = Array.from({ length: 150 }, () => c.read(1, 0, 3000));
  await pause(100);
  const { nrPending } = back.describe() as { nrPending: number };
  assert.ok(nrPending <= 64, `${nrPending} on their way`);
  front.isDeaf = false;
  front.poll();
  for (const got of await Promise.all(asked)) assert.deepEqual(Buffer.from(got), fs.readFileSync(path("f")).subarray(0, 3000));
  assert.deepEqual(front.broken, []);
  await ended();
});

test("a message that comes byte by byte is taken when it is whole", async () => {
  const { front, ended } = await setUp({ nrRings: 1 });
  await front.connect();
  const message = Uint8Array.of(21, 0, 0, 0, T.version, 0xff, 0xff, 0, 32, 0, 0, 8, 0, ...new TextEncoder().encode("9P2000.L"));
  for (const byte of message) {
    assert.equal(front.rings[0]!.load(INTF.in_prod.at), 0);
    front.rings[0]!.write(Uint8Array.of(byte));
    front.knock();
  }
  await pause();
  assert.equal((front.back.describe() as { msize: number }).msize, 4096);
  await ended();
});

test("a message that is changed while it is taken asks for what it asked for when its cost was told", async () => {
  let isChanging = false;
  /** Memory in which a guest writes as soon as a Tread has been looked at: now it wants more. */
  class Changing extends Uint8Array<SharedArrayBuffer> {
    override subarray(begin = 0, end = this.length): Uint8Array<SharedArrayBuffer> {
      const bytes = new Uint8Array(this.buffer, begin, end - begin), was = new Uint8Array(new SharedArrayBuffer(bytes.length));
      was.set(bytes);
      if (isChanging && bytes.length === 23 && bytes[4] === T.read) bytes.set([0xff, 0xff], 19);
      return was;
    }
  }
  const { folder, path } = await folderOf(), mem = new GuestPages(80), bytes = new Changing(mem.words.buffer as SharedArrayBuffer);
  const front = new P9Front(mem, folder, { nrRings: 1, grants: { words: mem.words, bytes, map: (ref, isReadonly) => mem.map(ref, isReadonly), unmap: (page) => mem.unmap(page), wrote: () => {} } }), { client: c } = front;
  fs.writeFileSync(path("f"), randomBytes(4000));
  await front.connect();
  await c.begin(4096);
  await c.walk(0, 1, "f");
  await c.open(1);
  isChanging = true;
  assert.equal((await c.read(1, 0, 10)).length, 10);
  await front.back.disconnect();
  await folder.close();
});

test("what breaks a ring ends the device and nothing else: wild indexes, impossible sizes, a tag twice", async () => {
  const cases: readonly [RegExp, (f: P9Front) => void][] = [
    [/out_prod \d+ is \d+ ahead/, (f) => f.rings[0]!.store(INTF.out_prod.at, f.rings[0]!.outProd + 5000)],
    [/in_cons \d+ is \d+ behind/, (f) => { f.rings[0]!.store(INTF.in_cons.at, f.rings[0]!.inCons + 1); f.rings[0]!.write(Uint8Array.of(11, 0, 0, 0, T.statfs, 9, 0, 0, 0, 0, 0)); }],
    [/a message says that it is 3 bytes long; from 7 to 4096/, (f) => f.rings[0]!.write(Uint8Array.of(3, 0, 0, 0, 100, 0, 0))],
    [/4097 bytes long/, (f) => f.rings[0]!.write(Uint8Array.of(1, 16, 0, 0, 100, 0, 0))],
    [/4294967295 bytes long/, (f) => f.rings[0]!.write(Uint8Array.of(255, 255, 255, 255, 100, 0, 0))],
    [/tag 9 is given to a second request/, (f) => { for (let i = 0; i < 2; i++) f.rings[0]!.write(Uint8Array.of(11, 0, 0, 0, T.statfs, 9, 0, 0, 0, 0, 0)); }],
  ];
  for (const [why, act] of cases) {
    const { front, ended } = await setUp({ order: 1 });
    await front.connect();
    await front.client.begin(4096);
    act(front);
    front.knock();
    await pause();
    assert.match(front.broken.join(), why);
    assert.equal(front.broken.length, 1);
    await ended();
  }
});

test("a front end that asks for what was not offered is not connected to, with nothing left mapped", async () => {
  const wrong: readonly [RegExp, (f: P9Front) => void][] = [
    [/key num-rings/, (f) => { f.keys["num-rings"] = 5; }], [/key num-rings/, (f) => { f.keys["num-rings"] = 0; }], [/version "2"/, (f) => { f.keys["version"] = 2; }], [/key ring-ref1/, (f) => { delete f.keys["ring-ref1"]; }],
    [/ring-ref0 99999 cannot be mapped/, (f) => { f.keys["ring-ref0"] = 99999; }], [/order is 10; 9 is the most/, (f) => f.rings[1]!.store(INTF.ring_order.at, 10)], [/order is 4294967295/, (f) => f.rings[1]!.store(INTF.ring_order.at, -1)],
    [/ring 1's page 424242 cannot be mapped/, (f) => f.rings[1]!.store(INTF.sizeof + 4, 424242)], [/ring 0's page/, (f) => f.rings[0]!.store(INTF.ring_order.at, 9)],
  ];
  for (const [why, act] of wrong) {
    const { front, ended } = await setUp();
    act(front);
    await assert.rejects(front.connect(), why);
    await ended();
  }
});

test("pages of rings that are on their way from another host are waited for before they are used; those that never come are said to", async () => {
  const { front, mem, ended } = await setUp();
  mem.withholdAll();
  const connected = front.connect();
  for (let isOver = false; !isOver;) {
    void connected.then(() => { isOver = true; });
    await pause(1);
    mem.bring();
  }
  await front.client.begin(4096);
  await ended();
  const other = await setUp();
  other.mem.withholdAll();
  const refused = assert.rejects(other.front.connect(), /pages of its rings will never come/);
  await pause(1);
  other.mem.lose();
  await refused;
  await other.ended();
});

test("a device that is let go of is taken up where the rings are; what the guest held of the folder is gone", async () => {
  const { front, path, ended } = await setUp(), { client: c, back } = front;
  fs.writeFileSync(path("f"), "text");
  await front.connect();
  assert.deepEqual([back.isConnected, back.isMounted], [true, false]);
  await c.begin(4096);
  assert.equal(back.isMounted, true);
  await c.clunk(0);
  assert.equal(back.isMounted, false);
  await back.disconnect();
  assert.deepEqual([back.isConnected, front.mem.nrMapped], [false, 0]);
  await front.connect();
  await c.begin(4096);
  await c.walk(0, 1, "f");
  await c.open(1, OPEN.RDONLY);
  assert.equal(textOf(await c.read(1, 0, 10)), "text");
  await ended();
});
