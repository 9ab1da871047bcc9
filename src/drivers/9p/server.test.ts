import assert from "node:assert/strict";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EBADF, EBUSY, EEXIST, EINVAL, EISDIR, EMSGSIZE, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EPERM, EROFS } from "../../abi/errno.ts";
import { directClient, type P9Client, Refused, textOf } from "./fixture.ts";
import { nodeFolder } from "./folder.node.ts";
import { AT_REMOVEDIR, NOTAG, OPEN, QT, SETATTR, T, VERSION } from "./protocol.ts";
import type { ServerOptions } from "./server.ts";

const base = fs.mkdtempSync(join(tmpdir(), "domus-9p-server-"));
after(() => fs.rmSync(base, { recursive: true, force: true }));
let nr = 0;
/** A folder of its own, and a client that has attached as fid 0. */
async function setUp(options: Partial<ServerOptions> = {}): Promise<ReturnType<typeof directClient> & { root: string; c: P9Client; path: (name: string) => string }> {
  const root = join(base, String(++nr));
  fs.mkdirSync(root);
  const direct = directClient(await nodeFolder(root).open(), options);
  await direct.client.begin();
  return { ...direct, root, c: direct.client, path: (name) => join(root, name) };
}
const refuses = (errno: number, asked: Promise<unknown>): Promise<void> => assert.rejects(asked, (e) => e instanceof Refused && e.errno === errno || (() => { throw e; })());

test("a version is agreed upon: 9P2000.L with the smaller size, and no other", async () => {
  const { c } = await setUp();
  assert.equal(await c.version(8192, "9P2000.u"), "unknown");
  await refuses(EINVAL, c.attach());
  assert.equal(await c.version(1 << 30), VERSION);
  assert.equal(c.msize, 1 << 20);
  await refuses(EMSGSIZE, c.version(1000));
  await refuses(EINVAL, c.ask(T.version, (w) => w.u32(8192).text(VERSION), 5));
});

test("a file is made, written, read, looked at and removed, and the host has it meanwhile", async () => {
  const { c, path } = await setUp();
  await c.walk(0, 1);
  const qid = await c.create(1, "f", OPEN.RDWR, 0o640);
  assert.equal(qid.type, QT.FILE);
  assert.equal(await c.write(1, 0, Buffer.from("hello world")), 11);
  assert.equal(fs.readFileSync(path("f"), "utf8"), "hello world");
  assert.equal(textOf(await c.read(1, 6, 100)), "world");
  assert.equal((await c.read(1, 11, 100)).length, 0);
  assert.equal((await c.read(1, 2n ** 63n, 100)).length, 0, "beyond all files there is nothing");
  await refuses(27, c.write(1, 2n ** 60n, Buffer.from("x")));
  await c.fsync(1);
  const [found] = await c.walk(0, 2, "f"), a = await c.getattr(2);
  assert.equal(found!.path, qid.path);
  assert.deepEqual([a.mode & 0o777, a.sizeBytes, a.nrLinks], [0o640, 11n, 1n]);
  await c.unlinkat(0, "f");
  assert.equal(fs.existsSync(path("f")), false);
  assert.equal(textOf(await c.read(1, 0, 5)), "hello", "an open file outlives its name");
  assert.equal((await c.getattr(1)).nrLinks, 0n);
  await c.clunk(1);
  await refuses(EBADF, c.read(1, 0, 5));
});

test("a file's mode is what the guest says, whatever this process' umask is, but for set-user-ID and set-group-ID", async () => {
  const { c, path } = await setUp(), mode = (name: string): number => fs.statSync(path(name)).mode & 0o7777;
  await c.walk(0, 1);
  await c.create(1, "f", OPEN.RDWR, 0o6777);
  await c.mkdir(0, "d", 0o42777);
  assert.deepEqual([mode("f"), mode("d")], [0o777, 0o2777]);
  await c.setattr(1, SETATTR.MODE, { mode: 0o4755 });
  assert.equal(mode("f"), 0o755);
  await c.setattr(1, SETATTR.MODE, { mode: 0o1600 });
  assert.equal(mode("f"), 0o1600);
});

