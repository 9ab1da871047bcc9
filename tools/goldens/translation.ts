/** What the translator makes of one instruction form, as text and as a number of bytes, and how that is pinned in golden/translation.txt. */
import { readFileSync } from "node:fs";
import { type Insn, Undecodable, decode } from "../../src/x86/decode.ts";
import { REC } from "../../src/x86/layout.ts";
import { discover } from "../../src/x86/region.ts";
import { CPU, MODE, SEG, gprAt, segAt, xmmAt } from "../../src/x86/state.ts";
import { RegionGen, regionModule } from "../../src/x86/translate.ts";
import { disassemble, GPR_NAMES } from "../oracle/compare.ts";
import { FORMS } from "./forms.ts";
import { functionText, readModule } from "./wasm-text.ts";

export const GOLDEN = new URL("golden/translation.txt", import.meta.url);
/** Where the instruction lies in its page, and what stands behind it: a jump to itself. */
const HOME = 0x10, TAIL = [0xeb, 0xfe];
const MEMORY = { min: 1, max: 65536, shared: true } as const, TABLE_SIZE = 32768;

const fromHex = (text: string): number[] => text.split(" ").map(x => Number.parseInt(x, 16));
/** One NOP of so many bytes (SDM Vol. 2B "NOP"). */
const NOPS = ["", "90", "66 90", "0f 1f 00", "0f 1f 40 00", "0f 1f 44 00 00", "66 0f 1f 44 00 00", "0f 1f 80 00 00 00 00", "0f 1f 84 00 00 00 00 00"];
const nop = (n: number): number[] => (n < NOPS.length ? fromHex(NOPS[n]!) : [0x66, ...nop(n - 1)]);

// Names for what the text shows --------------------------------------------------------------------------------------------------------
/** The translator's locals by the names they have in its text, in the line that numbers them. */
function localNames(): Map<number, string> {
  const line = /^const REC_ = 0, .*$/m.exec(readFileSync(new URL("../../src/x86/translate.ts", import.meta.url), "utf8"))?.[0] ?? "", names = new Map<number, string>();
  for (const [, name, n] of line.matchAll(/(\w+) = (\d+)/g)) {
    if (name === "R0" || name === "X0") for (let i = 0; i < 16; i++) names.set(Number(n) + i, name === "R0" ? GPR_NAMES[i]! : `xmm${i}`);
    else names.set(Number(n), name === "REC_" ? "rec" : name === "CPU_" ? "cpu" : name!);
  }
  return names;
}
const cpuFields = new Map<number, string>(Object.entries(CPU).flatMap(([name, f]) => (typeof f === "object" && f !== null && "at" in f ? [[f.at as number, name] as const] : [])));
for (let i = 0; i < 16; i++) { cpuFields.set(gprAt(i), GPR_NAMES[i]!); cpuFields.set(xmmAt(i), `xmm${i}`); }
["es", "cs", "ss", "ds", "fs", "gs"].forEach((s, i) => { for (const f of ["base", "limit", "sel"] as const) cpuFields.set(segAt(i) + SEG[f].at, `${s}.${f}`); });
const recFields = new Map<number, string>(Object.entries(REC).map(([name, at]) => [at, name]));
const locals = localNames(), nrNamed = Math.max(...locals.keys()) + 1;
export const TEXT = {
  local: (i: number) => locals.get(i) ?? `t${i - nrNamed}`,
  place: (base: string, offset: number) => {
    const field = base === "cpu" ? cpuFields.get(offset) : base === "rec" || base === "LREC" ? recFields.get(offset) : undefined;
    return field && `${base}.${field}`;
  },
};

// One form -----------------------------------------------------------------------------------------------------------------------------------------------------
type Body = { readonly size: number; readonly lines: readonly string[] };
function translate(code: readonly number[]): Body {
  const page = new Uint8Array(4096), end = HOME + code.length;
  page.set(code, HOME);
  const insnAt = (pos: number): Insn | null => {
    if (pos < HOME || pos >= end) return null;
    try { return decode(page, pos, end, MODE.code64); } catch (e) { if (!(e instanceof Undecodable)) throw e; return null; }
  };
  const region = discover(HOME, { insnAt, isWarm: () => true, isCovered: () => false, calleeOf: () => null, entries: () => [] });
  const m = readModule(regionModule([new RegionGen().translate(region, "lean")], MEMORY, TABLE_SIZE)), f = m.functions[0]!;
  return { size: f.size, lines: functionText(m, f, TEXT) };
}
/** What a form adds to a region in which nops stand for it; negative where the interpreter does it. */
export type Golden = { readonly name: string; readonly bytes: string; readonly cost: number; readonly text: readonly string[] };

