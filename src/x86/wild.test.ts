/** Garbage in every table and register: whatever a guest does, only its own faults come of it. Seeded. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { deliver, type Cause } from "./exceptions.ts";
import { GuestFault } from "./fault.ts";
import { Fixture, random } from "./fixture.ts";
import { CONTEXT } from "./layout.ts";
import { ATTR, CPU, CR0, CR4, CS, EFER, EFLAGS, LDTR, TR } from "./state.ts";
import { bulkMovs, bulkStos } from "./strings.ts";
import { callSys, SYS_NAMES } from "./system.ts";

const seed = Number(process.env.SEED ?? 1);
const RAM = 4 << 20;

/** Values a guest would try: small, extreme, near boundaries, pointers into RAM. */
const value = (r: (n: number) => number): bigint => {
  const word = BigInt(r(0xffffffff)) << 32n | BigInt(r(0xffffffff));
  return [BigInt(r(256)), word, BigInt(r(RAM)), -BigInt(r(4096)), 1n << BigInt(r(64)), 0x7fffffffffffn + BigInt(r(3)), BigInt(r(0x70)), 0xfffffff0n + BigInt(r(32))][r(8)]!;
};
function scramble(x: Fixture, r: (n: number) => number): void {
  const { cpu } = x, kind = r(5);
  for (let i = 0; i < 0x1000; i += 8) x.p64(0x8000 + i, r(3) ? BigInt(r(0xffffffff)) << 32n | BigInt(r(0xffffffff)) : 0x00cf93000000ffffn);
  for (let i = 0; i < 0x800; i += 8) x.p32(0x8004 + i, (x.g32(0x8004 + i) & ~0x1f00 | (r(4) ? 0x8000 : 0) | r(32) << 8 | r(4) << 13) >>> 0);
  cpu.set(CPU.gdtrBase, r(8) ? 0x8000n : BigInt.asUintN(64, value(r))); cpu.set(CPU.gdtrLimit, r(4) ? 0x7ff : r(0x10000)); cpu.set(CPU.idtrBase, r(8) ? 0x8800n : 0n); cpu.set(CPU.idtrLimit, r(4) ? 0xfff : r(0x10000));
  cpu.set(CPU.cr4, 0n); cpu.set(CPU.efer, 0n); cpu.set(CPU.eflags, 2); cpu.set(CPU.cr0, BigInt(CR0.ET));
  if (kind === 1) x.protected32(); else if (kind >= 2 && kind < 4) x.long(0x1000); else if (kind === 4) { x.protected32(); cpu.eflags |= EFLAGS.VM; }
  if (r(2)) { cpu.set(CPU.cr4, cpu.get(CPU.cr4) | BigInt([CR4.SMAP, CR4.SMEP, CR4.OSXSAVE, CR4.FSGSBASE, CR4.PSE][r(5)]!)); cpu.set(CPU.efer, cpu.get(CPU.efer) | BigInt(EFER.SCE)); }
  if (r(3) === 0 && kind !== 0) x.ring3();
  for (let s = 0; s < 8; s++) if (r(3) === 0) cpu.setSeg(s, r(0x10000), r(3) ? r(RAM) : r(0xffffffff), r(2) ? 0xffffffff : r(0x10000), s === CS ? cpu.segAttr(CS) : r(0x1000) | (r(4) ? 0 : ATTR.unusable));
  if (r(2)) cpu.setSeg(TR, 0x40, 0xa000, r(0x200), r(2) ? 0x8b : 0x83);
  if (r(2)) cpu.setSeg(LDTR, 0x48, 0x8000, 0x7ff, 0x82);
  for (let i = 0; i < 16; i++) cpu.setGpr(i, BigInt.asUintN(64, value(r)));
  x.flags(r(0x400000), 0x3fffff & ~EFLAGS.VM);
  cpu.set(CPU.rip, value(r)); cpu.set(CPU.nextRip, value(r)); cpu.exit = 0;
  cpu.setMode(); cpu.mmu.tlb.flushAll();
}
test("no row of the system table lets an exception of ours out, whatever its operands", () => {
  const r = random(seed), x = new Fixture().identity2m(0x1000);
  for (let n = 0; n < 20000; n++) {
    if (n % 4 === 0) scramble(x, r);
    const row = r(SYS_NAMES.length), a = value(r), b = value(r), name = SYS_NAMES[row]!;
    const operands: [bigint, bigint] = name === "loadSeg" ? [a, BigInt([0, 2, 3, 4, 5][r(5)]!)] : name === "readCr" || name === "writeCr" || name === "readDr" || name === "writeDr" ? [BigInt(r(16)), b]
      : name === "in" ? [a, BigInt([1, 2, 4][r(3)]!)] : name === "out" ? [BigInt(r(0x10000) | [1, 2, 4][r(3)]! << 16), b] : name === "farJump" || name === "farCall" ? [a, BigInt(r(0x80) | [16, 32, 64][r(3)]! << 16)]
      : name === "iret" || name === "sysret" || name === "sysexit" ? [BigInt([16, 32, 64][r(3)]!), b] : name === "farRet" || name === "popf" ? [a, BigInt([16, 32, 64][r(3)]!)] : name === "enter" ? [BigInt(r(0x10000) | [16, 32, 64][r(3)]! << 16), b] : [a, b];
    x.cpu.clearFault();
    try { callSys(x.cpu, row, BigInt.asIntN(64, operands[0]), BigInt.asIntN(64, operands[1])); } catch (e) { assert.fail(`${name}(${operands.join()}) in step ${n}: ${(e as Error).stack}`); }
    bulkMovs(x.cpu, 32); bulkStos(x.cpu, 64);
  }
});
test("every delivery ends in a handler or a shutdown", () => {
  const r = random(seed + 1), x = new Fixture().identity2m(0x1000), causes: Cause[] = ["exception", "external", "int", "int3", "int1"];
  let handled = 0, down = 0;
  for (let n = 0; n < 5000; n++) {
    scramble(x, r);
    deliver(x.cpu, r(256), r(2) ? r(0x10000) : -1, causes[r(5)]!);
    if (x.cpu.exit) down++; else handled++;
  }
  assert(handled > 100 && down > 100, `${handled} handled, ${down} shutdowns`);
});
test("random page tables fault or translate, and the TLB says what a fresh walk says", () => {
  const r = random(seed + 2), x = new Fixture(), { cpu } = x;
  for (let round = 0; round < 60; round++) {
    for (let t = 0; t < 8; t++) for (let i = 0; i < 512; i++) x.p64(0x1000 + t * 4096 + i * 8, BigInt(0x1000 + r(40) * 4096 | (r(8) ? 1 : 0) | r(0x200) & ~1 & (r(8) ? ~0x80 : -1)) | (r(64) ? 0n : 1n << BigInt(r(64))));
    for (let i = 0; i < 1024 && round % 3 === 0; i++) x.p32(0x1000 + i * 4, (0x1000 + r(40) * 4096 | (r(8) ? 1 : 0) | r(0x200)) >>> 0);
    if (round % 3 === 2) x.long(0x1000); else { x.protected32(); cpu.set(CPU.cr3, 0x1000n); cpu.set(CPU.cr0, BigInt(CR0.PE) | 1n << 31n); cpu.set(CPU.efer, 0n); cpu.set(CPU.cr4, BigInt(round % 3 === 1 ? CR4.PAE : CR4.PSE)); }
    cpu.set(CPU.cr4, cpu.get(CPU.cr4) | BigInt([0, CR4.SMAP, CR4.SMEP, CR4.PGE][r(4)]!)); cpu.setMode(); cpu.mmu.tlb.flushAll();
    const access = (a: number, write: boolean, context: number): string => {
      try { if (write) { cpu.mmu.checkWrite(a, 1, context); return "ok"; } cpu.mmu.checkRead(a, 1, context); return "ok"; } catch (e) { assert(e instanceof GuestFault, String(e)); return `${e.vector} ${e.errorCode}`; }
    };
    for (let n = 0; n < 300; n++) {
      const a = (round % 3 === 2 && r(2) ? -1 : 1) * (r(0x40000000) + (round % 3 === 2 ? r(0x8000) * 0x40000000 / 4 : 0)), write = r(2) === 1, context = [CONTEXT.kernel, CONTEXT.kernelAc, CONTEXT.user][r(3)]!;
      const cold = access(a, write, context), warm = access(a, write, context);
      assert.equal(warm, cold);
      cpu.mmu.tlb.invlpg(a);
      assert.equal(access(a, write, context), cold);
    }
  }
});
