/**
 * What bytes say of an instruction apart from its numbers: its shape, from the first prefix to the last byte before displacement and immediate. Most code is made of a few thousand shapes. One that was met
 * before needs no decoder: generated code (records.ts) finds its description (SHAPE of layout.ts) byte by byte in a tree, and reads the numbers behind it.
 */
import type { Views } from "../base/views.ts";
import { NODE_BYTES, NODES_MAX, SHAPE, SHAPES_AT, SHAPES_MAX, TREE_AT } from "./layout.ts";
import { MODE } from "./state.ts";

/** The instruction's length, the bytes of its displacement and immediate (0, 1, 2, 4), whether the displacement counts from its end, is it a direct jump (far: which leaves its page for us wherever it
 *  goes), and what comes behind it in its run: nothing, or what a call returns to. */
export const HOW = { lengthMask: 15, dispShift: 4, immShift: 7, numberMask: 7, numbers: 63 << 4, ripRel: 1 << 10, direct: 1 << 11, far: 1 << 12, ends: 1 << 13, calls: 1 << 14 } as const;
/** The description of no shape: for an instruction that can have none, until the next one. */
export const NOBODYS = 0;

/** A shape that nobody has told of before: its mode and bytes. */
export type NewShape = { readonly shape: number; readonly mode: number; readonly bytes: Uint8Array };

export class Shapes {
  /** New ones, for whoever wants to know and takes them from here. */
  fresh: NewShape[] | null = null;
  private readonly v: Views;
  private readonly base: number;
  private nrShapes = 1;
  /** node 0 knows nothing */
  private nrNodes = 1;
  private readonly roots = new Map<number, number>();

  /** @param base of a pCPU's area, whose tree is all zero */
  constructor(v: Views, base: number) { this.v = v; this.base = base; }

  /** Where the tree begins for a mode: a node. */
  rootOf(mode: number): number {
    const m = mode & ~MODE.user;
    let root = this.roots.get(m);
    if (root === undefined) this.roots.set(m, root = this.node());
    return root;
  }
  /** Little room is left: what there is, is for code that is met here. */
  get isCrowded(): boolean { return this.nrShapes > SHAPES_MAX * 3 / 4 || this.nrNodes > NODES_MAX * 3 / 4; }
  /** A new node, or 0 where there are enough. */
  private node(): number { return this.nrNodes === NODES_MAX ? 0 : this.nrNodes++; }
  /** Index in Views.i32 of a description. */
  wordsOf(shape: number): number { return (this.base + SHAPES_AT + shape * SHAPE.size) >>> 2; }
  /** A new description, or 0 where there are enough. */
  describe(): number { return this.nrShapes === SHAPES_MAX ? NOBODYS : this.nrShapes++; }
  /** The number of the shape m[at..end), of at most 15 bytes, which may be new: all 0 then. NOBODYS where there are enough. */
  place(m: Uint8Array, at: number, end: number, mode: number): number {
    const { u16 } = this.v, tree = (this.base + TREE_AT) >>> 1;
    const from = at;
    let node = this.rootOf(mode);
    if (node === 0) return NOBODYS;
    for (; at < end - 1; at++) {
      const e = tree + node * (NODE_BYTES >> 1) + m[at]!;
      let next = u16[e]!;
      if (next === 0) {
        next = this.node();
        if (next === 0) return NOBODYS;
        u16[e] = next;
      }
      if (next >= NODES_MAX) return NOBODYS;       // no shape is another's beginning
      node = next;
    }
    const e = tree + node * (NODE_BYTES >> 1) + m[at]!, known = u16[e]!;
    if (known >= NODES_MAX) return known - NODES_MAX;
    const shape = known > 0 ? NOBODYS : this.describe();
    if (shape === NOBODYS) return NOBODYS;
    u16[e] = NODES_MAX + shape;
    this.fresh?.push({ shape, mode: mode & ~MODE.user, bytes: m.slice(from, end) });
    return shape;
  }
}
