import assert from "node:assert/strict";
import { test } from "node:test";
import { combine, deliver } from "./exceptions.ts";
import { GuestFault } from "./fault.ts";
import { Fixture } from "./fixture.ts";
import { getFlags } from "./flags.ts";
import { ATTR, CPU, CR4, CS, DS, EFLAGS, ES, EXIT, LDTR, MODE, RSP, SS, TR } from "./state.ts";

const GDT = 0x8000, IDT = 0x9000, TSS = 0xa000;
const gate64 = (x: Fixture, vector: number, offset: bigint, sel: number, bits: number, ist = 0): void => {
  const at = IDT + vector * 16;
  x.p32(at, sel << 16 | Number(offset & 0xffffn)); x.p32(at + 4, Number(offset & 0xffff0000n) + (bits << 8) + ist); x.p32(at + 8, Number(offset >> 32n & 0xffffffffn)); x.p32(at + 12, 0);
};
/** Selectors: 08 code64 ring 0, 10 data ring 0, 2b code64 ring 3, 33 data ring 3. */
const long = (): Fixture => {
  const x = new Fixture().identity2m(0x1000).long(0x1000), { cpu } = x;
  [0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0n, 0n, 0x00affb000000ffffn, 0x00cff3000000ffffn].forEach((d, i) => x.p64(GDT + i * 8, d));
  cpu.set(CPU.gdtrBase, BigInt(GDT)); cpu.set(CPU.gdtrLimit, 0x3f); cpu.set(CPU.idtrBase, BigInt(IDT)); cpu.set(CPU.idtrLimit, 0xfff);
  cpu.setSeg(TR, 0x40, TSS, 0x67, 0x8b);
  x.p64(TSS + 4, 0x20000n); x.p64(TSS + 36, 0x30008n);
  return x;
};
const frame = (x: Fixture, n: number): bigint[] => Array.from({ length: n }, (_, i) => x.g64(Number(x.cpu.gpr(RSP)) + i * 8));

