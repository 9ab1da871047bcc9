/** For tests of back ends: a guest's memory and grants without a hypervisor, and the front end's half of a ring. */
import { ringSize, SRING } from "../abi/io/ring.ts";
import { GNTST } from "../abi/grant_table.ts";
import type { GrantAccess, MappedPage } from "./grants.ts";

const PAGE_BYTES = 4096;

/**
 * Memory of so many pages, of which the guest grants some. A grant that is revoked while it is mapped, or a page given back twice, is an error in `faults`.
 */
export class GuestPages implements GrantAccess {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly faults: string[] = [];
  readonly #free: number[] = [];
  readonly #grants = new Map<number, { at: number; isReadonly: boolean; nrMapped: number }>();
  readonly #freeRefs: number[] = [];
  #lastRef = 8;
  readonly #mapped = new Set<MappedPage>();
  /** maps done so far */
  nrMaps = 0;

  constructor(nrPages: number) {
    this.words = new Int32Array(new SharedArrayBuffer(nrPages * PAGE_BYTES));
    this.bytes = new Uint8Array(this.words.buffer);
    for (let i = nrPages - 1; i >= 1; i--) this.#free.push(i * PAGE_BYTES);
    for (let i = this.#free.length - 1; i > 0; i--) {  // neighbours in the guest are not neighbours in the machine
      const j = (i * 7919) % (i + 1);
      [this.#free[i], this.#free[j]] = [this.#free[j]!, this.#free[i]!];
    }
  }
  /** @returns the byte address of a page nobody else has */
  allocate(): number {
    const at = this.#free.pop();
    if (at === undefined) throw new Error("The test's guest is out of pages");
    return at;
  }
  release(at: number): void { this.#free.push(at); }
  grant(at: number, isReadonly = false): number {
    const ref = this.#freeRefs.pop() ?? ++this.#lastRef;
    this.#grants.set(ref, { at, isReadonly, nrMapped: 0 });
    return ref;
  }
  revoke(ref: number): void {
    const g = this.#grants.get(ref);
    if (!g || g.nrMapped > 0) this.faults.push(g ? `grant ${ref} revoked while in use` : `grant ${ref} revoked twice`);
    this.#grants.delete(ref);
    this.#freeRefs.push(ref);
  }
  get nrMapped(): number { return this.#mapped.size; }
  /** pages that have not come, and what they will hold; rubbish until then */
  readonly #absent = new Map<number, Uint8Array>();
  #waiting: { at: Set<number>; resolve: () => void; reject: (why: Error) => void }[] = [];
  /** pages that were asked for */
  readonly wanted = new Set<number>();
  /** Take a page's bytes away until `bring`. */
  withhold(at: number): void {
    const page = this.bytes.subarray(at, at + PAGE_BYTES);
    this.#absent.set(at, page.slice());
    page.fill(0xf1);
  }
  withholdAll(but: readonly number[] = []): void { for (const { at } of this.#grants.values()) if (!but.includes(at)) this.withhold(at); }
  /** Bring what was asked for. @returns how many */
  bring(): number {
    for (const at of this.wanted) {
      this.bytes.set(this.#absent.get(at)!, at);
      this.#absent.delete(at);
      for (const w of this.#waiting) if (w.at.delete(at) && w.at.size === 0) w.resolve();
    }
    const nr = this.wanted.size;
    this.wanted.clear();
    return nr;
  }
  /** They will never come. */
  lose(): void { for (const { reject } of this.#waiting) reject(new Error("lost")); }
  missing(refs: Iterable<number>): Promise<void> | null {
    if (this.#absent.size === 0) return null;
    const at = new Set([...refs].map((ref) => this.#grants.get(ref)?.at ?? -1).filter((a) => this.#absent.has(a)));
    if (at.size === 0) return null;
    for (const a of at) this.wanted.add(a);
    return new Promise((resolve, reject) => this.#waiting.push({ at, resolve, reject }));
  }

  map(ref: number, isReadonly: boolean): MappedPage | number {
    const g = this.#grants.get(ref);
    if (!g) return GNTST.bad_gntref;
    if (g.isReadonly && !isReadonly) return GNTST.general_error;
    g.nrMapped++;
    this.nrMaps++;
    const page = { at: g.at, ref, isReadonly };
    this.#mapped.add(page);
    return page;
  }
  unmap(page: MappedPage): void {
    const g = this.#grants.get(page.ref);
    if (!this.#mapped.delete(page) || !g) this.faults.push(`page of grant ${page.ref} unmapped twice`);
    else g.nrMapped--;
  }
  wrote(page: MappedPage): void {
    if (!this.#mapped.has(page) || page.isReadonly) this.faults.push(`page of grant ${page.ref} written without a right`);
  }
}

/** The front end's half of a ring: public/io/ring.h. Trusts the back end: tests check what it did. */
export class FrontRing {
  readonly mem: GuestPages;
  readonly pages: readonly number[];
  readonly refs: readonly number[];
  readonly nrSlots: number;
  readonly #slotBytes: number;
  reqProdPvt: number;
  rspCons: number;

  /** @param start where the free-running indexes begin */
  constructor(mem: GuestPages, nrPages: number, slotBytes: number, start = 0) {
    this.mem = mem;
    this.pages = Array.from({ length: nrPages }, () => mem.allocate());
    this.refs = this.pages.map((at) => mem.grant(at));
    this.#slotBytes = slotBytes;
    this.nrSlots = ringSize(nrPages * PAGE_BYTES, slotBytes);
    this.reqProdPvt = this.rspCons = start >>> 0;
    for (const f of [SRING.req_prod, SRING.rsp_prod]) this.store(f, start);
    for (const f of [SRING.req_event, SRING.rsp_event]) this.store(f, start + 1);
  }
  load(f: { at: number }): number { return Atomics.load(this.mem.words, (this.pages[0]! + f.at) / 4) >>> 0; }
  store(f: { at: number }, value: number): void { Atomics.store(this.mem.words, (this.pages[0]! + f.at) / 4, value | 0); }
  #byteAt(index: number, offset: number): number {
    const at = SRING.sizeof + (index & (this.nrSlots - 1)) * this.#slotBytes + offset;
    return this.pages[Math.floor(at / PAGE_BYTES)]! + (at % PAGE_BYTES);
  }
  get nrFree(): number { return this.nrSlots - ((this.reqProdPvt - this.rspCons) >>> 0); }
  /** Write a request; `push` shows it. @returns its slot number */
  put(request: Uint8Array): number {
    if (this.nrFree === 0) throw new Error("The test's front end overfills its ring");
    const index = this.reqProdPvt;
    for (let i = 0; i < request.length; i++) this.mem.bytes[this.#byteAt(index, i)] = request[i]!;
    this.reqProdPvt = (index + 1) >>> 0;
    return index & (this.nrSlots - 1);
  }
  /** @returns whether the back end wants an event: RING_PUSH_REQUESTS_AND_CHECK_NOTIFY */
  push(): boolean {
    const old = this.load(SRING.req_prod), now = this.reqProdPvt;
    this.store(SRING.req_prod, now);
    return ((now - this.load(SRING.req_event)) >>> 0) < ((now - old) >>> 0);
  }
  get nrResponses(): number { return (this.load(SRING.rsp_prod) - this.rspCons) >>> 0; }
  /** @returns the next response and its slot number, null when there is none */
  take(sizeBytes = this.#slotBytes): { slot: number; response: Uint8Array<ArrayBuffer> } | null {
    if (this.nrResponses === 0) return null;
    const index = this.rspCons, response = new Uint8Array(sizeBytes);
    for (let i = 0; i < sizeBytes; i++) response[i] = this.mem.bytes[this.#byteAt(index, i)]!;
    this.rspCons = (index + 1) >>> 0;
    return { slot: index & (this.nrSlots - 1), response };
  }
  /** @returns whether responses came meanwhile: RING_FINAL_CHECK_FOR_RESPONSES */
  finalCheck(): boolean {
    if (this.nrResponses > 0) return true;
    this.store(SRING.rsp_event, this.rspCons + 1);
    return this.nrResponses > 0;
  }
}

/** Numbers from a seed, the same everywhere. @returns a function that gives an integer from 0 to below `n` */
export function seeded(seed: number): (n: number) => number {
  let s = (seed * 2654435761 + 88172645) >>> 0 || 1;
  return (n) => {
    s ^= s << 13;
    s ^= s >>> 17;
    s ^= s << 5;
    return ((s >>> 0) * n) / 2 ** 32 | 0;
  };
}
