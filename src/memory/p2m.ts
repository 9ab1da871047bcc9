/**
 * A domain's physical-to-machine table: a radix tree of frames, three levels of ten bits, so guest-physical addresses have up to 42 bits.
 * An entry of the last level is mfn << 12 | rights | type, the rights being those of `Platform.frameOf`; 0: nothing there.
 */
import type { Views } from "../base/views.ts";
import { FRAME_FLAG, type Frames } from "./frames.ts";

/** Rights in an entry; bit 2 is left to Platform.frameOf. */
export const P2M_R = 1, P2M_W = 2, P2M_RW = 3;
/** What a frame is to the domain. ram: its own memory; xen: shared info, grant table: Xen's frame, lent; foreign: another domain's, mapped by dom0 */
export const P2M_TYPE = { mask: 0x30, ram: 0x00, xen: 0x10, foreign: 0x20 } as const;
/** Bits of a gfn the tree resolves. */
export const GFN_BITS = 30;
const GFN_LIMIT = 2 ** GFN_BITS;

/** Look a gfn up. @returns the entry, or 0 */
export function p2mLookup(u32: Uint32Array, root: number, gfn: number): number {
  if (!(gfn >= 0 && gfn < GFN_LIMIT)) return 0;
  const middle = u32[(root >>> 2) + (gfn >>> 20)] as number;
  if (middle === 0) return 0;
  const leaf = u32[(middle >>> 2) + ((gfn >>> 10) & 1023)] as number;
  return leaf === 0 ? 0 : u32[(leaf >>> 2) + (gfn & 1023)] as number;
}

/** A domain's tree, for those who change it. */
export class P2m {
  readonly root: number;
  readonly #u32: Uint32Array;
  readonly #frames: Frames;
  readonly #owner: number;

  /** @param root byte address of the tree's first frame, see `makeRoot`; @param owner domid that its tables' frames are accounted to */
  constructor(views: Views, frames: Frames, root: number, owner: number) {
    this.root = root;
    this.#u32 = views.u32;
    this.#frames = frames;
    this.#owner = owner;
  }
  static makeRoot(frames: Frames, owner: number): number { return (frames.alloc(owner, FRAME_FLAG.heap) << 12) >>> 0; }

  lookup(gfn: number): number { return p2mLookup(this.#u32, this.root, gfn); }
  mfn(gfn: number): number { return this.lookup(gfn) >>> 12; }
  /** The mfn of the domain's own memory there, or 0: nothing, or a frame that is lent. */
  ram(gfn: number): number {
    const entry = this.lookup(gfn);
    return (entry & P2M_TYPE.mask) === P2M_TYPE.ram ? entry >>> 12 : 0;
  }

  /** Set an entry; the caller holds the domain's p2m lock. @returns the old entry @throws MachineMemoryExhausted RangeError for a gfn beyond the tree */
  set(gfn: number, mfn: number, bits: number): number {
    const word = this.#wordOf(gfn), old = this.#u32[word] as number;
    Atomics.store(this.#u32, word, ((mfn << 12) | bits) >>> 0);
    return old;
  }
  /**
   * Set the entries of gfn, gfn + 1 ... to frames that follow each other, as far as one table goes.
   * @param replaced gets the old entries @returns how many were set, at least 1 @throws as `set`, with none set
   */
  setRun(gfn: number, mfn: number, nr: number, bits: number, replaced: number[]): number {
    const u32 = this.#u32, word = this.#wordOf(gfn), count = Math.min(nr, 1024 - (gfn & 1023));
    for (let i = 0; i < count; i++) {
      const old = u32[word + i] as number;
      if (old !== 0) replaced.push(old);
      u32[word + i] = (((mfn + i) << 12) | bits) >>> 0;        // a word of its own each, so that who looks meanwhile sees the old or the new
    }
    return count;
  }
  #wordOf(gfn: number): number {
    if (!(gfn >= 0 && gfn < GFN_LIMIT)) throw new RangeError(`gfn ${gfn} is beyond the p2m`);
    return (this.#next(this.#next(this.root, gfn >>> 20), (gfn >>> 10) & 1023) >>> 2) + (gfn & 1023);
  }
  #next(table: number, i: number): number {
    const word = (table >>> 2) + i;
    if (this.#u32[word] === 0) Atomics.store(this.#u32, word, (this.#frames.alloc(this.#owner, FRAME_FLAG.heap) << 12) >>> 0);
    return this.#u32[word] as number;
  }

  /** Clear an entry; the caller holds the domain's p2m lock and sees to the TLBs before it gives the frame back. @returns the old entry */
  clear(gfn: number): number {
    if (!(gfn >= 0 && gfn < GFN_LIMIT)) return 0;
    const middle = this.#u32[(this.root >>> 2) + (gfn >>> 20)] as number;
    const leaf = middle && this.#u32[(middle >>> 2) + ((gfn >>> 10) & 1023)] as number;
    return leaf ? Atomics.exchange(this.#u32, (leaf >>> 2) + (gfn & 1023), 0) : 0;
  }

  /** The highest gfn that has an entry, or 0. */
  highest(): number {
    const last = (table: number): number => {
      for (let i = 1023; i >= 0; i--) if (this.#u32[(table >>> 2) + i] !== 0) return i;
      return -1;
    };
    for (let i = 1023; i >= 0; i--) {
      const middle = this.#u32[(this.root >>> 2) + i] as number;
      if (middle) for (let j = 1023; j >= 0; j--) {
        const leaf = this.#u32[(middle >>> 2) + j] as number, k = leaf ? last(leaf) : -1;
        if (k >= 0) return i * 2 ** 20 + j * 1024 + k;
      }
    }
    return 0;
  }
  /** Call `visit` for each entry, by ascending gfn: a third of the time that `entries` takes. */
  each(visit: (gfn: number, entry: number) => void): void {
    const u32 = this.#u32;
    for (let i = 0; i < 1024; i++) {
      const middle = u32[(this.root >>> 2) + i] as number;
      if (middle) for (let j = 0; j < 1024; j++) {
        const leaf = u32[(middle >>> 2) + j] as number;
        if (leaf) for (let k = 0; k < 1024; k++) {
          const entry = u32[(leaf >>> 2) + k] as number;
          if (entry) visit(i * 2 ** 20 + j * 1024 + k, entry);
        }
      }
    }
  }
  /** All entries, by ascending gfn. */
  *entries(): Generator<[gfn: number, entry: number]> {
    for (let i = 0; i < 1024; i++) {
      const middle = this.#u32[(this.root >>> 2) + i] as number;
      if (middle) for (let j = 0; j < 1024; j++) {
        const leaf = this.#u32[(middle >>> 2) + j] as number;
        if (leaf) for (let k = 0; k < 1024; k++) {
          const entry = this.#u32[(leaf >>> 2) + k] as number;
          if (entry) yield [i * 2 ** 20 + j * 1024 + k, entry];
        }
      }
    }
  }

  /** Give the tables themselves back. The entries' frames are the caller's business; nobody may look the tree up any more. */
  free(): void {
    for (let i = 0; i < 1024; i++) {
      const middle = this.#u32[(this.root >>> 2) + i] as number;
      if (!middle) continue;
      for (let j = 0; j < 1024; j++) {
        const leaf = this.#u32[(middle >>> 2) + j] as number;
        if (leaf) this.#frames.put(leaf >>> 12);
      }
      this.#frames.put(middle >>> 12);
    }
    this.#frames.put(this.root >>> 12);
  }
}
