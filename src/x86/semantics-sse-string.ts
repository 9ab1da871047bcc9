/** PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM: the comparison is in TypeScript (sse-string.ts), index and mask are made here. SDM Vol. 2B 4.1. */
import { Op } from "../wasm/opcodes.ts";
import { I32 } from "../wasm/writer.ts";
import { type Gen, type Val, helperIndex } from "./gen.ts";
import type { Semantics } from "./semantics.ts";
import { widen } from "./semantics-sse.ts";
import { STRING } from "./sse-string.ts";
import { CPU, RAX, RCX, RDX } from "./state.ts";

/** Operation numbers for HELPERS.sse beyond those of sse-float.ts. Its imm: imm8, then the two lengths. Result: mask at CPU.wide, flags after it. */
export const STRING_OPS = { implicit: 0x1000, explicit: 0x1001 } as const;
/** Bit 7 of the immediate is reserved; the decoder puts REX.W there. */
const REX_W = 0x80;

/** The absolute value of a length register, at most n. */
function length(g: Gen, wide: boolean, reg: number, n: number): Val {
  const w = wide ? 64 : 32, v = g.reg(w, reg), m = g.let(g.sel(w, g.lts(w, v, g.k(w, 0)), g.sub(w, g.k(w, 0), v), v));
  return g.cast(w, 32, g.sel(w, g.ltu(w, m, g.k(w, n)), m, g.k(w, n)));
}
export const pcmpstr = (explicit: boolean, index: boolean): Semantics => g => {
  const imm = g.known(), n = imm & STRING.words ? 8 : 16, wide = (imm & REX_W) !== 0, c = g.code, b = g.src(128);
  let arg = g.k(32, imm & 0x7f);
  if (explicit) arg = g.or(32, arg, g.or(32, g.shl(32, length(g, wide, RAX, n), g.k(32, 8)), g.shl(32, length(g, wide, RDX, n), g.k(32, 16))));
  g.cpu(); g.emit(b); c.mem(Op.v128_store, CPU.wide.at);
  c.i32(explicit ? STRING_OPS.explicit : STRING_OPS.implicit); g.emit(g.dstSlot()); g.cpu().i32(CPU.wide.at).op(Op.i32_add); g.emit(arg); c.call(helperIndex("sse"));
  const m = g.field(32, CPU.wide.at);
  g.setArith(g.field(32, CPU.wide.at + 4));
  if (index) {
    const at = imm & STRING.most ? g.sub(32, g.k(32, 31), g.un(Op.i32_clz, I32, m)) : g.un(Op.i32_ctz, I32, m);
    g.setReg(32, RCX, g.sel(32, m, at, g.k(32, n)));
  } else g.setField(128, CPU.xmm.at, imm & STRING.most ? expand(g, m, n) : widen(g, 32, m));
};
/** Each bit of m over its element. */
function expand(g: Gen, m: Val, n: number): Val {
  if (n === 8) { const bit = g.vconst(0x0008000400020001n, 0x0080004000200010n); return g.v(Op.i16x8_eq, g.v(Op.v128_and, g.v(Op.i16x8_splat, m), bit), bit); }
  const bit = g.vconst(0x8040201008040201n, 0x8040201008040201n), v = g.let(g.v(Op.i16x8_splat, m));
  const spread = g.shuffle([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], v, v);
  return g.v(Op.i8x16_eq, g.v(Op.v128_and, spread, bit), bit);
}
