/**
 * Stock kernels in lockstep: a machine whose one pCPU runs on the main thread, in turns with the control domain, by a clock that counts instructions. So nobody writes while guest code
 * runs, and what a guest does by the clock does not depend on how long the comparison takes.
 */
import { Pcpu } from "../../src/hypervisor/pcpu.ts";
import { MachineMemory } from "../../src/memory/machine.ts";
import type { Host, HostWorker } from "../../src/toolstack/host.ts";
import { createMachine } from "../../src/toolstack/machine.ts";
import { Random } from "../oracle/values.ts";
import { LockstepEngine, type TwinCounts } from "./twin.ts";

/** What an instruction takes by the guest's clock, and how far the clock goes on in a turn in which nobody runs. */
const INSTRUCTION_MS = 5e-6, IDLE_MS = 0.02;

/** While `run` goes on, performance.now() is what this says. */
class CountedClock {
  readonly #real = performance.now.bind(performance);
  #nowMs = this.#real();
  advance(ms: number): void { this.#nowMs += ms; }
  /** Time as it is outside. */
  realMs(): number { return this.#real(); }
  install(): Disposable {
    performance.now = () => this.#nowMs;
    return { [Symbol.dispose]: () => { performance.now = this.#real; } };
  }
}

type Lockstepped = { readonly host: Host; readonly counts: () => TwinCounts | null };
function lockstepHost(seed: number, clock: CountedClock): Lockstepped {
  let engine: LockstepEngine | null = null;
  const spawnPcpu = (): HostWorker => {
    const worker: HostWorker = {
      onMessage: () => {}, onDeath: () => {}, terminate: async () => {},
      post: (message) => {
        queueMicrotask(() => {
          const { index } = message;
          try {
            const pcpu = new Pcpu(MachineMemory.attach(message.memory), index, (memory, at, platform, options) =>
              (engine = new LockstepEngine(memory, at, platform, options ?? {}, new Random(seed), (n) => clock.advance(n * INSTRUCTION_MS))), message.translateAfter === undefined ? {} : { engine: { translateAfter: message.translateAfter } });
            let isIdle = false;
            const { scheduler } = pcpu.hv;
            scheduler.idle = () => { isIdle = true; };
            const turn = (): void => {
              try {
                if (pcpu.hv.stopped) { worker.onMessage({ op: "stopped", index }); return; }
                isIdle = false;
                pcpu.turn();
                if (isIdle) clock.advance(Math.min(IDLE_MS, Math.max(1e-3, (scheduler.nextDeadline - pcpu.hv.clock.now()) / 1e6)));
                setImmediate(turn);
              } catch (e) { worker.onDeath(e instanceof Error ? e : new Error(String(e))); }
            };
            worker.onMessage({ op: "ready", index, buildMs: 0 });
            setImmediate(turn);
          } catch (e) { worker.onDeath(e instanceof Error ? e : new Error(String(e))); }
        });
      },
    };
    return worker;
  };
  return { host: { name: "node", nrCpus: 1, soon: (task) => { setImmediate(task); }, spawnPcpu }, counts: () => engine?.counts ?? null };
}

export type GuestRun = {
  readonly kernel: Uint8Array; readonly ramdisk?: Uint8Array; readonly cmdline: string; readonly memoryMiB: number; readonly vcpus: number;
  readonly seed: number; readonly translateAfter: number; readonly seconds: number;
  /** commands for its shell, one after the other, each when it asks for one */
  readonly commands?: Iterator<string>;
  readonly onConsole?: (text: string) => void;
  readonly onProgress?: (p: Progress) => void;
  /** ends it */
  readonly signal?: AbortSignal;
};
export type Progress = { readonly counts: TwinCounts; readonly seconds: number; readonly nrCommands: number };
export type GuestEnd = Progress & { readonly why: string; /** its last words */ readonly console: string };

/** What busybox's line editor asks a terminal behind its prompt: where the cursor is. */
const CURSOR = "\x1b[6n";
const PROMPT = "# ", LOOK_MS = 5, REPORT_MS = 10_000, CONSOLE_KEPT = 4000, NONE: TwinCounts = { stretches: 0, instructions: 0, pages: 0, exceptions: 0, steps: 0 };
/** Run a kernel until it ends or it is enough. @throws Divergence at the first difference */
export async function guestInLockstep(o: GuestRun): Promise<GuestEnd> {
  const clock = new CountedClock();
  using _installed = clock.install();
  const { host, counts } = lockstepHost(o.seed, clock), begun = clock.realMs(), progress = (): Progress => ({ counts: counts() ?? NONE, seconds: (clock.realMs() - begun) / 1000, nrCommands });
  let failure: Error | null = null, said = "", nrCommands = 0, isWorking = true, ended: string | null = null;
  const machine = await createMachine({ host, memoryMiB: o.memoryMiB, nrDomains: 1, pcpus: 1, translateAfter: o.translateAfter, failed: (e) => { failure ??= e; } });
  const reporter = setInterval(() => o.onProgress?.(progress()), REPORT_MS);
  try {
    const { kernel, ramdisk, cmdline, memoryMiB, vcpus } = o, d = await machine.createDomain({ name: "guest", kernel, ...(ramdisk ? { ramdisk } : {}), memoryMiB, vcpus, cmdline });
    const writer = d.console.writable.getWriter(), decoder = new TextDecoder();
    void d.console.readable.pipeTo(new WritableStream({ write: (bytes) => {
      const text = decoder.decode(bytes, { stream: true });
      said = (said + text.replaceAll(CURSOR, "")).slice(-CONSOLE_KEPT);
      o.onConsole?.(text);
      if (said.endsWith(PROMPT)) isWorking = false;
    } })).catch(() => {});
    void d.wait().then((e) => { ended = e.reason; }, () => {});
    for (;;) {
      await new Promise((done) => setTimeout(done, LOOK_MS));
      if (failure) throw failure;
      const why = ended !== null ? `the guest ended: ${ended}` : o.signal?.aborted ? "interrupted" : progress().seconds > o.seconds ? "enough time" : null;
      if (why !== null) return { ...progress(), why, console: said };
      if (isWorking || !o.commands) continue;
      const { value, done } = o.commands.next();
      if (done) return { ...progress(), why: "no more commands", console: said };
      isWorking = true;
      nrCommands++;
      await writer.write(new TextEncoder().encode(`${value}\n`));
    }
  } finally {
    clearInterval(reporter);
    await machine.destroy().catch(() => {});
  }
}
