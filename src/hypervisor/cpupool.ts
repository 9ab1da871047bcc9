/** Cpupools: made, filled, emptied; domains moved between them. Refusals are the caller's: what is asked for here can be done. */
import type { Domain } from "./domain.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { DOMAIN, PCPU } from "./objects.ts";
import { ALL_PCPUS, SCHED_ID, type SchedName } from "./sched_policy.ts";
import type { Pool } from "./sched_unit.ts";

/** The pCPUs of a mask, ascending. */
export const pcpusOf = (mask: number): number[] => Array.from({ length: 32 }, (_, i) => i).filter((i) => mask >>> i & 1);

/** Take a free pool into use with pCPUs that are in none. @returns null when all are taken */
export function createPool(hv: Hypervisor, name: string, sched: SchedName, pcpus: readonly number[]): Pool | null {
  const { scheduler } = hv;
  return scheduler.locked(() => {
    const pool = scheduler.pools.find((p) => !p.isUsed) ?? null;
    if (pool) scheduler.initPool(pool, name, SCHED_ID[sched], pcpus);
    return pool;
  });
}
/** Its pCPUs are free afterwards. It has no domains. */
export function destroyPool(hv: Hypervisor, pool: Pool): void {
  hv.scheduler.locked(() => {
    for (const i of pcpusOf(pool.cpus)) hv.set(PCPU.pool, hv.pcpuAt(i), 0);
    pool.cpus = 0;
    pool.setSched(0);
  });
}
/** Put a free pCPU into a pool, or take it out (null): what it runs goes elsewhere; a vCPU that might run on none but this may run on all then, as Xen has it (cpu_disable_scheduler). */
export function movePcpu(hv: Hypervisor, pcpu: number, to: Pool | null): void {
  const { scheduler } = hv;
  scheduler.locked(() => {
    const from = scheduler.poolOfPcpu(pcpu);
    if (from) from.cpus = (from.cpus & ~(1 << pcpu)) >>> 0;
    if (to) to.cpus = (to.cpus | 1 << pcpu) >>> 0;
    hv.set(PCPU.pool, hv.pcpuAt(pcpu), to ? to.id + 1 : 0);
    for (const d of hv.domains()) {
      const pool = scheduler.poolOf(d);
      if (d.domid === 0 || (pool !== from && pool !== to)) continue;
      for (const v of d.vcpus()) {
        const u = scheduler.unit(v.at);
        if (pool === from && (u.hard & pool.cpus) === 0) u.hard = ALL_PCPUS;
        scheduler.replace(v.at);
      }
    }
  });
}
/** Move a domain with all its vCPUs; those that run leave their pCPUs soon. Where they might run was said of the old pool's pCPUs: it is forgotten, as Xen does (sched_move_domain). */
export function moveDomain(hv: Hypervisor, d: Domain, to: Pool): void {
  const { scheduler } = hv;
  scheduler.locked(() => {
    const from = scheduler.poolOf(d);
    for (const v of d.vcpus()) scheduler.unassign(scheduler.unit(v.at), from);
    hv.set(DOMAIN.pool, d.at, to.id);
    for (const v of d.vcpus()) {
      const u = scheduler.unit(v.at);
      u.hard = u.soft = ALL_PCPUS;
      u.creditNs = u.ranNs = 0;
      u.epoch = to.epoch;
      scheduler.replace(v.at);
    }
  });
}
