import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { tinyKernel } from "../../test/tiny-kernel.ts";
import { HVM_PARAM } from "../abi/hvm/params.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { XenconsInterface } from "../abi/io/console.ts";
import { TestDisk } from "../drivers/block/fixture.ts";
import { VCPU } from "../hypervisor/objects.ts";
import type { Bridge } from "../network/bridge.ts";
import { checkConfig, type DomainConfig } from "./config.ts";
import { crashText } from "./crash.ts";
import { nodeHost } from "./host.node.ts";
import type { Host, HostWorker } from "./host.ts";
import { planDomain } from "./create.ts";
import { beginMachine, createMachine, type Machine } from "./machine.ts";
import type { Uplink } from "./networks.ts";

/** Threads that never run anything: the control domain's half alone is under test. */
const idleHost: Host = {
  name: "node", nrCpus: 2, soon: (task) => { setImmediate(task); },
  spawnPcpu: (index) => {
    const worker: HostWorker = { onMessage: () => {}, onDeath: () => {}, terminate: async () => {}, post: () => queueMicrotask(() => worker.onMessage({ op: "ready", index, buildMs: 1 })) };
    queueMicrotask(() => { setTimeout(() => worker.onMessage({ op: "stopped", index }), 50); });
    return worker;
  },
};

const config = (change: Partial<DomainConfig> = {}): DomainConfig => ({ name: "tiny", kernel: tinyKernel(), memoryMiB: 16, cmdline: "hello", ...change });
const freeFrames = (m: Machine): number => m.hv.mm.frames.nrFree;

test("whoever has a domain built while the threads start is told that there will be none", async () => {
  const host: Host = { ...idleHost, spawnPcpu: () => { throw new Error("no more threads"); } };
  await assert.rejects(createMachine({ host, memoryMiB: 64 }), /no more threads/);
  await using machine = beginMachine({ host, memoryMiB: 64 });
  await assert.rejects(machine.createDomain(config()), /no more threads/);
});
test("what a kernel was unpacked into is given back when the last domain that is built from it has it", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 128, nrDomains: 4 });
  const kernel = gzipSync(tinyKernel()), one = checkConfig(config({ kernel, name: "one" })), two = checkConfig(config({ kernel, name: "two" })), plan = await planDomain(one);
  const domains = await Promise.all([machine.createDomain(one), machine.createDomain(two)]);
  for (const d of domains) assert.equal(machine.hv.domain(d.domid)!.memory.read(0x100000, 1)[0], 0xf4);
  assert.equal(plan.kernel.unpacked!.byteLength, 0);
  const again = await machine.createDomain({ ...one, name: "again" });
  assert.equal(machine.hv.domain(again.domid)!.memory.read(0x100000, 1)[0], 0xf4);
});

test("a domain is built as libxl builds it, and gives all back when it is destroyed", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const before = freeFrames(machine);
  const domain = await machine.createDomain(config());
  const hd = machine.hv.domain(domain.domid)!;
  assert.equal(hd.memory.read(0x100000, 1)[0], 0xf4);
  assert.equal(hd.param(HVM_PARAM.CONSOLE_PFN), 0xfefffn);
  assert.equal(hd.param(HVM_PARAM.STORE_PFN), 0xfeffcn);
  assert.ok(hd.param(HVM_PARAM.CONSOLE_EVTCHN) > 0n && hd.param(HVM_PARAM.STORE_EVTCHN) > 0n);
  assert.equal(machine.xs.read(`/local/domain/${domain.domid}/name`), "tiny");
  assert.equal(machine.xs.read(`/local/domain/${domain.domid}/memory/target`), String(16 * 1024));
  await domain.destroy();
  await domain.destroy();
  assert.deepEqual(await domain.wait(), { reason: "destroyed" });
  assert.equal(machine.xs.read(`/local/domain/${domain.domid}/name`), undefined);
  assert.equal(freeFrames(machine), before);
});

test("pauses count, and one too few is refused", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const domain = await machine.createDomain(config()), hd = machine.hv.domain(domain.domid)!;
  assert.equal(hd.mayRun, true);
  await domain.pause();
  await domain.pause();
  domain.unpause();
  assert.deepEqual([domain.isPaused, hd.mayRun], [true, false]);
  domain.unpause();
  assert.deepEqual([domain.isPaused, hd.mayRun], [false, true]);
  assert.throws(() => domain.unpause(), /tiny is not paused/);
  await domain.destroy();
  await assert.rejects(domain.pause(), /tiny is gone and cannot be paused/);
  assert.throws(() => domain.unpause(), /tiny is gone/);
});

