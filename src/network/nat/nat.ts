/**
 * A router in user mode: it gives the guests on a cable a network, IPv4 with DHCP, IPv6 with router advertisements, DNS for both, and opens on the host, as an ordinary user, what they
 * open. docs/network-nat.md tells what a guest sees.
 */
import { UserError } from "../../base/errors.ts";
import { ETHERTYPE, IPPROTO } from "../checksum.ts";
import type { Frame, Port } from "../port.ts";
import { isGroup, macAt, macText, parseIpv4, parseMac } from "../address.ts";
import { type Address, contains, formatAddress, formatIpv4, formatSubnet, isLinkLocal, isMulticast, madeFrom, parseAddress, parseSubnet, parseSubnet6, type Subnet, type Subnet6 } from "./address.ts";
import { hostClock, type NetClock } from "../clock.ts";
import { TimerWheel } from "./timers.ts";
import { cleanHostname, DHCP_PORT, DhcpServer } from "./dhcp.ts";
import { ALL_DHCP, DHCPV6_PORT, Dhcpv6Server } from "./dhcpv6.ts";
import { DNS_PORT, DnsForwarder } from "./dns.ts";
import { type Forward, parseForward } from "./forward.ts";
import { Icmp } from "./icmp.ts";
import { readIpv4 } from "./ipv4.ts";
import { NO_NEXT_HEADER, readIpv6 } from "./ipv6.ts";
import type { Ipv6Choice } from "./ipv6-choice.ts";
import { Lan } from "./lan.ts";
import { type Binding, type Lease, Leases } from "./leases.ts";
import { namesOf } from "./names.ts";
import { isNd } from "./nd-message.ts";
import { NeighbourDiscovery } from "./neighbour-discovery.ts";
import type { Listener, Outside, StreamEvents } from "./outside.ts";
import { gatewayFor, isGateway, isOwn, type Own, type Own6 } from "./own.ts";
import { icmpOf, type Packet, type PacketFault } from "./packet.ts";
import { ALLOW_ALL, parsePolicy, type Policy } from "./policy.ts";
import { Reassembly } from "./reassembly.ts";
import { LOOPBACK, LOOPBACK6, makeRoute, type Route } from "./route.ts";
import { RouterAdvertiser } from "./router-advertiser.ts";
import { TCP_LIMITS, TcpLayer, type TcpLimits } from "./tcp.ts";
import { readUdp, UDP_LIMITS, UdpLayer, type UdpLimits } from "./udp.ts";

/** A guest that always gets the same address, and perhaps a name. */
export type StaticLease = { readonly mac: string; readonly address: string; readonly hostname?: string };
/** All but `outside` may be left out. */
export type NatOptions = {
  readonly outside: Outside;
  /** "10.0.2.0/24" */
  readonly subnet?: string;
  /** the router's own address, which is the DNS server too; the subnet's first */
  readonly gateway?: string;
  /** the address behind which the host's 127.0.0.1 lies; the subnet's second */
  readonly hostAddress?: string;
  /** "auto" */
  readonly ipv6?: Ipv6Choice;
  /** the /64 in which guests make their IPv6 addresses; the router's is ::1 of it, behind ::2 lies the host's ::1. Made from `subnet`: see networkFor */
  readonly prefix?: string;
  /** whether guests may reach the host's loopback through `hostAddress`, and its ::1; false */
  readonly hostAccess?: boolean;
  /** first and last address for DHCP; from .15 on where the subnet has so many */
  readonly pool?: readonly [string, string];
  /** see parseForward */
  readonly forwards?: readonly string[];
  /** rules for parsePolicy, or a function */
  readonly policy?: readonly string[] | Policy;
  readonly staticLeases?: readonly StaticLease[];
  /** what an earlier router's `leases` said */
  readonly leases?: readonly Lease[];
  readonly leaseMs?: number;
  /** of the guests' names; "domus.internal" */
  readonly domain?: string;
  /** 576 to 65535; 1500 */
  readonly mtu?: number;
  /** of the router's station */
  readonly mac?: string;
  /** whether ARP and neighbour solicitations are answered for addresses where nobody is */
  readonly answersForAbsent?: boolean;
  readonly limits?: Partial<TcpLimits & UdpLimits>;
  readonly log?: (sentence: string) => void;
  readonly clock?: NetClock;
  /** 32 random bits */
  readonly random?: () => number;
  readonly name?: string;
};
/** A forward that listens. */
export type OpenForward = {
  readonly text: string;
  /** where on the host; the port is the one the host chose where 0 was asked */
  readonly address: string;
  readonly port: number;
  close(): void;
};

