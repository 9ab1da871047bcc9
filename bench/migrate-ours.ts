/**
 * A machine of bench/migrate.ts: a program whose stdin and stdout are a guest's console. It boots the guest, or waits for it on a port; on SIGUSR2 it sends it to the port named in the file
 * `next`, with post-copy if that says so, tells the report on stderr, and ends.
 */
import { readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
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

/** `port`: to wait on; absent: boot. */
export type OurPlan = { readonly kernel: string; readonly ramdisk: string; readonly root: string; readonly data: string; readonly memoryMiB: number; readonly cmdline: string; readonly next: string; /** the socket of the network that it joins */ readonly cable: string; readonly port?: number };

const plan = JSON.parse(process.argv[2]!) as OurPlan, MAC = "00:16:3e:00:00:01", store = new NodeStore();
const say = (text: string): void => { process.stderr.write(`${text}\n`); };
const data = (): ReturnType<typeof openDisk> => openDisk({ path: plan.data, format: "raw", store });
const links = new Links([parseLink(`unix:${plan.cable}`)], say), machine = await createMachine({ host: nodeHost(), memoryMiB: plan.memoryMiB, nrDomains: 1, pcpus: 1, log: say, uplink: (bridge) => { links.begin(bridge); return null; } });
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

async function arrive(): Promise<Domain> {
  if (plan.port === undefined) return machine.createDomain({ ...shape, kernel: readFileSync(plan.kernel), ramdisk: readFileSync(plan.ramdisk), disks: await disks() });
  const server = createServer(), socket = await new Promise<Socket>((come) => { server.once("connection", come).listen(plan.port, "127.0.0.1", () => say("@@listening")); });
  server.close();
  let opened: ReturnType<typeof root>;
  return receiveDomain(machine, linkOf(socket), { prepare: async () => { machine.networks.bridge(DEFAULT_BRIDGE); await (opened = root()); }, open: async () => ({ ...shape, kernel: new Uint8Array(0), disks: await disks(opened) }) });
}
const domain = await arrive(), keyboard = domain.console.writable.getWriter();
process.stdin.on("data", (bytes: Uint8Array) => { void keyboard.write(bytes).catch(() => {}); });
void domain.console.readable.pipeTo(new WritableStream({ write: (bytes) => { process.stdout.write(bytes); } })).catch(() => {});
process.on("SIGTERM", () => process.exit(0));
process.once("SIGUSR2", () => {
  const [port, how] = readFileSync(plan.next, "utf8").split(" "), socket = connect(Number(port), "127.0.0.1", () => {
    void sendDomain(domain, linkOf(socket), {
      configJson: "{}", live: true, postcopy: how === "postcopy", handOver: { release: () => live.disk.close(), retake: () => live.exchange(data) },
    }).then((report) => { say(`@@report ${JSON.stringify(report)}`); process.exit(0); }, (e: Error) => { say(`@@failed ${e.message}`); });
  });
});
