/** For tests: frames by hand, and a cable's end that remembers what it was sent. */
import { macText, parseIpv4, parseIpv6, parseMac } from "./address.ts";
import { checksumOf, findTransport, writeChecksum } from "./checksum.ts";
import { connect, type Frame, type Gso, type Port } from "./port.ts";

/** Bytes of numbers, texts in hexadecimal, and other bytes, one behind the other. */
export function bytesOf(...parts: readonly (number | string | Uint8Array | readonly number[])[]): Uint8Array<ArrayBuffer> {
  const flat = parts.flatMap((part) => typeof part === "number" ? [part] : typeof part === "string" ? (part.match(/../g) ?? []).map((hex) => Number.parseInt(hex, 16)) : [...part]);
  return Uint8Array.from(flat);
}
/** 16 bits in network order. */
export const be16 = (n: number): number[] => [(n >>> 8) & 0xff, n & 0xff];
const macBytes = (text: string): number[] => text.split(":").map((hex) => Number.parseInt(hex, 16));
const ipv4Bytes = (text: string): number[] => { const n = parseIpv4(text)!; return [...be16(n >>> 16), ...be16(n)]; };

/** "00:16:3e:00:00:05" of 5. */
export const macNr = (nr: number): string => macText(parseMac("00:16:3e:00:00:00")! + nr);
/** Everybody. */
export const BROADCAST = "ff:ff:ff:ff:ff:ff";
/** An ordinary frame of these bytes. */
export const plain = (bytes: Uint8Array<ArrayBuffer>): Frame => ({ bytes, checksum: "unknown", gso: null });
/** An Ethernet frame; `tags` are 802.1Q tags as 16 bits each, the outer first. */
export function ethernet(to: string, from: string, type: number, payload: Uint8Array | readonly number[] = new Uint8Array(46), tags: readonly number[] = []): Uint8Array<ArrayBuffer> {
  return bytesOf(macBytes(to), macBytes(from), ...tags.flatMap((tci) => [be16(0x8100), be16(tci)]), be16(type), payload);
}
/** An ARP packet for Ethernet and IPv4; `operation` 1 asks, 2 answers. */
export const arp = (operation: number, senderMac: string, senderIp: string, targetIp: string): Uint8Array<ArrayBuffer> =>
  bytesOf("0001080006 04".replace(" ", ""), be16(operation), macBytes(senderMac), ipv4Bytes(senderIp), [0, 0, 0, 0, 0, 0], ipv4Bytes(targetIp));
/** An IPv4 packet with its header's checksum right. `fragment` is the word of flags and offset. */
export function ipv4(from: string, to: string, protocol: number, payload: Uint8Array, fragment = 0): Uint8Array<ArrayBuffer> {
  const packet = bytesOf("4500", be16(20 + payload.length), be16(1), be16(fragment), 64, protocol, 0, 0, ipv4Bytes(from), ipv4Bytes(to), payload);
  packet.set(be16(checksumOf(packet, 0, 20)), 10);
  return packet;
}
/** An IPv6 packet; `next` says what `payload` begins with. */
export const ipv6 = (from: string, to: string, next: number, payload: Uint8Array): Uint8Array<ArrayBuffer> =>
  bytesOf("60000000", be16(payload.length), next, 255, parseIpv6(from)!, parseIpv6(to)!, payload);
/** A UDP packet without checksum. */
export const udp = (from: number, to: number, payload: Uint8Array): Uint8Array<ArrayBuffer> => bytesOf(be16(from), be16(to), be16(8 + payload.length), 0, 0, payload);
/** A TCP packet with ACK set and no checksum. */
export const tcp = (from: number, to: number, seq: number, payload: Uint8Array): Uint8Array<ArrayBuffer> =>
  bytesOf(be16(from), be16(to), be16(seq >>> 16), be16(seq), 0, 0, 0, 1, 0x50, 0x18, be16(0xffff), 0, 0, 0, 0, payload);
/** The same frame with its TCP or UDP checksum right. */
export function summed(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice();
  writeChecksum(copy, findTransport(copy)!);
  return copy;
}
/** A frame as a guest with offloads sends it. */
export const offloaded = (bytes: Uint8Array<ArrayBuffer>, gso: Gso | null = null): Frame => ({ bytes, checksum: "blank", gso });

/** A cable's end that keeps what it was sent, and has room for so much. */
export class TestEnd implements Port {
  readonly name: string;
  peer: Port | null = null;
  takesGso = false;
  takesBlankChecksum = false;
  /** frames it still takes */
  room = Infinity;
  got: Frame[] = [];
  nrReady = 0;
  onReady: () => void = () => {};
  onFrame: (frame: Frame) => void = () => {};
  constructor(name: string, other?: Port) {
    this.name = name;
    if (other) connect(this, other);
  }
  receive(frame: Frame): boolean {
    if (this.room <= 0) return false;
    this.room--;
    this.got.push(frame);
    this.onFrame(frame);
    return true;
  }
  ready(): void {
    this.nrReady++;
    this.onReady();
  }
  send(bytes: Uint8Array<ArrayBuffer>): boolean { return this.peer!.receive(plain(bytes)); }
  /** All that came since the last call, in hexadecimal. */
  take(): string[] { return this.got.splice(0).map((frame) => frame.bytes.toHex()); }
}

/** Random numbers that a seed repeats (xorshift32). */
export function seeded(seed: number): { below(n: number): number; pick<T>(from: readonly T[]): T; bytes(n: number): Uint8Array<ArrayBuffer> } {
  let x = seed >>> 0 || 1;
  const below = (n: number): number => {
    x ^= x << 13; x ^= x >>> 17; x ^= x << 5; x >>>= 0;
    return x % n;
  };
  return { below, pick: (from) => from[below(from.length)]!, bytes: (n) => Uint8Array.from({ length: n }, () => below(256)) };
}
