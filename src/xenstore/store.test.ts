import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { XENSTORE_PAYLOAD_MAX, XS } from "../abi/io/xs_wire.ts";
import { Client } from "./client.ts";
import { type Connection, Store } from "./store.ts";
import { Bench } from "./fixture.ts";
import { strings, toBytes } from "./wire.ts";

test("a value is read as it was written, with zero bytes, and relative paths lie in the domain's own directory", () => {
  const b = new Bench(), one = b.connect(1);
  assert.equal(b.ask(one, XS.WRITE, "data/key\0va\0lue"), "OK\0");
  assert.equal(b.ask(b.dom0, XS.READ, "/local/domain/1/data/key\0"), "va\0lue");
  assert.equal(b.ask(one, XS.DIRECTORY, "data\0"), "key\0");
  assert.equal(b.ask(one, XS.READ, "data\0"), "");
  assert.equal(b.ask(one, XS.GET_DOMAIN_PATH, "1\0"), "/local/domain/1\0");
  assert.equal(b.ask(b.dom0, XS.IS_DOMAIN_INTRODUCED, "2\0"), "T\0");
  assert.equal(b.ask(b.dom0, XS.IS_DOMAIN_INTRODUCED, "9\0"), "F\0");
});

test("a domain neither reads, writes, lists nor removes what another owns, nor learns what is there", () => {
  const b = new Bench(), one = b.connect(1), two = b.connect(2);
  b.ask(one, XS.WRITE, "secret\0x");
  for (const path of ["/local/domain/1/secret", "/local/domain/1/nothing", "/local/domain/7/x"]) {
    for (const type of [XS.READ, XS.DIRECTORY, XS.GET_PERMS, XS.RM, XS.MKDIR]) assert.equal(b.ask(two, type, `${path}\0`), "!EACCES", `${type} ${path}`);
    assert.equal(b.ask(two, XS.WRITE, `${path}\0y`), "!EACCES");
    assert.equal(b.ask(two, XS.SET_PERMS, `${path}\0b2\0`), "!EACCES");
  }
  assert.equal(b.ask(one, XS.SET_PERMS, "secret\0n1\0r2\0"), "OK\0");
  assert.equal(b.ask(two, XS.READ, "/local/domain/1/secret\0"), "x");
  assert.equal(b.ask(two, XS.WRITE, "/local/domain/1/secret\0y"), "!EACCES");
  assert.equal(b.ask(one, XS.SET_PERMS, "secret\0n2\0"), "!EPERM");
  assert.equal(b.ask(b.dom0, XS.SET_PERMS, "/local/domain/1/secret\0n2\0b1\0"), "OK\0");
  assert.equal(b.ask(one, XS.SET_PERMS, "secret\0n1\0"), "!EACCES");
  assert.equal(b.ask(one, XS.GET_PERMS, "secret\0"), "n2\0b1\0");
});

test("what a guest makes it owns, and the rest of the permissions come from the parent", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(b.dom0, XS.MKDIR, "/shared\0");
  b.ask(b.dom0, XS.SET_PERMS, "/shared\0n0\0b1\0r2\0");
  assert.equal(b.ask(one, XS.WRITE, "/shared/a/b\0x"), "OK\0");
  assert.equal(b.ask(one, XS.GET_PERMS, "/shared/a\0"), "n1\0b1\0r2\0");
  b.ask(b.dom0, XS.WRITE, "/shared/a/c\0x");
  assert.equal(b.ask(one, XS.GET_PERMS, "/shared/a/c\0"), "n1\0b1\0r2\0");
});

test("RM takes the subtree, is content when only the node is missing, and keeps the root", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(one, XS.WRITE, "a/b/c\0x");
  assert.equal(b.ask(one, XS.RM, "a/b\0"), "OK\0");
  assert.equal(b.ask(one, XS.READ, "a/b/c\0"), "!ENOENT");
  assert.equal(b.ask(one, XS.DIRECTORY, "a\0"), "");
  assert.equal(b.ask(one, XS.RM, "a/b\0"), "OK\0");
  assert.equal(b.ask(one, XS.RM, "a/b/c\0"), "!ENOENT");
  assert.equal(b.ask(b.dom0, XS.RM, "/\0"), "!EINVAL");
});