const POOL_MAX = 4096, LEASE_MS = 24 * 3600_000, TAKEN_MS = 600_000;
/** RFC 8200 5 */
const MTU_MIN = { 4: 576, 6: 1280 } as const;
/** fd, and "domus" for 40 random bits (RFC 4193 3.2): the networks of a router are nobody's but its guests', and are to be the same on every host that a guest moves to. */
const SITE = 0xfd64_6f6d_7573n << 80n;
/** The IPv6 network that goes with an IPv4 one: fd64:6f6d:7573:2::/64 with 10.0.2.0/24. */
export const networkFor = (subnet: Subnet): Subnet6 => ({ network: SITE | BigInt(subnet.network >>> 8 & 0xffff) << 64n, prefix: 64 });
const hostnameOf = (text: string | null | undefined): string | null => (text ? cleanHostname(new TextEncoder().encode(text)) : null);
const DOMAIN = /^(?=.{1,253}$)(?!-)[a-z\d-]{1,63}(?<!-)(\.(?!-)[a-z\d-]{1,63}(?<!-))*$/;

/** A network for the guests on one cable (or on the bridge at its other end). It holds timers and sockets until it is closed. */
export class NatNetwork {
  /** The router's end of the cable. */
  readonly port: Port;
  readonly subnet: Subnet;
  readonly gateway: number;
  readonly hostAddress: number;
  /** its own addresses and network in IPv6; null: there is none */
  readonly v6: Own6 | null;
  readonly #o: NatOptions;
  readonly #own: Own;
  readonly #mac: number;
  readonly #domain: string;
  readonly #policy: Policy;
  readonly #wheel: TimerWheel;
  readonly #leases: Leases;
  readonly #lan: Lan;
  readonly #icmp: Icmp;
  readonly #dhcp: DhcpServer;
  readonly #dns: DnsForwarder;
  readonly #udp: UdpLayer;
  readonly #tcp: TcpLayer;
  readonly #route: Route;
  /** null: there is no IPv6 */
  readonly #six: { readonly discovery: NeighbourDiscovery; readonly advertiser: RouterAdvertiser; readonly dhcp: Dhcpv6Server } | null;
  readonly #reassembly = new Reassembly();
  readonly #forwards: readonly Forward[];
  readonly #listening = new Set<OpenForward>();
  #isClosed = false;
  readonly #counts = { nrFrames: 0, nrBadFrames: 0, nrNotIp: 0, nrForeign: 0 };

