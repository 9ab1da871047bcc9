/**
 * What a translated region is, apart from its function: which blocks may be entered, what its data block holds, and what it was made from. Images hold no address, so whoever meets the same
 * code takes them as they are: another pCPU, another domain, the next boot, a clone. As bytes they are what a member of the code store (code-store.ts) says of itself.
 */
import { Reader } from "../wasm/reader.ts";
import { Bytes } from "../wasm/writer.ts";
import { MODE } from "./state.ts";

/**
 * What a region is made for. wide: registers and flags are locals over the whole region, jump tables at each site; for what loops. lean: registers are loaded by each
 * block that reads them, flags lie in memory between blocks, one jump table: a third of the code, for what runs now and then, above all kernels' paths.
 */
export type Shape = "lean" | "wide";
/**
 * Fit for any machine that has the same code. The region's data block: for each page the machine address it must have (u32, the home
 * page's is not looked at), the entry table's displacements, its slots (entry-table.ts), then for each exit the record of its position (u32; 0 where there is none yet and
 * none is needed), then for each site what SITE of layout.ts says.
 */
export type Image = {
  readonly shape: Shape;
  /** distances from the home page, which comes first */
  readonly pages: readonly number[];
  /** blocks that may be entered, by number; those on the home page also from outside */
  readonly entries: readonly { readonly pos: number; readonly block: number }[];
  readonly exits: readonly { readonly pos: number; readonly isNeeded: boolean }[];
  readonly sites: readonly Site[];
  readonly nrInsns: number;
};
/**
 * Where a lean region is left, and how (LEAVES): the position to go on at, how many instructions are done and not counted, and whether its record is needed, of use where it is there, or not to be
 * used, as its page may be mapped elsewhere by now.
 */
export type Site = { readonly pos: number; readonly how: number; readonly done: number; readonly rec: "needed" | "known" | "none" };
const RECS = ["none", "known", "needed"] as const;
/** Code that an image was made from: a piece of a page, by position. */
export type Piece = { readonly pos: number; readonly bytes: Uint8Array };

/**
 * Under which images are found: the mode (that of user code is its kernel's), the offset in its page of what is to be entered, and the first bytes there, so that
 * what is found almost always fits. Negative: other keys of the store are not. @param at where the page is in `bytes`
 */
export function imageKey(mode: number, entry: number, bytes: Uint8Array, at: number): number {
  let first = 0;
  for (let i = entry; i < entry + 4 && i < 4096; i++) first = first << 8 | bytes[at + i]!;
  return -1 - (((mode & ~MODE.user) * 4096 + entry) * 2 ** 24 + (Math.imul(first, 0x9e3779b1) >>> 8));
}

/** Pieces first, so that what does not fit is known early. */
export function encodeImage({ shape, pages, entries, exits, sites, nrInsns }: Image, pieces: readonly Piece[]): Uint8Array {
  const b = new Bytes().u32(pieces.length);
  for (const p of pieces) b.s(p.pos).u32(p.bytes.length).bytes(p.bytes);
  b.u8(shape === "wide" ? 1 : 0).u32(nrInsns);
  b.u32(pages.length); for (const p of pages) b.s(p);
  b.u32(entries.length); for (const e of entries) b.s(e.pos).u32(e.block);
  b.u32(exits.length); for (const e of exits) b.s(e.pos).u32(e.isNeeded ? 1 : 0);
  b.u32(sites.length); for (const x of sites) b.s(x.pos).s(x.done).u8(x.how).u8(RECS.indexOf(x.rec));
  return b.done();
}
/** The image, if `isHere` says so of each piece of code it was made from; else null. @throws RangeError where the bytes end too soon: they were overwritten meanwhile */
export function fittingImage(bytes: Uint8Array, isHere: (piece: Piece) => boolean): Image | null {
  const r = new Reader(bytes);
  for (let n = r.u32(); n > 0; n--) if (!isHere({ pos: r.s(), bytes: r.take(r.u32()) })) return null;
  const shape = r.u8() === 1 ? "wide" : "lean", nrInsns = r.u32();
  return { shape, nrInsns, pages: r.list(() => r.s()), entries: r.list(() => ({ pos: r.s(), block: r.u32() })), exits: r.list(() => ({ pos: r.s(), isNeeded: r.u32() === 1 })), sites: r.list(() => ({ pos: r.s(), done: r.s(), how: r.u8(), rec: RECS[r.u8()] ?? "none" })) };
}
