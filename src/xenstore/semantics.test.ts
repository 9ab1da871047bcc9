import assert from "node:assert/strict";
import test from "node:test";
import { XENSTORE_PAYLOAD_MAX, XS } from "../abi/io/xs_wire.ts";
import { Client } from "./client.ts";
import { Store } from "./store.ts";
import { Bench } from "./fixture.ts";

test("what a released domain owned goes with all below it, watchers are told, and the next domain of that number starts with nothing", () => {
  const b = new Bench(), two = b.connect(2);
  b.ask(b.dom0, XS.MKDIR, "/shared\0");
  b.ask(b.dom0, XS.SET_PERMS, "/shared\0n0\0b2\0");
  b.ask(two, XS.WRITE, "/shared/mine/deep\0x");
  b.ask(b.dom0, XS.WRITE, "/shared/mine/deep/dom0s\0x");
  b.ask(b.dom0, XS.SET_PERMS, "/shared/mine/deep/dom0s\0n0\0");
  for (const w of ["/shared", "@releaseDomain"]) b.ask(b.dom0, XS.WATCH, `${w}\0t\0`);
  b.events(b.dom0);
  b.store.release(2);
  assert.deepEqual(b.events(b.dom0), ["/shared/mine t", "@releaseDomain t"]);
  assert.equal(b.ask(b.dom0, XS.DIRECTORY, "/shared\0"), "");
  assert.equal(b.ask(b.dom0, XS.READ, "/local/domain/2\0"), "!ENOENT");
  assert.equal(b.ask(b.dom0, XS.READ, "/local/domain/1\0"), "");
  assert.deepEqual([b.store.tree.nrOwned(2), b.store.tree.bytesOwned(2), b.store.tree.flaws()], [0, 0, []]);
});

test("the root and the special nodes outlive an owner", () => {
  const b = new Bench();
  for (const path of ["/", "@releaseDomain"]) assert.equal(b.ask(b.dom0, XS.SET_PERMS, `${path}\0r2\0b1\0`), "OK\0");
  b.store.release(2);
  for (const path of ["/", "@releaseDomain"]) assert.equal(b.ask(b.dom0, XS.GET_PERMS, `${path}\0`), "r0\0b1\0");
});

test("an occasion is told with the domain's number where the watch has a depth or names the domain", () => {
  const b = new Bench();
  for (const w of ["@releaseDomain\0all\0", "@releaseDomain\0each\x001\0", "@releaseDomain\0never\x000\0", "@releaseDomain/5\0five\0", "@releaseDomain/6\0six\0", "/\0root\0"]) b.ask(b.dom0, XS.WATCH, w);
  b.events(b.dom0);
  b.store.introduce(5);
  b.store.domainChanged(5);
  b.store.release(5);
  const told = ["@releaseDomain all", "@releaseDomain/5 each", "@releaseDomain/5 five"];
  assert.deepEqual(b.events(b.dom0), [...told, ...told]);
  b.ask(b.dom0, XS.WATCH, "@introduceDomain\0each\x001\0");
  b.store.introduce(7);
  assert.deepEqual(b.events(b.dom0), ["@introduceDomain each", "@introduceDomain/7 each"]);
});

test("any special path may be watched, but only those that occur have permissions", () => {
  const b = new Bench(), one = b.connect(1);
  assert.equal(b.ask(one, XS.WATCH, "@other\0t\0"), "OK\0");
  assert.deepEqual(b.events(one), ["@other t"]);
  assert.equal(b.ask(b.dom0, XS.GET_PERMS, "@other\0"), "!ENOENT");
  assert.equal(b.ask(one, XS.GET_PERMS, "@other\0"), "!EACCES");
  for (const path of ["@", "@a//b", "@a/", "@a b"]) assert.equal(b.ask(one, XS.WATCH, `${path}\0t\0`), "!EINVAL");
});

test("an event longer than a packet may be is left out", () => {
  const b = new Bench(), one = b.connect(1), token = "t".repeat(3000);
  assert.equal(b.ask(one, XS.WATCH, `a\0${token}\0`), "OK\0");
  assert.equal(b.events(one).length, 1);
  assert.equal(b.ask(one, XS.WRITE, `a/${"n".repeat(1800)}\0v`), "OK\0");
  assert.deepEqual(b.events(one), []);
  assert.equal(b.ask(one, XS.WRITE, "a/n\0v"), "OK\0");
  assert.equal(b.events(one).length, 1);
});

test("a path below any domain's directory is at most 2048 bytes long, another 3072", () => {
  const b = new Bench();
  const made = (path: string) => b.ask(b.dom0, XS.MKDIR, `${path}\0`);
  assert.deepEqual([made(`/local/domain/1/${"x".repeat(2048)}`), made(`/local/domain/1/${"x".repeat(2049)}`)], ["OK\0", "!EINVAL"]);
  assert.deepEqual([made(`/${"x".repeat(3071)}`), made(`/${"x".repeat(3072)}`)], ["OK\0", "!EINVAL"]);
});

