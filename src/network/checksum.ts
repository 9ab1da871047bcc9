/**
 * The internet checksum (RFC 1071), where it stands in a frame, and how a blank one is completed. Sums are ones' complement sums of big-endian 16-bit
 * words, folded to 16 bits; a checksum is the complement of a sum.
 */
import type { Frame } from "./port.ts";

/** Ethernet types that are looked into. IEEE 802 numbers */
export const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806, rarp: 0x8035, vlan: 0x8100, ipv6: 0x86dd, serviceVlan: 0x88a8 } as const;
/** Protocols over IP. IANA protocol numbers */
export const IPPROTO = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58 } as const;
const EXTENSION = { hopByHop: 0, routing: 43, fragment: 44, destination: 60 } as const;

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
/** Two accumulators of 16-bit halves stay below 2^31 for this many 32-bit words. */
const WORDS_A_TURN = 32768;
/** Below this the views cost more than the bytes. */
const SHORT_BYTES = 64;

const swapped = (sum: number): number => ((sum & 0xff) << 8) | (sum >>> 8);
const folded = (sum: number): number => {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
};

/**
 * The sum of bytes `from` to `to`, a last odd byte padded with zero, on top of `sum`, which is a folded sum of an even number of bytes.
 * `bytes` may lie at any address. @returns 0 to 0xffff
 */
export function sumOf(bytes: Uint8Array, from: number, to: number, sum = 0): number {
  if (to - from >= SHORT_BYTES) return sumOfMany(bytes, from, to, sum);
  const even = to - ((to - from) & 1);
  for (let i = from; i < even; i += 2) sum += (bytes[i]! << 8) | bytes[i + 1]!;
  if (even < to) sum += bytes[even]! << 8;
  return folded(sum);
}
/** By 32-bit words; the byte order is put right at the end, for the sum commutes with swapping (RFC 1071, 2 B). */
function sumOfMany(bytes: Uint8Array, from: number, to: number, sum: number): number {
  const start = bytes.byteOffset + from, head = (4 - (start & 3)) & 3, words = new Uint32Array(bytes.buffer, start + head, (to - from - head) >>> 2);
  let total = 0;
  for (let at = 0; at < words.length; ) {
    const end = Math.min(words.length, at + WORDS_A_TURN), fours = end - 3;
    let low = 0, high = 0;
    for (; at < fours; at += 4) {
      const a = words[at]!, b = words[at + 1]!, c = words[at + 2]!, d = words[at + 3]!;
      low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
      high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
    }
    for (; at < end; at++) {
      low += words[at]! & 0xffff;
      high += words[at]! >>> 16;
    }
    total += folded(low) + folded(high);
  }
  total = folded(total);
  if (isLittleEndian) total = swapped(total);
  // The words began `head` bytes in: where that is odd, each of their bytes stands on the other half.
  if (head & 1) total = swapped(total);
  const tail = from + head + words.length * 4;
  for (let i = from; i < from + head; i++) total += (i - from) & 1 ? bytes[i]! : bytes[i]! << 8;
  for (let i = tail; i < to; i++) total += (i - from) & 1 ? bytes[i]! : bytes[i]! << 8;
  return folded(total + sum);
}

/** The checksum to be written for bytes whose checksum field holds zero or a pseudo header's sum. */
export const checksumOf = (bytes: Uint8Array, from: number, to: number, sum = 0): number => ~sumOf(bytes, from, to, sum) & 0xffff;
/** The checksum after one 16-bit word under it changed. RFC 1624, equation 3 */
export const updatedChecksum = (checksum: number, oldWord: number, newWord: number): number =>
  ~folded((~checksum & 0xffff) + (~oldWord & 0xffff) + newWord) & 0xffff;

/** Where a TCP or UDP packet lies in a frame; all are byte offsets into the frame, checked to lie inside it. */
export type Transport = {
  readonly version: 4 | 6;
  readonly protocol: typeof IPPROTO.tcp | typeof IPPROTO.udp;
  /** of the IP header */
  readonly ipAt: number;
  /** of the TCP or UDP header, and behind the packet's last byte: Ethernet's padding is left out */
  readonly at: number;
  readonly end: number;
  /** of the 16-bit checksum field */
  readonly checksumAt: number;
};

