/** UDP through the router: a socket outside for each port that a guest sends from (RFC 4787: one mapping for all peers, answers only from whom the guest wrote to). */
import { checksumOf, IPPROTO, pseudoSum, sumOf } from "../checksum.ts";
import { type Address, formatAddress, parseAddress } from "./address.ts";
import { Timer, type TimerWheel } from "./timers.ts";
import type { Forward } from "./forward.ts";
import type { Icmp } from "./icmp.ts";
import { newPacket, type Packet, payloadAt, pseudoSumOf } from "./packet.ts";
import type { Lan } from "./lan.ts";
import type { Listener, Outside, OutsideUdp } from "./outside.ts";
import { ERROR_OF, type Refusal } from "./route.ts";

/** Bounds of one network. */
export type UdpLimits = { readonly nrFlows: number; readonly nrFlowsPerGuest: number; readonly nrPeersPerFlow: number; readonly idleMs: number };
export const UDP_LIMITS: UdpLimits = { nrFlows: 1024, nrFlowsPerGuest: 256, nrPeersPerFlow: 64, idleMs: 120_000 }; // RFC 4787 REQ-5: two minutes at least
const FORWARD_PEERS_MAX = 1024, EPHEMERAL_FIRST = 49152, EPHEMERAL_COUNT = 16384;

/** Write a UDP datagram to a guest, in fragments where it must. */
export function sendUdp(lan: Lan, source: Address, sourcePort: number, destination: Address, port: number, payload: Uint8Array, mac?: number): void {
  const length = 8 + payload.length;
  if (length > 65515) return;
  const bytes = newPacket(source, destination, IPPROTO.udp, length), view = new DataView(bytes.buffer), at = payloadAt(bytes);
  view.setUint16(at, sourcePort);
  view.setUint16(at + 2, port);
  view.setUint16(at + 4, length);
  bytes.set(payload, at + 8);
  view.setUint16(at + 6, checksumOf(bytes, at, bytes.length, pseudoSumOf(bytes, IPPROTO.udp)) || 0xffff);
  lan.send(bytes, "good", null, mac);
}

/** A datagram of a guest's: its ports, and where its payload lies in the packet. */
export type Datagram = { readonly sourcePort: number; readonly port: number; readonly from: number; readonly to: number };
/** @returns null when lengths or checksum are wrong */
export function readUdp(p: Packet): Datagram | null {
  if (p.end - p.at < 8) return null;
  const length = p.view.getUint16(p.at + 4), to = p.at + length;
  if (length < 8 || to > p.end) return null;
  // IPv4's may be absent (RFC 768), IPv6's not (RFC 8200 8.1).
  if (p.checksum === "unknown" && (p.version === 6 || p.view.getUint16(p.at + 6) !== 0) && sumOf(p.bytes, p.at, to, pseudoSum(p.bytes, p, length)) !== 0xffff) return null;
  return { sourcePort: p.view.getUint16(p.at), port: p.view.getUint16(p.at + 2), from: p.at + 8, to };
}

/** `owner` is the guest's station. */
type UdpFlow = { readonly key: Address; readonly guest: Address; readonly port: number; readonly owner: number; socket: OutsideUdp | null; readonly peers: Map<Address, number>; readonly timer: Timer };
const keyOf = (guest: Address, port: number): Address => (typeof guest === "number" ? guest * 65536 + port : guest << 16n | BigInt(port));
/** A host's peer that wrote to a forward, and the port of the gateway's under which the guest sees it. */
type ForwardPeer = { readonly key: string; readonly address: string; readonly port: number; readonly ephemeral: number; readonly guest: Address; readonly guestPort: number;
  readonly via: OutsideUdp; readonly timer: Timer };

/** What the layer is made over. */
export type UdpOptions = {
  readonly lan: Lan;
  readonly wheel: TimerWheel;
  readonly icmp: Icmp;
  readonly outside: Outside;
  readonly limits: UdpLimits;
  /** which of its own addresses the router speaks with a guest from */
  readonly gatewayFor: (guest: Address) => Address;
  /** Where a guest's datagram goes, as an address outside; or a word for why it does not. */
  readonly route: (destination: Address, port: number) => Address | Refusal;
  /** the address under which a guest knows an outside one */
  readonly seenAs: (address: Address) => Address;
};

