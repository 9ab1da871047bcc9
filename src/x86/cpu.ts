/**
 * The processor as the TypeScript half sees it: named access to the CPU struct at `at`, and guest memory by linear address. It keeps no
 * state of its own but the MMU's logs: everything architectural lives in machine memory, so that any pCPU can take a vCPU up.
 *
 * Linear addresses are signed JavaScript numbers: a canonical address is below 2^47 in size and exact. Registers are bigints at the edge.
 */
import type { Field } from "../base/struct.ts";
import type { Views } from "../base/views.ts";
import { GuestFault } from "./fault.ts";
import { CONTEXT, TLB_BYTES } from "./layout.ts";
import { Mmu } from "./mmu.ts";
import type { Platform } from "./platform.ts";
import { ATTR, CPU, CR0, CR4, CS, EFER, EFLAGS, MODE, SEG, SS, VECTOR } from "./state.ts";

const I = (f: { at: number }): number => f.at >> 2;
const CR0_I = I(CPU.cr0), CR3_I = I(CPU.cr3), CR4_I = I(CPU.cr4), EFER_I = I(CPU.efer), EFLAGS_I = I(CPU.eflags), FAULT_I = I(CPU.fault), ERROR_I = I(CPU.errorCode),
  RIP_I = I(CPU.rip), NEXT_RIP_I = I(CPU.nextRip), GDTR_I = I(CPU.gdtrBase), IDTR_I = I(CPU.idtrBase), MODE_I = I(CPU.mode), CPL_I = I(CPU.cpl), TLB_I = I(CPU.tlb), SEG_I = CPU.seg.at >> 2, EXIT_I = I(CPU.exit), DR7_I = I(CPU.dr) + 14;

/** A 64-bit value as the linear address it is, or null when it is not canonical (SDM Vol. 1 3.3.7.1). */
export const canonical = (x: bigint): number | null => {
  const s = BigInt.asIntN(48, x);
  return s === BigInt.asIntN(64, x) ? Number(s) : null;
};

export class Cpu {
  readonly v: Views;
  /** Byte address of the CPU struct (and of the pCPU's area: layout.ts). */
  readonly at: number;
  readonly platform: Platform;
  readonly mmu: Mmu;
  /** Called before a frame with decoded code is written; the interpreter forgets that code. */
  onCodeWrite: (machine: number, size: number) => void = () => {};
  /** Called before TLB entries go that let stores through (CodeFrames.lookBack). */
  beforeForget: () => void = () => {};
  /** The last fault was an address that is not canonical: the run loop finds out whether it was the stack's (#SS). */
  isNonCanonical = false;
  /** Copies as if by way of a buffer; the engine puts WebAssembly's own in its place: a view of shared memory does it byte by byte. */
  bulk: { copyBytes(to: number, from: number, n: number): void; fillBytes(at: number, byte: number, n: number): void };
  private readonly w: number;

  constructor(v: Views, at: number, platform: Platform) {
    this.v = v; this.bulk = { copyBytes: (to, from, n) => { v.u8.copyWithin(to, from, from + n); }, fillBytes: (to, byte, n) => { v.u8.fill(byte, to, to + n); } };
    this.at = at; this.platform = platform; this.w = at >>> 2;
    this.mmu = new Mmu(this);
  }

  get<T>(f: Field<T>): T { return f.get(this.v.dv, this.at); }
  set<T>(f: Field<T>, x: T): void { f.set(this.v.dv, this.at, x); }

  // General registers ----------------------------------------------------------
  gpr(i: number): bigint { return this.v.u64[(this.at >>> 3) + i]!; }
  setGpr(i: number, x: bigint): void { this.v.u64[(this.at >>> 3) + i] = x; }
  /** Low half, unsigned. */
  gpr32(i: number): number { return this.v.u32[this.w + i * 2]!; }
  /** Writes the low half and clears the upper one, as a 32-bit operation does. */
  setGpr32(i: number, x: number): void { this.v.i32[this.w + i * 2] = x; this.v.i32[this.w + i * 2 + 1] = 0; }
  setGpr16(i: number, x: number): void { this.v.u16[(this.at >>> 1) + i * 4] = x; }
  /** The register as a signed number; exact below 2^53. */
  gprNumber(i: number): number { return this.v.i32[this.w + i * 2 + 1]! * 4294967296 + this.v.u32[this.w + i * 2]!; }
  setGprNumber(i: number, x: number): void { this.v.i32[this.w + i * 2] = x | 0; this.v.i32[this.w + i * 2 + 1] = Math.floor(x / 4294967296) | 0; }

