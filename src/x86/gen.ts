/**
 * The generator: what the semantics of instructions are written over. Values are small expression trees; engines differ only in where
 * operands, registers and flags live and what a jump is (the abstract part).
 *
 * Rules the semantics' text lives by:
 * 1. Reads see the state before the instruction. Register and flag writes are queued and take effect together at its end; memory writes
 *    happen where they stand. So order in the text does not matter and a fault leaves everything untouched (write memory last).
 * 2. `let` evaluates now and once; every other tree is emitted where it is used, or never.
 * 3. 8, 16 and 32-bit values are i32, clean above their width; 64-bit ones i64; 128-bit ones v128.
 * 4. Flags are two words (result; carries), see flags.ts; one formula a kind, in gen-flags.ts.
 */
import { Op } from "../wasm/opcodes.ts";
import { type Code, F32, F64, I32, I64, V128, type Ty } from "../wasm/writer.ts";
import type { Row } from "./rows.ts";
import { CPU, EFLAGS, MXCSR, VECTOR } from "./state.ts";
import { TLBE, TLB_BITS } from "./layout.ts";

export type W = 8 | 16 | 32 | 64 | 128;
/** op: a wasm opcode, or an X code. k: constant, local, register, offset, lane or index of a literal. */
export type Val = { readonly op: number; readonly ty: Ty; readonly a: Val | null; readonly b: Val | null; readonly c: Val | null; readonly k: number };
/** Node kinds that are not wasm opcodes. */
export const X = { konst: -1, big: -2, local: -3, reg: -4, call: -5, lane: -6, shuffle: -7, vconst: -8 } as const;
const node = (op: number, ty: Ty, a: Val | null, b: Val | null, k: number, c: Val | null = null): Val => ({ op, ty, a, b, c, k });
export const local = (l: number, ty: Ty): Val => node(X.local, ty, null, null, l);
export const tyOf = (w: W): Ty => (w === 128 ? V128 : w === 64 ? I64 : I32);

/** Functions every generated module imports, in this order, with their wasm types. The slow ways to memory say whether they have recorded a fault, last. */
export const HELPERS = {
  slowLoad: [[I64, I32], [I64, I32]], slowStore: [[I64, I64, I32], [I32]], slowLoad128: [[I64], [I32]], slowStore128: [[I64], [I32]], probeWrite: [[I64, I32], [I32]], slowCas: [[I64, I64, I64, I32], [I32]],
  mulhu: [[I64, I64], [I64]], mulhs: [[I64, I64], [I64]], divu128: [[I64, I64, I64], [I64]], divs128: [[I64, I64, I64], [I64]], remu128: [[I64, I64, I64], [I64]], rems128: [[I64, I64, I64], [I64]],
  lookup: [[I64, I32], [I32]], isMapped: [[I64, I32, I32], [I32]], tsc: [[], [I64]], segCheck: [[I32, I64, I32], []], sys: [[I32, I64, I64], [I64]],
  sse: [[I32, I32, I32, I32], []], x87Reg: [[I32], [I32]], x87Load: [[I32, I64, I32], [I32]], x87Store: [[I32], []], x87StoreDone: [[I32], []], bulk: [[I32, I32], [I32]], flagRes: [[I32, I64, I64], [I64]], flagAux: [[I32, I64, I64], [I64]],
  leaveTo: [[I64, I32, I32, I32, I32], [I32]], leaveToStub: [[I64, I32, I32, I32, I32], [I32]], leave: [[I64, I32, I32, I32], [I32]], leaveAt: [[I32, I32, I32], [I32]], leaveFor: [[I64, I32, I32], [I32]], asked: [[], [I32]],
} as const satisfies Record<string, readonly [readonly Ty[], readonly Ty[]]>;
export type Helper = keyof typeof HELPERS;
const HELPER_NAMES = Object.keys(HELPERS) as Helper[];
export const helperIndex = (h: Helper): number => HELPER_NAMES.indexOf(h);

/** MXCSR at nearest, everything masked, no FTZ or DAZ, and PE set: results that are zero or normal, exact or not, leave it alone. */
export const MXCSR_ORDINARY = { mask: MXCSR.masks | MXCSR.RC | MXCSR.DAZ | MXCSR.FTZ | MXCSR.PE, value: MXCSR.masks | MXCSR.PE } as const;
/** Exponents of doubles, less one or two, that are below it are neither infinities' nor NaNs'; its lowest eight bits are the same for singles. */
export const EXPONENT_LIMIT = 0x7fc;

