/** What several vCPUs bring: parallel work in a stock Debian kernel with one vCPU on one pCPU, and with four on two. */
import { images } from "../test/guest.ts";
import { readFileSync } from "node:fs";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine } from "../src/toolstack/machine.ts";
import { type Effort, median, type Table } from "./figures.ts";
import { tasks } from "./sched-host.ts";

/** Eight jobs of processes and pipes, `-P` at once; made of what the initramfs has. */
const WORK = (jobs: number, times: number): string => `seq 8 | xargs -P ${jobs} -n 1 sh -c 'i=0; while [ $i -lt ${times} ]; do head -c 200000 /bin/busybox | gzip | sha256sum > /dev/null; i=$((i+1)); done'`;
type Run = { wallMs: number; ranMs: number; waitedMs: number };

async function run(vcpus: number, pcpus: number, times: number): Promise<Run> {
  const { kernel, ramdisk } = images(), machine = await createMachine({ host: nodeHost(), pcpus, memoryMiB: 320 });
  try {
    const d = await machine.createDomain({ name: "parallel", kernel: readFileSync(kernel), ramdisk: readFileSync(ramdisk), memoryMiB: 256, vcpus, cmdline: "console=hvc0 quiet cryptomgr.notests=1" });
    let out = "", told = (): void => {};
    void d.console.readable.pipeTo(new WritableStream({ write: (b) => { out += String.fromCharCode(...b); told(); } })).catch(() => {});
    const writer = d.console.writable.getWriter(), expect = async (text: string): Promise<void> => {
      for (const end = performance.now() + 600_000; !out.includes(text);) {
        if (performance.now() > end) throw new Error(`The guest did not say ${text}: ${out.slice(-500)}`);
        await new Promise<void>((done) => { const timer = setTimeout(done, 1000); told = () => { clearTimeout(timer); done(); }; });
      }
      out = out.slice(out.indexOf(text) + text.length);
    };
    const say = (line: string): Promise<void> => writer.write(new TextEncoder().encode(`${line}\n`));
    await expect("# ");
    await say(`stty -echo; ${WORK(vcpus, Math.ceil(times / 4))}; echo "war""med"`);       // its code is translated then
    await expect("warmed");
    const before = tasks(), begun = performance.now();
    await say(`${WORK(vcpus, times)}; echo "do""ne"`);
    await expect("done");
    const after = tasks();
    return { wallMs: performance.now() - begun, ranMs: (after.ranNs - before.ranNs) / 1e6, waitedMs: (after.waitedNs - before.waitedNs) / 1e6 };
  } finally { await machine.destroy(); }
}
/** @param bars of the chart: wanted, got */
export async function parallelSpeed({ quick, rounds, say }: Effort, bars: { name: string; values: number[] }[]): Promise<Table> {
  const times = quick ? 1 : 8, found: Record<string, Record<string, number[]>> = {};
  const add = (row: string, column: string, x: number): void => { ((found[row] ??= {})[column] ??= []).push(x); };
  for (let r = 0; r < rounds; r++) {
    const one = await run(1, 1, times), four = await run(4, 2, times), crowded = await run(4, 1, times);
    for (const [name, x] of [["1 vCPU on 1 pCPU", one], ["4 vCPUs on 2 pCPUs", four], ["4 vCPUs on 1 pCPU", crowded]] as const) { add(name, "s", x.wallMs / 1000); add(name, "s of CPU", x.ranMs / 1000); add(name, "s waited for a CPU", x.waitedMs / 1000); }
    // a thread that waits for a processor of the host would have run: on a host with nothing else to do it takes so much less
    const own = (x: Run): number => x.wallMs * x.ranMs / (x.ranMs + x.waitedMs), wall = one.wallMs / four.wallMs, fair = own(one) / own(four);
    add("4 vCPUs on 1 pCPU, speed-up", "s", own(one) / own(crowded));
    add("**speed-up**", "s", wall);
    add("**speed-up, host's delays taken out**", "s", fair);
    say(`sched: parallel work: ${wall.toFixed(2)} times as fast by the clock, ${fair.toFixed(2)} with the host's delays taken out`);
  }
  bars.push({ name: "4 vCPUs", values: [1.7, median(found["**speed-up, host's delays taken out**"]!["s"]!)] });
  return {
    title: "Four vCPUs on two pCPUs", unit: `Eight jobs of ${times} times \`gzip | sha256sum\` of 200 kB of busybox in Debian's cloud kernel, as many at once as there are vCPUs.`, columns: ["s", "s of CPU", "s waited for a CPU"], digits: 2,
    rows: Object.entries(found).map(([name, rows]) => ({ name, rounds: rows })),
    notes: ["Four vCPUs on one pCPU show what waiting for a lock holder that does not run costs: 1 would be nothing.", "The last line scales each wall time by the part of the time its threads wanted to run in which the host let them: what would be left on a host with nothing else to do."],
  };
}
