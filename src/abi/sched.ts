/** public/sched.h */
import { i32, struct, u16, u32, u64 } from "../base/struct.ts";

export const SCHEDOP = { yield: 0, block: 1, shutdown: 2, poll: 3, remote_shutdown: 4, shutdown_code: 5, watchdog: 6, pin_override: 7 } as const;
export const SHUTDOWN = { poweroff: 0, reboot: 1, suspend: 2, crash: 3, watchdog: 4, soft_reset: 5, MAX: 5 } as const;
export const SchedShutdown = struct(4, { reason: u32(0) });
/** timeout: absolute system time in ns, 0 for none. */
export const SchedPoll = struct(24, { ports: u64(0), nr_ports: u32(8), timeout: u64(16) });
export const SchedRemoteShutdown = struct(8, { domain_id: u16(0), reason: u32(4) });
/** timeout in seconds. */
export const SchedWatchdog = struct(8, { id: u32(0), timeout: u32(4) });
export const SchedPinOverride = struct(4, { pcpu: i32(0) });
