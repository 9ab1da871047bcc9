/** Disk and network against QEMU's TCG: the same kernel, initrd and disks in guests that were booted once and take turns; two guests that talk; what a request costs. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../src/base/errors.ts";
import { peakMemoryMiB } from "../test/guest.ts";
import { BOOT_MS } from "./boot.ts";
import { type Chart, chart } from "./chart.ts";
import { type Bench, Collector, type Effort, geometricMean, type Row, type Table } from "./figures.ts";
import { folder, ratioRow } from "./ground.ts";
import { IO_MEMORY_MIB, ioFiles, type IoFiles, type IoPlace, type IoWork, label, PAIR_MEMORY_MIB, PAIR_WORKS, WORKS } from "./io-guest.ts";
import { type Counts, cpuSeconds, hostServers, IO_PLACE, pair, readCounts, startPlace } from "./io-peers.ts";
import { fillMemory } from "./memory.ts";
import { needQemu } from "./places.ts";
import { Standstill } from "./standstill.ts";

const RATIO = "Domus / TCG, virtio", EMULATED_RATIO = "TCG, emulated / virtio", VERDICT = "at least 1", BEYOND = "beyond the guest's memory";
/** Of one figure. */
const MAX_TRIES = 4;
type Servers = Awaited<ReturnType<typeof hostServers>>;

/** What is found, and sentences about what failed: a row that fails in one place leaves the others alone. */
class Findings {
  readonly rates = new Collector();
  readonly cpu = new Collector();
  readonly notes: string[] = [];
  readonly standstill = new Standstill();
  /** Do it again while this computer stood still meanwhile. @returns null when it failed, which is a note then */
  async attempt<T>(what: string, action: () => Promise<T>, say: Effort["say"]): Promise<T | null> {
    for (let tries = 1; ; tries++) {
      const before = this.standstill.look(), stood = (): boolean => tries < MAX_TRIES && this.standstill.look() !== before;
      try {
        const result = await action();
        if (!stood()) return result;
      } catch (e) {
        if (!stood()) {
          if (e instanceof UserError) throw e;
          const why = (e as Error).message.trim().split("\n");
          this.notes.push(`${what} failed: ${why.length > 1 ? `${why[0]} ${why.at(-1)}` : why[0]}`);
          say(`io: ${what} failed: ${why.join("\n").slice(-1500)}`);
          return null;
        }
      }
      say(`io: ${what} is done again: this computer stood still`);
    }
  }
  /** @param done the places that have a figure of this round */
  addRatios(work: IoWork, done: readonly string[]): void {
    for (const [of, to, name] of [[IO_PLACE.domus, IO_PLACE.virtio, RATIO], [IO_PLACE.emulated, IO_PLACE.virtio, EMULATED_RATIO]] as const) {
      if (done.includes(of) && done.includes(to)) ratioRow(this.rates, label(work), of, to, name);
    }
  }
}

/** Rounds of works, each in every place in turn; and the processes' CPU time around each. */
async function measure(works: readonly IoWork[], places: readonly IoPlace[], seconds: number, { rounds, say }: Effort, found: Findings): Promise<void> {
  for (const work of works) for (const place of places) await found.attempt(`${work.key}, warming up in ${place.name},`, () => place.take(work, 1), say);
  for (let round = 1; round <= rounds; round++) {
    for (const work of works) {
      const done: string[] = [], said: string[] = [];
      for (const { name, guest, take } of places) {
        const measured = await found.attempt(`${work.key} in ${name}, round ${round},`, async () => {
          const before = cpuSeconds(guest.child.pid!), { rate, amount } = await take(work, seconds);
          return { rate, amount, used: cpuSeconds(guest.child.pid!) - before };
        }, say);
        if (!measured) continue;
        found.rates.add(label(work), name, measured.rate);
        found.cpu.add(`${work.key}, ${work.isBulk ? "s a GiB" : "ms a request"}`, name, ((work.isBulk ? 1 : 1000) * measured.used) / measured.amount);
        done.push(name);
        said.push(`${name} ${measured.rate.toFixed(0)}`);
      }
      found.addRatios(work, done);
      say(`io: ${round}/${rounds} ${label(work)}: ${said.join(", ")}`);
    }
  }
}

