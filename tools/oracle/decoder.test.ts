import assert from "node:assert/strict";
import { test } from "node:test";
import { MODE, RSP } from "../../src/x86/state.ts";
import { ADDR, decode, type Insn, KIND, Undecodable } from "../../src/x86/decode.ts";
import { compareDecoders, type DecodeLength, memoryText } from "./decoder.ts";
import { Random } from "./values.ts";

const MODES = { 16: MODE.code16, 32: MODE.code32, 64: MODE.code64 } as const;
const LOW = ["AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI"], SEGMENTS = ["ES", "CS", "SS", "DS", "FS", "GS"];
const register = (n: number, width: number): string => (n < 0 ? "" : n > 7 ? `R${n}${width === 32 ? "D" : ""}` : `${width === 64 ? "R" : width === 32 ? "E" : ""}${LOW[n]}`);
/** Our operand in the spelling of both; POP m carries its stack pointer's step in the displacement. */
function memoryOf(i: Insn, bits: number): string {
  const step = i.row.name === "pop" && i.base === RSP ? i.w / 8 : 0;
  return memoryText({ segment: bits === 64 && (i.seg < 4 || i.addr !== ADDR.based) ? "" : SEGMENTS[i.seg] ?? "", base: i.ripRel ? (i.aw === 64 ? "RIP" : "EIP") : register(i.base, i.aw), index: register(i.index, i.aw),
    scale: 1 << i.scale, displacement: i.bigDisp ?? BigInt(i.disp - step), width: i.aw });
}
const ours: DecodeLength = (bytes, bits) => {
  try {
    const i = decode(bytes, 0, bytes.length, MODES[bits]);
    const memory = i.dk === KIND.mem || i.sk === KIND.mem ? memoryOf(i, bits) : undefined;
    return { length: i.len, valid: true, name: i.row.name, ...(memory === undefined ? {} : { memory }) };
  } catch (e) {
    if (e instanceof Undecodable) return { length: 0, valid: false, name: e.why };
    throw e;
  }
};

for (const bits of [64, 32, 16] as const) {
  test(`lengths, validity and memory operands of ${bits}-bit code agree with iced-x86 on random bytes`, () => {
    const { nrCompared, disagreements } = compareDecoders(new Random(Number(process.env.SEED ?? 1)), ours, Number(process.env.N ?? 40000), bits);
    assert.ok(nrCompared > 10000);
    assert.deepEqual([...disagreements.values()].sort((a, b) => b.count - a.count).slice(0, 60).map((d) => `${d.count} × ${d.bytes}: iced-x86 ${d.iced}, ours ${d.ours}`), []);
  });
}
