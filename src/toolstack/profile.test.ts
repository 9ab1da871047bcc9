import assert from "node:assert/strict";
import { test } from "node:test";
import { SymbolTable } from "../builder/symbols.ts";
import type { DomainTally, PcpuProfile, Place } from "../hypervisor/profile.ts";
import type { DomainReport } from "./domain.ts";
import { profileReport, profileText } from "./profile.ts";

const KERNEL = -0x7f000000;
const life = (domid: number, name: string): DomainReport =>
  ({ domid, name, bootMs: null, firstOutputMs: null, aliveMs: 1, instructions: 1, hypercalls: 1, exits: { slice: 3, halt: 1000 * domid }, memoryMiB: 1 });
/** A place with as many short as long runs, which take 1 and 1 + `us` microseconds. */
const place = (rip: number, nr: number, us: number, cpl = 0, isMasked = false): Place => ({ rip, cpl, isMasked, nrShort: nr, shortMs: nr / 1000, nrLong: nr, longMs: nr * (1 + us) / 1000 });
const tally = (domid: number, places: Place[], more: Partial<DomainTally> = {}): DomainTally => ({ domid, guestMs: 1500, hypercallMs: 1, places, nrLost: 0, hypercalls: [], exceptions: [], interrupts: [], ...more });
const pcpu = (index: number, domains: DomainTally[]): PcpuProfile => ({ index, loopMs: 4000, idleMs: 1000, counters: { misses: 20, translateMs: 250 }, domains });
const symbols = new Map([["a", new SymbolTable([{ address: KERNEL, type: "T", name: "quick" }, { address: KERNEL + 64, type: "t", name: "slow\x1b[2J" }])]]);

const report = profileReport([
  pcpu(1, [tally(1, [place(KERNEL + 4, 100, 1), place(KERNEL + 8, 100, 1, 0, true), place(KERNEL + 80, 50, 11), place(0x401234, 10, 25, 3), place(0x401fff, 10, 25, 3)], {
    hypercalls: [{ nr: 29, count: 2, ms: 1 }, { nr: 64, count: 1, ms: 0 }],
    exceptions: [{ vector: 14, errorCode: 7, count: 5 }, { vector: 14, errorCode: 20, count: 6 }, { vector: 13, errorCode: -1, count: 1 }], interrupts: [{ vector: 0xf3, count: 1234 }],
  })]),
  pcpu(0, [tally(2, [place(KERNEL + 5, 50, 1)], { nrLost: 9, hypercalls: [{ nr: 29, count: 1, ms: 2 }] }), tally(3, [place(0x100005, 1, 1)])]),
], [life(1, "a"), life(2, "a"), life(3, "b")], symbols);

test("time is told by what jumps take, not by how many there are, for all lives of a domain together", () => {
  const [a, b] = report.domains, share = (x: number): number => Math.round(x * 1000) / 1000;
  // 500 samples of 1 us, 100 of 11, 40 of 25; the shrinking of the short runs' mean moves nothing, as it is 1 us everywhere
  assert.deepEqual(a!.places.map((x) => [x.where, x.name, share(x.share), share(x.maskedShare), x.samples]),
    [["kernel", "slow\x1b[2J", share(1100 / 2600), 0, 100], ["user", "0x401000", share(1000 / 2600), 0, 40], ["kernel", "quick", share(500 / 2600), 0.4, 500]]);
  assert.deepEqual([a!.samples, a!.nrLost, a!.guestMs, share(a!.userShare), share(a!.maskedShare)], [640, 9, 3000, share(1000 / 2600), share(0.4 * 500 / 2600)]);
  assert.deepEqual(a!.exits, { slice: 6, halt: 3000 });
  assert.deepEqual(a!.hypercalls, { sched_op: { count: 3, ms: 3 }, unknown: { count: 1, ms: 0 } });
  assert.deepEqual(a!.exceptions, { "#PF user write (present)": 5, "#PF user fetch": 6, "#GP": 1 });
  assert.deepEqual(a!.interrupts, { "0xf3": 1234 });
  assert.deepEqual(b!.places, [{ where: "kernel", name: "0x100000", share: 1, maskedShare: 0, samples: 2 }]);
  assert.deepEqual(report.engine, { misses: 40, translateMs: 500 });
  assert.deepEqual(report.pcpus.map((p) => [p.index, p.guestMs]), [[0, 3000], [1, 1500]]);
  assert.deepEqual(JSON.parse(JSON.stringify(report)), report);
});

test("a place whose short runs took longer than its long ones has no time below nothing", () => {
  const odd: Place = { rip: KERNEL, cpl: 0, isMasked: false, nrShort: 2, shortMs: 0.02, nrLong: 2, longMs: 0.004 };
  const { domains: [d] } = profileReport([pcpu(0, [tally(1, [odd, place(KERNEL + 64, 100, 1)])])], [life(1, "a")], symbols);
  assert.deepEqual(d!.places.map((x) => [x.name, x.share]), [["slow\x1b[2J", 1], ["quick", 0]]);
});

test("the text has its sections, and nothing of the guest's commands the terminal", () => {
  const text = profileText(report);
  assert.match(text, /^profile\n {2}pCPU 0 {6}3\.00 s in guests \(translating 0\.25 s of it\), 1\.00 s asleep, 0\.00 s between\n {2}pCPU 1 /);
  assert.match(text, /\na: 3\.00 s, 640 samples; kernel 61\.5 %, user 38\.5 %, interrupts off 7\.7 %\n +time +samples +irqs off +where\n +42\.3 % +100 +0\.0 % +kernel +slow\?\[2J\n +38\.5 % +40 +0\.0 % +user +0x401000\n/);
  assert.match(text, /\n {2}9 samples more were at places for which there was no room\n/);
  assert.match(text, /\n {2}exits {7}halt 3,000, slice 6\n {2}hypercalls {2}sched_op 3 \(3\.0 ms\), unknown 1 \(0\.0 ms\)\n {2}exceptions {2}#PF user fetch 6, #PF user write \(present\) 5, #GP 1\n {2}interrupts {2}0xf3 1,234\n/);
  assert.match(text, /\nb: .*\n.*\n.*0x100000\n {2}the kernel carries no symbols; --symbols FILE names its functions\n/);
  assert.match(text, /\nengine\n {2}counters {4}misses 40, translating 0\.50 s$/);
  assert.doesNotMatch(text, /[\x00-\x09\x0b-\x1f\x7f]/);
  const none = profileText(profileReport([pcpu(0, [])], [life(1, "a")], new Map()));
  assert.match(none, /\na: 0\.00 s, 0 samples; .*\n {2}too short a life for samples\n {2}exits .*\n {2}hypercalls {2}none\n/);
  assert.ok(profileText({ ...report, engine: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`counter${i}`, i])) }).split("\n").every((row) => row.length < 140));
});
