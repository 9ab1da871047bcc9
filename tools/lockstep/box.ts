/** The machine that both engines get: plain memory, a console on the serial port, a port that ends it, an interrupt when somebody says so. */
import { type EngineOptions, makeInterpreter } from "../../src/x86/engine.ts";
import { FlatMachine } from "../../src/x86/flat-machine.ts";
import type { Cpu } from "../../src/x86/cpu.ts";
import type { Platform } from "../../src/x86/platform.ts";
import { CPU, EXIT, MODE } from "../../src/x86/state.ts";

const PAGE = 4096, PRESENT = 1, DIRTY = 0x40, SERIAL = 0x3f8, END = 0xf4;
/** An x86-64-v2 processor with what our engine has beyond that: leaf, then eax ebx ecx edx. */
const CPUID: Readonly<Record<number, readonly number[]>> = {
  0: [13, 0x756e6547, 0x6c65746e, 0x49656e69], 1: [0x000106a5, 0x00010800, 0x00d82203, 0x078bf3ff], 7: [0, 0x00100081, 4, 0],
  0x80000000: [0x80000008, 0, 0, 0], 0x80000001: [0, 0, 1, 0x2c100800], 0x80000008: [0x3028, 0, 0, 0],
};

export class Box extends FlatMachine {
  readonly cpuAt = 0;
  get cpu(): Cpu { return this.engine.cpu; }
  console = "";
  /** The vector of an interrupt that waits, or -1. */
  pending = -1;
  constructor(ramBytes: number, options: EngineOptions = {}) {
    super(ramBytes, (memory, at, platform, o) => makeInterpreter(memory, at, platform, { ...o, ...options }));
    const platform: Platform = this;
    platform.ioWrite = (port, _size, value) => {
      if (port === SERIAL) this.console += String.fromCharCode(value & 0xff);
      if (port === END) this.engine.cpu.set(CPU.exit, EXIT.shutdown);
    };
    platform.mmioRead = (_gpa, size) => BigInt.asUintN(8 * size, -1n);
    platform.cpuid = (leaf, _subleaf, out) => { out.fill(0); out.set(CPUID[leaf >>> 0] ?? []); };
    platform.pendingVector = () => this.pending;
    platform.acknowledge = () => { this.pending = -1; };
  }
  /** Pages that were written by way of this machine's own page tables (as long as CR3 names them), and the tables themselves. */
  writtenPages(pages: Set<number>): void {
    const { u32, u64 } = this.v;
    const walk = (table: number, level: number): void => {
      pages.add(table);
      for (let at = (this.ram + table) >>> 2, end = at + PAGE / 4; at < end; at += 2) {
        const entry = u32[at]!;
        if (!(entry & PRESENT)) continue;
        if (level > 1) walk(Number(u64[at >>> 1]! & 0xffffffffff000n), level - 1); else if (entry & DIRTY) pages.add(entry - (entry & PAGE - 1));
      }
    };
    walk(this.root, 4);
  }
  /** Code bytes at an address, so many as are mapped, and the size of the code. */
  code(rip: bigint, size = 15): { bytes: Uint8Array; bits: 16 | 32 | 64 } {
    const { cpu } = this.engine, mode = cpu.mode & MODE.sizeMask, base = mode === MODE.code64 ? 0n : cpu.get(CPU.csBase), bytes = new Uint8Array(size);
    let n = 0;
    while (n < size && this.engine.readLinear(base + rip + BigInt(n), bytes.subarray(n, n + 1))) n++;
    return { bytes: bytes.subarray(0, n), bits: mode === MODE.code64 ? 64 : mode === MODE.code32 ? 32 : 16 };
  }
}
