/** That a guest's names lead nowhere but into the folder, whatever is done to it meanwhile; that what it may open has bounds; and that what it does is what a process in the folder would do. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import * as fs from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EBUSY, ENAMETOOLONG, ENFILE, ENOENT, ENOTDIR, ENXIO, EOPNOTSUPP } from "../../abi/errno.ts";
import { seeded } from "../fixture.ts";
import { directClient, type P9Client, Refused, textOf } from "./fixture.ts";
import { hasRemoteBelow, nodeFolder } from "./folder.node.ts";
import type { Folder } from "./folder.ts";
import { AT_REMOVEDIR, OPEN, SETATTR } from "./protocol.ts";
import type { Server } from "./server.ts";

const ELOOP = 40, ESTALE = 116;
const base = fs.mkdtempSync(join(tmpdir(), "domus-9p-folder-"));
after(() => fs.rmSync(base, { recursive: true, force: true }));
const secret = join(base, "secret");
fs.mkdirSync(secret);
fs.writeFileSync(join(secret, "f"), "secret", { mode: 0o600 });
/** What is outside is as it was. */
function untouched(): void {
  const { mode, mtimeMs } = fs.statSync(join(secret, "f"));
  assert.deepEqual([fs.readdirSync(secret), fs.readFileSync(join(secret, "f"), "utf8"), mode & 0o777], [["f"], "secret", 0o600]);
  assert.ok(mtimeMs > Date.now() - 3600_000);
}
let nr = 0;
async function setUp(): Promise<{ c: P9Client; server: Server; folder: Folder; root: string; path: (name: string) => string }> {
  const root = join(base, `share${++nr}`);
  fs.mkdirSync(root);
  const folder = await nodeFolder(root).open(), { client, server } = directClient(folder);
  return { c: await client.begin(), server, folder, root, path: (name) => join(root, name) };
}
const refuses = (errno: number, asked: Promise<unknown>): Promise<void> => assert.rejects(asked, (e) => e instanceof Refused && e.errno === errno || (() => { throw e; })());
const nrDescriptors = (): number => fs.readdirSync("/proc/self/fd").length;
/** Descriptors are closed by threads. */
const closes = async (most: number): Promise<void> => { for (let i = 0; i < 200 && nrDescriptors() > most; i++) await new Promise((done) => { setTimeout(done, 5); }); assert.ok(nrDescriptors() <= most, `${nrDescriptors()} descriptors, not ${most}`); };

test("a link out of the folder is a text to the guest, and nothing is done to where it leads", async () => {
  const { c, path } = await setUp();
  for (const [name, target] of [["dir", secret], ["file", join(secret, "f")], ["up", ".."], ["rel", "../secret"], ["self", "/proc/self/root"]] as const) {
    fs.symlinkSync(target, path(name));
    const fid = 10;
    await c.walk(0, fid, name);
    assert.equal(await c.readlink(fid), target);
    assert.equal((await c.getattr(fid)).mode & 0o170000, 0o120000);
    assert.equal((await c.walk(0, 11, name, "f")).length, 1, "not beyond a link");
    await refuses(ENOTDIR, c.walk(fid, 11, "f"));
    for (const flags of [OPEN.RDONLY, OPEN.RDWR, OPEN.WRONLY | OPEN.TRUNC]) await refuses(ELOOP, c.open(fid, flags));
    await refuses(EOPNOTSUPP, c.setattr(fid, SETATTR.MODE, { mode: 0o777 }));
    await refuses(22, c.setattr(fid, SETATTR.SIZE, { size: 0n }));
    await c.setattr(fid, SETATTR.MTIME | SETATTR.MTIME_SET, { mtime: [5n, 0n] });
    assert.equal(fs.lstatSync(path(name)).mtimeMs, 5000);
    if (process.geteuid!() === 0) await c.setattr(fid, SETATTR.UID, { uid: 77 });
    for (const asked of [() => c.create(fid, "new"), () => c.mkdir(fid, "new"), () => c.symlink(fid, "new", "x"), () => c.unlinkat(fid, "f"), () => c.renameat(fid, "f", 0, "mine"), () => c.renameat(0, name, fid, "x")]) await refuses(ENOTDIR, asked());
    await c.walk(0, 12);
    await refuses(ELOOP, c.create(12, name, OPEN.RDWR | OPEN.TRUNC));
    await c.clunk(12);
    await c.clunk(fid);
  }
  // a link of the guest's own
  await c.symlink(0, "mine", join(secret, "f"));
  await c.walk(0, 1, "mine");
  await refuses(ELOOP, c.open(1));
  untouched();
});

