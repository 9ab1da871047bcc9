/**
 * libxc's part of a domain's image, version 3: headers and records, little-endian but for the image header. docs/specs/libxc-migration-stream.pandoc.
 *
 * Records of our own have the optional bit, so that other tools pass them over: DOMUS_DOMAIN comes first and says what Xen's records do not, in JSON with a version;
 * DOMUS_CHECKSUM follows each record and covers it, DOMUS_STORE has the guest's own nodes of the store, DOMUS_CODE places of
 * code that it has run (about.ts). DOMUS_DEFLATED, between two ends that both are Domus, is
 * a PAGE_DATA with its checksum made smaller (deflated.ts), DOMUS_GUEST, in whose place a guest that suspended itself needs nothing, what guest.ts says, and DOMUS_AWAITED and DOMUS_WANTED
 * name pages that come behind their domain (late.ts); they must be understood.
 */
import { struct, u16, u32, u64 } from "../base/struct.ts";
import { type Source, StreamError } from "./stream.ts";
import { xxh32 } from "./xxh32.ts";

export const REC = {
  END: 0, PAGE_DATA: 1, X86_PV_INFO: 2, X86_PV_P2M_FRAMES: 3, X86_PV_VCPU_BASIC: 4, X86_PV_VCPU_EXTENDED: 5, X86_PV_VCPU_XSAVE: 6, SHARED_INFO: 7, X86_TSC_INFO: 8,
  HVM_CONTEXT: 9, HVM_PARAMS: 0xa, TOOLSTACK: 0xb, X86_PV_VCPU_MSRS: 0xc, VERIFY: 0xd, CHECKPOINT: 0xe, CHECKPOINT_DIRTY_PFN_LIST: 0xf, STATIC_DATA_END: 0x10, X86_CPUID_POLICY: 0x11,
  X86_MSR_POLICY: 0x12, DOMUS_DEFLATED: 0x4044_0001, DOMUS_GUEST: 0x4044_0002, DOMUS_AWAITED: 0x4044_0003, DOMUS_WANTED: 0x4044_0004, DOMUS_DOMAIN: 0x8044_0001, DOMUS_CHECKSUM: 0x8044_0002, DOMUS_STORE: 0x8044_0003, DOMUS_CODE: 0x8044_0004,
} as const;
/** Set in the type of a record that need not be understood. */
export const REC_OPTIONAL = 0x8000_0000;
/** Type of a page, bits 60 to 63 of its pfn: XEN_DOMCTL_PFINFO_* >> 28. XALLOC: there, and zero when it is new; XTAB: not there any more. */
export const PFINFO = { NOTAB: 0, XALLOC: 0xe, XTAB: 0xf } as const;
const MARKER = 0xffffffffffffffffn, IDENT = 0x58454e46 /* "XENF" */, VERSION = 3, TYPE_HVM = 2, PAGE_SHIFT = 12;
/** libxc takes no longer record and no more pages in one. */
export const REC_LENGTH_MAX = 8 << 20, BATCH_MAX = 1024;
/** The first value of DOMUS_CHECKSUM: how it is made. */
const CHAINED_XXH32 = 1;

/** Big-endian, unlike all that follows; fields are written by hand. */
const IHDR_BYTES = 24, DHDR = struct(16, { type: u32(0), page_shift: u16(4), reserved: u16(6), xen_major: u32(8), xen_minor: u32(12) });
export const RHDR = struct(8, { type: u32(0), length: u32(4) });
export const PageDataHeader = struct(8, { count: u32(0), reserved: u32(4) });
export const TscInfo = struct(24, { mode: u32(0), khz: u32(4), nsec: u64(8), incarnation: u32(16), reserved: u32(20) });
const HvmParamsHeader = struct(8, { count: u32(0), reserved: u32(4) });
/** xen_cpuid_leaf_t */
export const CpuidLeaf = struct(24, { leaf: u32(0), subleaf: u32(4), a: u32(8), b: u32(12), c: u32(16), d: u32(20) });
/** xen_msr_entry_t */
export const MsrEntry = struct(16, { idx: u32(0), flags: u32(4), val: u64(8) });
/** No subleaf is asked for. */
export const XEN_CPUID_NO_SUBLEAF = 0xffffffff;

/** A record's name, for messages. */
export const recName = (type: number): string => Object.entries(REC).find(([, n]) => n === type)?.[0] ?? `type 0x${type.toString(16)}`;
const padded = (n: number): number => Math.ceil(n / 8) * 8;

