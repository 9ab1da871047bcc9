/**
 * Seeded random programs: blocks of random instructions (of the forms that tools/oracle knows) with loops, calls, indirect jumps, jump tables, faults and code
 * that is patched. They run in user mode or at CPL 0. r14 is the fuel that every jump backwards burns; r15 holds the address that comes next: the handler of
 * every exception goes on there. So a program ends whatever its instructions do.
 */
import { KIND, Undecodable, decode, type Insn } from "../../src/x86/decode.ts";
import { int32 } from "../../src/x86/flat-machine.ts";
import { setFlags } from "../../src/x86/flags.ts";
import { CPU, CR0, CR4, CS, DS, EFLAGS, ES, FS, GS, MODE, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, SS, TR } from "../../src/x86/state.ts";
import { CaseWriter } from "../oracle/encode.ts";
import { CASE, CODE, WINDOW, WINDOW_BYTES } from "../oracle/format.ts";
import { type Form, loadForms } from "../oracle/forms.ts";
import { Random, putInt64, putVector } from "../oracle/values.ts";
import type { Box } from "./box.ts";
import type { Program } from "./lockstep.ts";

const R14 = 14, R15 = 15, PAGE = 4096;
/** Linear addresses; the kernel's pages are the last ones but many. Guest-physical ones. */
const STACK = 0x30000000, STACK_TOP = STACK + 0x1800, COUNTER = STACK + 8, KERNEL = -(2 ** 47), CODE_PAGES = 6, KERNEL_PAGES = 8;
const GPA = { window: 0x10000, code: 0x20000, stack: 0x30000, kernel: 0x40000 } as const, RAM = 384 << 10;
const IDT = KERNEL, GDT = KERNEL + 0x1000, TSS = KERNEL + 0x2000, HANDLERS = KERNEL + 0x3000, COUNTS = KERNEL + 0x4000, KERNEL_STACK = KERNEL + 0x6000, IRQ_STACK = KERNEL + 0x7000;
/** Where a program whose return addresses are used up would fault for ever. */
const MOST_FAULTS = 300;
const DIRTY = 0x40, KERNEL_CS = 0x10, KERNEL_SS = 0x18, USER_SS = 0x2b, USER_CS = 0x33, BP = 3, IRQ = 0x40, INT3 = 0xcc;
const WITH_ERROR = [8, 10, 11, 12, 13, 14, 17];

