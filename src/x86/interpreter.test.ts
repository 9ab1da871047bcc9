import assert from "node:assert/strict";
import { test as nodeTest } from "node:test";
import { type EngineOptions, makeInterpreter } from "./engine.ts";
import { getFlags, setFlags } from "./flags.ts";
import { FlatMachine } from "./flat-machine.ts";
import { CPU, EFLAGS, EXIT, RAX, RBX, RCX, RDI, RSI, RSP, VECTOR } from "./state.ts";

/** Every test runs on the interpreter, and with each block translated before it is first executed, in both shapes. */
let options: EngineOptions = {};
const test = (what: string, body: () => void): void => {
  for (const [name, o] of [["interpreter", {}], ["lean regions", { translateAfter: 0, shape: "lean" }], ["wide regions", { translateAfter: 0, shape: "wide" }]] as const) nodeTest(`${what} (${name})`, () => { options = o; body(); });
};
const CODE = 0x400000, DATA = 0x600000;
/** A machine with `code` (hex) at CODE, two code pages and three data pages, the last of them read-only; the next page is not there. */
function machine(code: string, at = CODE, Kind = FlatMachine): FlatMachine {
  const m = new Kind(8 << 20, (memory, base, platform, o) => makeInterpreter(memory, base, platform, { ...o, ...options }));
  for (let i = 0; i < 2; i++) m.map(CODE + i * 4096, 0x10000 + i * 4096);
  for (let i = 0; i < 3; i++) m.map(DATA + i * 4096, 0x20000 + i * 4096, { writable: i < 2 });
  m.write(0x10000 + at - CODE, Uint8Array.from(code.replaceAll(" ", "").match(/../g) ?? [], x => Number.parseInt(x, 16)));
  m.engine.cpu.rip = BigInt(at);
  m.engine.cpu.setGpr(RSP, BigInt(DATA + 0x1000));
  return m;
}
/** Run to the first exception; there is no IDT, so it ends in a triple fault. */
function run(m: FlatMachine, budget = 100000): { vector: number; errorCode: number; rip: bigint } {
  let first: { vector: number; errorCode: number; rip: bigint } | null = null;
  m.engine.onDeliver = (vector, errorCode) => { first ??= { vector, errorCode, rip: m.engine.cpu.rip }; };
  while (first === null) if (m.engine.run(budget) === EXIT.slice && budget < 100000) break;
  return first ?? { vector: -1, errorCode: 0, rip: m.engine.cpu.rip };
}
const CC = "cc";          // INT3 with no IDT: #GP naming the IDT's gate

