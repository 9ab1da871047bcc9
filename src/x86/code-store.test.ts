import assert from "node:assert/strict";
import { test } from "node:test";
import { Views } from "../base/views.ts";
import { CodeStore } from "./code-store.ts";
import { Code, I32, Module } from "../wasm/writer.ts";
import { MODE } from "./state.ts";
import { encodeImage, fittingImage, type Image, imageKey } from "./image.ts";

const SIZE = 0x130000, AT = 65536, views = (): Views => new Views(new SharedArrayBuffer(AT + SIZE + 65536));
const member = (key: number, ...bytes: number[]) => ({ keys: [key], bytes: Uint8Array.from(bytes) });
const bytesOf = (store: CodeStore, key: number): number[][] => store.find(key).map((m) => [...m.bytes]);

test("members are found by their keys, the newest first, from every view of the memory; their module comes whole", () => {
  const v = views(), store = new CodeStore(v, AT, SIZE), other = new CodeStore(new Views(v.buffer), AT, SIZE);
  assert.deepEqual([store.find(1), store.nrMembers, store.nrAdded], [[], 0, 0]);
  const first = store.add(Uint8Array.of(1, 2, 3), [member(1, 10), member(-5), member(2 ** 52 + 1, 11, 12)]), second = other.add(Uint8Array.of(4), [member(7), member(1, 13)]);
  assert.notEqual(first, second);
  assert.deepEqual(other.find(1).map((m) => [m.module, m.index, [...m.bytes]]), [[second, 1, [13]], [first, 0, [10]]]);
  assert.deepEqual([bytesOf(store, -5), bytesOf(store, 2 ** 52 + 1), bytesOf(store, 2)], [[[]], [[11, 12]], []]);
  assert.deepEqual(store.module(first), { wasm: Uint8Array.of(1, 2, 3), keys: [1, -5, 2 ** 52 + 1] });
  assert.deepEqual([store.nrMembers, store.nrAdded, store.mayHave(1), store.module(first + 8 + 2 ** 40)], [5, 2, true, null]);
});
test("a member that has several keys is the same one under each", () => {
  const store = new CodeStore(views(), AT, SIZE), other = new CodeStore(views(), AT, SIZE), id = store.add(Uint8Array.of(9), [member(1, 10), { keys: [2, 3, 4], bytes: Uint8Array.of(20, 21) }, { keys: [5, 3], bytes: Uint8Array.of(30) }]);
  other.load(store.encode("e"), "e");
  for (const s of [store, other]) {
    assert.deepEqual([1, 2, 4, 5].map((key) => s.find(key).map((m) => [m.index, [...m.bytes]])), [[[0, [10]]], [[1, [20, 21]]], [[1, [20, 21]]], [[2, [30]]]]);
    assert.deepEqual(s.find(3).map((m) => m.index), [2, 1]);
    assert.deepEqual(s.module(s.find(4)[0]!.module), { wasm: Uint8Array.of(9), keys: [1, 2, 5] });
    assert.equal(s.nrMembers, 3);
  }
  assert.equal(store.find(4)[0]!.module, id);
});
test("when half of it is full the older half is forgotten, and what was told of it is current no more; too large a module is not kept", () => {
  const store = new CodeStore(views(), AT, SIZE), ids: number[] = [], wasm = new Uint8Array(10_000);
  for (let n = 0; n < 200; n++) {
    ids.push(store.add(wasm.fill(n), [member(n, n)]));
    const kept = ids.filter((id) => store.isCurrent(id));
    assert.ok(kept.includes(ids[n]!) && kept.length <= 2 * 48, `${kept.length} of ${n + 1}`);
    if (n > 60) assert.ok(kept.length > 40, `${kept.length} of ${n + 1}`);
    assert.equal(store.nrMembers, kept.length);
    for (const [k, id] of ids.entries()) assert.deepEqual([store.isCurrent(id), bytesOf(store, k), store.module(id)?.wasm[0]], kept.includes(id) ? [true, [[k]], k] : [false, [], undefined]);
  }
  assert.equal(new Set(ids).size, 200, "no number is used twice");
  assert.equal(store.add(new Uint8Array(SIZE), [member(1)]), 0);
});
test("a store comes back from its bytes as it was, the newest first, for the same engine", () => {
  const store = new CodeStore(views(), AT, SIZE), back = new CodeStore(views(), AT, SIZE), foreign = new CodeStore(views(), AT, SIZE);
  for (let n = 0; n < 100; n++) store.add(new Uint8Array(9_000).fill(n), [member(n & 7, n), member(1000 + n)]);
  const file = store.encode("engine");
  assert.equal(CodeStore.flaw(file), null);
  back.load(file, "engine"); foreign.load(file, "another");
  assert.deepEqual([back.nrMembers, back.nrAdded, foreign.nrMembers], [store.nrMembers, 0, 0]);
  for (let key = 0; key < 8; key++) assert.deepEqual(bytesOf(back, key), bytesOf(store, key));
  const [newest] = back.find(3);
  assert.deepEqual(back.module(newest!.module), { wasm: new Uint8Array(9_000).fill(99), keys: [3, 1099] });
  back.add(Uint8Array.of(1), [member(1)]);
  assert.equal(back.nrAdded, 1);
});
test("in a file, regions that were made one after the other are one module, and so are stubs; keys, members and their order stay", () => {
  const store = new CodeStore(views(), AT, SIZE), back = new CodeStore(views(), AT, SIZE), again = new CodeStore(views(), AT, SIZE);
  const wasm = (...bytes: number[]): Uint8Array<ArrayBuffer> => {
    const m = new Module();
    m.imports.push({ name: "table", table: 8 }, { name: "base", global: I32 });
    m.elemsFrom = 0;
    for (const b of bytes) m.funcs.push({ type: m.type([], [I32]), code: new Code(0).i32(b) });
    return m.encode();
  };
  store.add(wasm(1, 2), [member(-1, 1), { keys: [-2, -3], bytes: Uint8Array.of(2) }]);
  store.add(wasm(3), [{ keys: [-1, -3], bytes: Uint8Array.of(3) }]);
  store.add(wasm(4), [member(1)]);
  store.add(wasm(5, 6), [member(2), member(3)]);
  store.add(wasm(7), [member(-1, 7)]);
  back.load(store.encode("e"), "e");
  again.load(back.encode("e"), "e");
  for (const s of [back, again]) {
    assert.deepEqual(s.find(-1).map((m) => [m.index, [...m.bytes]]), [[0, [7]], [2, [3]], [0, [1]]]);
    assert.deepEqual(s.find(-3).map((m) => [m.index, [...m.bytes]]), [[2, [3]], [1, [2]]]);
    assert.deepEqual([-2, 2].map((key) => s.module(s.find(key)[0]!.module)), [{ wasm: wasm(1, 2, 3), keys: [-1, -2, -1] }, { wasm: wasm(4, 5, 6), keys: [1, 2, 3] }]);
    assert.deepEqual([s.nrMembers, s.nrAdded], [store.nrMembers, 0]);
  }
});
test("cut, changed and foreign bytes are refused in words, wherever the damage is", () => {
  const store = new CodeStore(views(), AT, SIZE);
  store.add(Uint8Array.of(1, 2, 3), [member(1, 2, 3)]);
  const good = store.encode("e");
  assert.equal(CodeStore.flaw(new TextEncoder().encode("something else, which is longer")), "it is not a code cache");
  for (let n = 0; n < good.length; n++) {
    assert.equal(typeof CodeStore.flaw(good.subarray(0, n)), "string", `cut at ${n}`);
    const bad = good.slice();
    bad[n]! ^= 0x10;
    assert.equal(typeof CodeStore.flaw(bad), "string", `changed at ${n}`);
  }
});

