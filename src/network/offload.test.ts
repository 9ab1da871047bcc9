import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { segment, suited } from "./offload.ts";
import type { Frame } from "./port.ts";

const PAYLOAD = Uint8Array.from({ length: 10_001 }, (_, i) => (i * 31) ^ (i >> 5));

/** A large TCP frame: options of 12 bytes, FIN, PSH, ACK and CWR set, sequence numbers about to wrap. */
function large(version: 4 | 6, mss: number): Frame {
  const ipBytes = version === 4 ? 20 : 40, tcpAt = 14 + ipBytes, bytes = new Uint8Array(tcpAt + 32 + PAYLOAD.length), view = new DataView(bytes.buffer);
  bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
  if (version === 4) {
    bytes.set([8, 0, 0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 93, 184, 216, 34], 12);
    view.setUint16(16, bytes.length - 14);
  } else {
    bytes.set([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64, 0xfd, 1], 12);
    bytes.set([0xfd, 2], 38);
    view.setUint16(18, bytes.length - 54);
  }
  view.setUint16(tcpAt, 40000);
  view.setUint16(tcpAt + 2, 80);
  view.setUint32(tcpAt + 4, 0xffff_f000);
  view.setUint32(tcpAt + 8, 77);
  bytes.set([0x80, 0x80 | 0x10 | 0x08 | 0x01, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], tcpAt + 12);
  bytes.set(PAYLOAD, tcpAt + 32);
  return { bytes, checksum: "blank", gso: { type: version === 4 ? "tcpv4" : "tcpv6", mss } };
}
/** classic pcap, little-endian, Ethernet */
function pcap(frames: readonly Frame[]): Uint8Array {
  const file = new Uint8Array(24 + frames.reduce((sum, f) => sum + 16 + f.bytes.length, 0)), view = new DataView(file.buffer);
  [0xa1b2c3d4, 0x0004_0002, 0, 0, 262144, 1].forEach((word, i) => { view.setUint32(i * 4, word, true); });
  let at = 24;
  for (const { bytes } of frames) {
    view.setUint32(at + 8, bytes.length, true);
    view.setUint32(at + 12, bytes.length, true);
    file.set(bytes, at + 16);
    at += 16 + bytes.length;
  }
  return file;
}

test("tshark finds the segments of large frames whole: checksums, sequence numbers, lengths, flags, payload", () => {
  const frames = [...segment(large(4, 1448)), ...segment(large(6, 1000))], folder = mkdtempSync(join(tmpdir(), "offload-"));
  try {
    writeFileSync(join(folder, "cut.pcap"), pcap(frames));
    const fields = ["ip.checksum.status", "tcp.checksum.status", "tcp.seq_raw", "tcp.len", "tcp.flags", "ip.id", "tcp.payload"];
    const rows = execFileSync("tshark", ["-r", join(folder, "cut.pcap"), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T", "fields",
      ...fields.flatMap((f) => ["-e", f])], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trimEnd().split("\n").map((row) => row.split("\t"));
    for (const [mss, cut, ipStatus] of [[1448, rows.slice(0, 7), "1"], [1000, rows.slice(7), ""]] as const) {
      assert.equal(cut.length, Math.ceil(PAYLOAD.length / mss));
      assert.equal(cut.map((r) => r[6]).join(""), Buffer.from(PAYLOAD).toString("hex"));
      cut.forEach((row, i) => {
        const isLast = i === cut.length - 1;
        assert.deepEqual(row.slice(0, 4), [ipStatus, "1", String((0xffff_f000 + i * mss) >>> 0), String(isLast ? PAYLOAD.length - i * mss : mss)]);
        assert.equal(Number(row[4]), 0x10 | (i === 0 ? 0x80 : 0) | (isLast ? 0x09 : 0));
        if (ipStatus) assert.equal(Number(row[5]), (0xffff + i) & 0xffff);
      });
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
test("a frame that is not what its gso says is lost, and one that needs no cut is one segment", () => {
  const frame = large(4, 1448), ofType = (gso: Frame["gso"], bytes = frame.bytes): Frame => ({ bytes, checksum: "blank", gso });
  const changed = (at: number, value: number) => {
    const bytes = frame.bytes.slice();
    bytes[at] = value;
    return ofType(frame.gso, bytes);
  };
  for (const bad of [ofType({ type: "tcpv6", mss: 1448 }), ofType({ type: "tcpv4", mss: 0 }), ofType({ type: "tcpv4", mss: 47 }), ofType({ type: "tcpv4", mss: Number.NaN }),
    changed(23, 17), changed(46, 0x40), changed(16, 0xff), ofType(frame.gso, frame.bytes.subarray(0, 50))]) assert.deepEqual(segment(bad), []);
  const one = segment(large(4, 20_000));
  assert.equal(one.length, 1);
  assert.deepEqual([one[0]!.checksum, one[0]!.gso, one[0]!.bytes.length], ["good", null, frame.bytes.length]);
});
test("a peer gets frames as it takes them", () => {
  const frame = large(4, 1448), small: Frame = { ...segment(frame)[0]!, checksum: "blank" };
  assert.deepEqual(suited(frame, { takesGso: true, takesBlankChecksum: true }), [frame]);
  assert.equal(suited(frame, { takesGso: false, takesBlankChecksum: true }).length, 7);
  assert.equal(suited(frame, { takesGso: true, takesBlankChecksum: false }).length, 7);
  assert.deepEqual(suited(small, { takesGso: true, takesBlankChecksum: true }), [small]);
  assert.equal(suited(small, { takesGso: true, takesBlankChecksum: false })[0]!.checksum, "good");
});
