/** Giving a domain a shared folder: libxl's nodes for it (libxl_9pfs.c) and the back end behind them. */
import { dom0Ends } from "../drivers/dom0.ts";
import { P9Back } from "../drivers/9p/back.ts";
import type { Dom0 } from "../hypervisor/dom0.ts";
import type { ShareConfig } from "./config.ts";
import { type Devices, sparingly } from "./devices.ts";

/** Open the folder and attach it. @throws UserError where it cannot be had, with nothing left open */
export async function attachShare(devices: Devices, dom0: Dom0, domid: number, devid: number, { tag, source, isReadonly = false }: ShareConfig, log: (sentence: string) => void): Promise<void> {
  const folder = await source.open();
  try {
    const driver = new P9Back({ name: `d${domid} share ${tag}`, folder, isReadonly, ...dom0Ends(dom0, domid), log: sparingly(log) });
    devices.add(devid, {
      driver, release: () => folder.close(),
      // what a client holds of the folder is in this process alone; and Linux's 9pnet_xen does not connect anew when it comes to after a suspend
      obstacle: (isAsItIs) => (driver.isMounted ? `the shared folder "${tag}" (${source.path}) is mounted in it; unmount that in the guest first`
        : driver.isConnected && !isAsItIs ? `its driver is connected to the shared folder "${tag}" (${source.path}) and would not be again after a suspend; have it let go in the guest first (echo 9pfs-${devid} > /sys/bus/xen/drivers/9pfs/unbind), until the guest is started again` : null),
    }, { tag }, { path: source.path, security_model: "none" });
  } catch (e) {
    await folder.close();
    throw e;
  }
}