// Writing ----------------------------------------------------------------------
/** Image and domain header. @param xen the version that is said to have saved it */
export function headers(xen: { readonly major: number; readonly minor: number }): Uint8Array {
  const dv = new DataView(new ArrayBuffer(IHDR_BYTES + DHDR.sizeof));
  dv.setBigUint64(0, MARKER);
  dv.setUint32(8, IDENT);
  dv.setUint32(12, VERSION);
  DHDR.type.set(dv, IHDR_BYTES, TYPE_HVM);
  DHDR.page_shift.set(dv, IHDR_BYTES, PAGE_SHIFT);
  DHDR.xen_major.set(dv, IHDR_BYTES, xen.major);
  DHDR.xen_minor.set(dv, IHDR_BYTES, xen.minor);
  return new Uint8Array(dv.buffer);
}
/** A record with its header and padding. */
export function record(type: number, body: Uint8Array = new Uint8Array(0)): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(RHDR.sizeof + padded(body.length)), dv = new DataView(bytes.buffer);
  RHDR.type.set(dv, 0, type);
  RHDR.length.set(dv, 0, body.length);
  bytes.set(body, RHDR.sizeof);
  return bytes;
}
/** A record and the one that covers it. */
export function covered(type: number, body: Uint8Array = new Uint8Array(0)): Uint8Array<ArrayBuffer> {
  const bytes = record(type, body), check = checksum(xxh32(bytes)), both = new Uint8Array(bytes.length + check.length);
  both.set(bytes);
  both.set(check, bytes.length);
  return both;
}
/** The record that covers the one before: header, body and padding; of PAGE_DATA all up to the pages, then page by page, each with the sum so far as its seed. */
export function checksum(value: number): Uint8Array<ArrayBuffer> {
  const body = new DataView(new ArrayBuffer(8));
  body.setUint32(0, CHAINED_XXH32, true);
  body.setUint32(4, value, true);
  return record(REC.DOMUS_CHECKSUM, new Uint8Array(body.buffer));
}
/** HVM_PARAMS' body. */
export function hvmParams(params: readonly (readonly [index: number, value: bigint])[]): Uint8Array {
  const dv = new DataView(new ArrayBuffer(HvmParamsHeader.sizeof + params.length * 16));
  HvmParamsHeader.count.set(dv, 0, params.length);
  params.forEach(([index, value], i) => {
    dv.setBigUint64(HvmParamsHeader.sizeof + i * 16, BigInt(index), true);
    dv.setBigUint64(HvmParamsHeader.sizeof + i * 16 + 8, value, true);
  });
  return new Uint8Array(dv.buffer);
}

// Reading ----------------------------------------------------------------------
/** @throws StreamError for what is none, or of another version, byte order or kind of domain */
export async function readHeaders(from: Source): Promise<void> {
  from.what = "libxc's header";
  const at = from.offset, dv = new DataView((await from.exactly(IHDR_BYTES + DHDR.sizeof)).buffer), version = dv.getUint32(12), options = dv.getUint16(16);
  if (dv.getBigUint64(0) !== MARKER || dv.getUint32(8) !== IDENT) throw new StreamError(`libxc's header at byte ${at} is none: the stream is damaged, or of a Xen before 4.6 (Xen's convert-legacy-stream makes a newer one)`);
  if (version !== VERSION) throw new StreamError(`The stream has libxc's version ${version}, this Domus takes ${VERSION}${version > VERSION ? ": take a newer Domus" : ""}`);
  if (options !== 0) throw new StreamError(`libxc's header at byte ${at} has options 0x${options.toString(16)}: big-endian streams are not taken`);
  const type = DHDR.type.get(dv, IHDR_BYTES), shift = DHDR.page_shift.get(dv, IHDR_BYTES);
  if (type !== TYPE_HVM) throw new StreamError(`The stream is of a ${type === 1 ? "PV domain, which is" : `domain of type ${type}, which is`} not built yet; PVH domains are taken`);
  if (shift !== PAGE_SHIFT) throw new StreamError(`The stream's pages have 2^${shift} bytes, not 2^${PAGE_SHIFT}`);
}
/** A record's header as it was found. */
export type RecordHead = { readonly type: number; readonly lengthBytes: number; /** its place among the records, and in the stream */ readonly nr: number; readonly at: number };
/** How a message names a record. */
export const recordName = (r: RecordHead): string => `record ${r.nr} (${recName(r.type)}) at byte ${r.at}`;