test("SET_PERMS of a missing node tells so to who may write there, and RM of the root is refused by permission first", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(b.dom0, XS.MKDIR, "/shared\0");
  b.ask(b.dom0, XS.SET_PERMS, "/shared\0n0\0w1\0");
  assert.equal(b.ask(one, XS.SET_PERMS, "/shared/none\0n1\0"), "!ENOENT");
  assert.equal(b.ask(one, XS.SET_PERMS, "/shared\0n1\0"), "!EACCES");
  assert.equal(b.ask(one, XS.RM, "/\0"), "!EACCES");
});

test("a domain's memory is bounded over nodes, watches and transactions together, and comes back", () => {
  const b = new Bench(new Store({ quota: { memoryBytes: 20_000, nrTransactionNodes: 1e6 } })), one = b.connect(1), c = b.store.connectionOf(1)!;
  const used = () => b.store.memoryOf(c), before = used();
  let nr = 0;
  while (b.ask(one, XS.WRITE, `n${nr}\0${"v".repeat(1000)}`) === "OK\0") nr++;
  assert.ok(nr > 15 && nr < 20, String(nr));
  assert.equal(b.ask(one, XS.WRITE, `n${nr}\0${"v".repeat(1000)}`), "!ENOMEM");
  assert.equal(b.ask(one, XS.WATCH, `a\0${"t".repeat(2000)}\0`), "!ENOMEM");
  for (let i = 0; i < nr; i++) assert.equal(b.ask(one, XS.RM, `n${i}\0`), "OK\0");
  assert.equal(used(), before);
  for (const i of [0, 1, 2]) assert.equal(b.ask(one, XS.WATCH, `a\0${i}${"t".repeat(1000)}\0`), "OK\0");
  assert.ok(used() > before + 3000);
  b.ask(one, XS.WRITE, `big\0${"v".repeat(1500)}`);
  const ids: number[] = [];
  for (let i = 0; i < 10; i++) {
    ids.push(b.begin(one));
    b.ask(one, XS.READ, "big\0", ids[i]);
    b.ask(one, XS.WRITE, `big\0${"w".repeat(1500)}`, ids[i]);
    assert.ok(used() < 25_000);
  }
  assert.equal(b.ask(one, XS.READ, "more\0", ids[9]), "!ENOMEM");
  for (const id of ids) assert.equal(b.end(one, id, "F"), "OK\0");
  assert.equal(b.ask(one, XS.RESET_WATCHES, "\0"), "OK\0");
  b.ask(one, XS.RM, "big\0");
  assert.equal(used(), before);
  assert.equal(b.ask(b.dom0, XS.WRITE, `/local/domain/1/dom0\0${"v".repeat(4000)}`), "OK\0", "dom0 has no quota");
});

test("a request too long for a packet is E2BIG in the client already, and 4096 bytes pass", () => {
  const c = new Client(new Store());
  c.write("/a", "v".repeat(XENSTORE_PAYLOAD_MAX - 3));
  assert.equal(c.read("/a")!.length, XENSTORE_PAYLOAD_MAX - 3);
  assert.throws(() => c.write("/a", "v".repeat(XENSTORE_PAYLOAD_MAX - 2)), /E2BIG/);
  assert.throws(() => c.write("/a", new Uint8Array(1 << 20)), /E2BIG/);
});

test("control commands: help lists them, check finds nothing, print reaches the log, quotas are shown and set", () => {
  const said: string[] = [], b = new Bench(new Store({ hooks: { log: (s) => said.push(s) } })), one = b.connect(1);
  const control = (...words: string[]) => b.ask(b.dom0, XS.CONTROL, words.map((w) => `${w}\0`).join(""));
  assert.match(control("help"), /^check +\nhelp +\nprint +<string>\nquota .*\n\0$/);
  assert.equal(control("check"), "OK\0");
  assert.equal(control("print", "hello"), "OK\0");
  assert.deepEqual(said, ["xenstore control: hello"]);
  assert.match(control("quota"), /^Quota settings:\nnodes {12}: {5}1000 .*\n/);
  assert.equal(control("quota", "set", "nodes", "3"), "OK\0");
  assert.deepEqual(["a", "b", "c"].map((n) => b.ask(one, XS.WRITE, `${n}\0v`)), ["OK\0", "OK\0", "!ENOSPC"]);
  assert.match(control("quota", "1"), /^Domain 1:\nnodes {12}: {8}3\nwatches/);
  for (const words of [["nonsense"], ["check", "x"], ["print"], ["quota", "set", "nodes", "0"], ["quota", "set", "nothing", "5"], ["quota", "x"], ["toString"]]) assert.equal(control(...words), "!EINVAL", words.join(" "));
  assert.equal(control("quota", "9"), "!ENOENT");
});
