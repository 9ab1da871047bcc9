import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { createConnection, createServer, type Server } from "node:net";
import { after, test } from "node:test";
import { UserError } from "../base/errors.ts";
import { ERRNO, type FdWatch, type Libc, loadLibc } from "../base/libc.node.ts";
import { Bridge } from "./bridge.ts";
import { checksumOf, completed, findTransport, isChecksumRight, pseudoSum } from "./checksum.ts";
import { arp, be16, BROADCAST, bytesOf, ethernet, ipv4, macNr, offloaded, plain, tcp, TestEnd, udp } from "./fixture.ts";
import { connect, type Frame, type Port } from "./port.ts";
import { openTap, Tap, type TapOptions } from "./tap.node.ts";

/** These tests make interfaces, in network namespaces of their own: the main thread moves into new ones, and the computer's own is never touched. */
const CLONE_NEWNET = 0x4000_0000, NOBODY = 65534, libc = loadLibc("The test"), spaces: number[] = [];
const isAllowed = process.getuid?.() === 0 && libc.unshare(CLONE_NEWNET) === 0;
const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
const [first, second] = isAllowed ? [newSpace(), newSpace()] : [-1, -1];
after(() => { for (const fd of spaces) closeSync(fd); });

function newSpace(): number {
  assert.equal(libc.unshare(CLONE_NEWNET), 0, `a network namespace cannot be had: error ${libc.errno()}`);
  ip("link", "set", "lo", "up");
  const fd = openSync("/proc/thread-self/ns/net", "r");
  spaces.push(fd);
  return fd;
}
/** What is opened and started from here on belongs to that namespace. */
const enter = (space: number): void => assert.equal(libc.setns(space, CLONE_NEWNET), 0);
const linkOf = (name: string): { address: string; mtu: number; flags: string[]; master?: string } => JSON.parse(ip("-json", "link", "show", "dev", name))[0];
const links = (): string[] => (JSON.parse(ip("-json", "link", "show")) as { ifname: string }[]).map((link) => link.ifname).sort();
/** Give others their turn until something is so. */
async function until(isSo: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 2000 && !isSo(); i++) await new Promise((resolve) => { setTimeout(resolve, i < 500 ? 0 : 5); });
  assert.ok(isSo(), what);
}
const typeOf = ({ bytes }: Frame): number => (bytes[12]! << 8) | bytes[13]!;
const MAC = macNr(2), TEST_TYPE = 0x88b5;
/** A TAP with addresses for the kernel, and somebody at its other end whose address the kernel knows. */
function tapWithEnd(options: TapOptions): { tap: Tap; end: TestEnd; mac: string } {
  const tap = openTap(options), end = new TestEnd("end", tap);
  ip("addr", "add", "10.77.0.1/24", "dev", tap.name);
  ip("neigh", "add", "10.77.0.2", "lladdr", MAC, "dev", tap.name);
  return { tap, end, mac: linkOf(tap.name).address };
}

