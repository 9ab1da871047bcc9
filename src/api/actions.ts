/** All that can be asked of a host, each thing described once: from this come validation, the routes of every socket, and the OpenAPI document. */
import { z } from "zod";
import { Affinity, BlockInfo, BridgeInfo, ChannelInfo, count, DomainConfigJson, DomainInfo, Domref, kib, LostDomain, MachineInfo, MachineStatus, NicInfo, path, PoolInfo, SchedName, SchedParams, TaskJson, text, VcpuInfo } from "./schema.ts";

/** Who may: `read` looks, `operate` runs domains, `admin` rules the host. */
export const ROLES = ["read", "operate", "admin"] as const;
/** One of them; each holds those before it. */
export type Role = (typeof ROLES)[number];
/** An action. `at`: who answers, the machine's process or domusd. `isLong`: it is a task, and its answer a stream of lines. */
export type Action<P extends z.ZodType = z.ZodType, R extends z.ZodType = z.ZodType> = { readonly doc: string; readonly at: "machine" | "host"; readonly role: Role; readonly isLong?: true; readonly params: P; readonly result: R };
const action = <P extends z.ZodType, R extends z.ZodType>(a: Action<P, R>): Action<P, R> => a;

const nothing = z.object({}), done = z.object({}), one = z.object({ domain: Domref });
const domid = z.object({ domid: count });
/** What fits into an address, escaped. */
const MAX_QUERY_JSON = 8192;
const machine = { at: "machine" } as const, host = { at: "host", role: "admin" } as const;
const read = { ...machine, role: "read" } as const, operate = { ...machine, role: "operate" } as const;

