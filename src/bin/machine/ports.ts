/** A domain's event channels, for a listing. */
import type { Domain } from "../../hypervisor/domain.ts";
import { isPending, type PortStatus, status } from "../../hypervisor/event_channel.ts";

/** EVTCHNSTAT_*, by number. */
export const ECS_NAMES = ["closed", "unbound", "interdomain", "pirq", "virq", "ipi"];
/** Ports beyond it are not looked at: a guest may have opened a hundred thousand. */
const MAX_SHOWN = 4096;

/** Ports that are not closed. */
export function portsOf(d: Domain): { readonly port: number; readonly status: PortStatus; readonly isPending: boolean }[] {
  const found: { port: number; status: PortStatus; isPending: boolean }[] = [];
  for (let port = 1; port < MAX_SHOWN; port++) {
    const s = status(d, port);
    if (typeof s === "number") break;
    if (s.state !== 0) found.push({ port, status: s, isPending: isPending(d, port) });
  }
  return found;
}
