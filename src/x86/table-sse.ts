/** SSE to SSE4.2 and MMX opcodes. SDM Vol. 2D, appendix A; memory operands have the width and alignment of Vol. 2, 2.6 (exception types). */
import { Op } from "../wasm/opcodes.ts";
import { row, type RowOptions } from "./rows.ts";
import * as m from "./semantics-mmx.ts";
import * as s from "./semantics-sse.ts";
import type { V1, V2 } from "./semantics-sse.ts";
import * as f from "./semantics-sse-float.ts";
import { PD, PS, SD, SHAPES, SS } from "./semantics-sse-float.ts";
import * as i from "./semantics-sse-int.ts";
import { SHIFTS } from "./semantics-sse-int.ts";
import { pcmpstr } from "./semantics-sse-string.ts";
import type { Semantics } from "./semantics.ts";

type Pfx = "np" | "66" | "F3" | "F2";
const sse = (op: number, pfx: Pfx, form: string, name: string, sem: Semantics, o: RowOptions = {}): void => row(op, form, name, sem, { pfx, unit: "sse", known: form.endsWith("Ib"), ...o });
const mmx = (op: number, form: string, name: string, sem: Semantics, o: RowOptions = {}): void => row(op, form, name, sem, { pfx: "np", unit: "mmx", known: form.endsWith("Ib"), ...o });
const REG: RowOptions = { mod: "r" }, MEM: RowOptions = { mod: "m" };

// Moves -------------------------------------------------------------------------------------------------------------------
for (const [pfx, name] of [["np", "movups"], ["66", "movupd"]] as const) { sse(0x110, pfx, "Vx,Wu", name, s.movx); sse(0x111, pfx, "Wu,Vx", name, s.movx); }
for (const [pfx, name] of [["np", "movaps"], ["66", "movapd"]] as const) { sse(0x128, pfx, "Vx,Wx", name, s.movx); sse(0x129, pfx, "Wx,Vx", name, s.movx); }
sse(0x110, "F3", "Vd,Wd", "movss", s.movScalar); sse(0x111, "F3", "Wd,Vd", "movss", s.movLow); sse(0x110, "F2", "Vq,Wq", "movsd", s.movScalar); sse(0x111, "F2", "Wq,Vq", "movsd", s.movLow);
sse(0x16f, "66", "Vx,Wx", "movdqa", s.movx); sse(0x17f, "66", "Wx,Vx", "movdqa", s.movx); sse(0x16f, "F3", "Vx,Wu", "movdqu", s.movx); sse(0x17f, "F3", "Wu,Vx", "movdqu", s.movx);
sse(0x1f0, "F2", "Vx,Mu", "lddqu", s.movx, MEM);
for (const [pfx, suffix] of [["np", "ps"], ["66", "pd"]] as const) {
  sse(0x112, pfx, "Vq,Mq", `movl${suffix}`, s.movLow, MEM); sse(0x113, pfx, "Mq,Vq", `movl${suffix}`, s.movLow, MEM);
  sse(0x116, pfx, "Vx,Mq", `movh${suffix}`, s.movHigh, MEM); sse(0x117, pfx, "Mq,Vx", `movh${suffix}`, s.movHighStore, MEM);
  sse(0x12b, pfx, "Mx,Vx", `movnt${suffix}`, s.movx, MEM);
}
sse(0x112, "np", "Vq,Ux", "movhlps", s.movhlps, REG); sse(0x116, "np", "Vx,Uq", "movlhps", s.movHigh, REG);
sse(0x112, "F2", "Vx,Wq", "movddup", s.movddup); sse(0x112, "F3", "Vx,Wx", "movsldup", s.movsldup); sse(0x116, "F3", "Vx,Wx", "movshdup", s.movshdup);
sse(0x16e, "66", "Vy,Ey", "movd", s.movWide); sse(0x17e, "66", "Ey,Vy", "movd", s.movLow);
sse(0x17e, "F3", "Vq,Wq", "movq", s.movWide); sse(0x1d6, "66", "Wq,Vq", "movq", s.movWide);
sse(0x1e7, "66", "Mx,Vx", "movntdq", s.movx, MEM); sse(0x22a, "66", "Vx,Mx", "movntdqa", s.movx, MEM);
sse(0x150, "np", "Gd,Ux", "movmskps", s.mask(Op.i32x4_bitmask), REG); sse(0x150, "66", "Gd,Ux", "movmskpd", s.mask(Op.i64x2_bitmask), REG); sse(0x1d7, "66", "Gd,Ux", "pmovmskb", s.mask(Op.i8x16_bitmask), REG);
sse(0x1f7, "66", "Vx,Ux", "maskmovdqu", s.maskmovdqu, REG);
sse(0x1d6, "F3", "Vx,Nq", "movq2dq", m.movq2dq, REG); sse(0x1d6, "F2", "Pq,Uq", "movdq2q", m.load, REG);

