/** What a machine's back ends get from domain 0: a guest's grants, and its event channels. In tests both stand on a plain shared memory. */
import { Dom0Refusal, type Dom0, type MappedGrant } from "../hypervisor/dom0.ts";
import type { GrantAccess, MappedPage } from "./grants.ts";
import { FrontRefusal } from "./ring.ts";

/** A bound event channel. */
export type Doorbell = { /** ring at the guest's end */ notify(): void; /** does the guest still have its end? */ isHeld(): boolean; close(): void };
/** Bind to a port the guest has made, any number. @throws FrontRefusal where it is no such port */
export type Bind = (port: number, rung: () => void) => Doorbell;

/** The grants of a domain. */
function dom0Grants(dom0: Dom0, domid: number): GrantAccess {
  const { i32, u8 } = dom0.hv.views;
  return {
    words: i32, bytes: u8,
    map: (ref, isReadonly) => dom0.mapGrant(domid, ref, isReadonly),
    unmap: (page) => dom0.unmapGrant(page as MappedPage & MappedGrant),
    wrote: (page) => dom0.wrote(page.at),
    missing: (refs) => dom0.arrivals.get(domid)?.missing(refs) ?? null,
  };
}

/** The event channels of a domain. */
const dom0Bind = (dom0: Dom0, domid: number): Bind => (port, rung) => {
  let local: number;
  try { local = dom0.bind(domid, port); } catch (e) {
    if (e instanceof Dom0Refusal) throw new FrontRefusal(`its event channel ${port} cannot be bound (${e.code})`);
    throw e;
  }
  dom0.onEvent(local, rung);
  return { notify: () => dom0.notify(local), isHeld: () => dom0.isBound(local), close: () => dom0.closePort(local) };
};
/** What the back ends of a domain's devices stand on. */
export const dom0Ends = (dom0: Dom0, domid: number): { readonly grants: GrantAccess; readonly bind: Bind } => ({ grants: dom0Grants(dom0, domid), bind: dom0Bind(dom0, domid) });
