import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { Bridge } from "./bridge.ts";
import { bytesOf, BROADCAST, ethernet, ipv4, macNr, offloaded, summed, tcp, TestEnd } from "./fixture.ts";
import { VlanMember, type VlanOptions } from "./vlan.ts";

const bridgeOf = (ports: Record<string, VlanOptions | undefined>) => {
  const bridge = new Bridge({ name: "xenbr0" });
  const ends = Object.fromEntries(Object.entries(ports).map(([name, vlan]) => [name, new TestEnd(name, bridge.attach({ name: `port ${name}`, ...(vlan ? { vlan } : {}) }))]));
  const counts = (name: string) => bridge.ports.find((p) => p.name === `port ${name}`)!.counters;
  return { bridge, ends, counts };
};
const A = macNr(1), B = macNr(2), IPV4 = 0x0800, PAYLOAD = new Uint8Array(46).fill(0x55);
const frame = (tags: number[] = [], to = BROADCAST, from = A, type = IPV4) => ethernet(to, from, type, PAYLOAD, tags);

test("a frame from an access port leaves untagged on its VLAN's access ports and tagged on trunks, and no other VLAN sees it", () => {
  const { ends } = bridgeOf({ a: { access: 7 }, b: { access: 7 }, c: { access: 8 }, d: undefined, all: { trunk: "all" }, some: { trunk: [7, 9] }, other: { trunk: [8] }, native: { trunk: [8], native: 7 } });
  ends["a"]!.send(frame());
  const seen = Object.fromEntries(Object.entries(ends).map(([name, end]) => [name, end.take()]));
  const untagged = [frame().toHex()], tagged = [frame([7]).toHex()];
  assert.deepEqual(seen, { a: [], b: untagged, c: [], d: [], all: tagged, some: tagged, other: [], native: untagged });
});
test("from trunk to trunk the tag stays as it was, priority and drop eligibility too; towards an access port it goes off", () => {
  const { ends } = bridgeOf({ t: { trunk: [7] }, u: { trunk: "all", native: 0 }, a: { access: 7 } });
  ends["t"]!.send(frame([0xb007]));
  assert.deepEqual([ends["u"]!.take(), ends["a"]!.take()], [[frame([0xb007]).toHex()], [frame().toHex()]]);
});
test("an untagged frame with a priority keeps it where it is given a VLAN", () => {
  const { ends } = bridgeOf({ a: { access: 7 }, b: { access: 7 }, t: { trunk: [7] } });
  ends["a"]!.send(frame([0xa000]));
  assert.deepEqual([ends["t"]!.take(), ends["b"]!.take()], [[frame([0xa007]).toHex()], [frame().toHex()]]);
});
test("an access port cannot send tags, not even its own VLAN's; a trunk cannot send VLANs that it does not have", () => {
  const { ends, counts } = bridgeOf({ a: { access: 7 }, t: { trunk: [7] }, all: { trunk: "all" }, plain: undefined });
  for (const tags of [[7], [8], [4095], [7, 8]]) ends["a"]!.send(frame(tags));
  for (const tags of [[8], [], [0], [4095]]) ends["t"]!.send(frame(tags));
  ends["plain"]!.send(frame([7]));
  assert.deepEqual([ends["all"]!.take(), ends["t"]!.take(), ends["a"]!.take(), ends["plain"]!.take()], [[], [], [], []]);
  assert.deepEqual([counts("a").dropped.vlan, counts("t").dropped.vlan, counts("plain").dropped.vlan], [4, 4, 1]);
});
test("a second tag never becomes the first: not by a priority tag, not by a native VLAN, not by a service tag", () => {
  const { ends, counts } = bridgeOf({ a: { access: 7 }, t: { trunk: "all", native: 7 }, u: { trunk: "all" }, b: { access: 9 } });
  ends["a"]!.send(frame([0x2000, 9]));
  ends["t"]!.send(frame([0x2000, 9]));
  for (const type of [0x88a8, 0x9100, 0x9200]) ends["a"]!.send(ethernet(BROADCAST, A, type, bytesOf("00090800", PAYLOAD)));
  assert.deepEqual([ends["t"]!.take(), ends["u"]!.take(), ends["b"]!.take()], [[], [], []]);
  // Between trunks both tags travel together; out of the native or an access port they do not go.
  ends["u"]!.send(frame([7, 9]));
  assert.deepEqual([ends["t"]!.take(), ends["a"]!.take(), ends["b"]!.take()], [[], [], []]);
  assert.deepEqual([counts("t").dropped.unfit, counts("a").dropped.unfit], [1, 1]);
  ends["u"]!.send(frame([5, 9]));
  assert.deepEqual(ends["t"]!.take(), [frame([5, 9]).toHex()]);
});
test("one address in two VLANs is two addresses", () => {
  const { ends } = bridgeOf({ a: { access: 7 }, b: { access: 8 }, a2: { access: 7 }, b2: { access: 8 } });
  ends["a"]!.send(frame([], BROADCAST, A));
  ends["b"]!.send(frame([], BROADCAST, A));
  for (const end of Object.values(ends)) end.take();
  ends["a2"]!.send(frame([], A, B));
  ends["b2"]!.send(frame([], A, B));
  assert.deepEqual([ends["a"]!.take().length, ends["b"]!.take().length], [1, 1]);
});
test("a large TCP frame is cut behind its tag for a port that takes no gso", () => {
  const { ends } = bridgeOf({ a: { access: 7 }, t: { trunk: [7] }, b: { access: 7 }, big: { trunk: [7] } });
  Object.assign(ends["big"]!, { takesGso: true, takesBlankChecksum: true });
  const payload = Uint8Array.from({ length: 3000 }, (_, i) => i), packet = ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 100, payload));
  ends["a"]!.peer!.receive(offloaded(ethernet(BROADCAST, A, IPV4, packet), { type: "tcpv4", mss: 1460 }));
  const big = ends["big"]!.got, tagged = ends["t"]!.got, untagged = ends["b"]!.got;
  assert.deepEqual([big.length, big[0]!.gso?.mss, big[0]!.bytes.toHex()], [1, 1460, ethernet(BROADCAST, A, IPV4, packet, [7]).toHex()]);
  assert.deepEqual([tagged.length, untagged.length], [3, 3]);
  for (const [i, f] of untagged.entries()) {
    assert.equal(summed(f.bytes).toHex(), f.bytes.toHex(), "its checksum is right");
    assert.equal(tagged[i]!.bytes.toHex(), bytesOf(f.bytes.subarray(0, 12), "81000007", f.bytes.subarray(12)).toHex());
  }
});
test("a tag that is cut off is no tag", () => {
  const { ends, counts } = bridgeOf({ t: { trunk: "all", native: 0 }, u: { trunk: "all", native: 0 } });
  ends["t"]!.send(frame([7]).slice(0, 16));
  assert.deepEqual([ends["u"]!.take(), counts("t").dropped.vlan], [[], 1]);
});
test("identifiers that are none are refused with the port's name", () => {
  for (const vlan of [{ access: 4095 }, { access: -1 }, { access: 1.5 }, { trunk: [0] }, { trunk: [7, 4095] }, { trunk: [1], native: 9999 }] as VlanOptions[]) {
    assert.throws(() => new Bridge({ name: "b" }).attach({ name: "vif1.0", vlan }), (e) => e instanceof UserError && /Port vif1.0: VLAN/.test(e.message));
  }
});
test("a listing shows a trunk's VLANs as ranges", () => {
  assert.equal(new VlanMember({ trunk: [30, 20, 22, 21, 4094, 7], native: 10 }, "p").text, "trunk 7,20-22,30,4094 native 10");
});
