/** The client against qemu-nbd and nbdkit (packages qemu-utils, nbdkit), well and ill. */
import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { after, test } from "node:test";
import { UserError } from "../../base/errors.ts";
import { DiskError } from "../disk.ts";
import { random, randomBytes, sameBytes } from "../fixture.ts";
import { Daemon, eventually, folder, freePort } from "../fixture.node.ts";
import { connectSocket as connect } from "../socket.node.ts";
import { listNbd, openNbd } from "./client.ts";
import { nbdUri, parseNbdUri } from "./uri.ts";

const dir = folder(), daemons: Daemon[] = [], MIB = 1 << 20;
after(async () => {
  await Promise.all(daemons.map((d) => d.stop()));
  dir.cleanup();
});
const start = (program: string, ...args: string[]): Daemon => {
  const d = new Daemon(program, ...args);
  daemons.push(d);
  return d;
};
/** nbdkit on a Unix socket of its own; `up` waits until it listens. */
function nbdkit(name: string, ...args: string[]): { uri: string; daemon: Daemon; open: (o?: Partial<Parameters<typeof openNbd>[1]>) => ReturnType<typeof openNbd> } {
  const socket = dir.path(`${name}.sock`), daemon = start("nbdkit", "-f", "-U", socket, ...args), uri = `nbd+unix:///?socket=${socket}`;
  return { uri, daemon, open: (o = {}) => eventually(() => openNbd(uri, { connect, ...o }), daemon) };
}
const fault = (name: string, about?: RegExp) => (e: unknown): boolean => {
  assert.ok(e instanceof DiskError, String(e));
  assert.equal(e.fault, name, e.message);
  if (about) assert.match(e.message, about);
  return true;
};

test("NBD addresses are read in their two forms, and what is none is refused with a sentence", () => {
  assert.deepEqual(parseNbdUri("nbd://example/disk%201"), { at: { host: "example", port: 10809 }, exportName: "disk 1" });
  assert.deepEqual(parseNbdUri("nbd://[::1]:5/"), { at: { host: "::1", port: 5 }, exportName: "" });
  assert.deepEqual(parseNbdUri("nbd+unix:///e/f?socket=/run/a+b.sock"), { at: { path: "/run/a+b.sock" }, exportName: "e/f" });
  assert.equal(nbdUri(parseNbdUri("nbd://[::1]:5/a b")), "nbd://[::1]:5/a%20b");
  const odd = { at: { path: "/a b/?&+%.sock" }, exportName: "x/y?" };
  assert.deepEqual(parseNbdUri(nbdUri(odd)), odd);
  for (const bad of ["nbds://h/e", "nbd://", "nbd://h:0/", "nbd://h:99999/", "nbd+unix:///e", "nbd://h/%zz", "http://h/", "nbd://u@h/"]) assert.throws(() => parseNbdUri(bad), UserError);
});

test("against qemu-nbd, what is written, zeroed and flushed is in the file, and the list names the export", async () => {
  const file = dir.path("a.raw"), port = await freePort(), next = random(1), image = randomBytes(next, 4 * MIB);
  writeFileSync(file, image);
  const d = start("qemu-nbd", "-f", "raw", "-b", "127.0.0.1", "-p", String(port), "-x", "disk one", "-D", "a test", "--discard=unmap", "-t", "-e", "4", file);
  const uri = `nbd://127.0.0.1:${port}/disk%20one`, disk = await eventually(() => openNbd(uri, { connect }), d);
  assert.equal(disk.sizeBytes, 4 * MIB);
  assert.equal(disk.shape.canFlush && disk.shape.canZero, true);
  assert.deepEqual(await listNbd(uri, { connect }), [{ name: "disk one", description: "a test" }]);
  const whole = new Uint8Array(4 * MIB);
  await disk.read(0, whole);
  sameBytes(whole, image);
  await Promise.all(Array.from({ length: 300 }, async (_, i) => {
    const at = i * 512 * 17 % (3 * MIB), bytes = randomBytes(random(i), 512);
    image.set(bytes, at);
    await disk.write(at, bytes);
  }));
  await disk.writeZeros(3 * MIB + 512, 512 * 700);
  image.fill(0, 3 * MIB + 512, 3 * MIB + 512 + 512 * 700);
  assert.ok(disk.unflushedBytes > 0);
  await disk.flush();
  assert.equal(disk.unflushedBytes, 0);
  await disk.discard(0, 4096);
  await disk.write(0, image.subarray(0, 4096));
  await disk.close();
  await disk.close();
  sameBytes(new Uint8Array(readFileSync(file)), image);
  await assert.rejects(disk.read(0, new Uint8Array(512)), fault("closed"));
  await assert.rejects(openNbd(`nbd://127.0.0.1:${port}/other`, { connect }), fault("missing", /no export "other"/));
});

