/** A domain's configuration as it is now. What can be set while it runs is asked where it is kept, so that no second copy goes stale. */
import { cpusOf, type SchedParams } from "../../api/cpus.ts";
import type { Domain } from "../../toolstack/domain.ts";
import type { LibxlConfig, LibxlSched } from "../../toolstack/libxl-json.ts";
import type { Machine } from "../../toolstack/machine.ts";
import { domainPath } from "../../xenstore/path.ts";

/** Parameters that hold for the whole domain; rtds has them a vCPU, and those that differ have no place in libxl's JSON. */
function schedOf(all: readonly SchedParams[], before: LibxlSched | undefined): LibxlSched {
  const same = <K extends keyof SchedParams>(key: K): SchedParams[K] | undefined => (all.every((p) => p[key] === all[0]![key]) ? all[0]?.[key] : undefined);
  const weight = same("weight"), cap = same("cap"), period = same("periodUs"), budget = same("budgetUs"), extratime = same("extratime");
  return { ...before, ...(weight === undefined ? {} : { weight }), ...(cap === undefined ? {} : { cap }), ...(period === undefined || budget === undefined ? {} : { period, budget }), ...(extratime === undefined ? {} : { extratime: Number(extratime) }) };
}
/**
 * `config` with what `xl rename`, `mem-set`, `mem-max`, `vcpu-set`, `vcpu-pin` and `sched-*` made of it since.
 * @see tools/libs/light/libxl_domain.c libxl_retrieve_domain_configuration, which asks for the same, but for the affinity
 */
export function presentConfig(machine: Machine, domain: Domain, config: LibxlConfig): LibxlConfig {
  const { domid, name, control } = domain, named = { ...config, c_info: { ...config.c_info, name } }, hd = machine.hv.domain(domid), cpus = cpusOf(machine);
  if (domain.isGone || !hd || hd.isDying || !cpus) return named;
  const { vcpu_hard_affinity, vcpu_soft_affinity, ...rest } = config.b_info, rows = cpus.vcpus(domid), targetKiB = control.memoryTargetMiB * 1024;
  const affinity = (key: "hard" | "soft"): number[][] | null => (rows.every((v) => v[key] === "all") ? null : rows.map((v) => (v[key] === "all" ? [] : [...v[key]])));
  const hard = affinity("hard"), soft = affinity("soft"), asked = rows.filter(({ vcpu }) => machine.xs.read(`${domainPath(domid)}/cpu/${vcpu}/availability`) === "online").map((v) => v.vcpu);
  return {
    ...named,
    b_info: {
      ...rest, ...(hard ? { vcpu_hard_affinity: hard } : {}), ...(soft ? { vcpu_soft_affinity: soft } : {}), avail_vcpus: asked.length ? asked : rest.avail_vcpus,
      max_memkb: control.memoryMaxMiB * 1024, target_memkb: Number.isSafeInteger(targetKiB) && targetKiB > 0 ? targetKiB : rest.target_memkb, sched_params: schedOf(cpus.sched(domid).params, rest.sched_params),
    },
  };
}
