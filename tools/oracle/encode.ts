/**
 * One random encoding of a form into a case's code, with registers set so that its memory operand lies where the test wants it:
 * in the window, across its page boundary, on the unmapped pages around it, or nowhere.
 */
import { CASE, CODE, PATCH_MAX, WINDOW, WINDOW_BYTES } from "./format.ts";
import type { Form } from "./forms.ts";
import type { Random } from "./values.ts";

const RSP = 4;

export class CaseWriter {
  readonly r: Random;
  readonly dv: DataView;
  /** Byte offset of the case in `dv`; of its window template. */
  at = 0;
  readonly windowAt: number;
  /** Bytes of code written, and the address of the first. */
  len = 0; origin = 0;
  /** Registers whose value something depends on, a bit each. */
  pinned = 0;
  /** Where the last memory operand points (as a linear address), or -1; the ModRM register fields of the last instruction. */
  target = -1; reg = 0; rm = 0; isMem = false; imm0 = 0;
  constructor(r: Random, dv: DataView, windowAt: number) { this.r = r; this.dv = dv; this.windowAt = windowAt; }

  /** 64, or 32 for compatibility mode: eight registers, no REX, no rip-relative addresses. */
  bits: 32 | 64 = 64;
  get #registers(): number { return this.bits === 64 ? 16 : 8; }

  begin(at: number, offset: number): void {
    this.at = at; this.len = 0; this.origin = CODE + offset; this.pinned = 0; this.target = -1;
    CASE.codeOffset.set(this.dv, at, offset);
    CASE.patchLen.set(this.dv, at, 0);
  }
  byte(b: number): void { this.dv.setUint8(this.at + CASE.code.at + this.len++, b); }
  end(): void { CASE.codeLen.set(this.dv, this.at, this.len); }
  gprLo(i: number): number { return this.dv.getUint32(this.at + CASE.gpr.at + 8 * i, true); }
  gprHi(i: number): number { return this.dv.getUint32(this.at + CASE.gpr.at + 8 * i + 4, true); }
  /** Set a register to a safe integer, sign-extended. */
  setGpr(i: number, v: number): void {
    this.dv.setUint32(this.at + CASE.gpr.at + 8 * i, v >>> 0, true);
    this.dv.setInt32(this.at + CASE.gpr.at + 8 * i + 4, Math.floor(v / 0x100000000), true);
  }
  pin(i: number, v: number): void { this.setGpr(i, v); this.pinned |= 1 << i; }
  /** A register's value as a signed number, NaN when it is no safe integer. */
  gprNumber(i: number): number {
    const v = this.dv.getInt32(this.at + CASE.gpr.at + 8 * i + 4, true) * 0x100000000 + this.gprLo(i);
    return Number.isSafeInteger(v) ? v : Number.NaN;
  }
  /** Lay bytes over the window for this case. Returns the place to write them, or -1 outside the window. */
  patch(address: number, size: number): number {
    if (address < WINDOW || address + size > WINDOW + WINDOW_BYTES || size > PATCH_MAX) return -1;
    CASE.patchOffset.set(this.dv, this.at, address - WINDOW);
    CASE.patchLen.set(this.dv, this.at, size);
    return this.at + CASE.patch.at;
  }
  /** A byte of the window as the case will see it, or -1. */
  peek(address: number): number {
    const o = address - WINDOW;
    if (o < 0 || o >= WINDOW_BYTES) return -1;
    const p = o - CASE.patchOffset.get(this.dv, this.at);
    return p >= 0 && p < CASE.patchLen.get(this.dv, this.at) ? this.dv.getUint8(this.at + CASE.patch.at + p) : this.dv.getUint8(this.windowAt + o);
  }

  /** An address for an operand of `size` bytes. `tame`: inside the window, so that no fault comes of it. */
  place(size: number, aligned: boolean, tame = false): number {
    const r = this.r, kind = r.below(tame ? 88 : 100), last = WINDOW_BYTES - Math.max(size, 1);
    if (size === 512) return WINDOW + (kind < 80 ? r.pick([0x400, 0x600]) : 16 * r.below(480));
    let o = kind < 70 ? r.below(last + 1) : kind < 88 ? 4096 - r.below(Math.max(size, 2)) : kind < 94 ? WINDOW_BYTES - r.below(Math.max(size, 2)) : kind < 98 ? -r.below(Math.max(size, 2)) - 1 : r.below(0x8000) - 0x4000;
    if (aligned && !r.one(12)) o &= ~15;
    else if (size > 1 && r.one(2)) o &= ~(Math.min(size, 8) - 1);
    return WINDOW + o;
  }

