/**
 * A stock Debian kernel saved into a stream, restored in another machine and moved alive between machines, with a disk, a network and things under way. One guest carries all checks, because
 * a boot takes seconds; they build on one another in the order they stand. Two machines' bridges are joined by a cable, as two hosts' are by a switch, so the guest's
 * network stays where it is when the guest goes.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { natUplinks } from "../src/bin/uplink.ts";
import { UserError } from "../src/base/errors.ts";
import { collector, recordsOf, streamOf } from "../src/migration/fixture.ts";
import { readEnvelopeEnd, readEnvelopeStart } from "../src/migration/envelope.ts";
import { messageBytes } from "../src/migration/messages.ts";
import { Domain as HvDomain } from "../src/hypervisor/domain.ts";
import { ownPages } from "../src/migration/pages.ts";
import { REC } from "../src/migration/libxc.ts";
import { Sink, Source, StreamError } from "../src/migration/stream.ts";
import { connect } from "../src/network/port.ts";
import { TestDisk } from "../src/drivers/block/fixture.ts";
import type { DomainConfig } from "../src/toolstack/config.ts";
import { takeBack } from "../src/toolstack/create.ts";
import { type Domain, partsOf } from "../src/toolstack/domain.ts";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine, type Machine } from "../src/toolstack/machine.ts";
import { type Link, MigrationInDoubt, receiveDomain, sendDomain, standingOf } from "../src/toolstack/migrate.ts";
import { dumpCore } from "../src/toolstack/dumpcore.ts";
import { receiveRest } from "../src/toolstack/rest.ts";
import { beginImage, readImage, restoreDomain, saveDomain } from "../src/toolstack/save.ts";
import { imagesMissing } from "./guest.ts";
import { Talk } from "./talk.ts";

const sha1 = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex");
const sum = (text: string): string => text.split(" ")[0]!;
const MAC = "00:16:3e:00:00:01", MIB = 2 ** 20, NO_KERNEL = new Uint8Array(0);

/** Both ends of a link within this process; either can be broken, and what goes to b can be made slow for a second. */
function linkPair(): [a: Link & { break(): void; slow(): void }, b: Link] {
  const there = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 2 }), back = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 2 });
  let breakThere!: (why: Error) => void, breakBack!: (why: Error) => void;
  let slowUntilMs: number | undefined;
  const wire = (broken: (fail: (why: Error) => void) => void): TransformStream<Uint8Array, Uint8Array> => new TransformStream({
    start: (c) => broken((why) => c.error(why)),
    transform: async (chunk, c) => {
      if (performance.now() < (slowUntilMs ?? 0)) await new Promise((resolve) => setTimeout(resolve, 10));
      c.enqueue(chunk);
    },
  }, { highWaterMark: 2 });
  const t = wire((f) => { breakThere = f; }), b = wire((f) => { breakBack = f; });
  return [{ readable: back.readable.pipeThrough(b), writable: there.writable, break: () => { breakThere(new Error("the wire is cut")); breakBack(new Error("the wire is cut")); }, slow: () => { slowUntilMs ??= performance.now() + 1000; } }, { readable: there.readable.pipeThrough(t), writable: back.writable }];
}

