/**
 * The symbols that a Linux kernel carries in itself (CONFIG_KALLSYMS), found in its image by their shape, since a stripped image says nothing of where
 * they are. Names are packed: 256 tokens, each a piece of text, and per symbol a length and so many token numbers; the first
 * character is the type. Linux 4.20 to 6.3 has
 *
 *     offsets, relative_base, num_syms, names, markers (where each 256th name begins), [seqs_of_names (3 bytes each)], token_table, token_index
 *
 * and later ones have offsets and relative_base behind token_index, and seqs_of_names behind these.
 * @see Linux's scripts/kallsyms.c, kernel/kallsyms.c
 */
import type { ElfImage, Segment } from "./elf.ts";
import type { KernelSymbol } from "./symbols.ts";

const NR_TOKENS = 256, NAMES_PER_MARKER = 256, DIGIT = 0x30;
/** One name is at most so many bytes, and its length one or two more. */
const MOST_NAME_BYTES = 514;
/** Kernels have a hundred thousand. */
const MOST_NAMES = 1 << 20;
const up8 = (n: number): number => Math.ceil(n / 8) * 8;

/** @returns the symbols by address, or null when there are none or they are laid out in a way unknown here */
export function readKallsyms(image: ElfImage): KernelSymbol[] | null {
  if (image.bits !== 64) return null;
  for (const segment of image.segments) {
    for (const tokens of tokenTables(segment.bytes)) {
      const names = findNames(segment.bytes, tokens);
      const addresses = names && findAddresses(segment, image, tokens, names);
      if (addresses) return symbolsOf(segment.bytes, tokens, names, addresses);
    }
  }
  return null;
}

type Tokens = { readonly at: number; readonly indexAt: number; readonly texts: readonly string[] };
type Names = { readonly nrSymbolsAt: number; readonly at: number; readonly nr: number };
const viewOf = (b: Uint8Array): DataView => new DataView(b.buffer, b.byteOffset, b.length);

/** Digits stand for themselves: ten of them in a row, a zero byte behind each. */
function* tokenTables(b: Uint8Array): Generator<Tokens> {
  const view = viewOf(b);
  for (let digits = b.indexOf(DIGIT); digits >= 0; digits = b.indexOf(DIGIT, digits + 1)) {
    let i = 0;
    while (i < 10 && b[digits + 2 * i] === DIGIT + i && b[digits + 2 * i + 1] === 0) i++;
    if (i < 10) continue;
    let end = digits;
    for (let n = DIGIT; n < NR_TOKENS && end > 0; n++) end = b.indexOf(0, end) + 1;
    if (end <= 0) continue;
    for (const align of [8, 4, 2]) {
      const indexAt = Math.ceil(end / align) * align;
      if (indexAt + NR_TOKENS * 2 > b.length) continue;
      const at = digits - view.getUint16(indexAt + DIGIT * 2, true), texts = at < 0 ? null : tokenTexts(b, at, end, indexAt);
      if (texts) { yield { at, indexAt, texts }; break; }
    }
  }
}
/** The tokens, if they begin where the index says, one behind the other. */
function tokenTexts(b: Uint8Array, at: number, end: number, indexAt: number): string[] | null {
  const view = viewOf(b), texts: string[] = [];
  let next = at;
  for (let n = 0; n < NR_TOKENS; n++) {
    if (at + view.getUint16(indexAt + n * 2, true) !== next) return null;
    const zero = b.indexOf(0, next);
    if (zero < 0) return null;
    texts.push(String.fromCharCode(...b.subarray(next, zero)));
    next = zero + 1;
  }
  return next === end ? texts : null;
}

