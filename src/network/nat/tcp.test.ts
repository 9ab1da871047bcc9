import assert from "node:assert/strict";
import test from "node:test";
import { concat } from "../../base/bytes.ts";
import { parseIpv4 } from "../address.ts";
import { type GuestOptions, leftOf, SimGuest } from "./fixture.ts";
import { randomBytes, seeded, VirtualClock } from "./fixture-clock.ts";
import { accept, echo, FakeOutside, type FakeStream } from "./fixture-outside.ts";
import type { SimTcp } from "./fixture-tcp.ts";
import { NatNetwork, type NatOptions } from "./nat.ts";

const SERVER = parseIpv4("198.51.100.7")!;
function network(guest: GuestOptions = {}, options: Partial<NatOptions> = {}) {
  const clock = new VirtualClock(), outside = new FakeOutside(clock), next = seeded(42);
  const nat = new NatNetwork({ outside, clock, random: () => Math.floor(next() * 2 ** 32), ...options }), sim = new SimGuest(nat, clock, guest);
  return { clock, outside, nat, sim };
}
/** Nothing is left of any connection. */
const assertEmpty = (nat: NatNetwork): void => assert.deepEqual(leftOf(nat), [0, 0, 0, 0, 0, 0]);

test("bytes go both ways, each side ends on its own, and nothing is left", async () => {
  const { clock, outside, nat, sim } = network();
  let stream: FakeStream | undefined;
  outside.onConnect = (s) => {
    stream = s;
    accept(s);
  };
  const tcp = sim.connectTcp(SERVER, 80);
  await clock.run(10);
  assert.equal(tcp.state, "open");
  assert.deepEqual([stream!.address, stream!.port], ["198.51.100.7", 80]);
  tcp.write(Uint8Array.of(1, 2, 3));
  tcp.close();
  await clock.run(100);
  assert.deepEqual([...concat(stream!.received)], [1, 2, 3]);
  assert.ok(stream!.hasEnded, "the guest's FIN ends the far side's reading");
  assert.equal(tcp.state, "open");
  stream!.say(Uint8Array.of(4, 5));
  await clock.run(100);
  assert.deepEqual([...concat(tcp.received)], [4, 5], "half closed, the other half goes on");
  stream!.finish();
  await clock.run(5000);
  assert.equal(tcp.end, "closed");
  assertEmpty(nat);
  assert.deepEqual(sim.broken, []);
});
test("the far side may end first; the connection waits in TIME-WAIT and a new SYN may take its place", async () => {
  const { clock, outside, nat, sim } = network();
  outside.onConnect = (s) => {
    accept(s);
    s.say(Uint8Array.of(9));
    s.finish();
  };
  const tcp = sim.connectTcp(SERVER, 80, 1234);
  await clock.run(50);
  assert.ok(tcp.hasPeerEnded);
  tcp.write(Uint8Array.of(7));
  tcp.close();
  await clock.run(3000);
  assert.deepEqual([tcp.end, nat.stats.now.nrTcp, nat.stats.now.nrTcpTimeWaits], ["closed", 1, 1]);
  // The guest's next number lies before or behind by chance: try until it is taken.
  let again: SimTcp;
  do {
    again = sim.connectTcp(SERVER, 80, 1234);
    await clock.run(700);
  } while (again.state === "opening" && clock.nowMs() < 20_000);
  assert.equal(concat(again.received)[0], 9);
  again.close();
  await clock.run(30_000);
  assertEmpty(nat);
});
test("SYN-ACK comes when the outside is connected; refused is a reset, unreachable is ICMP, denied is ICMP", async () => {
  const { clock, outside, nat, sim } = network({}, { policy: ["deny tcp any:25"] });
  const streams: FakeStream[] = [];
  outside.onConnect = (s) => { streams.push(s); };
  const slow = sim.connectTcp(SERVER, 80), refused = sim.connectTcp(SERVER, 81), lost = sim.connectTcp(SERVER, 82), denied = sim.connectTcp(SERVER, 25);
  const own = sim.connectTcp(nat.gateway, 99), host = sim.connectTcp(nat.hostAddress, 22), loopback = sim.connectTcp(parseIpv4("127.0.0.1")!, 22);
  await clock.run(250);
  assert.deepEqual([slow, refused, lost, denied, own, host, loopback].map((t) => t.end), [null, null, null, "icmp", "reset", "reset", "icmp"]);
  assert.equal(nat.stats.now.nrTcpConnecting, 3, "SYNs that come again are the same connections");
  assert.equal(slow.state, "opening");
  streams[0]!.events!.connected();
  streams[1]!.fail("refused");
  streams[2]!.fail("unreachable");
  await clock.run(50);
  assert.deepEqual([slow.state, refused.end, lost.end], ["open", "reset", "icmp"]);
  slow.abort();
  await clock.run(50);
  assert.ok(streams[0]!.isAborted, "the guest's reset goes out");
  assertEmpty(nat);
});
test("a reset from outside reaches the guest, with a connection that is half open too", async () => {
  const { clock, outside, nat, sim } = network();
  let stream: FakeStream | undefined;
  outside.onConnect = (s) => {
    stream = s;
    accept(s);
  };
  const tcp = sim.connectTcp(SERVER, 80);
  await clock.run(50);
  tcp.close();
  await clock.run(50);
  stream!.fail("reset");
  await clock.run(50);
  assert.equal(tcp.end, "reset");
  assertEmpty(nat);
});

