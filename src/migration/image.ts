/** A domain's image but for its pages: written in order, and read by whoever builds the domain anew. */
import { HVM_PARAM } from "../abi/hvm/params.ts";
import { XEN_CPUID_FIRST_LEAF, XEN_CPUID_LEAF } from "../abi/arch-x86/cpuid.ts";
import { TSC_KHZ } from "../hypervisor/clock.ts";
import { cpuid } from "../hypervisor/cpuid.ts";
import type { Domain } from "../hypervisor/domain.ts";
import { getHvmContext } from "../hypervisor/hvm_context.ts";
import { XEN_MAJOR, XEN_MINOR } from "../hypervisor/version_op.ts";
import type { Vcpu } from "../hypervisor/vcpu.ts";
import { Arrival } from "../hypervisor/arrival.ts";
import { codePlaces, type Heats, prepareCode } from "../hypervisor/warm.ts";
import { type About, encodeAbout, encodePairs, encodePlaces, parseAbout, parsePairs, parsePlaces, type StorePairs } from "./about.ts";
import { CpuidLeaf, covered, headers, hvmParams, MsrEntry, parseHvmParams, REC, readHeaders, record, type RecordHead, recordName, RecordReader, TscInfo, XEN_CPUID_NO_SUBLEAF } from "./libxc.ts";
import { encodeGuest, type Guest, parseGuest, type StoppedGuest } from "./guest.ts";
import { pagesWithin } from "./deflated.ts";
import { expectPages, parseGfns } from "./late.ts";
import { readPages } from "./pages.ts";
import { type Sink, type Source, StreamError } from "./stream.ts";

/** What libxc saves of a domain's parameters, where they are not zero. xg_sr_save_x86_hvm.c write_hvm_params */
const SAVED_PARAMS = ["STORE_PFN", "IOREQ_PFN", "BUFIOREQ_PFN", "PAGING_RING_PFN", "MONITOR_RING_PFN", "SHARING_RING_PFN", "VM86_TSS_SIZED", "CONSOLE_PFN", "ACPI_IOPORTS_LOCATION", "VIRIDIAN",
  "IDENT_PT", "VM_GENERATION_ID_ADDR", "IOREQ_SERVER_PFN", "NR_IOREQ_SERVER_PAGES", "X87_FIP_WIDTH", "MCA_CAP"] as const;
/** Those that a restored domain takes over: the rest belong to device models and to what is made anew. */
const TAKEN_PARAMS = new Set<number>([HVM_PARAM.VM_GENERATION_ID_ADDR, HVM_PARAM.X87_FIP_WIDTH]);
/** Leaves that decide what a kernel and its programs do, and those whose subleaves are asked for one by one. */
const POLICY_LEAVES = [0, 1, 6, 7, 0xb, 0xd, 0x80000000, 0x80000001, 0x80000007, 0x80000008, 0x80000021, XEN_CPUID_FIRST_LEAF, XEN_CPUID_FIRST_LEAF + XEN_CPUID_LEAF.version, XEN_CPUID_FIRST_LEAF + XEN_CPUID_LEAF.hypercall];
const BY_SUBLEAF: Readonly<Record<number, readonly number[]>> = { 7: [0, 2], 0xb: [0, 1], 0xd: [0, 1] };
/** Feature words: what the stream's processor has must be here, too. */
const FEATURES: readonly (readonly [leaf: number, subleaf: number, register: "a" | "b" | "c" | "d", mask: number])[] = [
  [1, XEN_CPUID_NO_SUBLEAF, "c", ~(1 << 27)], [1, XEN_CPUID_NO_SUBLEAF, "d", ~0], [7, 0, "b", ~0], [7, 0, "c", ~(1 << 4)], [7, 0, "d", ~0], [7, 2, "d", ~0], [0xd, 0, "a", ~0],
  [0x80000001, XEN_CPUID_NO_SUBLEAF, "c", ~0], [0x80000001, XEN_CPUID_NO_SUBLEAF, "d", ~0], [0x80000021, XEN_CPUID_NO_SUBLEAF, "a", ~0],
];
const MSR_PLATFORM_INFO = 0xce;

