/**
 * Addresses and subnets of a router, beside what ../address.ts has. An IPv4 address is a number of 32 bits, unsigned, an IPv6 one a bigint of 128: `===` compares them, Maps hold
 * them, `typeof` tells the family, and none is ever taken for one of the other.
 */
import { UserError } from "../../base/errors.ts";
import { parseIpv4, parseIpv6 } from "../address.ts";

/** Of either family. */
export type Address = number | bigint;

export const formatIpv4 = (address: number): string => `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`; // dotted quad
/** As RFC 5952 wants it, in hexadecimal throughout. */
export function formatIpv6(address: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) => Number((address >> BigInt(112 - 16 * i)) & 0xffffn));
  let from = 0, length = 1;
  for (let i = 0, zeros = 0; i < 8; i++) {
    zeros = groups[i] === 0 ? zeros + 1 : 0;
    if (zeros > length) {
      length = zeros;
      from = i - zeros + 1;
    }
  }
  const hex = (part: readonly number[]): string => part.map((g) => g.toString(16)).join(":");
  return length < 2 ? hex(groups) : `${hex(groups.slice(0, from))}::${hex(groups.slice(from + length))}`;
}
export const formatAddress = (address: Address): string => (typeof address === "number" ? formatIpv4(address) : formatIpv6(address)); // either, without brackets
/** @returns null when it is an address of neither family, or has a zone */
export function parseAddress(text: string): Address | null {
  const v4 = parseIpv4(text), bytes = v4 === null ? parseIpv6(text) : null;
  return bytes ? ipv6At(new DataView(bytes.buffer), 0) : v4;
}

/** Every station. */
export const BROADCAST_MAC = 0xffff_ffff_ffff;
export function putMac(view: DataView, at: number, mac: number): void { // as it stands in a frame
  view.setUint16(at, Math.floor(mac / 2 ** 32));
  view.setUint32(at + 2, mac >>> 0);
}
export const ipv6At = (view: DataView, at: number): bigint => (view.getBigUint64(at) << 64n) | view.getBigUint64(at + 8); // 16 bytes that are there
export function putIpv6(view: DataView, at: number, address: bigint): void { // as it stands in a frame
  view.setBigUint64(at, address >> 64n);
  view.setBigUint64(at + 8, address);
}

/** Where nodes that have no address yet write from, all nodes of a link, and its routers. RFC 4291 2.5.2, 2.7.1 */
export const UNSPECIFIED = 0n, ALL_NODES = 0xff02n << 112n | 1n, ALL_ROUTERS = 0xff02n << 112n | 2n;
const LINK_LOCAL = 0xfe80n << 112n, SOLICITED_NODE = ALL_NODES | 0xff00_0000n | 1n << 32n;
/** fe80::/10, and those made from a MAC lie in its first /64. */
export const isLinkLocal = (address: Address): boolean => typeof address === "bigint" && address >> 118n === 0xfe80n >> 6n;
/** ff00::/8 */
export const isMulticast = (address: bigint): boolean => address >> 120n === 0xffn;
/** The group that neighbours with this address listen to. RFC 4291 2.7.1 */
export const solicitedNode = (address: bigint): bigint => SOLICITED_NODE & ~0xff_ffffn | address & 0xff_ffffn;
/** The station of an IPv6 group. RFC 2464 7 */
export const macOfGroup = (group: bigint): number => 0x3333 * 2 ** 32 + Number(group & 0xffff_ffffn);
/** The address in a /64 that is made from a MAC, and the link-local one. RFC 4291 appendix A */
export const madeFrom = (mac: number, network = LINK_LOCAL): bigint => network | BigInt(Math.floor(mac / 2 ** 24) ^ 0x020000) << 40n | 0xfffe00_0000n | BigInt(mac % 2 ** 24);
/** The MAC that an address looks made from; null where it does not. */
export const macOf = (address: bigint): number | null =>
  (address >> 24n & 0xffffn) === 0xfffen ? (Number(address >> 40n & 0xff_ffffn) ^ 0x020000) * 2 ** 24 + Number(address & 0xff_ffffn) : null;

/** A range of addresses that share their first `prefix` bits. */
export type Subnet = { readonly network: number; readonly prefix: number; readonly mask: number; readonly broadcast: number };
/** The same in IPv6. */
export type Subnet6 = { readonly network: bigint; readonly prefix: number };
export const contains = (s: Subnet | Subnet6, address: Address): boolean => // also its network and broadcast address
  "mask" in s ? typeof address === "number" && (address & s.mask) >>> 0 === s.network : typeof address === "bigint" && (address ^ s.network) >> BigInt(128 - s.prefix) === 0n;
/** "10.0.2.0/24" */
export const formatSubnet = (s: Subnet | Subnet6): string => `${formatAddress(s.network)}/${s.prefix}`;

function prefixOf(text: string, prefixText: string, rest: readonly string[], most: number): number {
  if (rest.length || !/^\d{1,3}$/.test(prefixText) || Number(prefixText) > most) throw new UserError(`Subnet "${text}": the prefix length is a number from 0 to ${most}`);
  return Number(prefixText);
}
/** "10.0.2.0/24"; a bare address is a /32. @throws UserError naming what is wrong; bits behind the prefix must be zero */
export function parseSubnet(text: string): Subnet {
  const [addressText = "", prefixText = "32", ...rest] = text.split("/"), address = parseIpv4(addressText);
  if (address === null) throw new UserError(`Subnet "${text}": "${addressText}" is not an IPv4 address`);
  const prefix = prefixOf(text, prefixText, rest, 32), mask = prefix === 0 ? 0 : (-1 << (32 - prefix)) >>> 0, network = (address & mask) >>> 0;
  if (network !== address) throw new UserError(`Subnet "${text}": bits are set behind the prefix; the network is ${formatIpv4(network)}/${prefix}`);
  return { network, prefix, mask, broadcast: (network | ~mask) >>> 0 };
}
/** "fd00:1::/64"; a bare address is a /128. @throws UserError as parseSubnet */
export function parseSubnet6(text: string): Subnet6 {
  const [addressText = "", prefixText = "128", ...rest] = text.split("/"), address = parseAddress(addressText);
  if (typeof address !== "bigint") throw new UserError(`Subnet "${text}": "${addressText}" is not an IPv6 address`);
  const prefix = prefixOf(text, prefixText, rest, 128), hostBits = BigInt(128 - prefix), network = address >> hostBits << hostBits;
  if (network !== address) throw new UserError(`Subnet "${text}": bits are set behind the prefix; the network is ${formatIpv6(network)}/${prefix}`);
  return { network, prefix };
}

/** @returns null unless `text` is a decimal number from `least` to 65535 */
export function parsePort(text: string, least = 1): number | null {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : -1;
  return port >= least && port <= 65535 ? port : null;
}
