/**
 * rtds: each vCPU has a budget a period; of those with budget left, the one whose period ends first runs, on any pCPU (global earliest deadline first). With extratime a vCPU whose budget is used
 * up goes on after all who have theirs. null: a pCPU for each vCPU, for good.
 * @see xl(1) sched-rtds
 */
import type { Policy, PoolState, Unit } from "./sched_policy.ts";

/** Bring its period up to now. */
function replenish(u: Unit, now: number): void {
  if (now < u.deadlineNs) return;
  u.deadlineNs = u.deadlineNs === 0 ? now + u.periodNs : u.deadlineNs + (Math.floor((now - u.deadlineNs) / u.periodNs) + 1) * u.periodNs;
  u.leftNs = u.budgetNs;
  u.level = 0;
}
/** Used-up budgets beyond which they count alike. */
const MOST_LEVEL = 1000;

export const rtds: Policy = {
  name: "rtds",
  woken: (u, _pool, now) => { replenish(u, now); u.yielded = false; },
  charge: (u, _pool, ranNs, now) => { u.leftNs -= ranNs; replenish(u, now); },
  readyAt: (u, _pool, now) => {
    replenish(u, now);
    if (u.leftNs > 0) return 0;
    if (!u.isExtratime) return u.deadlineNs;
    u.level = Math.min(u.level + 1, MOST_LEVEL);
    u.leftNs = u.budgetNs;
    return 0;
  },
  compare: (a, b) => a.level - b.level || a.deadlineNs - b.deadlineNs,
  sliceNs: (u) => u.leftNs,
  preempts: (woken, running) => rtds.compare(woken, running, NOWHERE, 0) < 0,
};
const NOWHERE: PoolState = { cpus: 0, ratelimitNs: 0, tsliceNs: 0, epoch: 0, nextAccountNs: 0, assigned: 0 };

/** Part of the pool's pCPUs that reservations take: more than `nr` pCPUs cannot be kept. */
export const utilisation = (units: Iterable<Pick<Unit, "periodNs" | "budgetNs">>): number => { let sum = 0; for (const u of units) sum += u.budgetNs / u.periodNs; return sum; };

/** How long a vCPU that has its pCPU for itself runs before anybody looks. */
const ALONE_NS = 100_000_000;
export const nullPolicy: Policy = {
  name: "null",
  woken: (u) => { u.yielded = false; },
  charge: () => {},
  readyAt: (u, pool, _now, pcpu) => (u.assigned === pcpu || (u.assigned < 0 && !(pool.assigned >>> pcpu & 1)) ? 0 : Number.POSITIVE_INFINITY),
  compare: (a, b) => b.assigned - a.assigned,
  taken: (u, pool, pcpu) => { u.assigned = pcpu; pool.assigned = (pool.assigned | 1 << pcpu) >>> 0; },
  sliceNs: () => ALONE_NS,
  preempts: () => false,
};