test("a program of the host's that is set-user-ID is not any more when the guest may write it, whoever runs Domus", async () => {
  const { c, path } = await setUp(), mode = (): number => fs.statSync(path("f")).mode & 0o7777, ways: readonly [string, () => Promise<unknown>][] = [
    ["written", async () => { await c.open(1, OPEN.WRONLY); await c.write(1, 0, Buffer.from("x")); }], ["truncated", () => c.setattr(1, SETATTR.SIZE, { size: 0n })], ["opened and truncated", () => c.open(1, OPEN.RDONLY | OPEN.TRUNC)],
    ["made where it is", async () => { await c.walk(0, 2); await c.create(2, "f", OPEN.RDWR | OPEN.CREAT); await c.write(2, 0, Buffer.from("x")); await c.clunk(2); }],
  ];
  for (const [what, act] of ways) {
    fs.writeFileSync(path("f"), "program");
    fs.chmodSync(path("f"), 0o6755);
    await c.walk(0, 1, "f");
    await c.open(1);
    assert.equal(mode(), 0o6755, "who reads it leaves it");
    await c.clunk(1);
    await c.walk(0, 1, "f");
    await act();
    await c.clunk(1);
    assert.equal(mode(), 0o755, what);
  }
});

test("walking: to the first name or nowhere, as far as it goes, and a fid is made only at the end", async () => {
  const { c, path } = await setUp();
  fs.mkdirSync(path("a/b"), { recursive: true });
  fs.writeFileSync(path("a/b/f"), "");
  assert.deepEqual((await c.walk(0, 1, "a", "b", "f")).map((q) => q.type), [QT.DIR, QT.DIR, QT.FILE]);
  await refuses(ENOENT, c.walk(0, 2, "x", "b"));
  assert.equal((await c.walk(0, 2, "a", "x")).length, 1);
  await refuses(EBADF, c.clunk(2));
  await refuses(ENOTDIR, c.walk(1, 2, "x"));
  await refuses(EBADF, c.walk(0, 1));        // taken
  await refuses(EBADF, c.walk(77, 3));
  await c.walk(0, 3);
  assert.equal((await c.walk(3, 3, "a", "b")).length, 2);        // onto itself
  await c.walk(3, 4, "f");
  await c.open(4);
  await refuses(EBUSY, c.walk(4, 4));
  await c.walk(4, 5);
  await refuses(EINVAL, c.ask(T.walk, (w) => { w.u32(0).u32(9).u16(17); for (let i = 0; i < 17; i++) w.text("a"); }));
  for (const name of ["a/b", "a\0", "."]) await refuses(EINVAL, c.walk(0, 9, name));
  await refuses(ENOENT, c.walk(0, 9, ""));
  await refuses(ENAMETOOLONG, c.walk(0, 9, "n".repeat(256)));
});

test("\"..\" goes up as far as the root", async () => {
  const { c, path } = await setUp(), [root] = await c.walk(0, 9, "..");
  fs.mkdirSync(path("a/b"), { recursive: true });
  const [a, b, up, upper, uppest] = await c.walk(0, 1, "a", "b", "..", "..", "..");
  assert.notEqual(a!.path, b!.path);
  assert.deepEqual([up!.path, upper!.path, uppest!.path], [a!.path, root!.path, root!.path]);
});

test("a listing has every name once, in pieces of any size, with the qids that walking finds", async () => {
  const { c, path, root } = await setUp(), names = Array.from({ length: 700 }, (_, i) => `${"n".repeat(1 + (i % 60))}${i}`);
  for (const name of names) fs.writeFileSync(path(name), "");
  fs.mkdirSync(path("folder"));
  fs.symlinkSync("x", path("link"));
  await c.walk(0, 1);
  await c.open(1);
  for (const count of [300, 4096, 65536]) assert.deepEqual((await c.list(1, count)).sort(), [...names, "folder", "link", ".", ".."].sort());
  await refuses(EINVAL, c.readdir(1, 0n, 10));
  const some = await c.readdir(1, 0n, 60000), link = some.find((e) => e.name === "link") ?? (await c.readdir(1, some.at(-1)!.offset, 60000)).find((e) => e.name === "link");
  assert.deepEqual([link!.type, link!.qid.type], [10, QT.SYMLINK]);
  assert.equal(link!.qid.path, (await c.walk(0, 2, "link"))[0]!.path);
  assert.equal(some[0]!.qid.path, BigInt(fs.statSync(root).ino));
  // entries that go while it is read are left out, and none of the others is
  const first = await c.readdir(1, 0n, 2000);
  for (const name of names.slice(0, 350)) fs.rmSync(path(name));
  let at = first.at(-1)!.offset;
  const rest: string[] = [];
  for (let more = await c.readdir(1, at, 4096); more.length; more = await c.readdir(1, at, 4096)) { rest.push(...more.map((e) => e.name)); at = more.at(-1)!.offset; }
  const seen = new Set([...first.map((e) => e.name), ...rest]);
  for (const name of names.slice(350)) assert.ok(seen.has(name), name);
  await refuses(ENOTDIR, (async () => { await c.walk(0, 3, names[400]!); await c.open(3); await c.readdir(3, 0n, 4096); })());
});

