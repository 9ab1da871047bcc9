/** A machine: its memory, its pCPU threads, and the control domain that lives on this thread. */
import { UserError } from "../base/errors.ts";
import { TRACE_CLASS, traceClasses } from "../base/trace.ts";
import { Dom0 } from "../hypervisor/dom0.ts";
import { Hypervisor } from "../hypervisor/hypervisor.ts";
import type { PcpuProfile } from "../hypervisor/profile.ts";
import { heapBytes, MachineMemory } from "../memory/machine.ts";
import { CODE_STORE_BYTES, CodeStore } from "../x86/code-store.ts";
import { PCPU_BYTES } from "../x86/layout.ts";
import { Client } from "../xenstore/client.ts";
import { hostEntries, vmPath } from "../xenstore/domain-entries.ts";
import { domainPath } from "../xenstore/path.ts";
import { Store } from "../xenstore/store.ts";
import { asGiven, type CheckedConfig, checkConfig, checkName, type DomainConfig } from "./config.ts";
import { buildDomain, DOMAIN_OVERHEAD_MIB } from "./create.ts";
import { Cpus } from "./cpus.ts";
import type { Domain, DomainReport } from "./domain.ts";
import { type DomidPolicy, freshDomid } from "./domids.ts";
import type { Host, HostWorker } from "./host.ts";
import { Networks, type UplinkMaker } from "./networks.ts";
import type { EngineName, FromPcpu } from "./pcpu-messages.ts";

/** Where translated code is kept. It is trusted as the engine's own sources are. */
export type CodeCacheConfig = {
  /** names what translates: what another engine made is not used */
  readonly engine: string;
  /** what to call it in a message */
  readonly name: string;
  /** as `save` was given it, or null */
  readonly bytes: Uint8Array | null;
  /** called when the machine is destroyed, if something new was translated */
  save(bytes: Uint8Array): void;
};
export type MachineConfig = {
  host: Host;
  /** memory for guests, all together */
  memoryMiB?: number;
  /** how many domains there may be at once, roughly: each costs the machine some MiB beyond its memory */
  nrDomains?: number;
  pcpus?: number;
  engine?: EngineName;
  /** default: the next free number */
  domidPolicy?: DomidPolicy;
  /** trace classes, "hypercall,event" or "all"; hypercalls are always recorded, for crash reports */
  trace?: string;
  /** count where guests spend their time; `profiles` has it when the machine is destroyed */
  profile?: boolean;
  /** arrivals at code until it is translated; 0: at once, for tests */
  translateAfter?: number;
  /** keep translated code from one machine to the next */
  codeCache?: CodeCacheConfig;
  /** the way out of each bridge; default: none, guests on a bridge see each other only */
  uplink?: UplinkMaker;
  /** told what went wrong without stopping anything, in one sentence */
  log?: (sentence: string) => void;
  /** told once of an error of ours: nothing that runs here can be trusted any more */
  failed?: (cause: Error) => void;
};
export type MachineReport = { readonly pcpus: number; readonly engine: EngineName; readonly memoryMiB: number; readonly startMs: number; readonly domains: readonly DomainReport[] };

/** How a domain begins. */
export type CreateOptions = { /** its abort destroys the domain, also later */ readonly signal?: AbortSignal; /** it begins paused, `Domain.unpause` lets it run */ readonly paused?: boolean };

const MIB = 2 ** 20, WASM_PAGE = 65536;
/** What of a machine's memory is its engines'. */
const AREAS = { pcpuBytes: PCPU_BYTES, codeStoreBytes: CODE_STORE_BYTES } as const;
/** How long pCPUs are waited for before they are ended by force. */
const STOP_MS = 5000;

/** Bytes of a machine whose guests have so much memory; its heap grows with its size. */
function machineBytes(guestMiB: number, nrPcpus: number): number {
  let bytes = guestMiB * MIB;
  for (let i = 0; i < 4; i++) bytes = Math.ceil((guestMiB * MIB + heapBytes({ bytes: Math.min(bytes, 2 ** 32), nrPcpus, ...AREAS })) / WASM_PAGE) * WASM_PAGE;
  if (bytes > 2 ** 32) throw new UserError(`${guestMiB} MiB for guests are more than a machine of 4 GiB holds; ${Math.ceil(bytes / MIB) - guestMiB} MiB are its own`);
  return bytes;
}

