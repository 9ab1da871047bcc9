/** All TCP connections of a router: which segment belongs to which, SYNs that open new ones, resets for what belongs to none, and the bounds. */
import { pseudoSum, sumOf } from "../checksum.ts";
import { macText } from "../address.ts";
import type { Address } from "./address.ts";
import { FlowTable } from "./flow-table.ts";
import type { Icmp } from "./icmp.ts";
import type { Packet } from "./packet.ts";
import type { Lan } from "./lan.ts";
import type { OutsideStream, StreamEvents, StreamFault } from "./outside.ts";
import { ERROR_OF, type Refusal } from "./route.ts";
import { TcpConnection, type TcpHost } from "./tcp-connection.ts";
import { resetFor, TCP } from "./tcp-segment.ts";
import type { TimerWheel } from "./timers.ts";

/** Bounds of the whole and of one guest. */
export type TcpLimits = { readonly nrConnections: number; readonly nrConnectionsPerGuest: number; readonly nrConnecting: number; readonly bufferBytes: number };
export const TCP_LIMITS: TcpLimits = { nrConnections: 16384, nrConnectionsPerGuest: 16384, nrConnecting: 1024, bufferBytes: 128 << 20 }; // for one network
const TIME_WAITS_MAX = 4096, CHALLENGES_PER_SECOND = 100;
const FIRST_BUFFER_BYTES = 65536, LEAST_BUFFER_BYTES = 8192;
const EPHEMERAL_FIRST = 49152, EPHEMERAL_COUNT = 16384;

/** Where a guest's SYN leads: a stream that is being opened, or why not. */
export type Opening = OutsideStream | Refusal;
/** What the layer is made over. */
export type TcpOptions = {
  readonly lan: Lan;
  readonly wheel: TimerWheel;
  readonly icmp: Icmp;
  readonly mtu: number;
  readonly random: () => number;
  readonly limits: TcpLimits;
  /** the source of connections that forwards open to a guest */
  readonly gatewayFor: (guest: Address) => Address;
  readonly log: (sentence: string) => void;
  readonly open: (destination: Address, port: number, events: StreamEvents) => Opening;
};

/** The table of connections, and all they share. */
export class TcpLayer implements TcpHost {
  readonly #o: TcpOptions;
  readonly lan: Lan;
  readonly wheel: TimerWheel;
  readonly mtu: number;
  readonly random: () => number;
  readonly waiting = new Set<TcpConnection>();
  readonly #table: FlowTable<TcpConnection>;
  /** by station: an IPv6 guest has as many addresses as it likes */
  readonly #perGuest = new Map<number, { nr: number; nrConnecting: number }>();
  readonly #connecting = new Set<TcpConnection>();
  readonly #timeWaits = new Set<TcpConnection>();
  #grantedBytes = 0;
  #challengeSecond = 0;
  #nrChallenges = 0;
  #nextEphemeral = 0;
  readonly counts = {
    nrOpened: 0, nrRefused: 0, nrSynsDropped: 0, nrBadSegments: 0, nrRetransmits: 0, nrFastRetransmits: 0, nrTimeouts: 0, nrProbes: 0, nrResetsSent: 0, nrResetsTaken: 0,
    nrOutOfOrder: 0, nrChallenges: 0,
  };

  constructor(options: TcpOptions) {
    this.#o = options;
    this.lan = options.lan;
    this.wheel = options.wheel;
    this.mtu = options.mtu;
    this.random = options.random;
    this.#table = new FlowTable(options.random());
  }
  get nrConnections(): number {
    return this.#table.size;
  }
  get nrConnecting(): number {
    return this.#connecting.size;
  }
  get nrTimeWaits(): number {
    return this.#timeWaits.size;
  }
  get grantedBytes(): number {
    return this.#grantedBytes;
  }

  /** A guest's packet with protocol TCP. */
  receive(p: Packet): void {
    const { bytes, view, at, end } = p, dataAt = at + ((bytes[at + 12] ?? 0) >>> 4) * 4;
    if (end - at < 20 || dataAt < at + 20 || dataAt > end
      || (p.checksum === "unknown" && sumOf(bytes, at, end, pseudoSum(bytes, p, end - at)) !== 0xffff)) {
      this.counts.nrBadSegments++;
      return;
    }
    const guestPort = view.getUint16(at), remotePort = view.getUint16(at + 2), seq = view.getInt32(at + 4), ack = view.getInt32(at + 8), flags = bytes[at + 13]!;
    const isSyn = (flags & (TCP.SYN | TCP.ACK | TCP.RST | TCP.FIN)) === TCP.SYN;
    let c = this.#table.get(p.source, guestPort, p.destination, remotePort);
    if (c && (c.isForeignTo(p.mac) || (isSyn && c.isReplacedBy(seq)))) {
      c.abort();
      c = null;
    }
    if (c) c.receive(p, seq, ack, flags, view.getUint16(at + 14), dataAt);
    else if (isSyn) this.#open(p, guestPort, remotePort, seq);
    else this.#reject(p, seq, ack, flags, dataAt);
  }