/** The lines of `within` between what it has in common with `without` at the beginning and at the end, moved to the left. */
function inserted(without: readonly string[], within: readonly string[]): string[] {
  let from = 0, less = 0;
  while (from < without.length && from < within.length && without[from] === within[from]) from++;
  while (less < without.length - from && less < within.length - from && without[without.length - 1 - less] === within[within.length - 1 - less]) less++;
  const lines = within.slice(from, within.length - less), indent = Math.min(...lines.map(l => l.length - l.trimStart().length));
  return lines.map(l => l.slice(indent));
}
function golden(form: readonly string[]): Golden {
  const parts = form.map(fromHex), isBranch = /^(7\w|e2) /.test(form[form.length - 1]!), tail = isBranch ? [...nop(2), ...TAIL] : TAIL;
  const frame = translate([...parts.flatMap(p => nop(p.length)), ...tail]), body = translate([...parts.flat(), ...tail]);
  const isLoad = (line: string): boolean => /^\w+ := \w+\.load\w*\[cpu\./.test(line), common = new Set(frame.lines);
  // loads of registers come first, and are one line here
  const head = body.lines.findIndex(l => l.startsWith("block")), frameHead = frame.lines.findIndex(l => l.startsWith("block"));
  const more = body.lines.slice(0, head).filter(l => !common.has(l)), loaded = more.filter(isLoad).map(l => l.split(" ")[0]!);
  const text = [...(loaded.length ? [`loads ${loaded.join(" ")}`] : []), ...more.filter(l => !isLoad(l)), ...inserted(frame.lines.slice(frameHead), body.lines.slice(head))];
  return { name: disassemble(Uint8Array.from(parts.flat()), 0).map(l => l.text).join("; "), bytes: form.join("  "), cost: body.size - frame.size, text };
}
/** The frame around each form, then the forms. */
export function translateForms(): Golden[] {
  const { size, lines } = translate([...nop(3), ...TAIL]);
  return [{ name: "frame", bytes: "a nop of three bytes, a jump to itself", cost: size, text: lines }, ...FORMS.map(golden)];
}

// The file -----------------------------------------------------------------------------------------------------------------------------------------------------
const HEAD = `What the translator makes of some instruction forms. Written by \`npm run golden:wasm -- --bless\`; read the difference before you commit it.
"cost" is what the form adds to the region's WebAssembly, in bytes. The first entry is the function around it; the notation is explained in tools/goldens/wasm-text.ts.
`;
export const write = (list: readonly Golden[]): string => [HEAD, ...list.map(g => `== ${g.name} | ${g.bytes} | cost ${g.cost}\n${g.text.map(l => `  ${l}\n`).join("")}`)].join("\n");
export function read(file: string): Golden[] {
  return file.split(/^== /m).slice(1).map(entry => {
    const [title, ...lines] = entry.trimEnd().split("\n"), m = /^(.*) \| (.*) \| cost (-?\d+)$/.exec(title!);
    if (!m) throw new Error(`${GOLDEN.pathname} has an entry without a cost: "${title}"`);
    return { name: m[1]!, bytes: m[2]!, cost: Number(m[3]), text: lines.map(l => l.slice(2)) };
  });
}

/** A form that is not as pinned: null where it is missing on one side. */
export type Change = { readonly old: Golden | null; readonly now: Golden | null };
export function changes(pinned: readonly Golden[], now: readonly Golden[]): Change[] {
  const key = (g: Golden): string => `${g.name} ${g.bytes}`, before = new Map(pinned.map(g => [key(g), g])), after = new Set(now.map(key));
  return [
    ...now.map(g => ({ old: before.get(key(g)) ?? null, now: g })).filter(c => c.old?.cost !== c.now.cost || c.old.text.join("\n") !== c.now.text.join("\n")),
    ...pinned.filter(g => !after.has(key(g))).map(g => ({ old: g, now: null })),
  ];
}
/** One line: what has changed, and its cost before and now. */
export const title = ({ old, now }: Change): string => `${(now ?? old)!.name}: ${!old ? `new, cost ${now!.cost}` : !now ? `gone, cost was ${old.cost}` : old.cost === now.cost ? `other text, cost ${now.cost} as before` : `cost ${old.cost} -> ${now.cost}`}`;
/** The lines that went (-) and came (+), with one around them. */
export function lineChanges(old: readonly string[], now: readonly string[]): string[] {
  // the longest common subsequence's length, from each pair of places on
  const common = Array.from({ length: old.length + 1 }, () => new Uint16Array(now.length + 1)), lines: { mark: string; text: string }[] = [];
  for (let i = old.length - 1; i >= 0; i--) for (let k = now.length - 1; k >= 0; k--) common[i]![k] = old[i] === now[k] ? common[i + 1]![k + 1]! + 1 : Math.max(common[i + 1]![k]!, common[i]![k + 1]!);
  for (let i = 0, k = 0; i < old.length || k < now.length;) {
    if (i < old.length && k < now.length && old[i] === now[k]) { lines.push({ mark: " ", text: now[k]! }); i++; k++; }
    else if (k === now.length || (i < old.length && common[i + 1]![k]! >= common[i]![k + 1]!)) lines.push({ mark: "-", text: old[i++]! });
    else lines.push({ mark: "+", text: now[k++]! });
  }
  const isNear = (i: number): boolean => [i - 1, i, i + 1].some(n => lines[n] && lines[n].mark !== " ");
  return lines.filter((_, i) => isNear(i)).map(l => `${l.mark} ${l.text}`);
}
