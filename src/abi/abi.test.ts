import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";
import { offsetsOf } from "../base/struct.ts";
import { ringSize } from "./io/ring.ts";
import { MODULES, NOT_FROM_XEN } from "../../tools/abi-goldens/c-names.ts";
import { canProbe, declared, type Golden, goldenName, probe } from "../../tools/abi-goldens/probe.node.ts";

const here = new URL("./", import.meta.url);
const golden = (module: string): Golden => JSON.parse(readFileSync(new URL(`golden/${goldenName(module)}`, here), "utf8"));

for (const [module, names] of Object.entries(MODULES)) {
  test(`${module} is laid out and numbered as the C compiler has it`, async () => {
    const exports = await import(`./${module}.ts`) as Record<string, unknown>;
    const { structs, constants } = declared(exports, names);
    const ours: Golden = { structs: {}, constants: {} };
    for (const name of structs.keys()) {
      const s = exports[name] as Parameters<typeof offsetsOf>[0];
      ours.structs[name] = { sizeof: s.sizeof, fields: offsetsOf(s) };
    }
    for (const [name, value] of constants) ours.constants[name] = String(value);
    assert.deepEqual(ours, golden(module));
  });
}

test("every module of this room is compared with a header", () => {
  const modules = readdirSync(here, { recursive: true, encoding: "utf8" }).filter((f) => f.endsWith(".ts") && !f.endsWith(".test.ts")).map((f) => f.slice(0, -3));
  assert.deepEqual(modules.filter((m) => !(m in MODULES) && !NOT_FROM_XEN.includes(m)), []);
});

test("the goldens are what the compiler says today", { skip: canProbe() ? false : "no C compiler or no libxen-dev here" }, async () => {
  for (const module of Object.keys(MODULES)) assert.deepEqual(await probe(module), golden(module), module);
});

test("a ring page holds as many slots as __CONST_RING_SIZE says: 32 of blkif's 112 bytes, 256 of netif's 12 and 8", () => {
  assert.equal(ringSize(4096, 112), 32);
  assert.equal(ringSize(4096, 12), 256);
  assert.equal(ringSize(4096, 8), 256);
  assert.equal(ringSize(16 * 4096, 112), 512);
});
