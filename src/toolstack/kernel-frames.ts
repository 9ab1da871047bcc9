/** Machine memory that a kernel is unpacked into: what of it the guest has page by page becomes the guest's as it lies there, and is neither copied nor touched for the first time twice. */
import { DOMID } from "../abi/xen.ts";
import type { GfnRange, Place } from "../builder/load.ts";
import type { PvhPlan } from "../builder/pvh.ts";
import type { Domain } from "../hypervisor/domain.ts";
import { FRAME_FLAG } from "../memory/frames.ts";
import type { MachineMemory } from "../memory/machine.ts";

const PAGE = 4096;
type Write = PvhPlan["writes"][number];
/** Frames that follow each other, to be at gfn, gfn + 1 ... */
type Piece = { readonly gfn: number; readonly mfn: number; readonly count: number };

export class KernelFrames {
  readonly #mm: MachineMemory;
  readonly #u8: Uint8Array;
  #first = 0;
  /** of the frames from #first on, those that are spoken for: two segments may be of the same bytes */
  #taken = new Uint8Array(0);

  constructor(mm: MachineMemory) { this.#mm = mm; this.#u8 = new Uint8Array(mm.memory.buffer); }

  /** A place, once; null where machine memory has none in one piece. */
  readonly place = (sizeBytes: number, behindBytes: number): Place | null => {
    const count = Math.ceil((sizeBytes + behindBytes) / PAGE), first = this.#first ? 0 : this.#mm.frames.allocRun(count, DOMID.XEN, FRAME_FLAG.heap);
    if (first === 0) return null;
    this.#first = first; this.#taken = new Uint8Array(count);
    return { bytes: this.#u8.subarray(first * PAGE, first * PAGE + sizeBytes), memory: this.#mm.memory };
  };

  /**
   * Give a domain that has no memory yet what of the plan's writes lies here in whole pages, and everything else back to the machine.
   * @returns what the domain must still be given, and what must then be written, none of which lies here @throws MachineMemoryExhausted
   */
  give(plan: Pick<PvhPlan, "populate" | "writes">, to: Pick<Domain, "adopt">): { readonly populate: readonly GfnRange[]; readonly writes: readonly Write[] } {
    const pieces: Piece[] = [], writes: Write[] = [];
    for (const w of plan.writes) {
      if (w.bytes.buffer !== this.#u8.buffer) { writes.push(w); continue; }
      const piece = this.#wholePages(w);
      if (!piece) { writes.push({ gpa: w.gpa, bytes: w.bytes.slice() }); continue; }
      pieces.push(piece);
      const before = piece.gfn * PAGE - w.gpa, behind = before + piece.count * PAGE;
      for (const [gpa, bytes] of [[w.gpa, w.bytes.slice(0, before)], [w.gpa + behind, w.bytes.slice(behind)]] as const) if (bytes.length > 0) writes.push({ gpa, bytes });
    }
    for (const { gfn, mfn, count } of pieces) to.adopt(gfn, mfn, count);
    this.release();
    return { populate: plan.populate.flatMap((range) => without(range, pieces)), writes };
  }
  /** The whole pages of a write, where they lie here as they will in the guest and nobody else has them. */
  #wholePages({ gpa, bytes }: Write): Piece | null {
    const at = bytes.byteOffset, gfn = Math.ceil(gpa / PAGE), count = Math.floor((gpa + bytes.length) / PAGE) - gfn, mfn = (at + gfn * PAGE - gpa) / PAGE;
    if (count <= 0 || !Number.isInteger(mfn)) return null;
    const from = mfn - this.#first, pages = this.#taken.subarray(from, from + count);
    if (pages.length !== count || pages.some((x) => x !== 0)) return null;
    pages.fill(1);
    return { gfn, mfn, count };
  }
  /** Everything that nobody was given, and is Xen's still, goes back to the machine. */
  release(): void {
    const { frames } = this.#mm, first = this.#first, end = first + this.#taken.length;
    this.#first = 0; this.#taken = new Uint8Array(0);
    for (let mfn = first; mfn < end; mfn++) if (frames.owner(mfn) === DOMID.XEN) frames.put(mfn);
  }
}
/** What of a range no piece covers; pieces by ascending gfn. */
function without(range: GfnRange, pieces: readonly Piece[]): GfnRange[] {
  const left: GfnRange[] = [], end = range.gfn + range.count;
  let at = range.gfn;
  for (const { gfn, count } of pieces) {
    if (gfn + count <= at || gfn >= end) continue;
    if (gfn > at) left.push({ ...range, gfn: at, count: gfn - at });
    at = Math.min(end, gfn + count);
  }
  if (at < end) left.push({ ...range, gfn: at, count: end - at });
  return left;
}