test("names are bytes, not texts", async () => {
  const { c, root } = await setUp(), name = "\xff\xfe\x80 \\ \n";
  await c.walk(0, 1);
  await c.create(1, name);
  assert.deepEqual(fs.readdirSync(root, { encoding: "buffer" }).map((b) => b.toString("latin1")), [name]);
  await c.walk(0, 2);
  await c.open(2);
  assert.deepEqual((await c.list(2)).sort(), [".", "..", name]);
  await c.symlink(0, "l", "/\xff/\xe4");
  await c.walk(0, 3, "l");
  assert.equal(await c.readlink(3), "/\xff/\xe4");
});

test("attributes are set: size, times to the microsecond, one of them alone, now", async () => {
  const { c, path } = await setUp();
  fs.writeFileSync(path("f"), "0123456789");
  await c.walk(0, 1, "f");
  await c.setattr(1, SETATTR.SIZE, { size: 4n });
  assert.equal(fs.readFileSync(path("f"), "utf8"), "0123");
  await c.setattr(1, SETATTR.ATIME | SETATTR.ATIME_SET | SETATTR.MTIME | SETATTR.MTIME_SET, { atime: [1_600_000_000n, 5000n], mtime: [-5n, 250_000_000n] });
  const near = (got: readonly [bigint, bigint], sec: bigint, ns: bigint): void => { assert.equal(got[0], sec); assert.ok(got[1] >= ns - 1000n && got[1] <= ns + 1000n, `${got[1]} ns`); };
  let a = await c.getattr(1);
  near(a.atime, 1_600_000_000n, 5000n);
  near([BigInt.asIntN(64, a.mtime[0]), a.mtime[1]], -5n, 250_000_000n);
  const before = a.atime;
  await c.setattr(1, SETATTR.MTIME);
  a = await c.getattr(1);
  assert.deepEqual(a.atime, before, "the other time stays to the nanosecond");
  assert.ok(Math.abs(Number(a.mtime[0]) - Date.now() / 1000) < 10);
  await refuses(EINVAL, c.setattr(1, SETATTR.MTIME | SETATTR.MTIME_SET, { mtime: [1n, 1_000_000_000n] }));
  await refuses(EISDIR, c.setattr(0, SETATTR.SIZE, { size: 0n }));
  if (process.geteuid!() === 0) {
    await c.setattr(1, SETATTR.UID | SETATTR.GID, { uid: 12345, gid: 54321 });
    assert.deepEqual([fs.statSync(path("f")).uid, fs.statSync(path("f")).gid], [12345, 54321]);
    await c.setattr(1, SETATTR.GID, { gid: 7 });
    assert.deepEqual([fs.statSync(path("f")).uid, fs.statSync(path("f")).gid], [12345, 7]);
  } else {
    await refuses(EPERM, c.setattr(1, SETATTR.UID, { uid: 12345 }));
    await c.setattr(1, SETATTR.UID | SETATTR.GID, { uid: process.getuid!(), gid: process.getgid!() });        // as cp -a does of what it copies here
  }
});

