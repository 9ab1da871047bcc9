import assert from "node:assert/strict";
import { test } from "node:test";
import { FlatMachine } from "./flat-machine.ts";
import { getFlags } from "./flags.ts";
import { CPU, CR0, EFLAGS, RAX, VECTOR } from "./state.ts";

const CODE = 0x400000, DATA = 0x600000, HLT = "f4", R8 = 8;
/** A kernel-mode machine: r8 at a page of data, the next page read-only. `run` gives the first exception, or -1 at the end of the code. */
class Bench {
  readonly m = new FlatMachine();
  readonly cpu = this.m.engine.cpu;
  readonly dv = this.m.v.dv;
  readonly data = this.m.ram + 0x20000;
  constructor(code: string, ring: 0 | 3 = 0) {
    this.m.map(CODE, 0x10000); this.m.map(DATA, 0x20000); this.m.map(DATA + 4096, 0x21000, { writable: false });
    this.m.write(0x10000, Uint8Array.from((code + HLT).replaceAll(" ", "").match(/../g)!, x => Number.parseInt(x, 16)));
    this.m.reset(ring);
  }
  run(r8 = DATA): number {
    let first = -1;
    this.m.engine.onDeliver = vector => { if (first < 0) first = vector; };
    this.cpu.rip = BigInt(CODE); this.cpu.setGpr(R8, BigInt(r8));
    this.cpu.set(CPU.halted, 0); this.cpu.set(CPU.exit, 0);
    this.m.engine.run(10000);
    return first;
  }
  get top(): number { return this.cpu.get(CPU.fsw) >> 11 & 7; }
}
const FLD1 = "d9 e8", FLDZ = "d9 ee", FLDPI = "d9 eb";

test("FLDPI and FSTP leave pi as an 80-bit and as a 64-bit number", () => {
  const b = new Bench(`${FLDPI} ${FLDPI} 41 db 38  41 dd 58 10`);
  assert.equal(b.run(), -1);
  assert.equal(b.dv.getBigUint64(b.data, true), 0xc90fdaa22168c235n); assert.equal(b.dv.getUint16(b.data + 8, true), 0x4000);
  assert.equal(b.dv.getFloat64(b.data + 16, true), Math.PI);
  assert.equal(b.cpu.get(CPU.ftw), 0);
});
test("FCOMI sets ZF, PF and CF, FCMOVE obeys them, FNSTSW writes AX", () => {
  const b = new Bench(`${FLD1} ${FLD1} db f1  ${FLDZ} da ca  41 dd 18  df e0`);       // fcomi st(1); fldz; fcmove st(2); fstp [r8]; fnstsw ax
  b.run();
  assert.equal(getFlags(b.cpu) & EFLAGS.arith, EFLAGS.ZF);
  assert.equal(b.dv.getFloat64(b.data, true), 1);
  assert.equal(Number(b.cpu.gpr(RAX)), b.cpu.get(CPU.fsw));
});
test("a store that page-faults leaves the stack as it was", () => {
  const b = new Bench(`${FLDPI} 41 dd 18`, 3);
  assert.equal(b.run(DATA + 4096), VECTOR.PF);
  assert.equal(b.top, 7); assert.equal(b.cpu.get(CPU.ftw), 0x80);
});
test("an unmasked exception waits for the next x87 instruction, MMX instruction or FWAIT", () => {
  for (const next of [FLD1, "9b", "0f fc c1", "0f 77"]) {
    const b = new Bench(`${FLDZ} ${FLD1} d8 f1 ${next}`);                               // fdiv st(1): 1 / 0
    b.cpu.set(CPU.fcw, 0x37b);
    assert.equal(b.run(), VECTOR.MF, next);
    assert.equal(b.cpu.get(CPU.fsw) & 0x84, 0x84);
  }
});
test("FWAIT is #NM only when CR0 has both MP and TS", () => {
  for (const [bits, vector] of [[CR0.TS, -1], [CR0.TS | CR0.MP, VECTOR.NM], [CR0.MP, -1]] as const) {
    const b = new Bench("9b");
    b.cpu.set(CPU.cr0, b.cpu.get(CPU.cr0) & ~BigInt(CR0.TS | CR0.MP) | BigInt(bits)); b.cpu.setMode();
    assert.equal(b.run(), vector);
  }
});
test("FNSAVE and FRSTOR bring the whole state back", () => {
  const b = new Bench(`${FLDPI} ${FLD1} 41 dd 30  41 dd 20`);
  b.cpu.set(CPU.fcw, 0x27f);
  assert.equal(b.run(), -1);
  assert.equal(b.cpu.get(CPU.fcw), 0x27f); assert.equal(b.top, 6); assert.equal(b.cpu.get(CPU.ftw), 0xc0);
  assert.equal(b.dv.getUint16(b.data + 8, true), 0x0fff, "the tag word: registers 6 and 7 are valid");
  assert.equal(b.dv.getBigUint64(b.data + 28 + 10, true), 0xc90fdaa22168c235n, "ST(1) after the environment and ST(0)");
});
test("the instruction and data pointers are those of the last instruction that was no control instruction", () => {
  const b = new Bench("41 dd 40 08  41 d9 38");                                          // fld qword [r8+8]; fnstcw [r8]
  b.run();
  assert.equal(b.cpu.get(CPU.fip), BigInt(CODE)); assert.equal(b.cpu.get(CPU.fdp), BigInt(DATA + 8)); assert.equal(b.cpu.get(CPU.fop), 0x540);
});
test("an MMX instruction empties TOP, fills the tags and marks its register; EMMS empties the tags", () => {
  const b = new Bench(`${FLD1} 0f 6e c0`);
  b.cpu.setGpr(RAX, 0x12345678n); b.run();
  assert.equal(b.top, 0); assert.equal(b.cpu.get(CPU.ftw), 0xff);
  assert.equal(b.dv.getBigUint64(CPU.st.at, true), 0x12345678n); assert.equal(b.dv.getUint16(CPU.st.at + 8, true), 0xffff);
  const e = new Bench("0f 6e c0 0f 77"); e.run();
  assert.equal(e.cpu.get(CPU.ftw), 0);
});
test("opcodes the x87 does not have are #UD", () => {
  for (const code of ["d9 d1", "db e6", "41 d9 08", "df e1"]) assert.equal(new Bench(code).run(), VECTOR.UD, code);
});
