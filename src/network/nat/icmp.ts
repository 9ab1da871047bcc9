/** ICMP of both families (RFC 792, RFC 4443): echoes to the router's own addresses, and errors about guests' packets. */
import { checksumOf, IPPROTO, pseudoSum, sumOf } from "../checksum.ts";
import { isMulticast } from "./address.ts";
import type { TimerWheel } from "./timers.ts";
import { icmpOf, newPacket, type Packet, payloadAt, pseudoSumOf } from "./packet.ts";
import type { Lan } from "./lan.ts";
import { gatewayFor, type Own } from "./own.ts";

/** Types of echoes. */
const ECHO = { 4: { ask: 8, reply: 0 }, 6: { ask: 128, reply: 129 } } as const;
/** What errors say, as type and code in either family. RFC 792, RFC 1812 5.2.7.1; RFC 4443 3 */
const ERRORS = {
  port: { 4: [3, 3], 6: [1, 4] }, prohibited: { 4: [3, 13], 6: [1, 1] }, noRoute: { 4: [3, 1], 6: [1, 0] }, host: { 4: [3, 1], 6: [1, 3] }, scope: { 4: [3, 1], 6: [1, 2] },
  expired: { 4: [11, 0], 6: [3, 0] }, protocol: { 4: [3, 2], 6: [4, 1] }, field: { 4: [12, 0], 6: [4, 0] }, option: { 4: [12, 0], 6: [4, 2] },
} as const;
/** Which of them. */
export type IcmpError = keyof typeof ERRORS;

/** Errors told a second, and in a burst (RFC 1812 4.3.2.8, RFC 4443 2.4 f). */
const ERRORS_PER_SECOND = 200, ERRORS_BURST = 100;
/** of the packet that an error is about: the error stays below 576 bytes (RFC 1812 4.3.2.3), or the least MTU of IPv6 */
const QUOTE_BYTES_MAX = { 4: 528, 6: 1280 - 48 } as const;

/** Answers echoes and tells errors. */
export class Icmp {
  readonly #lan: Lan;
  readonly #wheel: TimerWheel;
  readonly #own: Own;
  #tokens = ERRORS_BURST;
  #tokensMs = 0;
  nrEchoes = 0;
  nrErrors = 0;

  constructor(lan: Lan, wheel: TimerWheel, own: Own) {
    this.#lan = lan;
    this.#wheel = wheel;
    this.#own = own;
  }

  /** A packet to one of the router's own addresses: an echo is answered, all else is of no interest. */
  receive(p: Packet): void {
    if (p.end - p.at < 8 || p.bytes[p.at] !== ECHO[p.version].ask || p.bytes[p.at + 1] !== 0) return;
    if (sumOf(p.bytes, p.at, p.end, p.version === 6 ? pseudoSum(p.bytes, p, p.end - p.at) : 0) !== 0xffff) return;
    const reply = newPacket(p.destination, p.source, icmpOf(p), p.end - p.at);
    reply.set(p.bytes.subarray(p.at, p.end), payloadAt(reply));
    finish(reply, ECHO[p.version].reply, 0);
    this.nrEchoes++;
    this.#lan.send(reply);
  }

  /**
   * Tell a guest what became of its packet; of an ICMP error nothing is told, nor of what went to many, nor more than ERRORS_PER_SECOND.
   * @param pointer how far behind the IP header's first byte the fault lies, where one does
   */
  error(about: Packet, why: IcmpError, pointer = why === "protocol" && about.version === 6 ? about.protocolAt - about.ipAt : 0): void {
    const { version } = about, [type, code] = ERRORS[why][version];
    if (about.protocol === icmpOf(about) && about.bytes[about.at] !== ECHO[version].ask) return;
    if (typeof about.destination === "bigint" && isMulticast(about.destination)) return;
    const nowMs = this.#wheel.nowMs();
    this.#tokens = Math.min(ERRORS_BURST, this.#tokens + (nowMs - this.#tokensMs) * ERRORS_PER_SECOND / 1000);
    this.#tokensMs = nowMs;
    if (this.#tokens < 1) return;
    this.#tokens--;
    const quote = about.bytes.subarray(about.ipAt, Math.min(about.end, about.ipAt + QUOTE_BYTES_MAX[version]));
    const packet = newPacket(gatewayFor(this.#own, about.source), about.source, icmpOf(about), 8 + quote.length), at = payloadAt(packet);
    packet[at + 6] = pointer >>> 8;
    packet[at + 7] = pointer;
    packet.set(quote, at + 8);
    finish(packet, type, code);
    this.nrErrors++;
    this.#lan.send(packet, "good", null, about.mac);
  }
}
function finish(packet: Uint8Array, type: number, code: number): void {
  const at = payloadAt(packet);
  packet[at] = type;
  packet[at + 1] = code;
  packet[at + 2] = packet[at + 3] = 0;
  const checksum = checksumOf(packet, at, packet.length, at === 34 ? 0 : pseudoSumOf(packet, IPPROTO.icmpv6));
  packet[at + 2] = checksum >>> 8;
  packet[at + 3] = checksum;
}