for (const [name, guest] of [
  ["a clean cable", {}],
  ["a clean cable with large frames", { gso: true, shift: 7, windowBytes: 1 << 20 }],
  ["a cable that loses 3 of 100", { faults: { loss: 0.03 } }],
  ["a cable that loses, doubles, delays and breaks", { faults: { loss: 0.01, twice: 0.02, late: 0.05, broken: 0.02 }, seed: 5 }],
  ["large frames, faults, and an end that is often full", { gso: true, faults: { loss: 0.01, twice: 0.01, late: 0.02, broken: 0.01 }, full: 0.2, seed: 6 }],
  ["a guest that keeps nothing out of order", { forgetsOutOfOrder: true, faults: { loss: 0.01 }, seed: 7 }],
  ["a small MSS and a window without scale", { mss: 200, shift: 0, windowBytes: 8000, faults: { loss: 0.005 }, seed: 8 }],
] as [string, GuestOptions][]) {
  test(`400 kB echoed come back as they were, over ${name}`, async () => {
    const { clock, outside, nat, sim } = network(guest), payload = randomBytes(3, 400_000);
    outside.onConnect = echo;
    const tcp = sim.connectTcp(SERVER, 7);
    for (let at = 0; at < payload.length; at += 50_000) tcp.write(payload.subarray(at, at + 50_000));
    tcp.close();
    await clock.run(600_000, () => tcp.end !== null);
    assert.equal(tcp.receivedBytes, payload.length);
    assert.ok(concat(tcp.received).every((b, i) => b === payload[i]));
    assert.equal(tcp.end, "closed");
    assert.deepEqual(sim.broken, []);
    if (guest.gso) assert.ok(sim.nrBigFrames > 5);
    await clock.run(30_000);
    assertEmpty(nat);
  });
}

