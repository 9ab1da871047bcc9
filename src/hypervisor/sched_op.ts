/** HYPERVISOR_sched_op - public/sched.h. */
import { EINVAL, ENOSPC, ENOSYS, EPERM } from "../abi/errno.ts";
import { SCHEDOP, SchedPoll, SchedRemoteShutdown, SchedShutdown, SchedWatchdog, SHUTDOWN } from "../abi/sched.ts";
import { VcpuInfo } from "../abi/xen.ts";
import { EXIT } from "../x86/state.ts";
import { type Args, type Call, copyIn, self } from "./call.ts";
import { chnAt, isPending } from "./event_channel.ts";
import { DOMAIN, VCPU, VPF } from "./objects.ts";
import { WATCHDOGS } from "./scheduler.ts";

/** Sleep until an event; not at all when one waits already. */
function block(c: Call): number {
  const at = c.v.vcpuInfo;
  if (at !== 0) Atomics.store(c.hv.views.u8, at + VcpuInfo.evtchn_upcall_mask.at, 0);
  c.hv.or(VCPU.pauseFlags, c.v.at, VPF.blocked);
  if (c.hasDeliverable()) c.hv.and(VCPU.pauseFlags, c.v.at, ~VPF.blocked);
  else c.leave(EXIT.yield);
  return 0;
}
function poll(c: Call, arg: bigint): number {
  const p = copyIn(c, arg, SchedPoll.sizeof), nr = SchedPoll.nr_ports.get(p, 0), timeout = Number(SchedPoll.timeout.get(p, 0)), { hv, v } = c;
  if (nr > 128) return -EINVAL;
  const ports = nr === 0 ? null : copyIn(c, SchedPoll.ports.get(p, 0), nr * 4);
  /* poll first, look then: an event between the two wakes us at once */
  hv.store(VCPU.pollPort, v.at, ports && nr === 1 ? ports.getUint32(0, true) : -1);
  hv.or(VCPU.pauseFlags, v.at, VPF.blocked | VPF.polling);
  let rc = 0, ready = false;
  for (let i = 0; ports && i < nr && rc === 0 && !ready; i++) {
    const port = ports.getUint32(i * 4, true);
    if (chnAt(c.d, port) === 0) rc = -EINVAL;
    else ready = isPending(c.d, port);
  }
  if (rc !== 0 || ready || c.hasDeliverable()) {
    hv.and(VCPU.pauseFlags, v.at, ~(VPF.blocked | VPF.polling));
    return rc;
  }
  if (timeout !== 0) v.setDeadline("pollDeadline", Math.max(1, timeout - c.d.timeOffsetNs));
  c.leave(EXIT.yield);
  return 0;
}
function shutdown(c: Call, arg: bigint): number {
  const reason = SchedShutdown.reason.get(copyIn(c, arg, SchedShutdown.sizeof), 0);
  if (reason > SHUTDOWN.MAX) return -EINVAL;
  c.d.shutdown(reason);
  c.leave(EXIT.shutdown);
  return 0;
}

/** id 0: a new one, its id is the answer; timeout 0 s: disarm. One that is not reset in time shuts the domain down. */
function watchdog(c: Call, arg: bigint): number {
  const w = copyIn(c, arg, SchedWatchdog.sizeof), id = SchedWatchdog.id.get(w, 0), timeoutS = SchedWatchdog.timeout.get(w, 0), keeper = c.d.vcpu(0);
  if (!keeper || id > WATCHDOGS.length || (id === 0 && timeoutS === 0)) return -EINVAL;
  const index = id === 0 ? WATCHDOGS.findIndex((which) => keeper.deadline(which) === 0) : id - 1, which = WATCHDOGS[index];
  if (which === undefined) return -ENOSPC;
  if (id !== 0 && keeper.deadline(which) === 0) return -EINVAL;
  keeper.setDeadline(which, timeoutS === 0 ? 0 : c.hv.clock.now() + timeoutS * 1e9);
  return id === 0 ? index + 1 : 0;
}

type Op = (c: Call, arg: bigint) => number;
const OPS: Readonly<Record<number, Op>> = {
  [SCHEDOP.yield]: (c) => { c.leave(EXIT.yield); return 0; },
  [SCHEDOP.block]: block,
  [SCHEDOP.shutdown]: shutdown,
  [SCHEDOP.poll]: (c, arg) => (c.is32 ? -ENOSYS : poll(c, arg)),
  [SCHEDOP.remote_shutdown]: (c, arg) => {
    self(c, SchedRemoteShutdown.domain_id.get(copyIn(c, arg, SchedRemoteShutdown.sizeof), 0));
    return -EPERM;
  },
  [SCHEDOP.shutdown_code]: (c, arg) => {
    const reason = SchedShutdown.reason.get(copyIn(c, arg, SchedShutdown.sizeof), 0);
    if (reason > SHUTDOWN.MAX) return -EINVAL;
    if (c.hv.load(DOMAIN.presetCode, c.d.at) === 0) c.hv.store(DOMAIN.presetCode, c.d.at, 1 + reason);
    return 0;
  },
  [SCHEDOP.watchdog]: watchdog,
  [SCHEDOP.pin_override]: () => -EPERM,
};
/** HYPERVISOR_sched_op(cmd, arg). */
export function doSchedOp(c: Call, a: Args): number { return OPS[a.n(0)]?.(c, a.p(1)) ?? -ENOSYS; }
/** The first form of it: block and yield only, shutdown with the reason as argument. */
export function doSchedOpCompat(c: Call, a: Args): number {
  switch (a.n(0)) {
    case SCHEDOP.yield: c.leave(EXIT.yield); return 0;
    case SCHEDOP.block: return block(c);
    case SCHEDOP.shutdown: c.d.shutdown(Math.min(a.n(1) & 0xff, SHUTDOWN.MAX)); c.leave(EXIT.shutdown); return 0;
    default: return -ENOSYS;
  }
}