test("links, names and folders: made, moved and taken away as rename and its siblings say", async () => {
  const { c, path } = await setUp();
  await c.mkdir(0, "a");
  await c.mkdir(0, "b");
  await refuses(EEXIST, c.mkdir(0, "a"));
  await c.walk(0, 1, "a");
  await c.walk(0, 2, "b");
  await c.mknod(1, "f", 0o100644);
  await refuses(EPERM, c.mknod(1, "null", 0o020666));
  await refuses(EPERM, c.mknod(1, "pipe", 0o010666));
  await c.walk(1, 3, "f");
  await c.link(2, 3, "g");
  assert.equal((await c.getattr(3)).nrLinks, 2n);
  await refuses(EPERM, c.link(2, 1, "folder"));
  await refuses(EEXIST, c.link(2, 3, "g"));
  await c.symlink(0, "s", "a/f");
  await c.walk(0, 4, "s");
  await c.link(0, 4, "s2");
  assert.equal(fs.readlinkSync(path("s2")), "a/f");
  await c.renameat(1, "f", 2, "h");
  assert.deepEqual(fs.readdirSync(path("b")).sort(), ["g", "h"]);
  await c.rename(3, 1, "back");        // by its fid, which has followed it
  assert.deepEqual([fs.readdirSync(path("a")), fs.readdirSync(path("b"))], [["back"], ["g"]]);
  await c.renameat(0, "a", 2, "a");
  assert.equal((await c.walk(1, 5, ".."))[0]!.path, (await c.walk(0, 6, "b"))[0]!.path, "what is above a folder that was moved is above it now");
  await refuses(EINVAL, c.renameat(0, "b", 1, "b"));        // into itself
  await refuses(ENOTEMPTY, c.unlinkat(0, "b", AT_REMOVEDIR));
  await refuses(EISDIR, c.unlinkat(0, "b"));
  await refuses(ENOTDIR, c.unlinkat(2, "g", AT_REMOVEDIR));
  await refuses(EINVAL, c.unlinkat(2, "g", 1));
  await c.remove(3);
  await refuses(EBADF, c.getattr(3));
  await c.remove(1);
  await refuses(ENOENT, c.walk(2, 7, "a"));
  await refuses(EBUSY, c.remove(0));
  for (const name of ["", "..", ".", "x/y"]) await assert.rejects(c.mkdir(2, name), Refused, name);
});

test("a file that is there is opened by a create that does not insist, and a link there is not followed", async () => {
  const { c, path, root } = await setUp();
  fs.writeFileSync(path("f"), "old");
  fs.symlinkSync(join(base, "outside"), path("l"));
  await c.walk(0, 1);
  await c.create(1, "f", OPEN.RDWR | OPEN.CREAT);
  assert.equal(textOf(await c.read(1, 0, 10)), "old");
  await c.walk(0, 2);
  await refuses(EEXIST, c.create(2, "f", OPEN.RDWR | OPEN.CREAT | OPEN.EXCL));
  await refuses(40, c.create(2, "l", OPEN.RDWR | OPEN.CREAT));
  assert.equal(fs.existsSync(join(base, "outside")), false);
  await c.create(2, "f", OPEN.RDWR | OPEN.CREAT | OPEN.TRUNC);
  assert.equal(fs.readFileSync(path("f"), "utf8"), "");
  assert.equal(fs.readdirSync(root).length, 2);
});

test("a share that is only read changes nothing", async () => {
  const { c, path, root } = await setUp({ isReadonly: true });
  fs.writeFileSync(path("f"), "text");
  fs.mkdirSync(path("d"));
  const before = fs.readdirSync(root).sort();
  await c.walk(0, 1, "f");
  for (const asked of [() => c.open(1, OPEN.RDWR), () => c.open(1, OPEN.WRONLY), () => c.open(1, OPEN.RDONLY | OPEN.TRUNC), () => c.create(0, "g"), () => c.mkdir(0, "g"), () => c.symlink(0, "g", "x"), () => c.mknod(0, "g", 0o100644),
    () => c.link(0, 1, "g"), () => c.renameat(0, "f", 0, "g"), () => c.rename(1, 0, "g"), () => c.unlinkat(0, "f"), () => c.unlinkat(0, "d", AT_REMOVEDIR), () => c.setattr(1, SETATTR.MODE, { mode: 0 }), () => c.setattr(1, SETATTR.SIZE)]) await refuses(EROFS, asked());
  await c.open(1);
  assert.equal(textOf(await c.read(1, 0, 10)), "text");
  await refuses(EROFS, c.write(1, 0, Buffer.from("x")));
  await c.walk(0, 2, "f");
  await refuses(EROFS, c.remove(2));
  await refuses(EBADF, c.clunk(2));
  assert.deepEqual([fs.readdirSync(root).sort(), fs.readFileSync(path("f"), "utf8"), fs.statSync(path("f")).mode & 0o777], [before, "text", 0o666 & ~process.umask()]);
});

