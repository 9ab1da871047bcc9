import assert from "node:assert/strict";
import { test } from "node:test";
import { EVENT_WORD, EVTCHN_FIFO_PRIORITY, EVTCHNOP, EVTCHNSTAT } from "../abi/event_channel.ts";
import { GTF, GrantEntryV1 } from "../abi/grant_table.ts";
import { XENMAPSPACE, XENMEM, XenAddToPhysmap } from "../abi/memory.ts";
import { VCPUOP, VcpuRegisterRunstateMemoryArea, VcpuRegisterVcpuInfo, VcpuSetSingleshotTimer } from "../abi/vcpu.ts";
import { HYPERVISOR as H, VcpuInfo, VcpuTimeInfo, VIRQ } from "../abi/xen.ts";
import { UserError } from "../base/errors.ts";
import { Domain } from "../hypervisor/domain.ts";
import { allocUnbound, bindIpi, bindVirq, isPending, send, setPriority } from "../hypervisor/event_channel.ts";
import { Fixture } from "../hypervisor/fixture.ts";
import { guestState, NotAsItIs, setGuestState } from "../hypervisor/guest_state.ts";
import { getHvmContext, setHvmContext } from "../hypervisor/hvm_context.ts";
import { VCPU, VPF } from "../hypervisor/objects.ts";
import { CPU, EFLAGS } from "../x86/state.ts";
import { encodeGuest, type Guest, parseGuest, type StoppedGuest } from "./guest.ts";
import { ownPages } from "./pages.ts";
import { StreamError } from "./stream.ts";

const CONTROL = 40, WORDS = 41, INFO = 42, SHARED = 70, GRANTS = 71, RING = 50;
/** A guest with an event array, a port of each kind, a granted ring, areas and a timer. */
function lived(): { f: Fixture; ports: { ring: number; timer: number; ipi: number } } {
  const f = new Fixture(), { d } = f, { hv } = f;
  const map = (space: number, gpfn: number): number => f.call(H.memory_op, XENMEM.add_to_physmap, f.put(XenAddToPhysmap.sizeof, (s) => {
    XenAddToPhysmap.domid.set(s, 0, 0x7ff0); XenAddToPhysmap.space.set(s, 0, space); XenAddToPhysmap.gpfn.set(s, 0, BigInt(gpfn));
  }));
  assert.deepEqual([map(XENMAPSPACE.shared_info, SHARED), map(XENMAPSPACE.grant_table, GRANTS)], [0, 0]);
  const early = allocUnbound(d, 0), dom0Port = f.dom0.bind(d.domid, early);
  f.dom0.notify(dom0Port);        // pending in the bitmaps that the guest leaves behind
  assert.equal(f.call(H.event_channel_op, EVTCHNOP.init_control, f.put(24, (s) => { s.setBigUint64(0, BigInt(CONTROL), true); s.setUint32(8, 0, true); s.setUint32(12, 0, true); })), 0);
  assert.equal(f.call(H.event_channel_op, EVTCHNOP.expand_array, f.put(8, (s) => s.setBigUint64(0, BigInt(WORDS), true))), 0);
  assert.equal(f.call(H.vcpu_op, VCPUOP.register_vcpu_info, 0, f.put(VcpuRegisterVcpuInfo.sizeof, (s) => { VcpuRegisterVcpuInfo.mfn.set(s, 0, BigInt(INFO)); VcpuRegisterVcpuInfo.offset.set(s, 0, 64); })), 0);
  f.call(H.vcpu_op, VCPUOP.register_runstate_memory_area, 0, f.put(8, (s) => VcpuRegisterRunstateMemoryArea.addr.set(s, 0, 0x2000n)));
  const timer = bindVirq(d, VIRQ.TIMER, 0), ipi = bindIpi(d, 0);
  setPriority(d, timer, EVTCHN_FIFO_PRIORITY.MAX);
  const grant = GRANTS * 4096 + 9 * GrantEntryV1.sizeof, entry = new DataView(new ArrayBuffer(GrantEntryV1.sizeof));
  entry.setUint16(0, GTF.permit_access, true);
  entry.setUint32(4, RING, true);
  hv.views.u8.set(new Uint8Array(entry.buffer), (d.p2m.mfn(GRANTS) << 12) + grant % 4096);
  f.call(H.vcpu_op, VCPUOP.set_singleshot_timer, 0, f.put(16, (s) => { VcpuSetSingleshotTimer.timeout_abs_ns.set(s, 0, BigInt(hv.clock.now() + 60e9)); }));
  return { f, ports: { ring: early, timer, ipi } };
}
const guestOf = (d: Domain): Guest => ({ wallMs: 0, ...plainGuest(d) }), plainGuest = (d: Domain): StoppedGuest => ({ state: guestState(d), storePort: 1, consolePort: 2, nodes: [], watches: [] });
/** Another machine with the guest's memory and registers. */
function arrived(f: Fixture): Fixture {
  const to = new Fixture(), d = Domain.create(to.hv, { maxVcpus: 2, maxPages: 128 });
  for (const { gfn, mfn } of ownPages(f.d)) {
    d.populate(gfn, 1);
    to.hv.views.u8.set(f.hv.views.u8.subarray(mfn << 12, (mfn + 1) << 12), d.p2m.mfn(gfn) << 12);
  }
  setHvmContext(d, getHvmContext(f.d), 5e9);
  Object.defineProperty(to, "d", { value: d });
  return to;
}