test("a folder that is exchanged for a link out is not left by it, with its descriptor or without", async () => {
  const { c, path } = await setUp();
  fs.mkdirSync(path("d"));
  fs.writeFileSync(path("d/f"), "mine");
  await c.walk(0, 1, "d");
  await c.walk(1, 2, "f");
  fs.renameSync(path("d"), path("was"));
  fs.symlinkSync(secret, path("d"));
  await refuses(ENOTDIR, c.walk(1, 3).then(() => c.walk(0, 4, "d")).then(() => c.walk(4, 5, "f")));
  await c.clunk(3);
  await c.walk(1, 3);
  await c.create(3, "made");
  assert.deepEqual(fs.readdirSync(path("was")).sort(), ["f", "made"]);
  await c.open(2, OPEN.RDWR);
  assert.equal(textOf(await c.read(2, 0, 10)), "mine");
  // so many others that the descriptors of the first go: by their names they come again, or not
  for (let i = 0; i < 600; i++) fs.writeFileSync(path(`n${i}`), "");
  for (let i = 0; i < 600; i++) await c.walk(0, 100 + i, `n${i}`);
  await refuses(ESTALE, c.walk(1, 6, "f"));
  await refuses(ESTALE, c.create(1, "made2"));
  await refuses(ESTALE, c.unlinkat(1, "f"));
  fs.rmSync(path("d"));
  fs.renameSync(path("was"), path("d"));
  await c.walk(1, 6, "f");
  untouched();
});

test("a file that has lost its name while it is open is looked at and changed by all who hold it, however many others are held", async () => {
  const { c, path } = await setUp();
  for (let i = 0; i < 600; i++) fs.writeFileSync(path(`n${i}`), "");
  await c.walk(0, 1);
  await c.create(1, "made");
  fs.writeFileSync(path("found"), "");
  await c.walk(0, 2, "found");
  await c.walk(2, 3);
  await c.open(3, OPEN.RDWR);
  for (const name of ["made", "found"]) await c.unlinkat(0, name);
  for (let i = 0; i < 600; i++) await c.walk(0, 100 + i, `n${i}`);
  for (const [fid, by] of [[1, 1], [3, 2]] as const) {
    await c.write(fid, 0, Buffer.from("text"));
    const { nrLinks, sizeBytes } = await c.getattr(by);
    assert.deepEqual([nrLinks, sizeBytes], [0n, 4n]);
    await c.setattr(by, SETATTR.SIZE, { size: 2n });
    assert.equal(textOf(await c.read(fid, 0, 10)), "te");
  }
  await c.clunk(3);
  for (let i = 0; i < 600; i++) await c.getattr(100 + i);
  await refuses(ENOENT, c.getattr(2));
});

test("a host that moves a folder out does not open what is above it", async () => {
  const { c, path } = await setUp(), out = join(base, "out");
  fs.mkdirSync(path("d/e"), { recursive: true });
  await c.walk(0, 1, "d", "e");
  fs.renameSync(path("d"), out);
  const [d, root, rootToo] = await c.walk(1, 2, "..", "..", "..");
  assert.deepEqual([d!.path, root!.path, rootToo!.path], [BigInt(fs.statSync(out).ino), BigInt(fs.statSync(path(".")).ino), BigInt(fs.statSync(path(".")).ino)]);
  fs.rmSync(out, { recursive: true });
});

