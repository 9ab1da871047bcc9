import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { concat } from "../base/bytes.ts";
import { Fixture } from "../hypervisor/fixture.ts";
import { getHvmContext, setHvmContext } from "../hypervisor/hvm_context.ts";
import { Domain } from "../hypervisor/domain.ts";
import { P2M_TYPE } from "../memory/p2m.ts";
import { CPU, gprAt, xmmAt } from "../x86/state.ts";
import { type About, aboutOf, encodePlaces, parseAbout, parsePairs, parsePlaces } from "./about.ts";
import { envelopeEnd, envelopeStart, readEnvelopeEnd, readEnvelopeStart } from "./envelope.ts";
import { collector, recordsOf, startOfRecords, streamOf, withoutOptional } from "./fixture.ts";
import { ImageReader, writeImageEnd, writeImageStart } from "./image.ts";
import { covered, REC, recName } from "./libxc.ts";
import { MESSAGE, messageBytes, readMessage } from "./messages.ts";
import { ownPages, PageWriter } from "./pages.ts";
import { Sink, Source, StreamError } from "./stream.ts";
import { xxh32, xxh32In } from "./xxh32.ts";

/** Debian ships it beside the modules that it imports, and tells it not. */
const VERIFY = "/usr/lib/xen-4.17/bin/verify-stream-v2", env = { ...process.env, PYTHONPATH: "/usr/lib/xen-4.17/lib/python" }, CONFIG = JSON.stringify({ name: "one", memory: 1 });
const about = (d: Domain, change: Partial<About> = {}): About => ({
  ...aboutOf(d), overheadPages: 0, storeGfn: 1, consoleGfn: 2, targetKiB: 256, staticMaxKiB: 256, maxmemMiB: 1, configSum: xxh32(new TextEncoder().encode(CONFIG)), migration: null, domid: null, ...change,
});
/** A domain of 64 pages, of which some are zeros, and registers of all kinds; and its stream. */
async function saved(deflates = false): Promise<{ f: Fixture; bytes: Uint8Array<ArrayBuffer> }> {
  const f = new Fixture({ maxVcpus: 2, nrPages: 64, maxPages: 128 }), { d } = f, { dv } = f.hv.views;
  for (const gfn of [0, 1, 2, 3, 20, 21, 63]) d.memory.write(gfn * 4096, Uint8Array.from({ length: 4096 }, (_, i) => (i * 7 + gfn * 13) & 0xff));
  const at = d.vcpu(0)!.context;
  for (let i = 0; i < 16; i++) {
    dv.setBigUint64(at + gprAt(i), 0x0123456789abcdefn * BigInt(i + 1) & (2n ** 64n - 1n), true);
    dv.setBigUint64(at + xmmAt(i), BigInt(i) * 0x1111n, true);
  }
  CPU.fsw.set(dv, at, 3 << 11);
  d.setMemoryMap([{ addr: 0, size: 64 * 4096, type: 1 }]);
  const out = collector(), sink = new Sink(out.stream);
  await sink.write(envelopeStart(CONFIG));
  await writeImageStart(sink, d, about(d));
  await new PageWriter(d, sink, 16, deflates).write(ownPages(d));
  await writeImageEnd(sink, d, [["control/feature-suspend", "1"], ["data/x", "y"]]);
  await sink.write(envelopeEnd());
  await sink.close();
  return { f, bytes: out.bytes() };
}
/** Read it into a new domain of the same machine. The domain is destroyed where that fails. */
async function restored(f: Fixture, stream: ReadableStream<Uint8Array>): Promise<{ d: Domain; image: Awaited<ReturnType<ImageReader["rest"]>> }> {
  const from = new Source(stream);
  const config = await readEnvelopeStart(from), reader = new ImageReader(from), a = await reader.start();
  if (xxh32(new TextEncoder().encode(config)) !== a.configSum) throw new StreamError("configuration");
  const d = Domain.create(f.hv, { maxVcpus: a.nrVcpus, maxPages: a.maxPages });
  try {
    const image = await reader.rest(d, () => {});
    await readEnvelopeEnd(from);
    setHvmContext(d, image.context);
    return { d, image };
  } catch (e) {
    await d.destroy();
    throw e;
  }
}

