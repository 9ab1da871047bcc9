/** A host for machines in a browser: pCPUs are module workers. The page must be cross-origin isolated, or there is no shared memory. */
import { UserError } from "../base/errors.ts";
import type { Host, HostWorker } from "./host.ts";
import type { FromPcpu } from "./pcpu-messages.ts";

/** Make a host of this page. A bundler finds the workers' entry by the form of the `new Worker` below. @throws UserError where there is no shared memory */
export function webHost(): Host {
  if (globalThis.crossOriginIsolated === false) {
    throw new UserError("This page has no shared memory: serve it with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp");
  }
  const { port1, port2 } = new MessageChannel(), tasks: (() => void)[] = [];
  port1.onmessage = () => tasks.shift()?.();
  return {
    name: "web",
    soon: (task) => {
      tasks.push(task);
      port2.postMessage(null);
    },
    nrCpus: navigator.hardwareConcurrency,
    spawnPcpu() {
      const worker = new Worker(new URL("./pcpu-worker.web.ts", import.meta.url), { type: "module", name: "pcpu" });
      const handle: HostWorker = {
        post: (message) => worker.postMessage(message),
        onMessage: () => {},
        onDeath: () => {},
        terminate: async () => worker.terminate(),
      };
      worker.onmessage = (event: MessageEvent<FromPcpu>) => handle.onMessage(event.data);
      worker.onerror = (event) => handle.onDeath(new Error(event.message || "a pCPU's thread could not be started"));
      return handle;
    },
  };
}
