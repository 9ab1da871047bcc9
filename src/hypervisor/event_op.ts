/** HYPERVISOR_event_channel_op: arguments in, one function of event_channel.ts, the port out - public/event_channel.h. */
import { EINVAL, ENOSYS } from "../abi/errno.ts";
import * as E from "../abi/event_channel.ts";
import { EVTCHNOP, EVTCHNSTAT, EvtchnOp } from "../abi/event_channel.ts";
import type { Field } from "../base/struct.ts";
import { DOMID } from "../abi/xen.ts";
import { type Args, type Call, copyFieldOut, copyIn, copyOut, num, self } from "./call.ts";
import * as events from "./event_channel.ts";
import { expandArray, initControl } from "./event_fifo.ts";

type Op = (c: Call, arg: bigint) => number;
/** An operation that answers with a port in a field of its struct. A port that cannot be told is closed again. */
const binding = (sizeof: number, port: Field<number>, bind: (c: Call, s: DataView) => number): Op => (c, arg) => {
  const s = copyIn(c, arg, sizeof), found = bind(c, s);
  if (found < 0) return found;
  port.set(s, 0, found);
  try { copyFieldOut(c, arg, s, port); } catch (e) { events.close(c.d, found); throw e; }
  return 0;
};
const domidOf = (c: Call, domid: number): number => (domid === DOMID.SELF ? c.d.domid : domid);

function status(c: Call, arg: bigint): number {
  const s = copyIn(c, arg, E.EvtchnStatus.sizeof), d = self(c, E.EvtchnStatus.dom.get(s, 0)), found = events.status(d, E.EvtchnStatus.port.get(s, 0));
  if (typeof found === "number") return found;
  E.EvtchnStatus.status.set(s, 0, found.state);
  E.EvtchnStatus.vcpu.set(s, 0, found.vcpu);
  if (found.state === EVTCHNSTAT.unbound) E.EvtchnStatusUnbound.dom.set(s, 0, found.remoteDomid);
  else if (found.state === EVTCHNSTAT.interdomain) {
    E.EvtchnStatusInterdomain.dom.set(s, 0, found.remoteDomid);
    E.EvtchnStatusInterdomain.port.set(s, 0, found.remotePort);
  } else if (found.state === EVTCHNSTAT.virq) E.EvtchnStatusVirq.virq.set(s, 0, found.virq);
  copyOut(c, arg, s);
  return 0;
}
const onPort = (act: (d: Call["d"], port: number) => number): Op => (c, arg) => act(c.d, copyIn(c, arg, 4).getUint32(0, true));

const OPS: Readonly<Record<number, Op>> = {
  [EVTCHNOP.alloc_unbound]: binding(E.EvtchnAllocUnbound.sizeof, E.EvtchnAllocUnbound.port, (c, s) =>
    events.allocUnbound(self(c, E.EvtchnAllocUnbound.dom.get(s, 0)), domidOf(c, E.EvtchnAllocUnbound.remote_dom.get(s, 0)))),
  [EVTCHNOP.bind_interdomain]: binding(E.EvtchnBindInterdomain.sizeof, E.EvtchnBindInterdomain.local_port, (c, s) =>
    events.bindInterdomain(c.d, domidOf(c, E.EvtchnBindInterdomain.remote_dom.get(s, 0)), E.EvtchnBindInterdomain.remote_port.get(s, 0))),
  [EVTCHNOP.bind_virq]: binding(E.EvtchnBindVirq.sizeof, E.EvtchnBindVirq.port, (c, s) =>
    events.bindVirq(c.d, E.EvtchnBindVirq.virq.get(s, 0), E.EvtchnBindVirq.vcpu.get(s, 0))),
  [EVTCHNOP.bind_ipi]: binding(E.EvtchnBindIpi.sizeof, E.EvtchnBindIpi.port, (c, s) => events.bindIpi(c.d, E.EvtchnBindIpi.vcpu.get(s, 0))),
  [EVTCHNOP.bind_pirq]: (c, arg) => { copyIn(c, arg, E.EvtchnBindPirq.sizeof); return -EINVAL; }, /* no physical interrupts here */
  [EVTCHNOP.close]: onPort(events.close),
  [EVTCHNOP.send]: onPort(events.send),
  [EVTCHNOP.unmask]: onPort(events.unmask),
  [EVTCHNOP.status]: status,
  [EVTCHNOP.bind_vcpu]: (c, arg) => {
    const s = copyIn(c, arg, E.EvtchnBindVcpu.sizeof);
    return events.bindVcpu(c.d, E.EvtchnBindVcpu.port.get(s, 0), E.EvtchnBindVcpu.vcpu.get(s, 0));
  },
  [EVTCHNOP.reset]: (c, arg) => events.reset(self(c, copyIn(c, arg, E.EvtchnReset.sizeof).getUint16(0, true))),
  [EVTCHNOP.init_control]: (c, arg) => {
    const s = copyIn(c, arg, E.EvtchnInitControl.sizeof), C = E.EvtchnInitControl;
    const gfn = num(C.control_gfn.get(s, 0));
    c.awaitFrame(gfn);
    const rc = initControl(c.d, C.vcpu.get(s, 0), gfn, C.offset.get(s, 0));
    if (rc !== 0) return rc;
    C.link_bits.set(s, 0, E.EVTCHN_FIFO.LINK_BITS);
    copyOut(c, arg, s);
    return 0;
  },
  [EVTCHNOP.expand_array]: (c, arg) => {
    const gfn = num(E.EvtchnExpandArray.array_gfn.get(copyIn(c, arg, E.EvtchnExpandArray.sizeof), 0));
    c.awaitFrame(gfn);
    return expandArray(c.d, gfn);
  },
  [EVTCHNOP.set_priority]: (c, arg) => {
    const s = copyIn(c, arg, E.EvtchnSetPriority.sizeof);
    return events.setPriority(c.d, E.EvtchnSetPriority.port.get(s, 0), E.EvtchnSetPriority.priority.get(s, 0));
  },
};
/** What a 32-bit guest may call: structs of fixed-size fields. */
const SAME_IN_32 = new Set<number>([EVTCHNOP.alloc_unbound, EVTCHNOP.bind_interdomain, EVTCHNOP.bind_virq, EVTCHNOP.bind_ipi, EVTCHNOP.close, EVTCHNOP.send,
  EVTCHNOP.unmask, EVTCHNOP.status, EVTCHNOP.bind_vcpu, EVTCHNOP.reset, EVTCHNOP.init_control, EVTCHNOP.expand_array, EVTCHNOP.set_priority]);
/** HYPERVISOR_event_channel_op(cmd, arg). */
export function doEventChannelOp(c: Call, a: Args): number {
  const cmd = a.n(0);
  if (c.is32 && !SAME_IN_32.has(cmd)) return -ENOSYS;
  return OPS[cmd]?.(c, a.p(1)) ?? -ENOSYS;
}
/** The old form: one struct with the command and its arguments. */
export function doEventChannelOpCompat(c: Call, a: Args): number {
  return OPS[copyIn(c, a.p(0), EvtchnOp.sizeof).getUint32(0, true)]?.(c, a.p(0) + BigInt(EvtchnOp.u.at)) ?? -ENOSYS;
}
