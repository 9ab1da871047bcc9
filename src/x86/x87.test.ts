/** Ours against the host's own unit, on seeded random states. `SEED=n ROUNDS=m` choose other and more cases; a failure shows operands and both answers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { askProcessor, Dice, operand, REC, SIGFPE, SIGILL } from "../../tools/fp-oracle/oracle.node.ts";
import { Views } from "../base/views.ts";
import { GuestFault } from "./fault.ts";
import { F32, F64, F80 } from "./softfloat.ts";
import { CPU, EFLAGS, VECTOR } from "./state.ts";
import { x87Form, x87ImageStored, x87Load, x87LoadImage, x87Reg, x87Store, x87StoreDone, x87StoreImage, x87Wait, type X87Host } from "./x87.ts";

const host: X87Host = { v: new Views(new SharedArrayBuffer(4096)), at: 64 };
const SEED = Number(process.env["SEED"] ?? 1), ROUNDS = Number(process.env["ROUNDS"] ?? 40);
const hex = (b: Uint8Array): string => Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");

/** Fill a record with a random state in which the instruction has a fair chance to do something. */
function makeCase(d: Dice, rec: Uint8Array, op: number, short = false): void {
  const v = new DataView(rec.buffer, rec.byteOffset, rec.byteLength), form = x87Form(op);
  rec.fill(0);
  const modrm = op & 0xff, memory = modrm < 0xc0;
  const insn = memory ? [0xd8 | op >> 8, modrm & 0x38 | 0x87, REC.mem & 0xff, 0, 0, 0] : [0xd8 | op >> 8, modrm];
  if (short) insn.unshift(0x66);
  rec[REC.length] = insn.length;
  rec.set(insn, REC.insn);
  v.setBigUint64(REC.rflags, BigInt(2 | d.u32() & EFLAGS.arith), true);
  const masks = d.below(2) ? 0x3f : d.below(64), pc = d.pick([0, 2, 3, 3]), rc = d.below(4);
  v.setUint32(REC.state, masks | 0x40 | pc << 8 | rc << 10, true);
  const top = d.below(8), pendable = d.below(16) === 0 ? 0x3f : masks;
  v.setUint32(REC.state + 4, d.below(64) & pendable | d.pick([0, 0x100, 0x4700, 0x200]) | top << 11, true);
  const empties = d.below(4) === 0 ? d.u32() & 0xff : 0, wants = /^(FLD|FILD|FBLD|FPTAN|FSINCOS|FXTRACT)/.test(form?.name ?? "");
  let tags = 0;
  for (let i = 0; i < 8; i++) {
    const physical = (top + i) & 7;
    if (empties >> i & 1 || (i === 7 && wants && d.below(8))) tags |= 3 << physical * 2;
    const bits = operand(d, F80);
    v.setBigUint64(REC.state + 28 + i * 10, BigInt.asUintN(64, bits), true);
    v.setUint16(REC.state + 36 + i * 10, Number(bits >> 64n), true);
  }
  v.setUint32(REC.state + 8, tags, true);
  const bits = form?.bytes === 10 && form.name === "FLD" ? operand(d, F80) : form?.bytes === 8 && (op & 0x300) !== 0x300 ? operand(d, F64) : operand(d, F32);
  v.setBigUint64(REC.mem, d.below(8) ? BigInt.asUintN(64, bits) : d.u64(), true);
  v.setUint16(REC.mem + 8, Number(bits >> 64n), true);
  if (form?.name === "FBLD") for (let i = 0; i < 10; i++) rec[REC.mem + i] = i === 9 ? d.below(2) << 7 : d.below(10) << 4 | d.below(10);
  if (form?.name === "FLDCW") v.setUint16(REC.mem, d.u32(), true);
  if (form?.kind === "loadImage") {
    rec.copyWithin(REC.mem, REC.state, REC.state + 108);
    const word = short ? 2 : 4;
    if (short) rec.copyWithin(REC.mem + 14, REC.mem + 28, REC.mem + 108);
    for (let i = 0; i < 3; i++) v.setUint16(REC.mem + i * word, d.u32(), true);
  }
}

