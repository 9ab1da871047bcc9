/** A vCPU: its registers while it does not run, its times, timers and its window to events. */
import { VcpuInfo, VcpuTimeInfo } from "../abi/xen.ts";
import { RUNSTATE } from "../abi/vcpu.ts";
import { CPU } from "../x86/state.ts";
import { timeInfo } from "./clock.ts";
import type { Domain } from "./domain.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { lapicReset } from "./lapic.ts";
import { DOMAIN, PCPU_REQUEST, VCPU, VPF } from "./objects.ts";
import { Scheduler } from "./scheduler.ts";

const DEADLINES = ["singleshot", "periodicNext", "pollDeadline", "lapicDeadline", "watchdog1", "watchdog2"] as const;
/** A timer of a vCPU: a field of VCPU with ns of system time, 0 when off. */
export type Deadline = (typeof DEADLINES)[number];

/** A handle to a vCPU; all its state is in the Xen heap. */
export class Vcpu {
  readonly hv: Hypervisor;
  readonly domain: Domain;
  readonly at: number;
  readonly id: number;
  readonly serial: number;

  constructor(domain: Domain, at: number) {
    this.hv = domain.hv;
    this.domain = domain;
    this.at = at;
    this.id = this.hv.get(VCPU.vcpuId, at);
    this.serial = this.hv.get(VCPU.serial, at);
  }
  /** Fill a fresh struct: down, without registers. */
  static init(hv: Hypervisor, at: number, domainAt: number, id: number): void {
    hv.set(VCPU.domain, at, domainAt);
    hv.set(VCPU.vcpuId, at, id);
    hv.set(VCPU.serial, at, hv.serial());
    hv.set(VCPU.pauseFlags, at, VPF.down);
    hv.set(VCPU.runstate, at, RUNSTATE.offline);
    hv.set(VCPU.runstateEntry, at, hv.clock.now());
    const sharedInfo = hv.get(DOMAIN.sharedInfo, domainAt);
    hv.set(VCPU.vcpuInfo, at, id < 32 ? sharedInfo + id * VcpuInfo.sizeof : 0);
    lapicReset(hv, at, id);
    Scheduler.initVcpu(hv, at);
  }
  static setSlot(hv: Hypervisor, at: number, slot: number): void { hv.set(VCPU.slot, at, slot); }
  get slot(): number { return this.hv.get(VCPU.slot, this.at); }

  /** Address of its saved registers (CPU struct); true only while it is off its pCPU. */
  get context(): number { return this.at + VCPU.context.at; }
  /** Write registers of a vCPU that does not run: `fill` gets the view and the address of the CPU struct. Brings it up unless told not to. */
  setContext(fill: (dv: DataView, at: number) => void, up = true): void {
    fill(this.hv.views.dv, this.context);
    this.hv.set(VCPU.lastPcpu, this.at, 0);
    this.hv.set(VCPU.isInitialised, this.at, 1);
    if (!up) return;
    this.hv.and(VCPU.pauseFlags, this.at, ~VPF.down);
    this.hv.scheduler.wake(this);
  }

  get pauseFlags(): number { return this.hv.load(VCPU.pauseFlags, this.at); }
  get isUp(): boolean { return (this.pauseFlags & VPF.down) === 0; }
  get mayRun(): boolean { return this.pauseFlags === 0 && this.domain.mayRun; }
  /** The pCPU that runs it now, or -1. */
  get onPcpu(): number { return this.hv.load(VCPU.onPcpu, this.at) - 1; }
  kickIfRunning(): void {
    const pcpu = this.onPcpu;
    if (pcpu >= 0) this.hv.kick(pcpu, PCPU_REQUEST.reschedule);
  }
  /** Something it may wait for has happened: run, or look again. */
  kick(): void { this.rouse(VPF.blocked | VPF.polling); }
  /** These reasons not to run, VPF, hold no more. */
  rouse(flags: number): void {
    this.hv.and(VCPU.pauseFlags, this.at, ~flags);
    const pcpu = this.onPcpu;
    if (pcpu >= 0) this.hv.kick(pcpu);
    else this.hv.scheduler.wake(this);
  }

  /** Let it have an NMI, from any thread. */
  sendNmi(): void {
    this.hv.store(VCPU.nmiPending, this.at, 1);
    this.kick();
  }

  // Events ---------------------------------------------------------------------
  get vcpuInfo(): number { return this.hv.load(VCPU.vcpuInfo, this.at) >>> 0; }
  get upcallVector(): number { return this.hv.load(VCPU.upcallVector, this.at); }
  get isUpcallPending(): boolean {
    const at = this.vcpuInfo;
    return at !== 0 && Atomics.load(this.hv.views.u8, at + VcpuInfo.evtchn_upcall_pending.at) !== 0;
  }

  // Time -----------------------------------------------------------------------
  /** Write vcpu_info.time for its TSC_ADJUST. It changes only with that: system time is the TSC. */
  writeTime(adjust = this.hv.get(CPU.tscAdjust, this.context)): void {
    this.hv.set(VCPU.timeAdjust, this.at, adjust);
    const at = this.vcpuInfo;
    if (at === 0) return;
    const time = at + VcpuInfo.time.at, version = this.hv.get(VcpuTimeInfo.version, time) & ~1;
    Atomics.store(this.hv.views.u32, time >>> 2, version + 1);
    timeInfo(this.hv.views.dv, time, version + 1, this.tscAtZero);
    Atomics.store(this.hv.views.u32, time >>> 2, version + 2);
  }

  /** What its TSC was at its system time 0, as vcpu_info.time says it; modulo 2^64. */
  get tscAtZero(): bigint { return this.hv.get(VCPU.timeAdjust, this.at) - BigInt(this.domain.timeOffsetNs); }

  /** Arm (ns of the machine's system time) or disarm (0) one of its timers. */
  setDeadline(which: Deadline, ns: number): void {
    this.hv.withLock(VCPU.timerLock, this.at, () => this.hv.set(VCPU[which], this.at, ns));
    if (ns !== 0) this.hv.scheduler.notBefore(ns);
  }
  deadline(which: Deadline): number { return this.hv.get(VCPU[which], this.at); }
  /** The earliest of its timers, or Infinity. */
  get nextDeadline(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const which of DEADLINES) {
      const ns = this.deadline(which);
      if (ns !== 0 && ns < next) next = ns;
    }
    return next;
  }

  free(): void {
    const pinned = this.hv.get(VCPU.vcpuInfoMfn, this.at), control = this.hv.get(VCPU.fifoControl, this.at);
    if (pinned) this.hv.mm.frames.put(pinned);
    if (control) this.hv.mm.frames.put(control >>> 12);
    this.hv.set(VCPU.serial, this.at, 0);
    this.hv.freePage(this.at);
  }
}
