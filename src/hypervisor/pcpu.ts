/**
 * A physical CPU: the loop that takes vCPUs from the queue, runs each for a slice, and sees to timers and to what the others ask of it.
 * Runs on a thread of its own (Atomics.wait must be allowed there) and ends when the machine's stop word is set.
 */
import { HVM_PARAM } from "../abi/hvm/params.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { allowWaiting } from "../memory/lock.ts";
import type { MachineMemory } from "../memory/machine.ts";
import { CodeStore } from "../x86/code-store.ts";
import type { Engine, EngineOptions } from "../x86/engine.ts";
import type { Platform } from "../x86/platform.ts";
import { CPU, EFLAGS, EXIT } from "../x86/state.ts";
import { writeConring } from "./conring.ts";
import { Hypervisor } from "./hypervisor.ts";
import { DOMAIN, PCPU, PCPU_STATE, VCPU, VPF } from "./objects.ts";
import { PvhPlatform } from "./platform-pvh.ts";
import { type PcpuProfile, Profiler } from "./profile.ts";
import { SMP_PIECE_MS, STRETCH_MS } from "./scheduler.ts";
import type { Vcpu } from "./vcpu.ts";
import { prepareNext } from "./warm.ts";
import { writeRunstate, writeTimeArea } from "./vcpu_op.ts";

/** How a pCPU gets its engine. */
export type MakeEngine = (memory: WebAssembly.Memory, cpuBase: number, platform: Platform, options?: EngineOptions) => Engine;
const FIRST_JUMPS_PER_MS = 10_000, LEAST_BUDGET = 200;

/** One a thread; `run` returns when the machine stops. */
export class Pcpu {
  readonly hv: Hypervisor;
  readonly index: number;
  readonly engine: Engine;
  readonly platform: PvhPlatform;
  readonly #profiler: Profiler | null;
  /** its PCPU struct, its register file */
  readonly #at: number;
  readonly #cpu: number;
  readonly #isCode = (frame: number): boolean => this.hv.mm.frames.codeCpus(frame) !== 0;
  #jumpsPerMs = FIRST_JUMPS_PER_MS;
  /** jumps and ms since it was last computed */
  #countedJumps = 0;
  #countedMs = 0;

