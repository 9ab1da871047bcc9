/** A pCPU's thread: attaches the machine's memory, builds its engine, and runs the loop until the machine stops. Only wires. */
import { Pcpu } from "../hypervisor/pcpu.ts";
import { MachineMemory } from "../memory/machine.ts";
import { makeInterpreter, makeTranslator } from "../x86/engine.ts";
import { ImageStore } from "../x86/image-store.ts";
import type { FromPcpu, ToPcpu } from "./pcpu-messages.ts";

/** The main thread has looked at the bytes before: they are good. */
function storeOf({ engine, bytes }: { engine: string; bytes: Uint8Array | null }): ImageStore {
  const store = bytes === null ? new ImageStore() : ImageStore.decode(bytes, engine);
  return store instanceof ImageStore ? store : new ImageStore();
}

/** Serve one message; `start` returns when the machine stops. */
export function servePcpu(message: ToPcpu, answer: (message: FromPcpu) => void): void {
  const { index } = message;
  try {
    const begun = performance.now();
    const images = message.codeCache && storeOf(message.codeCache);
    const pcpu = new Pcpu(MachineMemory.attach(message.memory), index, message.engine === "interpreter" ? makeInterpreter : makeTranslator,
      { profile: message.profile, engine: { ...(images ? { images } : {}), ...(message.translateAfter === undefined ? {} : { translateAfter: message.translateAfter }) } });
    answer({ op: "ready", index, buildMs: performance.now() - begun });
    pcpu.run();
    const { profile } = pcpu;
    answer({ op: "stopped", index, ...(profile ? { profile } : {}), ...(images && images.nrNew > 0 ? { images: images.encode(message.codeCache!.engine) } : {}) });
  } catch (e) {
    answer({ op: "failed", index, message: e instanceof Error ? e.message : String(e), stack: e instanceof Error ? e.stack ?? "" : "" });
  }
}
