import assert from "node:assert/strict";
import { test } from "node:test";
import { EEXIST, EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP, ESRCH } from "../abi/errno.ts";
import { EVENT_WORD, EVTCHNOP, EvtchnAllocUnbound, EvtchnBindVirq, EvtchnFifoControlBlock, EvtchnInitControl, EvtchnSetPriority, EvtchnStatus, EvtchnStatusInterdomain } from "../abi/event_channel.ts";
import { DOMID, HYPERVISOR, SharedInfo, VcpuInfo, VIRQ } from "../abi/xen.ts";
import { GNTST, GTF, GrantEntryV1 } from "../abi/grant_table.ts";
import { Fixture } from "./fixture.ts";
import { growGrantTable, grantFrameMfn } from "./grant_table.ts";
import { APIC, lapicAcknowledge, lapicPending, lapicWrite, x2apicRead, x2apicWrite } from "./lapic.ts";
import { DOMAIN, VPF } from "./objects.ts";

const op = (f: Fixture, nr: number, sizeof: number, fill: (dv: DataView) => void): number => f.call(HYPERVISOR.event_channel_op, nr, f.put(sizeof, fill));
const port = (f: Fixture, nr: number, p: number): number => op(f, nr, 4, (dv) => dv.setUint32(0, p, true));
const virq = (f: Fixture, n: number, vcpu = 0): number => op(f, EVTCHNOP.bind_virq, 12, (dv) => { EvtchnBindVirq.virq.set(dv, 0, n); EvtchnBindVirq.vcpu.set(dv, 0, vcpu); });
const ipi = (f: Fixture, vcpu = 0): number => { assert.equal(op(f, EVTCHNOP.bind_ipi, 8, (dv) => dv.setUint32(0, vcpu, true)), 0); return f.at(0x1000, 8).getUint32(4, true); };
const isPending2l = (f: Fixture, p: number): boolean => (f.hv.views.u32[((f.d.sharedInfo + SharedInfo.evtchn_pending.at) >>> 2) + (p >>> 5)]! & 1 << (p & 31)) !== 0;

