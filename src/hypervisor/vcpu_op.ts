/** HYPERVISOR_vcpu_op and set_timer_op - public/vcpu.h. */
import { EEXIST, EINVAL, ENOENT, ENOSYS, ETIME } from "../abi/errno.ts";
import {
  RUNSTATE, VCPU_SSHOTTMR, VCPUOP, VcpuRegisterRunstateMemoryArea, VcpuRegisterTimeMemoryArea, VcpuRegisterVcpuInfo, VcpuRunstateInfo,
  VcpuSetPeriodicTimer, VcpuSetSingleshotTimer, XEN_RUNSTATE_UPDATE,
} from "../abi/vcpu.ts";
import { VcpuInfo, VcpuTimeInfo, VMASST_TYPE } from "../abi/xen.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { type Args, type Call, copyIn, copyOut, type GuestAccess, num } from "./call.ts";
import { timeInfo } from "./clock.ts";
import { assertUpcall } from "./event_channel.ts";
import { pinGuestFrame } from "./guest_frame.ts";
import { DOMAIN, VCPU, VPF } from "./objects.ts";
import { EXIT } from "../x86/state.ts";
import type { Vcpu } from "./vcpu.ts";

/** A vcpu_runstate_info as of now. */
function runstateInfo(v: Vcpu, next?: number): DataView<ArrayBuffer> {
  const now = v.hv.clock.now(), { state, entry, time } = v.hv.scheduler.runstateOf(v), info = new DataView(new ArrayBuffer(VcpuRunstateInfo.sizeof));
  VcpuRunstateInfo.state.set(info, 0, next ?? state);
  VcpuRunstateInfo.state_entry_time.set(info, 0, BigInt(Math.floor((next === undefined ? entry : now) + v.domain.timeOffsetNs)));
  for (const s of Object.values(RUNSTATE)) {
    const ns = (time[s] as number) + (s === state ? Math.max(0, now - entry) : 0);
    info.setBigUint64(VcpuRunstateInfo.time.at + s * 8, BigInt(Math.floor(ns)), true);
  }
  return info;
}
/**
 * Tell the guest, where it asked for it, what state its vCPU is in. Called as the vCPU is switched in, and out: others look whether it runs before
 * they wait for it. A bad address is the guest's own loss, and a page that is on its way is not waited for: the next switch writes it. @param next the state it is about to be in
 */
export function writeRunstate(v: Vcpu, guest: GuestAccess, next?: number): void {
  const area = v.hv.get(VCPU.runstateArea, v.at);
  if (area === 0n) return;
  const info = runstateInfo(v, next), bytes = new Uint8Array(info.buffer), E = VcpuRunstateInfo.state_entry_time;
  if (v.hv.get(DOMAIN.vmAssist, v.domain.at) & (1 << VMASST_TYPE.runstate_update_flag)) {
    const entry = E.get(info, 0), when = bytes.subarray(E.at, E.at + E.size);
    E.set(info, 0, entry | XEN_RUNSTATE_UPDATE);
    if (!guest.writeLinear(area + BigInt(E.at), when, true)) return;
    if (!guest.writeLinear(area, bytes, true)) return;
    E.set(info, 0, entry);
    guest.writeLinear(area + BigInt(E.at), when, true);
  } else guest.writeLinear(area, bytes, true);
}
/** The same for the second copy of the time, for user space. */
export function writeTimeArea(v: Vcpu, guest: GuestAccess): void {
  const area = v.hv.get(VCPU.timeArea, v.at);
  if (area === 0n) return;
  const time = new DataView(new ArrayBuffer(VcpuTimeInfo.sizeof)), bytes = new Uint8Array(time.buffer);
  const version = Math.floor(v.hv.clock.now() / 1000) % 0x3fffffff * 2;
  timeInfo(time, 0, version + 1, v.tscAtZero);
  if (!guest.writeLinear(area, bytes)) return;
  VcpuTimeInfo.version.set(time, 0, version + 2);
  guest.writeLinear(area, bytes.subarray(0, 4));
}

