/**
 * Writes that a peer acknowledged and has not flushed. When the connection is lost nobody knows whether the peer lost its cache too (it may have been another
 * process that answers now), so they are kept, and sent again, in their order, before anything else.
 */

/** One acknowledged write; `bytes` null: zeros. */
export type UnflushedWrite = { readonly offset: number; readonly lengthBytes: number; readonly bytes: Uint8Array | null };

/** What an entry costs beyond its bytes. */
const ENTRY_BYTES = 64;

/** The list, oldest first. */
export class Unflushed {
  #writes: UnflushedWrite[] = [];
  /** writes ever forgotten: the number of the list's first entry */
  #nrGone = 0;
  /** memory that the list holds */
  sizeBytes = 0;

  /** Keep a write; its bytes are copied. */
  add(offset: number, lengthBytes: number, bytes: Uint8Array | null): void {
    this.#writes.push({ offset, lengthBytes, bytes: bytes ? bytes.slice() : null });
    this.sizeBytes += ENTRY_BYTES + (bytes?.length ?? 0);
  }
  get isEmpty(): boolean {
    return this.#writes.length === 0;
  }
  /** Where the list ends now: give it to `forget` when a flush sent after this call has been answered. */
  get mark(): number {
    return this.#nrGone + this.#writes.length;
  }
  forget(mark: number): void {
    const n = Math.min(this.#writes.length, mark - this.#nrGone);
    if (n <= 0) return;
    for (const w of this.#writes.splice(0, n)) this.sizeBytes -= ENTRY_BYTES + (w.bytes?.length ?? 0);
    this.#nrGone += n;
  }
  /** Groups of writes in order; those of one group do not overlap and may be under way together. */
  *groups(nrMax: number): Generator<UnflushedWrite[]> {
    let group: UnflushedWrite[] = [];
    for (const w of [...this.#writes]) {
      if (group.length >= nrMax || group.some((g) => g.offset < w.offset + w.lengthBytes && w.offset < g.offset + g.lengthBytes)) {
        yield group;
        group = [];
      }
      group.push(w);
    }
    if (group.length) yield group;
  }
}
