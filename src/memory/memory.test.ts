import assert from "node:assert/strict";
import { test } from "node:test";
import { FRAME, MachineMemoryExhausted } from "./frames.ts";
import { GfnSet } from "./gfn_set.ts";
import { GuestAddressError, GuestMemory } from "./guest_memory.ts";
import { MachineMemory, heapBytes } from "./machine.ts";
import { P2M_RW, P2M_R, P2m } from "./p2m.ts";

const make = (mib = 8) => MachineMemory.create({ bytes: mib << 20, nrPcpus: 2, pcpuBytes: 1 << 20 });

test("another thread's view finds the same machine", () => {
  const mm = make(), other = MachineMemory.attach(mm.memory);
  assert.equal(other.pcpuAt(1), mm.pcpuAt(0) + (1 << 20));
  const mfn = mm.frames.alloc(5);
  assert.equal(other.frames.owner(mfn), 5);
  assert.equal(other.frames.nrFree, mm.frames.nrFree);
});
test("a freed frame comes back zeroed, and its code generation moves if code was decoded from it", () => {
  const mm = make(), mfn = mm.frames.alloc(1), { u8, u32 } = mm.views;
  u8[mfn * 4096 + 100] = 7;
  u32[(mm.frames.entryAt(mfn) + FRAME.codeCpus.at) >>> 2] = 2;
  const gen = mm.frames.codeGen(mfn);
  mm.frames.put(mfn);
  assert.equal(mm.frames.alloc(2), mfn);
  assert.equal(u8[mfn * 4096 + 100], 0);
  assert.equal(u8[mfn * 4096], 0);
  assert.notEqual(mm.frames.codeGen(mfn), gen);
});
test("allocation is all or nothing and says when the machine is full", () => {
  const mm = make(), free = mm.frames.nrFree;
  assert.throws(() => mm.frames.allocEach(free + 1, 1, () => assert.fail()), MachineMemoryExhausted);
  assert.equal(mm.frames.nrFree, free);
  let n = 0;
  mm.frames.allocEach(free, 1, () => n++);
  assert.equal(n, free);
  assert.throws(() => mm.frames.alloc(1), MachineMemoryExhausted);
});
test("a run is of frames that follow each other and were never used, or is not had at all", () => {
  const mm = make(), used = mm.frames.alloc(1), free = mm.frames.nrFree;
  mm.frames.put(used);
  const first = mm.frames.allocRun(5, 3, 0);
  assert.ok(first > used);
  for (let i = 0; i < 5; i++) assert.deepEqual([mm.frames.owner(first + i), mm.frames.refcount(first + i)], [3, 1]);
  assert.equal(mm.frames.nrFree, free + 1 - 5);
  assert.equal(mm.frames.allocRun(free + 1 - 5, 3, 0), 0, "one of the free ones was used");
  assert.equal(mm.frames.nrFree, free + 1 - 5);
  assert.equal(mm.frames.allocRun(free - 5, 3, 0), first + 5);
  assert.equal(mm.frames.alloc(1), used);
  assert.equal(mm.frames.nrFree, 0);
});
test("a reference is refused to a frame that is free or another's", () => {
  const mm = make(), mfn = mm.frames.alloc(3);
  assert.equal(mm.frames.get(mfn, 4), false);
  assert.equal(mm.frames.get(0, 3), false);
  assert.equal(mm.frames.get(2 ** 30, 3), false);
  assert.equal(mm.frames.get(mfn, 3), true);
  mm.frames.put(mfn);
  assert.equal(mm.frames.refcount(mfn), 1);
  mm.frames.put(mfn);
  assert.equal(mm.frames.get(mfn, 3), false);
});
test("the p2m finds what was set and gives all its tables back", () => {
  const mm = make(), free = mm.frames.nrFree, p2m = new P2m(mm.views, mm.frames, P2m.makeRoot(mm.frames, 1), 1);
  for (const [gfn, mfn] of [[0, 100], [1023, 101], [1024, 102], [0xfeffc, 0xfffff], [2 ** 30 - 1, 7]] as const) {
    p2m.set(gfn, mfn, P2M_RW);
    assert.equal(p2m.mfn(gfn), mfn);
  }
  for (const gfn of [1, 2 ** 30, 2 ** 40, -1, Number.NaN]) assert.equal(p2m.lookup(gfn), 0);
  assert.throws(() => p2m.set(2 ** 30, 1, P2M_RW), RangeError);
  assert.deepEqual([...p2m.entries()].map(([gfn]) => gfn), [0, 1023, 1024, 0xfeffc, 2 ** 30 - 1]);
  assert.equal(p2m.clear(1024) >>> 12, 102);
  assert.equal(p2m.lookup(1024), 0);
  p2m.free();
  assert.equal(mm.frames.nrFree, free);
});
test("guest memory is copied across frames and stops precisely at a hole", () => {
  const mm = make(), p2m = new P2m(mm.views, mm.frames, P2m.makeRoot(mm.frames, 1), 1), kicked: number[] = [];
  const b = mm.frames.alloc(1), a = mm.frames.alloc(1);
  p2m.set(16, a, P2M_RW); p2m.set(17, b, P2M_RW); p2m.set(19, b, P2M_R);
  const mem = new GuestMemory(mm.views, mm.frames, p2m.root, (mfn, cpus) => kicked.push(mfn, cpus));
  const text = new TextEncoder().encode("over the edge");
  mem.write(17 * 4096 - 5, text);
  assert.deepEqual(mem.read(17 * 4096 - 5, text.length), text);
  assert.throws(() => mem.write(18 * 4096 - 5, text), (e) => e instanceof GuestAddressError && e.gpa === 18 * 4096);
  assert.throws(() => mem.write(19 * 4096, text), GuestAddressError);
  assert.equal(mem.tryRead(2 ** 45, text), 0);
  assert.deepEqual(kicked, []);
  mm.views.u32[(mm.frames.entryAt(a) + FRAME.codeCpus.at) >>> 2] = 3;
  mem.write(16 * 4096, text);
  assert.deepEqual(kicked, [a, 3]);
  assert.equal(mm.frames.codeGen(a), 1);
});
test("a machine of 4 GiB has frames up to the last byte", () => {
  const o = { bytes: 2 ** 32, nrPcpus: 1, pcpuBytes: 1 << 20 }, mm = MachineMemory.create(o);
  assert.equal(mm.frames.nrFrames, 2 ** 20);
  assert.equal(mm.frames.firstFrame, heapBytes(o) / 4096);
  const p2m = new P2m(mm.views, mm.frames, P2m.makeRoot(mm.frames, 1), 1), last = 2 ** 20 - 1;
  p2m.set(0, last, P2M_RW);
  const mem = new GuestMemory(mm.views, mm.frames, p2m.root);
  mem.write(4095, new Uint8Array([9]));
  assert.equal(mm.views.u8[2 ** 32 - 1], 9);
});

test("a set of gfns finds what was put into it", () => {
  const set = new GfnSet(), put = [0, 7, 8, 32767, 32768, 2 ** 29 + 5];
  for (const gfn of put) set.add(gfn);
  assert.deepEqual(set.filter(() => true), put);
  assert.deepEqual(set.filter((gfn) => gfn > 8), put.slice(3));
  assert.equal(set.size, put.length);
  set.add(7);
  set.delete(8);
  set.delete(8);
  assert.equal(set.size, put.length - 1);
  assert.deepEqual([set.has(8), set.has(7), set.has(9), set.has(2 ** 29)], [false, true, false, false]);
});
