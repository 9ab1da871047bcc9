/**
 * Stacks that helpers push to and pop from: several values at once, each address checked before anything is written, so that a fault leaves
 * no half frame. Offsets wrap by the segment's B bit, as SDM Vol. 1 ch. 6 has it.
 */
import type { Cpu } from "./cpu.ts";
import { GuestFault } from "./fault.ts";
import { CONTEXT } from "./layout.ts";
import { inSegment, type Segment, segmentOf } from "./segments.ts";
import { ATTR, CR4, EFLAGS, RSP, SS, VECTOR } from "./state.ts";

export const contextOf = (cpu: Cpu, cpl: number): number =>
  cpl === 3 ? CONTEXT.user : cpu.eflags & EFLAGS.AC && cpu.cr4 & CR4.SMAP ? CONTEXT.kernelAc : CONTEXT.kernel;

export class Stack {
  private readonly cpu: Cpu;
  /** null: 64-bit, flat */
  private readonly ss: Segment | null;
  private readonly context: number;
  private readonly fault: GuestFault;
  /** rsp; for a 16- or 32-bit stack the offset alone */
  sp: number;

  /** `errorCode`: of the #SS raised for a bad address */
  constructor(cpu: Cpu, ss: Segment | null, sp: number, cpl: number, errorCode = 0) {
    this.cpu = cpu; this.ss = ss; this.context = contextOf(cpu, cpl); this.fault = new GuestFault(VECTOR.SS, errorCode);
    this.sp = ss ? this.cut(sp) : sp;
  }
  /** The stack in use. */
  static current(cpu: Cpu, errorCode = 0): Stack { return new Stack(cpu, cpu.is64 ? null : segmentOf(cpu, SS), cpu.gprNumber(RSP), cpu.cpl, errorCode); }

  private cut(sp: number): number { return this.ss!.attr & ATTR.db ? sp >>> 0 : sp & 0xffff; }
  private linear(offset: number, size: number): number {
    if (this.ss) return inSegment(this.ss, this.cut(offset), size, this.fault);
    if (offset >= 2 ** 47 || offset < -(2 ** 47)) throw this.fault;
    return offset;
  }
  /** Push `values` in order, each `size` bytes (2, 4, 8). Commit the new sp with `commit` once nothing can fail. */
  push(size: number, values: readonly (number | bigint)[]): void {
    const { mmu } = this.cpu;
    this.probe(size, values.length);
    for (const x of values) {
      this.sp -= size;
      const a = this.linear(this.sp, size);
      if (size === 8) mmu.store64(a, BigInt.asUintN(64, BigInt(x)), this.context);
      else mmu.store(a, Number(x), size, this.context);
    }
    if (this.ss) this.sp = this.cut(this.sp);
  }
  /** Push a frame of 64-bit values as it lies in memory, two words each, from word `first` on: by one look where it stays within a page of plain memory. */
  pushWords(frame: Int32Array, first: number): void {
    const { mmu, v: { i32 } } = this.cpu, bytes = (frame.length - first) * 4;
    if (!this.ss && (this.sp - bytes & 0xfff) + bytes <= 4096 && (this.sp & 3) === 0) {
      const h = mmu.plain(this.linear(this.sp - 8, 8), true, this.context), at = (h - bytes + 8) >>> 2;        // the first value pushed is the one that faults
      if (h >= 0) {
        for (let i = first; i < frame.length; i++) i32[at + i - first] = frame[i]!;
        this.sp -= bytes;
        return;
      }
    }
    const values: bigint[] = [];
    for (let i = frame.length - 2; i >= first; i -= 2) values.push(BigInt(frame[i + 1]!) << 32n | BigInt(frame[i]! >>> 0));
    this.push(8, values);
  }
  /** Could `n` values be pushed? */
  probe(size: number, n: number): void { for (let i = 1; i <= n; i++) this.cpu.mmu.checkWrite(this.linear(this.sp - i * size, size), size, this.context); }
  /** Value number `i` from the top; nothing is popped. */
  peek(size: number, i: number, skip = 0): number {
    const a = this.linear(this.sp + i * size + skip, size);
    return size === 8 ? this.cpu.mmu.loadNumber(a, this.context) : this.cpu.mmu.load(a, size, this.context);
  }
  /** The same with all 64 bits: for values that need not be addresses. */
  peekWide(size: number, i: number, skip = 0): bigint {
    return size === 8 ? this.cpu.mmu.load64(this.linear(this.sp + i * size + skip, size), this.context) : BigInt(this.peek(size, i, skip));
  }
  /** Could a byte be written at sp? */
  check(): void { this.cpu.mmu.checkWrite(this.linear(this.sp, 1), 1, this.context); }
  drop(bytes: number): void { this.sp += bytes; if (this.ss) this.sp = this.cut(this.sp); }
  /** Write RSP, or its part that the stack's width covers. */
  commit(): void { putStackPointer(this.cpu, this.ss, this.sp); }
}
/** RSP after a switch to a stack of that segment: a 16-bit stack keeps the upper bits. */
export function putStackPointer(cpu: Cpu, ss: Segment | null, sp: number): void {
  if (!ss) cpu.setGprNumber(RSP, sp);
  else if (ss.attr & ATTR.db) cpu.setGpr32(RSP, sp);
  else cpu.setGpr16(RSP, sp);
}