  #open(p: Packet, guestPort: number, remotePort: number, seq: number): void {
    const { limits } = this.#o;
    if (this.#table.size >= limits.nrConnections) this.#timeWaits.values().next().value?.abort();
    // A SYN that finds no room is lost, and comes again. One guest may have half of those that are being opened.
    const own = this.#perGuest.get(p.mac);
    if (this.#table.size >= limits.nrConnections || this.#connecting.size >= limits.nrConnecting || guestPort === 0 || remotePort === 0
      || (own && (own.nr >= limits.nrConnectionsPerGuest || own.nrConnecting >= limits.nrConnecting / 2))) {
      if (this.counts.nrSynsDropped++ < 3) {
        this.#o.log(`${macText(p.mac)} opens too many connections: ${this.#table.size} are there, ${this.#connecting.size} of them on their way; a SYN is dropped`);
      }
      return;
    }
    const c = new TcpConnection(this, p.source, guestPort, p.destination, remotePort, p.mac, "connecting"), far = this.#o.open(p.destination, remotePort, c);
    if (typeof far === "string") {
      this.#grantedBytes -= c.bufferBytes;
      this.counts.nrRefused++;
      if (far === "refused") this.#rejectSyn(p);
      else this.#o.icmp.error(p, ERROR_OF[far]);
      return;
    }
    c.far = far;
    this.#add(c);
    c.openedByGuest(p, seq);
  }
  #add(c: TcpConnection): void {
    let own = this.#perGuest.get(c.owner);
    if (!own) this.#perGuest.set(c.owner, own = { nr: 0, nrConnecting: 0 });
    own.nr++;
    own.nrConnecting++;
    this.#table.add(c);
    this.#connecting.add(c);
    this.counts.nrOpened++;
  }
  /** Open a connection to a guest for a stream that came from outside. @returns who hears the stream's events; null when there is no room */
  openToGuest(address: Address, port: number, far: OutsideStream): StreamEvents | null {
    if (this.#table.size >= this.#o.limits.nrConnections || this.#connecting.size >= this.#o.limits.nrConnecting) return null;
    const gateway = this.#o.gatewayFor(address);
    for (let tries = 0; tries < EPHEMERAL_COUNT; tries++) {
      const remotePort = EPHEMERAL_FIRST + this.#nextEphemeral++ % EPHEMERAL_COUNT;
      if (this.#table.get(address, port, gateway, remotePort)) continue;
      const c = new TcpConnection(this, address, port, gateway, remotePort, this.lan.macOf(address) ?? 0, "synSent");
      this.#add(c);
      c.openToGuest(far);
      return c;
    }
    return null;
  }

  #reject(p: Packet, seq: number, ack: number, flags: number, dataAt: number): void {
    if (flags & TCP.RST) return;
    this.counts.nrResetsSent++;
    this.lan.send(resetFor(p, seq, ack, flags, dataAt), "good", null, p.mac);
  }
  /** Refuse a SYN. */
  #rejectSyn(p: Packet): void {
    this.#reject(p, p.view.getInt32(p.at + 4), 0, TCP.SYN, p.end);
  }

  /** Nobody answered for a guest's address: connections that wait for it end now. */
  absent(address: Address): void {
    for (const c of [...this.#connecting]) if (c.guestAddress === address && c.state === "synSent") c.abort();
  }
  /** The peer has room again. */
  goOn(): void {
    while (this.waiting.size > 0 && this.lan.hasRoom) {
      const c: TcpConnection = this.waiting.values().next().value!;
      this.waiting.delete(c);
      c.goOn();
    }
  }

  // ---- what connections ask

  grant(nowBytes: number): number {
    const budget = this.#o.limits.bufferBytes;
    const bytes = nowBytes === 0 ? (this.#grantedBytes < budget ? FIRST_BUFFER_BYTES : LEAST_BUFFER_BYTES) : this.#grantedBytes + nowBytes <= budget ? nowBytes * 2 : nowBytes;
    this.#grantedBytes += bytes - nowBytes;
    return bytes;
  }
  mayChallenge(): boolean {
    const second = Math.floor(this.wheel.nowMs() / 1000);
    if (second !== this.#challengeSecond) {
      this.#challengeSecond = second;
      this.#nrChallenges = 0;
    }
    this.counts.nrChallenges++;
    return ++this.#nrChallenges <= CHALLENGES_PER_SECOND;
  }
  refused(c: TcpConnection, fault: StreamFault | null): void {
    const { syn } = c;
    this.counts.nrRefused++;
    if (!syn) return;
    if (fault === "unreachable") this.#o.icmp.error(syn, "noRoute");
    else if (fault === "timeout") this.#o.icmp.error(syn, "host");
    else this.#rejectSyn(syn);
  }
  settled(c: TcpConnection): void {
    if (this.#connecting.delete(c)) this.#perGuest.get(c.owner)!.nrConnecting--;
  }
  timeWaits(c: TcpConnection): void {
    this.#timeWaits.add(c);
    if (this.#timeWaits.size > TIME_WAITS_MAX) this.#timeWaits.values().next().value!.abort();
  }
  gone(c: TcpConnection): void {
    this.settled(c);
    this.#table.delete(c);
    this.#timeWaits.delete(c);
    this.waiting.delete(c);
    this.#grantedBytes -= c.bufferBytes;
    if (--this.#perGuest.get(c.owner)!.nr === 0) this.#perGuest.delete(c.owner);
  }
  /** Break the connections of the guests that are meant, without a word to them when `isSilent`. @param isMeant is asked with address and station */
  drop(isMeant: (guest: Address, owner: number) => boolean, isSilent: boolean): void {
    for (const c of [...this.#table.values()]) {
      if (!isMeant(c.guestAddress, c.owner)) continue;
      if (isSilent) c.abort();
      else c.reset();
    }
  }
}
