/** What a machine and its domains do, measured between two looks: load of pCPUs, processor time and memory of domains. For `top`-like views. */
import { RUNSTATE } from "../abi/vcpu.ts";
import { PCPU, PCPU_STATE, VCPU } from "../hypervisor/objects.ts";
import { MACHINE } from "../memory/machine.ts";
import type { Domain } from "./domain.ts";
import type { Machine } from "./machine.ts";

/** What a vCPU of the domain is about, the busiest first. */
export type DomainActivity = "running" | "runnable" | "blocked" | "offline";
/** A domain at one look. */
export type DomainSample = {
  readonly domid: number; readonly name: string;
  /** processor time since it was made */
  readonly cpuNs: number;
  /** processors it had on average since the look before: 1 is one pCPU whole */
  readonly load: number;
  readonly activity: DomainActivity;
  readonly memoryMiB: number;
  readonly aliveMs: number;
};
/** A machine at one look. */
export type Sample = {
  /** performance.now() of the look */
  readonly atMs: number;
  /** of each pCPU, 0 to 1, since the look before */
  readonly pcpuLoad: readonly number[];
  /** frames that no domain has, and all that the machine can give */
  readonly freeMiB: number; readonly totalMiB: number;
  readonly domains: readonly DomainSample[];
};

const ORDER: readonly (readonly [state: number, activity: DomainActivity])[] = [[RUNSTATE.running, "running"], [RUNSTATE.runnable, "runnable"], [RUNSTATE.blocked, "blocked"]];
type PcpuSeen = { idleMs: number; turns: number; /** idle time that was counted before the pCPU wrote it down */ aheadMs: number };

/** Looks at a machine from time to time; the first look has loads of 0. */
export class Meter {
  readonly #machine: Machine;
  readonly #pcpus: PcpuSeen[] = [];
  readonly #cpuNs = new Map<number, number>();
  #atMs: number | null = null;

  constructor(machine: Machine) { this.#machine = machine; }

  sample(): Sample {
    const { hv, domains } = this.#machine, atMs = performance.now(), spanMs = this.#atMs === null ? 0 : Math.max(1, atMs - this.#atMs);
    this.#atMs = atMs;
    const pcpuLoad = Array.from({ length: hv.mm.nrPcpus }, (_, i) => this.#pcpu(i, spanMs)), { nrFree, nrFrames } = hv.mm.frames, totalMiB = (nrFrames - MACHINE.firstFrame.get(hv.views.dv, 0)) / 256;
    const sampled = domains.map((d) => this.#domain(d, spanMs));
    for (const domid of this.#cpuNs.keys()) if (!domains.some((d) => d.domid === domid)) this.#cpuNs.delete(domid);
    return { atMs, pcpuLoad, freeMiB: nrFree / 256, totalMiB, domains: sampled };
  }

  /** A pCPU writes down how long it slept when it wakes; one that still sleeps is taken at its word. */
  #pcpu(i: number, spanMs: number): number {
    const { hv } = this.#machine, at = hv.pcpuAt(i), seen = this.#pcpus[i] ??= { idleMs: 0, turns: -1, aheadMs: 0 };
    const idleMs = hv.get(PCPU.idleMs, at), turns = hv.load(PCPU.turns, at), wrote = idleMs - seen.idleMs, sleeps = hv.load(PCPU.state, at) === PCPU_STATE.idle && turns === seen.turns;
    const slept = sleeps && wrote === 0 ? spanMs : Math.max(0, wrote - seen.aheadMs);
    this.#pcpus[i] = { idleMs, turns, aheadMs: sleeps && wrote === 0 ? seen.aheadMs + spanMs : 0 };
    return spanMs === 0 ? 0 : Math.min(1, Math.max(0, 1 - slept / spanMs));
  }

  #domain(domain: Domain, spanMs: number): DomainSample {
    const { hv } = this.#machine, d = hv.domain(domain.domid), { domid, name } = domain, report = domain.report();
    let cpuNs = 0, activity: DomainActivity = "offline";
    for (const v of d?.vcpus() ?? []) {
      const state = hv.load(VCPU.runstate, v.at);
      cpuNs += hv.scheduler.cpuTimeNs(v);
      activity = ORDER.find(([s, a]) => s === state || a === activity)?.[1] ?? activity;
    }
    const before = this.#cpuNs.get(domid);
    this.#cpuNs.set(domid, cpuNs);
    return { domid, name, cpuNs, load: before === undefined || spanMs === 0 ? 0 : Math.max(0, (cpuNs - before) / (spanMs * 1e6)), activity, memoryMiB: report.memoryMiB, aliveMs: report.aliveMs };
  }
}
