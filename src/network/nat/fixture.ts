/** For tests: virtual time, a cable that loses, doubles, turns and breaks frames, a guest with a TCP of its own that shares nothing with the router's, and an outside in memory. */
import { checksumOf, findTransport, isChecksumRight, IPPROTO, pseudoSum, sumOf, writeChecksum } from "../checksum.ts";
import { segment } from "../offload.ts";
import { connect, type Frame, type Port } from "../port.ts";
import { BROADCAST_MAC, macAt, putMac } from "./address.ts";
import type { Clock } from "./clock.ts";
import type { NatNetwork } from "./nat.ts";
import type { DatagramEvents, Outside, OutsideStream, StreamEvents, StreamFault } from "./outside.ts";

export const seeded = (seed: number) => () => { // 0 to 1
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 32;
};
export function randomBytes(seed: number, length: number): Uint8Array<ArrayBuffer> { // the same for the same seed
  const bytes = new Uint8Array(length);
  let x = seed | 1;
  for (let i = 0; i < length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x;
  }
  return bytes;
}

type Event = { atMs: number; order: number; call: () => void };
/** Time that passes when `run` says so; microtasks get their turn between events. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  /** a binary heap, earliest first */
  readonly #heap: Event[] = [];

  nowMs(): number {
    return this.#nowMs;
  }
  after(delayMs: number, call: () => void): () => void {
    const event: Event = { atMs: this.#nowMs + delayMs, order: this.#order++, call }, heap = this.#heap;
    let i = heap.push(event) - 1;
    for (let up = (i - 1) >> 1; i > 0 && isBefore(event, heap[up]!); i = up, up = (i - 1) >> 1) heap[i] = heap[up]!;
    heap[i] = event;
    return () => { event.call = () => {}; };
  }
  #pop(): Event {
    const heap = this.#heap, top = heap[0]!, last = heap.pop()!;
    if (heap.length === 0) return top;
    let i = 0;
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return top;
  }
  /** Let `forMs` pass, or less when `until` comes true. */
  async run(forMs: number, until: () => boolean = () => false): Promise<void> {
    const endMs = this.#nowMs + forMs;
    await null;
    for (let n = 0; !until() && this.#heap.length > 0 && this.#heap[0]!.atMs <= endMs; n++) {
      const event = this.#pop();
      this.#nowMs = Math.max(this.#nowMs, event.atMs);
      event.call();
      if (n % 8 === 0) await null;
    }
    if (!until()) this.#nowMs = endMs;
    await null;
  }
}
const isBefore = (a: Event, b: Event): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

/** What the cable does to frames, each a share of them. */
export type Faults = { readonly loss?: number; readonly twice?: number; readonly late?: number; readonly broken?: number };
/** How the guest and its cable are. */
export type GuestOptions = {
  readonly mac?: number; readonly address?: number; readonly gso?: boolean; readonly blank?: boolean; readonly faults?: Faults; readonly seed?: number;
  readonly windowBytes?: number; readonly shift?: number; readonly mss?: number; readonly forgetsOutOfOrder?: boolean; /** the guest's end says "full" for this share of frames */ readonly full?: number;
};
const FIN = 1, SYN = 2, RST = 4, ACK = 16, RTO_MS = 300;

/** A guest's side of a connection. */
export class SimTcp {
  readonly guest: SimGuest;
  readonly port: number;
  readonly remote: number;
  readonly remotePort: number;
  state: "opening" | "open" | "closed" = "opening";
  /** how it ended, or null */
  end: "closed" | "reset" | "icmp" | null = null;
  isReading = true;
  hasPeerEnded = false;
  readonly received: Uint8Array[] = [];
  receivedBytes = 0;
  unreadBytes = 0;
  onData: ((bytes: Uint8Array) => void) | null = null;
  readonly isActive: boolean;
  /** bytes that are not acknowledged, at the end of a store that grows to twice its need */
  #out = new Uint8Array(0);
  #wantsEnd = false;
  readonly #iss: number;
  #una: number;
  #nxt: number;
  #isFinSent = false;
  #isFinAcked = false;
  #peerWindow = 0;
  #peerShift = 0;
  #ownShift: number;
  #peerMss = 536;
  rcvNxt = 0;
  readonly #early = new Map<number, Uint8Array>();
  #cancelTimer: (() => void) | null = null;

