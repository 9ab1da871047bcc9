import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, linkSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { XS } from "../abi/io/xs_wire.ts";
import { Client } from "./client.ts";
import { SocketClient } from "./socket-client.node.ts";
import { SocketServer } from "./socket.node.ts";
import { Store } from "./store.ts";
import { encodePacket, fromBytes, type Packet, PacketReader, strings, toBytes } from "./wire.ts";

const folder = mkdtempSync(join(tmpdir(), "domus-socket-"));
const servers: SocketServer[] = [];
let nrServers = 0;
after(async () => {
  await Promise.all(servers.map((s) => s.close()));
  rmSync(folder, { recursive: true });
});
async function served(options: { nrClients?: number } = {}): Promise<{ store: Store; dom0: Client; server: SocketServer; logged: string[] }> {
  const store = new Store(), logged: string[] = [], server = new SocketServer(store, join(folder, `s${nrServers++}`), { ...options, log: (s) => logged.push(s) });
  servers.push(server);
  await server.listen();
  return { store, dom0: new Client(store), server, logged };
}
/** A client without manners: raw bytes, and packets as they come. */
async function raw(path: string): Promise<{ socket: Socket; next: () => Promise<Packet> }> {
  const socket = connect(path), reader = new PacketReader(), packets: Packet[] = [], waiting: ((p: Packet) => void)[] = [];
  socket.on("error", () => {});
  socket.on("data", (chunk) => {
    for (let rest: Uint8Array = chunk as Buffer; rest.length; ) {
      const n = Math.min(rest.length, reader.wanted), packet = reader.push(rest.subarray(0, n));
      rest = rest.subarray(n);
      if (packet) (waiting.shift() ?? ((p) => packets.push(p)))(packet);
    }
  });
  await once(socket, "connect");
  return { socket, next: () => new Promise((resolve) => { const p = packets.shift(); if (p) resolve(p); else waiting.push(resolve); }) };
}
const request = (type: number, payload: Uint8Array, req_id = 1, tx_id = 0): Uint8Array => encodePacket({ type, req_id, tx_id, payload });
/** Wait for what comes by itself, a turn of the event loop at a time. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((r) => setTimeout(r, 1));
}

test("the socket is its owner's alone, replaces one that is dead, and goes with its server", async () => {
  const { server } = await served();
  assert.equal(statSync(server.path).mode & 0o777, 0o600);
  await assert.rejects(new SocketServer(new Store(), server.path).listen(), /is served by another process/);
  await server.close();
  assert.equal(existsSync(server.path), false);
  const dead = createServer().listen(server.path);  // a socket that stays though nobody listens: as after a kill
  await once(dead, "listening");
  linkSync(server.path, `${server.path}-dead`);
  dead.close();
  const again = new SocketServer(new Store(), `${server.path}-dead`);
  await again.listen();
  (await SocketClient.connect(again.path)).close();
  await again.close();
  writeFileSync(join(folder, "file"), "");
  await assert.rejects(new SocketServer(new Store(), join(folder, "file")).listen(), /file exists and is not a socket/);
  await assert.rejects(new SocketServer(new Store(), join(folder, "no/folder")).listen(), /cannot be served \(E/);
  await assert.rejects(new SocketServer(new Store(), join(folder, "x".repeat(120))).listen(), /too long for a socket/);
  await assert.rejects(SocketClient.connect(join(folder, "none")), /none does not answer \(ENOENT\)/);
});

test("the client reads, writes, lists, removes, sets permissions and watches", async () => {
  const { server, dom0 } = await served();
  using c = await SocketClient.connect(server.path);
  await c.write("/a/b", "é");
  await c.write("/a/c", Uint8Array.of(0, 255));
  await c.mkdir("/a/d");
  assert.deepEqual([await c.read("/a/b"), [...(await c.readBytes("/a/c"))], await c.list("/a")], ["é", [0, 255], ["b", "c", "d"]]);
  await c.setPerms("/a/b", ["n0", "r5"]);
  assert.deepEqual(await c.perms("/a/b"), ["n0", "r5"]);
  await c.remove("/a/d");
  await assert.rejects(c.read("/a/d"), /ENOENT: xenstore operation 2 on "\/a\/d"/);
  await assert.rejects(c.write("/a/d", "v".repeat(5000)), /E2BIG/);
  const heard: string[] = [], end = await c.watch("/a", (p) => heard.push(p));
  dom0.write("/a/x/y", "1");
  await c.read("/a/x/y");
  await end();
  dom0.write("/a/x/y", "2");
  await c.read("/a/x/y");
  assert.deepEqual(heard, ["/a", "/a/x/y"]);
  const names = Array.from({ length: 700 }, (_, i) => `name-${i}`);
  await Promise.all(names.map((n) => c.mkdir(`/big/${n}`)));
  assert.deepEqual(await c.list("/big"), names);
});

test("clients that count in transactions lose nothing, and a body that throws changes nothing", async () => {
  const { server, dom0 } = await served();
  dom0.write("/n", "0");
  const clients = await Promise.all(Array.from({ length: 8 }, () => SocketClient.connect(server.path)));
  await Promise.all(clients.map(async (c) => {
    for (let i = 0; i < 5; i++) await c.transaction(async (t) => t.write("/n", String(Number(await t.read("/n")) + 1)));
  }));
  assert.equal(dom0.read("/n"), "40");
  await assert.rejects(clients[0]!.transaction(async (t) => { await t.write("/n", "x"); throw new Error("no"); }), /no/);
  assert.equal(dom0.read("/n"), "40");
  for (const c of clients) c.close();
});

test("requests in pieces of any size are answered in order, as many as there are", async () => {
  const { server } = await served();
  const { socket, next } = await raw(server.path);
  const all = Buffer.concat(Array.from({ length: 200 }, (_, i) => request(XS.WRITE, toBytes(`/k${i}\0${"v".repeat(i * 17)}`), i)));
  for (let at = 0, n = 1; at < all.length; at += n, n = (n * 7 + 1) % 4999) socket.write(all.subarray(at, at + n));
  for (let i = 0; i < 200; i++) assert.deepEqual(await next(), { type: XS.WRITE, req_id: i, tx_id: 0, payload: strings("OK") });
  const one = request(XS.READ, strings("/k3"), 9);
  for (const byte of one) await new Promise((r) => socket.write(Uint8Array.of(byte), r));
  assert.equal(fromBytes((await next()).payload), "v".repeat(51));
  socket.end(request(XS.READ, strings("/k1"), 10));
  assert.equal((await next()).req_id, 10, "who ends after asking still hears the answer");
  await once(socket, "close");
});

test("a client that asks and never reads is held, others are served meanwhile, and it goes on when it reads", async () => {
  const { server, dom0, store } = await served();
  dom0.write("/big", "v".repeat(4000));
  const { socket } = await raw(server.path);
  socket.pause();
  const asked = request(XS.READ, strings("/big")), nr = 2000;
  socket.write(Buffer.concat(Array.from({ length: nr }, () => asked)));
  let nrServed = 0;
  const serve = store.serve.bind(store);
  store.serve = (c, p) => { nrServed++; serve(c, p); };
  using other = await SocketClient.connect(server.path);
  for (let i = 0; i < 50; i++) await other.read("/big");
  const before = nrServed;
  assert.ok(before < 50 + nr / 2, `${before} were served`);
  let nrBytes = 0;
  socket.on("data", (chunk: Buffer) => { nrBytes += chunk.length; });
  socket.resume();
  await until(() => nrBytes === nr * 4016);
  socket.destroy();
});

test("a client that never reads its events is dropped, and hears that its connection is gone", async () => {
  const { server, dom0, logged } = await served();
  const { socket, next } = await raw(server.path);
  socket.write(request(XS.WATCH, strings("/a", "t".repeat(1000))));
  await next();
  await next();
  socket.pause();
  for (let i = 0; i < 3000 && server.nrClients; i++) {
    dom0.write(`/a/${i}`, "");
    if (i % 50 === 0) await new Promise((r) => setImmediate(r));
  }
  await until(() => server.nrClients === 0);
  assert.equal(logged.length, 1);
  assert.match(logged[0]!, /a client that left \d+ bytes of events unread is dropped/);
  socket.resume();
  await once(socket, "close");
});

test("a request longer than a packet ends its client and no other's", async () => {
  const { server, logged } = await served(), bad = await raw(server.path);
  using good = await SocketClient.connect(server.path);
  await good.write("/a", "1");
  bad.socket.write(Uint8Array.from([2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0]));
  await once(bad.socket, "close");
  assert.equal(await good.read("/a"), "1");
  assert.match(logged[0]!, /longer than a packet may be/);
});

test("watches and transactions of a client go with it; clients beyond the limit are turned away", async () => {
  const { server, store } = await served({ nrClients: 3 });
  const nrBefore = store.nrConnections, clients = await Promise.all([1, 2, 3].map(() => SocketClient.connect(server.path)));
  for (const c of clients) {
    await c.watch("/a", () => {});
    await c.ask(XS.TRANSACTION_START, strings(""));
  }
  const fourth = await SocketClient.connect(server.path).catch(() => undefined);
  if (fourth) await assert.rejects(fourth.read("/"), /closed|ECONN|EPIPE/);
  assert.equal(store.watches.at("/a").length, 3);
  for (const c of clients) c.close();
  await until(() => server.nrClients === 0);
  assert.deepEqual([store.watches.at("/a").length, store.nrConnections], [0, nrBefore]);
});

test("bytes of no meaning harm nobody", async () => {
  const { server, dom0 } = await served();
  dom0.write("/mine", "x");
  let seed = 7;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let i = 0; i < 20; i++) {
    const { socket } = await raw(server.path);
    for (let j = 0; j < 20; j++) socket.write(random(2) ? request(random(26), Uint8Array.from({ length: random(60) }, () => random(256)), j, random(3)) : Uint8Array.from({ length: random(400) }, () => (random(3) ? 0 : random(256))));
    socket.end();
    socket.resume();
    await once(socket, "close");
  }
  using c = await SocketClient.connect(server.path);
  assert.equal(await c.read("/mine"), "x");
  await until(() => server.nrClients === 1);
});
