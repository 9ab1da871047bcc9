/** public/io/ring.h: the head of every request ring; the slots follow. */
import { bytes, struct, u32 } from "../../base/struct.ts";

/**
 * req_prod and rsp_event are the front end's, rsp_prod and req_event the back end's. `Atomics` only. Indexes run free; a slot is
 * index & (nr - 1).
 */
export const SRING = struct(64, { req_prod: u32(0), req_event: u32(4), rsp_prod: u32(8), rsp_event: u32(12), pvt: bytes(16, 4), __pad: bytes(20, 44) });
/** Slots in a ring of so many bytes: the greatest power of two that fits. @see __CONST_RING_SIZE */
export const ringSize = (ringBytes: number, slotBytes: number): number => 2 ** Math.floor(Math.log2(Math.floor((ringBytes - SRING.sizeof) / slotBytes)));