test("console bytes go both ways through the ring, and the readable ends with the domain", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const domain = await machine.createDomain(config()), hd = machine.hv.domain(domain.domid)!;
  const page = hd.memory.machineAddress(0xfefff000), { views } = machine.hv, C = XenconsInterface;
  const writer = domain.console.writable.getWriter();
  await writer.write(new TextEncoder().encode("in"));
  assert.equal(Atomics.load(views.u32, (page + C.in_prod.at) >>> 2), 2);
  assert.equal(views.u8[page + C.in.at], 0x69);
  views.u8.set(new TextEncoder().encode("out"), page + C.out.at);
  Atomics.store(views.u32, (page + C.out_prod.at) >>> 2, 3);
  hd.shutdown(SHUTDOWN.poweroff);
  assert.equal((await domain.wait()).reason, "poweroff");
  const text: string[] = [];
  for await (const bytes of domain.console.readable) text.push(new TextDecoder().decode(bytes));
  assert.equal(text.join(""), "out");
});

test("a crash is reported with registers and reason, and the machine goes on", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 96, nrDomains: 2 });
  const [a, b] = [await machine.createDomain(config({ name: "a" })), await machine.createDomain(config({ name: "b" }))];
  machine.hv.domain(a.domid)!.crash("triple fault", 0);
  const end = await a.wait();
  assert.equal(end.reason, "crash");
  assert.equal(end.crash?.reason, "triple fault");
  assert.equal(end.crash?.registers["rip"], "0000000000100000");
  assert.ok(machine.hv.domain(b.domid)!.mayRun);
  assert.equal(machine.report().domains.length, 2);
});

test("names are unique, bad images and too much memory are refused, and nothing is left behind", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const before = freeFrames(machine);
  await assert.rejects(machine.createDomain(config({ kernel: new Uint8Array(100) })), { name: "UserError" });
  await assert.rejects(machine.createDomain(config({ memoryMiB: 3000 })), { name: "UserError", message: /no 3000 MiB left/ });
  assert.equal(freeFrames(machine), before);
  const domain = await machine.createDomain(config());
  await assert.rejects(machine.createDomain(config()), { name: "UserError", message: /There is a domain named "tiny" already/ });
  await domain[Symbol.asyncDispose]();
  await machine.createDomain(config());
});

test("an abort signal destroys the domain", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const controller = new AbortController();
  const domain = await machine.createDomain(config(), { signal: controller.signal });
  controller.abort();
  assert.equal((await domain.wait()).reason, "destroyed");
  await assert.rejects(machine.createDomain(config(), { signal: controller.signal }), { name: "AbortError" });
});

test("a machine that is destroyed while a domain is built has none afterwards, and two of a name are not built", async () => {
  const machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 }), before = freeFrames(machine);
  const making = assert.rejects(machine.createDomain(config()), { name: "UserError", message: /The machine is destroyed/ });
  const second = assert.rejects(machine.createDomain(config()), { name: "UserError", message: /There is a domain named "tiny" already/ });
  await Promise.all([machine.destroy(), making, second]);
  assert.deepEqual([machine.domains, freeFrames(machine)], [[], before]);
});

test("a domain that is destroyed runs no further while its devices go, and takes no orders", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const domain = await machine.createDomain(config()), hd = machine.hv.domain(domain.domid)!, { control } = domain;
  assert.ok(hd.mayRun);
  control.setMemoryTarget(8);
  const gone = domain.destroy();
  assert.equal(hd.mayRun, false);
  await gone;
  assert.throws(() => domain.control.setMemoryTarget(8), { name: "UserError", message: /tiny is gone/ });
});

test("a domain that is destroyed before its vCPUs have stopped is not looked at afterwards", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const domain = await machine.createDomain(config()), hd = machine.hv.domain(domain.domid)!, vcpu = hd.vcpu(0)!, occasions: string[] = [];
  machine.xs.watch("@releaseDomain", (path) => occasions.push(path));
  machine.hv.store(VCPU.onPcpu, vcpu.at, 1);
  hd.shutdown(SHUTDOWN.poweroff);
  const polled = domain.poll(), gone = domain.destroy();
  machine.hv.store(VCPU.onPcpu, vcpu.at, 0);
  await Promise.all([polled, gone]);
  assert.deepEqual(await domain.wait(), { reason: "destroyed" });
  assert.deepEqual(occasions, ["@releaseDomain", "@releaseDomain"], "one for the watch, one for the end");
});

