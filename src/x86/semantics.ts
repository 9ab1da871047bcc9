/** What the integer instructions do, once (SDM Vol. 2). The rules of the text stand at the head of gen.ts. */
import { Op } from "../wasm/opcodes.ts";
import { I32, I64 } from "../wasm/writer.ts";
import { type FlagKind, type Gen, type Val, type W, tyOf } from "./gen.ts";
import { EFLAGS, RAX, RBX, RCX, RDX, VECTOR } from "./state.ts";

export type Semantics = (g: Gen, w: W) => void;
type Bin = (g: Gen, w: W, a: Val, b: Val) => Val;

/** A two-operand arithmetic instruction. */
const alu = (kind: FlagKind, f: Bin): Semantics => (g, w) => {
  const b = g.let(g.src()), a = g.rmw(), r = g.let(f(g, w, a, b));
  g.put(r);
  g.flags(kind, w, r, a, b);
};
/** CMP and TEST: those that do not write. */
const compare = (kind: FlagKind, f: Bin): Semantics => (g, w) => {
  const a = g.let(g.dst()), b = g.let(g.src()), r = g.let(f(g, w, a, b));
  g.flags(kind, w, r, a, b);
};
export const add = alu("add", (g, w, a, b) => g.add(w, a, b));
export const sub = alu("sub", (g, w, a, b) => g.sub(w, a, b));
export const and = alu("logic", (g, w, a, b) => g.and(w, a, b));
export const or = alu("logic", (g, w, a, b) => g.or(w, a, b));
export const xor = alu("logic", (g, w, a, b) => g.xor(w, a, b));
export const cmp = compare("sub", (g, w, a, b) => g.sub(w, a, b));
export const test = compare("logic", (g, w, a, b) => g.and(w, a, b));

const withCarry = (kind: "add" | "sub"): Semantics => (g, w) => {
  const c = g.let(g.cast(32, w, g.cc(2))), b = g.let(g.src()), a = g.rmw();
  const r = g.let(kind === "add" ? g.add(w, g.add(w, a, b), c) : g.sub(w, g.sub(w, a, b), c));
  g.put(r);
  g.flags(kind, w, r, a, b, c);
};
export const adc = withCarry("add"), sbb = withCarry("sub");

const step = (kind: "inc" | "dec"): Semantics => (g, w) => {
  const c = g.let(g.cc(2)), a = g.rmw(), one = g.k(w, 1), r = g.let(kind === "inc" ? g.add(w, a, one) : g.sub(w, a, one));
  g.put(r);
  g.flags(kind, w, r, a, one, c);
};
export const inc = step("inc"), dec = step("dec");
export const neg: Semantics = (g, w) => { const b = g.rmw(), z = g.k(w, 0), r = g.let(g.sub(w, z, b)); g.put(r); g.flags("sub", w, r, z, b); };
export const not: Semantics = (g, w) => { const a = g.rmw(); g.put(g.not(w, a)); };

