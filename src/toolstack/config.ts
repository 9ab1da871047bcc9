/** What a domain is made from: the typed form that the library takes, its checks, and the way from an xl.cfg to it. */
import { UserError } from "../base/errors.ts";
import type { OnFull } from "../drivers/block/device.ts";
import type { FolderSource } from "../drivers/9p/folder.ts";
import type { Rate } from "../network/rate.ts";
import type { VlanOptions } from "../network/vlan.ts";
import type { Disk } from "../storage/disk.ts";
import { type Affinity, type SchedParams, schedFault } from "./cpus.ts";
import { faultAt, type Place, parseNumber, placeText, type Setting, type XlValue } from "./xlcfg.ts";
import { xlCpus } from "./xlcpus.ts";
import { type ChannelSpec, xlDevices } from "./xldevices.ts";
import type { DiskSpec } from "./xldisk.ts";
import { nearest, XL_KEYS } from "./xlkeys.ts";
import { type P9Spec, tagFault } from "./xlp9.ts";

/** What is done when a domain ends, xl.cfg(5) "Event Actions". */
export const EVENT_ACTIONS = ["destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart", "soft-reset"] as const;
export type EventAction = (typeof EVENT_ACTIONS)[number];

/** A domain as the library's caller describes it. Names are xl.cfg's. */
export interface DomainConfig {
  /** unique on its machine */
  name: string;
  type?: "pvh";
  /** a bzImage or an ELF image with a PVH entry note */
  kernel: Uint8Array;
  ramdisk?: Uint8Array;
  /** what messages call them */
  kernelName?: string;
  ramdiskName?: string;
  cmdline?: string;
  memoryMiB?: number;
  /** the most that the balloon may reach; the domain boots with `memoryMiB` */
  maxmemMiB?: number;
  /** vCPUs on line when it boots */
  vcpus?: number;
  /** vCPUs it may have on line; default: `vcpus` */
  maxvcpus?: number;
  /** the cpupool it runs in; default, and "": the machine's first, whatever it is called by now */
  pool?: string;
  /** pCPUs that each vCPU may run on (hard affinity) and had better run on (soft); those beyond the list: all */
  cpus?: readonly Affinity[];
  cpusSoft?: readonly Affinity[];
  /** its terms with the pool's scheduler; what that one does not know is kept for others */
  sched?: SchedParams;
  /** 8-4-4-4-12 hexadecimal digits; made up where absent */
  uuid?: string;
  /** block devices, opened by the caller and closed by it when the domain has ended for good */
  disks?: readonly DiskConfig[];
  vifs?: readonly VifConfig[];
  /** consoles beside the primary one: the guest's hvc1 and on. Their names are the keys of `Domain.channels` */
  channels?: readonly string[];
  /** folders of the host that the guest may mount by 9p, opened anew for each life */
  shares?: readonly ShareConfig[];
  onPoweroff?: EventAction;
  onReboot?: EventAction;
  onCrash?: EventAction;
}
/** A block device of a domain. */
export type DiskConfig = {
  /** "xvda", "sdb1", "hdc" or a number: what the guest's driver makes a name from */
  readonly vdev: string;
  readonly disk: Disk;
  readonly isReadonly?: boolean;
  readonly isCdrom?: boolean;
  /** pass on what the guest says it needs no more; default: yes */
  readonly discards?: boolean;
  /** when the disk's medium is full: keep the guest's write until there is room (default), or give the guest an error */
  readonly onFull?: OnFull;
};

/** A network interface of a domain. */
export type VifConfig = {
  /** default: its place in the list */
  readonly devid?: number;
  /** "00:16:3e:01:02:03" */
  readonly mac: string;
  /** default: xenbr0. A bridge is made when it is first named. */
  readonly bridge?: string;
  /** name of the bridge's port; default: vifDOMID.DEVID */
  readonly vifname?: string;
  /** addresses the guest may send from, and with them only its own `mac`; default: any */
  readonly ips?: readonly string[];
  readonly vlan?: VlanOptions;
  readonly isIsolated?: boolean;
  /** limit on what the guest sends */
  readonly rate?: Rate;
  /** bytes of IP payload */
  readonly mtu?: number;
  /** host ports that lead to the guest, "tcp:127.0.0.1:2222-22" */
  readonly forwards?: readonly string[];
};

/** A shared folder of a domain. */
export type ShareConfig = {
  /** what the guest mounts it by, unique in its domain */
  readonly tag: string;
  readonly source: FolderSource;
  /** the guest may change nothing */
  readonly isReadonly?: boolean;
};
/** The first whose tag one before it has. */
export const tagTwice = (shares: readonly ShareConfig[]): ShareConfig | undefined => shares.find(({ tag }, i) => shares.findIndex((s) => s.tag === tag) !== i);