test("single losses are mended by fast retransmission, not by the timer", async () => {
  const { clock, outside, nat, sim } = network({ faults: {}, seed: 3 });
  let n = 0;
  const receive = sim.receive.bind(sim);
  sim.receive = (frame) => (frame.bytes.length > 1000 && ++n % 97 === 40 ? true : receive(frame));
  const payload = randomBytes(9, 1_000_000);
  outside.onConnect = (s) => {
    accept(s);
    for (let at = 0; at < payload.length; at += 65536) s.say(payload.slice(at, at + 65536));
    s.finish();
  };
  const tcp = sim.connectTcp(SERVER, 80);
  await clock.run(60_000, () => tcp.hasPeerEnded);
  assert.ok(concat(tcp.received).every((b, i) => b === payload[i]) && tcp.receivedBytes === payload.length);
  assert.ok(nat.stats.tcp.nrFastRetransmits >= 7, `${nat.stats.tcp.nrFastRetransmits} fast retransmissions`);
  assert.equal(nat.stats.tcp.nrTimeouts, 0);
});
test("a guest that does not read holds the far side up; a probe finds the window when the update is lost", async () => {
  const { clock, outside, nat, sim } = network({ windowBytes: 64 << 10, shift: 2 });
  let stream: FakeStream | undefined;
  const payload = randomBytes(4, 3_000_000);
  outside.onConnect = (s) => {
    stream = s;
    accept(s);
    for (let at = 0; at < payload.length; at += 65536) s.say(payload.slice(at, at + 65536));
    s.finish();
  };
  const tcp = sim.connectTcp(SERVER, 80);
  tcp.isReading = false;
  await clock.run(100_000);
  assert.ok(stream!.isPaused);
  assert.ok(tcp.receivedBytes <= 65_600, `${tcp.receivedBytes} bytes past a window of 64 KiB`);
  assert.ok(payload.length - stream!.unreadBytes - tcp.receivedBytes <= 2 * 65536, "the router holds no more than its buffer and one chunk");
  assert.ok(nat.stats.tcp.nrProbes >= 5);
  assert.equal(tcp.end, null, "a shut window that is answered is no reason to give up");
  const send = sim.send.bind(sim);
  sim.send = () => {};
  tcp.read(true);
  sim.send = send;
  await clock.run(300_000, () => tcp.hasPeerEnded);
  assert.equal(tcp.receivedBytes, payload.length);
  tcp.close();
  await clock.run(30_000);
  assertEmpty(nat);
});
test("a far side that does not read holds the guest up within the window, and goes on", async () => {
  const { clock, outside, nat, sim } = network();
  let stream: FakeStream | undefined;
  outside.onConnect = (s) => {
    stream = s;
    s.isReading = false;
    accept(s);
  };
  const tcp = sim.connectTcp(SERVER, 80), payload = randomBytes(4, 1_000_000);
  tcp.write(payload);
  tcp.close();
  await clock.run(60_000);
  assert.ok(stream!.unsentBytes <= 1 << 20 && tcp.unsentBytes > 0 && stream!.unsentBytes + tcp.unsentBytes >= payload.length, `${stream!.unsentBytes} bytes held, ${tcp.unsentBytes} with the guest`);
  assert.ok(stream!.unsentBytes <= 256 << 10);
  stream!.read(true);
  await clock.run(60_000, () => stream!.hasEnded && stream!.unsentBytes === 0);
  assert.ok(concat(stream!.received).every((b, i) => b === payload[i]) && stream!.receivedBytes === payload.length);
  stream!.finish();
  await clock.run(30_000);
  assertEmpty(nat);
});

