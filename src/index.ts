/** The library: machines, domains, and configurations. The command `domus` is built on it. */
export { UserError } from "./base/errors.ts";
export { Bridge } from "./network/bridge.ts";
export { capture } from "./network/capture.ts";
export { NatNetwork } from "./network/nat/nat.ts";
export { connect, type Frame, type Port } from "./network/port.ts";
export { type Disk, DiskError, type FileStore } from "./storage/disk.ts";
export { LiveDisk } from "./storage/online.ts";
export { createDisk, openDisk } from "./storage/open.ts";
export { MemoryOverlay } from "./storage/overlay.ts";
export { type CheckedConfig, checkConfig, type DiskConfig, type DomainConfig, type EventAction, fromXl, type VifConfig } from "./toolstack/config.ts";
export { type CrashReport, crashText } from "./toolstack/crash.ts";
export { planDomain } from "./toolstack/create.ts";
export { type Domain, type DomainEnd, type DomainReport, type EndReason } from "./toolstack/domain.ts";
export type { Host } from "./toolstack/host.ts";
export { createMachine, type Machine, type MachineConfig, type MachineReport } from "./toolstack/machine.ts";
export type { Uplink, UplinkMaker } from "./toolstack/networks.ts";
export { superviseDomain } from "./toolstack/supervise.ts";
export { parseXlCfg } from "./toolstack/xlcfg.ts";
