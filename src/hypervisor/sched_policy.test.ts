import assert from "node:assert/strict";
import { test } from "node:test";
import { credit, credit2 } from "./sched_credit.ts";
import { allowed, choose, type Policy, type PoolState, type Share, sliceOf, type Unit } from "./sched_policy.ts";
import { nullPolicy, rtds, utilisation } from "./sched_rtds.ts";

const MS = 1_000_000;
type SimUnit = Unit & { name: string; lastPcpu: number; totalNs: number; chargedNs: number; sliceEndNs: number; startedNs: number; /** runs so long, then waits so long; null: for ever */ work: { runNs: number; waitNs: number } | null; workLeftNs: number; wakeAt: number; queuedAt: number; waits: number[]; met: number; missed: number; perPcpu: number[] };
const share = (weight = 256, capPct = 0): Share => ({ weight, capPct, capLeftNs: 0, capNextNs: 0 });
function unit(name: string, change: Partial<SimUnit> = {}): SimUnit {
  return {
    name, share: share(), hard: 0xffffffff, soft: 0xffffffff, lastPcpu: -1, yielded: false, creditNs: 0, epoch: 0, isBoosted: false, ranNs: 0, periodNs: 10 * MS, budgetNs: 4 * MS, isExtratime: false, leftNs: 0, deadlineNs: 0, level: 0, assigned: -1,
    totalNs: 0, chargedNs: 0, sliceEndNs: 0, startedNs: 0, work: null, workLeftNs: Number.POSITIVE_INFINITY, wakeAt: 0, queuedAt: 0, waits: [], met: 0, missed: 0, perPcpu: [], ...change,
  };
}
/** A pool in virtual time: what scheduler.ts does with threads and locks, done one event after the other. `late`: by how much a slice is overrun, as budgets of jumps are. */
function simulate(policy: Policy, nrPcpus: number, units: SimUnit[], ms: number, o: { late?: (n: number) => number; change?: (now: number) => void } = {}): PoolState {
  const pool: PoolState = { cpus: 2 ** nrPcpus - 1, ratelimitNs: MS, tsliceNs: 30 * MS, epoch: 0, nextAccountNs: 0, assigned: 0 };
  const on: (SimUnit | null)[] = Array.from({ length: nrPcpus }, () => null), lateNs: number[] = on.map(() => 0), queue: SimUnit[] = [];
  let now = 0, decisions = 0;
  const charge = (u: SimUnit, pcpu: number): void => {
    const ran = now - u.chargedNs;
    if (ran <= 0) return;
    u.chargedNs = now; u.totalNs += ran; u.workLeftNs -= ran; u.perPcpu[pcpu] = (u.perPcpu[pcpu] ?? 0) + ran;
    policy.charge(u, pool, ran, now);
  };
  for (const u of units) { u.wakeAt = u.work ? u.wakeAt : 0; u.workLeftNs = u.work?.runNs ?? Number.POSITIVE_INFINITY; }
  const asleep = new Set(units);
  while (now < ms * MS) {
    let wokeSomebody = false;
    for (const u of [...asleep]) if (u.wakeAt <= now) {
      asleep.delete(u); policy.woken(u, pool, now); queue.push(u); u.queuedAt = now; wokeSomebody = true;
      if (on.some((r, i) => r === null && allowed(u, pool) >>> i & 1)) continue;
      for (const [i, r] of on.entries()) if (r) { charge(r, i); if (allowed(u, pool) >>> i & 1 && policy.preempts(u, r, pool, i)) { r.sliceEndNs = Math.max(now, policy.name === "rtds" ? 0 : r.startedNs + pool.ratelimitNs); lateNs[i] = 0; break; } }
    }
    o.change?.(now);
    if (policy.account && now >= pool.nextAccountNs) { on.forEach((r, i) => { if (r) charge(r, i); }); policy.account(units, pool, now); }
    on.forEach((u, i) => {
      if (u) {
        charge(u, i);
        const isDone = u.workLeftNs <= 0, isOver = now >= u.sliceEndNs + lateNs[i]!;
        if (isDone) {
          if (u.work) { u.wakeAt = now + u.work.waitNs; u.workLeftNs = u.work.runNs; }
          on[i] = null; asleep.add(u);
        } else if (isOver) {
          const { unit: next, nextNs } = choose(queue, policy, pool, i, now);
          decisions++;
          if (policy.readyAt(u, pool, now, i) > now || (next && policy.compare(u, next, pool, i) >= 0)) { on[i] = null; queue.push(u); u.queuedAt = now; }
          else { policy.taken?.(u, pool, i); u.sliceEndNs = now + sliceOf(policy, u, pool, now, next, nextNs); lateNs[i] = o.late?.(decisions) ?? 0; }
        }
      }
      if (on[i]) return;
      const { unit: u2, rival, nextNs } = choose(queue, policy, pool, i, now);
      decisions++;
      if (!u2) return;
      queue.splice(queue.indexOf(u2), 1);
      policy.taken?.(u2, pool, i);
      u2.waits.push(now - u2.queuedAt);
      u2.lastPcpu = i; u2.startedNs = u2.chargedNs = now; u2.sliceEndNs = now + sliceOf(policy, u2, pool, now, rival, nextNs);
      lateNs[i] = o.late?.(decisions) ?? 0;
      on[i] = u2;
    });
    let next = now + 10 * MS;
    on.forEach((u, i) => { if (u) next = Math.min(next, u.sliceEndNs + lateNs[i]!, now + u.workLeftNs); });
    for (const u of asleep) next = Math.min(next, u.wakeAt);
    on.forEach((u, i) => { if (!u) next = Math.min(next, choose(queue, policy, pool, i, now).nextNs); });
    now = Math.max(next, now + 1000);
    if (wokeSomebody) decisions++;
  }
  on.forEach((u, i) => { if (u) charge(u, i); });
  return pool;
}
const part = (u: SimUnit, all: readonly SimUnit[]): number => u.totalNs / all.reduce((sum, x) => sum + x.totalNs, 0);
const near = (x: number, wanted: number, tolerance: number, what: string): void => assert.ok(Math.abs(x / wanted - 1) <= tolerance, `${what}: ${x}, not ${wanted}`);
let seed = 7;
const random = (n: number): number => { seed ^= seed << 13; seed ^= seed >>> 17; seed ^= seed << 5; return (seed >>> 0) % n; };
/** Slices end late, as they do where jumps are counted. */
const late = (): number => random(400_000);

