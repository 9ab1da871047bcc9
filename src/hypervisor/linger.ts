/**
 * How long a thread looks for the next event before it sleeps. A guest that waits for a disk or a peer rings again soon, and to wake a thread that sleeps costs 50 us on both sides (ADR 12).
 * The time follows from how long the thread slept: events that came soon after it had gone to sleep double it, those that came later halve it. It is short where other threads want
 * the processor, V8's compilers among them, and longer where one does nothing all the time.
 */
const LEAST_MS = 0.05, MOST_MS = { shared: 0.2, spare: 1 } as const;
/** How long a look at what the processors did reaches back at least, and which part of one must have had nothing else to do than to look. */
const WINDOW_MS = 100, SPARE = 0.75;

export class Linger {
  readonly #idleMs: () => number | null;
  readonly #now: () => number;
  #ms: number = LEAST_MS;
  #mostMs: number = MOST_MS.shared;
  #sinceMs: number;
  #idleThen: number | null;
  #lookedMs = 0;

  /** @param idleMs how long the computer's processors have had nothing to do, all together; null: not known */
  constructor(idleMs: () => number | null = () => null, now: () => number = () => performance.now()) {
    this.#idleMs = idleMs; this.#now = now;
    this.#sinceMs = now();
    this.#idleThen = idleMs();
  }
  /** How long to look after the event that has been dealt with now; 0: not at all. */
  after(): number {
    this.#lookAround();
    return this.#ms < LEAST_MS ? 0 : this.#ms;
  }
  /** So much time went by with looking. */
  looked(ms: number): void { this.#lookedMs += ms; }
  /** An event ended a sleep. */
  woken(sleptMs: number): void {
    this.#ms = sleptMs < this.#mostMs ? Math.min(this.#mostMs, Math.max(LEAST_MS, this.#ms * 2)) : this.#ms / 2;
  }
  #lookAround(): void {
    const windowMs = this.#now() - this.#sinceMs;
    if (windowMs < WINDOW_MS) return;
    const idle = this.#idleMs(), then = this.#idleThen;
    this.#mostMs = idle !== null && then !== null && idle - then + this.#lookedMs >= SPARE * windowMs ? MOST_MS.spare : MOST_MS.shared;
    this.#ms = Math.min(this.#ms, this.#mostMs);
    this.#sinceMs += windowMs; this.#idleThen = idle; this.#lookedMs = 0;
  }
}
