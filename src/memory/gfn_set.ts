/** Sets of guest frame numbers: a bit each where there are any. */
export class GfnSet {
  readonly #chunks = new Map<number, Uint8Array>();
  has(gfn: number): boolean { return ((this.#chunks.get(gfn >>> 15)?.[gfn >>> 3 & 4095] ?? 0) >>> (gfn & 7) & 1) !== 0; }
  size = 0;
  add(gfn: number): void {
    if (this.has(gfn)) return;
    this.size++;
    this.#chunk(gfn)[gfn >>> 3 & 4095]! |= 1 << (gfn & 7);
  }
  delete(gfn: number): void {
    if (!this.has(gfn)) return;
    this.size--;
    this.#chunk(gfn)[gfn >>> 3 & 4095]! &= ~(1 << (gfn & 7));
  }
  #chunk(gfn: number): Uint8Array {
    const known = this.#chunks.get(gfn >>> 15), chunk = known ?? new Uint8Array(4096);
    if (!known) this.#chunks.set(gfn >>> 15, chunk);
    return chunk;
  }
  /** Those that `holds` of. */
  filter(holds: (gfn: number) => boolean): number[] {
    const found: number[] = [];
    for (const [key, chunk] of this.#chunks) {
      for (let i = 0; i < chunk.length; i++) {
        const bits = chunk[i]!;
        if (bits !== 0) for (let bit = 0; bit < 8; bit++) if (bits >>> bit & 1 && holds(key * 32768 + i * 8 + bit)) found.push(key * 32768 + i * 8 + bit);
      }
    }
    return found;
  }
}
