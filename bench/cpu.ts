/** The processor against its peers on the same work: gbench and programs that people run, in guests that were booted once and take turns; boot and memory beside. */
import { writeFileSync } from "node:fs";
import { UserError } from "../src/base/errors.ts";
import { Guest, images, QEMU, qemuArgs } from "../test/guest.ts";
import { boots, COLD_RATIO, startOurs, WARM_RATIO } from "./boot.ts";
import { type Chart, chart } from "./chart.ts";
import { type Bench, Collector, type Effort, type Table } from "./figures.ts";
import { buildGbench, Digests, type GbEnd, gbenchWorks, readGb, withBench } from "./gbench.ts";
import { fillMemory } from "./memory.ts";
import { guestPlace, nativePlace, needQemu, type Place } from "./places.ts";
import { addRatios, meanRatio, PLACE, RATIO, tables, worstRatio } from "./ratios.ts";
import { PREPARE, prepareReal, readSum, REAL, realFiles, realLine } from "./real.ts";
import { targetTable } from "./targets.ts";
import { v86Place } from "./v86.ts";

const MEMORY_MIB = 512, BEYOND = "beyond the guest's memory";

/** One thing that gbench times: a work of its own, or a program. */
type Work = { readonly name: string; readonly line: string; readonly bits: readonly number[]; digest(end: GbEnd, out: string): string };
const gbenchWork = (name: string): Work => ({ name, line: `gbench ${name}`, bits: [32, 64], digest: (end) => end.check });

/** Times of one kind of work, and how far the places' clocks are from this computer's. */
class Times {
  readonly found = new Collector();
  readonly #digests = new Digests();
  readonly #clocks = new Map<string, { own: number; here: number }>();

  /** Rounds of works, each in every place in turn: what disturbs this computer disturbs all of them. */
  async measure(works: readonly Work[], places: readonly Place[], { rounds, say }: Effort): Promise<void> {
    for (let round = 1; round <= rounds; round++) {
      for (const work of works) {
        const said: string[] = [];
        for (const place of places) if (work.bits.includes(place.bits)) said.push(`${place.name} ${(await this.#take(work, place)).toFixed(3)} s`);
        addRatios(this.found, work.name);
        say(`cpu: ${round}/${rounds} ${work.name}: ${said.join(", ")}`);
      }
    }
  }
  async #take(work: Work, place: Place): Promise<number> {
    const { out, ms } = await place.run(work.line), end = readGb(out).find((e) => e.name === work.name);
    if (!end) throw new Error(`${work.name} said nothing on ${place.name}:\n${out}`);
    this.#digests.take(work.name, place.name, work.digest(end, out));
    this.found.add(work.name, place.name, end.seconds);
    const { own, here } = this.#clocks.get(place.name) ?? { own: 0, here: 0 };
    this.#clocks.set(place.name, { own: own + end.seconds, here: here + ms / 1000 });
    return end.seconds;
  }
  /** A guest whose clock is slow would look fast: this computer's own clock sees the command's start besides, a little more, never less. */
  clockNote(): string {
    return `In all, by the place's own clock and by this computer's around the command: ${[...this.#clocks].map(([name, { own, here }]) => `${name} ${own.toFixed(1)} and ${here.toFixed(1)} s`).join(", ")}.`;
  }
}

/** Boot all that is asked for; a peer v86 that cannot be had becomes a note. */
async function startPlaces(effort: Effort, besides: ReturnType<typeof realFiles>["entries"], stack: AsyncDisposableStack, notes: string[]): Promise<Place[]> {
  const { quick, say } = effort, files = withBench(images(), 64, besides);
  const places = [stack.use(nativePlace(PLACE.native, 64))];
  const boot = async (name: string, start: () => Promise<Place>) => {
    say(`cpu: boot ${name}`);
    places.push(stack.use(await start()));
  };
  const tcg = (name: string, cpu: string) => boot(name, () => guestPlace(name, 64, new Guest(QEMU, qemuArgs(files, MEMORY_MIB, "console=ttyS0", cpu, "tcg,thread=single"))));
  await tcg(PLACE.tcg, "qemu64");
  if (!quick) await tcg(PLACE.tcgMax, "max");
  await boot(PLACE.domus, () => guestPlace(PLACE.domus, 64, startOurs("cpu", files, MEMORY_MIB)));
  if (quick) return places;
  try {
    await boot(PLACE.v86, () => v86Place(PLACE.v86, MEMORY_MIB, say));
    const narrow = nativePlace(PLACE.native32, 32);
    await narrow.run("gbench noop");
    places.splice(1, 0, stack.use(narrow));
  } catch (e) {
    const { message } = e as Error, why = /^\w*Error\b.*$/m.exec(message)?.[0] ?? message.split("\n")[0]!;
    say(`cpu: no v86: ${why}`);
    notes.push(`Without v86, which could not be had here: ${why}`);
  }
  return places.filter((p) => p.bits === 64 || places.some((q) => q.name === PLACE.native32));
}

