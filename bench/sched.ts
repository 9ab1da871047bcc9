/**
 * How schedulers divide pCPUs, measured live: guests/load in domains of one machine in this process, so that each scheduler's own books, the guests' own notes and the host's (how
 * long the pCPUs' threads ran, how long they waited for a processor) can be laid beside each other.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { buildGuest } from "../guests/build.ts";
import { nodeHost } from "../src/toolstack/host.node.ts";
import type { SchedName, SchedParams } from "../src/toolstack/cpus.ts";
import { createMachine, type Machine } from "../src/toolstack/machine.ts";
import { tasks } from "./sched-host.ts";
import { parallelSpeed } from "./sched-parallel.ts";
import { type Bench, type Effort, median, type Row, type Table } from "./figures.ts";
import { chart } from "./chart.ts";

const COUNTERS = 0x9000, LOG = 0x10000, MS = 1e6;
const wait = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

type Load = { name: string; role: number; vcpus?: number; sched?: SchedParams; extra?: string };
/** A machine with these loads. */
async function loaded(pcpus: number, sched: SchedName, loads: readonly Load[]): Promise<Machine> {
  const kernel = readFileSync(buildGuest("load")), machine = await createMachine({ host: nodeHost(), pcpus, memoryMiB: 16 * loads.length + 16, nrDomains: loads.length });
  if (sched !== "credit2") {
    machine.cpus.createPool("other", sched, []);
    for (let i = 1; i < pcpus; i++) { machine.cpus.removeCpu(0, i); machine.cpus.addCpu(1, i); }
    machine.cpus.removeCpu(0, 0);
    machine.cpus.addCpu(1, 0);
  }
  for (const l of loads) {
    await machine.createDomain({
      name: l.name, kernel, memoryMiB: 8, vcpus: l.vcpus ?? 1, pool: sched === "credit2" ? "Pool-0" : "other", ...(l.sched ? { sched: l.sched } : {}), cmdline: `role=${l.role} cpus=${l.vcpus ?? 1} ${l.extra ?? ""}`,
    });
  }
  return machine;
}
/** ns each domain has run, by its name; what its processors counted. */
function books(machine: Machine): Map<string, { ns: number; counted: number }> {
  const found = new Map<string, { ns: number; counted: number }>();
  for (const d of machine.domains) {
    const mine = machine.cpus.vcpus(d.domid), memory = machine.hv.domain(d.domid)!.memory, dv = new DataView(memory.read(COUNTERS, 256).slice().buffer);
    found.set(d.name, { ns: mine.reduce((sum, v) => sum + v.timeNs, 0), counted: mine.reduce((sum, v) => sum + Number(dv.getBigUint64(v.vcpu * 8, true)), 0) });
  }
  return found;
}
/** What a guest noted: [when it should have been, when it was] in ns. */
function notes(machine: Machine, name: string): [number, number][] {
  const d = machine.domains.find((x) => x.name === name)!, { memory } = machine.hv.domain(d.domid)!, n = Number(new DataView(memory.read(LOG, 8).slice().buffer).getBigUint64(0, true));
  const dv = new DataView(memory.read(LOG + 16, n * 16).slice().buffer);
  return Array.from({ length: n }, (_, i) => [Number(dv.getBigUint64(i * 16, true)), Number(dv.getBigUint64(i * 16 + 8, true))]);
}
const percentile = (sorted: readonly number[], p: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN;

type Share = { name: string; wanted: number; got: number; counted: number };
async function weights(sched: SchedName, seconds: number): Promise<Share[]> {
  const parts = [1, 2, 4], machine = await loaded(2, sched, parts.map((w) => ({ name: `weight ${w}`, role: 0, vcpus: 2, sched: { weight: w * 128 } })));
  try {
    await wait(1500);
    const before = books(machine);
    await wait(seconds * 1000);
    const after = books(machine), took = (f: "ns" | "counted") => parts.map((w) => after.get(`weight ${w}`)![f] - before.get(`weight ${w}`)![f]), sum = (x: number[]) => x.reduce((a, b) => a + b, 0);
    const ns = took("ns"), counted = took("counted");
    return parts.map((w, i) => ({ name: `weight ${w}`, wanted: w / 7, got: ns[i]! / sum(ns), counted: counted[i]! / sum(counted) }));
  } finally { await machine.destroy(); }
}
/** Part of one pCPU that a domain capped at 50 % gets. */
async function cap(sched: SchedName, others: number, seconds: number): Promise<number> {
  const machine = await loaded(2, sched, [{ name: "capped", role: 0, sched: { cap: 50 } }, ...Array.from({ length: others }, (_, i) => ({ name: `other ${i}`, role: 0 }))]);
  try {
    await wait(1000);
    const before = books(machine).get("capped")!.ns, begun = machine.hv.clock.now();
    await wait(seconds * 1000);
    const now = machine.hv.clock.now();
    return (books(machine).get("capped")!.ns - before) / (now - begun);
  } finally { await machine.destroy(); }
}
type Deadlines = { jobs: number; missed: number; byHost: number; maxMs: number };
/** A vCPU with 4 ms each 10 ms among four busy domains. A miss is the host's where the pCPUs' threads waited for a processor, while the job was open, for at least as long as it was late. */
async function deadlines(seconds: number, scale: number): Promise<Deadlines> {
  const busy = Array.from({ length: 4 }, (_, i) => ({ name: `busy ${i}`, role: 0, sched: { periodUs: 10_000 * scale, budgetUs: 3_500 * scale, extratime: true } }));
  const machine = await loaded(2, "rtds", [{ name: "real", role: 2, sched: { periodUs: 10_000 * scale, budgetUs: 4_000 * scale, extratime: false }, extra: `period=${10_000 * scale} work=${3_000 * scale}` }, ...busy]);
  try {
    const samples: [number, number][] = [], before = tasks();
    const timer = setInterval(() => { samples.push([machine.hv.clock.now(), tasks().waitedNs - before.waitedNs]); }, 2);
    await wait(seconds * 1000);
    clearInterval(timer);
    const jobs = notes(machine, "real").slice(Math.ceil(20 / scale)), late = jobs.filter(([wanted, was]) => was > wanted + 10 * scale * MS);
    const waited = ([from, to]: [number, number]): number => (samples.find(([at]) => at >= to)?.[1] ?? samples.at(-1)?.[1] ?? 0) - (samples.findLast(([at]) => at <= from)?.[1] ?? 0);
    return { jobs: jobs.length, missed: late.length, byHost: late.filter((job) => waited(job) >= job[1] - job[0] - 10 * scale * MS).length, maxMs: Math.max(0, ...jobs.map(([wanted, was]) => (was - wanted) / MS)) };
  } finally { await machine.destroy(); }
}
/** us from when a sleeper's timer was due until it ran, sorted. */
async function wakeUps(busy: number, seconds: number): Promise<number[]> {
  const machine = await loaded(2, "credit2", [{ name: "sleeper", role: 1 }, ...Array.from({ length: busy }, (_, i) => ({ name: `busy ${i}`, role: 0 }))]);
  try {
    await wait(seconds * 1000);
    return notes(machine, "sleeper").slice(5).map(([wanted, was]) => (was - wanted) / 1000).sort((a, b) => a - b);
  } finally { await machine.destroy(); }
}
/** 32 pCPUs, a domain for each: does all of it run? @returns domains that counted, and least to most part of the mean */
async function many(seconds: number): Promise<{ running: number; pcpus: number }> {
  const machine = await loaded(32, "credit2", Array.from({ length: 8 }, (_, i) => ({ name: `d${i}`, role: 0, vcpus: 4 })));
  try {
    for (let t = 0; t < seconds && [...books(machine).values()].some((b) => b.counted === 0); t++) await wait(1000);
    await wait(2000);
    return { running: [...books(machine).values()].filter((b) => b.counted > 0).length, pcpus: new Set(machine.cpus.vcpus().map((v) => v.pcpu).filter((p) => p !== null)).size };
  } finally { await machine.destroy(); }
}

const row = (name: string, figures: Record<string, number | number[]>): Row => ({ name, rounds: Object.fromEntries(Object.entries(figures).map(([k, v]) => [k, Array.isArray(v) ? v : [v]])) });
/** The rows measured so far; each part by its name for --only. */
export const sched: Bench = {
  name: "sched",
  help: "weights, caps, deadlines and wake-ups of the schedulers, and what several vCPUs bring (parts: weights caps rtds wake parallel many)",
  async run(effort: Effort): Promise<Table[]> {
    const { quick, rounds, only, say } = effort, isWanted = (part: string): boolean => only.length === 0 || only.includes(part), seconds = quick ? 5 : 20, tables: Table[] = [], bars: { name: string; values: number[] }[] = [];
    if (isWanted("weights")) {
      const rows: Row[] = [];
      for (const name of ["credit2", "credit"] as const) {
        const runs: Share[][] = [];
        for (let r = 0; r < rounds; r++) { runs.push(await weights(name, 2 * seconds)); say(`sched: ${name}: ${runs.at(-1)!.map((s) => `${s.name} ${(100 * s.got).toFixed(1)} %`).join(", ")}`); }
        for (const [i, { name: part, wanted }] of runs[0]!.entries()) {
          rows.push(row(`${name}, ${part}`, { "% wanted": 100 * wanted, "% of pCPU time": runs.map((x) => 100 * x[i]!.got), "% off": runs.map((x) => 100 * (x[i]!.got / wanted - 1)), "% of work done": runs.map((x) => 100 * x[i]!.counted) }));
          if (name === "credit2") bars.push({ name: part, values: [100 * wanted, 100 * median(runs.map((x) => x[i]!.got))] });
        }
      }
      tables.push({ title: "Weights 1:2:4 on two pCPUs", unit: `Three domains of two busy vCPUs each, ${2 * seconds} s.`, columns: ["% wanted", "% of pCPU time", "% off", "% of work done"], rows, digits: 2, notes: ["pCPU time is what the vCPUs' runstates say; work is what the guests counted, which tells besides how the host treated the pCPUs' threads meanwhile."] });
    }
    if (isWanted("caps")) {
      const rows: Row[] = [];
      for (const name of ["credit2", "credit"] as const) for (const others of [0, 2]) {
        const got: number[] = [];
        for (let r = 0; r < rounds; r++) { got.push(100 * await cap(name, others, seconds)); say(`sched: ${name}: cap of 50 %, ${others} others: ${got.at(-1)!.toFixed(2)} %`); }
        rows.push(row(`${name}, ${others === 0 ? "alone" : `${others} busy domains beside it`}`, { "% of a pCPU": got, "% off": got.map((x) => 100 * (x / 50 - 1)) }));
        if (name === "credit2") bars.push({ name: others ? "cap, busy" : "cap, alone", values: [50, median(got)] });
      }
      tables.push({ title: "A cap of 50 %", unit: `A busy domain on two pCPUs, ${seconds} s of wall clock.`, columns: ["% of a pCPU", "% off"], rows, digits: 2, notes: [] });
    }
    if (isWanted("rtds")) {
      const rows: Row[] = [];
      for (const scale of [1, 20]) {
        const runs: Deadlines[] = [];
        for (let r = 0; r < rounds; r++) { runs.push(await deadlines(2 * seconds, scale)); const d = runs.at(-1)!; say(`sched: rtds, ${10 * scale} ms: ${d.missed} of ${d.jobs} jobs late, ${d.byHost} of them the host's; longest ${d.maxMs.toFixed(1)} ms`); }
        rows.push(row(`${4 * scale} ms each ${10 * scale} ms`, { jobs: runs.map((d) => d.jobs), late: runs.map((d) => d.missed), "% late": runs.map((d) => 100 * d.missed / d.jobs), "late by the host": runs.map((d) => d.byHost), "% late otherwise": runs.map((d) => 100 * (d.missed - d.byHost) / d.jobs), "longest, ms": runs.map((d) => d.maxMs) }));
      }
      tables.push({
        title: "rtds: 4 ms each 10 ms", unit: "A vCPU whose job takes three quarters of its budget in running time each period, four busy domains (3.5 ms each 10 ms, extratime) on the same two pCPUs; and all of it twenty times as slow, which a host with other things to do spoils less.", digits: 2,
        columns: ["jobs", "late", "% late", "late by the host", "% late otherwise", "longest, ms"], rows,
        notes: ["\"By the host\": while the job was open, the pCPUs' threads waited for a processor of the host (schedstat's run delay) for at least as long as the job was late."],
      });
    }
    if (isWanted("wake")) {
      const rows: Row[] = [];
      for (const busy of [0, 1, 4]) {
        const us = await wakeUps(busy, seconds);
        rows.push(row(busy === 0 ? "nothing else runs" : `${busy} busy domain${busy > 1 ? "s" : ""}`, { "50 %": percentile(us, 0.5), "90 %": percentile(us, 0.9), "99 %": percentile(us, 0.99), "99.9 %": percentile(us, 0.999), most: us.at(-1) ?? Number.NaN }));
        say(`sched: wake-up with ${busy} busy: ${[0.5, 0.9, 0.99].map((p) => `${percentile(us, p).toFixed(0)} us`).join(", ")}`);
      }
      tables.push({ title: "Wake-up latency", unit: "us from a timer's deadline until the guest's next instruction; credit2, two pCPUs.", columns: ["50 %", "90 %", "99 %", "99.9 %", "most"], rows, digits: 0, notes: ["With busy domains a sleeper waits for the rate limit (1 ms) at most, and for the end of a stretch of guest code."] });
    }
    if (isWanted("parallel")) tables.push(await parallelSpeed(effort, bars));
    if (isWanted("many")) {
      const { running, pcpus } = await many(30);
      say(`sched: 32 pCPUs: ${running} of 8 domains of 4 vCPUs counted; ${pcpus} pCPUs ran one at the same moment`);
      tables.push({ title: "32 pCPUs", unit: "Eight domains of four busy vCPUs on 32 pCPU threads.", columns: ["domains that work", "pCPUs in use"], rows: [row("8 domains", { "domains that work": running, "pCPUs in use": pcpus })], digits: 0, notes: [] });
    }
    if (effort.svg !== undefined) writeFileSync(effort.svg, chart({ title: "What was asked of credit2, and what it gave", subtitle: "percent of pCPU time; times for the parallel work", series: ["asked", "given"], groups: bars }));
    return tables;
  },
};
