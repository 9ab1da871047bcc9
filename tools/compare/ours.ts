/** Our side of the comparison: an engine over plain memory that takes up a snapshot and does one instruction at a time. */
import { FlatMachine } from "../../src/x86/flat-machine.ts";
import { getFlags, setFlags } from "../../src/x86/flags.ts";
import { CPU, EXIT, MODE, SEG, segAt } from "../../src/x86/state.ts";
import type { Registers, Snapshot } from "./snapshot.ts";

export class Ours extends FlatMachine {
  /** The last step asked a device, MSR or CPUID leaf, or the clock: its result is the other side's to say. */
  touched = false;

  constructor(memory: Uint8Array) {
    super(memory.length);
    this.v.u8.set(memory, this.ram);
  }
  override mmioRead(): bigint { this.touched = true; return -1n; }
  override mmioWrite(): void { this.touched = true; }
  override ioRead(): number { this.touched = true; return -1; }
  override ioWrite(): void { this.touched = true; }
  override cpuid(leaf: number, subleaf: number, out: Uint32Array): void { this.touched = true; super.cpuid(leaf, subleaf, out); }
  override rdmsr(): bigint | null { this.touched = true; return 0n; }
  override wrmsr(): boolean { this.touched = true; return true; }
  override tsc(): bigint { this.touched = true; return super.tsc(); }

  take(s: Snapshot): void {
    const { cpu } = this.engine;
    this.reset(0);
    for (let i = 0; i < 16; i++) cpu.setGpr(i, s.gpr[i]!);
    for (const [i, g] of s.segments.entries()) cpu.setSeg(i, g.sel, Number(BigInt.asIntN(64, g.base)), g.limit, g.attr || 0x1000);
    cpu.set(CPU.gdtrBase, s.gdtr[0]); cpu.set(CPU.gdtrLimit, s.gdtr[1]); cpu.set(CPU.idtrBase, s.idtr[0]); cpu.set(CPU.idtrLimit, s.idtr[1]);
    cpu.set(CPU.cr0, s.cr0); cpu.set(CPU.cr2, s.cr2); cpu.set(CPU.cr3, s.cr3); cpu.set(CPU.cr4, s.cr4); cpu.set(CPU.cr8, s.cr8); cpu.set(CPU.efer, s.efer); cpu.set(CPU.kernelGsBase, s.kernelGsBase);
    cpu.setMode();
    this.adopt(s);
  }
  /** 64-bit code: elsewhere the other side shows the low halves of eight registers only. */
  get isLong(): boolean { return (this.engine.cpu.mode & MODE.sizeMask) === MODE.code64; }
  /** Set what a device may have told: general registers, flags, SSE. */
  adopt(r: Pick<Registers, "gpr" | "rip" | "rflags" | "mxcsr" | "xmm">): void {
    const { cpu } = this.engine;
    for (let i = 0; i < 16; i++) if (this.isLong) cpu.setGpr(i, r.gpr[i]!); else if (i < 8) cpu.setGpr(i, cpu.gpr(i) >> 32n << 32n | r.gpr[i]! & 0xffffffffn);
    cpu.rip = r.rip;
    setFlags(cpu, r.rflags, 0x3fffff);
    cpu.set(CPU.mxcsr, r.mxcsr);
    for (let i = 0; i < 32; i++) this.v.dv.setBigUint64(cpu.at + CPU.xmm.at + 8 * i, r.xmm[i]!, true);
    cpu.setMode();
    this.engine.contextChanged();
  }
  registers(): Registers {
    const { cpu } = this.engine, get = (i: number): number => SEG.sel.get(this.v.dv, cpu.at + segAt(i));
    return { gpr: Array.from({ length: 16 }, (_, i) => cpu.gpr(i)), rip: BigInt.asUintN(64, cpu.rip), rflags: getFlags(cpu), selectors: [0, 1, 2, 3, 4, 5].map(get),
      cr0: cpu.get(CPU.cr0), cr2: BigInt.asUintN(64, cpu.get(CPU.cr2)), cr3: cpu.get(CPU.cr3), cr4: cpu.get(CPU.cr4), efer: cpu.get(CPU.efer), mxcsr: cpu.get(CPU.mxcsr),
      xmm: Array.from({ length: 32 }, (_, i) => this.v.dv.getBigUint64(cpu.at + CPU.xmm.at + 8 * i, true)) };
  }
  /** One instruction, with the delivery of a fault it raises. Returns EXIT.yield, or why the processor stopped. */
  step(): number {
    const { engine } = this, { cpu } = engine;
    this.touched = false;
    engine.onStep = engine.onDeliver = () => cpu.set(CPU.exit, EXIT.yield);   // a fault in fetching is a step, too
    return engine.run(1000);
  }
  /** Code bytes at rip, for the listing; null where nothing is mapped. */
  code(): { bytes: Uint8Array; bits: 16 | 32 | 64 } | null {
    const { cpu } = this.engine, size = cpu.mode & MODE.sizeMask, base = size === MODE.code64 ? 0n : cpu.get(CPU.csBase), bytes = new Uint8Array(15);
    for (let n = 15; n > 0; n--) if (this.engine.readLinear(base + cpu.rip, bytes.subarray(0, n))) return { bytes: bytes.subarray(0, n), bits: size === MODE.code64 ? 64 : size === MODE.code32 ? 32 : 16 };
    return null;
  }
}
