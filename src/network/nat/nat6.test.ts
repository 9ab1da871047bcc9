import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { concat } from "../../base/bytes.ts";
import { macText } from "../address.ts";
import { Bridge } from "../bridge.ts";
import { be16, bytesOf } from "../fixture.ts";
import { segment } from "../offload.ts";
import { interfaceBlock, packetBlock, sectionBlock } from "../pcapng.ts";
import { connect, disconnect, type Frame } from "../port.ts";
import { type Address, ALL_NODES, formatAddress, formatIpv6, ipv6At, madeFrom, parseAddress, putMac, solicitedNode } from "./address.ts";
import { ALL_DHCP } from "./dhcpv6.ts";
import { type GuestOptions, leftOf, SimGuest } from "./fixture.ts";
import { randomBytes, seeded, VirtualClock } from "./fixture-clock.ts";
import { echo, FakeOutside, type FakeStream } from "./fixture-outside.ts";
import type { SimTcp } from "./fixture-tcp.ts";
import { NatNetwork, type NatOptions } from "./nat.ts";

const at = (text: string): Address => parseAddress(text)!, v6 = (text: string): bigint => at(text) as bigint, text = (s: string) => new TextEncoder().encode(s), hex = (b: Uint8Array): string => Buffer.from(b).toString("hex");
const SERVER = v6("2001:db8::7"), OTHER = v6("2001:db8::8"), HERE = v6("fd64:6f6d:7573:2::"), HOUR_MS = 3600_000;
function network(guest: GuestOptions = {}, options: Partial<NatOptions> = {}) {
  const clock = new VirtualClock(), outside = new FakeOutside(clock), next = seeded(42), logged: string[] = [];
  const nat = new NatNetwork({ outside, clock, random: () => Math.floor(next() * 2 ** 32), log: (s) => logged.push(s), ...options });
  return { clock, outside, nat, v6: nat.v6!, sim: new SimGuest(nat, clock, guest), logged };
}
const view = (b: Uint8Array): DataView => new DataView(b.buffer, b.byteOffset, b.byteLength);
/** ICMPv6 that came since the last look: type, code, whence; nothing of neighbours and routers. */
const icmps = (sim: SimGuest) => sim.others6.splice(0).filter((b) => b[20] === 58 && (b[54]! < 133 || b[54]! > 137)).map((b) => [b[54], b[55], formatIpv6(ipv6At(view(b), 22))]);
/** A router advertisement, option by option. */
function advertisements(sim: SimGuest) {
  return sim.others6.splice(0).filter((b) => b[54] === 134).map((b) => {
    const options: Record<number, string> = {};
    for (let o = 70; o < b.length; o += b[o + 1]! * 8) options[b[o]!] = hex(b.subarray(o + 2, o + b[o + 1]! * 8));
    return { station: hex(b.subarray(0, 6)), from: formatIpv6(ipv6At(view(b), 22)), to: formatIpv6(ipv6At(view(b), 38)), hopLimit: b[21], flags: b[59], routerSeconds: view(b).getUint16(60), options };
  });
}
const assertEmpty = (nat: NatNetwork): void => assert.deepEqual(leftOf(nat), [0, 0, 0, 0, 0, 0]);

// ---- routers and neighbours

