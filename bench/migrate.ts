/** Live migration between two processes of one host, ours and QEMU's: a guest that sends a datagram, and a byte over TCP, a millisecond to the host, which looks for the longest silence. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { closeSync, existsSync, ftruncateSync, openSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Links, natUplinks, parseLink } from "../src/bin/uplink.ts";
import { Bridge } from "../src/network/bridge.ts";
import { connect as plug } from "../src/network/port.ts";
import { DEFAULT_BRIDGE } from "../src/toolstack/networks.ts";
import { Guest, type Images, QEMU, qemuArgs } from "../test/guest.ts";
import { BOOT_MS } from "./boot.ts";
import { type Bench, Collector, type Effort, type Table } from "./figures.ts";
import { folder, ratioRow } from "./ground.ts";
import { GUEST, HOST, ioCmdline, ioImage } from "./io-guest.ts";
import type { OurPlan } from "./migrate-ours.ts";
import { needQemu } from "./places.ts";

const MEMORY_MIB = 256, DATA_BYTES = 64 << 20, MOVE_MS = 120_000, SETTLE_MS = 1500, OURS = "Domus", FRESH = "Domus, new process", PEER = "TCG, virtio", RATIO = "Domus / TCG", FRESH_RATIO = "new process / TCG";
/** Perl is what Debian's least system has. */
const TICK = `#!/usr/bin/perl
use Socket; socket(S, PF_INET, SOCK_DGRAM, 0); my $to = sockaddr_in($ARGV[0], inet_aton("${HOST}")); my $n = 0;
while (1) { send(S, $n++, 0, $to); select(undef, undef, undef, 0.001); }
`;
/** As TICK, over TCP: a byte in a segment of its own. */
const STREAM = `#!/usr/bin/perl
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY); socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, IPPROTO_TCP, TCP_NODELAY, 1);
connect(S, sockaddr_in($ARGV[0], inet_aton("${HOST}"))) or die; while (1) { syswrite(S, "x") or die; select(undef, undef, undef, 0.001); }
`;
/** Writes a byte of each of 12288 pages, over and over. */
const DIRTY = `#!/usr/bin/perl
my $b = "x" x (48 << 20); while (1) { for (0 .. 12287) { substr($b, $_ * 4096, 1) = "y"; } select(undef, undef, undef, 0.01); }
`;
type Work = { readonly name: string; line(disk: string): string; /** by post-copy */ readonly isLate?: true };
const WORKS: readonly Work[] = [
  { name: "idle", line: () => "sleep 1000" }, { name: "busy", line: () => "sh -c 'while :; do :; done'" },
  { name: "writing 48 MiB of memory", line: () => "perl /bench/dirty" }, { name: "writing 48 MiB, by post-copy", line: () => "perl /bench/dirty", isLate: true }, { name: "writing to a disk", line: (disk) => `sh -c 'while :; do dd if=/dev/zero of=${disk} bs=64k count=256 oflag=direct 2>/dev/null; done'` },
];
/** What both tell of a move. */
type Told = { readonly totalMs: number; readonly downtimeMs: number; readonly bytes: number };
/** A guest in one process, and its way into another. */
type Place = { readonly name: string; readonly disk: string; guest: Guest; move(isLate: boolean): Promise<Told>; close(): Promise<void> };
type Files = Images & { readonly root: string; readonly data: string };

/** A network that stays where it is when a guest moves: a bridge with a router, which the guest's machines join by a cable. @returns its socket's path, and what ends it */
async function network(name: string, mode: "" | ",qemu", say: (line: string) => void): Promise<{ readonly path: string; close(): Promise<void> }> {
  const path = join(folder(), `${name}.sock`), bridge = new Bridge({ name: DEFAULT_BRIDGE }), uplink = natUplinks({ hostAccess: true, rules: [], log: say })(bridge)!, links = new Links([parseLink(`listen:unix:${path}${mode}`)], say);
  plug(bridge.attach({ name: uplink.port.name }), uplink.port);
  links.begin(bridge);
  await until("A network that can be joined", () => existsSync(path));
  return { path, close: async () => { await links.close(); bridge.close(); await uplink.close(); } };
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}
async function until<T>(what: string, look: () => T | null | undefined | false | Promise<T | null>): Promise<T> {
  for (const endMs = performance.now() + MOVE_MS; performance.now() < endMs;) {
    const found = await look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`${what} did not happen within ${MOVE_MS / 1000} s`);
}

