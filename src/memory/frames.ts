/**
 * The frame table and the frame allocator, shared by all threads. A frame is 4 KiB; its number (mfn) is its byte address >>> 12.
 * A frame lives as long as its reference count: allocation gives one reference (the p2m's, or the heap object's), each mapping adds one.
 */
import { struct, u16, u32 } from "../base/struct.ts";
import type { Views } from "../base/views.ts";
import { lock, unlock } from "./lock.ts";
import { MACHINE } from "./machine.ts";

/** One entry of the frame table. All words are changed by Atomics, or under the allocator's lock while the frame is free. */
export const FRAME = struct(16, {
  /** domid of the owner */
  owner: u16(0),
  flags: u16(2),
  refcount: u32(4),
  /** grows with every write by someone other than the pCPUs' own stores, while `codeCpus` is not zero */
  codeGen: u32(8),
  /** a bit for each pCPU that has decoded code from this frame */
  codeCpus: u32(12),
});
/** FRAME.flags. heap: a hypervisor object; shared: given to a guest by Xen (shared info, grant table); dirty: written since `takeDirty` last asked (a pCPU's stores count where its domain's log is on) [Atomics]; awaited: its bytes are still on their way from another machine, see hypervisor/arrival.ts [Atomics] */
export const FRAME_FLAG = { allocated: 1, heap: 2, shared: 4, dirty: 8, awaited: 16 } as const;

/** Machine memory is used up. Becomes -ENOMEM at a hypercall's exit and a message at the toolstack's. */
export class MachineMemoryExhausted extends Error {
  override name = "MachineMemoryExhausted";
  constructor(asked: number, free: number) { super(`Machine memory is used up: ${asked} frames asked for, ${free} free`); }
}

/** One thread's view of the frame table. */
export class Frames {
  readonly #views: Views;
  readonly #table: number;
  readonly nrFrames: number;
  readonly firstFrame: number;

  constructor(views: Views) {
    this.#views = views;
    this.#table = MACHINE.frameTable.get(views.dv, 0);
    this.nrFrames = MACHINE.nrFrames.get(views.dv, 0);
    this.firstFrame = MACHINE.firstFrame.get(views.dv, 0);
  }

