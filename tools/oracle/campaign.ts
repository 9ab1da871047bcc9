/** Runs cases on two subjects, gathers the forms on which they differ, and makes each first failure small. */
import { type Difference, differences, disassemble, report } from "./compare.ts";
import { type Batch, CASE, CODE, HEADER, type Subject } from "./format.ts";
import type { Generator } from "./generate.ts";
import { rowsFor, unexplained } from "./vendors.ts";

export interface Failure { readonly name: string; nrFailed: number; what: Set<string>; text: string }
export interface Campaign { nrCases: number; readonly failures: Map<string, Failure>; readonly nrByForm: Map<string, number> }

export interface CampaignOptions {
  readonly generator: Generator;
  /** The truth first. */
  readonly subjects: readonly [Subject, Subject];
  readonly seconds: number;
  readonly cases?: number;
  readonly batchSize?: number;
  /** Stop after so many different forms have failed. */
  readonly maxForms?: number;
  /** Kinds of difference ("cr2", "fault", "rax" ...) to pass over. */
  readonly ignore?: RegExp;
  readonly onFailure?: (f: Failure) => void;
}

/** What counts as a difference in this campaign. */
type Look = (b: Batch, i: number, expected: DataView, actual: DataView) => readonly Difference[];

export async function runCampaign(o: CampaignOptions): Promise<Campaign> {
  const [truth, subject] = o.subjects, rows = truth.vendor === subject.vendor ? [] : rowsFor(truth.vendor ?? "");
  const look: Look = (b, i, e, a) => unexplained(rows, b, i, differences(b, i, e, a), e, a).filter((d) => !o.ignore?.test(d.what)), end = performance.now() + o.seconds * 1000;
  const result: Campaign = { nrCases: 0, failures: new Map(), nrByForm: new Map() };
  let next = o.generator.batch(o.batchSize ?? 2048);
  while (performance.now() < end && result.nrCases < (o.cases ?? Number.POSITIVE_INFINITY) && result.failures.size < (o.maxForms ?? 1000)) {
    const batch = next, wanted = truth.run(batch);
    next = o.generator.batch(o.batchSize ?? 2048);
    const expected = new DataView((await wanted).buffer), actual = new DataView((await subject.run(batch)).buffer);
    for (let i = 0; i < batch.nrCases; i++) {
      const name = batch.names[i]!.replace(/ ending in .*/, "");
      result.nrByForm.set(name, (result.nrByForm.get(name) ?? 0) + 1);
      const d = look(batch, i, expected, actual);
      if (!d.length) continue;
      let f = result.failures.get(name);
      if (!f) {
        f = { name, nrFailed: 0, what: new Set(), text: await minimise(batch.pick(i), o.subjects, look) ?? await minimiseHistory(batch, i, o.subjects, look) };
        result.failures.set(name, f);
        o.onFailure?.(f);
      }
      f.nrFailed++;
      for (const x of d) f.what.add(/^(xmm|st|r)\d/.test(x.what) ? x.what.replace(/\d+$/, "") : x.what);
    }
    result.nrCases += batch.nrCases;
  }
  return result;
}

/** Drop instructions from the end and clear registers and patch while the two still differ; then report. */
async function minimise(b: Batch, subjects: readonly [Subject, Subject], look: Look): Promise<string | null> {
  const at = HEADER.sizeof;
  const differ = async (): Promise<string | null> => {
    const e = new DataView((await subjects[0].run(b)).buffer), a = new DataView((await subjects[1].run(b)).buffer), d = look(b, 0, e, a);
    return d.length ? report(b, 0, d, e, [subjects[0].name, subjects[1].name]) : null;
  };
  let text = await differ();
  if (!text) return null;
  const attempt = async (change: () => void): Promise<boolean> => {
    const was = b.bytes.slice(at, at + CASE.sizeof), leeway = { ...b.leeway[0]! };
    change();
    const t = await differ();
    if (t) { text = t; return true; }
    b.bytes.set(was, at);
    Object.assign(b.leeway[0]!, leeway);
    return false;
  };
  if (b.names[0]!.startsWith("sequence")) {
    for (;;) {
      const lines = disassemble(b.code(0), 0, CASE.compat.get(b.dv, at) ? 32 : 64);
      if (lines.length < 2) break;
      // the leeway of the whole sequence covers its prefixes only in part: a shorter one must not fail by undefined flags alone
      const len = CASE.codeLen.get(b.dv, at) - lines.at(-1)!.len;
      if (!(await attempt(() => { CASE.codeLen.set(b.dv, at, len); b.leeway[0]!.flags |= 0x8d5; b.leeway[0]!.fsw |= 0x4700; }))) break;
    }
  }
  for (let g = 0; g < 16; g++) if (b.dv.getBigUint64(at + CASE.gpr.at + 8 * g, true)) await attempt(() => b.dv.setBigUint64(at + CASE.gpr.at + 8 * g, 0n, true));
  await attempt(() => CASE.rflags.set(b.dv, at, 0x202n));
  if (CASE.patchLen.get(b.dv, at)) await attempt(() => CASE.patchLen.set(b.dv, at, 0));
  return text;
}

/** A case that fails only after others: the fewest of them that are needed, by halves from the batch's beginning and then one by one. */
async function minimiseHistory(batch: Batch, i: number, subjects: readonly [Subject, Subject], look: Look): Promise<string> {
  const fails = async (list: readonly number[]): Promise<string | null> => {
    const b = batch.pick(...list, i), k = list.length, e = new DataView((await subjects[0].run(b)).buffer), a = new DataView((await subjects[1].run(b)).buffer), d = look(b, k, e, a);
    return d.length ? report(b, k, d, e, [subjects[0].name, subjects[1].name]) : null;
  };
  let before = Array.from({ length: i }, (_, k) => k), text = await fails(before);
  if (!text) return `${batch.names[i]}\n  fails neither alone nor after the cases before it: state has leaked in from an earlier batch`;
  for (let n = before.length >> 1; n >= 1; n >>= 1) for (let at = 0; at < before.length;) {
    const fewer = before.toSpliced(at, n), t = await fails(fewer);
    if (t) { before = fewer; text = t; } else at += n;
  }
  const lines = before.flatMap((k) => [`  case of ${batch.names[k]}:`, ...disassemble(batch.code(k), CODE + CASE.codeOffset.get(batch.dv, batch.at(k)), CASE.compat.get(batch.dv, batch.at(k)) ? 32 : 64).map((l) => `    ${l.rip.toString(16)}  ${l.bytes.padEnd(30)} ${l.text}`)]);
  return [`${text}`, "only after:", ...lines].join("\n");
}

/** The campaign as lines: one a failing form, then the first reports. */
export function summary(c: Campaign, nrReports = 5): string {
  const lines = [`${c.nrCases} cases, ${c.nrByForm.size} forms, ${c.failures.size} forms differ`];
  const list = [...c.failures.values()].sort((a, b) => a.name.localeCompare(b.name));
  for (const f of list) lines.push(`  ${f.name.padEnd(36)} ${`${f.nrFailed}/${c.nrByForm.get(f.name)}`.padStart(11)}  ${[...f.what].join(", ")}`);
  for (const f of [...c.failures.values()].slice(0, nrReports)) lines.push("", f.text);
  return lines.join("\n");
}
