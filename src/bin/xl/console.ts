/** A domain's console on this terminal. */
import { Duplex } from "node:stream";
import { attachConsole } from "../terminal.ts";
import type { Xl } from "./verb.ts";

/** Stay until the console ends or ^] is pressed. @param follow through all lives of the domain */
export async function runConsole(xl: Xl, domain: number | string, options: { readonly number?: number; readonly follow?: boolean; /** called when it is seen, before anything is waited for */ opened?(): void } = {}): Promise<"ended" | "detached"> {
  const daemon = await xl.daemon(), socket = await daemon.stream("console", { domain, ...(options.number === undefined ? {} : { number: options.number }), ...(options.follow ? { follow: true } : {}) });
  options.opened?.();
  const controller = new AbortController(), stop = (): void => controller.abort("stopped");
  xl.signal.addEventListener("abort", stop, { once: true });
  socket.on("error", () => {});
  const { readable, writable } = Duplex.toWeb(socket) as unknown as { readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> };
  try {
    await attachConsole({ readable, writable }, controller).catch((e) => { if (!controller.signal.aborted && !socket.destroyed) throw e; });
  } finally {
    xl.signal.removeEventListener("abort", stop);
    socket.destroy();
  }
  return controller.signal.aborted ? "detached" : "ended";
}
