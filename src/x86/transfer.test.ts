import assert from "node:assert/strict";
import { test } from "node:test";
import { Fixture } from "./fixture.ts";
import { getFlags } from "./flags.ts";
import { ATTR, CPU, CR0, CS, DS, EFER, EFLAGS, ES, FS, LDTR, MODE, RAX, RCX, RDX, RSP, SS, TR } from "./state.ts";
import { callSys, GO_ON, type SysName, sysIndex } from "./system.ts";

const GDT = 0x8000, TSS = 0xa000;
/** Run a row; the fault as [vector, error code], or its result. */
const sys = (x: Fixture, name: SysName, a: number | bigint = 0, b: number | bigint = 0): bigint | [number, number] => {
  x.cpu.clearFault();
  const r = callSys(x.cpu, sysIndex(name), BigInt(a), BigInt(b)), f = x.cpu.get(CPU.fault);
  return f ? [f - 1, x.cpu.get(CPU.errorCode)] : r;
};
const far = (sel: number, width: number): number => sel | width << 16;
/** 08 code64/0, 10 data/0, 18 code32/3, 20 data/3, 28 code64/3, 30 code32/0, 38 TSS64 (two slots), 48 call gate (two slots), 58 not-present data, 60 16-bit data. */
const long = (): Fixture => {
  const x = new Fixture().identity2m(0x1000).long(0x1000), { cpu } = x;
  [0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0x00cffb000000ffffn, 0x00cff3000000ffffn, 0x00affb000000ffffn, 0x00cf9b000000ffffn, 0n, 0n,
    0x0000ec0000085678n | 0x1234n << 48n, 0n, 0x00cf13000000ffffn, 0x000093000000ffffn].forEach((d, i) => x.p64(GDT + i * 8, d));
  x.p64(GDT + 0x38, 0x0000890000000067n | BigInt(TSS) << 16n); x.p64(GDT + 0x40, 0n);
  cpu.set(CPU.gdtrBase, BigInt(GDT)); cpu.set(CPU.gdtrLimit, 0x67);
  cpu.setSeg(TR, 0x38, TSS, 0x67, 0x8b); x.p64(TSS + 4, 0x20000n);
  cpu.setSeg(LDTR, 0, 0, 0, ATTR.unusable);
  cpu.set(CPU.star, 0x0018_0008n << 32n); cpu.set(CPU.lstar, 0xffffffff80001000n); cpu.set(CPU.sfmask, BigInt(EFLAGS.IF | EFLAGS.DF | EFLAGS.AC));
  cpu.setGpr(RSP, 0x70000n);
  return x;
};
const push = (x: Fixture, ...v: (number | bigint)[]): void => { for (const q of v) { const sp = x.cpu.gpr(RSP) - 8n; x.p64(Number(sp), BigInt(q)); x.cpu.setGpr(RSP, sp); } };

