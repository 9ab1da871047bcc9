import assert from "node:assert/strict";
import { test } from "node:test";
import { tinyKernel } from "../../test/tiny-kernel.ts";
import type { UserError } from "../base/errors.ts";
import { VCPU, VPF } from "../hypervisor/objects.ts";
import { covered, headers, REC } from "../migration/libxc.ts";
import { messageBytes } from "../migration/messages.ts";
import { ownPages } from "../migration/pages.ts";
import type { DomainConfig } from "./config.ts";
import { type Domain, partsOf } from "./domain.ts";
import { idleHost } from "./fixture.ts";
import { createMachine, type Machine } from "./machine.ts";
import { type Link, MigrationInDoubt, type MigrateReport, receiveDomain, type ReceiveOptions, sendDomain, type SendOptions, standingOf } from "./migrate.ts";
import { receiveRest } from "./rest.ts";

const make = (log: string[] = []): Promise<Machine> => createMachine({ host: idleHost, memoryMiB: 48, nrDomains: 1, pcpus: 1, log: (s) => log.push(s) });
const shape = { name: "tiny", memoryMiB: 16 }, open = async (): Promise<DomainConfig> => ({ ...shape, kernel: new Uint8Array(0) });
/** Both ends of a link; whatever passes it is shown to `look`, after which it may be cut. */
function linked(look: (chunk: Uint8Array, cut: () => void) => void = () => {}): [Link, Link] {
  let fail: ((why: Error) => void)[] = [];
  const cut = (): void => { for (const f of fail) f(new Error("the wire is cut")); fail = []; };
  const wire = (): TransformStream<Uint8Array, Uint8Array> => new TransformStream({ start: (c) => { fail.push((why) => c.error(why)); }, transform: (chunk, c) => { look(chunk, cut); if (fail.length) c.enqueue(chunk); } }, { highWaterMark: 1 });
  const there = wire(), back = wire();
  return [{ readable: back.readable, writable: there.writable }, { readable: there.readable, writable: back.writable }];
}
const NR_DIRTY = 600, AT = 0x500000;
const isPages = (chunk: Uint8Array): boolean => chunk.length > 4096 && new DataView(chunk.buffer, chunk.byteOffset).getUint32(0, true) === REC.PAGE_DATA;
/** A domain that writes NR_DIRTY pages while its first round goes, so that they go behind it. */
async function writing(machine: Machine): Promise<{ domain: Domain; options: SendOptions }> {
  const domain = await machine.createDomain({ ...shape, kernel: tinyKernel() }), { hv } = partsOf(domain);
  let isDone = false;
  hv.memory.write(AT, new Uint8Array(NR_DIRTY * 4096).fill(1));
  const options: SendOptions = {
    configJson: "{}", live: true, postcopy: true, downtimeMs: 0.001, maxRounds: 1,
    progress: ({ phase }) => {
      if (phase !== "round" || isDone) return;
      isDone = true;
      for (let i = 0; i < NR_DIRTY; i++) hv.memory.write(AT + i * 4096, new Uint8Array(4096).fill(i === 7 ? 0 : i & 127 | 128));
    },
  };
  return { domain, options };
}
function isWhole(machine: Machine, domain: Domain): void {
  const there = machine.hv.domain(domain.domid)!;
  for (let i = 0; i < NR_DIRTY; i++) assert.deepEqual(new Set(there.memory.read(AT + i * 4096, 4096)), new Set([i === 7 ? 0 : i & 127 | 128]), `page ${i}`);
}
const receive = (machine: Machine, link: Link, o: Partial<ReceiveOptions> = {}): Promise<Domain> => receiveDomain(machine, link, { open, ...o });

test("pages that were written go behind the domain, of which nobody takes a copy until they are there", async () => {
  await using one = await make();
  await using two = await make();
  const { domain, options } = await writing(one), [a, b] = linked(), sent = sendDomain(domain, a, options), got = await receive(two, b);
  const rest = got.rest!, { nrPages } = rest;
  assert.ok(nrPages >= NR_DIRTY && rest.nrLeft > 0, `${nrPages} pages, ${rest.nrLeft} to come`);
  const steps: number[] = [];
  rest.progress = (done) => steps.push(done);
  const report = await sent;
  await rest.whole();
  assert.equal(report.latePages, nrPages);
  assert.deepEqual([got.rest, rest.nrLeft, two.dom0.arrivals.size, steps.at(-1), one.domains.length], [null, 0, 0, nrPages, 0]);
  isWhole(two, got);
  assert.ok([...ownPages(two.hv.domain(got.domid)!)].every(({ mfn }) => !two.hv.mm.frames.isAwaited(mfn)));
});

