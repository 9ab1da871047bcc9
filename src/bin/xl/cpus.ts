/** Verbs for vCPUs, schedulers and cpupools. */
import type { Result } from "../../api/actions.ts";
import type { SchedName, SchedParams } from "../../api/cpus.ts";
import { UserError } from "../../base/errors.ts";
import { parseXlCfg } from "../../toolstack/xlcfg.ts";
import { readWhole } from "../run.ts";
import { findDomain, findGuest, Leave, left, type Line, orLeave, parseRanges, rangesText, right, type Verb, type Xl } from "./verb.ts";

const help = { short: "h", long: "help", help: "show this" } as const;
type Pool = Result<"pool.list">[number];
const ask = async <T>(xl: Xl, doing: (daemon: Awaited<ReturnType<Xl["daemon"]>>) => Promise<T>, line?: string): Promise<T> => orLeave(1, doing(await xl.daemon()), line);
const nrPcpus = async (xl: Xl): Promise<number> => (await (await xl.daemon()).call("machine.info", {})).nrPcpus;

async function vcpuList(xl: Xl, { words }: Line): Promise<number> {
  const nr = await nrPcpus(xl), rows = words.length === 0 ? await ask(xl, (d) => d.call("cpu.list", {})) : [];
  for (const word of words) { const { domid } = await findDomain(xl, word); rows.push(...await ask(xl, (d) => d.call("cpu.list", { domain: domid }))); }
  xl.out(`${left("Name", 32)} ${right("ID", 5)} ${right("VCPU", 5)} ${right("CPU", 5)} ${right("State", 5)} ${right("Time(s)", 9)} Affinity (Hard / Soft)\n`);
  for (const v of rows) {
    const cpu = !v.isOnline ? `${right("-", 5)} ${right("-", 3)}-p ` : `${right(v.pcpu ?? "-", 5)} ${right(v.state[0] ?? "-", 3)}${v.state[1] ?? "-"}${v.state[2] ?? "-"} `;
    xl.out(`${left(v.name, 32)} ${right(v.domid, 5)} ${right(v.vcpu, 5)} ${cpu}${right((v.timeNs / 1e9).toFixed(1), 9)}  ${rangesText(v.hard, nr)} / ${rangesText(v.soft, nr)}\n`);
  }
  return 0;
}
async function vcpuPin(xl: Xl, { words }: Line): Promise<number> {
  const [word, which, hardText, softText = "-"] = words as [string, string, string, string?], { domid } = await findGuest(xl, word), nr = await nrPcpus(xl);
  if (which !== "all" && !/^\d{1,4}$/.test(which)) throw new Leave(1, `Error: Invalid argument ${which} as VCPU.`);
  const affinity = (text: string): number[] | "all" | null => {
    if (text === "-") return null;
    const set = parseRanges(text);
    if (set === null) throw new Leave(1, `Invalid pcpu range: ${text}.`);
    return set === "all" ? set : [...set];
  };
  const hard = affinity(hardText), soft = affinity(softText);
  if (hard !== "all" && hard?.length === 0) throw new Leave(1, "vcpu hard affinity map is empty");
  if (xl.isDryRun) { xl.out(`cpumap: ${hard === null ? "-" : rangesText(hard, nr)}\n`); return 0; }
  await ask(xl, (d) => d.call("cpu.pin", { domain: domid, vcpu: which === "all" ? "all" : Number(which), hard, soft }), which === "all" ? "Could not set affinity." : `Could not set affinity for vcpu \`${which}'.`);
  return 0;
}
async function vcpuSet(xl: Xl, { words, options }: Line): Promise<number> {
  const { domid } = await findGuest(xl, words[0]!), wanted = /^\d{1,4}$/.test(words[1]!) ? Number(words[1]) : 0;
  if (wanted === 0) throw new Leave(1, "Error: Invalid argument.");
  const nr = await nrPcpus(xl);
  if (wanted > nr && !options.has("i")) throw new Leave(1, `You are overcommmitting! You have ${nr} physical CPUs and want ${wanted} vCPUs! Aborting, use --ignore-host to continue`);
  await ask(xl, (d) => d.call("cpu.online", { domain: domid, nr: wanted }), `libxl_set_vcpuonline failed domid=${domid} max_vcpus=${wanted}`);
  return 0;
}

