/** Memory beyond the guest's: the peak of the processes, less what the guest was given, after its kernel has booted and after it has used all it has. */
import { images } from "../test/guest.ts";
import { peakMemoryMiB } from "../test/guest.ts";
import { BOOT_MS, MEMORY_MIB, startOurs, startPeer } from "./boot.ts";
import { type Bench, Collector, type Table } from "./figures.ts";

/** Left free, so that the guest does not run out of memory. */
const SPARE_KIB = 12 * 1024;

/** Have a guest touch all its memory, so that a peak less that memory is what its machine needs beside it. @returns MiB of files written */
export async function fillMemory(guest: { run(command: string, timeoutMs: number): Promise<{ out: string }> }, memoryMiB: number): Promise<number> {
  const { out } = await guest.run(`mount -t tmpfs -o size=100% none /mnt 2>/dev/null || { mkdir -p /mnt; mount -t tmpfs -o size=100% none /mnt; }; dd if=/dev/zero of=/mnt/fill bs=1024k count=$((($(awk '/^MemFree/ {print $2}' /proc/meminfo) - ${SPARE_KIB}) / 1024)) 2>&1 | tail -n 1; df -k /mnt | tail -n 1`, BOOT_MS);
  const usedMiB = Number(/^none\s+\d+\s+(\d+)/m.exec(out)?.[1] ?? 0) / 1024;
  if (usedMiB < memoryMiB / 4) throw new Error(`The guest filled ${usedMiB} MiB only:\n${out}`);
  return usedMiB;
}

export const memory: Bench = {
  name: "memory",
  help: "peak memory of the process beyond its guest's",
  async run({ rounds, say }): Promise<Table[]> {
    const found = new Collector(), files = images();
    for (let round = 0; round < rounds; round++) {
      for (const [column, start] of [["QEMU TCG", () => startPeer(files, MEMORY_MIB)], ["Domus", () => startOurs("memory", files, MEMORY_MIB)]] as const) {
        await using guest = start();
        await guest.takeShell(BOOT_MS);
        const booted = peakMemoryMiB(guest.child.pid!);
        const usedMiB = await fillMemory(guest, MEMORY_MIB), filled = peakMemoryMiB(guest.child.pid!);
        found.add("peak after boot, guest's touched pages included", column, booted);
        found.add("peak when the guest has used all it has", column, filled);
        found.add("**beyond the guest's memory**", column, filled - MEMORY_MIB);
        say(`memory: ${column}: ${booted.toFixed(0)} MiB after boot, ${filled.toFixed(0)} with ${usedMiB.toFixed(0)} MiB of files`);
      }
    }
    return [{
      title: "Memory beyond the guest's", unit: `MiB: VmHWM of the process and its descendants (ours: the launcher too), a guest of ${MEMORY_MIB} MiB.`, columns: ["QEMU TCG", "Domus"], rows: found.rows(), digits: 0,
      notes: [`The guest fills a tmpfs until ${SPARE_KIB / 1024} MiB are free, so up to that much of its memory was never touched.`],
    }];
  },
};
