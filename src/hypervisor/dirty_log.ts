/**
 * Which of a domain's frames were written while it runs: FRAME_FLAG.dirty in the frame table, by frame, so that whoever writes by machine address (back ends through grants,
 * the toolstack) marks it too. A pCPU's TLB lets stores to a clean frame through only after it has marked it; so a frame is clean for certain once all TLBs
 * that let stores through from before are emptied, and its bytes are copied after that.
 *
 * What the hypervisor writes without marking - events into vcpu_info, control blocks and event words; the store's and the console's rings - `pinnedFrames` names. No guest
 * maps another's frames (grant_op.ts, XENMAPSPACE_gmfn_foreign); when one may, its TLB's stores are to be marked too: log off, they are not.
 */
import { FRAME, FRAME_FLAG } from "../memory/frames.ts";
import { P2M_TYPE } from "../memory/p2m.ts";
import type { Domain } from "./domain.ts";
import { DOMAIN, PCPU, PCPU_REQUEST, VCPU } from "./objects.ts";

const RETRY_MS = 1;

/** Begin, or begin a new round: all frames count as clean. @returns when no store from before can go unmarked any more */
export async function startDirtyLog(d: Domain): Promise<void> {
  d.hv.store(DOMAIN.logDirty, d.at, 1);
  takeDirtyFrames(d);
  await emptyTlbs(d);
}
/** The domain's own frames that were written since the last time, marked clean again. Before they are copied: `emptyTlbs`, or the domain must not run. */
export function takeDirtyFrames(d: Domain): { gfn: number; mfn: number }[] {
  const { frames } = d.hv.mm, dirty: { gfn: number; mfn: number }[] = [];
  eachDirty(d, (gfn, mfn) => { if (frames.takeDirty(mfn)) dirty.push({ gfn, mfn }); });
  return dirty;
}
/** Most are clean; one that becomes dirty behind the look is found the next time. A guest may be waiting for this: the flags are read where they lie. */
function eachDirty(d: Domain, visit: (gfn: number, mfn: number) => void): void {
  const { u16 } = d.hv.views, flags = (d.hv.mm.frames.entryAt(0) + FRAME.flags.at) >>> 1, step = FRAME.sizeof >>> 1;
  d.p2m.each((gfn, entry) => { if ((entry & P2M_TYPE.mask) === P2M_TYPE.ram && (u16[flags + (entry >>> 12) * step]! & FRAME_FLAG.dirty) !== 0) visit(gfn, entry >>> 12); });
}
/** How many there are now; they stay dirty. */
export function countDirtyFrames(d: Domain): number {
  let n = 0;
  eachDirty(d, () => { n++; });
  return n;
}
/** End it: stores are not marked any more. */
export const stopDirtyLog = (d: Domain): void => d.hv.store(DOMAIN.logDirty, d.at, 0);

/** Have every pCPU that runs the domain empty its TLBs. @returns when all have: what they stored before is in memory, what they store from now on is marked */
export async function emptyTlbs(d: Domain): Promise<void> {
  const { hv } = d, gen = hv.add(DOMAIN.p2mGen, d.at, 1) + 1;
  for (;;) {
    let isLate = false;
    for (const v of d.vcpus()) {
      const pcpu = v.onPcpu;
      if (pcpu < 0 || (hv.load(PCPU.p2mGen, hv.pcpuAt(pcpu)) - gen | 0) >= 0) continue;
      isLate = true;
      hv.kick(pcpu, PCPU_REQUEST.flushTlb);
    }
    if (!isLate) return;
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
/** Frames that the hypervisor writes without marking them. */
export function pinnedFrames(d: Domain): number[] {
  const { hv } = d, pages = hv.get(DOMAIN.fifoPages, d.at), found: number[] = [];
  for (const v of d.vcpus()) found.push(hv.get(VCPU.vcpuInfoMfn, v.at), hv.get(VCPU.fifoControl, v.at) >>> 12);
  for (let i = hv.get(DOMAIN.nrFifoPages, d.at) - 1; i >= 0; i--) found.push(hv.word({ at: 0 }, pages, i) >>> 12);
  return found.filter((mfn) => mfn !== 0);
}