test("a guest that asks for routers is told prefix, MTU, DNS, domain, and that this is the way out", async () => {
  const { clock, nat, sim } = network({}, { mtu: 1400 });
  const option = { 1: "02d00a000201", 5: "000000000578", 3: `40c0${"00015180"}${"00003840"}00000000${"fd64".concat("6f6d757300020000000000000000")}`, 25: `0000000007${"08"}fd646f6d757300020000000000000001`,
    31: `0000000007${"08"}${hex(Uint8Array.of(5, ...text("domus"), 8, ...text("internal"), 0))}` };
  sim.solicitRouter();
  sim.solicitRouter(0n);
  await clock.run(5);
  const [unicast, toAll, ...more] = advertisements(sim);
  assert.equal(more.length, 0);
  const { options, ...said } = unicast!;
  assert.deepEqual(said, { station: "02163e000001", from: "fe80::d0:aff:fe00:201", to: "fe80::16:3eff:fe00:1", hopLimit: 255, flags: 0x40, routerSeconds: 1800 });
  assert.deepEqual([toAll!.station, toAll!.to], ["02163e000001", "ff02::1"], "who has no address yet is told as all are, in a frame of its own");
  for (const [code, value] of Object.entries(option)) assert.ok(options[Number(code)]!.startsWith(value), `option ${code}: ${options[Number(code)]}`);
  assert.deepEqual(Object.keys(options), Object.keys(option));
  for (let i = 0; i < 200; i++) sim.solicitRouter();
  await clock.run(5);
  assert.ok(advertisements(sim).length <= 10, "a guest that asks without end is not answered without end");
  assert.deepEqual([nat.stats.ipv6?.network, nat.stats.ipv6?.gateway, nat.stats.ipv6?.isRouted], ["fd64:6f6d:7573:2::/64", "fd64:6f6d:7573:2::1", true]);
});
test("it says so by itself, soon at first and then every few minutes, and at once when the host's way out goes or comes", async () => {
  const { clock, outside, sim, nat } = network();
  await clock.run(60_000);
  assert.deepEqual(advertisements(sim).map((a) => [a.station, a.to, a.routerSeconds]), Array.from({ length: 3 }, () => ["333300000001", "ff02::1", 1800]));
  await clock.run(HOUR_MS);
  const nr = advertisements(sim).length;
  assert.ok(nr >= 5 && nr <= 18, `${nr} in an hour`);
  outside.isIpv6 = false;
  await clock.run(31_000);
  assert.deepEqual(advertisements(sim).map((a) => a.routerSeconds), [0]);
  outside.isIpv6 = true;
  sim.solicitRouter();
  await clock.run(5);
  assert.deepEqual(advertisements(sim).map((a) => [a.to, a.routerSeconds]), [["ff02::1", 1800], ["fe80::16:3eff:fe00:1", 1800]], "one asks, and all hear what has changed");
  nat.close();
  await clock.run(HOUR_MS);
  assert.deepEqual(advertisements(sim), []);
});
test("what the options and the policy leave of IPv6", async () => {
  const lifetime = async (options: Partial<NatOptions>, isIpv6: boolean) => {
    const { clock, outside, sim } = network({}, options);
    outside.isIpv6 = isIpv6;
    sim.solicitRouter();
    await clock.run(5);
    return advertisements(sim).at(-1)?.routerSeconds;
  };
  assert.deepEqual(await Promise.all([lifetime({}, false), lifetime({ ipv6: "always" }, false), lifetime({ ipv6: "local" }, true), lifetime({ ipv6: "none" }, true), lifetime({ policy: ["deny 10.0.0.0/8"] }, true),
    lifetime({ policy: ["deny any"] }, true), lifetime({ policy: ["deny fc00::/7"] }, true), lifetime({ mtu: 1000, ipv6: "auto" }, true)]), [0, 1800, 0, undefined, 0, 0, 1800, undefined]);
  const outside = new FakeOutside(new VirtualClock());
  for (const [options, why] of [[{ prefix: "fd00::/48" }, /"fd00::\/48": guests make their addresses in a \/64/], [{ prefix: "fe80::/64" }, /no network that guests may have/], [{ prefix: "::/64" }, /no network/],
    [{ prefix: "ff02::/64" }, /no network/], [{ prefix: "fd00::1/64" }, /bits are set/], [{ prefix: "fd00::/64", ipv6: "none" }, /without IPv6/], [{ mtu: 1000, ipv6: "always" }, /an MTU of 1280/],
    [{ forwards: ["tcp:1-[fd00::5]:22"] }, /guest "fd00::5" is not an address of a host in fd64:6f6d:7573:2::\/64/], [{ forwards: ["tcp:1-[fd64:6f6d:7573:2::1]:22"] }, /is the router's own address/],
    [{ forwards: ["tcp:1-[fd64:6f6d:7573:2::2]:22"] }, /is the router's own address/], [{ forwards: ["tcp:1-[fe80::5]:22"] }, /not an address of a host/], [{ ipv6: "none", forwards: ["tcp:1-[fd64:6f6d:7573:2::5]:22"] }, /does not have/],
  ] as [Partial<NatOptions>, RegExp][]) assert.throws(() => new NatNetwork({ outside, ...options }), why);
  const other = network({}, { subnet: "192.168.4.0/24", prefix: "fd01:2:3:4::/64" });
  assert.deepEqual([other.v6.gateway, other.v6.host].map(formatIpv6), ["fd01:2:3:4::1", "fd01:2:3:4::2"]);
  assert.equal(formatIpv6(network({}, { subnet: "192.168.4.0/24" }).v6.gateway), "fd64:6f6d:7573:a804::1");
});
test("solicitations are answered for the router's addresses, for absent ones only when that is wanted, and never while one looks whether an address is free", async () => {
  for (const answersForAbsent of [false, true]) {
    const { clock, sim, v6: own } = network({}, { answersForAbsent });
    const asks = async (...args: Parameters<SimGuest["solicit"]>): Promise<string> => {
      sim.solicit(...args);
      await clock.run(5);
      return sim.others6.splice(0).filter((b) => b[54] === 136).map((b) => `${formatIpv6(ipv6At(view(b), 38))} ${formatIpv6(ipv6At(view(b), 62))} ${hex(b.subarray(58, 59))} ${hex(b.subarray(80, 86))}`).join();
    };
    for (const target of [own.gateway, own.host, own.linkLocal]) {
      assert.equal(await asks(target), `fd64:6f6d:7573:2:16:3eff:fe00:1 ${formatIpv6(target)} e0 02d00a000201`);
      assert.equal(await asks(target, 0n), `ff02::1 ${formatIpv6(target)} a0 02d00a000201`, "a guest that wants to take it hears that it is taken");
    }
    assert.equal(await asks(own.gateway, sim.address6, own.gateway), `fd64:6f6d:7573:2:16:3eff:fe00:1 ${formatIpv6(own.gateway)} e0 02d00a000201`, "whether it is still there");
    assert.equal(await asks(HERE | 0x99n), answersForAbsent ? "fd64:6f6d:7573:2:16:3eff:fe00:1 fd64:6f6d:7573:2::99 c0 02d00a000201" : "", "a guest that has it counts for more");
    assert.equal(await asks(HERE | 0x99n, 0n), "", "an address that is free must be found free");
    for (const target of [sim.address6, SERVER, HERE, v6("fe80::99")]) assert.equal(await asks(target), "");
  }
});
test("messages that RFC 4861 has ignored are ignored: from afar, broken, fragmented, or of another station than they say", async () => {
  const { clock, sim, nat, v6: own } = network({}), bad = () => nat.stats.ipv6!.neighbours.nrBad, good = sim.icmp6(solicitedNode(own.gateway), bytesOf(135, 0, 0, 0, 0, 0, 0, 0, hexOf(own.gateway), 1, 1, "02163e000001"), { ttl: 255 });
  sim.send(good.slice());
  await clock.run(5);
  assert.equal(sim.others6.splice(0).length, 1);
  const changed = (change: (b: Uint8Array<ArrayBuffer>) => void, redo = true): void => {
    const bytes = good.slice();
    change(bytes);
    sim.send(redo ? sim.icmp6(ipv6At(view(bytes), 38), bytes.slice(54, 54 + view(bytes).getUint16(18)).fill(0, 2, 4), { ttl: bytes[21]!, source: ipv6At(view(bytes), 22) }) : bytes);
  };
  changed((b) => { b[21] = 254; });
  changed((b) => { b[57]! ^= 1; }, false);
  changed((b) => { b[55] = 1; });
  changed((b) => { b[85] = 2; });
  changed((b) => { b[79] = 0; });
  changed((b) => { b[79] = 2; });
  changed((b) => { b.fill(255, 62, 78); });
  changed((b) => { b.fill(0, 22, 38); });
  sim.solicit(own.gateway, 0n, own.gateway);
  sim.advertise(ALL_NODES, sim.address6, undefined, undefined, 0x60);
  await clock.run(5);
  assert.deepEqual([sim.others6.length, bad()], [0, 10]);
  sim.send(sim.ip6(44, solicitedNode(own.gateway), bytesOf(58, 0, 0, 1, 0, 0, 0, 1, good.subarray(54, 70)), { ttl: 255 }));
  sim.send(sim.icmp6(ALL_NODES, bytesOf(134, 0, 0, 0, 64, 0, be16(1800), new Uint8Array(8)), { ttl: 255, source: sim.linkLocal }));
  await clock.run(5);
  assert.deepEqual([sim.others6.length, bad(), nat.stats.ipv6!.neighbours.nrRogue], [0, 10, 1]);
});
const hexOf = (address: bigint): string => address.toString(16).padStart(32, "0");

/** A guest on a port of the bridge at whose other end the router is. */
function plugged(nat: NatNetwork, clock: VirtualClock, bridge: Bridge, options: GuestOptions & { readonly mac: number }, ips?: readonly string[]): SimGuest {
  const sim = new SimGuest(new NatNetwork({ outside: new FakeOutside(clock), clock, ipv6: "none" }), clock, { gso: true, ...options });
  sim.peer = null;
  connect(sim, bridge.attach({ name: `g${options.mac}`, ...(ips ? { ips, macs: [macText(options.mac)] } : {}) }));
  return Object.assign(sim, { routerMac: Number.parseInt(nat.mac.replaceAll(":", ""), 16) });
}
test("a guest whose port lists its addresses has them, asks for routers and pings, and neither is a router nor has others' addresses", async () => {
  const { clock, nat, v6: own } = network(), bridge = new Bridge({ name: "b", log: () => {} }), mac = 0x02163e000005, address6 = madeFrom(mac, HERE);
  disconnect(nat.port);
  connect(bridge.attach({ name: "nat" }), nat.port);
  const guest = plugged(nat, clock, bridge, { mac, address6 }, [formatIpv6(address6)]), other = plugged(nat, clock, bridge, { mac: 0x02163e000006, address6: HERE | 6n });
  const dropped = () => bridge.describe().ports.find((p) => p.name === `g${mac}`)!.counters.dropped.ip;
  guest.solicit(address6, 0n);
  guest.solicit(guest.linkLocal, 0n);
  guest.solicitRouter(0n);
  guest.solicitRouter();
  guest.echo(own.gateway, text("hello"));
  guest.echo(own.linkLocal, text("hello"));
  await clock.run(20);
  assert.deepEqual([icmps(guest).length, dropped()], [2, 0]);
  assert.equal(nat.stats.ipv6!.advertisements.nrAnswered, 2);
  const router = Uint8Array.from([134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
  guest.send(guest.icmp6(ALL_NODES, router, { ttl: 255, source: guest.linkLocal }));
  guest.send(guest.ip6(60, ALL_NODES, bytesOf(58, 0, "010400000000", guest.icmp6(ALL_NODES, router).subarray(54)), { ttl: 255, source: guest.linkLocal }));
  guest.advertise(ALL_NODES, own.gateway, 0x333300000001, guest.mac, 0x20);
  guest.advertise(ALL_NODES, HERE | 6n, 0x333300000001, guest.mac, 0x20);
  guest.solicit(own.gateway, HERE | 6n);
  guest.send(guest.icmp6(own.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source: HERE | 6n }));
  await clock.run(20);
  assert.deepEqual([dropped(), nat.stats.ipv6!.neighbours.nrRogue, nat.stats.frames.nrForged], [6, 0, 0]);
  assert.ok(!other.others6.some((b) => b[54] === 134 || b[54] === 136), "and nobody heard of it");
  other.send(other.icmp6(ALL_NODES, router, { ttl: 255, source: other.linkLocal }));
  await clock.run(20);
  assert.deepEqual([nat.stats.ipv6!.neighbours.nrRogue, guest.others6.filter((b) => b[54] === 134 && b[11] === 6).length], [1, 1], "one without a list can");
  nat.close();
});

test("an address belongs to the MAC it is made from, or to who had it first until that is silent; a flood of addresses is the flooder's own loss", async () => {
  const clock = new VirtualClock(), outside = new FakeOutside(clock), logged: string[] = [], nat = new NatNetwork({ outside, clock, log: (s) => logged.push(s), forwards: ["tcp:1-[fd64:6f6d:7573:2::5]:22"] }), bridge = new Bridge({ name: "b", log: () => {} });
  connect(bridge.attach({ name: "nat" }), nat.port);
  const owner = plugged(nat, clock, bridge, { mac: 0x02163e000005, address6: HERE | 5n }), thief = plugged(nat, clock, bridge, { mac: 0x02163e000006, address6: HERE | 5n }), forged = () => nat.stats.frames.nrForged;
  await nat.start();
  let nr = 0, nrStolen = 0;
  owner.listening.set(22, () => nr++);
  thief.listening.set(22, () => nrStolen++);
  thief.answersSolicitations = false;
  const come = async (): Promise<void> => { outside.come("127.0.0.1:1"); await clock.run(50); };
  owner.echo(nat.v6!.gateway, text("I am here"));
  await clock.run(5);
  thief.advertise(nat.v6!.linkLocal);
  thief.solicit(nat.v6!.gateway);
  thief.echo(nat.v6!.gateway, text("no, I"));
  await clock.run(5);
  assert.equal(forged(), 3);
  assert.match(logged[0]!, /02:16:3e:00:00:06 speaks with fd64:6f6d:7573:2::5, which belongs to 02:16:3e:00:00:05; it is not heard/);
  await come();
  owner.others6.length = 0;
  for (let i = 0; i < 500; i++) {
    thief.echo(nat.v6!.gateway, text("I!"));
    await clock.run(10);
  }
  assert.ok(owner.others6.filter((b) => b[54] === 135).length <= 2, "the thief cannot have its victim asked all the time");
  await come();
  await clock.run(5000);
  assert.deepEqual([nr, nrStolen], [2, 0], "the owner answered when it was asked");
  owner.answersSolicitations = false;
  thief.echo(nat.v6!.gateway, text("now?"));
  await clock.run(3500);
  thief.answersSolicitations = true;
  thief.echo(nat.v6!.gateway, text("now!"));
  await clock.run(5);
  await come();
  assert.deepEqual([nr, nrStolen], [2, 1], "who does not answer has it no more");
  owner.answersSolicitations = true;
  const made = madeFrom(owner.mac, HERE);
  thief.send(thief.icmp6(nat.v6!.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source: made }));
  await clock.run(5);
  owner.send(owner.icmp6(nat.v6!.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source: made }));
  await clock.run(5);
  const before = forged();
  thief.send(thief.icmp6(nat.v6!.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source: made }));
  await clock.run(5);
  assert.equal(forged(), before + 1);
  for (let i = 0; i < 10_000; i++) thief.send(thief.icmp6(nat.v6!.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source: HERE | BigInt(0x10000 + i) }));
  await clock.run(50);
  assert.ok(nat.stats.now.nrNeighbours <= 260, `${nat.stats.now.nrNeighbours} neighbours`);
  for (let i = 0; i < 10_000; i++) thief.advertise(nat.v6!.linkLocal, HERE | BigInt(0x20000 + i));
  await clock.run(50);
  assert.ok(nat.stats.now.nrNeighbours <= 260, "advertisements that nobody asked for make no neighbours");
  nat.close();
});
test("an address made from the MAC of a station that is here is nobody else's, also before that has spoken with it", async () => {
  const clock = new VirtualClock(), outside = new FakeOutside(clock), made = madeFrom(0x02163e000005, HERE), nat = new NatNetwork({ outside, clock, forwards: [`tcp:1-[${formatIpv6(made)}]:22`] }), bridge = new Bridge({ name: "b", log: () => {} });
  connect(bridge.attach({ name: "nat" }), nat.port);
  const owner = plugged(nat, clock, bridge, { mac: 0x02163e000005, address6: made }), thief = plugged(nat, clock, bridge, { mac: 0x02163e000006, address6: made });
  await nat.start();
  const taken: string[] = [];
  owner.listening.set(22, () => taken.push("owner"));
  thief.listening.set(22, () => taken.push("thief"));
  owner.solicitRouter();
  await clock.run(5);
  thief.echo(nat.v6!.gateway, text("I am here"));
  await clock.run(5);
  outside.come("127.0.0.1:1");
  await clock.run(50);
  assert.deepEqual([taken, nat.stats.frames.nrForged], [["owner"], 2], "the thief answered the router's question, too");
  nat.close();
});
test("an address whose holder is gone while it is asked is asked for anew", async () => {
  const clock = new VirtualClock(), outside = new FakeOutside(clock), nat = new NatNetwork({ outside, clock, forwards: ["tcp:1-[fd64:6f6d:7573:2::5]:22"] }), bridge = new Bridge({ name: "b", log: () => {} });
  connect(bridge.attach({ name: "nat" }), nat.port);
  const old = plugged(nat, clock, bridge, { mac: 0x02163e000005, address6: HERE | 5n }), heir = plugged(nat, clock, bridge, { mac: 0x02163e000006, address6: HERE | 5n });
  await nat.start();
  let nr = 0;
  heir.listening.set(22, () => nr++);
  old.answersSolicitations = false;
  old.echo(nat.v6!.gateway, text("a"));
  await clock.run(5);
  heir.echo(nat.v6!.gateway, text("a"));
  await clock.run(5);
  nat.dropGuest("02:16:3e:00:00:05");
  outside.come("127.0.0.1:1");
  await clock.run(50);
  assert.equal(nr, 1);
  nat.close();
  assert.equal(nat.stats.now.nrTimers, 0);
});
test("who gets an address of a guest that is silent gets none of its connections and flows, and hears nothing of them", async () => {
  const clock = new VirtualClock(), outside = new FakeOutside(clock), nat = new NatNetwork({ outside, clock }), bridge = new Bridge({ name: "b", log: () => {} }), streams: FakeStream[] = [];
  connect(bridge.attach({ name: "nat" }), nat.port);
  const old = plugged(nat, clock, bridge, { mac: 0x02163e000005, address6: HERE | 5n }), heir = plugged(nat, clock, bridge, { mac: 0x02163e000006, address6: HERE | 5n });
  const backs: ((bytes: Uint8Array) => void)[] = [];
  outside.onConnect = (s) => { streams.push(s); s.events!.connected(); };
  outside.onDatagram = (_, __, ___, back) => backs.push(back);
  old.connectTcp(SERVER, 80, 2000);
  old.udp(SERVER, 5000, 3000, text("a"));
  await clock.run(50);
  old.answersSolicitations = false;
  heir.echo(nat.v6!.gateway, text("a"));
  await clock.run(3500);
  heir.answersSolicitations = true;
  heir.capture = [];
  heir.echo(nat.v6!.gateway, text("a"));
  await clock.run(5);
  streams[0]!.say(text("a secret"));
  backs[0]!(text("a secret"));
  await clock.run(50);
  assert.ok(!heir.capture.some((f) => Buffer.from(f.bytes).includes("a secret")));
  heir.udp(SERVER, 5001, 3000, text("b"));
  heir.sendTcp(2000, SERVER, 80, 0x10, 1, 1, 1000, [], text("forged"), 0);
  await clock.run(50);
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen, streams[0]!.isAborted, streams[0]!.receivedBytes, nat.stats.now.nrTcp], [1, 1, true, 0, 0]);
  backs[0]!(text("a secret"));
  await clock.run(50);
  assert.ok(!heir.capture.some((f) => Buffer.from(f.bytes).includes("a secret")));
  nat.close();
});
test("a flood from a hundred MACs takes from nobody the few addresses that it has", async () => {
  const { clock, nat, sim, v6: own } = network(), mine = HERE | 5n, say = (mac: number, source: bigint): void => {
    const bytes = sim.icmp6(own.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source });
    putMac(view(bytes), 6, mac);
    nat.port.receive({ bytes, checksum: "unknown", gso: null });
  };
  say(sim.mac, mine);
  for (let i = 0; i < 10_000; i++) say(0x02163e100000 + i % 100, HERE | BigInt(0x10000 + i));
  await clock.run(5);
  assert.deepEqual([nat.stats.now.nrNeighbours, nat.stats.frames.nrForged], [4096, 0]);
  say(0x02163e100000, mine);
  assert.equal(nat.stats.frames.nrForged, 1);
  nat.close();
});