test("what a vCPU waits for comes before the rest, and it runs on then", async () => {
  await using one = await make();
  await using two = await make();
  let nrRecords = 0, cameAfter = 0;
  const { domain, options } = await writing(one), [a, b] = linked((chunk) => { if (isPages(chunk)) nrRecords++; });
  const sent = sendDomain(domain, a, options), got = await receive(two, b), { hv } = partsOf(got), v = hv.vcpu(0)!, last = AT / 4096 + NR_DIRTY - 1, before = nrRecords;
  assert.ok(hv.hv.mm.frames.isAwaited(hv.p2m.mfn(last)));
  hv.hv.or(VCPU.pauseFlags, v.at, VPF.awaiting);
  hv.hv.store(VCPU.awaits, v.at, last + 1);
  two.dom0.arrivals.get(got.domid)!.poll();
  got.rest!.progress = () => { if (cameAfter === 0 && !(v.pauseFlags & VPF.awaiting)) cameAfter = nrRecords - before; };
  await sent;
  await (got.rest?.whole() ?? null);
  assert.ok(cameAfter > 0 && cameAfter < 20, `${cameAfter} records came before the page`);
  assert.deepEqual([hv.hv.load(VCPU.awaits, v.at), v.pauseFlags & VPF.awaiting], [0, 0]);
  isWhole(two, got);
});

test("a link that breaks is followed by another; where none is made the guest is lost, both ends say so, and nothing is left", async () => {
  const log: string[] = [];
  await using one = await make(log);
  await using two = await make(log);
  const free = two.hv.mm.frames.nrFree, freeHere = one.hv.mm.frames.nrFree;
  let { domain, options } = await writing(one), nrLinks = 0;
  const again: Promise<void>[] = [], dropping = (after: number): [Link, Link] => { let nr = 0; return linked((chunk, cut) => { if (isPages(chunk) && chunk.length < 80_000 && ++nr === after) cut(); }); };
  const [a, b] = dropping(9), sent = sendDomain(domain, a, { ...options, relink: async (migration) => {
    nrLinks++;
    const [x, y] = dropping(nrLinks < 4 ? 5 : 1e9);
    again.push(receiveRest(two, migration, y));
    return x;
  } }), got = await receive(two, b, { relinkMs: 60_000 });
  await sent;
  await got.rest?.whole();
  await Promise.all(again);
  assert.equal(nrLinks, 4);
  isWhole(two, got);
  assert.match(log.join("\n"), /tiny: The link broke with \d+ pages of its memory on their way \(the wire is cut\); another one is waited for, up to 60 s/);
  assert.match(log.join("\n"), /tiny: the link broke while its memory followed it \(the wire is cut\); it goes on over another one/);
  await got.destroy();

  ({ domain, options } = await writing(one));
  const [c, d] = dropping(9), lost = sendDomain(domain, c, options), there = await receive(two, d);
  await assert.rejects(lost, /tiny has gone to the other end, and the link broke before all of its memory was there \(the wire is cut\): it is lost/);
  const end = await there.wait();
  assert.equal(end.reason, "crash");
  assert.match(end.crash!.reason, /^The link broke with \d+ pages of its memory on their way \(the wire is cut\), and no other was made$/);
  await there.destroy();
  await domain.wait();
  assert.deepEqual([one.domains.length, two.domains.length, two.dom0.arrivals.size], [0, 0, 0]);
  assert.deepEqual([one.hv.mm.frames.nrFree, two.hv.mm.frames.nrFree], [freeHere, free]);
  await assert.rejects(receiveRest(two, "0".repeat(32), linked()[0]), /No domain here waits for the rest of migration "0{32}"/);
});

test("a domain that is destroyed while its memory follows it needs no more, and its frames are nobody's target", async () => {
  for (const side of ["receiver", "sender"] as const) {
    await using one = await make();
    await using two = await make();
    const free = two.hv.mm.frames.nrFree, { domain, options } = await writing(one);
    let there: Domain | null = null, nr = 0;
    const [a, b] = linked((chunk) => { if (there && isPages(chunk) && ++nr === 5) void (side === "receiver" ? there : domain).destroy(); });
    const sent = sendDomain(domain, a, { ...options, relink: () => assert.fail("there is nothing to send any more") }).then((r: MigrateReport) => r.latePages, (e: UserError) => e.message);
    there = await receive(two, b);
    const said = await sent;
    if (side === "receiver") assert.ok(Number(said) >= NR_DIRTY, String(said));
    else {
      assert.match(String(said), /tiny has gone to the other end, and the link broke before all of its memory was there \(tiny was destroyed meanwhile\): it is lost/);
      assert.equal((await there.wait()).reason, "crash");
    }
    await there.destroy();
    assert.deepEqual([two.hv.mm.frames.nrFree, two.dom0.arrivals.size, one.domains.length], [free, 0, 0]);
  }
});