/** @param stays whether two processes have the guest in turn, as two hosts would; else each move has a new one to go to */
function ours(files: Files, cable: string, stays: boolean): Place {
  const name = stays ? OURS : FRESH, next = join(folder(), `next-${stays}`), start = (boots = false): Guest => {
    const plan: OurPlan = { ...files, memoryMiB: MEMORY_MIB, cmdline: ioCmdline("ours"), next, cable, boots, stays };
    return new Guest(process.execPath, [...process.execArgv, fileURLToPath(new URL("migrate-ours.ts", import.meta.url)), JSON.stringify(plan)]);
  };
  let other = stays ? start() : null;
  const place: Place = {
    name, disk: "/dev/xvdb", guest: start(true),
    async move(isLate) {
      const from = place.guest, to = other ?? start(), said = from.err.length;
      const port = await until("A machine that waits", () => /@@listening (\d+)\n(?![^]*@@listening)/.exec(to.err)?.[1]);
      writeFileSync(next, `${port}${isLate ? " postcopy" : ""}`);
      from.child.kill("SIGUSR2");
      const [, report, failed] = await until("The move", () => /@@report (.*)\n|@@failed (.*)\n/.exec(from.err.slice(said)));
      if (report === undefined) throw new Error(failed);
      to.follows(from);
      place.guest = to;
      if (stays) {
        await until("The machine that it left waits", () => from.err.slice(said).includes("@@listening"));
        other = from;
      }
      return JSON.parse(report) as Told;
    },
    async close() { await place.guest[Symbol.asyncDispose](); await other?.[Symbol.asyncDispose](); },
  };
  return place;
}

/** One command of QMP and its answer. */
async function qmp(path: string, execute: string, args: object = {}): Promise<Record<string, unknown>> {
  const socket = connect(path), lines: string[] = [];
  let text = "";
  socket.on("data", (b) => { text += b; lines.push(...text.split("\n").slice(0, -1)); text = text.split("\n").at(-1)!; }).on("error", () => {});
  try {
    const answer = (): Record<string, unknown> | undefined => lines.splice(0).map((l) => JSON.parse(l) as Record<string, unknown>).find((m) => "return" in m || "error" in m);
    await once(socket, "connect");        // or its error
    await until("QMP's greeting", () => lines.splice(0).length > 0);
    for (const command of [{ execute: "qmp_capabilities" }, { execute, arguments: args }]) {
      socket.write(`${JSON.stringify(command)}\n`);
      const said = await until(`QMP's answer to ${execute}`, answer);
      if ("error" in said) throw new Error(`QEMU: ${JSON.stringify(said["error"])}`);
      if (command.execute === execute) return said["return"] as Record<string, unknown>;
    }
    throw new Error("unreachable");
  } finally { socket.destroy(); }
}
function peer(files: Files, cable: string): Place {
  let nr = 0;
  const control = (): string => join(folder(), `qmp-${nr}`), start = (waits = false): Guest => {
    nr++;
    rmSync(control(), { force: true });
    return new Guest(QEMU, [
      ...qemuArgs(files, MEMORY_MIB, ioCmdline("peer")).filter((arg, i, all) => arg !== "-nic" && all[i - 1] !== "-nic"), "-qmp", `unix:${control()},server=on,wait=off`,
      "-drive", `if=none,id=root,file=${files.root},format=raw,readonly=on`, "-device", "virtio-blk-pci,drive=root", "-drive", `if=none,id=data,file=${files.data},format=raw,cache=none,file.locking=off`,
      "-device", "virtio-blk-pci,drive=data", "-netdev", `stream,id=net,server=off,addr.type=unix,addr.path=${cable}`, "-device", "virtio-net-pci,netdev=net", ...(waits ? ["-incoming", "defer"] : []),
    ]);
  };
  const place: Place = {
    name: PEER, disk: "/dev/vdb", guest: start(),
    async move(isLate) {
      const from = place.guest, was = control(), uri = `tcp:127.0.0.1:${await freePort()}`, to = start(true), late = { capabilities: [{ capability: "postcopy-ram", state: isLate }] };
      await until("A QEMU that waits", () => qmp(control(), "query-status").then((s) => (s["status"] === "inmigrate" ? s : null), () => null));
      for (const end of [was, control()]) await qmp(end, "migrate-set-capabilities", late);
      await qmp(control(), "migrate-incoming", { uri });
      await qmp(was, "migrate-set-parameters", { "max-bandwidth": 2 ** 40, "max-postcopy-bandwidth": 0 });
      await qmp(was, "migrate", { uri });
      if (isLate) {
        await until("The first round", () => qmp(was, "query-migrate").then((m) => ((m["ram"] as { "dirty-sync-count": number } | undefined)?.["dirty-sync-count"] ?? 0) > 1 || m["status"] === "completed" || null));
        await qmp(was, "migrate-start-postcopy").catch(() => {});        // it may be over
      }
      const told = await until("The move", () => qmp(was, "query-migrate").then((m) => (m["status"] === "completed" || m["status"] === "failed" ? m : null)));
      if (told["status"] === "failed") throw new Error(`QEMU: ${JSON.stringify(told)}`);
      await from[Symbol.asyncDispose]();
      to.follows(from);
      place.guest = to;
      return { totalMs: told["total-time"] as number, downtimeMs: told["downtime"] as number, bytes: (told["ram"] as { transferred: number }).transferred };
    },
    close: () => place.guest[Symbol.asyncDispose](),
  };
  return place;
}

