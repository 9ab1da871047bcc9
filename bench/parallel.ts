/** Two busy one-vCPU guests on two pCPUs against one of them alone: what sharing a machine costs. The bare processor does the same work as a control. */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { domus, Guest, type Images, images, QEMU, qemuArgs, xlCfg } from "../test/guest.ts";
import { BOOT_MS } from "./boot.ts";
import { type Bench, Collector, type Effort } from "./figures.ts";
import { folder, ourOptions } from "./ground.ts";
import { build, withPrograms } from "./programs.ts";

const MEMORY_MIB = 128;
/** Runs of each program: some seconds of work under Domus, as long under the others. */
const WORK = ["sha256", "crc32", "sort", "matrix"] as const, TIMES = { Domus: 20, "QEMU TCG": 20, native: 40 } as const;
type Where = keyof typeof TIMES;

const script = (times: number): string => `echo work begins; ${WORK.map((p) => `/bench/${p} ${times}`).join("; ")}; echo work ends; /sbin/poweroff -f`;
/** No shell to drive: with several guests the console is nobody's. Neither /proc nor a login is needed for the work. */
const cmdline = (console: string, times: number): string => `console=${console} quiet rdinit=/bin/busybox -- sh -c "${script(times)}"`;

/** From the first word of the last to begin until the end of each, by this computer's clock. @returns milliseconds a guest */
async function workMs(guest: Guest, prefixes: readonly string[]): Promise<number[]> {
  return Promise.all(prefixes.map(async (prefix) => {
    const at = async (line: string) => {
      const until = performance.now() + BOOT_MS;
      while (!guest.out.includes(`${prefix}${line}`)) {
        if (performance.now() > until || guest.child.exitCode !== null) throw new Error(`No "${prefix}${line}" in:\n${guest.out.slice(-2000)}\n${guest.err}`);
        await new Promise((done) => setTimeout(done, 5));
      }
      return performance.now();
    };
    const from = await at("work begins");
    return (await at("work ends")) - from;
  }));
}

async function ours(nr: number, files: Images): Promise<number> {
  const names = ["one", "two"].slice(0, nr);
  const cfgs = names.map((name) => {
    const path = join(folder(), `parallel-${name}.cfg`);
    writeFileSync(path, xlCfg(name, files, MEMORY_MIB, cmdline("hvc0", TIMES.Domus)));
    return path;
  });
  await using guest = new Guest(process.execPath, [domus, "run", ...cfgs, "--pcpus", "2", ...ourOptions]);
  return Math.max(...(await workMs(guest, nr === 1 ? [""] : names.map((n) => `${n}| `))));
}
async function peers(nr: number, files: Images): Promise<number> {
  await using one = new Guest(QEMU, qemuArgs(files, MEMORY_MIB, cmdline("ttyS0", TIMES["QEMU TCG"])));
  await using two = nr === 2 ? new Guest(QEMU, qemuArgs(files, MEMORY_MIB, cmdline("ttyS0", TIMES["QEMU TCG"]))) : null;
  return Math.max(...(await Promise.all([one, two].map(async (guest) => (guest ? workMs(guest, [""]) : [0])))).flat());
}
async function native(nr: number): Promise<number> {
  const once = async (): Promise<void> => {
    for (const p of WORK) await new Promise((done, fail) => { spawn(build(p), [String(TIMES.native)], { stdio: "ignore" }).on("error", fail).on("close", done); });
  };
  const begun = performance.now();
  await Promise.all(Array.from({ length: nr }, once));
  return performance.now() - begun;
}

async function run({ rounds, say }: Effort) {
  const found = new Collector(), files = withPrograms(images());
  const places: Record<Where, (nr: number) => Promise<number>> = { native, "QEMU TCG": (nr) => peers(nr, files), Domus: (nr) => ours(nr, files) };
  for (let round = 0; round < rounds; round++) {
    for (const [where, work] of Object.entries(places)) {
      const alone = (await work(1)) / 1000, both = (await work(2)) / 1000;
      found.add(where, "one alone", alone);
      found.add(where, "two at once", both);
      found.add(where, "ratio", both / alone);
      say(`parallel: ${where}: ${alone.toFixed(2)} s alone, ${both.toFixed(2)} s two at once, ratio ${(both / alone).toFixed(2)}`);
    }
  }
  return [{
    title: "Two busy guests on two pCPUs", columns: ["one alone", "two at once", "ratio"], rows: found.rows(), digits: 2,
    unit: "Seconds for a fixed work (more of it where it goes faster), the slower of the two; at most 1.3 is asked of Domus.",
    notes: ["One machine of ours runs both guests; QEMU runs as two processes; native is two processes on the bare processors, which is what this computer can do at best."],
  }];
}
export const parallel: Bench = { name: "parallel", help: "two busy guests at once against one alone", run };