test("domain 0 and a guest ring each other's port, and a closed end is unbound for the other", () => {
  const f = new Fixture();
  const guest = f.dom0.allocUnbound(f.d.domid), mine = f.dom0.bind(f.d.domid, guest);
  let rung = 0;
  f.dom0.onEvent(mine, () => rung++);
  f.dom0.poll();
  assert.equal(rung, 1, "binding notifies once");
  assert.equal(port(f, EVTCHNOP.send, guest), 0);
  assert.equal(port(f, EVTCHNOP.send, guest), 0);
  f.dom0.poll();
  assert.equal(rung, 2);
  assert.equal(isPending2l(f, guest), false);
  f.dom0.notify(mine);
  assert.equal(isPending2l(f, guest), true);
  assert.equal(f.hv.views.u8[f.d.vcpu(0)!.vcpuInfo], 1);
  assert.equal(op(f, EVTCHNOP.status, 24, (dv) => { EvtchnStatus.dom.set(dv, 0, DOMID.SELF); EvtchnStatus.port.set(dv, 0, guest); }), 0);
  assert.deepEqual([EvtchnStatus.status.get(f.at(0x1000, 24), 0), EvtchnStatusInterdomain.port.get(f.at(0x1000, 24), 0)], [2, mine]);
  f.dom0.closePort(mine);
  assert.equal(op(f, EVTCHNOP.status, 24, (dv) => { EvtchnStatus.dom.set(dv, 0, DOMID.SELF); EvtchnStatus.port.set(dv, 0, guest); }), 0);
  assert.equal(EvtchnStatus.status.get(f.at(0x1000, 24), 0), 1);
  assert.equal(port(f, EVTCHNOP.close, guest), 0);
  assert.equal(port(f, EVTCHNOP.close, guest), -EINVAL);
  f.done();
});
test("dom0 is rung when both locks of a binding are free", () => {
  const f = new Fixture(), guest = f.dom0.allocUnbound(f.d.domid), held: number[] = [], { ringDom0 } = f.hv;
  f.hv.ringDom0 = () => {
    held.push(f.hv.load(DOMAIN.eventLock, f.dom0.domain.at) + f.hv.load(DOMAIN.eventLock, f.d.at));
    ringDom0.call(f.hv);
  };
  f.dom0.bind(f.d.domid, guest);
  assert.deepEqual(held, [0]);
  f.done();
});
test("wrong ports, vCPUs and virqs are refused with Xen's errors", () => {
  const f = new Fixture();
  for (const p of [0, 1, 5000, 0xffffffff]) assert.equal(port(f, EVTCHNOP.send, p), -EINVAL);
  assert.equal(virq(f, 24), -EINVAL);
  assert.equal(virq(f, VIRQ.CONSOLE, 1), -EINVAL);
  assert.equal(virq(f, VIRQ.TIMER, 7), -ENOENT);
  assert.equal(virq(f, VIRQ.TIMER), 0);
  assert.equal(virq(f, VIRQ.TIMER), -EEXIST);
  assert.equal(op(f, EVTCHNOP.bind_interdomain, 12, (dv) => dv.setUint16(0, 99, true)), -ESRCH);
  assert.equal(op(f, EVTCHNOP.expand_array, 8, () => {}), -EOPNOTSUPP);
  assert.equal(op(f, EVTCHNOP.set_priority, 8, (dv) => { EvtchnSetPriority.port.set(dv, 0, 1); EvtchnSetPriority.priority.set(dv, 0, 3); }), -ENOSYS);
  f.done();
});
test("ports run out at the domain's limit and are handed out again", () => {
  const f = new Fixture();
  let n = 0, rc = 0;
  const alloc = (): number => op(f, EVTCHNOP.alloc_unbound, 8, (dv) => { EvtchnAllocUnbound.dom.set(dv, 0, DOMID.SELF); EvtchnAllocUnbound.remote_dom.set(dv, 0, 0); });
  for (; rc === 0; n++) rc = alloc();
  assert.deepEqual([n - 1, rc], [1023, -ENOSPC]);
  assert.equal(port(f, EVTCHNOP.close, 500), 0);
  assert.equal(alloc(), 0);
  assert.equal(f.at(0x1000, 8).getUint32(4, true), 500);
  f.done();
});
test("a masked 2-level event stays quiet until unmask", () => {
  const f = new Fixture(), p = ipi(f), { i32, u8 } = f.hv.views, v = f.d.vcpu(0)!;
  Atomics.or(i32, ((f.d.sharedInfo + SharedInfo.evtchn_mask.at) >>> 2) + (p >>> 5), 1 << (p & 31));
  assert.equal(port(f, EVTCHNOP.send, p), 0);
  assert.deepEqual([isPending2l(f, p), u8[v.vcpuInfo]], [true, 0]);
  assert.equal(port(f, EVTCHNOP.unmask, p), 0);
  assert.equal(u8[v.vcpuInfo], 1);
  assert.equal(i32[(v.vcpuInfo + VcpuInfo.evtchn_pending_sel.at) >>> 2], 1);
  f.done();
});

