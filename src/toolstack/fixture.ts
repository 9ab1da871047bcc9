/** For tests: a machine whose pCPUs run nothing, and guests that the test's hand leads. */
import { SHUTDOWN } from "../abi/sched.ts";
import type { Domain } from "./domain.ts";
import type { Host, HostWorker } from "./host.ts";
import type { Machine } from "./machine.ts";

/** A thread that never runs anything, and ends when its machine listens for its end: the control domain's half alone is under test. */
class IdleWorker implements HostWorker {
  #onMessage: HostWorker["onMessage"] = () => {};
  #nrListeners = 0;
  onDeath: HostWorker["onDeath"] = () => {};
  readonly #index: number;
  constructor(index: number) { this.#index = index; }
  get onMessage(): HostWorker["onMessage"] { return this.#onMessage; }
  set onMessage(told) {
    this.#onMessage = told;
    if (++this.#nrListeners === 2) queueMicrotask(() => told({ op: "stopped", index: this.#index }));
  }
  post(): void { queueMicrotask(() => this.#onMessage({ op: "ready", index: this.#index, buildMs: 1 })); }
  async terminate(): Promise<void> {}
}
/** Where it can be made. */
export const idleHost: Host = { name: "node", nrCpus: 2, soon: (task) => { setTimeout(task, 0); }, spawnPcpu: (index) => new IdleWorker(index) };
/** Suspend a domain when it is asked to. @param path of control/shutdown */
export function obey(machine: Machine, domain: Domain, path: string): Disposable {
  machine.xs.write(path.replace(/shutdown$/, "feature-suspend"), "1");
  return machine.xs.watch(path, () => {
    if (machine.xs.read(path) !== "suspend") return;
    machine.xs.write(path, "");
    machine.hv.domain(domain.domid)!.shutdown(SHUTDOWN.suspend);
  });
}
