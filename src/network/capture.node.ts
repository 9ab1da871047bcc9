/** Captures into files. */
import { open } from "node:fs/promises";
import type { Bridge } from "./bridge.ts";
import { type Capture, type CaptureOptions, capture } from "./capture.ts";
import type { Port } from "./port.ts";

/** Capture into a file, which is made or emptied, and readable by its owner only. Other programs may read it while it grows. @throws Error when it cannot be opened */
export async function captureToFile(what: Port | Bridge, path: string, options: CaptureOptions = {}): Promise<Capture> {
  const file = await open(path, "w", 0o600);
  try {
    return capture(what, { write: (bytes) => file.writeFile(bytes), close: () => file.close() }, options);
  } catch (e) {
    await file.close();
    throw e;
  }
}
