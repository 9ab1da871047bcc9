import assert from "node:assert/strict";
import { test } from "node:test";
import { Fixture } from "./fixture.ts";
import { getFlags } from "./flags.ts";
import { CPU, CR4, EFLAGS, EXIT, FS, GS, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, TR } from "./state.ts";
import { bulkMovs, bulkStos } from "./strings.ts";
import { callSys, GO_ON, type SysName, sysIndex } from "./system.ts";

const sys = (x: Fixture, name: SysName, a: number | bigint = 0, b: number | bigint = 0): bigint | [number, number] => {
  x.cpu.clearFault();
  const r = callSys(x.cpu, sysIndex(name), BigInt(a), BigInt(b)), f = x.cpu.get(CPU.fault);
  return f ? [f - 1, x.cpu.get(CPU.errorCode)] : r;
};
const long = (): Fixture => { const x = new Fixture().identity2m(0x1000).long(0x1000); x.cpu.setGpr(RSP, 0x70000n); return x; };
const GP = [13, 0], UD = [6, -1];
const wrmsr = (x: Fixture, msr: number, v: bigint) => { x.cpu.setGpr(RCX, BigInt(msr)); x.cpu.setGpr(RAX, v & 0xffffffffn); x.cpu.setGpr(RDX, v >> 32n); return sys(x, "wrmsr"); };
const rdmsr = (x: Fixture, msr: number) => { x.cpu.setGpr(RCX, BigInt(msr)); const r = sys(x, "rdmsr"); return Array.isArray(r) ? r : x.cpu.gpr(RDX) << 32n | x.cpu.gpr(RAX); };