// The kernel ---------------------------------------------------------------------------------------------------------------
const inc = (at: number, counter: number): number[] => [0x48, 0xff, 0x05, ...int32(COUNTS + counter - (HANDLERS + at + 7))];
const int64 = (x: number): number[] => [...int32(x | 0), ...int32(Math.floor(x / 2 ** 32))];
/** Offsets of the handlers: with an error code, without, an interrupt's, the end's, SYSCALL's from either side. */
const ENTRY = { error: 0, plain: 4, irq: 0x40, end: 0x60, syscall: 0x80, syscallKernel: 0xa0 } as const;
const HANDLER_CODE: readonly (readonly [number, readonly number[]])[] = [
  // add rsp, 8; dec dword [rip+x]; js; mov [rsp], r15; and dword [rsp + 16], ~TF; iretq; hlt
  [ENTRY.error, [0x48, 0x83, 0xc4, 8]], [ENTRY.plain, [0xff, 0x0d, ...int32(COUNTS - (HANDLERS + ENTRY.plain + 6)), 0x78, 14, 0x4c, 0x89, 0x3c, 0x24, 0x81, 0x64, 0x24, 16, 0xff, 0xfe, 0xff, 0xff, 0x48, 0xcf, 0xf4]],
  [ENTRY.irq, [...inc(ENTRY.irq, 8), 0x48, 0xcf]],
  [ENTRY.end, [0xf4]],
  [ENTRY.syscall, [...inc(ENTRY.syscall, 16), 0x48, 0x0f, 0x07]],                                    // sysretq
  [ENTRY.syscallKernel, [0x41, 0x53, 0x9d, 0xff, 0xe1]],                                             // push r11; popfq; jmp rcx
];
function loadKernel(m: Box, kernelMode: boolean): void {
  const { cpu } = m.engine, at = (linear: number): number => GPA.kernel + linear - KERNEL, put64 = (linear: number, x: bigint): void => m.v.dv.setBigUint64(m.ram + at(linear), BigInt.asUintN(64, x), true);
  for (let p = 0; p < KERNEL_PAGES; p++) m.map(KERNEL + p * PAGE, GPA.kernel + p * PAGE, { user: false });
  for (let v = 0; v < 256; v++) {
    const to = BigInt(HANDLERS + (v === BP ? ENTRY.end : v >= 32 ? ENTRY.irq : WITH_ERROR.includes(v) ? ENTRY.error : ENTRY.plain)), ist = v >= 32 ? 2n : 1n, dpl = v === BP ? 3n : 0n;
    put64(IDT + 16 * v, (to & 0xffffn) | BigInt(KERNEL_CS) << 16n | ist << 32n | (0x8en | dpl << 5n) << 40n | (to >> 16n & 0xffffn) << 48n);
    put64(IDT + 16 * v + 8, to >> 32n & 0xffffffffn);
  }
  for (const [sel, d] of [[KERNEL_CS, 0x00af9b000000ffffn], [KERNEL_SS, 0x00cf93000000ffffn], [USER_SS & ~3, 0x00cff3000000ffffn], [USER_CS & ~3, 0x00affb000000ffffn]] as const) put64(GDT + sel, d);
  put64(TSS + 4, BigInt(KERNEL_STACK)); put64(TSS + 36, BigInt(KERNEL_STACK)); put64(TSS + 44, BigInt(IRQ_STACK));
  for (const [offset, code] of HANDLER_CODE) m.write(at(HANDLERS) + offset, Uint8Array.from(code));
  m.reset(kernelMode ? 0 : 3);
  for (const s of [ES, DS, SS, FS, GS]) cpu.setSeg(s, kernelMode ? KERNEL_SS : USER_SS, s === GS ? WINDOW : 0, 0xffffffff, kernelMode ? 0xc93 : 0xcf3);
  cpu.setSeg(CS, kernelMode ? KERNEL_CS : USER_CS, 0, 0xffffffff, kernelMode ? 0xa9b : 0xafb);
  cpu.setSeg(TR, 0x40, TSS, 0x67, 0x8b);
  cpu.set(CPU.gdtrBase, BigInt.asUintN(64, BigInt(GDT))); cpu.set(CPU.gdtrLimit, 0x7f); cpu.set(CPU.idtrBase, BigInt.asUintN(64, BigInt(IDT))); cpu.set(CPU.idtrLimit, 0xfff);
  cpu.set(CPU.star, 0x23n << 48n | BigInt(KERNEL_CS) << 32n); cpu.set(CPU.lstar, BigInt.asUintN(64, BigInt(HANDLERS + (kernelMode ? ENTRY.syscallKernel : ENTRY.syscall)))); cpu.set(CPU.sfmask, 0x300n);
  cpu.set(CPU.cr4, cpu.get(CPU.cr4) | BigInt(CR4.FSGSBASE)); cpu.set(CPU.cr0, cpu.get(CPU.cr0) | BigInt(CR0.MP));
}

// Programs ---------------------------------------------------------------------------------------------------------------------------
/** A piece that can be left out: its bytes become a NOP. */
export type Piece = { readonly from: number; readonly length: number };
export type RandomProgram = Program & { readonly pieces: readonly Piece[]; readonly code: Uint8Array; readonly kernelMode: boolean };

