/** A running domain as the toolstack's caller holds it: its console as streams, its end as a promise. */
import { SHUTDOWN } from "../abi/sched.ts";
import { UserError } from "../base/errors.ts";
import { ConsoleViews } from "../drivers/console/views.ts";
import type { ConsoleStreams } from "../drivers/console/streams.ts";
import type { Domain as HvDomain } from "../hypervisor/domain.ts";
import { VCPU } from "../hypervisor/objects.ts";
import { CPU, EXIT } from "../x86/state.ts";
import type { CheckedConfig, DiskConfig, VifConfig } from "./config.ts";
import { type CrashReport, crashReport } from "./crash.ts";
import type { Control } from "./control.ts";
import type { Devices } from "./devices.ts";
import type { Machine } from "./machine.ts";
import type { StoreRing } from "../xenstore/ring.ts";
import { BANNER } from "./initramfs.ts";
import type { Rest } from "./rest.ts";
import { vdevNumber } from "./xldisk.ts";

/** Why a domain ended: the guest's own word (public/sched.h SHUTDOWN_*), or ours. */
export type EndReason = "poweroff" | "reboot" | "suspend" | "crash" | "watchdog" | "soft_reset" | "destroyed";
/** gaveUp: it should have been started again, but ended too soon too often. */
export type DomainEnd = { readonly reason: EndReason; readonly crash?: CrashReport; readonly gaveUp?: true };

/** What a domain has done so far. */
export type DomainReport = {
  readonly domid: number; readonly name: string;
  /** from the first instruction to the banner of `domus start`'s init, and to the first byte on the console; null: not seen */
  readonly bootMs: number | null; readonly firstOutputMs: number | null;
  readonly aliveMs: number;
  readonly instructions: number; readonly hypercalls: number;
  readonly exits: Readonly<Record<string, number>>;
  /** the guest's frames now, in MiB */
  readonly memoryMiB: number;
};

/** One thing of the store's ring and one of the console's: where the guest has their pages, or the numbers of its ports. */
export type RingPair = { readonly store: number; readonly console: number };
/** What the machine gives a domain it has built. */
export type DomainParts = { readonly machine: Machine; readonly hv: HvDomain; readonly config: CheckedConfig; /** ring pages, and frames it has beyond its memory */ readonly gfns: RingPair; /** the guest's ports of the two */ readonly ports: RingPair; readonly storeRing: StoreRing; /** let no event of the two come, and then all that has */ mute(on: boolean): void; readonly overheadPages: number; readonly streams: ConsoleStreams; readonly devices: Devices; readonly control: Control; readonly channels: ReadonlyMap<string, ConsoleViews>; /** give it a device while it runs */ attachDisk(disk: DiskConfig): void; attachVif(vif: VifConfig): Promise<number>; /** tell who watches that it has shut down */ shutDown(): void; /** close rings and ports, remove store nodes, give memory back */ release(): Promise<void> };

const REASONS = new Map<number, EndReason>([[SHUTDOWN.poweroff, "poweroff"], [SHUTDOWN.reboot, "reboot"], [SHUTDOWN.suspend, "suspend"], [SHUTDOWN.crash, "crash"],
  [SHUTDOWN.watchdog, "watchdog"], [SHUTDOWN.soft_reset, "soft_reset"]]);
const EXIT_NAMES = Object.keys(EXIT);
let partsOfDomain: (domain: Domain) => DomainParts;
/** What a domain is made of, for the toolstack's own files. */
export const partsOf = (domain: Domain): DomainParts => partsOfDomain(domain);

