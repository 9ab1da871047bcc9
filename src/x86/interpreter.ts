/**
 * The interpreter: decoded records dispatched to stubs, and the run loop around them that finds code, delivers exceptions and takes
 * interrupts. Everything architectural is in the CPU struct; what is here can be thrown away at any time.
 */
import { Views } from "../base/views.ts";
import type { MemorySpec } from "../wasm/writer.ts";
import { CodeCache, type CodeHooks } from "./code-cache.ts";
import { Cpu, canonical } from "./cpu.ts";
import { ADDR, type Insn, Undecodable, decode } from "./decode.ts";
import type { Engine, EngineOptions } from "./engine.ts";
import { deliver } from "./exceptions.ts";
import { GuestFault, NO_VECTOR } from "./fault.ts";
import { fpHelpers } from "./fp-glue.ts";
import { CONTEXT, REC, REFILLS_AT } from "./layout.ts";
import type { Platform } from "./platform.ts";
import { Modules } from "./modules.ts";
import { Regions, warmAfter } from "./regions.ts";
import { STACK_INSNS } from "./rows.ts";
import { RUNTIME_IMPORTS, STRADDLE, runtimeModule } from "./runtime.ts";
import { ATTR, CPU, CS, EFLAGS, EXIT, MODE, RSP, SEG, SS, VECTOR, segAt } from "./state.ts";
import { bulkMovs, bulkStos } from "./strings.ts";
import { type Form, formKey, formOf, stubModule, StubSlots } from "./stubs.ts";
import { SharedShapes } from "./shared-shapes.ts";
import { Shapes } from "./shapes.ts";
import { callSys } from "./system.ts";
import type { TlbTurn } from "./tlb.ts";

const TABLE_SIZE = 32768, NOTHING = new Uint8Array(0);
/** Stubs of a module at most. A module costs much more than a stub. */
const STUBS_AHEAD = 64;
/** The widest limits: the same bytes then serve every machine. */
const MEMORY: MemorySpec = { min: 1, max: 65536, shared: true };
type Runtime = Cpu["bulk"] & { interpret(rec: number): void; step(rec: number): number; resume(): number };

export class Interpreter implements Engine {
  readonly cpu: Cpu;
  readonly code: CodeCache;
  private readonly v: Views;
  private readonly at: number;
  private readonly askedWord: number;
  private readonly table: WebAssembly.Table;
  private readonly modules: Modules;
  private readonly rt: Runtime;
  private readonly stubs = new StubSlots();
  /** stubs to be made, and the first of the slots that are reserved for them */
  private fresh: Form[] = [];
  private freshSlot = 0;
  private readonly isTranslating: boolean;
  private readonly isEager: boolean;
  private isRetrying = false;
  private readonly settle: () => void;
  private readonly regions: Regions;
  private readonly shared: SharedShapes | null;
  /** Called with linear rip before each instruction when set: every instruction is stepped. */
  onStep: ((rip: bigint) => void) | null = null;
  /** Called at each exception and interrupt that is delivered. */
  onDeliver: ((vector: number, errorCode: number, external: boolean) => void) | null = null;
  private readonly counts = { stubs: 0, misses: 0, exceptions: 0, interrupts: 0 };
  get counters(): Readonly<Record<string, number>> { return { ...this.counts, ...this.regions.counters, ...this.code.counters, walks: this.cpu.mmu.walks, refills: this.v.u32[this.at + REFILLS_AT >>> 2]! }; }

