/** Names of hypercalls and their operations, for people who read a trace. */
import { EVTCHNOP } from "../abi/event_channel.ts";
import { GNTTABOP } from "../abi/grant_table.ts";
import { HVMOP } from "../abi/hvm/hvm_op.ts";
import { MEMOP_EXTENT_SHIFT, XENMEM } from "../abi/memory.ts";
import { SCHEDOP } from "../abi/sched.ts";
import { VCPUOP } from "../abi/vcpu.ts";
import { XENVER } from "../abi/version.ts";
import { HYPERVISOR } from "../abi/xen.ts";

const inverse = (table: Readonly<Record<string, number>>): ReadonlyMap<number, string> => new Map(Object.entries(table).map(([name, nr]) => [nr, name]));
const CALLS = inverse(HYPERVISOR);
const OPS: ReadonlyMap<number, ReadonlyMap<number, string>> = new Map([
  [HYPERVISOR.sched_op, inverse(SCHEDOP)], [HYPERVISOR.event_channel_op, inverse(EVTCHNOP)], [HYPERVISOR.grant_table_op, inverse(GNTTABOP)], [HYPERVISOR.memory_op, inverse(XENMEM)],
  [HYPERVISOR.vcpu_op, inverse(VCPUOP)], [HYPERVISOR.xen_version, inverse(XENVER)], [HYPERVISOR.hvm_op, inverse(HVMOP)],
]);

/** "sched_op block", "grant_table_op setup_table", "set_timer_op". @param op the call's first argument */
export function hypercallName(nr: number, op?: number): string {
  const name = CALLS.get(nr) ?? `hypercall ${nr}`;
  const said = op === undefined ? undefined : OPS.get(nr)?.get(nr === HYPERVISOR.memory_op ? op & ((1 << MEMOP_EXTENT_SHIFT) - 1) : op);
  return said === undefined ? name : `${name} ${said}`;
}
