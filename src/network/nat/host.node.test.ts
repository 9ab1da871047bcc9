import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import dgram from "node:dgram";
import { once } from "node:events";
import net from "node:net";
import { networkInterfaces } from "node:os";
import test from "node:test";
import { hostOutside } from "./host.node.ts";
import type { OutsideStream, StreamEvents, StreamFault } from "./outside.ts";
import { parseIpv4 } from "../address.ts";
import type { Address } from "./address.ts";
import { SimGuest } from "./fixture.ts";
import { randomBytes, VirtualClock } from "./fixture-clock.ts";
import type { SimTcp } from "./fixture-tcp.ts";
import { NatNetwork, type NatOptions } from "./nat.ts";

const sha = (chunks: readonly Uint8Array[]): string => chunks.reduce((h, c) => h.update(c), createHash("sha256")).digest("hex");

/** The host's time for the router, and the same for the guest's side of the cable. */
class HostClock extends VirtualClock {
  override nowMs(): number {
    return performance.now();
  }
  override after(delayMs: number, call: () => void): () => void {
    // The cable's fractions of a millisecond are none here.
    const timer = delayMs < 1 ? setImmediate(call) : setTimeout(call, delayMs);
    return () => (delayMs < 1 ? clearImmediate(timer as NodeJS.Immediate) : clearTimeout(timer as NodeJS.Timeout));
  }
}
function network(options: Partial<NatOptions> = {}, resolvers?: string[]) {
  const nat = new NatNetwork({ outside: hostOutside(resolvers ? { resolvers } : {}), hostAccess: true, ...options });
  return { nat, sim: new SimGuest(nat, new HostClock(), { gso: true, shift: 7, windowBytes: 4 << 20 }) };
}
async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((resolve) => setTimeout(resolve, 2));
}
/** Why there is no IPv6 to be tried here, or false. */
const NO_IPV6 = Object.values(networkInterfaces()).flat().some((i) => i?.address === "::1") ? false : "this computer has no IPv6 at all, not even ::1";
async function listening(server: net.Server, address = "127.0.0.1"): Promise<number> {
  server.listen(0, address);
  await once(server, "listening");
  return (server.address() as net.AddressInfo).port;
}
/** Events of a stream as a list of words, bytes as their number. */
function recorder() {
  const told: (string | number)[] = [], events: StreamEvents = {
    connected: () => told.push("connected"), data: (b) => told.push(b.length), drained: () => told.push("drained"), ended: () => told.push("ended"),
    closed: (fault: StreamFault | null) => told.push(`closed ${fault}`),
  };
  return { told, events };
}

