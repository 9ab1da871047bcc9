import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { LOG_FILE } from "./log.ts";

test("a background program's log stays short, its last lines in two files; a file that nobody named as one is left alone", () => {
  const dir = mkdtempSync(join(tmpdir(), "domus-log-")), file = join(dir, "x.log"), program = `import { jsonLog } from "${new URL("log.ts", import.meta.url).href}"; const log = jsonLog("x", 2000); for (let i = 0; i < 200; i++) log("info", "line " + i);`;
  const run = (env: Record<string, string>): void => {
    const fd = openSync(file, "a");
    assert.equal(spawnSync(process.execPath, [...process.execArgv.filter((a) => !a.startsWith("--test")), "--input-type=module", "-e", program], { stdio: ["ignore", "ignore", fd], env: { ...process.env, ...env } }).status, 0);
    closeSync(fd);
  };
  const lines = (path: string): string[] => readFileSync(path, "utf8").trimEnd().split("\n").map((l) => JSON.parse(l).what);
  run({ [LOG_FILE]: file });
  assert.ok(statSync(file).size < 2200 && statSync(`${file}.1`).size < 2200);
  const last = [...lines(`${file}.1`), ...lines(file)];
  assert.deepEqual(last, Array.from({ length: last.length }, (_, i) => `line ${200 - last.length + i}`));
  run({ [LOG_FILE]: "" });
  assert.ok(lines(file).length > 200);
  rmSync(dir, { recursive: true });
});
