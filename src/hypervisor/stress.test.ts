import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { MachineMemory } from "../memory/machine.ts";
import { RUNSTATE } from "../abi/vcpu.ts";
import { pvhContext } from "./context.ts";
import { Dom0 } from "./dom0.ts";
import { Domain } from "./domain.ts";
import { bindIpi, bindVirq } from "./event_channel.ts";
import { Hypervisor } from "./hypervisor.ts";
import { DOMAIN, PCPU, PCPU_STATE, VCPU } from "./objects.ts";

const SEED = Number(process.env["DOMUS_SEED"] ?? 20071107);
const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

test("domains of several vCPUs come, work on three pCPUs at once, and go: every frame comes back", { timeout: 60_000 }, async (t) => {
  const hv = new Hypervisor(MachineMemory.create({ bytes: 32 << 20, nrPcpus: 3, pcpuBytes: 1 << 20 })), dom0 = new Dom0(hv);
  const workers = [0, 1, 2].map((index) => new Worker(new URL("./stress_worker.node.ts", import.meta.url), { workerData: { memory: hv.mm.memory, index, seed: SEED + index } }));
  const ended = workers.map((w) => new Promise<string>((done) => { w.once("message", done); w.once("error", (e) => done(String(e))); }));
  const early = Promise.race(ended).then((word) => { throw new Error(`seed ${SEED}: a pCPU ended: ${word}`); });
  early.catch(() => {});
  let rung = 0;
  const make = (): Domain => {
    const d = Domain.create(hv, { maxVcpus: 2, maxPages: 200 });
    d.populate(0, 120);
    for (const v of d.vcpus()) {
      assert.ok(bindVirq(d, 0, v.id) > 0);
      assert.ok(bindIpi(d, v.id) > 0);
    }
    dom0.onEvent(dom0.bind(d.domid, dom0.allocUnbound(d.domid)), () => { rung++; });
    hv.store(DOMAIN.callbackVector, d.at, 0xf3);
    for (const v of d.vcpus()) v.setContext(pvhContext(0, 0));
    d.unpause();
    return d;
  };
  while ([0, 1, 2].some((i) => hv.load(PCPU.state, hv.pcpuAt(i)) === PCPU_STATE.off)) await Promise.race([sleep(5), early]);
  const free = hv.mm.frames.nrFree, alive: Domain[] = [];
  t.after(async () => { hv.stop(); dom0.close(); await Promise.all(workers.map((w) => w.terminate())); });
  for (let round = 0; round < 40; round++) {
    alive.push(make());
    await Promise.race([sleep(15), early]);
    if (round % 5 === 0) for (let i = 0; i < 500; i++) { await alive[0]!.pause(); assert.ok(alive[0]!.isQuiet, `stop ${i} of round ${round}`); alive[0]!.unpause(); }
    if (alive.length > 3) {
      const d = alive.shift()!, hasTurns = (): boolean => [...d.vcpus()].every((v) => hv.get(VCPU.nrHypercalls, v.at) > 10);
      while (!hasTurns()) await Promise.race([sleep(15), early]);      // for as long as the test may take: how busy the host is, nobody knows
      const { state, time } = hv.scheduler.runstateOf(d.vcpu(0)!);
      assert.ok(state in Object.values(RUNSTATE) && time.every((ns) => ns >= 0));
      await Promise.race([d.destroy(), early]);
    }
  }
  for (const d of alive) await Promise.race([d.destroy(), early]);
  hv.stop();
  assert.deepEqual(await Promise.all(ended), ["stopped", "stopped", "stopped"]);
  assert.ok(rung > 100, `domain 0 was rung ${rung} times`);
  /* domain 0's ports have a bucket or two more than at first */
  assert.ok(free - hv.mm.frames.nrFree <= 2, `${free - hv.mm.frames.nrFree} frames are lost`);
});