/** A configuration that passed `checkConfig`: every field filled in. */
export type CheckedConfig = Required<Omit<DomainConfig, "ramdisk">> & { readonly ramdisk: Uint8Array | null };
/** A checked configuration as it can be given once more. */
export const asGiven = ({ ramdisk, ...rest }: DomainConfig | CheckedConfig): DomainConfig => (ramdisk ? { ...rest, ramdisk } : rest);
/** Let go of a domain's images now, and not when a collector comes by: once it is built it needs them no more, and they are the largest that its machine has beside it. For who owns them, and reads them anew for another life. */
export function dropImages({ kernel, ramdisk }: Pick<CheckedConfig, "kernel" | "ramdisk">): void {
  for (const bytes of [kernel, ramdisk]) if (bytes && bytes.buffer instanceof ArrayBuffer && bytes.length === bytes.buffer.byteLength && bytes.length > 0) bytes.buffer.transfer(0);
}

/** libxl's max_memkb where a configuration names no memory: 32 MiB. libxl_create.c libxl__domain_build_info_setdefault */
export const DEFAULT_MEMORY_MIB = 32;
/** A 32-bit machine memory less its heap; what is really free is known to the machine only. */
export const MAX_MEMORY_MIB = 4000;
/** start_info and xen.h keep MAX_GUEST_CMDLINE at 1024; PVH passes a string, and Linux on x86 takes COMMAND_LINE_SIZE. */
const MAX_CMDLINE = 2048;
/** XENSTORE_ABS_PATH_MAX leaves room for more; longer names only break listings. */
const MAX_NAME = 128;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** What is wrong with a domain's name, or null. */
export const checkName = (name: unknown): string | null =>
  typeof name !== "string" || name === "" ? "A domain needs a name"
    : name.length > MAX_NAME ? `The name is ${name.length} characters long; ${MAX_NAME} is the limit`
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
    : /[\x00-\x1f\x7f/]/.test(name) ? "A name has no slash and no control characters in it"
    : name === "Domain-0" ? '"Domain-0" is the control domain\'s name'
    : null;
const checkMemory = (mib: unknown): string | null =>
  typeof mib !== "number" || !Number.isSafeInteger(mib) ? `${String(mib)} is not a whole number of MiB`
    : mib < 1 ? `A domain needs at least 1 MiB of memory, not ${mib}`
    : mib > MAX_MEMORY_MIB ? `${mib} MiB are more than a machine can hold (${MAX_MEMORY_MIB})`
    : null;
const checkVcpus = (n: unknown): string | null =>
  typeof n !== "number" || !Number.isSafeInteger(n) || n < 1 ? "A domain needs at least one vCPU" : n > 128 ? `${n} vCPUs are more than the 128 of a PVH domain` : null;
const checkCmdline = (s: unknown): string | null =>
  typeof s !== "string" ? "The command line is not a string" : s.includes("\0") ? "The command line has a NUL in it"
    : new TextEncoder().encode(s).length >= MAX_CMDLINE ? `The command line is longer than ${MAX_CMDLINE - 1} bytes` : null;
const checkUuid = (s: unknown): string | null => (typeof s === "string" && UUID.test(s) ? null : `"${String(s)}" is not a UUID; write 8-4-4-4-12 hexadecimal digits`);

/**
 * Check a typed configuration and fill in what it leaves open.
 * @throws UserError naming the field
 */
