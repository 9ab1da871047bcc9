import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { Bridge, type BridgePortOptions } from "./bridge.ts";
import { ManualClock } from "./clock.ts";
import { BROADCAST, ethernet, ipv4, macNr, offloaded, plain, tcp, TestEnd } from "./fixture.ts";
import { AGEING_MS } from "./forwarding.ts";
import { connect, disconnect, type Port } from "./port.ts";

function bridgeOf(ports: Record<string, Omit<BridgePortOptions, "name">>) {
  const clock = new ManualClock(), said: string[] = [], bridge = new Bridge({ name: "xenbr0", clock, log: (s) => said.push(s) });
  const at = Object.fromEntries(Object.entries(ports).map(([name, options]) => [name, bridge.attach({ name, ...options })]));
  const ends = Object.fromEntries(Object.entries(at).map(([name, port]) => [name, new TestEnd(`end ${name}`, port)]));
  const heard = () => Object.fromEntries(Object.entries(ends).map(([name, end]) => [name, end.take().length]));
  return { clock, said, bridge, at, ends, heard };
}
const frame = (from: number, to: number | string = BROADCAST, lengthBytes = 60) =>
  ethernet(typeof to === "string" ? to : macNr(to), macNr(from), 0x88b5, new Uint8Array(lengthBytes - 14));

test("unknown addresses go everywhere but back, known ones to their port, groups everywhere", () => {
  const { ends, heard } = bridgeOf({ a: {}, b: {}, c: {} });
  ends["a"]!.send(frame(1, 2));
  assert.deepEqual(heard(), { a: 0, b: 1, c: 1 });
  ends["b"]!.send(frame(2, 1));
  assert.deepEqual(heard(), { a: 1, b: 0, c: 0 });
  ends["a"]!.send(frame(1, "01:00:5e:00:00:fb"));
  assert.deepEqual(heard(), { a: 0, b: 1, c: 1 });
});
test("a frame for the port it came from, for the next bridge, or from no station goes nowhere", () => {
  const { ends, at, heard } = bridgeOf({ a: {}, b: {} });
  ends["a"]!.send(frame(2));
  heard();
  ends["a"]!.send(frame(1, 2));
  ends["a"]!.send(frame(1, "01:80:c2:00:00:00"));
  ends["a"]!.send(frame(1, "01:80:c2:00:00:0f"));
  ends["a"]!.send(ethernet(BROADCAST, "01:00:00:00:00:01", 0x88b5));
  ends["a"]!.send(ethernet(BROADCAST, "00:00:00:00:00:00", 0x88b5));
  ends["a"]!.send(frame(1).slice(0, 13));
  ends["a"]!.send(frame(1, BROADCAST, 1523));
  assert.deepEqual(heard(), { a: 0, b: 0 });
  const { hairpin, reserved, malformed, oversize } = at["a"]!.counters.dropped;
  assert.deepEqual([hairpin, reserved, malformed, oversize], [1, 2, 3, 1]);
  ends["a"]!.send(frame(1, "01:80:c2:00:00:10"));
  assert.deepEqual(heard(), { a: 0, b: 1 });
});
test("an address is forgotten after 300 s of silence, or when its port goes", () => {
  const { clock, ends, at, heard } = bridgeOf({ a: {}, b: {}, c: {} });
  const to1 = () => { ends["b"]!.send(frame(2, 1)); return heard(); };
  ends["a"]!.send(frame(1));
  heard();
  clock.advance(AGEING_MS - 1);
  assert.deepEqual(to1(), { a: 1, b: 0, c: 0 });
  clock.advance(1);
  assert.deepEqual(to1(), { a: 1, b: 0, c: 1 });
  ends["a"]!.send(frame(1));
  heard();
  at["a"]!.detach();
  assert.equal(ends["a"]!.peer, null);
  assert.deepEqual(to1(), { a: 0, b: 0, c: 1 });
});
test("a flood of invented addresses fills the flooder's share, and its place is free again when they age", () => {
  const { clock, bridge, ends, at, heard } = bridgeOf({ a: { macsMax: 10 }, b: {}, c: {} });
  ends["b"]!.send(frame(9));
  for (let i = 100; i < 5100; i++) ends["a"]!.send(frame(i));
  const macs = (name: string) => bridge.describe().ports.find((p) => p.name === name)!.macs.length;
  assert.deepEqual([macs("a"), at["a"]!.nrMacs, macs("b")], [10, 10, 1]);
  heard();
  ends["c"]!.send(frame(3, 9));
  assert.deepEqual(heard(), { a: 0, b: 1, c: 0 });
  clock.advance(AGEING_MS);
  ends["a"]!.send(frame(7));
  assert.deepEqual([macs("a"), at["a"]!.nrMacs], [1, 1]);
});
test("a port does not take addresses from others beyond its share either", () => {
  const { ends, at } = bridgeOf({ a: {}, b: { macsMax: 3 } });
  for (let i = 1; i <= 6; i++) ends["a"]!.send(frame(i));
  for (let i = 1; i <= 6; i++) ends["b"]!.send(frame(i));
  assert.deepEqual([at["a"]!.nrMacs, at["b"]!.nrMacs], [3, 3]);
});

