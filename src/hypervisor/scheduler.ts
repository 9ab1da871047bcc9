/**
 * Which vCPU runs where, and the vCPUs' timers. Each cpupool has one queue for all its pCPUs and a policy (sched_policy.ts) that decides; a vCPU is queued, on a pCPU or off both, and changes
 * between these under runLock only, as do all that policies keep. Blocked vCPUs cost nothing; the earliest timer is watched by one idle pCPU, the keeper.
 */
import { RUNSTATE } from "../abi/vcpu.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { VIRQ } from "../abi/xen.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import type { Domain } from "./domain.ts";
import { sendVcpuVirq } from "./event_channel.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { lapicStart, lapicTimerFired } from "./lapic.ts";
import { Linger } from "./linger.ts";
import { DOMAIN, HYPERVISOR_ROOT as ROOT, PCPU, PCPU_REQUEST, PCPU_STATE, POOL, VCPU, VPF } from "./objects.ts";
import { ALL_PCPUS, allowed, choose, DEFAULT_BUDGET_NS, DEFAULT_PERIOD_NS, DEFAULT_RATELIMIT_NS, DEFAULT_TSLICE_NS, DEFAULT_WEIGHT, SCHED_ID, sliceOf } from "./sched_policy.ts";
import { Pool, poolsOf, VcpuUnit } from "./sched_unit.ts";
import type { Vcpu } from "./vcpu.ts";

/** The longest stretch in the guest without a look at the clock: what jumps make of a ms is an estimate, and it is made of these. */
export const STRETCH_MS = 1;
/** The longest without a look at whether somebody wants this pCPU, for a vCPU that others may wait for. */
export const SMP_PIECE_MS = 0.25;
/** How long a runnable vCPU is left to the idle pCPU that it ran on: longer than a host takes to let a thread run again, and less than it takes to translate its code anew. */
const LEFT_NS = 50_000_000;
/** SCHEDOP_watchdog's timers by id - 1. */
export const WATCHDOGS = ["watchdog1", "watchdog2"] as const;

/** One thread's view of the run queues and the timers. */
export class Scheduler {
  readonly #hv: Hypervisor;
  readonly #units = new Map<number, VcpuUnit>();
  /** of this thread's pCPU */
  readonly #linger = new Linger();
  readonly pools: readonly Pool[];
  constructor(hv: Hypervisor) {
    this.#hv = hv;
    this.pools = poolsOf(hv);
    const first = this.pools[0]!;
    this.locked(() => { if (!first.isUsed) this.initPool(first, "Pool-0", SCHED_ID.credit2, Array.from({ length: hv.mm.nrPcpus }, (_, i) => i)); });
  }

