import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { MigrationJournal } from "./journal.ts";

test("what was noted of a migration is known after the process, but for half a line; what was ready then never ran", () => {
  const folder = mkdtempSync(join(tmpdir(), "domus-journal-")), path = join(folder, "migrations");
  const first = new MigrationJournal(path);
  for (const [migration, standing] of [["a1", "ready"], ["a1", "running"], ["b2", "ready"], ["c3", "given"], ["c3", "kept"], ["d4", "given"]] as const) first.note(migration, standing);
  assert.equal(first.before("a1"), null);        // this process is asked for what it knows itself
  first.close();
  appendFileSync(path, "\nb2 runn");
  const second = new MigrationJournal(path);
  second.note("e5", "running");
  second.close();
  const third = new MigrationJournal(path);
  assert.deepEqual(["a1", "b2", "c3", "d4", "e5", "f6"].map((m) => third.before(m)), ["running", "dropped", "kept", "given", "running", null]);
  for (let i = 0; i < 1100; i++) appendFileSync(path, `${i.toString(16)}f running\n`);
  third.close();
  const last = new MigrationJournal(path);
  assert.deepEqual([last.before("a1"), last.before("0f"), last.before("44bf"), readFileSync(path, "latin1").split("\n").length], [null, null, "running", 1001]);
  last.close();
  rmSync(folder, { recursive: true });
});
