/** What the pCPUs' profilers counted, put together by domains and functions, and as text. */
import type { SymbolTable } from "../builder/symbols.ts";
import { hypercallName } from "../hypervisor/names.ts";
import { NR_HYPERCALLS, type PcpuProfile, type Place } from "../hypervisor/profile.ts";
import { PFERR, VECTOR } from "../x86/state.ts";
import type { DomainReport } from "./domain.ts";

/** A function of the kernel, or a page of code where there is no name for it: its part of the domain's time, and of that the part with interrupts off. */
export type ProfiledPlace = { readonly where: "kernel" | "user"; readonly name: string; readonly share: number; readonly maskedShare: number; readonly samples: number };
/** What a domain did, in all its lives. */
export type DomainProfile = {
  readonly name: string; readonly guestMs: number; readonly hypercallMs: number;
  readonly samples: number; readonly nrLost: number;
  readonly hasSymbols: boolean;
  readonly userShare: number; readonly maskedShare: number;
  /** most time first */
  readonly places: readonly ProfiledPlace[]; readonly nrPlaces: number;
  readonly exits: Readonly<Record<string, number>>;
  readonly hypercalls: Readonly<Record<string, { readonly count: number; readonly ms: number }>>;
  readonly exceptions: Readonly<Record<string, number>>;
  readonly interrupts: Readonly<Record<string, number>>;
};
/** A machine's profile; shares are parts of 1. */
export type ProfileReport = {
  readonly pcpus: readonly { readonly index: number; readonly loopMs: number; readonly idleMs: number; readonly guestMs: number; readonly translateMs: number }[];
  readonly domains: readonly DomainProfile[];
  /** the engines' counters, all pCPUs together */
  readonly engine: Readonly<Record<string, number>>;
};

/** Places kept for JSON and shown as text. */
const MOST_PLACES = 1000, SHOWN_PLACES = 30;
const PAGE = 4096;
const hex = (address: number): string => `0x${BigInt.asUintN(64, BigInt(address)).toString(16)}`;
const sum = (numbers: Iterable<number>): number => { let s = 0; for (const n of numbers) s += n; return s; };
const add = (record: Record<string, number>, key: string, n: number): void => { record[key] = (record[key] ?? 0) + n; };

type Sum = { where: "kernel" | "user"; name: string; nrMasked: number } & Timed;
type Timed = { nrShort: number; shortMs: number; nrLong: number; longMs: number };
const samplesOf = (t: Timed): number => t.nrShort + t.nrLong;
/** Samples that a place with few of them borrows from the mean of all. */
const BORROWED = 4;
/** What its timed jumps take, times its samples; `all` has the means where it has too few. */
function weight(t: Timed, all: Timed): number {
  const mean = (ms: number, nr: number): number => (nr > 0 ? ms / nr : 0);
  const shortMs = (t.shortMs + BORROWED * mean(all.shortMs, all.nrShort)) / (t.nrShort + BORROWED), longMs = t.nrLong > 0 ? t.longMs / t.nrLong : mean(all.longMs, all.nrLong);
  return Math.max(0, longMs - shortMs) * samplesOf(t);
}

function placeName({ rip, cpl }: Place, symbols: SymbolTable | undefined): { where: "kernel" | "user"; name: string } {
  const page = hex(Math.floor(rip / PAGE) * PAGE);
  return cpl === 3 ? { where: "user", name: page } : { where: "kernel", name: symbols?.functionAt(rip) ?? page };
}

const VECTORS = new Map<number, string>(Object.entries(VECTOR).map(([name, vector]) => [vector, `#${name}`]));
function exceptionName(vector: number, errorCode: number): string {
  const name = VECTORS.get(vector) ?? `exception ${vector}`;
  if (vector !== VECTOR.PF) return name;
  const access = errorCode & PFERR.I ? "fetch" : errorCode & PFERR.W ? "write" : "read";
  return `${name} ${errorCode & PFERR.U ? "user" : "kernel"} ${access}${errorCode & PFERR.RSVD ? " (reserved bit)" : errorCode & PFERR.P ? " (present)" : ""}`;
}

/**
 * Put profiles together.
 * @param domains what the machine says of its domains, for their names and exits
 * @param symbols of each domain's kernel, by the domain's name
 */
export function profileReport(profiles: readonly PcpuProfile[], domains: readonly DomainReport[], symbols: ReadonlyMap<string, SymbolTable>): ProfileReport {
  const engine: Record<string, number> = {};
  for (const p of profiles) for (const [name, n] of Object.entries(p.counters)) add(engine, name, n);
  const byName = new Map<string, DomainReport[]>();
  for (const d of domains) byName.set(d.name, [...byName.get(d.name) ?? [], d]);
  return {
    pcpus: profiles.map((p) => ({ index: p.index, loopMs: p.loopMs, idleMs: p.idleMs, guestMs: sum(p.domains.map((d) => d.guestMs)), translateMs: p.counters["translateMs"] ?? 0 }))
      .sort((a, b) => a.index - b.index),
    domains: [...byName].map(([name, lives]) => domainProfile(name, lives, profiles, symbols.get(name))),
    engine,
  };
}

