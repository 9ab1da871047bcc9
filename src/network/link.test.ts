import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { type ByteConnection, connectionPair } from "../base/stream.ts";
import { Bridge } from "./bridge.ts";
import { ManualClock } from "./clock.ts";
import { arp, BROADCAST, ethernet, ipv4, macNr, offloaded, plain, seeded, tcp, TestEnd } from "./fixture.ts";
import { dialLink, listenForPeer, listenForPeers } from "./link.node.ts";
import { Link, type LinkOptions } from "./link.ts";
import { connect } from "./port.ts";

const dir = mkdtempSync(join(tmpdir(), "domus-link-"));
after(() => rmSync(dir, { recursive: true }));
const turn = () => new Promise<void>((resolve) => { setImmediate(resolve); });
/** Give others their turn until something is so. */
async function until(isSo: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 2000 && !isSo(); i++) await new Promise((resolve) => { setTimeout(resolve, i < 500 ? 0 : 5); });
  assert.ok(isSo(), what);
}
const header = ethernet(BROADCAST, macNr(1), 0x88b5, []);
const numbered = (nr: number, lengthBytes = 100) => {
  const bytes = new Uint8Array(lengthBytes);
  bytes.set(header);
  new DataView(bytes.buffer).setUint32(14, nr);
  return bytes;
};
const numberOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(14);
function pairOf(a: Partial<LinkOptions> = {}, b: Partial<LinkOptions> = {}) {
  const clock = new ManualClock(), said: string[] = [], [ca, cb] = connectionPair("machine a", "machine b"), common = { mode: "domus" as const, clock, log: (s: string) => said.push(s) };
  const la = new Link({ name: "la", ...common, ...a }), lb = new Link({ name: "lb", ...common, ...b }), ea = new TestEnd("ea", la), eb = new TestEnd("eb", lb);
  const overs = [la.accept(ca), lb.accept(cb)];
  return { clock, said, la, lb, ea, eb, ca, cb, overs, close: async () => { la.close(); lb.close(); await Promise.all(overs); } };
}

