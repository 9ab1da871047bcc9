/** A domain's guest-physical memory, as the control domain and the hypervisor read and write it: bytes copied frame by frame through the p2m. */
import type { Views } from "../base/views.ts";
import type { Frames } from "./frames.ts";
import { P2M_R, P2M_W, p2mLookup } from "./p2m.ts";

/** A guest-physical range names a frame the domain does not have (or may not be written). Becomes the protocol's own error at its exit. */
export class GuestAddressError extends Error {
  override name = "GuestAddressError";
  readonly gpa: number;
  constructor(gpa: number, what: string) {
    super(`Guest-physical address 0x${gpa.toString(16)} ${what}`);
    this.gpa = gpa;
  }
}

/** One domain's guest-physical memory; addresses are numbers, exact below 2^53. */
export class GuestMemory {
  readonly root: number;
  readonly #views: Views;
  readonly #frames: Frames;
  readonly #onCodeWrite: (mfn: number, cpus: number) => void;

  /** @param root byte address of the p2m; @param onCodeWrite is told of writes to frames that pCPUs (a bit each) have decoded code from */
  constructor(views: Views, frames: Frames, root: number, onCodeWrite: (mfn: number, cpus: number) => void = () => {}) {
    this.#views = views;
    this.#frames = frames;
    this.root = root;
    this.#onCodeWrite = onCodeWrite;
  }

  /** Machine byte address of a guest-physical byte, or 0. The frame is not pinned. */
  machineAddress(gpa: number): number {
    const entry = p2mLookup(this.#views.u32, this.root, Math.floor(gpa / 4096));
    return entry === 0 ? 0 : (entry & ~4095 | gpa % 4096) >>> 0;
  }

  /** Copy as much as is there. @returns the number of bytes copied; if less than asked for, gpa + that is the first address without a frame */
  tryRead(gpa: number, into: Uint8Array): number {
    return this.#walk(gpa, into.length, P2M_R, (at, done, n) => into.set(this.#views.u8.subarray(at, at + n), done));
  }
  /** Copy as much as may be written. @returns as for tryRead */
  tryWrite(gpa: number, from: Uint8Array): number {
    return this.#walk(gpa, from.length, P2M_W, (at, done, n) => {
      this.#views.u8.set(from.subarray(done, done + n), at);
      this.#noteWrite(at >>> 12);
    });
  }
  /** @throws GuestAddressError at the first absent frame (bytes before it are copied) */
  read(gpa: number, sizeBytes: number): Uint8Array<ArrayBuffer> {
    const into = new Uint8Array(sizeBytes), n = this.tryRead(gpa, into);
    if (n < sizeBytes) throw new GuestAddressError(gpa + n, "has no memory");
    return into;
  }
  /** @throws GuestAddressError */
  write(gpa: number, from: Uint8Array): void {
    const n = this.tryWrite(gpa, from);
    if (n < from.length) throw new GuestAddressError(gpa + n, "cannot be written");
  }
  /** @throws GuestAddressError */
  zero(gpa: number, sizeBytes: number): void {
    const n = this.#walk(gpa, sizeBytes, P2M_W, (at, _done, count) => {
      this.#views.u8.fill(0, at, at + count);
      this.#noteWrite(at >>> 12);
    });
    if (n < sizeBytes) throw new GuestAddressError(gpa + n, "cannot be written");
  }

  #noteWrite(mfn: number): void {
    const cpus = this.#frames.noteWrite(mfn);
    if (cpus !== 0) this.#onCodeWrite(mfn, cpus);
  }
  #walk(gpa: number, sizeBytes: number, right: number, chunk: (at: number, done: number, n: number) => void): number {
    let done = 0;
    while (done < sizeBytes) {
      const here = gpa + done, offset = here % 4096, n = Math.min(4096 - offset, sizeBytes - done);
      const entry = p2mLookup(this.#views.u32, this.root, Math.floor(here / 4096));
      if ((entry & right) === 0) break;
      chunk((entry & ~4095 | offset) >>> 0, done, n);
      done += n;
    }
    return done;
  }
}