const IMAGE: Image = { shape: "wide", pages: [0, -1], entries: [{ pos: 5, block: 0 }], exits: [{ pos: -4000, isNeeded: true }, { pos: 5, isNeeded: false }], sites: [{ pos: -4090, done: -1, how: 2, rec: "known" }], nrInsns: 300 };
test("an image fits where all code is that it was made from", () => {
  const pieces = [{ pos: 5, bytes: Uint8Array.of(0x55, 0x90) }, { pos: -4096, bytes: Uint8Array.of(1) }], bytes = encodeImage(IMAGE, pieces), asked: unknown[] = [];
  assert.deepEqual(fittingImage(bytes, (p) => asked.push({ pos: p.pos, bytes: p.bytes.slice() }) > 0), IMAGE);
  assert.deepEqual(asked, pieces);
  assert.equal(fittingImage(bytes, (p) => p.pos > 0), null);
  for (let n = 0; n < bytes.length; n++) assert.throws(() => fittingImage(bytes.subarray(0, n), () => true), RangeError);
});
test("user code is found as its kernel's, at its place in the page", () => {
  const m = new Uint8Array(2 * 4096), key = (mode: number, entry: number): number => imageKey(mode, entry, m, 4096);
  assert.equal(key(2, 16), key(2 | MODE.user, 16));
  assert.equal(new Set([key(2, 16), key(2, 17), key(1, 16), key(0, 0)]).size, 4);
});
test("and by its first bytes, within its page", () => {
  const m = new Uint8Array(3 * 4096), key = (entry: number): number => imageKey(2, entry, m, 4096), were = [key(16), key(4095)];
  m[4096 + 20] = m[2 * 4096] = m[0] = 1;
  assert.deepEqual([key(16), key(4095)], were);
  m[4096 + 19] = m[4096 + 4095] = 1;
  assert.ok(key(16) !== were[0] && key(4095) !== were[1]);
});