// Schedulers --------------------------------------------------------------------------
const number = (text: string, what: string): number => { if (!/^\d{1,9}$/.test(text)) throw new Leave(1, `xl: ${what}: "${text}" is no number`); return Number(text); };
type SchedVerb = { readonly sched: SchedName; readonly head: string; row(name: string, domid: number, p: SchedParams): string; pool(p: Pool): string };
const CREDIT: SchedVerb = {
  sched: "credit", head: `${left("Name", 33)} ${right("ID", 4)} ${right("Weight", 6)} ${right("Cap", 4)}`, row: (name, domid, p) => `${left(name, 33)} ${right(domid, 4)} ${right(p.weight ?? 256, 6)} ${right(p.cap ?? 0, 4)}`,
  pool: (p) => `Cpupool ${p.name}: tslice=${p.tsliceMs ?? 30}ms ratelimit=${p.ratelimitUs ?? 1000}us migration-delay=0us`,
};
const CREDIT2: SchedVerb = { ...CREDIT, sched: "credit2", pool: (p) => `Cpupool ${p.name}: ratelimit=${p.ratelimitUs ?? 1000}us` };
const RTDS: SchedVerb = {
  sched: "rtds", head: `${left("Name", 33)} ${right("ID", 4)} ${right("VCPU", 4)} ${right("Period", 9)} ${right("Budget", 9)} ${right("Extratime", 10)}`,
  row: (name, domid, p) => `${left(name, 33)} ${right(domid, 4)} ${right(p.vcpu ?? 0, 4)} ${right(p.periodUs ?? 10000, 9)} ${right(p.budgetUs ?? 4000, 9)} ${right(p.extratime === false ? "no" : "yes", 10)}`, pool: (p) => `Cpupool ${p.name}: sched=RTDS`,
};

/** Show the domains of each pool of a scheduler. */
async function showSched(xl: Xl, v: SchedVerb, poolName: string | undefined, isVcpus: boolean): Promise<number> {
  const pools = await ask(xl, (d) => d.call("pool.list", {}));
  if (poolName !== undefined && !pools.some((p) => p.name === poolName)) throw new Leave(1, `unknown cpupool '${poolName}'`);
  for (const p of pools.filter((p) => p.sched === v.sched && (poolName === undefined || p.name === poolName))) {
    xl.out(`${v.pool(p)}\n${v.head}\n`);
    for (const id of p.domains) {
      const [info] = await (await xl.daemon()).call("domain.list", { domain: id }), { params } = await ask(xl, (d) => d.call("sched.get", { domain: id }));
      for (const params1 of isVcpus || v.sched !== "rtds" ? params : params.slice(0, 1)) xl.out(`${v.row(info!.name, id, params1 as SchedParams)}\n`);
    }
  }
  return 0;
}
const schedVerb = (v: SchedVerb) => async (xl: Xl, { options }: Line): Promise<number> => {
  const word = options.get("d"), pool = options.get("p"), ratelimit = options.get("r"), tslice = options.get("t"), weight = options.get("w"), cap = options.get("c");
  if (options.has("s") || ratelimit !== undefined || tslice !== undefined) {
    if (word !== undefined || weight !== undefined || cap !== undefined) throw new Leave(1, "Specifying a cpupool or schedparam is not allowed with domain options.");
    if (!options.has("s")) throw new Leave(1, "Must specify schedparam to set schedule parameter values.");
    const pools = (await ask(xl, (d) => d.call("pool.list", {}))).filter((p) => p.sched === v.sched && (pool === undefined || p.name === pool));
    if (pools.length === 0) throw new Leave(1, pool === undefined ? `xl: no cpupool has the scheduler ${v.sched}` : `unknown cpupool '${pool}'`);
    if (ratelimit === undefined && tslice === undefined) { for (const p of pools) xl.out(`${v.pool(p)}\n`); return 0; }
    await ask(xl, (d) => d.call("pool.set", { id: pools[0]!.id, ...(ratelimit === undefined ? {} : { ratelimitUs: number(ratelimit, "ratelimit") }), ...(tslice === undefined ? {} : { tsliceMs: number(tslice, "tslice") }) }), `libxl_sched_${v.sched}_params_set failed.`);
    return 0;
  }
  if (word === undefined) {
    if (weight !== undefined || cap !== undefined) throw new Leave(1, "Must specify a domain.");
    return showSched(xl, v, pool, false);
  }
  if (pool !== undefined) throw new Leave(1, "Specifying a cpupool is not allowed with other options.");
  return oneSched(xl, v, word, { ...(weight === undefined ? {} : { weight: number(weight, "weight") }), ...(cap === undefined ? {} : { cap: number(cap, "cap") }) });
};
/** Show or set one domain's parameters. */
async function oneSched(xl: Xl, v: SchedVerb, word: string, params: SchedParams, which?: string): Promise<number> {
  const found = await findDomain(xl, word);
  if (Object.keys(params).some((k) => k !== "vcpu")) {
    await ask(xl, (d) => d.call("sched.set", { domain: found.domid, params }), "libxl_domain_sched_params_set failed.");
    return 0;
  }
  const { sched, params: have } = await ask(xl, (d) => d.call("sched.get", { domain: found.domid }));
  if (sched !== v.sched) throw new Leave(1, `libxl_domain_sched_params_get returned ${sched} not ${v.sched}.`);
  xl.out(`${v.head}\n`);
  for (const p of which === undefined ? have.slice(0, 1) : which === "all" ? have : have.filter((x) => x.vcpu === Number(which))) xl.out(`${v.row(found.name, found.domid, p as SchedParams)}\n`);
  return 0;
}
async function schedRtds(xl: Xl, { options }: Line): Promise<number> {
  const word = options.get("d"), which = options.get("v"), period = options.get("p"), budget = options.get("b"), extra = options.get("e");
  if (word === undefined) {
    if (period !== undefined || budget !== undefined || extra !== undefined || (which !== undefined && which !== "all")) throw new Leave(1, "Must specify a domain.");
    return showSched(xl, RTDS, options.get("c"), which === "all");
  }
  if (extra !== undefined && extra !== "0" && extra !== "1") throw new Leave(1, "Invalid extratime.");
  if ((period === undefined) !== (budget === undefined)) throw new Leave(1, "Missing parameters.");
  return oneSched(xl, RTDS, word, {
    ...(which === undefined || which === "all" ? {} : { vcpu: number(which, "vcpu") }), ...(period === undefined ? {} : { periodUs: number(period, "period") }), ...(budget === undefined ? {} : { budgetUs: number(budget, "budget") }), ...(extra === undefined ? {} : { extratime: extra === "1" }),
  }, which);
}

