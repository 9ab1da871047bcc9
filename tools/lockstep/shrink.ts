/**
 * Makes a random program on which the engines differ as small as it gets. It is started in the state that they agreed on last, if it still fails from there;
 * then pieces of it become NOPs as long as it fails.
 */
import { CPU } from "../../src/x86/state.ts";
import { disassemble } from "../oracle/compare.ts";
import { CODE } from "../oracle/format.ts";
import type { Box } from "./box.ts";
import { CODE_GPA, type RandomProgram, nops } from "./generate.ts";
import { type End, type Options, type Program, lockstep, narrow } from "./lockstep.ts";
import { type Registers, registersOf, snapshot } from "./state.ts";

type State = { readonly cpu: Uint8Array; readonly ram: Uint8Array; readonly registers: Registers };
export type Smallest = { readonly end: End; readonly program: RandomProgram; readonly without: ReadonlySet<number>; readonly state: State | null; readonly tries: number };

const take = (m: Box): State => ({ cpu: m.v.u8.slice(0, CPU.sizeof), ram: m.v.u8.slice(m.ram, m.ram + m.ramBytes), registers: registersOf(snapshot(m)) });
/** The state at the last agreement of a run that ended with a difference. */
function lastAgreement(p: Program, found: End): State {
  let state: State | null = null, n = 0;
  const last = found.difference!.budgets.length;
  lockstep(p, { ...found.options, budgets: found.difference!.budgets, onAgreement: (m) => { if (++n === last) state = take(m); } });
  return state!;
}
/** A program without some of its pieces, from its beginning or from a state. */
function variant(p: RandomProgram, without: ReadonlySet<number>, state: State | null): Program {
  return {
    ...p, ...(state ? { again: () => false } : {}),
    load(m, side) {
      p.load(m, side);
      if (state) { m.v.u8.set(state.cpu); m.write(0, state.ram); m.engine.cpu.setMode(); m.engine.contextChanged(); }
      for (const k of without) m.write(CODE_GPA + p.pieces[k]!.from, Uint8Array.from(nops(p.pieces[k]!.length)));
    },
  };
}
/** A short run is enough where it starts just before the difference; the second has other slices. */
const near = (o: Options): Options[] => [0, o.translateAfter].flatMap(translateAfter => [0, 1].map(more => ({ seed: o.seed + more, translateAfter, instructions: 5000, seconds: 5 })));

export function shrink(p: RandomProgram, o: Options, mostTries = 400): Smallest | null {
  const found = lockstep(p, o);
  if (!found.difference) return null;
  const narrowed = narrow(p, found), state = lastAgreement(p, narrowed);
  let tries = 0, without: ReadonlySet<number> = new Set(), end = narrowed;
  const how = near(o).find(x => lockstep(variant(p, without, state), x).difference !== null), from = how ? state : null, options = how ?? o;
  const attempt = (more: readonly number[]): boolean => {
    if (tries++ >= mostTries) return false;
    const less = new Set([...without, ...more]), e = lockstep(variant(p, less, from), options);
    if (!e.difference) return false;
    without = less; end = e;
    return true;
  };
  for (let part = p.pieces.length; part >= 1; part = part === 1 ? 0 : Math.ceil(part / 2)) for (let again = true; again;) {
    again = false;
    const left = p.pieces.map((_, k) => k).filter(k => !without.has(k));
    for (let n = 0; n < left.length; n += part) again = attempt(left.slice(n, n + part)) && part === 1 && left.length > 1 || again;
  }
  return { end, program: p, without, state: from, tries };
}
/** What is left of a program. */
export function listing({ program, without }: Smallest): string[] {
  return program.pieces.flatMap(({ from, length }, k) => (without.has(k) ? [] : disassemble(program.code.subarray(from, from + length), CODE + from)))
    .map(l => `${l.rip.toString(16)}  ${l.bytes.padEnd(32)} ${l.text}`);
}
