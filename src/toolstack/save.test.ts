import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { tinyKernel } from "../../test/tiny-kernel.ts";
import { XS } from "../abi/io/xs_wire.ts";
import { SHUTDOWN } from "../abi/sched.ts";
import { DOMID } from "../abi/xen.ts";
import { UserError } from "../base/errors.ts";
import { Domain as HvDomain } from "../hypervisor/domain.ts";
import { DOMAIN } from "../hypervisor/objects.ts";
import { P2M_RW, P2M_TYPE } from "../memory/p2m.ts";
import { collector, streamOf } from "../migration/fixture.ts";
import { CPU } from "../x86/state.ts";
import { domainPath } from "../xenstore/path.ts";
import { Transaction } from "../xenstore/tree.ts";
import { strings } from "../xenstore/wire.ts";
import type { DomainConfig } from "./config.ts";
import type { Domain } from "./domain.ts";
import { idleHost, obey } from "./fixture.ts";
import { createMachine, type Machine } from "./machine.ts";
import { type Link, MigrationInDoubt, receiveDomain, receiveOrGiveBack, sendDomain, type SendOptions, standingOf } from "./migrate.ts";
import { restoreDomain, saveDomain } from "./save.ts";

const make = (memoryMiB = 48): Promise<Machine> => createMachine({ host: idleHost, memoryMiB, nrDomains: 1, pcpus: 1 });
const shape = { name: "tiny", memoryMiB: 16 }, open = async (): Promise<DomainConfig> => ({ ...shape, kernel: new Uint8Array(0) });
/** A domain whose guest does as asked, by the test's hand: nothing runs it. */
async function obedient(machine: Machine): Promise<Domain> {
  const domain = await machine.createDomain({ ...shape, kernel: tinyKernel() }), path = `${domainPath(domain.domid)}/control/shutdown`;
  obey(machine, domain, path);
  return domain;
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

test("a guest that knows no suspend is saved as it is, and goes on under its number, which is to be free", async () => {
  await using one = await make();
  await one.createDomain({ name: "first", memoryMiB: 4, kernel: tinyKernel() });
  const domain = await one.createDomain({ ...shape, kernel: tinyKernel() }), { domid } = domain, hd = one.hv.domain(domid)!, out = collector(), path = `${domainPath(domid)}/data/token`;
  hd.memory.write(0x500000, new TextEncoder().encode("kept"));
  one.xs.write(path, "of the guest's");
  const { isAsItIs } = await saveDomain(domain, collector().stream, { configJson: "{}", leavePaused: true });
  assert.deepEqual([isAsItIs, domain.isPaused, hd.mayRun, hd.end], [true, true, false, null]);
  domain.unpause();
  await assert.rejects(saveDomain(domain, new WritableStream({ write: () => { throw new Error("full"); } }), { configJson: "{}" }), /tiny cannot be saved: full; it runs on/);
  assert.equal(hd.mayRun, true);
  await saveDomain(domain, out.stream, { configJson: "{}" });
  assert.equal((await domain.wait()).reason, "suspend");
  const again = await restoreDomain(one, streamOf(out.bytes()), { open }), there = one.hv.domain(again.domid)!;
  assert.deepEqual([again.domid, one.xs.read(path), there.mayRun], [domid, "of the guest's", true]);
  assert.equal(new TextDecoder().decode(there.memory.read(0x500000, 4)), "kept");
  await assert.rejects(restoreDomain(one, streamOf(out.bytes()), { open: () => assert.fail("nothing is opened for one that cannot be") }), new RegExp(`goes on as domain ${domid}; there is a domain ${domid} here: end that first`));
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
  const damaged = new Uint8Array(out.bytes()), at = Buffer.from(damaged).indexOf("{}");
  damaged[at] = 0x5b;
  await assert.rejects(restoreDomain(one, streamOf(damaged), { open: () => assert.fail("what is damaged is not opened") }), /configuration at the stream's beginning is damaged/);
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
  assert.deepEqual(notes, ["receiver ready false", "sender given false", "receiver running false"]);
});

test("a frame that the guest gave back while it moves is not read any more: it may be another's", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), hd = one.hv.domain(domain.domid)!, { frames } = one.hv.mm, secret = "of another domain";
  const dirty = Array.from({ length: 300 }, (_, i) => 0x400 + i), last = dirty.at(-1)!;
  const [a, b] = links(), seen: string[] = [];
  const tap = new TransformStream<Uint8Array, Uint8Array>({ transform: (bytes, out) => { seen.push(Buffer.from(bytes).toString("latin1")); out.enqueue(bytes); } });
  void tap.readable.pipeTo(a.writable).catch(() => {});
  const gone = receiveDomain(two, b, { open });
  let isWritten = false, isGiven = false;
  await send(domain, { readable: a.readable, writable: tap.writable }, {
    downtimeMs: 0, maxRounds: 2, progress: (p) => {
      if (p.phase === "round" && p.round === 0 && !isWritten) {
        isWritten = true;
        for (const gfn of dirty) hd.memory.write(gfn * 4096, Uint8Array.of(1));
      }
      if (p.phase !== "round" || p.round !== 1 || isGiven) return;
      isGiven = true;
      frames.put(hd.takePage(last) >>> 12);
      frames.allocEach(1, 0, (mfn) => one.hv.views.u8.set(new TextEncoder().encode(secret), mfn * 4096));
    },
  });
  assert.equal(isGiven, true);
  assert.equal(two.hv.domain((await gone).domid)!.p2m.lookup(last), 0);
  assert.equal(seen.some((s) => s.includes(secret)), false);
});

