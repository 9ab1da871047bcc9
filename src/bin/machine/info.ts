/** What a machine's process tells of itself and its domains. */
import { cpus as hostCpus } from "node:os";
import { SHUTDOWN } from "../../abi/sched.ts";
import type { Result } from "../../api/actions.ts";
import { cpusOf } from "../../api/cpus.ts";
import { DOMAIN, VPF } from "../../hypervisor/objects.ts";
import type { Domain } from "../../toolstack/domain.ts";
import type { Machine } from "../../toolstack/machine.ts";
import type { Residents } from "./residents.ts";

/** The pool where no other is said. */
const POOL_0 = "Pool-0";
const startedMs = Date.now();

/** xl's six letters, from what Xen's getdomaininfo says: blocked when every vCPU on line is, running when one runs. */
function stateOf(machine: Machine, domain: Domain): { state: string; shutdownReason: number | null; cpuTimeNs: number; onlineVcpus: number } {
  const hd = machine.hv.domain(domain.domid);
  if (!hd) return { state: "-----d", shutdownReason: null, cpuTimeNs: 0, onlineVcpus: 0 };
  let isRunning = false, isBlocked = true, cpuTimeNs = 0, onlineVcpus = 0;
  for (const v of hd.vcpus()) {
    cpuTimeNs += machine.hv.scheduler.cpuTimeNs(v);
    if (!v.isUp) continue;
    onlineVcpus++;
    if (v.onPcpu >= 0) isRunning = true;
    if (!(v.pauseFlags & (VPF.blocked | VPF.polling))) isBlocked = false;
  }
  const end = hd.end, flag = (is: boolean, letter: string): string => (is ? letter : "-");
  const state = flag(isRunning, "r") + flag(isBlocked && !isRunning, "b") + flag(hd.hv.load(DOMAIN.pauseCount, hd.at) > 0 && !end, "p") + flag(end !== null, "s") + flag(end?.code === SHUTDOWN.crash, "c") + flag(hd.isDying, "d");
  return { state, shutdownReason: end?.code ?? null, cpuTimeNs, onlineVcpus };
}

/** A domain in a listing. */
export function domainInfo(residents: Residents, domain: Domain): Result<"domain.list">[number] {
  const { machine } = residents.house, hd = machine.hv.domain(domain.domid), keeper = residents.keeperOf(domain);
  let targetKiB = 0, maxKiB = 0;
  try { targetKiB = domain.control.memoryTargetMiB * 1024; maxKiB = domain.control.memoryMaxMiB * 1024; } catch { /* it is going */ }
  return {
    domid: domain.domid, name: domain.name, uuid: domain.uuid, memoryKiB: (hd?.totPages ?? 0) * 4, targetKiB: Math.round(targetKiB), maxKiB, vcpus: hd?.nrVcpus ?? 0, ...stateOf(machine, domain), startedMs: keeper?.startedMs ?? startedMs,
    pool: cpusOf(machine)?.pools().find((p) => p.domains.includes(domain.domid))?.name ?? POOL_0,
  };
}
/** The control domain in a listing: this process's main thread. */
export function domain0(machine: Machine): Result<"domain.list">[number] {
  const kib = Math.round(ownMemoryMiB(machine) * 1024);
  return { domid: 0, name: "Domain-0", uuid: "00000000-0000-0000-0000-000000000000", memoryKiB: kib, targetKiB: kib, maxKiB: kib, vcpus: 1, onlineVcpus: 1, state: "r-----", shutdownReason: null, cpuTimeNs: ownCpuTimeNs(), startedMs, pool: POOL_0 };
}
/** What the process has beyond the guests' frames. */
const ownMemoryMiB = (machine: Machine): number => Math.max(1, Math.round((process.memoryUsage().rss - (machine.hv.mm.frames.nrFrames - machine.hv.mm.frames.nrFree) * 4096) / 2 ** 20));
/** The main thread's time. */
function ownCpuTimeNs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) * 1000;
}

/** What `xl info` is made from. */
export function machineInfo(machine: Machine): Result<"machine.info"> {
  const { frames, nrPcpus } = machine.hv.mm, report = machine.report(), cpus = cpusOf(machine), pools = cpus?.pools(), used = pools?.reduce((n, p) => n + p.pcpus.length, 0) ?? nrPcpus;
  return {
    pid: process.pid, startedMs, nrPcpus, cpuMHz: hostCpus()[0]?.speed ?? 0, totalMiB: Math.floor(frames.nrFrames / 256), freeMiB: Math.floor(frames.nrFree / 256), engine: report.engine, scheduler: pools?.[0]?.sched ?? "credit2",
    nrDomains: machine.domains.length, freePcpus: nrPcpus - used, cores: nrPcpus, ownMemoryMiB: ownMemoryMiB(machine), ownCpuTimeNs: ownCpuTimeNs(),
  };
}
