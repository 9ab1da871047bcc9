import assert from "node:assert/strict";
import { test } from "node:test";
import { mergeModules } from "./merge.ts";
import { Op } from "./opcodes.ts";
import { Code, I32, Module } from "./writer.ts";

const PATTERN = new Module(), TYPE = PATTERN.type([I32], [I32]);
PATTERN.imports.push({ name: "twice", type: TYPE }, { name: "table", table: 8 }, { name: "base", global: I32 });
PATTERN.elemsFrom = 0;
/** Functions that add each number to their argument, and have the sum doubled where the argument is odd. */
function module(pattern: Module, ...numbers: number[]): Uint8Array<ArrayBuffer> {
  const m = pattern.like();
  for (const n of numbers) {
    const c = new Code(1), sum = c.local(I32);
    c.get(0).i32(n).op(Op.i32_add).set(sum);
    c.get(0).i32(1).op(Op.i32_and);
    if (n % 2) c.unlikely();
    c.if_(); c.get(sum).call(0).op(Op.return).end();
    c.get(sum);
    m.funcs.push({ type: TYPE, code: c });
  }
  return m.encode();
}
function instantiate(wasm: Uint8Array<ArrayBuffer>, nr: number): ((x: number) => number)[] {
  const table = new WebAssembly.Table({ element: "anyfunc", initial: 8 });
  new WebAssembly.Instance(new WebAssembly.Module(wasm), { e: { twice: (x: number) => 2 * x, table, base: 3 } });
  return Array.from({ length: nr }, (_, n) => table.get(3 + n) as (x: number) => number);
}

test("functions of several modules are one module's, in order, with their locals, calls and branch hints", () => {
  const merged = mergeModules([module(PATTERN, 10, 101), module(PATTERN, 7), module(PATTERN, 1000)]);
  assert.ok(merged);
  assert.deepEqual(merged, module(PATTERN, 10, 101, 7, 1000));
  assert.deepEqual(instantiate(merged, 4).map((f) => [f(2), f(3)]), [[12, 26], [103, 208], [9, 20], [1002, 2006]]);
  assert.deepEqual(mergeModules([merged, module(PATTERN, 5)]), module(PATTERN, 10, 101, 7, 1000, 5), "one that was merged already");
});
test("modules that are not alike, or not of this kind, are left alone", () => {
  const other = PATTERN.like();
  other.imports.push({ name: "more", type: TYPE });
  const placed = new Module(), code = new Code(1).get(0);
  placed.imports.push({ name: "table", table: 8 });
  placed.funcs.push({ type: placed.type([I32], [I32]), code: code as Code, export: "f" });
  placed.elems.push([1, 0]);
  for (const list of [[module(PATTERN, 1), module(other, 1)], [placed.encode(), placed.encode()], [Uint8Array.of(1, 2, 3), module(PATTERN, 1)], [new Uint8Array(0)], []]) assert.equal(mergeModules(list), null);
});
