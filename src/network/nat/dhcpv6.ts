/** DHCPv6 without state (RFC 8415 6.1): who asks for information gets the DNS server and the domain, for guests that do not take them from router advertisements. Addresses are not given. */
import { putIpv6, putMac } from "./address.ts";
import { encodeName } from "./dns-message.ts";
import type { Lan } from "./lan.ts";
import type { Own6 } from "./own.ts";
import type { Packet } from "./packet.ts";
import { Throttle } from "./throttle.ts";
import type { TimerWheel } from "./timers.ts";
import { type Datagram, sendUdp } from "./udp.ts";

/** UDP ports and the group of all servers and relays. RFC 8415 7.1, 7.2 */
export const DHCPV6_PORT = { client: 546, server: 547 } as const, ALL_DHCP = 0xff02n << 112n | 0x1_0002n;
const MESSAGE = { reply: 7, informationRequest: 11 } as const;
const OPTION = { clientId: 1, serverId: 2, ia: [3, 4, 25], dns: 23, domains: 24 } as const;
/** A link-layer address as DUID. RFC 8415 11.4 */
const DUID_BYTES = 10;
const BURST = 20, PER_SECOND = 2, CLIENT_ID_MAX = 130;

/** What it hands out and whence. */
export type Dhcpv6Options = { readonly lan: Lan; readonly wheel: TimerWheel; readonly own: Own6; readonly mac: number; readonly domain: string };

/** Answers information requests. */
export class Dhcpv6Server {
  readonly #o: Dhcpv6Options;
  readonly #throttle = new Throttle(BURST, PER_SECOND);
  readonly counts = { nrRequests: 0, nrBad: 0, nrThrottled: 0 };

  constructor(options: Dhcpv6Options) {
    this.#o = options;
  }
  /** A datagram to port 547 of all servers. */
  receive(p: Packet, d: Datagram): void {
    const bytes = p.bytes.subarray(d.from, d.to), options = bytes[0] === MESSAGE.informationRequest ? readOptions(bytes) : null, clientId = options?.get(OPTION.clientId);
    if (!options || (clientId && clientId.length > CLIENT_ID_MAX) || OPTION.ia.some((code) => options.has(code)) || !this.#isForUs(options.get(OPTION.serverId))) {
      this.counts.nrBad++;
      return;
    }
    if (!this.#throttle.may(p.mac, this.#o.wheel.nowMs())) {
      this.counts.nrThrottled++;
      return;
    }
    this.counts.nrRequests++;
    const { own, domain, lan } = this.#o, dns = new Uint8Array(16), parts: number[] = [MESSAGE.reply, ...bytes.subarray(1, 4)];
    const put = (code: number, value: Uint8Array) => { parts.push(code >>> 8, code & 255, value.length >>> 8, value.length & 255, ...value); };
    putIpv6(new DataView(dns.buffer), 0, own.gateway);
    if (clientId) put(OPTION.clientId, clientId);
    put(OPTION.serverId, this.#duid());
    put(OPTION.dns, dns);
    put(OPTION.domains, encodeName(domain));
    sendUdp(lan, own.linkLocal, DHCPV6_PORT.server, p.source, DHCPV6_PORT.client, Uint8Array.from(parts), p.mac);
  }
  #duid(): Uint8Array {
    const duid = Uint8Array.of(0, 3, 0, 1, 0, 0, 0, 0, 0, 0);
    putMac(new DataView(duid.buffer), 4, this.#o.mac);
    return duid;
  }
  #isForUs(serverId: Uint8Array | undefined): boolean {
    const duid = this.#duid();
    return !serverId || (serverId.length === DUID_BYTES && serverId.every((b, i) => b === duid[i]));
  }
}
/** Of a message's options by code, the last of each. @returns null where they do not hold together */
function readOptions(bytes: Uint8Array): Map<number, Uint8Array> | null {
  const options = new Map<number, Uint8Array>();
  for (let at = 4; at < bytes.length; ) {
    if (at + 4 > bytes.length) return null;
    const code = (bytes[at]! << 8) | bytes[at + 1]!, length = (bytes[at + 2]! << 8) | bytes[at + 3]!;
    if (at + 4 + length > bytes.length) return null;
    options.set(code, bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return options;
}
