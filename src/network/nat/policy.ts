/** Which destinations guests may reach: rules in order, the first that fits decides. */
import { UserError } from "../../base/errors.ts";
import { type Address, contains, parsePort, parseSubnet, parseSubnet6, type Subnet, type Subnet6 } from "./address.ts";

/** Asked for every new flow, with the destination as the guest wrote it. */
export type Policy = {
  (protocol: "tcp" | "udp", address: Address, port: number): boolean;
  /** no IPv6 address is allowed, whatever is asked: guests are not told that there is a way */
  readonly deniesIpv6?: boolean;
};

/** Everything. The host's loopback is not among it: see `hostAccess` of NatNetwork. */
export const ALLOW_ALL: Policy = () => true;

type Rule = { isAllowed: boolean; protocol: "tcp" | "udp" | null; /** null: any */ subnet: Subnet | Subnet6 | null; from: number; to: number };

function parseRule(text: string): Rule {
  const bad = (why: string) => new UserError(`Policy rule "${text}": ${why}`);
  const [action = "", ...words] = text.trim().split(/\s+/);
  if (action !== "allow" && action !== "deny") throw bad(`begins with "${action}", not with "allow" or "deny"`);
  const protocol = words[0] === "tcp" || words[0] === "udp" ? words[0] : null;
  if (protocol) words.shift();
  const [target = "any", ...rest] = words;
  if (rest.length) throw bad(`"${rest[0]}" is one word too many`);
  // An IPv6 address's last group looks like a port: without brackets only a network has no port behind it for certain.
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(target), isV6 = bracketed !== null || /:.*:/.test(target);
  if (isV6 && !bracketed && !/\/\d+$/.test(target)) throw bad(`an IPv6 address stands in brackets, "[2001:db8::1]" or "[2001:db8::1]:443"; only a network may do without, "2001:db8::/32"`);
  const colon = target.indexOf(":"), network = bracketed ? bracketed[1]! : isV6 || colon < 0 ? target : target.slice(0, colon);
  const ports = (bracketed ? bracketed[2] : isV6 || colon < 0 ? undefined : target.slice(colon + 1)) ?? "0-65535";
  const [fromText = "", toText = fromText, ...more] = ports.split("-"), from = parsePort(fromText, 0), to = parsePort(toText, 0);
  if (from === null || to === null || from > to || more.length) throw bad(`"${ports}" is neither a port nor a range like 8000-8099`);
  try {
    return { isAllowed: action === "allow", protocol, subnet: network === "any" && !bracketed ? null : isV6 ? parseSubnet6(network) : parseSubnet(network), from, to };
  } catch (e) {
    throw bad((e as Error).message);
  }
}

/**
 * Rules like "deny 192.168.0.0/16", "allow tcp any:443", "deny udp [2001:db8::/32]:5000-5010"; what none fits is allowed (end with "deny any" for the contrary). "any" is every address of
 * both families. Rules that deny IPv4 networks and name no IPv6 one were written by somebody who thought of IPv4 alone: no IPv6 address is allowed by them.
 * @throws UserError naming the rule and what is wrong with it
 */
export function parsePolicy(rules: readonly string[]): Policy {
  const parsed = rules.map(parseRule), isV6 = ({ subnet }: Rule): boolean => subnet !== null && !("mask" in subnet);
  const isForIpv4 = parsed.some((r) => !r.isAllowed && r.subnet !== null && !isV6(r)) && !parsed.some(isV6);
  const nrBeforeDenial = parsed.findIndex((r) => !r.isAllowed && r.protocol === null && r.from === 0 && r.to === 65535 && (r.subnet === null || (isV6(r) && r.subnet.prefix === 0)));
  const deniesIpv6 = isForIpv4 || (nrBeforeDenial >= 0 && !parsed.slice(0, nrBeforeDenial).some((r) => r.isAllowed && (r.subnet === null || isV6(r))));
  const policy = (protocol: "tcp" | "udp", address: Address, port: number): boolean => {
    if (deniesIpv6 && typeof address === "bigint") return false;
    return parsed.find((r) => (r.protocol === null || r.protocol === protocol) && port >= r.from && port <= r.to && (r.subnet === null || contains(r.subnet, address)))?.isAllowed ?? true;
  };
  return Object.assign(policy, { deniesIpv6 });
}
