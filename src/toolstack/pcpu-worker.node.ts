/** Entry of a pCPU's thread under Node. */
import { parentPort } from "node:worker_threads";
import { servePcpu } from "./pcpu-worker.ts";

parentPort!.once("message", (message) => servePcpu(message, (answer) => parentPort!.postMessage(answer)));
