/** The x87's opcodes as a table: what the decoder needs to know of each. SDM Vol. 2 appendix A.5 (escape opcodes D8 to DF). */

/** `image`: FLDENV, FRSTOR, FNSTENV, FNSAVE: see x87-env.ts; `bytes` is the 16-bit form's, `bytes32` the 32-bit form's. */
export interface X87Form {
  readonly kind: "reg" | "load" | "store" | "loadImage" | "storeImage";
  /** Of the memory operand; 0 for registers. */
  readonly bytes: number;
  readonly bytes32?: number;
  readonly name: string;
  /** Looks for a pending unmasked exception first. */
  readonly wait: boolean;
  /** FCMOVcc reads eflags (pass them to x87Reg); FCOMI and kin return CF, PF, ZF (OF, SF, AF become 0). */
  readonly eflags?: "read" | "write";
  /** x87Reg returns what goes to AX. */
  readonly ax?: true;
  /** No data operand: leaves the instruction and data pointers alone. */
  readonly control?: true;
}

const ARITH = ["FADD", "FMUL", "FCOM", "FCOMP", "FSUB", "FSUBR", "FDIV", "FDIVR"] as const;
/** FSUB and FSUBR, FDIV and FDIVR change places where ST(i) is the destination. */
const ARITH_TO = ["FADD", "FMUL", "FCOM2", "FCOMP3", "FSUBR", "FSUB", "FDIVR", "FDIV"] as const;
const ARITH_POP = ["FADDP", "FMULP", "FCOMP5", "FCOMPP", "FSUBRP", "FSUBP", "FDIVRP", "FDIVP"] as const;

/** Memory forms by (byte & 7) * 8 + reg: name, kind and bytes. */
const M = new Map<number, string>([
  [0x08, "FLD load 4"], [0x0a, "FST store 4"], [0x0b, "FSTP store 4"], [0x0c, "FLDENV loadImage 14 28 c"], [0x0d, "FLDCW load 2 0 c"], [0x0e, "FNSTENV storeImage 14 28 cn"], [0x0f, "FNSTCW store 2 0 cn"],
  [0x18, "FILD load 4"], [0x19, "FISTTP store 4"], [0x1a, "FIST store 4"], [0x1b, "FISTP store 4"], [0x1d, "FLD load 10"], [0x1f, "FSTP store 10"],
  [0x28, "FLD load 8"], [0x29, "FISTTP store 8"], [0x2a, "FST store 8"], [0x2b, "FSTP store 8"], [0x2c, "FRSTOR loadImage 94 108 c"], [0x2e, "FNSAVE storeImage 94 108 cn"], [0x2f, "FNSTSW store 2 0 cn"],
  [0x38, "FILD load 2"], [0x39, "FISTTP store 2"], [0x3a, "FIST store 2"], [0x3b, "FISTP store 2"], [0x3c, "FBLD load 10"], [0x3d, "FILD load 8"], [0x3e, "FBSTP store 10"], [0x3f, "FISTP store 8"]
]);
for (let i = 0; i < 8; i++) {
  M.set(i, `${ARITH[i]} load 4`);
  M.set(0x10 + i, `${ARITH[i]!.replace("F", "FI")} load 4`);
  M.set(0x20 + i, `${ARITH[i]} load 8`);
  M.set(0x30 + i, `${ARITH[i]!.replace("F", "FI")} load 2`);
}

/** Register forms of eight by (byte & 7) * 8 + reg; w: writes eflags, r: reads them. */
const R = new Map<number, string>([
  [0x08, "FLD"], [0x09, "FXCH"], [0x0b, "FSTP1"],
  [0x10, "FCMOVB r"], [0x11, "FCMOVE r"], [0x12, "FCMOVBE r"], [0x13, "FCMOVU r"],
  [0x18, "FCMOVNB r"], [0x19, "FCMOVNE r"], [0x1a, "FCMOVNBE r"], [0x1b, "FCMOVNU r"], [0x1d, "FUCOMI w"], [0x1e, "FCOMI w"],
  [0x28, "FFREE"], [0x29, "FXCH4"], [0x2a, "FST"], [0x2b, "FSTP"], [0x2c, "FUCOM"], [0x2d, "FUCOMP"],
  [0x38, "FFREEP"], [0x39, "FXCH7"], [0x3a, "FSTP8"], [0x3b, "FSTP9"], [0x3d, "FUCOMIP w"], [0x3e, "FCOMIP w"]
]);
for (let i = 0; i < 8; i++) {
  R.set(i, ARITH[i]!);
  R.set(0x20 + i, ARITH_TO[i]!);
  if (i !== 3) R.set(0x30 + i, ARITH_POP[i]!);
}
/** Single register forms by op; c: control, n: does not wait. */
const ONE = new Map<number, string>([
  [0x1d0, "FNOP"], [0x1e0, "FCHS"], [0x1e1, "FABS"], [0x1e4, "FTST"], [0x1e5, "FXAM"],
  [0x1e8, "FLD1"], [0x1e9, "FLDL2T"], [0x1ea, "FLDL2E"], [0x1eb, "FLDPI"], [0x1ec, "FLDLG2"], [0x1ed, "FLDLN2"], [0x1ee, "FLDZ"],
  [0x1f0, "F2XM1"], [0x1f1, "FYL2X"], [0x1f2, "FPTAN"], [0x1f3, "FPATAN"], [0x1f4, "FXTRACT"], [0x1f5, "FPREM1"], [0x1f6, "FDECSTP"], [0x1f7, "FINCSTP"],
  [0x1f8, "FPREM"], [0x1f9, "FYL2XP1"], [0x1fa, "FSQRT"], [0x1fb, "FSINCOS"], [0x1fc, "FRNDINT"], [0x1fd, "FSCALE"], [0x1fe, "FSIN"], [0x1ff, "FCOS"],
  [0x2e9, "FUCOMPP"], [0x3e0, "FNENI cn"], [0x3e1, "FNDISI cn"], [0x3e2, "FNCLEX cn"], [0x3e3, "FNINIT cn"], [0x3e4, "FNSETPM cn"], [0x6d9, "FCOMPP"], [0x7e0, "FNSTSW cna"],
]);

function describe(op: number): X87Form | null {
  const byte = op >> 8, modrm = op & 0xff, row = byte * 8 + (modrm >> 3 & 7);
  if (modrm < 0xc0) {
    const [name, kind, bytes, bytes32, marks = ""] = M.get(row)?.split(" ") ?? [];
    if (!name) return null;
    const form: X87Form = { kind: kind as X87Form["kind"], bytes: Number(bytes), name, wait: !marks.includes("n") };
    return { ...form, ...(Number(bytes32) ? { bytes32: Number(bytes32) } : {}), ...(marks.includes("c") ? { control: true as const } : {}) };
  }
  const [name, marks = ""] = (ONE.get(op) ?? R.get(row))?.split(" ") ?? [];
  if (!name) return null;
  return {
    kind: "reg", bytes: 0, name, wait: !marks.includes("n"),
    ...(marks === "r" ? { eflags: "read" as const } : marks === "w" ? { eflags: "write" as const } : {}),
    ...(marks.includes("a") ? { ax: true as const } : {}), ...(marks.includes("c") ? { control: true as const } : {}),
  };
}
const FORMS: readonly (X87Form | null)[] = Array.from({ length: 0x800 }, (_, op) => describe(op));
/** The form of an opcode `(byte0 & 7) << 8 | modrm`; null: #UD. */
export const x87Form = (op: number): X87Form | null => FORMS[op & 0x7ff] ?? null;
