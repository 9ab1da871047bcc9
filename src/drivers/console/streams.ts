/** A console as a pair of streams. */
import { ConsoleBack } from "./back.ts";

export type ConsoleStreams = {
  readonly back: ConsoleBack;
  /** what the guest writes; while nobody reads and `highWaterBytes` are waiting, the guest waits */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** what the guest reads */
  readonly writable: WritableStream<Uint8Array>;
  close(): void;
};

/** Make a back end whose two directions are streams. Arguments as ConsoleBack's. */
export function consoleStreams(words: Int32Array, page: number, notify: () => void, options: { log?: (sentence: string) => void; name?: string; highWaterBytes?: number } = {}): ConsoleStreams {
  let controller!: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  let room: PromiseWithResolvers<void> | undefined;
  let isOpen = true;
  const readable = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start: (c) => { controller = c; },
    pull: () => {
      room?.resolve();
      room = undefined;
    },
    cancel: () => {  // nobody will read again: the guest goes on, its output is dropped
      isOpen = false;
      room?.resolve();
    },
  }, new ByteLengthQueuingStrategy({ highWaterMark: options.highWaterBytes ?? 64 << 10 }));
  const back = new ConsoleBack(words, page, notify, {
    ...options,
    onOutput: (bytes) => {
      if (!isOpen) return;
      controller.enqueue(bytes);
      if ((controller.desiredSize ?? 0) > 0) return;
      return (room = Promise.withResolvers<void>()).promise;
    },
  });
  return {
    back, readable, writable: new WritableStream({ write: (bytes) => back.write(bytes) }),
    close: () => {
      back.close();
      if (isOpen) controller.close();
      isOpen = false;
      room?.resolve();
    },
  };
}
