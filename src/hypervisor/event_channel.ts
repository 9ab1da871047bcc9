/**
 * Event channels: the ports of a domain and what they are bound to. How a pending port is shown to the guest is its ABI's business
 * (event_2l.ts, event_fifo.ts). All of a port's state is under its domain's eventLock; two domains are locked in order of domid.
 * @see public/event_channel.h
 */
import { EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, ENOSYS, ESRCH } from "../abi/errno.ts";
import { EVTCHN_FIFO_PRIORITY, EVTCHNSTAT } from "../abi/event_channel.ts";
import { NR_VIRQS, VcpuInfo, VIRQ } from "../abi/xen.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import type { Domain } from "./domain.ts";
import { twoLevel } from "./event_2l.ts";
import { destroyFifo, fifo } from "./event_fifo.ts";
import { lapicSetIrq } from "./lapic.ts";
import { DOMAIN, EVTCHN, EVTCHN_ABI, EVTCHNS_PER_BUCKET, VCPU, VPF } from "./objects.ts";
import type { Vcpu } from "./vcpu.ts";

/** How ports are shown to a guest. `v`: the vCPU a port notifies; `chn`: address of its EVTCHN. All under eventLock. */
export interface PortAbi {
  nrChannels: number;
  /** @returns whether it was not pending before */
  setPending(v: Vcpu, port: number, chn: number): boolean;
  clearPending(d: Domain, port: number): void;
  unmask(v: Vcpu, port: number, chn: number): void;
  isPending(d: Domain, port: number): boolean;
  isMasked(d: Domain, port: number): boolean;
  /** still in a queue of the guest's: not to be given to a new owner */
  isBusy(d: Domain, port: number): boolean;
}
/** EVTCHN.state beyond EVTCHNSTAT: port 0. */
const RESERVED = 6;
const ARRAY = { at: 0 };
/** The ABI the domain has chosen. */
export const portAbi = (d: Domain): PortAbi => (d.hv.load(DOMAIN.evtchnAbi, d.at) === EVTCHN_ABI.fifo ? fifo : twoLevel);

/** Address of a port's EVTCHN, or 0 for a number that is no port. */
export function chnAt(d: Domain, port: number): number {
  if (!(port >= 0 && port < d.hv.get(DOMAIN.nrPorts, d.at))) return 0;
  return d.hv.word(ARRAY, d.hv.get(DOMAIN.evtchnBuckets, d.at), Math.floor(port / EVTCHNS_PER_BUCKET)) + (port % EVTCHNS_PER_BUCKET) * EVTCHN.sizeof;
}
function addBucket(d: Domain): void {
  const { hv } = d, nr = hv.get(DOMAIN.nrPorts, d.at), bucket = hv.allocPage();
  for (let i = 0; i < EVTCHNS_PER_BUCKET; i++) EVTCHN.priority.set(hv.views.dv, bucket + i * EVTCHN.sizeof, EVTCHN_FIFO_PRIORITY.DEFAULT);
  hv.setWord(ARRAY, hv.get(DOMAIN.evtchnBuckets, d.at), nr / EVTCHNS_PER_BUCKET, bucket);
  hv.store(DOMAIN.nrPorts, d.at, nr + EVTCHNS_PER_BUCKET);
}
/** The first bucket; port 0 is nobody's. */
export function initPorts(d: Domain): void {
  addBucket(d);
  EVTCHN.state.set(d.hv.views.dv, chnAt(d, 0), RESERVED);
}
/** A closed port, its EVTCHN in its first state. @returns the port or -errno */
function freePort(d: Domain): number {
  const { hv } = d, abi = portAbi(d), end = Math.min(hv.get(DOMAIN.maxEvtchnPort, d.at) + 1, abi.nrChannels);
  for (let port = 1; port < end; port++) {
    if (port >= hv.get(DOMAIN.nrPorts, d.at)) {
      try {
        addBucket(d);
      } catch (e) {
        if (e instanceof MachineMemoryExhausted) return -ENOMEM;
        throw e;
      }
    }
    if (EVTCHN.state.get(hv.views.dv, chnAt(d, port)) === EVTCHNSTAT.closed && !abi.isBusy(d, port)) return port;
  }
  return -ENOSPC;
}
/** Hold the domain's eventLock. Dom0 hears of its events afterwards. */
function locked<T>(d: Domain, section: () => T): T {
  const result = d.hv.withLock(DOMAIN.eventLock, d.at, section);
  d.hv.ringDom0();
  return result;
}
function lockedBoth<T>(a: Domain, b: Domain, section: () => T): T {
  if (a.at === b.at) return locked(a, section);
  const [first, second] = a.domid < b.domid ? [a, b] : [b, a];
  return locked(first, () => second.hv.withLock(DOMAIN.eventLock, second.at, section));
}