test("a bad path, a missing zero byte or too many strings is EINVAL", () => {
  const b = new Bench(), one = b.connect(1);
  for (const path of ["", "/", "//", "/a/", "a//b", "a b", "/a\n", "@x", "@introduceDomain", "x".repeat(2049), `/${"y".repeat(3072)}`]) {
    assert.match(b.ask(one, XS.WRITE, `${path}\0v`), path === "/" ? /^!EACCES/ : /^!EINVAL/, path.slice(0, 20));
  }
  for (const type of [XS.READ, XS.DIRECTORY, XS.MKDIR, XS.RM, XS.GET_PERMS, XS.UNWATCH, XS.WATCH, XS.SET_PERMS, XS.GET_DOMAIN_PATH, XS.DIRECTORY_PART]) {
    assert.equal(b.ask(one, type, ""), "!EINVAL");
    assert.equal(b.ask(one, type, "data"), "!EINVAL");
    assert.equal(b.ask(one, type, type === XS.SET_PERMS ? "\0" : "a\0b\0c\0d\0"), "!EINVAL");
  }
  for (const perm of ["", "x1", "n", "r-1", "b99999999", "r1 "]) assert.equal(b.ask(one, XS.SET_PERMS, `.\0${perm}\0`.replace(".", "/local/domain/1")), "!EINVAL");
});

test("dom0's operations are refused to guests, unknown types to all", () => {
  const b = new Bench(), one = b.connect(1);
  for (const [type, payload] of [[XS.INTRODUCE, "1\x000\x000\0"], [XS.RELEASE, "2\0"], [XS.RESUME, "2\0"], [XS.SET_TARGET, "1\x002\0"], [XS.CONTROL, "help\0"], [XS.IS_DOMAIN_INTRODUCED, "1\0"]] as const) {
    assert.equal(b.ask(one, type, payload), "!EACCES");
  }
  for (const type of [XS.WATCH_EVENT, XS.ERROR, 20, 23, 0xffff, 0xffffffff]) assert.equal(b.ask(b.dom0, type, "\0"), "!ENOSYS");
});

test("a transaction is seen whole or not at all, and reads its own writes", () => {
  const b = new Bench(), one = b.connect(1), t = b.begin(one);
  b.ask(one, XS.WRITE, "a\x001", t);
  b.ask(one, XS.WRITE, "b\x002", t);
  assert.equal(b.ask(one, XS.READ, "a\0"), "!ENOENT");
  assert.equal(b.ask(one, XS.READ, "a\0", t), "1");
  assert.equal(b.end(one, t), "OK\0");
  assert.equal(b.ask(one, XS.READ, "b\0"), "2");
  assert.equal(b.end(one, t), "!ENOENT");
  const u = b.begin(one);
  b.ask(one, XS.RM, "a\0", u);
  assert.equal(b.ask(one, XS.TRANSACTION_START, "\0", u), "!EBUSY");
  assert.equal(b.end(one, u, "F"), "OK\0");
  assert.equal(b.ask(one, XS.READ, "a\0"), "1");
});

test("a transaction fails with EAGAIN when another changed what it saw, also where it saw nothing", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(one, XS.WRITE, "a\x001");
  const conflicts: [string, () => void][] = [
    ["a", () => b.ask(b.dom0, XS.WRITE, "/local/domain/1/a\x002")],
    ["a", () => b.ask(b.dom0, XS.SET_PERMS, "/local/domain/1/a\0n1\0r2\0")],
    ["none", () => b.ask(b.dom0, XS.WRITE, "/local/domain/1/none\x001")],
    ["a", () => b.ask(b.dom0, XS.RM, "/local/domain/1/a\0")],
  ];
  for (const [path, meanwhile] of conflicts) {
    const t = b.begin(one);
    b.ask(one, XS.READ, `${path}\0`, t);
    b.ask(one, XS.WRITE, "mine\0x", t);
    meanwhile();
    assert.equal(b.end(one, t), "!EAGAIN");
    assert.equal(b.ask(one, XS.READ, "mine\0"), "!ENOENT");
  }
  const t = b.begin(one);
  b.ask(one, XS.WRITE, "mine\0x", t);
  b.ask(b.dom0, XS.WRITE, "/local/domain/2/x\x001");
  assert.equal(b.end(one, t), "OK\0", "what it did not see does not matter");
});