/** What a guest does with its queue: take events off the head, oldest first. */
function drain(f: Fixture, control: number, array: number, priority = 7): number[] {
  const got: number[] = [], { i32 } = f.hv.views, word = (gpa: number): number => f.d.memory.machineAddress(gpa) >>> 2;
  const head = word(control + EvtchnFifoControlBlock.head.at) + priority;
  Atomics.and(i32, word(control), ~(1 << priority));
  for (let p = i32[head]!; p !== 0;) {
    const w = Atomics.and(i32, word(array) + p, ~(EVENT_WORD.LINKED | EVENT_WORD.LINK_MASK));
    if (w & EVENT_WORD.PENDING && !(w & EVENT_WORD.MASKED)) { got.push(p); Atomics.and(i32, word(array) + p, ~EVENT_WORD.PENDING); }
    p = w & EVENT_WORD.LINK_MASK;
    i32[head] = p;
  }
  return got;
}
test("FIFO: events queue in order and by priority; what was pending before the switch is not lost", () => {
  const f = new Fixture(), early = ipi(f), control = 0x5000, array = 0x6000;
  assert.equal(port(f, EVTCHNOP.send, early), 0);
  const init = (vcpu: number, gfn: number, offset: number): number => op(f, EVTCHNOP.init_control, 24, (dv) => {
    EvtchnInitControl.control_gfn.set(dv, 0, BigInt(gfn)); EvtchnInitControl.offset.set(dv, 0, offset); EvtchnInitControl.vcpu.set(dv, 0, vcpu);
  });
  assert.equal(init(0, 5, 4), -EINVAL);
  assert.equal(init(9, 5, 0), -ENOENT);
  assert.equal(init(0, 9999, 0), -EINVAL);
  assert.equal(init(0, 5, 0), 0);
  assert.equal(EvtchnInitControl.link_bits.get(f.at(0x1000, 24), 0), 17);
  assert.equal(init(0, 5, 0), -EEXIST);
  assert.equal(op(f, EVTCHNOP.expand_array, 8, (dv) => dv.setBigUint64(0, 6n, true)), 0);
  assert.deepEqual(drain(f, control, array), [early]);
  const ports = [ipi(f), ipi(f), ipi(f)];
  for (const p of ports) port(f, EVTCHNOP.send, p);
  port(f, EVTCHNOP.send, ports[0]!);
  assert.equal(f.hv.views.u8[f.d.vcpu(0)!.vcpuInfo], 1);
  assert.deepEqual(drain(f, control, array), ports);
  assert.equal(op(f, EVTCHNOP.set_priority, 8, (dv) => { EvtchnSetPriority.port.set(dv, 0, ports[1]!); EvtchnSetPriority.priority.set(dv, 0, 0); }), 0);
  for (const p of ports) port(f, EVTCHNOP.send, p);
  assert.deepEqual([drain(f, control, array, 0), drain(f, control, array, 7)], [[ports[1]], [ports[0], ports[2]]]);
  for (let i = 0; i < 3; i++) { port(f, EVTCHNOP.send, ports[2]!); assert.deepEqual(drain(f, control, array), [ports[2]], "the same port again and again"); }
  f.done();
});
test("FIFO: a guest that scribbles over its queue gets nonsense and harms nobody", () => {
  const f = new Fixture();
  op(f, EVTCHNOP.init_control, 24, (dv) => EvtchnInitControl.control_gfn.set(dv, 0, 5n));
  op(f, EVTCHNOP.expand_array, 8, (dv) => dv.setBigUint64(0, 6n, true));
  const ports = [ipi(f), ipi(f), ipi(f)];
  for (let round = 0, x = 12345; round < 300; round++) {
    const junk = new Uint8Array(4096);
    for (let i = 0; i < junk.length; i++) { x = (x * 1103515245 + 12345) & 0x7fffffff; junk[i] = x >>> 16; }
    f.d.memory.write(round % 2 ? 0x5000 : 0x6000, junk);
    for (const p of ports) assert.equal(port(f, EVTCHNOP.send, p), 0);
  }
  f.done();
});
test("poll wakes for the port it polls on", () => {
  const f = new Fixture(), p = ipi(f), v = f.d.vcpu(0)!;
  f.d.memory.write(0x2000, new Uint8Array(Uint32Array.of(p).buffer));
  const at = f.put(24, (dv) => { dv.setBigUint64(0, 0x2000n, true); dv.setUint32(8, 1, true); });
  assert.equal(f.call(HYPERVISOR.sched_op, 3, at), 0);
  assert.ok(v.pauseFlags & VPF.polling);
  assert.equal(port(f, EVTCHNOP.send, p), 0);
  assert.equal(v.pauseFlags, 0);
  assert.equal(f.call(HYPERVISOR.sched_op, 3, f.put(24, (dv) => { dv.setBigUint64(0, 0x2000n, true); dv.setUint32(8, 1, true); })), 0, "pending already: no sleep");
  assert.equal(v.pauseFlags, 0);
  f.done();
});

