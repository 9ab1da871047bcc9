/**
 * Files in a browser's origin-private file system: a `FileStore`, so that every format of this room works on it. A worker has the access handles and does what is asked in order.
 * File names are flat; a path's folders are not looked at. One opening at a time may write to a file, whichever tab has it.
 */
import { type ByteFile, DiskError, type FileStore } from "./disk.ts";
import type { FromOpfs, OpfsResult, StoredFile, ToOpfs } from "./opfs-messages.ts";

type Request = ToOpfs extends infer T ? T extends { id: number } ? Omit<T, "id"> : never : never;
const ZEROS = 1 << 20;

/** The name of the file that a path means. @throws DiskError */
function nameOf(path: string): string {
  const name = path.split("/").pop() ?? "";
  if (name === "" || name === "." || name === ".." || name.length > 200 || /[\0\\]/.test(name)) throw new DiskError("missing", `"${path}" names no file`);
  return name;
}

/** The private file system of this page's origin. */
export class OpfsStore implements FileStore {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, PromiseWithResolvers<OpfsResult>>();
  #nextId = 1;
  #lost: DiskError | null = null;

  constructor() {
    this.#worker = new Worker(new URL("./opfs-worker.web.ts", import.meta.url), { type: "module", name: "files" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromOpfs>) => {
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ("result" in data) waiting?.resolve(data.result);
      else waiting?.reject(new DiskError(data.fault, data.message));
    };
    this.#worker.onerror = (e) => {
      this.#lost = new DiskError("gone", `The browser's files cannot be reached: ${e.message || "their worker did not start"}`);
      for (const w of this.#waiting.values()) w.reject(this.#lost);
      this.#waiting.clear();
    };
  }
  /** Has this browser such a file system? */
  static get isThere(): boolean { return typeof navigator === "object" && typeof navigator.storage?.getDirectory === "function"; }

  #ask(request: Request, transfer: Transferable[] = []): Promise<OpfsResult> {
    if (this.#lost) return Promise.reject(this.#lost);
    const id = this.#nextId++, waiting = Promise.withResolvers<OpfsResult>();
    this.#waiting.set(id, waiting);
    this.#worker.postMessage({ ...request, id } as ToOpfs, transfer);
    return waiting.promise;
  }

  async open(path: string, mode: "read" | "write" | "create"): Promise<ByteFile> {
    const name = nameOf(path), { file, sizeBytes } = await this.#ask({ op: "open", name, mode });
    return this.#opened(name, file!, sizeBytes!, mode === "read");
  }
  #opened(name: string, file: number, openedBytes: number, isReadonly: boolean): ByteFile {
    let sizeBytes = openedBytes, isClosed = false;
    const check = (changes: boolean): void => {
      if (isClosed) throw new DiskError("closed", `${name} is closed`);
      if (changes && isReadonly) throw new DiskError("readonly", `${name} was opened for reading`);
    };
    const write = async (at: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> => {
      const end = at + bytes.length;      // the worker has the bytes then
      await this.#ask({ op: "write", file, at, bytes }, [bytes.buffer]);
      sizeBytes = Math.max(sizeBytes, end);
    };
    return {
      name, isReadonly, get sizeBytes() { return sizeBytes; },
      read: async (at, into) => {
        check(false);
        into.set((await this.#ask({ op: "read", file, at, lengthBytes: into.length })).bytes!);
      },
      write: async (at, from) => { check(true); if (from.length > 0) await write(at, Uint8Array.from(from)); },
      flush: async () => { check(false); if (!isReadonly) await this.#ask({ op: "flush", file }); },
      truncate: async (to) => { check(true); await this.#ask({ op: "truncate", file, sizeBytes: to }); sizeBytes = to; },
      punch: async (at, lengthBytes) => {
        check(true);
        const end = Math.min(at + lengthBytes, sizeBytes);
        for (let from = at; from < end; from += ZEROS) await write(from, new Uint8Array(Math.min(ZEROS, end - from)));
      },
      close: async () => {
        if (isClosed) return;
        isClosed = true;
        await this.#ask({ op: "close", file });
      },
    };
  }

  /** All files there are. */
  async list(): Promise<readonly StoredFile[]> { return (await this.#ask({ op: "list" })).files!; }
  /** @throws DiskError where there is none or it is in use */
  async remove(name: string): Promise<void> { await this.#ask({ op: "remove", name: nameOf(name) }); }
  /** Give a file another name, which must be free. @throws DiskError where it is not, or the file is in use */
  async rename(name: string, to: string): Promise<void> { await this.#ask({ op: "rename", name: nameOf(name), to: nameOf(to) }); }
  /** Let the worker go; files that are open are closed by that. */
  close(): void {
    this.#lost = new DiskError("closed", "The browser's files are closed");
    this.#worker.terminate();
  }
}
