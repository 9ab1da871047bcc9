/**
 * Pages that come after their domain has begun to run here: post-copy. Their frames are there, marked FRAME_FLAG.awaited, and no TLB takes one (Platform.frameOf): a vCPU that needs one leaves with
 * EXIT.await, stands still with VPF.awaiting, and makes its instruction again when the page has come; in the middle of what cannot be made again its pCPU waits (PvhPlatform.awaitFrame).
 *
 * This is the main thread's part: it hears what is needed, passes that on, and puts pages in their place. Back ends ask here before they touch what a guest granted them.
 */
import { GFN_BITS } from "../memory/p2m.ts";
import { GfnSet } from "../memory/gfn_set.ts";
import type { Domain } from "./domain.ts";
import { grantedGfn } from "./grant_table.ts";
import { DOMAIN, VCPU, VPF } from "./objects.ts";

/** One a domain whose pages are on their way; Dom0.arrivals has it. */
export class Arrival {
  readonly #d: Domain;
  /** those that have not come */
  readonly #left = new GfnSet();
  /** those that somebody needs now, each told of once */
  readonly #wanted = new GfnSet();
  #waiting: { readonly gfns: Set<number>; readonly resolve: () => void; readonly reject: (why: Error) => void }[] = [];
  #isOver = false;
  /** Told of pages that somebody waits for. */
  onWanted: (gfns: readonly number[]) => void = () => {};
  /** how often somebody had to wait */
  nrWaits = 0;

  constructor(d: Domain) { this.#d = d; }

  /** Pages still to come. */
  get nrLeft(): number { return this.#left.size; }
  get left(): number[] { return this.#left.filter(() => true); }
  /** `end` or `lose` was called */
  get isOver(): boolean { return this.#isOver; }
  /** Mark a page of the domain, which does not run yet. @returns false where it has no memory there */
  expect(gfn: number): boolean {
    const mfn = this.#d.p2m.ram(gfn);
    if (mfn === 0) return false;
    this.#d.hv.store(DOMAIN.isArriving, this.#d.at, 1);
    this.#d.hv.mm.frames.setAwaited(mfn);
    this.#left.add(gfn);
    return true;
  }
  /** Look what its vCPUs have come to need. */
  poll(): void {
    if (this.#isOver) return;
    const gfns: number[] = [];
    for (const v of this.#d.vcpus()) {
      const gfn = this.#d.hv.load(VCPU.awaits, v.at) - 1;
      if (gfn >= 0) gfns.push(gfn);
    }
    this.#want(gfns);
  }
  #want(gfns: readonly number[]): void {
    const fresh = gfns.filter((gfn) => this.#left.has(gfn) && !this.#wanted.has(gfn));
    for (const gfn of fresh) this.#wanted.add(gfn);
    this.nrWaits += fresh.length;
    if (fresh.length) this.onWanted(fresh);
  }
  /** What somebody waits for now: to be asked for again where the one who was asked is gone. */
  get wanted(): readonly number[] { return this.#wanted.filter((gfn) => this.#left.has(gfn)); }
  /** Are the pages of these grants there? @returns when they are, or null: now; rejects when they will never be */
  missing(refs: Iterable<number>): Promise<void> | null {
    const gfns = new Set<number>();
    if (!this.#isOver && this.nrLeft !== 0) for (const ref of refs) {
      const gfn = grantedGfn(this.#d, ref);
      if (gfn >= 0 && this.#left.has(gfn) && this.#d.hv.mm.frames.isAwaited(this.#d.p2m.ram(gfn))) gfns.add(gfn);
    }
    if (gfns.size === 0) return null;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {});
    this.#waiting.push({ gfns, resolve, reject });
    this.#want([...gfns]);
    return promise;
  }
  /** A page has come: its bytes, or null for one of zeros. What the guest has given back meanwhile, or has as something else, goes nowhere. */
  place(gfn: number, bytes: Uint8Array | null): void {
    if (this.#isOver || !(gfn >= 0 && gfn < 2 ** GFN_BITS) || !this.#left.has(gfn)) return;
    const d = this.#d, { hv } = d, { frames } = hv.mm, mfn = hv.withLock(DOMAIN.p2mLock, d.at, () => {
      const found = d.p2m.ram(gfn);
      return found !== 0 && frames.isAwaited(found) && frames.get(found, d.domid) ? found : 0;
    });
    if (mfn !== 0) {
      const at = (mfn << 12) >>> 0;
      if (bytes) hv.views.u8.set(bytes, at);
      else hv.views.u8.fill(0, at, at + 4096);
      const cpus = frames.noteWrite(mfn);
      if (cpus !== 0) hv.codeWritten(mfn, cpus);
      frames.clearAwaited(mfn);
      frames.put(mfn);
    }
    this.#left.delete(gfn);
    if (this.nrLeft === 0) hv.store(DOMAIN.isArriving, d.at, 0);
    this.#rouse(gfn);
    for (const w of this.#waiting) if (w.gfns.delete(gfn) && w.gfns.size === 0) w.resolve();
    this.#waiting = this.#waiting.filter(({ gfns }) => gfns.size !== 0);
  }
  /** Let the vCPUs that wait for it look again. */
  #rouse(gfn: number): void {
    const { hv } = this.#d, { i32 } = hv.views;
    for (const v of this.#d.vcpus()) {
      const word = (v.at + VCPU.awaits.at) >>> 2;
      if (Atomics.compareExchange(i32, word, gfn + 1, 0) !== gfn + 1) continue;
      Atomics.notify(i32, word);
      v.rouse(VPF.awaiting);
    }
  }
  /** The rest will never come: the guest is not to run on without it. */
  lose(why: string): void {
    if (this.#isOver || this.nrLeft === 0) return;
    this.#d.crash(why);
    this.end();
  }
  /** The domain is about to be taken down, or has all: nothing is put anywhere any more. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const { reject } of this.#waiting) reject(new Error("The page did not come"));
    this.#waiting = [];
  }
}
