/**
 * Which vCPU runs where: one queue for all pCPUs, round robin with a slice, and the vCPUs' timers. A vCPU is queued, on a pCPU or off both;
 * it changes between these under runLock only. Blocked vCPUs cost nothing; the earliest timer is watched by one idle pCPU, the keeper.
 */
import { RUNSTATE } from "../abi/vcpu.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { VIRQ } from "../abi/xen.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import type { Domain } from "./domain.ts";
import { sendVcpuVirq } from "./event_channel.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { lapicStart, lapicTimerFired } from "./lapic.ts";
import { DOMAIN, HYPERVISOR_ROOT as ROOT, PCPU, PCPU_STATE, VCPU, VPF } from "./objects.ts";
import type { Vcpu } from "./vcpu.ts";

/** How long a vCPU runs before others have their turn. */
export const SLICE_MS = 1;
/** How long a runnable vCPU is left to the idle pCPU that it ran on: longer than a host takes to let a thread run again, and less than it takes to translate its code anew. */
const LEFT_NS = 50_000_000;
/** SCHEDOP_watchdog's timers by id - 1. */
export const WATCHDOGS = ["watchdog1", "watchdog2"] as const;
const popcount = (x: number): number => { let n = 0; for (; x !== 0; x &= x - 1) n++; return n; };

