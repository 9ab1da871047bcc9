/** Node's streams as those of the web, for much data: Node's own conversions copy each piece that was read. */
import { type Duplex, finished, type Readable, Writable } from "node:stream";
import type { Link } from "./migrate.ts";

/** How much is read ahead. */
const AHEAD_BYTES = 1 << 20;

/** What a stream reads, as it comes: to be read, not kept or given away. Cancelling destroys the stream. */
export function readableOf(stream: Readable): ReadableStream<Uint8Array> {
  let isOver = false;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      stream.on("data", (piece: Uint8Array) => {
        if (isOver) return;
        controller.enqueue(piece);
        if (controller.desiredSize! <= 0) stream.pause();
      });
      stream.pause();
      finished(stream, { writable: false }, (e) => {
        if (isOver) return;
        isOver = true;
        if (e) controller.error(e); else controller.close();
      });
      stream.on("error", () => {});       // told above, and no more than once
    },
    pull() { stream.resume(); },
    cancel(reason) {
      isOver = true;
      stream.destroy(reason instanceof Error ? reason : undefined);
    },
  }, new ByteLengthQueuingStrategy({ highWaterMark: AHEAD_BYTES }));
}
/** A connection as a link. */
export const linkOver = (connection: Duplex): Link => ({ readable: readableOf(connection), writable: Writable.toWeb(connection) as WritableStream<Uint8Array> });
