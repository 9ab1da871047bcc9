/** Entry of a pCPU's thread in a browser. */
import { servePcpu } from "./pcpu-worker.ts";

globalThis.onmessage = (event: MessageEvent) => {
  globalThis.onmessage = null;
  servePcpu(event.data, (answer) => (globalThis as unknown as { postMessage(m: unknown): void }).postMessage(answer));
};
