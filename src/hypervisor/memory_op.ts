/** HYPERVISOR_memory_op of a translated, unprivileged guest - public/memory.h. Long lists are done in pieces: the call runs again. */
import { E2BIG, EINVAL, ENOENT, ENOMEM, ENOSYS, EOPNOTSUPP, EPERM } from "../abi/errno.ts";
import { E820Entry } from "../abi/hvm/e820.ts";
import {
  MEMOP_EXTENT_SHIFT, XENMAPIDX_grant_table_status, XENMAPSPACE, XENMEM, XenAddToPhysmap, XenAddToPhysmapBatch, XenMemoryDomain, XenMemoryMap,
  XenMemoryReservation, XenRemoveFromPhysmap,
} from "../abi/memory.ts";
import { TRACE, TRACE_CLASS } from "../base/trace.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import { GFN_BITS, P2M_RW, P2M_TYPE } from "../memory/p2m.ts";
import { type Args, type Call, copyFieldOut, copyIn, copyOut, num, Refusal, self } from "./call.ts";
import type { Domain } from "./domain.ts";
import { grantFrameGfn, grantFrameMfn, growGrantTable, maxGrantFrames, nrGrantFrames, setGrantFrameGfn } from "./grant_table.ts";
import { DOMAIN } from "./objects.ts";

/** Xen's default for CONFIG domu-max-order. */
const MAX_ORDER = 9;
/** Frames handled before the guest gets its turn back. */
const PIECE = 1024;
const NO_GFN = 0xffffffff, GFN_LIMIT = 2 ** GFN_BITS;
type Op = (c: Call, arg: bigint, start: number, cmd: number) => number;

const reservation = (c: Call, arg: bigint) => {
  const r = copyIn(c, arg, XenMemoryReservation.sizeof), R = XenMemoryReservation;
  return { extents: R.extent_start.get(r, 0), nr: R.nr_extents.get(r, 0), order: R.extent_order.get(r, 0), domid: R.domid.get(r, 0) };
};
/** Walk a reservation's gfns. `each` returns false to stop. @returns extents done, or "again" after setting up the rest */
function extents(c: Call, arg: bigint, start: number, op: number, each: (d: Domain, gfn: number, nrFrames: number) => boolean): number {
  let r: ReturnType<typeof reservation>;
  try { r = reservation(c, arg); } catch (e) { if (e instanceof Refusal) return start; throw e; }
  if (r.nr > 0x3ffffffn || start >= r.nr) return start;
  const d = self(c, r.domid), nr = num(r.nr);
  if (r.order > MAX_ORDER) return start;
  let done = start;
  for (let frames = 0; done < nr; done++, frames += 1 << r.order) {
    if (frames >= PIECE) {
      c.again(((done << MEMOP_EXTENT_SHIFT) | op) >>> 0);
      return 0;
    }
    let gfn: bigint;
    try { gfn = copyIn(c, r.extents + BigInt(done) * 8n, 8).getBigUint64(0, true); } catch (e) { if (e instanceof Refusal) break; throw e; }
    if (gfn >= BigInt(GFN_LIMIT) || !each(d, num(gfn), 1 << r.order)) break;
  }
  return done;
}

/** Take what is at `gfn` away. Its frame goes back only after all TLBs forgot it. @returns whether there was something */
function removePage(c: Call, d: Domain, gfn: number): boolean {
  const entry = clearIf(c, d, gfn, () => true);
  if (entry === 0) return false;
  if (c.hv.trace.on & TRACE_CLASS.memory) c.hv.trace.emit(TRACE.p2mClear, d.domid, c.v.id, gfn, entry >>> 12);
  c.flushTlbs();
  release(c, d, entry);
  return true;
}
/** An entry out of the p2m and of all TLBs: its frame goes back, if it was the domain's. */
function release(c: Call, d: Domain, entry: number): void {
  if ((entry & P2M_TYPE.mask) !== P2M_TYPE.ram) return;
  c.hv.mm.frames.put(entry >>> 12);
  c.hv.add(DOMAIN.totPages, d.at, -1);
}
/** Put a frame at `gfn`, in place of what is there. */
function setPage(c: Call, d: Domain, gfn: number, mfn: number, type: number): void {
  if (c.hv.trace.on & TRACE_CLASS.memory) c.hv.trace.emit(TRACE.p2mSet, d.domid, c.v.id, gfn, mfn, type);
  const old = c.hv.withLock(DOMAIN.p2mLock, d.at, () => {
    const old = d.p2m.set(gfn, mfn, P2M_RW | type);
    c.hv.mm.frames.markDirty(mfn);        // at this gfn it is new
    if (old !== 0) c.hv.add(DOMAIN.p2mGen, d.at, 1);
    return old;
  });
  if (old === 0) return;
  c.flushTlbs();
  release(c, d, old);
}
function populate(c: Call, d: Domain, gfn: number, nrFrames: number): boolean {
  if (gfn + nrFrames > GFN_LIMIT) return false;
  try {
    const replaced = d.replace(gfn, nrFrames);
    if (replaced === null) return false;
    if (replaced.length) c.flushTlbs();
    for (const entry of replaced) release(c, d, entry);
    return true;
  } catch (e) {
    if (e instanceof MachineMemoryExhausted) return false;
    throw e;
  }
}

