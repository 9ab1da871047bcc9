/** Runs a program's run() on an engine without any hypervisor or kernel around it, and counts instructions. */
import { readFileSync } from "node:fs";
import { FlatMachine } from "../src/x86/flat-machine.ts";
import { CPU, EXIT, RAX, RSP } from "../src/x86/state.ts";
import { build, type Program } from "./programs.ts";

const BASE = 0x400000, RAM = 48 << 20, MAPPED = 40 << 20, PAGE = 4096, PT_LOAD = 1, SHT_SYMTAB = 2, HLT = 0xf4;

/** A static 64-bit ELF file's segments and one symbol. ELF-64 Object File Format, sections 3 to 8. */
function readElf(file: Uint8Array, symbol: string): { segments: { at: number; bytes: Uint8Array }[]; address: number } {
  const v = new DataView(file.buffer, file.byteOffset, file.byteLength), u64 = (at: number) => Number(v.getBigUint64(at, true)), u32 = (at: number) => v.getUint32(at, true);
  const headers = Array.from({ length: v.getUint16(56, true) }, (_, i) => u64(32) + i * 56).filter((h) => u32(h) === PT_LOAD);
  const segments = headers.map((h) => ({ at: u64(h + 16), bytes: file.subarray(u64(h + 8), u64(h + 8) + u64(h + 32)) }));
  const section = (i: number) => u64(40) + i * 64;
  for (let i = 0; i < v.getUint16(60, true); i++) {
    const s = section(i);
    if (u32(s + 4) !== SHT_SYMTAB) continue;
    const strings = u64(section(u32(s + 40)) + 24);
    for (let at = u64(s + 24); at < u64(s + 24) + u64(s + 32); at += 24) {
      const from = strings + u32(at);
      if (new TextDecoder().decode(file.subarray(from, file.indexOf(0, from))) === symbol) return { segments, address: u64(at + 8) };
    }
  }
  throw new Error(`No symbol "${symbol}"`);
}

export type EngineRun = { readonly digest: string; readonly instructions: number; readonly ms: number };

/** Run it so often on one machine; the first time finds nothing decoded. */
export function runOnEngine(name: Program, times: number): EngineRun[] {
  const { segments, address } = readElf(readFileSync(build(name)), "run"), m = new FlatMachine(RAM), { cpu } = m.engine;
  for (let gpa = 0; gpa < MAPPED; gpa += PAGE) m.map(BASE + gpa, gpa);
  for (const s of segments) m.write(s.at - BASE, s.bytes);
  const end = MAPPED - PAGE, stack = end - 64;
  m.write(end, Uint8Array.of(HLT));
  return Array.from({ length: times }, () => {
    m.reset(0);
    m.v.dv.setBigUint64(m.ram + stack, BigInt(BASE + end), true);
    cpu.setGprNumber(RSP, BASE + stack);
    cpu.rip = BigInt(address);
    const retired = cpu.get(CPU.retired), begun = performance.now();
    let why: number;
    do why = m.engine.run(2_000_000); while (why === EXIT.slice);
    const ms = performance.now() - begun;
    if (why !== EXIT.halt) throw new Error(`${name} ended with exit ${why} at ${cpu.rip.toString(16)}`);
    return { digest: BigInt.asUintN(64, cpu.gpr(RAX)).toString(16).padStart(16, "0"), instructions: Number(cpu.get(CPU.retired) - retired), ms };
  });
}
