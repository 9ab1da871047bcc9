import assert from "node:assert/strict";
import { test } from "node:test";
import { differences } from "./compare.ts";
import { Batch, CASE, CODE, FX, NO_TRAP, RESULT } from "./format.ts";
import { loadForms } from "./forms.ts";
import { rowsFor, unexplained, VENDOR_ROWS } from "./vendors.ts";

const PF = 14, ORIGIN = 0x100, AMD = rowsFor("AuthenticAMD");

/** One case of this code; what is left of the differences after both results have been filled in. */
function left(code: readonly number[], fill: (expected: DataView, actual: DataView) => void, rows = AMD): string[] {
  const b = new Batch(1), at = b.at(0), results = [0, 1].map(() => new DataView(new ArrayBuffer(RESULT.sizeof))) as [DataView, DataView];
  CASE.codeLen.set(b.dv, at, code.length);
  CASE.codeOffset.set(b.dv, at, ORIGIN);
  b.bytes.set(code, at + CASE.code.at);
  b.names.push("case");
  b.leeway.push({ flags: 0, flagsAtFault: 0, fsw: 0, gprs: 0, gprsAtFault: 0, gprsLow: 0, memory: true, memoryAtFault: true, cr2: true, ulps: 0 });
  for (const r of results) { RESULT.trap.set(r, 0, NO_TRAP); RESULT.rip.set(r, 0, BigInt(CODE + ORIGIN + code.length)); }
  fill(...results);
  return unexplained(rows, b, 0, differences(b, 0, ...results), ...results).map((d) => d.what);
}
const faultAt = (r: DataView, offset: number): void => { RESULT.trap.set(r, 0, PF); RESULT.rip.set(r, 0, BigInt(CODE + ORIGIN + offset)); };
const fx = RESULT.fx.at, XMM1 = fx + FX.xmm + 16, DPPS = [0x66, 0x0f, 0x3a, 0x40, 0xca, 0xff], NOP = 0x90;

test("every row names forms under test, and none counts on the vendor that our engine follows", () => {
  const forms = [...loadForms(64), ...loadForms(32)].map((f) => f.name);
  for (const r of VENDOR_ROWS) assert.ok(forms.some((f) => r.forms.test(f)), String(r.forms));
  assert.deepEqual(rowsFor("GenuineIntel"), []);
});

test("of a NaN sign and payload are left out, and nothing else of the register", () => {
  const nan = (e: DataView, a: DataView): void => { e.setUint32(XMM1, 0xffc00001, true); a.setUint32(XMM1, 0x7fc00000, true); };
  assert.deepEqual(left(DPPS, nan), []);
  assert.deepEqual(left(DPPS, nan, []), ["xmm1"]);
  assert.deepEqual(left([0x0f, 0x58, 0xca], nan), ["xmm1"], "addps");
  assert.deepEqual(left(DPPS, (e, a) => { nan(e, a); a.setUint32(XMM1 + 4, 0x3f800000, true); }), ["xmm1"], "another lane");
  assert.deepEqual(left(DPPS, (e) => e.setUint32(XMM1, 0x7f800001, true)), ["xmm1"], "a signalling NaN");
  assert.deepEqual(left(DPPS, (e, a) => { nan(e, a); e.setUint32(fx + FX.mxcsr, 1, true); }), ["mxcsr"]);
});

test("a NaN flows on in a sequence, but not from what a fault has kept from running", () => {
  const nan = (e: DataView, a: DataView): void => { e.setUint32(RESULT.gpr.at, 1, true); a.setUint32(RESULT.gpr.at, 2, true); };
  assert.deepEqual(left([...DPPS, NOP], nan), []);
  assert.deepEqual(left([NOP, ...DPPS], nan), ["rax"]);
  assert.deepEqual(left([NOP, ...DPPS], (e, a) => { nan(e, a); faultAt(e, 0); faultAt(a, 0); }), ["rax"]);
});

test("flags of a repeated compare count at its end and not at its fault", () => {
  const code = [0xf3, 0xa6], zf = (e: DataView): void => RESULT.rflags.set(e, 0, 0x40n);
  assert.deepEqual(left(code, zf), ["flags"]);
  assert.deepEqual(left(code, (e, a) => { zf(e); faultAt(e, 0); faultAt(a, 0); }), []);
  assert.deepEqual(left(code, (e, a) => { RESULT.rflags.set(e, 0, 0x400n); faultAt(e, 0); faultAt(a, 0); }), ["flags"], "DF");
});

test("an MMX store's fault may leave another TOP with the same registers", () => {
  const code = [0x0f, 0xe7, 0x00], turned = (e: DataView, a: DataView): void => {
    faultAt(e, 0); faultAt(a, 0);
    e.setUint16(fx + FX.fsw, 2 << 11, true);
    for (let s = 0; s < 8; s++) { e.setUint8(fx + FX.st + 16 * s, (s + 2) & 7); a.setUint8(fx + FX.st + 16 * s, s); }
  };
  assert.deepEqual(left(code, turned), []);
  assert.equal(left(code, (e, a) => { turned(e, a); a.setUint8(fx + FX.st, 9); }).filter((w) => w.startsWith("st")).length, 8);
  assert.deepEqual(left(code, (e, a) => { turned(e, a); e.setUint8(fx + FX.ftw, 1); }), ["ftw (a bit a full register)"]);
});

test("an x87 store may fault where we leave an exception pending, and not where we store", () => {
  const code = [0xd9, 0x10], fault = (e: DataView): void => faultAt(e, 0);
  assert.deepEqual(left(code, fault), ["fault", "rip"]);
  assert.deepEqual(left(code, (e, a) => { fault(e); a.setUint16(fx + FX.fsw, 0x8081, true); }), []);
  assert.deepEqual(left(code, (e, a) => { fault(e); a.setUint16(fx + FX.fsw, 0x8881, true); }), ["fsw"], "popped");
});
