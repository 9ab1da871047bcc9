/** Bytes to a decoded instruction. SDM Vol. 2A ch. 2. */
import { MODE, RAX, RCX, RBP, RSP, DS, SS } from "./state.ts";
import type { W } from "./gen.ts";
import { type Row, type Slot, rows, slotsOf } from "./rows.ts";
import "./table.ts";
import "./table-sse.ts";
import "./table-x87.ts";

/** Operand kinds. HI: AH CH DH BH. NUM: the register number itself (segment, control, debug). */
export const KIND = { none: 0, reg: 1, hi: 2, mem: 3, imm: 4, xmm: 5, mmx: 6, num: 7 } as const;
/** Addressing, in the order of its cost: flat base+disp, flat with index, with a mask or FS/GS base (64-bit mode), with real segments (elsewhere). */
export const ADDR = { none: 0, base: 1, index: 2, based: 3, legacy: 4 } as const;
export type Insn = {
  row: Row; w: W; sw: W; aw: 16 | 32 | 64; long: boolean; lock: boolean;
  len: number;
  imm: number; bigImm: bigint | null; imm2: number;
  dk: number; dn: number; sk: number; sn: number;
  addr: number; base: number; index: number; scale: number; disp: number; bigDisp: bigint | null; ripRel: boolean;
  /** segment of the memory operand; for string instructions, of the source */
  seg: number;
  /** what analyze.ts has found out about it */
  facts: object | null;
  /** bytes before its numbers, of its displacement and of its immediate, where all else follows from those before and the numbers are only signed and widened (shapes.ts); shape 0: it is otherwise */
  shape: number; dispBytes: number; immBytes: number;
};
/** The bytes are no instruction of ours: #UD; too long: #GP; not all there: more are needed. */
export class Undecodable { readonly why: "ud" | "long" | "short"; constructor(why: "ud" | "long" | "short") { this.why = why; } }
const NO_INSN = new Undecodable("ud"), TOO_LONG = new Undecodable("long"), TOO_SHORT = new Undecodable("short");

type Pick = { row: Row; slots: Slot[] };
/** only: there is one row, and nothing else to look at before it is taken */
type Entry = { rows: Pick[]; modrm: boolean; only: Pick | null };
const byOp: (Entry | undefined)[] = [];
for (const row of rows) {
  const slots = slotsOf(row.form), e = byOp[row.op] ??= { rows: [], modrm: false, only: null };
  e.rows.push({ row, slots });
  if (row.ext >= 0 || row.mod || slots.some(s => "EGMRSCDVWUPQN".includes(s.what) && s.what !== "")) e.modrm = true;
}
/** A mandatory prefix is looked at before "any". */
for (const e of byOp) e?.rows.sort((a, b) => Number(b.row.pfx !== "") - Number(a.row.pfx !== "") || Number(b.row.mode !== 0) - Number(a.row.mode !== 0));
for (const [op, e] of byOp.entries()) if (e?.rows.length === 1 && e.rows.every(({ row: r }) => r.ext < 0 && r.rm < 0 && r.mod === "" && r.mode === 0 && r.pfx === "") && op !== 0x1c7) e.only = e.rows[0]!;
const nopRow = rows.find(r => r.op === 0x11f)!, pauseRow = rows.find(r => r.op === 0x403)!, lockedRow = rows.find(r => r.op === 0x404)!;
/** Rows for exceptions the decoder finds. */
export const TRAP_ROWS = { ud: rows.find(r => r.op === 0x400)!, gp: rows.find(r => r.op === 0x401)!, nm: rows.find(r => r.op === 0x402)! } as const;
export const jmpRow = rows.find(r => r.op === 0xe9)!;
const INT3_STRINGS = new Set([0xa4, 0xa5, 0xa6, 0xa7, 0xac, 0xad, 0x6e, 0x6f, 0xd7]);
export function trapInsn(row: Row, long: boolean): Insn {
  const i = blank();
  i.row = row; i.long = long;
  return i;
}
export const blank = (): Insn => ({
  row: nopRow, w: 32, sw: 32, aw: 64, long: true, lock: false, len: 0, imm: 0, bigImm: null, imm2: 0, dk: KIND.none, dn: 0, sk: KIND.none, sn: 0,
  addr: ADDR.none, base: -1, index: -1, scale: 0, disp: 0, bigDisp: null, ripRel: false, seg: DS, facts: null, shape: 0, dispBytes: 0, immBytes: 0,
});

