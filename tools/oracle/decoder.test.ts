import assert from "node:assert/strict";
import { test } from "node:test";
import { MODE } from "../../src/x86/state.ts";
import { decode, Undecodable } from "../../src/x86/decode.ts";
import { compareDecoders, type DecodeLength } from "./decoder.ts";
import { Random } from "./values.ts";

const MODES = { 16: MODE.code16, 32: MODE.code32, 64: MODE.code64 } as const;
const ours: DecodeLength = (bytes, bits) => {
  try {
    const i = decode(bytes, 0, bytes.length, MODES[bits]);
    return { length: i.len, valid: true, name: i.row.name };
  } catch (e) {
    if (e instanceof Undecodable) return { length: 0, valid: false, name: e.why };
    throw e;
  }
};

for (const bits of [64, 32, 16] as const) {
  test(`lengths and validity of ${bits}-bit code agree with iced-x86 on random bytes`, () => {
    const { nrCompared, disagreements } = compareDecoders(new Random(Number(process.env.SEED ?? 1)), ours, Number(process.env.N ?? 40000), bits);
    assert.ok(nrCompared > 10000);
    assert.deepEqual([...disagreements.values()].sort((a, b) => b.count - a.count).slice(0, 60).map((d) => `${d.count} × ${d.bytes}: iced-x86 ${d.iced}, ours ${d.ours}`), []);
  });
}