  constructor(memory: WebAssembly.Memory, at: number, platform: Platform, options: EngineOptions) {
    this.v = new Views(memory.buffer as unknown as SharedArrayBuffer); this.at = at;
    this.table = new WebAssembly.Table({ element: "anyfunc", initial: TABLE_SIZE });
    this.cpu = new Cpu(this.v, at, platform); this.askedWord = platform.requestWord || at + CPU.zero.at;
    const { cpu } = this, { mmu } = cpu, { code } = options;
    this.settle = () => code?.settle?.();
    const guarded = (f: () => void): void => { try { f(); } catch (e) { if (!(e instanceof GuestFault)) throw e; cpu.record(e); } };
    const byHand: Record<keyof typeof RUNTIME_IMPORTS, (...a: never[]) => unknown> = {
      ticks: () => platform.ticks(),
      fill: (lo: number, hi: number, write: number) => mmu.fill(lo, hi, write),
      loadByHand: (a: bigint, size: number) => mmu.slowLoad(a, size),
      storeByHand: (a: bigint, x: bigint, size: number) => { mmu.slowStore(a, x, size); this.settle(); },
      casByHand: (a: bigint, old: bigint, x: bigint, size: number) => { const done = mmu.slowCas(a, old, x, size); this.settle(); return done ? 0 : 2; },
      probeByHand: (a: bigint, size: number) => guarded(() => mmu.checkWrite(cpu.linear(a), size, cpu.context)),
      bulkByHand: (kind: number, width: number) => (kind === 1 ? bulkMovs(cpu, width) : bulkStos(cpu, width)),
      segCheckByHand: (seg: number, off: bigint, how: number) => guarded(() => this.segmentFault(seg, off, how & 0xffff, how > 0xffff)),
    };
    const load = (bytes: Uint8Array<ArrayBuffer>, e: Record<string, WebAssembly.ImportValue>) => new WebAssembly.Instance(new WebAssembly.Module(bytes), { e }).exports;
    const shared = { memory, table: this.table };
    const rt = load(runtimeModule(MEMORY, TABLE_SIZE, at, platform.tscWord, this.askedWord), { ...byHand as Record<string, WebAssembly.ImportValue>, ...shared });
    this.rt = rt as never; cpu.bulk = this.rt;
    const wide = (hi: bigint, lo: bigint, d: bigint, signed: boolean, rem: boolean) => {
      const n = signed ? hi << 64n | BigInt.asUintN(64, lo) : BigInt.asUintN(64, hi) << 64n | BigInt.asUintN(64, lo), dd = signed ? d : BigInt.asUintN(64, d);
      const q = n / dd;
      if ((signed ? BigInt.asIntN(64, q) : BigInt.asUintN(64, q)) !== q) { cpu.record(new GuestFault(VECTOR.DE, -1)); return 0n; }
      return rem ? n % dd : q;
    };
    const imports = {
      ...rt, ...shared, ...fpHelpers(cpu),
      divu128: (h: bigint, l: bigint, d: bigint) => wide(h, l, d, false, false), divs128: (h: bigint, l: bigint, d: bigint) => wide(h, l, d, true, false),
      remu128: (h: bigint, l: bigint, d: bigint) => wide(h, l, d, false, true), rems128: (h: bigint, l: bigint, d: bigint) => wide(h, l, d, true, true),
      sys: (index: number, a: bigint, b: bigint) => { const r = callSys(cpu, index, a, b); this.settle(); return r; },
    } as Record<string, WebAssembly.ImportValue>;
    this.isTranslating = options.translateAfter !== undefined;
    this.modules = new Modules(this.table, imports, options.store ?? null, STRADDLE + 1);
    this.isEager = options.translateAfter === 0;
    const hooks: CodeHooks = {
      protect: frame => { options.code?.mark(frame); mmu.tlb.protectFrame(frame); },
      unprotect: frame => options.code?.unmark(frame),
      generation: frame => options.code?.generation(frame) ?? 0,
      heat: options.translateAfter ?? 0, warmAfter: warmAfter(options.translateAfter ?? 0),
      linksAhead: !this.isEager,
      freeRegion: (slot) => { this.modules.release(slot); mmu.tlb.forgetAllJumps(); },
      flushed: () => { mmu.tlb.forgetAllJumps(); this.regions.flushed(); },
      stubOf: (i, cross, big) => this.stubOf(i, cross, big),
      fetch: linear => mmu.fillCode(linear),
    };
    const shapes = new Shapes(this.v, at);
    this.code = new CodeCache(memory, MEMORY, this.v, at, hooks, shapes);
    this.shared = options.store ? new SharedShapes(shapes, this.v.i32, options.store, { keyOf: slot => this.modules.keyOf(slot), slotOf: key => this.stubs.get(key) ?? this.borrowStub(key) ?? 0 }) : null;
    this.regions = new Regions(cpu, this.code, this.modules, { memory: MEMORY, tableSize: TABLE_SIZE, heat: options.translateAfter ?? 0, shape: options.shape });
    if (code?.lookBack) cpu.beforeForget = () => code.lookBack!();
    cpu.onCodeWrite = (machine, size) => {
      options.code?.wrote(Math.floor(machine / 4096));
      // a region cannot notice that it has been overwritten: the store is undone, and made again by the interpreter
      if (this.code.invalidate(machine, size) && this.isTranslating && mmu.isDirect && !this.isRetrying) throw new GuestFault(NO_VECTOR.retry);
    };
  }