async function measurePairs(works: readonly IoWork[], files: IoFiles, { rounds, say }: Effort, found: Findings): Promise<void> {
  for (let round = 1; round <= rounds; round++) {
    const done: string[] = [];
    for (const name of [IO_PLACE.virtio, IO_PLACE.domus]) {
      const measured = await found.attempt(`two guests in ${name}, round ${round},`, () => pair(name, files), say);
      if (!measured) continue;
      for (const work of works) found.rates.add(label(work), name, measured.get(work.key)!.rate);
      done.push(name);
      say(`io: ${round}/${rounds} two guests in ${name}: ${works.map((w) => `${measured.get(w.key)!.rate.toFixed(0)} ${w.unit}`).join(", ")}`);
    }
    for (const work of works) found.addRatios(work, done);
  }
}

/** The works whose requests are counted. */
const COUNTED = ["read-1M-d32", "write-1M-d32", "randread-4k-d1", "randread-4k-d32", "randwrite-4k-d1", "tcp-to-host", "tcp-from-host", "tcp-ask-host"];
/** Boot, do the work once for so long, and read what the whole life of the domain took. */
async function life(work: IoWork, seconds: number, files: IoFiles, servers: Servers): Promise<{ counts: Counts; amount: number }> {
  const report = join(folder(), "report.json");
  await using place = await startPlace(IO_PLACE.domus, files, servers, [`--json=${report}`]);
  const { amount } = await place.take(work, seconds);
  place.guest.write("poweroff -f\n");
  await place.guest.ended(BOOT_MS);
  return { counts: readCounts(readFileSync(report, "utf8")), amount };
}
async function count(works: readonly IoWork[], seconds: number, files: IoFiles, servers: Servers, { quick, say }: Effort, found: Findings): Promise<Table> {
  const costs = new Collector(), chosen = works.filter((w) => COUNTED.includes(w.key)), short = seconds, long = seconds * 5;
  for (const work of quick ? chosen.filter((w) => !w.isBulk).slice(0, 1) : chosen) {
    const cost = await found.attempt(`counting ${work.key}`, async () => {
      const less = await life(work, short, files, servers), more = await life(work, long, files, servers), requests = (more.amount - less.amount) * (work.isBulk ? 1024 : 1);
      if (!(requests > 0)) throw new Error("The longer life did no more than the shorter");
      return (key: keyof Counts) => (more.counts[key] - less.counts[key]) / requests;
    }, say);
    if (!cost) continue;
    for (const key of ["instructions", "exits", "hypercalls"] as const) costs.add(`${work.key}, a ${work.isBulk ? "MiB" : "request"}`, key, cost(key));
    say(`io: counted ${work.key}`);
  }
  return {
    title: "What a request takes in Domus", columns: ["instructions", "exits", "hypercalls"], rows: costs.rows(), digits: 1,
    unit: `The difference of two lives of a domain, from boot to poweroff, in one of which the work went on for ${short} s and in the other for ${long} s, over the difference of what it did. Guest instructions, its kernel's and the program's.`,
    notes: ["An exit is whatever brings control back from guest code: a hypercall's are among them, and ends of time slices (`slice`)."],
  };
}

async function measureMemory(places: readonly IoPlace[], { say }: Effort, found: Findings): Promise<Table> {
  const memory = new Collector();
  for (const { name, guest } of places) {
    await found.attempt(`filling memory in ${name}`, () => fillMemory(guest, IO_MEMORY_MIB), say);
    memory.add(BEYOND, name, peakMemoryMiB(guest.child.pid!) - IO_MEMORY_MIB);
  }
  return { title: "Memory after the rows of one guest", unit: `MiB: VmHWM of the processes, less the ${IO_MEMORY_MIB} MiB of the guest, which has used all it has.`, columns: places.map((p) => p.name), rows: memory.rows(), digits: 0, notes: [] };
}

/** Rows of ratios with the word whether each is as asked, their geometric mean and the worst. */
export function ratioTable(rates: Collector, columns: readonly string[]): Table {
  const medians = rates.rows().map(({ name }) => ({ name, value: rates.median(name, RATIO) })).filter(({ value }) => !Number.isNaN(value)), word = (value: number): string => (value >= 1 ? "met" : "missed");
  const rows = rates.rows().map((row): Row => { const value = rates.median(row.name, RATIO); return { ...row, words: { [VERDICT]: Number.isNaN(value) ? "not measured" : word(value) } }; });
  const mean = geometricMean(medians.map((m) => m.value)), worst = [...medians].sort((a, b) => a.value - b.value)[0];
  const summary: Row[] = worst ? [{ name: "**geometric mean**", rounds: { [RATIO]: [mean] } }, { name: "**worst**", rounds: { [RATIO]: [worst.value] }, words: { [RATIO]: `${worst.value.toFixed(2)}, ${worst.name}` } }] : [];
  return {
    title: "Ratios", unit: "Of a round's figures; more is better. What is asked: no row below QEMU's with virtio.", columns: [...columns, VERDICT], rows: [...rows, ...summary], digits: 2,
    notes: [`${rows.filter((r) => r.words![VERDICT] === "met").length} of ${rows.length} rows are as asked.`],
  };
}
function ratioChart(rates: Collector, works: readonly IoWork[], hasEmulated: boolean): Chart {
  const bars = [["Domus", RATIO], ...(hasEmulated ? [["TCG, IDE and vmxnet3", EMULATED_RATIO]] : [])];
  return {
    title: "Disk and network: rate as a multiple of QEMU TCG's with virtio", subtitle: "longer is faster; the scale is logarithmic; medians", series: bars.map(([name]) => name!),
    groups: works.map((work) => ({ name: work.key, values: bars.map(([, ratio]) => rates.median(label(work), ratio!)) })),
  };
}

