/** Blocks of a pcapng file, little endian: draft-ietf-opsawg-pcapng. A file is a section header, then interfaces, each before its first packet, packets, and statistics. */

const BLOCK = { section: 0x0a0d0d0a, interface: 1, statistics: 5, packet: 6 } as const;
const BYTE_ORDER = 0x1a2b3c4d, LINKTYPE_ETHERNET = 1;
/** Option codes: 3.5, and of sections 4.1, interfaces 4.2, packets 4.3, statistics 4.6. */
const OPTION = { end: 0, comment: 1, shb_userappl: 4, if_name: 2, if_tsresol: 9, epb_flags: 2, epb_dropcount: 4, isb_starttime: 2, isb_endtime: 3, isb_ifrecv: 4, isb_ifdrop: 5 } as const;
/** if_tsresol: times are counted in 10^-9 s. */
const NANOSECONDS = 9;
const DIRECTION = { in: 1, out: 2 } as const;
const TEXT_BYTES_MAX = 1000;

type Option = readonly [code: number, value: Uint8Array];
const text = (code: number, value: string): Option => {
  // Cut between characters: what does not fit is left out by the encoder.
  const bytes = new Uint8Array(TEXT_BYTES_MAX), { written } = new TextEncoder().encodeInto(value, bytes);
  return [code, bytes.subarray(0, written)];
};
const u64 = (code: number, value: bigint): Option => {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  return [code, bytes];
};
/** A time is two words, the high one first - 4.3. */
const time = (code: number, ns: bigint): Option => u64(code, (ns << 32n) | (ns >> 32n & 0xffff_ffffn));
const u32 = (code: number, value: number): Option => [code, Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24)];
const padded = (lengthBytes: number): number => (lengthBytes + 3) & ~3;

/** A block: `body` begins with its `head` words, then `data`, then options. */
function block(type: number, head: readonly number[], data: Uint8Array, options: readonly Option[]): Uint8Array<ArrayBuffer> {
  const optionsBytes = options.length === 0 ? 0 : options.reduce((sum, [, value]) => sum + 4 + padded(value.length), 4);
  const totalBytes = 12 + head.length * 4 + padded(data.length) + optionsBytes, bytes = new Uint8Array(totalBytes), view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, totalBytes, true);
  head.forEach((word, i) => view.setUint32(8 + i * 4, word, true));
  let at = 8 + head.length * 4;
  bytes.set(data, at);
  at += padded(data.length);
  for (const [code, value] of options) {
    view.setUint16(at, code, true);
    view.setUint16(at + 2, value.length, true);
    bytes.set(value, at + 4);
    at += 4 + padded(value.length);
  }
  view.setUint32(totalBytes - 4, totalBytes, true);
  return bytes;
}
const NOTHING = new Uint8Array(0);

/** What a file begins with. */
export const sectionBlock = (application: string, comment?: string): Uint8Array<ArrayBuffer> =>
  block(BLOCK.section, [BYTE_ORDER, 1, 0xffff_ffff, 0xffff_ffff], NOTHING, [text(OPTION.shb_userappl, application), ...(comment ? [text(OPTION.comment, comment)] : [])]);
/** An Ethernet interface. The first is number 0, the next 1 ... @param snapLenBytes at most so many bytes of a packet are kept; 0: all */
export const interfaceBlock = (name: string, snapLenBytes: number): Uint8Array<ArrayBuffer> =>
  block(BLOCK.interface, [LINKTYPE_ETHERNET, snapLenBytes], NOTHING, [text(OPTION.if_name, name), [OPTION.if_tsresol, Uint8Array.of(NANOSECONDS)]]);

/** One packet. */
export type Packet = {
  readonly interfaceNr: number;
  /** since 1970, in ns */
  readonly timeNs: bigint;
  /** what is kept of it, and how long it was */
  readonly bytes: Uint8Array;
  readonly lengthBytes: number;
  readonly direction?: "in" | "out";
  readonly comment?: string;
  /** packets of this interface that were lost since the last one */
  readonly nrDropped?: number;
};
/** A packet with what is known of it. */
export function packetBlock(packet: Packet): Uint8Array<ArrayBuffer> {
  const { timeNs, bytes } = packet, options: Option[] = [];
  if (packet.comment) options.push(text(OPTION.comment, packet.comment));
  if (packet.direction) options.push(u32(OPTION.epb_flags, DIRECTION[packet.direction]));
  if (packet.nrDropped) options.push(u64(OPTION.epb_dropcount, BigInt(packet.nrDropped)));
  return block(BLOCK.packet, [packet.interfaceNr, Number(timeNs >> 32n & 0xffff_ffffn), Number(timeNs & 0xffff_ffffn), bytes.length, packet.lengthBytes], bytes, options);
}
/** How many packets an interface saw between two times, and how many were lost. */
export const statisticsBlock = (interfaceNr: number, from: bigint, to: bigint, nrReceived: number, nrDropped: number): Uint8Array<ArrayBuffer> =>
  block(BLOCK.statistics, [interfaceNr, Number(to >> 32n & 0xffff_ffffn), Number(to & 0xffff_ffffn)], NOTHING,
    [time(OPTION.isb_starttime, from), time(OPTION.isb_endtime, to), u64(OPTION.isb_ifrecv, BigInt(nrReceived)), u64(OPTION.isb_ifdrop, BigInt(nrDropped))]);