test("interfaces that are attached at once have numbers of their own; one that comes too late leaves nothing open", async () => {
  const open: string[] = [], held = Promise.withResolvers<void>();
  const uplink = (bridge: Bridge): Uplink => ({
    port: { name: `${bridge.name}-up`, takesGso: true, takesBlankChecksum: true, peer: null, receive: () => true, ready: () => {} }, close: () => {},
    forward: async (spec) => {
      open.push(spec);
      await held.promise;
      return () => { open.splice(open.indexOf(spec), 1); };
    },
  });
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1, uplink });
  const domain = await machine.createDomain(config()), mac = (n: number): string => `00:16:3e:00:00:0${n}`;
  assert.deepEqual(await Promise.all([1, 2].map((n) => domain.attachVif({ mac: mac(n) }))), [0, 1]);
  const late = assert.rejects(domain.attachVif({ mac: mac(3), forwards: ["tcp:1-1"] }), { name: "UserError", message: /is going/ });
  await new Promise((done) => setImmediate(done));
  assert.equal(open.length, 1);
  const gone = domain.destroy();
  held.resolve();
  await Promise.all([late, gone]);
  assert.deepEqual(open, []);
  assert.deepEqual(machine.networks.bridge("xenbr0").ports.map((p) => p.name), ["xenbr0-up"]);
});

test("a disk's name that is taken or is none is told of by name, and the disk that has it still hears of its size", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const domain = await machine.createDomain(config()), disk = new TestDisk(4096), sectors = `/local/domain/0/backend/vbd/${domain.domid}/51712/sectors`;
  domain.attachDisk({ vdev: "xvda", disk });
  assert.throws(() => domain.attachDisk({ vdev: "xvda", disk }), { name: "UserError", message: /has a disk xvda already/ });
  await disk.resize(8192);
  assert.equal(machine.xs.read(sectors), "16");
  for (const vdev of ["xvdb", "nonsense"]) await assert.rejects(domain.detachDisk(vdev), { name: "UserError", message: `tiny has no disk ${vdev}` });
  await domain.detachDisk("xvda");
  assert.equal(machine.xs.read(sectors), undefined);
});

test("who looks at a console is told of its end although nobody reads it to the end", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 64, nrDomains: 1 });
  const domain = await machine.createDomain(config()), seen = domain.views.view().getReader();
  await domain.console.readable.cancel();
  assert.equal((await seen.read()).done, true);
});

test("a machine that cannot be is refused", async () => {
  await assert.rejects(createMachine({ host: idleHost, memoryMiB: 9000 }), { name: "UserError", message: /more than a machine of 4 GiB holds/ });
  await assert.rejects(createMachine({ host: idleHost, pcpus: 0 }), { name: "UserError", message: /1 to 32 pCPUs/ });
  await assert.rejects(createMachine({ host: idleHost, trace: "everything" }), { name: "UserError", message: /"everything" is no class/ });
});

test("guests that halt, fault thrice or spin with interrupts off end as they should, and do their neighbours no harm", { timeout: 120_000 }, async () => {
  await using machine = await createMachine({ host: nodeHost(), memoryMiB: 96, nrDomains: 4, pcpus: 2 });
  const spinner = await machine.createDomain(config({ name: "spinner", kernel: tinyKernel([0xfa, 0xeb, 0xfe]) }));
  const halts = await machine.createDomain(config({ name: "halts", kernel: tinyKernel([0xfa, 0xf4]) }));
  assert.equal((await halts.wait()).reason, "poweroff");
  const faults = await machine.createDomain(config({ name: "faults", kernel: tinyKernel([0x90, 0x0f, 0x0b]) }));
  const end = await faults.wait();
  assert.equal(end.reason, "crash");
  assert.match(end.crash!.reason, /[Tt]riple fault at 0x100001/);
  assert.equal(end.crash!.registers["rip"], "0000000000100001");
  assert.match(crashText("faults", end.crash!), /^faults crashed: Triple fault at 0x100001 \(vCPU 0\)\n.* no hypercalls recorded$/s);
  await spinner.destroy();
  assert.equal((await spinner.wait()).reason, "destroyed");
  const again = await machine.createDomain(config({ name: "spinner", kernel: tinyKernel([0xf4]) }));
  assert.equal((await again.wait()).reason, "poweroff");
});

test("a thread of ours that dies takes its machine with it, in words", { timeout: 20_000 }, async () => {
  let worker: HostWorker | undefined;
  const frail: Host = { ...idleHost, spawnPcpu: (index) => (worker = idleHost.spawnPcpu(index)) };
  const machine = await createMachine({ host: frail, memoryMiB: 64, nrDomains: 1, pcpus: 1 });
  const domain = await machine.createDomain(config()), hd = machine.hv.domain(domain.domid)!;
  machine.hv.store(VCPU.onPcpu, hd.vcpu(0)!.at, 1);       // it ends on that thread, and never leaves it
  hd.shutdown(SHUTDOWN.poweroff);
  const polled = domain.poll();
  worker!.onMessage({ op: "failed", index: 0, message: "Assertion failed: x", stack: "" });
  await assert.rejects(domain.wait(), /pCPU 0 failed: Assertion failed: x/);
  await polled;
  await assert.rejects(machine.createDomain(config({ name: "b" })), /pCPU 0 failed/);
  await machine.destroy();
});
