/**
 * The arithmetic flags as two 64-bit words, and every formula between them, instructions and conditions.
 * fres: ZF = (fres == 0), SF = sign of fres XOR faux bit 61, PF = even parity of fres' low byte XOR faux bit 2.
 * faux: bit 63 CF, bit 62 CF XOR OF, bit 61 SF flip, bit 3 AF, bit 2 PF flip. Only POPF, SAHF and the like set the flips.
 */
import { Op } from "../wasm/opcodes.ts";
import { I32, I64 } from "../wasm/writer.ts";
import type { FlagKind, Flags, Gen, Val, W } from "./gen.ts";
import { EFLAGS } from "./state.ts";

const SIGN = -(1n << 63n), CARRIES = -(1n << 62n) | 8n;

/** Flags between blocks of a region: a code and two words (a, b). Code 0: the words themselves (those of "float" always). */
export const KINDS: readonly FlagKind[] = ["add", "sub", "logic", "inc", "dec", "co"];
export const WIDTHS = [8, 16, 32, 64] as const;
export const flagCode = (kind: FlagKind, w: W): number => 1 + KINDS.indexOf(kind) * 4 + WIDTHS.indexOf(w as 8);
/** What a code and its two words stand for. */
export function flagsOf(g: Gen, kind: FlagKind, w: W, aWord: Val, bWord: Val): Flags {
  const a = g.cast(64, w, aWord), b = g.cast(64, w, bWord), one = g.k(w, 1), bit = (n: number) => g.and(32, g.shr(32, g.cast(64, 32, bWord), g.k(32, n)), g.k(32, 1));
  if (kind === "add" || kind === "sub") return { kind, w, a, b, r: kind === "add" ? g.add(w, a, b) : g.sub(w, a, b), x: null };
  if (kind === "logic") return { kind, w, a: null, b: null, r: a, x: null };
  if (kind === "co") return { kind, w, a: bit(0), b: bit(1), r: a, x: null };
  return { kind, w, a: kind === "inc" ? g.sub(w, a, one) : g.add(w, a, one), b: one, r: a, x: bit(0) };
}

/** The result word an instruction leaves. */
export const resOf = (g: Gen, f: Flags): Val => (f.kind === "float" ? g.cast(32, 64, g.not1(f.b!)) : g.cast(f.w, 64, f.r, true));

/** The carry word an instruction leaves. */
export function auxOf(g: Gen, f: Flags): Val {
  const { w, kind } = f, K = (n: number) => g.k(64, n);
  if (kind === "logic") return K(0);
  // PF is clear: the parity of 0 is flipped, that of 1 is odd as it is
  if (kind === "float") return g.or(64, g.shl(64, g.cast(32, 64, g.sub(32, g.k(32, 0), f.a!), true), K(62)), g.shl(64, g.cast(32, 64, f.b!), K(2)));
  const top = (v: Val) => (w === 64 ? v : g.shl(64, g.cast(32, 64, v), K(64 - w)));
  if (kind === "co") {
    const bit = (v: Val, n: number) => g.shl(64, g.cast(32, 64, v), K(n)), cf = g.let(f.a!);
    return g.or(64, bit(cf, 63), bit(g.xor(32, cf, f.b!), 62));
  }
  const a = g.let(f.a!), b = g.let(f.b!), r = g.let(f.r);
  // bit i: the carry out of bit i
  const carries = kind === "add" || kind === "inc" ? g.or(w, g.and(w, a, b), g.and(w, g.or(w, a, b), g.xor(w, r, g.k(w, -1))))
    : g.or(w, g.and(w, g.xor(w, a, g.k(w, -1)), b), g.and(w, g.xor(w, g.xor(w, a, g.k(w, -1)), b), r));
  if (kind === "add" || kind === "sub") {
    if (w === 64) return g.and(64, carries, g.kbig(CARRIES));
    const v = g.let(carries);
    return g.or(64, g.and(64, top(v), g.kbig(CARRIES ^ 8n)), g.cast(32, 64, g.and(32, v, g.k(32, 8))));
  }
  // inc, dec: overflow and adjust are ours, carry is x
  const v = g.let(carries), t = g.let(top(v)), cf = g.let(g.shl(64, g.cast(32, 64, f.x!), K(63))), af = g.and(64, w === 64 ? v : g.cast(32, 64, v), K(8));
  const of = g.and(64, g.xor(64, t, g.shl(64, t, K(1))), g.kbig(SIGN));
  return g.or(64, g.xor(64, cf, g.shr(64, g.xor(64, cf, of), K(1))), af);
}

/** faux with CF replaced by c (i32), the rest kept. */
export function withCF(g: Gen, aux: Val, c: Val): Val {
  const want = g.shl(64, g.cast(32, 64, c), g.k(64, 63)), diff = g.let(g.and(64, g.xor(64, aux, want), g.kbig(SIGN)));
  return g.xor(64, g.xor(64, aux, diff), g.shr(64, diff, g.k(64, 1)));
}
/** faux with CF and OF replaced. */
export function withCO(g: Gen, aux: Val, cf: Val, of: Val): Val {
  const c = g.let(cf), bit = (v: Val, n: number) => g.shl(64, g.cast(32, 64, v), g.k(64, n));
  return g.or(64, g.and(64, aux, g.kbig(~(3n << 62n))), g.or(64, bit(c, 63), bit(g.xor(32, c, of), 62)));
}