export class Machine implements AsyncDisposable {
  readonly hv: Hypervisor;
  readonly dom0: Dom0;
  readonly store: Store;
  /** dom0's own connection to the store */
  readonly xs: Client;
  readonly networks: Networks;
  /** its processors: vCPUs, schedulers, cpupools */
  readonly cpus: Cpus;
  readonly log: (sentence: string) => void;
  /** what each pCPU counted, where MachineConfig.profile asked for it: complete when the machine is destroyed */
  readonly profiles: PcpuProfile[] = [];
  readonly #config: MachineConfig;
  readonly #workers: HostWorker[] = [];
  readonly #domains = new Set<Domain>();
  /** domains that are being built, by their names */
  readonly #building = new Map<string, Promise<Domain>>();
  readonly #reports: DomainReport[] = [];
  #startMs = 0;
  /** what its pCPUs have translated */
  readonly #code: CodeStore;
  #failure: Error | null = null;
  /** a pCPU did not end when it was asked to */
  #isForced = false;
  #destroyed: Promise<void> | null = null;

  constructor(config: MachineConfig) {
    this.#config = config;
    this.log = config.log ?? (() => {});
    const nrPcpus = config.pcpus ?? Math.min(config.host.nrCpus, 32);
    if (!Number.isSafeInteger(nrPcpus) || nrPcpus < 1 || nrPcpus > 32) throw new UserError(`pcpus: A machine has 1 to 32 pCPUs, not ${nrPcpus}`);
    const memoryMiB = config.memoryMiB ?? 512;
    if (!Number.isSafeInteger(memoryMiB) || memoryMiB < 1) throw new UserError(`memoryMiB: ${memoryMiB} is not a whole number of MiB`);
    const { bits, unknown } = traceClasses(config.trace ?? "");
    if (unknown !== undefined) throw new UserError(`trace: "${unknown}" is no class; there are all, ${Object.keys(TRACE_CLASS).join(", ")}`);
    const bytes = machineBytes(memoryMiB + DOMAIN_OVERHEAD_MIB * (config.nrDomains ?? 4), nrPcpus);
    this.hv = new Hypervisor(MachineMemory.create({ bytes, nrPcpus, ...AREAS }));
    this.hv.trace.on = bits | TRACE_CLASS.hypercall;
    const cache = config.codeCache, flaw = cache?.bytes && CodeStore.flaw(cache.bytes);
    this.#code = CodeStore.of(this.hv.mm)!;
    if (flaw) this.log(`The code cache ${cache.name} is not used, ${flaw}; it is made anew`);
    else if (cache?.bytes) this.#code.load(cache.bytes, cache.engine);
    this.dom0 = new Dom0(this.hv, config.host.soon, config.host.nrCpus, config.host.idleMs);
    this.networks = new Networks(config.uplink, this.log);
    this.cpus = new Cpus(this);
    this.store = new Store({ hooks: { log: (sentence) => this.log(sentence) } });
    this.xs = new Client(this.store);
    this.xs.writeAll(hostEntries());
    this.ready = this.#start();
    this.ready.catch(() => {});        // whoever builds a domain is told
  }

  /** When the pCPU threads are there; domains can be built before that. Rejected when one cannot be had. */
  readonly ready: Promise<void>;

