/** The ways out of a page's bridges: `tabs` is a cable to this origin's other tabs; `xenbr0` may be linked with a machine outside by WebSocket; others have a router whose world is the browser's fetch. */
import { BroadcastCable } from "../network/broadcast-cable.ts";
import { Link } from "../network/link.ts";
import { dialWebSocket } from "../network/websocket.ts";
import { fetchOutside } from "../network/nat/fetch-outside.ts";
import { NatNetwork } from "../network/nat/nat.ts";
import { DEFAULT_BRIDGE, type Uplink, type UplinkMaker } from "../toolstack/networks.ts";

/** The bridge that tabs share. It has no router: one a tab would be several. */
export const TABS_BRIDGE = "tabs";

/** @param link "ws://HOST:PORT/" of a machine that was run with --link listen:ws, for the default bridge; null: none */
export function webUplinks(log: (sentence: string) => void, link: string | null = null): UplinkMaker {
  const outside = fetchOutside({ base: new URL(document.baseURI), log });
  let nr = 1;
  return (bridge): Uplink | null => {
    if (bridge.name === TABS_BRIDGE) {
      const cable = new BroadcastCable({ name: "tabs", channel: new BroadcastChannel("domus-tabs") });
      addEventListener("pagehide", () => cable.close(), { once: true });
      return { port: cable, describe: () => ({ tabs: cable.nrTabs, ...cable.counters }), close: () => cable.close() };
    }
    if (bridge.name === DEFAULT_BRIDGE && link !== null) {
      const cable = new Link({ name: "link", mode: "domus", dial: () => dialWebSocket(link), log });
      return { port: cable, describe: () => ({ peer: cable.peerName, ...cable.counters }), close: () => cable.close() };
    }
    if (++nr > 254) return null;
    const nat = new NatNetwork({ outside, subnet: `10.0.${nr}.0/24`, log, name: `${bridge.name}-nat`, mtu: bridge.mtuBytes });
    return { port: nat.port, left: (mac) => nat.dropGuest(mac), describe: () => ({ leases: nat.leases, ...nat.stats }), close: () => nat.close() };
  };
}
