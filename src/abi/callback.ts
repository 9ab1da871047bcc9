/** public/callback.h */
import { struct, u16, u64 } from "../base/struct.ts";

export const CALLBACKOP = { register: 0, unregister: 1 } as const;
export const CALLBACKTYPE = { event: 0, failsafe: 1, syscall: 2, sysenter_deprecated: 3, nmi: 4, sysenter: 5, syscall32: 7 } as const;
export const CALLBACKF = { mask_events: 1 } as const;
export const CallbackRegister = struct(16, { type: u16(0), flags: u16(2), address: u64(8) });
export const CallbackUnregister = struct(4, { type: u16(0), _unused: u16(2) });