/** Take a mapping away if it is (still) what `is` says. @returns the entry, or 0; TLBs may hold it */
function clearIf(c: Call, d: Domain, gfn: number, is: (entry: number) => boolean): number {
  return c.hv.withLock(DOMAIN.p2mLock, d.at, () => {
    const entry = d.p2m.lookup(gfn);
    if (entry === 0 || !is(entry)) return 0;
    d.p2m.clear(gfn);
    c.hv.add(DOMAIN.p2mGen, d.at, 1);
    return entry;
  });
}
/** Map one of Xen's frames, away from where it was. */
function mapXenFrame(c: Call, d: Domain, mfn: number, was: number, gpfn: number): void {
  if (was !== NO_GFN && was !== gpfn && clearIf(c, d, was, (entry) => entry >>> 12 === mfn)) c.flushTlbs();
  setPage(c, d, gpfn, mfn, P2M_TYPE.xen);
}
/** Move one of the guest's own frames. */
function moveFrame(c: Call, d: Domain, from: number, gpfn: number): number {
  if (from === gpfn) return d.p2m.lookup(gpfn) ? 0 : -EINVAL;
  c.awaitFrame(from);        // its bytes come to where it was
  const entry = clearIf(c, d, from, (e) => (e & P2M_TYPE.mask) === P2M_TYPE.ram && !c.hv.mm.frames.isAwaited(e >>> 12));
  if (entry === 0) return -EINVAL;
  try {
    setPage(c, d, gpfn, entry >>> 12, P2M_TYPE.ram);
  } catch (e) {
    c.flushTlbs();
    release(c, d, entry);
    throw e;
  }
  c.flushTlbs();
  return 0;
}
/** @see XENMEM_add_to_physmap */
function addToPhysmap(c: Call, d: Domain, space: number, idx: number, gpfn: number): number {
  if (!(gpfn < GFN_LIMIT)) return -EINVAL;
  try {
    switch (space) {
      case XENMAPSPACE.shared_info:
        if (idx !== 0) return -EINVAL;
        mapXenFrame(c, d, d.sharedInfo >>> 12, c.hv.get(DOMAIN.sharedInfoGfn, d.at), gpfn);
        c.hv.set(DOMAIN.sharedInfoGfn, d.at, gpfn);
        return 0;
      case XENMAPSPACE.grant_table:
        if (idx >= XENMAPIDX_grant_table_status || idx >= maxGrantFrames(d)) return -EINVAL;
        if (idx >= nrGrantFrames(d)) growGrantTable(d, idx + 1);
        if (grantFrameMfn(d, idx) === 0) return -EINVAL;
        mapXenFrame(c, d, grantFrameMfn(d, idx), grantFrameGfn(d, idx), gpfn);
        setGrantFrameGfn(d, idx, gpfn);
        return 0;
      case XENMAPSPACE.gmfn: return moveFrame(c, d, idx, gpfn);
      default: return -ENOSYS;
    }
  } catch (e) {
    if (e instanceof MachineMemoryExhausted) return -ENOMEM;
    throw e;
  }
}
function addRange(c: Call, arg: bigint): number {
  const a = copyIn(c, arg, XenAddToPhysmap.sizeof), A = XenAddToPhysmap, space = A.space.get(a, 0);
  if (space === XENMAPSPACE.gmfn_foreign) return -EINVAL;
  const d = self(c, A.domid.get(a, 0)), idx = num(A.idx.get(a, 0)), gpfn = num(A.gpfn.get(a, 0));
  if (space !== XENMAPSPACE.gmfn_range) return addToPhysmap(c, d, space, idx, gpfn);
  /* the header's continuation: the struct itself says how much is left */
  let left = A.size.get(a, 0), i = 0, rc = 0;
  while (left > 0 && i < PIECE && rc === 0) {
    rc = addToPhysmap(c, d, XENMAPSPACE.gmfn, idx + i, gpfn + i);
    if (rc === 0) { i++; left--; }
  }
  A.idx.set(a, 0, BigInt(idx + i));
  A.gpfn.set(a, 0, BigInt(gpfn + i));
  A.size.set(a, 0, left);
  copyOut(c, arg, a);
  if (rc === 0 && left > 0) c.again(XENMEM.add_to_physmap);
  return rc;
}
function addBatch(c: Call, arg: bigint, start: number): number {
  const b = copyIn(c, arg, XenAddToPhysmapBatch.sizeof), B = XenAddToPhysmapBatch, size = B.size.get(b, 0), space = B.space.get(b, 0);
  if (space === XENMAPSPACE.gmfn_range) return -EINVAL;
  const d = self(c, B.domid.get(b, 0));
  if (space === XENMAPSPACE.gmfn_foreign) return -EPERM;
  if (start > size) return -E2BIG;
  for (let i = start; i < size; i++) {
    if (i - start >= PIECE) {
      c.again((i << MEMOP_EXTENT_SHIFT) | XENMEM.add_to_physmap_batch);
      return 0;
    }
    const idx = copyIn(c, B.idxs.get(b, 0) + BigInt(i) * 8n, 8).getBigUint64(0, true), gpfn = copyIn(c, B.gpfns.get(b, 0) + BigInt(i) * 8n, 8).getBigUint64(0, true);
    const err = new DataView(new ArrayBuffer(4));
    err.setInt32(0, addToPhysmap(c, d, space, num(idx), num(gpfn)), true);
    copyOut(c, B.errs.get(b, 0) + BigInt(i) * 4n, err);
  }
  return 0;
}
function memoryMap(c: Call, arg: bigint): number {
  const m = copyIn(c, arg, XenMemoryMap.sizeof), nr = c.hv.get(DOMAIN.nrE820, c.d.at), at = c.hv.get(DOMAIN.e820, c.d.at);
  if (nr === 0) return -ENOSYS;
  if (XenMemoryMap.nr_entries.get(m, 0) < nr) return -EINVAL;
  copyOut(c, XenMemoryMap.buffer.get(m, 0), c.hv.views.u8.slice(at, at + nr * E820Entry.sizeof));
  XenMemoryMap.nr_entries.set(m, 0, nr);
  copyFieldOut(c, arg, m, XenMemoryMap.nr_entries);
  return 0;
}
const aboutDomain = (answer: (d: Domain) => number): Op => (c, arg) => answer(self(c, XenMemoryDomain.domid.get(copyIn(c, arg, XenMemoryDomain.sizeof), 0)));
const refuse = (errno: number): Op => () => -errno;

