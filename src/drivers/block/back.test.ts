import assert from "node:assert/strict";
import { test } from "node:test";
import { BLKIF_DISCARD_SECURE, BLKIF_OP, BLKIF_RSP, BLKIF_SLOT_BYTES, BlkifRequest, BlkifRequestSegment } from "../../abi/io/blkif.ts";
import { DiskError } from "../../storage/disk.ts";
import { FrontRing, GuestPages, seeded } from "../fixture.ts";
import { BackRing, FrontRefusal } from "../ring.ts";
import { BlockDevice } from "./device.ts";
import { BlockFront, type FrontOptions, TestDisk } from "./fixture.ts";
import { BlockPages, MAX_PERSISTENT } from "./pages.ts";
import { BlockQueue } from "./queue.ts";

const turn = (): Promise<void> => new Promise((done) => { setTimeout(done, 0); });
function setUp(options: FrontOptions & { sizeBytes?: number; nrPages?: number; isReadonly?: boolean; onFull?: "wait" | "error"; discards?: boolean } = {}) {
  const disk = new TestDisk(options.sizeBytes ?? 1 << 20), mem = new GuestPages(options.nrPages ?? 2048), log: string[] = [];
  const front = new BlockFront(mem, { disk, log: (s) => log.push(s), ...(options.isReadonly ? { isReadonly: true } : {}), ...(options.discards === undefined ? {} : { discards: options.discards }), ...(options.onFull ? { onFull: options.onFull } : {}) }, options);
  front.connect();
  return { disk, mem, front, log };
}
async function finish({ front, mem }: { front: BlockFront; mem: GuestPages }): Promise<void> {
  await front.back.disconnect();
  assert.equal(mem.nrMapped, 0, "grants that are still mapped");
  assert.deepEqual(mem.faults, []);
}

for (const options of [{}, { isPersistent: true }, { order: 2, nrQueues: 3, start: 0xffffffe0 }, { order: 4, isPersistent: true, start: 0xffffff00 }] as FrontOptions[]) {
  test(`random requests agree with a plain disk (${JSON.stringify(options)})`, async () => {
    const t = setUp(options), { disk, front } = t, random = seeded(7), model = new Uint8Array(disk.sizeBytes), nrSectors = model.length / 512;
    for (let round = 0; round < 60; round++) {
      const taken = new Set<number>(), work: Promise<void>[] = [];
      for (let i = 0; i < 12; i++) {
        const pieces = Array.from({ length: 1 + random(random(4) === 0 ? 200 : 11) }, () => 1 + random(8)), total = pieces.reduce((a, b) => a + b, 0), sector = random(Math.max(1, nrSectors - total));
        if (total > nrSectors || [...Array(total).keys()].some((k) => taken.has(sector + k))) continue;
        for (let k = 0; k < total; k++) taken.add(sector + k);
        const data = Uint8Array.from({ length: total * 512 }, () => random(256)), at = sector * 512, q = random(front.rings.length);
        if (front.rings[q]!.nrFree < 1) continue;
        if (random(2)) {
          model.set(data, at);
          work.push(front.transfer("write", sector, pieces, data, q, random(2) === 0).then((s) => assert.equal(s, BLKIF_RSP.OKAY)));
        } else {
          const expected = model.slice(at, at + data.length);
          work.push(front.transfer("read", sector, pieces, data, q, random(2) === 0).then((s) => { assert.equal(s, BLKIF_RSP.OKAY); assert.deepEqual(data, expected); }));
        }
      }
      front.rings.forEach((_, q) => { front.ring(q); });
      await Promise.all(work);
    }
    assert.deepEqual(disk.bytes, model);
    assert.ok(front.nrEvents > 0);
    await finish(t);
  });
}

