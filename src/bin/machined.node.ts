/**
 * A machine in a process of its own: its memory, its pCPUs, its domains. domusd starts it and it outlives domusd; it serves the API's machine part and xenstore at Unix sockets.
 * What it tells who starts it is "ready", or why it cannot be.
 */
import { totalmem } from "node:os";
import { join } from "node:path";
import { EventLog } from "../api/events.ts";
import { Tasks } from "../api/tasks.ts";
import { DOMID_POLICIES } from "../toolstack/domids.ts";
import { nodeHost } from "../toolstack/host.node.ts";
import { createMachine } from "../toolstack/machine.ts";
import { ENGINES } from "../toolstack/pcpu-messages.ts";
import { SocketServer } from "../xenstore/socket.node.ts";
import { numberOption, type Option, parseArgs, wordOption } from "./args.ts";
import { reportReady } from "./daemon/processes.ts";
import { openCodeCache } from "./code-cache.ts";
import { jsonLog } from "./log.ts";
import { captureStream } from "./machine/capture.ts";
import { consoleStream, machineHandlers } from "./machine/handlers.ts";
import { MigrationJournal } from "./machine/journal.ts";
import { receiveStream, restStream, sendStream } from "./machine/moves.ts";
import { MACHINE_OPTIONS } from "./machine/options.ts";
import { Messages } from "./machine/messages.ts";
import { Residents } from "./machine/residents.ts";
import { serveUnix } from "./unix-server.ts";
import { IPV6_CHOICES } from "../network/nat/ipv6-choice.ts";
import { Links, natUplinks, parseLink, parseNet, tapUplinks } from "./uplink.ts";
import { makeFolders } from "./paths.ts";

const OWN: Readonly<Record<string, Option>> = { state: { value: "DIR", help: "" }, socket: { value: "PATH", help: "" }, xenstore: { value: "PATH", help: "" }, ...MACHINE_OPTIONS };

const log = jsonLog("machine");
async function main(args: string[]): Promise<void> {
  const parsed = parseArgs(args, OWN, "machined"), option = (name: string): string => parsed.options.get(name)!;
  const folder = option("state"), events = new EventLog(), tasks = new Tasks(), messages = new Messages((line) => log("info", line));
  makeFolders(join(folder, "console"), 0o700);
  const say = (sentence: string): void => messages.say(sentence), routers = natUplinks({ hostAccess: parsed.options.has("host-access"), ipv6: wordOption(parsed, "ipv6", IPV6_CHOICES) ?? "auto", rules: parsed.options.get("net-rules")?.split(",") ?? [], log: say });
  const net = parseNet(parsed.options.get("net") ?? "nat"), uplink = net === "none" ? undefined : net === "nat" ? routers : tapUplinks(net, routers, say);
  const link = parsed.options.has("link") ? parseLink(option("link")) : null, links = link && new Links([link], say);
  const pcpus = numberOption(parsed, "pcpus", 1, 32), memoryMiB = numberOption(parsed, "memory", 16, 4000) ?? Math.max(64, Math.min(3072, Math.floor(totalmem() / 2 ** 20 * 0.75)));
  const domidPolicy = wordOption(parsed, "domid-policy", DOMID_POLICIES);
  const machine = await createMachine({
    host: nodeHost(), memoryMiB, nrDomains: Math.min(64, 4 + Math.floor(memoryMiB / 64)), engine: wordOption(parsed, "engine", ENGINES) ?? "auto", codeCache: openCodeCache(join(folder, "code-cache")), log: say,
    ...(pcpus === undefined ? {} : { pcpus }), ...(domidPolicy === undefined ? {} : { domidPolicy }), ...(uplink || links ? { uplink: (bridge) => { links?.begin(bridge); return uplink?.(bridge) ?? null; } } : {}),
    failed: (cause) => {
      log("error", `The machine failed: ${cause.message}`, { stack: cause.stack });
      setTimeout(() => process.exit(70), 100);        // whoever waits for its domains hears of it first
    },
  });
  if (link) machine.networks.bridge(link.bridge);
  messages.say(`Domus machine of ${memoryMiB} MiB, ${machine.hv.mm.nrPcpus} pCPUs, pid ${process.pid}`);
  const residents = new Residents({ machine, events, messages, folder, journal: new MigrationJournal(join(folder, "migrations")) });
  const store = new SocketServer(machine.store, option("xenstore"), { log: say });
  await store.listen();
  const server = await serveUnix(option("socket"), { handlers: machineHandlers(residents, tasks), streams: { "net.capture": captureStream(machine), console: consoleStream(residents), "migrate.send": sendStream(residents, tasks), "migrate.receive": receiveStream(residents, tasks), "migrate.rest": restStream(residents, tasks) }, tasks, events });
  let isEnding = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => {
    if (isEnding) return;
    isEnding = true;
    log("info", `${signal}: the machine ends`);
    void (async () => {
      await residents.destroyAll();
      await links?.close();
      await machine.destroy();
      await store.close();
      server.close();
    })().catch((e: unknown) => log("error", `The machine does not end well: ${(e as Error).message}`)).finally(() => process.exit(0));
  });
  process.on("SIGHUP", () => {});
  reportReady("ready\n");
}
process.on("unhandledRejection", (e) => log("error", `A promise was left to itself: ${(e as Error)?.message ?? e}`, { stack: (e as Error)?.stack }));
void main(process.argv.slice(2)).catch((e) => {
  log("error", (e as Error).message, { stack: (e as Error).stack });
  reportReady(`failed: ${(e as Error).message}\n`);
  process.exit(70);
});
