/** The truth's side of the comparison: QEMU's TCG behind its gdb stub. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UserError } from "../../src/base/errors.ts";
import { Gdb } from "./gdb.node.ts";
import type { Registers, Segment, Snapshot } from "./snapshot.ts";

const PROGRAM = "qemu-system-x86_64";
/** An x86-64-v2 processor like ours, and no more: no five-level paging, no AVX. */
const CPU_V2 = "Nehalem,+rdtscp,+smep,+smap,+fsgsbase,+movbe";
export const qemuMissing = (): string | false => (spawnSync(PROGRAM, ["--version"], { stdio: "ignore" }).error ? "QEMU is not installed" : false);
/** The `g` packet's numbers of rax rcx rdx rbx rsp rbp rsi rdi; r8 to r15 follow in order. */
const GDB_GPR = [0, 2, 3, 1, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
/** Byte offsets in QEMU's `g` packet: 17 × 8, then eflags and six selectors × 4, then bases and control registers × 8, x87, SSE. */
const AT = { rip: 128, rflags: 136, cs: 140, fsBase: 164, kGsBase: 180, cr0: 188, cr2: 196, cr3: 204, cr4: 212, cr8: 220, efer: 228, st: 236, fctrl: 316, xmm: 348, mxcsr: 604 } as const;
/** The packet has cs ss ds es fs gs; ours: es cs ss ds fs gs. */
const SELECTOR_ORDER = [3, 0, 1, 2, 4, 5];

export interface QemuOptions { readonly kernel: string; readonly initrd?: string; readonly append?: string; readonly memoryMiB: number; readonly cpu?: string; readonly args?: readonly string[] }

export class Qemu {
  readonly gdb: Gdb;
  readonly #child: ChildProcess;
  readonly #dir: string;
  readonly memoryBytes: number;
  private constructor(gdb: Gdb, child: ChildProcess, dir: string, memoryBytes: number) { this.gdb = gdb; this.#child = child; this.#dir = dir; this.memoryBytes = memoryBytes; }

  /** Start QEMU, stopped before its first instruction. */
  static async start(o: QemuOptions): Promise<Qemu> {
    const missing = qemuMissing();
    if (missing) throw new UserError(missing);
    const port = await freePort(), dir = mkdtempSync(join(tmpdir(), "domus-compare-"));
    const child = spawn(PROGRAM, ["-M", "q35", "-cpu", o.cpu ?? CPU_V2, "-accel", "tcg", "-m", String(o.memoryMiB), "-kernel", o.kernel, ...(o.initrd ? ["-initrd", o.initrd] : []), ...(o.append ? ["-append", o.append] : []),
      "-display", "none", "-serial", "null", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-S", "-gdb", `tcp:127.0.0.1:${port}`, ...(o.args ?? [])], { stdio: ["ignore", "ignore", "inherit"] });
    const gdb = await Gdb.open(port);
    await gdb.ask("?");
    return new Qemu(gdb, child, dir, o.memoryMiB << 20);
  }
  /** Run until the instruction at this linear address. */
  async runTo(address: bigint): Promise<void> {
    await this.gdb.breakpoint(address, true);
    const stop = await this.gdb.go();
    if (!/^[TS]05/.test(stop)) throw new UserError(`QEMU did not reach ${address.toString(16)}: it stopped with "${stop}"`);
    await this.gdb.breakpoint(address, false);
  }
  async registers(): Promise<Registers> {
    const d = await this.gdb.registers(), u64 = (at: number): bigint => d.getBigUint64(at, true);
    return { gpr: GDB_GPR.map((n) => u64(8 * n)), rip: u64(AT.rip), rflags: d.getUint32(AT.rflags, true), selectors: SELECTOR_ORDER.map((n) => d.getUint32(AT.cs + 4 * n, true)),
      cr0: u64(AT.cr0), cr2: u64(AT.cr2), cr3: u64(AT.cr3), cr4: u64(AT.cr4), efer: u64(AT.efer), mxcsr: d.getUint32(AT.mxcsr, true), xmm: Array.from({ length: 32 }, (_, i) => u64(AT.xmm + 8 * i)) };
  }
  /** The whole state; what QEMU shows nowhere (SYSCALL's MSRs, PAT, MTRRs) is left out. */
  async snapshot(): Promise<Snapshot> {
    const text = await this.gdb.monitor("info registers"), r = await this.registers(), d = await this.gdb.registers();
    const segment = (name: string): Segment => {
      const m = new RegExp(`^${name} ?=([0-9a-f]{4}) ([0-9a-f]{8,16}) ([0-9a-f]{8}) ([0-9a-f]{8})`, "m").exec(text);
      if (!m) throw new Error(`"info registers" shows no ${name}`);
      const flags = Number.parseInt(m[4]!, 16);
      return { sel: Number.parseInt(m[1]!, 16), base: BigInt(`0x${m[2]}`), limit: Number.parseInt(m[3]!, 16), attr: (flags >> 8 & 0xff) | (flags >> 12 & 0xf00) };
    };
    const table = (name: string): [bigint, number] => { const m = new RegExp(`^${name}= +([0-9a-f]+) ([0-9a-f]+)`, "m").exec(text)!; return [BigInt(`0x${m[1]}`), Number.parseInt(m[2]!, 16)]; };
    return { ...r, segments: ["ES", "CS", "SS", "DS", "FS", "GS", "LDT", "TR"].map(segment), gdtr: table("GDT"), idtr: table("IDT"), cr8: d.getBigUint64(AT.cr8, true), kernelGsBase: d.getBigUint64(AT.kGsBase, true) };
  }
  /** Guest-physical memory from 0, through a file. */
  async physicalMemory(): Promise<Uint8Array> {
    const file = join(this.#dir, "memory");
    await this.gdb.monitor(`pmemsave 0 ${this.memoryBytes} "${file}"`);
    const bytes = readFileSync(file);
    rmSync(file);
    return bytes;
  }
  close(): void {
    this.gdb.close();
    this.#child.kill("SIGKILL");
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

const freePort = (): Promise<number> => new Promise((done, fail) => {
  const s = createServer();
  s.once("error", fail);
  s.listen(0, "127.0.0.1", () => { const { port } = s.address() as { port: number }; s.close(() => done(port)); });
});
