/** Consoles beside the terminal: a log per domain, and sockets for a domain's channels: many look, the first who types may type. */
import { createWriteStream, mkdirSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { UserError } from "../base/errors.ts";
import type { ConsoleViews } from "../drivers/console/views.ts";

/** Wait until a stream takes more or takes nothing any more. */
const roomIn = (stream: Writable): Promise<void> => new Promise((go) => {
  const done = (): void => {
    stream.off("drain", done);
    stream.off("close", done);
    go();
  };
  if (stream.destroyed) return go();
  stream.on("drain", done);
  stream.on("close", done);
});

/** Append what a console says to DIR/NAME.log, as it comes. A disk that is full costs the log, not the guest. */
export function logConsole(folder: string, name: string, views: ConsoleViews, told: (sentence: string) => void): void {
  const path = join(folder, `${name}.log`);
  try { mkdirSync(folder, { recursive: true }); } catch (e) { throw new UserError(`The folder ${folder} for console logs cannot be made: ${(e as Error).message}`); }
  const file = createWriteStream(path, { flags: "a", mode: 0o600 });
  let isLost = false;
  file.on("error", (e) => {
    if (!isLost) told(`The console log ${path} cannot be written: ${e.message}`);
    isLost = true;
  });
  void (async () => {
    for await (const bytes of views.view()) {
      if (isLost) break;
      if (!file.write(bytes)) await roomIn(file);
    }
    file.end();
  })();
}

/** Let a channel be reached at a Unix socket. @returns ends it @throws UserError where the socket cannot be had */
export async function serveChannel(path: string, views: ConsoleViews): Promise<() => void> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    let keyboard: ReturnType<ConsoleViews["takeKeyboard"]> | null = null;
    const reader = views.view().getReader();
    socket.on("error", () => {});
    socket.on("data", (bytes: Buffer) => {
      try { keyboard ??= views.takeKeyboard(); } catch { return; /* another types */ }
      socket.pause();
      void keyboard.write(new Uint8Array(bytes)).then(() => { socket.resume(); });
    });
    socket.on("close", () => {
      sockets.delete(socket);
      keyboard?.release();
      void reader.cancel().catch(() => {});
    });
    void (async () => {
      for (let got = await reader.read(); !got.done; got = await reader.read()) {
        if (!socket.write(got.value)) await roomIn(socket);
      }
      socket.end();
    })();
  });
  await new Promise<void>((done, failed) => {
    server.once("error", (e: NodeJS.ErrnoException) => failed(new UserError(`The channel's socket ${path} cannot be had: ${e.code === "EADDRINUSE" ? "it exists already; remove it if nobody uses it" : e.message}`)));
    server.listen(path, done);
  });
  return () => {
    server.close();
    for (const socket of sockets) socket.destroy();
    rmSync(path, { force: true });
  };
}