test("tiny segments to a far side that does not read are let fall when keeping them costs too much", async () => {
  const { clock, outside, nat, sim } = network();
  let stream: FakeStream | undefined;
  outside.onConnect = (s) => {
    stream = s;
    s.isReading = false;
    s.costPerWrite = 512;
    accept(s);
  };
  const tcp = sim.connectTcp(SERVER, 80), payload = randomBytes(6, 5000);
  await clock.run(10);
  for (const b of payload) tcp.write(Uint8Array.of(b));
  tcp.close();
  await clock.run(1000);
  assert.ok(stream!.nrWrites < 2 * 65536 / 512 + 2 && stream!.nrWrites > 100, `${stream!.nrWrites} writes are kept`);
  stream!.read(true);
  await clock.run(60_000, () => stream!.hasEnded && stream!.unsentBytes === 0);
  assert.deepEqual(concat(stream!.received), payload);
  stream!.finish();
  await clock.run(30_000);
  assertEmpty(nat);
});
test("frames of 64 KiB MTU carry 64 KiB segments", async () => {
  const { clock, outside, nat, sim } = network({ gso: true, mss: 65495, shift: 7, windowBytes: 1 << 20 }, { mtu: 65535 });
  outside.onConnect = echo;
  const tcp = sim.connectTcp(SERVER, 80), payload = randomBytes(6, 500_000);
  tcp.write(payload);
  tcp.close();
  await clock.run(60_000, () => tcp.end !== null);
  assert.deepEqual(concat(tcp.received), payload);
  await clock.run(30_000);
  assertEmpty(nat);
});
test("a reset counts only with the exact number (RFC 5961); SYNs and wild acknowledgements are challenged", async () => {
  const { clock, outside, nat, sim } = network();
  outside.onConnect = echo;
  const tcp = sim.connectTcp(SERVER, 7);
  await clock.run(50);
  const none = new Uint8Array(0), hit = (flags: number, seq: number, ack: number) => sim.sendTcp(tcp.port, SERVER, 7, flags, seq, ack, 1000, [], none, 0);
  tcp.write(Uint8Array.of(1));
  await clock.run(100);
  const answered = async (flags: number, offset: number, ack: number): Promise<number> => {
    sim.capture = [];
    hit(flags, (tcp.next + offset) | 0, ack);
    await clock.run(5);
    return sim.capture.length - 1;
  };
  assert.equal(await answered(4, 100, 0), 1, "a reset inside the window is challenged");
  assert.equal(await answered(4, -100, 0), 0, "one outside is ignored");
  assert.equal(await answered(4, 4 << 20, 0), 0);
  assert.equal(await answered(2, 0, 0), 1, "a SYN is challenged");
  assert.equal(await answered(16, 0, tcp.rcvNxt + 5000), 1, "an acknowledgement of what was never sent is challenged");
  assert.equal(nat.stats.now.nrTcp, 1);
  tcp.write(Uint8Array.of(2));
  await clock.run(100);
  assert.equal(tcp.receivedBytes, 2, "and the connection lives");
  hit(4, tcp.next, 0);
  await clock.run(5);
  assertEmpty(nat);
});
test("a flood of SYNs is bounded, and what is refused comes in later", async () => {
  const { clock, outside, nat, sim } = network({}, { limits: { nrConnecting: 200 } });
  let isOpen = false;
  outside.onConnect = (s) => { if (isOpen) echo(s); };
  const tcps = Array.from({ length: 300 }, () => sim.connectTcp(SERVER, 7));
  await clock.run(200);
  assert.equal(nat.stats.now.nrTcpConnecting, 100);
  assert.ok(nat.stats.tcp.nrSynsDropped >= 200);
  isOpen = true;
  for (const s of outside.streams) echo(s);
  await clock.run(2000);
  assert.ok(tcps.every((t) => t.state === "open"));
});
test("connections to a guest that is gone end when it does not answer, and the far side is reset", async () => {
  const { clock, outside, nat, sim } = network();
  let stream: FakeStream | undefined;
  outside.onConnect = (s) => {
    stream = s;
    accept(s);
  };
  sim.connectTcp(SERVER, 80);
  await clock.run(50);
  sim.receive = () => true;
  stream!.say(randomBytes(1, 5000));
  await clock.run(1000_000);
  assert.ok(stream!.isAborted);
  assertEmpty(nat);
});
test("an idle connection is asked after two hours, and ends when nobody answers", async () => {
  const { clock, outside, nat, sim } = network();
  outside.onConnect = echo;
  const alive = sim.connectTcp(SERVER, 80);
  await clock.run(5 * 3600_000);
  assert.deepEqual([alive.state, nat.stats.now.nrTcp], ["open", 1]);
  sim.receive = () => true;
  await clock.run(4 * 3600_000);
  assertEmpty(nat);
});