  // Control state --------------------------------------------------------------
  get rip(): bigint { return this.get(CPU.rip); }
  set rip(x: bigint) { this.set(CPU.rip, x); }
  get nextRip(): bigint { return this.get(CPU.nextRip); }
  set nextRip(x: bigint) { this.set(CPU.nextRip, x); }
  /** Where execution goes on, as a number: a linear address or an offset below 2^32. */
  goTo(rip: number): void { this.setNextRip(rip); this.v.i32[this.w + RIP_I] = this.v.i32[this.w + NEXT_RIP_I]!; this.v.i32[this.w + RIP_I + 1] = this.v.i32[this.w + NEXT_RIP_I + 1]!; }
  setNextRip(rip: number): void { this.v.i32[this.w + NEXT_RIP_I] = rip | 0; this.v.i32[this.w + NEXT_RIP_I + 1] = Math.floor(rip / 4294967296) | 0; }
  private signed(i: number): number { return this.v.i32[this.w + i + 1]! * 4294967296 + this.v.u32[this.w + i]!; }
  /** Linear addresses of the tables. */
  get gdtrBase(): number { return this.signed(GDTR_I); }
  get idtrBase(): number { return this.signed(IDTR_I); }
  get eflags(): number { return this.v.i32[this.w + EFLAGS_I]!; }
  set eflags(x: number) { this.v.i32[this.w + EFLAGS_I] = x; }
  /** The low half; the upper one is reserved and zero. */
  get cr0(): number { return this.v.i32[this.w + CR0_I]!; }
  get cr4(): number { return this.v.i32[this.w + CR4_I]!; }
  get efer(): number { return this.v.i32[this.w + EFER_I]!; }
  get cr3(): number { return this.v.u32[this.w + CR3_I + 1]! * 4294967296 + this.v.u32[this.w + CR3_I]!; }
  get mode(): number { return this.v.i32[this.w + MODE_I]!; }
  get cpl(): number { return this.v.i32[this.w + CPL_I]!; }
  get exit(): number { return this.v.i32[this.w + EXIT_I]!; }
  set exit(x: number) { this.v.i32[this.w + EXIT_I] = x; }
  dr(i: number): bigint { return this.v.dv.getBigUint64(this.at + CPU.dr.at + i * 8, true); }
  setDr(i: number, x: bigint): void { this.v.dv.setBigUint64(this.at + CPU.dr.at + i * 8, BigInt.asUintN(64, x), true); }
  /** DR7 enables one of the four. */
  get hasBreakpoints(): boolean { return (this.v.i32[this.w + DR7_I]! & 0xff) !== 0; }
  /** CONTEXT.* of the present privilege. */
  get context(): number { return (this.v.u32[this.w + TLB_I]! - this.v.u32[this.w + I(CPU.bank)]!) / TLB_BYTES; }
  /** IA-32e mode is active: long or compatibility. */
  get isLong(): boolean { return (this.efer & EFER.LMA) !== 0; }
  get is64(): boolean { return (this.mode & MODE.sizeMask) === MODE.code64; }
  get isProtected(): boolean { return (this.cr0 & CR0.PE) !== 0; }
  get isVm86(): boolean { return (this.eflags & EFLAGS.VM) !== 0; }
  get iopl(): number { return this.eflags >>> 12 & 3; }

  // Segments -------------------------------------------------------------------
  segSel(s: number): number { return this.v.i32[this.w + SEG_I + s * 4 + 3]! & 0xffff; }
  segAttr(s: number): number { return this.v.i32[this.w + SEG_I + s * 4 + 3]! >>> 16; }
  segLimit(s: number): number { return this.v.u32[this.w + SEG_I + s * 4 + 2]!; }
  segBase(s: number): number { return this.v.i32[this.w + SEG_I + s * 4 + 1]! * 4294967296 + this.v.u32[this.w + SEG_I + s * 4]!; }
  setSegBase(s: number, base: number): void { this.v.i32[this.w + SEG_I + s * 4] = base | 0; this.v.i32[this.w + SEG_I + s * 4 + 1] = Math.floor(base / 4294967296) | 0; }
  setSegBaseBig(s: number, base: bigint): void { this.v.dv.setBigUint64(this.at + CPU.seg.at + s * SEG.sizeof, BigInt.asUintN(64, base), true); }
  segBaseBig(s: number): bigint { return this.v.dv.getBigUint64(this.at + CPU.seg.at + s * SEG.sizeof, true); }
  setSegSel(s: number, sel: number): void { this.v.u16[(this.at + CPU.seg.at + s * SEG.sizeof + SEG.sel.at) >>> 1] = sel; }
  setSegAttr(s: number, attr: number): void { this.v.u16[(this.at + CPU.seg.at + s * SEG.sizeof + SEG.attr.at) >>> 1] = attr; }
  setSeg(s: number, sel: number, base: number, limit: number, attr: number): void {
    this.setSegBase(s, base);
    this.v.u32[this.w + SEG_I + s * 4 + 2] = limit;
    this.v.i32[this.w + SEG_I + s * 4 + 3] = sel & 0xffff | attr << 16;
  }

