/** The shapes of what the API takes and gives. */
import { z } from "zod";
import type { LibxlConfig } from "../toolstack/libxl-json.ts";
import { EVENT_KINDS } from "./events.ts";

/** A text of a bounded length without control characters. */
const text = (max: number): z.ZodString => z.string().max(max).regex(/^[^\x00-\x1f\x7f]*$/, "has a control character in it");
const count = z.int().min(0).max(2 ** 31 - 1), kib = z.int().min(0).max(2 ** 40);
const path = z.string().min(1).max(4096).regex(/^[^\0]*$/, "has a NUL in it");

/** A domain: its number, or its name; a name of digits alone is a number, as with xl. */
export const Domref = z.union([count, text(256).min(1)]).meta({ description: "A domain's number or name; digits are a number" });

const Disk = z.object({
  backend_domname: text(256).optional(), pdev_path: z.string().max(4096), vdev: text(64), backend: text(16).optional(), format: text(16), script: text(256).optional(), removable: count.optional(), readwrite: count.optional(),
  is_cdrom: count.optional(), direct_io_safe: z.boolean().optional(), discard_enable: z.enum(["True", "False"]).optional(),
});
const Nic = z.object({
  backend_domname: text(256).optional(), devid: count.optional(), mtu: count.optional(), model: text(64).optional(), mac: text(32).optional(), ip: text(1024).optional(), bridge: text(64).optional(), ifname: text(64).optional(),
  script: text(256).optional(), nictype: text(16).optional(), rate_bytes_per_interval: z.int().min(0).max(2 ** 52).optional(), rate_interval_usecs: count.optional(), gatewaydev: text(64).optional(),
  domus: z.object({ vlan: text(256).optional(), forwards: z.array(text(256)).max(64).optional() }).optional(),
});
const P9 = z.object({ backend_domname: text(256).optional(), tag: text(64), path, security_model: text(16), devid: z.int().optional(), domus: z.object({ readonly: z.boolean().optional() }).optional() });
const affinity = z.array(z.array(count).max(4096)).max(128);
const action = text(32).optional();
/** libxl_domain_config: see src/toolstack/libxl-json.ts. */
export const DomainConfigJson = z.object({
  c_info: z.object({ type: z.literal("pvh"), name: text(128), uuid: text(36), pool_name: text(64).optional(), run_hotplug_scripts: text(8).optional() }),
  b_info: z.object({
    max_vcpus: count, avail_vcpus: z.array(count).max(128), vcpu_hard_affinity: affinity.optional(), vcpu_soft_affinity: affinity.optional(), numa_placement: text(8).optional(), max_memkb: kib, target_memkb: kib,
    sched_params: z.object({ weight: count.optional(), cap: count.optional(), period: count.optional(), budget: count.optional(), extratime: count.optional() }).optional(),
    claim_mode: text(8).optional(), kernel: path, cmdline: z.string().max(2048).optional(), ramdisk: path.optional(), "type.pvh": z.object({}).optional(), arch_arm: z.object({}).optional(), arch_x86: z.object({}).optional(),
  }),
  disks: z.array(Disk).max(256).optional(), nics: z.array(Nic).max(64).optional(), channels: z.array(z.object({ devid: count, name: text(64).optional(), "connection.socket": z.object({ path }) })).max(7).optional(), p9s: z.array(P9).max(64).optional(),
  on_poweroff: action, on_reboot: action, on_watchdog: action, on_crash: action, on_soft_reset: action,
}) satisfies z.ZodType<unknown, unknown>;
/** The same shape to the compiler. */
export const configOf = (c: z.infer<typeof DomainConfigJson>): LibxlConfig => c as LibxlConfig;