test("one of two transactions that count up wins", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(one, XS.WRITE, "n\x000");
  const [s, t] = [b.begin(one), b.begin(one)];
  for (const id of [s, t]) b.ask(one, XS.WRITE, `n\0${Number(b.ask(one, XS.READ, "n\0", id)) + 1}`, id);
  assert.deepEqual([b.end(one, s), b.end(one, t), b.ask(one, XS.READ, "n\0")], ["OK\0", "!EAGAIN", "1"]);
});

test("a transaction belongs to its connection", () => {
  const b = new Bench(), one = b.connect(1), two = b.connect(2), t = b.begin(one);
  assert.equal(b.ask(two, XS.READ, "x\0", t), "!ENOENT");
  assert.equal(b.end(two, t), "!ENOENT");
});

test("a watch fires at once, then for its node and all below, in the order of the watches, with the token as given", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(one, XS.WATCH, "a\0t1\0");
  b.ask(one, XS.WATCH, "/local/domain/1/a\0\xfft2\0");
  assert.deepEqual(b.events(one), ["a t1", "/local/domain/1/a \xfft2"]);
  b.ask(one, XS.WRITE, "a/b/c\0x");
  assert.deepEqual(b.events(one), ["a/b/c t1", "/local/domain/1/a/b/c \xfft2"]);
  b.ask(one, XS.WRITE, "ab\0x");
  assert.deepEqual(b.events(one), []);
  assert.equal(b.ask(one, XS.WATCH, "a\0t1\0"), "!EEXIST");
  assert.equal(b.ask(one, XS.UNWATCH, "a\0t1\0"), "OK\0");
  assert.equal(b.ask(one, XS.UNWATCH, "a\0t1\0"), "!ENOENT");
  b.ask(one, XS.MKDIR, "a\0");
  assert.deepEqual(b.events(one), [], "MKDIR of what is there changes nothing");
  b.ask(one, XS.WRITE, "a\0y");
  assert.deepEqual(b.events(one), ["/local/domain/1/a \xfft2"]);
});

test("the removal of a subtree is told once above it, and by name to watches on what was in it", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(one, XS.WRITE, "a/b/c\0x");
  for (const w of ["a", "a/b/c", "a/b/none"]) b.ask(one, XS.WATCH, `${w}\0t\0`);
  b.events(one);
  b.ask(one, XS.RM, "a/b\0");
  assert.deepEqual(b.events(one), ["a/b/c t", "a/b t"]);
});

test("a watch with a depth hears only so far down", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(one, XS.WATCH, "a\0t\x001\0");
  b.events(one);
  b.ask(one, XS.WRITE, "a/b/c\0x");
  b.ask(one, XS.WRITE, "a/d\0x");
  assert.deepEqual(b.events(one), ["a/d t"]);
});

test("a transaction's watches fire at its end, once a node, and not when it fails", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(one, XS.WATCH, "a\0t\0");
  b.events(one);
  const t = b.begin(one);
  for (const v of "123") b.ask(one, XS.WRITE, `a/x\0${v}`, t);
  b.ask(one, XS.WRITE, "a/y\0v", t);
  assert.deepEqual(b.events(one), []);
  b.end(one, t);
  assert.deepEqual(b.events(one), ["a/x t", "a/y t"]);
  const u = b.begin(one);
  b.ask(one, XS.WRITE, "a/x\0v", u);
  b.end(one, u, "F");
  assert.deepEqual(b.events(one), []);
});

test("a watcher without read access hears nothing; one that loses it hears of that", () => {
  const b = new Bench(), one = b.connect(1), two = b.connect(2);
  b.ask(two, XS.WATCH, "/local/domain/1\0t\0");
  b.events(two);
  b.ask(one, XS.WRITE, "a\0x");
  assert.deepEqual(b.events(two), []);
  b.ask(one, XS.SET_PERMS, "a\0n1\0r2\0");
  b.ask(one, XS.WRITE, "a\0y");
  b.ask(one, XS.SET_PERMS, "a\0n1\0");
  b.ask(one, XS.WRITE, "a\0z");
  assert.deepEqual(b.events(two), Array(3).fill("/local/domain/1/a t"));
});

