/** For tests of this room: a file and a disk in memory, seeded randomness. */
import { type ByteFile, checkRange, type Disk, DiskError } from "./disk.ts";

/** A file in memory. `limitBytes`: beyond it, `nospace`. `ops`: what was done, in order. */
export class FixtureFile implements ByteFile {
  name = "fixture";
  isReadonly = false;
  bytes: Uint8Array;
  limitBytes = Number.POSITIVE_INFINITY;
  ops: { op: "write" | "flush" | "truncate" | "punch"; at: number; lengthBytes: number; bytes?: Uint8Array }[] = [];
  constructor(bytes: Uint8Array = new Uint8Array(0)) {
    this.bytes = bytes;
  }
  get sizeBytes(): number { return this.bytes.length; }
  #size(n: number): void {
    if (n > this.limitBytes) throw new DiskError("nospace", `${this.name}: full`);
    const old = this.bytes;
    this.bytes = new Uint8Array(n);
    this.bytes.set(old.subarray(0, n));
  }
  async read(at: number, into: Uint8Array): Promise<void> {
    into.fill(0);
    into.set(this.bytes.subarray(at, at + into.length));
  }
  async write(at: number, from: Uint8Array): Promise<void> {
    if (at + from.length > this.bytes.length) this.#size(at + from.length);
    this.bytes.set(from, at);
    this.ops.push({ op: "write", at, lengthBytes: from.length, bytes: from.slice() });
  }
  async flush(): Promise<void> { this.ops.push({ op: "flush", at: 0, lengthBytes: 0 }); }
  async truncate(n: number): Promise<void> {
    this.#size(n);
    this.ops.push({ op: "truncate", at: n, lengthBytes: 0 });
  }
  async punch(at: number, lengthBytes: number): Promise<void> {
    this.bytes.fill(0, at, at + lengthBytes);
    this.ops.push({ op: "punch", at, lengthBytes });
  }
  async close(): Promise<void> {}
}

/** A disk in memory with a volatile cache: `crash` forgets what was not flushed. */
export class FixtureDisk implements Disk {
  name = "fixture";
  format = "fixture";
  physicalSectorBytes = 4096;
  isReadonly = false;
  onResize = null;
  stable: Uint8Array;
  cache: Uint8Array;
  nrFlushes = 0;
  constructor(sizeBytes: number) {
    this.stable = new Uint8Array(sizeBytes);
    this.cache = new Uint8Array(sizeBytes);
  }
  get sizeBytes(): number { return this.cache.length; }
  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    into.set(this.cache.subarray(offset, offset + into.length));
  }
  async write(offset: number, from: Uint8Array): Promise<void> {
    checkRange(this, offset, from.length);
    this.cache.set(from, offset);
  }
  async flush(): Promise<void> {
    this.nrFlushes++;
    this.stable.set(this.cache);
  }
  crash(): void { this.cache.set(this.stable); }
  async discard(offset: number, n: number): Promise<void> { await this.writeZeros(offset, n); }
  async writeZeros(offset: number, n: number): Promise<void> {
    checkRange(this, offset, n);
    this.cache.fill(0, offset, offset + n);
  }
  async resize(): Promise<void> {}
  async close(): Promise<void> {}
}

/** mulberry32: the same numbers for the same seed, 0 up to and without `below`. */
export function random(seed: number): (below: number) => number {
  let a = seed >>> 0;
  return (below) => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor(((t ^ (t >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}
/** Random bytes. */
export const randomBytes = (next: (below: number) => number, n: number): Uint8Array<ArrayBuffer> => Uint8Array.from({ length: n }, () => next(256));
/** One that is not whole any more: some bytes changed, cut or repeated. */
export function mutated(bytes: Uint8Array, next: (below: number) => number): Uint8Array {
  let out = bytes.slice();
  for (let n = 1 + next(4); n > 0; n--) {
    const at = next(out.length + 1);
    switch (next(5)) {
      case 0: out = out.slice(0, at); break;
      case 1: out = Uint8Array.of(...out.subarray(0, at), ...randomBytes(next, 1 + next(16)), ...out.subarray(at)); break;
      case 2: if (at + 4 <= out.length) out.set([[255, 255, 255, 255], [0, 0, 0, 0], [0x7f, 255, 255, 255], [0, 0, 0, 1]][next(4)]!, at); break;
      default: if (at < out.length) out[at] = next(256);
    }
  }
  return out;
}
/** Throw where the first byte differs; a whole array's difference would take a minute to print. */
export function sameBytes(got: Uint8Array, want: Uint8Array, what = "bytes"): void {
  const at = got.findIndex((b, i) => b !== want[i]);
  if (at >= 0 || got.length !== want.length) throw new Error(`${what}: ${got.length} and ${want.length} bytes differ, first at ${at}: ${got[at]} instead of ${want[at]}`);
}
