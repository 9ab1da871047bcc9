/**
 * Shapes that a machine's pCPUs tell each other, and a later machine, by the code store: what one of them has decoded no other need decode. A member of the store has some hundred shapes, and the forms
 * of their stubs, as table slots are each engine's own.
 */
import { bytes, struct, u32, u8 } from "../base/struct.ts";
import type { CodeStore, Member } from "./code-store.ts";
import { SHAPE } from "./layout.ts";
import { type NewShape, NOBODYS, type Shapes } from "./shapes.ts";

/** An engine's stubs: the form of one (formKey), and the slot of a form's, 0 where there is none yet. */
export type Stubs = { keyOf(slot: number): number; slotOf(key: number): number };
/** No form's and no region's. */
export const SHAPES_KEY = 2 ** 53 + 2;
const NOTHING = new Uint8Array(0);
/** New shapes are told of when there are so many, or have waited for so many slices. */
const BATCH = { shapes: 256, ticks: 64 };
/** The words that are equal everywhere, and the others. */
const COMMON = [SHAPE.operands, SHAPE.registers, SHAPE.imm, SHAPE.disp, SHAPE.how].map((field) => field >> 2), STUB = SHAPE.stub >> 2, CROSS_STUB = SHAPE.crossStub >> 2;
/** A member: how many forms and shapes there are, the forms' keys, the shapes. */
const HEADER = struct(8, { nrForms: u32(0), nrShapes: u32(4) }), KEY_BYTES = 8;
/** A shape: its mode and bytes, the forms of its stubs by their place among the keys (1 and up, 0: none is known), and its words. */
const TOLD = struct(44, { mode: u8(0), length: u8(1), stubs: u32(4), bytes: bytes(8, 16), words: u32(24) }), FORM_BITS = 16;

export class SharedShapes {
  private readonly shapes: Shapes;
  private readonly i32: Int32Array;
  private readonly store: CodeStore;
  private readonly stubs: Stubs;
  /** modules that are ours, or were taken in */
  private readonly seen = new Set<number>();
  /** what is to be taken in yet, the newest first */
  private readonly news: Member[] = [];
  /** CodeStore.nrAdded when it was looked at */
  private nrLooked = -1;
  private waited = 0;

  constructor(shapes: Shapes, i32: Int32Array, store: CodeStore, stubs: Stubs) { this.shapes = shapes; this.i32 = i32; this.store = store; this.stubs = stubs; shapes.fresh = []; }

  /** Take in what others have told since the last time, or that much of it. @returns whether there was anything */
  takeIn(most = Infinity): boolean {
    const own = this.shapes.fresh, { nrAdded } = this.store;
    if (nrAdded !== this.nrLooked) {
      this.nrLooked = nrAdded;
      const news = this.store.find(SHAPES_KEY).filter(({ module }) => !this.seen.has(module));
      this.news.unshift(...news);        // the oldest comes last
      for (const { module } of news) this.seen.add(module);
    }
    if (this.news.length === 0) return false;
    this.shapes.fresh = null;
    for (let n = 0; n < most && this.news.length > 0; n++) {
      const { module, bytes } = this.news.pop()!, told = bytes.slice();
      if (!this.shapes.isCrowded && this.store.isCurrent(module)) this.learn(told);        // else it was overwritten meanwhile
    }
    this.shapes.fresh = own;
    return true;
  }
  private learn(told: Uint8Array): void {
    if (told.length < HEADER.sizeof) return;
    const { i32, shapes } = this, dv = new DataView(told.buffer), words = new Int32Array(told.buffer, 0, told.length >>> 2), nrForms = HEADER.nrForms.get(dv, 0), nrShapes = HEADER.nrShapes.get(dv, 0);
    if (told.length !== HEADER.sizeof + nrForms * KEY_BYTES + nrShapes * TOLD.sizeof) return;
    const slots = [0, ...Array.from({ length: nrForms }, (_, n) => this.stubs.slotOf(dv.getFloat64(HEADER.sizeof + n * KEY_BYTES, true)))];
    for (let at = HEADER.sizeof + nrForms * KEY_BYTES; at < told.length; at += TOLD.sizeof) {
      const from = at + TOLD.bytes.at, shape = shapes.place(told, from, from + told[at + TOLD.length.at]!, told[at + TOLD.mode.at]!), w = shapes.wordsOf(shape), forms = words[(at + TOLD.stubs.at) >>> 2]!;
      if (shape === NOBODYS) continue;
      for (let n = 0; n < COMMON.length; n++) i32[w + COMMON[n]!] = words[((at + TOLD.words.at) >>> 2) + n]!;
      i32[w + STUB] ||= slots[forms & (1 << FORM_BITS) - 1] ?? 0; i32[w + CROSS_STUB] ||= slots[forms >>> FORM_BITS] ?? 0;
    }
  }
  /** To be called at each slice, when all stubs are made. */
  tick(): void {
    const { fresh } = this.shapes;
    if (!fresh || fresh.length === 0) return;
    if (fresh.length < BATCH.shapes && ++this.waited < BATCH.ticks) return;
    this.waited = 0; this.shapes.fresh = [];
    this.seen.add(this.store.add(NOTHING, [{ keys: [SHAPES_KEY], bytes: this.encode(fresh) }]));
    this.takeIn();
  }
  private encode(fresh: readonly NewShape[]): Uint8Array {
    const { i32 } = this, forms = new Map<number, number>(), formOf = (slot: number): number => {
      if (slot !== 0 && !forms.has(slot)) forms.set(slot, forms.size + 1);
      return forms.get(slot) ?? 0;
    };
    const shapes = fresh.map(({ shape, mode, bytes }) => { const w = this.shapes.wordsOf(shape); return { mode, bytes, w, stubs: formOf(i32[w + STUB]!) | formOf(i32[w + CROSS_STUB]!) << FORM_BITS }; });
    const told = new Uint8Array(HEADER.sizeof + forms.size * KEY_BYTES + shapes.length * TOLD.sizeof), dv = new DataView(told.buffer);
    HEADER.nrForms.set(dv, 0, forms.size); HEADER.nrShapes.set(dv, 0, shapes.length);
    let at: number = HEADER.sizeof;
    for (const slot of forms.keys()) { dv.setFloat64(at, this.stubs.keyOf(slot), true); at += KEY_BYTES; }
    for (const { mode, bytes, w, stubs } of shapes) {
      TOLD.mode.set(dv, at, mode); TOLD.length.set(dv, at, bytes.length); TOLD.stubs.set(dv, at, stubs);
      told.set(bytes, at + TOLD.bytes.at);
      COMMON.forEach((word, n) => { dv.setInt32(at + TOLD.words.at + n * 4, i32[w + word]!, true); });
      at += TOLD.sizeof;
    }
    return told;
  }
}