type Leaf = { leaf: number; subleaf: number; a: number; b: number; c: number; d: number };
function policy(v: Vcpu): Leaf[] {
  const out = new Uint32Array(4);
  return POLICY_LEAVES.flatMap((leaf) => (BY_SUBLEAF[leaf] ?? [XEN_CPUID_NO_SUBLEAF]).map((subleaf) => {
    cpuid(v, leaf, subleaf === XEN_CPUID_NO_SUBLEAF ? 0 : subleaf, out);
    return { leaf, subleaf, a: out[0]!, b: out[1]!, c: out[2]!, d: out[3]! };
  }));
}
function cpuidRecord(v: Vcpu): Uint8Array {
  const leaves = policy(v), dv = new DataView(new ArrayBuffer(leaves.length * CpuidLeaf.sizeof));
  leaves.forEach((l, i) => { for (const key of ["leaf", "subleaf", "a", "b", "c", "d"] as const) CpuidLeaf[key].set(dv, i * CpuidLeaf.sizeof, l[key]); });
  return covered(REC.X86_CPUID_POLICY, new Uint8Array(dv.buffer));
}
/** Records that were all made before the first wait: the domain may be destroyed meanwhile, and its registers be another's memory. */
async function writeAll(sink: Sink, records: readonly Uint8Array[]): Promise<void> { for (const bytes of records) await sink.write(bytes); }
/** What precedes the pages: headers, what the domain is, what its processor is. */
export async function writeImageStart(sink: Sink, d: Domain, about: About): Promise<void> {
  const msr = new DataView(new ArrayBuffer(MsrEntry.sizeof));
  MsrEntry.idx.set(msr, 0, MSR_PLATFORM_INFO);
  await writeAll(sink, [headers({ major: XEN_MAJOR, minor: XEN_MINOR }), covered(REC.DOMUS_DOMAIN, encodeAbout(about)), cpuidRecord(d.vcpu(0)!), covered(REC.X86_MSR_POLICY, new Uint8Array(msr.buffer)), covered(REC.STATIC_DATA_END)]);
}
/** Where the domain's code has been met, so that the other end decodes it while the rest comes. Behind the pages that hold it. @returns how many places */
export async function writeCodePlaces(sink: Sink, d: Domain, before: Heats): Promise<number> {
  const places = codePlaces(d, before);
  await sink.write(covered(REC.DOMUS_CODE, encodePlaces(places)));
  return places.length;
}
/** What follows the pages, when the domain runs no more. @param guest of one that has not suspended itself */
export async function writeImageEnd(sink: Sink, d: Domain, pairs: StorePairs, guest: StoppedGuest | null = null): Promise<void> {
  const tsc = new DataView(new ArrayBuffer(TscInfo.sizeof));
  TscInfo.khz.set(tsc, 0, TSC_KHZ);
  TscInfo.nsec.set(tsc, 0, BigInt(d.hv.clock.now()));
  const params = SAVED_PARAMS.map((name) => [HVM_PARAM[name], d.param(HVM_PARAM[name])] as const).filter(([, value]) => value !== 0n);
  await writeAll(sink, [covered(REC.X86_TSC_INFO, new Uint8Array(tsc.buffer)), covered(REC.HVM_PARAMS, hvmParams(params)), covered(REC.DOMUS_STORE, encodePairs(pairs)), ...guest ? [covered(REC.DOMUS_GUEST, encodeGuest({ ...guest, wallMs: Date.now() }))] : [], covered(REC.HVM_CONTEXT, getHvmContext(d)), record(REC.END)]);
}