test("XXH32 is the specification's", () => {
  assert.equal(xxh32(new Uint8Array(0)), 0x02cc5d05);
  assert.equal(xxh32(new TextEncoder().encode("Nobody inspects the spammish repetition")), 0xe2293b2f);
  const bytes = Uint8Array.from({ length: 4096 }, (_, i) => (i * i) & 0xff);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }), sum = xxh32In(memory);
  new Uint8Array(memory.buffer).set(bytes, 48);
  for (const n of [16, 48, 4096]) for (const seed of [0, 7, 0xfffffff0]) assert.equal(sum(48, n, seed), xxh32(bytes.subarray(0, n), seed));
});

test("a domain comes out of a stream as it went in, whatever the pieces", async () => {
  const { f, bytes } = await saved();
  for (const chunk of [1 << 20, 4096, 13]) {
    const { d, image } = await restored(f, streamOf(bytes, chunk));
    assert.deepEqual(image.pairs, [["control/feature-suspend", "1"], ["data/x", "y"]]);
    assert.deepEqual(d.memory.read(0, 64 * 4096), f.d.memory.read(0, 64 * 4096));
    assert.equal(d.totPages, 64);
    const [was, is] = [f.d, d].map((x) => { const c = getHvmContext(x), v = new DataView(c.buffer); return { c, tsc: v.getBigUint64(24 + 8 + 8 + 1008, true), at: v }; });
    was!.at.setBigUint64(24 + 8 + 8 + 1008, 0n, true);
    is!.at.setBigUint64(24 + 8 + 8 + 1008, 0n, true);
    assert.deepEqual(is!.c, was!.c);
    assert.ok(is!.tsc >= was!.tsc - 10n ** 9n, "the time-stamp counter goes on");
    await d.destroy();
  }
  f.done();
});

test("deflated pages are fewer bytes and the same memory; what lies about its length, or within, is refused", async () => {
  const { f, bytes } = await saved(true), plain = (await saved()).bytes, small = recordsOf(bytes).map((r, nr) => ({ ...r, nr })).filter((r) => r.type === REC.DOMUS_DEFLATED);
  assert.ok(small.length > 0 && bytes.length < plain.length / 2, `${bytes.length} of ${plain.length}`);
  const { d } = await restored(f, streamOf(bytes, 99));
  assert.deepEqual(d.memory.read(0, 64 * 4096), f.d.memory.read(0, 64 * 4096));
  await d.destroy();
  const { at, end, nr } = small[0]!, dv = new DataView(bytes.buffer), body = bytes.slice(at + 8, at + 8 + dv.getUint32(at + 4, true));
  const forged = (change: (body: Uint8Array) => void): ReadableStream<Uint8Array> => {
    const b = body.slice();
    change(b);
    const record = covered(REC.DOMUS_DEFLATED, b), whole = new Uint8Array(bytes.length);
    whole.set(bytes);
    whole.set(record, at);
    assert.equal(record.length, end - at + 16);
    return streamOf(whole);
  };
  const length = new DataView(body.buffer).getUint32(0, true), set = (n: number) => (b: Uint8Array): void => { new DataView(b.buffer).setUint32(0, n, true); };
  await assert.rejects(restored(f, forged(set(length - 1))), new RegExp(`record ${nr} \\(DOMUS_DEFLATED\\) at byte ${at} is more than the ${length - 1} bytes it claims`));
  await assert.rejects(restored(f, forged(set(length + 1))), /is not \d+ deflated bytes/);
  await assert.rejects(restored(f, forged(set(9 << 20))), /claims to be 9437184 bytes/);
  await assert.rejects(restored(f, forged((b) => { b[100] = b[100]! ^ 0xff; })), StreamError);
  f.done();
});

