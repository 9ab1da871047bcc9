/**
 * The guests' side of the router as a station on their Ethernet: who lives where, by ARP (RFC 826) and neighbour solicitations (RFC 4861 7), and frames out, which wait when the
 * peer is full.
 */
import { ETHERTYPE } from "../checksum.ts";
import { suited } from "../offload.ts";
import type { Frame, Gso, Port } from "../port.ts";
import { ipv4At, isGroup, macAt, macText } from "../address.ts";
import { type Address, BROADCAST_MAC, contains, formatAddress, ipv6At, isLinkLocal, macOf, macOfGroup, putMac, solicitedNode } from "./address.ts";
import { newSolicitation } from "./nd-message.ts";
import { type Neighbour, Neighbours } from "./neighbours.ts";
import { type Own, isOwn } from "./own.ts";
import { ETHER_BYTES, fragmented } from "./packet.ts";
import { Timer, type TimerWheel } from "./timers.ts";

/** Frames that wait for a full peer; beyond it they are lost, as on any wire. TCP stops at the first. */
const QUEUE_FRAMES_MAX = 512;
/** Addresses asked for at a time, packets that wait for each answer, and questions before they are given up. */
const PENDING_MAX = 64, PENDING_FRAMES_MAX = 8, TRIES = 3, RETRY_MS = 1000;
/** Of those that are asked for, such as two stations say they have; and how often who had one is asked whether it still has it. */
const DOUBTED_MAX = 16, DOUBT_MS = 5000;
const ARP = { request: 1, reply: 2 } as const;

type Pending = { frames: Frame[]; nrTries: number; timer: Timer; /** not null: it had the address, and is asked whether it still has */ readonly holder: number | null };

/** What the router above wants to know and says. */
export type LanOptions = {
  readonly own: Own;
  readonly mac: number;
  readonly mtu: number;
  /** answer for addresses of the networks where nobody is known, too */
  readonly answersForAbsent: boolean;
  readonly wheel: TimerWheel;
  readonly port: Port;
  /** the MAC that has an address by DHCP */
  readonly holderOf: (address: Address) => number | undefined;
  readonly log: (sentence: string) => void;
};

/** The station: its neighbours, its questions, its queue. */
export class Lan {
  readonly #o: LanOptions;
  readonly #neighbours = new Neighbours();
  readonly #pending = new Map<Address, Pending>();
  #nrDoubted = 0;
  #queue: Frame[] = [];
  #queueHead = 0;
  #isDraining = false;
  #id = 0;
  /** told when the queue has run empty */
  onRoom: () => void = () => {};
  /** told of an address that nobody answered for */
  onAbsent: (address: Address) => void = () => {};
  nrLost = 0;
  nrSent = 0;
  /** frames whose sender used an address that is another's */
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

