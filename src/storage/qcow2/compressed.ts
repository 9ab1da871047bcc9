/** Reads compressed clusters: raw deflate (or zstd, by a decompressor that the caller brings), padded to whole sectors. */
import { type ByteFile, DiskError } from "../disk.ts";
import { corrupt, type Header } from "./header.ts";
import type { Mapping } from "./layout.ts";

/** Unpack one zstd frame to at most `limit` bytes. @throws for a bad frame */
export type Unzstd = (frame: Uint8Array, options: { limit: number }) => Uint8Array;
/** Unpacked clusters kept: a guest reads a cluster in many requests, one after the other. */
const KEPT_BYTES = 1 << 20;

/** The compressed clusters of one image. */
export class CompressedClusters {
  readonly #file: ByteFile;
  readonly #header: Header;
  readonly #unzstd: Unzstd | null;
  readonly #kept = new Map<number, Promise<Uint8Array>>();

  constructor(file: ByteFile, header: Header, unzstd: Unzstd | null) {
    this.#file = file;
    this.#header = header;
    this.#unzstd = unzstd;
  }
  /** The cluster's content. It must not be changed. */
  read({ host, lengthBytes }: Mapping): Promise<Uint8Array> {
    const found = this.#kept.get(host);
    if (found) return found;
    const unpacked = this.#unpack(host, lengthBytes);
    this.#kept.set(host, unpacked);
    unpacked.catch(() => this.#kept.delete(host));
    const most = Math.max(2, KEPT_BYTES / this.#header.clusterBytes);
    for (const key of this.#kept.keys()) { if (this.#kept.size <= most) break; this.#kept.delete(key); }
    return unpacked;
  }
  /** The place is free and may hold something else soon. */
  forget(host: number): void {
    this.#kept.delete(host);
  }
  async #unpack(host: number, lengthBytes: number): Promise<Uint8Array> {
    const { name } = this.#file, { clusterBytes, compression } = this.#header;
    if (host < clusterBytes || host >= this.#file.sizeBytes) corrupt(name, `a compressed cluster lies at ${host}, outside the file`);
    const packed = new Uint8Array(lengthBytes);
    await this.#file.read(host, packed);
    const broken = (e: unknown): never => { throw new DiskError("corrupt", `${name}: the compressed cluster at ${host} is broken (${e instanceof Error ? e.message : e})`); };
    if (compression === "zlib") return inflateRaw(packed, clusterBytes).catch(broken);
    if (!this.#unzstd) throw new DiskError("unsupported", `${name} is compressed with zstd, for which no decompressor was given`);
    try {
      const unpacked = this.#unzstd(packed.subarray(0, zstdFrameBytes(packed)), { limit: clusterBytes });
      if (unpacked.length !== clusterBytes) throw new Error(`it holds ${unpacked.length} bytes`);
      return unpacked;
    } catch (e) { return broken(e); }
  }
}

/** Inflate to exactly `sizeBytes`; what comes after the stream's end is padding, which the decompressor complains of when all is out. */
async function inflateRaw(packed: Uint8Array, sizeBytes: number): Promise<Uint8Array> {
  const stream = new DecompressionStream("deflate-raw"), writer = stream.writable.getWriter(), reader = stream.readable.getReader(), out = new Uint8Array(sizeBytes);
  writer.write(packed as Uint8Array<ArrayBuffer>).then(() => writer.close()).catch(() => {});
  let n = 0;
  try {
    while (n < sizeBytes) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`it holds ${n} bytes`);
      out.set(value.subarray(0, sizeBytes - n), n);
      n += value.length;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  return out;
}

/** How long the frame is that stands in front of the padding: its header and its blocks' headers say. @see RFC 8878 section 3.1.1 */
function zstdFrameBytes(packed: Uint8Array): number {
  const flags = packed[4] ?? 0, isSingle = (flags & 0x20) !== 0, sizeFlag = flags >> 6;
  let at = 5 + (isSingle ? 0 : 1) + [0, 1, 2, 4][flags & 3]! + (sizeFlag === 0 ? (isSingle ? 1 : 0) : 1 << sizeFlag);
  for (let isLast = false; !isLast; ) {
    if (at + 3 > packed.length) throw new Error("it ends early");
    const head = packed[at]! | (packed[at + 1]! << 8) | (packed[at + 2]! << 16);
    isLast = (head & 1) !== 0;
    at += 3 + ((head & 6) === 2 ? 1 : head >>> 3);
  }
  return at + (flags & 4 ? 4 : 0);
}
