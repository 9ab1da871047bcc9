/** Processes that outlive who started them. */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../../base/errors.ts";
import { whyOf } from "../../storage/file.node.ts";
import { LOG_FILE } from "../log.ts";
import { makeOwnFolder } from "../paths.ts";

/** Set for a program that is started by `startProgram`: it says on that descriptor that it is ready, or why it cannot be. Others have descriptors of that number for other things. */
const READY_FD = "DOMUS_READY_FD";
/** Tell who started us, once. */
export function reportReady(text: string): void {
  const fd = Number(process.env[READY_FD]);
  delete process.env[READY_FD];
  if (!(fd > 2)) return;
  try { writeSync(fd, text); closeSync(fd); } catch { /* nobody waits */ }
}

/** When a process began, in the kernel's ticks; null when there is none of that number, or it has ended and is only not collected. */
export function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1"), fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? null : fields[19] ?? null;
  } catch {
    try { process.kill(pid, 0); return "unknown"; } catch { return null; }       // where there is no /proc
  }
}

function openLog(path: string): number {
  try { return openSync(path, "a", 0o600); } catch (e) { throw new UserError(`${path} cannot be written: ${whyOf(e)}`, { cause: e }); }
}
/** A process that was started: it goes on when we do not. */
export type Started = { readonly pid: number; readonly pidStart: string; /** resolves when it has ended, in words */ readonly ended: Promise<string> };

/** What bin/build.mjs made of a program, where that is what is there now (launch.sh says); else the source. */
function pathOf(program: string): string {
  const launcher = fileURLToPath(new URL("../../../bin/launch.sh", import.meta.url)), folder = spawnSync("sh", [launcher, "--built"], { encoding: "utf8" }).stdout?.trim(), built = folder && join(folder, `${program}.node.js`);
  return built && existsSync(built) ? built : fileURLToPath(new URL(`../${program}.node.ts`, import.meta.url));
}
/**
 * Start one of our programs in a session of its own, its words going to a log, and wait until it says that it is ready.
 * @param program like "machined" @param spawned told at once, before anything else can happen to us @throws UserError with its reason, or the log's name
 */
export async function startProgram(program: string, args: readonly string[], log: string, spawned: (pid: number, pidStart: string) => void = () => {}): Promise<Started> {
  makeOwnFolder(dirname(log));
  const out = openLog(log);
  const child = spawn(process.execPath, [...process.execArgv, pathOf(program), ...args], { detached: true, stdio: ["ignore", out, out, "pipe"], cwd: "/", env: { ...process.env, [READY_FD]: "3", [LOG_FILE]: log } });
  closeSync(out);
  const pidStart = child.pid === undefined ? "" : startOf(child.pid) ?? "";
  if (child.pid !== undefined) spawned(child.pid, pidStart);
  const ended = new Promise<string>((done) => {
    child.on("error", (e) => done(e.message));
    child.on("exit", (code, signal) => done(signal ? `it was ended by ${signal}` : `it ended with code ${code}`));
  });
  const said = child.stdio[3] as import("node:net").Socket;
  let text = "";
  const ready = new Promise<string>((done) => {
    said.setEncoding("utf8");
    said.on("data", (piece: string) => { if ((text += piece).includes("\n")) done(text.split("\n")[0]!); });
    said.on("close", () => done(text.trim()));
    said.on("error", () => done(text.trim()));
  });
  const word = await ready;
  said.destroy();
  if (word !== "ready") throw new UserError(/^failed: (.*)/.exec(word)?.[1] ?? `${program} did not start: ${await ended}; its words are in ${log}`);
  child.unref();
  return { pid: child.pid!, pidStart, ended };
}