/** What a stream had beside the pages, all of it whole. */
export type Image = { /** pages that come later */ readonly arrival: Arrival | null; readonly context: Uint8Array; readonly params: readonly (readonly [number, bigint])[]; readonly pairs: StorePairs; readonly guest: Guest | null };
/** Reads an image: `start`, then `rest` into the domain that was made from what `start` said. */
export class ImageReader {
  readonly #from: Source;
  readonly #records: RecordReader;
  constructor(from: Source) {
    this.#from = from;
    this.#records = new RecordReader(from);
  }
  /** @throws StreamError */
  async start(): Promise<About> {
    await readHeaders(this.#from);
    this.#records.isCovered = true;
    const head = await this.#records.head();
    if (head.type !== REC.DOMUS_DOMAIN) throw new StreamError(`The stream's ${recordName(head)} is not DOMUS_DOMAIN: the stream is damaged, or was not made by Domus: what Xen itself saves is not taken yet`);
    return parseAbout(await this.#records.body(head), recordName(head));
  }
  /** Read to libxc's END, pages into `d`. @param progress is told of pages @throws StreamError, and what `readPages` throws */
  async rest(d: Domain, progress: (nrPages: number) => void): Promise<Image> {
    let arrival: Arrival | null = null, context: Uint8Array | null = null, params: (readonly [number, bigint])[] = [], pairs: StorePairs = [], guest: Guest | null = null, isStatic = true;
    for (;;) {
      const head = await this.#records.head();
      if (head.type === REC.PAGE_DATA) {
        if (isStatic) throw new StreamError(`The stream's ${recordName(head)} comes before STATIC_DATA_END: the stream is damaged`);
        progress(await readPages(this.#from, this.#records, head, d));
        continue;
      }
      if (head.type === REC.DOMUS_DEFLATED && !isStatic) {
        const { from, records, inner } = await pagesWithin(head, await this.#records.body(head));
        progress(await readPages(from, records, inner, d));
        continue;
      }
      if (head.type === REC.END) {
        if (head.lengthBytes !== 0) throw new StreamError(`The stream's ${recordName(head)} has ${head.lengthBytes} bytes: the stream is damaged`);
        break;
      }
      const body = await this.#records.body(head);
      switch (head.type) {
        case REC.X86_CPUID_POLICY: checkPolicy(d.vcpu(0)!, body, head); break;
        case REC.X86_MSR_POLICY: case REC.VERIFY: break;
        case REC.STATIC_DATA_END: isStatic = false; break;
        case REC.X86_TSC_INFO: if (body.length !== TscInfo.sizeof) throw new StreamError(`The stream's ${recordName(head)} has ${body.length} bytes, not ${TscInfo.sizeof}: the stream is damaged`); break;
        case REC.HVM_PARAMS: params = parseHvmParams(body, recordName(head)); break;
        case REC.HVM_CONTEXT: context = body; break;
        case REC.DOMUS_CODE: prepareCode(d, parsePlaces(body)); break;
        case REC.DOMUS_GUEST: guest = parseGuest(body, recordName(head)); break;
        case REC.DOMUS_AWAITED: expectPages(arrival ??= new Arrival(d), d, parseGfns(body, recordName(head)), recordName(head)); break;
        case REC.DOMUS_STORE: pairs = parsePairs(body, recordName(head)); break;
        default: if (head.type < 0x8000_0000) throw new StreamError(`The stream's ${recordName(head)} is nothing that a PVH domain has: the stream is damaged`);
      }
    }
    if (!context) throw new StreamError("The stream has no HVM_CONTEXT, the vCPUs' registers: it is damaged");
    return { context, params: params.filter(([index]) => TAKEN_PARAMS.has(index)), pairs, guest, arrival };
  }
}
/** The guest has seen a processor with these features; ours must have them all. */
function checkPolicy(v: Vcpu, body: Uint8Array, head: RecordHead): void {
  if (body.length === 0 || body.length % CpuidLeaf.sizeof) throw new StreamError(`The stream's ${recordName(head)} has ${body.length} bytes, no multiple of ${CpuidLeaf.sizeof}: the stream is damaged`);
  const dv = new DataView(body.buffer, body.byteOffset, body.length), ours = policy(v);
  for (let at = 0; at < body.length; at += CpuidLeaf.sizeof) {
    const leaf = CpuidLeaf.leaf.get(dv, at), subleaf = CpuidLeaf.subleaf.get(dv, at), here = ours.find((l) => l.leaf === leaf && l.subleaf === subleaf);
    for (const [l, s, register, mask] of FEATURES) {
      if (l !== leaf || s !== subleaf) continue;
      const missing = CpuidLeaf[register].get(dv, at) & mask & ~(here?.[register] ?? 0);
      if (missing) throw new StreamError(`The domain ran on a processor with features that this one lacks (CPUID leaf 0x${leaf.toString(16)}, e${register}x: 0x${(missing >>> 0).toString(16)}): the stream was made by a newer Domus`);
    }
  }
}
