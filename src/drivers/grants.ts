/**
 * A guest's granted pages as its back ends reach them. In the machine this stands on domain 0's mapping of grants, in a test on a plain shared memory.
 */

/** A granted frame, mapped until it is given to `unmap`. */
export type MappedPage = {
  /** byte address of the frame in machine memory */
  readonly at: number;
  /** the grant it was mapped by */
  readonly ref: number;
  readonly isReadonly: boolean;
};

/** The grants of one domain. */
export interface GrantAccess {
  /** the whole of machine memory */
  readonly words: Int32Array;
  /** the same memory */
  readonly bytes: Uint8Array;
  /** Map what the guest granted by `ref`, any number. @returns the page, or the GNTST_* that says why not (grant_table.h) */
  map(ref: number, isReadonly: boolean): MappedPage | number;
  /** Give a page back, once: the guest may revoke the grant afterwards. A page not mapped read-only counts as written. */
  unmap(page: MappedPage): void;
  /** What these name may still be on its way from another host (post-copy): it is asked for. @returns when all is there, or null: now. Rejects when it never will be */
  missing?(refs: Iterable<number>): Promise<void> | null;
  /** Say that a page that stays mapped was written to, before the guest is told: it may have held code. */
  wrote(page: MappedPage): void;
}
