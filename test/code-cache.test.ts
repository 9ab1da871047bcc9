/** `--code-cache DIR`: what one run translated the next one adopts; a damaged file is named and made anew. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { buildGuest, guestsMissing } from "../guests/build.ts";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine } from "../src/toolstack/machine.ts";
import { root } from "./guest.ts";

test("translated code is kept, adopted by the next run, and made anew when its file is damaged", { skip: guestsMissing() }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), "domus-code-cache-")), cfg = join(dir, "guest.cfg"), cache = join(dir, "cache"), profile = join(dir, "profile.json");
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(cfg, `name = "paging"\ntype = "pvh"\nkernel = "${buildGuest("paging")}"\nmemory = 64\n`);
  const run = () => {
    const r = spawnSync(process.execPath, [join(root, "src/bin/domus.node.ts"), "run", cfg, "--pcpus", "1", "--translate-after", "40", "--code-cache", cache, `--profile=${profile}`], { encoding: "utf8" });
    assert.match(r.stdout, /Test result: SUCCESS/, r.stdout + r.stderr);
    assert.equal(r.status, 0, r.stderr);
    return { stderr: r.stderr, adopted: Number(/"adopted":(\d+)/.exec(readFileSync(profile, "utf8"))?.[1]) };
  };
  assert.equal(run().adopted, 0);
  const [file, ...more] = readdirSync(cache);
  assert.ok(file !== undefined && more.length === 0, "one file");
  assert.ok(run().adopted > 0, "the second run adopts");
  writeFileSync(join(cache, file), readFileSync(join(cache, file)).subarray(0, -5));
  const third = run();
  assert.equal(third.adopted, 0);
  assert.match(third.stderr, /The code cache .* is not used, it is cut short; it is made anew|The code cache .* is not used, its checksum is wrong; it is made anew/);
  assert.ok(run().adopted > 0, "and it was made anew");
});

test("a cache that cannot be written is told of, and nothing else fails", { skip: guestsMissing() }, async () => {
  const said: string[] = [];
  {
    await using machine = await createMachine({ host: nodeHost(), pcpus: 1, memoryMiB: 96, translateAfter: 40, log: (s) => { said.push(s); }, codeCache: { engine: "none", name: "nowhere", bytes: null, save: () => { throw new Error("There is no room"); } } });
    const domain = await machine.createDomain({ name: "paging", memoryMiB: 64, kernel: readFileSync(buildGuest("paging")) });
    await domain.wait();
  }
  assert.ok(said.includes("There is no room"), said.join("\n"));
});
