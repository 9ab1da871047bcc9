/** Limits on traffic: the `rate=` of a vif in xl's configuration, and the bucket that keeps to it. */
import { UserError } from "../base/errors.ts";
import type { NetClock } from "./clock.ts";

/** So many bytes each interval: what libxl writes into a vif's `rate` node as "bytes,microseconds" - xl-network-configuration(5). */
export type Rate = { readonly bytesPerInterval: number; readonly intervalUs: number };

const UINT32_MAX = 0xffff_ffffn, UINT64_MAX = 0xffff_ffff_ffff_ffffn;
const KILO: Readonly<Record<string, bigint>> = { "": 1n, K: 1000n, M: 1_000_000n, G: 1_000_000_000n };
const MICROSECONDS: Readonly<Record<string, bigint>> = { "": 1_000_000n, s: 1_000_000n, m: 1000n, ms: 1000n, u: 1n, us: 1n };

/**
 * Read "10Mb/s@20ms": B bytes or b bits a second, K M G thousands; the credit comes every 50 ms or as said. An interval without a unit is in seconds: libxl reads it so,
 * whatever its manual says. What libxl refuses is refused, and so are two things that libxl takes: a rate so low that an interval's credit is no byte, and a number
 * that begins with 0, which it reads as octal.
 * @throws UserError
 */
export function parseRate(text: string): Rate {
  const bad = (why: string) => new UserError(`rate "${text}" ${why}; write for example 10Mb/s or 1MB/s@20ms`);
  const [, digits = "", kilo = "", unit, , every] = /^([1-9][0-9]*|0)([GMK]?)([Bb])\/s(@(.*))?$/s.exec(text) ?? [];
  if (!unit) throw bad("is not NUMBER, K M G or nothing, B (bytes) or b (bits), /s, and perhaps @INTERVAL");
  const [, count, step = ""] = /^([1-9][0-9]*|0)([mu]?s?)$/.exec(every ?? "50ms") ?? [];
  if (!count) throw bad(`has the interval "${every}", which is not a number with us, ms or s`);
  const number = BigInt(digits), intervalUs = BigInt(count) * MICROSECONDS[step]!;
  if (number === 0n || number > UINT32_MAX) throw bad(`has the number ${digits}, which is not in 1 to ${UINT32_MAX}`);
  if (intervalUs === 0n || intervalUs > UINT32_MAX) throw bad(`has an interval that is not in 1 us to ${UINT32_MAX} us`);
  const bytesPerSec = number * KILO[kilo]! / (unit === "b" ? 8n : 1n);
  if (bytesPerSec * intervalUs > UINT64_MAX) throw bad("is more than 64 bits can count");
  const bytesPerInterval = bytesPerSec * intervalUs / 1_000_000n;
  if (bytesPerInterval === 0n) throw bad("gives no byte in an interval");
  return { bytesPerInterval: Number(bytesPerInterval), intervalUs: Number(intervalUs) };
}

/** "62500 bytes each 50000 us", for listings. */
export const rateText = (rate: Rate): string => `${rate.bytesPerInterval} bytes each ${rate.intervalUs} us`;

/** A credit that was not used is kept up to this much, or an interval's if that is more, so that the longest frame can always go. */
const BURST_BYTES = 128 << 10;

/** Credit that comes all at once at each interval's begin, as Xen's back ends give it. Starts full. */
export class TokenBucket {
  readonly rate: Rate;
  readonly #clock: Pick<NetClock, "nowMs">;
  readonly #burstBytes: number;
  readonly #intervalMs: number;
  #credit: number;
  /** when the interval now running began */
  #beganMs: number;
  constructor(rate: Rate, clock: Pick<NetClock, "nowMs">) {
    this.rate = rate;
    this.#clock = clock;
    this.#burstBytes = Math.max(BURST_BYTES, rate.bytesPerInterval);
    this.#intervalMs = rate.intervalUs / 1000;
    this.#credit = this.#burstBytes;
    this.#beganMs = clock.nowMs();
  }
  #fill(): void {
    const nrIntervals = Math.floor((this.#clock.nowMs() - this.#beganMs) / this.#intervalMs);
    if (nrIntervals <= 0) return;
    this.#beganMs += nrIntervals * this.#intervalMs;
    this.#credit = Math.min(this.#burstBytes, this.#credit + nrIntervals * this.rate.bytesPerInterval);
  }
  /** Is there credit for a frame of so many bytes? */
  has(lengthBytes: number): boolean {
    this.#fill();
    return this.#credit >= Math.min(lengthBytes, this.#burstBytes);
  }
  /** Spend; a caller that asked `has` before never goes below nothing. */
  spend(lengthBytes: number): void {
    this.#credit -= lengthBytes;
  }
  /** `has` and `spend` in one. @returns whether the frame may go */
  take(lengthBytes: number): boolean {
    if (!this.has(lengthBytes)) return false;
    this.spend(lengthBytes);
    return true;
  }
  /** Milliseconds until there is credit for so many bytes: 0 when there is now. */
  waitMs(lengthBytes: number): number {
    this.#fill();
    const missing = Math.min(lengthBytes, this.#burstBytes) - this.#credit;
    if (missing <= 0) return 0;
    return Math.max(0, this.#beganMs + Math.ceil(missing / this.rate.bytesPerInterval) * this.#intervalMs - this.#clock.nowMs());
  }
}
