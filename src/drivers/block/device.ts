/** What the rings of one block device share: disk, pages, buffers, and what is done when the disk cannot. */
import { type Disk, DiskError } from "../../storage/disk.ts";
import { Buffers } from "./buffers.ts";
import type { BlockPages } from "./pages.ts";

/** What is done when a disk's medium is full under a guest's write: keep the request and try again until there is room, or tell the guest of an error. */
export type OnFull = "wait" | "error";
/** Time between tries. */
const FULL_RETRY_MS = 500;
/** Sentences about a guest's bad requests before the log hears no more of them. */
const COMPLAINTS = 3;
/** Sentences about a disk's errors: the guest may ask for a bad sector again and again. */
const ERRORS = 16;

export type BlockCounters = { read: number; write: number; flush: number; discard: number; errors: number; readBytes: number; writtenBytes: number; /** reads and writes as the disk saw them */ operations: number };

export class BlockDevice {
  readonly name: string;
  readonly disk: Disk;
  readonly isReadonly: boolean;
  /** discards are passed on; else they are not understood */
  readonly discards: boolean;
  readonly pages: BlockPages;
  readonly buffers = new Buffers();
  readonly counters: BlockCounters;
  readonly onBroken: (why: string) => void;
  readonly #onFull: OnFull;
  readonly #log: (sentence: string) => void;
  /** wakes those who wait for room */
  readonly #sleepers = new Set<() => void>();
  #isClosing = false;
  #isRefusing = false;
  #nrActing = 0;
  #idle: (() => void) | null = null;
  #nrComplaints = 0;
  #nrErrors = 0;
  /** requests that wait until the medium has room */
  nrWaitingForRoom = 0;

  constructor(o: { name: string; disk: Disk; isReadonly: boolean; discards: boolean; pages: BlockPages; onFull: OnFull; counters: BlockCounters; log: (sentence: string) => void; onBroken: (why: string) => void }) {
    this.name = o.name;
    this.disk = o.disk;
    this.isReadonly = o.isReadonly;
    this.discards = o.discards;
    this.pages = o.pages;
    this.counters = o.counters;
    this.onBroken = o.onBroken;
    this.#onFull = o.onFull;
    this.#log = o.log;
  }
  /** The guest did something foolish. */
  complain(what: string): void {
    if (++this.#nrComplaints <= COMPLAINTS) this.#log(`${this.name}: ${what}${this.#nrComplaints === COMPLAINTS ? "; no more is said about this front end" : ""}`);
  }
  /** Have the disk do it; a full medium is waited for. @returns whether it was done */
  async carryOut(action: () => Promise<void>): Promise<boolean> {
    if (this.#isRefusing) return false;
    let isWaiting = false;
    this.#nrActing++;
    try {
      for (;;) {
        try {
          await action();
          return true;
        } catch (e) {
          if (!(e instanceof DiskError)) throw e;
          if (e.fault !== "nospace" || this.#onFull !== "wait" || this.#isClosing) {
            if (++this.#nrErrors <= ERRORS) this.#log(`${this.name}: ${e.message}${this.#nrErrors === ERRORS ? "; further errors of this disk are counted only" : ""}`);
            return false;
          }
          if (!isWaiting && this.nrWaitingForRoom++ === 0) this.#log(`${this.name}: ${e.message}; the guest's write waits until there is room`);
          isWaiting = true;
        }
        await this.#sleep();
      }
    } finally {
      if (isWaiting) this.nrWaitingForRoom--;
      if (--this.#nrActing === 0) this.#idle?.();
    }
  }
  #sleep(): Promise<void> {
    return new Promise((resume) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#sleepers.delete(wake);
        resume();
      }, timer = setTimeout(wake, FULL_RETRY_MS);
      this.#sleepers.add(wake);
    });
  }
  /** The disk is not to be used any more: requests get an error. @returns when it has answered what it had been asked */
  refuse(): Promise<void> {
    this.#isRefusing = true;
    this.giveUp();
    return this.#nrActing === 0 ? Promise.resolve() : new Promise((done) => { this.#idle = done; });
  }
  /** Wait for room no longer: what waits is answered with an error. */
  giveUp(): void {
    this.#isClosing = true;
    for (const wake of [...this.#sleepers]) wake();
  }
}
