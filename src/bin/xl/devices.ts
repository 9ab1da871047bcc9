/** Verbs for memory and devices of domains that run. */
import { resolve } from "node:path";
import { ApiFault } from "../../api/fault.ts";
import { UserError } from "../../base/errors.ts";
import { libxlDisk, libxlNic } from "../../toolstack/libxl-json.ts";
import { parseDiskSpec } from "../../toolstack/xldisk.ts";
import { parseVifSpec } from "../../toolstack/xlvif.ts";
import { findDomain, findGuest, Leave, left, type Line, orLeave, parseMemKib, RC, right, type Verb, wordsOf, type Xl } from "./verb.ts";

const help = { short: "h", long: "help", help: "show this" } as const;
const place = { file: "command line", line: 0, column: 0 };

/** mem-set and mem-max. */
const memory = (action: "domain.memSet" | "domain.memMax", what: string) => async (xl: Xl, { words }: Line): Promise<number> => {
  const { domid } = await findGuest(xl, words[0]!), kib = parseMemKib(words[1]!);
  if (kib === null) throw new Leave(1, `invalid memory size: ${words[1]}`);
  await orLeave(1, (await xl.daemon()).call(action, { domain: domid, kib }), `cannot set domid ${domid} ${what} memory to : ${words[1]}`);
  return 0;
};
/** A listing of each domain that is named; one that is not there does not keep the others. */
const listing = (head: string, rows: (xl: Xl, domid: number) => Promise<string[]>) => async (xl: Xl, { words }: Line): Promise<number> => {
  xl.out(`${head}\n`);
  let code = 0;
  for (const word of words) {
    try {
      for (const row of await rows(xl, (await findDomain(xl, word)).domid)) xl.out(`${row}\n`);
    } catch (e) {
      if (!(e instanceof Leave || (e instanceof ApiFault && e.code !== "unreachable"))) throw e;
      xl.say(e instanceof Leave ? `${word} is an invalid domain identifier` : `xl: ${wordsOf(e)}`);
      code = 1;
    }
  }
  return code;
};
const blockRows = async (xl: Xl, domain: number): Promise<string[]> => (domain === 0 ? [] : await (await xl.daemon()).call("block.list", { domain }))
  .map((d) => `${left(d.devid, 5)} ${left(d.backendId, 3)} ${left(d.handle, 6)} ${left(d.state, 5)} ${left(d.evtchn, 6)} ${left(d.ringRef, 8)} ${left(d.backendPath, 30)}`);
const nicRows = async (xl: Xl, domain: number): Promise<string[]> => (domain === 0 ? [] : await (await xl.daemon()).call("nic.list", { domain }))
  .map((n) => `${left(n.devid, 3)} ${left(n.backendId, 2)} ${n.mac} ${right(n.handle, 6)} ${right(n.state, 5)} ${right(n.evtchn, 6)} ${right(n.txRef, 5)}/${left(n.rxRef, 11)} ${left(n.backendPath, 30)}`);
const channelRows = async (xl: Xl, domain: number): Promise<string[]> => (domain === 0 ? [] : await (await xl.daemon()).call("channel.list", { domain }))
  .map((c) => `${left(c.devid, 3)} ${left(c.backendId, 2)} ${left(c.state, 5)} ${left(c.evtchn, 6)} ${left(c.ringRef, 8)} ${left(c.connection, 10)} ${left(c.path, 30)}`);

async function blockAttach(xl: Xl, { words }: Line): Promise<number> {
  const { domid } = await findGuest(xl, words[0]!), spec = words.slice(1);
  if (xl.isDryRun) { xl.out(`disk: ${JSON.stringify(parsed(() => libxlDisk(parseDiskSpec(spec, place))), null, 4)}\n`); return 0; }
  await orLeave(1, (await xl.daemon()).call("block.attach", { domain: domid, spec, folder: process.cwd() }), "libxl_device_disk_add failed.");
  return 0;
}
/** What the command line specifies. @throws Leave */
function parsed<T>(parse: () => T): T {
  try { return parse(); } catch (e) { throw e instanceof UserError ? new Leave(1, e.message) : e; }
}
async function blockDetach(xl: Xl, { words, options }: Line): Promise<number> {
  const { domid } = await findGuest(xl, words[0]!);
  try {
    await (await xl.daemon()).call("block.detach", { domain: domid, vdev: words[1]!, ...(options.has("f") ? { isForced: true } : {}) }, { signal: xl.signal });
    return 0;
  } catch (e) {
    throw new Leave(1, /has no disk/.test(wordsOf(e)) ? `Error: Device ${words[1]} not connected.` : `xl: ${wordsOf(e)}\nlibxl_device_disk_${options.has("f") ? "destroy" : "remove"} failed.`);
  }
}
async function nicAttach(xl: Xl, { words }: Line): Promise<number> {
  const { domid } = await findGuest(xl, words[0]!), spec = words.slice(1);
  if (xl.isDryRun) { xl.out(`vif: ${JSON.stringify(parsed(() => libxlNic(parseVifSpec(spec.join(","), place), false)), null, 4)}\n`); return 0; }
  parsed(() => parseVifSpec(spec.join(","), place));
  await orLeave(1, (await xl.daemon()).call("nic.attach", { domain: domid, spec }), "libxl_device_nic_add failed.");
  return 0;
}
async function nicDetach(xl: Xl, { words }: Line): Promise<number> {
  const { domid } = await findGuest(xl, words[0]!);
  try {
    await (await xl.daemon()).call("nic.detach", { domain: domid, nic: words[1]! });
    return 0;
  } catch (e) {
    throw new Leave(1, /has no network interface/.test(wordsOf(e)) ? `Unknown device ${words[1]}.` : `xl: ${wordsOf(e)}\nlibxl_device_nic_del failed.`);
  }
}
const disc = (hasPath: boolean) => async (xl: Xl, { words }: Line): Promise<number> => {
  const { domid } = await findGuest(xl, words[0]!), vdev = words[1]!.replace(/:cdrom$/, "");
  if (xl.isDryRun) { xl.out(`cdrom: ${JSON.stringify({ pdev_path: hasPath ? words[2] : "", vdev, format: hasPath ? "raw" : "empty", removable: 1, is_cdrom: 1 }, null, 4)}\n`); return 0; }
  await orLeave(1, (await xl.daemon()).call("cdrom.change", { domain: domid, vdev, ...(hasPath ? { path: resolve(words[2]!) } : {}) }));
  return 0;
};
async function dumpCore(xl: Xl, { words }: Line): Promise<number> {
  const { domid } = await findGuest(xl, words[0]!);
  await orLeave(1, (await xl.daemon()).call("domain.dumpCore", { domain: domid, path: resolve(words[1]!) }, { signal: xl.signal, progress: xl.progress }), `core dump failed (rc=${RC.fail})`);
  return 0;
}

