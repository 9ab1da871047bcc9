/**
 * A disk on the other side of a connection, whatever the protocol. `PeerDisk` keeps requests until they are answered: when the link is lost it opens another,
 * sends again what was acknowledged and not flushed, then what was not answered, in order. A protocol (nbd/link.ts, iscsi/lun.ts) is a `PeerLink`.
 */
import { checkRange, type Disk, DiskError, SECTOR_BYTES } from "./disk.ts";
import { Unflushed, type UnflushedWrite } from "./unflushed.ts";

/** What a link is asked for. `bytes`: to fill (read), to send (write), null else. Offsets and lengths obey the link's shape. */
export type PeerRequest = { readonly kind: "read" | "write" | "zero" | "trim" | "flush"; readonly offset: number; readonly lengthBytes: number; readonly bytes: Uint8Array | null };

/** What the peer said of its disk and of what it takes. */
export type PeerShape = {
  readonly sizeBytes: number;
  readonly isReadonly: boolean;
  /** requests are multiples of this: a power of two, 512 to 64 KiB */
  readonly blockBytes: number;
  readonly physicalSectorBytes: number;
  /** most bytes of a read or write, of a zero or trim */
  readonly maxBytes: number;
  readonly maxZeroBytes: number;
  /** false: what is acknowledged is stable */
  readonly canFlush: boolean;
  readonly canTrim: boolean;
  readonly canZero: boolean;
  /** requests worth having under way */
  readonly depth: number;
  /** the medium's own name where the protocol has one: another one after a reconnect is another disk */
  readonly identity: string;
};

/** One live connection that is past its handshake. */
export interface PeerLink {
  readonly shape: PeerShape;
  /** @throws DiskError `gone`: the link is lost and the request may be sent on another; any other fault is the request's answer. A buffer is not touched after that. */
  request(r: PeerRequest): Promise<void>;
  /** The link is lost: every request under way is rejected with `why`, and `onLost` is told. */
  fail(why: DiskError): void;
  /** Say good-bye. */
  close(): Promise<void>;
  onLost: ((why: DiskError) => void) | null;
  /** `shape` is another now */
  onShape: (() => void) | null;
}

/** How patient a disk is with its peer. */
export type PeerPatience = {
  /** to open a connection and shake hands */
  connectTimeoutMs?: number;
  /** an answer that takes longer means that the peer stalls: the connection is given up and the request sent on another */
  requestTimeoutMs?: number;
  /** a request that has met a lost connection is rejected with `gone` after this */
  giveUpMs?: number;
  /** between attempts to connect; doubles from the first to the second */
  retryMs?: number;
  retryMaxMs?: number;
  /** memory for writes that are acknowledged and not flushed; beyond it the disk flushes by itself */
  unflushedBytesMax?: number;
  /** keep writes from the peer even where it would take them */
  isReadonly?: boolean;
};
const PATIENCE: Required<PeerPatience> = { connectTimeoutMs: 10_000, requestTimeoutMs: 30_000, giveUpMs: 120_000, retryMs: 100, retryMaxMs: 5_000, unflushedBytesMax: 32 << 20, isReadonly: false };

type Waiting = {
  readonly seq: number; readonly request: PeerRequest; readonly resolve: () => void; readonly reject: (why: DiskError) => void;
  timer: ReturnType<typeof setTimeout> | undefined; giveUpAt: number; isDone: boolean;
};

/** Any error as a `DiskError`; what is none is a connection's. */
export const asDiskError = (e: unknown, name: string): DiskError =>
  e instanceof DiskError ? e : new DiskError("gone", `${name}: ${e instanceof Error ? e.message : String(e)}`, { cause: e });

