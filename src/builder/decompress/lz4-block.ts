/**
 * The inner loop of LZ4 in WebAssembly: a kernel's 40 MB are what a start waits for, and take a tenth of the time that they take in JavaScript.
 * @see the LZ4 project's lz4_Block_format.md
 */
import { Op } from "../../wasm/opcodes.ts";
import { Code, I32, Module } from "../../wasm/writer.ts";

/** What is wrong with a block that gives more than it may, which is so much at most. */
export const TOO_LONG = "a block gives more than 8 MiB";
/** What is wrong with a block, by the negated value that `unpack` gives. */
export const FLAWS = ["", "it ends in a literal length", "literals reach past their block", TOO_LONG, "it ends in an offset", "a match reaches back to before its block", "it ends in a match length"] as const;
const CUT_LITERALS = -1, LONG_LITERALS = -2, TOO_MUCH = -3, CUT_OFFSET = -4, BAD_OFFSET = -5, CUT_MATCH = -6;
/** No length that makes sense; sums of two stay below 2^32. */
const LENGTH_MAX = 1 << 30;
/** Bytes of memory behind the input and behind the output that may be read and overwritten. */
export const SLACK = 64;
/** Runs that are shorter are copied in pieces of sixteen bytes, up to fifteen bytes too many. */
const SHORT = 128;

type Block = { /** @returns bytes written from `to` on, or what is wrong, see FLAWS @param most bytes to be written */ unpack(from: number, end: number, to: number, most: number): number };

function blockModule(shared: boolean): Uint8Array<ArrayBuffer> {
  const m = new Module(), c = new Code(4), FROM = 0, END = 1, START = 2, MOST = 3, to = c.local(I32), token = c.local(I32), n = c.local(I32), x = c.local(I32), stop = c.local(I32);
  const fail = (flaw: number): void => { c.unlikely().if_(); c.i32(flaw).op(Op.return).end(); };
  const byte = (): void => { c.get(FROM).mem(Op.i32_load8_u, 0).set(x).get(FROM).i32(1).op(Op.i32_add).set(FROM); };
  /** A length that goes on in further bytes, when its four bits are all set. */
  const lengthen = (bits: number, flaw: number): void => {
    c.get(n).i32(bits).op(Op.i32_eq).if_();
    const more = c.loop();
    c.get(FROM).get(END).op(Op.i32_ge_u); fail(flaw);
    byte();
    c.get(n).get(x).op(Op.i32_add).tee(n).i32(LENGTH_MAX).op(Op.i32_gt_u); fail(TOO_MUCH);
    c.get(x).i32(255).op(Op.i32_eq).brIf(more).end().end();
  };
  const fits = (): void => { c.get(to).get(START).op(Op.i32_sub).get(n).op(Op.i32_add).get(MOST).op(Op.i32_gt_u); fail(TOO_MUCH); };
  /** n bytes from `at`, which is moved, to `to`, in pieces. */
  const copy = (at: number, load: number, store: number, step: number): void => {
    c.get(to).get(n).op(Op.i32_add).set(stop);
    const again = c.loop();
    c.get(to).get(at).mem(load, 0).mem(store, 0).get(at).i32(step).op(Op.i32_add).set(at).get(to).i32(step).op(Op.i32_add).tee(to).get(stop).op(Op.i32_lt_u).brIf(again).end();
    c.get(stop).set(to);
  };
  c.get(START).set(to);
  const done = c.block(), next = c.loop();
  c.get(FROM).get(END).op(Op.i32_ge_u).brIf(done);
  byte(); c.get(x).tee(token).i32(4).op(Op.i32_shr_u).set(n);
  lengthen(15, CUT_LITERALS);
  c.get(n).get(END).get(FROM).op(Op.i32_sub).op(Op.i32_gt_u); fail(LONG_LITERALS);
  fits();
  c.get(n).if_();
  c.get(n).i32(SHORT).op(Op.i32_lt_u).if_();
  c.get(FROM).set(x); copy(x, Op.v128_load, Op.v128_store, 16);
  c.else_().get(to).get(FROM).get(n).op(Op.memory_copy).u8(0).u8(0).get(to).get(n).op(Op.i32_add).set(to).end();
  c.get(FROM).get(n).op(Op.i32_add).set(FROM).end();
  c.get(FROM).get(END).op(Op.i32_ge_u).brIf(done);
  c.get(END).get(FROM).op(Op.i32_sub).i32(2).op(Op.i32_lt_u); fail(CUT_OFFSET);
  c.get(FROM).mem(Op.i32_load16_u, 0).set(x).get(FROM).i32(2).op(Op.i32_add).set(FROM);
  c.get(x).i32(1).op(Op.i32_sub).get(to).get(START).op(Op.i32_sub).op(Op.i32_ge_u); fail(BAD_OFFSET);
  c.get(token).i32(15).op(Op.i32_and).i32(4).op(Op.i32_add).set(n).get(to).get(x).op(Op.i32_sub).set(token);
  c.get(x).set(stop); lengthen(19, CUT_MATCH); c.get(stop).set(x);
  fits();
  // `token` is where the match comes from, x how far back: pieces must not reach into what they make
  c.get(x).i32(16).op(Op.i32_ge_u).if_(); copy(token, Op.v128_load, Op.v128_store, 16);
  c.else_().get(x).i32(1).op(Op.i32_eq).if_();
  c.get(to).get(token).mem(Op.i32_load8_u, 0).get(n).op(Op.memory_fill).u8(0).get(to).get(n).op(Op.i32_add).set(to);
  c.else_().get(x).i32(8).op(Op.i32_ge_u).if_(); copy(token, Op.i64_load, Op.i64_store, 8);
  c.else_(); copy(token, Op.i32_load8_u, Op.i32_store8, 1);
  c.end().end().end();
  c.br(next).end().end();
  c.get(to).get(START).op(Op.i32_sub);
  m.imports.push({ name: "memory", memory: { min: 1, max: 65536, shared } });
  m.funcs.push({ type: m.type([I32, I32, I32, I32], [I32]), code: c, export: "unpack" });
  return m.encode();
}
const compiled: WebAssembly.Module[] = [];
/** @param memory at most 65,536 pages, shared or not, that input and output lie in */
export function lz4Block(memory: WebAssembly.Memory): Block {
  const shared = !(memory.buffer instanceof ArrayBuffer);
  return new WebAssembly.Instance(compiled[Number(shared)] ??= new WebAssembly.Module(blockModule(shared)), { e: { memory } }).exports as unknown as Block;
}