test("while another process exchanges folders and links for one another, nothing outside is reached", { timeout: 60_000 }, async () => {
  const { c, path, root } = await setUp();
  fs.mkdirSync(path("d"));
  fs.writeFileSync(path("d/f"), "mine");
  const swapper = spawn(process.execPath, ["-e", `const fs = require("fs"), p = (n) => ${JSON.stringify(root)} + "/" + n; fs.symlinkSync(${JSON.stringify(secret)}, p("l"));
    for (const end = Date.now() + 3000; Date.now() < end;) try { fs.renameSync(p("d"), p("t")); fs.renameSync(p("l"), p("d")); fs.renameSync(p("d"), p("l")); fs.renameSync(p("t"), p("d")); } catch { try { fs.renameSync(p("t"), p("d")); } catch {} }`], { stdio: "inherit" });
  let isOver = false, nrReached = 0, nrMissed = 0;
  swapper.on("exit", () => { isOver = true; });
  while (!isOver) {
    await Promise.all(Array.from({ length: 4 }, async (_, k) => {
      const fid = 10 + k * 3;
      try {
        if ((await c.walk(0, fid, "d", "f")).length < 2) throw new Refused(0, ENOENT);
        try {
          await c.open(fid, OPEN.RDWR);
          assert.equal(textOf(await c.read(fid, 0, 10)), "mine");
          await c.write(fid, 0, Buffer.from("mine"));
          nrReached++;
        } finally { await c.clunk(fid); }
      } catch (e) { if (!(e instanceof Refused)) throw e; nrMissed++; }
      try {
        await c.walk(0, fid, "d");
        try {
          await c.create(fid, `n${k}`, OPEN.RDWR | OPEN.CREAT);
        } finally { await c.clunk(fid); }
      } catch (e) { if (!(e instanceof Refused)) throw e; }
      for (const asked of [() => c.mkdir(0, "x"), () => c.unlinkat(0, "x", AT_REMOVEDIR)]) await asked().catch((e) => { if (!(e instanceof Refused)) throw e; });
    }));
  }
  assert.ok(nrReached > 10 && nrMissed > 10, `${nrReached} times the file, ${nrMissed} times not`);
  untouched();
});

