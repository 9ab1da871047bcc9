/** The world around a PVH guest's processor: the p2m, the local APIC's page, no ports to speak of, Xen's CPUID leaves, MSRs and hypercalls. */
import { EPERM, ENOSYS } from "../abi/errno.ts";
import { XEN_HYPERCALL_MSR, HYPERCALL_STUB_BYTES } from "../abi/arch-x86/cpuid.ts";
import { XEN_HVM_DEBUGCONS_IOPORT } from "../abi/arch-x86/xen.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { FRAME } from "../memory/frames.ts";
import { p2mLookup } from "../memory/p2m.ts";
import type { Engine } from "../x86/engine.ts";
import { P2M_AWAITED, P2M_CLEAN, P2M_CODE, type Platform } from "../x86/platform.ts";
import { CPU, EFLAGS, EXIT, MODE } from "../x86/state.ts";
import type { Args, Call } from "./call.ts";
import { writeConring } from "./conring.ts";
import { ARCH_CAPABILITIES, cpuid } from "./cpuid.ts";
import type { Domain } from "./domain.ts";
import { hypercall } from "./hypercalls.ts";
import type { Hypervisor } from "./hypervisor.ts";
import {
  APIC_BASE, APIC_PAGE, isX2apic, lapicAcknowledge, lapicMmioRead, lapicMmioWrite, lapicPending, lapicTpr, MSR_TSC_DEADLINE, setLapicTpr, setTscDeadline,
  tscDeadline, X2APIC_MSRS, x2apicRead, x2apicWrite,
} from "./lapic.ts";
import { DOMAIN, HYPERVISOR_ROOT as ROOT, PCPU, PCPU_REQUEST, VCPU, VPF } from "./objects.ts";
import type { Profiler } from "./profile.ts";
import type { Vcpu } from "./vcpu.ts";

/** Argument registers in order: rdi rsi rdx r10 r8 r9, and ebx ecx edx esi edi ebp. */
const REGS_64 = [7, 6, 2, 10, 8, 9], REGS_32 = [3, 1, 2, 6, 7, 5];
const RAX = 0;
/**
 * MSRs that kernels read without asking, and what a guest of Xen finds there: microcode level, IA32_ARCH_CAPABILITIES, and those of an AMD processor,
 * which is what guests were told of by older versions: SYSCFG, IORR and TOP_MEM, HWCR,
 * NB_CFG, VM_CR, DE_CFG (bit 1: LFENCE serialises), MMIO configuration, SMM base. Writes of the same value, and to those in the second set, are dropped.
 */
const FIXED_MSRS = new Map<number, bigint>([[0x8b, 0n], [0x10a, ARCH_CAPABILITIES], [0xc0010010, 0n], [0xc0010015, 1n << 24n], [0xc001001a, 0n], [0xc001001d, 0n], [0xc001001f, 0n], [0xc0010058, 0n],
  [0xc0010064, 0n], [0xc0010114, 0n], [0xc0011029, 2n], [0xc0011022, 0n], [0xc001102a, 0n], [0xc0010055, 0n], [0x1d9, 0n], [0x1db, 0n], [0x1dc, 0n]]);
const WRITES_DROPPED = new Set<number>([0x1b, 0x1d9, 0xc0010015, 0xc001001f, 0xc0011022, 0xc0011029, 0xc001102a]);
const HYPERVISOR_IRET = 23;
/** How long a pCPU waits for a page in the middle of something, and nobody else runs on it; how often it looks up. */
const AWAIT_MS = 30_000, AWAIT_LOOK_MS = 50;

