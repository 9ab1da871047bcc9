/** V8's flags (bin/fit-node.mjs) take away its own looking after memory: what must hold all the same. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Op } from "../src/wasm/opcodes.ts";
import { Code, I32, Module } from "../src/wasm/writer.ts";
import { root } from "./guest.ts";

const { V8_FLAGS } = await import(new URL("../bin/fit-node.mjs", import.meta.url).href) as { V8_FLAGS: readonly string[] };
const folder = mkdtempSync(join(tmpdir(), "domus-flags-")), MAX_PAGES = 100;
after(() => rmSync(folder, { recursive: true, force: true }));

/** (address) -> the word there, of a shared memory of one page that may have more. */
function reader(): Uint8Array {
  const m = new Module(), c = new Code(1);
  m.imports.push({ name: "memory", memory: { min: 1, max: MAX_PAGES, shared: true } });
  c.get(0).mem(Op.i32_load, 0);
  m.funcs.push({ type: m.type([I32], [I32]), code: c, export: "read" });
  return m.encode();
}

test("what lies beyond a machine's memory cannot be read, by code of either of V8's tiers", () => {
  writeFileSync(join(folder, "reader.wasm"), reader());
  writeFileSync(join(folder, "read.mjs"), `import { readFileSync } from "node:fs";
const memory = new WebAssembly.Memory({ initial: 1, maximum: ${MAX_PAGES}, shared: true }), module = new WebAssembly.Module(readFileSync(new URL("reader.wasm", import.meta.url)));
const { read } = new WebAssembly.Instance(module, { e: { memory } }).exports;
read(0);
console.log("read", read(Number(process.argv[2])));
`);
  for (const tier of ["--liftoff-only", "--no-liftoff"]) for (const at of [4, 65536, MAX_PAGES * 65536, 0x7ffffff0, -65536, -4]) {
    const { stdout, signal, status } = spawnSync(process.execPath, [...V8_FLAGS, tier, join(folder, "read.mjs"), `${at}`], { cwd: root, encoding: "utf8" });
    if (at === 4) assert.equal(stdout, "read 0\n");
    else assert.ok(stdout === "" && status !== 0, `${tier}, ${at}: ${signal ?? status} ${stdout}`);
  }
});
