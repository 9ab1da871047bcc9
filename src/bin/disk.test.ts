import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { UserError } from "../base/errors.ts";
import { openNodeFile } from "../storage/file.node.ts";
import { disk, parseSize } from "./disk.ts";

const folder = mkdtempSync(join(tmpdir(), "disk-")), at = (name: string) => join(folder, name);
after(() => rmSync(folder, { recursive: true }));
const qemuImg = (...args: string[]): string => execFileSync("qemu-img", args, { encoding: "utf8", cwd: folder });
/** Run the command here. */
async function domusDisk(...args: string[]): Promise<{ code: number; out: string }> {
  let out = "";
  return { code: await disk(args, (text) => { out += text; }), out };
}
const refuses = (words: RegExp, ...args: string[]) => assert.rejects(disk(args), (e) => e instanceof UserError && words.test(e.message), args.join(" "));

test("sizes are numbers with a unit, in whole sectors", () => {
  assert.deepEqual(["512", "64K", "512M", "10G", "1T", "2GiB", "1mb"].map(parseSize), [512, 65536, 2 ** 29, 10 * 2 ** 30, 2 ** 40, 2 ** 31, 2 ** 20]);
  for (const bad of ["", "10", "1.5G", "-1G", "G", "9999999P", "1e9"]) assert.throws(() => parseSize(bad), UserError, bad);
});