// ---- packets

test("echoes are answered for the router's addresses; farther ones are unreachable, dead ones time out, and what is not understood is said so", async () => {
  const { clock, sim, v6: own } = network();
  for (const to of [own.gateway, own.host, own.linkLocal, SERVER, HERE | 0x77n]) sim.echo(to, text("hello"));
  sim.echo(SERVER, text("near"), 1);
  sim.send(sim.ip6(47, SERVER, new Uint8Array(8)));
  sim.send(sim.ip6(59, SERVER, new Uint8Array(8)));
  sim.send(sim.ip6(1, SERVER, new Uint8Array(8)));
  sim.send(sim.ip6(60, own.gateway, bytesOf(17, 0, "9e0400000000", new Uint8Array(8))));
  sim.send(sim.icmp6(SERVER, bytesOf(1, 0, 0, 0, 0, 0, 0, 0, new Uint8Array(48))));
  sim.send(sim.icmp6(SERVER, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source: sim.linkLocal }));
  sim.send(sim.ip6(6, v6("ff0e::1"), new Uint8Array(20)));
  await clock.run(10);
  const last = sim.others6.find((b) => b[54] === 4)!;
  assert.equal(hex(last.subarray(62, 102)), hex(sim.ip6(47, SERVER, new Uint8Array(8)).subarray(14, 54)), "the error quotes the packet");
  assert.equal(view(last).getUint32(58), 6, "and points to the number that is not known");
  const gateway = "fd64:6f6d:7573:2::1", linkLocal = "fe80::d0:aff:fe00:201";
  assert.deepEqual(icmps(sim), [[129, 0, gateway], [129, 0, "fd64:6f6d:7573:2::2"], [129, 0, linkLocal], [1, 3, gateway], [1, 3, gateway], [3, 0, gateway], [4, 1, gateway], [4, 1, gateway], [4, 2, gateway], [1, 2, linkLocal]]);
  for (let i = 0; i < 1000; i++) sim.send(sim.ip6(47, SERVER, new Uint8Array(8)));
  await clock.run(1);
  assert.ok(icmps(sim).length <= 101, "errors are rationed");
});
test("large echoes come in fragments and go in fragments", async () => {
  const { clock, nat, sim, v6: own } = network(), data = randomBytes(1, 4000), whole = sim.icmp6(own.gateway, concat([Uint8Array.of(128, 0, 0, 0, 1, 2, 3, 4), data])).slice(54);
  const piece = (from: number, to: number, id: number) => sim.ip6(44, own.gateway, bytesOf(58, 0, be16(from | (to < whole.length ? 1 : 0)), 0, 0, be16(id), whole.subarray(from, to)));
  for (const [from, to] of [[2896, 4008], [0, 1448], [0, 1448], [1448, 2896]] as const) sim.send(piece(from, to, 7));
  await clock.run(10);
  const parts = sim.others6.splice(0).map((b) => [view(b).getUint16(56) & 0xfff8, b[57]! & 1, b.subarray(62)] as const);
  assert.deepEqual(parts.map((p) => [p[0], p[1]]), [[0, 1], [1448, 1], [2896, 0]]);
  assert.equal(hex(concat(parts.map((p) => p[2])).subarray(8)), hex(data));
  for (const [from, to] of [[0, 1448], [1440, 2896], [1448, 2896], [2896, 4008]] as const) sim.send(piece(from, to, 8));
  for (let id = 100; id < 400; id++) sim.send(piece(0, 1448, id));
  await clock.run(10);
  assert.equal(sim.others6.length, 0, "overlapping ones are dropped");
  assert.ok(nat.stats.now.nrReassembling <= 32);
});
test("DHCPv6 tells DNS server and domain, and gives no addresses", async () => {
  const { clock, sim } = network(), got: string[] = [];
  sim.onUdp = (source, sourcePort, port, data) => got.push(`${formatAddress(source)} ${sourcePort} ${port} ${hex(data)}`);
  const ask = (bytes: Uint8Array, source = sim.linkLocal): void => sim.send(sim.udpFrame(ALL_DHCP, 547, 546, bytes, { source, mac: 0x333300010002, ttl: 1 }));
  ask(bytesOf(11, "abcdef", "0001000a00030001", "02163e000001", "0006000400170018"));
  ask(bytesOf(1, "abcdef", "0001000a00030001", "02163e000001"));
  ask(bytesOf(11, "abcdef", "000300040001"));
  ask(bytesOf(11, "abcdef", "0002000a00030001", "020000000001"));
  ask(bytesOf(11, "abcdef", "0003000c", new Uint8Array(12)));
  ask(bytesOf(11, "abcdef"), sim.address6);
  await clock.run(10);
  assert.deepEqual(got, [`fe80::d0:aff:fe00:201 547 546 07abcdef0001000a0003000102163e0000010002000a0003000102d00a00020100170010fd646f6d75730002000000000000000100180010${hex(Uint8Array.of(5, ...text("domus"), 8, ...text("internal"), 0))}`]);
  for (let i = 0; i < 200; i++) ask(bytesOf(11, "abcdef"));
  await clock.run(10);
  assert.ok(got.length <= 21);
});