test("the guest's last bytes go out even when it resets or reuses the port after both sides had ended", async () => {
  for (const isReset of [true, false]) {
    const { clock, outside, sim, nat } = network();
    let stream: FakeStream | undefined;
    outside.onConnect = (s) => {
      stream ??= s;
      accept(s);
      s.isReading = false;
    };
    const tcp = sim.connectTcp(SERVER, 80, 1234);
    await clock.run(50);
    stream!.finish();
    tcp.write(randomBytes(1, 5000));
    tcp.close();
    await clock.run(1000);
    assert.equal(nat.stats.now.nrTcpTimeWaits, 1);
    if (isReset) tcp.abort();
    else while (outside.streams.size < 2) {
      sim.connectTcp(SERVER, 80, 1234);
      await clock.run(400);
    }
    await clock.run(100);
    assert.ok(!stream!.isAborted);
    stream!.read(true);
    assert.deepEqual([stream!.receivedBytes, stream!.hasEnded], [5000, true]);
    await clock.run(300_000);
    nat.close();
    assertEmpty(nat);
  }
});
test("a forward's connection reaches the guest, from the gateway's address, and bytes and ends go both ways", async () => {
  const { clock, outside, nat, sim } = network({ gso: true }, { forwards: ["tcp:127.0.0.1:2222-10.0.2.15:22"] });
  await nat.start();
  assert.deepEqual(nat.forwards.map((f) => [f.address, f.port]), [["127.0.0.1", 2222]]);
  const taken: SimTcp[] = [];
  sim.listening.set(22, (tcp) => {
    taken.push(tcp);
    tcp.onData = (b) => tcp.write(b);
  });
  const client = outside.come("127.0.0.1:2222"), payload = randomBytes(2, 200_000);
  client.say(payload);
  await clock.run(5000, () => client.receivedBytes >= payload.length);
  assert.ok(concat(client.received).every((b, i) => b === payload[i]));
  assert.equal(taken[0]!.remote, nat.gateway);
  client.finish();
  await clock.run(100);
  assert.ok(taken[0]!.hasPeerEnded);
  taken[0]!.close();
  await clock.run(30_000);
  assert.ok(client.hasEnded);
  assertEmpty(nat);

  const refused = outside.come("127.0.0.1:2222");
  sim.listening.clear();
  await clock.run(100);
  assert.ok(refused.isAborted, "a guest that refuses has the host's client reset");
  const nobody = outside.come("127.0.0.1:2222");
  sim.receive = () => true;
  await clock.run(200_000);
  assert.ok(nobody.isAborted, "and so does one that does not answer");
  assertEmpty(nat);
});

test("a forward to an address where nobody answers ARP ends in seconds", async () => {
  const { clock, outside, nat, sim } = network({ address: parseIpv4("10.0.2.16")! }, { forwards: ["tcp:127.0.0.1:2222-10.0.2.15:22"] });
  await nat.start();
  sim.echo(nat.gateway, new Uint8Array(8));
  const client = outside.come("127.0.0.1:2222");
  await clock.run(2000);
  assert.ok(!client.isAborted);
  await clock.run(2000);
  assert.ok(client.isAborted);
  assertEmpty(nat);
});
test("ten thousand connections open, carry bytes and close, and not one object is left", async () => {
  const { clock, outside, nat, sim } = network();
  outside.onConnect = (s) => {
    echo(s);
    outside.streams.delete(s);
  };
  const tcps: SimTcp[] = [];
  for (let i = 0; i < 10_000; i++) {
    const tcp = sim.connectTcp(SERVER + (i & 3), 7, 1024 + i);
    tcp.write(Uint8Array.of(i, i >> 8));
    tcps.push(tcp);
    if (i % 500 === 499) await clock.run(20);
  }
  await clock.run(2000);
  assert.equal(nat.stats.now.nrTcp, 10_000);
  assert.ok(tcps.every((t, i) => t.receivedBytes === 2 && concat(t.received)[0] === (i & 255)));
  assert.ok(nat.stats.now.tcpGrantedBytes <= 256 << 20, `${nat.stats.now.tcpGrantedBytes} bytes granted`);
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
