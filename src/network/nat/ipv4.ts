/** IPv4 (RFC 791): a guest's packets checked and taken apart, fragments put together again, and large ones of ours cut. */
import { checksumOf, sumOf } from "../checksum.ts";
import type { Frame, Gso } from "../port.ts";

/** Ethernet's header, and IPv4's without options. */
export const ETHER_BYTES = 14, IP_BYTES = 20;
/** Where the transport's header is in the frames we make. */
export const TRANSPORT_AT = ETHER_BYTES + IP_BYTES;
const MORE_FRAGMENTS = 0x2000, OFFSET_MASK = 0x1fff, DONT_FRAGMENT = 0x4000;

/** A packet of a guest's, whole and checked up to its IP header. Numbers are byte offsets into `bytes`, all inside it. */
export type Packet = {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  /** of the IP header, of what it carries, and behind its end */
  readonly ipAt: number;
  readonly at: number;
  readonly end: number;
  readonly source: number;
  readonly destination: number;
  readonly protocol: number;
  readonly ttl: number;
  /** of the sender's station */
  readonly mac: number;
  readonly checksum: Frame["checksum"];
  readonly gso: Gso | null;
  /** a piece, to be given to Reassembly */
  readonly isFragment: boolean;
};

/** Read the IPv4 packet in a frame. @returns a word for what is wrong with it instead */
export function readPacket(frame: Frame, view: DataView, mac: number): Packet | "short" | "header" | "checksum" {
  const { bytes } = frame, ipAt = ETHER_BYTES;
  if (bytes.length < TRANSPORT_AT) return "short";
  const headerBytes = (bytes[ipAt]! & 15) * 4, totalBytes = view.getUint16(ipAt + 2), fragment = view.getUint16(ipAt + 6);
  if (bytes[ipAt]! >>> 4 !== 4 || headerBytes < IP_BYTES || totalBytes < headerBytes) return "header";
  if (ipAt + totalBytes > bytes.length) return "short";
  if (sumOf(bytes, ipAt, ipAt + headerBytes) !== 0xffff) return "checksum";
  return {
    bytes, view, ipAt, at: ipAt + headerBytes, end: ipAt + totalBytes, source: view.getUint32(ipAt + 12), destination: view.getUint32(ipAt + 16),
    protocol: bytes[ipAt + 9]!, ttl: bytes[ipAt + 8]!, mac, checksum: frame.checksum, gso: frame.gso, isFragment: (fragment & (MORE_FRAGMENTS | OFFSET_MASK)) !== 0,
  };
}

/** A frame with room for `payloadBytes` behind an IPv4 header that is written; the Ethernet addresses are not. Its checksum is. */
export function newPacket(source: number, destination: number, protocol: number, payloadBytes: number, id = 0, fragment = DONT_FRAGMENT): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(TRANSPORT_AT + payloadBytes), total = IP_BYTES + payloadBytes;
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
  const checksum = checksumOf(bytes, ETHER_BYTES, TRANSPORT_AT);
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

/** Cut a packet that newPacket made, whose transport's checksum is whole, for links of `mtu` bytes. */
export function fragmented(bytes: Uint8Array<ArrayBuffer>, mtu: number, id: number): Uint8Array<ArrayBuffer>[] {
  if (bytes.length - ETHER_BYTES <= mtu) return [bytes];
  const view = new DataView(bytes.buffer, bytes.byteOffset), step = (mtu - IP_BYTES) & ~7, pieces: Uint8Array<ArrayBuffer>[] = [];
  for (let from = TRANSPORT_AT; from < bytes.length; from += step) {
    const to = Math.min(bytes.length, from + step), more = to < bytes.length ? MORE_FRAGMENTS : 0;
    const piece = newPacket(view.getUint32(26), view.getUint32(30), bytes[23]!, to - from, id, more | ((from - TRANSPORT_AT) >>> 3));
    piece.set(bytes.subarray(from, to), TRANSPORT_AT);
    pieces.push(piece);
  }
  return pieces;
}

const FRAGMENTS_MAX = 64, DATAGRAMS_MAX = 32, LIFE_MS = 30_000;
type Pieces = {
  readonly firstMs: number;
  readonly parts: { from: number; to: number; bytes: Uint8Array }[];
  /** of the whole, -1 until the last piece came */
  lengthBytes: number;
  gotBytes: number;
};

/**
 * Fragments on their way to be packets: at most 32 packets of at most 64 pieces, for 30 s each. A packet with pieces that overlap is dropped whole
 * (RFC 5722 says so for IPv6; no honest sender makes them).
 */
export class Reassembly {
  readonly #datagrams = new Map<string, Pieces>();

  get nrDatagrams(): number {
    return this.#datagrams.size;
  }
  /** @returns the whole packet when this piece was the last one missing */
  add(p: Packet, nowMs: number): Packet | null {
    const key = `${p.source} ${p.destination} ${p.protocol} ${p.view.getUint16(p.ipAt + 4)}`;
    for (const [old, pieces] of this.#datagrams) {
      if (nowMs - pieces.firstMs < LIFE_MS && (this.#datagrams.size < DATAGRAMS_MAX || this.#datagrams.has(key))) break;
      this.#datagrams.delete(old);
    }
    let d = this.#datagrams.get(key);
    if (!d) this.#datagrams.set(key, d = { firstMs: nowMs, parts: [], lengthBytes: -1, gotBytes: 0 });
    const word = p.view.getUint16(p.ipAt + 6), from = (word & OFFSET_MASK) * 8, to = from + p.end - p.at, isLast = (word & MORE_FRAGMENTS) === 0;
    if (d.parts.some((x) => x.from === from && x.to === to)) return null;
    const isBroken = to > 65535 - IP_BYTES || to === from || (!isLast && (to & 7) !== 0) || (isLast && d.lengthBytes >= 0)
      || (d.lengthBytes >= 0 && to > d.lengthBytes) || (isLast && d.parts.some((x) => x.to > to)) || d.parts.some((x) => from < x.to && x.from < to)
      || d.parts.length >= FRAGMENTS_MAX;
    if (isBroken) {
      this.#datagrams.delete(key);
      return null;
    }
    d.parts.push({ from, to, bytes: p.bytes.slice(p.at, p.end) });
    d.gotBytes += to - from;
    if (isLast) d.lengthBytes = to;
    if (d.gotBytes !== d.lengthBytes) return null;
    this.#datagrams.delete(key);
    const bytes = newPacket(p.source, p.destination, p.protocol, d.lengthBytes);
    bytes.set(p.bytes.subarray(0, 12));
    for (const part of d.parts) bytes.set(part.bytes, TRANSPORT_AT + part.from);
    return {
      ...p, bytes, view: new DataView(bytes.buffer), ipAt: ETHER_BYTES, at: TRANSPORT_AT, end: bytes.length, checksum: "unknown", gso: null, isFragment: false,
    };
  }
  close(): void {
    this.#datagrams.clear();
  }
}