/** A domain in a listing. `state` is xl's six letters: running, blocked, paused, shutdown, crashed, dying. */
export const DomainInfo = z.object({
  domid: count, name: z.string(), uuid: z.string(), memoryKiB: kib, targetKiB: kib, maxKiB: kib, vcpus: count, onlineVcpus: count, state: z.string(), shutdownReason: z.int().nullable(), cpuTimeNs: z.number(), startedMs: z.number(), pool: z.string(),
});
/** A block device in a listing, as `xl block-list` has it. */
export const BlockInfo = z.object({ vdev: z.string(), devid: count, backendId: count, handle: count, state: count, evtchn: z.int(), ringRef: z.int(), backendPath: z.string(), target: z.string(), isCdrom: z.boolean() });
/** A network interface in a listing, as `xl network-list` has it. */
export const NicInfo = z.object({ devid: count, backendId: count, mac: z.string(), handle: count, state: count, evtchn: z.int(), txRef: z.int(), rxRef: z.int(), backendPath: z.string(), bridge: z.string() });
/** A bridge with its ports, as `domus net list` has it. Bytes and frames: `rx` came into the bridge. */
export const BridgeInfo = z.object({
  name: z.string(), mtuBytes: count,
  ports: z.array(z.object({ name: z.string(), peer: z.string().nullable(), vlan: z.string(), isIsolated: z.boolean(), rate: z.string(), state: z.string(), macs: z.array(z.string()), rxFrames: z.number(), rxBytes: z.number(), txFrames: z.number(), txBytes: z.number(), dropped: z.number() })),
});
/** A channel in a listing, as `xl channel-list` has it. */
export const ChannelInfo = z.object({ devid: count, backendId: count, handle: count, state: count, evtchn: z.int(), ringRef: z.int(), connection: z.string(), path: z.string(), name: z.string() });
/** The machine: what `xl info` tells. */
export const MachineInfo = z.object({
  pid: count, startedMs: z.number(), nrPcpus: count, cpuMHz: z.number(), totalMiB: z.number(), freeMiB: z.number(), engine: z.string(), scheduler: z.string(), nrDomains: count, freePcpus: count, cores: count, ownMemoryMiB: z.number(), ownCpuTimeNs: z.number(),
});

/** One vCPU, as `xl vcpu-list` has it. */
export const VcpuInfo = z.object({ domid: count, name: z.string(), vcpu: count, pcpu: count.nullable(), state: z.string(), timeNs: z.number(), hard: z.union([z.array(count), z.literal("all")]), soft: z.union([z.array(count), z.literal("all")]), isOnline: z.boolean() });
/** Which pCPUs. */
export const Affinity = z.union([z.array(z.int().min(0).max(4095)).max(4096), z.literal("all")]);
/** Schedulers by Xen's names. */
export const SchedName = z.enum(["credit", "credit2", "rtds", "null"]);
/** Parameters of a domain or vCPU for its pool's scheduler. */
export const SchedParams = z.object({ weight: count.optional(), cap: count.optional(), vcpu: count.optional(), periodUs: count.optional(), budgetUs: count.optional(), extratime: z.boolean().optional() });
/** A cpupool. */
export const PoolInfo = z.object({ id: count, name: z.string(), sched: SchedName, pcpus: z.array(count), domains: z.array(count), ratelimitUs: count.optional(), tsliceMs: count.optional() });

/** An event, see events.ts. */
export const EventJson = z.object({ seq: count, timeMs: z.number(), kind: z.enum(EVENT_KINDS), domid: count.optional(), name: z.string().optional(), uuid: z.string().optional(), reason: z.string().optional(), action: z.string().optional(), text: z.string().optional() });
/** A task, see tasks.ts. */
export const TaskJson = z.object({
  id: z.string(), action: z.string(), state: z.enum(["running", "done", "failed", "cancelled"]), startedMs: z.number(), endedMs: z.number().nullable(),
  progress: z.object({ text: z.string(), done: z.number().optional(), total: z.number().optional() }).nullable(), result: z.unknown(), error: z.object({ code: z.string(), message: z.string() }).nullable(),
});
/** A machine's process as domusd knows it. */
export const MachineStatus = z.object({ name: z.string(), pid: count, state: z.enum(["starting", "running", "lost", "stopped"]), socket: z.string(), xenstore: z.string(), startedMs: z.number() });
/** A domain that died with its machine. */
export const LostDomain = z.object({ machine: z.string(), domid: z.int(), name: z.string(), uuid: z.string(), lostMs: z.number(), why: z.string() });
export { count, kib, path, text };
