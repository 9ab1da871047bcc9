/**
 * Grant tables, version 1. The table is the guest's to write; Xen reads an entry, changes its `reading` and `writing` flags by
 * compare-and-swap of the first four bytes, and remembers in ACTIVE what is in use. All under the granting domain's grantLock.
 * @see public/grant_table.h
 */
import { EINVAL, ENOSYS } from "../abi/errno.ts";
import { GNTST, GTF, GrantEntryV1 } from "../abi/grant_table.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import { P2M_RW, P2M_TYPE, P2M_W } from "../memory/p2m.ts";
import type { Domain } from "./domain.ts";
import { ACTIVE, DOMAIN } from "./objects.ts";

const ENTRIES_PER_FRAME = 4096 / GrantEntryV1.sizeof;
const PIN = { read: 1, write: 0x10000, max: 0xffff } as const;

/** Frames of table the domain has. */
export const nrGrantFrames = (d: Domain): number => d.hv.load(DOMAIN.nrGrantFrames, d.at);
/** Frames of table it may have. */
export const maxGrantFrames = (d: Domain): number => d.hv.get(DOMAIN.maxGrantFrames, d.at);

/** Have at least `nr` frames of table. @returns 0, or GNTST_* when there are no more to be had */
export function growGrantTable(d: Domain, nr: number): number {
  const { hv } = d;
  if (nr > maxGrantFrames(d)) return GNTST.general_error;
  return hv.withLock(DOMAIN.grantLock, d.at, () => {
    try {
      for (let i = nrGrantFrames(d); i < nr; i++) {
        const active = hv.allocPage();
        let table: number;
        try { table = hv.allocPage(); } catch (e) { hv.freePage(active); throw e; }
        hv.setWord(DOMAIN.grantActive, d.at, i, active);
        hv.setWord(DOMAIN.grantMfn, d.at, i, table >>> 12);
        hv.store(DOMAIN.nrGrantFrames, d.at, i + 1);
      }
      return GNTST.okay;
    } catch (e) {
      if (e instanceof MachineMemoryExhausted) return GNTST.no_space;
      throw e;
    }
  });
}
/** The i-th frame of its table, or 0. */
export const grantFrameMfn = (d: Domain, i: number): number => (i >= 0 && i < nrGrantFrames(d) ? d.hv.word(DOMAIN.grantMfn, d.at, i) : 0);
/** Where the guest mapped it, or 0xffffffff. */
export const grantFrameGfn = (d: Domain, i: number): number => d.hv.word(DOMAIN.grantGfn, d.at, i);
/** Remember where the guest mapped it. */
export const setGrantFrameGfn = (d: Domain, i: number, gfn: number): void => d.hv.setWord(DOMAIN.grantGfn, d.at, i, gfn);

/** GNTTABOP_set_version. Version 2 is not offered, as with gnttab=max-ver:1. */
export function setVersion(version: number): number {
  return version === 1 ? 0 : version === 2 ? -ENOSYS : -EINVAL;
}

/** A grant in use: what `unmapGrant` needs to give it back. */
export type GrantMapping = { domain: Domain; ref: number; mfn: number; isReadonly: boolean };

const entryAt = (d: Domain, ref: number): number =>
  ((d.hv.word(DOMAIN.grantMfn, d.at, Math.floor(ref / ENTRIES_PER_FRAME)) << 12) >>> 0) + (ref % ENTRIES_PER_FRAME) * GrantEntryV1.sizeof;
const activeAt = (d: Domain, ref: number): number => d.hv.word(DOMAIN.grantActive, d.at, Math.floor(ref / ENTRIES_PER_FRAME)) + (ref % ENTRIES_PER_FRAME) * ACTIVE.sizeof;