/** The guests' flows, and the peers of forwards. */
export class UdpLayer {
  readonly #o: UdpOptions;
  readonly #flows = new Map<Address, UdpFlow>();
  /** by station */
  readonly #perGuest = new Map<number, number>();
  readonly #peersByKey = new Map<string, ForwardPeer>();
  readonly #peersByPort = new Map<number, ForwardPeer>();
  #nextEphemeral = 0;
  readonly counts = { nrOut: 0, nrIn: 0, nrBad: 0, nrUnasked: 0, nrEvicted: 0 };

  constructor(options: UdpOptions) {
    this.#o = options;
  }
  get nrFlows(): number {
    return this.#flows.size;
  }
  get nrForwardPeers(): number {
    return this.#peersByKey.size;
  }

  /** A guest's datagram that is not for the router's own services. */
  receive(p: Packet, d: Datagram): void {
    if (d.sourcePort === 0 || d.port === 0) {
      this.counts.nrBad++;
      return;
    }
    if (p.destination === this.#o.gatewayFor(p.source) && this.#toForwardPeer(p, d)) return;
    const target = this.#o.route(p.destination, d.port);
    if (typeof target === "string") {
      this.#o.icmp.error(p, ERROR_OF[target]);
      return;
    }
    const known = this.#flows.get(keyOf(p.source, d.sourcePort)), isForeign = known !== undefined && typeof p.source === "bigint" && known.owner !== p.mac;
    // An IPv6 address that has passed to another station does not take its flows along.
    if (isForeign) this.#end(known);
    const flow = known && !isForeign ? known : this.#newFlow(p.source, d.sourcePort, p.mac);
    // Map keeps the order of insertion: the peer longest not written to is the first.
    flow.peers.delete(target);
    if (flow.peers.size >= this.#o.limits.nrPeersPerFlow) flow.peers.delete(flow.peers.keys().next().value!);
    flow.peers.set(target, d.port);
    this.#o.wheel.arm(flow.timer, this.#o.wheel.nowMs() + this.#o.limits.idleMs);
    this.counts.nrOut++;
    flow.socket?.send(p.bytes.subarray(d.from, d.to), formatAddress(target), d.port, () => this.#o.icmp.error(p, "noRoute"));
  }
  #newFlow(guest: Address, port: number, owner: number): UdpFlow {
    const { limits } = this.#o, nrOfGuest = this.#perGuest.get(owner) ?? 0;
    if (nrOfGuest >= limits.nrFlowsPerGuest) this.#evict([...this.#flows.values()].find((f) => f.owner === owner));
    else if (this.#flows.size >= limits.nrFlows) this.#evict(this.#flows.values().next().value);
    const flow: UdpFlow = { key: keyOf(guest, port), guest, port, owner, socket: null, peers: new Map(), timer: new Timer(() => this.#end(flow)) };
    this.#flows.set(flow.key, flow);
    this.#perGuest.set(owner, (this.#perGuest.get(owner) ?? 0) + 1);
    flow.socket = this.#o.outside.openUdp(typeof guest === "number" ? 4 : 6, {
      datagram: (bytes, address, from) => this.#fromOutside(flow, bytes, address, from),
      failed: () => this.#end(flow),
    });
    return flow;
  }
  #evict(flow: UdpFlow | undefined): void {
    if (!flow) return;
    this.counts.nrEvicted++;
    this.#end(flow);
  }
  #end(flow: UdpFlow): void {
    if (this.#flows.get(flow.key) !== flow) return;
    this.#flows.delete(flow.key);
    const nr = (this.#perGuest.get(flow.owner) ?? 1) - 1;
    if (nr > 0) this.#perGuest.set(flow.owner, nr);
    else this.#perGuest.delete(flow.owner);
    this.#o.wheel.disarm(flow.timer);
    flow.socket?.close();
    flow.socket = null;
  }
  #fromOutside(flow: UdpFlow, bytes: Uint8Array, addressText: string, port: number): void {
    const address = parseAddress(addressText);
    if (address === null || !flow.peers.has(address) || this.#flows.get(flow.key) !== flow) {
      this.counts.nrUnasked++;
      return;
    }
    // Answers keep a flow as the guest's own datagrams do not need to: a stream one way is a flow still.
    this.#o.wheel.arm(flow.timer, this.#o.wheel.nowMs() + this.#o.limits.idleMs);
    this.counts.nrIn++;
    sendUdp(this.#o.lan, this.#o.seenAs(address), port, flow.guest, flow.port, bytes, typeof flow.guest === "bigint" ? flow.owner : undefined);
  }

  // ---- forwards

  /** Listen for a forward. @param resolve the guest's address at the moment, null: nobody @throws UserError */
  async listen(forward: Forward, resolve: () => Address | null): Promise<Listener> {
    const socket: Listener & OutsideUdp = await this.#o.outside.bindUdp(forward.listenAddress, forward.listenPort, {
      datagram: (bytes, address, port) => {
        const guest = resolve();
        if (guest === null) return;
        const peer = this.#forwardPeer(socket, address, port, guest, forward.targetPort);
        this.#o.wheel.arm(peer.timer, this.#o.wheel.nowMs() + this.#o.limits.idleMs);
        this.counts.nrIn++;
        sendUdp(this.#o.lan, this.#o.gatewayFor(guest), peer.ephemeral, guest, forward.targetPort, bytes);
      },
      failed: () => this.#dropPeers((p) => p.via === socket),
    });
    return socket;
  }
  #forwardPeer(via: Listener & OutsideUdp, address: string, port: number, guest: Address, guestPort: number): ForwardPeer {
    const key = `${via.port} ${address} ${port} ${guest} ${guestPort}`, known = this.#peersByKey.get(key);
    if (known) return known;
    if (this.#peersByKey.size >= FORWARD_PEERS_MAX) this.#dropPeer(this.#peersByKey.values().next().value!);
    let ephemeral: number;
    do ephemeral = EPHEMERAL_FIRST + this.#nextEphemeral++ % EPHEMERAL_COUNT; while (this.#peersByPort.has(ephemeral));
    const peer: ForwardPeer = { key, address, port, ephemeral, guest, guestPort, via, timer: new Timer(() => this.#dropPeer(peer)) };
    this.#peersByKey.set(key, peer);
    this.#peersByPort.set(ephemeral, peer);
    return peer;
  }
  #dropPeer(peer: ForwardPeer): void {
    this.#peersByKey.delete(peer.key);
    this.#peersByPort.delete(peer.ephemeral);
    this.#o.wheel.disarm(peer.timer);
  }
  #dropPeers(which: (peer: ForwardPeer) => boolean): void {
    for (const peer of [...this.#peersByKey.values()]) if (which(peer)) this.#dropPeer(peer);
  }
  /** @returns whether the datagram answered one that a forward had brought */
  #toForwardPeer(p: Packet, d: Datagram): boolean {
    const peer = this.#peersByPort.get(d.port);
    if (!peer || peer.guest !== p.source || peer.guestPort !== d.sourcePort) return false;
    this.#o.wheel.arm(peer.timer, this.#o.wheel.nowMs() + this.#o.limits.idleMs);
    this.counts.nrOut++;
    peer.via.send(p.bytes.subarray(d.from, d.to), peer.address, peer.port);
    return true;
  }

  /** End the flows of the guests that are meant. @param isMeant is asked with address and station, 0: not known */
  drop(isMeant: (guest: Address, owner: number) => boolean): void {
    for (const flow of [...this.#flows.values()]) if (isMeant(flow.guest, flow.owner)) this.#end(flow);
    this.#dropPeers((peer) => isMeant(peer.guest, 0));
  }
}