test("adjacent requests are one to the disk; a gap, another direction or a flush parts them", async () => {
  const t = setUp(), data = new Uint8Array(4096);
  const work = [0, 8, 16, 32].map((sector) => t.front.transfer("read", sector, [8], data, 0, false));
  work.push(t.front.transfer("write", 40, [8], data, 0, false), t.front.flush(), t.front.transfer("write", 48, [8], data));
  assert.deepEqual(await Promise.all(work), [0, 0, 0, 0, 0, 0, 0]);
  assert.deepEqual(t.disk.log, ["read 0 12288", "read 16384 4096", "write 20480 4096", "flush", "write 24576 4096"]);
  await finish(t);
});

test("several requests are on their way at once, and answers come in the disk's order", async () => {
  const t = setUp(), order: number[] = [];
  t.disk.held = [];
  const work = [0, 100, 200].map((sector, i) => t.front.transfer("read", sector, [1], new Uint8Array(512)).then(() => order.push(i)));
  await turn();
  assert.equal(t.disk.held.length, 3);
  for (const i of [1, 2, 0]) { t.disk.held[i]!(); await turn(); }
  await Promise.all(work);
  assert.deepEqual(order, [1, 2, 0]);
  await finish(t);
});

test("what a guest must not ask is answered in the protocol's words, and the ring goes on", async () => {
  const t = setUp({ sizeBytes: 1 << 16 }), { front, mem } = t, page = mem.allocate(), ref = mem.grant(page, true);
  const raw = (op: number, nr: number, sector: bigint, gref: number, first: number, last: number) => front.send((dv) => {
    BlkifRequest.operation.set(dv, 0, op);
    BlkifRequest.nr_segments.set(dv, 0, nr);
    BlkifRequest.sector_number.set(dv, 0, sector);
    for (let i = 0; i < Math.min(nr, 11); i++) {
      const at = BlkifRequest.seg.at + i * BlkifRequestSegment.sizeof;
      BlkifRequestSegment.gref.set(dv, at, gref);
      BlkifRequestSegment.first_sect.set(dv, at, first);
      BlkifRequestSegment.last_sect.set(dv, at, last);
    }
  });
  const { READ, WRITE, WRITE_BARRIER, INDIRECT } = BLKIF_OP, { ERROR, EOPNOTSUPP, OKAY } = BLKIF_RSP;
  const cases: [string, Promise<number>, number][] = [
    ["no segments", raw(READ, 0, 0n, ref, 0, 7), ERROR], ["twelve segments", raw(READ, 12, 0n, ref, 0, 7), ERROR], ["255 segments", raw(WRITE, 255, 0n, ref, 0, 7), ERROR],
    ["sectors backwards", raw(WRITE, 1, 0n, ref, 5, 4), ERROR], ["a sector beyond the page", raw(WRITE, 1, 0n, ref, 0, 8), ERROR],
    ["past the end", raw(WRITE, 1, 127n, ref, 0, 1), ERROR], ["far past the end", raw(WRITE, 1, 0xffffffffffffffffn, ref, 0, 0), ERROR], ["a huge sector", raw(READ, 1, 1n << 44n, ref, 0, 0), ERROR],
    ["a grant of nobody", raw(WRITE, 1, 0n, 0xffffffff, 0, 7), ERROR], ["a read into a read-only grant", raw(READ, 1, 0n, ref, 0, 7), ERROR],
    ["a barrier", raw(WRITE_BARRIER, 1, 0n, ref, 0, 7), EOPNOTSUPP], ["operation 77", raw(77, 1, 0n, ref, 0, 7), EOPNOTSUPP], ["indirect of nothing", raw(INDIRECT, 0, 0n, ref, 0, 7), ERROR],
    ["secure discard", front.discard(0, 8, BLKIF_DISCARD_SECURE), EOPNOTSUPP], ["a discard past the end", front.discard(0, 129), ERROR], ["a discard of nothing", front.discard(0, 0), ERROR],
    ["a good discard", front.discard(0, 128), OKAY], ["a good write", raw(WRITE, 1, 0n, ref, 0, 7), OKAY],
  ];
  for (const [what, answer, status] of cases) assert.equal(await answer, status, what);
  mem.revoke(ref);
  assert.ok(t.log.length > 0 && t.log.length <= 3, "complaints are few");
  await finish(t);
});