// Shuffles, merges, elements --------------------------------------------------------------------------------------------------
for (const [pfx, suffix, n] of [["np", "ps", 4], ["66", "pd", 8]] as const) {
  sse(0x114, pfx, "Vx,Wx", `unpckl${suffix}`, s.packed(s.unpackLow(n))); sse(0x115, pfx, "Vx,Wx", `unpckh${suffix}`, s.packed(s.unpackHigh(n)));
  sse(0x154, pfx, "Vx,Wx", `and${suffix}`, s.packed(s.vand)); sse(0x155, pfx, "Vx,Wx", `andn${suffix}`, s.packed(s.vandn));
  sse(0x156, pfx, "Vx,Wx", `or${suffix}`, s.packed(s.vor)); sse(0x157, pfx, "Vx,Wx", `xor${suffix}`, s.packed(s.vxor));
  sse(n === 4 ? 0x30c : 0x30d, "66", "Vx,Wx,Ib", `blend${suffix}`, s.blend(n)); sse(n === 4 ? 0x214 : 0x215, "66", "Vx,Wx", `blendv${suffix}`, s.blendv(i.signs[n]));
}
sse(0x1c6, "np", "Vx,Wx,Ib", "shufps", s.shufps); sse(0x1c6, "66", "Vx,Wx,Ib", "shufpd", s.shufpd);
sse(0x170, "66", "Vx,Wx,Ib", "pshufd", s.pshufd); sse(0x170, "F3", "Vx,Wx,Ib", "pshufhw", s.pshufhw); sse(0x170, "F2", "Vx,Wx,Ib", "pshuflw", s.pshuflw);
sse(0x30e, "66", "Vx,Wx,Ib", "pblendw", s.blend(2)); sse(0x210, "66", "Vx,Wx", "pblendvb", s.blendv(i.signs[1]));
sse(0x30f, "66", "Vx,Wx,Ib", "palignr", s.palignr); sse(0x321, "66", "Vx,Wd,Ib", "insertps", s.insertps, MEM); sse(0x321, "66", "Vx,Ux,Ib", "insertps", s.insertps, REG);
sse(0x1c4, "66", "Vx,Ed,Ib", "pinsrw", s.pinsr(16)); sse(0x1c5, "66", "Gd,Ux,Ib", "pextrw", s.pextr(16), REG);
sse(0x314, "66", "Ed,Vx,Ib", "pextrb", s.pextr(8)); sse(0x315, "66", "Ed,Vx,Ib", "pextrw", s.pextr(16)); sse(0x316, "66", "Ey,Vx,Ib", "pextrd", s.pextr(0)); sse(0x317, "66", "Ed,Vx,Ib", "extractps", s.pextr(32));
sse(0x320, "66", "Vx,Ed,Ib", "pinsrb", s.pinsr(8)); sse(0x322, "66", "Vx,Ey,Ib", "pinsrd", s.pinsr(0));
sse(0x173, "66", "Ux,Ib", "psrldq", s.psrldq, { ext: 3, ...REG }); sse(0x173, "66", "Ux,Ib", "pslldq", s.pslldq, { ext: 7, ...REG });

