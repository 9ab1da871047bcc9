/** For tests of the block back end: a disk that can be told to fail, and a front end that speaks all of the protocol. */
import { BLKIF_OP, BLKIF_SLOT_BYTES, BlkifRequest, BlkifRequestDiscard, BlkifRequestIndirect, BlkifRequestSegment, BlkifResponse } from "../../abi/io/blkif.ts";
import { checkRange, type Disk, DiskError } from "../../storage/disk.ts";
import { FrontRing, type GuestPages } from "../fixture.ts";
import type { FrontKeys } from "../xenbus.ts";
import { BlockBack, type BlockBackOptions } from "./back.ts";

const SEGMENTS_PER_PAGE = 512;

/** A disk in memory; `held` keeps requests back until they are let go, `failing` fails them. */
export class TestDisk implements Disk {
  readonly name = "test";
  readonly format = "raw";
  readonly physicalSectorBytes = 512;
  isReadonly = false;
  bytes: Uint8Array;
  onResize: (() => void) | null = null;
  failing: DiskError | null = null;
  held: (() => void)[] | null = null;
  readonly log: string[] = [];
  constructor(sizeBytes: number) { this.bytes = new Uint8Array(sizeBytes); }
  get sizeBytes(): number { return this.bytes.length; }
  async #gate(what: string): Promise<void> {
    this.log.push(what);
    if (this.held) await new Promise<void>((go) => this.held!.push(go));
    else await Promise.resolve();
    if (this.failing) throw this.failing;
  }
  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    await this.#gate(`read ${offset} ${into.length}`);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }
  async write(offset: number, from: Uint8Array): Promise<void> {
    checkRange(this, offset, from.length);
    await this.#gate(`write ${offset} ${from.length}`);
    this.bytes.set(from, offset);
  }
  async flush(): Promise<void> { await this.#gate("flush"); }
  async discard(offset: number, lengthBytes: number): Promise<void> {
    checkRange(this, offset, lengthBytes);
    await this.#gate(`discard ${offset} ${lengthBytes}`);
  }
  async writeZeros(offset: number, lengthBytes: number): Promise<void> { this.bytes.fill(0, offset, offset + lengthBytes); }
  async resize(sizeBytes: number): Promise<void> {
    const bytes = new Uint8Array(sizeBytes);
    bytes.set(this.bytes.subarray(0, sizeBytes));
    this.bytes = bytes;
    this.onResize?.();
  }
  async close(): Promise<void> {}
}

/** Keys as the store would give them. */
export function keysOf(values: Readonly<Record<string, string | number>>): FrontKeys {
  return {
    text: (key) => (values[key] === undefined ? undefined : String(values[key])),
    number: (key, least, most, otherwise) => {
      const n = values[key] === undefined ? otherwise : Number(values[key]);
      if (n === undefined || !(n >= least && n <= most)) throw new Error(`key ${key}`);
      return n;
    },
  };
}

export type FrontOptions = { readonly nrQueues?: number; readonly order?: number; readonly isPersistent?: boolean; readonly start?: number };

/** The guest's driver. Every request's data lies on pages of its own, in pieces of random sizes. */
export class BlockFront {
  readonly mem: GuestPages;
  readonly back: BlockBack;
  readonly rings: FrontRing[];
  readonly keys: Record<string, string | number> = { protocol: "x86_64-abi" };
  readonly #bells = new Map<number, () => void>();
  readonly #waiting = new Map<bigint, (status: number) => void>();
  readonly #isPersistent: boolean;
  readonly #kept: { at: number; ref: number }[] = [];
  #nextId = 0x123456789abcdefn;
  nrEvents = 0;
  /** it writes slots by hand: answers to them are nobody's */
  isMad = false;
  /** it has closed its ends of the event channels */
  hasLetGo = false;

