/**
 * The translator at work: a record that has become hot becomes the seed of a region, whose image is put in the place of the records it begins at. A
 * region is never widened, since that would throw away what V8 has optimised: where it is left often, the way out becomes hot in its turn, and
 * the seed of a region that may well lead back into the same loop.
 */
import type { CodeCache, Page } from "./code-cache.ts";
import type { Cpu } from "./cpu.ts";
import { type Insn, Undecodable, decode } from "./decode.ts";
import { SLOT, entryTable } from "./entry-table.ts";
import { REC } from "./layout.ts";
import { type RegionSource, discover } from "./region.ts";
import { STRADDLE } from "./runtime.ts";
import { CPU, MODE } from "./state.ts";
import { RegionGen, type RegionImage, dataLayout } from "./translate.ts";
import type { MemorySpec } from "../wasm/writer.ts";

/** A block is taken into a region when it has been met this part of what makes it hot. */
const WARM_PART = 8;

export type RegionHost = {
  readonly memory: MemorySpec; readonly tableSize: number;
  /** Arrivals that make a record hot; 0: translate everything at once, for tests. */
  readonly heat: number;
  /** Make a module of the bytes, its function "r" into a table slot. @returns the slot */
  install(bytes: Uint8Array<ArrayBuffer>): number;
  /** Stubs for records decoded meanwhile. */
  makeStubs(): void;
};

export class Regions {
  private readonly cpu: Cpu;
  private readonly code: CodeCache;
  private readonly host: RegionHost;
  private readonly gen = new RegionGen();
  readonly counters = { regions: 0, regionInsns: 0, regionBytes: 0, translateMs: 0 };

  constructor(cpu: Cpu, code: CodeCache, host: RegionHost) { this.cpu = cpu; this.code = code; this.host = host; }

  /** The record of the instruction at CPU.rip has become hot. */
  heated(rec: number): void {
    const { cpu, host } = this, { mode } = cpu, { i32 } = cpu.v;
    if ((mode & MODE.sizeMask) !== MODE.code64) return;
    const linear = Number(BigInt.asIntN(64, cpu.rip)), machine = cpu.mmu.peekCode(linear), home = machine ? this.code.known(machine, mode) : null;
    if (!home) return;
    if (i32[rec >>> 2] !== i32[(rec + REC.stub) >>> 2]) return;
    const began = performance.now(), pages = new Map<number, Page | null>([[0, home]]), base = linear - (linear & 4095);
    const pageAt = (distance: number): Page | null => {
      let p = pages.get(distance);
      if (p === undefined) {
        const m = cpu.mmu.peekCode(base + distance * 4096);
        pages.set(distance, p = m ? this.code.known(m, mode) : null);
      }
      return p;
    };
    const region = discover(linear & 4095, this.source(pageAt, mode));
    if (region.blocks.length > 0) {
      host.makeStubs();
      this.install(this.gen.translate(region, host.memory, host.tableSize), pageAt);
    }
    this.counters.translateMs += performance.now() - began;
  }

  private source(pageAt: (distance: number) => Page | null, mode: number): RegionSource {
    const { v } = this.cpu, known = new Map<number, Insn | null>(), { heat } = this.host;
    const at = (pos: number): Insn | null => {
      const distance = Math.floor(pos / 4096), off = pos - distance * 4096, p = pageAt(distance), rec = p?.at.get(off);
      if (!p || rec === undefined) return null;
      const machine = p.key % 2 ** 32;
      if (v.i32[(rec + REC.stub) >>> 2]! > STRADDLE) return decodeAt(v.u8, machine + off, machine + 4096, mode);
      const q = pageAt(distance + 1);
      if (!q || v.i32[(rec + REC.stub) >>> 2] !== STRADDLE || v.u32[(rec + REC.imm) >>> 2] !== q.key % 2 ** 32) return null;
      const b = new Uint8Array(32), n = 4096 - off;
      b.set(v.u8.subarray(machine + off, machine + 4096)); b.set(v.u8.subarray(q.key % 2 ** 32, q.key % 2 ** 32 + 32 - n), n);
      return decodeAt(b, 0, 32, mode);
    };
    return {
      insnAt: (pos) => {
        let i = known.get(pos);
        if (i === undefined) known.set(pos, i = at(pos));
        return i;
      },
      isWarm: (pos) => {
        if (heat === 0) return true;
        const distance = Math.floor(pos / 4096), p = pageAt(distance), rec = p?.at.get(pos - distance * 4096);
        return rec !== undefined && heat - v.i32[(rec + REC.heat) >>> 2]! >= heat / WARM_PART;
      },
      entries: (page) => [...pageAt(page)?.at.keys() ?? []].map(off => page * 4096 + off),
    };
  }

  /** Put an image in its place. What cannot be had (room, an instruction that was never met) leaves everything as it was. */
  private install(image: RegionImage, pageAt: (distance: number) => Page | null): void {
    const { v } = this.cpu, { code, host } = this, table = entryTable(image.entries.map(e => e.pos)), layout = dataLayout(image.pages.length, table, image.exits.length);
    const data = code.reserve(layout.size);
    if (data === 0) return;
    for (let n = 0; n < image.pages.length; n++) v.u32[(data + n * 4) >>> 2] = pageAt(image.pages[n]!)!.key % 2 ** 32;
    v.u8.set(table.displacements, data + layout.displacements);
    v.u8.fill(0, data + layout.slots, data + layout.exits);
    for (let n = 0; n < table.nrSlots; n++) v.dv.setBigInt64(data + layout.slots + n * SLOT.size, 1n << 62n, true);
    for (const [slot, n] of table.slots) {
      const { pos, block } = image.entries[n]!, at = data + layout.slots + slot * SLOT.size;
      v.dv.setBigInt64(at + SLOT.pos, BigInt(pos), true);
      v.i32[(at + SLOT.sel) >>> 2] = block + 1; v.i32[(at + SLOT.page) >>> 2] = 1 << image.pages.indexOf(Math.floor(pos / 4096));
    }
    const recOf = (pos: number): number => code.recordAt(pageAt(Math.floor(pos / 4096))!, pos & 4095);
    for (let n = 0; n < image.exits.length; n++) {
      const rec = recOf(image.exits[n]!);
      if (rec === 0) return;
      v.i32[(data + layout.exits + n * 4) >>> 2] = rec;
    }
    const begins = image.entries.filter(e => e.pos >= 0 && e.pos < 4096).map(e => [recOf(e.pos), e.block] as const);
    host.makeStubs();
    const slot = host.install(image.bytes), recs: number[] = [];
    for (const [rec, block] of begins) {
      if (rec === 0 || v.i32[rec >>> 2] !== v.i32[(rec + REC.stub) >>> 2]) continue;        // another region begins there
      v.i32[rec >>> 2] = slot; v.u16[(rec + REC.block) >>> 1] = block + 1; v.i32[(rec + REC.data) >>> 2] = data;
      recs.push(rec);
    }
    code.place({ slot, recs, pages: image.pages.map(distance => pageAt(distance)!) });
    this.counters.regions++; this.counters.regionInsns += image.nrInsns; this.counters.regionBytes += image.bytes.length;
  }
}
function decodeAt(m: Uint8Array, from: number, to: number, mode: number): Insn | null {
  try { return decode(m, from, to, mode); } catch (e) { if (!(e instanceof Undecodable)) throw e; return null; }
}
