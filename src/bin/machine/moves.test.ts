import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileSink } from "./moves.ts";

test("a file that cannot be written to its end leaves nothing, and what had its name stays", async () => {
  const folder = mkdtempSync(join(tmpdir(), "domus-moves-")), path = join(folder, "saved");
  const whole = (await fileSink(path)).getWriter();
  await whole.write(new Uint8Array([1, 2, 3]));
  await whole.close();
  const broken = (await fileSink(path)).getWriter();
  broken.closed.catch(() => {});
  await assert.rejects(broken.write({ length: 1 } as Uint8Array));        // what the file system refuses
  await broken.abort().catch(() => {});
  assert.deepEqual([readdirSync(folder), [...readFileSync(path)]], [["saved"], [1, 2, 3]]);
  rmSync(folder, { recursive: true });
});
