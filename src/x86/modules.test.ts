import assert from "node:assert/strict";
import { test } from "node:test";
import { Views } from "../base/views.ts";
import { Code, I32, Module } from "../wasm/writer.ts";
import { CodeStore } from "./code-store.ts";
import { Modules } from "./modules.ts";

const FIRST = 2;
/** Functions that give these numbers. */
function numbers(...list: number[]): Uint8Array<ArrayBuffer> {
  const m = new Module();
  m.imports.push({ name: "table", table: 4 }, { name: "base", global: I32 });
  m.elemsFrom = 0;
  for (const n of list) m.funcs.push({ type: m.type([], [I32]), code: new Code(0).i32(n) as Code });
  return m.encode();
}
function side(store: CodeStore | null) {
  const table = new WebAssembly.Table({ element: "anyfunc", initial: 8 });
  return { modules: new Modules(table, { table }, store, FIRST), call: (slot: number): unknown => (table.get(slot) as (() => number) | null)?.() };
}
const keys = (...list: number[]) => list.map((key) => ({ keys: [key], bytes: new Uint8Array(0) }));
const newStore = () => new CodeStore(new Views(new SharedArrayBuffer(1 << 20)), 0, 1 << 20);

test("what one has made the other has, in slots of its own, and once only", () => {
  const store = newStore(), a = side(store), b = side(store);
  b.modules.add(numbers(1), keys(1));
  const first = a.modules.add(numbers(10, 11, 12), keys(10, 11, 12));
  assert.deepEqual([0, 1, 2].map((n) => a.call(first + n)), [10, 11, 12]);
  const slot = b.modules.slotOf(store.find(11)[0]!);
  assert.equal(b.call(slot), 11);
  assert.notEqual(slot, first + 1);
  assert.equal(b.modules.slotOf(store.find(12)[0]!), slot + 1);
});
test("what is not in use goes when there is much of it, the longest unused first; what is in use stays", () => {
  for (const store of [newStore(), null]) {
    const { modules, call } = side(store), used = modules.add(numbers(7), keys(7)), twice = modules.add(numbers(8), keys(8)), slots: number[] = [];
    modules.use(used); modules.use(twice); modules.use(twice); modules.release(twice);
    for (let n = 0; n < 300; n++) slots.push(modules.add(numbers(n, n + 1), keys(n, n)));
    assert.deepEqual([call(used), call(twice)], [7, 8]);
    assert.equal(call(slots[299]! + 1), 300);
    assert.ok(Math.max(...slots) < 300, `slots are used again: ${Math.max(...slots)}`);
    assert.equal(new Set(slots.slice(-100)).size, 100);
    modules.release(used);
    for (let n = 0; n < 300; n++) modules.add(numbers(n), keys(n));
    assert.equal(call(twice), 8);
  }
});
test("a function that was just asked for is there until it is used, though it had been unused for longest", () => {
  const store = newStore(), { modules, call } = side(store);
  for (let n = 0; n < 128; n++) modules.add(numbers(n), keys(n));
  const slot = modules.slotOf(store.find(0)[0]!);
  modules.add(numbers(999), keys(999));
  modules.use(slot);
  assert.equal(call(slot), 0);
});
test("slots that are given back are taken again, whole", () => {
  const { modules } = side(null), a = modules.reserve(4), b = modules.reserve(4), c = modules.reserve(4), last = modules.reserve(1);
  assert.deepEqual([a, b, c, last], [FIRST, FIRST + 4, FIRST + 8, FIRST + 12]);
  modules.giveBack(a, 4); modules.giveBack(c, 4); modules.giveBack(b, 4);
  assert.deepEqual([modules.reserve(5), modules.reserve(7)], [a, a + 5]);
  modules.giveBack(last, 1); modules.giveBack(a, 5); modules.giveBack(a + 5, 7);
  assert.equal(modules.reserve(50), FIRST, "and behind the last one in use all are free");
});
