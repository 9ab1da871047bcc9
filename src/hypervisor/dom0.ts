/**
 * Domain 0 as its back ends use it, on the thread of the machine's master: event channels with handlers, guests' frames by number or by grant.
 * Its pending events lie in a shared info page like any domain's; its upcall is the word `dom0Wake`, waited on without blocking.
 */
import { EVTCHNSTAT } from "../abi/event_channel.ts";
import { GNTST } from "../abi/grant_table.ts";
import { SharedInfo, VcpuInfo } from "../abi/xen.ts";
import { P2M_RW } from "../memory/p2m.ts";
import { readConring } from "./conring.ts";
import type { Arrival } from "./arrival.ts";
import { Domain } from "./domain.ts";
import { allocUnbound, bindInterdomain, close, send, status } from "./event_channel.ts";
import { type GrantMapping, mapGrant, unmapGrant } from "./grant_table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { Linger } from "./linger.ts";
import { DOMAIN, HYPERVISOR_ROOT as ROOT } from "./objects.ts";

const POLL_MS = 2;
/** How often a guest that rings without pause is answered before the thread's other tasks have their turn. */
const ROUNDS = 8;

/** The guest's fault or state stands in the way: the errno or GNTST_* says which. */
export class Dom0Refusal extends Error {
  override name = "Dom0Refusal";
  readonly code: number;
  constructor(what: string, code: number) {
    super(`${what}: ${code}`);
    this.code = code;
  }
}
/** A granted frame, mapped. */
export type MappedGrant = GrantMapping & { /** machine byte address of the frame */ at: number };

/** The control domain's hands in the hypervisor; one a machine. */
export class Dom0 {
  readonly hv: Hypervisor;
  readonly domain: Domain;
  readonly #handlers = new Map<number, () => void>();
  readonly #changed = new Set<() => void>();
  readonly #console = new Map<number, (bytes: Uint8Array) => void>();
  readonly #pages = new Map<number, number>();
  /** domains that run while pages of theirs are on their way, by domid */
  readonly arrivals = new Map<number, Arrival>();
  #seenExc = 0;
  #seenAwaits = 0;
  #closed = false;
  #timer: ReturnType<typeof setInterval> | null = null;

  readonly #soon: ((task: () => void) => void) | null;
  readonly #linger: Linger;

