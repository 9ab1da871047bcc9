import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { tinyKernel } from "../../test/tiny-kernel.ts";
import { Client } from "../xenstore/client.ts";
import { guestStoreEntries, hostEntries } from "../xenstore/domain-entries.ts";
import { SocketServer } from "../xenstore/socket.node.ts";
import { Store } from "../xenstore/store.ts";
import { defaultSocketPath, XENSTORE_TOOLS, xenstoreTool } from "./xenstore.ts";
import { escapeValue, unescapeValue } from "./xenstore-escape.ts";

const folder = mkdtempSync(join(tmpdir(), "domus-xenstore-")), root = fileURLToPath(new URL("../..", import.meta.url));
const servers: SocketServer[] = [];
after(async () => {
  await Promise.all(servers.map((s) => s.close()));
  rmSync(folder, { recursive: true });
});
type Result = { code: number; out: string; err: string };

/** A served store with what a guest has, and some nodes that are hard to print. */
async function served(name: string): Promise<{ store: Store; dom0: Client; server: SocketServer }> {
  const store = new Store(), dom0 = new Client(store), server = new SocketServer(store, join(folder, name));
  dom0.writeAll(hostEntries());
  dom0.writeAll(guestStoreEntries({
    domid: 3, uuid: "00000000-0000-4000-8000-000000000003", name: "deb", type: "pvh", targetKiB: 262144, staticMaxKiB: 524288, maxVcpus: 2, onlineVcpus: 1,
    store: { gfn: 0xfeffc, port: 1 }, console: { gfn: 0xfefff, port: 2 }, image: { kernel: `/boot/${"long-".repeat(20)}vmlinuz` }, startedMs: 1500,
  }));
  dom0.write("/binary", Uint8Array.from({ length: 256 }, (_, i) => i));
  dom0.write("/quote", 'a "b" \\ \t\r\n é');
  dom0.write(`/deep/${"d/".repeat(80)}end`, "x".repeat(30));
  dom0.write(`/${"name".repeat(30)}`, "v");
  for (let i = 0; i < 300; i++) dom0.mkdir(`/many/node-with-a-rather-long-name-${i}`);
  dom0.setPerms("/quote", ["n0", "r1", "w2", "b3"]);
  servers.push(server);
  await server.listen();
  return { store, dom0, server };
}
const stock = (path: string, tool: string, args: readonly string[]): Promise<Result> => new Promise((resolve) => {
  execFile(`xenstore-${tool}`, args, { env: { ...process.env, XENSTORED_PATH: path }, encoding: "latin1", maxBuffer: 1 << 24 }, (e, out, err) => resolve({ code: e ? Number(e.code) : 0, out, err }));
});
async function ours(path: string, tool: string, args: readonly string[], columns?: number): Promise<Result> {
  let out = "", err = "";
  const code = await xenstoreTool([`xenstore-${tool}`, ...args], { env: { XENSTORED_PATH: path }, out: (text) => { out += text; }, err: (line) => { err += `${line}\n`; }, ...(columns ? { columns } : {}) });
  return { code, out, err };
}

