/** One thread's view of the hypervisor: where things are in the heap, and how its words are read and written. */
import { assert } from "../base/errors.ts";
import type { Field } from "../base/struct.ts";
import type { Views } from "../base/views.ts";
import { Trace } from "../base/trace.ts";
import { DOMID } from "../abi/xen.ts";
import { lock, unlock } from "../memory/lock.ts";
import { MachineMemory, PAGE_SIZE } from "../memory/machine.ts";
import { FRAME_FLAG } from "../memory/frames.ts";
import { Clock } from "./clock.ts";
import { Domain } from "./domain.ts";
import { HYPERVISOR_ROOT as ROOT, MAX_DOMAINS, MAX_VCPUS_TOTAL, PCPU, PCPU_REQUEST } from "./objects.ts";
import { Scheduler } from "./scheduler.ts";
import { CPU } from "../x86/state.ts";

/** Made once a thread over the machine's memory. */
export class Hypervisor {
  readonly mm: MachineMemory;
  readonly views: Views;
  readonly root: number;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly scheduler: Scheduler;
  readonly #domains = new Map<number, Domain>();

  constructor(mm: MachineMemory) {
    this.mm = mm;
    this.views = mm.views;
    this.root = mm.hypervisor;
    this.clock = new Clock(this);
    this.trace = new Trace(mm.views, mm.trace.at, mm.trace.sizeBytes, () => this.clock.now());
    this.scheduler = new Scheduler(this);
  }

  #owesDom0 = false;
  get<T>(field: Field<T>, at: number): T { return field.get(this.views.dv, at); }
  set<T>(field: Field<T>, at: number, value: T): void { field.set(this.views.dv, at, value); }
  load(field: { at: number }, at: number): number { return Atomics.load(this.views.i32, (at + field.at) >>> 2); }
  store(field: { at: number }, at: number, value: number): void { Atomics.store(this.views.i32, (at + field.at) >>> 2, value); }
  or(field: { at: number }, at: number, bits: number): number { return Atomics.or(this.views.i32, (at + field.at) >>> 2, bits); }
  and(field: { at: number }, at: number, bits: number): number { return Atomics.and(this.views.i32, (at + field.at) >>> 2, bits); }
  add(field: { at: number }, at: number, n: number): number { return Atomics.add(this.views.i32, (at + field.at) >>> 2, n); }
  lock(field: { at: number }, at: number): void { lock(this.views.i32, at + field.at); }
  unlock(field: { at: number }, at: number): void { unlock(this.views.i32, at + field.at); }
  withLock<T>(field: { at: number }, at: number, section: () => T): T {
    this.lock(field, at);
    try { return section(); } finally { this.unlock(field, at); }
  }
  /** A word of an array that stands in a struct, e.g. DOMAIN.vcpus. */
  word(array: { at: number }, at: number, i: number): number { return this.views.u32[((at + array.at) >>> 2) + i] as number; }
  setWord(array: { at: number }, at: number, i: number, value: number): void { this.views.u32[((at + array.at) >>> 2) + i] = value; }

  /** A zeroed page for an object of the hypervisor. @returns its address @throws MachineMemoryExhausted */
  allocPage(): number { return (this.mm.frames.alloc(DOMID.XEN, FRAME_FLAG.heap) << 12) >>> 0; }
  freePage(at: number): void {
    assert(at % PAGE_SIZE === 0 && at !== 0, `page ${at}`);
    this.mm.frames.put(at >>> 12);
  }
  serial(): number { return this.add(ROOT.nextSerial, this.root, 1) + 1; }

  /** The domain of that number, dying ones too, or null. */
  domain(domid: number): Domain | null {
    if (!(domid >= 0 && domid < MAX_DOMAINS)) return null;
    const at = this.word(ROOT.domains, this.root, domid);
    if (at === 0) return null;
    const known = this.#domains.get(domid);
    if (known?.isStill(at)) return known;
    const found = new Domain(this, at);
    this.#domains.set(domid, found);
    return found;
  }
  *domains(): Generator<Domain> {
    const end = Math.min(MAX_DOMAINS, this.load(ROOT.nextDomid, this.root) + 1);
    for (let domid = 0; domid < end; domid++) {
      const d = this.domain(domid);
      if (d) yield d;
    }
  }

  pcpuAt(i: number): number { return this.root + ROOT.pcpu.at + i * PCPU.sizeof; }
  /** Make a pCPU look up from its guest soon, and for a reason. */
  kick(i: number, request = 0): void {
    const at = this.pcpuAt(i);
    if (request) this.or(PCPU.request, at, request);
    Atomics.store(this.views.i32, (this.mm.pcpuAt(i) + CPU.budget.at) >>> 2, -1);
    this.add(PCPU.wake, at, 1);
    Atomics.notify(this.views.i32, (at + PCPU.wake.at) >>> 2);
  }
  kickMask(cpus: number, request: number): void {
    for (let i = 0; i < this.mm.nrPcpus; i++) if (cpus & (1 << i)) this.kick(i, request);
  }
  /** Bytes of a frame with decoded code changed under the pCPUs' feet. */
  readonly codeWritten = (_mfn: number, cpus: number): void => this.kickMask(cpus, PCPU_REQUEST.flushTlb);
  wakeDom0(): void {
    this.noteDom0();
    this.ringDom0();
  }
  /** Change dom0's word under a lock; `ringDom0` follows when the lock is free. Waking a thread that waits asynchronously takes some 50 us, and it then wants that lock. */
  noteDom0(): void {
    this.add(ROOT.dom0Wake, this.root, 1);
    this.#owesDom0 = true;
  }
  ringDom0(): void {
    if (!this.#owesDom0) return;
    this.#owesDom0 = false;
    Atomics.notify(this.views.i32, (this.root + ROOT.dom0Wake.at) >>> 2);
  }
  /** A domain's state changed in a way its master wants to know. */
  domExc(): void {
    this.add(ROOT.domExc, this.root, 1);
    this.wakeDom0();
  }

  /** Tell all pCPUs to leave their loops. */
  stop(): void {
    this.store(ROOT.stop, this.root, 1);
    for (let i = 0; i < this.mm.nrPcpus; i++) this.kick(i);
  }
  get stopped(): boolean { return this.load(ROOT.stop, this.root) !== 0; }

  /** Find a slot for a vCPU in the table that the timers walk. */
  addVcpu(at: number): number {
    const table = (this.root + ROOT.vcpus.at) >>> 2;
    for (let i = 0; i < MAX_VCPUS_TOTAL; i++) {
      if (Atomics.compareExchange(this.views.u32, table + i, 0, at) !== 0) continue;
      for (;;) {
        const n = this.load(ROOT.nrVcpus, this.root);
        if (n > i || Atomics.compareExchange(this.views.i32, (this.root + ROOT.nrVcpus.at) >>> 2, n, i + 1) === n) return i;
      }
    }
    return -1;
  }
}
