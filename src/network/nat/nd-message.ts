/** Neighbour discovery's messages (RFC 4861 4, RFC 8106) as bytes. Each comes and goes with hop limit 255, so that no router can have passed it on. */
import { checksumOf, IPPROTO, sumOf, pseudoSum } from "../checksum.ts";
import { macAt } from "../address.ts";
import { ALL_NODES, type Address, ipv6At, isMulticast, putIpv6, putMac, solicitedNode, type Subnet6, UNSPECIFIED } from "./address.ts";
import { encodeName } from "./dns-message.ts";
import { newIpv6 } from "./ipv6.ts";
import { type Packet, payloadAt, pseudoSumOf } from "./packet.ts";

/** Types of ICMPv6. */
export const ND = { routerSolicitation: 133, routerAdvertisement: 134, neighbourSolicitation: 135, neighbourAdvertisement: 136, redirect: 137 } as const;
const OPTION = { sourceLink: 1, targetLink: 2, prefix: 3, mtu: 5, dns: 25, domains: 31 } as const;
/** Of neighbour advertisements. */
const FLAG = { router: 0x80, solicited: 0x40, override: 0x20 } as const;
const HOP_LIMIT = 255, HEADER_BYTES = 8;
/** Where options begin. */
const OPTIONS_AT: Readonly<Record<number, number>> = {
  [ND.routerSolicitation]: 8, [ND.routerAdvertisement]: 16, [ND.neighbourSolicitation]: 24, [ND.neighbourAdvertisement]: 24, [ND.redirect]: 40,
};
/** Of prefixes: addresses in it are on this link, and guests may make theirs in it. Of advertisements: DHCPv6 knows more. */
const ON_LINK = 0x80, AUTONOMOUS = 0x40, OTHER_CONFIGURATION = 0x40;

export const isNd = (p: Packet): boolean => // by its type alone
  p.version === 6 && p.protocol === IPPROTO.icmpv6 && !p.fragment && p.end > p.at && p.bytes[p.at]! >= ND.routerSolicitation && p.bytes[p.at]! <= ND.redirect;

/** What a message of a guest's says. */
export type NdMessage = {
  readonly type: number;
  /** UNSPECIFIED: from one that has no address yet */
  readonly source: bigint;
  /** 0: the message names none */
  readonly target: bigint;
};
/** Check a message and read it (RFC 4861 6.1, 7.1). @returns null where it is to be ignored: wrong in itself, or it names another station than it came from */
export function readNd(p: Packet): NdMessage | null {
  const { bytes, view, at, end } = p, type = bytes[at]!, hasTarget = type === ND.neighbourSolicitation || type === ND.neighbourAdvertisement, optionsAt = at + OPTIONS_AT[type]!;
  if (p.ttl !== HOP_LIMIT || bytes[at + 1] !== 0 || optionsAt > end || typeof p.source !== "bigint" || typeof p.destination !== "bigint" || isMulticast(p.source)) return null;
  if (sumOf(bytes, at, end, pseudoSum(bytes, p, end - at)) !== 0xffff) return null;
  const target = hasTarget ? ipv6At(view, at + 8) : 0n, isSolicited = (bytes[at + 4]! & FLAG.solicited) !== 0;
  for (let o = optionsAt; o < end; ) {
    const lengthBytes = o + 1 < end ? bytes[o + 1]! * 8 : 0;
    if (lengthBytes === 0 || o + lengthBytes > end) return null;
    if (bytes[o] === OPTION.sourceLink && p.source === UNSPECIFIED) return null;
    if ((bytes[o] === OPTION.sourceLink || bytes[o] === OPTION.targetLink) && macAt(bytes, o + 2) !== p.mac) return null;
    o += lengthBytes;
  }
  if (hasTarget && (isMulticast(target) || target === UNSPECIFIED)) return null;
  if (type === ND.neighbourSolicitation && p.source === UNSPECIFIED && p.destination !== solicitedNode(target)) return null;
  if (type === ND.neighbourAdvertisement && (p.source === UNSPECIFIED || (isSolicited && isMulticast(p.destination)))) return null;
  return { type, source: p.source, target };
}

