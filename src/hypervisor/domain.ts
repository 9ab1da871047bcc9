/** A domain's life: made paused, given memory and registers, run, shut down, destroyed in two steps so that no pCPU holds a piece of it. */
import { assert, UserError } from "../base/errors.ts";
import { EVTCHN_FIFO } from "../abi/event_channel.ts";
import { E820Entry } from "../abi/hvm/e820.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { SharedInfo, VcpuInfo } from "../abi/xen.ts";
import { XEN_LEGACY_MAX_VCPUS } from "../abi/arch-x86/xen.ts";
import { GuestMemory } from "../memory/guest_memory.ts";
import { P2M_RW, P2M_TYPE, P2m } from "../memory/p2m.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { closeAllPorts, initPorts } from "./event_channel.ts";
import { freeGrantTable } from "./grant_table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { DOMAIN, DYING, HYPERVISOR_ROOT as ROOT, MAX_DOMAINS, MAX_GRANT_FRAMES, MAX_VCPUS, PCPU, PCPU_STATE } from "./objects.ts";
import { Scheduler } from "./scheduler.ts";
import { Vcpu } from "./vcpu.ts";

/** What a domain is made with. */
export type DomainOptions = {
  /** the next free number when absent; 0 is the control domain */
  domid?: number;
  maxVcpus: number;
  /** limit of its memory in frames */
  maxPages: number;
  /** sixteen bytes of UUID, see XENVER_guest_handle */
  handle?: Uint8Array;
  maxEvtchnPort?: number;
  maxGrantFrames?: number;
};
/** A stretch of the memory map; type as in abi/hvm/e820.ts. */
export type E820 = { addr: number; size: number; type: number };
export type DomainEnd = { code: number; /** why it crashed, when it did */ text: string };

/** A handle to a domain; all its state is in the Xen heap. Each thread has handles of its own. */
export class Domain {
  readonly hv: Hypervisor;
  readonly at: number;
  readonly domid: number;
  readonly #serial: number;
  readonly p2m: P2m;
  readonly memory: GuestMemory;
  readonly #vcpus: Vcpu[] = [];

