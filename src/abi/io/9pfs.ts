/** public/io/9pfs.h: the page of indexes of one ring of a 9pfs device, by ring.h's DEFINE_XEN_FLEX_RING_AND_INTF. What it says lies in guest memory: copy first, then check. */
import { bytes, struct, u32 } from "../../base/struct.ts";

/**
 * in flows to the guest: in_prod and out_cons are the back end's, the others the guest's. Indexes run free. `Atomics` only. `ring_order` and the references behind the struct, 2^ring_order
 * of them, are the guest's, written before it connects: the first half of those pages is `in`, the second `out`.
 */
export const Xen9pfsDataIntf = struct(132, {
  in_cons: u32(0), in_prod: u32(4), pad1: bytes(8, 56), out_cons: u32(64), out_prod: u32(68), pad2: bytes(72, 56), ring_order: u32(128),
});
/** Bytes of each direction of a ring on 2^order pages. @see XEN_FLEX_RING_SIZE */
export const flexRingBytes = (order: number): number => 2 ** (order + 11);
