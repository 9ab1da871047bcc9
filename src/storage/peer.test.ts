/** What a disk keeps, sends again and gives up when its connections are lost: our NBD client and server in one process, cut at will. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type ByteConnection, type Connect, connectionPair } from "../base/stream.ts";
import { DiskError } from "./disk.ts";
import { FixtureDisk, random, randomBytes, sameBytes } from "./fixture.ts";
import { openNbd } from "./nbd/client.ts";
import { serveNbd } from "./nbd/server.ts";
import { PeerDisk, type PeerLink, type PeerPatience, type PeerShape } from "./peer.ts";
import { Unflushed } from "./unflushed.ts";

/** A server that can die, losing what was not flushed, and come back. */
function mortal(disk: FixtureDisk, patience: PeerPatience = {}) {
  let live: ByteConnection | null = null, isUp = true, nrConnects = 0;
  const connect: Connect = () => {
    nrConnects++;
    if (!isUp) return Promise.reject(new Error("nobody listens"));
    const [a, b] = connectionPair("server", "client");
    serveNbd(a, new Map([["", { disk }]]));
    live = a;
    return Promise.resolve(b);
  };
  return {
    open: () => openNbd("nbd://server/", { connect, retryMs: 1, retryMaxMs: 2, giveUpMs: 5000, ...patience }),
    die: () => { isUp = false; live?.close(); disk.crash(); }, rise: () => { isUp = true; }, cut: () => live?.close(),
    get nrConnects() { return nrConnects; },
  };
}
const gone = (e: unknown): boolean => e instanceof DiskError && e.fault === "gone";

test("writes that were acknowledged and not flushed outlive a server that lost them", async () => {
  const server = new FixtureDisk(65536), m = mortal(server), disk = await m.open(), next = random(1), want = new Uint8Array(65536);
  for (let i = 0; i < 40; i++) {
    const at = next(16) * 512, bytes = randomBytes(next, 512 * (1 + next(8)));
    await disk.write(at, bytes);
    want.set(bytes, at);
    if (i === 10) await disk.flush();
  }
  await disk.writeZeros(1024, 2048);
  want.fill(0, 1024, 3072);
  m.die();
  assert.throws(() => sameBytes(server.cache, want));
  m.rise();
  await disk.flush();
  sameBytes(server.stable, want, "in their order, the last write of a sector wins");
  assert.equal(disk.unflushedBytes, 0);
  await disk.close();
});

test("a flush that was under way when the server died is asked anew after the writes were made again", async () => {
  const server = new FixtureDisk(65536), m = mortal(server), disk = await m.open();
  await disk.write(0, new Uint8Array(512).fill(9));
  const flush = server.flush.bind(server);
  server.flush = () => new Promise(() => {});
  const flushing = disk.flush();
  await new Promise((resolve) => { setTimeout(resolve, 5); });
  m.die();
  server.flush = flush;
  m.rise();
  await flushing;
  assert.equal(server.stable[0], 9);
  await disk.close();
});

test("memory for unflushed writes is bounded: the disk flushes by itself", async () => {
  const server = new FixtureDisk(1 << 20), m = mortal(server, { unflushedBytesMax: 65536 }), disk = await m.open();
  for (let i = 0; i < 200; i++) {
    await disk.write(i * 4096, new Uint8Array(4096).fill(i));
    assert.ok(disk.unflushedBytes <= 65536 + 4096 + 64);
  }
  assert.ok(server.nrFlushes >= 10);
  await disk.close();
});

test("when a write cannot be made again, the next flush says so, once", async () => {
  const server = new FixtureDisk(65536), m = mortal(server), disk = await m.open();
  await disk.write(512, new Uint8Array(512).fill(1));
  m.die();
  server.write = () => Promise.reject(new DiskError("io", "broken"));
  m.rise();
  await assert.rejects(disk.flush(), (e: unknown) => e instanceof DiskError && e.fault === "io" && /acknowledged write of 512 bytes at 512 was lost/.test(e.message));
  await disk.flush();
  await disk.close();
});

test("zeros that were acknowledged are written as bytes where the server that comes back cannot zero", async () => {
  const server = new FixtureDisk(65536), m = mortal(server), disk = await m.open();
  await disk.write(0, new Uint8Array(4096).fill(1));
  await disk.flush();
  await disk.writeZeros(512, 1024);
  m.die();
  server.writeZeros = () => Promise.reject(new DiskError("unsupported", "not here"));
  m.rise();
  await disk.flush();
  assert.deepEqual([server.stable[511], server.stable[512], server.stable[1535], server.stable[1536]], [1, 0, 0, 1]);
  await disk.close();
});

