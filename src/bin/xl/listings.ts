/** Verbs that tell: domains, the host, times, messages. */
import { hostname, release, version, arch } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Result } from "../../api/actions.ts";
import { ApiFault } from "../../api/fault.ts";
import { EXTRAVERSION, XEN_MAJOR, XEN_MINOR } from "../../hypervisor/version_op.ts";
import { findDomain, Leave, left, type Line, orLeave, right, type Verb, type Xl } from "./verb.ts";

type Info = Result<"domain.list">[number];
const help = { short: "h", long: "help", help: "show this" } as const;

/** Rows of `xl list`. */
const listRow = (d: Info): string => `${left(d.name, 40)} ${right(d.domid, 5)} ${right(Math.floor(d.memoryKiB / 1024), 5)} ${right(d.onlineVcpus, 5)}     ${d.state}  ${right((d.cpuTimeNs / 1e9).toFixed(1), 8)}`;
const HEAD = "Name                                        ID   Mem VCPUs\tState\tTime(s)";

async function list(xl: Xl, { options, words }: Line): Promise<number> {
  if (words.length > 1) throw new Leave(1, "xl list takes one domain, or none");
  const daemon = await xl.daemon();
  let domains: Info[];
  try {
    domains = await daemon.call("domain.list", words[0] === undefined ? {} : { domain: words[0] });
  } catch (e) {
    if (e instanceof ApiFault && e.code === "notfound") throw new Leave(1, `Error: Domain '${words[0]}' does not exist.`);
    throw e;
  }
  if (options.has("l")) {
    const all: unknown[] = [];
    for (const d of domains) {
      if (d.domid === 0) { all.push({ domid: 0, config: { c_info: { type: "pv", name: "Domain-0" }, b_info: { max_memkb: d.maxKiB, target_memkb: d.targetKiB, claim_mode: "False", "type.pv": {} } } }); continue; }
      try { all.push({ domid: d.domid, config: await daemon.call("domain.config", { domain: d.domid }) }); } catch (e) { if (!(e instanceof ApiFault)) throw e; /* it has ended meanwhile */ }
    }
    xl.out(`${JSON.stringify(all, null, 4)}\n`);
    return 0;
  }
  const isVerbose = options.has("v"), hasContext = options.has("Z") || isVerbose;
  xl.out(`${HEAD}${isVerbose ? "   UUID                            Reason-Code\tSecurity Label" : ""}${options.has("Z") && !isVerbose ? "   Security Label" : ""}${options.has("c") ? "         Cpupool" : ""}${options.has("n") ? " NODE Affinity" : ""}\n`);
  for (const d of domains) {
    xl.out(`${listRow(d)}${isVerbose ? ` ${d.uuid} ${right(d.shutdownReason === null ? "-" : d.shutdownReason, 8)}` : ""}${hasContext ? ` ${right("-", 16)}` : ""}${options.has("c") ? ` ${right(d.pool, 16)}` : ""}${options.has("n") ? " all" : ""}\n`);
  }
  return 0;
}

async function vmList(xl: Xl): Promise<number> {
  xl.out("UUID                                  ID    name\n");
  for (const d of await (await xl.daemon()).call("domain.list", {})) if (d.domid !== 0) xl.out(`${d.uuid}  ${d.domid}    ${left(d.name, 30)}\n`);
  return 0;
}
async function claims(xl: Xl): Promise<number> {
  xl.out("Name                                        ID   Mem VCPUs\tState\tTime(s)  Claimed\n");
  for (const d of await (await xl.daemon()).call("domain.list", {})) xl.out(`${listRow(d)} ${right(0, 5)}\n`);
  return 0;
}

