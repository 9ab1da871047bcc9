/** Fragments of guests' packets put together again. */
import { IPV4_PAYLOAD_MAX } from "./ipv4.ts";
import { readIpv6 } from "./ipv6.ts";
import { ETHER_BYTES, newPacket, type Packet, type PacketFault, payloadAt } from "./packet.ts";

const FRAGMENTS_MAX = 64, DATAGRAMS_MAX = 32, LIFE_MS = 30_000, IPV6_PAYLOAD_MAX = 65535;
type Pieces = {
  readonly firstMs: number;
  readonly parts: { from: number; to: number; bytes: Uint8Array }[];
  /** what the first piece says the whole carries */
  protocol: number;
  /** of the whole, -1 until the last piece came */
  lengthBytes: number;
  gotBytes: number;
};

/** At most 32 packets of at most 64 pieces, for 30 s each. A packet with pieces that overlap is dropped whole (RFC 5722; no honest sender makes them over IPv4 either). */
export class Reassembly {
  readonly #datagrams = new Map<string, Pieces>();

  get nrDatagrams(): number {
    return this.#datagrams.size;
  }
  /** @returns the whole packet when this piece was the last one missing, or what is wrong with the headers in it */
  add(p: Packet, nowMs: number): Packet | PacketFault | null {
    const fragment = p.fragment!, { from, isLast } = fragment, key = `${p.source} ${p.destination} ${p.version === 4 ? p.protocol : ""} ${fragment.id}`;
    for (const [old, pieces] of this.#datagrams) {
      if (nowMs - pieces.firstMs < LIFE_MS && (this.#datagrams.size < DATAGRAMS_MAX || this.#datagrams.has(key))) break;
      this.#datagrams.delete(old);
    }
    let d = this.#datagrams.get(key);
    if (!d) this.#datagrams.set(key, d = { firstMs: nowMs, parts: [], protocol: p.protocol, lengthBytes: -1, gotBytes: 0 });
    const to = from + p.end - p.at;
    if (d.parts.some((x) => x.from === from && x.to === to)) return null;
    const isBroken = to > (p.version === 4 ? IPV4_PAYLOAD_MAX : IPV6_PAYLOAD_MAX) || to === from || (!isLast && (to & 7) !== 0) || (isLast && d.lengthBytes >= 0)
      || (d.lengthBytes >= 0 && to > d.lengthBytes) || (isLast && d.parts.some((x) => x.to > to)) || d.parts.some((x) => from < x.to && x.from < to)
      || d.parts.length >= FRAGMENTS_MAX;
    if (isBroken) {
      this.#datagrams.delete(key);
      return null;
    }
    d.parts.push({ from, to, bytes: p.bytes.slice(p.at, p.end) });
    d.gotBytes += to - from;
    if (from === 0) d.protocol = p.protocol;
    if (isLast) d.lengthBytes = to;
    if (d.gotBytes !== d.lengthBytes) return null;
    this.#datagrams.delete(key);
    const bytes = newPacket(p.source, p.destination, d.protocol, d.lengthBytes), at = payloadAt(bytes), view = new DataView(bytes.buffer);
    bytes.set(p.bytes.subarray(0, 12));
    for (const part of d.parts) bytes.set(part.bytes, at + part.from);
    if (p.version === 4) return { ...p, bytes, view, ipAt: ETHER_BYTES, at, end: bytes.length, protocolAt: ETHER_BYTES + 9, checksum: "unknown", gso: null, fragment: null };
    // Headers may stand in what was cut, too; but not another fragment's.
    bytes[ETHER_BYTES + 7] = p.ttl;
    const whole = readIpv6({ bytes, checksum: "unknown", gso: null }, view, p.mac);
    return typeof whole === "object" && "fragment" in whole && whole.fragment ? "header" : whole;
  }
  close(): void {
    this.#datagrams.clear();
  }
}
