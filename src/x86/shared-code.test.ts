import assert from "node:assert/strict";
import { test } from "node:test";
import { Views } from "../base/views.ts";
import { CodeStore } from "./code-store.ts";
import { makeInterpreter, makeTranslator } from "./engine.ts";
import { FlatMachine, int32 } from "./flat-machine.ts";
import type { Shape } from "./image.ts";
import { SHAPES_KEY } from "./shared-shapes.ts";
import { CPU, RAX } from "./state.ts";

const LINEAR = 0x40_0000, HEAT = 160, STORE_BYTES = 1 << 20;
/** mov ecx, 100000; xor eax, eax; again: add eax, ecx; call turn; dec ecx; jnz again; jmp $; on the next page, turn: rol eax, by; ret */
function code(by: number): Uint8Array {
  const c = new Uint8Array(8192);
  c.set([0xb9, 0xa0, 0x86, 0x01, 0, 0x31, 0xc0, 0x01, 0xc8, 0xe8, 0xf2, 0x0f, 0, 0, 0xff, 0xc9, 0x75, 0xf5, 0xeb, 0xfe]);
  c.set([0xc1, 0xc0, by, 0xc3], 0x1000);
  return c;
}
/** heat: null: nothing is translated */
type How = { budget?: number; by?: number; gpa?: number; shape?: Shape; heat?: number | null };
const run = (store: CodeStore, how: How = {}) => runCode(store, code(how.by ?? 3), 0x12, how);
/** Two pages of code, until it comes to `end`. */
function runCode(store: CodeStore, bytes: Uint8Array, end: number, { budget = 2_000, gpa = 0x10_0000, shape, heat = HEAT }: How) {
  const m = new FlatMachine(8 << 20, (memory, at, platform, options) => (heat === null ? makeInterpreter(memory, at, platform, { ...options, store }) : makeTranslator(memory, at, platform, { ...options, translateAfter: heat, store, ...(shape ? { shape } : {}) }))), { cpu } = m.engine;
  m.write(gpa, bytes);
  m.map(LINEAR, gpa); m.map(LINEAR + 4096, gpa + 4096); m.map(0x60_0000, 0x20_0000);
  while (m.engine.warmUp());
  cpu.setGpr(4, 0x60_0800n); cpu.set(CPU.rip, BigInt(LINEAR));
  for (let n = 0; n < 100_000 && cpu.rip !== BigInt(LINEAR + end); n++) m.engine.run(budget);
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
test("instructions of shapes that one engine has met are decoded by no other, from a file too; with stubs that are gone they are", () => {
  const store = newStore(), first = run(store), back = newStore(), cut = newStore();
  assert.ok(first.counters.decoded! > 8);
  for (let n = 0; n < 3; n++) run(store);
  back.load(store.encode("e"), "e");
  const again = [run(store), run(back), run(back, { heat: null, gpa: 0x18_2000 })];
  assert.deepEqual(again.map(({ rax, counters: { decoded, records } }) => [rax, decoded! <= 2, records! > 8]), again.map(() => [expected(3), true, true]), JSON.stringify(again.map(({ counters }) => counters)));
  // in a file, what was told one after the other is one module
  const [shapes] = store.find(SHAPES_KEY), apart = newStore(), together = newStore(), dv = new DataView(shapes!.bytes.slice().buffer), nrShapes = dv.getUint32(4, true), TOLD = 44, from = 8 + dv.getUint32(0, true) * 8;
  run(apart, { budget: 10_000_000 });        // too short a time to tell of shapes
  assert.deepEqual(apart.find(SHAPES_KEY), []);
  for (const [first, last] of [[0, 3], [3, nrShapes]] as const) {
    const part = Uint8Array.from([...shapes!.bytes.subarray(0, from), ...shapes!.bytes.subarray(from + first * TOLD, from + last * TOLD)]);
    new DataView(part.buffer).setUint32(4, last - first, true);
    apart.add(new Uint8Array(0), [{ keys: [SHAPES_KEY], bytes: part }]);
  }
  together.load(apart.encode("e"), "e");
  assert.equal(new Set(together.find(SHAPES_KEY).map(({ module }) => module)).size, 1);
  assert.ok(run(together).counters.decoded! <= 2);
  // the same with the shapes alone
  cut.add(new Uint8Array(0), [{ keys: [SHAPES_KEY], bytes: shapes!.bytes.slice() }]);
  const bare = run(cut);
  assert.equal(bare.rax, expected(3));
  assert.ok(bare.counters.decoded! > 8 && bare.counters.stubs! > 8, JSON.stringify(bare.counters));
  cut.add(new Uint8Array(0), [{ keys: [SHAPES_KEY], bytes: shapes!.bytes.slice(0, -3) }]);
  assert.equal(run(cut).rax, expected(3));
});
test("who only interprets takes stubs and no regions", () => {
  const store = newStore();
  run(store);
  const second = run(store, { heat: null });
  assert.deepEqual([second.rax, second.counters.adopted, second.counters.stubs], [expected(3), 0, 0]);
});
test("who wants one shape takes no other", () => {
  const store = newStore();
  run(store, { shape: "lean" });
  const wide = run(store, { shape: "wide" });
  assert.deepEqual([wide.rax, wide.counters.adopted], [expected(3), 0]);
  assert.ok(wide.counters.regions! > 0);
});
test("a store that forgets all the time costs no more than its services", () => {
  const small = new CodeStore(new Views(new SharedArrayBuffer(81_920 + 196_608)), 0, 81_920 + 196_608);
  for (const by of [1, 2, 3, 1, 2, 3]) assert.equal(run(small, { by }).rax, expected(by));
});

/** Twice, with another number in `turn` the second time: call turn and count down from 100000, then write into turn's second block, which nothing but regions has come to. */
function patching(): { bytes: Uint8Array; end: number } {
  const bytes = new Uint8Array(8192), main: number[] = [];
  main.push(0xba, ...int32(2), 0x31, 0xc0);                                              // mov edx, 2; xor eax, eax
  const outer = main.push(0xb9, ...int32(100_000)) - 5, inner = main.length;             // outer: mov ecx, 100000
  main.push(0x01, 0xc8, 0xe8, ...int32(0x1000 - (main.length + 7)));                     // inner: add eax, ecx; call turn
  main.push(0xff, 0xc9, 0x75, inner - (main.length + 4) & 255);                         // dec ecx; jnz inner
  main.push(0xc6, 0x05, ...int32(0x1402 - (main.length + 7)), 7);                        // mov byte [turn's number], 7
  main.push(0xff, 0xca, 0x75, outer - (main.length + 4) & 255);                         // dec edx; jnz outer
  const end = main.length;
  bytes.set([...main, 0xeb, 0xfe]);                                                     // jmp $
  bytes.set([0x90, 0xe9, ...int32(0x3fa)], 0x1000);                                      // turn: nop; jmp second
  bytes.set([0xc1, 0xc0, 3, 0xc3], 0x1400);                                             // second: rol eax, 3; ret
  return { bytes, end };
}
test("a store into code that was only ever taken, never decoded, ends what was taken", () => {
  const { bytes, end } = patching();
  let a = 0;
  for (const by of [3, 7]) for (let n = 100_000; n > 0; n--) { a = a + n | 0; a = a << by | a >>> 32 - by; }
  for (const heat of [0, HEAT, 10_000]) {
    const store = newStore();
    for (let n = 0; n < 3; n++) {
      const { rax, counters } = runCode(store, bytes, end, { heat });
      assert.equal(rax, BigInt(a >>> 0), `heat ${heat}, engine ${n}: ${JSON.stringify(counters)}`);
      assert.ok(n === 0 || counters.adopted! > 0);
    }
  }
});

/** caller: mov edx, 50; call rbx; dec ecx; jnz caller; jmp $. On the next page add eax, 7; then loop, which is not short: add eax, edx; 40 times nop; dec edx; jz out; test esi, esi; jz loop; jmp to what stands before it; out: ret */
function calling(): { bytes: Uint8Array; end: number; loop: number } {
  const bytes = new Uint8Array(8192), back = [0x01, 0xd0, ...Array.from({ length: 40 }, () => 0x90), 0xff, 0xca, 0x74, 6, 0x85, 0xf6], loop = 3;
  bytes.set([0xba, 50, 0, 0, 0, 0xff, 0xd3, 0xff, 0xc9, 0x75, 0xf5, 0xeb, 0xfe]);
  bytes.set([0x83, 0xc0, 7, ...back, 0x74, -(back.length + 2) & 255, 0xeb, -(back.length + 4 + loop) & 255, 0xc3], 0x1000);
  return { bytes, end: 11, loop };
}
test("jumps that another vCPU remembers, to another address of the page, do not enter the region whose place one of another engine's has taken", (t) => {
  let nowMs = 0;
  t.mock.method(performance, "now", () => nowMs += 4);        // no region waits for others, however busy this computer is
  const { bytes, end, loop } = calling(), store = newStore(), PAGES = [0x50_0000, 0x58_1000] as const;
  const machine = () => {
    const m = new FlatMachine(8 << 20, (memory, at, platform, options) => makeTranslator(memory, at, platform, { ...options, translateAfter: HEAT, store })), { cpu } = m.engine;
    m.write(0x10_0000, bytes);
    m.map(LINEAR, 0x10_0000); m.map(0x60_0000, 0x20_0000);
    for (const page of PAGES) m.map(page, 0x10_1000);
    /** A vCPU calls the loop, at an address of its own, the long way or not. */
    const call = (vcpu: 0 | 1, isLong: boolean, times: number): void => {
      m.engine.contextChanged({ vcpu: vcpu + 1, generation: 1, wasGeneration: 1, codeMarks: 1, wasCodeMarks: 1, isOurs: true, isCode: (frame) => m.codeFrames.has(frame) });
      cpu.setGpr(RAX, 0n); cpu.setGpr(1, BigInt(times)); cpu.setGpr(3, BigInt(PAGES[vcpu] + loop)); cpu.setGpr(4, 0x60_0800n); cpu.setGpr(6, isLong ? 1n : 0n); cpu.set(CPU.rip, BigInt(LINEAR));
      for (let n = 0; n < 100_000 && cpu.rip !== BigInt(LINEAR + end); n++) m.engine.run(10_000);
      assert.equal(cpu.gpr(RAX), BigInt((50 * 51 / 2 + (isLong ? 7 * 49 : 0)) * times), `vCPU ${vcpu}`);
    };
    return { call, counters: () => m.engine.counters };
  };
  const first = machine(), other = machine();
  for (const vcpu of [0, 1, 0] as const) first.call(vcpu, false, 200);        // the same code has become hot by now, and vCPU 0 knows it
  for (let n = 0; n < 20; n++) other.call(0, true, 300);
  const before = first.counters()["adopted"]!;
  for (let n = 0; n < 8; n++) first.call(1, false, 1000);
  assert.ok(first.counters()["adopted"]! > before, "no region was taken in the place of another");
  first.call(0, false, 100);
});