// Showing events ---------------------------------------------------------------
/** Say that some port of the vCPU wants looking at. */
export function markEventsPending(v: Vcpu): void {
  const at = v.vcpuInfo;
  if (at === 0 || Atomics.exchange(v.hv.views.u8, at + VcpuInfo.evtchn_upcall_pending.at, 1) !== 0) return;
  assertUpcall(v);
}
/** Bring the upcall to the vCPU: through its local APIC where it asked for that, else the callback vector is found pending. */
export function assertUpcall(v: Vcpu): void {
  if (v.domain.domid === 0) return v.hv.noteDom0();
  const vector = v.hv.get(VCPU.upcallVector, v.at);
  if (vector !== 0) lapicSetIrq(v, vector);
  else v.kick();
}
/** Make a port pending. Under eventLock. */
function setPending(d: Domain, port: number, chn: number): void {
  const v = d.vcpu(EVTCHN.notifyVcpu.get(d.hv.views.dv, chn));
  if (!v) return;
  if (d.hv.trace.on & TRACE_CLASS.event) d.hv.trace.emit(TRACE.evtchnPending, d.domid, v.id, port, v.id);
  if (portAbi(d).setPending(v, port, chn)) wakePollers(d, port);
}
function wakePollers(d: Domain, port: number): void {
  for (const v of d.vcpus()) {
    if (!(v.pauseFlags & VPF.polling)) continue;
    const polls = d.hv.load(VCPU.pollPort, v.at) >>> 0;
    if (polls === port || polls === 0xffffffff) v.kick();
  }
}
/** Raise a virtual interrupt that is one a vCPU. */
export function sendVcpuVirq(v: Vcpu, virq: number): void {
  locked(v.domain, () => {
    const port = v.hv.word(VCPU.virqToEvtchn, v.at, virq), chn = port ? chnAt(v.domain, port) : 0;
    if (chn) setPending(v.domain, port, chn);
  });
}

