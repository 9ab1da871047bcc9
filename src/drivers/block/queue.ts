/**
 * One ring of a block device: requests out of it, joined where they touch, several on their way to the disk at once, answers in the order in which
 * the disk is done. What the guest may still rewrite is copied first: slots by the ring, pages into buffers of ours.
 */
import { BLKIF_RSP, BlkifResponse } from "../../abi/io/blkif.ts";
import { PageGate } from "../gate.ts";
import type { BackRing } from "../ring.ts";
import type { BlockDevice } from "./device.ts";
import { type BlockOther, type BlockRequest, type BlockTransfer, parseRequest, tablesOf } from "./request.ts";

/** Adjacent requests are one to the disk up to this. */
const JOIN_BYTES = 1 << 20;
/** Bytes of one ring on their way; what is beyond waits in the ring. */
const IN_FLIGHT_BYTES = 8 << 20;
/**
 * Work done at an event before the thread's other tasks have their turn, a request costing its bytes and POLL_COST_LEAST at least: what is answered at once, nonsense or a read
 * from a cache, a guest may ask for as fast as it is answered.
 */
const POLL_BYTES = 64 << 20, POLL_COST_LEAST = 16 << 10;

function* grantsOf(run: readonly BlockTransfer[]): Generator<number> { for (const { segments } of run) for (const { ref } of segments) yield ref; }

export class BlockQueue {
  readonly #ring: BackRing;
  readonly #notify: () => void;
  readonly #device: BlockDevice;
  #bytesInFlight = 0;
  #nrInFlight = 0;
  #isClosed = false;
  #budgetBytes = 0;
  #again: ReturnType<typeof setTimeout> | null = null;
  /** requests that will still be taken: once it closes, those that were in the ring then */
  #nrMore = Infinity;
  #drained: PromiseWithResolvers<void> | null = null;
  /** the ring's pages are not ours any more */
  #isAbandoned = false;
  readonly #gate: PageGate;

