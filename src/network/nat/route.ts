/** Where a guest's packets may go: to the host's loopback behind its alias, and to the world; never to the host by addresses that mean itself, nor past the policy by addresses in disguise. */
import { type Address, contains, parseSubnet6, type Subnet6 } from "./address.ts";
import type { IcmpError } from "./icmp.ts";
import { isGateway, type Own } from "./own.ts";
import type { Policy } from "./policy.ts";

/** Why a packet goes nowhere. */
export type Refusal = "refused" | "prohibited" | "unreachable";
/** How ICMP says it; TCP refuses with a reset. */
export const ERROR_OF: Readonly<Record<Refusal, IcmpError>> = { refused: "port", prohibited: "prohibited", unreachable: "noRoute" };
/** @returns the address outside that is meant */
export type Route = (protocol: "tcp" | "udp", destination: Address, port: number) => Address | Refusal;

/** The host's own. */
export const LOOPBACK = 0x7f000001, LOOPBACK6 = 1n;
/** What may be reached of IPv6 at all (IANA's registries of address space and of special addresses): global unicast, private networks, and IPv4 by a translator (RFC 6052). */
const REACHABLE = ["2000::/3", "fc00::/7", "64:ff9b::/96"].map(parseSubnet6), TRANSLATED = REACHABLE[2]!;
/** In these an IPv4 address hides, to which the host's tunnels would bring it: Teredo and 6to4 (RFC 4380, RFC 3056). */
const TUNNELS = ["2001::/32", "2002::/16"].map(parseSubnet6);
/** Interface identifiers of ISATAP (RFC 5214 6.1): an IPv4 address follows. */
const ISATAP: readonly bigint[] = [0x0000_5efen, 0x0200_5efen];

/** The IPv4 address that a packet to `address` would be brought to. */
function embedded(address: bigint): number | null {
  return contains(TRANSLATED, address) || ISATAP.includes(address >> 32n & 0xffff_ffffn) ? Number(address & 0xffff_ffffn) : null;
}
/** "This network", loopback and groups would be the host itself (RFC 6890). */
const isWorldly = (address: number): boolean => {
  const net = address >>> 24;
  return net !== 0 && net !== 127 && net < 224;
};

/** What it decides by. */
export type RouteOptions = { readonly own: Own; readonly hostAccess: boolean; readonly policy: Policy; /** false: no IPv6 destination but the alias */ readonly hasWorld6: boolean };

/** What decides for one network. */
export function makeRoute({ own, hostAccess, policy, hasWorld6 }: RouteOptions): Route {
  const host = (protocol: "tcp" | "udp", destination: Address, port: number, loopback: Address): Address | Refusal =>
    !hostAccess ? "refused" : policy(protocol, destination, port) ? loopback : "prohibited";
  const isReachable4 = (address: number): boolean => isWorldly(address) && !contains(own.network, address);
  const isReachable6 = (address: bigint, network: Subnet6): boolean =>
    hasWorld6 && REACHABLE.some((s) => contains(s, address)) && !TUNNELS.some((s) => contains(s, address)) && !contains(network, address);
  return (protocol, destination, port) => {
    if (isGateway(own, destination)) return "refused";
    if (destination === own.host) return host(protocol, destination, port, LOOPBACK);
    if (destination === own.v6?.host) return host(protocol, destination, port, LOOPBACK6);
    if (typeof destination === "number") {
      if (!isReachable4(destination)) return "unreachable";
    } else {
      const inside = embedded(destination);
      if (!own.v6 || !isReachable6(destination, own.v6.network) || (inside !== null && !isReachable4(inside))) return "unreachable";
      if (inside !== null && !policy(protocol, inside, port)) return "prohibited";
    }
    return policy(protocol, destination, port) ? destination : "prohibited";
  };
}
