/**
 * The records of a page of code by the offset they begin at: chains of those that begin in the same piece of the page. An entry is an offset and the record's number in the pCPU's area; the first of each
 * chain lie together, the others behind the records themselves, so that generated code (records.ts) reads and adds to them and the garbage collector has nothing to walk.
 */
import type { Views } from "../base/views.ts";
import { Op } from "../wasm/opcodes.ts";
import { type Code, I32 } from "../wasm/writer.ts";
import { HEADS, NO_HEADS_AT, REC, RECS_AT } from "./layout.ts";

const FREE = -1, OFFSET_BITS = 12, OFFSET_MASK = (1 << OFFSET_BITS) - 1;
/** More records than an entry can tell apart cannot be in an area. */
export const RECORDS_MAX = 2 ** (32 - OFFSET_BITS);

export class RecordMap {
  readonly #v: Views;
  readonly #base: number;
  /** Address of the first entries; those of nobody until there is a record. */
  heads: number;
  /** @param base of the pCPU's area, where NO_HEADS_AT was cleared */
  constructor(v: Views, base: number) { this.#v = v; this.#base = base; this.heads = base + NO_HEADS_AT; }

  get isEmpty(): boolean { return this.heads === this.#base + NO_HEADS_AT; }
  static clear(v: Views, heads: number): void { v.i32.fill(FREE, heads >>> 2, (heads + HEADS.bytes) >>> 2); }

  #recordOf(entry: number): number { return this.#base + RECS_AT + (entry >>> OFFSET_BITS) * REC.size; }
  /** Byte address of the record at an offset in the page. */
  get(offset: number): number | undefined {
    const { i32 } = this.#v;
    let entry = i32[(this.heads >>> 2) + (offset >> HEADS.pieceBits)]!;
    while (entry !== FREE && (entry & OFFSET_MASK) !== offset) entry = i32[(this.#recordOf(entry) + REC.more) >>> 2]!;
    return entry === FREE ? undefined : this.#recordOf(entry);
  }
  has(offset: number): boolean { return this.get(offset) !== undefined; }
  /** All offsets, in no order. */
  forEach(f: (offset: number) => void): void {
    const { i32 } = this.#v;
    for (let piece = 0; piece < HEADS.bytes >> 2; piece++) for (let entry = i32[(this.heads >>> 2) + piece]!; entry !== FREE; entry = i32[(this.#recordOf(entry) + REC.more) >>> 2]!) f(entry & OFFSET_MASK);
  }
  /** All offsets, ascending. */
  offsets(): number[] {
    const found: number[] = [];
    this.forEach((offset) => { found.push(offset); });
    return found.sort((a, b) => a - b);
  }
}

/** Emit the address of the entry of a chain's first: heads and offset are locals. */
const head = (c: Code, heads: number, offset: number): Code => c.get(heads).get(offset).i32(HEADS.pieceBits).op(Op.i32_shr_u).i32(2).op(Op.i32_shl).op(Op.i32_add);
/** Emit the address of an entry's record. */
const recordOf = (c: Code, entry: number, base: number): Code => c.get(entry).i32(OFFSET_BITS).op(Op.i32_shr_u).i32(Math.log2(REC.size)).op(Op.i32_shl).i32(base + RECS_AT).op(Op.i32_add);
/** Body of a function (heads, offset) -> the record's address, or 0. */
export function emitRecordAt(c: Code, base: number): void {
  const entry = c.local(I32), record = (): Code => recordOf(c, entry, base);
  head(c, 0, 1).mem(Op.i32_load, 0).set(entry);
  const next = c.loop();
  c.get(entry).i32(FREE).op(Op.i32_eq).if_(); c.i32(0).op(Op.return).end();
  c.get(entry).i32(OFFSET_MASK).op(Op.i32_and).get(1).op(Op.i32_eq).if_(); record().op(Op.return).end();
  record().mem(Op.i32_load, REC.more).set(entry);
  c.br(next).end().op(Op.unreachable);
}
/** Body of a procedure (heads, offset, record): add a record at an offset, in place of one that is there. */
export function emitSetRecord(c: Code, base: number): void {
  const at = c.local(I32), entry = c.local(I32), mine = c.local(I32), record = (): Code => recordOf(c, entry, base);
  c.get(2).i32(base + RECS_AT).op(Op.i32_sub).i32(Math.log2(REC.size)).op(Op.i32_shr_u).i32(OFFSET_BITS).op(Op.i32_shl).get(1).op(Op.i32_or).set(mine);
  head(c, 0, 1).set(at);
  // whoever was there goes
  const gone = c.block(), next = c.loop();
  c.get(at).mem(Op.i32_load, 0).tee(entry).i32(FREE).op(Op.i32_eq).brIf(gone);
  c.get(entry).i32(OFFSET_MASK).op(Op.i32_and).get(1).op(Op.i32_eq).if_();
  c.get(at); record().mem(Op.i32_load, REC.more).mem(Op.i32_store, 0); c.br(gone).end();
  record().i32(REC.more).op(Op.i32_add).set(at); c.br(next).end().end();
  head(c, 0, 1).set(at);
  c.get(2).get(at).mem(Op.i32_load, 0).mem(Op.i32_store, REC.more);
  c.get(at).get(mine).mem(Op.i32_store, 0);
}
