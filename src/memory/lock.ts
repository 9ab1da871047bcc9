/**
 * Spin locks in machine memory: one Int32 word each, 0 free, 1 held. Sections are short and never wait inside for another thread's event;
 * order of nesting: domain by ascending domid, then grant table, then p2m, then frames, then run queue.
 */
let mayWait = false;
/** Said once by a worker: after some spinning its thread may sleep. The main thread of a browser may not. */
export const allowWaiting = (): void => { mayWait = true; };

const pause: () => void = (Atomics as { pause?: () => void }).pause ?? (() => {});

/** @param at byte address of the lock word */
export function lock(i32: Int32Array, at: number): void {
  const word = at >>> 2;
  for (let spins = 0; Atomics.compareExchange(i32, word, 0, 1) !== 0; spins++) {
    if (mayWait && spins > 200) Atomics.wait(i32, word, 1, 0.05);
    else pause();
  }
}
/** Give the lock back. */
export function unlock(i32: Int32Array, at: number): void { Atomics.store(i32, at >>> 2, 0); }
/** Hold the lock for `section`, which must not wait for anything. */
export function withLock<T>(i32: Int32Array, at: number, section: () => T): T {
  lock(i32, at);
  try { return section(); } finally { unlock(i32, at); }
}
