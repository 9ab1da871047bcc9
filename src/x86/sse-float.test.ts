/** Ours against the host's own unit, on seeded random states. `SEED=n ROUNDS=m` choose other and more cases; a failure shows operands and both answers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { askProcessor, Dice, operand, REC, SIGFPE } from "../../tools/fp-oracle/oracle.node.ts";
import { hostVendor } from "../../tools/oracle/native.node.ts";
import { rowsFor, sameOrNaN } from "../../tools/oracle/vendors.ts";
import { Views } from "../base/views.ts";
import { GuestFault } from "./fault.ts";
import { F32, F64 } from "./softfloat.ts";
import { SSE, sseSlow } from "./sse-float.ts";
import { CPU, CR4, EFLAGS, VECTOR, xmmAt } from "./state.ts";

const host = { v: new Views(new SharedArrayBuffer(8192)), at: 64 };
const SEED = Number(process.env["SEED"] ?? 1), ROUNDS = Number(process.env["ROUNDS"] ?? 300);

/** Encodings on xmm0, xmm1 (or rax, rcx, mm0, mm1): all end in the ModRM byte C1. */
const PREFIX = { PS: [], PD: [0x66], SS: [0xf3], SD: [0xf2] } as const;
const ENCODING: Record<string, number[]> = {};
for (const [suffix, prefix] of Object.entries(PREFIX)) {
  for (const [name, op] of Object.entries({ ADD: 0x58, MUL: 0x59, SUB: 0x5c, MIN: 0x5d, DIV: 0x5e, MAX: 0x5f, SQRT: 0x51, CMP: 0xc2 })) ENCODING[name + suffix] = [...prefix, 0x0f, op];
  ENCODING[`ROUND${suffix}`] = [0x66, 0x0f, 0x3a, { PS: 8, PD: 9, SS: 10, SD: 11 }[suffix]!];
}
Object.assign(ENCODING, {
  RCPPS: [0x0f, 0x53], RCPSS: [0xf3, 0x0f, 0x53], RSQRTPS: [0x0f, 0x52], RSQRTSS: [0xf3, 0x0f, 0x52],
  COMISS: [0x0f, 0x2f], COMISD: [0x66, 0x0f, 0x2f], UCOMISS: [0x0f, 0x2e], UCOMISD: [0x66, 0x0f, 0x2e],
  CVTPS2PD: [0x0f, 0x5a], CVTPD2PS: [0x66, 0x0f, 0x5a], CVTSS2SD: [0xf3, 0x0f, 0x5a], CVTSD2SS: [0xf2, 0x0f, 0x5a],
  CVTDQ2PS: [0x0f, 0x5b], CVTPS2DQ: [0x66, 0x0f, 0x5b], CVTTPS2DQ: [0xf3, 0x0f, 0x5b],
  CVTDQ2PD: [0xf3, 0x0f, 0xe6], CVTPD2DQ: [0xf2, 0x0f, 0xe6], CVTTPD2DQ: [0x66, 0x0f, 0xe6],
  CVTPI2PS: [0x0f, 0x2a], CVTPI2PD: [0x66, 0x0f, 0x2a], CVTPS2PI: [0x0f, 0x2d], CVTTPS2PI: [0x0f, 0x2c], CVTPD2PI: [0x66, 0x0f, 0x2d], CVTTPD2PI: [0x66, 0x0f, 0x2c],
  HADDPS: [0xf2, 0x0f, 0x7c], HADDPD: [0x66, 0x0f, 0x7c], HSUBPS: [0xf2, 0x0f, 0x7d], HSUBPD: [0x66, 0x0f, 0x7d],
  ADDSUBPS: [0xf2, 0x0f, 0xd0], ADDSUBPD: [0x66, 0x0f, 0xd0], DPPS: [0x66, 0x0f, 0x3a, 0x40], DPPD: [0x66, 0x0f, 0x3a, 0x41],
});
for (const [kind, prefix] of [["SS", 0xf3], ["SD", 0xf2]] as const) {
  for (const [bits, rex] of [[32, []], [64, [0x48]]] as const) {
    ENCODING[`CVTSI2${kind}${bits}`] = [prefix, ...rex, 0x0f, 0x2a];
    ENCODING[`CVT${kind}2SI${bits}`] = [prefix, ...rex, 0x0f, 0x2d];
    ENCODING[`CVTT${kind}2SI${bits}`] = [prefix, ...rex, 0x0f, 0x2c];
  }
}
const hasImm = (name: string): boolean => /^(CMP|ROUND|DP)/.test(name);
/** Do the source's lanes hold doubles? */
const doubles = (name: string): boolean => /PD$|SD$|^CVTT?(PD|SD)2/.test(name) && !/^CVT(PS|SS|DQ)2/.test(name);

