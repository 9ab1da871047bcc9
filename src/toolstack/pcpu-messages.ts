/** What the main thread and a pCPU's thread say to each other (R7); everything else goes through machine memory. */

/** Which engine executes guest code; auto: the best there is. */
export const ENGINES = ["auto", "interpreter", "translator"] as const;
export type EngineName = (typeof ENGINES)[number];

export type ToPcpu = {
  op: "start";
  /** the machine's memory */
  memory: WebAssembly.Memory;
  /** which pCPU this thread is */
  index: number;
  engine: EngineName;
};

export type FromPcpu =
  /** the engine is built and the loop begins */
  | { op: "ready"; index: number; buildMs: number }
  /** the loop has ended because the machine's stop word was set */
  | { op: "stopped"; index: number }
  /** an error of ours ended the loop; the machine is lost */
  | { op: "failed"; index: number; message: string; stack: string };
