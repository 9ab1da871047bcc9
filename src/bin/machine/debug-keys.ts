/** What `xl debug-keys` writes to the machine's messages: Xen's keys, for what there is here. */
import { ECS_NAMES, portsOf } from "./ports.ts";
import { RUNSTATE } from "../../abi/vcpu.ts";
import { ApiFault } from "../../api/fault.ts";
import { nrGrantFrames } from "../../hypervisor/grant_table.ts";
import { DOMAIN, PCPU, PCPU_STATE, VCPU } from "../../hypervisor/objects.ts";
import { registersAt } from "../../toolstack/crash.ts";
import type { Machine } from "../../toolstack/machine.ts";

type Key = { readonly help: string; text(machine: Machine): string[] };
const STATES = ["running", "runnable", "blocked", "offline"];
const named = (machine: Machine): { name: string; domid: number; hd: NonNullable<ReturnType<Machine["hv"]["domain"]>> }[] =>
  machine.domains.flatMap(({ name, domid }) => { const hd = machine.hv.domain(domid); return hd ? [{ name, domid, hd }] : []; });

const KEYS: Readonly<Record<string, Key>> = {
  d: { help: "registers of all vCPUs, as they last left their pCPU", text: (m) => named(m).flatMap(({ domid, hd }) => [...hd.vcpus()].flatMap((v) => {
    const at = v.onPcpu >= 0 ? m.hv.mm.pcpuAt(v.onPcpu) : v.context, rows = Object.entries(registersAt(m.hv, at)).map(([n, value]) => `${n} ${value}`), lines: string[] = [];
    for (let i = 0; i < rows.length; i += 4) lines.push(`  ${rows.slice(i, i + 4).join("  ")}`);
    return [`d${domid}v${v.id}${v.onPcpu >= 0 ? ` on pCPU ${v.onPcpu}` : ""}:`, ...lines];
  })) },
  e: { help: "event channels", text: (m) => named(m).flatMap(({ domid, hd }) => [`Event channels of domain ${domid}:`, ...portsOf(hd).map(({ port, status: s, isPending }) =>
    `  ${String(port).padStart(5)} [${isPending ? "p" : "-"}] ${ECS_NAMES[s.state] ?? s.state} v${s.vcpu}${s.state === 2 ? ` to d${s.remoteDomid} port ${s.remotePort}` : s.state === 4 ? ` virq ${s.virq}` : ""}`)]) },
  g: { help: "grant tables", text: (m) => named(m).map(({ domid, hd }) => `Domain ${domid}: grant table version ${hd.hv.get(DOMAIN.gntVersion, hd.at)}, ${nrGrantFrames(hd)} frames`) },
  h: { help: "this list", text: () => Object.entries(KEYS).map(([key, k]) => ` key '${key}' => ${k.help}`) },
  q: { help: "domains and their vCPUs", text: (m) => named(m).flatMap(({ name, domid, hd }) => [
    `Domain ${domid} (${name}): ${hd.totPages} pages of ${hd.maxPages}, paused ${hd.hv.load(DOMAIN.pauseCount, hd.at)} times${hd.isDying ? ", dying" : hd.isShutDown ? `, shut down (${hd.end?.code})` : ""}`,
    ...[...hd.vcpus()].map((v) => {
      const { state, time } = hd.hv.scheduler.runstateOf(v);
      return `  vCPU ${v.id}: ${STATES[state] ?? state}${v.onPcpu >= 0 ? ` on pCPU ${v.onPcpu}` : ""}, ran ${(time[RUNSTATE.running] / 1e9).toFixed(3)} s, waited ${(time[RUNSTATE.runnable] / 1e9).toFixed(3)} s, pause flags ${v.pauseFlags}, ${hd.hv.get(VCPU.nrHypercalls, v.at)} hypercalls`;
    }),
  ]) },
  r: { help: "pCPUs and what they run", text: (m) => Array.from({ length: m.hv.mm.nrPcpus }, (_, i) => {
    const at = m.hv.pcpuAt(i), state = m.hv.load(PCPU.state, at);
    return `pCPU ${i}: ${Object.entries(PCPU_STATE).find(([, n]) => n === state)?.[0] ?? state}, ${m.hv.get(PCPU.nrSwitches, at)} switches, ${m.hv.get(PCPU.nrSlices, at)} slices, idle ${(m.hv.get(PCPU.idleMs, at) / 1000).toFixed(3)} s`;
  }) },
};

/** The lines of some keys. @throws ApiFault for one that is none */
export function debugKeys(machine: Machine, keys: string): string {
  return [...keys].flatMap((key) => {
    if (!Object.hasOwn(KEYS, key)) throw new ApiFault("invalid", `debug-keys: there is no key "${key}"; h lists them`);
    return [`'${key}' pressed -> ${KEYS[key]!.help}`, ...KEYS[key]!.text(machine)];
  }).join("\n");
}
