import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { concat } from "../../base/bytes.ts";
import { segment } from "../offload.ts";
import type { Frame } from "../port.ts";
import { parseIpv4 } from "../address.ts";
import { BROADCAST_MAC, formatAddress, formatIpv4 } from "./address.ts";
import { type GuestOptions, SimGuest } from "./fixture.ts";
import { randomBytes, seeded, VirtualClock } from "./fixture-clock.ts";
import { echo, FakeOutside, type FakeStream } from "./fixture-outside.ts";
import { NatNetwork, type NatOptions } from "./nat.ts";

const ip = (text: string): number => parseIpv4(text)!, SERVER = ip("198.51.100.7"), hex = (b: Uint8Array): string => Buffer.from(b).toString("hex"), text = (s: string) => new TextEncoder().encode(s);
function network(guest: GuestOptions = {}, options: Partial<NatOptions> = {}) {
  const clock = new VirtualClock(), outside = new FakeOutside(clock), next = seeded(42), logged: string[] = [];
  const nat = new NatNetwork({ outside, clock, random: () => Math.floor(next() * 2 ** 32), log: (s) => logged.push(s), ...options });
  return { clock, outside, nat, sim: new SimGuest(nat, clock, guest), logged };
}
/** ICMP packets among those that came: [type, code, source] */
const icmps = (sim: SimGuest) => sim.others.filter((b) => b[12] === 8 && b[13] === 0 && b[23] === 1).map((b) => [b[34], b[35], formatIpv4(new DataView(b.buffer, b.byteOffset).getUint32(26))]);

