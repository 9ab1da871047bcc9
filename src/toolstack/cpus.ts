/** A machine's processors as its administrator sees them: vCPUs and where they run, schedulers' parameters, cpupools. What `xl vcpu-*`, `sched-*` and `cpupool-*` are made of. */
import { UserError } from "../base/errors.ts";
import { createPool, destroyPool, moveDomain, movePcpu, pcpusOf } from "../hypervisor/cpupool.ts";
import type { Domain as HvDomain } from "../hypervisor/domain.ts";
import { VPF } from "../hypervisor/objects.ts";
import { ALL_PCPUS, nrCpus, type SchedName } from "../hypervisor/sched_policy.ts";
import { utilisation } from "../hypervisor/sched_rtds.ts";
import type { Pool, VcpuUnit } from "../hypervisor/sched_unit.ts";
import type { Vcpu } from "../hypervisor/vcpu.ts";
import type { Machine } from "./machine.ts";

export type { SchedName } from "../hypervisor/sched_policy.ts";
/** pCPU numbers. */
export type Affinity = readonly number[] | "all";
export type VcpuInfo = {
  readonly domid: number; readonly name: string; readonly vcpu: number;
  /** where it runs now */
  readonly pcpu: number | null;
  /** as xl prints it: r running, b blocked, p paused */
  readonly state: string;
  /** for which it has run */
  readonly timeNs: number;
  readonly hard: Affinity; readonly soft: Affinity; readonly isOnline: boolean;
};
/** cap: percent of one pCPU for the whole domain, 0: none. vcpu, periodUs, budgetUs, extratime: rtds only; without vcpu: all of them. */
export type SchedParams = { readonly weight?: number; readonly cap?: number; readonly vcpu?: number; readonly periodUs?: number; readonly budgetUs?: number; readonly extratime?: boolean };
export type PoolInfo = {
  readonly id: number; readonly name: string; readonly sched: SchedName; readonly pcpus: readonly number[]; readonly domains: readonly number[];
  /** credit and credit2: how long a vCPU runs before another may take its place */
  readonly ratelimitUs?: number;
  /** credit: the longest turn */
  readonly tsliceMs?: number;
};
/** How a domain's vCPUs are placed and served when it is made. */
export type CpuConfig = { readonly pool: string; /** per vCPU; those beyond: all */ readonly cpus: readonly Affinity[]; readonly cpusSoft: readonly Affinity[]; readonly sched: SchedParams; readonly vcpus: number; readonly maxvcpus: number };

const SCHEDS: readonly SchedName[] = ["credit", "credit2", "rtds", "null"], MAX_POOL_NAME = 63;
/** xl's own limits: sched-credit(2) -w and -c, sched-rtds -p and -b (public/domctl.h, xen/common/sched/rt.c) */
const LIMITS = { weight: 65535, leastUs: 10, mostUs: 4_294_967, ratelimitUs: [100, 500_000], tsliceMs: [1, 1000] } as const;
const whole = (x: unknown, least: number, most: number): x is number => typeof x === "number" && Number.isSafeInteger(x) && x >= least && x <= most;

/** What is wrong with scheduler parameters whichever scheduler they are for, or null. */
export function schedFault(p: SchedParams): string | null {
  if (p.weight !== undefined && !whole(p.weight, 1, LIMITS.weight)) return `A weight is a whole number from 1 to ${LIMITS.weight}, not ${p.weight}`;
  if (p.cap !== undefined && !whole(p.cap, 0, 100 * 128)) return `A cap is a whole number of percent of one pCPU from 0 (none) to 12800, not ${p.cap}`;
  for (const field of ["periodUs", "budgetUs"] as const) {
    const us = p[field];
    if (us !== undefined && !whole(us, LIMITS.leastUs, LIMITS.mostUs)) return `A ${field.slice(0, 6)} is ${LIMITS.leastUs} to ${LIMITS.mostUs} us, not ${us}`;
  }
  return null;
}

