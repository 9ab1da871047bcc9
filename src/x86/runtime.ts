/** The fixed wasm part of a pCPU's engine: TLB slow paths, high multiply, jump lookup, segment checks and the dispatch loop. The pCPU's base is baked in. */
import { Op } from "../wasm/opcodes.ts";
import { Code, F64, I32, I64, type MemorySpec, Module } from "../wasm/writer.ts";
import { CODEE, CODE_AT, CODE_BITS, JUMPE, JUMPS_AT, JUMP_BITS, JUMP_CHUNK, ITLBE, ITLB_BITS, ITLB_IN_BANK, ITLB_MIX, LEAVES, REC, SITE, SITE_SHIFT, TLBE, TLB_BITS } from "./layout.ts";
import { emitRefill } from "./refill.ts";
import { STUB_TYPE, StubGen, heat, keepBudget } from "./stubs.ts";
import { ATTR, CPU, EFLAGS, RAX, RCX, RDI, RSI, SEG, gprAt } from "./state.ts";

/** What the runtime asks of TypeScript. `fill`: 0 the tag is there, 1 a fault was recorded, 2 do it by hand. */
export const RUNTIME_IMPORTS = {
  fill: [[I32, I32, I32], [I32]], loadByHand: [[I64, I32], [I64]], storeByHand: [[I64, I64, I32], []], segCheckByHand: [[I32, I64, I32], []], probeByHand: [[I64, I32], []], bulkByHand: [[I32, I32], [I32]], casByHand: [[I64, I64, I64, I32], [I32]],
  ticks: [[], [F64]],
} as const;

/** Hash of an instruction's key in the code index, in TypeScript, and emitted as the entry's distance from CODE_AT: a machine address lies on the stack and in a local. */
const CODE_MIX = 15;
export const emitCodeEntry = (c: Code, machine: number): Code => c.get(machine).i32(CODE_MIX).op(Op.i32_shr_u).op(Op.i32_xor).i32((1 << CODE_BITS) - 1).op(Op.i32_and).i32(Math.log2(CODEE.size)).op(Op.i32_shl);
export const codeSlot = (machine: number): number => (machine ^ machine >>> CODE_MIX) & ((1 << CODE_BITS) - 1);

