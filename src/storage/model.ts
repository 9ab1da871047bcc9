/**
 * A plain array that says what a disk should hold, for tests and the fuzzer: random requests go to both. Each sector that is written holds the number of its
 * write, so that a sector found later says when it was written.
 */
import type { Disk } from "./disk.ts";

/** What a sector may hold after a crash: what it held at the last flush, and all that came after. `ANY` after a discard. */
const ANY = -1;

/** What a disk should hold. */
export class DiskModel {
  /** write number by sector; 0 zeros, ANY anything */
  readonly now: Int32Array;
  /** by sector: what it held since the last flush that has returned, oldest first */
  readonly since: Map<number, number[]> = new Map();
  nrWrites = 0;
  readonly #random: () => number;

  /** @param start write numbers that the disk holds already; see `sectorOf` */
  constructor(sizeBytes: number, random: () => number, start: Int32Array | null = null) {
    this.now = start ? start.slice() : new Int32Array(sizeBytes / 512);
    this.#random = random;
  }
  #set(sector: number, value: number): void {
    const since = this.since.get(sector);
    if (since) since.push(value); else this.since.set(sector, [this.now[sector]!, value]);
    this.now[sector] = value;
  }
  /** One random request, at random sectors; most are small, some span many clusters. */
  async step(disk: Disk): Promise<void> {
    const r = this.#random(), nrSectors = this.now.length, n = Math.min(nrSectors, 1 + Math.floor(this.#random() ** 4 * 300)), at = Math.floor(this.#random() * (nrSectors - n + 1));
    if (r < 0.55) await this.write(disk, at, n);
    else if (r < 0.75) await this.verify(disk, at, n);
    else if (r < 0.85) { for (let s = at; s < at + n; s++) this.#set(s, 0); await disk.writeZeros(at * 512, n * 512); }
    else if (r < 0.92) { for (let s = at; s < at + n; s++) this.#set(s, ANY); await disk.discard(at * 512, n * 512); }
    else await this.flush(disk);
  }
  async write(disk: Disk, at: number, n: number): Promise<void> {
    const nr = ++this.nrWrites, bytes = new Uint8Array(n * 512);
    for (let s = 0; s < n; s++) { sectorOf(nr, at + s, bytes.subarray(s * 512, s * 512 + 512)); this.#set(at + s, nr); }
    await disk.write(at * 512, bytes);
  }
  async flush(disk: Disk): Promise<void> {
    const before = [...this.since].map(([s, values]) => [s, values.length] as const);
    await disk.flush();
    for (const [s, n] of before) {
      const left = this.since.get(s)!.slice(n - 1);
      if (left.length > 1) this.since.set(s, left); else this.since.delete(s);
    }
  }
  /** Compare a range with what it should hold. @throws Error that names the sector */
  async verify(disk: Disk, at = 0, n = this.now.length): Promise<void> {
    const bytes = new Uint8Array(n * 512);
    await disk.read(at * 512, bytes);
    for (let s = 0; s < n; s++) {
      const found = writeOf(bytes.subarray(s * 512, s * 512 + 512), at + s), wanted = this.now[at + s]!;
      if (wanted === ANY ? found === null : found !== wanted) throw new Error(`Sector ${at + s} holds ${said(found)}, not write ${wanted}`);
    }
  }
  /** The same after a crash: any state since the last flush will do. */
  async verifyCrashed(disk: Disk, now = this.now, since = this.since): Promise<void> {
    const bytes = new Uint8Array(now.length * 512);
    await disk.read(0, bytes);
    for (let s = 0; s < now.length; s++) {
      const found = writeOf(bytes.subarray(s * 512, s * 512 + 512), s), allowed = since.get(s) ?? [now[s]!];
      if (found === null || !(allowed.includes(found) || allowed.includes(ANY))) throw new Error(`Sector ${s} holds ${said(found)}, and could hold ${allowed.join(", ")}`);
    }
  }
}

const said = (found: number | null): string => (found === null ? "nothing anybody wrote" : `write ${found}`);

/** What write `nr` leaves in a sector; 0 is zeros. */
export function sectorOf(nr: number, sector: number, into: Uint8Array): void {
  into.fill(0);
  if (nr === 0) return;
  const words = new Uint32Array(into.buffer, into.byteOffset, 128);
  for (let i = 0; i < 128; i += 2) { words[i] = nr; words[i + 1] = sector; }
}
/** Whose write a sector holds; null: nobody's whole one. */
export function writeOf(bytes: Uint8Array, sector: number): number | null {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, 128), nr = words[0]!;
  for (let i = 0; i < 128; i += 2) if (words[i] !== nr || words[i + 1] !== (nr === 0 ? 0 : sector)) return null;
  return nr;
}
