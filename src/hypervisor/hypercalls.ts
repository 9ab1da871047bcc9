/**
 * All hypercalls, one row each. A number without a row answers -ENOSYS. `guests`: who may call, "hvm" from 64-bit and "hvm32" from 32-bit
 * protected mode; only calls whose arguments are laid out alike in both are open to the latter.
 */
import { EINVAL, ENOSYS, EOPNOTSUPP, EPERM } from "../abi/errno.ts";
import { CONSOLEIO, HYPERVISOR, MulticallEntry, VMASST_CMD, VMASST_TYPE } from "../abi/xen.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { type Args, type Call, copyIn, copyOut, Refusal } from "./call.ts";
import { writeConring } from "./conring.ts";
import { doEventChannelOp, doEventChannelOpCompat } from "./event_op.ts";
import { doGrantTableOp } from "./grant_op.ts";
import { doHvmOp } from "./hvm_op.ts";
import { doMemoryOp } from "./memory_op.ts";
import { DOMAIN, VCPU } from "./objects.ts";
import { doSchedOp, doSchedOpCompat } from "./sched_op.ts";
import { doSetTimerOp, doVcpuOp } from "./vcpu_op.ts";
import { doXenVersion } from "./version_op.ts";

/** A row of the table. */
export type HypercallRow = { name: string; call: (c: Call, a: Args) => number; guests: "hvm" | "hvm hvm32" };

function doConsoleIo(c: Call, a: Args): number {
  if (a.n(0) === CONSOLEIO.read) return 0;
  if (a.n(0) !== CONSOLEIO.write) return -ENOSYS;
  for (let left = a.n(1), at = a.p(2); left > 0;) {
    const n = Math.min(left, 128);
    writeConring(c.d, new Uint8Array(copyIn(c, at, n).buffer));
    left -= n;
    at += BigInt(n);
    if (a.n(1) - left >= 4096) break; /* as much as one call may hold the processor for */
  }
  return 0;
}
function doVmAssist(c: Call, a: Args): number {
  if (a.n(1) !== VMASST_TYPE.runstate_update_flag) return -EINVAL;
  const bit = 1 << VMASST_TYPE.runstate_update_flag;
  switch (a.n(0)) {
    case VMASST_CMD.enable: c.hv.or(DOMAIN.vmAssist, c.d.at, bit); return 0;
    case VMASST_CMD.disable: c.hv.and(DOMAIN.vmAssist, c.d.at, ~bit); return 0;
    default: return -ENOSYS;
  }
}
/** Several calls in one. Each entry's result is written before the next is read. */
function doMulticall(c: Call, a: Args): number {
  const nr = a.n(1), list = a.p(0), M = MulticallEntry;
  if (nr > 1024) return -EINVAL;
  for (let i = 0; i < nr; i++) {
    const at = list + BigInt(i * M.sizeof), entry = copyIn(c, at, M.sizeof), op = Number(M.op.get(entry, 0) & 0xffffffffn);
    const args: Args = { n: (j) => (j < 6 ? entry.getUint32(M.args.at + j * 8, true) : 0), p: (j) => (j < 6 ? entry.getBigUint64(M.args.at + j * 8, true) : 0n) };
    const result = op === HYPERVISOR.multicall ? -EINVAL : invoke(c, op, args);
    M.result.set(entry, 0, BigInt(result));
    copyOut(c, at + BigInt(M.result.at), new Uint8Array(entry.buffer, M.result.at, 8));
  }
  return 0;
}
const refuse = (errno: number) => (): number => -errno;