test("an interrupt in long mode from ring 3 takes RSP0, a null SS and clears IF", () => {
  const x = long().ring3(), { cpu } = x;
  gate64(x, 0x40, 0x11223344n, 8, 0x8e);
  cpu.rip = 0x401000n; cpu.setGpr(RSP, 0x7fff123n); x.flags(EFLAGS.IF | EFLAGS.ZF | EFLAGS.TF);
  deliver(cpu, 0x40, -1, "external");
  assert.equal(cpu.exit, 0);
  assert.deepEqual(frame(x, 5), [0x401000n, 0x2bn, BigInt(EFLAGS.IF | EFLAGS.ZF | EFLAGS.TF | 2), 0x7fff123n, 0x33n]);
  assert.equal(cpu.gpr(RSP), 0x20000n - 40n); assert.equal(cpu.rip, 0x11223344n); assert.equal(cpu.nextRip, 0x11223344n);
  assert.deepEqual([cpu.cpl, cpu.segSel(SS), cpu.segSel(CS), cpu.mode & 7], [0, 0, 8, MODE.code64]);
  assert.equal(getFlags(cpu), EFLAGS.ZF | 2);
});
test("an exception pushes its error code, RF in the image, on an IST stack without a change of SS", () => {
  const x = long(), { cpu } = x;
  gate64(x, 14, 0xffffffff81000000n, 8, 0x8f, 1);
  cpu.rip = 0x1234n; cpu.setGpr(RSP, 0x50005n); x.flags(EFLAGS.IF);
  deliver(cpu, 14, 6, "exception");
  assert.deepEqual(frame(x, 6), [6n, 0x1234n, 8n, BigInt(EFLAGS.IF | EFLAGS.RF | 2), 0x50005n, 0x10n]);
  assert.equal(cpu.gpr(RSP), 0x30000n - 48n); assert.equal(cpu.segSel(SS), 0x10);
  assert.equal(BigInt.asUintN(64, cpu.rip), 0xffffffff81000000n); assert.equal(getFlags(cpu), EFLAGS.IF | 2);
});
test("INT n from ring 3 through a gate of DPL 0 is #GP with the vector in the error code", () => {
  const x = long().ring3(), { cpu } = x;
  gate64(x, 13, 0x5000n, 8, 0x8e); gate64(x, 0x80, 0x6000n, 8, 0x8e);
  cpu.rip = 0x100n; cpu.nextRip = 0x102n;
  deliver(cpu, 0x80, -1, "int");
  assert.deepEqual(frame(x, 2), [BigInt(0x80 * 8 + 2), 0x100n]);
  gate64(x, 0x80, 0x6000n, 8, 0xee); x.ring3(); cpu.rip = 0x100n; cpu.nextRip = 0x102n;
  deliver(cpu, 0x80, -1, "int");
  assert.deepEqual([cpu.rip, frame(x, 1)[0]], [0x6000n, 0x102n]);
});
test("a page fault whose stack is missing becomes a double fault, and a third one a shutdown", () => {
  const x = long(), { cpu } = x;
  gate64(x, 14, 0x5000n, 8, 0x8e); gate64(x, 8, 0x7000n, 8, 0x8e, 1);
  cpu.rip = 0x77n; cpu.setGpr(RSP, 0x40000000n);
  deliver(cpu, 14, 0, "exception");
  assert.deepEqual([cpu.rip, ...frame(x, 2), cpu.get(CPU.cr2)], [0x7000n, 0n, 0x77n, 0x3ffffff8n]);
  x.p64(TSS + 36, 0x40000000n); cpu.setGpr(RSP, 0x40000000n);
  const before = getFlags(cpu);
  deliver(cpu, 14, 0, "exception");
  assert.equal(cpu.exit, EXIT.tripleFault); assert.equal(getFlags(cpu), before); assert.equal(cpu.gpr(RSP), 0x40000000n);
});
test("faults while delivering: table 6-5", () => {
  const after = (first: number, second: number) => combine(first, new GuestFault(second, 0))?.vector ?? "shutdown";
  assert.deepEqual([after(-1, 13), after(13, 13), after(0, 10), after(13, 14), after(14, 14), after(14, 13), after(1, 14), after(8, 13), after(6, 13), after(14, 6)],
    [13, 8, 8, 14, 8, 8, 14, "shutdown", 13, 6]);
});
test("in real mode the vector table's entry is taken and flags, CS and IP are pushed", () => {
  const x = new Fixture(), { cpu } = x;
  x.p32(0x21 * 4, 0xf0001234); 
  cpu.setSeg(CS, 0x100, 0x1000, 0xffff, 0x9b); cpu.setSeg(SS, 0x200, 0x2000, 0xffff, 0x93); cpu.setGpr(RSP, 0x100n); cpu.nextRip = 0x56n; x.flags(EFLAGS.IF | EFLAGS.CF);
  deliver(cpu, 0x21, -1, "int");
  assert.deepEqual([x.g16(0x20fa), x.g16(0x20fc), x.g16(0x20fe)], [0x56, 0x100, EFLAGS.IF | EFLAGS.CF | 2]);
  assert.deepEqual([cpu.rip, cpu.segBase(CS), cpu.gpr(RSP), getFlags(cpu)], [0x1234n, 0xf0000, 0xfan, 3]);
  cpu.set(CPU.idtrLimit, 0);
  deliver(cpu, 6, -1, "exception");
  assert.equal(cpu.exit, EXIT.tripleFault);
});

/** Selectors: 08 code, 10 data, 1b code ring 3, 23 data ring 3, 28 TSS, 30 second TSS. */
const prot = (): Fixture => {
  const x = new Fixture().protected32(), { cpu } = x;
  [0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn, 0x00cffb000000ffffn, 0x00cff3000000ffffn, 0x00008b00a0000067n, 0x00008900b0000067n].forEach((d, i) => x.p64(GDT + i * 8, d));
  cpu.set(CPU.gdtrBase, BigInt(GDT)); cpu.set(CPU.gdtrLimit, 0x37); cpu.set(CPU.idtrBase, BigInt(IDT)); cpu.set(CPU.idtrLimit, 0x7ff);
  cpu.setSeg(TR, 0x28, TSS, 0x67, 0x8b); cpu.setSeg(LDTR, 0, 0, 0, ATTR.unusable);
  x.p32(TSS + 4, 0x20000); x.p32(TSS + 8, 0x10);
  return x;
};
const gate32 = (x: Fixture, vector: number, offset: number, sel: number, bits: number) => { x.p32(IDT + vector * 8, sel << 16 | offset & 0xffff); x.p32(IDT + vector * 8 + 4, (offset & 0xffff0000 | bits << 8) >>> 0); };
const frame32 = (x: Fixture, n: number) => Array.from({ length: n }, (_, i) => x.g32(x.cpu.gpr32(RSP) + i * 4));

