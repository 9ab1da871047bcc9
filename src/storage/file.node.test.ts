import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { DiskError, type DiskFault } from "./disk.ts";
import { NodeStore, openNodeFile, Pace } from "./file.node.ts";
import { RawDisk } from "./raw.ts";

const folder = mkdtempSync(join(tmpdir(), "files-")), at = (name: string) => join(folder, name);
after(() => rmSync(folder, { recursive: true }));
const fails = (fault: DiskFault, words: RegExp) => (e: unknown) => e instanceof DiskError && e.fault === fault && words.test(e.message);

test("what is written is read, past the end are zeros, and the size follows", async () => {
  const file = await openNodeFile(at("a"), "create");
  await Promise.all([file.write(10, Uint8Array.of(1, 2, 3)), file.write(5000, Uint8Array.of(9))]);
  assert.equal(file.sizeBytes, 5001);
  const into = new Uint8Array(8).fill(7);
  await file.read(4998, into);
  assert.deepEqual([...into], [0, 0, 9, 0, 0, 0, 0, 0]);
  await file.truncate(11);
  await file.flush();
  await file.close();
  assert.deepEqual([...readFileSync(at("a")).subarray(9)], [0, 1]);
  await assert.rejects(file.read(0, into), fails("closed", /a is closed/));
});

test("what a raw disk's user discards is the file system's again where fallocate's own program makes holes", async () => {
  const mib = 1 << 20, blocks = (name: string): number => statSync(at(name)).blocks;
  writeFileSync(at("theirs"), new Uint8Array(4 * mib).fill(5));
  writeFileSync(at("ours"), new Uint8Array(4 * mib).fill(5));
  const full = blocks("ours"), theirs = spawnSync("fallocate", ["-p", "-o", String(mib), "-l", String(2 * mib), at("theirs")]), disk = new RawDisk(await openNodeFile(at("ours"), "write"));
  await disk.discard(mib, 2 * mib);
  await disk.close();
  if (theirs.status !== 0) return assert.equal(blocks("ours"), full);
  // a file of many pieces has a block or two that say where they are
  assert.ok(Math.abs(blocks("ours") - blocks("theirs")) < 64 * 2, `${blocks("ours")} sectors, by fallocate ${blocks("theirs")}`);
  assert.deepEqual(readFileSync(at("ours")), readFileSync(at("theirs")));
});

test("a punched stretch reads as zeros, the size stays, and holes stay holes", async () => {
  const file = await openNodeFile(at("punched"), "create"), mib = 1 << 20;
  await file.write(0, new Uint8Array(mib).fill(5));
  await file.truncate(8 * mib);
  await file.punch(1001, 10);
  await file.punch(mib / 2, 99 * mib);
  assert.equal(file.sizeBytes, 8 * mib);
  await file.flush();
  await file.close();
  const bytes = readFileSync(at("punched"));
  assert.deepEqual([...bytes.subarray(1000, 1012)], [5, ...new Array(10).fill(0), 5]);
  assert.ok(bytes.length === 8 * mib && bytes.subarray(mib / 2).every((b) => b === 0));
  assert.ok(statSync(at("punched")).blocks * 512 <= 2 * mib);
});

test("what cannot be opened says why in the disk's words", async () => {
  await assert.rejects(openNodeFile(at("none"), "read"), fails("missing", /none cannot be opened: it does not exist/));
  await assert.rejects(openNodeFile(at("a"), "create"), fails("exists", /a cannot be created: it exists already/));
  await assert.rejects(openNodeFile(folder, "read"), fails("unsupported", /is a folder/));
  await assert.rejects(openNodeFile("/dev/null", "write"), fails("unsupported", /neither a file nor a block device/));
});

test("a file is open for writing once, by whatever name, and readers do not mind", async () => {
  const one = await openNodeFile(at("a"), "write");
  linkSync(at("a"), at("a-too"));
  await assert.rejects(openNodeFile(at("a-too"), "write"), fails("busy", /a-too is open for writing already, in this process/));
  await (await openNodeFile(at("a"), "read")).close();
  await one.close();
  await (await openNodeFile(at("a-too"), "write")).close();
});

