/** The DHCP server (RFC 2131, options of RFC 2132) on the gateway's address. Its whole state is the leases; relays are not served. */
import { isGroup, macAt, macText } from "../address.ts";
import { BROADCAST_MAC, contains, putMac, type Subnet } from "./address.ts";
import type { TimerWheel } from "./timers.ts";
import type { Packet } from "./packet.ts";
import type { Lan } from "./lan.ts";
import type { Leases } from "./leases.ts";
import { Throttle } from "./throttle.ts";
import { type Datagram, sendUdp } from "./udp.ts";

/** UDP ports. RFC 2131 4.1 */
export const DHCP_PORT = { server: 67, client: 68 } as const;
/** Message types. RFC 2132 9.6 */
export const DHCP = { DISCOVER: 1, OFFER: 2, REQUEST: 3, DECLINE: 4, ACK: 5, NAK: 6, RELEASE: 7, INFORM: 8 } as const;
/** Option codes. RFC 2132 */
export const OPTION = {
  pad: 0, mask: 1, router: 3, dns: 6, hostname: 12, domain: 15, mtu: 26, broadcast: 28, requestedAddress: 50, leaseTime: 51, overload: 52, type: 53, server: 54,
  parameters: 55, message: 56, renewalTime: 58, rebindingTime: 59, end: 255,
} as const;
const MAGIC = 0x63825363, FIXED_BYTES = 240, REPLY_BYTES_MIN = 300, BROADCAST_FLAG = 0x8000;
const FOREVER_SECONDS = 0xffffffff;

/** Messages that one MAC may send: a burst, and then so many a second. */
const BURST = 20, PER_SECOND = 2;

/** What the server hands out and whence. */
export type DhcpOptions = {
  readonly lan: Lan;
  readonly wheel: TimerWheel;
  readonly leases: Leases;
  readonly subnet: Subnet;
  readonly gateway: number;
  readonly dns: number;
  readonly domain: string;
  readonly mtu: number;
  readonly leaseMs: number;
  readonly log: (sentence: string) => void;
};

/** A message's options by code; of one that comes twice the parts are joined (RFC 3396). @returns null where they do not hold together */
export function readOptions(bytes: Uint8Array): Map<number, Uint8Array> | null {
  const options = new Map<number, Uint8Array>();
  const read = (from: number, to: number): boolean => {
    for (let at = from; at < to; ) {
      const code = bytes[at++]!;
      if (code === OPTION.end) return true;
      if (code === OPTION.pad) continue;
      const length = bytes[at++];
      if (length === undefined || at + length > to) return false;
      const part = bytes.subarray(at, at + length), before = options.get(code);
      options.set(code, before ? Uint8Array.of(...before, ...part) : part);
      at += length;
    }
    return true;
  };
  if (!read(FIXED_BYTES, bytes.length)) return null;
  const overload = options.get(OPTION.overload)?.[0] ?? 0;
  if (overload & 1 && !read(108, 236)) return null;
  if (overload & 2 && !read(44, 108)) return null;
  return options;
}
/** A guest's name for itself as a DNS label in lower case; null where it is none. */
export function cleanHostname(bytes: Uint8Array | undefined): string | null {
  if (!bytes || bytes.length > 255) return null;
  const label = String.fromCharCode(...bytes).replace(/\0+$/, "").split(".")[0]!.toLowerCase();
  return /^(?!-)[a-z\d-]{1,63}(?<!-)$/.test(label) && !/^\d+$/.test(label) ? label : null;
}

/** Answers the guests' DHCP messages; it keeps nothing but how often each MAC asks. */
export class DhcpServer {
  readonly #o: DhcpOptions;
  readonly #throttle = new Throttle(BURST, PER_SECOND);
  readonly counts = { nrRequests: 0, nrBad: 0, nrThrottled: 0, nrExhausted: 0, nrNaks: 0 };

  constructor(options: DhcpOptions) {
    this.#o = options;
  }

