import assert from "node:assert/strict";
import { test } from "node:test";
import { Fixture } from "./fixture.ts";
import { deliver } from "./exceptions.ts";
import { GuestFault, NO_VECTOR } from "./fault.ts";
import { CONTEXT, TLB_AT, TLB_BITS, TLB_BYTES, TLBE, noTag } from "./layout.ts";
import { CPU, CR0, CR4, EFER, EFLAGS } from "./state.ts";

/** The error code of the #PF that `f` raises, and CR2. */
const pf = (x: Fixture, f: () => unknown): [number, bigint] => {
  try { f(); } catch (e) {
    assert(e instanceof GuestFault); assert.equal(e.vector, 14);
    return [e.errorCode, BigInt.asUintN(64, x.cpu.get(CPU.cr2))];
  }
  return assert.fail("no fault");
};
/** A long-mode machine whose linear page 0x40_0000 + n pages has the leaf entries given, upper levels fully permissive. */
const long = (...leaves: bigint[]): Fixture => {
  const x = new Fixture().identity2m(0x1000).long(0x1000);
  x.p64(0x3000 + 2 * 8, 0x5007n);
  leaves.forEach((l, i) => x.p64(0x5000 + i * 8, l));
  return x;
};
const A = 0x400000;
const setCr4 = (x: Fixture, bits: number) => { x.cpu.set(CPU.cr4, BigInt(x.cpu.cr4 | bits)); x.cpu.setMode(); x.cpu.mmu.tlb.flushAll(); };

