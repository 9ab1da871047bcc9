/** The way out that `domus run` gives a bridge: a router in user mode, on sockets of this process, or an interface of the host's kernel. */
import type { ByteConnection, StreamAddress } from "../base/stream.ts";
import type { Bridge, BridgePort } from "../network/bridge.ts";
import type { Link } from "../network/link.ts";
import { dialLink, listenForPeers } from "../network/link.node.ts";
import { connect } from "../network/port.ts";
import { acceptWebSocket } from "../network/websocket.ts";
import { openTap } from "../network/tap.node.ts";
import type { Capture, CaptureOptions } from "../network/capture.ts";
import { parseFilter } from "../network/capture-filter.ts";
import { captureToFile } from "../network/capture.node.ts";
import { hostOutside } from "../network/nat/host.node.ts";
import type { Ipv6Choice } from "../network/nat/ipv6-choice.ts";
import { NatNetwork } from "../network/nat/nat.ts";
import { parsePolicy } from "../network/nat/policy.ts";
import { DEFAULT_BRIDGE, type Uplink, type UplinkMaker } from "../toolstack/networks.ts";
import { UserError } from "../base/errors.ts";

/** Addresses that may be learnt behind a link. */
const LINK_MACS = 4096;
/** xl's `forward=` names a port of the guest's, perhaps with an address; the router's forwards name the guest in any case. */
const withMac = (spec: string, mac: string): string => spec.replace(/-(\d+)$/, `-${mac}:$1`);

