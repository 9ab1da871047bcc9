/** The CPU engine's door: run a vCPU until it exits, and say why. The portable engine is ours; a KVM engine would fit here too. */
import type { Cpu } from "./cpu.ts";
import type { CodeStore } from "./code-store.ts";
import type { Shape } from "./image.ts";
import { Interpreter } from "./interpreter.ts";
import type { Platform } from "./platform.ts";
import type { TlbTurn } from "./tlb.ts";
import { TRANSLATE_AFTER } from "./translate-after.ts";

export interface Engine {
  readonly cpu: Cpu;
  /** Run the vCPU whose state is in the register file until CPU.exit is non-zero or the budget of jumps is spent. @returns EXIT.* */
  run(budgetJumps: number): number;
  /** Another vCPU's context was copied in: its TLBs are what `turn` says, empty without one, and what is derived is computed again. */
  contextChanged(turn?: TlbTurn): void;
  /** Frames have become code elsewhere: stores to them must be told of from now on. @returns those that this pCPU may have written to unseen */
  forbidWrites(isForbidden: (frame: number) => boolean): number[];
  /** Take in a piece of what others have found out before this engine was made, while there is nothing to run. @returns false: there is no more */
  warmUp(): boolean;
  /** Decode what begins at these machine addresses for these modes (MODE bits but user), ahead of time; where there is no room, not all of it. */
  prepare(places: readonly (readonly [machine: number, mode: number])[]): void;
  /** The p2m changed, or a remote asked: also for vCPUs that ran here and may come back. */
  flushTlb(): void;
  /** Copy from and to guest memory at supervisor rights; false: some page is not there (nothing is raised, nothing written). `isHint`: one that is on its way is not there either; else it is waited for. */
  readLinear(linear: bigint, bytes: Uint8Array): boolean;
  writeLinear(linear: bigint, bytes: Uint8Array, isHint?: boolean): boolean;
  /** For reports and tracing. */
  readonly counters: Readonly<Record<string, number>>;
  onDeliver: ((vector: number, errorCode: number, external: boolean) => void) | null;
  onStep: ((rip: bigint) => void) | null;
}
/** Which frames hold decoded code, as all pCPUs see it. */
export interface CodeFrames {
  /** This pCPU has decoded code from the frame: writers elsewhere must say so. */
  mark(frame: number): void;
  unmark(frame: number): void;
  /** This pCPU is about to write to a frame with code: the others must look again. */
  wrote(frame: number): void;
  /** Whatever `wrote` was called for has been written: pCPUs that decoded meanwhile must look again. Called after every helper that stores. */
  settle?(): void;
  /**
   * Before an entry of the TLB goes that let stores to a frame through: those made through it since the frame became code elsewhere are told of now, as nobody could later.
   * Calls Engine.forbidWrites when frames have become code since the last time.
   */
  lookBack?(): void;
  /** Changes with every write by someone else; compared before decoded code is used again. */
  generation(frame: number): number;
}
export type EngineOptions = {
  code?: CodeFrames;
  /** Arrivals at a block before it is translated; 0: at once (for tests); left out: never. */
  translateAfter?: number;
  /** Regions are made in this shape only (for tests); left out: as it pays. */
  shape?: Shape;
  /** What other pCPUs have made, and a place for what this one makes. */
  store?: CodeStore;
};
type MakeEngine = (memory: WebAssembly.Memory, at: number, platform: Platform, options?: EngineOptions) => Engine;
export const makeInterpreter: MakeEngine = (memory, at, platform, options = {}) => new Interpreter(memory, at, platform, options);
/** The interpreter, with hot code translated. */
export const makeTranslator: MakeEngine = (memory, at, platform, options = {}) => new Interpreter(memory, at, platform, { translateAfter: TRANSLATE_AFTER, ...options });
