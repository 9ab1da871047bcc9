/** Refills of the TLB by generated code beside Mmu.fill's, on two machines that differ in nothing else: the same faults, the same entries, the same notes of them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FRAME } from "../memory/frames.ts";
import { P2M_RW } from "../memory/p2m.ts";
import { random as xorshift } from "./fixture.ts";
import { FlatMachine } from "./flat-machine.ts";
import { BANK_BYTES, REFILLS_AT, TLB_AT, WALKS_AT, WRITERS_AT } from "./layout.ts";
import { PTE } from "./mmu.ts";
import { CPU, CR0, CR4, EFER, EFLAGS, RAX, RDI } from "./state.ts";

const RAM = 8 << 20, NR_FRAMES = RAM / 4096, ROOT = 0x700000, BUSY = 0x704000, FRAMES = 0x710000;
const CODE = 0x400000, CODE_GPA = 0x10000, LOAD = 0, STORE = 16;
/** Pages in a 2 MiB region of small ones, and the begin of one that is a large page now and then; they have the same places in the TLB. */
const SMALL = 0x180_4000_0000, LARGE = 0x180_4100_0000, NR_PAGES = 24, BASE = 0x80000;

function machine(isWalked: boolean): FlatMachine {
  const m = new FlatMachine(RAM), { u32 } = m.v, at = (gpa: number): number => (m.ram + gpa) >>> 2;
  u32[at(ROOT)] = m.ram + ROOT + 0x1000;
  for (let leaf = 0; leaf < NR_FRAMES / 1024; leaf++) {
    const table = ROOT + 0x2000 + leaf * 0x1000;
    u32[at(ROOT + 0x1000) + leaf] = m.ram + table;
    for (let i = 0; i < 1024; i++) u32[at(table) + i] = m.ram + (leaf * 1024 + i) * 4096 + P2M_RW;
  }
  if (isWalked) Object.assign(m, { walk: () => ({ p2mRoot: m.ram + ROOT, frameTable: m.ram + FRAMES, busy: [m.ram + BUSY, m.ram + BUSY + 4], isShared: false }) });
  m.map(CODE, CODE_GPA);
  m.write(CODE_GPA + LOAD, Uint8Array.of(0x48, 0x8b, 0x07, 0xf4));        // mov rax, [rdi]; hlt
  m.write(CODE_GPA + STORE, Uint8Array.of(0x48, 0x89, 0x07, 0xf4));       // mov [rdi], rax; hlt
  for (let i = 0; i < NR_PAGES; i++) { m.map(SMALL + i * 4096, BASE + i * 4096); m.map(LARGE + i * 4096, BASE + i * 4096); }
  return m;
}
type Level = 1 | 2 | 3 | 4;
/** Byte address of a linear page's entry in the guest's tables, at that level. */
function entryOf(m: FlatMachine, linear: number, level: Level): number {
  let t = m.root;
  for (const shift of [39, 30, 21, 12].slice(0, 4 - level)) t = Number(m.v.u64[(m.ram + t + Math.floor(linear / 2 ** shift) % 512 * 8) >>> 3]! & 0xfffff000n);
  return m.ram + t + Math.floor(linear / 2 ** (3 + 9 * level)) % 512 * 8;
}
/** One access, to its end. */
function access(m: FlatMachine, linear: number, isStore: boolean, value: number): (string | number | bigint)[] {
  const { engine } = m, { cpu } = engine, faults: number[] = [], { onCodeWrite } = cpu;
  let nrTold = 0;
  cpu.rip = BigInt(CODE + (isStore ? STORE : LOAD));
  cpu.setGpr(RAX, BigInt(value)); cpu.setGpr(RDI, BigInt.asUintN(64, BigInt(linear))); cpu.set(CPU.fault, 0); cpu.set(CPU.exit, 0); cpu.set(CPU.delivering, -1); cpu.set(CPU.halted, 0);
  engine.onDeliver = (vector, errorCode) => { faults.push(vector, errorCode); };
  cpu.onCodeWrite = (at, bytes) => { nrTold++; onCodeWrite(at, bytes); };
  const exit = engine.run(1000);
  cpu.onCodeWrite = onCodeWrite;
  return [exit, nrTold, ...faults.slice(0, 2), cpu.gpr(RAX), cpu.get(CPU.cr2)];
}
const AREAS = [["the TLB", TLB_AT, BANK_BYTES], ["remembered walks", WALKS_AT, REFILLS_AT - WALKS_AT]] as const;