// ---- DNS

const query = (id: number, name: string, type = 28): Uint8Array =>
  Uint8Array.from([id >>> 8, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...name.split(".").flatMap((l) => [l.length, ...text(l)]), 0, 0, type, 0, 1]);
const reverseOf = (address: bigint): string => `${[...hexOf(address)].reverse().join(".")}.ip6.arpa`;
/** A DHCP request for 10.0.2.15 with a host name. */
function lease(sim: SimGuest, name: string): void {
  const bytes = bytesOf(1, 1, 6, 0, new Uint8Array(24), hexOf(BigInt(sim.mac)).slice(-12), new Uint8Array(202), "63825363", "350103", "32040a00020f", 12, name.length, text(name), 255);
  sim.send(sim.udpFrame(0xffffffff, 67, 68, bytes, { source: 0, mac: 0xffffffffffff }));
}
test("names have IPv6 addresses, the router's, one for the host's ::1 and those that a guest with a name was seen with; and back", async () => {
  const { clock, nat, sim, v6: own } = network(), got = new Map<number, string>(), privately = HERE | 0xabcd_0000_1111n;
  lease(sim, "web");
  sim.onUdp = (_, port, __, data) => { if (port === 53) got.set((data[0]! << 8) | data[1]!, `${data[3]! & 15} ${hex(data.subarray(6, 8))} ${hex(data.subarray(-16))}`); };
  sim.echo(own.linkLocal, text("a"));
  sim.echo(own.gateway, text("a"));
  await clock.run(10);
  sim.send(sim.icmp6(own.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source: privately }));
  sim.send(sim.icmp6(own.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source: sim.linkLocal }));
  await clock.run(10);
  ["host6.domus.internal", "gateway.domus.internal", "web.domus.internal", "web", "nobody.domus.internal"].forEach((name, i) => { sim.udp(own.gateway, 53, 3000, query(i, name)); });
  sim.udp(own.linkLocal, 53, 3000, query(5, "web", 1));
  sim.udp(own.gateway, 53, 3000, query(7, "host.domus.internal"));
  sim.udp(nat.gateway, 53, 3000, query(6, "web", 255));
  [own.gateway, own.host, sim.address6, HERE | 0x99n].forEach((address, i) => { sim.udp(own.gateway, 53, 3000, query(10 + i, reverseOf(address), 12)); });
  await clock.run(10);
  const name = (label: string) => hex(Uint8Array.from([label.length, ...text(label), 5, ...text("domus"), 8, ...text("internal"), 0])).slice(-32);
  assert.deepEqual(Object.fromEntries(got), {
    0: `0 0001 ${hexOf(own.host)}`, 1: `0 0001 ${hexOf(own.gateway)}`, 2: `0 0002 ${hexOf(privately)}`, 3: `0 0002 ${hexOf(privately)}`, 4: `3 0000 ${hex(query(0, "nobody.domus.internal").subarray(-16))}`,
    5: `0 0001 ${hex(bytesOf("c00c00010001", "0000000a", "0004", "0a00020f"))}`, 6: `0 0003 ${hexOf(privately)}`,
    7: `0 0000 ${hex(query(0, "host.domus.internal").subarray(-16))}`,
    10: `0 0001 ${name("gateway")}`, 11: `0 0001 ${name("host6")}`, 12: `0 0001 ${name("web")}`, 13: `3 0000 ${hex(query(0, reverseOf(HERE), 12).subarray(-16))}`,
  });
});
test("of a guest's addresses those are told that it spoke with in the last day", async () => {
  const { clock, nat, sim, v6: own } = network({}, { leaseMs: 10 * 24 * HOUR_MS }), got: string[] = [], say = (source: bigint): void => sim.send(sim.icmp6(own.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0), { source }));
  lease(sim, "web");
  sim.onUdp = (_, port, __, data) => { if (port === 53) got.push(`${data[7]} ${hex(data.subarray(-16))}`); };
  say(HERE | 0x1111n);
  await clock.run(20 * HOUR_MS);
  say(HERE | 0x2222n);
  await clock.run(5);
  sim.udp(nat.gateway, 53, 3000, query(1, "web"));
  await clock.run(5 * HOUR_MS);
  sim.udp(nat.gateway, 53, 3000, query(2, "web"));
  await clock.run(5);
  assert.deepEqual(got, [`2 ${hexOf(HERE | 0x1111n)}`, `1 ${hexOf(HERE | 0x2222n)}`]);
  nat.close();
});
test("other names' addresses pass as the host's resolvers give them, also resolvers with an IPv6 address, over UDP and TCP", async () => {
  const { clock, outside, nat, sim, v6: own } = network(), got: string[] = [];
  outside.resolverList = [{ address: "2001:db8::bad", port: 53 }, { address: "2001:db8::53", port: 53 }];
  outside.noRoute.add("2001:db8::bad");
  const answerTo = (q: Uint8Array) => concat([q.subarray(0, 2), bytesOf("81800001000100000000"), q.subarray(12), bytesOf("c00c001c0001", "0000003c", "0010", hexOf(SERVER))]);
  outside.onDatagram = (bytes, address, _, back) => { if (address === "2001:db8::53") back(answerTo(bytes)); };
  sim.onUdp = (_, __, ___, data) => got.push(`${hex(data.subarray(0, 2))} ${hex(data.subarray(-16))}`);
  sim.udp(own.gateway, 53, 3000, query(0xabcd, "example.org"));
  await clock.run(10);
  assert.deepEqual(got, [`abcd ${hexOf(SERVER)}`], "one that cannot be reached is passed over");
  outside.onConnect = (s) => {
    s.events!.connected();
    s.onData = (b) => { const a = answerTo(b.subarray(2)); s.say(bytesOf(be16(a.length), a)); };
    s.onEnd = () => s.finish();
  };
  const tcp = sim.connectTcp(own.gateway, 53), q = query(5, "example.org");
  tcp.write(bytesOf(be16(q.length), q));
  await clock.run(100);
  assert.equal(hex(concat(tcp.received).subarray(-16)), hexOf(SERVER));
  tcp.close();
  await clock.run(30_000);
  assertEmpty(nat);
});
test("resolvers that cannot be reached take no tries from the one that can; when none can be they are asked for ten seconds as silent ones are", async () => {
  const { clock, outside, nat, sim } = network(), far = ["a", "b", "c"].map((end) => `2001:db8::${end}`), asked: number[] = [], rcodes: number[] = [];
  outside.resolverList = ["192.0.2.53", ...far].map((address) => ({ address, port: 53 }));
  for (const address of far) outside.noRoute.add(address);
  outside.onDatagram = () => asked.push(Math.round(clock.nowMs() / 100));
  sim.onUdp = (_, __, ___, data) => rcodes.push(data[3]! & 15);
  sim.udp(nat.gateway, 53, 3000, query(1, "example.org"));
  await clock.run(9900);
  assert.deepEqual([asked, rcodes], [[0, 25, 50, 75], []]);
  await clock.run(200);
  assert.deepEqual(rcodes, [2]);
  outside.noRoute.add("192.0.2.53");
  sim.udp(nat.gateway, 53, 3000, query(2, "example.org"));
  await clock.run(7000);
  outside.noRoute.clear();
  await clock.run(2900);
  assert.deepEqual([asked.length, rcodes.length, nat.stats.now.nrDnsQueries], [5, 1, 1], "the host came back");
  await clock.run(200);
  assert.deepEqual([rcodes, outside.nrUdpOpen, nat.stats.now.nrTimers], [[2, 2], 0, 0]);
});

