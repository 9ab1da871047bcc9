/** What the translator remembers of floats in loops (which hold ordinary numbers, at translation and at run time): the interpreter, which asks each time, is the judge. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { makeInterpreter, makeTranslator } from "./engine.ts";
import { random } from "./fixture.ts";
import { FlatMachine } from "./flat-machine.ts";
import type { Shape } from "./image.ts";
import { CPU, RAX, xmmAt } from "./state.ts";

const CODE = 0x40_0000, DATA = 0x60_0000, LOOPS = 200;
const VALUES = [0, -0, 1, -1.5, 0.1, 3e300, -1e-300, 2 ** -1022, 2 ** -1074, -(2 ** -1030), 1.7976931348623157e308, Infinity, -Infinity, NaN, 4, 1e-160, 2 ** 52 + 1, 0.5];

const rng = (seed: number): ((n: number) => number) => random(Math.imul(seed + 1, 0x9e3779b1) | 1);
/** Random scalar and packed arithmetic on doubles and singles, comparisons that are branched on and counted, copies and memory, in a loop that ecx counts. */
function loop(seed: number): Uint8Array {
  const r = rng(seed), c: number[] = [0xb9, LOOPS & 255, LOOPS >> 8, 0, 0], reg = (): number => r(6), modrm = (d: number, s: number): number => 0xc0 | d << 3 | s, top = c.length;
  const SD = [0x58, 0x59, 0x5c, 0x5e, 0x51, 0x5d, 0x5f];
  for (let n = 4 + r(14); n > 0; n--) {
    switch (r(14)) {
      case 0: case 1: case 2: case 3: c.push(0xf2, 0x0f, SD[r(SD.length)]!, modrm(reg(), reg())); break;
      case 4: case 11: case 12: case 13: c.push(0xf2, 0x0f, SD[r(4)]!, 0x46 | reg() << 3, r(16) * 8); break;      // with [rsi + n]
      case 5: c.push(0x66, 0x0f, 0x28, modrm(reg(), reg())); break;                               // movapd
      case 6: if (r(2)) c.push(0xf2, 0x0f, 0x10, modrm(reg(), reg())); else c.push(0xf2, 0x0f, 0x10, 0x46 | reg() << 3, r(16) * 8); break;      // movsd
      case 7: c.push(0x66, 0x0f, 0x2e + r(2), modrm(reg(), reg()), 0x70 | [2, 3, 4, 5, 6, 7, 10, 11][r(8)]!, 2, 0xff, 0xc0); break;     // (u)comisd; jcc over inc eax
      case 8: c.push(0x66, 0x0f, SD[r(SD.length)]!, modrm(reg(), reg())); break;                  // the same packed
      case 9: c.push(0xf3, 0x0f, SD[r(SD.length)]!, modrm(reg(), reg())); break;                  // and with singles
      default: c.push(0xf2, 0x0f, 0x11, 0x47 | reg() << 3, r(4) * 8, 0xf2, 0x0f, 0x58, 0x47 | reg() << 3, r(4) * 8);                    // movsd [rdi + n], x; addsd y, [rdi + m]
    }
  }
  c.push(0xff, 0xc9, 0x0f, 0x85, 0, 0, 0, 0);                                                     // dec ecx; jnz top
  const back = top - c.length, bytes = Uint8Array.from([...c, 0xeb, 0xfe]);
  new DataView(bytes.buffer).setInt32(c.length - 4, back, true);
  return bytes;
}
function run(bytes: Uint8Array, seed: number, shape: Shape | null, mxcsr: number): { state: string; regions: number } {
  const m = new FlatMachine(4 << 20, (memory, at, platform, options) => (shape === null ? makeInterpreter(memory, at, platform, options) : makeTranslator(memory, at, platform, { ...options, translateAfter: 0, shape }))), { cpu } = m.engine;
  const r = rng(seed + 1000), end = BigInt(CODE + bytes.length - 2), data = new DataView(new ArrayBuffer(4096));
  VALUES.forEach((x, i) => data.setFloat64(i * 8, x, true));
  m.write(0x10_0000, bytes); m.write(0x20_0000, new Uint8Array(data.buffer)); m.write(0x20_1000, new Uint8Array(data.buffer));
  for (const [n, gpa] of [0x20_0000, 0x20_1000].entries()) m.map(DATA + n * 4096, gpa);
  m.map(CODE, 0x10_0000);
  cpu.setGpr(6, BigInt(DATA)); cpu.setGpr(7, BigInt(DATA + 4096)); cpu.set(CPU.mxcsr, mxcsr); cpu.set(CPU.rip, BigInt(CODE));
  for (let i = 0; i < 6; i++) for (const half of [0, 8]) m.v.dv.setFloat64(xmmAt(i) + half, VALUES[r(VALUES.length)]!, true);
  for (let n = 0; n < 1000 && cpu.rip !== end; n++) m.engine.run(5000);
  assert.equal(cpu.rip, end, `seed ${seed}: the loop ends`);
  const xmm = Array.from({ length: 6 }, (_, i) => [m.v.dv.getBigUint64(xmmAt(i), true).toString(16), m.v.dv.getBigUint64(xmmAt(i) + 8, true).toString(16)].join(" "));
  return { state: JSON.stringify([xmm, cpu.get(CPU.mxcsr).toString(16), cpu.gpr(RAX).toString(), [...m.v.u8.slice(m.ram + 0x20_1000, m.ram + 0x20_1000 + 32)]]), regions: m.engine.counters["regions"] ?? 0 };
}

test("loops of floating point do the same translated, in both shapes, whatever their numbers become", () => {
  let regions = 0;
  for (let seed = 0; seed < 100; seed++) {
    const bytes = loop(seed), mxcsr = [0x1f80, 0x1fa0, 0x1fbf, 0x9fe0][seed % 4]!, wanted = run(bytes, seed, null, mxcsr);
    for (const shape of ["lean", "wide"] as const) {
      const found = run(bytes, seed, shape, mxcsr);
      assert.equal(found.state, wanted.state, `seed ${seed}, ${shape}, MXCSR 0x${mxcsr.toString(16)}`);
      regions += found.regions;
    }
  }
  assert.ok(regions >= 100, `${regions} regions`);
});
