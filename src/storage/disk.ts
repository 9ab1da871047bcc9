/**
 * What every disk is to those who use it, and what every file is to an image format. Formats stand on a `ByteFile`, are a `Disk`, and know neither
 * each other nor where the bytes lie: Node's files (`file.node.ts`), a browser's private file system, a network peer.
 */

/**
 * Why a disk or file could not do what was asked; never the guest's doing. `nospace`: the medium is full, nothing was lost, try again later. `io`: the medium
 * or peer failed. `gone`: the peer does not answer, requests may be sent anew. `corrupt`: the image contradicts itself. `readonly`, `range`, `unsupported`,
 * `closed`: the caller asked for what the disk is not. `missing`, `exists`, `denied`, `busy`: of opening.
 */
export type DiskFault = "nospace" | "io" | "gone" | "corrupt" | "readonly" | "range" | "unsupported" | "closed" | "missing" | "exists" | "denied" | "busy";

/** The message is a sentence that names the file or peer. */
export class DiskError extends Error {
  override name = "DiskError";
  readonly fault: DiskFault;
  constructor(fault: DiskFault, message: string, options?: ErrorOptions) {
    super(message, options);
    this.fault = fault;
  }
}

/** A random-access file of bytes. Calls may overlap in time; two that touch the same bytes are the caller's to order. */
export interface ByteFile {
  /** path or address, for messages */
  readonly name: string;
  readonly isReadonly: boolean;
  /** size in bytes when opened or last changed through this object */
  readonly sizeBytes: number;
  /** Fill `into` from byte `at`; what lies past the end reads as zeros. @throws DiskError */
  read(at: number, into: Uint8Array): Promise<void>;
  /** Write all of `from`; past the end the file grows. @throws DiskError; after `nospace` any part may have been written */
  write(at: number, from: Uint8Array): Promise<void>;
  /** Return when all that was written before this call is on stable storage. */
  flush(): Promise<void>;
  /** Cut or extend (with zeros). */
  truncate(sizeBytes: number): Promise<void>;
  /** Give back storage where the file system can; the bytes read as zeros afterwards or, where it cannot, are written as zeros. */
  punch(at: number, lengthBytes: number): Promise<void>;
  /** whether `punch` gives storage back, as far as is known; absent: no */
  readonly makesHoles?: boolean;
  close(): Promise<void>;
}

/** Opens files: what an image format needs for its backing file. An implementation decides which paths are allowed. */
export interface FileStore {
  /** @param path relative paths are taken from the folder of `from`, when given @throws DiskError */
  open(path: string, mode: "read" | "write" | "create", from?: string): Promise<ByteFile>;
}

/** A virtual disk. Offsets and lengths are bytes, multiples of 512, inside `sizeBytes`; else `range`. Calls may overlap in time. */
export interface Disk {
  /** for messages: path or address */
  readonly name: string;
  /** "raw", "qcow2", "vhd", "nbd", "iscsi" ... */
  readonly format: string;
  readonly sizeBytes: number;
  /** what the disk is best read and written in multiples of: 512 or 4096 */
  readonly physicalSectorBytes: number;
  readonly isReadonly: boolean;
  /** Fill `into`. `into` is not shared memory. @throws DiskError */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** @throws DiskError. `from` must stay unchanged until it returns. */
  write(offset: number, from: Uint8Array): Promise<void>;
  /** Return when all writes that had returned before this call are on stable storage. */
  flush(): Promise<void>;
  /** The content is no longer needed; what it reads as afterwards is undefined. Never fails for want of support. */
  discard(offset: number, lengthBytes: number): Promise<void>;
  /** Have it read as zeros, cheaply where the format can. */
  writeZeros(offset: number, lengthBytes: number): Promise<void>;
  /** @throws DiskError `unsupported` where the format cannot */
  resize(sizeBytes: number): Promise<void>;
  /** Told after `sizeBytes` changed, by whomever. One listener: the back end. */
  onResize: (() => void) | null;
  /** Flush and let go of files and peers. Safe to call again. */
  close(): Promise<void>;
}

export const SECTOR_BYTES = 512;

/** Throw unless a request lies inside the disk and on sectors. */
export function checkRange(disk: Pick<Disk, "name" | "sizeBytes">, offset: number, lengthBytes: number): void {
  if (offset % SECTOR_BYTES !== 0 || lengthBytes % SECTOR_BYTES !== 0 || offset < 0 || lengthBytes < 0 || offset + lengthBytes > disk.sizeBytes) {
    throw new DiskError("range", `${disk.name}: ${lengthBytes} bytes at ${offset} are not whole sectors inside its ${disk.sizeBytes} bytes`);
  }
}
