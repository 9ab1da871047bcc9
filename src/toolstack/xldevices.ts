/** From xl's disk and vif specifications to what the library takes; what is understood but not built is refused at its place, or warned of where the guest does not feel it. */
import type { VifConfig } from "./config.ts";
import { faultAt, type Place, placeText, type Setting } from "./xlcfg.ts";
import { type DiskSpec, parseDisks } from "./xldisk.ts";
import { type P9Spec, parseP9s } from "./xlp9.ts";
import { parseVifs, type VifSpec } from "./xlvif.ts";

/** sockaddr_un's, and the consoles that hvc_xen has beside hvc0 */
const SOCKET_PATH_BYTES = 107, MAX_CHANNELS = 7;
/** A console beside the primary one, at a Unix socket; xl.cfg(5) "channel". */
export type ChannelSpec = { readonly name: string; readonly path: string; readonly place: Place };
/** What the keys `channel`, `disk`, `p9` and `vif` describe. */
export type XlDevices = { readonly disks: readonly DiskSpec[]; readonly shares: readonly P9Spec[]; readonly channels: readonly ChannelSpec[]; readonly vifs: readonly VifConfig[]; readonly warnings: readonly string[] };

/** @throws UserError at the place of the fault */
export function xlDevices(settings: ReadonlyMap<string, Setting>): XlDevices {
  const disk = settings.get("disk"), vif = settings.get("vif"), p9 = settings.get("p9"), warnings: string[] = [];
  const disks = disk ? parseDisks(disk.value) : [], vifs = vif ? parseVifs(vif.value) : [];
  for (const spec of [...disks, ...vifs]) warnings.push(...spec.warnings);
  for (const d of disks) warnings.push(...reviewDisk(d));
  return { channels: channelsOf(settings.get("channel")), shares: p9 ? parseP9s(p9.value, warnings) : [], disks: disks.filter((d) => d.format !== "empty"), vifs: vifs.map((v) => vifConfig(v, warnings)), warnings };
}

function channelsOf(setting: Setting | undefined): ChannelSpec[] {
  if (!setting) return [];
  const items = setting.value.kind === "list" ? setting.value.items : [setting.value], channels: ChannelSpec[] = [];
  for (const [i, item] of items.entries()) {
    if (item.kind === "list") throw faultAt(item.place, "channel: Expected a string, found a list");
    const keys = new Map(item.text.split(",").filter((part) => part.trim() !== "").map((part) => {
      const [, key, value] = /^\s*([^=]*?)\s*=\s*(.*?)\s*$/.exec(part) ?? [];
      if (key === undefined) throw faultAt(item.place, `channel: "${part.trim()}" is not KEY=VALUE`);
      return [key, value!] as const;
    }));
    for (const key of keys.keys()) if (!["name", "connection", "path", "backend"].includes(key)) throw faultAt(item.place, `channel: "${key}" is none of name, connection, path`);
    const name = keys.get("name") ?? `channel${i}`, connection = keys.get("connection"), path = keys.get("path");
    const backend = keys.get("backend") ?? "0";
    if (backend !== "0" && backend !== "Domain-0") throw faultAt(item.place, `channel: backend=${backend}: channels of driver domains are not built yet`);
    if (connection === "pty") throw faultAt(item.place, `channel: connection=pty is not built; write connection=socket, path=...`);
    if (connection !== "socket") throw faultAt(item.place, `channel: connection is ${connection === undefined ? "missing" : `"${connection}"`}; write connection=socket, path=...`);
    if (!path || path.includes("\0") || new TextEncoder().encode(path).length > SOCKET_PATH_BYTES) throw faultAt(item.place, `channel: path is the way to a Unix socket of at most ${SOCKET_PATH_BYTES} bytes`);
    if (channels.some((c) => c.name === name || c.path === path)) throw faultAt(item.place, `channel: name "${name}" or its path is taken already`);
    channels.push({ name, path, place: item.place });
  }
  if (channels.length > MAX_CHANNELS) throw faultAt(setting.value.place, `channel: ${channels.length} channels; Linux has hvc1 to hvc${MAX_CHANNELS}`);
  return channels;
}

/** What is not built of a disk. @returns warnings @throws UserError where the guest would feel it */
export function reviewDisk(d: DiskSpec): string[] {
  const warn = (text: string): string => `${placeText(d.place)}: ${d.vdev}: ${text}`;
  if (d.specification === "virtio") throw faultAt(d.place, `${d.vdev}: specification=virtio is not built yet; leave it out for a Xen disk`);
  if (d.backend !== null) throw faultAt(d.place, `${d.vdev}: backend=${d.backend}: disks of driver domains are not built yet`);
  if (d.colo) throw faultAt(d.place, `${d.vdev}: COLO is not built`);
  return [
    ...(d.format === "empty" ? [warn("an empty drive is left out; media cannot be put in yet")] : []),
    ...(d.script !== null ? [warn(`script=${d.script} is not run; the target is opened as it stands`)] : []),
  ];
}

/** What the library takes for an interface. @throws UserError for what is not built */
export function vifConfig(v: VifSpec, warnings: string[]): VifConfig {
  const warn = (text: string): void => { warnings.push(`${placeText(v.place)}: vif: ${text}`); };
  if (v.backend !== null) throw faultAt(v.place, `vif: backend=${v.backend}: networks of driver domains are not built yet`);
  if (v.gatewaydev !== null) warn(`gatewaydev=${v.gatewaydev} is ignored; the bridge's router is the gateway`);
  if (v.script !== null) warn(`script=${v.script} is not run`);
  if (v.rate?.bytesPerInterval === 0) throw faultAt(v.place, "vif: rate: Less than a byte an interval; the guest could never send");
  return {
    devid: v.devid, mac: v.mac, forwards: v.forwards, ips: v.ip.map((ip) => ip.split("/")[0]!),
    ...(v.bridge === null ? {} : { bridge: v.bridge }), ...(v.vifname === null ? {} : { vifname: v.vifname }), ...(v.mtu === null ? {} : { mtu: v.mtu }),
    ...(v.rate === null ? {} : { rate: v.rate }), ...(v.vlans === null ? {} : { vlan: v.vlans }),
  };
}
