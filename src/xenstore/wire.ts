/** xenstore's packets as bytes: public/io/xs_wire.h, docs/misc/xenstore.txt. Strings are bytes here, one UTF-16 unit a byte, so that a token comes back as it went in. */
import { XENSTORE_PAYLOAD_MAX, XS, type XsdError, XsdSockmsg } from "../abi/io/xs_wire.ts";

export type Packet = {
  type: number; req_id: number; tx_id: number; payload: Uint8Array;
  /** of a watch event: the payload as text, where who made it has it already */
  text?: string;
};
/** Bytes of struct xsd_sockmsg. */
export const HEADER_BYTES = XsdSockmsg.sizeof;

/** The client's fault, paid as an ERROR packet with this word. */
export class XsRefusal extends Error {
  override name = "XsRefusal";
  readonly word: XsdError;
  constructor(word: XsdError, what: string) {
    super(`${word}: ${what}`);
    this.word = word;
  }
}

export function encodePacket(p: Packet): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(HEADER_BYTES + p.payload.length), v = new DataView(out.buffer);
  XsdSockmsg.type.set(v, 0, p.type);
  XsdSockmsg.req_id.set(v, 0, p.req_id);
  XsdSockmsg.tx_id.set(v, 0, p.tx_id);
  XsdSockmsg.len.set(v, 0, p.payload.length);
  out.set(p.payload, HEADER_BYTES);
  return out;
}

/** Cuts a stream of bytes into packets. After `broken` nothing more comes out: where the next packet starts is lost. */
export class PacketReader {
  #buffer = new Uint8Array(HEADER_BYTES + XENSTORE_PAYLOAD_MAX);
  #view = new DataView(this.#buffer.buffer);
  #filled = 0;
  /** a header asked for more than XENSTORE_PAYLOAD_MAX */
  broken = false;

  /** Bytes that the packet in hand still lacks; of a whole packet when none is in hand, the header's. */
  get wanted(): number {
    return (this.#filled < HEADER_BYTES ? HEADER_BYTES : HEADER_BYTES + XsdSockmsg.len.get(this.#view, 0)) - this.#filled;
  }
  /** Is a packet in hand? */
  get isWithin(): boolean { return this.#filled > 0; }
  /** Take at most `wanted` bytes. @returns the packet that they complete */
  push(bytes: Uint8Array): Packet | undefined {
    if (this.broken) return undefined;
    this.#buffer.set(bytes, this.#filled);
    this.#filled += bytes.length;
    if (this.#filled < HEADER_BYTES) return undefined;
    const v = this.#view, len = XsdSockmsg.len.get(v, 0);
    if (len > XENSTORE_PAYLOAD_MAX) {
      this.broken = true;
      return undefined;
    }
    if (this.#filled < HEADER_BYTES + len) return undefined;
    this.#filled = 0;
    return {
      type: XsdSockmsg.type.get(v, 0), req_id: XsdSockmsg.req_id.get(v, 0), tx_id: XsdSockmsg.tx_id.get(v, 0),
      payload: this.#buffer.slice(HEADER_BYTES, HEADER_BYTES + len),
    };
  }
}

export function toBytes(s: string): Uint8Array<ArrayBuffer> {
  const b = new Uint8Array(s.length);
  for (let i = 0; i < s.length; i++) b[i] = s.charCodeAt(i);
  return b;
}
export function fromBytes(b: Uint8Array, start = 0, end = b.length): string {
  let s = "";
  for (let at = start; at < end; at += 4096) s += String.fromCharCode(...b.subarray(at, Math.min(end, at + 4096)));
  return s;
}
/** Strings with a zero byte after each. */
export const strings = (...list: readonly string[]): Uint8Array => toBytes(list.map((s) => `${s}\0`).join(""));
/** The payload as strings, each of which must have its zero byte. @throws EINVAL */
export function parseStrings(payload: Uint8Array, least: number, most: number): string[] {
  if (payload.length && payload[payload.length - 1] !== 0) throw new XsRefusal("EINVAL", "The last string has no zero byte");
  const list = payload.length ? fromBytes(payload, 0, payload.length - 1).split("\0") : [];
  if (list.length < least || list.length > most) throw new XsRefusal("EINVAL", `${list.length} strings where ${least} to ${most} belong`);
  return list;
}
/** A decimal number as clients write domain ids, offsets and ports. @throws EINVAL */
export function parseNumber(s: string, max: number): number {
  if (!/^[0-9]{1,15}$/.test(s) || Number(s) > max) throw new XsRefusal("EINVAL", `"${s.slice(0, 32)}" is not a number up to ${max}`);
  return Number(s);
}

export const OK = strings("OK");
export const errorPacket = (to: Packet, word: XsdError): Packet => ({ type: XS.ERROR, req_id: to.req_id, tx_id: to.tx_id, payload: strings(word) });
export function watchEvent(path: string, token: string): Packet {
  const text = `${path}\0${token}\0`;
  return { type: XS.WATCH_EVENT, req_id: 0, tx_id: 0, payload: toBytes(text), text };
}
