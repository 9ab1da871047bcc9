import assert from "node:assert/strict";
import { test } from "node:test";
import { tinyKernel } from "../../test/tiny-kernel.ts";
import { RUNSTATE } from "../abi/vcpu.ts";
import { XS } from "../abi/io/xs_wire.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { hypercallName } from "../hypervisor/names.ts";
import { PCPU, PCPU_STATE, VCPU } from "../hypervisor/objects.ts";
import { requestText } from "../xenstore/spoken.ts";
import type { Host, HostWorker } from "./host.ts";
import { createMachine, type Machine } from "./machine.ts";
import { Meter } from "./meter.ts";

/** Threads that never run anything: the test says what they have done. */
const idleHost: Host = {
  name: "node", nrCpus: 2, soon: (task) => { setImmediate(task); },
  spawnPcpu: (index) => {
    const stopped = setInterval(() => worker.onMessage({ op: "stopped", index }), 10);
    const worker: HostWorker = { onMessage: () => {}, onDeath: () => {}, terminate: async () => clearInterval(stopped), post: () => queueMicrotask(() => worker.onMessage({ op: "ready", index, buildMs: 1 })) };
    return worker;
  },
};
const turn = (m: Machine, pcpu: number, change: { idleMs?: number; state: number; turns?: number }): void => {
  const at = m.hv.pcpuAt(pcpu);
  m.hv.store(PCPU.state, at, change.state);
  m.hv.set(PCPU.idleMs, at, m.hv.get(PCPU.idleMs, at) + (change.idleMs ?? 0));
  m.hv.add(PCPU.turns, at, change.turns ?? 0);
};
const pass = (): Promise<void> => new Promise((done) => { setTimeout(done, 20); });

test("a pCPU that sleeps through has no load, one that runs has all, and sleep that is written down late is not counted twice", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1, pcpus: 2 });
  const meter = new Meter(machine);
  turn(machine, 0, { state: PCPU_STATE.idle });
  turn(machine, 1, { state: PCPU_STATE.running, turns: 1 });
  const first = meter.sample();
  assert.deepEqual(first.pcpuLoad, [0, 0]);
  await pass();
  turn(machine, 1, { state: PCPU_STATE.running, turns: 1 });
  const second = meter.sample();
  assert.deepEqual(second.pcpuLoad, [0, 1]);
  await pass();
  const sleptMs = second.atMs - first.atMs;
  turn(machine, 0, { state: PCPU_STATE.running, turns: 1, idleMs: sleptMs });       // it slept through the first stretch, and ran since
  assert.deepEqual(meter.sample().pcpuLoad, [1, 1]);
  assert.ok(first.freeMiB <= first.totalMiB && first.totalMiB >= 64);
});
test("a domain's processor time and its share of the time between two looks", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1, pcpus: 1 });
  const domain = await machine.createDomain({ name: "tiny", kernel: tinyKernel(), memoryMiB: 16 }), meter = new Meter(machine), { hv } = machine, v = hv.domain(domain.domid)!.vcpu(0)!;
  const before = meter.sample().domains[0]!;
  assert.deepEqual([before.name, before.load, before.memoryMiB > 16], ["tiny", 0, true]);
  hv.views.f64[((v.at + VCPU.runstateTime.at) >>> 3) + RUNSTATE.running]! += 1e6 * 1000;
  hv.store(VCPU.runstate, v.at, RUNSTATE.blocked);
  await pass();
  const after = meter.sample().domains[0]!;
  assert.equal(after.cpuNs - before.cpuNs, 1e9);
  assert.ok(after.load > 0);
  assert.equal(after.activity, "blocked");
});
test("a trace is read from a number on, and what was overwritten is left out", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1, pcpus: 1, trace: "event" });
  const { trace } = machine.hv, from = trace.nrWritten;
  assert.ok(trace.on & TRACE_CLASS.event);
  for (let i = 0; i < 5; i++) trace.emit(TRACE.evtchnSend, 1, 0, i, 0, 7);
  assert.deepEqual(trace.read(from + 2, 100).map((e) => [e.nr, e.cls, e.text]), [2, 3, 4].map((i) => [from + i, "event", `send port ${i} to d0 port 7`]));
  assert.deepEqual(trace.read(from, 2).map((e) => e.args[0]), [3, 4]);
  for (let i = 0; i < 40_000; i++) trace.emit(TRACE.timerFired, 1, 0, i);
  const all = trace.read(0, 1e9);
  assert.ok(all.length < 40_000 && all[0]!.cls === "timer" && all.at(-1)!.args[0] === 39_999);
});
test("hypercalls and the store's requests are said in words", async () => {
  assert.equal(hypercallName(29, 1), "sched_op block");
  assert.equal(hypercallName(12, 7 | (5 << 6)), "memory_op add_to_physmap");
  assert.equal(hypercallName(15), "set_timer_op");
  assert.equal(hypercallName(61, 3), "hypercall 61");
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1, pcpus: 1 });
  const said: string[] = [];
  machine.store.onRequest = (domid, request, reply) => { said.push(`d${domid} ${requestText(request, reply)}`); };
  machine.xs.write("/a/b", "1\x07");
  machine.xs.read("/a/b");
  machine.xs.read("/no");
  assert.deepEqual(said, ["d0 write /a/b 1·", "d0 read /a/b = 1·", "d0 read /no: ENOENT"]);
  assert.equal(requestText({ type: 99, req_id: 0, tx_id: 0, payload: new Uint8Array(0) }, { type: XS.ERROR, req_id: 0, tx_id: 0, payload: new TextEncoder().encode("ENOSYS\0") }), "operation 99: ENOSYS");
});