  /**
   * Recompute what follows from CS, SS, CR0, EFER and EFLAGS.AC/VM: code size, CPL (SS's DPL), TLB context, stack mask. To be called after every
   * change of these from outside the helpers (they call it themselves).
   */
  setMode(): void {
    const ss = this.segAttr(SS), cs = this.segAttr(CS), pe = this.isProtected, f = this.eflags;
    const cpl = !pe ? 0 : f & EFLAGS.VM ? 3 : ss >>> 5 & 3;
    const size = this.isLong && cs & ATTR.l ? MODE.code64 : cs & ATTR.db ? MODE.code32 : MODE.code16;
    const context = cpl === 3 ? CONTEXT.user : f & EFLAGS.AC && this.cr4 & CR4.SMAP ? CONTEXT.kernelAc : CONTEXT.kernel;
    const u = this.v.i32, w = this.w;
    u[w + CPL_I] = cpl;
    u[w + MODE_I] = size | (cpl === 3 ? MODE.user : 0) | (this.cr0 & CR0.TS ? MODE.ts : 0) | (this.cr0 & CR0.EM ? MODE.em : 0) | (this.cr4 & CR4.OSFXSR ? 0 : MODE.noFxsr);
    // instruction fetch ignores CS.base in 64-bit mode
    u[w + I(CPU.csBase)] = size === MODE.code64 ? 0 : u[w + SEG_I + CS * 4]!;
    u[w + I(CPU.csBase) + 1] = size === MODE.code64 ? 0 : u[w + SEG_I + CS * 4 + 1]!;
    u[w + TLB_I] = u[w + I(CPU.bank)]! + context * TLB_BYTES;
    u[w + I(CPU.spMask)] = size === MODE.code64 || ss & ATTR.db ? -1 : 0xffff;
    u[w + I(CPU.spMask) + 1] = size === MODE.code64 ? -1 : 0;
  }

  // Faults ---------------------------------------------------------------------
  /** Leave the fault where generated code and the run loop look for it. CR2 has been set by the MMU. */
  record(f: GuestFault): void { this.recordFault(f.vector, f.errorCode); }
  recordFault(vector: number, errorCode: number): void {
    this.v.i32[this.w + FAULT_I] = vector + 1;
    this.v.i32[this.w + ERROR_I] = errorCode;
  }
  clearFault(): void { this.v.i32[this.w + FAULT_I] = 0; }

  // Memory by linear address, at the present privilege -------------------------
  /** The linear address of a 64-bit value; not canonical: #GP(0), or #SS(0) for the stack. */
  linear(x: bigint, stack = false): number {
    const n = canonical(x);
    if (n === null) { this.isNonCanonical = true; throw new GuestFault(stack ? VECTOR.SS : VECTOR.GP, 0); }
    return n;
  }
  read8(a: number): number { return this.mmu.load(a, 1, this.context); }
  read16(a: number): number { return this.mmu.load(a, 2, this.context); }
  read32(a: number): number { return this.mmu.load(a, 4, this.context); }
  read64(a: number): bigint { return this.mmu.load64(a, this.context); }
  write8(a: number, x: number): void { this.mmu.store(a, x, 1, this.context); }
  write16(a: number, x: number): void { this.mmu.store(a, x, 2, this.context); }
  write32(a: number, x: number): void { this.mmu.store(a, x, 4, this.context); }
  write64(a: number, x: bigint): void { this.mmu.store64(a, x, this.context); }
  /** Copy out of guest memory as its kernel would read it, AC set. False: some page is not there; CR2 is untouched. */
  readLinear(a: number | bigint, out: Uint8Array): boolean { return this.mmu.copyOut(a, out, CONTEXT.kernelAc); }
  /** Copy into guest memory as its kernel would write it. @param isHint not where it would have to be waited for. False: nothing was written. */
  writeLinear(a: number | bigint, bytes: Uint8Array, isHint = false): boolean { return isHint ? this.mmu.ifHere(() => this.mmu.copyIn(a, bytes, CONTEXT.kernelAc)) : this.mmu.copyIn(a, bytes, CONTEXT.kernelAc); }
}
