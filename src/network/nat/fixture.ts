/** For tests: a guest on a cable that loses, doubles, turns and breaks frames. */
import { checksumOf, findTransport, isChecksumRight, IPPROTO, pseudoSum, sumOf, writeChecksum } from "../checksum.ts";
import { segment } from "../offload.ts";
import { connect, type Frame, type Port } from "../port.ts";
import { isGroup, macAt } from "../address.ts";
import { type Address, BROADCAST_MAC, ipv6At, macOfGroup, madeFrom, putIpv6, putMac, solicitedNode } from "./address.ts";
import { seeded, type VirtualClock } from "./fixture-clock.ts";
import { SimTcp } from "./fixture-tcp.ts";
import type { NatNetwork } from "./nat.ts";

const FIN = 1, SYN = 2, RST = 4, ACK = 16;

/** What a router still has of TCP connections, and its timers. */
export function leftOf(nat: NatNetwork): number[] {
  const { nrTcp, nrTcpConnecting, nrTcpTimeWaits, nrTcpWaiting, tcpGrantedBytes, nrTimers } = nat.stats.now;
  return [nrTcp, nrTcpConnecting, nrTcpTimeWaits, nrTcpWaiting, tcpGrantedBytes, nrTimers];
}
/** What the cable does to frames, each a share of them. */
export type Faults = { readonly loss?: number; readonly twice?: number; readonly late?: number; readonly broken?: number };
/** How the guest and its cable are. */
export type GuestOptions = {
  readonly mac?: number; readonly address?: number; readonly address6?: bigint; readonly gso?: boolean; readonly blank?: boolean; readonly faults?: Faults; readonly seed?: number;
  readonly windowBytes?: number; readonly shift?: number; readonly mss?: number; readonly forgetsOutOfOrder?: boolean;
  /** the guest's end says "full" for this share of frames */
  readonly full?: number;
};
/** A guest on a cable to the router: it checks every checksum it is sent. */
export class SimGuest implements Port {
  readonly name = "sim";
  readonly takesGso: boolean;
  readonly takesBlankChecksum: boolean;
  peer: Port | null = null;
  readonly options: GuestOptions;
  readonly clock: VirtualClock;
  readonly mac: number;
  readonly address: number;
  /** made from its MAC in the router's network, if there is one */
  readonly address6: bigint;
  readonly linkLocal: bigint;
  readonly random: () => number;
  readonly mss: number;
  readonly routerMac: number;
  readonly tcps = new Map<string, SimTcp>();
  readonly listening = new Map<number, (tcp: SimTcp) => void>();
  /** IP packets that are not TCP, and ARP frames, as they came; and what is IPv6 */
  readonly others: Uint8Array[] = [];
  readonly others6: Uint8Array[] = [];
  /** false: it does not say where it lives */
  answersSolicitations = true;
  onUdp: ((source: Address, sourcePort: number, port: number, data: Uint8Array) => void) | null = null;
  /** all frames in both directions, when it is an array */
  capture: Frame[] | null = null;
  nrBigFrames = 0;
  readonly broken: string[] = [];
  #nextPort = 10000;

