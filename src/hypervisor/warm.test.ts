import assert from "node:assert/strict";
import { test } from "node:test";
import { MachineMemory } from "../memory/machine.ts";
import { makeInterpreter } from "../x86/engine.ts";
import { PCPU_BYTES } from "../x86/layout.ts";
import { gprAt, MODE } from "../x86/state.ts";
import { pvhContext } from "./context.ts";
import { Domain } from "./domain.ts";
import { Pcpu } from "./pcpu.ts";
import { codeHeats, codePlaces, isCodeMode, prepareCode } from "./warm.ts";

/** What a PVH guest begins in. */
const MODE_AT_ENTRY = MODE.code32 | MODE.noFxsr;
/** mov eax, n; add eax, 2; hlt with interrupts off, which ends the domain */
const program = (n: number): Uint8Array => Uint8Array.of(0xb8, n, 0, 0, 0, 0x83, 0xc0, 2, 0xf4);

test("code that a domain will run is decoded while a pCPU has nothing else to do, and what was written since is decoded anew", () => {
  const mm = MachineMemory.create({ bytes: 128 << 20, nrPcpus: 1, pcpuBytes: PCPU_BYTES }), p = new Pcpu(mm, 0, makeInterpreter), { hv } = p;
  const made = (): Domain => {
    const d = Domain.create(hv, { maxVcpus: 1, maxPages: 32 });
    d.populate(0, 16);
    d.memory.write(0x1000, program(40));
    return d;
  };
  const run = (d: Domain): bigint => {
    d.vcpu(0)!.setContext(pvhContext(0x1000, 0x2000));
    d.unpause();
    for (let i = 0; i < 100 && !d.end; i++) p.turn();
    assert.ok(d.end, "it ended");
    return hv.views.dv.getBigUint64(d.vcpu(0)!.context + gprAt(0), true);
  };
  const a = made(), free = mm.frames.nrFree;
  prepareCode(a, [{ gfn: 1, offset: 0, mode: MODE_AT_ENTRY }, { gfn: 99, offset: 0, mode: MODE_AT_ENTRY }, { gfn: 2 ** 30 - 1, offset: 5, mode: 2 }]);
  assert.equal(mm.frames.nrFree, free - 1);
  p.turn();
  assert.equal(mm.frames.nrFree, free);
  const decoded = p.engine.counters["records"]!;
  assert.ok(decoded >= 3, `${decoded} instructions are decoded`);
  assert.equal(run(a), 42n);
  assert.equal(p.engine.counters["records"], decoded);
  assert.deepEqual(codePlaces(a).filter(({ offset }) => offset === 0), [{ gfn: 1, offset: 0, mode: MODE_AT_ENTRY }]);

  const b = made();
  prepareCode(b, [{ gfn: 1, offset: 0, mode: MODE_AT_ENTRY }]);
  p.turn();
  b.memory.write(0x1000, program(60));
  assert.equal(run(b), 62n);
  // a list is replaced by another that comes before it is worked off
  const before = mm.frames.nrFree, many = Array.from({ length: 2000 }, (_, i) => ({ gfn: 1, offset: i, mode: MODE.code64 }));
  prepareCode(b, many);
  prepareCode(b, many.slice(0, 5));
  assert.equal(mm.frames.nrFree, before - 1);
  p.turn();
  assert.equal(mm.frames.nrFree, before);
});

test("decoding ahead goes on by small steps, and who wakes up meanwhile does not wait for the last", () => {
  const mm = MachineMemory.create({ bytes: 128 << 20, nrPcpus: 1, pcpuBytes: PCPU_BYTES }), p = new Pcpu(mm, 0, makeInterpreter), { hv } = p, d = Domain.create(hv, { maxVcpus: 1, maxPages: 32 });
  d.populate(0, 16);
  d.memory.write(0x1000, program(40));
  const before = mm.frames.nrFree;
  prepareCode(d, Array.from({ length: 1000 }, (_, i) => ({ gfn: 2, offset: i, mode: MODE.code64 })));
  assert.equal(mm.frames.nrFree, before - 2);
  p.turn();
  d.vcpu(0)!.setContext(pvhContext(0x1000, 0x2000));
  d.unpause();
  p.turn();
  assert.ok(d.end, "it ran to its end in the second turn");
  let turns = 2;
  for (; mm.frames.nrFree < before && turns < 1000; turns++) p.turn();
  assert.ok(turns > 20 && turns < 60, `${turns} turns`);
});

test("a mode that no code is decoded for is none", () => {
  assert.deepEqual([0, 1, 2, 3, MODE.user, MODE.code64 | MODE.ts, 0x100, -1].map(isCodeMode), [true, true, true, false, false, true, false, false]);
});

test("what was come to lately is told first, and a list is worked off from its beginning", () => {
  const mm = MachineMemory.create({ bytes: 128 << 20, nrPcpus: 1, pcpuBytes: PCPU_BYTES }), p = new Pcpu(mm, 0, makeInterpreter), { hv } = p, d = Domain.create(hv, { maxVcpus: 1, maxPages: 32 });
  d.populate(0, 16);
  // mov ecx, n; dec ecx; jnz back; hlt with interrupts off
  const run = (gfn: number, count: number): void => {
    d.memory.write(gfn * 4096, Uint8Array.of(0xb9, count, 0, 0, 0, 0x49, 0x75, 0xfd, 0xf4));
    d.vcpu(0)!.setContext(pvhContext(gfn * 4096, 0x2000));
    if (d.end) d.resume();
    else d.unpause();
    p.turn();
    assert.ok(d.end, "it ended");
  };
  run(1, 200);
  const before = codeHeats(hv);
  run(2, 3);
  const gfns = codePlaces(d, before).map(({ gfn }) => gfn);
  assert.ok(gfns.includes(1) && gfns[0] === 2 && gfns.lastIndexOf(2) < gfns.indexOf(1), gfns.join());
  const other = Domain.create(hv, { maxVcpus: 1, maxPages: 32 });
  other.populate(0, 16);
  other.memory.write(0x1000, program(40));
  prepareCode(other, [{ gfn: 1, offset: 0, mode: MODE_AT_ENTRY }, ...Array.from({ length: 1200 }, (_, i) => ({ gfn: 2, offset: i, mode: MODE.code64 }))]);
  p.turn();        // 32 places
  const decoded = p.engine.counters["records"]!;
  other.vcpu(0)!.setContext(pvhContext(0x1000, 0x2000));
  other.unpause();
  p.turn();
  assert.deepEqual([other.end !== null, p.engine.counters["records"]], [true, decoded]);
});