test("one bad grant among joined writes costs only its own request", async () => {
  const t = setUp(), good = new Uint8Array(4096).fill(7);
  const before = t.front.transfer("write", 0, [8], good, 0, false);
  const bad = t.front.send((dv) => {
    BlkifRequest.operation.set(dv, 0, BLKIF_OP.WRITE);
    BlkifRequest.nr_segments.set(dv, 0, 1);
    BlkifRequest.sector_number.set(dv, 0, 8n);
    BlkifRequestSegment.gref.set(dv, BlkifRequest.seg.at, 0x7777);
    BlkifRequestSegment.last_sect.set(dv, BlkifRequest.seg.at, 7);
  }, 0, false);
  const after = t.front.transfer("write", 16, [8], good);
  assert.deepEqual(await Promise.all([before, bad, after]), [BLKIF_RSP.OKAY, BLKIF_RSP.ERROR, BLKIF_RSP.OKAY]);
  assert.deepEqual([t.disk.bytes[0], t.disk.bytes[4096], t.disk.bytes[8192]], [7, 0, 7]);
  await finish(t);
});

test("a read-only disk refuses writes and discards, whoever said it is", async () => {
  const t = setUp({ isReadonly: true });
  assert.equal(t.front.back.offer()["info"], 4);
  assert.equal(await t.front.transfer("write", 0, [1], new Uint8Array(512)), BLKIF_RSP.ERROR);
  assert.equal(await t.front.discard(0, 8), BLKIF_RSP.ERROR);
  assert.equal(await t.front.transfer("read", 0, [1], new Uint8Array(512)), BLKIF_RSP.OKAY);
  assert.deepEqual(t.disk.log, ["read 0 512"]);
  await finish(t);
});

test("a full medium keeps the guest's write until there is room, or gives an error where that is the policy", async () => {
  const t = setUp(), full = new DiskError("nospace", "The medium is full");
  for (const nr of [1, 2]) {
    t.disk.failing = full;
    let done = false;
    const write = t.front.transfer("write", 0, [1], new Uint8Array(512).fill(nr)).then((s) => { done = true; return s; });
    for (let i = 0; i < 20; i++) await turn();
    assert.equal(done, false);
    t.disk.failing = null;
    assert.equal(await write, BLKIF_RSP.OKAY);
    assert.equal(t.disk.bytes[511], nr);
    assert.equal(t.log.length, nr, t.log.join());      // each time it is told of, once
  }
  await finish(t);
  const u = setUp({ onFull: "error" });
  u.disk.failing = full;
  assert.equal(await u.front.transfer("write", 0, [1], new Uint8Array(512)), BLKIF_RSP.ERROR);
  await finish(u);
});

test("a device let go while requests are on their way or wait in the ring answers them, with events, then gives every page back", async () => {
  const t = setUp();
  t.disk.held = [];
  const read = t.front.transfer("read", 0, [8], new Uint8Array(4096));
  await turn();
  const seen = t.front.send((dv) => BlkifRequest.operation.set(dv, 0, BLKIF_OP.FLUSH_DISKCACHE), 0, false);
  t.front.rings[0]!.push();        // and no event, as if it were on its way
  let gone = false;
  const over = t.front.back.disconnect().then(() => { gone = true; });
  const late = t.front.flush();
  await turn();
  assert.equal(gone, false);
  for (const go of t.disk.held) go();
  await over;
  assert.deepEqual([await read, await seen, t.disk.log], [BLKIF_RSP.OKAY, BLKIF_RSP.OKAY, ["read 0 4096", "flush"]]);
  assert.equal(await Promise.race([late, turn()]), undefined);
  assert.equal(t.mem.nrMapped, 0);
  assert.deepEqual(t.mem.faults, []);
});

