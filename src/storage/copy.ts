/** Copies a disk onto another, leaving out what is zero. */
import type { Disk } from "./disk.ts";
import { settle } from "./range-lock.ts";

/** How `copyDisk` copies. */
export type CopyOptions = {
  /** the target reads as zeros all over, as a new file does: zeros need not be written */
  readonly isTargetZero?: boolean;
  /** stops the copy between two pieces, by throwing its reason */
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, allBytes: number) => void;
  /** pieces under way at once, and their length in bytes */
  readonly nrInFlight?: number;
  readonly pieceBytes?: number;
  /** zeros are left out in units of this many bytes */
  readonly grainBytes?: number;
};

/** Copy all of `from`; `to` is as long at least. Nothing is flushed. @throws DiskError; the signal's reason */
export async function copyDisk(from: Pick<Disk, "read" | "sizeBytes">, to: Pick<Disk, "write" | "writeZeros">, options: CopyOptions = {}): Promise<void> {
  const { pieceBytes = 1 << 20, nrInFlight = 4, grainBytes = 65536, signal, isTargetZero = false, onProgress } = options, all = from.sizeBytes;
  let next = 0, done = 0;
  const worker = async (): Promise<void> => {
    const bytes = new Uint8Array(Math.min(pieceBytes, all));
    while (next < all) {
      signal?.throwIfAborted();
      const at = next, piece = bytes.subarray(0, Math.min(pieceBytes, all - at));
      next += piece.length;
      try { await copyPiece(from, to, at, piece, grainBytes, isTargetZero); } catch (e) { next = all; throw e; }
      onProgress?.(done += piece.length, all);
    }
  };
  await settle(Array.from({ length: nrInFlight }, worker));
}
/** Copy one piece: runs of grains that hold something are written, runs of zeros are zeroed or left. */
export async function copyPiece(
  from: Pick<Disk, "read">, to: Pick<Disk, "write" | "writeZeros">, at: number, piece: Uint8Array, grainBytes: number, isTargetZero: boolean,
): Promise<void> {
  await from.read(at, piece);
  for (let p = 0; p < piece.length; ) {
    const isEmpty = isZero(piece.subarray(p, p + grainBytes));
    let end = Math.min(piece.length, p + grainBytes);
    while (end < piece.length && isZero(piece.subarray(end, end + grainBytes)) === isEmpty) end = Math.min(piece.length, end + grainBytes);
    if (!isEmpty) await to.write(at + p, piece.subarray(p, end));
    else if (!isTargetZero) await to.writeZeros(at + p, end - p);
    p = end;
  }
}

/** All bytes are zero. */
export function isZero(bytes: Uint8Array): boolean {
  if (bytes.length >= 64 && bytes.byteOffset % 4 === 0) {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 4));
    for (let i = 0; i < words.length; i++) if (words[i]) return false;
    bytes = bytes.subarray(words.length * 4);
  }
  for (let i = 0; i < bytes.length; i++) if (bytes[i]) return false;
  return true;
}