// ---- UDP

test("a guest's port has one socket outside, hears only whom it wrote to, and is told of what cannot be reached", async () => {
  const { clock, outside, nat, sim, v6: own } = network({}, { hostAccess: true, policy: ["deny udp [::/0]:666"] }), heard: unknown[] = [], sent: string[] = [];
  sim.onUdp = (source, sourcePort, port, data) => heard.push([formatAddress(source), sourcePort, port, data.length]);
  outside.noRoute.add("2001:db8::bad");
  outside.onDatagram = (bytes, address, port, back) => {
    sent.push(`[${address}]:${port}`);
    back(text("forged"), "2001:db8::66", port);
    back(text("forged"), "fe80::1%eth0", port);
    back(text("forged"), "198.51.100.7", port);
    back(bytes.length < 100 ? text("short") : randomBytes(1, 3000));
  };
  for (const [to, port, from, data] of [[SERVER, 5000, 1000, text("a")], [OTHER, 5001, 1000, text("b")], [own.host, 5002, 1000, text("c")], [SERVER, 5000, 1001, randomBytes(1, 200)]] as const) sim.udp(to, port, from, data);
  for (const [to, port] of [[OTHER, 666], [v6("::1"), 5], [v6("::ffff:127.0.0.1"), 5], [v6("2002:7f00:1::1"), 5], [own.gateway, 5], [v6("2001:db8::bad"), 5]] as const) sim.udp(to, port, 1002, text("x"));
  sim.udp(v6("ff02::fb"), 5353, 1002, text("x"));
  const unsummed = sim.udpFrame(SERVER, 5000, 1003, text("x"));
  unsummed.fill(0, 60, 62);
  sim.send(unsummed);
  await clock.run(10);
  assert.deepEqual(heard, [["2001:db8::7", 5000, 1000, 5], ["2001:db8::8", 5001, 1000, 5], ["fd64:6f6d:7573:2::2", 5002, 1000, 5]]);
  assert.deepEqual(sent, ["[2001:db8::7]:5000", "[2001:db8::8]:5001", "[::1]:5002", "[2001:db8::7]:5000"]);
  assert.equal(sim.others6.filter((b) => b[20] === 44).length, 3, "3000 bytes come in three fragments");
  assert.deepEqual(icmps(sim).map(([type, code]) => [type, code]), [[1, 1], [1, 0], [1, 0], [1, 0], [1, 4], [1, 0]]);
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen, nat.stats.udp.nrUnasked], [3, 3, 12]);
  await clock.run(130_000);
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen, nat.stats.now.nrTimers], [0, 0, 0]);
});
test("a guest with thousands of addresses has no more flows and connections than one with a single one", async () => {
  const { clock, outside, nat, sim } = network({}, { limits: { nrFlows: 50, nrFlowsPerGuest: 30, nrConnecting: 40 } });
  outside.onConnect = () => {};
  for (let i = 0; i < 300; i++) {
    const source = HERE | BigInt(0x1000 + i);
    sim.send(sim.udpFrame(SERVER, 5000, 1000, text("x"), { source }));
    const syn = sim.ip6(6, SERVER, bytesOf(be16(2000), be16(80), new Uint8Array(8), 0x50, 2, be16(1000), 0, 0, 0, 0), { source });
    sim.send(syn, "good");
  }
  await clock.run(10);
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen, nat.stats.now.nrTcpConnecting], [30, 30, 20]);
  nat.dropGuest("02:16:3e:00:00:01");
  assert.deepEqual([nat.stats.now.nrUdpFlows, nat.stats.now.nrTcp, nat.stats.now.nrNeighbours], [0, 0, 0], "and when it is gone all its addresses are, also those that were forgotten");
  nat.close();
  assert.deepEqual([nat.stats.now.nrUdpFlows, outside.nrUdpOpen, nat.stats.now.nrTcp, nat.stats.now.nrTimers], [0, 0, 0, 0]);
});