// Operations; each returns 0, a port, or -errno ----------------------------------
/** @param remote_dom who may bind to it */
export function allocUnbound(d: Domain, remote_dom: number): number {
  return locked(d, () => {
    const port = freePort(d), { dv } = d.hv.views;
    if (port < 0) return port;
    const chn = chnAt(d, port);
    EVTCHN.state.set(dv, chn, EVTCHNSTAT.unbound);
    EVTCHN.remoteDomid.set(dv, chn, remote_dom);
    return port;
  });
}
/** EVTCHNOP_bind_interdomain: to an unbound port of the other domain that is meant for this one. */
export function bindInterdomain(d: Domain, remote_dom: number, remote_port: number): number {
  const rd = d.hv.domain(remote_dom), { dv } = d.hv.views;
  if (!rd || rd.isDying) return -ESRCH;
  return lockedBoth(d, rd, () => {
    const port = freePort(d);
    if (port < 0) return port;
    const rchn = chnAt(rd, remote_port);
    if (rchn === 0 || EVTCHN.state.get(dv, rchn) !== EVTCHNSTAT.unbound || EVTCHN.remoteDomid.get(dv, rchn) !== d.domid) return -EINVAL;
    const lchn = chnAt(d, port);
    for (const [chn, domid, other] of [[lchn, rd.domid, remote_port], [rchn, d.domid, port]] as const) {
      EVTCHN.remoteDomid.set(dv, chn, domid);
      EVTCHN.remotePort.set(dv, chn, other);
      EVTCHN.state.set(dv, chn, EVTCHNSTAT.interdomain);
    }
    setPending(d, port, lchn); /* what was sent to the unbound port is lost: look once */
    return port;
  });
}
const isVcpuVirq = (virq: number): boolean => virq === VIRQ.TIMER || virq === VIRQ.DEBUG || virq === VIRQ.XENOPROF || virq === VIRQ.XENPMU;
/** EVTCHNOP_bind_virq. */
export function bindVirq(d: Domain, virq: number, vcpuId: number): number {
  if (virq >= NR_VIRQS || (!isVcpuVirq(virq) && vcpuId !== 0)) return -EINVAL;
  const v = d.vcpu(vcpuId), { dv } = d.hv.views;
  if (!v) return -ENOENT;
  return locked(d, () => {
    if (d.hv.word(VCPU.virqToEvtchn, v.at, virq) !== 0) return -EEXIST;
    const port = freePort(d);
    if (port < 0) return port;
    const chn = chnAt(d, port);
    EVTCHN.state.set(dv, chn, EVTCHNSTAT.virq);
    EVTCHN.notifyVcpu.set(dv, chn, vcpuId);
    EVTCHN.virq.set(dv, chn, virq);
    d.hv.setWord(VCPU.virqToEvtchn, v.at, virq, port);
    return port;
  });
}
/** EVTCHNOP_bind_ipi. */
export function bindIpi(d: Domain, vcpuId: number): number {
  if (!d.vcpu(vcpuId)) return -ENOENT;
  return locked(d, () => {
    const port = freePort(d);
    if (port < 0) return port;
    const chn = chnAt(d, port);
    EVTCHN.state.set(d.hv.views.dv, chn, EVTCHNSTAT.ipi);
    EVTCHN.notifyVcpu.set(d.hv.views.dv, chn, vcpuId);
    return port;
  });
}
/** EVTCHNOP_bind_vcpu: which vCPU the port notifies. */
export function bindVcpu(d: Domain, port: number, vcpuId: number): number {
  if (!d.vcpu(vcpuId)) return -ENOENT;
  return locked(d, () => {
    const chn = chnAt(d, port), { dv } = d.hv.views;
    if (chn === 0) return -EINVAL;
    const state = EVTCHN.state.get(dv, chn);
    const movable = state === EVTCHNSTAT.unbound || state === EVTCHNSTAT.interdomain || (state === EVTCHNSTAT.virq && !isVcpuVirq(EVTCHN.virq.get(dv, chn)));
    if (!movable) return -EINVAL;
    EVTCHN.notifyVcpu.set(dv, chn, vcpuId);
    return 0;
  });
}
/** EVTCHNOP_close; the other end of an interdomain port becomes unbound. */
export function close(d: Domain, port: number): number {
  const { dv } = d.hv.views;
  for (;;) {
    const chn = chnAt(d, port);
    if (chn === 0) return -EINVAL;
    const state = EVTCHN.state.get(dv, chn), rd = state === EVTCHNSTAT.interdomain ? d.hv.domain(EVTCHN.remoteDomid.get(dv, chn)) : null;
    const done = lockedBoth(d, rd ?? d, () => {
      const now = EVTCHN.state.get(dv, chn);
      if (now === EVTCHNSTAT.closed || now === RESERVED) return -EINVAL;
      if (now === EVTCHNSTAT.interdomain) {
        if (!rd || rd.domid !== EVTCHN.remoteDomid.get(dv, chn)) return state === EVTCHNSTAT.interdomain ? free(d, port, chn) : null;
        const rchn = chnAt(rd, EVTCHN.remotePort.get(dv, chn));
        if (rchn && EVTCHN.state.get(dv, rchn) === EVTCHNSTAT.interdomain && EVTCHN.remotePort.get(dv, rchn) === port) EVTCHN.state.set(dv, rchn, EVTCHNSTAT.unbound);
      } else if (now === EVTCHNSTAT.virq) {
        for (const v of d.vcpus()) {
          const virq = EVTCHN.virq.get(dv, chn);
          if (d.hv.word(VCPU.virqToEvtchn, v.at, virq) === port) d.hv.setWord(VCPU.virqToEvtchn, v.at, virq, 0);
        }
      }
      return free(d, port, chn);
    });
    if (done !== null) return done; /* null: it was bound while we looked for the other end */
  }
}
function free(d: Domain, port: number, chn: number): number {
  const { dv } = d.hv.views;
  portAbi(d).clearPending(d, port);
  EVTCHN.state.set(dv, chn, EVTCHNSTAT.closed);
  EVTCHN.pending.set(dv, chn, 0);
  EVTCHN.notifyVcpu.set(dv, chn, 0);
  EVTCHN.priority.set(dv, chn, EVTCHN_FIFO_PRIORITY.DEFAULT);
  return 0;
}
/** EVTCHNOP_send; sending to a port nobody has bound is no error. */
export function send(d: Domain, port: number): number {
  const { dv } = d.hv.views;
  let remote = -1, remotePort = 0;
  const r = locked(d, () => {
    const chn = chnAt(d, port);
    if (chn === 0) return -EINVAL;
    switch (EVTCHN.state.get(dv, chn)) {
      case EVTCHNSTAT.interdomain:
        remote = EVTCHN.remoteDomid.get(dv, chn);
        remotePort = EVTCHN.remotePort.get(dv, chn);
        return 0;
      case EVTCHNSTAT.ipi: setPending(d, port, chn); return 0;
      case EVTCHNSTAT.unbound: return 0;
      default: return -EINVAL;
    }
  });
  const rd = remote >= 0 ? d.hv.domain(remote) : null;
  if (!rd) return r;
  if (d.hv.trace.on & TRACE_CLASS.event) d.hv.trace.emit(TRACE.evtchnSend, d.domid, 0, port, remote, remotePort);
  locked(rd, () => {
    const rchn = chnAt(rd, remotePort);
    const stillOurs = rchn !== 0 && EVTCHN.state.get(dv, rchn) === EVTCHNSTAT.interdomain && EVTCHN.remoteDomid.get(dv, rchn) === d.domid
      && EVTCHN.remotePort.get(dv, rchn) === port;
    if (stillOurs) setPending(rd, remotePort, rchn);
  });
  return 0;
}
/** EVTCHNOP_unmask. */
export function unmask(d: Domain, port: number): number {
  return locked(d, () => {
    const chn = chnAt(d, port), v = chn ? d.vcpu(EVTCHN.notifyVcpu.get(d.hv.views.dv, chn)) : null;
    if (!v) return -EINVAL;
    portAbi(d).unmask(v, port, chn);
    return 0;
  });
}
/** What EVTCHNOP_status tells; fields beyond the state hold for some states only. */
export type PortStatus = { state: number; vcpu: number; remoteDomid: number; remotePort: number; virq: number };
/** EVTCHNOP_status. */
export function status(d: Domain, port: number): PortStatus | number {
  return locked(d, () => {
    const chn = chnAt(d, port), { dv } = d.hv.views;
    if (chn === 0) return -EINVAL;
    const state = EVTCHN.state.get(dv, chn);
    return {
      state: state === RESERVED ? EVTCHNSTAT.closed : state, vcpu: EVTCHN.notifyVcpu.get(dv, chn), remoteDomid: EVTCHN.remoteDomid.get(dv, chn),
      remotePort: EVTCHN.remotePort.get(dv, chn), virq: EVTCHN.virq.get(dv, chn),
    };
  });
}
/** EVTCHNOP_set_priority. */
export function setPriority(d: Domain, port: number, priority: number): number {
  if (priority > EVTCHN_FIFO_PRIORITY.MIN) return -EINVAL;
  return locked(d, () => {
    const chn = chnAt(d, port);
    if (chn === 0) return -EINVAL;
    if (portAbi(d) !== fifo) return -ENOSYS;
    EVTCHN.priority.set(d.hv.views.dv, chn, priority);
    return 0;
  });
}
/** An open port as its EVTCHN has it. */
export type PortFields = { readonly state: number; readonly priority: number; readonly pending: number; readonly lastPriority: number; readonly notifyVcpu: number; readonly lastVcpu: number; readonly remoteDomid: number; readonly virq: number };
const FIELDS = ["state", "priority", "pending", "lastPriority", "notifyVcpu", "lastVcpu", "remoteDomid", "virq"] as const satisfies readonly (keyof PortFields)[];
/** All ports of a domain that are open. */
export function allPorts(d: Domain): (PortFields & { readonly port: number })[] {
  const found: (PortFields & { readonly port: number })[] = [], { dv } = d.hv.views;
  for (let port = 1; port < d.hv.get(DOMAIN.nrPorts, d.at); port++) {
    const chn = chnAt(d, port), state = EVTCHN.state.get(dv, chn);
    if (state !== EVTCHNSTAT.closed) found.push({ port, ...Object.fromEntries(FIELDS.map((field) => [field, EVTCHN[field].get(dv, chn)])) as PortFields });
  }
  return found;
}
/** Open a port of a domain that has never run, as it was elsewhere; bound to nobody but itself. vCPUs are the domain's. @returns false for one that cannot be @throws MachineMemoryExhausted */
export function setPort(d: Domain, port: number, fields: PortFields): boolean {
  const { hv } = d, { dv } = hv.views, { state, virq, notifyVcpu } = fields;
  if (port < 1 || port >= Math.min(hv.get(DOMAIN.maxEvtchnPort, d.at) + 1, portAbi(d).nrChannels)) return false;
  if (state !== EVTCHNSTAT.unbound && state !== EVTCHNSTAT.virq && state !== EVTCHNSTAT.ipi) return false;
  while (port >= hv.get(DOMAIN.nrPorts, d.at)) addBucket(d);
  const chn = chnAt(d, port);
  if (EVTCHN.state.get(dv, chn) !== EVTCHNSTAT.closed) return false;
  if (state === EVTCHNSTAT.virq) {
    const v = virq < NR_VIRQS ? d.vcpu(isVcpuVirq(virq) ? notifyVcpu : 0) : null;
    if (!v || hv.word(VCPU.virqToEvtchn, v.at, virq) !== 0) return false;
    hv.setWord(VCPU.virqToEvtchn, v.at, virq, port);
  }
  for (const field of FIELDS) EVTCHN[field].set(dv, chn, fields[field]);
  return true;
}
/** Is the port pending, masked or not? */
export const isPending = (d: Domain, port: number): boolean => chnAt(d, port) !== 0 && portAbi(d).isPending(d, port);
/** Close every port: at the domain's end, or for EVTCHNOP_reset. */
export function closeAllPorts(d: Domain): void {
  for (let port = 1; port < d.hv.get(DOMAIN.nrPorts, d.at); port++) {
    const chn = chnAt(d, port);
    if (chn && EVTCHN.state.get(d.hv.views.dv, chn) !== EVTCHNSTAT.closed) close(d, port);
  }
}
/** EVTCHNOP_reset: close all, and back to the 2-level ABI. */
export function reset(d: Domain): number {
  closeAllPorts(d);
  locked(d, () => { if (portAbi(d) === fifo) destroyFifo(d); });
  return 0;
}
