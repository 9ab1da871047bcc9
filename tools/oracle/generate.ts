/** Seeded random cases: single instructions of every form, and short sequences. What the manual leaves open is noted as leeway. */
import { Batch, CASE, FX, type Leeway, WINDOW, WINDOW_BYTES } from "./format.ts";
import { CaseWriter } from "./encode.ts";
import { type Form, type FormClass, loadForms } from "./forms.ts";
import { putF32, putF64, putF80, putInt64, putVector, Random } from "./values.ts";

const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7;
const ARITH = 0x8d5, DF = 0x400, IF = 0x200, FX_POOL = 128;
const TRANSCENDENTAL = /^(Fsin|Fcos|Fsincos|Fptan|Fpatan|F2xm1|Fyl2x|Fyl2xp1)$/;
const STACK = /^(Push[af]?[dq]?|Pop[af]?[dq]?|Call|Ret|Enter|Leave)$/;
const STRING = /^(Movs|Cmps|Stos|Lods|Scas)[bwdq]$/;
/** Not in sequences: implicit operands that must be steered, results that are undefined, ends of the block. */
const ALONE = /^(Push|Pop|Call|Ret|Enter|Leave|J|Loop|Int3|Ud2|Div|Idiv|Xlat|Bound|Into|Arpl|Mask|Bs[fr]|Bswap|Sh[lr]d|Fx|Popf|Cmpxchg|Bt|Fld(env|cw)|Frstor|F?n?s(ave|tenv)|Ldmxcsr|Pcmp.str|Reserved)/;
const isString = (f: Form): boolean => STRING.test(f.mnemonic) && f.modrm === null;

export type GeneratorClass = FormClass | "all" | "transcendental" | "compat";
export interface GeneratorOptions { readonly seed: number; readonly cls?: GeneratorClass; readonly only?: RegExp; readonly sequences?: boolean }

export class Generator {
  readonly r: Random;
  readonly forms: readonly Form[];
  #inSequence: readonly Form[];
  #branches: readonly Form[];
  #withSequences: boolean;
  #bits: 32 | 64;
  constructor(opts: GeneratorOptions) {
    this.r = new Random(opts.seed);
    const cls = opts.cls ?? "all", all = loadForms(cls === "compat" ? 32 : 64);
    this.#bits = cls === "compat" ? 32 : 64;
    this.forms = all.filter((f) => (cls === "transcendental") === TRANSCENDENTAL.test(f.mnemonic) && (cls === "all" || cls === "compat" || cls === "transcendental" || f.cls === cls) && (!opts.only || opts.only.test(f.name)));
    if (!this.forms.length) throw new Error("No instruction form matches");
    this.#inSequence = this.forms.filter((f) => f.cls !== "x87" && !ALONE.test(f.mnemonic) && !isString(f));
    this.#branches = all.filter((f) => /^J(?!mp|e?cxz|rcxz).*_rel8_(64|32)$/.test(f.name));
    this.#withSequences = (opts.sequences ?? true) && !opts.only && this.#inSequence.length > 20;
  }