describe("a Debian guest that is saved, restored and moved", { skip: imagesMissing(), timeout: 300_000 }, () => {
  let one: Machine, two: Machine, guest: Talk, server: Server, socket: Socket, disk: TestDisk, isFirst = true, heard = "";
  const told: string[] = [], content = randomBytes(MIB / 2), uplinks = natUplinks({ hostAccess: true, rules: [], log: (s) => told.push(s) });
  /** What the guest is called and has, wherever it is. */
  const devices = (): Pick<DomainConfig, "name" | "memoryMiB" | "disks" | "vifs"> => ({ name: "mover", memoryMiB: 112, disks: [{ vdev: "xvda", disk }], vifs: [{ mac: MAC }] });
  const configJson = JSON.stringify({ saved: "mover" });
  const open = async (json: string): Promise<DomainConfig> => {
    assert.deepEqual(JSON.parse(json), { saved: "mover" });
    return { ...devices(), kernel: NO_KERNEL };
  };
  const restore = (machine: Machine, bytes: Uint8Array, change: Partial<DomainConfig> = {}): Promise<Domain> => restoreDomain(machine, streamOf(bytes), { open: async (json) => ({ ...(await open(json)), ...change }) });
  const free = (machine: Machine): number => machine.hv.mm.frames.nrFree;
  /** All is as it was: the shell, what it keeps in memory, the disk, the clock, the connection to the server. */
  async function isWhole(): Promise<void> {
    assert.equal(sum(await guest.ok("sha1sum /tmp/f")), sha1(content));
    assert.equal(sum(await guest.ok("echo 3 > /proc/sys/vm/drop_caches; sha1sum /mnt/f")), sha1(content));
    const [date, uptime, before] = (await guest.ok("date +%s; cut -d. -f1 /proc/uptime; cat /tmp/uptime; cut -d. -f1 /proc/uptime > /tmp/uptime")).split("\n").map(Number);
    assert.ok(Math.abs(date! - Date.now() / 1000) < 30, `date says ${date}, ${Date.now() / 1000} it is`);
    assert.ok(uptime! >= before!, `${uptime} s up after ${before}`);
    const word = randomBytes(8).toString("hex"), from = heard.length;
    socket.write(`${word}\n`);
    await guest.until(`grep -q ${word} /tmp/from`);
    await guest.ok(`echo back-${word} > /tmp/to`);
    while (!heard.slice(from).includes(`back-${word}`)) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  before(async () => {
    server = createServer((s) => { socket = s; s.on("data", (b) => { heard += b; }).on("error", () => {}); });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const make = (): Promise<Machine> => createMachine({
      host: nodeHost(), memoryMiB: 112, nrDomains: 2, pcpus: 1, log: (s) => told.push(s),
      uplink: (bridge) => {        // the router is at the first machine's bridge; that the guest is gone from there means nothing to it
        if (!isFirst) return null;
        isFirst = false;
        const { left: _, ...rest } = uplinks(bridge)!;
        return rest;
      },
    });
    const folder = mkdtempSync(join(tmpdir(), "domus-save-"));
    mkdirSync(join(folder, "tree"));
    writeFileSync(join(folder, "tree", "f"), content);
    execFileSync("/usr/sbin/mke2fs", ["-q", "-t", "ext4", "-d", join(folder, "tree"), join(folder, "disk"), "16M"]);
    disk = new TestDisk(0);
    disk.bytes = new Uint8Array(readFileSync(join(folder, "disk")));
    rmSync(folder, { recursive: true });
    one = await make();
    const plug = one.networks.bridge("xenbr0").attach({ name: "to-two", macsMax: 16 });
    two = await make();
    connect(plug, two.networks.bridge("xenbr0").attach({ name: "to-one", macsMax: 16 }));
    guest = await Talk.boot(one, devices());
    await guest.until("ip -4 address show dev eth0 | grep inet");
    await guest.ok("mkdir -p /mnt; dmesg -n 1; mkfifo /tmp/to; cut -d. -f1 /proc/uptime > /tmp/uptime; mount /dev/xvda /mnt; cp /mnt/f /tmp/f");
    await guest.ok(`(nc host.domus.internal ${(server.address() as AddressInfo).port} 0<>/tmp/to > /tmp/from 2>&1; echo ended >> /tmp/from) & until netstat -tn | grep -q ESTABLISHED; do usleep 50000; done`);
    await isWhole();
  });
  after(async () => {
    await one?.destroy();
    await two?.destroy();
    socket?.destroy();
    server?.close();
  });

  test("a full disk or a cancel ends a save, and the domain runs on", async () => {
    let room = 4 * MIB;
    const full = new WritableStream<Uint8Array>({ write: (chunk) => { room -= chunk.length; if (room < 0) throw new Error("ENOSPC: no space left on device, write"); } });
    await assert.rejects(saveDomain(guest.domain, full, { configJson }), (e: Error) => e instanceof UserError && /^mover cannot be saved: ENOSPC: no space left on device, write; it runs on$/.test(e.message));
    await isWhole();
    for (const phase of ["suspend", "memory"]) {
      const cancel = new AbortController(), why = new Error("no more");
      await assert.rejects(saveDomain(guest.domain, collector().stream, { configJson, signal: cancel.signal, progress: (p) => { if (p.phase === phase) cancel.abort(why); } }), why);
      await guest.ok("true");
    }
    await isWhole();
  });

  test("a domain that is paused or being saved is not saved, in words", async () => {
    await guest.domain.pause();
    await assert.rejects(saveDomain(guest.domain, collector().stream, { configJson }), /mover is paused and cannot suspend itself; unpause it first/);
    guest.domain.unpause();
    const first = saveDomain(guest.domain, collector().stream, { configJson, leavePaused: true });
    await assert.rejects(saveDomain(guest.domain, collector().stream, { configJson }), /mover is being saved or moved already/);
    await first;
    assert.equal(guest.domain.isPaused, true);
    guest.domain.unpause();
    await isWhole();
  });

  test("what was saved is another machine's guest; damage is refused by the record's name and leaves nothing", async () => {
    const out = collector(), report = await saveDomain(guest.domain, out.stream, { configJson }), bytes = out.bytes();
    assert.equal((await guest.domain.wait()).reason, "suspend");
    assert.deepEqual(one.domains, []);
    assert.ok(report.bytes === bytes.length && report.zeroPages > 1000 && report.pages >= 112 * 256, JSON.stringify(report));
    const frames = free(two), pages = recordsOf(bytes).map((r, nr) => ({ ...r, nr })).filter((r) => r.type === REC.PAGE_DATA && r.end - r.at > 100_000), bad = pages[pages.length >> 1]!;
    bytes[bad.at + 90_000]! ^= 4;
    await assert.rejects(restore(two, bytes), (e: Error) => e instanceof StreamError && e.message.startsWith(`The stream's record ${bad.nr} (PAGE_DATA) at byte ${bad.at} is damaged: its checksum is`));
    bytes[bad.at + 90_000]! ^= 4;
    await assert.rejects(restore(two, bytes.subarray(0, bytes.length >> 1)), /The stream ends at byte \d+, within record \d+ \(PAGE_DATA\) at byte \d+: it was cut short/);
    await assert.rejects(restore(two, bytes, { disks: [{ vdev: "nothing", disk }] }), /mover: "nothing" is no name of a virtual disk/);
    assert.deepEqual([two.domains.length, free(two)], [0, frames]);
    guest = new Talk(await restore(two, bytes), guest);
    await isWhole();
    await assert.rejects(restore(two, bytes), /There is a domain named "mover" already/);
    assert.equal(two.xs.read(`/local/domain/${guest.domain.domid}/control/feature-suspend`), "1");
  });

  test("every page arrives as it is at the end, though the guest writes all the while; refused at the last moment, it runs on here", async () => {
    await guest.ok("(while test ! -e /tmp/stop; do dd if=/dev/urandom of=/tmp/busy bs=64k count=16 2>/dev/null; cp /tmp/busy /mnt/busy; usleep 5000; done; echo > /tmp/stopped) & true");
    await guest.until("test -s /mnt/busy");
    const [a, b] = linkPair(), from = new Source(b.readable), answers = new Sink(b.writable), rounds = new Set<number>();
    const sent = sendDomain(guest.domain, a, { configJson, live: true, downtimeMs: 0.01, maxRounds: 6, progress: (p) => { if (p.round !== undefined) rounds.add(p.round); } });
    answers.post(messageBytes("banner"));
    const arrived = await readImage(one, await beginImage(from, await readEnvelopeStart(from)), () => {});
    await readEnvelopeEnd(from);
    const { hv: here } = partsOf(guest.domain), there = arrived.hd, of = (d: typeof here): Map<number, number> => new Map([...ownPages(d)].map(({ gfn, mfn }) => [gfn, mfn]));
    const [was, is] = [of(here), of(there)];
    assert.deepEqual([...is.keys()], [...was.keys()]);
    const different = [...was].filter(([gfn, mfn]) => Buffer.compare(here.hv.views.u8.subarray(mfn * 4096, mfn * 4096 + 4096), there.hv.views.u8.subarray(is.get(gfn)! * 4096, is.get(gfn)! * 4096 + 4096)) !== 0).map(([gfn]) => gfn);
    assert.deepEqual(different, []);
    assert.ok(rounds.size > 1, "there were rounds");
    answers.post(messageBytes("report", "The host is closing"));
    await assert.rejects(sent, /mover is not moved and runs on here: The host is closing/);
    await takeBack(arrived.undo);
    await isWhole();
  });

  test("it moves alive, busy as it is, within a limit of bandwidth, and back", async () => {
    for (const [from, to, limit, hinder] of [[two, one, 64 * MIB, null], [one, two, undefined, null], [two, one, undefined, "taken"], [one, two, undefined, null]] as const) {
      await guest.ok("dmesg -c > /dev/null");
      // somebody has its number there: it must suspend itself
      const other = hinder ? HvDomain.create(to.hv, { domid: guest.domain.domid, maxVcpus: 1, maxPages: 0 }) : null;
      const [a, b] = linkPair(), frames = free(from), moved = receiveDomain(to, b, { open });
      const report = await sendDomain(guest.domain, a, { configJson, live: true, ...(limit ? { maxBytesPerSecond: limit } : {}) });
      const domain = await moved;
      assert.equal((await guest.domain.wait()).reason, "suspend");
      assert.deepEqual([from.domains.length, to.domains.length], [0, 1]);
      assert.ok(free(from) > frames + 112 * 256);
      if (limit) assert.ok(report.bytes / limit * 900 <= report.totalMs, `${report.bytes} bytes in ${report.totalMs} ms`);
      assert.equal(standingOf(from, report.migration), "given");
      assert.equal(standingOf(to, report.migration), "running");
      guest = new Talk(domain, guest);
      await isWhole();
      await other?.destroy();
      assert.equal(report.isAsItIs, hinder === null);
      assert.equal(/Freezing user space/.test(await guest.ok("dmesg")), hinder !== null, "a guest that is not asked notices nothing");
    }
    await guest.ok("touch /tmp/stop; until test -e /tmp/stopped; do usleep 20000; done; cmp /tmp/busy /mnt/busy; echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/busy /mnt/busy");
  });

  test("by post-copy it runs before its memory is there, reads and writes its disk and the network, and a wire that breaks meanwhile is followed by another", async () => {
    for (const [from, to, breaks] of [[two, one, false], [one, two, true]] as const) {
      await guest.ok("rm -f /tmp/stop /tmp/stopped; dd if=/dev/urandom of=/tmp/many bs=64k count=192 2>/dev/null; (while test ! -e /tmp/stop; do cp /tmp/many /tmp/copy; dd if=/tmp/many of=/tmp/busy bs=64k count=16 2>/dev/null; cp /tmp/busy /mnt/busy; done; echo > /tmp/stopped) & until test -e /tmp/busy; do usleep 10000; done");
      const [a, b] = linkPair(), behind = Promise.withResolvers<void>(), moved = receiveDomain(to, b, { open, relinkMs: 30_000 });
      let isBroken = false, more: Promise<void> | null = null;
      const sent = sendDomain(guest.domain, a, {
        configJson, live: true, postcopy: true, downtimeMs: 1, maxBytesPerSecond: 32 * MIB, deflates: breaks,
        progress: ({ phase, donePages, totalPages }) => {
          if (phase !== "behind") return;
          a.slow();        // so that the guest, whatever else the host has to do, comes to a page before the page does
          behind.resolve();
          if (!breaks || isBroken || donePages < totalPages / 3) return;
          isBroken = true;
          a.break();
        },
        relink: async (migration) => {
          const [again, there] = linkPair();
          more = receiveRest(to, migration, there);
          return again;
        },
      });
      const domain = await moved, rest = domain.rest!;
      await behind.promise;
      assert.ok(rest.nrLeft > 100, `${rest.nrLeft} pages are missing`);
      await assert.rejects(saveDomain(domain, collector().stream, { configJson }), /mover has just come here, and \d+ MiB of its memory are still on their way; it can be saved or moved when they are here/);
      await assert.rejects(dumpCore(domain, collector().stream), /it can be dumped when they are here/);
      guest = new Talk(domain, guest);
      await isWhole();
      const report = await sent;
      await rest.whole();
      await more;
      assert.deepEqual([from.domains.length, to.domains.length, domain.rest, isBroken, report.isAsItIs], [0, 1, null, breaks, true]);
      assert.ok(report.latePages > 100 && rest.nrWaits > 0, `${report.latePages} pages late, ${rest.nrWaits} waited for`);
      assert.equal(to.dom0.arrivals.size, 0);
      await isWhole();
      await guest.ok("touch /tmp/stop; until test -e /tmp/stopped; do usleep 20000; done; cmp /tmp/many /tmp/copy; cmp /tmp/busy /mnt/busy; echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/busy /mnt/busy");
      assert.doesNotMatch(await guest.ok("dmesg"), /BUG:|Oops|WARNING:|rcu: INFO|error/);
    }
  });

  test("a cancel, a wire that breaks, and an end that cannot leave it where it is", async () => {
    for (const phase of ["round", "suspend", "stop"]) {
      const [a, b] = linkPair(), cancel = new AbortController(), frames = free(one), gone = receiveDomain(one, b, { open });
      gone.catch(() => {});
      await assert.rejects(sendDomain(guest.domain, a, { configJson, live: true, signal: cancel.signal, progress: (p) => { if (p.phase === phase) cancel.abort(new Error(`enough of ${phase}`)); } }), new RegExp(`enough of ${phase}`));
      await assert.rejects(gone);
      await guest.ok("true");
      while (free(one) !== frames) await new Promise((resolve) => setTimeout(resolve, 5));        // what it had been told to decode ahead is worked off
    }
    for (const phase of ["round", "stop"]) {
      const [a, b] = linkPair(), gone = receiveDomain(one, b, { open });
      gone.catch(() => {});
      await assert.rejects(sendDomain(guest.domain, a, { configJson, live: true, progress: (p) => { if (p.phase === phase) a.break(); } }), /mover is not moved and runs on here: .*(?:the wire is cut|cut short)/);
      await assert.rejects(gone, UserError);
      await guest.ok("true");
    }
    const [a, b] = linkPair(), gone = receiveDomain(one, b, { open: async () => { throw new UserError("xvda: Somebody else has it open"); } });
    gone.catch(() => {});
    await assert.rejects(sendDomain(guest.domain, a, { configJson, live: false }), /mover is not moved and runs on here: xvda: Somebody else has it open/);
    await assert.rejects(gone, /Somebody else has it open/);
    await assert.rejects(sendDomain(guest.domain, { readable: streamOf(new TextEncoder().encode("220 mail")), writable: collector().stream }, { configJson, live: true }), /it does not speak as xl does/);
    await isWhole();
    assert.deepEqual(one.domains, []);
  });

  test("who has it is asked when the wire breaks while it is handed over, and it runs once", async () => {
    // GO is lost: the receiver hears that it is given
    let [a, b] = linkPair();
    const cut: Link = { readable: a.readable, writable: cutAt(a, "domain is yours") };
    const sent = sendDomain(guest.domain, cut, { configJson, live: true }), got = receiveDomain(one, b, { open });
    const [sender, receiver] = await Promise.all([sent, got].map((p) => p.then(() => assert.fail("nobody knows"), (e: unknown) => { assert.ok(e instanceof MigrationInDoubt, String(e)); return e; }))) as [MigrationInDoubt, MigrationInDoubt];
    assert.equal(await sender.settle(standingOf(one, sender.migration)), undefined);
    const here = await receiver.settle(standingOf(two, receiver.migration));
    assert.ok(here);
    assert.equal(await sender.settle(standingOf(one, sender.migration)), null);
    assert.deepEqual([two.domains.length, one.domains.length], [0, 1]);
    guest = new Talk(here, guest);
    await isWhole();
    // the receiver is lost with what it had, before it wrote that it runs: the sender takes it up again
    [a, b] = linkPair();
    const lost: Link = { readable: a.readable, writable: cutAt(a, "domain is yours") }, again = receiveDomain(two, b, { open });
    const doubtful = await sendDomain(guest.domain, lost, { configJson, live: true }).then(() => assert.fail("nobody knows"), (e: MigrationInDoubt) => e);
    const other = await again.then(() => assert.fail("nobody knows"), (e: MigrationInDoubt) => e);
    assert.equal(await other.settle("kept"), null);
    assert.equal(await doubtful.settle(standingOf(two, doubtful.migration)), guest.domain);
    assert.deepEqual([two.domains.length, one.domains.length], [0, 1]);
    await isWhole();
  });
  function cutAt(a: Link & { break(): void }, word: string): WritableStream<Uint8Array> {
    const writer = a.writable.getWriter();
    return new WritableStream({ write: (chunk) => (new TextDecoder().decode(chunk).startsWith(word) ? a.break() : writer.write(chunk)) });
  }

  test("a guest that goes down after all this goes down in order", async () => {
    assert.ok(guest.domain.control.shutdown("poweroff"));
    assert.equal((await guest.domain.wait()).reason, "poweroff");
    // the guest's own ARP, where it came to, brought the bridges after it; nothing else was to be said of its devices
    assert.ok(told.some((s) => s.startsWith(`xenbr0: ${MAC} is behind to-one and vif`)), told.join("\n"));
    assert.deepEqual(told.filter((s) => /xvda|vif/.test(s) && !s.startsWith(`xenbr0: ${MAC} is behind`)), []);
  });
});
