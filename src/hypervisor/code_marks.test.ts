/** Frames that hold code for several pCPUs: who is told of a write, whenever it comes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { MachineMemory } from "../memory/machine.ts";
import type { Engine } from "../x86/engine.ts";
import { Domain } from "./domain.ts";
import { Hypervisor } from "./hypervisor.ts";
import { DOMAIN, PCPU, PCPU_REQUEST, VCPU } from "./objects.ts";
import { PvhPlatform } from "./platform-pvh.ts";

/** Two pCPUs with a vCPU each of one domain; `writable`: frames their TLBs let the guest write to unseen. */
function machine() {
  const mm = MachineMemory.create({ bytes: 16 << 20, nrPcpus: 2, pcpuBytes: 1 << 20 }), hvs = [new Hypervisor(mm), new Hypervisor(mm)] as const, d = Domain.create(hvs[0], { maxVcpus: 2, maxPages: 10 });
  d.populate(0, 1);
  const mfn = d.p2m.mfn(0), writable = [new Set<number>(), new Set<number>()] as const, flushed = [0, 0];
  const pcpus = hvs.map((hv, i) => {
    const p = new PvhPlatform(hv, i);
    p.guest = { flushTlb: () => { flushed[i]!++; writable[i]!.clear(); }, forbidWrites: (isForbidden: (frame: number) => boolean) => [...writable[i]!].filter((f) => isForbidden(f) && writable[i]!.delete(f)) } as unknown as Engine;
    p.load(hv.domain(d.domid)!.vcpu(i)!);
    hv.store(VCPU.onPcpu, d.vcpu(i)!.at, i + 1);
    hv.store(PCPU.vcpu, hv.pcpuAt(i), d.vcpu(i)!.at | 0);
    return p;
  });
  return { mm, mfn, d, a: pcpus[0]!, b: pcpus[1]!, writable, flushed, asked: (i: number): number => hvs[0].load(PCPU.request, hvs[0].pcpuAt(i)) };
}
test("a store to a frame is told, once made, to whoever decoded from it, and to nobody else", () => {
  const { mm, mfn, a, b, asked } = machine();
  a.code.mark(mfn);
  b.obey();
  const before = mm.frames.codeGen(mfn);
  b.code.wrote(mfn);
  assert.equal(mm.frames.codeGen(mfn), before, "not yet: the store is still to be made");
  b.code.settle();
  assert.equal(mm.frames.codeGen(mfn), before + 1);
  assert.ok(asked(0) & PCPU_REQUEST.flushTlb);
  assert.equal(asked(1) & PCPU_REQUEST.flushTlb, 0);
  b.code.wrote(mfn);
  b.code.settle();
  assert.equal(mm.frames.codeGen(mfn), before + 1, "nobody has decoded since");
});
test("a pCPU without a vCPU, which decodes ahead, touches the domain it served last no more", () => {
  const { mm, mfn, a, d, asked } = machine(), { hv } = a, marks = hv.load(DOMAIN.codeMarks, d.at);
  hv.store(PCPU.vcpu, hv.pcpuAt(0), 0);
  a.code.mark(mfn);
  assert.deepEqual([mm.frames.codeCpus(mfn), hv.load(DOMAIN.codeMarks, d.at), asked(1)], [1, marks, 0]);
});
test("a mark that is set anew while the write is told of stays", () => {
  const { mm, mfn, a, b } = machine(), { kick } = b.hv;
  a.code.mark(mfn);
  b.obey();
  b.hv.kick = (i, request) => { kick.call(b.hv, i, request); a.code.mark(mfn); };       // a looks at once, and decodes anew
  b.code.wrote(mfn);
  b.code.settle();
  assert.equal(mm.frames.codeCpus(mfn) & 1, 1);
});
test("a pCPU that could write to a frame before it became code counts as having written", () => {
  const { mm, mfn, a, b, writable, asked } = machine();
  writable[1].add(mfn);
  a.code.mark(mfn);
  assert.ok(asked(1) & PCPU_REQUEST.reschedule, "it is asked to look");
  const before = mm.frames.codeGen(mfn);
  b.obey();
  assert.deepEqual([[...writable[1]], mm.frames.codeGen(mfn)], [[], before + 1]);
  assert.ok(asked(0) & PCPU_REQUEST.flushTlb);
});
test("what was written unseen is told of though the TLB that knows of it is to be flushed", () => {
  const { mm, mfn, a, b, writable, flushed } = machine();
  writable[1].add(mfn);
  a.code.mark(mfn);
  const before = mm.frames.codeGen(mfn);
  b.hv.kick(1, PCPU_REQUEST.flushTlb);
  b.obey();
  assert.deepEqual([flushed[1], mm.frames.codeGen(mfn)], [1, before + 1]);
});
test("what was written unseen is told of before others hear of anything, whether the request to look has come or not", (t) => {
  const { mm, mfn, a, b, writable } = machine();
  writable[1].add(mfn);
  t.mock.method(a.hv, "kick", () => {});
  a.code.mark(mfn);
  const before = mm.frames.codeGen(mfn);
  b.mmioWrite(0x1000, 4, 0n);
  assert.equal(mm.frames.codeGen(mfn), before + 1);
});
