/**
 * A file as a bad day has it, for tests: every change is kept in a log, from which any power cut can be played; operations can be delayed and made to fail.
 */
import { type ByteFile, DiskError, type DiskFault } from "./disk.ts";
import { MemoryFile } from "./file_memory.ts";

/** `flush` ends one flush: all changes before log index `covers` are on stable storage. */
export type Change =
  | { readonly kind: "write"; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly sizeBytes: number }
  | { readonly kind: "punch"; readonly at: number; readonly lengthBytes: number }
  | { readonly kind: "flush"; readonly covers: number };
/** How a `FaultyFile` misbehaves. */
export type FaultyOptions = {
  /** asked before each operation; what it returns is thrown */
  fault?: (kind: "read" | "write" | "flush" | "truncate" | "punch", at: number, lengthBytes: number) => DiskFault | null;
  /** awaited before and after each operation, so that operations overlap and overtake */
  delay?: () => Promise<void>;
};

/** Numbers from 0 up to 1, the same for the same seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), s | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Wraps a file in memory. A write takes effect at once for later reads, as in a page cache; what a power cut leaves of it is `afterPowerCut`'s to say. */
export class FaultyFile implements ByteFile {
  readonly name: string;
  readonly isReadonly = false;
  readonly log: Change[] = [];
  readonly file: MemoryFile;
  /** what the file held before the log began */
  readonly #before: Uint8Array;
  readonly options: FaultyOptions;

  constructor(file: MemoryFile, options: FaultyOptions = {}) {
    this.name = file.name;
    this.file = file;
    this.#before = file.bytes();
    this.options = options;
  }
  get sizeBytes(): number {
    return this.file.sizeBytes;
  }
  async #around(kind: "read" | "write" | "flush" | "truncate" | "punch", at: number, lengthBytes: number, act: () => void): Promise<void> {
    await this.options.delay?.();
    const fault = this.options.fault?.(kind, at, lengthBytes);
    if (fault) throw new DiskError(fault, `${this.name}: ${kind} of ${lengthBytes} bytes at ${at} fails, as asked`);
    act();
    await this.options.delay?.();
  }
  read(at: number, into: Uint8Array): Promise<void> {
    return this.#around("read", at, into.length, () => this.file.get(at, into));
  }
  write(at: number, from: Uint8Array): Promise<void> {
    return this.#around("write", at, from.length, () => { this.log.push({ kind: "write", at, bytes: from.slice() }); this.file.put(at, from); });
  }
  async flush(): Promise<void> {
    const covers = this.log.length;
    await this.#around("flush", 0, 0, () => this.log.push({ kind: "flush", covers }));
  }
  truncate(sizeBytes: number): Promise<void> {
    return this.#around("truncate", 0, sizeBytes, () => { this.log.push({ kind: "truncate", sizeBytes }); this.file.cut(sizeBytes); });
  }
  punch(at: number, lengthBytes: number): Promise<void> {
    return this.#around("punch", at, lengthBytes, () => { this.log.push({ kind: "punch", at, lengthBytes }); this.file.zero(at, lengthBytes); });
  }
  async close(): Promise<void> {}

  /**
   * What the file may hold when power fails after the first `nrChanges` of the log: what a flush covers is whole; of the rest each change is there, missing,
   * or torn between sectors of 512 bytes.
   */
  afterPowerCut(nrChanges: number, random: () => number): MemoryFile {
    const left = new MemoryFile(this.name, this.#before);
    let stable = 0;
    for (let i = 0; i < nrChanges; i++) {
      const c = this.log[i]!;
      if (c.kind === "flush") stable = Math.max(stable, c.covers);
    }
    const mood = random();  // some cuts lose nearly all, some nearly nothing
    for (let i = 0; i < nrChanges; i++) {
      const c = this.log[i]!;
      if (c.kind === "flush" || (i >= stable && random() < mood)) continue;
      if (c.kind === "truncate") left.cut(c.sizeBytes);
      else if (c.kind === "punch") left.zero(c.at, c.lengthBytes);
      else if (i < stable || random() < 0.7) left.put(c.at, c.bytes);
      else for (let from = 0; from < c.bytes.length; ) {
        const n = Math.min(512 - ((c.at + from) % 512), c.bytes.length - from);
        if (random() < 0.5) left.put(c.at + from, c.bytes.subarray(from, from + n));
        from += n;
      }
    }
    return left;
  }
}