/** They end the program, leave it, or are made by hand below. */
const LEFT_OUT = /^(Call|Ret|J|Loop|Int|Leave|Enter|Bound|Xlat|Maskmov|Fsin|Fcos|Fsincos|Fptan|Fpatan|F2xm1|Fyl2x|Fyl2xp1|Fbstp|Fbld|Syscall|Arpl)/;
const STRING = /^(Movs|Cmps|Stos|Lods|Scas)[bwdq]$/;
const ALL_FORMS = loadForms(64).filter(f => !LEFT_OUT.test(f.mnemonic)), STRINGS = ALL_FORMS.filter(f => STRING.test(f.mnemonic) && f.modrm === null);
const BY_CLASS = { integer: ALL_FORMS.filter(f => f.cls === "integer" && !STRINGS.includes(f) && f.mnemonic !== "Reserved"), sse: ALL_FORMS.filter(f => f.cls === "sse"), x87: ALL_FORMS.filter(f => f.cls === "x87"), odd: ALL_FORMS.filter(f => f.mnemonic === "Reserved") };
/** What is compared and branched on, counted and moved most; so that random choice among a thousand forms does not pass it by. */
const COMMON = /^(Add|Sub|Cmp|Test|Mov|Inc|Dec|And|Or|Xor|Neg|Lea|Shl|Shr|Sar|Rol|Ror|Rcl|Rcr|Shld|Movzx|Movsx|Imul|Mul|Adc|Sbb|Bt|Bts|Set\w+|Cmov\w+|Xchg|Xadd|Movaps|Movups|Movsd|Addsd|Mulsd|Divsd|Addps|Sqrtsd|Ucomisd|Cvtsi2sd|Cvttsd2si|Cvtss2sd|Pxor|Paddd|Pshufd)_|^(Stc|Clc|Cmc|Lahf|Sahf)/;
const COMMON_FORMS = ALL_FORMS.filter(f => COMMON.test(f.name) && f.cls !== "x87" && !STRINGS.includes(f));
/** What needs a privilege, or is about one. */
const SYSTEM: readonly (readonly number[])[] = [
  [0xfa], [0xfb], [0xfb], [0x9c], [0x9c, 0x58], [0x68, 0x02, 0x02, 0, 0, 0x9d], [0x68, 0xd7, 0x0e, 0, 0, 0x9d], [0x68, 0x02, 0x02, 0x04, 0, 0x9d], [0x68, 0x02, 0x01, 0, 0, 0x9d], [0x66, 0x9d], [0x0f, 0x01, 0xf8], [0x0f, 0x01, 0xcb], [0x0f, 0x01, 0xca],
  [0xf3, 0x48, 0x0f, 0xae, 0xc0], [0xf3, 0x48, 0x0f, 0xae, 0xc9], [0xf3, 0x0f, 0xae, 0xca], [0xf3, 0x48, 0x0f, 0xae, 0xd3], [0xf3, 0x48, 0x0f, 0xae, 0xdb],
  [0x0f, 0x20, 0xc0], [0x0f, 0x20, 0xd1], [0x0f, 0x22, 0xd0], [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8], [0x44, 0x0f, 0x20, 0xc0], [0x0f, 0x06], [0x0f, 0x01, 0x3b], [0x0f, 0x31], [0x0f, 0xa2], [0xb8, KERNEL_SS, 0, 0, 0, 0x8e, 0xd0], [0x8c, 0xd8], [0x0f, 0x05], [0x0f, 0x0b], [0xf4],
  [0xb9, 0, 1, 0, 0xc0, 0x0f, 0x32, 0x0f, 0x30], [0xe4, 0x60], [0xe6, 0x80], [0x0f, 0x01, 0xe0], [0x0f, 0x00, 0xc8], [0xcd, 0x41], [0xdb, 0xe3],
];
type Label = { at: number };
type Profile = { readonly sse: number; readonly x87: number; readonly common: number; readonly system: number; readonly wild: number; readonly keeps: boolean; /** chances in a hundred */ readonly memory: number; readonly smap: boolean };