// Pools -------------------------------------------------------------------------------
async function findPool(xl: Xl, word: string): Promise<Pool> {
  const pools = await ask(xl, (d) => d.call("pool.list", {})), found = pools.find((p) => p.name === word) ?? pools.find((p) => String(p.id) === word);
  if (!found) throw new Leave(1, `unknown cpupool '${word}'`);
  return found;
}
async function poolCreate(xl: Xl, { words, options }: Line): Promise<number> {
  const file = options.get("f") ?? words.find((w) => !w.includes("=")), settings = words.filter((w) => w.includes("="));
  let text = "";
  if (file !== undefined) {
    try { text = new TextDecoder().decode(readWhole(file, "configuration", 1 << 20)); } catch (e) { throw e instanceof UserError ? new Leave(1, e.message) : e; }
    xl.out(`Using config file "${file}"\n`);
  }
  const string = (key: string): string | undefined => { const v = cfg.get(key)?.value; return v === undefined || v.kind === "list" ? undefined : v.text; };
  let cfg: ReturnType<typeof parseXlCfg>;
  try { cfg = parseXlCfg(`${text}\n${settings.map((s) => (/=\s*["'\d[]/.test(s) ? s : s.replace(/=(.*)$/, '="$1"'))).join("\n")}`, file ?? "command line"); } catch (e) { throw e instanceof UserError ? new Leave(1, `${e.message}\nFailed to parse config: Invalid argument`) : e; }
  const name = string("name"), sched = string("sched") ?? (await ask(xl, (d) => d.call("pool.list", {})))[0]?.sched ?? "credit2", cpusValue = cfg.get("cpus")?.value, nr = await nrPcpus(xl);
  if (name === undefined) throw new Leave(1, "Missing cpupool name!");
  if (!/^(?:credit2?|rtds|null)$/.test(sched)) throw new Leave(1, "Unknown scheduler");
  const pools = await ask(xl, (d) => d.call("pool.list", {}));
  if (pools.some((p) => p.name === name)) throw new Leave(1, `Pool name "${name}" already exists`);
  const free = Array.from({ length: nr }, (_, i) => i).filter((i) => !pools.some((p) => p.pcpus.includes(i)));
  const given = cpusValue === undefined ? null : cpusValue.kind === "list" ? cpusValue.items.map((i) => (i.kind === "list" ? "" : i.text)).join(",") : cpusValue.text, set = given === null ? free.slice(0, 1) : parseRanges(given);
  if (set === null) throw new Leave(1, `Invalid pcpu range: ${given}.`);
  const pcpus = set === "all" ? Array.from({ length: nr }, (_, i) => i) : [...set], taken = pcpus.find((c) => !free.includes(c));
  if (taken !== undefined) throw new Leave(1, `cpu ${taken} illegal or not free`);
  if (pcpus.length === 0) throw new Leave(1, "no free cpu found");
  xl.out(`cpupool name:   ${name}\nscheduler:      ${sched}\nnumber of cpus: ${pcpus.length}\n`);
  if (xl.isDryRun || options.has("n")) return 0;
  await ask(xl, (d) => d.call("pool.create", { name, sched: sched as SchedName, pcpus }), "error on creating cpupool");
  return 0;
}
async function poolList(xl: Xl, { words, options }: Line): Promise<number> {
  const pools = await ask(xl, (d) => d.call("pool.list", {})), shown = words[0] === undefined ? pools : pools.filter((p) => p.name === words[0]);
  if (words[0] !== undefined && shown.length === 0) throw new Leave(1, `Pool '${words[0]}' does not exist`);
  xl.out(`${left("Name", 19)}${options.has("c") ? "CPU list" : "CPUs   Sched     Active   Domain count"}\n`);
  for (const p of shown) xl.out(`${left(p.name, 19)}${options.has("c") ? [...p.pcpus].sort((a, b) => a - b).join(",") : `${right(p.pcpus.length, 3)} ${right(p.sched, 9)}       y       ${right(p.domains.length, 4)}`}\n`);
  return 0;
}
const poolCpu = (action: "pool.addCpu" | "pool.removeCpu") => async (xl: Xl, { words }: Line): Promise<number> => {
  const pool = await findPool(xl, words[0]!), set = parseRanges(words[1]!);
  if (set === null) throw new Leave(1, `Invalid pcpu range: ${words[1]}.`);
  const taken = new Set((await ask(xl, (d) => d.call("pool.list", {}))).flatMap((p) => p.pcpus));
  const pcpus = set !== "all" ? set : action === "pool.removeCpu" ? pool.pcpus : Array.from({ length: await nrPcpus(xl) }, (_, i) => i).filter((i) => !taken.has(i));
  for (const pcpu of pcpus) await ask(xl, (d) => d.call(action, { id: pool.id, pcpu }), action === "pool.addCpu" ? `some cpus may not have been added to ${pool.name}` : `Some cpus may not have or only partially been removed from '${pool.name}'.\nIf a cpu can't be added to another cpupool, add it to '${pool.name}' again and retry.`);
  return 0;
};

