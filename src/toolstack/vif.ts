/** Giving a domain a network interface: libxl's nodes for it (libxl_nic.c libxl__set_xenstore_nic), the back end behind them, a port on its bridge, host ports that lead to it. */
import { UserError } from "../base/errors.ts";
import { dom0Ends } from "../drivers/dom0.ts";
import { NetDriver } from "../drivers/net/driver.ts";
import type { Dom0 } from "../hypervisor/dom0.ts";
import { hostClock } from "../network/clock.ts";
import { TokenBucket } from "../network/rate.ts";
import type { VifConfig } from "./config.ts";
import { type Devices, sparingly } from "./devices.ts";
import { DEFAULT_BRIDGE, type Networks } from "./networks.ts";

/** Attach an interface; the domain may run already. @throws UserError for what cannot be had, with nothing left behind */
export async function attachVif(devices: Devices, networks: Networks, dom0: Dom0, domid: number, devid: number, config: VifConfig, log: (sentence: string) => void): Promise<void> {
  const { mac, mtu } = config, name = config.vifname ?? `vif${domid}.${devid}`, bridgeName = config.bridge ?? DEFAULT_BRIDGE, bridge = networks.bridge(bridgeName), uplink = networks.uplink(bridgeName);
  const isGuarded = config.ips !== undefined && config.ips.length > 0;
  const port = bridge.attach({
    name, ...(config.vlan === undefined ? {} : { vlan: config.vlan }), ...(isGuarded ? { macs: [mac], ips: config.ips! } : {}), ...(config.isIsolated ? { isolated: true } : {}),
  });
  const undo: (() => void)[] = [() => uplink?.left?.(mac), () => port.detach()], release = (): void => { for (let step = undo.pop(); step; step = undo.pop()) step(); };
  try {
    for (const spec of config.forwards ?? []) {
      if (!uplink?.forward) throw new UserError(`${name}: "${spec}" cannot be forwarded: ${bridgeName} has no router`);
      undo.push(await uplink.forward(spec, mac));
    }
    const driver = new NetDriver({
      name, domid, devid, mac, port, ...dom0Ends(dom0, domid), rate: config.rate ? new TokenBucket(config.rate, hostClock) : null, log: sparingly(log),
      ...(mtu === undefined ? {} : { mtu }),
    });
    devices.add(devid, { driver, release, announce: () => driver.announce() }, { handle: devid, mac, ...(mtu === undefined ? {} : { mtu }) }, {
      handle: devid, mac, bridge: bridgeName, type: "vif", script: "", ...(isGuarded ? { ip: config.ips!.join(" ") } : {}), ...(mtu === undefined ? {} : { mtu }),
      ...(config.rate ? { rate: `${config.rate.bytesPerInterval},${config.rate.intervalUs}` } : {}),
    });
  } catch (e) {
    release();
    throw e;
  }
}
