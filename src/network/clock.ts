/** The time that the network room lives by; tests give it one that stands still until it is told to go on. */
export interface NetClock {
  /** milliseconds from some origin; never goes back */
  nowMs(): number;
  /** Call `act` once, `delayMs` from now. @returns takes it back */
  after(delayMs: number, act: () => void): () => void;
}

/** The host's clock. Its timers do not keep a process alive. */
export const hostClock: NetClock = {
  nowMs: () => performance.now(),
  after: (delayMs, act) => {
    const timer = setTimeout(act, delayMs) as ReturnType<typeof setTimeout> & { unref?: () => void };
    timer.unref?.();
    return () => clearTimeout(timer);
  },
};

/** A clock for tests: time passes only in `advance`, which calls what falls due, in order. */
export class ManualClock implements NetClock {
  #nowMs = 0;
  #nr = 0;
  readonly #due = new Map<number, { atMs: number; act: () => void }>();
  nowMs(): number { return this.#nowMs; }
  after(delayMs: number, act: () => void): () => void {
    const nr = this.#nr++;
    this.#due.set(nr, { atMs: this.#nowMs + delayMs, act });
    return () => { this.#due.delete(nr); };
  }
  /** timers that are set */
  get nrWaiting(): number { return this.#due.size; }
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      let first: [number, { atMs: number; act: () => void }] | undefined;
      for (const one of this.#due) if (one[1].atMs <= untilMs && (!first || one[1].atMs < first[1].atMs)) first = one;
      if (!first) break;
      this.#due.delete(first[0]);
      this.#nowMs = Math.max(this.#nowMs, first[1].atMs);
      first[1].act();
    }
    this.#nowMs = untilMs;
  }
}
