/** Pages of a domain's memory into PAGE_DATA records and back: copied whole, summed as they were copied, and pages of zeros told by name only. */
import { UserError } from "../base/errors.ts";
import type { Domain } from "../hypervisor/domain.ts";
import { GfnSet } from "../memory/gfn_set.ts";
import { P2M_TYPE, GFN_BITS } from "../memory/p2m.ts";
import { BATCH_MAX, checksum, PageDataHeader, parsePfns, PFINFO, REC, recordName, RHDR, type RecordHead, type RecordReader } from "./libxc.ts";
import { deflated } from "./deflated.ts";
import { type Source, type Sink, StreamError } from "./stream.ts";
import { type Sum, xxh32, xxh32In } from "./xxh32.ts";

const PAGE = 4096, WORDS = PAGE / 4, WASM_PAGE = 65536, HEAD = RHDR.sizeof + PageDataHeader.sizeof, CHECK_BYTES = 16;
/** A page to be sent: where it is, or (mfn 0) that it is not there any more. */
export type Page = { readonly gfn: number; readonly mfn: number };

/** A domain's own frames, by ascending gfn. What Xen lent it (shared info, grant table) is made anew where it goes. */
export function* ownPages(d: Domain): Generator<Page> {
  for (const [gfn, entry] of d.p2m.entries()) if ((entry & P2M_TYPE.mask) === P2M_TYPE.ram) yield { gfn, mfn: entry >>> 12 };
}
function isZero(words: Int32Array, at: number): boolean {
  for (const end = at + WORDS; at < end; at += 4) if ((words[at]! | words[at + 1]! | words[at + 2]! | words[at + 3]!) !== 0) return false;
  return true;
}

/** Makes PAGE_DATA records of pages. */
export class PageWriter {
  readonly #d: Domain;
  readonly #sink: Sink;
  /** gfns whose bytes have been sent: a zero page among them must be sent as bytes */
  readonly #sent = new GfnSet();
  readonly #batch: number;
  /** gfns that the other end has a page at */
  readonly said = new GfnSet();
  nrPages = 0;
  nrZeros = 0;

  readonly #deflates: boolean;
  /** where records are put together, so that their pages are summed as they were copied, in wasm */
  readonly #made: Uint8Array;
  readonly #sum: Sum;