/** The table. */
export const ACTIONS = {
  "machine.info": action({ ...read, doc: "What the machine is and has left", params: nothing, result: MachineInfo }),
  "machine.dmesg": action({ ...operate, doc: "The machine's messages; `clear` forgets them afterwards", params: z.object({ clear: z.boolean().optional() }), result: z.object({ text: z.string() }) }),
  "machine.debugKeys": action({ ...operate, doc: "Have the machine write to its messages what each key asks for: d registers, e event channels, g grant tables, q domains, r run queue, h help", params: z.object({ keys: text(64).min(1) }), result: done }),

  "domain.list": action({ ...read, doc: "Domains, or one", params: z.object({ domain: Domref.optional() }), result: z.array(DomainInfo) }),
  "domain.config": action({ ...read, doc: "A domain's configuration, as libxl's JSON", params: one, result: DomainConfigJson }),
  "domain.create": action({ ...operate, isLong: true, doc: "Make a domain and let it run, or leave it paused", params: z.object({ config: DomainConfigJson, isPaused: z.boolean().optional() }), result: domid }),
  "domain.destroy": action({ ...operate, doc: "End a domain at once", params: one, result: done }),
  "domain.shutdown": action({ ...operate, doc: "Ask a guest to power off, reboot, halt; `isUnderstood`: it has said that it listens", params: one.extend({ how: z.enum(["poweroff", "reboot", "halt", "suspend", "crash"]) }), result: z.object({ isUnderstood: z.boolean() }) }),
  "domain.pause": action({ ...operate, doc: "Stop a domain's vCPUs", params: one, result: done }),
  "domain.unpause": action({ ...operate, doc: "Let a paused domain run again", params: one, result: done }),
  "domain.rename": action({ ...operate, doc: "Give a domain another name", params: one.extend({ name: text(128).min(1) }), result: done }),
  "domain.configUpdate": action({ ...operate, doc: "What the domain is made from at its next restart", params: one.extend({ config: DomainConfigJson }), result: done }),
  "domain.memSet": action({ ...operate, doc: "What the guest's balloon shall aim at", params: one.extend({ kib }), result: done }),
  "domain.memMax": action({ ...operate, doc: "The most that memSet may ask for", params: one.extend({ kib }), result: done }),
  "domain.trigger": action({ ...operate, doc: "Send a trigger to a vCPU", params: one.extend({ trigger: z.enum(["nmi", "reset", "init", "power", "sleep", "s3resume"]), vcpu: count.optional() }), result: done }),
  "domain.sysrq": action({ ...operate, doc: "Press a Magic SysRq key", params: one.extend({ key: text(1).min(1) }), result: done }),
  "domain.dumpCore": action({ ...operate, isLong: true, doc: "Write a domain's memory and registers to a file of the host, as Xen's core format", params: one.extend({ path }), result: z.object({ bytes: z.number() }) }),
  "domain.save": action({ ...operate, isLong: true, doc: "Save a domain to a file of the host; it ends, or stays running or paused; `config` goes into the file in place of its own", params: one.extend({ path, config: DomainConfigJson.optional(), afterwards: z.enum(["destroy", "run", "pause"]).optional() }), result: z.object({ bytes: z.number(), ms: z.number() }) }),
  "domain.restore": action({ ...operate, isLong: true, doc: "Make a domain from a saved one", params: z.object({ path, isPaused: z.boolean().optional(), config: DomainConfigJson.optional() }), result: domid }),
  "domain.migrate": action({ ...operate, isLong: true, doc: "Move a domain to the host whose API is at an address, by TLS; this host's own certificate says who it is; `config` goes with it in place of its own", params: one.extend({ to: text(256), config: DomainConfigJson.optional(), token: text(128).optional(), maxBytesPerSecond: z.int().min(1).optional(), postcopy: z.boolean().optional(), isPaused: z.boolean().optional(), tls: z.object({ ca: path.optional(), cert: path.optional(), key: path.optional() }).optional() }), result: z.unknown() }),
  "migration.standing": action({ ...read, doc: "What this end says of a migration: for the other end, when the link broke while the domain was handed over", params: z.object({ migration: text(64) }), result: z.object({ standing: z.string() }) }),
  "migration.settle": action({ ...operate, doc: "Say of a domain that stands still since the link broke while it was handed over whether the other end has it (`running`: the copy here ends) or not (`dropped`: it goes on here)", params: z.object({ migration: text(64).min(1), standing: z.enum(["running", "dropped"]) }), result: z.object({ isHere: z.boolean() }) }),

  "block.list": action({ ...read, doc: "A domain's block devices", params: one, result: z.array(BlockInfo) }),
  "block.attach": action({ ...operate, doc: "Give a domain a block device; `spec` as in xl.cfg", params: one.extend({ spec: z.array(z.string().max(4096)).min(1).max(16), folder: path.optional() }), result: z.object({ vdev: z.string() }) }),
  "block.detach": action({ ...operate, doc: "Take a block device away: the guest is asked, or not (`isForced`)", params: one.extend({ vdev: text(64).min(1), isForced: z.boolean().optional() }), result: done }),
  "cdrom.change": action({ ...operate, doc: "Put a disc in a drive; without `path`: take it out", params: one.extend({ vdev: text(64).min(1), path: path.optional() }), result: done }),
  "nic.list": action({ ...read, doc: "A domain's network interfaces", params: one, result: z.array(NicInfo) }),
  "nic.attach": action({ ...operate, doc: "Give a domain a network interface; `spec` as in xl.cfg", params: one.extend({ spec: z.array(z.string().max(4096)).max(16) }), result: z.object({ devid: count }) }),
  "nic.detach": action({ ...operate, doc: "Take a network interface away, by number or address", params: one.extend({ nic: text(32).min(1), isForced: z.boolean().optional() }), result: done }),
  "net.list": action({ ...read, doc: "Bridges and their ports", params: nothing, result: z.array(BridgeInfo) }),
  "channel.list": action({ ...read, doc: "A domain's further consoles", params: one, result: z.array(ChannelInfo) }),

  "cpu.list": action({ ...read, doc: "vCPUs, of all domains or of one", params: z.object({ domain: Domref.optional() }), result: z.array(VcpuInfo) }),
  "cpu.pin": action({ ...operate, doc: "On which pCPUs a vCPU may run, and on which it had better; null: as it is", params: one.extend({ vcpu: z.union([count, z.literal("all")]), hard: Affinity.nullable(), soft: Affinity.nullable() }), result: done }),
  "cpu.online": action({ ...operate, doc: "Have the first so many vCPUs on line", params: one.extend({ nr: count }), result: done }),
  "sched.get": action({ ...read, doc: "A domain's scheduling parameters", params: one, result: z.object({ sched: SchedName, params: z.array(SchedParams) }) }),
  "sched.set": action({ ...operate, doc: "Change a domain's scheduling parameters", params: one.extend({ params: SchedParams }), result: done }),
  "pool.list": action({ ...read, doc: "cpupools", params: nothing, result: z.array(PoolInfo) }),
  "pool.create": action({ ...operate, doc: "Make a cpupool", params: z.object({ name: text(64).min(1), sched: SchedName, pcpus: z.array(count).max(4096) }), result: PoolInfo }),
  "pool.destroy": action({ ...operate, doc: "Take a cpupool without domains apart", params: z.object({ id: count }), result: done }),
  "pool.rename": action({ ...operate, doc: "Give a cpupool another name", params: z.object({ id: count, name: text(64).min(1) }), result: done }),
  "pool.addCpu": action({ ...operate, doc: "Put a free pCPU into a cpupool", params: z.object({ id: count, pcpu: count }), result: done }),
  "pool.removeCpu": action({ ...operate, doc: "Take a pCPU out of a cpupool", params: z.object({ id: count, pcpu: count }), result: done }),
  "pool.move": action({ ...operate, doc: "Move a domain to a cpupool", params: one.extend({ id: count }), result: done }),
  "pool.set": action({ ...operate, doc: "Change a cpupool's scheduler's parameters", params: z.object({ id: count, ratelimitUs: count.optional(), tsliceMs: count.optional() }), result: done }),

  "task.list": action({ ...read, doc: "Tasks under way, and the last that ended", params: nothing, result: z.array(TaskJson) }),
  "task.cancel": action({ ...operate, doc: "Ask a task to stop", params: z.object({ task: text(64) }), result: done }),
  "task.watch": action({ ...read, isLong: true, doc: "Hear of a task until it ends", params: z.object({ task: text(64) }), result: z.unknown() }),

  "host.status": action({ at: "host", role: "read", doc: "domusd, its machine, and what was lost", params: nothing, result: z.object({ version: z.string(), pid: count, startedMs: z.number(), state: z.string(), machines: z.array(MachineStatus), lost: z.array(LostDomain), http: z.string().nullable() }) }),
  "host.acknowledge": action({ ...host, doc: "Forget the domains that were lost", params: nothing, result: done }),
  "host.configs": action({ at: "host", role: "read", doc: "Configurations of the domains that are, and of those that were lost", params: nothing, result: z.array(z.object({ name: z.string(), uuid: z.string(), domid: z.int().nullable(), state: z.string(), config: DomainConfigJson })) }),
  "host.stop": action({ ...host, doc: "End domusd, and its machine where no domain is left or `isForced`", params: z.object({ isForced: z.boolean().optional(), keepMachine: z.boolean().optional() }), result: done }),
  "token.create": action({ ...host, doc: "Make a token for the API over HTTP; it is shown once", params: z.object({ name: text(64).min(1), role: z.enum(ROLES) }), result: z.object({ token: z.string() }) }),
  "token.list": action({ ...host, doc: "Tokens, without their secrets", params: nothing, result: z.array(z.object({ name: z.string(), role: z.enum(ROLES), createdMs: z.number() })) }),
  "token.remove": action({ ...host, doc: "A token is one no more", params: z.object({ name: text(64).min(1) }), result: done }),
};
/** An action's name. */
export type ActionName = keyof typeof ACTIONS;
/** What it takes, and what it gives. */
export type Params<N extends ActionName> = z.input<(typeof ACTIONS)[N]["params"]>;
/** What a handler is given: checked. */
export type Checked<N extends ActionName> = z.output<(typeof ACTIONS)[N]["params"]>;
/** What it gives. */
export type Result<N extends ActionName> = z.infer<(typeof ACTIONS)[N]["result"]>;

