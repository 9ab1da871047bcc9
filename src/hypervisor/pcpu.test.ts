import assert from "node:assert/strict";
import { test } from "node:test";
import { HVM_PARAM } from "../abi/hvm/params.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { MachineMemory } from "../memory/machine.ts";
import type { Engine } from "../x86/engine.ts";
import { CPU, EFLAGS, EXIT, gprAt } from "../x86/state.ts";
import { readConring } from "./conring.ts";
import { pvhContext } from "./context.ts";
import { Domain } from "./domain.ts";
import { DOMAIN, PCPU, VCPU, VPF } from "./objects.ts";
import { Pcpu } from "./pcpu.ts";
import { SCHED_ID } from "./sched_policy.ts";
import type { Vcpu } from "./vcpu.ts";

/** A pCPU whose engine does what the test says and keeps a diary. */
function machine(script: (p: Pcpu, v: Vcpu, slice: number) => number) {
  const diary: string[] = [];
  let slice = 0;
  const mm = MachineMemory.create({ bytes: 16 << 20, nrPcpus: 2, pcpuBytes: 1 << 20 });
  const p: Pcpu = new Pcpu(mm, 0, () => ({
    run: () => { const { v } = p.platform; diary.push(`run d${v.domain.domid}v${v.id}`); return script(p, v, slice++); },
    warmUp: () => false, contextChanged: () => { diary.push("switch"); }, flushTlb: () => { diary.push("flush"); }, forbidWrites: () => { diary.push("look"); return []; },
    readLinear: () => false, writeLinear: () => false, counters: {}, onDeliver: null, onStep: null,
  }) as unknown as Engine);
  const start = (maxVcpus = 1, flags: number = EFLAGS.IF): Domain => {
    const d = Domain.create(p.hv, { maxVcpus, maxPages: 10 });
    d.vcpu(0)!.setContext((dv, at) => { pvhContext(0x1000, 0x2000)(dv, at); CPU.eflags.set(dv, at, flags | EFLAGS.fixed); });
    d.unpause();
    return d;
  };
  return { p, hv: p.hv, diary, start };
}

