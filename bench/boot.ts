/** Boot to the first userspace line, from the process's start: Debian's kernels, ours and QEMU's TCG in turn. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { BANNER } from "../src/toolstack/initramfs.ts";
import { domus, Guest, type Images, images, QEMU, qemuArgs, xlCfg } from "../test/guest.ts";
import { type Bench, Collector } from "./figures.ts";
import { folder, ourOptions, ratioRow } from "./ground.ts";

export const MEMORY_MIB = 256, BOOT_MS = 300_000;
const kernels = ["cloud", "generic"] as const;

/** Start a guest of ours. */
export function startOurs(name: string, files: Images, memoryMiB: number, options: readonly string[] = []): Guest {
  const cfg = join(folder(), `${name}.cfg`);
  writeFileSync(cfg, xlCfg(name, files, memoryMiB));
  return new Guest(process.execPath, [domus, "run", cfg, ...ourOptions, ...options]);
}
/** Start QEMU's. */
export const startPeer = (files: Images, memoryMiB: number): Guest => new Guest(QEMU, qemuArgs(files, memoryMiB));

async function bootMs(guest: Guest): Promise<number> {
  await using running = guest;
  return (await running.expect(new RegExp(BANNER), BOOT_MS)).atMs - running.startedMs;
}
/** The report's figure; the guest ran a moment longer than to the line. */
const millionsOfInstructions = (guest: Guest): number => Number(/"instructions":(\d+)/.exec(guest.err)?.[1]) / 1e6;

export const boot: Bench = {
  name: "boot",
  help: "boot Debian's kernels to the first userspace line",
  async run({ rounds, quick, say }) {
    const found = new Collector();
    for (const kernel of quick ? kernels.slice(0, 1) : kernels) {
      const files = images(kernel);
      for (let round = 0; round < rounds; round++) {
        for (const [column, start] of [["QEMU TCG", () => startPeer(files, MEMORY_MIB)], ["Domus", () => startOurs(kernel, files, MEMORY_MIB, ["--json"])]] as const) {
          const guest = start(), seconds = (await bootMs(guest)) / 1000;
          found.add(`${kernel} kernel`, column, seconds);
          if (column === "Domus") found.add(`${kernel} kernel`, "millions of instructions", millionsOfInstructions(guest));
          say(`boot: ${kernel} kernel, ${column}: ${seconds.toFixed(2)} s`);
        }
        ratioRow(found, `${kernel} kernel`, "Domus", "QEMU TCG", "Domus / TCG");
      }
    }
    return [{
      title: "Boot to the first userspace line", columns: ["QEMU TCG", "Domus", "Domus / TCG", "millions of instructions"], rows: found.rows(), digits: 2,
      unit: `Seconds from the start of the process to the line "${BANNER}" on the console; guests of ${MEMORY_MIB} MiB, one CPU, the same kernel and initramfs.`, notes: [],
    }];
  },
};
