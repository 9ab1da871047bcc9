/** For tests of this room: programs that judge us, in the foreground, ended with the test. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Run to the end. @throws with what it said when it fails */
export const run = (program: string, ...args: string[]): Promise<string> => new Promise((resolve, reject) => {
  execFile(program, args, { maxBuffer: 16 << 20 }, (e, out, said) => (e ? reject(new Error(`${program} ${args.join(" ")}: ${said || out || e.message}`)) : resolve(out)));
});
/** A port that was free a moment ago. */
export const freePort = (): Promise<number> => new Promise((resolve) => {
  const s = createServer().listen(0, "127.0.0.1", () => {
    const a = s.address();
    s.close(() => resolve(typeof a === "object" && a ? a.port : 0));
  });
});
/** A folder that `cleanup` removes. */
export function folder(): { path: (name: string) => string; cleanup: () => void } {
  const at = mkdtempSync(join(tmpdir(), "domus-storage-"));
  return { path: (name) => join(at, name), cleanup: () => rmSync(at, { recursive: true, force: true }) };
}
/** A server in the foreground. `stop` kills it and waits. */
export class Daemon {
  readonly child: ChildProcess;
  said = "";
  constructor(program: string, ...args: string[]) {
    this.child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.child.stdout!.on("data", (b) => { this.said += b; });
    this.child.stderr!.on("data", (b) => { this.said += b; });
    this.child.on("error", (e) => { this.said += e.message; });
  }
  async stop(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null || this.child.pid === undefined) return;
    const ended = new Promise((resolve) => { this.child.once("exit", resolve); });
    this.child.kill(signal);
    await ended;
  }
}
/** Call until it succeeds, for a server that is starting. */
export async function eventually<T>(attempt: () => Promise<T>, daemon?: Daemon): Promise<T> {
  for (let n = 0; ; n++) {
    try { return await attempt(); } catch (e) {
      if (n > 200 || (daemon && daemon.child.exitCode !== null)) throw new Error(`${e instanceof Error ? e.message : e} ${daemon?.said ?? ""}`, { cause: e });
      await new Promise((resolve) => { setTimeout(resolve, 25); });
    }
  }
}
