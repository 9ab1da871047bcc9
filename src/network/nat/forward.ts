/** A forward: a port of the host's that leads to a guest's. */
import { UserError } from "../../base/errors.ts";
import { parseIpv4, parseMac } from "../address.ts";
import { parsePort } from "./address.ts";

/** Where a forward leads: to an address, or to whoever has the MAC or the host name when a connection comes. */
export type ForwardTarget = { readonly address: number } | { readonly mac: number } | { readonly hostname: string };
/** A port on the host and one in a guest. */
export type Forward = {
  readonly protocol: "tcp" | "udp";
  /** the host's, IPv4 or IPv6 in text */
  readonly listenAddress: string;
  /** 0: the host chooses */
  readonly listenPort: number;
  readonly target: ForwardTarget;
  readonly targetPort: number;
  /** as it was written */
  readonly text: string;
};

/** DNS label, RFC 1123 2.1 */
const HOSTNAME = /^(?!-)[a-z\d-]{1,63}(?<!-)$/i;

/**
 * "tcp:2222-10.0.2.15:22", "udp:0.0.0.0:5353-web:53", "tcp:[::1]:8080-02:16:3e:00:00:01:80": protocol, the host's address (127.0.0.1 when left out) and port,
 * a dash, the guest's address, MAC or host name, and its port.
 * @throws UserError naming the forward and what is wrong with it
 */
export function parseForward(text: string): Forward {
  const bad = (why: string) => new UserError(`Forward "${text}": ${why}`);
  const m = /^(?<protocol>[^:]*):(?:(?<address>\[[^\]]*\]|[^:-]*):)?(?<port>[^:-]*)-(?<target>.*):(?<targetPort>[^:]*)$/.exec(text)?.groups;
  if (!m) throw bad("is not of the form protocol:[address:]port-guest:port");
  const { protocol } = m, listenPort = parsePort(m.port!, 0), targetPort = parsePort(m.targetPort!), target = m.target!;
  if (protocol !== "tcp" && protocol !== "udp") throw bad(`the protocol is "tcp" or "udp", not "${protocol}"`);
  if (listenPort === null) throw bad(`"${m.port}" is not a port of the host's (0 to 65535)`);
  if (targetPort === null) throw bad(`"${m.targetPort}" is not a port of the guest's (1 to 65535)`);
  const listenAddress = m.address?.replace(/^\[(.*)\]$/, "$1") || "127.0.0.1", isV6 = m.address?.startsWith("[") ?? false;
  if (isV6 ? !/^[\da-f:.]+$/i.test(listenAddress) : parseIpv4(listenAddress) === null) throw bad(`"${m.address}" is not an address of the host's`);
  const address = parseIpv4(target), mac = parseMac(target);
  if (address === null && mac === null && (!HOSTNAME.test(target) || /^\d+$/.test(target))) throw bad(`"${target}" is neither an IPv4 address nor a MAC nor a host name`);
  const where: ForwardTarget = address !== null ? { address } : mac !== null ? { mac } : { hostname: target.toLowerCase() };
  return { protocol, listenAddress, listenPort, target: where, targetPort, text };
}