  constructor(guest: SimGuest, port: number, remote: number, remotePort: number, isActive: boolean) {
    this.guest = guest;
    this.port = port;
    this.remote = remote;
    this.remotePort = remotePort;
    this.isActive = isActive;
    this.#iss = this.#una = this.#nxt = Math.floor(guest.random() * 2 ** 32) | 0;
    this.#ownShift = guest.options.shift ?? 4;
    if (isActive) this.#syn();
  }
  #syn(): void {
    this.#nxt = (this.#iss + 1) | 0;
    this.#send(this.isActive ? SYN : SYN | ACK, this.#iss, new Uint8Array(0), [2, 4, this.guest.mss >>> 8, this.guest.mss & 255, 1, 3, 3, this.#ownShift]);
    this.#timer();
  }
  #timer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.guest.clock.after(RTO_MS, () => {
      this.#cancelTimer = null;
      if (this.state === "closed") return;
      if (this.state === "opening") return this.#syn();
      this.#nxt = this.#una;
      this.#isFinSent = false;
      this.#push(true);
    });
  }
  write(bytes: Uint8Array): void {
    const out = this.#out, length = out.length + bytes.length;
    if (out.byteOffset + length <= out.buffer.byteLength) this.#out = new Uint8Array(out.buffer, out.byteOffset, length);
    else {
      this.#out = new Uint8Array(new ArrayBuffer(2 * length), 0, length);
      this.#out.set(out);
    }
    this.#out.set(bytes, length - bytes.length);
    this.#push(false);
  }
  close(): void {
    this.#wantsEnd = true;
    this.#push(false);
  }
  abort(): void {
    this.#send(RST | ACK, this.#nxt, new Uint8Array(0));
    this.#over("reset");
  }
  read(isReading: boolean): void {
    this.isReading = isReading;
    if (!isReading) return;
    this.unreadBytes = 0;
    this.#send(ACK, this.#nxt, new Uint8Array(0));
  }
  get unsentBytes(): number {
    return this.#out.length;
  }
  /** the number of the next byte it would send */
  get next(): number {
    return this.#nxt;
  }
  #over(how: "closed" | "reset" | "icmp"): void {
    this.end ??= how;
    this.state = "closed";
    this.#cancelTimer?.();
    if (how === "closed") this.guest.clock.after(2000, () => this.guest.forget(this));
    else this.guest.forget(this);
  }
  unreachable(): void {
    if (this.state === "opening") this.#over("icmp");
  }
  #push(isTimeout: boolean): void {
    if (this.state !== "open" || this.#isFinAcked) return;
    const limit = Math.min(this.#peerWindow, 256 << 10), size = this.guest.options.gso ? Math.max(1, Math.floor(60_000 / this.#peerMss)) * this.#peerMss : this.#peerMss;
    for (;;) {
      const offset = (this.#nxt - this.#una) | 0, left = this.#out.length - offset;
      let n = Math.min(size, left, Math.max(0, limit - offset));
      if (n <= 0 && left > 0 && isTimeout && offset === 0) n = 1;
      if (n <= 0) break;
      isTimeout = false;
      const seq = this.#nxt;
      this.#nxt = (this.#nxt + n) | 0;
      this.#send(ACK, seq, this.#out.slice(offset, offset + n));
    }
    if (this.#wantsEnd && !this.#isFinSent && ((this.#nxt - this.#una) | 0) === this.#out.length) {
      this.#isFinSent = true;
      const seq = this.#nxt;
      this.#nxt = (this.#nxt + 1) | 0;
      this.#send(FIN | ACK, seq, new Uint8Array(0));
    }
    if ((this.#out.length > 0 || this.#isFinSent) && !this.#cancelTimer) this.#timer();
  }
  #send(flags: number, seq: number, data: Uint8Array, options: number[] = []): void {
    const free = Math.max(0, (this.guest.options.windowBytes ?? 256 << 10) - this.unreadBytes), window = Math.min(65535, flags & SYN ? free : free >>> this.#ownShift);
    this.guest.sendTcp(this.port, this.remote, this.remotePort, flags, seq, flags & ACK ? this.rcvNxt : 0, window, options, data, data.length > this.#peerMss ? this.#peerMss : 0);
  }
  receive(bytes: Uint8Array, view: DataView, at: number, end: number): void {
    const seq = view.getInt32(at + 4), ack = view.getInt32(at + 8), flags = bytes[at + 13]!, dataAt = at + (bytes[at + 12]! >>> 4) * 4;
    if (this.state === "closed") {
      if (!(flags & RST) && (flags & FIN || end > dataAt)) this.#send(ACK, this.#nxt, new Uint8Array(0));
      return;
    }
    if (flags & RST) {
      const isRight = this.state === "opening" && this.isActive ? flags & ACK && ack === this.#nxt : seq === this.rcvNxt;
      if (isRight) this.#over("reset");
      return;
    }
    if (this.state === "opening") {
      if (flags & SYN) {
        if (this.isActive && ack !== this.#nxt) return;
        let hasShift = false;
        for (let o = at + 20; o < dataAt; o += bytes[o]! <= 1 ? 1 : bytes[o + 1]!) {
          if (bytes[o] === 2) this.#peerMss = view.getUint16(o + 2);
          if (bytes[o] === 3) {
            hasShift = true;
            this.#peerShift = bytes[o + 2]!;
          }
        }
        if (!hasShift) this.#ownShift = 0;
        this.rcvNxt = (seq + 1) | 0;
        this.#peerWindow = view.getUint16(at + 14);
        if (!this.isActive) return this.#syn();
      } else if (this.isActive || ack !== this.#nxt) return;
      this.#cancelTimer?.();
      this.#cancelTimer = null;
      this.state = "open";
      this.#una = ack;
      if (flags & SYN) {
        this.#send(ACK, this.#nxt, new Uint8Array(0));
        return this.#push(false);
      }
    } else if (flags & SYN) return this.#send(ACK, this.#nxt, new Uint8Array(0));
    if (flags & ACK && ((ack - this.#una) | 0) >= 0 && ((ack - this.#una) | 0) <= this.#out.length + 1) {
      const news = (ack - this.#una) | 0;
      if (news > this.#out.length && this.#wantsEnd) this.#isFinAcked = true;
      if (news > 0) {
        this.#out = this.#out.subarray(Math.min(news, this.#out.length));
        this.#una = ack;
        if (((this.#nxt - ack) | 0) < 0) this.#nxt = ack;
        this.#cancelTimer?.();
        this.#cancelTimer = null;
      }
      this.#peerWindow = view.getUint16(at + 14) << this.#peerShift;
      this.#push(false);
    }
    const isOld = dataAt === end && ((seq - this.rcvNxt) | 0) < 0, isOver = this.unreadBytes + end - dataAt > (this.guest.options.windowBytes ?? 256 << 10);
    if (isOld || (isOver && end > dataAt)) this.#send(ACK, this.#nxt, new Uint8Array(0));
    else if (dataAt < end || flags & FIN) this.#take(seq, bytes.slice(dataAt, end), (flags & FIN) !== 0);
    if (this.hasPeerEnded && this.#isFinAcked) this.#over("closed");
  }
  #take(seq: number, data: Uint8Array, hasFin: boolean): void {
    const offset = (this.rcvNxt - seq) | 0;
    if (offset < 0) {
      if (!this.guest.options.forgetsOutOfOrder && !hasFin && data.length) this.#early.set(seq, data);
    } else if (offset <= data.length) {
      this.#deliver(data.subarray(offset));
      for (let more = this.#early.get(this.rcvNxt); more; more = this.#early.get(this.rcvNxt)) {
        this.#early.delete(this.rcvNxt);
        this.#deliver(more);
      }
      if (hasFin && !this.hasPeerEnded && ((seq + data.length - this.rcvNxt) | 0) === 0) {
        this.rcvNxt = (this.rcvNxt + 1) | 0;
        this.hasPeerEnded = true;
      }
    }
    this.#send(ACK, this.#nxt, new Uint8Array(0));
  }
  #deliver(data: Uint8Array): void {
    if (data.length === 0) return;
    this.rcvNxt = (this.rcvNxt + data.length) | 0;
    this.received.push(data);
    this.receivedBytes += data.length;
    if (!this.isReading) this.unreadBytes += data.length;
    this.onData?.(data);
  }
}
/** Chunks as one. */
export function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(chunks.reduce((sum, c) => sum + c.length, 0));
  let at = 0;
  for (const c of chunks) {
    all.set(c, at);
    at += c.length;
  }
  return all;
}

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
  readonly random: () => number;
  readonly mss: number;
  readonly routerMac: number;
  readonly tcps = new Map<string, SimTcp>();
  readonly listening = new Map<number, (tcp: SimTcp) => void>();
  /** IP packets that are not TCP, and ARP frames, as they came */
  readonly others: Uint8Array[] = [];
  onUdp: ((source: number, sourcePort: number, port: number, data: Uint8Array) => void) | null = null;
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
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), to = macAt(view, 0);
    if (to !== this.mac && to !== BROADCAST_MAC) return;
    if (view.getUint16(12) === 0x0806) {
      this.others.push(bytes);
      if (view.getUint16(20) === 1 && view.getUint32(38) === this.address) this.arp(2, macAt(view, 22), view.getUint32(28));
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
  #tcp(bytes: Uint8Array, view: DataView, at: number, end: number): void {
    const remote = view.getUint32(26), remotePort = view.getUint16(at), port = view.getUint16(at + 2), flags = bytes[at + 13]!, key = `${port} ${remote} ${remotePort}`;
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
  connectTcp(remote: number, remotePort: number, port = this.#nextPort++): SimTcp {
    const tcp = new SimTcp(this, port, remote, remotePort, true);
    this.tcps.set(`${port} ${remote} ${remotePort}`, tcp);
    return tcp;
  }

  // ---- frames out

  send(bytes: Uint8Array<ArrayBuffer>, checksum: Frame["checksum"] = "unknown", mss = 0): void {
    const frame: Frame = { bytes, checksum, gso: mss ? { type: "tcpv4", mss } : null };
    this.capture?.push(frame);
    this.#through(frame, (f) => this.peer?.receive(f));
  }
  ip(protocol: number, remote: number, payload: Uint8Array, { ttl = 64, id = 0, fragment = 0, source = this.address, mac = this.routerMac } = {}): Uint8Array<ArrayBuffer> {
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
  sendTcp(port: number, remote: number, remotePort: number, flags: number, seq: number, ack: number, window: number, options: number[], data: Uint8Array, mss: number): void {
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
  udpFrame(remote: number, remotePort: number, port: number, data: Uint8Array, more: Parameters<SimGuest["ip"]>[3] = {}): Uint8Array<ArrayBuffer> {
    const payload = new Uint8Array(8 + data.length), view = new DataView(payload.buffer);
    view.setUint16(0, port);
    view.setUint16(2, remotePort);
    view.setUint16(4, payload.length);
    payload.set(data, 8);
    const bytes = this.ip(IPPROTO.udp, remote, payload, more), t = findTransport(bytes);
    if (t) writeChecksum(bytes, t);
    return bytes;
  }
  udp(remote: number, remotePort: number, port: number, data: Uint8Array): void {
    this.send(this.udpFrame(remote, remotePort, port, data));
  }
  echo(remote: number, data: Uint8Array, ttl = 64): void {
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

/** A stream outside, seen from the peer's side. */
export class FakeStream implements OutsideStream {
  readonly address: string;
  readonly port: number;
  readonly received: Uint8Array[] = [];
  receivedBytes = 0;
  hasEnded = false;
  isAborted = false;
  isPaused = false;
  unsentBytes = 0;
  /** what a write that waits costs beside its bytes */
  costPerWrite = 0;
  nrWrites = 0;
  onData: ((bytes: Uint8Array) => void) | null = null;
  onEnd: (() => void) | null = null;
  events: StreamEvents | null = null;
  /** whether the peer takes bytes; what it does not take stays unsent */
  isReading = true;
  /** false: what is written waits for the connection */
  isConnected = true;
  #hasPeerEnded = false;
  #isEndTold = false;
  readonly #stuck: Uint8Array[] = [];
  #waiting: Uint8Array[] = [];
  readonly #clock: VirtualClock;

  constructor(clock: VirtualClock, address: string, port: number) {
    this.#clock = clock;
    this.address = address;
    this.port = port;
  }
  write(bytes: Uint8Array): void {
    this.unsentBytes += bytes.length + this.costPerWrite;
    this.nrWrites++;
    this.#stuck.push(bytes);
    if (this.isReading && this.isConnected) this.#clock.after(0.05, () => this.read(this.isReading));
  }
  /** Let the peer take what is there, or stop. */
  read(isReading: boolean): void {
    this.isReading = isReading;
    if (!isReading || this.#stuck.length === 0) return;
    for (const bytes of this.#stuck.splice(0)) {
      this.unsentBytes -= bytes.length + this.costPerWrite;
      this.received.push(bytes);
      this.receivedBytes += bytes.length;
      this.onData?.(bytes);
    }
    this.events?.drained();
    if (this.hasEnded) this.#ended();
  }
  end(): void {
    this.hasEnded = true;
    if (this.#stuck.length === 0) this.#ended();
  }
  #ended(): void {
    this.#clock.after(0, () => {
      this.onEnd?.();
      this.#closeIfDone();
    });
  }
  #closeIfDone(): void {
    if (!this.hasEnded || !this.#isEndTold || this.isAborted || this.#stuck.length > 0) return;
    this.isAborted = true;
    this.events?.closed(null);
  }
  abort(): void {
    this.isAborted = true;
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
    this.#clock.after(0, () => this.#flush());
  }
  #flush(): void {
    while (!this.isPaused && !this.isAborted && this.#waiting.length > 0) this.events?.data(this.#waiting.shift()!);
    if (this.#waiting.length === 0 && this.#hasPeerEnded && !this.isPaused && !this.isAborted) {
      if (!this.#isEndTold) this.events?.ended();
      this.#isEndTold = true;
      this.#closeIfDone();
    }
  }
  /** The peer writes. */
  say(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    if (!this.isPaused) this.#flush();
  }
  get unreadBytes(): number {
    return this.#waiting.reduce((sum, b) => sum + b.length, 0);
  }
  /** The peer will write no more. */
  finish(): void {
    this.#hasPeerEnded = true;
    if (!this.isPaused) this.#flush();
  }
  fail(fault: StreamFault): void {
    if (this.isAborted) return;
    this.isAborted = true;
    this.events?.closed(fault);
  }
}

/** An outside in memory: `onConnect` plays the servers; datagrams come back to whoever `onDatagram` says. */
export class FakeOutside implements Outside {
  readonly clock: VirtualClock;
  readonly streams = new Set<FakeStream>();
  onConnect: (stream: FakeStream) => void = (s) => s.fail("refused");
  onDatagram: (bytes: Uint8Array, address: string, port: number, back: (bytes: Uint8Array, address?: string, port?: number) => void) => void = () => {};
  accepts = new Map<string, (stream: OutsideStream) => StreamEvents | null>();
  boundUdp = new Map<string, DatagramEvents>();
  sentByBound: { bytes: Uint8Array; address: string; port: number }[] = [];
  resolverList = [{ address: "192.0.2.53", port: 53 }];
  nrUdpOpen = 0;

  constructor(clock: VirtualClock) {
    this.clock = clock;
  }
  connectTcp(address: string, port: number, events: StreamEvents): OutsideStream {
    const stream = new FakeStream(this.clock, address, port);
    stream.events = events;
    stream.isConnected = false;
    this.streams.add(stream);
    this.clock.after(0.1, () => {
      if (stream.isAborted) return;
      this.onConnect(stream);
      stream.isConnected = true;
      stream.read(stream.isReading);
    });
    return stream;
  }
  openUdp(events: DatagramEvents) {
    let isOpen = true;
    this.nrUdpOpen++;
    return {
      send: (bytes: Uint8Array, address: string, port: number) => {
        this.clock.after(0.1, () => this.onDatagram(bytes, address, port, (b, a = address, p = port) => {
          if (isOpen) events.datagram(b, a, p);
        }));
      },
      close: () => {
        if (isOpen) this.nrUdpOpen--;
        isOpen = false;
      },
    };
  }
  async listenTcp(address: string, port: number, accept: (stream: OutsideStream) => StreamEvents | null) {
    this.accepts.set(`${address}:${port}`, accept);
    return { address, port, close: () => { this.accepts.delete(`${address}:${port}`); } };
  }
  /** A client of the host's connects to a forward. */
  come(at: string): FakeStream {
    const stream = new FakeStream(this.clock, "127.0.0.1", 50000);
    stream.isPaused = true;
    stream.events = this.accepts.get(at)!(stream);
    if (!stream.events) stream.isAborted = true;
    return stream;
  }
  async bindUdp(address: string, port: number, events: DatagramEvents) {
    this.boundUdp.set(`${address}:${port}`, events);
    return {
      address, port, close: () => { this.boundUdp.delete(`${address}:${port}`); },
      send: (bytes: Uint8Array, to: string, toPort: number) => { this.sentByBound.push({ bytes, address: to, port: toPort }); },
    };
  }
  resolvers() {
    return this.resolverList;
  }
}