export const mov: Semantics = g => g.setDst(g.src());
export const movzx: Semantics = (g, w) => g.setDst(g.cast(g.sw, w, g.src()));
export const movsx: Semantics = (g, w) => g.setDst(g.cast(g.sw, w, g.src(), true));
export const lea: Semantics = (g, w) => g.setDst(g.cast(64, w, g.offset()));
export const xchg: Semantics = g => { const b = g.let(g.src()), a = g.rmw(); g.put(b); g.setSrc(a); };
export const nop: Semantics = () => {};
/** MFENCE: what was written before is seen by all before what comes after is read. LFENCE and SFENCE ask for nothing that a processor with this memory order does not do. */
export const mfence: Semantics = g => { g.code.op(Op.atomic_fence).u8(0); };
/** SERIALIZE: whoever waits for it wants to see what others have written; where that may be code the run loop is told. */
export const serialize: Semantics = g => { mfence(g, g.w); g.rare(g.ne(32, g.help("asked"), g.k(32, 0)), () => g.end()); };
/** CLFLUSH: nothing to do, but the byte must be readable. */
export const clflush: Semantics = g => { g.load(8, g.ea(1, false)); };
export const ud: Semantics = g => g.trap(VECTOR.UD);
const swap32 = (g: Gen, v: Val) => { const a = g.let(v); return g.or(32, g.and(32, g.rotl(32, a, g.k(32, 8)), g.k(32, 0x00ff00ff)), g.and(32, g.rotl(32, a, g.k(32, 24)), g.k(32, 0xff00ff00))); };
const swapped = (g: Gen, w: W, a: Val): Val => {
  if (w === 16) return g.rotl(16, a, g.k(32, 8));
  if (w === 32) return swap32(g, a);
  const lo = g.cast(64, 32, a), hi = g.cast(64, 32, g.shr(64, a, g.k(64, 32)));
  return g.or(64, g.shl(64, g.cast(32, 64, swap32(g, lo)), g.k(64, 32)), g.cast(32, 64, swap32(g, hi)));
};
/** BSWAP of a 16-bit register is undefined by the manual: silicon gives zero. */
export const bswap: Semantics = (g, w) => g.setDst(w === 16 ? g.k(16, 0) : swapped(g, w, g.let(g.dst())));
export const movbe: Semantics = (g, w) => g.setDst(swapped(g, w, g.let(g.src())));

/** A shift or rotate count: masked to 5 or 6 bits, in the wasm type of the value. */
const count = (g: Gen, w: W): Val => g.let(g.cast(8, w, g.and(8, g.src(8), g.k(8, w === 64 ? 63 : 31))));
const wide = (w: W): W => (w === 64 ? 64 : 32);
const bit0 = (g: Gen, w: W, v: Val): Val => g.cast(w, 32, g.and(w, v, g.k(w, 1)));

const shift = (kind: "shl" | "shr" | "sar"): Semantics => (g, w) => {
  const n = count(g, w), a = g.rmw();
  const f = (m: Val) => (kind === "shl" ? g.shl(w, a, m) : kind === "shr" ? g.shr(w, a, m) : g.sar(w, a, m));
  const r = g.let(f(n));
  g.put(r);
  const t = f(g.sub(wide(w), n, g.k(wide(w), 1)));            // all but the last step: its edge bit is CF
  const cf = g.let(kind === "shl" ? g.msb(w, t) : bit0(g, w, t));
  const of = kind === "shl" ? g.xor(32, g.msb(w, r), cf) : kind === "shr" ? g.msb(w, a) : g.k(32, 0);
  g.flagsIf(g.ne(w, n, g.k(w, 0)), w, r, cf, of);
};
export const shl = shift("shl"), shr = shift("shr"), sar = shift("sar");

const rotate = (left: boolean): Semantics => (g, w) => {
  const n = count(g, w), a = g.rmw();
  const r = g.let(g.rotl(w, a, left ? n : g.sub(wide(w), g.k(wide(w), w), w < 32 ? g.and(32, n, g.k(32, w - 1)) : n)));
  g.put(r);
  const low = bit0(g, w, r), high = g.msb(w, r);
  const cf = left ? low : high, of = left ? g.xor(32, high, low) : g.xor(32, high, g.msb(w, g.shl(w, r, g.k(wide(w), 1))));
  g.flagsIf(g.ne(w, n, g.k(w, 0)), w, null, cf, of);
};
export const rol = rotate(true), ror = rotate(false);

