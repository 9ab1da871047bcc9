/**
 * The two proportional-share schedulers. credit2: a vCPU's credit falls while it runs, the faster the less it weighs; who has most runs, and when nobody has any all are given anew.
 * credit: every `tsliceNs` what the pool's pCPUs can do is divided among the vCPUs that ran or wait, by weight; who has some left goes before who has not, in turns.
 * @see docs/misc/xen-command-line, xl(1) sched-credit and sched-credit2 for the parameters' meaning
 */
import { capReadyAt, capWoken, nrCpus, type Policy, type PoolState, type Unit } from "./sched_policy.ts";

/** What a reset gives, and what may be kept over one, in ns of credit2's credit. */
const INIT_NS = 10_000_000, CARRY_NS = 5_000_000;
/** How far below the next one's credit one runs before they change places, and the longest turn. */
const GRANULE_NS = 4_000_000, MOST_NS = 10_000_000;
/** What having run on a pCPU before is worth there: its TLBs are kept and its code is translated, which elsewhere takes a millisecond to come back. As much for soft affinity. */
const HOME_NS = 6_000_000;
/** What the one that runs is ahead of one that woke. */
const STAY_NS = 1_500_000;
/** Weight that burns credit in real time. */
const UNIT_WEIGHT = 256;
const CAP_PERIOD_NS = 10_000_000;

/** Give a vCPU the resets it has not had. */
function settle(u: Unit, pool: PoolState): number {
  const missed = pool.epoch - u.epoch >>> 0;
  if (missed !== 0) {
    u.creditNs = Math.min(u.creditNs + missed * INIT_NS, INIT_NS + CARRY_NS);
    u.epoch = pool.epoch;
  }
  return u.creditNs;
}
const bonus = (u: Unit, pcpu: number): number => (u.lastPcpu === pcpu ? HOME_NS : 0) + (u.soft >>> pcpu & 1 ? HOME_NS : 0);

export const credit2: Policy = {
  name: "credit2",
  woken: (u, pool) => { settle(u, pool); u.yielded = false; capWoken(u.share, CAP_PERIOD_NS); },
  charge: (u, pool, ranNs) => {
    u.creditNs = settle(u, pool) - ranNs * UNIT_WEIGHT / u.share.weight;
    if (u.share.capPct !== 0) u.share.capLeftNs -= ranNs;
  },
  readyAt: (u, _pool, now) => capReadyAt(u.share, CAP_PERIOD_NS, now),
  compare: (a, b, pool, pcpu) => settle(b, pool) + bonus(b, pcpu) - settle(a, pool) - bonus(a, pcpu),
  taken: (u, pool) => {
    const owed = -settle(u, pool);
    if (owed < 0) return;
    pool.epoch = (pool.epoch + Math.floor(owed / INIT_NS) + 1) >>> 0;
    settle(u, pool);
  },
  sliceNs: (u, rival, pool) => {
    const ahead = rival ? settle(u, pool) - settle(rival, pool) : MOST_NS, ns = Math.max(pool.ratelimitNs, Math.min(MOST_NS, (ahead + GRANULE_NS) * u.share.weight / UNIT_WEIGHT));
    return u.share.capPct === 0 ? ns : Math.min(ns, u.share.capLeftNs);
  },
  preempts: (woken, running, pool, pcpu) => settle(woken, pool) > settle(running, pool) + (running.lastPcpu === pcpu ? STAY_NS : 0),
};

/** Before all others: woke with credit left; then who has credit, then who has none. */
const rank = (u: Unit): number => (u.isBoosted ? 0 : u.creditNs > 0 ? 1 : 2);
/** Turns that may be owed: who runs although he has no credit left, because nobody has, owes it. */
const MOST_DEBT = 10;
/** How long one that woke goes before all others. */
const BOOST_NS = 10_000_000;

export const credit: Policy = {
  name: "credit",
  woken: (u, pool) => { u.isBoosted = u.creditNs > 0; u.yielded = false; capWoken(u.share, pool.tsliceNs); },
  charge: (u, _pool, ranNs) => {
    u.creditNs -= ranNs;
    u.ranNs += ranNs;
    if (ranNs >= BOOST_NS || u.creditNs <= 0) u.isBoosted = false;
    if (u.share.capPct !== 0) u.share.capLeftNs -= ranNs;
  },
  readyAt: (u, pool, now) => capReadyAt(u.share, pool.tsliceNs, now),
  compare: (a, b, _pool, pcpu) => rank(a) - rank(b) || Number((b.soft >>> pcpu & 1) !== 0) - Number((a.soft >>> pcpu & 1) !== 0),
  sliceNs: (u, rival, pool) => {
    const own = rival === null ? pool.tsliceNs : u.isBoosted ? BOOST_NS : u.creditNs > 0 ? u.creditNs : pool.tsliceNs / 3, ns = Math.min(Math.max(pool.ratelimitNs, own), pool.tsliceNs);
    return u.share.capPct === 0 ? ns : Math.min(ns, u.share.capLeftNs);
  },
  preempts: (woken, running) => rank(woken) < rank(running),
  account: (units, pool, now) => {
    // all who ran, or would have liked to, are given their part of what all pCPUs can do in a turn
    const active = units.filter((u) => u.ranNs > 0 || u.creditNs <= 0), weights = active.reduce((sum, u) => sum + u.share.weight, 0), turns = pool.nextAccountNs === 0 ? 1 : Math.min(MOST_DEBT, Math.floor((now - pool.nextAccountNs) / pool.tsliceNs) + 1);
    const total = turns * pool.tsliceNs * nrCpus(pool.cpus);
    for (const u of active) {
      u.creditNs = Math.max(MOST_DEBT * -pool.tsliceNs, Math.min(u.creditNs + total * u.share.weight / weights, pool.tsliceNs));
      u.ranNs = 0;
    }
    pool.nextAccountNs = pool.nextAccountNs === 0 || turns === MOST_DEBT ? now + pool.tsliceNs : pool.nextAccountNs + turns * pool.tsliceNs;
  },
};