function makeCase(d: Dice, rec: Uint8Array, name: string): void {
  const v = new DataView(rec.buffer, rec.byteOffset, rec.byteLength);
  rec.fill(0);
  rec[REC.kind] = 1;
  const insn = [...ENCODING[name]!, 0xc1, ...(hasImm(name) ? [name.startsWith("CMP") ? d.below(8) : name.startsWith("ROUND") ? d.below(16) : d.u32() & 0xff] : [])];
  rec[REC.length] = insn.length;
  rec.set(insn, REC.insn);
  v.setBigUint64(REC.rflags, BigInt(2 | d.u32() & EFLAGS.arith), true);
  const masks = d.below(2) ? 0x3f : d.below(64);
  v.setUint32(REC.mxcsr, d.below(3) === 0 ? 0x1f80 | d.below(64) & d.below(64) : d.below(64) & masks | masks << 7 | d.below(4) << 13 | (d.below(4) ? 0 : 0x40) | (d.below(4) ? 0 : 0x8000), true);
  v.setBigUint64(REC.rcx, d.below(2) ? d.u64() : BigInt.asUintN(64, BigInt(d.u32()) - 0x80000000n), true);
  v.setBigUint64(REC.mm0, d.u64(), true);
  v.setBigUint64(REC.mm1, d.below(2) ? d.u64() : BigInt(d.below(1 << 26)) << BigInt(d.below(32)), true);
  for (let at = REC.xmm0; at < REC.xmm0 + 32;) {
    if (doubles(name)) { v.setBigUint64(at, operand(d, F64), true); at += 8; }
    else { v.setUint32(at, Number(operand(d, F32)), true); at += 4; }
  }
}
function runOurs(input: Uint8Array, name: string): Uint8Array {
  const rec = input.slice(), v = new DataView(rec.buffer), { u8, dv } = host.v;
  rec[0] = 0;
  const dst = host.at + xmmAt(0), src = host.at + xmmAt(1), at = host.at + CPU.wide.at, from = /^CVTSI2/.test(name) ? REC.rcx : /^CVTPI2/.test(name) ? REC.mm1 : REC.xmm1;
  u8.set(rec.subarray(REC.xmm0, REC.xmm0 + 16), dst);
  u8.set(rec.subarray(from, from + 16), src);
  u8.set(rec.subarray(REC.mm0, REC.mm0 + 8), at);
  CPU.mxcsr.set(dv, host.at, v.getUint32(REC.mxcsr, true));
  CPU.cr4.set(dv, host.at, BigInt(CR4.OSXMMEXCPT));
  const gpr = /2SI\d/.test(name), mm = /2PI$/.test(name);
  try {
    const flags = sseSlow(host, SSE[name]!, gpr || mm ? at : dst, dst, src, hasImm(name) ? rec[REC.insn + rec[REC.length]! - 1]! : 0);
    if (/COMIS/.test(name)) v.setBigUint64(REC.rflags, v.getBigUint64(REC.rflags, true) & ~BigInt(EFLAGS.arith) | BigInt(flags), true);
  } catch (e) {
    if (!(e instanceof GuestFault) || e.vector !== VECTOR.XM) throw e;
    rec[0] = SIGFPE;
  }
  v.setUint32(REC.mxcsr, CPU.mxcsr.get(dv, host.at), true);
  rec.set(u8.subarray(dst, dst + 16), REC.xmm0);
  if (gpr && !rec[0]) rec.set(u8.subarray(at, at + 8), REC.rax);
  if (mm && !rec[0]) rec.set(u8.subarray(at, at + 8), REC.mm0);
  return rec;
}
const visible = (rec: Uint8Array): string => {
  const v = new DataView(rec.buffer, rec.byteOffset, rec.byteLength), q = (at: number): string => v.getBigUint64(at, true).toString(16).padStart(16, "0");
  return `${rec[0] ? "trap " : ""}mxcsr=${v.getUint32(REC.mxcsr, true).toString(16)} xmm0=${q(REC.xmm0 + 8)}:${q(REC.xmm0)} xmm1=${q(REC.xmm1 + 8)}:${q(REC.xmm1)} rax=${q(REC.rax)} rcx=${q(REC.rcx)} mm0=${q(REC.mm0)} mm1=${q(REC.mm1)} fl=${(Number(v.getBigUint64(REC.rflags, true)) & EFLAGS.arith).toString(16)}`;
};