/** How flags follow from an instruction. co: carry and overflow are given as a and b. float: carry and zero are, and one or the other as r. */
export type FlagKind = "add" | "sub" | "inc" | "dec" | "logic" | "co" | "float";
export type Flags = { kind: FlagKind; w: W; a: Val | null; b: Val | null; r: Val; x: Val | null };

const bigs = new Map<number, bigint>(), bigIndex = new Map<bigint, number>();
const literals: Uint8Array[] = [];
/** Load and store by width. */
export const LOADS = { 8: Op.i32_load8_u, 16: Op.i32_load16_u, 32: Op.i32_load, 64: Op.i64_load, 128: Op.v128_load } as const;
export const STORES = { 8: Op.i32_store8, 16: Op.i32_store16, 32: Op.i32_store, 64: Op.i64_store, 128: Op.v128_store } as const;
/** What a load gives. */
type LoadAs = "bits" | "float" | "lane";
const SCALAR_LOADS = {
  float: { 32: { op: Op.f32_load, ty: F32 }, 64: { op: Op.f64_load, ty: F64 } }, lane: { 32: { op: Op.v128_load32_zero, ty: V128 }, 64: { op: Op.v128_load64_zero, ty: V128 } },
} as const satisfies Record<Exclude<LoadAs, "bits">, Record<32 | 64, { op: number; ty: Ty }>>;
const ATOMIC_LOADS = { 8: Op.i32_atomic_load8_u, 16: Op.i32_atomic_load16_u, 32: Op.i32_atomic_load, 64: Op.i64_atomic_load } as const;
const ATOMIC_CMPXCHGS = { 8: Op.i32_atomic8_cmpxchg_u, 16: Op.i32_atomic16_cmpxchg_u, 32: Op.i32_atomic_cmpxchg, 64: Op.i64_atomic_cmpxchg } as const;

export abstract class Gen {
  code!: Code;
  /** Widths of the destination and source operands; operand size for instructions with implicit operands. */
  w: W = 64;
  sw: W = 64;
  /** Address width of the instruction; 64-bit code or not. */
  aw: 16 | 32 | 64 = 64;
  long = true;
  /** The operand `dst` / `src` is in memory. */
  dstMem = false;
  srcMem = false;
  srcIsImm = false;
  private temps = new Map<Ty, { free: number[]; n: number }>();