/** One thread's view of the run queue and the timers. */
export class Scheduler {
  readonly #hv: Hypervisor;
  constructor(hv: Hypervisor) { this.#hv = hv; }

  /** Queue a vCPU if it may run and is not under way already, and see that somebody takes it. */
  wake(v: Vcpu): void {
    const hv = this.#hv;
    if (v.domain.domid === 0) return;
    hv.lock(ROOT.runLock, hv.root);
    const queue = v.mayRun && hv.get(VCPU.queued, v.at) === 0 && v.onPcpu < 0;
    if (queue) {
      this.#append(v);
      this.#runstate(v.at, RUNSTATE.runnable);
    }
    hv.unlock(ROOT.runLock, hv.root);
    if (!queue) return;
    if (hv.trace.on & TRACE_CLASS.sched) hv.trace.emit(TRACE.vcpuWake, v.domain.domid, v.id);
    const idle = hv.load(ROOT.idlePcpus, hv.root), last = hv.get(VCPU.lastPcpu, v.at) - 1;
    if (idle !== 0) this.#rouse(last >= 0 && idle & (1 << last) ? last : 31 - Math.clz32(idle & -idle));
  }
  #rouse(pcpu: number): void {
    const { views } = this.#hv, word = (this.#hv.pcpuAt(pcpu) + PCPU.wake.at) >>> 2;
    Atomics.add(views.i32, word, 1);
    Atomics.notify(views.i32, word);
  }
  #append(v: Vcpu): void {
    const hv = this.#hv, tail = hv.get(ROOT.runTail, hv.root);
    hv.set(VCPU.queued, v.at, 1);
    hv.set(VCPU.next, v.at, 0);
    if (tail) hv.set(VCPU.next, tail, v.at);
    else hv.set(ROOT.runHead, hv.root, v.at);
    hv.set(ROOT.runTail, hv.root, v.at);
    hv.add(ROOT.nrQueued, hv.root, 1);
  }
  /** Under runLock. */
  #runstate(at: number, state: number): void {
    const hv = this.#hv, now = hv.clock.now(), old = hv.get(VCPU.runstate, at), time = (at + VCPU.runstateTime.at) >>> 3;
    hv.views.f64[time + old] = (hv.views.f64[time + old] as number) + Math.max(0, now - hv.get(VCPU.runstateEntry, at));
    hv.set(VCPU.runstateEntry, at, now);
    hv.set(VCPU.runstate, at, state);
  }
  #offState(v: Vcpu): number { return v.pauseFlags & VPF.blocked ? RUNSTATE.blocked : v.mayRun ? RUNSTATE.runnable : RUNSTATE.offline; }

  /** Take the next vCPU for a pCPU. One that ran elsewhere is left for a while to that pCPU if it has nothing else: there its code is translated, and its caches are warm. */
  pick(pcpu: number): Vcpu | null {
    const hv = this.#hv;
    if (hv.load(ROOT.nrQueued, hv.root) === 0) return null;
    return hv.withLock(ROOT.runLock, hv.root, () => {
      for (let before = 0, at = hv.get(ROOT.runHead, hv.root); at !== 0;) {
        const next = hv.get(VCPU.next, at);
        if (this.#leftForNs(at, pcpu) > 0) {
          this.#rouse(hv.get(VCPU.lastPcpu, at) - 1);
          before = at;
          at = next;
          continue;
        }
        this.#unlink(before, at);
        const v = this.vcpuAt(at);
        at = next;
        if (!v) continue;
        if (!v.mayRun) {
          this.#runstate(v.at, this.#offState(v));
          continue;
        }
        hv.store(VCPU.onPcpu, v.at, pcpu + 1);
        this.#runstate(v.at, RUNSTATE.running);
        return v;
      }
      return null;
    });
  }
  /** Ns for which a queued vCPU is still left to another pCPU. */
  #leftForNs(at: number, pcpu: number): number {
    const hv = this.#hv, last = hv.get(VCPU.lastPcpu, at) - 1;
    return last >= 0 && last !== pcpu && this.#hasNothing(last) ? Math.max(0, hv.get(VCPU.runstateEntry, at) + LEFT_NS - hv.clock.now()) : 0;
  }
  /** Ns until there is something in the queue that this pCPU may take; 0: now. */
  #nothingForNs(pcpu: number): number {
    const hv = this.#hv;
    let least = Number.POSITIVE_INFINITY;
    if (hv.load(ROOT.nrQueued, hv.root) !== 0) hv.withLock(ROOT.runLock, hv.root, () => {
      for (let at = hv.get(ROOT.runHead, hv.root); at !== 0; at = hv.get(VCPU.next, at)) least = Math.min(least, this.#leftForNs(at, pcpu));
    });
    return least;
  }
  #hasNothing(pcpu: number): boolean {
    const hv = this.#hv, at = hv.pcpuAt(pcpu);
    return hv.load(PCPU.vcpu, at) === 0 && hv.load(PCPU.state, at) !== PCPU_STATE.off;
  }
  #unlink(before: number, at: number): void {
    const hv = this.#hv, next = hv.get(VCPU.next, at);
    if (before) hv.set(VCPU.next, before, next);
    else hv.set(ROOT.runHead, hv.root, next);
    if (hv.get(ROOT.runTail, hv.root) === at) hv.set(ROOT.runTail, hv.root, before);
    hv.set(VCPU.queued, at, 0);
    hv.add(ROOT.nrQueued, hv.root, -1);
  }
  /** The pCPU has saved its registers: queue it again if it may run. */
  leave(v: Vcpu): void {
    const hv = this.#hv;
    hv.withLock(ROOT.runLock, hv.root, () => {
      hv.store(VCPU.onPcpu, v.at, 0);
      if (v.mayRun) {
        this.#append(v);
        this.#runstate(v.at, RUNSTATE.runnable);
      } else this.#runstate(v.at, this.#offState(v));
    });
    if (hv.load(VCPU.startup, v.at) !== 0) lapicStart(v);
    if (hv.trace.on & TRACE_CLASS.sched) hv.trace.emit(TRACE.vcpuBlock, v.domain.domid, v.id, v.pauseFlags);
  }
  /** Is there more waiting than the idle pCPUs, who have been roused, will take? */
  get isCrowded(): boolean {
    const n = this.#hv.load(ROOT.nrQueued, this.#hv.root);
    return n !== 0 && n > popcount(this.#hv.load(ROOT.idlePcpus, this.#hv.root));
  }
  /** Drop a dying domain's vCPUs, which run no more, from the queue. */
  forget(d: Domain): void {
    const hv = this.#hv;
    hv.withLock(ROOT.runLock, hv.root, () => {
      for (let before = 0, at = hv.get(ROOT.runHead, hv.root); at !== 0;) {
        const next = hv.get(VCPU.next, at);
        if (hv.get(VCPU.domain, at) === d.at) this.#unlink(before, at);
        else before = at;
        at = next;
      }
    });
  }
  /** The vCPU whose struct lies there, unless its domain is gone. */
  vcpuAt(at: number): Vcpu | null {
    const hv = this.#hv, domainAt = hv.get(VCPU.domain, at), d = hv.domain(hv.get(DOMAIN.domid, domainAt));
    return d?.at === domainAt ? d.vcpu(hv.get(VCPU.vcpuId, at)) : null;
  }
  /** Ns a vCPU has spent in each RUNSTATE, and the state it is in now since when. */
  runstateOf(v: Vcpu): { state: number; entry: number; time: [number, number, number, number] } {
    const hv = this.#hv;
    return hv.withLock(ROOT.runLock, hv.root, () => {
      const state = hv.get(VCPU.runstate, v.at), entry = hv.get(VCPU.runstateEntry, v.at), at = (v.at + VCPU.runstateTime.at) >>> 3, t = hv.views.f64;
      return { state, entry, time: [t[at] as number, t[at + 1] as number, t[at + 2] as number, t[at + 3] as number] };
    });
  }

  // Timers ---------------------------------------------------------------------
  /** Some timer is now due at `ns`: the pCPUs' next look is not to be later. */
  notBefore(ns: number): void {
    const hv = this.#hv;
    hv.withLock(ROOT.timersLock, hv.root, () => {
      const next = hv.get(ROOT.nextDeadline, hv.root);
      if (next === 0 || ns < next) hv.set(ROOT.nextDeadline, hv.root, ns);
    });
  }
  get nextDeadline(): number { return this.#hv.get(ROOT.nextDeadline, this.#hv.root) || Number.POSITIVE_INFINITY; }
  /** Fire what is due. */
  expireTimers(): void {
    const hv = this.#hv, now = hv.clock.now();
    if (now < this.nextDeadline) return;
    const due: [Vcpu, number][] = [];
    hv.withLock(ROOT.timersLock, hv.root, () => {
      let next = Number.POSITIVE_INFINITY;
      for (let i = hv.load(ROOT.nrVcpus, hv.root) - 1; i >= 0; i--) {
        const at = hv.word(ROOT.vcpus, hv.root, i), v = at ? this.vcpuAt(at) : null;
        if (!v) continue;
        const fired = hv.withLock(VCPU.timerLock, at, () => takeDue(v, now));
        if (fired) due.push([v, fired]);
        next = Math.min(next, v.nextDeadline);
      }
      hv.set(ROOT.nextDeadline, hv.root, next === Number.POSITIVE_INFINITY ? 0 : next);
    });
    for (const [v, fired] of due) {
      if (hv.trace.on & TRACE_CLASS.timer) hv.trace.emit(TRACE.timerFired, v.domain.domid, v.id, fired);
      if (fired & DUE.virq) sendVcpuVirq(v, VIRQ.TIMER);
      if (fired & DUE.poll) v.kick();
      if (fired & DUE.lapic) lapicTimerFired(v);
      if (fired & DUE.watchdog) v.domain.shutdown(SHUTDOWN.watchdog);
    }
  }

  // Idling ---------------------------------------------------------------------
  /** Wait until there may be work for this pCPU. Only where Atomics.wait may be called. */
  idle(pcpu: number): void {
    const hv = this.#hv, at = hv.pcpuAt(pcpu), bit = 1 << pcpu, word = (at + PCPU.wake.at) >>> 2, seen = Atomics.load(hv.views.i32, word);
    hv.store(PCPU.state, at, PCPU_STATE.idle);
    hv.or(ROOT.idlePcpus, hv.root, bit);
    const keeper = Atomics.compareExchange(hv.views.i32, (hv.root + ROOT.timerKeeper.at) >>> 2, 0, pcpu + 1);
    const nothingForNs = this.#nothingForNs(pcpu);
    if (nothingForNs > 0 && !hv.stopped) {
      const next = this.nextDeadline, start = performance.now();
      let timeoutMs = Math.min(1000, nothingForNs / 1e6);
      if (keeper === 0) {
        hv.set(ROOT.keeperDeadline, hv.root, next);
        timeoutMs = Math.min(timeoutMs, Math.max(0, (next - hv.clock.now()) / 1e6));
      } else if (next < hv.get(ROOT.keeperDeadline, hv.root)) this.#rouse(keeper - 1);
      if (timeoutMs > 0) Atomics.wait(hv.views.i32, word, seen, timeoutMs);
      hv.set(PCPU.idleMs, at, hv.get(PCPU.idleMs, at) + performance.now() - start);
    }
    Atomics.compareExchange(hv.views.i32, (hv.root + ROOT.timerKeeper.at) >>> 2, pcpu + 1, 0);
    hv.and(ROOT.idlePcpus, hv.root, ~bit);
    hv.store(PCPU.state, at, PCPU_STATE.running);
  }
}

const DUE = { virq: 1, poll: 2, lapic: 4, watchdog: 8 } as const;
/** Disarm what is due, or arm a periodic one again. @returns DUE bits */
function takeDue(v: Vcpu, now: number): number {
  let due = 0;
  const passed = (ns: number): boolean => ns !== 0 && ns <= now;
  if (passed(v.deadline("singleshot"))) { v.hv.set(VCPU.singleshot, v.at, 0); due |= DUE.virq; }
  const periodic = v.deadline("periodicNext");
  if (passed(periodic)) {
    const period = Math.max(1_000_000, v.hv.get(VCPU.periodicPeriod, v.at));
    v.hv.set(VCPU.periodicNext, v.at, periodic + period * Math.ceil((now - periodic + 1) / period));
    due |= DUE.virq;
  }
  if (passed(v.deadline("pollDeadline"))) { v.hv.set(VCPU.pollDeadline, v.at, 0); due |= DUE.poll; }
  if (passed(v.deadline("lapicDeadline"))) { v.hv.set(VCPU.lapicDeadline, v.at, 0); due |= DUE.lapic; }
  for (const which of WATCHDOGS) if (passed(v.deadline(which))) { v.hv.set(VCPU[which], v.at, 0); due |= DUE.watchdog; }
  return due;
}