test("without paging a linear address is the physical one", () => {
  const x = new Fixture(); x.p32(0x1234, 0xcafebabe);
  assert.equal(x.cpu.read32(0x1234), 0xcafebabe);
});
test("32-bit paging walks two levels and sets A, and D on a write", () => {
  const x = new Fixture().protected32();
  x.p32(0x1000 + 4, 0x2007); x.p32(0x2000 + 8, 0x3007); x.p32(0x3004, 77);
  x.cpu.set(CPU.cr3, 0x1000n); x.cpu.set(CPU.cr0, BigInt(CR0.PE) | 1n << 31n);
  assert.equal(x.cpu.read32(0x402004), 77);
  assert.equal(x.g32(0x1004), 0x2027); assert.equal(x.g32(0x2008), 0x3027);
  x.cpu.write32(0x402004, 78);
  assert.equal(x.g32(0x2008), 0x3067); assert.equal(x.g32(0x1004), 0x2027); assert.equal(x.g32(0x3004), 78);
});
test("PSE maps 4 MiB, its PS bit means nothing without CR4.PSE, and bit 21 is reserved", () => {
  const x = new Fixture(8).protected32();
  x.p32(0x1004, 0x00400087); x.p32(0x400008, 99);
  x.cpu.set(CPU.cr3, 0x1000n); x.cpu.set(CPU.cr0, BigInt(CR0.PE) | 1n << 31n);
  setCr4(x, CR4.PSE);
  assert.equal(x.cpu.read32(0x400008), 99);
  x.p32(0x1004, 0x00600087); x.cpu.mmu.tlb.flushAll();
  assert.deepEqual(pf(x, () => x.cpu.read32(0x400008)), [9, 0x400008n]);
  x.p32(0x1004, 0x00002087); x.p32(0x2000, 0x3007); x.p32(0x3008, 5); x.cpu.set(CPU.cr4, 0n); x.cpu.mmu.tlb.flushAll();
  assert.equal(x.cpu.read32(0x400008), 5);
});
test("PSE-36 puts bits 13 to 20 above the address", () => {
  const x = new Fixture().protected32();
  x.p32(0x1000, 0x80000000 + 0x2087); x.p32(0x1004, 0x87);
  x.cpu.set(CPU.cr3, 0x1000n); x.cpu.set(CPU.cr0, BigInt(CR0.PE) | 1n << 31n); setCr4(x, CR4.PSE);
  x.cpu.read8(0x10);
  assert.deepEqual(x.diary, ["read 180000010 1"]);
});
test("PAE walks three levels; upper bits of a PDE are reserved; 2 MiB pages", () => {
  const x = new Fixture().protected32();
  x.p64(0x1020 + 8, 0x2001n); x.p64(0x2000, 0x3007n); x.p64(0x3000 + 8, 0x4007n); x.p64(0x2008, 0x200087n); x.p32(0x4000, 6); x.p32(0x200010, 7);
  x.cpu.set(CPU.cr3, 0x1020n); x.cpu.set(CPU.cr0, BigInt(CR0.PE) | 1n << 31n); setCr4(x, CR4.PAE);
  assert.equal(x.cpu.read32(0x40001000), 6); assert.equal(x.cpu.read32(0x40200010), 7);
  assert.equal(x.g64(0x1028), 0x2001n);
  x.p64(0x2000, 0x3007n | 1n << 52n); x.cpu.mmu.tlb.flushAll();
  assert.deepEqual(pf(x, () => x.cpu.read32(0x40001000)), [9, 0x40001000n]);
});
test("four levels: not present, 4 KiB, 2 MiB and 1 GiB pages", () => {
  const x = long(0x6007n, 0n);
  x.p32(0x6004, 11); x.p64(0x2000 + 8, 0x87n);
  assert.equal(x.cpu.read32(A + 4), 11); assert.equal(x.cpu.read32(0x6004), 11); assert.equal(x.cpu.read32(0x40000000 + 0x6004), 11);
  assert.deepEqual(pf(x, () => x.cpu.read32(A + 0x1000)), [0, 0x401000n]);
  assert.deepEqual(pf(x, () => x.cpu.write32(A + 0x1ffc, 0)), [2, 0x401ffcn]);
  x.p64(0x2008, 0x2087n); x.cpu.mmu.tlb.flushAll();
  assert.deepEqual(pf(x, () => x.cpu.read8(0x40000000)), [9, 0x40000000n]);
});
test("address bits above MAXPHYADDR are reserved, and NX without EFER.NXE", () => {
  const x = long(0x6007n | 1n << 40n, 0x6007n | 1n << 39n, 0x6007n | 1n << 63n, 0x6007n | 1n << 52n);
  assert.equal(pf(x, () => x.cpu.read8(A))[0], 9);
  x.cpu.read8(A + 0x1000); assert.deepEqual(x.diary, ["read 8000006000 1"]);
  x.cpu.read8(A + 0x2000); x.cpu.read8(A + 0x3000);
  x.cpu.set(CPU.efer, BigInt(x.cpu.efer & ~EFER.NXE)); x.cpu.mmu.tlb.flushAll();
  assert.equal(pf(x, () => x.cpu.read8(A + 0x2000))[0], 9);
});
test("the upper half is reached with negative addresses", () => {
  const x = long(0x6007n); x.p64(0x1000 + 511 * 8, 0x2007n); x.p64(0x2000 + 511 * 8, 0x3007n); x.p32(0x6008, 13);
  assert.equal(x.cpu.read32(-0x40000000 + A + 8), 13);
  assert.equal(x.cpu.mmu.slowLoad(BigInt.asIntN(64, 0xffffffffc0400008n), 4), 13n);
  assert.deepEqual(pf(x, () => x.cpu.read32(-0x80000000)), [0, 0xffffffff80000000n]);
});
test("user and supervisor, WP, NX", () => {
  const x = long(0x6003n, 0x6005n, 0x8000000000006007n, 0x6001n);
  assert.equal(pf(x, () => x.cpu.write8(A + 0x1000, 1))[0], 3);
  assert.deepEqual(pf(x, () => x.cpu.mmu.fillCode(A + 0x2010)), [0x11, 0x402010n]);
  x.cpu.set(CPU.cr0, BigInt(x.cpu.cr0 & ~CR0.WP) & 0xffffffffn); x.cpu.mmu.tlb.flushAll();
  x.cpu.write8(A + 0x1000, 1);
  x.ring3();
  assert.equal(pf(x, () => x.cpu.read8(A))[0], 5);
  assert.equal(pf(x, () => x.cpu.write8(A + 0x1000, 1))[0], 7);
  assert.equal(pf(x, () => x.cpu.mmu.fillCode(A))[0], 0x15);
});
test("SMEP forbids fetching user pages, SMAP reading them unless AC is set", () => {
  const x = long(0x6007n); setCr4(x, CR4.SMEP | CR4.SMAP);
  assert.equal(pf(x, () => x.cpu.mmu.fillCode(A))[0], 0x11);
  assert.equal(pf(x, () => x.cpu.read8(A))[0], 1);
  assert.equal(pf(x, () => x.cpu.write8(A, 0))[0], 3);
  x.flags(EFLAGS.AC);
  x.cpu.read8(A); x.cpu.write8(A, 5);
  assert.equal(pf(x, () => x.cpu.mmu.load(A, 1, CONTEXT.kernel))[0], 1, "an implicit access does not look at AC");
  x.flags(0);
  assert.equal(pf(x, () => x.cpu.read8(A))[0], 1);
});
test("fill enters a read tag first and the write tag once D is set", () => {
  const x = long(0x6007n), page = A >>> 12, e = TLB_AT + (page & ((1 << TLB_BITS) - 1)) * TLBE.size, none = BigInt(noTag(page & ((1 << TLB_BITS) - 1))), tag = (at: number) => x.v.dv.getBigInt64(e + at, true);
  assert.equal(x.cpu.mmu.fill(page, 0, 0), 0);
  assert.equal(tag(TLBE.read), BigInt(A)); assert.equal(tag(TLBE.write), none);
  assert.equal(x.cpu.mmu.fill(page, 0, 1), 0);
  assert.equal(tag(TLBE.write), BigInt(A));
  assert.equal((A + x.v.dv.getInt32(e + TLBE.add, true)) >>> 0, x.machine(0x6000));
  x.cpu.mmu.tlb.protectFrame(x.machine(0x6000) / 4096);
  assert.equal(tag(TLBE.write), none); assert.equal(tag(TLBE.read), BigInt(A));
  assert.equal(x.cpu.mmu.fill(page + 1, 0, 0x23 << 1), 1, "a page fault is recorded");
  assert.equal(x.cpu.get(CPU.fault), 15); assert.equal(x.cpu.get(CPU.cr2), 0x401023n);
  x.cpu.clearFault();
  assert.equal(x.cpu.mmu.fill(0, 0x8000, 0), 2);
  x.cpu.mmu.slowLoad(0x401023n, 4);
  assert.equal(x.cpu.get(CPU.fault), 15); assert.equal(x.cpu.get(CPU.cr2), 0x401023n);
  x.cpu.mmu.slowLoad(0x800000000000n, 4); assert.equal(x.cpu.get(CPU.fault), 14);
  x.cpu.mmu.slowStore(0x800000000000n, 0n, 4, 1); assert.equal(x.cpu.get(CPU.fault), 13);
  assert.equal(TLB_BYTES, TLBE.size << TLB_BITS);
});
test("a store across pages checks both before it writes", () => {
  const x = long(0x6007n, 0n, 0x7007n, 0x9007n);
  x.cpu.mmu.slowStore(BigInt(A + 0xffc), 0x1122334455667788n, 8);
  assert.equal(x.cpu.get(CPU.cr2), BigInt(A + 0x1000)); assert.equal(x.g32(0x6ffc), 0);
  x.cpu.clearFault();
  x.cpu.mmu.slowStore(BigInt(A + 0x2ffc), 0x1122334455667788n, 8);
  assert.equal(x.g32(0x7ffc), 0x55667788); assert.equal(x.g32(0x9000), 0x11223344);
  assert.equal(x.cpu.mmu.slowLoad(BigInt(A + 0x2ffd), 8), 0x11223344556677n | BigInt(x.g8(0x9004)) << 56n);
});
test("a store to a frame with decoded code is announced; one to a frame without the right goes to the platform", () => {
  const x = long(0x6007n, 0x7007n), seen: number[] = [];
  x.code.add(6); x.readOnly.add(7); x.cpu.onCodeWrite = (at, size) => { seen.push(at - x.machine(0), size, x.g8(0x6010)); };
  assert.equal(x.cpu.mmu.fill(A >>> 12, 0, 1), 2);
  x.cpu.write8(A + 0x10, 0x90);
  assert.deepEqual(seen, [0x6010, 1, 0]); assert.equal(x.g8(0x6010), 0x90);
  x.cpu.write16(A + 0x1020, 0x1234);
  assert.deepEqual(x.diary, ["write 7020 2 1234"]);
});
test("a CR3 load keeps global pages, INVLPG drops one page and every piece of a large one", () => {
  const x = long(0x6107n, 0x7007n), hit = (a: number) => { const e = TLB_AT + (a >>> 12 & ((1 << TLB_BITS) - 1)) * TLBE.size; return x.v.dv.getBigInt64(e, true) === BigInt(a); };
  for (const a of [A, A + 0x1000, 0x200000, 0x203000]) x.cpu.read8(a);
  x.cpu.mmu.tlb.flushLocal();
  assert.deepEqual([hit(A), hit(A + 0x1000), hit(0x200000)], [true, false, false]);
  for (const a of [A + 0x1000, 0x10000, 0x13000]) x.cpu.read8(a);
  x.cpu.mmu.tlb.invlpg(0x14000);
  assert.deepEqual([hit(0x10000), hit(0x13000), hit(A), hit(A + 0x1000)], [false, false, true, true]);
  x.cpu.mmu.tlb.invlpg(A); assert.equal(hit(A), false);
  x.cpu.read8(A); x.cpu.mmu.tlb.flushAll(); assert.equal(hit(A), false);
});
test("copies by linear address cross pages, or fail without writing and without CR2", () => {
  const x = long(0x6007n, 0x7007n, 0n), b = new Uint8Array(8).fill(9);
  assert.equal(x.cpu.writeLinear(A + 0xffc, b), true); assert.equal(x.g32(0x6ffc), 0x09090909);
  const out = new Uint8Array(8); assert.equal(x.cpu.readLinear(BigInt(A + 0xffc), out), true); assert.deepEqual(out, b);
  assert.equal(x.cpu.writeLinear(A + 0x1ffc, b), false); assert.equal(x.g32(0x7ffc), 0);
  assert.equal(x.cpu.readLinear(1n << 47n, out), false); assert.equal(x.cpu.get(CPU.cr2), 0n);
});

