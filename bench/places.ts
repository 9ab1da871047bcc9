/** Where works run: on the bare processor, and in guests that were booted once. A shell line means the same in all of them. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { UserError } from "../src/base/errors.ts";
import { Guest, peakMemoryMiB, QEMU } from "../test/guest.ts";
import { BOOT_MS } from "./boot.ts";
import { type Bits, benchFolder } from "./gbench.ts";
import { folder } from "./ground.ts";

/** $BENCH names the folder with the programs, which is in $PATH; the current folder may be written to. */
export interface Place extends AsyncDisposable {
  /** its column's name */
  readonly name: string;
  readonly bits: Bits;
  /** of a guest, what it and its machine have held at most */
  readonly peakMiB?: () => number;
  /** Run a line of the shell. @throws when it fails @returns its output, and milliseconds by this computer's clock */
  run(line: string, timeoutMs?: number): Promise<{ out: string; ms: number }>;
}

const failed = (line: string, place: string, code: number | string | null, out: string): Error => new Error(`"${line}" ended with ${code} on ${place}:\n${out}`);

/** Take the shell of a guest that is being started. `pauses`: stopped while others work, because it does not idle quietly. */
export async function guestPlace(name: string, bits: Bits, guest: Guest, pauses = false): Promise<Place> {
  const place: Place = {
    name, bits, peakMiB: () => peakMemoryMiB(guest.child.pid!),
    async run(line, timeoutMs = BOOT_MS) {
      if (pauses) guest.child.kill("SIGCONT");
      const { out, code, ms } = await guest.run(line, timeoutMs);
      if (pauses) guest.child.kill("SIGSTOP");
      if (code !== 0) throw failed(line, name, code, out);
      return { out, ms };
    },
    [Symbol.asyncDispose]: () => guest[Symbol.asyncDispose](),
  };
  try {
    await guest.takeShell(BOOT_MS);
    await place.run("export BENCH=/bench PATH=/bench:$PATH; mkdir -p /tmp/work; cd /tmp/work");
    return place;
  } catch (e) {
    await place[Symbol.asyncDispose]();
    throw e;
  }
}

/** The first CPU that we may run on, for taskset. */
const firstCpu = (): string => /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";

/** The bare processor. One CPU of it, as guests have: two processes that wait for each other are several times slower across two. */
export function nativePlace(name: string, bits: Bits): Place {
  const cwd = join(folder(), `native-${bits}`), env = { ...process.env, BENCH: benchFolder(bits), PATH: [benchFolder(bits), process.env["PATH"]].join(delimiter) };
  mkdirSync(cwd, { recursive: true });
  return {
    name, bits,
    async run(line, timeoutMs = BOOT_MS) {
      await using shell = new Guest("taskset", ["-c", firstCpu(), "/bin/sh", "-c", line], { cwd, env });
      const { code, signal } = await shell.ended(timeoutMs), ms = performance.now() - shell.startedMs;
      if (code !== 0) throw failed(line, name, code ?? signal, shell.out + shell.err);
      return { out: shell.out, ms };
    },
    async [Symbol.asyncDispose]() {},
  };
}

/** @throws UserError where the peer is not installed */
export function needQemu(): void {
  try { execFileSync(QEMU, ["--version"], { stdio: "ignore" }); } catch { throw new UserError(`${QEMU} does not run here; install Debian's package qemu-system-x86`); }
}
