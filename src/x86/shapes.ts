/**
 * What bytes say of an instruction apart from its numbers: its shape, from the first prefix to the last byte before displacement and immediate. Most code is made of a few thousand shapes. One that was met
 * before needs no decoder and makes no garbage: its description is found byte by byte in a tree, and the numbers are read behind it.
 */
import { MODE } from "./state.ts";

/** A description, in words: stubs for a direct jump that stays on its page and for one that leaves it (every other instruction has the first; 0: not known yet), REC's operands and registers as
 *  they are in the record, imm and disp where the bytes have none, and HOW. */
export const SHAPE = { words: 8, stub: 0, crossStub: 1, operands: 2, registers: 3, imm: 4, disp: 5, how: 6 } as const;
/** The instruction's length, the bytes of its displacement and immediate (0, 1, 2, 4), whether the displacement counts from its end, is it a direct jump (far: which leaves its page for us wherever it
 *  goes), and what comes behind it in its run: nothing, or what a call returns to. */
export const HOW = { lengthMask: 15, dispShift: 4, immShift: 7, numberMask: 7, ripRel: 1 << 10, direct: 1 << 11, far: 1 << 12, ends: 1 << 13, calls: 1 << 14 } as const;

const NODE = 256;
/** Guests choose the bytes: more than any program has are decoded anew each time. */
const NODES_MAX = 8192, SHAPES_MAX = 1 << 16;

export class Shapes {
  /** The descriptions. The first is nobody's: for an instruction that can have none. */
  words = new Int32Array(SHAPE.words * 1024);
  #nrShapes = 1;
  /** an entry a byte: 0 nothing known, above 0 the next node, below 0 the negative description */
  #tree = new Int32Array(NODE * 64);
  #nrNodes = 1;
  readonly #roots = new Map<number, number>();
  #mode = -1;
  #root = 0;

  #rootOf(mode: number): number {
    const m = mode & ~MODE.user;
    if (m !== this.#mode) {
      let root = this.#roots.get(m);
      if (root === undefined) {
        root = this.#node();
        if (root !== 0) this.#roots.set(m, root);
      }
      this.#mode = m;
      this.#root = root;
    }
    return this.#root;
  }
  /** A new node, or 0 where there are enough. */
  #node(): number {
    if (this.#nrNodes === NODES_MAX) return 0;
    const at = this.#nrNodes++ * NODE;
    if (at + NODE > this.#tree.length) {
      const old = this.#tree;
      this.#tree = new Int32Array(old.length * 2);
      this.#tree.set(old);
    }
    return at;
  }
  /** Index in `words` of what is known of the instruction at m[at], whose 15 bytes can be read; 0: nothing. */
  find(m: Uint8Array, at: number, mode: number): number {
    let x = this.#rootOf(mode);
    const tree = this.#tree;
    if (x === 0) return 0;
    do x = tree[x + m[at++]!]!; while (x > 0);
    return -x;
  }
  /** Index in `words` for the instruction whose shape is m[at..end): as `find`, or a new one, all 0; 0 where there are enough. */
  place(m: Uint8Array, at: number, end: number, mode: number): number {
    let node = this.#rootOf(mode);
    if (node === 0) return 0;
    for (; at < end - 1; at++) {
      let next = this.#tree[node + m[at]!]!;
      if (next === 0) {
        next = this.#node();
        if (next === 0) return 0;
        this.#tree[node + m[at]!] = next;
      }
      if (next < 0) return 0;       // no shape is another's beginning
      node = next;
    }
    const known = this.#tree[node + m[at]!]!;
    if (known < 0) return -known;
    if (known > 0 || this.#nrShapes === SHAPES_MAX) return 0;
    const found = this.#nrShapes++ * SHAPE.words;
    if (found + SHAPE.words > this.words.length) {
      const old = this.words;
      this.words = new Int32Array(old.length * 2);
      this.words.set(old);
    }
    this.#tree[node + m[at]!] = -found;
    return found;
  }
}