  locked<T>(section: () => T): T { return this.#hv.withLock(ROOT.runLock, this.#hv.root, section); }
  /** Take a pool into use; under runLock. */
  initPool(pool: Pool, name: string, sched: number, pcpus: readonly number[]): void {
    pool.name = name;
    pool.ratelimitNs = DEFAULT_RATELIMIT_NS;
    pool.tsliceNs = DEFAULT_TSLICE_NS;
    pool.epoch = pool.nextAccountNs = pool.assigned = 0;
    pool.cpus = pcpus.reduce((mask, i) => (mask | 1 << i) >>> 0, 0);
    pool.setSched(sched);
    for (const i of pcpus) this.#hv.set(PCPU.pool, this.#hv.pcpuAt(i), pool.id + 1);
  }
  /** A new domain's and vCPU's terms. */
  static initDomain(hv: Hypervisor, at: number): void { hv.set(DOMAIN.weight, at, DEFAULT_WEIGHT); }
  static initVcpu(hv: Hypervisor, at: number): void {
    hv.set(VCPU.hard, at, ALL_PCPUS);
    hv.set(VCPU.soft, at, ALL_PCPUS);
    hv.set(VCPU.periodNs, at, DEFAULT_PERIOD_NS);
    hv.set(VCPU.budgetNs, at, DEFAULT_BUDGET_NS);
    hv.set(VCPU.isExtratime, at, 1);
  }
  /** What policies know of the vCPU at that address. */
  unit(at: number): VcpuUnit {
    let u = this.#units.get(at);
    if (!u) this.#units.set(at, u = new VcpuUnit(this.#hv, at));
    return u;
  }
  poolOf(d: { at: number }): Pool { return this.pools[this.#hv.get(DOMAIN.pool, d.at)]!; }
  #poolOfUnit(at: number): Pool { return this.pools[this.#hv.get(DOMAIN.pool, this.#hv.get(VCPU.domain, at))]!; }

  /** Queue a vCPU if it may run and is not under way already, and see that somebody takes it. */
  wake(v: Vcpu): void {
    const hv = this.#hv;
    if (v.domain.domid === 0) return;
    let target = -1, isKicked = false;
    const isQueued = this.locked(() => {
      if (!v.mayRun || hv.get(VCPU.queued, v.at) !== 0 || v.onPcpu >= 0) return false;
      const pool = this.poolOf(v.domain), u = this.unit(v.at), now = hv.clock.now();
      pool.policy.woken(u, pool, now);
      pool.append(v.at);
      this.#runstate(v.at, RUNSTATE.runnable);
      target = this.#idlePcpuFor(u, pool);
      if (target < 0 && pool.policy.readyAt(u, pool, now, -1) <= now) {
        target = this.#runningPcpuFor(u, pool, now);
        isKicked = target >= 0;
      }
      return true;
    });
    if (!isQueued) return;
    if (hv.trace.on & TRACE_CLASS.sched) hv.trace.emit(TRACE.vcpuWake, v.domain.domid, v.id);
    if (isKicked) hv.kick(target, PCPU_REQUEST.reschedule);
    else if (target >= 0) this.#rouse(target);
  }
  /** Put a vCPU down. Who runs it lets it go; else it leaves the queue here, and needs no pCPU of its own. */
  putDown(v: Vcpu): void {
    const hv = this.#hv;
    hv.or(VCPU.pauseFlags, v.at, VPF.down);
    this.locked(() => {
      if (v.onPcpu >= 0 || v.isUp) return;
      const pool = this.poolOf(v.domain);
      pool.remove(v.at);
      this.#runstate(v.at, this.offState(v));
      this.unassign(this.unit(v.at), pool);
    });
    v.kickIfRunning();
  }
  /** An idle pCPU that may take it, or -1: the one it ran on, one it would rather run on, any. */
  #idlePcpuFor(u: VcpuUnit, pool: Pool): number {
    const hv = this.#hv, idle = hv.load(ROOT.idlePcpus, hv.root) & allowed(u, pool), mask = pool.policy.name === "null" ? idle & (u.assigned >= 0 ? 1 << u.assigned : ~pool.assigned) : idle;
    if (mask === 0) return -1;
    if (u.lastPcpu >= 0 && mask >>> u.lastPcpu & 1) return u.lastPcpu;
    const best = mask & u.soft || mask;
    return 31 - Math.clz32(best & -best);
  }
  /** See that an idle pCPU takes it. @returns whether there is one */
  #rouseFor(u: VcpuUnit, pool: Pool): boolean {
    const target = this.#idlePcpuFor(u, pool);
    if (target >= 0) this.#rouse(target);
    return target >= 0;
  }
  /** A pCPU whose vCPU has to make room for it, or -1. One that has run for less than the rate limit ends its slice with that. */
  #runningPcpuFor(u: VcpuUnit, pool: Pool, now: number): number {
    const hv = this.#hv, { policy } = pool, mask = allowed(u, pool);
    let worst: VcpuUnit | null = null, found = -1;
    for (let i = 0; i < hv.mm.nrPcpus; i++) {
      const at = mask >>> i & 1 ? hv.get(PCPU.given, hv.pcpuAt(i)) : 0;
      if (at === 0) continue;
      const r = this.unit(at);
      this.#charge(r, pool, now);
      if (policy.preempts(u, r, pool, i) && (worst === null || policy.compare(worst, r, pool, i) < 0)) { worst = r; found = i; }
    }
    if (worst === null) return -1;
    const limit = policy.name === "rtds" ? 0 : worst.startedNs + pool.ratelimitNs;
    worst.sliceEndNs = Math.min(worst.sliceEndNs, Math.max(now, limit));
    return limit > now ? -1 : found;
  }
  #charge(u: VcpuUnit, pool: Pool, now: number): void {
    const ranNs = now - u.chargedNs;
    if (ranNs <= 0) return;
    u.chargedNs = now;
    pool.policy.charge(u, pool, ranNs, now);
  }
  /** Before anything is decided: a pCPU whose thread the host lets wait has not said for long what its vCPU used, and that is not to miss what is given to all meanwhile. */
  #chargeRunning(pool: Pool, now: number): void {
    const hv = this.#hv;
    for (let i = 0; i < hv.mm.nrPcpus; i++) {
      const at = hv.get(PCPU.given, hv.pcpuAt(i));
      if (at !== 0 && this.#poolOfUnit(at) === pool) this.#charge(this.unit(at), pool, now);
    }
  }
  #account(pool: Pool, now: number): void {
    if (!pool.policy.account || now < pool.nextAccountNs) return;
    const hv = this.#hv, units: VcpuUnit[] = [];
    for (let i = hv.load(ROOT.nrVcpus, hv.root) - 1; i >= 0; i--) {
      const at = hv.word(ROOT.vcpus, hv.root, i);
      if (at === 0 || this.#poolOfUnit(at) !== pool) continue;
      units.push(this.unit(at));
    }
    pool.policy.account(units, pool, now);
  }
  #rouse(pcpu: number): void {
    const { views } = this.#hv, word = (this.#hv.pcpuAt(pcpu) + PCPU.wake.at) >>> 2;
    Atomics.add(views.i32, word, 1);
    Atomics.notify(views.i32, word);
  }
  /** Under runLock. */
  #runstate(at: number, state: number): void {
    const hv = this.#hv, now = hv.clock.now(), old = hv.get(VCPU.runstate, at), time = (at + VCPU.runstateTime.at) >>> 3;
    hv.views.f64[time + old] = (hv.views.f64[time + old] as number) + Math.max(0, now - hv.get(VCPU.runstateEntry, at));
    hv.set(VCPU.runstateEntry, at, now);
    hv.set(VCPU.runstate, at, state);
  }
  /** The state of a vCPU off its pCPU. */
  offState(v: Vcpu): number { return v.pauseFlags & VPF.blocked ? RUNSTATE.blocked : v.mayRun ? RUNSTATE.runnable : RUNSTATE.offline; }

  #choose(pool: Pool, pcpu: number, now: number): ReturnType<typeof choose<VcpuUnit>> {
    for (const at of [...pool.queue()]) {
      const v = this.vcpuAt(at);
      if (v?.mayRun) continue;
      pool.remove(at);
      if (!v) continue;
      this.#runstate(at, this.offState(v));
      if (!v.isUp) this.unassign(this.unit(at), pool);
    }
    return choose(Array.from(pool.queue(), (at) => this.unit(at)), pool.policy, pool, pcpu, now, (u) => this.#leftUntilNs(u, pool, pcpu));
  }
  /** The pool of a pCPU, or null. */
  poolOfPcpu(pcpu: number): Pool | null { return this.pools[this.#hv.get(PCPU.pool, this.#hv.pcpuAt(pcpu)) - 1] ?? null; }

  /** Take the next vCPU for a pCPU. One that ran elsewhere is left for a while to that pCPU if it has nothing else: there its code is translated, and its caches are warm. */
  pick(pcpu: number): Vcpu | null {
    const hv = this.#hv, pool = this.poolOfPcpu(pcpu);
    if (pool === null || pool.nrQueued === 0) return null;
    const left: number[] = [];
    const v = this.locked(() => {
      const now = hv.clock.now();
      this.#chargeRunning(pool, now);
      this.#account(pool, now);
      const { unit, rival, nextNs } = this.#choose(pool, pcpu, now), v = unit && this.vcpuAt(unit.at);
      for (const at of pool.queue()) if (at !== unit?.at && this.#leftUntilNs(this.unit(at), pool, pcpu) > now) left.push(this.unit(at).lastPcpu);
      if (!unit || !v) return null;
      if (rival) this.#rouseFor(rival, pool);
      pool.remove(unit.at);
      pool.policy.taken?.(unit, pool, pcpu);
      /* who yielded has been passed over now */
      if (!unit.yielded) for (const at of pool.queue()) this.unit(at).yielded = false;
      unit.yielded = false;
      unit.lastPcpu = pcpu;
      unit.startedNs = unit.chargedNs = now;
      unit.sliceEndNs = now + sliceOf(pool.policy, unit, pool, now, rival, nextNs);
      hv.store(VCPU.mustLeave, v.at, 0);
      hv.set(PCPU.given, hv.pcpuAt(pcpu), v.at);
      hv.store(VCPU.onPcpu, v.at, pcpu + 1);
      this.#runstate(v.at, RUNSTATE.running);
      return v;
    });
    for (const i of left) this.#rouse(i);
    if (v === null || v.mayRun) return v;
    /* it was stopped (INIT, a pause) while it was taken: whoever did that may have come too early to kick this pCPU, and waits until it leaves */
    this.leave(v, pcpu);
    return null;
  }
  /** Until when a queued vCPU is left to another pCPU; 0: it is not. */
  #leftUntilNs(u: VcpuUnit, pool: Pool, pcpu: number): number {
    const last = u.lastPcpu;
    return last >= 0 && last !== pcpu && allowed(u, pool) >>> last & 1 && this.#hasNothing(last) ? this.#hv.get(VCPU.runstateEntry, u.at) + LEFT_NS : 0;
  }
  #hasNothing(pcpu: number): boolean {
    const hv = this.#hv, at = hv.pcpuAt(pcpu);
    return hv.get(PCPU.given, at) === 0 && hv.load(PCPU.state, at) !== PCPU_STATE.off;
  }
  /** The pCPU that runs it looks up: is it to go on? */
  goesOn(v: Vcpu, pcpu: number): boolean {
    const hv = this.#hv, u = this.unit(v.at), now = hv.clock.now();
    if (!v.mayRun || hv.load(VCPU.mustLeave, v.at) !== 0) return false;
    if (now < u.sliceEndNs) return true;
    return this.locked(() => {
      const pool = this.poolOf(v.domain), { policy } = pool;
      this.#chargeRunning(pool, now);
      this.#account(pool, now);
      if (policy.readyAt(u, pool, now, pcpu) > now) return false;
      const { unit, nextNs } = this.#choose(pool, pcpu, now);
      if (unit && !this.#rouseFor(unit, pool) && policy.compare(u, unit, pool, pcpu) >= 0) return false;
      policy.taken?.(u, pool, pcpu);
      u.sliceEndNs = now + sliceOf(policy, u, pool, now, unit, nextNs);
      return true;
    });
  }
  /** Ns of system time at which the vCPU a pCPU runs is to be looked at. */
  sliceEnd(v: Vcpu): number { return this.unit(v.at).sliceEndNs; }
  /** The pCPU has saved its registers: queue it again if it may run. @param yields it has said that others may have its turn */
  leave(v: Vcpu, pcpu: number, yields = false): void {
    const hv = this.#hv;
    this.locked(() => {
      const pool = this.poolOf(v.domain), u = this.unit(v.at);
      this.#charge(u, pool, hv.clock.now());
      hv.set(PCPU.given, hv.pcpuAt(pcpu), 0);
      hv.store(VCPU.onPcpu, v.at, 0);
      if (v.mayRun) {
        u.yielded = yields;
        pool.append(v.at);
        this.#runstate(v.at, RUNSTATE.runnable);
        this.#spread(u, pool, pcpu);
      } else {
        this.#runstate(v.at, this.offState(v));
        if (!v.isUp) this.unassign(u, pool);        // off line it needs no pCPU of its own
      }
    });
    if (hv.load(VCPU.startup, v.at) !== 0) lapicStart(v);
    if (hv.trace.on & TRACE_CLASS.sched) hv.trace.emit(TRACE.vcpuBlock, v.domain.domid, v.id, v.pauseFlags);
  }
  /** One that may not stay on its pCPU is somebody else's to take, who may be asleep. */
  #spread(u: VcpuUnit, pool: Pool, pcpu: number): void {
    if (!(allowed(u, pool) >>> pcpu & 1) || this.poolOfPcpu(pcpu) !== pool) this.#rouseFor(u, pool);
  }
  /** A vCPU's pool or affinity is another now, or its pCPU left the pool: whoever runs it lets it go; under runLock. */
  replace(at: number): void {
    const hv = this.#hv, pool = this.#poolOfUnit(at), u = this.unit(at), queuedIn = hv.get(VCPU.queued, at), pcpu = hv.load(VCPU.onPcpu, at) - 1;
    if (u.assigned >= 0 && !(allowed(u, pool) >>> u.assigned & 1)) this.unassign(u, pool);
    if (queuedIn !== 0 && queuedIn !== pool.id + 1) {
      this.pools[queuedIn - 1]!.remove(at);
      pool.append(at);
    }
    if (pcpu >= 0 && !(this.poolOfPcpu(pcpu) === pool && allowed(u, pool) >>> pcpu & 1)) {
      hv.store(VCPU.mustLeave, at, 1);
      hv.kick(pcpu, PCPU_REQUEST.reschedule);
    } else if (hv.get(VCPU.queued, at) !== 0) this.#rouseFor(u, pool);
  }
  /** null: give its pCPU back. */
  unassign(u: VcpuUnit, pool: Pool): void {
    if (u.assigned < 0) return;
    pool.assigned = (pool.assigned & ~(1 << u.assigned)) >>> 0;
    u.assigned = -1;
    for (const at of pool.queue()) if (this.unit(at).assigned < 0) this.#rouseFor(this.unit(at), pool);
  }
  /** Could another vCPU of its pool use the pCPU? */
  isCrowded(d: Domain): boolean { return this.poolOf(d).nrQueued !== 0; }
  /** Drop a dying domain's vCPUs, which run no more. */
  forget(d: Domain): void {
    this.locked(() => {
      const pool = this.poolOf(d);
      for (const v of d.vcpus()) {
        pool.remove(v.at);
        this.unassign(this.unit(v.at), pool);
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
    return this.locked(() => {
      const state = hv.get(VCPU.runstate, v.at), entry = hv.get(VCPU.runstateEntry, v.at), at = (v.at + VCPU.runstateTime.at) >>> 3, t = hv.views.f64;
      return { state, entry, time: [t[at] as number, t[at + 1] as number, t[at + 2] as number, t[at + 3] as number] };
    });
  }
  /** Ns for which a vCPU has run, up to now. */
  cpuTimeNs(v: Vcpu): number {
    const { state, entry, time } = this.runstateOf(v);
    return time[RUNSTATE.running] + (state === RUNSTATE.running ? Math.max(0, this.#hv.clock.now() - entry) : 0);
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
  /** Another thread than a running vCPU's has armed timers: the pCPU that sleeps towards the next one looks again. */
  timersChanged(): void {
    const keeper = this.#hv.load(ROOT.timerKeeper, this.#hv.root);
    if (keeper !== 0) this.#rouse(keeper - 1);
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
        if (!v || hv.load(DOMAIN.pauseCount, v.domain.at) !== 0) continue;
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
  /** Ns until there is something that this pCPU may take; 0: now. */
  #nothingForNs(pcpu: number): number {
    const pool = this.poolOfPcpu(pcpu), { clock } = this.#hv;
    if (pool === null || pool.nrQueued === 0) return Number.POSITIVE_INFINITY;
    return this.locked(() => {
      const now = clock.now(), { unit, nextNs } = this.#choose(pool, pcpu, now);
      return unit ? 0 : Math.max(1000, nextNs - now);
    });
  }
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
        hv.or(ROOT.idlePcpus, hv.root, bit);        // a fence: who armed a nearer timer meanwhile and still saw the last keeper's word has not roused us
        timeoutMs = Math.min(timeoutMs, Math.max(0, (this.nextDeadline - hv.clock.now()) / 1e6));
      } else if (next < hv.get(ROOT.keeperDeadline, hv.root)) this.#rouse(keeper - 1);
      if (hv.load(ROOT.hasSpareCpu, hv.root) !== 0) {
        const untilMs = start + Math.min(timeoutMs, this.#linger.after());
        while (Atomics.load(hv.views.i32, word) === seen && performance.now() < untilMs);
      }
      const asleepSinceMs = performance.now(), sleepMs = timeoutMs - (asleepSinceMs - start);
      if (sleepMs > 0 && Atomics.wait(hv.views.i32, word, seen, sleepMs) !== "not-equal") this.#linger.woken(performance.now() - asleepSinceMs);
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
