/** Boot to the first userspace line, from the process's start: Debian's kernels, ours and QEMU's TCG in turn. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { BANNER } from "../src/toolstack/initramfs.ts";
import { domus, Guest, type Images, images, QEMU, qemuArgs, xlCfg } from "../test/guest.ts";
import { type Bench, Collector, type Effort, type Table } from "./figures.ts";
import { folder, ourOptions, ratioRow } from "./ground.ts";

export const MEMORY_MIB = 256, BOOT_MS = 300_000;
const kernels = ["cloud", "generic"] as const;
/** Columns; `warm`: with a persistent code cache that an earlier boot has filled. */
export const COLD = "Domus", WARM = "Domus, warm cache", COLD_RATIO = "Domus / TCG", WARM_RATIO = "warm / TCG";
const TCG = "QEMU TCG", MILLIONS = "millions of instructions";

/** Start a guest of ours. */
export function startOurs(name: string, files: Images, memoryMiB: number, options: readonly string[] = []): Guest {
  const cfg = join(folder(), `${name}.cfg`);
  writeFileSync(cfg, xlCfg(name, files, memoryMiB));
  return new Guest(domus, ["run", cfg, ...ourOptions, ...options]);
}
/** Start QEMU's. */
export const startPeer = (files: Images, memoryMiB: number): Guest => new Guest(QEMU, qemuArgs(files, memoryMiB));

async function bootMs(guest: Guest): Promise<number> {
  await using running = guest;
  return (await running.expect(new RegExp(BANNER), BOOT_MS)).atMs - running.startedMs;
}
/** The report's figure; the guest ran a moment longer than to the line. */
const millionsOfInstructions = (guest: Guest): number => Number(/"instructions":(\d+)/.exec(guest.err)?.[1]) / 1e6;

/** Can our guests keep translated code? */
const keepsCode = (): boolean => execFileSync(process.execPath, [domus, "run", "--help"], { encoding: "utf8" }).includes("--code-cache");
/** Boot once and power off, so that the cache is as a user's is the second time. */
async function prime(files: Images, options: readonly string[]): Promise<void> {
  await using guest = startOurs("prime", files, MEMORY_MIB, options);
  await guest.takeShell(BOOT_MS);
  guest.write("poweroff -f\n");
  await guest.ended(BOOT_MS);
}

/** Boot them in turn. @returns the figures, a row a kernel */
export async function boots(chosen: readonly (typeof kernels)[number][], { rounds, say }: Pick<Effort, "rounds" | "say">): Promise<{ found: Collector; table: Table }> {
  const found = new Collector(), warm = keepsCode();
  for (const kernel of chosen) {
    const files = images(kernel), row = `${kernel} kernel`, cache = ["--code-cache", join(folder(), `code-${kernel}`)];
    if (warm) await prime(files, cache);
    const starts: [string, () => Guest][] = [[TCG, () => startPeer(files, MEMORY_MIB)], [COLD, () => startOurs(kernel, files, MEMORY_MIB, ["--json"])]];
    if (warm) starts.push([WARM, () => startOurs(kernel, files, MEMORY_MIB, cache)]);
    for (let round = 0; round < rounds; round++) {
      for (const [column, start] of starts) {
        const guest = start(), seconds = (await bootMs(guest)) / 1000;
        found.add(row, column, seconds);
        if (column === COLD) found.add(row, MILLIONS, millionsOfInstructions(guest));
        say(`boot: ${row}, ${column}: ${seconds.toFixed(2)} s`);
      }
      ratioRow(found, row, COLD, TCG, COLD_RATIO);
      if (warm) ratioRow(found, row, WARM, TCG, WARM_RATIO);
    }
  }
  const table: Table = {
    title: "Boot to the first userspace line", columns: [TCG, COLD, ...(warm ? [WARM] : []), COLD_RATIO, ...(warm ? [WARM_RATIO] : []), MILLIONS], rows: found.rows(), digits: 2,
    unit: `Seconds from the start of the process to the line "${BANNER}" on the console; guests of ${MEMORY_MIB} MiB, one CPU, the same kernel and initramfs.`,
    notes: [warm ? "The warm cache was filled by one boot before the first that counts." : "Without a warm cache: this domus run has no --code-cache."],
  };
  return { found, table };
}

export const boot: Bench = {
  name: "boot",
  help: "boot Debian's kernels to the first userspace line",
  run: async (effort) => [(await boots(effort.quick ? kernels.slice(0, 1) : kernels, effort)).table],
};