  /** Start the pCPU threads. */
  async #start(): Promise<void> {
    const begun = performance.now();
    this.dom0.onDomainChange(() => { for (const d of this.#domains) void d.poll().catch((e) => this.#fail(e)); });
    await Promise.all(Array.from({ length: this.hv.mm.nrPcpus }, (_, index) => new Promise<void>((resolve, reject) => {
      const worker = this.#config.host.spawnPcpu(index);
      this.#workers.push(worker);
      worker.onDeath = (cause) => { this.#fail(cause); reject(cause); };
      worker.onMessage = (message: FromPcpu) => {
        switch (message.op) {
          case "ready": return resolve();
          case "stopped":
            if (message.profile) this.profiles.push(message.profile);
            return;
          case "failed": {
            const cause = new Error(`pCPU ${message.index} failed: ${message.message}`);
            cause.stack = message.stack;
            this.#fail(cause);
            return reject(cause);
          }
          default: return message satisfies never;
        }
      };
      worker.post({ op: "start", memory: this.hv.mm.memory, index, engine: this.#config.engine ?? "auto", profile: this.#config.profile ?? false, ...(this.#config.translateAfter === undefined ? {} : { translateAfter: this.#config.translateAfter }) });
    })));
    this.#startMs = performance.now() - begun;
  }

  /** An error of ours: nothing that runs here can be trusted any more. */
  #fail(cause: Error): void {
    if (this.#failure) return;
    this.#failure = cause;
    for (const d of this.#domains) d.fail(cause);
    this.#config.failed?.(cause);
  }

  /**
   * Build a domain and let it run, or leave it paused once.
   * @throws UserError for a bad configuration or image, before anything of the domain exists
   */
  async createDomain(config: DomainConfig | CheckedConfig, options: CreateOptions = {}): Promise<Domain> {
    options.signal?.throwIfAborted();
    const checked = checkConfig(asGiven(config));
    return this.addDomain(checked.name, () => buildDomain(this, checked), options);
  }
  /** Have a domain built that will be called so, and let it run. @throws UserError where the name is taken, and what `build` throws */
  async addDomain(name: string, build: () => Promise<Domain>, options: CreateOptions = {}): Promise<Domain> {
    options.signal?.throwIfAborted();
    if (this.#failure) throw this.#failure;
    if (this.#destroyed) throw new UserError("The machine is destroyed");
    if (this.#building.has(name) || this.domains.some((d) => d.name === name)) throw new UserError(`name: There is a domain named "${name}" already`);
    const made = this.#make(build, options);
    this.#building.set(name, made);
    try { return await made; } finally { this.#building.delete(name); }
  }
  async #make(build: () => Promise<Domain>, { signal, paused }: CreateOptions): Promise<Domain> {
    const domain = await build();
    await this.ready;
    if (this.#failure) throw this.#failure;
    if (this.#destroyed) {        // meanwhile; it waits for us
      await domain.destroy();
      throw new UserError("The machine is destroyed");
    }
    this.#domains.add(domain);
    const abort = () => { void domain.destroy(); };
    signal?.addEventListener("abort", abort, { once: true });
    domain.onGone = () => {
      signal?.removeEventListener("abort", abort);
      this.#domains.delete(domain);
      this.#reports.push(domain.report());
    };
    if (signal?.aborted) abort();
    else {
      if (paused) await domain.pause();
      domain.begin();
    }
    return domain;
  }
  /** The number that a new domain is to have; undefined: the next free one. */
  freshDomid(): number | undefined { return freshDomid(this.#config.domidPolicy ?? "xen", (domid) => this.hv.domain(domid) !== null); }
  /** Give a domain another name, in the store too. @throws UserError where the name is taken */
  renameDomain(domain: Domain, name: string): void {
    const fault = checkName(name);
    if (fault) throw new UserError(`name: ${fault}`);
    if (this.#building.has(name) || this.domains.some((d) => d.name === name && d !== domain)) throw new UserError(`name: There is a domain named "${name}" already`);
    this.xs.transaction((t) => { for (const path of [domainPath(domain.domid), vmPath(domain.uuid)]) t.write(`${path}/name`, name); });
    domain.name = name;
  }

  /** Domains that exist, whether they run or have shut down. */
  get domains(): readonly Domain[] { return [...this.#domains]; }
  report(): MachineReport {
    const { nrFrames } = this.hv.mm.frames;
    return {
      pcpus: this.hv.mm.nrPcpus, engine: this.#config.engine ?? "auto", memoryMiB: nrFrames / 256, startMs: this.#startMs,
      domains: [...this.#reports, ...this.domains.map((d) => d.report())],
    };
  }
  /** The trace's records, oldest first. */
  traceText(): string { return this.hv.trace.text().join("\n"); }

  /** Destroy all domains, end the threads. */
  destroy(): Promise<void> {
    return this.#destroyed ??= (async () => {
      await Promise.allSettled(this.#building.values());
      if (!this.#failure) await Promise.all(this.domains.map((d) => d.destroy()));
      this.hv.stop();
      await Promise.all(this.#workers.map((w) => new Promise<void>((resolve) => {
        const timer = setTimeout(() => { this.#isForced = true; resolve(); }, STOP_MS), handled = w.onMessage;
        w.onMessage = (m) => { handled(m); if (m.op === "stopped") { clearTimeout(timer); resolve(); } };
        w.onDeath = () => { clearTimeout(timer); resolve(); };
      }).then(() => w.terminate())));
      await this.networks.close();
      this.dom0.close();
      this.xs.close();
      this.#saveCode();
    })();
  }
  async [Symbol.asyncDispose](): Promise<void> { await this.destroy(); }

  /** What the pCPUs translated, in one file for the next machine. */
  #saveCode(): void {
    const cache = this.#config.codeCache;
    if (!cache || this.#failure || this.#isForced || this.#code.nrAdded === 0) return;        // what failed is not to be met again, and who was ended by force may hold the store's lock
    try { cache.save(this.#code.encode(cache.engine)); } catch (e) { this.log((e as Error).message); }       // the guests have ended well all the same
  }
}

/**
 * Make a machine, whose pCPUs start meanwhile.
 * @throws UserError when the host refuses its memory or the options are no good
 */
export const beginMachine = (config: MachineConfig): Machine => new Machine(config);
/** The same, once its pCPUs run. */
export async function createMachine(config: MachineConfig): Promise<Machine> {
  const machine = new Machine(config);
  try {
    await machine.ready;
    return machine;
  } catch (e) {
    await machine.destroy();
    throw e;
  }
}
