/**
 * The FIFO event channel ABI: an event word a port in pages the guest gives, chained into sixteen queues a vCPU by priority; heads and a ready
 * mask in the vCPU's control block. Xen appends, the guest takes off the head; both change words by compare-and-swap.
 */
import { EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, EOPNOTSUPP } from "../abi/errno.ts";
import { EVENT_WORD, EVTCHN_FIFO, EVTCHN_FIFO_MAX_QUEUES, EVTCHN_FIFO_PRIORITY, EvtchnFifoControlBlock } from "../abi/event_channel.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import type { Domain } from "./domain.ts";
import { chnAt, markEventsPending, portAbi, type PortAbi } from "./event_channel.ts";
import { pinGuestFrame } from "./guest_frame.ts";
import { DOMAIN, EVTCHN, EVTCHN_ABI, FIFO_PAGES, VCPU } from "./objects.ts";
import type { Vcpu } from "./vcpu.ts";

const WORDS_PER_PAGE = 1024, WORD0 = { at: 0 };
const { PENDING, MASKED, LINKED, BUSY, LINK_MASK } = EVENT_WORD;

/** Index of a port's event word, or 0 while the guest has given no page for it. */
function eventWord(d: Domain, port: number): number {
  const page = Math.floor(port / WORDS_PER_PAGE);
  if (page >= d.hv.get(DOMAIN.nrFifoPages, d.at)) return 0;
  return (d.hv.word(WORD0, d.hv.get(DOMAIN.fifoPages, d.at), page) >>> 2) + port % WORDS_PER_PAGE;
}
/** Write `port` as the link of an event still in its queue. @returns false when the guest has taken that one off meanwhile */
function setLink(i32: Int32Array, word: number, port: number): boolean {
  for (let tries = 0; tries < 8; tries++) {
    let w = Atomics.load(i32, word);
    if (!(w & LINKED)) return false;
    if (tries >= 4 && !(w & BUSY)) { /* from here the guest must leave the word alone */
      Atomics.or(i32, word, BUSY);
      w |= BUSY;
    }
    if (Atomics.compareExchange(i32, word, w, (w & ~(BUSY | LINK_MASK)) | port) === w) return true;
  }
  Atomics.and(i32, word, ~BUSY);
  return true; /* a guest that will not hold still loses this event, and only that */
}
const tailWord = (v: Vcpu, q: number): number => v.hv.word(VCPU.fifoTail, v.at, q);
const setTail = (v: Vcpu, q: number, port: number): void => v.hv.setWord(VCPU.fifoTail, v.at, q, port);

/** Put a pending, unmasked event that is in no queue at the end of its own. Under eventLock. */
function enqueue(v: Vcpu, port: number, word: number, chn: number): void {
  const { i32, dv } = v.hv.views, d = v.domain;
  const control = v.hv.get(VCPU.fifoControl, v.at), q = EVTCHN.priority.get(dv, chn);
  if (control === 0) return;
  if (Atomics.or(i32, word, LINKED) & LINKED) return;
  const old = d.vcpu(EVTCHN.lastVcpu.get(dv, chn)), oldQ = EVTCHN.lastPriority.get(dv, chn);
  if (old && tailWord(old, oldQ) === port) setTail(old, oldQ, 0);
  EVTCHN.lastVcpu.set(dv, chn, v.id);
  EVTCHN.lastPriority.set(dv, chn, q);
  const tail = tailWord(v, q), before = tail ? eventWord(d, tail) : 0;
  const linked = before !== 0 && setLink(i32, before, port);
  if (!linked) Atomics.store(i32, ((control + EvtchnFifoControlBlock.head.at) >>> 2) + q, port);
  setTail(v, q, port);
  if (!linked && !(Atomics.or(i32, (control + EvtchnFifoControlBlock.ready.at) >>> 2, 1 << q) & (1 << q))) markEventsPending(v);
}
/** @see public/event_channel.h, FIFO ABI */
export const fifo: PortAbi = {
  nrChannels: EVTCHN_FIFO.NR_CHANNELS,
  setPending(v, port, chn) {
    const word = eventWord(v.domain, port), { i32, dv } = v.hv.views;
    if (word === 0) {
      EVTCHN.pending.set(dv, chn, 1);
      return true;
    }
    const was = Atomics.or(i32, word, PENDING);
    if (!(was & MASKED) && !(was & LINKED)) {
      /* an event is linked at most once: the word's LINK field is clear while it is in no queue */
      Atomics.and(i32, word, ~LINK_MASK);
      enqueue(v, port, word, chn);
    }
    return !(was & PENDING);
  },
  clearPending(d, port) {
    const word = eventWord(d, port);
    if (word) Atomics.and(d.hv.views.i32, word, ~PENDING);
  },
  unmask(v, port, chn) {
    const word = eventWord(v.domain, port);
    if (word === 0) return;
    Atomics.and(v.hv.views.i32, word, ~MASKED);
    if (Atomics.load(v.hv.views.i32, word) & PENDING) fifo.setPending(v, port, chn);
  },
  isPending(d, port) { const word = eventWord(d, port); return word !== 0 && (Atomics.load(d.hv.views.i32, word) & PENDING) !== 0; },
  isMasked(d, port) { const word = eventWord(d, port); return word === 0 || (Atomics.load(d.hv.views.i32, word) & MASKED) !== 0; },
  isBusy(d, port) { const word = eventWord(d, port); return word !== 0 && (Atomics.load(d.hv.views.i32, word) & LINKED) !== 0; },
};