  /** @param at address of its DOMAIN struct */
  constructor(hv: Hypervisor, at: number) {
    this.hv = hv;
    this.at = at;
    this.domid = hv.get(DOMAIN.domid, at);
    this.#serial = hv.get(DOMAIN.serial, at);
    const root = hv.get(DOMAIN.p2mRoot, at);
    this.p2m = new P2m(hv.views, hv.mm.frames, root, this.domid);
    this.memory = new GuestMemory(hv.views, hv.mm.frames, root, hv.codeWritten);
  }
  isStill(at: number): boolean { return at === this.at && this.hv.get(DOMAIN.serial, at) === this.#serial; }

  /** Make a domain without memory, paused once, its vCPUs down. @throws UserError MachineMemoryExhausted */
  static create(hv: Hypervisor, o: DomainOptions): Domain {
    if (!(o.maxVcpus >= 1 && o.maxVcpus <= MAX_VCPUS)) throw new UserError(`A domain cannot have ${o.maxVcpus} vCPUs: 1 to ${MAX_VCPUS}`);
    const frames: number[] = [], page = (): number => { const at = hv.allocPage(); frames.push(at); return at; };
    const slots: number[] = [];
    try {
      const at = page(), root = page();
      hv.set(DOMAIN.serial, at, hv.serial());
      Scheduler.initDomain(hv, at);
      hv.set(DOMAIN.p2mRoot, at, root);
      hv.set(DOMAIN.maxPages, at, Math.min(o.maxPages, 0xffffffff));
      hv.set(DOMAIN.maxVcpus, at, o.maxVcpus);
      hv.set(DOMAIN.sharedInfo, at, page());
      hv.set(DOMAIN.evtchnBuckets, at, page());
      hv.set(DOMAIN.e820, at, page());
      hv.set(DOMAIN.conring, at, page());
      hv.set(DOMAIN.pauseCount, at, 1);
      hv.set(DOMAIN.maxEvtchnPort, at, Math.min(o.maxEvtchnPort ?? 1023, EVTCHN_FIFO.NR_CHANNELS - 1));
      hv.set(DOMAIN.maxGrantFrames, at, Math.min(o.maxGrantFrames ?? MAX_GRANT_FRAMES, MAX_GRANT_FRAMES));
      hv.set(DOMAIN.gntVersion, at, 1);
      hv.set(DOMAIN.sharedInfoGfn, at, 0xffffffff);
      hv.set(DOMAIN.createdNs, at, hv.clock.now());
      for (let i = 0; i < MAX_GRANT_FRAMES; i++) hv.setWord(DOMAIN.grantGfn, at, i, 0xffffffff);
      if (o.handle) hv.views.u8.set(o.handle.subarray(0, 16), at + DOMAIN.handle.at);
      const domid = hv.withLock(ROOT.domainLock, hv.root, () => {
        const domid = o.domid ?? freeDomid(hv);
        if (hv.word(ROOT.domains, hv.root, domid) !== 0) throw new UserError(`There is a domain ${domid} already`);
        if (domid >= hv.load(ROOT.nextDomid, hv.root)) hv.store(ROOT.nextDomid, hv.root, domid);
        hv.set(DOMAIN.domid, at, domid);
        hv.setWord(ROOT.domains, hv.root, domid, at);
        return domid;
      });
      try {
        for (let id = 0; id < o.maxVcpus; id++) {
          const vcpu = page();
          Vcpu.init(hv, vcpu, at, id);
          hv.setWord(DOMAIN.vcpus, at, id, vcpu);
          const slot = domid === 0 ? 0 : hv.addVcpu(vcpu);
          if (slot < 0) throw new UserError("The machine has no room for more vCPUs");
          if (domid !== 0) slots.push(slot);
          Vcpu.setSlot(hv, vcpu, slot);
        }
        const d = hv.domain(domid);
        assert(d?.at === at, `domain ${domid} is another`);
        initPorts(d);
        d.writeWallClock();
        for (const v of d.vcpus()) v.writeTime();
        return d;
      } catch (e) {
        hv.setWord(ROOT.domains, hv.root, domid, 0);
        throw e;
      }
    } catch (e) {
      for (const slot of slots) hv.setWord(ROOT.vcpus, hv.root, slot, 0);
      for (const at of frames) hv.freePage(at);
      throw e;
    }
  }

  get nrVcpus(): number { return this.hv.get(DOMAIN.maxVcpus, this.at); }
  /** The vCPU of that number, or null; the number may be a guest's. */
  vcpu(id: number): Vcpu | null {
    if (!(id >= 0 && id < this.nrVcpus)) return null;
    return this.#vcpus[id] ??= new Vcpu(this, this.hv.word(DOMAIN.vcpus, this.at, id));
  }
  *vcpus(): Generator<Vcpu> {
    for (let id = 0; id < this.nrVcpus; id++) {
      const v = this.vcpu(id);
      if (v) yield v;
    }
  }
  get totPages(): number { return this.hv.load(DOMAIN.totPages, this.at); }
  /** What it may have from now on; what it has already stays. */
  setMaxPages(nrPages: number): void { this.hv.set(DOMAIN.maxPages, this.at, nrPages); }
  get maxPages(): number { return this.hv.get(DOMAIN.maxPages, this.at); }
  get isDying(): boolean { return this.hv.load(DOMAIN.dying, this.at) !== DYING.alive; }
  get isShutDown(): boolean { return this.hv.load(DOMAIN.isShutDown, this.at) !== 0; }
  /** May its vCPUs run, as far as the domain is concerned? */
  get mayRun(): boolean { return this.hv.load(DOMAIN.pauseCount, this.at) === 0 && !this.isShutDown && !this.isDying; }

  // Memory ---------------------------------------------------------------------
  /** Give it zeroed frames at gfn, gfn + 1 ... where it has none. @throws MachineMemoryExhausted (nothing done) or UserError for more than its limit */
  populate(gfn: number, nrFrames: number): void {
    const replaced = this.replace(gfn, nrFrames);
    if (replaced === null) throw new UserError(`Domain ${this.domid} may have ${this.maxPages} pages, not ${this.totPages + nrFrames}`);
    assert(replaced.length === 0, `gfns from ${gfn} are populated already`);
  }
  /** Give it frames that the caller has, one after the other, their references with them, at gfn, gfn + 1 ... where it has none. @throws MachineMemoryExhausted RangeError what has been given then is the domain's */
  adopt(gfn: number, mfn: number, nrFrames: number): void {
    this.hv.withLock(DOMAIN.p2mLock, this.at, () => {
      assert(this.totPages + nrFrames <= this.maxPages, `domain ${this.domid} is given more than it may have`);
      const replaced: number[] = [];
      this.#put(gfn, mfn, nrFrames, replaced, (from, nr) => this.hv.mm.frames.hand(from, nr, this.domid));
      assert(replaced.length === 0, `gfns from ${gfn} are populated already`);
    });
  }
  /**
   * Put zeroed frames at gfn, gfn + 1 ... whatever is there.
   * @returns the entries that were there, now out of the p2m but perhaps in TLBs (see p2mGen) and still counted; null when the limit forbids it
   * @throws MachineMemoryExhausted
   */
  replace(gfn: number, nrFrames: number): number[] | null {
    return this.hv.withLock(DOMAIN.p2mLock, this.at, () => {
      const replaced: number[] = [], runs: [first: number, nr: number][] = [], { frames } = this.hv.mm;
      if (this.totPages + nrFrames > this.maxPages) return null;
      frames.allocRuns(nrFrames, this.domid, (first, nr) => { runs.push([first, nr]); });
      let at = gfn;
      try {
        for (const run of runs) this.#put(at, run[0], run[1], replaced, (from, nr) => { run[0] = from + nr; run[1] -= nr; at += nr; });
      } finally { /* without room for the p2m's own tables, what is set stays and the rest goes back */
        for (const [first, nr] of runs) for (let i = 0; i < nr; i++) frames.put(first + i);
        if (replaced.length) this.hv.add(DOMAIN.p2mGen, this.at, 1);
      }
      return replaced;
    });
  }
  /** Put frames that follow each other into the p2m. @param done told of those that are there, piece by piece */
  #put(gfn: number, mfn: number, nrFrames: number, replaced: number[], done: (from: number, nr: number) => void): void {
    for (let at = 0; at < nrFrames;) {
      const nr = this.p2m.setRun(gfn + at, mfn + at, nrFrames - at, P2M_RW | P2M_TYPE.ram, replaced);
      this.hv.add(DOMAIN.totPages, this.at, nr);
      done(mfn + at, nr);
      at += nr;
    }
  }
  /** Take the frame at `gfn` out of the p2m of a domain that has never run: no TLB knows it. @returns the entry that was there, its reference the caller's; 0 for none of its own */
  takePage(gfn: number): number {
    return this.hv.withLock(DOMAIN.p2mLock, this.at, () => {
      const entry = this.p2m.lookup(gfn);
      if (entry === 0 || (entry & P2M_TYPE.mask) !== P2M_TYPE.ram) return 0;
      this.hv.add(DOMAIN.totPages, this.at, -1);
      return this.p2m.clear(gfn);
    });
  }
  /** The memory map that was set. */
  memoryMap(): E820[] {
    const at = this.hv.get(DOMAIN.e820, this.at), { dv } = this.hv.views;
    return Array.from({ length: this.hv.get(DOMAIN.nrE820, this.at) }, (_, i) => {
      const p = at + i * E820Entry.sizeof;
      return { addr: Number(E820Entry.addr.get(dv, p)), size: Number(E820Entry.size.get(dv, p)), type: E820Entry.type.get(dv, p) };
    });
  }
  /** What XENMEM_memory_map and start info tell it. */
  setMemoryMap(map: readonly E820[]): void {
    const at = this.hv.get(DOMAIN.e820, this.at), { dv } = this.hv.views;
    assert(map.length * E820Entry.sizeof <= 4096, `memory map of ${map.length} entries`);
    map.forEach((e, i) => {
      const p = at + i * E820Entry.sizeof;
      E820Entry.addr.set(dv, p, BigInt(e.addr));
      E820Entry.size.set(dv, p, BigInt(e.size));
      E820Entry.type.set(dv, p, e.type);
    });
    this.hv.set(DOMAIN.nrE820, this.at, map.length);
  }

