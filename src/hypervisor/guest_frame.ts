/** Taking hold of a guest's own frames by number, for as long as Xen reads or writes them behind its back. */
import { P2M_RW, P2M_TYPE } from "../memory/p2m.ts";
import type { Domain } from "./domain.ts";
import { DOMAIN } from "./objects.ts";

/** Take a reference to the domain's own, writable RAM at `gfn`. Where it may be on its way: Call.awaitFrame comes first. @returns the mfn, or 0 */
export function pinGuestFrame(d: Domain, gfn: number): number {
  return d.hv.withLock(DOMAIN.p2mLock, d.at, () => {
    const entry = d.p2m.lookup(gfn), mfn = entry >>> 12;
    if ((entry & P2M_RW) !== P2M_RW || (entry & P2M_TYPE.mask) !== P2M_TYPE.ram) return 0;
    return d.hv.mm.frames.get(mfn, d.domid) ? mfn : 0;
  });
}
