/** For tests of the net back end: a front end over a guest's memory without a hypervisor, a peer that records, and time that stands still. */
import {
  NETIF_RSP, NETIF_RX_SLOT_BYTES, NETIF_TX_SLOT_BYTES, NETRXF, NetifExtraInfo as EXTRA, NetifRxRequest as RXREQ, NetifRxResponse as RXRSP, NetifTxRequest as TXREQ,
  NetifTxResponse as TXRSP, NETTXF, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE, XEN_NETIF_GSO_TYPE,
} from "../../abi/io/netif.ts";
import { concat } from "../../base/bytes.ts";
import { connect, type Frame, type Gso, type Port } from "../../network/port.ts";
import { FrontRing, GuestPages } from "../fixture.ts";
import { NetBack, type NetBackOptions, type NetFront } from "./back.ts";
import type { Timers } from "./device.ts";
import type { FrontFeatures } from "./features.ts";

const PAGE_BYTES = 4096, TX = "tx", RX = "rx";
const signed = (status: number): number => (status << 16) >> 16;

/** Time passes only in `advance`. */
export class ManualTimers implements Timers {
  nowMs = 0;
  readonly #due = new Set<{ atMs: number; act: () => void }>();
  after(delayMs: number, act: () => void): () => void {
    const one = { atMs: this.nowMs + delayMs, act };
    this.#due.add(one);
    return () => { this.#due.delete(one); };
  }
  get nrWaiting(): number { return this.#due.size; }
  advance(byMs: number): void {
    const untilMs = this.nowMs + byMs;
    for (;;) {
      let first: { atMs: number; act: () => void } | undefined;
      for (const one of this.#due) if (one.atMs <= untilMs && (!first || one.atMs < first.atMs)) first = one;
      if (!first) break;
      this.#due.delete(first);
      this.nowMs = Math.max(this.nowMs, first.atMs);
      first.act();
    }
    this.nowMs = untilMs;
  }
}

/** The other end of the cable. */
export class Recorder implements Port {
  readonly name = "recorder";
  takesGso = true;
  takesBlankChecksum = true;
  peer: Port | null = null;
  isFull = false;
  readonly frames: Frame[] = [];
  nrReady = 0;
  onReady = (): void => {};
  receive(frame: Frame): boolean {
    if (this.isFull) return false;
    this.frames.push(frame);
    return true;
  }
  ready(): void {
    this.nrReady++;
    this.onReady();
  }
}

/** A part of a frame to send, at an offset in a page of its own. */
export type Piece = { bytes: Uint8Array; offset: number };
/** An entry written to the transmit ring by hand, for frames that are wrong. */
export type RawTx = { gref: number; offset: number; flags: number; id: number; size: number };

/** One pair of rings. */
class FrontQueue {
  readonly mem: GuestPages;
  readonly tx: FrontRing;
  readonly rx: FrontRing;
  readonly #sent = new Map<number, { ref: number; at: number }>();
  #nextId = 1;
  /** by slot of the receive ring */
  readonly #buffers = new Map<number, { ref: number; at: number; id: number }>();
  readonly received: Frame[] = [];
  /** status of each transmit response but NULL */
  readonly statuses: number[] = [];
  nrNulls = 0;
  nrRxErrors = 0;
  readonly faults: string[] = [];
  #parts: Uint8Array[] = [];
  #first: { checksum: Frame["checksum"]; gso: Gso | null } | null = null;
  #more = false;
  #wantsExtra = false;
  #isBad = false;

  constructor(mem: GuestPages, start: number) {
    this.mem = mem;
    this.tx = new FrontRing(mem, 1, NETIF_TX_SLOT_BYTES, start);
    this.rx = new FrontRing(mem, 1, NETIF_RX_SLOT_BYTES, start);
  }
  rawTx(entry: RawTx): void {
    const b = new Uint8Array(NETIF_TX_SLOT_BYTES), v = new DataView(b.buffer);
    for (const key of ["gref", "offset", "flags", "id", "size"] as const) TXREQ[key].set(v, 0, entry[key]);
    this.tx.put(b);
  }
  rawExtra(type: number, flags: number, gsoSize = 0, gsoType = 0): void {
    const b = new Uint8Array(NETIF_TX_SLOT_BYTES), v = new DataView(b.buffer);
    EXTRA.type.set(v, 0, type);
    EXTRA.flags.set(v, 0, flags);
    EXTRA.gso_size.set(v, 0, gsoSize);
    EXTRA.gso_type.set(v, 0, gsoType);
    this.tx.put(b);
  }
  /** Put a frame on the transmit ring, a slot a piece. @returns false when the ring has no room */
  send(pieces: Piece[], checksum: Frame["checksum"] = "unknown", gso: Gso | null = null): boolean {
    if (this.tx.nrFree < pieces.length + (gso ? 1 : 0)) return false;
    const total = pieces.reduce((sum, p) => sum + p.bytes.length, 0);
    for (const [i, p] of pieces.entries()) {
      const at = this.mem.allocate(), ref = this.mem.grant(at, true), id = this.#nextId;
      this.mem.bytes.set(p.bytes, at + p.offset);
      this.#sent.set(id, { ref, at });
      do this.#nextId = (this.#nextId % 0xffff) + 1; while (this.#sent.has(this.#nextId));
      let flags = i + 1 < pieces.length ? NETTXF.more_data : 0;
      if (i === 0) flags |= (gso ? NETTXF.extra_info : 0) | (checksum === "blank" ? NETTXF.csum_blank | NETTXF.data_validated : checksum === "good" ? NETTXF.data_validated : 0);
      this.rawTx({ gref: ref, offset: p.offset, flags, id, size: i === 0 ? total : p.bytes.length });
      if (i === 0 && gso) this.rawExtra(XEN_NETIF_EXTRA_TYPE.GSO, 0, gso.mss, gso.type === "tcpv4" ? XEN_NETIF_GSO_TYPE.TCPV4 : XEN_NETIF_GSO_TYPE.TCPV6);
    }
    return true;
  }
  /** Take transmit responses: grants end, pages are free again. */
  reap(): void {
    do for (let got = this.tx.take(TXRSP.sizeof); got; got = this.tx.take(TXRSP.sizeof)) {
      const v = new DataView(got.response.buffer), id = TXRSP.id.get(v, 0), status = signed(TXRSP.status.get(v, 0)), sent = this.#sent.get(id);
      if (status === NETIF_RSP.NULL) {
        this.nrNulls++;
        continue;
      }
      this.statuses.push(status);
      if (!sent) continue;
      this.#sent.delete(id);
      this.mem.revoke(sent.ref);
      this.mem.release(sent.at);
    } while (this.tx.finalCheck());
  }
  /** Give buffers. @returns whether the back end wants an event */
  post(nr: number): boolean {
    for (; nr > 0 && this.rx.nrFree > 0; nr--) {
      const at = this.mem.allocate();
      this.#postPage({ at, ref: this.mem.grant(at), id: this.rx.reqProdPvt & 0xffff });
    }
    return this.rx.push();
  }
  /** Give a buffer by a grant of any number. */
  postRef(ref: number, id: number): boolean {
    this.#postPage({ at: 0, ref, id });
    return this.rx.push();
  }
  #postPage(buffer: { at: number; ref: number; id: number }): void {
    const b = new Uint8Array(NETIF_RX_SLOT_BYTES), v = new DataView(b.buffer);
    RXREQ.id.set(v, 0, buffer.id);
    RXREQ.gref.set(v, 0, buffer.ref);
    this.#buffers.set(this.rx.put(b), buffer);
  }
  /** Take receive responses and put frames together. */
  take(): void {
    do for (let got = this.rx.take(); got; got = this.rx.take()) {
      const v = new DataView(got.response.buffer), buffer = this.#buffers.get(got.slot)!;
      this.#buffers.delete(got.slot);
      if (buffer.at !== 0) this.mem.revoke(buffer.ref);
      if (this.#wantsExtra) this.#takeExtra(v);
      else this.#takePart(v, buffer);
      if (buffer.at !== 0) this.mem.release(buffer.at);
    } while (this.rx.finalCheck());
  }
  #takeExtra(v: DataView): void {
    const type = EXTRA.gso_type.get(v, 0);
    if (EXTRA.type.get(v, 0) !== XEN_NETIF_EXTRA_TYPE.GSO || EXTRA.flags.get(v, 0) & XEN_NETIF_EXTRA_FLAG_MORE) this.faults.push("an extra info that is not one GSO");
    this.#first!.gso = { type: type === XEN_NETIF_GSO_TYPE.TCPV4 ? "tcpv4" : "tcpv6", mss: EXTRA.gso_size.get(v, 0) };
    this.#wantsExtra = false;
    if (!this.#more) this.#finish();
  }
  #takePart(v: DataView, buffer: { ref: number; at: number; id: number }): void {
    const flags = RXRSP.flags.get(v, 0), status = signed(RXRSP.status.get(v, 0)), offset = RXRSP.offset.get(v, 0);
    if (RXRSP.id.get(v, 0) !== buffer.id) this.faults.push(`a response with id ${RXRSP.id.get(v, 0)} in the slot of ${buffer.id}`);
    if (offset + status > PAGE_BYTES) this.faults.push(`a response of ${status} bytes at ${offset}`);
    this.#first ??= { checksum: flags & NETRXF.csum_blank ? "blank" : flags & NETRXF.data_validated ? "good" : "unknown", gso: null };
    if (status < 0) this.#isBad = true;
    else this.#parts.push(this.mem.bytes.slice(buffer.at + offset, buffer.at + offset + status));
    this.#more = (flags & NETRXF.more_data) !== 0;
    this.#wantsExtra = (flags & NETRXF.extra_info) !== 0;
    if (!this.#more && !this.#wantsExtra) this.#finish();
  }
  #finish(): void {
    if (this.#isBad) this.nrRxErrors++;
    else this.received.push({ bytes: concat(this.#parts), ...this.#first! });
    this.#parts = [];
    this.#first = null;
    this.#isBad = false;
  }
}

/** What a Linux front end says of itself. */
export const LINUX: FrontFeatures = { sg: true, gsoTcpv4: true, gsoTcpv6: true, noCsumOffload: false, ipv6CsumOffload: true, rxNotify: true, requestRxCopy: true };

/** A guest with one network device, its back end and the cable's other end. */
export class NetGuest {
  readonly mem: GuestPages;
  readonly queues: FrontQueue[];
  readonly log: string[] = [];
  readonly events: { half: "tx" | "rx"; queue: number }[] = [];
  readonly timers = new ManualTimers();
  readonly peer = new Recorder();
  readonly back: NetBack;
  readonly deaths: string[] = [];

  constructor(options: { nrQueues?: number; features?: Partial<FrontFeatures>; nrPages?: number; start?: number; back?: Partial<NetBackOptions> } = {}) {
    this.mem = new GuestPages(options.nrPages ?? 1200);
    this.queues = Array.from({ length: options.nrQueues ?? 1 }, () => new FrontQueue(this.mem, options.start ?? 0));
    this.back = new NetBack({
      domid: 3, devid: 0, mac: "00:16:3e:00:00:01", name: "vif3.0", gnt: this.mem, timers: this.timers, log: (s) => this.log.push(s), onDead: (why) => this.deaths.push(why),
      notifyTx: (queue) => this.events.push({ half: TX, queue }), notifyRx: (queue) => this.events.push({ half: RX, queue }), ...options.back,
    }, this.front(options.features));
    connect(this.back, this.peer);
    this.back.start();
  }
  front(features: Partial<FrontFeatures> = {}): NetFront {
    return { queues: this.queues.map((q) => ({ txRef: q.tx.refs[0]!, rxRef: q.rx.refs[0]! })), features: { ...LINUX, ...features } };
  }
  /** The first queue. */
  get q(): FrontQueue { return this.queues[0]!; }
  /** Show what was put on the transmit rings, with the events that are due. */
  kick(): void {
    for (const [nr, q] of this.queues.entries()) if (q.tx.push()) this.back.pollTx(nr);
  }
  /** Do what the events so far ask for. */
  serve(): void {
    for (const { half, queue } of this.events.splice(0)) {
      if (half === TX) this.queues[queue]!.reap();
      else this.queues[queue]!.take();
    }
  }
}
