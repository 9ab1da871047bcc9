/** Devices of domains that run: listed as xl lists them, given and taken away, discs changed. */
import { ApiFault } from "../../api/fault.ts";
import type { Result } from "../../api/actions.ts";
import { UserError } from "../../base/errors.ts";
import { LiveDisk } from "../../storage/online.ts";
import { closeDisks } from "../../toolstack/disks.ts";
import type { Domain } from "../../toolstack/domain.ts";
import { diskFromLibxl, libxlDisk, libxlNic, type LibxlConfig, type LibxlDisk } from "../../toolstack/libxl-json.ts";
import type { Machine } from "../../toolstack/machine.ts";
import { reviewDisk, vifConfig } from "../../toolstack/xldevices.ts";
import { parseDiskSpec, vdevName, vdevNumber } from "../../toolstack/xldisk.ts";
import { parseVifSpec } from "../../toolstack/xlvif.ts";
import { backPath, frontPath } from "../../xenstore/device-entries.ts";
import { pathFrom } from "../paths.ts";
import { changeDisc, openDrives } from "./drives.ts";
import type { Resident } from "./residents.ts";

/** A place of which only the name is shown. */
const place = (file: string) => ({ file, line: 0, column: 0 });

/** What the store says of a device: numbers as libxl reads them, -1 where there is none. */
function nodesOf(machine: Machine, domid: number, kind: string, devid: number) {
  const front = frontPath(domid, kind, devid), back = backPath(domid, kind, devid), { xs } = machine;
  const number = (key: string): number => { const text = xs.read(`${front}/${key}`); return text !== undefined && /^\d{1,10}$/.test(text) ? Math.min(Number(text), 2 ** 31 - 1) : -1; };
  return { back, state: Math.max(0, number("state")), number, text: (key: string) => xs.read(`${back}/${key}`) ?? "" };
}

/** Rows of `xl block-list`. */
export function blockList(machine: Machine, domain: Domain): Result<"block.list"> {
  return domain.devices.list("vbd").map(({ devid }) => {
    const n = nodesOf(machine, domain.domid, "vbd", devid);
    return { vdev: vdevName(devid), devid, backendId: 0, handle: devid, state: n.state, evtchn: n.number("event-channel"), ringRef: n.number("ring-ref"), backendPath: n.back, target: n.text("params"), isCdrom: n.text("device-type") === "cdrom" };
  });
}
/** Rows of `xl network-list`. */
export function nicList(machine: Machine, domain: Domain): Result<"nic.list"> {
  return domain.devices.list("vif").map(({ devid }) => {
    const n = nodesOf(machine, domain.domid, "vif", devid);
    return { devid, backendId: 0, mac: n.text("mac"), handle: devid, state: n.state, evtchn: n.number("event-channel"), txRef: n.number("tx-ring-ref"), rxRef: n.number("rx-ring-ref"), backendPath: n.back, bridge: n.text("bridge") };
  });
}
/** Rows of `xl channel-list`. */
export function channelList(machine: Machine, domain: Domain, config: LibxlConfig): Result<"channel.list"> {
  return domain.devices.list("console").map(({ devid }) => {
    const n = nodesOf(machine, domain.domid, "console", devid), name = n.text("name");
    return { devid: devid - 1, backendId: 0, handle: devid, state: n.state, evtchn: n.number("port"), ringRef: n.number("ring-ref"), connection: "socket", path: config.channels?.find((c) => c.name === name)?.["connection.socket"].path ?? "", name };
  });
}