test("frames go over a link in order, and what is known of them with them", async () => {
  const { la, lb, ea, eb, close } = pairOf();
  Object.assign(eb, { takesGso: true, takesBlankChecksum: true });
  await until(() => la.takesGso && lb.takesBlankChecksum, "both said hello");
  const packet = ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 3, new Uint8Array(30_000)));
  const frames = [plain(numbered(1)), offloaded(numbered(2)), { ...plain(numbered(3)), checksum: "good" as const }, offloaded(ethernet(macNr(2), macNr(1), 0x0800, packet), { type: "tcpv4", mss: 1460 })];
  for (const frame of frames) assert.equal(la.receive(frame), true);
  eb.send(numbered(4));
  await until(() => eb.got.length === 4 && ea.got.length === 1, "all arrive");
  assert.deepEqual(eb.got, frames);
  assert.deepEqual([la.counters.txFrames, lb.counters.rxFrames, lb.counters.txBytes], [4, 4, 100]);
  await close();
});
test("a peer that takes no offloads gets cut and completed frames, and so does our own end", async () => {
  const { la, eb, close } = pairOf({}, { offers: { takesGso: false, takesBlankChecksum: false } }), other = pairOf();
  await until(() => la.peerName !== null && other.la.takesGso, "connected");
  const large = offloaded(ethernet(macNr(2), macNr(1), 0x0800, ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 3, new Uint8Array(3000)))), { type: "tcpv4", mss: 1460 });
  la.receive(large);
  other.la.receive(large);
  await until(() => eb.got.length === 3 && other.eb.got.length === 3, "three segments");
  for (const frame of [...eb.got, ...other.eb.got]) assert.equal(frame.gso ?? frame.checksum, "good");
  await close();
  await other.close();
});
test("an end without room holds the far sender up and loses nothing", async () => {
  const { la, ea, eb, lb, close } = pairOf();
  await until(() => la.peerName !== null && lb.peerName !== null, "connected");
  eb.room = 10;
  let nr = 0;
  const sendAll = () => { while (nr < 8000 && la.receive(plain(numbered(nr, 1000)))) nr++; };
  ea.onReady = sendAll;
  for (let i = 0; i < 50; i++) { sendAll(); await turn(); }
  assert.ok(nr < 5000, `${nr} frames are on their way to ten places`);
  while (eb.got.length < 8000) {
    eb.room = 997;
    lb.ready();
    await turn();
  }
  assert.deepEqual(eb.got.findIndex((frame, i) => numberOf(frame.bytes) !== i), -1);
  await close();
});
test("two bridges on two machines are one network, and a link's loss is a cable's", async () => {
  const { la, lb, ca, clock, overs, said } = pairOf(), one = new Bridge({ name: "one", clock }), two = new Bridge({ name: "two", clock });
  for (const [link, bridge] of [[la, one], [lb, two]] as const) { link.peer!.peer = null; link.peer = null; connect(link, bridge.attach({ name: "uplink", macsMax: 1000 })); }
  const a = new TestEnd("a", one.attach({ name: "a" })), b = new TestEnd("b", two.attach({ name: "b" }));
  await until(() => la.peerName !== null && lb.peerName !== null, "connected");
  a.send(ethernet(BROADCAST, macNr(1), 0x88b5));
  await until(() => b.got.length === 1, "the broadcast arrives");
  b.send(ethernet(macNr(1), macNr(2), 0x88b5));
  await until(() => a.got.length === 1, "the answer arrives");
  ca.close();
  await Promise.all(overs);
  assert.equal(a.send(ethernet(macNr(2), macNr(1), 0x88b5)), true);
  assert.deepEqual([la.counters.lost, la.peerName, said.length], [1, null, 4]);
  la.close();
  lb.close();
});
test("a peer that is silent is given up, one that says it lives is not", async () => {
  const { clock, la, said, close } = pairOf();
  await until(() => la.peerName !== null, "connected");
  for (let i = 0; i < 10; i++) { clock.advance(5000); await turn(); await turn(); }
  assert.equal(la.peerName, "machine b");
  const silent = new Link({ name: "silent", mode: "domus", clock, log: (s) => said.push(s) }), [mine] = connectionPair("x", "a mute peer"), over = silent.accept(mine);
  for (let i = 0; i < 3; i++) { clock.advance(5000); await turn(); }
  await over;
  assert.match(said.at(-1)!, /link silent: .* said nothing for 15 s/);
  await close();
  assert.equal(clock.nrWaiting, 0);
});
test("a link that dials does so until it finds its peer, waits longer each time, and finds it again", async () => {
  const clock = new ManualClock(), said: string[] = [], triesMs: number[] = [];
  let far: Link | null = null;
  const dialling = new Link({ name: "l", mode: "domus", clock, log: (s) => said.push(s), dial: () => {
    triesMs.push(clock.nowMs());
    if (!far) return Promise.reject(new Error("Cannot connect to there: refused"));
    const [mine, theirs] = connectionPair("here", "there");
    void far.accept(theirs);
    return Promise.resolve(mine);
  } });
  await turn();
  for (let i = 0; i < 600; i++) { clock.advance(50); await turn(); }
  assert.deepEqual(triesMs, [0, 250, 750, 1750, 3750, 7750, 15_750, 25_750]);
  assert.deepEqual(said, ["link l: Cannot connect to there: refused"]);
  far = new Link({ name: "far", mode: "domus", clock });
  for (let i = 0; i < 100 && !dialling.peerName; i++) { clock.advance(100); await turn(); }
  far.close();
  far = new Link({ name: "far", mode: "domus", clock });
  const lostMs = clock.nowMs();
  await until(() => dialling.peerName === null, "lost");
  for (let i = 0; i < 10 && !dialling.peerName; i++) { clock.advance(100); await turn(); }
  assert.ok(clock.nowMs() - lostMs <= 500);
  assert.equal(dialling.counters.connections, 2);
  dialling.close();
  far.close();
  await turn();
  assert.equal(clock.nrWaiting, 0);
});
test("a second peer takes the first one's place when it has said hello, not before", async () => {
  const { la, ea, lb, close, clock, overs } = pairOf();
  await until(() => la.peerName === "machine b", "connected");
  const crowd = Array.from({ length: 20 }, (_, i) => connectionPair("x", `stranger ${i}`)), waits = crowd.map(([mine]) => la.accept(mine));
  for (let i = 0; i < 5; i++) await turn();
  assert.equal(la.peerName, "machine b");
  await Promise.all(waits.slice(7));
  for (const [mine] of crowd) mine.close();
  await Promise.all(waits);
  const [mine, theirs] = connectionPair("x", "machine c"), third = new Link({ name: "lc", mode: "domus", clock }), ec = new TestEnd("ec", third), over = [la.accept(mine), third.accept(theirs)];
  await until(() => la.peerName === "machine c" && third.peerName !== null, "replaced");
  await Promise.all(overs);
  assert.equal(lb.peerName, null);
  ec.send(numbered(7));
  await until(() => ea.got.length === 1, "arrives");
  third.close();
  await close();
  await Promise.all(over);
});

