/** The nodes of a split device's two ends, as libxl's libxl__device_generic_add writes them, and where they lie: docs/misc/xenstore-paths.pandoc. */
import { XenbusState } from "../abi/io/xenbus.ts";
import type { Entry } from "./client.ts";
import { domainPath } from "./path.ts";

/** Where a device's ends lie, and libxl's own record of it. */
export const frontPath = (domid: number, kind: string, devid: number): string => `${domainPath(domid)}/device/${kind}/${devid}`;
export const backPath = (domid: number, kind: string, devid: number): string => `${domainPath(0)}/backend/${kind}/${domid}/${devid}`;
export const recordPath = (domid: number, kind: string, devid: number): string => `/libxl/${domid}/device/${kind}/${devid}`;

/** Nodes below `root`, each with these permissions. */
export const nodes = (root: string, perms: readonly string[], values: Readonly<Record<string, string | number>>): Entry[] =>
  Object.entries(values).map(([name, value]) => ({ path: `${root}/${name}`, value: String(value), perms }));
/** the guest owns, dom0 reads; dom0 owns, the guest reads; dom0's alone */
export const frontPerms = (domid: number): string[] => [`n${domid}`, "r0"];
export const backPerms = (domid: number): string[] => ["n0", `r${domid}`];

/** A device is named by these three. */
export type DeviceName = { readonly domid: number; /** "vbd", "vif" */ readonly kind: string; readonly devid: number };

/** All nodes of a new device, for Access.writeAll within one transaction. @param front, back what its kind adds to the common keys */
export function deviceEntries({ domid, kind, devid }: DeviceName, front: Readonly<Record<string, string | number>>, back: Readonly<Record<string, string | number>>): Entry[] {
  const at = { front: frontPath(domid, kind, devid), back: backPath(domid, kind, devid), record: recordPath(domid, kind, devid) };
  return [
    { path: at.record, perms: ["n0"] }, ...nodes(at.record, ["n0"], { frontend: at.front, backend: at.back }),
    { path: at.back, perms: backPerms(domid) },
    ...nodes(at.back, backPerms(domid), { frontend: at.front, "frontend-id": domid, online: 1, state: XenbusState.Initialising, ...back }),
    { path: at.front, perms: frontPerms(domid) },
    ...nodes(at.front, frontPerms(domid), { backend: at.back, "backend-id": 0, ...front, state: XenbusState.Initialising }),
  ];
}

/** What to remove when a device is gone. */
export const deviceRoots = ({ domid, kind, devid }: DeviceName): string[] => [frontPath(domid, kind, devid), backPath(domid, kind, devid), recordPath(domid, kind, devid)];
