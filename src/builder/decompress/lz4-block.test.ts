import assert from "node:assert/strict";
import { test } from "node:test";
import { FLAWS, lz4Block, SLACK } from "./lz4-block.ts";

const OUT = 0, ROOM = 16384, IN = ROOM + SLACK, memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 }), { unpack } = lz4Block(memory), bytes = new Uint8Array(memory.buffer);
function run(block: readonly number[], most = ROOM): number {
  bytes.fill(0xee);
  bytes.set(block, IN);
  return unpack(IN, IN + block.length, OUT, most);
}
const flawOf = (block: readonly number[], most?: number): string => { const n = run(block, most); assert.ok(n < 0, `gives ${n}`); return FLAWS[-n]!; };
/** A length's part in the token, and the bytes that go on. */
const length = (n: number): [number, number[]] => (n < 15 ? [n, []] : [15, [...Array<number>(Math.floor((n - 15) / 255)).fill(255), (n - 15) % 255]]);

test("random blocks come out as they are meant: all distances, lengths around each step", () => {
  let x = 7;
  const random = (n: number): number => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return (x >>> 0) % n; }, lengths = [0, 1, 3, 14, 15, 16, 17, 31, 33, 127, 128, 129, 269, 270, 271, 600];
  for (let round = 0; round < 400; round++) {
    const block: number[] = [], expected: number[] = [];
    for (let parts = 1 + random(12); ; parts--) {
      const literals = Array.from({ length: lengths[random(lengths.length)]! || (expected.length === 0 ? 1 : 0) }, () => random(256)), matched = 4 + lengths[random(lengths.length)]!, [l, more] = length(literals.length), [m, mores] = length(matched - 4);
      if (parts === 0) { block.push(l << 4, ...more, ...literals); expected.push(...literals); break; }
      expected.push(...literals);
      const back = 1 + random(Math.min(expected.length, random(2) ? 40 : 65535));
      block.push(l << 4 | m, ...more, ...literals, back & 255, back >> 8, ...mores);
      for (let n = 0; n < matched; n++) expected.push(expected[expected.length - back]!);
    }
    if (expected.length > ROOM) { assert.equal(flawOf(block), "a block gives more than 8 MiB"); continue; }
    assert.equal(run(block), expected.length);
    assert.deepEqual([...bytes.subarray(OUT, OUT + expected.length)], expected, `round ${round}`);
    assert.ok(bytes.subarray(OUT + ROOM + SLACK - 32, IN).every((b) => b === 0xee), "nothing is written behind the slack");
  }
});
test("each flaw is told", () => {
  assert.equal(run([]), 0);
  assert.equal(flawOf([0xf0]), "it ends in a literal length");
  assert.equal(flawOf([0xf0, 255, 255]), "it ends in a literal length");
  assert.equal(flawOf([0x30, 1, 2]), "literals reach past their block");
  assert.equal(flawOf([0x30, 1, 2, 3], 2), "a block gives more than 8 MiB");
  assert.equal(flawOf([0x10, 1, 1]), "it ends in an offset");
  assert.equal(flawOf([0x10, 1, 0, 0, 0]), "a match reaches back to before its block");
  assert.equal(flawOf([0x10, 1, 2, 0, 0]), "a match reaches back to before its block");
  assert.equal(flawOf([0x1f, 1, 1, 0, 255]), "it ends in a match length");
  assert.equal(flawOf([0x1f, 1, 1, 0, 100, 0], 50), "a block gives more than 8 MiB");
});
