/** What a region takes in when it is made wide. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { makeTranslator } from "./engine.ts";
import { FlatMachine, int32 } from "./flat-machine.ts";
import { CPU, RCX, RSP } from "./state.ts";

const LINEAR = 0x40_0000, HEAT = 100, NR_ADDS = 60, TURNS = 20_000;
/** A function of NR_ADDS instructions, called from one loop until it is a region, and then at each end of a loop that counts down from TURNS. */
function program(): { bytes: Uint8Array; second: number; end: number } {
  const main: number[] = [0x48, 0x8d, 0x05, ...int32(0x1000 - 7)];                       // lea rax, [function]
  main.push(0xbb, ...int32(HEAT * 50));                                                  // mov ebx, ...
  const first = main.length;
  main.push(0xff, 0xd0, 0xff, 0xcb, 0x75, first - (main.length + 6) & 255);             // first: call rax; dec ebx; jnz first
  const second = main.push(0xbb, ...int32(8_000_000 / TURNS)) - 5, outer = main.length;  // mov ebx, ...
  main.push(0xb9, ...int32(TURNS), 0xff, 0xc9, 0x75, 0xfc);                              // outer: mov ecx, TURNS; again: dec ecx; jnz again
  main.push(0xe8, ...int32(0x1000 - (main.length + 5)));                                 // call function
  main.push(0xff, 0xcb, 0x75, outer - (main.length + 4) & 255);                         // dec ebx; jnz outer
  const bytes = new Uint8Array(8192), end = main.length;
  bytes.set([...main, 0xeb, 0xfe]);                                                     // jmp $
  bytes.set([...Array.from({ length: NR_ADDS }, () => [0xff, 0xc2]).flat(), 0xc3], 0x1000);        // function: inc edx, ...; ret
  return { bytes, second, end };
}
/** Instructions that were translated in the second loop. */
function translatedLater(): number {
  const { bytes, second, end } = program(), m = new FlatMachine(8 << 20, (memory, at, platform, options) => makeTranslator(memory, at, platform, { ...options, translateAfter: HEAT })), { cpu } = m.engine;
  m.write(0x10_0000, bytes);
  m.map(LINEAR, 0x10_0000); m.map(LINEAR + 4096, 0x10_1000); m.map(0x60_0000, 0x20_0000);
  cpu.setGpr(RSP, 0x60_0800n); cpu.set(CPU.rip, BigInt(LINEAR));
  const offset = (): number => Number(cpu.rip) - LINEAR;
  let before = -1;
  for (let n = 0; n < 1_000_000 && offset() !== end; n++) {
    m.engine.run(1000);
    if (before < 0 && cpu.gpr(RCX) !== 0n && offset() >= second) before = m.engine.counters.regionInsns!;
  }
  assert.equal(offset(), end);
  return m.engine.counters.regionInsns! - before;
}
test("a loop that stays is made again without what other regions hold", (t) => {
  let nowMs = 0;
  t.mock.method(performance, "now", () => nowMs += 4);        // no region waits for others, however busy this computer is
  const nr = translatedLater();
  assert.ok(nr > 0 && nr < NR_ADDS, `${nr} instructions`);
});
