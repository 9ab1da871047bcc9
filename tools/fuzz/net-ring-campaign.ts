/**
 * A front end gone mad against the net back end: half-right and wild ring entries, wild indexes, grants that come and go, pages rewritten while they are read. The back
 * end may answer errors or stop the device; it may not throw, touch a page that is not mapped for it, pass on what no peer should see, or work without bound.
 */
import assert from "node:assert/strict";
import { NETIF_RX_SLOT_BYTES, NETIF_TX_SLOT_BYTES, NetifExtraInfo as EXTRA, NetifRxRequest as RXREQ, NetifTxRequest as TXREQ, NETTXF } from "../../src/abi/io/netif.ts";
import { SRING } from "../../src/abi/io/ring.ts";
import { GuestPages, seeded } from "../../src/drivers/fixture.ts";
import type { GrantAccess, MappedPage } from "../../src/drivers/grants.ts";
import { NetBack } from "../../src/drivers/net/back.ts";
import { LINUX, ManualTimers } from "../../src/drivers/net/fixture.ts";
import { connect, type Frame } from "../../src/network/port.ts";

const PAGE_BYTES = 4096, NR_PAGES = 40, NR_QUEUES = 2, ACTS_A_DEVICE = 150;
/** What stands in pages that are not granted, and nowhere else. */
const SECRET = 0xee;
/** One poll may map so many pages: a full budget and a frame. */
const MAPS_A_POLL = 300;

/** What happened, to see that the campaign reaches all of it. */
export type Tally = { frames: number; large: number; errors: number; given: number; deaths: number; held: number };

/** Refuses what is not in a mapped page, and lets the guest act in the middle of things. */
class Guard implements GrantAccess {
  readonly mem: GuestPages;
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly #mapped = new Set<MappedPage>();
  act = (): void => {};
  /** all that was asked for */
  readonly refs = new Set<number>();
  constructor(mem: GuestPages) {
    this.mem = mem;
    this.words = mem.words;
    const check = (from: number, to: number, isWrite: boolean): void => {
      for (const p of this.#mapped) if (from >= p.at && to <= p.at + PAGE_BYTES && !(isWrite && p.isReadonly)) return;
      throw new Error(`Bytes ${from} to ${to} were ${isWrite ? "written" : "read"} outside what is mapped`);
    };
    this.bytes = {
      subarray: (from: number, to: number) => (check(from, to, false), mem.bytes.subarray(from, to)),
      set: (source: Uint8Array, at: number) => (check(at, at + source.length, true), mem.bytes.set(source, at)),
    } as unknown as Uint8Array;
  }
  map(ref: number, isReadonly: boolean): MappedPage | number {
    const page = this.mem.map(ref, isReadonly);
    this.refs.add(ref);
    if (typeof page !== "number") this.#mapped.add(page);
    this.act();
    return page;
  }
  wrote(page: MappedPage): void { this.mem.wrote(page); }
  unmap(page: MappedPage): void {
    this.#mapped.delete(page);
    this.mem.unmap(page);
  }
}

/** A guest that owns one device, its rings filled by hand. */
class MadGuest {
  readonly rnd: (n: number) => number;
  readonly tally: Tally;
  readonly mem = new GuestPages(NR_PAGES);
  readonly guard = new Guard(this.mem);
  readonly timers = new ManualTimers();
  readonly log: string[] = [];
  readonly back: NetBack;
  /** of each queue the transmit ring's page and the receive ring's, with what stands in their req_prod */
  readonly rings: { at: number; ref: number; prod: number }[] = [];
  readonly #grants: { ref: number; at: number }[] = [];
  readonly #entry = new Uint8Array(NETIF_TX_SLOT_BYTES);
  readonly #view = new DataView(this.#entry.buffer);
  #isFull = false;