for (const [policy, tolerance] of [[credit2, 0.01], [credit, 0.05]] as const) test(`${policy.name}: domains of weight 1:2:4 with two vCPUs each share two pCPUs by weight`, () => {
  const units = [1, 2, 4].flatMap((w) => { const s = share(w * 128); return [unit(`a${w}`, { share: s }), unit(`b${w}`, { share: s })]; });
  simulate(policy, 2, units, 20_000, { late });
  for (const [k, w] of [1, 2, 4].entries()) near(part(units[2 * k]!, units) + part(units[2 * k + 1]!, units), w / 7, tolerance, `weight ${w}`);
});
for (const policy of [credit2, credit]) test(`${policy.name}: a cap of 50 % holds, alone and against others, for one vCPU and for two that share it`, () => {
  for (const others of [0, policy === credit ? 2 : 3]) for (const vcpus of [1, 2]) {
    const s = share(256, 50), capped = Array.from({ length: vcpus }, (_, i) => unit(`c${i}`, { share: s }));
    simulate(policy, 2, [...capped, ...Array.from({ length: others }, (_, i) => unit(`o${i}`))], 10_000, { late });
    near(capped.reduce((sum, u) => sum + u.totalNs, 0) / (10_000 * MS), 0.5, 0.01, `${vcpus} vCPUs, ${others} others`);
  }
});
test("credit2: all pCPUs work as long as somebody waits who may use them, and hard affinity holds", () => {
  const units = [unit("left", { hard: 1 }), unit("left2", { hard: 1 }), unit("right", { hard: 2 }), unit("any")];
  simulate(credit2, 2, units, 5_000, { late });
  near(units.reduce((sum, u) => sum + u.totalNs, 0), 10_000 * MS, 0.001, "work done");
  assert.deepEqual(units.slice(0, 3).map((u) => [u.perPcpu[0] ?? 0, u.perPcpu[1] ?? 0].map((ns) => ns > 0)), [[true, false], [true, false], [false, true]]);
  near(units[3]!.totalNs, 2_500 * MS, 0.15, "the fourth's part");
});
test("credit2: a vCPU that mostly sleeps runs soon after it wakes, whoever works, and gets no more than it uses", () => {
  const sleeper = unit("io", { work: { runNs: 100_000, waitNs: 5 * MS } }), busy = Array.from({ length: 4 }, (_, i) => unit(`busy${i}`));
  simulate(credit2, 2, [sleeper, ...busy], 10_000, { late });
  const waits = sleeper.waits.sort((a, b) => a - b);
  assert.ok(waits[Math.floor(waits.length * 0.99)]! <= 1.5 * MS, `99 % within ${waits[Math.floor(waits.length * 0.99)]} ns`);
  for (const u of busy) near(part(u, busy), 1 / 4, 0.01, u.name);
});
test("credit2: who slept for long does not shut the others out when it comes back", () => {
  const late = unit("late", { work: { runNs: 1e12, waitNs: 1 }, wakeAt: 5_000 * MS }), busy = unit("busy");
  simulate(credit2, 1, [busy, late], 6_000);
  near(late.totalNs, 500 * MS, 0.05, "of the second in which both wanted the pCPU");
});
test("rtds: reservations that fit are kept to the period on two pCPUs, whatever four busy vCPUs with extratime do", () => {
  const reserved = [[10, 4], [20, 10], [5, 2]].map(([p, b], i) => unit(`r${i}`, { periodNs: p! * MS, budgetNs: b! * MS })), busy = Array.from({ length: 4 }, (_, i) => unit(`busy${i}`, { budgetNs: MS / 2, isExtratime: true }));
  assert.ok(utilisation([...reserved, ...busy]) <= 2);
  simulate(rtds, 2, [...reserved, ...busy], 20_000);
  for (const u of reserved) near(u.totalNs / (20_000 * MS), u.budgetNs / u.periodNs, 0.01, u.name);
  near([...reserved, ...busy].reduce((sum, u) => sum + u.totalNs, 0), 40_000 * MS, 0.01, "extratime uses all the rest");
});
test("rtds: work of 4 ms each 10 ms meets its deadlines among busy reservations", () => {
  const deadlines: number[] = [], real = unit("real", { work: { runNs: 3.9 * MS, waitNs: 0 } }), busy = Array.from({ length: 4 }, (_, i) => unit(`busy${i}`, { budgetNs: 4 * MS, isExtratime: true }));
  let done = 0;
  Object.defineProperty(real, "wakeAt", { get: () => done * 10 * MS, set: (now: number) => { deadlines.push(now - done * 10 * MS); done++; } });
  simulate(rtds, 2, [real, ...busy], 20_000);
  assert.ok(deadlines.length >= 1990, `${deadlines.length} jobs`);
  assert.deepEqual(deadlines.slice(1).filter((ns) => ns > 10 * MS), []);
});
test("null: each vCPU has a pCPU of its own for good, and one too many waits", () => {
  const units = [unit("a"), unit("b"), unit("c")];
  simulate(nullPolicy, 2, units, 1_000);
  assert.deepEqual(units.map((u) => u.totalNs > 0), [true, true, false]);
  assert.deepEqual(units.map((u) => u.perPcpu.filter((ns) => ns > 0).length), [1, 1, 0]);
});
test("one that yields is chosen after all others, and among those that yielded the first goes first", () => {
  const pool: PoolState = { cpus: 1, ratelimitNs: MS, tsliceNs: 30 * MS, epoch: 0, nextAccountNs: 0, assigned: 0 };
  const rich = unit("rich", { creditNs: 9 * MS, yielded: true }), poor = unit("poor", { creditNs: -5 * MS }), other = unit("other", { creditNs: 10 * MS, yielded: true });
  assert.equal(choose([rich, poor], credit2, pool, 0, 1).unit, poor);
  assert.equal(choose([rich, other], credit2, pool, 0, 1).unit, rich);
});
