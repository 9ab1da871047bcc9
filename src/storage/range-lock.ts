/** A lock over ranges of whole numbers, shared or exclusive, in order of arrival: who comes later waits for all who overlap, so nobody starves or deadlocks. */
type Entry = { first: number; last: number; isExclusive: boolean; nrBlockers: number; waiters: Entry[]; enter: (() => void) | null };

/** What waits or holds is few (requests in flight), so a list does. */
export class RangeLock {
  readonly #entries = new Set<Entry>();

  /** Take [first, last]. Await it, then call what it gives, once, to let go. Nobody holds one range while taking another of the same lock. */
  take(first: number, last: number, isExclusive: boolean): Promise<() => void> | (() => void) {
    const mine: Entry = { first, last, isExclusive, nrBlockers: 0, waiters: [], enter: null };
    for (const e of this.#entries) {
      if (e.first > last || e.last < first || !(isExclusive || e.isExclusive)) continue;
      e.waiters.push(mine);
      mine.nrBlockers++;
    }
    this.#entries.add(mine);
    const leave = () => {
      this.#entries.delete(mine);
      for (const w of mine.waiters.splice(0)) if (--w.nrBlockers === 0) w.enter?.();
    };
    if (mine.nrBlockers === 0) return leave;
    return new Promise((resolve) => { mine.enter = () => resolve(leave); });
  }

  /** Run `act` while nobody else has any of the range. */
  async exclusive<T>(first: number, last: number, act: () => Promise<T>): Promise<T> {
    const leave = await this.take(first, last, true);
    try { return await act(); } finally { leave(); }
  }
}

/** Wait for all, also when one fails: nothing is under way any more when it returns. @throws the first failure */
export async function settle(tasks: readonly Promise<unknown>[]): Promise<void> {
  if (tasks.length === 1) { await tasks[0]; return; }
  for (const r of await Promise.allSettled(tasks)) if (r.status === "rejected") throw r.reason;
}
