/**
 * A domain's configuration as libxl writes it in JSON (libxl_domain_config): what `xl create -n` and `xl list -l` print, what save files and migration streams carry,
 * and what a domain is made from again. Keys beyond libxl's own are under "domus".
 * @see tools/libs/light/libxl_types.idl; a field with its default is left out, as libxl leaves it out
 */
import { UserError } from "../base/errors.ts";
import type { DomainFile, EventAction } from "./config.ts";
import type { Place, Setting } from "./xlcfg.ts";
import { vifConfig } from "./xldevices.ts";
import { type DiskSpec, parseDiskSpec, parseDisks } from "./xldisk.ts";
import { p9Spec } from "./xlp9.ts";
import { parseVifSpec, parseVifs, randomMac, type VifSpec } from "./xlvif.ts";

/** libxl_device_disk. */
export type LibxlDisk = {
  backend_domname?: string; pdev_path: string; vdev: string; backend?: string; format: string; script?: string; removable?: number; readwrite?: number; is_cdrom?: number;
  direct_io_safe?: boolean; discard_enable?: "True" | "False";
};
/** libxl_device_nic; `domus` holds what our bridges take beyond it. */
export type LibxlNic = {
  backend_domname?: string; devid?: number; mtu?: number; model?: string; mac?: string; ip?: string; bridge?: string; ifname?: string; script?: string; nictype?: string;
  rate_bytes_per_interval?: number; rate_interval_usecs?: number; gatewaydev?: string; domus?: { vlan?: string; forwards?: string[] };
};
/** libxl_device_channel with a socket. */
export type LibxlChannel = { devid: number; name?: string; "connection.socket": { path: string } };
/** libxl_device_p9; `domus` holds what ours takes beyond it. */
export type LibxlP9 = { backend_domname?: string; tag: string; path: string; security_model: string; devid?: number; domus?: { readonly?: boolean } };
/** libxl_domain_sched_params. */
export type LibxlSched = { weight?: number; cap?: number; period?: number; budget?: number; extratime?: number };
/** libxl_domain_config, as far as a PVH domain uses it. */
export type LibxlConfig = {
  c_info: { type: "pvh"; name: string; uuid: string; pool_name?: string; run_hotplug_scripts?: string };
  b_info: {
    max_vcpus: number; avail_vcpus: number[]; vcpu_hard_affinity?: number[][]; vcpu_soft_affinity?: number[][]; numa_placement?: string; max_memkb: number; target_memkb: number; sched_params?: LibxlSched;
    claim_mode?: string; kernel: string; cmdline?: string; ramdisk?: string; "type.pvh"?: Record<string, never>; arch_arm?: Record<string, never>; arch_x86?: Record<string, never>;
  };
  disks?: LibxlDisk[]; nics?: LibxlNic[]; channels?: LibxlChannel[]; p9s?: LibxlP9[];
  on_poweroff?: string; on_reboot?: string; on_watchdog?: string; on_crash?: string; on_soft_reset?: string;
};

/** What xl calls an action in JSON: libxl_action_on_shutdown. */
const ACTION_NAMES: Readonly<Record<EventAction, string>> = {
  destroy: "destroy", restart: "restart", "rename-restart": "restart_rename", preserve: "preserve", "coredump-destroy": "coredump_destroy", "coredump-restart": "coredump_restart", "soft-reset": "soft_reset",
};

/** How much of a configuration is written down. */
export type LibxlOptions = {
  /** makes a path one that holds anywhere; default: as written */
  readonly path?: (path: string) => string;
  /** fill in addresses that the toolstack makes up, so that the domain keeps them through its lives; `xl create -n` leaves them open */
  readonly isComplete?: boolean;
};

/** The JSON of a disk. */
export function libxlDisk(d: DiskSpec, path: (path: string) => string = (p) => p): LibxlDisk {
  return {
    ...(d.backend === null ? {} : { backend_domname: d.backend }), pdev_path: d.format === "empty" || /^(?:nbds?(?:\+unix)?|iscsi):\/\//.test(d.target) ? d.target : path(d.target), vdev: d.vdev,
    ...(d.backendtype === null ? {} : { backend: d.backendtype }), format: d.format, ...(d.script === null ? {} : { script: d.script }), ...(d.devtype === "cdrom" ? { removable: 1 } : {}),
    ...(d.access === "w" ? { readwrite: 1 } : {}), ...(d.devtype === "cdrom" ? { is_cdrom: 1 } : {}), ...(d.directIoSafe ? { direct_io_safe: true } : {}), ...discardOf(d),
  };
}
/** Only what was said: a writable disk discards where nothing was. */
const discardOf = (d: DiskSpec): Pick<LibxlDisk, "discard_enable"> =>
  d.discard === (d.access === "w") ? (/(?:^|,)\s*discard\s*(?:,|$)/.test(d.text) ? { discard_enable: "True" } : {}) : { discard_enable: d.discard ? "True" : "False" };

