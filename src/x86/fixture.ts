/** A processor over plain memory, for tests: RAM from guest-physical 0, a hole above, and a diary of what the processor asked for. */
import { Views } from "../base/views.ts";
import { Cpu } from "./cpu.ts";
import { RECS_AT } from "./layout.ts";
import { P2M_AWAITED, P2M_CLEAN, P2M_CODE, P2M_READ, P2M_WRITE, type Platform } from "./platform.ts";
import { CPU, CR0, CR4, CS, DS, EFER, EFLAGS, ES, FS, GS, LDTR, SS, TR } from "./state.ts";
import { setFlags } from "./flags.ts";

const RAM_AT = (RECS_AT + 0xffff) & ~0xffff;
/** Numbers below n, by xorshift32 from a state that is not 0. */
export const random = (state: number) => (n: number): number => { state ^= state << 13; state ^= state >>> 17; state ^= state << 5; return (state >>> 0) % n; };

export class Fixture implements Platform {
  readonly cpu: Cpu;
  readonly v: Views;
  readonly frames: number;
  /** gfns whose frame holds decoded code, or may not be written */
  readonly code = new Set<number>();
  readonly readOnly = new Set<number>();
  readonly diary: string[] = [];
  readonly msrs = new Map<number, bigint>();
  tpr = 0;
  now = 1000n;

  constructor(megabytes = 4) {
    this.frames = megabytes * 256;
    this.v = new Views(new SharedArrayBuffer(RAM_AT + megabytes * 0x100000));
    this.cpu = new Cpu(this.v, 0, this);
    this.cpu.set(CPU.eflags, EFLAGS.fixed);
    this.cpu.set(CPU.fres, 1n);
    this.cpu.set(CPU.apicBase, 0xfee00900n);
    this.cpu.set(CPU.xcr0, 1n);
    this.cpu.set(CPU.mxcsr, 0x1f80);
    for (const s of [ES, CS, SS, DS, FS, GS]) this.cpu.setSeg(s, 0, 0, 0xffff, 0x93);
    this.cpu.setSeg(LDTR, 0, 0, 0xffff, 0x82); this.cpu.setSeg(TR, 0, 0, 0xffff, 0x8b);
    this.cpu.set(CPU.cr0, BigInt(CR0.ET));
    this.cpu.set(CPU.idtrLimit, 0x3ff);
    this.cpu.setMode();
  }

  // Guest-physical memory ------------------------------------------------------
  p8(gpa: number, x: number): void { this.v.dv.setUint8(RAM_AT + gpa, x); }
  p16(gpa: number, x: number): void { this.v.dv.setUint16(RAM_AT + gpa, x, true); }
  p32(gpa: number, x: number): void { this.v.dv.setUint32(RAM_AT + gpa, x, true); }
  p64(gpa: number, x: bigint): void { this.v.dv.setBigUint64(RAM_AT + gpa, BigInt.asUintN(64, x), true); }
  g8(gpa: number): number { return this.v.dv.getUint8(RAM_AT + gpa); }
  g16(gpa: number): number { return this.v.dv.getUint16(RAM_AT + gpa, true); }
  g32(gpa: number): number { return this.v.dv.getUint32(RAM_AT + gpa, true); }
  g64(gpa: number): bigint { return this.v.dv.getBigUint64(RAM_AT + gpa, true); }
  machine(gpa: number): number { return RAM_AT + gpa; }