  /** ModRM, SIB and displacement of a memory operand at `want`. Returns what the REX prefix needs, and the bytes. */
  #address(want: number, a32: boolean, aligned: boolean, bytes: number[]): { rexX: number; rexB: number; rip: boolean } {
    const r = this.r, kind = r.below(16);
    if (kind === 0 || kind === 1) {
      bytes.push(kind === 0 ? 5 : 4);
      if (kind === 1) bytes.push(0x25 | (r.below(4) << 6));
      pushInt32(bytes, want);
      return { rexX: 0, rexB: this.bits === 64 && r.one(4) ? 1 : 0, rip: kind === 0 && this.bits === 64 };
    }
    const withIndex = kind === 2 || kind >= 10, withBase = kind !== 2;
    let base = r.below(this.#registers), index = r.below(this.#registers);
    if (this.pinned && r.one(2)) for (let i = 0; i < 16; i++) if (this.pinned & (1 << i)) base = i;
    if (index === RSP) index = 1;
    // the sum of two pointers into the window would point at the code
    if (this.pinned & (1 << base)) while (index === RSP || this.pinned & (1 << index)) index = r.below(this.#registers);
    const scale = r.below(4), factor = withIndex ? 1 << scale : 0;
    let mod = withBase ? r.below(3) : 0, disp = mod === 1 ? (r.u32() << 24) >> 24 : mod === 2 || !withBase ? (r.one(2) ? r.u32() | 0 : r.below(0x4000) - 0x2000) : 0;
    if (withBase && mod === 0 && (base & 7) === 5) { mod = 1; disp = 0; }
    const isPinned = (i: number): boolean => (this.pinned & (1 << i)) !== 0;
    if (withIndex && withBase && base === index && !isPinned(base)) {
      if (mod === 0) mod = 1;
      const v = Math.floor(want / (1 + factor));
      disp = want - v * (1 + factor);
      this.#setAddressPart(base, v, a32);
    } else if (withBase && isPinned(base)) {
      // what it points at is given: stay near it
      if (withIndex && index !== base && !isPinned(index)) this.#setAddressPart(index, 0, a32);
      const v = this.gprNumber(base) * (1 + (withIndex && index === base ? factor : 0)) + (withIndex && index !== base && isPinned(index) ? this.gprNumber(index) * factor : 0);
      if (mod === 0 && (base & 7) !== 5) want = v; else { if (mod === 1) disp = (r.below(256) - 128) & (aligned ? ~15 : -1); else disp = Number.isNaN(v) || Math.abs(want - v) > 0x7fffffff ? 0 : want - v; want = v + disp; }
    } else {
      let sum = disp;
      if (withIndex) {
        if (!isPinned(index)) this.#setAddressPart(index, withBase ? (r.below(0x200000) - 0x100000) * (r.one(2) ? 1 : 0x10001) : r.below(0x100000) - 0x80000, a32);
        sum += (a32 ? this.gprLo(index) : this.gprNumber(index)) * factor;
      }
      if (withBase) this.#setAddressPart(base, want - sum, a32);
      else { disp = want - (sum - disp); if (!(Math.abs(disp) <= 0x7fffffff)) { disp |= 0; } }
    }
    const sib = withIndex || !withBase || (base & 7) === 4 || r.one(16);
    const rm = withBase ? base & 7 : 5;
    bytes.push((mod << 6) | (sib ? 4 : rm));
    if (sib) bytes.push((scale << 6) | ((withIndex ? index & 7 : 4) << 3) | rm);
    if (mod === 1) bytes.push(disp & 0xff);
    else if (mod === 2 || !withBase) pushInt32(bytes, disp);
    return { rexX: withIndex ? index >> 3 : 0, rexB: withBase ? base >> 3 : this.bits === 64 ? r.below(2) : 0, rip: false };
  }
  /** A part of an address: with 32-bit addressing the upper half does not count, so it is left as it is. */
  #setAddressPart(i: number, v: number, a32: boolean): void {
    if (a32) this.dv.setUint32(this.at + CASE.gpr.at + 8 * i, v >>> 0, true);
    else this.setGpr(i, v);
    this.pinned |= 1 << i;
  }

