/** One wheel for all timers of a router: arming and disarming cost the same for ten timers and for ten thousand. */
import type { NetClock } from "../clock.ts";

const TICK_MS = 10;
/** Timers further off than this many ticks wait at the horizon and are placed again there. */
const SLOTS = 1024;

/** A call that a TimerWheel makes, once, at `atMs` or up to a tick later. */
export class Timer {
  readonly call: (nowMs: number) => void;
  /** when it is due; infinite: not armed */
  atMs = Number.POSITIVE_INFINITY;
  /** the slot's tick it is in, at or before the due one; -1: in none */
  tick = -1;
  constructor(call: (nowMs: number) => void) {
    this.call = call;
  }
}

/** A hashed wheel over a NetClock; the clock is asked for one call at a time, and for none when nothing is armed. */
export class TimerWheel {
  readonly #clock: NetClock;
  readonly #slots = Array.from({ length: SLOTS }, () => new Set<Timer>());
  /** every tick up to this one has been run */
  #tick: number;
  #wakeTick = Number.POSITIVE_INFINITY;
  #cancelWake: (() => void) | null = null;
  #isRunning = false;
  nrTimers = 0;

  constructor(clock: NetClock) {
    this.#clock = clock;
    this.#tick = Math.floor(clock.nowMs() / TICK_MS);
  }
  nowMs(): number {
    return this.#clock.nowMs();
  }

  /** Have `timer` called at `atMs`. One that is armed moves. */
  arm(timer: Timer, atMs: number): void {
    timer.atMs = atMs;
    const due = Math.ceil(atMs / TICK_MS);
    // In an earlier slot it may stay: there it is looked at and placed anew. Thus a timer that moves on with every packet costs nothing.
    if (timer.tick >= 0 && timer.tick <= due) return;
    this.#take(timer);
    if (this.nrTimers === 0 && !this.#isRunning) this.#tick = Math.floor(this.#clock.nowMs() / TICK_MS);
    this.#place(timer, due);
    if (!this.#isRunning && timer.tick < this.#wakeTick) this.#wakeAt(timer.tick);
  }
  disarm(timer: Timer): void {
    timer.atMs = Number.POSITIVE_INFINITY;
    this.#take(timer);
  }
  #place(timer: Timer, due: number): void {
    timer.tick = Math.min(Math.max(due, this.#tick + 1), this.#tick + SLOTS - 1);
    this.#slots[timer.tick % SLOTS]!.add(timer);
    this.nrTimers++;
  }
  #take(timer: Timer): void {
    if (timer.tick < 0) return;
    this.#slots[timer.tick % SLOTS]!.delete(timer);
    timer.tick = -1;
    this.nrTimers--;
  }

  #wakeAt(tick: number): void {
    this.#cancelWake?.();
    this.#wakeTick = tick;
    this.#cancelWake = this.#clock.after(Math.max(0, tick * TICK_MS - this.#clock.nowMs()), () => this.#run());
  }
  #run(): void {
    const nowMs = this.#clock.nowMs(), from = this.#tick + 1;
    this.#cancelWake = null;
    this.#wakeTick = Number.POSITIVE_INFINITY;
    this.#tick = Math.max(this.#tick, Math.floor(nowMs / TICK_MS));
    this.#isRunning = true;
    for (let tick = from; tick <= this.#tick && tick < from + SLOTS; tick++) {
      for (const timer of [...this.#slots[tick % SLOTS]!]) {
        if (timer.tick < 0) continue;
        this.#take(timer);
        if (timer.atMs > nowMs) {
          if (timer.atMs < Number.POSITIVE_INFINITY) this.#place(timer, Math.ceil(timer.atMs / TICK_MS));
          continue;
        }
        timer.atMs = Number.POSITIVE_INFINITY;
        timer.call(nowMs);
      }
    }
    this.#isRunning = false;
    if (this.nrTimers === 0) return;
    let next = this.#tick + 1;
    while (this.#slots[next % SLOTS]!.size === 0) next++;
    this.#wakeAt(next);
  }
  /** Forget all timers. */
  close(): void {
    this.#cancelWake?.();
    this.#cancelWake = null;
    this.#wakeTick = Number.POSITIVE_INFINITY;
    for (const slot of this.#slots) {
      for (const timer of slot) timer.tick = -1;
      slot.clear();
    }
    this.nrTimers = 0;
  }
}
