/** Which frames hold decoded code, in the frame table: one pCPU's view. Meets x86/engine.ts CodeFrames. */
import type { Views } from "../base/views.ts";
import { FRAME, type Frames } from "./frames.ts";

export function codeFrames(views: Views, frames: Frames, pcpu: number): { mark(mfn: number): void; unmark(mfn: number): void; wrote(mfn: number): void; generation(mfn: number): number } {
  const bit = 1 << pcpu, word = (mfn: number) => (frames.entryAt(mfn) + FRAME.codeCpus.at) >>> 2;
  return {
    mark: mfn => { Atomics.or(views.i32, word(mfn), bit); },
    unmark: mfn => { Atomics.and(views.i32, word(mfn), ~bit); },
    /** The others' bits are taken back as well: they find the generation changed before they use what they have, and mark again if they decode again. */
    wrote: mfn => { if (Atomics.load(views.i32, word(mfn)) & ~bit) { frames.noteWrite(mfn); Atomics.and(views.i32, word(mfn), bit); } },
    generation: mfn => frames.codeGen(mfn),
  };
}