test("a request waits for the server; after the time that was set it is rejected, and a later one succeeds when the server is back", async () => {
  const server = new FixtureDisk(65536), m = mortal(server, { giveUpMs: 60 }), disk = await m.open();
  await disk.write(0, new Uint8Array(512).fill(4));
  m.die();
  await assert.rejects(Promise.all([disk.read(0, new Uint8Array(512)), disk.write(512, new Uint8Array(512))]), gone);
  m.rise();
  const into = new Uint8Array(512);
  await disk.read(0, into);
  assert.equal(into[0], 4, "the unflushed write was kept all the time");
  await disk.close();
});

test("an idle disk whose connection is cut does not knock at the server's door until it is asked", async () => {
  const server = new FixtureDisk(65536), m = mortal(server), disk = await m.open();
  m.cut();
  await new Promise((resolve) => { setTimeout(resolve, 20); });
  assert.equal(m.nrConnects, 1);
  await disk.read(0, new Uint8Array(512));
  assert.equal(m.nrConnects, 2);
  await disk.close();
});

test("a peer that comes back smaller is refused, one that comes back larger tells of its size", async () => {
  const server = new FixtureDisk(65536), m = mortal(server), disk = await m.open();
  let nrResizes = 0;
  disk.onResize = () => { nrResizes++; };
  server.cache = new Uint8Array(131072);
  m.cut();
  await disk.read(0, new Uint8Array(512));
  assert.deepEqual([disk.sizeBytes, nrResizes], [131072, 1]);
  server.cache = new Uint8Array(512);
  m.cut();
  await assert.rejects(disk.read(0, new Uint8Array(512)), (e: unknown) => e instanceof DiskError && e.fault === "io" && /came back with 512 bytes instead of 131072/.test(e.message));
});

test("under random cuts and deaths, what a flush confirmed and what was written after is what is read", async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const server = new FixtureDisk(32768), m = mortal(server), disk = await m.open(), next = random(seed), want = new Uint8Array(32768), busy = new Map<number, Promise<void>>();
    for (let i = 0; i < 150; i++) {
      const sector = next(64), at = sector * 512;
      await busy.get(sector);
      if (next(12) === 0) {
        if (next(2)) m.cut();
        else { m.die(); setTimeout(m.rise, next(5)); }
      } else if (next(6) === 0) {
        await disk.flush();
      } else if (next(4) === 0) {
        const into = new Uint8Array(512);
        await disk.read(at, into);
        sameBytes(into, want.slice(at, at + 512), `seed ${seed} step ${i}`);
      } else {
        const bytes = randomBytes(next, 512);
        want.set(bytes, at);
        busy.set(sector, disk.write(at, bytes));
      }
    }
    await Promise.all(busy.values());
    await disk.flush();
    sameBytes(server.stable, want, `seed ${seed}`);
    await disk.close();
  }
});

test("a request that its old link gives back late is sent on the link that took its place", async () => {
  const shape: PeerShape = { sizeBytes: 4096, isReadonly: false, blockBytes: 512, physicalSectorBytes: 512, maxBytes: 4096, maxZeroBytes: 4096, canFlush: false, canTrim: false, canZero: false, depth: 8, identity: "" };
  const late = Promise.withResolvers<void>(), links: PeerLink[] = [];
  const disk = await PeerDisk.open("x", "x", () => {
    const isFirst = links.length === 0;
    const link: PeerLink = { shape, onLost: null, onShape: null, request: () => (isFirst ? late.promise : Promise.resolve()), fail: () => {}, close: () => Promise.resolve() };
    links.push(link);
    return Promise.resolve(link);
  });
  const first = disk.read(0, new Uint8Array(512));
  links[0]!.onLost!(new DiskError("gone", "cut"));
  await disk.read(512, new Uint8Array(512));
  late.reject(new DiskError("gone", "cut"));
  await first;
  await disk.close();
  assert.equal(links.length, 2);
});

test("groups of unflushed writes keep overlapping ones apart and in order", () => {
  const u = new Unflushed(), b = (n: number) => new Uint8Array(512).fill(n);
  u.add(0, 512, b(1));
  u.add(512, 512, b(2));
  u.add(0, 1024, null);
  const mark = u.mark;
  u.add(1024, 512, b(3));
  assert.deepEqual([...u.groups(8)].map((g) => g.map((w) => w.offset)), [[0, 512], [0, 1024]]);
  u.forget(mark);
  assert.deepEqual([...u.groups(8)].map((g) => g.map((w) => w.offset)), [[1024]]);
  u.forget(mark);
  u.forget(u.mark);
  assert.deepEqual([u.isEmpty, u.sizeBytes], [true, 0]);
});
