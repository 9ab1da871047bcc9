/**
 * The records of a page of code by the offset they begin at: some hundred for each of thousands of pages. Four bytes an entry (offset and the record's number in the pCPU's
 * area) where a Map takes ten times that, and nothing for the garbage collector to walk.
 */
import { REC } from "./layout.ts";

const FREE = -1, OFFSET_BITS = 12, FIRST_SLOTS = 16;
/** More records than an entry can tell apart cannot be in an area. */
export const RECORDS_MAX = 2 ** (32 - OFFSET_BITS);

export class RecordMap {
  /** byte address of record 0 */
  readonly #base: number;
  #slots = new Int32Array(FIRST_SLOTS).fill(FREE);
  #size = 0;
  constructor(base: number) { this.#base = base; }

  /** The slot of an offset, or the free one where it belongs. */
  #slot(offset: number): number {
    const slots = this.#slots, mask = slots.length - 1;
    for (let i = Math.imul(offset, 0x9e3779b1) >>> 16; ; i++) {
      const entry = slots[i & mask]!;
      if (entry === FREE || (entry & 4095) === offset) return i & mask;
    }
  }
  /** Byte address of the record at an offset in the page. */
  get(offset: number): number | undefined {
    const entry = this.#slots[this.#slot(offset)]!;
    return entry === FREE ? undefined : this.#base + (entry >>> OFFSET_BITS) * REC.size;
  }
  has(offset: number): boolean { return this.#slots[this.#slot(offset)] !== FREE; }
  set(offset: number, record: number): void {
    if (this.#size * 4 >= this.#slots.length * 3) {
      const old = this.#slots;
      this.#slots = new Int32Array(old.length * 2).fill(FREE);
      for (const entry of old) if (entry !== FREE) this.#slots[this.#slot(entry & 4095)] = entry;
    }
    const at = this.#slot(offset);
    if (this.#slots[at] === FREE) this.#size++;
    this.#slots[at] = offset | (record - this.#base) / REC.size << OFFSET_BITS;
  }
  /** All offsets, in no order. */
  forEach(f: (offset: number) => void): void { for (const entry of this.#slots) if (entry !== FREE) f(entry & 4095); }
  /** All offsets, ascending. */
  offsets(): number[] {
    const found: number[] = [];
    this.forEach((offset) => { found.push(offset); });
    return found.sort((a, b) => a - b);
  }
}