test("a stream that version 1 wrote is taken, whatever was changed since", async () => {
  const f = new Fixture({ nrPages: 64, maxPages: 128 }), bytes = gunzipSync(readFileSync(new URL("golden/version-1.gz", import.meta.url))), { d, image } = await restored(f, streamOf(bytes));
  assert.deepEqual(image.pairs, [["control/feature-suspend", "1"], ["data/x", "y"]]);
  for (const gfn of [0, 1, 2, 3, 20, 21, 63]) assert.deepEqual(d.memory.read(gfn * 4096, 4096), Uint8Array.from({ length: 4096 }, (_, i) => (i * 7 + gfn * 13) & 0xff));
  assert.equal(f.hv.views.dv.getBigUint64(d.vcpu(0)!.context + gprAt(3), true), 0x0123456789abcdefn * 4n);
  f.done();
});

test("Xen's own verify-stream-v2 finds nothing amiss", { skip: existsSync(VERIFY) ? false : "Debian's xen-utils-4.17 is not here" }, async () => {
  const { f, bytes } = await saved();
  f.done();
  const ran = spawnSync(VERIFY, ["-v", "-f", "xl"], { input: withoutOptional(bytes), encoding: "utf8", env });
  assert.equal(ran.status, 0, ran.stdout + ran.stderr);
  assert.match(ran.stdout, /Libxc Image Header: Version 3, little endian\nDomain Header: x86 HVM from Xen 4\.17\n/);
  assert.match(ran.stdout, /Squashed 4 Page Data records together/);
  assert.throws(() => execFileSync(VERIFY, ["-q", "-f", "xl"], { input: withoutOptional(bytes).subarray(0, 9000), stdio: "pipe", env }));
});

test("a damaged stream is refused, by the name of the record, its number and its place; nothing is left of it", async () => {
  const { f, bytes } = await saved(), records = recordsOf(bytes), free = f.hv.mm.frames.nrFree, start = startOfRecords(bytes);
  let seed = 1;
  const random = (n: number): number => { seed = Math.imul(seed, 1103515245) + 12345 & 0x7fffffff; return seed % n; };
  for (const [nr, r] of records.entries()) {
    if (r.type === REC.END || r.type === REC.DOMUS_CHECKSUM) continue;
    for (let i = 0; i < 3; i++) {
      const bad = bytes.slice(), at = r.at + 8 + random(r.end - r.at - 8 || 1);
      bad[at] = bad[at]! ^ 1 << random(8);
      await assert.rejects(restored(f, streamOf(bad)), (e: Error) => {
        assert.ok(e instanceof StreamError && e.message.includes(`record ${nr} (${recName(r.type)}) at byte ${r.at}`), `record ${nr}, byte ${at}: ${e.message}`);
        return true;
      });
    }
  }
  for (let i = 0; i < 200; i++) {        // anywhere, headers too: refused, or as if nothing had been
    const bad = bytes.slice(), at = random(bytes.length);
    bad[at] = bad[at]! ^ 1 << random(8);
    await restored(f, streamOf(bad)).then(async ({ d }) => {
      assert.ok(at < start, `a wrong byte ${at} was taken`);
      assert.deepEqual(d.memory.read(0, 64 * 4096), f.d.memory.read(0, 64 * 4096));
      await d.destroy();
    }, (e) => assert.ok(e instanceof StreamError, String(e)));
  }
  for (const cut of [0, 20, 100, start, ...records.map((r) => r.end), records.at(-2)!.at + 3]) {
    await assert.rejects(restored(f, streamOf(bytes.subarray(0, cut))), /The stream ends at byte \d+, within .*: it was cut short/, `cut at ${cut}`);
  }
  assert.equal(f.hv.mm.frames.nrFree, free);
  f.done();
});

