/** Which destinations guests may reach: rules in order, the first that fits decides. */
import { UserError } from "../../base/errors.ts";
import { contains, parsePort, parseSubnet, type Subnet } from "./address.ts";

/** Asked for every new flow, with the destination as the guest wrote it. */
export type Policy = (protocol: "tcp" | "udp", address: number, port: number) => boolean;

/** Everything. The host's loopback is not among it: see `hostAccess` of NatNetwork. */
export const ALLOW_ALL: Policy = () => true;

type Rule = { isAllowed: boolean; protocol: "tcp" | "udp" | null; subnet: Subnet; from: number; to: number };

function parseRule(text: string): Rule {
  const bad = (why: string) => new UserError(`Policy rule "${text}": ${why}`);
  const [action = "", ...words] = text.trim().split(/\s+/);
  if (action !== "allow" && action !== "deny") throw bad(`begins with "${action}", not with "allow" or "deny"`);
  const protocol = words[0] === "tcp" || words[0] === "udp" ? words[0] : null;
  if (protocol) words.shift();
  const [target = "any", ...rest] = words;
  if (rest.length) throw bad(`"${rest[0]}" is one word too many`);
  const colon = target.indexOf(":"), network = colon < 0 ? target : target.slice(0, colon), ports = colon < 0 ? "0-65535" : target.slice(colon + 1);
  const [fromText = "", toText = fromText, ...more] = ports.split("-"), from = parsePort(fromText, 0), to = parsePort(toText, 0);
  if (from === null || to === null || from > to || more.length) throw bad(`"${ports}" is neither a port nor a range like 8000-8099`);
  try {
    return { isAllowed: action === "allow", protocol, subnet: parseSubnet(network === "any" ? "0.0.0.0/0" : network), from, to };
  } catch (e) {
    throw bad((e as Error).message);
  }
}

/**
 * Rules like "deny 192.168.0.0/16", "allow tcp any:443", "deny udp 10.1.2.3:5000-5010"; what none fits is allowed (end with "deny any" for the contrary).
 * @throws UserError naming the rule and what is wrong with it
 */
export function parsePolicy(rules: readonly string[]): Policy {
  const parsed = rules.map(parseRule);
  return (protocol, address, port) =>
    parsed.find((r) => (r.protocol === null || r.protocol === protocol) && port >= r.from && port <= r.to && contains(r.subnet, address))?.isAllowed ?? true;
}