/** By number, HYPERVISOR.*. */
export const HYPERCALLS: Readonly<Record<number, HypercallRow>> = {
  [HYPERVISOR.sched_op_compat]: { name: "sched_op_compat", call: doSchedOpCompat, guests: "hvm" },
  [HYPERVISOR.platform_op]: { name: "platform_op", call: refuse(EPERM), guests: "hvm" },
  [HYPERVISOR.memory_op]: { name: "memory_op", call: doMemoryOp, guests: "hvm" },
  [HYPERVISOR.multicall]: { name: "multicall", call: doMulticall, guests: "hvm" },
  [HYPERVISOR.set_timer_op]: { name: "set_timer_op", call: doSetTimerOp, guests: "hvm hvm32" },
  [HYPERVISOR.event_channel_op_compat]: { name: "event_channel_op_compat", call: doEventChannelOpCompat, guests: "hvm" },
  [HYPERVISOR.xen_version]: { name: "xen_version", call: doXenVersion, guests: "hvm hvm32" },
  [HYPERVISOR.console_io]: { name: "console_io", call: doConsoleIo, guests: "hvm hvm32" },
  [HYPERVISOR.grant_table_op]: { name: "grant_table_op", call: doGrantTableOp, guests: "hvm" },
  [HYPERVISOR.vm_assist]: { name: "vm_assist", call: doVmAssist, guests: "hvm hvm32" },
  [HYPERVISOR.vcpu_op]: { name: "vcpu_op", call: doVcpuOp, guests: "hvm" },
  [HYPERVISOR.sched_op]: { name: "sched_op", call: doSchedOp, guests: "hvm hvm32" },
  [HYPERVISOR.event_channel_op]: { name: "event_channel_op", call: doEventChannelOp, guests: "hvm hvm32" },
  [HYPERVISOR.physdev_op]: { name: "physdev_op", call: refuse(ENOSYS), guests: "hvm" },
  [HYPERVISOR.hvm_op]: { name: "hvm_op", call: doHvmOp, guests: "hvm hvm32" },
  [HYPERVISOR.sysctl]: { name: "sysctl", call: refuse(EPERM), guests: "hvm" },
  [HYPERVISOR.domctl]: { name: "domctl", call: refuse(EPERM), guests: "hvm" },
  [HYPERVISOR.kexec_op]: { name: "kexec_op", call: refuse(EPERM), guests: "hvm" },
  [HYPERVISOR.argo_op]: { name: "argo_op", call: refuse(EOPNOTSUPP), guests: "hvm" },
  [HYPERVISOR.xenpmu_op]: { name: "xenpmu_op", call: refuse(EOPNOTSUPP), guests: "hvm" },
  [HYPERVISOR.dm_op]: { name: "dm_op", call: refuse(EPERM), guests: "hvm" },
  [HYPERVISOR.hypfs_op]: { name: "hypfs_op", call: refuse(EPERM), guests: "hvm" },
};

function invoke(c: Call, nr: number, a: Args): number {
  const row = HYPERCALLS[nr];
  if (!row || (c.is32 && row.guests === "hvm")) {
    if (c.hv.trace.on & TRACE_CLASS.error) c.hv.trace.emit(TRACE.notImplemented, c.d.domid, c.v.id, nr, a.n(0));
    return -ENOSYS;
  }
  try {
    const result = row.call(c, a);
    if (result === -ENOSYS && c.hv.trace.on & TRACE_CLASS.error) c.hv.trace.emit(TRACE.notImplemented, c.d.domid, c.v.id, nr, a.n(0));
    return result;
  } catch (e) {
    if (e instanceof Refusal) return -e.errno;
    throw e;
  }
}
/** Carry a hypercall out. @returns what goes to rax (eax), signed */
export function hypercall(c: Call, nr: number, a: Args): number {
  const { hv, v } = c, isTraced = (hv.trace.on & TRACE_CLASS.hypercall) !== 0;
  hv.set(VCPU.lastHypercall, v.at, nr);
  hv.set(VCPU.nrHypercalls, v.at, (hv.get(VCPU.nrHypercalls, v.at) + 1) >>> 0);
  if (isTraced) { const p = a.p(1); hv.trace.emit(TRACE.hypercall, c.d.domid, v.id, nr, a.n(0), Number(p & 0xffffffffn) | 0, Number(p >> 32n) | 0); }
  const result = invoke(c, nr, a);
  if (isTraced) hv.trace.emit(TRACE.hypercallDone, c.d.domid, v.id, nr, result);
  return result;
}
