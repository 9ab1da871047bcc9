/**
 * The guests' side of the router as a station on their Ethernet: ARP (RFC 826), who lives where, and frames out, which wait when the peer is full.
 */
import { ETHERTYPE } from "../checksum.ts";
import { suited } from "../offload.ts";
import type { Frame, Gso, Port } from "../port.ts";
import { isGroup, macAt, macText } from "../address.ts";
import { BROADCAST_MAC, contains, formatIpv4, putMac, type Subnet } from "./address.ts";
import { fragmented } from "./ipv4.ts";
import { Timer, type TimerWheel } from "./timers.ts";

/** Frames that wait for a full peer; beyond it they are lost, as on any wire. TCP stops at the first. */
const QUEUE_FRAMES_MAX = 512;
const NEIGHBOURS_MAX = 4096;
/** Addresses asked for by ARP at a time, packets that wait for each answer, and questions before they are given up. */
const PENDING_MAX = 64, PENDING_FRAMES_MAX = 8, ARP_TRIES = 3, ARP_RETRY_MS = 1000;
const ARP = { request: 1, reply: 2 } as const;

type Pending = { frames: Frame[]; nrTries: number; timer: Timer };

/** What the router above wants to know and says. */
export type LanOptions = {
  readonly subnet: Subnet;
  readonly mac: number;
  readonly mtu: number;
  /** addresses that are the router's */
  readonly own: readonly number[];
  /** answer for addresses of the subnet where nobody is known, too */
  readonly answersForAbsent: boolean;
  readonly wheel: TimerWheel;
  readonly port: Port;
  /** the MAC that has an address by DHCP */
  readonly holderOf: (address: number) => number | undefined;
  readonly log: (sentence: string) => void;
};

/** The station: its neighbours, its questions, its queue. */
export class Lan {
  readonly #o: LanOptions;
  readonly #neighbours = new Map<number, { mac: number; seenMs: number }>();
  readonly #pending = new Map<number, Pending>();
  #queue: Frame[] = [];
  #queueHead = 0;
  #isDraining = false;
  #id = 0;
  /** told when the queue has run empty */
  onRoom: () => void = () => {};
  /** told of an address that nobody answered for */
  onAbsent: (address: number) => void = () => {};
  nrLost = 0;
  nrSent = 0;
  /** frames whose sender used an address that is leased to another */
  nrForged = 0;

  constructor(options: LanOptions) {
    this.#o = options;
  }
  /** Whether a frame sent now goes straight to the peer. */
  get hasRoom(): boolean {
    return this.#queueHead === this.#queue.length;
  }
  get takesGso(): boolean {
    const peer = this.#o.port.peer;
    return peer?.takesGso === true && peer.takesBlankChecksum;
  }
  get takesBlankChecksum(): boolean {
    return this.#o.port.peer?.takesBlankChecksum === true;
  }
  get nrNeighbours(): number {
    return this.#neighbours.size;
  }

