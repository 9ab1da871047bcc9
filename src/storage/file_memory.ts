/** Files that live in memory: for tests, for a browser that keeps nothing, and as the base of the faulty ones (`file_faulty.ts`). */
import { type ByteFile, DiskError, type FileStore } from "./disk.ts";

const PAGE_BYTES = 1 << 14;

/** A sparse file: pages that were never written take no memory. Nothing is ever lost, so `flush` does nothing. */
export class MemoryFile implements ByteFile {
  readonly name: string;
  readonly isReadonly: boolean;
  sizeBytes = 0;
  readonly #pages = new Map<number, Uint8Array>();

  constructor(name: string, content: Uint8Array | null = null, isReadonly = false) {
    this.name = name;
    this.isReadonly = isReadonly;
    if (content) this.put(0, content);
  }
  /** `read`, at once. */
  get(at: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const page = Math.floor((at + done) / PAGE_BYTES), from = (at + done) % PAGE_BYTES, n = Math.min(PAGE_BYTES - from, into.length - done), bytes = this.#pages.get(page);
      if (bytes) into.set(bytes.subarray(from, from + n), done); else into.fill(0, done, done + n);
      done += n;
    }
  }
  /** `write`, at once. */
  put(at: number, from: Uint8Array): void {
    for (let done = 0; done < from.length; ) {
      const page = Math.floor((at + done) / PAGE_BYTES), to = (at + done) % PAGE_BYTES, n = Math.min(PAGE_BYTES - to, from.length - done);
      let bytes = this.#pages.get(page);
      if (!bytes) this.#pages.set(page, bytes = new Uint8Array(PAGE_BYTES));
      bytes.set(from.subarray(done, done + n), to);
      done += n;
    }
    this.sizeBytes = Math.max(this.sizeBytes, at + from.length);
  }
  /** `truncate`, at once. */
  cut(sizeBytes: number): void {
    if (sizeBytes < this.sizeBytes) this.zero(sizeBytes, this.sizeBytes - sizeBytes);
    this.sizeBytes = sizeBytes;
  }
  /** `punch`, at once; never makes the file longer. */
  zero(at: number, lengthBytes: number): void {
    const end = Math.min(at + lengthBytes, this.sizeBytes), first = Math.floor(at / PAGE_BYTES);
    if (end <= at) return;
    for (const page of (end - at) / PAGE_BYTES > this.#pages.size ? [...this.#pages.keys()] : Array.from({ length: Math.ceil(end / PAGE_BYTES) - first }, (_, i) => first + i)) {
      const base = page * PAGE_BYTES;
      if (base >= end || base + PAGE_BYTES <= at) continue;
      if (base >= at && base + PAGE_BYTES <= end) this.#pages.delete(page);
      else this.#pages.get(page)?.fill(0, Math.max(0, at - base), Math.min(PAGE_BYTES, end - base));
    }
  }
  /** All of it, for tests. */
  bytes(): Uint8Array<ArrayBuffer> {
    const all = new Uint8Array(this.sizeBytes);
    this.get(0, all);
    return all;
  }
  /** memory taken, in bytes */
  get usedBytes(): number {
    return this.#pages.size * PAGE_BYTES;
  }
  #checkWritable(): void {
    if (this.isReadonly) throw new DiskError("readonly", `${this.name} was opened for reading`);
  }
  async read(at: number, into: Uint8Array): Promise<void> { this.get(at, into); }
  async write(at: number, from: Uint8Array): Promise<void> { this.#checkWritable(); this.put(at, from); }
  async flush(): Promise<void> {}
  async truncate(sizeBytes: number): Promise<void> { this.#checkWritable(); this.cut(sizeBytes); }
  async punch(at: number, lengthBytes: number): Promise<void> { this.#checkWritable(); this.zero(at, lengthBytes); }
  /** Does nothing: who has the file has its content. */
  async close(): Promise<void> {}
}

/** A folder in memory. Paths are plain names; a relative path's folder is not looked at. A file may be open for writing once. */
export class MemoryStore implements FileStore {
  readonly files = new Map<string, ByteFile>();
  readonly #writers = new Set<string>();

  async open(path: string, mode: "read" | "write" | "create"): Promise<ByteFile> {
    const found = this.files.get(path);
    if (mode === "create" && found) throw new DiskError("exists", `${path} exists`);
    if (mode !== "create" && !found) throw new DiskError("missing", `${path} does not exist`);
    if (mode !== "read" && this.#writers.has(path)) throw new DiskError("busy", `${path} is open for writing already`);
    const file = found ?? new MemoryFile(path);
    this.files.set(path, file);
    if (mode === "read") return opening(path, file, true, () => {});
    this.#writers.add(path);
    return opening(path, file, false, () => this.#writers.delete(path));
  }
  /** Give a file another name, which must be free. @throws DiskError */
  async rename(from: string, to: string): Promise<void> {
    const found = this.files.get(from);
    if (!found) throw new DiskError("missing", `${from} does not exist`);
    if (this.files.has(to)) throw new DiskError("exists", `${to} exists`);
    this.files.delete(from);
    this.files.set(to, found);
  }
}

/** One opening of a file that stays when the opening is closed. */
function opening(name: string, file: ByteFile, isReadonly: boolean, onClose: () => void): ByteFile {
  let isClosed = false;
  const check = (changes: boolean) => {
    if (isClosed) throw new DiskError("closed", `${name} is closed`);
    if (changes && isReadonly) throw new DiskError("readonly", `${name} was opened for reading`);
  };
  return {
    name, isReadonly, get sizeBytes() { return file.sizeBytes; },
    async read(at, into) { check(false); await file.read(at, into); },
    async write(at, from) { check(true); await file.write(at, from); },
    async flush() { check(false); await file.flush(); },
    async truncate(sizeBytes) { check(true); await file.truncate(sizeBytes); },
    async punch(at, lengthBytes) { check(true); await file.punch(at, lengthBytes); },
    async close() { if (!isClosed) { isClosed = true; onClose(); } },
  };
}