  // What the engines supply -----------------------------------------------------------------------------------------
  /** Read the destination operand at width w (or another). */
  abstract dst(w?: W): Val;
  abstract src(w?: W): Val;
  /** Queue (a register) or perform (memory: may fault) the write of the destination. Registers: 32 bits clear the upper half; XMM keep the rest. */
  abstract setDst(v: Val, w?: W): void;
  abstract setSrc(v: Val): void;
  /** Offset part of the memory operand, as LEA has it, cut to the address width. */
  abstract offset(): Val;
  /** Linear address of the memory operand; `size` bytes will be accessed (segment limits). */
  abstract ea(size: number, write: boolean): Val;
  /** The same with bytes (i64) added to the offset, for bit strings. */
  abstract eaPlus(bytes: Val, size: number, write: boolean): Val;
  abstract imm(w: W): Val;
  /** The second immediate (ENTER, far pointers' selector), i64. */
  abstract imm2(): Val;
  /** The immediate byte of a row marked `known`. */
  abstract known(): number;
  /** A double shift's count: the immediate or CL (i32). */
  abstract count3(): Val;
  /** The number in an operand that names a segment, control or debug register (i64), and the selector of that segment (i32). */
  abstract num(): Val;
  abstract segSel(): Val;
  abstract reg(w: W, i: number): Val;
  abstract setReg(w: W, i: number, v: Val): void;
  /** A field of the CPU struct, read now. */
  abstract field(w: W, at: number): Val;
  abstract setField(w: W, at: number, v: Val): void;
  /** Linear address of offset `off` in segment s (number), for implicit operands; checked where segments are real. */
  abstract segAddr(s: number, off: Val, size: number, write: boolean): Val;
  /** The same through the instruction's data segment (DS or an override), for string instructions. */
  abstract dataAddr(off: Val, size: number, write: boolean): Val;
  abstract flags(kind: FlagKind, w: W, r: Val, a?: Val | null, b?: Val | null, x?: Val | null): void;
  /** Set flags only when c; r null: CF and OF only (rotates). */
  abstract flagsIf(c: Val, w: W, r: Val | null, cf: Val, of: Val): void;
  abstract setCF(c: Val): void;
  /** All six arithmetic flags from an EFLAGS image (i32). */
  abstract setArith(eflags: Val): void;
  /** The arithmetic flags as an EFLAGS image (i32). */
  abstract arith(): Val;
  /** An x86 condition as 0 or 1. */
  abstract cc(cond: number): Val;
  /** rip of this instruction, of the next one, of the direct branch's target. */
  abstract here(): Val;
  abstract next(): Val;
  abstract target(): Val;
  /** Control transfers end the instruction. */
  abstract jump(to: Val): void;
  abstract branch(c: Val): void;
  /** Leave the instruction undone when c: go on at the next. */
  abstract skipIf(c: Val): void;
  /** This instruction once more (a repeated string instruction). `cond`: only then, else the next; the flags change with the last time only (SDM Vol. 2 "REP"). */
  abstract again(cond?: Val): void;
  /** Leave with the fault recorded in CPU.fault. */
  abstract fault(): void;
  /** Call a system helper by name with this instruction's rip stored. Registers are in memory before and after. */
  abstract sys(name: string, a?: Val, b?: Val): Val;
  /** The same as the last thing: what comes next is in CPU.nextRip, and the run loop looks at everything anew. */
  abstract sysEnd(name: string, a?: Val, b?: Val): void;
  /** The same inside an arm: the other arm goes on. */
  abstract sysDone(name: string, a?: Val, b?: Val): void;
  /** End here; the run loop looks at everything anew (interrupt flag, mode) at the next instruction. */
  abstract end(): void;
  /** End after a segment register was loaded; after SS, interrupts wait for one instruction more. */
  abstract afterSeg(): void;
  /** A rare case: where `c` holds, `arm` is the whole instruction. It ends the instruction; an engine may leave it to the interpreter. */
  abstract rare(c: Val, arm: () => void): void;
  /** The engine has left the instruction to the interpreter, undone: what the caller would emit now is not reached. */
  abstract byHand(): boolean;
  /** Go to an address in the mode that the fields written before say. */
  abstract leap(to: Val): void;
  /** This instruction's MXCSR has exactly these bits of `mask` (i32, 0 or 1). */
  mxcsrIs(mask: number, value: number): Val { return this.eq(32, this.and(32, this.field(32, CPU.mxcsr.at), this.k(32, mask)), this.k(32, value)); }
  /** EXPONENT_LIMIT while MXCSR is as MXCSR_ORDINARY has it, else 0: what exponents may reach (i32). */
  exponentLimit(): Val { return this.and(32, this.sub(32, this.k(32, 0), this.mxcsrIs(MXCSR_ORDINARY.mask, MXCSR_ORDINARY.value)), this.k(32, EXPONENT_LIMIT)); }
  /** The flags of a comparison of two numbers, neither a NaN, where one of `fast` holds; else as an EFLAGS image from `no`, as for orSlow. */
  compared(fast: readonly Val[], less: Val, equal: Val, _lessOrEqual: Val, no: () => Val): void {
    this.setArith(this.orSlow(I32, fast, () => this.or(32, less, this.shl(32, equal, this.k(32, Math.log2(EFLAGS.ZF)))), no));
  }
  /** The XMM operand is known to be no NaN and no denormal in the lanes of that shape. */
  isNormal(_which: "dst" | "src", _shape: string): boolean { return false; }
  /** See to it that it is, by `holds` if need be; false: the engine has no better way than to look each time. */
  ensureNormal(_which: "dst" | "src", _shape: string, _holds: () => Val): boolean { return false; }
  /** The same from now on, of an operand as it was before the instruction, and of what the instruction leaves in its destination register. */
  noteLooked(_which: "dst" | "src", _shape: string): void {}
  noteNormal(_shape: string): void {}
  /** Try the bulk path of a repeated MOVS (1) or STOS (2) of n elements; on success the instruction starts over. */
  abstract tryBulk(kind: number, n: Val): void;
  /** Address (i32) of the operand as bytes in machine memory, for helpers: XMM/MMX register slots, or a copy of the memory operand. */
  abstract dstSlot(): Val;
  abstract srcSlot(): Val;
  /** Read-modify-write destination, atomically when the instruction is locked; ended by the setDst that follows. */
  abstract rmw(): Val;
  /** The same at a computed linear address (BTS with a bit offset). */
  abstract rmwAt(w: W, addr: Val): Val;
  abstract put(v: Val): void;
  protected abstract emitReg(v: Val): void;
  /** The CPU struct's address, parameter 1 of all generated code (i32). */
  cpuAddress(): Val { return local(1, I32); }
  /** Emit the base address of the CPU struct. */
  abstract cpu(): Code;

