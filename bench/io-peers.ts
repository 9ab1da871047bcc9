/** How the guests of bench/io.ts are started, ours and QEMU's, what answers them on the host, and what their processes have used. */
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { domus, Guest, QEMU, qemuArgs, xlCfg } from "../test/guest.ts";
import { BOOT_MS } from "./boot.ts";
import { folder, ourOptions } from "./ground.ts";
import { buildPingpong, HOST, IO_MEMORY_MIB, ioCmdline, type IoFiles, type IoPlace, ioPlace, type Measured, PAIR_MEMORY_MIB, readPair, type Where } from "./io-guest.ts";

/** Columns. Emulated: registers of chips that were once made, as far as Debian's cloud kernel has drivers for them. */
export const IO_PLACE = { emulated: "TCG, IDE and vmxnet3", virtio: "TCG, virtio", domus: "Domus" } as const;

type Servers = AsyncDisposable & { readonly iperfPort: number; readonly pingpongPort: number };
/** iperf3 and pingpong on the host's loopback, which guests reach as HOST. */
export async function hostServers(): Promise<Servers> {
  const probe = createServer(), iperfPort = await new Promise<number>((done, fail) => { probe.on("error", fail).listen(0, "127.0.0.1", () => done((probe.address() as AddressInfo).port)); });
  await new Promise((done) => { probe.close(done); });
  const iperf = new Guest("iperf3", ["-s", "-p", String(iperfPort), "-B", "127.0.0.1", "--forceflush"]), pingpong = new Guest(buildPingpong(), ["listen", "127.0.0.1", "0"]);
  const end = async (): Promise<void> => { for (const server of [iperf, pingpong]) await server[Symbol.asyncDispose](); };
  try {
    await iperf.expect(/Server listening/, 10_000);
    const { match } = await pingpong.expect(/PP LISTEN (\d+)\n/, 10_000);
    return { iperfPort, pingpongPort: Number(match[1]), [Symbol.asyncDispose]: end };
  } catch (e) {
    await end();
    throw e;
  }
}

/** QEMU's options for a raw file as a disk. The data's page cache and its lock are shared with the other guests: only one works at a time. */
const drive = (id: string, file: string, device: string, more: string): string[] => ["-drive", `if=none,id=${id},file=${file},format=raw${more}`, "-device", `${device},drive=${id}`];
const rootDrive = (files: IoFiles): string[] => drive("root", files.root, "virtio-blk-pci", ",readonly=on");
const peerArgs = (files: IoFiles, disk: string, card: string): string[] => [...qemuArgs(files, IO_MEMORY_MIB, ioCmdline("peer")), ...rootDrive(files),
  ...drive("data", files.disk, disk, ",cache=writeback,file.locking=off"), "-netdev", "user,id=net", "-device", `${card},netdev=net`];
const vdev = (target: string, name: string, access: "r" | "w"): string => `"format=raw, vdev=${name}, access=${access}, target=${target}"`;
/** Write an xl.cfg. @returns its path */
function cfg(name: string, files: IoFiles, memoryMiB: number, init: string, disks: readonly string[]): string {
  const path = join(folder(), `${name}.cfg`);
  writeFileSync(path, `${xlCfg(name, files, memoryMiB, ioCmdline("ours", init))}disk = [ ${disks.join(", ")} ]\nvif = [ "" ]\n`);
  return path;
}
const startOurs = (files: IoFiles, options: readonly string[]): Guest =>
  new Guest(process.execPath, [domus, "run", cfg("io", files, IO_MEMORY_MIB, "/bin/sh", [vdev(files.root, "xvda", "r"), vdev(files.disk, "xvdb", "w")]), "--host-access", ...ourOptions, ...options]);

/** Start one, up to its shell. */
export async function startPlace(name: string, files: IoFiles, servers: Servers, options: readonly string[] = []): Promise<IoPlace & AsyncDisposable> {
  const guest = name === IO_PLACE.domus ? startOurs(files, options)
    : new Guest(QEMU, name === IO_PLACE.virtio ? peerArgs(files, "virtio-blk-pci", "virtio-net-pci") : peerArgs(files, "ide-hd", "vmxnet3"));
  const disk = name === IO_PLACE.domus ? "/dev/xvdb" : name === IO_PLACE.virtio ? "/dev/vdb" : "/dev/sda", where: Where = { disk, host: HOST, ...servers };
  try {
    return { ...(await ioPlace(name, guest, where, name === IO_PLACE.emulated ? "modprobe -a ata_piix sd_mod vmxnet3; until test -b /dev/sda; do sleep 0.1; done" : "true")), [Symbol.asyncDispose]: () => guest[Symbol.asyncDispose]() };
  } catch (e) {
    await guest[Symbol.asyncDispose]();
    throw e;
  }
}

/** Two guests that talk to each other: of ours on a bridge of one machine, QEMU's by a socket between their processes. @returns what the one that asks measured */
export async function pair(name: string, files: IoFiles): Promise<Map<string, Measured>> {
  await using stack = new AsyncDisposableStack();
  let client: Guest;
  if (name === IO_PLACE.domus) {
    const cfgs = ["server", "client"].map((role) => cfg(role, files, PAIR_MEMORY_MIB, `/bench/${role}`, [vdev(files.root, "xvda", "r")]));
    client = stack.use(new Guest(process.execPath, [domus, "run", ...cfgs, ...ourOptions]));
  } else {
    const path = join(folder(), "pair.sock"), start = (role: string, nr: number, netdev: string): Guest => stack.use(new Guest(QEMU, [...qemuArgs(files, PAIR_MEMORY_MIB, ioCmdline("peer", `/bench/${role}`)), ...rootDrive(files),
      "-netdev", `stream,id=net,addr.type=unix,addr.path=${path},${netdev}`, "-device", `virtio-net-pci,netdev=net,mac=52:54:00:00:00:0${nr}`]));
    start("server", 1, "server=on");
    await new Promise((done) => setTimeout(done, 1000));
    client = start("client", 2, "server=off");
  }
  await client.expect(/@@over/, BOOT_MS);
  return readPair(client.out, name === IO_PLACE.domus ? "client| " : "");
}

/** proc(5), for all architectures that Linux shows to programs. */
const TICKS_PER_SECOND = 100;
/** CPU time of a process and its descendants so far. */
export function cpuSeconds(pid: number): number {
  const ticks = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ").slice(11, 13).reduce((sum, n) => sum + Number(n), 0);
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean);
  return children.reduce((sum, child) => sum + cpuSeconds(Number(child)), ticks / TICKS_PER_SECOND);
}

/** The counts of a report of `domus run --json`, of its only domain. */
export type Counts = { readonly instructions: number; readonly exits: number; readonly hypercalls: number };
export function readCounts(json: string): Counts {
  const { domains } = JSON.parse(json) as { domains: { instructions: number; hypercalls: number; exits: Record<string, number> }[] }, [domain] = domains;
  if (domains.length !== 1 || !domain) throw new Error(`A report of one domain is wanted, this has ${domains.length}`);
  return { instructions: domain.instructions, hypercalls: domain.hypercalls, exits: Object.values(domain.exits).reduce((sum, n) => sum + n, 0) };
}