class Writer {
  readonly r: Random;
  readonly bytes = new Uint8Array(CODE_PAGES * PAGE).fill(INT3);
  at: number;
  readonly pieces: Piece[] = [];
  private readonly fixups: { readonly at: number; readonly label: Label; readonly base: number; readonly size: 1 | 4 | 8 }[] = [];
  private readonly scratch: CaseWriter;
  private readonly profile: Profile;
  /** where immediates lie that the program may change, and stores that want one of them */
  private readonly soft: number[] = [];
  private readonly patches: number[] = [];
  constructor(r: Random, profile: Profile, at: number) {
    this.r = r; this.profile = profile; this.at = at;
    this.scratch = new CaseWriter(r, new DataView(new ArrayBuffer(CASE.sizeof + WINDOW_BYTES)), CASE.sizeof);
  }
  get room(): number { return this.bytes.length - 64 - this.at; }
  put(code: readonly number[]): void { this.bytes.set(code, this.at); this.at += code.length; }
  /** What goes as one when the program is made smaller. */
  piece(make: () => void): void { const from = this.at; make(); if (this.at > from) this.pieces.push({ from, length: this.at - from }); }
  code(...code: number[]): void { this.piece(() => this.put(code)); }
  /** Bytes with a relative address of a label at the end. */
  toward(label: Label, code: readonly number[], size: 1 | 4 = 4): void { this.put([...code, ...new Array<number>(size).fill(0)]); this.fixups.push({ at: this.at - size, label, base: this.at, size }); }
  absolute(label: Label, size: 4 | 8): void { this.fixups.push({ at: this.at, label, base: -CODE, size }); this.put(new Array<number>(size).fill(0)); }
  /** @returns null when a short jump does not reach */
  finish(): Uint8Array | null {
    const dv = new DataView(this.bytes.buffer);
    for (const { at, label, base, size } of this.fixups) {
      const x = label.at - base;
      if (size === 1) { if (x < -128 || x > 127) return null; dv.setInt8(at, x); } else if (size === 4) dv.setInt32(at, x, true); else dv.setBigInt64(at, BigInt(x), true);
    }
    for (const at of this.patches) if (this.soft.length) dv.setInt32(at, this.r.pick(this.soft) - (at + 4), true);
    return this.bytes;
  }