test("the tools of Debian work with our socket, and ours print, answer and change the same", async () => {
  const a = await served("stock"), b = await served("ours");
  const lines: [tool: string, ...args: string[]][] = [
    ["ls"], ["ls", "-p"], ["ls", "-f"], ["ls", "-fp"], ["ls", "-p", "/local"], ["ls", "/vm", "/libxl"], ["ls", "/none"], ["ls", "--flat", "--prefix", "/local/domain/3/"], ["ls", "/quote"],
    ["read", "/binary"], ["read", "-R", "/binary"], ["read", "-p", "/local/domain/3/name", "/local/domain/3/domid"], ["read", "/local/domain/3/name", "/none", "/vm"], ["read", "/none"],
    ["read", "/"], ["read"], ["read", "-t", "/vm"], ["read", "-z", "/local/domain/3/name"], ["read", "--nonsense", "/vm"], ["read", "--", "/vm"], ["read", "a b"], ["read", "-s", "/quote"],
    ["list", "/local/domain/3"], ["list", "-p", "/local/domain/3", "/vm"], ["list", "/none"], ["list", "/local/domain/3", "/none"], ["list", "/many"], ["list"], ["list", "/quote"],
    ["exists", "/vm"], ["exists", "/none"], ["exists", "/vm", "/none"], ["exists"],
    ["write", "/new/a", "1", "/new/b", "2"], ["write", "/new/c"], ["write"], ["write", "/new/e", "\\x41\\102\\tz\\\\\\n\\9\\q"], ["write", "/new/end", "x\\"], ["write", "-R", "/new/raw", "\\x41\\"],
    ["write", "bad path", "x"], ["write", "/new/f", "1", "bad path", "x"], ["write", "/new/utf8", "é∀"], ["write", "/new/empty", ""], ["write", "/new/x", "\\x", "/new/y", "\\xg\\x1g\\777\\08"],
    ["chmod", "/new", "n0", "r3"], ["chmod", "-r", "/new", "b0", "w3"], ["chmod", "-u", "/new/a", "r0"], ["chmod", "/new", "q0"], ["chmod", "/none", "n0"], ["chmod", "/new"], ["chmod", "-ru", "/local/domain/3/device", "n3", "r0"],
    ["chmod", "/new/a", "n"], ["ls", "-p", "/new"],
    ["rm", "/new/a"], ["rm", "/new/none"], ["rm", "/none/none"], ["rm", "/new/b", "/none/none"], ["exists", "/new/b"], ["write", "/tidy/a/b/c", "x"], ["rm", "-t", "/tidy/a/b/c"], ["exists", "/tidy"],
    ["write", "/tidy", "has a value", "/tidy/a/b", "x"], ["rm", "-t", "/tidy/a/b"], ["exists", "/tidy"], ["rm", "-r", "/tidy"], ["rm"], ["rm", "/"],
    ["watch", "-n", "2", "/vm", "/libxl"], ["watch", "-n", "0", "/vm"], ["watch"], ["watch", "-n", "1", "bad path"], ["ls", "-fp", "/"],
  ];
  const plain = (s: string): string => s.replace(/(Usage: \S+) .*/, "$1");  // what the options are has changed from version to version
  for (const [tool, ...args] of lines) {
    const [theirs, mine] = await Promise.all([stock(a.server.path, tool, args), ours(b.server.path, tool, args)]);
    assert.deepEqual({ ...mine, err: plain(mine.err) }, { ...theirs, err: plain(theirs.err) }, `xenstore-${tool} ${args.join(" ")}`);
  }
  for (const { server, store } of [a, b]) {
    assert.deepEqual(store.tree.flaws(), []);
    await server.close();
  }
});

test("Debian's xenstore-watch is told of changes, and ours the same", async () => {
  const { dom0, server } = await served("watch"), args = ["-n", "4", "/local/domain/3/data", "/vm"];
  const theirs = spawn("xenstore-watch", args, { env: { ...process.env, XENSTORED_PATH: server.path } }), exited = once(theirs, "exit");
  const heard = ["", ""], set = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const hear = (who: number) => (text: string): void => {
    heard[who] += text;
    if (heard[who]!.split("\n").length === 3) set[who]!.resolve();  // it has heard of both watches
  };
  theirs.stdout.setEncoding("latin1").on("data", hear(0));
  const mine = xenstoreTool(["xenstore-watch", ...args], { env: { XENSTORED_PATH: server.path }, out: hear(1), err: hear(1) });
  await Promise.all(set.map((s) => s.promise));
  dom0.write("/local/domain/3/data/x", "1");
  dom0.remove("/vm/00000000-0000-4000-8000-000000000003/name");
  assert.deepEqual([await exited, await mine], [[0, null], 0]);
  const expected = ["/local/domain/3/data", "/vm", "/local/domain/3/data/x", "/vm/00000000-0000-4000-8000-000000000003/name", ""].join("\n");
  assert.deepEqual(heard, [expected, expected]);
  await server.close();
});

test("a watch with a depth, one that is interrupted, and one whose store goes away", async () => {
  const { dom0, server } = await served("depth"), heard: string[] = [], abort = new AbortController();
  const run = (args: string[], signal?: AbortSignal) => {
    const first = Promise.withResolvers<void>();
    const ended = xenstoreTool(["xenstore-watch", ...args], { env: { XENSTORED_PATH: server.path }, out: (t) => { heard.push(t); first.resolve(); }, err: (t) => heard.push(t), ...(signal ? { signal } : {}) });
    return { first: first.promise, ended };
  };
  const a = run(["-d", "1", "-n", "2", "/local"]);
  await a.first;
  dom0.write("/local/domain/3/data/x", "1");
  dom0.write("/local/x", "1");
  assert.equal(await a.ended, 0);
  const b = run(["/vm"], abort.signal);
  await b.first;
  abort.abort();
  assert.equal(await b.ended, 0);
  const c = run(["/vm"]);
  await c.first;
  await server.close();
  assert.equal(await c.ended, 1);
  assert.deepEqual(heard, ["/local\n", "/local/x\n", "/vm\n", "/vm\n", "xenstore-watch: the connection to the store is lost"]);
});