test("another process is kept out and told whose the file is, and let in when that process was killed", async () => {
  const code = `const { openNodeFile } = await import(${JSON.stringify(new URL("./file.node.ts", import.meta.url).href)}); await openNodeFile(${JSON.stringify(at("a"))}, "write"); console.log("open"); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: ["ignore", "pipe", "inherit"], cwd: fileURLToPath(new URL(".", import.meta.url)) });
  await once(child.stdout, "data");
  await assert.rejects(openNodeFile(at("a"), "write"), fails("busy", new RegExp(`in process ${child.pid}$`)));
  child.kill("SIGKILL");
  await once(child, "close");
  await (await openNodeFile(at("a"), "write")).close();
});

test("an image may name files of its own folder and of the roots only, symbolic links followed", async () => {
  for (const name of ["images", "images/deep", "bases", "secret"]) mkdirSync(at(name));
  for (const name of ["images/top", "images/near", "images/deep/low", "bases/base", "secret/key"]) writeFileSync(at(name), name);
  symlinkSync(at("secret/key"), at("images/link"));
  symlinkSync(at("bases/base"), at("images/good-link"));
  const store = new NodeStore({ roots: [at("bases")] }), from = at("images/top"), opens = async (path: string) => { const f = await store.open(path, "read", from); await f.close(); return f.name; };
  assert.equal(await opens("near"), at("images/near"));
  assert.equal(await opens("deep/low"), at("images/deep/low"));
  assert.equal(await opens(at("bases/base")), at("bases/base"));
  assert.equal(await opens("good-link"), at("bases/base"));
  for (const path of ["../secret/key", at("secret/key"), "link", "../images/../secret/key", "/etc/passwd"]) await assert.rejects(opens(path), fails("denied", /outside its folder; if it may be used, allow the folder \//), path);
  await assert.rejects(new NodeStore().open("../bases/base", "read", from), fails("denied", /names the file \.\.\/bases\/base/));
  await assert.rejects(opens("nowhere"), fails("missing", /nowhere/));
});

test("requests are done at once while they are quick; a slow one sends the next by threads, more of them each time, and quick ones bring it back", () => {
  const pace = new Pace(), byThreads = (): number => { let n = 0; while (!pace.atOnce) n++; return n; };
  assert.equal(byThreads(), 0);
  pace.took(0.1, 4096);
  assert.equal(byThreads(), 0);
  pace.took(1.2, 1 << 20);
  assert.equal(byThreads(), 0, "a MiB may take a millisecond");
  const counts = Array.from({ length: 10 }, () => { pace.took(5, 4096); return byThreads(); });
  assert.deepEqual(counts, [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096]);
  for (let i = 0; i < 200; i++) pace.took(0.01, 4096);
  pace.took(5, 4096);
  assert.equal(byThreads(), 16);
});

test("reads and writes by threads do what those at once do", async () => {
  const file = await openNodeFile(at("threads"), "create"), slow = Pace.prototype as { atOnce: boolean }, was = Object.getOwnPropertyDescriptor(Pace.prototype, "atOnce")!;
  Object.defineProperty(slow, "atOnce", { configurable: true, get: () => false });
  try {
    const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => i % 251), into = new Uint8Array(100_010).fill(7);
    await Promise.all([file.write(5, bytes), file.write(200_000, bytes)]);
    assert.equal(file.sizeBytes, 300_000);
    await file.read(0, into);
    assert.deepEqual(into.subarray(5, 100_005), bytes);
    assert.ok(into.subarray(100_005).every((b) => b === 0));
    await file.read(299_999, into);
    assert.deepEqual([into[0], into[1]], [bytes.at(-1), 0]);
  } finally { Object.defineProperty(slow, "atOnce", was); }
  await file.close();
});
