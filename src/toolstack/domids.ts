/** How domains get their numbers: xl.conf(5) domid_policy. */
import { DOMID } from "../abi/xen.ts";

/** The next free one; or one that hardly another host's domain has, so that a guest can move there as it is (as_it_is.ts). */
export const DOMID_POLICIES = ["xen", "random"] as const;
export type DomidPolicy = (typeof DOMID_POLICIES)[number];

/** The number that a new domain is to have; undefined: the next free one. */
export function freshDomid(policy: DomidPolicy, isTaken: (domid: number) => boolean): number | undefined {
  if (policy !== "random") return undefined;
  for (;;) {
    const domid = 1 + Math.floor(Math.random() * (DOMID.FIRST_RESERVED - 1));
    if (!isTaken(domid)) return domid;
  }
}