test("SYSCALL and SYSRET go to ring 0 and back", () => {
  const x = long().ring3(), { cpu } = x;
  cpu.nextRip = 0x400123n; x.flags(EFLAGS.IF | EFLAGS.CF | EFLAGS.DF);
  assert.equal(sys(x, "syscall"), 0n);
  assert.deepEqual([BigInt.asUintN(64, cpu.nextRip), cpu.gpr(RCX), cpu.gpr(11), getFlags(cpu)], [0xffffffff80001000n, 0x400123n, BigInt(EFLAGS.IF | EFLAGS.CF | EFLAGS.DF | 2), 3]);
  assert.deepEqual([cpu.cpl, cpu.segSel(CS), cpu.segSel(SS), cpu.mode & 7], [0, 8, 0x10, MODE.code64]);
  sys(x, "sysret", 64);
  assert.deepEqual([cpu.nextRip, cpu.cpl, cpu.segSel(CS), cpu.segSel(SS), getFlags(cpu)], [0x400123n, 3, 0x2b, 0x23, EFLAGS.IF | EFLAGS.CF | EFLAGS.DF | 2]);
  assert.deepEqual(sys(x, "sysret", 64), [13, 0]);
  sys(x, "syscall"); cpu.setGpr(RCX, 0x800000000000n);
  assert.deepEqual(sys(x, "sysret", 64), [13, 0]); assert.equal(cpu.cpl, 0);
  sys(x, "sysret", 32);
  assert.deepEqual([cpu.nextRip, cpu.segSel(CS), cpu.mode & 7, cpu.is64], [0n, 0x1b, MODE.code32 | MODE.user, false]);
  cpu.set(CPU.efer, BigInt(cpu.efer & ~EFER.SCE)); assert.deepEqual(sys(x, "syscall"), [6, -1]);
});
test("SYSENTER and SYSEXIT", () => {
  const x = long().ring3(), { cpu } = x;
  assert.deepEqual(sys(x, "sysenter"), [13, 0]);
  cpu.set(CPU.sysenterCs, 8n); cpu.set(CPU.sysenterEsp, 0xffff800000001000n); cpu.set(CPU.sysenterEip, 0xffffffff81000000n); x.flags(EFLAGS.IF);
  sys(x, "sysenter");
  assert.deepEqual([cpu.gpr(RSP), BigInt.asUintN(64, cpu.nextRip), cpu.cpl, cpu.eflags & EFLAGS.IF], [0xffff800000001000n, 0xffffffff81000000n, 0, 0]);
  cpu.setGpr(RDX, 0x1000n); cpu.setGpr(RCX, 0x2000n); sys(x, "sysexit", 64);
  assert.deepEqual([cpu.gpr(RSP), cpu.nextRip, cpu.cpl, cpu.segSel(CS), cpu.segSel(SS)], [0x2000n, 0x1000n, 3, 0x2b, 0x33]);
});
test("IRETQ returns to user mode, restores RF and drops data segments of the kernel", () => {
  const x = long(), { cpu } = x;
  push(x, 0x23, 0x7fff0001, EFLAGS.IF | EFLAGS.RF | EFLAGS.ZF | 2, 0x2b, 0x401000);
  cpu.setSeg(DS, 0x10, 0, 0xffffffff, 0xc93); cpu.setSeg(ES, 0x20, 0, 0xffffffff, 0xcf3);
  cpu.setDr(7, 0x402n);
  assert.equal(sys(x, "iret", 64), 0n);
  assert.deepEqual([cpu.nextRip, cpu.gpr(RSP), cpu.cpl, getFlags(cpu)], [0x401000n, 0x7fff0001n, 3, EFLAGS.IF | EFLAGS.RF | EFLAGS.ZF | 2]);
  assert.equal(cpu.segAttr(DS) & ATTR.unusable, ATTR.unusable); assert.equal(cpu.segSel(ES), 0x20);
});
test("without a breakpoint that it could hold off RF is not restored", () => {
  const x = long(), { cpu } = x;
  push(x, 0x23, 0x7fff0001, EFLAGS.IF | EFLAGS.RF | EFLAGS.ZF | 2, 0x2b, 0x401000);
  cpu.setDr(7, 0x400n);
  assert.equal(sys(x, "iret", 64), GO_ON);
  assert.equal(getFlags(cpu), EFLAGS.IF | EFLAGS.ZF | 2);
});
test("after IRET the run loop is asked where something may come now: an interrupt, an NMI, a trap, or what it held off", () => {
  const back = (flags: number, change: (x: ReturnType<typeof long>) => void = () => {}): unknown => { const x = long(); push(x, 0x23, 0x7fff0000, flags | 2, 0x2b, 0x401000); change(x); return sys(x, "iret", 64); };
  assert.equal(back(EFLAGS.IF), GO_ON);
  assert.equal(back(0, ({ cpu }) => { cpu.set(CPU.irqPending, 1); }), GO_ON);
  assert.equal(back(EFLAGS.IF, ({ cpu }) => { cpu.set(CPU.irqPending, 1); }), 0n);
  assert.equal(back(EFLAGS.IF, ({ cpu }) => { cpu.set(CPU.nmiMasked, 1); }), 0n);
  assert.equal(back(EFLAGS.IF | EFLAGS.TF), 0n);
  assert.equal(back(EFLAGS.RF, ({ cpu }) => { cpu.setDr(7, 0x402n); }), 0n);
});
test("IRETQ within ring 0 pops the stack too, a null SS included", () => {
  const x = long(), { cpu } = x;
  push(x, 0, 0x60008, 2, 8, 0x1234);
  sys(x, "iret", 64);
  assert.deepEqual([cpu.nextRip, cpu.gpr(RSP), cpu.cpl, cpu.segSel(SS), cpu.segAttr(SS)], [0x1234n, 0x60008n, 0, 0, ATTR.unusable]);
  push(x, 0x20, 0x1000, 2, 0x28 | 3, 0x1234);
  assert.deepEqual(sys(x, "iret", 64), [13, 0x20], "SS's RPL must be the new CPL");
  assert.equal(cpu.gpr(RSP), 0x60008n - 40n);
  x.flags(EFLAGS.NT); assert.deepEqual(sys(x, "iret", 64), [13, 0]);
});
test("IRET to compatibility mode leaves the upper half of a 16-bit stack's RSP", () => {
  const x = long(), { cpu } = x;
  x.p64(GDT + 0x60, 0x0000f3000000ffffn); cpu.setGpr(RSP, 0x70000n);
  push(x, 0x63, 0x11112222, 2, 0x1b, 0x99);
  sys(x, "iret", 64);
  assert.deepEqual([cpu.mode & 7, cpu.gpr(RSP), cpu.get(CPU.spMask)], [MODE.code32 | MODE.user, 0x62222n, 0xffffn]);
});
test("a user's IRET cannot change IF or IOPL", () => {
  const x = long().ring3(), { cpu } = x;
  x.flags(EFLAGS.IF); push(x, 0x23, 0x5000, EFLAGS.IOPL | EFLAGS.CF | 2, 0x2b, 0x1000);
  sys(x, "iret", 64);
  assert.equal(getFlags(cpu), EFLAGS.IF | EFLAGS.CF | 2);
});
test("far jumps check the descriptor", () => {
  const x = long(), { cpu } = x;
  assert.deepEqual(sys(x, "farJump", 0, far(0, 64)), [13, 0]);
  assert.deepEqual(sys(x, "farJump", 0, far(0x10, 64)), [13, 0x10]);
  assert.deepEqual(sys(x, "farJump", 0, far(0x2b, 64)), [13, 0x28]);
  assert.deepEqual(sys(x, "farJump", 0, far(0x70, 64)), [13, 0x70]);
  assert.deepEqual(sys(x, "farJump", 0x800000000000n, far(8, 64)), [13, 0]);
  assert.deepEqual(sys(x, "farJump", 0, far(0x38, 64)), [13, 0x38], "no task switch in long mode");
  sys(x, "farJump", 0x11223344, far(0x30, 32));
  assert.deepEqual([cpu.nextRip, cpu.mode & 7, cpu.segSel(CS)], [0x11223344n, MODE.code32, 0x30]);
  sys(x, "farJump", 0x55, far(8, 32));
  assert.equal(cpu.is64, true);
});
test("a far call through a 64-bit gate from ring 3 switches to RSP0, and RETF comes back", () => {
  const x = long().ring3(), { cpu } = x;
  cpu.nextRip = 0x401000n; cpu.setGpr(RSP, 0x70000n);
  assert.equal(sys(x, "farCall", 0, far(0x4b, 64)), 0n);
  assert.deepEqual([cpu.nextRip, cpu.cpl, cpu.gpr(RSP), cpu.segSel(SS)], [0x12345678n, 0, 0x20000n - 32n, 0]);
  assert.deepEqual([0, 8, 16, 24].map((i) => x.g64(0x20000 - 32 + i)), [0x401000n, 0x2bn, 0x70000n, 0x33n]);
  x.p64(0x20000 - 8, 0x23n);
  sys(x, "farRet", 0, 64);
  assert.deepEqual([cpu.nextRip, cpu.cpl, cpu.gpr(RSP), cpu.segSel(SS)], [0x401000n, 3, 0x70000n, 0x23]);
});
test("segment loads: null, privilege, presence, the accessed bit", () => {
  const x = long(), { cpu } = x;
  assert.equal(sys(x, "loadSeg", 0, DS), 0n); assert.equal(cpu.segAttr(DS) & ATTR.unusable, ATTR.unusable);
  assert.equal(sys(x, "loadSeg", 0, SS), 0n); assert.equal(cpu.cpl, 0);
  assert.deepEqual(sys(x, "loadSeg", 0x58, DS), [11, 0x58]); assert.deepEqual(sys(x, "loadSeg", 0x58, SS), [12, 0x58]);
  assert.deepEqual(sys(x, "loadSeg", 0x23, SS), [13, 0x20]); assert.deepEqual(sys(x, "loadSeg", 0x104, ES), [13, 0x104]);
  x.p64(GDT + 0x60, 0x0040920012345678n); sys(x, "loadSeg", 0x60, FS);
  assert.deepEqual([cpu.segBase(FS), cpu.segLimit(FS), cpu.segAttr(FS), x.g8(GDT + 0x65)], [0x1234, 0x5678, 0x493, 0x93]);
  x.ring3();
  assert.deepEqual(sys(x, "loadSeg", 0x10, DS), [13, 0x10]); assert.deepEqual(sys(x, "loadSeg", 3, SS), [13, 0]); assert.equal(sys(x, "loadSeg", 0x23, DS), 0n);
});
test("LTR marks the TSS busy and takes 16 bytes in long mode; LAR, LSL, VERR look without faulting", () => {
  const x = long(), { cpu } = x;
  x.p32(GDT + 0x40, 0xffff8000);
  assert.equal(sys(x, "ltr", 0x38), 0n);
  assert.deepEqual([cpu.segBase(TR), cpu.segAttr(TR), x.g8(GDT + 0x3d)], [-0x8000 * 4294967296 + TSS, 0x8b, 0x8b]);
  assert.deepEqual(sys(x, "ltr", 0x38), [13, 0x38]);
  assert.equal(sys(x, "lar", 8), 0xaf9b00n & 0xf0ff00n); assert.equal(sys(x, "lsl", 8), 0xffffffffn); assert.equal(sys(x, "lar", 0), -1n); assert.equal(sys(x, "lar", 0x100), -1n);
  assert.equal(sys(x, "lsl", 0x38), 0x67n); assert.equal(sys(x, "verr", 8), 1n); assert.equal(sys(x, "verw", 8), -1n); assert.equal(sys(x, "verw", 0x10), 1n);
  x.ring3(); assert.equal(sys(x, "verr", 0x10), -1n); assert.deepEqual(sys(x, "ltr", 0x38), [13, 0]);
});

