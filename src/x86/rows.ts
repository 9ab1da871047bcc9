/** What a row of the instruction table is. Form letters are the manual's (SDM Vol. 2D, A.2): E r/m, G reg, R r/m register only, M memory, I immediate,
 *  J branch, Z register in the opcode, A accumulator, O memory offset, S segment, C control, D debug register, V XMM reg, W XMM/memory, U XMM r/m register only,
 *  P MMX reg, Q MMX/memory, N MMX r/m register only, F far pointer. Widths: b w d q; v 16/32/64 and z 16/32 by operand size, y 32/64 by REX.W,
 *  x 128 aligned, u 128 unaligned, s 8 sign-extended (immediates). "1" and "L" (CL): shift counts. */
import type { Semantics } from "./semantics.ts";

export type Flow = "next" | "jcc" | "jmp" | "call" | "ret" | "ind" | "callind" | "rep" | "sys";
/** Names of the rows that push or pop. */
export const STACK_INSNS: readonly string[] = ["push", "pop", "call", "ret", "leave", "enter", "pushf", "popf"];
export type Row = {
  /** place in the table */ index: number;
  /** opcode; 0x100: 0F map, 0x200: 0F38, 0x300: 0F3A */
  op: number; form: string; name: string; sem: Semantics; flow: Flow;
  /** ModRM.reg, or -1 */ ext: number;
  /** ModRM.rm, or -1 (with mod 3) */ rm: number;
  /** mandatory prefix */ pfx: "" | "np" | "66" | "F3" | "F2";
  mod: "" | "r" | "m";
  /** 64: only in 64-bit mode; 32: only elsewhere */ mode: 0 | 32 | 64;
  /** in 64-bit mode the operand size is 64 by default / always */ size64: "" | "default" | "always";
  lock: boolean;
  /** the immediate byte is part of the form: known when the stub is made */ known: boolean;
  /** the unit that must be switched on */ unit: "" | "x87" | "mmx" | "sse";
};
export type RowOptions = Partial<Omit<Row, "index" | "op" | "form" | "name" | "sem">>;
export const rows: Row[] = [];
export const row = (op: number, form: string, name: string, sem: Semantics, o: RowOptions = {}): void => {
  rows.push({ index: rows.length, op, form, name, sem, flow: "next", ext: -1, rm: -1, pfx: "", mod: "", mode: 0, size64: "", lock: false, known: false, unit: "", ...o });
};

/** A parsed operand form. */
export type Slot = { what: string; w: string };
export const slotsOf = (form: string): Slot[] => form.split(",").map(f => (f === "1" || f === "L" ? { what: f, w: "b" } : f.length === 1 && "bvqwdyz".includes(f) ? { what: "", w: f } : { what: f[0] ?? "", w: f.slice(1) }));