test("where Xen lent a frame in place of one that was sent, that one is said to be gone", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), hd = one.hv.domain(domain.domid)!, { frames } = one.hv.mm, gfn = 0x480, [a, b] = links(), gone = receiveDomain(two, b, { open });
  let isLent = false;
  hd.memory.write(gfn * 4096, Uint8Array.of(1));
  await send(domain, a, { progress: (p) => {
    if (p.phase !== "suspend" || isLent) return;
    isLent = true;
    frames.put(hd.takePage(gfn) >>> 12);
    frames.get(hd.sharedInfo >>> 12, hd.domid);
    hd.p2m.set(gfn, hd.sharedInfo >>> 12, P2M_RW | P2M_TYPE.xen);
  } });
  assert.deepEqual([isLent, two.hv.domain((await gone).domid)!.p2m.lookup(gfn)], [true, 0]);
});

test("a domain that is destroyed while it moves is read and written no more", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), hd = one.hv.domain(domain.domid)!, [a, b] = links(), gone = receiveDomain(two, b, { open });
  gone.catch(() => {});
  let nrPages = 0, destroyed: Promise<void> | null = null;
  await assert.rejects(send(domain, a, { progress: (p) => { if (destroyed) nrPages++; else if (p.phase === "round" && p.donePages > 0) destroyed = domain.destroy().then(() => { one.hv.views.u8.fill(0xff, hd.at, hd.at + 4096); }); } }), /tiny was destroyed while it was moved/);
  await destroyed;
  assert.equal(nrPages, 0);
  await assert.rejects(gone);
  assert.deepEqual(two.domains, []);
});

test("who cannot have its disks back stands still, and says so", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), [a, b] = links(), gone = receiveDomain(two, b, { open: async () => { throw new UserError("no room"); } });
  gone.catch(() => {});
  await assert.rejects(send(domain, a, { handOver: { release: async () => {}, retake: async () => { throw new UserError("root.qcow2 is locked"); } } }), /^UserError: tiny is not moved, and cannot go on here: root.qcow2 is locked; it stands still$/);
  assert.equal(one.hv.domain(domain.domid)!.mayRun, false);
});

test("a receiver that cannot write down that the domain runs, or has lost it, says so: the sender keeps it", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), notes: string[] = [];
  let [a, b] = links(), gone = receiveDomain(two, b, { open, journal: { note: (_, standing) => { notes.push(standing); if (standing === "running") throw new Error("ENOSPC"); } } });
  gone.catch(() => {});
  await assert.rejects(send(domain, a), /tiny is not moved and runs on here: The other end could not start it: tiny cannot be started: it cannot be written down that it runs here: ENOSPC/);
  await assert.rejects(gone, /ENOSPC/);
  assert.deepEqual([notes, two.domains, one.hv.domain(domain.domid)!.mayRun], [["ready", "running", "dropped"], [], true]);
  [a, b] = links();
  gone = receiveDomain(two, b, { open });
  gone.catch(() => {});
  await assert.rejects(send(domain, a, { journal: { note: async (_, standing) => { if (standing === "given") await two.domains[0]!.destroy(); } } }), /The other end could not start it: tiny was destroyed meanwhile/);
  await assert.rejects(gone, /destroyed meanwhile/);
  assert.equal(one.hv.domain(domain.domid)!.mayRun, true);
});

