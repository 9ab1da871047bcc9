/** A host for machines under Node: pCPUs are worker_threads. */
import { openSync, readSync } from "node:fs";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Host, HostWorker } from "./host.ts";
import type { FromPcpu } from "./pcpu-messages.ts";

/** Make a host of this Node process. */
export function nodeHost(): Host {
  return {
    name: "node",
    nrCpus: availableParallelism(),
    soon: (task) => { setImmediate(task); },
    idleMs,
    spawnPcpu(index) {
      const worker = new Worker(new URL("./pcpu-worker.node.ts", import.meta.url), { name: `pcpu${index}` });
      const handle: HostWorker = {
        post: (message) => worker.postMessage(message),
        onMessage: () => {},
        onDeath: () => {},
        terminate: async () => { await worker.terminate(); },
      };
      worker.on("message", (message: FromPcpu) => handle.onMessage(message));
      worker.on("error", (cause) => handle.onDeath(cause instanceof Error ? cause : new Error(String(cause))));
      return handle;
    },
  };
}

/** /proc/stat, open for all machines of the process; -1: there is none. */
let statFd: number | undefined;
const statLine = Buffer.alloc(128);
/** Host.idleMs by Linux's first line of /proc/stat: user, nice, system, idle, iowait in hundredths of a second (proc_stat(5)), of all processors. */
function idleMs(): number | null {
  if (statFd === undefined) try { statFd = openSync("/proc/stat", "r"); } catch { statFd = -1; }
  if (statFd < 0) return null;
  const found = /^cpu +\d+ +\d+ +\d+ +(\d+) /.exec(statLine.toString("latin1", 0, readSync(statFd, statLine, 0, statLine.length, 0)));
  return found ? Number(found[1]) * 10 : null;
}