if (!isAllowed) {
  test("without the right to a network namespace, all that can be seen of TAPs is that they are refused", (t) => {
    t.diagnostic(`TAPs were not tried: a network namespace wants root with CAP_SYS_ADMIN, and this is user ${process.getuid?.()} without`);
    const remedy = /^\/dev\/net\/tun(?:: permission denied.*; run as root or make the interface first: ip tuntap add dev domustest0 mode tap user | does not exist; load the kernel's module: modprobe tun)/;
    assert.throws(() => openTap({ name: "domustest0" }), { name: "UserError", message: remedy });
  });
} else {
  test("the host's kernel answers ARP and pings through the port, and closing leaves neither interface nor descriptor nor thread", async () => {
    enter(first);
    const threads = readdirSync("/proc/self/task").length, { tap, end, mac } = tapWithEnd({ name: "t0", mtuBytes: 1400 });
    assert.deepEqual([linkOf("t0").mtu, linkOf("t0").flags.includes("UP"), tap.isOpen], [1400, true, true]);
    end.send(ethernet(BROADCAST, macNr(3), 0x0806, arp(1, macNr(3), "10.77.0.3", "10.77.0.1")));
    await until(() => end.got.some((frame) => typeOf(frame) === 0x0806), "the kernel answers who it is");
    const answer = end.got.find((frame) => typeOf(frame) === 0x0806)!.bytes;
    assert.deepEqual([answer.subarray(0, 6), answer[21], answer.subarray(22, 28)].map((x) => x instanceof Uint8Array ? x.toHex() : x), [macNr(3).replaceAll(":", ""), 2, mac.replaceAll(":", "")]);
    const echo = bytesOf("0800", 0, 0, be16(7), be16(1), new Uint8Array(500).fill(0x61));
    echo.set(be16(checksumOf(echo, 0, echo.length)), 2);
    end.send(ethernet(mac, macNr(3), 0x0800, ipv4("10.77.0.3", "10.77.0.1", 1, echo)));
    await until(() => end.got.some((frame) => typeOf(frame) === 0x0800), "the kernel answers a ping");
    const { bytes } = end.got.find((frame) => typeOf(frame) === 0x0800)!;
    assert.deepEqual([bytes[34], bytes.subarray(38).toHex()], [0, echo.subarray(4).toHex()]);
    assert.equal(readdirSync("/proc/self/task").length, threads, "nobody waits in a thread");
    tap.close();
    tap.close();
    assert.deepEqual([links(), end.peer, tap.isOpen], [["lo"], null, false]);
    assert.equal(readdirSync("/proc/self/fd").filter((fd) => { try { return readlinkSync(`/proc/self/fd/${fd}`) === "/dev/net/tun"; } catch { return false; } }).length, 0);
    assert.deepEqual([tap.receive(plain(bytes)), tap.counters.lost], [true, 1]);
  });

  test("checksums may be left blank both ways: the kernel completes ours and tells which are its own", async () => {
    enter(first);
    const { tap, end, mac } = tapWithEnd({ name: "t1" }), socket = createSocket("udp4"), said: string[] = [];
    socket.bind(7000, "10.77.0.1");
    await once(socket, "listening");
    socket.on("message", (bytes) => said.push(bytes.toString()));
    const send = (text: string, change: (bytes: Uint8Array<ArrayBuffer>) => Frame): void => {
      const bytes = ethernet(mac, MAC, 0x0800, ipv4("10.77.0.2", "10.77.0.1", 17, udp(7001, 7000, new TextEncoder().encode(text)))), t = findTransport(bytes)!;
      bytes.set(be16(pseudoSum(bytes, t, t.end - t.at)), t.checksumAt);
      assert.equal(end.peer!.receive(change(bytes)), true);
    };
    send("wrong", plain);
    send("completed", (bytes) => completed(offloaded(bytes)));
    send("blank", offloaded);
    await until(() => said.length >= 2, "datagrams arrive");
    assert.deepEqual(said, ["completed", "blank"], "a wrong checksum is refused");
    end.takesBlankChecksum = true;
    const answered = (): Frame | undefined => end.got.findLast((frame) => typeOf(frame) === 0x0800);
    socket.send("answer", 7001, "10.77.0.2");
    await until(() => answered() !== undefined, "an answer");
    assert.equal(answered()!.checksum, "blank");
    end.got = [];
    end.takesBlankChecksum = false;
    socket.send("answer", 7001, "10.77.0.2");
    await until(() => answered() !== undefined, "another");
    assert.deepEqual([answered()!.checksum, isChecksumRight(answered()!.bytes, findTransport(answered()!.bytes)!)], ["good", true]);
    socket.close();
    tap.close();
  });

  test("what the other end has no room for waits, in order, and the kernel's queue behind it", async () => {
    enter(first);
    const { tap, end } = tapWithEnd({ name: "t2" }), socket = createSocket("udp4");
    socket.bind(0, "10.77.0.1");
    await once(socket, "listening");
    const texts = (): string[] => end.got.filter((frame) => typeOf(frame) === 0x0800).map(({ bytes }) => new TextDecoder().decode(bytes.subarray(42)));
    end.room = 0;
    for (let i = 0; i < 200; i++) socket.send(`${i}`, 7001, "10.77.0.2");
    await until(() => tap.counters.rxFrames === 1, "the first is held");
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => { setImmediate(resolve); });
    assert.deepEqual([tap.counters.rxFrames, end.got.length], [1, 0]);
    for (end.room = 3; texts().length < 200; end.room = 50) {
      const before = end.got.length;
      tap.ready();
      await until(() => end.got.length > before, "more arrives");
    }
    assert.deepEqual(texts(), Array.from({ length: 200 }, (_, i) => `${i}`));
    socket.close();
    tap.close();
  });

  /** Two kernels, each with its end of one cable between them that is ours. */
  const pairOf = (names: readonly [string, string]): readonly [Tap, Tap] => {
    const taps = ([[first, names[0], 1], [second, names[1], 2]] as const).map(([space, name, nr]) => {
      enter(space);
      const tap = openTap({ name, mtuBytes: 1500 });
      ip("addr", "add", `10.78.0.${nr}/24`, "dev", name);
      ip("-6", "addr", "add", `fd00:78::${nr}/64`, "dev", name, "nodad");
      return tap;
    });
    return [taps[0]!, taps[1]!];
  };
  /** Their kernels' count of TCP packets with a wrong checksum. */
  const wrong = (): number => [first, second].reduce((sum, space) => {
    enter(space);
    const [names, values] = readFileSync("/proc/thread-self/net/snmp", "utf8").split("\n").filter((row) => row.startsWith("Tcp:")).map((row) => row.split(" "));
    return sum + Number(values![names!.indexOf("InCsumErrors")]);
  }, 0);
  /** A server in one namespace that sends back what a client in the other sends. @returns whether it came back whole */
  const exchange = async (host: string, nrBytes: number): Promise<boolean> => {
    enter(second);
    const server: Server = createServer((socket) => { socket.pipe(socket); });
    server.listen(7000, host);
    await once(server, "listening");
    enter(first);
    const client = createConnection(7000, host), given = Buffer.alloc(nrBytes, "abcdefghijklm"), got: Buffer[] = [];
    await once(client, "connect");
    client.on("data", (bytes: Buffer) => got.push(bytes));
    client.end(given);
    await once(client, "close");
    server.close();
    return Buffer.concat(got).equals(given);
  };

  test("two kernels speak TCP through our bridge with large frames and blank checksums, over IPv4 and IPv6", async () => {
    const [a, b] = pairOf(["t3", "t4"]), bridge = new Bridge({ name: "xenbr0" }), seen: Record<string, number> = {};
    for (const tap of [a, b]) connect(bridge.attach({ name: tap.name }), tap);
    bridge.tap((port, { gso, checksum }) => {
      const what = `${port.name} ${gso?.type ?? checksum}`;
      seen[what] = (seen[what] ?? 0) + 1;
      return () => {};
    });
    for (const host of ["10.78.0.2", "fd00:78::2"]) assert.equal(await exchange(host, 3_000_000), true, host);
    for (const what of ["t3 tcpv4", "t4 tcpv4", "t3 tcpv6", "t4 tcpv6", "t3 blank", "t4 blank"]) assert.ok(seen[what]! > 5, `${what}: ${JSON.stringify(seen)}`);
    assert.deepEqual([a.counters.lost + b.counters.lost, wrong()], [0, 0], JSON.stringify([a.counters, b.counters]));
    for (const tap of [a, b]) tap.close();
  });

  test("who takes no large frames gets them cut, with checksums that a kernel accepts", async () => {
    const [a, b] = pairOf(["t5", "t6"]), sizes = new Set<number>();
    const relay = (to: Tap): Port => {
      const near: Port = { name: "plain", takesGso: false, takesBlankChecksum: false, peer: null, ready: () => { to.ready(); }, receive: (frame) => {
        assert.deepEqual([frame.gso, frame.checksum === "blank"], [null, false]);
        sizes.add(frame.bytes.length);
        return to.receive(frame);
      } };
      return near;
    };
    connect(a, relay(b));
    connect(b, relay(a));
    for (const host of ["10.78.0.2", "fd00:78::2"]) assert.equal(await exchange(host, 1_000_000), true, host);
    assert.deepEqual([Math.max(...sizes), a.counters.lost + b.counters.lost, wrong()], [1514, 0, 0]);
    for (const tap of [a, b]) tap.close();
  });

  test("two TAPs in a bridge of the host's reach each other through it, and stay in it where they were made beforehand", async () => {
    enter(second);
    ip("link", "add", "br0", "type", "bridge", "stp_state", "0");
    ip("link", "set", "br0", "up");
    ip("tuntap", "add", "dev", "t8", "mode", "tap");
    const open = () => ["t7", "t8"].map((name) => openTap({ name, mtuBytes: 1500, bridge: "br0" }));
    for (let round = 0; round < 2; round++) {
      const taps = open(), [a, b] = taps.map((tap) => Object.assign(new TestEnd(tap.name, tap), { takesGso: true, takesBlankChecksum: true }));
      assert.deepEqual(["t7", "t8"].map((name) => linkOf(name).master), ["br0", "br0"]);
      const large = offloaded(ethernet(macNr(2), macNr(1), 0x0800, ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 3, new Uint8Array(20_000).fill(5)))), { type: "tcpv4", mss: 1460 }), small = plain(ethernet(macNr(2), macNr(1), TEST_TYPE));
      await until(() => { taps[0]!.receive(small); return b!.got.some((frame) => typeOf(frame) === TEST_TYPE); }, "the bridge forwards");
      taps[0]!.receive(large);
      await until(() => b!.got.some((frame) => frame.gso), "a large frame arrives whole");
      assert.deepEqual(b!.got.find((frame) => frame.gso), large);
      assert.equal(a!.got.some((frame) => typeOf(frame) === TEST_TYPE), false, "nobody hears himself");
      for (const tap of taps) tap.close();
      assert.deepEqual(links(), ["br0", "lo", "t8"], "what was made beforehand stays");
    }
    ip("link", "del", "t8");
    ip("link", "del", "br0");
  });

  test("an interface that somebody removes is told of once, and what is sent to it is lost", async () => {
    enter(first);
    const said: string[] = [], { tap, end } = tapWithEnd({ name: "t9", log: (sentence) => said.push(sentence) });
    ip("link", "set", "t9", "down");
    assert.equal(end.send(ethernet(BROADCAST, MAC, TEST_TYPE)), true);
    assert.deepEqual([tap.counters.lost, tap.isOpen], [1, true], "set down, it takes nothing");
    ip("link", "del", "t9");
    await until(() => said.length > 0, "the loss is seen");
    assert.equal(end.send(ethernet(BROADCAST, MAC, TEST_TYPE)), true);
    assert.deepEqual([said, tap.isOpen, tap.counters.lost, links()], [["t9: the interface is gone; what is sent to it is lost"], false, 2, ["lo"]]);
    tap.close();
  });

  test("what cannot be had is refused in a sentence, and leaves nothing", () => {
    enter(first);
    const refused = (options: TapOptions, message: RegExp) => assert.throws(() => openTap(options), (e: Error) => e instanceof UserError && message.test(e.message) || assert.fail(`${e.stack}`));
    for (const name of ["", "sixteen-letters-", "tap%d", "a b", "-t", "..", "a/b"]) refused({ name }, /cannot be the name of an interface: 1 to 15 letters/);
    refused({ name: "ta", bridge: "-br" }, /"-br" cannot be the name of an interface that is a bridge/);
    refused({ name: "lo" }, /^Interface lo is no TAP of one queue: another kind of interface has that name$/);
    refused({ name: "ta", bridge: "nobridge" }, /^Interface ta cannot be put into bridge nobridge: ip says: .*[Dd]evice does not exist/);
    refused({ name: "ta", bridge: "lo" }, /^Interface ta cannot be put into bridge lo: ip says: /);
    refused({ name: "ta", mtuBytes: 3 }, /^Interface ta cannot have an MTU of 3: ip says: /);
    const tap = openTap({ name: "ta" });
    refused({ name: "ta" }, /^Interface ta is in use by another program$/);
    tap.close();
    const path = process.env["PATH"];
    process.env["PATH"] = "/nowhere";
    try { refused({ name: "ta" }, /^TAP wants the program ip: install the package iproute2$/); } finally { process.env["PATH"] = path; }
    assert.deepEqual(links(), ["lo"]);
  });

  test("a user without rights is told the remedy, and may use what was made for him", () => {
    enter(first);
    ip("tuntap", "add", "dev", "tb", "mode", "tap", "user", `${NOBODY}`);
    ip("link", "set", "tb", "up");
    process.seteuid!(NOBODY);
    try {
      assert.throws(() => openTap({ name: "tc" }), { name: "UserError", message: /^\/dev\/net\/tun: permission denied.*; run as root or make the interface first: ip tuntap add dev tc mode tap user / });
      const tap = openTap({ name: "tb", mtuBytes: 1500 });
      assert.equal(tap.receive(plain(ethernet(BROADCAST, MAC, TEST_TYPE))), true);
      assert.deepEqual(tap.counters.txFrames, 1);
      tap.close();
      assert.throws(() => openTap({ name: "tb", mtuBytes: 1400 }), /^UserError: Interface tb cannot have an MTU of 1400: ip says: .*not permitted/);
    } finally {
      process.seteuid!(0);
    }
    ip("link", "del", "tb");
  });
}

