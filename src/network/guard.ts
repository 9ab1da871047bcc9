/**
 * What a port's guest may say it is: Ethernet addresses, and IP addresses in IPv4, ARP, IPv6 and neighbour discovery. With addresses listed the guest is taken for a host:
 * it sends nothing but those protocols and is neither a DHCP server nor a router (RFC 6105, RFC 7610). Who wants to be one is given no list.
 */
import { UserError } from "../base/errors.ts";
import { ipv4At, isIpv6At, macAt, needMac, parseIpv4, parseIpv6 } from "./address.ts";
import { ETHERTYPE, IPPROTO } from "./checksum.ts";
import type { Tagging } from "./vlan.ts";

const DHCP = { server: 67, client: 68 } as const, DHCPV6 = { client: 546, server: 547 } as const;
/** ICMPv6 types - RFC 4861 4, RFC 2710 3, RFC 3810 5.2 */
const ND = { routerSolicitation: 133, routerAdvertisement: 134, neighbourSolicitation: 135, neighbourAdvertisement: 136, redirect: 137 } as const;
const MLD_REPORTS: readonly number[] = [131, 132, 143];
/** Options that hold the sender's or target's Ethernet address - RFC 4861 4.6.1 */
const ND_LINK_ADDRESSES: readonly number[] = [1, 2];
/** IPv6 headers that come before the packet's own - RFC 8200 4 */
const EXTENSION = { hopByHop: 0, routing: 43, fragment: 44, destination: 60 } as const;
const HEADERS_MAX = 8;

/** Checks the sources of one port's frames. */
export class SourceGuard {
  /** null: any one station's */
  readonly macs: ReadonlySet<number> | null;
  readonly #ipv4: ReadonlySet<number>;
  readonly #ipv6: readonly Uint8Array[];
  readonly #hasIps: boolean;

  /** @param name the port's @throws UserError for an address that is none */
  constructor(name: string, macs?: readonly string[], ips?: readonly string[]) {
    this.macs = macs ? new Set(macs.map((text) => needMac(text, `Port ${name}`))) : null;
    this.#hasIps = ips !== undefined;
    const ipv4 = new Set<number>(), ipv6: Uint8Array[] = [];
    for (const text of ips ?? []) {
      const v4 = parseIpv4(text), v6 = v4 === null ? parseIpv6(text) : null;
      if (v4) ipv4.add(v4);
      else if (v6?.some((b) => b !== 0)) ipv6.push(v6);
      else throw new UserError(`Port ${name}: "${text}" is not an IPv4 or IPv6 address that a guest may have`);
    }
    this.#ipv4 = ipv4;
    this.#ipv6 = ipv6;
  }

  /** @param bytes a frame of at least 14 bytes, of `source` @returns which address is not the port's to use; null: it may go */
  check(bytes: Uint8Array, source: number, tagging: Tagging): "mac" | "ip" | null {
    if (this.macs && !this.macs.has(source)) return "mac";
    if (!this.#hasIps) return null;
    const at = tagging.typeAt + 2;
    switch ((bytes[at - 2]! << 8) | bytes[at - 1]!) {
      case ETHERTYPE.arp: return this.#isArp(bytes, at, source) ? null : "ip";
      // names no address: says where the port's is, after a move
      case ETHERTYPE.rarp: return this.#isArp(bytes, at, source) && ipv4At(bytes, at + 14) === 0 ? null : "ip";
      case ETHERTYPE.ipv4: return this.#isIpv4(bytes, at, source) ? null : "ip";
      case ETHERTYPE.ipv6: return this.#ipv6.length > 0 && this.#isIpv6(bytes, at, source) ? null : "ip";
      default: return "ip";
    }
  }
  #isOurMac(mac: number, source: number): boolean {
    return this.macs ? this.macs.has(mac) : mac === source;
  }

