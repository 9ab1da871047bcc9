/**
 * Translated regions by what they were made from: the seed's place in its page, the mode, and every byte of code, which is compared in full before
 * an image is used. Images hold no address, so whoever meets the same code takes them as they are: the next boot, another pCPU, a clone.
 * What is stored is trusted like the engine's own sources (it is code); a file that is cut or damaged is refused whole.
 */
import { Bytes, Code, type Ty } from "../wasm/writer.ts";
import type { RegionImage, Shape } from "./translate.ts";

/** Code that an image was made from: a piece of a page, by position. */
export type Piece = { readonly pos: number; readonly bytes: Uint8Array };
export type StoredImage = { readonly mode: number; /** offset in the page */ readonly seed: number; readonly pieces: readonly Piece[]; readonly image: RegionImage };

const MAGIC = 0x676d4944, VERSION = 3, SUM_BYTES = 4;
/** Bytes of images that a store holds at most. */
export const STORE_BYTES = 64 << 20;

export class ImageStore {
  private readonly bySeed = new Map<number, StoredImage[]>();
  private sizeBytes = 0;
  /** images added since it was made or read */
  nrNew = 0;

  private static key(mode: number, seed: number): number { return mode * 4096 + seed; }
  /** What may fit, the newest first. */
  candidates(mode: number, seed: number): readonly StoredImage[] { return this.bySeed.get(ImageStore.key(mode, seed)) ?? []; }
  get nrImages(): number { let n = 0; for (const list of this.bySeed.values()) n += list.length; return n; }

  /** Keep an image, instead of one made from the same seed and the same bytes there. */
  add(s: StoredImage): void {
    const key = ImageStore.key(s.mode, s.seed), list = this.bySeed.get(key) ?? [], begin = (x: StoredImage) => x.pieces.find(p => p.pos <= x.seed && p.pos + p.bytes.length > x.seed);
    const mine = begin(s), same = list.findIndex(x => { const b = begin(x); return b !== undefined && b.pos === mine?.pos && equal(b.bytes, mine.bytes); });
    if (!mine) return;                                // it must begin with code
    if (same >= 0) { this.sizeBytes -= sizeOf(list[same]!); list.splice(same, 1); }
    if (this.sizeBytes + sizeOf(s) > STORE_BYTES) return;
    list.unshift(s);
    this.bySeed.set(key, list);
    this.sizeBytes += sizeOf(s); this.nrNew++;
  }

  addAll(other: ImageStore): void { for (const list of other.bySeed.values()) for (const s of [...list].reverse()) this.add(s); }

  /** As bytes; `engine` names what made them. */
  encode(engine: string): Uint8Array<ArrayBuffer> {
    const b = new Bytes();
    b.u32(MAGIC).u32(VERSION).str(engine).u32(this.nrImages);
    for (const list of this.bySeed.values()) for (const s of [...list].reverse()) {
      const { shape, code, pages, entries, exits, nrInsns } = s.image;
      b.u32(s.mode).u32(s.seed).str(shape).u32(s.pieces.length);
      for (const p of s.pieces) b.s(p.pos).u32(p.bytes.length).bytes(p.bytes);
      b.u32(pages.length); for (const p of pages) b.s(p);
      b.u32(entries.length); for (const e of entries) b.s(e.pos).u32(e.block);
      b.u32(exits.length); for (const e of exits) b.s(e.pos).u32(e.isNeeded ? 1 : 0);
      b.u32(nrInsns).u32(code.types.length); for (const t of code.types) b.u8(t);
      b.u32(code.hints.length); for (const [at, likely] of code.hints) b.u32(at).u32(likely);
      b.u32(code.n).bytes(code.buf.subarray(0, code.n));
    }
    const out = new Uint8Array(b.n + SUM_BYTES);
    out.set(b.buf.subarray(0, b.n));
    new DataView(out.buffer).setUint32(b.n, checksum(out.subarray(0, b.n)), true);
    return out;
  }
  /** What is wrong with bytes that should be a store's, in words, or null. A look costs a small part of what `decode` does. */
  static flaw(bytes: Uint8Array): string | null {
    const end = bytes.length - SUM_BYTES;
    try { if (new Reader(bytes).u32() !== MAGIC) return "it is not a code cache"; } catch { return "it is not a code cache"; }
    return end < 0 || new DataView(bytes.buffer, bytes.byteOffset).getUint32(end, true) !== checksum(bytes.subarray(0, end)) ? "its checksum is wrong" : null;
  }
  /** @returns the store, or in words why the bytes are none of ours; images of another engine are no error: then it is empty */
  static decode(bytes: Uint8Array, engine: string): ImageStore | string {
    const flaw = ImageStore.flaw(bytes), r = new Reader(bytes.subarray(0, bytes.length - SUM_BYTES)), store = new ImageStore();
    if (flaw !== null) return flaw;
    try {
      r.u32();
      if (r.u32() !== VERSION || r.str() !== engine) return store;
      for (let n = r.u32(); n > 0; n--) {
        const mode = r.u32(), seed = r.u32(), shape = r.str() as Shape, pieces = r.list((): Piece => ({ pos: r.s(), bytes: r.bytes() })), pages = r.list(() => r.s());
        const entries = r.list(() => ({ pos: r.s(), block: r.u32() })), exits = r.list(() => ({ pos: r.s(), isNeeded: r.u32() === 1 })), nrInsns = r.u32(), code = new Code(2);
        code.types.push(...r.list(() => r.u8() as Ty));
        code.hints = r.list((): [number, number] => [r.u32(), r.u32()]);
        code.bytes(r.bytes());
        store.add({ mode, seed, pieces, image: { shape, code, pages, entries, exits, nrInsns } });
      }
    } catch (e) {
      if (!(e instanceof RangeError)) throw e;
      return "it is cut short";
    }
    store.nrNew = 0;
    return store;
  }
}

const sizeOf = (s: StoredImage): number => s.image.code.n + s.pieces.reduce((n, p) => n + p.bytes.length, 200);
const equal = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((x, i) => x === b[i]);
/** FNV-1a, 32 bits: against accidents. */
function checksum(bytes: Uint8Array): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) h = Math.imul(h ^ bytes[i]!, 0x01000193);
  return h >>> 0;
}

/** LEB128 numbers and bytes, as Bytes writes them. Reading on behind the end is a RangeError. */
class Reader {
  at = 0;
  private readonly b: Uint8Array;
  constructor(b: Uint8Array) { this.b = b; }
  u8(): number { if (this.at >= this.b.length) throw new RangeError("end"); return this.b[this.at++]!; }
  u32(): number {
    let x = 0;
    for (let scale = 1; scale < 2 ** 35; scale *= 128) { const y = this.u8(); x += (y & 127) * scale; if (y < 128) return x; }
    throw new RangeError("number");
  }
  s(): number {
    let x = 0;
    for (let scale = 1; scale < 2 ** 49; scale *= 128) { const y = this.u8(); x += (y & 127) * scale; if (y < 128) return y & 64 ? x - scale * 128 : x; }
    throw new RangeError("number");
  }
  bytes(): Uint8Array { const n = this.u32(); if (n > this.b.length - this.at) throw new RangeError("end"); return this.b.slice(this.at, this.at += n); }
  str(): string { return new TextDecoder().decode(this.bytes()); }
  list<T>(read: () => T): T[] { const n = this.u32(); if (n > this.b.length - this.at) throw new RangeError("end"); return Array.from({ length: n }, read); }
}
