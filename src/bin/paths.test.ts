import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { hostPaths, makeOwnFolder } from "./paths.ts";

test("a host's folder is never the current one by accident", () => {
  assert.throws(() => hostPaths("", {}), /--state names no folder/);
  assert.equal(hostPaths(undefined, { DOMUS_STATE: "", XDG_STATE_HOME: "/x" }).state, "/x/domus");
  assert.equal(hostPaths(undefined, { DOMUS_STATE: "/y" }).state, "/y");
});
test("a folder that others use stays as it is; one of ours, or an empty one, is closed to them", () => {
  const top = mkdtempSync(join(tmpdir(), "domus-paths-")), folder = (name: string, ...files: string[]): string => {
    const path = join(top, name);
    mkdirSync(path);
    chmodSync(path, 0o755);
    for (const f of files) writeFileSync(join(path, f), "");
    return path;
  }, mode = (path: string): number => statSync(path).mode & 0o777;
  try {
    const shared = folder("shared", "letter.txt"), empty = folder("empty"), ours = folder("ours", "host.sqlite", "notes"), begun = folder("begun", "domusd.log");
    assert.throws(() => makeOwnFolder(shared), (e: Error) => e instanceof UserError && /shared holds other files and is open to others/.test(e.message));
    assert.equal(mode(shared), 0o755);
    for (const path of [empty, ours, begun, join(top, "new/er")]) { makeOwnFolder(path); assert.equal(mode(path), 0o700, path); }
    assert.throws(() => makeOwnFolder(join(shared, "letter.txt")), (e: Error) => e instanceof UserError && /cannot be made|not this user's own/.test(e.message));
    assert.throws(() => makeOwnFolder(join(shared, "letter.txt", "below")), /cannot be made \(ENOTDIR\); choose another folder with --state/);
    assert.throws(() => makeOwnFolder("/proc/domus/state"), /cannot be made \(ENOENT\)/);
  } finally { rmSync(top, { recursive: true }); }
});
