/**
 * `npm run bench -- [NAME...] [--quick] [--rounds N] [--engine NAME] [--json FILE] [--only WORK,...] [--svg FILE] [--doc FILE]`: every published figure (docs/measurements.md), measured again. Each benchmark runs us and the
 * peer in turn within one process; figures are medians of the rounds with their range.
 */
import { writeFileSync } from "node:fs";
import { dirname, relative } from "node:path";
import { parseArgs } from "node:util";
import { UserError } from "../src/base/errors.ts";
import { Guest } from "../test/guest.ts";
import { boot } from "./boot.ts";
import { cpu } from "./cpu.ts";
import { type Bench, type Effort, markdown, type Table } from "./figures.ts";
import { groundFacts, ourOptions } from "./ground.ts";
import { integer } from "./integer.ts";
import { io } from "./io.ts";
import { memory } from "./memory.ts";
import { migrate } from "./migrate.ts";
import { parallel } from "./parallel.ts";
import { sched } from "./sched.ts";
import { spread } from "./spread.ts";
import { web } from "./web.ts";

const BENCHES: readonly Bench[] = [cpu, io, boot, integer, memory, migrate, parallel, sched, spread, web];
/** Those with a chart, whose works have names. */
const CHARTED: readonly Bench[] = [cpu, io, sched];
const HELP = `npm run bench -- [NAME...] [--quick] [--rounds N] [--engine NAME] [--json FILE] [--only WORK,...] [--svg FILE] [--doc FILE]

${BENCHES.map((b) => `  ${b.name.padEnd(10)}${b.help}`).join("\n")}

Wants gcc, qemu-system-x86 and apt-get; io besides fio's and iperf3's image (domus image build), iperf3 and e2fsprogs. --quick: one round, the cloud kernel only; of cpu, gbench in
Domus and in QEMU's qemu64; of io, 2 s a row, and QEMU with virtio only. --engine is handed to domus run. --only restricts cpu or io to some works, and leaves boot and memory out
of it; --svg writes its chart. --doc writes what is printed to FILE, as a page with that chart.
`;

/** What was printed as a page of its own. @param chart its path, from the page's folder */
const page = (chosen: readonly Bench[], text: string, chart: string | null): string =>
  `# Measurements: \`npm run bench -- ${chosen.map((b) => b.name).join(" ")}\`\n\n${chart === null ? "" : `![the ratios as a chart](${chart})\n\n`}${text}`.replaceAll("\n### ", "\n## ");

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true, options: { quick: { type: "boolean", default: false }, rounds: { type: "string" }, engine: { type: "string" }, json: { type: "string" }, only: { type: "string" }, svg: { type: "string" }, doc: { type: "string" }, help: { type: "boolean", short: "h", default: false } },
  });
  if (values.help) { process.stdout.write(HELP); return 0; }
  const unknown = positionals.find((name) => !BENCHES.some((b) => b.name === name));
  if (unknown !== undefined) throw new UserError(`No benchmark "${unknown}"; there are ${BENCHES.map((b) => b.name).join(", ")}`);
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  if (!Number.isSafeInteger(rounds) || rounds < 1 || rounds > 1000) throw new UserError(`--rounds wants a whole number from 1 to 1000, not "${values.rounds}"`);
  const chosen = BENCHES.filter((b) => positionals.length === 0 || positionals.includes(b.name)), forOne = (["only", "svg"] as const).find((name) => values[name] !== undefined);
  if (forOne && chosen.filter((b) => CHARTED.includes(b)).length !== 1) throw new UserError(`--${forOne} is for one benchmark of ${CHARTED.map((b) => b.name).join(" and ")}; name it`);
  if (values.engine !== undefined) ourOptions.push("--engine", values.engine);
  const facts = { ...groundFacts(), engine: values.engine ?? "auto" }, tables: Table[] = [], say = (text: string) => { process.stderr.write(`${text}\n`); };
  const effort: Effort = { quick: values.quick, rounds, only: values.only?.split(",").filter(Boolean) ?? [], say, ...(values.svg === undefined ? {} : { svg: values.svg }) };
  for (const bench of chosen) tables.push(...(await bench.run(effort)));
  const text = [...Object.entries(facts).map(([name, fact]) => `- ${name}: ${fact}`), `- rounds: ${rounds}${values.quick ? ", quick" : ""}, interleaved; medians (least to most)`, "", ...tables.map(markdown)].join("\n");
  process.stdout.write(text);
  if (values.doc !== undefined) writeFileSync(values.doc, page(chosen, text, values.svg === undefined ? null : relative(dirname(values.doc), values.svg)));
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ facts, rounds, tables }, null, 1)}\n`);
  return 0;
}

// Guests are programs of their own: none is left running.
let interrupted = false;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    interrupted = true;
    void Promise.all([...Guest.running].map((guest) => guest[Symbol.asyncDispose]())).finally(() => process.exit(130));
  });
}
process.exitCode = await main().catch((e: unknown) => {
  if (interrupted) return 130;
  if (!(e instanceof UserError) && !(e as { code?: string }).code?.startsWith("ERR_PARSE_ARGS")) throw e;
  process.stderr.write(`bench: ${(e as Error).message}\n`);
  return 2;
});
