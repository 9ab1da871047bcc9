/** IPv4's header (RFC 791): a guest's checked and read, ours written, and large packets of ours cut. */
import { checksumOf, sumOf } from "../checksum.ts";
import type { Frame } from "../port.ts";
import type { Packet } from "./packet.ts";

const IP_AT = 14, IP_BYTES = 20, PAYLOAD_AT = IP_AT + IP_BYTES;
const MORE_FRAGMENTS = 0x2000, OFFSET_MASK = 0x1fff, DONT_FRAGMENT = 0x4000;
/** Bytes behind the header at most. */
export const IPV4_PAYLOAD_MAX = 65535 - IP_BYTES;

/** Read the IPv4 packet in a frame. @returns a word for what is wrong with it instead */
export function readIpv4(frame: Frame, view: DataView, mac: number): Packet | "short" | "header" | "checksum" {
  const { bytes } = frame, ipAt = IP_AT;
  if (bytes.length < PAYLOAD_AT) return "short";
  const headerBytes = (bytes[ipAt]! & 15) * 4, totalBytes = view.getUint16(ipAt + 2), word = view.getUint16(ipAt + 6);
  if (bytes[ipAt]! >>> 4 !== 4 || headerBytes < IP_BYTES || totalBytes < headerBytes) return "header";
  if (ipAt + totalBytes > bytes.length) return "short";
  if (sumOf(bytes, ipAt, ipAt + headerBytes) !== 0xffff) return "checksum";
  return {
    version: 4, bytes, view, ipAt, at: ipAt + headerBytes, end: ipAt + totalBytes, source: view.getUint32(ipAt + 12), destination: view.getUint32(ipAt + 16),
    protocol: bytes[ipAt + 9]!, protocolAt: ipAt + 9, ttl: bytes[ipAt + 8]!, mac, checksum: frame.checksum, gso: frame.gso,
    fragment: (word & (MORE_FRAGMENTS | OFFSET_MASK)) === 0 ? null : { id: view.getUint16(ipAt + 4), from: (word & OFFSET_MASK) * 8, isLast: (word & MORE_FRAGMENTS) === 0 },
  };
}

/** A frame with room for `payloadBytes` behind an IPv4 header with its checksum. */
export function newIpv4(source: number, destination: number, protocol: number, payloadBytes: number, id = 0, fragment = DONT_FRAGMENT): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(PAYLOAD_AT + payloadBytes), total = IP_BYTES + payloadBytes;
  bytes[12] = 0x08;
  bytes[14] = 0x45;
  bytes[16] = total >>> 8;
  bytes[17] = total;
  bytes[18] = id >>> 8;
  bytes[19] = id;
  bytes[20] = fragment >>> 8;
  bytes[21] = fragment;
  bytes[22] = 64;
  bytes[23] = protocol;
  putAddress(bytes, 26, source);
  putAddress(bytes, 30, destination);
  const checksum = checksumOf(bytes, IP_AT, PAYLOAD_AT);
  bytes[24] = checksum >>> 8;
  bytes[25] = checksum;
  return bytes;
}
function putAddress(bytes: Uint8Array, at: number, address: number): void {
  bytes[at] = address >>> 24;
  bytes[at + 1] = address >>> 16;
  bytes[at + 2] = address >>> 8;
  bytes[at + 3] = address;
}

/** Cut a packet of newIpv4's for links of `mtu` bytes. */
export function fragmentedIpv4(bytes: Uint8Array<ArrayBuffer>, mtu: number, id: number): Uint8Array<ArrayBuffer>[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset), step = (mtu - IP_BYTES) & ~7, pieces: Uint8Array<ArrayBuffer>[] = [];
  for (let from = PAYLOAD_AT; from < bytes.length; from += step) {
    const to = Math.min(bytes.length, from + step), more = to < bytes.length ? MORE_FRAGMENTS : 0;
    const piece = newIpv4(view.getUint32(26), view.getUint32(30), bytes[23]!, to - from, id, more | ((from - PAYLOAD_AT) >>> 3));
    piece.set(bytes.subarray(from, to), PAYLOAD_AT);
    pieces.push(piece);
  }
  return pieces;
}