export class Domain implements AsyncDisposable {
  readonly domid: number;
  /** Machine.renameDomain changes it */
  name: string;
  readonly uuid: string;
  /** Bytes the guest writes, and bytes it reads. The readable ends when the domain does. */
  readonly console: { readonly readable: ReadableStream<Uint8Array>; readonly writable: WritableStream<Uint8Array> };
  /** The primary console for those who only look, as many as like: a log, a second window. None of them holds the guest up. */
  readonly views = new ConsoleViews();
  readonly #parts: DomainParts;
  readonly #end = Promise.withResolvers<DomainEnd>();
  #begunMs = performance.now();
  #isEnded = false;
  #isLost = false;
  #hasLeft = false;
  /** how often its caller paused it */
  #nrPauses = 0;
  #lastReport: DomainReport | null = null;
  #release: Promise<void> | null = null;
  #bootMs: number | null = null;
  #firstOutputMs: number | null = null;
  /** while the toolstack saves or moves it: told, in place of those who `wait`, when the guest has suspended itself; `isLate`: nobody waits for it any more, and a new request may; suspend.ts */
  suspension: { told(): void; readonly isLate?: boolean } | null = null;
  static { partsOfDomain = (domain) => domain.#parts; }
  /** while it is on its way into a file or to another machine, with the devices that its configuration named when that began; suspend.ts */
  isLeaving = false;
  /** it may run at the other end: it leaves no other way until that is known; migrate.ts */
  isInDoubt = false;
  /** it runs here while pages of its memory are on their way; rest.ts */
  rest: Rest | null = null;
  /** told once, when the domain is gone */
  onGone: () => void = () => {};

  constructor(config: CheckedConfig, parts: DomainParts) {
    this.domid = parts.hv.domid;
    this.name = config.name;
    this.uuid = config.uuid;
    this.#parts = parts;
    this.#end.promise.catch(() => {});
    this.console = { readable: parts.streams.readable.pipeThrough(this.#bootWatch()), writable: parts.streams.writable };
  }

  /** Notes when the first byte and the banner pass; hands everything on untouched. */
  #bootWatch(): TransformStream<Uint8Array, Uint8Array> {
    let tail = "";
    const watch: Transformer<Uint8Array, Uint8Array> & { cancel(): void } = {
      transform: (bytes, out) => {
        const ms = performance.now() - this.#begunMs;
        this.#firstOutputMs ??= ms;
        this.views.push(bytes as Uint8Array<ArrayBuffer>);
        if (this.#bootMs === null) {
          const text = tail + String.fromCharCode(...bytes.subarray(0, 4096));
          if (text.includes(BANNER)) this.#bootMs = ms;
          tail = text.slice(-BANNER.length);
        }
        out.enqueue(bytes);
      },
      flush: () => this.views.close(),
      cancel: () => this.views.close(),
    };
    return new TransformStream(watch);
  }

  #mayChange(): void {
    if (this.isLeaving) throw new UserError(`${this.name} is being saved or moved; its devices stay as they are until that is over`);
  }
  /** Give it a disk while it runs. @throws UserError for a name that is none or is taken */
  attachDisk(disk: DiskConfig): void {
    this.#mayChange();
    this.#parts.attachDisk(disk);
  }
  /** Take a disk away: the guest is asked and waited for, or not (`isForced`). The disk is the caller's to close. @throws UserError when it does not let go */
  async detachDisk(vdev: string, isForced = false): Promise<void> {
    const devid = vdevNumber(vdev);
    this.#mayChange();
    if (devid === null || !this.devices.list("vbd").some((d) => d.devid === devid)) throw new UserError(`${this.name} has no disk ${vdev}`);
    await this.devices.remove("vbd", devid, isForced);
  }
  /** Give it a network interface while it runs. @returns its number @throws UserError */
  async attachVif(vif: VifConfig): Promise<number> {
    this.#mayChange();
    return this.#parts.attachVif(vif);
  }
  async detachVif(devid: number, isForced = false): Promise<void> {
    this.#mayChange();
    await this.devices.remove("vif", devid, isForced);
  }
  /** its further consoles, by name */
  get channels(): ReadonlyMap<string, ConsoleViews> { return this.#parts.channels; }
  /** what it can be asked to do while it runs @throws UserError when it is gone: its number and memory are others' then */
  get control(): Control {
    if (this.#release) throw new UserError(`${this.name} is gone`);
    return this.#parts.control;
  }
  /** its split devices */
  get devices(): Devices { return this.#parts.devices; }

  /** Let it run; it is built paused. */
  begin(): void {
    this.#begunMs = performance.now();
    this.#parts.hv.unpause();
  }
  /** Stop its vCPUs. Counts: as many `unpause` as `pause` until it runs. @returns when none runs @throws UserError when it is gone; XEN_DOMCTL_pausedomain */
  async pause(): Promise<void> {
    this.#mustBe("paused");
    this.#nrPauses++;
    await this.#parts.hv.pause();
  }
  /** Take one `pause` back. @throws UserError when it is not paused, or gone; XEN_DOMCTL_unpausedomain */
  unpause(): void {
    this.#mustBe("unpaused");
    if (this.#nrPauses === 0) throw new UserError(`${this.name} is not paused`);
    this.#nrPauses--;
    this.#parts.hv.unpause();
  }
  /** since it began to run here */
  get aliveMs(): number { return performance.now() - this.#begunMs; }
  get isPaused(): boolean { return this.#nrPauses > 0; }
  #mustBe(what: string): void {
    if (this.#release) throw new UserError(`${this.name} is gone and cannot be ${what}`);
  }
  /** Resolves when the domain has shut down, crashed or been destroyed; rejects when the machine under it failed. */
  wait(): Promise<DomainEnd> { return this.#end.promise; }

  /** Look whether the domain has ended; the machine calls it when the hypervisor says that some domain has. */
  async poll(): Promise<void> {
    const { hv, streams } = this.#parts, end = this.#isEnded ? null : hv.end;
    if (!end) return;
    if (end.code === SHUTDOWN.suspend && this.suspension) return this.suspension.told();
    this.#isEnded = true;
    while (!hv.isQuiet) {
      await new Promise((done) => setTimeout(done, 1));
      if (this.#release || this.#isLost) return;        // its vCPUs are gone, or never leave
    }
    const reason = REASONS.get(end.code) ?? "crash";
    this.#lastReport = this.#report();
    streams.close();
    this.#parts.shutDown();
    this.#end.resolve(reason === "crash" || reason === "watchdog" ? { reason, crash: crashReport(hv) } : { reason });
  }
  /** The machine under it is lost. */
  fail(cause: Error): void {
    this.#isEnded = this.#isLost = true;
    this.#parts.streams.close();
    this.#end.reject(cause);
  }

  /** It lives on elsewhere, or in a file: end it here, and tell who waits that it was suspended. */
  leave(): Promise<void> {
    this.#hasLeft = true;
    this.#end.resolve({ reason: "suspend" });
    return this.destroy();
  }
  /** it has been destroyed, or is being */
  get isGone(): boolean { return this.#release !== null; }
  /** it lives on elsewhere, or in a file */
  get hasLeft(): boolean { return this.#hasLeft; }
  /** Take the domain down and give back all it has. Safe to call at any time, and again. */
  destroy(): Promise<void> {
    return this.#release ??= (async () => {
      this.#lastReport ??= this.#report();
      this.#isEnded = true;
      this.#parts.hv.pauseNoWait();     // or it would live on while its disks go one by one, and a mirror would call the first one broken
      await this.#parts.release();
      this.#end.resolve({ reason: "destroyed" });
      this.onGone();
    })();
  }
  async [Symbol.asyncDispose](): Promise<void> { await this.destroy(); }

  /** What it has done; of a domain that has ended: until then. */
  report(): DomainReport { return this.#lastReport ? { ...this.#lastReport, bootMs: this.#bootMs, firstOutputMs: this.#firstOutputMs } : this.#report(); }
  #report(): DomainReport {
    const { hv } = this.#parts, { views } = hv.hv, exits: Record<string, number> = {};
    let instructions = 0, hypercalls = 0;
    for (const v of hv.vcpus()) {
      // A running vCPU's registers are in its pCPU's register file; the copy in its struct is of the last time it left one.
      const on = v.onPcpu, left = Number(CPU.retired.get(views.dv, v.context)), now = on < 0 ? 0 : Number(CPU.retired.get(views.dv, hv.hv.mm.pcpuAt(on)));
      instructions += on >= 0 && v.onPcpu === on ? Math.max(left, now) : left;
      hypercalls += VCPU.nrHypercalls.get(views.dv, v.at);
      for (let i = 0; i < VCPU.nrExits.size / 4; i++) {
        const n = views.u32[((v.at + VCPU.nrExits.at) >>> 2) + i] as number;
        if (n) exits[EXIT_NAMES[i] ?? `exit${i}`] = (exits[EXIT_NAMES[i] ?? `exit${i}`] ?? 0) + n;
      }
    }
    return {
      domid: this.domid, name: this.name, bootMs: this.#bootMs, firstOutputMs: this.#firstOutputMs, aliveMs: performance.now() - this.#begunMs,
      instructions, hypercalls, exits, memoryMiB: hv.totPages / 256,
    };
  }
}
