/**
 * The smallest machine around an engine, for tests and tools: plain memory from guest-physical 0, no devices, user code in 64-bit mode behind
 * real page tables that map only what is asked for.
 */
import { Views } from "../base/views.ts";
import { type Engine, makeInterpreter } from "./engine.ts";
import { setFlags } from "./flags.ts";
import { PCPU_BYTES } from "./layout.ts";
import { P2M_READ, P2M_WRITE, type Platform } from "./platform.ts";
import { ATTR, CPU, CR0, CR4, CS, DS, EFER, EFLAGS, ES, FS, GS, LDTR, SS, TR } from "./state.ts";

const PAGE = 4096;
/** The bytes of a 32-bit number in code written by hand. */
export const int32 = (x: number): number[] => [x & 255, x >> 8 & 255, x >> 16 & 255, x >> 24 & 255];
export class FlatMachine implements Platform {
  readonly memory: WebAssembly.Memory;
  readonly v: Views;
  readonly engine: Engine;
  /** machine address of guest-physical 0 */
  readonly ram = PCPU_BYTES;
  readonly ramBytes: number;
  private nextTable: number;
  readonly root: number;
  now = 0n;

  constructor(ramBytes = 8 << 20, makeEngine = makeInterpreter) {
    const pages = (PCPU_BYTES + ramBytes) / 65536;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    this.v = new Views(this.memory.buffer as unknown as SharedArrayBuffer);
    this.ramBytes = ramBytes;
    this.nextTable = ramBytes;
    this.engine = makeEngine(this.memory, 0, this, { code: { mark: f => { this.codeFrames.add(f); }, unmark: f => { this.codeFrames.delete(f); }, wrote: () => {}, generation: () => 0 } });
    this.root = this.table();
    this.reset();
  }
  /** 64-bit mode, paging on, CPL 3 unless asked otherwise. */
  reset(cpl: 0 | 3 = 3): void {
    const { cpu } = this.engine;
    for (let i = 0; i < 16; i++) cpu.setGpr(i, 0n);
    for (const s of [ES, DS, SS, FS, GS]) cpu.setSeg(s, 0x2b, 0, 0xffffffff, 0xcf3 & ~0x60 | cpl << 5);
    cpu.setSeg(CS, 0x33, 0, 0xffffffff, ATTR.g | ATTR.l | 0x9b | cpl << 5);
    cpu.setSeg(LDTR, 0, 0, 0xffff, ATTR.unusable); cpu.setSeg(TR, 0, 0, 0xffff, 0x8b);
    cpu.set(CPU.cr0, BigInt(CR0.PE | CR0.MP | CR0.ET | CR0.NE | CR0.WP) | BigInt(CR0.PG >>> 0));
    cpu.set(CPU.cr3, BigInt(this.root));
    cpu.set(CPU.cr4, BigInt(CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.PGE));
    cpu.set(CPU.efer, BigInt(EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE));
    cpu.set(CPU.eflags, EFLAGS.fixed); setFlags(cpu, EFLAGS.fixed, EFLAGS.arith);
    cpu.set(CPU.mxcsr, 0x1f80); cpu.set(CPU.fcw, 0x37f); cpu.set(CPU.xcr0, 3n); cpu.set(CPU.fault, 0); cpu.set(CPU.exit, 0);
    cpu.setMode();
    this.engine.contextChanged();
  }
  private table(): number { this.nextTable -= PAGE; this.v.u8.fill(0, this.ram + this.nextTable, this.ram + this.nextTable + PAGE); return this.nextTable; }
  /** Map a linear page to a guest-physical one. */
  map(linear: number, gpa: number, { writable = true, user = true, executable = true } = {}): void {
    let t = this.root;
    const index = (shift: number) => Number(BigInt.asUintN(48, BigInt(linear)) >> BigInt(shift) & 511n);
    for (const shift of [39, 30, 21]) {
      const at = this.ram + t + index(shift) * 8;
      if (!this.v.u32[at >>> 2]) this.v.u64[at >>> 3] = BigInt(this.table()) | 7n;
      t = Number(this.v.u64[at >>> 3]! & ~0xfffn);
    }
    this.v.u64[(this.ram + t + index(12) * 8) >>> 3] = BigInt(gpa) | 1n | (user ? 4n : 0n) | (writable ? 2n : 0n) | (executable ? 0n : 1n << 63n);
  }
  write(gpa: number, bytes: Uint8Array): void { this.v.u8.set(bytes, this.ram + gpa); }

  frameOf(gfn: number): number { return gfn >= 0 && gfn * PAGE < this.ramBytes ? this.ram + gfn * PAGE + (P2M_READ | P2M_WRITE | (this.codeFrames.has(this.ram / PAGE + gfn) ? 4 : 0)) : 0; }
  readonly codeFrames = new Set<number>();
  dirtied(): void {}
  mmioRead(_gpa: number, size: number): bigint { return (1n << BigInt(size * 8)) - 1n; }
  mmioWrite(): void {}
  ioRead(): number { return -1; }
  ioWrite(): void {}
  cpuid(_leaf: number, _subleaf: number, out: Uint32Array): void { out.fill(0); out[0] = 0x3028; }
  rdmsr(): bigint | null { return null; }
  wrmsr(): boolean { return false; }
  hypercall(): void {}
  tsc(): bigint { return this.now++; }
  ticks(): number { return Number(this.tsc()); }
  readonly tscWord = 0;
  pendingVector(): number { return -1; }
  acknowledge(): void {}
  setTpr(): void {}
  getTpr(): number { return 0; }
}
