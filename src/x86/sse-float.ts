/**
 * SSE floating-point instructions on operands in machine memory: the exact path behind the fast wasm one. All lanes are computed first; an
 * unmasked exception writes nothing but MXCSR's flags and raises #XM. SDM Vol. 1 11.5, Vol. 2.
 */
import type { Views } from "../base/views.ts";
import { GuestFault } from "./fault.ts";
import { F32, F64, FLAG, type Env, type Format } from "./softfloat.ts";
import { addLane, cmpLane, comisLane, convertLane, divLane, envOf, fromIntLane, maxLane, minLane, mulLane, rcpLane, roundLane, rsqrtLane, sqrtLane, subLane, toIntLane, type Lane } from "./sse-lane.ts";
import { QUICK32, QUICK64, quickCompare, quickNarrow, quickTruncate, quickWiden, rounding, type Quick } from "./sse-quick.ts";
import { CPU, CR4, EFLAGS, VECTOR } from "./state.ts";

export { sseOp } from "./sse-lane.ts";

export interface SseHost {
  readonly v: Views;
  /** Byte address of the CPU struct. */
  readonly at: number;
}

/** `xmm`: 16 bytes; `mm`: 8 bytes; `gpr`: 8 bytes, a 32-bit result zero-extended; `eflags`: nothing is written, the flags are returned. */
type Destination = "xmm" | "mm" | "gpr" | "eflags";
interface SseRow {
  readonly name: string;
  /** Bytes of a lane of the source and of the result; lanes worked on. */
  readonly from: number;
  readonly to: number;
  readonly lanes: number;
  readonly dst: Destination;
  /** The result's other bytes are `a`'s; else zero. */
  readonly keep: boolean;
  readonly lane: Lane;
  /** The same for ordinary operands under the default MXCSR: in doubles. */
  readonly quick: Quick | undefined;
  /** Works across lanes instead, and settles the flags of its own stages. */
  readonly across?: (e: Env, a: readonly bigint[], b: readonly bigint[], imm: number) => bigint[];
}

const ROWS: SseRow[] = [];
const row = (name: string, from: number, to: number, lanes: number, dst: Destination, keep: boolean, lane: Lane, quick?: Quick): void => { ROWS.push({ name, from, to, lanes, dst, keep, lane, quick }); };
/** The forms PS, PD, SS, SD of one operation. */
function four(name: string, make: (f: Format) => Lane): void {
  row(`${name}PS`, 4, 4, 4, "xmm", false, make(F32), QUICK32[name]);
  row(`${name}PD`, 8, 8, 2, "xmm", false, make(F64), QUICK64[name]);
  row(`${name}SS`, 4, 4, 1, "xmm", true, make(F32), QUICK32[name]);
  row(`${name}SD`, 8, 8, 1, "xmm", true, make(F64), QUICK64[name]);
}
four("ADD", addLane); four("SUB", subLane); four("MUL", mulLane); four("DIV", divLane); four("SQRT", sqrtLane);
four("MIN", minLane); four("MAX", maxLane); four("CMP", cmpLane); four("ROUND", roundLane);
row("RCPPS", 4, 4, 4, "xmm", false, rcpLane); row("RCPSS", 4, 4, 1, "xmm", true, rcpLane);
row("RSQRTPS", 4, 4, 4, "xmm", false, rsqrtLane); row("RSQRTSS", 4, 4, 1, "xmm", true, rsqrtLane);
row("COMISS", 4, 8, 1, "eflags", false, comisLane(F32, true)); row("COMISD", 8, 8, 1, "eflags", false, comisLane(F64, true));
row("UCOMISS", 4, 8, 1, "eflags", false, comisLane(F32, false)); row("UCOMISD", 8, 8, 1, "eflags", false, comisLane(F64, false));
row("CVTPS2PD", 4, 8, 2, "xmm", false, convertLane(F32, F64), quickWiden); row("CVTPD2PS", 8, 4, 2, "xmm", false, convertLane(F64, F32), quickNarrow);
row("CVTSS2SD", 4, 8, 1, "xmm", true, convertLane(F32, F64), quickWiden); row("CVTSD2SS", 8, 4, 1, "xmm", true, convertLane(F64, F32), quickNarrow);
row("CVTDQ2PS", 4, 4, 4, "xmm", false, fromIntLane(32, F32)); row("CVTDQ2PD", 4, 8, 2, "xmm", false, fromIntLane(32, F64));
row("CVTPI2PS", 4, 4, 2, "xmm", true, fromIntLane(32, F32)); row("CVTPI2PD", 4, 8, 2, "xmm", false, fromIntLane(32, F64));
for (const t of ["", "T"]) {
  row(`CVT${t}PS2DQ`, 4, 4, 4, "xmm", false, toIntLane(F32, 32, t === "T")); row(`CVT${t}PD2DQ`, 8, 4, 2, "xmm", false, toIntLane(F64, 32, t === "T"));
  row(`CVT${t}PS2PI`, 4, 4, 2, "mm", false, toIntLane(F32, 32, t === "T")); row(`CVT${t}PD2PI`, 8, 4, 2, "mm", false, toIntLane(F64, 32, t === "T"));
  for (const bits of [32, 64] as const) {
    row(`CVT${t}SS2SI${bits}`, 4, bits / 8, 1, "gpr", false, toIntLane(F32, bits, t === "T"));
    row(`CVT${t}SD2SI${bits}`, 8, bits / 8, 1, "gpr", false, toIntLane(F64, bits, t === "T"));
  }
}
for (const bits of [32, 64] as const) {
  row(`CVTSI2SS${bits}`, bits / 8, 4, 1, "xmm", true, fromIntLane(bits, F32));
  row(`CVTSI2SD${bits}`, bits / 8, 8, 1, "xmm", true, fromIntLane(bits, F64));
}

