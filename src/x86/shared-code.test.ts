import assert from "node:assert/strict";
import { test } from "node:test";
import { Views } from "../base/views.ts";
import { CodeStore } from "./code-store.ts";
import { makeTranslator } from "./engine.ts";
import { FlatMachine } from "./flat-machine.ts";
import type { Shape } from "./image.ts";
import { CPU, RAX } from "./state.ts";

const LINEAR = 0x40_0000, HEAT = 160, STORE_BYTES = 1 << 20;
/** mov ecx, 100000; xor eax, eax; again: add eax, ecx; call turn; dec ecx; jnz again; jmp $; on the next page, turn: rol eax, by; ret */
function code(by: number): Uint8Array {
  const c = new Uint8Array(8192);
  c.set([0xb9, 0xa0, 0x86, 0x01, 0, 0x31, 0xc0, 0x01, 0xc8, 0xe8, 0xf2, 0x0f, 0, 0, 0xff, 0xc9, 0x75, 0xf5, 0xeb, 0xfe]);
  c.set([0xc1, 0xc0, by, 0xc3], 0x1000);
  return c;
}
function run(store: CodeStore, { by = 3, gpa = 0x10_0000, shape, heat = HEAT }: { by?: number; gpa?: number; shape?: Shape; heat?: number } = {}) {
  const m = new FlatMachine(8 << 20, (memory, at, platform, options) => makeTranslator(memory, at, platform, { ...options, translateAfter: heat, store, ...(shape ? { shape } : {}) })), { cpu } = m.engine;
  m.write(gpa, code(by));
  m.map(LINEAR, gpa); m.map(LINEAR + 4096, gpa + 4096); m.map(0x60_0000, 0x20_0000);
  cpu.setGpr(4, 0x60_0800n); cpu.set(CPU.rip, BigInt(LINEAR));
  for (let n = 0; n < 100_000 && cpu.rip !== BigInt(LINEAR + 0x12); n++) m.engine.run(10_000);
  return { rax: cpu.gpr(RAX), counters: m.engine.counters };
}
const expected = (by: number): bigint => { let a = 0; for (let n = 100_000; n > 0; n--) { a = a + n | 0; a = a << by | a >>> 32 - by; } return BigInt(a >>> 0); };
const newStore = (): CodeStore => new CodeStore(new Views(new SharedArrayBuffer(STORE_BYTES)), 0, STORE_BYTES);

test("what one engine has translated another takes as it is, wherever the code lies, before it would translate it; stubs too", () => {
  const store = newStore(), first = run(store);
  assert.equal(first.rax, expected(3));
  assert.ok(first.counters.regions! > 0 && first.counters.stubs! > 0 && first.counters.adopted === 0, JSON.stringify(first.counters));
  for (const gpa of [0x10_0000, 0x18_2000]) {
    const second = run(store, { gpa });
    assert.equal(second.rax, expected(3));
    assert.deepEqual([second.counters.regions, second.counters.stubs], [0, 0], JSON.stringify(second.counters));
    assert.ok(second.counters.adopted! > 0);
  }
  const eager = run(store, { heat: 0 });
  assert.equal(eager.rax, expected(3));
  assert.ok(eager.counters.adopted! > 0);
});
test("code that differs in one byte is another's", () => {
  const store = newStore();
  run(store);
  const second = run(store, { by: 5 });
  assert.equal(second.rax, expected(5));
  assert.ok(second.counters.regions! > 0, JSON.stringify(second.counters));
});
test("who wants one shape takes no other", () => {
  const store = newStore();
  run(store, { shape: "lean" });
  const wide = run(store, { shape: "wide" });
  assert.deepEqual([wide.rax, wide.counters.adopted], [expected(3), 0]);
  assert.ok(wide.counters.regions! > 0);
});
test("a store that forgets all the time costs no more than its services", () => {
  const small = new CodeStore(new Views(new SharedArrayBuffer(81_920)), 0, 81_920);
  for (const by of [1, 2, 3, 1, 2, 3]) assert.equal(run(small, { by }).rax, expected(by));
});
