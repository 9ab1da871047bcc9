/** Our engine as a subject: a flat machine in 64-bit user mode with the oracle's address space, and gates that end the case. */
import { CASE, CODE, CODE_BYTES, FX, NO_TRAP, RESULT, type Batch, type Subject, TRAP_TIMEOUT, WINDOW, WINDOW_BYTES, storeChanges } from "./format.ts";
import { FlatMachine } from "../../src/x86/flat-machine.ts";
import { getFlags, setFlags } from "../../src/x86/flags.ts";
import { ATTR, CPU, CS, EXIT, GS, TR } from "../../src/x86/state.ts";

/** Where things lie in guest-physical memory; linear addresses of the kernel's pages. */
const GPA = { window: 0x10000, code: 0x20000, kernel: 0x30000 } as const;
const KERNEL = 0x7f5a00000000, IDT = KERNEL, GDT = KERNEL + 0x1000, TSS = KERNEL + 0x2000, STACK_TOP = KERNEL + 0x5000, HALT = KERNEL + 0x3f00;
const KERNEL_CS = 0x10, HLT = 0xf4, INT3 = 0xcc, BUDGET = 100000;
const VECTORS = 32, BP = 3, OF = 4;

export class EngineSubject implements Subject {
  readonly name = "engine";
  readonly machine: FlatMachine;
  #vector = 0; #error = 0;
  #window: Uint32Array<SharedArrayBuffer>;