  private setGpr(i: number, value: bigint): void {
    const rex = i >= 8 ? 0x41 : 0, low = Number(BigInt.asIntN(32, value));
    if (value >= 0n && value < 2n ** 32n) this.code(...(rex ? [rex] : []), 0xb8 | i & 7, ...int32(low));
    else if (BigInt.asIntN(64, value) === BigInt(low)) this.code(0x48 | rex & 1, 0xc7, 0xc0 | i & 7, ...int32(low));
    else this.code(0x48 | rex & 1, 0xb8 | i & 7, ...int32(low), ...int32(Number(BigInt.asIntN(32, value >> 32n))));
  }
  /** A random encoding of a form, and before it what makes its address good. */
  private random(f: Form): void {
    const { r, scratch: w, profile } = this;
    for (let tries = 0; tries < 12; tries++) {
      w.begin(0, this.at);
      const pinned = 1 << RSP | 1 << R14 | 1 << R15 | (profile.keeps && r.one(2) ? 1 << RBX | 1 << RSI | 1 << RDI | 1 << RBP : 0);
      for (let i = 0; i < 16; i++) putInt64(r, w.dv, CASE.gpr.at + 8 * i);
      pointers(w);
      w.pinned = pinned; w.encode(f, { tame: !r.one(10), noMem: r.below(100) >= profile.memory });
      const code = w.dv.buffer.slice(CASE.code.at, CASE.code.at + w.len);
      let i: Insn;
      try { i = decode(new Uint8Array(code), 0, w.len, MODE.code64); } catch (e) { if (!(e instanceof Undecodable)) throw e; if (r.one(4)) { this.code(...new Uint8Array(code)); return; } continue; }
      if (!this.isAllowed(i)) continue;
      const isRip = i.ripRel, set = w.pinned & ~pinned;
      if (!(r.one(100) && profile.wild)) for (let g = 0; g < 16; g++) if (set & 1 << g) this.setGpr(g, w.dv.getBigUint64(CASE.gpr.at + 8 * g, true));
      const shift = this.at - (w.origin - CODE);
      this.code(...new Uint8Array(code));
      // what stands before it has moved it
      if (isRip && shift) { const dv = new DataView(this.bytes.buffer), at = this.at - i.len + ripAt(new Uint8Array(code), i); dv.setInt32(at, dv.getInt32(at, true) - shift, true); }
      return;
    }
  }
  /** Fuel, the way out and the stack pointer are nobody's to write, and the first two nobody's address; nor are the pointers, where they are kept. */
  private isAllowed(i: Insn): boolean {
    const isFixed = (n: number) => n === R14 || n === R15 || n === RSP || this.profile.keeps && [RBX, RSI, RDI, RBP].includes(n), isOperand = (k: number, n: number) => (k === KIND.reg || k === KIND.hi) && isFixed(n);
    return !isOperand(i.dk, i.dn) && !(/^(xchg|xadd)/.test(i.row.name) && isOperand(i.sk, i.sn)) && i.base !== R14 && i.base !== R15 && i.index !== R14 && i.index !== R15;
  }
  private string(f: Form): void {
    const { r, scratch: w } = this, at = (): bigint => BigInt(w.place(f.opSize, false, !r.one(12)));
    this.setGpr(RSI, at()); this.setGpr(RDI, at()); this.setGpr(RCX, BigInt(r.one(4) ? r.below(600) : r.below(12)));
    this.code(...(r.one(3) ? [] : [r.pick([0xf3, 0xf3, 0xf2])]), ...(f.p66 ? [0x66] : []), ...(f.rexW ? [0x48] : []), ...f.opcode);
    if (r.one(3)) this.code(0xfc);                                               // cld
    this.restore();
  }
  /** The pointers again, where they are kept. */
  restore(): void { if (this.profile.keeps) for (const [i, v] of POINTERS) if (i !== RSP) this.setGpr(i, BigInt(v)); }
  /** One instruction of a block's body. */
  body(): void {
    const { r, profile: p } = this, n = r.below(100);
    if (p.smap && r.one(6)) this.code(0x0f, 0x01, r.pick([0xca, 0xcb]));                     // clac, stac
    if (r.one(p.sse > 50 ? 12 : 40)) this.mxcsr();
    if (n < p.common) this.random(r.pick(COMMON_FORMS));
    else if (n < p.common + 5) this.soften();
    else if (n < p.common + 9) this.string(r.pick(STRINGS));
    else if (r.below(100) < p.system) this.code(...r.pick(SYSTEM));
    else if (r.below(100) < p.x87) this.random(r.pick(BY_CLASS.x87));
    else if (r.below(100) < p.sse) this.random(r.pick(BY_CLASS.sse));
    else if (r.one(40)) this.random(r.pick(BY_CLASS.odd));
    else this.random(r.pick(BY_CLASS.integer));
  }
  /** push imm32; ldmxcsr [rsp]; pop rax: mostly what is ordinary. */
  private mxcsr(): void { this.piece(() => this.put([0x68, ...int32(this.r.pick([0x1f80, 0x1fa0, 0x1fa0, 0x1fa0, 0x3fa0, 0x5fa0, 0x9fe0, 0x1f00])), 0x0f, 0xae, 0x14, 0x24, 0x58])); }
  /** An instruction whose immediate may be patched, or a store that patches one. */
  private soften(): void {
    const { r } = this, isByte = r.one(2);
    if (r.one(4)) {
      // mov [rip+x], imm8 / al / ecx
      this.piece(() => { this.put(isByte ? r.pick([[0x88, 0x05], [0x88, 0x0d]]) : [0x88, 0x15]); this.patches.push(this.at); this.put([0, 0, 0, 0]); });
      return;
    }
    if (isByte) this.code(0x04, r.below(256)); else this.code(r.pick([0xb8, 0x05, 0x3d, 0x35]), ...int32(r.u32() | 0));
    this.soft.push(this.at - (isByte ? 1 : 4));
  }
}
/** Where the displacement of a rip-relative operand lies: behind its ModRM byte, which has mod 0 and rm 5. */
function ripAt(code: Uint8Array, i: Insn): number {
  for (let at = 1; at + 4 < code.length + 1; at++) if ((code[at - 1]! & 0xc7) === 5 && new DataView(code.buffer).getInt32(at, true) === i.disp) return at;
  throw new Error("Assertion failed: no rip-relative displacement");
}
/** What registers hold at the beginning, and again and again where a program keeps its pointers. */
const POINTERS: readonly (readonly [number, number])[] = [[RBX, WINDOW + 0x400], [RSI, WINDOW + 0x800], [RDI, WINDOW + 0xfe0], [RBP, WINDOW + 0x1800], [RSP, STACK_TOP]];
function pointers(w: CaseWriter): void { for (const [i, v] of POINTERS) w.setGpr(i, v); }

