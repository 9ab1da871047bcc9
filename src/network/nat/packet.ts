/** IP packets of either family: a guest's as they were read (ipv4.ts, ipv6.ts), and ours as they are written. */
import { ETHERTYPE, IPPROTO, pseudoSum } from "../checksum.ts";
import type { Frame, Gso } from "../port.ts";
import type { Address } from "./address.ts";
import { fragmentedIpv4, newIpv4 } from "./ipv4.ts";
import { fragmentedIpv6, newIpv6 } from "./ipv6.ts";

/** Ethernet's header. */
export const ETHER_BYTES = 14;

/** Which piece of a packet it is; `from` is in bytes. */
export type Fragment = { readonly id: number; readonly from: number; readonly isLast: boolean };
/** A packet of a guest's, whole and checked up to what `protocol` names. Numbers are byte offsets into `bytes`, all inside it. */
export type Packet = {
  readonly version: 4 | 6;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  /** of the IP header, of what it carries, and behind its end */
  readonly ipAt: number;
  readonly at: number;
  readonly end: number;
  readonly source: Address;
  readonly destination: Address;
  /** what lies at `at`, and where that stands */
  readonly protocol: number;
  readonly protocolAt: number;
  readonly ttl: number;
  /** of the sender's station */
  readonly mac: number;
  readonly checksum: Frame["checksum"];
  readonly gso: Gso | null;
  /** not null: to be given to Reassembly */
  readonly fragment: Fragment | null;
};
/** What is wrong with a packet: it is dropped; or its sender is to be told, by ICMP's parameter problem, of a byte that lies so far behind the IP header's first. */
export type PacketFault = "short" | "header" | "checksum" | { readonly packet: Packet; readonly problem: "field" | "protocol" | "option"; readonly pointer: number };

/** A frame with room for `payloadBytes` behind an IP header that is written; the Ethernet addresses are not. Both addresses are of one family. */
export const newPacket = (source: Address, destination: Address, protocol: number, payloadBytes: number): Uint8Array<ArrayBuffer> =>
  typeof source === "number" ? newIpv4(source, destination as number, protocol, payloadBytes) : newIpv6(source, destination as bigint, protocol, payloadBytes);
const isIpv6 = (bytes: Uint8Array): boolean => bytes[12] === ETHERTYPE.ipv6 >>> 8;
/** Where the payload is in a frame that newPacket made. */
export const payloadAt = (bytes: Uint8Array): number => (isIpv6(bytes) ? 54 : 34);
/** The sum of its pseudo header. */
export const pseudoSumOf = (bytes: Uint8Array, protocol: number): number =>
  pseudoSum(bytes, { version: isIpv6(bytes) ? 6 : 4, protocol, ipAt: ETHER_BYTES }, bytes.length - payloadAt(bytes));
/** Cut a packet that newPacket made, whose transport's checksum is whole, for links of `mtu` bytes. */
export const fragmented = (bytes: Uint8Array<ArrayBuffer>, mtu: number, id: number): Uint8Array<ArrayBuffer>[] =>
  bytes.length - ETHER_BYTES <= mtu ? [bytes] : isIpv6(bytes) ? fragmentedIpv6(bytes, mtu, id) : fragmentedIpv4(bytes, mtu, id);
/** ICMP's number in the packet's family. */
export const icmpOf = (p: Pick<Packet, "version">): number => (p.version === 4 ? IPPROTO.icmp : IPPROTO.icmpv6);