  // Platform -------------------------------------------------------------------
  /** gfns that have not come, and what became of each that was needed; `comes`: whether a wait for it ends well */
  readonly absent = new Set<number>();
  comes = true;
  awaited(gfn: number): void { this.diary.push(`leaves for ${gfn.toString(16)}`); }
  awaitFrame(gfn: number): boolean { this.diary.push(`waits for ${gfn.toString(16)}`); if (this.comes) this.absent.delete(gfn); return this.comes; }
  frameOf(gfn: number): number {
    if (this.absent.has(gfn)) return RAM_AT + gfn * 4096 + P2M_AWAITED;
    return gfn < this.frames ? (RAM_AT + gfn * 4096) + (P2M_READ | (this.readOnly.has(gfn) ? 0 : P2M_WRITE) | (this.code.has(gfn) ? P2M_CODE : 0) | (this.clean.has(gfn) ? P2M_CLEAN : 0)) : 0;
  }
  /** Frames whose first write is to be told of. */
  readonly clean = new Set<number>();
  dirtied(frame: number): void { this.clean.delete(frame - RAM_AT / 4096); this.diary.push(`dirty ${(frame - RAM_AT / 4096).toString(16)}`); }
  mmioRead(gpa: number, size: number): bigint { this.diary.push(`read ${gpa.toString(16)} ${size}`); return BigInt.asUintN(8 * size, -1n); }
  mmioWrite(gpa: number, size: number, value: bigint): void { this.diary.push(`write ${gpa.toString(16)} ${size} ${value.toString(16)}`); }
  ioRead(port: number, size: number): number { this.diary.push(`in ${port.toString(16)} ${size}`); return 0x12345678; }
  ioWrite(port: number, size: number, value: number): void { this.diary.push(`out ${port.toString(16)} ${size} ${value.toString(16)}`); }
  cpuid(leaf: number, _subleaf: number, out: Uint32Array): void { out.fill(0); if (leaf === 0x80000008) out[0] = 0x3028; }
  rdmsr(msr: number): bigint | null { return this.msrs.get(msr) ?? null; }
  wrmsr(msr: number, value: bigint): boolean { if (!this.msrs.has(msr)) return false; this.msrs.set(msr, value); return true; }
  hypercall(): void { this.diary.push("hypercall"); }
  tsc(): bigint { return this.now; }
  ticks(): number { return Number(this.tsc()); }
  readonly tscWord = 0;
  pendingVector(): number { return -1; }
  acknowledge(vector: number): void { this.diary.push(`ack ${vector}`); }
  setTpr(tpr: number): void { this.tpr = tpr; }
  getTpr(): number { return this.tpr; }

  // States ---------------------------------------------------------------------
  /** Flat 32-bit protected mode at ring 0, no paging. */
  protected32(): this {
    this.cpu.set(CPU.cr0, BigInt(CR0.PE | CR0.ET));
    this.cpu.setSeg(CS, 0x08, 0, 0xffffffff, 0xc9b);
    for (const s of [ES, SS, DS, FS, GS]) this.cpu.setSeg(s, 0x10, 0, 0xffffffff, 0xc93);
    this.cpu.setMode();
    return this;
  }
  /** 64-bit mode at ring 0; CR3 as given; the low 4 MiB can be mapped with `map2m`. */
  long(cr3: number): this {
    this.protected32();
    this.cpu.set(CPU.cr0, BigInt(CR0.PE | CR0.ET | CR0.WP) | 1n << 31n);
    this.cpu.set(CPU.cr3, BigInt(cr3));
    this.cpu.set(CPU.cr4, BigInt(CR4.PAE | CR4.PGE));
    this.cpu.set(CPU.efer, BigInt(EFER.LME | EFER.LMA | EFER.NXE | EFER.SCE));
    this.cpu.setSeg(CS, 0x08, 0, 0xffffffff, 0xa9b);
    this.cpu.setMode();
    this.cpu.mmu.tlb.flushAll();
    return this;
  }
  /** Four levels at `cr3`, cr3+0x1000 ..: the first 1 GiB's directory; identity 2 MiB pages of RAM with `bits`. */
  identity2m(cr3: number, bits = 7): this {
    this.p64(cr3, BigInt(cr3 + 0x1007)); this.p64(cr3 + 0x1000, BigInt(cr3 + 0x2007));
    for (let i = 0; i < this.frames / 512; i++) this.p64(cr3 + 0x2000 + i * 8, BigInt(i * 0x200000 | bits | 0x80));
    return this;
  }
  /** Ring 3, keeping the code size. */
  ring3(): this {
    const { cpu } = this;
    cpu.setSeg(CS, 0x2b, 0, 0xffffffff, cpu.segAttr(CS) | 0x60);
    for (const s of [SS, DS, ES]) cpu.setSeg(s, 0x33, 0, 0xffffffff, 0xcf3);
    cpu.setMode();
    return this;
  }
  flags(value: number, mask = 0x3fffff): void { setFlags(this.cpu, value, mask); this.cpu.setMode(); }
}
