import assert from "node:assert/strict";
import { test } from "node:test";
import { tinyKernel } from "../../test/tiny-kernel.ts";
import { UserError } from "../base/errors.ts";
import { PCPU } from "../hypervisor/objects.ts";
import type { DomainConfig } from "./config.ts";
import type { VcpuInfo } from "./cpus.ts";
import { nodeHost } from "./host.node.ts";
import { createMachine, type Machine } from "./machine.ts";
import { fromXl } from "./config.ts";
import { parseXlCfg } from "./xlcfg.ts";

/** Counts in memory for ever: inc dword [0x9000]; jmp back (32-bit code). */
const BUSY = tinyKernel([0xff, 0x05, 0x00, 0x90, 0, 0, 0xeb, 0xf8]);
const config = (name: string, change: Partial<DomainConfig> = {}): DomainConfig => ({ name, kernel: BUSY, memoryMiB: 4, ...change });
const start = (pcpus: number): Promise<Machine> => createMachine({ host: nodeHost(), pcpus, memoryMiB: 64, nrDomains: 6 });
/** Wait for something to be so; a slow computer takes its time. */
async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const end = performance.now() + 30_000; !isSo();) {
    assert.ok(performance.now() < end, `not within 30 s: ${what}`);
    await new Promise((done) => setTimeout(done, 2));
  }
}
const fault = (f: () => unknown): string => { try { f(); } catch (e) { if (e instanceof UserError) return e.message; throw e; } return assert.fail("nothing was refused"); };
const only = (m: Machine, domid: number): VcpuInfo => m.cpus.vcpus(domid)[0]!;

test("domains run where affinity and cpupools let them, and go elsewhere when these change", async () => {
  await using m = await start(3);
  const a = await m.createDomain(config("a", { cpus: [[1]] })), b = await m.createDomain(config("b", { cpus: [[1]], cpusSoft: [[0, 1]] }));
  await until("both ran", () => m.cpus.vcpus().every((v) => v.timeNs > 1e6));
  assert.deepEqual([only(m, a.domid).hard, only(m, b.domid).soft, only(m, a.domid).name], [[1], [0, 1], "a"]);
  for (let i = 0; i < 50; i++) { for (const v of m.cpus.vcpus()) assert.ok(v.pcpu === null || v.pcpu === 1, `on pCPU ${v.pcpu}`); await new Promise((done) => setTimeout(done, 1)); }
  m.cpus.pin(b.domid, "all", [2], null);
  await until("b moved to pCPU 2 and a runs alone on 1", () => only(m, b.domid).pcpu === 2 && only(m, a.domid).pcpu === 1);
  m.cpus.removeCpu(0, 0);
  const pool = m.cpus.createPool("fast", "credit", [0]);
  assert.deepEqual(m.cpus.pools().map((p) => [p.id, p.name, p.sched, p.pcpus]), [[0, "Pool-0", "credit2", [1, 2]], [1, "fast", "credit", [0]]]);
  await m.cpus.movePool(a.domid, pool.id);
  await until("a runs in the other pool, where nothing was said of its pCPUs", () => only(m, a.domid).pcpu === 0 && only(m, a.domid).hard === "all");
  assert.deepEqual(m.cpus.pools()[1]!.domains, [a.domid]);
  assert.match(fault(() => m.cpus.destroyPool(pool.id)), /has domains in it/);
  assert.match(fault(() => m.cpus.removeCpu(pool.id, 0)), /the last of fast/);
  await a.destroy();
  m.cpus.destroyPool(pool.id);
  m.cpus.addCpu(0, 0);
  assert.deepEqual(m.cpus.pools().map((p) => p.pcpus), [[0, 1, 2]]);
  m.cpus.removeCpu(0, 1);
  assert.deepEqual(only(m, b.domid).hard, [2]);
  m.cpus.removeCpu(0, 2);
  await until("b runs on the last one: the one it was bound to is not there", () => only(m, b.domid).pcpu === 0 && only(m, b.domid).hard === "all");
});

test("a pCPU taken out of its pool is idle, and gets work again in another", async () => {
  await using m = await start(2);
  const a = await m.createDomain(config("a", { vcpus: 1 }));
  await m.createDomain(config("b"));
  await until("both run", () => m.cpus.vcpus().every((v) => v.pcpu !== null));
  m.cpus.removeCpu(0, 0);
  await until("nothing runs there", () => m.hv.get(PCPU.given, m.hv.pcpuAt(0)) === 0);
  const before = m.cpus.vcpus().map((v) => v.timeNs);
  await until("both go on, in turns, on the other", () => m.cpus.vcpus().every((v, i) => v.timeNs > before[i]! + 20e6));
  assert.equal(m.hv.get(PCPU.given, m.hv.pcpuAt(0)), 0);
  m.cpus.createPool("null", "null", [0]);
  await m.cpus.movePool(a.domid, 1);
  await until("a has it for itself", () => only(m, a.domid).pcpu === 0);
  assert.deepEqual(m.cpus.sched(a.domid), { sched: "null", params: [] });
});