/** RCL and RCR: rotate through carry, over w + 1 bits. */
const rotateCarry = (left: boolean): Semantics => (g, w) => {
  const c = g.let(g.cc(2)), m = count(g, w), a = g.rmw(), K = (n: number) => g.k(wide(w), n), ty = wide(w);
  const n = w === 8 ? g.let(g.bin(Op.i32_rem_u, I32, m, K(9))) : w === 16 ? g.let(g.bin(Op.i32_rem_u, I32, m, K(17))) : m;
  const cw = g.let(g.cast(32, ty, c));
  // for n in 1..w: the bits that leave on one side come in on the other, the carry between them; a shift by w must give 0
  const shlS = (v: Val, s: Val) => (w < 32 ? g.clean(w, g.shl(32, v, s)) : g.select(tyOf(w), g.ltu(ty, s, K(w)), g.shl(w, v, s), g.k(w, 0)));
  const shrS = (v: Val, s: Val) => (w < 32 ? g.shr(32, v, s) : g.select(tyOf(w), g.ltu(ty, s, K(w)), g.shr(w, v, s), g.k(w, 0)));
  const less = (s: number) => g.let(g.sub(ty, K(s), n)), nz = g.let(g.ne(ty, n, K(0)));
  const n1 = g.let(g.sub(ty, n, K(1)));
  const turned = left
    ? g.or(w, g.or(w, shlS(a, n), g.clean(w, g.shl(ty, cw, n1))), shrS(a, less(w + 1)))
    : g.or(w, g.or(w, shrS(a, n), g.clean(w, g.shl(ty, cw, less(w)))), shlS(a, less(w + 1)));
  const r = g.let(g.select(tyOf(w), nz, turned, a));
  g.put(r);
  const last = left ? g.shr(w, a, less(w)) : g.shr(w, a, n1);
  const cf = g.let(g.select(I32, nz, bit0(g, w, last), c));
  const high = g.msb(w, r);
  const of = left ? g.xor(32, high, cf) : g.xor(32, high, g.msb(w, g.shl(w, r, g.k(wide(w), 1))));
  g.flagsIf(g.ne(ty, m, K(0)), w, null, cf, of);
};
export const rcl = rotateCarry(true), rcr = rotateCarry(false);

/** SHLD and SHRD. With 16 bits and a count over 16 the result is undefined: silicon rotates the concatenation on. */
const doubleShift = (left: boolean): Semantics => (g, w) => {
  const by = g.let(g.and(32, g.count3(), g.k(32, w === 64 ? 63 : 31))), b = g.let(g.src()), a = g.rmw();
  let r: Val, cf: Val;
  if (w === 16) {
    const ax = g.cast(32, 64, a), bx = g.cast(32, 64, b), n = g.let(g.cast(32, 64, by)), K = (n: number) => g.k(64, n);
    if (left) {
      const t = g.let(g.or(64, g.or(64, g.shl(64, ax, K(32)), g.shl(64, bx, K(16))), ax)), s = g.let(g.shl(64, t, n));
      r = g.let(g.cast(64, 16, g.shr(64, s, K(32)))); cf = g.cast(64, 32, g.and(64, g.shr(64, s, K(48)), K(1)));
    } else {
      const t = g.let(g.or(64, g.or(64, g.shl(64, ax, K(32)), g.shl(64, bx, K(16))), ax));
      r = g.let(g.cast(64, 16, g.shr(64, t, n))); cf = g.cast(64, 32, g.and(64, g.shr(64, t, g.sub(64, n, K(1))), K(1)));
    }
  } else {
    const n = g.let(g.cast(32, w, by)), rest = g.sub(w, g.k(w, w), n), none = g.eqz(w, n), n1 = g.sub(w, n, g.k(w, 1));
    const turned = left ? g.or(w, g.shl(w, a, n), g.shr(w, b, rest)) : g.or(w, g.shr(w, a, n), g.shl(w, b, rest));
    r = g.let(g.select(tyOf(w), none, a, turned));
    cf = left ? g.msb(w, g.shl(w, a, n1)) : bit0(g, w, g.shr(w, a, n1));
  }
  g.put(r);
  const carry = g.let(cf);
  g.flagsIf(g.ne(32, by, g.k(32, 0)), w, r, carry, g.xor(32, g.msb(w, r), g.msb(w, a)));
};
export const shld = doubleShift(true), shrd = doubleShift(false);