const hello = "444f4d5553 4c4e4b 0001 0003 00000000".replaceAll(" ", "");
const evils: [string, string, RegExp][] = [
  ["another protocol", Buffer.from("GET / HTTP/1.1\r\n\r\n").toString("hex"), /does not say hello/], ["version 0", hello.replace("00010003", "00000003"), /speaks version 0/],
  ["a huge frame", hello + "ffffffff00000000", /announces a frame of 4294967295 bytes/], ["a kind that is none", hello + "0000000002000000", /kind 2/],
  ["an alive with a body", hello + "00000001010000000a", /kind 1/], ["a checksum that is none", hello + "0000000000030000", /offload 3/], ["a gso that is none", hello + "00000000000d0000", /offload 13/],
  ["gso with a good checksum", hello + "00000000000605b4", /large frame/], ["an end", "", /ended the connection/], ["half a record", hello + "0000006400", /ended the connection/],
];
for (const [what, bytes, says] of evils) {
  test(`a peer that sends ${what} is hung up on with a sentence`, async () => {
    const said: string[] = [], link = new Link({ name: "l", mode: "domus", log: (s) => said.push(s) }), [mine, theirs] = connectionPair("me", "the peer");
    void theirs.write(Buffer.from(bytes, "hex"));
    const over = link.accept(mine);
    theirs.close();
    await over;
    assert.match(said.at(-1)!, says);
    assert.match(said.at(-1)!, /^link l: the peer /);
    link.close();
  });
}
test("what was not offered is not taken", async () => {
  for (const record of ["00000000000505b4", "0000000000010000"]) {
    const said: string[] = [], link = new Link({ name: "l", mode: "domus", log: (s) => said.push(s), offers: { takesGso: false, takesBlankChecksum: false } }), [mine, theirs] = connectionPair("me", "the peer");
    void theirs.write(Buffer.from(hello + record, "hex"));
    await link.accept(mine);
    assert.match(said.at(-1)!, /was not offered/);
    link.close();
  }
});
test("bytes without sense, in pieces of any size, end the connection and nothing else", async () => {
  const random = seeded(5), bridge = new Bridge({ name: "b" });
  for (let i = 0; i < 300; i++) {
    const mode = random.pick(["domus", "qemu"] as const), link = new Link({ name: `l${i}`, mode }), [mine, theirs] = connectionPair("me", "the peer"), port = bridge.attach({ name: `p${i}` });
    connect(link, port);
    if (mode === "domus") void theirs.write(Buffer.from(hello, "hex"));
    for (let j = 0; j < 20; j++) {
      const bytes = random.bytes(1 + random.below(60));
      if (random.below(2)) bytes.set([0, 0, 0, random.below(80), 0, random.below(7)].slice(0, bytes.length));
      void theirs.write(bytes).catch(() => {});
    }
    const over = link.accept(mine);
    theirs.close();
    await over;
    link.close();
    port.detach();
  }
});

test("links go over TCP and Unix sockets and come back after a loss; 15 MB each arrive whole", async () => {
  for (const at of [{ host: "127.0.0.1", port: 0 }, { path: join(dir, "link.sock") }]) {
    const far = new Link({ name: "far", mode: "domus" }), farEnd = new TestEnd("far end", far), listener = await listenForPeer(at, far);
    const near = dialLink(listener.address, { name: "near", mode: "domus" }), nearEnd = new TestEnd("near end", near);
    await until(() => near.takesGso && far.takesGso, "connected");
    let nr = 0;
    const sendAll = () => { while (nr < 10_000 && near.receive(plain(numbered(nr, 1514)))) nr++; };
    nearEnd.onReady = sendAll;
    sendAll();
    await until(() => farEnd.got.length === 10_000, "all arrive");
    assert.equal(farEnd.got.findIndex((frame, i) => frame.bytes.length !== 1514 || numberOf(frame.bytes) !== i), -1);
    near.close();
    far.close();
    await listener.close();
  }
});