export function checkConfig(config: DomainConfig, options: { /** it has its memory from elsewhere: the kernel is for a later start and may be empty */ readonly isBuilt?: boolean } = {}): CheckedConfig {
  const fail = (field: string, fault: string | null): void => { if (fault) throw new UserError(`${field}: ${fault}`); };
  fail("name", checkName(config.name));
  if (config.type !== undefined && config.type !== "pvh") throw new UserError(`type: "${String(config.type)}" is not built yet; only "pvh" is`);
  if (!(config.kernel instanceof Uint8Array) || (config.kernel.length === 0 && !options.isBuilt)) throw new UserError("kernel: The kernel is empty or not given as bytes");
  if (config.ramdisk !== undefined && !(config.ramdisk instanceof Uint8Array)) throw new UserError("ramdisk: The ramdisk is not given as bytes");
  const memoryMiB = config.memoryMiB ?? DEFAULT_MEMORY_MIB, maxmemMiB = config.maxmemMiB ?? memoryMiB, cmdline = config.cmdline ?? "", vcpus = config.vcpus ?? 1;
  fail("memory", checkMemory(memoryMiB));
  fail("maxmem", checkMemory(maxmemMiB));
  if (maxmemMiB < memoryMiB) throw new UserError(`maxmem: ${maxmemMiB} MiB are less than memory's ${memoryMiB}`);
  fail("vcpus", checkVcpus(vcpus));
  const maxvcpus = config.maxvcpus ?? vcpus;
  fail("maxvcpus", checkVcpus(maxvcpus) ?? (maxvcpus < vcpus ? `${maxvcpus} are less than vcpus' ${vcpus}` : null));
  const sched = config.sched ?? {};
  fail("sched", schedFault(sched));
  fail("cmdline", checkCmdline(cmdline));
  const uuid = (config.uuid ?? crypto.randomUUID()).toLowerCase();
  fail("uuid", checkUuid(uuid));
  const shares = config.shares ?? [], taken = tagTwice(shares);
  for (const { tag } of shares) fail("shares", tagFault(tag));
  if (taken) throw new UserError(`shares: The tag "${taken.tag}" is given twice`);
  for (const field of ["onPoweroff", "onReboot", "onCrash"] as const) {
    const action = config[field];
    if (action !== undefined && !EVENT_ACTIONS.includes(action)) throw new UserError(`${field}: "${String(action)}" is not one of ${EVENT_ACTIONS.join(", ")}`);
  }
  return {
    name: config.name, type: "pvh", kernel: config.kernel, ramdisk: config.ramdisk ?? null, cmdline,
    kernelName: config.kernelName ?? "kernel", ramdiskName: config.ramdiskName ?? "ramdisk", memoryMiB, maxmemMiB, vcpus, maxvcpus, pool: config.pool ?? "", cpus: config.cpus ?? [], cpusSoft: config.cpusSoft ?? [], sched, uuid, disks: config.disks ?? [], vifs: config.vifs ?? [], channels: config.channels ?? [], shares,
    onPoweroff: config.onPoweroff ?? "destroy", onReboot: config.onReboot ?? "restart", onCrash: config.onCrash ?? "destroy",
  };
}

/** A domain as an xl.cfg describes it: files by path, with the places that messages about them name. */
export type DomainFile = {
  readonly config: Omit<DomainConfig, "kernel" | "ramdisk" | "disks" | "shares">;
  readonly kernel: { readonly path: string; readonly place: Place };
  readonly ramdisk: { readonly path: string; readonly place: Place } | null;
  /** to be opened by whoever can: an empty drive of CDs is left out */
  readonly disks: readonly DiskSpec[];
  /** where to let each of the domain's channels be reached */
  readonly channels: readonly ChannelSpec[];
  /** to be found by whoever can */
  readonly shares: readonly P9Spec[];
};
export type FromXl = { readonly domain: DomainFile; readonly warnings: readonly string[] };

const isEmptyList = (v: XlValue): boolean => v.kind === "list" && v.items.length === 0;

/** Warnings about keys that are unknown or not built yet; unknown ones are errors when `strict`. */
function reviewKeys(settings: ReadonlyMap<string, Setting>, strict: boolean): string[] {
  return [...settings.values()].flatMap(({ key, place, value }) => {
    const known = XL_KEYS.get(key);
    if (known === "built") return [];
    if (known) return isEmptyList(value) ? [] : [`${placeText(place)}: "${key}" (xl.cfg "${known}") is not built yet and is ignored`];
    const near = nearest(key, XL_KEYS.keys()), text = `Unknown key "${key}"${near ? `; did you mean "${near}"?` : ""}`;
    if (strict) throw faultAt(place, text);
    return [`${placeText(place)}: ${text}`];
  });
}

/**
 * Take a configuration file's settings as xl does.
 * @throws UserError at the place of the fault
 * @see tools/xl/xl_parse.c parse_config_data and parse_cmdline
 */
