/** Finding a host's daemon, and starting one where none runs. */
import { setTimeout as sleep } from "node:timers/promises";
import { ApiClient } from "../../api/client.node.ts";
import { ApiFault } from "../../api/fault.ts";
import type { HostPaths } from "../paths.ts";
import { startProgram } from "./processes.ts";

/** How long another's daemon, which is being started now, is waited for. */
const WAIT_MS = 30_000;

/** The daemon that answers at the host's socket, or null. */
export async function findDaemon(paths: HostPaths): Promise<ApiClient | null> {
  const client = new ApiClient({ socketPath: paths.socket });
  try { await client.page("/"); return client; } catch (e) {
    if ((e as { cause?: NodeJS.ErrnoException }).cause?.code === "EACCES") throw new ApiFault("forbidden", `${paths.state} is another user's: whether a domusd runs there only that user is told; be that user, or choose a folder of your own with --state`);
    if (e instanceof ApiFault && e.code === "unreachable") return null;
    throw e;
  }
}
/** Start one in the background. @throws UserError with its reason */
export async function startDaemon(paths: HostPaths, options: readonly string[] = []): Promise<void> {
  await startProgram("domusd", ["run", `--state=${paths.state}`, ...options.filter((o) => !o.startsWith("--state"))], paths.log);
}
/** The host's daemon, started where none runs; two who start one at once get the same. @throws UserError */
export async function needDaemon(paths: HostPaths): Promise<ApiClient> {
  const found = await findDaemon(paths);
  if (found) return found;
  let failure: unknown = null;
  await startDaemon(paths, ["--idle-minutes=15"]).catch((e) => { failure = e; });
  for (const begun = performance.now(); performance.now() - begun < WAIT_MS; await sleep(100)) {
    const daemon = await findDaemon(paths);
    if (daemon) return daemon;
    if (failure && !/runs on .* already/.test((failure as Error).message)) break;
  }
  throw failure ?? new ApiFault("unreachable", `domusd was started and does not answer at ${paths.socket}; its words are in ${paths.log}`);
}
