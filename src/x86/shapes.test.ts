import assert from "node:assert/strict";
import { test } from "node:test";
import { Views } from "../base/views.ts";
import { CodeCache } from "./code-cache.ts";
import { CodeStore } from "./code-store.ts";
import { random as xorshift } from "./fixture.ts";
import { PCPU_BYTES, REC, RECS_AT, SHAPE } from "./layout.ts";
import { Shapes } from "./shapes.ts";
import { SharedShapes } from "./shared-shapes.ts";
import { MODE } from "./state.ts";
import { formKey, formOf } from "./stubs.ts";

/** Remembers nothing: each instruction is decoded. */
class NoShapes extends Shapes { override rootOf(): number { return 0; } }
const random = xorshift(20071107), PAGES = 4, slots = new Map<number, number>();
/** A code cache over memory of its own, whose stubs are numbers for forms; and how often it has decoded. */
function codeCache(Kind: typeof Shapes) {
  const memory = new WebAssembly.Memory({ initial: (PCPU_BYTES >> 16) + 1, maximum: 65536, shared: true }), v = new Views(memory.buffer as unknown as SharedArrayBuffer), asked = { nr: 0 };
  const cache = new CodeCache(memory, { min: 1, max: 65536, shared: true }, v, 0, {
    protect() {}, unprotect() {}, flushed() {}, freeRegion() {}, generation: () => 0, fetch: () => { throw new Error("There is no second page"); }, heat: 1000, warmAfter: 100, linksAhead: true,
    stubOf(i, cross, big) {
      const key = formKey(formOf(i, cross, big)), slot = slots.get(key) ?? 2 + slots.size;
      slots.set(key, slot);
      asked.nr++;
      return slot;
    },
  }, new Kind(v, 0));
  return { v, cache, asked };
}
/** The words of a record, of both its parts. */
const recordOf = ({ i32 }: Views, n: number): number[] => [RECS_AT, RECS_AT + REC.stub].flatMap((from) => [...i32.subarray((from + n * REC.size) >>> 2, (from + (n + 1) * REC.size) >>> 2)]);
/** Bytes of which few are made, so that shapes come again with other numbers; and whole beginnings of what is no plain number: an immediate in the form, POP to the stack, ENTER, far pointers, offsets. */
const BYTES = [0x48, 0x48, 0x4c, 0x0f, 0x66, 0x65, 0xf0, 0x67, 0x89, 0x8b, 0x05, 0x84, 0x24, 0xe8, 0xe9, 0xeb, 0x74, 0x83, 0x81, 0xb8, 0x44, 0x3a, 0x62, 0xd8, 0, 0, 1, 0x7f, 0x80, 0xff];
const BEGINNINGS = [[0x66, 0x0f, 0x70, 0xc1], [0x0f, 0xc6, 0x40, 0x08], [0x66, 0x0f, 0x3a, 0x61, 0xc1], [0xd9, 0x40], [0x8f, 0x44, 0x24], [0xc8], [0x9a], [0x66, 0xea], [0xa1], [0x67, 0xa3], [0x48, 0xb8], [0x0f, 0x85], [0x8b, 0x05]];
function fill(bytes: Uint8Array): Uint8Array {
  for (let at = 0; at < bytes.length;) for (const b of random(6) ? [random(12) ? BYTES[random(BYTES.length)]! : random(256)] : BEGINNINGS[random(BEGINNINGS.length)]!) bytes[at++] = b;
  return bytes;
}