export function fromXl(settings: ReadonlyMap<string, Setting>, file: string, options: { strict?: boolean } = {}): FromXl {
  const warnings = reviewKeys(settings, options.strict ?? false);
  const warn = (key: string, text: string) => warnings.push(`${placeText(settings.get(key)!.place)}: ${text}`);

  const string = (key: string): string | undefined => {
    const value = settings.get(key)?.value;
    if (value?.kind === "list") throw faultAt(value.place, `${key}: Expected a string, found a list`);
    return value?.text;
  };
  const number = (key: string): number | undefined => {
    const value = settings.get(key)?.value;
    if (!value) return undefined;
    const n = value.kind === "list" ? null : parseNumber(value.text.trim());
    if (n === null) throw faultAt(value.place, `${key}: ${value.kind === "list" ? "Expected a number, found a list" : `"${value.text}" is not a number`}`);
    return n;
  };
  const checked = <T>(key: string, value: T, fault: string | null): T => {
    if (fault) throw faultAt(settings.get(key)?.value.place ?? { file, line: 1, column: 1 }, `${key}: ${fault}`);
    return value;
  };
  const action = (key: string, otherwise: EventAction): EventAction => {
    const text = string(key);
    if (text === undefined) return otherwise;
    const found = EVENT_ACTIONS.find((a) => a === text);
    if (!found) throw faultAt(settings.get(key)!.value.place, `${key}: "${text}" is not one of ${EVENT_ACTIONS.join(", ")}`);
    if (found === "soft-reset") warn(key, `${key}: "soft-reset" is not built yet and is taken as "destroy"`);
    return found;
  };
  const path = (key: string): { path: string; place: Place } | null => {
    const text = string(key);
    if (text === undefined || text === "") return null;
    if (text.includes("\0")) throw faultAt(settings.get(key)!.value.place, `${key}: A path has no NUL in it`);
    return { path: text, place: settings.get(key)!.value.place };
  };

  const name = string("name");
  if (name === undefined) throw new UserError(`${file}: No name is set; write name = "..."`);
  checked("name", name, checkName(name));
  const type = string("type") ?? (string("builder") === "hvm" ? "hvm" : undefined);
  if (type === undefined) throw new UserError(`${file}: No type is set, which means "pv" to xl; PV is not built yet: write type = "pvh"`);
  if (type !== "pvh") {
    const place = (settings.get("type") ?? settings.get("builder"))!.value.place;
    throw faultAt(place, type === "pv" || type === "hvm" ? `type: "${type}" is not built yet; only "pvh" is` : `type: "${type}" is not one of pv, pvh, hvm`);
  }
  const kernel = path("kernel");
  if (!kernel) throw new UserError(`${file}: No kernel is set; write kernel = "PATH" of a bzImage or a PVH ELF image`);

  const memory = number("memory"), maxmem = number("maxmem");
  if (memory !== undefined) checked("memory", memory, checkMemory(memory));
  if (maxmem !== undefined) checked("maxmem", maxmem, checkMemory(maxmem));
  if (memory === undefined && maxmem === undefined) warnings.push(`${file}: No memory is set; the domain gets xl's ${DEFAULT_MEMORY_MIB} MiB`);
  const memoryMiB = memory ?? maxmem ?? DEFAULT_MEMORY_MIB, maxmemMiB = maxmem ?? memoryMiB;
  if (maxmemMiB < memoryMiB) throw faultAt(settings.get("maxmem")!.value.place, `maxmem: ${maxmemMiB} MiB are less than memory's ${memoryMiB}`);

  const vcpus = number("vcpus") ?? 1;
  checked("vcpus", vcpus, checkVcpus(vcpus));
  const maxvcpus = number("maxvcpus") ?? vcpus;
  checked("maxvcpus", maxvcpus, checkVcpus(maxvcpus) ?? (maxvcpus < vcpus ? `${maxvcpus} are less than vcpus' ${vcpus}` : null));

  const uuid = string("uuid");
  if (uuid !== undefined) checked("uuid", uuid, checkUuid(uuid));

  const cpus = xlCpus(settings, maxvcpus);
  warnings.push(...cpus.warnings);
  const devices = xlDevices(settings);
  warnings.push(...devices.warnings);

  const cmdline = string("cmdline"), root = string("root"), extra = string("extra");
  if (cmdline !== undefined && (root !== undefined || extra !== undefined)) warn("cmdline", "root and extra are ignored in favour of cmdline");
  const words = cmdline ?? [root === undefined ? [] : [`root=${root}`], extra === undefined ? [] : [extra]].flat().join(" ");
  checked(cmdline !== undefined ? "cmdline" : extra !== undefined ? "extra" : "root", words, checkCmdline(words));

  const config: DomainFile["config"] = {
    name, type, cmdline: words, memoryMiB, maxmemMiB, vcpus, maxvcpus, ...cpus.config, vifs: devices.vifs, channels: devices.channels.map((c) => c.name),
    onPoweroff: action("on_poweroff", "destroy"), onReboot: action("on_reboot", "restart"), onCrash: action("on_crash", "destroy"),
    ...(uuid === undefined ? {} : { uuid }),
  };
  return { domain: { config, kernel, ramdisk: path("ramdisk"), disks: devices.disks, channels: devices.channels, shares: devices.shares }, warnings };
}