  /** RFC 826; a sender of 0.0.0.0 asks whether an address is free (RFC 5227). */
  #isArp(bytes: Uint8Array, at: number, source: number): boolean {
    if (bytes.length < at + 28 || ipv4At(bytes, at) !== 0x0001_0800 || bytes[at + 4] !== 6 || bytes[at + 5] !== 4) return false;
    const sender = ipv4At(bytes, at + 14);
    return this.#isOurMac(macAt(bytes, at + 8), source) && (sender === 0 || this.#ipv4.has(sender));
  }

  #isIpv4(bytes: Uint8Array, at: number, source: number): boolean {
    const headerBytes = (bytes[at]! & 15) * 4, up = at + headerBytes;
    if (bytes.length < at + 20 || bytes[at]! >>> 4 !== 4 || headerBytes < 20 || bytes.length < up) return false;
    const sender = ipv4At(bytes, at + 12), isFirst = ((bytes[at + 6]! & 0x1f) | bytes[at + 7]!) === 0;
    if (bytes[at + 9] !== IPPROTO.udp || !isFirst) return this.#ipv4.has(sender);
    if (bytes.length < up + 8) return false;
    const from = (bytes[up]! << 8) | bytes[up + 1]!, to = (bytes[up + 2]! << 8) | bytes[up + 3]!;
    if (from === DHCP.server && to === DHCP.client) return false;
    if (from !== DHCP.client || to !== DHCP.server) return this.#ipv4.has(sender);
    // BOOTP's hardware address: one guest shall not eat a server's leases.
    const client = up + 8 + 28;
    return (sender === 0 || this.#ipv4.has(sender)) && bytes.length >= client + 6 && this.#isOurMac(macAt(bytes, client), source);
  }

  /** A listed address, or the link-local one that is made from a MAC of the port (RFC 4291 appendix A). */
  #isOurIpv6(bytes: Uint8Array, at: number, source: number): boolean {
    if (this.#ipv6.some((address) => isIpv6At(bytes, at, address))) return true;
    if (ipv4At(bytes, at) !== 0xfe80_0000 || ipv4At(bytes, at + 4) !== 0 || bytes[at + 11] !== 0xff || bytes[at + 12] !== 0xfe) return false;
    const high = ((bytes[at + 8]! ^ 2) << 16) | (bytes[at + 9]! << 8) | bytes[at + 10]!, low = (bytes[at + 13]! << 16) | (bytes[at + 14]! << 8) | bytes[at + 15]!;
    return this.#isOurMac(high * 0x100_0000 + low, source);
  }

  #isIpv6(bytes: Uint8Array, at: number, source: number): boolean {
    if (bytes.length < at + 40 || bytes[at]! >>> 4 !== 6) return false;
    let next = bytes[at + 6]!, up = at + 40, isFragment = false;
    for (let nr = 0; ; nr++) {
      if (nr > HEADERS_MAX) return false;
      const isLong = next === EXTENSION.hopByHop || next === EXTENSION.routing || next === EXTENSION.destination;
      if (!isLong && next !== EXTENSION.fragment) break;
      if (bytes.length < up + 8) return false;
      next = bytes[up]!;
      if (isLong) {
        up += (bytes[up + 1]! + 1) * 8;
        continue;
      }
      isFragment = true;
      const isFirst = (bytes[up + 2]! | (bytes[up + 3]! & 0xf8)) === 0;
      up += 8;
      if (!isFirst) return this.#isOurIpv6(bytes, at + 8, source);
    }
    const isNone = bytes.subarray(at + 8, at + 24).every((b) => b === 0), isOurs = !isNone && this.#isOurIpv6(bytes, at + 8, source);
    if (next === IPPROTO.icmpv6) return bytes.length >= up + 8 && this.#isIcmpv6(bytes, up, source, isOurs, isNone, isFragment);
    // The headers of a fragment must all stand in the first one (RFC 7112), or the check is of nothing.
    if (isFragment && bytes.length < up + 8) return false;
    if (next === IPPROTO.udp && bytes.length >= up + 4 && ((bytes[up]! << 8) | bytes[up + 1]!) === DHCPV6.server && ((bytes[up + 2]! << 8) | bytes[up + 3]!) === DHCPV6.client) return false;
    return isOurs;
  }
  #isIcmpv6(bytes: Uint8Array, at: number, source: number, isOurs: boolean, isNone: boolean, isFragment: boolean): boolean {
    const type = bytes[at]!;
    if (MLD_REPORTS.includes(type)) return isOurs || isNone;
    if (type < ND.routerSolicitation || type > ND.redirect) return isOurs;
    // Neighbour discovery in fragments is never right (RFC 6980).
    if (isFragment || type === ND.routerAdvertisement || type === ND.redirect) return false;
    const hasTarget = type !== ND.routerSolicitation, options = at + (hasTarget ? 24 : 8);
    if (bytes.length < options || !this.#areOptionsOurs(bytes, options, source)) return false;
    if (type === ND.neighbourAdvertisement) return isOurs && this.#isOurIpv6(bytes, at + 8, source);
    return isOurs || (isNone && (!hasTarget || this.#isOurIpv6(bytes, at + 8, source)));
  }
  #areOptionsOurs(bytes: Uint8Array, from: number, source: number): boolean {
    for (let at = from; at + 8 <= bytes.length; ) {
      const lengthBytes = bytes[at + 1]! * 8;
      if (lengthBytes === 0) return true;  // padding of the frame: receivers drop a packet that ends so
      if (ND_LINK_ADDRESSES.includes(bytes[at]!) && !this.#isOurMac(macAt(bytes, at + 2), source)) return false;
      at += lengthBytes;
    }
    return true;
  }
}
