/** How often each guest may ask: a burst, and then so many a second. */
const WATCHED_MAX = 1024;
type Watched = { tokens: number; atMs: number };

/** Token buckets by whatever tells guests apart; no more of them are kept than WATCHED_MAX. */
export class Throttle {
  readonly #burst: number;
  readonly #perSecond: number;
  readonly #watched = new Map<number, Watched>();

  constructor(burst: number, perSecond: number) {
    this.#burst = burst;
    this.#perSecond = perSecond;
  }
  /** @returns whether `key` may now; then it has */
  may(key: number, nowMs: number): boolean {
    let w = this.#watched.get(key);
    if (!w) {
      if (this.#watched.size >= WATCHED_MAX) this.#watched.delete(this.#watched.keys().next().value!);
      this.#watched.set(key, w = { tokens: this.#burst, atMs: nowMs });
    }
    w.tokens = Math.min(this.#burst, w.tokens + ((nowMs - w.atMs) * this.#perSecond) / 1000);
    w.atMs = nowMs;
    if (w.tokens < 1) return false;
    w.tokens--;
    return true;
  }
}
