import assert from "node:assert/strict";
import { test } from "node:test";
import { RDI, RSP } from "../../src/x86/state.ts";
import { RegionGen } from "../../src/x86/translate.ts";
import { guestsMissing } from "../../guests/build.ts";
import { randomProgram } from "./generate.ts";
import { type Program, type Side, lockstep, narrow, show } from "./lockstep.ts";
import { programOf } from "./programs.ts";
import { optionsOf } from "./run.ts";
import { listing, shrink } from "./shrink.ts";

const CODE = 0x400000, DATA = 0x600000;
/** Code (hex) at CPL 0 with a page of data at rdi, ended by HLT. `other`: what the translator gets instead. */
function program(code: string, other = code): Program {
  const bytes = (side: Side) => Uint8Array.from((side === "translator" ? other : code).replaceAll(" ", "").match(/../g)!, x => Number.parseInt(x, 16));
  return {
    name: "test", ramBytes: 256 << 10,
    load(m, side) {
      m.map(CODE, 0x10000); m.map(DATA, 0x11000);
      m.write(0x10000, bytes(side));
      m.reset(0);
      m.engine.cpu.setGprNumber(RDI, DATA); m.engine.cpu.setGprNumber(RSP, DATA + 0x1000); m.engine.cpu.rip = BigInt(CODE);
    },
  };
}
// mov ecx, 100; L: add ebx, 3; mov [rdi], ebx; dec ecx; jnz L; hlt
const LOOP = "b9 64 00 00 00  83 c3 03  89 1f  ff c9  75 f7  f4", NOT = "b9 64 00 00 00  83 c3 03  f7 d3  ff c9  75 f7  f4";
const modes = [0, 40];

test("both engines do the same, to the end", () => {
  for (const translateAfter of modes) {
    const e = lockstep(program(LOOP), { seed: 1, translateAfter });
    assert.equal(e.difference, null, e.difference ? show(e) : "");
    assert.deepEqual([e.why, e.instructions], ["halt", 1 + 100 * 4 + 1]);
    assert.ok(e.comparisons > 3);
  }
});

test("another instruction for one of them is found, and its register, address and block are named", () => {
  for (const translateAfter of modes) {
    const e = lockstep(program(LOOP, LOOP.replace("83 c3 03", "83 c3 04")), { seed: 2, translateAfter }), text = show(narrow(program(LOOP, LOOP.replace("83 c3 03", "83 c3 04")), e));
    assert.equal(e.why, "difference");
    assert.match(text, /^test, seed 2, /);
    assert.match(text, /^ {2}rbx +3 +4$/m);
    assert.match(text, /400005 +83 c3 03 +add ebx,3/);
    assert.match(text, /agreed on\): \| 400000$/m);
  }
});

test("memory that differs is found where no register does", () => {
  // mov [rdi+8], ecx instead of mov [rdi], ebx, at the last turn only
  const once = "b9 64 00 00 00  83 c3 03  83 f9 01  75 02  89 1f  ff c9  75 f2  f4", e = lockstep(program(once, once.replace("89 1f", "89 0f")), { seed: 3, translateAfter: 0 });
  assert.match(e.difference!.what, /memory differs/);
  assert.equal(e.difference!.memory, 0x10000 + 8, "the planted instruction itself is the first difference");
});

test("an error in the translator is found", () => {
  const plant = RegionGen.prototype as { not?: unknown };
  plant.not = (_w: number, a: unknown) => a;
  try {
    const p = program(NOT), e = narrow(p, lockstep(p, { seed: 4, translateAfter: 0 }));
    assert.match(show(e), /^ {2}rbx +fffffffc +3$/m);
  } finally { delete plant.not; }
});

test("an error in the translator is found by random programs, and the smallest one shows it", () => {
  const plant = RegionGen.prototype as { rotl?: unknown };
  plant.rotl = (_w: number, a: unknown) => a;
  try {
    let seed = 1;
    while (lockstep(randomProgram(seed), optionsOf(seed)).difference === null) assert.ok(seed++ < 300, "no random program rotates");
    const lines = listing(shrink(randomProgram(seed), optionsOf(seed))!);
    assert.ok(lines.length <= 3, lines.join("\n"));
    assert.ok(lines.some(l => /\b(ro[lr]|rc[lr]|bswap|movbe|crc32)\b/.test(l)), lines.join("\n"));
  } finally { delete plant.rotl; }
});

test("flags are whole where a region is left for the second page of an instruction", () => {
  // ... L: inc dword [rdi]; invlpg [CODE + 0x1000]; add rbx, rsi; mov rax, rbx | neg rax, over the pages | dec ecx; jnz L; hlt
  const start = 0xfe5, first = Uint8Array.from("be01000000b932000000ff070f013c2500104000" .match(/../g)!, x => Number.parseInt(x, 16)), second = Uint8Array.from("4801f34889d848f7d8ffc90f85e5fffffff4".match(/../g)!, x => Number.parseInt(x, 16)), code = Uint8Array.of(...first, ...second);
  const p: Program = {
    name: "pages", ramBytes: 256 << 10,
    load(m) {
      m.map(CODE, 0x10000); m.map(CODE + 0x1000, 0x12000); m.map(DATA, 0x11000);
      m.write(0x10000 + start, code.subarray(0, 0x1000 - start)); m.write(0x12000, code.subarray(0x1000 - start));
      m.v.dv.setUint32(m.ram + 0x11000, 0x80000000, true);
      m.reset(0);
      m.engine.cpu.setGprNumber(RDI, DATA); m.engine.cpu.setGprNumber(RSP, DATA + 0x1000); m.engine.cpu.rip = BigInt(CODE + start);
    },
  };
  for (const translateAfter of modes) for (let seed = 1; seed < 20; seed++) {
    const e = lockstep(p, { seed, translateAfter });
    assert.equal(e.difference, null, e.difference ? show(e) : "");
    assert.deepEqual([e.why, e.instructions], ["halt", 2 + 50 * 7 + 1]);
  }
});

test("a slice that ends anywhere is no difference: seeds choose other slices", () => {
  for (let seed = 10; seed < 30; seed++) assert.equal(lockstep(program(LOOP), { seed, translateAfter: 0 }).why, "halt");
});

test("the same seed gives the same program, the same slices and the same end", () => {
  const [a, b] = [0, 1].map(() => lockstep(randomProgram(5), optionsOf(5)));
  assert.deepEqual([a!.instructions, a!.comparisons, a!.counters.regions, a!.why], [b!.instructions, b!.comparisons, b!.counters.regions, b!.why]);
});

test("random programs are the same on both engines", () => {
  const until = performance.now() + 4000, first = Number(process.env["SEED"] ?? 100);
  for (let seed = first; performance.now() < until; seed++) {
    const e = lockstep(randomProgram(seed), optionsOf(seed));
    assert.equal(e.difference, null, e.difference ? `${show(e)}\nnode tools/setup/run.mjs tools/lockstep/run.ts -- --seed ${seed} random   makes it smaller` : "");
  }
});

for (const name of ["smc", "syscall", "paging", "sort"]) test(`${name} is the same on both engines`, { skip: guestsMissing() }, () => {
  for (const translateAfter of modes) {
    const e = lockstep(programOf(name, 1)!, { seed: 1, translateAfter, seconds: 1 });
    assert.equal(e.difference, null, e.difference ? show(e) : "");
  }
});