  constructor(mm: MachineMemory, index: number, makeEngine: MakeEngine, options: { profile?: boolean; engine?: Omit<EngineOptions, "code" | "store"> } = {}) {
    this.hv = new Hypervisor(mm);
    this.hv.trace.pcpu = index;
    this.index = index;
    this.#at = this.hv.pcpuAt(index);
    this.#cpu = mm.pcpuAt(index);
    this.platform = new PvhPlatform(this.hv, index);
    const store = CodeStore.of(mm);
    this.engine = makeEngine(mm.memory, this.#cpu, this.platform, { ...options.engine, code: this.platform.code, ...(store ? { store } : {}) });
    this.platform.guest = this.engine;
    this.platform.profiler = this.#profiler = options.profile ? new Profiler(this.hv, index, this.engine) : null;
    this.engine.onDeliver = (vector, errorCode, external) => {
      this.#profiler?.deliver(vector, errorCode, external);
      if (external || !(this.hv.trace.on & TRACE_CLASS.exception)) return;
      const rip = CPU.rip.get(this.hv.views.dv, this.#cpu);
      this.hv.trace.emit(TRACE.exception, this.platform.d.domid, this.platform.v.id, vector, errorCode, Number(rip & 0xffffffffn) | 0, Number(rip >> 32n) | 0);
    };
  }

  /** What it counted, if it is profiled. */
  get profile(): PcpuProfile | null { return this.#profiler && { index: this.index, ...this.#profiler.profile }; }

  /** The loop. */
  run(): void {
    allowWaiting();
    const { hv } = this;
    hv.store(PCPU.state, this.#at, PCPU_STATE.running);
    while (!hv.stopped) this.turn();
    hv.store(PCPU.state, this.#at, PCPU_STATE.off);
  }
  /** One turn: timers, then a vCPU until it leaves or its time is over; or sleep when there is none. */
  turn(): void {
    const { hv } = this;
    hv.add(PCPU.turns, this.#at, 1);
    hv.scheduler.expireTimers();
    const v = hv.scheduler.pick(this.index);
    if (v) this.#serve(v);
    else if (!prepareNext(hv, this.#at, this.engine) && !this.engine.warmUp()) hv.scheduler.idle(this.index);
  }

  #serve(v: Vcpu): void {
    const { hv } = this;
    this.#load(v);
    let yields = false;
    do {
      hv.add(PCPU.turns, this.#at, 1); /* between slices only `v` is held */
      this.platform.obey();
      const exit = this.#slice(v);
      hv.add(VCPU.nrExits, v.at + (exit & 7) * 4, 1);
      if (hv.trace.on & TRACE_CLASS.exit && exit !== EXIT.slice) this.#traceExit(v, exit);
      if (exit === EXIT.halt) this.#halt(v);
      else if (exit === EXIT.tripleFault) this.#tripleFault(v);
      else if (exit === EXIT.internal) v.domain.crash("The engine met something it cannot execute", v.id);
      hv.scheduler.expireTimers();
      yields = exit === EXIT.yield;
    } while (!yields && hv.scheduler.goesOn(v, this.index) && !hv.stopped);
    this.#save(v, yields);
  }
  /**
   * Run for a slice or up to the next timer. The budget is in jumps; how many make a millisecond is measured as we go. A vCPU that others may wait for gets it in pieces:
   * its translated loops hear of an interrupt when a piece is over. Between them nothing is looked at but whether there was a kick.
   */
  #slice(v: Vcpu): number {
    const { hv } = this, start = performance.now();
    const ms = Math.min(STRETCH_MS, Math.max(0, (Math.min(hv.scheduler.nextDeadline, hv.scheduler.sliceEnd(v)) - hv.clock.now()) / 1e6));
    const jumps = (forMs: number): number => Math.max(LEAST_BUDGET, Math.floor(forMs * this.#jumpsPerMs)), budget = jumps(ms), piece = v.domain.nrVcpus > 1 ? jumps(SMP_PIECE_MS) : budget;
    if (hv.trace.on & TRACE_CLASS.sched) {
      const rip = CPU.rip.get(hv.views.dv, this.#cpu);
      hv.trace.emit(TRACE.vcpuRun, v.domain.domid, v.id, budget, Number(rip & 0xffffffffn) | 0, Number(rip >> 32n) | 0);
    }
    this.platform.sliceEndMs = start + Math.max(ms, 0.1);
    const kicks = hv.load(PCPU.wake, this.#at), isKicked = (): boolean => kicks !== hv.load(PCPU.wake, this.#at);
    let left = budget, exit: number, now: number;
    do {
      const given = Math.min(left, piece);
      exit = this.#run(v, given);
      left -= given;
      now = performance.now();
    } while (left > 0 && exit === EXIT.slice && !isKicked() && now < this.platform.sliceEndMs);
    if (exit === EXIT.slice && !isKicked()) { /* a kick spoils the count */
      this.#countedJumps += budget - left;
      this.#countedMs += now - start;
      if (this.#countedMs > 0.5) {
        /* a host that lets the thread wait makes one count in some too small by far: it is not to be followed at once */
        const measured = Math.max(this.#jumpsPerMs / 2, Math.min(this.#jumpsPerMs * 2, this.#countedJumps / this.#countedMs));
        this.#jumpsPerMs = Math.max(1000, Math.min(1e6, this.#jumpsPerMs + (measured - this.#jumpsPerMs) * 0.2));
        hv.set(PCPU.jumpsPerMs, this.#at, this.#jumpsPerMs);
        this.#countedJumps = this.#countedMs = 0;
      }
    }
    hv.add(PCPU.nrSlices, this.#at, 1);
    return exit;
  }

  /** A trap in translated code is our mistake, and the registers that it had in hand are gone: the domain ends for it, and no other one. */
  #run(v: Vcpu, jumps: number): number {
    try { return this.#profiler ? this.#profiler.run(v.domain.domid, jumps) : this.engine.run(jumps); } catch (e) {
      if (!(e instanceof WebAssembly.RuntimeError)) throw e;
      writeConring(v.domain, new TextEncoder().encode(`The engine failed on pCPU ${this.index}: ${e.stack ?? e.message}\n`));
      v.domain.crash(`The engine failed in what it made of the guest's code: ${e.message}`, v.id);
      return EXIT.internal;
    }
  }

  /** Put its registers into the register file, unless they are still there. */
  #load(v: Vcpu): void {
    const { hv } = this, { u8 } = hv.views;
    this.platform.load(v);
    hv.store(PCPU.vcpu, this.#at, v.at | 0);
    const isHere = hv.get(PCPU.loadedSerial, this.#at) === v.serial && hv.get(VCPU.lastPcpu, v.at) === this.index + 1;
    if (!isHere) {
      hv.add(PCPU.nrSwitches, this.#at, 1);
      u8.copyWithin(this.#cpu, v.context, v.context + CPU.sizeof);
      const isOurs = hv.get(VCPU.lastPcpu, v.at) === this.index + 1, generation = hv.load(DOMAIN.p2mGen, v.domain.at), wasGeneration = hv.load(PCPU.p2mGen, this.#at), codeMarks = hv.load(DOMAIN.codeMarks, v.domain.at), wasCodeMarks = hv.load(PCPU.codeMarks, this.#at);
      hv.set(PCPU.loadedSerial, this.#at, v.serial);
      hv.set(VCPU.lastPcpu, v.at, this.index + 1);
      hv.store(PCPU.p2mGen, this.#at, generation);
      hv.store(PCPU.codeMarks, this.#at, codeMarks);
      this.engine.contextChanged({ vcpu: v.serial, generation, wasGeneration, codeMarks, wasCodeMarks, isOurs, isCode: this.#isCode });
    } else this.platform.obey();
    const adjust = hv.get(CPU.tscAdjust, this.#cpu);
    if (adjust !== hv.get(VCPU.timeAdjust, v.at)) {
      v.writeTime(adjust);
      writeTimeArea(v, this.engine);
    }
    writeRunstate(v, this.engine);
  }
  #save(v: Vcpu, yields: boolean): void {
    const { hv } = this;
    this.platform.code.lookBack();
    writeRunstate(v, this.engine, hv.scheduler.offState(v));
    this.platform.code.lookBack(); /* after the last store: its TLBs are put aside now, and nobody looks back then */
    hv.views.u8.copyWithin(v.context, this.#cpu, this.#cpu + CPU.sizeof);
    hv.store(PCPU.vcpu, this.#at, 0);
    hv.scheduler.leave(v, this.index, yields);
  }

  /** HLT: sleep until an interrupt; with interrupts off, for ever - and a domain whose last vCPU does that has switched itself off. */
  #halt(v: Vcpu): void {
    const { hv } = this;
    if (!(CPU.eflags.get(hv.views.dv, this.#cpu) & EFLAGS.IF)) {
      hv.or(VCPU.pauseFlags, v.at, VPF.down);
      for (const other of v.domain.vcpus()) if (other.isUp) return;
      v.domain.shutdown(SHUTDOWN.poweroff);
      return;
    }
    hv.or(VCPU.pauseFlags, v.at, VPF.blocked);
    if (this.platform.hasDeliverable()) hv.and(VCPU.pauseFlags, v.at, ~VPF.blocked);
  }
  /**
   * The toolstack chooses what it means (HVM_PARAM_TRIPLE_FAULT_REASON). Left to us: a kernel that has emptied its IDT wants a reset, the last
   * resort of Linux's reboot; any other triple fault is a crash.
   */
  #tripleFault(v: Vcpu): void {
    const { dv } = this.hv.views, rip = BigInt.asUintN(64, CPU.rip.get(dv, this.#cpu)), chosen = Number(v.domain.param(HVM_PARAM.TRIPLE_FAULT_REASON));
    const reason = chosen !== 0 ? Math.min(chosen, SHUTDOWN.MAX) : CPU.idtrLimit.get(dv, this.#cpu) === 0 ? SHUTDOWN.reboot : SHUTDOWN.crash;
    if (reason === SHUTDOWN.crash) v.domain.crash(`Triple fault at 0x${rip.toString(16)}`, v.id);
    else {
      if (chosen === 0) writeConring(v.domain, new TextEncoder().encode(`Triple fault at 0x${rip.toString(16)} with an empty IDT: taken for a reboot\n`));
      v.domain.shutdown(reason);
    }
  }
  #traceExit(v: Vcpu, exit: number): void {
    const rip = CPU.rip.get(this.hv.views.dv, this.#cpu);
    this.hv.trace.emit(TRACE.exit, v.domain.domid, v.id, exit, Number(rip & 0xffffffffn) | 0, Number(rip >> 32n) | 0);
  }
}
