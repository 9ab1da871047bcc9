/** MMX: the vector functions of SSE on 64 bits, and what every MMX instruction does to the x87. SDM Vol. 1 ch. 9, Vol. 3A 13.2. */
import { Op } from "../wasm/opcodes.ts";
import { I32 } from "../wasm/writer.ts";
import type { Gen, Val } from "./gen.ts";
import type { Semantics } from "./semantics.ts";
import { maskedStore, type V1, type V2, wordOrder, lanes, widen, zero } from "./semantics-sse.ts";
import { type Shift, shiftBy, shiftKnown } from "./semantics-sse-int.ts";
import { CPU, VECTOR } from "./state.ts";

const TOP = 0x3800;
/** #MF where an earlier x87 instruction left an unmasked exception. */
export function checkPending(g: Gen): void {
  const unmasked = g.and(32, g.field(16, CPU.fsw.at), g.xor(32, g.field(16, CPU.fcw.at), g.k(32, -1)));
  g.trapIf(g.and(32, unmasked, g.k(32, 0x3f)), VECTOR.MF);
}
/** Before anything else: pending exceptions; then TOP is 0 and every register valid. */
export function toMmx(g: Gen): void {
  checkPending(g);
  g.setField(16, CPU.fsw.at, g.and(32, g.field(16, CPU.fsw.at), g.k(32, 0xffff ^ TOP)));
  g.setField(8, CPU.ftw.at, g.k(8, 0xff));
}
/** The same at once: as processors do it, a conversion leaves it done although it faults afterwards (a store: TOP alone). */
export function toMmxNow(g: Gen): void {
  topNow(g);
  g.cpu().i32(0xff).mem(Op.i32_store8, CPU.ftw.at);
}
function topNow(g: Gen): void {
  g.cpu(); g.emit(g.and(32, g.field(16, CPU.fsw.at), g.k(32, 0xffff ^ TOP))); g.code.mem(Op.i32_store16, CPU.fsw.at);
}
/** Write the MMX destination: sign and exponent become ones. The last thing of the text. */
export function setMm(g: Gen, v: Val): void {
  g.setDst(v, 64);
  g.emit(g.dstSlot()); g.code.i32(0xffff).mem(Op.i32_store16, 8);
}
const vector = (g: Gen, v: Val): Val => g.let(g.v(Op.i64x2_splat, v));
const lane0 = (g: Gen, v: Val): Val => g.extract(Op.i64x2_extract_lane, 0, v);

/** dst := the low half of f(dst, src), where f works lane by lane. */
export const each = (f: V2): Semantics => g => { toMmx(g); const a = vector(g, g.dst(64)), b = vector(g, g.sw === 32 ? g.cast(32, 64, g.src(32)) : g.src(64)); setMm(g, lane0(g, f(g, a, b))); };
/** For those whose result's upper half comes from src: dst and src side by side are both operands. */
export const joined = (f: V2): Semantics => g => { toMmx(g); const a = g.dst(64), ab = g.let(g.replace(Op.i64x2_replace_lane, 1, g.v(Op.i64x2_splat, a), g.src(64))); setMm(g, lane0(g, f(g, ab, ab))); };
/** PUNPCKH: the upper half of what PUNPCKL of whole vectors gives. */
export const upper = (f: V2): Semantics => g => { toMmx(g); const a = vector(g, g.dst(64)), b = vector(g, g.src(64)); setMm(g, g.extract(Op.i64x2_extract_lane, 1, f(g, a, b))); };
export const one = (f: V1): Semantics => g => { toMmx(g); setMm(g, lane0(g, f(g, vector(g, g.src(64))))); };
export const shift = (s: Shift): Semantics => g => { toMmx(g); const a = vector(g, g.dst(64)), n = g.src(64); setMm(g, lane0(g, shiftBy(g, s, a, n))); };
export const shiftImm = (s: Shift): Semantics => g => { toMmx(g); setMm(g, lane0(g, shiftKnown(g, s, vector(g, g.dst(64)), g.known()))); };
export const pshufw: Semantics = g => { toMmx(g); const v = vector(g, g.src(64)); setMm(g, lane0(g, g.shuffle(lanes(2, [...wordOrder(g.known()), 4, 5, 6, 7]), v, v))); };
export const palignr: Semantics = g => {
  toMmx(g);
  const m = g.known(), a = g.dst(64), ab = g.let(g.replace(Op.i64x2_replace_lane, 1, g.v(Op.i64x2_splat, g.src(64)), a));
  setMm(g, lane0(g, g.shuffle(Array.from({ length: 16 }, (_, i) => Math.min(i + m, 31)), ab, zero(g))));
};
export const pinsrw: Semantics = g => { toMmx(g); const x = g.src(16); setMm(g, lane0(g, g.replace(Op.i16x8_replace_lane, g.known() & 3, vector(g, g.dst(64)), x))); };
export const pextrw: Semantics = (g, w) => { toMmx(g); g.setDst(g.cast(32, w, g.extract(Op.i16x8_extract_lane_u, g.known() & 3, vector(g, g.src(64))))); };
export const pmovmskb: Semantics = (g, w) => { toMmx(g); g.setDst(g.cast(32, w, g.and(32, g.vi(Op.i8x16_bitmask, vector(g, g.src(64)), I32), g.k(32, 0xff)))); };
export const maskmovq: Semantics = g => { toMmx(g); const v = widen(g, 64, g.dst(64)), m = vector(g, g.src(64)); maskedStore(g, v, g.and(32, g.vi(Op.i8x16_bitmask, m), g.k(32, 0xff)), 8); };

/** MOVD, MOVQ to an MMX register. */
export const load: Semantics = g => { toMmx(g); const v = g.src(g.sw); setMm(g, g.cast(g.sw, 64, v)); };
/** MOVD, MOVQ, MOVNTQ from one. */
export const store: Semantics = (g, w) => { toMmx(g); topNow(g); g.setDst(g.src(w), w); };
export const loadOrStore: Semantics = (g, w) => (g.dstMem ? store(g, w) : load(g, w));
export const movq2dq: Semantics = g => { toMmx(g); g.setDst(widen(g, 64, g.src(64)), 128); };
export const emms: Semantics = g => {
  checkPending(g);
  g.setField(8, CPU.ftw.at, g.k(8, 0));
  g.setField(16, CPU.fsw.at, g.and(32, g.field(16, CPU.fsw.at), g.k(32, 0xffff ^ TOP)));
};
