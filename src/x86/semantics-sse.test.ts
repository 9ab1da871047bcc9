import assert from "node:assert/strict";
import { test } from "node:test";
import { FlatMachine } from "./flat-machine.ts";
import { getFlags } from "./flags.ts";
import { SSE, sseSlow } from "./sse-float.ts";
import { ATTR, CPU, CR0, CR4, CS, EFLAGS, RAX, RCX, RDI, RDX, RSI, VECTOR, xmmAt } from "./state.ts";

const CODE = 0x400000, DATA = 0x600000, HLT = "f4", R8 = 8;
const bytesOf = (hex: string): Uint8Array => Uint8Array.from(hex.replaceAll(" ", "").match(/../g) ?? [], x => Number.parseInt(x, 16));

/** A kernel-mode machine with r8 and rdi at one page of data. `run` gives the first exception, or -1 at the end of the code. */
class Bench {
  readonly m = new FlatMachine();
  readonly cpu = this.m.engine.cpu;
  readonly dv = this.m.v.dv;
  readonly data = this.m.ram + 0x20000;
  constructor(code: string) {
    this.m.map(CODE, 0x10000); this.m.map(DATA, 0x20000);
    this.m.write(0x10000, bytesOf(code + HLT));
    this.m.reset(0);
  }
  xmm(i: number, lo: bigint, hi = 0n): this { this.dv.setBigUint64(xmmAt(i), BigInt.asUintN(64, lo), true); this.dv.setBigUint64(xmmAt(i) + 8, BigInt.asUintN(64, hi), true); return this; }
  get(i: number): [bigint, bigint] { return [this.dv.getBigUint64(xmmAt(i), true), this.dv.getBigUint64(xmmAt(i) + 8, true)]; }
  run(): number {
    let first = -1;
    this.m.engine.onDeliver = vector => { if (first < 0) first = vector; };
    this.cpu.rip = BigInt(CODE); this.cpu.setGpr(R8, BigInt(DATA)); this.cpu.setGpr(RDI, BigInt(DATA));
    this.cpu.set(CPU.halted, 0); this.cpu.set(CPU.exit, 0);
    this.m.engine.run(10000);
    return first;
  }
}

test("a 16-byte operand must be aligned for MOVAPS and ADDPS, not for MOVUPS", () => {
  for (const [code, vector] of [["41 0f 28 40 08", VECTOR.GP], ["41 0f 58 40 08", VECTOR.GP], ["41 0f 29 40 08", VECTOR.GP], ["41 0f 10 40 08", -1]] as const) assert.equal(new Bench(code).run(), vector, code);
});
test("a scalar load clears the rest of the register, a move between registers keeps it", () => {
  const load = new Bench("f3 41 0f 10 00").xmm(0, -1n, -1n);
  load.dv.setUint32(load.data, 0x3f800000, true); load.run();
  assert.deepEqual(load.get(0), [0x3f800000n, 0n]);
  const move = new Bench("f3 0f 10 c1").xmm(0, -1n, -1n).xmm(1, 0x3f800000n); move.run();
  assert.deepEqual(move.get(0), [0xffffffff3f800000n, 0xffffffffffffffffn]);
});
test("an unmasked SSE exception is #XM, or #UD without CR4.OSXMMEXCPT, and leaves the destination alone", () => {
  for (const [set, vector] of [[true, VECTOR.XM], [false, VECTOR.UD]] as const) {
    const b = new Bench("f2 0f 5e c1").xmm(0, 0x3ff0000000000000n).xmm(1, 0n);      // divsd 1 / 0
    b.cpu.set(CPU.mxcsr, 0x1f80 & ~0x200);
    if (!set) b.cpu.set(CPU.cr4, b.cpu.get(CPU.cr4) & ~BigInt(CR4.OSXMMEXCPT));
    assert.equal(b.run(), vector);
    assert.deepEqual(b.get(0), [0x3ff0000000000000n, 0n]);
    assert.equal(b.cpu.get(CPU.mxcsr), 0x1d80 | 4);
  }
});
test("UCOMISD sets ZF, PF and CF and clears the rest", () => {
  const NAN = 0x7ff8000000000000n, ONE = 0x3ff0000000000000n, TWO = 0x4000000000000000n;
  for (const [a, b, want] of [[ONE, TWO, EFLAGS.CF], [TWO, ONE, 0], [ONE, ONE, EFLAGS.ZF], [ONE, NAN, EFLAGS.ZF | EFLAGS.PF | EFLAGS.CF]] as const) {
    const m = new Bench("66 0f 2e c1").xmm(0, a).xmm(1, b); m.run();
    assert.equal(getFlags(m.cpu) & EFLAGS.arith, want);
  }
});
test("MASKMOVDQU writes the bytes whose mask has its top bit set", () => {
  const b = new Bench("66 0f f7 c1").xmm(0, 0x8877665544332211n, 0x11n).xmm(1, 0x8000000000008000n, 0x80n);
  b.m.v.u8.fill(0xee, b.data, b.data + 16);
  assert.equal(b.run(), -1);
  assert.equal(b.dv.getBigUint64(b.data, true), 0x88eeeeeeeeee22een);
  assert.equal(b.dv.getBigUint64(b.data + 8, true), 0xeeeeeeeeeeeeee11n);
});
const text = (s: string): [bigint, bigint] => { const d = new DataView(new ArrayBuffer(16)); [...s].forEach((c, i) => d.setUint8(i, c.charCodeAt(0))); return [d.getBigUint64(0, true), d.getBigUint64(8, true)]; };
/** PCMPISTRM of two strings: IntRes2 as a number. */
const strings = (a: string, b: string, imm: string): number => { const m = new Bench(`66 0f 3a 62 c1 ${imm}`).xmm(0, ...text(a)).xmm(1, ...text(b)); m.run(); return Number(m.get(0)[0]); };

