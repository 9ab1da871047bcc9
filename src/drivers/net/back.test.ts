import assert from "node:assert/strict";
import test from "node:test";
import { SRING } from "../../abi/io/ring.ts";
import { NETIF_RSP, NETTXF, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE, XEN_NETIF_GSO_TYPE } from "../../abi/io/netif.ts";
import type { Frame } from "../../network/port.ts";
import { seeded } from "../fixture.ts";
import { FrontRefusal } from "../ring.ts";
import { frontFeatures } from "./features.ts";
import { NetGuest, type Piece } from "./fixture.ts";
import { flowHash } from "./flow.ts";

const random = (rnd: (n: number) => number, lengthBytes: number): Uint8Array<ArrayBuffer> => Uint8Array.from({ length: lengthBytes }, () => rnd(256));
const frame = (bytes: Uint8Array<ArrayBuffer>, more: Partial<Frame> = {}): Frame => ({ bytes, checksum: "unknown", gso: null, ...more });
const whole = (bytes: Uint8Array, offset = 0): Piece[] => [{ bytes, offset }];
/** Cut at random places, each piece at a random offset of its page; at most 18. */
function pieces(rnd: (n: number) => number, bytes: Uint8Array): Piece[] {
  const cut: Piece[] = [];
  for (let at = 0; at < bytes.length;) {
    const left = 18 - cut.length, least = Math.max(bytes.length - at - (left - 1) * 4096, 1), n = Math.min(bytes.length - at, least + rnd(4097 - least));
    cut.push({ bytes: bytes.subarray(at, at + n), offset: rnd(4097 - n) });
    at += n;
  }
  return cut;
}
/** Nothing is mapped but the rings, and the test's front end saw nothing wrong. */
function settled(g: NetGuest): void {
  assert.deepEqual(g.mem.faults, []);
  assert.equal(g.mem.nrMapped, g.queues.length * 2);
  for (const q of g.queues) assert.deepEqual(q.faults, []);
}
/** Frames without the order between flows. */
const sorted = (frames: readonly Frame[]): string[] => frames.map((f) => `${f.checksum} ${f.gso?.type} ${f.gso?.mss} ${f.bytes.toHex()}`).sort();

for (const nrQueues of [1, 3]) {
  test(`thousands of frames of random sizes in random pieces arrive as they were sent, both ways, over ${nrQueues} queues and 2^32`, () => {
    const g = new NetGuest({ nrQueues, start: 0xffffff00, nrPages: 6000 }), rnd = seeded(7 + nrQueues), sent: Frame[] = [], given: Frame[] = [];
    const odd = (): Frame => {
      const isLarge = rnd(6) === 0, bytes = random(rnd, isLarge ? 1515 + rnd(64000) : 14 + rnd(1501)), type = rnd(2) ? "tcpv4" : "tcpv6";
      return isLarge ? { bytes, checksum: "blank", gso: { type, mss: 536 + rnd(8000) } } : { bytes, checksum: (["blank", "good", "unknown"] as const)[rnd(3)]!, gso: null };
    };
    for (let round = 0; sent.length < 1500 || given.length < 1500; round++) {
      assert.ok(round < 3000, `after ${round} rounds ${sent.length} sent, ${given.length} given`);
      for (let n = rnd(20); n > 0; n--) {
        const f = odd();
        if (g.queues[rnd(nrQueues)]!.send(pieces(rnd, f.bytes), f.checksum, f.gso)) sent.push(f);
      }
      g.kick();
      for (const [nr, q] of g.queues.entries()) if (q.post(rnd(120))) g.back.pollRx(nr);
      for (let n = rnd(20); n > 0; n--) {
        const f = odd();
        if (g.back.receive(f)) given.push(f);
      }
      for (let nr = 0; nr < nrQueues; nr++) g.back.pollRx(nr);
      if (rnd(3)) g.serve();
      if (rnd(4) === 0) g.timers.advance(1);
    }
    for (let i = 0; i < 100; i++) {
      for (const [nr, q] of g.queues.entries()) if (q.post(250)) g.back.pollRx(nr);
      g.timers.advance(1);
      g.serve();
    }
    assert.deepEqual(sorted(g.peer.frames), sorted(sent));
    assert.deepEqual(sorted(g.queues.flatMap((q) => q.received)), sorted(given));
    if (nrQueues === 1) assert.deepEqual(g.q.received.map((f) => f.bytes.length), given.map((f) => f.bytes.length));
    for (const q of g.queues) assert.ok(q.received.length > 100 && q.statuses.every((s) => s === NETIF_RSP.OKAY));
    assert.deepEqual(g.log, []);
    // The receive buffers that are still posted are grants; none of them is mapped.
    settled(g);
    const s = g.back.describe();
    assert.equal(s.queues.reduce((sum, q) => sum + q.tx.nrFrames, 0), sent.length);
    assert.equal(s.queues.reduce((sum, q) => sum + q.rx.nrFrames, 0), given.length);
    assert.equal(s.queues.reduce((sum, q) => sum + q.tx.nrBytes, 0), sent.reduce((sum, f) => sum + f.bytes.length, 0));
    g.back.close();
    assert.equal(g.mem.nrMapped, 0);
    assert.equal(g.timers.nrWaiting, 0);
  });
}

