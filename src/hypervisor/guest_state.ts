/**
 * What the hypervisor keeps for a guest beside its memory and the registers of hvm_context.ts: ports, grant frames, the shared info page, areas it registered, timers, where its clock
 * stands. With all of it a guest goes on elsewhere without having been asked. Ports bound to domain 0 are taken down as ports that wait for domain 0: its back ends bind anew.
 * The domain does not run meanwhile, and domain 0 has mapped none of its grants.
 */
import { EVTCHN_FIFO_MAX_QUEUES, EVTCHNSTAT } from "../abi/event_channel.ts";
import { GNTST, GTF, GrantEntryV1 } from "../abi/grant_table.ts";
import { HVM_PARAM } from "../abi/hvm/params.ts";
import { RUNSTATE } from "../abi/vcpu.ts";
import { VcpuInfo } from "../abi/xen.ts";
import { UserError } from "../base/errors.ts";
import { P2M_RW, P2M_TYPE } from "../memory/p2m.ts";
import { CPU } from "../x86/state.ts";
import type { Domain } from "./domain.ts";
import { pinnedFrames } from "./dirty_log.ts";
import { allPorts, portAbi, type PortFields, setPort } from "./event_channel.ts";
import { expandArray, initControl } from "./event_fifo.ts";
import { grantFrameGfn, grantFrameMfn, growGrantTable, nrGrantFrames, setGrantFrameGfn } from "./grant_table.ts";
import { pinGuestFrame } from "./guest_frame.ts";
import { DOMAIN, EVTCHN_ABI, VCPU, VPF } from "./objects.ts";
import type { Deadline, Vcpu } from "./vcpu.ts";

/** A place in a frame of the guest's own. */
export type Place = { readonly gfn: number; readonly offset: number };
/** Timers in ns of the guest's system time; 0: off. */
const TIMERS = ["singleshot", "periodicNext", "pollDeadline", "watchdog1", "watchdog2"] as const satisfies readonly Deadline[];
export const NR_TIMERS = TIMERS.length, NR_RUNSTATES = Object.keys(RUNSTATE).length;
export type VcpuState = {
  readonly isUp: boolean; readonly isBlocked: boolean; readonly isPolling: boolean; readonly pollPort: number; readonly upcallVector: number;
  readonly info: Place | null; readonly runstateArea: bigint; readonly timeArea: bigint; readonly timers: readonly number[]; readonly periodicPeriod: number; readonly runstateNs: readonly number[];
  readonly fifo: Place | null; readonly fifoTails: readonly number[];
  /** interrupts wait for an instruction more: after MOV SS, after STI; NMIs for an IRET */
  readonly inShadow: boolean; readonly isAfterSti: boolean; readonly isNmiMasked: boolean; readonly isNmiPending: boolean;
};
export type PortState = PortFields & { readonly port: number };
export type GuestState = {
  /** Vcpu.tscAtZero of vCPU 0, as it will be told when it runs */
  readonly tscAtZero: bigint;
  readonly sharedInfoGfn: number | null; readonly callbackVector: number; readonly vmAssist: number; readonly presetCode: number;
  readonly params: readonly (readonly [index: number, value: bigint])[];
  readonly isFifo: boolean; readonly fifoPages: readonly number[]; readonly ports: readonly PortState[];
  readonly grantGfns: readonly (number | null)[];
  readonly vcpus: readonly VcpuState[];
  /** shared info, then the grant frames */
  readonly pages: Uint8Array;
};
/** Parameters that a guest sets and that say something to nobody but itself and us. */
export const GUEST_PARAMS = [HVM_PARAM.CALLBACK_IRQ, HVM_PARAM.VM86_TSS, HVM_PARAM.VM86_TSS_SIZED, HVM_PARAM.VM_GENERATION_ID_ADDR, HVM_PARAM.X87_FIP_WIDTH] as const;