/** The gfn that a grant names now, or -1; the guest may change it at any time. */
export function grantedGfn(d: Domain, ref: number): number {
  if (!(ref >= 0 && ref < nrGrantFrames(d) * ENTRIES_PER_FRAME)) return -1;
  const { u32 } = d.hv.views, entry = entryAt(d, ref), flags = Atomics.load(u32, entry >>> 2) & GTF.type_mask;
  return flags === GTF.permit_access ? Atomics.load(u32, (entry + GrantEntryV1.frame.at) >>> 2) : -1;
}
/** Say in the guest's entry that it is in use. @returns GNTST_* */
function setStatus(d: Domain, entry: number, forDomid: number, isReadonly: boolean, isPinned: boolean): number {
  const { u32 } = d.hv.views, word = entry >>> 2;
  for (let tries = 0; tries < 5; tries++) {
    const combo = Atomics.load(u32, word), flags = combo & 0xffff, domid = combo >>> 16;
    if (!isPinned && ((flags & GTF.type_mask) !== GTF.permit_access || domid !== forDomid)) return GNTST.general_error;
    let now = flags | GTF.reading;
    if (!isReadonly) {
      if (flags & GTF.readonly) return GNTST.general_error;
      now |= GTF.writing;
    }
    if (Atomics.compareExchange(u32, word, combo, ((domid << 16) | now) >>> 0) === combo) return GNTST.okay;
  }
  return GNTST.general_error; /* the guest will not hold its entry still */
}
function clearStatus(d: Domain, ref: number, pin: number): void {
  const { u32 } = d.hv.views, word = entryAt(d, ref) >>> 2;
  if (pin < PIN.write) Atomics.and(u32, word, ~GTF.writing);
  if (pin === 0) Atomics.and(u32, word, ~GTF.reading);
}

/**
 * Use a grant: pin the frame it names for domain `forDomid`.
 * @returns the mapping, or a GNTST_* that says why not
 */
export function mapGrant(d: Domain, ref: number, forDomid: number, isReadonly: boolean): GrantMapping | number {
  const { hv } = d, { dv, u32 } = hv.views;
  return hv.withLock(DOMAIN.grantLock, d.at, () => {
    if (!(ref >= 0 && ref < nrGrantFrames(d) * ENTRIES_PER_FRAME)) return GNTST.bad_gntref;
    const active = activeAt(d, ref), entry = entryAt(d, ref), pin = ACTIVE.pin.get(dv, active);
    if (isReadonly ? (pin & PIN.max) === PIN.max : pin >>> 16 === PIN.max) return GNTST.no_device_space;
    /* with only readers, a writer asks the guest's entry anew */
    const needs = pin === 0 || (!isReadonly && pin < PIN.write);
    if (needs) {
      const status = setStatus(d, entry, forDomid, isReadonly, pin !== 0);
      if (status !== GNTST.okay) return status;
    }
    let mfn = ACTIVE.mfn.get(dv, active);
    if (pin === 0) {
      const gfn = Atomics.load(u32, (entry + GrantEntryV1.frame.at) >>> 2);
      mfn = hv.withLock(DOMAIN.p2mLock, d.at, () => {
        const p2m = d.p2m.lookup(gfn), right = isReadonly ? P2M_RW & ~P2M_W : P2M_RW;
        return (p2m & right) === right && (p2m & P2M_TYPE.mask) === P2M_TYPE.ram && hv.mm.frames.get(p2m >>> 12, d.domid) ? p2m >>> 12 : 0;
      });
      if (mfn === 0) {
        clearStatus(d, ref, 0);
        return GNTST.bad_page;
      }
      ACTIVE.mfn.set(dv, active, mfn);
    } else if (!hv.mm.frames.get(mfn, d.domid)) {
      clearStatus(d, ref, pin);
      return GNTST.general_error;
    }
    ACTIVE.pin.set(dv, active, pin + (isReadonly ? PIN.read : PIN.write));
    return { domain: d, ref, mfn, isReadonly };
  });
}
/** Give a grant back; once for each mapGrant. */
export function unmapGrant(m: GrantMapping): void {
  const d = m.domain, { hv } = d;
  if (hv.domain(d.domid)?.at === d.at) {
    hv.withLock(DOMAIN.grantLock, d.at, () => {
      if (nrGrantFrames(d) * ENTRIES_PER_FRAME <= m.ref) return;
      const active = activeAt(d, m.ref), pin = ACTIVE.pin.get(hv.views.dv, active) - (m.isReadonly ? PIN.read : PIN.write);
      ACTIVE.pin.set(hv.views.dv, active, pin);
      clearStatus(d, m.ref, pin);
    });
  }
  hv.mm.frames.put(m.mfn);
}
/** At the domain's end. */
export function freeGrantTable(d: Domain): void {
  const { hv } = d, nr = nrGrantFrames(d);
  hv.store(DOMAIN.nrGrantFrames, d.at, 0);
  for (let i = 0; i < nr; i++) {
    hv.mm.frames.put(hv.word(DOMAIN.grantMfn, d.at, i));
    hv.freePage(hv.word(DOMAIN.grantActive, d.at, i));
  }
}
