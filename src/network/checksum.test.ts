import assert from "node:assert/strict";
import test from "node:test";
import { checksumOf, completed, findTransport, isChecksumRight, sumOf, updatedChecksum } from "./checksum.ts";
import type { Frame } from "./port.ts";

const random = (seed: number) => () => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 32;
};
/** RFC 1071 as its text says it, one word at a time */
function plainSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i]! * 256 + (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}
/** 0 and 0xffff are the same number in ones' complement. */
const same = (a: number, b: number): boolean => a % 0xffff === b % 0xffff;

test("the sum of RFC 1071's example is ddf2", () => {
  assert.equal(sumOf(Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7), 0, 8), 0xddf2);
});
test("the sum is that of the plain text of RFC 1071 at every alignment, length and content", () => {
  const next = random(1), store = new Uint8Array(300_000);
  for (let i = 0; i < store.length; i++) store[i] = next() < 0.3 ? 0xff : next() * 256;
  for (let i = 0; i < 4000; i++) {
    const at = Math.floor(next() * 64), length = Math.floor(next() * (i % 100 === 0 ? 200_000 : 300)), from = Math.floor(next() * 16);
    const view = store.subarray(at, at + from + length), start = Math.floor(next() * 0xffff);
    assert.ok(same(sumOf(view, from, view.length, start), plainSum(view.subarray(from)) + start), `at ${at}, ${from} to ${view.length}`);
  }
  const ones = new Uint8Array(1 << 20).fill(0xff);
  assert.ok(same(sumOf(ones, 0, ones.length, 0xffff), 0));
  assert.ok(same(sumOf(ones, 1, ones.length - 2, 1), 1 + 0xff00));
});
test("a checksum follows a changed word without the rest (RFC 1624's example)", () => {
  assert.equal(updatedChecksum(0xdd2f, 0x5555, 0x3285), 0x0000);
  const bytes = Uint8Array.from({ length: 40 }, (_, i) => i * 7), before = checksumOf(bytes, 0, 40);
  bytes[8] = 0xab;
  assert.equal(updatedChecksum(before, ((8 * 7) << 8) | (9 * 7), 0xab00 | (9 * 7)), checksumOf(bytes, 0, 40));
});

/** Ethernet, IPv4, UDP with a payload "hi!", then three bytes of padding */
const udp = (): Uint8Array<ArrayBuffer> => Uint8Array.from([
  2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 31, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2,
  0x30, 0x39, 0, 7, 0, 11, 0xde, 0xad, 0x68, 0x69, 0x21, 9, 9, 9,
]);
test("a blank checksum is completed in a copy, from its own bytes and without Ethernet's padding", () => {
  const frame: Frame = { bytes: udp(), checksum: "blank", gso: null }, whole = completed(frame);
  assert.equal(whole.checksum, "good");
  assert.deepEqual(frame.bytes, udp(), "the sender's bytes are untouched");
  const t = findTransport(whole.bytes)!;
  assert.deepEqual([t.version, t.protocol, t.ipAt, t.at, t.end, t.checksumAt], [4, 17, 14, 34, 45, 40]);
  // by hand: 0a00+020f+0a00+0202+11+b (pseudo) + 3039+7+b + 6869+2100
  assert.equal((whole.bytes[40]! << 8) | whole.bytes[41]!, 0xffff - plainSum(Uint8Array.of(
    10, 0, 2, 15, 10, 0, 2, 2, 0, 17, 0, 11, 0x30, 0x39, 0, 7, 0, 11, 0x68, 0x69, 0x21, 0)));
  assert.ok(isChecksumRight(whole.bytes, t));
  whole.bytes[44]! ^= 1;
  assert.ok(!isChecksumRight(whole.bytes, t));
  assert.equal(completed({ bytes: udp(), checksum: "unknown", gso: null }).checksum, "unknown");
});
test("behind VLAN tags and IPv6 extension headers the packet is found", () => {
  const tagged = Uint8Array.from([...udp().subarray(0, 12), 0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, ...udp().subarray(12)]);
  assert.equal(findTransport(tagged)?.at, 42);
  const v6 = new Uint8Array(14 + 40 + 8 + 8);
  v6.set([0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 0, 64], 12);
  v6.set([17, 0], 54);
  assert.deepEqual([findTransport(v6)?.at, findTransport(v6)?.end, findTransport(v6)?.version], [62, 70, 6]);
  assert.ok(isChecksumRight(completed({ bytes: v6, checksum: "blank", gso: null }).bytes, findTransport(v6)!));
});
test("fragments, other protocols and lying lengths are no packet, and stay as they are", () => {
  const bad = (change: (b: Uint8Array) => void): Uint8Array<ArrayBuffer> => {
    const b = udp();
    change(b);
    return b;
  };
  for (const bytes of [
    bad((b) => { b[20] = 0x20; }), bad((b) => { b[21] = 1; }), bad((b) => { b[23] = 1; }), bad((b) => { b[16] = 1; }), bad((b) => { b[14] = 0x4f; }),
    bad((b) => { b[14] = 0x41; }), udp().subarray(0, 33), udp().subarray(0, 13), new Uint8Array(0),
  ]) {
    assert.equal(findTransport(bytes), null);
    assert.deepEqual(completed({ bytes, checksum: "blank", gso: null }), { bytes, checksum: "unknown", gso: null });
  }
});