  /** May a guest have it? */
  #isGuests(address: Address): boolean {
    const { network, v6 } = this.#o.own;
    if (isOwn(this.#o.own, address)) return false;
    if (typeof address === "number") return contains(network, address) && address !== network.network && address !== network.broadcast;
    // The network's first address means "any router of it" (RFC 4291 2.6.1).
    return v6 !== null && (isLinkLocal(address) || (contains(v6.network, address) && address !== v6.network.network));
  }
  /** Note that `address` lives at `mac`. @returns false when it is no guest's, or another's: what came is not to be believed */
  learn(address: Address, mac: number): boolean {
    if (isGroup(mac) || !this.#isGuests(address)) return false;
    const holder = this.#o.holderOf(address), known = this.#neighbours.get(address);
    if (holder !== undefined && holder !== mac) return this.#forged(address, mac, holder, "is leased to");
    // Nobody leases IPv6 addresses: one that is made from a MAC that is here is that MAC's, any other is whose it was first, until that is silent when it is asked.
    const maker = typeof address === "bigint" && known?.mac !== mac ? macOf(address) : mac;
    if (maker !== null && maker !== mac && this.#neighbours.has(maker)) return this.#forged(address, mac, maker, "belongs to");
    if (known && maker !== mac) {
      this.#doubt(known);
      return this.#forged(address, mac, known.mac, "belongs to");
    }
    this.#neighbours.note(address, mac, this.#o.wheel.nowMs());
    const pending = this.#takePending(address);
    if (pending) for (const frame of pending.frames) this.#sendTo(mac, frame);
    return true;
  }
  #forged(address: Address, mac: number, holder: number, how: string): false {
    if (this.nrForged++ < 3) this.#o.log(`${macText(mac)} speaks with ${formatAddress(address)}, which ${how} ${macText(holder)}; it is not heard`);
    return false;
  }
  #doubt(known: Neighbour): void {
    const { address, mac } = known, nowMs = this.#o.wheel.nowMs();
    if (this.#nrDoubted >= DOUBTED_MAX || this.#pending.has(address) || nowMs - known.doubtedMs < DOUBT_MS) return;
    known.doubtedMs = nowMs;
    this.#nrDoubted++;
    this.#newPending(address, mac);
  }
  /** A guest says that `address` is at `mac`, and perhaps nobody asked: only what is known or was asked for is heard (RFC 4861 7.2.5). */
  confirm(address: Address, mac: number): void {
    if (this.#pending.has(address) || this.#neighbours.get(address)) this.learn(address, mac);
  }
  /** Who was seen with `address` less than `withinMs` ago. */
  macOf(address: Address, withinMs = Number.POSITIVE_INFINITY): number | undefined {
    const known = this.#neighbours.get(address);
    return known && this.#o.wheel.nowMs() - known.seenMs < withinMs ? known.mac : undefined;
  }
  /** The addresses that `mac` was seen with, the latest first. */
  addressesOf(mac: number): Address[] {
    return this.#neighbours.of(mac);
  }
  forget(address: Address): void {
    this.#neighbours.delete(address);
  }
  /** Is the router to answer for it, because nobody does? @param asker who asks; whoever looks whether an address is free must find it free */
  isAbsent(address: Address, asker: Address): boolean {
    return this.#o.answersForAbsent && asker !== address && this.#isGuests(address) && !isLinkLocal(address) && !this.#neighbours.get(address) && this.#o.holderOf(address) === undefined;
  }

  /** An ARP frame from the guests. */
  receiveArp(bytes: Uint8Array, view: DataView): void {
    if (bytes.length < 42 || view.getUint16(14) !== 1 || view.getUint16(16) !== ETHERTYPE.ipv4 || view.getUint16(18) !== 0x0604) return;
    const operation = view.getUint16(20), mac = macAt(bytes, 22), sender = view.getUint32(28), target = view.getUint32(38);
    if (sender !== 0) this.learn(sender, mac);
    if (operation !== ARP.request || isGroup(mac)) return;
    // An address probe (RFC 5227) is from 0.
    if (isOwn(this.#o.own, target) || (sender !== 0 && this.isAbsent(target, sender))) this.#arp(ARP.reply, target, mac, mac, sender);
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
  send(bytes: Uint8Array<ArrayBuffer>, checksum: Frame["checksum"] = "good", gso: Gso | null = null, mac = -1): void {
    if (!gso && bytes.length > this.#o.mtu + ETHER_BYTES) {
      this.#id = (this.#id + 1) & 0xffff;
      for (const piece of fragmented(bytes, this.#o.mtu, this.#id)) this.#sendTo(mac, { bytes: piece, checksum: "good", gso: null });
    } else this.#sendTo(mac, { bytes, checksum, gso });
  }
  #sendTo(known: number, frame: Frame): void {
    const { bytes } = frame, address = known >= 0 ? 0 : bytes[12] === ETHERTYPE.ipv6 >>> 8 ? ipv6At(new DataView(bytes.buffer, bytes.byteOffset), 38) : ipv4At(bytes, 30);
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
  #ask(address: Address, frame: Frame): void {
    const { holder = null } = this.#pending.get(address) ?? {};
    // Who had it is being asked, and was forgotten meanwhile: now all are.
    if (holder !== null) this.#takePending(address);
    let pending = this.#pending.get(address);
    if (!pending) {
      if (this.#pending.size >= PENDING_MAX || !this.#isGuests(address)) {
        this.nrLost++;
        return;
      }
      pending = this.#newPending(address, null);
    }
    if (pending.frames.length < PENDING_FRAMES_MAX) pending.frames.push(frame);
    else this.nrLost++;
  }
  #newPending(address: Address, holder: number | null): Pending {
    const pending: Pending = { frames: [], nrTries: 0, timer: new Timer(() => this.#askAgain(address, pending)), holder };
    this.#pending.set(address, pending);
    this.#askAgain(address, pending);
    return pending;
  }
  #takePending(address: Address): Pending | undefined {
    const pending = this.#pending.get(address);
    if (!pending) return undefined;
    this.#pending.delete(address);
    this.#o.wheel.disarm(pending.timer);
    if (pending.holder !== null) this.#nrDoubted--;
    return pending;
  }
  #askAgain(address: Address, pending: Pending): void {
    const { own, mac, wheel } = this.#o, { holder } = pending;
    if (pending.nrTries++ >= TRIES) {
      this.#takePending(address);
      if (holder !== null) return this.forget(address);
      this.nrLost += pending.frames.length;
      this.onAbsent(address);
      return;
    }
    wheel.arm(pending.timer, wheel.nowMs() + RETRY_MS);
    if (typeof address === "number") this.#arp(ARP.request, own.gateway, BROADCAST_MAC, 0, address);
    else if (own.v6) this.send(newSolicitation(own.v6.linkLocal, mac, address, holder === null ? undefined : address), "good", null, holder ?? macOfGroup(solicitedNode(address)));
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
