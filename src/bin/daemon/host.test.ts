import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { LibxlConfig } from "../../toolstack/libxl-json.ts";
import { hostPaths } from "../paths.ts";
import { Host } from "./host.ts";
import { startOf } from "./processes.ts";
import { HostState } from "./state.ts";

test("domains are lost once: those of an earlier machine are not told of again", async () => {
  const folder = mkdtempSync(join(tmpdir(), "domus-state-")), state = await HostState.open(join(folder, "host.sqlite"));
  const put = (name: string): void => state.putDomain({ uuid: name, name, domid: 1, machine: "default", state: "running", config: {} as LibxlConfig });
  put("first");
  assert.deepEqual(state.lose("default", "it ended").map((d) => d.name), ["first"]);
  put("second");
  assert.deepEqual(state.lose("default", "it ended again").map((d) => d.name), ["second"]);
  assert.deepEqual(state.lost().map((d) => [d.name, d.why]), [["first", "it ended"], ["second", "it ended again"]]);
  state.close();
  rmSync(folder, { recursive: true });
});

test("a machine that is sought still is not ended unless that is meant: it may have domains", async () => {
  const folder = mkdtempSync(join(tmpdir(), "domus-host-")), paths = hostPaths(folder), state = await HostState.open(paths.database), host = new Host(state, paths, () => {});
  const machine = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" }), pid = machine.pid!;
  state.putMachine({ name: "default", pid, pidStart: startOf(pid)!, socket: join(folder, "none"), xenstore: "", startedMs: Date.now() });
  const begun = host.machine.begin(), stop = host.served().handlers["host.stop"]!, context = { signal: new AbortController().signal, progress: () => {} };
  try {
    assert.equal(host.machine.state, "starting");
    assert.equal(await Promise.race([stop({}, context), sleep(300).then(() => "waits")]), "waits");
    assert.notEqual(startOf(pid), null);
    await stop({ isForced: true }, context);
    assert.equal(startOf(pid), null);
  } finally {
    machine.kill("SIGKILL");
    host.machine.close();
    await begun;
    state.close();
    rmSync(folder, { recursive: true });
  }
});
