/** The 2-level event channel ABI: bitmaps in the shared info page, a selector in vcpu_info. Bits are numbered over little-endian 64-bit words. */
import { EVTCHN_2L_NR_CHANNELS } from "../abi/event_channel.ts";
import { SharedInfo, VcpuInfo } from "../abi/xen.ts";
import type { Domain } from "./domain.ts";
import { markEventsPending, type PortAbi } from "./event_channel.ts";
import type { Vcpu } from "./vcpu.ts";

const word = (d: Domain, map: { at: number }, port: number): number => (d.sharedInfo + map.at + (port >>> 5) * 4) >>> 2;
const test = (d: Domain, map: { at: number }, port: number): boolean => (Atomics.load(d.hv.views.i32, word(d, map, port)) & (1 << (port & 31))) !== 0;

function raise(v: Vcpu, port: number): void {
  const at = v.vcpuInfo, { i32 } = v.hv.views, sel = port >>> 6;
  if (at === 0 || test(v.domain, SharedInfo.evtchn_mask, port)) return;
  const bit = 1 << (sel & 31);
  if (!(Atomics.or(i32, (at + VcpuInfo.evtchn_pending_sel.at + (sel >>> 5) * 4) >>> 2, bit) & bit)) markEventsPending(v);
}
/** @see public/event_channel.h, 2-level ABI */
export const twoLevel: PortAbi = {
  nrChannels: EVTCHN_2L_NR_CHANNELS,
  setPending(v, port) {
    const bit = 1 << (port & 31);
    if (Atomics.or(v.hv.views.i32, word(v.domain, SharedInfo.evtchn_pending, port), bit) & bit) return false;
    raise(v, port);
    return true;
  },
  clearPending(d, port) { Atomics.and(d.hv.views.i32, word(d, SharedInfo.evtchn_pending, port), ~(1 << (port & 31))); },
  unmask(v, port) {
    const bit = 1 << (port & 31), was = Atomics.and(v.hv.views.i32, word(v.domain, SharedInfo.evtchn_mask, port), ~bit);
    if (was & bit && test(v.domain, SharedInfo.evtchn_pending, port)) raise(v, port);
  },
  isPending: (d, port) => port < EVTCHN_2L_NR_CHANNELS && test(d, SharedInfo.evtchn_pending, port),
  isMasked: (d, port) => port >= EVTCHN_2L_NR_CHANNELS || test(d, SharedInfo.evtchn_mask, port),
  isBusy: () => false,
};
