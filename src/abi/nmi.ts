/** public/nmi.h */
import { struct, u64 } from "../base/struct.ts";

export const XENNMI = { register_callback: 0, unregister_callback: 1 } as const;
/** Bits of arch_shared_info.nmi_reason. */
export const XEN_NMIREASON = { io_error: 1, pci_serr: 2, unknown: 4 } as const;
export const XennmiCallback = struct(16, { handler_address: u64(0), pad: u64(8) });
