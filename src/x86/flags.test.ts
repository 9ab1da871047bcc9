import assert from "node:assert/strict";
import { test } from "node:test";
import { Fixture } from "./fixture.ts";
import { getFlags, setFlags } from "./flags.ts";
import { CPU, EFLAGS } from "./state.ts";

test("every combination of the arithmetic flags survives a round trip", () => {
  const { cpu } = new Fixture();
  for (let i = 0; i < 0x1000; i++) {
    const f = i & EFLAGS.arith | EFLAGS.fixed | i & EFLAGS.DF;
    setFlags(cpu, f, 0xfff);
    assert.equal(getFlags(cpu), f);
    assert.equal(cpu.eflags & EFLAGS.arith, 0);
  }
});
test("flags outside the mask stay", () => {
  const { cpu } = new Fixture();
  setFlags(cpu, EFLAGS.ZF | EFLAGS.CF | EFLAGS.IF, 0x3fffff);
  setFlags(cpu, EFLAGS.OF, EFLAGS.OF | EFLAGS.CF);
  assert.equal(getFlags(cpu), EFLAGS.ZF | EFLAGS.OF | EFLAGS.IF | EFLAGS.fixed);
});
test("the words mean what flags.ts says", () => {
  const { cpu } = new Fixture();
  cpu.set(CPU.fres, -128n); cpu.set(CPU.faux, -0x8000000000000000n | 8n);
  assert.equal(getFlags(cpu), EFLAGS.SF | EFLAGS.CF | EFLAGS.OF | EFLAGS.AF | EFLAGS.fixed);
  cpu.set(CPU.fres, 3n); cpu.set(CPU.faux, 0x6000000000000004n);
  assert.equal(getFlags(cpu), EFLAGS.SF | EFLAGS.OF | EFLAGS.fixed);
});
