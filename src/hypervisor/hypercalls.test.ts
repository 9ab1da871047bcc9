import assert from "node:assert/strict";
import { test } from "node:test";
import { EFAULT, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH, ETIME } from "../abi/errno.ts";
import { HVMOP, XenHvmParam } from "../abi/hvm/hvm_op.ts";
import { HVM_PARAM } from "../abi/hvm/params.ts";
import { GNTTABOP, GnttabQuerySize, GnttabSetVersion } from "../abi/grant_table.ts";
import { XENMAPSPACE, XENMEM, XenAddToPhysmap, XenMemoryMap, XenMemoryReservation } from "../abi/memory.ts";
import { SCHEDOP, SchedShutdown, SHUTDOWN } from "../abi/sched.ts";
import { VCPU_SSHOTTMR, VCPUOP, VcpuRegisterRunstateMemoryArea, VcpuRegisterVcpuInfo, VcpuRunstateInfo, VcpuSetSingleshotTimer } from "../abi/vcpu.ts";
import { XENVER, XenFeatureInfo } from "../abi/version.ts";
import { XENFEAT } from "../abi/features.ts";
import { DOMID, HYPERVISOR, SharedInfo, VcpuInfo, VcpuTimeInfo } from "../abi/xen.ts";
import { EXIT } from "../x86/state.ts";
import { Fixture } from "./fixture.ts";
import { DOMAIN, VPF } from "./objects.ts";

const H = HYPERVISOR;
const param = (index: number, value = 0n, domid: number = DOMID.SELF) => (dv: DataView): void => {
  XenHvmParam.domid.set(dv, 0, domid); XenHvmParam.index.set(dv, 0, index); XenHvmParam.value.set(dv, 0, value);
};

test("a guest cannot map another's frames: the log of what a domain writes relies on it", () => {
  const f = new Fixture(), foreign = f.put(XenAddToPhysmap.sizeof, (dv) => { XenAddToPhysmap.domid.set(dv, 0, DOMID.SELF); XenAddToPhysmap.space.set(dv, 0, XENMAPSPACE.gmfn_foreign); });
  assert.equal(f.call(H.grant_table_op, GNTTABOP.map_grant_ref, foreign, 1), -ENOSYS);
  assert.equal(f.call(H.memory_op, XENMEM.add_to_physmap, foreign), -EINVAL);
  f.done();
});