test("@introduceDomain and @releaseDomain are told to dom0, and to others whom it allows", () => {
  const b = new Bench(), one = b.connect(1);
  for (const c of [b.dom0, one]) for (const s of ["@introduceDomain", "@releaseDomain"]) b.ask(c, XS.WATCH, `${s}\0t\0`);
  for (const c of [b.dom0, one]) assert.equal(b.events(c).length, 2);
  assert.equal(b.ask(b.dom0, XS.SET_PERMS, "@releaseDomain\0n0\0r1\0"), "OK\0");
  for (const c of [b.dom0, one]) b.events(c);
  assert.equal(b.ask(b.dom0, XS.INTRODUCE, "5\x0042\x003\0"), "OK\0");
  assert.equal(b.ask(b.dom0, XS.RELEASE, "5\0"), "OK\0");
  assert.equal(b.ask(b.dom0, XS.RELEASE, "5\0"), "!ENOENT");
  assert.deepEqual(b.events(b.dom0), ["@introduceDomain t", "@releaseDomain t"]);
  assert.deepEqual(b.events(one), ["@releaseDomain t"]);
});

test("a released domain's connection is dropped with its watches and transactions", () => {
  const b = new Bench(), one = b.connect(1);
  b.ask(one, XS.WATCH, "a\0t\0");
  b.events(one);
  b.store.release(1);
  b.ask(b.dom0, XS.WRITE, "/local/domain/1/a\0x");
  assert.deepEqual(b.events(one), []);
  b.store.serve(one, { type: XS.READ, req_id: 1, tx_id: 0, payload: toBytes("a\0") });
  assert.deepEqual(b.events(one), []);
});

test("permissions given to a domain do not pass to the next one with its number", () => {
  const b = new Bench(), one = b.connect(1), two = b.connect(2);
  b.ask(one, XS.WRITE, "a\0x");
  b.ask(one, XS.SET_PERMS, "a\0n1\0r2\0");
  b.ask(b.dom0, XS.MKDIR, "/shared\0");
  b.ask(b.dom0, XS.SET_PERMS, "/shared\0n0\0b2\0");
  b.ask(two, XS.WRITE, "/shared/mine\0x");
  b.store.release(2);
  b.store.introduce(2);
  const next = b.connect(2);
  for (const path of ["/local/domain/1/a", "/shared", "/shared/mine", "/local/domain/2"]) assert.equal(b.ask(next, XS.READ, `${path}\0`), "!EACCES");
  assert.equal(b.ask(b.dom0, XS.GET_PERMS, "/local/domain/1/a\0"), "n1\0");
  assert.equal(b.ask(b.dom0, XS.GET_PERMS, "/shared\0"), "n0\0");
  assert.equal(b.store.tree.nrOwned(2), 0);
});

test("SET_TARGET gives a device model its guest's rights, as long as both live", () => {
  const b = new Bench(), one = b.connect(1), two = b.connect(2);
  b.ask(two, XS.WRITE, "a\0x");
  assert.equal(b.ask(b.dom0, XS.SET_TARGET, "1\x002\0"), "OK\0");
  assert.equal(b.ask(one, XS.READ, "/local/domain/2/a\0"), "x");
  b.store.release(2);
  assert.equal(b.ask(one, XS.READ, "/local/domain/2/a\0"), "!EACCES");
});

test("RESET_WATCHES forgets watches and transactions of the one who asks", () => {
  const b = new Bench(), one = b.connect(1), t = b.begin(one);
  b.ask(one, XS.WATCH, "a\0t\0");
  b.ask(b.dom0, XS.WATCH, "/local/domain/1\0t\0");
  for (const c of [b.dom0, one]) b.events(c);
  assert.equal(b.ask(one, XS.RESET_WATCHES, "\0"), "OK\0");
  b.ask(one, XS.WRITE, "a\0x");
  assert.deepEqual([b.events(one), b.events(b.dom0)], [[], ["/local/domain/1/a t"]]);
  assert.equal(b.end(one, t), "!ENOENT");
});

