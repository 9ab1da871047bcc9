/** public/vcpu.h */
import { bytes, i32, struct, u32, u64 } from "../base/struct.ts";

export const VCPUOP = {
  initialise: 0, up: 1, down: 2, is_up: 3, get_runstate_info: 4, register_runstate_memory_area: 5, set_periodic_timer: 6,
  stop_periodic_timer: 7, set_singleshot_timer: 8, stop_singleshot_timer: 9, register_vcpu_info: 10, send_nmi: 11, get_physid: 12,
  register_vcpu_time_memory_area: 13,
} as const;
export const RUNSTATE = { running: 0, runnable: 1, blocked: 2, offline: 3 } as const;
/** [XEN]. time[RUNSTATE]: ns spent in each state. state_entry_time's top bit is set during an update, where the guest asked for it. */
export const VcpuRunstateInfo = struct(48, { state: i32(0), state_entry_time: u64(8), time: bytes(16, 32) });
export const XEN_RUNSTATE_UPDATE = 1n << 63n;
/** addr: a virtual address. */
export const VcpuRegisterRunstateMemoryArea = struct(8, { addr: u64(0) });
export const VcpuRegisterTimeMemoryArea = struct(8, { addr: u64(0) });
export const VcpuSetPeriodicTimer = struct(8, { period_ns: u64(0) });
export const VcpuSetSingleshotTimer = struct(16, { timeout_abs_ns: u64(0), flags: u32(8) });
/** future: answer -ETIME when the time is past; without it the timer fires at once. */
export const VCPU_SSHOTTMR = { future: 1 } as const;
/** mfn: a guest frame number in translated guests. */
export const VcpuRegisterVcpuInfo = struct(16, { mfn: u64(0), offset: u32(8), rsvd: u32(12) });
/** APIC id in the low half, ACPI id in the high. */
export const VcpuGetPhysid = struct(8, { phys_id: u64(0) });