/** A disk whose bytes are a peer's. */
export class PeerDisk implements Disk {
  readonly name: string;
  readonly format: string;
  onResize: (() => void) | null = null;
  readonly #open: (timeoutMs: number) => Promise<PeerLink>;
  readonly #patience: Required<PeerPatience>;
  #shape: PeerShape;
  #link: PeerLink | null = null;
  #isConnecting = false;
  #isClosed = false;
  #closing: Promise<void> | null = null;
  #seq = 0;
  #waiting: Waiting[] = [];
  readonly #running = new Set<Waiting>();
  readonly #unflushed = new Unflushed();
  /** an acknowledged write that could not be made again: the next flush tells */
  #lost: DiskError | null = null;
  #relief: Promise<void> | null = null;
  #lastFailure: DiskError | null = null;
  /** one that changes part of a block runs alone among writers */
  #alone: Promise<unknown> = Promise.resolve();
  readonly #writers = new Set<Promise<unknown>>();
  #wake: (() => void) | null = null;
  /** before the next attempt to connect; 0 after an answer */
  #pauseMs = 0;
  /** connections opened since the first, for an inspector */
  nrReconnects = 0;

  private constructor(name: string, format: string, open: (timeoutMs: number) => Promise<PeerLink>, link: PeerLink, patience: Required<PeerPatience>) {
    this.name = name;
    this.format = format;
    this.#open = open;
    this.#patience = patience;
    this.#shape = link.shape;
    this.#adopt(link);
  }
  /** Connect, once. @param open makes a link that is past its handshake; it rejects with `io` when the peer lies */
  static async open(name: string, format: string, open: (timeoutMs: number) => Promise<PeerLink>, patience: PeerPatience = {}): Promise<PeerDisk> {
    const all = { ...PATIENCE, ...patience };
    let link: PeerLink;
    try { link = await open(all.connectTimeoutMs); } catch (e) { throw asDiskError(e, name); }
    return new PeerDisk(name, format, open, link, all);
  }