test("without koffi, or where it does not load, the sentence says so", () => {
  assert.throws(() => loadLibc("TAP", createRequire("/nowhere/x.js")), { name: "UserError", message: "TAP wants the package koffi: npm install koffi" });
  assert.throws(() => loadLibc("TAP", () => { throw new Error("no build for this processor"); }), { name: "UserError", message: "TAP wants the package koffi, which does not load here: no build for this processor" });
});

test("a kernel that takes no more now lets the sender wait until it does", () => {
  let happened: Parameters<Libc["watch"]>[1] = () => {}, errno: number = ERRNO.EAGAIN, isFull = true;
  const waits: Parameters<FdWatch["wait"]>[0][] = [], fd = openSync("/dev/null", "r");
  const fake: Libc = { ...libc, write: (_fd, _from, lengthBytes) => isFull ? -1 : lengthBytes, read: () => -1, errno: () => errno, watch: (_fd, call) => { happened = call; return { wait: (events) => waits.push(events), close: () => {} }; } };
  const tap = new Tap(fake, fd, { name: "fake" }), end = new TestEnd("end", tap), frame = ethernet(BROADCAST, MAC, TEST_TYPE);
  assert.deepEqual([end.send(frame), end.send(frame), waits.at(-1)], [false, false, { readable: true, writable: true }]);
  isFull = false;
  end.onReady = () => { assert.equal(end.send(frame), true); };
  happened({ readable: false, writable: true, isBroken: false });
  assert.deepEqual([end.nrReady, tap.counters, waits.at(-1)], [1, { rxFrames: 0, rxBytes: 0, txFrames: 1, txBytes: 60, lost: 0 }, { readable: true, writable: false }]);
  isFull = true;
  errno = 5;
  assert.deepEqual([end.send(frame), tap.counters.lost], [true, 1], "any other error is the frame's loss");
  assert.deepEqual([tap.receive(plain(new Uint8Array(70_000))), tap.counters.lost], [true, 2]);
  errno = ERRNO.EBADFD;
  end.onReady = () => {};
  happened({ readable: true, writable: false, isBroken: false });
  assert.deepEqual([tap.isOpen, end.send(frame), tap.counters.lost], [false, true, 3]);
  tap.close();
});