  /**
   * @param soon runs a task in the next turn of this thread's loop; without it the thread sleeps between events
   * @param nrCpus processors of the host
   * @param idleMs see Host
   */
  constructor(hv: Hypervisor, soon: ((task: () => void) => void) | null = null, nrCpus = 1, idleMs?: () => number | null) {
    this.hv = hv;
    this.#linger = new Linger(idleMs);
    hv.store(ROOT.hasSpareCpu, hv.root, nrCpus > hv.mm.nrPcpus ? 1 : 0);
    this.#soon = soon;
    this.domain = hv.domain(0) ?? Domain.create(hv, { domid: 0, maxVcpus: 1, maxPages: 0, maxEvtchnPort: 4095 });
    this.#wait();
  }
  /** Stop listening. */
  close(): void {
    this.#closed = true;
    if (this.#timer) clearInterval(this.#timer);
    this.hv.wakeDom0();
  }

  // Events ---------------------------------------------------------------------
  /** Make a port in the guest that domain 0 may bind to. @returns the guest's port */
  allocUnbound(domid: number): number {
    const d = this.#domain(domid);
    return this.#ok(`A port in domain ${domid}`, allocUnbound(d, 0));
  }
  /** Bind to a port the guest has made for domain 0. @returns domain 0's port */
  bind(domid: number, remotePort: number): number { return this.#ok(`Port ${remotePort} of domain ${domid}`, bindInterdomain(this.domain, domid, remotePort)); }
  notify(port: number): void { send(this.domain, port); }
  /** Is there another end to a port that was bound? */
  isBound(port: number): boolean {
    const is = status(this.domain, port);
    return typeof is !== "number" && is.state === EVTCHNSTAT.interdomain;
  }
  closePort(port: number): void {
    this.#handlers.delete(port);
    close(this.domain, port);
  }
  /** Have `handler` called after the other end of `port` notified; several notifications may become one call. */
  onEvent(port: number, handler: () => void): void { this.#handlers.set(port, handler); }
  /** Have `handler` called after some domain shut down or crashed. @returns a function that ends it */
  onDomainChange(handler: () => void): () => void {
    this.#changed.add(handler);
    return () => this.#changed.delete(handler);
  }
  /** Receive what a domain writes to its debug console (console_io, port 0xe9). */
  onDebugConsole(domid: number, handler: (bytes: Uint8Array) => void): void { this.#console.set(domid, handler); }

  /** Call the handlers of what is pending now. Called by the event loop; a test may call it too. */
  poll(): void {
    const { hv } = this, { i32, u8 } = hv.views, info = this.domain.sharedInfo;
    const exc = hv.load(ROOT.domExc, hv.root);
    if (exc !== this.#seenExc) {
      this.#seenExc = exc;
      this.#drainConsoles();
      for (const handler of [...this.#changed]) handler();
    }
    const awaits = hv.load(ROOT.nrAwaits, hv.root);
    if (awaits !== this.#seenAwaits) {
      this.#seenAwaits = awaits;
      for (const arrival of this.arrivals.values()) arrival.poll();
    }
    if (Atomics.exchange(u8, info + VcpuInfo.evtchn_upcall_pending.at, 0) === 0) return;
    for (let half = 0; half < 2; half++) {
      let sel = Atomics.exchange(i32, (info + VcpuInfo.evtchn_pending_sel.at + half * 4) >>> 2, 0);
      for (; sel !== 0; sel &= sel - 1) {
        const word = half * 32 + 31 - Math.clz32(sel & -sel);
        for (const part of [0, 1]) {
          let bits = Atomics.exchange(i32, ((info + SharedInfo.evtchn_pending.at) >>> 2) + word * 2 + part, 0);
          for (; bits !== 0; bits &= bits - 1) this.#handlers.get(word * 64 + part * 32 + 31 - Math.clz32(bits & -bits))?.();
        }
      }
    }
  }
  #drainConsoles(): void {
    for (const [domid, handler] of this.#console) {
      const d = this.hv.domain(domid), bytes = d ? readConring(d) : null;
      if (!d) this.#console.delete(domid);
      if (bytes?.length) handler(bytes);
    }
  }
  #wait(): void {
    const { i32 } = this.hv.views, word = (this.hv.root + ROOT.dom0Wake.at) >>> 2;
    if (!Atomics.waitAsync) {
      this.#timer = setInterval(() => this.poll(), POLL_MS);
      return;
    }
    let last = 0, asleepSinceMs = 0;
    /** Look for the next event, turn by turn of this thread's own loop. */
    const look = (sinceMs: number, forMs: number): void => {
      if (this.#closed) return;
      const lookedMs = performance.now() - sinceMs, isRung = Atomics.load(i32, word) !== last;
      if (!isRung && lookedMs < forMs && this.#mayBurn()) return this.#soon!(() => look(sinceMs, forMs));
      this.#linger.looked(lookedMs);
      if (isRung) loop();
      else sleep();
    };
    const sleep = (): void => {
      asleepSinceMs = performance.now();
      const waiting = Atomics.waitAsync(i32, word, last);
      if (waiting.async) void waiting.value.then(woken);
      else loop();
    };
    const woken = (): void => {
      this.#linger.woken(performance.now() - asleepSinceMs);
      loop();
    };
    const loop = (): void => {
      for (let round = 0; !this.#closed; round++) {
        if (round === ROUNDS) return void setTimeout(loop, 0);
        last = Atomics.load(i32, word);
        this.poll();
        if (Atomics.load(i32, word) !== last) continue;
        const forMs = this.#linger.after(), sinceMs = performance.now();
        if (!this.#soon || forMs === 0 || !this.#mayBurn()) return sleep();
        return this.#soon(() => look(sinceMs, forMs));
      }
    };
    queueMicrotask(loop);
  }

  /** Is there a processor that would do nothing otherwise? */
  #mayBurn(): boolean { return this.hv.load(ROOT.hasSpareCpu, this.hv.root) !== 0 || this.hv.load(ROOT.idlePcpus, this.hv.root) !== 0; }

  // Memory ---------------------------------------------------------------------
  /** Map a guest's frame by number. @returns its machine byte address; pinned until `unmap` */
  mapGfn(d: Domain, gfn: number): number {
    const mfn = this.hv.withLock(DOMAIN.p2mLock, d.at, () => {
      const entry = d.p2m.lookup(gfn);
      return (entry & P2M_RW) === P2M_RW && this.hv.mm.frames.get(entry >>> 12, d.domid) ? entry >>> 12 : 0;
    });
    if (mfn === 0) throw new Dom0Refusal(`Domain ${d.domid} has no memory at gfn 0x${gfn.toString(16)}`, GNTST.bad_page);
    this.#pages.set(mfn, (this.#pages.get(mfn) ?? 0) + 1);
    return (mfn << 12) >>> 0;
  }
  unmap(page: number): void {
    const mfn = page >>> 12, n = this.#pages.get(mfn) ?? 0;
    if (n === 0) return;
    if (n === 1) this.#pages.delete(mfn);
    else this.#pages.set(mfn, n - 1);
    this.hv.mm.frames.put(mfn);
  }
  /** Map what a guest granted to domain 0. @returns the mapping, or the GNTST_* a back end answers with */
  mapGrant(domid: number, ref: number, isReadonly = false): MappedGrant | number {
    const d = this.hv.domain(domid);
    if (!d || d.isDying) return GNTST.bad_domain;
    const m = mapGrant(d, ref, 0, isReadonly);
    return typeof m === "number" ? m : { ...m, at: (m.mfn << 12) >>> 0 };
  }
  unmapGrant(m: MappedGrant): void {
    if (!m.isReadonly) this.wrote(m.at);
    unmapGrant(m);
  }
  /** Say that a mapped frame was written to, before the guest is told: it may have held code. `unmapGrant` does; who keeps mappings calls it. */
  wrote(page: number): void {
    const cpus = this.hv.mm.frames.noteWrite(page >>> 12);
    if (cpus !== 0) this.hv.codeWritten(page >>> 12, cpus);
  }
  /** Copy between a granted frame and a buffer, mapping it for as long as it takes. @returns GNTST_* */
  copyFromGrant(domid: number, ref: number, offset: number, into: Uint8Array): number {
    if (offset < 0 || offset + into.length > 4096) return GNTST.bad_copy_arg;
    const m = this.mapGrant(domid, ref, true);
    if (typeof m === "number") return m;
    into.set(this.hv.views.u8.subarray(m.at + offset, m.at + offset + into.length));
    this.unmapGrant(m);
    return GNTST.okay;
  }
  copyToGrant(domid: number, ref: number, offset: number, from: Uint8Array): number {
    if (offset < 0 || offset + from.length > 4096) return GNTST.bad_copy_arg;
    const m = this.mapGrant(domid, ref);
    if (typeof m === "number") return m;
    this.hv.views.u8.set(from, m.at + offset);
    this.unmapGrant(m);
    return GNTST.okay;
  }

  #domain(domid: number): Domain {
    const d = this.hv.domain(domid);
    if (!d) throw new Dom0Refusal(`There is no domain ${domid}`, -3);
    return d;
  }
  #ok(what: string, result: number): number {
    if (result < 0) throw new Dom0Refusal(`${what} cannot be had`, result);
    return result;
  }
}
