/** vCPUs, domains and cpupools as the policies see them: windows to their structs. All of it changes under runLock only. */
import type { Field } from "../base/struct.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { DOMAIN, HYPERVISOR_ROOT as ROOT, MAX_POOLS, POOL, VCPU } from "./objects.ts";
import { credit, credit2 } from "./sched_credit.ts";
import { type Policy, type PoolState, SCHED_ID, type Share, type Unit } from "./sched_policy.ts";
import { nullPolicy, rtds } from "./sched_rtds.ts";

/** The built policies by their number. */
export const POLICIES: ReadonlyMap<number, Policy> = new Map([credit2, credit, rtds, nullPolicy].map((p) => [SCHED_ID[p.name], p]));

/** A struct's fields as properties. */
class Window {
  readonly hv: Hypervisor;
  readonly at: number;
  constructor(hv: Hypervisor, at: number) { this.hv = hv; this.at = at; }
  protected f(field: Field<number>): number { return this.hv.views.f64[(this.at + field.at) >>> 3] as number; }
  protected setF(field: Field<number>, x: number): void { this.hv.views.f64[(this.at + field.at) >>> 3] = x; }
  protected u(field: Field<number>): number { return this.hv.views.u32[(this.at + field.at) >>> 2] as number; }
  protected setU(field: Field<number>, x: number): void { this.hv.views.u32[(this.at + field.at) >>> 2] = x; }
}

export class DomainShare extends Window implements Share {
  get weight(): number { return this.u(DOMAIN.weight); }
  set weight(x: number) { this.setU(DOMAIN.weight, x); }
  get capPct(): number { return this.u(DOMAIN.capPct); }
  set capPct(x: number) { this.setU(DOMAIN.capPct, x); }
  get capLeftNs(): number { return this.f(DOMAIN.capLeftNs); }
  set capLeftNs(x: number) { this.setF(DOMAIN.capLeftNs, x); }
  get capNextNs(): number { return this.f(DOMAIN.capNextNs); }
  set capNextNs(x: number) { this.setF(DOMAIN.capNextNs, x); }
}