/** Markers end before the tokens, or before three bytes a name; names end before the markers. How many there are, and where they begin, is tried until all of it fits. */
function findNames(b: Uint8Array, tokens: Tokens): Names | null {
  const view = viewOf(b);
  /** Numbers that grow from zero, by no more than names can take. */
  const areMarkers = (at: number, nr: number): boolean => {
    if (at < 8 || view.getUint32(at, true) !== 0) return false;
    for (let i = 1, before = 0; i < nr; i++) {
      const marker = view.getUint32(at + i * 4, true);
      if (marker < before + 2 * NAMES_PER_MARKER || marker > before + MOST_NAME_BYTES * NAMES_PER_MARKER) return false;
      before = marker;
    }
    return true;
  };
  const before = (markers: number, nrMarkers: number): Names | null => {
    const last = markers - view.getUint32(markers + (nrMarkers - 1) * 4, true) - 2;
    for (let at = last - last % 4; at >= 8 && at > last - MOST_NAME_BYTES * NAMES_PER_MARKER; at -= 4) {
      for (const nrSymbolsAt of [at - 8, at - 4]) {
        const nr = view.getUint32(nrSymbolsAt, true);
        if (Math.ceil(nr / NAMES_PER_MARKER) === nrMarkers && areNames(b, at, nr, markers)) return { nrSymbolsAt, at, nr };
      }
    }
    return null;
  };
  for (let nr = NAMES_PER_MARKER + 1; nr < MOST_NAMES && nr * 4 < tokens.at; nr++) {
    const nrMarkers = Math.ceil(nr / NAMES_PER_MARKER), isFirst = nr % NAMES_PER_MARKER === 1;
    for (const end of isFirst ? [tokens.at, tokens.at - up8(nr * 3)] : [tokens.at - up8(nr * 3)]) {
      const markers = end - up8(nrMarkers * 4), names = areMarkers(markers, nrMarkers) ? before(markers, nrMarkers) : null;
      if (names) return names;
    }
  }
  return null;
}
/** Lengths of 0x80 and more have a second byte, since Linux 6.1. */
function nameLength(b: Uint8Array, at: number): { bytes: number; from: number } {
  const first = b[at] as number;
  return first < 0x80 ? { bytes: first, from: at + 1 } : { bytes: (first & 0x7f) | (b[at + 1] as number) << 7, from: at + 2 };
}
function areNames(b: Uint8Array, names: number, nr: number, markers: number): boolean {
  const view = viewOf(b);
  let at = names;
  for (let n = 0; n < nr; n++) {
    if (n % NAMES_PER_MARKER === 0 && view.getUint32(markers + n / NAMES_PER_MARKER * 4, true) !== at - names) return false;
    const { bytes, from } = nameLength(b, at);
    at = from + bytes;
    if (bytes === 0 || at > markers) return false;
  }
  return markers - at < 8;
}

/**
 * The address of each name, or null. Offsets count from relative_base; or (CONFIG_KALLSYMS_ABSOLUTE_PERCPU) those below zero do, as base - 1 - offset, and
 * the others are absolute.
 */
function findAddresses({ bytes }: Segment, image: ElfImage, tokens: Tokens, { nrSymbolsAt, nr }: Names): number[] | null {
  const view = viewOf(bytes), before = nrSymbolsAt - 8, behind = up8(tokens.indexAt + NR_TOKENS * 2);
  const isInKernel = (address: number): boolean => image.segments.some((s) => {
    const from = Number(BigInt.asIntN(64, s.vaddr));
    return from < 0 && address >= from && address <= from + s.memsz;
  });
  for (const { base, offsets } of [{ base: before, offsets: before - up8(nr * 4) }, { base: behind + up8(nr * 4), offsets: behind }]) {
    if (offsets < 0 || base + 8 > bytes.length) continue;
    const relative = Number(view.getBigInt64(base, true));
    if (!isInKernel(relative)) continue;
    for (const hasAbsolute of [true, false]) {
      const addresses: number[] = [];
      for (let n = 0; n < nr; n++) {
        const offset = view.getInt32(offsets + n * 4, true);
        addresses.push(!hasAbsolute ? relative + (offset >>> 0) : offset < 0 ? relative - 1 - offset : offset);
      }
      const inKernel = addresses.filter((a) => a < 0);
      if (inKernel.length > nr / 2 && isInKernel(inKernel[0]!) && isInKernel(inKernel[inKernel.length >> 1]!) && inKernel.every((a, i) => i === 0 || a >= inKernel[i - 1]!)) return addresses;
    }
  }
  return null;
}

function symbolsOf(b: Uint8Array, { texts }: Tokens, names: Names, addresses: readonly number[]): KernelSymbol[] {
  const symbols: KernelSymbol[] = [];
  for (let n = 0, at = names.at; n < names.nr; n++) {
    const { bytes, from } = nameLength(b, at);
    at = from + bytes;
    let name = "";
    for (let i = from; i < at; i++) name += texts[b[i]!]!;
    const address = addresses[n]!;
    if (address < 0 && name.length > 1) symbols.push({ address, type: name[0]!, name: name.slice(1) });     // the others are per-CPU variables
  }
  return symbols;
}
