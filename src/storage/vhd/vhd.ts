/** VHD images, fixed and dynamic, over a file: `createVhd`, `openVhd`. Differencing images are refused. */
import { type ByteFile, checkRange, type Disk, DiskError, SECTOR_BYTES } from "../disk.ts";
import { DynamicVhd } from "./dynamic.ts";
import { BAT_FREE, BLOCK_BYTES, FOOTER_BYTES, HEADER_BYTES, isFooter, makeFooter, makeHeader, readFooter, SIZE_BYTES_MAX, VHD_TYPE } from "./format.ts";

/** What is between a disk's first byte and the file's is nothing: the footer stands behind. */
class FixedVhd implements Disk {
  readonly format = "vhd";
  readonly physicalSectorBytes = SECTOR_BYTES;
  readonly sizeBytes: number;
  readonly isReadonly: boolean;
  readonly #file: ByteFile;
  onResize: (() => void) | null = null;
  #isClosed = false;
  constructor(file: ByteFile, sizeBytes: number, isReadonly: boolean) {
    this.#file = file;
    this.sizeBytes = sizeBytes;
    this.isReadonly = isReadonly;
  }
  get name(): string { return this.#file.name; }
  #check(offset: number, lengthBytes: number, writes: boolean): void {
    if (this.#isClosed) throw new DiskError("closed", `${this.name} is closed`);
    if (writes && this.isReadonly) throw new DiskError("readonly", `${this.name} is read-only`);
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
    if (!this.isReadonly) await this.#file.flush();
  }
  async discard(offset: number, lengthBytes: number): Promise<void> {
    await this.writeZeros(offset, lengthBytes);
  }
  async writeZeros(offset: number, lengthBytes: number): Promise<void> {
    this.#check(offset, lengthBytes, true);
    if (lengthBytes) await this.#file.punch(offset, lengthBytes);
  }
  resize(): Promise<void> {
    return Promise.reject(new DiskError("unsupported", `${this.name}: a VHD image keeps its size`));
  }
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try { await this.flush(); } finally { await this.#file.close(); }
  }
}

/** Write a fresh image over all that is in the file. @throws DiskError `range` for a size that VHD cannot have */
export async function createVhd(file: ByteFile, options: { sizeBytes: number; kind: "fixed" | "dynamic" }): Promise<void> {
  const { sizeBytes, kind } = options;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % SECTOR_BYTES !== 0 || sizeBytes > SIZE_BYTES_MAX) {
    throw new DiskError("range", `${file.name}: a VHD of ${sizeBytes} bytes cannot be; whole sectors up to ${SIZE_BYTES_MAX} bytes can`);
  }
  const footer = makeFooter(sizeBytes, VHD_TYPE[kind], crypto.getRandomValues(new Uint8Array(16)), Date.now());
  await file.truncate(0);
  if (kind === "fixed") await file.write(sizeBytes, footer);
  else {
    const nrEntries = Math.ceil(sizeBytes / BLOCK_BYTES), table = new Uint8Array(Math.ceil(nrEntries * 4 / SECTOR_BYTES) * SECTOR_BYTES).fill(BAT_FREE & 0xff);
    await file.write(0, footer);
    await file.write(FOOTER_BYTES, makeHeader(nrEntries));
    await file.write(FOOTER_BYTES + HEADER_BYTES, table);
    await file.write(FOOTER_BYTES + HEADER_BYTES + table.length, footer);
  }
  await file.flush();
}

/**
 * Open an image. The disk owns the file from here on, also when opening fails. A dynamic image whose last footer is broken is read by its first, and mended
 * when it may be written. @throws DiskError `corrupt`, `unsupported`
 */
export async function openVhd(file: ByteFile, options: { readonly?: boolean } = {}): Promise<Disk> {
  try {
    const isReadonly = options.readonly === true || file.isReadonly, fileBytes = file.sizeBytes, first = new Uint8Array(FOOTER_BYTES), last = new Uint8Array(FOOTER_BYTES);
    await file.read(0, first);
    // Virtual PC before 2004 left the footer a byte short: it is found all the same, by the sector it begins in.
    const end = Math.max(0, Math.floor((fileBytes - (FOOTER_BYTES - 1)) / SECTOR_BYTES) * SECTOR_BYTES);
    await file.read(end, last);
    const hasLast = isFooter(last), bytes = hasLast ? last : first;
    if (!hasLast && !isFooter(first)) throw new DiskError("corrupt", `${file.name} is no VHD: neither its first nor its last sector is a footer with a right checksum`);
    const footer = readFooter(bytes, file.name);
    if (footer.type === VHD_TYPE.dynamic) return await DynamicVhd.open(file, bytes, footer, hasLast ? end : Math.ceil(fileBytes / SECTOR_BYTES) * SECTOR_BYTES, !hasLast, isReadonly);
    if (!hasLast) throw new DiskError("corrupt", `${file.name}: a fixed VHD has its footer at the end, where there is none`);
    if (footer.sizeBytes > end) throw new DiskError("corrupt", `${file.name}: the footer says ${footer.sizeBytes} bytes, the file holds ${end}`);
    return new FixedVhd(file, footer.sizeBytes, isReadonly);
  } catch (e) {
    await file.close().catch(() => {});
    throw e;
  }
}
