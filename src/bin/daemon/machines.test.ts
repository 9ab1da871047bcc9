import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { EventLog } from "../../api/events.ts";
import { hostPaths, makeOwnFolder } from "../paths.ts";
import { MachineKeeper } from "./machines.ts";
import { HostState } from "./state.ts";

test("options that no machine starts with are not kept; those that one started with are", { timeout: 60_000 }, async () => {
  const paths = hostPaths(mkdtempSync(join(tmpdir(), "domus-machines-")));
  makeOwnFolder(paths.run);
  const state = await HostState.open(paths.database), keeper = (): MachineKeeper => new MachineKeeper(state, paths, new EventLog(), () => {}), small = ["--memory=64", "--pcpus=1", "--net=none"], refused = keeper(), kept = keeper();
  state.putSetting("machine", JSON.stringify(["--memory=96", ...small.slice(1)]));
  refused.wish(["--memory=99999"]);
  await refused.begin();
  await assert.rejects(refused.client(), /"--memory" wants a whole number/);
  assert.match(state.setting("machine")!, /--memory=96/);
  kept.wish(small);
  await kept.begin();
  await kept.client();
  await kept.end();
  kept.close();
  refused.close();
  assert.deepEqual(JSON.parse(state.setting("machine")!), small);
  state.close();
  rmSync(paths.state, { recursive: true });
});

test("a machine that dies while nothing can be written down is followed by another", { timeout: 60_000 }, async () => {
  const paths = hostPaths(mkdtempSync(join(tmpdir(), "domus-machines-")));
  makeOwnFolder(paths.run);
  const state = await HostState.open(paths.database), said: string[] = [], keeper = new MachineKeeper(state, paths, new EventLog(), (_, text) => { said.push(text); });
  state.putSetting("machine", JSON.stringify(["--memory=64", "--pcpus=1", "--net=none"]));
  await keeper.begin();
  await keeper.client();
  const { pid } = keeper.row!;
  state.lose = () => { throw new Error("database or disk is full"); };
  process.kill(pid, "SIGKILL");
  while (keeper.row?.pid === pid) await new Promise((done) => setTimeout(done, 20));
  await keeper.client();
  assert.notEqual(keeper.row!.pid, pid);
  assert.ok(said.some((s) => /cannot be written down: database or disk is full/.test(s)), said.join("\n"));
  await keeper.end();
  keeper.close();
  state.close();
  rmSync(paths.state, { recursive: true });
});