  constructor(ring: BackRing, notify: () => void, device: BlockDevice) {
    this.#ring = ring;
    this.#notify = notify;
    this.#device = device;
    this.#gate = new PageGate(device.pages, () => this.poll(), () => {
      this.#isClosed = true;
      this.#lookWhetherDrained();
    });
  }
  get nrInFlight(): number { return this.#nrInFlight; }
  /** For an inspector. */
  describe(): Record<string, unknown> {
    return { nrInFlight: this.#nrInFlight, bytesInFlight: this.#bytesInFlight, isClosed: this.#isClosed, isPutOff: this.#again !== null, ring: this.#isAbandoned ? null : this.#ring.describe() };
  }

  /** Take what is in the ring. Call it at each event from the guest. */
  poll(): void {
    this.#budgetBytes = POLL_BYTES;
    this.#take();
  }
  #take(): void {
    if (this.#isClosed || this.#again !== null) return;
    do {
      if (this.#budgetBytes <= 0) {
        this.#again = setTimeout(() => {
          this.#again = null;
          this.poll();
        }, 0);
        return;
      }
      let run: BlockTransfer[] = [];
      const start = (): void => {
        if (run.length) void this.#transfer(run);
        run = [];
      };
      while (this.#bytesInFlight < IN_FLIGHT_BYTES && this.#nrMore > 0 && this.#budgetBytes > 0) {
        if (this.#gate.isShut(this.#nextTables())) return start();
        if (!this.#ring.take()) {
          if (this.#drained) this.#nrMore = 0;
          break;
        }
        this.#nrMore--;
        const request = parseRequest(this.#ring.requestView, (ref) => this.#device.pages.copy(ref)), last = run.at(-1);
        this.#budgetBytes -= "segments" in request ? Math.max(request.lengthBytes, POLL_COST_LEAST) : POLL_COST_LEAST;
        if (!("segments" in request)) {
          start();
          this.#other(request);
          continue;
        }
        const touches = last?.kind === request.kind && last.offset + last.lengthBytes === request.offset && request.offset + request.lengthBytes - run[0]!.offset <= JOIN_BYTES;
        if (!touches) start();
        run.push(request);
        this.#bytesInFlight += request.lengthBytes;
        this.#nrInFlight++;
      }
      start();
      if (this.#ring.dead !== null) {
        this.#isClosed = true;
        if (!this.#drained) this.#device.onBroken(this.#ring.dead);
        break;
      }
    } while (this.#bytesInFlight < IN_FLIGHT_BYTES && this.#nrMore > 0 && this.#ring.finalCheck());
    this.#lookWhetherDrained();
  }

  /** Pages of segments that the next request has: they are read when it is taken. */
  *#nextTables(): Generator<number> { if (this.#ring.peek(0)) yield* tablesOf(this.#ring.requestView); }
  #other(request: BlockOther): void {
    this.#nrInFlight++;
    if (request.kind === "bad") {
      this.#device.complain(`a request with ${request.why}`);
      return this.#done([request], request.status);
    }
    const { disk } = this.#device;
    if (request.kind === "discard" && (request.lengthBytes === 0 || request.offset + request.lengthBytes > disk.sizeBytes || this.#device.isReadonly)) return this.#done([request], BLKIF_RSP.ERROR);
    if (request.kind === "discard" && !this.#device.discards) return this.#done([request], BLKIF_RSP.EOPNOTSUPP);
    this.#device.counters[request.kind]++;
    void this.#device.carryOut(request.kind === "flush" ? () => disk.flush() : () => disk.discard(request.offset, request.lengthBytes)).then((ok) => this.#done([request], ok ? BLKIF_RSP.OKAY : BLKIF_RSP.ERROR));
  }

  async #transfer(run: readonly BlockTransfer[]): Promise<void> {
    const device = this.#device, { disk, counters } = device, first = run[0]!, total = run.reduce((sum, r) => sum + r.lengthBytes, 0);
    const over = (requests: readonly BlockTransfer[], status: number): void => {
      for (const r of requests) this.#bytesInFlight -= r.lengthBytes;
      this.#done(requests, status);
    };
    if (first.offset + total > disk.sizeBytes || (first.kind === "write" && device.isReadonly)) {
      if (run.length > 1) for (const r of run) void this.#transfer([r]);      // some of them may be inside
      else over(run, BLKIF_RSP.ERROR);
      return;
    }
    const missing = device.pages.missing(grantsOf(run));
    if (missing && !(await missing.then(() => true, () => false))) return over(run, BLKIF_RSP.ERROR);
    counters[first.kind] += run.length;
    counters[first.kind === "read" ? "readBytes" : "writtenBytes"] += total;
    counters.operations++;
    const buffer = device.buffers.take(total), failed = new Set<BlockTransfer>();
    let at = 0;
    if (first.kind === "write") {
      for (const r of run) if (!this.#copy(r, buffer, at)) { failed.add(r); } else at += r.lengthBytes;
      if (failed.size) {        // the others as if the bad one had not been there
        device.buffers.give(buffer);
        over([...failed], BLKIF_RSP.ERROR);
        counters.write -= run.length;
        counters.writtenBytes -= total;
        for (const r of run) if (!failed.has(r)) void this.#transfer([r]);
        return;
      }
    }
    const ok = await device.carryOut(() => (first.kind === "read" ? disk.read(first.offset, buffer) : disk.write(first.offset, buffer)));
    if (ok && first.kind === "read") {
      at = 0;
      for (const r of run) {
        if (!this.#copy(r, buffer, at)) failed.add(r);
        at += r.lengthBytes;
      }
    }
    device.buffers.give(buffer);
    if (failed.size) over([...failed], BLKIF_RSP.ERROR);
    over(failed.size ? run.filter((r) => !failed.has(r)) : run, ok ? BLKIF_RSP.OKAY : BLKIF_RSP.ERROR);
    if (!this.#isClosed && this.#bytesInFlight < IN_FLIGHT_BYTES) this.#take();
  }
  /** Between a request's pages and its part of the buffer. @returns whether all grants were good */
  #copy(r: BlockTransfer, buffer: Uint8Array, at: number): boolean {
    const { pages } = this.#device;
    for (const s of r.segments) {
      const part = buffer.subarray(at, at + s.lengthBytes);
      if (!(r.kind === "read" ? pages.write(s.ref, s.offset, part) : pages.read(s.ref, s.offset, part))) {
        this.#device.complain(`a request whose grant ${s.ref} is no good`);
        return false;
      }
      at += s.lengthBytes;
    }
    return true;
  }

  #done(requests: readonly BlockRequest[], status: number): void {
    this.#nrInFlight -= requests.length;
    if (status !== BLKIF_RSP.OKAY) this.#device.counters.errors += requests.length;
    if (!this.#isAbandoned) {
      const { responseView: slot } = this.#ring;
      for (const { id, op } of requests) {
        BlkifResponse.id.set(slot, 0, id);
        BlkifResponse.operation.set(slot, 0, op);
        BlkifResponse.status.set(slot, 0, status);
        this.#ring.put(BlkifResponse.sizeof);
      }
      if (this.#ring.push()) this.#notify();
    }
    this.#lookWhetherDrained();
  }
  #lookWhetherDrained(): void {
    if (this.#nrInFlight === 0 && (this.#isClosed || this.#nrMore === 0)) this.#drained?.resolve();
  }

  /** Carry out what is in the ring now and no more: Linux's front end, once it lets go, waits for the answers to all it has asked. @returns when nothing is on its way */
  close(): Promise<void> {
    if (!this.#drained) {
      this.#drained = Promise.withResolvers<void>();
      this.#nrMore = this.#ring.nrRequests;
      this.poll();
      this.#lookWhetherDrained();
    }
    return this.#drained.promise;
  }
  /** Nothing is taken and no answer is written any more, whoever it comes for. */
  abandon(): void {
    this.#isClosed = this.#isAbandoned = true;
    if (this.#again !== null) clearTimeout(this.#again);
  }
}
