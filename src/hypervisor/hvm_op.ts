/** HYPERVISOR_hvm_op of the guest itself - public/hvm/hvm_op.h, params.h. */
import { EINVAL, ENOENT, ENOSYS, EPERM } from "../abi/errno.ts";
import { HVMMEM, HVMOP, XenHvmEvtchnUpcallVector, XenHvmGetMemType, XenHvmGetTime, XenHvmPagetableDying, XenHvmParam } from "../abi/hvm/hvm_op.ts";
import { HVM_NR_PARAMS, HVM_PARAM, HVM_PARAM_CALLBACK_TYPE } from "../abi/hvm/params.ts";
import { P2M_TYPE, P2M_W } from "../memory/p2m.ts";
import { type Args, type Call, copyFieldOut, copyIn, num, self } from "./call.ts";
import { DOMAIN, VCPU } from "./objects.ts";
import type { Domain } from "./domain.ts";

const P = HVM_PARAM;
/** A guest may set these of its own; all others are the toolstack's (-EPERM). */
const GUEST_SETS = new Set<number>([P.CALLBACK_IRQ, P.VM86_TSS, P.VM86_TSS_SIZED, P.ACPI_S_STATE, P.VM_GENERATION_ID_ADDR, P.STORE_EVTCHN, P.CONSOLE_EVTCHN, P.X87_FIP_WIDTH]);
const GUEST_GETS = new Set<number>([...GUEST_SETS, P.STORE_PFN, P.CONSOLE_PFN, P.ALTP2M]);
/** Numbers once used: refused as if they did not exist. */
const GONE = new Set<number>([P.MEMORY_EVENT_CR0, P.MEMORY_EVENT_CR3, P.MEMORY_EVENT_CR4, P.MEMORY_EVENT_INT3, P.MEMORY_EVENT_SINGLE_STEP, P.MEMORY_EVENT_MSR]);

/** HVM_PARAM_CALLBACK_IRQ: a vector is delivered straight; lines of interrupt chips do not exist in a PVH guest and are kept as "none". */
function setCallbackVia(d: Domain, via: bigint): void {
  const type = Number(via >> 56n), vector = Number(via & 0xffn);
  d.hv.store(DOMAIN.callbackVector, d.at, type === HVM_PARAM_CALLBACK_TYPE.VECTOR && vector >= 16 ? vector : 0);
  for (const v of d.vcpus()) if (v.isUpcallPending) v.kick();
}
function setParam(c: Call, arg: bigint): number {
  const p = copyIn(c, arg, XenHvmParam.sizeof), index = XenHvmParam.index.get(p, 0), value = XenHvmParam.value.get(p, 0);
  if (index >= HVM_NR_PARAMS) return -EINVAL;
  const d = self(c, XenHvmParam.domid.get(p, 0));
  if (GONE.has(index)) return -EINVAL;
  if (!GUEST_SETS.has(index)) return -EPERM;
  if (index === P.CALLBACK_IRQ) setCallbackVia(d, value);
  if (index === P.ACPI_S_STATE && value !== 0n) return -EINVAL;
  if (index === P.X87_FIP_WIDTH && value !== 0n && value !== 4n && value !== 8n) return -EINVAL;
  d.setParam(index, value);
  return 0;
}
function getParam(c: Call, arg: bigint): number {
  const p = copyIn(c, arg, XenHvmParam.sizeof), index = XenHvmParam.index.get(p, 0);
  if (index >= HVM_NR_PARAMS) return -EINVAL;
  const d = self(c, XenHvmParam.domid.get(p, 0));
  if (GONE.has(index)) return -EINVAL;
  if (!GUEST_GETS.has(index)) return -EPERM;
  XenHvmParam.value.set(p, 0, d.param(index));
  copyFieldOut(c, arg, p, XenHvmParam.value);
  return 0;
}

type Op = (c: Call, arg: bigint) => number;
const OPS: Readonly<Record<number, Op>> = {
  [HVMOP.set_param]: setParam,
  [HVMOP.get_param]: getParam,
  [HVMOP.set_evtchn_upcall_vector]: (c, arg) => {
    const s = copyIn(c, arg, XenHvmEvtchnUpcallVector.sizeof), vector = XenHvmEvtchnUpcallVector.vector.get(s, 0), v = c.d.vcpu(XenHvmEvtchnUpcallVector.vcpu.get(s, 0));
    if (vector < 16) return -EINVAL;
    if (!v) return -ENOENT;
    c.hv.store(VCPU.upcallVector, v.at, vector);
    return 0;
  },
  [HVMOP.flush_tlbs]: (c, arg) => {
    if (arg !== 0n) return -EINVAL;
    c.hv.add(DOMAIN.p2mGen, c.d.at, 1); /* those that do not run now empty theirs when they do */
    c.flushTlbs();
    return 0;
  },
  [HVMOP.pagetable_dying]: (c, arg) => { self(c, XenHvmPagetableDying.domid.get(copyIn(c, arg, XenHvmPagetableDying.sizeof), 0)); return 0; },
  [HVMOP.get_time]: (c, arg) => {
    const s = new DataView(new ArrayBuffer(XenHvmGetTime.sizeof));
    XenHvmGetTime.now.set(s, 0, BigInt(c.hv.clock.now() + c.d.timeOffsetNs));
    copyFieldOut(c, arg, s, XenHvmGetTime.now);
    return 0;
  },
  [HVMOP.get_mem_type]: (c, arg) => {
    const s = copyIn(c, arg, XenHvmGetMemType.sizeof), d = self(c, XenHvmGetMemType.domid.get(s, 0)), entry = d.p2m.lookup(num(XenHvmGetMemType.pfn.get(s, 0)));
    const isRam = entry !== 0 && (entry & P2M_TYPE.mask) === P2M_TYPE.ram;
    XenHvmGetMemType.mem_type.set(s, 0, isRam ? (entry & P2M_W ? HVMMEM.ram_rw : HVMMEM.ram_ro) : HVMMEM.mmio_dm);
    copyFieldOut(c, arg, s, XenHvmGetMemType.mem_type);
    return 0;
  },
  [HVMOP.xentrace]: () => -EPERM,
  [HVMOP.set_mem_access]: () => -EPERM,
  [HVMOP.get_mem_access]: () => -EPERM,
  [HVMOP.guest_request_vm_event]: () => 0,
  [HVMOP.altp2m]: () => -EPERM,
};
/** HYPERVISOR_hvm_op(op, arg). */
export function doHvmOp(c: Call, a: Args): number { return OPS[a.n(0)]?.(c, a.p(1)) ?? -ENOSYS; }
