/** A host for machines under Node: pCPUs are worker_threads. */
import { openSync, readSync } from "node:fs";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Host, HostWorker } from "./host.ts";
import type { FromPcpu } from "./pcpu-messages.ts";

/** One for all machines of the process: it keeps a file open. */
let idle: Pick<Host, "idleMs"> | undefined;

/** Make a host of this Node process. */
export function nodeHost(): Host {
  return {
    name: "node",
    nrCpus: availableParallelism(),
    soon: (task) => { setImmediate(task); },
    ...(idle ??= idleTime()),
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

/** Linux's first line of /proc/stat: user, nice, system, idle, iowait in hundredths of a second (proc_stat(5)), of all processors. */
function idleTime(): Pick<Host, "idleMs"> {
  let fd = -1;
  try { fd = openSync("/proc/stat", "r"); } catch { return {}; }
  const line = Buffer.alloc(128);
  return {
    idleMs() {
      const found = /^cpu +\d+ +\d+ +\d+ +(\d+) /.exec(line.toString("latin1", 0, readSync(fd, line, 0, line.length, 0)));
      return found ? Number(found[1]) * 10 : null;
    },
  };
}