/** Within one stage of computation an unmasked exception found before rounding hides, in all lanes, those that rounding raises. */
function stage(e: Env, compute: () => bigint[]): bigint[] {
  const earlier = e.flags;
  e.flags = 0;
  const out = compute();
  e.flags = earlier | (e.flags & ~e.masks & FLAG.before ? e.flags & FLAG.before : e.flags);
  return out;
}
function across(name: string, f: Format, fn: NonNullable<SseRow["across"]>): void {
  const bytes = f.bits / 8;
  ROWS.push({ name, from: bytes, to: bytes, lanes: 16 / bytes, dst: "xmm", keep: false, lane: () => 0n, quick: undefined, across: fn });
}
for (const f of [F32, F64]) {
  const suffix = f === F32 ? "PS" : "PD", plus = addLane(f), minus = subLane(f), times = mulLane(f);
  const pairs = (op: Lane): NonNullable<SseRow["across"]> => (e, a, b) =>
    stage(e, () => [a, b].flatMap((x) => Array.from({ length: x.length / 2 }, (_, i) => op(e, x[2 * i]!, x[2 * i + 1]!, 0))));
  across(`HADD${suffix}`, f, pairs(plus));
  across(`HSUB${suffix}`, f, pairs(minus));
  across(`ADDSUB${suffix}`, f, (e, a, b) => stage(e, () => a.map((x, i) => (i & 1 ? plus : minus)(e, x, b[i]!, 0))));
  // Products chosen by imm's upper half, then summed by exchange between lanes, so that each lane may end with another NaN, as on the processor.
  // A stage's unmasked exceptions stop the next.
  across(`DP${suffix}`, f, (e, a, b, imm) => {
    let sums = stage(e, () => a.map((x, i) => imm >> 4 + i & 1 ? times(e, x, b[i]!, 0) : 0n));
    for (let step = 1; step < a.length && !(e.flags & ~e.masks); step *= 2) {
      const parts = sums, otherFirst = f === F32 && step === 1;
      sums = stage(e, () => parts.map((x, i) => otherFirst ? plus(e, parts[i ^ step]!, x, 0) : plus(e, x, parts[i ^ step]!, 0)));
    }
    return a.map((_, i) => imm >> i & 1 ? sums[i]! : 0n);
  });
}

/** Operation numbers by name: ADDPS, ADDPD, ADDSS, ADDSD, ..., CVTTSD2SI64. */
export const SSE: Readonly<Record<string, number>> = Object.fromEntries(ROWS.map((r, i) => [r.name, i]));
/** What of memory an operation reads for `b`, in bytes: what a memory operand's size is. */
export const sseSourceBytes = (opId: number): number => { const r = ROWS[opId]; return r ? r.across ? 16 : r.from * r.lanes : 0; };

const read = (dv: DataView, at: number, size: number): bigint => size === 8 ? dv.getBigUint64(at, true) : BigInt(dv.getUint32(at, true));
const lanesAt = (dv: DataView, at: number, size: number, n: number): bigint[] => Array.from({ length: n }, (_, i) => read(dv, at + i * size, size));