/** BT, BTS, BTR, BTC. A register bit offset reaches beyond a memory operand. */
const bitTest = (f: ((g: Gen, w: W, a: Val, mask: Val) => Val) | null): Semantics => (g, w) => {
  const raw = g.let(g.srcIsImm ? g.cast(8, w, g.src(8)) : g.src()), n = g.let(g.and(w, raw, g.k(w, w - 1)));
  let a: Val;
  if (g.dstMem && !g.srcIsImm) {
    const bytes = g.mul(64, g.sar(64, g.cast(w, 64, raw, true), g.k(64, Math.log2(w))), g.k(64, w / 8)), addr = g.eaPlus(bytes, w / 8, f !== null);
    a = f ? g.rmwAt(w, addr) : g.load(w, addr);
  } else a = f ? g.rmw() : g.let(g.dst());
  if (f) g.put(f(g, w, a, g.shl(w, g.k(w, 1), n)));
  g.setCF(g.let(bit0(g, w, g.shr(w, a, n))));
};
export const bt = bitTest(null), bts = bitTest((g, w, a, m) => g.or(w, a, m)), btr = bitTest((g, w, a, m) => g.and(w, a, g.not(w, m))), btc = bitTest((g, w, a, m) => g.xor(w, a, m));

/** BSF and BSR: a zero source sets ZF and leaves the destination (as all silicon does; a 32-bit one is zero-extended only when written). */
const bitScan = (forward: boolean): Semantics => (g, w) => {
  const a = g.let(g.src()), ty = wide(w), v = a;
  const n = forward ? g.un(w === 64 ? Op.i64_ctz : Op.i32_ctz, tyOf(w), v) : g.sub(ty, g.k(ty, ty - 1), g.un(w === 64 ? Op.i64_clz : Op.i32_clz, tyOf(w), v));
  const none = g.let(g.eqz(w, a));
  if (w === 32) g.setDst(g.select(I64, none, g.dst(64), g.cast(32, 64, n)), 64); else g.setDst(g.select(tyOf(w), none, g.dst(), n));
  g.flags("logic", w, a);
};
export const bsf = bitScan(true), bsr = bitScan(false);
export const popcnt: Semantics = (g, w) => {
  const a = g.let(g.src()); g.setDst(g.un(w === 64 ? Op.i64_popcnt : Op.i32_popcnt, tyOf(w), a));
  g.setArith(g.shl(32, g.eqz(w, a), g.k(32, 6)));
};
/** CRC32 (SSE4.2): the Castagnoli polynomial, bit by bit. */
export const crc32: Semantics = (g, w) => {
  let crc = g.dst(32); const s = g.let(g.src());
  const part = (v: Val, bits: number) => {
    crc = g.let(g.xor(32, crc, v));
    for (let i = 0; i < bits; i++) crc = g.let(g.xor(32, g.shr(32, crc, g.k(32, 1)), g.and(32, g.k(32, 0x82f63b78), g.sub(32, g.k(32, 0), g.and(32, crc, g.k(32, 1))))));
  };
  if (g.sw === 64) { part(g.cast(64, 32, s), 32); part(g.cast(64, 32, g.shr(64, s, g.k(64, 32))), 32); } else part(s, g.sw);
  g.setDst(g.cast(32, w, crc));
};

/** Signed multiply, low half only; carry and overflow say the product did not fit. */
const imulBy = (g: Gen, w: W, a: Val, b: Val) => {
  if (w === 64) {
    const x = g.let(a), y = g.let(b), r = g.let(g.mul(64, x, y));
    g.setDst(r);
    const over = g.wantsFlags ? g.let(g.ne(64, g.mulHigh(true, x, y), g.sar(64, r, g.k(64, 63)))) : g.k(32, 0);
    g.flags("co", 64, r, over, over);
    return;
  }
  const p = g.let(g.mul(64, g.cast(w, 64, a, true), g.cast(w, 64, b, true))), r = g.let(g.cast(64, w, p));
  g.setDst(r);
  const over = g.let(g.ne(64, p, g.cast(w, 64, r, true)));
  g.flags("co", w, r, over, over);
};
export const imul2: Semantics = (g, w) => imulBy(g, w, g.dst(), g.src());
export const imul3: Semantics = (g, w) => imulBy(g, w, g.src(), g.imm(w));