test("images are made, described, checked and grown, and qemu-img agrees", async () => {
  assert.equal((await domusDisk("create", at("a.qcow2"), "10G", "--cluster", "4K", "--refcount-bits=8")).code, 0);
  const found = JSON.parse((await domusDisk("info", at("a.qcow2"), "--json")).out), theirs = JSON.parse(qemuImg("info", "--output=json", "a.qcow2"));
  assert.deepEqual([found.sizeBytes, found.clusterBytes, found.refcountBits, found.version], [theirs["virtual-size"], theirs["cluster-size"], theirs["format-specific"].data["refcount-bits"], 3]);
  assert.equal((await domusDisk("resize", at("a.qcow2"), "+1G")).code, 0);
  assert.equal(JSON.parse(qemuImg("info", "--output=json", "a.qcow2"))["virtual-size"], 11 * 2 ** 30);
  assert.match((await domusDisk("check", at("a.qcow2"))).out, /0 errors, 0 leaked/);
  await refuses(/making it smaller would cut data off/, "resize", at("a.qcow2"), "1G");
  await refuses(/a\.qcow2 exists/, "create", at("a.qcow2"), "1G");
  assert.equal((await domusDisk("create", at("b.img"), "1M")).code, 0);
  assert.equal(statSync(at("b.img")).size, 1 << 20);
  await refuses(/does not end in a format's name; say --format/, "create", at("b"), "1M");
  await refuses(/Clusters, versions and refcounts are qcow2's/, "create", at("c.raw"), "1M", "--cluster=4K");
});

test("convert goes every way, leaves zeros out, reads compressed images, and takes a snapshot for the source", async () => {
  const bytes = new Uint8Array(8 << 20);
  for (let i = 1 << 20; i < 2 << 20; i++) bytes[i] = (i * i) >> 7;
  bytes.fill(3, 6 << 20, (6 << 20) + 700);
  writeFileSync(at("x.raw"), bytes);
  assert.equal((await domusDisk("convert", at("x.raw"), at("x.qcow2"))).code, 0);
  qemuImg("check", "x.qcow2");
  qemuImg("compare", "-f", "raw", "-F", "qcow2", "x.raw", "x.qcow2");
  assert.ok(statSync(at("x.qcow2")).size < 2 << 20);
  for (const type of ["zlib", "zstd"]) {
    qemuImg("convert", "-c", "-O", "qcow2", "-o", `compression_type=${type}`, "-f", "raw", "x.raw", `${type}.qcow2`);
    await domusDisk("convert", at(`${type}.qcow2`), at(`${type}.raw`));
    assert.equal(Buffer.compare(readFileSync(at(`${type}.raw`)), bytes), 0);
    assert.ok(statSync(at(`${type}.raw`)).blocks * 512 < 2 << 20);
  }
  await domusDisk("snapshot", "create", at("x.qcow2"), "clean");
  execFileSync("qemu-io", ["-f", "qcow2", "-c", "write -P 9 0 3M", at("x.qcow2")]);
  assert.match((await domusDisk("snapshot", "list", at("x.qcow2"))).out, /^snapshot 1: clean, /m);
  await domusDisk("convert", "--snapshot", "clean", at("x.qcow2"), "-O", "raw", at("back"));
  assert.equal(Buffer.compare(readFileSync(at("back")), bytes), 0);
  await domusDisk("snapshot", "apply", at("x.qcow2"), "clean");
  await domusDisk("snapshot", "delete", at("x.qcow2"), "clean");
  qemuImg("compare", "-f", "raw", "-F", "qcow2", "x.raw", "x.qcow2");
  assert.match(qemuImg("check", "x.qcow2"), /No errors/);
  await refuses(/has no snapshot "clean"/, "snapshot", "apply", at("x.qcow2"), "clean");
});

test("a clone holds changes to its base, which an image may only name in its own folder or where allowed", async () => {
  writeFileSync(at("base.raw"), new Uint8Array(1 << 20).fill(5));
  await domusDisk("clone", at("base.raw"), at("clone.qcow2"));
  const backing = JSON.parse((await domusDisk("info", "--json", at("clone.qcow2"))).out).backing;
  assert.deepEqual(backing, { path: "base.raw", format: "raw" });
  await domusDisk("convert", at("clone.qcow2"), at("flat.raw"));
  assert.ok(readFileSync(at("flat.raw")).every((b) => b === 5));
  mkdirSync(at("else"));
  qemuImg("create", "-f", "qcow2", "-b", "../base.raw", "-F", "raw", "else/far.qcow2");
  await refuses(/names the file \.\.\/base\.raw .*outside its folder; if it may be used, allow the folder/, "convert", at("else/far.qcow2"), at("far.raw"));
  assert.equal((await domusDisk("convert", at("else/far.qcow2"), at("far.raw"), "--allow", folder)).code, 0);
});

test("check tells errors from leaks by its exit code, and repairs", async () => {
  await domusDisk("create", at("hurt.qcow2"), "1M");
  const bytes = readFileSync(at("hurt.qcow2"));
  bytes.writeUInt16BE(1, 2 * 65536 + 20);
  writeFileSync(at("hurt.qcow2"), bytes);
  assert.equal((await domusDisk("check", at("hurt.qcow2"))).code, 3);
  bytes.writeUInt16BE(0, 2 * 65536 + 6);
  writeFileSync(at("hurt.qcow2"), bytes);
  const { code, out } = await domusDisk("check", at("hurt.qcow2"), "--json");
  assert.deepEqual([code, JSON.parse(out).nrErrors, JSON.parse(out).nrLeaks], [1, 1, 1]);
  assert.equal((await domusDisk("check", at("hurt.qcow2"), "--repair=all")).code, 0);
  assert.match(qemuImg("check", "hurt.qcow2"), /No errors/);
  await refuses(/is not a qcow2 image/, "check", "--format=qcow2", at("base.raw"));
});

test("an image that somebody writes is neither checked nor copied", async () => {
  const file = await openNodeFile(at("clone.qcow2"), "write");
  for (const args of [["check", at("clone.qcow2")], ["convert", at("clone.qcow2"), at("no.raw")], ["clone", at("clone.qcow2"), at("no.qcow2")], ["resize", at("clone.qcow2"), "+1M"]]) await refuses(/clone\.qcow2 is open for writing already/, ...args);
  await file.close();
});

test("a disk of no bytes is an image like others", async () => {
  await domusDisk("create", at("zero.qcow2"), "0");
  await domusDisk("snapshot", "create", at("zero.qcow2"), "nothing");
  await domusDisk("resize", at("zero.qcow2"), "1M");
  await domusDisk("snapshot", "apply", at("zero.qcow2"), "nothing");
  assert.match(qemuImg("check", "zero.qcow2"), /No errors/);
  assert.equal(JSON.parse((await domusDisk("info", "--json", at("zero.qcow2"))).out).sizeBytes, 0);
});

test("^C in a copy leaves nothing under the target's name, nor beside it", async () => {
  writeFileSync(at("endless.raw"), "");
  truncateSync(at("endless.raw"), 2 ** 43);
  const child: ChildProcess = spawn(process.execPath, [fileURLToPath(new URL("./domus.node.ts", import.meta.url)), "disk", "convert", at("endless.raw"), at("never.qcow2")], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr!.on("data", (b) => { said += b; });
  while (!existsSync(at("never.qcow2.part"))) await new Promise((r) => setTimeout(r, 20));
  await new Promise((r) => setTimeout(r, 200));
  child.kill("SIGINT");
  const [code] = await once(child, "close");
  assert.equal(code, 130, said);
  assert.match(said, /interrupted; .*never\.qcow2 was not made/);
  assert.deepEqual(readdirSync(folder).filter((f) => f.startsWith("never")), []);
});

test("words that are wrong are refused with the right ones", async () => {
  await refuses(/What to do: domus disk create\|/);
  await refuses(/"explode" is not known/, "explode");
  await refuses(/Something is missing: domus disk resize FILE SIZE/, "resize", "x.qcow2");
  await refuses(/"c" is too much/, "convert", "a", "b", "c");
  await refuses(/nothing\.qcow2 cannot be opened: it does not exist/, "info", at("nothing.qcow2"));
  assert.match((await domusDisk("--help")).out, /130 on \^C/);
});