  private stubOf(i: Insn, cross: boolean, big: boolean): number {
    const known = this.stubs.of(i, cross, big);
    if (known !== undefined) return known;
    const form = formOf(i, cross, big), key = formKey(form), borrowed = this.borrowStub(key);
    if (borrowed !== undefined) return borrowed;
    if (this.fresh.length === STUBS_AHEAD) this.makeStubs();
    if (this.fresh.length === 0) this.freshSlot = this.modules.reserve(STUBS_AHEAD);
    const slot = this.freshSlot + this.fresh.length;
    this.fresh.push(form); this.stubs.set(key, slot);
    return slot;
  }
  /** A stub that another pCPU has made, with all that it made with it. */
  private borrowStub(key: number): number | undefined {
    const { store } = this.modules, member = store?.find(key)[0], slot = member ? this.modules.slotOf(member) : 0;
    if (!member || slot === 0) return undefined;
    this.modules.use(slot);
    for (const [k, at] of this.modules.around(slot)) if (this.stubs.get(k) === undefined) this.stubs.set(k, at);
    return slot;
  }
  /** Stubs asked for since the last time, in one module. */
  private makeStubs(): void {
    const { fresh, freshSlot, modules } = this;
    if (fresh.length === 0) return;
    this.fresh = [];
    modules.giveBack(freshSlot + fresh.length, STUBS_AHEAD - fresh.length);
    modules.add(stubModule(fresh, MEMORY, TABLE_SIZE), fresh.map(form => ({ keys: [formKey(form)], bytes: NOTHING })), freshSlot);
    modules.use(freshSlot);        // for good
    this.counts.stubs += fresh.length;
  }
  /** The faults a real segment can give (SDM Vol. 3A 5.3): not the ordinary case, which generated code checks itself. */
  private segmentFault(seg: number, off: bigint, size: number, write: boolean): void {
    const n = (seg - this.at - segAt(0)) / SEG.sizeof, attr = this.cpu.segAttr(n), limit = BigInt(this.cpu.segLimit(n)), last = off + BigInt(size) - 1n;
    const fault = new GuestFault(n === SS ? VECTOR.SS : VECTOR.GP, 0), isCode = (attr & 8) !== 0, type = attr & ATTR.type;
    if (attr & ATTR.unusable || !(attr & ATTR.p)) throw fault;
    if (write ? isCode || !(type & 2) : isCode && !(type & 2)) throw fault;
    const down = !isCode && (type & 4) !== 0;
    if (down ? off <= limit || last > (attr & ATTR.db ? 0xffffffffn : 0xffffn) : last > limit) throw fault;
  }

  contextChanged(turn?: TlbTurn): void { this.cpu.mmu.tlb.take(turn); this.cpu.setMode(); this.cpu.mmu.setWatch(); }
  forbidWrites(isForbidden: (frame: number) => boolean): number[] { return this.cpu.mmu.tlb.forbidFrames(isForbidden); }
  warmUp(): boolean { return this.shared?.takeIn(1) ?? false; }
  prepare(places: readonly (readonly [machine: number, mode: number])[]): void {
    for (const [machine, mode] of places) {
      const rec = this.code.prepare(machine, mode);
      if (rec !== 0 && this.isTranslating) this.regions.prepared(rec, machine, mode);
    }
  }
  flushTlb(): void { this.cpu.mmu.tlb.flushEveryone(); }
  readLinear(linear: bigint, bytes: Uint8Array): boolean { return this.cpu.readLinear(linear, bytes); }
  writeLinear(linear: bigint, bytes: Uint8Array, isHint = false): boolean { return this.cpu.writeLinear(linear, bytes, isHint); }

  /** The record at rip; a fetch fault is recorded and gives 0. */
  private find(rip: bigint): number {
    const { cpu } = this, { mode } = cpu;
    this.counts.misses++;
    try {
      let linear: number;
      if ((mode & MODE.sizeMask) === MODE.code64) linear = cpu.linear(rip);
      else {
        const eip = Number(BigInt.asUintN(32, rip));
        if (eip > cpu.segLimit(CS)) throw new GuestFault(VECTOR.GP, 0);
        linear = (eip + Number(cpu.get(CPU.csBase))) % 4294967296;
      }
      const machine = cpu.mmu.fillCode(linear), rec = this.code.record(linear, machine, mode);
      cpu.mmu.tlb.correctJump(linear, rec);
      if (this.isTranslating) this.regions.met(rec, linear, machine, mode);
      cpu.set(CPU.ripBase, rip - BigInt(linear & 4095));
      return rec;
    } catch (e) {
      if (!(e instanceof GuestFault)) throw e;
      cpu.record(e);
      return 0;
    }
  }
  private ripOf(rec: number, base = this.cpu.get(CPU.ripBase)): bigint { return BigInt.asIntN(64, base + BigInt(this.v.u16[(rec + REC.off) >>> 1]!)); }

