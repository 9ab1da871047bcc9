/**
 * The block back end: public/io/blkif.h. What the front end chose (rings, pages a ring, persistent grants) is read from the store and checked here; requests are the
 * queues' business.
 */
import { BLKIF_SLOT_BYTES, VDISK } from "../../abi/io/blkif.ts";
import { within } from "../../base/wait.ts";
import { type Disk, SECTOR_BYTES } from "../../storage/disk.ts";
import type { Bind, Doorbell } from "../dom0.ts";
import type { GrantAccess, MappedPage } from "../grants.ts";
import { BackRing, FrontRefusal, mapRing } from "../ring.ts";
import type { BackDriver, FrontKeys } from "../xenbus.ts";
import { type BlockCounters, BlockDevice, type OnFull } from "./device.ts";
import { BlockPages } from "./pages.ts";
import { BlockQueue } from "./queue.ts";
import { MAX_INDIRECT_SEGMENTS } from "./request.ts";

/** Sixteen pages a ring, as Linux's back end allows. */
const MAX_RING_PAGE_ORDER = 4;
const MAX_QUEUES = 8;
/** Requests that are on their way get this long to end before a device is let go all the same. */
const DRAIN_MS = 30_000;

export type BlockBackOptions = {
  /** for the log: "d3 xvda" */
  readonly name: string;
  readonly disk: Disk;
  readonly grants: GrantAccess;
  readonly bind: Bind;
  readonly isReadonly?: boolean;
  readonly isCdrom?: boolean;
  /** default: yes where the disk takes writes */
  readonly discards?: boolean;
  readonly onFull?: OnFull;
  readonly log: (sentence: string) => void;
};

type Connected = { readonly device: BlockDevice; readonly queues: readonly { readonly queue: BlockQueue; readonly bell: Doorbell; readonly pages: readonly MappedPage[] }[] };

export class BlockBack implements BackDriver {
  readonly kind = "vbd";
  readonly counters: BlockCounters = { read: 0, write: 0, flush: 0, discard: 0, errors: 0, readBytes: 0, writtenBytes: 0, operations: 0 };
  onBroken: (why: string) => void = () => {};
  /** keys have changed: a resized disk */
  onUpdate: (keys: Record<string, string | number>) => void = () => {};
  readonly #options: BlockBackOptions;
  #connected: Connected | null = null;
  /** queues let go of whose requests the disk still has not answered */
  #nrStuck = 0;

