/** Consoles beside the terminal: a log per domain, and sockets for a domain's channels: many look, the first who types may type. */
import { createWriteStream, renameSync, rmSync, statSync, type WriteStream } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { Duplex, Writable } from "node:stream";
import { UserError } from "../base/errors.ts";
import type { ConsoleViews } from "../drivers/console/views.ts";
import { makeFolders } from "./paths.ts";

/** What one viewer may have typed that the guest has not read yet. Less is held, not waited for: a connection that is not read does not tell of its end. */
const TYPED_AHEAD_BYTES = 64 << 10;
/** A console's log: when it is so long it becomes NAME.log.1, in the place of an earlier one. A guest can write for ever. */
const LOG_BYTES = 16 << 20;

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

/** Append what a console says to DIR/NAME.log, as it comes; the last `maxBytes` at least are there, in it and in NAME.log.1. A disk that is full costs the log, not the guest. */
export function logConsole(folder: string, name: string, views: ConsoleViews, told: (sentence: string) => void, maxBytes = LOG_BYTES): void {
  const path = join(folder, `${name}.log`);
  try { makeFolders(folder); } catch (e) { throw new UserError(`The folder ${folder} for console logs cannot be made: ${(e as Error).message}`); }
  let isLost = false;
  const lost = (e: Error): void => {
    if (!isLost) told(`The console log ${path} cannot be written: ${e.message}`);
    isLost = true;
  };
  const begin = (): WriteStream => createWriteStream(path, { flags: "a", mode: 0o600 }).on("error", lost);
  let file = begin(), sizeBytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  void (async () => {
    for await (const bytes of views.view()) {
      if (sizeBytes > 0 && sizeBytes + bytes.length > maxBytes && !isLost) {
        await new Promise<void>((closed) => { file.once("close", closed).end(); });
        try { renameSync(path, `${path}.1`); } catch (e) { lost(e as Error); }
        file = begin();
        sizeBytes = 0;
      }
      if (isLost) break;
      sizeBytes += bytes.length;
      if (!file.write(bytes)) await roomIn(file);
    }
    file.end();
  })();
}

/**
 * Let whoever is at the other end of a connection see a console, and type on it where nobody else does.
 * @returns "ended" when the console has, "left" when the other end is gone; the connection stays open in the first case
 */
export function joinConsole(connection: Duplex, views: ConsoleViews, options: { /** said once to one who types in vain */ readonly busyNotice?: string } = {}): Promise<"ended" | "left"> {
  let keyboard: ReturnType<ConsoleViews["takeKeyboard"]> | null = null, isTold = false, isLeft = false, aheadBytes = 0;
  const reader = views.view().getReader(), left = Promise.withResolvers<"left">();
  const typed = (bytes: Buffer): void => {
    try { keyboard ??= views.takeKeyboard(); } catch {       // another types
      if (options.busyNotice !== undefined && !isTold) connection.write(options.busyNotice);
      isTold = true;
      return;
    }
    if ((aheadBytes += bytes.length) >= TYPED_AHEAD_BYTES) connection.pause();
    void keyboard.write(new Uint8Array(bytes)).then(() => {
      if ((aheadBytes -= bytes.length) < TYPED_AHEAD_BYTES) connection.resume();
    });
  };
  const gone = (): void => {
    isLeft = true;
    void reader.cancel().catch(() => {});
    left.resolve("left");
  };
  connection.on("data", typed);
  connection.on("end", gone);          // an HTTP server's connections stay half open: of a guest that says nothing no "close" would follow
  connection.on("close", gone);
  if (connection.destroyed || connection.readableEnded) gone();
  const copied = (async (): Promise<"ended" | "left"> => {
    for (let got = await reader.read(); !got.done; got = await reader.read()) if (!connection.write(got.value)) await roomIn(connection);
    return isLeft ? "left" : "ended";
  })();
  return Promise.race([copied, left.promise]).finally(() => {
    connection.off("data", typed);
    connection.off("end", gone);
    connection.off("close", gone);
    keyboard?.release();
  });
}

/** Let a channel be reached at a Unix socket. @returns ends it @throws UserError where the socket cannot be had */
export async function serveChannel(path: string, views: ConsoleViews): Promise<() => void> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    void joinConsole(socket, views).then(() => { socket.end(); });
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
