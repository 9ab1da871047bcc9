import assert from "node:assert/strict";
import { test } from "node:test";
import { EINVAL } from "../abi/errno.ts";
import { XENMAPSPACE, XENMEM, XenAddToPhysmap, XenMemoryReservation } from "../abi/memory.ts";
import { DOMID, HYPERVISOR } from "../abi/xen.ts";
import { P2M_AWAITED } from "../x86/platform.ts";
import { Arrival } from "./arrival.ts";
import { Fixture } from "./fixture.ts";
import { DOMAIN, VCPU, VPF } from "./objects.ts";

const H = HYPERVISOR, page = (byte: number): Uint8Array => new Uint8Array(4096).fill(byte);
function setUp(...gfns: number[]) {
  const f = new Fixture(), arrival = new Arrival(f.d), told: number[] = [];
  for (const gfn of gfns) {
    f.d.memory.write(gfn * 4096, page(0xee));
    assert.ok(arrival.expect(gfn));
  }
  arrival.onWanted = (g) => told.push(...g);
  f.dom0.arrivals.set(f.d.domid, arrival);
  return { f, arrival, told, isAwaited: (gfn: number): boolean => (f.platform.frameOf(gfn) & P2M_AWAITED) !== 0, first: (gfn: number): number => f.d.memory.read(gfn * 4096, 1)[0]! };
}
const give = (f: Fixture, op: number, gfn: bigint): number => {
  f.put(8, (dv) => dv.setBigUint64(0, gfn, true), 0x2000);
  return f.call(H.memory_op, op, f.put(XenMemoryReservation.sizeof, (dv) => {
    XenMemoryReservation.extent_start.set(dv, 0, 0x2000n); XenMemoryReservation.nr_extents.set(dv, 0, 1n); XenMemoryReservation.domid.set(dv, 0, DOMID.SELF);
  }));
};
const move = (f: Fixture, from: number, to: number): number => f.call(H.memory_op, XENMEM.add_to_physmap, f.put(XenAddToPhysmap.sizeof, (dv) => {
  XenAddToPhysmap.domid.set(dv, 0, DOMID.SELF); XenAddToPhysmap.space.set(dv, 0, XENMAPSPACE.gmfn); XenAddToPhysmap.idx.set(dv, 0, BigInt(from)); XenAddToPhysmap.gpfn.set(dv, 0, BigInt(to));
}));

test("a vCPU that needs a page stands still, is told of once, and runs when the page has come; zeros are zeros", () => {
  const { f, arrival, told, isAwaited, first } = setUp(30, 31), v = f.d.vcpu(0)!, { hv } = f;
  assert.equal(arrival.expect(5000), false, "no memory there");
  assert.deepEqual([isAwaited(30), isAwaited(29), arrival.nrLeft], [true, false, 2]);
  f.platform.awaited(31);
  assert.equal(v.pauseFlags & VPF.awaiting, VPF.awaiting);
  f.dom0.poll();
  f.dom0.poll();
  arrival.poll();
  assert.deepEqual(told, [31]);
  arrival.place(30, page(0x30));
  assert.equal(v.pauseFlags & VPF.awaiting, VPF.awaiting, "another page");
  arrival.place(31, null);
  assert.deepEqual([v.pauseFlags & VPF.awaiting, hv.load(VCPU.awaits, v.at), hv.load(DOMAIN.isArriving, f.d.at), first(30), first(31), isAwaited(31)], [0, 0, 0, 0x30, 0, false]);
  arrival.place(31, page(1));
  assert.equal(first(31), 0, "the second time it is the guest's own");
  f.platform.awaited(30);
  assert.deepEqual([v.pauseFlags & VPF.awaiting, hv.load(VCPU.awaits, v.at)], [0, 0], "it came before the vCPU stood still");
  f.done();
});
test("what the guest gave back, or made anew, or moved meanwhile is not written by what comes late", () => {
  const { f, arrival, first } = setUp(30, 31, 32, 33), { frames } = f.hv.mm, gone = f.d.p2m.mfn(30);
  assert.equal(give(f, XENMEM.decrease_reservation, 30n), 1);
  assert.equal(frames.refcount(gone), 0);
  assert.equal(give(f, XENMEM.decrease_reservation, 31n), 1);
  assert.equal(give(f, XENMEM.populate_physmap, 31n), 1);
  f.d.memory.write(31 * 4096, page(7));
  for (const gfn of [30, 31]) arrival.place(gfn, page(0x99));
  assert.deepEqual([f.d.p2m.lookup(30), first(31), frames.refcount(gone) === 0 || f.d.p2m.mfn(31) === gone], [0, 7, true]);
  // its bytes come to where it was: until then it stays there
  f.d.crash("nothing waits in this test");
  assert.equal(move(f, 32, 40), -EINVAL);
  arrival.place(32, page(0x32));
  assert.equal(move(f, 32, 40), 0);
  assert.equal(first(40), 0x32);
  arrival.place(2 ** 31, page(1));
  arrival.place(-1, page(1));
  assert.equal(arrival.nrLeft, 1);
  f.done();
});
test("a domain that is gone is written by nobody, and grants that are none are not waited for", () => {
  const { f, arrival, told, first } = setUp(30, 31, 32);
  assert.equal(arrival.missing([1, 2, 2 ** 31, -1]), null, "no such grants");
  arrival.end();
  arrival.place(30, page(0x30));
  assert.deepEqual([first(30), arrival.isOver, told, arrival.missing([1])], [0xee, true, [], null]);
  f.done();
});
test("without the rest it ends as crashed, and whoever waits in the middle of something goes on to that end", () => {
  const { f, arrival } = setUp(30), v = f.d.vcpu(0)!;
  arrival.lose("The link broke");
  assert.deepEqual([f.d.end?.text, f.platform.awaitFrame(30), v.pauseFlags & VPF.awaiting], ["The link broke", false, 0]);
  f.done();
});
