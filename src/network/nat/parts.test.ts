import assert from "node:assert/strict";
import test from "node:test";
import { macText, parseIpv4, parseMac } from "../address.ts";
import { formatIpv4, parseSubnet } from "./address.ts";
import { Timer, TimerWheel } from "./timers.ts";
import { seeded, VirtualClock } from "./fixture-clock.ts";
import { type Flow, FlowTable } from "./flow-table.ts";
import { parseForward } from "./forward.ts";
import { Leases } from "./leases.ts";
import { parsePolicy } from "./policy.ts";
import { Reorder, SendBuffer } from "./tcp-buffers.ts";
import { Congestion } from "./tcp-congestion.ts";

const ip = (text: string): number => parseIpv4(text)!;

test("addresses and subnets are read strictly and written back as they were", () => {
  for (const text of ["0.0.0.0", "10.0.2.15", "255.255.255.255"]) assert.equal(formatIpv4(ip(text)), text);
  for (const text of ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4 ", "0x1.2.3.4"]) assert.equal(parseIpv4(text), null, text);
  assert.equal(macText(parseMac("02:16:3E:00:00:0f")!), "02:16:3e:00:00:0f");
  for (const text of ["", "02:16:3e:00:00", "02:16:3e:00:00:0g", "02163e000001"]) assert.equal(parseMac(text), null, text);
  assert.deepEqual(parseSubnet("192.168.4.0/22"), { network: ip("192.168.4.0"), prefix: 22, mask: ip("255.255.252.0"), broadcast: ip("192.168.7.255") });
  assert.throws(() => parseSubnet("10.0.2.1/24"), { name: "UserError", message: 'Subnet "10.0.2.1/24": bits are set behind the prefix; the network is 10.0.2.0/24' });
  assert.throws(() => parseSubnet("10.0.2.0/33"), /prefix length/);
  assert.throws(() => parseSubnet("ten/8"), /"ten" is not an IPv4 address/);
});
test("a forward says what is wrong with it", () => {
  assert.deepEqual(parseForward("tcp:127.0.0.1:2222-10.0.2.15:22"),
    { protocol: "tcp", listenAddress: "127.0.0.1", listenPort: 2222, target: { address: ip("10.0.2.15") }, targetPort: 22, text: "tcp:127.0.0.1:2222-10.0.2.15:22" });
  const short = (text: string) => {
    const f = parseForward(text);
    return [f.protocol, f.listenAddress, f.listenPort, f.target, f.targetPort];
  };
  assert.deepEqual(short("udp:5353-Web-1:53"), ["udp", "127.0.0.1", 5353, { hostname: "web-1" }, 53]);
  assert.deepEqual(short("tcp:[::1]:0-02:16:3e:00:01:80:80"), ["tcp", "::1", 0, { mac: 0x02163e000180 }, 80]);
  for (const [text, why] of [
    ["", /not of the form/], ["tcp:22", /not of the form/], ["sctp:1-a:2", /"tcp" or "udp", not "sctp"/], ["tcp:x-a:2", /"x" is not a port of the host's/], ["tcp:70000-a:2", /"70000"/],
    ["tcp:1-a:0", /"0" is not a port of the guest's/], ["tcp:1.2.3:1-a:2", /"1.2.3" is not an address of the host's/], ["tcp:1-a_b:2", /"a_b" is neither/], ["tcp:1--a:2", /neither/],
    ["tcp:1-999:2", /neither/], ["tcp:1-10.0.2:2", /neither/],
  ] as const) assert.throws(() => parseForward(text), why, text);
});
test("of a policy's rules the first that fits decides", () => {
  const policy = parsePolicy(["allow tcp 192.168.1.0/24:80-90", "deny 192.168.0.0/16", "deny udp any:53", "allow any"]);
  assert.deepEqual([
    policy("tcp", ip("192.168.1.9"), 85), policy("tcp", ip("192.168.1.9"), 91), policy("udp", ip("192.168.1.9"), 85), policy("udp", ip("9.9.9.9"), 53), policy("tcp", ip("9.9.9.9"), 53),
  ], [true, false, false, false, true]);
  for (const [rule, why] of [["permit any", /"permit"/], ["deny any:90-80", /neither a port nor a range/], ["deny 1.2.3.4/8", /bits are set/], ["deny any now", /one word too many/], ["deny any:1-2-3", /range/]] as const) {
    assert.throws(() => parsePolicy([rule]), why);
  }
});

test("timers are called once, in time, whatever is armed, moved and disarmed", async () => {
  const clock = new VirtualClock(), wheel = new TimerWheel(clock), next = seeded(11), due = new Map<Timer, number>(), late: number[] = [];
  let nrCalls = 0;
  const timers = Array.from({ length: 500 }, () => {
    const timer: Timer = new Timer((nowMs) => {
      nrCalls++;
      late.push(nowMs - (due.get(timer) ?? Number.NaN));
      due.delete(timer);
      if (next() < 0.3) arm(timer);
    });
    return timer;
  });
  const arm = (timer: Timer): void => {
    const atMs = clock.nowMs() + (next() < 0.2 ? next() * 60_000 : next() * 300);
    due.set(timer, atMs);
    wheel.arm(timer, atMs);
  };
  for (let i = 0; i < 200; i++) {
    for (let k = 0; k < 40; k++) {
      const timer = timers[Math.floor(next() * 500)]!;
      if (next() < 0.8) arm(timer);
      else {
        due.delete(timer);
        wheel.disarm(timer);
      }
    }
    await clock.run(next() * 200);
    for (const atMs of due.values()) assert.ok(atMs > clock.nowMs() - 20, "one that is due was called");
  }
  await clock.run(200_000);
  assert.ok(nrCalls > 2000 && late.every((ms) => ms >= 0 && ms < 20), `${nrCalls} calls, latest ${Math.max(...late)} ms`);
  assert.deepEqual([wheel.nrTimers, due.size], [0, 0]);
});
interface F extends Flow<F> {}
test("the flow table holds what a Map holds", () => {
  const table = new FlowTable<F>(7), truth = new Map<string, F>(), next = seeded(3), n = (max: number) => Math.floor(next() * max);
  for (let i = 0; i < 20_000; i++) {
    // Of IPv6 addresses any part may be all in which they differ.
    const isV6 = next() < 0.5, k = [isV6 ? 1n << BigInt(32 * n(4)) : 0x0a000200 + n(4), n(50), isV6 ? 7n << BigInt(32 * n(4)) : 0xc0000200 + n(4), n(50)] as const, key = k.join(), flow = truth.get(key);
    assert.equal(table.get(...k), flow ?? null);
    if (!flow) {
      const fresh: F = { guestAddress: k[0], guestPort: k[1], remoteAddress: k[2], remotePort: k[3], chained: null };
      truth.set(key, fresh);
      table.add(fresh);
    } else if (next() < 0.7) {
      truth.delete(key);
      table.delete(flow);
    }
    assert.equal(table.size, truth.size);
  }
  assert.deepEqual(new Set(table.values()), new Set(truth.values()));
});

test("the send buffer gives back what was pushed, at any offset and after any drop", () => {
  const next = seeded(5), n = (max: number) => Math.floor(next() * max), buffer = new SendBuffer();
  let truth: number[] = [], counter = 0;
  for (let i = 0; i < 3000; i++) {
    const chunk = Uint8Array.from({ length: next() < 0.1 ? n(6000) : n(40) }, () => counter++ * 7);
    if (truth.length < 60_000) {
      buffer.push(chunk);
      truth.push(...chunk);
      chunk.length < 2048 && chunk.fill(0);  // small ones are copied
    }
    const offset = n(truth.length + 1), length = n(truth.length - offset + 1), into = new Uint8Array(length + 2);
    buffer.copy(offset, length, into, 1);
    assert.ok(into.subarray(1, length + 1).every((b, k) => b === truth[offset + k]));
    const drop = next() < 0.5 ? n(Math.min(truth.length, 3000) + 1) : next() < 0.05 ? truth.length : 0;
    buffer.drop(drop);
    truth = truth.slice(drop);
    assert.equal(buffer.bytes, truth.length);
  }
});
test("pieces out of order come out in order, each byte once, and no more is held than allowed", () => {
  const next = seeded(9), base = 0xffff_fff0 | 0, content = Uint8Array.from({ length: 5000 }, (_, i) => i * 13), early = new Reorder(), got: number[] = [];
  for (let nxt = 0; nxt < 5000; ) {
    const from = Math.floor(next() * 5000), to = Math.min(5000, from + Math.floor(next() * 300));
    if (from > nxt) early.add((base + from) | 0, content.subarray(from, to), 2000);
    else if (to > nxt) {
      got.push(...content.subarray(nxt, to));
      nxt = to;
    }
    assert.ok(early.bytes <= 2000);
    for (let more = early.take((base + nxt) | 0); more; more = early.take((base + nxt) | 0)) {
      got.push(...more);
      nxt += more.length;
    }
  }
  assert.deepEqual(got, [...content]);
});
test("the retransmission timer follows RFC 6298, the window RFC 5681 and 6582", () => {
  const c = new Congestion(1000, 100);
  assert.deepEqual([c.rtoMs, c.cwnd], [1000, 10_000]);
  c.sent(1100, 0);
  c.acked(1100, 1000, 0, 100);
  assert.deepEqual([c.rtoMs, c.cwnd], [300, 11_000], "RTT 100 ms: 100 + 4 * 50; slow start counts bytes");
  assert.equal(c.duplicate(1100, 11_100), "nothing");
  assert.equal(c.duplicate(1100, 11_100), "nothing");
  assert.equal(c.duplicate(1100, 11_100), "retransmit");
  assert.deepEqual([c.ssthresh, c.cwnd, c.isRecovering], [5000, 8000, true]);
  c.duplicate(1100, 11_100);
  assert.equal(c.cwnd, 9000, "each further duplicate is a packet that left");
  assert.equal(c.acked(3100, 2000, 8000, 120), "retransmit", "a partial acknowledgement shows the next hole");
  assert.equal(c.acked(11_100, 8000, 0, 130), "nothing");
  assert.deepEqual([c.isRecovering, c.cwnd], [false, 2000]);
  c.timedOut(11_100, 13_100);
  assert.deepEqual([c.cwnd, c.rtoMs], [1000, 600]);
  c.timedOut(11_100, 13_100);
  assert.equal(c.rtoMs, 1200, "each timeout doubles the wait");
});

test("a guest gets its address back; the pool ends; what expired is given to others, oldest first", () => {
  let nowMs = 0;
  const leases = new Leases(100, 102, [{ mac: 9, address: 50, hostname: "fixed" }], () => nowMs, (address) => address === 101);
  assert.equal(leases.offer(1, 0), 100);
  assert.ok(leases.bind(1, 100, "one", 1000));
  assert.equal(leases.offer(1, 102), 100, "a wish does not move who has an address");
  assert.equal(leases.offer(2, 101), 102, "101 is somebody's who did not ask");
  assert.equal(leases.offer(3, 0), null);
  assert.ok(!leases.bind(3, 102, null, 1000), "what was offered to one is not given to another");
  assert.equal(leases.offer(9, 0), 50);
  assert.ok(!leases.bind(9, 100, null, 1000) && !leases.bind(1, 50, null, 1000) && leases.bind(9, 50, "liar", 1000));
  assert.deepEqual([leases.addressOfName("fixed"), leases.addressOfName("one"), leases.addressOfName("liar")], [50, 100, null]);
  leases.bind(2, 102, "one", 500);
  assert.equal(leases.addressOfName("one"), 100, "a name stays with who had it first");
  nowMs = 2000;
  assert.equal(leases.offer(3, 0), 102, "expired at 500, before 100 at 1000");
  assert.equal(leases.offer(1, 0), 100, "what nobody else took is still its own");
  leases.bind(1, 100, null, 1000);
  leases.decline(1, 100);
  assert.equal(leases.offer(4, 100), null, "a declined address rests");
  nowMs += 600_001;
  assert.equal(leases.offer(4, 100), 100);
  assert.ok(leases.nrHeld <= 4);
});