  // Values ------------------------------------------------------------------------------------------------------------
  k(w: W, x: number): Val { return node(X.konst, w === 64 ? I64 : I32, null, null, w === 64 ? x : w === 32 ? x | 0 : w === 16 ? x & 0xffff : x & 0xff); }
  kbig(x: bigint): Val {
    x = BigInt.asIntN(64, x);
    let i = bigIndex.get(x); if (i === undefined) { i = bigs.size; bigs.set(i, x); bigIndex.set(x, i); }
    return node(X.big, I64, null, null, i);
  }
  bin(op: number, ty: Ty, a: Val, b: Val): Val {
    if (a.op === X.konst && b.op === X.konst && Math.abs(a.k) < 65536 && Math.abs(b.k) < 65536) switch (op) {   // shift counts, above all
      case Op.i32_and: case Op.i64_and: return node(X.konst, ty, null, null, a.k & b.k);
      case Op.i32_sub: case Op.i64_sub: return node(X.konst, ty, null, null, a.k - b.k);
      case Op.i32_ne: case Op.i64_ne: return node(X.konst, I32, null, null, a.k === b.k ? 0 : 1);
    }
    return node(op, ty, a, b, 0);
  }
  un(op: number, ty: Ty, a: Val): Val { return node(op, ty, a, null, 0); }
  clean(w: W, v: Val): Val { return w === 8 ? this.bin(Op.i32_and, I32, v, this.k(32, 255)) : w === 16 ? this.bin(Op.i32_and, I32, v, this.k(32, 65535)) : v; }
  private ar(w: W, o32: number, o64: number, a: Val, b: Val): Val { return w === 64 ? this.bin(o64, I64, a, b) : this.bin(o32, I32, a, b); }
  add(w: W, a: Val, b: Val): Val { return b.op === X.konst && b.k === 0 ? a : this.clean(w, this.ar(w, Op.i32_add, Op.i64_add, a, b)); }
  sub(w: W, a: Val, b: Val): Val { return this.clean(w, this.ar(w, Op.i32_sub, Op.i64_sub, a, b)); }
  mul(w: W, a: Val, b: Val): Val { return this.clean(w, this.ar(w, Op.i32_mul, Op.i64_mul, a, b)); }
  and(w: W, a: Val, b: Val): Val { return this.ar(w, Op.i32_and, Op.i64_and, a, b); }
  or(w: W, a: Val, b: Val): Val { return this.ar(w, Op.i32_or, Op.i64_or, a, b); }
  xor(w: W, a: Val, b: Val): Val { return this.ar(w, Op.i32_xor, Op.i64_xor, a, b); }
  not(w: W, a: Val): Val { return this.clean(w, this.xor(w, a, this.k(w === 64 ? 64 : 32, -1))); }
  /** Shift counts have the width of the value's wasm type; for 8 and 16 bits they may exceed the width. */
  shl(w: W, a: Val, n: Val): Val { return this.clean(w, this.ar(w, Op.i32_shl, Op.i64_shl, a, n)); }
  shr(w: W, a: Val, n: Val): Val { return this.ar(w, Op.i32_shr_u, Op.i64_shr_u, a, n); }
  sar(w: W, a: Val, n: Val): Val { return this.clean(w, this.ar(w, Op.i32_shr_s, Op.i64_shr_s, this.sx(w, a), n)); }
  rotl(w: W, a: Val, n: Val): Val {
    if (w >= 32) return this.ar(w, Op.i32_rotl, Op.i64_rotl, a, n);
    const m = this.and(32, n, this.k(32, w - 1));
    return this.clean(w, this.or(32, this.shl(32, a, m), this.shr(32, a, this.sub(32, this.k(32, w), m))));
  }
  /** Sign-extend a width-w value within its own wasm type. */
  sx(w: W, v: Val): Val { return w === 8 ? this.un(Op.i32_extend8_s, I32, v) : w === 16 ? this.un(Op.i32_extend16_s, I32, v) : v; }
  /** From width `from` to `to`, zero- or sign-extended, or cut. */
  cast(from: W, to: W, v: Val, signed = false): Val {
    if (v.op === X.konst) { if (from >= to || signed) return this.k(to, signed ? (from === 8 ? v.k << 24 >> 24 : from === 16 ? v.k << 16 >> 16 : v.k) : v.k); return this.k(to, from === 32 ? v.k >>> 0 : v.k); }
    if (to > from) {
      const s = signed ? this.sx(from, v) : v;
      return to === 64 ? this.un(signed ? Op.i64_extend_i32_s : Op.i64_extend_i32_u, I64, s) : signed ? this.clean(to, s) : s;
    }
    if (from === 64 && to < 64) return this.clean(to, v.op === Op.i64_extend_i32_u || v.op === Op.i64_extend_i32_s ? v.a! : this.un(Op.i32_wrap_i64, I32, v));
    return from === to ? v : this.clean(to, v);
  }
  eqz(w: W, a: Val): Val { return this.un(w === 64 ? Op.i64_eqz : Op.i32_eqz, I32, a); }
  eq(w: W, a: Val, b: Val): Val { return this.bin(w === 64 ? Op.i64_eq : Op.i32_eq, I32, a, b); }
  ne(w: W, a: Val, b: Val): Val { return this.bin(w === 64 ? Op.i64_ne : Op.i32_ne, I32, a, b); }
  ltu(w: W, a: Val, b: Val): Val { return this.bin(w === 64 ? Op.i64_lt_u : Op.i32_lt_u, I32, a, b); }
  leu(w: W, a: Val, b: Val): Val { return this.bin(w === 64 ? Op.i64_le_u : Op.i32_le_u, I32, a, b); }
  lts(w: W, a: Val, b: Val): Val { return this.bin(w === 64 ? Op.i64_lt_s : Op.i32_lt_s, I32, this.sx(w, a), this.sx(w, b)); }
  les(w: W, a: Val, b: Val): Val { return this.bin(w === 64 ? Op.i64_le_s : Op.i32_le_s, I32, this.sx(w, a), this.sx(w, b)); }
  msb(w: W, a: Val): Val { return w === 64 ? this.lts(64, a, this.k(64, 0)) : this.shr(32, a, this.k(32, w - 1)); }
  not1(a: Val): Val { return this.un(Op.i32_eqz, I32, a); }
  /** c ? a : b, both evaluated. */
  select(ty: Ty, c: Val, a: Val, b: Val): Val { return node(Op.select, ty, a, b, 0, c); }
  sel(w: W, c: Val, a: Val, b: Val): Val { return this.select(tyOf(w), c, a, b); }
  help(f: Helper, a: Val | null = null, b: Val | null = null, c: Val | null = null): Val { return node(X.call, (HELPERS[f][1][0] ?? I32) as Ty, a, b, helperIndex(f), c); }
  /** The high half of a product of 64 bits by 64. */
  mulHigh(signed: boolean, a: Val, b: Val): Val { return this.help(signed ? "mulhs" : "mulhu", a, b); }
  /** The same in line: schoolbook on halves; with signs, less what that has too much for them. a and b are evaluated several times. */
  protected mulHighInLine(signed: boolean, a: Val, b: Val): Val {
    const lo = (v: Val) => this.and(64, v, this.k(64, 0xffffffff)), hi = (v: Val) => this.shr(64, v, this.k(64, 32)), mul = (x: Val, y: Val) => this.mul(64, x, y);
    const [a0, a1, b0, b1] = [this.let(lo(a)), this.let(hi(a)), this.let(lo(b)), this.let(hi(b))];
    const t = this.let(this.add(64, mul(a1, b0), hi(mul(a0, b0)))), u = this.add(64, mul(a0, b1), lo(t));
    const high = this.add(64, this.add(64, mul(a1, b1), hi(t)), hi(u)), ofSign = (x: Val, y: Val) => this.and(64, this.sar(64, x, this.k(64, 63)), y);
    return this.let(signed ? this.sub(64, this.sub(64, high, ofSign(a, b)), ofSign(b, a)) : high);
  }
  /** Does somebody read the flags that the present instruction sets? */
  get wantsFlags(): boolean { return true; }
  // SIMD and floating point: opcode, operands, and for lanes and shuffles an immediate
  v(op: number, a: Val, b: Val | null = null, c: Val | null = null): Val { return node(op, V128, a, b, 0, c); }
  /** A v128 operation with a scalar result (bitmask, any_true). */
  vi(op: number, a: Val, ty: Ty = I32): Val { return node(op, ty, a, null, 0); }
  private lane(op: number, ty: Ty, n: number, a: Val, b: Val | null): Val { return { op: X.lane, ty, a, b, c: node(op, ty, null, null, n), k: n }; }
  /** Extract lane n; the opcode tells the shape: wasm type from the opcode's name. */
  extract(op: number, n: number, a: Val): Val { return this.lane(op, op === Op.i64x2_extract_lane ? I64 : op === Op.f32x4_extract_lane ? F32 : op === Op.f64x2_extract_lane ? F64 : I32, n, a, null); }
  replace(op: number, n: number, a: Val, x: Val): Val { return this.lane(op, V128, n, a, x); }
  shuffle(lanes: readonly number[], a: Val, b: Val): Val { literals.push(Uint8Array.from(lanes)); return node(X.shuffle, V128, a, b, literals.length - 1); }
  vconst(lo: bigint, hi: bigint): Val {
    const b = new Uint8Array(16), d = new DataView(b.buffer); d.setBigUint64(0, BigInt.asUintN(64, lo), true); d.setBigUint64(8, BigInt.asUintN(64, hi), true);
    literals.push(b); return node(X.vconst, V128, null, null, literals.length - 1);
  }