/** Run the record on ours. @returns the record as the oracle would give it back */
function runOurs(input: Uint8Array, op: number, short = false): Uint8Array {
  const rec = input.slice(), v = new DataView(rec.buffer), form = x87Form(op);
  rec[0] = 0;
  CPU.fcw.set(host.v.dv, host.at, 0x37f); CPU.fsw.set(host.v.dv, host.at, 0);
  x87LoadImage(host, 0x520, rec.subarray(REC.state, REC.state + 108), true, true);
  const state = (): Uint8Array => x87StoreImage(host, 0x530, true, true);
  try {
    if (!form) { rec[0] = SIGILL; return rec; }
    if (form.kind === "reg") {
      const r = x87Reg(host, op, Number(v.getBigUint64(REC.rflags, true)));
      if (form.ax) v.setUint16(REC.rax, r, true);
      if (form.eflags === "write") v.setBigUint64(REC.rflags, v.getBigUint64(REC.rflags, true) & ~BigInt(EFLAGS.arith) | BigInt(r), true);
    } else if (form.kind === "load") {
      const lo = form.bytes === 2 ? BigInt(v.getUint16(REC.mem, true)) : form.bytes === 4 ? BigInt(v.getUint32(REC.mem, true)) : v.getBigUint64(REC.mem, true);
      x87Load(host, op, lo, v.getUint16(REC.mem + 8, true));
    } else if (form.kind === "store") {
      const r = x87Store(host, op);
      if (r.write) {
        const bytes = new DataView(new ArrayBuffer(10));
        bytes.setBigUint64(0, r.lo, true); bytes.setUint16(8, r.hi, true);
        rec.set(new Uint8Array(bytes.buffer, 0, form.bytes), REC.mem);
      }
      x87StoreDone(host, op, r);
    } else if (form.kind === "loadImage") x87LoadImage(host, op, rec.subarray(REC.mem, REC.mem + (short ? form.bytes : form.bytes32!)), !short, true);
    else {
      rec.set(x87StoreImage(host, op, !short, true), REC.mem);
      x87ImageStored(host, op);
    }
  } catch (e) {
    if (!(e instanceof GuestFault)) throw e;
    rec[0] = e.vector === 16 ? SIGFPE : SIGILL;
    return rec;
  }
  rec.set(state(), REC.state);
  return rec;
}
/** What is compared of a record: pointers and the reserved bits of the rflags apart. */
function visible(rec: Uint8Array, op: number, loose: boolean, short = false): string {
  const name = x87Form(op)?.name ?? "";
  if (rec[0]) return `signal ${rec[0]}`;
  const v = new DataView(rec.buffer, rec.byteOffset, rec.byteLength), w = (at: number): string => v.getUint16(at, true).toString(16).padStart(4, "0");
  const image = (at: number, bytes: number): string => {
    const fsw = v.getUint16(at + 4, true) & (loose ? ~0x0200 : 0xffff);
    const head = `cw=${w(at)} sw=${fsw.toString(16)} tw=${w(at + 8)}`;
    if (bytes < 108) return head;
    return `${head}${Array.from({ length: 8 }, (_, i) => ` st${i}=${w(at + 36 + i * 10)}:${v.getBigUint64(at + 28 + i * 10, true).toString(16).padStart(16, "0")}`).join("")}`;
  };
  const shortImage = (): string => `cw=${w(REC.mem)} sw=${w(REC.mem + 2)} tw=${w(REC.mem + 4)} st=${name === "FNSAVE" ? hex(rec.subarray(REC.mem + 14, REC.mem + 94)) : ""}`;
  const mem = short && x87Form(op)?.kind === "storeImage" ? shortImage() : name === "FNSTENV" ? image(REC.mem, 28) : name === "FNSAVE" ? image(REC.mem, 108) : hex(rec.subarray(REC.mem, REC.mem + 10));
  return `${image(REC.state, 108)} ax=${w(REC.rax)} fl=${(Number(v.getBigUint64(REC.rflags, true)) & EFLAGS.arith).toString(16)} mem=${mem}`;
}