test("a wire that breaks before it is known that it runs costs neither the domain nor what follows it", async () => {
  await using one = await make();
  await using two = await make();
  const { domain, options } = await writing(one), [a, b] = linked((chunk, cut) => { if (new TextDecoder().decode(chunk).startsWith("my copy unpause")) cut(); });
  let again: Promise<void> | null = null;
  const sent = sendDomain(domain, a, { ...options, relink: async (migration) => {
    const [x, y] = linked();
    again = receiveRest(two, migration, y);
    return x;
  } }), got = await receive(two, b, { relinkMs: 60_000 });
  const doubt = await sent.then(() => assert.fail("nobody knows"), (e: unknown) => { assert.ok(e instanceof MigrationInDoubt, String(e)); return e; });
  assert.equal(standingOf(two, doubt.migration), "running");
  assert.equal(await doubt.settle("running"), null);
  await again;
  assert.equal(got.rest, null);
  isWhole(two, got);
});

test("over a newer link pages are asked for, though the older one was given up only then", async () => {
  await using one = await make();
  await using two = await make();
  const { domain, options } = await writing(one), last = AT / 4096 + NR_DIRTY - 1;
  let nrWanted = 0, again: Promise<void> | null = null;
  const [a, b] = linked(), sent = sendDomain(domain, a, { ...options, relink: async (migration) => {
    const [x, y] = linked((chunk) => { if (chunk.length >= 8 && new DataView(chunk.buffer, chunk.byteOffset).getUint32(0, true) === REC.DOMUS_WANTED) nrWanted++; });
    again = receiveRest(two, migration, y);
    await new Promise((done) => setTimeout(done, 10));
    const { hv } = partsOf(got);
    hv.hv.store(VCPU.awaits, hv.vcpu(0)!.at, last + 1);
    two.dom0.arrivals.get(got.domid)!.poll();
    return x;
  } }), got = await receive(two, b, { relinkMs: 60_000 });
  // a connection that nobody serves takes the place of the good one, which breaks for that
  const stale = receiveRest(two, got.rest!.migration, linked()[1]);
  await sent;
  await Promise.all([stale, again, got.rest?.whole()]);
  assert.equal(nrWanted, 1);
  isWhole(two, got);
});

test("what does not speak as the ends of a migration do is not believed", async () => {
  await using one = await make();
  await using two = await make();
  // a receiver that asks for what it may not, or says what is none
  for (const [bytes, why] of [
    [covered(REC.DOMUS_AWAITED, new Uint8Array(3)), /has 3 bytes, no multiple of 4/], [covered(REC.DOMUS_AWAITED, new Uint8Array(Uint32Array.of(2 ** 30).buffer)), /is about gfn 0x40000000, which cannot be/],
    [covered(REC.HVM_PARAMS), /asks for nothing: it does not speak as Domus does/], [headers({ major: 4, minor: 17 }), /claims 4294967295 bytes/],
  ] as const) {
    const { domain, options } = await writing(one), [a, b] = linked();
    const sent = sendDomain(domain, a, options), writer = b.writable.getWriter(), reader = b.readable.getReader();
    sent.catch(() => {});
    for (const message of ["banner", "asItIs", "ready"] as const) writer.write(messageBytes(message)).catch(() => {});
    for (let seen = ""; !seen.includes("domain is yours");) seen = seen.slice(-64) + new TextDecoder("latin1").decode((await reader.read()).value);
    for (const answer of [messageBytes("report"), bytes]) writer.write(answer).catch(() => {});
    await Promise.all([assert.rejects(sent, why), (async () => { while (!(await reader.read()).done); })().catch(() => {})]);
  }
  // a page of another domain's is sent to nobody: gfns it does not have are told as gone
  const { domain, options } = await writing(one), [a, b] = linked(), sent = sendDomain(domain, a, options), got = await receive(two, b);
  assert.equal(await sent.then((r: MigrateReport) => r.latePages > 0), true);
  await got.rest?.whole();
  isWhole(two, got);
});