/** EVTCHNOP_init_control: a vCPU's control block; the first one switches the domain to this ABI. */
export function initControl(d: Domain, vcpuId: number, gfn: number, offset: number): number {
  if (offset & 7 || offset > 4096 - EvtchnFifoControlBlock.sizeof) return -EINVAL;
  const v = d.vcpu(vcpuId), { hv } = d;
  if (!v) return -ENOENT;
  return hv.withLock(DOMAIN.eventLock, d.at, () => {
    if (hv.get(VCPU.fifoControl, v.at) !== 0) return -EEXIST;
    const mfn = pinGuestFrame(d, gfn);
    if (mfn === 0) return -EINVAL;
    if (hv.get(DOMAIN.evtchnAbi, d.at) !== EVTCHN_ABI.fifo) {
      try {
        hv.set(DOMAIN.fifoPages, d.at, hv.allocPage());
      } catch (e) {
        hv.mm.frames.put(mfn);
        if (e instanceof MachineMemoryExhausted) return -ENOMEM;
        throw e;
      }
      const before = portAbi(d);
      for (let port = 1; port < hv.get(DOMAIN.nrPorts, d.at); port++) {
        const chn = chnAt(d, port);
        EVTCHN.pending.set(hv.views.dv, chn, before.isPending(d, port) ? 1 : 0);
        EVTCHN.priority.set(hv.views.dv, chn, EVTCHN_FIFO_PRIORITY.DEFAULT);
      }
      hv.store(DOMAIN.evtchnAbi, d.at, EVTCHN_ABI.fifo);
    }
    for (let q = 0; q < EVTCHN_FIFO_MAX_QUEUES; q++) setTail(v, q, 0);
    hv.set(VCPU.fifoControl, v.at, ((mfn << 12) >>> 0) + offset);
    return 0;
  });
}
/** EVTCHNOP_expand_array: one more page of event words. */
export function expandArray(d: Domain, gfn: number): number {
  const { hv } = d;
  return hv.withLock(DOMAIN.eventLock, d.at, () => {
    if (hv.get(DOMAIN.evtchnAbi, d.at) !== EVTCHN_ABI.fifo) return -EOPNOTSUPP;
    const page = hv.get(DOMAIN.nrFifoPages, d.at);
    if (page >= FIFO_PAGES) return -ENOSPC;
    const mfn = pinGuestFrame(d, gfn);
    if (mfn === 0) return -EINVAL;
    hv.setWord(WORD0, hv.get(DOMAIN.fifoPages, d.at), page, (mfn << 12) >>> 0);
    hv.store(DOMAIN.nrFifoPages, d.at, page + 1);
    const end = Math.min(hv.get(DOMAIN.nrPorts, d.at), (page + 1) * WORDS_PER_PAGE);
    for (let port = page * WORDS_PER_PAGE; port < end; port++) {
      const chn = chnAt(d, port), v = d.vcpu(EVTCHN.notifyVcpu.get(hv.views.dv, chn));
      if (EVTCHN.pending.get(hv.views.dv, chn) && v) {
        EVTCHN.pending.set(hv.views.dv, chn, 0);
        fifo.setPending(v, port, chn);
      }
    }
    return 0;
  });
}
/** Go back to the 2-level ABI and let the guest's pages go. Under eventLock, all ports closed. */
export function destroyFifo(d: Domain): void {
  const { hv } = d, pages = hv.get(DOMAIN.fifoPages, d.at), nr = hv.get(DOMAIN.nrFifoPages, d.at);
  hv.store(DOMAIN.evtchnAbi, d.at, EVTCHN_ABI.twoLevel);
  hv.store(DOMAIN.nrFifoPages, d.at, 0);
  hv.set(DOMAIN.fifoPages, d.at, 0);
  for (let i = 0; i < nr; i++) hv.mm.frames.put(hv.word(WORD0, pages, i) >>> 12);
  if (pages) hv.freePage(pages);
  for (const v of d.vcpus()) {
    const control = hv.get(VCPU.fifoControl, v.at);
    hv.set(VCPU.fifoControl, v.at, 0);
    if (control) hv.mm.frames.put(control >>> 12);
  }
}
