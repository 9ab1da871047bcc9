/** What is told of a guest that crashed: why, its registers, and what it asked of the hypervisor last. */
import { HYPERVISOR } from "../abi/xen.ts";
import type { Domain as HvDomain } from "../hypervisor/domain.ts";
import type { Hypervisor } from "../hypervisor/hypervisor.ts";
import { DOMAIN } from "../hypervisor/objects.ts";
import type { Cpu } from "../x86/cpu.ts";
import { getFlags } from "../x86/flags.ts";
import { CPU, gprAt, SEG, segAt } from "../x86/state.ts";

const GPR = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"];
const NR_HYPERCALLS = 10;

export type CrashReport = {
  readonly reason: string;
  readonly vcpu: number;
  /** by name, in hexadecimal, so that JSON keeps all 64 bits */
  readonly registers: Readonly<Record<string, string>>;
  /** oldest first: "event_channel_op (0x4, 0xffff...) = 0" */
  readonly lastHypercalls: readonly string[];
};

const hex = (n: bigint, digits: number): string => BigInt.asUintN(64, n).toString(16).padStart(digits, "0");

/** Registers of a CPU struct by name. */
export function registersAt(hv: Hypervisor, at: number): Record<string, string> {
  const { dv } = hv.views, found: Record<string, string> = {};
  GPR.forEach((name, i) => { found[name] = hex(dv.getBigUint64(at + gprAt(i), true), 16); });
  found["rip"] = hex(CPU.rip.get(dv, at), 16);
  found["rflags"] = hex(BigInt(getFlags({ v: hv.views, at } as Cpu) >>> 0), 8);
  SEGMENTS.forEach((name, i) => { found[name] = hex(BigInt(SEG.sel.get(dv, at + segAt(i))), 4); });
  for (const name of ["cr0", "cr2", "cr3", "cr4", "efer"] as const) found[name] = hex(CPU[name].get(dv, at), name === "cr2" || name === "cr3" ? 16 : 8);
  for (const [name, i] of [["fsBase", 4], ["gsBase", 5]] as const) found[name] = hex(SEG.base.get(dv, at + segAt(i)), 16);
  return found;
}

const NAMES = new Map<number, string>(Object.entries(HYPERVISOR).map(([name, nr]) => [nr, name]));
/** Name the calls of trace lines, and put each one's result behind it. */
function joinResults(lines: readonly string[]): string[] {
  const calls: string[] = [];
  for (const line of lines) {
    const [, nr, rest] = /hypercall (\d+) (.*)$/.exec(line) ?? [];
    if (nr === undefined || rest === undefined) continue;
    if (!rest.startsWith("=")) calls.push(`${NAMES.get(Number(nr)) ?? `hypercall ${nr}`} ${rest}`);
    else if (calls.length) calls[calls.length - 1] += ` ${rest}`;
  }
  return calls;
}

/** Gather the report; the domain has shut down and its vCPUs have left their pCPUs. */
export function crashReport(domain: HvDomain): CrashReport {
  const { hv } = domain, vcpu = Math.max(0, hv.get(DOMAIN.crashVcpu, domain.at));
  const context = domain.vcpu(vcpu)?.context ?? 0;
  return {
    reason: domain.end?.text || "the guest says it crashed", vcpu,
    registers: context ? registersAt(hv, context) : {},
    lastHypercalls: joinResults(hv.trace.text(2 * NR_HYPERCALLS, (r) => r.domid === domain.domid && r.cls === "hypercall")).slice(-NR_HYPERCALLS),
  };
}

/** The report as text for a terminal. */
export function crashText(name: string, crash: CrashReport): string {
  const rows: string[] = [], list = Object.entries(crash.registers);
  // Guest-made words go to a terminal: nothing in them may command it.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
  const reason = crash.reason.replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
  for (let i = 0; i < list.length; i += 4) rows.push(`  ${list.slice(i, i + 4).map(([n, v]) => `${n.padStart(6)} ${v}`).join("  ")}`);
  return [`${name} crashed: ${reason} (vCPU ${crash.vcpu})`, ...rows,
    crash.lastHypercalls.length ? "  last hypercalls:" : "  no hypercalls recorded", ...crash.lastHypercalls.map((h) => `    ${h}`)].join("\n");
}
