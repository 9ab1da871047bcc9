/** Notices when this computer itself stood still: a virtual machine that its host stops for a while. What was measured meanwhile is worth nothing. */

const LOOK_MS = 100;
/** A busy computer runs this program later than it asked for, by less than this. */
const LATE_MS = 1500;

/** Looks at the clock from its making until it is disposed of. */
export class Standstill implements Disposable {
  readonly #now: () => number;
  readonly #timer: ReturnType<typeof setInterval>;
  #lastMs: number;
  #nr = 0;
  #stoodMs = 0;
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#lastMs = now();
    this.#timer = setInterval(() => this.look(), LOOK_MS);
    this.#timer.unref();
  }
  /** How often, so far. */
  look(): number {
    const now = this.#now(), late = now - this.#lastMs - LOOK_MS;
    if (late > LATE_MS) { this.#nr++; this.#stoodMs += late; }
    this.#lastMs = now;
    return this.#nr;
  }
  /** How long in all. */
  get stoodMs(): number { return this.#stoodMs; }
  [Symbol.dispose](): void { clearInterval(this.#timer); }
}
