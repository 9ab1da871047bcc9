/** TCP segments as bytes (RFC 9293 3.1): their header written, their options read. */
import { checksumOf, IPPROTO } from "../checksum.ts";
import type { Address } from "./address.ts";
import { newPacket, type Packet, payloadAt, pseudoSumOf } from "./packet.ts";

/** Control bits. RFC 9293 3.1 */
export const TCP = { FIN: 0x01, SYN: 0x02, RST: 0x04, PSH: 0x08, ACK: 0x10 } as const;
const OPTION = { end: 0, nop: 1, mss: 2, windowScale: 3 } as const;
const HEADER_BYTES = 20, MSS_DEFAULT = 536, SHIFT_MAX = 14 /* RFC 7323 2.3 */;

/** What a segment of ours says; sequence numbers are 32 bits, signed or not. */
export type SegmentHeader = {
  readonly source: Address;
  readonly sourcePort: number;
  readonly destination: Address;
  readonly port: number;
  readonly seq: number;
  /** written only with ACK */
  readonly ack: number;
  readonly flags: number;
  /** as it stands in the field */
  readonly window: number;
  /** a multiple of 4 bytes */
  readonly options: readonly number[];
};

/** A frame with room for `nBytes` of payload from `payloadAt` on. The checksum is to be written by `finishSegment`. */
export function newSegment(s: SegmentHeader, nBytes: number): { bytes: Uint8Array<ArrayBuffer>; payloadAt: number } {
  const headerBytes = HEADER_BYTES + s.options.length, bytes = newPacket(s.source, s.destination, IPPROTO.tcp, headerBytes + nBytes), at = payloadAt(bytes);
  const ack = s.flags & TCP.ACK ? s.ack : 0;
  bytes[at] = s.sourcePort >>> 8;
  bytes[at + 1] = s.sourcePort;
  bytes[at + 2] = s.port >>> 8;
  bytes[at + 3] = s.port;
  for (let i = 0; i < 4; i++) {
    bytes[at + 4 + i] = s.seq >>> (24 - 8 * i);
    bytes[at + 8 + i] = ack >>> (24 - 8 * i);
  }
  bytes[at + 12] = headerBytes << 2;
  bytes[at + 13] = s.flags;
  bytes[at + 14] = s.window >>> 8;
  bytes[at + 15] = s.window;
  if (s.options.length) bytes.set(s.options, at + HEADER_BYTES);
  return { bytes, payloadAt: at + headerBytes };
}
/** Write the checksum of a segment that newSegment made; only the pseudo header's sum when it is to stay blank. */
export function finishSegment(bytes: Uint8Array, isBlank: boolean): void {
  const at = payloadAt(bytes), pseudo = pseudoSumOf(bytes, IPPROTO.tcp);
  const sum = isBlank ? pseudo : checksumOf(bytes, at, bytes.length, pseudo);
  bytes[at + 16] = sum >>> 8;
  bytes[at + 17] = sum;
}

/** The options for a SYN of ours. @param shift of our window; 0: none is offered */
export const synOptions = (mss: number, shift: number): number[] =>
  [OPTION.mss, 4, mss >>> 8, mss & 255, ...(shift > 0 ? [OPTION.nop, OPTION.windowScale, 3, shift] : [])];
/** What a guest's SYN offers; `shift` is null without the option. The header's length must have been checked. */
export function readSynOptions(p: Packet): { mss: number; shift: number | null } {
  const end = p.at + (p.bytes[p.at + 12]! >>> 4) * 4;
  let mss = MSS_DEFAULT, shift: number | null = null;
  for (let at = p.at + HEADER_BYTES; at < end; ) {
    const kind = p.bytes[at]!, length = kind === OPTION.end || kind === OPTION.nop ? 1 : p.bytes[at + 1]!;
    if (kind === OPTION.end || length < (kind === OPTION.nop ? 1 : 2) || at + length > end) break;
    if (kind === OPTION.mss && length === 4) mss = p.view.getUint16(at + 2);
    if (kind === OPTION.windowScale && length === 3) shift = Math.min(SHIFT_MAX, p.bytes[at + 2]!);
    at += length;
  }
  return { mss, shift };
}

/** The reset that answers a segment without a connection. RFC 9293 3.10.7.1 */
export function resetFor(p: Packet, seq: number, ack: number, flags: number, dataAt: number): Uint8Array<ArrayBuffer> {
  const hasAck = (flags & TCP.ACK) !== 0, next = seq + p.end - dataAt + (flags & TCP.SYN ? 1 : 0) + (flags & TCP.FIN ? 1 : 0);
  const { bytes } = newSegment({
    source: p.destination, sourcePort: p.view.getUint16(p.at + 2), destination: p.source, port: p.view.getUint16(p.at),
    seq: hasAck ? ack : 0, ack: next | 0, flags: hasAck ? TCP.RST : TCP.RST | TCP.ACK, window: 0, options: [],
  }, 0);
  finishSegment(bytes, false);
  return bytes;
}
