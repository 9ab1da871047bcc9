/** REP MOVS and REP STOS against a model that does an element at a time: over pages and in them, overlapping, backwards, with a TLB that knows the pages and one that does not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { makeInterpreter } from "./engine.ts";
import { FlatMachine } from "./flat-machine.ts";
import { CPU, EFLAGS, EXIT, RAX, RCX, RDI, RSI, RSP } from "./state.ts";

const CODE = 0x400000, DATA = 0x600000, PAGES = 4, BYTES = PAGES * 4096, FRAMES = 0x20000;
/** [rex] f3 op, then INT3, which has no IDT: a triple fault. */
const OPS = [{ bytes: 1, movs: [0xf3, 0xa4], stos: [0xf3, 0xaa] }, { bytes: 2, movs: [0x66, 0xf3, 0xa5], stos: [0x66, 0xf3, 0xab] }, { bytes: 4, movs: [0xf3, 0xa5], stos: [0xf3, 0xab] }, { bytes: 8, movs: [0xf3, 0x48, 0xa5], stos: [0xf3, 0x48, 0xab] }] as const;

function random(seed: number): (below: number) => number {
  let x = seed;
  return (below) => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return Math.floor((x / 2 ** 32) * below);
  };
}
/** What the processor does, by the manual: one element after the other. */
function model(memory: Uint8Array, kind: "movs" | "stos", bytes: number, from: number, to: number, n: number, rax: bigint, isBackward: boolean): void {
  for (let i = 0; i < n; i++) {
    const at = isBackward ? -i * bytes : i * bytes;
    const element = kind === "movs" ? memory.slice(from + at, from + at + bytes) : Uint8Array.from({ length: bytes }, (_, k) => Number(rax >> BigInt(8 * k) & 255n));
    memory.set(element, to + at);
  }
}

for (const [name, options] of [["interpreter", {}], ["lean regions", { translateAfter: 0, shape: "lean" }], ["wide regions", { translateAfter: 0, shape: "wide" }]] as const) {
  test(`repeated MOVS and STOS do what one element after the other does (${name})`, () => {
    const below = random(7), seen = new Set<string>();
    for (const kind of ["movs", "stos"] as const) for (const { bytes, [kind]: code } of OPS) {
      const m = new FlatMachine(8 << 20, (memory, base, platform, o) => makeInterpreter(memory, base, platform, { ...o, ...options })), { cpu } = m.engine;
      m.map(CODE, 0x10000);
      for (let i = 0; i < PAGES; i++) m.map(DATA + i * 4096, FRAMES + i * 4096);
      m.write(0x10000, Uint8Array.from([...code, 0xcc]));
      const start = m.ram + FRAMES, memory = m.v.u8.subarray(start, start + BYTES);
      for (let round = 0; round < 150; round++) {
        for (let i = 0; i < BYTES; i++) memory[i] = below(256);
        const isBackward = below(6) === 0, n = below(3) ? below(40) : below(3000 / bytes), room = BYTES - n * bytes - bytes, lowest = isBackward ? n * bytes : 0;
        const to = lowest + below(room - lowest), near = Math.min(Math.max(lowest, to + below(129) - 64), room - 1), from = below(2) ? near : lowest + below(room - lowest);
        const rax = below(2) ? 0n : BigInt(below(2 ** 32)) << 32n | BigInt(below(2 ** 32)), wanted = memory.slice();
        model(wanted, kind, bytes, from, to, n, rax, isBackward);
        cpu.setGpr(RSP, BigInt(DATA + BYTES)); cpu.setGpr(RSI, BigInt(DATA + from)); cpu.setGpr(RDI, BigInt(DATA + to)); cpu.setGpr(RCX, BigInt(n)); cpu.setGpr(RAX, rax);
        cpu.set(CPU.eflags, EFLAGS.fixed | (isBackward ? EFLAGS.DF : 0));
        if (round % 3 === 0) cpu.mmu.tlb.flushAll();
        cpu.rip = BigInt(CODE);
        let ended = false;
        m.engine.onDeliver = () => { ended = true; };
        while (!ended) assert.notEqual(m.engine.run(100000), EXIT.halt);
        const what = `${kind} of ${n} times ${bytes} bytes from ${from} to ${to}${isBackward ? ", backward" : ""}, rax ${rax.toString(16)}`, by = BigInt((isBackward ? -1 : 1) * n * bytes);
        assert.deepEqual([cpu.gpr(RCX), cpu.gpr(RDI), cpu.gpr(RSI)], [0n, BigInt(DATA + to) + by, kind === "movs" ? BigInt(DATA + from) + by : BigInt(DATA + from)], what);
        assert.ok(Buffer.compare(memory, wanted) === 0, what);
        seen.add([isBackward, n === 0, to >> 12 === (to + n * bytes - 1) >> 12, kind === "movs" && to > from && to < from + n * bytes].join());
      }
    }
    assert.ok(seen.size >= 9, `only ${seen.size} kinds of cases came up`);
  });
}