test("what the kernel shows of itself is not entered, wherever it is mounted", async () => {
  assert.ok(fs.statSync("/proc/self/mem").isFile(), "by which the guest would be in this process");
  const folder = await nodeFolder("/").open(), { client: c } = directClient(folder);
  await c.begin();
  for (const name of ["proc", "sys"]) if (fs.existsSync(`/${name}/kernel`) || fs.existsSync(`/${name}/self`)) await refuses(13, c.walk(0, 1, name));
  await folder.close();
  assert.throws(() => nodeFolder("/proc"), { name: "UserError", message: /\/proc is a file system of the kernel's own/ });
});

test("a file system that may hang is seen where it is mounted in the folder, by its mount: nothing is done at once then", () => {
  const mounts = (at: string, type: string): string => `22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n37 22 0:33 / ${at} rw,nosuid shared:9 master:1 - ${type} me@there:/a rw\n`;
  for (const type of ["fuse.sshfs", "nfs4", "cifs", "autofs"]) assert.equal(hasRemoteBelow(mounts("/srv/x/far", type), "/srv/x"), true, type);
  assert.equal(hasRemoteBelow(mounts("/srv/a\\040b\\134/far", "nfs"), "/srv/a b\\"), true);
  assert.equal(hasRemoteBelow(mounts("/far", "nfs"), "/"), true);
  for (const [at, type] of [["/srv/xy/far", "nfs"], ["/srv/x", "nfs"], ["/srv", "nfs"], ["/srv/x/near", "tmpfs"], ["/srv/x/near", "nfsd"]] as const) assert.equal(hasRemoteBelow(mounts(at, type), "/srv/x"), false, at);
  assert.equal(hasRemoteBelow("", "/"), false);
});

test("what is no file is never opened: FIFOs, sockets and devices are only looked at", { timeout: 20_000 }, async () => {
  const { c, path } = await setUp(), names = ["pipe", "socket"];
  execFileSync("mkfifo", [path("pipe")]);
  const socket = createServer().listen(path("socket"));
  await new Promise((done) => socket.once("listening", done));
  if (process.geteuid!() === 0) try { execFileSync("mknod", [path("null"), "c", "1", "3"], { stdio: "ignore" }); names.push("null"); } catch { /* not in every container */ }
  for (const name of names) {
    await c.walk(0, 1, name);
    for (const flags of [OPEN.RDONLY, OPEN.WRONLY, OPEN.RDWR]) await refuses(ENXIO, c.open(1, flags));
    await c.walk(0, 2);
    await refuses(ENXIO, c.create(2, name, OPEN.WRONLY));
    await refuses(22, c.setattr(1, SETATTR.SIZE, { size: 0n }));
    await c.setattr(1, SETATTR.MODE, { mode: 0o600 });
    await c.clunk(2);
    await c.remove(1);
  }
  socket.close();
});

test("what a guest may hold has bounds: descriptors, open files, depth; and all is given back at the end", async () => {
  const before = nrDescriptors(), { c, server, folder, path } = await setUp();
  for (let i = 0; i < 1100; i++) fs.writeFileSync(path(`n${i}`), String(i));
  for (let i = 0; i < 1100; i++) await c.walk(0, 10 + i, `n${i}`);
  await closes(before + 256 + 4);
  for (let i = 0; i < 1024; i++) await c.open(10 + i);
  await refuses(ENFILE, c.open(10 + 1024));
  assert.equal(textOf(await c.read(10 + 500, 0, 10)), "500");
  await c.clunk(10);
  await c.open(10 + 1024);
  await refuses(ENFILE, c.create(0, "more"));
  let depth = 0;
  await c.walk(0, 5);
  for (; depth < 3000; depth++) {
    try {
      await c.mkdir(5, "d");
      await c.walk(5, 5, "d");
    } catch (e) { assert.equal((e as Refused).errno, ENAMETOOLONG); break; }
  }
  assert.ok(depth > 1000 && depth < 1100, `${depth}`);
  let nrDeep = 0;
  for (; nrDeep < 10_000; nrDeep++) try { assert.equal((await c.walk(0, 10_000 + nrDeep, ...Array.from({ length: 16 }, () => "d"))).length, 16); } catch (e) { if (e instanceof Refused) assert.equal(e.errno, ENFILE); break; }
  assert.ok(nrDeep > 3000 && nrDeep < 4096, `${nrDeep} walks to deep places`);
  assert.equal(depthOf(path), depth + 1);
  await server.close();
  await folder.close();
  await closes(before);
});
/** Folders in one another, each named "d". */
function depthOf(path: (name: string) => string): number {
  let depth = 0;
  const cwd = process.cwd();
  try {
    process.chdir(path("."));
    for (; fs.existsSync("d"); depth++) process.chdir("d");
  } finally { process.chdir(cwd); }
  return depth;
}

test("a place that moves have made thousands of folders deep is found again, and nobody waits for it alone", { timeout: 60_000 }, async () => {
  const { c, path } = await setUp(), nrChains = 4;
  for (let k = 0; k < nrChains; k++) {
    await c.mkdir(0, `t${k}`);
    await c.walk(0, 10 + k, `t${k}`);
    for (let i = 0; i < 1000; i++) {
      await c.mkdir(10 + k, "d");
      await c.walk(10 + k, 10 + k, "d");
    }
    if (k > 0) await c.renameat(0, `t${k}`, 9 + k, "t");
  }
  for (let i = 0; i < 600; i++) fs.writeFileSync(path(`n${i}`), "");
  for (let i = 0; i < 600; i++) await c.walk(0, 100 + i, `n${i}`);
  let nrTurns = 0, isOver = false;
  const turn = (): void => { nrTurns++; if (!isOver) setImmediate(turn); };
  turn();
  await c.getattr(9 + nrChains).finally(() => { isOver = true; });
  assert.ok(nrTurns > 3, `${nrTurns} turns of other tasks`);
  for (let k = nrChains - 1; k > 0; k--) await c.renameat(9 + k, "t", 0, `t${k}`);        // who removes all this goes by paths
});

test("places that many shares hold leave the process descriptors for other things", { timeout: 30_000 }, () => {
  const root = join(base, "many");
  fs.mkdirSync(root);
  for (let i = 0; i < 300; i++) fs.writeFileSync(join(root, `n${i}`), String(i));
  const script = `import * as fs from "node:fs";
    import { nodeFolder } from ${JSON.stringify(new URL("folder.node.ts", import.meta.url).href)};
    const folders = await Promise.all(Array.from({ length: 4 }, () => nodeFolder(${JSON.stringify(root)}).open())), held = [];
    for (const { root } of folders) for (let i = 0; i < 300; i++) held.push((await root.walk("n" + i)).node);
    for (const node of held) await node.stat(null);
    console.log(fs.readdirSync("/proc/self/fd").length);`;
  const nr = Number(execFileSync("sh", ["-c", 'ulimit -n 400; exec "$@"', "sh", process.execPath, "--input-type=module", "-e", script], { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }));
  assert.ok(nr > 50 && nr < 200, `${nr} descriptors of 400`);
});

test("names that lead round in a circle, after the host and the guest have both moved folders, hold nobody up", async () => {
  const { c, path } = await setUp();
  fs.mkdirSync(path("a/b"), { recursive: true });
  await c.walk(0, 1, "a");
  await c.walk(1, 2, "b");
  fs.renameSync(path("a/b"), path("b"));
  await c.renameat(0, "a", 2, "a");        // into what it believes to be below it
  for (let i = 0; i < 600; i++) await c.mkdir(0, `n${i}`);
  for (let i = 0; i < 600; i++) await c.walk(0, 100 + i, `n${i}`);
  await Promise.allSettled([c.getattr(1), c.getattr(2), c.walk(1, 5, "..", "..", ".."), c.walk(2, 6, "..", "..")]);
  assert.equal((await c.walk(0, 7, "b", "a")).length, 2);
});

test("a place that is let go of while a request has it is not held once more: what is above it stays", async () => {
  const { c, server, folder, path } = await setUp(), before = nrDescriptors();
  fs.mkdirSync(path("d/e"), { recursive: true });
  for (let i = 0; i < 8; i++) {
    await c.walk(0, 1, "d", "e");
    await c.open(1);
    await c.readdir(1, 0n, 4096);
    await Promise.allSettled([c.readdir(1, 1n, 4096), c.clunk(1)]);        // ".." is looked at when the fid is gone
    fs.writeFileSync(path("f"), "");
    await c.walk(0, 2, "d");
    await c.walk(0, 3, "f");
    const [moved] = await Promise.allSettled([c.renameat(0, "f", 2, "g"), c.clunk(2)]);
    assert.equal(moved.status, "fulfilled");
    await c.clunk(3);
  }
  assert.equal((await c.walk(0, 1, "d", "g")).length, 2);
  await server.close();
  await closes(before);
  assert.ok((await folder.root.stat(null)).nrLinks > 0n);
  await folder.close();
  await closes(before - 1);
});

test("the root stays", async () => {
  const { c } = await setUp();
  await refuses(EBUSY, c.rename(0, 0, "x"));
  await c.walk(0, 1);
  await refuses(EBUSY, c.remove(1));
});

test("what a folder's name leads to is settled when it is named: a link that is put there is not followed by its domain's next life", async () => {
  const { c, path } = await setUp();
  fs.mkdirSync(path("d"));
  fs.symlinkSync(path("d"), path("byLink"));
  const inner = nodeFolder(path("d")), linked = nodeFolder(path("byLink"));
  await (await inner.open()).close();
  await c.renameat(0, "d", 0, "was");        // by a guest that has the folder above
  await c.symlink(0, "d", secret);
  for (const source of [inner, linked]) await assert.rejects(source.open(), { name: "UserError", message: /is another folder now, for a link stands in its way/ });
  await c.unlinkat(0, "d");
  await c.renameat(0, "was", 0, "d");
  await (await linked.open()).close();
  untouched();
});

test("a folder that cannot be shared is told of with what to do", () => {
  fs.writeFileSync(join(base, "file"), "");
  assert.throws(() => nodeFolder(join(base, "nowhere")), { name: "UserError", message: /nowhere does not exist; make the folder/ });
  assert.throws(() => nodeFolder(join(base, "file")), { name: "UserError", message: /file is not a folder; share the folder it is in/ });
});

/** The errno of what a call on the host failed with, or null. */
const errnoOf = (call: () => void): number | null => { try { call(); return null; } catch (e) { return -(e as NodeJS.ErrnoException).errno!; } };
const toErrno = (asked: Promise<unknown>): Promise<number | null> => asked.then(() => null, (e) => { if (e instanceof Refused) return e.errno; throw e; });
/** All of a tree: paths, kinds, modes, contents, targets. */
function picture(root: string): string[] {
  return (fs.readdirSync(root, { recursive: true, withFileTypes: true }) as fs.Dirent[]).map((e) => {
    const path = join(e.parentPath, e.name), s = fs.lstatSync(path);
    return `${path.slice(root.length)} ${s.mode.toString(8)} ${s.nlink} ${s.isFile() ? fs.readFileSync(path, "latin1") : s.isSymbolicLink() ? fs.readlinkSync(path) : ""}`;
  }).sort();
}
test("random work through the server leaves what the same work does without it, and fails where that fails", { timeout: 120_000 }, async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const { c, root } = await setUp(), twin = `${root}-twin`, rnd = seeded(seed), names = ["a", "b", "c", "d", "e"];
    fs.mkdirSync(twin);
    let nrDone = 0, nrFailed = 0;
    const some = (): string[] => Array.from({ length: 1 + rnd(3) }, () => names[rnd(names.length)]!);
    /** Fid `to` at a path; the twin's path. Null where there is nothing, or a link where a folder is wanted: a path of the host would follow it. */
    const reach = async (to: number, path: readonly string[], isFolder = true): Promise<string | null> => {
      if (path.length && (await c.walk(0, to, ...path).catch((e) => { if (e instanceof Refused) return []; throw e; })).length < path.length) return null;
      if (path.length === 0) await c.walk(0, to);
      if (isFolder && fs.lstatSync(join(twin, ...path)).isSymbolicLink()) {
        await c.clunk(to);
        return null;
      }
      return join(twin, ...path);
    };
    for (let i = 0; i < 250; i++) {
      const path = some(), name = path.pop()!, other = some(), otherName = other.pop()!, folder = await reach(1, path), to = await reach(2, other), what = `seed ${seed}, step ${i}`;
      const file = folder === null ? null : await reach(3, [...path, name], false);
      let ours: number | null = null, theirs: number | null = null;
      if (folder !== null) {
        const at = join(folder, name), size = rnd(50), bytes = Buffer.from(String.fromCharCode(97 + rnd(26)).repeat(1 + rnd(40)));
        switch (rnd(10)) {
          case 0: ours = await toErrno(c.mkdir(1, name, 0o750)); theirs = errnoOf(() => { fs.mkdirSync(at, 0o750); fs.chmodSync(at, 0o750); }); break;
          case 1: case 2: ours = await toErrno(c.walk(1, 4).then(() => c.create(4, name, OPEN.RDWR | OPEN.CREAT | OPEN.EXCL, 0o604)).finally(() => c.clunk(4))); theirs = errnoOf(() => { fs.closeSync(fs.openSync(at, "wx+", 0o604)); fs.chmodSync(at, 0o604); }); break;
          case 3: ours = await toErrno(c.symlink(1, name, "a/b")); theirs = errnoOf(() => fs.symlinkSync("a/b", at)); break;
          case 4: ours = await toErrno(c.unlinkat(1, name)); theirs = errnoOf(() => fs.unlinkSync(at)); break;
          case 5: ours = await toErrno(c.unlinkat(1, name, AT_REMOVEDIR)); theirs = errnoOf(() => fs.rmdirSync(at)); break;
          case 6: if (to !== null) { ours = await toErrno(c.renameat(1, name, 2, otherName)); theirs = errnoOf(() => fs.renameSync(at, join(to, otherName))); } break;
          case 7: if (to !== null && file !== null) { ours = await toErrno(c.link(2, 3, otherName)); theirs = errnoOf(() => fs.linkSync(at, join(to, otherName))); } break;
          case 8: if (file !== null && fs.lstatSync(at).isFile()) {
            ours = await toErrno(c.open(3, OPEN.WRONLY).then(() => c.write(3, size, bytes)));
            theirs = errnoOf(() => { const fd = fs.openSync(at, "r+"); fs.writeSync(fd, bytes, 0, bytes.length, size); fs.closeSync(fd); });
          } break;
          default: if (file !== null && !fs.lstatSync(at).isSymbolicLink()) { ours = await toErrno(c.setattr(3, SETATTR.MODE, { mode: 0o700 + rnd(64) })); theirs = errnoOf(() => fs.chmodSync(at, fs.statSync(join(root, ...path, name)).mode)); }
        }
      }
      assert.equal(ours, theirs, what);
      if (ours === null) nrDone++; else nrFailed++;
      for (const fid of [...(folder === null ? [] : [1]), ...(to === null ? [] : [2]), ...(file === null ? [] : [3])]) await c.clunk(fid);
      if (i % 25 === 0) assert.deepEqual(picture(root), picture(twin), what);
    }
    assert.deepEqual(picture(root), picture(twin), `seed ${seed}`);
    assert.ok(nrDone > 50 && nrFailed > 10, `${nrDone} done, ${nrFailed} failed`);
  }
});