test("a device that is taken answers with errors and leaves the disk alone, for as long as the front end holds it", async () => {
  const t = setUp();
  t.disk.held = [];
  const before = t.front.transfer("read", 0, [8], new Uint8Array(4096));
  await turn();
  let isFree = false;
  const refused = t.front.back.refuse().then(() => { isFree = true; });
  await turn();
  assert.equal(isFree, false, "the disk still reads");
  for (const go of t.disk.held) go();
  await refused;
  assert.equal(await before, BLKIF_RSP.OKAY);
  assert.deepEqual([await t.front.transfer("write", 0, [8], new Uint8Array(4096)), await t.front.flush(), t.disk.log], [BLKIF_RSP.ERROR, BLKIF_RSP.ERROR, ["read 0 4096"]]);
  assert.equal(t.front.back.nudge(), true);
  t.front.hasLetGo = true;
  assert.equal(t.front.back.nudge(), false);
  await finish(t);
});

test("a disk that does not answer is let go of in the end, but not connected to again until it has", async (t) => {
  const s = setUp();
  s.disk.held = [];
  void s.front.transfer("write", 0, [1], new Uint8Array(512));
  await turn();
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const gone = s.front.back.disconnect();
  t.mock.timers.tick(30_000);
  t.mock.timers.reset();
  await gone;
  assert.equal(s.mem.nrMapped, 0);
  assert.throws(() => s.front.connect(), (e) => e instanceof FrontRefusal && /an earlier connection/.test(e.message));
  s.disk.held[0]!();
  await turn();
  const again = new FrontRing(s.mem, 1, BLKIF_SLOT_BYTES);
  s.front.keys["ring-ref"] = again.refs[0]!;
  s.front.connect();
  await finish(s);
});

test("a front end may connect again after it let go", async () => {
  const t = setUp();
  await t.front.back.disconnect();
  const again = new BlockFront(t.mem, { disk: t.disk }, { order: 1 });
  again.connect();
  assert.equal(await again.transfer("write", 0, [1], new Uint8Array(512).fill(3)), BLKIF_RSP.OKAY);
  assert.equal(t.disk.bytes[0], 3);
  await finish({ front: again, mem: t.mem });
});

test("a ring index out of bounds ends the device, with a word", async () => {
  const t = setUp(), said: string[] = [];
  t.front.back.onBroken = (why) => said.push(why);
  t.front.rings[0]!.store({ at: 0 }, 1000);
  t.front.knock();
  assert.match(said[0]!, /1000/);
  await finish(t);
});

test("persistent grants stay mapped, no more of them than the bound", async () => {
  const t = setUp({ isPersistent: true, nrPages: 4096, order: 4, sizeBytes: 8 << 20 }), maps = (): number => t.mem.nrMaps;
  await t.front.transfer("read", 0, [8], new Uint8Array(4096));
  const once = maps();
  await t.front.transfer("write", 0, [8], new Uint8Array(4096));
  assert.equal(maps(), once, "the same page again is not mapped anew");
  const work: Promise<number>[] = [];
  for (let i = 0; i < 120; i++) work.push(t.front.transfer("read", i * 88, Array(11).fill(8), new Uint8Array(11 * 4096), 0, false));
  t.front.ring();
  await Promise.all(work);
  assert.ok(t.mem.nrMapped <= MAX_PERSISTENT + 16, `${t.mem.nrMapped} pages are mapped`);
  await finish(t);
});

test("a resized disk is told to the front end", async () => {
  const t = setUp(), told: Record<string, string | number>[] = [];
  t.front.back.onUpdate = (keys) => told.push(keys);
  await t.disk.resize(2 << 20);
  assert.deepEqual(told, [{ sectors: 4096 }]);
  assert.equal(await t.front.transfer("read", 4000, [8], new Uint8Array(4096)), BLKIF_RSP.OKAY);
  await finish(t);
});