function domainProfile(name: string, lives: readonly DomainReport[], profiles: readonly PcpuProfile[], symbols: SymbolTable | undefined): DomainProfile {
  const exits: Record<string, number> = {}, exceptions: Record<string, number> = {}, interrupts: Record<string, number> = {};
  const hypercalls: Record<string, { count: number; ms: number }> = {}, sums = new Map<string, Sum>();
  const all: Timed = { nrShort: 0, shortMs: 0, nrLong: 0, longMs: 0 };
  let guestMs = 0, hypercallMs = 0, nrLost = 0;
  for (const life of lives) for (const [exit, n] of Object.entries(life.exits)) add(exits, exit, n);
  for (const t of profiles.flatMap((p) => p.domains).filter((t) => lives.some((life) => life.domid === t.domid))) {
    guestMs += t.guestMs; hypercallMs += t.hypercallMs; nrLost += t.nrLost;
    for (const place of t.places) {
      const { where, name } = placeName(place, symbols), key = `${where} ${name}`;
      let s = sums.get(key);
      if (!s) sums.set(key, s = { where, name, nrMasked: 0, nrShort: 0, shortMs: 0, nrLong: 0, longMs: 0 });
      for (const into of [s, all]) { into.nrShort += place.nrShort; into.shortMs += place.shortMs; into.nrLong += place.nrLong; into.longMs += place.longMs; }
      if (place.isMasked) s.nrMasked += samplesOf(place);
    }
    for (const { nr, count, ms } of t.hypercalls) {
      const call = hypercalls[nr < NR_HYPERCALLS ? hypercallName(nr) : "unknown"] ??= { count: 0, ms: 0 };
      call.count += count;
      call.ms += ms;
    }
    for (const e of t.exceptions) add(exceptions, exceptionName(e.vector, e.errorCode), e.count);
    for (const e of t.interrupts) add(interrupts, `0x${e.vector.toString(16)}`, e.count);
  }
  const list = [...sums.values()].map((s) => ({ s, ms: weight(s, all) })), wholeMs = sum(list.map(({ ms }) => ms));
  const places = list.map(({ s, ms }): ProfiledPlace => ({ where: s.where, name: s.name, share: wholeMs > 0 ? ms / wholeMs : 0, maskedShare: s.nrMasked / samplesOf(s), samples: samplesOf(s) }))
    .sort((a, b) => b.share - a.share || b.samples - a.samples);
  return {
    name, guestMs, hypercallMs, samples: samplesOf(all), nrLost, hasSymbols: symbols !== undefined,
    userShare: sum(places.filter((x) => x.where === "user").map((x) => x.share)), maskedShare: sum(places.map((x) => x.share * x.maskedShare)),
    places: places.slice(0, MOST_PLACES), nrPlaces: places.length, exits, hypercalls, exceptions, interrupts,
  };
}

const whole = (n: number): string => Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, ",");
const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
// A guest made its symbols: nothing in them may command a terminal.
const printable = (text: string): string => text.replace(/[^\x20-\x7e]/g, "?");
/** "title   a 3, b 2", most first, several lines where one would be too long. */
function listing(title: string, items: readonly (readonly [text: string, n: number])[]): string[] {
  const rows: string[] = [""];
  for (const [text] of items.toSorted((a, b) => b[1] - a[1])) {
    const row = rows[rows.length - 1]!;
    if (row.length > 0 && row.length + text.length > 110) rows.push(text); else rows[rows.length - 1] = row ? `${row}, ${text}` : text;
  }
  return rows.map((row, i) => `  ${(i === 0 ? title : "").padEnd(11)} ${i === 0 && !row ? "none" : row}${i < rows.length - 1 ? "," : ""}`);
}
const counts = (record: Readonly<Record<string, number>>): [string, number][] => Object.entries(record).map(([name, n]) => [`${name} ${whole(n)}`, n]);

/** The report for people. */
export function profileText(report: ProfileReport): string {
  const lines = ["profile"];
  for (const p of report.pcpus) {
    lines.push(`  pCPU ${p.index}      ${seconds(p.guestMs)} in guests (translating ${seconds(p.translateMs)} of it), ${seconds(p.idleMs)} asleep, ${seconds(Math.max(0, p.loopMs - p.guestMs - p.idleMs))} between`);
  }
  for (const d of report.domains) lines.push("", ...domainText(d));
  const { translateMs, ...engine } = report.engine;
  const counters = [...counts(engine).map(([text]) => text), ...(translateMs === undefined ? [] : [`translating ${seconds(translateMs)}`])];
  lines.push("", "engine", ...listing("counters", counters.map((text, i) => [text, -i])));
  return lines.join("\n");
}
function domainText(d: DomainProfile): string[] {
  const shown = d.places.slice(0, SHOWN_PLACES), rest = d.nrPlaces - shown.length;
  return [
    `${d.name}: ${seconds(d.guestMs)}, ${whole(d.samples)} samples; kernel ${percent(d.samples ? 1 - d.userShare : 0)}, user ${percent(d.userShare)}, interrupts off ${percent(d.maskedShare)}`,
    ...(d.samples === 0 ? ["  too short a life for samples"] : [
      "     time  samples  irqs off  where",
      ...shown.map((x) => `  ${percent(x.share).padStart(7)} ${whole(x.samples).padStart(8)}  ${percent(x.maskedShare).padStart(8)}  ${x.where.padEnd(6)}  ${printable(x.name)}`),
    ]),
    ...(rest > 0 ? [`  ${percent(1 - sum(shown.map((x) => x.share))).padStart(7)}                     at ${whole(rest)} other places`] : []),
    ...(d.nrLost ? [`  ${whole(d.nrLost)} samples more were at places for which there was no room`] : []),
    ...(d.hasSymbols || d.samples === 0 ? [] : ["  the kernel carries no symbols; --symbols FILE names its functions"]),
    ...listing("exits", counts(d.exits)),
    ...listing("hypercalls", Object.entries(d.hypercalls).map(([name, { count, ms }]) => [`${name} ${whole(count)} (${ms.toFixed(1)} ms)`, ms])),
    ...listing("exceptions", counts(d.exceptions)),
    ...listing("interrupts", counts(d.interrupts)),
  ];
}