/** The JSON of a network interface. */
export function libxlNic(v: VifSpec, isComplete = true): LibxlNic {
  return {
    ...(v.backend === null ? {} : { backend_domname: v.backend }), devid: v.devid, ...(v.mtu === null ? {} : { mtu: v.mtu }), ...(v.model === null ? {} : { model: v.model }),
    ...(v.isMacGenerated && !isComplete ? {} : { mac: v.mac }), ...(v.ip.length === 0 ? {} : { ip: v.ip.join(" ") }), ...(v.bridge === null ? {} : { bridge: v.bridge }),
    ...(v.vifname === null ? {} : { ifname: v.vifname }), ...(v.script === null ? {} : { script: v.script }), ...(v.type === null ? {} : { nictype: v.type === "ioemu" ? "vif_ioemu" : v.type }),
    ...(v.rate === null ? {} : { rate_bytes_per_interval: v.rate.bytesPerInterval, rate_interval_usecs: v.rate.intervalUs }), ...(v.gatewaydev === null ? {} : { gatewaydev: v.gatewaydev }),
    ...(v.vlan === null && v.forwards.length === 0 ? {} : { domus: { ...(v.vlan === null ? {} : { vlan: v.vlan }), ...(v.forwards.length === 0 ? {} : { forwards: [...v.forwards] }) } }),
  };
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** A configuration file's meaning in libxl's JSON. `domain` is what `fromXl` made of the same settings. */
export function toLibxl(domain: DomainFile, settings: ReadonlyMap<string, Setting>, o: LibxlOptions = {}): LibxlConfig {
  const { config, kernel, ramdisk, channels, shares } = domain, path = o.path ?? ((p: string) => p), disk = settings.get("disk"), vif = settings.get("vif"), vcpus = config.vcpus ?? 1, maxvcpus = config.maxvcpus ?? vcpus;
  const disks = disk ? parseDisks(disk.value).map((d) => libxlDisk(d, path)) : [], nics = vif ? parseVifs(vif.value).map((v) => libxlNic(v, o.isComplete ?? false)) : [];
  const sched: LibxlSched = {};
  for (const [key, name] of [["weight", "weight"], ["cap", "cap"], ["periodUs", "period"], ["budgetUs", "budget"]] as const) if (config.sched?.[key] !== undefined) sched[name] = config.sched[key];
  if (config.sched?.extratime !== undefined) sched.extratime = Number(config.sched.extratime);
  const affinity = (of: readonly (readonly number[] | "all")[] | undefined): number[][] | null => (of && of.some((a) => a !== "all") ? of.map((a) => (a === "all" ? [] : [...a])) : null);
  const hard = affinity(config.cpus), soft = affinity(config.cpusSoft);
  const action = (key: "on_poweroff" | "on_reboot" | "on_crash", value: EventAction | undefined, usual: EventAction): object => ((value ?? usual) === "destroy" ? {} : { [key]: ACTION_NAMES[value ?? usual] });
  return {
    c_info: { type: "pvh", name: config.name, uuid: config.uuid ?? crypto.randomUUID(), ...(config.pool === undefined ? {} : { pool_name: config.pool }), run_hotplug_scripts: "True" },
    b_info: {
      max_vcpus: maxvcpus, avail_vcpus: range(vcpus), ...(hard ? { vcpu_hard_affinity: hard } : {}), ...(soft ? { vcpu_soft_affinity: soft } : {}), ...(soft || (hard && settings.get("cpus")?.value.kind === "list") ? { numa_placement: "False" } : {}),
      max_memkb: config.maxmemMiB! * 1024, target_memkb: config.memoryMiB! * 1024, sched_params: sched, claim_mode: "True",
      kernel: path(kernel.path), ...(config.cmdline ? { cmdline: config.cmdline } : {}), ...(ramdisk ? { ramdisk: path(ramdisk.path) } : {}), "type.pvh": {}, arch_arm: {}, arch_x86: {},
    },
    ...(disks.length ? { disks } : {}), ...(nics.length ? { nics } : {}), ...(channels.length ? { channels: channels.map((c, i) => ({ devid: i, name: c.name, "connection.socket": { path: path(c.path) } })) } : {}),
    ...(shares.length ? { p9s: shares.map((s) => ({ tag: s.tag, path: path(s.path), security_model: "none", ...(s.isReadonly ? { domus: { readonly: true } } : {}) })) } : {}),
    ...action("on_poweroff", config.onPoweroff, "destroy"), ...action("on_reboot", config.onReboot, "restart"), ...action("on_crash", config.onCrash, "destroy"), on_soft_reset: "soft_reset",
  };
}

/** A value between commas of a specification; what cannot stand there would be read as something else. */
function word(what: string, value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[,\x00-\x1f\x7f]/.test(value)) throw new UserError(`${what}: "${value}" has a comma or a control character in it`);
  return value;
}
/** A place of which only the name is shown: JSON has no lines worth telling. */
const named = (file: string): Place => ({ file, line: 0, column: 0 });

