/** The store against a model that is slow and plain: a map of nodes, no transactions. A transaction that was committed must read as if all of it had been done at its end. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { XS } from "../abi/io/xs_wire.ts";
import { Store } from "./store.ts";
import type { Connection } from "./store.ts";
import { Bench } from "./fixture.ts";

type ModelNode = { value: string; perms: string[] };
type Change = { path: string; exact: boolean; readers: string[][] };
type Reply = { reply: string; changes: Change[] };
type Operation = { what: "read" | "list" | "write" | "mkdir" | "rm" | "perms" | "chmod"; path: string; value: string; perms: string[] };

const above = (path: string): string => path.slice(0, Math.max(1, path.lastIndexOf("/")));
const below = (path: string, of: string): boolean => path === of || path.startsWith(of === "/" ? "/" : `${of}/`);
const depthOf = (path: string): number => (path === "/" ? 0 : path.split("/").length - 1);

/** "rw" as far as the domain has it, and "o" for the owner. */
function rights(domid: number, perms: string[]): string {
  const letters = (p: string): string => ({ n: "", r: "r", w: "w", b: "rw" })[p[0]!]!;
  const named = perms.slice(1).find((p) => p.slice(1) === String(domid));
  return domid === 0 || perms[0]!.slice(1) === String(domid) ? "rwo" : letters(named ?? perms[0]!);
}

class Model {
  nodes = new Map<string, ModelNode>();
  constructor(store: Store) {
    const copy = (path: string): void => {
      const node = store.tree.get(path)!;
      this.nodes.set(path, { value: "", perms: node.perms.map((p) => `${p.read ? (p.write ? "b" : "r") : p.write ? "w" : "n"}${p.domid}`) });
      for (const name of node.children) copy(path === "/" ? `/${name}` : `${path}/${name}`);
    };
    copy("/");
  }
  children(path: string): string[] {
    return [...this.nodes.keys()].filter((p) => p !== "/" && above(p) === path).map((p) => p.slice(p.lastIndexOf("/") + 1)).sort();
  }
  /** An error word, or undefined when the domain may. */
  refusal(domid: number, path: string, wanted: string): string | undefined {
    const has = (p: string, enough: (letter: string) => boolean) => enough(rights(domid, this.nodes.get(p)!.perms));
    if (this.nodes.has(path)) return has(path, (r) => [...wanted].every((l) => r.includes(l))) ? undefined : "EACCES";
    let known = path;
    while (!this.nodes.has(known)) known = above(known);
    return has(known, (r) => [...wanted].some((l) => r.includes(l))) ? "ENOENT" : "EACCES";
  }
  do(domid: number, { what, path, value, perms }: Operation): Reply {
    const no = (word: string): Reply => ({ reply: `!${word}`, changes: [] }), done = (changes: Change[] = []): Reply => ({ reply: "OK\0", changes });
    const wanted = { read: "r", list: "r", perms: "r", write: "w", mkdir: "w", rm: "w", chmod: "wo" }[what], refused = this.refusal(domid, path, wanted), node = this.nodes.get(path);
    if (refused && !(refused === "ENOENT" && (what === "write" || what === "mkdir" || what === "rm"))) return no(refused);
    switch (what) {
      case "read": return { reply: node!.value, changes: [] };
      case "list": return { reply: this.children(path).map((n) => `${n}\0`).join(""), changes: [] };
      case "perms": return { reply: node!.perms.map((p) => `${p}\0`).join(""), changes: [] };
      case "mkdir": if (node) return done(); break;
      case "write": if (!node) break; node.value = value; return done([{ path, exact: false, readers: [node.perms] }]);
      case "chmod": {
        if (domid !== 0 && perms[0]!.slice(1) !== node!.perms[0]!.slice(1)) return no("EPERM");
        const old = node!.perms;
        node!.perms = perms;
        return done([{ path, exact: false, readers: [old, perms] }]);
      }
      case "rm": {
        if (!node) return this.nodes.has(above(path)) ? done() : no("ENOENT");
        if (path === "/") return no("EINVAL");
        const gone = [...this.nodes.keys()].filter((p) => below(p, path)), was = (p: string) => this.nodes.get(p)!.perms;
        const changes = gone.map((p) => ({ path: p, exact: p !== path, readers: [was(p), was(above(p))] }));
        for (const p of gone) this.nodes.delete(p);
        return done(changes);
      }
    }
    const missing = [];
    let at = path;
    for (; !this.nodes.has(at); at = above(at)) missing.unshift(at);
    const [owner, ...others] = this.nodes.get(at)!.perms, inherited = [domid === 0 ? owner! : `${owner![0]}${domid}`, ...others];
    for (const p of missing) this.nodes.set(p, { value: p === path && what === "write" ? value : "", perms: inherited });
    return done([{ path, exact: false, readers: [inherited] }]);
  }
}

