import assert from "node:assert/strict";
import { test } from "node:test";
import { MachineMemory } from "../memory/machine.ts";
import type { Engine } from "../x86/engine.ts";
import { CPU, EFLAGS, EXIT } from "../x86/state.ts";
import { pvhContext } from "./context.ts";
import { Domain } from "./domain.ts";
import { PCPU } from "./objects.ts";
import { Pcpu } from "./pcpu.ts";

/** A profiled pCPU with a domain on it. `run` plays the engine: it gets a budget and says how many jumps it took and why it left. */
function machine(run: (budget: number, p: Pcpu) => { jumps: number; exit: number }, profile = true) {
  const budgets: number[] = [], mm = MachineMemory.create({ bytes: 16 << 20, nrPcpus: 1, pcpuBytes: 1 << 20 });
  const engine = {
    run: (budget: number) => {
      budgets.push(budget);
      const { jumps, exit } = run(budget, p), { dv } = p.hv.views;
      CPU.budget.set(dv, p.platform.cpu, budget - jumps);
      return exit;
    },
    warmUp: () => false, contextChanged: () => {}, flushTlb: () => {}, readLinear: () => false, writeLinear: () => false, counters: { misses: 7 }, onDeliver: null, onStep: null,
  } as unknown as Engine;
  const p: Pcpu = new Pcpu(mm, 0, () => engine, { profile }), d = Domain.create(p.hv, { maxVcpus: 1, maxPages: 10 });
  d.vcpu(0)!.setContext(pvhContext(0x1000, 0x2000));
  d.unpause();
  const at = (rip: bigint, cpl: number, isMasked: boolean): void => {
    const { dv } = p.hv.views, { cpu } = p.platform;
    CPU.rip.set(dv, cpu, rip); CPU.cpl.set(dv, cpu, cpl); CPU.eflags.set(dv, cpu, isMasked ? EFLAGS.fixed : EFLAGS.fixed | EFLAGS.IF);
  };
  return { p, d, budgets, engine, at, samples: () => p.profile!.domains.flatMap((t) => t.places).reduce((n, x) => n + x.nrShort + x.nrLong, 0) };
}

test("samples come every so many jumps, whatever slices are made of them, with rip, privilege and interrupt flag", () => {
  const m = machine((budget) => {
    m.at(0xffff_ffff_8100_0000n, 0, m.budgets.length % 2 === 1);
    return { jumps: Math.min(budget + 1, 150), exit: budget < 150 ? EXIT.slice : EXIT.yield };
  });
  while (m.budgets.length < 20_000) m.p.turn();
  const [tally] = m.p.profile!.domains, n = m.samples();
  assert.ok(n > 2000 && n < 4000, `${n} samples of about three million jumps`);
  assert.deepEqual(tally!.places.map((x) => [x.rip, x.cpl, x.isMasked]).sort((a, b) => Number(a[2]) - Number(b[2])), [[-0x7f000000, 0, false], [-0x7f000000, 0, true]]);
  assert.ok(tally!.places.every((x) => Math.abs(x.nrShort - x.nrLong) < n / 8), "short and long runs are timed alike often");
  assert.equal(tally!.domid, m.d.domid);
  assert.deepEqual(m.p.profile!.counters, { misses: 7 });
});

test("a slice that somebody cuts short ends at once, and is no sample", () => {
  const m = machine((budget, p) => {
    if (m.budgets.length % 2) p.hv.kick(0);
    else {
      p.platform.sliceEndMs = 0;
      p.platform.hypercall();
    }
    return { jumps: budget + 1, exit: m.budgets.length < 20 ? EXIT.slice : EXIT.yield };
  });
  CPU.cr0.set(m.p.hv.views.dv, m.d.vcpu(0)!.context, 1n);
  m.p.turn();
  assert.equal(m.samples(), 0);
  assert.equal(m.p.hv.get(PCPU.nrSlices, m.p.hv.pcpuAt(0)), 20);
});

test("more places than there is room for are counted", () => {
  let rip = 0;
  const m = machine((budget) => {
    m.at(BigInt(rip += 16), 3, false);
    return { jumps: budget + 1, exit: m.budgets.length % 1000 ? EXIT.slice : EXIT.yield };
  });
  while (m.budgets.length < 150_000) m.p.turn();
  const [tally] = m.p.profile!.domains;
  assert.equal(tally!.places.length, 65536);
  assert.equal(m.samples(), 65536);
  assert.ok(tally!.nrLost > 1000, `${tally!.nrLost}`);
});

test("hypercalls, exceptions and interrupts are counted for the domain that runs", () => {
  const m = machine((_budget, p) => {
    m.engine.onDeliver!(14, 0x80000006, false);
    m.engine.onDeliver!(13, 0, false);
    m.engine.onDeliver!(0xf3, -1, true);
    const { dv } = p.hv.views, rax = p.platform.cpu + CPU.gpr.at;
    for (const nr of [0, 24, 0xffffffda, 0x80000000]) {
      dv.setBigUint64(rax, BigInt(nr), true);
      p.platform.hypercall();
    }
    return { jumps: 1, exit: EXIT.yield };
  });
  CPU.cr0.set(m.p.hv.views.dv, m.d.vcpu(0)!.context, 1n);
  m.p.turn();
  m.p.turn();
  const [tally] = m.p.profile!.domains;
  assert.deepEqual(tally!.exceptions, [{ vector: 14, errorCode: 6, count: 2 }, { vector: 13, errorCode: -1, count: 2 }]);
  assert.deepEqual(tally!.interrupts, [{ vector: 0xf3, count: 2 }]);
  assert.deepEqual(tally!.hypercalls.map(({ nr, count }) => [nr, count]), [[0, 2], [24, 2], [64, 4]]);
});

test("a pCPU that is not profiled runs its slices whole", () => {
  const m = machine(() => ({ jumps: 10, exit: EXIT.yield }), false);
  m.p.turn();
  assert.equal(m.p.profile, null);
  assert.equal(m.budgets.length, 1);
  assert.ok(m.budgets[0]! >= 200);
});