const TRANSCENDENTAL = /^(F2XM1|FYL2X|FYL2XP1|FPTAN|FPATAN|FSIN|FCOS|FSINCOS)$/;
/** Give `ours` the processor's registers where the two differ by no more than one unit in the last place, and then its tags and underflow too. */
function forgive(ours: Uint8Array, theirs: Uint8Array): void {
  const a = new DataView(ours.buffer, ours.byteOffset), b = new DataView(theirs.buffer, theirs.byteOffset), UE = 16;
  const ordinal = (v: DataView, at: number): bigint => BigInt(v.getUint16(at + 8, true)) * (1n << 63n) + BigInt.asUintN(63, v.getBigUint64(at, true));
  for (let at = REC.state + 28; at < REC.state + 108; at += 10) {
    const apart = ordinal(a, at) - ordinal(b, at);
    if (apart !== 1n && apart !== -1n) continue;
    ours.set(theirs.subarray(at, at + 10), at);
    a.setUint16(REC.state + 8, b.getUint16(REC.state + 8, true), true);
    a.setUint16(REC.state + 4, a.getUint16(REC.state + 4, true) & ~UE | b.getUint16(REC.state + 4, true) & UE, true);
  }
}
function compareForms(ops: readonly number[], rounds: number, loose: boolean, short = false): void {
  const d = new Dice(SEED), records = new Uint8Array(ops.length * rounds * REC.sizeof);
  const at = (i: number): Uint8Array => records.subarray(i * REC.sizeof, (i + 1) * REC.sizeof);
  ops.forEach((op, i) => { for (let r = 0; r < rounds; r++) makeCase(d, at(i * rounds + r), op, short); });
  const theirs = askProcessor(records);
  const bad: string[] = [], count: Record<string, number> = {};
  ops.forEach((op, i) => {
    const name = `${x87Form(op)?.name} ${op.toString(16)}`;
    for (let r = 0; r < rounds; r++) {
      const n = i * rounds + r, input = at(n), their = theirs.subarray(n * REC.sizeof, (n + 1) * REC.sizeof), our = runOurs(input, op, short);
      if (loose) forgive(our, their);
      const want = visible(their, op, loose, short), got = visible(our, op, loose, short);
      if (want === got) continue;
      const mnemonic = name.split(" ")[0]!;
      count[mnemonic] = (count[mnemonic] ?? 0) + 1;
      if (count[mnemonic]! <= 2) {
        const input0 = input.slice(); input0[0] = 0;
        bad.push(`${name} round ${r}\n  in   ${visible(input0, op, false)}\n  cpu  ${want}\n  ours ${got}`);
      }
    }
  });
  assert.equal(bad.length, 0, `${JSON.stringify(count)}\n${bad.slice(0, 12).join("\n")}`);
}
const ALL = Array.from({ length: 0x800 }, (_, op) => op).filter((op) => (op & 0xff) >= 0xc0 || (op & 7) === 0 && (op & 0xc0) === 0);
const is = (op: number, kind: string): boolean => x87Form(op)?.kind === kind;

test("every register form that is exact leaves the state the processor leaves", () =>
  compareForms(ALL.filter((op) => is(op, "reg") && !TRANSCENDENTAL.test(x87Form(op)!.name)), ROUNDS, false));
test("every transcendental is within one unit of the processor's, with its flags", () =>
  compareForms(ALL.filter((op) => is(op, "reg") && TRANSCENDENTAL.test(x87Form(op)!.name)), ROUNDS * 8, true));
