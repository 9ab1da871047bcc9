/**
 * Records in WebAssembly: code is decoded here for as long as its instructions are of shapes that are known (shapes.ts), which is most of a boot's 400,000. What is not known is described by
 * TypeScript (code-cache.ts), whose words then serve here as well: there is no other way to write a record.
 */
import { Op } from "../wasm/opcodes.ts";
import { Code, I32, I64, type MemorySpec, Module } from "../wasm/writer.ts";
import { CODEE, CODE_AT, MAX_RUN, NODES_MAX, NODE_BYTES, REC, RUN, RUN_AT, SHAPE, SHAPES_AT, TREE_AT } from "./layout.ts";
import { emitRecordAt, emitSetRecord } from "./record-map.ts";
import { emitCodeEntry } from "./runtime.ts";
import { HOW } from "./shapes.ts";

export type Records = {
  /**
   * Decode from RUN.off to where nothing falls through any more, over calls, whose returns find their records in the index then; or to what is not known.
   * @param heads of the page's RecordMap @param machine address of the page @param mode of its key @param root of the mode's tree @param jump description of a jump of no length, which ends a run
   * @param shape of the instruction at RUN.off, or -1: it is to be looked for
   * @returns 0: the run is over; 1: the instruction at RUN.off needs TypeScript
   */
  run(heads: number, machine: number, mode: number, root: number, jump: number, shape: number): number;
  /** Write the record at RUN.next of an instruction of that shape with these numbers. @returns 0: it has no stub yet, or its numbers want 64 bits */
  put(shape: number, off: number, imm: number, disp: number): number;
  setRecord(heads: number, off: number, record: number): void;
  /** Let generated code find a record by machine address and mode. */
  publish(machine: number, mode: number, record: number): void;
};

