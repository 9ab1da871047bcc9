/**
 * The LZMA decoder, for XZ (LZMA2) and for the older .lzma files. It writes into the Output, which is also its dictionary.
 * @see "LZMA specification" (lzma-specification.txt of the LZMA SDK, public domain) for the model and the range coder
 */
import { copyMatch, type Options, Output } from "./output.ts";

/** Where each kind of probability stands in the one array. By state: 16 position states each, or one. */
const IS_MATCH = 0, IS_REP = IS_MATCH + 12 * 16, IS_REP0 = IS_REP + 12, IS_REP1 = IS_REP0 + 12, IS_REP2 = IS_REP1 + 12;
const IS_REP0_LONG = IS_REP2 + 12, DIST_SLOT = IS_REP0_LONG + 12 * 16, DIST_SPECIAL = DIST_SLOT + 4 * 64, DIST_ALIGN = DIST_SPECIAL + 128;
/** Within a length coder: two choices, 16 trees of 8 leaves, 16 more, one of 256. */
const LEN_LOW = 2, LEN_MID = LEN_LOW + 128, LEN_HIGH = LEN_MID + 128, LEN_SIZE = LEN_HIGH + 256;
const LEN_MATCH = DIST_ALIGN + 16, LEN_REP = LEN_MATCH + LEN_SIZE, LITERAL = LEN_REP + LEN_SIZE;
/** A probability's start: one half of 2^11. */
const HALF = 1024;
/** Slots of the range coder's state; in an Int32Array, which stays unboxed where class fields do not. */
const RANGE = 0, CODE = 1, AT = 2;

/** Decode one bit with the probability at `i`. */
function bit(s: Int32Array, src: Uint8Array, probs: Uint16Array, i: number): number {
  let range = s[RANGE] as number, code = s[CODE] as number;
  if (range >>> 24 === 0) {
    const at = s[AT] as number;
    range <<= 8;
    code = code << 8 | (src[at] as number);  // past the end: undefined, which `|` takes for 0; run() checks AT
    s[AT] = at + 1;
  }
  const p = probs[i] as number, bound = Math.imul(range >>> 11, p);
  if (code >>> 0 < bound >>> 0) {
    s[RANGE] = bound;
    s[CODE] = code;
    probs[i] = p + (2048 - p >> 5);
    return 0;
  }
  s[RANGE] = range - bound;
  s[CODE] = code - bound;
  probs[i] = p - (p >> 5);
  return 1;
}

/** A tree of `bits` levels, the high bit first. */
function tree(s: Int32Array, src: Uint8Array, probs: Uint16Array, base: number, bits: number): number {
  let m = 1;
  for (let i = bits; i > 0; i--) m = m << 1 | bit(s, src, probs, base + m);
  return m - (1 << bits);
}

/** The same, the low bit first. */
function reverseTree(s: Int32Array, src: Uint8Array, probs: Uint16Array, base: number, bits: number): number {
  let m = 1, value = 0;
  for (let i = 0; i < bits; i++) {
    const b = bit(s, src, probs, base + m);
    m = m << 1 | b;
    value |= b << i;
  }
  return value;
}

/** `n` bits of even odds. */
function direct(s: Int32Array, src: Uint8Array, n: number): number {
  let range = s[RANGE] as number, code = s[CODE] as number, at = s[AT] as number, value = 0;
  for (; n > 0; n--) {
    if (range >>> 24 === 0) {
      range <<= 8;
      code = code << 8 | (src[at++] as number);
    }
    range >>>= 1;
    value <<= 1;
    if (code >>> 0 >= range) { code = code - range | 0; value |= 1; }
  }
  s[RANGE] = range;
  s[CODE] = code;
  s[AT] = at;
  return value;
}

/** Leave the range as the encoder's last flush does. */
function normalise(s: Int32Array, src: Uint8Array): void {
  if ((s[RANGE] as number) >>> 24 !== 0) return;
  const at = s[AT] as number;
  s[RANGE] = (s[RANGE] as number) << 8;
  s[CODE] = (s[CODE] as number) << 8 | (src[at] as number);
  s[AT] = at + 1;
}

function matchLength(s: Int32Array, src: Uint8Array, probs: Uint16Array, base: number, posState: number): number {
  if (bit(s, src, probs, base) === 0) return 2 + tree(s, src, probs, base + LEN_LOW + posState * 8, 3);
  if (bit(s, src, probs, base + 1) === 0) return 10 + tree(s, src, probs, base + LEN_MID + posState * 8, 3);
  return 18 + tree(s, src, probs, base + LEN_HIGH, 8);
}

/** The model's state, which LZMA2 carries from chunk to chunk. */
export class LzmaDecoder {
  readonly out: Output;
  private probs = new Uint16Array(LITERAL);
  private lc = 0;
  private lpMask = 0;
  private pbMask = 0;
  private state = 0;
  private reps = new Int32Array(4);
  private coder = new Int32Array(3);
  private src: Uint8Array = new Uint8Array(0);
  /** output position where the dictionary begins */
  dictStart = 0;

  constructor(out: Output) {
    this.out = out;
  }

  /** Take over lc, lp and pb from the properties byte. @returns their sum lc + lp, or -1 when the byte is out of range */
  setProperties(byte: number): number {
    if (byte >= 9 * 5 * 5) return -1;
    const lp = Math.floor(byte / 9) % 5, pb = Math.floor(byte / 45);
    this.lc = byte % 9;
    this.lpMask = (1 << lp) - 1;
    this.pbMask = (1 << pb) - 1;
    const size = LITERAL + (0x300 << (this.lc + lp));
    if (this.probs.length !== size) this.probs = new Uint16Array(size);
    return this.lc + lp;
  }