  /** Note that `address` lives at `mac`. @returns false when it is leased to another: what came is not to be believed */
  learn(address: number, mac: number): boolean {
    const s = this.#o.subnet;
    if (!contains(s, address) || address === s.network || address === s.broadcast || this.#o.own.includes(address) || isGroup(mac)) return false;
    const holder = this.#o.holderOf(address);
    if (holder !== undefined && holder !== mac) {
      if (this.nrForged++ < 3) this.#o.log(`${macText(mac)} speaks with ${formatIpv4(address)}, which is leased to ${macText(holder)}; it is not heard`);
      return false;
    }
    const known = this.#neighbours.get(address), seenMs = this.#o.wheel.nowMs();
    if (known) {
      known.mac = mac;
      known.seenMs = seenMs;
    } else {
      if (this.#neighbours.size >= NEIGHBOURS_MAX) this.#neighbours.delete(this.#neighbours.keys().next().value!);
      this.#neighbours.set(address, { mac, seenMs });
    }
    const pending = this.#pending.get(address);
    if (pending) {
      this.#pending.delete(address);
      this.#o.wheel.disarm(pending.timer);
      for (const frame of pending.frames) this.#sendTo(mac, frame);
    }
    return true;
  }
  /** Who was seen with `address` less than `withinMs` ago. */
  macOf(address: number, withinMs = Number.POSITIVE_INFINITY): number | undefined {
    const known = this.#neighbours.get(address);
    return known && this.#o.wheel.nowMs() - known.seenMs < withinMs ? known.mac : undefined;
  }
  /** The address that `mac` was seen with last. @returns null where it was not seen */
  addressOf(mac: number): number | null {
    let last: number | null = null, lastMs = Number.NEGATIVE_INFINITY;
    for (const [address, { mac: holder, seenMs }] of this.#neighbours) {
      if (holder !== mac || seenMs < lastMs) continue;
      last = address;
      lastMs = seenMs;
    }
    return last;
  }
  forget(address: number): void {
    this.#neighbours.delete(address);
  }

  /** An ARP frame from the guests. */
  receiveArp(bytes: Uint8Array, view: DataView): void {
    if (bytes.length < 42 || view.getUint16(14) !== 1 || view.getUint16(16) !== ETHERTYPE.ipv4 || view.getUint16(18) !== 0x0604) return;
    const operation = view.getUint16(20), mac = macAt(bytes, 22), sender = view.getUint32(28), target = view.getUint32(38);
    if (sender !== 0) this.learn(sender, mac);
    if (operation !== ARP.request || isGroup(mac)) return;
    // An address probe (RFC 5227) is from 0: for absent addresses it must stay unanswered, or nobody could take one.
    const isOwn = this.#o.own.includes(target), s = this.#o.subnet;
    const isAbsent = this.#o.answersForAbsent && sender !== 0 && sender !== target && contains(s, target) && target !== s.network && target !== s.broadcast
      && !this.#neighbours.has(target) && this.#o.holderOf(target) === undefined;
    if (isOwn || isAbsent) this.#arp(ARP.reply, target, mac, mac, sender);
  }
  #arp(operation: number, sender: number, to: number, targetMac: number, target: number): void {
    const bytes = new Uint8Array(60), view = new DataView(bytes.buffer);
    putMac(view, 0, to);
    putMac(view, 6, this.#o.mac);
    view.setUint16(12, ETHERTYPE.arp);
    view.setUint16(14, 1);
    view.setUint16(16, ETHERTYPE.ipv4);
    view.setUint16(18, 0x0604);
    view.setUint16(20, operation);
    putMac(view, 22, this.#o.mac);
    view.setUint32(28, sender);
    putMac(view, 32, targetMac);
    view.setUint32(38, target);
    this.#output({ bytes, checksum: "good", gso: null });
  }

  /** Send a packet that newPacket made: to `mac` when given, else to where its destination lives, which is asked for when nobody knows. */
  send(bytes: Uint8Array<ArrayBuffer>, checksum: Frame["checksum"] = "good", gso: Gso | null = null, mac?: number): void {
    if (!gso && bytes.length > this.#o.mtu + 14) {
      this.#id = (this.#id + 1) & 0xffff;
      for (const piece of fragmented(bytes, this.#o.mtu, this.#id)) this.#sendTo(mac ?? -1, { bytes: piece, checksum: "good", gso: null });
    } else this.#sendTo(mac ?? -1, { bytes, checksum, gso });
  }
  #sendTo(known: number, frame: Frame): void {
    const { bytes } = frame, address = ((bytes[30]! << 24) | (bytes[31]! << 16) | (bytes[32]! << 8) | bytes[33]!) >>> 0;
    const mac = known >= 0 ? known : this.#o.holderOf(address) ?? this.#neighbours.get(address)?.mac;
    if (mac === undefined) return this.#ask(address, frame);
    const high = Math.floor(mac / 65536), own = this.#o.mac, ownHigh = Math.floor(own / 65536);
    for (let i = 0; i < 4; i++) {
      bytes[i] = high >>> (24 - 8 * i);
      bytes[6 + i] = ownHigh >>> (24 - 8 * i);
    }
    bytes[4] = mac >>> 8;
    bytes[5] = mac;
    bytes[10] = own >>> 8;
    bytes[11] = own;
    this.#output(frame);
  }
  #ask(address: number, frame: Frame): void {
    let pending = this.#pending.get(address);
    if (!pending) {
      if (this.#pending.size >= PENDING_MAX || !contains(this.#o.subnet, address)) {
        this.nrLost++;
        return;
      }
      const p: Pending = { frames: [], nrTries: 0, timer: new Timer(() => this.#askAgain(address, p)) };
      this.#pending.set(address, pending = p);
      this.#askAgain(address, p);
    }
    if (pending.frames.length < PENDING_FRAMES_MAX) pending.frames.push(frame);
    else this.nrLost++;
  }
  #askAgain(address: number, pending: Pending): void {
    if (pending.nrTries++ >= ARP_TRIES) {
      this.#pending.delete(address);
      this.nrLost += pending.frames.length;
      this.onAbsent(address);
      return;
    }
    this.#o.wheel.arm(pending.timer, this.#o.wheel.nowMs() + ARP_RETRY_MS);
    this.#arp(ARP.request, this.#o.own[0]!, BROADCAST_MAC, 0, address);
  }

  #output(frame: Frame): void {
    const peer = this.#o.port.peer;
    if (!peer) {
      this.nrLost++;
      return;
    }
    for (const f of suited(frame, peer)) {
      if (this.hasRoom && peer.receive(f)) this.nrSent++;
      else if (this.#queue.length - this.#queueHead < QUEUE_FRAMES_MAX) this.#queue.push(f);
      else this.nrLost++;
    }
  }
  /** The peer has room again. */
  ready(): void {
    // A peer that says so while it takes a frame is heard by the loop below.
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.#drain();
    this.#isDraining = false;
    if (this.hasRoom) this.onRoom();
  }
  #drain(): void {
    const peer = this.#o.port.peer;
    while (this.#queueHead < this.#queue.length) {
      if (peer && !peer.receive(this.#queue[this.#queueHead]!)) {
        // What was sent is cut off now and then, so that the array does not grow for ever.
        if (this.#queueHead > QUEUE_FRAMES_MAX) {
          this.#queue.splice(0, this.#queueHead);
          this.#queueHead = 0;
        }
        return;
      }
      this.#queueHead++;
      if (peer) this.nrSent++;
      else this.nrLost++;
    }
    this.#queue = [];
    this.#queueHead = 0;
  }
  close(): void {
    this.#queue = [];
    this.#queueHead = 0;
    this.#neighbours.clear();
    this.#pending.clear();
  }
}
