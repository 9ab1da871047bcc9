import assert from "node:assert/strict";
import { test } from "node:test";
import { BroadcastCable, type Channel } from "./broadcast-cable.ts";
import { ManualClock } from "./clock.ts";
import { connect, type Frame, type Port } from "./port.ts";

/** A BroadcastChannel of the test's own: messages wait until they are let through. */
class Air {
  readonly #channels = new Set<Channel>();
  #queue: (() => void)[] = [];
  channel(): Channel {
    const mine: Channel = {
      onmessage: null,
      postMessage: (data: unknown) => { for (const c of this.#channels) if (c !== mine) { const copy = structuredClone(data); this.#queue.push(() => c.onmessage?.({ data: copy } as MessageEvent)); } },
      close: () => { this.#channels.delete(mine); },
    };
    this.#channels.add(mine);
    return mine;
  }
  async settle(): Promise<void> { for (let i = 0; i < 200; i++) { await null; for (const act of this.#queue.splice(0)) act(); } }
}
function end(isFull = () => false): Port & { got: Frame[]; nrReady: number } {
  const port = { name: "end", takesGso: true, takesBlankChecksum: true, peer: null as Port | null, got: [] as Frame[], nrReady: 0, receive: (f: Frame) => { if (isFull()) return false; port.got.push(f); return true; }, ready: () => { port.nrReady++; } };
  return port;
}
const frame = (n: number): Frame => ({ bytes: new Uint8Array(60).fill(n), checksum: "good", gso: null });
function tab(air: Air, id: string, clock = new ManualClock(), isFull?: () => boolean) {
  const cable = new BroadcastCable({ name: id, channel: air.channel(), id, clock }), port = end(isFull);
  connect(cable, port);
  return { cable, port };
}

test("what one tab sends all others hear, in order", async () => {
  const air = new Air(), [a, b, c] = [tab(air, "a"), tab(air, "b"), tab(air, "c")];
  await air.settle();
  assert.equal(a.cable.nrTabs, 2);
  for (let i = 1; i <= 200; i++) { while (!a.cable.receive(frame(i))) await air.settle(); }
  await air.settle();
  for (const { port } of [b, c]) assert.deepEqual(port.got.map((f) => f.bytes[0]), Array.from({ length: 200 }, (_, i) => (i + 1) & 255));
  assert.equal(b.port.got[0]!.checksum, "unknown");
  assert.equal(a.port.got.length, 0);
  c.cable.close();
  await air.settle();
  assert.equal(a.cable.nrTabs, 1);
});
test("a tab that does not answer holds the sender up for a while only", async () => {
  const air = new Air(), clock = new ManualClock(), a = tab(air, "a", clock), asleep = air.channel();
  asleep.postMessage({ v: 1, from: "asleep", kind: "hello" });
  await air.settle();
  let nr = 0;
  while (nr < 5000 && a.cable.receive(frame(nr))) { nr++; await null; }
  assert.ok(nr < 1000, "it waits");
  clock.advance(1500);
  await air.settle();
  assert.ok(a.port.nrReady > 0 && a.cable.receive(frame(1)), "it goes on");
});
test("messages that are none, and frames that are none, change nothing", async () => {
  const air = new Air(), a = tab(air, "a"), foe = air.channel(), big = new Uint8Array(70000);
  const said = [null, 1, "x", {}, { v: 1, from: "f", kind: "frames", nr: 1, frames: "no" }, { v: 1, from: "f", kind: "frames", nr: 1.5, frames: [] }, { v: 1, from: "f", kind: "ack", to: "a", nr: 1e9 }, { v: 2, from: "f", kind: "hello" }, { v: 1, from: "x".repeat(100), kind: "hello" },
    { v: 1, from: "f", kind: "frames", nr: 1, frames: [null, {}, { bytes: big, checksum: "unknown", gso: null }, { bytes: new Uint8Array(3), checksum: "unknown", gso: null }, { bytes: new Uint8Array(60), checksum: "good", gso: null }, { bytes: new Uint8Array(60), checksum: "unknown", gso: { type: "tcpv4", mss: 9 } }] }];
  for (const m of said) foe.postMessage(m);
  await air.settle();
  assert.equal(a.port.got.length, 0);
  assert.equal(a.cable.counters.refused, 6);
  assert.equal(a.cable.nrTabs, 0);
});
test("frames wait for room at the other end", async () => {
  const air = new Air(), a = tab(air, "a");
  let isFull = true;
  const b = tab(air, "b", new ManualClock(), () => isFull);
  await air.settle();
  a.cable.receive(frame(7));
  await air.settle();
  assert.equal(b.port.got.length, 0);
  isFull = false;
  b.cable.ready();
  assert.equal(b.port.got.length, 1);
});