test("two vCPUs that yield share a pCPU turn by turn, each with its own registers", () => {
  const { p, hv, diary, start } = machine((pcpu, v) => {
    const rax = pcpu.platform.cpu + gprAt(0), { dv } = pcpu.hv.views, before = dv.getBigUint64(rax, true);
    assert.equal(before % 10n, before === 0n ? 0n : BigInt(v.domain.domid));
    dv.setBigUint64(rax, before + 10n + (before === 0n ? BigInt(v.domain.domid) : 0n), true);
    return EXIT.yield;
  });
  const a = start(), b = start();
  for (let i = 0; i < 6; i++) p.turn();
  assert.deepEqual(diary.filter((x) => x !== "switch"), ["run d1v0", "run d2v0", "run d1v0", "run d2v0", "run d1v0", "run d2v0"]);
  for (const d of [a, b]) assert.equal(hv.views.dv.getBigUint64(d.vcpu(0)!.context + gprAt(0), true), 30n + BigInt(d.domid));
});
test("a vCPU that comes back to registers still in place costs no switch, one that was written to does", () => {
  const { p, hv, diary, start } = machine((pcpu, v, slice) => { if (slice === 0) pcpu.hv.or(VCPU.pauseFlags, v.at, 2); return EXIT.yield; });
  const d = start(), v = d.vcpu(0)!;
  p.turn();
  v.kick();
  p.turn();
  assert.deepEqual(diary, ["switch", "run d1v0", "run d1v0"]);
  assert.equal(hv.get(PCPU.nrSwitches, hv.pcpuAt(0)), 1);
  v.setContext((dv, at) => CPU.rip.set(dv, at, 0x42n));
  p.turn();
  assert.deepEqual(diary.slice(3), ["switch", "run d1v0"]);
});
test("HLT with interrupts off on the last vCPU switches the domain off; with them on it sleeps until an event", () => {
  const { p, hv, start } = machine(() => EXIT.halt), d = start(1, 0);
  p.turn();
  assert.equal(d.end?.code, SHUTDOWN.poweroff);
  const e = start(), v = e.vcpu(0)!;
  hv.store(DOMAIN.callbackVector, e.at, 0xf3);
  p.turn();
  assert.equal(v.pauseFlags, 2);
  assert.equal(hv.scheduler.pick(1), null);
  v.kick();
  assert.equal(hv.scheduler.pick(1), v);
});
test("a triple fault is a crash with its address, a reset with an empty IDT, and what the toolstack says it is", () => {
  const { p, hv, start } = machine(() => EXIT.tripleFault);
  const crash = start(), reset = start(), off = start();
  reset.vcpu(0)!.setContext((dv, at) => CPU.idtrLimit.set(dv, at, 0));
  off.setParam(HVM_PARAM.TRIPLE_FAULT_REASON, BigInt(SHUTDOWN.watchdog));
  for (let i = 0; i < 3; i++) p.turn();
  assert.deepEqual([crash.end, reset.end?.code, off.end?.code], [{ code: SHUTDOWN.crash, text: "Triple fault at 0x1000" }, SHUTDOWN.reboot, SHUTDOWN.watchdog]);
  assert.equal(hv.scheduler.pick(0), null);
});
test("a trap in translated code ends the domain whose code it was and no other, and dom0 is told where; another mistake ends the pCPU", () => {
  const { p, hv, start } = machine((_p, v) => { if (v.domain.domid === 1) throw new WebAssembly.RuntimeError("unreachable"); if (v.domain.domid === 3) throw new Error("not a trap"); return EXIT.yield; });
  const bad = start(), good = start();
  for (let i = 0; i < 4; i++) p.turn();
  assert.deepEqual(bad.end, { code: SHUTDOWN.crash, text: "The engine failed in what it made of the guest's code: unreachable" });
  assert.match(new TextDecoder().decode(readConring(bad)), /^The engine failed on pCPU 0: RuntimeError: unreachable\n +at /);
  assert.equal(good.end, null);
  assert.equal(hv.scheduler.pick(0)?.domain, good);
  start();
  assert.throws(() => p.turn(), /not a trap/);
});
test("a paused domain leaves the pCPU at the next look and stays off it", () => {
  const { p, hv, diary, start } = machine((_p, v) => { if (diary.length < 5) v.domain.pauseNoWait(); return EXIT.slice; });
  const d = start();
  p.turn();
  assert.ok(d.isQuiet);
  assert.equal(hv.scheduler.pick(0), null);
  d.unpause();
  assert.equal(hv.scheduler.pick(0)?.domain, d);
});
test("a vCPU that is stopped while a pCPU takes it does not run", (t) => {
  const { p, hv, diary, start } = machine(() => EXIT.yield), d = start(), { store } = hv;
  const stop = t.mock.method(hv, "store", (...args: Parameters<typeof store>) => {
    if (args[0] === VCPU.onPcpu && args[2] !== 0 && stop.mock.callCount() < 9) {
      d.pauseNoWait();
      stop.mock.restore();
    }
    store.apply(hv, args);
  });
  p.turn();
  assert.deepEqual([diary, d.isQuiet, hv.get(PCPU.given, hv.pcpuAt(0))], [[], true, 0]);
  d.unpause();
  p.turn();
  assert.deepEqual(diary, ["switch", "run d1v0"]);
});
test("a pCPU that changes vCPUs looks first whether the last one wrote to what became code, in domains of several", () => {
  for (const maxVcpus of [1, 2]) {
    const { p, hv, diary, start } = machine((pcpu, v, slice) => { if (slice === 0) pcpu.hv.add(DOMAIN.codeMarks, v.domain.at, 1); return EXIT.yield; });
    start(maxVcpus);
    start();
    p.turn();
    p.turn();
    assert.deepEqual(diary, ["switch", "run d1v0", ...maxVcpus > 1 ? ["look"] : [], "switch", "run d2v0"]);
    assert.equal(hv.get(PCPU.loadedSerial, hv.pcpuAt(0)), hv.domain(2)!.vcpu(0)!.serial);
  }
});
test("a pCPU that one guest never leaves still shows that it moves on, so that other domains can be destroyed", () => {
  const seen: number[] = [], { p, start } = machine((pcpu, v, slice) => {
    seen.push(pcpu.hv.load(PCPU.turns, pcpu.hv.pcpuAt(0)));
    if (slice === 3) v.domain.pauseNoWait();
    return EXIT.slice;
  });
  start();
  p.turn();
  assert.equal(new Set(seen).size, 4);
});
test("a vCPU that yielded is passed over once, not for as long as another wants to run", () => {
  const { hv, start } = machine(() => EXIT.slice), [a, b] = [start().vcpu(0)!, start().vcpu(0)!], { scheduler } = hv;
  assert.equal(scheduler.pick(0), a);
  scheduler.leave(a, 0, true);
  assert.equal(scheduler.unit(a.at).yielded, true);
  assert.equal(scheduler.pick(0), b);
  assert.equal(scheduler.unit(a.at).yielded, false);
  scheduler.unit(b.at).creditNs = scheduler.unit(a.at).creditNs - 8e6;
  scheduler.leave(b, 0);
  assert.equal(scheduler.pick(0), a);
});
test("a vCPU that wakes takes the place of one that has used more, once that one has run for the rate limit", () => {
  const { hv, start } = machine(() => EXIT.slice), [a, b] = [start().vcpu(0)!, start().vcpu(0)!], { scheduler } = hv;
  hv.or(VCPU.pauseFlags, b.at, 2);
  hv.store(PCPU.pool, hv.pcpuAt(1), 0);
  scheduler.pools[0]!.cpus = 1;
  assert.equal(scheduler.pick(0), a);
  const u = scheduler.unit(a.at), since = u.startedNs;
  u.creditNs = -50e6;
  b.kick();
  assert.ok(u.sliceEndNs >= since + 1e6 && u.sliceEndNs <= hv.clock.now() + 1e6, "its slice ends with the rate limit");
  u.sliceEndNs = 0;
  assert.equal(scheduler.goesOn(a, 0), false);
  scheduler.leave(a, 0);
  assert.equal(scheduler.pick(0), b);
});
test("under null a vCPU that goes off line leaves its pCPU to one that waits for one", () => {
  const { p, hv, diary, start } = machine((pcpu, v, slice) => {
    if (slice === 0) pcpu.hv.or(VCPU.pauseFlags, v.at, VPF.down);
    return EXIT.yield;
  }), pool = hv.scheduler.pools[0]!;
  pool.setSched(SCHED_ID.null);
  pool.cpus = 1;
  for (let i = 0; i < 2; i++) start();
  for (let i = 0; i < 2; i++) p.turn();
  assert.deepEqual(diary.filter((x) => x !== "switch"), ["run d1v0", "run d2v0"]);
});
test("a timer that is armed while an idle pCPU makes itself the one that watches for timers is watched for", (t) => {
  const { hv } = machine(() => EXIT.slice), { now } = performance, timeouts: (number | undefined)[] = [];
  let isArmed = false;
  t.mock.method(performance, "now", () => {
    if (!isArmed) {
      isArmed = true;
      hv.scheduler.notBefore(hv.clock.now() + 5e6);
    }
    return now.call(performance);
  });
  t.mock.method(Atomics, "wait", (_words: unknown, _word: unknown, _seen: unknown, ms?: number) => { timeouts.push(ms); return "timed-out"; });
  hv.scheduler.idle(0);
  assert.equal(timeouts.length <= 1 && (timeouts[0] ?? 0) <= 5, true, `it waits ${timeouts} ms`);
});