  constructor(seed: number, tally: Tally) {
    this.rnd = seeded(seed);
    this.tally = tally;
    this.mem.bytes.fill(SECRET);
    const start = this.isOne(3) ? 0xfffffff0 : 0;
    for (let i = 0; i < NR_QUEUES * 2; i++) {
      const at = this.mem.allocate();
      this.mem.bytes.fill(0, at, at + PAGE_BYTES);
      for (const [f, add] of [[SRING.req_prod, 0], [SRING.rsp_prod, 0], [SRING.req_event, 1], [SRING.rsp_event, 1]] as const) this.#store(at, f, start + add);
      this.rings.push({ at, ref: this.mem.grant(at), prod: start });
    }
    for (let i = 0; i < 20; i++) this.grantOne();
    this.back = new NetBack({ domid: 1, devid: 0, mac: "", name: "vif1.0", gnt: this.guard, timers: this.timers, log: (s) => this.log.push(s), notifyTx() {}, notifyRx() {} }, {
      queues: Array.from({ length: NR_QUEUES }, (_, i) => ({ txRef: this.rings[i * 2]!.ref, rxRef: this.rings[i * 2 + 1]!.ref })),
      features: { ...LINUX, sg: !this.isOne(5), rxNotify: !this.isOne(5) },
    });
    this.guard.refs.clear();
    this.guard.act = () => {
      if (this.isOne(200)) this.scribble();
      const g = this.#grants[this.rnd(this.#grants.length)];
      if (g && this.isOne(10)) this.#fill(g.at);
    };
    connect(this.back, { name: "peer", takesGso: true, takesBlankChecksum: true, peer: null, ready() {}, receive: (f) => this.#peerTakes(f) });
    this.back.start();
  }
  isOne(inHowMany: number): boolean { return this.rnd(inHowMany) === 0; }
  #wild(): number { return this.isOne(2) ? this.rnd(2 ** 32) : this.isOne(2) ? 0xffffffff - this.rnd(8) : this.rnd(600); }
  #store(page: number, f: { at: number }, value: number): void { Atomics.store(this.mem.words, (page + f.at) / 4, value | 0); }
  #fill(at: number): void { for (let i = 0; i < PAGE_BYTES; i += 16) this.mem.bytes.fill(this.rnd(SECRET), at + i, at + i + 16); }
  #someRef(): number { return this.isOne(60) ? this.#wild() : this.#grants[this.rnd(this.#grants.length)]?.ref ?? 0; }
  #putEntry(ring: { at: number; prod: number }, slotBytes: number): void {
    this.mem.bytes.set(this.#entry.subarray(0, slotBytes), ring.at + SRING.sizeof + ((ring.prod >>> 0) % 256) * slotBytes);
    ring.prod++;
  }
  #room(ring: { at: number; prod: number }): number {
    return this.isOne(100) ? 400 : 256 - ((ring.prod - Atomics.load(this.mem.words, (ring.at + SRING.rsp_prod.at) / 4)) >>> 0);
  }
  #push(ring: { at: number; prod: number }): void {
    if (this.isOne(150)) ring.prod += this.#wild();
    this.#store(ring.at, SRING.req_prod, ring.prod);
  }
  #peerTakes(f: Frame): boolean {
    if (this.#isFull) return false;
    assert.ok(f.bytes.buffer instanceof ArrayBuffer && f.bytes.length >= 14 && f.bytes.length <= 0xffff, `a frame of ${f.bytes.length} bytes`);
    assert.ok(f.gso ? f.gso.mss >= 48 && f.checksum === "blank" : f.bytes.length <= 1518, "a frame no peer should see");
    // A guest that sends from its rings sends what it wrote there.
    assert.ok(this.rings.some((r) => this.guard.refs.has(r.ref)) || !f.bytes.includes(SECRET), "a frame with bytes that were never granted");
    this.tally.frames++;
    if (f.bytes.length > 1518) this.tally.large++;
    if (this.isOne(40)) this.back.receive(f);
    return true;
  }

