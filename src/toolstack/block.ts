/** Giving a domain a block device: libxl's nodes for it (libxl_disk.c device_disk_add) and the back end behind them. */
import { UserError } from "../base/errors.ts";
import { BlockBack } from "../drivers/block/back.ts";
import { dom0Ends } from "../drivers/dom0.ts";
import type { Dom0 } from "../hypervisor/dom0.ts";
import type { DiskConfig } from "./config.ts";
import { type Devices, sparingly } from "./devices.ts";
import { vdevNumber } from "./xldisk.ts";

/** Attach a disk; the domain may run already. @throws UserError for a name that is none or is taken */
export function attachDisk(devices: Devices, dom0: Dom0, domid: number, config: DiskConfig, log: (sentence: string) => void): void {
  const { disk, vdev } = config, devid = vdevNumber(vdev), type = config.isCdrom ? "cdrom" : "disk";
  if (devid === null) throw new UserError(`"${vdev}" is no name of a virtual disk; write one like "xvda"`);
  if (devices.list("vbd").some((d) => d.devid === devid)) throw new UserError(`Domain ${domid} has a disk ${vdev} already`);      // before the disk hears of a driver
  const driver = new BlockBack({
    name: `d${domid} ${vdev}`, disk, ...dom0Ends(dom0, domid), isReadonly: (config.isReadonly ?? false) || (config.isCdrom ?? false), isCdrom: config.isCdrom ?? false,
    ...(config.discards === undefined ? {} : { discards: config.discards }), ...(config.onFull === undefined ? {} : { onFull: config.onFull }), log: sparingly(log),
  });
  // Linux's front end leaves a "cdrom" of a guest that is not PV to an emulated drive, which PVH has not; that it is one stands in the back end's info.
  const back = devices.add(devid, { driver, settle: async () => { if (!driver.isReadonly) await disk.flush(); }, release: () => driver.release() }, { "virtual-device": devid, "device-type": "disk" }, {
    removable: config.isCdrom ? 1 : 0, bootable: 1, dev: vdev, type: "qdisk", mode: driver.isReadonly ? "r" : "w", "device-type": type, params: `${disk.format}:${disk.name}`,
    "discard-enable": driver.isReadonly || config.discards === false ? 0 : 1,
  });
  driver.onUpdate = (keys) => back.update(keys);
}