test("every load leaves the state the processor leaves", () => compareForms(ALL.filter((op) => is(op, "load")), ROUNDS * 8, false));
test("every store writes and leaves what the processor does", () => compareForms(ALL.filter((op) => is(op, "store")), ROUNDS * 8, false));
test("environment and state images are the processor's", () => compareForms(ALL.filter((op) => is(op, "loadImage") || is(op, "storeImage")), ROUNDS * 2, false));
test("the 16-bit forms of the images are the processor's", () => compareForms(ALL.filter((op) => is(op, "loadImage") || is(op, "storeImage")), ROUNDS * 2, false, true));
test("opcodes without a form are undefined on the processor too", () => compareForms(ALL.filter((op) => !x87Form(op)), 1, false));

const fresh = (): void => {
  CPU.fcw.set(host.v.dv, host.at, 0x37f); CPU.fsw.set(host.v.dv, host.at, 0); CPU.ftw.set(host.v.dv, host.at, 0);
};
const ONE64 = 0x3ff0000000000000n, FSTP_M64 = 0x518, FLD_M64 = 0x500, FDIV_M64 = 0x430;
const isFault = (vector: number) => (e: unknown): boolean => e instanceof GuestFault && e.vector === vector;

test("a store changes nothing before its memory write is known to have succeeded", () => {
  fresh();
  x87Load(host, FLD_M64, ONE64);
  const before = host.v.u8.slice(host.at, host.at + CPU.sizeof);
  const stored = x87Store(host, FSTP_M64);
  assert.equal(stored.lo, ONE64);
  assert.deepEqual(host.v.u8.slice(host.at, host.at + CPU.sizeof), before);
  x87StoreDone(host, FSTP_M64, stored);
  assert.equal(CPU.ftw.get(host.v.dv, host.at), 0);
});
test("an unmasked exception is raised by the next waiting instruction, and FNCLEX forgets it", () => {
  fresh();
  CPU.fcw.set(host.v.dv, host.at, 0x37b);
  x87Load(host, FLD_M64, ONE64);
  x87Load(host, FDIV_M64, 0n);
  assert.throws(() => x87Wait(host), isFault(VECTOR.MF));
  assert.throws(() => x87Reg(host, 0x1e0), isFault(VECTOR.MF));
  assert.equal(x87Reg(host, 0x7e0) & 0x8084, 0x8084);
  x87Reg(host, 0x3e2);
  x87Wait(host);
});
test("instruction and data pointers are kept, and control instructions leave them alone", () => {
  fresh();
  const { dv } = host.v;
  CPU.rip.set(dv, host.at, 0x123456789abcn);
  x87Load(host, FLD_M64, ONE64, 0, 0xffff800000001000n, 0x2b);
  CPU.rip.set(dv, host.at, 0x1000n);
  x87Load(host, 0x128, 0x37fn);
  assert.deepEqual([CPU.fip.get(dv, host.at), CPU.fdp.get(dv, host.at), CPU.fds.get(dv, host.at), CPU.fop.get(dv, host.at)], [0x123456789abcn, 0xffff800000001000n, 0x2b, FLD_M64]);
});
test("the real-mode images split the pointers as SDM Vol. 1 figures 8-10 and 8-12 draw them", () => {
  const { dv } = host.v;
  for (const [wide, words] of [[true, [0xffff037f, 0xffff0000, 0xffffffff, 0xffff5678, 0x01234500, 0xffff4321, 0x09876000]], [false, [0x37f, 0, 0xffff, 0x5678, 0x4500, 0x4321, 0x6000]]] as const) {
    fresh();
    CPU.fip.set(dv, host.at, 0x12345678n); CPU.fdp.set(dv, host.at, 0x98764321n); CPU.fop.set(dv, host.at, 0x500);
    const image = x87StoreImage(host, 0x130, wide, false), v = new DataView(image.buffer);
    assert.deepEqual(Array.from({ length: 7 }, (_, i) => wide ? v.getUint32(i * 4, true) : v.getUint16(i * 2, true)), words);
    x87LoadImage(host, 0x120, image, wide, false);
    assert.deepEqual([CPU.fip.get(dv, host.at), CPU.fdp.get(dv, host.at), CPU.fop.get(dv, host.at)], wide ? [0x12345678n, 0x98764321n, 0x500] : [0x45678n, 0x64321n, 0x500]);
  }
});