test("an address on two ports is told of once, follows the last, and stays put when it moves to and fro", () => {
  const { clock, said, ends, at, heard } = bridgeOf({ a: {}, b: {}, c: {} });
  ends["a"]!.send(frame(1));
  ends["b"]!.send(frame(1));
  assert.deepEqual(said, ["xenbr0: 00:16:3e:00:00:01 is behind a and b; it follows the one that spoke last"]);
  heard();
  ends["c"]!.send(frame(3, 1));
  assert.deepEqual(heard(), { a: 0, b: 1, c: 0 });
  for (let i = 0; i < 20; i++) { ends["a"]!.send(frame(1)); ends["b"]!.send(frame(1)); }
  assert.equal(said.length, 2);
  assert.match(said[1]!, /moves to and fro between . and .: .* is not heard with it for 10 s/);
  assert.equal(at["a"]!.counters.dropped.flapping + at["b"]!.counters.dropped.flapping, 18);
  clock.advance(10_000);
  heard();
  ends["a"]!.send(frame(1));
  ends["c"]!.send(frame(3, 1));
  assert.equal(heard()["a"], 1);
});
test("one port cannot fill the log", () => {
  const { said, ends } = bridgeOf({ a: {}, b: {} });
  for (let i = 1; i < 100; i++) { ends["a"]!.send(frame(i)); ends["b"]!.send(frame(i)); }
  assert.equal(said.length, 8);
  assert.match(said[7]!, /no more is said of b$/);
});
test("a listed address is its port's before it has spoken, and others are not heard with it", () => {
  const { ends, at, heard, said } = bridgeOf({ a: { macs: [macNr(1)] }, b: {}, c: {} });
  ends["b"]!.send(frame(2, 1));
  assert.deepEqual(heard(), { a: 1, b: 0, c: 0 });
  ends["b"]!.send(frame(1));
  ends["a"]!.send(frame(5));
  assert.deepEqual(heard(), { a: 0, b: 0, c: 0 });
  assert.deepEqual([at["a"]!.counters.dropped.mac, at["b"]!.counters.dropped.mac, said], [1, 1, []]);
});
test("an address listed for two ports follows the one that spoke last, and stays when the other goes", () => {
  const { bridge, ends, at, heard, said } = bridgeOf({ a: { macs: [macNr(1)] }, b: { macs: [macNr(1)] }, c: {} });
  assert.equal(said.length, 1);
  const to1 = () => { heard(); ends["c"]!.send(frame(3, 1)); return heard(); };
  ends["a"]!.send(frame(1));
  assert.deepEqual(to1(), { a: 1, b: 0, c: 0 });
  ends["b"]!.send(frame(1));
  assert.deepEqual(to1(), { a: 0, b: 1, c: 0 });
  at["a"]!.detach();
  assert.deepEqual(to1(), { a: 0, b: 1, c: 0 });
  assert.deepEqual(bridge.describe().ports.map((p) => p.name), ["b", "c"]);
});
test("isolated ports reach the others and not each other, not by flooding either", () => {
  const { ends, at, heard } = bridgeOf({ a: { isolated: true }, b: { isolated: true }, up: {} });
  ends["a"]!.send(frame(1));
  assert.deepEqual(heard(), { a: 0, b: 0, up: 1 });
  ends["b"]!.send(frame(2, 1));
  assert.deepEqual([heard(), at["b"]!.counters.dropped.isolated], [{ a: 0, b: 0, up: 0 }, 1]);
  ends["up"]!.send(frame(3, 1));
  assert.deepEqual(heard(), { a: 1, b: 0, up: 0 });
});

