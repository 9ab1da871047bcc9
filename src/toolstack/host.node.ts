/** A host for machines under Node: pCPUs are worker_threads. */
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
