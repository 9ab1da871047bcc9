/** The way out that `domus run` gives a bridge: a router in user mode, on sockets of this process. */
import type { Bridge } from "../network/bridge.ts";
import type { Capture, CaptureOptions } from "../network/capture.ts";
import { parseFilter } from "../network/capture-filter.ts";
import { captureToFile } from "../network/capture.node.ts";
import { hostOutside } from "../network/nat/host.node.ts";
import { NatNetwork } from "../network/nat/nat.ts";
import type { Uplink, UplinkMaker } from "../toolstack/networks.ts";
import { UserError } from "../base/errors.ts";

/** xl's `forward=` names a port of the guest's, the router's forwards name the guest too. */
const withMac = (spec: string, mac: string): string => spec.replace(/-(\d+)$/, `-${mac}:$1`);

/** A router a bridge; the first has 10.0.2.0/24, the next 10.0.3.0/24 and so on. */
export function natUplinks(options: { readonly hostAccess: boolean; readonly log: (sentence: string) => void }): UplinkMaker {
  const outside = hostOutside();
  let nr = 1;
  return (bridge): Uplink => {
    if (++nr > 254) throw new UserError(`${bridge.name}: There are too many bridges for a router each`);
    const nat = new NatNetwork({ outside, subnet: `10.0.${nr}.0/24`, hostAccess: options.hostAccess, log: options.log, name: `${bridge.name}-nat`, mtu: bridge.mtuBytes });
    return {
      port: nat.port,
      forward: async (spec, mac) => {
        const open = await nat.addForward(withMac(spec, mac));
        return () => open.close();
      },
      left: (mac) => nat.dropGuest(mac),
      describe: () => ({ forwards: nat.forwards.map(({ text, address, port }) => ({ text, address, port })), leases: nat.leases, ...nat.stats }),
      close: () => nat.close(),
    };
  };
}

/** Writes what passes each bridge to a file: the first to `path`, others to `path` with the bridge's name before its suffix. */
export class Captures {
  readonly #path: string;
  readonly #told: (sentence: string) => void;
  readonly #options: CaptureOptions;
  readonly #open: Promise<Capture | null>[] = [];
  /** @throws UserError for a filter that is none */
  constructor(path: string, filter: string | undefined, told: (sentence: string) => void) {
    this.#path = path;
    this.#options = filter === undefined ? {} : { filter: parseFilter(filter) };
    this.#told = told;
  }
  /** Begin with a new bridge. */
  begin(bridge: Bridge): void {
    const path = this.#open.length === 0 ? this.#path : this.#path.replace(/(\.[^./]*)?$/, `-${bridge.name}$1`);
    this.#open.push(captureToFile(bridge, path, this.#options).catch((e) => {
      this.#told(`The capture of ${bridge.name} cannot be written to ${path}: ${(e as Error).message}`);
      return null;
    }));
  }
  async close(): Promise<void> {
    for (const capture of await Promise.all(this.#open)) {
      const lost = await capture?.stop();
      if (lost) this.#told(`The capture ended early: ${lost.message}`);
    }
  }
}
