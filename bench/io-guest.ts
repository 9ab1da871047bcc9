/** The guests of bench/io.ts: what they are started from, their shells, the works that they do and what these print. */
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../src/base/errors.ts";
import { domus, type Guest, type Images, root } from "../test/guest.ts";
import { BOOT_MS } from "./boot.ts";
import { folder } from "./ground.ts";
import { compile } from "./programs.ts";

/** Of guests that are measured alone, and of each of two that talk to each other. */
export const IO_MEMORY_MIB = 512, PAIR_MEMORY_MIB = 256;
/** The host, seen from a guest behind either router; and addresses of guests, which nobody asks DHCP for. */
export const HOST = "10.0.2.2", GUEST = "10.0.2.15", PAIR = { server: "10.0.2.20", client: "10.0.2.21" } as const;
const DATA_BYTES = 2 ** 30, PAIR_PORTS = { iperf: 5201, pingpong: 5202 } as const;
const SPARE_MS = 90_000;

/** What guests have: Debian's cloud kernel and its initrd, a root disk that nobody writes to, a disk of random bytes that everybody may. */
export type IoFiles = Images & { readonly root: string; readonly disk: string };

const CONSOLE = { ours: "hvc0", peer: "ttyS0" } as const;
/** Straight to a program: Debian's initrd finds the disks and mounts the root, systemd does not come into it. */
export const ioCmdline = (whose: keyof typeof CONSOLE, init = "/bin/sh"): string => `console=${CONSOLE[whose]} root=LABEL=domus ro fsck.mode=skip net.ifnames=0 quiet loglevel=3 init=${init}`;

const network = (address: string): string => `ip link set lo up; ip addr add ${address}/24 dev eth0; ip link set eth0 up`;
const SCRIPT = "#!/bin/sh\nexport PATH=/bench:/usr/sbin:/usr/bin:/sbin:/bin\nmount -t tmpfs none /tmp\n";
/** The inits of two guests that talk: consoles of several domains take no input. */
const scripts = (seconds: number): Record<string, string> => ({
  server: `${SCRIPT}pingpong listen 0.0.0.0 ${PAIR_PORTS.pingpong} &\niperf3 -s -p ${PAIR_PORTS.iperf} >/dev/null 2>&1 &\nsleep 1\n${network(PAIR.server)}\nwait\n`,
  client: `${SCRIPT}${network(PAIR.client)}\nuntil ping -c 1 -W 1 ${PAIR.server} >/dev/null 2>&1; do sleep 0.2; done\n${PAIR_WORKS.map((w) => `echo "@@"begin ${w.key}\n${w.line(PAIR_WHERE, 1)} >/dev/null 2>&1\n${w.line(PAIR_WHERE, seconds)} 2>&1\necho "@@"end ${w.key} $?\n`).join("")}echo "@@"over\nexec sleep infinity\n`,
});

/** bench/pingpong.c, static. */
export function buildPingpong(): string {
  const source = join(root, "bench/pingpong.c");
  return compile(join(root, "var/bench/pingpong"), ["-O2", "-Wall", "-Wextra", "-static", source], [source]);
}

/** Kernel, initrd and a root disk of the image that guests of several benchmarks boot; kept in var/bench/io, minutes the first time. @param more programs and scripts for /bench @throws UserError where a program is missing */
export function ioImage(more: Readonly<Record<string, string | Uint8Array>>, say: (text: string) => void): Images & { readonly root: string } {
  const place = join(root, "var/bench/io"), image = join(folder(), "root.img"), put = join(folder(), "put");
  say("io: the image (some minutes, the first time)");
  const report = JSON.parse(execFileSync(process.execPath, [domus, "image", "build", "debian", "--include", "fio,iperf3", "--name", "bench-io", "--output", place, "--size", "1G", "--json", "--quiet"],
    { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] })) as { disk: string; kernel: string; ramdisk: string };
  execFileSync("cp", ["--sparse=always", report.disk, image]);
  mkdirSync(put, { recursive: true });
  for (const [name, text] of Object.entries(more)) writeFileSync(join(put, name), text, { mode: 0o755 });
  execFileSync("/usr/sbin/debugfs", ["-w", "-f", "-", image], { input: ["mkdir /bench", ...Object.keys(more).map((n) => `write ${join(put, n)} /bench/${n}`)].join("\n"), stdio: ["pipe", "ignore", "ignore"] });
  return { kernel: report.kernel, ramdisk: report.ramdisk, root: image };
}
/** Make the files; ioImage, and a disk of random bytes. @param seconds that the talk of two guests takes a work @throws UserError where a program is missing */
export function ioFiles(seconds: number, say: (text: string) => void): IoFiles {
  const disk = join(folder(), "data.raw"), image = ioImage({ pingpong: readFileSync(buildPingpong()), ...scripts(seconds) }, say);
  const file = openSync(disk, "wx"), piece = new Uint8Array(1 << 20);
  for (let at = 0; at < DATA_BYTES; at += piece.length) {
    for (let from = 0; from < piece.length; from += 65536) crypto.getRandomValues(piece.subarray(from, from + 65536));
    writeSync(file, piece);
  }
  closeSync(file);
  return { ...image, disk };
}