  constructor(make?: ConstructorParameters<typeof FlatMachine>[1]) {
    const m = this.machine = make ? new FlatMachine(8 << 20, make) : new FlatMachine();
    for (let p = 0; p < 2; p++) { m.map(WINDOW + p * 4096, GPA.window + p * 4096, { executable: false }); m.map(CODE + p * 4096, GPA.code + p * 4096); }
    for (let p = 0; p < 5; p++) m.map(KERNEL + p * 4096, GPA.kernel + p * 4096, { user: false });
    for (let p = 0; p < 2; p++) noExecute(m, WINDOW + p * 4096);
    const put64 = (linear: number, x: bigint): void => m.v.dv.setBigUint64(m.ram + GPA.kernel + linear - KERNEL, x, true);
    for (let v = 0; v < VECTORS; v++) {
      const h = BigInt(v === OF ? HALT + 1 : HALT), dpl = v === BP || v === OF ? 3n : 0n;
      put64(IDT + 16 * v, (h & 0xffffn) | BigInt(KERNEL_CS) << 16n | (0x8en | dpl << 5n) << 40n | (h >> 16n & 0xffffn) << 48n);
      put64(IDT + 16 * v + 8, h >> 32n);
    }
    put64(GDT + KERNEL_CS, 0x00af9b000000ffffn);
    put64(TSS + 4, BigInt(STACK_TOP));
    m.v.u8.fill(HLT, m.ram + GPA.kernel + HALT - KERNEL, m.ram + GPA.kernel + HALT - KERNEL + 2);
    m.v.u8.fill(INT3, m.ram + GPA.code, m.ram + GPA.code + CODE_BYTES);
    this.#window = new Uint32Array(m.v.buffer, m.ram + GPA.window, WINDOW_BYTES / 4);
    m.engine.onDeliver = (vector, error) => { this.#vector = vector; this.#error = error; };
  }

  run(batch: Batch): Promise<Uint8Array<ArrayBuffer>> {
    const results = new Uint8Array(batch.nrCases * RESULT.sizeof), out = new DataView(results.buffer), m = this.machine;
    const template = new Uint8Array(WINDOW_BYTES), was = new Uint32Array(template.buffer);
    template.set(batch.window);
    m.v.u8.set(template, m.ram + GPA.window);
    for (let i = 0; i < batch.nrCases; i++) {
      const at = batch.at(i), patchAt = CASE.patchOffset.get(batch.dv, at), patchLen = CASE.patchLen.get(batch.dv, at);
      if (patchLen) {
        const patch = batch.bytes.subarray(at + CASE.patch.at, at + CASE.patch.at + patchLen);
        template.set(patch, patchAt);
        m.v.u8.set(patch, m.ram + GPA.window + patchAt);
      }
      try { this.#case(batch, i, out); } catch (e) { out.setUint32(i * RESULT.sizeof, 0xdead, true); this.onCrash?.(batch, i, e); }
      storeChanges(out, i * RESULT.sizeof, was, this.#window);
      if (patchLen) template.set(batch.window.subarray(patchAt, patchAt + patchLen), patchAt);
      if (patchLen || RESULT.nrChanges.get(out, i * RESULT.sizeof)) this.#window.set(was);
    }
    return Promise.resolve(results);
  }
  /** Told when the engine itself throws; the case then differs by the impossible vector 0xdead. */
  onCrash: ((batch: Batch, i: number, e: unknown) => void) | null = null;
  close(): void {}

  #putCode(offset: number, bytes: Uint8Array): void {
    const m = this.machine, at = m.ram + GPA.code + offset, { cpu } = m.engine;
    for (let p = 0; p < bytes.length;) {
      const n = Math.min(bytes.length - p, 4096 - ((at + p) & 4095));
      cpu.onCodeWrite(at + p, n);
      p += n;
    }
    m.v.u8.set(bytes, at);
  }

  #case(batch: Batch, i: number, out: DataView): void {
    const m = this.machine, { cpu } = m.engine, { dv } = m.v, b = batch.dv, at = batch.at(i), to = i * RESULT.sizeof;
    const code = batch.code(i), offset = CASE.codeOffset.get(b, at), start = CODE + offset, end = start + code.length;
    // an earlier case's wild store may have left something behind this one's end
    this.#putCode(end - CODE, FILLER.subarray(0, BEHIND));
    this.#putCode(offset, code);
    m.reset(3);
    cpu.setSeg(GS, 0x2b, WINDOW, 0xffffffff, 0xcf3);
    if (CASE.compat.get(b, at)) cpu.setSeg(CS, 0x23, 0, 0xffffffff, ATTR.g | ATTR.db | 0xfb);
    cpu.setSeg(TR, 0x20, TSS, 0x67, 0x8b);
    cpu.set(CPU.gdtrBase, BigInt(GDT)); cpu.set(CPU.gdtrLimit, 0x7f); cpu.set(CPU.idtrBase, BigInt(IDT)); cpu.set(CPU.idtrLimit, VECTORS * 16 - 1);
    for (let g = 0; g < 16; g++) cpu.setGpr(g, b.getBigUint64(at + CASE.gpr.at + 8 * g, true));
    setFlags(cpu, b.getUint32(at + CASE.rflags.at, true), 0x3fffff);
    cpu.setMode();
    loadFx(dv, cpu.at, b, at + CASE.fx.at);
    cpu.set(CPU.halted, 0); cpu.set(CPU.shadow, 0); cpu.set(CPU.delivering, -1); cpu.set(CPU.cr2, 0n);
    cpu.rip = BigInt(start);
    this.#vector = -1; this.#error = 0;
    const exit = m.engine.run(BUDGET);
    // the frame the gate pushed: rip, cs, rflags, rsp, ss below rsp0, with an error code under it for some
    const frame = m.ram + GPA.kernel + STACK_TOP - KERNEL - 40;
    let rip = dv.getBigUint64(frame, true), flags = dv.getUint32(frame + 16, true), rsp = dv.getBigUint64(frame + 24, true), trap = this.#vector >= 0 ? this.#vector : cpu.rip === BigInt(HALT + 2) ? OF : BP;   // onDeliver is not told of INT3 and INTO
    if (exit === EXIT.slice) { trap = TRAP_TIMEOUT; rip = cpu.rip; flags = getFlags(cpu); rsp = cpu.gpr(4); }
    else if (exit !== EXIT.halt) trap = 0xbad0 + exit;
    else if (trap === BP && rip === BigInt(end + 1)) { trap = NO_TRAP; rip--; }
    RESULT.trap.set(out, to, trap);
    RESULT.errorCode.set(out, to, this.#error);
    RESULT.cr2.set(out, to, trap === 14 ? BigInt.asUintN(64, cpu.get(CPU.cr2)) : 0n);
    for (let g = 0; g < 16; g++) out.setBigUint64(to + RESULT.gpr.at + 8 * g, g === 4 ? rsp : cpu.gpr(g), true);
    RESULT.rip.set(out, to, rip);
    out.setUint32(to + RESULT.rflags.at, flags, true);
    storeFx(dv, cpu.at, out, to + RESULT.fx.at);
    this.#putCode(offset, FILLER.subarray(0, code.length + BEHIND));
  }
}
const FILLER = new Uint8Array(128).fill(INT3);
/** Bytes behind the code that native.c overwrites with its jump out and then fills. */
const BEHIND = 14;

/** Set the no-execute bit of a mapped page, as the host's window has it. */
function noExecute(m: FlatMachine, linear: number): void {
  let table = m.root;
  for (const shift of [39, 30, 21]) table = Number(m.v.dv.getBigUint64(m.ram + table + 8 * (Math.floor(linear / 2 ** shift) & 511), true) & 0xffffffffff000n);
  const at = m.ram + table + 8 * (linear >>> 12 & 511);
  m.v.dv.setBigUint64(at, m.v.dv.getBigUint64(at, true) | 1n << 63n, true);
}

/** FXSAVE's register order follows the stack's top; the register file has physical numbers. */
function loadFx(cpu: DataView, base: number, fx: DataView, at: number): void {
  const fsw = fx.getUint16(at + FX.fsw, true), top = fsw >> 11 & 7;
  CPU.fcw.set(cpu, base, fx.getUint16(at + FX.fcw, true) | 0x40);
  CPU.fsw.set(cpu, base, fsw);
  CPU.ftw.set(cpu, base, fx.getUint8(at + FX.ftw));
  CPU.fop.set(cpu, base, 0); CPU.fip.set(cpu, base, 0n); CPU.fdp.set(cpu, base, 0n);
  CPU.mxcsr.set(cpu, base, fx.getUint32(at + FX.mxcsr, true));
  for (let s = 0; s < 8; s++) {
    const r = base + CPU.st.at + 16 * ((s + top) & 7);
    cpu.setBigUint64(r, fx.getBigUint64(at + FX.st + 16 * s, true), true);
    cpu.setBigUint64(r + 8, BigInt(fx.getUint16(at + FX.st + 16 * s + 8, true)), true);
  }
  for (let k = 0; k < 256; k += 8) cpu.setBigUint64(base + CPU.xmm.at + k, fx.getBigUint64(at + FX.xmm + k, true), true);
}
function storeFx(cpu: DataView, base: number, fx: DataView, at: number): void {
  const fsw = CPU.fsw.get(cpu, base), top = fsw >> 11 & 7;
  fx.setUint16(at + FX.fcw, CPU.fcw.get(cpu, base), true);
  fx.setUint16(at + FX.fsw, fsw, true);
  fx.setUint8(at + FX.ftw, CPU.ftw.get(cpu, base));
  fx.setUint32(at + FX.mxcsr, CPU.mxcsr.get(cpu, base), true);
  for (let s = 0; s < 8; s++) {
    const r = base + CPU.st.at + 16 * ((s + top) & 7);
    fx.setBigUint64(at + FX.st + 16 * s, cpu.getBigUint64(r, true), true);
    fx.setUint16(at + FX.st + 16 * s + 8, cpu.getUint16(r + 8, true), true);
  }
  for (let k = 0; k < 256; k += 8) fx.setBigUint64(at + FX.xmm + k, cpu.getBigUint64(base + CPU.xmm.at + k, true), true);
}
export const engineSubject = (make?: ConstructorParameters<typeof EngineSubject>[0]): EngineSubject => {
  const subject = new EngineSubject(make);
  let told = 0;
  subject.onCrash = (batch, i, e) => { if (told++ < 3) console.error(`The engine threw on ${batch.names[i]}: ${e instanceof Error ? e.stack : e}`); };
  return subject;
};
