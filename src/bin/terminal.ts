/** The terminal: raw while a guest has it, itself again whatever happens; and the ways in which it ends the command. */
import { spawnSync } from "node:child_process";
import { writeSync } from "node:fs";

/** Why the command shall end before its domains do. */
export type Ending = { readonly exitCode: number; readonly why: string };
const ENDINGS = {
  SIGINT: { exitCode: 130, why: "interrupted" }, SIGHUP: { exitCode: 129, why: "the terminal was closed" }, SIGTERM: { exitCode: 143, why: "terminated" },
  launcher: { exitCode: 129, why: "its launcher has died" }, stdout: { exitCode: 141, why: "nobody reads its output any more" },
  detached: { exitCode: 130, why: "detached with ^]" },
} as const;
/** ^], as in xl console and telnet. */
const DETACH = 0x1d;

let rawNow = false;
function setRaw(on: boolean): void {
  if (rawNow === on || !process.stdin.isTTY) return;
  try { process.stdin.setRawMode(on); rawNow = on; } catch { return; /* the terminal is gone: nothing to restore */ }
  // Node's raw mode still turns LF into CR LF, which the guest's own terminal has done already. Leaving raw mode undoes this too.
  if (on) spawnSync("stty", ["-opost"], { stdio: [0, "ignore", "ignore"] });
}
process.on("exit", () => setRaw(false));

/** A line for the user, on stderr; a raw terminal wants its carriage return said. */
export function printLine(text: string): void {
  const end = rawNow ? "\r\n" : "\n";
  try { writeSync(2, `domus: ${text}`.replaceAll("\n", end) + end); } catch { /* nobody to tell */ }
}

/** Aborts with an `Ending` as its reason when the user, the terminal or the system ends the command; a second signal a second later ends it at once. */
export function endings(): AbortController {
  const controller = new AbortController();
  let first = 0;
  const end = (ending: Ending) => {
    if (controller.signal.aborted && performance.now() - first > 1000) process.exit(ending.exitCode);
    if (controller.signal.aborted) return;
    first = performance.now();
    controller.abort(ending);
  };
  for (const name of ["SIGINT", "SIGHUP", "SIGTERM"] as const) process.on(name, () => end(ENDINGS[name]));
  if (process.channel) {
    process.on("disconnect", () => end(ENDINGS.launcher));
    process.channel.unref();
  }
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (e: NodeJS.ErrnoException) => end(e.code === "EIO" ? ENDINGS.SIGHUP : ENDINGS.stdout));
  }
  return controller;
}

/**
 * Give one guest's console the terminal: stdin's bytes go in as they come, its bytes go out untouched. Ends when the output ends.
 */
export async function attachConsole(
  console: { readonly readable: ReadableStream<Uint8Array>; readonly writable: WritableStream<Uint8Array> }, controller: AbortController,
): Promise<void> {
  const writer = console.writable.getWriter();
  const feed = (bytes: Buffer) => {
    const at = process.stdin.isTTY ? bytes.indexOf(DETACH) : -1;
    const part = at < 0 ? bytes : bytes.subarray(0, at);
    if (part.length) {
      process.stdin.pause();
      writer.write(new Uint8Array(part)).then(() => process.stdin.resume(), () => {});
    }
    if (at >= 0) controller.abort(ENDINGS.detached);
  };
  setRaw(true);
  process.stdin.on("data", feed);
  process.stdin.on("error", () => {});
  process.stdin.ref?.();
  process.stdin.resume();
  try {
    await copyOut(console.readable, controller.signal);
  } finally {
    process.stdin.off("data", feed);
    process.stdin.pause();
    setRaw(false);
    // A read that is under way on a pipe or terminal would keep the process; it is about to exit.
    process.stdin.unref?.();
    writer.releaseLock();
  }
}

/** Write a stream to stdout at the pace at which stdout is read. `change` may rewrite pieces. */
export async function copyOut(readable: ReadableStream<Uint8Array>, signal: AbortSignal, change = (bytes: Uint8Array): Uint8Array => bytes): Promise<void> {
  const reader = readable.getReader();
  const stop = () => { reader.cancel().catch(() => {}); };
  signal.addEventListener("abort", stop, { once: true });
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (!process.stdout.write(change(value)) && !signal.aborted) {
        await new Promise<void>((resolve) => {
          process.stdout.once("drain", resolve);
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
    }
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Puts `name| ` before each line of one of several consoles; a line is held back until it is whole, so that lines never mix. */
export function linePrefixer(name: string): { (bytes: Uint8Array): Uint8Array; rest(): Uint8Array } {
  const prefix = new TextEncoder().encode(`${name}| `);
  let held: number[] = [];
  const line = (bytes: readonly number[]): number[] => [...prefix, ...bytes.filter((b) => b !== 0x0d), 0x0a];
  const push = (bytes: Uint8Array): Uint8Array => {
    const out: number[] = [];
    for (const b of bytes) {
      if (b !== 0x0a && held.length < 4096) { held.push(b); continue; }
      out.push(...line(held));
      held = b === 0x0a ? [] : [b];
    }
    return new Uint8Array(out);
  };
  return Object.assign(push, { rest: () => { const out = held.length ? line(held) : []; held = []; return new Uint8Array(out); } });
}

/** Wait until what was written has left, so that exit cuts nothing off. */
export function flush(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.destroyed || stream.writableLength === 0) resolve();
    else {
      stream.once("close", resolve);
      stream.write("", () => resolve());
    }
  });
}