/** 20 MB to an echo server on the host and back, both ways at once. */
async function exchange(listenAddress: string, addressIn: (nat: NatNetwork) => Address): Promise<void> {
  const server = net.createServer({ allowHalfOpen: true }, (s) => s.pipe(s)), port = await listening(server, listenAddress), { nat, sim } = network();
  const payload = randomBytes(5, 1 << 20), tcp = sim.connectTcp(addressIn(nat), port), nrRounds = 20;
  let sent = 0;
  const sendMore = (): void => {
    if (sent < nrRounds && tcp.unsentBytes < 1 << 20) {
      tcp.write(payload.subarray(0, payload.length));
      if (++sent === nrRounds) tcp.close();
    }
  };
  sendMore();
  tcp.onData = sendMore;
  await until(() => tcp.end !== null);
  assert.equal(tcp.receivedBytes, nrRounds * payload.length);
  assert.equal(sha(tcp.received), sha(Array.from({ length: nrRounds }, () => payload)));
  assert.equal(tcp.end, "closed");
  assert.deepEqual(sim.broken, []);
  nat.close();
  server.close();
}
test("a guest and an echo server on the host exchange 20 MB, both ways at once, whole", () => exchange("127.0.0.1", (nat) => nat.hostAddress));
test("through a forward 20 MB come from the host and go back, and a refused guest's port resets the client", async () => {
  const { nat, sim } = network({ forwards: ["tcp:127.0.0.1:0-10.0.2.15:22", "tcp:127.0.0.1:0-10.0.2.15:23"] });
  await nat.start();
  sim.listening.set(22, (tcp: SimTcp) => {
    tcp.onData = (b) => tcp.write(b);
  });
  const payload = Buffer.from(randomBytes(6, 1 << 20)), client = net.connect({ port: nat.forwards[0]!.port, host: "127.0.0.1", allowHalfOpen: true }), back = createHash("sha256");
  let got = 0;
  client.on("data", (b: Buffer) => {
    got += b.length;
    back.update(b);
  });
  for (let i = 0; i < 20; i++) if (!client.write(payload)) await once(client, "drain");
  await until(() => got === 20 << 20);
  assert.equal(back.digest("hex"), sha(Array.from({ length: 20 }, () => payload)));
  client.end();
  await until(() => [...sim.tcps.values()].some((t) => t.hasPeerEnded));
  for (const t of sim.tcps.values()) t.close();
  await once(client, "end");
  const refused = net.connect(nat.forwards[1]!.port, "127.0.0.1"), [error] = await once(refused, "error");
  assert.equal((error as NodeJS.ErrnoException).code, "ECONNRESET");
  nat.close();
  await assert.rejects(once(net.connect(nat.forwards[0]?.port ?? 1, "127.0.0.1"), "connect"), "a closed router listens no more");
});
test("a reader that stops holds the writer up on both sides of the router", async () => {
  const sockets: net.Socket[] = [], server = net.createServer((s) => sockets.push(s.pause())), port = await listening(server), { nat, sim } = network();
  const tcp = sim.connectTcp(nat.hostAddress, port);
  await until(() => tcp.state === "open" && sockets.length === 1);
  for (let i = 0; i < 16; i++) tcp.write(randomBytes(i, 1 << 20));
  // The kernel's buffers take some; then nothing moves any more.
  for (let last = -1; last !== tcp.unsentBytes; await new Promise((resolve) => setTimeout(resolve, 400))) last = tcp.unsentBytes;
  assert.ok(tcp.unsentBytes > 1 << 20, `${tcp.unsentBytes} bytes are still the guest's`);
  const heap = nat.stats.now.tcpGrantedBytes;
  assert.ok(heap <= 1 << 20);
  let got = 0;
  sockets[0]!.on("data", (b) => { got += b.length; }).resume();
  await until(() => got === 16 << 20);
  tcp.abort();
  const [error] = await once(sockets[0]!, "error");
  assert.equal((error as NodeJS.ErrnoException).code, "ECONNRESET", "the guest's reset is a reset on the host");
  nat.close();
  server.close();
});
test("a host's refusal is told as one, and half closes and resets as what they are", async () => {
  const server = net.createServer({ allowHalfOpen: true }, (s) => {
    s.on("error", () => {});
    s.on("data", (b) => {
      if (String(b) === "reset") s.resetAndDestroy();
      else s.write(b);
    }).on("end", () => s.end("bye"));
  }), port = await listening(server), outside = hostOutside();
  const play = async (script: (stream: OutsideStream) => void, to = port): Promise<(string | number)[]> => {
    const { told, events } = recorder(), stream = outside.connectTcp("127.0.0.1", to, events);
    assert.deepEqual(told, [], "nothing is told before the call returned");
    script(stream);
    await until(() => String(told.at(-1)).startsWith("closed"));
    return told.filter((t) => t !== "drained");
  };
  const bytes = new TextEncoder();
  assert.deepEqual(await play((s) => {
    s.write(bytes.encode("hello"));
    s.end();
  }).then((told) => [told[0], told.slice(1, -2).reduce<number>((sum, n) => sum + Number(n), 0), ...told.slice(-2)]), ["connected", 8, "ended", "closed null"]);
  assert.deepEqual(await play((s) => s.write(bytes.encode("reset"))), ["connected", "closed reset"]);
  server.close();
  await once(server, "close");
  assert.deepEqual(await play(() => {}), ["closed refused"]);
  await assert.rejects(outside.listenTcp("192.0.2.1", 1, () => null), { name: "UserError", message: /^Cannot listen on TCP 192.0.2.1 port 1: / });
  await assert.rejects(outside.bindUdp("192.0.2.1", 1, { datagram: () => {}, failed: () => {} }), { name: "UserError", message: /^Cannot listen on UDP 192.0.2.1 port 1: / });
});
test("datagrams go to a server on the host and back, through a forward too, and names to a resolver", async () => {
  const server = dgram.createSocket("udp4"), heard: string[] = [];
  server.on("message", (b, from) => {
    // As a resolver it answers with A 9.9.9.9; as anything else it echoes.
    const reply = b[2] === 1 && b.length > 12 ? Buffer.concat([b.subarray(0, 2), Buffer.from("8180000100010000" + "0000", "hex"), b.subarray(12), Buffer.from("c00c000100010000003c000409090909", "hex")]) : b;
    server.send(reply, from.port, from.address);
  });
  server.bind(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address(), { nat, sim } = network({ forwards: ["udp:127.0.0.1:0-10.0.2.15:9"] }, [`127.0.0.1:${port}`]);
  await nat.start();
  sim.onUdp = (source, sourcePort, to, data) => {
    if (to === 9) sim.udp(source, sourcePort, to, Uint8Array.from(data, (b) => b + 1));
    else heard.push(`${source === nat.hostAddress ? "host" : "gateway"} ${to} ${Buffer.from(data.subarray(-4)).toString("latin1")}`);
  };
  sim.udp(nat.hostAddress, port, 3000, new TextEncoder().encode("ping"));
  await until(() => heard.length === 1);
  sim.udp(nat.gateway, 53, 3001, Uint8Array.from([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 4, 116, 101, 115, 116, 0, 0, 1, 0, 1]));
  await until(() => heard.length === 2);
  assert.deepEqual(heard, ["host 3000 ping", "gateway 3001 \t\t\t\t"]);
  const client = dgram.createSocket("udp4");
  client.send("abc", nat.forwards[0]!.port, "127.0.0.1");
  const [reply] = await once(client, "message");
  assert.equal(String(reply), "bcd");
  client.close();
  server.close();
  nat.close();
});
test("without hostAccess a guest does not reach the host's loopback", async () => {
  const server = net.createServer(), port = await listening(server), { nat, sim } = network({ hostAccess: false });
  const tries = [nat.hostAddress, nat.gateway, parseIpv4("127.0.0.1")!, 0].map((to) => sim.connectTcp(to, port));
  await until(() => tries.every((t) => t.end !== null));
  assert.equal(await new Promise((resolve) => server.getConnections((_, n) => resolve(n))), 0);
  nat.close();
  server.close();
});

test("over IPv6 a guest and an echo server on the host's ::1 exchange 20 MB, both ways at once, whole", { skip: NO_IPV6 }, () => exchange("::1", (nat) => nat.v6!.host));
test("ports of ::1 and 127.0.0.1 lead to a guest's addresses of both families, TCP and UDP", { skip: NO_IPV6 }, async () => {
  const guest = "fd64:6f6d:7573:2:16:3eff:fe00:1", { nat, sim } = network({ forwards: [`tcp:[::1]:0-[${guest}]:22`, `tcp:0-[${guest}]:22`, "tcp:[::1]:0-10.0.2.15:22", `udp:[::1]:0-[${guest}]:9`, "udp:[::1]:0-10.0.2.15:9"] });
  await nat.start();
  sim.listening.set(22, (tcp: SimTcp) => { tcp.onData = (b) => tcp.write(b); });
  sim.onUdp = (source, sourcePort, port, data) => sim.udp(source, sourcePort, port, Uint8Array.from(data, (b) => b + 1));
  for (const { text, address, port } of nat.forwards) {
    if (text.startsWith("tcp")) {
      const client = net.connect(port, address);
      client.write("hello");
      assert.equal(String((await once(client, "data"))[0]), "hello", text);
      client.destroy();
    } else {
      const client = dgram.createSocket("udp6");
      client.send("abc", port, address);
      assert.equal(String((await once(client, "message"))[0]), "bcd", text);
      client.close();
    }
  }
  nat.close();
});
test("datagrams go to the host's ::1 and back, and names to a resolver there", { skip: NO_IPV6 }, async () => {
  const server = dgram.createSocket("udp6"), heard: string[] = [];
  server.on("message", (b, from) => { server.send(b[2] === 1 ? Buffer.concat([b.subarray(0, 2), Buffer.from([0x81, 0x80]), b.subarray(4)]) : b, from.port, from.address); });
  server.bind(0, "::1");
  await once(server, "listening");
  const { port } = server.address(), { nat, sim } = network({}, [`[0:0:0:0:0:0:0:1]:${port}`]);
  sim.onUdp = (source, sourcePort, to, data) => { heard.push(`${source === nat.v6!.host} ${sourcePort} ${to} ${data.length}`); };
  sim.udp(nat.v6!.host, port, 3000, new TextEncoder().encode("ping"));
  await until(() => heard.length === 1);
  sim.udp(nat.v6!.gateway, 53, 3001, Uint8Array.from([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 4, 116, 101, 115, 116, 0, 0, 28, 0, 1]));
  await until(() => heard.length === 2);
  assert.deepEqual(heard, [`true ${port} 3000 4`, "false 53 3001 24"]);
  server.close();
  nat.close();
});
test("no IPv6 address leads a guest to the host's loopback but the alias, and that only with hostAccess", { skip: NO_IPV6 }, async () => {
  const six = net.createServer(), port = await listening(six, "::"), { nat, sim } = network({ hostAccess: false });
  const addresses = [nat.v6!.host, nat.v6!.gateway, 0n, 1n, 0xffff_7f00_0001n, 0x7f00_0001n, 0x64_ff9bn << 96n | 0x7f00_0001n, 0x2002_7f00_0001n << 80n | 1n, 0xfe80n << 112n | 1n, 0xff02n << 112n | 1n];
  const tries = addresses.slice(0, -1).map((to) => sim.connectTcp(to, port)), toGroup = sim.connectTcp(addresses.at(-1)!, port);
  await until(() => tries.every((t) => t.end !== null));
  toGroup.abort();
  assert.equal(await new Promise((resolve) => six.getConnections((_, n) => resolve(n))), 0);
  nat.close();
  six.close();
});
test("the host is asked whether it has a way out over IPv6, and what it cannot reach is unreachable at once", { skip: NO_IPV6 }, async () => {
  const outside = hostOutside({ resolvers: ["2001:DB8:0::53", "[fe80::1%lo]:54", "9.9.9.9:5353", "[9.9.9.9]:53", "[a]:53", "name", "9.9.9.999"] });
  assert.deepEqual(outside.resolvers(), [{ address: "9.9.9.9", port: 5353 }, { address: "2001:db8::53", port: 53 }, { address: "fe80::1%lo", port: 54 }]);
  outside.hasIpv6();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const hasGlobal = Object.values(networkInterfaces()).flat().some((i) => i && !i.internal && /^[23]/.test(i.address) && i.family === "IPv6");
  if (!hasGlobal) assert.equal(outside.hasIpv6(), false, "without an address of the world's there is no way out");
  const { told, events } = recorder();
  // No kernel has a way by TCP to a group.
  outside.connectTcp("ff0e::1", 9, events);
  await until(() => told.length > 0);
  assert.deepEqual(told, ["closed unreachable"]);
});