/** One a machine. All methods throw UserError. */
export class Cpus {
  readonly #machine: Machine;
  constructor(machine: Machine) { this.#machine = machine; }

  get #hv() { return this.#machine.hv; }
  get #nrPcpus(): number { return this.#hv.mm.nrPcpus; }
  #name(domid: number): string { return this.#machine.domains.find((d) => d.domid === domid)?.name ?? (domid === 0 ? "Domain-0" : "(null)"); }
  #domain(domid: number): HvDomain {
    const d = domid === 0 ? null : this.#hv.domain(domid);
    if (!d || d.isDying) throw new UserError(domid === 0 ? "Domain 0 is this machine's main thread: no scheduler has it" : `There is no domain ${domid}`);
    return d;
  }
  #guests(): HvDomain[] { return [...this.#hv.domains()].filter((d) => d.domid !== 0 && !d.isDying); }
  #pool(id: number): Pool {
    const pool = this.#hv.scheduler.pools[id];
    if (!pool?.isUsed) throw new UserError(`There is no cpupool ${id}`);
    return pool;
  }
  #affinity(mask: number): Affinity {
    const there = pcpusOf(mask).filter((i) => i < this.#nrPcpus);
    return there.length === this.#nrPcpus ? "all" : there;
  }
  #mask(a: Affinity): number {
    if (a === "all") return ALL_PCPUS;
    if (a.length === 0) throw new UserError("An affinity names at least one pCPU");
    for (const i of a) this.#checkPcpu(i);
    return a.reduce((mask, i) => (mask | 1 << i) >>> 0, 0);
  }
  #hardMask(a: Affinity, pool: Pool): number {
    const mask = this.#mask(a);
    if ((mask & pool.cpus) === 0) throw new UserError(`None of the pCPUs ${a === "all" ? a : a.join(", ")} is in ${pool.name}, where the domain runs: it has ${pcpusOf(pool.cpus).join(", ")}`);
    return mask;
  }
  #checkPcpu(i: number): void { if (!whole(i, 0, this.#nrPcpus - 1)) throw new UserError(`There is no pCPU ${i}: this machine has ${this.#nrPcpus}, numbered from 0`); }
  #unit(v: Vcpu): VcpuUnit { return this.#hv.scheduler.unit(v.at); }

  // vCPUs ------------------------------------------------------------------------
  /** All vCPUs, or a domain's. */
  vcpus(domid?: number): VcpuInfo[] {
    return (domid === undefined ? this.#guests() : [this.#domain(domid)]).flatMap((d) => Array.from(d.vcpus(), (v) => {
      const on = v.onPcpu, u = this.#unit(v), isPaused = !v.isUp || !d.mayRun;
      return {
        domid: d.domid, name: this.#name(d.domid), vcpu: v.id, pcpu: on < 0 ? null : on, timeNs: this.#hv.scheduler.cpuTimeNs(v), hard: this.#affinity(u.hard), soft: this.#affinity(u.soft), isOnline: v.isUp,
        state: v.isUp ? `${on < 0 ? "-" : "r"}${v.pauseFlags & VPF.blocked ? "b" : "-"}${isPaused ? "p" : "-"}` : "--p",
      };
    }));
  }
  /** Where a vCPU may run (hard) and had better run (soft); null: as it is. */
  pin(domid: number, vcpu: number | "all", hard: Affinity | null, soft: Affinity | null): void {
    const d = this.#domain(domid), { scheduler } = this.#hv, one = vcpu === "all" ? null : d.vcpu(vcpu);
    if (vcpu !== "all" && !one) throw new UserError(`Domain ${domid} has no vCPU ${vcpu}: it has ${d.nrVcpus}, numbered from 0`);
    const hardMask = hard && this.#hardMask(hard, scheduler.poolOf(d)), softMask = soft && this.#mask(soft);
    scheduler.locked(() => {
      for (const v of one ? [one] : d.vcpus()) {
        if (hardMask !== null) this.#unit(v).hard = hardMask;
        if (softMask !== null) this.#unit(v).soft = softMask;
        scheduler.replace(v.at);
      }
    });
  }
  /** Ask the guest to have its first `nr` vCPUs on line and the others off. */
  setOnline(domid: number, nr: number): void {
    const d = this.#domain(domid);
    if (d.end) throw new UserError(`Domain ${domid} has shut down`);
    if (!whole(nr, 1, d.nrVcpus)) throw new UserError(`Domain ${domid} can have 1 to ${d.nrVcpus} vCPUs on line (its maxvcpus), not ${nr}`);
    this.#machine.xs.transaction((t) => t.writeAll(Array.from({ length: d.nrVcpus }, (_, i) => ({ path: `/local/domain/${domid}/cpu/${i}/availability`, value: i < nr ? "online" : "offline" }))));
  }

  // Schedulers -------------------------------------------------------------------
  /** A domain's parameters: of credit and credit2 one entry, of rtds one a vCPU, of null none. */
  sched(domid: number): { sched: SchedName; params: SchedParams[] } {
    const d = this.#domain(domid), { name } = this.#hv.scheduler.poolOf(d).policy, { share } = this.#unit(d.vcpu(0)!);
    if (name === "null") return { sched: name, params: [] };
    if (name !== "rtds") return { sched: name, params: [{ weight: share.weight, cap: share.capPct }] };
    return { sched: name, params: Array.from(d.vcpus(), (v) => { const u = this.#unit(v); return { vcpu: v.id, periodUs: u.periodNs / 1000, budgetUs: u.budgetNs / 1000, extratime: u.isExtratime }; }) };
  }
  setSched(domid: number, p: SchedParams): void {
    const d = this.#domain(domid), pool = this.#hv.scheduler.poolOf(d), { name } = pool.policy, fault = schedFault(p);
    if (fault) throw new UserError(fault);
    const wrong = (name === "rtds" || name === "null" ? ["weight", "cap"] as const : []).find((f) => p[f] !== undefined) ?? (name === "rtds" ? [] : ["vcpu", "periodUs", "budgetUs", "extratime"] as const).find((f) => p[f] !== undefined);
    if (wrong) throw new UserError(`Domain ${domid} runs in ${pool.name} under ${name}, which has no ${wrong}`);
    this.#apply(d, p);
  }
  /** Set what is given, whichever scheduler uses it. */
  #apply(d: HvDomain, p: SchedParams): void {
    const { scheduler } = this.#hv, pool = scheduler.poolOf(d), { share } = this.#unit(d.vcpu(0)!);
    if (p.cap !== undefined && p.cap > 100 * d.nrVcpus) throw new UserError(`A cap of ${p.cap} % is more than the ${d.nrVcpus} vCPUs of domain ${d.domid} can use; 0 means none`);
    if (p.vcpu !== undefined && !d.vcpu(p.vcpu)) throw new UserError(`Domain ${d.domid} has no vCPU ${p.vcpu}: it has ${d.nrVcpus}, numbered from 0`);
    const units = p.vcpu === undefined ? Array.from(d.vcpus(), (v) => this.#unit(v)) : [this.#unit(d.vcpu(p.vcpu)!)];
    const terms = new Map(units.map((u) => [u.at, { periodNs: (p.periodUs ?? u.periodNs / 1000) * 1000, budgetNs: (p.budgetUs ?? u.budgetNs / 1000) * 1000 }]));
    for (const t of terms.values()) if (t.budgetNs > t.periodNs) throw new UserError(`A budget of ${t.budgetNs / 1000} us does not fit into a period of ${t.periodNs / 1000} us`);
    if (pool.policy.name === "rtds" && (p.periodUs ?? p.budgetUs) !== undefined) this.#admit(pool, (u) => terms.get(u.at) ?? u);
    scheduler.locked(() => {
      if (p.weight !== undefined) share.weight = p.weight;
      if (p.cap !== undefined) {
        share.capPct = p.cap;
        share.capLeftNs = 0;
        share.capNextNs = this.#hv.clock.now();
      }
      for (const u of units) {
        const t = terms.get(u.at)!;
        if (t.periodNs !== u.periodNs || t.budgetNs !== u.budgetNs) u.deadlineNs = 0;
        u.periodNs = t.periodNs;
        u.budgetNs = t.budgetNs;
        if (p.extratime !== undefined) u.isExtratime = p.extratime;
      }
    });
    for (const v of d.vcpus()) v.kickIfRunning();
  }
  /** What all vCPUs on line in a pool reserve must be there. */
  #admit(pool: Pool, terms: (u: VcpuUnit) => { periodNs: number; budgetNs: number }): void {
    const asked = utilisation(this.#guests().filter((d) => this.#hv.scheduler.poolOf(d) === pool).flatMap((d) => Array.from(d.vcpus()).filter((v) => v.isUp).map((v) => terms(this.#unit(v))))), there = nrCpus(pool.cpus);
    if (asked > there + 1e-9) throw new UserError(`${pool.name} cannot keep that: its vCPUs would reserve ${asked.toFixed(2)} pCPUs, and it has ${there}; lower a budget, or add a pCPU`);
  }
  /** Where a domain would be placed, which this says beforehand. @throws UserError where it cannot be */
  placeFor(c: CpuConfig): Pool {
    const { pools } = this.#hv.scheduler, pool = c.pool === "" ? pools[0] : pools.find((p) => p.isUsed && p.name === c.pool);
    if (!pool) throw new UserError(`pool: There is no cpupool "${c.pool}"; there are ${this.pools().map((p) => `"${p.name}"`).join(", ")}`);
    if (pool.cpus === 0) throw new UserError(`pool: ${pool.name} has no pCPUs`);
    for (const soft of c.cpusSoft.slice(0, c.maxvcpus)) this.#mask(soft);
    for (const hard of c.cpus.slice(0, c.maxvcpus)) this.#hardMask(hard, pool);
    return pool;
  }
  /** Place a domain that was just made and does not run yet. */
  place(d: HvDomain, c: CpuConfig): void {
    const pool = this.placeFor(c);
    if (pool.policy.name === "null" && c.vcpus > nrCpus(pool.cpus & ~pool.assigned)) this.#machine.log(`${pool.name} gives each vCPU a pCPU of its own and has ${nrCpus(pool.cpus & ~pool.assigned)} left: some of the ${c.vcpus} vCPUs will wait`);
    if (pool.id !== 0) moveDomain(this.#hv, d, pool);
    for (const v of d.vcpus()) this.pin(d.domid, v.id, c.cpus[v.id] ?? null, c.cpusSoft[v.id] ?? null);
    this.#apply(d, c.sched);
  }

  // Cpupools ---------------------------------------------------------------------
  #info(pool: Pool): PoolInfo {
    const { scheduler } = this.#hv, { name: sched } = pool.policy;
    return {
      id: pool.id, name: pool.name, sched, pcpus: pcpusOf(pool.cpus), domains: this.#guests().filter((d) => scheduler.poolOf(d) === pool).map((d) => d.domid),
      ...(sched === "credit" || sched === "credit2" ? { ratelimitUs: pool.ratelimitNs / 1000 } : {}), ...(sched === "credit" ? { tsliceMs: pool.tsliceNs / 1e6 } : {}),
    };
  }
  pools(): PoolInfo[] { return this.#hv.scheduler.pools.filter((p) => p.isUsed).map((p) => this.#info(p)); }
  #checkPoolName(name: string, but: Pool | null): void {
    if (name === "" || new TextEncoder().encode(name).length > MAX_POOL_NAME || /[\0/\n]/.test(name)) throw new UserError(`"${name}" is no name for a cpupool: 1 to ${MAX_POOL_NAME} bytes without slash and line end`);
    if (this.#hv.scheduler.pools.some((p) => p.isUsed && p !== but && p.name === name)) throw new UserError(`There is a cpupool "${name}" already`);
  }
  #checkFree(pcpu: number): void {
    this.#checkPcpu(pcpu);
    const owner = this.#hv.scheduler.poolOfPcpu(pcpu);
    if (owner) throw new UserError(`pCPU ${pcpu} is in ${owner.name}; take it out there first`);
  }
  createPool(name: string, sched: SchedName, pcpus: readonly number[]): PoolInfo {
    this.#checkPoolName(name, null);
    if (!SCHEDS.includes(sched)) throw new UserError(`There is no scheduler "${sched}"; there are ${SCHEDS.join(", ")}`);
    for (const i of pcpus) this.#checkFree(i);
    const pool = createPool(this.#hv, name, sched, [...new Set(pcpus)]);
    if (!pool) throw new UserError("A machine has room for 32 cpupools, and all are in use");
    return this.#info(pool);
  }
  destroyPool(id: number): void {
    const pool = this.#pool(id), { domains } = this.#info(pool);
    if (id === 0) throw new UserError(`${pool.name} is where new domains go: it stays`);
    if (domains.length) throw new UserError(`${pool.name} has domains in it (${domains.join(", ")}); move them first`);
    destroyPool(this.#hv, pool);
  }
  renamePool(id: number, name: string): void {
    const pool = this.#pool(id);
    this.#checkPoolName(name, pool);
    this.#hv.scheduler.locked(() => { pool.name = name; });
  }
  addCpu(id: number, pcpu: number): void {
    const pool = this.#pool(id);
    this.#checkFree(pcpu);
    movePcpu(this.#hv, pcpu, pool);
  }
  removeCpu(id: number, pcpu: number): void {
    const pool = this.#pool(id), { domains } = this.#info(pool);
    this.#checkPcpu(pcpu);
    if (!(pool.cpus >>> pcpu & 1)) throw new UserError(`pCPU ${pcpu} is not in ${pool.name}`);
    if (domains.length && nrCpus(pool.cpus) === 1) throw new UserError(`pCPU ${pcpu} is the last of ${pool.name}, which has domains in it (${domains.join(", ")})`);
    movePcpu(this.#hv, pcpu, null);
  }
  /** Resolves when none of its vCPUs runs outside the pool any more. */
  async movePool(domid: number, id: number): Promise<void> {
    const d = this.#domain(domid), pool = this.#pool(id), { scheduler } = this.#hv;
    if (pool.cpus === 0) throw new UserError(`${pool.name} has no pCPUs`);
    if (scheduler.poolOf(d) === pool) return;
    moveDomain(this.#hv, d, pool);
    while (!d.isDying && [...d.vcpus()].some((v) => v.onPcpu >= 0 && !(pool.cpus >>> v.onPcpu & 1))) await new Promise((done) => setTimeout(done, 1));
  }
  setPoolParams(id: number, p: { ratelimitUs?: number; tsliceMs?: number }): void {
    const pool = this.#pool(id), { name } = pool.policy, { ratelimitUs, tsliceMs } = p, [least, most] = LIMITS.ratelimitUs, [leastMs, mostMs] = LIMITS.tsliceMs;
    if (name !== "credit" && (name !== "credit2" || tsliceMs !== undefined)) throw new UserError(`${pool.name} runs under ${name}, which has no ${tsliceMs !== undefined ? "time slice" : "rate limit"} to set`);
    if (ratelimitUs !== undefined && ratelimitUs !== 0 && !whole(ratelimitUs, least, most)) throw new UserError(`A rate limit is ${least} to ${most} us, or 0 for none, not ${ratelimitUs}`);
    if (tsliceMs !== undefined && !whole(tsliceMs, leastMs, mostMs)) throw new UserError(`A time slice is ${leastMs} to ${mostMs} ms, not ${tsliceMs}`);
    if ((ratelimitUs ?? pool.ratelimitNs / 1000) > (tsliceMs ?? pool.tsliceNs / 1e6) * 1000 && name === "credit") throw new UserError("The rate limit cannot be longer than the time slice");
    this.#hv.scheduler.locked(() => {
      if (ratelimitUs !== undefined) pool.ratelimitNs = ratelimitUs * 1000;
      if (tsliceMs !== undefined) pool.tsliceNs = tsliceMs * 1e6;
    });
  }
}