test("a grant is mapped as its entry allows, marked while in use, and pins its frame", () => {
  const f = new Fixture(), { dv } = f.hv.views;
  assert.equal(f.dom0.mapGrant(f.d.domid, 8), GNTST.bad_gntref);
  assert.equal(growGrantTable(f.d, 1), 0);
  const table = (grantFrameMfn(f.d, 0) << 12) >>> 0, entry = (ref: number): number => table + ref * GrantEntryV1.sizeof;
  const grant = (ref: number, flags: number, gfn: number, domid = 0): void => {
    GrantEntryV1.domid.set(dv, entry(ref), domid); GrantEntryV1.frame.set(dv, entry(ref), gfn); GrantEntryV1.flags.set(dv, entry(ref), flags);
  };
  grant(8, GTF.permit_access, 20); grant(9, GTF.permit_access | GTF.readonly, 21); grant(10, GTF.permit_access, 22, 5); grant(11, GTF.permit_access, 12345); grant(12, GTF.accept_transfer, 20);
  const rw = f.dom0.mapGrant(f.d.domid, 8);
  assert.ok(typeof rw === "object");
  assert.equal(rw.at, f.d.memory.machineAddress(20 * 4096));
  assert.equal(GrantEntryV1.flags.get(dv, entry(8)), GTF.permit_access | GTF.reading | GTF.writing);
  const again = f.dom0.mapGrant(f.d.domid, 8, true);
  assert.ok(typeof again === "object");
  f.dom0.unmapGrant(rw);
  assert.equal(GrantEntryV1.flags.get(dv, entry(8)), GTF.permit_access | GTF.reading);
  f.dom0.unmapGrant(again);
  assert.equal(GrantEntryV1.flags.get(dv, entry(8)), GTF.permit_access);
  assert.equal(f.hv.mm.frames.refcount(rw.mfn), 1);
  assert.equal(f.dom0.mapGrant(f.d.domid, 9), GNTST.general_error);
  assert.equal(typeof f.dom0.mapGrant(f.d.domid, 9, true), "object");
  assert.equal(f.dom0.mapGrant(f.d.domid, 10), GNTST.general_error);
  assert.equal(f.dom0.mapGrant(f.d.domid, 11), GNTST.bad_page);
  assert.equal(GrantEntryV1.flags.get(dv, entry(11)), GTF.permit_access);
  assert.equal(f.dom0.mapGrant(f.d.domid, 12), GNTST.general_error);
  assert.equal(f.dom0.copyToGrant(f.d.domid, 8, 4090, new Uint8Array(6)), 0);
  assert.equal(f.dom0.copyToGrant(f.d.domid, 8, 4090, new Uint8Array(7)), GNTST.bad_copy_arg);
  f.done();
});

const BASE = 0xfee00900;
test("local APIC: vectors come by priority, within TPR and what is in service", () => {
  const f = new Fixture(), v = f.d.vcpu(0)!;
  lapicWrite(v, APIC.SELF_IPI, 0x41);
  assert.equal(lapicPending(v, BASE), -1);
  assert.equal(x2apicWrite(v, APIC.SELF_IPI, 0x41n), true);
  assert.equal(lapicPending(v, BASE), -1, "still software-disabled");
  lapicWrite(v, APIC.SVR, 0x1ff);
  assert.equal(lapicPending(v, BASE), 0x41);
  x2apicWrite(v, APIC.SELF_IPI, 0x61n);
  assert.equal(lapicPending(v, BASE), 0x61);
  lapicAcknowledge(v, 0x61);
  assert.equal(lapicPending(v, BASE), -1, "0x61 is in service");
  lapicWrite(v, APIC.EOI, 0);
  lapicWrite(v, APIC.TPR, 0x40);
  assert.equal(lapicPending(v, BASE), -1);
  lapicWrite(v, APIC.TPR, 0x30);
  assert.equal(lapicPending(v, BASE), 0x41);
  assert.equal(x2apicRead(v, APIC.DFR), null);
  assert.equal(x2apicWrite(v, APIC.EOI, 1n), false);
  f.done();
});
test("local APIC: a oneshot timer fires once, a periodic one again, a masked one never", () => {
  const f = new Fixture(), v = f.d.vcpu(0)!;
  f.d.unpause();
  const wait = (): void => { const end = f.hv.scheduler.nextDeadline; while (f.hv.clock.now() < end); f.hv.scheduler.expireTimers(); };
  lapicWrite(v, APIC.SVR, 0x1ff);
  lapicWrite(v, APIC.LVT_TIMER, 0xec);
  lapicWrite(v, APIC.TDCR, 0xb);
  lapicWrite(v, APIC.TMICT, 20_000);
  assert.ok(Number(x2apicRead(v, APIC.TMCCT)) <= 20_000);
  wait();
  assert.equal(lapicPending(v, BASE), 0xec);
  assert.equal(v.deadline("lapicDeadline"), 0);
  lapicAcknowledge(v, 0xec);
  lapicWrite(v, APIC.EOI, 0);
  lapicWrite(v, APIC.LVT_TIMER, 0x200ec);
  lapicWrite(v, APIC.TMICT, 20_000);
  wait();
  assert.notEqual(v.deadline("lapicDeadline"), 0);
  lapicWrite(v, APIC.TMICT, 0);
  assert.equal(v.deadline("lapicDeadline"), 0);
  f.done();
});
