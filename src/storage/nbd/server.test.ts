/** The server against qemu-img and qemu-io, against our own client, and against clients that send anything. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, test } from "node:test";
import { type ByteConnection, type Connect, connectionPair } from "../../base/stream.ts";
import { DiskError } from "../disk.ts";
import { FixtureDisk, mutated, random, randomBytes, sameBytes } from "../fixture.ts";
import { folder, run } from "../fixture.node.ts";
import { connectSocket, listenSocket } from "../socket.node.ts";
import { listNbd, openNbd } from "./client.ts";
import { IHAVEOPT, NBDMAGIC, OPT, pack, REP, REPLY_MAGIC, REQUEST_MAGIC } from "./protocol.ts";
import { type NbdExport, type NbdService, serveNbd } from "./server.ts";

const dir = folder(), MIB = 1 << 20;
after(() => dir.cleanup());
/** Exports on a Unix socket. */
async function serve(name: string, exports: ReadonlyMap<string, NbdExport>) {
  const services: NbdService[] = [], said: string[] = [], path = dir.path(name);
  const listener = await listenSocket({ path }, (c) => { services.push(serveNbd(c, exports, { log: (s) => said.push(s) })); });
  return { uri: (e = "") => `nbd+unix:///${e}?socket=${path}`, services, said, stop: async () => { const closed = listener.close(); await Promise.all(services.map((s) => s.close())); await closed; } };
}

test("qemu-img copies an image in and out, and finds it equal", async () => {
  const disk = new FixtureDisk(8 * MIB), file = dir.path("in.raw"), out = dir.path("out.raw"), next = random(1);
  const image = new Uint8Array(8 * MIB);
  for (let i = 0; i < 8; i += 2) image.set(randomBytes(next, 300_000), i * MIB);
  writeFileSync(file, image);
  const s = await serve("qemu.sock", new Map([["d", { disk }]]));
  await run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, s.uri("d"));
  sameBytes(disk.stable, image, "qemu flushed");
  await run("qemu-img", "compare", "-f", "raw", "-F", "raw", file, s.uri("d"));
  await run("qemu-img", "convert", "-f", "raw", "-O", "raw", s.uri("d"), out);
  sameBytes(new Uint8Array(readFileSync(out)), image);
  await s.stop();
});

test("qemu-io's writes with FUA, zeros and discards do what they say; past the end and on a read-only export they fail", async () => {
  const disk = new FixtureDisk(MIB);
  const s = await serve("io.sock", new Map([["", { disk }], ["ro", { disk, isReadonly: true }]]));
  const said = await run("qemu-io", "-f", "raw", "-t", "writeback", "-c", "write -f -P 0xa5 4096 8192", "-c", "write -z 8192 512", "-c", "discard 9216 512", "-c", "read -P 0xa5 4096 4096", "-c", "read -P 0 8192 512", "-c", "flush", s.uri());
  assert.doesNotMatch(said, /fail|error|verif/i);
  assert.equal(disk.stable[4096], 0xa5);
  assert.equal(disk.stable[8192], 0);
  await assert.rejects(run("qemu-io", "-f", "raw", "-c", "write 0 512", s.uri("ro")), /read-only|not permitted|denied/i);
  await assert.rejects(run("qemu-io", "-f", "raw", "-c", "read 0 512", s.uri("none")), /no such export|not present/i);
  await s.stop();
});

test("our client lists what our server has, and a service that closes answers what is under way first", async () => {
  const disk = new FixtureDisk(MIB), slow = new FixtureDisk(MIB), gate = Promise.withResolvers<void>();
  slow.read = async (_at, into) => { await gate.promise; into.fill(3); };
  const s = await serve("ours.sock", new Map([["a", { disk, description: "first" }], ["b", { disk: slow }]]));
  assert.deepEqual(await listNbd(s.uri(), { connect: connectSocket }), [{ name: "a", description: "first" }, { name: "b", description: "" }]);
  const b = await openNbd(s.uri("b"), { connect: connectSocket, giveUpMs: 100 }), into = new Uint8Array(1024), reading = b.read(0, into);
  await new Promise((resolve) => { setTimeout(resolve, 20); });
  const stopping = s.stop();
  gate.resolve();
  await reading;
  assert.equal(into[1023], 3);
  await stopping;
  await assert.rejects(b.read(0, into), (e: unknown) => e instanceof DiskError && e.fault === "gone");
});

