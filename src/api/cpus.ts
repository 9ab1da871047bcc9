/** vCPUs, schedulers and cpupools as a machine offers them (src/toolstack/cpus.ts), and the refusal of one that does not. */
import type { Machine } from "../toolstack/machine.ts";
import { ApiFault } from "./fault.ts";

/** Numbers of pCPUs. */
export type Affinity = readonly number[] | "all";
/** A vCPU in a listing; `state` is xl's three letters. */
export type VcpuRow = { domid: number; name: string; vcpu: number; pcpu: number | null; state: string; timeNs: number; hard: Affinity; soft: Affinity; isOnline: boolean };
/** Schedulers by Xen's names. */
export type SchedName = "credit" | "credit2" | "rtds" | "null";
/** A domain's parameters; `cap` in percent of a pCPU, `vcpu`: of that one alone (rtds). */
export type SchedParams = { weight?: number; cap?: number; vcpu?: number; periodUs?: number; budgetUs?: number; extratime?: boolean };
/** A cpupool. */
export type PoolRow = { id: number; name: string; sched: SchedName; pcpus: readonly number[]; domains: readonly number[]; ratelimitUs?: number; tsliceMs?: number };
/** What the API asks of a machine's CPUs. All throw UserError. */
export interface Cpus {
  vcpus(domid?: number): VcpuRow[];
  pin(domid: number, vcpu: number | "all", hard: Affinity | null, soft: Affinity | null): void;
  setOnline(domid: number, nr: number): void;
  sched(domid: number): { sched: SchedName; params: SchedParams[] };
  setSched(domid: number, p: SchedParams): void;
  pools(): PoolRow[];
  createPool(name: string, sched: SchedName, pcpus: readonly number[]): PoolRow;
  destroyPool(id: number): void;
  renamePool(id: number, name: string): void;
  addCpu(id: number, pcpu: number): void;
  removeCpu(id: number, pcpu: number): void;
  movePool(domid: number, id: number): Promise<void>;
  setPoolParams(id: number, p: { ratelimitUs?: number; tsliceMs?: number }): void;
}

/** The machine's, or null where it has none. */
export const cpusOf = (machine: Machine): Cpus | null => (machine as { cpus?: Cpus }).cpus ?? null;
/** The machine's. @throws ApiFault "notbuilt" */
export function needCpus(machine: Machine): Cpus {
  const cpus = cpusOf(machine);
  if (!cpus) throw new ApiFault("notbuilt", "Schedulers, affinity and cpupools are not built yet");
  return cpus;
}
