import assert from "node:assert/strict";
import { test } from "node:test";
import { Op } from "../../src/wasm/opcodes.ts";
import { Code, I32, I64, Module, V128 } from "../../src/wasm/writer.ts";
import { functionText, readModule } from "./wasm-text.ts";

/** The lines of a function (i32, i64) -> i64 with three i64 locals, an import "f" (i64, i64) -> i64 and a v128. */
function text(fill: (c: Code) => void): string[] {
  const m = new Module(), c = new Code(2);
  m.imports.push({ name: "f", type: m.type([I64, I64], [I64]) }, { name: "memory", memory: { min: 1, max: 1, shared: true } });
  for (let i = 0; i < 3; i++) c.local(I64);
  c.local(V128); fill(c);
  m.funcs.push({ type: m.type([I32, I64], [I64]), code: c, export: "x" });
  const bytes = m.encode(), read = readModule(bytes);
  assert.ok(WebAssembly.validate(bytes), "the test's own module is right");
  assert.equal(read.functions[0]!.name, "x");
  return functionText(read, read.functions[0]!, { local: (i) => ["p", "q", "x", "y", "z", "v"][i], place: (base, offset) => (base === "p" && offset === 8 ? "p.here" : undefined) });
}

test("expressions are folded, one statement a line", () => assert.deepEqual(
  text(c => { c.get(1).i64(5).op(Op.i64_add).tee(2).get(2).call(0).set(3).get(0).get(3).mem(Op.i64_store, 8).get(0).get(3).mem(Op.i64_store, 16).get(0).mem(Op.i64_load8_u, 0); }),
  ["y := f((x := i64.add(q, 5)), x)", "i64.store[p.here] := y", "i64.store[p + 16] := y", "push i64.load8_u[p]"]));

test("what waits on the stack while a statement is executed is pushed before it", () => assert.deepEqual(
  text(c => { c.get(2).get(3).set(2).set(3).get(1); }), ["push x", "x := y", "y := pop", "push q"]));

test("constants and what is never written may wait unmentioned", () => assert.deepEqual(
  text(c => { c.get(1).get(3).set(2).i64(1).get(2).set(3).op(Op.i64_sub); }), ["x := y", "y := x", "push i64.sub(q, 1)"]));

test("blocks are indented, labels named by depth, hints told", () => assert.deepEqual(
  text(c => {
    const out = c.block(), again = c.loop();
    c.get(0).unlikely().brIf(out).get(0).if_();
    c.br(again).else_().op(Op.unreachable).end().end().end().get(1);
  }), ["block @1", "  loop @2", "    br_if @1 unlikely p", "    if @3 p", "      br @2", "    else", "      unreachable", "    end", "  end", "end", "push q"]));

test("a block that gives a value leaves it to be popped", () => assert.deepEqual(
  text(c => { c.get(0).if_(I64); c.get(1).else_().i64(-4096).end(); }), ["if @1 p", "  push q", "else", "  push -0x1000", "end"]));

test("behind a branch anything may be popped", () => assert.deepEqual(
  text(c => { const b = c.block(); c.br(b).op(Op.i64_add).op(Op.drop).end().get(1); }), ["block @1", "  br @1", "  drop i64.add(?, ?)", "end", "push q"]));

test("lanes, shuffles, atomic accesses and wide constants show their immediates", () => assert.deepEqual(
  text(c => {
    const lanes = Uint8Array.from({ length: 16 }, (_, i) => i);
    c.get(5).op(Op.v128_const).bytes(lanes).op(Op.i8x16_shuffle).bytes(lanes).set(5).get(0).i32(1).i32(-2).mem(Op.i32_atomic_cmpxchg, 0, 2).op(Op.drop).get(5).op(Op.i64x2_extract_lane).u8(1);
  }), ["v := i8x16.shuffle(v, v128 000102030405060708090a0b0c0d0e0f) 000102030405060708090a0b0c0d0e0f", "drop i32.atomic.cmpxchg[p] align 2(1, -2)", "push i64x2.extract_lane(v) lane 1"]));

test("a stack of another height than our table of opcodes says is an error", () => {
  const m = new Module(), c = new Code(0);
  c.op(Op.i32_add);
  m.funcs.push({ type: m.type([], [I32]), code: c });
  const read = readModule(m.encode());
  assert.throws(() => functionText(read, read.functions[0]!), /the stack is empty/);
});