/** Find the TCP or UDP packet in a frame, behind up to two VLAN tags. @returns null when there is none, when it is a fragment, or when a length lies */
export function findTransport(bytes: Uint8Array): Transport | null {
  let ipAt = 14, type = (bytes[12]! << 8) | bytes[13]!;
  for (let tags = 0; tags < 2 && (type === ETHERTYPE.vlan || type === ETHERTYPE.serviceVlan); tags++, ipAt += 4) type = (bytes[ipAt + 2]! << 8) | bytes[ipAt + 3]!;
  if (type === ETHERTYPE.ipv4) {
    if (bytes.length < ipAt + 20 || bytes[ipAt]! >>> 4 !== 4) return null;
    const at = ipAt + (bytes[ipAt]! & 15) * 4, end = ipAt + ((bytes[ipAt + 2]! << 8) | bytes[ipAt + 3]!);
    if (at < ipAt + 20 || ((bytes[ipAt + 6]! & 0x3f) | bytes[ipAt + 7]!) !== 0) return null;
    return transport(bytes, 4, bytes[ipAt + 9]!, ipAt, at, end);
  }
  if (type !== ETHERTYPE.ipv6 || bytes.length < ipAt + 40 || bytes[ipAt]! >>> 4 !== 6) return null;
  const end = ipAt + 40 + ((bytes[ipAt + 4]! << 8) | bytes[ipAt + 5]!);
  let next = bytes[ipAt + 6]!, at = ipAt + 40;
  while ((next === EXTENSION.hopByHop || next === EXTENSION.routing || next === EXTENSION.destination) && at + 8 <= bytes.length) {
    next = bytes[at]!;
    at += (bytes[at + 1]! + 1) * 8;
  }
  return transport(bytes, 6, next, ipAt, at, end);
}
function transport(bytes: Uint8Array, version: 4 | 6, protocol: number, ipAt: number, at: number, end: number): Transport | null {
  if (protocol !== IPPROTO.tcp && protocol !== IPPROTO.udp) return null;
  const isTcp = protocol === IPPROTO.tcp;
  if (end > bytes.length || at + (isTcp ? 20 : 8) > end) return null;
  return { version, protocol, ipAt, at, end, checksumAt: at + (isTcp ? 16 : 6) };
}

/** The sum of the pseudo header that TCP's, UDP's and ICMPv6's checksums cover (RFC 9293 3.1, RFC 8200 8.1), for a packet of `lengthBytes`. */
export function pseudoSum(bytes: Uint8Array, t: Pick<Transport, "version" | "ipAt"> & { readonly protocol: number }, lengthBytes: number): number {
  const addresses = t.version === 4 ? sumOf(bytes, t.ipAt + 12, t.ipAt + 20) : sumOf(bytes, t.ipAt + 8, t.ipAt + 40);
  return folded(addresses + t.protocol + (lengthBytes & 0xffff) + (lengthBytes >>> 16));
}

/** Whether a packet's checksum is right. UDP's absent one over IPv4 is. */
export function isChecksumRight(bytes: Uint8Array, t: Transport): boolean {
  if (t.protocol === IPPROTO.udp && t.version === 4 && bytes[t.checksumAt] === 0 && bytes[t.checksumAt + 1] === 0) return true;
  return sumOf(bytes, t.at, t.end, pseudoSum(bytes, t, t.end - t.at)) === 0xffff;
}

/** Write a packet's checksum, whatever stands in its field. */
export function writeChecksum(bytes: Uint8Array, t: Transport): void {
  bytes[t.checksumAt] = bytes[t.checksumAt + 1] = 0;
  const checksum = checksumOf(bytes, t.at, t.end, pseudoSum(bytes, t, t.end - t.at)) || (t.protocol === IPPROTO.udp ? 0xffff : 0);
  bytes[t.checksumAt] = checksum >>> 8;
  bytes[t.checksumAt + 1] = checksum & 0xff;
}

/**
 * The frame with its blank checksum completed, in a copy; any other frame as it is. What the field held is not believed but summed anew. A frame that
 * says `blank` and is neither TCP nor UDP, or a fragment, comes back with its bytes as they are and `unknown`. Frames with `gso` are cut instead (offload.ts).
 */
export function completed(frame: Frame): Frame {
  if (frame.checksum !== "blank" || frame.gso) return frame;
  const t = findTransport(frame.bytes);
  if (!t) return { bytes: frame.bytes, checksum: "unknown", gso: null };
  const bytes = frame.bytes.slice();
  writeChecksum(bytes, t);
  return { bytes, checksum: "good", gso: null };
}