test("a unicast frame for a full port waits with its sender; the longest waiting goes first when there is room", () => {
  const { ends, at, heard } = bridgeOf({ a: {}, b: {}, c: {} });
  ends["c"]!.send(frame(3));
  heard();
  ends["c"]!.room = 1;
  assert.deepEqual([ends["a"]!.send(frame(1, 3)), ends["a"]!.send(frame(1, 3)), ends["b"]!.send(frame(2, 3))], [true, false, false]);
  assert.deepEqual([at["c"]!.state, at["c"]!.nrWaiting, at["a"]!.counters.rxFrames], ["full", 2, 1]);
  const order: string[] = [];
  for (const name of ["a", "b"]) ends[name]!.onReady = () => { order.push(name); while (ends[name]!.send(frame(name === "a" ? 1 : 2, 3))); };
  for (let i = 0; i < 4; i++) {
    ends["c"]!.room = 2;
    at["c"]!.ready();
  }
  assert.deepEqual([order, heard()["c"]], [["a", "b", "a", "b"], 9]);
});
test("flooding waits for nobody: a full port is passed over and counted", () => {
  const { ends, at, heard } = bridgeOf({ a: {}, b: {}, c: {} });
  ends["b"]!.room = 0;
  assert.equal(ends["a"]!.send(frame(1)), true);
  assert.equal(ends["a"]!.send(frame(1)), true);
  assert.deepEqual([heard(), at["b"]!.counters.dropped.full, at["b"]!.nrWaiting], [{ a: 0, b: 0, c: 2 }, 2, 0]);
});
test("nobody waits longer than a second for a port that takes nothing; when it does again, all is as before", () => {
  const { clock, ends, at, heard } = bridgeOf({ a: {}, b: {} });
  ends["b"]!.send(frame(2));
  ends["b"]!.room = 0;
  assert.equal(ends["a"]!.send(frame(1, 2)), false);
  clock.advance(1000);
  assert.deepEqual([ends["a"]!.nrReady, at["b"]!.state, ends["a"]!.send(frame(1, 2)), at["b"]!.counters.dropped.stalled], [1, "stalled", true, 1]);
  ends["b"]!.room = 1;
  ends["a"]!.send(frame(1, 2));
  assert.deepEqual([at["b"]!.state, heard()["b"], ends["a"]!.send(frame(1, 2)), at["b"]!.state], ["open", 1, false, "full"]);
  ends["b"]!.room = 1;
  at["b"]!.ready();
  assert.deepEqual([ends["a"]!.nrReady, at["b"]!.state, clock.nrWaiting], [2, "open", 0]);
});
test("who waits is told when the port that it waits for goes", () => {
  const { clock, ends, at } = bridgeOf({ a: {}, b: {} });
  ends["b"]!.send(frame(2));
  ends["b"]!.room = 0;
  assert.equal(ends["a"]!.send(frame(1, 2)), false);
  at["b"]!.detach();
  assert.deepEqual([ends["a"]!.nrReady, ends["a"]!.send(frame(1, 2)), clock.nrWaiting], [1, true, 0]);
});
test("a pulled cable wakes who waits, and frames for it are lost and counted", () => {
  const { ends, at } = bridgeOf({ a: {}, b: {} });
  ends["b"]!.send(frame(2));
  ends["b"]!.room = 0;
  assert.equal(ends["a"]!.send(frame(1, 2)), false);
  disconnect(ends["b"]!);
  assert.deepEqual([ends["a"]!.nrReady, ends["a"]!.send(frame(1, 2)), at["b"]!.counters.dropped.unplugged], [1, true, 1]);
});
test("a frame that was cut and half taken goes on where it stopped, before anything else", () => {
  const { ends, at } = bridgeOf({ a: {}, b: {} });
  ends["b"]!.send(frame(2));
  ends["b"]!.room = 2;
  const packet = ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 0, new Uint8Array(5000)));
  const big = offloaded(ethernet(macNr(2), macNr(1), 0x0800, packet), { type: "tcpv4", mss: 1000 });
  assert.equal(at["a"]!.receive(big), true);
  assert.deepEqual([ends["b"]!.got.length, ends["a"]!.send(frame(1, 2))], [2, false]);
  ends["a"]!.onReady = () => { ends["a"]!.send(frame(1, 2)); };
  ends["b"]!.room = 2;
  at["b"]!.ready();
  assert.equal(at["b"]!.state, "full");
  ends["b"]!.room = 9;
  at["b"]!.ready();
  const sequence = ends["b"]!.got.map((f) => (f.bytes.length > 60 ? new DataView(f.bytes.buffer, f.bytes.byteOffset).getUint32(14 + 20 + 4) : "next"));
  assert.deepEqual([sequence, at["b"]!.counters.txFrames], [[0, 1000, 2000, 3000, 4000, "next"], 6]);
});
test("a large frame that is not what it says is lost, and counted where it would have gone", () => {
  const { ends, at } = bridgeOf({ a: {}, b: {} });
  at["a"]!.receive(offloaded(frame(1), { type: "tcpv4", mss: 1000 }));
  at["a"]!.receive(offloaded(frame(1), { type: "tcpv4", mss: 9000 }));
  assert.deepEqual([ends["b"]!.got, at["b"]!.counters.dropped.unfit, at["a"]!.counters.dropped.oversize], [[], 1, 1]);
});
test("a port with a rate takes so much and says when there is credit again", () => {
  const { clock, ends, at } = bridgeOf({ a: { rate: { bytesPerInterval: 1000, intervalUs: 50_000 } }, b: {} });
  let sent = 0;
  const sendAll = () => { while (ends["a"]!.peer && ends["a"]!.send(frame(1, BROADCAST, 1000))) sent++; };
  ends["a"]!.onReady = sendAll;
  sendAll();
  assert.equal(sent, 131);
  clock.advance(1000);
  assert.equal(sent, 131 + 20);
  at["a"]!.detach();
  assert.equal(clock.nrWaiting, 0);
});

