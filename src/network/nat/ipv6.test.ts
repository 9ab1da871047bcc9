import assert from "node:assert/strict";
import test from "node:test";
import { be16, bytesOf, ethernet, ipv6, macNr, plain, seeded } from "../fixture.ts";
import { formatIpv6 } from "./address.ts";
import { fragmentedIpv6, newIpv6, readIpv6 } from "./ipv6.ts";
import type { Packet, PacketFault } from "./packet.ts";
import { Reassembly } from "./reassembly.ts";

const A = "fd00::a", B = "fd00::b", DATA = Uint8Array.from({ length: 24 }, (_, i) => i);
const read = (payload: Uint8Array, next = 17, to = B): Packet | PacketFault => {
  const bytes = ethernet(macNr(1), macNr(2), 0x86dd, ipv6(A, to, next, payload));
  return readIpv6(plain(bytes), new DataView(bytes.buffer), 2);
};
/** What was read, in a few words. */
const short = (p: Packet | PacketFault): unknown => typeof p === "string" ? p : "problem" in p ? [p.problem, p.pointer] : [p.protocol, p.at - p.ipAt, p.end - p.ipAt, p.fragment];
const options = (next: number, ...parts: (string | number)[]): Uint8Array => bytesOf(next, 0, ...parts);
const fragment = (next: number, from: number, isLast: boolean, data: Uint8Array, id = 7): Uint8Array => bytesOf(next, 0, be16(from | (isLast ? 0 : 1)), 0, 0, 0, id, data);

