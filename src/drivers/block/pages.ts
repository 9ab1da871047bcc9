/**
 * The granted pages of one block device. A front end with feature-persistent grants the same pages over and over and never takes them back while the device is
 * connected: those stay mapped, the least used of them up to a bound.
 * @see public/io/blkif.h "feature-persistent"
 */
import type { GrantAccess, MappedPage } from "../grants.ts";

/** As many as Linux's back end keeps by default. */
export const MAX_PERSISTENT = 1056;
const PAGE_BYTES = 4096;

export class BlockPages {
  readonly #grants: GrantAccess;
  /** by ref, least lately used first; null: nothing is kept */
  readonly #kept: Map<number, MappedPage> | null;
  #isClosed = false;
  constructor(grants: GrantAccess, isPersistent: boolean) {
    this.#grants = grants;
    this.#kept = isPersistent ? new Map() : null;
  }
  get nrKept(): number { return this.#kept?.size ?? 0; }

  #map(ref: number, isReadonly: boolean): MappedPage | null {
    if (this.#isClosed) return null;
    const known = this.#kept?.get(ref);
    if (known) {
      this.#kept!.delete(ref);
      this.#kept!.set(ref, known);
      return known;
    }
    // A page that stays is read and written by turns; a front end that grants it read-only all the same gets the old way.
    const both = this.#kept ? this.#grants.map(ref, false) : isReadonly ? this.#grants.map(ref, true) : this.#grants.map(ref, false);
    if (typeof both !== "number") {
      if (this.#kept) this.#keep(ref, both);
      return both;
    }
    if (!this.#kept || !isReadonly) return null;
    const page = this.#grants.map(ref, true);
    return typeof page === "number" ? null : page;
  }
  #keep(ref: number, page: MappedPage): void {
    const kept = this.#kept!;
    if (kept.size >= MAX_PERSISTENT) {
      const [oldest, old] = kept.entries().next().value!;
      kept.delete(oldest);
      this.#grants.unmap(old);
    }
    kept.set(ref, page);
  }
  #done(page: MappedPage, isWritten: boolean): void {
    if (this.#kept?.get(page.ref) !== page) this.#grants.unmap(page);
    else if (isWritten) this.#grants.wrote(page);
  }

  /** See GrantAccess. */
  missing(refs: Iterable<number>): Promise<void> | null { return this.#grants.missing?.(refs) ?? null; }
  /** Copy from a page. @returns whether the grant was good */
  read(ref: number, offset: number, into: Uint8Array): boolean {
    const page = this.#map(ref, true);
    if (!page) return false;
    into.set(this.#grants.bytes.subarray(page.at + offset, page.at + offset + into.length));
    this.#done(page, false);
    return true;
  }
  /** Copy to a page. @returns whether the grant was good */
  write(ref: number, offset: number, from: Uint8Array): boolean {
    const page = this.#map(ref, false);
    if (!page) return false;
    this.#grants.bytes.set(from, page.at + offset);
    this.#done(page, true);
    return true;
  }
  /** A copy of a whole page, or null. */
  copy(ref: number): Uint8Array | null {
    const into = new Uint8Array(PAGE_BYTES);
    return this.read(ref, 0, into) ? into : null;
  }
  /** Give everything back. */
  close(): void {
    this.#isClosed = true;
    for (const page of this.#kept?.values() ?? []) this.#grants.unmap(page);
    this.#kept?.clear();
  }
}