/** What bridges' routers have in common. */
export type NatUplinkOptions = { readonly hostAccess: boolean; /** "auto" */ readonly ipv6?: Ipv6Choice; /** for parsePolicy */ readonly rules: readonly string[]; readonly log: (sentence: string) => void };
/** A router a bridge; the first has 10.0.2.0/24 and fd64:6f6d:7573:2::/64, the next 10.0.3.0/24 and fd64:6f6d:7573:3::/64, and so on. */
export function natUplinks(options: NatUplinkOptions): UplinkMaker {
  const outside = hostOutside(), policy = parsePolicy(options.rules);
  let nr = 1;
  return (bridge): Uplink => {
    if (++nr > 254) throw new UserError(`${bridge.name}: There are too many bridges for a router each`);
    const nat = new NatNetwork({
      outside, subnet: `10.0.${nr}.0/24`, hostAccess: options.hostAccess, policy, log: options.log, name: `${bridge.name}-nat`, mtu: bridge.mtuBytes, ...(options.ipv6 === undefined ? {} : { ipv6: options.ipv6 }),
    });
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

/** What `--net` says: how bridges get out; a TAP is the default bridge's, and the others have routers. */
export type NetChoice = "nat" | "none" | { readonly tap: string; readonly bridge?: string };

/** "nat", "none" or "tap:NAME[,bridge=BRIDGE]". @throws UserError */
export function parseNet(text: string): NetChoice {
  if (text === "nat" || text === "none") return text;
  const m = /^tap:(?<tap>[^,=]+)(?:,bridge=(?<bridge>[^,=]+))?$/.exec(text)?.groups;
  if (!m) throw new UserError(`Option "--net" is one of nat, none, tap:NAME and tap:NAME,bridge=BRIDGE, not "${text}"`);
  return { tap: m["tap"]!, ...(m["bridge"] === undefined ? {} : { bridge: m["bridge"] }) };
}
/** The default bridge goes out by a TAP, opened when the bridge is made; `others` by what they are given. */
export function tapUplinks(choice: Exclude<NetChoice, string>, others: UplinkMaker, log: (sentence: string) => void): UplinkMaker {
  return (bridge): Uplink | null => {
    if (bridge.name !== DEFAULT_BRIDGE) return others(bridge);
    const tap = openTap({ name: choice.tap, mtuBytes: bridge.mtuBytes, log, ...(choice.bridge === undefined ? {} : { bridge: choice.bridge }) });
    return { port: tap, describe: () => ({ tap: tap.name, ...tap.counters }), close: () => tap.close() };
  };
}

/** A link of `--link`: a bridge, and who is at the other end. */
type LinkSpec = { readonly bridge: string; readonly listens: boolean; readonly at: StreamAddress; readonly mode: "domus" | "qemu"; /** pages come, by WebSocket; of these origins besides this computer's */ readonly origins?: readonly string[] };

const WS = /^(?:(?<bridge>[\w.-]+)=)?listen:ws:(?:\[(?<v6>[\da-f:.]+)\]|(?<host>[\w.-]+)):(?<port>\d{1,5})(?<origins>(?:,origin=https?:\/\/[^,/\s]+)*)$/i;
/** "[BRIDGE=][listen:]unix:PATH[,qemu]", or with tcp:HOST:PORT, or "[BRIDGE=]listen:ws:HOST:PORT[,origin=URL]" for pages. @throws UserError */
export function parseLink(text: string): LinkSpec {
  const ws = WS.exec(text)?.groups;
  if (ws && Number(ws["port"]) >= 1 && Number(ws["port"]) <= 65535) {
    return { bridge: ws["bridge"] ?? DEFAULT_BRIDGE, listens: true, mode: "domus", at: { host: (ws["v6"] ?? ws["host"])!, port: Number(ws["port"]) }, origins: ws["origins"]!.split(",origin=").slice(1) };
  }
  const m = /^(?:(?<bridge>[\w.-]+)=)?(?<listen>listen:)?(?:unix:(?<path>[^,]+)|tcp:(?:\[(?<v6>[\da-f:.]+)\]|(?<host>[\w.-]+)):(?<port>\d{1,5}))(?<qemu>,qemu)?$/i.exec(text)?.groups;
  const port = Number(m?.["port"] ?? 1);
  if (!m || port < 1 || port > 65535) throw new UserError(`Option "--link": "${text}" is not of the form [BRIDGE=][listen:]unix:PATH[,qemu], [BRIDGE=][listen:]tcp:HOST:PORT[,qemu] or [BRIDGE=]listen:ws:HOST:PORT[,origin=URL]`);
  return { bridge: m["bridge"] ?? DEFAULT_BRIDGE, listens: m["listen"] !== undefined, mode: m["qemu"] ? "qemu" : "domus", at: m["path"] !== undefined ? { path: m["path"] } : { host: (m["v6"] ?? m["host"])!, port } };
}

/** Joins bridges with those of other machines, or with guests of QEMU. */
export class Links {
  readonly #specs: readonly LinkSpec[];
  readonly #told: (sentence: string) => void;
  readonly #ends: (() => void | Promise<void>)[] = [];
  constructor(specs: readonly LinkSpec[], told: (sentence: string) => void) {
    this.#specs = specs;
    this.#told = told;
  }
  /** A bridge was made: plug in what is meant for it. */
  begin(bridge: Bridge): void {
    for (const [i, { listens, at, mode, bridge: name, origins }] of this.#specs.entries()) {
      if (name !== bridge.name) continue;
      const options = { name: `link${i}`, mode, log: this.#told };
      const opened = !listens ? Promise.resolve(this.#plug(bridge, dialLink(at, options)))
        : listenForPeers(at, options, (port) => bridge.attach({ name: port, macsMax: LINK_MACS }), (port) => (port as BridgePort).detach(), ...(origins ? [(raw: ByteConnection) => acceptWebSocket(raw, origins)] : [])).then((listener) => () => listener.close());
      opened.then((end) => this.#ends.push(end), (e: Error) => this.#told(`${bridge.name}: Nobody can be listened for: ${e.message}`));
    }
  }
  #plug(bridge: Bridge, link: Link): () => void {
    connect(bridge.attach({ name: link.name, macsMax: LINK_MACS }), link);
    return () => link.close();
  }
  async close(): Promise<void> { for (const end of this.#ends) await end(); }
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