  /** The next `n` cases. */
  batch(n: number): Batch {
    const b = new Batch(n), r = this.r;
    this.#fillWindow(b);
    const pool = this.#fxPool(), w = new CaseWriter(r, b.dv, 64);
    w.bits = this.#bits;
    for (let i = 0; i < n; i++) {
      const at = b.at(i), fx = r.below(FX_POOL) * 512;
      b.bytes.set(pool.subarray(fx, fx + FX.bytes), at + CASE.fx.at);
      for (let g = 0; g < 16; g++) putInt64(r, b.dv, at + CASE.gpr.at + 8 * g);
      b.dv.setUint32(at + CASE.rflags.at, (r.u32() & ARITH) | (r.one(4) ? DF : 0) | IF | 2, true);
      w.begin(at, r.one(12) ? 4096 - r.below(12) : 0x100 + r.below(16));
      const leeway: Leeway = { flags: 0, flagsAtFault: 0, fsw: 0, gprs: 0, gprsAtFault: 0, gprsLow: 0, memory: true, memoryAtFault: true, cr2: true, ulps: 0 };
      if (this.#bits === 32) { CASE.compat.set(b.dv, at, 1); leeway.gprs = 0xff00; leeway.gprsLow = 0xff; }
      if (this.#withSequences && r.one(4)) this.#sequence(w, leeway, b);
      else this.#single(w, r.pick(this.forms), leeway, b);
      w.end();
      b.leeway.push(leeway);
    }
    return b;
  }

  #fillWindow(b: Batch): void {
    const r = this.r;
    for (let o = 0; o < WINDOW_BYTES; o += 16) {
      const at = 64 + o;
      switch (r.below(6)) {
        case 0: putF80(r, b.dv, at); break;
        case 1: putInt64(r, b.dv, at); putInt64(r, b.dv, at + 8); break;
        default: putVector(r, b.dv, at);
      }
    }
    for (const o of [0x400, 0x600]) this.#fxImage(b.dv, 64 + o, b.bytes);
  }

  #fxPool(): Uint8Array {
    const pool = new Uint8Array(FX_POOL * 512), dv = new DataView(pool.buffer);
    for (let i = 0; i < FX_POOL; i++) this.#fxImage(dv, i * 512, pool);
    return pool;
  }
  #fxImage(dv: DataView, at: number, out: Uint8Array): void {
    const r = this.r;
    out.fill(0, at, at + 512);
    // all masked as a rule; precision and rounding at will
    const mask = r.one(6) ? r.below(64) : 0x3f;
    dv.setUint16(at + FX.fcw, 0x40 | mask | (r.one(2) ? 0x300 : r.pick([0, 0x200, 0x300]) | (r.below(4) << 10)), true);
    let sw = (r.below(8) << 11) | (r.u32() & 0x4700) | (r.one(2) ? 0 : r.below(0x40) & (r.one(12) ? 0x3f : mask));
    if (sw & 0x3f & ~mask) sw |= 0x8080;
    dv.setUint16(at + FX.fsw, sw, true);
    dv.setUint8(at + FX.ftw, r.one(4) ? r.below(256) : 0xff);
    const mx = r.one(8) ? r.below(64) << 7 : 0x1f80;
    dv.setUint32(at + FX.mxcsr, mx | (r.one(2) ? 0 : r.below(64) & (mx >> 7)) | (r.one(2) ? 0 : r.below(4) << 13) | (r.one(6) ? 0x8000 : 0) | (r.one(6) ? 0x40 : 0), true);
    dv.setUint32(at + FX.mxcsrMask, 0xffff, true);
    for (let i = 0; i < 8; i++) if (r.one(8)) { putInt64(r, dv, at + FX.st + 16 * i); dv.setUint16(at + FX.st + 16 * i + 8, 0xffff, true); } else putF80(r, dv, at + FX.st + 16 * i);
    for (let i = 0; i < 16; i++) putVector(r, dv, at + FX.xmm + 16 * i);
  }

  #single(w: CaseWriter, f: Form, leeway: Leeway, b: Batch): void {
    const r = this.r, m = f.mnemonic;
    b.names.push(f.name);
    leeway.flags = f.undef;
    leeway.fsw = f.fswUndef;
    if (STACK.test(m)) w.pin(RSP, stackAddress(r));
    if (m === "Leave" || m === "Enter") w.pin(RBP, stackAddress(r));
    if (isString(f)) { this.#string(w, f, leeway); leeway.cr2 = !/^Cmps/.test(m); return; }
    if (f.rel) { this.#branch(w, f); return; }
    if (m === "Xlatb") { w.setGpr(RBX, w.place(1, false) - (w.gprLo(RAX) & 0xff)); w.pinned |= 1 << RBX; }
    if (/^Maskmov/.test(m)) w.pin(RDI, w.place(16, false, true));
    if (/^Pcmpestr/.test(m) && r.below(5) < 4) { w.setGpr(RAX, r.below(40) - 20); w.setGpr(RDX, r.below(40) - 20); }
    if (f.countBy === "cl" && r.one(2)) w.setGpr(RCX, r.below(70));
    const bitString = /^Bt[rsc]?$/.test(m) && f.imms.length === 0;
    w.encode(f, m === "Enter" ? { imm: r.one(8) ? r.below(0x3000) : r.below(128) } : m === "Bound" ? { tame: true } : {});
    if (bitString && w.isMem && !(w.pinned & (1 << w.reg))) w.setGpr(w.reg, r.one(16) ? r.below(0x40000) - 0x20000 : r.below(0x4000) - 0x2000);
    if ((m === "Div" || m === "Idiv") && r.below(4) < 3 && !(w.pinned & 4) && (w.isMem || w.rm !== RDX)) w.setGpr(RDX, m === "Idiv" && w.gprHi(RAX) >>> 31 ? -1 : r.below(3));
    this.#memoryContents(w, f);
    this.#leeway(w, f, leeway);
    if (w.isMem && w.pinned && r.one(60)) for (let i = 0; i < 16; i++) if (w.pinned & (1 << i) && r.one(2)) w.dv.setUint32(w.at + CASE.gpr.at + 8 * i + 4, r.u32(), true);   // not canonical
    if ((m === "Call" || m === "Jmp") && f.modrm !== null) this.#indirect(w);
    if (m === "Ret") this.#returnAddress(w);
  }

  /** What the instruction finds in memory, where random bytes would make it dull. */
  #memoryContents(w: CaseWriter, f: Form): void {
    const r = this.r, m = f.mnemonic, dv = w.dv;
    if (/^Popf[dq]?$/.test(m)) {
      // no TF, NT or AC: they would act on the harness
      const size = Math.min(8, WINDOW + WINDOW_BYTES - w.gprNumber(RSP)), p = size > 0 ? w.patch(w.gprNumber(RSP), size) : -1, flags = (r.u32() & 0x203ed5) | 2;
      for (let k = 0; p >= 0 && k < size; k++) dv.setUint8(p + k, k < 4 ? flags >> (8 * k) : 0);
      return;
    }
    if (!w.isMem || f.memBytes === 0) return;
    if (m === "Cmpxchg" && r.one(2) && !(w.pinned & 1)) for (let i = 0; i < f.memBytes; i++) dv.setUint8(w.at + CASE.gpr.at + i, Math.max(0, w.peek(w.target + i)));
    else if (/^Cmpxchg\d/.test(m) && r.one(2) && !(w.pinned & 5)) {
      for (let i = 0; i < f.memBytes; i++) dv.setUint8(w.at + CASE.gpr.at + (i < f.memBytes / 2 ? i : 16 + i - f.memBytes / 2), Math.max(0, w.peek(w.target + i)));
    } else if (m === "Ldmxcsr" && r.below(4) < 3) {
      const p = w.patch(w.target, 4);
      if (p >= 0) dv.setUint32(p, r.u32() & 0xffff, true);
    } else if (m === "Fbld") {
      const p = w.patch(w.target, 10);
      for (let i = 0; p >= 0 && i < 9; i++) dv.setUint8(p + i, r.below(10) | (r.below(10) << 4));
      if (p >= 0) dv.setUint8(p + 9, r.one(2) ? 0x80 : 0);
    } else if (f.memBytes <= 16 && r.one(2)) {
      const p = w.patch(w.target, f.memBytes);
      if (p < 0) return;
      if (/fp$/.test(f.name)) { if (f.memBytes === 4) putF32(r, dv, p); else if (f.memBytes === 8) putF64(r, dv, p); else putF80(r, dv, p); }
      else if (f.cls === "sse") putVector(r, dv, p);
      else putInt64(r, dv, p);
    }
  }

  #leeway(w: CaseWriter, f: Form, leeway: Leeway): void {
    const m = f.mnemonic;
    if (f.shift) {
      const raw = f.countBy === "one" ? 1 : f.countBy === "imm" ? w.imm0 : w.gprLo(RCX), count = raw & (f.opSize === 8 ? 63 : 31);
      leeway.flags = shiftLeeway(f.shift, count, f.opSize * 8);
      if (f.shift === "shld" && count > f.opSize * 8) { if (w.isMem) leeway.memory = false; else leeway.gprs |= 1 << w.rm; }
    }
    if ((m === "Bsf" || m === "Bsr") && this.#sourceIsZero(w, f)) leeway.gprs |= 1 << w.reg;
    if (m === "Bswap" && f.p66 && !f.rexW) leeway.gprs |= 1 << w.rm;
    if (m === "Arpl") leeway.cr2 = false;
    if (/^(Fn?stenv|Fn?save|Fxsave|Fxsave64)$/.test(m)) leeway.memory = false;
    // which of its accesses faults first, and what those before it have left, is the processor's affair
    if (m === "Call" || /^Pusha/.test(m)) leeway.memoryAtFault = false;
    if (/^Popa/.test(m)) leeway.gprsAtFault = 0xffff;
    if (f.cls === "x87" && f.memBytes > 8) leeway.memoryAtFault = leeway.cr2 = false;
    if (m === "Enter") { leeway.memoryAtFault = false; leeway.cr2 = false; }
    if (TRANSCENDENTAL.test(m)) { leeway.ulps = 4; leeway.fsw |= 0x220; }
  }
  #sourceIsZero(w: CaseWriter, f: Form): boolean {
    if (!w.isMem) return f.opSize === 8 ? (w.gprLo(w.rm) | w.gprHi(w.rm)) === 0 : (w.gprLo(w.rm) & (f.opSize === 2 ? 0xffff : -1)) === 0;
    for (let i = 0; i < f.opSize; i++) if (w.peek(w.target + i) !== 0) return false;
    return true;
  }

  #string(w: CaseWriter, f: Form, leeway: Leeway): void {
    const r = this.r, cmp = /^(Cmps|Scas)/.test(f.mnemonic), prefix = r.one(3) ? 0 : cmp ? r.pick([0xf2, 0xf3]) : 0xf3;
    const near = r.one(4);
    const a = w.place(f.opSize, false);
    w.setGpr(RSI, a);
    w.setGpr(RDI, near ? a + r.below(64) - 32 : w.place(f.opSize, false));
    if (cmp && r.one(3)) w.setGpr(RDI, a);
    if (!r.one(16)) w.setGpr(RCX, r.one(4) ? r.below(600) : r.below(12));
    // with no iteration, or a fault in the first, processors differ in clearing the upper halves
    if (this.#bits === 64 && r.one(8)) { w.byte(0x67); leeway.gprsLow = 1 << RSI | 1 << RDI | 1 << RCX; for (const i of [RSI, RDI, RCX]) w.dv.setUint32(w.at + CASE.gpr.at + 8 * i + 4, r.u32(), true); }
    if (prefix) w.byte(prefix);
    if (f.p66) w.byte(0x66);
    if (f.rexW) w.byte(0x48);
    for (const o of f.opcode) w.byte(o);
  }

  /** A branch to the end of the case, over one instruction that leaves a mark. */
  #branch(w: CaseWriter, f: Form): void {
    const r = this.r;
    if (/^(Loop|J[er]?cxz)/.test(f.mnemonic)) w.setGpr(RCX, r.below(3) + (r.one(4) ? 0x100000000 : 0));
    const wild = f.rel === 4 && r.one(16);
    w.encode(f, { rel: wild ? r.u32() | 0x40000000 : 3 });
    for (const b of this.#bits === 64 ? [0x48, 0xff, 0xc0] : [0x83, 0xc0, 1]) w.byte(b);
  }
  #indirect(w: CaseWriter): void {
    const r = this.r, to = w.origin + w.len + 1;
    w.byte(0xcc);
    if (!w.isMem) { if (!(w.pinned & (1 << w.rm)) && !r.one(12)) w.setGpr(w.rm, to); return; }
    const p = r.one(12) ? -1 : w.patch(w.target, 8);
    if (p >= 0) { w.dv.setUint32(p, to, true); w.dv.setUint32(p + 4, 0, true); }
  }
  #returnAddress(w: CaseWriter): void {
    const to = w.origin + w.len + 1, p = this.r.one(12) ? -1 : w.patch(w.gprNumber(RSP), 8);
    w.byte(0xcc);
    if (p >= 0) { w.dv.setUint32(p, to, true); w.dv.setUint32(p + 4, 0, true); }
  }

  /** Two to six instructions; flags that one leaves undefined are not read by a later one. */
  #sequence(w: CaseWriter, leeway: Leeway, b: Batch): void {
    const r = this.r, n = 2 + r.below(5);
    for (const i of [RBX, RBP, RSI, RDI, RSP]) w.pin(i, WINDOW + 0x200 + 16 * r.below(0x1a0));
    const fixed = w.pinned;
    let undef = 0, fsw = 0, fixup = -1, name = "";
    for (let k = 0; k < n && w.len < 56; k++) {
      if (fixup < 0 && undef === 0 && k < n - 1 && r.one(4)) {
        w.encode(r.pick(this.#branches), { rel: 0 });
        fixup = w.len;
        continue;
      }
      const f = r.pick(this.#inSequence);
      if (f.reads & undef || (f.shift && undef) || (f.undef && fixup >= 0) || /^(Pushf|Lahf)/.test(f.mnemonic) && undef) continue;
      w.pinned = fixed;
      w.encode(f, { avoid: fixed, tame: true });
      name = f.name;
      undef = f.shift ? undef | (f.countBy === "cl" ? ARITH : shiftLeeway(f.shift, f.countBy === "one" ? 1 : w.imm0 & (f.opSize === 8 ? 63 : 31), f.opSize * 8)) : (fixup >= 0 ? undef : undef & ~f.writes) | f.undef;
      fsw |= f.fswUndef;
      leeway.flagsAtFault |= undef;
      if (fixup >= 0) { w.dv.setUint8(w.at + CASE.code.at + fixup - 1, w.len - fixup); fixup = -1; }
    }
    leeway.flags = undef;
    leeway.fsw = fsw;
    b.names.push(`sequence ending in ${name}`);
  }
}

const stackAddress = (r: Random): number => r.one(12) ? WINDOW + r.pick([0, 4, 8, 4096, 4100, WINDOW_BYTES, WINDOW_BYTES - 4, -16]) : WINDOW + 0x100 + 8 * r.below(0x3c0) + (r.one(8) ? r.below(8) : 0);

/** Flags that a shift by `count` (already masked) leaves undefined: SDM Vol. 2, each instruction's "Flags Affected". */
export function shiftLeeway(kind: Form["shift"], count: number, bits: number): number {
  const OF = 0x800, AF = 0x10, CF = 1;
  if (count === 0) return 0;
  const of = count === 1 ? 0 : OF;
  switch (kind) {
    case "rol": return of;
    case "rcl": return of;
    case "sar": return of | AF;
    case "shld": return count > bits ? ARITH : of | AF;
    default: return of | AF | (count >= bits ? CF : 0);
  }
}