  /** @throws UserError where an option is wrong */
  constructor(options: NatOptions) {
    this.#o = options;
    const subnet = this.subnet = parseSubnet(options.subnet ?? "10.0.2.0/24"), mtu = options.mtu ?? 1500;
    if (subnet.prefix < 8 || subnet.prefix > 29) throw new UserError(`Subnet ${options.subnet}: the prefix length of a router's network is 8 to 29`);
    if (!Number.isInteger(mtu) || mtu < MTU_MIN[4] || mtu > 65535) throw new UserError(`MTU ${mtu} is not a number from ${MTU_MIN[4]} to 65535`);
    this.gateway = this.#hostIn(options.gateway, subnet.network + 1, "Gateway");
    this.hostAddress = this.#hostIn(options.hostAddress, this.gateway === subnet.network + 2 ? subnet.network + 1 : subnet.network + 2, "Host address");
    if (this.gateway === this.hostAddress) throw new UserError(`Gateway and host address are both ${formatIpv4(this.gateway)}`);
    const mac = options.mac === undefined ? 0x02d0 * 2 ** 32 + this.gateway : parseMac(options.mac);
    if (mac === null || isGroup(mac) || mac === 0) throw new UserError(`"${options.mac}" is not a station's MAC address`);
    this.#mac = mac;
    this.#domain = (options.domain ?? "domus.internal").toLowerCase();
    if (!DOMAIN.test(this.#domain)) throw new UserError(`Domain "${options.domain}" is not a DNS name`);
    this.#policy = typeof options.policy === "function" ? options.policy : options.policy ? parsePolicy(options.policy) : ALLOW_ALL;
    const v6 = this.v6 = this.#own6(mtu), own: Own = this.#own = { network: subnet, gateway: this.gateway, host: this.hostAddress, v6 };
    this.#route = makeRoute({ own, hostAccess: options.hostAccess ?? false, policy: this.#policy, hasWorld6: options.ipv6 !== "local" });
    this.#forwards = (options.forwards ?? []).map((text) => this.#checkedForward(text));

    const random = options.random ?? (() => crypto.getRandomValues(new Uint32Array(1))[0]!);
    const wheel = this.#wheel = new TimerWheel(options.clock ?? hostClock), { outside } = options, gateway = this.gateway;
    const log = (sentence: string) => options.log?.(`${this.port.name}: ${sentence}`);
    const limits = { ...TCP_LIMITS, ...UDP_LIMITS, ...options.limits };
    this.port = this.#makePort(options.name ?? "nat");
    this.#lan = new Lan({
      own, mac, mtu, answersForAbsent: options.answersForAbsent ?? false, wheel, port: this.port,
      holderOf: (address) => (typeof address === "number" ? this.#leases.holderOf(address) : undefined), log,
    });
    this.#leases = this.#makeLeases();
    const lan = this.#lan;
    this.#icmp = new Icmp(lan, wheel, own);
    this.#dhcp = new DhcpServer({
      lan, wheel, leases: this.#leases, subnet, gateway, dns: gateway, domain: this.#domain, mtu, leaseMs: options.leaseMs ?? LEASE_MS, log,
    });
    this.#dns = new DnsForwarder({ lan, wheel, outside, names: namesOf({ own, domain: this.#domain, leases: this.#leases, lan }), random });
    const speaksFrom = (guest: Address): Address => gatewayFor(own, guest);
    this.#udp = new UdpLayer({
      lan, wheel, icmp: this.#icmp, outside, limits, gatewayFor: speaksFrom, route: (address, port) => this.#route("udp", address, port),
      seenAs: (address) => (address === LOOPBACK ? this.hostAddress : address === LOOPBACK6 && v6 ? v6.host : address),
    });
    this.#tcp = new TcpLayer({
      lan, wheel, icmp: this.#icmp, mtu, random, limits, gatewayFor: speaksFrom, log,
      open: (destination, port, events) => this.#openTcp(destination, port, events),
    });
    lan.onRoom = () => this.#tcp.goOn();
    lan.onAbsent = (address) => this.#tcp.absent(address);
    this.#six = v6 && this.#makeSix(v6, mtu, random, log);
  }
  #own6(mtu: number): Own6 | null {
    const { ipv6, prefix } = this.#o;
    if (ipv6 === "none") {
      if (prefix !== undefined) throw new UserError(`Prefix ${prefix} is for a network without IPv6`);
      return null;
    }
    if (mtu < MTU_MIN[6]) {
      if ((ipv6 ?? "auto") !== "auto" || prefix !== undefined) throw new UserError(`IPv6 wants an MTU of ${MTU_MIN[6]} at least, not ${mtu}`);
      return null;
    }
    const network = prefix === undefined ? networkFor(this.subnet) : parseSubnet6(prefix), { network: first } = network;
    if (network.prefix !== 64) throw new UserError(`Prefix "${prefix}": guests make their addresses in a /64`);
    if (isMulticast(first) || isLinkLocal(first) || first >> 125n === 0n) throw new UserError(`Prefix "${prefix}" is no network that guests may have; take a private one, fd00::/8`);
    return { network, gateway: first | 1n, host: first | 2n, linkLocal: madeFrom(this.#mac) };
  }
  #makeSix(own: Own6, mtu: number, random: () => number, log: (sentence: string) => void) {
    const lan = this.#lan, wheel = this.#wheel, mac = this.#mac, domain = this.#domain, { ipv6, outside } = this.#o;
    const isRouted = (): boolean => this.#policy.deniesIpv6 !== true && ipv6 !== "local" && (ipv6 === "always" || outside.hasIpv6());
    const advertiser = new RouterAdvertiser({ lan, wheel, own, mac, mtu, domain, random, isRouted });
    return { advertiser, discovery: new NeighbourDiscovery({ lan, own: this.#own, mac, advertiser, log }), dhcp: new Dhcpv6Server({ lan, wheel, own, mac, domain }) };
  }
  #hostIn(text: string | undefined, otherwise: number, what: string): number {
    const address = text === undefined ? otherwise : parseIpv4(text), s = this.subnet;
    if (address === null || !contains(s, address) || address === s.network || address === s.broadcast) {
      throw new UserError(`${what} "${text}" is not an address of a host in ${formatIpv4(s.network)}/${s.prefix}`);
    }
    return address;
  }
  #checkedForward(text: string): Forward {
    const forward = parseForward(text), { target } = forward, { v6 } = this;
    if (!("address" in target)) return forward;
    const { address } = target;
    if (typeof address === "number") this.#hostIn(formatIpv4(address), 0, `Forward "${text}": guest`);
    else if (!v6) throw new UserError(`Forward "${text}": the guest's address is one of IPv6, which this network does not have`);
    else if (!contains(v6.network, address) || address === v6.network.network) {
      throw new UserError(`Forward "${text}": guest "${formatAddress(address)}" is not an address of a host in ${formatSubnet(v6.network)}`);
    }
    if (isOwn(this.#own, address)) throw new UserError(`Forward "${text}": ${formatAddress(address)} is the router's own address`);
    return forward;
  }
  #makePort(name: string): Port {
    return { name, takesGso: true, takesBlankChecksum: true, peer: null, receive: (frame) => this.#receive(frame), ready: () => this.#lan.ready() };
  }
  #makeLeases(): Leases {
    const o = this.#o, s = this.subnet, isBig = s.prefix <= 27;
    const first = this.#hostIn(o.pool?.[0], s.network + (isBig ? 15 : 3), "Pool's first address"), last = this.#hostIn(o.pool?.[1], s.broadcast - 1, "Pool's last address");
    if (first > last) throw new UserError(`The pool's first address ${formatIpv4(first)} lies behind its last, ${formatIpv4(last)}`);
    const own = new Set([this.gateway, this.hostAddress]);
    const bindings = (o.staticLeases ?? []).map((b): Binding => {
      const mac = parseMac(b.mac), address = this.#hostIn(b.address, 0, `Static lease of ${b.mac}: address`), hostname = hostnameOf(b.hostname);
      if (mac === null || isGroup(mac)) throw new UserError(`Static lease of ${b.address}: "${b.mac}" is not a station's MAC address`);
      if (own.has(address)) throw new UserError(`Static lease of ${b.mac}: ${b.address} is taken already`);
      own.add(address);
      if (b.hostname !== undefined && hostname === null) throw new UserError(`Static lease of ${b.mac}: "${b.hostname}" is not a host name`);
      return { mac, address, hostname };
    });
    const isTaken = (address: number, mac: number): boolean => {
      const seen = this.#lan.macOf(address, TAKEN_MS);
      return address === this.gateway || address === this.hostAddress || (seen !== undefined && seen !== mac);
    };
    const leases = new Leases(first, Math.min(last, first + POOL_MAX - 1), bindings, () => this.#wheel.nowMs(), isTaken);
    for (const l of o.leases ?? []) {
      const mac = parseMac(l.mac), address = parseIpv4(l.address);
      if (mac !== null && address !== null) leases.restore(mac, address, hostnameOf(l.hostname), o.leaseMs ?? LEASE_MS);
    }
    return leases;
  }

  // ---- frames

  #receive(frame: Frame): boolean {
    const { bytes } = frame;
    this.#counts.nrFrames++;
    if (this.#isClosed) return true;
    if (bytes.length < 14) {
      this.#counts.nrBadFrames++;
      return true;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), to = macAt(bytes, 0), from = macAt(bytes, 6), toGroup = isGroup(to);
    if ((to !== this.#mac && !toGroup) || isGroup(from) || from === this.#mac) {
      this.#counts.nrForeign++;
      return true;
    }
    const type = view.getUint16(12);
    if (type === ETHERTYPE.arp) this.#lan.receiveArp(bytes, view);
    else if (type === ETHERTYPE.ipv4) this.#receiveIpv4(readIpv4(frame, view, from), toGroup);
    else if (type === ETHERTYPE.ipv6 && this.#six) this.#receiveIpv6(readIpv6(frame, view, from), toGroup);
    else this.#counts.nrNotIp++;
    return true;
  }
  #receiveIpv4(p: Packet | PacketFault, toGroup: boolean): void {
    if (typeof p === "string" || "problem" in p) {
      this.#counts.nrBadFrames++;
      return;
    }
    const isBroadcast = p.destination === 0xffffffff || p.destination === this.subnet.broadcast;
    if (isUdpTo(p, DHCP_PORT.server) && (isBroadcast || p.destination === this.gateway)) {
      const d = readUdp(p);
      if (d) this.#dhcp.receive(p, d);
      return;
    }
    if (toGroup || isBroadcast || (p.destination as number) >= 0xe0000000) this.#counts.nrForeign++;
    else this.#receiveFromGuest(p);
  }
  #receiveIpv6(read: Packet | PacketFault, toGroup: boolean): void {
    const six = this.#six!;
    if (typeof read === "string") {
      this.#counts.nrBadFrames++;
      return;
    }
    const p = "problem" in read ? read.packet : read;
    if (p === read && isNd(p)) return six.discovery.receive(p);
    if (p === read && p.destination === ALL_DHCP && isUdpTo(p, DHCPV6_PORT.server)) {
      const d = isLinkLocal(p.source) && this.#lan.learn(p.source, p.mac) ? readUdp(p) : null;
      if (d) six.dhcp.receive(p, d);
      return;
    }
    if (toGroup || isMulticast(p.destination as bigint)) this.#counts.nrForeign++;
    else this.#receiveFromGuest(read);
  }
  /** A packet for one of the router's own addresses or for one beyond it. */
  #receiveFromGuest(read: Packet | PacketFault): void {
    if (typeof read === "string") {
      this.#counts.nrBadFrames++;
      return;
    }
    const p = "problem" in read ? read.packet : read;
    // Whoever speaks shows where it lives; nobody speaks with an address of others.
    if (!this.#lan.learn(p.source, p.mac)) {
      this.#counts.nrForeign++;
      return;
    }
    if ("problem" in read) return this.#icmp.error(p, read.problem, read.pointer);
    if (p.fragment) {
      const whole = this.#reassembly.add(p, this.#wheel.nowMs());
      if (whole) this.#receiveFromGuest(whole);
      return;
    }
    const isForUs = isOwn(this.#own, p.destination);
    if (!isForUs && p.ttl <= 1) return this.#icmp.error(p, "expired");
    if (!isForUs && isLinkLocal(p.source)) return this.#icmp.error(p, "scope");
    switch (p.protocol) {
      case IPPROTO.tcp: return this.#tcp.receive(p);
      case IPPROTO.udp: return this.#receiveUdp(p);
      case icmpOf(p):
        if (isForUs) this.#icmp.receive(p);
        else this.#icmp.error(p, "host");
        return;
      case NO_NEXT_HEADER:
        if (p.version === 6) return;
    }
    this.#icmp.error(p, "protocol");
  }
  #receiveUdp(p: Packet): void {
    const d = readUdp(p);
    if (!d) this.#counts.nrBadFrames++;
    else if (d.port === DNS_PORT && isGateway(this.#own, p.destination)) this.#dns.receive(p, d);
    else this.#udp.receive(p, d);
  }

  // ---- where to

  #openTcp(destination: Address, port: number, events: StreamEvents) {
    if (port === DNS_PORT && isGateway(this.#own, destination)) return this.#dns.openStream(events);
    const target = this.#route("tcp", destination, port);
    return typeof target === "string" ? target : this.#o.outside.connectTcp(formatAddress(target), port, events);
  }
  #addressOf(forward: Forward): Address | null {
    const { target } = forward;
    return "address" in target ? target.address : "mac" in target ? this.#addressOfMac(target.mac) : this.#leases.addressOfName(target.hostname);
  }
  /** By its lease, or for a guest that asked for none by what it speaks with, IPv4 before IPv6. */
  #addressOfMac(mac: number): Address | null {
    const seen = this.#lan.addressesOf(mac).filter((address) => !isLinkLocal(address));
    return this.#leases.addressOf(mac) ?? seen.find((address) => typeof address === "number") ?? seen[0] ?? null;
  }

  // ---- for those who run it

  /** Listen for the forwards of the options. @throws UserError when a port cannot be had; then none of them listens */
  async start(): Promise<void> {
    const done = await Promise.allSettled(this.#forwards.map((f) => this.#listen(f)));
    const failed = done.find((d) => d.status === "rejected");
    if (!failed) return;
    for (const d of done) if (d.status === "fulfilled") d.value.close();
    throw failed.reason;
  }
  /** Add a forward (parseForward). @throws UserError */
  async addForward(text: string): Promise<OpenForward> {
    return await this.#listen(this.#checkedForward(text));
  }
  async #listen(forward: Forward): Promise<OpenForward> {
    const listener: Listener = forward.protocol === "udp"
      ? await this.#udp.listen(forward, () => this.#addressOf(forward))
      : await this.#o.outside.listenTcp(forward.listenAddress, forward.listenPort, (stream) => {
        const address = this.#addressOf(forward);
        if (address === null) this.#o.log?.(`${this.port.name}: forward ${forward.text}: nobody has that name or MAC, the connection is refused`);
        return address === null ? null : this.#tcp.openToGuest(address, forward.targetPort, stream);
      });
    const open: OpenForward = {
      text: forward.text, address: listener.address, port: listener.port,
      close: () => {
        if (this.#listening.delete(open)) listener.close();
      },
    };
    this.#listening.add(open);
    if (this.#isClosed) open.close();
    return open;
  }
  /** Forwards that listen. */
  get forwards(): OpenForward[] {
    return [...this.#listening];
  }
  /** Leases in force, lowest address first. */
  get leases(): Lease[] {
    return this.#leases.list();
  }
  /** A guest is gone: end its connections and flows outside, and keep its lease for when it comes again. @param guest its MAC or one of its addresses */
  dropGuest(guest: string): void {
    const mac = parseMac(guest), one = mac === null ? parseAddress(guest) : this.#leases.addressOf(mac), addresses = new Set<Address>(mac === null ? [] : this.#lan.addressesOf(mac));
    if (one !== null) addresses.add(one);
    const isMeant = (address: Address, owner: number): boolean => owner === mac || addresses.has(address);
    this.#tcp.drop(isMeant, true);
    this.#udp.drop(isMeant);
    for (const address of addresses) this.#lan.forget(address);
  }
  /** Figures for an inspector; those that begin with `nr` and are in `now` are sizes at the moment, all others sums since the start. */
  get stats() {
    return {
      now: {
        nrTcp: this.#tcp.nrConnections, nrTcpConnecting: this.#tcp.nrConnecting, nrTcpTimeWaits: this.#tcp.nrTimeWaits, nrTcpWaiting: this.#tcp.waiting.size,
        tcpGrantedBytes: this.#tcp.grantedBytes,
        nrUdpFlows: this.#udp.nrFlows, nrUdpForwardPeers: this.#udp.nrForwardPeers, nrDnsQueries: this.#dns.nrQueries, nrReassembling: this.#reassembly.nrDatagrams,
        nrNeighbours: this.#lan.nrNeighbours, nrLeasesHeld: this.#leases.nrHeld, // but for the one of the router's advertisements, which is always there
        nrTimers: this.#wheel.nrTimers - (this.#six && !this.#isClosed ? 1 : 0),
      },
      frames: { ...this.#counts, nrSent: this.#lan.nrSent, nrLost: this.#lan.nrLost, nrForged: this.#lan.nrForged },
      tcp: { ...this.#tcp.counts }, udp: { ...this.#udp.counts }, dns: { ...this.#dns.counts }, dhcp: { ...this.#dhcp.counts },
      icmp: { nrEchoes: this.#icmp.nrEchoes, nrErrors: this.#icmp.nrErrors },
      ipv6: this.#six && this.v6 && {
        network: formatSubnet(this.v6.network), gateway: formatAddress(this.v6.gateway), isRouted: this.#six.advertiser.isRouted,
        advertisements: { ...this.#six.advertiser.counts }, neighbours: { ...this.#six.discovery.counts }, dhcp: { ...this.#six.dhcp.counts },
      },
    };
  }
  /** The router's MAC, as text. */
  get mac(): string {
    return macText(this.#mac);
  }
  /** Reset what is open, close what listens. Safe to call again; the cable is the caller's. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const forward of [...this.#listening]) forward.close();
    this.#tcp.drop(() => true, false);
    this.#udp.drop(() => true);
    this.#dns.close();
    this.#reassembly.close();
    this.#wheel.close();
    this.#lan.close();
  }
}
const isUdpTo = (p: Packet, port: number): boolean => p.protocol === IPPROTO.udp && !p.fragment && p.end - p.at >= 8 && p.view.getUint16(p.at + 2) === port;
