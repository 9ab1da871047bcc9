/**
 * A whole machine in lockstep: behind its pCPU stands an engine that lets the translator run a stretch in the machine's memory, and then the interpreter the same one in a copy of that memory, hypervisor
 * and all. Since everything that a hypercall reads and writes lies in machine memory, the copy serves those of its guest by itself. Between stretches what others wrote
 * (back ends, the hypervisor on the main thread) is carried over; in a stretch nobody else may write, so that the pCPU must run on the main thread (host.ts), and the clock stands.
 */
import { HVM_PARAM } from "../../src/abi/hvm/params.ts";
import type { Domain } from "../../src/hypervisor/domain.ts";
import { pinnedFrames } from "../../src/hypervisor/dirty_log.ts";
import { Hypervisor } from "../../src/hypervisor/hypervisor.ts";
import { DOMAIN, VCPU } from "../../src/hypervisor/objects.ts";
import { PvhPlatform } from "../../src/hypervisor/platform-pvh.ts";
import { FRAME, FRAME_FLAG } from "../../src/memory/frames.ts";
import { MACHINE, MachineMemory, PAGE_SIZE } from "../../src/memory/machine.ts";
import type { Cpu } from "../../src/x86/cpu.ts";
import { type Engine, type EngineOptions, makeInterpreter, makeTranslator } from "../../src/x86/engine.ts";
import type { Platform } from "../../src/x86/platform.ts";
import { CPU, EFLAGS, EXIT, MODE } from "../../src/x86/state.ts";
import type { TlbTurn } from "../../src/x86/tlb.ts";
import { disassemble } from "../oracle/compare.ts";
import type { Random } from "../oracle/values.ts";
import { type Registered, differing, nrDifferentWords, pageDifference, registersOf, sameRip, snapshot } from "./state.ts";

/** Where the interpreter looks for the translator's state, in instructions: from a part of the translator's count less some on, up to several times it and some. */
const WINDOW = { behind: 0.98, ahead: 3, least: 200 } as const;
/** Jumps of a bulk step are at most so many times fewer than instructions are left. */
const PER_JUMP = 40;
/** Instructions that are shown of the interpreter's way; one that came by among so many before is left out. */
const MAX_TRAIL = 200, LOOP = 24;

/** Thrown out of the interpreter's run, before an instruction: it is where the translator stopped. Many are; none asks for a stack. */
const MET = Symbol("met");

/** Both engines did not do the same; the message says where, for people. */
export class Divergence extends Error { override name = "Divergence"; }
export type TwinCounts = { stretches: number; instructions: number; pages: number; exceptions: number; steps: number };

/**
 * Interrupts come at the beginning of a stretch only: an engine may take one that comes up in the middle an instruction or a jump later than the other. The translator's stretch ends where it would take one.
 */