  // Parameters -----------------------------------------------------------------
  /** @param index HVM_PARAM_*, checked by the caller */
  param(index: number): bigint { return this.hv.views.u64[((this.at + DOMAIN.hvmParams.at) >>> 3) + index] as bigint; }
  setParam(index: number, value: bigint): void { this.hv.views.u64[((this.at + DOMAIN.hvmParams.at) >>> 3) + index] = value; }

  /** Sixteen bytes of UUID. */
  setHandle(handle: Uint8Array): void { this.hv.views.u8.set(handle.subarray(0, 16), this.at + DOMAIN.handle.at); }

  // Time -----------------------------------------------------------------------
  /** How far its system time is ahead of the machine's (Clock.now), in ns. */
  get timeOffsetNs(): number { return this.hv.get(DOMAIN.timeOffsetNs, this.at); }

  // Shared info ----------------------------------------------------------------
  get sharedInfo(): number { return this.hv.get(DOMAIN.sharedInfo, this.at); }
  writeWallClock(): void {
    const { dv, i32 } = this.hv.views, at = this.sharedInfo, ns = this.hv.clock.wallAtZero - BigInt(this.timeOffsetNs), version = (at + SharedInfo.wc_version.at) >>> 2;
    Atomics.add(i32, version, 1);
    SharedInfo.wc_sec.set(dv, at, Number(ns / 1_000_000_000n % 0x100000000n));
    SharedInfo.wc_sec_hi.set(dv, at, Number(ns / 1_000_000_000n / 0x100000000n));
    SharedInfo.wc_nsec.set(dv, at, Number(ns % 1_000_000_000n));
    Atomics.add(i32, version, 1);
  }
  /** Where a vCPU's vcpu_info is until it registers another; 0 for those beyond the table. */
  legacyVcpuInfo(id: number): number { return id < XEN_LEGACY_MAX_VCPUS ? this.sharedInfo + id * VcpuInfo.sizeof : 0; }

