/**
 * Scheduling as decisions: who runs next, for how long, who goes first. Pure functions over what is known of vCPUs and their pool; memory, locks and
 * clocks are the scheduler's (scheduler.ts) or a simulation's business. All times are ns of system time, sets of pCPUs are bit masks.
 */

/** The schedulers by xl's names. */
export type SchedName = "credit" | "credit2" | "rtds" | "null";
/** XEN_SCHEDULER_* of public/domctl.h. */
export const SCHED_ID: Readonly<Record<SchedName, number>> = { credit: 5, credit2: 6, rtds: 8, null: 9 };
/** What a domain and a vCPU have before anybody says otherwise; xl's own values. */
export const DEFAULT_WEIGHT = 256, DEFAULT_RATELIMIT_NS = 1_000_000, DEFAULT_TSLICE_NS = 30_000_000, DEFAULT_PERIOD_NS = 10_000_000, DEFAULT_BUDGET_NS = 4_000_000;

/** What a domain's vCPUs have in common. */
export interface Share {
  readonly weight: number;
  /** percent of one pCPU, all its vCPUs together; 0: no cap */
  readonly capPct: number;
  /** what the cap leaves in this period, below 0 when it was overrun, and when the next one begins */
  capLeftNs: number;
  capNextNs: number;
}
/** A vCPU to a policy. */
export interface Unit {
  readonly share: Share;
  /** pCPUs it may run on, and those it had better run on */
  readonly hard: number;
  readonly soft: number;
  /** where it ran last, or -1 */
  readonly lastPcpu: number;
  /** it gave its turn to others [cleared when it is chosen] */
  yielded: boolean;
  /** credit, credit2: what it may still use; `epoch`: how many of its pool's resets it has been given */
  creditNs: number;
  epoch: number;
  /** credit: woke with credit left; time it ran since the last accounting */
  isBoosted: boolean;
  ranNs: number;
  /** rtds: its terms, what is left of the budget, when the period ends, how often the budget was used up in it */
  readonly periodNs: number;
  readonly budgetNs: number;
  readonly isExtratime: boolean;
  leftNs: number;
  deadlineNs: number;
  level: number;
  /** null: the pCPU that is its own, or -1 */
  assigned: number;
}
/** A cpupool to a policy. */
export interface PoolState {
  readonly cpus: number;
  readonly ratelimitNs: number;
  readonly tsliceNs: number;
  /** credit2: how often everybody was given credit anew. credit: when that is due next */
  epoch: number;
  nextAccountNs: number;
  /** null: pCPUs that have a vCPU of their own */
  assigned: number;
}

/** A scheduler's decisions. */
export interface Policy {
  readonly name: SchedName;
  /** It may run again after having waited. */
  woken(u: Unit, pool: PoolState, now: number): void;
  /** It ran for so long, until now. */
  charge(u: Unit, pool: PoolState, ranNs: number, now: number): void;
  /** When it may run on that pCPU: not later than now when at once; Infinity: not until something changes. */
  readyAt(u: Unit, pool: PoolState, now: number, pcpu: number): number;
  /** Negative: a rather than b, both ready, on that pCPU; 0: the one that has waited longer. */
  compare(a: Unit, b: Unit, pool: PoolState, pcpu: number): number;
  /** It was chosen. */
  taken?(u: Unit, pool: PoolState, pcpu: number): void;
  /** For how long it may run with the best of the others waiting. */
  sliceNs(u: Unit, rival: Unit | null, pool: PoolState): number;
  /** Is a vCPU that woke to take the place of one that runs? */
  preempts(woken: Unit, running: Unit, pool: PoolState, pcpu: number): boolean;
  /** To be called with all vCPUs of the pool when `nextAccountNs` has passed. */
  account?(units: readonly Unit[], pool: PoolState, now: number): void;
}

/** An affinity of all pCPUs. */
export const ALL_PCPUS = 0xffffffff;
/** Bits set in a mask. */
export const nrCpus = (mask: number): number => { let n = 0; for (let x = mask >>> 0; x !== 0; x = (x & x - 1) >>> 0) n++; return n; };
const has = (mask: number, pcpu: number): boolean => (mask >>> pcpu & 1) !== 0;
/** Where it may run in that pool: its hard affinity, or anywhere when that names none of the pool's pCPUs. */
export const allowed = (u: Unit, pool: PoolState): number => ((u.hard & pool.cpus) || pool.cpus) >>> 0;

/** Among those who wait, in their order: who is to run on the pCPU. `leftUntil`: another pCPU is to take it up to then. */
export function choose<U extends Unit>(queue: Iterable<U>, policy: Policy, pool: PoolState, pcpu: number, now: number, leftUntil: (u: U) => number = () => 0): { unit: U | null; rival: U | null; /** when somebody else becomes ready */ nextNs: number } {
  let unit: U | null = null, rival: U | null = null, nextNs = Number.POSITIVE_INFINITY;
  const goesBefore = (a: U, b: U): boolean => (a.yielded || b.yielded ? b.yielded && !a.yielded : policy.compare(a, b, pool, pcpu) < 0);
  for (const u of queue) {
    if (!has(allowed(u, pool), pcpu)) continue;
    const at = Math.max(policy.readyAt(u, pool, now, pcpu), leftUntil(u));
    if (at > now) nextNs = Math.min(nextNs, at);
    else if (unit === null || goesBefore(u, unit)) { rival = unit; unit = u; }
    else if (rival === null || goesBefore(u, rival)) rival = u;
  }
  return { unit, rival, nextNs };
}
/** How long it runs, by the policy and by who becomes ready meanwhile. */
export const sliceOf = (policy: Policy, u: Unit, pool: PoolState, now: number, rival: Unit | null, nextNs: number): number =>
  Math.max(LEAST_SLICE_NS, Math.min(policy.sliceNs(u, rival, pool), Math.max(nextNs - now, policy.name === "rtds" ? 0 : pool.ratelimitNs)));
const LEAST_SLICE_NS = 50_000;

/** How much wall clock's worth a capped domain may have saved up that wanted to run and could not: a busy host lets a pCPU's thread wait for so long now and then. */
const CAP_KEPT_NS = 300_000_000;
/** One that slept has saved nothing: it begins with one period's worth at most. */
export function capWoken(s: Share, periodNs: number): void { s.capLeftNs = Math.min(s.capLeftNs, periodNs * s.capPct / 100); }
/** Give a capped domain what the new periods bring. What could not be used while it wanted to run is kept for some more periods; what was overrun is owed. @returns when its vCPUs may run */
export function capReadyAt(s: Share, periodNs: number, now: number): number {
  if (s.capPct === 0) return 0;
  const quotaNs = periodNs * s.capPct / 100;
  if (now >= s.capNextNs) {
    const nr = Math.floor((now - s.capNextNs) / periodNs) + 1;
    s.capLeftNs = Math.min(s.capLeftNs + nr * quotaNs, Math.max(quotaNs, CAP_KEPT_NS * s.capPct / 100));
    s.capNextNs += nr * periodNs;
  }
  return s.capLeftNs > 0 ? 0 : s.capNextNs + Math.floor(-s.capLeftNs / quotaNs) * periodNs;
}