/** Walks the records of a stream. A record is read whole, and checked, before it is believed; of PAGE_DATA the caller reads the pages. */
export class RecordReader {
  readonly #from: Source;
  #nr = 0;
  /** whether the stream says that each record is covered */
  isCovered = false;
  constructor(from: Source) { this.#from = from; }

  /** @throws StreamError for a length that cannot be, and for what is unknown and not optional */
  async head(): Promise<RecordHead> {
    this.#from.what = `the header of record ${this.#nr}`;
    const at = this.#from.offset, dv = new DataView((await this.#from.exactly(RHDR.sizeof)).buffer), head = { type: RHDR.type.get(dv, 0), lengthBytes: RHDR.length.get(dv, 0), nr: this.#nr++, at };
    if (head.lengthBytes > REC_LENGTH_MAX) throw new StreamError(`The stream's ${recordName(head)} claims ${head.lengthBytes} bytes, more than the ${REC_LENGTH_MAX} of any record: the stream is damaged`);
    if (recName(head.type).startsWith("type ") && head.type < REC_OPTIONAL) throw new StreamError(`The stream's ${recordName(head)} is unknown here: the stream is damaged or was made by a newer version`);
    this.#from.what = recordName(head);
    return head;
  }
  /** The record's body. @throws StreamError where it is not what the next record says */
  async body(head: RecordHead): Promise<Uint8Array<ArrayBuffer>> {
    const whole = record(head.type, new Uint8Array(head.lengthBytes));
    RHDR.length.set(new DataView(whole.buffer), 0, head.lengthBytes);
    await this.#from.readInto(whole.subarray(RHDR.sizeof));
    await this.covered(head, xxh32(whole));
    return whole.slice(RHDR.sizeof, RHDR.sizeof + head.lengthBytes);
  }
  /** Have the next record confirm the sum of this one, where the stream has such. */
  async covered(head: RecordHead, sum: number): Promise<void> {
    if (!this.isCovered) return;
    const check = await this.head();
    if (check.type !== REC.DOMUS_CHECKSUM || check.lengthBytes !== 8) throw new StreamError(`The stream's ${recordName(head)} is followed by ${recordName(check)}, not by its checksum: the stream is damaged`);
    const dv = new DataView((await this.#from.exactly(8)).buffer), algorithm = dv.getUint32(0, true);
    if (algorithm !== CHAINED_XXH32) throw new StreamError(`The checksum of ${recordName(head)} is of kind ${algorithm}, unknown here: the stream was made by a newer version`);
    if (dv.getUint32(4, true) !== sum) throw new StreamError(`The stream's ${recordName(head)} is damaged: its checksum is ${hex(sum)}, not ${hex(dv.getUint32(4, true))}`);
  }
}
const hex = (n: number): string => `0x${n.toString(16).padStart(8, "0")}`;

/** HVM_PARAMS' entries. @throws StreamError */
export function parseHvmParams(body: Uint8Array, name: string): [index: number, value: bigint][] {
  const dv = new DataView(body.buffer, body.byteOffset, body.length), count = body.length >= HvmParamsHeader.sizeof ? HvmParamsHeader.count.get(dv, 0) : -1;
  if (body.length !== HvmParamsHeader.sizeof + count * 16) throw new StreamError(`The stream's ${name} has ${body.length} bytes for ${count} parameters: the stream is damaged`);
  return Array.from({ length: count }, (_, i) => {
    const at = HvmParamsHeader.sizeof + i * 16, index = dv.getBigUint64(at, true);
    if (index > 0xffffn) throw new StreamError(`The stream's ${name} has a parameter ${index}: the stream is damaged`);
    return [Number(index), dv.getBigUint64(at + 8, true)];
  });
}
/** The pages a PAGE_DATA record is about: gfns and types, as many as the record's length allows. @throws StreamError */
export function parsePfns(head: RecordHead, header: DataView, pfns: BigUint64Array, gfnLimit: number): { gfns: Float64Array; types: Uint8Array; nrWithData: number } {
  const gfns = new Float64Array(pfns.length), types = new Uint8Array(pfns.length);
  let nrWithData = 0;
  for (let i = 0; i < pfns.length; i++) {
    const type = Number(pfns[i]! >> 60n), gfn = Number(pfns[i]! & 0xfffffffffffffn);
    if (type !== PFINFO.NOTAB && type !== PFINFO.XALLOC && type !== PFINFO.XTAB) throw new StreamError(`The stream's ${recordName(head)} has a page of type ${type}, which no PVH domain has: the stream is damaged`);
    if (pfns[i]! >> 52n & 0xffn || gfn >= gfnLimit) throw new StreamError(`The stream's ${recordName(head)} is about gfn 0x${(pfns[i]! & 0xfffffffffffffffn).toString(16)}, which cannot be: the stream is damaged`);
    if (type === PFINFO.NOTAB) nrWithData++;
    gfns[i] = gfn;
    types[i] = type;
  }
  const want = PageDataHeader.sizeof + pfns.length * 8 + nrWithData * 4096;
  if (head.lengthBytes !== want || PageDataHeader.count.get(header, 0) !== pfns.length) throw new StreamError(`The stream's ${recordName(head)} has ${head.lengthBytes} bytes, ${want} are needed for its ${pfns.length} pages: the stream is damaged`);
  return { gfns, types, nrWithData };
}