// ---- TCP

for (const [name, guest] of [
  ["a clean cable", {}], ["a clean cable with large frames", { gso: true, shift: 7, windowBytes: 1 << 20 }], ["a cable that loses, doubles, delays and breaks", { faults: { loss: 0.01, twice: 0.02, late: 0.05, broken: 0.02 }, seed: 5 }],
  ["large frames, faults, and an end that is often full", { gso: true, faults: { loss: 0.01, twice: 0.01, late: 0.02, broken: 0.01 }, full: 0.2, seed: 6 }],
] as [string, GuestOptions][]) {
  test(`400 kB echoed come back as they were, over ${name}`, async () => {
    const { clock, outside, nat, sim } = network(guest), payload = randomBytes(3, 400_000);
    let address = "";
    outside.onConnect = (s) => {
      address = s.address;
      echo(s);
    };
    const tcp = sim.connectTcp(SERVER, 7);
    for (let from = 0; from < payload.length; from += 50_000) tcp.write(payload.subarray(from, from + 50_000));
    tcp.close();
    await clock.run(600_000, () => tcp.end !== null);
    assert.deepEqual([tcp.receivedBytes, tcp.end, address], [payload.length, "closed", "2001:db8::7"]);
    assert.ok(concat(tcp.received).every((b, i) => b === payload[i]));
    assert.deepEqual(sim.broken, []);
    if (guest.gso) assert.ok(sim.nrBigFrames > 5);
    await clock.run(30_000);
    assertEmpty(nat);
  });
}
test("refused is a reset, no way there and no leave to go there are ICMPv6's errors, at once", async () => {
  const { clock, outside, nat, sim, v6: own } = network({}, { policy: ["deny tcp [::/0]:25"] }), fault = { 81: "refused", 82: "unreachable", 83: "timeout" } as const;
  outside.onConnect = (s) => s.fail(fault[s.port as 81]);
  const to = [[SERVER, 81], [SERVER, 82], [SERVER, 83], [SERVER, 25], [own.gateway, 99], [own.host, 22], [v6("::1"), 22], [v6("::ffff:127.0.0.1"), 22], [v6("64:ff9b::127.0.0.1"), 22], [HERE | 0x99n, 22]] as const;
  const tcps = to.map(([address, port]) => sim.connectTcp(address, port));
  await clock.run(250);
  assert.deepEqual(tcps.map((t) => t.end), ["reset", "icmp", "icmp", "icmp", "reset", "reset", "icmp", "icmp", "icmp", "icmp"]);
  assert.deepEqual(icmps(sim).map(([type, code]) => `${type}.${code}`).sort(), ["1.0", "1.0", "1.0", "1.0", "1.0", "1.1", "1.3"]);
  assertEmpty(nat);
});
test("forwards lead to a guest's address of either family, from a port of either, TCP and UDP", async () => {
  const guest = formatIpv6(madeFrom(0x02163e000001, HERE)), { clock, outside, nat, sim, v6: own } = network({ gso: true }, { forwards: [`tcp:[::1]:8080-[${guest}]:80`, `tcp:8080-[${guest}]:80`, "tcp:[::1]:8081-10.0.2.15:80", `udp:[::1]:53-[${guest}]:53`] });
  await nat.start();
  assert.deepEqual(nat.forwards.map((f) => [f.address, f.port]), [["::1", 8080], ["127.0.0.1", 8080], ["::1", 8081], ["::1", 53]]);
  const taken: SimTcp[] = [], payload = randomBytes(2, 100_000);
  sim.listening.set(80, (tcp) => {
    taken.push(tcp);
    tcp.onData = (b) => tcp.write(b);
  });
  for (const where of ["::1:8080", "127.0.0.1:8080", "::1:8081"]) {
    const client = outside.come(where);
    client.say(payload);
    await clock.run(5000, () => client.receivedBytes >= payload.length);
    assert.deepEqual(concat(client.received), payload);
    client.finish();
    await clock.run(100);
    taken.at(-1)!.close();
  }
  assert.deepEqual(taken.map((t) => t.remote), [own.gateway, own.gateway, nat.gateway]);
  sim.onUdp = (source, sourcePort, port, data) => sim.udp(source, sourcePort, port, concat([text("re: "), data]));
  outside.boundUdp.get("::1:53")!.datagram(text("q"), "::1", 40000);
  await clock.run(30_000);
  assert.deepEqual(outside.sentByBound.map((s) => [new TextDecoder().decode(s.bytes), s.address, s.port]), [["re: q", "::1", 40000]]);
  await clock.run(130_000);
  assertEmpty(nat);
  nat.dropGuest(`02:16:3e:00:00:01`);
  assert.equal(nat.stats.now.nrNeighbours, 0, "of a guest that is gone no address is left");
});
test("a forward to an address where nobody answers ends in seconds; one by MAC finds a guest that has IPv6 only", async () => {
  const { clock, outside, nat, sim } = network({}, { forwards: ["tcp:1-[fd64:6f6d:7573:2::99]:22", "tcp:2-02:16:3e:00:00:01:22"] });
  await nat.start();
  const client = outside.come("127.0.0.1:1");
  await clock.run(2000);
  assert.ok(!client.isAborted);
  await clock.run(2000);
  assert.ok(client.isAborted);
  assertEmpty(nat);
  let nr = 0;
  sim.listening.set(22, () => nr++);
  sim.solicitRouter();
  await clock.run(10);
  assert.ok(outside.come("127.0.0.1:2").isAborted, "a link-local address is not one to be forwarded to");
  sim.echo(nat.v6!.gateway, text("a"));
  await clock.run(10);
  outside.come("127.0.0.1:2");
  await clock.run(50);
  assert.equal(nr, 1);
});
test("ten thousand connections open, carry bytes and close, and not one object is left", async () => {
  const { clock, outside, nat, sim } = network();
  outside.onConnect = (s) => {
    echo(s);
    outside.streams.delete(s);
  };
  const tcps: SimTcp[] = [];
  for (let i = 0; i < 10_000; i++) {
    const tcp = sim.connectTcp(SERVER | BigInt(i & 3) << 90n, 7, 1024 + i);
    tcp.write(Uint8Array.of(i, i >> 8));
    tcps.push(tcp);
    if (i % 500 === 499) await clock.run(20);
  }
  await clock.run(2000);
  assert.equal(nat.stats.now.nrTcp, 10_000);
  assert.ok(tcps.every((t, i) => t.receivedBytes === 2 && concat(t.received)[0] === (i & 255)));
  tcps.forEach((t, i) => {
    if (i % 3 === 0) t.abort();
    else t.close();
  });
  await clock.run(60_000);
  assert.ok(tcps.every((t) => t.state === "closed"));
  assertEmpty(nat);
  assert.equal(outside.streams.size, 0);
  nat.close();
});

