/** A raw image: the file's bytes are the disk's. */
import { type ByteFile, checkRange, type Disk, DiskError, SECTOR_BYTES } from "./disk.ts";

/** A file whose length is not whole sectors has zeros up to the next. */
export class RawDisk implements Disk {
  readonly name: string;
  readonly format = "raw";
  readonly physicalSectorBytes = 4096;
  readonly isReadonly: boolean;
  sizeBytes: number;
  onResize: (() => void) | null = null;
  readonly #file: ByteFile;
  #isClosed = false;

  constructor(file: ByteFile, isReadonly = file.isReadonly) {
    this.#file = file;
    this.name = file.name;
    this.isReadonly = isReadonly;
    this.sizeBytes = Math.ceil(file.sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
  }
  #check(offset: number, lengthBytes: number, changes: boolean): void {
    if (this.#isClosed) throw new DiskError("closed", `${this.name} is closed`);
    if (changes && this.isReadonly) throw new DiskError("readonly", `${this.name} is read-only`);
    checkRange(this, offset, lengthBytes);
  }
  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length, false);
    await this.#file.read(offset, into);
  }
  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length, true);
    await this.#file.write(offset, from);
  }
  async flush(): Promise<void> {
    this.#check(0, 0, false);
    if (!this.isReadonly) await this.#file.flush();
  }
  async discard(offset: number, lengthBytes: number): Promise<void> {
    this.#check(offset, lengthBytes, true);
    if (this.#file.makesHoles) await this.#file.punch(offset, lengthBytes);      // others would write zeros for nothing
  }
  async writeZeros(offset: number, lengthBytes: number): Promise<void> {
    this.#check(offset, lengthBytes, true);
    await this.#file.punch(offset, lengthBytes);
  }
  /** Shrinks too: what lay past the new end is lost. */
  async resize(sizeBytes: number): Promise<void> {
    this.#check(0, 0, true);
    if (sizeBytes % SECTOR_BYTES !== 0 || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw new DiskError("range", `${this.name}: ${sizeBytes} bytes are not whole sectors`);
    await this.#file.truncate(sizeBytes);
    this.sizeBytes = sizeBytes;
    this.onResize?.();
  }
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try { if (!this.isReadonly) await this.#file.flush(); } finally { await this.#file.close(); }
  }
}