test("quotas hold for guests and not for dom0", () => {
  const b = new Bench(new Store({ quota: { nrNodes: 10, nrWatches: 3, nrTransactions: 2, nrTransactionNodes: 20, nodeBytes: 256 } })), one = b.connect(1), two = b.connect(2);
  const fill = (c: Connection, home: string) => Array.from({ length: 12 }, (_, i) => b.ask(c, XS.WRITE, `${home}/n${i}\0v`));
  assert.deepEqual(fill(one, "/local/domain/1").map((r) => r === "OK\0"), [...Array(9).fill(true), ...Array(3).fill(false)]);
  assert.equal(b.ask(one, XS.WRITE, "x\0v"), "!ENOSPC");
  assert.equal(b.ask(two, XS.WRITE, "x/y\0v"), "OK\0", "one's fill does not harm two");
  assert.ok(fill(b.dom0, "/d").every((r) => r === "OK\0"));
  b.ask(one, XS.RM, "n0\0");
  assert.equal(b.ask(one, XS.WRITE, "x\0v"), "OK\0");
  assert.equal(b.ask(two, XS.WRITE, `x/y\0${"v".repeat(300)}`), "!ENOSPC");
  assert.equal(b.ask(two, XS.SET_PERMS, `x/y\0${"r2\0".repeat(6)}`), "!ENOSPC");
  for (const i of [1, 2, 3]) b.ask(one, XS.WATCH, `w\0${i}\0`);
  assert.equal(b.ask(one, XS.WATCH, "w\x004\0"), "!E2BIG");
  b.ask(one, XS.UNWATCH, "w\x001\0");
  assert.equal(b.ask(one, XS.WATCH, "w\x004\0"), "OK\0");
  b.events(one);
  const t = b.begin(two);
  b.begin(two);
  assert.equal(b.ask(two, XS.TRANSACTION_START, "\0"), "!ENOSPC");
  for (let i = 0; i < 21; i++) b.ask(two, XS.READ, `r${i}\0`, t);
  assert.equal(b.ask(two, XS.READ, "r\0", t), "!ENOSPC");
  assert.equal(b.end(two, t, "F"), "OK\0");
});

test("two transactions do not together pass the quota of nodes", () => {
  const b = new Bench(new Store({ quota: { nrNodes: 6 } })), one = b.connect(1);
  for (const d of ["p", "q"]) b.ask(one, XS.MKDIR, `${d}\0`);
  const ids = ["p", "q"].map((d) => {
    const id = b.begin(one);
    for (const n of ["x", "y"]) assert.equal(b.ask(one, XS.WRITE, `${d}/${n}\0v`, id), "OK\0");
    return id;
  });
  assert.deepEqual(ids.map((id) => b.end(one, id)), ["OK\0", "!ENOSPC"]);
});

test("a refused write leaves the tree as it was", () => {
  const b = new Bench(new Store({ quota: { nrNodes: 4 } })), one = b.connect(1);
  assert.equal(b.ask(one, XS.WRITE, "a/b/c/d\0v"), "!ENOSPC");
  assert.equal(b.ask(one, XS.DIRECTORY, "/local/domain/1\0"), "");
  assert.equal(b.store.tree.nrOwned(1), 1);
});

test("DIRECTORY of a long list is E2BIG, and DIRECTORY_PART gives it in pieces", () => {
  const b = new Bench(), dom0 = new Client(b.store), names = Array.from({ length: 700 }, (_, i) => `name-${i}`);
  for (const n of names) dom0.write(`/big/${n}`, "");
  assert.equal(b.ask(b.dom0, XS.DIRECTORY, "/big\0"), "!E2BIG");
  assert.ok(b.ask(b.dom0, XS.DIRECTORY_PART, "/big\x000\0").length <= XENSTORE_PAYLOAD_MAX);
  assert.deepEqual(dom0.list("/big"), names);
  assert.match(b.ask(b.dom0, XS.DIRECTORY_PART, "/big\x0099999\0"), /^\d+\0\0$/);
  assert.match(b.ask(b.dom0, XS.DIRECTORY_PART, "/local\x000\0"), /^\d+\0domain\0\0$/);
});

test("the client tells watchers, undoes a transaction that throws, and closes", async () => {
  const store = new Store(), c = new Client(store), heard: string[] = [];
  const w = c.watch("/a", (p) => heard.push(p));
  c.transaction((t) => t.write("/a/b", "é"));
  assert.throws(() => c.transaction((t) => { t.write("/a/c", ""); throw new Error("no"); }), /no/);
  assert.deepEqual([c.read("/a/b"), c.read("/a/c"), c.list("/none")], ["é", undefined, undefined]);
  await new Promise((r) => setTimeout(r, 0));
  w[Symbol.dispose]();
  c.write("/a/b", "2");
  await new Promise((r) => setTimeout(r, 0));
  assert.deepEqual(heard, ["/a", "/a/b"]);
  c.close();
});