/** @param linksAhead jumps within a page know each other's records, calls do not end a run @param warmAfter REC.heat of new records */
export function recordsModule(memory: MemorySpec, base: number, { linksAhead, warmAfter }: { linksAhead: boolean; warmAfter: number }): Uint8Array<ArrayBuffer> {
  const m = new Module(), exports: string[] = [], at = base + RUN_AT;
  m.imports.push({ name: "memory", memory });
  const define = (name: string, nrParams: number, hasResult: boolean, fill: (c: Code) => void): void => {
    const c = new Code(nrParams); fill(c);
    m.funcs.push({ type: m.type(Array<typeof I32>(nrParams).fill(I32), hasResult ? [I32] : []), code: c, export: name }); exports.push(name);
  };
  const own = (name: keyof Records | "recordAt") => exports.indexOf(name);
  const state = (c: Code, field: number): Code => c.i32(at).mem(Op.i32_load, field), setState = (c: Code, field: number, value: () => unknown): void => { c.i32(at); value(); c.mem(Op.i32_store, field); };
  const description = (c: Code, shape: number): Code => c.get(shape).i32(Math.log2(SHAPE.size)).op(Op.i32_shl).i32(base + SHAPES_AT).op(Op.i32_add);
  const has = (c: Code, how: number, bit: number): Code => c.get(how).i32(bit).op(Op.i32_and);

  define("recordAt", 2, true, c => { emitRecordAt(c, base); });
  define("setRecord", 3, false, c => { emitSetRecord(c, base); });
  define("publish", 3, false, c => {
    const e = c.local(I32);
    emitCodeEntry(c.get(0), 0).i32(base + CODE_AT).op(Op.i32_add).tee(e);
    c.get(0).op(Op.i64_extend_i32_u).get(1).op(Op.i64_extend_i32_u).i64(32).op(Op.i64_shl).op(Op.i64_or).mem(Op.i64_store, CODEE.key).get(e).get(2).mem(Op.i32_store, CODEE.rec);
  });
  define("put", 4, true, c => {
    const SHAPE_ = 0, OFF = 1, IMM = 2, DISP = 3, d = c.local(I32), how = c.local(I32), cross = c.local(I32), rec = c.local(I32), stub = c.local(I32), n = c.local(I32), sum = c.local(I64);
    /** A number counts from the instruction's end; it has 32 bits still, or nothing is done. */
    const fromEnd = (number: number): void => {
      c.get(number).op(Op.i64_extend_i32_s).get(OFF); has(c, how, HOW.lengthMask).op(Op.i32_add).op(Op.i64_extend_i32_u).op(Op.i64_add).tee(sum).op(Op.i32_wrap_i64).tee(number);
      c.op(Op.i64_extend_i32_s).get(sum).op(Op.i64_ne).if_(); c.i32(0).op(Op.return).end();
    };
    description(c, SHAPE_).tee(d).mem(Op.i32_load, SHAPE.how).set(how);
    has(c, how, HOW.direct).if_();
    fromEnd(IMM); c.i32(0).set(DISP);
    c.get(IMM).i32(4095).op(Op.i32_gt_u); has(c, how, HOW.far).op(Op.i32_or).i32(0).op(Op.i32_ne).set(cross);
    c.else_(); has(c, how, HOW.ripRel).if_(); fromEnd(DISP); c.end().end();
    c.get(d).get(cross).i32(Math.log2(SHAPE.crossStub)).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, SHAPE.stub).tee(stub).op(Op.i32_eqz).if_(); c.i32(0).op(Op.return).end();
    state(c, RUN.next).set(rec); setState(c, RUN.next, () => c.get(rec).i32(REC.size).op(Op.i32_add));
    has(c, how, HOW.direct).i32(0).op(Op.i32_ne).get(cross).op(Op.i32_eqz).op(Op.i32_and).if_();
    state(c, RUN.nrJumps).tee(n).i32(Math.log2(RUN.jumpSize)).op(Op.i32_shl).i32(at).op(Op.i32_add).get(rec).mem(Op.i32_store, RUN.jumps);
    c.get(n).i32(Math.log2(RUN.jumpSize)).op(Op.i32_shl).i32(at).op(Op.i32_add).get(IMM).mem(Op.i32_store, RUN.jumps + 4);
    setState(c, RUN.nrJumps, () => c.get(n).i32(1).op(Op.i32_add)); c.end();
    const store = (field: number, value: () => unknown): void => { c.get(rec); value(); c.mem(Op.i32_store, field); }, copied = (word: number) => () => c.get(d).mem(Op.i32_load, word);
    store(REC.handler, () => c.get(stub)); store(REC.stub, () => c.get(stub));
    store(REC.d, copied(SHAPE.operands)); store(REC.base, copied(SHAPE.registers));
    store(REC.off, () => c.get(OFF)); store(REC.imm, () => c.get(IMM)); store(REC.disp, () => c.get(DISP));
    store(REC.heat, () => c.i32(warmAfter)); store(REC.stay, () => c.i32(0));
    c.i32(1);
  });
  define("run", 6, true, c => {
    const HEADS_ = 0, MACHINE = 1, MODE_ = 2, ROOT = 3, JUMP = 4, SHAPE_ = 5;
    const off = c.local(I32), nr = c.local(I32), isReturn = c.local(I32), rec = c.local(I32), from = c.local(I32), d = c.local(I32), how = c.local(I32), imm = c.local(I32), disp = c.local(I32), size = c.local(I32), end = c.local(I32);
    c.get(MACHINE).i32(4096).op(Op.i32_add).set(end);
    state(c, RUN.off).set(off); state(c, RUN.nr).set(nr); state(c, RUN.isReturn).set(isReturn);
    const known = (): Code => c.get(HEADS_).get(off).call(own("recordAt")), publish = (): void => { c.get(MACHINE).get(off).op(Op.i32_add).get(MODE_).get(rec).call(own("publish")); };
    const isOver = c.block(), isUnknown = c.block(), next = c.loop();
    c.get(SHAPE_).i32(0).op(Op.i32_lt_s).if_();
    c.get(off).i32(4096).op(Op.i32_lt_u).if_(I32); known(); c.else_().i32(0).end().set(rec);
    c.get(rec).i32(0).op(Op.i32_ne).get(isReturn).op(Op.i32_and).if_(); publish(); c.br(isOver).end();
    c.get(rec).i32(0).op(Op.i32_ne).get(off).i32(4096).op(Op.i32_ge_u).op(Op.i32_or).get(nr).i32(MAX_RUN).op(Op.i32_eq).op(Op.i32_or).if_();
    c.get(JUMP).set(SHAPE_); c.else_();
    c.get(MACHINE).get(off).op(Op.i32_add).set(from).get(ROOT).set(SHAPE_);
    const down = c.loop();
    c.get(from).get(end).op(Op.i32_eq).brIf(isUnknown);
    c.get(SHAPE_).i32(Math.log2(NODE_BYTES)).op(Op.i32_shl).get(from).mem(Op.i32_load8_u, 0).i32(1).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load16_u, base + TREE_AT).set(SHAPE_);
    c.get(from).i32(1).op(Op.i32_add).set(from);
    c.get(SHAPE_).i32(1).op(Op.i32_sub).i32(NODES_MAX - 1).op(Op.i32_lt_u).brIf(down).end();
    c.get(SHAPE_).op(Op.i32_eqz).brIf(isUnknown);
    c.get(SHAPE_).i32(NODES_MAX).op(Op.i32_sub).set(SHAPE_).end().end();
    // its numbers
    description(c, SHAPE_).tee(d).mem(Op.i32_load, SHAPE.how).set(how);
    c.get(MACHINE).get(off).op(Op.i32_add); has(c, how, HOW.lengthMask).op(Op.i32_add).tee(from).get(MACHINE).op(Op.i32_sub).i32(4096).op(Op.i32_gt_u).brIf(isUnknown);        // it goes on behind its page
    for (const [number, shift, word] of [[imm, HOW.immShift, SHAPE.imm], [disp, HOW.dispShift, SHAPE.disp]] as const) {
      c.get(how).i32(shift).op(Op.i32_shr_u).i32(HOW.numberMask).op(Op.i32_and).tee(size).op(Op.i32_eqz).if_(); c.get(d).mem(Op.i32_load, word).set(number);
      c.else_().get(from).get(size).op(Op.i32_sub).set(from);
      c.get(size).i32(1).op(Op.i32_eq).if_(I32); c.get(from).mem(Op.i32_load8_s, 0).else_();
      c.get(size).i32(2).op(Op.i32_eq).if_(I32); c.get(from).mem(Op.i32_load16_s, 0).else_().get(from).mem(Op.i32_load, 0).end().end();
      c.set(number).end();
    }
    state(c, RUN.next).set(rec);
    c.get(SHAPE_).get(off).get(imm).get(disp).call(own("put")).op(Op.i32_eqz).brIf(isUnknown);
    c.get(SHAPE_).get(JUMP).op(Op.i32_eq).brIf(isOver);
    c.get(HEADS_).get(off).get(rec).call(own("setRecord"));
    c.get(isReturn).if_(); publish(); c.end();
    c.get(nr).i32(1).op(Op.i32_add).set(nr);
    c.get(off); has(c, how, HOW.lengthMask).op(Op.i32_add).set(off);
    if (linksAhead) { has(c, how, HOW.calls).i32(0).op(Op.i32_ne).set(isReturn); }
    has(c, how, HOW.ends).i32(0).op(Op.i32_ne).get(isReturn).op(Op.i32_eqz).op(Op.i32_and).brIf(isOver);
    c.i32(-1).set(SHAPE_); c.br(next).end().end();
    setState(c, RUN.off, () => c.get(off)); setState(c, RUN.nr, () => c.get(nr)); setState(c, RUN.isReturn, () => c.get(isReturn)); c.i32(1).op(Op.return).end();
    setState(c, RUN.off, () => c.get(off));
    // within the page a jump need not come to the run loop to be told where it goes
    if (linksAhead) {
      const linked = c.block(), more = c.loop();
      state(c, RUN.nrJumps).tee(nr).op(Op.i32_eqz).brIf(linked);
      setState(c, RUN.nrJumps, () => c.get(nr).i32(1).op(Op.i32_sub).tee(nr));
      c.get(nr).i32(Math.log2(RUN.jumpSize)).op(Op.i32_shl).i32(at).op(Op.i32_add).tee(from).mem(Op.i32_load, RUN.jumps + 4).set(off);
      known().tee(rec).if_(); c.get(from).mem(Op.i32_load, RUN.jumps).get(rec).mem(Op.i32_store, REC.link).end();
      c.br(more).end().end();
    }
    c.i32(0);
  });
  return m.encode();
}