/** What decode reads from: bytes, its place in them, their end and whether that is the longest an instruction may be. Not its own variables, so that no closure is made for each instruction. */
let bytes = new Uint8Array(0), at = 0, stop = 0, isLongest = false;
const next = (): number => { if (at >= stop) throw isLongest ? TOO_LONG : TOO_SHORT; return bytes[at++]!; };
const i8 = (): number => next() << 24 >> 24, i16 = (): number => { const x = next(); return (x | next() << 8) << 16 >> 16; }, i32 = (): number => { const x = next(), y = next(), z = next(); return x | y << 8 | z << 16 | next() << 24; };

/**
 * Decode the instruction at m[start..end) in the given CPU.mode.
 * @throws Undecodable
 */
export function decode(m: Uint8Array, start: number, end: number, mode: number): Insn {
  const size = mode & MODE.sizeMask, long = size === MODE.code64;
  bytes = m as Uint8Array<ArrayBuffer>; at = start; stop = Math.min(end, start + 15); isLongest = stop === start + 15;
  let opsize = false, addrsize = false, rex = 0, rep = 0, lock = false, seg = -1, b: number;
  for (;;) {
    b = next();
    if (b === 0x66) opsize = true; else if (b === 0x67) addrsize = true; else if (b === 0xf3 || b === 0xf2) rep = b; else if (b === 0xf0) lock = true;
    else if ((b & 0xe7) === 0x26) { if (!long) seg = b >> 3 & 3; } else if (b === 0x64) seg = 4; else if (b === 0x65) seg = 5;
    else if (long && (b & 0xf0) === 0x40) { rex = b; continue; } else break;
    rex = 0;                                     // a REX before another prefix is ignored
  }
  let op = b;
  if (op === 0x0f) { b = next(); op = b === 0x38 ? 0x200 | next() : b === 0x3a ? 0x300 | next() : 0x100 | b; }
  const e = byOp[op];
  if (!e) throw NO_INSN;
  let modrm = 0;
  if (e.modrm) modrm = next();
  // MOV to and from control and debug registers take every ModRM for a register's (SDM Vol. 2B)
  const mod = (op & ~3) === 0x120 ? 3 : modrm >> 6, ext = modrm >> 3 & 7;
  const pick = e.only ?? e.rows.find(({ row: r }) => (r.ext < 0 || r.ext === ext) && (r.rm < 0 || r.rm === (modrm & 7)) && (r.mod === "" || (mod === 3) === (r.mod === "r")) && (r.mode === 0 || (r.mode === 64) === long)
    && (r.pfx === "" || (r.pfx === "F3" ? rep === 0xf3 : r.pfx === "F2" ? rep === 0xf2 : rep === 0 && (r.pfx === "66") === opsize))
    && (op !== 0x1c7 || r.name !== "cmpxchg16b" || (rex & 8) !== 0) && (op !== 0x1c7 || r.name !== "cmpxchg8b" || (rex & 8) === 0 || !long));
  if (!pick) throw NO_INSN;
  let { row, slots } = pick;
  const aw: 16 | 32 | 64 = long ? (addrsize ? 32 : 64) : (size === MODE.code32) !== addrsize ? 32 : 16;
  let vw: W = long ? (rex & 8 ? 64 : opsize && row.pfx !== "66" ? 16 : 32) : (size === MODE.code32) !== (opsize && row.pfx !== "66") ? 32 : 16;
  if (long && (row.size64 === "always" || (row.size64 === "default" && vw === 32))) vw = 64;
  if (row.size64 === "always" && !long && (op & 0x1fc) === 0x120) vw = 32;
  if (op === 0x90 && !(rex & 1)) { row = rep === 0xf3 ? pauseRow : nopRow; slots = []; }
  if (lock && row.name === "cmpxchg16b") row = lockedRow;
  const i = blank();
  i.row = row; i.w = i.sw = vw; i.aw = aw; i.long = long; i.lock = lock;
  let rm = modrm & 7, numbers = at, isPlain = !row.known;
  const reg = ext | (rex & 4) << 1;
  if (e.modrm && mod !== 3) {
    i.addr = long ? ADDR.base : ADDR.legacy;
    if (aw === 16) {
      const pairs = [[3, 6], [3, 7], [5, 6], [5, 7], [6, -1], [7, -1], [5, -1], [3, -1]] as const;
      [i.base, i.index] = pairs[rm]!;
      if (rm === 6 && mod === 0) { i.base = -1; i.disp = i16(); } else if (mod === 1) i.disp = i8(); else if (mod === 2) i.disp = i16();
    } else {
      let base = rm;
      if (rm === 4) {
        const sib = next(), idx = sib >> 3 & 7 | (rex & 2) << 2;
        numbers = at;
        base = sib & 7;
        if (idx !== 4) { i.index = idx; i.scale = sib >> 6; }
        if (base === 5 && mod === 0) { base = -1; i.disp = i32(); }
      } else if (rm === 5 && mod === 0) { base = -1; i.ripRel = long; i.disp = i32(); }
      i.base = base < 0 ? -1 : base | (rex & 1) << 3;
      if (mod === 1) i.disp = i8(); else if (mod === 2) i.disp = i32();
    }
    i.seg = seg >= 0 ? seg : i.base === RSP || i.base === RBP ? SS : DS;
    if (long) i.addr = seg >= 0 || aw !== 64 ? ADDR.based : i.index >= 0 ? ADDR.index : ADDR.base;
    if (long && seg < 0 && i.addr === ADDR.based) i.seg = -1;
  }
  i.dispBytes = at - numbers;
  rm |= (rex & 1) << 3;
  for (let n = 0; n < slots.length; n++) {
    const s = slots[n]!, y: W = long && rex & 8 ? 64 : 32;
    const w: W = s.w === "b" || s.w === "s" ? 8 : s.w === "w" ? 16 : s.w === "d" ? 32 : s.w === "q" ? 64 : s.w === "x" || s.w === "u" ? 128 : s.w === "y" ? (row.size64 === "always" ? vw : y) : s.w === "z" ? (vw === 16 ? 16 : 32) : vw;
    let kind: number = KIND.none, num = 0;
    switch (s.what) {
      case "E": case "M": case "R": kind = mod === 3 || s.what === "R" ? KIND.reg : KIND.mem; num = rm; break;
      case "W": case "U": kind = mod === 3 ? KIND.xmm : KIND.mem; num = rm; break;
      case "Q": case "N": kind = mod === 3 ? KIND.mmx : KIND.mem; num = rm & 7; break;
      case "G": kind = KIND.reg; num = reg; break;
      case "V": kind = KIND.xmm; num = reg; break;
      case "P": kind = KIND.mmx; num = reg & 7; break;
      case "Z": kind = KIND.reg; num = op & 7 | (rex & 1) << 3; break;
      case "A": kind = KIND.reg; num = RAX; break;
      case "L": kind = KIND.reg; num = RCX; break;
      case "S": kind = KIND.num; num = reg & 7; if (num > 5 || (num === 1 && n === 0)) throw NO_INSN; break;
      case "s": kind = KIND.num; num = Number(s.w[0]); break;
      case "C": kind = KIND.num; num = reg; if (![0, 2, 3, 4, 8].includes(num)) throw NO_INSN; break;
      case "D": kind = KIND.num; num = reg; if (num > 7) throw NO_INSN; break;
      case "1": kind = KIND.imm; i.imm = 1; break;
      case "O": {
        kind = KIND.mem; isPlain = false; i.addr = long ? (seg >= 0 || aw !== 64 ? ADDR.based : ADDR.base) : ADDR.legacy; i.seg = seg >= 0 ? seg : long ? -1 : DS;
        if (aw === 16) i.disp = i16() & 0xffff; else { i.disp = i32(); if (aw === 64) { const hi = i32(); i.bigDisp = BigInt(hi) << 32n | BigInt(i.disp >>> 0); } }
        break;
      }
      case "F": isPlain = false; i.imm = vw === 16 ? i16() & 0xffff : i32(); i.imm2 = i16() & 0xffff; continue;
      case "I": {
        kind = KIND.imm;
        let x: number;
        if (s.w === "b" || s.w === "s") x = i8();
        else if (s.w === "w") x = i16();
        else if (s.w === "v" && vw === 64) { const lo = i32(), hi = i32(); x = lo; isPlain = false; i.bigImm = BigInt(hi) << 32n | BigInt(lo >>> 0); }
        else x = vw === 16 ? i16() : i32();
        if (n > 0 && slots[0]!.what === "I") { i.imm2 = x; isPlain = false; } else i.imm = x;
        break;
      }
      case "J": i.imm = s.w === "b" ? i8() : vw === 16 ? i16() : i32(); break;
      case "": i.w = i.sw = s.w === "b" ? 8 : s.w === "" ? 32 : w; continue;
    }
    if (kind === KIND.reg && w === 8 && !rex && num >= 4 && num < 8 && s.what !== "L") { kind = KIND.hi; num -= 4; }
    if (n === 0) {
      if (s.what === "I" || s.what === "J") continue;
      if (s.what === "s") { i.dk = kind; i.dn = num; continue; }
      i.w = i.sw = w; i.dk = kind; i.dn = num;
    } else if (n === 1) {
      if (s.what === "I" && slots[0]!.what === "I") continue;
      i.sw = s.what === "I" ? i.w : w; i.sk = kind; i.sn = num;
    }
  }
  if (lock && !(row.lock && i.dk === KIND.mem)) throw NO_INSN;
  if (row.name === "xchg" && i.dk === KIND.mem) i.lock = true;
  if (row.name === "pop" && i.dk === KIND.mem && i.base === RSP) { i.disp += i.w / 8; isPlain = false; }
  if (INT3_STRINGS.has(op) || op === 0x6c || op === 0x6d || op === 0x1f7 || (op >= 0xaa && op <= 0xaf)) { i.addr = long ? (seg >= 0 || aw !== 64 ? ADDR.based : ADDR.base) : ADDR.legacy; i.seg = seg >= 0 ? seg : long ? -1 : DS; }
  // the ModRM byte is part of an x87 form; REX.W takes the place of a reserved bit in PCMPESTRx's immediate
  if (row.known) { if (row.unit === "x87") i.imm = modrm; else if (row.op === 0x360 || row.op === 0x361) i.imm = i.imm & 0x7f | (rex & 8) << 4; }
  i.len = at - start; i.immBytes = at - numbers - i.dispBytes;
  if (isPlain) i.shape = numbers - start;
  const trap = unitTrap(row, mode);
  if (!trap) return i;
  const t = trapInsn(trap, long);
  t.len = i.len;
  return t;
}
/** x87, MMX and SSE instructions answer #UD or #NM by CR0 and CR4 (SDM Vol. 3A 2.5, table 13-1). */
function unitTrap({ unit }: Row, mode: number): Row | null {
  if (unit === "") return null;
  if (unit === "x87") return mode & (MODE.em | MODE.ts) ? TRAP_ROWS.nm : null;
  if (mode & MODE.em || (unit === "sse" && mode & MODE.noFxsr)) return TRAP_ROWS.ud;
  return mode & MODE.ts ? TRAP_ROWS.nm : null;
}