  /** Byte address of a frame's entry; engines address `codeGen` and `codeCpus` through it. */
  entryAt(mfn: number): number { return this.#table + mfn * FRAME.sizeof; }
  get nrFree(): number { return Atomics.load(this.#views.u32, MACHINE.nrFree.at >>> 2); }

  /** Take one zeroed frame. @throws MachineMemoryExhausted */
  alloc(owner: number, flags = 0): number {
    let mfn = 0;
    this.allocEach(1, owner, (m) => { mfn = m; }, flags);
    return mfn;
  }

  /** Take `count` zeroed frames, all or none; `each` is called outside the lock. @throws MachineMemoryExhausted */
  allocEach(count: number, owner: number, each: (mfn: number) => void, flags = 0): void {
    this.allocRuns(count, owner, (first, nr) => { for (let mfn = first; mfn < first + nr; mfn++) each(mfn); }, flags);
  }
  /** The same, told by those that follow each other: a guest has a million frames, and each call counts. */
  allocRuns(count: number, owner: number, run: (first: number, nr: number) => void, flags = 0): void {
    const { i32, u32, u8 } = this.#views, bumpAt = MACHINE.bump.at >>> 2, headAt = MACHINE.freeHead.at >>> 2, freeAt = MACHINE.nrFree.at >>> 2;
    const used: number[] = [];
    lock(i32, MACHINE.frameLock.at);
    const free = u32[freeAt] as number;
    if (free < count) {
      unlock(i32, MACHINE.frameLock.at);
      throw new MachineMemoryExhausted(count, free);
    }
    Atomics.store(u32, freeAt, free - count);
    let left = count;
    for (; left > 0 && u32[headAt] !== 0; left--) {
      const mfn = u32[headAt] as number;
      u32[headAt] = this.#next(mfn);
      used.push(mfn);
    }
    const first = u32[bumpAt] as number;
    u32[bumpAt] = first + left;
    unlock(i32, MACHINE.frameLock.at);
    for (const mfn of used) {
      const at = (mfn << 12) >>> 0;
      u8.fill(0, at, at + 4096);
      this.noteWrite(mfn);
      this.#claim(mfn, 1, owner, flags);
      run(mfn, 1);
    }
    if (left === 0) return;
    this.#claim(first, left, owner, flags);
    run(first, left);
  }

  /** Take `count` frames that follow each other and that nobody has used yet, zeros. @returns the first, or 0 where there are not so many */
  allocRun(count: number, owner: number, flags: number): number {
    const { i32, u32 } = this.#views, bumpAt = MACHINE.bump.at >>> 2;
    lock(i32, MACHINE.frameLock.at);
    const first = u32[bumpAt] as number, isThere = count <= this.nrFrames - first;
    if (isThere) {
      u32[bumpAt] = first + count;
      Atomics.sub(u32, MACHINE.nrFree.at >>> 2, count);
    }
    unlock(i32, MACHINE.frameLock.at);
    if (!isThere) return 0;
    this.#claim(first, count, owner, flags);
    return first;
  }
  /** Frames that follow each other, each with one reference, are somebody else's from now on. */
  hand(first: number, nr: number, owner: number): void { this.#claim(first, nr, owner, 0); }

  /** The free list's link lies in the frame's table entry, not in the frame: giving back memory that was never used must not touch it. 16 bits in `owner`, 8 in the upper half of `flags`. */
  #next(mfn: number): number { const { u16 } = this.#views, at = this.entryAt(mfn) >>> 1; return (u16[at] as number) | (u16[at + 1] as number) >>> 8 << 16; }
  #setNext(mfn: number, next: number): void { const { u16 } = this.#views, at = this.entryAt(mfn) >>> 1; u16[at] = next & 0xffff; u16[at + 1] = next >>> 16 << 8; }
  #claim(first: number, nr: number, owner: number, flags: number): void {
    const { u32 } = this.#views, word = owner | (flags | FRAME_FLAG.allocated | FRAME_FLAG.dirty) << FRAME.flags.at * 8, step = FRAME.sizeof / 4;
    for (let at = this.entryAt(first) >>> 2, end = at + nr * step; at < end; at += step) {
      u32[at] = word;
      Atomics.store(u32, at + (FRAME.refcount.at >>> 2), 1);
    }
  }

  isFrame(mfn: number): boolean { return mfn >= this.firstFrame && mfn < this.nrFrames; }
  owner(mfn: number): number { return this.#views.u16[this.entryAt(mfn) >>> 1] as number; }
  flags(mfn: number): number { return this.#views.u16[(this.entryAt(mfn) + FRAME.flags.at) >>> 1] as number; }
  refcount(mfn: number): number { return Atomics.load(this.#views.u32, (this.entryAt(mfn) + FRAME.refcount.at) >>> 2); }

  /** Take a reference. @returns false when the frame was freed meanwhile, belongs to someone else or has references without number */
  get(mfn: number, owner: number): boolean {
    if (!this.isFrame(mfn)) return false;
    const { u32 } = this.#views, word = (this.entryAt(mfn) + FRAME.refcount.at) >>> 2;
    for (;;) {
      const n = Atomics.load(u32, word);
      if (n === 0 || n >= 0x7fffffff) return false;
      if (Atomics.compareExchange(u32, word, n, n + 1) !== n) continue;
      if (this.owner(mfn) === owner) return true;
      this.put(mfn);
      return false;
    }
  }

  /** Give a reference back; with the last one the frame is free. */
  put(mfn: number): void {
    const { i32, u32 } = this.#views, at = this.entryAt(mfn);
    const before = Atomics.sub(u32, (at + FRAME.refcount.at) >>> 2, 1);
    if (before !== 1) {
      if (before === 0) throw new Error(`Assertion failed: frame ${mfn} given back twice`);
      return;
    }
    lock(i32, MACHINE.frameLock.at);
    this.#setNext(mfn, u32[MACHINE.freeHead.at >>> 2] as number);
    u32[MACHINE.freeHead.at >>> 2] = mfn;
    Atomics.add(u32, MACHINE.nrFree.at >>> 2, 1);
    unlock(i32, MACHINE.frameLock.at);
  }

  codeCpus(mfn: number): number { return Atomics.load(this.#views.u32, (this.entryAt(mfn) + FRAME.codeCpus.at) >>> 2); }
  codeGen(mfn: number): number { return Atomics.load(this.#views.u32, (this.entryAt(mfn) + FRAME.codeGen.at) >>> 2); }
  #flagsWord(mfn: number): number { return (this.entryAt(mfn) + FRAME.flags.at) >>> 1; }
  isDirty(mfn: number): boolean { return (Atomics.load(this.#views.u16, this.#flagsWord(mfn)) & FRAME_FLAG.dirty) !== 0; }
  /** A write to the frame has been made, or is about to be made by a pCPU that reports before it runs on. Always a locked operation: a look first could overtake the write. */
  markDirty(mfn: number): void { Atomics.or(this.#views.u16, this.#flagsWord(mfn), FRAME_FLAG.dirty); }
  /** @returns whether it was written since the last time */
  takeDirty(mfn: number): boolean { return (Atomics.and(this.#views.u16, this.#flagsWord(mfn), ~FRAME_FLAG.dirty) & FRAME_FLAG.dirty) !== 0; }
  isAwaited(mfn: number): boolean { return (Atomics.load(this.#views.u16, this.#flagsWord(mfn)) & FRAME_FLAG.awaited) !== 0; }
  setAwaited(mfn: number): void { Atomics.or(this.#views.u16, this.#flagsWord(mfn), FRAME_FLAG.awaited); }
  /** Its bytes are there. */
  clearAwaited(mfn: number): void { Atomics.and(this.#views.u16, this.#flagsWord(mfn), ~FRAME_FLAG.awaited); }
  /** What was decoded from the frame is void. */
  newCode(mfn: number): void { Atomics.add(this.#views.u32, (this.entryAt(mfn) + FRAME.codeGen.at) >>> 2, 1); }
  /** Say that a frame's bytes were changed by a hand other than a pCPU's own stores, after that. @returns the pCPUs (a bit each) that should look again */
  noteWrite(mfn: number): number {
    this.markDirty(mfn);
    const at = this.entryAt(mfn) >>> 2, cpus = Atomics.load(this.#views.u32, at + (FRAME.codeCpus.at >>> 2));
    if (cpus !== 0) Atomics.add(this.#views.u32, at + (FRAME.codeGen.at >>> 2), 1);
    return cpus;
  }
}