  /** Bits that come from a float or a vector's lowest lane, as that float; null for what lives among the integers. A way through their registers costs as much as the arithmetic. */
  protected floatBehind(v: Val): Val | null {
    if (v.op === Op.i64_reinterpret_f64 || v.op === Op.i32_reinterpret_f32) return v.a!;
    if (v.op !== X.lane || v.k !== 0) return null;
    return v.c!.op === Op.i64x2_extract_lane ? this.extract(Op.f64x2_extract_lane, 0, v.a!) : v.c!.op === Op.i32x4_extract_lane ? this.extract(Op.f32x4_extract_lane, 0, v.a!) : null;
  }
  asFloat(w: 32 | 64, v: Val): Val { return this.floatBehind(v) ?? (w === 64 ? this.un(Op.f64_reinterpret_i64, F64, v) : this.un(Op.f32_reinterpret_i32, F32, v)); }
  asBits(w: 32 | 64, v: Val): Val { return w === 64 ? this.un(Op.i64_reinterpret_f64, I64, v) : this.un(Op.i32_reinterpret_f32, I32, v); }
  /** A scalar source in memory as a float, or in the lowest lane with zeros above it; null where it is not there, or the engine has no better way than `src`. */
  srcFloat(_w: 32 | 64): Val | null { return null; }
  srcLane(_w: 32 | 64): Val | null { return null; }