/** Where a work finds its disk, and the programs that answer. */
export type Where = { readonly disk: string; readonly host: string; readonly iperfPort: number; readonly pingpongPort: number };
const PAIR_WHERE: Where = { disk: "", host: PAIR.server, iperfPort: PAIR_PORTS.iperf, pingpongPort: PAIR_PORTS.pingpong };
/** `amount`: GiB of a bulk work, requests of another. */
export type Measured = { readonly rate: number; readonly amount: number };
export type IoWork = { readonly key: string; readonly unit: "MiB/s" | "IOPS" | "Mbit/s" | "requests/s"; readonly isBulk: boolean; line(at: Where, seconds: number): string; read(out: string): Measured };
/** A row's name. */
export const label = ({ key, unit }: IoWork): string => `${key}, ${unit}`;

/** One direction of fio's terse line, version 3 (fio's HOWTO, "Terse output"). @throws when fio failed or did nothing */
export function readFio(out: string, direction: "read" | "write"): { kib: number; kibPerSec: number } {
  const fields = /^3;fio-.*$/m.exec(out)?.[0].split(";"), from = direction === "read" ? 5 : 46;
  if (!fields || fields[4] !== "0") throw new Error(`fio failed:\n${out}`);
  const kib = Number(fields[from]), kibPerSec = Number(fields[from + 1]);
  if (!(kib > 0 && kibPerSec > 0)) throw new Error(`fio has no ${direction}s to tell of:\n${out}`);
  return { kib, kibPerSec };
}
/** What came through, from iperf3's JSON. @throws with its reason when it failed */
export function readIperf(out: string): { bytes: number; bitsPerSec: number } {
  const text = /^\{[^]*^\}/m.exec(out)?.[0];
  if (text === undefined) throw new Error(`iperf3 failed:\n${out}`);
  const { error, end } = JSON.parse(text) as { error?: string; end?: { sum_received?: { bytes: number; bits_per_second: number } } }, sum = end?.sum_received;
  if (error !== undefined || !sum || !(sum.bytes > 0)) throw new Error(`iperf3 failed: ${error ?? "nothing came through"}`);
  return { bytes: sum.bytes, bitsPerSec: sum.bits_per_second };
}
/** pingpong's line. @throws when it failed */
export function readPingpong(out: string): { requests: number; seconds: number } {
  const [, requests, seconds] = /^PP END (\d+) (\d+\.\d+)\r?$/m.exec(out) ?? [];
  if (requests === undefined) throw new Error(`pingpong failed:\n${out}`);
  return { requests: Number(requests), seconds: Number(seconds) };
}