/** Answers of QEMU's own network to who asks for its gateway. */
async function asks(end: TestEnd, net: number): Promise<void> {
  const question = ethernet(BROADCAST, macNr(net), 0x0806, arp(1, macNr(net), `10.0.${net}.20`, `10.0.${net}.2`));
  for (let i = 0; i < 100 && end.got.length === 0; i++) {
    end.send(question);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  const answer = end.got.find((frame) => frame.bytes[21] === 2);
  assert.ok(answer, `QEMU's network ${net} answers`);
  // Sender: the gateway; target: we.
  assert.deepEqual([[...answer.bytes.subarray(28, 32)], [...answer.bytes.subarray(38, 42)]], [[10, 0, net, 2], [10, 0, net, 20]]);
}
test("QEMU joins a bridge by -netdev stream and by -netdev socket, and is joined where it listens", async () => {
  const bridge = new Bridge({ name: "xenbr0" }), end = new TestEnd("end", bridge.attach({ name: "end" }));
  const attach = (name: string) => bridge.attach({ name }), detach = (port: { name: string }) => bridge.ports.find((p) => p === port)?.detach();
  const unix = await listenForPeers({ path: join(dir, "qemu.sock") }, { name: "unix", mode: "qemu" }, attach, detach);
  const tcpListener = await listenForPeers({ host: "127.0.0.1", port: 0 }, { name: "tcp", mode: "qemu" }, attach, detach);
  const hub = (nr: number) => ["-netdev", `hubport,id=h${nr},hubid=${nr},netdev=s${nr}`, "-netdev", `user,id=u${nr},restrict=on,net=10.0.${nr}.0/24`, "-netdev", `hubport,id=g${nr},hubid=${nr},netdev=u${nr}`];
  const qemu: ChildProcess = spawn("qemu-system-x86_64", ["-M", "none", "-nodefaults", "-display", "none",
    "-netdev", `stream,id=s1,server=off,addr.type=unix,addr.path=${join(dir, "qemu.sock")}`, ...hub(1),
    "-netdev", `socket,id=s2,connect=127.0.0.1:${(tcpListener.address as { port: number }).port}`, ...hub(2),
    "-netdev", `stream,id=s3,server=on,addr.type=unix,addr.path=${join(dir, "listens.sock")}`, ...hub(3)], { stdio: ["ignore", "ignore", "pipe"] });
  let complaints = "";
  qemu.stderr!.on("data", (b: Buffer) => { complaints += b; });
  const gone = new Promise<void>((resolve) => { qemu.once("exit", () => resolve()); });
  const dialling = dialLink({ path: join(dir, "listens.sock") }, { name: "to qemu", mode: "qemu" });
  connect(dialling, bridge.attach({ name: "dialled" }));
  try {
    await until(() => unix.links.size === 1 && tcpListener.links.size === 1 && dialling.peerName !== null, `QEMU connects ${complaints}`);
    for (const net of [1, 2, 3]) { await asks(end, net); end.got = []; }
    assert.deepEqual(bridge.ports.map((port) => port.counters.rxFrames > 0), [true, true, true, true]);
  } finally {
    qemu.kill("SIGKILL");
    await gone;
    dialling.close();
    await Promise.all([unix.close(), tcpListener.close()]);
  }
  await until(() => bridge.ports.length === 2, "its ports are gone");
  assert.ok(bridge.ports.every((port) => port.name === "end" || port.peer === null));
});
test("a connection that fails while it is written is a loss", async () => {
  const said: string[] = [], link = new Link({ name: "l", mode: "qemu", log: (s) => said.push(s) });
  const broken: ByteConnection = { peerName: "there", read: () => new Promise(() => {}), write: () => Promise.reject(new Error("The connection to there failed: EPIPE")), close() {} };
  void link.accept(broken);
  new TestEnd("e", link).send(numbered(1));
  await until(() => link.peerName === null, "lost");
  assert.deepEqual(said, ["link l: connected with there", "link l: The connection to there failed: EPIPE"]);
  link.close();
});
