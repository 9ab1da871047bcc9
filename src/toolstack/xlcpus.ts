/** xl.cfg's keys about processors: pool, cpus, cpus_soft, cpu_weight, cap, period, budget, extratime. @see xl.cfg(5) "CPU Allocation" and "CPU Scheduling"; tools/xl/xl_parse.c parse_vcpu_affinity, update_cpumap_range */
import type { DomainConfig } from "./config.ts";
import { type Affinity, schedFault } from "./cpus.ts";
import { faultAt, type Place, parseNumber, placeText, type Setting, type XlValue } from "./xlcfg.ts";

/** pCPUs that any machine may have; which this one has is known when the domain is made. */
const MAX_PCPUS = 32;

/**
 * A list of pCPUs as xl writes it: numbers and ranges with commas between, "^" before what is taken out again, "all", "none" for soft affinity, "node:" and "nodes:" of node 0, which is
 * all there is.
 * @throws string saying what is wrong
 */
export function parseCpuList(text: string): Affinity {
  const cpus = new Set<number>();
  let isAll = false;
  for (const word of text.split(",").map((w) => w.trim())) {
    const [, isOut, isNode, list] = /^(\^?)(nodes?:)?(.*)$/.exec(word)!;
    if (list === "all" && !isOut) { isAll = true; for (let i = 0; i < MAX_PCPUS; i++) cpus.add(i); continue; }
    const range = /^(\d{1,4})(?:-(\^?)(\d{1,4}))?$/.exec(list!);
    if (!range || range[2]) throw `"${word}" is not a pCPU, a range like 0-3, or all`;
    const from = Number(range[1]), to = Number(range[3] ?? range[1]);
    if (to < from) throw `"${word}" ends before it begins`;
    if (isNode) {
      if (to > 0) throw `"${word}" names a node beyond node 0, which is the only one`;
      for (let i = 0; i < MAX_PCPUS; i++) if (isOut) cpus.delete(i); else cpus.add(i);
      isAll = !isOut;
      continue;
    }
    if (to >= MAX_PCPUS) throw `There is no pCPU ${to}: a machine has at most ${MAX_PCPUS}, numbered from 0`;
    for (let i = from; i <= to; i++) if (isOut) { isAll = false; cpus.delete(i); } else cpus.add(i);
  }
  if (cpus.size === 0) throw "No pCPU is left";
  return isAll ? "all" : [...cpus].sort((a, b) => a - b);
}

/** Read the keys. @throws UserError at the place of the fault */
export function xlCpus(settings: ReadonlyMap<string, Setting>, maxvcpus: number): { config: Pick<DomainConfig, "pool" | "cpus" | "cpusSoft" | "sched">; warnings: string[] } {
  const warnings: string[] = [];
  const list = (text: string, key: string, place: Place): Affinity => {
    try { return parseCpuList(text); } catch (e) {
      if (typeof e !== "string") throw e;
      throw faultAt(place, `${key}: ${e}`);
    }
  };
  const text = (v: XlValue, key: string): string => {
    if (v.kind === "list") throw faultAt(v.place, `${key}: A list in a list is no list of pCPUs`);
    return v.text;
  };
  const affinity = (key: string): Affinity[] | undefined => {
    const value = settings.get(key)?.value;
    if (!value) return undefined;
    if (value.kind !== "list") return Array.from({ length: maxvcpus }, () => list(value.text, key, value.place));
    if (value.items.length > maxvcpus) warnings.push(`${placeText(value.place)}: ${key} has ${value.items.length} entries for ${maxvcpus} vCPUs; those beyond are ignored`);
    return value.items.slice(0, maxvcpus).map((v) => list(text(v, key), key, v.place));
  };
  const number = (key: string, fault: (n: number) => string | null): number | undefined => {
    const value = settings.get(key)?.value;
    if (!value) return undefined;
    const n = value.kind === "list" ? null : parseNumber(value.text.trim()), wrong = n === null ? "A number is wanted" : fault(n);
    if (wrong !== null) throw faultAt(value.place, `${key}: ${wrong}`);
    return n!;
  };
  const weight = number("cpu_weight", (n) => schedFault({ weight: n })), cap = number("cap", (n) => schedFault({ cap: n }) ?? (n > 100 * maxvcpus ? `${n} % are more than ${maxvcpus} vCPUs can use` : null));
  const periodUs = number("period", (n) => schedFault({ periodUs: n })), budgetUs = number("budget", (n) => schedFault({ budgetUs: n })), extratime = number("extratime", (n) => (n > 1 ? "0 or 1 is wanted" : null));
  const sched = {
    ...(weight === undefined ? {} : { weight }), ...(cap === undefined ? {} : { cap }), ...(periodUs === undefined ? {} : { periodUs }), ...(budgetUs === undefined ? {} : { budgetUs }),
    ...(extratime === undefined ? {} : { extratime: extratime === 1 }),
  };
  const pool = settings.get("pool")?.value, cpus = affinity("cpus"), cpusSoft = affinity("cpus_soft");
  return {
    config: {
      ...(pool ? { pool: text(pool, "pool") } : {}), ...(cpus ? { cpus } : {}), ...(cpusSoft ? { cpusSoft } : {}), ...(Object.keys(sched).length ? { sched } : {}),
    }, warnings,
  };
}
