/** A forward: a port of the host's that leads to a guest's. */
import { UserError } from "../../base/errors.ts";
import { parseIpv4, parseMac } from "../address.ts";
import { type Address, parseAddress, parsePort } from "./address.ts";

/** Where a forward leads: to an address, or to whoever has the MAC or the host name when a connection comes. */
export type ForwardTarget = { readonly address: Address } | { readonly mac: number } | { readonly hostname: string };
/** A port on the host and one in a guest; the two may be of different families. */
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
/** Between brackets; null where there are none. */
const bracketed = (text: string): string | null => /^\[(.*)\]$/.exec(text)?.[1] ?? null;

/**
 * "tcp:2222-10.0.2.15:22", "udp:0.0.0.0:5353-web:53", "tcp:[::1]:8080-02:16:3e:00:00:01:80", "tcp:8080-[fd00::15]:80": protocol, the host's address (127.0.0.1 when left out) and
 * port, a dash, the guest's address, MAC or host name, and its port. IPv6 addresses stand in brackets.
 * @throws UserError naming the forward and what is wrong with it
 */
export function parseForward(text: string): Forward {
  const bad = (why: string) => new UserError(`Forward "${text}": ${why}`);
  const m = /^(?<protocol>[^:]*):(?:(?<address>\[[^\]]*\]|[^:-]*):)?(?<port>[^:-]*)-(?<target>.*):(?<targetPort>[^:\]]*)$/.exec(text)?.groups;
  if (!m) throw bad("is not of the form protocol:[address:]port-guest:port");
  const { protocol } = m, listenPort = parsePort(m.port!, 0), targetPort = parsePort(m.targetPort!), target = m.target!;
  if (protocol !== "tcp" && protocol !== "udp") throw bad(`the protocol is "tcp" or "udp", not "${protocol}"`);
  if (listenPort === null) throw bad(`"${m.port}" is not a port of the host's (0 to 65535)`);
  if (targetPort === null) throw bad(`"${m.targetPort}" is not a port of the guest's (1 to 65535)`);
  const v6 = bracketed(m.address ?? ""), listenAddress = v6 ?? (m.address || "127.0.0.1");
  if (v6 === null ? parseIpv4(listenAddress) === null : typeof parseAddress(v6) !== "bigint") throw bad(`"${m.address}" is not an address of the host's`);
  return { protocol, listenAddress, listenPort, target: parseTarget(target, bad), targetPort, text };
}
function parseTarget(text: string, bad: (why: string) => UserError): ForwardTarget {
  const v6 = bracketed(text), address = parseAddress(v6 ?? text), mac = parseMac(text);
  if (v6 !== null && typeof address !== "bigint") throw bad(`"${v6}" is not an IPv6 address`);
  if (v6 === null && typeof address === "bigint") throw bad(`an IPv6 address stands in brackets, "[${text}]"`);
  if (address !== null) return { address };
  if (mac !== null) return { mac };
  if (!HOSTNAME.test(text) || /^\d+$/.test(text)) throw bad(`"${text}" is neither an IPv4 address nor one of IPv6 in brackets nor a MAC nor a host name`);
  return { hostname: text.toLowerCase() };
}