  constructor(mem: GuestPages, options: Omit<BlockBackOptions, "grants" | "bind" | "name" | "log"> & { log?: (s: string) => void }, { nrQueues = 1, order = 0, isPersistent = false, start = 0 }: FrontOptions = {}) {
    this.mem = mem;
    this.#isPersistent = isPersistent;
    this.back = new BlockBack({
      log: () => {}, ...options, name: "d1 xvda", grants: mem,
      bind: (port, rung) => {
        this.#bells.set(port, rung);
        return { notify: () => { if (this.#bells.get(port) !== rung) throw new Error("An event by a closed port"); this.nrEvents++; queueMicrotask(() => this.poll(port)); }, isHeld: () => !this.hasLetGo, close: () => this.#bells.delete(port) };
      },
    });
    this.rings = Array.from({ length: nrQueues }, () => new FrontRing(mem, 2 ** order, BLKIF_SLOT_BYTES, start));
    if (nrQueues > 1) this.keys["multi-queue-num-queues"] = nrQueues;
    if (order > 0) this.keys["ring-page-order"] = order;
    if (isPersistent) this.keys["feature-persistent"] = 1;
    this.rings.forEach((ring, q) => {
      const under = nrQueues > 1 ? `queue-${q}/` : "";
      this.keys[`${under}event-channel`] = q;
      ring.refs.forEach((ref, i) => { this.keys[order > 0 ? `${under}ring-ref${i}` : `${under}ring-ref`] = ref; });
    });
  }
  connect(): void { this.back.connect(keysOf(this.keys)); }

  poll(q: number): void {
    const ring = this.rings[q]!;
    do {
      for (let got = ring.take(BlkifResponse.sizeof); got; got = ring.take(BlkifResponse.sizeof)) {
        const dv = new DataView(got.response.buffer), id = BlkifResponse.id.get(dv, 0), told = this.#waiting.get(id);
        if (!told && this.isMad) continue;
        if (!told) throw new Error(`A response to no request: ${id}`);
        this.#waiting.delete(id);
        told(dv.getInt16(BlkifResponse.status.at, true));
      }
    } while (ring.finalCheck());
  }
  /** Put a request as it is; `id` is written here. @returns its status */
  send(fill: (dv: DataView) => void, q = 0, isLast = true): Promise<number> {
    const dv = new DataView(new ArrayBuffer(BLKIF_SLOT_BYTES)), id = this.#nextId++;
    BlkifRequest.id.set(dv, 0, id);
    fill(dv);
    const answer = new Promise<number>((told) => this.#waiting.set(id, told));
    this.rings[q]!.put(new Uint8Array(dv.buffer));
    if (isLast && this.rings[q]!.push()) this.#bells.get(q)?.();
    return answer;
  }
  ring(q = 0): void { if (this.rings[q]!.push()) this.#bells.get(q)?.(); }
  /** Ring whether or not the back end asked for it. */
  knock(q = 0): void { this.#bells.get(q)?.(); }

  #page(isReadonly: boolean): { at: number; ref: number } {
    if (this.#isPersistent) {
      const kept = this.#kept.pop();
      if (kept) return kept;
      const at = this.mem.allocate();
      return { at, ref: this.mem.grant(at) };
    }
    const at = this.mem.allocate();
    return { at, ref: this.mem.grant(at, isReadonly) };
  }
  #done(pages: readonly { at: number; ref: number }[]): void {
    for (const page of pages) {
      if (this.#isPersistent) { this.#kept.push(page); continue; }
      this.mem.revoke(page.ref);
      this.mem.release(page.at);
    }
  }
  /** @param pieces sectors a segment, 1 to 8 each */
  async transfer(op: "read" | "write", sector: number, pieces: readonly number[], data: Uint8Array, q = 0, isLast = true): Promise<number> {
    const isIndirect = pieces.length > 11, pages = pieces.map(() => this.#page(op === "write"));
    const table = isIndirect ? Array.from({ length: Math.ceil(pieces.length / SEGMENTS_PER_PAGE) }, () => this.#page(true)) : [];
    const place = (move: (at: number, offset: number, n: number) => void): void => {
      let offset = 0;
      pieces.forEach((n, i) => {
        move(pages[i]!.at + ((i * 3) % (9 - n)) * 512, offset, n * 512);
        offset += n * 512;
      });
    };
    if (op === "write") place((at, offset, n) => this.mem.bytes.set(data.subarray(offset, offset + n), at));
    const mem = new DataView(this.mem.bytes.buffer);
    const segment = (dv: DataView, at: number, i: number): void => {
      const first = (i * 3) % (9 - pieces[i]!);
      BlkifRequestSegment.gref.set(dv, at, pages[i]!.ref);
      BlkifRequestSegment.first_sect.set(dv, at, first);
      BlkifRequestSegment.last_sect.set(dv, at, first + pieces[i]! - 1);
    };
    const code = op === "read" ? BLKIF_OP.READ : BLKIF_OP.WRITE;
    const status = await this.send((dv) => {
      if (!isIndirect) {
        BlkifRequest.operation.set(dv, 0, code);
        BlkifRequest.nr_segments.set(dv, 0, pieces.length);
        BlkifRequest.sector_number.set(dv, 0, BigInt(sector));
        pieces.forEach((_, i) => { segment(dv, BlkifRequest.seg.at + i * BlkifRequestSegment.sizeof, i); });
        return;
      }
      BlkifRequestIndirect.operation.set(dv, 0, BLKIF_OP.INDIRECT);
      BlkifRequestIndirect.indirect_op.set(dv, 0, code);
      BlkifRequestIndirect.nr_segments.set(dv, 0, pieces.length);
      BlkifRequestIndirect.sector_number.set(dv, 0, BigInt(sector));
      table.forEach((t, i) => { dv.setUint32(BlkifRequestIndirect.indirect_grefs.at + i * 4, t.ref, true); });
      pieces.forEach((_, i) => { segment(mem, table[Math.floor(i / SEGMENTS_PER_PAGE)]!.at + (i % SEGMENTS_PER_PAGE) * BlkifRequestSegment.sizeof, i); });
    }, q, isLast);
    if (op === "read" && status === 0) place((at, offset, n) => data.set(this.mem.bytes.subarray(at, at + n), offset));
    this.#done([...pages, ...table]);
    return status;
  }
  flush(q = 0): Promise<number> { return this.send((dv) => BlkifRequest.operation.set(dv, 0, BLKIF_OP.FLUSH_DISKCACHE), q); }
  discard(sector: number, nrSectors: number, flag = 0): Promise<number> {
    return this.send((dv) => {
      BlkifRequestDiscard.operation.set(dv, 0, BLKIF_OP.DISCARD);
      BlkifRequestDiscard.flag.set(dv, 0, flag);
      BlkifRequestDiscard.sector_number.set(dv, 0, BigInt(sector));
      BlkifRequestDiscard.nr_sectors.set(dv, 0, BigInt(nrSectors));
    });
  }
}