/** A disk of JSON, checked as one of a file is. @throws UserError */
export function diskFromLibxl(d: LibxlDisk): DiskSpec {
  const part = (key: string, value: string | undefined): string => (value === undefined || value === "" ? "" : `${key}=${word(`disk ${d.vdev}: ${key}`, value)},`);
  return parseDiskSpec(`${part("vdev", d.vdev)}${part("format", d.format)}access=${d.readwrite ? "rw" : "ro"},${d.is_cdrom ? "devtype=cdrom," : ""}${part("backendtype", d.backend)}${part("backend", d.backend_domname)}${part("script", d.script)}`
    + `${d.direct_io_safe ? "direct-io-safe," : ""}${d.discard_enable === undefined ? "" : d.discard_enable === "True" ? "discard," : "no-discard,"}${d.pdev_path ? `target=${d.pdev_path}` : ""}`, named("disk"));
}
/** An interface of JSON, checked as one of a file is. @throws UserError */
export function nicFromLibxl(n: LibxlNic, index: number): VifSpec {
  const texts: readonly (readonly [string, string | number | undefined])[] = [["mac", n.mac ?? randomMac()], ["bridge", n.bridge], ["vifname", n.ifname], ["script", n.script], ["ip", n.ip], ["backend", n.backend_domname], ["model", n.model],
    ["type", n.nictype === "vif_ioemu" ? "ioemu" : n.nictype], ["gatewaydev", n.gatewaydev], ["mtu", n.mtu], ["devid", n.devid ?? index], ["vlan", n.domus?.vlan], ...(n.domus?.forwards ?? []).map((f) => ["forward", f] as const)];
  const text = texts.flatMap(([key, value]) => (value === undefined || value === "" ? [] : [`${key}=${word(`vif ${index}: ${key}`, String(value))}`])).join(",");
  const rate = n.rate_bytes_per_interval === undefined ? null : { bytesPerInterval: n.rate_bytes_per_interval, intervalUs: n.rate_interval_usecs ?? 50_000 };
  return { ...parseVifSpec(text, named("vif"), index), rate };
}

const MIB_KIB = 1024;
const ACTIONS = new Map(Object.entries(ACTION_NAMES).map(([ours, theirs]) => [theirs, ours as EventAction]));

/** What a domain is made from: the way back. @throws UserError naming the field */
export function fromLibxl(c: LibxlConfig): DomainFile {
  const { c_info, b_info } = c, warnings: string[] = [], place = named(c_info.name);
  const action = (key: "on_poweroff" | "on_reboot" | "on_crash", usual: EventAction): EventAction => {
    const found = c[key] === undefined ? usual : ACTIONS.get(c[key]);
    if (!found) throw new UserError(`${key}: "${c[key]}" is not one of ${[...ACTIONS.keys()].join(", ")}`);
    return found;
  };
  const s = b_info.sched_params, hard = b_info.vcpu_hard_affinity, soft = b_info.vcpu_soft_affinity, all = (a: readonly number[]): readonly number[] | "all" => (a.length === 0 ? "all" : a);
  return {
    config: {
      name: c_info.name, type: "pvh", uuid: c_info.uuid, cmdline: b_info.cmdline ?? "", memoryMiB: Math.floor(b_info.target_memkb / MIB_KIB), maxmemMiB: Math.floor(b_info.max_memkb / MIB_KIB),
      vcpus: b_info.avail_vcpus.length || 1, maxvcpus: b_info.max_vcpus, ...(c_info.pool_name === undefined ? {} : { pool: c_info.pool_name }),
      ...(hard ? { cpus: hard.map(all) } : {}), ...(soft ? { cpusSoft: soft.map(all) } : {}),
      ...(s && Object.keys(s).length ? { sched: { ...(s.weight === undefined ? {} : { weight: s.weight }), ...(s.cap === undefined ? {} : { cap: s.cap }), ...(s.period === undefined ? {} : { periodUs: s.period }), ...(s.budget === undefined ? {} : { budgetUs: s.budget }), ...(s.extratime === undefined ? {} : { extratime: s.extratime !== 0 }) } } : {}),
      vifs: (c.nics ?? []).map((n, i) => vifConfig(nicFromLibxl(n, i), warnings)), channels: (c.channels ?? []).map((ch, i) => ch.name ?? `channel${i}`),
      onPoweroff: action("on_poweroff", "destroy"), onReboot: action("on_reboot", "destroy"), onCrash: action("on_crash", "destroy"),
    },
    kernel: { path: b_info.kernel, place }, ramdisk: b_info.ramdisk === undefined ? null : { path: b_info.ramdisk, place },
    disks: (c.disks ?? []).map(diskFromLibxl), channels: (c.channels ?? []).map((ch, i) => ({ name: ch.name ?? `channel${i}`, path: ch["connection.socket"].path, place })),
    shares: (c.p9s ?? []).map((s) => p9Spec(place, { tag: s.tag, path: s.path, security_model: s.security_model, ...(s.backend_domname === undefined ? {} : { backend: s.backend_domname }) }, s.domus?.readonly ?? false)),
  };
}
