/** Giving a domain a further console, as libxl gives it a channel: libxl_console.c libxl__device_channel_add. */
import { ConsoleDevice } from "../drivers/console/device.ts";
import { ConsoleViews } from "../drivers/console/views.ts";
import { dom0Ends } from "../drivers/dom0.ts";
import type { Dom0 } from "../hypervisor/dom0.ts";
import { type Devices, sparingly } from "./devices.ts";

/** @param devid the guest's hvcN; 0 is the primary console's @returns who sees and who types */
export function attachChannel(devices: Devices, dom0: Dom0, domid: number, devid: number, name: string, log: (sentence: string) => void): ConsoleViews {
  const views = new ConsoleViews(), driver = new ConsoleDevice({ name: `d${domid} console ${devid}`, ...dom0Ends(dom0, domid), views, log: sparingly(log) });
  const keys = { type: "xenconsoled", output: "pty", name };
  devices.add(devid, { driver, release: () => views.close() }, { ...keys, tty: "", limit: 1048576 }, keys);
  return views;
}