/** Connections that carry bytes both ways; by upgrade, or by WebSocket. */
export const STREAMS = {
  "net.capture": { ...operate, doc: "What passes a bridge, or the port of one, as pcapng; `filter` in words like tcpdump's; it lasts as long as the connection", params: z.object({ on: text(64).min(1), filter: text(1024).optional(), snapLenBytes: z.coerce.number().int().min(14).max(262144).optional() }) },
  console: { ...operate, doc: "A domain's console: its bytes, and what is typed where nobody else types", params: z.object({ domain: Domref, number: z.coerce.number().int().min(0).max(7).optional(), follow: z.stringbool().optional() }) },
  "migrate.receive": { ...operate, doc: "Take a domain in: the peer's migration stream", params: z.object({ isPaused: z.stringbool().optional(), name: text(128).optional() }) },
  "migrate.rest": { ...operate, doc: "Take the rest of the memory of a domain that runs here already, when the connection it followed by has broken", params: z.object({ migration: text(64) }) },
  "migrate.send": { ...operate, doc: "Give a domain away: a migration stream to a peer; `config`: JSON that goes with it in place of its own", params: z.object({ domain: Domref, config: z.string().max(MAX_QUERY_JSON).optional(), live: z.stringbool().optional(), postcopy: z.stringbool().optional(), maxBytesPerSecond: z.coerce.number().int().min(1).optional() }) },
} as const;
/** A stream's name. */
export type StreamName = keyof typeof STREAMS;
