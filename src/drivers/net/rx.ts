/** To the guest: a queue's receive ring, public/io/netif.h "Guest receive". Responses stand in the slots of their requests, in order: front ends rely on it. */
import { NETIF_RSP, NETRXF, NetifExtraInfo as EXTRA, NetifRxRequest as REQ, NetifRxResponse as RSP, XEN_NETIF_EXTRA_TYPE, XEN_NETIF_GSO_TYPE } from "../../abi/io/netif.ts";
import type { Frame } from "../../network/port.ts";
import { PageGate } from "../gate.ts";
import type { BackRing } from "../ring.ts";
import { FRAME_BYTES_MAX, FRAME_BYTES_MIN, type NetDevice, PAGE_BYTES, POLL_BYTES, pollCost } from "./device.ts";

/** What waits for receive requests: beyond it the sender waits. */
export const QUEUE_BYTES_MAX = 1 << 20, QUEUE_FRAMES_MAX = 2048;
/** A front end that gives no buffers for so long while frames wait loses them, and all that come until it does. */
const STALL_MS = 10_000;
/** A front end that sends no events for its receive requests is looked after so often while frames wait. */
const LOOK_MS = 30;

const slotsOf = (frame: Frame): number => Math.ceil(frame.bytes.length / PAGE_BYTES) + (frame.gso ? 1 : 0);

/** One queue's receive half. */
export class RxQueue {
  readonly #device: NetDevice;
  readonly #ring: BackRing;
  readonly #notify: () => void;
  readonly #drained: () => void;
  #frames: Frame[] = [];
  /** of #frames, the first that was not given */
  #head = 0;
  #bytes = 0;
  /** `offer` has returned false */
  #owesReady = false;
  #isStalled = false;
  readonly #gate: PageGate;
  #isPolling = false;
  #isClosed = false;
  #willPoll = false;
  #cancelStall: (() => void) | null = null;
  #cancelAgain: (() => void) | null = null;
  nrFrames = 0;
  nrBytes = 0;
  /** frames of which a buffer could not be written, and frames never offered to the guest */
  nrErrors = 0;
  nrDropped = 0;
  nrEvents = 0;

  /**
   * @param notify sends the event for receive responses
   * @param drained called when there is room again after `offer` returned false
   */
  constructor(device: NetDevice, ring: BackRing, notify: () => void, drained: () => void) {
    this.#device = device;
    this.#ring = ring;
    this.#notify = notify;
    this.#drained = drained;
    this.#gate = new PageGate(device.gnt, () => this.poll());
  }