test("cables that make a ring end each frame once it comes back", () => {
  const one = new Bridge({ name: "one" }), two = new Bridge({ name: "two" });
  for (const i of [1, 2, 3]) connect(one.attach({ name: `c${i}` }), two.attach({ name: `c${i}` }));
  connect(one.attach({ name: "self1" }), one.attach({ name: "self2" }));
  const a = new TestEnd("a", one.attach({ name: "a" })), b = new TestEnd("b", two.attach({ name: "b" }));
  for (let i = 0; i < 100; i++) a.send(frame(1));
  assert.equal(a.got.length, 0);
  assert.ok(b.got.length >= 1 && b.got.length <= 300, `${b.got.length} of 100 frames`);
  assert.ok(one.ports.reduce((sum, p) => sum + p.counters.dropped.loop, 0) > 0);
});
test("a port may leave while a frame is flooded to it", () => {
  const { bridge, ends, at, heard } = bridgeOf({ a: {}, b: {}, c: {} });
  ends["b"]!.onFrame = () => { at["c"]!.detach(); bridge.attach({ name: "d" }); };
  ends["a"]!.send(frame(1));
  assert.deepEqual(heard(), { a: 0, b: 1, c: 0 });
});
test("a listing says what is where and what was dropped", () => {
  const { bridge, ends } = bridgeOf({ a: { macs: [macNr(1)], rate: { bytesPerInterval: 62_500, intervalUs: 50_000 } }, b: { vlan: { trunk: [5, 7], native: 0 }, isolated: true } });
  ends["a"]!.send(frame(1));
  ends["a"]!.send(frame(2));
  ends["b"]!.send(frame(3, 1, 100));
  const [a, b] = bridge.describe().ports;
  assert.deepEqual([a!.name, a!.peer, a!.vlan, a!.rate, a!.state, a!.macs], ["a", "end a", "", "62500 bytes each 50000 us", "open", [{ mac: macNr(1), vid: 0, idleMs: 0, listed: true }]]);
  assert.deepEqual([b!.vlan, b!.isolated, b!.macs], ["trunk 5,7 native 0", true, [{ mac: macNr(3), vid: 0, idleMs: 0, listed: false }]]);
  const { dropped, ...moved } = a!.counters;
  assert.deepEqual([moved, dropped.mac, b!.counters.txFrames], [{ rxFrames: 2, rxBytes: 120, txFrames: 1, txBytes: 100 }, 1, 1]);
});
test("taps are told of every frame before it goes on, and of its fate", () => {
  const { bridge, ends } = bridgeOf({ a: { macs: [macNr(1)] }, b: {} }), told: unknown[] = [];
  const end = bridge.tap((port, f) => {
    told.push([port.name, f.bytes.length]);
    return (fate) => told.push(fate);
  });
  ends["b"]!.onFrame = () => told.push("arrives");
  ends["b"]!.send(frame(2));
  ends["a"]!.send(frame(9));
  ends["b"]!.room = 1;
  ends["a"]!.send(frame(1, 2));
  ends["a"]!.send(frame(1, 2));
  end();
  ends["a"]!.send(frame(1));
  assert.deepEqual(told, [["b", 60], null, ["a", 60], "mac", ["a", 60], "arrives", null, ["a", 60], "wait"]);
});
test("two ports of one name are refused", () => {
  assert.throws(() => { const { bridge } = bridgeOf({ a: {} }); bridge.attach({ name: "a" }); }, UserError);
});
test("two hosts that answer at once do so through the bridge", () => {
  const { bridge } = bridgeOf({});
  const counts: number[] = [];
  const host = (nr: number, other: number): Port => {
    const port: Port = { name: `h${nr}`, takesGso: false, takesBlankChecksum: false, peer: null, ready() {}, receive(f) { if (f.bytes[14]! < 50) port.peer!.receive(answer(f.bytes[14]! + 1)); counts.push(nr); return true; } };
    const answer = (n: number) => plain(ethernet(macNr(other), macNr(nr), 0x88b5, new Uint8Array(46).fill(n)));
    connect(port, bridge.attach({ name: `p${nr}` }));
    return port;
  };
  host(1, 2);
  const two = host(2, 1);
  two.peer!.receive(plain(ethernet(BROADCAST, macNr(2), 0x88b5, new Uint8Array(46))));
  assert.equal(counts.length, 51);
});
