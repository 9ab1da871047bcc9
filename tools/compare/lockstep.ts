/** Two processors side by side, instruction by instruction: the first difference, with what led there. */
import { Decoder, DecoderOptions, RflagsBits } from "iced-x86";
import { EXIT } from "../../src/x86/state.ts";
import { disassemble, GPR_NAMES } from "../oracle/compare.ts";
import type { Ours } from "./ours.ts";
import type { Registers } from "./snapshot.ts";

/** What the truth's side must be able to do; QEMU is one such (qemu.node.ts). */
export interface Truth {
  step(): Promise<void>;
  registers(): Promise<Registers>;
  /** Run to an address; used for long string instructions, which a stub steps one iteration at a time. */
  runTo?(address: bigint): Promise<void>;
}
export interface Line { readonly rip: bigint; readonly bytes: string; readonly text: string; readonly changed: string }
export interface Divergence { readonly step: number; readonly what: readonly string[]; readonly history: readonly Line[] }
export interface LockstepOptions {
  readonly steps: number;
  /** How many instructions before the difference are kept. */
  readonly history?: number;
  /** Compare at these addresses only, and take the truth's word for nothing between them. */
  readonly only?: ReadonlySet<bigint>;
  /** Known faults of the other side: a difference in an instruction that matches is adopted, not reported. */
  readonly forgive?: RegExp;
}
export interface LockstepEnd { readonly steps: number; readonly divergence: Divergence | null; readonly why: string }

const FLAGS = 0x244fd5, STRING = /^(?:data16 )?(?:rep|repe|repne) /, MOST_ITERATIONS = 1 << 20;
/** Their results are each machine's own. */
const OWN_RESULT = /^(cpuid|rdmsr|rdtscp?|rdpmc|rdrand|rdseed|xgetbv|in |ins)/;
const UNDEFINED: readonly (readonly [number, number])[] = [[RflagsBits.OF, 0x800], [RflagsBits.SF, 0x80], [RflagsBits.ZF, 0x40], [RflagsBits.AF, 0x10], [RflagsBits.CF, 1], [RflagsBits.PF, 4]];
const hex = (x: bigint | number): string => x.toString(16);

function undefinedFlags(bytes: Uint8Array, bits: number): number {
  const d = new Decoder(bits, bytes, DecoderOptions.None), i = d.decode(), u = i.rflagsUndefined;
  i.free(); d.free();
  return UNDEFINED.reduce((m, [from, to]) => (u & from ? m | to : m), 0);
}

export function registerDifferences(want: Registers, got: Registers, flagMask: number, isLong = true): string[] {
  const out: string[] = [], say = (what: string, a: bigint | number, b: bigint | number): void => { if (a !== b) out.push(`${what}: ${hex(a)}, ours ${hex(b)}`); };
  say("rip", want.rip, got.rip);
  const width = isLong ? 64 : 32;
  for (let i = 0; i < (isLong ? 16 : 8); i++) say(GPR_NAMES[i]!, BigInt.asUintN(width, want.gpr[i]!), BigInt.asUintN(width, got.gpr[i]!));
  say("flags", want.rflags & flagMask, got.rflags & flagMask);
  for (const [i, n] of ["es", "cs", "ss", "ds", "fs", "gs"].entries()) say(n, want.selectors[i]!, got.selectors[i]!);
  say("cr0", want.cr0, got.cr0); say("cr2", want.cr2, got.cr2); say("cr3", want.cr3, got.cr3); say("cr4", want.cr4, got.cr4); say("efer", want.efer, got.efer); say("mxcsr", want.mxcsr, got.mxcsr);
  for (let i = 0; i < 32; i += 2) if (want.xmm[i] !== got.xmm[i] || want.xmm[i + 1] !== got.xmm[i + 1]) say(`xmm${i >> 1}`, want.xmm[i + 1]! << 64n | want.xmm[i]!, got.xmm[i + 1]! << 64n | got.xmm[i]!);
  return out;
}

