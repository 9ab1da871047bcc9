import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Bridge } from "./bridge.ts";
import { captureToFile } from "./capture.node.ts";
import { capture, type CaptureSink } from "./capture.ts";
import { BROADCAST, ethernet, ipv4, macNr, offloaded, seeded, tcp, TestEnd, udp } from "./fixture.ts";
import { interfaceBlock, packetBlock, sectionBlock, statisticsBlock } from "./pcapng.ts";
import { connect, disconnect } from "./port.ts";

const dir = mkdtempSync(join(tmpdir(), "domus-capture-"));
after(() => rmSync(dir, { recursive: true }));
let nrFiles = 0;
const fileName = () => join(dir, `${nrFiles++}.pcapng`);
/** What tshark reads in a file: a row for each packet, with these fields. */
const tshark = (path: string, ...fields: string[]): string[][] =>
  execFileSync("tshark", ["-n", "-r", path, "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-T", "fields", "-E", "separator=|", ...fields.flatMap((f) => ["-e", f])], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
    .split("\n").slice(0, -1).map((row) => row.split("|"));
const capinfos = (path: string): string => execFileSync("capinfos", ["-M", path], { encoding: "utf8", env: { ...process.env, LC_ALL: "C" } });
/** A sink that remembers, and takes bytes only when it is let. */
function slowSink(): CaptureSink & { chunks: Uint8Array[]; isClosed: boolean; go: () => void; hold: () => void } {
  let gate = Promise.resolve(), open = () => {};
  return {
    chunks: [], isClosed: false,
    async write(bytes) { await gate; this.chunks.push(bytes); },
    async close() { this.isClosed = true; },
    hold() { gate = new Promise((resolve) => { open = resolve; }); },
    go() { open(); },
  };
}
const written = (sink: { chunks: Uint8Array[] }): string => {
  const path = fileName();
  writeFileSync(path, Buffer.concat(sink.chunks));
  return path;
};
const frame = (from: number, to: string = BROADCAST, lengthBytes = 60) => ethernet(to, macNr(from), 0x88b5, new Uint8Array(lengthBytes - 14));

test("tshark reads every block: names, times to the nanosecond, lengths, direction, comments, losses", () => {
  const path = fileName(), bytes = frame(1, BROADCAST, 101), timeNs = 1_700_000_000_123_456_789n;
  writeFileSync(path, Buffer.concat([
    sectionBlock("Domus", "of a test"), interfaceBlock("vif3.0", 64), interfaceBlock("ütlü", 0),
    packetBlock({ interfaceNr: 0, timeNs, bytes: bytes.subarray(0, 64), lengthBytes: 101, direction: "in", comment: "dropped: ip", nrDropped: 5 }),
    packetBlock({ interfaceNr: 1, timeNs: timeNs + 1n, bytes, lengthBytes: 101, direction: "out", comment: "ü".repeat(5000) }),
    packetBlock({ interfaceNr: 1, timeNs: timeNs + 2n, bytes, lengthBytes: 101 }), statisticsBlock(0, timeNs, timeNs + 9n, 6, 5),
  ]));
  assert.deepEqual(tshark(path, "frame.interface_name", "frame.time_epoch", "frame.len", "frame.cap_len", "frame.packet_flags_direction", "frame.comment", "eth.src", "frame.drop_count"), [
    ["vif3.0", "1700000000.123456789", "101", "64", "0x00000001", "dropped: ip", macNr(1), "5"],
    ["ütlü", "1700000000.123456790", "101", "101", "0x00000002", "ü".repeat(500), macNr(1), ""],
    ["ütlü", "1700000000.123456791", "101", "101", "", "", macNr(1), ""],
  ]);
  const infos = capinfos(path);
  for (const line of [/Capture application: +Domus/, /Capture comment: +of a test/, /Number of interfaces in file: 2/, /Name = vif3.0/, /Time precision = nanoseconds/, /Number of stat entries = 1/]) assert.match(infos, line);
});
test("a bridge's capture holds each frame once, where it entered, with why it was dropped, and answers behind questions", async () => {
  const bridge = new Bridge({ name: "xenbr0" }), a = new TestEnd("a", bridge.attach({ name: "vif1.0", macs: [macNr(1)] })), b = new TestEnd("b", bridge.attach({ name: "vif2.0" }));
  const path = fileName(), made = await captureToFile(bridge, path);
  b.onFrame = () => { b.send(frame(2, macNr(1), 70)); };
  a.send(frame(1));
  a.send(frame(9, BROADCAST, 80));
  new TestEnd("c", bridge.attach({ name: "vif3.0" })).send(frame(3, macNr(1), 90));
  a.room = 0;
  assert.equal(b.send(frame(2, macNr(1), 99)), false);
  assert.equal(await made.stop(), null);
  a.room = 9;
  a.send(frame(1));
  assert.deepEqual(tshark(path, "frame.interface_name", "frame.len", "frame.comment"), [["vif1.0", "60", ""], ["vif2.0", "70", ""], ["vif1.0", "80", "dropped: mac"], ["vif3.0", "90", ""]]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(made.counters, { nrFrames: 4, nrDropped: 0 });
});
test("a cable's capture holds both directions, completes blank checksums, leaves large frames large, and comes out again", async () => {
  const a = new TestEnd("vif1.0"), b = new TestEnd("nat");
  connect(a, b);
  Object.assign(b, { takesGso: true, takesBlankChecksum: true });
  const path = fileName(), made = await captureToFile(a, path, { snapLenBytes: 96 });
  assert.deepEqual([a.peer!.name, a.peer!.takesGso, b.peer!.name, b.peer!.takesGso], ["nat", true, "vif1.0", false]);
  const question = offloaded(ethernet(macNr(2), macNr(1), 0x0800, ipv4("10.0.0.1", "10.0.0.2", 17, udp(5000, 6000, new Uint8Array(30).fill(3)))));
  const large = offloaded(ethernet(macNr(2), macNr(1), 0x0800, ipv4("10.0.0.1", "10.0.0.2", 6, tcp(5000, 6000, 1, new Uint8Array(40_000)))), { type: "tcpv4", mss: 1460 });
  assert.deepEqual([a.peer!.receive(question), a.peer!.receive(large), b.send(frame(2))], [true, true, true]);
  a.room = 0;
  assert.equal(b.send(frame(2)), false);
  a.peer!.ready();
  assert.deepEqual([b.nrReady, b.got[0] === question, b.got[1] === large, a.got.length], [1, true, true, 1]);
  assert.equal(await made.stop(), null);
  assert.deepEqual([a.peer === b, b.peer === a], [true, true]);
  assert.deepEqual(tshark(path, "frame.packet_flags_direction", "frame.len", "frame.cap_len", "udp.checksum.status", "eth.type"),
    [["0x00000002", "72", "72", "1", "0x0800"], ["0x00000002", "40054", "96", "", "0x0800"], ["0x00000001", "60", "60", "", "0x88b5"]]);
});
test("a cable that is pulled out while it is captured is out at both ends", async () => {
  for (const puller of [0, 1]) {
    const a = new TestEnd("a"), b = new TestEnd("b"), sink = slowSink();
    connect(a, b);
    const made = capture(a, sink);
    disconnect([a, b][puller]!);
    assert.deepEqual([a.peer, b.peer, [b, a][puller]!.nrReady], [null, null, 1]);
    connect(a, new TestEnd("c"));
    assert.equal(await made.stop(), null);
    assert.equal(a.peer!.name, "c");
  }
});
test("two captures of one cable may end in any order", async () => {
  const a = new TestEnd("a"), b = new TestEnd("b"), sinks = [slowSink(), slowSink()];
  connect(a, b);
  const [first, second] = sinks.map((sink) => capture(a, sink));
  a.send(frame(1));
  await first!.stop();
  a.send(frame(1));
  b.send(frame(2));
  await second!.stop();
  a.send(frame(1));
  assert.deepEqual([b.got.length, a.got.length, ...sinks.map((sink) => tshark(written(sink), "frame.len").length)], [3, 1, 1, 3]);
});
test("a slow sink loses frames of the capture, not of the cable, and the file says how many", async () => {
  const a = new TestEnd("a"), b = new TestEnd("b"), sink = slowSink();
  connect(a, b);
  sink.hold();
  const made = capture(a, sink, { queueBytesMax: 10_000 });
  for (let i = 0; i < 100; i++) assert.equal(a.send(frame(1, BROADCAST, 1000)), true);
  sink.go();
  await new Promise((resolve) => setTimeout(resolve, 5));
  a.send(frame(2));
  await made.stop();
  assert.deepEqual([b.got.length, made.counters], [101, { nrFrames: 9, nrDropped: 92 }]);
  assert.deepEqual(tshark(written(sink), "frame.drop_count").flat(), ["", "", "", "", "", "", "", "", "92"]);
});
test("a sink that fails ends the capture and nothing else", async () => {
  const a = new TestEnd("a"), b = new TestEnd("b");
  connect(a, b);
  const made = capture(a, { write: () => Promise.reject(new Error("the disk is full")), close: async () => {} });
  assert.equal((await made.ended)?.message, "the disk is full");
  assert.deepEqual([a.peer === b, a.send(frame(1)), (await made.stop())?.message], [true, true, "the disk is full"]);
});
test("a filter that throws ends the capture and nothing else", async () => {
  const a = new TestEnd("a"), b = new TestEnd("b"), sink = slowSink();
  connect(a, b);
  const made = capture(a, sink, { filter: () => { throw new Error("no such field"); } });
  assert.equal(a.send(frame(1)), true);
  assert.deepEqual([(await made.ended)?.message, b.got.length, a.peer === b, sink.isClosed], ["no such field", 1, true, true]);
});
test("a capture stops before its file grows too large, and the file is whole", async () => {
  const bridge = new Bridge({ name: "b" }), a = new TestEnd("a", bridge.attach({ name: "p" })), path = fileName();
  const made = await captureToFile(bridge, path, { fileBytesMax: 5000 });
  for (let i = 0; i < 20; i++) a.send(frame(1, BROADCAST, 1000));
  assert.equal(await made.ended, null);
  assert.ok(statSync(path).size <= 5000);
  assert.equal(tshark(path, "frame.len").length, 4);
});
test("a filter decides which frames are kept; a port without cable has nothing to capture", async () => {
  const bridge = new Bridge({ name: "b" }), a = new TestEnd("a", bridge.attach({ name: "p" })), sink = slowSink();
  const made = capture(bridge, sink, { filter: (f, name) => name === "p" && f.bytes.length > 70 });
  a.send(frame(1));
  a.send(frame(1, BROADCAST, 71));
  await made.stop();
  assert.deepEqual(tshark(written(sink), "frame.len"), [["71"]]);
  await assert.rejects(captureToFile(new TestEnd("x"), fileName()), /Port x has no cable/);
});
test("frames without sense go through bridge, guards, offloads and captures without a fault", async () => {
  const random = seeded(3), bridge = new Bridge({ name: "b" }), sink = slowSink(), made = capture(bridge, sink, { snapLenBytes: 128 });
  const ends = [{}, { vlan: { trunk: "all" as const, native: 0 } }, { macs: [macNr(1)], ips: ["10.0.0.1", "fe80::1"] }, { isolated: true }, { vlan: { access: 7 } }].map((options, i) => {
    const end = new TestEnd(`e${i}`, bridge.attach({ name: `p${i}`, ...options }));
    return Object.assign(end, { takesGso: random.below(2) === 0, takesBlankChecksum: random.below(2) === 0 });
  });
  const cable = capture(ends[1]!, slowSink());
  const real = [ethernet(macNr(2), macNr(1), 0x0800, ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 3, new Uint8Array(300)))), ethernet(BROADCAST, macNr(3), 0x0800, ipv4("10.0.0.1", "10.0.0.2", 17, udp(68, 67, new Uint8Array(40))), [7, 9])];
  for (let i = 0; i < 5000; i++) {
    const bytes = random.below(2) ? random.bytes(random.below(120)) : random.pick(real).slice(0, 20 + random.below(300));
    for (let n = random.below(4); n > 0; n--) if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
    if (bytes.length > 14) bytes[6]! &= 0xfe;
    const gso = random.below(3) === 0 ? { type: random.pick(["tcpv4", "tcpv6"] as const), mss: random.pick([0, 1, 47, 48, 100, 1460, 9000, NaN]) } : null;
    for (const end of ends) end.room = random.below(8) === 0 ? 0 : Infinity;
    random.pick(ends).peer!.receive({ bytes, gso, checksum: gso ? "blank" : random.pick(["unknown", "blank", "good"] as const) });
    if (random.below(8) === 0) for (const port of bridge.ports) port.ready();
  }
  assert.deepEqual([await made.stop(), await cable.stop()], [null, null]);
  assert.equal(tshark(written(sink), "frame.len").length, made.counters.nrFrames);
  bridge.close();
});