  /** Entries of a frame that is right but for now and then a field. */
  #putFrame(ring: { at: number; prod: number }): void {
    const { rnd } = this, view = this.#view, isLarge = this.isOne(3), nr = isLarge ? 1 + rnd(20) : 1 + rnd(2), sizes = Array.from({ length: nr }, () => 10 + rnd(this.isOne(4) ? 4086 : 700));
    const total = sizes.reduce((sum, n) => sum + n, 0), wrong = (right: number, inHowMany: number): number => (this.isOne(inHowMany) ? this.#wild() : right);
    for (let i = 0; i < nr; i++) {
      TXREQ.gref.set(view, 0, this.#someRef());
      TXREQ.offset.set(view, 0, wrong(rnd(4097 - sizes[i]!), 100));
      TXREQ.flags.set(view, 0, wrong((i + 1 < nr ? NETTXF.more_data : 0) | (i === 0 ? (isLarge ? NETTXF.extra_info | NETTXF.csum_blank : rnd(4)) : 0), 300));
      TXREQ.id.set(view, 0, this.#wild());
      TXREQ.size.set(view, 0, wrong(i === 0 ? total : sizes[i]!, 100));
      this.#putEntry(ring, NETIF_TX_SLOT_BYTES);
      for (let more = i === 0 && isLarge; more;) {
        more = this.isOne(5);
        EXTRA.type.set(view, 0, wrong(this.isOne(4) ? 1 + rnd(4) : 1, 200));
        EXTRA.flags.set(view, 0, +more);
        EXTRA.gso_size.set(view, 0, wrong(536 + rnd(2000), 20));
        EXTRA.gso_type.set(view, 0, wrong(1 + rnd(2), 20));
        this.#putEntry(ring, NETIF_TX_SLOT_BYTES);
      }
    }
  }
  scribble(): void {
    const { at } = this.rings[this.rnd(this.rings.length)]!;
    if (this.isOne(4)) this.#store(at, { at: 4 * this.rnd(4) }, this.#wild());
    else this.mem.bytes[at + (this.isOne(20) ? this.rnd(PAGE_BYTES) : SRING.sizeof + this.rnd(PAGE_BYTES - SRING.sizeof))] = this.rnd(SECRET);
  }
  transmit(): void {
    const q = this.rnd(NR_QUEUES), ring = this.rings[q * 2]!;
    for (let n = this.rnd(6); n > 0 && this.#room(ring) >= 40; n--) this.#putFrame(ring);
    this.#push(ring);
    this.back.pollTx(q);
  }
  post(): void {
    const q = this.rnd(NR_QUEUES), ring = this.rings[q * 2 + 1]!;
    for (let n = Math.min(this.rnd(30), this.#room(ring)); n > 0; n--) {
      RXREQ.id.set(this.#view, 0, this.#wild());
      RXREQ.gref.set(this.#view, 0, this.#someRef());
      this.#putEntry(ring, NETIF_RX_SLOT_BYTES);
    }
    this.#push(ring);
    this.back.pollRx(q);
  }
  receive(): void {
    const { rnd } = this, isLarge = this.isOne(3);
    for (let n = rnd(12); n > 0; n--) {
      const bytes = new Uint8Array(this.isOne(20) ? rnd(70000) : isLarge ? 1000 + rnd(30000) : 14 + rnd(1500)).fill(rnd(SECRET));
      this.back.receive({ bytes, checksum: "good", gso: isLarge ? { type: "tcpv4", mss: rnd(70000) } : null });
    }
  }
  turnPeer(): void {
    this.#isFull = !this.#isFull;
    if (!this.#isFull) this.back.ready();
  }
  passTime(): void { this.timers.advance([0, 1, 30, 200, 10_000][this.rnd(5)]!); }
  grantOne(): void {
    if (this.#grants.length >= 25) return;
    const at = this.mem.allocate();
    this.#fill(at);
    this.#grants.push({ at, ref: this.mem.grant(at, this.isOne(2)) });
  }
  revokeOne(): void {
    const [g] = this.#grants.splice(this.rnd(this.#grants.length), 1);
    if (!g) return;
    this.mem.revoke(g.ref);
    this.mem.bytes.fill(SECRET, g.at, g.at + PAGE_BYTES);
    this.mem.release(g.at);
  }
  /** Pages that are neither granted nor rings are as they were. */
  checkPages(): void {
    const known = new Set([...this.rings, ...this.#grants].map((page) => page.at));
    for (let at = 0; at < NR_PAGES * PAGE_BYTES; at += PAGE_BYTES) assert.ok(known.has(at) || this.mem.bytes.subarray(at, at + PAGE_BYTES).every((b) => b === SECRET), `page ${at} was written`);
  }
}

/** What a guest does, as often as its weight says. */
const ACTS: readonly (readonly [weight: number, act: (g: MadGuest) => void])[] = [
  [40, (g) => g.transmit()], [20, (g) => g.post()], [15, (g) => g.receive()], [8, (g) => g.passTime()], [6, (g) => g.turnPeer()], [4, (g) => g.revokeOne()], [5, (g) => g.grantOne()],
  [1, (g) => g.scribble()], [2, (g) => g.back.pollRx(g.rnd(4))], [2, (g) => g.back.pollTx(g.rnd(4))],
];
const WEIGHTS = ACTS.flatMap(([weight, act]) => Array<typeof act>(weight).fill(act));

/** One device from its making to its end. @throws when the back end misbehaves */
function oneDevice(seed: number, tally: Tally): void {
  const g = new MadGuest(seed, tally), { back, mem, timers, log } = g;
  for (let i = 0; i < ACTS_A_DEVICE; i++) {
    const nrMaps = mem.nrMaps, { nowMs } = timers;
    WEIGHTS[g.rnd(WEIGHTS.length)]!(g);
    if (timers.nowMs === nowMs) assert.ok(mem.nrMaps - nrMaps <= MAPS_A_POLL * NR_QUEUES, `${mem.nrMaps - nrMaps} pages mapped in one poll`);
    assert.equal(mem.nrMapped, NR_QUEUES * 2, "pages mapped between polls");
    assert.deepEqual(mem.faults, []);
    for (const { tx, rx } of back.describe().queues) {
      assert.ok(rx.nrBytesWaiting <= 1 << 20 && rx.nrWaiting <= 2048, "too much waits");
      if (tx.isHeld) tally.held++;
    }
    if (i % 50 === 0) g.checkPages();
  }
  for (const { tx, rx } of back.describe().queues) {
    tally.errors += tx.nrErrors + rx.nrErrors;
    tally.given += rx.nrFrames;
  }
  if (back.isDead) tally.deaths++;
  assert.ok(log.length <= 4, `${log.length} lines logged`);
  back.close();
  assert.equal(mem.nrMapped, 0);
  assert.equal(timers.nrWaiting, 0);
}

/** Run devices of seeds `seed`, `seed` + 1 ... while `goOn(number done)`. @throws with the seed in the message */
export function fuzzNetRings(seed: number, goOn: (nrDone: number) => boolean): Tally & { nrDone: number } {
  const tally: Tally = { frames: 0, large: 0, errors: 0, given: 0, deaths: 0, held: 0 };
  let nrDone = 0;
  for (; goOn(nrDone); nrDone++) {
    try {
      oneDevice(seed + nrDone, tally);
    } catch (e) {
      throw new Error(`Seed ${seed + nrDone}: ${(e as Error).message}`, { cause: e });
    }
  }
  return { ...tally, nrDone };
}