/** The guests' peaks once they have used all they have, less that. */
async function measureMemory(places: readonly Place[]): Promise<Collector> {
  const found = new Collector();
  for (const place of places) {
    if (!place.peakMiB) continue;
    await fillMemory(place, MEMORY_MIB);
    found.add(BEYOND, place.name, place.peakMiB() - MEMORY_MIB);
    await place.run("umount /mnt");
  }
  return found;
}

function multiples(found: Collector): Chart {
  const bars = [["Domus", RATIO.domus], ["QEMU TCG (qemu64)", RATIO.tcgNative], ["v86 (32-bit)", RATIO.v86]].filter(([, ratio]) => !Number.isNaN(meanRatio(found, ratio!)));
  const values = (of: (ratio: string) => number) => bars.map(([, ratio]) => of(ratio!));
  return {
    title: "gbench: time as a multiple of the bare processor's", subtitle: "shorter is faster; the scale is logarithmic; medians", series: bars.map(([name]) => name!),
    groups: [...found.rows().map(({ name }) => ({ name, values: values((ratio) => found.median(name, ratio)) })), { name: "geometric mean", values: values((ratio) => meanRatio(found, ratio)) }],
  };
}

/** The works that are asked for. @throws UserError for a name that there is not */
function chooseWorks({ quick, only }: Effort): { works: Work[]; programs: typeof REAL } {
  const names = gbenchWorks(), all = [...names, ...REAL.map((p) => p.label)], unknown = only.find((name) => !all.includes(name)), wanted = (name: string) => only.length === 0 || only.includes(name);
  if (unknown !== undefined) throw new UserError(`--only: there is no work "${unknown}"; there are ${all.join(", ")}`);
  return { works: names.filter(wanted).map(gbenchWork), programs: quick && only.length === 0 ? [] : REAL.filter((p) => wanted(p.label)) };
}

async function run(effort: Effort): Promise<Table[]> {
  needQemu();
  buildGbench(64);
  const { works, programs } = chooseWorks(effort), times = new Times(), real = new Times(), notes: string[] = [], whole = effort.only.length === 0;
  if (programs.length) await prepareReal();
  const { entries, missing } = programs.length ? realFiles() : { entries: [], missing: new Map<string, string>() };
  const realWorks = programs.filter((p) => !missing.has(p.label)).map((p): Work => ({ name: p.label, line: realLine(p), bits: p.bits, digest: readSum }));
  let memory = new Collector();
  const present: string[] = [];
  {
    await using stack = new AsyncDisposableStack();
    const places = await startPlaces(effort, entries, stack, notes);
    present.push(...places.map((p) => p.name));
    await times.measure(works, places, effort);
    if (whole) memory = await measureMemory(places);
    if (realWorks.length) for (const place of places) await place.run(PREPARE);
    await real.measure(realWorks, places, effort);
  }
  const found: Table[] = [];
  const clock = "Seconds by the clock of the machine it runs in. The bare processor runs on one CPU, the guests have one";
  if (works.length) found.push(...tables(times.found, "gbench", `${clock} and ${MEMORY_MIB} MiB; all digests agree.`, present, [times.clockNote(), ...notes]));
  if (realWorks.length) found.push(...tables(real.found, "Programs", `${clock}; the same files everywhere but for v86's 32-bit busybox, and the same output.`, present, [real.clockNote(), ...missing.values()]));
  if (effort.svg !== undefined) writeFileSync(effort.svg, chart(multiples(times.found)));
  if (!whole) return found;
  const booted = await boots(["cloud"], effort), bootRow = "cloud kernel";
  return [...found, booted.table,
    { title: "Memory after gbench", unit: `MiB: VmHWM of the processes, less the ${MEMORY_MIB} MiB of the guest, which has used all it has.`, columns: present.filter((p) => memory.get(BEYOND, p).length), rows: memory.rows(), digits: 0, notes: [] },
    targetTable([
      { figure: "gbench, Domus / TCG, geometric mean", value: meanRatio(times.found, RATIO.tcg), must: 0.8, aim: 0.4 },
      { figure: "gbench, Domus / TCG, worst work", value: worstRatio(times.found, RATIO.tcg)?.value ?? Number.NaN, must: 2, aim: 1 },
      { figure: "gbench, Domus / native, geometric mean", value: meanRatio(times.found, RATIO.domus), must: 6, aim: 3 },
      { figure: "gbench, v86's multiple of native / Domus's, geometric mean", value: meanRatio(times.found, RATIO.lead), must: 2, aim: 4, atLeast: true },
      { figure: "boot, Domus / TCG, cold", value: booted.found.median(bootRow, COLD_RATIO), must: 2, aim: 1 },
      { figure: "boot, Domus / TCG, warm cache", value: booted.found.median(bootRow, WARM_RATIO), must: 1, aim: 0.5 },
      { figure: "memory beyond the guest's after gbench, MiB", value: memory.median(BEYOND, PLACE.domus), must: 300, aim: 100 },
    ])];
}

export const cpu: Bench = { name: "cpu", help: "gbench and real programs against QEMU's TCG, v86 and the bare processor; boot; memory", run };