class Gate {
  #isOpen = true;
  #isRunning = false;
  /** called before each instruction that is stepped, and before its code is fetched, which may fault */
  look: (() => void) | null = null;
  /** @param ends whether the stretch ends where one is held back */
  constructor(platform: PvhPlatform, { v, cpuAt, cpu }: Registered, ends: boolean) {
    const pending = platform.pendingVector.bind(platform), nmi = platform.takeNmi.bind(platform), { hv } = platform, holdBack = (): void => { if (ends) Atomics.store(v.i32, (cpuAt + CPU.budget.at) >>> 2, -1); };
    platform.pendingVector = () => {
      this.look?.();
      const vector = pending(), isTaken = vector >= 0 && cpu.get(CPU.shadow) === 0 && (v.i32[(cpuAt + CPU.eflags.at) >>> 2]! & EFLAGS.IF) !== 0 && cpu.get(CPU.stiRip) !== cpu.rip;
      if (!this.#isRunning || !isTaken || this.#isOpen) { this.#isOpen = isTaken && this.#isOpen; return vector; }
      holdBack();
      return -1;
    };
    platform.takeNmi = () => {
      if (!this.#isRunning || this.#isOpen) return nmi();
      if (hv.load(VCPU.nmiPending, platform.v.at) !== 0) holdBack();
      return false;
    };
  }
  /** From the beginning of a stretch. */
  during<T>(run: () => T): T {
    this.#isOpen = this.#isRunning = true;
    try { return run(); } finally { this.#isRunning = false; }
  }
}

/** Bytes of a machine's memory, as they were. */
type Part = { readonly at: number; readonly bytes: Buffer };

/** The engine of a pCPU whose every stretch is run twice. @throws Divergence out of `run` */
export class LockstepEngine implements Engine {
  readonly counts: TwinCounts = { stretches: 0, instructions: 0, pages: 0, exceptions: 0, steps: 0 };
  onDeliver: Engine["onDeliver"] = null;
  onStep: Engine["onStep"] = null;
  private readonly real: MachineMemory;
  private readonly shadow: MachineMemory;
  private readonly realPlatform: PvhPlatform;
  private readonly twinPlatform: PvhPlatform;
  private readonly tester: Engine;
  private readonly twin: Engine;
  private readonly a: Registered;
  private readonly b: Registered;
  private readonly gates: { readonly tester: Gate; readonly twin: Gate };
  private readonly random: Random;
  /** what the two memories have in common before the trace; the frame table is carried over by itself */
  private readonly fixedBytes: number;
  private readonly delivered: { tester: string[]; twin: string[] } = { tester: [], twin: [] };
  private readonly trail: bigint[] = [];
  /** frames that either side has marked dirty in this stretch */
  private readonly marked = new Set<number>();
  /** frames of the hypervisor, and such as it shares with guests */
  private own: number[] = [];
  /** parts of the copy beside frames that a second try needs as they were, and pages of frames */
  private readonly parts: readonly Part[];
  private readonly table: Part;
  private readonly kept: Buffer[] = [];
  /** the allocator's words when the last stretch began */
  private allocator = "";
  private isNarrowing = false;
  /** told how many instructions a stretch had: the clock goes on by them */
  private readonly ran: (instructions: number) => void;

  constructor(memory: WebAssembly.Memory, at: number, platform: Platform, options: EngineOptions, random: Random, ran: (instructions: number) => void) {
    this.realPlatform = platform as PvhPlatform;
    this.real = MachineMemory.attach(memory);
    this.random = random;
    this.ran = ran;
    const { dv, u8 } = this.real.views, pages = memory.buffer.byteLength / 65536, copy = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const table = MACHINE.frameTable.get(dv, 0), trace = MACHINE.trace.get(dv, 0), end = table + MACHINE.nrFrames.get(dv, 0) * FRAME.sizeof;
    new Uint8Array(copy.buffer).set(u8.subarray(0, end));
    this.shadow = MachineMemory.attach(copy);
    this.fixedBytes = trace;
    this.tester = makeTranslator(memory, at, platform, options);
    this.twinPlatform = new PvhPlatform(new Hypervisor(this.shadow), this.realPlatform.pcpu);
    this.twin = makeInterpreter(copy, at, this.twinPlatform, { code: this.twinPlatform.code });
    this.twinPlatform.guest = this.twin;
    for (const { frames } of [this.realPlatform.hv.mm, this.twinPlatform.hv.mm]) {
      const mark = frames.markDirty.bind(frames);
      frames.markDirty = (mfn) => { this.marked.add(mfn); mark(mfn); };
    }
    this.a = { v: this.real.views, cpuAt: at, cpu: this.tester.cpu };
    this.b = { v: this.shadow.views, cpuAt: at, cpu: this.twin.cpu };
    this.table = { at: table, bytes: Buffer.alloc(end - table) };
    this.parts = [[0, trace], [at, at + CPU.sizeof]].map(([from, to]) => ({ at: from!, bytes: Buffer.alloc(to! - from!) }));
    this.gates = { tester: new Gate(this.realPlatform, this.a, true), twin: new Gate(this.twinPlatform, this.b, false) };
    this.tester.onDeliver = (vector, error, external) => { this.delivered.tester.push(`${vector}/${error}`); this.onDeliver?.(vector, error, external); };
    this.twin.onDeliver = (vector, error) => { this.delivered.twin.push(`${vector}/${error}`); };
  }
  get cpu(): Cpu { return this.tester.cpu; }
  get counters(): Readonly<Record<string, number>> { return this.tester.counters; }
  contextChanged(turn?: TlbTurn): void { this.tester.contextChanged(turn); }
  forbidWrites(isForbidden: (frame: number) => boolean): number[] { return this.tester.forbidWrites(isForbidden); }
  warmUp(): boolean { return this.tester.warmUp(); }
  prepare(places: readonly (readonly [machine: number, mode: number])[]): void { this.tester.prepare(places); }
  flushTlb(): void { this.tester.flushTlb(); }
  readLinear(linear: bigint, bytes: Uint8Array): boolean { return this.tester.readLinear(linear, bytes); }
  writeLinear(linear: bigint, bytes: Uint8Array, isHint?: boolean): boolean { return this.tester.writeLinear(linear, bytes, isHint); }

  run(budgetJumps: number): number {
    const { a, b, random, counts, delivered, gates } = this, { v } = this.realPlatform, d = v.domain;
    if (d.hv.load(DOMAIN.logDirty, d.at) === 0) {
      d.hv.store(DOMAIN.logDirty, d.at, 1);
      this.tester.flushTlb();
    }
    const pinned = this.carryOver(d);
    b.v.u8.set(a.v.u8.subarray(a.cpuAt, a.cpuAt + CPU.sizeof), b.cpuAt);
    this.twinPlatform.load(this.twinPlatform.hv.domain(d.domid)!.vcpu(v.id)!);
    this.twinPlatform.sliceEndMs = this.realPlatform.sliceEndMs;
    this.twin.contextChanged();
    delivered.tester.length = delivered.twin.length = this.trail.length = 0;

    const budget = this.isNarrowing ? 0 : Math.min(budgetJumps, random.one(4) ? random.below(60) : random.below(random.one(3) ? 20000 : 4000)), before = a.cpu.get(CPU.retired), { rip } = a.cpu;
    const exit = gates.tester.during(() => this.tester.run(budget)), nr = Number(a.cpu.get(CPU.retired) - before), keep = this.keep(pinned);
    let flaw = gates.twin.during(() => this.follow(exit, nr, nr * WINDOW.behind - WINDOW.least, pinned));
    if (flaw !== null) {
      // a long stretch without jumps may have led it past: once more, an instruction at a time
      keep(this.shadow, this.twin);
      delivered.twin.length = this.trail.length = 0;
      flaw = gates.twin.during(() => this.follow(exit, nr, 0, pinned));
    }
    if (flaw === null && delivered.tester.join() !== delivered.twin.join()) flaw = `exceptions or interrupts (vector/error code) differ: interpreter ${delivered.twin.join(" ") || "none"}; translator ${delivered.tester.join(" ") || "none"}`;
    if (flaw !== null) {
      const found = new Divergence(`${flaw}, after ${counts.instructions} instructions, ${counts.stretches} stretches; the last of ${nr} instructions from rip ${BigInt.asUintN(64, rip).toString(16)} (${budget} jumps), left with ${nameOf(exit)}\n${this.showRegisters()}\n${this.showTrail()}`);
      if (this.isNarrowing) throw found;
      keep(this.real, this.tester); keep(this.shadow, this.twin);
      const narrowed = this.narrow(nr);
      throw narrowed ? new Divergence(`${found.message.split("\n", 1)[0]}\nOnce more, in the smallest stretches: ${narrowed.message}`) : found;
    }
    this.settle();
    counts.stretches++; counts.instructions += nr; counts.exceptions += delivered.tester.length;
    this.ran(nr);
    return exit === EXIT.slice ? EXIT.yield : exit;             // the main thread wants its turn
  }

  /** The same stretch again in the smallest steps. @returns the first that differs, or null */
  private narrow(nr: number): Divergence | null {
    this.isNarrowing = true;
    for (let done = 0; done <= nr + WINDOW.least;) {
      const before = this.counts.instructions;
      try { if (this.run(0) !== EXIT.yield) return null; } catch (e) { if (e instanceof Divergence) return e; throw e; }
      done += Math.max(1, this.counts.instructions - before);
    }
    return null;
  }
  /** The interpreter's side as it is before it runs. @returns puts one of both sides there */
  private keep(pinned: ReadonlySet<number>): (mm: MachineMemory, engine: Engine) => void {
    const { shadow, kept } = this, frames = new Set<number>([...this.marked, ...this.own, ...pinned]);
    for (const { at, bytes } of [...this.parts, this.table]) Buffer.from(shadow.views.buffer, at, bytes.length).copy(bytes);
    let i = 0;
    for (const mfn of frames) this.pageOf(shadow, mfn).copy(kept[i++] ??= Buffer.alloc(PAGE_SIZE));
    return (mm, engine) => {
      const { dv, buffer } = mm.views, { at: table, bytes: entries } = this.table;
      if (mm === shadow) for (const mfn of this.marked) if (!frames.has(mfn) && this.carry(mfn)) mm.frames.newCode(mfn);        // the translator has not written there
      for (const { at, bytes } of this.parts) bytes.copy(Buffer.from(buffer, at, bytes.length));
      // who has decoded what stays as it is: the engine has done so
      for (let at = 0; at < entries.length; at += FRAME.sizeof) { dv.setUint32(table + at, entries.readUInt32LE(at), true); dv.setUint32(table + at + FRAME.refcount.at, entries.readUInt32LE(at + FRAME.refcount.at), true); }
      i = 0;
      for (const mfn of frames) { kept[i++]!.copy(this.pageOf(mm, mfn)); mm.frames.newCode(mfn); }
      engine.contextChanged();
    };
  }
  /** Run the interpreter to where the translator is, an instruction at a time after `from` instructions. @returns null, or what is wrong */
  private follow(exit: number, nr: number, from: number, pinned: ReadonlySet<number>): string | null {
    const { a, b, twin, counts } = this, { u32 } = b.v, retired = (b.cpuAt + CPU.retired.at) >>> 2, start = u32[retired]!, done = (): number => u32[retired]! - start >>> 0, to = nr * WINDOW.ahead + WINDOW.least;
    let left: number = EXIT.slice;
    const note = (rip: bigint): void => {
      counts.steps++;
      if (this.trail.includes(rip, -LOOP)) return;
      this.trail.push(rip);
      if (this.trail.length > 2 * MAX_TRAIL) this.trail.splice(0, MAX_TRAIL);
    };
    if (exit !== EXIT.slice) {
      twin.onStep = from === 0 ? note : null;
      while (left === EXIT.slice && done() <= to) left = twin.run(64);
      twin.onStep = null;
      if (left !== exit) return `the interpreter (${nameOf(left)}) does not come to where the translator is (${nameOf(exit)})`;
      return nrDifferentWords(a, b) === 0 ? this.memoryFlaw(pinned) : "registers differ";
    }
    for (let rest = from; rest > PER_JUMP; rest = from - done()) {
      left = twin.run(Math.floor(rest / PER_JUMP));
      if (left !== EXIT.slice) return `the interpreter left (${nameOf(left)}) where the translator did not`;
    }
    let nearest = Number.POSITIVE_INFINITY, flaw: string | null = null, unlike: string[] = [];
    twin.onStep = note;
    this.gates.twin.look = () => {
      if (sameRip(a, b)) {
        const n = nrDifferentWords(a, b);
        if (n < nearest) {
          const x = registersOf(snapshot(b)), y = registersOf(snapshot(a));
          nearest = n;
          unlike = differing(x, y).map((name) => `${name} ${x.get(name)}, not ${y.get(name)}`);
        }
        // registers may be as they were when a loop came by before
        if (n === 0 && (flaw = this.memoryFlaw(pinned)) === null) throw MET;
      }
      if (done() > to) b.cpu.set(CPU.budget, -1);
    };
    try {
      while (done() <= to) {
        left = twin.run(1000);
        if (left !== EXIT.slice) return `the interpreter left (${nameOf(left)}) where the translator did not`;
      }
    } catch (e) {
      if (e !== MET) throw e;
      return null;
    } finally { twin.onStep = this.gates.twin.look = null; }
    if (flaw !== null) return flaw;
    return nearest === Number.POSITIVE_INFINITY ? "the interpreter does not come by where the translator is" : `the interpreter comes by where the translator is, but in another state (${unlike.join("; ")})`;
  }

  // Memory ---------------------------------------------------------------------------
  private pageOf(mm: MachineMemory, mfn: number): Buffer { return Buffer.from(mm.views.buffer, mfn * PAGE_SIZE, PAGE_SIZE); }
  private carry(mfn: number): boolean {
    const from = this.pageOf(this.real, mfn), to = this.pageOf(this.shadow, mfn);
    if (from.equals(to)) return false;
    to.set(from);
    return true;
  }
  /** What others wrote since the last stretch goes to the copy. @returns frames that are written without being marked, and that the guest sees */
  private carryOver(d: Domain): Set<number> {
    const { real, shadow } = this, x = real.views.u32, y = shadow.views.u32, table = real.frames.entryAt(0), step = FRAME.sizeof >>> 2, pinned = new Set<number>([...pinnedFrames(d), d.hv.get(DOMAIN.sharedInfo, d.at) >>> 12]);
    const isNew = this.isOtherwiseAllocated(), renew = (mfn: number): void => { if (this.carry(mfn)) shadow.frames.newCode(mfn); };
    for (let at = 0; at < this.fixedBytes; at += PAGE_SIZE) this.carry(at / PAGE_SIZE);
    for (const p of [HVM_PARAM.STORE_PFN, HVM_PARAM.CONSOLE_PFN]) { const mfn = d.memory.machineAddress(Number(d.param(p)) * PAGE_SIZE) >>> 12; if (mfn) pinned.add(mfn); }
    if (isNew) this.own = [];
    for (let page = table / PAGE_SIZE, mfn = 0; mfn < real.frames.nrFrames; page++, mfn += PER_PAGE) {
      // where the table is not the same, others have written; or one of the engines has decoded what the other has not
      if (!isNew && this.pageOf(real, page).equals(this.pageOf(shadow, page))) continue;
      for (let i = Math.max(mfn, real.frames.firstFrame), at = real.frames.entryAt(i) >>> 2; i < mfn + PER_PAGE; i++, at += step) {
        const word = x[at]!, flags = word >>> 16;
        y[at] = word & ~DIRTY_WORD; y[at + 1] = x[at + 1]!;
        if (!(flags & FRAME_FLAG.allocated) || x[at + 1] === 0) continue;
        if (flags & (FRAME_FLAG.heap | FRAME_FLAG.shared)) { if (isNew) this.own.push(i); } else if (flags & FRAME_FLAG.dirty) { real.frames.takeDirty(i); renew(i); }
      }
    }
    for (const mfn of this.own) { renew(mfn); if (real.frames.flags(mfn) & FRAME_FLAG.shared) pinned.add(mfn); }
    for (const mfn of pinned) renew(mfn);
    this.marked.clear();
    return pinned;
  }
  private isOtherwiseAllocated(): boolean {
    const now = [MACHINE.bump, MACHINE.freeHead, MACHINE.nrFree].map((f) => f.get(this.real.views.dv, 0)).join(), isNew = now !== this.allocator;
    this.allocator = now;
    return isNew;
  }
  /** Pages that either has written in this stretch, and those that are written unmarked. @returns null, or what differs */
  private memoryFlaw(pinned: ReadonlySet<number>): string | null {
    for (const mfn of [...this.marked, ...pinned]) {
      const p = this.pageOf(this.real, mfn), q = this.pageOf(this.shadow, mfn), at = pageDifference(p, q);
      this.counts.pages++;
      if (at >= 0) return `memory differs at machine address ${(mfn * PAGE_SIZE + at).toString(16)}: interpreter ${q.subarray(at, at + 16).toString("hex")}, translator ${p.subarray(at, at + 16).toString("hex")}`;
    }
    return null;
  }
  /**
   * They are the same: a new stretch, and to the bit (A bits that the translator set ahead). A frame is clean for certain when no TLB lets stores through; the hypervisor's own too, which writes
   * runstates and times by the engine before the next stretch begins.
   */
  private settle(): void {
    for (const mfn of this.marked) {
      this.real.frames.takeDirty(mfn); this.shadow.frames.takeDirty(mfn);
      this.carry(mfn);
    }
    this.tester.flushTlb();
  }

  // For people ------------------------------------------------------------------------
  private showRegisters(): string {
    const x = registersOf(snapshot(this.b)), y = registersOf(snapshot(this.a));
    return [`  ${"".padEnd(16)} ${"interpreter".padEnd(32)} translator`, ...differing(x, y).map((n) => `  ${n.padEnd(16)} ${x.get(n)!.padEnd(32)} ${y.get(n)}`)].join("\n");
  }
  private showTrail(): string {
    const { cpu } = this.b, mode = cpu.mode & MODE.sizeMask, bits = mode === MODE.code64 ? 64 : mode === MODE.code32 ? 32 : 16, bytes = new Uint8Array(15);
    const lines = this.trail.slice(-MAX_TRAIL).map((rip) => {
      const l = this.twin.readLinear(rip, bytes) ? disassemble(bytes, rip, bits)[0] : undefined;
      return `  ${BigInt.asUintN(64, rip).toString(16).padStart(16)}  ${l?.text ?? "(not mapped)"}`;
    });
    return ["The interpreter's last instructions, before which it was compared:", ...lines].join("\n");
  }
}
/** FRAME_FLAG.dirty in the first word of a frame's entry, behind the owner. */
const PER_PAGE = PAGE_SIZE / FRAME.sizeof;
const DIRTY_WORD = FRAME_FLAG.dirty << 16;
const EXIT_NAMES = new Map<number, string>(Object.entries(EXIT).map(([name, n]) => [n, name]));
const nameOf = (exit: number): string => EXIT_NAMES.get(exit) ?? String(exit);