  /** @param batch pages a record @param deflates makes records smaller, for an end that is Domus too */
  constructor(d: Domain, sink: Sink, batch = BATCH_MAX, deflates = false) {
    this.#deflates = deflates;
    this.#d = d;
    this.#sink = sink;
    this.#batch = Math.min(batch, BATCH_MAX);
    const nrWasmPages = Math.ceil((HEAD + this.#batch * (8 + PAGE) + CHECK_BYTES) / WASM_PAGE), memory = new WebAssembly.Memory({ initial: nrWasmPages, maximum: nrWasmPages, shared: true });
    this.#made = new Uint8Array(memory.buffer);
    this.#sum = xxh32In(memory);
  }
  /** Has anything been said of this gfn's bytes? */
  wasSent(gfn: number): boolean { return this.#sent.has(gfn); }
  /** Send pages. @param progress is told after each record how many pages have gone */
  async write(pages: Iterable<Page>, progress?: (nrPages: number) => void): Promise<void> {
    const held: Page[] = [];
    for (const page of pages) {
      if (held.push(page) < this.#batch) continue;
      await this.#record(held);
      progress?.(this.nrPages);
      held.length = 0;
    }
    if (held.length) await this.#record(held);
    progress?.(this.nrPages);
  }
  async #record(pages: readonly Page[]): Promise<void> {
    const { i32, u8 } = this.#d.hv.views, types: number[] = pages.map(({ gfn, mfn }) => (mfn === 0 ? PFINFO.XTAB : !this.wasSent(gfn) && isZero(i32, mfn << 10 >>> 0) ? PFINFO.XALLOC : PFINFO.NOTAB));
    const nrData = types.reduce((n, t) => n + (t === PFINFO.NOTAB ? 1 : 0), 0), start = HEAD + pages.length * 8, end = start + nrData * PAGE;
    const bytes = this.#made, dv = new DataView(bytes.buffer);
    RHDR.type.set(dv, 0, REC.PAGE_DATA);
    RHDR.length.set(dv, 0, end - RHDR.sizeof);
    PageDataHeader.count.set(dv, RHDR.sizeof, pages.length);
    for (const [i, { gfn }] of pages.entries()) {
      if (types[i] === PFINFO.XTAB) this.said.delete(gfn);
      else this.said.add(gfn);
      dv.setUint32(HEAD + i * 8, gfn, true);
      dv.setUint32(HEAD + i * 8 + 4, types[i]! << 28 | Math.floor(gfn / 2 ** 32), true);
    }
    let at = start, sum = xxh32(bytes.subarray(0, start));
    for (const [i, { gfn, mfn }] of pages.entries()) {
      if (types[i] !== PFINFO.NOTAB) { if (types[i] === PFINFO.XALLOC) this.nrZeros++; continue; }
      const from = mfn * PAGE;
      bytes.set(u8.subarray(from, from + PAGE), at);
      sum = this.#sum(at, PAGE, sum);
      this.#sent.add(gfn);
      at += PAGE;
    }
    bytes.set(checksum(sum), end);
    this.nrPages += pages.length;
    const record = bytes.slice(0, end + CHECK_BYTES);       // the stream's own from now on
    await this.#sink.write(this.#deflates ? await deflated(record) : record);
  }
}

/** What a PAGE_DATA record says before its pages, all of it as it came, too. @throws StreamError */
async function readNames(from: Source, head: RecordHead): Promise<{ readonly count: number; readonly opening: Uint8Array; readonly gfns: Float64Array; readonly types: Uint8Array; readonly nrWithData: number }> {
  const first = new Uint8Array(HEAD), dv = new DataView(first.buffer);
  RHDR.type.set(dv, 0, head.type);
  RHDR.length.set(dv, 0, head.lengthBytes);
  if (head.lengthBytes < PageDataHeader.sizeof + 8) throw new StreamError(`The stream's ${recordName(head)} has ${head.lengthBytes} bytes, fewer than a page's number takes: the stream is damaged`);
  await from.readInto(first.subarray(RHDR.sizeof));
  const count = PageDataHeader.count.get(dv, RHDR.sizeof);
  if (count === 0 || count > BATCH_MAX) throw new StreamError(`The stream's ${recordName(head)} is about ${count} pages; 1 to ${BATCH_MAX} can be: the stream is damaged`);
  const opening = new Uint8Array(HEAD + count * 8);
  opening.set(first);
  await from.readInto(opening.subarray(HEAD));
  return { count, opening, ...parsePfns(head, new DataView(opening.buffer, RHDR.sizeof, PageDataHeader.sizeof), new BigUint64Array(opening.buffer, HEAD, count), 2 ** GFN_BITS) };
}
/** Where pages are read to that are believed when the whole record has been read, and not before. */
export class PageBuffer {
  #memory: WebAssembly.Memory | null = null;
  /** Read a PAGE_DATA record. @param place gets each page, null: of zeros, or not there any more @throws StreamError */
  async read(from: Source, reader: RecordReader, head: RecordHead, place: (gfn: number, bytes: Uint8Array | null) => void): Promise<void> {
    const { opening, gfns, types, nrWithData } = await readNames(from, head), nrWasmPages = Math.max(1, Math.ceil(nrWithData * PAGE / WASM_PAGE));
    if (!this.#memory || this.#memory.buffer.byteLength < nrWithData * PAGE) this.#memory = new WebAssembly.Memory({ initial: nrWasmPages, maximum: nrWasmPages, shared: true });
    const bytes = new Uint8Array(this.#memory.buffer), sumIn = xxh32In(this.#memory);
    await from.readInto(bytes.subarray(0, nrWithData * PAGE));
    let sum = xxh32(opening), at = 0;
    for (let i = 0; i < nrWithData; i++) sum = sumIn(i * PAGE, PAGE, sum);
    await reader.covered(head, sum);
    for (const [i, gfn] of gfns.entries()) {
      const isHere = types[i] === PFINFO.NOTAB;
      place(gfn, isHere ? bytes.subarray(at, at + PAGE) : null);
      if (isHere) at += PAGE;
    }
  }
}

/** Read a PAGE_DATA record's pages into a domain that does not run, giving it the frames it lacks. @throws StreamError, UserError for more than the domain may have, MachineMemoryExhausted */
export async function readPages(from: Source, reader: RecordReader, head: RecordHead, d: Domain): Promise<number> {
  const { u8 } = d.hv.views, sumIn = xxh32In(d.hv.mm.memory), { count, opening, gfns, types } = await readNames(from, head);
  populate(d, gfns, types);
  let sum = xxh32(opening);
  // pages whose frames lie behind one another are read in one go
  for (let i = 0; i < count;) {
    if (types[i] !== PFINFO.NOTAB) { i++; continue; }
    const mfn = frameFor(d, gfns[i]!, head);
    let n = 1;
    while (i + n < count && types[i + n] === PFINFO.NOTAB && d.p2m.mfn(gfns[i + n]!) === mfn + n) n++;
    await from.readInto(u8.subarray(mfn * PAGE, (mfn + n) * PAGE));
    for (let p = 0; p < n; p++) {
      if (p > 0) frameFor(d, gfns[i + p]!, head);
      d.hv.mm.frames.noteWrite(mfn + p);        // it may have been decoded ahead of time, as it was before
      sum = sumIn((mfn + p) * PAGE, PAGE, sum);
    }
    i += n;
  }
  await reader.covered(head, sum);
  return count;
}
/** The frame that is there to be written. */
function frameFor(d: Domain, gfn: number, head: RecordHead): number {
  const mfn = d.p2m.ram(gfn);
  if (mfn === 0) throw new StreamError(`The stream's ${recordName(head)} names gfn 0x${gfn.toString(16)} twice, and once as gone: the stream is damaged`);
  return mfn;
}
function populate(d: Domain, gfns: Float64Array, types: Uint8Array): void {
  for (let i = 0; i < gfns.length;) {
    const gfn = gfns[i]!, isThere = d.p2m.lookup(gfn) !== 0;
    if (types[i] === PFINFO.XTAB) {
      if (isThere) depopulate(d, gfn);
      i++;
      continue;
    }
    if (isThere) { i++; continue; }
    let n = 1;
    while (i + n < gfns.length && gfns[i + n] === gfn + n && types[i + n] !== PFINFO.XTAB && d.p2m.lookup(gfn + n) === 0) n++;
    if (d.totPages + n > d.maxPages) throw new UserError(`The stream has more memory than its domain may have, which is ${d.maxPages} pages: the stream is damaged`);
    d.populate(gfn, n);
    i += n;
  }
}
/** Take a frame from a domain that has never run. */
function depopulate(d: Domain, gfn: number): void {
  const entry = d.takePage(gfn);
  if (entry !== 0) d.hv.mm.frames.put(entry >>> 12);
}
