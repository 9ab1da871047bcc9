/**
 * System time and the time-stamp counter: nanoseconds since the machine began, so the TSC runs at 1 GHz and both are one number.
 * Each thread computes it from its own monotonic clock; `tsc` never goes back, whichever thread asks.
 */
import { VcpuTimeInfo, XEN_PVCLOCK } from "../abi/xen.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { HYPERVISOR_ROOT as ROOT } from "./objects.ts";

/** Pace of the time-stamp counter. */
export const TSC_KHZ = 1_000_000;
/** ns = ((ticks << shift) * mul) >> 32 - public/xen.h vcpu_time_info */
export const TSC_TO_SYSTEM_MUL = 0x80000000, TSC_SHIFT = 1;

/** One thread's clock. */
export class Clock {
  readonly #hv: Hypervisor;
  readonly #originMs: number;
  readonly #last: number;

  constructor(hv: Hypervisor) {
    this.#hv = hv;
    this.#originMs = performance.timeOrigin - hv.mm.epochMs;
    this.#last = (hv.root + ROOT.lastTsc.at) >>> 3;
  }
  /** System time in ns; threads agree within microseconds. */
  now(): number { return Math.max(0, Math.floor((this.#originMs + performance.now()) * 1e6)); }
  /** Address of the word (u64) that keeps the TSC from going back, whichever thread asks. */
  get tscWord(): number { return this.#last * 8; }
  /** Time-stamp counter before TSC_ADJUST. */
  tsc(): bigint {
    const { u64 } = this.#hv.views, t = BigInt(this.now());
    for (;;) {
      const last = Atomics.load(u64, this.#last);
      if (t <= last) return last;
      if (Atomics.compareExchange(u64, this.#last, last, t) === last) return t;
    }
  }
  /** Wall clock at system time 0, in ns since 1970. */
  get wallAtZero(): bigint { return BigInt(Math.floor(this.#hv.mm.epochMs * 1000)) * 1000n; }
}

/** Fill a vcpu_time_info for a guest whose TSC was `tscAtZero` at its system time 0; @param into 32 bytes */
export function timeInfo(into: DataView, at: number, version: number, tscAtZero: bigint): void {
  VcpuTimeInfo.tsc_timestamp.set(into, at, tscAtZero);
  VcpuTimeInfo.system_time.set(into, at, 0n);
  VcpuTimeInfo.tsc_to_system_mul.set(into, at, TSC_TO_SYSTEM_MUL);
  VcpuTimeInfo.tsc_shift.set(into, at, TSC_SHIFT);
  VcpuTimeInfo.flags.set(into, at, XEN_PVCLOCK.TSC_STABLE_BIT);
  VcpuTimeInfo.version.set(into, at, version);
}
