/** The domains that live in a machine's process: each with its configuration, its disks and its supervisor, from its making to its end. */
import { access, constants, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { ApiFault, faultOf } from "../../api/fault.ts";
import type { EventLog } from "../../api/events.ts";
import { configOf, DomainConfigJson } from "../../api/schema.ts";
import { checkedBy } from "../../api/serve.node.ts";
import type { Progress } from "../../api/tasks.ts";
import { UserError } from "../../base/errors.ts";
import { asGiven, type CheckedConfig, checkConfig, type DiskConfig, dropImages, type DomainConfig, type EventAction } from "../../toolstack/config.ts";
import { crashText } from "../../toolstack/crash.ts";
import { planDomain } from "../../toolstack/create.ts";
import { closeDisks, isReadOnly } from "../../toolstack/disks.ts";
import type { Domain, DomainEnd } from "../../toolstack/domain.ts";
import { fromLibxl, type LibxlConfig } from "../../toolstack/libxl-json.ts";
import type { Machine } from "../../toolstack/machine.ts";
import { DEFAULT_BRIDGE } from "../../toolstack/networks.ts";
import { actionFor, superviseDomain } from "../../toolstack/supervise.ts";
import { reviewDisk } from "../../toolstack/xldevices.ts";
import { checkVdevs, type DiskSpec } from "../../toolstack/xldisk.ts";
import { logConsole, serveChannel } from "../consoles.ts";
import { peerOf } from "../disks.ts";
import { findShares } from "../shares.ts";
import { makeFolders } from "../paths.ts";
import { openDrives } from "./drives.ts";
import { Doubts } from "./doubts.ts";
import type { MigrationJournal } from "./journal.ts";
import type { Messages } from "./messages.ts";
import { dumpToFile } from "./moves.ts";
import { presentConfig } from "./present.ts";

const MAX_IMAGE_BYTES = 2 ** 31 - 1;

/** A configuration that came as a text: somebody else's. @throws ApiFault */
export function configOfText(text: string, what: string): LibxlConfig {
  let json: unknown;
  try { json = JSON.parse(text); } catch { throw new ApiFault("invalid", `${what} is no JSON`); }
  return configOf(checkedBy(DomainConfigJson, what, json));
}

/** A configuration for a life to come, with whatever images it will find then. @returns it @throws UserError naming the field */
export function mustBuild(config: LibxlConfig): LibxlConfig {
  checkConfig({ ...fromLibxl(config).config, kernel: new Uint8Array(1) });
  return config;
}
/** What residents have of their machine. */
export type House = { readonly machine: Machine; readonly events: EventLog; readonly messages: Messages; /** where consoles are logged and cores are dumped */ readonly folder: string; /** of the domains that are handed over */ readonly journal: MigrationJournal };

/** Read an image without holding up the domains that run here: a pipe would for ever. @param isWanted its bytes are, and not only that it is there @throws UserError */
async function readImage(path: string, what: string, isWanted: boolean): Promise<Uint8Array> {
  const why = (e: NodeJS.ErrnoException): UserError => new UserError(`${what}: ${path} ${e.code === "ENOENT" ? "does not exist" : e.code === "EACCES" ? "may not be read" : `cannot be read (${e.code ?? e.message})`}`, { cause: e });
  const found = await stat(path).catch((e) => { throw why(e); });
  if (!found.isFile()) throw new UserError(`${what}: ${path} is ${found.isDirectory() ? "a folder" : "no file"}`);
  if (found.size > MAX_IMAGE_BYTES) throw new UserError(`${what}: ${path} is ${found.size} bytes long; ${MAX_IMAGE_BYTES} is the limit`);
  if (isWanted) return readFile(path).catch((e) => { throw why(e); });
  await access(path, constants.R_OK).catch((e) => { throw why(e); });
  return new Uint8Array(0);
}
/** What a domain is made from, but for disks that somebody else may still write to: `open` opens those, once; or `drop` closes what is open. */
export type Prepared = { readonly checked: CheckedConfig; open(): Promise<CheckedConfig>; drop(): Promise<void> };
type LoadOptions = { /** it has its memory from elsewhere: the images are for a later start, and may be missing */ readonly isBuilt?: boolean; progress?(p: Progress): void; missing?(why: string): void };
/** A file of the guest's own bytes: nothing of it is remembered when it is opened, so it may be read while somebody else still writes to it; to be written it has one opener. */
const isPlain = (d: DiskSpec): boolean => d.format === "raw" && peerOf(d.target) === undefined;
/** What a domain is made from: images read, disks opened. @throws UserError with no disk left open */
export const loadConfig = async (config: LibxlConfig, options: LoadOptions = {}): Promise<CheckedConfig> => (await prepareConfig(config, false, options)).open();
/** The same in two steps. @param isEarly what can be opened is, in the first one @throws UserError with no disk left open */
async function prepareConfig(config: LibxlConfig, isEarly: boolean, options: LoadOptions): Promise<Prepared> {
  const file = fromLibxl(config), { isBuilt = false } = options;
  for (const d of file.disks) reviewDisk(d);
  checkVdevs(file.disks);
  options.progress?.({ text: "reading images" });
  const image = (path: string, what: string): Promise<Uint8Array> => readImage(path, what, !isBuilt).catch((e) => {
    if (!isBuilt) throw e;
    options.missing?.(`${config.c_info.name} runs on, and cannot be started again: ${(e as Error).message}`);
    return new Uint8Array(0);
  });
  const kernel = await image(file.kernel.path, "kernel"), ramdisk = file.ramdisk ? await image(file.ramdisk.path, "ramdisk") : null;
  const images = { kernel, kernelName: file.kernel.path, ...(file.ramdisk && ramdisk?.length ? { ramdisk, ramdiskName: file.ramdisk.path } : {}), shares: findShares(file.shares, "") }, checked = checkConfig({ ...file.config, ...images }, { isBuilt });
  if (!isBuilt) await planDomain(checked);         // told before a disk is opened
  options.progress?.({ text: "opening disks" });
  const plain = isEarly ? file.disks.filter(isPlain) : [];
  await closeDisks(await openDrives(plain.filter((d) => !isReadOnly(d)).map((d) => ({ ...d, access: "r" }))));       // is it there?
  const early = await openDrives(plain.filter(isReadOnly));
  return {
    checked,
    open: async () => {
      const opened = [...early, ...await openDrives(file.disks.filter((d) => !early.some(({ vdev }) => vdev === d.vdev)))];
      return checkConfig({ ...file.config, ...images, disks: file.disks.map(({ vdev }) => opened.find((d) => d.vdev === vdev)!) }, { isBuilt });
    },
    drop: () => closeDisks(early),
  };
}

/** One domain through all its lives. */
export class Resident {
  #config: LibxlConfig;
  /** what the next life is made from, where it is not to be as it is now */
  nextConfig: LibxlConfig | null = null;
  /** the present life */
  domain: Domain | null = null;
  disks: readonly DiskConfig[] = [];
  /** what the present life was made from */
  #loaded: CheckedConfig;
  readonly startedMs = Date.now();
  /** settles when the domain is gone for good */
  readonly gone: Promise<DomainEnd>;
  readonly #house: House;
  readonly #controller = new AbortController();
  readonly #born = Promise.withResolvers<Domain>();
  #nextLife = Promise.withResolvers<Domain | null>();
  /** for the file of its console, and for messages about what never came to life */
  readonly #firstName: string;

  constructor(house: House, config: LibxlConfig, loaded: CheckedConfig, options: { readonly isPaused?: boolean; readonly first?: Domain }, over: (r: Resident) => void) {
    this.#house = house;
    this.#config = config;
    this.disks = loaded.disks;
    this.#loaded = loaded;
    this.#firstName = config.c_info.name;
    this.#born.promise.catch(() => {});
    const { machine, messages } = house;
    this.gone = superviseDomain(machine, loaded, {
      attach: (domain) => this.#attach(domain), ended: (domain, end) => this.#ended(domain, end), next: () => this.#next(), notice: (text) => messages.say(text), signal: this.#controller.signal,
      ...(options.isPaused ? { isPaused: true } : {}), ...(options.first ? { first: options.first } : {}),
    }).then(async (end) => {
      const kept = this.domain && machine.domains.includes(this.domain) ? this.domain : null;
      if (kept) {                 // preserved, until somebody destroys it
        await new Promise<void>((done) => { this.#leave = done; if (this.#controller.signal.aborted) done(); });
        await kept.destroy();
        this.#tellDied(kept, "destroyed");
      } else if (end.gaveUp && this.domain) this.#tellDied(this.domain, end.reason);        // its last life was told of as one that is followed by another
      return end;
    }).catch(async (e): Promise<DomainEnd> => {
      const last = this.domain;
      if (last && machine.domains.includes(last)) await last.destroy();        // it ran, and nobody would keep it, on disks that are closed below
      this.#born.reject(e);
      const { message } = e as Error, by = `${this.name}: `;
      messages.say(message.startsWith(by) ? message : `${by}${message}`);
      if (last) this.#tellDied(last, (e as Error).message);        // it should have lived again
      return { reason: "destroyed" };
    }).then(async (end) => {
      await closeDisks(this.disks, (text) => messages.say(text));
      this.#born.reject(new ApiFault("cancelled", `${this.name} was destroyed before it ran`));
      this.#nextLife.resolve(null);
      over(this);
      return end;
    });
  }
  #leave: () => void = () => {};
  #tellDied(d: Domain, reason: string): void { this.#house.events.emit({ kind: "domain.died", domid: d.domid, name: d.name, uuid: d.uuid, reason, action: "destroy" }); }
  get name(): string { return this.domain?.name ?? this.#firstName; }
  /** As it is now: what was plugged in, and what was set while it runs. Its next life, its saved one and the one at another host are made from it. */
  get config(): LibxlConfig { return this.domain ? presentConfig(this.#house.machine, this.domain, this.#config) : this.#config; }
  /** Change what it is made of, now and in its next life. */
  change(how: (config: LibxlConfig) => LibxlConfig): void {
    this.#config = how(this.#config);
    if (this.nextConfig) this.nextConfig = how(this.nextConfig);
  }
  /** The first life, when it runs. @throws as its making does */
  get born(): Promise<Domain> { return this.#born.promise; }
  /** The life after the present one; null when there is none. */
  get nextLife(): Promise<Domain | null> { return this.#nextLife.promise; }

  async #attach(domain: Domain): Promise<void> {
    const { events, messages, folder } = this.#house, isFirst = this.domain === null, { views } = domain, { name, uuid, domid } = domain;
    this.domain = domain;
    dropImages(this.#loaded);
    const writer = domain.console.writable.getWriter();
    writer.closed.catch(() => {});
    views.typeTo((bytes) => writer.write(bytes));
    logConsole(join(folder, "console"), name, views, (text) => messages.say(text));
    const channels: (() => void)[] = [];
    for (const c of this.config.channels ?? []) {
      const view = c.name === undefined ? undefined : domain.channels.get(c.name);
      if (view) await serveChannel(c["connection.socket"].path, view).then((end) => channels.push(end), (e: Error) => messages.say(`${name}: ${e.message}`));
    }
    events.emit({ kind: isFirst ? "domain.created" : "domain.started", domid, name, uuid });
    const turn = this.#nextLife;
    this.#nextLife = Promise.withResolvers();
    turn.resolve(domain);
    this.#born.resolve(domain);
    try {
      for await (const _ of domain.console.readable) { /* who looks looks at the views */ }
    } catch (e) {
      if (!(e instanceof Error)) throw e;       // the console's end is the domain's, whatever it says
    } finally {
      for (const end of channels) end();
    }
  }
  async #ended(domain: Domain, end: DomainEnd): Promise<void> {
    const { events, messages } = this.#house, { domid, name, uuid } = domain, action: EventAction = this.#controller.signal.aborted ? "destroy" : actionFor(this.#loaded, end);
    messages.say(`Domain ${domid} (${name}) has ${end.reason === "destroyed" ? "been destroyed" : `shut down: ${end.reason}`}; ${action}`);
    if (end.crash) messages.say(crashText(name, end.crash));
    this.#config = this.config;        // before the domain goes
    if (/^coredump-/.test(action)) await this.#dump(domain);
    events.emit({ kind: end.reason === "destroyed" ? "domain.died" : "domain.shutdown", domid, name, uuid, reason: end.reason, action });
    if (end.reason !== "destroyed" && action !== "preserve" && action !== "rename-restart") {
      await domain.destroy();
      events.emit({ kind: "domain.died", domid, name, uuid, reason: end.reason, action });
    }
  }
  /** As xl does: into the folder of cores, by name and time. */
  async #dump(domain: Domain): Promise<void> {
    const { folder, messages } = this.#house, path = join(folder, "dump", `${new Date().toISOString().slice(0, 19).replace(/[-:]/g, "").replace("T", "-")}-${domain.name}.${domain.domid}.core`);
    messages.say(`dumping core to ${path}`);
    try {
      makeFolders(join(folder, "dump"), 0o700);
      await dumpToFile(domain, path, {});
    } catch (e) { messages.say(`core dump failed: ${(e as Error).message}`); }
  }
  /** Its cpupool has another name now: where it lives on, is saved from and moves from. */
  livesIn(pool: (was: string | undefined) => string | undefined): void {
    this.change((config) => {
      const { pool_name, ...rest } = config.c_info, now = pool(pool_name);
      return { ...config, c_info: now === undefined ? rest : { ...rest, pool_name: now } };
    });
  }
  async #next(): Promise<CheckedConfig> {
    const after = this.nextConfig ?? this.#config, config = { ...after, c_info: { ...after.c_info, name: this.name } };
    await closeDisks(this.disks, (text) => this.#house.messages.say(text));
    this.disks = [];
    const loaded = await loadConfig(config);
    this.#config = config;
    this.nextConfig = null;
    this.disks = loaded.disks;
    this.#loaded = loaded;
    return loaded;
  }

  /** End it, whatever it does. @returns when it is gone */
  async destroy(): Promise<void> {
    this.#controller.abort();
    await this.domain?.destroy();
    this.#leave();
    await this.gone;
  }
}

/** All domains of the process: made, taken in, found, ended. Names are theirs from the moment they are asked for. */
export class Residents {
  readonly house: House;
  /** domains that stand still until it is said which end of a migration has them */
  readonly doubts = new Doubts();
  readonly #all = new Set<Resident>();
  /** names of those that are being made */
  readonly #names = new Set<string>();

  constructor(house: House) { this.house = house; }
  get all(): readonly Resident[] { return [...this.#all]; }

  /** Make a domain. @returns its first life @throws UserError, ApiFault with nothing left behind */
  async create(config: LibxlConfig, options: { readonly isPaused?: boolean; readonly signal?: AbortSignal; progress?(p: Progress): void } = {}): Promise<Domain> {
    return this.#admit(config, async () => {
      const loaded = await loadConfig(config, options);
      if (options.signal?.aborted) {
        await closeDisks(loaded.disks);
        options.signal.throwIfAborted();
      }
      options.progress?.({ text: "building the domain" });
      const resident = this.#take(config, loaded, options.isPaused ? { isPaused: true } : {}), abort = (): void => { void resident.destroy(); };
      options.signal?.addEventListener("abort", abort, { once: true });
      try { return await resident.born; } finally { options.signal?.removeEventListener("abort", abort); }
    });
  }
  /** Take in a domain that comes with its memory: restored, or from another host. @param change what is to be otherwise here than it was there */
  async adopt(make: (open: (configJson: string) => Promise<DomainConfig>, prepare: (configJson: string) => Promise<void>) => Promise<Domain>, change: (config: LibxlConfig) => LibxlConfig | Promise<LibxlConfig> = (c) => c): Promise<Domain> {
    let config: LibxlConfig | null = null, prepared: Prepared | null = null, loaded: CheckedConfig | null = null;
    const prepare = async (json: string, isEarly: boolean): Promise<Prepared> => {
      config = await change(configOfText(json, "The stream's configuration"));
      this.#mustBeFree(config);
      prepared = await prepareConfig(config, isEarly, { isBuilt: true, missing: (why) => this.house.messages.say(why) });
      const { cpus, networks } = this.house.machine;
      cpus.placeFor(prepared.checked);
      for (const { bridge } of prepared.checked.vifs) networks.bridge(bridge ?? DEFAULT_BRIDGE);        // its cables are plugged in when the guest comes
      return prepared;
    };
    try {
      const domain = await make(async (json) => {
        const ready = prepared ?? await prepare(json, false);
        this.#mustBeFree(config!);
        loaded = await ready.open();
        return asGiven(loaded);
      }, async (json) => { await prepare(json, true); });
      if (!config || !loaded) throw new ApiFault("failed", "The stream has no configuration in it");
      return await this.#take(config, loaded, { first: domain }).born;
    } catch (e) {
      if (loaded) await closeDisks((loaded as CheckedConfig).disks);
      else await (prepared as Prepared | null)?.drop();
      throw e;
    }
  }
  #mustBeFree({ c_info: { name, uuid } }: LibxlConfig): void {
    if (this.#names.has(name) || this.house.machine.domains.some((d) => d.name === name)) throw new ApiFault("exists", `There is a domain named "${name}" already`);
    if (this.house.machine.domains.some((d) => d.uuid === uuid)) throw new ApiFault("exists", `There is a domain with the uuid ${uuid} already`);
  }
  async #admit(config: LibxlConfig, make: () => Promise<Domain>): Promise<Domain> {
    const { name } = config.c_info;
    this.#mustBeFree(config);
    this.#names.add(name);
    try { return await make(); } finally { this.#names.delete(name); }
  }
  #take(config: LibxlConfig, loaded: CheckedConfig, options: { readonly isPaused?: boolean; readonly first?: Domain }): Resident {
    const resident = new Resident(this.house, config, loaded, options, (r) => { this.#all.delete(r); });
    this.#all.add(resident);
    return resident;
  }

  /** A domain by number or name, as xl takes one. @throws ApiFault "notfound" */
  find(ref: number | string): Domain {
    const domid = typeof ref === "number" ? ref : /^\d{1,9}$/.test(ref) ? Number(ref) : null;
    const found = this.house.machine.domains.find((d) => (domid === null ? d.name === ref : d.domid === domid));
    if (found) return found;
    if (domid === 0 || ref === "Domain-0") throw new ApiFault("invalid", "Domain 0 is the control domain: it is not a guest");
    throw new ApiFault("notfound", domid === null ? `There is no domain named "${ref}"` : `There is no domain ${domid}`);
  }
  /** Who keeps that domain; null for one that is preserved beside its successor. */
  keeperOf(domain: Domain): Resident | null { return this.all.find((r) => r.domain === domain) ?? null; }
  /** As `find`, of one that is kept. @throws ApiFault */
  keeper(ref: number | string): Resident & { readonly domain: Domain } {
    const domain = this.find(ref), keeper = this.keeperOf(domain);
    if (!keeper) throw new ApiFault("gone", `${domain.name} has ended and is only kept to be looked at`);
    return keeper as Resident & { readonly domain: Domain };
  }
  async destroy(ref: number | string): Promise<void> {
    const domain = this.find(ref), keeper = this.keeperOf(domain);
    if (keeper) return keeper.destroy();
    await domain.destroy();
    this.house.events.emit({ kind: "domain.died", domid: domain.domid, name: domain.name, uuid: domain.uuid, reason: "destroyed", action: "destroy" });
  }
  rename(ref: number | string, name: string): void {
    const domain = this.find(ref), keeper = this.keeperOf(domain);
    if (this.#names.has(name)) throw new ApiFault("exists", `There is a domain named "${name}" already`);
    try { this.house.machine.renameDomain(domain, name); } catch (e) { throw e instanceof UserError ? faultOf(e) : e; }
    this.house.events.emit({ kind: "domain.renamed", domid: domain.domid, name, uuid: domain.uuid });
  }
  async destroyAll(): Promise<void> { await Promise.all([...this.all.map((r) => r.destroy()), ...this.house.machine.domains.map((d) => d.destroy())]); }
}
