/** The page's machine with all that is seen of it, as signals; components only show it and call it. */
import { signal } from "@preact/signals";
import { UserError } from "../base/errors.ts";
import { parseMac } from "../network/address.ts";
import { DiskError } from "../storage/disk.ts";
import { asGiven, type CheckedConfig, fromXl, type FromXl } from "../toolstack/config.ts";
import { planDomain } from "../toolstack/create.ts";
import { closeDisks } from "../toolstack/disks.ts";
import type { DomainEnd } from "../toolstack/domain.ts";
import { webHost } from "../toolstack/host.web.ts";
import { createMachine, type Machine } from "../toolstack/machine.ts";
import { Meter, type Sample } from "../toolstack/meter.ts";
import { parseXlCfg } from "../toolstack/xlcfg.ts";
import { type Progress, restoreDomain } from "../toolstack/save.ts";
import { type SavedConfig, Session } from "./session.ts";
import { fromFile, intoFile, Shelf } from "./shelf.ts";
import { webUplinks } from "./uplinks.ts";

/** How often the machine is looked at, and how many looks charts show. */
export const SAMPLE_MS = 1000, NR_SAMPLES = 120;
/** What the page's machine is made with; from the address' query. */
export type MachineWish = { readonly memoryMiB: number; readonly pcpus: number; readonly engine: "auto" | "interpreter"; /** a WebSocket that xenbr0 is linked to */ readonly link: string | null };
/** The name that messages give a configuration from the editor. */
export const CONFIG_NAME = "config";
const MAX_LOG = 500, LEAST_MIB = 256;
/** What names of saved states end with. */
export const SAVED_SUFFIX = ".saved";

