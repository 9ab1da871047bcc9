/** Real code for both engines: the integer programs of bench/, and our guests, which find no Xen here and talk to the serial port. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { XEN_HVM_START_MAGIC_VALUE } from "../../src/abi/start_info.ts";
import { XEN_ELFNOTE } from "../../src/abi/elfnote.ts";
import { noteNumber, parseElf } from "../../src/builder/elf.ts";
import { CPU, CR0, CS, DS, ES, FS, GS, RBX, RSP, SS } from "../../src/x86/state.ts";
import { PROGRAMS, build } from "../../bench/programs.ts";
import { buildGuest, guestNames } from "../../guests/build.ts";
import { readSymbols } from "../compare/run.ts";
import type { Box } from "./box.ts";
import type { Program } from "./lockstep.ts";

const PAGE = 4096, HLT = 0xf4;
/** As bench/engine.ts lays them out: linear addresses from BASE on, a stack at the end. */
const BASE = 0x400000, RAM = 48 << 20, MAPPED = 40 << 20;

/** run() of a program of bench/, again and again. */
export function benchProgram(name: (typeof PROGRAMS)[number]): Program {
  const file = build(name), image = parseElf(readFileSync(file), name), run = readSymbols(execFileSync("nm", [file], { encoding: "utf8" })).get("run")!, end = MAPPED - PAGE, stack = end - 64;
  const start = (m: Box): boolean => {
    m.v.dv.setBigUint64(m.ram + stack, BigInt(BASE + end), true);
    m.engine.cpu.setGprNumber(RSP, BASE + stack); m.engine.cpu.rip = run;
    return true;
  };
  return {
    name, ramBytes: RAM, hasOwnTables: true,
    load(m) {
      for (let gpa = 0; gpa < MAPPED; gpa += PAGE) m.map(BASE + gpa, gpa);
      for (const s of image.segments) m.write(Number(s.vaddr) - BASE, s.bytes);
      m.write(end, Uint8Array.of(HLT));
      m.reset(0);
      start(m);
    },
    again: start,
  };
}

const GUEST_RAM = 16 << 20, START_INFO = 0x9000, CMDLINE = 0x9100;
/** The vector that guest "wild" has its timer on. */
const WILD_TIMER = 0x70;
/** A guest in the state that PVH begins with (docs/misc/pvh.pandoc). */
export function guest(name: string, cmdline = ""): Program {
  const image = parseElf(readFileSync(buildGuest(name)), name), entry = noteNumber(image, XEN_ELFNOTE.PHYS32_ENTRY)!;
  return {
    name: cmdline ? `${name} (${cmdline})` : name, ramBytes: GUEST_RAM, ...(name === "wild" ? { interrupt: { vector: WILD_TIMER, oneIn: 400, onlyOpen: true } } : {}),
    load(m) {
      const { cpu } = m.engine, { dv } = m.v;
      for (const s of image.segments) m.write(s.paddr, s.bytes);
      dv.setUint32(m.ram + START_INFO, XEN_HVM_START_MAGIC_VALUE, true); dv.setBigUint64(m.ram + START_INFO + 24, BigInt(CMDLINE), true);
      m.write(CMDLINE, new TextEncoder().encode(`${cmdline}\0`));
      for (const s of [ES, SS, DS, FS, GS]) cpu.setSeg(s, 0, 0, 0xffffffff, 0xc93);
      cpu.setSeg(CS, 0, 0, 0xffffffff, 0xc9b);
      cpu.set(CPU.cr0, BigInt(CR0.PE | CR0.ET)); cpu.set(CPU.cr4, 0n); cpu.set(CPU.efer, 0n); cpu.set(CPU.cr3, 0n); cpu.set(CPU.apicBase, 0xfee00900n);
      cpu.setGprNumber(RBX, START_INFO); cpu.rip = entry;
      cpu.setMode(); m.engine.contextChanged();
    },
  };
}
/** Guests that are of use without Xen. */
export const GUESTS: readonly string[] = ["paging", "modes", "tables", "smc", "syscall", "debug", "fpu", "wild"];
export const NAMES: readonly string[] = [...PROGRAMS, ...GUESTS];
/** A program or a guest by its name; "wild" has a seed. */
export function programOf(name: string, seed: number): Program | null {
  const bench = PROGRAMS.find(p => p === name);
  return bench ? benchProgram(bench) : GUESTS.includes(name) && guestNames().includes(name) ? guest(name, name === "wild" ? `seed=${seed} rounds=40` : "") : null;
}
