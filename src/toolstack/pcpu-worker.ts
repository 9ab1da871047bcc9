/** A pCPU's thread: attaches the machine's memory, builds its engine, and runs the loop until the machine stops. Only wires. */
import { Pcpu } from "../hypervisor/pcpu.ts";
import { MachineMemory } from "../memory/machine.ts";
import { makeInterpreter, makeTranslator } from "../x86/engine.ts";
import type { FromPcpu, ToPcpu } from "./pcpu-messages.ts";

/** Serve one message; `start` returns when the machine stops. */
export function servePcpu(message: ToPcpu, answer: (message: FromPcpu) => void): void {
  const { index } = message;
  try {
    const begun = performance.now();
    const pcpu = new Pcpu(MachineMemory.attach(message.memory), index, message.engine === "interpreter" ? makeInterpreter : makeTranslator,
      { profile: message.profile, engine: message.translateAfter === undefined ? {} : { translateAfter: message.translateAfter } });
    answer({ op: "ready", index, buildMs: performance.now() - begun });
    pcpu.run();
    const { profile } = pcpu;
    answer({ op: "stopped", index, ...(profile ? { profile } : {}) });
  } catch (e) {
    answer({ op: "failed", index, message: e instanceof Error ? e.message : String(e), stack: e instanceof Error ? e.stack ?? "" : "" });
  }
}