const SCHED_OPTIONS = [{ short: "d", long: "domain", value: true, arg: "DOMAIN", help: "the domain" }, { short: "w", long: "weight", value: true, arg: "WEIGHT", help: "its weight" }, { short: "c", long: "cap", value: true, arg: "CAP", help: "its limit in percent of a pCPU; 0: none" },
  { short: "s", long: "schedparam", help: "show or set what holds for the cpupool" }, { short: "r", long: "ratelimit_us", value: true, arg: "RLIMIT", help: "how long a vCPU runs at least, in microseconds" }, { short: "p", long: "cpupool", value: true, arg: "CPUPOOL", help: "only that cpupool" }, help] as const;

/** The verbs. */
export const CPU_VERBS: readonly Verb[] = [
  { name: "vcpu-list", help: "List vCPUs", args: "[Domain, ...]", options: [help], run: vcpuList },
  { name: "vcpu-pin", help: "On which pCPUs a vCPU may run, and on which it had better", args: "[option] <Domain> <VCPU|all> <Hard affinity|-|all> <Soft affinity|-|all>", minWords: 3, modifies: true, dryRun: true, options: [help, { short: "f", long: "force", help: "taken, without meaning" }, { long: "ignore-global-affinity-masks", help: "taken, without meaning" }], run: vcpuPin },
  { name: "vcpu-set", help: "Have the first so many vCPUs on line", args: "[option] <Domain> <vCPUs>", minWords: 2, modifies: true, options: [help, { short: "i", long: "ignore-host", help: "more than the host has pCPUs" }], run: vcpuSet },
  { name: "sched-credit", help: "Show or set the credit scheduler's parameters", args: "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-t TSLICE] [-r RATELIMIT]] [-p CPUPOOL]", modifies: true, run: schedVerb(CREDIT),
    options: [...SCHED_OPTIONS, { short: "t", long: "tslice_ms", value: true, arg: "TSLICE", help: "a time slice, in milliseconds" }, { short: "m", long: "migration_delay_us", value: true, arg: "DLY", help: "taken, without meaning" }] },
  { name: "sched-credit2", help: "Show or set the credit2 scheduler's parameters", args: "[-d <Domain> [-w[=WEIGHT]]] [-p CPUPOOL]", modifies: true, run: schedVerb(CREDIT2), options: SCHED_OPTIONS },
  { name: "sched-rtds", help: "Show or set the rtds scheduler's parameters", args: "[-d <Domain> [-v[=VCPUID/all]] [-p[=PERIOD]] [-b[=BUDGET]] [-e[=Extratime]]]", modifies: true, run: schedRtds, note: "one -v, -p, -b, -e a call; xl takes several",
    options: [{ short: "d", long: "domain", value: true, arg: "DOMAIN", help: "the domain" }, { short: "v", long: "vcpuid", value: true, arg: "VCPUID/all", help: "the vCPU" }, { short: "p", long: "period", value: true, arg: "PERIOD", help: "its period, in microseconds" }, { short: "b", long: "budget", value: true, arg: "BUDGET", help: "its time in each, in microseconds" },
      { short: "e", long: "extratime", value: true, arg: "Extratime", help: "1: it may have more when nobody wants it" }, { short: "c", long: "cpupool", value: true, arg: "CPUPOOL", help: "only that cpupool" }, help] },
  { name: "cpupool-create", help: "Make a cpupool", args: "[options] [<ConfigFile>] [Variable=value ...]", modifies: true, dryRun: true, run: poolCreate, options: [help, { short: "f", long: "defconfig", value: true, arg: "FILE", help: "the configuration file" }, { short: "n", long: "dryrun", help: "print what it means, and make nothing" }] },
  { name: "cpupool-list", help: "List cpupools", args: "[-c|--cpus] [<CPU Pool>]", run: poolList, options: [help, { short: "c", long: "cpus", help: "their pCPUs" }] },
  { name: "cpupool-destroy", help: "Take a cpupool apart", args: "<CPU Pool>", minWords: 1, modifies: true, options: [help], run: async (xl, { words }) => { const pool = await findPool(xl, words[0]!); await ask(xl, (d) => d.call("pool.destroy", { id: pool.id }), `Can't destroy cpupool '${words[0]}'`); return 0; } },
  { name: "cpupool-rename", help: "Give a cpupool another name", args: "<CPU Pool> <new name>", minWords: 2, modifies: true, options: [help], run: async (xl, { words }) => { const pool = await findPool(xl, words[0]!); await ask(xl, (d) => d.call("pool.rename", { id: pool.id, name: words[1]! }), `Can't rename cpupool '${words[0]}'`); return 0; } },
  { name: "cpupool-cpu-add", help: "Put pCPUs into a cpupool", args: "<CPU Pool> <CPU nr>|node:<node nr>", minWords: 2, modifies: true, options: [help], run: poolCpu("pool.addCpu") },
  { name: "cpupool-cpu-remove", help: "Take pCPUs out of a cpupool", args: "<CPU Pool> <CPU nr>|node:<node nr>", minWords: 2, modifies: true, options: [help], run: poolCpu("pool.removeCpu") },
  { name: "cpupool-migrate", help: "Move a domain to a cpupool", args: "<Domain> <CPU Pool>", minWords: 2, modifies: true, options: [help], run: async (xl, { words }) => { const { domid } = await findGuest(xl, words[0]!), pool = await findPool(xl, words[1]!); await ask(xl, (d) => d.call("pool.move", { domain: domid, id: pool.id })); return 0; } },
];