test("scheduler parameters are kept per scheduler, checked, and admitted by rtds only where its pCPUs suffice", async () => {
  await using m = await start(2);
  const a = await m.createDomain(config("a", { vcpus: 2, sched: { weight: 512, cap: 150 } }));
  assert.deepEqual(m.cpus.sched(a.domid), { sched: "credit2", params: [{ weight: 512, cap: 150 }] });
  m.cpus.setSched(a.domid, { weight: 100, cap: 0 });
  assert.deepEqual(m.cpus.sched(a.domid).params, [{ weight: 100, cap: 0 }]);
  assert.match(fault(() => m.cpus.setSched(a.domid, { weight: 0 })), /1 to 65535, not 0/);
  assert.match(fault(() => m.cpus.setSched(a.domid, { cap: 201 })), /more than the 2 vCPUs/);
  assert.match(fault(() => m.cpus.setSched(a.domid, { periodUs: 1000 })), /credit2, which has no periodUs/);
  assert.match(fault(() => m.cpus.setSched(99, {})), /There is no domain 99/);
  m.cpus.removeCpu(0, 1);
  m.cpus.createPool("rt", "rtds", [1]);
  await m.cpus.movePool(a.domid, 1);
  m.cpus.setSched(a.domid, { vcpu: 0, periodUs: 20_000, budgetUs: 19_000, extratime: false });
  assert.deepEqual(m.cpus.sched(a.domid).params, [{ vcpu: 0, periodUs: 20_000, budgetUs: 19_000, extratime: false }, { vcpu: 1, periodUs: 10_000, budgetUs: 4_000, extratime: true }]);
  assert.match(fault(() => m.cpus.setSched(a.domid, { vcpu: 0, budgetUs: 30_000 })), /does not fit into a period of 20000 us/);
  const b = await m.createDomain(config("b", { pool: "rt" }));
  assert.match(fault(() => m.cpus.setSched(b.domid, { budgetUs: 9_000 })), /^rt cannot keep that: its vCPUs would reserve 1\.85 pCPUs, and it has 1;/);
  await assert.rejects(m.createDomain(config("c", { pool: "none" })), /There is no cpupool "none"; there are "Pool-0", "rt"/);
  await assert.rejects(m.createDomain(config("c", { cpus: [[7]] })), /There is no pCPU 7: this machine has 2/);
  m.cpus.setPoolParams(0, { ratelimitUs: 2000 });
  assert.equal(m.cpus.pools()[0]!.ratelimitUs, 2000);
  assert.match(fault(() => m.cpus.setPoolParams(1, { ratelimitUs: 2000 })), /rtds, which has no rate limit/);
  assert.match(fault(() => m.cpus.setOnline(a.domid, 3)), /1 to 2 vCPUs on line/);
  m.cpus.renamePool(0, "first");
  await m.createDomain(config("d"));
  assert.deepEqual(m.cpus.pools()[0]!.domains.length, 1);
  m.cpus.setOnline(a.domid, 1);
  assert.deepEqual([0, 1].map((i) => m.xs.read(`/local/domain/${a.domid}/cpu/${i}/availability`)), ["online", "offline"]);
});

test("xl.cfg's keys about processors have xl's meaning", () => {
  const load = (text: string) => fromXl(parseXlCfg(`name="a"\ntype="pvh"\nkernel="k"\nmemory=64\n${text}`, "f"), "f");
  const { config: c } = load(`vcpus=2\nmaxvcpus=3\npool="fast"\ncpus="0-3,^1"\ncpus_soft=["all", 2]\ncpu_weight=512\ncap=50\nperiod=10000\nbudget="4000"\nextratime=1`).domain;
  assert.deepEqual([c.vcpus, c.maxvcpus, c.pool, c.cpus, c.cpusSoft, c.sched], [2, 3, "fast", [[0, 2, 3], [0, 2, 3], [0, 2, 3]], ["all", [2]], { weight: 512, cap: 50, periodUs: 10000, budgetUs: 4000, extratime: true }]);
  for (const [text, wanted] of [[`cpus="3-1"`, /f:5:6: cpus: "3-1" ends before it begins/], [`cpus="0,^0"`, /No pCPU is left/], [`cpus="node:1"`, /node 0, which is the only one/], ["cpu_weight=0", /A weight is/], ["cap=101", /101 % are more than 1 vCPUs can use/],
    ["vcpus=4\nmaxvcpus=2", /maxvcpus: 2 are less than vcpus' 4/], ["extratime=2", /0 or 1/], [`cpus="40"`, /no pCPU 40/]] as const) assert.match(fault(() => load(text)), wanted);
});