test("ls fills and cuts its lines by the terminal's width", async () => {
  const { server } = await served("width");
  for (const columns of [40, 200]) for (const line of (await ours(server.path, "ls", ["/deep"], columns)).out.split("\n").slice(0, 20)) assert.ok(line.length <= columns, line);
  await server.close();
});

/** Run a program of the package xen-utils. */
const xenUtil = (path: string, name: string, ...args: string[]): Promise<{ code: number; text: string }> => new Promise((resolve) => {
  execFile("sh", ["-c", 'exec "$(ls -d /usr/lib/xen-*/bin | head -n 1)/$0" "$@"', name, ...args], { env: { ...process.env, XENSTORED_PATH: path } }, (e, out, err) => resolve({ code: e ? Number(e.code) : 0, text: out + err }));
});

test("xenstore-control of Debian is answered", async () => {
  const { server } = await served("control"), control = async (...args: string[]): Promise<string> => (await xenUtil(server.path, "xenstore-control", ...args)).text;
  assert.match(await control("help"), /^check[^]*quota/);
  assert.match(await control("quota"), /^Quota settings:\nnodes/);
  assert.equal(await control("check"), "OK\n");
  await server.close();
});

test("Xen's own test of a store passes", async () => {
  const { server } = await served("test"), { code, text } = await xenUtil(server.path, "test-xenstore", "-i", "5");
  assert.equal(code, 0, text);
  assert.match(text, /ta err/);
  await server.close();
});

test("the links in bin/ are the tools, called by their names or by xenstore's first word", async () => {
  const { server } = await served("links");
  for (const tool of Object.keys(XENSTORE_TOOLS)) assert.equal(readlinkSync(join(root, "bin", `xenstore-${tool}`)), "xenstore");
  assert.ok(statSync(join(root, "bin/xenstore")).mode & 0o100);
  const run = (command: string, ...args: string[]): Promise<Result> => new Promise((resolve) => {
    execFile(join(root, "bin", command), args, { env: { ...process.env, XENSTORED_PATH: server.path } }, (e, out, err) => resolve({ code: e ? Number(e.code) : 0, out, err }));
  });
  const [named, worded, none] = await Promise.all([run("xenstore-read", "/local/domain/3/name"), run("xenstore", "read", "/none"), run("xenstore")]);
  assert.deepEqual(named, { code: 0, out: "deb\n", err: "" });
  assert.deepEqual(worded, { code: 1, out: "", err: "xenstore: couldn't read path /none\n" });
  assert.deepEqual(none, { code: 1, out: "", err: "xenstore: Usage: xenstore <mode> [-h] [...]\n" });
  await server.close();
});

test("domus run --xenstore serves its machine's store, and the socket goes with it", async () => {
  const path = join(folder, "run"), kernel = join(folder, "kernel"), cfg = join(folder, "spinner.cfg");
  writeFileSync(kernel, tinyKernel([0xfa, 0xeb, 0xfe]));
  writeFileSync(cfg, `name="spinner"\ntype="pvh"\nkernel="${kernel}"\nmemory=16\n`);
  const domus = spawn(join(root, "bin/domus"), ["run", cfg, `--xenstore=${path}`, "--pcpus", "1"], { stdio: ["pipe", "pipe", "pipe"] });
  domus.stdout.resume();
  domus.stderr.resume();
  const exited = once(domus, "exit");
  while ((await stock(path, "exists", ["/local/domain/1/name"])).code) await new Promise((r) => setTimeout(r, 50));
  assert.deepEqual(await stock(path, "read", ["/local/domain/1/name"]), { code: 0, out: "spinner\n", err: "" });
  domus.kill("SIGTERM");
  await exited;
  assert.equal(existsSync(path), false);
});

test("help ends with 0", async () => {
  for (const tool of Object.keys(XENSTORE_TOOLS)) assert.equal((await ours("/none", tool, ["--help"])).code, 0);
});

test("a store that is not there is told by name", async () => {
  const { code, err } = await ours(join(folder, "nowhere"), "ls", []);
  assert.deepEqual([code, err], [1, `xenstore-ls: xenstore: ${join(folder, "nowhere")} does not answer (ENOENT)\n`]);
  assert.equal(defaultSocketPath({ XENSTORED_RUNDIR: "/x" }), "/x/socket");
  assert.equal(defaultSocketPath({ XDG_RUNTIME_DIR: "/run/user/7" }), "/run/user/7/xenstore");
});

test("what escapeValue writes, unescapeValue reads", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
    const text = String.fromCharCode(...bytes);
    assert.equal(unescapeValue(escapeValue(text)), text);
  }), { seed: 1 });
});
