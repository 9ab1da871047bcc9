import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { startOf } from "./processes.ts";
import { HostState } from "./state.ts";

const folder = mkdtempSync(join(tmpdir(), "domus-state-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const config = (name: string, uuid: string) => ({ c_info: { type: "pvh" as const, name, uuid }, b_info: { max_vcpus: 1, avail_vcpus: [0], max_memkb: 1, target_memkb: 1, kernel: "/k" } });

test("one has a host's state at a time, and whoever comes after a crash finds all of it", async () => {
  const path = join(folder, "a", "host.sqlite");
  const first = await HostState.open(path);
  assert.equal(statSync(join(folder, "a")).mode & 0o777, 0o700);
  first.noteCreating(config("one", "u1"), "m");
  const script = `import { HostState } from ${JSON.stringify(new URL("./state.ts", import.meta.url).href)}; try { await HostState.open(${JSON.stringify(path)}); console.log("open"); process.kill(process.pid, "SIGKILL"); } catch (e) { console.log(e.message); }`;
  const other = (): string => spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }).stdout.trim();
  assert.match(other(), /A domusd runs on .*\/a already/);
  first.close();
  assert.equal(other(), "open");           // and is killed with it open
  const next = await HostState.open(path);
  assert.deepEqual(next.domains().map((d) => [d.name, d.state]), [["one", "creating"]]);
  next.close();
});

test("domains are creating, running, lost, and forgotten; a making that fails leaves no row, one that lives keeps its own", async () => {
  const s = await HostState.open(join(folder, "b.sqlite")), states = (): string[] => s.domains().map((d) => `${d.name} ${d.state}`);
  s.noteCreating(config("a", "u1"), "m");
  s.dropCreating("u1");
  assert.deepEqual(states(), []);
  s.noteCreating(config("a", "u1"), "m");
  s.putDomain({ uuid: "u1", name: "a", domid: 3, machine: "m", state: "running", config: config("a", "u1") });
  s.noteCreating(config("thief", "u1"), "m");
  s.dropCreating("u1");
  assert.deepEqual(states(), ["a running"]);
  assert.deepEqual(s.lose("other", "x"), []);
  assert.deepEqual(s.lose("m", "it was ended by SIGKILL").map((d) => [d.name, d.domid, d.why]), [["a", 3, "it was ended by SIGKILL"]]);
  s.dropDomain("u1");
  assert.deepEqual(states(), ["a lost"]);
  s.noteCreating(config("a", "u1"), "m");
  assert.deepEqual(states(), ["a creating"]);
  s.lose("m", "again");
  s.forgetLost();
  assert.deepEqual([states(), s.lost()], [[], []]);
  assert.equal(s.putToken({ name: "t", hash: "h", role: "read", createdMs: 1 }), true);
  assert.equal(s.putToken({ name: "t", hash: "g", role: "admin", createdMs: 1 }), false);
  assert.deepEqual([s.roleOfHash("h"), s.roleOfHash("g")], ["read", null]);
  s.close();
});

test("a process is known by its start, not by its number alone", () => {
  assert.match(startOf(process.pid)!, /^\d+$/);
  assert.equal(startOf(2 ** 22 + 1), null);
});