  resetState(): void {
    this.probs.fill(HALF);
    this.state = 0;
    this.reps.fill(0);
  }

  /** Start the range coder on `src[at..]`: a zero byte and four of code. */
  startRange(src: Uint8Array, at: number): void {
    if (at + 5 > src.length) this.out.fail("it ends in the range coder's first bytes");
    if (src[at] !== 0) this.out.fail("the range coder's first byte is not zero");
    this.src = src;
    this.coder[RANGE] = -1;
    this.coder[CODE] = (src[at + 1] as number) << 24 | (src[at + 2] as number) << 16 | (src[at + 3] as number) << 8 | (src[at + 4] as number);
    this.coder[AT] = at + 5;
  }

  /**
   * Decode until the output holds `until` bytes or an end marker comes.
   * @returns where the input goes on, and whether the range coder ended in the state that the encoder leaves
   */
  run(until: number): { at: number; isMarked: boolean; isClean: boolean } {
    const s = this.coder, src = this.src, probs = this.probs, output = this.out;
    let rep0 = this.reps[0] as number, rep1 = this.reps[1] as number, rep2 = this.reps[2] as number, rep3 = this.reps[3] as number;
    const { lc, lpMask, pbMask, dictStart } = this;
    let out = output.bytes, to = output.length, state = this.state, isMarked = false;
    while (to < until) {
      if ((s[AT] as number) > src.length) output.fail("it ends early");
      const posState = to - dictStart & pbMask;
      if (bit(s, src, probs, IS_MATCH + state * 16 + posState) === 0) {
        if (to >= out.length) { output.length = to; out = output.room(1); }
        const previous = to > dictStart ? out[to - 1] as number : 0;
        const base = LITERAL + 0x300 * (((to - dictStart & lpMask) << lc) + (previous >> 8 - lc));
        let m = 1;
        if (state >= 7) {
          if (rep0 >>> 0 >= to - dictStart) output.fail("a literal after a match without a match");
          let other = out[to - rep0 - 1] as number, offset = 0x100;
          while (m < 0x100) {  // follow the byte that a match would have given, as long as it is right
            other <<= 1;
            const isOne = bit(s, src, probs, base + offset + (other & offset) + m);
            m = m << 1 | isOne;
            offset &= isOne ? other : ~other;
          }
        } else while (m < 0x100) m = m << 1 | bit(s, src, probs, base + m);
        out[to++] = m;
        state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
        continue;
      }
      let n: number;
      if (bit(s, src, probs, IS_REP + state) === 0) {
        n = matchLength(s, src, probs, LEN_MATCH, posState);
        const slot = tree(s, src, probs, DIST_SLOT + Math.min(n - 2, 3) * 64, 6);
        let distance = slot;
        if (slot >= 4) {
          const bits = (slot >> 1) - 1;
          distance = (2 | slot & 1) << bits;
          if (slot < 14) distance += reverseTree(s, src, probs, DIST_SPECIAL + distance - slot, bits);
          else distance = distance + (direct(s, src, bits - 4) << 4) + reverseTree(s, src, probs, DIST_ALIGN, 4);
        }
        rep3 = rep2; rep2 = rep1; rep1 = rep0;
        rep0 = distance | 0;
        state = state < 7 ? 7 : 10;
        if (rep0 === -1) { isMarked = true; break; }
      } else {
        let isOne = false;
        if (bit(s, src, probs, IS_REP0 + state) === 0) isOne = bit(s, src, probs, IS_REP0_LONG + state * 16 + posState) === 0;
        else {
          let distance = rep1;
          if (bit(s, src, probs, IS_REP1 + state) !== 0) {
            if (bit(s, src, probs, IS_REP2 + state) === 0) distance = rep2;
            else { distance = rep3; rep3 = rep2; }
            rep2 = rep1;
          }
          rep1 = rep0;
          rep0 = distance;
        }
        n = isOne ? 1 : matchLength(s, src, probs, LEN_REP, posState);
        state = state >= 7 ? 11 : isOne ? 9 : 8;
      }
      const back = (rep0 >>> 0) + 1;
      if (back > to - dictStart) output.fail(`a match ${back} bytes back, ${to - dictStart} into the data`);
      if (n > until - to) output.fail("a match reaches past the end of its chunk");
      if (to + n > out.length) { output.length = to; out = output.room(n); }
      copyMatch(out, output.view, to, back, n);
      to += n;
    }
    normalise(s, src);
    if ((s[AT] as number) > src.length) output.fail("it ends early");
    output.length = to;
    this.state = state;
    this.reps.set([rep0, rep1, rep2, rep3]);
    return { at: s[AT] as number, isMarked, isClean: s[CODE] === 0 };
  }
}

/** An .lzma file ("LZMA alone"): properties, dictionary size, output size or -1 for "until the end marker". */
export function unlzma(input: Uint8Array, options: Options = {}): Uint8Array {
  const out = new Output("LZMA", input, options);
  if (input.length < 13) out.fail("it ends in its header");
  const size = new DataView(input.buffer, input.byteOffset + 5, 8).getBigUint64(0, true), isOpen = size === 0xffffffffffffffffn;
  if (!isOpen && size > BigInt(out.limit)) out.room(out.limit + 1);
  const decoder = new LzmaDecoder(out);
  if (decoder.setProperties(input[0] as number) < 0) out.fail("its properties byte is out of range");
  decoder.resetState();
  decoder.startRange(input, 13);
  const end = decoder.run(isOpen ? Number.POSITIVE_INFINITY : Number(size));
  if (!end.isClean || end.at !== input.length) out.fail("the data do not end where they should");
  return out.done();
}