// Integer lanes: MMX and SSE2 under one opcode -----------------------------------------------------------------------------------
/** How the MMX instruction follows from the vector function. */
const each = m.each, joined = m.joined, upper = m.upper;
const two: [op: number, name: string, f: V2, mmx: (f: V2) => Semantics, form?: string][] = [
  [0x160, "punpcklbw", s.unpackLow(1), each, "Pq,Qd"], [0x161, "punpcklwd", s.unpackLow(2), each, "Pq,Qd"], [0x162, "punpckldq", s.unpackLow(4), each, "Pq,Qd"],
  [0x163, "packsswb", s.op2(Op.i8x16_narrow_i16x8_s), joined], [0x164, "pcmpgtb", s.op2(Op.i8x16_gt_s), each], [0x165, "pcmpgtw", s.op2(Op.i16x8_gt_s), each], [0x166, "pcmpgtd", s.op2(Op.i32x4_gt_s), each],
  [0x167, "packuswb", s.op2(Op.i8x16_narrow_i16x8_u), joined],
  // punpckh of MMX takes the low halves of the splat operands: unpackLow's upper half
  [0x168, "punpckhbw", s.unpackHigh(1), () => upper(s.unpackLow(1))], [0x169, "punpckhwd", s.unpackHigh(2), () => upper(s.unpackLow(2))], [0x16a, "punpckhdq", s.unpackHigh(4), () => upper(s.unpackLow(4))],
  [0x16b, "packssdw", s.op2(Op.i16x8_narrow_i32x4_s), joined],
  [0x174, "pcmpeqb", s.op2(Op.i8x16_eq), each], [0x175, "pcmpeqw", s.op2(Op.i16x8_eq), each], [0x176, "pcmpeqd", s.op2(Op.i32x4_eq), each],
  [0x1d4, "paddq", i.padd[8], each], [0x1d5, "pmullw", s.op2(Op.i16x8_mul), each], [0x1d8, "psubusb", s.op2(Op.i8x16_sub_sat_u), each], [0x1d9, "psubusw", s.op2(Op.i16x8_sub_sat_u), each],
  [0x1da, "pminub", s.op2(Op.i8x16_min_u), each], [0x1db, "pand", s.vand, each], [0x1dc, "paddusb", s.op2(Op.i8x16_add_sat_u), each], [0x1dd, "paddusw", s.op2(Op.i16x8_add_sat_u), each],
  [0x1de, "pmaxub", s.op2(Op.i8x16_max_u), each], [0x1df, "pandn", s.vandn, each], [0x1e0, "pavgb", s.op2(Op.i8x16_avgr_u), each], [0x1e3, "pavgw", s.op2(Op.i16x8_avgr_u), each],
  [0x1e4, "pmulhuw", i.pmulhuw, each], [0x1e5, "pmulhw", i.pmulhw, each], [0x1e8, "psubsb", s.op2(Op.i8x16_sub_sat_s), each], [0x1e9, "psubsw", s.op2(Op.i16x8_sub_sat_s), each],
  [0x1ea, "pminsw", s.op2(Op.i16x8_min_s), each], [0x1eb, "por", s.vor, each], [0x1ec, "paddsb", s.op2(Op.i8x16_add_sat_s), each], [0x1ed, "paddsw", s.op2(Op.i16x8_add_sat_s), each],
  [0x1ee, "pmaxsw", s.op2(Op.i16x8_max_s), each], [0x1ef, "pxor", s.vxor, each], [0x1f4, "pmuludq", i.pmuludq, each], [0x1f5, "pmaddwd", i.pmaddwd, each], [0x1f6, "psadbw", i.psadbw, each],
  [0x1f8, "psubb", i.psub[1], each], [0x1f9, "psubw", i.psub[2], each], [0x1fa, "psubd", i.psub[4], each], [0x1fb, "psubq", i.psub[8], each],
  [0x1fc, "paddb", i.padd[1], each], [0x1fd, "paddw", i.padd[2], each], [0x1fe, "paddd", i.padd[4], each],
  [0x200, "pshufb", i.pshufb(0x8f), () => each(i.pshufb(0x87))], [0x201, "phaddw", i.phaddw, joined], [0x202, "phaddd", i.phaddd, joined], [0x203, "phaddsw", i.phaddsw, joined],
  [0x204, "pmaddubsw", i.pmaddubsw, each], [0x205, "phsubw", i.phsubw, joined], [0x206, "phsubd", i.phsubd, joined], [0x207, "phsubsw", i.phsubsw, joined],
  [0x208, "psignb", i.psign(Op.i8x16_shr_s, 7, Op.i8x16_sub, Op.i8x16_eq), each], [0x209, "psignw", i.psign(Op.i16x8_shr_s, 15, Op.i16x8_sub, Op.i16x8_eq), each],
  [0x20a, "psignd", i.psign(Op.i32x4_shr_s, 31, Op.i32x4_sub, Op.i32x4_eq), each], [0x20b, "pmulhrsw", i.pmulhrsw, each],
];
for (const [op, name, fn, half, form = "Pq,Qq"] of two) { sse(op, "66", "Vx,Wx", name, s.packed(fn)); mmx(op, form, name, half(fn)); }
const onlyXmm: [number, string, V2][] = [
  [0x16c, "punpcklqdq", s.unpackLow(8)], [0x16d, "punpckhqdq", s.unpackHigh(8)], [0x228, "pmuldq", i.pmuldq], [0x229, "pcmpeqq", s.op2(Op.i64x2_eq)], [0x22b, "packusdw", s.op2(Op.i16x8_narrow_i32x4_u)],
  [0x237, "pcmpgtq", s.op2(Op.i64x2_gt_s)], [0x238, "pminsb", s.op2(Op.i8x16_min_s)], [0x239, "pminsd", s.op2(Op.i32x4_min_s)], [0x23a, "pminuw", s.op2(Op.i16x8_min_u)], [0x23b, "pminud", s.op2(Op.i32x4_min_u)],
  [0x23c, "pmaxsb", s.op2(Op.i8x16_max_s)], [0x23d, "pmaxsd", s.op2(Op.i32x4_max_s)], [0x23e, "pmaxuw", s.op2(Op.i16x8_max_u)], [0x23f, "pmaxud", s.op2(Op.i32x4_max_u)], [0x240, "pmulld", s.op2(Op.i32x4_mul)],
];
for (const [op, name, fn] of onlyXmm) sse(op, "66", "Vx,Wx", name, s.packed(fn));
const abs: [number, string, V1][] = [[0x21c, "pabsb", i.pabs[1]], [0x21d, "pabsw", i.pabs[2]], [0x21e, "pabsd", i.pabs[4]]];
for (const [op, name, fn] of abs) { sse(op, "66", "Vx,Wx", name, s.packed1(fn)); mmx(op, "Pq,Qq", name, m.one(fn)); }
const shifts: [number, keyof typeof SHIFTS, immOp: number, ext: number][] = [
  [0x1d1, "psrlw", 0x171, 2], [0x1d2, "psrld", 0x172, 2], [0x1d3, "psrlq", 0x173, 2], [0x1e1, "psraw", 0x171, 4], [0x1e2, "psrad", 0x172, 4], [0x1f1, "psllw", 0x171, 6], [0x1f2, "pslld", 0x172, 6], [0x1f3, "psllq", 0x173, 6],
];
for (const [op, name, immOp, ext] of shifts) {
  sse(op, "66", "Vx,Wx", name, i.shift(SHIFTS[name])); mmx(op, "Pq,Qq", name, m.shift(SHIFTS[name]));
  sse(immOp, "66", "Ux,Ib", name, i.shiftImm(SHIFTS[name]), { ext, ...REG }); mmx(immOp, "Nq,Ib", name, m.shiftImm(SHIFTS[name]), { ext, ...REG });
}
sse(0x217, "66", "Vx,Wx", "ptest", i.ptest); sse(0x241, "66", "Vx,Wx", "phminposuw", s.packed1(i.phminposuw)); sse(0x342, "66", "Vx,Wx,Ib", "mpsadbw", s.packedImm(i.mpsadbw));
for (const [base, sign] of [[0x220, "s"], [0x230, "u"]] as const) {
  const b = sign === "s" ? Op.i16x8_extend_low_i8x16_s : Op.i16x8_extend_low_i8x16_u, w = sign === "s" ? Op.i32x4_extend_low_i16x8_s : Op.i32x4_extend_low_i16x8_u, d = sign === "s" ? Op.i64x2_extend_low_i32x4_s : Op.i64x2_extend_low_i32x4_u;
  const name = sign === "s" ? "pmovsx" : "pmovzx";
  sse(base, "66", "Vx,Wq", `${name}bw`, i.extend(b)); sse(base + 1, "66", "Vx,Wd", `${name}bd`, i.extend(b, w)); sse(base + 2, "66", "Vx,Ww", `${name}bq`, i.extend(b, w, d));
  sse(base + 3, "66", "Vx,Wq", `${name}wd`, i.extend(w)); sse(base + 4, "66", "Vx,Wd", `${name}wq`, i.extend(w, d)); sse(base + 5, "66", "Vx,Wq", `${name}dq`, i.extend(d));
}
for (const [op, name, explicit, index] of [[0x360, "pcmpestrm", true, false], [0x361, "pcmpestri", true, true], [0x362, "pcmpistrm", false, false], [0x363, "pcmpistri", false, true]] as const)
  sse(op, "66", "Vx,Wu,Ib", name, pcmpstr(explicit, index));