test("what is newer, of another kind, or claims too much says so", async () => {
  const { f, bytes } = await saved(), start = startOfRecords(bytes), libxc = start - 40;
  const patched = (at: number, ...values: number[]): ReadableStream<Uint8Array> => { const b = bytes.slice(); b.set(values, at); return streamOf(b); };
  await assert.rejects(restored(f, patched(0, 0x59)), /This is no saved domain: it does not begin as xl's files do/);
  await assert.rejects(restored(f, patched(36, 0x83)), /needs features 0x83 that this version has not/);
  await assert.rejects(restored(f, patched(44, 0xff, 0xff, 0xff, 0xff)), /xl's header claims 4294967295 bytes of configuration/);
  await assert.rejects(restored(f, patched(libxc + 15, 4)), /libxc's version 4, this Domus takes 3: take a newer Domus/);
  await assert.rejects(restored(f, patched(libxc + 17, 1)), /big-endian streams are not taken/);
  await assert.rejects(restored(f, patched(libxc + 24, 1)), /The stream is of a PV domain, which is not built yet/);
  await assert.rejects(restored(f, patched(start, 0x55, 0, 0, 0)), /record 0 \(type 0x55\) at byte \d+ is unknown here/);
  await assert.rejects(restored(f, patched(start + 4, 0, 0, 0, 1)), /record 0 \(DOMUS_DOMAIN\) at byte \d+ claims 16777\d+ bytes, more than the 8388608 of any record/);
  await assert.rejects(restored(f, streamOf(withoutOptional(bytes))), /is not DOMUS_DOMAIN/);
  const body = (o: object): Uint8Array => new TextEncoder().encode(JSON.stringify(o)), good = { version: 1, ...about(f.d) };
  assert.deepEqual(parseAbout(body(good), "r"), about(f.d));
  assert.throws(() => parseAbout(body({ ...good, version: 2 }), "r"), /made by a newer Domus/);
  assert.throws(() => parseAbout(body({ ...good, nrVcpus: 129 }), "r"), /"nrVcpus" 129, not a whole number from 1 to 128/);
  assert.throws(() => parseAbout(body({ ...good, migration: "x" }), "r"), StreamError);
  assert.throws(() => parsePairs(new TextEncoder().encode("control/shutdown\0poweroff\0"), "r"), /which no guest keeps/);
  assert.throws(() => parsePairs(new TextEncoder().encode("data/../x\0y\0"), "r"), StreamError);
  f.done();
});

test("a context that no guest could reach is refused", async () => {
  const { f } = await saved(), context = getHvmContext(f.d), cpu = 24 + 8 + 8, d = Domain.create(f.hv, { maxVcpus: 2, maxPages: 1 });
  const with8 = (at: number, value: bigint): Uint8Array => { const c = context.slice(); new DataView(c.buffer).setBigUint64(at, value, true); return c; };
  for (const [at, value, why] of [[656, 0x80000000n, /CR0 is 0x80000000/], [680, 0x2000n, /CR4 is 0x2000/], [992, 0x400n, /EFER is 0x400/], [672, 1n << 50n, /CR3/], [648, 1n << 40n, /RFLAGS/], [832, 1n << 50n, /fs_base is not canonical/]] as const) {
    assert.throws(() => setHvmContext(d, with8(cpu + at, value)), why);
  }
  assert.throws(() => setHvmContext(d, context.subarray(0, 100)), /record 1 at byte 32 \(CPU\) reaches past the end/);
  assert.throws(() => setHvmContext(d, context.subarray(0, context.length - 8)), /is missing: there is no END/);
  await d.destroy();
  f.done();
});

test("IA32_SPEC_CTRL is in the context where a guest has set it, and only as a guest can", async () => {
  const { f } = await saved(), { views } = f.hv, without = getHvmContext(f.d), d = Domain.create(f.hv, { maxVcpus: 2, maxPages: 1 });
  CPU.specCtrl.set(views.dv, f.d.vcpu(0)!.context, 0x400n);
  const context = getHvmContext(f.d), count = without.length - 8 + 8, value = count + 8 + 8;      // before END, behind a descriptor
  assert.equal(context.length, without.length + 8 + 24);
  setHvmContext(d, context);
  assert.equal(CPU.specCtrl.get(views.dv, d.vcpu(0)!.context), 0x400n);
  const changed = (at: number, byte: number): Uint8Array => { const c = context.slice(); c[at] = byte; return c; };
  assert.throws(() => setHvmContext(d, changed(value, 1)), /IA32_SPEC_CTRL of vCPU 0 is 0x401/);
  assert.throws(() => setHvmContext(d, changed(count, 2)), /CPU_MSR record of vCPU 0 has 24 bytes/);
  setHvmContext(d, changed(count + 8, 0x49));
  assert.equal(CPU.specCtrl.get(views.dv, d.vcpu(0)!.context), 0n);
  await d.destroy();
  f.done();
});

test("pages that a running domain changed go again, zeros as bytes where there were others, and pages that are gone are taken away", async () => {
  const f = new Fixture({ nrPages: 8, maxPages: 16 }), { d } = f, out = collector(), sink = new Sink(out.stream), writer = new PageWriter(d, sink, 4);
  d.memory.write(0, new Uint8Array(4096).fill(1));
  await sink.write(envelopeStart(CONFIG));
  await writeImageStart(sink, d, about(d));
  await writer.write(ownPages(d));
  d.memory.zero(0, 4096);
  d.memory.write(5 * 4096, new Uint8Array(4096).fill(5));
  d.takePage(7);
  d.populate(10, 1);
  await writer.write([...[...ownPages(d)].filter(({ gfn }) => [0, 5, 10].includes(gfn)), ...writer.said.filter((gfn) => d.p2m.lookup(gfn) === 0).map((gfn) => ({ gfn, mfn: 0 }))]);
  await writeImageEnd(sink, d, []);
  await sink.write(envelopeEnd());
  await sink.close();
  assert.deepEqual(writer.said.filter(() => true).sort((a, b) => a - b), [0, 1, 2, 3, 4, 5, 6, 10]);
  const { d: there } = await restored(f, streamOf(out.bytes()));
  for (const gfn of [0, 1, 5, 10]) assert.deepEqual(there.memory.read(gfn * 4096, 4096), d.memory.read(gfn * 4096, 4096), `gfn ${gfn}`);
  assert.deepEqual([...there.p2m.entries()].filter(([, e]) => (e & P2M_TYPE.mask) === P2M_TYPE.ram).map(([gfn]) => gfn), [0, 1, 2, 3, 4, 5, 6, 10]);
  assert.equal(there.totPages, 8);
  f.done();
});

test("places of code are hints: what cannot be is left out", () => {
  const places = [{ gfn: 5, offset: 4095, mode: 2 }, { gfn: 2 ** 30 - 1, offset: 0, mode: 1 }];
  assert.deepEqual(parsePlaces(encodePlaces([places[0]!, { gfn: 5, offset: 4096, mode: 2 }, { gfn: 2 ** 30, offset: 0, mode: 2 }, { gfn: 1, offset: 0, mode: 3 }, places[1]!])), places);
  assert.deepEqual(parsePlaces(new Uint8Array(7)), []);
});

test("messages are xl's sentences, and a report of failure has its reason", async () => {
  const parts = [messageBytes("banner"), messageBytes("asItIs"), messageBytes("ready"), messageBytes("go"), messageBytes("report"), messageBytes("report", "No disk\nxvda")];
  const from = new Source(streamOf(concat(parts), 7));
  for (const message of Object.keys(MESSAGE)) assert.deepEqual(await readMessage(from), { message, failure: null });
  assert.deepEqual(await readMessage(from), { message: "report", failure: "No disk?xvda" });
  await assert.rejects(readMessage(from), /it was cut short/);
  await assert.rejects(readMessage(new Source(streamOf(new TextEncoder().encode("HTTP/1.1 400")))), /The other end says "H": it does not speak as xl does/);
});