/** 08 code, 10 data, 1b code/3, 23 data/3, 28 TSS at a000 (busy), 30 TSS at b000, 38 call gate to 08:4000 with two parameters, 40 task gate to 30. */
const prot = (): Fixture => {
  const x = new Fixture().protected32(), { cpu } = x;
  [0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn, 0x00cffb000000ffffn, 0x00cff3000000ffffn, 0x00008b00a0000067n, 0x00008900b0000067n, 0x0000ec0200084000n, 0x0000e50000300000n].forEach((d, i) => x.p64(GDT + i * 8, d));
  cpu.set(CPU.gdtrBase, BigInt(GDT)); cpu.set(CPU.gdtrLimit, 0x47);
  cpu.setSeg(TR, 0x28, TSS, 0x67, 0x8b); cpu.setSeg(LDTR, 0, 0, 0, ATTR.unusable);
  x.p32(TSS + 4, 0x20000); x.p32(TSS + 8, 0x10); cpu.setGpr(RSP, 0x70000n);
  return x;
};
test("CALL and IRET switch tasks in protected mode", () => {
  const x = prot(), { cpu } = x, B = 0xb000;
  x.p32(B + 0x20, 0x5000); x.p32(B + 0x24, EFLAGS.IF | 2); x.p32(B + 0x28, 0x1111); x.p32(B + 0x28 + 16, 0x60000);
  [0x10, 8, 0x10, 0x10, 0, 0].forEach((s, i) => x.p32(B + 0x48 + i * 4, s));
  cpu.nextRip = 0x4444n; cpu.setGpr(RAX, 0x2222n);
  assert.equal(sys(x, "farCall", 0, far(0x30, 32)), 0n);
  assert.deepEqual([cpu.nextRip, cpu.gpr32(RAX), cpu.segSel(TR), getFlags(cpu), x.g16(B)], [0x5000n, 0x1111, 0x30, EFLAGS.IF | EFLAGS.NT | 2, 0x28]);
  cpu.nextRip = 0x5002n;
  assert.equal(sys(x, "iret", 32), 0n);
  assert.deepEqual([cpu.nextRip, cpu.gpr32(RAX), cpu.segSel(TR), getFlags(cpu), x.g8(GDT + 0x35)], [0x4444n, 0x2222, 0x28, 2, 0x89]);
  assert.deepEqual([x.g32(B + 0x20), x.g32(B + 0x24)], [0x5002, EFLAGS.IF | 2]);
  assert.equal(sys(x, "farJump", 0, far(0x40, 32)), 0n);
  assert.deepEqual([cpu.segSel(TR), x.g8(GDT + 0x2d), x.g8(GDT + 0x35), getFlags(cpu)], [0x30, 0x89, 0x8b, EFLAGS.IF | 2]);
  assert.deepEqual(sys(x, "farJump", 0, far(0x30, 32)), [13, 0x30], "it is busy");
});
test("a bad segment in the new task faults there", () => {
  const x = prot(), { cpu } = x, B = 0xb000;
  x.p32(B + 0x20, 0x5000); x.p32(B + 0x24, 2); [0x10, 8, 0x10, 0x58, 0, 0].forEach((s, i) => x.p32(B + 0x48 + i * 4, s));
  assert.deepEqual(sys(x, "farJump", 0, far(0x30, 32)), [10, 0x58]); assert.equal(cpu.rip, 0x5000n); assert.equal(cpu.segSel(TR), 0x30);
});
test("a call gate copies parameters to the inner stack; RETF n releases them on both", () => {
  const x = prot(), { cpu } = x;
  cpu.setSeg(CS, 0x1b, 0, 0xffffffff, 0xcfb); for (const s of [SS, DS]) cpu.setSeg(s, 0x23, 0, 0xffffffff, 0xcf3);
  cpu.setMode(); x.p32(0x70000, 0xaaaa); x.p32(0x70004, 0xbbbb); cpu.nextRip = 0x777n;
  assert.equal(sys(x, "farCall", 0, far(0x3b, 32)), 0n);
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((i) => x.g32(cpu.gpr32(RSP) + i * 4)), [0x777, 0x1b, 0xaaaa, 0xbbbb, 0x70000, 0x23]);
  assert.deepEqual([cpu.cpl, cpu.nextRip, cpu.segSel(SS)], [0, 0x4000n, 0x10]);
  sys(x, "farRet", 8, 32);
  assert.deepEqual([cpu.cpl, cpu.nextRip, cpu.gpr32(RSP), cpu.segSel(CS)], [3, 0x777n, 0x70008, 0x1b]);
});
test("IRET enters and leaves virtual-8086 mode", () => {
  const x = prot(), { cpu } = x, at = 0x70000 - 36;
  [0x123, 0x1000, EFLAGS.VM | EFLAGS.IF | 2, 0x400, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000].forEach((v, i) => x.p32(at + i * 4, v));
  cpu.setGpr(RSP, BigInt(at));
  assert.equal(sys(x, "iret", 32), 0n);
  assert.deepEqual([cpu.cpl, cpu.mode & 7, cpu.segBase(CS), cpu.segBase(ES), cpu.segSel(DS), cpu.gpr32(RSP), cpu.nextRip], [3, MODE.code16 | MODE.user, 0x10000, 0x30000, 0x4000, 0x400, 0x123n]);
  assert.deepEqual(sys(x, "iret", 16), [13, 0]); assert.deepEqual(sys(x, "cli"), [13, 0]); assert.deepEqual(sys(x, "int", 3), [13, 0]); assert.deepEqual(sys(x, "lar", 8), [6, -1]);
});
test("real mode to long mode by the book", () => {
  const x = new Fixture().identity2m(0x1000), { cpu } = x;
  [0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0x00cf9b000000ffffn].forEach((d, i) => x.p64(GDT + i * 8, d));
  sys(x, "lgdt", 0x1f, GDT); cpu.setSeg(TR, 0, 0, 0xffff, 0x8b);
  assert.deepEqual(sys(x, "writeCr", 0, 0x80000010n), [13, 0], "PG without PE");
  sys(x, "lmsw", 1); assert.equal(cpu.isProtected, true); assert.equal(cpu.mode & 3, MODE.code16);
  sys(x, "farJump", 0x2000, far(0x18, 32)); assert.equal(cpu.mode & 3, MODE.code32);
  sys(x, "writeCr", 3, 0x1000); cpu.setGpr(RCX, 0xc0000080n); cpu.setGpr(RAX, BigInt(EFER.LME)); cpu.setGpr(RDX, 0n); sys(x, "wrmsr");
  assert.deepEqual(sys(x, "writeCr", 0, 0x80000011n), [13, 0], "LME without PAE");
  sys(x, "writeCr", 4, 0x20); assert.equal(sys(x, "writeCr", 0, 0x80000011n), 0n);
  assert.deepEqual([cpu.isLong, cpu.is64], [true, false]);
  sys(x, "farJump", 0x3000, far(8, 32)); assert.equal(cpu.is64, true);
  assert.deepEqual(sys(x, "writeCr", 4, 0), [13, 0]); assert.deepEqual(sys(x, "writeCr", 0, BigInt(CR0.PE)), [13, 0]);
  assert.deepEqual(sys(x, "writeCr", 4, 0x20020), [13, 0], "PCIDE"); assert.deepEqual(sys(x, "writeCr", 1, 0), [6, -1]);
});
