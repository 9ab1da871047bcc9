/** What the main thread and a pCPU's thread say to each other (R7); everything else goes through machine memory. */

import type { PcpuProfile } from "../hypervisor/profile.ts";

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
  /** arrivals at code until it is translated (EngineOptions) */
  translateAfter?: number;
  /** count where guests spend their time */
  profile: boolean;
};

export type FromPcpu =
  /** the engine is built and the loop begins */
  | { op: "ready"; index: number; buildMs: number }
  /** the loop has ended because the machine's stop word was set; profile: what was counted, where that was asked for */
  | { op: "stopped"; index: number; profile?: PcpuProfile }
  /** an error of ours ended the loop; the machine is lost */
  | { op: "failed"; index: number; message: string; stack: string };