  get sizeBytes(): number { return this.#shape.sizeBytes; }
  get isReadonly(): boolean { return this.#patience.isReadonly || this.#shape.isReadonly; }
  get physicalSectorBytes(): number { return this.#shape.physicalSectorBytes; }
  /** What the peer said, for an inspector. */
  get shape(): PeerShape { return this.#shape; }
  /** memory held by writes that are not flushed */
  get unflushedBytes(): number { return this.#unflushed.sizeBytes; }

  // Links

  #adopt(link: PeerLink): void {
    this.#link = link;
    this.#takeShape(link.shape);
    link.onLost = (why) => this.#lose(link, why);
    link.onShape = () => { if (this.#link === link) this.#takeShape(link.shape); };
  }
  #takeShape(shape: PeerShape): void {
    const isOther = shape.sizeBytes !== this.#shape.sizeBytes;
    this.#shape = shape;
    if (isOther) this.onResize?.();
  }
  #lose(link: PeerLink, why: DiskError): void {
    if (this.#link !== link) return;
    this.#link = null;
    this.#lastFailure = why;
    link.onLost = null;
    link.fail(why);
    this.#connect();
  }
  /** Put a request that met a lost link back into its place. */
  #again(w: Waiting): void {
    if (w.isDone) return;
    let i = this.#waiting.length;
    while (i > 0 && this.#waiting[i - 1]!.seq > w.seq) i--;
    this.#waiting.splice(i, 0, w);
    this.#pump();
  }
  #startGivingUp(w: Waiting): void {
    const now = performance.now();
    if (!w.giveUpAt) w.giveUpAt = now + this.#patience.giveUpMs;
    clearTimeout(w.timer);
    w.timer = setTimeout(() => {
      const i = this.#waiting.indexOf(w);
      if (i >= 0) this.#waiting.splice(i, 1);
      const why = this.#lastFailure;
      this.#finish(w, new DiskError("gone", `${this.name}: the peer does not answer, given up after ${this.#patience.giveUpMs} ms${why ? ` (${why.message})` : ""}`, why ? { cause: why } : undefined));
      this.#wake?.();
    }, Math.max(0, w.giveUpAt - now));
  }
  /** Reconnect while anybody waits; an idle disk stays without a link until it is asked. */
  #connect(): void {
    if (this.#link) return;
    for (const w of this.#waiting) if (!w.timer) this.#startGivingUp(w);
    if (this.#isConnecting || this.#waiting.length === 0) return;
    this.#isConnecting = true;
    void this.#reconnect().finally(() => {
      this.#isConnecting = false;
      if (this.#link) this.#pump();
      else this.#connect();
    });
  }
  async #reconnect(): Promise<void> {
    while (this.#waiting.length && !this.#isClosed) {
      // A link that never answered anything counts as a failed attempt, however well it shook hands.
      if (this.#pauseMs) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, this.#pauseMs);
          this.#wake = () => { if (this.#waiting.length === 0) { clearTimeout(timer); resolve(); } };
        });
        this.#wake = null;
        if (this.#waiting.length === 0) return;
      }
      this.#pauseMs = Math.min(Math.max(this.#patience.retryMs, this.#pauseMs * 2), this.#patience.retryMaxMs);
      let link: PeerLink | null = null;
      try {
        link = await this.#open(this.#patience.connectTimeoutMs);
        this.#checkSame(link.shape);
        await this.#replay(link);
        if (this.#isClosed) { await link.close(); return; }
        this.nrReconnects++;
        this.#adopt(link);
        return;
      } catch (e) {
        const why = asDiskError(e, this.name);
        link?.fail(why);
        this.#lastFailure = why;
        // A peer that lies is not waited for; one that does not know us or the disk may be starting.
        if (why.fault === "io") { for (const w of this.#waiting.splice(0)) this.#finish(w, why); return; }
      }
    }
  }
  #checkSame(now: PeerShape): void {
    const was = this.#shape;
    if (now.identity !== was.identity) throw new DiskError("io", `${this.name}: the peer came back with another disk, "${now.identity}" instead of "${was.identity}"`);
    if (now.sizeBytes < was.sizeBytes) throw new DiskError("io", `${this.name}: the peer came back with ${now.sizeBytes} bytes instead of ${was.sizeBytes}`);
    if (now.isReadonly && !was.isReadonly) throw new DiskError("io", `${this.name}: the peer came back read-only`);
    // Requests that wait, and writes that are kept, have the old shape.
    if (now.blockBytes > was.blockBytes) throw new DiskError("io", `${this.name}: the peer came back with blocks of ${now.blockBytes} bytes instead of ${was.blockBytes}`);
    if (now.maxBytes < was.maxBytes || now.maxZeroBytes < was.maxZeroBytes) throw new DiskError("io", `${this.name}: the peer came back and takes ${now.maxBytes} bytes at once instead of ${was.maxBytes}`);
  }
  async #replay(link: PeerLink): Promise<void> {
    for (const group of this.#unflushed.groups(Math.min(64, link.shape.depth))) {
      await Promise.all(group.map(async (w) => {
        try { await this.#makeAgain(link, w); } catch (e) {
          if (e instanceof DiskError && e.fault !== "gone") this.#lost ??= new DiskError("io", `${this.name}: an acknowledged write of ${w.lengthBytes} bytes at ${w.offset} was lost with the connection and could not be made again (${e.message})`, { cause: e });
          else throw e;
        }
      }));
    }
  }
  async #makeAgain(link: PeerLink, w: UnflushedWrite): Promise<void> {
    if (w.bytes) return this.#ask(link, { kind: "write", ...w });
    if (link.shape.canZero) {
      try { return await this.#ask(link, { kind: "zero", ...w }); } catch (e) { if (!(e instanceof DiskError && e.fault === "unsupported")) throw e; }
    }
    const zeros = new Uint8Array(Math.min(w.lengthBytes, link.shape.maxBytes));
    for (let at = 0; at < w.lengthBytes; at += zeros.length) {
      const lengthBytes = Math.min(zeros.length, w.lengthBytes - at);
      await this.#ask(link, { kind: "write", offset: w.offset + at, lengthBytes, bytes: zeros.subarray(0, lengthBytes) });
    }
  }

  // Requests

  /** One request on one link, with the limit of time. */
  #ask(link: PeerLink, r: PeerRequest): Promise<void> {
    const timer = setTimeout(() => link.fail(new DiskError("gone", `${this.name}: no answer to a ${r.kind} of ${r.lengthBytes} bytes at ${r.offset} in ${this.#patience.requestTimeoutMs} ms`)), this.#patience.requestTimeoutMs);
    return link.request(r).finally(() => clearTimeout(timer));
  }
  #submit(request: PeerRequest): Promise<void> {
    if (this.#isClosed) return Promise.reject(new DiskError("closed", `${this.name} is closed`));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ seq: this.#seq++, request, resolve, reject, timer: undefined, giveUpAt: 0, isDone: false });
    this.#pump();
    return promise;
  }
  #finish(w: Waiting, why: DiskError | null): void {
    if (w.isDone) return;
    w.isDone = true;
    clearTimeout(w.timer);
    if (why) w.reject(why);
    else w.resolve();
  }
  #pump(): void {
    const link = this.#link;
    if (!link) return this.#connect();
    while (this.#link === link && this.#waiting.length && this.#running.size < link.shape.depth) {
      const w = this.#waiting.shift()!, r = w.request, mark = this.#unflushed.mark;
      clearTimeout(w.timer);
      w.timer = undefined;
      this.#running.add(w);
      this.#ask(link, r).then(() => {
        if (link.shape.canFlush) {
          if (r.kind === "write" || r.kind === "zero") this.#unflushed.add(r.offset, r.lengthBytes, r.bytes);
          else if (r.kind === "flush") this.#unflushed.forget(mark);
        }
        this.#running.delete(w);
        this.#pauseMs = 0;
        this.#finish(w, null);
        this.#pump();
      }, (e: unknown) => {
        this.#running.delete(w);
        const why = asDiskError(e, this.name);
        if (why.fault === "gone" && !this.#isClosed) { this.#lose(link, why); this.#again(w); return; }
        this.#finish(w, why);
        this.#pump();
      });
    }
  }
  /** Parts of at most `maxBytes`, all under way together. */
  async #parts(kind: "read" | "write" | "zero" | "trim", offset: number, lengthBytes: number, bytes: Uint8Array | null): Promise<void> {
    const maxBytes = bytes ? this.#shape.maxBytes : this.#shape.maxZeroBytes;
    if (lengthBytes <= maxBytes) return this.#submit({ kind, offset, lengthBytes, bytes });
    // The caller has its buffer back when no part is under way any more.
    const parts: Promise<void>[] = [];
    for (let at = 0; at < lengthBytes; at += maxBytes) {
      const n = Math.min(maxBytes, lengthBytes - at);
      parts.push(this.#submit({ kind, offset: offset + at, lengthBytes: n, bytes: bytes ? bytes.subarray(at, at + n) : null }));
    }
    for (const p of await Promise.allSettled(parts)) if (p.status === "rejected") throw p.reason;
  }
  /** Run a writer: beside others when it writes whole blocks, alone when it must read the rest of a block first. */
  #asWriter(isWhole: boolean, work: () => Promise<void>): Promise<void> {
    if (this.#shape.blockBytes <= SECTOR_BYTES) return work();
    // Who was called first stands first in line: callbacks of one promise run in the order they were attached.
    if (isWhole) {
      return this.#alone.then(() => {
        const run = work(), settled = run.catch(() => {});
        this.#writers.add(settled);
        return run.finally(() => this.#writers.delete(settled));
      });
    }
    const run = this.#alone.then(async () => { await Promise.all(this.#writers); await work(); });
    this.#alone = run.catch(() => {});
    return run;
  }
  async #relieve(): Promise<void> {
    if (!this.#shape.canFlush || this.#unflushed.sizeBytes < this.#patience.unflushedBytesMax) return;
    await (this.#relief ??= this.#submit({ kind: "flush", offset: 0, lengthBytes: 0, bytes: null })
      .catch((e: DiskError) => { if (e.fault !== "gone") this.#lost ??= e; throw e; })
      .finally(() => { this.#relief = null; }));
  }
  #writable(): void {
    if (this.#isClosed) throw new DiskError("closed", `${this.name} is closed`);
    if (this.isReadonly) throw new DiskError("readonly", `${this.name} is read-only`);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    if (into.length === 0) return;
    const b = this.#shape.blockBytes, from = offset - (offset % b), to = Math.ceil((offset + into.length) / b) * b;
    if (from === offset && to === offset + into.length) return this.#parts("read", offset, into.length, into);
    const whole = new Uint8Array(to - from);
    await this.#parts("read", from, whole.length, whole);
    into.set(whole.subarray(offset - from, offset - from + into.length));
  }
  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#writable();
    checkRange(this, offset, from.length);
    if (from.length === 0) return;
    await this.#relieve();
    const b = this.#shape.blockBytes, start = offset - (offset % b), end = Math.ceil((offset + from.length) / b) * b, isWhole = start === offset && end === offset + from.length;
    await this.#asWriter(isWhole, async () => {
      if (isWhole) return this.#parts("write", offset, from.length, from);
      const whole = new Uint8Array(end - start);
      await this.#parts("read", start, b, whole.subarray(0, b));
      if (whole.length > b) await this.#parts("read", end - b, b, whole.subarray(whole.length - b));
      whole.set(from, offset - start);
      await this.#parts("write", start, whole.length, whole);
    });
  }
  async flush(): Promise<void> {
    if (this.#isClosed) throw new DiskError("closed", `${this.name} is closed`);
    if (!this.#shape.canFlush || this.isReadonly) return;
    await this.#submit({ kind: "flush", offset: 0, lengthBytes: 0, bytes: null });
    const lost = this.#lost;
    this.#lost = null;
    if (lost) throw lost;
  }
  async discard(offset: number, lengthBytes: number): Promise<void> {
    this.#writable();
    checkRange(this, offset, lengthBytes);
    const b = this.#shape.blockBytes, from = Math.ceil(offset / b) * b, to = (offset + lengthBytes) - ((offset + lengthBytes) % b);
    if (!this.#shape.canTrim || to <= from) return;
    try { await this.#asWriter(true, () => this.#parts("trim", from, to - from, null)); } catch (e) {
      if (!(e instanceof DiskError && e.fault === "unsupported")) throw e;
    }
  }
  async writeZeros(offset: number, lengthBytes: number): Promise<void> {
    this.#writable();
    checkRange(this, offset, lengthBytes);
    if (lengthBytes === 0) return;
    await this.#relieve();
    const b = this.#shape.blockBytes;
    if (this.#shape.canZero && offset % b === 0 && lengthBytes % b === 0) {
      try { return await this.#asWriter(true, () => this.#parts("zero", offset, lengthBytes, null)); } catch (e) {
        if (!(e instanceof DiskError && e.fault === "unsupported")) throw e;
      }
    }
    const zeros = new Uint8Array(Math.min(lengthBytes, 1 << 20));
    for (let at = 0; at < lengthBytes; at += zeros.length) await this.write(offset + at, zeros.subarray(0, Math.min(zeros.length, lengthBytes - at)));
  }
  resize(): Promise<void> {
    return Promise.reject(new DiskError("unsupported", `${this.name}: the size of a ${this.format} disk is its server's to change`));
  }
  close(): Promise<void> {
    return (this.#closing ??= (async () => {
      try {
        if (this.#link || !this.#unflushed.isEmpty || this.#running.size || this.#waiting.length) await this.flush();
      } finally {
        this.#isClosed = true;
        for (const w of this.#waiting.splice(0)) this.#finish(w, new DiskError("closed", `${this.name} is closed`));
        this.#wake?.();
        const link = this.#link;
        this.#link = null;
        if (link) { link.onLost = null; await link.close().catch(() => {}); }
      }
    })());
  }
}
