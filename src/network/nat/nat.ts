/**
 * A router in user mode: it gives the guests on a cable an IPv4 network with DHCP and DNS, and opens on the host, as an ordinary user, what they open.
 * docs/network-nat.md tells what a guest sees.
 */
import { UserError } from "../../base/errors.ts";
import { ETHERTYPE, IPPROTO } from "../checksum.ts";
import type { Frame, Port } from "../port.ts";
import { isGroup, macAt, macText, parseIpv4, parseMac } from "../address.ts";
import { contains, formatIpv4, parseSubnet, type Subnet } from "./address.ts";
import { hostClock, type NetClock } from "../clock.ts";
import { TimerWheel } from "./timers.ts";
import { cleanHostname, DHCP_PORT, DhcpServer } from "./dhcp.ts";
import { DNS_PORT, DnsForwarder, type Names } from "./dns.ts";
import { type Forward, parseForward } from "./forward.ts";
import { ICMP, Icmp, UNREACHABLE } from "./icmp.ts";
import { type Packet, readPacket, Reassembly } from "./ipv4.ts";
import { Lan } from "./lan.ts";
import { type Binding, type Lease, Leases } from "./leases.ts";
import type { Listener, Outside, StreamEvents } from "./outside.ts";
import { ALLOW_ALL, parsePolicy, type Policy } from "./policy.ts";
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
  /** whether guests may reach the host's loopback through `hostAddress`; false */
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
  /** whether ARP is answered for addresses where nobody is */
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

const POOL_MAX = 4096, LEASE_MS = 24 * 3600_000, TAKEN_MS = 600_000, LOOPBACK = 0x7f000001;
const hostnameOf = (text: string | null | undefined): string | null => (text ? cleanHostname(new TextEncoder().encode(text)) : null);
const DOMAIN = /^(?=.{1,253}$)(?!-)[a-z\d-]{1,63}(?<!-)(\.(?!-)[a-z\d-]{1,63}(?<!-))*$/;

/** A network for the guests on one cable (or on the bridge at its other end). It holds timers and sockets until it is closed. */
export class NatNetwork {
  /** The router's end of the cable. */
  readonly port: Port;
  readonly subnet: Subnet;
  readonly gateway: number;
  readonly hostAddress: number;
  readonly #o: NatOptions;
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
  readonly #reassembly = new Reassembly();
  readonly #forwards: readonly Forward[];
  readonly #listening = new Set<OpenForward>();
  #isClosed = false;
  readonly #counts = { nrFrames: 0, nrBadFrames: 0, nrNotIpv4: 0, nrForeign: 0 };