/** The latest time that goes into a stream, a hundred days of system time; a timer beyond it is armed for then. */
const FOREVER_NS = 2 ** 53 - 1;
const NO_GFN = 0xffffffff, PAGE = 4096, WORD0 = { at: 0 };
/** The domain has something that cannot go on elsewhere as it is: the guest must suspend itself. */
export class NotAsItIs extends Error { override name = "NotAsItIs"; }

// Taking down ------------------------------------------------------------------
/** @throws NotAsItIs */
export function guestState(d: Domain): GuestState {
  const { hv } = d, { u8, f64 } = hv.views, fifoPages = hv.get(DOMAIN.fifoPages, d.at), gfnOf = gfnsOf(d), now = hv.clock.now(), gfn = (n: number): number | null => (n === NO_GFN ? null : n);
  const placeOf = (at: number): Place | null => {
    if (at === 0) return null;
    const found = gfnOf.get(at >>> 12);
    if (found === undefined) throw new NotAsItIs("it has given a page back that Xen writes to");
    return { gfn: found, offset: at & PAGE - 1 };
  };
  const ports = allPorts(d).map((p): PortState => {
    if (p.state !== EVTCHNSTAT.unbound && p.state !== EVTCHNSTAT.interdomain) return { ...p, remoteDomid: 0 };
    if (p.remoteDomid !== 0) throw new NotAsItIs(`its port ${p.port} leads to domain ${p.remoteDomid}`);
    return { ...p, state: EVTCHNSTAT.unbound };
  });
  const open = new Set(ports.map(({ port }) => port));
  const vcpu = (v: Vcpu): VcpuState => {
    const flags = v.pauseFlags, cpu = v.context, { dv } = hv.views;
    if (hv.load(VCPU.startup, v.at) !== 0) throw new NotAsItIs(`vCPU ${v.id} is being started`);
    return {
      isUp: v.isUp, isBlocked: (flags & VPF.blocked) !== 0, isPolling: (flags & VPF.polling) !== 0, pollPort: hv.load(VCPU.pollPort, v.at) >>> 0, upcallVector: v.upcallVector,
      info: hv.get(VCPU.vcpuInfoMfn, v.at) === 0 ? null : placeOf(v.vcpuInfo), runstateArea: hv.get(VCPU.runstateArea, v.at), timeArea: hv.get(VCPU.timeArea, v.at),
      timers: TIMERS.map((which) => { const ns = v.deadline(which); return ns === 0 ? 0 : Math.max(1, Math.min(FOREVER_NS, Math.round(ns + d.timeOffsetNs))); }), periodicPeriod: Math.min(FOREVER_NS, hv.get(VCPU.periodicPeriod, v.at)),
      runstateNs: Array.from({ length: NR_RUNSTATES }, (_, i) => Math.round((f64[((v.at + VCPU.runstateTime.at) >>> 3) + i] as number) + (i === hv.get(VCPU.runstate, v.at) ? Math.max(0, now - hv.get(VCPU.runstateEntry, v.at)) : 0))),
      fifo: placeOf(hv.get(VCPU.fifoControl, v.at)), fifoTails: Array.from({ length: EVTCHN_FIFO_MAX_QUEUES }, (_, q) => { const port = hv.word(VCPU.fifoTail, v.at, q); return open.has(port) || portAbi(d).isBusy(d, port) ? port : 0; }),
      inShadow: CPU.shadow.get(dv, cpu) !== 0, isAfterSti: CPU.stiRip.get(dv, cpu) === CPU.rip.get(dv, cpu), isNmiMasked: CPU.nmiMasked.get(dv, cpu) !== 0, isNmiPending: hv.load(VCPU.nmiPending, v.at) !== 0,
    };
  };
  const nrGrants = nrGrantFrames(d), pages = new Uint8Array((1 + nrGrants) * PAGE), page = (at: number): Uint8Array => u8.subarray(at, at + PAGE);
  pages.set(page(d.sharedInfo));
  for (let i = 0; i < nrGrants; i++) pages.set(page((grantFrameMfn(d, i) << 12) >>> 0), (1 + i) * PAGE);
  return {
    tscAtZero: BigInt.asIntN(64, CPU.tscAdjust.get(hv.views.dv, d.vcpu(0)!.context) - BigInt(d.timeOffsetNs)), sharedInfoGfn: gfn(hv.get(DOMAIN.sharedInfoGfn, d.at)), callbackVector: hv.load(DOMAIN.callbackVector, d.at), vmAssist: hv.get(DOMAIN.vmAssist, d.at), presetCode: hv.load(DOMAIN.presetCode, d.at),
    params: GUEST_PARAMS.map((index) => [index, d.param(index)] as const), isFifo: hv.load(DOMAIN.evtchnAbi, d.at) === EVTCHN_ABI.fifo,
    fifoPages: Array.from({ length: hv.get(DOMAIN.nrFifoPages, d.at) }, (_, i) => placeOf(hv.word(WORD0, fifoPages, i))!.gfn), ports,
    grantGfns: Array.from({ length: nrGrants }, (_, i) => gfn(grantFrameGfn(d, i))), vcpus: [...d.vcpus()].map(vcpu), pages,
  };
}
/** Where the domain has the frames that are pinned. */
function gfnsOf(d: Domain): Map<number, number> {
  const found = new Map<number, number>(), wanted = new Set(pinnedFrames(d));
  d.p2m.each((gfn, entry) => { if (wanted.has(entry >>> 12)) found.set(entry >>> 12, gfn); });
  return found;
}

