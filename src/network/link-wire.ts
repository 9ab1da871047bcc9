/**
 * What goes over a link between two machines, big endian.
 *
 * Ours, version 1: each end says hello, then sends records of an 8-byte head and a frame.
 *
 *     hello   | "DOMUSLNK" | highest version 16 | offers 16: 1 gso, 2 blank checksums | reserved 32, zero |
 *     record  | frame's bytes 32 | kind 8: 0 frame, 1 alive | offload 8: bits 0-1 checksum, bits 2-3 gso | mss 16 | frame |
 *
 * QEMU's (`-netdev stream`, `-netdev socket`): no hello, records of a 32-bit length and a frame.
 */
import type { Frame, Gso } from "./port.ts";

/** Which of them is spoken. */
export type LinkMode = "domus" | "qemu";
/** What an end takes. */
export type Offers = { readonly takesGso: boolean; readonly takesBlankChecksum: boolean };
/** The peer broke the protocol; the message is a sentence without its subject. */
export class LinkFault extends Error {
  override name = "LinkFault";
}

const MAGIC = 0x444f_4d55_534c_4e4bn, VERSION = 1, OFFER = { gso: 1, blankChecksum: 2 } as const;
const KIND = { frame: 0, alive: 1 } as const;
/** By their number on the wire. */
const CHECKSUMS = ["unknown", "blank", "good"] as const, GSO_TYPES = [null, "tcpv4", "tcpv6"] as const;
/** 64 KiB of IP behind an Ethernet header and two tags; QEMU's own limit is a little above. */
const FRAME_BYTES_MAX = 65535 + 14 + 8;

/** A record that was read: null for one that only says that the peer lives. */
export type Cut = { readonly frame: Frame | null };
const HELLO_BYTES = 16, HEAD_BYTES: Readonly<Record<LinkMode, number>> = { domus: 8, qemu: 4 };

/** Our hello. */
export function helloBytes(offers: Offers): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HELLO_BYTES), view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC);
  view.setUint16(8, VERSION);
  view.setUint16(10, (offers.takesGso ? OFFER.gso : 0) | (offers.takesBlankChecksum ? OFFER.blankChecksum : 0));
  return bytes;
}
/** A record that says that we live; only `domus` has one. */
export const aliveRecord = (): Uint8Array<ArrayBuffer> => Uint8Array.of(0, 0, 0, 0, KIND.alive, 0, 0, 0);
/** What stands before a frame's bytes. */
export function headOf(frame: Frame, mode: LinkMode): Uint8Array<ArrayBuffer> {
  const head = new Uint8Array(HEAD_BYTES[mode]), view = new DataView(head.buffer);
  view.setUint32(0, frame.bytes.length);
  if (mode === "qemu") return head;
  view.setUint8(5, CHECKSUMS.indexOf(frame.checksum) | (GSO_TYPES.indexOf(frame.gso?.type ?? null) << 2));
  view.setUint16(6, frame.gso?.mss ?? 0);
  return head;
}

/** Cuts a stream into the peer's hello and records. It holds one record's bytes at most. */
export class RecordCutter {
  readonly #mode: LinkMode;
  readonly #ours: Offers;
  /** what the peer takes; null until its hello was read. QEMU takes plain frames. */
  offers: Offers | null;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  #head: Uint8Array<ArrayBuffer>;
  #body: Uint8Array<ArrayBuffer> | null = null;
  #filled = 0;

  /** @param ours what the peer was told that we take */
  constructor(mode: LinkMode, ours: Offers) {
    this.#mode = mode;
    this.#ours = ours;
    this.offers = mode === "qemu" ? { takesGso: false, takesBlankChecksum: false } : null;
    this.#head = new Uint8Array(mode === "qemu" ? HEAD_BYTES.qemu : HELLO_BYTES);
  }
  /** More bytes of the stream; what was fed before has been taken out with `next`. */
  feed(chunk: Uint8Array): void {
    this.#chunk = chunk;
    this.#at = 0;
  }
  #fill(into: Uint8Array): boolean {
    const n = Math.min(into.length - this.#filled, this.#chunk.length - this.#at);
    into.set(this.#chunk.subarray(this.#at, this.#at + n), this.#filled);
    this.#at += n;
    this.#filled += n;
    if (this.#filled < into.length) return false;
    this.#filled = 0;
    return true;
  }
  /** The next record; null: more bytes are needed. The hello is read on the way and found in `offers`. @throws LinkFault */
  next(): Cut | null {
    if (!this.offers) {
      if (!this.#fill(this.#head)) return null;
      this.offers = this.#hello();
      this.#head = new Uint8Array(HEAD_BYTES.domus);
    }
    if (!this.#body) {
      if (!this.#fill(this.#head)) return null;
      const lengthBytes = new DataView(this.#head.buffer).getUint32(0);
      if (lengthBytes > FRAME_BYTES_MAX) throw new LinkFault(`announces a frame of ${lengthBytes} bytes, and none is longer than ${FRAME_BYTES_MAX}`);
      this.#body = new Uint8Array(lengthBytes);
    }
    if (!this.#fill(this.#body)) return null;
    const bytes = this.#body;
    this.#body = null;
    return { frame: this.#mode === "qemu" ? { bytes, checksum: "unknown", gso: null } : this.#frame(bytes) };
  }
  #hello(): Offers {
    const view = new DataView(this.#head.buffer), version = view.getUint16(8), offers = view.getUint16(10);
    if (view.getBigUint64(0) !== MAGIC) throw new LinkFault("does not say hello as the other end of a link does");
    if (version < VERSION) throw new LinkFault(`speaks version ${version} of the link's protocol, and we speak ${VERSION}`);
    return { takesGso: (offers & OFFER.gso) !== 0, takesBlankChecksum: (offers & OFFER.blankChecksum) !== 0 };
  }
  #frame(bytes: Uint8Array<ArrayBuffer>): Frame | null {
    const [kind = 0, offload = 0] = this.#head.subarray(4), mss = new DataView(this.#head.buffer).getUint16(6);
    if (kind === KIND.alive && bytes.length === 0) return null;
    const checksum = CHECKSUMS[offload & 3], type = GSO_TYPES[offload >>> 2];
    if (kind !== KIND.frame || checksum === undefined || type === undefined) throw new LinkFault(`sends a record of kind ${kind} with offload ${offload}, which does not exist`);
    if (type && (checksum !== "blank" || !this.#ours.takesGso)) throw new LinkFault("sends a large frame in a form that it was not offered");
    if (checksum === "blank" && !this.#ours.takesBlankChecksum) throw new LinkFault("sends a blank checksum, which it was not offered");
    return { bytes, checksum, gso: type ? ({ type, mss } satisfies Gso) : null };
  }
}
