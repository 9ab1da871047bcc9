/** The machine's networks: bridges by name, made when first asked for, each with its way out. */
import { Bridge } from "../network/bridge.ts";
import { connect, type Port } from "../network/port.ts";

/** xl's default. */
export const DEFAULT_BRIDGE = "xenbr0";
/** Addresses that may be learnt behind an uplink. */
const UPLINK_MACS = 1024;

/** What joins a bridge to the world: a router of our own, a tunnel, a tap. */
export type Uplink = {
  readonly port: Port;
  /** Let host ports lead to a guest, "tcp:127.0.0.1:2222-22". @returns ends it @throws UserError where it cannot be had */
  forward?(spec: string, mac: string): Promise<() => void>;
  /** the guest with that address is gone: end what it has open outside */
  left?(mac: string): void;
  describe?(): unknown;
  close(): void | Promise<void>;
};
/** Makes the way out of a new bridge; null: the bridge stands alone. */
export type UplinkMaker = (bridge: Bridge) => Uplink | null;

export class Networks {
  readonly #make: UplinkMaker;
  readonly #log: (sentence: string) => void;
  readonly #all = new Map<string, { readonly bridge: Bridge; readonly uplink: Uplink | null }>();

  constructor(make: UplinkMaker | undefined, log: (sentence: string) => void) {
    this.#make = make ?? (() => null);
    this.#log = log;
  }
  #at(name: string): { readonly bridge: Bridge; readonly uplink: Uplink | null } {
    const known = this.#all.get(name);
    if (known) return known;
    const bridge = new Bridge({ name, log: this.#log }), uplink = this.#make(bridge);
    if (uplink) connect(bridge.attach({ name: uplink.port.name, macsMax: UPLINK_MACS }), uplink.port);
    const made = { bridge, uplink };
    this.#all.set(name, made);
    return made;
  }
  /** The bridge of that name where there is one already. */
  find(name: string): Bridge | undefined { return this.#all.get(name)?.bridge; }
  /** The bridge of that name, made when it is first named. */
  bridge(name: string): Bridge { return this.#at(name).bridge; }
  /** Its way out, or null. */
  uplink(name: string): Uplink | null { return this.#at(name).uplink; }
  /** All there are, for a listing. */
  describe(): { readonly bridge: ReturnType<Bridge["describe"]>; readonly uplink: unknown }[] {
    return [...this.#all.values()].map(({ bridge, uplink }) => ({ bridge: bridge.describe(), uplink: uplink?.describe?.() ?? null }));
  }
  async close(): Promise<void> {
    for (const { bridge, uplink } of this.#all.values()) {
      bridge.close();
      await uplink?.close();
    }
    this.#all.clear();
  }
}