test("what is not spoken is refused, and what is cut short too", async () => {
  const { c } = await setUp();
  for (const type of [T.auth, T.xattrwalk, T.xattrcreate, T.lerror, 200, 0, 255]) await assert.rejects(c.ask(type, (w) => w.u32(0)), (e) => e instanceof Refused && e.errno === EOPNOTSUPP, String(type));
  for (const type of Object.values(T)) if (type !== T.version) await assert.rejects(c.ask(type, (w) => w.u8(0)), Refused, String(type));
  await refuses(EINVAL, c.ask(T.write, (w) => w.u32(0).u64(0n).u32(1000).u8(1)));
  await refuses(EINVAL, c.ask(T.mkdir, (w) => w.u32(0).u16(60000).u8(65)));
  await refuses(ENOENT, c.ask(T.attach, (w) => w.u32(5).u32(0xffffffff).text("u").text("/etc").u32(0)));
  await refuses(EBADF, c.ask(T.attach, (w) => w.u32(0).u32(0xffffffff).text("u").text("").u32(0)));
  const f = await c.ask(T.statfs, (w) => w.u32(0));
  assert.equal(f.u32(), 0x01021997);
  assert.equal((await c.ask(T.lock, (w) => w.u32(0).u8(1).u32(0).u64(0n).u64(0n).u32(1).text("me"))).u8(), 0);
  const lock = await c.ask(T.getlock, (w) => w.u32(0).u8(1).u64(3n).u64(4n).u32(9).text("me"));
  assert.deepEqual([lock.u8(), lock.u64(), lock.u64(), lock.u32(), lock.text()], [2, 3n, 4n, 9, "me"]);
});

test("a flush is answered after what it flushes, also where that waits for room; a tag has one request at a time", async () => {
  const { server, path } = await setUp(), order: number[] = [], room = Promise.withResolvers<void>();
  fs.writeFileSync(path("f"), "");
  const message = (type: number, tag: number, ...bytes: number[]): Uint8Array<ArrayBuffer> => Uint8Array.of(7 + bytes.length, 0, 0, 0, type, tag, 0, ...bytes);
  const put = (tag: number, when: Promise<void> = Promise.resolve()) => async (): Promise<void> => { await when; order.push(tag); };
  assert.equal(server.take(message(T.statfs, 1, 0, 0, 0, 0), put(1, room.promise)), null);
  assert.equal(server.take(message(T.flush, 2, 1, 0), put(2)), null);
  assert.equal(server.take(message(T.flush, 3, 99, 0), put(3)), null);
  assert.equal(server.take(message(T.flush, 4, 4, 0), put(4)), null);        // itself
  assert.match(server.take(message(T.statfs, 1, 0, 0, 0, 0), put(1))!, /tag 1 is given to a second request/);
  await new Promise((done) => { setTimeout(done, 30); });
  assert.deepEqual(order.sort(), [3, 4]);
  room.resolve();
  await new Promise((done) => { setTimeout(done, 30); });
  assert.deepEqual(order, [3, 4, 1, 2]);
  await server.close();
});

test("a new version ends what was: fids are gone, and who waited gets nothing any more", async () => {
  const { c, server, path } = await setUp();
  fs.writeFileSync(path("f"), "x");
  await c.walk(0, 1, "f");
  await c.open(1);
  let isAnswered = false;
  server.take(Uint8Array.of(11, 0, 0, 0, T.statfs, 200, 0, 0, 0, 0, 0), async () => { isAnswered = true; });
  await c.version();
  assert.deepEqual([isAnswered, server.nrFids, server.isAttached], [false, 0, false]);
  await refuses(EBADF, c.read(1, 0, 1));
  await c.attach();
  assert.equal(server.isAttached, true);
  await c.clunk(0);
  assert.equal(server.isAttached, false);
  assert.equal(NOTAG, 0xffff);
});

test("two requests for one fid: one has it", async () => {
  const { c, server, path } = await setUp();
  fs.writeFileSync(path("f"), "x");
  const walks = await Promise.allSettled([c.walk(0, 1, "f"), c.walk(0, 1, "f"), c.walk(0, 1)]);
  assert.equal(walks.filter((w) => w.status === "fulfilled").length, 1);
  const opens = await Promise.allSettled([c.open(1), c.open(1), c.open(1, OPEN.RDWR)]);
  assert.equal(opens.filter((o) => o.status === "fulfilled").length, 1);
  await Promise.allSettled([c.read(1, 0, 10), c.clunk(1), c.read(1, 0, 10), c.getattr(1)]);
  assert.equal(server.nrFids, 1);
});