const paths = fc.tuple(fc.constantFrom("/local/domain/1", "/local/domain/2", "/shared", ""), fc.constantFrom("", "/a", "/b", "/a/b", "/a/b/c", "/b/a")).map(([home, rest]) => home + rest || "/");
const perm = fc.tuple(fc.constantFrom("n", "r", "w", "b"), fc.constantFrom(0, 1, 2)).map(([letter, domid]) => `${letter}${domid}`);
const operation: fc.Arbitrary<Operation> = fc.record({
  what: fc.constantFrom("read", "list", "write", "write", "mkdir", "rm", "perms", "chmod"), path: paths, value: fc.constantFrom("", "x", "yy"), perms: fc.array(perm, { minLength: 1, maxLength: 3 }),
});
const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ who: fc.nat(2), on: fc.nat(2), operation }) },
  { weight: 2, arbitrary: fc.record({ who: fc.nat(2), begin: fc.constant(true) }) },
  { weight: 3, arbitrary: fc.record({ who: fc.nat(2), end: fc.constantFrom("T", "T", "F"), on: fc.nat(2) }) },
  { weight: 3, arbitrary: fc.record({ who: fc.nat(2), watch: paths, depth: fc.constantFrom(undefined, undefined, 0, 1, 2) }) },
);
const TYPES = { read: XS.READ, list: XS.DIRECTORY, write: XS.WRITE, mkdir: XS.MKDIR, rm: XS.RM, perms: XS.GET_PERMS, chmod: XS.SET_PERMS } as const;
const HUGE = { nrNodes: 1e6, nrWatches: 1e6, nodeBytes: 1e6, nrTransactions: 1e6, memoryBytes: 1e9, nrPermsPerNode: 100 };

type Open = { id: number; done: [Operation, string][]; version: number };
type Watching = { who: number; path: string; depth: number | undefined; token: string };

/** The store's answer, with lists in the model's order. */
function ask(b: Bench, c: Connection, { what, path, value, perms }: Operation, tx_id: number): string {
  const payload = what === "write" ? `${path}\0${value}` : what === "chmod" ? `${path}\0${perms.map((p) => `${p}\0`).join("")}` : `${path}\0`, reply = b.ask(c, TYPES[what], payload, tx_id);
  return what === "list" && !reply.startsWith("!") ? reply.split("\0").slice(0, -1).sort().map((n) => `${n}\0`).join("") : reply;
}