test("MSRs keep what they take and refuse what the manual refuses", () => {
  const x = long();
  for (const [msr, v] of [[0xc0000082, 0xffffffff81000000n], [0xc0000100, 0x7fff12345678n], [0xc0000102, 0xffff888000000000n], [0x277, 0x0007040600070406n], [0x174, 0x10n], [0x2ff, 0xc06n], [0x250, 0x0606060606060606n], [0x201, 0xff00000800n], [0xc0000103, 5n]] as const) {
    assert.equal(wrmsr(x, msr, v), 0n, msr.toString(16)); assert.equal(rdmsr(x, msr), v);
  }
  for (const [msr, v] of [[0xc0000082, 1n << 47n], [0xc0000101, 1n << 63n], [0x277, 2n], [0xc0000084, 1n << 32n], [0xc0000080, 1n << 20n], [0xc0000080, 1n], [0xfe, 0n], [0x1b, 0xfee00d01n | 1n << 50n], [0x12345, 0n], [0x250, 2n]] as const)
    assert.deepEqual(wrmsr(x, msr, v), GP, msr.toString(16));
  assert.deepEqual(rdmsr(x, 0x12345), GP);
  x.msrs.set(0x40000000, 7n); assert.equal(rdmsr(x, 0x40000000), 7n);
  x.ring3(); assert.deepEqual(rdmsr(x, 0x10), GP);
});
test("the TSC and its adjustment move together", () => {
  const x = long();
  wrmsr(x, 0x10, 5000n); assert.equal(rdmsr(x, 0x3b), 4000n);
  x.now = 1234n; sys(x, "rdtsc"); assert.equal(x.cpu.gpr(RAX), 5234n);
  x.cpu.set(CPU.tscAux, 3n); sys(x, "rdtscp"); assert.equal(x.cpu.gpr(RCX), 3n);
  x.cpu.set(CPU.cr4, BigInt(x.cpu.cr4 | CR4.TSD)); sys(x, "rdtsc"); x.ring3(); assert.deepEqual(sys(x, "rdtsc"), GP);
});
test("x2APIC is entered from xAPIC only, and left by disabling", () => {
  const x = long();
  assert.equal(wrmsr(x, 0x1b, 0xfee00d00n), 0n); assert.deepEqual(wrmsr(x, 0x1b, 0xfee00900n), GP); assert.equal(wrmsr(x, 0x1b, 0xfee00100n), 0n); assert.deepEqual(wrmsr(x, 0x1b, 0xfee00d00n), GP);
});
test("privileged instructions are #GP(0) in ring 3", () => {
  const x = long().ring3();
  for (const [n, a] of [["clts", 0], ["hlt", 0], ["cli", 0], ["sti", 0], ["wbinvd", 0], ["invlpg", 0], ["readCr", 0], ["writeCr", 0], ["readDr", 7], ["lmsw", 0], ["lgdt", 0], ["lidt", 0], ["lldt", 0], ["swapgs", 0], ["rdpmc", 0]] as const) assert.deepEqual(sys(x, n, a), GP, n);
  for (const n of ["stac", "monitor", "mwait", "xgetbv", "rdfsbase"] as const) assert.deepEqual(sys(x, n), UD, n);
  x.flags(EFLAGS.IOPL); assert.equal(sys(x, "cli"), 0n);
});
test("HLT, STI's shadow, STAC and the TLB context", () => {
  const x = long(), { cpu } = x;
  sys(x, "sti"); assert.deepEqual([cpu.get(CPU.shadow), cpu.eflags & EFLAGS.IF], [1, EFLAGS.IF]);
  cpu.set(CPU.shadow, 0); sys(x, "sti"); assert.equal(cpu.get(CPU.shadow), 0);
  sys(x, "hlt"); assert.deepEqual([cpu.exit, cpu.get(CPU.halted)], [EXIT.halt, 1]);
  const before = cpu.context; sys(x, "stac"); assert.equal(cpu.context, before);
  cpu.set(CPU.cr4, BigInt(cpu.cr4 | CR4.SMAP)); cpu.setMode(); assert.equal(cpu.context, 1); sys(x, "clac"); assert.equal(cpu.context, 0);
});
test("POPF obeys privilege and width", () => {
  const x = long(), { cpu } = x;
  sys(x, "popf", 0x3fffff, 64); assert.equal(getFlags(cpu), 0x247fd7); sys(x, "popf", 2, 64);
  x.flags(0); sys(x, "popf", 0xffff, 16); assert.equal(getFlags(cpu), 0x7fd7);
  x.flags(EFLAGS.IF); x.ring3(); sys(x, "popf", EFLAGS.IOPL | EFLAGS.ZF, 64); assert.equal(getFlags(cpu), EFLAGS.IF | EFLAGS.ZF | 2);
  assert.equal(sys(x, "pushfValue", 64), BigInt(EFLAGS.IF | EFLAGS.ZF | 2));
});
test("SWAPGS and the FSGSBASE instructions", () => {
  const x = long(), { cpu } = x;
  cpu.setSegBase(GS, 0x1000); cpu.set(CPU.kernelGsBase, 0xffff888000000000n); sys(x, "swapgs");
  assert.deepEqual([cpu.segBaseBig(GS), cpu.get(CPU.kernelGsBase)], [0xffff888000000000n, 0x1000n]);
  assert.deepEqual(sys(x, "wrfsbase", 1), UD); cpu.set(CPU.cr4, BigInt(cpu.cr4 | CR4.FSGSBASE));
  assert.equal(sys(x, "wrfsbase", -4096), 0n); assert.equal(cpu.segBase(FS), -4096); assert.equal(BigInt.asIntN(64, sys(x, "rdfsbase") as bigint), -4096n); assert.deepEqual(sys(x, "wrgsbase", 1n << 47n), GP);
});
test("debug registers: aliases, fixed bits, general detect", () => {
  const x = long(), { cpu } = x;
  sys(x, "writeDr", 7, 0x2003); assert.deepEqual(sys(x, "readDr", 0), [1, -1]);
  assert.deepEqual([cpu.dr(7), cpu.dr(6) & 0x2000n], [0x403n, 0x2000n]);
  sys(x, "writeDr", 4, 0); assert.equal(sys(x, "readDr", 6), 0xffff0ff0n); assert.deepEqual(sys(x, "writeDr", 7, 1n << 32n), GP);
  cpu.set(CPU.cr4, BigInt(cpu.cr4 | CR4.DE)); assert.deepEqual(sys(x, "readDr", 4), UD);
});
test("ports: IOPL, then the TSS's map", () => {
  const x = long(), { cpu } = x;
  assert.equal(sys(x, "in", 0x60, 1), 0x78n); assert.equal(sys(x, "out", 0x3f8 | 2 << 16, 0x12345), 0n);
  x.ring3(); cpu.setSeg(TR, 0x40, 0xa000, 0x88, 0x8b); x.p16(0xa066, 0x68); for (let i = 0; i < 0x21; i++) x.p8(0xa068 + i, 0xff);
  x.p8(0xa068 + 0xc, 0xfe); x.p8(0xa068 + 0xd, 0);
  assert.equal(sys(x, "in", 0x60, 1), 0x78n); assert.deepEqual(sys(x, "in", 0x60, 2), GP); assert.equal(sys(x, "in", 0x68, 4), 0x12345678n); assert.deepEqual(sys(x, "in", 0x6e, 4), GP); assert.deepEqual(sys(x, "in", 0x3f8, 1), GP);
  assert.deepEqual(x.diary, ["in 60 1", "out 3f8 2 2345", "in 60 1", "in 68 4"]);
});
test("hypercalls are the kernel's", () => {
  const x = long();
  sys(x, "vmcall"); assert.deepEqual(x.diary, ["hypercall"]); x.ring3(); sys(x, "vmmcall"); assert.equal(x.cpu.gpr(RAX), 0xffffffffffffffffn);
});
test("CPUID mirrors CR4.OSXSAVE", () => {
  const x = long(), { cpu } = x;
  cpu.setGpr(RAX, 1n); sys(x, "cpuid"); assert.equal(cpu.gpr(RCX), 0n);
  cpu.set(CPU.cr4, BigInt(CR4.OSXSAVE)); cpu.setGpr(RAX, 1n); sys(x, "cpuid"); assert.equal(cpu.gpr(RCX), 1n << 27n); assert.equal(cpu.gpr(RBX), 0n);
});
test("ENTER copies the outer frames' pointers", () => {
  const x = long(), { cpu } = x;
  cpu.setGpr(RBP, 0x80000n); x.p64(0x80000 - 8, 0x1111n); x.p64(0x80000 - 16, 0x2222n);
  assert.equal(sys(x, "enter", 0x20 | 64 << 16, 3), 0n);
  assert.deepEqual([0, 1, 2, 3].map((i) => x.g64(0x70000 - 32 + i * 8)), [0x6fff8n, 0x2222n, 0x1111n, 0x80000n]);
  assert.deepEqual([cpu.gpr(RBP), cpu.gpr(RSP)], [0x6fff8n, 0x70000n - 32n - 32n]);
});
test("FXSAVE and FXRSTOR carry x87 and SSE state, XSAVE its header too", () => {
  const x = long(), { cpu } = x, st = CPU.st.at, xmm = CPU.xmm.at, A = 0x50040;
  cpu.set(CPU.fcw, 0x37f); cpu.set(CPU.fsw, 6 << 11); cpu.set(CPU.ftw, 0xc0); x.v.dv.setBigUint64(st + 6 * 16, 0xc000000000000000n, true); x.v.dv.setUint16(st + 6 * 16 + 8, 0x4000, true);
  x.v.dv.setUint32(xmm + 15 * 16, 0xdeadbeef, true); cpu.set(CPU.fip, 0x123456789an);
  assert.deepEqual(sys(x, "fxsave", A + 8, 64), GP);
  assert.equal(sys(x, "fxsave", A, 64), GO_ON);
  assert.deepEqual([x.g16(A), x.g16(A + 2), x.g8(A + 4), x.g64(A + 8), x.g32(A + 24), x.g32(A + 28), x.g64(A + 32), x.g16(A + 40), x.g32(A + 160 + 240)], [0x37f, 0x3000, 0xc0, 0x123456789an, 0x1f80, 0xffff, 0xc000000000000000n, 0x4000, 0xdeadbeef]);
  cpu.set(CPU.fsw, 0); cpu.set(CPU.ftw, 0); x.v.u8.fill(0, st, xmm + 256); assert.equal(sys(x, "fxrstor", A, 64), GO_ON);
  assert.deepEqual([cpu.get(CPU.fsw), cpu.get(CPU.ftw), x.v.dv.getUint16(st + 6 * 16 + 8, true), x.v.dv.getUint32(xmm + 15 * 16, true)], [0x3000, 0xc0, 0x4000, 0xdeadbeef]);
  x.p32(A + 24, 0x10000); assert.deepEqual(sys(x, "fxrstor", A, 64), GP); x.p32(A + 24, 0x1f80);
  assert.deepEqual(sys(x, "xsave", A, 64), UD); cpu.set(CPU.cr4, BigInt(cpu.cr4 | CR4.OSXSAVE));
  cpu.setGpr(RAX, 3n); cpu.setGpr(RDX, 0n); cpu.setGpr(RCX, 0n); assert.equal(sys(x, "xsetbv"), 0n); cpu.setGpr(RAX, 7n); assert.deepEqual(sys(x, "xsetbv"), GP);
  assert.equal(sys(x, "xsave", A, 64), GO_ON); assert.equal(x.g64(A + 512), 3n);
  x.p64(A + 512, 2n); assert.equal(sys(x, "xrstor", A, 64), GO_ON); assert.deepEqual([cpu.get(CPU.ftw), x.v.dv.getUint32(xmm + 15 * 16, true)], [0, 0xdeadbeef]);
  x.p64(A + 520, 1n); assert.deepEqual(sys(x, "xrstor", A, 64), GP);
});
test("bulk MOVS and STOS do what fits in the pages, and overlap as the elements would", () => {
  const x = long(), { cpu } = x, set = (s: number, d: number, c: number) => { cpu.setGpr(RSI, BigInt(s)); cpu.setGpr(RDI, BigInt(d)); cpu.setGpr(RCX, BigInt(c)); };
  for (let i = 0; i < 64; i++) x.p8(0x50000 + i, i + 1);
  set(0x50000, 0x60fe4, 16); assert.equal(bulkMovs(cpu, 32), 7);
  assert.deepEqual([cpu.gpr(RSI), cpu.gpr(RDI), cpu.gpr(RCX), x.g8(0x60fe4 + 27), x.g8(0x61000)], [0x5001cn, 0x61000n, 9n, 28, 0]);
  set(0x50000, 0x50001, 5); assert.equal(bulkMovs(cpu, 8), 5); assert.deepEqual([1, 2, 3, 4, 5, 6].map((i) => x.g8(0x50000 + i)), [1, 1, 1, 1, 1, 7]);
  set(0x50000, 0x62000, 1); assert.equal(bulkMovs(cpu, 8), 0); x.code.add(0x62); cpu.mmu.tlb.flushAll(); set(0x50000, 0x62000, 9); assert.equal(bulkMovs(cpu, 8), 0); assert.equal(cpu.gpr(RCX), 9n);
  cpu.setGpr(RAX, 0x0102030405060708n); set(0, 0x63001, 5); assert.equal(bulkStos(cpu, 64), 5); assert.deepEqual([x.g64(0x63001), x.g64(0x63001 + 32), x.g8(0x63001 + 40)], [0x0102030405060708n, 0x0102030405060708n, 0]);
  set(0, 0x40000000, 5); assert.equal(bulkStos(cpu, 8), 0); x.flags(EFLAGS.DF); set(0, 0x63000, 5); assert.equal(bulkStos(cpu, 8), 0);
});