const float = (dv: DataView, at: number, size: number): number => size === 8 ? dv.getFloat64(at, true) : dv.getFloat32(at, true);
const results = new Float64Array(4);
/** The ordinary case of a row with `quick`. @returns false: nothing has been done */
function quickly(host: SseHost, r: SseRow, quick: Quick, dstAt: number, aAt: number, bAt: number, mxcsr: number): boolean {
  const { dv } = host.v;
  rounding.inexact = false;
  for (let i = 0; i < r.lanes; i++) {
    const y = float(dv, bAt + i * r.from, r.from), z = quick(r.from === r.to ? float(dv, aAt + i * r.from, r.from) : 0, y);
    if (Number.isNaN(z)) return false;
    results[i] = z;
  }
  if (rounding.inexact) CPU.mxcsr.set(dv, host.at, mxcsr | FLAG.PE);
  place(host, r, dstAt, aAt);
  for (let i = 0; i < r.lanes; i++) if (r.to === 8) dv.setFloat64(dstAt + i * 8, results[i]!, true); else dv.setFloat32(dstAt + i * 4, results[i]!, true);
  return true;
}
/** What the lanes do not cover of the destination: kept of `a`, or zero. */
function place(host: SseHost, r: SseRow, dstAt: number, aAt: number): void {
  const size = r.dst === "xmm" ? 16 : 8;
  if (r.keep) { if (dstAt !== aAt) host.v.u8.copyWithin(dstAt, aAt, aAt + size); } else if (r.lanes * r.to < size) host.v.u8.fill(0, dstAt, dstAt + size);
}
/** Everything masked, to nearest, no DAZ, no FTZ. */
const DEFAULT = 0x1f80, SETTING = 0xffc0;
/** COMISx, UCOMISx and truncations to general registers in the ordinary case; -1: not done. */
function quicklyOut(host: SseHost, r: SseRow, dstAt: number, aAt: number, bAt: number, mxcsr: number): number {
  const { dv } = host.v, y = float(dv, bAt, r.from);
  if (r.dst === "eflags") {
    const c = quickCompare(float(dv, aAt, r.from), y, r.from === 4);
    return c < 0 ? EFLAGS.CF : c > 0 ? 0 : c === 0 ? EFLAGS.ZF : -1;
  }
  rounding.inexact = false;
  const n = quickTruncate(y, r.to === 8);
  if (Number.isNaN(n)) return -1;
  if (rounding.inexact) CPU.mxcsr.set(dv, host.at, mxcsr | FLAG.PE);
  dv.setInt32(dstAt, n | 0, true);
  dv.setInt32(dstAt + 4, r.to === 8 ? Math.floor(n / 2 ** 32) : 0, true);
  return 0;
}

/**
 * Do operation `opId` on the operands at the given machine addresses (registers in the CPU struct, or a copy of a memory operand).
 * `aAt` is the first operand, usually the destination's own old value; both are read before anything is written.
 * @param imm predicate, rounding control or mask; 0 otherwise
 * @returns ZF, PF, CF of a comparison, else 0
 * @throws #XM (#UD with CR4.OSXMMEXCPT clear) after updating MXCSR's flags
 */
export function sseSlow(host: SseHost, opId: number, dstAt: number, aAt: number, bAt: number, imm: number): number {
  const r = ROWS[opId];
  if (!r) throw new GuestFault(VECTOR.UD, -1);
  const { dv } = host.v, mxcsr = CPU.mxcsr.get(dv, host.at);
  if ((mxcsr & SETTING) === DEFAULT) {
    if (r.quick) { if (quickly(host, r, r.quick, dstAt, aAt, bAt, mxcsr)) return 0; }
    else if (r.dst === "eflags" || (r.dst === "gpr" && r.name.startsWith("CVTT"))) {
      const done = quicklyOut(host, r, dstAt, aAt, bAt, mxcsr);
      if (done >= 0) return done;
    }
  }
  const e = envOf(mxcsr);
  const needsA = r.dst === "eflags" || (r.dst === "xmm" && r.from === r.to);
  const b = lanesAt(dv, bAt, r.from, r.lanes), a = needsA ? lanesAt(dv, aAt, r.from, r.lanes) : b;
  const out = r.across ? r.across(e, a, b, imm) : stage(e, () => b.map((x, i) => r.lane(e, a[i]!, x, imm)));
  CPU.mxcsr.set(dv, host.at, mxcsr | e.flags);
  if (e.flags & ~e.masks) throw new GuestFault(CPU.cr4.get(dv, host.at) & BigInt(CR4.OSXMMEXCPT) ? VECTOR.XM : VECTOR.UD, -1);
  if (r.dst === "eflags") return Number(out[0]!);
  place(host, r, dstAt, aAt);
  out.forEach((x, i) => { if (r.to === 8) dv.setBigUint64(dstAt + i * 8, x, true); else dv.setUint32(dstAt + i * 4, Number(x), true); });
  return 0;
}