  /** A datagram to port 67. */
  receive(p: Packet, d: Datagram): void {
    const bytes = p.bytes.subarray(d.from, d.to), view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const options = bytes.length >= FIXED_BYTES && view.getUint32(236) === MAGIC ? readOptions(bytes) : null, type = options?.get(OPTION.type);
    // BOOTREQUEST over Ethernet, not through a relay
    if (!options || type?.length !== 1 || bytes[0] !== 1 || bytes[1] !== 1 || bytes[2] !== 6 || view.getUint32(24) !== 0 || isGroup(macAt(bytes, 28))) {
      this.counts.nrBad++;
      return;
    }
    const mac = macAt(bytes, 28), ciaddr = view.getUint32(12), { leases } = this.#o;
    if (!this.#throttle.may(mac, this.#o.wheel.nowMs())) {
      this.counts.nrThrottled++;
      return;
    }
    this.counts.nrRequests++;
    const addressOption = (code: number): number => {
      const value = options.get(code);
      return value?.length === 4 ? ((value[0]! << 24) | (value[1]! << 16) | (value[2]! << 8) | value[3]!) >>> 0 : 0;
    };
    const requested = addressOption(OPTION.requestedAddress), server = addressOption(OPTION.server), hostname = cleanHostname(options.get(OPTION.hostname));
    if (server !== 0 && server !== this.#o.gateway) return;
    switch (type[0]) {
      case DHCP.DISCOVER: {
        const address = leases.offer(mac, requested);
        if (address !== null) this.#reply(p, view, options, mac, DHCP.OFFER, address);
        else if (this.counts.nrExhausted++ < 3) this.#o.log(`no address is left for ${macText(mac)}`);
        return;
      }
      case DHCP.REQUEST: {
        // SELECTING and INIT-REBOOT name the address in the option, RENEWING and REBINDING in ciaddr (4.3.2).
        const address = requested || ciaddr;
        if (address !== 0 && leases.bind(mac, address, hostname, this.#o.leaseMs)) {
          this.#o.lan.learn(address, mac);
          this.#reply(p, view, options, mac, DHCP.ACK, address);
        } else {
          this.counts.nrNaks++;
          this.#reply(p, view, options, mac, DHCP.NAK, 0);
        }
        return;
      }
      case DHCP.DECLINE:
        return leases.decline(mac, requested);
      case DHCP.RELEASE:
        this.#o.lan.forget(ciaddr);
        return leases.release(mac, ciaddr);
      case DHCP.INFORM:
        if (contains(this.#o.subnet, ciaddr)) this.#reply(p, view, options, mac, DHCP.ACK, 0);
        return;
      default:
        this.counts.nrBad++;
    }
  }

  #reply(p: Packet, request: DataView, asked: ReadonlyMap<number, Uint8Array>, mac: number, type: number, address: number): void {
    const o = this.#o, ciaddr = request.getUint32(12), isNak = type === DHCP.NAK;
    const options: number[] = [], word = (n: number) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
    const put = (code: number, value: readonly number[]) => { options.push(code, value.length, ...value); };
    put(OPTION.type, [type]);
    put(OPTION.server, word(o.gateway));
    if (!isNak) {
      if (address !== 0) {
        const seconds = o.leaseMs === Number.POSITIVE_INFINITY ? FOREVER_SECONDS : Math.min(FOREVER_SECONDS - 1, Math.floor(o.leaseMs / 1000));
        put(OPTION.leaseTime, word(seconds));
        put(OPTION.renewalTime, word(seconds === FOREVER_SECONDS ? seconds : seconds >>> 1));
        put(OPTION.rebindingTime, word(seconds === FOREVER_SECONDS ? seconds : Math.floor(seconds * 0.875)));
      }
      put(OPTION.mask, word(o.subnet.mask));
      put(OPTION.router, word(o.gateway));
      put(OPTION.dns, word(o.dns));
      put(OPTION.broadcast, word(o.subnet.broadcast));
      put(OPTION.domain, [...new TextEncoder().encode(o.domain)]);
      const name = o.leases.nameOf(address);
      if (name && asked.get(OPTION.parameters)?.includes(OPTION.hostname)) put(OPTION.hostname, [...new TextEncoder().encode(name)]);
      // Guests that do not ask have Ethernet's 1500; those that must know are told.
      if (o.mtu !== 1500 || asked.get(OPTION.parameters)?.includes(OPTION.mtu)) put(OPTION.mtu, [o.mtu >>> 8, o.mtu & 255]);
    }
    options.push(OPTION.end);
    const bytes = new Uint8Array(Math.max(REPLY_BYTES_MIN, FIXED_BYTES + options.length)), view = new DataView(bytes.buffer);
    bytes.set([2, 1, 6, 0]);
    view.setUint32(4, request.getUint32(4));
    view.setUint16(10, request.getUint16(10));
    if (type === DHCP.ACK) view.setUint32(12, ciaddr);
    view.setUint32(16, address);
    view.setUint32(20, isNak ? 0 : o.gateway);
    putMac(view, 28, mac);
    view.setUint32(236, MAGIC);
    bytes.set(options, FIXED_BYTES);
    // RFC 2131 4.1: to the address the guest has, else by broadcast where it asks so, else to its station.
    const broadcasts = isNak || (ciaddr === 0 && (request.getUint16(10) & BROADCAST_FLAG) !== 0);
    const to = broadcasts ? 0xffffffff : ciaddr !== 0 ? ciaddr : address;
    sendUdp(o.lan, o.gateway, DHCP_PORT.server, to, DHCP_PORT.client, bytes, broadcasts ? BROADCAST_MAC : ciaddr !== 0 ? p.mac : mac);
  }
}