/** "?memory=2048&pcpus=4&engine=interpreter". Words that are none are told and left out. */
export function wishOf(query: URLSearchParams, nrCpus: number, told: (sentence: string) => void): MachineWish {
  const number = (key: string, least: number, most: number, otherwise: number): number => {
    const text = query.get(key), n = Number(text);
    if (text === null) return otherwise;
    if (Number.isInteger(n) && n >= least && n <= most) return n;
    told(`The address says ${key}=${text}; a number from ${least} to ${most} is wanted, ${otherwise} is taken`);
    return otherwise;
  };
  const wanted = query.get("link"), link = wanted !== null && /^wss?:\/\/[^\s#]+$/.test(wanted) && URL.canParse(wanted) ? wanted : null;
  if (wanted !== null && link === null) told(`The address says link=${wanted}; ws://HOST:PORT/ or wss://HOST/ is wanted, it is left out`);
  return { link, memoryMiB: number("memory", LEAST_MIB, 3584, 1024), pcpus: number("pcpus", 1, 32, Math.min(8, Math.max(1, nrCpus))), engine: query.get("engine") === "interpreter" ? "interpreter" : "auto" };
}

/** Words for what went wrong, without a stack where it is the input's fault. */
export const wordsOf = (e: unknown): string => (e instanceof Error ? e.message : String(e));

/** The page's one computer: its machine, the domains on it, its files. */
export class Computer {
  readonly shelf = new Shelf(new URL("images/", document.baseURI));
  readonly machine = signal<Machine | null>(null);
  /** the machine cannot be had, or is lost: why */
  readonly failure = signal<string | null>(null);
  readonly sessions = signal<readonly Session[]>([]);
  readonly samples = signal<readonly Sample[]>([]);
  readonly log = signal<readonly { readonly nr: number; readonly at: Date; readonly text: string }[]>([]);
  #nrSaid = 0;

  say = (text: string): void => { this.log.value = [...this.log.value.slice(-MAX_LOG + 1), { nr: this.#nrSaid++, at: new Date(), text }]; };

  /** Make the machine; where the browser refuses so much memory, a smaller one, down to 256 MiB. */
  async start(wish: MachineWish): Promise<void> {
    for (let memoryMiB = wish.memoryMiB; ; memoryMiB = Math.max(LEAST_MIB, Math.floor(memoryMiB / 2))) {
      try {
        const machine = await createMachine({ host: webHost(), memoryMiB, nrDomains: 8, pcpus: wish.pcpus, engine: wish.engine, log: this.say, uplink: webUplinks(this.say, wish.link) });
        if (memoryMiB < wish.memoryMiB) this.say(`The browser refuses ${wish.memoryMiB} MiB; the machine has ${memoryMiB}`);
        this.machine.value = machine;
        this.#watch(machine);
        return;
      } catch (e) {
        if (e instanceof UserError && e.message.startsWith("The host refuses") && memoryMiB > LEAST_MIB) continue;
        this.failure.value = e instanceof UserError && e.message.startsWith("The host refuses")
          ? `This browser has too little memory for a machine: it refuses ${memoryMiB} MiB. Close other tabs and load the page again.` : wordsOf(e);
        return;
      }
    }
  }
  #watch(machine: Machine): void {
    const meter = new Meter(machine);
    const look = (): void => { this.samples.value = [...this.samples.value.slice(-NR_SAMPLES + 1), meter.sample()]; };
    look();
    setInterval(look, SAMPLE_MS);
  }

  /** Read a configuration without making anything. @throws UserError, a ConfigError where a place is known */
  read(text: string): FromXl { return fromXl(parseXlCfg(text, CONFIG_NAME), CONFIG_NAME); }
  /** A name that no domain of the page has. */
  freeName(wanted: string): string {
    const taken = new Set(this.sessions.value.filter((s) => s.state.value !== "ended").map((s) => s.name));
    for (let n = 1; ; n++) {
      const name = n === 1 ? wanted : `${wanted}${n}`;
      if (!taken.has(name)) return name;
    }
  }
  /**
   * Make a domain from the text of an xl.cfg and let it run.
   * @returns when it runs @throws UserError with nothing left behind
   */
  async create(text: string): Promise<Session> {
    const machine = this.machine.value;
    if (!machine) throw new UserError(this.failure.value ?? "The machine is not ready yet");
    const { domain, warnings } = this.read(text), { name } = domain.config;
    if (this.sessions.value.some((s) => s.name === name && s.state.value !== "ended")) throw new UserError(`There is a domain named "${name}" already; give another name`);
    const config = await this.shelf.load(domain);
    try { await planDomain(config); } catch (e) {
      await closeDisks(config.disks);
      throw e;
    }
    for (const w of warnings) this.say(w);
    const session = new Session(machine, name, text), ended = this.#run(session, session.run(config));
    const isUp = new Promise<void>((up) => {
      const end = session.state.subscribe((state) => { if (state !== "building") queueMicrotask(() => { end(); up(); }); });
    });
    try { await Promise.race([isUp, ended]); } catch (e) {
      this.forget(session);
      throw e;
    }
    return session;
  }
  /** Put a session on the list, in the place of one that has ended. */
  #run(session: Session, ended: Promise<DomainEnd>): Promise<DomainEnd> {
    const old = this.sessions.value.find((s) => s.name === session.name);
    this.sessions.value = [...this.sessions.value.filter((s) => s !== old), session];
    old?.dispose();
    ended.catch((e) => this.say(`${session.name}: ${wordsOf(e)}`));
    return ended;
  }
  /** Save a domain into a file of this browser, "NAME.saved"; it ends. @returns the file's name @throws UserError DiskError: it runs on */
  async save(session: Session, progress?: (p: Progress) => void): Promise<string> {
    const name = `${session.name}${SAVED_SUFFIX}`, out = await intoFile(this.shelf, name);
    const { bytes, pausedMs } = await session.save(out, progress);
    this.say(`${session.name} is saved in ${name}: ${(bytes / 2 ** 20).toFixed(1)} MiB in ${(pausedMs / 1000).toFixed(1)} s`);
    return name;
  }
  /** Let a domain go on that was saved into a file of this browser; the file stays. @throws UserError DiskError with nothing left behind */
  async resume(file: string): Promise<Session> {
    const machine = this.machine.value;
    if (!machine) throw new UserError(this.failure.value ?? "The machine is not ready yet");
    let text = "", config: CheckedConfig | null = null;
    try {
      const domain = await restoreDomain(machine, await fromFile(this.shelf, file), {
        open: async (json) => {
          const saved = savedConfigOf(json, file);
          text = saved.text;
          const loaded = await this.shelf.load(this.read(text).domain);
          config = { ...loaded, uuid: saved.uuid, vifs: loaded.vifs.map((v, i) => ({ ...v, mac: saved.macs[i] ?? v.mac })) };
          return asGiven(config);
        },
      });
      const session = new Session(machine, domain.name, text);
      void this.#run(session, session.run(config!, domain)).catch(() => {});
      return session;
    } catch (e) {
      if (config) await closeDisks((config as CheckedConfig).disks);
      throw e;
    }
  }
  /** Take a session that has ended off the list. */
  forget(session: Session): void {
    if (session.state.value !== "ended") return;
    this.sessions.value = this.sessions.value.filter((s) => s !== session);
    session.dispose();
  }
}
/** The words of a saved state. It may come from anywhere. @throws UserError */
function savedConfigOf(json: string, file: string): SavedConfig {
  let saved: Partial<SavedConfig> | null = null;
  try { saved = JSON.parse(json); } catch { /* said below */ }
  const { domus, text, uuid, macs } = saved ?? {};
  if (domus !== 1 || typeof text !== "string" || typeof uuid !== "string" || !Array.isArray(macs) || !macs.every((m) => typeof m === "string" && parseMac(m) !== null)) throw new UserError(`${file} was not saved by this page: it does not hold the configuration as a page keeps it`);
  return { domus, text, uuid, macs };
}
/** Is it the input's fault? Then its message is all there is to say. */
export const isInputFault = (e: unknown): boolean => e instanceof UserError || e instanceof DiskError;