test("PCMPISTRI finds a substring and PCMPESTRM makes a mask of what is in a set", () => {
  const find = new Bench("66 0f 3a 63 c1 0c").xmm(0, ...text("house")).xmm(1, ...text("our white house!")); find.run();      // equal ordered
  assert.equal(find.cpu.gpr(RCX), 10n);
  assert.equal(getFlags(find.cpu) & EFLAGS.arith, EFLAGS.CF | EFLAGS.SF);
  const set = new Bench("66 0f 3a 60 c1 40").xmm(0, ...text("aeiou")).xmm(1, ...text("beautiful"));                       // equal any, byte mask
  set.cpu.setGpr(RAX, 5n); set.cpu.setGpr(RDX, BigInt.asUintN(64, -9n));
  set.run();
  assert.deepEqual(set.get(0), [0xff00ff00ffffff00n, 0n]);
});
test("string compares: sets, ranges, equality, order and negation", () => {
  assert.equal(strings("lo", "hello", "00"), 0b11100, "equal any, up to the end of the string");
  assert.equal(strings("azAZ0", "b-C4", "04"), 0b101, "ranges take the set two by two and ignore an odd one");
  assert.equal(strings("\xf0\x10", "\x01\x80\x20", "06"), 0b001, "signed ranges");
  assert.equal(strings("abcd", "abXd", "08"), 0xffff ^ 0b100, "equal each: both ends are equal");
  assert.equal(strings("abcd", "abXd", "18"), 0b100, "negated");
  assert.equal(strings("a", "aba", "30"), 0b010, "negated up to the second string's end");
  assert.equal(strings("abc", "xxxxxxxxxxxxxxab", "0c"), 1 << 14, "equal ordered finds a beginning at the register's end");
  assert.equal(strings("abc", "xxxxab", "0c"), 0, "but not at the string's end");
});

/** Where the fast way could go wrong: zeros, ones, denormals, the smallest normals, the largest, infinities, NaNs, halves, integers at the limits. */
const D = [0n, 1n << 63n, 0x3ff0000000000000n, 0xbff8000000000000n, 1n, 0xfffffffffffffn, 0x10000000000000n, 0x10000000000001n, 0x20000000000000n, 0x1ff0000000000000n, 0x2000000000000000n, 0x3ca0000000000000n,
  0x7fefffffffffffffn, 0x7ff0000000000000n, 0xfff0000000000000n, 0x7ff8000000000000n, 0x7ff0000000000001n, 0x400921fb54442d18n, 0x41dfffffffc00000n, 0x41e0000000000000n, 0xc1e0000000000000n, 0xc1e0000000200000n,
  0x43e0000000000000n, 0xc3e0000000000000n, 0x36a0000000000000n, 0x380fffffffffffffn, 0x3810000000000000n, 0x47efffffe0000000n, 0x47effffff0000000n, 0x4340000000000001n, 0x3fe0000000000001n];
const S = [0n, 0x80000000n, 0x3f800000n, 0xbfc00000n, 1n, 0x7fffffn, 0x800000n, 0x800001n, 0x1000000n, 0x1f800000n, 0x20000000n, 0x34000000n, 0x7f7fffffn, 0x7f800000n, 0xff800000n, 0x7fc00000n, 0x7f800001n, 0x40490fdbn,
  0x4effffffn, 0x4f000000n, 0xcf000000n, 0x5f000000n, 0xdf000000n, 0x4b800001n, 0x3f000001n];
const OPS: [name: string, code: string, doubles: boolean][] = [];
for (const [op, name] of [["58", "ADD"], ["59", "MUL"], ["5c", "SUB"], ["5e", "DIV"], ["51", "SQRT"], ["5d", "MIN"], ["5f", "MAX"]] as const)
  for (const [pfx, suffix] of [["", "PS"], ["66", "PD"], ["f3", "SS"], ["f2", "SD"]] as const) OPS.push([name + suffix, `${pfx} 0f ${op} c1`, suffix.endsWith("D")]);
