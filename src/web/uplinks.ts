/** The ways out of a page's bridges: the bridge `tabs` is a cable to this origin's other tabs; every other has a router whose world is the browser's fetch. */
import { BroadcastCable } from "../network/broadcast-cable.ts";
import { fetchOutside } from "../network/nat/fetch-outside.ts";
import { NatNetwork } from "../network/nat/nat.ts";
import type { Uplink, UplinkMaker } from "../toolstack/networks.ts";

/** The bridge that tabs share. It has no router: one a tab would be several. */
export const TABS_BRIDGE = "tabs";

export function webUplinks(log: (sentence: string) => void): UplinkMaker {
  const outside = fetchOutside({ base: new URL(document.baseURI), log });
  let nr = 1;
  return (bridge): Uplink | null => {
    if (bridge.name === TABS_BRIDGE) {
      const cable = new BroadcastCable({ name: "tabs", channel: new BroadcastChannel("domus-tabs") });
      addEventListener("pagehide", () => cable.close(), { once: true });
      return { port: cable, describe: () => ({ tabs: cable.nrTabs, ...cable.counters }), close: () => cable.close() };
    }
    if (++nr > 254) return null;
    const nat = new NatNetwork({ outside, subnet: `10.0.${nr}.0/24`, log, name: `${bridge.name}-nat`, mtu: bridge.mtuBytes });
    return { port: nat.port, left: (mac) => nat.dropGuest(mac), describe: () => ({ leases: nat.leases, ...nat.stats }), close: () => nat.close() };
  };
}