function registerVcpuInfo(c: Call, v: Vcpu, arg: bigint): number {
  const r = copyIn(c, arg, VcpuRegisterVcpuInfo.sizeof), offset = VcpuRegisterVcpuInfo.offset.get(r, 0), { hv } = c;
  if (offset > 4096 - VcpuInfo.sizeof || offset & 3) return -EINVAL;
  if (hv.get(VCPU.vcpuInfoMfn, v.at) !== 0 || (v !== c.v && v.isUp)) return -EINVAL;
  const gfn = num(VcpuRegisterVcpuInfo.mfn.get(r, 0));
  c.awaitFrame(gfn);
  const mfn = pinGuestFrame(c.d, gfn);
  if (mfn === 0) return -EINVAL;
  const at = ((mfn << 12) >>> 0) + offset, old = v.vcpuInfo, { u8, i32 } = hv.views;
  if (old !== 0) u8.copyWithin(at, old, old + VcpuInfo.sizeof);
  else u8.fill(0, at, at + VcpuInfo.sizeof);
  hv.codeWritten(mfn, hv.mm.frames.noteWrite(mfn));
  hv.set(VCPU.vcpuInfoMfn, v.at, mfn);
  hv.store(VCPU.vcpuInfo, v.at, at | 0);
  /* an event between the copy and now would be lost: call everything pending */
  Atomics.store(u8, at + VcpuInfo.evtchn_upcall_pending.at, 1);
  Atomics.store(i32, (at + VcpuInfo.evtchn_pending_sel.at) >>> 2, -1);
  Atomics.store(i32, (at + VcpuInfo.evtchn_pending_sel.at + 4) >>> 2, -1);
  v.writeTime(hv.get(VCPU.timeAdjust, v.at));
  assertUpcall(v);
  return 0;
}
function setSingleshot(c: Call, v: Vcpu, arg: bigint): number {
  if (v !== c.v) return -EINVAL;
  const s = copyIn(c, arg, VcpuSetSingleshotTimer.sizeof), timeout = num(VcpuSetSingleshotTimer.timeout_abs_ns.get(s, 0));
  if (VcpuSetSingleshotTimer.flags.get(s, 0) & VCPU_SSHOTTMR.future && timeout - c.d.timeOffsetNs < c.hv.clock.now()) return -ETIME;
  setTimer(c, v, timeout);
  return 0;
}
/** @param ns of the guest's system time */
function setTimer(c: Call, v: Vcpu, ns: number): void {
  if (c.hv.trace.on & TRACE_CLASS.timer) c.hv.trace.emit(TRACE.timerSet, c.d.domid, v.id, 1, ns | 0, Math.floor(ns / 2 ** 32));
  v.setDeadline("singleshot", Math.max(1, ns - c.d.timeOffsetNs));
}

type Op = (c: Call, v: Vcpu, arg: bigint) => number;
const OPS: Readonly<Record<number, Op>> = {
  [VCPUOP.register_vcpu_info]: registerVcpuInfo,
  [VCPUOP.register_runstate_memory_area]: (c, v, arg) => {
    c.hv.set(VCPU.runstateArea, v.at, VcpuRegisterRunstateMemoryArea.addr.get(copyIn(c, arg, VcpuRegisterRunstateMemoryArea.sizeof), 0));
    if (v === c.v) writeRunstate(v, c.guest);
    return 0;
  },
  [VCPUOP.get_runstate_info]: (c, v, arg) => { copyOut(c, arg, runstateInfo(v)); return 0; },
  [VCPUOP.register_vcpu_time_memory_area]: (c, v, arg) => {
    c.hv.set(VCPU.timeArea, v.at, VcpuRegisterTimeMemoryArea.addr.get(copyIn(c, arg, VcpuRegisterTimeMemoryArea.sizeof), 0));
    if (v === c.v) writeTimeArea(v, c.guest);
    return 0;
  },
  [VCPUOP.set_periodic_timer]: (c, v, arg) => {
    const period = num(VcpuSetPeriodicTimer.period_ns.get(copyIn(c, arg, VcpuSetPeriodicTimer.sizeof), 0));
    if (period < 1_000_000 || period > 2 ** 62) return -EINVAL;
    c.hv.set(VCPU.periodicPeriod, v.at, period);
    v.setDeadline("periodicNext", c.hv.clock.now() + period);
    return 0;
  },
  [VCPUOP.stop_periodic_timer]: (_c, v) => { v.setDeadline("periodicNext", 0); return 0; },
  [VCPUOP.set_singleshot_timer]: setSingleshot,
  [VCPUOP.stop_singleshot_timer]: (c, v) => {
    if (v !== c.v) return -EINVAL;
    v.setDeadline("singleshot", 0);
    return 0;
  },
  [VCPUOP.is_up]: (_c, v) => (v.isUp ? 1 : 0),
  [VCPUOP.up]: (c, v) => {
    if (v.isUp) return 0;
    if (c.hv.get(VCPU.isInitialised, v.at) === 0) return -EINVAL;
    c.hv.and(VCPU.pauseFlags, v.at, ~VPF.down);
    c.hv.scheduler.wake(v);
    return 0;
  },
  [VCPUOP.down]: (c, v) => {
    c.hv.scheduler.putDown(v);
    if (v === c.v) c.leave(EXIT.yield);
    return 0;
  },
  [VCPUOP.initialise]: (c, v) => (c.hv.get(VCPU.isInitialised, v.at) ? -EEXIST : -ENOSYS),
  [VCPUOP.send_nmi]: (_c, v, arg) => {
    if (arg !== 0n) return -EINVAL;
    v.sendNmi();
    return 0;
  },
  [VCPUOP.get_physid]: () => -EINVAL, /* for vCPUs pinned to a pCPU */
};
/** HYPERVISOR_vcpu_op(cmd, vcpu, arg). */
export function doVcpuOp(c: Call, a: Args): number {
  const v = c.d.vcpu(a.n(1));
  if (!v) return -ENOENT;
  return OPS[a.n(0)]?.(c, v, a.p(2)) ?? -ENOSYS;
}
/** The older timer call: absolute system time in ns, 0 to stop. */
export function doSetTimerOp(c: Call, a: Args): number {
  const timeout = c.is32 ? a.n(1) * 2 ** 32 + a.n(0) : num(BigInt.asIntN(64, a.p(0)));
  if (timeout <= 0) c.v.setDeadline("singleshot", 0);
  else setTimer(c, c.v, timeout);
  return 0;
}
