import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, Decoder, DecoderOptions } from "iced-x86";
import { runCampaign } from "./campaign.ts";
import { CASE, CHANGES_MAX, NO_TRAP, RESULT, TRAP_TIMEOUT, WINDOW } from "./format.ts";
import { loadForms } from "./forms.ts";
import { Generator, shiftLeeway } from "./generate.ts";
import { Native, nativeMissing } from "./native.node.ts";

const skip = nativeMissing();

test("a seed gives the same cases twice, and another seed others", () => {
  const [a, b, c] = [1, 1, 2].map((seed) => new Generator({ seed }).batch(50).bytes);
  assert.deepEqual(a, b);
  assert.notDeepEqual(a, c);
});

test("every generated encoding is the form it claims to be", () => {
  const g = new Generator({ seed: 7, sequences: false }), batch = g.batch(8000), seen = new Set<string>();
  for (let i = 0; i < batch.nrCases; i++) {
    const code = batch.code(i), waits = batch.names[i]!.startsWith("F") && code[0] === 0x9b;
    const d = new Decoder(64, waits ? code.subarray(1) : code, DecoderOptions.None), insn = d.decode(), name = Code[insn.code]!;
    seen.add(batch.names[i]!);
    if (insn.code === Code.INVALID && code.includes(0xf0)) continue;   // LOCK where it may not stand
    // exchanging ax with ax is a no-op by name; with the wait apart, the rest is the no-wait form
    if (!/^Xchg_r\d\d_|^Reserved/.test(batch.names[i]!)) assert.equal(name, waits ? batch.names[i]!.replace(/^F(?!n)/, "Fn") : batch.names[i]);
    insn.free(); d.free();
  }
  assert.ok(seen.size > 1100, `${seen.size} forms`);
});

test("the forms cover the instruction set from the 8086 to SSE4.2", () => {
  const names = new Set(loadForms().map((f) => f.mnemonic));
  for (const m of ["Add", "Adc", "Cmpxchg16b", "Xadd", "Movbe", "Crc32", "Popcnt", "Shld", "Bts", "Movs", "Rcl", "Pshufb", "Pcmpistri", "Roundsd", "Dpps", "Fprem", "Fbstp", "Fxsave", "Enter", "Maskmovq"]) assert.ok([...names].some((n) => n === m || n.startsWith(m)), m);
  for (const m of ["Cpuid", "Rdtsc", "Syscall", "In", "Hlt", "Lzcnt", "Tzcnt", "Addsubps_avx", "Vaddps", "Int"]) assert.ok(!names.has(m), m);
});

test("shift counts decide which flags are undefined", () => {
  assert.equal(shiftLeeway("shl", 0, 32), 0);
  assert.equal(shiftLeeway("shl", 1, 32), 0x10);
  assert.equal(shiftLeeway("shr", 8, 8), 0x811);
  assert.equal(shiftLeeway("sar", 9, 8), 0x810);
  assert.equal(shiftLeeway("rol", 2, 64), 0x800);
});

test("the processor agrees with itself on 20000 random cases", { skip }, async () => {
  const a = new Native(), b = new Native();
  try {
    const c = await runCampaign({ generator: new Generator({ seed: 3 }), subjects: [a, b], seconds: 20, cases: 20000 });
    assert.equal(c.failures.size, 0, [...c.failures.values()].map((f) => f.text).join("\n"));
    assert.ok(c.nrByForm.size > 900);
  } finally { a.close(); b.close(); }
});

/** One case of given code on the native subject. */
async function native(code: number[], setup: (dv: DataView, at: number) => void = () => {}): Promise<DataView> {
  const batch = new Generator({ seed: 1, only: /^Nopd$/ }).batch(1), at = batch.at(0), n = new Native();
  batch.bytes.fill(0, at + CASE.gpr.at, at + CASE.gpr.at + 128);
  CASE.rflags.set(batch.dv, at, 0x202n);
  CASE.codeLen.set(batch.dv, at, code.length);
  CASE.codeOffset.set(batch.dv, at, 0x100);
  batch.bytes.set(code, at + CASE.code.at);
  setup(batch.dv, at);
  try { return new DataView((await n.run(batch)).buffer); } finally { n.close(); }
}

test("a result holds registers, flags and the window's changes", { skip }, async () => {
  const r = await native([0x48, 0xff, 0xc8, 0x48, 0x89, 0x03], (dv, at) => dv.setUint32(at + CASE.gpr.at + 24, WINDOW + 64, true));  // dec rax; mov [rbx], rax
  assert.equal(RESULT.trap.get(r, 0), NO_TRAP);
  assert.equal(r.getBigInt64(RESULT.gpr.at, true), -1n);
  assert.equal(Number(RESULT.rflags.get(r, 0)) & 0x8d5, 0x94);
  assert.equal(RESULT.nrChanges.get(r, 0), 1);
  assert.equal(r.getUint16(RESULT.index.at, true), 8);
  assert.ok(CHANGES_MAX > 1);
});

test("a fault is told with its vector, address and the registers before the instruction", { skip }, async () => {
  const r = await native([0xff, 0xc0, 0x8b, 0x04, 0x25, 0, 0x20, 0, 0x10]);  // inc eax; mov eax, [WINDOW + 0x2000]
  assert.equal(RESULT.trap.get(r, 0), 14);
  assert.equal(RESULT.cr2.get(r, 0), BigInt(WINDOW + 0x2000));
  assert.equal(RESULT.rip.get(r, 0), 0x20000102n);
  assert.equal(r.getUint32(RESULT.gpr.at, true), 1);
});

test("an endless case is ended by the clock", { skip }, async () => assert.equal(RESULT.trap.get(await native([0xeb, 0xfe]), 0), TRAP_TIMEOUT));
