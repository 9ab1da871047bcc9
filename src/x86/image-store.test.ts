import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, I32, I64 } from "../wasm/writer.ts";
import { ImageStore, type StoredImage } from "./image-store.ts";

function image(seed: number, byte: number, text: readonly number[]): StoredImage {
  const code = new Code(2);
  code.types.push(I32, I64); code.hints = [[3, 0]]; code.bytes(Uint8Array.from(text));
  return { mode: 2, seed, pieces: [{ pos: seed, bytes: Uint8Array.of(byte, 0x90) }, { pos: -4096, bytes: Uint8Array.of(1) }], image: { shape: "wide", code, pages: [0, -1], entries: [{ pos: seed, block: 0 }], exits: [{ pos: -4000, isNeeded: true }, { pos: 5, isNeeded: false }], nrInsns: 3 } };
}
test("a store comes back from its bytes as it was, for the same engine", () => {
  const store = new ImageStore();
  store.add(image(16, 0x55, [1, 2, 3])); store.add(image(16, 0x56, [4])); store.add(image(4095, 0x55, []));
  const back = ImageStore.decode(store.encode("e1"), "e1");
  assert.ok(back instanceof ImageStore);
  assert.equal(back.nrImages, 3); assert.equal(back.nrNew, 0);
  for (const seed of [16, 4095]) back.candidates(2, seed).forEach((s, n) => {
    const was = store.candidates(2, seed)[n]!;
    assert.deepEqual({ ...s, image: { ...s.image, code: null } }, { ...was, image: { ...was.image, code: null } });
    assert.deepEqual(s.image.code.buf.subarray(0, s.image.code.n), was.image.code.buf.subarray(0, was.image.code.n));
    assert.deepEqual([s.image.code.types, s.image.code.hints], [was.image.code.types, was.image.code.hints]);
  });
  const other = ImageStore.decode(store.encode("e1"), "e2");
  assert.ok(other instanceof ImageStore && other.nrImages === 0, "what another engine made is not used");
});
test("the newest image made from the same code replaces the older", () => {
  const store = new ImageStore();
  store.add(image(16, 0x55, [1])); store.add(image(16, 0x55, [2, 2]));
  assert.deepEqual(store.candidates(2, 16).map(s => s.image.code.n), [2]);
});
test("cut, changed and foreign bytes are refused in words, wherever the damage is", () => {
  const store = new ImageStore();
  store.add(image(16, 0x55, [1, 2, 3]));
  const good = store.encode("e");
  assert.equal(ImageStore.decode(new TextEncoder().encode("something else"), "e"), "it is not a code cache");
  for (let n = 0; n < good.length; n++) {
    assert.equal(typeof ImageStore.decode(good.subarray(0, n), "e"), "string", `cut at ${n}`);
    const bad = good.slice();
    bad[n]! ^= 0x10;
    const got = ImageStore.decode(bad, "e");
    assert.ok(typeof got === "string" || got.nrImages === 0, `changed at ${n}`);
  }
});