/** The wide accumulator: AX for bytes, else rDX:rAX. */
const setWide = (g: Gen, w: W, lo: Val, hi: Val) => {
  if (w === 8) g.setReg(16, RAX, g.or(32, lo, g.shl(32, hi, g.k(32, 8))));
  else { g.setReg(w, RAX, lo); g.setReg(w, RDX, hi); }
};
const mulWide = (signed: boolean): Semantics => (g, w) => {
  const a = g.let(g.reg(w, RAX)), b = g.let(g.dst());
  let lo: Val, hi: Val;
  if (w === 64) { lo = g.let(g.mul(64, a, b)); hi = g.let(g.mulHigh(signed, a, b)); }
  else {
    const p = g.let(g.mul(64, g.cast(w, 64, a, signed), g.cast(w, 64, b, signed)));
    lo = g.let(g.cast(64, w, p)); hi = g.let(g.cast(64, w, g.shr(64, p, g.k(64, w))));
  }
  setWide(g, w, lo, hi);
  const over = g.let(g.ne(w, hi, signed ? g.sar(w, lo, g.k(wide(w), w - 1)) : g.k(w, 0)));
  g.flags("co", w, lo, over, over);
};
export const mul = mulWide(false), imul1 = mulWide(true);

const divide = (signed: boolean): Semantics => (g, w) => {
  const d = g.let(g.dst());
  g.trapIf(g.eqz(w, d), VECTOR.DE);
  const quot = signed ? Op.i64_div_s : Op.i64_div_u, rem = signed ? Op.i64_rem_s : Op.i64_rem_u;
  if (w === 64) {                      // the 128-bit case is a helper; it records #DE on overflow
    const lo = g.let(g.reg(64, RAX)), hi = g.let(g.reg(64, RDX));
    const plain = g.let(signed ? g.and(32, g.eq(64, hi, g.sar(64, lo, g.k(64, 63))), g.ne(64, d, g.k(64, -1))) : g.eqz(64, hi));
    g.mayFault();
    const q = g.ifElse(I64, plain, () => g.bin(quot, I64, lo, d), () => g.help(signed ? "divs128" : "divu128", hi, lo, d));
    g.faultCheck();
    const r = g.ifElse(I64, plain, () => g.bin(rem, I64, lo, d), () => g.help(signed ? "rems128" : "remu128", hi, lo, d));
    g.setReg(64, RAX, q); g.setReg(64, RDX, r);
    return;
  }
  const n = w === 8 ? g.let(g.cast(16, 64, g.reg(16, RAX), signed))
    : g.let(g.or(64, g.shl(64, g.cast(w, 64, g.reg(w, RDX)), g.k(64, w)), g.cast(w, 64, g.reg(w, RAX))));
  const n2 = w === 16 && signed ? g.let(g.cast(32, 64, g.cast(64, 32, n), true)) : n, dd = g.let(g.cast(w, 64, d, signed));
  // -2^63 / -1 would trap in wasm: it overflows here too
  if (signed && w === 32) g.trapIf(g.and(32, g.eq(64, n2, g.kbig(-(1n << 63n))), g.eq(64, dd, g.k(64, -1))), VECTOR.DE);
  const q = g.let(g.bin(quot, I64, n2, dd)), r = g.bin(rem, I64, n2, dd);
  g.trapIf(g.ne(64, q, g.cast(w, 64, g.cast(64, w, q), signed)), VECTOR.DE);
  setWide(g, w, g.let(g.cast(64, w, q)), g.let(g.cast(64, w, r)));
};
export const div = divide(false), idiv = divide(true);

/** CBW CWDE CDQE / CWD CDQ CQO */
export const cbw: Semantics = (g, w) => { const h = (w / 2) as W; g.setReg(w, RAX, g.cast(h, w, g.reg(h, RAX), true)); };
export const cwd: Semantics = (g, w) => g.setReg(w, RDX, g.sar(w, g.reg(w, RAX), g.k(wide(w), w - 1)));

