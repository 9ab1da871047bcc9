/** Ethernet, IPv4 and IPv6 addresses, as text and as they stand in frames. A MAC is a number of 48 bits, an IPv4 address one of 32, an IPv6 address 16 bytes. */
import { UserError } from "../base/errors.ts";

/** "00:16:3e:01:02:03", or with dashes. @returns null when it is none */
export function parseMac(text: string): number | null {
  const digits = /^([0-9a-f]{2})([:-])([0-9a-f]{2})(\2[0-9a-f]{2}){4}$/i.test(text) ? text.replaceAll(/[:-]/g, "") : "";
  return digits ? Number.parseInt(digits, 16) : null;
}
/** In the usual lower case with colons. */
export const macText = (mac: number): string => mac.toString(16).padStart(12, "0").replaceAll(/..(?=.)/g, "$&:");
/** Six bytes of a frame, which the caller knows to be there. */
export const macAt = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! << 8) | bytes[at + 1]!) * 0x1_0000_0000 + (((bytes[at + 2]! << 24) | (bytes[at + 3]! << 16) | (bytes[at + 4]! << 8) | bytes[at + 5]!) >>> 0);
/** Group addresses: broadcast and multicast - IEEE 802 8.2.2, the first byte's lowest bit. */
export const isGroup = (mac: number): boolean => (Math.floor(mac / 0x100_0000_0000) & 1) === 1;

/** "10.0.2.15"; no zeros in front, which some programs take for octal. @returns null when it is none */
export function parseIpv4(text: string): number | null {
  const parts = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(text)?.slice(1).map(Number);
  return parts?.every((n) => n < 256) ? parts.reduce((sum, n) => sum * 256 + n, 0) : null;
}
/** Four bytes of a frame, which the caller knows to be there. */
export const ipv4At = (bytes: Uint8Array, at: number): number => ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;

/** The forms of RFC 4291 2.2, without a zone. @returns null when it is none */
export function parseIpv6(text: string): Uint8Array<ArrayBuffer> | null {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text), v4 = dotted ? parseIpv4(dotted[2]!) : 0;
  if (v4 === null) return null;
  const halves = (dotted ? `${dotted[1]}${(v4 >>> 16).toString(16)}:${(v4 & 0xffff).toString(16)}` : text).split("::");
  if (halves.length > 2) return null;
  const [head = [], tail = []] = halves.map((half) => (half ? half.split(":") : []));
  const nr = head.length + tail.length;
  if (![...head, ...tail].every((group) => /^[0-9a-f]{1,4}$/i.test(group)) || (halves.length === 2 ? nr > 7 : nr !== 8)) return null;
  const bytes = new Uint8Array(16), view = new DataView(bytes.buffer);
  head.forEach((group, i) => view.setUint16(i * 2, Number.parseInt(group, 16)));
  tail.forEach((group, i) => view.setUint16((8 - tail.length + i) * 2, Number.parseInt(group, 16)));
  return bytes;
}
/** Do the 16 bytes at `at` of a frame hold this address? */
export function isIpv6At(bytes: Uint8Array, at: number, address: Uint8Array): boolean {
  for (let i = 0; i < 16; i++) if (bytes[at + i] !== address[i]) return false;
  return true;
}

/** A MAC out of a configuration. @throws UserError that names `what` it is for */
export function needMac(text: string, what: string): number {
  const mac = parseMac(text);
  if (mac === null || mac === 0 || isGroup(mac)) throw new UserError(`${what}: "${text}" is not the Ethernet address of one station, like 00:16:3e:01:02:03`);
  return mac;
}
