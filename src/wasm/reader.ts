/** Reads what Bytes (writer.ts) writes: LEB128 numbers, and bytes as they are. Reading on behind the end, or a number that does not end, is a RangeError. */
export class Reader {
  readonly bytes: Uint8Array;
  at: number;
  constructor(bytes: Uint8Array, at = 0) { this.bytes = bytes; this.at = at; }
  get isAtEnd(): boolean { return this.at >= this.bytes.length; }
  u8(): number { if (this.isAtEnd) throw new RangeError("end"); return this.bytes[this.at++]!; }
  u32(): number {
    let x = 0;
    for (let scale = 1; scale < 2 ** 35; scale *= 128) { const y = this.u8(); x += (y & 127) * scale; if (y < 128) return x; }
    throw new RangeError("number");
  }
  s(): number {
    let x = 0;
    for (let scale = 1; scale < 2 ** 49; scale *= 128) { const y = this.u8(); x += (y & 127) * scale; if (y < 128) return y & 64 ? x - scale * 128 : x; }
    throw new RangeError("number");
  }
  take(n: number): Uint8Array { if (n > this.bytes.length - this.at) throw new RangeError("end"); return this.bytes.subarray(this.at, this.at += n); }
  /** As many as a number says that comes first. */
  list<T>(read: () => T): T[] { const n = this.u32(); if (n > this.bytes.length - this.at) throw new RangeError("end"); return Array.from({ length: n }, read); }
}