async function info(xl: Xl, { options }: Line): Promise<number> {
  const i = await (await xl.daemon()).call("machine.info", {}), out = (key: string, value: string | number): void => xl.out(`${left(key, 22)} : ${value}\n`);
  out("host", hostname()); out("release", release()); out("version", version()); out("machine", arch() === "x64" ? "x86_64" : arch());
  out("nr_cpus", i.nrPcpus); out("max_cpu_id", i.nrPcpus - 1); out("nr_nodes", 1); out("cores_per_socket", i.cores); out("threads_per_core", 1); out("cpu_mhz", `${i.cpuMHz}.000`);
  out("hw_caps", "00000000:00000000:00000000:00000000:00000000:00000000:00000000:00000000"); out("virt_caps", "pvh hvm gnttab-v1");
  out("total_memory", i.totalMiB); out("free_memory", i.freeMiB); out("sharing_freed_memory", 0); out("sharing_used_memory", 0); out("outstanding_claims", 0); out("free_cpus", i.freePcpus);
  if (options.has("n")) {
    out("cpu_topology", "");
    xl.out("cpu:    core    socket     node\n");
    for (let cpu = 0; cpu < i.nrPcpus; cpu++) xl.out(`${right(cpu, 3)}:    ${right(cpu, 4)}     ${right(0, 4)}     ${right(0, 4)}\n`);
    out("device topology", "");
    xl.out("device           node\nNo device topology data available\n");
    out("numa_info", "");
    xl.out(`node:    memsize    memfree    distances\n${right(0, 4)}:    ${right(i.totalMiB, 6)}     ${right(i.freeMiB, 6)}      10\n`);
  }
  out("xen_major", XEN_MAJOR); out("xen_minor", XEN_MINOR); out("xen_extra", EXTRAVERSION); out("xen_version", `${XEN_MAJOR}.${XEN_MINOR}${EXTRAVERSION}`); out("xen_caps", "hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64");
  out("xen_scheduler", i.scheduler); out("xen_pagesize", 4096); out("platform_params", "virt_start=0xffff800000000000"); out("xen_changeset", ""); out("xen_commandline", `engine=${i.engine}`);
  out("cc_compiler", "TypeScript to WebAssembly"); out("cc_compile_by", "domus"); out("cc_compile_domain", "domus"); out("cc_compile_date", "unbuilt"); out("build_id", ""); out("xend_config_format", 4);
  return 0;
}

const two = (n: number): string => String(n).padStart(2, "0");
/** "1 day,  2:03:04", "2:03:04"; short: without seconds. */
function upFor(seconds: number, isShort: boolean): string {
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60;
  return `${days > 1 ? `${days} days, ` : days === 1 ? "1 day, " : ""}${days || isShort ? String(hours).padStart(2) : hours}:${two(minutes)}${isShort ? "" : `:${two(Math.floor(seconds) % 60)}`}`;
}
async function uptime(xl: Xl, { options, words }: Line): Promise<number> {
  const daemon = await xl.daemon(), isShort = options.has("s"), now = new Date();
  const domains = words.length ? await Promise.all(words.map(async (w) => { const { domid } = await findDomain(xl, w); return (await daemon.call("domain.list", { domain: domid }))[0]!; })) : await daemon.call("domain.list", {});
  if (!isShort) xl.out("Name                                ID Uptime\n");
  for (const d of domains) {
    const up = upFor(Math.max(0, (now.getTime() - d.startedMs) / 1000), isShort);
    xl.out(isShort ? ` ${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())} up ${up}, ${d.name} (${d.domid})\n` : `${left(d.name, 33)} ${right(d.domid, 4)} ${up}\n`);
  }
  return 0;
}

async function domid(xl: Xl, { words }: Line): Promise<number> {
  const found = (await (await xl.daemon()).call("domain.list", {})).find((d) => d.name === words[0]);
  if (!found) throw new Leave(1, `Can't get domid of domain name '${words[0]}', maybe this domain does not exist.`);
  xl.out(`${found.domid}\n`);
  return 0;
}
async function domname(xl: Xl, { words }: Line): Promise<number> {
  if (!/^\d{1,9}$/.test(words[0]!)) throw new Leave(1, "Invalid domain id.\n");
  const found = (await (await xl.daemon()).call("domain.list", {})).find((d) => d.domid === Number(words[0]));
  if (!found) throw new Leave(1, `Can't get domain name of domain id '${words[0]}', maybe this domain does not exist.`);
  xl.out(`${found.name}\n`);
  return 0;
}