  // Emission --------------------------------------------------------------------------------------------------------------
  emit(v: Val): void {
    const c = this.code;
    switch (v.op) {
      case X.konst: if (v.ty === I64) c.i64(v.k); else c.i32(v.k); return;
      case X.big: c.i64big(bigs.get(v.k)!); return;
      case X.local: c.get(v.k); return;
      case X.reg: this.emitReg(v); return;
      case X.call: if (v.a) this.emit(v.a); if (v.b) this.emit(v.b); if (v.c) this.emit(v.c); c.call(v.k); return;
      case X.lane: this.emit(v.a!); if (v.b) this.emit(v.b); c.op(v.c!.op).u8(v.k); return;
      case X.shuffle: this.emit(v.a!); this.emit(v.b!); c.op(Op.i8x16_shuffle).bytes(literals[v.k]!); return;
      case X.vconst: c.op(Op.v128_const).bytes(literals[v.k]!); return;
    }
    if (v.a) this.emit(v.a);
    if (v.b) this.emit(v.b);
    if (v.c) this.emit(v.c);
    if (v.op === Op.select && v.ty === V128) c.u8(0x1c).u8(1).u8(V128); else c.op(v.op);
  }
  temp(ty: Ty): number {
    let p = this.temps.get(ty); if (!p) this.temps.set(ty, p = { free: [], n: 0 });
    return p.free[p.n++] ??= this.code.local(ty);
  }
  resetTemps(): void { this.temps.clear(); }
  /** How many temporaries of each type are in use, and back to that. */
  protected tempLevels(): Map<Ty, number> { return new Map([...this.temps].map(([ty, p]) => [ty, p.n])); }
  protected setTempLevels(l: ReadonlyMap<Ty, number>): void { for (const [ty, p] of this.temps) p.n = l.get(ty) ?? 0; }
  /** Evaluate once, now. */
  let(v: Val): Val {
    if (v.op === X.konst || v.op === X.big || v.op === X.local) return v;
    this.emit(v);
    const t = this.temp(v.ty); this.code.set(t);
    return local(t, v.ty);
  }
  /** Evaluate one of two arms; both give a value of the same type. */
  ifElse(ty: Ty, cond: Val, yes: () => Val, no: () => Val): Val {
    const out = this.temp(ty), c = this.code;
    this.emit(cond); c.if_(); this.emit(yes()); c.set(out).else_(); this.emit(no()); c.set(out).end();
    return local(out, ty);
  }
  /** `yes` where one of the conditions holds (the first is the usual one), else `no`, which may leave the instruction by `byHand`. */
  orSlow(ty: Ty, fast: readonly Val[], yes: () => Val, no: () => Val): Val { return this.ifElse(ty, fast.reduce((x, y) => this.or(32, x, y)), yes, no); }