test("when the link breaks before the domain is handed over and nobody can ask the sender, the receiver drops it and the sender, who asks, keeps it", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), [a, b] = links(), end = new AbortController();
  const cut = new TransformStream<Uint8Array, Uint8Array>({ transform: (bytes, out) => {
    if (!Buffer.from(bytes).toString("latin1").includes("domain is yours")) return out.enqueue(bytes);
    end.abort(new Error("cut"));
    throw new Error("cut");
  } });
  void cut.readable.pipeTo(a.writable).catch(() => {});
  const answers = new TransformStream<Uint8Array, Uint8Array>();
  void a.readable.pipeTo(answers.writable, { signal: end.signal }).catch(() => {});
  const gone = receiveOrGiveBack(two, b, { open });
  gone.catch(() => {});
  const doubt = await send(domain, { readable: answers.readable, writable: cut.writable }).then(() => assert.fail("it is not moved"), (e: unknown) => e);
  assert.ok(doubt instanceof MigrationInDoubt);
  await assert.rejects(gone, /dropped here, and its sender keeps it/);
  assert.deepEqual(two.domains, []);
  assert.equal(await doubt.settle(standingOf(two, doubt.migration)), domain);
  assert.equal(one.hv.domain(domain.domid)!.mayRun, true);
});

test("a domain that is being moved cannot be moved or saved a second time, and keeps its devices: its log of written pages is one mover's", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await obedient(one), hd = one.hv.domain(domain.domid)!, [a, b] = links(), [c] = links(), gone = receiveDomain(two, b, { open });
  let second: Promise<unknown> | null = null;
  const wasOn: number[] = [];
  const refused: unknown[] = [], out = collector();
  await send(domain, a, { progress: (p) => {
    if (p.phase !== "round" || second) return;
    for (const change of [() => domain.control.setMemoryTarget(12), () => domain.control.setMemoryMax(20)]) assert.throws(change, /memory: The domain is being saved or moved/);
    for (const change of [saveDomain(domain, out.stream, { configJson: "{}" }), domain.attachVif({ mac: "00:16:3e:00:00:01", bridge: "xenbr0" } as never), domain.detachDisk("xvda")]) change.catch((e: unknown) => { refused.push(String(e)); });
    second = send(domain, c, { signal: AbortSignal.timeout(1) }).catch((e: unknown) => { wasOn.push(hd.hv.load(DOMAIN.logDirty, hd.at)); return e; });
  } });
  assert.match(String(await second), /tiny is being saved or moved already/);
  assert.deepEqual(wasOn, [1]);
  assert.deepEqual(refused.sort(), ["UserError: tiny is being saved or moved already", ...Array.from({ length: 2 }, () => "UserError: tiny is being saved or moved; its devices stay as they are until that is over")]);
  await gone;
});

test("what is remembered of a migration for the other end keeps nothing of the domain", async () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  await using one = await make();
  await using two = await make();
  const gone = await (async () => {
    const domain = await one.createDomain({ ...shape, kernel: tinyKernel() }), [a, b] = links(), gone = receiveDomain(two, b, { open });
    using _watch = obey(one, domain, `${domainPath(domain.domid)}/control/shutdown`);
    await send(domain, a);
    await gone;
    return new WeakRef(domain);
  })();
  for (let i = 0; i < 100 && gone.deref(); i++) {
    await new Promise((done) => setTimeout(done, 5));
    gc();
  }
  assert.equal(gone.deref(), undefined);
});

test("a request to suspend that the guest took up and never followed does not stand in the way of the next, which it may follow late", async () => {
  await using one = await make();
  const domain = await one.createDomain({ ...shape, kernel: tinyKernel() }), hd = one.hv.domain(domain.domid)!, path = `${domainPath(domain.domid)}/control/shutdown`;
  const given = new AbortController(), save = (signal?: AbortSignal) => saveDomain(domain, collector().stream, { configJson: "{}", leaveRunning: true, ...(signal ? { signal } : {}) });
  one.xs.write(path.replace("shutdown", "feature-suspend"), "1");
  let nrAsked = 0;
  using _watch = one.xs.watch(path, () => {
    if (one.xs.read(path) !== "suspend") return;
    nrAsked++;
    if (nrAsked === 1) { one.xs.write(path, ""); setImmediate(() => given.abort(new Error("never mind"))); }
    else hd.shutdown(SHUTDOWN.suspend);        // what the first asked for
  });
  await assert.rejects(save(given.signal), /never mind/);
  await save();
  assert.deepEqual([nrAsked, one.xs.read(path), hd.isShutDown, domain.suspension], [2, "", false, null]);
});

