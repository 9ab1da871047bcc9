/** From the guest: a queue's transmit ring, public/io/netif.h "Guest transmit". Frames are copied out of the granted pages at once, so no grant is held while a frame waits. */
import { NETIF_RSP, NetifExtraInfo as EXTRA, NetifTxRequest as REQ, NetifTxResponse as RSP, NETTXF, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE, XEN_NETIF_GSO_TYPE } from "../../abi/io/netif.ts";
import { MSS_BYTES_MIN } from "../../network/offload.ts";
import type { Frame, Gso } from "../../network/port.ts";
import { PageGate } from "../gate.ts";
import type { BackRing } from "../ring.ts";
import { FRAME_BYTES_MIN, type NetDevice, PAGE_BYTES, POLL_BYTES, pollCost } from "./device.ts";

/** Slots of one frame, extra infos not counted. XEN_NETIF_NR_SLOTS_MIN and what front ends sent beyond it; a longer chain has lost its end. */
const SLOTS_MAX = 20;
/** A peer that stays full for so long loses what is sent until it takes something: one stuck end may not stop what the guest sends to others. */
const PEER_FULL_MS = 200;
/** 802.1Q tag */
const TAG_BYTES = 4;

/** One queue's transmit half. */
export class TxQueue {
  readonly #device: NetDevice;
  readonly #ring: BackRing;
  readonly #notify: () => void;
  /** of the frame being read: its slots, the id of each of its ring entries */
  readonly #grefs = new Uint32Array(SLOTS_MAX);
  readonly #offsets = new Uint16Array(SLOTS_MAX);
  readonly #sizes = new Uint16Array(SLOTS_MAX);
  readonly #ids = new Uint16Array(SLOTS_MAX);
  /** ring entries of the frame read last */
  #nrEntries = 0;
  /** waits for the rate's credit */
  #unpaid: Frame | null = null;
  /** wait for room at the peer: of one frame, from #nrSent on */
  #unsent: Frame[] = [];
  #nrSent = 0;
  #isDropping = false;
  readonly #gate: PageGate;
  #isPolling = false;
  #isClosed = false;
  #cancelWait: (() => void) | null = null;
  #cancelAgain: (() => void) | null = null;
  nrFrames = 0;
  nrBytes = 0;
  /** frames answered with an error, and good ones that nobody took */
  nrErrors = 0;
  nrDropped = 0;
  nrEvents = 0;

  /** @param notify sends the event for transmit responses */
  constructor(device: NetDevice, ring: BackRing, notify: () => void) {
    this.#device = device;
    this.#ring = ring;
    this.#notify = notify;
    this.#gate = new PageGate(device.gnt, () => this.poll());
  }