/** A condition from the two words. */
export function ccOf(g: Gen, cond: number, res: Val, aux: Val): Val {
  const zero = g.k(64, 0), sign = (v: Val) => g.lts(64, v, zero), inv = (v: Val) => (cond & 1 ? g.not1(v) : v);
  const of = () => g.xor(64, aux, g.shl(64, aux, g.k(64, 1))), sf = () => g.xor(64, res, g.shl(64, aux, g.k(64, 2)));
  switch (cond >> 1) {
    case 0: return inv(sign(of()));
    case 1: return inv(sign(aux));
    case 2: return inv(g.eqz(64, res));
    case 3: return inv(g.or(32, sign(aux), g.eqz(64, res)));
    case 4: return inv(sign(sf()));
    case 5: return inv(g.not1(g.and(32, g.xor(32, g.un(Op.i32_popcnt, I32, g.cast(64, 8, res)), g.shr(32, g.cast(64, 32, aux), g.k(32, 2))), g.k(32, 1))));
    case 6: return inv(sign(g.xor(64, sf(), of())));
    default: return inv(g.or(32, g.eqz(64, res), sign(g.xor(64, sf(), of()))));
  }
}

/** A condition straight from what set the flags; null where only the words will do. */
export function ccFrom(g: Gen, cond: number, f: Flags): Val | null {
  const { w, kind, r } = f, zero = g.k(w, 0), c = cond >> 1, inv = (v: Val) => (cond & 1 ? g.not1(v) : v);
  if (kind === "float") return inv(c === 1 ? f.a! : c === 2 || c === 7 ? f.b! : c === 3 ? r : g.k(32, 0));
  if (c === 2) return inv(kind === "sub" && f.x === null ? g.eq(w, f.a!, f.b!) : g.eqz(w, r));
  if (c === 4) return inv(g.lts(w, r, zero));
  if (kind === "sub" && f.x === null) {
    if (c === 1) return inv(g.ltu(w, f.a!, f.b!));
    if (c === 3) return inv(g.leu(w, f.a!, f.b!));
    if (c === 6) return inv(g.lts(w, f.a!, f.b!));
    if (c === 7) return inv(g.les(w, f.a!, f.b!));
  }
  if (kind === "logic") {
    if (c === 0 || c === 1) return g.k(32, cond & 1);
    if (c === 3) return inv(g.eqz(w, r));
    if (c === 6) return inv(g.lts(w, r, zero));
    if (c === 7) return inv(g.les(w, r, zero));
  }
  if (kind === "add" && c === 1 && f.x === null) return inv(g.ltu(w, r, f.b!));
  if (kind === "co") { if (c === 1) return inv(f.a!); if (c === 0) return inv(f.b!); }
  if ((kind === "inc" || kind === "dec") && c === 1) return inv(f.x!);
  return null;
}

const bitTo = (g: Gen, v: Val, from: number, to: number): Val => {
  const m = g.and(32, g.shr(32, v, g.k(32, from)), g.k(32, 1));
  return to ? g.shl(32, m, g.k(32, to)) : m;
};
/** The words as an EFLAGS image of the six arithmetic flags (i32). */
export function arithOf(g: Gen, res: Val, aux: Val): Val {
  const one = (cond: number, flag: number) => g.shl(32, ccOf(g, cond, res, aux), g.k(32, Math.log2(flag)));
  const af = g.shl(32, g.and(32, g.cast(64, 32, aux), g.k(32, 8)), g.k(32, 1));
  return [one(2, EFLAGS.CF), one(4, EFLAGS.ZF), one(8, EFLAGS.SF), one(10, EFLAGS.PF), one(0, EFLAGS.OF), af].reduce((x, y) => g.or(32, x, y));
}
/** [fres, faux] from an EFLAGS image (i32, a local). */
export function wordsOf(g: Gen, e: Val): [Val, Val] {
  const zf = g.let(bitTo(g, e, 6, 0)), bit = (v: Val, to: number) => g.shl(64, g.cast(32, 64, v), g.k(64, to)), cf = g.let(bitTo(g, e, 0, 0));
  const res = g.cast(32, 64, g.xor(32, zf, g.k(32, 1)));
  // parity of 0 is even (PF 1), of 1 odd: the flip makes up the difference
  const pflip = g.xor(32, bitTo(g, e, 2, 0), zf);
  const aux = [bit(cf, 63), bit(g.xor(32, cf, bitTo(g, e, 11, 0)), 62), bit(bitTo(g, e, 7, 0), 61), bit(bitTo(g, e, 4, 0), 3), bit(pflip, 2)].reduce((x, y) => g.or(64, x, y));
  return [g.let(res), aux];
}