test("a front end set up wrongly is refused with nothing left mapped", async () => {
  for (const change of [{ protocol: "x86_32-abi" }, { "ring-ref": 0x999 }, { "ring-ref": undefined }, { "event-channel": undefined }] as Record<string, string>[]) {
    const mem = new GuestPages(64), front = new BlockFront(mem, { disk: new TestDisk(4096) });
    Object.assign(front.keys, change);
    for (const [k, v] of Object.entries(front.keys)) if (v === undefined) delete front.keys[k];
    assert.throws(() => front.connect(), (e) => e instanceof FrontRefusal || /^Error: key/.test(String(e)), JSON.stringify(change));
    assert.equal(mem.nrMapped, 0);
  }
});

test("a disk that is not to be discarded is not, whatever the guest says", async () => {
  const t = setUp({ discards: false });
  assert.equal(t.front.back.offer()["feature-discard"], 0);
  assert.equal(await t.front.discard(0, 8), BLKIF_RSP.EOPNOTSUPP);
  assert.deepEqual(t.disk.log, []);
  await finish(t);
});

test("a guest that asks for more whenever it is answered leaves the thread to others", async () => {
  const mem = new GuestPages(8), front = new FrontRing(mem, 1, BLKIF_SLOT_BYTES), disk = new TestDisk(4096);
  let nr = 0, isOver = false;
  const device = new BlockDevice({ name: "x", disk, isReadonly: false, discards: true, pages: new BlockPages(mem, false), onFull: "wait", counters: { read: 0, write: 0, flush: 0, discard: 0, errors: 0, readBytes: 0, writtenBytes: 0, operations: 0 }, log: () => {}, onBroken: assert.fail });
  const ask = (): void => {       // nonsense, as much as fits
    nr++;
    while (front.take()) { /* answered */ }
    while (!isOver && nr < 50_000 && front.nrFree > 0) front.put(new Uint8Array([77]));
    front.push();
    front.store({ at: 12 }, front.rspCons + 1);
  };
  const queue = new BlockQueue(new BackRing(mem.words, front.pages, BLKIF_SLOT_BYTES), ask, device);
  ask();
  queue.poll();
  assert.ok(nr < 10_000, `${nr} answers in one turn`);
  const before = nr;
  await turn();
  await turn();
  assert.ok(nr > before, "it goes on with the rest");
  isOver = true;
  await queue.close();
});

test("who waits for room long leaves nothing behind with each try, and the disk's errors do not fill the log", async () => {
  const t = setUp();
  t.disk.failing = new DiskError("nospace", "The medium is full");
  const writes = [0, 8].map((sector) => t.front.transfer("write", sector, [1], new Uint8Array(512)));
  await turn();
  await turn();
  assert.equal(t.front.back.describe()["nrWaitingForRoom"], 2);
  const gone = t.front.back.disconnect();
  await gone;
  t.front.poll(0);
  assert.deepEqual(await Promise.all(writes), [BLKIF_RSP.ERROR, BLKIF_RSP.ERROR]);
  const u = setUp();
  u.disk.failing = new DiskError("io", "A sector is bad");
  for (let i = 0; i < 40; i++) await u.front.transfer("read", 0, [1], new Uint8Array(512));
  assert.equal(u.log.length, 16);
  await finish(u);
});

test("keys that an earlier kernel left do not mislead: one queue has flat ones", async () => {
  const t = setUp({ nrQueues: 2 });
  await t.front.back.disconnect();
  const again = new BlockFront(t.mem, { disk: t.disk });
  for (const key of ["queue-0/ring-ref", "queue-0/event-channel", "queue-1/ring-ref"]) again.keys[key] = 0x999;
  again.connect();
  assert.equal(await again.transfer("read", 0, [1], new Uint8Array(512)), BLKIF_RSP.OKAY);
  await finish({ front: again, mem: t.mem });
});