  /** Take what the guest sends, as long as the peer, the rate and the other tasks of this thread allow. */
  poll(): void {
    if (this.#isPolling || this.#cancelAgain || this.#isClosed || this.#device.isDead) return;
    this.#isPolling = true;
    const ring = this.#ring;
    try {
      let budget = POLL_BYTES;
      while (this.#deliver() && (ring.nrRequests > 0 || ring.finalCheck())) {
        if (budget <= 0) {
          this.#cancelAgain ??= this.#device.timers.after(0, () => {
            this.#cancelAgain = null;
            this.poll();
          });
          break;
        }
        if (this.#gate.isShut(this.#nextGrants())) break;
        const frame = this.#takeFrame();
        budget -= pollCost(frame?.bytes.length ?? 0, this.#nrEntries);
        if (this.#device.isDead) break;
        if (frame) this.#unpaid = frame;
      }
      if (ring.dead !== null) this.#device.die(`transmit ring: ${ring.dead}`);
    } finally {
      this.#isPolling = false;
    }
    if (this.#isClosed || !ring.push()) return;
    this.nrEvents++;
    this.#notify();
  }
  /** The peer has room again, or the cable was pulled. */
  ready(): void {
    if (this.#unsent.length === 0) return;
    if (this.#isPolling) queueMicrotask(() => this.poll());
    else this.poll();
  }

  /** Send what waits. @returns whether nothing waits any more */
  #deliver(): boolean {
    const { rate } = this.#device, unpaid = this.#unpaid;
    if (unpaid) {
      const waitMs = rate?.waitMs(unpaid.bytes.length) ?? 0;
      if (waitMs > 0) return this.#wait(waitMs, () => {});
      this.#stopWaiting();
      rate?.spend(unpaid.bytes.length);
      this.#unpaid = null;
      const { peer } = this.#device;
      this.#unsent = peer ? this.#device.suited(unpaid, peer) : [];
      this.#nrSent = 0;
      if (this.#unsent.length === 0) this.nrDropped++;
    }
    while (this.#nrSent < this.#unsent.length) {
      const { peer } = this.#device;
      if (peer?.receive(this.#unsent[this.#nrSent]!)) this.#isDropping = false;
      else if (peer && !this.#isDropping) return this.#wait(PEER_FULL_MS, () => { this.#isDropping = true; });
      else this.nrDropped++;
      if (this.#isClosed) return false;  // by what the frame led to
      this.#nrSent++;
    }
    this.#stopWaiting();
    this.#unsent = [];
    return true;
  }
  #wait(delayMs: number, then: () => void): false {
    this.#cancelWait ??= this.#device.timers.after(delayMs, () => {
      this.#cancelWait = null;
      then();
      this.poll();
    });
    return false;
  }
  #stopWaiting(): void {
    this.#cancelWait?.();
    this.#cancelWait = null;
  }

  /**
   * Take the ring entries of one frame and answer them. What leaves unclear where the next frame begins is the device's end; what is wrong with one frame is answered
   * NETIF_RSP_ERROR. @returns null when there is no frame to send
   */
  #takeFrame(): Frame | null {
    const ring = this.#ring, view = ring.requestView;
    if (!ring.take()) return null;
    const flags = REQ.flags.get(view, 0), sizeBytes = REQ.size.get(view, 0);
    this.#keepSlot(0);
    let gso: Gso | null = null, isControl = false, status: number = NETIF_RSP.OKAY, nrExtras = 0, nrSlots = 1, rest = 0;
    for (let more = (flags & NETTXF.extra_info) !== 0; more; nrExtras++) {
      if (!ring.take()) return this.#die("an extra info is missing");
      const type = EXTRA.type.get(view, 0);
      if (type === XEN_NETIF_EXTRA_TYPE.NONE || type >= XEN_NETIF_EXTRA_TYPE.MAX) return this.#die(`an extra info has the type ${type}`);
      if (type === XEN_NETIF_EXTRA_TYPE.GSO) {
        gso = this.#gsoOf(view);
        if (!gso) status = NETIF_RSP.ERROR;
      }
      isControl ||= type === XEN_NETIF_EXTRA_TYPE.MCAST_ADD || type === XEN_NETIF_EXTRA_TYPE.MCAST_DEL;
      more = (EXTRA.flags.get(view, 0) & XEN_NETIF_EXTRA_FLAG_MORE) !== 0;
    }
    for (let more = (flags & NETTXF.more_data) !== 0; more; nrSlots++) {
      if (nrSlots === SLOTS_MAX) return this.#die(`a frame has more than ${SLOTS_MAX} slots`);
      if (!ring.take()) return this.#die(`slot ${nrSlots} of a frame is missing`);
      this.#keepSlot(nrSlots);
      rest += this.#sizes[nrSlots]!;
      more = (REQ.flags.get(view, 0) & NETTXF.more_data) !== 0;
    }
    this.#nrEntries = nrSlots + nrExtras;
    // Of a frame of 64 KiB or more the size has overflowed: rest is the larger.
    if (rest > sizeBytes || sizeBytes < FRAME_BYTES_MIN || (gso && !(flags & NETTXF.csum_blank))) status = NETIF_RSP.ERROR;
    else this.#sizes[0] = sizeBytes - rest;
    for (let i = 0; i < nrSlots && status === NETIF_RSP.OKAY; i++) if (this.#offsets[i]! + this.#sizes[i]! > PAGE_BYTES) status = NETIF_RSP.ERROR;
    if (status === NETIF_RSP.OKAY && !isControl && !gso && sizeBytes > this.#device.mtu + FRAME_BYTES_MIN + TAG_BYTES) status = NETIF_RSP.DROPPED;
    const bytes = status === NETIF_RSP.OKAY && !isControl ? this.#gather(sizeBytes, nrSlots) : null;
    if (status === NETIF_RSP.OKAY && !isControl && !bytes) status = NETIF_RSP.ERROR;
    for (let i = 0; i < nrSlots; i++) {
      this.#answer(this.#ids[i]!, status);
      if (i === 0) for (let e = 0; e < nrExtras; e++) this.#answer(0, NETIF_RSP.NULL);
    }
    if (status === NETIF_RSP.ERROR) this.nrErrors++;
    if (status === NETIF_RSP.DROPPED) this.nrDropped++;
    if (!bytes) return null;
    this.nrFrames++;
    this.nrBytes += sizeBytes;
    return { bytes, checksum: flags & NETTXF.csum_blank ? "blank" : flags & NETTXF.data_validated ? "good" : "unknown", gso };
  }
  /** The grants of the frame that comes next, as its slots say now. */
  *#nextGrants(): Generator<number> {
    const ring = this.#ring, view = ring.requestView;
    let i = 0;
    if (!ring.peek(i++)) return;
    let flags = REQ.flags.get(view, 0);
    yield REQ.gref.get(view, 0);
    if (flags & NETTXF.extra_info) do if (!ring.peek(i++)) return; while (EXTRA.flags.get(view, 0) & XEN_NETIF_EXTRA_FLAG_MORE);
    while (flags & NETTXF.more_data) {
      if (!ring.peek(i++)) return;
      flags = REQ.flags.get(view, 0);
      yield REQ.gref.get(view, 0);
    }
  }
  #keepSlot(i: number): void {
    const view = this.#ring.requestView;
    this.#grefs[i] = REQ.gref.get(view, 0);
    this.#offsets[i] = REQ.offset.get(view, 0);
    this.#sizes[i] = REQ.size.get(view, 0);
    this.#ids[i] = REQ.id.get(view, 0);
  }
  #gsoOf(view: DataView): Gso | null {
    const mss = EXTRA.gso_size.get(view, 0), type = EXTRA.gso_type.get(view, 0);
    if (mss < MSS_BYTES_MIN) return null;
    return type === XEN_NETIF_GSO_TYPE.TCPV4 ? { type: "tcpv4", mss } : type === XEN_NETIF_GSO_TYPE.TCPV6 ? { type: "tcpv6", mss } : null;
  }
  /** The one copy. @returns null when a slot's page cannot be mapped */
  #gather(sizeBytes: number, nrSlots: number): Uint8Array<ArrayBuffer> | null {
    const bytes = new Uint8Array(sizeBytes), { gnt } = this.#device;
    for (let i = 0, at = 0; i < nrSlots; i++) {
      const size = this.#sizes[i]!;
      if (size === 0) continue;
      const page = gnt.map(this.#grefs[i]!, true);
      if (typeof page === "number") {
        this.#device.complain(`grant ${this.#grefs[i]} to send from cannot be mapped (GNTST ${page})`);
        return null;
      }
      const from = page.at + this.#offsets[i]!;
      bytes.set(gnt.bytes.subarray(from, from + size), at);
      gnt.unmap(page);
      at += size;
    }
    return bytes;
  }
  #answer(id: number, status: number): void {
    RSP.id.set(this.#ring.responseView, 0, id);
    RSP.status.set(this.#ring.responseView, 0, status);
    this.#ring.put(RSP.sizeof);
  }
  #die(what: string): null {
    this.#device.die(`transmit ring: ${this.#ring.dead ?? what}`);
    return null;
  }

  close(): void {
    this.#isClosed = true;
    this.#stopWaiting();
    this.#cancelAgain?.();
    this.#unpaid = null;
    this.#unsent = [];
  }
  /** Whether a frame waits for the peer or for credit. */
  get isHeld(): boolean {
    return this.#unpaid !== null || this.#unsent.length > 0;
  }
}