  constructor(nat: NatNetwork, clock: VirtualClock, options: GuestOptions = {}) {
    this.options = options;
    this.clock = clock;
    this.takesGso = options.gso ?? false;
    this.takesBlankChecksum = options.blank ?? options.gso ?? false;
    this.mac = options.mac ?? 0x02163e000001;
    this.address = options.address ?? 0x0a00020f;
    this.linkLocal = madeFrom(this.mac);
    this.address6 = options.address6 ?? madeFrom(this.mac, nat.v6?.network.network);
    this.random = seeded(options.seed ?? 1);
    this.mss = options.mss ?? 1460;
    this.routerMac = Number.parseInt(nat.mac.replaceAll(":", ""), 16);
    connect(this, nat.port);
  }
  ready(): void {}
  receive(frame: Frame): boolean {
    if (this.random() < (this.options.full ?? 0)) {
      this.clock.after(1, () => this.peer?.ready());
      return false;
    }
    this.#through(frame, (f) => this.#arrived(f));
    return true;
  }
  #through(frame: Frame, give: (frame: Frame) => void): void {
    const { loss = 0, twice = 0, late = 0, broken = 0 } = this.options.faults ?? {};
    if (this.random() < loss) return;
    let f = frame;
    if (this.random() < broken) {
      // On a wire that breaks bytes, checksums are on the wire too.
      const bytes = (frame.gso ? segment(frame)[0]! : frame).bytes.slice(), t = findTransport(bytes);
      if (t && frame.checksum === "blank") writeChecksum(bytes, t);
      const at = 14 + Math.floor(this.random() * (bytes.length - 14));
      bytes[at] = bytes[at]! ^ (1 << Math.floor(this.random() * 8));
      f = { bytes, checksum: "unknown", gso: null };
    }
    const delayMs = 0.2 + (this.random() < late ? 3 + this.random() * 10 : 0);
    this.clock.after(delayMs, () => give(f));
    if (this.random() < twice) this.clock.after(delayMs + this.random() * 5, () => give(f));
  }
  #arrived(frame: Frame): void {
    this.capture?.push(frame);
    if (frame.gso) {
      this.nrBigFrames++;
      for (const f of segment(frame)) this.#packet(f.bytes);
    } else {
      const bytes = frame.bytes.slice(), t = findTransport(bytes);
      if (t && frame.checksum === "blank") writeChecksum(bytes, t);
      this.#packet(bytes, frame.checksum === "unknown");
    }
  }
  #packet(bytes: Uint8Array, mayBeBroken = false): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), to = macAt(bytes, 0);
    if (view.getUint16(12) === 0x86dd && (to === this.mac || isGroup(to))) return this.#packet6(bytes, view, mayBeBroken);
    if (to !== this.mac && to !== BROADCAST_MAC) return;
    if (view.getUint16(12) === 0x0806) {
      this.others.push(bytes);
      if (view.getUint16(20) === 1 && view.getUint32(38) === this.address) this.arp(2, macAt(bytes, 22), view.getUint32(28));
      return;
    }
    const t = findTransport(bytes), isRight = sumOf(bytes, 14, 34) === 0xffff && (!t || isChecksumRight(bytes, t));
    if (!isRight) {
      if (!mayBeBroken) this.broken.push(`a frame of ${bytes.length} bytes has a wrong checksum`);
      return;
    }
    if (t?.protocol === IPPROTO.tcp) return this.#tcp(bytes, view, t.at, t.end);
    this.others.push(bytes);
    if (t?.protocol === IPPROTO.udp) this.onUdp?.(view.getUint32(26), view.getUint16(t.at), view.getUint16(t.at + 2), bytes.slice(t.at + 8, t.end));
    // ICMP unreachable about one of our SYNs
    if (bytes[23] === 1 && bytes[34] === 3 && bytes[42 + 9] === 6) this.tcps.get(`${view.getUint16(62)} ${view.getUint32(58)} ${view.getUint16(64)}`)?.unreachable();
  }
  #packet6(bytes: Uint8Array, view: DataView, mayBeBroken: boolean): void {
    const t = findTransport(bytes), end = 54 + view.getUint16(18), isIcmp = bytes[20] === 58;
    if (end > bytes.length || (t && !isChecksumRight(bytes, t)) || (isIcmp && sumOf(bytes, 54, end, pseudoSum(bytes, { version: 6, protocol: 58, ipAt: 14 }, end - 54)) !== 0xffff)) {
      if (!mayBeBroken) this.broken.push(`a frame of ${bytes.length} bytes is wrong`);
      return;
    }
    const source = ipv6At(view, 22), target = isIcmp && end >= 78 ? ipv6At(view, 62) : 0n;
    if (isIcmp && bytes[54] === 135 && this.answersSolicitations && (target === this.address6 || target === this.linkLocal)) this.advertise(source, target, macAt(bytes, 6));
    if (t?.protocol === IPPROTO.tcp) return this.#tcp(bytes, view, t.at, t.end);
    this.others6.push(bytes);
    if (t?.protocol === IPPROTO.udp) this.onUdp?.(source, view.getUint16(t.at), view.getUint16(t.at + 2), bytes.slice(t.at + 8, t.end));
    // ICMPv6 unreachable about one of our SYNs
    if (isIcmp && bytes[54] === 1 && bytes[62 + 6] === 6) this.tcps.get(`${view.getUint16(102)} ${ipv6At(view, 86)} ${view.getUint16(104)}`)?.unreachable();
  }
  #tcp(bytes: Uint8Array, view: DataView, at: number, end: number): void {
    const remote = view.getUint16(12) === 0x86dd ? ipv6At(view, 22) : view.getUint32(26), remotePort = view.getUint16(at), port = view.getUint16(at + 2), flags = bytes[at + 13]!, key = `${port} ${remote} ${remotePort}`;
    let tcp = this.tcps.get(key);
    if (!tcp && flags === SYN && this.listening.has(port)) {
      this.tcps.set(key, tcp = new SimTcp(this, port, remote, remotePort, false));
      tcp.receive(bytes, view, at, end);
      this.listening.get(port)!(tcp);
    } else if (tcp) tcp.receive(bytes, view, at, end);
    else if (!(flags & RST)) {
      const dataAt = at + (bytes[at + 12]! >>> 4) * 4, isAck = (flags & ACK) !== 0;
      const next = view.getInt32(at + 4) + end - dataAt + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0);
      this.sendTcp(port, remote, remotePort, isAck ? RST : RST | ACK, isAck ? view.getInt32(at + 8) : 0, isAck ? 0 : next, 0, [], new Uint8Array(0), 0);
    }
  }
  forget(tcp: SimTcp): void {
    const key = `${tcp.port} ${tcp.remote} ${tcp.remotePort}`;
    if (this.tcps.get(key) === tcp) this.tcps.delete(key);
  }
  connectTcp(remote: Address, remotePort: number, port = this.#nextPort++): SimTcp {
    const tcp = new SimTcp(this, port, remote, remotePort, true);
    this.tcps.set(`${port} ${remote} ${remotePort}`, tcp);
    return tcp;
  }

  // ---- frames out

  send(bytes: Uint8Array<ArrayBuffer>, checksum: Frame["checksum"] = "unknown", mss = 0): void {
    const frame: Frame = { bytes, checksum, gso: mss ? { type: bytes[12] === 0x86 ? "tcpv6" : "tcpv4", mss } : null };
    this.capture?.push(frame);
    this.#through(frame, (f) => this.peer?.receive(f));
  }
  ip(protocol: number, remote: Address, payload: Uint8Array, more: { ttl?: number; id?: number; fragment?: number; source?: Address; mac?: number } = {}): Uint8Array<ArrayBuffer> {
    const { ttl = 64, id = 0, fragment = 0, mac = this.routerMac } = more;
    if (typeof remote === "bigint") return this.ip6(protocol, remote, payload, { ttl, source: more.source as bigint | undefined, mac });
    const source = (more.source as number | undefined) ?? this.address;
    const bytes = new Uint8Array(34 + payload.length), view = new DataView(bytes.buffer);
    putMac(view, 0, mac);
    putMac(view, 6, this.mac);
    view.setUint16(12, 0x0800);
    bytes.set([0x45, 0], 14);
    view.setUint16(16, 20 + payload.length);
    view.setUint16(18, id);
    view.setUint16(20, fragment);
    bytes.set([ttl, protocol], 22);
    view.setUint32(26, source);
    view.setUint32(30, remote);
    view.setUint16(24, checksumOf(bytes, 14, 34));
    bytes.set(payload, 34);
    return bytes;
  }
  ip6(next: number, remote: bigint, payload: Uint8Array, more: { ttl?: number; source?: bigint | undefined; mac?: number } = {}): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(54 + payload.length), view = new DataView(bytes.buffer), isMany = remote >> 120n === 0xffn;
    putMac(view, 0, more.mac ?? (isMany ? macOfGroup(remote) : this.routerMac));
    putMac(view, 6, this.mac);
    view.setUint16(12, 0x86dd);
    bytes[14] = 0x60;
    view.setUint16(18, payload.length);
    bytes.set([next, more.ttl ?? 64], 20);
    putIpv6(view, 22, more.source ?? this.address6);
    putIpv6(view, 38, remote);
    bytes.set(payload, 54);
    return bytes;
  }
  /** ICMPv6 with its checksum. */
  icmp6(remote: bigint, message: Uint8Array, more: { ttl?: number; source?: bigint | undefined; mac?: number } = {}): Uint8Array<ArrayBuffer> {
    const bytes = this.ip6(58, remote, message, more), sum = checksumOf(bytes, 54, bytes.length, pseudoSum(bytes, { version: 6, protocol: 58, ipAt: 14 }, message.length));
    bytes[56] = sum >>> 8;
    bytes[57] = sum;
    return bytes;
  }
  /** A neighbour solicitation; from nobody it looks whether `target` is free. */
  solicit(target: bigint, source = this.address6, to = solicitedNode(target), linkAddress = this.mac): void {
    this.send(this.icmp6(to, neighbourMessage(135, 0, target, source === 0n ? null : [1, linkAddress]), { ttl: 255, source }));
  }
  advertise(to: bigint, target = this.address6, mac = this.routerMac, linkAddress = this.mac, flags = 0x60): void {
    this.send(this.icmp6(to, neighbourMessage(136, flags, target, [2, linkAddress]), { ttl: 255, source: target, mac }));
  }
  /** A router solicitation. */
  solicitRouter(source = this.linkLocal): void {
    this.send(this.icmp6(0xff02n << 112n | 2n, Uint8Array.of(133, 0, 0, 0, 0, 0, 0, 0), { ttl: 255, source }));
  }
  sendTcp(port: number, remote: Address, remotePort: number, flags: number, seq: number, ack: number, window: number, options: number[], data: Uint8Array, mss: number): void {
    const header = new Uint8Array(20 + options.length + data.length), view = new DataView(header.buffer);
    view.setUint16(0, port);
    view.setUint16(2, remotePort);
    view.setInt32(4, seq);
    view.setInt32(8, ack);
    header[12] = (20 + options.length) << 2;
    header[13] = flags;
    view.setUint16(14, window);
    header.set(options, 20);
    header.set(data, 20 + options.length);
    const bytes = this.ip(IPPROTO.tcp, remote, header), t = findTransport(bytes)!;
    if (mss) {
      const sum = pseudoSum(bytes, t, t.end - t.at);
      bytes[t.checksumAt] = sum >>> 8;
      bytes[t.checksumAt + 1] = sum;
    } else writeChecksum(bytes, t);
    this.send(bytes, mss ? "blank" : "unknown", mss);
  }
  udpFrame(remote: Address, remotePort: number, port: number, data: Uint8Array, more: Parameters<SimGuest["ip"]>[3] = {}): Uint8Array<ArrayBuffer> {
    const payload = new Uint8Array(8 + data.length), view = new DataView(payload.buffer);
    view.setUint16(0, port);
    view.setUint16(2, remotePort);
    view.setUint16(4, payload.length);
    payload.set(data, 8);
    const bytes = this.ip(IPPROTO.udp, remote, payload, more), t = findTransport(bytes);
    if (t) writeChecksum(bytes, t);
    return bytes;
  }
  udp(remote: Address, remotePort: number, port: number, data: Uint8Array): void {
    this.send(this.udpFrame(remote, remotePort, port, data));
  }
  echo(remote: Address, data: Uint8Array, ttl = 64): void {
    if (typeof remote === "bigint") return this.send(this.icmp6(remote, Uint8Array.from([128, 0, 0, 0, 0x12, 0x34, 0, 1, ...data]), { ttl }));
    const payload = Uint8Array.from([8, 0, 0, 0, 0x12, 0x34, 0, 1, ...data]), sum = checksumOf(payload, 0, payload.length);
    payload[2] = sum >>> 8;
    payload[3] = sum;
    this.send(this.ip(IPPROTO.icmp, remote, payload, { ttl }));
  }
  arp(operation: number, toMac: number, target: number, sender = this.address): void {
    const bytes = new Uint8Array(60), view = new DataView(bytes.buffer);
    putMac(view, 0, operation === 1 ? BROADCAST_MAC : toMac);
    putMac(view, 6, this.mac);
    bytes.set([8, 6, 0, 1, 8, 0, 6, 4, 0, operation], 12);
    putMac(view, 22, this.mac);
    view.setUint32(28, sender);
    putMac(view, 32, operation === 1 ? 0 : toMac);
    view.setUint32(38, target);
    this.send(bytes);
  }
}
/** RFC 4861 4.3, 4.4; an option's number and the address in it */
function neighbourMessage(type: number, flags: number, target: bigint, link: readonly [number, number] | null): Uint8Array {
  const bytes = new Uint8Array(link ? 32 : 24), view = new DataView(bytes.buffer);
  bytes[0] = type;
  bytes[4] = flags;
  putIpv6(view, 8, target);
  if (!link) return bytes;
  bytes.set([link[0], 1], 24);
  putMac(view, 26, link[1]);
  return bytes;
}