/** @throws UserError for a name that there is not */
function choose(all: readonly IoWork[], { only }: Effort): IoWork[] {
  const keys = [...WORKS, ...PAIR_WORKS].map((w) => w.key), unknown = only.find((name) => !keys.includes(name));
  if (unknown !== undefined) throw new UserError(`--only: there is no work "${unknown}"; there are ${keys.join(", ")}`);
  return all.filter((w) => only.length === 0 || only.includes(w.key));
}

async function run(effort: Effort): Promise<Table[]> {
  needQemu();
  const { quick, say } = effort, works = choose(WORKS, effort), pairWorks = choose(PAIR_WORKS, effort), seconds = quick ? 2 : 5;
  const files = ioFiles(seconds, say), found = new Findings();
  using _watch = found.standstill;
  const names = quick ? [IO_PLACE.virtio, IO_PLACE.domus] : [IO_PLACE.emulated, IO_PLACE.virtio, IO_PLACE.domus];
  await using servers = await hostServers();
  const more: Table[] = [];
  {
    await using stack = new AsyncDisposableStack();
    const places: IoPlace[] = [];
    for (const name of works.length ? names : []) {
      say(`io: boot ${name}`);
      places.push(stack.use(await startPlace(name, files, servers)));
    }
    await measure(works, places, seconds, effort, found);
    if (effort.only.length === 0) more.push(await measureMemory(places, effort, found));
  }
  if (pairWorks.length) await measurePairs(pairWorks, files, effort, found);
  const counted = await count(works, seconds, files, servers, effort, found), ratios = names.length > 2 ? [RATIO, EMULATED_RATIO] : [RATIO];
  if (effort.svg !== undefined) writeFileSync(effort.svg, chart(ratioChart(found.rates, [...works, ...pairWorks], names.length > 2)));
  return [
    {
      title: "Disk and network", columns: names, rows: found.rates.rows(), digits: 0,
      unit: `The row's name has the unit; ${seconds} s each. Debian's cloud kernel and initrd, one CPU, ${IO_MEMORY_MIB} MiB (two guests that talk: ${PAIR_MEMORY_MIB} each).`,
      notes: [
        "Disks: fio with libaio and direct=1 on a raw file of 1 GiB of random bytes, which lies in the host's page cache and is the same for all; d is the depth. QEMU has `cache=writeback` and no I/O thread.",
        "Network: iperf3 and one-byte requests (bench/pingpong.c) to the host's loopback at 10.0.2.2, through our router and through QEMU's user network, neither of which needs root. Two guests that talk are joined by a bridge of ours, and in QEMU by a `stream` between the processes.",
        "vmxnet3 and IDE (ata_piix) stand for emulated chips: Debian's cloud kernel has no driver for e1000.",
        "Each work ran once for a second in each guest before anything counted, and guests stay for all rounds, so that translated code is there; two guests that talk boot in every round.",
        ...(found.standstill.look() ? [`This computer stood still ${found.standstill.look()} times, ${(found.standstill.stoodMs / 1000).toFixed(0)} s in all; what was measured meanwhile was measured again.`] : []),
        ...found.notes,
      ],
    },
    ratioTable(found.rates, ratios),
    { title: "CPU time", unit: "Of the processes, the start of the program in the guest included; the servers on the host are not. What is divided by is what fio, iperf3 or pingpong counted.", columns: names, rows: found.cpu.rows(), digits: 3, notes: [] },
    counted, ...more,
  ];
}

export const io: Bench = { name: "io", help: "disk and network against QEMU's TCG: fio, iperf3, requests, two guests that talk; what a request costs", run };