test("a disk's error reaches the client as the same fault", async () => {
  const disk = new FixtureDisk(MIB);
  disk.write = () => Promise.reject(new DiskError("nospace", "full"));
  disk.read = () => Promise.reject(new Error("something"));
  const [a, b] = connectionPair();
  serveNbd(a, new Map([["", { disk }]]));
  const client = await openNbd("nbd://x/", { connect: () => Promise.resolve(b) });
  await assert.rejects(client.write(0, new Uint8Array(512)), (e: unknown) => e instanceof DiskError && e.fault === "nospace");
  await assert.rejects(client.read(0, new Uint8Array(512)), (e: unknown) => e instanceof DiskError && e.fault === "io");
  await client.close();
});

/** Send, hang up, wait for the service's end. */
async function throwAt(bytes: Uint8Array): Promise<void> {
  const [a, b] = connectionPair(), service = serveNbd(a, new Map([["", { disk: new FixtureDisk(65536) }]]));
  const drain = (async () => { try { while (await b.read()); } catch { /* it hung up */ } })();
  await b.write(bytes).catch(() => {});
  await new Promise((resolve) => { setTimeout(resolve, 0); });
  b.close();
  await Promise.all([service.done, drain]);
}
const goodClient = pack([3, 4], [IHAVEOPT, 8], [OPT.STRUCTURED_REPLY, 4], [0, 4], [IHAVEOPT, 8], [OPT.LIST, 4], [0, 4], [IHAVEOPT, 8], [OPT.GO, 4], [8, 4], [0, 4], [1, 2], [3, 2],
  [REQUEST_MAGIC, 4], [0, 2], [1, 2], [1, 8], [512, 8], [512, 4], new Uint8Array(512), [REQUEST_MAGIC, 4], [0, 2], [0, 2], [2, 8], [0, 8], [4096, 4], [REQUEST_MAGIC, 4], [1, 2], [6, 2], [3, 8], [0, 8], [4096, 4]);

test("a client that sends anything ends its own connection and nothing else", async () => {
  for (let seed = 0; seed < 400; seed++) {
    const next = random(seed);
    await throwAt(seed % 4 === 0 ? randomBytes(next, next(200)) : mutated(goodClient, next));
  }
});

/** A connection whose peer says `bytes` whatever it hears, `later` when it is asked the first request, then ends or goes silent. */
function parrot(bytes: Uint8Array, ends: boolean, later: Uint8Array = new Uint8Array(0)): ByteConnection {
  const [a, b] = connectionPair("parrot", "client");
  void (async () => {
    try {
      for (let chunk: Uint8Array | null; (chunk = await a.read());) if (later.length && chunk.length === 28 && chunk[0] === 0x25) await a.write(later);
    } catch { /* gone */ }
  })();
  void a.write(bytes).catch(() => {});
  if (ends) a.close();
  return b;
}
const optionReply = (option: number, type: number, body: Uint8Array = new Uint8Array(0)) => pack([REPLY_MAGIC, 8], [option, 4], [type, 4], [body.length, 4], body);
const greeting = pack([NBDMAGIC, 8], [IHAVEOPT, 8], [3, 2]);
const accepted = pack(greeting, optionReply(OPT.STRUCTURED_REPLY, REP.ACK), optionReply(OPT.GO, REP.INFO, pack([0, 2], [65536, 8], [1 | 4, 2])), optionReply(OPT.GO, REP.ACK));
const dataChunk = (cookie: number, offset: number, bytes: Uint8Array, flags = 1) => pack([0x668e33ef, 4], [flags, 2], [1, 2], [cookie, 8], [8 + bytes.length, 4], [offset, 8], bytes);