// ---- the whole

/** A guest's life: it looks for routers and neighbours, pings, asks names, sends datagrams, opens connections. @returns all frames */
async function life(guest: GuestOptions = {}): Promise<Frame[]> {
  const { clock, outside, sim, v6: own } = network(guest);
  sim.capture = [];
  outside.onConnect = echo;
  outside.onDatagram = (bytes, _, __, back) => back(bytes);
  lease(sim, "web");
  sim.solicit(sim.linkLocal, 0n);
  sim.solicitRouter(0n);
  sim.solicitRouter();
  sim.solicit(sim.address6, 0n);
  for (const target of [own.gateway, own.linkLocal]) sim.solicit(target);
  sim.echo(own.gateway, randomBytes(1, 1400));
  sim.echo(own.linkLocal, text("hello"));
  sim.echo(SERVER, text("hello"));
  sim.echo(SERVER, text("hello"), 1);
  sim.send(sim.ip6(47, SERVER, new Uint8Array(8)));
  sim.send(sim.udpFrame(ALL_DHCP, 547, 546, bytesOf(11, "abcdef", "0001000a00030001", "02163e000001"), { source: sim.linkLocal, mac: 0x333300010002, ttl: 1 }));
  await clock.run(10);
  sim.udp(own.gateway, 53, 3000, query(1, "web.domus.internal"));
  sim.udp(own.gateway, 53, 3000, query(2, reverseOf(sim.address6), 12));
  sim.udp(SERVER, 4000, 3001, randomBytes(2, 1300));
  sim.send(sim.ip6(44, own.gateway, bytesOf(58, 0, 0, 1, 0, 0, 0, 9, 128, 0, 0, 0, new Uint8Array(12))));
  sim.send(sim.ip6(0, own.gateway, bytesOf(60, 0, "010400000000", 58, 0, "010400000000", sim.icmp6(own.gateway, bytesOf(128, 0, 0, 0, 0, 0, 0, 0)).subarray(54))));
  sim.udp(own.gateway, 4000, 3001, text("hello"));
  const tcp = sim.connectTcp(SERVER, 7777), closed = sim.connectTcp(own.gateway, 7778);
  tcp.write(randomBytes(1, 30_000));
  tcp.close();
  await clock.run(20_000);
  assert.deepEqual([tcp.end, closed.end], ["closed", "reset"]);
  return sim.capture;
}
test("tshark finds nothing malformed, no wrong checksum and no lost segment in what the router sends", async () => {
  const frames = (await life({ gso: true })).flatMap((f) => (f.gso ? segment(f) : f.checksum === "blank" ? segment({ ...f, gso: { type: "tcpv6", mss: 1440 } }) : [f]));
  const folder = mkdtempSync(join(tmpdir(), "nat6-")), file = join(folder, "life.pcapng");
  try {
    writeFileSync(file, concat([sectionBlock("test"), interfaceBlock("nat", 0), ...frames.map(({ bytes }, i) => packetBlock({ interfaceNr: 0, timeNs: BigInt(i * 10_000), bytes, lengthBytes: bytes.length }))]));
    const fields = ["eth.src", "_ws.col.Protocol", "_ws.malformed", "udp.checksum.status", "tcp.checksum.status", "icmpv6.checksum.status", "tcp.analysis.flags", "icmpv6.type", "dns.aaaa", "icmpv6.opt.prefix", "icmpv6.opt.rdnss", "icmpv6.opt.dnssl", "icmpv6.opt.mtu", "dhcpv6.msgtype", "_ws.expert.message"];
    const out = execFileSync("tshark", ["-r", file, "-Y", "ipv6", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields", ...fields.flatMap((f) => ["-e", f])],
      { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trimEnd().split("\n").map((row) => row.split("\t")).filter((r) => r[0] === "02:d0:0a:00:02:01");
    assert.ok(out.length > 30);
    for (const row of out) assert.ok(row[2] === "" && row.slice(3, 6).every((s) => ["", "1", "1,1", "1,2"].includes(s!)) && (row[6] === "" || row[1] === "ICMPv6"), row.join(" | "));
    assert.deepEqual(new Set(out.map((r) => r[1])), new Set(["ICMPv6", "DHCPv6", "DNS", "UDP", "TCP"]));
    assert.deepEqual(out.map((r) => r[7]).filter((type) => type !== ""), ["134", "134", "136", "136", "129", "129", "1,128", "3,128", "4", "129", "1", "134"]);
    assert.deepEqual(out.filter((r) => r[7] === "134").map((r) => r.slice(9, 13))[0], ["fd64:6f6d:7573:2::", "fd64:6f6d:7573:2::1", "domus.internal", "1500"]);
    assert.deepEqual([out.map((r) => r[8]).filter(Boolean), out.map((r) => r[13]).filter(Boolean)], [["fd64:6f6d:7573:2:16:3eff:fe00:1"], ["7"]]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
test("100,000 broken and wild frames throw nothing and leave nothing without bounds", async () => {
  const seeds = (await life()).filter((f) => f.bytes[6] === 2 && f.bytes[7] === 0x16 && f.bytes[12] === 0x86), { clock, outside, nat, sim, v6: own } = network({}, { limits: { nrConnections: 200, nrConnecting: 50 } });
  const next = seeded(78), n = (max: number) => Math.floor(next() * max);
  outside.onConnect = (s) => (next() < 0.5 ? s.events!.connected() : s.fail("refused"));
  outside.onDatagram = (bytes, _, __, back) => back(bytes);
  for (let i = 0; i < 100_000; i++) {
    const bytes = seeds[n(seeds.length)]!.bytes.slice();
    for (let k = n(5); k > 0; k--) bytes[next() < 0.8 ? Math.min(bytes.length - 1, 14 + n(90)) : n(bytes.length)] = next() < 0.3 ? [0, 43, 44, 58, 59, 60][n(6)]! : n(256);
    // Whole ICMPv6 checksums let more of neighbour discovery in, and new addresses more of the rest.
    if (next() < 0.3) bytes.set(randomBytes(i, 4), 34);
    if (bytes[20] === 58 && next() < 0.7) {
      bytes.fill(0, 56, 58);
      const length = Math.min(bytes.length - 54, view(bytes).getUint16(18)), redone = sim.icmp6(ipv6At(view(bytes), 38), bytes.slice(54, 54 + length), { ttl: 255 });
      bytes.set(redone.subarray(56, 58), 56);
    }
    const cut = next() < 0.1 ? bytes.subarray(0, n(bytes.length + 1)) : bytes, how = next();
    assert.equal(nat.port.receive({ bytes: cut, checksum: how < 0.2 ? "unknown" : how < 0.6 ? "good" : "blank", gso: how > 0.9 ? { type: "tcpv6", mss: n(3000) } : null }), true);
    if (i % 200 === 0) await clock.run(20);
  }
  const { now, ipv6, tcp } = nat.stats;
  assert.ok(now.nrTcp <= 200 && now.nrTcpConnecting <= 50 && now.nrUdpFlows <= 1024 && now.nrDnsQueries <= 256 && now.nrReassembling <= 32 && now.nrNeighbours <= 4096, JSON.stringify(now));
  assert.ok(tcp.nrOpened > 50 && ipv6!.neighbours.nrSolicited > 50 && ipv6!.dhcp.nrRequests > 20 && ipv6!.advertisements.nrAsked > 50, `the frames came far enough: ${JSON.stringify(ipv6)} ${JSON.stringify(tcp)}`);
  sim.others6.length = 0;
  await clock.run(2000);
  sim.echo(own.gateway, text("still there"));
  await clock.run(5000);
  assert.ok(icmps(sim).some(([type]) => type === 129));
  nat.close();
  assert.deepEqual([nat.stats.now.nrTcp, nat.stats.now.nrUdpFlows, nat.stats.now.nrTimers, outside.nrUdpOpen], [0, 0, 0, 0]);
});
