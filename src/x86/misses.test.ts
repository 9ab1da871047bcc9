/** Accesses that the TLB does not serve, in the middle of blocks and loops: two pages that take each other's entry in turn, accesses over a page's end, locked ones that are not aligned. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { makeInterpreter, makeTranslator } from "./engine.ts";
import { FlatMachine } from "./flat-machine.ts";
import type { Shape } from "./image.ts";
import { TLB_BITS } from "./layout.ts";
import { CPU, EXIT, RCX, RDI, RSI, RSP } from "./state.ts";

const LINEAR = 0x40_0000, ONE = 0x60_0000, OTHER = ONE + (4096 << TLB_BITS), ROUNDS = 3000;
/** Between its first and its last instruction all state is in registers: what is left undone must find it in its place. */
const CODE = Uint8Array.of(
  0x48, 0x8b, 0x06,                         // again: mov rax, [rsi]
  0x48, 0x8d, 0x14, 0x08,                   //   lea rdx, [rax + rcx]
  0x48, 0x01, 0x17,                         //   add [rdi], rdx
  0x48, 0x39, 0xca,                         //   cmp rdx, rcx
  0x4c, 0x8b, 0x46, 0x08,                   //   mov r8, [rsi + 8]
  0x4c, 0x13, 0x07,                         //   adc r8, [rdi]
  0x4c, 0x89, 0x86, 0xfc, 0x0f, 0, 0,       //   mov [rsi + 0xffc], r8
  0x0f, 0x10, 0x07,                         //   movups xmm0, [rdi]
  0x0f, 0x11, 0x46, 0x10,                   //   movups [rsi + 16], xmm0
  0xf0, 0x48, 0x0f, 0xc1, 0x57, 0x21,       //   lock xadd [rdi + 0x21], rdx
  0x41, 0x50, 0x41, 0x59,                   //   push r8; pop r9
  0x4c, 0x31, 0x0e,                         //   xor [rsi], r9
  0xff, 0xc9,                               //   dec ecx
  0x75, 0xcd,                               //   jnz again
  0xf4,                                     // hlt, which is #GP, and there is no table of vectors
);
/** The state at the end. shape: null: interpreted */
function run(shape: Shape | null) {
  const m = new FlatMachine(8 << 20, (memory, at, platform, options) => (shape === null ? makeInterpreter(memory, at, platform, options) : makeTranslator(memory, at, platform, { ...options, translateAfter: 0, shape }))), { cpu } = m.engine;
  m.write(0x10_0000, CODE);
  m.map(LINEAR, 0x10_0000);
  [ONE, ONE + 4096, OTHER, OTHER + 4096, 0x50_0000].forEach((at, n) => { m.map(at, 0x20_0000 + n * 4096); });
  m.v.u64[(m.ram + 0x20_0000) >>> 3] = 0x0123_4567_89ab_cdefn;
  cpu.setGpr(RSI, BigInt(ONE)); cpu.setGpr(RDI, BigInt(OTHER)); cpu.setGpr(RCX, BigInt(ROUNDS)); cpu.setGpr(RSP, 0x50_0800n); cpu.set(CPU.rip, BigInt(LINEAR));
  for (let n = 0; n < 1000 && m.engine.run(1000) === EXIT.slice; n++);
  return {
    gprs: Array.from({ length: 16 }, (_, i) => cpu.gpr(i)), rip: cpu.rip, exit: cpu.exit, flags: [cpu.get(CPU.fres), cpu.get(CPU.faux)], xmm0: cpu.v.u8.slice(CPU.xmm.at, CPU.xmm.at + 16), memory: m.v.u8.slice(m.ram + 0x20_0000, m.ram + 0x20_5000),
    retired: cpu.get(CPU.retired), walks: cpu.mmu.walks, counters: m.engine.counters,
  };
}
const expected = run(null);
for (const shape of ["lean", "wide"] as const) test(`${shape} regions do what the interpreter does where the TLB misses, and count the same`, () => {
  const { counters, walks, ...found } = run(shape), { counters: _, walks: __, ...same } = expected;
  assert.ok(counters.regions! > 0 && walks > ROUNDS * 4, JSON.stringify({ walks, counters }));
  assert.deepEqual(found, same);
});