// Taking over ------------------------------------------------------------------
/**
 * Give it to a domain that has its memory and its registers and has never run. Numbers are of the ranges that their places have; whether they fit each other is looked at here.
 * @throws UserError, with the domain fit for nothing but its end; MachineMemoryExhausted
 */
export function setGuestState(d: Domain, s: GuestState): void {
  const { hv } = d, { u8, dv, u32, f64 } = hv.views, nrVcpus = d.nrVcpus;
  const need = (isGood: boolean, what: string): void => { if (!isGood) throw new UserError(`The guest's state cannot be: ${what}; the stream is damaged`); };
  const first = d.vcpu(0)!, adjust = CPU.tscAdjust.get(dv, first.context);
  need(s.vcpus.length === nrVcpus && s.pages.length === (1 + s.grantGfns.length) * PAGE, "it is of another domain");
  hv.set(DOMAIN.timeOffsetNs, d.at, Number(BigInt.asIntN(64, adjust - s.tscAtZero)));
  const offsetNs = d.timeOffsetNs;
  for (const vector of [s.callbackVector, ...s.vcpus.map((v) => v.upcallVector)]) need(vector === 0 || vector >= 16, `${vector} is no vector of an interrupt`);
  for (const [index, value] of s.params) d.setParam(index, value);
  hv.store(DOMAIN.callbackVector, d.at, s.callbackVector);
  hv.set(DOMAIN.vmAssist, d.at, s.vmAssist);
  hv.store(DOMAIN.presetCode, d.at, s.presetCode);

  const map = (gfn: number | null, mfn: number): void => {
    if (gfn === null) return;
    hv.withLock(DOMAIN.p2mLock, d.at, () => {
      need(d.p2m.lookup(gfn) === 0, `there is memory at gfn 0x${gfn.toString(16)}, where a page of Xen's should be`);
      d.p2m.set(gfn, mfn, P2M_RW | P2M_TYPE.xen);
    });
  };
  // before the shared info page is what it was: in its bitmaps stands what was pending when the guest went over to queues
  if (s.isFifo) {
    s.vcpus.forEach(({ fifo }, id) => { if (fifo) need(initControl(d, id, fifo.gfn, fifo.offset) === 0, `vCPU ${id} cannot have its control block at gfn 0x${fifo.gfn.toString(16)}`); });
    for (const gfn of s.fifoPages) need(expandArray(d, gfn) === 0, `there cannot be event words at gfn 0x${gfn.toString(16)}`);
  }
  u8.set(s.pages.subarray(0, PAGE), d.sharedInfo);
  map(s.sharedInfoGfn, d.sharedInfo >>> 12);
  hv.set(DOMAIN.sharedInfoGfn, d.at, s.sharedInfoGfn ?? NO_GFN);
  need(growGrantTable(d, s.grantGfns.length) === GNTST.okay, `${s.grantGfns.length} frames of grants cannot be had`);
  s.grantGfns.forEach((gfn, i) => {
    const at = (grantFrameMfn(d, i) << 12) >>> 0;
    u8.set(s.pages.subarray((1 + i) * PAGE, (2 + i) * PAGE), at);
    for (let entry = 0; entry < PAGE; entry += GrantEntryV1.sizeof) u32[(at + entry) >>> 2]! &= ~(GTF.reading | GTF.writing);        // nobody does here
    map(gfn, at >>> 12);
    setGrantFrameGfn(d, i, gfn ?? NO_GFN);
  });

  for (const p of s.ports) need(p.notifyVcpu < nrVcpus && p.lastVcpu < nrVcpus && setPort(d, p.port, p), `port ${p.port}`);
  for (const v of d.vcpus()) setVcpu(v, s.vcpus[v.id]!, need, offsetNs, f64);
  d.writeWallClock();
}
function setVcpu(v: Vcpu, s: VcpuState, need: (isGood: boolean, what: string) => void, offsetNs: number, f64: Float64Array): void {
  const { hv, domain: d } = v, { dv } = hv.views;
  need(s.isUp === v.isUp, `vCPU ${v.id} has ${s.isUp ? "no" : "some"} registers`);
  if (s.info) {
    const { gfn, offset } = s.info, mfn = offset <= PAGE - VcpuInfo.sizeof && (offset & 3) === 0 ? pinGuestFrame(d, gfn) : 0;
    need(mfn !== 0, `vCPU ${v.id} cannot have its information at gfn 0x${gfn.toString(16)}`);
    hv.set(VCPU.vcpuInfoMfn, v.at, mfn);
    hv.store(VCPU.vcpuInfo, v.at, ((mfn << 12) + offset) | 0);
    hv.codeWritten(mfn, hv.mm.frames.noteWrite(mfn));
  }
  hv.store(VCPU.upcallVector, v.at, s.upcallVector);
  hv.set(VCPU.runstateArea, v.at, s.runstateArea);
  hv.set(VCPU.timeArea, v.at, s.timeArea);
  hv.set(VCPU.periodicPeriod, v.at, s.periodicPeriod);
  // what has passed since this domain was made here is not the guest's
  hv.set(VCPU.runstate, v.at, s.isBlocked ? RUNSTATE.blocked : s.isUp ? RUNSTATE.runnable : RUNSTATE.offline);
  hv.set(VCPU.runstateEntry, v.at, hv.clock.now());
  s.runstateNs.forEach((ns, i) => { f64[((v.at + VCPU.runstateTime.at) >>> 3) + i] = ns; });
  s.fifoTails.forEach((port, q) => hv.setWord(VCPU.fifoTail, v.at, q, port));
  CPU.shadow.set(dv, v.context, s.inShadow ? 1 : 0);
  CPU.stiRip.set(dv, v.context, s.isAfterSti ? CPU.rip.get(dv, v.context) : -1n);
  CPU.nmiMasked.set(dv, v.context, s.isNmiMasked ? 1 : 0);
  hv.store(VCPU.nmiPending, v.at, s.isNmiPending ? 1 : 0);
  hv.store(VCPU.pollPort, v.at, s.pollPort | 0);
  if (s.isUp) hv.or(VCPU.pauseFlags, v.at, (s.isBlocked ? VPF.blocked : 0) | (s.isPolling ? VPF.polling : 0));
  TIMERS.forEach((which, i) => { const ns = s.timers[i]!; if (ns !== 0) v.setDeadline(which, Math.max(1, ns - offsetNs)); });
  v.writeTime();
  if (v.isUp && (v.isUpcallPending || s.isNmiPending)) v.kick();
}
