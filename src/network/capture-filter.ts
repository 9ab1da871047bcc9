/** Which frames to capture, in the words of tcpdump that are used most (pcap-filter(7)). A VLAN tag hides nothing: what is behind it is looked at too. */
import { UserError } from "../base/errors.ts";
import { ipv4At, isIpv6At, macAt, parseIpv4, parseIpv6, parseMac } from "./address.ts";
import { ETHERTYPE, findTransport, IPPROTO, type Transport } from "./checksum.ts";
import type { Frame } from "./port.ts";

/** Does it want this frame? */
export type FrameFilter = (frame: Frame) => boolean;
/** What the words ask about. */
type Look = { readonly bytes: Uint8Array; readonly vids: readonly number[]; readonly type: number; /** of what the type names */ readonly at: number; readonly transport: Transport | null };
type Test = (look: Look) => boolean;

const TEXT_MAX = 1000, TAGS_MAX = 2;
/** The IPv6 header that multicast reports carry before them; TCP and UDP are found behind any. */
const HOP_BY_HOP = 0;

function look(bytes: Uint8Array): Look {
  const vids: number[] = [];
  let at = 14, type = (bytes[12]! << 8) | bytes[13]!;
  for (; vids.length < TAGS_MAX && (type === ETHERTYPE.vlan || type === ETHERTYPE.serviceVlan) && bytes.length >= at + 4; at += 4) {
    vids.push(((bytes[at]! << 8) | bytes[at + 1]!) & 0xfff);
    type = (bytes[at + 2]! << 8) | bytes[at + 3]!;
  }
  return { bytes, vids, type, at, transport: findTransport(bytes) };
}
const isIpv4 = ({ type, at, bytes }: Look): boolean => type === ETHERTYPE.ipv4 && bytes.length >= at + 20;
const isIpv6 = ({ type, at, bytes }: Look): boolean => type === ETHERTYPE.ipv6 && bytes.length >= at + 40;
const isArp = ({ type, at, bytes }: Look): boolean => type === ETHERTYPE.arp && bytes.length >= at + 28;
/** The protocol over IP, of fragments too. */
function isProtocol(l: Look, v4: number | null, v6: number | null): boolean {
  if (isIpv4(l)) return l.bytes[l.at + 9] === v4;
  if (!isIpv6(l) || v6 === null) return false;
  const next = l.bytes[l.at + 6]!;
  return (next === HOP_BY_HOP ? l.bytes[l.at + 40] : next) === v6 || l.transport?.protocol === v6;
}
const WORDS: Readonly<Record<string, Test>> = {
  arp: (l) => l.type === ETHERTYPE.arp, ip: (l) => l.type === ETHERTYPE.ipv4, ip6: (l) => l.type === ETHERTYPE.ipv6,
  tcp: (l) => isProtocol(l, IPPROTO.tcp, IPPROTO.tcp), udp: (l) => isProtocol(l, IPPROTO.udp, IPPROTO.udp),
  icmp: (l) => isProtocol(l, IPPROTO.icmp, null), icmp6: (l) => isProtocol(l, null, IPPROTO.icmpv6),
};
type Side = "src" | "dst" | null;
const either = (side: Side, src: Test, dst: Test): Test => (side === "src" ? src : side === "dst" ? dst : (l) => src(l) || dst(l));

function hostTest(text: string, side: Side): Test | null {
  const v4 = parseIpv4(text), v6 = v4 === null ? parseIpv6(text) : null;
  if (v4 === null && v6 === null) return null;
  const at = (inIpv4: number, inArp: number, inIpv6: number): Test => v6
    ? (l) => isIpv6(l) && isIpv6At(l.bytes, l.at + inIpv6, v6)
    : (l) => (isIpv4(l) && ipv4At(l.bytes, l.at + inIpv4) === v4) || (isArp(l) && ipv4At(l.bytes, l.at + inArp) === v4);
  return either(side, at(12, 14, 8), at(16, 24, 24));
}
function portTest(text: string, side: Side): Test | null {
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 65536;
  if (port > 65535) return null;
  const at = (offset: number): Test => ({ transport: t, bytes }) => t !== null && ((bytes[t.at + offset]! << 8) | bytes[t.at + offset + 1]!) === port;
  return either(side, at(0), at(2));
}
function etherTest(text: string, side: Side): Test | null {
  const mac = parseMac(text);
  return mac === null ? null : either(side, ({ bytes }) => macAt(bytes, 6) === mac, ({ bytes }) => macAt(bytes, 0) === mac);
}

/**
 * Read a filter: `arp ip ip6 tcp udp icmp icmp6`, `[src|dst] host ADDRESS`, `[src|dst] port NUMBER`, `ether [src|dst] host MAC`, `vlan [NUMBER]`, joined by `and`, `or` (which
 * bind alike, from the left, as in tcpdump), `not` and brackets.
 * @throws UserError that names the word
 */
export function parseFilter(text: string): FrameFilter {
  if (text.length > TEXT_MAX) throw new UserError(`A capture filter is at most ${TEXT_MAX} characters long, and this one has ${text.length}`);
  const words = text.match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const bad = (why: string) => new UserError(`Capture filter "${text}": ${why}`);
  const take = (): string => words[at++] ?? "";
  const need = <T>(made: T | null, what: string): T => {
    if (made === null) throw bad(`${words[at - 1] === undefined ? "its end" : `"${words[at - 1]}"`} is not ${what}`);
    return made;
  };
  const side = (): Side => (words[at] === "src" || words[at] === "dst" ? (take() as Side) : null);
  const one = (): Test => {
    const from = side(), word = take();
    if (word === "host") return need(hostTest(take(), from), "an IPv4 or IPv6 address");
    if (word === "port") return need(portTest(take(), from), "a port, 0 to 65535");
    if (from) throw need(null, `"host" or "port", which "${from}" wants`);
    if (word === "not") { const test = one(); return (l) => !test(l); }
    if (word === "(") { const test = all(); need(take() === ")" ? true : null, "the closing bracket that is missing"); return test; }
    if (word === "ether") { const of = side(); need(take() === "host" ? true : null, `"host", which "ether" wants`); return need(etherTest(take(), of), "an Ethernet address"); }
    if (word === "vlan") {
      if (!/^[0-9]+$/.test(words[at] ?? "")) return (l) => l.vids.length > 0;
      const vid = Number(take());
      return (l) => l.vids.includes(vid);
    }
    return need(Object.hasOwn(WORDS, word) ? WORDS[word]! : null, "a word of capture filters: arp ip ip6 tcp udp icmp icmp6 host port ether vlan src dst and or not ( )");
  };
  const all = (): Test => {
    let test = one();
    while (words[at] === "and" || words[at] === "or") {
      const isAnd = take() === "and", left = test, right = one();
      test = isAnd ? (l) => left(l) && right(l) : (l) => left(l) || right(l);
    }
    return test;
  };
  const test = all();
  if (at < words.length) throw bad(`"${words[at]}" stands where "and" or "or" is due`);
  return ({ bytes }) => bytes.length >= 14 && test(look(bytes));
}
