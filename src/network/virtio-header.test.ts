import assert from "node:assert/strict";
import { test } from "node:test";
import { completed, findTransport, isChecksumRight, pseudoSum } from "./checksum.ts";
import { be16, bytesOf, ethernet, ipv4, ipv6, macNr, offloaded, plain, seeded, summed, tcp, udp } from "./fixture.ts";
import type { Frame, Gso } from "./port.ts";
import { readFrame, VirtioNetHdr, writeHeader } from "./virtio-header.ts";

const packet = (version: 4 | 6, protocol: number, payload: Uint8Array, tags: number[] = []) => version === 4 ? ethernet(macNr(2), macNr(1), 0x0800, ipv4("10.0.0.1", "10.0.0.2", protocol, payload), tags)
  : ethernet(macNr(2), macNr(1), 0x86dd, ipv6("fd00::1", "fd00::2", protocol, payload), tags);
const large = (version: 4 | 6, gso: Gso | null = { type: `tcpv${version}`, mss: 1000 }, tags: number[] = []) => offloaded(packet(version, 6, tcp(1, 2, 3, new Uint8Array(5000).fill(7)), tags), gso);
function headerOf(frame: Frame): Uint8Array<ArrayBuffer> | null {
  const header = new Uint8Array(10).fill(0xff);
  return writeHeader(new DataView(header.buffer), frame) ? header : null;
}
const withHeader = (frame: Frame, change: (header: DataView) => void = () => {}) => {
  const bytes = bytesOf(headerOf(frame)!, frame.bytes);
  change(new DataView(bytes.buffer));
  return readFrame(bytes);
};

test("a header says how a frame is to be cut and where its checksum goes, at the offsets of linux/virtio_net.h", () => {
  // flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; TCP at 34, its checksum at 16 of it. That a kernel means the same is seen in tap.test.ts
  assert.deepEqual(headerOf(large(4)), Uint8Array.of(1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0));
  assert.deepEqual(headerOf(large(6)), Uint8Array.of(1, 4, 74, 0, 0xe8, 3, 54, 0, 16, 0));
  assert.deepEqual(headerOf(large(4, { type: "tcpv4", mss: 1000 }, [7])), Uint8Array.of(1, 1, 58, 0, 0xe8, 3, 38, 0, 16, 0));
  assert.deepEqual(headerOf(offloaded(packet(4, 17, udp(1, 2, new Uint8Array(30))))), Uint8Array.of(1, 0, 0, 0, 0, 0, 34, 0, 6, 0));
  assert.deepEqual(headerOf(plain(packet(4, 6, tcp(1, 2, 3, new Uint8Array(30))))), new Uint8Array(10));
});

test("what is known of a frame comes back with it", () => {
  for (const frame of [large(4), large(6), large(4, null), large(6, { type: "tcpv6", mss: 1400 }, [7, 9]), plain(packet(6, 17, udp(1, 2, new Uint8Array(9))))]) assert.deepEqual(withHeader(frame), frame);
  assert.equal(withHeader(plain(summed(packet(4, 6, tcp(1, 2, 3, new Uint8Array(9))))), (h) => VirtioNetHdr.flags.set(h, 0, 2))!.checksum, "good");
  assert.deepEqual(withHeader(large(4), (h) => VirtioNetHdr.gso_type.set(h, 0, 0x81)), large(4), "congestion marks are TCP's own business");
});

test("a frame that is not what its sender says is lost, not passed on", () => {
  const gso: Gso = { type: "tcpv4", mss: 1000 };
  for (const frame of [large(4, { type: "tcpv6", mss: 1000 }), large(4, { type: "tcpv4", mss: 1 }), large(4, { type: "tcpv4", mss: 70_000 }), large(4, { type: "tcpv4", mss: Number.NaN }),
    offloaded(packet(4, 17, udp(1, 2, new Uint8Array(3000))), gso), offloaded(new Uint8Array(14), gso), offloaded(new Uint8Array(0), gso)]) assert.equal(headerOf(frame), null);
  assert.equal(withHeader(large(4), (h) => VirtioNetHdr.gso_type.set(h, 0, 4)), null);
  assert.equal(withHeader(large(4), (h) => VirtioNetHdr.gso_type.set(h, 0, 3)), null);
  assert.equal(withHeader(large(4), (h) => VirtioNetHdr.gso_size.set(h, 0, 0)), null);
  assert.equal(withHeader(large(4), (h) => VirtioNetHdr.flags.set(h, 0, 0)), null);
  assert.equal(withHeader(large(4, null), (h) => VirtioNetHdr.csum_start.set(h, 0, 0xffff)), null);
  assert.equal(readFrame(new Uint8Array(23)), null);
});

test("a checksum within a tunnel, which no field of ours can say, is completed at once", () => {
  const inner = packet(4, 6, tcp(5, 6, 7, new Uint8Array(101).fill(9))), t = findTransport(inner)!;
  inner.set(be16(pseudoSum(inner, t, t.end - t.at)), t.checksumAt);
  const outer = packet(4, 17, udp(4789, 4789, bytesOf("0800000000002a00", inner))), at = outer.length - inner.length;
  const header = Uint8Array.of(1, 0, 0, 0, 0, 0, at + t.at, 0, 16, 0), frame = readFrame(bytesOf(header, outer))!;
  assert.deepEqual([frame.checksum, frame.bytes.length], ["unknown", outer.length]);
  assert.ok(isChecksumRight(frame.bytes.slice(at), t));
  assert.deepEqual(frame.bytes.slice(at), completed(offloaded(inner)).bytes);
});

test("no header makes anything but a frame or nothing", () => {
  const random = seeded(7), frames = [large(4), large(6), offloaded(packet(4, 17, udp(1, 2, random.bytes(50))))];
  for (let i = 0; i < 20_000; i++) {
    const { bytes } = random.pick(frames), given = bytesOf(random.bytes(10), bytes.subarray(0, 14 + random.below(100)));
    given[1] = random.below(6);
    const frame = readFrame(given);
    if (frame) assert.ok(headerOf(frame) || frame.gso, `round ${i}`);
  }
});
