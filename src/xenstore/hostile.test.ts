/** Guests that mean harm, beside one that means none. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { XS } from "../abi/io/xs_wire.ts";
import { Client } from "./client.ts";
import { GuestRing } from "./fixture.ts";
import { DEFAULT_QUOTA, Store } from "./store.ts";
import { encodePacket, fromBytes, strings, toBytes } from "./wire.ts";

/** What a guest may cost at most: its quota, an operation's worth beyond, and what waits for it. */
const MEMORY_MAX = DEFAULT_QUOTA.memoryBytes + (64 << 10), QUEUE_MAX = (1 << 20) + (64 << 10);

class Bout {
  readonly store = new Store();
  readonly dom0 = new Client(this.store);
  readonly victim = new GuestRing(this.store, 1);
  readonly hostile: GuestRing[];
  #heard = 0;
  #nrTurns = 0;
  constructor(t: TestContext, nrHostile: number) {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    this.hostile = Array.from({ length: nrHostile }, (_, i) => new GuestRing(this.store, 2 + i));
    this.dom0.watch("/local/domain/1", () => this.#heard++);
    this.victim.ask(XS.WATCH, "control", "t");
    t.after(() => { for (const g of [this.victim, ...this.hostile]) g.ring.close(); });
  }
  /** The victim's day: all it asks is answered at once and rightly, and what dom0 tells it comes. */
  check(): void {
    const v = this.victim, turn = String(this.#nrTurns++);
    v.send(XS.WRITE, toBytes(`data/x\0${turn}`));
    assert.deepEqual(v.receive().map((p) => [p.type, fromBytes(p.payload)]), [[XS.WRITE, "OK\0"]]);
    assert.deepEqual(v.ask(XS.READ, "data/x"), [turn]);
    assert.equal(this.dom0.read("/local/domain/1/data/x"), turn);
    this.dom0.write("/local/domain/1/control/shutdown", turn);
    assert.deepEqual(v.receive().map((p) => fromBytes(p.payload)), ["control/shutdown\0t\0"]);
  }
  checkBounds(): void {
    this.hostile.forEach((g, i) => {
      const c = this.store.connectionOf(2 + i);
      if (!c) return;
      assert.ok(this.store.memoryOf(c) <= MEMORY_MAX, `d${2 + i} holds ${this.store.memoryOf(c)} bytes`);
      assert.ok(g.ring.state.queuedBytes <= QUEUE_MAX, `${g.ring.state.queuedBytes} bytes wait for d${2 + i}`);
      assert.ok(c.nrWatches <= DEFAULT_QUOTA.nrWatches && c.transactions.size <= DEFAULT_QUOTA.nrTransactions && this.store.tree.nrOwned(2 + i) <= DEFAULT_QUOTA.nrNodes + 1);
    });
    assert.deepEqual(this.store.tree.flaws(), []);
  }
}

test("transactions that are hoarded are bounded in number and in what they hold", (t) => {
  const bout = new Bout(t, 1), [g] = bout.hostile as [GuestRing];
  for (let i = 0; i < 900; i++) {
    g.send(XS.WRITE, toBytes(`n${i}\0${"v".repeat(1900)}`));
    g.receive();
  }
  const ids: number[] = [];
  for (let i = 0; i < 30; i++) {
    g.receive();
    g.send(XS.TRANSACTION_START, strings(""));
    const [reply] = g.receive();
    if (reply?.type === XS.TRANSACTION_START) ids.push(Number.parseInt(fromBytes(reply.payload), 10));
  }
  assert.equal(ids.length, 10);
  let nrRefused = 0;
  for (const id of ids) {
    for (let i = 0; i < 300; i++) {
      g.send(i % 2 ? XS.READ : XS.WRITE, i % 2 ? strings(`n${i}`) : toBytes(`n${i}\0${"w".repeat(1900)}`), i, id);
      for (const p of g.receive()) if (p.type === XS.ERROR) nrRefused++;
    }
    bout.checkBounds();
    bout.check();
  }
  assert.ok(nrRefused > 1500, String(nrRefused));
  for (const id of ids) g.send(XS.TRANSACTION_END, strings("F"), 1, id);
  g.receive();
  assert.deepEqual(g.ask(XS.RM, "n0"), ["OK\0"], "it can make room again");
});

test("a storm of watches and of changes under them harms only who made it", (t) => {
  const bout = new Bout(t, 3), [watcher, writer, silent] = bout.hostile as [GuestRing, GuestRing, GuestRing];
  bout.dom0.setPerms("/local/domain/3", ["b3"]);  // the writer's directory is all the world's
  for (const g of [watcher, silent]) {
    for (let i = 0; i < 200; i++) {
      g.send(XS.WATCH, strings(i % 2 ? "/local/domain/3" : "/", `${i}${"t".repeat(i % 5 ? 10 : 1900)}`));
      g.receive();
    }
  }
  for (let i = 0; i < 100; i++) {
    writer.send(i % 3 ? XS.WRITE : XS.RM, i % 3 ? toBytes(`a/b${i % 7}/${"n".repeat(500)}${i}\0v`) : strings("a"));
    watcher.send(XS.WRITE, toBytes(`/local/domain/3/by2/${i}\0v`));
    writer.receive();
    watcher.receive();                     // and `silent` never reads
    if (i % 20 === 0) bout.check();
    if (i % 25 === 24) bout.checkBounds();
    t.mock.timers.tick(1);
  }
  t.mock.timers.tick(20_000);
  bout.checkBounds();
  bout.check();
});

test("a guest that asks and never reads, and one that rings without end, are held", (t) => {
  const bout = new Bout(t, 2), [mute, flood] = bout.hostile as [GuestRing, GuestRing];
  bout.dom0.write("/big", "v".repeat(4000));
  bout.dom0.setPerms("/big", ["r0"]);
  const asked = encodePacket({ type: XS.READ, req_id: 1, tx_id: 0, payload: strings("/big") }), nothing = encodePacket({ type: 99, req_id: 0, tx_id: 0, payload: new Uint8Array(0) });
  let nrPut = 0;
  for (let i = 0; i < 300; i++) {
    while (mute.put(asked) === asked.length) nrPut++;
    mute.ring.poll();
    for (let j = 0; j < 64; j++) flood.put(nothing);
    flood.ring.poll();
    flood.receive();
    if (i % 30 === 0) bout.check();
  }
  assert.ok(nrPut < 100, `${nrPut} requests were taken though no reply was read`);
  bout.checkBounds();
});

test("lengths that lie, paths without end, and strings without theirs are refused one by one", (t) => {
  const bout = new Bout(t, 1), [g] = bout.hostile as [GuestRing];
  for (const type of [...Object.values(XS), 20, 23, 24, 25, 26, 0xffff, 0xffffffff]) {
    for (const payload of [
      new Uint8Array(0), Uint8Array.of(0), new Uint8Array(4096), new Uint8Array(4096).fill(0x61), toBytes(`${"/a".repeat(2047)}\0\0`), toBytes(`${"a/".repeat(2047)}\0\0`),
      toBytes(`${"x".repeat(4094)}\0\0`), strings("@".repeat(3000), "t"), strings("/local/domain/1/data", "x"), strings("../1/data", "x"), strings("data", "99999999999999999999999"),
      strings("T"), strings("-1"), strings("0x1"), strings("65536"), toBytes("n0\0"), Uint8Array.from({ length: 4096 }, (_, i) => i),
    ]) {
      g.send(type, payload);
      const replies = g.receive().filter((p) => p.type !== XS.WATCH_EVENT);
      assert.equal(replies.length, 1, `type ${type}`);
      assert.ok(g.ring.state.connected);
    }
    bout.check();
  }
  bout.checkBounds();
  for (const length of [4097, 0x7fffffff, 0x80000000, 0xffffffff]) {
    const header = encodePacket({ type: XS.READ, req_id: 1, tx_id: 0, payload: new Uint8Array(0) });
    new DataView(header.buffer).setUint32(12, length, true);
    g.put(header);
    g.ring.poll();
    assert.equal(g.ring.state.connected, false);
    g.reconnect();
  }
  bout.check();
});

test("what a guest shares with another stays within its own means", (t) => {
  const bout = new Bout(t, 1), [g] = bout.hostile as [GuestRing];
  bout.victim.ask(XS.SET_PERMS, "/local/domain/1", "n1", "b2");
  for (let i = 0; i < 1100; i++) {
    g.send(XS.WRITE, toBytes(`/local/domain/1/stuffed/${i}\0`));
    g.receive();
  }
  assert.ok(bout.store.tree.nrOwned(1) < 10, "the victim's quota is not used up by another's nodes");
  assert.ok(bout.store.tree.nrOwned(2) <= DEFAULT_QUOTA.nrNodes);
  bout.check();
  bout.checkBounds();
});
