/** Actions that take time: they go on whoever watches, tell how far they are, and can be cancelled. */
import { ApiFault, type FaultJson, faultJson, faultOf } from "./fault.ts";

/** How far a task is. */
export type Progress = { readonly text: string; readonly done?: number; readonly total?: number };
/** What a task's body is given. */
export type TaskContext = { readonly signal: AbortSignal; progress(p: Progress): void };
/** A task as a listing shows it. */
export type TaskInfo = {
  readonly id: string; readonly action: string; readonly state: "running" | "done" | "failed" | "cancelled"; readonly startedMs: number; readonly endedMs: number | null;
  readonly progress: Progress | null; readonly result: unknown; readonly error: FaultJson | null;
};
const KEPT = 100;
/** Tasks at once; a client cannot fill the memory with them. */
const MAX_RUNNING = 256;

class Task {
  readonly id: string;
  readonly action: string;
  readonly startedMs = Date.now();
  readonly controller = new AbortController();
  readonly watchers = new Set<(t: TaskInfo) => void>();
  endedMs: number | null = null;
  state: TaskInfo["state"] = "running";
  progress: Progress | null = null;
  result: unknown = null;
  error: FaultJson | null = null;
  constructor(id: string, action: string) {
    this.id = id;
    this.action = action;
  }
  info(): TaskInfo {
    const { id, action, state, startedMs, endedMs, progress, result, error } = this;
    return { id, action, state, startedMs, endedMs, progress, result, error };
  }
  tell(): void { for (const told of [...this.watchers]) told(this.info()); }
}

/** The tasks of a process: those under way, and the last hundred that ended. */
export class Tasks {
  readonly #all = new Map<string, Task>();

  /** Begin; nobody need watch. @throws ApiFault where too many run */
  start(action: string, run: (c: TaskContext) => Promise<unknown>): TaskInfo {
    if (this.nrRunning >= MAX_RUNNING) throw new ApiFault("busy", `${MAX_RUNNING} tasks are under way; wait for one of them`);
    const task = new Task(crypto.randomUUID(), action);
    this.#all.set(task.id, task);
    this.#forget();
    void (async () => {
      try {
        task.result = await run({ signal: task.controller.signal, progress: (p) => { task.progress = p; task.tell(); } });
        task.state = "done";
      } catch (e) {
        const fault = faultOf(e);
        task.error = faultJson(fault);
        task.state = fault.code === "cancelled" ? "cancelled" : "failed";
      }
      task.endedMs = Date.now();
      task.tell();
      task.watchers.clear();
    })();
    return task.info();
  }
  /** The oldest that have ended make room. */
  #forget(): void {
    for (const [id, t] of this.#all) {
      if (this.#all.size <= KEPT) return;
      if (t.state !== "running") this.#all.delete(id);
    }
  }
  get nrRunning(): number { return [...this.#all.values()].filter((t) => t.state === "running").length; }
  list(): TaskInfo[] { return [...this.#all.values()].map((t) => t.info()); }
  #get(id: string): Task {
    const task = this.#all.get(id);
    if (!task) throw new ApiFault("notfound", `There is no task ${id}`);
    return task;
  }
  /** @throws ApiFault where there is none of that number */
  mustHave(id: string): void { this.#get(id); }
  /** Ask it to stop; it stops where it can do so cleanly. @throws ApiFault */
  cancel(id: string): TaskInfo {
    const task = this.#get(id);
    task.controller.abort();
    return task.info();
  }
  /** Hear of it now, at each step and at its end. @returns ends the watch @throws ApiFault */
  watch(id: string, told: (t: TaskInfo) => void): () => void {
    const task = this.#get(id);
    told(task.info());
    if (task.state === "running") task.watchers.add(told);
    return () => { task.watchers.delete(told); };
  }
}