test("ARP is answered for the router's addresses, and for absent ones only when that is wanted", async () => {
  for (const answersForAbsent of [false, true]) {
    const { clock, sim } = network({}, { answersForAbsent });
    const asks = async (target: string, sender?: string): Promise<string> => {
      sim.others.length = 0;
      sim.arp(1, 0, ip(target), sender === undefined ? undefined : ip(sender));
      await clock.run(5);
      return sim.others.map((b) => hex(b.subarray(20, 32))).join();
    };
    assert.equal(await asks("10.0.2.1"), "000202d00a0002010a000201");
    assert.equal(await asks("10.0.2.2"), "000202d00a0002010a000202");
    assert.equal(await asks("10.0.2.99"), answersForAbsent ? "000202d00a0002010a000263" : "");
    assert.equal(await asks("10.0.2.99", "0.0.0.0"), "", "a probe for a free address must find it free");
    assert.equal(await asks("10.0.2.15"), "", "nor is a guest told that somebody has its own");
    assert.equal(await asks("10.0.3.1"), "");
  }
});
test("echoes are answered for the gateway and the host's address; farther ones are unreachable, dead ones time out", async () => {
  const { clock, sim } = network();
  for (const to of ["10.0.2.1", "10.0.2.2", "8.8.8.8", "10.0.2.77"]) sim.echo(ip(to), text(`to ${to}`));
  sim.echo(SERVER, text("near"), 1);
  sim.send(sim.ip(47, SERVER, new Uint8Array(8)));
  await clock.run(10);
  assert.deepEqual(icmps(sim), [[0, 0, "10.0.2.1"], [0, 0, "10.0.2.2"], [3, 1, "10.0.2.1"], [3, 1, "10.0.2.1"], [11, 0, "10.0.2.1"], [3, 2, "10.0.2.1"]]);
  assert.equal(new TextDecoder().decode(sim.others[0]!.subarray(42, 53)), "to 10.0.2.1");
  assert.equal(hex(sim.others[2]!.subarray(42, 62)), hex(sim.ip(1, ip("8.8.8.8"), new Uint8Array(18)).subarray(14, 34)), "the error quotes the packet");
});
test("fragments are put together in any order, and large answers are cut; overlapping ones are dropped", async () => {
  const { clock, nat, sim } = network(), data = randomBytes(1, 4000), whole = new Uint8Array(4008);
  whole.set([8, 0, 0, 0, 1, 2, 3, 4]);
  whole.set(data, 8);
  let sum = 0;
  for (let i = 0; i < whole.length; i += 2) sum += whole[i]! * 256 + whole[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  whole[2] = ~sum >>> 8;
  whole[3] = ~sum;
  const piece = (from: number, to: number, id: number) => sim.ip(1, nat.gateway, whole.subarray(from, to), { id, fragment: (to < whole.length ? 0x2000 : 0) | (from / 8) });
  for (const [from, to] of [[2960, 4008], [0, 1480], [0, 1480], [1480, 2960]] as const) sim.send(piece(from, to, 7));
  await clock.run(10);
  const parts = sim.others.map((b) => [(((b[20]! << 8) | b[21]!) & 0x1fff) * 8, b[20]! & 0x20, b.subarray(34)] as const);
  assert.deepEqual(parts.map((p) => [p[0], p[1]]), [[0, 0x20], [1480, 0x20], [2960, 0]]);
  assert.equal(hex(concat(parts.map((p) => p[2])).subarray(8)), hex(data));
  assert.equal(nat.stats.now.nrReassembling, 0);
  for (const [from, to] of [[0, 1480], [1472, 2960], [1480, 2960], [2960, 4008]] as const) sim.send(piece(from, to, 8));
  for (let id = 100; id < 400; id++) sim.send(piece(0, 1480, id));
  await clock.run(10);
  assert.equal(icmps(sim).length, 3);
  assert.ok(nat.stats.now.nrReassembling <= 32);
  await clock.run(31_000);
  sim.send(piece(0, 1480, 1));
  await clock.run(10);
  assert.equal(nat.stats.now.nrReassembling, 1, "old pieces go when new ones come");
});

// ---- DHCP

/** BOOTREQUEST with options, as RFC 2131 figure 1 draws it */
function dhcp(sim: SimGuest, type: number, options: readonly number[] = [], { mac = sim.mac, ciaddr = 0, xid = 0x1234, flags = 0, source = 0, to = 0xffffffff } = {}): void {
  const bytes = new Uint8Array(240 + 3 + options.length + 1), view = new DataView(bytes.buffer);
  bytes.set([1, 1, 6, 0]);
  view.setUint32(4, xid);
  view.setUint16(10, flags);
  view.setUint32(12, ciaddr);
  view.setUint16(28, mac / 2 ** 32);
  view.setUint32(30, mac >>> 0);
  view.setUint32(236, 0x63825363);
  bytes.set([53, 1, type, ...options, 255], 240);
  sim.send(sim.udpFrame(to, 67, 68, bytes, { source, mac: to === 0xffffffff ? BROADCAST_MAC : sim.routerMac }));
}
const replies = (sim: SimGuest) => sim.others.splice(0).filter((b) => b[23] === 17 && b[37] === 68).map((b) => {
  const options: Record<number, string> = {};
  for (let at = 42 + 240; b[at] !== 255; at += 2 + b[at + 1]!) options[b[at]!] = hex(b.subarray(at + 2, at + 2 + b[at + 1]!));
  return { to: formatIpv4(new DataView(b.buffer, b.byteOffset).getUint32(30)), station: hex(b.subarray(0, 6)), xid: hex(b.subarray(46, 50)), yiaddr: formatIpv4(new DataView(b.buffer, b.byteOffset).getUint32(58)), options };
});

test("a DHCP exchange gives address, mask, router, DNS, domain, times, and the MTU to who asks", async () => {
  const { clock, nat, sim } = network({}, { mtu: 9000 });
  dhcp(sim, 1, [12, 3, 0x57, 0x65, 0x42]);
  await clock.run(5);
  const options = { 54: "0a000201", 51: "00015180", 58: "0000a8c0", 59: "00012750", 1: "ffffff00", 3: "0a000201", 6: "0a000201", 28: "0a0002ff", 15: hex(text("domus.internal")), 26: "2328" };
  assert.deepEqual(replies(sim), [{ to: "10.0.2.15", station: "02163e000001", xid: "00001234", yiaddr: "10.0.2.15", options: { 53: "02", ...options } }]);
  assert.equal(nat.leases.length, 0, "an offer is no lease");
  dhcp(sim, 3, [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 1, 12, 3, 0x57, 0x65, 0x42, 55, 2, 12, 26], { flags: 0x8000 });
  await clock.run(5);
  assert.deepEqual(replies(sim), [{ to: "255.255.255.255", station: "ffffffffffff", xid: "00001234", yiaddr: "10.0.2.15", options: { 53: "05", ...options, 12: hex(text("web")) } }]);
  assert.deepEqual(nat.leases.map((l) => [l.mac, l.address, l.hostname]), [["02:16:3e:00:00:01", "10.0.2.15", "web"]]);
  dhcp(sim, 3, [], { ciaddr: sim.address, source: sim.address, to: nat.gateway });
  await clock.run(5);
  assert.deepEqual(replies(sim).map((r) => [r.to, r.options[53]]), [["10.0.2.15", "05"]], "renewing");
  dhcp(sim, 8, [], { ciaddr: sim.address, source: sim.address });
  await clock.run(5);
  assert.deepEqual(replies(sim).map((r) => [r.options[53], r.options[51], r.options[3], r.yiaddr]), [["05", undefined, "0a000201", "0.0.0.0"]], "INFORM gets options and no lease");
  dhcp(sim, 3, [50, 4, 10, 0, 2, 77, 54, 4, 10, 0, 2, 9]);
  await clock.run(5);
  assert.deepEqual(replies(sim), [], "who takes another server's offer is not ours");
  dhcp(sim, 3, [50, 4, 192, 168, 0, 9]);
  await clock.run(5);
  assert.deepEqual(replies(sim).map((r) => [r.to, r.options[53]]), [["255.255.255.255", "06"]], "an address of another network is refused");
  dhcp(sim, 7, [54, 4, 10, 0, 2, 1], { ciaddr: sim.address, source: sim.address, to: nat.gateway });
  await clock.run(5);
  assert.equal(nat.leases.length, 0);
});
test("the pool ends, bindings stay, a flood is slowed down, and leases survive the router", async () => {
  const options = { pool: ["10.0.2.100", "10.0.2.103"] as const, staticLeases: [{ mac: "02:16:3e:00:00:99", address: "10.0.2.50", hostname: "db" }] };
  const { clock, outside, nat, sim } = network({}, options), base = 0x02163e000100;
  for (let i = 0; i < 10; i++) dhcp(sim, 3, [50, 4, 10, 0, 2, 100 + i], { mac: base + i, flags: 0x8000 });
  await clock.run(5);
  assert.deepEqual(replies(sim).map((r) => r.options[53]), ["05", "05", "05", "05", "06", "06", "06", "06", "06", "06"]);
  dhcp(sim, 1, [], { mac: base + 20, flags: 0x8000 });
  dhcp(sim, 1, [], { mac: 0x02163e000099, flags: 0x8000 });
  await clock.run(5);
  assert.deepEqual(replies(sim).map((r) => r.yiaddr), ["10.0.2.50"]);
  for (let i = 0; i < 200; i++) dhcp(sim, 1, [], { flags: 0x8000, mac: 0x02163e000099 });
  await clock.run(5);
  assert.ok(replies(sim).length <= 20);
  for (let i = 0; i < 5000; i++) dhcp(sim, 1, [], { mac: 0x02aa00000000 + i, flags: 0x8000 });
  await clock.run(5);
  assert.deepEqual(replies(sim), []);
  assert.ok(nat.stats.now.nrLeasesHeld <= 5);
  const later = new NatNetwork({ ...options, outside, clock, leases: nat.leases });
  assert.deepEqual(later.leases.map((l) => [l.mac, l.address]), nat.leases.map((l) => [l.mac, l.address]));
});
test("nobody speaks with an address that is leased to another", async () => {
  const { clock, outside, nat, sim, logged } = network();
  outside.onDatagram = (_, __, ___, back) => back(text("yes"));
  dhcp(sim, 3, [50, 4, 10, 0, 2, 15], { mac: 0x02163e000002 });
  await clock.run(5);
  sim.udp(SERVER, 99, 1000, text("it is me"));
  sim.arp(2, sim.routerMac, nat.gateway);
  await clock.run(5);
  assert.deepEqual([nat.stats.now.nrUdpFlows, nat.stats.frames.nrForged], [0, 2]);
  assert.equal(logged[0], "nat: 02:16:3e:00:00:01 speaks with 10.0.2.15, which is leased to 02:16:3e:00:00:02; it is not heard");
});

// ---- UDP

test("a guest's port has one socket outside, hears only whom it wrote to, and ends after two idle minutes", async () => {
  const { clock, outside, nat, sim } = network({}, { hostAccess: true, policy: ["deny udp any:666"] }), heard: unknown[] = [], sent: string[] = [];
  sim.onUdp = (source, sourcePort, port, data) => heard.push([formatAddress(source), sourcePort, port, new TextDecoder().decode(data.subarray(0, 20)), data.length]);
  outside.onDatagram = (bytes, address, port, back) => {
    sent.push(`${address}:${port}`);
    back(text("forged"), "203.0.113.66", port);
    back(bytes.length < 100 ? text("short") : randomBytes(1, 3000).fill(65, 0, 20));
  };
  sim.udp(SERVER, 5000, 1000, text("a"));
  sim.udp(ip("203.0.113.1"), 5001, 1000, text("b"));
  sim.udp(nat.hostAddress, 5002, 1000, text("c"));
  sim.udp(SERVER, 5000, 1001, randomBytes(1, 200));
  for (const [to, port] of [["203.0.113.1", 666], ["127.0.0.1", 5], ["0.0.0.1", 5], ["10.0.2.1", 5], ["224.0.0.251", 5353], ["10.0.2.255", 137]] as const) sim.udp(ip(to), port, 1002, text("x"));
  await clock.run(10);
  assert.deepEqual(heard, [["198.51.100.7", 5000, 1000, "short", 5], ["203.0.113.1", 5001, 1000, "short", 5], ["10.0.2.2", 5002, 1000, "short", 5]]);
  assert.deepEqual(sent, ["198.51.100.7:5000", "203.0.113.1:5001", "127.0.0.1:5002", "198.51.100.7:5000"]);
  assert.equal(sim.others.filter((b) => b[23] === 17 && (b[20]! & 0x3f || b[21])).length, 3, "3000 bytes come in three fragments");
  assert.deepEqual(icmps(sim).map(([type, code]) => [type, code]), [[3, 13], [3, 1], [3, 1], [3, 3]]);
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen, nat.stats.udp.nrUnasked], [2, 2, 4]);
  await clock.run(119_000);
  sim.udp(SERVER, 5000, 1000, text("a"));
  await clock.run(10_000);
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen], [1, 1]);
  await clock.run(121_000);
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen, nat.stats.now.nrTimers], [0, 0, 0]);
});
test("flows and peers are bounded: the oldest give way", async () => {
  const { clock, outside, nat, sim } = network({}, { limits: { nrFlows: 50, nrFlowsPerGuest: 30 } });
  for (let i = 0; i < 500; i++) sim.udp(SERVER + (i % 200), 5000, 1000 + i, text("x"));
  for (let i = 0; i < 500; i++) sim.udp(SERVER + i, 5000, 999, text("x"));
  await clock.run(10);
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen], [30, 30]);
  nat.close();
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen], [0, 0]);
});
test("a UDP forward shows each peer as a port of the gateway's, and answers go back to that peer", async () => {
  const { clock, outside, nat, sim } = network({}, { forwards: ["udp:127.0.0.1:5353-10.0.2.15:53"] });
  await nat.start();
  sim.onUdp = (source, sourcePort, port, data) => sim.udp(source, sourcePort, port, text(`re: ${new TextDecoder().decode(data)}`));
  for (let i = 0; i < 3; i++) outside.boundUdp.get("127.0.0.1:5353")!.datagram(text(`q${i}`), "127.0.0.1", 40000 + (i & 1));
  await clock.run(10);
  assert.deepEqual(outside.sentByBound.map((s) => [new TextDecoder().decode(s.bytes), s.port]), [["re: q0", 40000], ["re: q1", 40001], ["re: q2", 40000]]);
  assert.equal(nat.stats.now.nrUdpForwardPeers, 2);
  await clock.run(130_000);
  assert.equal(nat.stats.now.nrUdpForwardPeers, 0);
});
test("a forward by MAC or name goes where the lease is; without one the client is refused", async () => {
  const { clock, outside, nat, sim, logged } = network({}, { forwards: ["tcp:1-02:16:3e:00:00:01:22", "tcp:2-web:22"] });
  await nat.start();
  assert.ok(outside.come("127.0.0.1:1").isAborted && outside.come("127.0.0.1:2").isAborted && logged.length === 2);
  dhcp(sim, 3, [50, 4, 10, 0, 2, 15, 12, 3, 0x77, 0x65, 0x62]);
  await clock.run(5);
  let nr = 0;
  sim.listening.set(22, () => nr++);
  assert.ok(!outside.come("127.0.0.1:1").isAborted && !outside.come("127.0.0.1:2").isAborted);
  await clock.run(50);
  assert.equal(nr, 2);
  const still = network({ mac: 0x02163e000005, address: ip("10.0.2.200") }, { forwards: ["tcp:1-02:16:3e:00:00:05:22"] });
  await still.nat.start();
  still.sim.echo(still.nat.gateway, text("I have an address of my own"));
  await still.clock.run(5);
  assert.ok(!still.outside.come("127.0.0.1:1").isAborted, "a guest without a lease is known by what it sent");
  still.nat.dropGuest("02:16:3e:00:00:05");
  assert.equal(still.nat.stats.now.nrTcp, 0);
  assert.throws(() => new NatNetwork({ outside, forwards: ["tcp:1-10.0.3.1:22"] }), /Forward "tcp:1-10.0.3.1:22": guest "10.0.3.1" is not an address of a host in 10.0.2.0\/24/);
  assert.throws(() => new NatNetwork({ outside, forwards: ["tcp:1-10.0.2.1:22"] }), /the router's own address/);
  await assert.rejects(nat.addForward("tcp:1"), { name: "UserError" });
});

// ---- DNS

const query = (id: number, name: string, type = 1): Uint8Array =>
  Uint8Array.from([id >>> 8, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...name.split(".").flatMap((l) => [l.length, ...text(l)]), 0, 0, type, 0, 1]);
const answerTo = (q: Uint8Array, rdata: readonly number[]): Uint8Array => Uint8Array.from([...q.subarray(0, 2), 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, ...q.subarray(12), 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...rdata]);

test("names of the network are answered here, over UDP and TCP, forwards and backwards", async () => {
  const { clock, nat, sim } = network(), got = new Map<number, string>();
  dhcp(sim, 3, [50, 4, 10, 0, 2, 15, 12, 3, 0x77, 0x65, 0x62]);
  sim.onUdp = (_, port, __, data) => {
    if (port === 53) got.set((data[0]! << 8) | data[1]!, `${data[3]! & 15} ${hex(data.subarray(6, 8))} ${hex(data.subarray(-4))}`);
  };
  const names = ["host.domus.internal", "GateWay.domus.internal", "web.domus.internal", "web", "nobody.domus.internal"];
  names.forEach((name, i) => { sim.udp(nat.gateway, 53, 3000, query(i, name)); });
  sim.udp(nat.gateway, 53, 3000, query(10, "web.domus.internal", 28));
  sim.udp(nat.gateway, 53, 3000, query(11, "15.2.0.10.in-addr.arpa", 12));
  sim.udp(nat.gateway, 53, 3000, query(12, "77.2.0.10.in-addr.arpa", 12));
  sim.udp(nat.gateway, 53, 3000, Uint8Array.of(0, 13, 0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0));
  sim.udp(nat.gateway, 53, 3000, query(14, "web").subarray(0, 14));
  await clock.run(10);
  assert.deepEqual([...got].map(([id, s]) => `${id}: ${s}`), ["0: 0 0001 0a000202", "1: 0 0001 0a000201", "2: 0 0001 0a00020f", "3: 0 0001 0a00020f", "4: 3 0000 00010001", "10: 0 0000 001c0001",
    `11: 0 0001 ${hex(Uint8Array.from([...text("nal"), 0]))}`, "12: 3 0000 000c0001", "13: 4 0000 00000000", "14: 1 0000 00000000"]);
  const tcp = sim.connectTcp(nat.gateway, 53), q = query(77, "host.domus.internal"), framed = Uint8Array.from([0, q.length, ...q]);
  for (const b of [...framed, ...framed]) tcp.write(Uint8Array.of(b));
  await clock.run(1000);
  const reply = concat(tcp.received);
  assert.equal(reply.length, 2 * (2 + q.length + 16));
  assert.equal(hex(reply.subarray(-4)), "0a000202");
  tcp.close();
  await clock.run(30_000);
  assert.equal(nat.stats.now.nrTcp, 0);
});
test("a guest that asks over TCP and reads no answer is held up", async () => {
  const { clock, nat, sim } = network({ windowBytes: 4096, shift: 0 }), tcp = sim.connectTcp(nat.gateway, 53), q = query(77, "host.domus.internal"), framed = Uint8Array.from([0, q.length, ...q]);
  tcp.isReading = false;
  const nr = 20_000, all = new Uint8Array(nr * framed.length);
  for (let i = 0; i < nr; i++) all.set(framed, i * framed.length);
  tcp.write(all);
  await clock.run(20_000);
  assert.ok(tcp.unsentBytes > 300_000, `${tcp.unsentBytes} bytes of questions wait in the guest`);
  tcp.close();
  tcp.read(true);
  await clock.run(200_000, () => tcp.end !== null);
  assert.deepEqual([tcp.end, tcp.receivedBytes], ["closed", nr * (framed.length + 16)]);
});
test("other names go to the host's resolvers under a number of the router's; a wrong answer does not count, a silent resolver has a next one", async () => {
  const { clock, outside, nat, sim } = network(), got: string[] = [], asked: string[] = [];
  outside.resolverList = [{ address: "192.0.2.1", port: 53 }, { address: "192.0.2.2", port: 5353 }];
  outside.onDatagram = (bytes, address, port, back) => {
    asked.push(`${address}:${port}`);
    if (address === "192.0.2.1") return;
    const right = answerTo(bytes, [9, 9, 9, 9]), wrongId = right.slice();
    wrongId[0]! ^= 1;
    back(wrongId);
    back(answerTo(query((bytes[0]! << 8) | bytes[1]!, "evil.test"), [6, 6, 6, 6]));
    back(right, "192.0.2.66");
    back(right);
    back(answerTo(bytes, [7, 7, 7, 7]));
  };
  sim.onUdp = (_, __, port, data) => got.push(`${port} ${hex(data.subarray(0, 2))} ${data[3]! & 15} ${hex(data.subarray(-4))}`);
  sim.udp(nat.gateway, 53, 3000, query(0xabcd, "example.org"));
  await clock.run(2000);
  sim.udp(nat.gateway, 53, 3000, query(0xabcd, "example.org"));
  await clock.run(3000);
  assert.deepEqual([got, asked], [["3000 abcd 0 09090909"], ["192.0.2.1:53", "192.0.2.2:5353"]]);
  outside.onDatagram = () => {};
  for (let i = 0; i < 200; i++) sim.udp(nat.gateway, 53, 3001, query(i, "example.org"));
  await clock.run(10);
  assert.equal(nat.stats.now.nrDnsQueries, 64);
  got.length = 0;
  await clock.run(11_000);
  assert.deepEqual([got.length, got[0], nat.stats.now.nrDnsQueries, outside.nrUdpOpen], [64, "3001 0000 2 00010001", 0, 0], "after four tries SERVFAIL");
  let upstream: FakeStream | undefined;
  outside.onConnect = (s) => {
    upstream = s;
    s.events!.connected();
    s.onData = (b) => s.say(Uint8Array.from([0, answerTo(b.subarray(2), [8, 8, 8, 8]).length, ...answerTo(b.subarray(2), [8, 8, 8, 8])]));
    s.onEnd = () => s.finish();
  };
  const tcp = sim.connectTcp(nat.gateway, 53), q = query(5, "example.org");
  tcp.write(Uint8Array.from([0, q.length, ...q]));
  await clock.run(100);
  assert.deepEqual([upstream!.address, hex(concat(tcp.received).subarray(-4))], ["192.0.2.1", "08080808"]);
  tcp.close();
  await clock.run(30_000);
  assert.deepEqual([tcp.end, nat.stats.now.nrTcp], ["closed", 0]);
});

// ---- the whole

/** classic pcap, nanosecond-less, Ethernet */
function pcap(frames: readonly Frame[]): Uint8Array {
  const words = new DataView(new ArrayBuffer(24)), parts: Uint8Array[] = [new Uint8Array(words.buffer)];
  [0xa1b2c3d4, 0x0004_0002, 0, 0, 262144, 1].forEach((word, i) => { words.setUint32(i * 4, word, true); });
  frames.forEach(({ bytes }, i) => {
    const head = new DataView(new ArrayBuffer(16));
    head.setUint32(4, i * 10, true);
    head.setUint32(8, bytes.length, true);
    head.setUint32(12, bytes.length, true);
    parts.push(new Uint8Array(head.buffer), bytes);
  });
  return concat(parts);
}
/** A guest's life: DHCP, ARP, echoes, names, datagrams, connections. @returns all frames */
async function life(guest: GuestOptions = {}): Promise<Frame[]> {
  const { clock, outside, nat, sim } = network(guest, { mtu: 1500 });
  sim.capture = [];
  outside.onConnect = echo;
  outside.onDatagram = (bytes, _, __, back) => back(bytes);
  dhcp(sim, 1);
  dhcp(sim, 3, [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 1, 12, 3, 0x77, 0x65, 0x62]);
  sim.arp(1, 0, nat.gateway);
  sim.echo(nat.gateway, text("hello"));
  sim.echo(SERVER, text("hello"));
  sim.udp(nat.gateway, 53, 3000, query(1, "web.domus.internal"));
  sim.udp(nat.gateway, 53, 3000, query(2, "15.2.0.10.in-addr.arpa", 12));
  sim.udp(SERVER, 4000, 3001, text("hello"));
  sim.udp(nat.gateway, 4000, 3001, text("hello"));
  const tcp = sim.connectTcp(SERVER, 7777), closed = sim.connectTcp(nat.gateway, 7778);
  tcp.write(randomBytes(1, 30_000));
  tcp.close();
  await clock.run(5000);
  assert.deepEqual([tcp.end, closed.end], ["closed", "reset"]);
  return sim.capture;
}
test("tshark finds nothing malformed, no wrong checksum and no lost segment in what the router sends", async () => {
  const frames = (await life({ gso: true })).flatMap((f) => (f.gso ? segment(f) : f.checksum === "blank" ? segment({ ...f, gso: { type: "tcpv4", mss: 1460 } }) : [f]));
  const folder = mkdtempSync(join(tmpdir(), "nat-"));
  try {
    writeFileSync(join(folder, "life.pcap"), pcap(frames));
    const out = execFileSync("tshark", ["-r", join(folder, "life.pcap"), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields",
      ...["eth.src", "_ws.col.Protocol", "_ws.malformed", "ip.checksum.status", "tcp.checksum.status", "udp.checksum.status", "icmp.checksum.status", "tcp.analysis.flags", "dhcp.option.dhcp", "dns.a"].flatMap((f) => ["-e", f])],
      { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trimEnd().split("\n").map((row) => row.split("\t")).filter((r) => r[0] === "02:d0:0a:00:02:01");
    assert.ok(out.length > 30);
    for (const row of out) {
      assert.ok(row[2] === "" && row.slice(3, 7).every((s) => s === "" || s === "1" || s === "1,1" || s === "1,2") && (row[7] === "" || row[1] === "ICMP"), row.join(" | "));
    }
    assert.deepEqual(out.map((r) => r[8]).filter(Boolean), ["2", "5"]);
    assert.deepEqual(out.map((r) => r[9]).filter(Boolean), ["10.0.2.15"]);
    assert.deepEqual(new Set(out.map((r) => r[1])), new Set(["DHCP", "ARP", "ICMP", "DNS", "UDP", "TCP"]));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
test("100,000 broken and wild frames throw nothing and leave nothing without bounds", async () => {
  const seeds = await life(), { clock, outside, nat, sim } = network({}, { limits: { nrConnections: 200, nrConnecting: 50 } }), next = seeded(77), n = (max: number) => Math.floor(next() * max);
  outside.onConnect = (s) => (next() < 0.5 ? s.events!.connected() : s.fail("refused"));
  outside.onDatagram = (bytes, _, __, back) => back(bytes);
  const fromGuest = seeds.filter((f) => f.bytes[6] === 2 && f.bytes[7] === 0x16);
  for (let i = 0; i < 100_000; i++) {
    const bytes = next() < 0.95 ? fromGuest[n(fromGuest.length)]!.bytes.slice() : randomBytes(i, n(200));
    for (let k = n(6); k > 0; k--) bytes[next() < 0.8 ? Math.min(bytes.length - 1, n(80)) : n(bytes.length)] = n(256);
    const cut = next() < 0.1 ? bytes.subarray(0, n(bytes.length + 1)) : bytes;
    // Right IP header checksums let more of them in.
    if (cut.length >= 34 && next() < 0.8) {
      cut.set([0, 0], 24);
      let sum = 0;
      for (let at = 14; at < 34; at += 2) sum += cut[at]! * 256 + cut[at + 1]!;
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
      cut.set([~sum >>> 8, ~sum], 24);
    }
    const how = next();
    assert.equal(nat.port.receive({ bytes: cut, checksum: how < 0.2 ? "unknown" : how < 0.6 ? "good" : "blank", gso: how > 0.9 ? { type: "tcpv4", mss: n(3000) } : null }), true);
    if (i % 200 === 0) await clock.run(20);
  }
  const { now } = nat.stats;
  assert.ok(now.nrTcp <= 200 && now.nrTcpConnecting <= 50 && now.nrUdpFlows <= 1024 && now.nrDnsQueries <= 64 && now.nrReassembling <= 32 && now.nrNeighbours <= 254 && now.nrLeasesHeld <= 240,
    JSON.stringify(now));
  assert.ok(nat.stats.tcp.nrOpened > 50 && nat.stats.dhcp.nrRequests > 50, "the frames came far enough");
  sim.others.length = 0;
  sim.echo(nat.gateway, text("still there"));
  await clock.run(100);
  assert.ok(icmps(sim).some(([type]) => type === 0));
  nat.close();
  assert.deepEqual([nat.stats.now.nrTcp, nat.stats.now.nrUdpFlows, nat.stats.now.nrTimers, outside.nrUdpOpen], [0, 0, 0, 0]);
});
test("options are checked with sentences", () => {
  const outside = new FakeOutside(new VirtualClock());
  for (const [options, why] of [
    [{ subnet: "10.0.0.0/30" }, /8 to 29/], [{ gateway: "10.0.3.1" }, /Gateway "10.0.3.1" is not an address of a host in 10.0.2.0\/24/], [{ gateway: "10.0.2.9", hostAddress: "10.0.2.9" }, /both 10.0.2.9/],
    [{ mtu: 100 }, /MTU 100/], [{ mac: "ff:ff:ff:ff:ff:ff" }, /not a station's MAC/], [{ domain: "-x" }, /not a DNS name/], [{ pool: ["10.0.2.9", "10.0.2.8"] }, /lies behind its last/],
    [{ staticLeases: [{ mac: "x", address: "10.0.2.9" }] }, /"x" is not a station's MAC/], [{ staticLeases: [{ mac: "02:00:00:00:00:01", address: "10.0.2.1" }] }, /10.0.2.1 is taken already/],
    [{ policy: ["no"] }, /Policy rule "no"/],
  ] as [Partial<NatOptions>, RegExp][]) assert.throws(() => new NatNetwork({ outside, ...options }), why);
});
