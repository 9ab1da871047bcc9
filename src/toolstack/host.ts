/** What a machine asks of the place it runs in: threads. Everything else is a web standard. */
import type { FromPcpu, ToPcpu } from "./pcpu-messages.ts";

/** A running pCPU thread, as the main thread sees it. */
export interface HostWorker {
  post(message: ToPcpu): void;
  /** Called for every message, in order. */
  onMessage: (message: FromPcpu) => void;
  /** Called once when the thread dies of an error of ours. */
  onDeath: (cause: Error) => void;
  /** End the thread now, whatever it does. */
  terminate(): Promise<void>;
}

/** The place: Node (host.node.ts) or a browser (host.web.ts). */
export interface Host {
  readonly name: "node" | "web";
  /** processors that threads can run on at once */
  readonly nrCpus: number;
  spawnPcpu(index: number): HostWorker;
  /** Run a task in the next turn of this thread's loop, after what input and output has come. */
  soon(task: () => void): void;
  /** How long the computer's processors have had nothing to do since some time, all together, ms; null: not known. Absent where nobody can tell. */
  idleMs?(): number | null;
}
