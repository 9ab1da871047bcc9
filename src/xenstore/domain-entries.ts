/**
 * The nodes that a toolstack makes for a domain, as libxl makes them: docs/misc/xenstore-paths.pandoc, and the order and permissions of
 * libxl__domain_make, libxl__build_post and libxl__device_console_add. Nodes without permissions of their own inherit their parent's.
 */
import { XenbusState } from "../abi/io/xenbus.ts";
import type { Entry } from "./client.ts";
import { backPath, backPerms, frontPerms, nodes, recordPath } from "./device-entries.ts";
import { domainPath } from "./path.ts";

export type DomainNodes = {
  domid: number;
  /** in its usual text form */
  uuid: string;
  name: string;
  type: "pv" | "pvh" | "hvm";
  /** what the balloon aims at, and the most it may reach */
  targetKiB: number;
  staticMaxKiB: number;
  videoramKiB?: number;
  maxVcpus: number;
  /** vCPUs online at the start: the first so many */
  onlineVcpus: number;
  /** ring page and the guest's port */
  store: { gfn: number; port: number };
  console: { gfn: number; port: number };
  image?: { kernel?: string; ramdisk?: string; cmdline?: string };
  /** for "start_time", in ms since 1970 */
  startedMs?: number;
};

export const vmPath = (uuid: string): string => `/vm/${uuid}`;
export const libxlPath = (domid: number): string => `/libxl/${domid}`;

/** Nodes of the store itself and of dom0; once a machine. */
export function hostEntries(): Entry[] {
  return [
    { path: "/tool/xenstored" }, { path: "/local/domain" }, { path: "/vm" }, { path: "/libxl" },
    { path: `${domainPath(0)}/name`, value: "Domain-0" }, { path: `${domainPath(0)}/domid`, value: "0" }, { path: `${domainPath(0)}/backend` },
  ];
}

/** All nodes of a new domain, for Access.writeAll within one transaction. */
export function guestStoreEntries(d: DomainNodes): Entry[] {
  const dom = domainPath(d.domid), vm = vmPath(d.uuid), libxl = libxlPath(d.domid);
  /** the guest may read; the guest owns; nobody but dom0 */
  const ro = ["n0", `r${d.domid}`], rw = [`n${d.domid}`], none = ["n0"];
  const under = (root: string, values: Record<string, string | number | undefined>): Entry[] =>
    Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [{ path: `${root}/${name}`, value: String(value) }]));
  const own = (...names: string[]): Entry[] => names.map((name) => ({ path: `${dom}/${name}`, value: "", perms: rw }));
  const cpus = Object.fromEntries(Array.from({ length: d.maxVcpus }, (_, i) => [`cpu/${i}/availability`, i < d.onlineVcpus ? "online" : "offline"]));
  const started = d.startedMs === undefined ? undefined : (d.startedMs / 1000).toFixed(2);
  return [
    { path: dom, perms: ro }, { path: vm, perms: ro }, { path: libxl, perms: none },
    ...under(libxl, { type: d.type }),
    ...under(dom, { vm, name: d.name }),
    ...["cpu", "memory", "device", "control"].map((name) => ({ path: `${dom}/${name}`, perms: ro })),
    ...(d.type === "hvm" ? [{ path: `${dom}/hvmloader`, perms: ro }, ...own("hvmloader/generation-id-address")] : []),
    ...own("control/shutdown", "control/feature-poweroff", "control/feature-reboot", "control/feature-suspend", "control/sysrq"),
    ...own("device/suspend/event-channel", "data", "drivers", "feature", "attr", "error"),
    ...under(dom, { "control/platform-feature-multiprocessor-suspend": 1, "control/platform-feature-xs_reset_watches": 1 }),
    ...under(vm, {
      uuid: d.uuid, name: d.name, "image/ostype": d.type === "pv" ? "linux" : "hvm", "image/kernel": d.image?.kernel,
      "image/ramdisk": d.image?.ramdisk, "image/cmdline": d.image?.cmdline, start_time: started,
    }),
    ...under(dom, {
      "memory/static-max": d.staticMaxKiB, "memory/target": d.targetKiB, "memory/videoram": d.videoramKiB ?? 0, domid: d.domid,
      "store/port": d.store.port, "store/ring-ref": d.store.gfn, ...cpus,
    }),
    ...consoleEntries(d),
  ];
}

/** Console 0. Its front end has no state: the guest finds ring and port in its start info or its HVM parameters. */
function consoleEntries(d: DomainNodes): Entry[] {
  const front = `${domainPath(d.domid)}/console`, back = backPath(d.domid, "console", 0), record = recordPath(d.domid, "console", 0);
  return [
    { path: record }, ...nodes(record, ["n0"], { frontend: front, backend: back }),
    { path: front, perms: frontPerms(d.domid) },
    ...nodes(front, frontPerms(d.domid), { backend: back, "backend-id": 0 }),
    ...nodes(front, backPerms(d.domid), { limit: 1048576, type: "xenconsoled", output: "pty", tty: "", port: d.console.port, "ring-ref": d.console.gfn }),
    { path: back, perms: backPerms(d.domid) },
    ...nodes(back, backPerms(d.domid), { frontend: front, "frontend-id": d.domid, online: 1, state: XenbusState.Initialising, protocol: "vt100" }),
  ];
}

/** What to remove when the domain is gone. */
export const guestStoreRoots = (domid: number, uuid: string): string[] => [domainPath(domid), vmPath(uuid), libxlPath(domid), `${domainPath(0)}/backend/console/${domid}`];
