/**
 * node tools/compare/run.ts --kernel FILE [--initrd FILE] [--append TEXT] [--memory MIB] [--system-map FILE] --from ADDRESS|SYMBOL
 *                           [--steps N] [--at SYMBOL,SYMBOL ...] [--forgive REGEXP] [--cpu MODEL]
 * Boots the kernel under QEMU up to --from, takes the whole machine over into our engine, and steps both until a register differs.
 * With --at only those addresses are compared. Results of CPUID, RDTSC, MSRs, ports and MMIO are taken from QEMU.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { UserError } from "../../src/base/errors.ts";
import { runTool } from "../tool.ts";
import { lockstep, showDivergence } from "./lockstep.ts";
import { Ours } from "./ours.ts";
import { Qemu } from "./qemu.node.ts";

/** Symbols by name, from System.map or `nm`. */
export function readSymbols(text: string): Map<string, bigint> {
  const symbols = new Map<string, bigint>();
  for (const line of text.split("\n")) { const m = /^([0-9a-f]+) \S (\S+)/.exec(line); if (m) symbols.set(m[2]!, BigInt(`0x${m[1]}`)); }
  return symbols;
}

async function main(): Promise<number> {
  const { values: v } = parseArgs({ options: { kernel: { type: "string" }, initrd: { type: "string" }, append: { type: "string" }, memory: { type: "string", default: "128" }, "system-map": { type: "string" },
    from: { type: "string" }, steps: { type: "string", default: "100000" }, at: { type: "string" }, forgive: { type: "string" }, cpu: { type: "string" } } });
  if (!v.kernel || !v.from) throw new UserError("--kernel and --from are needed");
  const symbols = v["system-map"] ? readSymbols(readFileSync(v["system-map"], "utf8")) : new Map<string, bigint>();
  const address = (name: string): bigint => {
    const s = symbols.get(name) ?? (/^(0x)?[0-9a-f]+$/i.test(name) ? BigInt(`0x${name.replace(/^0x/i, "")}`) : undefined);
    if (s === undefined) throw new UserError(`"${name}" is neither an address nor a symbol${v["system-map"] ? ` of ${v["system-map"]}` : " (is --system-map missing?)"}`);
    return s;
  };
  const from = address(v.from), qemu = await Qemu.start({ kernel: v.kernel, memoryMiB: Number(v.memory), ...(v.initrd ? { initrd: v.initrd } : {}), ...(v.append ? { append: v.append } : {}), ...(v.cpu ? { cpu: v.cpu } : {}) });
  try {
    await qemu.runTo(from);
    const ours = new Ours(await qemu.physicalMemory());
    ours.take(await qemu.snapshot());
    const truth = { step: async () => { await qemu.gdb.step(); }, registers: () => qemu.registers(), runTo: (a: bigint) => qemu.runTo(a) };
    const end = await lockstep(truth, ours, { steps: Number(v.steps), ...(v.at ? { only: new Set(v.at.split(",").map(address)) } : {}), ...(v.forgive ? { forgive: new RegExp(v.forgive) } : {}) });
    console.log(end.divergence ? showDivergence(end.divergence) : `No difference in ${end.steps} steps (${end.why})`);
    return end.divergence ? 1 : 0;
  } finally { qemu.close(); }
}

if (process.argv[1] === import.meta.filename) await runTool(import.meta.filename, main);