/** Arrivals at a port. */
type Heard = { readonly port: number; readonly arrivals: number[]; close(): void };
async function datagrams(): Promise<Heard> {
  const socket = createSocket("udp4"), arrivals: number[] = [];
  socket.on("message", () => { arrivals.push(performance.now()); });
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  return { port: socket.address().port, arrivals, close: () => { socket.close(); } };
}
/** Of one connection: a second one means that the first was lost. */
async function bytes(): Promise<Heard> {
  const server = createServer((socket) => { socket.on("data", () => { arrivals.push(performance.now()); }).on("error", () => {}); server.once("close", () => socket.destroy()); }), arrivals: number[] = [];
  server.maxConnections = 1;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, arrivals, close: () => { server.close(); server.emit("close"); } };
}
const longestGap = (times: readonly number[]): number => times.slice(1).reduce((longest, t, i) => Math.max(longest, t - times[i]!), 0);
const pause = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

async function run({ rounds, quick, say }: Effort): Promise<Table[]> {
  needQemu();
  const image = ioImage({ tick: TICK, stream: STREAM, dirty: DIRTY }, say), dataOf = (name: string): string => {
    const data = join(folder(), `moved-${name}.raw`), fd = openSync(data, "wx");
    ftruncateSync(fd, DATA_BYTES);
    closeSync(fd);
    return data;
  };
  const gap = new Collector(), stream = new Collector(), own = new Collector(), total = new Collector(), mib = new Collector(), works = quick ? WORKS.slice(0, 3) : WORKS;
  const places: Place[] = [], networks: Awaited<ReturnType<typeof network>>[] = [];
  try {
    for (const [make, mode] of [[peer, ",qemu"], [(f: Files, c: string) => ours(f, c, true), ""], [(f: Files, c: string) => ours(f, c, false), ""]] as const) {
      say("migrate: boot");
      const cable = await network(`cable-${places.length}`, mode, () => {});
      networks.push(cable);
      const place = make({ ...image, data: dataOf(String(places.length)) }, cable.path);
      places.push(place);
      await place.guest.takeShell(BOOT_MS);
      await place.guest.run(`mount -t tmpfs none /tmp; ip link set lo up; ip addr add ${GUEST}/24 dev eth0; ip link set eth0 up`, BOOT_MS);
      for (let i = 0; i < 2; i++) await place.move(false);        // hosts that have had guests
    }
    for (let round = 0; round < rounds; round++) {
      for (const work of works) {
        for (const place of places) {
          const udp = await datagrams(), tcp = await bytes(), both = [udp, tcp];
          try {
            await place.guest.run(`{ for t in "tick ${udp.port}" "stream ${tcp.port}"; do perl /bench/$t & echo $! >> /tmp/pids; done; ${work.line(place.disk)} & echo $! >> /tmp/pids; } 2>/dev/null`, BOOT_MS);
            for (const { arrivals } of both) await until("A sign of the guest", () => arrivals.length > 200);
            await pause(SETTLE_MS);
            const still = longestGap(udp.arrivals), before = both.map((h) => h.arrivals.length), told = await place.move(work.isLate ?? false), moved = both.map((h) => h.arrivals.length);
            for (const [i, { arrivals }] of both.entries()) await until("A sign of the guest from there", () => arrivals.length > moved[i]! + 200);
            const [silence, broken] = both.map((h, i) => longestGap(h.arrivals.slice(before[i]! - 1))) as [number, number];
            await place.guest.run("kill -9 $(cat /tmp/pids); rm /tmp/pids; wait; true", BOOT_MS);
            gap.add(work.name, place.name, silence);
            stream.add(work.name, place.name, broken);
            own.add(work.name, place.name, told.downtimeMs);
            total.add(work.name, place.name, told.totalMs);
            mib.add(work.name, place.name, told.bytes / 2 ** 20);
            say(`migrate: ${round + 1}/${rounds} ${work.name}: ${place.name} silent for ${silence.toFixed(0)} ms (${still.toFixed(0)} before), over TCP ${broken.toFixed(0)}, ${told.downtimeMs.toFixed(0)} by its own word, ${told.totalMs.toFixed(0)} ms in all, ${(told.bytes / 2 ** 20).toFixed(0)} MiB`);
          } finally { for (const h of both) h.close(); }
        }
        for (const found of [gap, stream]) { ratioRow(found, work.name, OURS, PEER, RATIO); ratioRow(found, work.name, FRESH, PEER, FRESH_RATIO); }
      }
    }
  } finally {
    for (const place of places) await place.close();
    for (const cable of networks) await cable.close();
  }
  const columns = [PEER, OURS, FRESH], guest = `Debian's cloud kernel, one CPU, ${MEMORY_MIB} MiB, from one process to another of this host over TCP on loopback, without a limit of bandwidth.`;
  return [
    {
      title: "Downtime", columns: [...columns, RATIO, FRESH_RATIO], rows: gap.rows(), digits: 1, unit: `ms: the longest silence of a guest that sends a datagram a millisecond to the host, by a bridge and router that stay where they are, from the move's beginning on. ${guest}`,
      notes: ["What is asked: a ratio of at most 1.", "Domus: two machines that live on, as hosts' do, have the guest in turn, and had it twice before anything counted. New process: each move goes to a machine that has just started. QEMU wants a new process for each.", "Both stop their guest from outside and have it go on as it was; QEMU for at most 300 ms as it expects (its default).", "By post-copy: after the first round at QEMU's, after one that does not help at ours."],
    },
    { title: "Downtime over TCP", columns: [...columns, RATIO, FRESH_RATIO], rows: stream.rows(), digits: 1, unit: "ms: the same of a byte a millisecond over one connection, in the same moves.", notes: [] },
    { title: "Downtime by their own word", columns, rows: own.rows(), digits: 1, unit: "ms: from the standstill until the other process runs it.", notes: [] },
    { title: "Time", columns, rows: total.rows(), digits: 0, unit: "ms from the beginning to the end.", notes: [] },
    { title: "Bytes", columns, rows: mib.rows(), digits: 0, unit: "MiB sent.", notes: [] },
  ];
}

export const migrate: Bench = { name: "migrate", help: "live migration against QEMU's TCG: downtime, time, bytes", run };