test("a transaction whose body spoils it from outside gives up", () => {
  const c = new Client(new Store());
  c.write("/a", "0");
  assert.throws(() => c.transaction((t) => { t.read("/a"); c.write("/a", "1"); }), /EAGAIN/);
});

test("no packet of a guest's throws, touches another's nodes or passes its quota", () => {
  const paths = fc.constantFrom("a", "a/b", "a/b/c", "/local/domain/1/a", "/local/domain/2", "/local/domain/2/own", "/", "", "@releaseDomain", "x y");
  const text = fc.oneof(paths, fc.constantFrom("T", "F", "0", "1", "n1", "b1", "r2", "n2", "token"), fc.string({ maxLength: 6 }));
  const payload = fc.oneof(fc.array(text, { maxLength: 4 }).map((l) => strings(...l)), fc.uint8Array({ maxLength: 40 }));
  const packet = fc.record({ type: fc.nat({ max: 24 }), req_id: fc.nat(), tx_id: fc.constantFrom(0, 0, 0, 1, 2, 9), payload });
  fc.assert(fc.property(fc.array(packet, { maxLength: 60 }), (packets) => {
    const b = new Bench(new Store({ quota: { nrNodes: 8, nrTransactions: 2 } })), one = b.connect(1), two = b.connect(2);
    b.ask(two, XS.WRITE, "own\0mine");
    for (const p of packets) b.store.serve(one, p);
    assert.equal(b.ask(two, XS.READ, "own\0"), "mine");
    assert.equal(b.ask(two, XS.DIRECTORY, "/local/domain/2\0"), "own\0");
    assert.ok(b.store.tree.nrOwned(1) <= 8);
    assert.deepEqual(b.events(b.dom0), []);
    const replies = b.inbox.get(one)!.filter((p) => p.type !== XS.WATCH_EVENT);
    assert.deepEqual(replies.map((p) => p.req_id), packets.map((p) => p.req_id), "each request has one reply, in order");
  }), { numRuns: 300, seed: 1 });
});

test("the tree agrees with a plain model under random writes, removals and transactions", () => {
  const path = fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 3 }).map((p) => `/${p.join("/")}`);
  const step = fc.record({ what: fc.constantFrom("write", "rm", "begin", "commit", "abort"), path, value: fc.string({ maxLength: 3, unit: "grapheme-ascii" }) });
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const b = new Bench(new Store(), []), c = new Client(b.store);
    let model = new Map<string, string>(), saved: Map<string, string> | undefined, id = 0;
    const top = new Set(b.store.tree.get("/")!.children);
    for (const s of steps) {
      if (s.what === "write") {
        for (let p = s.path; p; p = p.slice(0, p.lastIndexOf("/"))) if (!model.has(p)) model.set(p, "");
        model.set(s.path, s.value);
        b.ask(b.dom0, XS.WRITE, `${s.path}\0${s.value}`, id);
      } else if (s.what === "rm") {
        for (const p of [...model.keys()]) if (p === s.path || p.startsWith(`${s.path}/`)) model.delete(p);
        b.ask(b.dom0, XS.RM, `${s.path}\0`, id);
      } else if (s.what === "begin" && !id) {
        saved = new Map(model);
        id = b.begin(b.dom0);
      } else if (id && s.what !== "begin") {
        assert.equal(b.end(b.dom0, id, s.what === "commit" ? "T" : "F"), "OK\0");
        if (s.what === "abort") model = saved!;
        id = 0;
      }
    }
    if (id) {
      b.end(b.dom0, id, "F");
      model = saved!;
    }
    const found = new Map<string, string>(), visit = (p: string): void => {
      for (const n of c.list(p || "/")!) if (p || !top.has(n)) {
        found.set(`${p}/${n}`, c.read(`${p}/${n}`)!);
        visit(`${p}/${n}`);
      }
    };
    visit("");
    assert.deepEqual(new Map([...found].sort()), new Map([...model].sort()));
  }), { numRuns: 200, seed: 2 });
});