for (const [pfx, suffix] of [["", "PS"], ["66", "PD"], ["f3", "SS"], ["f2", "SD"]] as const) for (const imm of [0, 1, 2, 3, 6]) OPS.push([`CMP${suffix}/${imm}`, `${pfx} 0f c2 c1 0${imm}`, suffix.endsWith("D")]);
for (const [op, suffix] of [["08", "PS"], ["09", "PD"], ["0a", "SS"], ["0b", "SD"]] as const) for (const imm of [0, 1, 3, 4, 9]) OPS.push([`ROUND${suffix}/${imm}`, `66 0f 3a ${op} c1 0${imm}`, suffix.endsWith("D")]);
OPS.push(["HADDPS", "f2 0f 7c c1", false], ["HADDPD", "66 0f 7c c1", true], ["HSUBPS", "f2 0f 7d c1", false], ["ADDSUBPS", "f2 0f d0 c1", false], ["ADDSUBPD", "66 0f d0 c1", true], ["CVTPS2PD", "0f 5a c1", false],
  ["CVTPD2PS", "66 0f 5a c1", true], ["CVTSS2SD", "f3 0f 5a c1", false], ["CVTSD2SS", "f2 0f 5a c1", true], ["CVTPS2DQ", "66 0f 5b c1", false], ["CVTTPS2DQ", "f3 0f 5b c1", false], ["CVTPD2DQ", "f2 0f e6 c1", true], ["CVTTPD2DQ", "66 0f e6 c1", true],
  ["CVTDQ2PS", "0f 5b c1", false], ["CVTDQ2PD", "f3 0f e6 c1", false]);

test("floating point gives the exact way's results and flags whichever way is taken", () => {
  // defaults; PE set; all set; rounding down; truncation; FTZ and DAZ
  const controls = [0x1f80, 0x1fa0, 0x1fbf, 0x3fa0, 0x7fa0, 0x9fe0];
  let seed = 1;
  const pick = (list: readonly bigint[]): bigint => { seed = Math.imul(seed, 1103515245) + 12345 | 0; return list[(seed >>> 8) % list.length]!; };
  for (const [name, code, doubles] of OPS) {
    const b = new Bench(code), [op, imm = "0"] = name.split("/"), value = () => (doubles ? pick(D) : pick(S) | pick(S) << 32n);
    b.run();
    for (let n = 0; n < 120; n++) {
      const x = [value(), value(), value(), value()] as const, mxcsr = controls[n % controls.length]!, set = () => { b.xmm(0, x[0], x[1]).xmm(1, x[2], x[3]); b.cpu.set(CPU.mxcsr, mxcsr); };
      set(); b.run();
      const got = [...b.get(0), BigInt(b.cpu.get(CPU.mxcsr))];
      set(); sseSlow(b.cpu, SSE[op!]!, xmmAt(0), xmmAt(0), xmmAt(1), Number(imm));
      assert.deepEqual(got, [...b.get(0), BigInt(b.cpu.get(CPU.mxcsr))], `${name} mxcsr ${mxcsr.toString(16)} operands ${x.map(v => v.toString(16)).join(" ")}`);
    }
  }
});
test("an SSE instruction under CR0.TS is #NM", () => {
  const b = new Bench("0f 58 c1");
  b.cpu.set(CPU.cr0, b.cpu.get(CPU.cr0) | BigInt(CR0.TS)); b.cpu.setMode();
  assert.equal(b.run(), VECTOR.NM);
});
test("compatibility mode: eight registers, 32-bit addresses and integers", () => {
  // movdqu xmm0,[esi]; paddd xmm0,[esi+16]; movd eax,xmm0; cvtsi2sd xmm1,eax; movq [esi+32],xmm1; movhps [esi+40],xmm0; pextrw ecx,xmm0,7; dec eax
  const b = new Bench("f3 0f 6f 06  66 0f fe 46 10  66 0f 7e c0  f2 0f 2a c8  66 0f d6 4e 20  0f 17 46 28  66 0f c5 c8 07  48");
  b.cpu.setSeg(CS, 0x33, 0, 0xffffffff, ATTR.g | ATTR.db | 0x9b); b.cpu.setMode();
  for (let i = 0; i < 8; i++) b.dv.setUint32(b.data + i * 4, 1000 + i, true);
  b.cpu.setGpr(RSI, BigInt(DATA));
  assert.equal(b.run(), -1);
  assert.equal(b.cpu.gpr(RAX), 2003n);
  assert.equal(b.dv.getFloat64(b.data + 32, true), 2004);
  assert.equal(b.dv.getBigUint64(b.data + 40, true), 2008n | 2010n << 32n);
  assert.equal(b.cpu.gpr(RCX), 0n);
});
