/** The split devices of one domain: made with their nodes, taken away with them; all at the domain's end, one at a time while it runs. */
import { UserError } from "../base/errors.ts";
import { within } from "../base/wait.ts";
import { type BackDriver, XenbusBack } from "../drivers/xenbus.ts";
import type { Client } from "../xenstore/client.ts";
import { deviceEntries, deviceRoots } from "../xenstore/device-entries.ts";

/** How long a guest is waited for when a device is taken from it. libxl's LIBXL_DESTROY_TIMEOUT. */
const DETACH_MS = 10_000;
/** What a device may say at once, and how long until it may say one more. */
const SENTENCES = 32, SENTENCE_MS = 60_000;

/**
 * A log for one device: a guest can have its driver complain again, connection after connection. So many sentences at once, and one a minute.
 * @param nowMs for tests
 */
export function sparingly(log: (sentence: string) => void, nowMs: () => number = () => performance.now()): (sentence: string) => void {
  let nrSaid = 0, atMs = nowMs();
  return (sentence) => {
    nrSaid = Math.max(0, nrSaid - (nowMs() - atMs) / SENTENCE_MS);
    atMs = nowMs();
    if (nrSaid + 1 > SENTENCES) return;
    nrSaid++;
    log(sentence);
  };
}

/** A device in a listing. */
export type DeviceReport = { readonly kind: string; readonly devid: number; readonly state: number } & Readonly<Record<string, unknown>>;
/** A back end, with what a listing says of it and what is done when it is gone. */
export type Attached = {
  readonly driver: BackDriver & { describe(): Record<string, unknown> };
  /** what has been done is to stand where another machine finds it: a disk's flush */
  settle?(): Promise<void>;
  /** why its domain can go neither into a file nor to another machine now; null: it can. @param isAsItIs the guest is not asked to suspend itself */
  obstacle?(isAsItIs: boolean): string | null;
  /** say where it is now, in place of a front end that does not know that it has moved */
  announce?(): void;
  /** close what belongs to the device alone */
  release?(): void | Promise<void>;
};

export class Devices {
  readonly #xs: Client;
  readonly #domid: number;
  readonly #log: (sentence: string) => void;
  readonly #all = new Map<string, Attached & { readonly back: XenbusBack; /** it is being taken away, its number is not free yet */ dropped: Promise<void> | null }>();
  /** devices taken from a front end that has not noticed yet */
  readonly #taken = new Set<XenbusBack>();
  #isClosed = false;

  constructor(xs: Client, domid: number, log: (sentence: string) => void) {
    this.#xs = xs;
    this.#domid = domid;
    this.#log = log;
  }

  /** @throws UserError where the domain has such a device already */
  add(devid: number, attached: Attached, front: Readonly<Record<string, string | number>>, back: Readonly<Record<string, string | number>>): XenbusBack {
    const { driver } = attached, key = `${driver.kind}/${devid}`;
    if (this.#isClosed) throw new UserError(`Domain ${this.#domid} is going; it gets no ${driver.kind} any more`);
    if (this.#all.has(key)) throw new UserError(`Domain ${this.#domid} has a ${driver.kind} ${devid} already`);
    this.#xs.transaction((t) => t.writeAll(deviceEntries({ domid: this.#domid, kind: driver.kind, devid }, front, back)));
    const made = new XenbusBack(this.#xs, this.#domid, devid, driver, this.#log);
    this.#all.set(key, { ...attached, back: made, dropped: null });
    return made;
  }
  /**
   * Take a device away: ask the guest and wait; where `isForced`, do not ask.
   * @throws UserError where there is none, or the guest does not let go (older kernels, of a mounted disk): it keeps the device then
   */
  async remove(kind: string, devid: number, isForced = false): Promise<void> {
    const key = `${kind}/${devid}`, device = this.#all.get(key);
    if (!device) throw new UserError(`Domain ${this.#domid} has no ${kind} ${devid}`);
    if (!isForced && !(await device.back.detach(DETACH_MS))) throw new UserError(`Domain ${this.#domid} does not let go of ${kind} ${devid}; is it in use? (it can be taken by force)`);
    if (this.#all.get(key) === device) await this.#drop(key, true);
  }
  /** @param isTaken from a domain that goes on: one that waits for answers waits for ever, and Linux then hears of no device any more */
  #drop(key: string, isTaken = false): Promise<void> {
    const device = this.#all.get(key);
    return device ? device.dropped ??= (async () => {
      try {
        const gone = isTaken ? (await device.back.takeAway()).gone : device.back.close();
        if (!isTaken) await gone;
        for (const path of deviceRoots(device.back.device)) this.#xs.remove(path);
        // the folders of its domain and of its kind too where it was the last one, as libxl__xs_path_cleanup does
        const ofDomain = device.back.path.replace(/\/\d+$/, ""), ofKind = ofDomain.replace(/\/\d+$/, "");
        for (const above of [ofDomain, ofKind]) if (this.#xs.list(above)?.length === 0) this.#xs.remove(above);
        await device.release?.();
        if (!isTaken) return;
        this.#taken.add(device.back);
        void gone.then(() => this.#taken.delete(device.back));
        // a number that has a new device before the guest has seen the old one go would be the old one to it
        await within(gone, DETACH_MS);
      } finally {
        this.#all.delete(key);
      }
    })() : Promise.resolve();
  }
  /** The least number that no device of the kind has. */
  freeDevid(kind: string): number {
    let devid = 0;
    while (this.#all.has(`${kind}/${devid}`)) devid++;
    return devid;
  }
  list(kind?: string): DeviceReport[] {
    return [...this.#all.values()].filter(({ driver }) => kind === undefined || driver.kind === kind)
      .map(({ back, driver }) => ({ kind: driver.kind, devid: back.device.devid, state: back.state, ...driver.describe() }));
  }
  /** Do all stand where they will stay, and does no request wait for what may never come (room on a disk)? */
  get isSteady(): boolean { return this.#taken.size === 0 && [...this.#all.values()].every(({ back, dropped, driver }) => dropped === null && back.isSteady && !driver.describe()["nrWaitingForRoom"]); }
  /** See `Attached`: of the first that has one. */
  obstacle(isAsItIs: boolean): string | null {
    for (const { obstacle } of this.#all.values()) {
      const why = obstacle?.(isAsItIs) ?? null;
      if (why !== null) return why;
    }
    return null;
  }
  /** Have all followed what their front ends say now. */
  async settled(): Promise<void> { await Promise.all([...this.#all.values()].map(({ back }) => back.poll())); }
  /** The domain runs here now, and has not noticed: tell the networks. */
  announce(): void { for (const { announce } of this.#all.values()) announce?.(); }
  /** The guest does not run: have all it asked for answered and settled, and let go of its rings, until `goOn`. @throws what a disk has to say; UserError where a device stands in the way */
  async hold(isAsItIs: boolean): Promise<void> {
    const why = this.obstacle(isAsItIs);
    if (why !== null) throw new UserError(`Domain ${this.#domid} cannot be saved or moved: ${why}`);
    const ends = await Promise.allSettled([...this.#all.values()].map(async ({ back, settle }) => {
      await back.hold();
      await settle?.();
    }));
    for (const end of ends) if (end.status === "rejected") throw end.reason;       // when all have let go: `goOn` must find none on its way
  }
  async goOn(): Promise<void> { await Promise.all([...this.#all.values()].map(({ back }) => back.goOn())); }
  /** The domain is going: all are taken away, and none is added any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#taken].map((back) => back.close()));
    await Promise.all([...this.#all.keys()].map((key) => this.#drop(key)));
  }
}