test("an instruction on two pages is executed, and what follows it", () => {
  const m = machine(`48 c7 c0 78 56 34 12  ff c0 ${CC}`, CODE + 4096 - 4);
  run(m);
  assert.equal(m.engine.cpu.gpr(RAX), 0x12345679n);
});
test("an instruction whose second page is not there faults with that page's address and changes nothing", () => {
  const m = machine("48 c7 c0 78", CODE + 8192 - 4);
  const f = run(m);
  assert.deepEqual({ ...f, cr2: m.engine.cpu.get(CPU.cr2) }, { vector: VECTOR.PF, errorCode: 0x14, rip: BigInt(CODE + 8192 - 4), cr2: BigInt(CODE + 8192) });
});
test("code that overwrites the next instruction of its own run executes the new bytes", () => {
  // mov byte [rip+1], 0x42 ; mov al, 0x11 (becomes 0x42) ; int3
  const m = machine(`c6 05 01 00 00 00 42  b0 11  ${CC}`);
  run(m);
  assert.equal(m.engine.cpu.gpr(RAX), 0x42n);
});
test("SERIALIZE goes on with everything as it was; with a prefix it is no instruction", () => {
  // add eax,-1 ; serialize ; adc ebx,0 ; int3
  const m = machine(`83 c0 ff  0f 01 e8  83 d3 00  ${CC}`), { cpu } = m.engine;
  cpu.setGpr(RAX, 1n); cpu.setGpr(RBX, 5n);
  run(m);
  assert.deepEqual([cpu.gpr(RAX), cpu.gpr(RBX)], [0n, 6n]);
  for (const prefix of ["66", "f2", "f0"]) assert.equal(run(machine(`${prefix} 0f 01 e8`)).vector, VECTOR.UD, prefix);
});
test("after SERIALIZE this pCPU's attention is given to whoever has asked for it", () => {
  // add eax,1 ; serialize ; mov dword [rdi],1 ; add eax,1 ; serialize ; add eax,1 ; int3
  const m = machine(`83 c0 01  0f 01 e8  c7 07 01 00 00 00  83 c0 01  0f 01 e8  83 c0 01  ${CC}`, CODE, class extends FlatMachine { get requestWord(): number { return this.ram + 0x20000; } }), { cpu } = m.engine;
  cpu.setGpr(RDI, BigInt(DATA));
  assert.equal(m.engine.run(1000), EXIT.slice);
  assert.deepEqual([cpu.gpr(RAX), cpu.rip], [2n, BigInt(CODE + 18)]);
  m.v.u32[(m.ram + 0x20000) >>> 2] = 0;
  run(m);
  assert.equal(cpu.gpr(RAX), 3n);
});
test("a loop that patches itself takes each new byte", () => {
  // mov ecx,5 ; L: inc byte [rip+1] ; add al, 0 (imm patched) ; dec ecx ; jnz L ; int3
  const m = machine(`b9 05 00 00 00  fe 05 01 00 00 00  04 00  ff c9  75 f4  ${CC}`);
  run(m);
  assert.equal(m.engine.cpu.gpr(RAX), BigInt(1 + 2 + 3 + 4 + 5));
});
test("a read-modify-write into a page with code, from the page before, is done once", () => {
  const m = machine(`48 01 07  ${CC}`, CODE + 4096 + 8), { cpu } = m.engine;
  m.v.dv.setBigUint64(m.ram + 0x10000 + 4092, 0x1ffffffffn, true);
  cpu.setGpr(RDI, BigInt(CODE + 4092)); cpu.setGpr(RAX, 1n);
  run(m);
  assert.equal(m.v.dv.getBigUint64(m.ram + 0x10000 + 4092, true), 0x200000000n);
});
for (const [what, isCode] of [["is met for the first time", false], ["may hold code", true]] as const) {
  test(`a locked increment in a page that ${what} loses no other thread's write`, () => {
    for (let when = 1; when < 6; when++) {
      const m = machine(`f0 48 ff 07  ${CC}`), frame = 0x20000 >>> 12, word = (m.ram + 0x20000) >>> 3, { frameOf } = m;
      let nr = 0, added = 0n;
      if (isCode) m.codeFrames.add((m.ram >>> 12) + frame);
      // another thread's turn: whenever the engine asks for the frame for the n-th time
      m.frameOf = (gfn) => {
        if (gfn === frame && ++nr === when) { m.v.u64[word]! += 1000n; added += 1000n; }
        return frameOf.call(m, gfn);
      };
      m.engine.cpu.setGpr(RDI, BigInt(DATA));
      run(m);
      assert.equal(m.v.u64[word], 1n + added, `at time ${when}`);
    }
  });
}
test("a store that faults leaves registers, flags and the other page untouched", () => {
  // stc ; mov rax,[..] ; add [rdi], rax crossing into the read-only page
  const m = machine(`f9  48 01 07  ${CC}`), { cpu } = m.engine;
  cpu.setGpr(RDI, BigInt(DATA + 8192 - 3)); cpu.setGpr(RAX, 1n);
  const before = m.v.u8.slice(m.ram + 0x22000 - 8, m.ram + 0x22008);
  const f = run(m);
  assert.deepEqual([f.vector, f.errorCode, f.rip, cpu.get(CPU.cr2)], [VECTOR.PF, 7, BigInt(CODE + 1), BigInt(DATA + 8192)]);
  assert.equal(getFlags(cpu) & EFLAGS.CF, 1);
  assert.deepEqual(m.v.u8.slice(m.ram + 0x22000 - 8, m.ram + 0x22008), before);
});
test("pushes go down over a page's end and stop at one that is not there", () => {
  const m = machine(`50 51 52 ${CC}`), { cpu } = m.engine;
  cpu.setGpr(RAX, 0x1111n); cpu.setGpr(RCX, 0x2222n); cpu.setGpr(RSP, BigInt(DATA + 12));
  const f = run(m);
  assert.deepEqual([f.vector, f.errorCode, f.rip, cpu.get(CPU.cr2), cpu.gpr(RSP)], [VECTOR.PF, 6, BigInt(CODE + 1), BigInt(DATA - 4), BigInt(DATA + 4)]);
  assert.equal(m.v.dv.getBigUint64(m.ram + 0x20004, true), 0x1111n);
});
test("a page that was read is not thereby one to write", () => {
  const m = machine(`48 8b 07  48 89 47 08  ${CC}`), { cpu } = m.engine;
  cpu.setGpr(RDI, BigInt(DATA + 0x2000));
  const f = run(m);
  assert.deepEqual([f.vector, f.errorCode, f.rip, cpu.get(CPU.cr2)], [VECTOR.PF, 7, BigInt(CODE + 3), BigInt(DATA + 0x2008)]);
});
test("accesses by one register find each its own page, and both where they cross", () => {
  // mov rax,[rdi] ; mov rcx,[rdi+16] ; mov rbx,[rdi-16] ; mov rsi,[rdi+4] ; mov [rdi+12],eax ; mov [rdi-4],ecx
  const m = machine(`48 8b 07  48 8b 4f 10  48 8b 5f f0  48 8b 77 04  89 47 0c  89 4f fc  ${CC}`), { cpu } = m.engine, near = m.ram + 0x21000 - 8, far = m.ram + 0x30000;
  m.map(DATA + 4096, 0x30000);
  cpu.setGpr(RDI, BigInt(DATA + 4096 - 8));
  m.v.dv.setBigUint64(near, 0x1122334455667788n, true); m.v.dv.setBigUint64(near - 16, 3n, true);
  m.v.dv.setBigUint64(far, 0x99aabbccddeeff00n, true); m.v.dv.setBigUint64(far + 8, 0x2222222222222222n, true);
  run(m);
  assert.deepEqual([RAX, RCX, RBX, RSI].map(i => cpu.gpr(i)), [0x1122334455667788n, 0x2222222222222222n, 3n, 0xddeeff0011223344n]);
  assert.deepEqual([m.v.dv.getUint32(far + 4, true), m.v.dv.getUint32(near - 4, true)], [0x55667788, 0x22222222]);
});
test("a jump that went somewhere before goes where the page is now", () => {
  const m = machine(`ff d0 ff d0 ff d0 ${CC}`), { cpu } = m.engine, f = CODE + 0x10000;
  for (const [gpa, n] of [[0x30000, 1], [0x31000, 2], [0x32000, 3]] as const) m.write(gpa, Uint8Array.from([0x80, 0xc1, n, 0xc3]));       // add cl, n ; ret
  const go = (gpa: number): bigint => {
    m.map(f, gpa);
    cpu.set(CPU.exit, EXIT.none); cpu.rip = BigInt(CODE); cpu.setGpr(RCX, 0n); cpu.setGpr(RAX, BigInt(f)); cpu.setGpr(RSP, BigInt(DATA + 0x1000));
    run(m);
    return cpu.gpr(RCX);
  };
  assert.equal(go(0x30000), 3n);
  cpu.mmu.tlb.invlpg(f);
  assert.equal(go(0x31000), 6n);
  cpu.mmu.tlb.flushLocal();
  assert.equal(go(0x32000), 9n);
});
test("a repeated string instruction stops at a fault with its registers where it got to", () => {
  const m = machine(`f3 aa ${CC}`), { cpu } = m.engine;
  cpu.setGpr(RDI, BigInt(DATA + 8192 - 10)); cpu.setGpr(RCX, 100n); cpu.setGpr(RAX, 0x55n);
  const f = run(m);
  assert.deepEqual([f.vector, f.rip, cpu.gpr(RCX), cpu.gpr(RDI)], [VECTOR.PF, BigInt(CODE), 90n, BigInt(DATA + 8192)]);
});
test("a repeated string instruction can be left in the middle and taken up again", () => {
  const m = machine(`f3 a6 ${CC}`), { cpu } = m.engine;
  cpu.setGpr(RDI, BigInt(DATA)); cpu.setGpr(RSI, BigInt(DATA)); cpu.setGpr(RCX, 1000n);
  assert.equal(m.engine.run(10), EXIT.slice);
  assert.equal(cpu.rip, BigInt(CODE));
  assert.ok(cpu.gpr(RCX) < 1000n && cpu.gpr(RCX) > 900n);
  run(m);
  assert.equal(cpu.gpr(RCX), 0n);
});
test("the trap flag raises #DB after each instruction", () => {
  const m = machine(`ff c0 ff c3 ${CC}`), { cpu } = m.engine;
  setFlags(cpu, EFLAGS.TF, EFLAGS.TF);
  const f = run(m);
  assert.deepEqual([f.vector, f.rip, cpu.gpr(RAX), cpu.gpr(RBX)], [VECTOR.DB, BigInt(CODE + 2), 1n, 0n]);
});
test("stepping over the last instruction of a page, and over one that goes on in the next, leads into the next", () => {
  for (const [code, back, next] of [["83 c8 01  90", 3, 4096], ["83 c8 01  90", 2, 4097]] as const) {
    const m = machine(code, CODE + 4096 - back);
    setFlags(m.engine.cpu, EFLAGS.TF, EFLAGS.TF);
    assert.equal(run(m).rip, BigInt(CODE + next));
  }
});
test("numbers of 64 bits, and distances of nearly 2 GiB, are whole", () => {
  // movabs rax, imm64 ; mov [moffs64], eax ; lea rbx, [rip + 0x7fffffff] ; jmp +0x7ffffff0, where nothing is
  const m = machine("48 b8 f0 de bc 9a 78 56 34 12  a3 10 00 60 00 00 00 00 00  48 8d 1d ff ff ff 7f  e9 f0 ff ff 7f", CODE + 0x800), { cpu } = m.engine, f = run(m);
  assert.deepEqual([cpu.gpr(RAX), m.v.dv.getUint32(m.ram + 0x20010, true), cpu.gpr(RBX)], [0x123456789abcdef0n, 0x9abcdef0, BigInt(CODE + 0x800 + 26 + 0x7fffffff)]);
  assert.deepEqual([f.vector, cpu.get(CPU.cr2)], [VECTOR.PF, BigInt(CODE + 0x800 + 31 + 0x7ffffff0)]);
});
test("bytes that are no instruction raise #UD, sixteen prefixes #GP", () => {
  assert.equal(run(machine("0f 04")).vector, VECTOR.UD);
  assert.equal(run(machine("f0 01 c0")).vector, VECTOR.UD);
  assert.equal(run(machine(`${"66".repeat(15)} 90`)).vector, VECTOR.GP);
});
test("locked arithmetic works on aligned memory", () => {
  const m = machine(`f0 48 ff 07  ff c9  75 f8  ${CC}`), { cpu } = m.engine;
  cpu.setGpr(RDI, BigInt(DATA)); cpu.setGpr(RCX, 1000n);
  run(m);
  assert.equal(m.v.u64[(m.ram + 0x20000) >>> 3], 1000n);
});