test("the first write to a clean frame is told of, also one of the walker's, and the next goes straight; reads are not", () => {
  const x = long(0x200007n, 0x201007n, 0x202027n), TABLE = "dirty 5";
  /** What was told since the last time; of a table, which is remembered as it was, again now and then. */
  const told = (): string[] => x.diary.splice(0).filter((line) => line !== TABLE).sort();
  for (const gfn of [0x200, 0x201, 0x202, 5]) x.clean.add(gfn);
  x.cpu.read32(A);
  assert.deepEqual(x.diary.splice(0), [TABLE]);            // A
  x.cpu.write32(A, 1);
  assert.deepEqual(told(), ["dirty 200"]);
  x.cpu.write32(A + 8, 1);
  x.cpu.read32(A + 0x1000);
  assert.deepEqual(told(), []);
  x.cpu.writeLinear(A + 0x1ff8, new Uint8Array(16));
  assert.deepEqual(told(), ["dirty 201", "dirty 202"]);
  x.clean.add(0x200);
  x.cpu.mmu.tlb.flushAll();
  x.cpu.read32(A);
  x.cpu.write8(A + 1, 1);
  assert.deepEqual(told(), ["dirty 200"]);
});
test("before an entry goes that let stores through, whoever counts them is asked while it stands", () => {
  const ways: [what: string, forget: (x: Fixture) => void][] = [
    ["evicted", (x) => { x.cpu.read8(A + (1 << TLB_BITS) * 4096); }], ["flushAll", (x) => x.cpu.mmu.tlb.flushAll()], ["flushLocal", (x) => x.cpu.mmu.tlb.flushLocal()],
    ["INVLPG", (x) => x.cpu.mmu.tlb.invlpg(A)], ["its frame is code here too", (x) => x.cpu.mmu.tlb.protectFrame(x.machine(0x6000) / 4096)],
  ];
  for (const [what, forget] of ways) {
    const x = long(0x6007n), asked: number[][] = [];
    for (let n = 0; n < 1 << TLB_BITS - 9; n++) x.p64(0x3000 + (3 + n) * 8, 0x5007n); // all the same 512 pages
    x.cpu.write8(A, 1);
    x.cpu.beforeForget = () => { asked.push(x.cpu.mmu.tlb.forbidFrames(() => true).map((f) => f * 4096 - x.machine(0))); };
    forget(x);
    assert.deepEqual(asked[0], [0x6000], what);
  }
});
test("a frame that has not come is left for, in the table or behind it, and nothing is changed by that; what is not an instruction's access waits, and a look ahead finds nothing", () => {
  const x = long(0x200007n, 0x201003n), { cpu } = x, { mmu } = cpu, left = (f: () => unknown): unknown => { try { return f(); } catch (e) { assert(e instanceof GuestFault); return [e.vector, e.errorCode]; } };
  x.p32(0x200000, 5);
  for (const gfn of [3, 5, 0x200]) {
    x.absent.add(gfn);
    mmu.tlb.flushAll();
    assert.deepEqual([left(() => cpu.read32(A)), left(() => cpu.write32(A, 6)), left(() => mmu.fillCode(A)), mmu.peekCode(A)], [[NO_VECTOR.awaited, gfn], [NO_VECTOR.awaited, gfn], [NO_VECTOR.awaited, gfn], 0]);
    cpu.clearFault();
    assert.equal(mmu.fill(A / 4096, 0, 1), 1);
    assert.deepEqual([cpu.get(CPU.fault), cpu.get(CPU.errorCode)], [NO_VECTOR.awaited + 1, gfn]);
    cpu.clearFault();
    assert.equal(mmu.slowLoad(BigInt(A), 4), 0n);
    assert.equal(cpu.get(CPU.fault), NO_VECTOR.awaited + 1);
    cpu.clearFault();
    assert.deepEqual([x.diary.length, x.g32(0x200000)], [0, 5]);
    const out = new Uint8Array(4);
    assert.equal(cpu.readLinear(A, out), true);
    assert.deepEqual([x.diary.splice(0), out[0], cpu.read32(A)], [[`waits for ${gfn.toString(16)}`], 5, 5]);
  }
  // not worth a wait
  x.absent.add(0x200);
  mmu.tlb.flushAll();
  assert.deepEqual([cpu.writeLinear(A, new Uint8Array(4), true), x.diary.length], [false, 0]);
  // never to come: nothing is there
  x.comes = false;
  x.absent.add(0x200);
  mmu.tlb.flushAll();
  assert.deepEqual([cpu.readLinear(A, new Uint8Array(4)), mmu.translate(A)], [false, 0x200000]);
  assert.deepEqual(left(() => cpu.read32(A)), [NO_VECTOR.awaited, 0x200]);
});
test("an interrupt that was taken is delivered when its stack has come, not twice and not never", () => {
  const x = long(0x200003n, 0x201003n), { cpu } = x;
  cpu.set(CPU.idtrBase, 0x8000n); cpu.set(CPU.idtrLimit, 0xfff); cpu.set(CPU.gdtrBase, 0x7000n); cpu.set(CPU.gdtrLimit, 0xff);
  x.p64(0x7008, 0x00af9b000000ffffn);
  x.p64(0x8000 + 0x40 * 16, 0x00008e0000080000n | 0x1234n); x.p64(0x8008 + 0x40 * 16, 0n);
  cpu.setGpr(4, BigInt(A + 0x1000)); cpu.set(CPU.rip, 0x5555n); cpu.set(CPU.eflags, EFLAGS.fixed | EFLAGS.IF); cpu.setMode();
  for (const gfn of [7, 8, 0x200]) x.absent.add(gfn);
  cpu.mmu.tlb.flushAll();
  deliver(cpu, 0x40, -1, "external");
  assert.deepEqual([x.diary.splice(0), cpu.get(CPU.rip), cpu.get(CPU.fault), cpu.exit], [["waits for 8", "waits for 7", "waits for 200"], 0x1234n, 0, 0]);
  assert.deepEqual([x.g64(0x200fd8), x.g64(0x200fe0), x.g64(0x200ff0)], [0x5555n, 8n, BigInt(A + 0x1000)]);
});
