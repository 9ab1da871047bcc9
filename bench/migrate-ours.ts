/**
 * A machine of bench/migrate.ts: a program whose stdin and stdout are a guest's console. It boots the guest, or waits for it on a port that it tells on stderr; on SIGUSR2 it sends it to the port
 * named in the file `next`, with post-copy if that says so, and tells the report on stderr. Then it ends, or waits for the guest to come back.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { Links, parseLink } from "../src/bin/uplink.ts";
import { NodeStore } from "../src/storage/file.node.ts";
import { LiveDisk } from "../src/storage/online.ts";
import { openDisk } from "../src/storage/open.ts";
import type { DiskConfig } from "../src/toolstack/config.ts";
import type { Domain } from "../src/toolstack/domain.ts";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine } from "../src/toolstack/machine.ts";
import { linkOver } from "../src/toolstack/link.node.ts";
import { type Link, receiveDomain, sendDomain } from "../src/toolstack/migrate.ts";
import { DEFAULT_BRIDGE } from "../src/toolstack/networks.ts";

/** `boots`: else it waits for the guest first; `stays`: when the guest has gone. */
export type OurPlan = { readonly kernel: string; readonly ramdisk: string; readonly root: string; readonly data: string; readonly memoryMiB: number; readonly cmdline: string; readonly next: string; /** the socket of the network that it joins */ readonly cable: string; readonly boots: boolean; readonly stays: boolean };

const plan = JSON.parse(process.argv[2]!) as OurPlan, MAC = "00:16:3e:00:00:01", store = new NodeStore();
const say = (text: string): void => { process.stderr.write(`${text}\n`); };
const data = (): ReturnType<typeof openDisk> => openDisk({ path: plan.data, format: "raw", store });
const links = new Links([parseLink(`unix:${plan.cable}`)], say), machine = await createMachine({ host: nodeHost(), memoryMiB: plan.memoryMiB, nrDomains: 2, pcpus: 1, log: say, uplink: (bridge) => { links.begin(bridge); return null; } });
let live: LiveDisk;
const root = (): ReturnType<typeof openDisk> => openDisk({ path: plan.root, format: "raw", store, isReadonly: true });
async function disks(opened: ReturnType<typeof root> = root()): Promise<DiskConfig[]> {
  live = new LiveDisk(await data());
  return [{ vdev: "xvda", disk: await opened, isReadonly: true }, { vdev: "xvdb", disk: live }];
}
const linkOf = (socket: Socket): Link => {
  socket.setNoDelay(true);
  return linkOver(socket);
};
const shape = { name: "bench", memoryMiB: plan.memoryMiB, cmdline: plan.cmdline, vifs: [{ mac: MAC }] };

/** Wait for the guest on a port of the host's choice. */
async function arrive(): Promise<Domain> {
  const server = createServer().listen(0, "127.0.0.1", () => say(`@@listening ${(server.address() as AddressInfo).port}`)), [socket] = await once(server, "connection") as [Socket];
  server.close();
  let opened: ReturnType<typeof root>;
  return receiveDomain(machine, linkOf(socket), { prepare: async () => { machine.networks.bridge(DEFAULT_BRIDGE); await (opened = root()); }, open: async () => ({ ...shape, kernel: new Uint8Array(0), disks: await disks(opened) }) });
}
/** Send it where `next` says when it is asked for. @returns when it has gone */
async function depart(domain: Domain): Promise<void> {
  await once(process, "SIGUSR2");
  const [port, how] = readFileSync(plan.next, "utf8").split(" "), socket = connect(Number(port), "127.0.0.1");
  await once(socket, "connect");
  const report = await sendDomain(domain, linkOf(socket), {
    configJson: "{}", live: true, postcopy: how === "postcopy", handOver: { release: () => live.disk.close(), retake: () => live.exchange(data) },
  });
  say(`@@report ${JSON.stringify(report)}`);
}
let keyboard: WritableStreamDefaultWriter<Uint8Array> | null = null;
process.stdin.on("data", (bytes: Uint8Array) => { void keyboard?.write(bytes).catch(() => {}); });
process.on("SIGTERM", () => process.exit(0));
try {
  for (let isFirst = plan.boots; ; isFirst = false) {
    const domain = isFirst ? await machine.createDomain({ ...shape, kernel: readFileSync(plan.kernel), ramdisk: readFileSync(plan.ramdisk), disks: await disks() }) : await arrive();
    keyboard = domain.console.writable.getWriter();
    void domain.console.readable.pipeTo(new WritableStream({ write: (bytes) => { process.stdout.write(bytes); } })).catch(() => {});
    await depart(domain);
    keyboard = null;
    if (!plan.stays) process.exit(0);
  }
} catch (e) {
  say(`@@failed ${(e as Error).message}`);
  process.exit(1);
}
