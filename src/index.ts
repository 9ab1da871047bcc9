/** The library: machines, domains, and configurations. The command `domus` is built on it. */
export { UserError } from "./base/errors.ts";
export { type CheckedConfig, checkConfig, type DomainConfig, type EventAction, fromXl } from "./toolstack/config.ts";
export { type CrashReport, crashText } from "./toolstack/crash.ts";
export { planDomain } from "./toolstack/create.ts";
export { type Domain, type DomainEnd, type DomainReport, type EndReason } from "./toolstack/domain.ts";
export type { Host } from "./toolstack/host.ts";
export { createMachine, type Machine, type MachineConfig, type MachineReport } from "./toolstack/machine.ts";
export { superviseDomain } from "./toolstack/supervise.ts";
export { parseXlCfg } from "./toolstack/xlcfg.ts";
