/** The split devices of one domain: made with their nodes, taken away with them; all at the domain's end, one at a time while it runs. */
import { UserError } from "../base/errors.ts";
import { type BackDriver, XenbusBack } from "../drivers/xenbus.ts";
import type { Client } from "../xenstore/client.ts";
import { deviceEntries, deviceRoots } from "../xenstore/device-entries.ts";

/** How long a guest is waited for when a device is taken from it. libxl's LIBXL_DESTROY_TIMEOUT. */
const DETACH_MS = 10_000;
/** How long where it is taken by force: a front end whose node goes without a word waits for ever for what it has asked, and Linux then hears of no device any more. */
const FORCED_MS = 1000;

/** A device in a listing. */
export type DeviceReport = { readonly kind: string; readonly devid: number; readonly state: number } & Readonly<Record<string, unknown>>;
/** A back end, with what a listing says of it and what is done when it is gone. */
export type Attached = { readonly driver: BackDriver & { describe(): Record<string, unknown> }; /** close what belongs to the device alone */ release?(): void | Promise<void> };

export class Devices {
  readonly #xs: Client;
  readonly #domid: number;
  readonly #log: (sentence: string) => void;
  readonly #all = new Map<string, Attached & { readonly back: XenbusBack }>();

  constructor(xs: Client, domid: number, log: (sentence: string) => void) {
    this.#xs = xs;
    this.#domid = domid;
    this.#log = log;
  }

  /** @throws UserError where the domain has such a device already */
  add(devid: number, attached: Attached, front: Readonly<Record<string, string | number>>, back: Readonly<Record<string, string | number>>): XenbusBack {
    const { driver } = attached, key = `${driver.kind}/${devid}`;
    if (this.#all.has(key)) throw new UserError(`Domain ${this.#domid} has a ${driver.kind} ${devid} already`);
    this.#xs.transaction((t) => t.writeAll(deviceEntries({ domid: this.#domid, kind: driver.kind, devid }, front, back)));
    const made = new XenbusBack(this.#xs, this.#domid, devid, driver, this.#log);
    this.#all.set(key, { ...attached, back: made });
    return made;
  }
  /**
   * Take a device away: ask the guest and wait; where `isForced`, not for long and whatever it does.
   * @throws UserError where there is none, or the guest does not let go (older kernels, of a mounted disk): it keeps the device then
   */
  async remove(kind: string, devid: number, isForced = false): Promise<void> {
    const key = `${kind}/${devid}`, device = this.#all.get(key);
    if (!device) throw new UserError(`Domain ${this.#domid} has no ${kind} ${devid}`);
    if (!(await device.back.detach(isForced ? FORCED_MS : DETACH_MS)) && !isForced) throw new UserError(`Domain ${this.#domid} does not let go of ${kind} ${devid}; is it in use? (it can be taken by force)`);
    await this.#drop(key);
  }
  async #drop(key: string): Promise<void> {
    const device = this.#all.get(key);
    if (!device) return;
    this.#all.delete(key);
    await device.back.close();
    for (const path of deviceRoots(device.back.device)) this.#xs.remove(path);
    // the folders of its domain and of its kind too where it was the last one, as libxl__xs_path_cleanup does
    const ofDomain = device.back.path.replace(/\/\d+$/, ""), ofKind = ofDomain.replace(/\/\d+$/, "");
    for (const above of [ofDomain, ofKind]) if (this.#xs.list(above)?.length === 0) this.#xs.remove(above);
    await device.release?.();
  }
  list(kind?: string): DeviceReport[] {
    return [...this.#all.values()].filter(({ driver }) => kind === undefined || driver.kind === kind)
      .map(({ back, driver }) => ({ kind: driver.kind, devid: back.device.devid, state: back.state, ...driver.describe() }));
  }
  /** The domain is going. */
  async close(): Promise<void> {
    await Promise.all([...this.#all.keys()].map((key) => this.#drop(key)));
  }
}