  // Running --------------------------------------------------------------------
  /** Ask its vCPUs to stop; `isQuiet` says when they have. Counts. Its timers stand meanwhile: what is due then fires when it runs again. */
  pauseNoWait(): void {
    this.hv.add(DOMAIN.pauseCount, this.at, 1);
    for (const v of this.vcpus()) v.kickIfRunning();
  }
  /** Are all its vCPUs off their pCPUs? For a paused domain this stays so: who takes a vCPU decides and says so under one lock. Not to be asked under runLock. */
  get isQuiet(): boolean {
    return this.hv.scheduler.locked(() => this.vcpus().every((v) => v.onPcpu < 0));
  }
  async pause(): Promise<void> {
    this.pauseNoWait();
    while (!this.isQuiet) {
      await new Promise((done) => setTimeout(done, 1));
      for (const v of this.vcpus()) v.kickIfRunning();
    }
  }
  unpause(): void {
    const before = this.hv.add(DOMAIN.pauseCount, this.at, -1);
    assert(before > 0, `domain ${this.domid} is not paused`);
    if (before !== 1) return;
    for (const v of this.vcpus()) {
      this.hv.scheduler.wake(v);
      this.hv.scheduler.notBefore(v.nextDeadline);
    }
    this.hv.scheduler.timersChanged();
  }
  /** End it for SHUTDOWN.*: its vCPUs run no further, its master is told. The first reason stays. */
  shutdown(code: number): void {
    const word = (this.at + DOMAIN.isShutDown.at) >>> 2;
    const preset = this.hv.load(DOMAIN.presetCode, this.at);
    if (preset !== 0) code = preset - 1;
    if (Atomics.compareExchange(this.hv.views.i32, word, 0, 1 + code) !== 0) return;
    if (this.hv.trace.on & TRACE_CLASS.error) this.hv.trace.emit(TRACE.domainShutdown, this.domid, 0, code);
    for (const v of this.vcpus()) v.kickIfRunning();
    this.hv.domExc();
  }
  /** The guest is beyond repair. */
  crash(text: string, vcpuId = -1): void {
    const bytes = new TextEncoder().encode(text).subarray(0, DOMAIN.crashText.size);
    if (!this.isShutDown) {
      this.hv.set(DOMAIN.crashVcpu, this.at, vcpuId);
      this.hv.set(DOMAIN.crashTextBytes, this.at, bytes.length);
      this.hv.views.u8.set(bytes, this.at + DOMAIN.crashText.at);
    }
    this.shutdown(SHUTDOWN.crash);
  }
  /** How it ended, or null while it has not. */
  get end(): DomainEnd | null {
    if (!this.isShutDown) return null;
    const at = this.at + DOMAIN.crashText.at, n = Math.min(this.hv.get(DOMAIN.crashTextBytes, this.at), DOMAIN.crashText.size);
    return { code: this.hv.load(DOMAIN.isShutDown, this.at) - 1, text: new TextDecoder().decode(this.hv.views.u8.slice(at, at + n)) };
  }
  /** After SHUTDOWN_suspend: let it go on, as if the suspend hypercall returned. */
  resume(): void {
    this.hv.store(DOMAIN.isShutDown, this.at, 0);
    for (const v of this.vcpus()) this.hv.scheduler.wake(v);
  }