test("a packet is read up to what it carries, behind the headers that may come before", () => {
  assert.deepEqual(short(read(DATA)), [17, 40, 64, null]);
  assert.deepEqual(short(read(bytesOf(options(17, "010400000000"), DATA), 0)), [17, 48, 72, null], "hop-by-hop, padded");
  assert.deepEqual(short(read(bytesOf(options(60, "050200000000"), options(6, "000000000000"), DATA), 0)), [6, 56, 80, null], "router alert, then destination options");
  assert.deepEqual(short(read(bytesOf(options(17, "1e0401020304"), DATA), 60)), [17, 48, 72, null], "an option that says to skip it");
  assert.deepEqual(short(read(bytesOf(17, 0, 4, 0, "00000000", DATA), 43)), [17, 48, 72, null], "a way that has been gone");
  assert.deepEqual(short(read(fragment(17, 0, true, DATA), 44)), [17, 48, 72, null], "the only piece is the whole (RFC 6946)");
  assert.deepEqual(short(read(fragment(17, 1480, false, DATA), 44)), [17, 48, 72, { id: 7, from: 1480, isLast: false }]);
  assert.deepEqual(short(read(bytesOf(options(44, "010400000000"), fragment(60, 0, false, DATA)), 60)), [60, 56, 80, { id: 7, from: 0, isLast: false }]);
  assert.deepEqual(short(read(new Uint8Array(), 59)), [59, 40, 40, null]);
});
test("headers that do not hold together are dropped, and those that ask for it are answered with where the fault is", () => {
  assert.equal(read(DATA.subarray(0, 7), 0), "short");
  assert.equal(read(bytesOf(17, 9, "010400000000", DATA), 0), "short", "longer than the packet");
  assert.equal(read(bytesOf(options(17, "01ff00000000"), DATA), 60), "header", "an option longer than its header");
  assert.equal(read(bytesOf(...Array.from({ length: 9 }, () => options(60, "010400000000")), DATA), 60), "header");
  assert.equal(read(bytesOf(options(17, "5e0400000000"), DATA), 60), "header", "an unknown option that says to discard");
  assert.deepEqual(short(read(bytesOf(options(17, "9e0400000000"), DATA), 60)), ["option", 42], "one that says to tell");
  assert.deepEqual(short(read(bytesOf(options(17, "0100de020000"), DATA), 60)), ["option", 44], "one that says to tell unless it went to many");
  assert.equal(read(bytesOf(options(17, "de0400000000"), DATA), 60, "ff02::1"), "header");
  assert.deepEqual(short(read(bytesOf(options(0, "010400000000"), options(17, "010400000000"), DATA), 60)), ["protocol", 40], "hop-by-hop only right behind the header");
  assert.deepEqual(short(read(bytesOf(17, 2, 0, 1, "00000000", new Uint8Array(16), DATA), 43)), ["field", 42], "a way over us (RFC 5095)");
  const bytes = ethernet(macNr(1), macNr(2), 0x86dd, ipv6(A, B, 17, DATA)), cut = bytes.slice(0, 60), old = bytes.slice();
  old[14] = 0x45;
  assert.equal(readIpv6(plain(cut), new DataView(cut.buffer), 2), "short");
  assert.equal(readIpv6(plain(cut.slice(0, 50)), new DataView(cut.buffer), 2), "short");
  assert.equal(readIpv6(plain(old), new DataView(old.buffer), 2), "header");
});
test("pieces of ours come together as the whole, in any order; overlapping ones drop it (RFC 5722)", () => {
  const payload = Uint8Array.from({ length: 4000 }, (_, i) => i * 7), whole = newIpv6(0xfd00n << 112n | 10n, 0xfd00n << 112n | 11n, 17, payload.length), reassembly = new Reassembly();
  whole.set(payload, 54);
  const pieces = fragmentedIpv6(whole, 1500, 99);
  assert.deepEqual(pieces.map((b) => b.length), [1510, 1510, 54 + 8 + 4000 - 2896]);
  const packets = pieces.map((bytes) => readIpv6(plain(bytes), new DataView(bytes.buffer), 2) as Packet), add = (nr: number, p = packets[nr]!) => reassembly.add(p, 0);
  assert.equal(add(2), null);
  assert.equal(add(0), null);
  assert.equal(add(0), null, "one that came twice does no harm");
  const got = add(1) as Packet;
  assert.deepEqual([got.protocol, got.at, got.fragment, formatIpv6(got.source as bigint), got.ttl], [17, 54, null, "fd00::a", 64]);
  assert.deepEqual(got.bytes.subarray(got.at, got.end), payload);
  assert.equal(reassembly.nrDatagrams, 0);
  add(0);
  add(1, { ...packets[1]!, fragment: { ...packets[1]!.fragment!, from: 1440 } });
  assert.equal(reassembly.nrDatagrams, 0);
  assert.equal(add(1), null);
  assert.equal(add(2), null, "and what was in it does not come back");
});
test("headers behind the fragment's are read from the whole, and a fragment in a fragment is none", () => {
  const reassembly = new Reassembly(), add = (payload: Uint8Array) => reassembly.add(read(payload, 44) as Packet, 0);
  const inner = bytesOf(options(17, "010400000000"), DATA);
  assert.equal(add(fragment(60, 0, false, inner.subarray(0, 16))), null);
  assert.deepEqual(short(add(fragment(60, 16, true, inner.subarray(16)))!), [17, 48, 72, null]);
  const nested = fragment(17, 8, false, DATA, 9);
  add(fragment(44, 0, false, nested.subarray(0, 16)));
  assert.equal(add(fragment(44, 16, true, nested.subarray(16))), "header");
  for (const [from, isLast, length] of [[65528, true, 24], [0, false, 20], [8, true, 0]] as const) {
    assert.equal(add(fragment(17, from, isLast, DATA.subarray(0, length), 20 + length)), null);
    assert.equal(reassembly.nrDatagrams, 0, "too long, cut at a wrong place, or empty");
  }
});
test("bytes without sense are read without a fault, and never outside of themselves", () => {
  const random = seeded(5);
  for (let i = 0; i < 20_000; i++) {
    const payload = random.bytes(random.below(120));
    for (let at = 0; at + 1 < payload.length && random.below(4); at += 8) {
      payload[at] = random.pick([0, 43, 44, 60, 17, 58]);
      payload[at + 1] = random.below(2);
    }
    const p = read(payload, random.pick([0, 43, 44, 60, 17]));
    if (typeof p === "string") continue;
    const packet = "problem" in p ? p.packet : p;
    assert.ok(packet.at <= packet.end && packet.end <= packet.bytes.length && packet.protocolAt < packet.bytes.length);
  }
});
