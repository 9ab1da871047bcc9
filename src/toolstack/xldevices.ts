/** From xl's disk and vif specifications to what the library takes; what is understood but not built is refused at its place, or warned of where the guest does not feel it. */
import type { VlanOptions } from "../network/vlan.ts";
import type { VifConfig } from "./config.ts";
import { faultAt, placeText, type Setting } from "./xlcfg.ts";
import { type DiskSpec, parseDisks } from "./xldisk.ts";
import { parseVifs, type VifSpec } from "./xlvif.ts";

/** What the keys `disk` and `vif` describe. */
export type XlDevices = { readonly disks: readonly DiskSpec[]; readonly vifs: readonly VifConfig[]; readonly warnings: readonly string[] };

/** @throws UserError at the place of the fault */
export function xlDevices(settings: ReadonlyMap<string, Setting>): XlDevices {
  const disk = settings.get("disk"), vif = settings.get("vif"), warnings: string[] = [];
  const disks = disk ? parseDisks(disk.value) : [], vifs = vif ? parseVifs(vif.value) : [];
  for (const spec of [...disks, ...vifs]) warnings.push(...spec.warnings);
  for (const d of disks) warnings.push(...reviewDisk(d));
  return { disks: disks.filter((d) => d.format !== "empty"), vifs: vifs.map((v) => vifConfig(v, warnings)), warnings };
}

function reviewDisk(d: DiskSpec): string[] {
  const warn = (text: string): string => `${placeText(d.place)}: ${d.vdev}: ${text}`;
  if (d.specification === "virtio") throw faultAt(d.place, `${d.vdev}: specification=virtio is not built yet; leave it out for a Xen disk`);
  if (d.backend !== null) throw faultAt(d.place, `${d.vdev}: backend=${d.backend}: disks of driver domains are not built yet`);
  if (d.colo) throw faultAt(d.place, `${d.vdev}: COLO is not built`);
  return [
    ...(d.format === "empty" ? [warn("an empty drive is left out; media cannot be put in yet")] : []),
    ...(d.script !== null ? [warn(`script=${d.script} is not run; the target is opened as it stands`)] : []),
  ];
}

/** "10p/20-25/100+10x4" of Xen 4.19: numbers, ranges, steps; "p" marks the one that goes untagged. */
function vlanOf(v: VifSpec): VlanOptions | undefined {
  if (v.vlan === null) return undefined;
  const vids: number[] = [];
  let untagged: number | undefined;
  for (const term of v.vlan.split("/")) {
    const [, first, p, last, step, count] = /^(\d+)(p)?(?:-(\d+))?(?:\+(\d+)x(\d+))?$/.exec(term) ?? [];
    if (first === undefined) throw faultAt(v.place, `vlan: "${term}" is no VLAN, range or series`);
    const begin = Number(first), n = last !== undefined ? Number(last) - begin + 1 : count !== undefined ? Number(count) : 1;
    for (let i = 0; i < n; i++) vids.push(begin + i * Number(step ?? 1));
    if (p) untagged = begin;
  }
  if (untagged !== undefined && vids.length === 1) return { access: untagged };
  return { trunk: vids.filter((vid) => vid !== untagged), ...(untagged === undefined ? {} : { native: untagged }) };
}

function vifConfig(v: VifSpec, warnings: string[]): VifConfig {
  const warn = (text: string): void => { warnings.push(`${placeText(v.place)}: vif: ${text}`); };
  if (v.backend !== null) throw faultAt(v.place, `vif: backend=${v.backend}: networks of driver domains are not built yet`);
  if (v.gatewaydev !== null) warn(`gatewaydev=${v.gatewaydev} is ignored; the bridge's router is the gateway`);
  if (v.script !== null) warn(`script=${v.script} is not run`);
  if (v.rate?.bytesPerInterval === 0) throw faultAt(v.place, "vif: rate: Less than a byte an interval; the guest could never send");
  const vlan = vlanOf(v);
  return {
    devid: v.devid, mac: v.mac, forwards: v.forwards, ips: v.ip.map((ip) => ip.split("/")[0]!),
    ...(v.bridge === null ? {} : { bridge: v.bridge }), ...(v.vifname === null ? {} : { vifname: v.vifname }), ...(v.mtu === null ? {} : { mtu: v.mtu }),
    ...(v.rate === null ? {} : { rate: v.rate }), ...(vlan === undefined ? {} : { vlan }),
  };
}
