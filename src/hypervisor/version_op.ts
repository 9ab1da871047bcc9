/** HYPERVISOR_xen_version - public/version.h. */
import { EINVAL, ENOSYS, EPERM } from "../abi/errno.ts";
import { XENFEAT } from "../abi/features.ts";
import {
  XEN_CAPABILITIES_INFO_LEN, XEN_CHANGESET_INFO_LEN, XEN_COMMANDLINE_LEN, XEN_EXTRAVERSION_LEN, XENVER, XenCompileInfo, XenFeatureInfo, XenPlatformParameters,
} from "../abi/version.ts";
import { HYPERVISOR_VIRT_START } from "../abi/arch-x86/xen.ts";
import { PAGE_SIZE } from "../memory/machine.ts";
import { type Args, type Call, copyFieldOut, copyIn, copyOut, text } from "./call.ts";
import { DOMAIN } from "./objects.ts";

/** The Xen whose behaviour ours follows. */
export const XEN_MAJOR = 4, XEN_MINOR = 17, EXTRAVERSION = ".0-domus";
const FEATURES = [XENFEAT.memory_op_vnode_supported, XENFEAT.writable_page_tables, XENFEAT.auto_translated_physmap, XENFEAT.hvm_callback_vector,
  XENFEAT.hvm_safe_pvclock, XENFEAT.linux_rsdp_unrestricted, XENFEAT.not_direct_mapped].reduce<number>((bits, bit) => bits | 1 << bit, 0) >>> 0;

type Op = (c: Call, arg: bigint) => number;
const OPS: Readonly<Record<number, Op>> = {
  [XENVER.version]: () => XEN_MAJOR << 16 | XEN_MINOR,
  [XENVER.extraversion]: (c, arg) => { copyOut(c, arg, text(EXTRAVERSION, XEN_EXTRAVERSION_LEN)); return 0; },
  [XENVER.compile_info]: (c, arg) => {
    const info = new Uint8Array(XenCompileInfo.sizeof), put = (f: { at: number; size: number }, s: string): void => info.set(text(s, f.size), f.at);
    put(XenCompileInfo.compiler, "TypeScript to WebAssembly");
    put(XenCompileInfo.compile_by, "domus");
    put(XenCompileInfo.compile_domain, "domus");
    put(XenCompileInfo.compile_date, "unbuilt");
    copyOut(c, arg, info);
    return 0;
  },
  [XENVER.capabilities]: (c, arg) => { copyOut(c, arg, text("hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ", XEN_CAPABILITIES_INFO_LEN)); return 0; },
  [XENVER.changeset]: (c, arg) => { copyOut(c, arg, text("unavailable", XEN_CHANGESET_INFO_LEN)); return 0; },
  [XENVER.platform_parameters]: (c, arg) => {
    const s = new DataView(new ArrayBuffer(XenPlatformParameters.sizeof));
    XenPlatformParameters.virt_start.set(s, 0, HYPERVISOR_VIRT_START);
    copyOut(c, arg, c.is32 ? new Uint8Array(s.buffer, 0, 4) : s);
    return 0;
  },
  [XENVER.get_features]: (c, arg) => {
    const s = copyIn(c, arg, XenFeatureInfo.sizeof);
    if (XenFeatureInfo.submap_idx.get(s, 0) !== 0) return -EINVAL;
    XenFeatureInfo.submap.set(s, 0, FEATURES);
    copyFieldOut(c, arg, s, XenFeatureInfo.submap);
    return 0;
  },
  [XENVER.pagesize]: (_c, arg) => (arg !== 0n ? -EINVAL : PAGE_SIZE),
  [XENVER.guest_handle]: (c, arg) => { const at = c.d.at + DOMAIN.handle.at; copyOut(c, arg, c.hv.views.u8.slice(at, at + 16)); return 0; },
  [XENVER.commandline]: (c, arg) => { copyOut(c, arg, text("<denied>", XEN_COMMANDLINE_LEN)); return 0; },
  [XENVER.build_id]: () => -EPERM,
};
/** HYPERVISOR_xen_version(cmd, arg). */
export function doXenVersion(c: Call, a: Args): number { return OPS[a.n(0)]?.(c, a.p(1)) ?? -ENOSYS; }