test("holes of a sparse disk come as chunks of structured replies and read as zeros", async () => {
  const { open } = nbdkit("sparse", "memory", "64M"), disk = await open();
  const bytes = randomBytes(random(2), 65536), all = new Uint8Array(4 * MIB).fill(7);
  await disk.write(MIB, bytes);
  await disk.write(3 * MIB, bytes);
  await disk.read(0, all);
  const want = new Uint8Array(4 * MIB);
  want.set(bytes, MIB);
  want.set(bytes, 3 * MIB);
  sameBytes(all, want);
  await disk.close();
});

test("a server's least block of 4096 bytes is obeyed: neighbours in one block, written together, all arrive", async () => {
  const { open } = nbdkit("policy", "--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096", "blocksize-maximum=64K", "blocksize-error-policy=error"), disk = await open();
  assert.equal(disk.physicalSectorBytes, 4096);
  const image = randomBytes(random(3), MIB), got = new Uint8Array(MIB);
  await disk.write(0, image);
  await Promise.all(Array.from({ length: 100 }, async (_, i) => {
    const at = (i * 3 + 1) * 512, bytes = randomBytes(random(i), 512 * (1 + i % 3));
    image.set(bytes, at);
    await disk.write(at, bytes);
  }));
  await disk.writeZeros(512, 512);
  image.fill(0, 512, 1024);
  await disk.read(0, got);
  sameBytes(got, image);
  const part = new Uint8Array(1024);
  await disk.read(MIB - 1536, part);
  sameBytes(part, image.slice(MIB - 1536, MIB - 512));
  await disk.close();
});

test("an error that the server answers is the request's error, and the connection goes on", async () => {
  const { open } = nbdkit("error", "--filter=error", "memory", "1M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%", "error-pread=EIO", "error-pread-rate=100%"), disk = await open();
  await assert.rejects(disk.write(0, new Uint8Array(512)), fault("nospace", /ENOSPC to a write of 512 bytes at 0/));
  await assert.rejects(disk.read(512, new Uint8Array(512)), fault("io", /EIO to a read of 512 bytes at 512/));
  await disk.flush();
  assert.equal(disk.nrReconnects, 0);
  await disk.close();
});

test("a read-only export refuses writes without asking the server", async () => {
  const { open } = nbdkit("ro", "-r", "memory", "1M"), disk = await open();
  assert.equal(disk.isReadonly, true);
  await assert.rejects(disk.write(0, new Uint8Array(512)), fault("readonly"));
  await assert.rejects(disk.resize(), fault("unsupported"));
  await disk.close();
  const ours = await nbdkit("rw", "memory", "1M").open({ isReadonly: true });
  await assert.rejects(ours.write(0, new Uint8Array(512)), fault("readonly"));
  await ours.close();
});

test("a server that was killed and comes back is written to as if nothing had been", async () => {
  const file = dir.path("b.raw"), image = new Uint8Array(MIB), next = random(4);
  writeFileSync(file, image);
  const first = nbdkit("b1", "file", file), disk = await first.open({ retryMs: 20, retryMaxMs: 100 });
  let second: Daemon | undefined;
  const writes: Promise<void>[] = [];
  for (let i = 0; i < 200; i++) {
    const at = (i * 37 % 2048) * 512, bytes = randomBytes(next, 512);
    image.set(bytes, at);
    const done = disk.write(at, bytes);
    if (i === 100) {
      await first.daemon.stop();
      rmSync(dir.path("b1.sock"));
      second = start("nbdkit", "-f", "-U", dir.path("b1.sock"), "file", file);
    }
    writes.push(done);
    if (i % 10 === 0) await done;
  }
  assert.ok(second);
  await Promise.all(writes);
  await disk.flush();
  assert.ok(disk.nrReconnects >= 1);
  await disk.close();
  sameBytes(new Uint8Array(readFileSync(file)), image);
});

test("a server that stalls is given up: the request is sent again, and after the time that was set rejected with gone", async () => {
  const { open } = nbdkit("stall", "--filter=delay", "memory", "1M", "rdelay=30"), disk = await open({ requestTimeoutMs: 100, giveUpMs: 500, retryMs: 10 });
  await disk.write(0, new Uint8Array(512).fill(1));
  await assert.rejects(disk.read(0, new Uint8Array(512)), fault("gone", /given up after 500 ms.*no answer to a read of 512 bytes at 0 in 100 ms/));
  assert.ok(disk.nrReconnects >= 2);
  await disk.close();
});

test("where nobody listens, opening fails at once with gone", async () => {
  await assert.rejects(openNbd(`nbd://127.0.0.1:${await freePort()}/`, { connect }), fault("gone", /Cannot connect/));
  await assert.rejects(openNbd(`nbd+unix:///?socket=${dir.path("none")}`, { connect }), fault("gone", /ENOENT/));
});

test("the old style of nbdkit -o is refused by name", async () => {
  const socket = dir.path("old.sock"), daemon = start("nbdkit", "-f", "-o", "-U", socket, "memory", "1M"), uri = `nbd+unix:///?socket=${socket}`;
  await eventually(() => connect({ path: socket }, 1000).then((c) => c.close()), daemon);
  await assert.rejects(openNbd(uri, { connect }), fault("unsupported", /old style/));
});