/** Make cases, run both, and hand each pair over. */
function each(names: readonly string[], rounds: number, look: (name: string, input: Uint8Array, theirs: Uint8Array, ours: Uint8Array) => void): void {
  const d = new Dice(SEED), records = new Uint8Array(names.length * rounds * REC.sizeof), at = (of: Uint8Array, n: number): Uint8Array => of.subarray(n * REC.sizeof, (n + 1) * REC.sizeof);
  names.forEach((name, i) => { for (let r = 0; r < rounds; r++) makeCase(d, at(records, i * rounds + r), name); });
  const theirs = askProcessor(records);
  names.forEach((name, i) => { for (let r = 0; r < rounds; r++) { const n = i * rounds + r; look(name, at(records, n), at(theirs, n), runOurs(at(records, n), name)); } });
}
const APPROXIMATE = /^R(CP|SQRT)/;
/** The processor's record, with our NaNs where this host's vendor may choose others (tools/oracle/vendors.ts). */
function withOurNaNs(name: string, theirs: Uint8Array, ours: Uint8Array): Uint8Array {
  const form = `${name[0]}${name.slice(1).toLowerCase()}_xmm_xmmm128_imm8`, lanes = rowsFor(hostVendor()).find((r) => r.lanes && r.forms.test(form))?.lanes;
  const v = (rec: Uint8Array): DataView => new DataView(rec.buffer, rec.byteOffset, rec.byteLength);
  if (!lanes || theirs[0] || !sameOrNaN(lanes, v(theirs), REC.xmm0, v(ours), REC.xmm0)) return theirs;
  const merged = theirs.slice();
  merged.set(ours.subarray(REC.xmm0, REC.xmm0 + 16), REC.xmm0);
  return merged;
}

test("every operation has an encoding in this test", () => assert.deepEqual(Object.keys(SSE).filter((n) => !ENCODING[n]), []));

test("every SSE operation leaves the register, MXCSR and flags the processor leaves", () => {
  const bad: string[] = [], count: Record<string, number> = {};
  each(Object.keys(SSE).filter((n) => !APPROXIMATE.test(n)), ROUNDS, (name, input, theirs, ours) => {
    const want = visible(withOurNaNs(name, theirs, ours)), got = visible(ours);
    // a trap leaves the registers as they were; the oracle keeps only MXCSR then
    if (theirs[0] ? ours[0] === theirs[0] && want === got : want === got) return;
    count[name] = (count[name] ?? 0) + 1;
    if (count[name]! <= 2) bad.push(`${name} imm ${input[REC.insn + input[REC.length]! - 1]}\n  in   ${visible(input)}\n  cpu  ${want}\n  ours ${got}`);
  });
  assert.equal(bad.length, 0, `${JSON.stringify(count)}\n${bad.slice(0, 16).join("\n")}`);
});

test("reciprocal approximations are as near as the manual promises, and special values are the processor's", () => {
  const f = new DataView(new ArrayBuffer(8));
  const real = (bits: number): number => { f.setUint32(0, bits); return f.getFloat32(0); };
  each(Object.keys(SSE).filter((n) => APPROXIMATE.test(n)), ROUNDS * 4, (name, input, theirs, ours) => {
    const v = (rec: Uint8Array): DataView => new DataView(rec.buffer, rec.byteOffset, rec.byteLength);
    for (let i = 0; i < (name.endsWith("SS") ? 1 : 4); i++) {
      const x = real(v(input).getUint32(REC.xmm1 + i * 4, true)), a = v(theirs).getUint32(REC.xmm0 + i * 4, true), b = v(ours).getUint32(REC.xmm0 + i * 4, true);
      if (a === b) continue;
      const exact = name.startsWith("RCP") ? 1 / x : 1 / Math.sqrt(x);
      assert.ok(Math.abs(real(b) - exact) <= 1.5 * 2 ** -12 * Math.abs(exact), `${name} of ${x}: ours ${real(b)}, the processor's ${real(a)}`);
    }
  });
});
