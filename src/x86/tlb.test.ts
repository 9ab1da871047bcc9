import assert from "node:assert/strict";
import { test } from "node:test";
import { Fixture } from "./fixture.ts";
import { JUMP_TAG } from "./layout.ts";
import { CPU } from "./state.ts";
import type { TlbTurn } from "./tlb.ts";

const A = 0x400000, B = 0x401000, FRAME_A = 6;
/** Two pages behind tables that can be counted on: a walk is a miss. */
const machine = (): { x: Fixture; turn: (vcpu: number, o?: Partial<TlbTurn>) => void; walksOf: (f: () => void) => number } => {
  const x = new Fixture().identity2m(0x1000).long(0x1000);
  x.p64(0x3000 + 2 * 8, 0x5007n);
  x.p64(0x5000, BigInt(FRAME_A * 4096) | 0x67n); x.p64(0x5008, 0x7067n);
  return {
    x,
    turn: (vcpu, o = {}) => { x.cpu.mmu.tlb.take({ vcpu, generation: 1, wasGeneration: 1, codeMarks: 1, wasCodeMarks: 1, isOurs: true, isCode: () => false, ...o }); x.cpu.setMode(); },
    walksOf: (f) => { const before = x.cpu.mmu.walks; f(); return x.cpu.mmu.walks - before; },
  };
};

test("a vCPU that comes back finds the entries that it left, and no other vCPU does", () => {
  const { x, turn, walksOf } = machine(), use = (): void => { x.cpu.write32(A, 1); x.cpu.read32(B); };
  turn(1);
  assert.equal(walksOf(use), 2);
  assert.equal(walksOf(use), 0);
  turn(2);
  x.p64(0x5008, 0x8067n);        // what it finds there is its own table's word, whatever another one remembers
  assert.equal(walksOf(use), 2);
  turn(1);
  assert.equal(walksOf(use), 0);
  turn(2);
  assert.equal(walksOf(use), 0);
});
test("entries are void where the p2m has changed meanwhile, or the vCPU has run elsewhere, or nobody says whose they were", () => {
  for (const back of [{ generation: 2 }, { isOurs: false }]) {
    const { x, turn, walksOf } = machine();
    turn(1); x.cpu.read32(A); turn(2); turn(1, back);
    assert.equal(walksOf(() => x.cpu.read32(A)), 1, JSON.stringify(back));
  }
  const { x, turn, walksOf } = machine();
  turn(1); x.cpu.read32(A); turn(2); x.cpu.mmu.tlb.take(); x.cpu.setMode(); turn(1);
  assert.equal(walksOf(() => x.cpu.read32(A)), 1);
});
test("a frame that has become code meanwhile may be read without a walk, and not written", () => {
  const { x, turn, walksOf } = machine();
  turn(1); x.cpu.write32(A, 1); turn(2); turn(1, { codeMarks: 2, isCode: (frame) => frame === x.frameOf(FRAME_A) / 4096 >>> 0 });
  assert.equal(walksOf(() => x.cpu.read32(A)), 0);
  assert.equal(walksOf(() => x.cpu.write32(A, 2)), 1);
});
test("a frame that becomes code is found among the entries of those who do not run", () => {
  const { x, turn, walksOf } = machine(), frame = x.frameOf(FRAME_A) / 4096 >>> 0;
  turn(1); x.cpu.write32(A, 1); turn(2); x.cpu.mmu.tlb.protectFrame(frame); turn(1);
  assert.equal(walksOf(() => x.cpu.write32(A, 2)), 1);
});
test("an invalidation is the running vCPU's alone", () => {
  const { x, turn, walksOf } = machine();
  turn(1); x.cpu.read32(A); turn(2); x.cpu.read32(A); x.cpu.mmu.tlb.invlpg(A); x.cpu.mmu.tlb.flushLocal();
  assert.equal(walksOf(() => x.cpu.read32(A)), 1);
  turn(1);
  assert.equal(walksOf(() => x.cpu.read32(A)), 0);
  x.cpu.mmu.tlb.invlpg(A);
  assert.equal(walksOf(() => x.cpu.read32(A)), 1);
});
test("a flush that others ask for is one of all that ran here: they share what was decoded", () => {
  const { x, turn, walksOf } = machine();
  turn(1); x.cpu.read32(A); x.cpu.mmu.fillCode(B); turn(2); x.cpu.read32(A); turn(3); x.cpu.mmu.tlb.flushEveryone();
  for (const vcpu of [1, 2]) { turn(vcpu); assert.equal(walksOf(() => x.cpu.read32(A)), 1, `vCPU ${vcpu}`); }
  turn(1);
  assert.equal(x.cpu.mmu.tlb.codeAt(B, x.cpu.mode), -1);
  assert.equal(walksOf(() => x.cpu.read32(A)), 0);
});
test("jumps are remembered over a turn, until all are forgotten or their numbers are given anew", () => {
  const { x, turn } = machine(), { tlb } = x.cpu.mmu, tags = (): string => `${x.v.i32[CPU.jumpTags.at >>> 2]} ${x.v.i32[(CPU.jumpTags.at >>> 2) + 1]}`, known: string[] = [];
  turn(1); known.push(tags()); turn(2); known.push(tags());
  assert.notEqual(known[0], known[1]);
  turn(1);
  assert.equal(tags(), known[0]);
  turn(2);
  assert.equal(tags(), known[1]);
  tlb.forgetAllJumps();
  turn(1);
  assert(!known.includes(tags()));
  const before = tags();
  turn(2);
  for (let n = 0; n < JUMP_TAG.steps; n++) tlb.flushLocal();
  turn(1);
  assert.notEqual(tags(), before);
});
test("many vCPUs take turns, and the last ones find theirs", () => {
  const { x, turn, walksOf } = machine();
  for (let vcpu = 1; vcpu <= 40; vcpu++) { turn(vcpu); x.cpu.read32(A); }
  turn(36);
  assert.equal(walksOf(() => x.cpu.read32(A)), 0);
  turn(1);
  assert.equal(walksOf(() => x.cpu.read32(A)), 1);
});