export class VcpuUnit extends Window implements Unit {
  #share: DomainShare | null = null;
  get share(): DomainShare {
    const at = this.u(VCPU.domain);
    if (this.#share?.at !== at) this.#share = new DomainShare(this.hv, at);
    return this.#share;
  }
  get hard(): number { return this.u(VCPU.hard); }
  set hard(x: number) { this.setU(VCPU.hard, x); }
  get soft(): number { return this.u(VCPU.soft); }
  set soft(x: number) { this.setU(VCPU.soft, x); }
  get lastPcpu(): number { return this.u(VCPU.homePcpu) - 1; }
  set lastPcpu(x: number) { this.setU(VCPU.homePcpu, x + 1); }
  get yielded(): boolean { return this.u(VCPU.yielded) !== 0; }
  set yielded(x: boolean) { this.setU(VCPU.yielded, Number(x)); }
  get creditNs(): number { return this.f(VCPU.creditNs); }
  set creditNs(x: number) { this.setF(VCPU.creditNs, x); }
  get epoch(): number { return this.u(VCPU.epoch); }
  set epoch(x: number) { this.setU(VCPU.epoch, x); }
  get isBoosted(): boolean { return this.u(VCPU.isBoosted) !== 0; }
  set isBoosted(x: boolean) { this.setU(VCPU.isBoosted, Number(x)); }
  get ranNs(): number { return this.f(VCPU.ranNs); }
  set ranNs(x: number) { this.setF(VCPU.ranNs, x); }
  get periodNs(): number { return this.f(VCPU.periodNs); }
  set periodNs(x: number) { this.setF(VCPU.periodNs, x); }
  get budgetNs(): number { return this.f(VCPU.budgetNs); }
  set budgetNs(x: number) { this.setF(VCPU.budgetNs, x); }
  get isExtratime(): boolean { return this.u(VCPU.isExtratime) !== 0; }
  set isExtratime(x: boolean) { this.setU(VCPU.isExtratime, Number(x)); }
  get leftNs(): number { return this.f(VCPU.leftNs); }
  set leftNs(x: number) { this.setF(VCPU.leftNs, x); }
  get deadlineNs(): number { return this.f(VCPU.deadlineNs); }
  set deadlineNs(x: number) { this.setF(VCPU.deadlineNs, x); }
  get level(): number { return this.u(VCPU.level); }
  set level(x: number) { this.setU(VCPU.level, x); }
  get assigned(): number { return this.u(VCPU.assigned) - 1; }
  set assigned(x: number) { this.setU(VCPU.assigned, x + 1); }
  /** since when it runs, up to when that was charged, and when it is to be looked at again */
  get startedNs(): number { return this.f(VCPU.startedNs); }
  set startedNs(x: number) { this.setF(VCPU.startedNs, x); }
  get chargedNs(): number { return this.f(VCPU.chargedNs); }
  set chargedNs(x: number) { this.setF(VCPU.chargedNs, x); }
  get sliceEndNs(): number { return this.f(VCPU.sliceEndNs); }
  set sliceEndNs(x: number) { this.setF(VCPU.sliceEndNs, x); }
}

/** A cpupool; the waiting vCPUs are a list through VCPU.next. */
export class Pool extends Window implements PoolState {
  readonly id: number;
  constructor(hv: Hypervisor, id: number) {
    super(hv, hv.root + ROOT.pools.at + id * POOL.sizeof);
    this.id = id;
  }
  get isUsed(): boolean { return this.u(POOL.sched) !== 0; }
  get policy(): Policy { return POLICIES.get(this.u(POOL.sched)) ?? credit2; }
  setSched(id: number): void { this.setU(POOL.sched, id); }
  get cpus(): number { return this.u(POOL.cpus); }
  set cpus(x: number) { this.setU(POOL.cpus, x); }
  get epoch(): number { return this.u(POOL.epoch); }
  set epoch(x: number) { this.setU(POOL.epoch, x); }
  get assigned(): number { return this.u(POOL.assigned); }
  set assigned(x: number) { this.setU(POOL.assigned, x); }
  get ratelimitNs(): number { return this.f(POOL.ratelimitNs); }
  set ratelimitNs(x: number) { this.setF(POOL.ratelimitNs, x); }
  get tsliceNs(): number { return this.f(POOL.tsliceNs); }
  set tsliceNs(x: number) { this.setF(POOL.tsliceNs, x); }
  get nextAccountNs(): number { return this.f(POOL.nextAccountNs); }
  set nextAccountNs(x: number) { this.setF(POOL.nextAccountNs, x); }
  get nrQueued(): number { return this.hv.load(POOL.nrQueued, this.at); }
  get name(): string { return new TextDecoder().decode(this.hv.views.u8.slice(this.at + POOL.name.at, this.at + POOL.name.at + POOL.name.size)).replace(/\0.*$/, ""); }
  set name(text: string) {
    const at = this.at + POOL.name.at;
    this.hv.views.u8.fill(0, at, at + POOL.name.size).set(new TextEncoder().encode(text).subarray(0, POOL.name.size), at);
  }

  append(v: number): void {
    const { hv } = this, tail = this.u(POOL.tail);
    hv.set(VCPU.queued, v, this.id + 1);
    hv.set(VCPU.next, v, 0);
    if (tail) hv.set(VCPU.next, tail, v);
    else this.setU(POOL.head, v);
    this.setU(POOL.tail, v);
    hv.add(POOL.nrQueued, this.at, 1);
  }
  remove(v: number): void {
    const { hv } = this;
    for (let before = 0, at = this.u(POOL.head); at !== 0; before = at, at = hv.get(VCPU.next, at)) {
      if (at !== v) continue;
      const next = hv.get(VCPU.next, v);
      if (before) hv.set(VCPU.next, before, next);
      else this.setU(POOL.head, next);
      if (this.u(POOL.tail) === v) this.setU(POOL.tail, before);
      hv.set(VCPU.queued, v, 0);
      hv.add(POOL.nrQueued, this.at, -1);
      return;
    }
  }
  /** Addresses of the vCPUs that wait, in order. */
  *queue(): Generator<number> {
    for (let at = this.u(POOL.head); at !== 0; at = this.hv.get(VCPU.next, at)) yield at;
  }
}
/** All cpupools of the machine, those not in use too. */
export const poolsOf = (hv: Hypervisor): readonly Pool[] => Array.from({ length: MAX_POOLS }, (_, id) => new Pool(hv, id));
