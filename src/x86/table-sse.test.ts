import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, Undecodable } from "./decode.ts";
import { type Row, rows } from "./rows.ts";
import { MODE } from "./state.ts";
import { type Form, formKey, formOf, stubModule } from "./stubs.ts";

const ours = rows.filter(r => r.unit !== "" || r.name === "fwait");
/** Encodings of a row: register and memory operand, with and without REX.W, and some immediates. */
function* encodings(r: Row): Generator<Uint8Array> {
  const ext = (r.ext < 0 ? 1 : r.ext) << 3, x87 = r.unit === "x87" && r.known;
  const modrms = x87 ? Array.from({ length: 32 }, (_, i) => (i < 8 ? i << 3 : 0xc0 | (i - 8) * 3 & 0x3f)) : [ext, 0xc1 | ext];
  for (const modrm of modrms) for (const rex of [[], [0x48]]) for (const imm of r.known && !x87 ? [0, 1, 0x1b, 0x4c, 0xff] : [0]) {
    const map = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][r.op >> 8]!, pfx = { "": [], np: [], 66: [0x66], F3: [0xf3], F2: [0xf2] }[r.pfx];
    yield Uint8Array.from([...pfx, ...rex, ...map, r.op & 255, modrm, imm, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  }
}

test("every SSE, MMX and x87 row can be reached and makes valid code in each of its forms", () => {
  const forms = new Map<number, Form>(), reached = new Set<Row>();
  for (const r of ours) for (const bytes of encodings(r)) for (const mode of [MODE.code64, MODE.code32]) {
    try {
      const i = decode(bytes, 0, bytes.length, mode), f = formOf(i, false, false);
      reached.add(i.row); forms.set(formKey(f), f);
    } catch (e) { if (!(e instanceof Undecodable)) throw e; }
  }
  assert.deepEqual(ours.filter(r => !reached.has(r)).map(r => `${r.op.toString(16)} ${r.name}`), []);
  const list = [...forms.values()];
  for (let n = 0; n < list.length; n += 500) assert.ok(WebAssembly.validate(stubModule(list.slice(n, n + 500), { min: 1, max: 65536, shared: true }, 32768)), `forms ${n} to ${n + 499}`);
});
test("SSE and MMX instructions decode to #UD or #NM as CR0 and CR4 say", () => {
  const name = (bytes: number[], mode: number) => decode(Uint8Array.from([...bytes, 0, 0, 0, 0]), 0, bytes.length + 4, mode).row.name;
  const addps = [0x0f, 0x58, 0xc1], paddb = [0x0f, 0xfc, 0xc1], fld1 = [0xd9, 0xe8];
  assert.equal(name(addps, MODE.code64), "addps");
  assert.notEqual(name(addps, MODE.code64 | MODE.noFxsr), "addps");
  assert.equal(name(paddb, MODE.code64 | MODE.noFxsr), "paddb");
  assert.equal(name(paddb, MODE.code64 | MODE.em), name(addps, MODE.code64 | MODE.em));
  assert.equal(name(fld1, MODE.code64 | MODE.em), name(addps, MODE.code64 | MODE.ts));
});
