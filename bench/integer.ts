/** Instructions a second: the integer programs on the bare processor, under QEMU's TCG, under Domus, and on the engine alone. */
import { images } from "../test/guest.ts";
import { BOOT_MS, MEMORY_MIB, startOurs, startPeer } from "./boot.ts";
import { runOnEngine } from "./engine.ts";
import { type Bench, Collector, geometricMean } from "./figures.ts";
import { PROGRAMS, readRuns, runNatively, withPrograms } from "./programs.ts";

/** A program's first run in a process warms the engine up; the median of the others counts. */
const TIMES = 3;

export const integer: Bench = {
  name: "integer",
  help: "integer programs: natively, in guests of both, and on the engine alone",
  async run({ rounds, say }) {
    const files = withPrograms(images()), ms = new Collector(), rates = new Collector();
    await using peer = startPeer(files, MEMORY_MIB);
    await peer.takeShell(BOOT_MS);
    await using ours = startOurs("integer", files, MEMORY_MIB);
    await ours.takeShell(BOOT_MS);
    const digests = new Map<string, string>();
    const check = (program: string, where: string, digest: string) => {
      if (digest !== (digests.get(program) ?? digest)) throw new Error(`${program} gives ${digest} under ${where}, not ${digests.get(program)}`);
      digests.set(program, digest);
    };
    for (let round = 0; round < rounds; round++) {
      for (const program of PROGRAMS) {
        const take = (where: string, runs: readonly { digest: string; ms: number }[]): number => {
          for (const r of runs) check(program, where, r.digest);
          const warm = runs.slice(1).map((r) => r.ms), value = warm.sort((a, b) => a - b)[warm.length >> 1];
          if (value === undefined) throw new Error(`${program} said nothing under ${where}`);
          ms.add(program, where, value);
          return value;
        };
        const native = take("native", runNatively(program, TIMES));
        const tcg = take("QEMU TCG", readRuns((await peer.run(`/bench/${program} ${TIMES}`, BOOT_MS)).out));
        const domus = take("Domus", readRuns((await ours.run(`/bench/${program} ${TIMES}`, BOOT_MS)).out));
        const alone = runOnEngine(program, 2), engine = take("engine alone", alone), millions = alone[0]!.instructions / 1e6;
        for (const [column, value] of [["native", native], ["QEMU TCG", tcg], ["Domus", domus], ["engine alone", engine]] as const) rates.add(program, column, (millions / value) * 1000);
        ms.add(program, "TCG / native", tcg / native);
        ms.add(program, "Domus / native", domus / native);
        ms.add(program, "Domus / TCG", domus / tcg);
        say(`integer: ${program}: native ${native.toFixed(1)} ms, TCG ${tcg.toFixed(1)}, Domus ${domus.toFixed(0)}, engine alone ${engine.toFixed(0)} ms = ${((millions / engine) * 1000).toFixed(0)} MIPS`);
      }
    }
    const mean = (from: Collector, column: string) => geometricMean(PROGRAMS.map((p) => from.median(p, column)));
    const places = ["native", "QEMU TCG", "Domus", "engine alone"], ratios = ["TCG / native", "Domus / native", "Domus / TCG"];
    const summary = { name: "**geometric mean**", rounds: Object.fromEntries(ratios.map((c) => [c, [mean(ms, c)]])) };
    const rate = { name: "**geometric mean**", rounds: Object.fromEntries(places.map((c) => [c, [mean(rates, c)]])) };
    return [
      { title: "Integer programs, time", unit: "Milliseconds of one run by the clock of the machine it runs in, and ratios; digests agree.", columns: [...places, ...ratios], rows: [...ms.rows(), summary], digits: 1, notes: [] },
      { title: "Integer programs, instructions a second", unit: "Millions of guest instructions a second; the engine's counter says how many a run takes.", columns: places, rows: [...rates.rows(), rate], digits: 0, notes: [] },
    ];
  },
};