for (const [name, mode] of [["64-bit", MODE.code64], ["32-bit", MODE.code32], ["16-bit", MODE.code16]] as const) test(`${name} code: records of shapes that were met before are those that decoding gives`, () => {
  const known = codeCache(Shapes), decoded = codeCache(NoShapes);
  for (let round = 0; round < 40; round++) {
    const bytes = fill(new Uint8Array(PAGES * 4096)), offsets = Array.from({ length: PAGES * 300 }, () => random(PAGES) * 4096 + random(4096));
    for (const { v, cache } of [known, decoded]) {
      v.u8.set(bytes, PCPU_BYTES);
      cache.invalidate(PCPU_BYTES, PAGES * 4096);
      for (let page = 0; page < PAGES; page++) cache.invalidate(PCPU_BYTES + page * 4096, 4096);
      for (const off of offsets) cache.prepare(PCPU_BYTES + off, mode);
    }
  }
  const { records } = known.cache.counters;
  assert.equal(records, decoded.cache.counters.records);
  for (let n = 0; n < records; n++) assert.deepEqual(recordOf(known.v, n), recordOf(decoded.v, n), `record ${n}`);
  assert.ok(records > 100_000 && known.asked.nr < records / 2, `${known.asked.nr} of ${records} were decoded`);
});
test("more shapes than are remembered are decoded each time", () => {
  const v = new Views(new SharedArrayBuffer(PCPU_BYTES)), shapes = new Shapes(v, 0), bytes = new Uint8Array(32);
  let nrPlaced = 0;
  for (let n = 0; n < 1 << 17; n++) {
    new DataView(bytes.buffer).setUint32(0, Math.imul(n, 0x9e3779b1));
    if (shapes.place(bytes, 0, 4, MODE.code64) === 0) break;
    nrPlaced++;
  }
  assert.ok(nrPlaced > 1000 && nrPlaced < 1 << 17, `${nrPlaced} were remembered`);
  bytes.fill(0xcc);
  assert.equal(shapes.place(bytes, 0, 15, MODE.code16), 0);
});
test("shapes are told and learned, but not by who has little room left", () => {
  const store = new CodeStore(new Views(new SharedArrayBuffer(1 << 20)), 0, 1 << 20), engine = () => {
    const v = new Views(new SharedArrayBuffer(PCPU_BYTES)), shapes = new Shapes(v, 0);
    return { v, shapes, shared: new SharedShapes(shapes, v.i32, store, { keyOf: (slot) => slot * 10, slotOf: (key) => key / 10 + 1000 }) };
  };
  const bytes = (n: number): Uint8Array => Uint8Array.of(0x0f, n >> 8, n & 255), first = engine(), second = engine(), crowded = engine();
  for (let n = 0; n < 300; n++) {
    const w = first.shapes.wordsOf(first.shapes.place(bytes(n), 0, 3, MODE.code64));
    for (const [field, value] of [[SHAPE.stub, 2 + n % 7], [SHAPE.crossStub, n % 3 ? 0 : 9], [SHAPE.operands, n], [SHAPE.registers, ~n], [SHAPE.imm, 1], [SHAPE.disp, -1], [SHAPE.how, 3]] as const) first.v.i32[w + (field >> 2)] = value;
  }
  first.shared.tick();
  assert.deepEqual([first.shapes.fresh, first.shared.takeIn()], [[], false]);
  assert.deepEqual([second.shared.takeIn(1), second.shared.takeIn(1)], [true, false]);
  for (const n of [0, 1, 299]) {
    const w = second.shapes.wordsOf(second.shapes.place(bytes(n), 0, 3, MODE.code64));
    assert.deepEqual([...second.v.i32.subarray(w, w + 7)], [1002 + n % 7, n % 3 ? 0 : 1009, n, ~n, 1, -1, 3]);
  }
  assert.deepEqual(second.shapes.fresh, [], "what was learned is not told again");
  for (let n = 0; n < 65536 && !crowded.shapes.isCrowded; n++) crowded.shapes.place(bytes(n), 0, 3, MODE.code32);
  for (let n = 0; n < 65536 && !crowded.shapes.isCrowded; n++) crowded.shapes.place(Uint8Array.of(1, n >> 8, n & 255, 1), 0, 4, MODE.code32);
  assert.ok(crowded.shapes.isCrowded);
  const nrOwn = crowded.shapes.fresh!.length;
  crowded.shared.takeIn();
  crowded.shapes.place(bytes(5), 0, 3, MODE.code64);
  assert.equal(crowded.shapes.fresh!.length, nrOwn + 1, "it is new here");
});