  run(budgetJumps: number): number {
    const { cpu, v } = this, w = this.at >>> 2, FAULT = w + (CPU.fault.at >> 2), EXIT_ = w + (CPU.exit.at >> 2), BUDGET = w + (CPU.budget.at >> 2), SHADOW = w + (CPU.shadow.at >> 2), LINK = w + (CPU.link.at >> 2),
      EFL = w + (CPU.eflags.at >> 2), HOT = w + (CPU.hot.at >> 2), STAYED = w + (CPU.stayed.at >> 2), IRQ = w + (CPU.irqPending.at >> 2), NMI_MASKED = w + (CPU.nmiMasked.at >> 2), { i32 } = v, { platform } = cpu, ASKED = this.askedWord >>> 2;
    this.makeStubs();        // of what was decoded ahead of time
    this.regions.tick(); this.shared?.tick();
    // records are this pCPU's own: what another one left in the context names nothing here
    i32[EXIT_] = EXIT.none; Atomics.store(i32, BUDGET, budgetJumps); i32[LINK] = 0; i32[HOT] = 0; i32[STAYED] = 0;
    platform.entered?.();
    for (;;) {
      this.settle();
      if (i32[HOT]) { const hot = i32[HOT]!; i32[HOT] = 0; this.regions.heated(hot, cpu.rip); }
      if (i32[STAYED]) { const stayed = i32[STAYED]!; i32[STAYED] = 0; this.regions.heated(stayed, this.ripOf(stayed, cpu.get(CPU.stayedBase))); }
      if (i32[FAULT] === NO_VECTOR.retry + 1) { i32[FAULT] = 0; i32[LINK] = 0; this.isRetrying = true; }
      if (i32[FAULT] === NO_VECTOR.awaited + 1) {
        i32[FAULT] = 0; i32[LINK] = 0; i32[EXIT_] = EXIT.await;
        platform.awaited?.(cpu.get(CPU.errorCode));
        return EXIT.await;
      }
      if (i32[FAULT]) {
        const vector = i32[FAULT]! - 1 === VECTOR.GP && cpu.isNonCanonical && this.usesStack() ? VECTOR.SS : i32[FAULT]! - 1, error = cpu.get(CPU.errorCode);
        cpu.isNonCanonical = false;
        i32[FAULT] = 0; i32[SHADOW] = 0; i32[LINK] = 0; this.counts.exceptions++;
        this.onDeliver?.(vector, error, false);
        deliver(cpu, vector, error, "exception");
      }
      if (i32[EXIT_]) return i32[EXIT_]!;
      if (i32[NMI_MASKED] === 0 && i32[SHADOW] === 0 && platform.takeNmi?.()) {
        i32[NMI_MASKED] = 1; i32[LINK] = 0; this.counts.interrupts++;
        this.onDeliver?.(VECTOR.NMI, -1, true);
        deliver(cpu, VECTOR.NMI, -1, "external");
        continue;
      }
      const waiting = platform.pendingVector();
      i32[IRQ] = waiting >= 0 ? 1 : 0;
      if (waiting >= 0 && i32[SHADOW] === 0 && i32[EFL]! & EFLAGS.IF) {
        if (cpu.get(CPU.stiRip) !== cpu.rip) {
          platform.acknowledge(waiting); i32[LINK] = 0; this.counts.interrupts++;
          this.onDeliver?.(waiting, -1, true);
          deliver(cpu, waiting, -1, "external");
          continue;
        }
        i32[SHADOW] = 1; cpu.set(CPU.stiRip, -1n);
      }
      if (i32[BUDGET]! < 0 || i32[ASKED] !== 0) { i32[EXIT_] = EXIT.slice; return EXIT.slice; }
      const link = i32[LINK]!, { flushes } = this.code.counters;
      let rec = this.rt.resume();
      // the first of two pages was found: the second one may be what was missing, or what was overwritten
      if (rec === 0 || i32[(rec + REC.stub) >>> 2]! <= STRADDLE) {
        rec = this.find(cpu.get(CPU.rip));
        if (rec === 0) continue;
        if (this.isEager) this.regions.heated(rec, cpu.rip);
      }
      if (link) { i32[LINK] = 0; if (this.code.counters.flushes === flushes) i32[(link + REC.link) >>> 2] = rec; }
      this.makeStubs();        // for whatever was decoded since the guest ran last
      if (i32[SHADOW] || i32[EFL]! & (EFLAGS.TF | EFLAGS.RF) || cpu.hasBreakpoints || this.onStep || this.isRetrying) this.step(rec); else this.rt.interpret(rec);
    }
  }
  /** Does the instruction at rip, which met a non-canonical address, address through SS (SDM Vol. 3A 6.15 "#SS")? */
  private usesStack(): boolean {
    const bytes = new Uint8Array(15), { cpu } = this;
    try {
      cpu.mmu.copyOut(cpu.rip, bytes, CONTEXT.kernelAc);
      const i = decode(bytes, 0, 15, cpu.mode);
      if (i.addr === ADDR.none) return STACK_INSNS.includes(i.row.name);
      if (!STACK_INSNS.includes(i.row.name)) return i.seg === SS;
      if (i.seg === SS) return true;
      // PUSH and CALL read their operand first, POP its stack
      const part = (r: number) => (r < 0 ? 0n : cpu.gpr(r)), ea = part(i.base) + (part(i.index) << BigInt(i.scale)) + BigInt(i.disp);
      return i.row.name === "pop" ? canonical(cpu.gpr(RSP)) === null : i.ripRel || i.aw === 32 || canonical(BigInt.asUintN(64, ea)) !== null;
    } catch (e) { if (!(e instanceof Undecodable)) throw e; return false; }
  }
  /** One instruction, for interrupt shadows, TF, RF, breakpoints and tracing. */
  private step(rec: number): void {
    if (this.v.i32[(rec + REC.stub) >>> 2] === STRADDLE && (rec = this.rt.step(rec)) === 0) return;
    const { cpu } = this, isTraced = (cpu.eflags & EFLAGS.TF) !== 0, wasShadow = cpu.get(CPU.shadow) !== 0;
    if (cpu.hasBreakpoints && !(cpu.eflags & EFLAGS.RF) && !wasShadow) {
      const hits = this.codeBreakpoints();
      if (hits) { this.debug(hits); return; }
    }
    this.onStep?.(cpu.rip);
    cpu.set(CPU.shadow, 0);
    // RF lasts for one instruction, unless that one sets it (IRET, POPF never does)
    const before = cpu.eflags;
    if (before & EFLAGS.RF) cpu.eflags = before & ~EFLAGS.RF;
    cpu.mmu.watchHits = 0;
    const next = this.rt.step(rec);
    this.isRetrying = false;
    if (next) cpu.rip = this.ripOf(next);
    if (cpu.get(CPU.link)) cpu.set(CPU.link, 0);
    if (cpu.get(CPU.fault)) {
      if (before & EFLAGS.RF) cpu.eflags |= EFLAGS.RF;
      if (wasShadow && cpu.get(CPU.fault) === NO_VECTOR.awaited + 1) cpu.set(CPU.shadow, 1);
      return;
    }
    const hits = cpu.mmu.watchHits | (isTraced ? 0x4000 : 0);
    if (hits && !cpu.get(CPU.exit) && !cpu.get(CPU.shadow)) this.debug(hits);
  }
  /** Raise #DB with these bits in DR6. */
  private debug(hits: number): void {
    const { cpu } = this;
    cpu.setDr(6, cpu.dr(6) & ~0xfn | BigInt(hits));
    cpu.set(CPU.fault, VECTOR.DB + 1); cpu.set(CPU.errorCode, -1);
  }
  /** Instruction breakpoints at rip: their bits of DR6. */
  private codeBreakpoints(): number {
    const { cpu } = this, dr7 = Number(cpu.dr(7) & 0xffffffffn), at = BigInt.asUintN(64, cpu.rip + cpu.get(CPU.csBase));
    let hits = 0;
    for (let n = 0; n < 4; n++) if (dr7 >>> 2 * n & 3 && (dr7 >>> 16 + 4 * n & 3) === 0 && cpu.dr(n) === at) hits |= 1 << n;
    return hits;
  }
}