export const setcc = (cc: number): Semantics => g => g.setDst(g.cc(cc));
export const cmovcc = (cc: number): Semantics => (g, w) => { const b = g.let(g.src()); g.setDst(g.select(tyOf(w), g.cc(cc), b, g.dst())); };

export const cmpxchg: Semantics = (g, w) => {
  const b = g.let(g.src()), acc = g.let(g.reg(w, RAX)), a = g.rmw(), r = g.let(g.sub(w, acc, a)), same = g.let(g.eq(w, acc, a));
  // of accumulator and destination only the one that takes a value is written, and so zero-extended; the destination may be the accumulator
  if (w === 32) g.setReg(64, RAX, g.select(I64, same, g.reg(64, RAX), g.cast(32, 64, a))); else g.setReg(w, RAX, g.select(tyOf(w), same, acc, a));
  if (w === 32 && !g.dstMem) g.setDst(g.select(I64, same, g.cast(32, 64, b), g.dst(64)), 64); else g.put(g.select(tyOf(w), same, b, a));
  g.flags("sub", w, r, acc, a);
};
export const xadd: Semantics = (g, w) => {
  const b = g.let(g.src()), a = g.rmw(), r = g.let(g.add(w, a, b));
  g.setSrc(a); g.put(r); g.flags("add", w, r, a, b);
};
/** ZF alone; the other flags stay. */
export const setZF = (g: Gen, zf: Val): void => g.setArith(g.or(32, g.and(32, g.arith(), g.k(32, EFLAGS.arith & ~EFLAGS.ZF)), g.shl(32, zf, g.k(32, 6))));
/** CMPXCHG8B: eight bytes at once. */
export const cmpxchg8b: Semantics = g => {
  const pair = (hi: number, lo: number) => g.let(g.or(64, g.shl(64, g.cast(32, 64, g.reg(32, hi)), g.k(64, 32)), g.cast(32, 64, g.reg(32, lo))));
  const want = pair(RDX, RAX), next = pair(RCX, RBX), a = g.rmwAt(64, g.ea(8, true)), same = g.let(g.eq(64, a, want));
  g.put(g.select(I64, same, next, a));
  g.setReg(64, RAX, g.select(I64, same, g.reg(64, RAX), g.and(64, a, g.kbig(0xffffffffn))));
  g.setReg(64, RDX, g.select(I64, same, g.reg(64, RDX), g.shr(64, a, g.k(64, 32))));
  setZF(g, same);
};
/** LOCK CMPXCHG16B: WebAssembly has no 128-bit atomics, so all who lock take turns (Mmu.cas16). */
export const lockCmpxchg16b: Semantics = g => {
  const at = g.let(g.ea(16, true));
  g.trapIf(g.cast(64, 32, g.and(64, at, g.k(64, 15))), VECTOR.GP, 0);
  g.sysEnd("cas16", at);
};
/** CMPXCHG16B: 16-byte aligned. Without LOCK each half is one access. */
export const cmpxchg16b: Semantics = g => {
  const at = g.let(g.ea(16, true));
  g.trapIf(g.cast(64, 32, g.and(64, at, g.k(64, 15))), VECTOR.GP, 0);
  g.writable(at, 16);
  const lo = g.let(g.load(64, at)), hi = g.let(g.load(64, g.add(64, at, g.k(64, 8))));
  const same = g.let(g.and(32, g.eq(64, lo, g.reg(64, RAX)), g.eq(64, hi, g.reg(64, RDX))));
  g.store(64, at, g.select(I64, same, g.reg(64, RBX), lo)); g.store(64, g.add(64, at, g.k(64, 8)), g.select(I64, same, g.reg(64, RCX), hi));
  g.setReg(64, RAX, lo); g.setReg(64, RDX, hi);
  setZF(g, same);
};

