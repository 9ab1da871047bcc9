/** The commands xenstore and xenstore-*: argv[2] is the name that was called. */
import { writeSync } from "node:fs";
import { xenstoreTool } from "./xenstore.ts";

/** Whole, also to a pipe that is full; who reads it no more has had enough. */
function put(fd: number, bytes: Uint8Array): void {
  for (let rest = bytes; rest.length; ) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (e) {
      const { code } = e as NodeJS.ErrnoException;
      if (code === "EPIPE") process.exit(1);
      if (code !== "EAGAIN") throw e;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}
process.exitCode = 70;        // unless the tool says how it ended
void xenstoreTool(process.argv.slice(2), {
  env: process.env, out: (text) => put(1, Buffer.from(text, "latin1")), err: (line) => put(2, Buffer.from(`${line}\n`)),
  ...(process.stdout.isTTY ? { columns: process.stdout.columns } : {}),
}).then((code) => { process.exitCode = code; });