  constructor(options: BlockBackOptions) {
    this.#options = options;
    options.disk.onResize = () => this.onUpdate({ sectors: options.disk.sizeBytes / SECTOR_BYTES });
  }
  get isReadonly(): boolean { return this.#options.isReadonly || this.#options.disk.isReadonly; }
  get #discards(): boolean { return (this.#options.discards ?? true) && !this.isReadonly; }

  offer(): Record<string, string | number> {
    const { disk } = this.#options;
    return {
      sectors: disk.sizeBytes / SECTOR_BYTES, info: (this.#options.isCdrom ? VDISK.CDROM | VDISK.REMOVABLE : 0) | (this.isReadonly ? VDISK.READONLY : 0),
      "sector-size": SECTOR_BYTES, "physical-sector-size": disk.physicalSectorBytes,
      "feature-flush-cache": 1, "feature-persistent": 1, "feature-max-indirect-segments": MAX_INDIRECT_SEGMENTS,
      "max-ring-page-order": MAX_RING_PAGE_ORDER, "multi-queue-max-queues": MAX_QUEUES,
      ...(this.#discards ? { "feature-discard": 1, "discard-granularity": disk.physicalSectorBytes, "discard-alignment": 0, "discard-secure": 0 } : { "feature-discard": 0 }),
    };
  }

  connect(front: FrontKeys): void {
    const { grants, name, disk, log } = this.#options, protocol = front.text("protocol") ?? "x86_64-abi";
    if (this.#nrStuck > 0) throw new FrontRefusal("the disk still has requests of an earlier connection, which may be carried out after newer ones");
    if (protocol !== "x86_64-abi") throw new FrontRefusal(`the front end speaks "${protocol}"; only x86_64-abi is built`);
    const nrQueues = front.number("multi-queue-num-queues", 1, MAX_QUEUES, 1), order = front.number("ring-page-order", 0, MAX_RING_PAGE_ORDER, 0), hasOrder = front.text("ring-page-order") !== undefined;
    const device = new BlockDevice({
      name, disk, log, isReadonly: this.isReadonly, discards: this.#discards, onFull: this.#options.onFull ?? "wait", counters: this.counters, onBroken: (why) => this.onBroken(why),
      pages: new BlockPages(grants, front.text("feature-persistent") === "1"),
    });
    const queues: { queue: BlockQueue; bell: Doorbell; pages: MappedPage[] }[] = [];
    try {
      for (let q = 0; q < nrQueues; q++) {
        // Linux writes flat keys for one queue, whatever was offered, and a kernel before it may have left keys of several; a front end may write one queue's keys all the same
        const under = nrQueues > 1 || (front.text("event-channel") === undefined && front.text("queue-0/event-channel") !== undefined) ? `queue-${q}/` : "", port = front.number(`${under}event-channel`, 0, 0xffffffff);
        const keys = hasOrder ? Array.from({ length: 2 ** order }, (_, i) => `${under}ring-ref${i}`) : [`${under}ring-ref`];
        const pages = mapRing(grants, keys.map((key) => front.number(key, 0, 0xffffffff)), `${under}ring-ref`);
        const ring = new BackRing(grants.words, pages.map((p) => p.at), BLKIF_SLOT_BYTES), queue: BlockQueue = new BlockQueue(ring, () => bell.notify(), device);
        let bell: Doorbell;
        try {
          bell = this.#options.bind(port, () => queue.poll());
        } catch (e) {
          for (const page of pages) grants.unmap(page);
          throw e;
        }
        queues.push({ queue, bell, pages });
      }
    } catch (e) {
      for (const { bell, pages } of queues) {
        bell.close();
        for (const page of pages) grants.unmap(page);
      }
      throw e;
    }
    this.#connected = { device, queues };
    for (const { queue } of queues) queue.poll();
  }

  async refuse(): Promise<void> {
    if (this.#connected) await within(this.#connected.device.refuse(), DRAIN_MS);
  }
  nudge(): boolean {
    const held = this.#connected?.queues.filter(({ bell }) => bell.isHeld()) ?? [];
    for (const { bell } of held) bell.notify();
    return held.length > 0;
  }

  async disconnect(): Promise<void> {
    const connected = this.#connected;
    if (!connected) return;
    this.#connected = null;
    const { device, queues } = connected;
    device.giveUp();
    await within(Promise.all(queues.map(({ queue }) => queue.close())), DRAIN_MS);
    for (const { queue, bell } of queues) {
      queue.abandon();
      bell.close();       // not before the last answer's event
      if (queue.nrInFlight === 0) continue;
      this.#nrStuck++;
      void queue.close().then(() => { this.#nrStuck--; });
    }
    for (const { pages } of queues) for (const page of pages) this.#options.grants.unmap(page);
    device.pages.close();
  }
  /** The disk is another's from here on. */
  release(): void { this.#options.disk.onResize = null; }
  describe(): Record<string, unknown> {
    return { disk: this.#options.disk.name, format: this.#options.disk.format, isConnected: this.#connected !== null, nrQueues: this.#connected?.queues.length ?? 0, nrStuck: this.#nrStuck, nrWaitingForRoom: this.#connected?.device.nrWaitingForRoom ?? 0, queues: this.#connected?.queues.map(({ queue }) => queue.describe()) ?? [], ...this.counters };
  }
}