test("what generated code makes of a miss is what Mmu.fill makes of it, as pages, rights and modes change", () => {
  const random = xorshift(20071107), both = [machine(true), machine(false)] as const, log: string[] = [];
  const each = (what: string, f: (m: FlatMachine) => void): void => { log.push(what); for (const m of both) f(m); };
  const mode = (cpl: 0 | 3, flags: number, cr0: number, cr4: number, nxe: number): void => each(`CPL ${cpl}, eflags ${flags}, CR0 ${cr0}, CR4 ${cr4}, EFER.NXE ${nxe}`, (m) => {
    const { cpu } = m.engine;
    m.reset(cpl);
    cpu.eflags = EFLAGS.fixed | flags;
    cpu.set(CPU.cr0, BigInt((CR0.PE | CR0.MP | CR0.ET | CR0.NE | cr0 | CR0.PG) >>> 0));
    cpu.set(CPU.cr4, BigInt(CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT | cr4));
    cpu.set(CPU.efer, BigInt(cpu.efer & ~EFER.NXE | nxe));
    cpu.setMode(); m.engine.contextChanged();
  });
  let nrStores = 0, nrTold = 0;
  for (let step = 0; step < 30000; step++) {
    const linear = (random(2) ? SMALL : LARGE) + random(NR_PAGES) * 4096, gpa = BASE + random(NR_PAGES) * 4096;
    switch (random(14)) {
      case 0: case 1: {
        const bits = [PTE.P, PTE.RW, PTE.US, PTE.A, PTE.D, PTE.G].reduce((sum, bit) => sum | (random(5) ? bit : 0), 0), high = random(8) ? 0n : 1n << BigInt(random(2) ? 63 : 40 + random(23)), isTold = random(4) > 0;
        each(`0x${linear.toString(16)} is 0x${gpa.toString(16)} ${bits}`, (m) => {
          if (m.v.u32[entryOf(m, linear, 2) >>> 2]! & PTE.PS) return;
          m.v.u64[entryOf(m, linear, 1) >>> 3] = BigInt(gpa | bits) | high;
          if (isTold) m.engine.cpu.mmu.tlb.invlpg(linear);
        });
        break;
      }
      case 2: if (random(2) === 0) {
        const isLarge = random(3) > 0, isTold = random(2) > 0, bits = [PTE.RW, PTE.US, PTE.A, PTE.D, PTE.G].reduce((sum, bit) => sum | (random(4) ? bit : 0), PTE.P | PTE.PS) | (random(3) ? 0 : 0x2000);
        each(`a large page: ${isLarge}, ${bits}`, (m) => {
          const at = entryOf(m, LARGE, 2) >>> 3;
          small.set(m, small.get(m) ?? m.v.u64[at]!);
          m.v.u64[at] = isLarge ? BigInt(0x400000 | bits) : small.get(m)!;
          if (isTold) m.engine.cpu.mmu.tlb.invlpg(LARGE);
        });
      }
        break;
      case 3: if (random(3) === 0) {
        const how = random(3);
        each(`flush ${how}`, (m) => { const { tlb } = m.engine.cpu.mmu; if (how === 0) tlb.flushLocal(); else if (how === 1) tlb.flushAll(); else tlb.invlpg(linear); });
      }
        break;
      case 4: if (random(3) === 0) {
        const isCode = random(2) === 0, level = [null, 1, 2, 3, null, null, null, null][random(8)] as Level | null, what = level ? `the table of level ${level}` : `frame 0x${gpa.toString(16)}`;
        each(`${what} has code: ${isCode}`, (m) => {
          const frame = level ? entryOf(m, linear, level) >>> 12 : (m.ram + gpa) / 4096;
          if (isCode) { m.codeFrames.add(frame); m.engine.cpu.mmu.tlb.protectFrame(frame); } else m.codeFrames.delete(frame);
          m.v.u32[(m.ram + FRAMES + frame * FRAME.sizeof + FRAME.codeCpus.at) >>> 2] = isCode ? 1 : 0;
        });
      }
        break;
      case 5: if (random(3) === 0) {       // an entry on the way
        const level = 2 + random(3) as Level, bits = [PTE.RW, PTE.US, PTE.A].reduce((sum, bit) => sum | (random(6) ? bit : 0), random(12) ? PTE.P : 0) | (level === 4 && random(12) === 0 ? PTE.PS : 0), high = random(12) ? 0n : 1n << BigInt(random(2) ? 63 : 40 + random(23)), how = random(4);
        each(`level ${level} of 0x${linear.toString(16)} has ${bits}, ${high.toString(16)}`, (m) => {
          const at = entryOf(m, linear, level) >>> 3, was = m.v.u64[at]!;
          if (level === 2 && was & BigInt(PTE.PS)) return;
          m.v.u64[at] = was & 0xfffff000n | BigInt(bits) | high;
          const { tlb } = m.engine.cpu.mmu;
          if (how === 0) tlb.flushLocal(); else if (how === 1) tlb.flushAll(); else if (how === 2) tlb.invlpg(linear);
        });
      }
        break;
      case 6: if (random(8) === 0) mode(random(2) ? 0 : 3, random(2) ? EFLAGS.AC : 0, random(4) ? CR0.WP : 0, (random(2) ? CR4.SMAP : 0) | (random(3) ? CR4.PGE : 0), random(4) ? EFER.NXE : 0);
        break;
      case 7: if (random(8) === 0) { const busy = random(8); each(`busy ${busy}`, (m) => { m.v.u32[(m.ram + BUSY + 4 * (busy & 1)) >>> 2] = busy < 2 ? 1 : 0; }); }
        break;
      default: {
        const isStore = random(2) === 0, at = linear + random(512) * 8, seen = both.map((m) => access(m, at, isStore, step));
        log.push(`${isStore ? "store" : "load"} 0x${at.toString(16)}`);
        const last = log.slice(-12).join("; ");
        assert.deepEqual(seen[0], seen[1], last);
        for (const [what, from, bytes] of AREAS) {
          const [a, b] = both.map((m) => Buffer.from(m.v.buffer, from, bytes)) as [Buffer, Buffer];
          assert.equal(a.compare(b), 0, `${what}: ${last}`);
        }
        for (const [level, size] of [[1, NR_PAGES * 8], [2, 8], [3, 8], [4, 8]] as const) for (const region of [SMALL, LARGE]) {
          const [a, b] = both.map((m) => Buffer.from(m.v.buffer, entryOf(m, region, level), size)) as [Buffer, Buffer];
          if (level > 1 || !(both[0].v.u32[entryOf(both[0], region, 2) >>> 2]! & PTE.PS)) assert.equal(a.compare(b), 0, `tables: ${last}`);
        }
        if (isStore && seen[0]!.length === 4) nrStores++;
        nrTold += seen[0]![1] as number;
      }
    }
  }
  const [walked, plain] = both.map((m) => m.engine.counters["refills"]);
  assert.ok(walked! > 1400 && plain === 0 && nrStores > 500 && nrTold > 20, `${walked} refills, ${plain} without, ${nrStores} stores, ${nrTold} to code`);
  const counts = both.map((m) => Buffer.from(new Uint8Array(m.v.buffer, WRITERS_AT, m.v.buffer.byteLength / 4096 * 2)));
  assert.equal(counts[0]!.compare(counts[1]!), 0, "how many entries let stores through");
});
/** Entries that led to tables, while a large page stands in their place. */
const small = new Map<FlatMachine, bigint>();