  // Memory ------------------------------------------------------------------------------------------------------------------
  /**
   * TLB probe for `size` bytes at a: leaves a machine address on the stack and returns what the access is to add to it, or goes to `slow` (`unreached`) where the bytes do not
   * lie within the page that the entry's tag names (a miss or a page crossing). What `noteOffset` and `noteHost` emit sees the offset in the page (i64) and the machine address.
   */
  protected reach(a: Val, size: number, write: boolean, slow: number | null, noteOffset?: () => void, noteHost?: () => void): number {
    const c = this.code, e = this.temp(I32);
    this.emit(a); c.op(Op.i32_wrap_i64).i32(12 - 5).op(Op.i32_shr_u).i32(((1 << TLB_BITS) - 1) << 5).op(Op.i32_and);
    this.tlb(); c.op(Op.i32_add).set(e);
    this.emit(a); c.get(e).mem(Op.i64_load, write ? TLBE.write : TLBE.read).op(Op.i64_sub);
    noteOffset?.();
    c.i64(4096 - size).op(Op.i64_gt_u); this.unreached(slow);
    c.get(e).mem(Op.i32_load, TLBE.add); this.emit(a); c.op(Op.i32_wrap_i64).op(Op.i32_add);
    noteHost?.();
    return 0;
  }
  /** Go to `slow` where the condition on the stack holds, or (null) leave the instruction undone. */
  protected unreached(slow: number | null): void {
    const c = this.code.unlikely();
    if (slow !== null) c.brIf(slow); else { c.if_(); this.byHand(); c.end(); }
  }
  /** Does the engine leave an instruction undone that the TLB does not serve? Then there is no slow way in line. */
  protected get leavesAtMiss(): boolean { return false; }
  /** `fast` with the machine address on the stack and what to add to it, or `slow`. */
  private access(a: Val, size: number, write: boolean, fast: (at: number) => void, slow: () => void): void {
    const c = this.code;
    if (this.leavesAtMiss) { fast(this.reach(a, size, write, null)); return; }
    const done = c.block(), label = c.block();
    fast(this.reach(a, size, write, label)); c.br(done).end();
    slow(); this.missed(); c.end();
  }
  /** The halves of a read-modify-write: `fast` where there is a machine address, or `slow`. */
  private atHost(host: number, fast: () => void, slow: () => void): void {
    if (this.leavesAtMiss) { fast(); return; }
    this.code.get(host).op(Op.i32_eqz).unlikely().if_(); slow();
    this.code.else_(); fast(); this.code.end();
  }
  /** On the slow way, after the access: what `reach` has noted is not to be used. */
  protected missed(): void {}
  /** Emit the address of the TLB in use. */
  protected tlb(): void { this.cpu().mem(Op.i32_load, CPU.tlb.at); }
  /** Read w bits at a linear address; scalars as bits, as a float or in the lowest lane of a vector. */
  load(w: W, addr: Val, as: LoadAs = "bits"): Val {
    const c = this.code, a = this.let(addr), { op, ty } = w === 128 || w < 32 || as === "bits" ? { op: LOADS[w], ty: tyOf(w) } : SCALAR_LOADS[as][w as 32 | 64], out = this.temp(ty);
    this.access(a, w / 8, false, at => c.mem(op, at).set(out), () => {
      this.mayFault(); this.emit(a);
      if (w === 128) { c.call(helperIndex("slowLoad128")); this.faultIf(); this.cpu().mem(Op.v128_load, CPU.wide.at).set(out); } else this.slowLoad(w, out, as);
    });
    return local(out, ty);
  }
  /** With the address on the stack. */
  private slowLoad(w: W, out: number, as: LoadAs = "bits"): void {
    const c = this.code;
    c.i32(w / 8).call(helperIndex("slowLoad")); this.faultIf();
    if (w < 64) c.op(Op.i32_wrap_i64);
    if (as === "float") c.op(w === 64 ? Op.f64_reinterpret_i64 : Op.f32_reinterpret_i32);
    if (as === "lane") { c.op(w === 64 ? Op.i64x2_splat : Op.i32x4_splat); this.emit(this.vconst((1n << BigInt(w)) - 1n, 0n)); c.op(Op.v128_and); }
    c.set(out);
  }
  /** Write w bits at a linear address, now. */
  store(w: W, addr: Val, v: Val): void {
    const float = w === 32 || w === 64 ? this.floatBehind(v) : null;
    const c = this.code, a = this.let(addr), x = this.let(float ?? v);
    this.access(a, w / 8, true, at => { this.emit(x); c.mem(!float ? STORES[w] : w === 64 ? Op.f64_store : Op.f32_store, at); },
      () => this.slowStore(w, a, float ? this.asBits(w as 32 | 64, x) : x));
  }
  private slowStore(w: W, a: Val, x: Val): void {
    const c = this.code;
    this.mayFault();
    if (w === 128) { this.cpu(); this.emit(x); c.mem(Op.v128_store, CPU.wide.at); this.emit(a); c.call(helperIndex("slowStore128")); this.faultIf(); return; }
    this.emit(a); this.emit(x); if (w < 64) c.op(Op.i64_extend_i32_u);
    c.i32(w / 8).call(helperIndex("slowStore")); this.faultIf();
  }
  /** State of the read-modify-write that is open. */
  private open: { w: W; addr: Val; host: number; loop: number; old: Val } | null = null;
  /** Read for a later `storeBack`: checked for writing first. Its machine address is 0 for what goes the slow way. Locked: repeated until nobody else wrote
   *  between; what is not aligned goes the slow way (Mmu.slowCas). */
  protected loadForWrite(w: W, addr: Val, lock: boolean): Val {
    const c = this.code, a = this.let(addr), host = this.temp(I32), out = this.temp(tyOf(w)), isAtomic = lock && w !== 128;
    this.access(a, w / 8, true, at => { if (at) c.i32(at).op(Op.i32_add); c.set(host); },
      () => { this.mayFault(); this.emit(a); c.i32(w / 8).call(helperIndex("probeWrite")); this.faultIf(); this.cpu().mem(Op.i32_load, CPU.probed.at).set(host); });
    let loop = 0;
    if (isAtomic) {
      if (w > 8) {
        if (this.leavesAtMiss) { c.get(host).i32(w / 8 - 1).op(Op.i32_and); this.unreached(null); }
        else c.i32(0).get(host).i32(w / 8 - 1).op(Op.i32_and).op(Op.i32_eqz).op(Op.i32_sub).get(host).op(Op.i32_and).set(host);
      }
      loop = c.loop();
    }
    this.atHost(host, () => {
      c.get(host);
      if (isAtomic) c.mem(ATOMIC_LOADS[w], 0, Math.log2(w / 8)); else c.mem(LOADS[w], 0);
      c.set(out);
    }, () => { this.mayFault(); this.emit(a); this.slowLoad(w, out); });
    const old = local(out, tyOf(w));
    this.open = { w, addr: a, host, loop, old };
    return old;
  }
  /** Check that bytes may be written, before anything else happens. */
  writable(addr: Val, size: number): void { this.mayFault(); this.emit(addr); this.code.i32(size).call(helperIndex("probeWrite")); this.faultIf(); }
  /** Write what loadForWrite read. */
  protected storeBack(v: Val): void {
    const { w, addr, host, loop, old } = this.open!, c = this.code, x = this.let(v);
    this.open = null;
    if (!loop || w === 128) { this.atHost(host, () => { c.get(host); this.emit(x); c.mem(STORES[w], 0); }, () => this.slowStore(w, addr, x)); return; }
    this.atHost(host, () => {
      c.get(host); this.emit(old); this.emit(x); c.mem(ATOMIC_CMPXCHGS[w], 0, Math.log2(w / 8));
      this.emit(old); c.op(w === 64 ? Op.i64_ne : Op.i32_ne).unlikely().brIf(loop);
    }, () => {
      const r = this.temp(I32), wide = (y: Val): void => { this.emit(y); if (w < 64) c.op(Op.i64_extend_i32_u); };
      this.mayFault(); this.emit(addr); wide(old); wide(x); c.i32(w / 8).call(helperIndex("slowCas")).tee(r).i32(1).op(Op.i32_eq); this.faultIf();
      c.get(r).brIf(loop);
    });
    c.end();
  }
  /** A 16-byte SSE operand in memory must be aligned, unless the row's form says otherwise (u for x). */
  protected aligned(row: Row, at: Val, w: W): void { if (w === 128 && row.unit === "sse" && /[WM]x/.test(row.form)) this.trapIf(this.cast(64, 32, this.and(64, at, this.k(64, 15))), VECTOR.GP, 0); }
  /** A helper is about to be called that may record a fault; a faultIf or faultCheck follows. */
  mayFault(): void {}
  /** With the answer on the stack of a helper that says so. */
  faultIf(): void { this.code.unlikely().if_(); this.fault(); this.code.end(); }
  /** After a helper that may have recorded a fault, and does not say so. */
  faultCheck(): void { this.cpu().mem(Op.i32_load, CPU.fault.at); this.faultIf(); }
  /** Raise an exception when cond holds; errorCode -1: the vector has none. */
  trapIf(cond: Val, vector: number, errorCode = -1): void {
    const c = this.code; this.emit(cond); c.unlikely().if_(); this.trap(vector, errorCode); c.end();
  }
  trap(vector: number, errorCode = -1): void {
    this.cpu().i32(vector + 1).mem(Op.i32_store, CPU.fault.at); this.cpu().i32(errorCode).mem(Op.i32_store, CPU.errorCode.at); this.fault();
  }
}