test("three clients with transactions, watches and permissions: replies, events and the tree are the model's", () => {
  let nrCommitted = 0, nrConflicts = 0, nrEvents = 0;
  fc.assert(fc.property(fc.array(step, { minLength: 1, maxLength: 80, size: "max" }), (steps) => {
    const b = new Bench(new Store({ quota: HUGE })), clients = [b.dom0, b.connect(1), b.connect(2)], domids = [0, 1, 2];
    b.ask(b.dom0, XS.MKDIR, "/shared\0");
    b.ask(b.dom0, XS.SET_PERMS, "/shared\0n0\0b1\0r2\0");
    const model = new Model(b.store), open: Open[][] = [[], [], []], watching: Watching[] = [];
    let version = 0;
    /** What each client must have heard, against what it heard.. */
    const checkEvents = (changes: Change[], inTransaction: boolean): void => {
      clients.forEach((c, who) => {
        const heard = b.events(c), may: string[] = [];
        for (const { path, exact, readers } of changes) {
          const parent = path === "/" ? undefined : model.nodes.get(above(path))?.perms;
          const canRead = [...readers, ...(parent ? [parent] : [])].some((p) => rights(domids[who]!, p).includes("r"));
          for (const w of watching) {
            const matches = w.who === who && (exact ? path === w.path : below(path, w.path) && (w.depth === undefined || depthOf(path) - depthOf(w.path) <= w.depth));
            if (matches && canRead) may.push(`${path} ${w.token}`);
          }
        }
        nrEvents += heard.length;
        if (!inTransaction) assert.deepEqual(heard.sort(), may.sort());
        else assert.deepEqual([...heard].sort(), [...new Set(may)].sort(), "each path once");
      });
    };
    steps.forEach((s, i) => {
      const c = clients[s.who]!, domid = domids[s.who]!, mine = open[s.who]!;
      if ("operation" in s) {
        const t = s.on === 0 ? undefined : mine[s.on - 1];
        if (t) {
          t.done.push([s.operation, ask(b, c, s.operation, t.id)]);
          checkEvents([], false);
          return;
        }
        const reply = ask(b, c, s.operation, 0), expected = model.do(domid, s.operation);
        assert.equal(reply, expected.reply, `${s.operation.what} ${s.operation.path}`);
        if (expected.changes.length) version++;
        checkEvents(expected.changes, false);
      } else if ("begin" in s) {
        if (mine.length < 2) mine.push({ id: b.begin(c), done: [], version });
      } else if ("end" in s) {
        const [t] = mine.splice(s.on, 1);
        if (!t) return;
        const answer = b.end(c, t.id, s.end);
        if (s.end === "F" || answer === "!EAGAIN") {
          if (s.end === "F") assert.equal(answer, "OK\0");
          else assert.notEqual(t.version, version, "nothing has changed, yet it conflicts");
          if (s.end === "T") nrConflicts++;
          return checkEvents([], false);
        }
        assert.equal(answer, "OK\0");
        const changes: Change[] = [];
        for (const [o, reply] of t.done) {
          const expected = model.do(domid, o);
          assert.equal(reply, expected.reply, `${o.what} ${o.path} in a transaction`);
          changes.push(...expected.changes);
        }
        if (changes.length) version++;
        nrCommitted++;
        checkEvents(changes, true);
      } else {
        const token = `t${i}`;
        b.ask(c, XS.WATCH, `${s.watch}\0${token}\0${s.depth === undefined ? "" : `${s.depth}\0`}`);
        watching.push({ who: s.who, path: s.watch, depth: s.depth, token });
        assert.deepEqual(b.events(c), [`${s.watch} ${token}`]);
      }
    });
    assert.deepEqual(b.store.tree.flaws(), []);
    for (const [path, node] of model.nodes) {
      assert.equal(b.ask(b.dom0, XS.READ, `${path}\0`), node.value);
      assert.equal(b.ask(b.dom0, XS.GET_PERMS, `${path}\0`), node.perms.map((p) => `${p}\0`).join(""));
      assert.deepEqual(b.ask(b.dom0, XS.DIRECTORY, `${path}\0`).split("\0").slice(0, -1).sort(), model.children(path));
    }
  }), { numRuns: 1000, seed: 20 });
  assert.ok(nrCommitted > 700 && nrConflicts > 130 && nrEvents > 700, `${nrCommitted} committed, ${nrConflicts} conflicts, ${nrEvents} events`);
});
