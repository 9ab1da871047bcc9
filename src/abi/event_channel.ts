/** public/event_channel.h: operations, their arguments, and the FIFO layout in guest memory. */
import { bytes, struct, u16, u32, u64, u8 } from "../base/struct.ts";

export const EVTCHNOP = {
  bind_interdomain: 0, bind_virq: 1, bind_pirq: 2, close: 3, send: 4, status: 5, alloc_unbound: 6, bind_ipi: 7, bind_vcpu: 8,
  unmask: 9, reset: 10, init_control: 11, expand_array: 12, set_priority: 13,
} as const;
export const EVTCHNSTAT = { closed: 0, unbound: 1, interdomain: 2, pirq: 3, virq: 4, ipi: 5 } as const;
export const BIND_PIRQ__WILL_SHARE = 1;

/** port is [XEN] in every bind and in alloc_unbound. */
export const EvtchnAllocUnbound = struct(8, { dom: u16(0), remote_dom: u16(2), port: u32(4) });
export const EvtchnBindInterdomain = struct(12, { remote_dom: u16(0), remote_port: u32(4), local_port: u32(8) });
export const EvtchnBindVirq = struct(12, { virq: u32(0), vcpu: u32(4), port: u32(8) });
export const EvtchnBindPirq = struct(12, { pirq: u32(0), flags: u32(4), port: u32(8) });
export const EvtchnBindIpi = struct(8, { vcpu: u32(0), port: u32(4) });
export const EvtchnClose = struct(4, { port: u32(0) });
export const EvtchnSend = struct(4, { port: u32(0) });
/** The union's members are the three structs below, over the same 24 bytes. */
export const EvtchnStatus = struct(24, { dom: u16(0), port: u32(4), status: u32(8), vcpu: u32(12), u: bytes(16, 8) });
export const EvtchnStatusUnbound = struct(24, { dom: u16(16) });
export const EvtchnStatusInterdomain = struct(24, { dom: u16(16), port: u32(20) });
export const EvtchnStatusPirq = struct(24, { pirq: u32(16) });
export const EvtchnStatusVirq = struct(24, { virq: u32(16) });
export const EvtchnBindVcpu = struct(8, { port: u32(0), vcpu: u32(4) });
export const EvtchnUnmask = struct(4, { port: u32(0) });
export const EvtchnReset = struct(2, { dom: u16(0) });
/** link_bits is [XEN]: how many bits of an event word are the link. */
export const EvtchnInitControl = struct(24, { control_gfn: u64(0), offset: u32(8), vcpu: u32(12), link_bits: u8(16), _pad: bytes(17, 7) });
export const EvtchnExpandArray = struct(8, { array_gfn: u64(0) });
export const EvtchnSetPriority = struct(8, { port: u32(0), priority: u32(4) });
/** Argument of event_channel_op_compat; the union holds one of the structs above, at `u`. */
export const EvtchnOp = struct(28, { cmd: u32(0), u: bytes(4, 24) });

export const EVTCHN_2L_NR_CHANNELS = 4096;
/** 0 is the most urgent. */
export const EVTCHN_FIFO_PRIORITY = { MAX: 0, DEFAULT: 7, MIN: 15 } as const;
export const EVTCHN_FIFO_MAX_QUEUES = 16;
/** Bit numbers in an event word, as the header has them. */
export const EVTCHN_FIFO = { PENDING: 31, MASKED: 30, LINKED: 29, BUSY: 28, LINK_BITS: 17, LINK_MASK: 0x1ffff, NR_CHANNELS: 0x20000 } as const;
/**
 * The same as bit values of an int32, for `Atomics` on an Int32Array. PENDING: [XEN sets, GST clears]; MASKED: [GST];
 * LINKED and link: [XEN sets, GST clears]; BUSY: [XEN], while it is changing the link.
 */
export const EVENT_WORD = { PENDING: 1 << 31, MASKED: 1 << 30, LINKED: 1 << 29, BUSY: 1 << 28, LINK_MASK: 0x1ffff } as const;
/** ready: bit p is set when queue p has something [XEN sets, GST clears]; head[p]: the queue's first port [XEN, GST]. `Atomics` only. */
export const EvtchnFifoControlBlock = struct(72, { ready: u32(0), _rsvd: u32(4), head: bytes(8, 64) });