/** One per pCPU; `load` says which vCPU it serves. */
export class PvhPlatform implements Platform, Call {
  readonly hv: Hypervisor;
  readonly pcpu: number;
  /** address of the register file */
  readonly cpu: number;
  v!: Vcpu;
  d!: Domain;
  guest!: Engine;
  profiler: Profiler | null = null;
  is32 = false;
  /** when, by this thread's clock, the vCPU's slice is over */
  sliceEndMs = Number.POSITIVE_INFINITY;
  #root = 0;
  /** index of its domain's DOMAIN.logDirty */
  #logDirty = 0;
  /** index of its domain's DOMAIN.isArriving */
  #isArriving = 0;
  readonly #u32: Uint32Array;
  readonly #frameTable: number;
  readonly #args: Args;

  constructor(hv: Hypervisor, pcpu: number) {
    this.hv = hv;
    this.pcpu = pcpu;
    this.cpu = hv.mm.pcpuAt(pcpu);
    this.#u32 = hv.views.u32;
    this.#frameTable = hv.mm.frames.entryAt(0) >>> 2;
    const reg = (i: number): number => (this.is32 ? REGS_32 : REGS_64)[i] ?? RAX, { u32, u64 } = hv.views;
    this.#args = {
      n: (i) => u32[((this.cpu + CPU.gpr.at) >>> 2) + reg(i) * 2] as number,
      p: (i) => (this.is32 ? BigInt(u32[((this.cpu + CPU.gpr.at) >>> 2) + reg(i) * 2] as number) : u64[((this.cpu + CPU.gpr.at) >>> 3) + reg(i)] as bigint),
    };
  }
  load(v: Vcpu): void {
    this.v = v;
    this.d = v.domain;
    this.#root = v.domain.p2m.root;
    this.#logDirty = (v.domain.at + DOMAIN.logDirty.at) >>> 2;
    this.#isArriving = (v.domain.at + DOMAIN.isArriving.at) >>> 2;
  }
  #reg(field: { at: number }): number { return this.#u32[(this.cpu + field.at) >>> 2] as number; }

  // Memory ---------------------------------------------------------------------
  frameOf(gfn: number): number {
    const entry = p2mLookup(this.#u32, this.#root, gfn);
    if (entry === 0) return 0;
    if (this.#u32[this.#isArriving] !== 0 && this.hv.mm.frames.isAwaited(entry >>> 12)) return ((entry & ~0xfff) | P2M_AWAITED) >>> 0;
    const hasCode = this.#u32[this.#codeWord(entry >>> 12)] !== 0;        // who marks it kicks those who may write to it
    const isClean = this.#u32[this.#logDirty] !== 0 && !this.hv.mm.frames.isDirty(entry >>> 12);
    return ((entry & ~0xffc) | (hasCode ? P2M_CODE : 0) | (isClean ? P2M_CLEAN : 0)) >>> 0;
  }
  walk(): ReturnType<NonNullable<Platform["walk"]>> { return { p2mRoot: this.#root, frameTable: this.#frameTable << 2 >>> 0, busy: [this.#isArriving << 2 >>> 0, this.#logDirty << 2 >>> 0], isShared: this.d.nrVcpus > 1 }; }
  dirtied(frame: number): void { this.hv.mm.frames.markDirty(frame); }
  awaited(gfn: number): void {
    const { hv, v } = this;
    hv.or(VCPU.pauseFlags, v.at, VPF.awaiting);
    this.#askFor(gfn);
    if (this.#isAwaited(gfn)) return;
    hv.store(VCPU.awaits, v.at, 0);        // it came meanwhile, and whoever brought it may have looked before
    hv.and(VCPU.pauseFlags, v.at, ~VPF.awaiting);
  }
  awaitFrame(gfn: number): boolean {
    const { hv, v, d } = this, word = (v.at + VCPU.awaits.at) >>> 2, untilMs = performance.now() + AWAIT_MS;
    if (!this.#isAwaited(gfn)) return true;
    this.#askFor(gfn);
    while (this.#isAwaited(gfn) && !hv.stopped && !d.isShutDown && !d.isDying) {
      Atomics.wait(hv.views.i32, word, gfn + 1, AWAIT_LOOK_MS);
      if (performance.now() > untilMs) d.crash(`Its page at gfn 0x${gfn.toString(16)} did not come within ${AWAIT_MS / 1000} s, where it cannot be left waiting`, v.id);
    }
    hv.store(VCPU.awaits, v.at, 0);
    hv.and(VCPU.pauseFlags, v.at, ~VPF.awaiting);        // who brought it may have looked between
    return !this.#isAwaited(gfn);
  }
  #isAwaited(gfn: number): boolean { return (this.frameOf(gfn) & P2M_AWAITED) !== 0; }
  #askFor(gfn: number): void {
    this.hv.store(VCPU.awaits, this.v.at, gfn + 1);
    this.hv.add(ROOT.nrAwaits, this.hv.root, 1);
    this.hv.wakeDom0();
  }
  /** What the engine tells of frames with decoded code; see FRAME.codeCpus. */
  readonly code = {
    mark: (mfn: number): void => {
      const { hv } = this, set = (): number => Atomics.or(this.#u32, this.#codeWord(mfn), 1 << this.pcpu);
      if (!this.#isShared) { set(); return; }
      /* the TLBs of the domain's other pCPUs may take it for plain, writable memory: those that run look when they leave the guest, which is soon; the others before they enter it */
      const marks = hv.withLock(DOMAIN.codeLock, this.d.at, () => (set() === 0 ? hv.add(DOMAIN.codeMarks, this.d.at, 1) + 1 : null));
      if (marks === null) return;
      Atomics.compareExchange(hv.views.i32, (hv.pcpuAt(this.pcpu) + PCPU.codeMarks.at) >>> 2, marks - 1 | 0, marks | 0);
      this.#others(PCPU_REQUEST.reschedule);
    },
    unmark: (mfn: number): void => { Atomics.and(this.#u32, this.#codeWord(mfn), ~(1 << this.pcpu)); },
    generation: (mfn: number): number => this.hv.mm.frames.codeGen(mfn),
    /** This pCPU's guest wrote to the frame. */
    wrote: (mfn: number): void => {
      if (this.#nrWritten === 0 || this.#written[this.#nrWritten - 1] !== mfn) this.#written[this.#nrWritten++] = mfn;
    },
    /* after the store: who decodes later finds the new bytes, and who decoded before has his mark there. The exchange is the fence between the store and the look */
    settle: (): void => {
      const nr = this.#nrWritten;
      this.#nrWritten = 0;        // V8 takes a microsecond to shorten an array
      for (let i = 0; i < nr; i++) this.#tell(this.#written[i]!);
    },
    lookBack: (): void => {
      if (!this.#isShared) return;
      const { hv } = this, at = hv.pcpuAt(this.pcpu), own = 1 << this.pcpu;
      Atomics.or(hv.views.i32, (at + PCPU.request.at) >>> 2, 0); /* a fence: whose mark is not seen here reads, to decode, what was stored before */
      const marks = hv.load(DOMAIN.codeMarks, this.d.at);
      if (hv.load(PCPU.codeMarks, at) === marks) return;
      hv.store(PCPU.codeMarks, at, marks);
      for (const mfn of this.guest.forbidWrites((frame) => (Atomics.load(this.#u32, this.#codeWord(frame)) & ~own) !== 0)) this.#tell(mfn);
    },
  };
  /** This pCPU has written to the frame, or may have: whoever has decoded from it looks again. */
  #tell(mfn: number): void {
    // the new generation makes their records void: with their marks gone, the next store need not come this way. The marks go first: one that is set after the new generation stands stays
    const others = Atomics.and(this.#u32, this.#codeWord(mfn), 1 << this.pcpu) & ~(1 << this.pcpu);
    if (others === 0) return;
    this.hv.mm.frames.newCode(mfn);
    this.hv.codeWritten(mfn, others);
  }
  /** frames with code that this pCPU is writing to */
  readonly #written: number[] = [];
  #nrWritten = 0;
  /** Is a vCPU on this pCPU? Without one, code is decoded ahead (warm.ts), and `d` may be a domain that is gone, its struct another's page. */
  get #isServing(): boolean { return this.hv.load(PCPU.vcpu, this.hv.pcpuAt(this.pcpu)) !== 0; }
  /** Is there one, and may others of its domain run elsewhere? */
  get #isShared(): boolean { return this.#isServing && this.d.nrVcpus > 1; }
  #codeWord(mfn: number): number { return this.#frameTable + mfn * (FRAME.sizeof >>> 2) + (FRAME.codeCpus.at >>> 2); }
  #others(request: number): void {
    for (const v of this.d.vcpus()) {
      const pcpu = v.onPcpu;
      if (pcpu >= 0 && pcpu !== this.pcpu) this.hv.kick(pcpu, request);
    }
  }
  #isApicPage(gpa: number): boolean {
    const base = this.#reg(CPU.apicBase);
    return gpa - gpa % 4096 === APIC_PAGE && (base & (APIC_BASE.EN | APIC_BASE.EXTD)) === APIC_BASE.EN;
  }
  mmioRead(gpa: number, size: number): bigint {
    if (this.#isApicPage(gpa)) return BigInt(lapicMmioRead(this.v, gpa % 4096, size) >>> 0);
    this.#traceMmio(0, gpa, 0);
    return (1n << BigInt(size * 8)) - 1n;
  }
  mmioWrite(gpa: number, size: number, value: bigint): void {
    this.#obeyFirst();
    if (this.#isApicPage(gpa)) lapicMmioWrite(this.v, gpa % 4096, size, Number(value & 0xffffffffn));
    else this.#traceMmio(1, gpa, Number(value & 0xffffffffn));
  }
  #traceMmio(isWrite: number, gpa: number, value: number): void {
    if (this.hv.trace.on & TRACE_CLASS.io) this.hv.trace.emit(TRACE.mmio, this.d.domid, this.v.id, isWrite, gpa | 0, Math.floor(gpa / 2 ** 32), value);
  }

  // Ports ----------------------------------------------------------------------
  ioRead(port: number, size: number): number {
    const value = port === XEN_HVM_DEBUGCONS_IOPORT ? 0xe9 : size === 4 ? 0xffffffff : 2 ** (size * 8) - 1;
    if (this.hv.trace.on & TRACE_CLASS.io) this.hv.trace.emit(TRACE.ioRead, this.d.domid, this.v.id, port, size, value);
    return value;
  }
  ioWrite(port: number, size: number, value: number): void {
    if (port === XEN_HVM_DEBUGCONS_IOPORT && size === 1) return writeConring(this.d, Uint8Array.of(value));
    if (this.hv.trace.on & TRACE_CLASS.io) this.hv.trace.emit(TRACE.ioWrite, this.d.domid, this.v.id, port, size, value);
  }

  // CPUID and MSRs ---------------------------------------------------------------
  cpuid(leaf: number, subleaf: number, out: Uint32Array): void { cpuid(this.v, leaf, subleaf, out); }
  rdmsr(msr: number): bigint | null {
    msr >>>= 0;
    if (msr >= X2APIC_MSRS && msr < X2APIC_MSRS + 0x100) return isX2apic(this.#reg(CPU.apicBase)) ? x2apicRead(this.v, msr - X2APIC_MSRS) : null;
    if (msr === MSR_TSC_DEADLINE) return tscDeadline(this.v);
    if (msr === XEN_HYPERCALL_MSR) return 0n;
    const fixed = FIXED_MSRS.get(msr) ?? null;
    if (fixed === null && this.hv.trace.on & TRACE_CLASS.error) this.hv.trace.emit(TRACE.msrUnknown, this.d.domid, this.v.id, msr, 0);
    return fixed;
  }
  wrmsr(msr: number, value: bigint): boolean {
    msr >>>= 0;
    this.#obeyFirst();
    if (msr >= X2APIC_MSRS && msr < X2APIC_MSRS + 0x100) return isX2apic(this.#reg(CPU.apicBase)) && x2apicWrite(this.v, msr - X2APIC_MSRS, value);
    if (msr === MSR_TSC_DEADLINE) {
      setTscDeadline(this.v, value, this.hv.get(CPU.tscAdjust, this.cpu));
      return true;
    }
    if (msr === XEN_HYPERCALL_MSR) return this.#hypercallPage(value);
    if (WRITES_DROPPED.has(msr) || FIXED_MSRS.get(msr) === value) return true;
    if (this.hv.trace.on & TRACE_CLASS.error) this.hv.trace.emit(TRACE.msrUnknown, this.d.domid, this.v.id, msr, 1, Number(value & 0xffffffffn) | 0, Number(value >> 32n) | 0);
    return false;
  }
  /** Fill a page of the guest's with a stub a hypercall: mov eax, number; vmmcall; ret. */
  #hypercallPage(value: bigint): boolean {
    if ((value & 0xfffn) !== 0n) return false;
    this.awaitFrame(Math.floor(Number(value) / 4096));
    const page = new Uint8Array(4096), dv = new DataView(page.buffer);
    for (let nr = 0; nr < 4096 / HYPERCALL_STUB_BYTES; nr++) {
      const at = nr * HYPERCALL_STUB_BYTES;
      if (nr === HYPERVISOR_IRET) { page.set([0x0f, 0x0b], at); continue; } /* not for HVM guests: UD2 */
      page[at] = 0xb8;
      dv.setUint32(at + 1, nr, true);
      page.set([0x0f, 0x01, 0xd9, 0xc3], at + 5);
    }
    return this.d.memory.tryWrite(Number(value), page) === page.length;
  }

  // Hypercalls -----------------------------------------------------------------
  hypercall(): void {
    const { hv } = this, mode = this.#reg(CPU.mode), rax = this.cpu + CPU.gpr.at, size = mode & MODE.sizeMask;
    const isProtected = (this.#reg(CPU.cr0) & 1) !== 0 && (this.#reg(CPU.eflags) & EFLAGS.VM) === 0;
    this.is32 = size !== MODE.code64;
    let result: number;
    if (!isProtected) result = -ENOSYS;
    else if (this.#reg(CPU.cpl) !== 0) result = -EPERM;
    else {
      this.#isAgain = false;
      hv.add(PCPU.nrHypercalls, hv.pcpuAt(this.pcpu), 1);
      this.#obeyFirst();
      const nr = this.#u32[rax >>> 2] as number, begun = this.profiler ? performance.now() : 0;
      result = hypercall(this, nr, this.#args);
      this.#checkTlbs();
      /* the engine counts jumps, which says nothing of the time spent here */
      const now = performance.now();
      if (now > this.sliceEndMs) Atomics.store(hv.views.i32, (this.cpu + CPU.budget.at) >>> 2, -1);
      this.profiler?.hypercall(nr, now - begun, now > this.sliceEndMs);
      if (this.#isAgain) return;
    }
    if (this.is32) hv.views.u64[rax >>> 3] = BigInt(result >>> 0);
    else hv.views.u64[rax >>> 3] = BigInt.asUintN(64, BigInt(result));
  }
  #isAgain = false;
  leave(exit: number): void { this.#u32[(this.cpu + CPU.exit.at) >>> 2] = exit; }
  again(firstArgument: number): void {
    const { u32, dv } = this.hv.views, word = ((this.cpu + CPU.gpr.at) >>> 2) + ((this.is32 ? REGS_32 : REGS_64)[0] as number) * 2;
    u32[word] = firstArgument;
    u32[word + 1] = 0;
    CPU.nextRip.set(dv, this.cpu, CPU.rip.get(dv, this.cpu));
    this.#isAgain = true;
  }
  /** Bring this pCPU's TLBs up to the domain's p2m. @returns whether they had to be flushed */
  #checkTlbs(): boolean {
    const { hv } = this, at = hv.pcpuAt(this.pcpu), gen = hv.load(DOMAIN.p2mGen, this.d.at);
    if (hv.load(PCPU.p2mGen, at) === gen) return false;
    this.guest.flushTlb();
    hv.store(PCPU.p2mGen, at, gen);
    return true;
  }
  flushTlbs(): void {
    const { hv } = this, gen = hv.load(DOMAIN.p2mGen, this.d.at);
    if (!this.#checkTlbs()) this.guest.flushTlb();
    if (this.d.nrVcpus === 1) return;
    for (const v of this.d.vcpus()) {
      for (let pcpu = v.onPcpu; pcpu >= 0 && pcpu !== this.pcpu && (hv.load(PCPU.p2mGen, hv.pcpuAt(pcpu)) - gen | 0) < 0; pcpu = v.onPcpu) {
        hv.kick(pcpu, PCPU_REQUEST.flushTlb);
        this.#checkTlbs(); /* it may be waiting for us likewise */
      }
    }
  }
  /** Before the guest goes on: what others asked of this pCPU. */
  obey(): void {
    const { hv } = this, at = hv.pcpuAt(this.pcpu);
    this.code.lookBack();
    if (hv.load(PCPU.request, at) !== 0) {
      const request = Atomics.exchange(hv.views.i32, (at + PCPU.request.at) >>> 2, 0);
      if (request & PCPU_REQUEST.flushTlb) this.guest.flushTlb();
    }
    this.#checkTlbs();
  }
  entered(): void { this.obey(); }
  /** Before another pCPU may hear of anything: what this one wrote into code without knowing that it was code comes first. */
  #obeyFirst(): void {
    this.code.lookBack();
    if (this.hv.load(PCPU.request, this.hv.pcpuAt(this.pcpu)) !== 0) this.obey();
  }
  paused(): void { if (this.hv.scheduler.isCrowded(this.d)) this.leave(EXIT.yield); }

  // Time and interrupts ----------------------------------------------------------
  tsc(): bigint { return this.hv.clock.tsc(); }
  ticks(): number { return this.hv.clock.now(); }
  get tscWord(): number { return this.hv.clock.tscWord; }
  get requestWord(): number { return this.hv.pcpuAt(this.pcpu) + PCPU.request.at; }
  get busLock(): number { return this.hv.root + ROOT.busLock.at; }
  pendingVector(): number {
    const callback = this.hv.load(DOMAIN.callbackVector, this.d.at);
    if (callback !== 0 && this.v.isUpcallPending && this.v.upcallVector === 0) return callback;
    return lapicPending(this.v, this.#reg(CPU.apicBase));
  }
  /** The callback vector is given again until the guest clears upcall_pending; it passes the local APIC by. */
  acknowledge(vector: number): void {
    if (this.hv.trace.on & TRACE_CLASS.interrupt) this.hv.trace.emit(TRACE.interrupt, this.d.domid, this.v.id, vector);
    if (vector === this.hv.load(DOMAIN.callbackVector, this.d.at) && this.v.upcallVector === 0 && this.v.isUpcallPending) return;
    lapicAcknowledge(this.v, vector);
  }
  takeNmi(): boolean {
    const word = (this.v.at + VCPU.nmiPending.at) >>> 2;
    return Atomics.load(this.#u32, word) !== 0 && Atomics.exchange(this.#u32, word, 0) !== 0;
  }
  hasDeliverable(): boolean { return (this.hv.load(VCPU.nmiPending, this.v.at) !== 0 && this.#reg(CPU.nmiMasked) === 0) || (this.#reg(CPU.eflags) & EFLAGS.IF) !== 0 && this.pendingVector() >= 0; }
  setTpr(tpr: number): void { setLapicTpr(this.v, tpr); }
  getTpr(): number { return lapicTpr(this.v); }
}