test("vCPUs on line that are not the first ones are said to be those, where it is restored", async () => {
  await using one = await make();
  const domain = await one.createDomain({ ...shape, maxvcpus: 3, kernel: tinyKernel() }), out = collector();
  obey(one, domain, `${domainPath(domain.domid)}/control/shutdown`);
  const hd = one.hv.domain(domain.domid)!, { context } = hd.vcpu(0)!;
  hd.vcpu(2)!.setContext((_dv, at) => { one.hv.views.u8.copyWithin(at, context, context + CPU.sizeof); });
  await saveDomain(domain, out.stream, { configJson: "{}" });
  const again = await restoreDomain(one, streamOf(out.bytes()), { open, paused: true });
  assert.deepEqual([0, 1, 2].map((i) => one.xs.read(`${domainPath(again.domid)}/cpu/${i}/availability`)), ["online", "offline", "online"]);
});

test("a domain that can neither be saved nor go on is said to stand still, and the file is given up", async () => {
  await using one = await make();
  const domain = await obedient(one);
  let isAborted = false;
  domain.devices.goOn = () => Promise.reject(new Error("no rings"));
  await assert.rejects(saveDomain(domain, new WritableStream({ abort: () => { isAborted = true; } }), { configJson: "{}", atInstant: () => Promise.reject(new Error("no snapshot")) }), /^UserError: tiny cannot be saved: no snapshot; and it cannot go on: no rings; it stands still$/);
  assert.equal(isAborted, true);
});

