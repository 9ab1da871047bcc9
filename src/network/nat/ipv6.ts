/** IPv6's headers (RFC 8200): a guest's checked and read up to what they carry, ours written, and large packets of ours cut. */
import type { Frame } from "../port.ts";
import { ipv6At, isMulticast, putIpv6 } from "./address.ts";
import type { Fragment, Packet, PacketFault } from "./packet.ts";

const IP_AT = 14, IP_BYTES = 40, PAYLOAD_AT = IP_AT + IP_BYTES, FRAGMENT_BYTES = 8;
const HEADER = { hopByHop: 0, routing: 43, fragment: 44, destination: 60 } as const;
/** What stands in the place of a protocol where there is none. RFC 8200 4.7 */
export const NO_NEXT_HEADER = 59;
/** Headers that a packet may have before what it carries; no honest sender needs so many. */
const HEADERS_MAX = 8;
/** Options that fill. What is done about an unknown one is in its number's first two bits. RFC 8200 4.2 */
const OPTION = { pad1: 0, padN: 1, action: 0xc0, skip: 0x00, discard: 0x40, tell: 0x80 } as const;

/** Read the IPv6 packet in a frame. */
export function readIpv6(frame: Frame, view: DataView, mac: number): Packet | PacketFault {
  const { bytes } = frame, ipAt = IP_AT;
  if (bytes.length < PAYLOAD_AT) return "short";
  if (bytes[ipAt]! >>> 4 !== 6) return "header";
  const end = PAYLOAD_AT + view.getUint16(ipAt + 4), destination = ipv6At(view, ipAt + 24);
  if (end > bytes.length) return "short";
  let protocol = bytes[ipAt + 6]!, protocolAt = ipAt + 6, at = PAYLOAD_AT, fragment: Fragment | null = null;
  const packet = (): Packet => ({
    version: 6, bytes, view, ipAt, at, end, source: ipv6At(view, ipAt + 8), destination, protocol, protocolAt, ttl: bytes[ipAt + 7]!, mac, checksum: frame.checksum, gso: frame.gso, fragment,
  });
  for (let nr = 0; !fragment; nr++) {
    if (protocol !== HEADER.hopByHop && protocol !== HEADER.routing && protocol !== HEADER.fragment && protocol !== HEADER.destination) break;
    if (nr >= HEADERS_MAX) return "header";
    if (at + 8 > end) return "short";
    // Only right behind the IP header.
    if (protocol === HEADER.hopByHop && nr > 0) return { packet: packet(), problem: "protocol", pointer: protocolAt - ipAt };
    const lengthBytes = protocol === HEADER.fragment ? FRAGMENT_BYTES : (bytes[at + 1]! + 1) * 8;
    if (at + lengthBytes > end) return "short";
    if (protocol === HEADER.fragment) {
      const word = view.getUint16(at + 2), isLast = (word & 1) === 0, from = word & 0xfff8;
      // The only piece of its packet is no piece (RFC 6946).
      if (from !== 0 || !isLast) fragment = { id: view.getUint32(at + 4), from, isLast };
    } else if (protocol === HEADER.routing) {
      // By way of others to somewhere: we are nobody's way (RFC 5095).
      if (bytes[at + 3] !== 0) return { packet: packet(), problem: "field", pointer: at + 2 - ipAt };
    } else {
      const bad = badOption(bytes, at + 2, at + lengthBytes);
      if (bad === -1) return "header";
      if (bad !== null) {
        const action = bytes[bad]! & OPTION.action;
        return action === OPTION.discard || (action !== OPTION.tell && isMulticast(destination)) ? "header" : { packet: packet(), problem: "option", pointer: bad - ipAt };
      }
    }
    protocol = bytes[at]!;
    protocolAt = at;
    at += lengthBytes;
  }
  return packet();
}
/** @returns where the first option is that must not be skipped; -1 where they do not hold together; else null */
function badOption(bytes: Uint8Array, from: number, to: number): number | null {
  for (let at = from; at < to; ) {
    const type = bytes[at]!;
    if (type === OPTION.pad1) {
      at++;
      continue;
    }
    if (at + 2 > to || at + 2 + bytes[at + 1]! > to) return -1;
    if (type !== OPTION.padN && (type & OPTION.action) !== OPTION.skip) return at;
    at += 2 + bytes[at + 1]!;
  }
  return null;
}

/** A frame with room for `payloadBytes` behind an IPv6 header. */
export function newIpv6(source: bigint, destination: bigint, protocol: number, payloadBytes: number, hopLimit = 64): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(PAYLOAD_AT + payloadBytes), view = new DataView(bytes.buffer);
  bytes[12] = 0x86;
  bytes[13] = 0xdd;
  bytes[14] = 0x60;
  bytes[18] = payloadBytes >>> 8;
  bytes[19] = payloadBytes;
  bytes[20] = protocol;
  bytes[21] = hopLimit;
  putIpv6(view, 22, source);
  putIpv6(view, 38, destination);
  return bytes;
}

/** Cut a packet of newIpv6's for links of `mtu` bytes. */
export function fragmentedIpv6(bytes: Uint8Array<ArrayBuffer>, mtu: number, id: number): Uint8Array<ArrayBuffer>[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset), source = ipv6At(view, 22), destination = ipv6At(view, 38), step = (mtu - IP_BYTES - FRAGMENT_BYTES) & ~7;
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  for (let from = PAYLOAD_AT; from < bytes.length; from += step) {
    const to = Math.min(bytes.length, from + step), piece = newIpv6(source, destination, HEADER.fragment, FRAGMENT_BYTES + to - from, bytes[21]), out = new DataView(piece.buffer);
    piece[PAYLOAD_AT] = bytes[20]!;
    out.setUint16(PAYLOAD_AT + 2, (from - PAYLOAD_AT) | (to < bytes.length ? 1 : 0));
    out.setUint32(PAYLOAD_AT + 4, id);
    piece.set(bytes.subarray(from, to), PAYLOAD_AT + FRAGMENT_BYTES);
    pieces.push(piece);
  }
  return pieces;
}