const lea = (w: Writer, reg: number, label: Label): void => w.toward(label, [0x48 | (reg >= 8 ? 4 : 0), 0x8d, 0x05 | (reg & 7) << 3]);
const jcc = (w: Writer, cond: number, label: Label, short: boolean): void => (short ? w.toward(label, [0x70 | cond], 1) : w.toward(label, [0x0f, 0x80 | cond]));
/** Take a unit of fuel, and go on behind `more` when there is none. */
const LESS_FUEL: readonly (readonly number[])[] = [[0x49, 0xff, 0xce], [0x49, 0x83, 0xee, 1], [0x41, 0xff, 0xce], [0x41, 0x83, 0xc6, 0xff], [0x4d, 0x8d, 0x76, 0xff, 0x45, 0x85, 0xf6], [0x4d, 0x8d, 0x76, 0xff, 0x41, 0x83, 0xfe, 0]];

function write(r: Random, kernelMode: boolean, withSmap: boolean, fuel: number): { bytes: Uint8Array; entry: number; pieces: Piece[] } | null {
  const kind = r.below(5), profile: Profile = { sse: r.pick([10, 40, 70]), x87: r.pick([0, 0, 10, 30]), common: r.pick([30, 60, 80]), system: kernelMode ? r.pick([20, 50]) : r.pick([0, 5, 15]), wild: r.one(2) ? 1 : 0, keeps: kind > 0, memory: r.pick([100, 50, 15]), smap: kernelMode && withSmap };
  const entry = r.one(3) ? PAGE - r.below(500) : r.below(PAGE), w = new Writer(r, profile, entry), short = r.one(2);
  const nrMain = 2 + r.below(10), functions = Array.from({ length: r.below(4) }, () => Array.from({ length: 1 + r.below(4) }, (): Label => ({ at: -1 }))), main = Array.from({ length: nrMain }, (): Label => ({ at: -1 })), end: Label = { at: -1 };
  const block = (list: readonly Label[], n: number, after: Label, isMain: boolean, callees: readonly Label[][]): boolean => {
    const next = list[n + 1] ?? after, later = (): Label => r.pick([...list.slice(n + 1), after].slice(0, r.one(6) ? 20 : 3)), here = list[n]!;
    if (r.one(12) && w.room > 2 * PAGE) {
      // far away
      w.toward(here, [0xe9]); w.at += r.below(PAGE);
    }
    here.at = w.at;
    lea(w, R15, next);
    if (isMain && r.one(3)) w.code(0x48, 0xbc, ...int64(STACK_TOP - 8 * r.below(16)));
    if (r.one(6)) w.restore();
    const more = 1 + r.below(r.one(4) ? 12 : 5);
    for (let k = 0; k < more; k++) { if (w.room < 300) return false; w.body(); }
    w.piece(() => {
      switch (r.below(isMain ? 14 : 9)) {
        case 0: case 1: return;
        case 2: case 3: case 4: jcc(w, r.below(16), later(), short && r.one(2)); return;
        case 5: case 6: case 7: {
          // back, as long as the fuel lasts
          const back = list[r.below(n + 1)]!, out: Label = { at: -1 }, wide = !short || w.at - back.at > 80;
          w.put(r.pick(LESS_FUEL));
          if (r.one(3)) { jcc(w, 14, out, true); jcc(w, r.below(16), back, !wide); } else if (r.one(6) && !wide) { jcc(w, 14, out, true); w.toward(back, [r.pick([0xe0, 0xe1, 0xe2, 0xe3])], 1); } else jcc(w, 15, back, !wide);
          out.at = w.at;
          return;
        }
        case 8: if (r.one(2)) w.toward(later(), [0xe9]); return;
        case 9: case 10: if (callees.length) { const f = r.pick(callees)[0]!; if (r.one(3)) { lea(w, RAX, f); w.put([0xff, 0xd0]); } else w.toward(f, [0xe8]); lea(w, R15, next); } return;
        case 11: lea(w, RAX, later()); if (r.one(2)) w.put([0xff, 0xe0]); else w.put([0x48, 0x89, 0x44, 0x24, 0xf0, 0xff, 0x64, 0x24, 0xf0]); return;
        case 12: {
          // by a table: mov eax, r14d; and eax, 3; lea rcx, table; jmp [rcx + rax * 8]
          const table: Label = { at: -1 };
          w.put([0x44, 0x89, 0xf0, 0x83, 0xe0, 3]); lea(w, RCX, table); w.put([0xff, 0x24, 0xc1]);
          table.at = w.at;
          for (let k = 0; k < 4; k++) w.absolute(later(), 8);
          return;
        }
        case 13: w.put([0x68]); w.absolute(later(), 4); w.put(r.one(4) ? [0xc2, 8, 0] : [0xc3]); return;
      }
    });
    return true;
  };
  for (let n = 0; n < nrMain; n++) if (!block(main, n, end, true, functions)) return null;
  // from the beginning, as often as the counter on the stack page says, with new fuel
  end.at = w.at;
  w.put([0x41, 0xbe, ...int32(fuel), 0xff, 0x0c, 0x25, ...int32(COUNTER)]); jcc(w, 15, main[0]!, false); w.put(kernelMode ? [0xf4] : [0xcc]);
  for (const [k, f] of functions.entries()) {
    const out: Label = { at: -1 };
    for (let n = 0; n < f.length; n++) if (!block(f, n, out, false, functions.slice(k + 1))) return null;
    out.at = w.at;
    // once more by itself, as long as the fuel lasts
    if (r.one(3)) { const enough: Label = { at: -1 }; w.piece(() => { w.put([0x49, 0xff, 0xce]); jcc(w, 14, enough, true); w.toward(f[0]!, [0xe8]); enough.at = w.at; }); }
    w.put([0xc3]);
  }
  w.put(kernelMode ? [0xf4] : [0xcc]);
  const bytes = w.finish();
  return bytes && { bytes, entry, pieces: w.pieces };
}