/** @param tscWord @param askedWord as Platform has them */
export function runtimeModule(memory: MemorySpec, tableSize: number, cpu: number, tscWord: number, askedWord: number): Uint8Array<ArrayBuffer> {
  const m = new Module(), names = Object.keys(RUNTIME_IMPORTS);
  for (const [name, [p, r]] of Object.entries(RUNTIME_IMPORTS)) m.imports.push({ name, type: m.type(p, r) });
  m.imports.push({ name: "memory", memory }, { name: "table", table: tableSize });
  const fn = (n: keyof typeof RUNTIME_IMPORTS) => names.indexOf(n), exports: string[] = [];
  const define = (name: string, params: readonly (typeof I32 | typeof I64)[], results: readonly (typeof I32 | typeof I64)[], fill: (c: Code) => void): void => {
    const c = new Code(params.length); fill(c);
    m.funcs.push({ type: m.type(params, results), code: c, export: name }); exports.push(name);
  };
  const own = (name: string) => names.length + exports.indexOf(name);
  const entry = (c: Code, a: number) => c.get(a).op(Op.i32_wrap_i64).i32(7).op(Op.i32_shr_u).i32(((1 << TLB_BITS) - 1) << 5).op(Op.i32_and).i32(cpu).mem(Op.i32_load, CPU.tlb.at).op(Op.i32_add);
  const host = (c: Code, a: number) => entry(c, a).mem(Op.i32_load, TLBE.add).get(a).op(Op.i32_wrap_i64).op(Op.i32_add);
  const crosses = (c: Code, a: number, size: number) => c.get(a).op(Op.i32_wrap_i64).i32(4095).op(Op.i32_and).get(size).op(Op.i32_add).i32(4096).op(Op.i32_gt_u);
  /** Is the tag there of the page that `a` is on? */
  const isKnown = (c: Code, a: number, write: 0 | 1) => entry(c, a).mem(Op.i64_load, write ? TLBE.write : TLBE.read).get(a).i64(-4096).op(Op.i64_and).op(Op.i64_eq);
  /** See that the tag is there (RUNTIME_IMPORTS.fill says how it went); it may be already, since a region comes here too where it remembers a miss. */
  const fillFor = (c: Code, a: number, write: 0 | 1) => {
    const r = c.local(I32);
    isKnown(c, a, write).if_(I32); c.i32(0).else_();
    c.get(a).i32(write).call(own("refill")).tee(r).i32(0).op(Op.i32_ge_s).if_(I32); c.get(r).else_();
    c.get(a).i64(12).op(Op.i64_shr_s).op(Op.i32_wrap_i64).get(a).i64(44).op(Op.i64_shr_s).op(Op.i32_wrap_i64).get(a).op(Op.i32_wrap_i64).i32(4095).op(Op.i32_and).i32(1).op(Op.i32_shl).i32(write).op(Op.i32_or).call(fn("fill"));
    return c.end().end();
  };
  /** Offset of a linear address' entry in the instruction TLB (itlbIndex of layout.ts). */
  const itlbEntry = (c: Code, a: number, scratch: number) => c.get(a).op(Op.i32_wrap_i64).tee(scratch).i32(12 - 4).op(Op.i32_shr_u).get(scratch).i32(12 - 4 + ITLB_MIX).op(Op.i32_shr_u).op(Op.i32_xor).i32(((1 << ITLB_BITS) - 1) << 4).op(Op.i32_and);
  const faulted = (c: Code) => c.i32(cpu).mem(Op.i32_load, CPU.fault.at);
  const bySize = (c: Code, size: number, f: (n: 1 | 2 | 4 | 8) => void) => { for (const n of [8, 4, 1, 2] as const) { c.get(size).i32(n).op(Op.i32_eq).if_(); f(n); c.op(Op.return).end(); } c.op(Op.unreachable); };

  define("refill", [I64, I32], [I32], c => { emitRefill(c, cpu); });
  define("slowLoad", [I64, I32], [I64, I32], c => {
    const r = c.local(I32), byHand = () => { c.get(0).get(1).call(fn("loadByHand")); faulted(c).op(Op.return); };
    crosses(c, 0, 1).if_(); byHand(); c.end();
    fillFor(c, 0, 0).tee(r).if_();
    c.get(r).i32(1).op(Op.i32_eq).if_(); c.i64(0).i32(1).op(Op.return).end();
    byHand(); c.end();
    bySize(c, 1, n => { host(c, 0).mem({ 1: Op.i64_load8_u, 2: Op.i64_load16_u, 4: Op.i64_load32_u, 8: Op.i64_load }[n], 0).i32(0); });
  });
  define("slowStore", [I64, I64, I32], [I32], c => {
    const r = c.local(I32), byHand = () => { c.get(0).get(1).get(2).call(fn("storeByHand")); faulted(c).op(Op.return); };
    crosses(c, 0, 2).if_(); byHand(); c.end();
    fillFor(c, 0, 1).tee(r).if_();
    c.get(r).i32(1).op(Op.i32_eq).if_(); c.i32(1).op(Op.return).end();
    byHand(); c.end();
    bySize(c, 2, n => { host(c, 0).get(1).mem({ 1: Op.i64_store8, 2: Op.i64_store16, 4: Op.i64_store32, 8: Op.i64_store }[n], 0).i32(0); });
  });
  /** May these bytes be written? Records the fault if not. CPU.probed says where they are. */
  define("probeWrite", [I64, I32], [I32], c => {
    const r = c.local(I32), byHand = () => { c.get(0).get(1).call(fn("probeByHand")); faulted(c).op(Op.return); };
    c.i32(cpu).i32(0).mem(Op.i32_store, CPU.probed.at);
    crosses(c, 0, 1).if_(); byHand(); c.end();
    fillFor(c, 0, 1).tee(r).i32(2).op(Op.i32_eq).if_(); byHand(); c.end();
    c.get(r).op(Op.i32_eqz).if_(); c.i32(cpu); host(c, 0).mem(Op.i32_store, CPU.probed.at).end();
    c.get(r);
  });
  /** The second half of a locked read-modify-write that cannot be made in line. @returns 0, 1: a fault was recorded, 2: somebody else wrote between */
  define("slowCas", [I64, I64, I64, I32], [I32], c => {
    const r = c.local(I32);
    c.get(0).get(1).get(2).get(3).call(fn("casByHand")).set(r);
    faulted(c).if_(I32); c.i32(1).else_().get(r).end();
  });
  define("slowLoad128", [I64], [I32], c => {
    const lo = c.local(I64), hi = c.local(I64);
    c.get(0).i32(8).call(own("slowLoad")).if_(); c.i32(1).op(Op.return).end().set(lo);
    c.get(0).i64(8).op(Op.i64_add).i32(8).call(own("slowLoad")).if_(); c.i32(1).op(Op.return).end().set(hi);
    c.i32(cpu).get(lo).mem(Op.i64_store, CPU.wide.at).i32(cpu).get(hi).mem(Op.i64_store, CPU.wide.at + 8).i32(0);
  });
  define("slowStore128", [I64], [I32], c => {
    c.get(0).i32(16).call(own("probeWrite")).if_(); c.i32(1).op(Op.return).end();
    c.get(0).i32(cpu).mem(Op.i64_load, CPU.wide.at).i32(8).call(own("slowStore")).if_(); c.i32(1).op(Op.return).end();
    c.get(0).i64(8).op(Op.i64_add).i32(cpu).mem(Op.i64_load, CPU.wide.at + 8).i32(8).call(own("slowStore"));
  });
  /**
   * bulk(kind, width): REP MOVS (1) or STOS (2) of RCX elements in 64-bit mode, piece by piece: as many whole elements as both pages hold. Here where the TLB has the pages or can have them, no piece
   * is read after it was written, and what is stored is one byte again and again; else by TypeScript, which does a part. @returns 0: nothing was done, or a fault recorded, 1: something, come again, 2: all
   */
  define("bulk", [I32, I32], [I32], c => {
    const left = c.local(I64), n = c.local(I32), shift = c.local(I32), bytes = c.local(I32), t = c.local(I32), from = c.local(I64), to = c.local(I64), fromHost = c.local(I32), toHost = c.local(I32), pieces = c.local(I32), byHand = c.block();
    const reg = (r: number) => c.i32(cpu).mem(Op.i64_load, gprAt(r)), isMovs = () => c.get(0).i32(1).op(Op.i32_eq);
    const advance = (r: number, a: number) => c.i32(cpu).get(a).get(bytes).op(Op.i64_extend_i32_u).op(Op.i64_add).tee(a).mem(Op.i64_store, gprAt(r));
    /** No more elements than the page of `a` holds. */
    const within = (a: number) => c.i32(4096).get(a).op(Op.i32_wrap_i64).i32(4095).op(Op.i32_and).op(Op.i32_sub).get(shift).op(Op.i32_shr_u).tee(t).get(n).get(t).get(n).op(Op.i32_lt_u).op(Op.select).set(n);
    /** A piece takes as long as a jump does, or longer; the caller's own is the first. */
    const spent = () => { c.i32(cpu).mem(Op.i32_load, CPU.budget.at).get(pieces).op(Op.i32_gt_s).if_(); c.i32(cpu).i32(cpu).mem(Op.i32_load, CPU.budget.at).get(pieces).op(Op.i32_sub).mem(Op.i32_store, CPU.budget.at).end(); };
    c.i32(cpu).mem(Op.i32_load, CPU.eflags.at).i32(EFLAGS.DF).op(Op.i32_and).brIf(byHand);
    // wider elements are mostly zero
    reg(RAX).set(left);
    c.get(0).i32(2).op(Op.i32_eq).get(1).i32(8).op(Op.i32_ne).op(Op.i32_and).get(left).i64(64).get(1).op(Op.i64_extend_i32_u).op(Op.i64_sub).op(Op.i64_shl).i64(0).op(Op.i64_ne).op(Op.i32_and).brIf(byHand);
    reg(RCX).set(left); reg(RDI).set(to); reg(RSI).set(from);
    c.get(1).op(Op.i32_ctz).i32(3).op(Op.i32_sub).set(shift);
    const stop = c.block(), more = c.loop();
    c.i32(4096).get(left).op(Op.i32_wrap_i64).get(left).i64(4096).op(Op.i64_gt_u).op(Op.select).set(n);
    /** The tag of the page of `a` is there. A page is asked for when nothing has been done since the registers were as they are now. */
    const known = (a: number, write: 0 | 1) => {
      isKnown(c, a, write).op(Op.i32_eqz).if_();
      c.get(pieces).brIf(stop);
      fillFor(c, a, write).tee(t).i32(2).op(Op.i32_eq).brIf(byHand).get(t).if_(); c.i32(0).op(Op.return).end();
      c.end();
    };
    within(to); isMovs().if_(); within(from); c.end();
    c.get(n).get(shift).op(Op.i32_shl).tee(bytes).op(Op.i32_eqz).brIf(stop);       // an element on two pages
    isMovs().if_(); known(from, 0); host(c, from).set(fromHost); c.end();
    known(to, 1); host(c, to).set(toHost);
    isMovs().if_();
    c.get(toHost).get(fromHost).op(Op.i32_sub).get(bytes).op(Op.i32_lt_u).brIf(stop).get(toHost).get(fromHost).get(bytes).op(Op.memory_copy).u8(0).u8(0); advance(RSI, from);
    c.else_().get(toHost); reg(RAX).op(Op.i32_wrap_i64).get(bytes).op(Op.memory_fill).u8(0).end();
    advance(RDI, to);
    c.i32(cpu).get(left).get(n).op(Op.i64_extend_i32_u).op(Op.i64_sub).tee(left).mem(Op.i64_store, gprAt(RCX));
    c.get(left).op(Op.i64_eqz).if_(); spent(); c.i32(2).op(Op.return).end();
    c.get(pieces).i32(1).op(Op.i32_add).tee(pieces).i32(PIECES).op(Op.i32_lt_u).brIf(more).end().end();
    c.get(pieces).if_(); spent(); c.i32(1).op(Op.return).end().end();
    c.get(0).get(1).call(fn("bulkByHand")).i32(0).op(Op.i32_ne);
  });
  define("copyBytes", [I32, I32, I32], [], c => { c.get(0).get(1).get(2).op(Op.memory_copy).u8(0).u8(0); });
  define("fillBytes", [I32, I32, I32], [], c => { c.get(0).get(1).get(2).op(Op.memory_fill).u8(0); });
  /** Emit the table slot of the region that begins at the record in local `rec`, or 0. */
  const regionOf = (c: Code, rec: number) => c.get(rec).mem(Op.i32_load, REC.handler).i32(0).get(rec).mem(Op.i32_load16_u, REC.block).op(Op.select);
  /**
   * Into local `out` the record at the rip in local `rip`, with ripBase moved, into `region` the slot of the region there or 0; record 0 (rip stored) when the run loop must find it, or the
   * budget, which is spent by one if `spends`, is at its end. In line: V8 is told not to do that (bin/fit-node.mjs).
   */
  const find = (c: Code, rip: number, cpu: number, out: number, region: number, spends: boolean) => {
    const lin = c.local(I64), e = c.local(I32), key = c.local(I64), t = c.local(I32), jump = c.local(I32), tag = c.local(I64), done = c.block(), miss = c.block(), found = c.block(), far = c.block();
    const moveRip = () => c.get(cpu).get(rip).get(lin).i64(4095).op(Op.i64_and).op(Op.i64_sub).mem(Op.i64_store, CPU.ripBase.at);
    if (spends) c.get(cpu).get(cpu).mem(Op.i32_load, CPU.budget.at).i32(1).op(Op.i32_sub).tee(t).mem(Op.i32_store, CPU.budget.at).get(t).i32(0).op(Op.i32_lt_s).unlikely().brIf(miss);
    c.get(rip).get(cpu).mem(Op.i64_load, CPU.csBase.at).op(Op.i64_add).tee(lin).i64(63).op(Op.i64_shr_u).op(Op.i32_wrap_i64).i32(2).op(Op.i32_shl).get(cpu).op(Op.i32_add).mem(Op.i32_load, CPU.jumpTags.at);
    c.get(cpu).mem(Op.i32_load, CPU.mode.at).op(Op.i32_or).op(Op.i64_extend_i32_u).i64(48).op(Op.i64_shl).get(lin).i64(2 ** 48 - 1).op(Op.i64_and).op(Op.i64_or).set(tag);
    c.get(lin).op(Op.i32_wrap_i64).tee(t).get(t).i32(JUMP_BITS).op(Op.i32_shr_u).op(Op.i32_xor).i32((1 << JUMP_BITS) - 1).op(Op.i32_and).i32(Math.log2(JUMPE.size)).op(Op.i32_shl).get(cpu).op(Op.i32_add).tee(jump);
    c.mem(Op.i64_load, JUMPS_AT + JUMPE.key).get(tag).op(Op.i64_ne).unlikely().brIf(far);
    c.get(jump).mem(Op.i32_load, JUMPS_AT + JUMPE.rec).set(out).get(jump).mem(Op.i32_load16_u, JUMPS_AT + JUMPE.region).tee(region).op(Op.i32_eqz).brIf(found);
    // the record itself is not needed: it hears of arrivals now and then
    c.get(jump).get(jump).mem(Op.i32_load16_u, JUMPS_AT + JUMPE.count).i32(1).op(Op.i32_sub).tee(t).mem(Op.i32_store16, JUMPS_AT + JUMPE.count);
    c.get(t).op(Op.i32_eqz).unlikely().if_();
    c.get(jump).i32(JUMP_CHUNK).mem(Op.i32_store16, JUMPS_AT + JUMPE.count);
    heat(c, out, cpu, t, () => c.br(miss), JUMP_CHUNK); c.end();
    moveRip(); c.br(done).end();
    itlbEntry(c, lin, t).get(cpu).mem(Op.i32_load, CPU.bank.at).op(Op.i32_add).tee(e).mem(Op.i64_load, ITLB_IN_BANK + ITLBE.tag);
    c.get(lin).i64(-4096).op(Op.i64_and).get(cpu).mem(Op.i64_load32_u, CPU.mode.at).op(Op.i64_or).op(Op.i64_ne).unlikely().brIf(miss);
    c.get(e).mem(Op.i64_load, ITLB_IN_BANK + ITLBE.key).get(lin).i64(4095).op(Op.i64_and).op(Op.i64_or).tee(key);
    emitCodeEntry(c.op(Op.i32_wrap_i64).tee(t), t).get(cpu).op(Op.i32_add).tee(e).mem(Op.i64_load, CODE_AT + CODEE.key);
    c.get(key).op(Op.i64_ne).unlikely().brIf(miss);
    c.get(e).mem(Op.i32_load, CODE_AT + CODEE.rec).set(out); regionOf(c, out).set(region);
    c.get(jump).get(tag).mem(Op.i64_store, JUMPS_AT + JUMPE.key).get(jump).get(out).mem(Op.i32_store, JUMPS_AT + JUMPE.rec);
    c.get(jump).get(region).i32(0).get(region).i32(1 << 16).op(Op.i32_lt_u).op(Op.select).mem(Op.i32_store16, JUMPS_AT + JUMPE.region).get(jump).i32(JUMP_CHUNK).mem(Op.i32_store16, JUMPS_AT + JUMPE.count);
    c.end();
    moveRip();
    heat(c, out, cpu, e, () => c.br(miss));
    c.br(done).end();
    c.get(cpu).get(rip).mem(Op.i64_store, CPU.rip.at).get(cpu).i32(0).mem(Op.i32_store, CPU.link.at).i32(0).set(out).end();
  };
  /** lookup(rip, cpu): the record at rip, or 0. */
  define("lookup", [I64, I32], [I32], c => { const rec = c.local(I32), region = c.local(I32); find(c, 0, 1, rec, region, true); c.get(rec); });
  /** isMapped(linear address, cpu, machine page): does the instruction TLB say so, for the present mode? */
  define("isMapped", [I64, I32, I32], [I32], c => {
    const e = c.local(I32);
    itlbEntry(c, 0, e).get(1).mem(Op.i32_load, CPU.bank.at).op(Op.i32_add).tee(e).mem(Op.i64_load, ITLB_IN_BANK + ITLBE.tag);
    c.get(0).i64(-4096).op(Op.i64_and).get(1).mem(Op.i64_load32_u, CPU.mode.at).op(Op.i64_or).op(Op.i64_eq);
    c.get(e).mem(Op.i32_load, ITLB_IN_BANK + ITLBE.key).get(2).op(Op.i32_eq).op(Op.i32_and);
  });
  /** The same at CPU.rip, for the run loop. */
  define("resume", [], [I32], c => { c.i32(cpu).mem(Op.i64_load, CPU.rip.at).i32(cpu).call(own("lookup")); });
  /** segCheck(segment, offset, size | write << 16): the ordinary case is a present, expand-up data segment. */
  define("segCheck", [I32, I64, I32], [], c => {
    const attr = c.local(I32), hand = c.block();
    c.get(0).mem(Op.i32_load16_u, SEG.attr.at).tee(attr).i32(ATTR.unusable | ATTR.p | 0xc).op(Op.i32_and).i32(ATTR.p).op(Op.i32_ne).brIf(hand);
    c.get(2).i32(15).op(Op.i32_shr_u).get(attr).i32(-1).op(Op.i32_xor).op(Op.i32_and).i32(2).op(Op.i32_and).brIf(hand);
    c.get(1).get(2).i32(0xffff).op(Op.i32_and).op(Op.i64_extend_i32_u).op(Op.i64_add).i64(1).op(Op.i64_sub).get(0).mem(Op.i64_load32_u, SEG.limit.at).op(Op.i64_gt_u).brIf(hand);
    c.op(Op.return).end();
    c.get(0).get(1).get(2).call(fn("segCheckByHand"));
  });
  /** The time-stamp counter, never less than any thread has seen before (Platform.ticks). */
  define("tsc", [], [I64], c => {
    const t = c.local(I64), last = c.local(I64);
    c.call(fn("ticks")).op(Op.i64_trunc_sat_f64_s).set(t);
    if (tscWord) {
      const l = c.loop();
      c.i32(tscWord).mem(Op.i64_atomic_load, 0, 3).set(last);
      c.get(t).get(last).op(Op.i64_le_u).if_(); c.get(last).op(Op.return).end();
      c.i32(tscWord).get(last).get(t).mem(Op.i64_atomic_cmpxchg, 0, 3).get(last).op(Op.i64_ne).brIf(l).end();
    }
    c.get(t);
  });
  /** Does somebody want something of this pCPU, such as to look at code again? */
  define("asked", [], [I32], c => { c.i32(askedWord).mem(Op.i32_load, 0); });
  const stub = m.type(...STUB_TYPE);
  /** interpret(record): until a stub returns 0; counts instructions. */
  define("interpret", [I32], [], c => {
    const n = c.local(I64), l = c.loop();
    c.get(n).i64(1).op(Op.i64_add).set(n);
    c.get(0).i32(cpu).get(0).mem(Op.i32_load, REC.handler).callIndirect(stub).tee(0).brIf(l).end();
    c.i32(cpu).i32(cpu).mem(Op.i64_load, CPU.retired.at).get(n).op(Op.i64_add).mem(Op.i64_store, CPU.retired.at);
  });
  /** step(record): one instruction; the next record, or 0. */
  define("step", [I32], [I32], c => {
    c.i32(cpu).i32(cpu).mem(Op.i64_load, CPU.retired.at).i64(1).op(Op.i64_add).mem(Op.i64_store, CPU.retired.at);
    c.get(0).i32(cpu).get(0).mem(Op.i32_load, REC.stub).callIndirect(stub);
  });
  const g = new StubGen();
  for (const [word, name] of [["res", "flagRes"], ["aux", "flagAux"]] as const) {
    m.funcs.push({ type: m.type([I32, I64, I64], [I64]), code: g.flagHelper(word), export: name }); exports.push(name);
  }
  for (const name of ["mulhu", "mulhs"] as const) { m.funcs.push({ type: m.type([I64, I64], [I64]), code: g.highHelper(name === "mulhs"), export: name }); exports.push(name); }
  // Ways out of a region (translate.ts), for all regions the same, so that their code stays in the processor's caches. Registers are in their places, flags as lazy as
  // CPU.lazy says; rip, the record there, budget and the number of instructions done are given.
  /** Flags that are lazy become the words that the interpreter and TypeScript know. */
  define("settleFlags", [], [], c => {
    const kind = c.local(I32), a = c.local(I64), b = c.local(I64);
    c.i32(cpu).mem(Op.i32_load, CPU.lazy.at).set(kind);
    c.i32(cpu).mem(Op.i64_load, CPU.fres.at).set(a).i32(cpu).mem(Op.i64_load, CPU.faux.at).set(b);
    for (const [f, at] of [["flagRes", CPU.fres.at], ["flagAux", CPU.faux.at]] as const) c.i32(cpu).get(kind).get(a).get(b).call(own(f)).mem(Op.i64_store, at);
    c.i32(cpu).i32(0).mem(Op.i32_store, CPU.lazy.at);
  });
  const settle = (c: Code) => { c.i32(cpu).mem(Op.i32_load, CPU.lazy.at).if_(); c.call(own("settleFlags")).end(); };
  /** The loop that called the region counts one instruction for it: `less`, unless another handler is called in its place. */
  const retire = (c: Code, n: number, less: number) => { c.i32(cpu).i32(cpu).mem(Op.i64_load, CPU.retired.at).get(n).op(Op.i64_extend_i32_u).op(Op.i64_add); if (less) c.i64(less).op(Op.i64_sub); c.mem(Op.i64_store, CPU.retired.at); };
  const moveBase = (c: Code, rip: number) => c.i32(cpu).get(rip).i64(-4096).op(Op.i64_and).mem(Op.i64_store, CPU.ripBase.at);
  /** leave(rip, cpu, budget, done): to the run loop. */
  define("leave", [I64, I32, I32, I32], [I32], c => {
    keepBudget(c, 1, 2);
    retire(c, 3, 1); settle(c);
    c.i32(cpu).get(0).mem(Op.i64_store, CPU.rip.at).i32(cpu).i32(0).mem(Op.i32_store, CPU.link.at).i32(0);
  });
  /** To whatever executes the instruction at `rip`, whose record is `rec` or to be looked for; a region goes on with the flags as they are. All are locals. */
  const goOn = (c: Code, rip: number, rec: number, cpu: number, budget: number, done: number) => {
    const t = c.local(I32), region = c.local(I32), leave = () => { c.get(rip).get(cpu).get(budget).get(done).returnCall(own("leave")); };
    c.get(budget).i32(1).op(Op.i32_sub).tee(budget).i32(0).op(Op.i32_lt_s).unlikely().if_(); leave(); c.end();
    // somebody may want this pCPU's attention
    c.get(cpu).mem(Op.i32_load, CPU.budget.at).i32(0).op(Op.i32_lt_s).unlikely().if_(); leave(); c.end();
    c.get(cpu).get(budget).mem(Op.i32_store, CPU.budget.at);
    c.get(rec).if_(); heat(c, rec, cpu, t, leave); moveBase(c, rip); regionOf(c, rec).set(region);
    c.else_(); find(c, rip, cpu, rec, region, false);
    c.get(rec).op(Op.i32_eqz).unlikely().if_(); retire(c, done, 1); settle(c); c.i32(0).op(Op.return).end();
    c.end();
    c.get(region).op(Op.i32_eqz).unlikely().if_(); retire(c, done, 1); settle(c); c.get(rec).op(Op.return).end();
    retire(c, done, 0); c.get(rec).get(cpu).get(region).returnCallIndirect(stub);
  };
  /** leaveTo(rip, record or 0, cpu, budget, done): goOn. */
  define("leaveTo", [I64, I32, I32, I32, I32], [I32], c => { goOn(c, 0, 1, 2, 3, 4); });
  /** leaveToStub(rip, record, cpu, budget, done): let the interpreter's stub do this instruction. */
  define("leaveToStub", [I64, I32, I32, I32, I32], [I32], c => {
    keepBudget(c, 2, 3);
    moveBase(c, 0); retire(c, 4, 0); settle(c);
    c.get(1).get(2).get(1).mem(Op.i32_load, REC.stub).returnCallIndirect(stub);
  });
  /** leaveFor(rip, cpu, done): a lean region goes where its guest's code says. */
  define("leaveFor", [I64, I32, I32], [I32], c => {
    const rec = c.local(I32), budget = c.local(I32);
    c.get(1).mem(Op.i32_load, CPU.budget.at).set(budget);
    goOn(c, 0, rec, 1, budget, 2);
  });
  /** leaveAt(site, cpu, done): a lean region is left as the site says. */
  define("leaveAt", [I32, I32, I32], [I32], c => {
    const rip = c.local(I64), rec = c.local(I32), budget = c.local(I32), how = c.local(I32), all = () => c.get(1).get(budget).get(2), isHow = (n: number) => c.get(how).i32((1 << SITE_SHIFT) - 1).op(Op.i32_and).i32(n).op(Op.i32_eq);
    c.get(1).mem(Op.i64_load, CPU.ripBase.at).get(0).mem(Op.i64_load32_s, SITE.pos).op(Op.i64_add).set(rip);
    c.get(0).mem(Op.i32_load, SITE.rec).set(rec).get(1).mem(Op.i32_load, CPU.budget.at).set(budget);
    c.get(2).get(0).mem(Op.i32_load, SITE.how).tee(how).i32(SITE_SHIFT).op(Op.i32_shr_s).op(Op.i32_add).set(2);
    isHow(LEAVES.to).op(Op.i32_eqz).if_();
    isHow(LEAVES.end).get(1).mem(Op.i32_load, CPU.fault.at).op(Op.i32_or).if_(); c.get(rip); all().returnCall(own("leave")).end();
    c.get(rec).if_(); c.get(rip).get(rec); all().returnCall(own("leaveToStub")).end().end();
    goOn(c, rip, rec, 1, budget, 2);
  });
  /** The handler of a record whose bytes have been overwritten: leave at its own address. */
  define("stale", [I32, I32], [I32], c => {
    c.get(1).get(1).mem(Op.i64_load, CPU.ripBase.at).get(0).mem(Op.i64_load16_u, REC.off).op(Op.i64_add).mem(Op.i64_store, CPU.rip.at).get(1).i32(0).mem(Op.i32_store, CPU.link.at).i32(0);
  });
  /** Before an instruction on two pages: go on to its record, which follows, if the second page (REC.imm) is mapped as it was; else leave at its address. */
  define("straddle", [I32, I32], [I32], c => {
    c.get(1).mem(Op.i64_load, CPU.ripBase.at).get(1).mem(Op.i64_load, CPU.csBase.at).op(Op.i64_add).i64(4096).op(Op.i64_add).get(1).get(0).mem(Op.i32_load, REC.imm).call(own("isMapped")).if_();
    c.get(0).i32(REC.size).op(Op.i32_add).op(Op.return).end();
    c.get(0).get(1).call(own("stale"));
  });
  m.elems.push([STALE, exports.indexOf("stale")], [STRADDLE, exports.indexOf("straddle")]);
  return m.encode();
}
/** Of a repeated string instruction, before interrupts have their turn: 256 KiB at most. */
const PIECES = 64;
export const STALE = 0, STRADDLE = 1;