test("a burst is answered with one event", () => {
  const g = new NetGuest();
  for (let i = 0; i < 50; i++) assert.ok(g.q.send(whole(new Uint8Array(60))));
  g.kick();
  assert.deepEqual(g.events, [{ half: "tx", queue: 0 }]);
  g.serve();
  assert.equal(g.q.statuses.length, 50);
});

test("frames that come in one task are given together, with one event", async () => {
  const g = new NetGuest();
  g.q.post(64);
  for (let i = 0; i < 20; i++) assert.ok(g.back.receive(frame(new Uint8Array(60).fill(i))));
  assert.deepEqual(g.events, []);
  await Promise.resolve();
  assert.deepEqual(g.events, [{ half: "rx", queue: 0 }]);
  g.serve();
  assert.deepEqual(g.q.received.map((f) => f.bytes[0]), Array.from({ length: 20 }, (_, i) => i));
});

test("a full peer holds the guest's frames back; none is lost and the order stays", () => {
  const g = new NetGuest();
  g.peer.isFull = true;
  for (let i = 0; i < 10; i++) g.q.send(whole(new Uint8Array(60).fill(i)));
  g.kick();
  g.serve();
  assert.equal(g.q.statuses.length, 1);  // the one that is held was copied out
  assert.ok(g.back.describe().queues[0]!.tx.isHeld);
  g.timers.advance(150);
  g.peer.isFull = false;
  g.back.ready();
  g.serve();
  assert.deepEqual(g.peer.frames.map((f) => f.bytes[0]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.equal(g.back.describe().queues[0]!.tx.nrDropped, 0);
  assert.equal(g.timers.nrWaiting, 0);
});

test("a peer that stays full for 200 ms loses frames until it takes one", () => {
  const g = new NetGuest();
  g.peer.isFull = true;
  for (let i = 0; i < 10; i++) g.q.send(whole(new Uint8Array(60).fill(i)));
  g.kick();
  g.timers.advance(199);
  assert.equal(g.back.describe().queues[0]!.tx.nrDropped, 0);
  g.timers.advance(1);
  assert.equal(g.back.describe().queues[0]!.tx.nrDropped, 10);
  g.serve();
  assert.equal(g.q.statuses.length, 10);
  g.peer.isFull = false;
  g.q.send(whole(new Uint8Array(60).fill(77)));
  g.kick();
  g.peer.isFull = true;
  g.q.send(whole(new Uint8Array(60).fill(78)));
  g.kick();
  assert.deepEqual(g.peer.frames.map((f) => f.bytes[0]), [77]);
  assert.ok(g.back.describe().queues[0]!.tx.isHeld);
  settled(g);
});

test("a peer that says it has room before it returns false is asked again", async () => {
  const g = new NetGuest();
  let nrAsked = 0;
  g.peer.receive = (f) => {
    if (nrAsked++ > 0) return g.peer.frames.push(f) > 0;
    g.back.ready();
    return false;
  };
  g.q.send(whole(new Uint8Array(60)));
  g.kick();
  assert.equal(g.peer.frames.length, 0);
  await Promise.resolve();
  assert.equal(g.peer.frames.length, 1);
});

test("queues that wait for the same peer take turns", () => {
  const g = new NetGuest({ nrQueues: 3 });
  let room = 0;
  g.peer.receive = (f) => room > 0 && (room--, g.peer.frames.push(f) > 0);
  for (const [nr, q] of g.queues.entries()) for (let i = 0; i < 10; i++) q.send(whole(new Uint8Array(60).fill(nr)));
  g.kick();
  for (let i = 0; i < 15; i++) {
    room = 1;
    g.back.ready();
  }
  assert.deepEqual([0, 1, 2].map((nr) => g.peer.frames.filter((f) => f.bytes[0] === nr).length), [5, 5, 5]);
});

test("a device that is closed by what its own frame led to lets go of everything", () => {
  const g = new NetGuest({ nrQueues: 2 });
  g.peer.receive = () => { g.back.close(); return true; };
  for (const q of g.queues) for (let i = 0; i < 3; i++) q.send(whole(new Uint8Array(60)));
  g.kick();
  assert.equal(g.mem.nrMapped, 0);
  assert.equal(g.timers.nrWaiting, 0);
  assert.deepEqual(g.mem.faults, []);
  assert.equal(g.back.describe().queues[0]!.tx.ring, null);
  assert.equal(g.back.describe().queues[0]!.tx.nrFrames, 1);
});

test("what is sent without a cable is lost, and the guest does not notice", () => {
  const g = new NetGuest();
  g.peer.isFull = true;
  for (let i = 0; i < 3; i++) g.q.send(whole(new Uint8Array(60)));
  g.kick();
  g.back.peer = g.peer.peer = null;
  g.back.ready();
  g.serve();
  assert.deepEqual(g.q.statuses, [0, 0, 0]);
  assert.equal(g.back.describe().queues[0]!.tx.nrDropped, 3);
});

test("the rate is kept to, and what waits goes when there is credit", () => {
  const timers: { now: () => number } = { now: () => 0 };
  let credit = 3000, spent = 0;
  const rate = { waitMs: (n: number) => (credit >= n ? 0 : 50 - (timers.now() % 50)), spend: (n: number) => { credit -= n; spent += n; } };
  const g = new NetGuest({ back: { rate } });
  timers.now = () => g.timers.nowMs;
  for (let i = 0; i < 7; i++) g.q.send(whole(new Uint8Array(1000).fill(i)));
  g.kick();
  assert.equal(g.peer.frames.length, 3);
  for (const expected of [5, 7]) {
    g.timers.advance(49);
    credit = 2000;
    g.timers.advance(1);
    assert.equal(g.peer.frames.length, expected);
  }
  g.serve();
  assert.equal(spent, 7000);
  assert.deepEqual(g.peer.frames.map((f) => f.bytes[0]), [0, 1, 2, 3, 4, 5, 6]);
  assert.equal(g.q.statuses.length, 7);
});

test("one poll does a bounded amount of work, and the rest is done later without an event", () => {
  const g = new NetGuest(), { q } = g, gref = g.mem.grant(g.mem.allocate(), true), put = (): void => q.rawTx({ gref, offset: 0, flags: 0, id: 1, size: 60 });
  g.peer.receive = (f) => {  // the guest fills its ring as fast as it is emptied, without waiting for responses
    if (g.peer.frames.push(f) > 800) return true;
    q.tx.rspCons++;
    put();
    q.tx.push();
    return true;
  };
  for (let i = 0; i < 250; i++) put();
  g.kick();
  assert.equal(g.peer.frames.length, 256);
  g.back.pollTx(0);
  assert.equal(g.peer.frames.length, 256);
  g.timers.advance(1);
  assert.ok(g.peer.frames.length > 256);
  g.timers.advance(10);
  assert.equal(g.peer.frames.length, 1050);
  assert.ok(!g.back.isDead);
});

test("frames wait for buffers up to a bound; then the sender waits, and is told when half is gone", () => {
  const g = new NetGuest({ nrPages: 2000 });
  let taken = 0;
  while (taken < 5000 && g.back.receive(frame(new Uint8Array(1500).fill(taken & 255)))) taken++;
  assert.equal(taken, Math.floor((1 << 20) / 1500));
  for (let round = 0; g.q.received.length < taken; round++) {
    assert.ok(round < 1000, `after ${round} rounds ${g.q.received.length} received`);
    const told = g.peer.nrReady, waiting = g.back.describe().queues[0]!.rx.nrBytesWaiting;
    assert.equal(told > 0, waiting <= 1 << 19, `${waiting} bytes wait`);
    if (g.q.post(50)) g.back.pollRx(0);
    g.timers.advance(1);
    g.serve();
  }
  assert.equal(g.peer.nrReady, 1);
  assert.deepEqual(g.q.received.map((f) => f.bytes[0]), Array.from({ length: taken }, (_, i) => i & 255));
  settled(g);
});

test("small frames are bounded by their number", () => {
  const g = new NetGuest();
  let taken = 0;
  while (taken < 5000 && g.back.receive(frame(new Uint8Array(60)))) taken++;
  assert.equal(taken, 2048);
});

test("a front end that gives no buffers for 10 s loses what waits and what comes, until it gives some", () => {
  const g = new NetGuest();
  for (let i = 0; i < 5000 && g.back.receive(frame(new Uint8Array(1000))); i++);
  g.back.pollRx(0);
  g.timers.advance(9_999);
  assert.equal(g.peer.nrReady, 0);
  g.timers.advance(1);
  assert.equal(g.peer.nrReady, 1);
  assert.equal(g.back.describe().queues[0]!.rx.nrBytesWaiting, 0);
  assert.equal(g.back.receive(frame(new Uint8Array(1000))), true);
  assert.equal(g.back.describe().queues[0]!.rx.nrBytesWaiting, 0);
  assert.match(g.log[0]!, /^vif3\.0: the front end has given no receive buffers for 10 s/);
  g.q.post(1);
  assert.equal(g.back.receive(frame(new Uint8Array(1000).fill(9))), true);
  g.back.pollRx(0);
  g.serve();
  assert.equal(g.q.received.length, 1);
  assert.equal(g.timers.nrWaiting, 0);
});

test("a front end without feature-rx-notify is looked after while frames wait", () => {
  const g = new NetGuest({ features: { rxNotify: false } });
  g.back.receive(frame(new Uint8Array(100)));
  g.back.pollRx(0);
  g.q.post(4);  // and no event
  g.timers.advance(30);
  g.serve();
  assert.equal(g.q.received.length, 1);
});

test("a frame that has too few buffers gets an event only when the last one it needs is there", () => {
  const g = new NetGuest();
  g.back.receive(frame(new Uint8Array(9000), { checksum: "blank", gso: { type: "tcpv4", mss: 1448 } }));
  g.back.pollRx(0);
  assert.deepEqual([0, 1, 2, 3].map(() => g.q.post(1)), [false, false, false, true]);
  g.back.pollRx(0);
  g.serve();
  assert.deepEqual(g.q.received.map((f) => f.gso), [{ type: "tcpv4", mss: 1448 }]);
});

test("what the front end takes follows from its features, and what it cannot take is lost rather than given", () => {
  const nodes: Record<string, string> = { "feature-sg": "1", "feature-gso-tcpv4": "1", "request-rx-copy": "1", "feature-rx-notify": " 1", "feature-ipv6-csum-offload": "x" };
  const features = frontFeatures((node) => nodes[node]);
  assert.deepEqual(features, { sg: true, gsoTcpv4: true, gsoTcpv6: false, noCsumOffload: false, ipv6CsumOffload: false, rxNotify: true, requestRxCopy: true });
  const linux = new NetGuest().back, old = new NetGuest({ features });
  assert.deepEqual([linux.takesGso, linux.takesBlankChecksum, old.back.takesGso, old.back.takesBlankChecksum], [true, true, false, false]);
  const bare = new NetGuest({ features: { ...features, sg: false, gsoTcpv4: false } });
  bare.q.post(40);
  const ipv6 = new Uint8Array(60);
  ipv6.set([0x86, 0xdd], 12);
  for (const f of [frame(new Uint8Array(4097)), frame(new Uint8Array(60), { gso: { type: "tcpv4", mss: 1000 }, checksum: "blank" }), frame(ipv6, { checksum: "blank" }), frame(new Uint8Array(13)),
    frame(new Uint8Array(4096)), frame(new Uint8Array(60), { checksum: "blank" })]) assert.equal(bare.back.receive(f), true);
  bare.back.pollRx(0);
  bare.serve();
  assert.deepEqual(bare.q.received.map((f) => f.bytes.length), [4096, 60]);
  assert.equal(bare.back.describe().queues[0]!.rx.nrDropped, 4);
});

test("a peer that takes no offloads gets the frames that suit it", () => {
  const cut = new NetGuest({ back: { suited: (f) => [0, 1].map((i) => frame(f.bytes.slice(i * 100, i * 100 + 100))) } }), lost = new NetGuest();
  for (const g of [cut, lost]) {
    g.peer.takesGso = false;
    g.q.send(whole(new Uint8Array(200)), "blank", { type: "tcpv6", mss: 100 });
    g.kick();
  }
  assert.deepEqual(cut.peer.frames.map((f) => [f.bytes.length, f.gso]), [[100, null], [100, null]]);
  assert.equal(lost.peer.frames.length, 0);
  assert.equal(lost.back.describe().queues[0]!.tx.nrDropped, 1);
});

test("a frame that is wrong is answered with an error, slot by slot, and the ring goes on", () => {
  const g = new NetGuest(), page = g.mem.allocate(), ref = g.mem.grant(page, true), { q } = g;
  const tell = (what: string, put: () => void, statuses: number[], nrNulls = 0): void => {
    q.statuses.length = q.nrNulls = 0;
    put();
    g.kick();
    g.serve();
    assert.deepEqual(q.statuses, statuses, what);
    assert.equal(q.nrNulls, nrNulls, what);
  };
  const raw = (more: Partial<Parameters<typeof q.rawTx>[0]>): void => q.rawTx({ gref: ref, offset: 0, flags: 0, id: 60000, size: 100, ...more });
  const [E, D] = [NETIF_RSP.ERROR, NETIF_RSP.DROPPED], gso = (size: number, type: number = XEN_NETIF_GSO_TYPE.TCPV4): void => q.rawExtra(XEN_NETIF_EXTRA_TYPE.GSO, 0, size, type);
  tell("too short", () => raw({ size: 13 }), [E]);
  tell("over the page", () => raw({ offset: 4000, size: 97 }), [E]);
  tell("no such grant", () => raw({ gref: 0xffffffff }), [E]);
  tell("a part over the page", () => { raw({ flags: NETTXF.more_data, size: 200 }); raw({ offset: 4095, size: 2 }); }, [E, E]);
  tell("parts larger than the whole", () => { raw({ flags: NETTXF.more_data, size: 200 }); raw({ size: 201 }); }, [E, E]);
  tell("64 KiB", () => { for (let i = 0; i < 17; i++) raw({ flags: i < 16 ? NETTXF.more_data : 0, size: i === 0 ? 100 : 4096 }); }, Array(17).fill(E));
  tell("a grant missing in the middle", () => { raw({ flags: NETTXF.more_data, size: 300 }); raw({ flags: NETTXF.more_data, gref: 5, size: 100 }); raw({ size: 100 }); }, [E, E, E]);
  tell("longer than the MTU", () => { raw({ flags: NETTXF.more_data, size: 1519 }); raw({ size: 100 }); }, [D, D]);
  tell("GSO without a blank checksum", () => { raw({ flags: NETTXF.extra_info }); gso(1000); }, [E], 1);
  tell("GSO of nothing", () => { raw({ flags: NETTXF.extra_info | NETTXF.csum_blank }); gso(0); }, [E], 1);
  tell("GSO into crumbs", () => { raw({ flags: NETTXF.extra_info | NETTXF.csum_blank }); gso(47); }, [E], 1);
  tell("GSO of another kind", () => { raw({ flags: NETTXF.extra_info | NETTXF.csum_blank }); gso(1000, 3); }, [E], 1);
  assert.equal(g.peer.frames.length, 0);
  tell("two extras, two parts", () => {
    raw({ flags: NETTXF.extra_info | NETTXF.csum_blank | NETTXF.more_data, size: 300 });
    q.rawExtra(XEN_NETIF_EXTRA_TYPE.HASH, XEN_NETIF_EXTRA_FLAG_MORE);
    gso(1000);
    raw({ size: 100 });
  }, [0, 0], 2);
  assert.deepEqual(g.peer.frames.map((f) => [f.bytes.length, f.gso?.mss]), [[300, 1000]]);
  tell("a multicast filter, which is no frame", () => { raw({ flags: NETTXF.extra_info }); q.rawExtra(XEN_NETIF_EXTRA_TYPE.MCAST_ADD, 0); }, [0], 1);
  tell("a part of no bytes needs no grant", () => { raw({ flags: NETTXF.more_data }); raw({ gref: 0, size: 0 }); }, [0, 0]);
  assert.equal(g.peer.frames.length, 2);
  assert.ok(!g.back.isDead);
  assert.equal(g.log.length, 2);  // the two that could not be mapped
  settled(g);
});

test("frames whose end cannot be told are the end of the device", () => {
  const cases: [RegExp, (g: NetGuest, ref: number) => void][] = [
    [/slot 1 of a frame is missing/, ({ q }, gref) => q.rawTx({ gref, offset: 0, flags: NETTXF.more_data, id: 1, size: 100 })],
    [/an extra info is missing/, ({ q }, gref) => q.rawTx({ gref, offset: 0, flags: NETTXF.extra_info, id: 1, size: 100 })],
    [/an extra info has the type 0/, ({ q }, gref) => { q.rawTx({ gref, offset: 0, flags: NETTXF.extra_info, id: 1, size: 100 }); q.rawExtra(0, 0); }],
    [/an extra info has the type 5/, ({ q }, gref) => { q.rawTx({ gref, offset: 0, flags: NETTXF.extra_info, id: 1, size: 100 }); q.rawExtra(5, 0); }],
    [/an extra info is missing/, ({ q }, gref) => { q.rawTx({ gref, offset: 0, flags: NETTXF.extra_info, id: 1, size: 100 }); q.rawExtra(4, XEN_NETIF_EXTRA_FLAG_MORE); }],
    [/a frame has more than 20 slots/, ({ q }, gref) => { for (let i = 0; i < 30; i++) q.rawTx({ gref, offset: 0, flags: NETTXF.more_data, id: 1, size: 0 }); }],
    [/req_prod 999 is 999 ahead/, (g) => { g.q.tx.store(SRING.req_prod, 999); g.back.pollTx(0); }],
    [/receive ring: req_prod 257 is 257 ahead/, (g) => { g.back.receive(frame(new Uint8Array(60))); g.q.rx.store(SRING.req_prod, 257); g.back.pollRx(0); }],
  ];
  for (const [why, act] of cases) {
    const g = new NetGuest({ nrQueues: 2 }), ref = g.mem.grant(g.mem.allocate(), true);
    g.peer.isFull = true;
    g.queues[1]!.send(whole(new Uint8Array(60)));
    g.kick();
    act(g, ref);
    g.kick();
    assert.match(g.deaths.join(), why);
    assert.equal(g.log.length, 1);
    assert.match(g.log[0]!, /^vif3\.0: .*; the device stops$/);
    assert.equal(g.back.receive(frame(new Uint8Array(60))), true);
    assert.equal(g.timers.nrWaiting, 0);
    g.back.close();
    assert.equal(g.peer.peer, null);
    assert.equal(g.mem.nrMapped, 0);
    g.back.close();
    g.back.pollTx(0);
    assert.deepEqual(g.mem.faults, []);
  }
});

test("a receive buffer that cannot be written is answered with an error and costs that frame only", () => {
  const g = new NetGuest(), readonly = g.mem.grant(g.mem.allocate(), true);
  g.q.post(1);
  g.q.postRef(readonly, 5);
  g.q.post(1);
  g.q.postRef(4_000_000_000, 6);
  g.q.post(1);
  for (const n of [9000, 100, 200]) g.back.receive(frame(new Uint8Array(n)));
  g.back.pollRx(0);
  g.serve();
  assert.equal(g.q.nrRxErrors, 2);
  assert.deepEqual(g.q.received.map((f) => f.bytes.length), [200]);
  assert.equal(g.back.describe().queues[0]!.rx.nrErrors, 2);
  settled(g);
});

test("a front end that cannot be connected to is refused in a sentence, with nothing left mapped", () => {
  const g = new NetGuest(), before = g.mem.nrMapped, refuse = (nr: number, why: RegExp, more: Parameters<NetGuest["front"]>[0] = {}, spoil = false): void => {
    const { queues: [q], features } = g.front(more), queues = Array.from({ length: nr }, (_, i) => (spoil && i === nr - 1 ? { ...q!, rxRef: 0xffff_ffff } : q!));
    const open = () => new (g.back.constructor as typeof import("./back.ts").NetBack)({ domid: 3, devid: 0, mac: "", gnt: g.mem, notifyTx() {}, notifyRx() {}, log() {}, name: "vif3.0" }, { queues, features });
    assert.throws(open, (e) => e instanceof FrontRefusal && why.test(e.message));
    assert.equal(g.mem.nrMapped, before);
  };
  refuse(1, /request-rx-copy/, { requestRxCopy: false });
  refuse(0, /has 0 queues/);
  refuse(9, /has 9 queues, 1 to 8/);
  refuse(3, /rx-ring-ref 4294967295 cannot be mapped/, {}, true);
});

test("a flow keeps its queue, flows spread, and fragments of a datagram stay together", () => {
  const packet = (port: number, fragment = 0, version = 4, tag = false): Uint8Array => {
    const b = new Uint8Array(100), at = tag ? 18 : 14;
    if (tag) b.set([0x81, 0], 12);
    b.set(version === 4 ? [8, 0] : [0x86, 0xdd], at - 2);
    b[at] = version === 4 ? 0x45 : 0x60;
    b.set([fragment >> 8, fragment & 255], at + 6);
    if (version === 6) b[at + 6] = 6;
    else b[at + 9] = 17;
    b.set([port >> 8, port & 255], at + (version === 4 ? 20 : 40));
    return b;
  };
  for (const [version, tag] of [[4, false], [6, false], [4, true], [6, true]] as const) {
    const counts = [0, 0, 0, 0];
    for (let port = 0; port < 1000; port++) {
      const h = flowHash(packet(port, 0, version, tag));
      assert.equal(flowHash(packet(port, 0, version, tag)), h);
      counts[h % 4]!++;
    }
    for (const n of counts) assert.ok(n > 180 && n < 320, `${counts}`);
  }
  assert.equal(flowHash(packet(1, 0x2000)), flowHash(packet(2, 0x00b9)));
  for (let n = 0; n < 60; n++) flowHash(packet(5, 0, n % 2 ? 4 : 6).subarray(0, n));
});

test("frames whose pages are on their way wait for them, both ways, and keep their order", async () => {
  const g = new NetGuest({ nrPages: 3000 }), rnd = seeded(11), turn = (): Promise<void> => new Promise((done) => { setTimeout(done, 0); }), rings = [...g.q.tx.pages, ...g.q.rx.pages];
  const frames = Array.from({ length: 12 }, (_, i) => random(rnd, i % 4 === 0 ? 9000 : 60 + rnd(1400)));
  for (const [i, f] of frames.entries()) assert.ok(g.q.send(pieces(rnd, f), i % 4 === 0 ? "blank" : "unknown", i % 4 === 0 ? { type: "tcpv4", mss: 1400 } : null));
  g.q.post(40);
  g.mem.withholdAll(rings);
  g.kick();
  for (const f of frames) assert.ok(g.back.receive(frame(f, f.length === 9000 ? { checksum: "blank", gso: { type: "tcpv4", mss: 1400 } } : {})));
  g.back.pollRx(0);
  assert.equal(g.peer.frames.length, 0);
  let nr = 0;
  for (let idle = 0; idle < 3;) {
    await turn();
    const brought = g.mem.bring();
    nr += brought;
    idle = brought === 0 ? idle + 1 : 0;
    g.serve();
  }
  assert.ok(nr > 30, `${nr} pages were asked for`);
  assert.deepEqual(g.peer.frames.map((f) => f.bytes), frames);
  assert.deepEqual(g.q.received.map((f) => f.bytes), frames);
  assert.deepEqual([g.log, g.q.nrRxErrors, g.q.statuses.every((s) => s === NETIF_RSP.OKAY)], [[], 0, true]);
  settled(g);
  // a guest that is lost sends nothing more
  assert.ok(g.q.send(whole(new Uint8Array(60))));
  g.mem.withholdAll(rings);
  g.kick();
  await turn();
  g.mem.lose();
  await turn();
  assert.equal(g.peer.frames.length, frames.length);
  g.back.close();
});