  /** Take a frame for the guest. It is given at the end of this task, together with what comes until then. @returns false when there is no room */
  offer(frame: Frame): boolean {
    if (this.#isClosed || this.#device.isDead || !this.#suits(frame)) {
      this.nrDropped++;
      return true;
    }
    if (this.#isStalled) {
      if (this.#ring.nrRequests < slotsOf(frame)) {
        this.nrDropped++;
        return true;
      }
      this.#isStalled = false;
    }
    if (this.#bytes + frame.bytes.length > QUEUE_BYTES_MAX || this.nrWaiting >= QUEUE_FRAMES_MAX) {
      this.#owesReady = true;
      return false;
    }
    this.#frames.push(frame);
    this.#bytes += frame.bytes.length;
    if (!this.#willPoll) {
      this.#willPoll = true;
      queueMicrotask(() => {
        this.#willPoll = false;
        this.poll();
      });
    }
    return true;
  }
  /** A frame that a careful sender would not have sent is lost. */
  #suits({ bytes, checksum, gso }: Frame): boolean {
    const { sg, gsoTcpv4, gsoTcpv6 } = this.#device.features;
    return bytes.length >= FRAME_BYTES_MIN && bytes.length <= (sg ? FRAME_BYTES_MAX : PAGE_BYTES) && (!gso || (gso.mss > 0 && gso.mss <= 0xffff && (gso.type === "tcpv4" ? gsoTcpv4 : gsoTcpv6)))
      && (checksum !== "blank" || this.#takesBlank(bytes));
  }
  #takesBlank(bytes: Uint8Array): boolean {
    const { noCsumOffload, ipv6CsumOffload } = this.#device.features, at = bytes[12] === 0x81 && bytes[13] === 0 ? 16 : 12;
    return bytes[at] === 0x86 && bytes[at + 1] === 0xdd ? ipv6CsumOffload : !noCsumOffload;
  }

  /** Give the guest what it has buffers for. */
  poll(): void {
    if (this.#isPolling || this.#isClosed || this.#device.isDead) return;
    this.#isPolling = true;
    const ring = this.#ring;
    let budget = POLL_BYTES, moved = false;
    try {
      for (let frame = this.#frames[this.#head]; frame; frame = this.#frames[this.#head]) {
        const nrSlots = slotsOf(frame);
        if (ring.nrRequests < nrSlots && !ring.finalCheck(nrSlots)) break;
        if (budget <= 0 || this.#gate.isShut(this.#nextGrants(nrSlots))) break;
        this.#give(frame);
        this.#head++;
        this.#bytes -= frame.bytes.length;
        budget -= pollCost(frame.bytes.length, nrSlots);
        moved = true;
      }
      if (this.#head === this.#frames.length || this.#head > 256) {
        this.#frames.splice(0, this.#head);
        this.#head = 0;
      }
    } finally {
      this.#isPolling = false;
    }
    if (ring.push()) {
      this.nrEvents++;
      this.#notify();
    }
    if (ring.dead !== null) return this.#device.die(`receive ring: ${ring.dead}`);
    if (this.#isClosed) return;
    if (moved || this.nrWaiting === 0) {
      this.#cancelStall?.();
      this.#cancelStall = null;
    }
    if (this.nrWaiting > 0) {
      this.#cancelStall ??= this.#device.timers.after(STALL_MS, () => this.#stall());
      if (budget <= 0) this.#pollAfter(0);
      else if (!this.#device.features.rxNotify) this.#pollAfter(LOOK_MS);
    }
    this.#sayDrained();
  }
  *#nextGrants(nrSlots: number): Generator<number> { for (let i = 0; i < nrSlots && this.#ring.peek(i); i++) yield REQ.gref.get(this.#ring.requestView, 0); }
  #pollAfter(delayMs: number): void {
    this.#cancelAgain ??= this.#device.timers.after(delayMs, () => {
      this.#cancelAgain = null;
      this.poll();
    });
  }
  #stall(): void {
    this.#cancelStall = null;
    this.poll();  // an event may have been lost
    if (this.#isClosed || this.nrWaiting === 0 || this.#ring.nrRequests >= slotsOf(this.#frames[this.#head]!)) return;
    this.#device.complain(`the front end has given no receive buffers for ${STALL_MS / 1000} s: what is sent to it is dropped until it does`);
    this.#isStalled = true;
    this.nrDropped += this.nrWaiting;
    this.#forget();
    this.#sayDrained();
  }
  #sayDrained(): void {
    if (!this.#owesReady || this.#bytes > QUEUE_BYTES_MAX / 2 || this.nrWaiting > QUEUE_FRAMES_MAX / 2) return;
    this.#owesReady = false;
    this.#drained();
  }
  #forget(): void {
    this.#frames = [];
    this.#head = this.#bytes = 0;
    this.#cancelStall?.();
    this.#cancelAgain?.();
    this.#cancelStall = this.#cancelAgain = null;
  }

  /** Fill the slots of one frame; the ring has them. */
  #give({ bytes, checksum, gso }: Frame): void {
    const ring = this.#ring, { requestView: req, responseView: rsp } = ring, { gnt } = this.#device;
    let isWhole = true;
    for (let from = 0; from < bytes.length; from += PAGE_BYTES) {
      if (!ring.take()) return;
      const gref = REQ.gref.get(req, 0), piece = bytes.subarray(from, from + PAGE_BYTES), page = gnt.map(gref, false);
      if (typeof page === "number") {
        isWhole = false;
        this.#device.complain(`grant ${gref} to receive into cannot be mapped (GNTST ${page})`);
      } else {
        gnt.bytes.set(piece, page.at);
        gnt.unmap(page);
      }
      let flags = from + PAGE_BYTES < bytes.length ? NETRXF.more_data : 0;
      if (from === 0) {
        if (checksum === "blank") flags |= NETRXF.csum_blank | NETRXF.data_validated;
        else if (checksum === "good") flags |= NETRXF.data_validated;
        if (gso) flags |= NETRXF.extra_info;
      }
      RSP.id.set(rsp, 0, REQ.id.get(req, 0));
      RSP.offset.set(rsp, 0, 0);
      RSP.flags.set(rsp, 0, flags);
      RSP.status.set(rsp, 0, typeof page === "number" ? NETIF_RSP.ERROR : piece.length);
      ring.put(RSP.sizeof);
      if (from !== 0 || !gso) continue;
      // The extra info takes the next slot; the buffer of that slot's request stays the front end's.
      if (!ring.take()) return;
      EXTRA.type.set(rsp, 0, XEN_NETIF_EXTRA_TYPE.GSO);
      EXTRA.flags.set(rsp, 0, 0);
      EXTRA.gso_size.set(rsp, 0, gso.mss);
      EXTRA.gso_type.set(rsp, 0, gso.type === "tcpv4" ? XEN_NETIF_GSO_TYPE.TCPV4 : XEN_NETIF_GSO_TYPE.TCPV6);
      EXTRA.gso_pad.set(rsp, 0, 0);
      EXTRA.gso_features.set(rsp, 0, 0);
      ring.put(EXTRA.sizeof);
    }
    if (!isWhole) this.nrErrors++;
    else {
      this.nrFrames++;
      this.nrBytes += bytes.length;
    }
  }

  close(): void {
    this.#isClosed = true;
    this.nrDropped += this.nrWaiting;
    this.#forget();
  }
  /** Frames that wait for receive requests, and their bytes. */
  get nrWaiting(): number {
    return this.#frames.length - this.#head;
  }
  get nrBytesWaiting(): number {
    return this.#bytes;
  }
}