// MMX alone ------------------------------------------------------------------------------------------------------------------
mmx(0x16e, "Pq,Ey", "movd", m.load); mmx(0x17e, "Ey,Py", "movd", m.store); mmx(0x16f, "Pq,Qq", "movq", m.load); mmx(0x17f, "Qq,Pq", "movq", m.loadOrStore);
mmx(0x1e7, "Mq,Pq", "movntq", m.store, MEM); mmx(0x170, "Pq,Qq,Ib", "pshufw", m.pshufw); mmx(0x30f, "Pq,Qq,Ib", "palignr", m.palignr);
mmx(0x1c4, "Pq,Ed,Ib", "pinsrw", m.pinsrw); mmx(0x1c5, "Gd,Nq,Ib", "pextrw", m.pextrw, REG); mmx(0x1d7, "Gd,Nq", "pmovmskb", m.pmovmskb, REG); mmx(0x1f7, "Pq,Nq", "maskmovq", m.maskmovq, REG);
mmx(0x177, "b", "emms", m.emms);

// Floating point ---------------------------------------------------------------------------------------------------------------
const PFX = { PS: "np", PD: "66", SS: "F3", SD: "F2" } as const, FORM = { PS: "Vx,Wx", PD: "Vx,Wx", SS: "Vd,Wd", SD: "Vq,Wq" } as const;
for (const shape of SHAPES) {
  const { suffix } = shape, low = suffix.toLowerCase();
  const add = (op: number, name: string, sem: Semantics, imm = "") => sse(op, PFX[suffix], FORM[suffix] + imm, name + low, sem);
  add(0x151, "sqrt", f.sqrt(shape)); add(0x158, "add", f.arith(shape, "add")); add(0x159, "mul", f.arith(shape, "mul")); add(0x15c, "sub", f.arith(shape, "sub")); add(0x15e, "div", f.arith(shape, "div"));
  add(0x15d, "min", f.minMax(shape, "min")); add(0x15f, "max", f.minMax(shape, "max")); add(0x1c2, "cmp", f.compare(shape), ",Ib");
  sse({ PS: 0x308, PD: 0x309, SS: 0x30a, SD: 0x30b }[suffix], "66", `${FORM[suffix]},Ib`, `round${low}`, f.round(shape));
}
for (const [op, name] of [[0x152, "RSQRT"], [0x153, "RCP"]] as const) {
  sse(op, "np", "Vx,Wx", `${name.toLowerCase()}ps`, f.exact(`${name}PS`, 128)); sse(op, "F3", "Vd,Wd", `${name.toLowerCase()}ss`, f.exact(`${name}SS`, 32));
}
for (const [shape, pfx] of [[PS, "F2"], [PD, "66"]] as const) {
  const low = shape.suffix.toLowerCase();
  sse(0x17c, pfx, "Vx,Wx", `hadd${low}`, f.horizontal(shape, "add")); sse(0x17d, pfx, "Vx,Wx", `hsub${low}`, f.horizontal(shape, "sub")); sse(0x1d0, pfx, "Vx,Wx", `addsub${low}`, f.addsub(shape));
}
sse(0x340, "66", "Vx,Wx,Ib", "dpps", f.exact("DPPS", 128)); sse(0x341, "66", "Vx,Wx,Ib", "dppd", f.exact("DPPD", 128));
for (const [op, name] of [[0x12e, "ucomis"], [0x12f, "comis"]] as const) {
  sse(op, "np", "Vd,Wd", `${name}s`, f.comis(SS, `${name.toUpperCase()}S`)); sse(op, "66", "Vq,Wq", `${name}d`, f.comis(SD, `${name.toUpperCase()}D`));
}
sse(0x12a, "np", "Vx,Qq", "cvtpi2ps", f.cvtpi2ps); sse(0x12a, "66", "Vx,Qq", "cvtpi2pd", f.cvtpi2pd); sse(0x12a, "F3", "Vd,Ey", "cvtsi2ss", f.fromInt(SS)); sse(0x12a, "F2", "Vq,Ey", "cvtsi2sd", f.fromInt(SD));
for (const [op, truncate, t] of [[0x12c, true, "t"], [0x12d, false, ""]] as const) {
  sse(op, "np", "Pq,Wq", `cvt${t}ps2pi`, f.toPi(PS, truncate)); sse(op, "66", "Pq,Wx", `cvt${t}pd2pi`, f.toPi(PD, truncate));
  sse(op, "F3", "Gy,Wd", `cvt${t}ss2si`, f.toInt(SS, truncate)); sse(op, "F2", "Gy,Wq", `cvt${t}sd2si`, f.toInt(SD, truncate));
}
sse(0x15a, "np", "Vx,Wq", "cvtps2pd", f.cvtps2pd); sse(0x15a, "66", "Vx,Wx", "cvtpd2ps", f.cvtpd2ps); sse(0x15a, "F3", "Vq,Wd", "cvtss2sd", f.cvtss2sd); sse(0x15a, "F2", "Vd,Wq", "cvtsd2ss", f.cvtsd2ss);
sse(0x15b, "np", "Vx,Wx", "cvtdq2ps", f.cvtdq2ps); sse(0x15b, "66", "Vx,Wx", "cvtps2dq", f.packedToInt(PS, false)); sse(0x15b, "F3", "Vx,Wx", "cvttps2dq", f.packedToInt(PS, true));
sse(0x1e6, "F3", "Vx,Wq", "cvtdq2pd", f.cvtdq2pd); sse(0x1e6, "F2", "Vx,Wx", "cvtpd2dq", f.packedToInt(PD, false)); sse(0x1e6, "66", "Vx,Wx", "cvttpd2dq", f.packedToInt(PD, true));