/** Open a disk and give it to a domain. @param may refuses what the client may not name @returns its vdev @throws UserError with nothing left open */
export async function attachBlock(r: Resident & { domain: Domain }, spec: readonly string[], folder: string, may: (disk: LibxlDisk) => Promise<void>): Promise<{ vdev: string }> {
  const disk = parseDiskSpec(spec, place("disk"));
  reviewDisk(disk);
  if (r.domain.devices.list("vbd").some((d) => d.devid === disk.device)) throw new ApiFault("exists", `${r.name} has a disk ${disk.vdev} already`);
  const json = libxlDisk(disk, (path) => pathFrom(folder, path));
  await may(json);
  const [opened] = await openDrives([diskFromLibxl(json)]);
  try {
    r.domain.attachDisk(opened!);
  } catch (e) {
    await closeDisks([opened!]);
    throw e;
  }
  r.disks = [...r.disks, opened!];
  r.change((c) => ({ ...c, disks: [...(c.disks ?? []).filter((d) => !sameVdev(d.vdev, json.vdev)), json] }));
  return { vdev: disk.vdev };
}
const sameVdev = (a: string, b: string): boolean => vdevNumber(a) !== null && vdevNumber(a) === vdevNumber(b);
/** Take a disk away and close it. @throws UserError */
export async function detachBlock(r: Resident & { domain: Domain }, vdev: string, isForced: boolean): Promise<void> {
  const faults: string[] = [];
  await r.domain.detachDisk(vdev, isForced);
  await closeDisks(r.disks.filter((d) => sameVdev(d.vdev, vdev)), (sentence) => faults.push(sentence));
  r.disks = r.disks.filter((d) => !sameVdev(d.vdev, vdev));
  r.change((c) => ({ ...c, disks: (c.disks ?? []).filter((d) => !sameVdev(d.vdev, vdev)) }));
  if (faults.length) throw new ApiFault("failed", `${vdev} is taken from ${r.name}, but what was written last may be lost: ${faults.join("; ")}`);
}
/** Change the disc of a drive; `path` null: take it out. @throws UserError */
export async function changeCd(r: Resident, vdev: string, path: string | null): Promise<void> {
  const drive = r.disks.find((d) => sameVdev(d.vdev, vdev)), json = r.config.disks?.find((d) => sameVdev(d.vdev, vdev));
  if (!drive || !json) throw new ApiFault("notfound", `${r.name} has no drive ${vdev}`);
  if (!drive.isCdrom || !(drive.disk instanceof LiveDisk)) throw new ApiFault("invalid", `${vdev} of ${r.name} is a disk, not a drive for discs`);
  const next = { pdev_path: path ?? "", vdev: json.vdev, format: path === null ? "empty" : "raw", removable: 1, is_cdrom: 1 };
  await changeDisc(drive.disk, path === null ? null : diskFromLibxl(next));
  r.change((c) => ({ ...c, disks: (c.disks ?? []).map((d) => (d.is_cdrom && sameVdev(d.vdev, json.vdev) ? next : d)) }));
}

/** Give a domain an interface. @returns its number @throws UserError */
export async function attachNic(machine: Machine, r: Resident & { domain: Domain }, words: readonly string[]): Promise<{ devid: number }> {
  const spec = parseVifSpec(words.join(","), place("vif"), r.domain.devices.freeDevid("vif")), warnings: string[] = [];
  const has = nicList(machine, r.domain).find((n) => n.mac.toLowerCase() === spec.mac.toLowerCase());
  if (has) throw new ApiFault("exists", `${r.name} has an interface with the address ${spec.mac} already: number ${has.devid}`);
  const devid = await r.domain.attachVif(vifConfig(spec, warnings));
  r.change((c) => ({ ...c, nics: [...(c.nics ?? []).filter((n) => n.devid !== devid), { ...libxlNic(spec), devid }] }));
  return { devid };
}
/** Take an interface away, by number or address. @throws UserError */
export async function detachNic(machine: Machine, r: Resident & { domain: Domain }, which: string, isForced: boolean): Promise<void> {
  const nics = nicList(machine, r.domain), found = which.includes(":") ? nics.find((n) => n.mac.toLowerCase() === which.toLowerCase()) : nics.find((n) => String(n.devid) === which);
  if (!found) throw new UserError(`${r.name} has no network interface ${which}`);
  await r.domain.detachVif(found.devid, isForced);
  r.change((c) => ({ ...c, nics: (c.nics ?? []).filter((n) => n.devid !== found.devid) }));
}