function newMessage(type: number, source: bigint, destination: bigint, lengthBytes: number): { bytes: Uint8Array<ArrayBuffer>; view: DataView; at: number } {
  const bytes = newIpv6(source, destination, IPPROTO.icmpv6, lengthBytes, HOP_LIMIT), at = payloadAt(bytes);
  bytes[at] = type;
  return { bytes, view: new DataView(bytes.buffer), at };
}
function finished(bytes: Uint8Array<ArrayBuffer>, view: DataView, at: number): Uint8Array<ArrayBuffer> {
  view.setUint16(at + 2, checksumOf(bytes, at, bytes.length, pseudoSumOf(bytes, IPPROTO.icmpv6)));
  return bytes;
}
function putLink(bytes: Uint8Array, view: DataView, at: number, option: number, mac: number): void {
  bytes[at] = option;
  bytes[at + 1] = 1;
  putMac(view, at + 2, mac);
}
/** "Who has `target`?" @param to everybody who may have it, or one who had it */
export function newSolicitation(source: bigint, mac: number, target: bigint, to = solicitedNode(target)): Uint8Array<ArrayBuffer> {
  const { bytes, view, at } = newMessage(ND.neighbourSolicitation, source, to, 32);
  putIpv6(view, at + 8, target);
  putLink(bytes, view, at + 24, OPTION.sourceLink, mac);
  return finished(bytes, view, at);
}
/** "I have `target`." @param asker who is told; nobody in particular where who asked has no address yet @param isProxy another's word would count for more */
export function newAdvertisement(target: bigint, mac: number, asker: bigint, isProxy: boolean): Uint8Array<ArrayBuffer> {
  const isForAll = asker === UNSPECIFIED, { bytes, view, at } = newMessage(ND.neighbourAdvertisement, target, isForAll ? ALL_NODES : asker, 32);
  bytes[at + 4] = FLAG.router | (isForAll ? 0 : FLAG.solicited) | (isProxy ? 0 : FLAG.override);
  putIpv6(view, at + 8, target);
  putLink(bytes, view, at + 24, OPTION.targetLink, mac);
  return finished(bytes, view, at);
}

/** What the router says of itself. */
export type RouterWord = {
  readonly linkLocal: bigint; readonly mac: number; readonly mtu: number; readonly network: Subnet6; readonly dns: bigint;
  /** labels with dots between */
  readonly domain: string;
  /** 0: it is no way out */
  readonly routerSeconds: number; readonly dnsSeconds: number; readonly validSeconds: number; readonly preferredSeconds: number;
};
export function newRouterAdvertisement(w: RouterWord, to: Address): Uint8Array<ArrayBuffer> { // to one guest, or to all
  const name = encodeName(w.domain), domainBytes = HEADER_BYTES + Math.ceil(name.length / 8) * 8;
  const { bytes, view, at } = newMessage(ND.routerAdvertisement, w.linkLocal, to as bigint, 16 + 8 + 8 + 32 + 24 + domainBytes);
  bytes[at + 4] = 64;
  bytes[at + 5] = OTHER_CONFIGURATION;
  view.setUint16(at + 6, w.routerSeconds);
  let o = at + 16;
  putLink(bytes, view, o, OPTION.sourceLink, w.mac);
  o += 8;
  bytes.set([OPTION.mtu, 1], o);
  view.setUint32(o + 4, w.mtu);
  o += 8;
  bytes.set([OPTION.prefix, 4, w.network.prefix, ON_LINK | AUTONOMOUS], o);
  view.setUint32(o + 4, w.validSeconds);
  view.setUint32(o + 8, w.preferredSeconds);
  putIpv6(view, o + 16, w.network.network);
  o += 32;
  bytes.set([OPTION.dns, 3], o);
  view.setUint32(o + 4, w.dnsSeconds);
  putIpv6(view, o + 8, w.dns);
  o += 24;
  bytes.set([OPTION.domains, domainBytes / 8], o);
  view.setUint32(o + 4, w.dnsSeconds);
  bytes.set(name, o + 8);
  return finished(bytes, view, at);
}
