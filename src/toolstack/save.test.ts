import assert from "node:assert/strict";
import { test } from "node:test";
import { tinyKernel } from "../../test/tiny-kernel.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { UserError } from "../base/errors.ts";
import { collector, streamOf } from "../migration/fixture.ts";
import { domainPath } from "../xenstore/path.ts";
import type { DomainConfig } from "./config.ts";
import type { Domain } from "./domain.ts";
import type { Host, HostWorker } from "./host.ts";
import { createMachine, type Machine } from "./machine.ts";
import { type Link, MigrationInDoubt, receiveDomain, sendDomain, type SendOptions, standingOf } from "./migrate.ts";
import { restoreDomain, saveDomain } from "./save.ts";

/** A thread that never runs anything, and ends when its machine listens for its end: the control domain's half alone is under test. */
class IdleWorker implements HostWorker {
  #onMessage: HostWorker["onMessage"] = () => {};
  #nrListeners = 0;
  onDeath: HostWorker["onDeath"] = () => {};
  readonly #index: number;
  constructor(index: number) { this.#index = index; }
  get onMessage(): HostWorker["onMessage"] { return this.#onMessage; }
  set onMessage(told) {
    this.#onMessage = told;
    if (++this.#nrListeners === 2) queueMicrotask(() => told({ op: "stopped", index: this.#index }));
  }
  post(): void { queueMicrotask(() => this.#onMessage({ op: "ready", index: this.#index, buildMs: 1 })); }
  async terminate(): Promise<void> {}
}
const idleHost: Host = { name: "node", nrCpus: 2, soon: (task) => { setImmediate(task); }, spawnPcpu: (index) => new IdleWorker(index) };
const make = (memoryMiB = 48): Promise<Machine> => createMachine({ host: idleHost, memoryMiB, nrDomains: 1, pcpus: 1 });
const shape = { name: "tiny", memoryMiB: 16 }, open = async (): Promise<DomainConfig> => ({ ...shape, kernel: new Uint8Array(0) });
/** A domain whose guest does as asked, by the test's hand: nothing runs it. */
async function obedient(machine: Machine): Promise<Domain> {
  const domain = await machine.createDomain({ ...shape, kernel: tinyKernel() }), path = `${domainPath(domain.domid)}/control/shutdown`;
  obey(machine, domain, path);
  return domain;
}
function obey(machine: Machine, domain: Domain, path: string): void {
  machine.xs.watch(path, () => {
    if (machine.xs.read(path) !== "suspend") return;
    machine.xs.write(path, "");
    machine.hv.domain(domain.domid)!.shutdown(SHUTDOWN.suspend);
  });
}
function links(): [Link, Link] {
  const there = new TransformStream<Uint8Array, Uint8Array>(), back = new TransformStream<Uint8Array, Uint8Array>();
  return [{ readable: back.readable, writable: there.writable }, { readable: there.readable, writable: back.writable }];
}
const send = (domain: Domain, link: Link, o: Partial<SendOptions> = {}): Promise<unknown> => sendDomain(domain, link, { configJson: "{}", live: true, ...o });

test("a domain comes out of its file with its memory, its nodes and its limits; rax says that it was saved, or that nothing came of it", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), hd = one.hv.domain(domain.domid)!, base = domainPath(domain.domid), out = collector();
  hd.memory.write(0x500000, new TextEncoder().encode("kept"));
  one.xs.write(`${base}/data/token`, "of the guest's");
  domain.control.setMemoryTarget(15);
  await saveDomain(domain, collector().stream, { configJson: "{}", leaveRunning: true, atInstant: async () => assert.equal(hd.mayRun, false) });
  assert.equal(hd.hv.views.u64[hd.vcpu(0)!.context >>> 3], 1n);
  assert.deepEqual([hd.isShutDown, domain.isPaused], [false, false]);
  hd.hv.views.u64[hd.vcpu(0)!.context >>> 3] = 0n;
  await saveDomain(domain, out.stream, { configJson: "{}" });
  assert.equal((await domain.wait()).reason, "suspend");
  const again = await restoreDomain(two, streamOf(out.bytes()), { open, paused: true }), there = two.hv.domain(again.domid)!, its = domainPath(again.domid);
  assert.equal(new TextDecoder().decode(there.memory.read(0x500000, 4)), "kept");
  assert.equal(there.memory.read(0x100000, 1)[0], 0xf4);
  assert.deepEqual([two.xs.read(`${its}/data/token`), two.xs.read(`${its}/memory/target`), two.xs.read(`${its}/memory/static-max`)], ["of the guest's", String(15 * 1024), String(16 * 1024)]);
  assert.deepEqual([again.isPaused, there.mayRun, there.hv.views.u64[there.vcpu(0)!.context >>> 3]], [true, false, 0n]);
  assert.equal(there.maxPages, 15 * 256 + (hd.maxPages - 15 * 256));
  again.unpause();
  assert.equal(there.mayRun, true);
});

test("a domain that is destroyed while it is saved is not saved; one that finds no room is not restored, and leaves nothing", async () => {
  await using one = await make();
  await using small = await make(4);
  let domain = await obedient(one);
  await assert.rejects(saveDomain(domain, collector().stream, { configJson: "{}", progress: (p) => { if (p.phase === "memory") void domain.destroy(); } }), /tiny was destroyed meanwhile/);
  assert.deepEqual(one.domains, []);
  domain = await obedient(one);
  const out = collector(), free = small.hv.mm.frames.nrFree;
  await saveDomain(domain, out.stream, { configJson: "{}" });
  await assert.rejects(restoreDomain(small, streamOf(out.bytes()), { open }), (e: Error) => e instanceof UserError && /The machine has not enough memory left for the domain/.test(e.message));
  assert.equal(small.hv.mm.frames.nrFree, free);
  const cancel = new AbortController();
  await assert.rejects(restoreDomain(one, streamOf(out.bytes()), { open, signal: cancel.signal, progress: () => cancel.abort(new Error("never mind")) }), /never mind/);
  assert.deepEqual(one.domains, []);
});

test("disks are handed over between the last page and the other end's opening them, and taken back by who keeps the domain", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), order: string[] = [];
  const handOver = { release: async () => { order.push("release"); }, retake: async () => { order.push("retake"); } };
  let [a, b] = links(), gone = receiveDomain(two, b, { open: async () => { order.push("open"); throw new UserError("The disk is not there"); } });
  gone.catch(() => {});
  await assert.rejects(send(domain, a, { handOver }), /tiny is not moved and runs on here: The disk is not there/);
  assert.deepEqual(order.splice(0), ["release", "open", "retake"]);
  assert.equal(one.hv.domain(domain.domid)!.mayRun, true);
  [a, b] = links();
  gone = receiveDomain(two, b, { open: async () => { order.push("open"); return open(); } });
  await send(domain, a, { handOver });
  assert.equal((await gone).name, "tiny");
  assert.deepEqual(order, ["release", "open"]);
});

test("what is written down is written before what follows from it, and a sender that cannot write keeps the domain", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), notes: string[] = [];
  let [a, b] = links(), gone = receiveDomain(two, b, { open });
  const kept = gone.then(() => assert.fail("it is not given"), (e: unknown) => e);
  await assert.rejects(send(domain, a, { journal: { note: (_, standing) => { notes.push(`sender ${standing}`); if (standing === "given") throw new Error("EIO"); } } }), /tiny is not moved and runs on here: EIO/);
  assert.deepEqual(notes.splice(0), ["sender given", "sender kept"]);
  const doubt = await kept;
  assert.ok(doubt instanceof MigrationInDoubt);
  assert.match(doubt.message, /^tiny: the link broke while it was handed over; it stands still here until the other end is asked \(migration [0-9a-f]{32}\)$/);
  assert.equal(await doubt.settle(standingOf(one, doubt.migration)), null);
  assert.deepEqual(two.domains, []);
  [a, b] = links();
  const journal = (side: string) => ({ note: (_: string, standing: string) => { notes.push(`${side} ${standing} ${two.domains.some((d) => two.hv.domain(d.domid)!.mayRun)}`); } });
  gone = receiveDomain(two, b, { open, journal: journal("receiver") });
  await send(domain, a, { journal: journal("sender") });
  await gone;
  assert.deepEqual(notes, ["sender given false", "receiver running false"]);
});