async function top(xl: Xl): Promise<number> {
  const daemon = await xl.daemon(), isScreen = process.stdout.isTTY, everyMs = isScreen ? 3000 : 1000;
  let before = new Map<string, { cpuTimeNs: number; atMs: number }>();
  const sample = async (): Promise<string> => {
    const [i, domains] = await Promise.all([daemon.call("machine.info", {}), daemon.call("domain.list", {})]), atMs = performance.now(), next = new Map<string, { cpuTimeNs: number; atMs: number }>();
    const rows = domains.map((d) => {
      const old = before.get(d.uuid), percent = old ? (d.cpuTimeNs - old.cpuTimeNs) / 1e4 / (atMs - old.atMs) : 0;
      next.set(d.uuid, { cpuTimeNs: d.cpuTimeNs, atMs });
      return `${right(d.name.slice(0, 20), 20)} ${d.state} ${right(Math.floor(d.cpuTimeNs / 1e9), 10)} ${right(Math.max(0, percent).toFixed(1), 6)} ${right(d.memoryKiB, 10)} ${right((d.memoryKiB / i.totalMiB / 10.24).toFixed(1), 6)} ${right(d.maxKiB, 10)} ${right(d.onlineVcpus, 5)}`;
    });
    before = next;
    return `domus - ${new Date().toTimeString().slice(0, 8)}   Xen ${XEN_MAJOR}.${XEN_MINOR}${EXTRAVERSION}\n${domains.length} domains: ${domains.filter((d) => d.state[0] === "r").length} running, ${domains.filter((d) => d.state[1] === "b").length} blocked, ${domains.filter((d) => d.state[2] === "p").length} paused, ${domains.filter((d) => d.state[4] === "c").length} crashed\n`
      + `Mem: ${i.totalMiB * 1024}k total, ${(i.totalMiB - i.freeMiB) * 1024}k used, ${i.freeMiB * 1024}k free    CPUs: ${i.nrPcpus}\n${right("NAME", 20)}  STATE ${right("CPU(sec)", 11)} CPU(%) ${right("MEM(k)", 10)} MEM(%) ${right("MAXMEM(k)", 10)} VCPUS\n${rows.join("\n")}\n`;
  };
  let text = await sample();
  const quit = new AbortController(), stop = (): void => quit.abort();
  xl.signal.addEventListener("abort", stop, { once: true });
  if (isScreen && process.stdin.isTTY) {
    process.stdin.setRawMode(true);
    process.stdin.on("data", (b: Buffer) => { if (/[qQ\x03]/.test(b.toString("latin1"))) stop(); });
  }
  while (!quit.signal.aborted) {
    if (isScreen) xl.out(`\x1b[H\x1b[2J${text}`);
    await sleep(everyMs, null, { signal: quit.signal }).catch(() => {});
    if (quit.signal.aborted) break;
    text = await sample();
    if (!isScreen) { xl.out(text); break; }
  }
  if (process.stdin.isTTY && isScreen) process.stdin.setRawMode(false);
  process.stdin.unref?.();
  return 0;
}

/** The verbs. */
export const LISTING_VERBS: readonly Verb[] = [
  { name: "list", help: "List domains, or one", args: "[options] [Domain]", run: list, options: [{ short: "l", long: "long", help: "all about them, as libxl's JSON" }, { short: "v", long: "verbose", help: "UUIDs and reasons of ends" }, { short: "Z", long: "context", help: "security labels; there are none" }, { short: "c", long: "cpupool", help: "their cpupools" }, { short: "n", long: "numa", help: "NUMA nodes; there is one" }, help], note: "Domain-0 is the machine's process" },
  { name: "vm-list", help: "List guests with their UUIDs", args: "", run: vmList, options: [help] },
  { name: "claims", help: "List domains with memory claimed for them; none ever is", args: "", run: claims, options: [help] },
  { name: "info", help: "Tell about the host", args: "[options]", run: info, options: [help, { short: "n", long: "numa", help: "topology too" }], note: "memory and CPUs are the machine's" },
  { name: "domid", help: "A domain's number", args: "<DomainName>", minWords: 1, run: domid, options: [help] },
  { name: "domname", help: "A domain's name", args: "<DomainId>", minWords: 1, run: domname, options: [help] },
  { name: "uptime", help: "How long domains have been there", args: "[-s] [Domain]", run: uptime, options: [help, { short: "s", help: "short" }], note: "a restart does not begin it anew" },
  { name: "top", help: "Watch domains; q ends it", args: "", run: top, options: [help], note: "xl runs xentop; into a pipe it samples once over a second" },
  { name: "dmesg", help: "The machine's messages", args: "[-c]", options: [help, { short: "c", help: "forget them afterwards" }], run: async (xl, { options }) => { xl.out((await orLeave(1, (await xl.daemon()).call("machine.dmesg", options.has("c") ? { clear: true } : {}))).text); return 0; } },
  { name: "debug-keys", help: "Have the machine write to its messages", args: "<Keys>", minWords: 1, modifies: true, options: [help], note: "d e g h q r; h lists them", run: async (xl, { words }) => { await orLeave(1, (await xl.daemon()).call("machine.debugKeys", { keys: words[0]! }), `cannot send debug keys: ${words[0]}`); return 0; } },
];