  /** Take it down and give back all it has. Frames that others still map live until they are unmapped. */
  async destroy(): Promise<void> {
    const word = (this.at + DOMAIN.dying.at) >>> 2;
    if (Atomics.compareExchange(this.hv.views.i32, word, DYING.alive, DYING.dying) !== DYING.alive) return;
    await this.pause();
    this.hv.scheduler.forget(this);
    closeAllPorts(this);
    for (const v of this.vcpus()) this.hv.setWord(ROOT.vcpus, this.hv.root, v.slot, 0);
    this.hv.setWord(ROOT.domains, this.hv.root, this.domid, 0);
    await this.settle();
    this.#relinquish();
  }
  /** Wait until every pCPU has turned its loop once: none holds an address of this domain from before, or fires a timer that was due before it was paused. */
  async settle(): Promise<void> {
    const { hv } = this, turns = (i: number): number => hv.load(PCPU.turns, hv.pcpuAt(i));
    const before = Array.from({ length: hv.mm.nrPcpus }, (_, i) => turns(i));
    for (let i = 0; i < hv.mm.nrPcpus; i++) {
      while (turns(i) === before[i] && hv.load(PCPU.state, hv.pcpuAt(i)) === PCPU_STATE.running) {
        hv.kick(i);
        await new Promise((done) => setTimeout(done, 1));
      }
    }
  }
  #relinquish(): void {
    const { hv, at } = this, { frames } = hv.mm, vcpus = [...this.vcpus()];
    hv.store(DOMAIN.dying, at, DYING.dead);
    freeGrantTable(this);
    for (const [, entry] of this.p2m.entries()) if ((entry & P2M_TYPE.mask) === P2M_TYPE.ram) frames.put(entry >>> 12);
    const nrFifoPages = hv.get(DOMAIN.nrFifoPages, at), fifoPages = hv.get(DOMAIN.fifoPages, at);
    for (let i = 0; i < nrFifoPages; i++) frames.put(hv.word({ at: 0 }, fifoPages, i) >>> 12);
    if (fifoPages) hv.freePage(fifoPages);
    const buckets = hv.get(DOMAIN.evtchnBuckets, at);
    for (let i = 0; i < 1024; i++) {
      const bucket = hv.word({ at: 0 }, buckets, i);
      if (bucket) hv.freePage(bucket);
    }
    for (const v of vcpus) v.free();
    this.p2m.free();
    for (const page of [buckets, hv.get(DOMAIN.sharedInfo, at), hv.get(DOMAIN.e820, at), hv.get(DOMAIN.conring, at)]) hv.freePage(page);
    hv.set(DOMAIN.serial, at, 0);
    hv.freePage(at);
  }
}

function freeDomid(hv: Hypervisor): number {
  const last = hv.load(ROOT.nextDomid, hv.root);
  for (let n = 1; n < MAX_DOMAINS; n++) {
    const domid = (last + n) % MAX_DOMAINS;
    if (domid !== 0 && hv.word(ROOT.domains, hv.root, domid) === 0) return domid;
  }
  throw new UserError("All domain numbers are taken");
}