test("random slots harm nothing but their own device", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = seeded(seed), mem = new GuestPages(64), disk = new TestDisk(1 << 16), front = new BlockFront(mem, { disk }, { isPersistent: seed % 2 === 0 });
    const refs = Array.from({ length: 6 }, () => mem.grant(mem.allocate(), random(2) === 0));
    let isBroken = false;
    front.isMad = true;
    front.back.onBroken = () => { isBroken = true; };
    front.connect();
    const [page] = front.rings[0]!.pages as [number];
    for (let step = 0; step < 60 && !isBroken; step++) {
      for (let i = 0; i < 112; i++) mem.bytes[page + 64 + (step % 32) * 112 + i] = random(3) === 0 ? random(256) : random(12);
      const dv = new DataView(mem.bytes.buffer), at = page + 64 + (step % 32) * 112;
      for (let i = 0; i < 11; i++) if (random(4)) dv.setUint32(at + 24 + i * 8, refs[random(6)]!, true);
      if (random(3)) dv.setBigUint64(at + 16, BigInt(random(140)), true);
      front.rings[0]!.store({ at: 0 }, random(40) === 0 ? random(0x7fffffff) : step + 1);
      front.knock();
      await turn();
    }
    await front.back.disconnect();
    assert.equal(mem.nrMapped, 0, `seed ${seed}`);
    assert.deepEqual(mem.faults, [], `seed ${seed}`);
  }
});

test("a request whose pages are on their way waits for them, and is not carried out where they never come", async () => {
  const t = setUp(), { mem, front, disk } = t, data = Uint8Array.from({ length: 8192 }, (_, i) => i * 7 & 255), rings = front.rings.flatMap((r) => r.pages);
  const write = front.transfer("write", 8, [8, 8], data, 0, false), other = front.transfer("write", 64, [8], data.subarray(0, 4096), 0, false);
  mem.withholdAll(rings);
  front.ring();
  await turn();
  assert.deepEqual([disk.log, mem.wanted.size], [[], 3]);
  mem.bring();
  assert.deepEqual(await Promise.all([write, other]), [BLKIF_RSP.OKAY, BLKIF_RSP.OKAY]);
  assert.deepEqual([disk.bytes.slice(4096, 4096 + 8192), disk.bytes.slice(32768, 32768 + 4096)], [data, data.subarray(0, 4096)]);
  // what is read goes between bytes of the page that are the guest's
  const into = new Uint8Array(512), read = front.transfer("read", 8, [1], into, 0, false);
  mem.withholdAll(rings);
  front.ring();
  await turn();
  assert.equal(mem.wanted.size, 1);
  mem.bring();
  assert.equal(await read, BLKIF_RSP.OKAY);
  assert.deepEqual(into, data.subarray(0, 512));
  // an indirect request's table of segments is read when it is taken: not before it is there
  disk.log.length = 0;
  const long = Uint8Array.from({ length: 20 * 512 }, (_, i) => i * 3 & 255), indirect = front.transfer("write", 100, Array<number>(20).fill(1), long, 0, false), next = front.transfer("write", 200, [1], long.subarray(0, 512), 0, false);
  mem.withholdAll(rings);
  front.ring();
  await turn();
  assert.deepEqual([mem.bring(), disk.log], [1, []]);
  await turn();
  assert.deepEqual([mem.bring(), disk.log], [21, []]);
  assert.deepEqual(await Promise.all([indirect, next]), [BLKIF_RSP.OKAY, BLKIF_RSP.OKAY]);
  assert.deepEqual(disk.bytes.slice(51200, 51200 + long.length), long);
  disk.log.length = 0;
  const lost = front.transfer("write", 8, [8], new Uint8Array(4096), 0, false);
  mem.withholdAll(rings);
  front.ring();
  await turn();
  mem.lose();
  assert.equal(await lost, BLKIF_RSP.ERROR);
  assert.deepEqual(disk.log, []);
  await finish(t);
});
