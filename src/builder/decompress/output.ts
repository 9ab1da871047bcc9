/** Where a decompressor writes: one buffer that grows by doubling up to a limit, and serves as the window for matches. */
import { UserError } from "../../base/errors.ts";

/** No kernel or archive of ours unpacks to more; a file that does is taken for an attack. */
export const DEFAULT_LIMIT = 1 << 29;

/** A place for a result in WebAssembly's memory, zeros; behind `bytes` the decompressor may use, and leave anything in, as much as it asked for. */
export type Place = { readonly bytes: Uint8Array; readonly memory: WebAssembly.Memory };
/** Gives a place for a result that has been announced to have so many bytes; null where there is none. The result lies in it, or is refused for being longer. */
export type MakePlace = (sizeBytes: number, behindBytes: number) => Place | null;
/** What every decompressor takes besides its input. */
export type Options = {
  /** most bytes the result may have */
  limit?: number;
  /** expected size of the result; a hint only, it need not be true */
  sizeHint?: number;
  /** for LZ4; what the others do within their result V8 does slowly in shared memory */
  place?: MakePlace | undefined;
  /** what the input is called in messages */
  name?: string;
};

/** The result so far. Failures are told in the name of the input. */
export class Output {
  bytes: Uint8Array;
  /** over `bytes` */
  view: DataView;
  length = 0;
  readonly limit: number;
  readonly format: string;
  readonly name: string;

  /** what `bytes` lie in, where they were not made here */
  readonly place: Place | null;

  /** @param behindBytes what the decompressor can use behind the result (Place) */
  constructor(format: string, input: Uint8Array, options: Options, behindBytes = 0) {
    this.format = format;
    this.name = options.name ?? "The compressed data";
    this.limit = options.limit ?? DEFAULT_LIMIT;
    const hint = options.sizeHint ?? 0, isHinted = hint > 0 && hint <= this.limit;
    this.place = isHinted ? options.place?.(hint, behindBytes) ?? null : null;
    this.bytes = this.place?.bytes ?? new Uint8Array(isHinted ? hint : Math.min(this.limit, Math.max(4096, input.length * 4)));
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.length);
  }

  /** Make room for `n` more bytes; call before each write. @returns the buffer, which may be a new one */
  room(n: number): Uint8Array {
    const need = this.length + n;
    if (need > this.bytes.length) {
      if (need > this.limit)
        throw new UserError(`${this.name} unpacks to more than ${this.limit} bytes; give an uncompressed file if it is meant to be that large`);
      const grown = new Uint8Array(Math.min(this.limit, Math.max(need, this.bytes.length * 2)));
      grown.set(this.bytes.subarray(0, this.length));
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    }
    return this.bytes;
  }

  append(piece: Uint8Array): void {
    this.room(piece.length).set(piece, this.length);
    this.length += piece.length;
  }

  fail(what: string): never {
    throw damaged(this.name, this.format, what);
  }

  done(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }
}

/** Repeat `n` bytes from `distance` back, forwards where the ranges overlap. The caller has checked the distance and made room. */
export function copyMatch(out: Uint8Array, view: DataView, at: number, distance: number, n: number): void {
  let from = at - distance;
  const end = at + n;
  if (n > 48 && distance >= n) out.copyWithin(at, from, from + n);
  else if (distance >= 4 && end + 3 <= out.length) for (; at < end; at += 4, from += 4) view.setInt32(at, view.getInt32(from, true), true);  // up to 3 bytes too many, to be written over
  else while (at < end) out[at++] = out[from++] as number;
}

/** The error of data that cannot be what a compressor wrote. */
const damaged = (name: string, format: string, what: string): UserError =>
  new UserError(`${name} is damaged (${format}: ${what}); fetch or build the file again`);
