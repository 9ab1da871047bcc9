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

export type BlockCounters = { read: number; write: number; flush: number; discard: number; errors: number; readBytes: number; writtenBytes: number; /** reads and writes as the disk saw them */ operations: number };

export class BlockDevice {
  readonly name: string;
  readonly disk: Disk;
  readonly isReadonly: boolean;
  readonly pages: BlockPages;
  readonly buffers = new Buffers();
  readonly counters: BlockCounters;
  readonly onBroken: (why: string) => void;
  readonly #onFull: OnFull;
  readonly #log: (sentence: string) => void;
  readonly #closing = new AbortController();
  #nrComplaints = 0;
  #isWaitingForRoom = false;

  constructor(o: { name: string; disk: Disk; isReadonly: boolean; pages: BlockPages; onFull: OnFull; counters: BlockCounters; log: (sentence: string) => void; onBroken: (why: string) => void }) {
    this.name = o.name;
    this.disk = o.disk;
    this.isReadonly = o.isReadonly;
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
    for (let hasWaited = false; ;) {
      try {
        await action();
        if (hasWaited) this.#isWaitingForRoom = false;
        return true;
      } catch (e) {
        if (!(e instanceof DiskError)) throw e;
        if (e.fault === "nospace" && this.#onFull === "wait" && !this.#closing.signal.aborted) {
          if (!this.#isWaitingForRoom) this.#log(`${this.name}: ${e.message}; the guest's write waits until there is room`);
          this.#isWaitingForRoom = hasWaited = true;
          await new Promise<void>((resume) => {
            const { signal } = this.#closing, over = (): void => {
              clearTimeout(timer);
              signal.removeEventListener("abort", over);
              resume();
            }, timer = setTimeout(over, FULL_RETRY_MS);
            signal.addEventListener("abort", over);
          });
          continue;
        }
        this.#log(`${this.name}: ${e.message}`);
        return false;
      }
    }
  }
  /** Wait for room no longer: what waits is answered with an error. */
  giveUp(): void { this.#closing.abort(); }
}