const BLOCK_HEAD = `${left("Vdev", 5)} ${left("BE", 3)} ${left("handle", 6)} ${left("state", 5)} ${left("evt-ch", 6)} ${left("ring-ref", 8)} ${left("BE-path", 30)}`;
const NIC_HEAD = `${left("Idx", 3)} ${left("BE", 2)} ${left("Mac Addr.", 17)} ${left("handle", 6)} ${left("state", 5)} ${left("evt-ch", 6)} ${right("tx-", 5)}/${left("rx-ring-ref", 5)} ${left("BE-path", 30)}`;
const CHANNEL_HEAD = `${left("Idx", 3)} ${left("BE", 2)} ${left("state", 5)} ${left("evt-ch", 6)} ${right("ring-ref", 8)} ${left("connection", 10)} ${left("", 30)}`;
const MEM_ARGS = "<Domain> <MemMB['b'[bytes]|'k'[KB]|'m'[MB]|'g'[GB]|'t'[TB]]>";

/** The verbs. */
export const DEVICE_VERBS: readonly Verb[] = [
  { name: "mem-set", help: "What the guest's balloon shall aim at", args: MEM_ARGS, minWords: 2, modifies: true, options: [help], run: memory("domain.memSet", "dynamic max") },
  { name: "mem-max", help: "The most that mem-set may ask for", args: MEM_ARGS, minWords: 2, modifies: true, options: [help], run: memory("domain.memMax", "static max"), note: "above what the domain began with the guest needs memory hot plug" },
  { name: "block-list", help: "List block devices", args: "<Domain(s)>", minWords: 1, options: [help], run: listing(BLOCK_HEAD, blockRows) },
  { name: "block-attach", help: "Give a domain a block device", args: "<Domain> <disk-spec-component(s)>...", minWords: 2, modifies: true, dryRun: true, options: [help], run: blockAttach },
  { name: "block-detach", help: "Take a block device away", args: "[option] <Domain> <DevId>", minWords: 2, modifies: true, options: [help, { short: "f", long: "force", help: "do not wait for the guest" }], run: blockDetach, note: "a guest that uses it keeps it: 10 s are waited" },
  { name: "cd-insert", help: "Put a disc into a guest's drive", args: "<Domain> <VirtualDevice> <path>", minWords: 3, modifies: true, dryRun: true, options: [help], run: disc(true), note: "for PVH guests, which xl refuses; the guest sees a change of size, and forgets cached blocks by blockdev --flushbufs" },
  { name: "cd-eject", help: "Take the disc out of a guest's drive", args: "<Domain> <VirtualDevice>", minWords: 2, modifies: true, dryRun: true, options: [help], run: disc(false) },
  { name: "network-list", help: "List network interfaces", args: "<Domain(s)>", minWords: 1, options: [help], run: listing(NIC_HEAD, nicRows) },
  { name: "network-attach", help: "Give a domain a network interface", args: "<Domain> [type=<type>] [mac=<mac>] [bridge=<bridge>] [ip=<ip>] [script=<script>] [backend=<BackDomain>] [vifname=<name>] [rate=<rate>] [model=<model>] [accel=<accel>] [mtu=<mtu>]", minWords: 1, modifies: true, dryRun: true, options: [help], run: nicAttach, note: "and forward=, vlan= of docs/xl-devices.md" },
  { name: "network-detach", help: "Take a network interface away", args: "<Domain> <DevId|mac>", minWords: 2, modifies: true, options: [help], run: nicDetach },
  { name: "channel-list", help: "List channels", args: "<Domain(s)>", minWords: 1, options: [help], run: listing(CHANNEL_HEAD, channelRows) },
  { name: "dump-core", help: "Write a domain's memory and registers to a file", args: "<Domain> <filename>", minWords: 2, modifies: true, options: [help], run: dumpCore, note: "Xen's ELF format; the domain is paused meanwhile" },
];