test("a number without a row and an unknown sub-op answer ENOSYS", () => {
  const f = new Fixture();
  for (const nr of [0, 26, 63, 0xffffffff]) assert.equal(f.call(nr), -ENOSYS);
  for (const nr of [H.memory_op, H.event_channel_op, H.grant_table_op, H.sched_op, H.vcpu_op, H.hvm_op, H.xen_version]) assert.equal(f.call(nr, 61), -ENOSYS);
  assert.equal(f.call(H.domctl), -EPERM);
  f.done();
});
test("an argument at an address without memory answers EFAULT", () => {
  const f = new Fixture();
  for (const [nr, op] of [[H.event_channel_op, 4], [H.memory_op, XENMEM.memory_map], [H.hvm_op, 0], [H.sched_op, SCHEDOP.shutdown], [H.xen_version, XENVER.extraversion]] as const) {
    assert.equal(f.call(nr, op, 0xdeadbeef000n), -EFAULT);
  }
  f.done();
});
test("xen_version tells 4.17, a translated HVM guest's features, and nothing of the build id", () => {
  const f = new Fixture(), at = f.put(XenFeatureInfo.sizeof);
  assert.equal(f.call(H.xen_version, XENVER.version), 4 << 16 | 17);
  assert.equal(f.call(H.xen_version, XENVER.get_features, at), 0);
  const submap = XenFeatureInfo.submap.get(f.at(at, 8), 0);
  for (const bit of [XENFEAT.auto_translated_physmap, XENFEAT.hvm_callback_vector, XENFEAT.hvm_safe_pvclock]) assert.ok(submap & 1 << bit);
  assert.equal(f.call(H.xen_version, XENVER.build_id, 0), -EPERM);
  assert.equal(f.call(H.xen_version, XENVER.pagesize, 0), 4096);
  assert.equal(f.call(H.xen_version, XENVER.guest_handle, at), 0);
  assert.equal(f.at(at, 16).getUint8(15), 15);
  f.done();
});
test("HVM params: a guest reads its store's place, sets its callback, and may not touch the toolstack's", () => {
  const f = new Fixture();
  f.d.setParam(HVM_PARAM.STORE_PFN, 0xfeffcn);
  const get = (index: number, domid?: number): number => f.call(H.hvm_op, HVMOP.get_param, f.put(16, param(index, 0n, domid)));
  const set = (index: number, value: bigint, domid?: number): number => f.call(H.hvm_op, HVMOP.set_param, f.put(16, param(index, value, domid)));
  assert.equal(get(HVM_PARAM.STORE_PFN), 0);
  assert.equal(XenHvmParam.value.get(f.at(0x1000, 16), 0), 0xfeffcn);
  assert.equal(set(HVM_PARAM.STORE_PFN, 1n), -EPERM);
  assert.equal(get(HVM_PARAM.IOREQ_PFN), -EPERM);
  assert.equal(get(99), -EINVAL);
  assert.equal(get(HVM_PARAM.STORE_PFN, 0), -EPERM);
  assert.equal(get(HVM_PARAM.STORE_PFN, 77), -ESRCH);
  assert.equal(set(HVM_PARAM.CALLBACK_IRQ, 2n << 56n | 0xf3n), 0);
  assert.equal(f.platform.pendingVector(), -1);
  f.hv.views.u8[f.d.vcpu(0)!.vcpuInfo] = 1;
  assert.equal(f.platform.pendingVector(), 0xf3);
  f.platform.acknowledge(0xf3);
  assert.equal(f.platform.pendingVector(), 0xf3, "it stays until the guest clears it");
  f.done();
});
test("a flush of all TLBs reaches vCPUs that do not run, whose TLBs their pCPU has kept", () => {
  const f = new Fixture(), gen = f.hv.load(DOMAIN.p2mGen, f.d.at);
  assert.equal(f.call(H.hvm_op, HVMOP.flush_tlbs, 0), 0);
  assert.equal(f.hv.load(DOMAIN.p2mGen, f.d.at), gen + 1);
  assert.equal(f.call(H.hvm_op, HVMOP.flush_tlbs, 8), -EINVAL);
  f.done();
});
test("shared info and the grant table appear at the gfns asked for, and the frames they displace go back", () => {
  const f = new Fixture(), pages = f.d.totPages;
  const add = (space: number, idx: number, gpfn: number): number => f.call(H.memory_op, XENMEM.add_to_physmap, f.put(XenAddToPhysmap.sizeof, (dv) => {
    XenAddToPhysmap.domid.set(dv, 0, DOMID.SELF); XenAddToPhysmap.space.set(dv, 0, space);
    XenAddToPhysmap.idx.set(dv, 0, BigInt(idx)); XenAddToPhysmap.gpfn.set(dv, 0, BigInt(gpfn));
  }));
  assert.equal(add(XENMAPSPACE.shared_info, 0, 40), 0);
  assert.equal(f.d.totPages, pages - 1);
  assert.equal(f.d.p2m.mfn(40), f.d.sharedInfo >>> 12);
  assert.equal(SharedInfo.wc_sec.get(f.at(40 * 4096, SharedInfo.sizeof), 0), f.hv.get(SharedInfo.wc_sec, f.d.sharedInfo));
  assert.equal(add(XENMAPSPACE.shared_info, 0, 41), 0);
  assert.equal(f.d.p2m.lookup(40), 0, "it moved");
  assert.equal(add(XENMAPSPACE.shared_info, 1, 42), -EINVAL);
  assert.equal(add(XENMAPSPACE.grant_table, 3, 0x10000), 0);
  assert.equal(add(XENMAPSPACE.grant_table, 64, 0x10000), -EINVAL);
  assert.equal(f.call(H.grant_table_op, GNTTABOP.query_size, f.put(GnttabQuerySize.sizeof, (dv) => GnttabQuerySize.dom.set(dv, 0, DOMID.SELF)), 1), 0);
  assert.deepEqual([GnttabQuerySize.nr_frames.get(f.at(0x1000, 16), 0), GnttabQuerySize.max_nr_frames.get(f.at(0x1000, 16), 0)], [4, 64]);
  assert.equal(add(XENMAPSPACE.shared_info, 0, 2 ** 31), -EINVAL);
  assert.ok(f.flushes > 0);
  f.done();
});
test("grant table version 2 is refused and version 1 kept", () => {
  const f = new Fixture(), set = (version: number): number => f.call(H.grant_table_op, GNTTABOP.set_version, f.put(4, (dv) => GnttabSetVersion.version.set(dv, 0, version)), 1);
  assert.equal(set(2), -ENOSYS);
  assert.equal(f.at(0x1000, 4).getUint32(0, true), 1);
  assert.equal(set(1), 0);
  assert.equal(set(3), -EINVAL);
  f.done();
});
test("balloon: decrease gives frames back, populate takes them again up to the limit", () => {
  const f = new Fixture({ nrPages: 64, maxPages: 64 }), free = f.hv.mm.frames.nrFree;
  const list = (op: number, gfns: bigint[], order = 0): number => {
    f.d.memory.write(0x2000, new Uint8Array(new BigUint64Array(gfns).buffer));
    return f.call(H.memory_op, op, f.put(XenMemoryReservation.sizeof, (dv) => {
      XenMemoryReservation.extent_start.set(dv, 0, 0x2000n); XenMemoryReservation.nr_extents.set(dv, 0, BigInt(gfns.length));
      XenMemoryReservation.extent_order.set(dv, 0, order); XenMemoryReservation.domid.set(dv, 0, DOMID.SELF);
    }));
  };
  assert.equal(list(XENMEM.decrease_reservation, [30n, 31n, 1000n, 32n]), 2, "stops at the hole");
  assert.equal(f.hv.mm.frames.nrFree, free + 2);
  assert.equal(f.d.totPages, 62);
  f.d.memory.tryWrite(33 * 4096, Uint8Array.of(5));
  assert.equal(list(XENMEM.populate_physmap, [500n, 501n, 502n]), 2, "the limit is 64");
  assert.equal(f.d.totPages, 64);
  assert.equal(list(XENMEM.populate_physmap, [2n ** 40n]), 0);
  assert.equal(list(XENMEM.decrease_reservation, [60n], 2), 1);
  assert.equal(f.d.totPages, 60);
  assert.equal(f.call(H.memory_op, XENMEM.current_reservation, f.put(2, (dv) => dv.setUint16(0, DOMID.SELF, true))), 60);
  assert.equal(list(XENMEM.populate_physmap, [60n], 12), 0, "no such order for a domU");
  f.done();
});
test("the memory map is told only into a buffer large enough", () => {
  const f = new Fixture();
  f.d.setMemoryMap([{ addr: 0, size: 64 * 4096, type: 1 }, { addr: 0xfc000000, size: 4096, type: 3 }]);
  const map = (n: number): number => f.call(H.memory_op, XENMEM.memory_map, f.put(16, (dv) => { XenMemoryMap.nr_entries.set(dv, 0, n); XenMemoryMap.buffer.set(dv, 0, 0x3000n); }));
  assert.equal(map(1), -EINVAL);
  assert.equal(map(10), 0);
  assert.equal(XenMemoryMap.nr_entries.get(f.at(0x1000, 16), 0), 2);
  assert.equal(f.at(0x3000, 40).getBigUint64(20, true), 0xfc000000n);
  f.done();
});
test("vcpu_info moves to the guest's page with its time, once, and never across a page", () => {
  const f = new Fixture(), reg = (mfn: number, offset: number): number => f.call(H.vcpu_op, VCPUOP.register_vcpu_info, 0, f.put(16, (dv) => {
    VcpuRegisterVcpuInfo.mfn.set(dv, 0, BigInt(mfn)); VcpuRegisterVcpuInfo.offset.set(dv, 0, offset);
  }));
  assert.equal(reg(5, 4096 - 32), -EINVAL);
  assert.equal(reg(9999, 0), -EINVAL);
  assert.equal(reg(5, 0x40), 0);
  assert.equal(reg(6, 0), -EINVAL);
  const info = f.at(5 * 4096 + 0x40, VcpuInfo.sizeof);
  assert.equal(VcpuInfo.evtchn_upcall_pending.get(info, 0), 1);
  assert.equal(VcpuTimeInfo.tsc_to_system_mul.get(info, VcpuInfo.time.at), 0x80000000);
  assert.equal(VcpuTimeInfo.version.get(info, VcpuInfo.time.at) & 1, 0);
  f.done();
});
test("pvclock: system time computed from the TSC never goes back and matches the wall", () => {
  const f = new Fixture(), other = new Fixture();
  let last = 0n;
  for (let i = 0; i < 1000; i++) { const t = f.platform.tsc(); assert.ok(t >= last); last = t; }
  const time = f.at(0, 4) && f.d.vcpu(0)!.vcpuInfo + VcpuInfo.time.at, { dv } = f.hv.views;
  const delta = f.platform.tsc() - VcpuTimeInfo.tsc_timestamp.get(dv, time);
  const ns = ((delta << BigInt(VcpuTimeInfo.tsc_shift.get(dv, time))) * BigInt(VcpuTimeInfo.tsc_to_system_mul.get(dv, time)) >> 32n) + VcpuTimeInfo.system_time.get(dv, time);
  assert.ok(Math.abs(Number(ns) - f.hv.clock.now()) < 1e7);
  f.done(); other.done();
});
test("a singleshot timer in the past is refused on request, else fires VIRQ_TIMER at the next look; of a paused domain when it runs again", () => {
  const f = new Fixture(), v = f.d.vcpu(0)!;
  f.d.unpause();
  const virq = f.put(12, (dv) => dv.setUint32(0, 0, true));
  assert.equal(f.call(H.event_channel_op, 1, virq), 0);
  const port = f.at(virq, 12).getUint32(8, true);
  const set = (ns: number, flags: number): number => f.call(H.vcpu_op, VCPUOP.set_singleshot_timer, 0, f.put(16, (dv) => {
    VcpuSetSingleshotTimer.timeout_abs_ns.set(dv, 0, BigInt(Math.floor(ns))); VcpuSetSingleshotTimer.flags.set(dv, 0, flags);
  }));
  assert.equal(set(1, VCPU_SSHOTTMR.future), -ETIME);
  assert.equal(set(f.hv.clock.now() + 5e7, 0), 0);
  f.hv.scheduler.expireTimers();
  assert.equal(v.isUpcallPending, false);
  while (f.hv.clock.now() < f.hv.scheduler.nextDeadline);
  f.hv.scheduler.expireTimers();
  assert.equal(v.isUpcallPending, true);
  assert.ok(f.hv.views.u32[(f.d.sharedInfo + SharedInfo.evtchn_pending.at) >>> 2]! & 1 << port);
  assert.equal(f.hv.scheduler.nextDeadline, Number.POSITIVE_INFINITY);
  f.done();
});
test("runstate is written where the guest asked, and times add up", () => {
  const f = new Fixture();
  f.d.unpause();
  f.hv.scheduler.pick(0);
  assert.equal(f.call(H.vcpu_op, VCPUOP.register_runstate_memory_area, 0, f.put(8, (dv) => VcpuRegisterRunstateMemoryArea.addr.set(dv, 0, 0x4000n))), 0);
  assert.equal(VcpuRunstateInfo.state.get(f.at(0x4000, 48), 0), 0);
  f.done();
});
test("block leaves only without a deliverable event; shutdown ends the domain with the guest's reason", () => {
  const f = new Fixture(), v = f.d.vcpu(0)!;
  assert.equal(f.call(H.sched_op, SCHEDOP.block), 0);
  assert.equal(f.exit, EXIT.yield);
  assert.ok(v.pauseFlags & VPF.blocked);
  assert.equal(f.call(H.sched_op, SCHEDOP.shutdown, f.put(4, (dv) => SchedShutdown.reason.set(dv, 0, 9))), -EINVAL);
  assert.equal(f.call(H.sched_op, SCHEDOP.shutdown, f.put(4, (dv) => SchedShutdown.reason.set(dv, 0, SHUTDOWN.reboot))), 0);
  assert.equal(f.d.end?.code, SHUTDOWN.reboot);
  f.done();
});
test("a watchdog that is not reset in time shuts the domain down; there are two", () => {
  const f = new Fixture(), set = (id: number, timeout: number): number => f.call(H.sched_op, SCHEDOP.watchdog, f.put(8, (dv) => { dv.setUint32(0, id, true); dv.setUint32(4, timeout, true); }));
  assert.deepEqual([set(0, 0), set(1, 5), set(3, 5), set(0, 100), set(0, 100), set(0, 100), set(1, 0), set(1, 5), set(0, 100)], [-EINVAL, -EINVAL, -EINVAL, 1, 2, -ENOSPC, 0, -EINVAL, 1]);
  const v = f.d.vcpu(0)!;
  v.setDeadline("watchdog2", f.hv.clock.now());
  f.hv.scheduler.expireTimers();
  assert.equal(f.d.isShutDown, false, "it is paused");
  f.d.unpause();
  f.hv.scheduler.expireTimers();
  assert.equal(f.d.end?.code, SHUTDOWN.watchdog);
  f.done();
});
