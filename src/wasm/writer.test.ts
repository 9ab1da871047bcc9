import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, I32, I64, Module } from "./writer.ts";

test("a module made like another has its types and imports, and what it adds is its own", () => {
  const pattern = (): Module => { const m = new Module(); m.imports.push({ name: "f", type: m.type([I32], [I64]) }, { name: "base", global: I32 }, { name: "table", table: 4 }); m.elemsFrom = 0; return m; };
  const fill = (m: Module, ...params: (typeof I32 | typeof I64)[]): Uint8Array => { m.funcs.push({ type: m.type(params, []), code: new Code(params.length) }); return m.encode(); };
  const one = pattern();
  for (const params of [[I32], [], [I32], [I64, I32]] as const) assert.deepEqual(fill(one.like(), ...params), fill(pattern(), ...params));
  assert.ok(WebAssembly.validate(fill(one.like()) as Uint8Array<ArrayBuffer>));
  one.imports.push({ name: "g", type: one.type([], []) });
  assert.equal(WebAssembly.Module.imports(new WebAssembly.Module(fill(one.like()) as Uint8Array<ArrayBuffer>)).length, 4);
});
