/** IPv4 addresses and subnets of a router, beside what ../address.ts has. An address is a number of 32 bits, unsigned. */
import { UserError } from "../../base/errors.ts";
import { parseIpv4 } from "../address.ts";

export const formatIpv4 = (address: number): string => `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`; // dotted quad
/** Every station. */
export const BROADCAST_MAC = 0xffff_ffff_ffff;
export function putMac(view: DataView, at: number, mac: number): void { // as it stands in a frame
  view.setUint16(at, Math.floor(mac / 2 ** 32));
  view.setUint32(at + 2, mac >>> 0);
}

/** A range of addresses that share their first `prefix` bits. */
export type Subnet = { readonly network: number; readonly prefix: number; readonly mask: number; readonly broadcast: number };
export const contains = (s: Subnet, address: number): boolean => (address & s.mask) >>> 0 === s.network; // also its network and broadcast address

/** "10.0.2.0/24"; a bare address is a /32. @throws UserError naming what is wrong; bits behind the prefix must be zero */
export function parseSubnet(text: string): Subnet {
  const [addressText = "", prefixText = "32", ...rest] = text.split("/"), address = parseIpv4(addressText), prefix = Number(prefixText);
  if (address === null) throw new UserError(`Subnet "${text}": "${addressText}" is not an IPv4 address`);
  if (rest.length || !/^\d{1,2}$/.test(prefixText) || prefix > 32) throw new UserError(`Subnet "${text}": the prefix length is a number from 0 to 32`);
  const mask = prefix === 0 ? 0 : (-1 << (32 - prefix)) >>> 0, network = (address & mask) >>> 0;
  if (network !== address) throw new UserError(`Subnet "${text}": bits are set behind the prefix; the network is ${formatIpv4(network)}/${prefix}`);
  return { network, prefix, mask, broadcast: (network | ~mask) >>> 0 };
}

/** @returns null unless `text` is a decimal number from `least` to 65535 */
export function parsePort(text: string, least = 1): number | null {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : -1;
  return port >= least && port <= 65535 ? port : null;
}
