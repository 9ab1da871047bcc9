/** ICMP (RFC 792): echoes to the router's own addresses, and errors about guests' packets. */
import { checksumOf, IPPROTO, sumOf } from "../checksum.ts";
import type { TimerWheel } from "./timers.ts";
import { newPacket, type Packet, TRANSPORT_AT } from "./ipv4.ts";
import type { Lan } from "./lan.ts";

/** Types. */
export const ICMP = { echoReply: 0, unreachable: 3, echo: 8, timeExceeded: 11 } as const;
/** Codes of `unreachable`. RFC 792, RFC 1812 5.2.7.1 */
export const UNREACHABLE = { net: 0, host: 1, protocol: 2, port: 3, prohibited: 13 } as const;

/** Errors told a second, and in a burst (RFC 1812 4.3.2.8). */
const ERRORS_PER_SECOND = 200, ERRORS_BURST = 100;
/** of the packet that an error is about: its header and 8 bytes at least, and the error stays below 576 bytes (RFC 1812 4.3.2.3) */
const QUOTE_BYTES_MAX = 528;

/** Answers echoes and tells errors. */
export class Icmp {
  readonly #lan: Lan;
  readonly #wheel: TimerWheel;
  readonly #address: number;
  #tokens = ERRORS_BURST;
  #tokensMs = 0;
  nrEchoes = 0;
  nrErrors = 0;

  /** @param address that errors come from */
  constructor(lan: Lan, wheel: TimerWheel, address: number) {
    this.#lan = lan;
    this.#wheel = wheel;
    this.#address = address;
  }

  /** A packet to one of the router's own addresses: an echo is answered, all else is of no interest. */
  receive(p: Packet): void {
    if (p.end - p.at < 8 || p.bytes[p.at] !== ICMP.echo || p.bytes[p.at + 1] !== 0) return;
    if (sumOf(p.bytes, p.at, p.end) !== 0xffff) return;
    const reply = newPacket(p.destination, p.source, IPPROTO.icmp, p.end - p.at);
    reply.set(p.bytes.subarray(p.at, p.end), TRANSPORT_AT);
    this.#finish(reply, ICMP.echoReply, 0);
    this.nrEchoes++;
    this.#lan.send(reply);
  }

  /** Tell a guest what became of its packet; of an ICMP error nothing is told, nor more than ERRORS_PER_SECOND. */
  error(about: Packet, type: typeof ICMP.unreachable | typeof ICMP.timeExceeded, code: number): void {
    if (about.protocol === IPPROTO.icmp && about.bytes[about.at] !== ICMP.echo) return;
    const nowMs = this.#wheel.nowMs();
    this.#tokens = Math.min(ERRORS_BURST, this.#tokens + (nowMs - this.#tokensMs) * ERRORS_PER_SECOND / 1000);
    this.#tokensMs = nowMs;
    if (this.#tokens < 1) return;
    this.#tokens--;
    const quote = about.bytes.subarray(about.ipAt, Math.min(about.end, about.ipAt + QUOTE_BYTES_MAX));
    const packet = newPacket(this.#address, about.source, IPPROTO.icmp, 8 + quote.length);
    packet.set(quote, TRANSPORT_AT + 8);
    this.#finish(packet, type, code);
    this.nrErrors++;
    this.#lan.send(packet, "good", null, about.mac);
  }
  #finish(packet: Uint8Array, type: number, code: number): void {
    packet[TRANSPORT_AT] = type;
    packet[TRANSPORT_AT + 1] = code;
    packet[TRANSPORT_AT + 2] = packet[TRANSPORT_AT + 3] = 0;
    const checksum = checksumOf(packet, TRANSPORT_AT, packet.length);
    packet[TRANSPORT_AT + 2] = checksum >>> 8;
    packet[TRANSPORT_AT + 3] = checksum;
  }
}