test("a server from before GO is asked with EXPORT_NAME", async () => {
  const unsup = pack(greeting, optionReply(OPT.STRUCTURED_REPLY, REP.ERR_UNSUP), optionReply(OPT.GO, REP.ERR_UNSUP), [65536, 8], [1, 2]), data = pack([0x67446698, 4], [0, 4], [1, 8], new Uint8Array(512).fill(5));
  const disk = await openNbd("nbd://x/", { connect: () => Promise.resolve(parrot(unsup, false, data)) }), into = new Uint8Array(512);
  assert.equal(disk.sizeBytes, 65536);
  await disk.read(0, into);
  assert.equal(into[511], 5);
  await disk.close();
});

test("each lie of a server is named in the request's error", async () => {
  const sector = new Uint8Array(512), lies: [RegExp, Uint8Array][] = [
    [/a reply begins with deadbeef/, pack([0xdeadbeef, 4], new Uint8Array(16))],
    [/answers request 99, which was not asked/, dataChunk(99, 0, sector)],
    [/with 512 bytes at 512/, dataChunk(1, 512, sector)],
    [/its chunks end after 256 of 512 bytes/, dataChunk(1, 0, sector.subarray(0, 256))],
    [/leave out or repeat bytes/, pack(dataChunk(1, 256, sector.subarray(0, 256), 0), dataChunk(1, 0, sector.subarray(0, 255)))],
    [/without structure/, pack([0x67446698, 4], [0, 4], [1, 8], sector)],
    [/a chunk of type 1 is 4294967295 bytes long/, pack([0x668e33ef, 4], [1, 2], [1, 2], [1, 8], [0xffffffff, 4])],
    [/says that there is none/, pack([0x668e33ef, 4], [1, 2], [0x8001, 2], [1, 8], [6, 4], [0, 4], [0, 2])],
  ];
  for (const [about, bytes] of lies) {
    const disk = await openNbd("nbd://x/", { connect: () => Promise.resolve(parrot(accepted, false, bytes)) });
    await assert.rejects(disk.read(0, new Uint8Array(512)), (e: unknown) => e instanceof DiskError && e.fault === "io" && about.test(e.message) || assert.fail(String(e)));
  }
  const handshakes: [RegExp, Uint8Array][] = [
    [/which is not NBD/, new Uint8Array(16)],
    [/an option's reply is 4294967295 bytes long/, pack(greeting, [REPLY_MAGIC, 8], [8, 4], [1, 4], [0xffffffff, 4])],
    [/answers option 7 where 8 was asked/, pack(greeting, optionReply(7, REP.ACK))],
    [/does not say its size/, pack(greeting, optionReply(8, REP.ACK), optionReply(7, REP.ACK))],
    [/least block is 3 bytes/, pack(greeting, optionReply(8, REP.ACK), optionReply(7, REP.INFO, pack([0, 2], [512, 8], [1, 2])), optionReply(7, REP.INFO, pack([3, 2], [3, 4], [3, 4], [4096, 4])), optionReply(7, REP.ACK))],
  ];
  for (const [about, bytes] of handshakes) {
    await assert.rejects(openNbd("nbd://x/", { connect: () => Promise.resolve(parrot(bytes, false)) }), (e: unknown) => e instanceof DiskError && e.fault === "io" && about.test(e.message) || assert.fail(String(e)));
  }
});

test("a server that says anything never crashes or hangs the client", async () => {
  const good = dataChunk(1, 0, randomBytes(random(9), 512));
  let nrRead = 0;
  for (let seed = 0; seed < 400; seed++) {
    const next = random(seed), connect: Connect = () => Promise.resolve(seed % 8 === 0 ? parrot(randomBytes(next, next(300)), next(2) === 0)
      : seed % 3 === 0 ? parrot(mutated(accepted, next), next(2) === 0, good) : parrot(accepted, false, mutated(good, next)));
    try {
      const disk = await openNbd("nbd://x/", { connect, connectTimeoutMs: 20, requestTimeoutMs: 5, giveUpMs: 10, retryMs: 1 });
      await disk.read(0, new Uint8Array(512));
      nrRead++;
      await disk.close();
    } catch (e) {
      assert.ok(e instanceof DiskError, `seed ${seed}: ${e}`);
    }
  }
  assert.ok(nrRead > 0);
});