test("protected mode switches stacks by the TSS", () => {
  const x = prot(), { cpu } = x;
  cpu.setSeg(CS, 0x1b, 0, 0xffffffff, 0xcfb); for (const s of [SS, DS, ES]) cpu.setSeg(s, 0x23, 0, 0xffffffff, 0xcf3);
  cpu.setMode(); gate32(x, 13, 0x12345, 8, 0x8e); cpu.rip = 0x99n; cpu.setGpr(RSP, 0x70000n);
  deliver(cpu, 13, 0x18, "exception");
  assert.deepEqual(frame32(x, 6), [0x18, 0x99, 0x1b, EFLAGS.RF | 2, 0x70000, 0x23]);
  assert.deepEqual([cpu.cpl, cpu.segSel(SS), cpu.segSel(CS), cpu.rip, cpu.gpr32(RSP)], [0, 0x10, 8, 0x12345n, 0x20000 - 24]);
});
test("out of virtual-8086 mode the segments are pushed and become null", () => {
  const x = prot(), { cpu } = x;
  x.flags(EFLAGS.VM | EFLAGS.IF);
  for (const [s, sel] of [[CS, 0x1000], [SS, 0x2000], [DS, 0x3000], [ES, 0x4000]] as const) cpu.setSeg(s, sel, sel * 16, 0xffff, 0xf3);
  cpu.setMode(); gate32(x, 13, 0x12345, 8, 0x8e); cpu.rip = 0x99n; cpu.setGpr(RSP, 0x100n);
  assert.equal(cpu.cpl, 3);
  deliver(cpu, 13, 0, "exception");
  assert.deepEqual(frame32(x, 9), [0, 0x99, 0x1000, EFLAGS.VM | EFLAGS.IF | EFLAGS.RF | 2, 0x100, 0x2000, 0x4000, 0x3000, 0x10]);
  assert.deepEqual([cpu.cpl, cpu.isVm86, cpu.segSel(DS), cpu.segAttr(DS) & ATTR.unusable, cpu.mode & 7], [0, false, 0, ATTR.unusable, MODE.code32]);
});
test("a 16-bit gate pushes words; a gate that is not present is #NP", () => {
  const x = prot(), { cpu } = x;
  gate32(x, 0x30, 0x4567, 8, 0x86); gate32(x, 11, 0x100, 8, 0x8f); gate32(x, 0x31, 0x100, 8, 0x0e);
  cpu.setGpr(RSP, 0x70000n); cpu.rip = 0x12345678n;
  deliver(cpu, 0x30, -1, "external");
  assert.deepEqual([x.g16(0x6fffa), x.g16(0x6fffc), cpu.gpr32(RSP), cpu.rip], [0x5678, 8, 0x6fffa, 0x4567n]);
  deliver(cpu, 0x31, -1, "external");
  assert.deepEqual([cpu.rip, frame32(x, 1)[0]], [0x100n, 0x31 * 8 + 3]);
});
test("a task gate switches tasks and the error code lands on the new stack", () => {
  const x = prot(), { cpu } = x;
  gate32(x, 8, 0, 0x30, 0x85);
  const B = 0xb000; x.p32(B + 0x20, 0x7777); x.p32(B + 0x24, 2); x.p32(B + 0x28 + 16, 0x60000);
  [0x10, 8, 0x10, 0x10, 0, 0].forEach((s, i) => x.p32(B + 0x48 + i * 4, s));
  cpu.rip = 0x55n; cpu.setGpr(RSP, 0x70000n); cpu.setGpr(0, 0xabcdn);
  deliver(cpu, 8, 0, "exception");
  assert.deepEqual([cpu.rip, cpu.gpr32(RSP), x.g32(0x5fffc), cpu.segSel(TR), x.g16(B)], [0x7777n, 0x5fffc, 0, 0x30, 0x28]);
  assert.deepEqual([x.g32(TSS + 0x20), x.g32(TSS + 0x28), x.g32(TSS + 0x28 + 16), x.g8(GDT + 0x35)], [0x55, 0xabcd, 0x70000, 0x8b]);
  assert.equal(getFlags(cpu) & EFLAGS.NT, EFLAGS.NT); assert.equal(cpu.cr0 & 8, 8); assert.equal(cpu.segAttr(4) & ATTR.unusable, ATTR.unusable);
});
test("delivery itself obeys SMAP: a supervisor frame cannot lie in a user page", () => {
  const x = long(), { cpu } = x;
  cpu.set(CPU.cr4, BigInt(cpu.cr4 | CR4.SMAP)); cpu.mmu.tlb.flushAll(); cpu.setMode();
  deliver(cpu, 0x40, -1, "external");
  assert.equal(cpu.exit, EXIT.tripleFault, "the tables themselves lie in user pages here");
});