test("a guest that is not asked moves as it is: its nodes, watches and number go along, and what is there hears of changes", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await one.createDomain({ ...shape, kernel: tinyKernel() }), base = domainPath(domain.domid), [a, b] = links();
  one.xs.write(`${base}/data/mine`, "é\u0001");
  one.xs.setPerms(`${base}/data/mine`, [`n${domain.domid}`, "r0", "r77"]);
  one.xs.remove(`${base}/device/suspend`);
  const c = one.store.connectionOf(domain.domid)!, ask = (type: number, ...words: string[]): void => { assert.notEqual(one.store.request(c, { type, req_id: 0, tx_id: 0, payload: strings(...words) }).reply.type, XS.ERROR); };
  ask(XS.WATCH, "data/mine", "relative");
  ask(XS.WATCH, `${base}/memory/target`, "absolute");
  const received = receiveDomain(two, b, { open }), report = await sendDomain(domain, a, { configJson: "{}", live: true }), there = await received;
  assert.deepEqual([report.isAsItIs, there.domid, (await domain.wait()).reason], [true, domain.domid, "suspend"]);
  assert.deepEqual(two.xs.readBytes(`${base}/data/mine`), new TextEncoder().encode("é\u0001"));
  assert.deepEqual(two.xs.perms(`${base}/data/mine`), [`n${domain.domid}`, "r0"], "what another domain may, no other domain may here");
  assert.equal(two.xs.read(`${base}/device/suspend`), undefined);
  const its = two.store.connectionOf(domain.domid)!;
  assert.deepEqual(two.store.watches.ownedBy(its).map(({ path, token, prefix }) => [path, token, prefix]), [[`${base}/data/mine`, "relative", `${base}/`], [`${base}/memory/target`, "absolute", ""]]);
  assert.equal(its.nrWatches, 2);
  await there.destroy();
});
test("where its number is taken, or it is in the middle of something in the store, it suspends itself", async () => {
  await using one = await make();
  await using two = await make();
  for (const hinder of ["number", "transaction", "asked"] as const) {
    const domain = await obedient(one), [a, b] = links(), other = hinder === "number" ? HvDomain.create(two.hv, { domid: domain.domid, maxVcpus: 1, maxPages: 0 }) : null;
    if (hinder === "transaction") one.store.connectionOf(domain.domid)!.transactions.set(1, new Transaction(one.store.tree));
    const received = receiveDomain(two, b, { open }), report = await sendDomain(domain, a, { configJson: "{}", live: true, suspends: hinder === "asked" }), there = await received;
    assert.deepEqual([report.isAsItIs, there.domid === domain.domid], [false, hinder !== "number"], hinder);
    await there.destroy();
    await other?.destroy();
  }
});
test("refused at the last moment, a guest that was not asked goes on where it is, timers and all", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await one.createDomain({ ...shape, kernel: tinyKernel() }), [a, b] = links(), hd = one.hv.domain(domain.domid)!, received = receiveDomain(two, b, { open: async () => { throw new UserError("no such disk"); } });
  received.catch(() => {});
  hd.vcpu(0)!.setDeadline("singleshot", one.hv.clock.now() + 1e9);
  await assert.rejects(send(domain, a), /tiny is not moved and runs on here: .*no such disk/);
  assert.deepEqual([hd.mayRun, domain.isPaused, domain.isLeaving, two.domains.length], [true, false, false, 0]);
  assert.ok(one.hv.scheduler.nextDeadline <= hd.vcpu(0)!.deadline("singleshot"));
  await domain.destroy();
});
test("refused when the stream begins, it never stands still; what was made ready is opened at the end", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await one.createDomain({ ...shape, kernel: tinyKernel() }), order: string[] = [], told = { progress: ({ phase }: { phase: string }) => { if (order.at(-1) !== phase) order.push(phase); } };
  let [a, b] = links(), gone = receiveDomain(two, b, { prepare: async () => { throw new UserError("There is no bridge br7"); }, open });
  gone.catch(() => {});
  await assert.rejects(send(domain, a, told), /tiny is not moved and runs on here: There is no bridge br7/);
  await assert.rejects(gone, /There is no bridge br7/);
  assert.deepEqual([order.includes("suspend"), one.hv.domain(domain.domid)!.mayRun, two.domains.length, two.hv.domain(domain.domid)], [false, true, 0, null]);
  order.length = 0;
  [a, b] = links();
  gone = receiveDomain(two, b, { prepare: async (json) => { order.push(`prepare ${json}`); }, open: async () => { order.push("open"); return open(); } });
  await send(domain, a, told);
  await (await gone).destroy();
  assert.deepEqual(order.filter((x, i) => order.indexOf(x) === i && x !== "commit"), ["prepare {}", "round", "suspend", "stop", "open"]);
});
test("numbers that hardly another host has, where it was asked for", async () => {
  await using one = await createMachine({ host: idleHost, memoryMiB: 48, nrDomains: 2, pcpus: 1, domidPolicy: "random" });
  const ids = [];
  for (const name of ["a", "b"]) ids.push((await one.createDomain({ ...shape, name, kernel: tinyKernel() })).domid);
  assert.ok(ids[0] !== ids[1] && ids.every((id) => id >= 1 && id < DOMID.FIRST_RESERVED) && Math.max(...ids) > 2, ids.join());
});
test("a guest that was not asked and may run at the other end goes nowhere else until that is known", async () => {
  await using one = await make();
  await using two = await make();
  const domain = await one.createDomain({ ...shape, kernel: tinyKernel() }), hd = one.hv.domain(domain.domid)!, there = new TransformStream<Uint8Array, Uint8Array>(), back = new TransformStream<Uint8Array, Uint8Array>();
  const words: string[] = [], cut = new TransformStream<Uint8Array, Uint8Array>({ transform: (bytes, out) => {
    words.push(new TextDecoder().decode(bytes));
    if (words.join("").includes("unpause results")) out.error(new Error("the wire is cut"));
    else out.enqueue(bytes);
  } });
  const received = receiveDomain(two, { readable: there.readable, writable: back.writable }, { open }), doubt = await sendDomain(domain, { readable: back.readable.pipeThrough(cut), writable: there.writable }, { configJson: "{}", live: true }).then(() => null, (e: Error) => e);
  assert.ok(doubt instanceof MigrationInDoubt, String(doubt));
  assert.deepEqual([hd.mayRun, domain.isLeaving], [false, true]);
  const [a] = links();
  await assert.rejects(send(domain, a), /tiny is being saved or moved already/);
  await (await received).destroy();
  assert.equal(await doubt.settle("dropped"), domain);
  assert.deepEqual([hd.mayRun, domain.isLeaving], [true, false]);
  await domain.destroy();
});