type Looked = { line: ReturnType<typeof disassemble>[number] | undefined; undef: number };
const looked = new Map<string, Looked>();
/** An instruction's text and undefined flags; a loop is decoded once. */
function look(bytes: Uint8Array, rip: bigint, bits: number): Looked {
  const key = `${rip} ${bits} ${String.fromCharCode(...bytes)}`;
  let known = looked.get(key);
  if (!known) { known = { line: disassemble(bytes, rip, bits)[0], undef: undefinedFlags(bytes, bits) }; looked.set(key, known); }
  return known;
}

/** Step both until they differ, stop, or have done enough. */
export async function lockstep(truth: Truth, ours: Ours, o: LockstepOptions): Promise<LockstepEnd> {
  const history: Line[] = [];
  let before = ours.registers();
  for (let step = 0; step < o.steps; step++) {
    const code = ours.code(), known = code && look(code.bytes, before.rip, code.bits), line = known?.line, text = line?.text ?? "(not mapped)";
    const isString = STRING.test(text), isPast = (rip: bigint): boolean => !isString || rip !== before.rip;
    let exit = ours.step(), touched = ours.touched || OWN_RESULT.test(text);
    for (let n = 0; n < MOST_ITERATIONS && exit === EXIT.yield && !isPast(ours.registers().rip); n++) { exit = ours.step(); touched ||= ours.touched; }
    const mine = ours.registers();
    const line1 = (changed: string): Line => ({ rip: before.rip, bytes: line?.bytes ?? "", text, changed });
    if (/^hlt/.test(text)) return { steps: step, divergence: null, why: "HLT" };
    const next = before.rip + BigInt(line?.len ?? 0);
    if (isString && truth.runTo && mine.rip === next && BigInt.asUintN(32, before.gpr[1]!) > 8n) await truth.runTo(next); else await truth.step();
    let want = await truth.registers();
    // the stub may stop without having done anything
    if (want.rip === before.rip && mine.rip !== before.rip) { await truth.step(); want = await truth.registers(); }
    for (let n = 0; n < MOST_ITERATIONS && !isPast(want.rip); n++) { await truth.step(); want = await truth.registers(); }
    // a shadow after STI, POP SS or MOV SS: the stub may have done two instructions at once
    let current = mine;
    if (want.rip !== current.rip && /^(sti|pop ss|mov ss)/.test(text)) { ours.step(); current = ours.registers(); }
    const flagMask = FLAGS & ~(known?.undef ?? 0);
    const differences = touched || (o.only && !o.only.has(want.rip)) ? [] : registerDifferences(want, current, flagMask, ours.isLong);
    history.push(line1(changes(before, current)));
    if (history.length > (o.history ?? 20) + 1) history.shift();
    if (differences.length && !o.forgive?.test(text)) return { steps: step, divergence: { step, what: differences, history }, why: "difference" };
    if (exit !== EXIT.yield && exit !== EXIT.none) return { steps: step, divergence: null, why: `our engine stopped with exit ${exit}` };
    if (touched || differences.length || (want.rflags & FLAGS) !== (current.rflags & FLAGS)) { ours.adopt(want); current = ours.registers(); }
    before = current;
  }
  return { steps: o.steps, divergence: null, why: "enough" };
}

function changes(a: Registers, b: Registers): string {
  const out: string[] = [];
  for (let i = 0; i < 16; i++) if (a.gpr[i] !== b.gpr[i]) out.push(`${GPR_NAMES[i]}=${hex(b.gpr[i]!)}`);
  if ((a.rflags ^ b.rflags) & FLAGS) out.push(`flags=${hex(b.rflags)}`);
  return out.join(" ");
}

export const showDivergence = (d: Divergence): string =>
  [...d.history.map((l) => `  ${hex(l.rip).padStart(16, "0")}  ${l.bytes.padEnd(30)} ${l.text.padEnd(36)} ${l.changed}`), `After step ${d.step} these differ (QEMU first):`, ...d.what.map((w) => `  ${w}`)].join("\n");