/** A stalled program ends by itself, so that the shell is there for the next. */
const within = (seconds: number): string => `timeout -k 5 ${seconds + 60}`;
function fio(direction: "read" | "write", isRandom: boolean, depth: number): IoWork {
  const block = isRandom ? "4k" : "1M", rw = `${isRandom ? "rand" : ""}${direction}`;
  return {
    key: `${rw}-${block}-d${depth}`, unit: isRandom ? "IOPS" : "MiB/s", isBulk: !isRandom,
    line: ({ disk }, seconds) => `${within(seconds)} fio --name=${rw} --filename=${disk} --size=${DATA_BYTES} --rw=${rw} --bs=${block} --iodepth=${depth} --direct=1 --ioengine=libaio --time_based --runtime=${seconds} --thread --gtod_reduce=1 --norandommap --output-format=terse --terse-version=3`,
    read(out) {
      const { kib, kibPerSec } = readFio(out, direction);
      return isRandom ? { rate: kibPerSec / 4, amount: kib / 4 } : { rate: kibPerSec / 1024, amount: kib / 2 ** 20 };
    },
  };
}
const iperf = (key: string, options: string): IoWork => ({
  key, unit: "Mbit/s", isBulk: true,
  line: ({ host, iperfPort }, seconds) => `${within(seconds)} iperf3 -c ${host} -p ${iperfPort} -t ${seconds} -J -i 0 --connect-timeout 10000${options}`,
  read(out) {
    const { bytes, bitsPerSec } = readIperf(out);
    return { rate: bitsPerSec / 1e6, amount: bytes / 2 ** 30 };
  },
});
const pingpong = (key: string): IoWork => ({
  key, unit: "requests/s", isBulk: false, line: ({ host, pingpongPort }, seconds) => `${within(seconds)} /bench/pingpong ${host} ${pingpongPort} ${seconds}`,
  read(out) {
    const { requests, seconds } = readPingpong(out);
    return { rate: requests / seconds, amount: requests };
  },
});

/** What one guest does, and what two do with each other. */
export const WORKS: readonly IoWork[] = [
  ...[false, true].flatMap((isRandom) => (["read", "write"] as const).flatMap((direction) => [1, 32].map((depth) => fio(direction, isRandom, depth)))),
  iperf("tcp-to-host", ""), iperf("tcp-from-host", " -R"), pingpong("tcp-ask-host"),
];
export const PAIR_WORKS: readonly IoWork[] = [iperf("tcp-to-guest", ""), pingpong("tcp-ask-guest")];

/** Read the client's console, its lines' prefix taken off. @throws when it is not over, or a work failed */
export function readPair(out: string, prefix: string): Map<string, Measured> {
  const text = out.replaceAll("\r", "").split("\n").filter((l) => l.startsWith(prefix)).map((l) => l.slice(prefix.length)).join("\n");
  return new Map(PAIR_WORKS.map((work) => {
    // a PC's firmware leaves its last escape sequences before the first word
    const said = new RegExp(`@@begin ${work.key}\\n([^]*?)^@@end ${work.key} (\\d+)$`, "m").exec(text);
    if (said?.[2] !== "0") throw new Error(`${work.key} ${said ? `ended with ${said[2]}` : "did not end"}:\n${text.slice(-2000)}`);
    return [work.key, work.read(said[1]!)];
  }));
}

/** A guest whose shell is ours, with network and disk at hand. */
export type IoPlace = { readonly name: string; readonly guest: Guest; /** Do a work. @throws when it fails */ take(work: IoWork, seconds: number): Promise<Measured> };

/** Take the shell of a guest that is being started. @param before a line of the shell to begin with, for drivers that the initrd has not */
export async function ioPlace(name: string, guest: Guest, where: Where, before = "true"): Promise<IoPlace> {
  await guest.takeShell(BOOT_MS);
  const must = async (line: string): Promise<string> => {
    const { out, code } = await guest.run(line, BOOT_MS);
    if (code !== 0) throw new UserError(`"${line}" ended with ${code} on ${name}:\n${out}`);
    return out;
  };
  await must("mount -t tmpfs none /tmp");
  await must(before);
  await must(`${network(GUEST)}; ip route add default via ${HOST}`);
  const bytes = Number(await must(`blockdev --getsize64 ${where.disk}`));
  if (bytes !== DATA_BYTES) throw new UserError(`${where.disk} has ${bytes} bytes on ${name}, not the ${DATA_BYTES} that are to be written to`);
  return {
    name, guest,
    async take(work, seconds) {
      const { out, code } = await guest.run(work.line(where, seconds), seconds * 1000 + SPARE_MS);
      if (code !== 0) throw new Error(`${work.key} ended with ${code} on ${name}:\n${out}`);
      return work.read(out);
    },
  };
}