test("a guest's ports, grants, areas, timers and time are elsewhere as they were, and its stream is the same from there", () => {
  const { f, ports } = lived(), { d } = f, v = d.vcpu(0)!;
  f.hv.or(VCPU.pauseFlags, v.at, VPF.blocked);
  CPU.nmiMasked.set(f.hv.views.dv, v.context, 1);
  CPU.stiRip.set(f.hv.views.dv, v.context, CPU.rip.get(f.hv.views.dv, v.context));
  CPU.eflags.set(f.hv.views.dv, v.context, EFLAGS.IF | EFLAGS.fixed);
  send(d, ports.ipi);
  const guest = parseGuest(encodeGuest(guestOf(d)), "record"), system = f.hv.clock.now(), to = arrived(f), its = to.d.vcpu(0)!;
  f.hv.or(VCPU.pauseFlags, v.at, VPF.blocked);
  setGuestState(to.d, guest.state);
  assert.equal(its.pauseFlags & VPF.blocked, 0, "an event waits: it does not sleep on");
  assert.deepEqual([isPending(to.d, ports.ipi), isPending(to.d, ports.timer), isPending(to.d, ports.ring)], [true, false, true]);
  // five seconds have passed on the way, for its clock too
  const late = to.hv.clock.now() + to.d.timeOffsetNs - system;
  assert.ok(late > 4.9e9 && late < 8e9, `${late}`);
  const { dv } = to.hv.views, at = its.vcpuInfo + VcpuInfo.time.at, tsc = BigInt(to.hv.clock.now()) + CPU.tscAdjust.get(dv, its.context);
  assert.ok(Math.abs(Number(BigInt.asIntN(64, tsc - VcpuTimeInfo.tsc_timestamp.get(dv, at))) - (to.hv.clock.now() + to.d.timeOffsetNs)) < 1e8);
  assert.ok(Math.abs(its.deadline("singleshot") - (to.hv.clock.now() + 55e9)) < 5e9);
  assert.deepEqual([CPU.nmiMasked.get(dv, its.context), CPU.stiRip.get(dv, its.context) === CPU.rip.get(dv, its.context)], [1, true]);
  // back ends bind and map as they did
  const local = to.dom0.bind(to.d.domid, ports.ring), ring = to.dom0.mapGrant(to.d.domid, 9);
  assert.ok(typeof ring !== "number" && ring.at === to.d.p2m.mfn(RING) << 12);
  to.dom0.unmapGrant(ring);
  to.dom0.closePort(local);
  // and the next machine would be told the same
  const again = guestState(to.d), plain = ({ pages: _, vcpus, ...rest }: typeof again) => ({ ...rest, vcpus: vcpus.map(({ isBlocked: __, runstateNs: ___, ...x }) => x) });
  assert.deepEqual(plain(again), plain(guest.state));
  f.done();
  to.done();
});
test("the queue of events goes on where it was: what comes there is behind what waited", () => {
  const { f, ports } = lived(), { d } = f, { LINKED, LINK_MASK, PENDING } = EVENT_WORD;
  // the guest has taken what waited
  for (const port of [ports.ring]) f.hv.views.i32[(d.p2m.mfn(WORDS) << 10) + port] = 0;
  send(d, ports.ipi);
  const to = arrived(f), word = (port: number): number => to.hv.views.i32[(to.d.p2m.mfn(WORDS) << 10) + port]!;
  setGuestState(to.d, parseGuest(encodeGuest(guestOf(d)), "record").state);
  assert.equal(word(ports.ring) & PENDING, 0, "what was pending in the bitmaps once is not");
  to.dom0.notify(to.dom0.bind(to.d.domid, ports.ring));
  assert.equal(word(ports.ipi) & (PENDING | LINKED | LINK_MASK), (PENDING | LINKED | ports.ring) | 0);
  f.done();
  to.done();
});
test("what cannot go along is said: a port to another domain, a page that was given back", () => {
  const { f } = lived(), { d } = f;
  const port = allocUnbound(d, 7);
  assert.throws(() => guestState(d), (e: Error) => e instanceof NotAsItIs && new RegExp(`its port ${port} leads to domain 7`).test(e.message));
  f.done();
  const other = lived();
  other.f.d.p2m.clear(WORDS);
  assert.throws(() => guestState(other.f.d), /it has given a page back that Xen writes to/);
  other.f.done();
});
test("a damaged state is refused, whatever is damaged, and nothing else happens", () => {
  const { f } = lived(), body = encodeGuest(guestOf(f.d)), length = new DataView(body.buffer, body.byteOffset).getUint32(0, true), text = new TextDecoder().decode(body.subarray(4, 4 + length));
  const put = (json: string): Uint8Array => {
    const bytes = new TextEncoder().encode(json), out = new Uint8Array(4 + bytes.length + body.length - 4 - length);
    new DataView(out.buffer).setUint32(0, bytes.length, true);
    out.set(bytes, 4);
    out.set(body.subarray(4 + length), 4 + bytes.length);
    return out;
  };
  let state = 12345;
  const random = (n: number): number => { state = (Math.imul(state, 1103515245) + 12345) >>> 0; return (state >>> 8) % n; };
  const values = [-1, 0, 1, 2, 127, 4095, 4096, 65535, 2 ** 31, 2 ** 40, 1.5, null, true, "x", "ffffffffffffffff", [], {}];
  /** Every value once another, by the path of keys to it. */
  const change = (o: unknown, n: { left: number }, value: unknown): unknown => {
    if (n.left-- === 0) return value;
    if (Array.isArray(o)) return o.map((x) => change(x, n, value));
    if (typeof o === "object" && o !== null) return Object.fromEntries(Object.entries(o).map(([k, x]) => [k, change(x, n, value)]));
    return o;
  };
  let nrRefused = 0;
  for (let i = 0; i < 400; i++) {
    const to = arrived(f), bytes = put(JSON.stringify(change(JSON.parse(text), { left: 1 + random(160) }, values[random(values.length)])));
    try {
      setGuestState(to.d, parseGuest(bytes, "record 9 (DOMUS_GUEST) at byte 1").state);
    } catch (e) {
      assert.ok(e instanceof UserError, String(e));
      assert.match(e.message, /damaged/);
      nrRefused++;
    }
    to.done();
  }
  assert.ok(nrRefused > 150, `${nrRefused} refused`);
  for (const bytes of [new Uint8Array(0), body.subarray(0, 3), body.subarray(0, length), body.subarray(0, body.length - 1)]) assert.throws(() => parseGuest(bytes, "record"), StreamError);
  const twice = guestState(f.d);
  assert.throws(() => setGuestState(arrived(f).d, { ...twice, callbackVector: 14 }), /14 is no vector of an interrupt/);
  assert.throws(() => setGuestState(arrived(f).d, { ...twice, vcpus: twice.vcpus.slice(1) }), /it is of another domain/);
  assert.throws(() => setGuestState(arrived(f).d, { ...twice, ports: [...twice.ports, { ...twice.ports[0]!, state: EVTCHNSTAT.interdomain }] }), /port \d+; the stream is damaged/);
  f.done();
});