  /** @throws UserError where an option is wrong */
  constructor(options: NatOptions) {
    this.#o = options;
    const subnet = this.subnet = parseSubnet(options.subnet ?? "10.0.2.0/24"), mtu = options.mtu ?? 1500;
    if (subnet.prefix < 8 || subnet.prefix > 29) throw new UserError(`Subnet ${options.subnet}: the prefix length of a router's network is 8 to 29`);
    if (!Number.isInteger(mtu) || mtu < 576 || mtu > 65535) throw new UserError(`MTU ${mtu} is not a number from 576 to 65535`);
    this.gateway = this.#hostIn(options.gateway, subnet.network + 1, "Gateway");
    this.hostAddress = this.#hostIn(options.hostAddress, this.gateway === subnet.network + 2 ? subnet.network + 1 : subnet.network + 2, "Host address");
    if (this.gateway === this.hostAddress) throw new UserError(`Gateway and host address are both ${formatIpv4(this.gateway)}`);
    const mac = options.mac === undefined ? 0x02d0 * 2 ** 32 + this.gateway : parseMac(options.mac);
    if (mac === null || isGroup(mac) || mac === 0) throw new UserError(`"${options.mac}" is not a station's MAC address`);
    this.#mac = mac;
    this.#domain = (options.domain ?? "domus.internal").toLowerCase();
    if (!DOMAIN.test(this.#domain)) throw new UserError(`Domain "${options.domain}" is not a DNS name`);
    this.#policy = typeof options.policy === "function" ? options.policy : options.policy ? parsePolicy(options.policy) : ALLOW_ALL;
    this.#forwards = (options.forwards ?? []).map((text) => this.#checkedForward(text));

    const random = options.random ?? (() => crypto.getRandomValues(new Uint32Array(1))[0]!);
    const wheel = this.#wheel = new TimerWheel(options.clock ?? hostClock), { outside } = options, gateway = this.gateway;
    const log = (sentence: string) => options.log?.(`${this.port.name}: ${sentence}`);
    const limits = { ...TCP_LIMITS, ...UDP_LIMITS, ...options.limits };
    this.port = this.#makePort(options.name ?? "nat");
    this.#lan = new Lan({
      subnet, mac, mtu, own: [gateway, this.hostAddress], answersForAbsent: options.answersForAbsent ?? false, wheel, port: this.port,
      holderOf: (address) => this.#leases.holderOf(address), log,
    });
    this.#leases = this.#makeLeases();
    const lan = this.#lan;
    this.#icmp = new Icmp(lan, wheel, gateway);
    this.#dhcp = new DhcpServer({
      lan, wheel, leases: this.#leases, subnet, gateway, dns: gateway, domain: this.#domain, mtu, leaseMs: options.leaseMs ?? LEASE_MS, log,
    });
    this.#dns = new DnsForwarder({ lan, wheel, outside, names: this.#names(), random });
    const route = (protocol: "tcp" | "udp", address: number, port: number) => this.#route(protocol, address, port);
    this.#udp = new UdpLayer({
      lan, wheel, icmp: this.#icmp, outside, limits, gateway, route: (address, port) => route("udp", address, port),
      seenAs: (address) => (address === LOOPBACK ? this.hostAddress : address),
    });
    this.#tcp = new TcpLayer({
      lan, wheel, icmp: this.#icmp, mtu, random, limits, gateway, log,
      open: (destination, port, events) => this.#openTcp(destination, port, events),
    });
    lan.onRoom = () => this.#tcp.goOn();
    lan.onAbsent = (address) => this.#tcp.absent(address);
  }
  #hostIn(text: string | undefined, otherwise: number, what: string): number {
    const address = text === undefined ? otherwise : parseIpv4(text), s = this.subnet;
    if (address === null || !contains(s, address) || address === s.network || address === s.broadcast) {
      throw new UserError(`${what} "${text}" is not an address of a host in ${formatIpv4(s.network)}/${s.prefix}`);
    }
    return address;
  }
  #checkedForward(text: string): Forward {
    const forward = parseForward(text), { target } = forward;
    if ("address" in target && (this.#hostIn(formatIpv4(target.address), 0, `Forward "${text}": guest`) === this.gateway || target.address === this.hostAddress)) {
      throw new UserError(`Forward "${text}": ${formatIpv4(target.address)} is the router's own address`);
    }
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
  #names(): Names {
    const domain = this.#domain, fixed = new Map<string, number>();
    for (const d of [domain, "domus.internal"]) fixed.set(`gateway.${d}`, this.gateway).set(`host.${d}`, this.hostAddress);
    return {
      addressOf: (name) => {
        const known = fixed.get(name);
        if (known !== undefined) return known;
        if (name.endsWith(`.${domain}`)) return this.#leases.addressOfName(name.slice(0, -domain.length - 1));
        return name === "" || name.includes(".") ? undefined : this.#leases.addressOfName(name) ?? undefined;
      },
      nameOf: (address) => {
        if (!contains(this.subnet, address)) return undefined;
        const label = address === this.gateway ? "gateway" : address === this.hostAddress ? "host" : this.#leases.nameOf(address);
        return label === null ? null : `${label}.${domain}`;
      },
    };
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
    else if (type === ETHERTYPE.ipv4) this.#receiveIp(frame, view, from, toGroup);
    else this.#counts.nrNotIpv4++;
    return true;
  }
  #receiveIp(frame: Frame, view: DataView, mac: number, toGroup: boolean): void {
    let p = readPacket(frame, view, mac);
    if (typeof p === "string") {
      this.#counts.nrBadFrames++;
      return;
    }
    const isBroadcast = p.destination === 0xffffffff || p.destination === this.subnet.broadcast;
    const isDhcp = p.protocol === IPPROTO.udp && !p.isFragment && p.end - p.at >= 8 && view.getUint16(p.at + 2) === DHCP_PORT.server
      && (isBroadcast || p.destination === this.gateway);
    if (isDhcp) {
      const d = readUdp(p);
      if (d) this.#dhcp.receive(p, d);
      return;
    }
    // Whoever speaks shows where it lives; nobody speaks with an address of others.
    if (toGroup || isBroadcast || p.destination >= 0xe0000000 || !this.#lan.learn(p.source, mac)) {
      this.#counts.nrForeign++;
      return;
    }
    if (p.isFragment) {
      const whole: Packet | null = this.#reassembly.add(p, this.#wheel.nowMs());
      if (!whole) return;
      p = whole;
    }
    const isOwn = p.destination === this.gateway || p.destination === this.hostAddress;
    if (!isOwn && p.ttl <= 1) return this.#icmp.error(p, ICMP.timeExceeded, 0);
    switch (p.protocol) {
      case IPPROTO.tcp: return this.#tcp.receive(p);
      case IPPROTO.udp: return this.#receiveUdp(p);
      case IPPROTO.icmp:
        if (isOwn) this.#icmp.receive(p);
        else this.#icmp.error(p, ICMP.unreachable, UNREACHABLE.host);
        return;
      default:
        return this.#icmp.error(p, ICMP.unreachable, UNREACHABLE.protocol);
    }
  }
  #receiveUdp(p: Packet): void {
    const d = readUdp(p);
    if (!d) this.#counts.nrBadFrames++;
    else if (p.destination === this.gateway && d.port === DNS_PORT) this.#dns.receive(p, d);
    else this.#udp.receive(p, d);
  }

  // ---- where to

  #route(protocol: "tcp" | "udp", destination: number, port: number): number | "refused" | "prohibited" | "unreachable" {
    if (destination === this.gateway) return "refused";
    if (destination === this.hostAddress) {
      if (!this.#o.hostAccess) return "refused";
      return this.#policy(protocol, destination, port) ? LOOPBACK : "prohibited";
    }
    const net = destination >>> 24;
    // "This network" and loopback would be the host itself (RFC 6890); neighbours are not behind the router.
    if (net === 0 || net === 127 || net >= 224 || contains(this.subnet, destination)) return "unreachable";
    return this.#policy(protocol, destination, port) ? destination : "prohibited";
  }
  #openTcp(destination: number, port: number, events: StreamEvents) {
    if (destination === this.gateway && port === DNS_PORT) return this.#dns.openStream(events);
    const target = this.#route("tcp", destination, port);
    return typeof target === "string" ? target : this.#o.outside.connectTcp(formatIpv4(target), port, events);
  }
  #addressOf(forward: Forward): number | null {
    const { target } = forward;
    return "address" in target ? target.address : "mac" in target ? this.#addressOfMac(target.mac) : this.#leases.addressOfName(target.hostname);
  }
  /** By its lease, or for a guest that asked for none by what it speaks with. */
  #addressOfMac(mac: number): number | null {
    return this.#leases.addressOf(mac) ?? this.#lan.addressOf(mac);
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
  /** A guest is gone: end its connections and flows outside, and keep its lease for when it comes again. @param guest its MAC or its address */
  dropGuest(guest: string): void {
    const mac = parseMac(guest), address = mac === null ? parseIpv4(guest) : this.#addressOfMac(mac);
    if (address === null) return;
    this.#tcp.drop(address, true);
    this.#udp.drop(address);
    this.#lan.forget(address);
  }
  /** Figures for an inspector; those that begin with `nr` and are in `now` are sizes at the moment, all others sums since the start. */
  get stats() {
    return {
      now: {
        nrTcp: this.#tcp.nrConnections, nrTcpConnecting: this.#tcp.nrConnecting, nrTcpTimeWaits: this.#tcp.nrTimeWaits, nrTcpWaiting: this.#tcp.waiting.size,
        tcpGrantedBytes: this.#tcp.grantedBytes,
        nrUdpFlows: this.#udp.nrFlows, nrUdpForwardPeers: this.#udp.nrForwardPeers, nrDnsQueries: this.#dns.nrQueries, nrReassembling: this.#reassembly.nrDatagrams,
        nrNeighbours: this.#lan.nrNeighbours, nrLeasesHeld: this.#leases.nrHeld, nrTimers: this.#wheel.nrTimers,
      },
      frames: { ...this.#counts, nrSent: this.#lan.nrSent, nrLost: this.#lan.nrLost, nrForged: this.#lan.nrForged },
      tcp: { ...this.#tcp.counts }, udp: { ...this.#udp.counts }, dns: { ...this.#dns.counts }, dhcp: { ...this.#dhcp.counts },
      icmp: { nrEchoes: this.#icmp.nrEchoes, nrErrors: this.#icmp.nrErrors },
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
    this.#tcp.drop(null, false);
    this.#udp.drop(null);
    this.#dns.close();
    this.#reassembly.close();
    this.#wheel.close();
    this.#lan.close();
  }
}
