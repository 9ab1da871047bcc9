/** Entry of a pCPU's thread under Node. */
import { parentPort } from "node:worker_threads";
import { servePcpu } from "./pcpu-worker.ts";

parentPort!.once("message", (message) => servePcpu(message, (answer) => {
  // who loaded this program may want to keep what V8 made of it (bin/load.cjs); it ends when the answer is there
  if (answer.op === "stopped") (process as NodeJS.EventEmitter).emit("domus:done");
  parentPort!.postMessage(answer);
}));
