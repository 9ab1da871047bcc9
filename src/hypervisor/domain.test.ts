import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { SharedInfo } from "../abi/xen.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import { MachineMemory } from "../memory/machine.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { Domain } from "./domain.ts";
import { Hypervisor } from "./hypervisor.ts";
import { HYPERVISOR_ROOT, VCPU, VPF } from "./objects.ts";
import { SCHED_ID } from "./sched_policy.ts";
import { Pool } from "./sched_unit.ts";
import { pvhContext } from "./context.ts";

const machine = () => new Hypervisor(MachineMemory.create({ bytes: 16 << 20, nrPcpus: 2, pcpuBytes: 1 << 20 }));

test("a domain destroyed gives back every frame it had", async () => {
  const hv = machine();
  const free = hv.mm.frames.nrFree;
  const d = Domain.create(hv, { maxVcpus: 3, maxPages: 1000 });
  assert.equal(d.domid, 1);
  d.populate(0, 500);
  d.populate(0xfeff8, 8);
  d.memory.write(0x1000, new Uint8Array([1, 2, 3]));
  d.vcpu(0)!.setContext(pvhContext(0x1000, 0x2000));
  assert.equal(d.totPages, 508);
  await d.destroy();
  assert.equal(hv.mm.frames.nrFree, free);
  assert.equal(hv.domain(1), null);
  assert.equal(Domain.create(hv, { maxVcpus: 1, maxPages: 1 }).domid, 2);
});
test("memory beyond the domain's or the machine's is refused and nothing is kept", () => {
  const hv = machine(), d = Domain.create(hv, { maxVcpus: 1, maxPages: 1 << 20 }), free = hv.mm.frames.nrFree;
  assert.throws(() => d.populate(0, free + 1), MachineMemoryExhausted);
  assert.throws(() => d.populate(0, (1 << 20) + 1), UserError);
  assert.equal(hv.mm.frames.nrFree, free);
  assert.equal(d.totPages, 0);
});
test("a vCPU is queued only when its domain is unpaused and it has registers", () => {
  const hv = machine(), d = Domain.create(hv, { maxVcpus: 2, maxPages: 10 });
  d.unpause();
  assert.equal(hv.scheduler.pick(0), null);
  d.vcpu(1)!.setContext(pvhContext(0, 0));
  const v = hv.scheduler.pick(0);
  assert.equal(v?.id, 1);
  assert.equal(v.onPcpu, 0);
  assert.equal(hv.scheduler.pick(1), null);
  hv.scheduler.leave(v, 0);
  assert.equal(hv.scheduler.pick(1)?.id, 1);
});
test("under null a vCPU that is put down while it waits gives back the pCPU that was its own", () => {
  const hv = machine(), d = Domain.create(hv, { maxVcpus: 1, maxPages: 10 }), { scheduler } = hv, pool = scheduler.pools[0]!, v = d.vcpu(0)!;
  pool.setSched(SCHED_ID.null);
  d.unpause();
  for (const putDown of [() => scheduler.putDown(v), () => { hv.or(VCPU.pauseFlags, v.at, VPF.down); assert.equal(scheduler.pick(0), null); }]) {
    v.setContext(pvhContext(0, 0));
    scheduler.leave(scheduler.pick(0)!, 0);
    assert.deepEqual([scheduler.unit(v.at).assigned, pool.assigned, pool.nrQueued], [0, 1, 1]);
    putDown();
    assert.deepEqual([scheduler.unit(v.at).assigned, pool.assigned, pool.nrQueued], [-1, 0, 0]);
  }
});
test("a wake that fails does not keep the run queues for itself", () => {
  const hv = machine(), d = Domain.create(hv, { maxVcpus: 1, maxPages: 10 }), v = d.vcpu(0)!, { scheduler } = hv, { append } = Pool.prototype;
  d.unpause();
  Pool.prototype.append = () => { throw new Error("broken"); };
  try { assert.throws(() => v.setContext(pvhContext(0, 0)), /broken/); } finally { Pool.prototype.append = append; }
  assert.equal(hv.load(HYPERVISOR_ROOT.runLock, hv.root), 0);        // or the next who wants it waits for ever
  scheduler.wake(v);
  assert.equal(scheduler.pick(0)?.id, 0);
});
test("the first reason for a domain's end stays", () => {
  const hv = machine(), d = Domain.create(hv, { maxVcpus: 1, maxPages: 10 });
  assert.equal(d.end, null);
  d.crash("Triple fault at 0x1000", 0);
  d.shutdown(SHUTDOWN.poweroff);
  assert.deepEqual(d.end, { code: SHUTDOWN.crash, text: "Triple fault at 0x1000" });
});
test("the wall clock of shared info is that of the machine's beginning", () => {
  const hv = machine(), d = Domain.create(hv, { maxVcpus: 1, maxPages: 10 });
  const sec = hv.get(SharedInfo.wc_sec, d.sharedInfo), now = hv.clock.now() / 1e9 + sec;
  assert.ok(Math.abs(now - Date.now() / 1000) < 2);
});