export const CODE_GPA = GPA.code;
/** One NOP of n bytes, or several (SDM Vol. 2B "NOP"). */
const NOPS = [[], [0x90], [0x66, 0x90], [0x0f, 0x1f, 0], [0x0f, 0x1f, 0x40, 0], [0x0f, 0x1f, 0x44, 0, 0], [0x66, 0x0f, 0x1f, 0x44, 0, 0], [0x0f, 0x1f, 0x80, 0, 0, 0, 0], [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]];
export const nops = (n: number): number[] => (n <= 8 ? NOPS[n]! : [...NOPS[8]!, ...nops(n - 8)]);

/** Two numbers about one: what they make is inexact, and ordinary. */
function putDoubles(r: Random, dv: DataView, at: number): void { for (const o of [at, at + 8]) { dv.setUint32(o, r.u32(), true); dv.setUint32(o + 4, (r.u32() & 0x800fffff) | (0x3fc + r.below(8)) << 20, true); } }
/** The program of a seed. */
export function randomProgram(seed: number): RandomProgram {
  const r = new Random(seed), kernelMode = r.one(3), withSmap = r.one(2), isOpen = r.one(2), withReadOnly = r.one(2), ordinary = r.pick([0x1f80, 0x1fa0, 0x1fa0, 0x9fc0]), putXmm = r.one(2) ? putVector : putDoubles, rounds = 1 + r.below(2), fuel = 5 + r.below(r.pick([20, 100])), turns = 2 + r.below(40);
  let made = write(r, kernelMode, withSmap, fuel);
  while (made === null) made = write(r, kernelMode, withSmap, fuel);
  const { bytes: code, entry, pieces } = made, state = r.u32();
  const start = (m: Box, round: number): boolean => {
    const { cpu } = m.engine, { dv } = m.v, s = new Random(state + round);
    if (round >= rounds) return false;
    for (let i = 0; i < 16; i++) putInt64(s, dv, CPU.gpr.at + 8 * i);
    for (const [i, v] of POINTERS) cpu.setGprNumber(i, v);
    cpu.setGprNumber(R14, fuel); cpu.setGprNumber(R15, CODE + entry);
    for (let i = 0; i < 16; i++) putXmm(s, dv, CPU.xmm.at + 16 * i);
    setFlags(cpu, s.u32() & EFLAGS.arith | (isOpen ? EFLAGS.IF : 0) | (s.one(4) ? EFLAGS.DF : 0) | EFLAGS.fixed, 0x3fffff);
    if (round > 0) {
      // it has halted in the kernel: back to where it began
      for (const x of [SS]) cpu.setSeg(x, kernelMode ? KERNEL_SS : USER_SS, 0, 0xffffffff, kernelMode ? 0xc93 : 0xcf3);
      cpu.setSeg(CS, kernelMode ? KERNEL_CS : USER_CS, 0, 0xffffffff, kernelMode ? 0xa9b : 0xafb);
      cpu.set(CPU.halted, 0);
    }
    cpu.set(CPU.mxcsr, ordinary);
    dv.setInt32(m.ram + GPA.stack + COUNTER - STACK, turns, true); dv.setInt32(m.ram + GPA.kernel + COUNTS - KERNEL, MOST_FAULTS, true);
    cpu.rip = BigInt(CODE + entry);
    cpu.setMode(); m.engine.contextChanged();
    return true;
  };
  return {
    name: `random program ${seed}`, ramBytes: RAM, pieces, code, kernelMode, ...(isOpen ? { interrupt: { vector: IRQ, oneIn: 12, onlyOpen: false } } : {}),
    load(m) {
      loadKernel(m, kernelMode);
      const user = !kernelMode, s = new Random(state);
      for (let p = 0; p < 2; p++) m.map(WINDOW + p * PAGE, GPA.window + p * PAGE, { user: user || withSmap && p === 1 });
      if (withReadOnly) m.map(WINDOW + 2 * PAGE, GPA.window + 2 * PAGE, { user, writable: false });
      for (let p = 0; p < CODE_PAGES; p++) m.map(CODE + p * PAGE, GPA.code + p * PAGE, { user });
      for (let p = 0; p < 2; p++) m.map(STACK + p * PAGE, GPA.stack + p * PAGE, { user });
      for (let o = 0; o < 3 * PAGE; o += 16) putXmm(s, m.v.dv, m.ram + GPA.window + o);
      m.write(GPA.code, code);
      // a store to code is undone and made again, and has dirtied its page already when a slice ends between
      for (let at = m.ram + GPA.kernel + KERNEL_PAGES * PAGE; at < m.ram + RAM; at += 8) {
        const entry = m.v.u32[at >>> 2]!;
        if (entry & 1 && entry >= GPA.code && entry < GPA.code + CODE_PAGES * PAGE) m.v.u32[at >>> 2] = entry | DIRTY;
      }
      if (kernelMode && withSmap) m.engine.cpu.set(CPU.cr4, m.engine.cpu.get(CPU.cr4) | BigInt(CR4.SMAP));
      start(m, 0);
    },
    again: start,
  };
}
