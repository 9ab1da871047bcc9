/** public/io/console.h: the page of a PV console. */
import { bytes, struct, u32 } from "../../base/struct.ts";

/** in flows to the guest: in_prod and out_cons are the back end's, in_cons and out_prod the guest's. Indexes run free. `Atomics` only. */
export const XenconsInterface = struct(3088, {
  in: bytes(0, 1024), out: bytes(1024, 2048), in_cons: u32(3072), in_prod: u32(3076), out_cons: u32(3080), out_prod: u32(3084),
});