const OPS: Readonly<Record<number, Op>> = {
  [XENMEM.increase_reservation]: (_c, _arg, start) => start,
  [XENMEM.decrease_reservation]: (c, arg, start, cmd) => extents(c, arg, start, cmd, (d, gfn, nr) => {
    for (let i = 0; i < nr; i++) if (!removePage(c, d, gfn + i)) return false;
    return true;
  }),
  [XENMEM.populate_physmap]: (c, arg, start, cmd) => extents(c, arg, start, cmd, (d, gfn, nr) => populate(c, d, gfn, nr)),
  [XENMEM.maximum_ram_page]: (c) => c.hv.mm.frames.nrFrames - 1,
  [XENMEM.current_reservation]: aboutDomain((d) => d.totPages),
  [XENMEM.maximum_reservation]: aboutDomain((d) => d.maxPages),
  [XENMEM.maximum_gpfn]: aboutDomain((d) => d.p2m.highest()),
  [XENMEM.add_to_physmap]: addRange,
  [XENMEM.add_to_physmap_batch]: addBatch,
  [XENMEM.remove_from_physmap]: (c, arg) => {
    const r = copyIn(c, arg, XenRemoveFromPhysmap.sizeof), d = self(c, XenRemoveFromPhysmap.domid.get(r, 0));
    return removePage(c, d, num(XenRemoveFromPhysmap.gpfn.get(r, 0))) ? 0 : -ENOENT;
  },
  [XENMEM.memory_map]: memoryMap,
  [XENMEM.set_memory_map]: refuse(EPERM),
  [XENMEM.machine_memory_map]: refuse(ENOSYS),
  [XENMEM.machphys_mapping]: refuse(ENOSYS),
  [XENMEM.machphys_mfn_list]: refuse(EPERM),
  [XENMEM.exchange]: refuse(EOPNOTSUPP),
  [XENMEM.claim_pages]: refuse(EPERM),
  [XENMEM.set_pod_target]: refuse(EPERM),
  [XENMEM.get_pod_target]: refuse(EPERM),
  [XENMEM.get_vnumainfo]: refuse(EOPNOTSUPP),
  [XENMEM.acquire_resource]: refuse(EPERM),
};
/** HYPERVISOR_memory_op(cmd, arg). */
export function doMemoryOp(c: Call, a: Args): number {
  const cmd = a.n(0), op = cmd & ((1 << MEMOP_EXTENT_SHIFT) - 1);
  return OPS[op]?.(c, a.p(1), cmd >>> MEMOP_EXTENT_SHIFT, op) ?? -ENOSYS;
}