// Flags as a whole
export const cmc: Semantics = g => g.setCF(g.not1(g.cc(2)));
export const clc: Semantics = g => g.setCF(g.k(32, 0));
export const stc: Semantics = g => g.setCF(g.k(32, 1));
export const lahf: Semantics = g => g.setReg(16, RAX, g.or(32, g.and(32, g.reg(16, RAX), g.k(32, 0xff)), g.shl(32, g.or(32, g.and(32, g.arith(), g.k(32, 0xd5)), g.k(32, 2)), g.k(32, 8))));
export const sahf: Semantics = g => g.setArith(g.or(32, g.and(32, g.shr(32, g.reg(16, RAX), g.k(32, 8)), g.k(32, 0xd5)), g.and(32, g.arith(), g.k(32, EFLAGS.OF))));
export const salc: Semantics = g => g.setReg(8, RAX, g.and(32, g.sub(32, g.k(32, 0), g.cc(2)), g.k(32, 255)));

// Decimal and ASCII adjustment (not in 64-bit mode)
const szp = (g: Gen, al: Val): Val => g.or(32, g.or(32, g.shl(32, g.eqz(8, al), g.k(32, 6)), g.and(32, al, g.k(32, 0x80))), g.shl(32, g.not1(g.and(32, g.un(Op.i32_popcnt, I32, al), g.k(32, 1))), g.k(32, 2)));
const flagBit = (g: Gen, f: Val, bit: number) => g.and(32, g.shr(32, f, g.k(32, Math.log2(bit))), g.k(32, 1));
const decimal = (sign: 1 | -1): Semantics => g => {
  const al = g.let(g.reg(8, RAX)), f = g.let(g.arith());
  const low = g.let(g.or(32, g.ltu(32, g.k(32, 9), g.and(32, al, g.k(32, 15))), flagBit(g, f, EFLAGS.AF)));
  const high = g.let(g.or(32, g.ltu(32, g.k(32, 0x99), al), flagBit(g, f, EFLAGS.CF)));
  const by = g.add(32, g.mul(32, low, g.k(32, 6)), g.mul(32, high, g.k(32, 0x60)));
  const r = g.let(g.clean(8, sign > 0 ? g.add(32, al, by) : g.sub(32, al, by)));
  // DAS also borrows when the low correction alone wraps
  const cf = sign > 0 ? high : g.or(32, high, g.and(32, low, g.ltu(32, al, g.k(32, 6))));
  g.setReg(8, RAX, r);
  g.setArith(g.or(32, szp(g, r), g.or(32, cf, g.shl(32, low, g.k(32, 4)))));
};
export const daa = decimal(1), das = decimal(-1);
const ascii = (sign: 1 | -1): Semantics => g => {
  const ax = g.let(g.reg(16, RAX)), f = g.let(g.arith());
  const adj = g.let(g.or(32, g.ltu(32, g.k(32, 9), g.and(32, ax, g.k(32, 15))), flagBit(g, f, EFLAGS.AF)));
  const by = g.mul(32, adj, g.k(32, 0x106)), r = g.let(g.and(32, sign > 0 ? g.add(32, ax, by) : g.sub(32, ax, by), g.k(32, 0xff0f)));
  g.setReg(16, RAX, r);
  g.setArith(g.or(32, szp(g, g.and(32, r, g.k(32, 0xff))), g.or(32, adj, g.shl(32, adj, g.k(32, 4)))));
};
export const aaa = ascii(1), aas = ascii(-1);
export const aam: Semantics = g => {
  const by = g.let(g.imm(8)), al = g.let(g.reg(8, RAX));
  g.trapIf(g.eqz(8, by), VECTOR.DE);
  const q = g.let(g.bin(Op.i32_div_u, I32, al, by)), r = g.let(g.bin(Op.i32_rem_u, I32, al, by));
  g.setReg(16, RAX, g.or(32, g.shl(32, q, g.k(32, 8)), r)); g.setArith(szp(g, r));
};
export const aad: Semantics = g => {
  const ax = g.let(g.reg(16, RAX)), r = g.let(g.clean(8, g.add(32, g.and(32, ax, g.k(32, 255)), g.mul(32, g.shr(32, ax, g.k(32, 8)), g.imm(8)))));
  g.setReg(16, RAX, r); g.setArith(szp(g, r));
};