  /** Encode one instruction. `want`: where a memory operand shall point; `free`: registers that a reg field may name. */
  encode(f: Form, opts: { want?: number; tame?: boolean; noMem?: boolean; rel?: number; avoid?: number; imm?: number } = {}): void {
    const r = this.r, start = this.len, tail: number[] = [];
    let rexX = 0, rexB = 0, rexR = 0, ripAt = -1, gs = false;
    const is64 = this.bits === 64, a32 = f.a32 || is64 && ((!f.strict && f.rel === 0 && r.one(24)) || (f.modrm !== null && f.allowMem && r.one(32)));
    this.isMem = f.modrm !== null && f.allowMem && (!f.allowReg || (!opts.noMem && r.below(5) < 2));
    const register = (): number => { let i = r.below(this.#registers); while (opts.avoid !== undefined && opts.avoid & (1 << i)) i = r.below(this.#registers); return i; };
    this.reg = f.modrm === -1 ? register() : 0;
    this.rm = 0;
    const opcode = [...f.opcode];
    if (f.plus === "reg") { this.rm = register(); opcode[opcode.length - 1]! |= this.rm & 7; rexB = this.rm >> 3; }
    if (f.plus === "sti") opcode[opcode.length - 1]! |= r.below(8);
    if (f.modrm !== null) {
      if (f.modrm === -1) rexR = this.reg >> 3; else if (is64 && r.one(16)) rexR = 1;
      const bytes: number[] = [], reg = (f.modrm === -1 ? this.reg & 7 : f.modrm) << 3;
      if (this.isMem) {
        gs = is64 && this.pinned === 0 && r.one(30);
        this.target = opts.want ?? this.place(f.memBytes, f.aligned, opts.tame);
        const where = this.#address(this.target - (gs ? WINDOW : 0), a32, f.aligned, bytes);
        rexX = where.rexX; rexB = where.rexB;
        if (where.rip) ripAt = 1;
      } else {
        this.rm = register();
        bytes.push(0xc0 | (this.rm & 7));
        rexB = this.rm >> 3;
        if (is64 && r.one(16)) rexX = 1;
      }
      bytes[0]! |= reg;
      tail.push(...bytes);
    }
    if (f.moffs) { this.isMem = true; this.target = opts.want ?? this.place(f.memBytes, false); pushInt32(tail, this.target); if (is64 && !a32) pushInt32(tail, Math.floor(this.target / 0x100000000)); }
    let first = true;
    for (const size of f.imms) {
      const value = first && opts.imm !== undefined ? opts.imm : r.one(2) ? r.u32() : r.pick([0, 1, -1, 2, 0x7f, 0x80, 0x7fff, 0x8000, 0x7fffffff, 0x80000000, 3, 4, 8, 16, 31, 32, 33, 63, 64]);
      if (first) this.imm0 = size === 1 ? value & 0xff : value;
      first = false;
      for (let i = 0; i < Math.min(size, 4); i++) tail.push((value >>> (8 * i)) & 0xff);
      if (size === 8) pushInt32(tail, r.one(2) ? r.u32() : 0);
    }
    for (let i = 0; i < f.rel; i++) tail.push(((opts.rel ?? 0) >> (8 * i)) & 0xff);

    if (f.wait) this.byte(0x9b);
    const prefixes: number[] = [];
    if (a32) prefixes.push(0x67);
    if (gs) prefixes.push(0x65);
    if (f.p66) prefixes.push(0x66);
    if (f.lockable && this.isMem ? r.one(3) : f.lockable && r.one(200)) prefixes.push(0xf0);
    if (!f.strict && f.rel === 0 && r.one(40)) prefixes.push(r.pick(is64 ? [0x2e, 0x3e, 0x26, 0x36] : [0x3e, 0x26, 0x36]));
    if (prefixes.length > 1 && r.one(2)) prefixes.reverse();
    if (f.mandatory) prefixes.splice(r.below(prefixes.length + 1), 0, f.mandatory);
    for (const p of prefixes) this.byte(p);
    const rex = (f.rexW ? 8 : 0) | (rexR << 2) | (rexX << 1) | rexB;
    const hasRex = is64 && (rex !== 0 || (f.modrm !== null || f.plus !== "") && f.plus !== "sti" && r.one(f.byteRegs ? 3 : 10));
    if (hasRex) this.byte(0x40 | rex);
    for (const b of opcode) this.byte(b);
    const tailAt = this.len;
    for (const b of tail) this.byte(b);
    if (ripAt >= 0) this.dv.setInt32(this.at + CASE.code.at + tailAt + ripAt, (this.target - (gs ? WINDOW : 0) - (this.origin + this.len)) | 0, true);
    // without REX, byte registers 4 to 7 are AH CH DH BH
    this.hasRex = hasRex;
    this.start = start;
  }
  hasRex = false;
  start = 0;
}

function pushInt32(bytes: number[], v: number): void { for (let i = 0; i < 4; i++) bytes.push((v >>> (8 * i)) & 0xff); }
